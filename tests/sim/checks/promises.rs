//! Promises: never lowered, by a restart neither; never said before they are durable; and nothing
//! is accepted below one. A promise tells of every vote, and a vote is said once it is durable.
//! Whoever leads holds the promises of a quorum.
//!
//! Source: Lamport, "Paxos Made Simple" (2001), §2.2, P1a: an acceptor accepts a proposal numbered
//! n iff it has not responded to a prepare request numbered above n; P2c, on what promises must
//! tell; §2.5: an acceptor records its intended response in stable storage before it sends it.
//! The size of a quorum after Howard, Malkhi, Spiegelman, "Flexible Paxos" (2016), §4.
//!
//! All of this is told per machine, over all lives of its log.

use super::{EntryDigest, Machine, violated};
use bytes::Bytes;
use paxos_ssh::paxos::ballot::{Ballot, Slot};
use paxos_ssh::paxos::message::Pledge;
use paxos_ssh::paxos::record::Recovered;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Acceptor {
    /// The highest promise in durable records.
    durable: Ballot,
    /// The highest ballot in anything that was said to others.
    said: Ballot,
    /// The last durable vote for each slot not known chosen.
    votes: BTreeMap<Slot, (Ballot, EntryDigest)>,
    /// Everything up to here is durably known to be chosen.
    chosen: Slot,
    /// Votes told so far in the promise that is being sent, part by part.
    telling: BTreeMap<Slot, (Ballot, EntryDigest)>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Promises {
    phase1: usize,
    acceptors: BTreeMap<Machine, Acceptor>,
    /// Who promised each ballot, durably and with a vote that counts.
    promised: BTreeMap<Ballot, BTreeSet<Machine>>,
    /// From which slot on each candidate asks.
    asked: BTreeMap<Ballot, Slot>,
}

impl Promises {
    /// For a cluster in which `phase1` promises make a leader.
    pub fn new(phase1: usize) -> Promises {
        Promises { phase1, ..Promises::default() }
    }

    /// A record that promises `ballot` became durable; of a voter, if it `counts`.
    pub fn durable(&mut self, machine: Machine, ballot: Ballot, counts: bool) {
        let acceptor = self.acceptors.entry(machine).or_default();
        acceptor.durable = acceptor.durable.max(ballot);
        if counts {
            self.promised.entry(ballot).or_default().insert(machine);
        }
    }

    /// A vote became durable.
    pub fn voted(&mut self, machine: Machine, slot: Slot, ballot: Ballot, entry: EntryDigest) {
        let acceptor = self.acceptors.entry(machine).or_default();
        acceptor.durable = acceptor.durable.max(ballot);
        if slot > acceptor.chosen {
            acceptor.votes.insert(slot, (ballot, entry));
        }
    }

    /// What the machine knows to be chosen became durable.
    pub fn chosen(&mut self, machine: Machine, up_to: Slot) {
        let acceptor = self.acceptors.entry(machine).or_default();
        acceptor.chosen = acceptor.chosen.max(up_to);
        acceptor.votes = acceptor.votes.split_off(&acceptor.chosen.next());
    }

    /// A process starts over a log that holds this: nothing else than what became durable, as
    /// records were seen one by one.
    pub fn found(&self, machine: Machine, found: &Recovered<Bytes>) {
        let Some(acceptor) = self.acceptors.get(&machine) else { return };
        let votes = found
            .votes
            .iter()
            .map(|(slot, vote)| (*slot, (vote.ballot, super::entry_digest(&vote.entry))));
        let votes: BTreeMap<_, _> = votes.collect();
        if found.promised != acceptor.durable || votes != acceptor.votes {
            let what = format!(
                "{machine} finds the promise {} and votes {votes:?}; durable were {} and {:?}",
                found.promised, acceptor.durable, acceptor.votes
            );
            violated("promises", &what);
        }
    }

    /// A candidate asks for promises.
    pub fn asked(&mut self, ballot: Ballot, first: Slot) {
        self.asked.insert(ballot, first);
    }

    /// A machine leads.
    pub fn leads(&self, machine: Machine, ballot: Ballot) {
        let count = self.promised.get(&ballot).map_or(0, BTreeSet::len);
        if count < self.phase1 {
            let what = format!("{machine} leads under {ballot}, which only {count} promised");
            violated("promises", &what);
        }
    }

    /// The machine's disk forgot, within what the quorums bear.
    pub fn forgot(&mut self, machine: Machine) {
        self.acceptors.remove(&machine);
    }

    /// Whether the acceptor pledged anything, since it forgot if it did.
    pub fn has_pledged(&self, machine: Machine) -> bool {
        self.acceptors.get(&machine).is_some_and(|acceptor| acceptor.said > Ballot::ZERO)
    }

    /// A vote is appended.
    pub fn accepts(&mut self, machine: Machine, ballot: Ballot) {
        let acceptor = self.acceptors.entry(machine).or_default();
        let promised = acceptor.said.max(acceptor.durable);
        if ballot < promised {
            let what = format!("{machine} accepts under {ballot} though it promised {promised}");
            violated("promises", &what);
        }
    }

    /// A pledge is sent.
    pub fn pledged(&mut self, machine: Machine, pledge: &Pledge<Bytes>) {
        let (Pledge::Promise { ballot, .. } | Pledge::Accepted { ballot, .. }) = pledge;
        let acceptor = self.acceptors.entry(machine).or_default();
        if *ballot > acceptor.durable {
            let what = format!("{machine} says {ballot}, and durable is {}", acceptor.durable);
            violated("promises", &what);
        }
        if *ballot < acceptor.said {
            let what = format!("{machine} says {ballot} after it said {}", acceptor.said);
            violated("promises", &what);
        }
        acceptor.said = *ballot;
        match pledge {
            Pledge::Promise { floor, votes, part, parts, .. } => {
                if *part == 0 {
                    acceptor.telling.clear();
                }
                let told =
                    votes.iter().map(|v| (v.slot, (v.ballot, super::entry_digest(&v.entry))));
                acceptor.telling.extend(told);
                let first = self.asked.get(ballot).copied().unwrap_or_default().max(*floor);
                let is_whole = part + 1 == *parts;
                for (slot, vote) in acceptor.votes.range(first..) {
                    // What was accepted after the promise is under no lower ballot.
                    let is_due = is_whole && vote.0 < *ballot;
                    if is_due && acceptor.telling.get(slot) != Some(vote) {
                        let what = format!("{machine} promises {ballot}, silent on slot {slot}");
                        violated("promises", &what);
                    }
                }
            }
            Pledge::Accepted { first, last, .. } => {
                // By now it may be the vote under a higher ballot that is durable.
                let mut slot = (*first).max(acceptor.chosen.next());
                while slot <= *last {
                    if acceptor.votes.get(&slot).is_none_or(|(voted, _)| voted < ballot) {
                        let what = format!("{machine} says {ballot} for slot {slot}, undurably");
                        violated("promises", &what);
                    }
                    slot = slot.next();
                }
            }
        }
    }

    /// A running acceptor says that it promised this much.
    pub fn says(&mut self, machine: Machine, promised: Ballot) {
        let Some(acceptor) = self.acceptors.get(&machine) else { return };
        let least = acceptor.durable.max(acceptor.said);
        if promised < least {
            let what = format!("{machine} has promised {promised} now, and {least} before");
            violated("promises", &what);
        }
    }
}
