//! The proposer: gets promises, then gets values accepted, one phase 1 for all slots that follow.
//!
//! ```text
//!            campaign                 promises from a phase-1 quorum,
//!   Idle ───────────────▶ Preparing ──────── floor reached ───────────▶ Leading
//!    ▲  ◀── timed out, ──┘    ▲                                          │  │
//!    │      somebody ahead    └────────── higher promise heard ──────────┘  │
//!    └──────────── quorum lost, superseded, handed over ────────────────────┘
//! ```
//!
//! A leader takes up what phase 1 found (the value of the highest ballot, for each slot; P2c of
//! "Paxos Made Simple" §2.2), fills the gaps with no-ops, adds a no-op of its own, and only then
//! proposes for clients. It never proposes below the highest floor among its promises, never two
//! values for one slot in one ballot, and never further than α beyond what is chosen.
//!
//! Batches form by themselves: while [`BATCHES_IN_FLIGHT_MAX`] runs await their votes, whatever
//! arrives waits and shares the next one. The cost is that a lone late-comer may wait for one round
//! trip more.

use super::acceptor::Run;
use super::ballot::{Ballot, BallotError, ClusterTime, Incarnation, NodeId, ProposerId, Slot};
use super::configuration::Configurations;
use super::depths::Depth;
use super::effects::{Note, Offence, Rejection, StepDown, Token};
use super::found::fill_gaps;
use super::handover::HandingOver;
use super::message::{Entry, Payload, Statement, Value, Vote};
use super::outbox::Outbox;
use super::timing::Timing;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Runs of proposals that may await their votes at once: one on its way to the disks, one being
/// voted on, one on its way back, and one to spare. More would only make batches smaller.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;

/// Entries in one run; keeps a frame's handling well under a millisecond.
const BATCH_ENTRIES_MAX: usize = 1024;

/// Bytes in one run; a larger value travels alone.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Commands that wait for a place in a run, at the leader. Above it clients are told to come again.
const QUEUE_ENTRIES_MAX: usize = 16 * 1024;

/// Bytes of commands that wait, for the same reason.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// What one acceptor promised, as far as its parts arrived.
///
/// An acceptor may answer twice (a repeated `Prepare`), and cut its votes differently the second
/// time, because its floor rose meanwhile. Parts of two answers must not be mixed: the floor tells
/// them apart, and the later answer replaces the earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Parts {
    floor: Slot,
    of: u32,
    arrived: BTreeSet<u32>,
}

/// Phase 1 under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Preparing<V> {
    pub(super) ballot: Ballot,
    first: Slot,
    promises: BTreeMap<NodeId, Parts>,
    /// For each slot the vote of the highest ballot, and who reported it.
    found: BTreeMap<Slot, (NodeId, Vote<V>)>,
    /// The highest floor promised, and by whom: slots below are chosen, and fetched there.
    floor: (Slot, Option<NodeId>),
    ticks: u32,
}

/// One run on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Batch<V> {
    first: Slot,
    entries: Vec<Arc<Entry<V>>>,
    /// Ticks since it was last sent.
    age: u32,
}

impl<V> Batch<V> {
    fn last(&self) -> Slot {
        Slot(self.first.0 + self.entries.len() as u64 - 1)
    }
}

/// What the leader knows of an acceptor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Follower {
    /// Ticks since it last agreed that this node leads.
    pub(super) silent: u32,
    /// Ticks since it last answered at all, be it with a refusal.
    pub(super) unheard: u32,
    /// The newest heartbeat round that it acknowledged.
    pub(super) round: u64,
    /// The end of the chosen prefix that it knows.
    pub(super) chosen: Slot,
    /// Whether its disk keeps up.
    pub(super) fit: bool,
}

/// Phase 2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leading<V> {
    pub(super) ballot: Ballot,
    next: Slot,
    /// The slot of this leader's own first no-op; once chosen, reads may start.
    pub(super) opening: Slot,
    /// Found in phase 1, gaps filled: to be proposed before anything else.
    pub(super) recovered: VecDeque<Arc<Entry<V>>>,
    pub(super) batches: VecDeque<Batch<V>>,
    pub(super) round: u64,
    /// Ticks since the last heartbeat.
    pub(super) quiet: u32,
    /// The end of the chosen prefix that the others were told last.
    pub(super) told: Slot,
    pub(super) followers: BTreeMap<NodeId, Follower>,
    pub(super) handing_over: Option<HandingOver>,
}

