//! Layout of configurations and of the genesis.
//!
//! What is decoded here was checked anew: a configuration whose quorums could miss each other does
//! not come out, whoever wrote it.

use super::DecodeError;
use crate::paxos::ballot::{ClusterId, NodeId, ProposerId, VoterGeneration};
use crate::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use crate::paxos::quorum::QuorumSystem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const CONFIGURATION: &str = "configuration";

/// number, members, phase 1 size, phase 2 size.
#[derive(Serialize, Deserialize)]
pub(super) struct WireConfiguration<'a>(u64, #[serde(borrow)] Vec<WireMember<'a>>, u16, u16);

/// id, name, address, proposer id, voter generation, learner.
#[derive(Serialize, Deserialize)]
struct WireMember<'a>(u64, &'a str, &'a str, Option<u64>, Option<u64>, bool);

/// cluster id (big-endian), configuration, window α.
#[derive(Serialize, Deserialize)]
pub(super) struct WireGenesis<'a>(
    #[serde(with = "serde_bytes")] [u8; 16],
    #[serde(borrow)] WireConfiguration<'a>,
    u32,
);

impl<'a> From<&'a Configuration> for WireConfiguration<'a> {
    fn from(configuration: &'a Configuration) -> WireConfiguration<'a> {
        let members = configuration.members().iter().map(|(id, member)| {
            let Roles { proposer, acceptor, learner } = member.roles;
            let proposer = proposer.map(|proposer| u64::from(proposer.value()));
            let generation = acceptor.map(|generation| generation.0);
            WireMember(id.0, &member.name, &member.address, proposer, generation, learner)
        });
        let quorums = configuration.quorums();
        let size = |size: usize| u16::try_from(size).expect("quorum sizes are made from u16");
        WireConfiguration(
            configuration.number.0,
            members.collect(),
            size(quorums.phase1()),
            size(quorums.phase2()),
        )
    }
}

impl WireConfiguration<'_> {
    pub(super) fn check(self) -> Result<Configuration, DecodeError> {
        let invalid = |why: String| DecodeError::invalid(CONFIGURATION, why);
        let WireConfiguration(number, wire_members, phase1, phase2) = self;
        let mut members = BTreeMap::new();
        for WireMember(id, name, address, proposer, generation, learner) in wire_members {
            let proposer = proposer.map(ProposerId::new).transpose();
            let proposer = proposer.map_err(|error| invalid(error.to_string()))?;
            let roles = Roles { proposer, acceptor: generation.map(VoterGeneration), learner };
            let member = Member { name: name.to_owned(), address: address.to_owned(), roles };
            if members.insert(NodeId(id), member).is_some() {
                return Err(invalid(format!("node {id} is listed twice")));
            }
        }
        let acceptors = members.values().filter(|m| m.roles.acceptor.is_some()).count();
        let acceptors = u16::try_from(acceptors).map_err(|error| invalid(error.to_string()))?;
        let quorums = QuorumSystem::flexible(acceptors, phase1, phase2)
            .map_err(|error| invalid(error.to_string()))?;
        Configuration::new(ConfigurationNumber(number), members, quorums)
            .map_err(|error| invalid(error.to_string()))
    }
}

impl<'a> From<&'a Genesis> for WireGenesis<'a> {
    fn from(genesis: &'a Genesis) -> WireGenesis<'a> {
        let configuration = WireConfiguration::from(&genesis.configuration);
        WireGenesis(genesis.cluster.0.to_be_bytes(), configuration, genesis.window)
    }
}

impl WireGenesis<'_> {
    pub(super) fn check(self) -> Result<Genesis, DecodeError> {
        let WireGenesis(cluster, configuration, window) = self;
        Ok(Genesis {
            cluster: ClusterId(u128::from_be_bytes(cluster)),
            configuration: configuration.check()?,
            window,
        })
    }
}
