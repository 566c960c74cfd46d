//! The driver: owns a node's whole state and carries out what the core decides.
//!
//! One thread calls [`Driver::handle`] for each event of a batch and [`Driver::finish`] once at its
//! end; nothing here waits for anything. The same code runs in production and in simulation: disk,
//! peers, clock and randomness come in as types. It must never send a pledge before the log is
//! durable that far, apply a slot twice or out of order, or answer a write before its slot was
//! applied here.

use super::applied::Applied;
pub use super::applied::{Judge, RebuildError};
use super::attached::Attachment;
use super::estimate::{self, Measured, Smoothed};
use super::event::{Event, Reply, RequestError, Transfer};
use super::hosting::Hosting;
use super::measures::Measures;
use super::outlook::PeerTable;
use super::recorder::Recorder;
use super::requests::{READS_WAITING_MAX, Requests};
use super::session::NodeSession;
use super::settings::TimeoutBounds;
use super::trace::Traces;
use super::transfer::TRANSFERS_WAITING_MAX;
use super::world::{Peers, World};
use crate::disk::Log;
use crate::disk::engine::MemoryEngine;
use crate::paxos::ballot::{Ballot, ClusterTime, Incarnation, NodeId, Slot};
use crate::paxos::depths::Depth;
use crate::paxos::effects::{Effects, Held, LogRead, Note, Token};
use crate::paxos::message::{Entry, Message, Pledge, Statement, Value};
use crate::paxos::record::{LogPosition, Recovered};
use crate::paxos::replica::{Replica, Start};
use crate::paxos::timing::Timing;
use crate::paxos::witness::{Memory, Witnessed};
use crate::store::Store;
use crate::store::command::{Operation, Outcome};
use crate::store::engine::Engine;
use crate::telemetry::metrics::ConsensusMetrics;
use crate::transport::identity::node_principal;
use crate::transport::succession::Published;
use crate::wire::peer::PeerMessage;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What clients read: immutable, shared without locks.
pub type StoreView = crate::store::View<<MemoryEngine as Engine>::Snapshot>;

/// Bytes of log read at once while a peer is served.
const LOG_READ_BYTES: usize = 1 << 20;

/// A request handed out longer ago than this many election timeouts is handed out again.
const RETRY_ELECTIONS: u32 = 2;

/// Pledges that wait for the disk. A peer that hears none repeats what it asked, and each
/// repetition is pledged anew, so a disk that hangs would gather them without end. Several times
/// what all runs of all peers in flight need; what comes then is lost, as on the network.
const PLEDGES_WAITING_MAX: usize = 16 * 1024;

/// Notes kept for people if nobody collects them; a batch makes a handful.
const NOTES_MAX: usize = 1024;

impl Value for Bytes {
    fn weight(&self) -> usize {
        self.len()
    }
}

/// What a driver is made of.
pub struct Parts<L, P, W> {
    /// Which node this is.
    pub id: NodeId,
    /// The cluster's name; with the id it makes the principal of the node's session.
    pub cluster: String,
    /// The acceptor's log.
    pub log: L,
    /// What the log held.
    pub recovered: Recovered<Bytes>,
    /// The way to other nodes.
    pub peers: P,
    /// Clock and randomness.
    pub world: W,
    /// Between which bounds the election timeout moves.
    pub bounds: TimeoutBounds,
    /// Where it counts what it does.
    pub metrics: ConsensusMetrics,
    /// Which trust bundles of the log are believed.
    pub judge: Judge,
}

/// See the module's documentation.
pub struct Driver<L, P, W> {
    pub(super) id: NodeId,
    pub(super) replica: Option<Replica<Bytes>>,
    pub(super) effects: Effects<Bytes>,
    pub(super) cluster: String,
    log: L,
    pub(super) peers: P,
    pub(super) world: W,
    bounds: TimeoutBounds,
    held: VecDeque<Held<Bytes>>,
    /// What this node's acceptor may have pledged.
    memory: Memory,
    /// The highest pledge of each acceptor that was seen.
    witnessed: BTreeMap<NodeId, Witnessed>,
    durable: LogPosition,
    synced_to: LogPosition,
    pub(super) applied: Applied,
    /// When the last entry was applied, on this node's clock.
    applied_at: Duration,
    views: Arc<ArcSwapOption<StoreView>>,
    bundles: watch::Sender<Option<Published>>,
    pub(super) requests: Requests,
    pub(super) session: NodeSession,
    pub(super) session_tried: Option<Duration>,
    pub(super) hosting: Hosting,
    pub(super) attachment: Attachment,
    /// With the leader at the time of the wish.
    pub(super) transfers: Vec<(Transfer, Option<NodeId>)>,
    /// Writes applied in this batch, to be answered once the view shows them.
    answers: Vec<(Reply<Outcome>, Outcome)>,
    /// The leadership under which requests were last handed out.
    pub(super) leadership: Option<(NodeId, Ballot)>,
    pub(super) outlook: PeerTable,
    sync_time: Smoothed,
    timing: Timing,
    notes: Vec<Note>,
    measures: Measures,
    pub(super) recorder: Recorder,
    pub(super) traces: Traces,
}

