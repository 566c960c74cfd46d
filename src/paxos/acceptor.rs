//! The acceptor: remembers what it promised and what it accepted, and nothing else.
//!
//! The two rules of "Paxos Made Simple" §2.2, for all slots at once:
//!
//! * P1a: it accepts a proposal numbered *n* unless it has promised a higher one;
//! * a promise reports every acceptance that a candidate might have to respect.
//!
//! It must never answer before the record behind the answer is durable (the outbox sees to that),
//! lower its promise, or accept two values under one ballot. Votes for slots that its node knows to
//! be chosen are let go: a promise covers those with its floor instead, and the values stay in the
//! log.

use super::ballot::{Ballot, NodeId, Slot, VoterGeneration};
use super::depths::Depth;
use super::effects::Offence;
use super::message::{Entry, Pledge, Statement, Value, Vote};
use super::outbox::Outbox;
use super::record::{Record, Recovered};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Votes kept for slots not known chosen, in windows (α). A live leader keeps within one; a second
/// one may be left by a leader that died. An acceptor that holds more has missed the news of what
/// is chosen, and waits for it rather than grow.
const VOTE_WINDOWS_MAX: u64 = 4;

/// Bytes of votes in one part of a promise, so that a promise never becomes one enormous frame.
const PROMISE_PART_BYTES: usize = 1 << 20;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acceptor<V> {
    generation: VoterGeneration,
    promised: Ballot,
    votes: BTreeMap<Slot, Vote<V>>,
}

/// How many votes an acceptor keeps at most.
pub(super) fn open_votes_max(window: usize) -> usize {
    usize::try_from(VOTE_WINDOWS_MAX).unwrap_or(usize::MAX).saturating_mul(window)
}

/// A run of proposals under one ballot.
pub(super) struct Run<'a, V> {
    pub(super) ballot: Ballot,
    pub(super) first: Slot,
    pub(super) entries: &'a [Arc<Entry<V>>],
}

impl<V: Value> Acceptor<V> {
    /// An acceptor as its log left it.
    pub(super) fn new(generation: VoterGeneration, recovered: &Recovered<V>) -> Acceptor<V> {
        Acceptor { generation, promised: recovered.promised, votes: recovered.votes.clone() }
    }

    /// The highest ballot it promised.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// This life of its log.
    pub fn generation(&self) -> VoterGeneration {
        self.generation
    }

    /// What it accepted last for a slot not known chosen.
    pub fn vote(&self, slot: Slot) -> Option<&Vote<V>> {
        self.votes.get(&slot)
    }

    /// How many slots it holds votes for.
    pub fn open_votes(&self) -> usize {
        self.votes.len()
    }

    /// Phase 1b. `floor` is the first slot that this node does not know to be chosen.
    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Slot,
        floor: Slot,
        out: &mut Outbox<'_, V>,
    ) -> bool {
        if ballot < self.promised && !planted!(PromiseLowered) {
            return false;
        }
        if ballot > self.promised {
            self.promised = ballot;
            if !planted!(PromiseNotLogged) {
                out.append(Record::Promised(ballot));
            }
        }
        let floor = if planted!(FloorTooHigh) { floor.next() } else { floor };
        let mut parts: Vec<Vec<Vote<V>>> = vec![Vec::new()];
        let mut bytes = 0;
        for vote in self.votes.range(first.max(floor)..).map(|(_, vote)| vote) {
            if bytes > PROMISE_PART_BYTES {
                parts.push(Vec::new());
                bytes = 0;
            }
            if planted!(VotesNotReported) {
                continue;
            }
            bytes += vote.entry.weight();
            parts.last_mut().expect("there is always one part").push(vote.clone());
        }
        let count = parts.len() as u32;
        for (part, votes) in parts.into_iter().enumerate() {
            out.pledge(
                [from],
                Pledge::Promise {
                    ballot,
                    generation: self.generation,
                    floor,
                    votes,
                    part: part as u32,
                    parts: count,
                },
            );
        }
        true
    }

    /// Phase 2b for a run of slots. `chosen` is the end of the prefix that this node knows chosen:
    /// votes in there are not recorded anew, for a quorum holds them already and no candidate will
    /// be told of them. `learners` are told of the acceptance: the proposer, and whoever else
    /// counts votes.
    ///
    /// Answers whether the run was accepted, or why the sender was wrong to send it.
    pub(super) fn on_accept(
        &mut self,
        learners: impl IntoIterator<Item = NodeId>,
        run: &Run<'_, V>,
        chosen: Slot,
        window: u64,
        out: &mut Outbox<'_, V>,
    ) -> Result<bool, Offence> {
        if run.ballot < self.promised && !planted!(AcceptsBelowPromise) {
            return Ok(false);
        }
        if self.votes.len() as u64 + run.entries.len() as u64 > window * VOTE_WINDOWS_MAX {
            return Ok(false);
        }
        let mut slot = run.first;
        for entry in run.entries {
            if let Some(vote) = self.votes.get(&slot)
                && vote.ballot == run.ballot
                && vote.entry != *entry
            {
                return Err(Offence::Contradiction);
            }
            slot = slot.next();
        }
        let mut recorded = false;
        let mut slot = run.first;
        for entry in run.entries {
            let already = self.votes.get(&slot).is_some_and(|vote| vote.ballot == run.ballot);
            if slot > chosen && !already {
                let vote = Vote { slot, ballot: run.ballot, entry: Arc::clone(entry) };
                self.votes.insert(slot, vote.clone());
                out.append(Record::Accepted(vote));
                recorded = true;
            }
            slot = slot.next();
        }
        if run.ballot > self.promised {
            self.promised = run.ballot;
            if !recorded {
                out.append(Record::Promised(run.ballot));
            }
        }
        out.pledge(
            learners,
            Pledge::Accepted {
                ballot: run.ballot,
                generation: self.generation,
                first: run.first,
                last: slot.previous(),
            },
        );
        Ok(true)
    }

    /// What to tell a proposer that came too late.
    pub(super) fn refusal(&self, ballot: Ballot, hears: Option<Ballot>) -> Statement<V> {
        Statement::Refused { ballot, promised: self.promised, hears }
    }

    /// Lets go of votes that are chosen.
    pub(super) fn forget(&mut self, chosen: Slot) {
        let chosen = if planted!(VotesForgottenEarly) { chosen.next() } else { chosen };
        while let Some(first) = self.votes.first_entry() {
            if *first.key() > chosen {
                break;
            }
            first.remove();
        }
    }

    /// How many slots it holds votes for, and how many at most.
    pub(super) fn depth(&self, window: usize) -> Depth {
        Depth::new("open votes", self.votes.len(), open_votes_max(window))
    }

    /// Panics when the acceptor broke a rule of its own.
    pub(super) fn invariants(&self, chosen: Slot) {
        if let Some((slot, _)) = self.votes.first_key_value() {
            assert!(*slot > chosen, "a vote for slot {slot} outlived its choice at {chosen}");
        }
        if let Some((_, vote)) = self.votes.last_key_value() {
            assert!(vote.ballot <= self.promised, "a vote above the promise {}", self.promised);
        }
    }
}
