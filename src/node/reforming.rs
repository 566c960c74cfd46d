//! A survivor's log takes up what an operator decreed; see [`crate::paxos::reform`].
//!
//! The file is consumed when the process starts, durably, before anybody is heard or answered.
//! Until it is removed the same is done again, and comes to the same.

use super::founding::{FoundingError, append, consumed, read_optional};
use crate::disk::LogEvent;
use crate::disk::log::DiskLog;
use crate::paxos::ballot::NodeId;
use crate::paxos::record::Recovered;
use crate::paxos::reform::reform;
use crate::wire::decree::{DECREE_FILE, decode_decree};
use bytes::Bytes;
use std::path::Path;
use std::sync::mpsc::Receiver;
use tracing::warn;

/// Takes up the decree in `data_dir`, if there is one, into the log of node `me`.
///
/// # Errors
/// When the file cannot be used, or is not for this log; then the log is as it was.
pub fn reformed(
    data_dir: &Path,
    me: NodeId,
    log: &mut DiskLog,
    recovered: &mut Recovered<Bytes>,
    durable: &Receiver<LogEvent>,
) -> Result<(), FoundingError> {
    let path = data_dir.join(DECREE_FILE);
    let Some(text) = read_optional(&path)? else { return Ok(()) };
    let decree = decode_decree(&text)
        .map_err(|source| FoundingError::Decree { path: path.clone(), source })?;
    let records = reform(recovered, me, &decree)
        .map_err(|source| FoundingError::Reform { path: path.clone(), source })?;
    if !records.is_empty() {
        append(records, log, recovered, durable)?;
        warn!(
            taken_over_to = %decree.last, configuration = decree.configuration.number.0,
            "the cluster goes on with its survivors, as an operator decreed"
        );
    }
    consumed(&path)
}