impl<L: Log, P: Peers, W: World> Driver<L, P, W> {
    /// Rebuilds the store from the log and joins in.
    ///
    /// # Errors
    /// When the log cannot be read back.
    pub fn new(mut parts: Parts<L, P, W>) -> Result<Driver<L, P, W>, RebuildError> {
        let timing = estimate::timing(&parts.bounds, &Measured::default());
        let chosen = parts.recovered.chosen;
        let end = parts.recovered.end;
        let mut incarnation = Incarnation(parts.world.random());
        if planted!(IncarnationReused) {
            incarnation = Incarnation(7);
        }
        let memory = Memory::new(&parts.recovered);
        let start = Start {
            id: parts.id,
            incarnation,
            seed: parts.world.random(),
            timing,
            recovered: parts.recovered,
        };
        let mut replica = Replica::new(start);
        let with_store = replica.as_ref().is_some_and(|replica| {
            replica.configurations().newest().learners().any(|learner| learner == parts.id)
        });
        let mut applied = Applied::new(with_store, parts.judge);
        let attachment = Attachment::new(parts.world.random());
        let token_base = parts.world.random();
        if let Some(replica) = &mut replica {
            applied.rebuild(&mut parts.log, chosen, replica)?;
        }
        Ok(Driver {
            id: parts.id,
            replica,
            effects: Effects::new(end),
            log: parts.log,
            peers: parts.peers,
            applied_at: parts.world.now(),
            world: parts.world,
            bounds: parts.bounds,
            held: VecDeque::new(),
            memory,
            witnessed: BTreeMap::new(),
            durable: end,
            synced_to: end,
            views: Arc::new(ArcSwapOption::new(applied.view().map(Arc::new))),
            bundles: watch::Sender::new(applied.take_bundle()),
            applied,
            requests: Requests::new(token_base),
            session: NodeSession::new(node_principal(parts.id, &parts.cluster)),
            cluster: parts.cluster,
            session_tried: None,
            hosting: Hosting::default(),
            attachment,
            transfers: Vec::new(),
            answers: Vec::new(),
            leadership: None,
            outlook: PeerTable::default(),
            sync_time: Smoothed::default(),
            timing,
            notes: Vec::new(),
            measures: Measures::new(parts.id, parts.metrics),
            recorder: Recorder::beginning_at(chosen),
            traces: Traces::default(),
        })
    }

    /// The store as clients read it, renewed at the end of each batch; none on a node that keeps no
    /// store.
    pub fn views(&self) -> Arc<ArcSwapOption<StoreView>> {
        Arc::clone(&self.views)
    }

    /// The newest trust bundle of the log that was believed.
    pub fn bundles(&self) -> watch::Receiver<Option<Published>> {
        self.bundles.subscribe()
    }

    /// The protocol's state; none on a node that was never given a genesis.
    pub fn replica(&self) -> Option<&Replica<Bytes>> {
        self.replica.as_ref()
    }

    /// The store's state, on a learner.
    pub fn store(&self) -> Option<&Store<MemoryEngine>> {
        self.applied.store()
    }

    /// The last slot that was taken in here.
    pub fn applied(&self) -> Slot {
        self.applied.slot()
    }

    /// The node from whose store this one serves its clients, if it has none of its own.
    pub fn host(&self) -> Option<NodeId> {
        self.attachment.host()
    }

    /// Requests taken in and not answered yet.
    pub fn pending(&self) -> usize {
        self.requests.pending() + self.attachment.pending()
    }

