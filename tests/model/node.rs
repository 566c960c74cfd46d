//! One node of the model: the replica that production runs, over a disk that forgets in a crash
//! what was not synced.
//!
//! A node is a value: an input makes another node of it and says what came out. That the same node
//! answers the same input in the same way is what everything else here rests on, so nothing in
//! this file may keep anything between two inputs.

use paxos_ssh::paxos::ballot::{Ballot, Incarnation, NodeId, Slot};
use paxos_ssh::paxos::configuration::Genesis;
use paxos_ssh::paxos::effects::{Effects, Held, LogRead, Note, Token};
use paxos_ssh::paxos::message::{Entry, Message, Pledge, Statement};
use paxos_ssh::paxos::record::{LogPosition, Record, Recovered, ReplayError};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Never reached: no tick passes in the model.
const TIMING: Timing = Timing { heartbeat: 1, election: 2, request: 1 };

/// Jitter starts over with it after each input, so that nodes which differ in nothing but future
/// waits are one.
const SEED: u64 = 0;

/// What a slot holds.
pub type Value = Arc<Entry<u64>>;

/// Something said, and everybody who may hear it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Envelope {
    pub from: NodeId,
    /// Empty for a node's own acceptance of its own proposal, which counts but does not travel.
    pub to: Vec<NodeId>,
    pub message: Message<u64>,
}

/// What may happen to a node.
#[derive(Debug, Clone)]
pub enum Input {
    Hear(Arc<Envelope>),
    /// It tries to lead, and may have something to propose once it does.
    Campaign(Option<u64>),
    Propose(u64),
    /// The disk takes everything that was handed to it.
    Sync,
    /// The process ends; so many of its records that were not synced survive nevertheless. It
    /// starts again at once: a node that is down cannot be told from one that hears nothing.
    Crash {
        kept: usize,
    },
}

/// What a node must never do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An assertion of the core failed.
    Panicked(String),
    /// Its log contradicts itself.
    Log(String),
    /// It took for chosen what no quorum voted for.
    Learned(Slot, Value),
    /// It pledged less than it had pledged before.
    Pledged(Ballot, Ballot),
    /// It pledged so much, and stands below.
    Forgot(Ballot),
    /// Somebody proposed two values under one ballot.
    Contradiction,
    /// Quorums voted for two values of one slot.
    Disagreement(Slot),
    /// A quorum voted for what nobody may propose.
    Invalid(Slot, Value),
}

/// What came of an input.
pub struct Outcome {
    pub node: Node,
    pub said: Vec<Envelope>,
    /// Handed to the state machine, or found chosen in the log at a start.
    pub learned: Vec<(Slot, Value)>,
    pub fault: Option<Fault>,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    id: NodeId,
    replica: Replica<u64>,
    /// After the genesis, which every log starts with.
    durable: Vec<Record<u64>>,
    unsynced: Vec<Record<u64>>,
    held: Vec<Held<u64>>,
    /// Processes that this node was so far; counted only where an incarnation matters.
    lives: u64,
}

/// What one input brought about so far.
struct Turn {
    effects: Effects<u64>,
    said: Vec<Envelope>,
    learned: Vec<(Slot, Value)>,
}

impl Node {
    /// A node that never ran.
    pub fn new(id: NodeId, genesis: &Genesis) -> Node {
        let recovered = replay(id, genesis, &[]).expect("a genesis alone is no contradiction");
        let replica = start(id, 1, recovered);
        let (durable, unsynced) = (Vec::new(), Vec::new());
        Node { id, replica, durable, unsynced, held: Vec::new(), lives: 1 }
    }

    /// The highest ballot that it promised, durable or not, if it votes.
    pub fn promised(&self) -> Ballot {
        self.replica.status().promised
    }

    /// The highest ballot that it knows; its own, once it campaigns.
    pub fn ballot(&self) -> Ballot {
        self.replica.status().ballot
    }

    /// Whether it has a use for something to propose.
    pub fn is_active(&self) -> bool {
        let status = self.replica.status();
        status.leading.is_some() || status.campaigning
    }

    /// Records that a crash may take.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Records in its log, durable or not.
    pub fn records(&self) -> usize {
        self.durable.len() + self.unsynced.len()
    }

