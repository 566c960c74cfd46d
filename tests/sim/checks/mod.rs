//! What must hold of every history, whatever was lost on the way: one file for each property, with
//! the source that it comes from.
//!
//! * `agreement.rs`: no two nodes learn different entries for one slot, and each learns without
//!   gaps.
//!   Source: Lamport, "Paxos Made Simple" (2001), §2.1 and §2.3.
//! * `chosen.rs`: a slot has at most one chosen value for ever, no higher ballot proposes another,
//!   and nothing is learned that no quorum chose.
//!   Source: ibid., §2.2, P2 to P2c; Howard et al., "Flexible Paxos" (2016), §4.
//! * `validity.rs`: a chosen command was asked by a client; else it is a no-op or opens a session.
//!   Source: ibid., §2.1, first requirement.
//! * `promises.rs`: a promise is never lowered, not by a restart either; nothing is pledged
//!   before it is durable; nothing is accepted below a promise; a promise tells of every vote;
//!   whoever leads was promised by a quorum.
//!   Source: ibid., §2.2, P1a, and §2.5 on stable storage.
//! * `durability.rs`: what a log said is durable is there after every start, record for record; a
//!   log that cannot have it so is refused.
//!   Source: ibid., §2.5; Rebello et al. (USENIX ATC 2020).
//! * `ballots.rs`: a ballot is issued once, one node leads under it, and it proposes one value
//!   for a slot.
//!   Source: ibid., §2.2, "different proposers choose their numbers from disjoint sets".
//! * `digests.rs`: stores that applied the same slots are the same, and none goes back.
//!   Source: Schneider, "Implementing Fault-Tolerant Services Using the State Machine Approach"
//!   (1990), §2.
//! * `acknowledged.rs`: a write whose success a client was told is never lost, and no read is
//!   older than it.
//!   Source: durability; Herlihy and Wing, "Linearizability" (1990), §2.
//! * `sessions.rs`: a request takes effect at most once, however often and wherever it is
//!   repeated.
//!   Source: Ongaro, "Consensus: Bridging Theory and Practice" (2014), §6.3.
//! * `linearizable.rs`: what clients were told of a few registers fits one order of operations.
//!   Source: Herlihy and Wing (1990); Wing and Gong (1993); Lowe, "Testing for linearizability"
//!   (2017).
//! * `elections.rs`: once the network is well, ballots are few.
//!   Source: statistics; progress cannot be promised (Fischer, Lynch, Paterson 1985).
//! * `queues.rs`: every queue keeps within its bound.
//!   Source: house rule: every queue is bounded.
//!
//! The world tells [`Checks`] what nodes append, make durable, send, decide and answer; nothing is
//! asked of the nodes' own opinion that could be observed instead. A violation panics with the
//! name of its check first.

pub mod acknowledged;
pub mod agreement;
pub mod ballots;
pub mod chosen;
pub mod digests;
pub mod durability;
pub mod elections;
pub mod linearizable;
pub mod promises;
pub mod queues;
pub mod sessions;
pub mod validity;

use bytes::Bytes;
use paxos_ssh::node::driver::StoreView;
use paxos_ssh::paxos::ballot::{Ballot, NodeId};
use paxos_ssh::paxos::effects::Note;
use paxos_ssh::paxos::message::{Entry, Message, Payload, Statement};
use paxos_ssh::paxos::record::{LogPosition, Record, Recovered};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A machine: a clone of a node is a machine of its own with the node's id.
pub type Machine = NodeId;

/// What tells entries apart.
pub type EntryDigest = u64;

/// Ends the history: `check` was violated.
pub fn violated(check: &str, what: &str) -> ! {
    panic!("[{check}] {what}");
}

/// A digest that is the same in every run.
pub fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// See the module's documentation.
pub struct Checks {
    pub agreement: agreement::Agreement,
    pub chosen: chosen::Chosen,
    pub validity: validity::Validity,
    pub promises: promises::Promises,
    pub ballots: ballots::Ballots,
    pub digests: digests::Digests,
    pub acknowledged: acknowledged::Acknowledged,
    pub sessions: sessions::Sessions,
    pub registers: linearizable::Registers,
    pub elections: elections::Elections,
    pub queues: queues::Queues,
    pub durability: durability::Durability,
    /// Whose pledges count for nothing.
    without_vote: BTreeSet<Machine>,
}

impl Checks {
    /// For a cluster in which so many acceptors make the quorums of the two phases.
    pub fn new(phase1: u16, phase2: u16) -> Checks {
        Checks {
            agreement: Default::default(),
            chosen: chosen::Chosen::new(usize::from(phase2)),
            validity: Default::default(),
            promises: promises::Promises::new(usize::from(phase1)),
            ballots: Default::default(),
            digests: Default::default(),
            acknowledged: Default::default(),
            sessions: Default::default(),
            registers: Default::default(),
            elections: Default::default(),
            queues: Default::default(),
            durability: Default::default(),
            without_vote: BTreeSet::new(),
        }
    }

    /// A process starts over a log that holds this, all of which is durable now.
    pub fn started(&mut self, machine: Machine, found: &Recovered<Bytes>) {
        let news = self.durability.started(machine, found);
        self.settled(machine, news);
        self.promises.found(machine, found);
        self.restarted(machine);
    }

