//! What the controller remembers of a cluster that it formed: `state.yaml` beside the keys.
//!
//! The file exists from the moment a cluster is formed and is written, durably, before any node
//! gets a genesis. A genesis is handed to a node at most until the node was first started, which is
//! noted before it is: so no node that ever voted can get one again. What changes later in the
//! cluster (members, quorums) is in the cluster's log and not here.

use super::inventory::{Inventory, NodeSpec};
use super::program::Program;
use crate::paxos::ballot::{ClusterId, NodeId, ProposerId, VoterGeneration};
use crate::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use crate::paxos::quorum::QuorumSystem;
use crate::transport::authority;
use crate::wire::genesis::{GenesisFile, encode_genesis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The file, beside the keys.
pub const STATE: &str = "state.yaml";

/// The one layout there is so far.
const STATE_VERSION: u32 = 1;

/// α of a new cluster: slots that may be open at once. One command takes one slot, so this bounds
/// the writes under way; a thousand clients have room, and a new leader takes up what is open
/// within a second.
const WINDOW: u32 = 4096;

/// How far the handing out of a node's genesis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handout {
    /// The node was never started; it may get its genesis, even twice.
    Pending,
    /// The node has it and may have been started. It never gets one again.
    Given,
}

/// A node that the cluster was formed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founder {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// `host:port`.
    pub address: String,
    /// Under which id it proposes, if it does.
    pub proposer: Option<u64>,
    /// Which voter it is, 16 hexadecimal digits, if it votes.
    pub generation: Option<String>,
    /// Whether it keeps a store.
    pub learner: bool,
    /// How far its genesis is.
    pub genesis: Handout,
}

/// A recovery: the cluster went on with its survivors. See [`super::recover`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// The number of the survivors' configuration.
    pub configuration: u64,
    /// From whose log they go on.
    pub from: String,
    /// Who was lost.
    pub lost: Vec<String>,
    /// When it was decreed, RFC 3339.
    pub at: String,
    /// Who votes from then on.
    pub acceptors: Vec<String>,
    /// How many of them must promise.
    pub phase1: u16,
    /// How many of them must accept.
    pub phase2: u16,
    /// Whether every acknowledged write was among what the survivors held.
    pub loses_nothing: bool,
    /// Whether the survivors serve again, or another recovery took this one's place.
    pub done: bool,
}

/// What a cluster was formed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterState {
    version: u32,
    /// Its name.
    pub cluster: String,
    /// Its identity, 32 hexadecimal digits.
    pub cluster_id: String,
    window: u32,
    phase1: u16,
    phase2: u16,
    /// The nodes, in the order of the inventory.
    pub nodes: Vec<Founder>,
    /// What the cluster was upgraded to, if it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// What it ran before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Program>,
    /// Whether it was taken back to what it is to run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_back: bool,
    /// When it lost its quorum for ever, and how it went on; the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<Recovery>,
}

/// Why the state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file cannot be read or written.
    #[error("cannot {what} the controller's state {path}: {reason}; check its owner and the disk")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The file does not hold what it should.
    #[error(
        "the controller's state {path} is not usable: {reason}; restore it from a backup. \
         Do not delete it: it is what keeps a second genesis from being handed out"
    )]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What it holds makes no genesis.
    #[error("no genesis can be made of the cluster's nodes: {0}")]
    Genesis(String),
}

impl Founder {
    /// Which voter it is, if it votes.
    ///
    /// # Errors
    /// When what is noted is no number.
    pub fn voter(&self) -> Result<Option<VoterGeneration>, StateError> {
        generation(self)
    }
}

