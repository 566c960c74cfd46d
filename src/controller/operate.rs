//! What operators do with a cluster that stands: status, stop, restart, kill, logs.
//!
//! No signal reaches a process that is not the node's.

use super::deploy::{Cluster, Progress, state_failure, still_running};
use super::host::{Found, Halt, Halted, Place, Wanted};
use super::inventory::NodeSpec;
use super::keys::ClusterKeys;
use super::observe::{ASK_LIMIT, Answer, Asker, Contact, leader};
use super::overview::{Deployment, Overview, overview};
use super::plan::{Facts, NodeFacts, plan};
use super::state::ClusterState;
use super::verify::streams::Reached;
use super::verify::verdict::{Role, Roster, Verdict};
use super::verify::{Interrupted, Pace, verify};
use super::wait::at_once;
use super::{host_failure, keys_failure};
use crate::wire::failure::{Code, Failure};
use rand::RngExt;
use std::collections::BTreeMap;

/// What became of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halting {
    /// Its name.
    pub node: String,
    /// Its pid, if it ran.
    pub pid: Option<u32>,
}

/// How the restart of a node is told of.
pub(super) fn restart_step(node: &str) -> String {
    format!("{node}: restart")
}

impl Cluster {
    /// The named nodes, or all of them.
    ///
    /// # Errors
    /// When one is none of the cluster's.
    pub fn named(&self, names: &[String]) -> Result<Vec<&NodeSpec>, Failure> {
        match names.is_empty() {
            true => Ok(self.inventory.nodes.iter().collect()),
            false => names.iter().map(|name| self.known(name)).collect(),
        }
    }

    /// Somebody who asks. The way to a node may lead over the connection to its host, so these are
    /// made first; whoever cannot be reached is noticed when they are asked.
    pub(super) fn asker(&self) -> Result<Asker, Failure> {
        let far: Vec<&NodeSpec> =
            self.inventory.nodes.iter().filter(|node| node.login.is_some()).collect();
        let nothing = Wanted { executable: None, files: &[] };
        at_once(&far, |node| self.host.find(&Place::of(node), &nothing).is_ok());
        let keys = ClusterKeys::open_existing(&self.keys_dir, &self.inventory.cluster);
        Asker::new(&keys.map_err(keys_failure)?, &self.inventory.cluster)
    }

    /// How the hosts and nodes are, in five seconds at most. Works with everything down.
    ///
    /// # Errors
    /// When the inventory's hosts cannot be looked at from here, or nodes run and cannot be asked
    /// for want of keys: then nothing is known of their health.
    pub fn status(&self) -> Result<Overview, Failure> {
        let nodes = self.named(&[])?;
        let wanted = Wanted { executable: None, files: &[] };
        let look = |node: &NodeSpec| -> Result<Found, String> {
            self.host.find(&Place::of(node), &wanted).map_err(|error| error.to_string())
        };
        let mut found = BTreeMap::new();
        let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
        let mut unable = None;
        for (node, result) in nodes.iter().zip(at_once(&nodes, |node| look(node))) {
            found.insert(node.name.clone(), result);
        }
        match self.asker() {
            Ok(asker) => answers = asker.ask(&nodes, ASK_LIMIT),
            Err(failure) => unable = Some(failure),
        }
        let runs = |found: &Result<Found, String>| {
            found.as_ref().is_ok_and(|found| found.running.is_some())
        };
        match unable {
            Some(failure) if found.values().any(runs) => {
                Err(Failure { code: Code::BadSettings, ..failure })
            }
            _ => Ok(overview(&self.inventory, &found, &answers, &self.deployment(&found))),
        }
    }

    /// What a deployment would say about hosts that look like this.
    fn deployment(&self, found: &BTreeMap<String, Result<Found, String>>) -> Deployment {
        let cluster = &self.inventory.cluster;
        let state = ClusterState::load(&self.keys_dir, cluster).map_err(state_failure);
        let keys = ClusterKeys::open(&self.keys_dir, cluster).map_err(keys_failure);
        let (state, keys) = match (state, keys) {
            (Ok(state), Ok(keys)) => (state, keys.is_some()),
            (Err(failure), _) | (_, Err(failure)) => return Deployment::Fails(failure),
        };
        let seen = found.iter().map(|(name, found)| {
            let facts = match found {
                Ok(found) => NodeFacts {
                    directory: found.directory,
                    log: found.log,
                    genesis_waiting: found.genesis,
                    running: found.running,
                    held: found.held.clone(),
                    ..NodeFacts::default()
                },
                Err(why) => {
                    let hint = "paxos-ctl plan says what to do about its host".to_owned();
                    NodeFacts { out_of_reach: Some((why.clone(), hint)), ..NodeFacts::default() }
                }
            };
            (name.clone(), facts)
        });
        let facts = Facts { state, keys, nodes: seen.collect(), ..Facts::default() };
        Deployment::Meets(plan(&self.inventory, &facts).obstacles)
    }

