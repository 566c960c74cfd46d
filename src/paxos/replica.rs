//! One node's roles put together: what the driver and the model checker talk to.
//!
//! ```text
//!   step(from, message) ─┐                        ┌─▶ records ──▶ log ──▶ persisted(position)
//!   tick ────────────────┤   ┌──────────────┐     ├─▶ statements ─▶ peers, at once
//!   campaign ────────────┼──▶│ acceptor     │────▶├─▶ pledges ────▶ peers, once durable
//!   propose / read ──────┤   │ proposer     │     ├─▶ chosen ─────▶ state machine, in order
//!   persisted ───────────┘   │ learner      │     └─▶ rejected, reads, notes
//!                            └──────────────┘
//! ```
//!
//! The roles are machines of their own that share nothing but messages; this file carries messages
//! between them and keeps what belongs to the node: the configurations, the election timer, waiting
//! reads. How each message is handled is in `dispatch`. Every entry point ends with
//! [`Replica::invariants`], in release too.

use super::acceptor::Acceptor;
use super::ballot::{Ballot, ClusterTime, Incarnation, NodeId, Slot};
use super::catch_up::CatchUp;
use super::configuration::{Configuration, Configurations};
use super::effects::{ConfirmedRead, Effects, Note, Rejection, StepDown, Token};
use super::election::{Call, Election};
use super::forward::FORWARD_ENTRIES_MAX;
use super::learner::Learner;
use super::message::{DiskHealth, Message, Payload, Statement, Value};
use super::outbox::{Loopback, Outbox};
use super::proposer::{Follower, Phase, Proposer};
use super::reads::{Reader, Reads};
use super::record::{LogPosition, Record, Recovered};
use super::timing::Timing;
use std::sync::Arc;

/// What a replica starts from.
#[derive(Debug, Clone)]
pub struct Start<V> {
    /// Which node this is.
    pub id: NodeId,
    /// Drawn at random for this run of the process.
    pub incarnation: Incarnation,
    /// Seeds jitter, nothing else.
    pub seed: u64,
    /// How long to wait for what, until measurements say otherwise.
    pub timing: Timing,
    /// What the log held.
    pub recovered: Recovered<V>,
}

/// What a replica says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether it leads, and under which ballot.
    pub leading: Option<Ballot>,
    /// Whether it tries to lead.
    pub campaigning: bool,
    /// The leader it knows, itself included.
    pub leader: Option<NodeId>,
    /// The highest ballot it knows.
    pub ballot: Ballot,
    /// What its acceptor promised.
    pub promised: Ballot,
    /// The end of the chosen prefix.
    pub chosen: Slot,
    /// Slots proposed and not known chosen.
    pub in_flight: usize,
    /// Commands that wait for a place.
    pub queued: usize,
    /// How its disk does.
    pub disk: DiskHealth,
    /// Whether its acceptor forgot what it pledged, and votes no more.
    pub fenced: bool,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica<V> {
    pub(super) id: NodeId,
    pub(super) configurations: Configurations,
    pub(super) acceptor: Option<Acceptor<V>>,
    pub(super) proposer: Option<Proposer<V>>,
    pub(super) learner: Learner<V>,
    pub(super) election: Election,
    pub(super) reads: Reads,
    pub(super) loopback: Loopback<V>,
    pub(super) catch_up: CatchUp,
    pub(super) disk: DiskHealth,
    /// The acceptor forgot what it pledged.
    pub(super) fenced: bool,
    /// The leader knows a newer configuration than this node.
    pub(super) outdated: bool,
    pub(super) forwards: Vec<V>,
    now: ClusterTime,
    durable: LogPosition,
    awaited: LogPosition,
    /// Ticks since the log last made progress while something waited for it.
    stalled: u32,
}

