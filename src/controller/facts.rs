//! What a plan is made of: what lies on hosts, what runs there, and what the controller remembers.

use super::keys::newest::Newer;
use super::membership::Membership;
use super::state::ClusterState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a file on a host compares with what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FileState {
    /// There is none.
    #[default]
    Absent,
    /// It is another.
    Differs,
    /// As it should be.
    Same,
}

/// An address of a node that another process has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    /// `ip:port`.
    pub address: String,
    /// Its pid and name, as far as we may see them.
    pub process: Option<(u32, String)>,
}

/// What was found on a node's host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Whether its data directory is there.
    pub directory: bool,
    /// Whether it has a log.
    pub log: bool,
    /// Whether a genesis lies there that it did not take up yet.
    pub genesis_waiting: bool,
    /// Its process, if it runs.
    pub running: Option<u32>,
    /// The copy of the executable.
    pub executable: FileState,
    /// Its settings.
    pub settings: FileState,
    /// Its keys and certificates.
    pub keys: FileState,
    /// Whether it runs and goes by an older bundle than the newest.
    pub behind: bool,
    /// Whether its key is revoked.
    pub revoked: bool,
    /// The epoch of a bundle on its host that is newer than ours, or another one of the same.
    pub newer_bundle: Option<Newer>,
    /// What the executable that it would get does not fit, in words.
    pub unfit: Option<String>,
    /// Addresses that it needs and that other processes have.
    pub held: Vec<PortHolder>,
    /// Whether it runs with other settings than lie there.
    pub settings_outdated: bool,
    /// Whether it goes by other keys than lie there.
    pub keys_outdated: bool,
    /// Why nothing is known of it, and what to do, when its host could not be looked at.
    pub out_of_reach: Option<(String, String)>,
}

/// Everything that a plan is made of.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What the controller remembers, if it formed the cluster.
    pub state: Option<ClusterState>,
    /// Whether the cluster's keys are there.
    pub keys: bool,
    /// Whether the operator's certificate is there and has time left.
    pub operator: bool,
    /// By name, for each node of the inventory.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// Who leads, if anybody said.
    pub leader: Option<String>,
    /// Who takes part, if anybody said.
    pub told: Option<Membership>,
}