    /// How deep its queues are, those of the core included, and how deep they may get.
    pub fn depths(&self) -> Vec<Depth> {
        let mut depths = self.replica.as_ref().map_or_else(Vec::new, Replica::depths);
        depths.extend(self.requests.depths());
        depths.extend(self.hosting.depths());
        depths.push(self.recorder.depth());
        depths.push(self.traces.depth());
        depths.extend(self.outlook.depths());
        depths.push(self.session.depth());
        let held = self.held.len();
        depths.push(Depth::new("pledges waiting for the disk", held, PLEDGES_WAITING_MAX));
        let lookups = self.attachment.pending();
        depths.push(Depth::new("look-ups waiting", lookups, READS_WAITING_MAX));
        let transfers = self.transfers.len();
        depths.push(Depth::new("wishes for a leader", transfers, TRANSFERS_WAITING_MAX));
        depths.push(Depth::new("notes for people", self.notes.len(), NOTES_MAX));
        depths
    }

    /// Time on this node's clock.
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// What happened since the last call, for people; it is counted already.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Takes in one event. Its consequences leave with [`Driver::finish`] at the latest.
    pub fn handle(&mut self, event: Event) {
        let now = self.world.now();
        match event {
            Event::Peer(from, message) => self.on_peer(from, message, now),
            Event::Persisted(position, took) => self.on_persisted(position, took),
            Event::DiskFull(full) => {
                if let Some(replica) = &mut self.replica {
                    replica.disk_full(full);
                }
            }
            Event::Witness(from, seen) => {
                self.outlook.alive(from, now);
                self.on_witness(from, seen);
            }
            Event::LinkUp(peer) => {
                self.outlook.link_up(peer, now);
                if let Some(seen) = self.witnessed.get(&peer) {
                    self.peers.send(&[peer], PeerMessage::Witness(*seen));
                }
            }
            Event::LinkDown { peer, refused, error } => {
                self.outlook.link_down(peer, error, now);
                if let Some(replica) = self.replica.as_mut().filter(|_| refused) {
                    replica.suspect(peer, &mut self.effects);
                }
            }
            Event::Write(write) => {
                if self.replica.is_none() {
                    (write.reply)(Err(RequestError::no_genesis()));
                } else if self.log.is_full() {
                    (write.reply)(Err(RequestError::Busy(
                        "the log of this node has more to write than its disk can keep up with; \
                         nothing was applied: try again shortly"
                            .to_owned(),
                    )));
                } else if let Some(token) = self.requests.push_write(write) {
                    self.hand_out_write(token);
                }
            }
            Event::Read(read) => {
                if self.replica.is_none() {
                    (read.reply)(Err(RequestError::no_genesis()));
                } else {
                    self.requests.push_read(read);
                }
            }
            Event::Lookup(lookup) if self.replica.is_none() => {
                (lookup.reply)(Err(RequestError::no_genesis()));
            }
            Event::Lookup(lookup) => self.on_lookup(lookup),
            Event::Leave(token) => self.on_leave(token),
            Event::StoreCall(from, call) => {
                self.outlook.alive(from, now);
                self.on_store_call(from, call);
            }
            Event::StoreAnswer(from, answer) => {
                self.outlook.alive(from, now);
                self.on_store_answer(from, answer);
            }
            Event::Transfer(transfer) => self.on_transfer(transfer),
            Event::Recall(recall) => (recall.reply)(Ok(self.recorder.recall(recall.since))),
            Event::Trace(trace) => self.on_trace(trace),
            Event::TraceMessage(from, message) => self.on_trace_message(from, message),
            Event::Tick => self.tick(now),
        }
        self.execute();
    }

    /// Ends a batch of events: sends what gathered, answers what became known.
    pub fn finish(&mut self) {
        let now = self.world.now();
        if let Some(token) = self.requests.group_reads() {
            self.hand_out_reads(token);
        }
        let stamp = self.time(now);
        if let Some(replica) = &mut self.replica {
            replica.observe_time(stamp);
            replica.flush(&mut self.effects);
        }
        self.execute();
        self.follow_leadership();
        self.execute();
        self.publish();
        let served = self.requests.serve_reads(self.applied.slot());
        self.measures.reads_served(served);
        self.serve_callers();
        self.call_host();
        self.answer_transfers();
    }

