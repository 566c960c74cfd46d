//! The store as it was at one slot, for readers that do not wait for it.

use super::engine::{ReadEngine, Space};
use super::rows::{Meta, decode_key_value};
use crate::paxos::ballot::{ClusterTime, Slot};
use bytes::Bytes;
use std::ops::Bound;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The bytes that were put.
    pub value: Bytes,
    /// The revision at which the key came to be; a key that was deleted comes to be anew.
    pub create_revision: u64,
    /// The revision at which it was last put.
    pub mod_revision: u64,
    /// How often it was put since it came to be, from 1.
    pub version: u64,
}

/// An immutable state of the store. Cheap to make and to clone, and as consistent as the slot it
/// was made at.
#[derive(Debug, Clone)]
pub struct View<S> {
    snapshot: S,
    meta: Meta,
}

impl<S: ReadEngine> View<S> {
    pub(super) fn new(snapshot: S, meta: Meta) -> View<S> {
        View { snapshot, meta }
    }

    /// What the key holds.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.snapshot.get(Space::Keys, key).map(decode_key_value)
    }

    /// The keys that begin with `prefix` and come after `after`, in order, at most `limit` of them.
    pub fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<(Bytes, KeyValue)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = self.snapshot.range(Space::Keys, from);
        rows.take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, row)| (key, decode_key_value(row)))
            .collect()
    }

    /// How many changes to keys were made since genesis.
    pub fn revision(&self) -> u64 {
        self.meta.revision
    }

    /// The last slot that this state includes.
    pub fn applied(&self) -> Slot {
        self.meta.applied
    }

    /// The replicated time at that slot.
    pub fn time(&self) -> ClusterTime {
        self.meta.time
    }

    /// How many keys there are.
    pub fn count(&self) -> u64 {
        self.meta.keys
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> u64 {
        self.meta.sessions
    }
}
