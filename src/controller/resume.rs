//! Which run to go on with.
//!
//! A journal says what somebody wanted; how far they came is asked of the hosts. So to go on is to
//! do the same again, and what is done already is found done. A restart is found nowhere but in the
//! journal, so there it is looked for.

use super::deploy::{Cluster, state_failure};
use super::journal::{self, Run};
use super::operate::restart_step;
use super::state::ClusterState;
use crate::wire::failure::{Code, Failure};
use std::path::Path;

/// Verbs whose runs are gone on with; those of `keys` are as well.
const RESUMED: [&str; 6] = ["deploy", "upgrade", "rollback", "restart", "raise", "recover"];

/// How somebody goes on with a run of this verb, in words.
pub fn how_to_go_on(verb: &str, run: &str, inventory: &Path) -> String {
    let file = inventory.to_string_lossy();
    match RESUMED.contains(&verb) || verb.starts_with("keys ") {
        true => format!("go on with: paxos-ctl resume {run} -i {}", shell_words::quote(&file)),
        false => "give the same command again".to_owned(),
    }
}

impl Cluster {
    /// The run of this name, or the last one that did not come to its end.
    ///
    /// # Errors
    /// When there is none, or it did.
    pub fn unfinished(&self, names: &[String]) -> Result<Run, Failure> {
        let list = "paxos-ctl audit lists the runs that are kept";
        let runs = journal::runs(&self.keys_dir).map_err(|error| {
            let message = format!("cannot read the journals: {error}");
            Failure::new(Code::Internal, message, "mend the permissions of the keys' directory")
        })?;
        let run = match names {
            [] => {
                // One that was done since may have gone on with it.
                let last = runs.into_iter().next().filter(|run| !run.is_done());
                last.ok_or_else(|| {
                    let message = "the last run came to its end; there is nothing to go on with";
                    Failure::new(Code::NotFound, message, list)
                })?
            }
            [name] => runs.into_iter().find(|run| run.id == *name).ok_or_else(|| {
                Failure::new(Code::NotFound, format!("there is no run {name}"), list)
            })?,
            [_, extra, ..] => {
                let message = format!("\"{extra}\" is one word too many");
                return Err(Failure::usage(message, "name one run, or none for the last"));
            }
        };
        match run.is_done() {
            false => Ok(run),
            true => {
                let message = format!("run {} came to its end; nothing is left of it", run.id);
                Err(Failure::new(Code::NotFound, message, list))
            }
        }
    }

    /// Whom a restart did not come to, or not to its end.
    ///
    /// # Errors
    /// When its journal cannot be read.
    pub fn left_to_restart(&self, run: &Run) -> Result<Vec<String>, Failure> {
        let lines = journal::lines(&self.keys_dir, &run.id).map_err(|error| {
            let message = format!("cannot read the journal of run {}: {error}", run.id);
            Failure::new(Code::Internal, message, "mend the permissions of the keys' directory")
        })?;
        let done = journal::done_steps(&lines);
        let mut left = match run.words.is_empty() {
            true => self.node_names(),
            false => run.words.clone(),
        };
        left.retain(|node| !done.contains(&restart_step(node).as_str()));
        Ok(left)
    }

    /// Whether the cluster is to run the program of this run already.
    pub fn is_chosen(&self, run: &Run) -> bool {
        let state = ClusterState::load(&self.keys_dir, &self.inventory.cluster);
        let chosen = state.map_err(state_failure).ok().flatten().and_then(|state| state.program);
        chosen.is_some_and(|program| Some(&program.name()) == run.words.first())
    }
}
