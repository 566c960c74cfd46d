//! How a node describes itself, from what it knows alone.

use super::driver::Driver;
use super::outlook::Peer;
use super::status::{Health, MemberStatus, NodeState, NodeStatus, PeerState, RoleName};
use super::world::{Peers, TICK, World};
use crate::disk::Log;
use crate::paxos::ballot::{ClusterId, NodeId, Slot};
use crate::paxos::configuration::{Configuration, Roles};
use crate::paxos::message::DiskHealth;
use crate::paxos::replica;
use crate::store::Store;
use std::time::Duration;

/// What a node knows of itself beside its protocol state.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's identity, once it has one.
    pub cluster_id: Option<ClusterId>,
    /// The node's name.
    pub node: String,
    /// The node's id.
    pub id: NodeId,
}

fn role_names(roles: Roles) -> Vec<RoleName> {
    let mut names = Vec::new();
    if roles.proposer.is_some() {
        names.push(RoleName::Proposer);
    }
    if roles.acceptor.is_some() {
        names.push(RoleName::Acceptor);
    }
    if roles.learner {
        names.push(RoleName::Learner);
    }
    names
}

impl<L: Log, P: Peers, W: World> Driver<L, P, W> {
    /// Everything `paxos status` shows.
    pub fn status(&self, identity: &Identity) -> NodeStatus {
        let Some(replica) = self.replica() else { return self.status_without_log(identity) };
        let status = replica.status();
        let newest = replica.configurations().newest();
        let members = self.members(newest, &status);
        let roles = newest.member(self.id).map_or_else(Vec::new, |m| role_names(m.roles));
        let reachable = newest
            .acceptors()
            .filter(|id| members.iter().any(|m| m.id == *id && m.state == PeerState::Up))
            .count();
        let leader = status.leader.and_then(|id| Some((id, newest.member(id)?.name.clone())));
        let (health, why, next) = diagnose(newest, &status, &members, reachable, &leader);
        NodeStatus {
            cluster: identity.cluster.clone(),
            cluster_id: identity.cluster_id,
            node: identity.node.clone(),
            id: self.id,
            state: state(&status, &roles),
            roles,
            leader,
            ballot: status.ballot,
            chosen: status.chosen,
            applied: self.applied(),
            revision: self.store().map(Store::revision),
            phase1: newest.quorums().phase1(),
            phase2: newest.quorums().phase2(),
            acceptors: newest.quorums().acceptors(),
            reachable,
            members,
            health,
            why,
            next,
            uptime: self.now(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn members(
        &self,
        configuration: &Configuration,
        status: &replica::Status,
    ) -> Vec<MemberStatus> {
        let now = self.now();
        let timeout = TICK * self.election_ticks() * 2;
        let leads = status.leading.is_some();
        let unknown = Peer::default();
        configuration
            .members()
            .iter()
            .map(|(id, member)| {
                let peer = self.outlook.peer(*id).unwrap_or(&unknown);
                // Only a leader hears from everybody; a follower can expect to hear its leader.
                let expected = leads || status.leader == Some(*id);
                let me = *id == self.id;
                MemberStatus {
                    name: member.name.clone(),
                    id: *id,
                    roles: role_names(member.roles),
                    address: member.address.clone(),
                    state: if me {
                        PeerState::Up
                    } else {
                        peer.state(now, expected.then_some(timeout))
                    },
                    round_trip: peer.round_trip.mean(),
                    applied: if me { Some(self.applied()) } else { peer.chosen },
                    last_heard: if me {
                        Some(Duration::ZERO)
                    } else {
                        peer.last_heard.map(|heard| now.saturating_sub(heard))
                    },
                    error: peer.broken.as_ref().map(|(_, error)| error.clone()),
                }
            })
            .collect()
    }

    fn status_without_log(&self, identity: &Identity) -> NodeStatus {
        NodeStatus {
            cluster: identity.cluster.clone(),
            cluster_id: None,
            node: identity.node.clone(),
            id: self.id,
            roles: Vec::new(),
            state: NodeState::Client,
            leader: None,
            ballot: Default::default(),
            chosen: Slot(0),
            applied: Slot(0),
            revision: None,
            phase1: 0,
            phase2: 0,
            acceptors: 0,
            reachable: 0,
            members: Vec::new(),
            health: Health::NoQuorum,
            why: "this node holds neither a log nor a genesis, so it has no vote and knows no \
                  member; \
                  its directory is new or was deleted"
                .to_owned(),
            next: "if the directory was lost, put the old one back; a node that lost its log for \
                   good \
                   must join again as a new voter and never under its old one"
                .to_owned(),
            uptime: self.now(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn state(status: &replica::Status, roles: &[RoleName]) -> NodeState {
    if status.leading.is_some() {
        NodeState::Leader
    } else if roles.contains(&RoleName::Proposer) {
        let candidate = status.campaigning && status.leader.is_none();
        if candidate { NodeState::Candidate } else { NodeState::Follower }
    } else if roles.contains(&RoleName::Acceptor) {
        NodeState::Acceptor
    } else if roles.contains(&RoleName::Learner) {
        NodeState::Learner
    } else {
        NodeState::Client
    }
}

/// In one word, why, and what to do.
fn diagnose(
    configuration: &Configuration,
    status: &replica::Status,
    members: &[MemberStatus],
    reachable: usize,
    leader: &Option<(NodeId, String)>,
) -> (Health, String, String) {
    let quorums = configuration.quorums();
    let missing: Vec<&str> = members
        .iter()
        .filter(|m| matches!(m.state, PeerState::Down | PeerState::Suspect))
        .map(|m| m.name.as_str())
        .collect();
    let restart = format!(
        "start {} again, or look at why it cannot be reached: `paxos-ctl status` and \
         `paxos-ctl logs`",
        if missing.is_empty() { "the missing nodes".to_owned() } else { missing.join(" and ") }
    );
    match status.disk {
        DiskHealth::Full => {
            let why = "the disk of this node is full; it accepts no writes".to_owned();
            return (Health::Degraded, why, "free space in its data directory".to_owned());
        }
        DiskHealth::Stalled => {
            let why = "the disk of this node has not finished a write for an election timeout";
            let next = "look at the disk; the node goes on by itself once it recovers";
            return (Health::Degraded, why.to_owned(), next.to_owned());
        }
        DiskHealth::Healthy => {}
    }
    if leader.is_none() {
        let why = if reachable < quorums.campaign() {
            format!(
                "no leader: {reachable} of {} acceptors can be reached, and electing one and \
                 writing \
                 need {}{}",
                quorums.acceptors(),
                quorums.campaign(),
                list(&missing)
            )
        } else {
            "no leader yet: an election is under way".to_owned()
        };
        let next = if reachable < quorums.campaign() {
            restart
        } else {
            "wait a moment and ask again".to_owned()
        };
        return (Health::NoQuorum, why, next);
    }
    if missing.is_empty() {
        return (Health::Healthy, String::new(), String::new());
    }
    (Health::Degraded, format!("not all members can be reached{}", list(&missing)), restart)
}

fn list(missing: &[&str]) -> String {
    if missing.is_empty() { String::new() } else { format!(" (missing: {})", missing.join(", ")) }
}
