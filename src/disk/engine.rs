//! The store's engine: persistent maps in memory, rebuilt from the log when a node starts.
//!
//! Each space is an ordered map whose nodes are shared between the engine and its snapshots and
//! copied when one of the two changes, so a snapshot is a handful of reference counts. Why this
//! one, with figures: `docs/decisions/0002-engine.md`.
//!
//! A row is one allocation that holds key and value; that is less memory than two, and one
//! reference to count when a node is copied. The cost: everything must fit in memory, and a start
//! applies the whole log.

use crate::paxos::ballot::Slot;
use crate::store::engine::{Batch, Engine, ReadEngine, Space};
use bytes::Bytes;
use imbl::OrdSet;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// All data, and what a snapshot of it is.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    spaces: [OrdSet<Row>; Space::COUNT],
    applied: Slot,
}

/// Bytes of the number at the start of a row that says how long its key is.
const KEY_LENGTH_BYTES: usize = 4;

/// The key's length, the key, the value. Compared by key alone.
#[derive(Debug, Clone)]
struct Row(Arc<[u8]>);

impl Row {
    fn new(key: &[u8], value: &[u8]) -> Row {
        let length = u32::try_from(key.len()).expect("keys are far shorter than 4 GiB");
        let parts = [&length.to_le_bytes(), key, value];
        Row(parts.concat().into())
    }

    fn key_end(&self) -> usize {
        let length = self.0.first_chunk().expect("every row begins with its key's length");
        KEY_LENGTH_BYTES + u32::from_le_bytes(*length) as usize
    }

    fn key(&self) -> &[u8] {
        &self.0[KEY_LENGTH_BYTES..self.key_end()]
    }

    fn shared(&self) -> (Bytes, Bytes) {
        let end = self.key_end();
        let row = Bytes::from_owner(self.clone());
        (row.slice(KEY_LENGTH_BYTES..end), row.slice(end..))
    }
}

impl AsRef<[u8]> for Row {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Row) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Row) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl MemoryEngine {
    /// An empty one.
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    fn space(&self, space: Space) -> &OrdSet<Row> {
        &self.spaces[space as usize]
    }
}

impl ReadEngine for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Option<Bytes> {
        self.space(space).get(key).map(|row| row.shared().1)
    }

    fn range(&self, space: Space, from: Bound<&[u8]>) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        self.space(space).range::<_, [u8]>((from, Bound::Unbounded)).map(Row::shared)
    }
}

impl Engine for MemoryEngine {
    type Snapshot = MemoryEngine;

    fn applied(&self) -> Slot {
        self.applied
    }

    fn commit(&mut self, batch: Batch) {
        for change in batch.changes {
            let space = &mut self.spaces[change.space as usize];
            match change.value {
                Some(value) => {
                    space.insert(Row::new(&change.key, &value));
                }
                None => {
                    space.remove(&change.key[..]);
                }
            }
        }
        self.applied = batch.applied;
    }

    fn snapshot(&self) -> MemoryEngine {
        self.clone()
    }
}
