//! The learner: finds out what is chosen, and hands it on once, in order, without gaps.
//!
//! There are three ways to know that a slot is chosen: a phase-2 quorum of one ballot voted for it;
//! a leader says so of a slot whose proposal under that very ballot is at hand; a peer sends the
//! chosen value. After a quorum of votes a later ballot's proposal serves as well, because of P2c
//! ("Paxos Made Simple" §2.2): once a value is chosen, every higher-numbered proposal for the slot
//! carries it. After a leader's word it does not: the leader may have learned of a choice made
//! under a ballot above its own, and what was proposed between the two may be something else.
//!
//! The learner must never hand on a slot before all lower ones, hand on one twice, or change its
//! mind. It keeps a tail of what was chosen in memory for peers that lag a little; older entries
//! are in the log.

use super::ballot::{Ballot, NodeId, Slot};
use super::configuration::{Configuration, Configurations};
use super::depths::Depth;
use super::message::{Entry, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Chosen entries kept in memory for peers that lag: a second of heavy traffic.
const TAIL_ENTRIES_MAX: usize = 16 * 1024;

/// Bytes of chosen entries kept in memory, whatever their number.
const TAIL_BYTES_MAX: usize = 16 << 20;

/// Bytes of entries in one answer to a peer that fetches; one frame on the bulk lane.
pub(super) const FETCH_BYTES_MAX: usize = 1 << 20;

/// Proposals and votes kept above the chosen prefix, in windows (α); what lies further ahead is
/// fetched later.
const AHEAD_WINDOWS_MAX: u64 = 4;

/// Votes of one ballot for one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tally {
    ballot: Ballot,
    voters: BTreeSet<NodeId>,
}