impl ClusterState {
    /// Reads the state; none if the cluster was never formed from here.
    ///
    /// # Errors
    /// When there is a file and it cannot be used.
    pub fn load(directory: &Path, cluster: &str) -> Result<Option<ClusterState>, StateError> {
        let path = directory.join(STATE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(StateError::File { what: "read", path, reason: error.to_string() });
            }
        };
        let malformed = |reason: String| StateError::Malformed { path: path.clone(), reason };
        let state: ClusterState =
            serde_saphyr::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if state.version != STATE_VERSION {
            return Err(malformed(format!(
                "its version is {}, not {STATE_VERSION}",
                state.version
            )));
        }
        if state.cluster != cluster {
            return Err(malformed(format!("it is of cluster {}, not {cluster}", state.cluster)));
        }
        state.genesis().map_err(|error| malformed(error.to_string()))?;
        Ok(Some(state))
    }

    /// Forms a cluster of the inventory's nodes. `draw` gives random numbers. Nothing is written
    /// yet.
    pub fn form(
        inventory: &Inventory,
        cluster_id: ClusterId,
        mut draw: impl FnMut() -> u64,
    ) -> ClusterState {
        let mut founder = |node: &NodeSpec| Founder {
            name: node.name.clone(),
            id: node.id.0,
            address: node.address(),
            proposer: node.proposer.map(|id| u64::from(id.value())),
            generation: node.acceptor.then(|| format!("{:016x}", draw())),
            learner: node.learner,
            genesis: Handout::Pending,
        };
        ClusterState {
            version: STATE_VERSION,
            cluster: inventory.cluster.clone(),
            cluster_id: format!("{:032x}", cluster_id.0),
            window: WINDOW,
            phase1: inventory.quorums.phase1() as u16,
            phase2: inventory.quorums.phase2() as u16,
            nodes: inventory.nodes.iter().map(&mut founder).collect(),
            program: None,
            previous: None,
            is_back: false,
            recoveries: Vec::new(),
        }
    }

    /// Writes the state whole and durably: after a crash there is the old or the new one.
    ///
    /// # Errors
    /// When it cannot be written; the old one is still there.
    pub fn save(&self, directory: &Path) -> Result<(), StateError> {
        let path = directory.join(STATE);
        let failed =
            |reason: String| StateError::File { what: "write", path: path.clone(), reason };
        let text = serde_saphyr::to_string(self).map_err(|error| failed(error.to_string()))?;
        let text = format!(
            "# Written by paxos-ctl. Keep it with the keys: \
             it is what keeps a second genesis from being handed out.\n{text}"
        );
        authority::write_file(&path, text.as_bytes(), 0o600)
            .map_err(|error| failed(error.to_string()))
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&Founder> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The recovery in which a node was given up, if it was.
    pub fn lost(&self, name: &str) -> Option<&Recovery> {
        self.recoveries.iter().find(|recovery| recovery.lost.iter().any(|lost| lost == name))
    }

    /// Those of its nodes that were not given up.
    pub fn members(&self) -> impl Iterator<Item = &Founder> {
        self.nodes.iter().filter(|node| self.lost(&node.name).is_none())
    }

    /// The members that vote: as the last recovery left them, else as the cluster was formed.
    pub fn acceptors(&self) -> impl Iterator<Item = &Founder> {
        let last = self.recoveries.last();
        self.members().filter(move |node| match last {
            Some(recovery) => recovery.acceptors.contains(&node.name),
            None => node.generation.is_some(),
        })
    }

    /// The quorum sizes for phase 1 and 2: of the last recovery, else those that the cluster was
    /// formed with.
    pub fn quorums(&self) -> (u16, u16) {
        let last = self.recoveries.last();
        last.map_or((self.phase1, self.phase2), |recovery| (recovery.phase1, recovery.phase2))
    }

    /// Notes that a node has its genesis. To be saved before the node is started.
    pub fn mark_given(&mut self, name: &str) {
        for node in self.nodes.iter_mut().filter(|node| node.name == name) {
            node.genesis = Handout::Given;
        }
    }

    /// Where the cluster's log starts.
    ///
    /// # Errors
    /// When the nodes make no configuration, which means that the file was edited.
    pub fn genesis(&self) -> Result<Genesis, StateError> {
        let wrong = |error: &dyn std::fmt::Display| StateError::Genesis(error.to_string());
        let mut members = BTreeMap::new();
        for node in &self.nodes {
            let proposer = node.proposer.map(ProposerId::new).transpose().map_err(|e| wrong(&e))?;
            let roles = Roles { proposer, acceptor: generation(node)?, learner: node.learner };
            let (name, address) = (node.name.clone(), node.address.clone());
            if members.insert(NodeId(node.id), Member { name, address, roles }).is_some() {
                return Err(StateError::Genesis(format!("two nodes have id {}", node.id)));
            }
        }
        let acceptors = self.nodes.iter().filter(|node| node.generation.is_some()).count();
        let acceptors = u16::try_from(acceptors).map_err(|e| wrong(&e))?;
        let quorums = QuorumSystem::flexible(acceptors, self.phase1, self.phase2);
        let quorums = quorums.map_err(|e| wrong(&e))?;
        let configuration = Configuration::new(ConfigurationNumber(1), members, quorums);
        let cluster = u128::from_str_radix(&self.cluster_id, 16).map_err(|e| wrong(&e))?;
        Ok(Genesis {
            cluster: ClusterId(cluster),
            configuration: configuration.map_err(|e| wrong(&e))?,
            window: self.window,
        })
    }

    /// The text of a node's genesis file.
    ///
    /// # Errors
    /// As [`ClusterState::genesis`], or when the node is none of the cluster's.
    pub fn genesis_file(&self, name: &str) -> Result<String, StateError> {
        let node = self.node(name);
        let node =
            node.ok_or_else(|| StateError::Genesis(format!("{name} is none of its nodes")))?;
        let file = GenesisFile { genesis: self.genesis()?, generation: generation(node)? };
        encode_genesis(&file).map_err(|error| StateError::Genesis(error.to_string()))
    }
}

