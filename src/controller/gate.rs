//! Between one node and the next: nothing more is restarted until the one before takes part again,
//! and nothing at all while the others cannot do without it.

use super::deploy::{Cluster, log_path, state_failure, still_running};
use super::host::unit;
use super::host::{Halt, Halted, Layout, Place, Wanted};
use super::host_failure;
use super::inventory::NodeSpec;
use super::membership::Membership;
use super::observe::{ASK_LIMIT, Asker, Contact};
use super::state::ClusterState;
use super::wait::until;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::StatusReport;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a node may take from its start to its first answer: a log of some gigabytes is read
/// first.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long nodes that answer may take to agree on a leader: a few elections at the longest
/// timeout.
const LEADER_LIMIT: Duration = Duration::from_secs(30);

/// How long a node may take to catch up with what it missed while it was restarted.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at a node that does not answer yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One look may take this long, so that a node that hangs does not hide one that died.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How many lines of a node's log go into the message about its death.
const LAST_WORDS: usize = 10;

impl Cluster {
    /// Stops a node, starts it, and waits until it takes part again. Refuses to take a quorum away
    /// unless it is forced to.
    ///
    /// # Errors
    /// When it does not stop, does not start, or does not take part in time.
    pub fn restart_one(&self, asker: &Asker, node: &NodeSpec, force: bool) -> Result<(), Failure> {
        if !force {
            self.can_spare(asker, node)?;
        }
        let place = Place::of(node);
        if let Halted::StillRunning(pid) =
            self.host.halt(&place, Halt::Gently).map_err(host_failure)?
        {
            return Err(still_running(&node.name, pid));
        }
        self.host.start(&place).map_err(host_failure)?;
        self.wait_answers(asker, &[node])?;
        self.wait_leader(asker, &[node])?;
        self.wait_caught_up(asker, node)
    }

    /// Waits until a node has applied all that was chosen by now: the next one is not stopped while
    /// this one could not take its place. One without a store applies nothing.
    ///
    /// # Errors
    /// When it does not come that far in time.
    pub(super) fn wait_caught_up(&self, asker: &Asker, node: &NodeSpec) -> Result<(), Failure> {
        if !node.learner {
            return Ok(());
        }
        let everybody: Vec<&NodeSpec> = self.inventory.nodes.iter().collect();
        let chosen = |status: &StatusReport| status.chosen_slot;
        let target = asker.ask(&everybody, LOOK_LIMIT).values().flatten().map(chosen).max();
        let mut applied = None;
        let look = || -> Result<Option<()>, Failure> {
            let answers = asker.ask(&[node], LOOK_LIMIT);
            applied = answers.values().flatten().map(|status| status.applied_slot).next();
            Ok((target.is_some() && applied >= target).then_some(()))
        };
        if until(CATCH_UP_LIMIT, LOOK_EVERY, look)?.is_some() {
            return Ok(());
        }
        let message = format!(
            "{} takes part again, but has applied {applied:?} of {target:?} slots after \
             {CATCH_UP_LIMIT:?}",
            node.name
        );
        let hint = "wait until paxos-ctl status shows that it caught up, and do this again";
        Err(Failure::new(Code::Busy, message, hint))
    }

    /// Whether the cluster can do without this node for a while. Who its members are is for them to
    /// say, and the inventory's word counts for nothing: somebody may have edited it since.
    fn can_spare(&self, asker: &Asker, node: &NodeSpec) -> Result<(), Failure> {
        let state = ClusterState::load(&self.keys_dir, &self.inventory.cluster);
        let state = state.map_err(state_failure)?;
        let mut contacts: Vec<Contact> = self.inventory.nodes.iter().map(Contact::of).collect();
        let founders = state.iter().flat_map(|state| &state.nodes);
        contacts.extend(founders.filter_map(|node| Contact::at(&node.name, &node.address)));
        let mut answers = asker.ask_all(&contacts, ASK_LIMIT);
        let membership = Membership::told(&answers).or_else(|| state.as_ref().map(Into::into));
        let Some(membership) = membership else {
            let message = format!(
                "nobody says who the members of {} are; {} was left alone",
                self.inventory.cluster, node.name
            );
            let hint = "see paxos-ctl status, or restart with --force";
            return Err(Failure::new(Code::NoQuorum, message, hint));
        };
        let known = |name: &str| contacts.iter().any(|contact| contact.name == name);
        let strangers = membership.members.iter().filter(|member| !known(&member.name));
        let strangers = strangers.filter_map(|member| Contact::at(&member.name, &member.address));
        answers.extend(asker.ask_all(&strangers.collect::<Vec<_>>(), ASK_LIMIT));
        // One that answers us may be cut off from the others, and then it is no help to them.
        let takes_part =
            |status: &StatusReport| status.leader.is_some() && status.health != "no_quorum";
        let answering = |name: &str| {
            answers.get(name).is_some_and(|answer| answer.as_ref().is_ok_and(takes_part))
        };
        membership.can_spare(&node.name, answering).map_err(|why| {
            let message = format!("{why}; {} was left alone", node.name);
            let hint = "start the others first (deploy), or restart with --force";
            Failure::new(Code::NoQuorum, message, hint)
        })
    }

