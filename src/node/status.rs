//! What a node says of itself: one value, published whole, readable without waiting for the node's
//! loop.
//!
//! Made from local knowledge alone, so that it answers when there is no quorum, no leader and no
//! peer.

use crate::paxos::ballot::{Ballot, ClusterId, NodeId, Slot};
use crate::telemetry::watchdog::Stall;
use crate::transport::keyring::Standing;
use std::time::Duration;

/// What the node's thread is called where loops are named.
pub const NODE_LOOP: &str = "node";

/// What the node is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Leads.
    Leader,
    /// Could lead, and follows.
    Follower,
    /// Runs phase 1, or asks whether it should.
    Candidate,
    /// Votes only.
    Acceptor,
    /// Learns only.
    Learner,
    /// Holds no role.
    Client,
}

/// What the node thinks of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Heard from lately.
    Up,
    /// Silent for longer than usual.
    Suspect,
    /// Cannot be reached.
    Down,
    /// Not heard from since this node started.
    Unknown,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Healthy,
    /// It serves, but a member is missing or something needs attention.
    Degraded,
    /// It cannot serve writes.
    NoQuorum,
}

/// Names of the roles a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// Proposes.
    Proposer,
    /// Votes.
    Acceptor,
    /// Learns.
    Learner,
}

/// One member as this node sees it.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// Name in the configuration.
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// Its roles; none for a client.
    pub roles: Vec<RoleName>,
    /// `host:port`.
    pub address: String,
    /// What this node thinks of it; itself is always up.
    pub state: PeerState,
    /// Smoothed round trip, when measured.
    pub round_trip: Option<Duration>,
    /// The end of the chosen prefix it last told, when known.
    pub chosen: Option<Slot>,
    /// The last slot it applied, when known: others do not tell.
    pub applied: Option<Slot>,
    /// How long ago it was last heard; none if never, zero for itself.
    pub last_heard: Option<Duration>,
    /// Why it cannot be reached, in the transport's words.
    pub error: Option<String>,
}

/// Everything that `paxos status` shows.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's identity; none on a node that was never given a genesis.
    pub cluster_id: Option<ClusterId>,
    /// This node's name.
    pub node: String,
    /// This node's id.
    pub id: NodeId,
    /// This node's roles.
    pub roles: Vec<RoleName>,
    /// What it is doing.
    pub state: NodeState,
    /// Who leads, as far as it knows.
    pub leader: Option<(NodeId, String)>,
    /// The highest ballot that it promised or leads under.
    pub ballot: Ballot,
    /// The end of the chosen prefix.
    pub chosen: Slot,
    /// The last slot applied to the store.
    pub applied: Slot,
    /// The store's revision; none on a node that keeps no store.
    pub revision: Option<u64>,
    /// Phase-1 quorum size.
    pub phase1: usize,
    /// Phase-2 quorum size.
    pub phase2: usize,
    /// How many acceptors there are.
    pub acceptors: usize,
    /// How many of them this node reaches, itself included.
    pub reachable: usize,
    /// Every member, itself included, by id.
    pub members: Vec<MemberStatus>,
    /// In one word.
    pub health: Health,
    /// Why it is not healthy; empty when it is.
    pub why: String,
    /// What to do about it; empty when there is nothing to do.
    pub next: String,
    /// Since this process started.
    pub uptime: Duration,
    /// How long ago the node's thread published this: a tick or two, unless that thread is stuck.
    pub age: Duration,
    /// The process's loops that stand still; the node's thread knows of none, they are added when
    /// somebody asks.
    pub stalled: Vec<Stall>,
    /// What it believes and proves itself with; the node's thread knows nothing of it, it is added
    /// when somebody asks.
    pub keys: Option<Standing>,
    /// The program's version.
    pub version: &'static str,
    /// The version that the cluster is at; none on a node that keeps no store.
    pub cluster_version: Option<u16>,
}

/// With less than this left of a certificate something is wrong: those who renew them begin much
/// earlier.
const CERTIFICATE_LEFT_MIN_SECONDS: i64 = 7 * 24 * 3600;

impl NodeStatus {
    /// As it is at `now`, on the node's clock, while these loops stand still. It is asked for from
    /// outside of the node's thread, which may be one of them.
    pub fn seen(mut self, now: Duration, stalled: Vec<Stall>) -> NodeStatus {
        self.age = now.saturating_sub(self.uptime);
        self.uptime = self.uptime.max(now);
        for stall in &stalled {
            let (name, seconds) = (&stall.name, stall.lasts.as_secs_f64());
            let mut why = format!(
                "the loop {name} stands still for {seconds:.1} s, {}",
                stall.work.describe()
            );
            if *name == NODE_LOOP {
                let age = self.age.as_secs_f64();
                why.push_str(&format!("; what is said of the cluster is {age:.1} s old"));
            }
            join(&mut self.why, &why);
            join(&mut self.next, stall.next);
        }
        if !stalled.is_empty() && self.health == Health::Healthy {
            self.health = Health::Degraded;
        }
        self.stalled = stalled;
        self
    }
}

