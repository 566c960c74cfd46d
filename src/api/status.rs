//! What the node knows, put into the fields that `paxos status` shows.

use crate::node::status::{Health, MemberStatus, NodeState, NodeStatus, PeerState, RoleName};
use crate::telemetry::watchdog::Stall;
use crate::transport::keyring::{CertificateLife, Standing};
use crate::wire::build::Build;
use crate::wire::report::{
    BallotReport, BundleReport, CertificateReport, CertificatesReport, HealthReport, JsonId,
    MemberReport, QuorumReport, StallReport, StatusReport, UnreachableMember,
};
use std::time::Duration;

/// The whole report.
pub(super) fn report(status: &NodeStatus) -> StatusReport {
    let number = status.ballot.number;
    StatusReport {
        cluster: status.cluster.clone(),
        cluster_id: status.cluster_id.map(|id| id.to_string()),
        node: status.node.clone(),
        id: JsonId(status.id.0),
        roles: roles(&status.roles),
        state: state(status.state).to_owned(),
        leader: status.leader.as_ref().map(|(_, name)| name.clone()),
        ballot: BallotReport {
            number: JsonId(number.value()),
            counter: number.counter(),
            proposer: number.proposer().value(),
        },
        chosen_slot: status.chosen.0,
        applied_slot: status.applied.0,
        revision: status.revision,
        quorum: QuorumReport {
            phase1: status.phase1 as u64,
            phase2: status.phase2 as u64,
            acceptors: status.acceptors as u64,
            reachable: status.reachable as u64,
            unreachable_members: unreachable(status),
        },
        members: members(status),
        health: health(status.health).to_owned(),
        why: status.why.clone(),
        next: status.next.clone(),
        stalled: status.stalled.iter().map(stall).collect(),
        bundle: status.keys.as_ref().map(bundle),
        certificates: status.keys.as_ref().map(certificates),
        age_seconds: seconds(status.age),
        uptime_seconds: seconds(status.uptime),
        version: status.version.to_owned(),
        cluster_version: status.cluster_version,
        cluster_versions: Build::own().cluster_versions,
    }
}

/// Every member.
pub(super) fn members(status: &NodeStatus) -> Vec<MemberReport> {
    status.members.iter().map(member).collect()
}

/// Health, and what speaks against it.
pub(super) fn health_report(status: &NodeStatus) -> HealthReport {
    HealthReport {
        health: health(status.health).to_owned(),
        why: status.why.clone(),
        stalled: status.stalled.iter().map(stall).collect(),
    }
}

/// Health in a word.
pub(super) fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::NoQuorum => "no_quorum",
    }
}

fn bundle(keys: &Standing) -> BundleReport {
    let Standing { epoch, revocations, problem, in_log, .. } = keys.clone();
    BundleReport { epoch, revocations, problem, in_log }
}

fn certificates(keys: &Standing) -> CertificatesReport {
    let report = |CertificateLife { serial, remaining_seconds }| CertificateReport {
        serial: JsonId(serial),
        remaining_seconds,
    };
    CertificatesReport { host: report(keys.host), peer: report(keys.peer) }
}

fn stall(stall: &Stall) -> StallReport {
    StallReport {
        name: stall.name.clone(),
        for_seconds: seconds(stall.lasts),
        what: stall.work.describe().to_owned(),
    }
}

fn member(member: &MemberStatus) -> MemberReport {
    MemberReport {
        name: member.name.clone(),
        id: JsonId(member.id.0),
        roles: roles(&member.roles),
        address: member.address.clone(),
        state: peer_state(member.state).to_owned(),
        rtt_seconds: member.round_trip.map(seconds),
        chosen_slot: member.chosen.map(|slot| slot.0),
        applied_slot: member.applied.map(|slot| slot.0),
        last_heard_seconds: member.last_heard.map(seconds),
    }
}

/// Acceptors that do not answer; other members do not count for a quorum.
fn unreachable(status: &NodeStatus) -> Vec<UnreachableMember> {
    let missing = |member: &&MemberStatus| {
        member.state != PeerState::Up && member.roles.contains(&RoleName::Acceptor)
    };
    let report = |member: &MemberStatus| UnreachableMember {
        name: member.name.clone(),
        since_seconds: member.last_heard.map(seconds),
        error: member.error.clone(),
    };
    status.members.iter().filter(missing).map(report).collect()
}

fn roles(roles: &[RoleName]) -> Vec<String> {
    let name = |role: &RoleName| match role {
        RoleName::Proposer => "proposer",
        RoleName::Acceptor => "acceptor",
        RoleName::Learner => "learner",
    };
    roles.iter().map(|role| name(role).to_owned()).collect()
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Leader => "leader",
        NodeState::Follower => "follower",
        NodeState::Candidate => "candidate",
        NodeState::Acceptor => "acceptor",
        NodeState::Learner => "learner",
        NodeState::Client => "client",
    }
}

fn peer_state(state: PeerState) -> &'static str {
    match state {
        PeerState::Up => "up",
        PeerState::Suspect => "suspect",
        PeerState::Down => "down",
        PeerState::Unknown => "unknown",
    }
}

/// Whole microseconds: no measurement here is finer, and long fractions are hard to read.
fn seconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1e6
}