    /// What this node becomes by an input. On a `swift` disk everything is durable at once.
    pub fn after(&self, input: &Input, genesis: &Genesis, swift: bool) -> Outcome {
        let acted = catch_unwind(AssertUnwindSafe(|| self.act(input, genesis, swift)));
        acted.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let fault = Some(Fault::Panicked(text.unwrap_or_default()));
            Outcome { node: self.clone(), said: Vec::new(), learned: Vec::new(), fault }
        })
    }

    fn act(&self, input: &Input, genesis: &Genesis, swift: bool) -> Outcome {
        let mut node = self.clone();
        if let Input::Crash { kept } = input {
            return node.restart(*kept, genesis);
        }
        let end = LogPosition((1 + node.durable.len() + node.unsynced.len()) as u64);
        let effects = Effects::new(end);
        let mut turn = Turn { effects, said: Vec::new(), learned: Vec::new() };
        let (replica, effects) = (&mut node.replica, &mut turn.effects);
        let mut syncs = swift;
        match input {
            Input::Hear(envelope) => {
                replica.step(envelope.from, envelope.message.clone(), effects);
            }
            Input::Campaign(command) => {
                replica.campaign(effects);
                let command = command.filter(|_| replica.status().queued == 0);
                command.into_iter().for_each(|c| replica.propose(Token(c), c, effects));
            }
            Input::Propose(command) => replica.propose(Token(*command), *command, effects),
            Input::Sync => syncs = true,
            Input::Crash { .. } => unreachable!("a crash is no input of a replica"),
        }
        node.carry_out(syncs, swift, &mut turn);
        Outcome { node, said: turn.said, learned: turn.learned, fault: None }
    }

    /// Does what the effects ask for, until nothing is left but what waits for the disk.
    fn carry_out(&mut self, syncs: bool, swift: bool, turn: &mut Turn) {
        let mut syncs = syncs;
        loop {
            self.replica.flush(&mut turn.effects);
            self.replica.reseed(SEED);
            self.collect(turn);
            if syncs {
                self.durable.append(&mut self.unsynced);
            }
            let durable = LogPosition(1 + self.durable.len() as u64);
            if is_wrong("said-before-durable") {
                turn.said.extend(self.release());
            }
            if !self.unsynced.is_empty() {
                // No news; but whoever took it for news would be found out.
                self.replica.persisted(durable, &mut turn.effects);
                self.replica.reseed(SEED);
                self.collect(turn);
                return;
            }
            turn.said.extend(self.release());
            let before = self.replica.clone();
            self.replica.persisted(durable, &mut turn.effects);
            if self.replica == before {
                return;
            }
            syncs = swift;
        }
    }

    /// Says what waited for the disk.
    fn release(&mut self) -> impl Iterator<Item = Envelope> + use<> {
        let from = self.id;
        let held = std::mem::take(&mut self.held).into_iter();
        held.map(move |Held { to, pledge, .. }| Envelope { from, to, message: pledge.into() })
    }

    fn collect(&mut self, turn: &mut Turn) {
        self.unsynced.extend(turn.effects.take_records());
        for outgoing in turn.effects.take_statements() {
            let (to, message) = (outgoing.to, outgoing.statement.into());
            turn.said.push(Envelope { from: self.id, to, message });
        }
        for held in turn.effects.take_pledges() {
            let is_it = |h: &Held<u64>| (&h.to, &h.pledge) == (&held.to, &held.pledge);
            if !self.held.iter().any(is_it) {
                self.held.push(held);
            }
        }
        turn.learned.extend(turn.effects.take_chosen());
        for note in turn.effects.take_notes() {
            if let Note::AcceptedItself { ballot, first, last } = note {
                let generation = super::roles::generation(self.id);
                let vote = Pledge::Accepted { ballot, generation, first, last };
                turn.said.push(Envelope { from: self.id, to: Vec::new(), message: vote.into() });
            }
        }
        for read in turn.effects.take_log_reads() {
            turn.said.extend(self.read_log(read));
        }
    }

    /// What the driver answers when a peer lags further than memory reaches.
    fn read_log(&self, read: LogRead) -> Option<Envelope> {
        let values = chosen_in(self.durable.iter().chain(&self.unsynced));
        let entries: Vec<Value> = values.range(read.first..).map(|(_, v)| Arc::clone(v)).collect();
        let (first, chosen) = (read.first, read.chosen);
        let statement = Statement::Fetched { first, entries, chosen, floor: Slot(1), more: false };
        Some(Envelope { from: self.id, to: vec![read.to], message: statement.into() })
    }

    fn restart(mut self, kept: usize, genesis: &Genesis) -> Outcome {
        self.unsynced.truncate(kept);
        self.durable.append(&mut self.unsynced);
        self.held.clear();
        let mut fault = None;
        let mut learned = Vec::new();
        match replay(self.id, genesis, &self.durable) {
            Ok(recovered) => {
                let proposes = super::roles::proposes(genesis, self.id);
                self.lives += u64::from(proposes && !is_wrong("incarnation-reused"));
                self.replica = start(self.id, self.lives, recovered);
                self.replica.reseed(SEED);
                learned.extend(chosen_in(&self.durable));
            }
            Err(error) => fault = Some(Fault::Log(error.to_string())),
        }
        Outcome { node: self, said: Vec::new(), learned, fault }
    }
}

/// Whether this wrong variant is in force: one of the driver's, whose part is played here.
#[cfg(feature = "planted")]
fn is_wrong(name: &str) -> bool {
    use paxos_ssh::planted::{Bug, in_force};
    Bug::ALL.iter().any(|bug| bug.name() == name && in_force(*bug))
}

#[cfg(not(feature = "planted"))]
const fn is_wrong(_: &str) -> bool {
    false
}

fn replay(
    id: NodeId,
    genesis: &Genesis,
    records: &[Record<u64>],
) -> Result<Recovered<u64>, ReplayError> {
    let mut recovered = Recovered::default();
    let generation = genesis.configuration.member(id).and_then(|member| member.roles.acceptor);
    recovered.replay(Record::Genesis { genesis: genesis.clone(), generation })?;
    records.iter().try_for_each(|record| recovered.replay(record.clone()))?;
    Ok(recovered)
}

fn start(id: NodeId, life: u64, recovered: Recovered<u64>) -> Replica<u64> {
    let incarnation = Incarnation(life);
    let start = Start { id, incarnation, seed: SEED, timing: TIMING, recovered };
    Replica::new(start).expect("the log has a genesis")
}

/// The value of each slot that these records say is chosen.
fn chosen_in<'a>(records: impl IntoIterator<Item = &'a Record<u64>>) -> BTreeMap<Slot, Value> {
    let mut values = BTreeMap::new();
    let mut end = Slot(0);
    for record in records {
        match record {
            Record::Accepted(vote) if vote.slot > end => {
                values.insert(vote.slot, Arc::clone(&vote.entry));
            }
            Record::Learned { slot, entry } if *slot > end => {
                values.insert(*slot, Arc::clone(entry));
            }
            Record::Chosen(up_to) => end = end.max(*up_to),
            _ => {}
        }
    }
    values.retain(|slot, _| *slot <= end);
    values
}
