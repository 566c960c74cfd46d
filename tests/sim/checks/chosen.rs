//! Chosen is for ever: a slot never has two chosen values, nobody proposes another value under a
//! higher ballot, and nothing is learned unless a quorum chose it.
//!
//! Source: Lamport, "Paxos Made Simple" (2001), §2.2 (P2b: if a proposal with value v is chosen,
//! then every higher-numbered proposal issued by any proposer has value v); the size of a quorum
//! after Howard, Malkhi, Spiegelman, "Flexible Paxos" (2016), §4.
//!
//! A vote is a durable record in the log of an acceptor, seen on its way to the disk: no node is
//! asked what it thinks is chosen. A value is chosen when a phase-2 quorum voted for it in one
//! ballot.

use super::{EntryDigest, Machine, violated};
use paxos_ssh::paxos::ballot::{Ballot, Slot};
use std::collections::{BTreeMap, BTreeSet};

type Proposal = (EntryDigest, Ballot);

fn check_proposal(slot: Slot, (value, chosen): Proposal, (proposed, ballot): Proposal) {
    if ballot > chosen && proposed != value {
        let what = format!("{ballot} proposes another value for slot {slot}, chosen by {chosen}");
        violated("chosen", &what);
    }
}

/// See the module's documentation.
pub struct Chosen {
    phase2: usize,
    votes: BTreeMap<(Slot, Ballot), BTreeSet<Machine>>,
    values: BTreeMap<Slot, Proposal>,
    proposals: BTreeMap<Slot, BTreeMap<Ballot, EntryDigest>>,
}

impl Chosen {
    pub fn new(phase2: usize) -> Chosen {
        Chosen {
            phase2,
            votes: BTreeMap::new(),
            values: BTreeMap::new(),
            proposals: BTreeMap::new(),
        }
    }

    /// An acceptor's vote became durable.
    pub fn voted(&mut self, machine: Machine, slot: Slot, ballot: Ballot, entry: EntryDigest) {
        let voters = self.votes.entry((slot, ballot)).or_default();
        voters.insert(machine);
        if voters.len() < self.phase2 {
            return;
        }
        let (value, first) = *self.values.entry(slot).or_insert((entry, ballot));
        if value != entry {
            let what = format!("slot {slot} was chosen twice, under {first} and under {ballot}");
            violated("chosen", &what);
        }
        let higher = self.proposals.get(&slot).into_iter().flat_map(|all| all.range(first..));
        for (ballot, proposed) in higher {
            check_proposal(slot, (value, first), (*proposed, *ballot));
        }
    }

    /// A proposal was seen, on its way or in a log.
    pub fn proposed(&mut self, slot: Slot, ballot: Ballot, entry: EntryDigest) {
        self.proposals.entry(slot).or_default().insert(ballot, entry);
        if let Some(chosen) = self.values.get(&slot) {
            check_proposal(slot, *chosen, (entry, ballot));
        }
    }

    /// A node learned that the slot holds this.
    pub fn learned(&self, machine: Machine, slot: Slot, entry: EntryDigest) {
        match self.values.get(&slot) {
            None => violated("chosen", &format!("{machine} learned slot {slot}; nobody chose it")),
            Some((value, ballot)) if *value != entry => {
                let what = format!("{machine} learned of slot {slot} what {ballot} did not choose");
                violated("chosen", &what);
            }
            Some(_) => {}
        }
    }
}
