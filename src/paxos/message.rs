//! What nodes say to one another, and what a log slot can hold.
//!
//! There are two kinds of message, and the difference is the heart of the protocol's safety:
//!
//! * A [`Pledge`] reveals a promise or an acceptance. It may leave only once the record behind it
//!   is durable; an acceptor that forgets after a crash what it pledged lets two values be chosen.
//! * A [`Statement`] reveals nothing that a crash could take back. It may leave at once. `Prepare`
//!   and `Accept` are statements: a restarted proposer has a new incarnation, hence only new
//!   ballots, and a leader's own acceptance counts only through its own (durable) pledge.
//!
//! Names follow "Paxos Made Simple" and "Paxos Made Moderately Complex". These types are not the
//! wire format: `wire` has its own, versioned ones.

use super::ballot::{Ballot, ClusterTime, NodeId, Slot, VoterGeneration};
use super::configuration::{Configuration, ConfigurationNumber};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// A command of the replicated state machine, opaque to the protocol but for its size.
pub trait Value: Clone + Eq + Hash + Debug {
    /// Bytes that it takes in memory and on the wire; bounds batches, windows and caches.
    fn weight(&self) -> usize;
}

impl Value for u64 {
    fn weight(&self) -> usize {
        size_of::<u64>()
    }
}

/// Bytes counted for an entry on top of its command: stamp, slot, ballot and framing.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry<V> {
    /// The proposer's replicated time; zero says nothing.
    pub stamp: ClusterTime,
    /// What is to be done.
    pub payload: Payload<V>,
}

/// What a chosen slot asks of those who apply it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payload<V> {
    /// Nothing: fills a gap, or marks that a new leader leads.
    Noop,
    /// A command for the replicated state machine, opaque to the protocol.
    Command(V),
    /// The members from α slots further on.
    Configuration(Configuration),
    /// Slots below this one may be forgotten: snapshots hold them.
    Floor(Slot),
}

/// A value accepted and under which ballot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vote<V> {
    /// Where.
    pub slot: Slot,
    /// Under whose proposal.
    pub ballot: Ballot,
    /// What.
    pub entry: Arc<Entry<V>>,
}

/// May leave only after its record is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pledge<V> {
    /// Phase 1b: no proposal below `ballot` will be accepted any more, and this is what was
    /// accepted.
    ///
    /// A long list of votes travels in parts, so that one frame stays bounded; the promise counts
    /// once all parts of one ballot arrived.
    Promise {
        /// The ballot of the `Prepare` answered.
        ballot: Ballot,
        /// This life of the acceptor's log.
        generation: VoterGeneration,
        /// Every slot below this one is chosen; the candidate fetches them and proposes nothing
        /// there.
        floor: Slot,
        /// Accepted values at or above both the floor and the slot asked for.
        votes: Vec<Vote<V>>,
        /// Which part this is, from 0.
        part: u32,
        /// How many parts there are, at least 1.
        parts: u32,
    },
    /// Phase 2b: the proposals for the slots `first..=last` in `ballot` were accepted.
    Accepted {
        /// The ballot of the `Accept` answered.
        ballot: Ballot,
        /// This life of the acceptor's log.
        generation: VoterGeneration,
        /// First slot of the run.
        first: Slot,
        /// Last slot of the run.
        last: Slot,
    },
}

/// How an acceptor's disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DiskHealth {
    /// Writes become durable in reasonable time.
    #[default]
    Healthy,
    /// A write has been under way for longer than an election timeout.
    Stalled,
    /// There is no room; the acceptor keeps its promises but accepts nothing new.
    Full,
}

