//! Acknowledged: a write whose success a client was told is never lost, a read that starts
//! afterwards is not older than it, and a write that a client was told is not applied is not.
//!
//! Source: durability, as the service promises it (`docs/protocol.md`, "What is agreed on"); the
//! order of a read behind an acknowledged write is the real-time order of Herlihy and Wing,
//! "Linearizability" (1990), §2. Revisions make this cheap to check for every key at once; values
//! of a few keys are searched in `linearizable.rs`.

use super::violated;
use bytes::Bytes;
use paxos_ssh::node::driver::StoreView;
use paxos_ssh::wire::answer::Record;
use paxos_ssh::wire::store_call::Found;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// See the module's documentation.
#[derive(Default)]
pub struct Acknowledged {
    /// Key, value and revision of each write to a key of its own.
    writes: BTreeMap<Vec<u8>, (Bytes, u64)>,
    /// The highest revision that a client was told.
    revision: u64,
    /// Keys whose one write was said to be certainly not applied.
    refused: BTreeSet<Vec<u8>>,
    /// Everything acknowledged, registers included.
    count: u64,
    reads: u64,
}

impl Acknowledged {
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// The revision that a read starting now must not fall short of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A client was told that a change happened at this revision.
    pub fn changed(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
        self.count += 1;
    }

    /// A client was told that its write to a key of its own succeeded.
    pub fn wrote(&mut self, key: &[u8], value: Bytes, revision: u64) {
        self.changed(revision);
        if self.writes.insert(key.to_vec(), (value, revision)).is_some() {
            violated("acknowledged", "one write was acknowledged twice");
        }
    }

    /// A client was told that its write to a key of its own was certainly not applied.
    pub fn refused(&mut self, key: &[u8]) {
        self.refused.insert(key.to_vec());
    }

    /// A client was told that it may read, having asked when `floor` was the newest revision known.
    pub fn read(&mut self, floor: u64, seen: u64) {
        self.reads += 1;
        if seen < floor {
            let what =
                format!("a read saw revision {seen} though {floor} was acknowledged before it");
            violated("acknowledged", &what);
        }
    }

    /// A list of keys that are written once, of what follows `after`: in order, and with every
    /// acknowledged write that its revision includes.
    pub fn listed(&self, after: &[u8], found: &Found) {
        let mut last = after;
        for record in &found.records {
            if record.key[..] <= *last {
                violated("acknowledged", &format!("a list has {:?} twice", record.key));
            }
            last = &record.key;
        }
        let listed: BTreeMap<&[u8], &Record> =
            found.records.iter().map(|record| (&record.key[..], record)).collect();
        let end = if found.ended { Bound::Unbounded } else { Bound::Included(last.to_vec()) };
        let due = self.writes.range((Bound::Excluded(after.to_vec()), end));
        for (key, (value, revision)) in due.filter(|(_, (_, at))| *at <= found.revision) {
            let name = String::from_utf8_lossy(key);
            match listed.get(&key[..]) {
                None => violated("acknowledged", &format!("a list leaves out {name}")),
                Some(record)
                    if record.value.as_ref() != Some(value) || record.revision != *revision =>
                {
                    violated("acknowledged", &format!("a list has another {name}"));
                }
                Some(_) => {}
            }
        }
    }

    /// Each acknowledged write is there, and what was refused is not.
    pub fn complete(&self, view: &StoreView) {
        for (key, (value, revision)) in &self.writes {
            let name = String::from_utf8_lossy(key);
            let Some(found) = view.get(key) else {
                violated("acknowledged", &format!("{name} was acknowledged and is lost"));
            };
            if found.value[..] != value[..] || found.mod_revision != *revision {
                violated("acknowledged", &format!("{name} is not as it was acknowledged"));
            }
        }
        for key in &self.refused {
            if view.get(key).is_some() {
                let name = String::from_utf8_lossy(key);
                violated("acknowledged", &format!("{name} was said not to be applied, and it was"));
            }
        }
    }
}
