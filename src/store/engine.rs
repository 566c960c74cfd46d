//! What the store needs of whatever holds its data: ordered spaces, atomic batches, cheap
//! snapshots.
//!
//! An engine knows nothing of sessions or revisions. It must be deterministic, which ordered maps
//! are, and it must keep a batch whole: either all of its changes and its slot are there, or
//! nothing of it. An engine in memory is rebuilt from the log; one on disk opens where
//! [`Engine::applied`] says.
//!
//! **Versions of keys, later.** [`Space::Keys`] holds the newest version of each key and goes on
//! doing so, so that a read stays one lookup. Older versions will get a space of their own, ordered
//! by key and then revision, and changes by revision another; nothing that is stored now changes
//! its place for that.

use crate::paxos::ballot::Slot;
use bytes::Bytes;
use std::ops::Bound;

/// An ordered map of its own from bytes to bytes. The numbers are for engines that keep all in one
/// map, and for snapshots: they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Space {
    /// One row: how far the store is.
    Meta = 0,
    /// What clients put: key to its newest version.
    Keys = 1,
    /// Session to what is known of it.
    Sessions = 2,
    /// Session and sequence number to the outcome.
    Outcomes = 3,
    /// Nonce and principal to the session that was opened with them.
    Nonces = 4,
    /// Time of expiry and session to nothing.
    Expiries = 5,
    /// Principal and request id to the slot and the outcome.
    Requests = 6,
    /// Slot to the row of [`Space::Requests`] that it made.
    RequestAges = 7,
}

impl Space {
    /// How many spaces there are; they are numbered from 0.
    pub const COUNT: usize = 8;
}

/// One change to one space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub space: Space,
    /// Which row.
    pub key: Bytes,
    /// What it holds from now on; none if it goes.
    pub value: Option<Bytes>,
}

/// All that one slot changes. Later changes of a row replace earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The slot.
    pub applied: Slot,
    /// Its changes, in order.
    pub changes: Vec<Change>,
}

/// Something that can be read: an engine, or a snapshot of one.
pub trait ReadEngine {
    /// The value of one row.
    fn get(&self, space: Space, key: &[u8]) -> Option<Bytes>;

    /// The rows from `from` on, in the order of their keys.
    fn range(&self, space: Space, from: Bound<&[u8]>) -> impl Iterator<Item = (Bytes, Bytes)> + '_;
}

/// Holds the store's data.
pub trait Engine: ReadEngine {
    /// What the data was at one moment: does not change, takes no copy of it, and holds up no
    /// writer.
    type Snapshot: ReadEngine + Clone + Send + Sync + 'static;

    /// The slot of the last batch; 0 before the first.
    fn applied(&self) -> Slot;

    /// Makes all changes of the batch, or, if the process ends meanwhile, none. Keys and values may
    /// share memory with larger buffers: an engine that keeps them copies them.
    fn commit(&mut self, batch: Batch);

    /// The data as it is now.
    fn snapshot(&self) -> Self::Snapshot;
}
