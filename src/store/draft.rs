//! The changes that one slot makes, before the engine has them.

use super::digest::Digest;
use super::engine::{Batch, Change, ReadEngine, Space};
use super::rows::{META_KEY, Meta};
use crate::paxos::ballot::Slot;
use bytes::Bytes;
use std::ops::Bound;

/// An engine with changes on top. Reads see the changes.
pub(super) struct Draft<'a, E> {
    engine: &'a E,
    /// A slot makes a dozen at most, unless many sessions end at once; so searching it from the end
    /// is quicker than any index.
    changes: Vec<Change>,
    /// The sums as they will be.
    pub meta: Meta,
}

impl<'a, E: ReadEngine> Draft<'a, E> {
    pub(super) fn new(engine: &'a E, meta: Meta) -> Draft<'a, E> {
        Draft { engine, changes: Vec::with_capacity(8), meta }
    }

    pub(super) fn get(&self, space: Space, key: &[u8]) -> Option<Bytes> {
        let drafted = self.changes.iter().rev();
        let mut drafted = drafted.filter(|change| change.space == space && change.key == key);
        match drafted.next() {
            Some(change) => change.value.clone(),
            None => self.engine.get(space, key),
        }
    }

    /// The rows from `from` on as they were before the slot; see [`Draft::get`] for whether one is
    /// still there.
    pub(super) fn range_before(
        &self,
        space: Space,
        from: Bound<&[u8]>,
    ) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.engine.range(space, from)
    }

    pub(super) fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.changes.push(Change { space, key, value: Some(value) });
    }

    pub(super) fn delete(&mut self, space: Space, key: Bytes) {
        self.changes.push(Change { space, key, value: None });
    }

    /// All changes, with the digest and the sums brought up to `slot`.
    pub(super) fn finish(mut self, slot: Slot) -> (Batch, Meta) {
        let mut digest = Digest(self.meta.digest);
        digest.word(slot.0);
        digest.word(self.meta.time.0);
        self.changes.iter().for_each(|change| digest.change(change));
        self.meta.digest = digest.0;
        self.meta.applied = slot;
        self.put(Space::Meta, META_KEY, self.meta.encode());
        (Batch { applied: slot, changes: self.changes }, self.meta)
    }
}
