//! The session under which a node proposes what plain ssh requests ask.
//!
//! A node opens one session through the log when it has its first write, and again when that one
//! expired. Sequence numbers rise; everything below the oldest request still waiting is
//! acknowledged. A request keeps its number for as long as it waits, however often it is proposed,
//! so it is executed at most once.

use super::requests::WRITES_WAITING_MAX;
use crate::paxos::depths::Depth;
use crate::store::command::{Command, Operation, SessionId};
use crate::store::sessions::SESSION_TTL;
use std::collections::BTreeSet;
use std::time::Duration;

/// A session is taken for doubtful when it is not known to have been there for so long: half of
/// what it lives unused, so that it is still there when the next command arrives.
const DOUBTFUL_AFTER: Duration = Duration::from_nanos(SESSION_TTL / 2);

/// Where the node's session stands.
#[derive(Debug)]
enum State {
    Closed,
    Opening { nonce: u128 },
    Open { nonce: u128, id: SessionId },
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct NodeSession {
    principal: String,
    state: State,
    next: u64,
    waiting: BTreeSet<u64>,
    /// On this node's clock: it was there after this.
    proven: Duration,
}

impl NodeSession {
    pub(super) fn new(principal: String) -> NodeSession {
        let (state, waiting, proven) = (State::Closed, BTreeSet::new(), Duration::ZERO);
        NodeSession { principal, state, next: 1, waiting, proven }
    }

    /// How many of its numbers are in use.
    pub(super) fn depth(&self) -> Depth {
        Depth::new("numbers of the session in use", self.waiting.len(), WRITES_WAITING_MAX)
    }

    /// The open session.
    pub(super) fn id(&self) -> Option<SessionId> {
        match self.state {
            State::Open { id, .. } => Some(id),
            State::Closed | State::Opening { .. } => None,
        }
    }

    /// The command that opens a session, with `nonce` if none was drawn for this attempt yet.
    pub(super) fn open(&mut self, nonce: u128) -> Command {
        let nonce = match self.state {
            State::Opening { nonce } => nonce,
            State::Closed | State::Open { .. } => nonce,
        };
        self.state = State::Opening { nonce };
        Command {
            session: SessionId::NONE,
            sequence: 0,
            acknowledged_below: 0,
            principal: self.principal.clone(),
            request_id: None,
            operation: Operation::OpenSession { nonce },
        }
    }

    /// Whether this is the nonce that the node waits for.
    pub(super) fn is_opening(&self, principal: &str, nonce: u128) -> bool {
        principal == self.principal && self.awaits(nonce)
    }

    /// Whether a session of this node's, opened under this nonce, is the one that it waits for.
    pub(super) fn awaits(&self, nonce: u128) -> bool {
        matches!(self.state, State::Opening { nonce: mine } if mine == nonce)
    }

    /// Under which the session was opened, or is being opened; 0 while there is none.
    pub(super) fn nonce(&self) -> u128 {
        match self.state {
            State::Closed => 0,
            State::Opening { nonce } | State::Open { nonce, .. } => nonce,
        }
    }

    /// The session is open, by a command that was sent at `asked`: numbers start over.
    pub(super) fn opened(&mut self, id: SessionId, asked: Duration) {
        self.state = State::Open { nonce: self.nonce(), id };
        self.proven = asked;
        self.next = 1;
        self.waiting.clear();
    }

    /// A command that was first sent at `sent` was executed under the open session.
    pub(super) fn used(&mut self, sent: Duration) {
        self.proven = self.proven.max(sent);
    }

    /// Whether the session may have ended unseen. This node's clock may be wrong about it, so
    /// nothing may rest on a no.
    pub(super) fn is_doubtful(&self, now: Duration) -> bool {
        now.saturating_sub(self.proven) > DOUBTFUL_AFTER
    }

    /// The session is gone; whatever waits needs a number in the next one.
    pub(super) fn lost(&mut self) {
        self.state = State::Closed;
        self.waiting.clear();
    }

    /// A number for one more request.
    pub(super) fn issue(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.waiting.insert(sequence);
        sequence
    }

    /// The request no longer waits: it has its outcome, or its time is up.
    pub(super) fn settle(&mut self, sequence: u64) {
        self.waiting.remove(&sequence);
    }

    /// A command of the open session.
    pub(super) fn command(
        &self,
        id: SessionId,
        sequence: u64,
        request_id: Option<String>,
        operation: Operation,
    ) -> Command {
        Command {
            session: id,
            sequence,
            acknowledged_below: self.waiting.first().copied().unwrap_or(self.next),
            principal: self.principal.clone(),
            request_id,
            operation,
        }
    }
}