    /// Waits until each of the nodes answers.
    ///
    /// # Errors
    /// When one dies, with its last words, or does not answer in time.
    pub fn wait_answers(&self, asker: &Asker, nodes: &[&NodeSpec]) -> Result<(), Failure> {
        let mut waiting = nodes.to_vec();
        let mut last = None;
        // A process that turns into its program has no words for a moment by which it is known.
        let mut missing: Vec<&NodeSpec> = Vec::new();
        let look = || -> Result<Option<()>, Failure> {
            let answers = asker.ask(&waiting, LOOK_LIMIT);
            waiting.retain(|node| !answers.get(&node.name).is_some_and(Result::is_ok));
            let before = std::mem::take(&mut missing);
            for node in &waiting {
                if !self.runs(node)? {
                    missing.push(node);
                }
            }
            if let Some(node) = missing.iter().find(|node| before.contains(node)) {
                return Err(self.died(node));
            }
            last = waiting.first().map(|node| (*node, answers.get(&node.name).cloned()));
            Ok(waiting.is_empty().then_some(()))
        };
        let answered = until(ANSWER_LIMIT, LOOK_EVERY, look)?;
        let (None, Some((node, answer))) = (answered, last) else { return Ok(()) };
        let why = match answer {
            Some(Err(why)) => why,
            _ => "no reason is known".to_owned(),
        };
        let message =
            format!("{} runs but did not answer within {ANSWER_LIMIT:?}: {why}", node.name);
        let hint = format!("see its log: {}", where_its_log_is(node));
        Err(Failure::new(Code::Internal, message, hint))
    }

    /// Waits until the nodes that run answer and have a leader: a deployment that was killed may
    /// have left no more to do than that.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn wait_until_it_serves(&self) -> Result<(), Failure> {
        let mut running = Vec::new();
        for node in self.named(&[])? {
            // What cannot be looked at was told before.
            if self.runs(node).unwrap_or(false) {
                running.push(node);
            }
        }
        let asker = self.asker()?;
        self.wait_answers(&asker, &running)?;
        match running.is_empty() {
            true => Ok(()),
            false => self.wait_leader(&asker, &running),
        }
    }

    pub(super) fn runs(&self, node: &NodeSpec) -> Result<bool, Failure> {
        let nothing = Wanted { executable: None, files: &[] };
        let found = self.host.find(&Place::of(node), &nothing).map_err(host_failure)?;
        Ok(found.running.is_some())
    }

    /// Why a node ended right after its start: its own failure where it left one, else its last
    /// words.
    fn died(&self, node: &NodeSpec) -> Failure {
        let place = Place::of(node);
        let words = self.host.log_tail(&place, LAST_WORDS).unwrap_or_default();
        let (name, log) = (&node.name, where_its_log_is(node));
        if let Some(own) = Failure::from_text(&words.join("\n")) {
            let message = format!("{name} ended right after its start: {}", own.message);
            return Failure::new(own.code, message, format!("{} (log: {})", own.hint, log));
        }
        let said = match words.is_empty() {
            true => "it said nothing".to_owned(),
            false => format!("its last words were:\n  {}", words.join("\n  ")),
        };
        let message = format!("{name} ended right after its start; {said}");
        let hint = match &place.layout {
            // Before it has opened its log, it can tell nobody else.
            Layout::System { cluster } if words.is_empty() => format!(
                "where systemd runs its host, see there: journalctl -u {}",
                unit::name(cluster)
            ),
            _ => format!("mend what it says and deploy again; its log is {log}"),
        };
        Failure::new(Code::Internal, message, hint)
    }

    /// Waits until one of the nodes knows a leader and has a quorum.
    ///
    /// # Errors
    /// When that does not come in time, with what the nodes say.
    pub fn wait_leader(&self, asker: &Asker, nodes: &[&NodeSpec]) -> Result<(), Failure> {
        let mut answers = BTreeMap::new();
        let look = || -> Result<Option<()>, Failure> {
            answers = asker.ask(nodes, LOOK_LIMIT);
            let serves =
                |status: &StatusReport| status.leader.is_some() && status.health != "no_quorum";
            Ok(answers.values().flatten().any(serves).then_some(()))
        };
        if until(LEADER_LIMIT, LOOK_EVERY, look)?.is_some() {
            return Ok(());
        }
        let why = answers.iter().map(|(name, answer)| match answer {
            Ok(status) => format!("{name}: {}", status.why),
            Err(error) => format!("{name}: {error}"),
        });
        let why = why.collect::<Vec<_>>().join("\n  ");
        let message = format!("the nodes run, but have no leader after {LEADER_LIMIT:?}:\n  {why}");
        let hint = "start the nodes that are missing, or see their logs (paxos-ctl logs)";
        Err(Failure::new(Code::NoQuorum, message, hint))
    }
}

/// Where a person finds what a node's process writes.
fn where_its_log_is(node: &NodeSpec) -> String {
    match node.login {
        None => log_path(node).display().to_string(),
        Some(_) => format!("paxos-ctl logs {}", node.name),
    }
}