impl<V: Value> Replica<V> {
    /// A replica as its log left it, or nothing if the log never had a genesis: such a node has no
    /// vote and no say until it is told who takes part.
    pub fn new(start: Start<V>) -> Option<Replica<V>> {
        let recovered = start.recovered;
        let genesis = recovered.genesis.as_ref()?;
        let configurations = Configurations::new(genesis);
        let member = recovered.members().and_then(|newest| newest.member(start.id));
        let roles = member.map(|member| member.roles).unwrap_or_default();
        let generation = recovered
            .generation
            .filter(|_| !recovered.fenced)
            .filter(|g| roles.acceptor == Some(*g) || planted!(StaleGenerationCounts));
        let highest = recovered.promised;
        Some(Replica {
            id: start.id,
            acceptor: generation.map(|generation| Acceptor::new(generation, &recovered)),
            proposer: roles.proposer.map(|id| Proposer::new(id, start.incarnation, highest)),
            learner: Learner::new(recovered.chosen),
            election: Election::new(start.timing, start.seed),
            reads: Reads::default(),
            loopback: Loopback::default(),
            catch_up: CatchUp::default(),
            disk: DiskHealth::Healthy,
            fenced: recovered.fenced,
            outdated: false,
            forwards: Vec::new(),
            now: ClusterTime(0),
            durable: recovered.end,
            awaited: LogPosition(0),
            stalled: 0,
            configurations,
        })
    }

    /// A configuration that the log holds at a chosen slot, found while its entries are read back.
    pub fn recall(&mut self, slot: Slot, configuration: Configuration) {
        self.configurations.chosen(slot, configuration);
    }

    /// A peer said something.
    pub fn step(&mut self, from: NodeId, message: Message<V>, effects: &mut Effects<V>) {
        self.deliver(from, message, effects);
        self.settle(effects);
    }

    /// The log is durable up to `position`.
    pub fn persisted(&mut self, position: LogPosition, effects: &mut Effects<V>) {
        if position > self.durable {
            self.durable = position;
            self.stalled = 0;
            if self.disk == DiskHealth::Stalled {
                self.disk = DiskHealth::Healthy;
            }
        }
        while let Some((after, _)) = self.loopback.held.front() {
            if *after > self.durable {
                break;
            }
            let (_, pledge) = self.loopback.held.pop_front().expect("the front is there");
            effects.note(Note::of_own(&pledge));
            self.loopback.now.push_back(pledge.into());
        }
        self.settle(effects);
    }

    /// Tries to lead, asking nobody first.
    pub fn campaign(&mut self, effects: &mut Effects<V>) {
        self.start_campaign(effects);
        self.settle(effects);
    }

