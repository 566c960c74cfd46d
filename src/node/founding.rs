//! How a log begins: the genesis file is consumed, once, durably.
//!
//! A log without a genesis takes no part in anything. One that has a genesis keeps it, whatever
//! file turns up later: a second file for the same cluster is what a crash between the two steps
//! below leaves behind, and one for another cluster is a mistake to be told, not obeyed.

use crate::disk::log::DiskLog;
use crate::disk::{Log, LogEvent};
use crate::paxos::record::{Record, Recovered};
use crate::paxos::reform::ReformError;
use crate::wire::decree::DecreeError;
use crate::wire::genesis::{GenesisError, decode_genesis};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tracing::info;

/// The file's name in the data directory.
pub const GENESIS_FILE: &str = "genesis.yaml";

/// How long what is added before a node takes part may take to become durable before somebody
/// should look at the disk.
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
    /// The file is no decree.
    #[error("{path}: {source}")]
    Decree {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: DecreeError,
    },
    /// What is decreed cannot be done to this log.
    #[error(
        "{path} was not taken up, and the log is as it was: {source}; if it lies here by mistake, \
         remove it, else recover again with paxos-ctl"
    )]
    Reform {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: ReformError,
    },
    /// The disk did not take what the log begins with, or goes on with.
    #[error("what was added to the log did not become durable within {0:?}; look at the disk")]
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
    let Some(text) = read_optional(&path)? else { return Ok(()) };
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
            append(vec![record], log, recovered, durable)?;
            info!("the log begins: genesis consumed");
        }
    }
    consumed(&path)
}

/// The file's text; none if there is no file.
pub(super) fn read_optional(path: &Path) -> Result<Option<String>, FoundingError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FoundingError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// Appends records, and waits until they are durable.
pub(super) fn append(
    records: Vec<Record<Bytes>>,
    log: &mut DiskLog,
    recovered: &mut Recovered<Bytes>,
    durable: &Receiver<LogEvent>,
) -> Result<(), FoundingError> {
    for record in &records {
        recovered.replay(record.clone())?;
    }
    let end = recovered.end;
    log.append(records);
    log.sync();
    let is_durable = |event| match event {
        LogEvent::Durable { position, .. } => position >= end,
        LogEvent::Full | LogEvent::Room => false,
    };
    let mut events = std::iter::from_fn(|| durable.recv_timeout(FIRST_SYNC_MAX).ok());
    match events.any(is_durable) {
        true => Ok(()),
        false => Err(FoundingError::Slow(FIRST_SYNC_MAX)),
    }
}

/// Removes a file that was taken up.
pub(super) fn consumed(path: &Path) -> Result<(), FoundingError> {
    std::fs::remove_file(path).map_err(|source| FoundingError::Io {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}
