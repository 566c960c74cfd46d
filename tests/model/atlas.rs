//! Every node and every message that was ever met, each kept once and known by a number; and what
//! came of each input to each node, worked out once.
//!
//! States of the whole number millions, states of single nodes only thousands. A state of the whole
//! is a handful of numbers from here, so it costs a hundred bytes, and a transition is a look-up.
//! Numbers are handed out in the order of discovery: they mean something within one run only, and
//! two runs may number differently, but the states that exist are the same.

use super::node::{Envelope, Fault, Input, Node, Outcome, Value};
use super::turn::{Ground, Move};
use paxos_ssh::paxos::ballot::Slot;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Names a node in one of its states.
pub type NodeNumber = u32;

/// Names an envelope.
pub type EnvelopeNumber = u32;

/// An input by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    Hear(EnvelopeNumber),
    Campaign(Option<u64>),
    Propose(u64),
    Sync,
    Crash(usize),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub node: NodeNumber,
    /// Nothing, most of the time.
    pub more: Option<Arc<More>>,
}

/// The part of an outcome that others can see.
#[derive(Debug, PartialEq, Eq)]
pub struct More {
    /// In the order in which it was said.
    pub said: Vec<EnvelopeNumber>,
    pub learned: Vec<(Slot, Value)>,
    pub fault: Option<Fault>,
}

struct Numbered<T> {
    numbers: HashMap<Arc<T>, u32>,
    things: Vec<Arc<T>>,
}

impl<T: Eq + Hash> Numbered<T> {
    fn number(&mut self, thing: T) -> u32 {
        if let Some(number) = self.numbers.get(&thing) {
            return *number;
        }
        let number = u32::try_from(self.things.len()).expect("fewer than 2³² of them");
        let thing = Arc::new(thing);
        self.things.push(Arc::clone(&thing));
        self.numbers.insert(thing, number);
        number
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { numbers: HashMap::new(), things: Vec::new() }
    }
}

/// Moves of one node, shared by every state of the whole that offers them.
pub type Moves = Arc<[Arc<Move>]>;

/// See the module's documentation.
#[derive(Default)]
pub struct Atlas {
    nodes: RwLock<Numbered<Node>>,
    envelopes: RwLock<Numbered<Envelope>>,
    outcomes: RwLock<HashMap<(NodeNumber, Cause, bool), Known>>,
    moves: RwLock<HashMap<Ground, Moves>>,
}

/// A table stays usable whatever became of another thread: entries are only ever added.
fn read<T>(table: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    table.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(table: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    table.write().unwrap_or_else(PoisonError::into_inner)
}

impl Atlas {
    pub fn node(&self, number: NodeNumber) -> Arc<Node> {
        Arc::clone(&read(&self.nodes).things[number as usize])
    }

    pub fn envelope(&self, number: EnvelopeNumber) -> Arc<Envelope> {
        Arc::clone(&read(&self.envelopes).things[number as usize])
    }

    /// Looks at many envelopes at once.
    pub fn for_each(&self, numbers: &[EnvelopeNumber], mut look: impl FnMut(u32, &Envelope)) {
        let envelopes = read(&self.envelopes);
        numbers.iter().for_each(|number| look(*number, &envelopes.things[*number as usize]));
    }

    pub fn add_node(&self, node: Node) -> NodeNumber {
        write(&self.nodes).number(node)
    }

    /// How many states of nodes, and how many messages, there are so far.
    pub fn sizes(&self) -> [usize; 2] {
        [read(&self.nodes).things.len(), read(&self.envelopes).things.len()]
    }

    /// What becomes of a node. `work` is asked only the first time, and `travels` says which
    /// messages are not lost.
    pub fn outcome(
        &self,
        (node, cause, swift): (NodeNumber, Cause, bool),
        work: impl FnOnce(&Node, &Input) -> Outcome,
        travels: impl Fn(&Envelope) -> bool,
    ) -> Known {
        let key = (node, cause, swift);
        if let Some(known) = read(&self.outcomes).get(&key) {
            return known.clone();
        }
        let input = match cause {
            Cause::Hear(envelope) => Input::Hear(self.envelope(envelope)),
            Cause::Campaign(command) => Input::Campaign(command),
            Cause::Propose(command) => Input::Propose(command),
            Cause::Sync => Input::Sync,
            Cause::Crash(kept) => Input::Crash { kept },
        };
        let outcome = work(&self.node(node), &input);
        let known = self.keep(outcome, travels);
        write(&self.outcomes).insert(key, known.clone());
        known
    }

    fn keep(&self, outcome: Outcome, travels: impl Fn(&Envelope) -> bool) -> Known {
        let Outcome { node, said, learned, fault } = outcome;
        let node = self.add_node(node);
        let mut envelopes = write(&self.envelopes);
        let said = said.into_iter().filter(travels).map(|said| envelopes.number(said));
        let said: Vec<EnvelopeNumber> = said.collect();
        let nothing = said.is_empty() && learned.is_empty() && fault.is_none();
        let more = (!nothing).then(|| Arc::new(More { said, learned, fault }));
        Known { node, more }
    }

    /// The moves of a node. `work` is asked only the first time.
    pub fn moves(&self, ground: Ground, work: impl FnOnce(&Ground) -> Vec<Move>) -> Moves {
        if let Some(moves) = read(&self.moves).get(&ground) {
            return Arc::clone(moves);
        }
        let moves: Moves = work(&ground).into_iter().map(Arc::new).collect();
        write(&self.moves).insert(ground, Arc::clone(&moves));
        moves
    }
}
