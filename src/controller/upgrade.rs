//! Another program for the whole cluster, and the way back.
//!
//! What the cluster is to run is written beside the keys first; then it is a deployment like any
//! other that finds executables that differ: sent to all, taken up one by one, the leader last.
//! Whoever takes over from a controller that was killed deploys, or resumes, and comes to the same
//! end.
//!
//! The cluster version stands in the log. It is raised last, once every member says that it runs a
//! program that knows it, and by one at a time; from then on a program that does not know it is
//! refused, here before it is sent and by the node that would run it. So the way back is open until
//! somebody raises it, and `upgrade` does that only if it is told to.
//!
//! Which way the last step led is written down as well: a way back that failed in the middle is
//! gone to its end when somebody wants to go back again.
//!
//! What must never happen: a program that the cluster could not run is sent to all of it; a version
//! is raised that a member does not know.

use super::deploy::{Cluster, state_failure};
use super::membership::Membership;
use super::observe::{ASK_LIMIT, Answer};
use super::plan::{Facts, FileState};
use super::program::Program;
use super::state::ClusterState;
use super::told;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::StatusReport;
use std::collections::BTreeMap;
use std::path::Path;

/// Where another program leads a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To one that it did not run before, or is to run again.
    Forward,
    /// To the one before.
    Back,
}

impl Cluster {
    /// What the cluster would be upgraded to: a program that its members could run together with
    /// the one that they run now.
    ///
    /// # Errors
    /// When it is no program of ours, or the cluster cannot run it, or cannot be asked.
    pub fn upgradable_to(&self, file: &Path) -> Result<Program, Failure> {
        let program = Program::of(file)?;
        self.must_run(&program)?;
        Ok(program)
    }

    /// The program that the cluster ran before its last upgrade; the way back may be under way, or
    /// behind it. Nothing but another upgrade leads forward again.
    ///
    /// # Errors
    /// When there is none, its copy is gone, or the cluster cannot run it any more.
    pub fn previous(&self) -> Result<Program, Failure> {
        let state = self.formed()?;
        let previous = if state.is_back { state.program } else { state.previous };
        let Some(previous) = previous else {
            let message = format!(
                "nothing is known of a program that cluster {} ran before",
                self.inventory.cluster
            );
            let hint = "name the program instead: paxos-ctl upgrade --binary FILE";
            return Err(Failure::new(Code::NotFound, message, hint));
        };
        previous.check(&self.keys_dir)?;
        self.must_run(&previous)?;
        Ok(previous)
    }

    pub(super) fn formed(&self) -> Result<ClusterState, Failure> {
        let cluster = &self.inventory.cluster;
        let state = ClusterState::load(&self.keys_dir, cluster).map_err(state_failure)?;
        state.ok_or_else(|| {
            let message = format!("cluster {cluster} was never deployed from here");
            Failure::new(Code::BadSettings, message, "deploy it first: paxos-ctl deploy")
        })
    }

    /// Refuses a program that does not know the version that the cluster is at.
    fn must_run(&self, program: &Program) -> Result<(), Failure> {
        let own = self.inventory.nodes.iter().find(|node| node.binary.is_some());
        if let Some(node) = own {
            let message = format!("the inventory says with paxos_binary what {} runs", node.name);
            let hint = "change paxos_binary and deploy, or take it out of the inventory";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        self.formed()?;
        let version = cluster_version(&self.ask_all_nodes()?)?;
        let (oldest, newest) = program.cluster_versions;
        match (oldest..=newest).contains(&version) {
            true => Ok(()),
            false => {
                let message = format!(
                    "{} runs clusters of version {oldest} to {newest}, and cluster {} is at \
                     version {version}",
                    program.name(),
                    self.inventory.cluster
                );
                let hint = match version > newest {
                    true => "it was raised for a newer program; the way back is closed",
                    false => "upgrade to a program in between first",
                };
                Err(Failure::new(Code::BadSettings, message, hint))
            }
        }
    }

    fn ask_all_nodes(&self) -> Result<BTreeMap<String, Answer>, Failure> {
        let everybody = self.named(&[])?;
        Ok(self.asker()?.ask(&everybody, ASK_LIMIT))
    }

    /// Writes down that the cluster is to run a program, of which `file` is a copy, and which way
    /// that leads. `facts` are those before.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub fn choose(
        &self,
        program: &Program,
        file: &Path,
        way: Way,
        facts: &Facts,
    ) -> Result<(), Failure> {
        // Keeps another controller from doing the same.
        let _lock = self.open_or_init_keys()?;
        let mut state = self.formed()?;
        if state.program.as_ref() == Some(program) {
            return program.check(&self.keys_dir);
        }
        program.keep(file, &self.keys_dir)?;
        state.previous = match state.program.take() {
            Some(program) => Some(program),
            None => self.first_program(facts)?,
        };
        state.program = Some(program.clone());
        state.is_back = way == Way::Back;
        state.save(&self.keys_dir).map_err(state_failure)?;
        let kept: Vec<&Program> = state.program.iter().chain(&state.previous).collect();
        // What is left over costs space and no more.
        let _left = Program::forget_others(&self.keys_dir, &kept);
        Ok(())
    }

