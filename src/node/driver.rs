//! The driver: owns a node's whole state and carries out what the core decides.
//!
//! One thread calls [`Driver::handle`] for each event of a batch and [`Driver::finish`] once at its
//! end; nothing here waits for anything. The same code runs in production and in simulation: disk,
//! peers, clock and randomness come in as types. It must never send a pledge before the log is
//! durable that far, apply a slot twice or out of order, or answer a write before its slot was
//! applied here.

use super::estimate::{self, Measured, Smoothed};
use super::event::{Event, Reply, RequestError, Transfer};
use super::outlook::PeerTable;
use super::requests::Requests;
use super::session::NodeSession;
use super::settings::TimeoutBounds;
use super::world::{Peers, World};
use crate::disk::Log;
use crate::disk::engine::MemoryEngine;
use crate::paxos::ballot::{Ballot, ClusterTime, Incarnation, NodeId, Slot};
use crate::paxos::effects::{Effects, Held, LogRead, Note, Token};
use crate::paxos::message::{Entry, Message, Payload, Statement, Value};
use crate::paxos::record::{LogPosition, Recovered};
use crate::paxos::replica::{Replica, Start};
use crate::paxos::timing::Timing;
use crate::store::Store;
use crate::store::command::{Operation, Outcome};
use crate::store::engine::Engine;
use crate::wire::command::decode_command;
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What clients read: immutable, shared without locks.
pub type StoreView = crate::store::View<<MemoryEngine as Engine>::Snapshot>;

/// Bytes of log read at once while a store is rebuilt or a peer is served.
const LOG_READ_BYTES: usize = 1 << 20;

/// A request handed out longer ago than this many election timeouts is handed out again.
const RETRY_ELECTIONS: u32 = 2;

/// Notes kept for the log and the metrics if nobody collects them; a batch makes a handful.
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
    /// The principal under which its session is opened.
    pub principal: String,
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
}

/// The store cannot be rebuilt from the log.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot rebuild the store from the log: {0}; restore this node from its peers under a new voter"
)]
pub struct RebuildError(String);