/// May leave at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Statement<V> {
    /// Phase 1a, for every slot from `first` on.
    Prepare {
        /// The candidate's ballot.
        ballot: Ballot,
        /// The newest configuration that the candidate knows.
        configuration: ConfigurationNumber,
        /// The first slot that the candidate does not know chosen.
        first: Slot,
    },
    /// Phase 2a for a run of slots starting at `first`.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The configuration that governs the last slot of the run.
        configuration: ConfigurationNumber,
        /// The slot of the first entry.
        first: Slot,
        /// One entry a slot, without gaps.
        entries: Vec<Arc<Entry<V>>>,
        /// Everything up to here is chosen, as [`Statement::Chosen`].
        chosen: Slot,
    },
    /// Phase 1 or 2 refused: the acceptor has promised `promised`.
    Refused {
        /// The ballot that came too late.
        ballot: Ballot,
        /// What it was too late for.
        promised: Ballot,
        /// The ballot of the leader that the acceptor hears, if it hears one.
        hears: Option<Ballot>,
    },
    /// Every slot up to `chosen` is chosen. Who accepted a slot under this very ballot holds its
    /// value.
    Chosen {
        /// The leader's ballot.
        ballot: Ballot,
        /// The end of the chosen prefix.
        chosen: Slot,
    },
    /// The leader leads; who agrees answers with the same round.
    Heartbeat {
        /// The leader's ballot.
        ballot: Ballot,
        /// Counts within the ballot.
        round: u64,
        /// The end of the chosen prefix.
        chosen: Slot,
        /// The newest configuration that the leader knows.
        configuration: ConfigurationNumber,
    },
    /// Answer to a heartbeat. Counts only if `promised` is not above the leader's ballot.
    HeartbeatAck {
        /// The heartbeat's ballot.
        ballot: Ballot,
        /// The heartbeat's round.
        round: u64,
        /// This life of the acceptor's log; none if the node does not vote.
        generation: Option<VoterGeneration>,
        /// What the acceptor has promised, durable or not.
        promised: Ballot,
        /// The live leader that the acceptor hears, if any.
        hears: Option<Ballot>,
        /// How its disk does.
        disk: DiskHealth,
        /// The end of the chosen prefix that it knows.
        chosen: Slot,
    },
    /// Before a campaign: would you miss the leader?
    Inquire {
        /// Matches the report to the question.
        round: u64,
    },
    /// Answer to [`Statement::Inquire`]. Promises nothing and expires.
    Report {
        /// The question's round.
        round: u64,
        /// The acceptor's life, if the node votes.
        generation: Option<VoterGeneration>,
        /// The highest promise.
        promised: Ballot,
        /// The leader that it hears within its timeout, with that leader's ballot.
        hears: Option<Ballot>,
        /// The end of the chosen prefix that it knows.
        chosen: Slot,
    },
    /// The leader asks this node to campaign at once, without inquiring first.
    HandOver {
        /// The ballot that ends.
        ballot: Ballot,
    },
    /// A member wants the leader to pass leadership on: to that node, or to whoever is best placed.
    AskHandOver {
        /// The successor wished for.
        to: Option<NodeId>,
    },
    /// Commands for the leader, from a node that does not lead.
    Forward {
        /// Each to be proposed once.
        commands: Vec<V>,
        /// How many nodes passed it on so far; at most one may.
        hops: u8,
    },
    /// How far must a read that starts now wait?
    ReadIndexRequest {
        /// Who reads.
        origin: NodeId,
        /// Matches the answer to the question, for the origin.
        token: u64,
        /// How many nodes passed it on so far; at most one may.
        hops: u8,
    },
    /// A read that asked with this token may be served once `index` is applied.
    ReadIndex {
        /// Who reads.
        origin: NodeId,
        /// The question's token.
        token: u64,
        /// Apply this far first.
        index: Slot,
    },
    /// What is chosen from `first` on?
    Fetch {
        /// The first slot wanted.
        first: Slot,
    },
    /// Chosen entries from `first` on, without gaps.
    Fetched {
        /// The slot of the first entry.
        first: Slot,
        /// May be empty when the answering node knows no more.
        entries: Vec<Arc<Entry<V>>>,
        /// The end of the chosen prefix that the answering node knows.
        chosen: Slot,
        /// Slots below are in snapshots only.
        floor: Slot,
        /// The next piece follows without being asked for.
        more: bool,
    },
}

/// Anything a peer may say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message<V> {
    /// Something durable at the sender.
    Pledge(Pledge<V>),
    /// Something that needs no durability.
    Statement(Statement<V>),
}

impl<V> From<Pledge<V>> for Message<V> {
    fn from(pledge: Pledge<V>) -> Message<V> {
        Message::Pledge(pledge)
    }
}

impl<V> From<Statement<V>> for Message<V> {
    fn from(statement: Statement<V>) -> Message<V> {
        Message::Statement(statement)
    }
}

impl<V> Entry<V> {
    /// An entry that does nothing and says nothing about time.
    pub fn noop() -> Entry<V> {
        Entry { stamp: ClusterTime(0), payload: Payload::Noop }
    }
}

impl<V: Value> Entry<V> {
    /// Bytes that it takes, about.
    pub fn weight(&self) -> usize {
        ENTRY_OVERHEAD_BYTES
            + match &self.payload {
                Payload::Command(command) => command.weight(),
                Payload::Noop | Payload::Configuration(_) | Payload::Floor(_) => 0,
            }
    }
}
