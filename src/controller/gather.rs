//! Everything that a plan depends on, from the disk here, the hosts and the nodes. Looking changes
//! nothing.

use super::deploy::{Cluster, state_failure};
use super::host::{Found, HostError, Place, Wanted, names};
use super::inventory::settings::settings_text;
use super::inventory::{Connection, NodeSpec};
use super::keys::ClusterKeys;
use super::keys::newest::{discount, newer};
use super::membership::Membership;
use super::observe::{ASK_LIMIT, Asker, leader};
use super::plan::{Facts, FileState, NodeFacts, obstacle};
use super::state::ClusterState;
use super::wait::at_once;
use super::{host_failure, keys_failure};
use crate::wire::build::Build;
use crate::wire::failure::{Code, Failure};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

impl Cluster {
    /// The cluster's keys, if they were made.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn keys(&self) -> Result<Option<ClusterKeys>, Failure> {
        ClusterKeys::open(&self.keys_dir, &self.inventory.cluster).map_err(keys_failure)
    }

    /// Where a node's executable comes from: what this command was told, else the inventory, else
    /// what the cluster was upgraded to, else this very program.
    pub(super) fn executable(&self, state: Option<&ClusterState>, node: &NodeSpec) -> PathBuf {
        let upgraded = || state.and_then(|state| state.program.as_ref());
        match (&self.binary, &node.binary) {
            (Some(binary), _) | (None, Some(binary)) => binary.clone(),
            (None, None) => match upgraded() {
                Some(program) => program.path(&self.keys_dir),
                None => self.tool.clone(),
            },
        }
    }

    /// Looks at everything that a plan depends on. Changes nothing.
    ///
    /// # Errors
    /// When something is there and cannot be read.
    pub fn facts(&self) -> Result<Facts, Failure> {
        let keys = self.keys()?;
        let now = SystemTime::now();
        let mut facts = Facts {
            state: ClusterState::load(&self.keys_dir, &self.inventory.cluster)
                .map_err(state_failure)?,
            keys: keys.is_some(),
            ..Facts::default()
        };
        if let Some(keys) = &keys {
            facts.operator = keys.operator_is_current(now).map_err(keys_failure)?;
        }
        let mut all_certified = true;
        for (node, found) in self.inventory.nodes.iter().zip(self.look(facts.state.as_ref())) {
            let (found, certified) = match found {
                Ok(found) => {
                    self.node_facts(node, found, facts.state.as_ref(), keys.as_ref(), now)?
                }
                Err(error) if node.connection == Connection::Ssh => {
                    let why = format!("cannot {}: {}", error.what, error.reason);
                    let out_of_reach = Some((why, error.hint));
                    (NodeFacts { out_of_reach, ..NodeFacts::default() }, false)
                }
                Err(error) => return Err(host_failure(error)),
            };
            // One that is not seen to gets no certificates either.
            all_certified &= certified || obstacle(node, &found, facts.state.as_ref()).is_some();
            facts.nodes.insert(node.name.clone(), found);
        }
        // Of those that could be looked at.
        let looked = facts.nodes.values_mut().filter(|found| found.out_of_reach.is_none());
        discount(looked.map(|found| &mut found.newer_bundle));
        if !all_certified {
            // Each node is told of all certificates, so a new one is news to the others as well.
            let told = facts.nodes.values_mut().filter(|found| found.keys == FileState::Same);
            told.for_each(|found| found.keys = FileState::Differs);
        }
        if let Some(keys) = keys.filter(|_| facts.operator) {
            let asker = Asker::new(&keys, &self.inventory.cluster)?;
            let running = |node: &&NodeSpec| {
                facts.nodes.get(&node.name).is_some_and(|found| found.running.is_some())
            };
            let running: Vec<&NodeSpec> = self.inventory.nodes.iter().filter(running).collect();
            let answers = asker.ask(&running, ASK_LIMIT);
            facts.leader = leader(&answers);
            facts.told = Membership::told(&answers);
            let epoch = keys.bundle().epoch;
            for (name, found) in &mut facts.nodes {
                let answer = answers.get(name).and_then(|answer| answer.as_ref().ok());
                let active = answer.and_then(|status| status.bundle.as_ref());
                found.behind =
                    active.is_some_and(|bundle| bundle.epoch < epoch || bundle.problem.is_some());
            }
            let version = answers.values().flatten().filter_map(|status| status.cluster_version);
            if let Some(version) = version.max() {
                self.find_unfit(&mut facts, version);
            }
        }
        Ok(facts)
    }

    /// Notes who would get a program that does not know the version that the cluster is at. Those
    /// that cannot be read here are told when they are to be sent.
    fn find_unfit(&self, facts: &mut Facts, version: u16) {
        let mut known: BTreeMap<PathBuf, Option<Build>> = BTreeMap::new();
        for node in &self.inventory.nodes {
            let executable = self.executable(facts.state.as_ref(), node);
            let Some(found) = facts.nodes.get_mut(&node.name) else { continue };
            if found.executable == FileState::Same || found.out_of_reach.is_some() {
                continue;
            }
            let read = |path: &PathBuf| Build::of(&std::fs::read(path).ok()?);
            let build = known.entry(executable.clone()).or_insert_with(|| read(&executable));
            found.unfit = build.as_ref().filter(|build| !build.runs(version)).map(|build| {
                let (oldest, newest) = build.cluster_versions;
                format!(
                    "runs clusters of version {oldest} to {newest} ({}), and the cluster is at \
                     version {version}",
                    build.version
                )
            });
        }
    }

    /// What lies on each node's host, asked at once.
    fn look(&self, state: Option<&ClusterState>) -> Vec<Result<Found, HostError>> {
        let mut files = vec![names::SETTINGS.to_owned()];
        files.extend(names::KEY_FILES.iter().map(|name| format!("{}/{name}", names::KEYS)));
        at_once(&self.inventory.nodes, |node| {
            let executable = self.executable(state, node);
            let wanted = Wanted { executable: Some(&executable), files: &files };
            self.host.find(&Place::of(node), &wanted)
        })
    }

    /// Also whether the node's certificates serve.
    fn node_facts(
        &self,
        node: &NodeSpec,
        found: Found,
        state: Option<&ClusterState>,
        keys: Option<&ClusterKeys>,
        now: SystemTime,
    ) -> Result<(NodeFacts, bool), Failure> {
        let settings = self.settings(state, node)?;
        let compare = |found: Option<&Option<Vec<u8>>>, wanted: &str| match found {
            Some(Some(bytes)) if bytes == wanted.as_bytes() => FileState::Same,
            Some(Some(_)) => FileState::Differs,
            _ => FileState::Absent,
        };
        let certified = match (keys, &found.node_key) {
            (Some(keys), Some(line)) => {
                keys.node_is_current(&node.name, node.id, line, now).map_err(keys_failure)?
            }
            _ => false,
        };
        // The settings are first among these files.
        let beside =
            Found { files: found.files.iter().skip(1).cloned().collect(), ..found.clone() };
        let newer_bundle = keys.and_then(|keys| newer(keys, &beside));
        let revoked = keys.zip(found.node_key.as_ref());
        let revoked = revoked.is_some_and(|(keys, line)| keys.is_revoked(line));
        let keys = match (keys, &found.node_key) {
            (_, None) => FileState::Absent,
            (Some(keys), Some(_)) if certified => {
                let people = &self.inventory.people;
                let wanted = keys.node_files(&node.name, people).map_err(keys_failure)?;
                let same = wanted.iter().all(|file| {
                    let place = names::KEY_FILES.iter().position(|name| *name == file.name);
                    let found = place.and_then(|place| found.files.get(place + 1));
                    compare(found, &file.text) == FileState::Same
                });
                if same { FileState::Same } else { FileState::Differs }
            }
            _ => FileState::Differs,
        };
        let facts = NodeFacts {
            directory: found.directory,
            log: found.log,
            genesis_waiting: found.genesis,
            running: found.running,
            executable: found.executable,
            settings: compare(found.files.first(), &settings),
            keys,
            held: found.held,
            settings_outdated: found.outdated.settings,
            keys_outdated: found.outdated.keys,
            behind: false,
            revoked,
            newer_bundle,
            unfit: None,
            out_of_reach: None,
        };
        Ok((facts, certified))
    }

    pub(super) fn settings(
        &self,
        state: Option<&ClusterState>,
        node: &NodeSpec,
    ) -> Result<String, Failure> {
        settings_text(&self.inventory, state, node).map_err(|error| {
            let message = format!("the settings of {} cannot be written down: {error}", node.name);
            Failure::new(
                Code::BadSettings,
                message,
                "use a data directory whose path is plain text",
            )
        })
    }
}
