//! What must hold whatever happens, and what must be seen to happen lest nothing was checked.

use super::atlas::EnvelopeNumber;
use super::node::{Fault, Value};
use super::roles::PROPOSERS;
use super::turn::Move;
use super::votes::{Votes, pledged};
use super::world::{Cluster, World};
use paxos_ssh::paxos::ballot::{Ballot, NodeId, Slot};
use paxos_ssh::paxos::message::Payload;
use stateright::Property;

/// What the messages that were sent so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    /// Whether some value of each proposer is chosen.
    pub chosen: [bool; PROPOSERS as usize],
    /// Whether a proposer took up another one's value.
    pub taken_up: bool,
}

type Law = fn(&Fault) -> bool;

/// Which faults break which law.
const LAWS: [(&str, Law); 7] = [
    ("agreement", |fault| matches!(fault, Fault::Disagreement(_))),
    ("validity", |fault| matches!(fault, Fault::Invalid(..))),
    ("one value in one ballot", |fault| matches!(fault, Fault::Contradiction)),
    ("promises outlive crashes", |fault| matches!(fault, Fault::Forgot(_))),
    ("what is learned is chosen", |fault| matches!(fault, Fault::Learned(..))),
    ("pledges only rise", |fault| matches!(fault, Fault::Pledged(..))),
    ("assertions and logs hold", |fault| matches!(fault, Fault::Panicked(_) | Fault::Log(_))),
];

macro_rules! law {
    ($at:literal) => {
        Property::always(LAWS[$at].0, |_: &Cluster, world: &World| {
            !world.fault().is_some_and(LAWS[$at].1)
        })
    };
}

/// For the checker. `rivals` says whether both proposers campaign, `crashes` whether acceptors may.
pub fn properties(rivals: bool, crashes: bool) -> Vec<Property<Cluster>> {
    let mut properties = vec![law!(0), law!(1), law!(2), law!(3), law!(4), law!(5), law!(6)];
    properties.push(Property::sometimes("a value of the first is chosen", |_, world: &World| {
        world.seen().chosen[0]
    }));
    if rivals {
        properties
            .push(Property::sometimes("a value of the second is chosen", |_, world: &World| {
                world.seen().chosen[1]
            }));
        properties.push(Property::sometimes("a value is taken up", |_, world: &World| {
            world.seen().taken_up
        }));
    }
    if crashes {
        let sees = |_: &Cluster, world: &World| world.has_crashed() && world.seen().chosen[0];
        properties.push(Property::sometimes("a value is chosen in spite of a crash", sees));
    }
    properties
}

/// What all votes together must agree on, and what they amount to. Commands go up to `last`.
fn count(votes: &Votes, phase2: usize, last: u64) -> (Seen, Option<Fault>) {
    let mut seen = Seen { taken_up: votes.takes_up(), ..Seen::default() };
    let mut fault = votes.are_contradicted().then_some(Fault::Contradiction);
    let mut known: Vec<(Slot, &Value)> = Vec::new();
    for (slot, _, value) in votes.chosen(phase2) {
        let valid = match value.payload {
            Payload::Noop => true,
            Payload::Command(command) if (1..=last).contains(&command) => {
                seen.chosen[((command - 1) % PROPOSERS) as usize] = true;
                true
            }
            Payload::Command(_) => false,
            Payload::Configuration(_) | Payload::Floor(_) => false,
        };
        if !valid {
            fault.get_or_insert(Fault::Invalid(slot, Value::clone(value)));
        }
        if known.iter().any(|(at, other)| *at == slot && *other != value) {
            fault.get_or_insert(Fault::Disagreement(slot));
        }
        known.push((slot, value));
    }
    (seen, fault)
}

impl Cluster {
    /// What is wrong after a move, in the light of all that was sent before and all that is sent
    /// now. `seen` is brought up to date.
    pub fn judge(
        &self,
        (node, made): (NodeId, &Move),
        (before, now): (&[EnvelopeNumber], &[EnvelopeNumber]),
        seen: &mut Seen,
    ) -> Option<Fault> {
        let mut fault = made.fault.clone();
        let mut pledges = Ballot::ZERO;
        self.atlas().for_each(before, |_, sent| {
            pledges = pledges.max(pledged(sent, node).unwrap_or_default());
        });
        let mut highest = pledges;
        self.atlas().for_each(&made.said, |_, said| {
            // What is said at once may be said in any order.
            let Some(ballot) = pledged(said, node) else { return };
            if ballot < pledges {
                fault.get_or_insert(Fault::Pledged(ballot, pledges));
            }
            highest = highest.max(ballot);
        });
        if self.atlas().node(made.node).promised() < highest {
            fault.get_or_insert(Fault::Forgot(highest));
        }
        if !made.said.is_empty() {
            let (amount, broken) = count(&self.votes(now), self.phase2(), self.last_command());
            *seen = amount;
            fault = fault.or(broken);
        }
        fault.or_else(|| self.learned_falsely(now, &made.learned))
    }

    /// What a node took for chosen, when there are no votes for it.
    pub fn learned_falsely(
        &self,
        sent: &[EnvelopeNumber],
        learned: &[(Slot, Value)],
    ) -> Option<Fault> {
        let mut learned = learned.iter().filter(|(slot, _)| self.is_within(*slot)).peekable();
        learned.peek()?;
        let votes = self.votes(sent);
        let is_chosen = |slot: Slot, value: &Value| {
            votes.chosen(self.phase2()).any(|(at, _, v)| (at, v) == (slot, value))
        };
        let (slot, value) = learned.find(|(slot, value)| !is_chosen(*slot, value))?;
        Some(Fault::Learned(*slot, Value::clone(value)))
    }
}
