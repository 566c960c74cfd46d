//! What a node says of itself: one value, published whole, readable without waiting for the node's
//! loop.
//!
//! Made from local knowledge alone, so that it answers when there is no quorum, no leader and no
//! peer.

use crate::paxos::ballot::{Ballot, ClusterId, NodeId, Slot};
use std::time::Duration;

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
    /// The program's version.
    pub version: &'static str,
}
