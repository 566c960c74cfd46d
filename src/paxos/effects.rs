//! What the protocol wants done to the world, in an order that types enforce.
//!
//! The core does nothing itself. It fills an [`Effects`], and the driver carries it out:
//!
//! 1. hand [`Effects::take_records`] to the log, in order, and have it synced up to
//!    [`Effects::awaited`];
//! 2. send [`Effects::take_statements`] at once, even while the log is still writing;
//! 3. keep each [`Held`] pledge until the log is durable up to its position, then send it;
//! 4. tell the replica with `Replica::persisted` how far the log got.
//!
//! A promise or an acceptance can be put in here only as a [`Pledge`], and the position it waits
//! for is the end of everything appended so far, so "sent before durable" cannot be written down by
//! a role. One `Effects` lives as long as the log that it feeds, because it counts that log's
//! records.

use super::ballot::{Ballot, NodeId, Slot};
use super::message::{Entry, Pledge, Statement};
use super::record::{LogPosition, Record};
use std::mem::take;
use std::sync::Arc;

/// A statement and everybody who is to hear it, so that its frame is built once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<V> {
    /// Never empty, never the node itself.
    pub to: Vec<NodeId>,
    /// What to say.
    pub statement: Statement<V>,
}

/// A pledge that must not leave before the log is durable up to `after`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held<V> {
    /// This many records must be durable first.
    pub after: LogPosition,
    /// Who is to hear it; never empty, never the node itself.
    pub to: Vec<NodeId>,
    /// What to say then.
    pub pledge: Pledge<V>,
}

/// Names a client's request between the driver and the core; the core only hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Why a proposal was not taken up. The request stays with the driver, which tries again within the
/// client's deadline; none of these is ever a client's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Nobody is known to lead at the moment.
    NoLeader,
    /// The leader's queue is full.
    QueueFull,
}

/// A read that may be served once `index` is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConfirmedRead {
    /// The read's name.
    pub token: Token,
    /// Apply this far first.
    pub index: Slot,
}

/// A peer wants entries that memory no longer holds; the driver reads them from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogRead {
    /// Who asked.
    pub to: NodeId,
    /// The first slot wanted.
    pub first: Slot,
    /// Everything up to here is chosen and may be sent.
    pub chosen: Slot,
    /// How many pieces, one after the other, may be sent before the peer asks again.
    pub pieces: u32,
}

/// Something worth a line in the log and a count in the metrics. Never input to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Note {
    /// This node asks whether anybody would miss the leader.
    Inquiring,
    /// This node starts phase 1.
    Campaigning(Ballot),
    /// Phase 1 did not get its quorum in time, or somebody was ahead.
    CampaignLost(Ballot),
    /// Phase 1 is complete; this node leads.
    Leading(Ballot),
    /// This node, as leader, proposed a run of slots.
    Proposed {
        /// The run's last slot.
        last: Slot,
        /// How many of its slots hold a command.
        commands: u64,
    },
    /// A round of heartbeats confirmed that this node leads, for the sake of reads.
    ReadRound,
    /// This node no longer leads.
    SteppedDown(Ballot, StepDown),
    /// This node follows a leader.
    Following(NodeId, Ballot),
    /// A leader is no longer heard.
    LeaderLost(NodeId),
    /// A peer said something that it may not say.
    Refused(NodeId, Offence),
    /// Another process issues ballots under this node's proposer id.
    ProposerClash(Ballot),
    /// A peer saw this node's acceptor pledge what its log does not hold; it votes no more.
    Fenced {
        /// Who saw it.
        by: NodeId,
        /// Under which ballot.
        ballot: Ballot,
        /// The highest slot accepted under it; zero for a promise.
        last: Slot,
    },
    /// This node's own promise to itself is durable, and counts.
    PromisedItself {
        /// What was promised.
        ballot: Ballot,
        /// Every slot below is known chosen.
        floor: Slot,
        /// Votes in this part of the promise.
        votes: u32,
    },
    /// This node's own acceptance of its own proposals is durable, and counts.
    AcceptedItself {
        /// Under which ballot.
        ballot: Ballot,
        /// First slot of the run.
        first: Slot,
        /// Last slot of the run.
        last: Slot,
    },
}

impl Note {
    /// A pledge of this node to itself, as it is delivered.
    pub(super) fn of_own<V>(pledge: &Pledge<V>) -> Note {
        match pledge {
            Pledge::Promise { ballot, floor, votes, .. } => Note::PromisedItself {
                ballot: *ballot,
                floor: *floor,
                votes: u32::try_from(votes.len()).unwrap_or(u32::MAX),
            },
            Pledge::Accepted { ballot, first, last, .. } => {
                Note::AcceptedItself { ballot: *ballot, first: *first, last: *last }
            }
        }
    }
}

