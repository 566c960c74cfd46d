//! When to try to lead: hears leaders, misses them, and asks around before it disturbs anybody.
//!
//! Safety never depends on this file; liveness does. A node campaigns only after a quorum told it,
//! in answer to a question asked just now, that they hear no leader either (the idea of Raft's
//! pre-vote, Ongaro's thesis §9.6, and of quorum-connected candidates in the OmniPaxos paper,
//! §5.2). So a node with a bad link cannot unseat a leader that others follow, and one that never
//! had a leader need not wait for one. Rivals are kept apart by full jitter, which doubles with
//! each failed campaign and starts over with progress.

use super::ballot::{Ballot, NodeId};
use super::configuration::Configuration;
use super::timing::{Backoff, Jitter, Timing};
use std::collections::BTreeMap;

/// The leader that a node follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Leader {
    node: NodeId,
    ballot: Ballot,
    silent: u32,
}

/// What the node does about a missing leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing, for so many ticks.
    Waiting(u32),
    /// Waits for reports; holds which leader each reporter hears.
    Inquiring { left: u32, reports: BTreeMap<NodeId, Option<Ballot>> },
}

/// What a tick or a report calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Ask every acceptor.
    Inquire(u64),
    /// Enough of them miss a leader: start phase 1.
    Campaign,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Election {
    timing: Timing,
    jitter: Jitter,
    backoff: Backoff,
    leader: Option<Leader>,
    phase: Phase,
    round: u64,
    /// A node that hears a leader which this one does not, and for how long it has not said so
    /// again.
    relay: Option<(NodeId, u32)>,
}

/// So many election timeouts a relay counts. It is asked again after at most one and the time that
/// reports may take, so that requests never find it gone in between.
const RELAY_ELECTIONS: u32 = 2;

