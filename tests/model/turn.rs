//! What one node can do next, as others see it.
//!
//! Most inputs change the node that they reach and nothing else: it counts a promise or a vote, or
//! appends a record, and says nothing yet. Such a *quiet* input commutes with everything that
//! happens on other nodes, for messages stay where they are. So every run of the whole can be put
//! in an order in which the quiet inputs of a node come right before its next input that is not
//! quiet, and nothing that was ever sent is different. A [`Move`] is such a group: any number of
//! quiet inputs, then one that shows. Only moves are steps of the model; each possible one is.
//!
//! Of two moves that differ in a quiet input which might as well come later, only the shorter one
//! is kept. Whether it might is not reasoned but tried: the node is given both inputs in both
//! orders, and must end as the same node, having said and learned the same.

use super::atlas::{Cause, EnvelopeNumber, Known, NodeNumber};
use super::node::{Fault, Value};
use paxos_ssh::paxos::ballot::Slot;
use std::collections::{HashMap, HashSet};

/// All that a node's moves depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ground {
    pub node: NodeNumber,
    /// Sent to it or by it so far, in rising order.
    pub sent: Vec<EnvelopeNumber>,
    /// What it may try to lead with; nothing if it may not try.
    pub campaign: Option<Option<u64>>,
    /// What may be proposed, once it leads or tries to.
    pub propose: Option<u64>,
    pub may_crash: bool,
    /// Whether its records are durable at once.
    pub swift: bool,
}

/// Some quiet inputs, and one that shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// With the state in which each finds the node. The last one shows.
    pub causes: Vec<(NodeNumber, Cause)>,
    /// What the node becomes.
    pub node: NodeNumber,
    /// What was never said before.
    pub said: Vec<EnvelopeNumber>,
    pub learned: Vec<(Slot, Value)>,
    pub fault: Option<Fault>,
}

impl Move {
    /// The input that shows.
    pub fn cause(&self) -> Cause {
        self.causes.last().expect("something happened").1
    }
}

/// A state that quiet inputs lead to.
struct Place {
    node: NodeNumber,
    /// Quiet inputs that it takes at least.
    depth: usize,
    /// Whence, and by what. The first came first, so it is on a shortest way.
    before: Vec<(usize, Cause)>,
}

/// Works out the moves of one node.
pub struct Turn<'a, Outcome, Causes> {
    pub ground: &'a Ground,
    /// What comes of an input.
    pub outcome: Outcome,
    /// What may happen to the node in this state.
    pub causes: Causes,
}

impl<Outcome, Causes> Turn<'_, Outcome, Causes>
where
    Outcome: Fn(NodeNumber, Cause) -> Known,
    Causes: Fn(NodeNumber) -> Vec<Cause>,
{
    pub fn moves(&self) -> Vec<Move> {
        let mut places = vec![Place { node: self.ground.node, depth: 0, before: Vec::new() }];
        let mut index = HashMap::from([(self.ground.node, 0)]);
        let mut shown = Vec::new();
        let mut at = 0;
        while at < places.len() {
            let (node, depth) = (places[at].node, places[at].depth);
            for cause in (self.causes)(node) {
                let known = (self.outcome)(node, cause);
                if !self.is_quiet(cause, &known, &[]) {
                    shown.push((at, cause, known));
                } else if known.node != node {
                    let to = *index.entry(known.node).or_insert_with(|| {
                        let (node, depth) = (known.node, depth + 1);
                        places.push(Place { node, depth, before: Vec::new() });
                        places.len() - 1
                    });
                    places[to].before.push((at, cause));
                }
            }
            at += 1;
        }
        let mut results = HashSet::new();
        let mut moves = Vec::new();
        for (at, cause, known) in shown {
            if self.may_come_later(&places, at, cause, &known) {
                continue;
            }
            let made = self.make(&places, (at, cause), &known);
            let spent = std::mem::discriminant(&cause);
            let spends = (!matches!(cause, Cause::Hear(_) | Cause::Sync)).then_some(spent);
            let learned = made.learned.clone();
            if results.insert((spends, made.node, made.said.clone(), learned)) {
                moves.push(made);
            }
        }
        moves
    }

    fn news<'b>(&'b self, known: &'b Known) -> impl Iterator<Item = EnvelopeNumber> + 'b {
        let said = known.more.iter().flat_map(|more| more.said.iter().copied());
        said.filter(|said| self.ground.sent.binary_search(said).is_err())
    }

    /// Whether an input changes nothing but the node. `said` was said a moment ago.
    fn is_quiet(&self, cause: Cause, known: &Known, said: &[EnvelopeNumber]) -> bool {
        let harmless =
            known.more.as_ref().is_none_or(|more| more.learned.is_empty() && more.fault.is_none());
        matches!(cause, Cause::Hear(_) | Cause::Sync)
            && harmless
            && self.news(known).all(|news| said.contains(&news))
    }

    /// Whether the last quiet input before `cause` might as well follow it.
    fn may_come_later(&self, places: &[Place], at: usize, cause: Cause, known: &Known) -> bool {
        if matches!(cause, Cause::Crash(_)) {
            // What comes later may find another disk.
            return false;
        }
        let said: Vec<EnvelopeNumber> = self.news(known).collect();
        let rest = |known: &Known| {
            let more = known.more.as_ref();
            more.map(|more| (more.learned.clone(), more.fault.clone())).unwrap_or_default()
        };
        places[at].before.iter().any(|(before, quiet)| {
            if places[*before].depth >= places[at].depth {
                return false;
            }
            if !(self.causes)(places[*before].node).contains(&cause) {
                return false;
            }
            let sooner = (self.outcome)(places[*before].node, cause);
            if !self.news(&sooner).eq(said.iter().copied()) || rest(&sooner) != rest(known) {
                return false;
            }
            let after = (self.outcome)(sooner.node, *quiet);
            after.node == known.node && self.is_quiet(*quiet, &after, &said)
        })
    }

    fn make(&self, places: &[Place], (at, cause): (usize, Cause), known: &Known) -> Move {
        let mut causes = vec![(places[at].node, cause)];
        let mut place = &places[at];
        while let Some((before, quiet)) = place.before.first().filter(|_| place.depth > 0) {
            place = &places[*before];
            causes.push((place.node, *quiet));
        }
        causes.reverse();
        let said = self.news(known).collect();
        let more = known.more.as_ref();
        let learned = more.map(|more| more.learned.clone()).unwrap_or_default();
        let fault = more.and_then(|more| more.fault.clone());
        Move { causes, node: known.node, said, learned, fault }
    }
}
