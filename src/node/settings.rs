//! A node's settings: one YAML file, every value with a default where one makes sense.

use crate::paxos::ballot::NodeId;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The default lower bound of the election timeout. Heartbeats come five times as often; on one
/// machine or one network a leader that is silent for a quarter of a second has stopped.
const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(250);

/// The default upper bound of the election timeout, however slow links and disks are measured to
/// be.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Where a peer can be dialled before the log says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerHint {
    /// Its name; with the cluster's it makes the principal of its host certificate.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// `host:port`.
    pub address: String,
}

/// Bounds between which an adaptive timeout moves. Equal bounds fix it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeoutBounds {
    /// Never less.
    #[serde(with = "duration_text")]
    pub min: Duration,
    /// Never more.
    #[serde(with = "duration_text")]
    pub max: Duration,
}

impl Default for TimeoutBounds {
    fn default() -> Self {
        TimeoutBounds { min: ELECTION_TIMEOUT_MIN, max: ELECTION_TIMEOUT_MAX }
    }
}

/// What `config.yaml` holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// This node's id.
    pub id: u64,
    /// Addresses that its SSH server listens on.
    pub listen: Vec<String>,
    /// Holds `log/ keys/ paxos.log paxos.pid paxos.sock genesis.yaml`.
    pub data_dir: PathBuf,
    /// This node's key, certificates and the trust bundle.
    pub keys_dir: PathBuf,
    /// Where others can be dialled before the log says otherwise.
    #[serde(default)]
    pub peers: Vec<PeerHint>,
    /// How long a silent leader is borne.
    #[serde(default)]
    pub election_timeout: TimeoutBounds,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings {path}: {source}; give an existing file to --config")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no YAML, or holds an unknown or missing value.
    #[error("the settings {path} are not usable: {reason}; mend the file or deploy again")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
    /// A value is out of range.
    #[error("the settings {path} are not usable: {reason}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// What, and what it should be.
        reason: String,
    },
}

impl Settings {
    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// Names the file, what is wrong with it and where.
    pub fn load(path: &Path) -> Result<Settings, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let settings: Settings = serde_saphyr::from_str(&text).map_err(|error| {
            SettingsError::Parse { path: path.to_owned(), reason: error.to_string() }
        })?;
        settings
            .check()
            .map_err(|reason| SettingsError::Value { path: path.to_owned(), reason })?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        let TimeoutBounds { min, max } = self.election_timeout;
        let floor = Duration::from_millis(100);
        if min < floor || max < min {
            return Err(format!(
                "election_timeout {{min: {min:?}, max: {max:?}}}: min must be at least {floor:?} \
                 and \
                 max at least min"
            ));
        }
        if self.listen.is_empty() {
            return Err("listen is empty; give at least one host:port".to_owned());
        }
        if self.id == 0 {
            return Err("id is 0; node ids start at 1".to_owned());
        }
        Ok(())
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.id)
    }
}

mod duration_text {
    use serde::{Deserialize, Deserializer, de::Error};
    use std::time::Duration;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!("{text:?} is no duration ({error}); write 250ms"))
        })
    }
}
