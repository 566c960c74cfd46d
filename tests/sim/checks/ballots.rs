//! Ballots: each is issued once, one process leads under it, and it proposes one value for a slot.
//!
//! Source: Lamport, "Paxos Made Simple" (2001), §2.2: different proposers choose their numbers from
//! disjoint sets, so two never issue the same one. Everything that P2c proves about "the proposal
//! numbered n" needs it to be one proposal.

use super::{EntryDigest, Machine, violated};
use paxos_ssh::paxos::ballot::{Ballot, Slot};
use std::collections::BTreeMap;

/// See the module's documentation.
#[derive(Default)]
pub struct Ballots {
    issued: BTreeMap<Ballot, (Machine, u64)>,
    leaders: BTreeMap<Ballot, (Machine, u64)>,
    proposals: BTreeMap<(Ballot, Slot), EntryDigest>,
}

impl Ballots {
    /// A process, in its `life`-th life, starts phase 1.
    pub fn issued(&mut self, ballot: Ballot, machine: Machine, life: u64) {
        if let Some((other, _)) = self.issued.insert(ballot, (machine, life)) {
            violated("ballots", &format!("{ballot} was issued by {other} and now by {machine}"));
        }
    }

    /// A process leads.
    pub fn leads(&mut self, ballot: Ballot, machine: Machine, life: u64) {
        if self.issued.get(&ballot) != Some(&(machine, life)) {
            violated("ballots", &format!("{machine} leads under {ballot}, which it never issued"));
        }
        if let Some((other, _)) = self.leaders.insert(ballot, (machine, life)) {
            violated("ballots", &format!("{other} and {machine} lead under {ballot}"));
        }
    }

    /// A proposal under this ballot was seen, on its way or in a log.
    pub fn proposed(&mut self, ballot: Ballot, slot: Slot, entry: EntryDigest) {
        let known = *self.proposals.entry((ballot, slot)).or_insert(entry);
        if known != entry {
            let what = format!("{ballot} proposed two values for slot {slot}");
            violated("ballots", &what);
        }
    }
}
