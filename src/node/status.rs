//! What a node says of itself: one value, published whole, readable without waiting for the node's
//! loop.
//!
//! Made from local knowledge alone, so that it answers when there is no quorum, no leader and no
//! peer.

use crate::paxos::ballot::{Ballot, ClusterId, NodeId, Slot};
use crate::telemetry::watchdog::Stall;
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
    /// The program's version.
    pub version: &'static str,
    /// The version that the cluster is at; none on a node that keeps no store.
    pub cluster_version: Option<u16>,
}

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
    fn a_status_of_a_stuck_node_says_how_old_it_is() {
        let now = Duration::from_secs(107);
        let stuck = vec![stall(NODE_LOOP, Work::Message)];
        let seen = status(Health::Healthy, "", "").seen(now, stuck);
        assert_eq!((seen.age, seen.uptime), (Duration::from_secs(7), now));
        assert!(seen.why.ends_with("; what is said of the cluster is 7.0 s old"), "{}", seen.why);
    }
}
