//! What must hold of any history, whatever was lost on the way.

use paxos_ssh::node::driver::StoreView;
use paxos_ssh::paxos::ballot::Slot;
use std::collections::BTreeMap;

/// Knows what was acknowledged, and what every node's store looked like at every slot.
#[derive(Default)]
pub struct Checker {
    /// The digest of the store at a slot, as the first node that got there had it.
    digests: BTreeMap<Slot, u64>,
    /// Key and value of each write whose success a client was told.
    acknowledged: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The highest revision that a client was told.
    revision: u64,
}

impl Checker {
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// The revision that a read starting now must not fall short of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Agreement: stores that applied the same slots are the same.
    pub fn applied(&mut self, node: u64, slot: Slot, digest: u64) {
        let known = *self.digests.entry(slot).or_insert(digest);
        assert_eq!(known, digest, "node {node} disagrees with others about slots up to {slot}");
    }

    /// A client was told that its write succeeded.
    pub fn wrote(&mut self, key: &[u8], value: &[u8], revision: u64) {
        self.revision = self.revision.max(revision);
        let before = self.acknowledged.insert(key.to_vec(), value.to_vec());
        assert!(before.is_none(), "one write was acknowledged twice");
    }

    /// A client was told that it may read, having asked when `floor` was the newest revision known.
    pub fn read(&self, floor: u64, seen: u64) {
        assert!(
            seen >= floor,
            "a read saw revision {seen} though {floor} was acknowledged before it"
        );
    }

    /// Durability and single execution: each acknowledged write is there, and was executed once.
    /// Every write of the workload has a key of its own, so a second execution shows as a second
    /// version.
    pub fn complete(&self, view: &StoreView) {
        for (key, value) in &self.acknowledged {
            let found = view.get(key).unwrap_or_else(|| {
                panic!("{} was acknowledged and is lost", String::from_utf8_lossy(key))
            });
            assert_eq!(&found.value[..], &value[..], "an acknowledged value changed");
        }
        for (key, found) in view.list(b"", None, usize::MAX) {
            let key = String::from_utf8_lossy(&key).into_owned();
            assert_eq!(found.version, 1, "{key} was written {} times", found.version);
        }
    }
}