/// Why a leader stopped leading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepDown {
    /// Fewer than a phase-2 quorum acknowledged it within the election timeout.
    QuorumLost,
    /// Somebody leads under a higher ballot.
    Superseded,
    /// Leadership was handed over on request or because the node stops or its disk stalls.
    HandedOver,
    /// Its own acceptor forgot what it had pledged.
    Fenced,
}

/// Why a peer's message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offence {
    /// The ballot's proposer id belongs to another node.
    ForeignBallot,
    /// The ballot's counter is out of reach.
    ImplausibleBallot,
    /// The sender is no member.
    Stranger,
    /// The vote's generation is not the one in the configuration.
    StaleGeneration,
    /// Slots that overflow, empty runs, runs beyond the window.
    Malformed,
    /// A second value under one ballot, or a chosen slot that is said to hold something else.
    Contradiction,
}

/// See the module's documentation for the order of execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects<V> {
    end: LogPosition,
    awaited: LogPosition,
    records: Vec<Record<V>>,
    statements: Vec<Outgoing<V>>,
    pledges: Vec<Held<V>>,
    chosen: Vec<(Slot, Arc<Entry<V>>)>,
    rejected: Vec<(Token, Rejection)>,
    reads: Vec<ConfirmedRead>,
    log_reads: Vec<LogRead>,
    notes: Vec<Note>,
}

impl<V> Effects<V> {
    /// Effects for a log that already holds `end` records.
    pub fn new(end: LogPosition) -> Effects<V> {
        Effects {
            end,
            awaited: LogPosition(0),
            records: Vec::new(),
            statements: Vec::new(),
            pledges: Vec::new(),
            chosen: Vec::new(),
            rejected: Vec::new(),
            reads: Vec::new(),
            log_reads: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// How many records were ever appended.
    pub fn end(&self) -> LogPosition {
        self.end
    }

    /// The position up to which some pledge waits for the log. Records beyond it (news of what is
    /// chosen) need no sync of their own; they become durable with the next pledge.
    pub fn awaited(&self) -> LogPosition {
        self.awaited
    }

    /// Records to append to the log, in order.
    pub fn take_records(&mut self) -> Vec<Record<V>> {
        take(&mut self.records)
    }

    /// Messages that may leave now.
    pub fn take_statements(&mut self) -> Vec<Outgoing<V>> {
        take(&mut self.statements)
    }

    /// Messages that may leave once the log is durable up to their position.
    pub fn take_pledges(&mut self) -> Vec<Held<V>> {
        take(&mut self.pledges)
    }

    /// Newly chosen entries: contiguous, in slot order, each exactly once in the life of the
    /// process.
    pub fn take_chosen(&mut self) -> Vec<(Slot, Arc<Entry<V>>)> {
        take(&mut self.chosen)
    }

    /// Proposals that were not taken up.
    pub fn take_rejected(&mut self) -> Vec<(Token, Rejection)> {
        take(&mut self.rejected)
    }

    /// Reads that may be served.
    pub fn take_reads(&mut self) -> Vec<ConfirmedRead> {
        take(&mut self.reads)
    }

    /// Old entries to be read from the log and sent to a peer.
    pub fn take_log_reads(&mut self) -> Vec<LogRead> {
        take(&mut self.log_reads)
    }

    /// What happened, for people.
    pub fn take_notes(&mut self) -> Vec<Note> {
        take(&mut self.notes)
    }

    pub(super) fn append(&mut self, record: Record<V>) {
        self.records.push(record);
        self.end = LogPosition(self.end.0 + 1);
    }

    pub(super) fn say(&mut self, to: NodeId, statement: Statement<V>) {
        self.statements.push(Outgoing { to: vec![to], statement });
    }

    pub(super) fn say_to_all(&mut self, to: Vec<NodeId>, statement: Statement<V>) {
        if !to.is_empty() {
            self.statements.push(Outgoing { to, statement });
        }
    }

    pub(super) fn pledge(&mut self, to: Vec<NodeId>, pledge: Pledge<V>) {
        let after = self.await_end();
        if !to.is_empty() {
            self.pledges.push(Held { after, to, pledge });
        }
    }

    /// Some pledge waits for everything appended so far.
    pub(super) fn await_end(&mut self) -> LogPosition {
        self.awaited = self.end;
        self.end
    }

    pub(super) fn choose(&mut self, slot: Slot, entry: Arc<Entry<V>>) {
        self.chosen.push((slot, entry));
    }

    pub(super) fn reject(&mut self, token: Token, why: Rejection) {
        self.rejected.push((token, why));
    }

    pub(super) fn confirm(&mut self, read: ConfirmedRead) {
        self.reads.push(read);
    }

    pub(super) fn read_log(&mut self, read: LogRead) {
        self.log_reads.push(read);
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}