impl NodeStatus {
    /// With what the node believes and proves itself with.
    pub fn with_keys(mut self, keys: Standing) -> NodeStatus {
        if let Some(problem) = &keys.problem {
            join(&mut self.why, &format!("the keys that lie here are not in use: {problem}"));
            join(&mut self.next, "have the cluster's own delivered: paxos-ctl keys resume");
        }
        let left = keys.host.remaining_seconds.min(keys.peer.remaining_seconds);
        if left < CERTIFICATE_LEFT_MIN_SECONDS {
            let hours = left.unsigned_abs() / 3600;
            let why = match left > 0 {
                true => format!("a certificate of this node runs out in {hours} hours"),
                false => format!("a certificate of this node ran out {hours} hours ago"),
            };
            join(&mut self.why, &why);
            join(&mut self.next, &format!("renew it: paxos-ctl keys renew {}", self.node));
        }
        let ails = keys.problem.is_some() || left < CERTIFICATE_LEFT_MIN_SECONDS;
        if ails && self.health == Health::Healthy {
            self.health = Health::Degraded;
        }
        self.keys = Some(keys);
        self
    }
}

/// Adds one more clause.
pub(super) fn join(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push_str("; ");
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::watchdog::Work;

    fn status(health: Health, why: &str, next: &str) -> NodeStatus {
        NodeStatus {
            cluster: "local".into(),
            cluster_id: None,
            node: "node1".into(),
            id: NodeId(1),
            roles: Vec::new(),
            state: NodeState::Follower,
            leader: None,
            ballot: Ballot::ZERO,
            chosen: Slot(0),
            applied: Slot(0),
            revision: None,
            phase1: 0,
            phase2: 0,
            acceptors: 0,
            reachable: 0,
            members: Vec::new(),
            health,
            why: why.into(),
            next: next.into(),
            uptime: Duration::from_secs(100),
            age: Duration::ZERO,
            stalled: Vec::new(),
            keys: None,
            version: "0",
            cluster_version: Some(1),
        }
    }

    fn stall(name: &str, work: Work) -> Stall {
        Stall { name: name.into(), lasts: Duration::from_millis(7_250), work, next: "look at it" }
    }

    #[test]
    fn a_stalled_loop_is_named_beside_what_else_is_wrong_and_hides_nothing() {
        let now = Duration::from_millis(100_010);
        let well = status(Health::Healthy, "", "").seen(now, Vec::new());
        assert_eq!((well.health, well.age), (Health::Healthy, Duration::from_millis(10)));
        assert!(well.why.is_empty() && well.next.is_empty());

        let disk = || vec![stall("log-writer", Work::Syncing)];
        let ill = status(Health::Healthy, "", "").seen(now, disk());
        assert_eq!((ill.health, ill.stalled), (Health::Degraded, disk()));
        assert_eq!(ill.why, "the loop log-writer stands still for 7.2 s, making the log durable");
        assert_eq!(ill.next, "look at it");

        let lost = status(Health::NoQuorum, "no leader", "start node2").seen(now, disk());
        assert_eq!(lost.health, Health::NoQuorum);
        assert!(lost.why.starts_with("no leader; the loop log-writer"), "{}", lost.why);
        assert_eq!(lost.next, "start node2; look at it");
    }

    #[test]
    fn keys_that_are_not_in_use_and_certificates_near_their_end_are_told() {
        use crate::transport::keyring::CertificateLife;
        let standing = |remaining_seconds, problem: Option<&str>| {
            let life = CertificateLife { serial: 1, remaining_seconds };
            let problem = problem.map(str::to_owned);
            Standing { epoch: 2, revocations: 1, host: life, peer: life, problem, in_log: None }
        };
        let with = |keys| status(Health::Healthy, "", "").with_keys(keys);
        let day = 24 * 3600;
        let well = with(standing(80 * day, None));
        assert_eq!((well.health, well.why.as_str()), (Health::Healthy, ""));
        let late = with(standing(2 * day, None));
        assert_eq!(late.health, Health::Degraded);
        assert_eq!(late.why, "a certificate of this node runs out in 48 hours");
        assert_eq!(late.next, "renew it: paxos-ctl keys renew node1");
        let over = with(standing(-3 * 3600, None));
        assert_eq!(over.why, "a certificate of this node ran out 3 hours ago");
        let old = with(standing(80 * day, Some("it is older")));
        assert_eq!(old.health, Health::Degraded);
        assert_eq!(old.why, "the keys that lie here are not in use: it is older");
        let lost = status(Health::NoQuorum, "no leader", "").with_keys(standing(day, None));
        assert_eq!(lost.health, Health::NoQuorum);
        assert!(lost.why.starts_with("no leader; a certificate"), "{}", lost.why);
    }

    #[test]
    fn a_status_of_a_stuck_node_says_how_old_it_is() {
        let now = Duration::from_secs(107);
        let stuck = vec![stall(NODE_LOOP, Work::Message)];
        let seen = status(Health::Healthy, "", "").seen(now, stuck);
        assert_eq!((seen.age, seen.uptime), (Duration::from_secs(7), now));
        assert!(seen.why.ends_with("; what is said of the cluster is 7.0 s old"), "{}", seen.why);
    }
}
