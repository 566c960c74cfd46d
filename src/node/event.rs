//! Everything that can happen to a node: a closed list, in one queue, handled one at a time.

use super::recorder::Recalled;
use super::trace::Traced;
use crate::paxos::ballot::{NodeId, Slot};
use crate::paxos::message::Message;
use crate::paxos::record::LogPosition;
use crate::paxos::witness::Witnessed;
use crate::store::command::{Operation, Outcome};
use crate::wire::store_call::{Found, Query, StoreAnswer, StoreCall};
use crate::wire::trace_call::TraceMessage;
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// Called exactly once with what became of a request, from the node's own thread: it must not
/// block.
pub type Reply<T> = Box<dyn FnOnce(Result<T, RequestError>) + Send>;

/// Why a request was not answered as asked. Each text says what was tried, what went wrong and what
/// to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// Nobody could take it up in time; it was certainly not applied.
    NoQuorum(String),
    /// It was on its way when time ran out; it may have been applied.
    UnknownOutcome(String),
    /// There is more to do than the limits allow; it was certainly not applied.
    Busy(String),
    /// A defect; it may have been applied.
    Internal(String),
}

impl RequestError {
    /// Of a node that takes part in nothing.
    pub(super) fn no_genesis() -> RequestError {
        RequestError::NoQuorum(
            "this node holds no log and no genesis, so it takes part in nothing; nothing was \
             applied: ask another node, and see `paxos status` here"
                .to_owned(),
        )
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::NoQuorum(text)
            | RequestError::UnknownOutcome(text)
            | RequestError::Busy(text)
            | RequestError::Internal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RequestError {}

/// A write that a client of this node wants.
pub struct Write {
    /// Who asks; scopes the request id.
    pub principal: String,
    /// What is asked.
    pub operation: Operation,
    /// A name under which a retry by hand finds the first outcome.
    pub request_id: Option<String>,
    /// On the node's clock.
    pub deadline: Duration,
    /// Told the outcome.
    pub reply: Reply<Outcome>,
}

/// A linearizable read that a client of this node wants.
pub struct Read {
    /// On the node's clock.
    pub deadline: Duration,
    /// Told when the node's store is as new as anything that was acknowledged before the read
    /// arrived.
    pub reply: Reply<()>,
}

/// Something to be looked up in the store, on a node that has none itself.
pub struct Lookup {
    /// Names it, in this life of the node; look-ups with one token, one after the other, read one
    /// unchanging view.
    pub token: u64,
    /// Whether the store must be as new as anything that was acknowledged before.
    pub linearizable: bool,
    /// How many look-ups with this token were answered before.
    pub page: u64,
    /// What.
    pub query: Query,
    /// On the node's clock.
    pub deadline: Duration,
    /// Told what was found.
    pub reply: Reply<Found>,
}

/// A wish that another node lead.
pub struct Transfer {
    /// Who should lead; whoever is best placed, if nobody is named.
    pub to: Option<NodeId>,
    /// On the node's clock.
    pub deadline: Duration,
    /// Told who leads then.
    pub reply: Reply<NodeId>,
}

/// Somebody reads what the recorder holds.
pub struct Recall {
    /// From this number on, or from the oldest event that is kept.
    pub since: u64,
    /// Told a bounded part of it.
    pub reply: Reply<Recalled>,
}

/// Somebody asks how a slot was chosen.
pub struct Trace {
    /// Which.
    pub slot: Slot,
    /// On the node's clock.
    pub deadline: Duration,
    /// Told what the members' recorders hold of it.
    pub reply: Reply<Traced>,
}

/// See the module's documentation.
pub enum Event {
    /// A peer, authenticated by its certificate, said something.
    Peer(NodeId, Message<Bytes>),
    /// A peer tells what it saw this node's acceptor pledge.
    Witness(NodeId, Witnessed),
    /// The log is durable up to the position; the sync took so long.
    Persisted(LogPosition, Duration),
    /// The disk has no room, or has room again.
    DiskFull(bool),
    /// This node's link to a peer stands.
    LinkUp(NodeId),
    /// This node's link to a peer broke; `refused` when the peer's host refused a new one at once,
    /// which is what a dead process looks like.
    LinkDown {
        /// The peer.
        peer: NodeId,
        /// Whether the redial was refused.
        refused: bool,
        /// In the transport's words.
        error: String,
    },
    /// A client writes.
    Write(Write),
    /// A client reads.
    Read(Read),
    /// A client of this node, which has no store, reads.
    Lookup(Lookup),
    /// That client has read enough under this token.
    Leave(u64),
    /// A node without a store asks this one.
    StoreCall(NodeId, StoreCall),
    /// A node with a store answers this one.
    StoreAnswer(NodeId, StoreAnswer),
    /// A client, or the stop of this node, wants another leader.
    Transfer(Transfer),
    /// Somebody reads what the recorder holds.
    Recall(Recall),
    /// A client asks how a slot was chosen.
    Trace(Trace),
    /// A member asks what this one recorded, or answers.
    TraceMessage(NodeId, TraceMessage),
    /// One tick passed.
    Tick,
}