impl Election {
    pub(super) fn new(timing: Timing, seed: u64) -> Election {
        timing.check();
        let mut jitter = Jitter::new(seed);
        let first = jitter.up_to(timing.election);
        Election {
            timing,
            jitter,
            backoff: Backoff::new(),
            leader: None,
            phase: Phase::Waiting(first),
            round: 0,
            relay: None,
        }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    pub(super) fn retime(&mut self, timing: Timing) {
        timing.check();
        self.timing = timing;
    }

    /// Draws jitter from another seed from now on.
    pub(super) fn reseed(&mut self, seed: u64) {
        self.jitter = Jitter::new(seed);
    }

    /// The leader heard within the election timeout, with its ballot.
    pub(super) fn leader(&self) -> Option<(NodeId, Ballot)> {
        self.leader
            .filter(|leader| leader.silent < self.timing.election || planted!(StickyForEver))
            .map(|leader| (leader.node, leader.ballot))
    }

    /// The ballot of the leader that is heard.
    pub(super) fn hears(&self) -> Option<Ballot> {
        self.leader().map(|(_, ballot)| ballot)
    }

    /// Whether reports are awaited.
    pub(super) fn is_inquiring(&self) -> bool {
        matches!(self.phase, Phase::Inquiring { .. })
    }

    /// A node that hears the leader when this one does not.
    pub(super) fn relay(&self) -> Option<NodeId> {
        self.relay.map(|(node, _)| node)
    }

    /// A leader spoke. Answers whether it is another one than before.
    pub(super) fn heard(&mut self, node: NodeId, ballot: Ballot) -> bool {
        if let Some((_, current)) = self.leader()
            && ballot < current
        {
            return false;
        }
        let known = self.leader.is_some_and(|l| l.node == node && l.ballot == ballot);
        let was_lost = self.leader().is_none();
        self.leader = Some(Leader { node, ballot, silent: 0 });
        self.backoff.reset();
        self.relay = None;
        self.phase = Phase::Waiting(0);
        !known || was_lost
    }

    /// Somebody runs phase 1: give it the time to finish.
    pub(super) fn yield_to_candidate(&mut self) {
        let wait = self.timing.request + self.jitter.up_to(self.timing.request);
        self.phase = Phase::Waiting(wait);
    }

    /// There is evidence that `node` is dead. Answers whether it was the leader.
    pub(super) fn suspect(&mut self, node: NodeId) -> bool {
        if self.leader().is_none_or(|(leader, _)| leader != node) {
            return false;
        }
        self.leader = None;
        self.phase = Phase::Waiting(self.jitter.up_to(self.timing.heartbeat));
        true
    }

    /// Forgets the leader, because this node leads or led itself.
    pub(super) fn forget_leader(&mut self) {
        self.leader = None;
    }

    /// A campaign failed: wait longer than last time, perhaps.
    pub(super) fn failed(&mut self) {
        let wait = self.backoff.fail(self.timing.request, &mut self.jitter);
        self.phase = Phase::Waiting(wait);
    }

    /// This node leads.
    pub(super) fn won(&mut self) {
        self.backoff.reset();
        self.leader = None;
        self.relay = None;
        self.phase = Phase::Waiting(0);
    }

    /// Time passes on a node that does not lead. Answers the leader that was lost just now, if one
    /// was.
    pub(super) fn age(&mut self) -> Option<NodeId> {
        if let Some((_, silent)) = &mut self.relay {
            *silent += 1;
            if *silent > self.timing.election * RELAY_ELECTIONS {
                self.relay = None;
            }
        }
        let leader = self.leader.as_mut()?;
        leader.silent = leader.silent.saturating_add(1);
        if leader.silent != self.timing.election {
            return None;
        }
        let lost = leader.node;
        self.phase = Phase::Waiting(self.jitter.up_to(self.timing.heartbeat));
        Some(lost)
    }

    /// Time passes on a node that could lead but neither leads nor campaigns.
    pub(super) fn tick(&mut self) -> Option<Call> {
        if self.leader().is_some() {
            return None;
        }
        match &mut self.phase {
            Phase::Waiting(left) if *left > 0 => {
                *left -= 1;
                None
            }
            Phase::Waiting(_) => {
                self.round += 1;
                self.phase =
                    Phase::Inquiring { left: self.timing.request, reports: BTreeMap::new() };
                Some(Call::Inquire(self.round))
            }
            Phase::Inquiring { left, .. } if *left > 0 => {
                *left -= 1;
                None
            }
            Phase::Inquiring { reports, .. } => {
                let somebody_hears = reports.values().any(Option::is_some);
                if somebody_hears {
                    let half = self.timing.election / 2;
                    self.phase = Phase::Waiting(half + self.jitter.up_to(half));
                } else {
                    // Nobody was in the way, so there is nobody to give way to: a wait that grew
                    // would only make a cluster that comes back slow to find its leader. An inquiry
                    // disturbs nobody, and this sends a small message to each acceptor a few times
                    // a second.
                    let wait = self.jitter.up_to(self.timing.request).max(1);
                    self.phase = Phase::Waiting(wait);
                }
                None
            }
        }
    }

    /// An acceptor answered an inquiry; `configurations` are all that may govern an open slot.
    pub(super) fn on_report<'a>(
        &mut self,
        from: NodeId,
        round: u64,
        hears: Option<Ballot>,
        mut configurations: impl Iterator<Item = &'a Configuration>,
    ) -> Option<Call> {
        if hears.is_some() && self.leader().is_none() {
            self.relay = Some((from, 0));
        }
        let Phase::Inquiring { reports, .. } = &mut self.phase else { return None };
        if round != self.round {
            return None;
        }
        reports.insert(from, hears);
        let enough = configurations.all(|configuration| {
            let quorums = configuration.quorums();
            let reached = configuration.acceptors().filter(|a| reports.contains_key(a)).count();
            let missing =
                configuration.acceptors().filter(|a| reports.get(a) == Some(&None)).count();
            let all = configuration.acceptors().count();
            let needed = if planted!(LeaderNeverReplaced) { all } else { quorums.phase1() };
            reached >= quorums.campaign() && missing >= needed
        });
        enough.then_some(Call::Campaign)
    }
}