impl Tally {
    fn is_quorum(&self, governing: &Configuration) -> bool {
        let counted = governing.acceptors().filter(|id| self.voters.contains(id)).count();
        counted + usize::from(planted!(Phase2OffByOne)) >= governing.quorums().phase2()
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Learner<V> {
    chosen: Slot,
    /// The highest slot that anybody said is chosen, and who said so.
    rumour: Option<(Slot, NodeId)>,
    proposals: BTreeMap<Slot, (Ballot, Arc<Entry<V>>)>,
    tallies: BTreeMap<Slot, Tally>,
    /// Chosen, but not in order yet.
    ahead: BTreeMap<Slot, Arc<Entry<V>>>,
    tail: VecDeque<Arc<Entry<V>>>,
    tail_bytes: usize,
}

/// Entries that a peer asked for, or the news that memory does not hold them.
pub(super) enum Tail<V> {
    /// From the slot asked for on; empty when nothing more is chosen.
    Entries(Vec<Arc<Entry<V>>>),
    /// Too old: the log has them.
    InLog,
}

impl<V: Value> Learner<V> {
    /// A learner that knows everything up to `chosen` to be chosen, and has handed it on.
    pub(super) fn new(chosen: Slot) -> Learner<V> {
        Learner {
            chosen,
            rumour: None,
            proposals: BTreeMap::new(),
            tallies: BTreeMap::new(),
            ahead: BTreeMap::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// The end of the chosen prefix.
    pub fn chosen(&self) -> Slot {
        self.chosen
    }

    /// Whom to ask for what is missing, if anything is.
    pub(super) fn behind(&self) -> Option<NodeId> {
        self.rumour.filter(|(slot, _)| *slot > self.chosen).map(|(_, from)| from)
    }

    fn within_reach(&self, slot: Slot, window: u64) -> bool {
        slot > self.chosen && slot.0 - self.chosen.0 <= window * AHEAD_WINDOWS_MAX
    }

    /// Whether the configuration of this slot is known. It may still be among what is to come for
    /// slots beyond, and votes that are a quorum of an older one are none.
    fn is_governed(&self, slot: Slot, window: u64) -> bool {
        slot.0.saturating_sub(self.chosen.0) <= window
    }

    /// Hears proposals, so that their values are at hand once they are chosen.
    pub(super) fn on_proposals(
        &mut self,
        ballot: Ballot,
        first: Slot,
        entries: &[Arc<Entry<V>>],
        configurations: &Configurations,
    ) {
        let mut slot = first;
        for entry in entries {
            let newer = self.proposals.get(&slot).is_none_or(|(known, _)| *known < ballot);
            if newer && self.within_reach(slot, configurations.window()) {
                self.proposals.insert(slot, (ballot, Arc::clone(entry)));
                // Votes come on other connections than proposals, and may have been faster.
                let tally = self.tallies.get(&slot).filter(|tally| {
                    tally.ballot <= ballot && self.is_governed(slot, configurations.window())
                });
                if tally.is_some_and(|tally| tally.is_quorum(configurations.governing(slot))) {
                    self.ahead.entry(slot).or_insert_with(|| Arc::clone(entry));
                }
            }
            slot = slot.next();
        }
    }

    /// Counts the votes of one acceptor; the caller has checked the voter's generation.
    pub(super) fn on_votes(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        (first, last): (Slot, Slot),
        configurations: &Configurations,
    ) {
        let mut slot = first.max(self.chosen.next());
        while slot <= last && self.within_reach(slot, configurations.window()) {
            let is_governed = self.is_governed(slot, configurations.window());
            let governing = configurations.governing(slot);
            let tally = self
                .tallies
                .entry(slot)
                .or_insert_with(|| Tally { ballot, voters: BTreeSet::new() });
            if tally.ballot < ballot && planted!(VotesOfAllBallots) {
                tally.ballot = ballot;
            } else if tally.ballot < ballot {
                *tally = Tally { ballot, voters: BTreeSet::new() };
            }
            if tally.ballot == ballot {
                tally.voters.insert(from);
                if tally.is_quorum(governing) {
                    match is_governed {
                        true => self.decide(slot, ballot, from),
                        // Whoever voted may know.
                        false => self.hear(from, slot),
                    }
                }
            }
            slot = slot.next();
        }
    }

    /// Votes of this acceptor that are counted already count no more.
    pub(super) fn disown(&mut self, acceptor: NodeId) {
        for tally in self.tallies.values_mut() {
            tally.voters.remove(&acceptor);
        }
    }

    /// A leader says that everything up to `up_to` is chosen.
    pub(super) fn on_chosen(&mut self, from: NodeId, ballot: Ballot, up_to: Slot) {
        if up_to <= self.chosen {
            return;
        }
        self.hear(from, up_to);
        let slots: Vec<Slot> = self
            .proposals
            .range(self.chosen.next()..=up_to)
            .filter(|(_, (known, _))| *known == ballot || planted!(ChosenUnderAnyBallot))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            let ballot = if planted!(ChosenUnderAnyBallot) { Ballot::ZERO } else { ballot };
            self.decide(slot, ballot, from);
        }
    }

    /// Somebody knows more than this node.
    pub(super) fn hear(&mut self, from: NodeId, chosen: Slot) {
        if chosen > self.chosen && self.rumour.is_none_or(|(known, _)| known <= chosen) {
            self.rumour = Some((chosen, from));
        }
    }

    /// Gives up on whoever spread the latest rumour, so that another may be asked.
    pub(super) fn forget_rumour(&mut self) {
        self.rumour = None;
    }

    /// A peer sent chosen entries. Those that go on from the chosen prefix are handed on before the
    /// current step ends, so all of them are taken; what lies behind a gap only as far as anything
    /// else.
    pub(super) fn on_fetched(&mut self, first: Slot, entries: &[Arc<Entry<V>>], window: u64) {
        let goes_on = first <= self.chosen.next();
        let mut slot = first;
        for entry in entries {
            if (goes_on && slot > self.chosen) || self.within_reach(slot, window) {
                self.ahead.entry(slot).or_insert_with(|| Arc::clone(entry));
            }
            slot = slot.next();
        }
    }

    fn decide(&mut self, slot: Slot, ballot: Ballot, from: NodeId) {
        match self.proposals.get(&slot) {
            Some((known, entry)) if *known >= ballot => {
                self.ahead.entry(slot).or_insert_with(|| Arc::clone(entry));
            }
            _ => self.hear(from, slot),
        }
    }

    /// The first slot whose entry is not known.
    pub(super) fn first_missing(&self) -> Slot {
        let mut slot = self.chosen.next();
        while self.ahead.contains_key(&slot) {
            slot = slot.next();
        }
        slot
    }

    /// The next entry in order, if it is known. Each is handed out once.
    pub(super) fn next(&mut self) -> Option<(Slot, Arc<Entry<V>>)> {
        let slot = self.chosen.next();
        let entry = self.ahead.remove(&slot)?;
        self.chosen = slot;
        self.proposals.remove(&slot);
        self.tallies.remove(&slot);
        self.tail_bytes += entry.weight();
        self.tail.push_back(Arc::clone(&entry));
        while self.tail.len() > TAIL_ENTRIES_MAX || self.tail_bytes > TAIL_BYTES_MAX {
            let oldest = self.tail.pop_front().expect("something weighs");
            self.tail_bytes -= oldest.weight();
        }
        Some((slot, entry))
    }

    /// Chosen entries from `first` on, as many as fit in one answer.
    pub(super) fn tail(&self, first: Slot) -> Tail<V> {
        let oldest = Slot(self.chosen.0 - self.tail.len() as u64).next();
        if first < oldest {
            return Tail::InLog;
        }
        let mut bytes = 0;
        let from = usize::try_from(first.0 - oldest.0).unwrap_or(usize::MAX);
        let entries = self.tail.iter().skip(from).take_while(|entry| {
            let fits = bytes == 0 || bytes + entry.weight() <= FETCH_BYTES_MAX;
            bytes += entry.weight();
            fits
        });
        Tail::Entries(entries.cloned().collect())
    }

    /// How deep its queues are.
    pub(super) fn depths(&self, window: usize) -> Vec<Depth> {
        let ahead = usize::try_from(AHEAD_WINDOWS_MAX).unwrap_or(usize::MAX).saturating_mul(window);
        vec![
            Depth::new("proposals not known chosen", self.proposals.len(), ahead),
            Depth::new("slots with votes", self.tallies.len(), ahead),
            Depth::new("chosen slots ahead of a gap", self.ahead.len(), ahead),
            Depth::new("chosen entries kept", self.tail.len(), TAIL_ENTRIES_MAX),
            Depth::new("bytes of chosen entries kept", self.tail_bytes, TAIL_BYTES_MAX),
        ]
    }

    /// Panics when the learner broke a rule of its own.
    pub(super) fn invariants(&self) {
        for first in [
            self.proposals.first_key_value().map(|(slot, _)| *slot),
            self.tallies.first_key_value().map(|(slot, _)| *slot),
            self.ahead.first_key_value().map(|(slot, _)| *slot),
        ]
        .into_iter()
        .flatten()
        {
            assert!(first > self.chosen, "slot {first} is kept though {} is chosen", self.chosen);
        }
        assert!(self.tail.len() as u64 <= self.chosen.0, "the tail is longer than the log");
    }
}
