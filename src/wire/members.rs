//! Members and quorums as the files that the controller lays beside a node name them.
//!
//! YAML, so that a person can read it. Ids of 64 random bits and more are hexadecimal text: not
//! every reader of YAML keeps such numbers exact.

use crate::paxos::ballot::{ClusterId, NodeId, ProposerId, VoterGeneration};
use crate::paxos::configuration::{Configuration, ConfigurationNumber, Member, Roles};
use crate::paxos::quorum::QuorumSystem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberText {
    name: String,
    id: u64,
    address: String,
    proposer: Option<u64>,
    acceptor: Option<String>,
    learner: bool,
}

pub(super) fn texts(configuration: &Configuration) -> Vec<MemberText> {
    let text = |(id, member): (&NodeId, &Member)| MemberText {
        name: member.name.clone(),
        id: id.0,
        address: member.address.clone(),
        proposer: member.roles.proposer.map(|id| u64::from(id.value())),
        acceptor: member.roles.acceptor.map(generation_text),
        learner: member.roles.learner,
    };
    configuration.members().iter().map(text).collect()
}

/// The sizes of quorums for phase 1 and 2.
pub(super) fn sizes(configuration: &Configuration) -> Result<(u16, u16), String> {
    let size = |size: usize| u16::try_from(size).map_err(said);
    let quorums = configuration.quorums();
    Ok((size(quorums.phase1())?, size(quorums.phase2())?))
}

/// What the texts say, if it makes a configuration.
pub(super) fn configuration(
    number: ConfigurationNumber,
    (phase1, phase2): (u16, u16),
    texts: Vec<MemberText>,
) -> Result<Configuration, String> {
    let mut members = BTreeMap::new();
    for text in texts {
        let roles = Roles {
            proposer: text.proposer.map(ProposerId::new).transpose().map_err(said)?,
            acceptor: text.acceptor.as_deref().map(read_generation).transpose()?,
            learner: text.learner,
        };
        let id = NodeId(text.id);
        let member = Member { name: text.name, address: text.address, roles };
        if members.insert(id, member).is_some() {
            return Err(format!("node {} is listed twice", id.0));
        }
    }
    let acceptors = members.values().filter(|m| m.roles.acceptor.is_some()).count();
    let acceptors = u16::try_from(acceptors).map_err(said)?;
    let quorums = QuorumSystem::flexible(acceptors, phase1, phase2).map_err(said)?;
    Configuration::new(number, members, quorums).map_err(said)
}

pub(super) fn generation_text(generation: VoterGeneration) -> String {
    format!("{:016x}", generation.0)
}

pub(super) fn read_generation(text: &str) -> Result<VoterGeneration, String> {
    let number = u64::from_str_radix(text, 16);
    number.map(VoterGeneration).map_err(|_| format!("voter generation {text:?} is not hexadecimal"))
}

pub(super) fn cluster_id(text: &str) -> Result<ClusterId, String> {
    let number = u128::from_str_radix(text, 16);
    number.map(ClusterId).map_err(|_| format!("cluster_id {text:?} is not hexadecimal"))
}

fn said(error: impl Display) -> String {
    error.to_string()
}