/// See the module's documentation.
pub struct Driver<L, P, W> {
    pub(super) id: NodeId,
    pub(super) replica: Option<Replica<Bytes>>,
    pub(super) effects: Effects<Bytes>,
    log: L,
    peers: P,
    world: W,
    bounds: TimeoutBounds,
    held: VecDeque<Held<Bytes>>,
    durable: LogPosition,
    synced_to: LogPosition,
    pub(super) store: Store<MemoryEngine>,
    /// When the last entry was applied, on this node's clock.
    applied_at: Duration,
    views: Arc<ArcSwap<StoreView>>,
    requests: Requests,
    session: NodeSession,
    session_tried: Option<Duration>,
    /// With the leader at the time of the wish.
    pub(super) transfers: Vec<(Transfer, Option<NodeId>)>,
    /// Writes applied in this batch, to be answered once the view shows them.
    answers: Vec<(Reply<Outcome>, Outcome)>,
    /// The leadership under which requests were last handed out.
    leadership: Option<(NodeId, Ballot)>,
    pub(super) outlook: PeerTable,
    sync_time: Smoothed,
    timing: Timing,
    notes: Vec<Note>,
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
        let start = Start {
            id: parts.id,
            incarnation: Incarnation(parts.world.random()),
            seed: parts.world.random(),
            timing,
            recovered: parts.recovered,
        };
        let mut replica = Replica::new(start);
        let mut store = Store::new(MemoryEngine::new());
        if let Some(replica) = &mut replica {
            rebuild(&mut store, &mut parts.log, chosen, replica)?;
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
            durable: end,
            synced_to: end,
            views: Arc::new(ArcSwap::from_pointee(store.view())),
            store,
            requests: Requests::default(),
            session: NodeSession::new(parts.principal),
            session_tried: None,
            transfers: Vec::new(),
            answers: Vec::new(),
            leadership: None,
            outlook: PeerTable::default(),
            sync_time: Smoothed::default(),
            timing,
            notes: Vec::new(),
        })
    }

    /// The store as clients read it, renewed at the end of each batch.
    pub fn views(&self) -> Arc<ArcSwap<StoreView>> {
        Arc::clone(&self.views)
    }

    /// The protocol's state; none on a node that was never given a genesis.
    pub fn replica(&self) -> Option<&Replica<Bytes>> {
        self.replica.as_ref()
    }

    /// The store's state.
    pub fn store(&self) -> &Store<MemoryEngine> {
        &self.store
    }

    /// Requests taken in and not answered yet.
    pub fn pending(&self) -> usize {
        self.requests.pending()
    }

    /// Time on this node's clock.
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// What happened since the last call, for the log and the metrics.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Takes in one event. Its consequences leave with [`Driver::finish`] at the latest.
    pub fn handle(&mut self, event: Event) {
        let now = self.world.now();
        match event {
            Event::Peer(from, message) => {
                self.outlook.heard(from, &message, now);
                if self.log.is_full() && fills_the_log(&message) {
                    return;
                }
                if let Some(replica) = &mut self.replica {
                    replica.step(from, message, &mut self.effects);
                }
            }
            Event::Persisted(position, took) => self.on_persisted(position, took),
            Event::DiskFull(full) => {
                if let Some(replica) = &mut self.replica {
                    replica.disk_full(full);
                }
            }
            Event::LinkUp(peer) => self.outlook.link_up(peer),
            Event::LinkDown { peer, refused, error } => {
                self.outlook.link_down(peer, error, now);
                if let Some(replica) = self.replica.as_mut().filter(|_| refused) {
                    replica.suspect(peer, &mut self.effects);
                }
            }
            Event::Write(write) => {
                if self.replica.is_none() {
                    (write.reply)(Err(no_genesis()));
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
                    (read.reply)(Err(no_genesis()));
                } else {
                    self.requests.push_read(read);
                }
            }
            Event::Transfer(transfer) => self.on_transfer(transfer),
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
        self.requests.serve_reads(self.store.applied());
        self.answer_transfers();
    }

    /// Replicated time as this node reckons it: the last stamp applied, plus its own time since.
    fn time(&self, now: Duration) -> ClusterTime {
        let since = now.saturating_sub(self.applied_at).as_nanos();
        ClusterTime(self.store.time().0.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
    }

    fn on_persisted(&mut self, position: LogPosition, took: Duration) {
        self.sync_time.add(took);
        self.durable = self.durable.max(position);
        self.release();
        if let Some(replica) = &mut self.replica {
            replica.persisted(position, &mut self.effects);
        }
    }

    /// Sends the pledges whose records are durable.
    fn release(&mut self) {
        while self.held.front().is_some_and(|held| held.after <= self.durable) {
            if let Some(held) = self.held.pop_front() {
                self.peers.send(&held.to, Message::Pledge(held.pledge));
            }
        }
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
            for outgoing in self.effects.take_statements() {
                self.outlook.said(&outgoing, self.world.now());
                self.peers.send(&outgoing.to, Message::Statement(outgoing.statement));
            }
            self.held.extend(self.effects.take_pledges());
            self.release();
            for read in self.effects.take_log_reads() {
                self.serve_from_log(read);
            }
            self.note();
            let chosen = self.effects.take_chosen();
            let rejected = self.effects.take_rejected();
            let reads = self.effects.take_reads();
            if chosen.is_empty() && rejected.is_empty() && reads.is_empty() {
                return;
            }
            for (slot, entry) in chosen {
                self.apply(slot, &entry);
            }
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
        let notes = self.effects.take_notes();
        let room = NOTES_MAX.saturating_sub(self.notes.len());
        self.notes.extend(notes.into_iter().take(room));
    }

    fn serve_from_log(&mut self, read: LogRead) {
        // What cannot be read is not sent, and the peer asks somebody else; the log reports its own
        // damage.
        if let Ok(entries) = self.log.read(read.first, read.chosen, LOG_READ_BYTES) {
            let fetched = Statement::Fetched {
                first: read.first,
                entries,
                chosen: read.chosen,
                floor: Slot(1),
            };
            self.peers.send(&[read.to], Message::Statement(fetched));
        }
    }

    fn apply(&mut self, slot: Slot, entry: &Entry<Bytes>) {
        let command = match &entry.payload {
            // A command that this version cannot read is one that no version could write: the codec
            // of its origin checked it. It changes nothing, on any node alike.
            Payload::Command(bytes) => decode_command(bytes).ok(),
            Payload::Noop | Payload::Configuration(_) | Payload::Floor(_) => None,
        };
        let outcome = self.store.apply(slot, entry.stamp, command.as_ref());
        self.applied_at = self.world.now();
        let (Some(command), Some(outcome)) = (command, outcome) else { return };
        if let Operation::OpenSession { nonce } = command.operation {
            if let Outcome::SessionOpened(id) = outcome
                && self.session.is_opening(&command.principal, nonce)
            {
                self.session.opened(id);
                self.hand_out_all(self.applied_at);
            }
            return;
        }
        if self.session.id() != Some(command.session) {
            return;
        }
        let Some(token) = self.requests.by_sequence(command.sequence) else { return };
        match outcome {
            Outcome::SessionUnknown => {
                self.session.lost();
                self.session_tried = None;
                self.requests.unnumber();
                self.open_session();
            }
            Outcome::WindowFull => self.requests.returned(token),
            outcome => {
                self.session.settle(command.sequence);
                if let Some(waiting) = self.requests.take_write(token) {
                    self.answers.push((waiting.write.reply, outcome));
                }
            }
        }
    }

    /// Answers the writes that were applied. The view comes first: it must be as new as the answer,
    /// so that clients read their own writes.
    fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        self.publish();
        for (reply, outcome) in self.answers.drain(..) {
            reply(Ok(outcome));
        }
    }

    fn publish(&mut self) {
        if self.views.load().applied() != self.store.applied() {
            self.views.store(Arc::new(self.store.view()));
        }
    }

    fn open_session(&mut self) {
        let nonce = u128::from(self.world.random()) << 64 | u128::from(self.world.random());
        let command = crate::wire::command::encode_command(&self.session.open(nonce));
        self.session_tried = Some(self.world.now());
        if let Some(replica) = &mut self.replica {
            replica.propose(Token(0), command, &mut self.effects);
        }
    }

    fn hand_out_write(&mut self, token: u64) {
        let now = self.world.now();
        let Some(session) = self.session.id() else {
            if self.session_tried.is_none() {
                self.open_session();
            }
            return;
        };
        let Some(waiting) = self.requests.writes.get_mut(&token) else { return };
        waiting.tried = Some(now);
        waiting.handed_out += 1;
        let request_id = waiting
            .write
            .request_id
            .as_ref()
            .map(|id| format!("{}\n{id}", waiting.write.principal));
        let operation = waiting.write.operation.clone();
        let sequence = waiting.sequence.unwrap_or_else(|| self.session.issue());
        self.requests.number(token, sequence);
        let command = self.session.command(session, sequence, request_id, operation);
        let command = crate::wire::command::encode_command(&command);
        if let Some(replica) = &mut self.replica {
            replica.propose(Token(token), command, &mut self.effects);
        }
    }

    fn hand_out_reads(&mut self, token: u64) {
        let now = self.world.now();
        if let (Some(replica), Some(group)) =
            (&mut self.replica, self.requests.read_groups.get_mut(&token))
        {
            group.tried = Some(now);
            replica.read(Token(token), &mut self.effects);
        }
    }

    /// Hands out what nobody holds, and again what was handed out before `stale`.
    fn hand_out_all(&mut self, stale: Duration) {
        let known = self.replica.as_ref().is_some_and(|r| r.status().leader.is_some());
        if !known {
            return;
        }
        let (writes, reads) = self.requests.due(stale);
        if self.session.id().is_none() && !writes.is_empty() {
            if self.session_tried.is_none_or(|tried| tried <= stale) {
                self.open_session();
            }
        } else {
            writes.into_iter().for_each(|token| self.hand_out_write(token));
        }
        reads.into_iter().for_each(|token| self.hand_out_reads(token));
    }

    /// Another leader, or the same one under another ballot, may never have heard of what waits
    /// here.
    fn follow_leadership(&mut self) {
        let Some(replica) = &self.replica else { return };
        let status = replica.status();
        let leadership = status.leader.map(|leader| (leader, status.ballot));
        if leadership == self.leadership {
            return;
        }
        self.leadership = leadership;
        if leadership.is_some() {
            self.hand_out_all(self.world.now());
            if let Some(replica) = &mut self.replica {
                replica.flush(&mut self.effects);
            }
        }
    }

    fn expire(&mut self, now: Duration) {
        let why = self.why_not();
        for waiting in self.requests.overdue_writes(now) {
            if let Some(sequence) = waiting.sequence {
                self.session.settle(sequence);
            }
            let error = if waiting.handed_out == 0 {
                RequestError::NoQuorum(format!(
                    "the write found no leader before its deadline ({why}); it was not applied: \
                     try \
                     again once `paxos status` shows a leader"
                ))
            } else {
                RequestError::UnknownOutcome(format!(
                    "the write was on its way when its deadline passed ({why}); it may have been \
                     applied: read the key, or repeat the request under the same --request-id"
                ))
            };
            (waiting.write.reply)(Err(error));
        }
        for read in self.requests.overdue_reads(now) {
            (read.reply)(Err(RequestError::NoQuorum(format!(
                "no quorum confirmed the read before its deadline ({why}); try again, or read with \
                 --consistency local"
            ))));
        }
        self.expire_transfers(now, &why);
    }

    fn why_not(&self) -> String {
        let Some(replica) = &self.replica else { return "this node holds no log".to_owned() };
        let status = replica.status();
        match status.leader {
            Some(leader) if leader == self.id => {
                "this node leads, but a quorum did not answer".into()
            }
            Some(leader) => {
                let newest = replica.configurations().newest();
                let name = newest.member(leader).map_or("?", |member| &member.name);
                format!("{name} leads, but did not answer in time")
            }
            None => "no leader is known".to_owned(),
        }
    }
}

