//! How a node describes itself, from what it knows alone.

use super::driver::Driver;
use super::outlook::{Peer, Silence};
use super::status::{Health, MemberStatus, NodeState, NodeStatus, PeerState, RoleName, join};
use super::world::{Peers, TICK, World};
use crate::disk::Log;
use crate::paxos::ballot::{ClusterId, NodeId, Slot};
use crate::paxos::configuration::{Configuration, Roles};
use crate::paxos::message::DiskHealth;
use crate::paxos::quorum::QuorumSystem;
use crate::paxos::replica;
use crate::store::Store;
use crate::wire::build::Build;
use std::collections::BTreeSet;
use std::fmt::Write as _;
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
        let voteless = self.voteless(newest, &status);
        let reachable = newest
            .acceptors()
            .filter(|id| members.iter().any(|m| m.id == *id && m.state == PeerState::Up))
            .filter(|id| !voteless.contains(id))
            .count();
        let leader = status.leader.and_then(|id| Some((id, newest.member(id)?.name.clone())));
        let mut ailments = ailments(&status);
        ailments.extend(voteless.iter().filter(|id| **id != self.id).map(|id| {
            let name = newest.member(*id).map_or_else(|| id.to_string(), |m| m.name.clone());
            voteless_ailment(&name)
        }));
        let (health, why, next) =
            diagnose(newest.quorums(), &ailments, &members, reachable, &leader);
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
            age: Duration::ZERO,
            stalled: Vec::new(),
            keys: None,
            version: &Build::own().version,
            cluster_version: self.store().map(Store::cluster_version),
        }
    }

    /// Acceptors of the configuration that say they have no vote in it.
    fn voteless(&self, newest: &Configuration, status: &replica::Status) -> BTreeSet<NodeId> {
        let has_no_vote = |id: &NodeId| {
            let told = self.outlook.peer(*id).and_then(|peer| peer.votes_as);
            let due = newest.member(*id).and_then(|member| member.roles.acceptor);
            if *id == self.id { status.fenced } else { told.is_some_and(|told| told != due) }
        };
        newest.acceptors().filter(has_no_vote).collect()
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
                // Only a leader hears from everybody, and whoever misses one and asks around; a
                // follower can expect to hear its leader.
                let silence = match status.leader {
                    Some(leader) if leader == *id => Silence::OfLeader,
                    Some(_) if !leads => Silence::Natural,
                    _ => Silence::AfterQuestion,
                };
                let me = *id == self.id;
                MemberStatus {
                    name: member.name.clone(),
                    id: *id,
                    roles: role_names(member.roles),
                    address: member.address.clone(),
                    state: if me { PeerState::Up } else { peer.state(now, timeout, silence) },
                    round_trip: peer.round_trip.mean(),
                    chosen: if me { Some(status.chosen) } else { peer.chosen },
                    // No message carries it.
                    applied: me.then(|| self.applied()),
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
            age: Duration::ZERO,
            stalled: Vec::new(),
            keys: None,
            version: &Build::own().version,
            cluster_version: None,
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

/// In one word, why, and what to do. What ails this node's own disk comes on top of what ails the
/// cluster, and never instead.
fn diagnose(
    quorums: QuorumSystem,
    ailments: &[Ailment],
    members: &[MemberStatus],
    reachable: usize,
    leader: &Option<(NodeId, String)>,
) -> (Health, String, String) {
    let (mut health, mut why, mut next) = diagnose_cluster(quorums, members, reachable, leader);
    for (own_why, own_next) in ailments {
        if health == Health::Healthy {
            health = Health::Degraded;
        }
        join(&mut why, own_why);
        join(&mut next, own_next);
    }
    (health, why, next)
}

/// What is wrong beside the cluster as a whole, and what to do.
type Ailment = (String, String);

fn ailments(status: &replica::Status) -> Vec<Ailment> {
    let fence = status.fenced.then(|| {
        let why = "the log of this node is behind what its acceptor was seen to pledge, so it \
                   votes no more";
        let next = "find out how its directory lost what was durable (an old copy put back, a \
                    second node over a copy of it, a disk that lies); this version cannot admit \
                    it as a new voter";
        (why.to_owned(), next.to_owned())
    });
    fence.into_iter().chain(disk_ailment(status.disk)).collect()
}

/// Of another node.
fn voteless_ailment(name: &str) -> Ailment {
    let why = format!("{name} says that it has no vote: its log is lost, or behind");
    (why, format!("see `paxos status` at {name}"))
}

fn disk_ailment(disk: DiskHealth) -> Option<Ailment> {
    let (why, next) = match disk {
        DiskHealth::Healthy => return None,
        DiskHealth::Full => (
            "the disk of this node is full; it accepts no writes",
            "free space in its data directory",
        ),
        DiskHealth::Stalled => (
            "the disk of this node has not finished a write for an election timeout",
            "look at the disk; the node goes on by itself once it recovers",
        ),
    };
    Some((why.to_owned(), next.to_owned()))
}

fn diagnose_cluster(
    quorums: QuorumSystem,
    members: &[MemberStatus],
    reachable: usize,
    leader: &Option<(NodeId, String)>,
) -> (Health, String, String) {
    let missing: Vec<&str> =
        members.iter().filter(|m| !may_answer(m)).map(|m| m.name.as_str()).collect();
    if leader.is_some() && missing.is_empty() {
        return (Health::Healthy, String::new(), String::new());
    }
    if leader.is_some() {
        let mut why = format!("not all members can be reached{}", list(&missing));
        if !members.iter().any(|m| m.roles.contains(&RoleName::Learner) && may_answer(m)) {
            why.push_str("; no node that keeps a store is among the others, so requests wait");
            return (Health::NoQuorum, why, restart(&missing));
        }
        if reachable < quorums.campaign() {
            let _infallible = write!(
                why,
                "; if the leader is lost no election can succeed: that needs {} of {} acceptors, \
                 and {reachable} can be reached",
                quorums.campaign(),
                quorums.acceptors()
            );
        }
        return (Health::Degraded, why, restart(&missing));
    }
    if reachable >= quorums.campaign() {
        let why = "no leader yet: an election is under way".to_owned();
        return (Health::NoQuorum, why, "wait a moment and ask again".to_owned());
    }
    let why = format!(
        "no leader: {reachable} of {} acceptors can be reached, and electing one and writing \
         need {}{}",
        quorums.acceptors(),
        quorums.campaign(),
        list(&missing)
    );
    (Health::NoQuorum, why, restart(&missing))
}

/// Whether nothing speaks against it.
fn may_answer(member: &MemberStatus) -> bool {
    matches!(member.state, PeerState::Up | PeerState::Unknown)
}

/// What to do about missing nodes.
fn restart(missing: &[&str]) -> String {
    let (who, cannot) = match missing {
        [] => ("the missing nodes".to_owned(), "they cannot"),
        [one] => ((*one).to_owned(), "it cannot"),
        several => (several.join(" and "), "they cannot"),
    };
    format!(
        "start {who} again, or look at why {cannot} be reached: `paxos-ctl status` and \
         `paxos-ctl logs`"
    )
}

fn list(missing: &[&str]) -> String {
    if missing.is_empty() { String::new() } else { format!(" (missing: {})", missing.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sick_disk_hides_no_missing_quorum() {
        let quorums = QuorumSystem::majority(3).expect("a quorum system");
        let ails = |disk| Vec::from_iter(disk_ailment(disk));
        let full = ails(DiskHealth::Full);
        let (health, why, next) = diagnose(quorums, &full, &[], 1, &None);
        assert_eq!(health, Health::NoQuorum);
        assert!(why.contains("1 of 3 acceptors") && why.contains("disk"), "{why}");
        assert!(next.contains("start the missing nodes") && next.contains("free space"), "{next}");
        let leader = Some((NodeId(1), "node1".to_owned()));
        let (health, why, _) = diagnose(quorums, &ails(DiskHealth::Stalled), &[], 3, &leader);
        assert_eq!(health, Health::Degraded);
        assert!(why.starts_with("the disk of this node"), "{why}");
    }

    fn member(id: u64, roles: &[RoleName], state: PeerState) -> MemberStatus {
        MemberStatus {
            name: format!("node{id}"),
            id: NodeId(id),
            roles: roles.to_vec(),
            address: String::new(),
            state,
            round_trip: None,
            chosen: None,
            applied: None,
            last_heard: None,
            error: None,
        }
    }

    /// With a small quorum for writes a cluster serves on when an election would already fail.
    #[test]
    fn a_leader_that_could_not_be_replaced_is_no_secret() {
        let quorums = QuorumSystem::flexible(5, 4, 2).expect("a quorum system");
        let all = [RoleName::Proposer, RoleName::Acceptor, RoleName::Learner];
        let leader = Some((NodeId(1), "node1".to_owned()));
        let told = |up: u64| {
            let state = |id| if id <= up { PeerState::Up } else { PeerState::Down };
            let members: Vec<_> = (1..=5).map(|id| member(id, &all, state(id))).collect();
            diagnose_cluster(quorums, &members, up as usize, &leader)
        };
        assert_eq!(told(5).0, Health::Healthy);
        let (health, why, _) = told(4);
        assert_eq!(health, Health::Degraded);
        assert!(!why.contains("election"), "{why}");
        let (health, why, next) = told(2);
        assert_eq!(health, Health::Degraded, "it serves");
        for part in ["if the leader is lost", "4 of 5 acceptors", "2 can be reached"] {
            assert!(why.contains(part), "{why}");
        }
        assert!(next.starts_with("start node3 and node4 and node5"), "{next}");
    }

    #[test]
    fn without_any_store_in_reach_nothing_is_served() {
        let quorums = QuorumSystem::majority(1).expect("a quorum system");
        let leader = Some((NodeId(1), "node1".to_owned()));
        let told = |states: [PeerState; 2]| {
            let members = [
                member(1, &[RoleName::Proposer, RoleName::Acceptor], PeerState::Up),
                member(2, &[RoleName::Learner], states[0]),
                member(3, &[RoleName::Learner], states[1]),
            ];
            diagnose_cluster(quorums, &members, 1, &leader)
        };
        assert_eq!(told([PeerState::Down, PeerState::Up]).0, Health::Degraded);
        assert_eq!(told([PeerState::Down, PeerState::Unknown]).0, Health::Degraded);
        let (health, why, _) = told([PeerState::Down, PeerState::Suspect]);
        assert_eq!(health, Health::NoQuorum);
        assert!(why.contains("store"), "{why}");
    }

    #[test]
    fn what_to_do_is_said_of_one_and_of_several() {
        let said = restart(&["node1"]);
        assert!(said.starts_with("start node1 again, or look at why it cannot be"), "{said}");
        for missing in [&[][..], &["node1", "node2"]] {
            let said = restart(missing);
            assert!(said.contains("look at why they cannot be"), "{said}");
        }
    }
}
