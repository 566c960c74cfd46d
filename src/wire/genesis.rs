//! The genesis file: what the controller lays beside a founding node, once, and the node consumes.
//!
//! YAML, so that a person can read what a cluster was founded with. It must never be written for a
//! cluster that was formed before; that is the controller's promise, and the node refuses one that
//! does not fit the log it has.

use super::members::{self, MemberText};
use crate::paxos::ballot::VoterGeneration;
use crate::paxos::configuration::{ConfigurationNumber, Genesis};
use serde::{Deserialize, Serialize};

/// The one layout there is so far.
const GENESIS_VERSION: u32 = 1;

/// Windows (α) that make sense: with one open slot a cluster waits for each write; with far more
/// than this, a new leader would take seconds to take up what an old one left.
const WINDOW_RANGE: std::ops::RangeInclusive<u32> = 1..=1 << 20;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenesisFile {
    /// Where the cluster starts.
    pub genesis: Genesis,
    /// Which voter the node is that consumes the file; none for one without a vote.
    pub generation: Option<VoterGeneration>,
}

/// Why a text is no genesis.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the genesis is not usable: {0}; take the file that the controller wrote, unchanged")]
pub struct GenesisError(String);

/// Ids of 64 random bits and more are hexadecimal text: not every reader of YAML keeps such numbers
/// exact.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisText {
    version: u32,
    cluster_id: String,
    window: u32,
    generation: Option<String>,
    phase1: u16,
    phase2: u16,
    members: Vec<MemberText>,
}

/// The file's text.
///
/// # Errors
/// Never for what [`decode_genesis`] accepts; the writer of YAML has an error type of its own.
pub fn encode_genesis(file: &GenesisFile) -> Result<String, GenesisError> {
    let configuration = &file.genesis.configuration;
    let (phase1, phase2) = members::sizes(configuration).map_err(GenesisError)?;
    let text = GenesisText {
        version: GENESIS_VERSION,
        cluster_id: file.genesis.cluster.to_string(),
        window: file.genesis.window,
        generation: file.generation.map(members::generation_text),
        phase1,
        phase2,
        members: members::texts(configuration),
    };
    serde_saphyr::to_string(&text).map_err(|error| GenesisError(error.to_string()))
}

/// Reads the file's text.
///
/// # Errors
/// When it is no YAML of this layout, or what it holds makes no configuration.
pub fn decode_genesis(text: &str) -> Result<GenesisFile, GenesisError> {
    let text: GenesisText =
        serde_saphyr::from_str(text).map_err(|error| GenesisError(error.to_string()))?;
    if text.version != GENESIS_VERSION {
        let found = text.version;
        return Err(GenesisError(format!("version {found}, and this program knows 1")));
    }
    if !WINDOW_RANGE.contains(&text.window) {
        return Err(GenesisError(format!("window {} is not within {WINDOW_RANGE:?}", text.window)));
    }
    let (first, sizes) = (ConfigurationNumber(1), (text.phase1, text.phase2));
    let configuration = members::configuration(first, sizes, text.members).map_err(GenesisError)?;
    let cluster = members::cluster_id(&text.cluster_id).map_err(GenesisError)?;
    let genesis = Genesis { cluster, configuration, window: text.window };
    let generation = text.generation.as_deref().map(members::read_generation).transpose();
    Ok(GenesisFile { genesis, generation: generation.map_err(GenesisError)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::{ClusterId, NodeId, ProposerId};
    use crate::paxos::configuration::{Configuration, Member, Roles};
    use crate::paxos::quorum::QuorumSystem;

    fn file() -> GenesisFile {
        let member = |id: u64| {
            let roles = Roles {
                proposer: Some(ProposerId::new(id).unwrap()),
                acceptor: Some(VoterGeneration(u64::MAX - id)),
                learner: true,
            };
            let name = format!("node{id}");
            (NodeId(id), Member { name, address: format!("127.0.0.1:{id}"), roles })
        };
        let members = (1..=3).map(member).collect();
        let quorums = QuorumSystem::majority(3).unwrap();
        let configuration = Configuration::new(ConfigurationNumber(1), members, quorums).unwrap();
        let genesis = Genesis { cluster: ClusterId(u128::MAX - 7), configuration, window: 4096 };
        GenesisFile { genesis, generation: Some(VoterGeneration(u64::MAX - 1)) }
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = encode_genesis(&file()).unwrap();
        assert_eq!(decode_genesis(&text), Ok(file()), "{text}");
    }

    #[test]
    fn what_makes_no_cluster_is_refused() {
        let good = encode_genesis(&file()).unwrap();
        for (from, to, complaint) in [
            ("version: 1", "version: 2", "version 2"),
            ("window: 4096", "window: 0", "window 0"),
            ("phase2: 2", "phase2: 1", "intersect"),
            ("id: 2", "id: 1", "listed twice"),
            ("proposer: 2", "proposer: 100", "out of range"),
            ("window: 4096", "windows: 4096", "windows"),
        ] {
            assert!(good.contains(from), "{from} is not in\n{good}");
            let error = decode_genesis(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(complaint), "{to}: {error}");
        }
        assert!(decode_genesis("").is_err());
    }
}