/// Whether a peer's message makes this node write values. A log that cannot keep up takes no more
/// of them: they count as lost on the way, and come again.
fn fills_the_log(message: &Message<Bytes>) -> bool {
    use Statement::{Accept, Fetched, Forward};
    matches!(message, Message::Statement(Accept { .. } | Fetched { .. } | Forward { .. }))
}

pub(super) fn no_genesis() -> RequestError {
    RequestError::NoQuorum(
        "this node holds no log and no genesis, so it takes part in nothing; nothing was \
         applied: ask \
         another node, and see `paxos status` here"
            .to_owned(),
    )
}

fn rebuild<L: Log>(
    store: &mut Store<MemoryEngine>,
    log: &mut L,
    chosen: Slot,
    replica: &mut Replica<Bytes>,
) -> Result<(), RebuildError> {
    let mut next = Slot(1);
    while next <= chosen {
        let entries = log
            .read(next, chosen, LOG_READ_BYTES)
            .map_err(|error| RebuildError(format!("slots from {next}: {error}")))?;
        if entries.is_empty() {
            return Err(RebuildError(format!("slot {next} is chosen but missing")));
        }
        for entry in entries {
            let command = match &entry.payload {
                Payload::Command(bytes) => decode_command(bytes).ok(),
                Payload::Configuration(configuration) => {
                    replica.recall(next, configuration.clone());
                    None
                }
                Payload::Noop | Payload::Floor(_) => None,
            };
            store.apply(next, entry.stamp, command.as_ref());
            next = next.next();
        }
    }
    Ok(())
}