    /// Stops nodes in good order, all at once, while nobody else works on the hosts.
    ///
    /// # Errors
    /// When somebody else is at work; and as [`Cluster::halt`].
    pub fn stop(&self, nodes: &[&NodeSpec]) -> Result<Vec<Halting>, Failure> {
        let _exclusive = self.exclusive_where_installed("stop", false)?;
        self.halt(nodes, Halt::Gently)
    }

    /// Halts nodes, all at once, whoever else is at work.
    ///
    /// # Errors
    /// When one could not be signalled or still runs; the others are halted all the same.
    pub fn halt(&self, nodes: &[&NodeSpec], how: Halt) -> Result<Vec<Halting>, Failure> {
        let results = at_once(nodes, |node| self.host.halt(&Place::of(node), how));
        let mut halted = Vec::new();
        let mut failure = None;
        for (node, result) in nodes.iter().zip(results) {
            let node = node.name.clone();
            match result {
                Ok(Halted::WasNotRunning) => halted.push(Halting { node, pid: None }),
                Ok(Halted::Stopped(pid)) => halted.push(Halting { node, pid: Some(pid) }),
                Ok(Halted::StillRunning(pid)) => failure = Some(still_running(&node, pid)),
                Err(error) => failure = Some(host_failure(error)),
            }
        }
        failure.map_or(Ok(halted), Err)
    }

    /// The node that leads now.
    ///
    /// # Errors
    /// When no node says that one does.
    pub fn leader(&self) -> Result<&NodeSpec, Failure> {
        let nodes = self.named(&[])?;
        let answers = self.asker()?.ask(&nodes, ASK_LIMIT);
        match leader(&answers) {
            Some(name) => self.known(&name),
            None => Err(Failure::new(
                Code::NoQuorum,
                "no node knows a leader",
                "see paxos-ctl status, or name the node",
            )),
        }
    }

    /// Restarts nodes one at a time, each only when the one before takes part again, the leader
    /// last.
    ///
    /// # Errors
    /// At the first that fails; those after it are left alone.
    pub fn restart(
        &self,
        names: &[String],
        force: bool,
        say: Progress<'_>,
    ) -> Result<Vec<String>, Failure> {
        let mut nodes = self.named(names)?;
        let _exclusive = self.exclusive("restart")?;
        let asker = self.asker()?;
        let all = self.named(&[])?;
        let leader = leader(&asker.ask(&all, ASK_LIMIT));
        nodes.sort_by_key(|node| leader.as_ref() == Some(&node.name));
        for node in &nodes {
            say(&restart_step(&node.name))?;
            self.restart_one(&asker, node, force)?;
        }
        Ok(nodes.into_iter().map(|node| node.name.clone()).collect())
    }

    /// The eight checks of the roles, in their order; with `passive` only those that leave the
    /// leader where it is.
    ///
    /// # Errors
    /// When nobody can be asked for want of keys, and when the user stops it.
    pub fn verify(&self, passive: bool) -> Result<Vec<Verdict>, Failure> {
        let inventory = &self.inventory;
        let nodes = Reached::new(self.asker()?, inventory.nodes.iter().map(Contact::of));
        let role = |node: &NodeSpec| Role {
            name: node.name.clone(),
            proposer: node.proposer.is_some(),
            acceptor: node.acceptor,
            learner: node.learner,
        };
        let roster = Roster {
            nodes: inventory.nodes.iter().map(role).collect(),
            phase1: inventory.quorums.phase1(),
            phase2: inventory.quorums.phase2(),
        };
        let run = format!("{:016x}", rand::rng().random::<u64>());
        let verdicts = verify(&nodes, &roster, &run, passive, Pace::default());
        verdicts.map_err(|Interrupted(prefix)| {
            let message = "it was stopped before all checks were done, so there are no verdicts";
            let hint = format!(
                "keys under {prefix} were deleted as far as that could be done; the next verify \
                 deletes what remains"
            );
            Failure::new(Code::Interrupted, message, hint)
        })
    }

    /// The last lines that nodes wrote.
    ///
    /// # Errors
    /// When a log cannot be read, or none of them holds a line.
    pub fn logs(
        &self,
        names: &[String],
        lines: usize,
    ) -> Result<Vec<(String, Vec<String>)>, Failure> {
        let read = |node: &&NodeSpec| {
            let lines = self.host.log_tail(&Place::of(node), lines).map_err(host_failure)?;
            Ok((node.name.clone(), lines))
        };
        let logs: Vec<(String, Vec<String>)> =
            self.named(names)?.iter().map(read).collect::<Result<_, Failure>>()?;
        match logs.iter().all(|(_, lines)| lines.is_empty()) {
            false => Ok(logs),
            true => {
                let names = logs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
                let message = format!("there is no log yet of {}", names.join(", "));
                let hint = "deploy writes the first lines; paxos-ctl plan says what it would do";
                Err(Failure::new(Code::NotFound, message, hint))
            }
        }
    }
}