    /// Replicated time as this node reckons it: the last stamp applied, plus its own time since.
    fn time(&self, now: Duration) -> ClusterTime {
        let since = now.saturating_sub(self.applied_at).as_nanos();
        ClusterTime(self.applied.time().0.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
    }

    fn on_persisted(&mut self, position: LogPosition, took: Duration) {
        self.sync_time.add(took);
        self.durable = self.durable.max(position);
        self.release();
        if let Some(replica) = &mut self.replica {
            replica.persisted(position, &mut self.effects);
        }
    }

    fn on_peer(&mut self, from: NodeId, message: Message<Bytes>, now: Duration) {
        self.outlook.heard(from, &message, now);
        if self.log.is_full() && fills_the_log(&message) {
            return;
        }
        self.recorder.received(self.world.wall(), from, &message);
        if let Message::Pledge(pledge) = &message {
            self.bear_witness(from, pledge);
        }
        if let Some(replica) = &mut self.replica {
            replica.step(from, message, &mut self.effects);
        }
    }

    /// A member tells what it saw this node's acceptor pledge.
    fn on_witness(&mut self, from: NodeId, seen: Witnessed) {
        let Some(replica) = &mut self.replica else { return };
        if !self.memory.bears_out(seen) && !planted!(WitnessIgnored) {
            replica.fence(from, seen, &mut self.effects);
            if replica.status().fenced {
                // What waits for the disk comes from a memory with gaps.
                self.held.clear();
            }
        }
    }

    /// Keeps the highest pledge of each acceptor, to tell it of when a link to it stands again. One
    /// that pledges under another ballot now is told at once: if that is from an old log, what is
    /// kept here is about to be replaced.
    fn bear_witness(&mut self, of: NodeId, pledge: &Pledge<Bytes>) {
        let seen = Witnessed::of(pledge);
        let newest = self.replica.as_ref().map(|replica| replica.configurations().newest());
        if !newest.is_some_and(|newest| newest.is_voter(of, seen.generation)) {
            return;
        }
        let known = self.witnessed.insert(of, seen);
        let Some(known) = known.filter(|known| known.generation == seen.generation) else { return };
        self.witnessed.insert(of, known.max(seen));
        if known.ballot != seen.ballot && of != self.id {
            self.peers.send(&[of], PeerMessage::Witness(known));
        }
    }

    /// Sends the pledges whose records are durable.
    fn release(&mut self) {
        let durable = self.durable;
        let is_due = |held: &Held<Bytes>| {
            let is_vote = matches!(held.pledge, Pledge::Accepted { .. });
            held.after <= durable
                || planted!(SaidBeforeDurable)
                || (is_vote && planted!(VoteSaidBeforeDurable))
        };
        while self.held.front().is_some_and(is_due) {
            if let Some(held) = self.held.pop_front() {
                self.memory.pledged(&held.pledge);
                self.send(&held.to, Message::Pledge(held.pledge));
            }
        }
    }

    /// The one way out of messages of the protocol.
    fn send(&mut self, to: &[NodeId], message: Message<Bytes>) {
        self.recorder.sent(self.world.wall(), to, &message);
        self.peers.send(to, PeerMessage::Paxos(message));
    }

    fn tick(&mut self, now: Duration) {
        let Some(replica) = &mut self.replica else { return };
        let round_trip = self.outlook.slowest_round_trip(replica.configurations().newest());
        let measured = Measured { round_trip, gap: self.outlook.gap(), sync: self.sync_time };
        self.timing = estimate::timing(&self.bounds, &measured);
        replica.retime(self.timing);
        replica.tick(&mut self.effects);
        self.execute();
        self.expire(now);
        self.forget_callers(now);
        self.expire_traces(now);
        let retry = super::world::TICK * self.election_ticks() * RETRY_ELECTIONS;
        if let Some(stale) = now.checked_sub(retry) {
            self.hand_out_all(stale);
        }
    }

    pub(super) fn election_ticks(&self) -> u32 {
        self.timing.election
    }

    /// Carries out effects until there are none.
    fn execute(&mut self) {
        loop {
            let records = self.effects.take_records();
            if !records.is_empty() {
                self.log.append(records);
            }
            if self.effects.awaited() > self.synced_to {
                self.synced_to = self.effects.awaited();
                self.log.sync();
            }
            // What this node decided comes before what it says of it.
            self.note();
            for outgoing in self.effects.take_statements() {
                self.outlook.said(&outgoing, self.world.now());
                self.send(&outgoing.to, Message::Statement(outgoing.statement));
            }
            let room = PLEDGES_WAITING_MAX.saturating_sub(self.held.len());
            self.held.extend(self.effects.take_pledges().into_iter().take(room));
            self.release();
            for read in self.effects.take_log_reads() {
                self.serve_from_log(read);
            }
            let mut chosen = self.effects.take_chosen();
            if planted!(AppliedOutOfOrder) {
                chosen.reverse();
            }
            let rejected = self.effects.take_rejected();
            let reads = self.effects.take_reads();
            if chosen.is_empty() && rejected.is_empty() && reads.is_empty() {
                return;
            }
            if let (Some((first, _)), Some((last, _))) = (chosen.first(), chosen.last()) {
                self.recorder.learned(self.world.wall(), *first, *last);
            }
            self.measures.chosen(chosen.last().map(|(slot, _)| *slot), self.world.now());
            for (slot, entry) in chosen {
                self.apply(slot, &entry);
            }
            self.measures.applied(self.world.now());
            self.answer();
            for (Token(token), _) in rejected {
                self.requests.returned(token);
            }
            for read in reads {
                if let Some(group) = self.requests.read_groups.get_mut(&read.token.0) {
                    group.index = Some(group.index.map_or(read.index, |i| i.min(read.index)));
                }
            }
        }
    }

    fn note(&mut self) {
        let mut notes = self.effects.take_notes();
        for note in &notes {
            self.recorder.note(self.world.wall(), self.id, note);
        }
        notes.retain(|note| self.measures.note(note, self.world.now()));
        let room = NOTES_MAX.saturating_sub(self.notes.len());
        self.notes.extend(notes.into_iter().take(room));
    }

    fn serve_from_log(&mut self, read: LogRead) {
        // What cannot be read is not sent, and the peer asks somebody else; the log reports its own
        // damage.
        let LogRead { to, mut first, chosen, pieces } = read;
        for left in (0..pieces).rev() {
            let Ok(entries) = self.log.read(first, chosen, LOG_READ_BYTES) else { return };
            let next = Slot(first.0 + entries.len() as u64);
            let more = left > 0 && next <= chosen;
            let fetched = Statement::Fetched { first, entries, chosen, floor: Slot(1), more };
            self.send(&[to], Message::Statement(fetched));
            if !more {
                return;
            }
            first = next;
        }
    }

    fn apply(&mut self, slot: Slot, entry: &Entry<Bytes>) {
        let applied = self.applied.apply(slot, entry);
        if let Some(newest) = self.applied.take_bundle() {
            self.bundles.send_replace(Some(newest));
        }
        self.applied_at = self.world.now();
        let Some((command, outcome)) = applied else { return };
        self.hosting.applied(&command, &outcome);
        if let Operation::OpenSession { nonce } = command.operation {
            if let Outcome::SessionOpened(id) = outcome
                && self.session.is_opening(&command.principal, nonce)
            {
                self.session.opened(id, self.session_tried.unwrap_or_default());
                self.hand_out_all(self.applied_at);
            }
        } else if self.session.id() == Some(command.session) {
            self.settle(command.sequence, outcome);
        }
    }

    /// A write of this node's session has its outcome.
    pub(super) fn settle(&mut self, sequence: u64, outcome: Outcome) {
        let Some(token) = self.requests.by_sequence(sequence) else { return };
        match outcome {
            Outcome::SessionUnknown => self.on_session_lost(),
            Outcome::WindowFull => self.requests.refused(token),
            outcome => {
                self.session.settle(sequence);
                if let Some(waiting) = self.requests.take_write(token) {
                    self.session.used(waiting.first_tried.unwrap_or_default());
                    self.answers.push((waiting.write.reply, outcome));
                }
            }
        }
    }

    /// Answers the writes that have their outcome. The view comes first: it must be as new as the
    /// answer, so that clients read their own writes.
    pub(super) fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        self.publish();
        for (reply, outcome) in self.answers.drain(..) {
            reply(Ok(outcome));
        }
    }

    fn publish(&mut self) {
        let shown = self.views.load().as_ref().map(|view| view.applied());
        if shown != self.applied.store().map(Store::applied) {
            self.views.store(self.applied.view().map(Arc::new));
        }
    }
}

/// Whether a peer's message makes this node write values. A log that cannot keep up takes no more
/// of them: they count as lost on the way, and come again.
fn fills_the_log(message: &Message<Bytes>) -> bool {
    use Statement::{Accept, Fetched, Forward};
    matches!(message, Message::Statement(Accept { .. } | Fetched { .. } | Forward { .. }))
}