    /// A cluster that was never upgraded runs the program that deployed it: this one, if all nodes
    /// have it.
    fn first_program(&self, facts: &Facts) -> Result<Option<Program>, Failure> {
        let is_ours = |executable: &FileState| *executable == FileState::Same;
        if !facts.nodes.values().all(|node| is_ours(&node.executable)) {
            return Ok(None);
        }
        let program = Program::of(&self.tool)?;
        program.keep(&self.tool, &self.keys_dir)?;
        Ok(Some(program))
    }

    /// The version behind the one that the cluster is at.
    ///
    /// # Errors
    /// When no node says which that is.
    pub fn next_version(&self) -> Result<u16, Failure> {
        Ok(cluster_version(&self.ask_all_nodes()?)?.saturating_add(1))
    }

    /// Raises the cluster version to `next`, if every member's program knows it. Where it is that
    /// already, there is nothing to do.
    ///
    /// # Errors
    /// When somebody else is at work, a member is unknown here or does not answer, its program does
    /// not know the version, or no leader takes it.
    pub fn raise_version(&self, next: u16) -> Result<(), Failure> {
        let _exclusive = self.exclusive("raise the cluster version")?;
        let answers = self.ask_all_nodes()?;
        let version = cluster_version(&answers)?;
        if version >= next {
            return Ok(());
        }
        let members = Membership::told(&answers).into_iter().flat_map(|told| told.members);
        let stranger = members.map(|member| member.name).find(|name| !answers.contains_key(name));
        if let Some(name) = stranger {
            let message = format!("{name} is a member and not in the inventory: it was not asked");
            let hint = "put it back into the inventory, and raise the version then";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        for (node, answer) in &answers {
            let knows = |status: &StatusReport| status.cluster_versions.1 >= next;
            let why = match answer {
                Ok(status) if knows(status) => continue,
                Ok(status) => format!("its program, {}, does not know it", status.version),
                Err(error) => format!("it does not answer: {error}"),
            };
            let message = format!("{node} keeps the cluster at version {version}: {why}");
            let hint = "upgrade all nodes, and raise the version when all of them answer";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        let nodes = self.named(&[])?;
        let command = format!("paxos version raise {next}");
        let mut last = "no node was asked".to_owned();
        let asker = self.asker()?;
        for node in nodes {
            match asker.tell(node, &command, ASK_LIMIT) {
                Ok(()) => return Ok(()),
                Err(why) => last = format!("{}: {why}", node.name),
            }
        }
        let message = format!("the cluster version was not raised to {next}: {last}");
        Err(Failure::new(Code::UnknownOutcome, message, "see paxos-ctl status, and raise it again"))
    }
}

/// The version that the cluster is at, by those who know most of the log.
fn cluster_version(answers: &BTreeMap<String, Answer>) -> Result<u16, Failure> {
    let version = |status: &StatusReport| status.cluster_version;
    answers.values().flatten().filter_map(version).max().ok_or_else(|| {
        let why = answers.iter().find_map(|(node, answer)| {
            answer.as_ref().err().map(|error| format!(" ({node}: {error})"))
        });
        let message = "no node with a store says which version the cluster is at";
        told(Code::NoQuorum, &format!("{message}{}; see paxos-ctl status", why.unwrap_or_default()))
    })
}
