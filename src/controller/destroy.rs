//! The end of a cluster: its processes, its data and its keys.
//!
//! Nothing is removed that a node or this program did not make: in each directory only known names
//! go, whatever else lies there is left and told, and a directory that nobody can tell to be this
//! cluster's is refused before anything happens.

use super::deploy::{Cluster, Progress};
use super::host::{Halt, Place};
use super::journal;
use super::keys::authorities::new_authority_file;
use super::keys::issued;
use super::keys::issuer;
use super::keys::{self, ClusterKeys, KeysError};
use super::program;
use super::state::{ClusterState, STATE};
use super::{host_failure, keys_failure};
use crate::transport::bundle::AuthorityRole;
use crate::transport::confined::Confined;
use crate::transport::identity;
use crate::wire::failure::{Code, Failure};
use std::fs::{self, DirEntry};
use std::io;
use std::path::PathBuf;

impl Cluster {
    /// Ends the cluster: its processes, its data and its keys. Gives what was left because it is
    /// not ours.
    ///
    /// # Errors
    /// When the cluster's name was not confirmed, the keys directory is not the cluster's, a
    /// process cannot be ended, or a file cannot be removed. It can be called again.
    pub fn destroy(&self, confirm: &str, say: Progress<'_>) -> Result<Vec<PathBuf>, Failure> {
        let cluster = &self.inventory.cluster;
        if confirm != cluster {
            let message = format!("the cluster is {cluster}, but {confirm} was confirmed");
            let hint = format!("to destroy it and all its data: --confirm {cluster}");
            return Err(Failure::usage(message, hint));
        }
        let nodes = self.named(&[])?;
        self.must_own_keys()?;
        let _lock = match ClusterKeys::open(&self.keys_dir, cluster) {
            Ok(Some(_)) => Some(self.open_or_init_keys()?),
            // Keys that cannot be used any more are no reason to keep them.
            _ => None,
        };
        let _exclusive = self.exclusive("destroy")?;
        say("stop the nodes")?;
        if self.halt(&nodes, Halt::Gently).is_err() {
            // Before anything is removed, for no host may be out of reach. One that is started
            // again is ended for good where its data is removed.
            self.halt(&nodes, Halt::AtOnce)?;
        }
        let mut left = Vec::new();
        for node in &nodes {
            say(&format!("{}: remove {}", node.name, node.data_dir.display()))?;
            left.extend(self.host.remove(&Place::of(node)).map_err(host_failure)?);
        }
        say(&format!("remove {}", self.keys_dir.display()))?;
        let names = key_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        left.extend(remove_known(Confined::open_own(&self.keys_dir), &names).map_err(|error| {
            let message = format!("cannot remove {}: {error}", self.keys_dir.display());
            Failure::new(Code::Internal, message, "mend its permissions and destroy again")
        })?);
        Ok(left)
    }

    /// Nothing of ours may lie in the keys directory, or else the bundle or the state there says
    /// that it is this cluster's.
    fn must_own_keys(&self) -> Result<(), Failure> {
        let cluster = &self.inventory.cluster;
        let ours = key_names().iter().any(|name| self.keys_dir.join(name).exists());
        let by_bundle = match keys::owner(&self.keys_dir) {
            Ok(Some(found)) if found != *cluster => {
                let (directory, wanted) = (self.keys_dir.clone(), cluster.clone());
                return Err(keys_failure(KeysError::OtherCluster { directory, found, wanted }));
            }
            owner => matches!(owner, Ok(Some(_))),
        };
        let by_state = || matches!(ClusterState::load(&self.keys_dir, cluster), Ok(Some(_)));
        if !ours || by_bundle || by_state() {
            return Ok(());
        }
        let message = format!(
            "neither {} nor {STATE} in {} says that the directory is that of cluster {cluster}; \
             nothing was removed",
            identity::BUNDLE,
            self.keys_dir.display()
        );
        let hint = format!(
            "give the directory of {cluster} with --keys-dir; \
             if it is this one and damaged, remove by hand what you can spare"
        );
        Err(Failure::new(Code::BadSettings, message, hint))
    }
}

/// All that is made in the keys directory. What says whose it is comes last, so that somebody who
/// was interrupted can go on.
fn key_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "ssh_config",
        keys::KNOWN_HOSTS,
        "people",
        "nodes",
        journal::RUNS,
        program::PROGRAMS,
        issuer::ISSUED,
        issued::REVOKED,
        keys::SERIAL,
    ]
    .map(str::to_owned)
    .into();
    for role in AuthorityRole::ALL.into_iter().filter(|role| *role != AuthorityRole::Root) {
        for key in [issuer::authority_file(role), new_authority_file(role)] {
            names.push(format!("{key}.pub"));
            names.push(key);
        }
    }
    names.extend([issuer::LOCK, STATE].map(str::to_owned));
    let root =
        [new_authority_file(AuthorityRole::Root), issuer::authority_file(AuthorityRole::Root)];
    names.extend(root.clone());
    names.push(identity::BUNDLE.to_owned());
    names.extend(root.map(|key| format!("{key}.pub")));
    names
}

/// Removes entries of these names from a directory, in this order, and half-written files that were
/// to become one of them; then the directory, if it is empty. Gives what was left. Links are
/// removed and not followed.
pub(super) fn remove_known(
    directory: io::Result<Confined>,
    names: &[&str],
) -> io::Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    let directory = match directory {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(left),
        Err(error) => return Err(error),
    };
    let entries = fs::read_dir(directory.held_path())?;
    let mut ours: Vec<(usize, DirEntry)> = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Half-written files begin with a dot and the name of what they were to become.
        let becomes = |known: &str| {
            name.strip_prefix('.').is_some_and(|base| base.starts_with(&format!("{known}.")))
        };
        match names.iter().position(|known| *known == name || becomes(known)) {
            Some(place) => ours.push((place, entry)),
            None => left.push(directory.path().join(entry.file_name())),
        }
    }
    ours.sort_by_key(|(place, _)| *place);
    for (_, entry) in ours {
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    if left.is_empty() {
        fs::remove_dir(directory.path())?;
    }
    left.sort();
    Ok(left)
}
