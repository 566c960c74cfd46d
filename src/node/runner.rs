//! The node's thread: takes events in batches, keeps the clock ticking, publishes what others read.

use super::driver::Driver;
use super::event::Event;
use super::inbox::Inbox;
use super::report::Identity;
use super::status::{NODE_LOOP, NodeStatus, PeerState};
use super::world::{Peers, TICK, World};
use crate::disk::Log;
use crate::paxos::ballot::NodeId;
use crate::paxos::effects::Note;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::watchdog::{Beat, Watched, Work};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// Ticks made up for when the thread was held up. Enough for a busy machine; after a long pause (a
/// suspended process) time starts anew rather than all timeouts at once.
const LATE_TICKS_MAX: u32 = 4;

/// The longest time that one batch may take. Peers miss a leader long before, and no batch that the
/// lanes can hold takes nearly as long on any machine.
const TURN_MAX: Duration = Duration::from_secs(2);

/// How the node's thread is watched. It turns at each tick, so it is never idle.
pub fn watched() -> Watched {
    Watched {
        name: NODE_LOOP.to_owned(),
        limit: TURN_MAX,
        next: "look at the disk of the data directory and at the machine's load; if it does not \
               turn again by itself, restart this node, the others go on without it",
    }
}

/// What the thread does with an event.
fn work(event: &Event) -> Work {
    match event {
        Event::Persisted(..)
        | Event::DiskFull(_)
        | Event::LinkUp(_)
        | Event::LinkDown { .. }
        | Event::Tick => Work::News,
        Event::Peer(..)
        | Event::Witness(..)
        | Event::StoreCall(..)
        | Event::StoreAnswer(..)
        | Event::TraceMessage(..) => Work::Message,
        Event::Write(_)
        | Event::Read(_)
        | Event::Lookup(_)
        | Event::Leave(_)
        | Event::Recall(_)
        | Event::Trace(_)
        | Event::Transfer(_) => Work::Request,
    }
}

/// See the module's documentation.
pub struct Runner<L, P, W> {
    /// Does the work.
    pub driver: Driver<L, P, W>,
    /// Brings it.
    pub inbox: Arc<Inbox>,
    /// Who the node is.
    pub identity: Identity,
    /// Where the status is read.
    pub status: Arc<ArcSwap<NodeStatus>>,
    /// Where the numbers go.
    pub metrics: Arc<Metrics>,
    /// Says that it turns.
    pub beat: Beat,
}

impl<L: Log, P: Peers, W: World> Runner<L, P, W> {
    /// Runs until the inbox is closed.
    pub fn run(mut self) {
        let mut batch: Vec<Event> = Vec::new();
        let mut next_tick = self.driver.now() + TICK;
        loop {
            let patience = next_tick.saturating_sub(self.driver.now());
            self.beat.busy(Work::Waiting);
            let open = self.inbox.take(&mut batch, patience);
            self.beat.busy(Work::News);
            for event in batch.drain(..) {
                self.beat.goes_on(work(&event));
                self.driver.handle(event);
            }
            self.beat.goes_on(Work::Ticking);
            let ticked = self.tick(&mut next_tick);
            self.beat.goes_on(Work::Answering);
            self.driver.finish();
            self.beat.goes_on(Work::Publishing);
            let notes = self.driver.take_notes();
            let noted = self.note(&notes);
            if ticked || noted {
                self.publish();
            }
            if !open {
                return;
            }
        }
    }

    fn tick(&mut self, next_tick: &mut Duration) -> bool {
        let now = self.driver.now();
        let mut ticked = false;
        for _ in 0..LATE_TICKS_MAX {
            if *next_tick > now {
                return ticked;
            }
            self.driver.handle(Event::Tick);
            *next_tick += TICK;
            ticked = true;
        }
        *next_tick = now + TICK;
        ticked
    }

    fn publish(&mut self) {
        let status = self.driver.status(&self.identity);
        let numbers = &self.metrics.consensus;
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        numbers.has_leader.set(i64::from(status.leader.is_some()));
        numbers.ballot_number.set(count(status.ballot.number.value()));
        numbers.chosen_slot.set(count(status.chosen.0));
        numbers.applied_slot.set(count(status.applied.0));
        numbers.revision.set(count(status.revision.unwrap_or(0)));
        numbers.keys.set(count(self.driver.views().load().as_ref().map_or(0, |v| v.count())));
        if let Some(replica) = self.driver.replica() {
            let replica = replica.status();
            numbers.is_leader.set(i64::from(replica.leading.is_some()));
            numbers.slots_in_flight.set(count(replica.in_flight as u64));
            numbers.fenced.set(i64::from(replica.fenced));
        }
        numbers.requests_pending.set(count(self.driver.pending() as u64));
        let up = status.members.iter().filter(|member| member.state == PeerState::Up).count();
        numbers.members.set(count(status.members.len() as u64));
        numbers.members_up.set(count(up as u64));
        let needed = status.phase1.max(status.phase2);
        numbers.has_quorum.set(i64::from(needed > 0 && status.reachable >= needed));
        self.status.store(Arc::new(status));
    }

    /// What a member is called, or its id.
    fn name(&self, id: NodeId) -> String {
        let newest = self.driver.replica().map(|replica| replica.configurations().newest());
        let member = newest.and_then(|newest| newest.member(id));
        member.map_or_else(|| id.to_string(), |member| member.name.clone())
    }

    /// Writes what happened to the program's log; says whether anything did.
    fn note(&self, notes: &[Note]) -> bool {
        for note in notes {
            match note {
                Note::Inquiring => info!("asks whether a leader is missed"),
                Note::Campaigning(ballot) => info!(%ballot, "phase 1: prepare"),
                Note::CampaignLost(ballot) => info!(%ballot, "phase 1 given up"),
                Note::Leading(ballot) => info!(%ballot, "leads"),
                Note::SteppedDown(ballot, why) => info!(%ballot, ?why, "leads no longer"),
                Note::Following(leader, ballot) => {
                    info!(leader = %self.name(*leader), %ballot, "follows");
                }
                Note::LeaderLost(leader) => {
                    info!(leader = %self.name(*leader), "the leader is lost");
                }
                Note::Refused(from, offence) => {
                    warn!(from = %self.name(*from), ?offence, "refused a message");
                }
                Note::ProposerClash(ballot) => warn!(
                    %ballot,
                    "another process issues ballots under this node's proposer id, or issued them \
                     before this one started; if this is said again, see whether a copy of this \
                     node runs"
                ),
                Note::Fenced { by, ballot, last } => error!(
                    seen_by = %self.name(*by),
                    %ballot,
                    slot = last.0,
                    "this node's log is behind: it does not hold what its acceptor was seen to \
                     pledge (an old copy of the directory, a second node over a copy of it, or a \
                     disk that lied). The acceptor votes no more; see `paxos status`"
                ),
                // Everyday work; the driver counts it and keeps it to itself.
                Note::Proposed { .. }
                | Note::ReadRound
                | Note::PromisedItself { .. }
                | Note::AcceptedItself { .. } => {}
            }
        }
        !notes.is_empty()
    }
}
