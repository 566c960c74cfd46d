//! Where a role puts what it says, without knowing who else lives on its node.
//!
//! The roles share nothing but messages. A message to a role on the same node goes through here
//! like any other: a statement is delivered before the current step ends, a pledge once the log is
//! durable, for the leader's own acceptance may count no sooner than anybody else's.

use super::ballot::NodeId;
use super::depths::Depth;
use super::effects::{Effects, Note, Rejection, Token};
use super::message::{Message, Pledge, Statement};
use super::record::{LogPosition, Record};
use std::collections::VecDeque;

/// Pledges of a node to itself that wait for its disk. While that hangs, each repetition of a
/// proposal is pledged anew. Several times what the longest promise and all runs in flight take;
/// what comes then is lost, as on the network, and comes again.
const HELD_MAX: usize = 16 * 1024;

/// Messages of a node to itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Loopback<V> {
    /// To be delivered within the current step.
    pub(super) now: VecDeque<Message<V>>,
    /// To be delivered once the log is durable up to the position.
    pub(super) held: VecDeque<(LogPosition, Pledge<V>)>,
}

impl<V> Default for Loopback<V> {
    fn default() -> Self {
        Loopback { now: VecDeque::new(), held: VecDeque::new() }
    }
}

impl<V> Loopback<V> {
    /// How many pledges wait, and how many at most.
    pub(super) fn depth(&self) -> Depth {
        Depth::new("pledges to itself", self.held.len(), HELD_MAX)
    }
}

/// The way out of a role for the length of one call.
pub(super) struct Outbox<'a, V> {
    pub(super) me: NodeId,
    pub(super) loopback: &'a mut Loopback<V>,
    pub(super) effects: &'a mut Effects<V>,
}

impl<V: Clone> Outbox<'_, V> {
    pub(super) fn append(&mut self, record: Record<V>) {
        self.effects.append(record);
    }

    pub(super) fn say(&mut self, to: NodeId, statement: Statement<V>) {
        if to == self.me {
            self.loopback.now.push_back(statement.into());
        } else {
            self.effects.say(to, statement);
        }
    }

    /// One statement for many, so that its frame is built once.
    pub(super) fn say_to_all(
        &mut self,
        to: impl IntoIterator<Item = NodeId>,
        statement: Statement<V>,
    ) {
        let (peers, to_itself) = self.split(to);
        if to_itself {
            self.loopback.now.push_back(statement.clone().into());
        }
        self.effects.say_to_all(peers, statement);
    }

    /// One pledge for everybody who counts it.
    pub(super) fn pledge(&mut self, to: impl IntoIterator<Item = NodeId>, pledge: Pledge<V>) {
        let (peers, to_itself) = self.split(to);
        if to_itself {
            let mut after = self.effects.await_end();
            if planted!(OwnVoteBeforeDurable) {
                after = LogPosition(0);
            }
            if self.loopback.held.len() < HELD_MAX {
                self.loopback.held.push_back((after, pledge.clone()));
            }
        }
        self.effects.pledge(peers, pledge);
    }

    /// The others among the hearers, and whether this node is one.
    fn split(&self, to: impl IntoIterator<Item = NodeId>) -> (Vec<NodeId>, bool) {
        let mut peers: Vec<NodeId> = to.into_iter().collect();
        let mine = peers.iter().position(|peer| *peer == self.me);
        if let Some(at) = mine {
            peers.swap_remove(at);
            peers.sort_unstable();
        }
        (peers, mine.is_some())
    }

    pub(super) fn reject(&mut self, token: Token, why: Rejection) {
        self.effects.reject(token, why);
    }

    pub(super) fn note(&mut self, note: Note) {
        self.effects.note(note);
    }
}