fn generation(node: &Founder) -> Result<Option<VoterGeneration>, StateError> {
    let Some(text) = &node.generation else { return Ok(None) };
    match u64::from_str_radix(text, 16) {
        Ok(number) => Ok(Some(VoterGeneration(number))),
        Err(error) => Err(StateError::Genesis(format!("the generation of {}: {error}", node.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;
    use crate::wire::genesis::decode_genesis;
    use std::os::unix::fs::PermissionsExt;

    fn formed() -> ClusterState {
        let mut last = u64::MAX - 5;
        ClusterState::form(&three_nodes(), ClusterId(u128::MAX - 3), || {
            last += 1;
            last
        })
    }

    #[test]
    fn it_comes_back_as_it_was_and_makes_the_same_genesis() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ClusterState::load(folder.path(), "c").unwrap(), None);
        let mut state = formed();
        state.mark_given("n2");
        state.save(folder.path()).unwrap();
        let back = ClusterState::load(folder.path(), "c").unwrap();
        assert_eq!(back.as_ref(), Some(&state));
        assert_eq!(state.node("n2").unwrap().genesis, Handout::Given);
        assert_eq!(state.node("n1").unwrap().genesis, Handout::Pending);
        let file = decode_genesis(&state.genesis_file("n3").unwrap()).unwrap();
        assert_eq!(file.genesis, state.genesis().unwrap());
        assert_eq!(file.generation, Some(VoterGeneration(u64::MAX - 2)));
        assert_eq!(file.genesis.cluster, ClusterId(u128::MAX - 3));
        assert!(file.genesis.configuration.is_voter(NodeId(3), VoterGeneration(u64::MAX - 2)));
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_one_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = formed();
        state.save(folder.path()).unwrap();
        let mode = std::fs::metadata(folder.path().join(STATE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A directory of that name stands in the way of the rename, whoever runs this test.
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join(STATE)).unwrap();
        assert!(matches!(state.save(other.path()), Err(StateError::File { what: "write", .. })));
        let left: Vec<_> = std::fs::read_dir(other.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "no half-written file stays behind: {left:?}");
        state.mark_given("n1");
        state.save(folder.path()).unwrap();
        assert_eq!(ClusterState::load(folder.path(), "c").unwrap(), Some(state));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_and_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = formed();
        state.save(folder.path()).unwrap();
        let path = folder.path().join(STATE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(ClusterState::load(folder.path(), "d").is_err());
        let damaged = [
            String::new(),
            text[..text.len() / 2].to_owned(),
            text.replace("version: 1", "version: 2"),
            text.replace("phase1: 2", "phase1: 1"),
            text.replace("genesis: pending", "genesis: perhaps"),
            text.replace("id: 3", "id: 2"),
        ];
        for damage in damaged {
            assert_ne!(damage, text);
            std::fs::write(&path, &damage).unwrap();
            assert!(ClusterState::load(folder.path(), "c").is_err(), "{damage}");
        }
    }
}
