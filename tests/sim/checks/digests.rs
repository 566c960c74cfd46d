//! Digests: stores that applied the same slots are the same.
//!
//! Source: Schneider, "Implementing Fault-Tolerant Services Using the State Machine Approach"
//! (1990), §2: a deterministic machine that is given the same requests in the same order goes
//! through the same states. The store's digest covers everything that was ever applied.

use super::{Machine, violated};
use paxos_ssh::paxos::ballot::Slot;
use std::collections::BTreeMap;

/// See the module's documentation.
#[derive(Default)]
pub struct Digests {
    /// As the first node that got there had it.
    digests: BTreeMap<Slot, (u64, Machine)>,
    applied: BTreeMap<Machine, Slot>,
}

impl Digests {
    /// A process starts with the store that its log makes.
    pub fn started(&mut self, machine: Machine) {
        self.applied.remove(&machine);
    }

    /// A node's store is at this slot, and this is its digest.
    pub fn applied(&mut self, machine: Machine, slot: Slot, digest: u64) {
        let before = self.applied.insert(machine, slot).unwrap_or_default();
        if slot < before {
            violated("digests", &format!("{machine} went back from slot {before} to {slot}"));
        }
        let (known, first) = *self.digests.entry(slot).or_insert((digest, machine));
        if known != digest {
            violated("digests", &format!("{machine} and {first} differ after slot {slot}"));
        }
    }
}