/// Where the proposer stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Phase<V> {
    Idle,
    Preparing(Preparing<V>),
    Leading(Box<Leading<V>>),
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proposer<V> {
    id: ProposerId,
    incarnation: Incarnation,
    /// The highest ballot seen anywhere.
    highest: Ballot,
    /// Whether this run of the process issued a ballot. Before that, a ballot under its id may be
    /// one of an earlier run; afterwards it is somebody else's.
    issued: bool,
    pub(super) phase: Phase<V>,
    queue: VecDeque<(Option<Token>, V)>,
    queue_bytes: usize,
}

impl<V: Value> Proposer<V> {
    pub(super) fn new(id: ProposerId, incarnation: Incarnation, highest: Ballot) -> Proposer<V> {
        Proposer {
            id,
            incarnation,
            highest,
            issued: false,
            phase: Phase::Idle,
            queue: VecDeque::new(),
            queue_bytes: 0,
        }
    }

    /// The ballot under which this node leads.
    pub fn leading(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Leading(leading) => Some(leading.ballot),
            Phase::Idle | Phase::Preparing(_) => None,
        }
    }

    /// The ballot for which this node collects promises.
    pub fn preparing(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Preparing(preparing) => Some(preparing.ballot),
            Phase::Idle | Phase::Leading(_) => None,
        }
    }

    /// The highest ballot seen.
    pub fn highest(&self) -> Ballot {
        self.highest
    }

    /// Commands that wait for a place in a run.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Slots proposed and not known chosen.
    pub fn in_flight(&self) -> usize {
        match &self.phase {
            Phase::Leading(leading) => leading.batches.iter().map(|b| b.entries.len()).sum(),
            Phase::Idle | Phase::Preparing(_) => 0,
        }
    }

    pub(super) fn leading_mut(&mut self) -> Option<&mut Leading<V>> {
        match &mut self.phase {
            Phase::Leading(leading) => Some(leading),
            Phase::Idle | Phase::Preparing(_) => None,
        }
    }

    /// Takes note of a ballot. Answers whether another process issues ballots under this proposer's
    /// id.
    pub(super) fn see(&mut self, ballot: Ballot) -> bool {
        let clash = self.issued
            && ballot > self.highest
            && ballot.number.proposer() == self.id
            && ballot.incarnation != self.incarnation;
        self.highest = self.highest.max(ballot);
        clash
    }

    /// Starts phase 1 for every slot from `first` on.
    pub(super) fn campaign(
        &mut self,
        first: Slot,
        configurations: &Configurations,
        out: &mut Outbox<'_, V>,
    ) -> Result<Ballot, BallotError> {
        let number = self.highest.number.next_for(self.id)?;
        let ballot = Ballot { number, incarnation: self.incarnation };
        assert!(ballot > self.highest, "a ballot must be new");
        self.highest = ballot;
        self.issued = true;
        self.phase = Phase::Preparing(Preparing {
            ballot,
            first,
            promises: BTreeMap::new(),
            found: BTreeMap::new(),
            floor: (Slot(0), None),
            ticks: 0,
        });
        out.note(Note::Campaigning(ballot));
        self.prepare(configurations, out);
        Ok(ballot)
    }

    /// Sends `Prepare` to every acceptor that has not promised yet.
    pub(super) fn prepare(&self, configurations: &Configurations, out: &mut Outbox<'_, V>) {
        let Phase::Preparing(preparing) = &self.phase else { return };
        let mut acceptors: BTreeSet<NodeId> = BTreeSet::new();
        for configuration in configurations.from(preparing.first) {
            acceptors.extend(configuration.acceptors());
        }
        acceptors.retain(|acceptor| !preparing.has_promised(*acceptor));
        let statement = Statement::Prepare {
            ballot: preparing.ballot,
            configuration: configurations.newest().number,
            first: preparing.first,
        };
        out.say_to_all(acceptors, statement);
    }

    /// Takes in one part of a promise; the caller has checked the voter's generation.
    pub(super) fn on_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        floor: Slot,
        votes: Vec<Vote<V>>,
        (part, parts): (u32, u32),
    ) {
        let Phase::Preparing(preparing) = &mut self.phase else { return };
        if preparing.ballot != ballot {
            return;
        }
        let promise = preparing.promises.entry(from).or_default();
        if (floor, parts) < (promise.floor, promise.of) {
            return;
        }
        if (floor, parts) > (promise.floor, promise.of) {
            *promise = Parts { floor, of: parts, arrived: BTreeSet::new() };
        }
        promise.arrived.insert(part);
        if floor > preparing.floor.0 {
            preparing.floor = (floor, Some(from));
        }
        for vote in votes {
            let known = preparing.found.get(&vote.slot);
            let newer = known
                .is_none_or(|(_, known)| (known.ballot < vote.ballot) != planted!(LowestVoteWins));
            if newer && vote.slot >= preparing.first {
                preparing.found.insert(vote.slot, (from, vote));
            }
        }
    }

    /// Leads, if a phase-1 quorum promised and everything below the highest floor is known.
    /// Otherwise answers whom to ask for what is missing, if only that is missing.
    pub(super) fn try_lead(
        &mut self,
        chosen: Slot,
        configurations: &Configurations,
        out: &mut Outbox<'_, V>,
    ) -> Option<NodeId> {
        let Phase::Preparing(preparing) = &mut self.phase else { return None };
        let promised = configurations.from(preparing.first).all(|configuration| {
            let promised = configuration.acceptors().filter(|a| preparing.has_promised(*a)).count();
            promised + usize::from(planted!(Phase1OffByOne)) >= configuration.quorums().phase1()
        });
        if !promised {
            return None;
        }
        let (mut floor, from) = preparing.floor;
        if planted!(FloorIgnored) {
            floor = Slot(0);
        }
        if chosen.next() < floor {
            return from;
        }
        let ballot = preparing.ballot;
        let start = chosen.next().max(floor);
        let mut found = std::mem::take(&mut preparing.found).split_off(&start);
        if planted!(FoundIgnored) {
            found.clear();
        }
        let recovered = fill_gaps(start, &mut found, configurations.window());
        if let Some((_, (liar, _))) = found.pop_first() {
            out.note(Note::Refused(liar, Offence::Malformed));
        }
        let opening = Slot(start.0 + recovered.len() as u64 - 1);
        self.phase = Phase::Leading(Box::new(Leading {
            ballot,
            next: start,
            opening,
            recovered,
            batches: VecDeque::new(),
            round: 0,
            quiet: 0,
            told: chosen,
            followers: BTreeMap::new(),
            handing_over: None,
        }));
        out.note(Note::Leading(ballot));
        None
    }

    /// Time passes in phase 1. Answers the ballot that was given up, if it took too long.
    pub(super) fn tick_preparing(&mut self, timing: Timing) -> Option<Ballot> {
        let Phase::Preparing(preparing) = &mut self.phase else { return None };
        preparing.ticks += 1;
        (preparing.ticks > timing.request).then_some(preparing.ballot)
    }

    /// Whether it is time to repeat `Prepare` to those who did not answer.
    pub(super) fn should_repeat(&self, timing: Timing) -> bool {
        matches!(&self.phase, Phase::Preparing(p) if p.ticks.is_multiple_of(timing.heartbeat))
    }

    /// What is missing below the floor keeps coming: phase 1 is not stuck.
    pub(super) fn progress(&mut self) {
        if let Phase::Preparing(preparing) = &mut self.phase {
            preparing.ticks = 0;
        }
    }

    /// Neither leads nor campaigns any longer. Commands in the queue go back to whoever asked.
    pub(super) fn stop(&mut self, why: Option<StepDown>, out: &mut Outbox<'_, V>) {
        match &self.phase {
            Phase::Idle => return,
            Phase::Preparing(preparing) => out.note(Note::CampaignLost(preparing.ballot)),
            Phase::Leading(leading) => {
                let why = if leading.handing_over.as_ref().is_some_and(|h| h.asked) {
                    StepDown::HandedOver
                } else {
                    why.unwrap_or(StepDown::Superseded)
                };
                out.note(Note::SteppedDown(leading.ballot, why));
            }
        }
        self.phase = Phase::Idle;
        self.queue_bytes = 0;
        for (token, _) in self.queue.drain(..) {
            if let Some(token) = token {
                out.reject(token, Rejection::NoLeader);
            }
        }
    }

    /// Puts a command in the queue. One that came from a peer has no token: if there is no room it
    /// is dropped, and its origin asks again.
    pub(super) fn enqueue(&mut self, token: Option<Token>, command: V, out: &mut Outbox<'_, V>) {
        let weight = command.weight();
        if self.queue.len() >= QUEUE_ENTRIES_MAX || self.queue_bytes + weight > QUEUE_BYTES_MAX {
            if let Some(token) = token {
                out.reject(token, Rejection::QueueFull);
            }
            return;
        }
        self.queue_bytes += weight;
        self.queue.push_back((token, command));
    }

    /// Proposes what waits, as far as the pipeline and the window allow.
    pub(super) fn flush(
        &mut self,
        chosen: Slot,
        now: ClusterTime,
        configurations: &Configurations,
        out: &mut Outbox<'_, V>,
    ) {
        loop {
            let Phase::Leading(leading) = &mut self.phase else { return };
            while leading.batches.front().is_some_and(|batch| batch.last() <= chosen) {
                leading.batches.pop_front();
            }
            let window_end = Slot(chosen.0.saturating_add(configurations.window()));
            let room = window_end.0.saturating_sub(leading.next.previous().0);
            let idle = leading.recovered.is_empty()
                && (self.queue.is_empty() || leading.handing_over.is_some());
            if idle || room == 0 || leading.batches.len() >= BATCHES_IN_FLIGHT_MAX {
                return;
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(BATCH_ENTRIES_MAX);
            let entries = self.next_batch(room, now);
            let Phase::Leading(leading) = &mut self.phase else { return };
            let batch = Batch { first: leading.next, entries, age: 0 };
            leading.next = batch.last().next();
            send(leading.ballot, &batch, chosen, configurations, out);
            leading.told = chosen;
            let is_command = |entry: &&Arc<Entry<V>>| matches!(entry.payload, Payload::Command(_));
            let commands = batch.entries.iter().filter(is_command).count() as u64;
            out.note(Note::Proposed { last: batch.last(), commands });
            leading.batches.push_back(batch);
        }
    }

    fn next_batch(&mut self, room: usize, now: ClusterTime) -> Vec<Arc<Entry<V>>> {
        let Phase::Leading(leading) = &mut self.phase else { return Vec::new() };
        let mut entries: Vec<Arc<Entry<V>>> = Vec::new();
        let mut bytes = 0;
        while entries.len() < room && bytes < BATCH_BYTES_MAX {
            let entry = if let Some(found) = leading.recovered.pop_front() {
                found
            } else if leading.handing_over.is_some() {
                break;
            } else if let Some((_, command)) = self.queue.pop_front() {
                self.queue_bytes -= command.weight();
                Arc::new(Entry { stamp: now, payload: Payload::Command(command) })
            } else {
                break;
            };
            bytes += entry.weight();
            entries.push(entry);
        }
        entries
    }

    /// Sends again what has waited for its votes for too long.
    pub(super) fn resend(
        &mut self,
        chosen: Slot,
        timing: Timing,
        configurations: &Configurations,
        out: &mut Outbox<'_, V>,
    ) {
        let Phase::Leading(leading) = &mut self.phase else { return };
        for batch in &mut leading.batches {
            batch.age += 1;
            if batch.age >= timing.request && !planted!(NeverSentAgain) {
                batch.age = 0;
                send(leading.ballot, batch, chosen, configurations, out);
            }
        }
    }

    /// Whether what was chosen at `slot` shows that somebody leads under a higher ballot: it is not
    /// what this leader proposed there, nor what it is about to propose. Such a leader must fall
    /// silent at once, for those who hold its own proposal would take "chosen up to here" for a
    /// word about that.
    pub(super) fn is_overruled(&self, slot: Slot, entry: &Entry<V>) -> bool {
        let Phase::Leading(leading) = &self.phase else { return false };
        let proposed = match slot.0.checked_sub(leading.next.0) {
            Some(ahead) => leading.recovered.get(usize::try_from(ahead).unwrap_or(usize::MAX)),
            None => leading.batches.iter().find(|batch| slot <= batch.last()).and_then(|batch| {
                let at = slot.0.checked_sub(batch.first.0)?;
                batch.entries.get(usize::try_from(at).ok()?)
            }),
        };
        proposed.is_none_or(|proposed| **proposed != *entry)
    }

    /// The highest slot proposed in this ballot; a read that starts now waits for it.
    pub(super) fn last_proposed(&self) -> Slot {
        match &self.phase {
            Phase::Leading(leading) => leading.next.previous(),
            Phase::Idle | Phase::Preparing(_) => Slot(0),
        }
    }

    /// How deep its queues are. `votes` is how many all acceptors together may hold.
    pub(super) fn depths(&self, votes: usize) -> Vec<Depth> {
        let found = match &self.phase {
            Phase::Preparing(preparing) => preparing.found.len(),
            Phase::Idle | Phase::Leading(_) => 0,
        };
        let (batches, in_flight) = match &self.phase {
            Phase::Leading(leading) => (leading.batches.len(), self.in_flight()),
            Phase::Idle | Phase::Preparing(_) => (0, 0),
        };
        vec![
            Depth::new("commands waiting", self.queue.len(), QUEUE_ENTRIES_MAX),
            Depth::new("bytes of commands waiting", self.queue_bytes, QUEUE_BYTES_MAX),
            Depth::new("votes found in phase 1", found, votes),
            Depth::new("runs in flight", batches, BATCHES_IN_FLIGHT_MAX),
            Depth::new("slots in flight", in_flight, BATCHES_IN_FLIGHT_MAX * BATCH_ENTRIES_MAX),
        ]
    }

    /// Panics when the proposer broke a rule of its own.
    pub(super) fn invariants(&self, chosen: Slot, window: u64) {
        if let Phase::Leading(leading) = &self.phase {
            assert!(leading.ballot.number.proposer() == self.id, "leads under a foreign ballot");
            assert!(leading.ballot <= self.highest, "leads above the highest ballot seen");
            assert!(leading.batches.len() <= BATCHES_IN_FLIGHT_MAX, "the pipeline overflows");
            let mut expected = None;
            for batch in &leading.batches {
                assert!(expected.is_none_or(|slot| slot == batch.first), "a gap between runs");
                expected = Some(batch.last().next());
            }
            assert!(expected.is_none_or(|slot| slot == leading.next), "the last run is not last");
            let ahead = leading.next.previous().0.saturating_sub(chosen.0);
            assert!(ahead <= window, "proposed {ahead} slots ahead of a window of {window}");
        }
    }
}

impl<V> Preparing<V> {
    fn has_promised(&self, acceptor: NodeId) -> bool {
        self.promises
            .get(&acceptor)
            .is_some_and(|parts| parts.of > 0 && parts.arrived.len() as u64 == u64::from(parts.of))
    }
}

fn send<V: Value>(
    ballot: Ballot,
    batch: &Batch<V>,
    chosen: Slot,
    configurations: &Configurations,
    out: &mut Outbox<'_, V>,
) {
    let run = Run { ballot, first: batch.first, entries: &batch.entries };
    let governing = configurations.governing(batch.last());
    let mut hearers: BTreeSet<NodeId> = configurations.governing(run.first).acceptors().collect();
    hearers.extend(governing.participants());
    hearers.insert(out.me);
    let statement = Statement::Accept {
        ballot,
        configuration: governing.number,
        first: batch.first,
        entries: batch.entries.clone(),
        chosen,
    };
    out.say_to_all(hearers, statement);
}