    /// A client of this node wants a command chosen. It is proposed here, or on its way to the
    /// leader after the next [`Replica::flush`], or rejected. Nothing promises that it arrives:
    /// whoever holds the request proposes it again until it sees the outcome.
    pub fn propose(&mut self, token: Token, command: V, effects: &mut Effects<V>) {
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects: &mut *effects };
        match &mut self.proposer {
            Some(proposer) if !matches!(proposer.phase, Phase::Idle) => {
                proposer.enqueue(Some(token), command, &mut out);
            }
            _ if self.forwards.len() >= FORWARD_ENTRIES_MAX => {
                out.reject(token, Rejection::QueueFull);
            }
            _ if self.election.leader().is_some() || self.election.relay().is_some() => {
                self.forwards.push(command);
            }
            _ => out.reject(token, Rejection::NoLeader),
        }
    }

    /// A client of this node wants to read what is true now. Like [`Replica::propose`], this may
    /// get lost.
    pub fn read(&mut self, token: Token, effects: &mut Effects<V>) {
        let request = Statement::ReadIndexRequest { origin: self.id, token: token.0, hops: 0 };
        if self.proposer.as_ref().is_some_and(|p| !matches!(p.phase, Phase::Idle)) {
            self.reads.push(Reader { origin: self.id, token: token.0, via: self.id });
        } else if let Some((leader, _)) = self.election.leader() {
            effects.say(leader, request);
        } else if let Some(relay) = self.election.relay() {
            effects.say(relay, request);
        } else {
            effects.reject(token, Rejection::NoLeader);
        }
    }

    /// Sends what gathered during the steps before: runs of proposals, forwarded commands, a round
    /// for waiting reads, news of what is chosen. The driver calls it once for each batch of
    /// events.
    pub fn flush(&mut self, effects: &mut Effects<V>) {
        self.send_forwards(effects);
        let chosen = self.learner.chosen();
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects };
        if let Some(proposer) = &mut self.proposer {
            proposer.flush(chosen, self.now, &self.configurations, &mut out);
            proposer.push_hand_over(chosen, &self.configurations, &mut out);
        }
        self.start_read_round(effects);
        self.settle(effects);
        self.announce_chosen(effects);
    }

    /// One tick passed.
    pub fn tick(&mut self, effects: &mut Effects<V>) {
        if self.awaited > self.durable {
            self.stalled = self.stalled.saturating_add(1);
            if self.stalled >= self.election.timing().election && self.disk == DiskHealth::Healthy {
                self.disk = DiskHealth::Stalled;
            }
        }
        if self.is_leading() {
            self.tick_leading(effects);
        } else {
            self.tick_following(effects);
        }
        self.tick_catch_up(effects);
        self.settle(effects);
        self.flush(effects);
    }

    fn tick_leading(&mut self, effects: &mut Effects<V>) {
        let timing = self.election.timing();
        let chosen = self.learner.chosen();
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects: &mut *effects };
        let proposer = self.proposer.as_mut().expect("a leader is a proposer");
        proposer.resend(chosen, timing, &self.configurations, &mut out);
        proposer.tick_hand_over();
        let leading = proposer.leading_mut().expect("this node leads");
        leading.quiet += 1;
        let speak = leading.quiet >= timing.heartbeat;
        for follower in leading.followers.values_mut() {
            follower.silent = follower.silent.saturating_add(1);
            follower.unheard = follower.unheard.saturating_add(1);
        }
        let governing = self.configurations.governing(chosen.next());
        let followed = governing
            .acceptors()
            .filter(|a| leading.followers.get(a).is_some_and(|f| f.silent < timing.election))
            .count();
        if followed < governing.quorums().phase2() && !planted!(NeverStepsDown) {
            self.step_down(StepDown::QuorumLost, effects);
            return;
        }
        if speak {
            self.heartbeat(effects);
        }
        if self.disk != DiskHealth::Healthy
            && let Some(successor) = self.successor()
        {
            // Where it is refused, a leader with a slow disk is better than none.
            let _refused_or_under_way = self.hand_over(successor, effects);
        }
    }

    fn tick_following(&mut self, effects: &mut Effects<V>) {
        if let Some(lost) = self.election.age() {
            effects.note(Note::LeaderLost(lost));
        }
        let timing = self.election.timing();
        let Some(proposer) = &mut self.proposer else {
            // It cannot lead, but it has requests to pass on: an acceptor that hears the leader may
            // do for a relay until this node hears it again.
            if let Some(Call::Inquire(round)) = self.election.tick() {
                self.inquire(round, effects);
            }
            return;
        };
        if let Some(ballot) = proposer.tick_preparing(timing) {
            let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects };
            assert!(proposer.preparing() == Some(ballot), "gave up another phase 1");
            proposer.stop(None, &mut out);
            self.election.failed();
            self.drop_reads(effects);
        } else if proposer.preparing().is_some() {
            if proposer.should_repeat(timing) {
                let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects };
                proposer.prepare(&self.configurations, &mut out);
            }
            self.try_lead(effects);
        } else if let Some(Call::Inquire(round)) = self.election.tick() {
            self.inquire(round, effects);
        }
    }

    fn inquire(&mut self, round: u64, effects: &mut Effects<V>) {
        effects.note(Note::Inquiring);
        let first = self.learner.chosen().next();
        let acceptors: std::collections::BTreeSet<NodeId> =
            self.configurations.from(first).flat_map(Configuration::acceptors).collect();
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects };
        out.say_to_all(acceptors, Statement::Inquire { round });
    }

    pub(super) fn start_campaign(&mut self, effects: &mut Effects<V>) {
        let first = self.learner.chosen().next();
        let Some(proposer) = &mut self.proposer else { return };
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects: &mut *effects };
        self.election.forget_leader();
        self.reads.restart();
        if proposer.campaign(first, &self.configurations, &mut out).is_err() {
            // Numbers are used up; COUNTER_JUMP_MAX makes this a matter of 2⁵⁷ elections.
            proposer.stop(None, &mut out);
        }
    }

    pub(super) fn try_lead(&mut self, effects: &mut Effects<V>) {
        let chosen = self.learner.chosen();
        let Some(proposer) = &mut self.proposer else { return };
        if proposer.preparing().is_none() {
            return;
        }
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects: &mut *effects };
        let missing_at = proposer.try_lead(chosen, &self.configurations, &mut out);
        if let Some(leading) = proposer.leading_mut() {
            for acceptor in self.configurations.governing(chosen.next()).acceptors() {
                leading.followers.insert(acceptor, Follower { fit: true, ..Follower::default() });
            }
            self.election.won();
            self.heartbeat(effects);
        } else if let Some(source) = missing_at {
            let first = chosen.next();
            if self.catch_up.asked != first || self.catch_up.left == 0 {
                self.fetch(source, first, effects);
            }
        }
    }

    pub(super) fn step_down(&mut self, why: StepDown, effects: &mut Effects<V>) {
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects: &mut *effects };
        if let Some(proposer) = &mut self.proposer {
            proposer.stop(Some(why), &mut out);
        }
        self.election.failed();
        self.drop_reads(effects);
    }

    fn drop_reads(&mut self, effects: &mut Effects<V>) {
        for token in self.reads.stop(self.id) {
            effects.reject(Token(token), Rejection::NoLeader);
        }
    }

    pub(super) fn heartbeat(&mut self, effects: &mut Effects<V>) {
        let chosen = self.learner.chosen();
        let newest = self.configurations.newest();
        let Some(leading) = self.proposer.as_mut().and_then(Proposer::leading_mut) else { return };
        leading.round += 1;
        leading.quiet = 0;
        leading.told = chosen;
        let statement = Statement::Heartbeat {
            ballot: leading.ballot,
            round: leading.round,
            chosen,
            configuration: newest.number,
        };
        let everybody: Vec<NodeId> = newest.members().keys().copied().collect();
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects };
        out.say_to_all(everybody, statement);
    }

    fn start_read_round(&mut self, effects: &mut Effects<V>) {
        let chosen = self.learner.chosen();
        let Some(proposer) = &mut self.proposer else { return };
        let mut index = proposer.last_proposed();
        if planted!(ReadAtLearnedEnd) || planted!(ReadBeforeFirstNoop) {
            index = chosen;
        }
        let Some(leading) = proposer.leading_mut() else { return };
        let early = chosen < leading.opening && !planted!(ReadBeforeFirstNoop);
        if early || !self.reads.wants_round() {
            return;
        }
        self.reads.start(leading.round + 1, index);
        self.heartbeat(effects);
    }

    /// Tells followers at once what became chosen, unless an `Accept` or a heartbeat already did.
    fn announce_chosen(&mut self, effects: &mut Effects<V>) {
        let chosen = self.learner.chosen();
        let Some(leading) = self.proposer.as_mut().and_then(Proposer::leading_mut) else { return };
        if leading.told >= chosen {
            return;
        }
        leading.told = chosen;
        let statement = Statement::Chosen { ballot: leading.ballot, chosen };
        let newest = self.configurations.newest();
        let others = newest.members().keys().copied().filter(|id| *id != self.id).collect();
        effects.say_to_all(others, statement);
    }

    /// Delivers what the node said to itself, hands on what became chosen, and checks everything.
    pub(super) fn settle(&mut self, effects: &mut Effects<V>) {
        loop {
            self.advance(effects);
            let Some(message) = self.loopback.now.pop_front() else { break };
            self.deliver(self.id, message, effects);
        }
        self.awaited = self.awaited.max(effects.awaited());
        self.invariants();
    }

    fn advance(&mut self, effects: &mut Effects<V>) {
        let before = self.learner.chosen();
        while let Some((slot, entry)) = self.learner.next() {
            if self.proposer.as_ref().is_some_and(|proposer| proposer.is_overruled(slot, &entry)) {
                self.step_down(StepDown::Superseded, effects);
            }
            let vote = self.acceptor.as_ref().and_then(|acceptor| acceptor.vote(slot));
            let logged =
                vote.is_some_and(|vote| Arc::ptr_eq(&vote.entry, &entry) || vote.entry == entry);
            let left_out = vote.is_some() && planted!(LearnedNotLogged);
            if !logged && !left_out {
                effects.append(Record::Learned { slot, entry: Arc::clone(&entry) });
            }
            if let Payload::Configuration(configuration) = &entry.payload {
                self.configurations.chosen(slot, configuration.clone());
            }
            effects.choose(slot, entry);
        }
        let chosen = self.learner.chosen();
        if chosen > before {
            effects.append(Record::Chosen(chosen));
            if let Some(acceptor) = &mut self.acceptor {
                acceptor.forget(chosen);
            }
            if let Some(proposer) = &mut self.proposer {
                proposer.progress();
            }
            self.try_lead(effects);
        }
    }

    /// Answers readers whose round is confirmed.
    pub(super) fn confirm_reads(&mut self, effects: &mut Effects<V>) {
        let Some(awaited) = self.reads.awaited() else { return };
        let governing = self.configurations.governing(self.learner.chosen().next());
        let Some(leading) = self.proposer.as_mut().and_then(Proposer::leading_mut) else { return };
        let confirmed = governing
            .acceptors()
            .filter(|a| leading.followers.get(a).is_some_and(|f| f.round >= awaited))
            .count();
        if confirmed < governing.quorums().confirmation() && !planted!(ReadUnconfirmed) {
            return;
        }
        effects.note(Note::ReadRound);
        let (index, readers) = self.reads.confirmed();
        for Reader { origin, token, via } in readers {
            if origin == self.id {
                effects.confirm(ConfirmedRead { token: Token(token), index });
            } else {
                effects.say(via, Statement::ReadIndex { origin, token, index });
            }
        }
    }

    /// The driver's reading of replicated time, stamped on what this node proposes from now on.
    pub fn observe_time(&mut self, now: ClusterTime) {
        self.now = self.now.max(now);
    }

    /// Waits that suit measured round trips and disk times.
    pub fn retime(&mut self, timing: Timing) {
        self.election.retime(timing);
    }

    /// Draws jitter from another seed from now on. How long a node waits is never a matter of
    /// safety: whoever compares replicas wants those to be equal that differ in future waits alone.
    pub fn reseed(&mut self, seed: u64) {
        self.election.reseed(seed);
    }

    /// Whether the disk has room.
    pub fn disk_full(&mut self, full: bool) {
        if full {
            self.disk = DiskHealth::Full;
        } else if self.disk == DiskHealth::Full {
            self.disk = DiskHealth::Healthy;
        }
    }

    /// There is evidence that a peer is dead: its connection was reset and a new one was refused.
    pub fn suspect(&mut self, peer: NodeId, effects: &mut Effects<V>) {
        let leading = self.proposer.as_mut().and_then(Proposer::leading_mut);
        if let Some(follower) = leading.and_then(|leading| leading.followers.get_mut(&peer)) {
            follower.unheard = u32::MAX;
        }
        if self.election.suspect(peer) {
            effects.note(Note::LeaderLost(peer));
        }
    }

    /// Who takes part, as far as this node knows.
    pub fn configurations(&self) -> &Configurations {
        &self.configurations
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        let proposer = self.proposer.as_ref();
        let leading = proposer.and_then(Proposer::leading);
        let heard = self.election.leader();
        let promised = self.acceptor.as_ref().map_or(Ballot::ZERO, Acceptor::promised);
        let highest = proposer.map_or(Ballot::ZERO, Proposer::highest);
        Status {
            leading,
            campaigning: proposer.is_some_and(|p| p.preparing().is_some())
                || self.election.is_inquiring(),
            leader: leading.map(|_| self.id).or(heard.map(|(node, _)| node)),
            ballot: leading.or(heard.map(|(_, ballot)| ballot)).unwrap_or(promised.max(highest)),
            promised,
            chosen: self.learner.chosen(),
            in_flight: proposer.map_or(0, Proposer::in_flight),
            queued: proposer.map_or(0, Proposer::queued),
            disk: self.disk,
            fenced: self.fenced,
        }
    }

    /// Panics when the node broke a rule of its own. What peers say cannot cause that.
    pub fn invariants(&self) {
        let chosen = self.learner.chosen();
        self.learner.invariants();
        if let Some(acceptor) = &self.acceptor {
            acceptor.invariants(chosen);
        }
        if let Some(proposer) = &self.proposer {
            proposer.invariants(chosen, self.configurations.window());
        }
        assert!(self.loopback.now.is_empty(), "a message to oneself was left behind");
    }
}
