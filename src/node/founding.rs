//! How a log begins: the genesis file is consumed, once, durably.
//!
//! A log without a genesis takes no part in anything. One that has a genesis keeps it, whatever
//! file turns up later: a second file for the same cluster is what a crash between the two steps
//! below leaves behind, and one for another cluster is a mistake to be told, not obeyed.

use crate::disk::log::DiskLog;
use crate::disk::{Log, LogEvent};
use crate::paxos::record::{Record, Recovered};
use crate::wire::genesis::{GenesisError, decode_genesis};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tracing::info;

/// The file's name in the data directory.
pub const GENESIS_FILE: &str = "genesis.yaml";

/// How long the first record of a log may take to become durable before somebody should look at the
/// disk.
const FIRST_SYNC_MAX: Duration = Duration::from_secs(60);

/// Why a log cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// The file cannot be read or removed.
    #[error("cannot {action} {path}: {source}; mend its permissions")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is no genesis.
    #[error("{path}: {source}")]
    Genesis {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: GenesisError,
    },
    /// The log belongs to another cluster than the file.
    #[error(
        "{path} founds cluster {wanted}, but the log beside it belongs to cluster \
         {found}; remove the file \
         if the log is right, or give this node a directory of its own"
    )]
    OtherCluster {
        /// Which file.
        path: PathBuf,
        /// The file's cluster.
        wanted: String,
        /// The log's cluster.
        found: String,
    },
    /// The disk did not take the first record.
    #[error("the first record of the log did not become durable within {0:?}; look at the disk")]
    Slow(Duration),
    /// The log contradicts itself.
    #[error("the log cannot begin: {0}")]
    Replay(#[from] crate::paxos::record::ReplayError),
}

/// Consumes the genesis file in `data_dir`, if there is one, into a log that has none.
///
/// # Errors
/// When the file cannot be used, or is for another cluster than the log.
pub fn found(
    data_dir: &Path,
    log: &mut DiskLog,
    recovered: &mut Recovered<Bytes>,
    durable: &Receiver<LogEvent>,
) -> Result<(), FoundingError> {
    let path = data_dir.join(GENESIS_FILE);
    let io = |action| {
        let path = path.clone();
        move |source| FoundingError::Io { action, path, source }
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("read")(error)),
    };
    let file = decode_genesis(&text)
        .map_err(|source| FoundingError::Genesis { path: path.clone(), source })?;
    match &recovered.genesis {
        Some(genesis) if genesis.cluster != file.genesis.cluster => {
            return Err(FoundingError::OtherCluster {
                path,
                wanted: file.genesis.cluster.to_string(),
                found: genesis.cluster.to_string(),
            });
        }
        Some(_) => {}
        None => {
            let record = Record::Genesis { genesis: file.genesis, generation: file.generation };
            log.append(vec![record.clone()]);
            log.sync();
            recovered.replay(record)?;
            let end = recovered.end;
            let is_durable = |event| match event {
                LogEvent::Durable { position, .. } => position >= end,
                LogEvent::Full | LogEvent::Room => false,
            };
            let mut events = std::iter::from_fn(|| durable.recv_timeout(FIRST_SYNC_MAX).ok());
            if !events.any(is_durable) {
                return Err(FoundingError::Slow(FIRST_SYNC_MAX));
            }
            info!("the log begins: genesis consumed");
        }
    }
    std::fs::remove_file(&path).map_err(io("remove"))
}
