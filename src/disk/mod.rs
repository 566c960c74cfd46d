//! What survives a crash: the acceptor's log, and the engine under the store.
//!
//! The log is asynchronous. [`Log::append`] hands records over and returns; a thread of the log
//! writes them in order, makes them durable, and says so with [`LogEvent::Durable`]. All that was
//! appended during one write shares the next, so the more there is to do, the fewer syncs each
//! record costs. The core keeps its pledges until their records are durable; nothing here knows
//! what a pledge is.
//!
//! What the log must never do: report as durable what a power cut could take, drop a record that it
//! reported as durable, or go on after a sync failed (the kernel may then have forgotten the dirty
//! pages, and a second sync would report success for data that is not there).

pub mod engine;
pub mod files;
mod index;
pub mod log;
pub mod memory;
mod queue;
mod recovery;
mod segment;
mod spare;
mod thread;
pub mod writer;

use crate::paxos::ballot::{NodeId, Slot};
use crate::paxos::message::{Entry, Payload};
use crate::paxos::record::{LogPosition, Record, ReplayError};
use crate::telemetry::watchdog::Watched;
use crate::wire::DecodeError;
use bytes::Bytes;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long records that nobody waits for may stay unwritten. They only spare a restarted node some
/// questions to its peers.
pub const LAZY_SYNC: Duration = Duration::from_secs(1);

/// The longest time that the log's writer may take for one step. No disk in order takes this long
/// for a sync, and the writer looks around at least each [`LAZY_SYNC`] when there is nothing to do.
const WRITER_TURN_MAX: Duration = Duration::from_secs(2);

/// How the log's writer is watched.
pub fn watched() -> Watched {
    Watched {
        name: "log-writer".to_owned(),
        limit: WRITER_TURN_MAX,
        next: "look at the disk of the data directory (dmesg, iostat); the node goes on by itself \
               once it recovers",
    }
}

/// The log as the node's driver sees it.
pub trait Log: Send {
    /// Hands records over and returns at once. They are written in order; durability is reported
    /// later. Nothing is refused here, for the core already counts on them: see [`Log::is_full`].
    fn append(&mut self, records: Vec<Record<Bytes>>);

    /// Somebody waits for everything appended so far: make it durable soon. What nobody waits for
    /// (news of what is chosen) may stay behind until the next sync, or for [`LAZY_SYNC`], and
    /// costs no sync of its own.
    fn sync(&mut self);

    /// Whether so much waits to be written that the node should take no more proposals.
    fn is_full(&self) -> bool;

    /// Chosen entries of `first..=last`, without gaps: as many as fit in `bytes_max`, but at least
    /// one. Reads from the disk, unless the entries were not yet written.
    ///
    /// # Errors
    /// When the log holds no chosen value of `first`, or its record cannot be read back as it was
    /// written.
    fn read(
        &mut self,
        first: Slot,
        last: Slot,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Entry<Bytes>>>, LogError>;
}

/// Whose log it is. A directory that was begun for one owner is refused to any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOwner {
    /// The cluster's name.
    pub cluster_name: String,
    /// The node.
    pub node: NodeId,
}

/// What the log tells its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEvent {
    /// Every record before `position` will survive a crash.
    Durable {
        /// How many records are durable.
        position: LogPosition,
        /// How long the sync took, for the disk's health.
        took: Duration,
    },
    /// There is no room. The log keeps what it was given and tries again; nothing becomes durable
    /// meanwhile.
    Full,
    /// There is room again.
    Room,
}

/// Why a log cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system said no.
    #[error(
        "could not {action} {}: {source}; check the disk and the directory's owner",
        path.display()
    )]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process has the directory open.
    #[error(
        "the log in {} is in use by another process{}; stop that one first",
        path.display(), holder.as_ref().map(|pid| format!(" ({pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id that it left behind.
        holder: Option<String>,
    },
    /// The directory was begun for somebody else.
    #[error(
        "{} is the log of node {} of cluster {}, not of node {} of cluster {}; \
         give this node a directory of its own",
        path.display(), found.node.0, found.cluster_name, wanted.node.0, wanted.cluster_name
    )]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// Whose it is.
        found: LogOwner,
        /// Who asked.
        wanted: LogOwner,
    },
    /// Others could write to the log.
    #[error(
        "{} has mode {mode:03o}, so others may write to it; run: chmod 700 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The cluster's name does not fit in a segment's header.
    #[error("the cluster's name has {bytes} bytes; use at most {bytes_max}")]
    NameTooLong {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// Bytes that were durable are gone or changed.
    #[error(
        "{} is damaged at byte {offset}: {why}; this voter's memory cannot be trusted: keep the \
         directory for inspection, and let the node rejoin with an empty one under a new voter \
         generation",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// The file's layout is that of another program version.
    #[error(
        "{} has layout version {found}, this program knows {known}; run the version that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// An intact record that cannot be understood.
    #[error("{} holds at byte {offset} what this program cannot read: {error}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        error: DecodeError,
    },
    /// Intact records that contradict each other.
    #[error("the log in {} contradicts itself: {error}; report this fault", path.display())]
    Contradiction {
        /// The directory.
        path: PathBuf,
        /// The contradiction.
        error: ReplayError,
    },
    /// No chosen value is known for this slot.
    #[error("the log holds no chosen value of slot {slot}; fetch it from a peer")]
    Missing {
        /// The slot.
        slot: Slot,
    },
}

/// What an entry adds to the size of an answer; small change beside its command is not counted.
fn command_bytes(entry: &Entry<Bytes>) -> usize {
    match &entry.payload {
        Payload::Command(command) => command.len(),
        Payload::Noop | Payload::Configuration(_) | Payload::Floor(_) => 0,
    }
}