    /// A process starts over a disk that may have forgotten, and found this: it answers for that
    /// from now on. Says whether anything is lost.
    pub fn forgot(&mut self, machine: Machine, found: &Recovered<Bytes>) -> bool {
        self.promises.forgot(machine);
        self.agreement.forgot(machine);
        let (left, lost) = self.durability.forgot(machine, found.end);
        let left = left.to_vec();
        self.settled(machine, left);
        let news = self.durability.started(machine, found);
        self.settled(machine, news);
        self.restarted(machine);
        lost
    }

    /// A machine lost its log and is given the genesis again, under another voter generation.
    pub fn founded_anew(&mut self, machine: Machine, genesis: Record<Bytes>) {
        self.promises.forgot(machine);
        self.agreement.forgot(machine);
        self.durability.forgot(machine, LogPosition(0));
        self.durability.appended(machine, vec![genesis]);
        self.without_vote.insert(machine);
    }

    fn restarted(&mut self, machine: Machine) {
        self.agreement.started(machine);
        self.digests.started(machine);
    }

    /// What the acceptor of a process that runs says that it promised.
    pub fn promised(&mut self, machine: Machine, promised: Ballot) {
        self.promises.says(machine, promised);
    }

    /// Records were appended.
    pub fn appended(&mut self, machine: Machine, records: Vec<Record<Bytes>>) {
        for record in &records {
            match record {
                Record::Accepted(vote) => {
                    let entry = entry_digest(&vote.entry);
                    self.promises.accepts(machine, vote.ballot);
                    self.ballots.proposed(vote.ballot, vote.slot, entry);
                    self.chosen.proposed(vote.slot, vote.ballot, entry);
                    self.agreement.holds(machine, vote.slot, entry, &vote.entry);
                }
                Record::Learned { slot, entry } => {
                    self.agreement.holds(machine, *slot, entry_digest(entry), entry);
                }
                Record::Chosen(up_to) => {
                    for (slot, entry, what) in self.agreement.learned(machine, *up_to) {
                        self.chosen.learned(machine, slot, entry);
                        self.validity.learned(slot, &what);
                    }
                }
                Record::Genesis { .. }
                | Record::Promised(_)
                | Record::Floor(_)
                | Record::Fenced => {}
            }
        }
        self.durability.appended(machine, records);
    }

    /// The log is durable up to `position`.
    pub fn durable(&mut self, machine: Machine, position: LogPosition) {
        let news = self.durability.durable(machine, position);
        self.settled(machine, news);
    }

    /// These records are durable.
    fn settled(&mut self, machine: Machine, records: Vec<Record<Bytes>>) {
        for record in records {
            match record {
                Record::Promised(ballot) => {
                    let counts = !self.without_vote.contains(&machine);
                    self.promises.durable(machine, ballot, counts);
                }
                Record::Accepted(vote) => {
                    let entry = entry_digest(&vote.entry);
                    self.promises.voted(machine, vote.slot, vote.ballot, entry);
                    if !self.without_vote.contains(&machine) {
                        self.chosen.voted(machine, vote.slot, vote.ballot, entry);
                    }
                    self.agreement.holds_durably(machine, vote.slot, &vote.entry);
                }
                Record::Learned { slot, entry } => {
                    self.agreement.holds_durably(machine, slot, &entry);
                }
                Record::Chosen(up_to) => {
                    self.promises.chosen(machine, up_to);
                    self.agreement.learned_durably(machine, up_to);
                }
                Record::Genesis { .. } | Record::Floor(_) | Record::Fenced => {}
            }
        }
    }

    /// A message leaves a process.
    pub fn sent(&mut self, machine: Machine, message: &Message<Bytes>) {
        match message {
            Message::Pledge(pledge) => self.promises.pledged(machine, pledge),
            Message::Statement(Statement::Accept { ballot, first, entries, .. }) => {
                let mut slot = *first;
                for entry in entries {
                    let digest = entry_digest(entry);
                    self.ballots.proposed(*ballot, slot, digest);
                    self.chosen.proposed(slot, *ballot, digest);
                    slot = slot.next();
                }
            }
            Message::Statement(Statement::Prepare { ballot, first, .. }) => {
                self.promises.asked(*ballot, *first);
            }
            Message::Statement(_) => {}
        }
    }

    /// A process noted something.
    pub fn noted(&mut self, machine: Machine, life: u64, note: &Note) {
        match note {
            Note::Campaigning(ballot) => {
                self.ballots.issued(*ballot, machine, life);
                self.elections.campaigning();
            }
            Note::Leading(ballot) => {
                self.ballots.leads(*ballot, machine, life);
                self.promises.leads(machine, *ballot);
            }
            _ => {}
        }
    }

    /// At the end, over the store of every learner: nothing is lost, if they must have `all` of it;
    /// nothing happened twice, and what clients were told has an order.
    pub fn complete<'a>(&mut self, views: impl Iterator<Item = &'a StoreView>, all: bool) {
        for view in views {
            if all {
                self.acknowledged.complete(view);
            }
            self.sessions.complete(view);
        }
        self.registers.complete();
    }
}

/// What tells entries apart: stamp and payload.
pub fn entry_digest(entry: &Entry<Bytes>) -> EntryDigest {
    match &entry.payload {
        Payload::Command(bytes) => digest(&(entry.stamp.0, bytes)),
        other => digest(&(entry.stamp.0, other)),
    }
}
