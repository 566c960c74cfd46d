//! The eight checks of `verify`, what each comes to, and the judging of those that need no
//! recorder: from observed facts to verdicts with evidence, a pure function each.
//!
//! A line of evidence says what was seen and at which node; one that speaks against the cluster
//! begins with "wrong: ". A check passes when no line does.

use crate::controller::observe::Answer;
use crate::wire::failure::Failure;
use crate::wire::report::{StatusReport, table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Lines of requests that failed which are shown of each node; the rest are counted.
pub(super) const FAILED_SHOWN: usize = 3;

/// So much of what a node said goes into a line of evidence.
const SAID_SHOWN: usize = 240;

/// One of the fixed checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Each proposer says how it is, and its logs can be read.
    ProposerReachable,
    /// Each proposer serves a write and a read.
    ClientRequest,
    /// While leadership moves, requests wait and are answered.
    NoLeader,
    /// An election has ballots, votes and one winner, on whom all agree.
    Election,
    /// Both phases are seen at the leader and at each acceptor.
    ProposerAcceptor,
    /// The leader knows that it leads, and nobody tries to take its place.
    LeaderKnows,
    /// Each acceptor hears a proposer.
    AcceptorReceives,
    /// What was accepted is learned by each learner.
    AcceptorLearner,
}

impl Check {
    /// All, in the order in which they are reported.
    pub const ALL: [Check; 8] = [
        Check::ProposerReachable,
        Check::ClientRequest,
        Check::NoLeader,
        Check::Election,
        Check::ProposerAcceptor,
        Check::LeaderKnows,
        Check::AcceptorReceives,
        Check::AcceptorLearner,
    ];

    /// Its name for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Check::ProposerReachable => "proposer-reachable",
            Check::ClientRequest => "client-request",
            Check::NoLeader => "no-leader",
            Check::Election => "election",
            Check::ProposerAcceptor => "proposer-acceptor",
            Check::LeaderKnows => "leader-knows",
            Check::AcceptorReceives => "acceptor-receives",
            Check::AcceptorLearner => "acceptor-learner",
        }
    }

    /// Whether it makes the leader resign.
    pub fn disturbs(self) -> bool {
        matches!(self, Check::NoLeader | Check::Election)
    }
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The check's name.
    pub check: &'static str,
    /// Whether nothing speaks against the cluster. True of a check that was skipped, so that all
    /// verdicts pass exactly if the exit status is 0.
    pub pass: bool,
    /// Whether the check did not run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// What was seen.
    pub evidence: Vec<String>,
}

impl Verdict {
    /// A check that was not to run.
    pub fn skipped(check: Check, why: &str) -> Verdict {
        Verdict { check: check.name(), pass: true, skipped: true, evidence: vec![why.to_owned()] }
    }
}

/// The verdicts for people.
pub fn report(verdicts: &[Verdict]) -> String {
    let outcome = |verdict: &Verdict| match (verdict.skipped, verdict.pass) {
        (true, _) => "skipped",
        (false, true) => "pass",
        (false, false) => "FAIL",
    };
    let rows = verdicts.iter().flat_map(|verdict| {
        verdict.evidence.iter().enumerate().map(|(at, line)| match at {
            0 => [verdict.check.to_owned(), outcome(verdict).to_owned(), line.clone()],
            _ => [String::new(), String::new(), line.clone()],
        })
    });
    let mut text = table(["CHECK", "RESULT", "WHAT WAS SEEN"], rows);
    let count = |wanted: &str| verdicts.iter().filter(|v| outcome(v) == wanted).count();
    let (passed, failed, skipped) = (count("pass"), count("FAIL"), count("skipped"));
    text.push_str(&format!("\n{passed} passed, {failed} failed, {skipped} skipped\n"));
    if failed > 0 {
        text.push_str(
            "next: \"paxos-ctl status\" shows what is down, and \"paxos-ctl deploy\" starts it; \
             then verify again\n",
        );
    }
    text
}

/// Evidence as it is gathered.
#[derive(Debug, Default)]
pub(super) struct Findings {
    wrong: bool,
    evidence: Vec<String>,
}

impl Findings {
    /// Something to know.
    pub(super) fn saw(&mut self, text: impl Into<String>) {
        self.evidence.push(text.into());
    }

    /// Something that speaks against the cluster.
    pub(super) fn wrong(&mut self, text: impl AsRef<str>) {
        self.wrong = true;
        self.evidence.push(format!("wrong: {}", text.as_ref()));
    }

    pub(super) fn verdict(self, check: Check) -> Verdict {
        let mut evidence = self.evidence;
        if evidence.is_empty() {
            evidence.push("no node has a role that this looks at".to_owned());
        }
        Verdict { check: check.name(), pass: !self.wrong, skipped: false, evidence }
    }
}

/// A node and its roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it proposes.
    pub proposer: bool,
    /// Whether it votes.
    pub acceptor: bool,
    /// Whether it keeps a store.
    pub learner: bool,
}

impl Role {
    /// As a status names them.
    fn words(&self) -> Vec<&'static str> {
        let all =
            [("proposer", self.proposer), ("acceptor", self.acceptor), ("learner", self.learner)];
        all.into_iter().filter(|(_, has)| *has).map(|(word, _)| word).collect()
    }
}

/// Who does what in the cluster, and how many must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// All nodes.
    pub nodes: Vec<Role>,
    /// Acceptors that must promise.
    pub phase1: usize,
    /// Acceptors that must accept.
    pub phase2: usize,
}

impl Roster {
    /// Those that may lead.
    pub fn proposers(&self) -> impl Iterator<Item = &Role> {
        self.nodes.iter().filter(|node| node.proposer)
    }

    /// Those that vote.
    pub fn acceptors(&self) -> impl Iterator<Item = &Role> {
        self.nodes.iter().filter(|node| node.acceptor)
    }

    /// Those that keep a store.
    pub fn learners(&self) -> impl Iterator<Item = &Role> {
        self.nodes.iter().filter(|node| node.learner)
    }

    /// The only one that may lead, if there is but one: leadership cannot move then.
    pub fn sole_proposer(&self) -> Option<&str> {
        let mut proposers = self.proposers();
        let first = proposers.next()?;
        proposers.next().is_none().then_some(&first.name)
    }

    /// The names of those that may lead, for evidence that is about all of them.
    pub(super) fn proposers_named(&self) -> String {
        self.proposers().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Whether the node votes.
    pub fn votes(&self, name: &str) -> bool {
        self.acceptors().any(|node| node.name == name)
    }
}

/// A failure as a node tells it with `-o json`.
#[derive(Deserialize)]
struct Told {
    error: Failure,
}

/// A command that a node was asked to carry out, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Which node.
    pub node: String,
    /// The command.
    pub command: String,
    /// Its exit status; none if no answer came, and then `stderr` says why.
    pub exit: Option<u32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From asking to the answer.
    pub took: Duration,
}

impl Asked {
    /// Whether it was done.
    pub fn done(&self) -> bool {
        self.exit == Some(0)
    }

    /// What the node said, in one line that is not too long.
    pub fn words(&self) -> String {
        let told = serde_json::from_str::<Told>(&self.stdout).map(|told| told.error);
        let told = told.map(|Failure { code, message, .. }| format!("{message} ({})", code.name()));
        let said = match (&told, self.stderr.trim().is_empty()) {
            (Ok(told), _) => told,
            (Err(_), true) => &self.stdout,
            (Err(_), false) => &self.stderr,
        };
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(SAID_SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }

    /// The command that failed, for evidence.
    pub(super) fn failure(&self) -> String {
        let exit = self.exit.map_or("no answer".to_owned(), |exit| format!("exit {exit}"));
        format!("{}: {}: {exit}: {}", self.node, self.command, self.words())
    }
}

/// A span in milliseconds, for evidence.
pub(super) fn ms(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

/// What a proposer said when it was asked for all that it tells.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The proposer.
    pub node: String,
    /// Its status.
    pub status: Answer,
    /// Its health in one word.
    pub health: Asked,
    /// The end of its log.
    pub log: Asked,
    /// The end of its recorder.
    pub recorder: Asked,
}

/// Each proposer says how it is, and its logs can be read; the leader goes by the same members,
/// roles and quorums as the inventory does.
pub fn proposer_reachable(roster: &Roster, reaches: &[Reach]) -> Verdict {
    let mut findings = Findings::default();
    let told = || reaches.iter().filter_map(|reach| reach.status.as_ref().ok());
    // Without a leader the first that answers speaks for the cluster.
    if let Some(status) = told().find(|status| status.state == "leader").or_else(|| told().next()) {
        compare(&mut findings, roster, status);
    }
    for reach in reaches {
        let node = &reach.node;
        match &reach.status {
            Ok(status) => {
                let leader = status.leader.as_deref().unwrap_or("nobody");
                let state = &status.state;
                findings.saw(format!("{node}: status: {state}, {leader} leads"));
            }
            Err(error) => findings.wrong(format!("{node}: no status: {error}")),
        }
        // Exit statuses of health speak of the cluster, not of whether the node answers.
        match reach.health.exit {
            Some(_) if !reach.health.stdout.trim().is_empty() => {
                findings.saw(format!("{node}: health: {}", reach.health.stdout.trim()));
            }
            _ => findings.wrong(reach.health.failure()),
        }
        for (asked, what) in [(&reach.log, "log"), (&reach.recorder, "recorder")] {
            let lines = asked.stdout.lines().count();
            match asked.done() {
                true => findings.saw(format!("{node}: {what}: {lines} lines could be read")),
                false => findings.wrong(asked.failure()),
            }
        }
    }
    findings.verdict(Check::ProposerReachable)
}

/// Each difference between what the inventory says and what this node goes by.
fn compare(findings: &mut Findings, roster: &Roster, status: &StatusReport) {
    let node = &status.node;
    let sizes = [
        ("phase 1", status.quorum.phase1, roster.phase1),
        ("phase 2", status.quorum.phase2, roster.phase2),
    ];
    for (phase, told, wanted) in sizes.into_iter().filter(|(_, told, size)| *told != *size as u64) {
        findings.wrong(format!(
            "{node}: its quorum of {phase} is {told} acceptors; the inventory says {wanted}"
        ));
    }
    for role in &roster.nodes {
        let name = &role.name;
        let Some(member) = status.members.iter().find(|member| member.name == *name) else {
            findings.wrong(format!("{node}: {name} of the inventory is no member"));
            continue;
        };
        let (told, wanted) = (member.roles.join(", "), role.words().join(", "));
        if told != wanted {
            let or_client = |roles: String| match roles.is_empty() {
                true => "client".to_owned(),
                false => roles,
            };
            let (told, wanted) = (or_client(told), or_client(wanted));
            findings.wrong(format!("{node}: {name} is {told}; the inventory says {wanted}"));
        }
    }
    let known = |name: &str| roster.nodes.iter().any(|role| role.name == name);
    for member in status.members.iter().filter(|member| !known(&member.name)) {
        let name = &member.name;
        findings.wrong(format!("{node}: {name} is a member; the inventory does not name it"));
    }
}

/// A write and a read through one proposer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The value that was written.
    pub value: String,
    /// The write.
    pub put: Asked,
    /// The read.
    pub get: Asked,
}

/// Each proposer serves a write and a read.
pub fn client_request(exchanges: &[Exchange]) -> Verdict {
    let mut findings = Findings::default();
    for Exchange { value, put, get } in exchanges {
        for asked in [put, get] {
            if !asked.done() {
                findings.wrong(asked.failure());
            }
        }
        let node = &put.node;
        if put.done() {
            findings.saw(format!("{node}: put answered in {}: {}", ms(put.took), put.words()));
        }
        if get.done() {
            let read = get.stdout.trim_end();
            match read == value {
                true => findings.saw(format!("{node}: get answered in {}: {read}", ms(get.took))),
                false => findings.wrong(format!("{node}: get: {read} instead of {value}")),
            }
        }
    }
    findings.verdict(Check::ClientRequest)
}

/// What a proposer counts and says, at one moment of the watch.
pub type Counted = Result<u64, String>;

/// A node's state and whom it named as the leader, or why it did not say.
pub type Look = Result<(String, Option<String>), String>;

/// A leader that was looked at for a while.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Who led at its beginning.
    pub leader: Option<String>,
    /// How long.
    pub span: Duration,
    /// By proposer and look: its state, whom it names as the leader.
    pub states: BTreeMap<String, Vec<Look>>,
    /// By proposer and look: how many elections it had started.
    pub elections: BTreeMap<String, Vec<Counted>>,
    /// Writes meanwhile.
    pub writes: Vec<Asked>,
}

/// The leader knows that it leads, and nobody tries to take its place.
pub fn leader_knows(roster: &Roster, watch: &Watch) -> Verdict {
    let mut findings = Findings::default();
    let Some(leader) = &watch.leader else {
        findings.wrong(format!("{}: none of them knows a leader", roster.proposers_named()));
        return findings.verdict(Check::LeaderKnows);
    };
    for (node, states) in &watch.states {
        let unlike = |state: &&Result<(String, Option<String>), String>| match state {
            Ok((state, led_by)) => {
                (state == "leader") != (node == leader) || led_by.as_ref() != Some(leader)
            }
            Err(_) => true,
        };
        match states.iter().find(unlike) {
            None if node == leader => {
                findings.saw(format!("{node}: says that it leads, {} times", states.len()));
            }
            None => {}
            Some(Ok((state, led_by))) => {
                let led_by = led_by.as_deref().unwrap_or("nobody");
                findings.wrong(format!(
                    "{node}: says that it is {state} and that {led_by} leads; {leader} should"
                ));
            }
            Some(Err(error)) if node == leader => {
                findings.wrong(format!("{node}: no status: {error}"));
            }
            // One that is silent is the business of the check that reaches for it.
            Some(Err(error)) => findings.saw(format!("{node}: nothing is known of it: {error}")),
        }
    }
    for (node, counts) in &watch.elections {
        let known: Vec<u64> = counts.iter().flatten().copied().collect();
        let error = counts.iter().find_map(|count| count.as_ref().err());
        // One that is silent now and then still shows what it counted in between.
        match (known.first(), known.last()) {
            (Some(first), Some(last)) if first == last => {
                findings.saw(format!("{node}: elections_started stays at {first}"));
            }
            (Some(first), Some(last)) => findings.wrong(format!(
                "{node}: elections_started went from {first} to {last} while {leader} led"
            )),
            _ if error.is_none() => findings.wrong(format!("{node}: its metrics were not read")),
            _ => {}
        }
        match error {
            Some(error) if node == leader => {
                findings.wrong(format!("{node}: no metrics: {error}"));
            }
            Some(error) => findings.saw(format!("{node}: not always told: {error}")),
            None => {}
        }
    }
    let failed: Vec<&Asked> = watch.writes.iter().filter(|write| !write.done()).collect();
    failed.iter().take(FAILED_SHOWN).for_each(|write| findings.wrong(write.failure()));
    let (done, span) = (watch.writes.len() - failed.len(), watch.span.as_secs_f64());
    match done {
        0 => findings.wrong(format!("{leader}: no write was done in {span:.1} s")),
        _ => findings.saw(format!("{leader}: {done} writes done in {span:.1} s of watching")),
    }
    findings.verdict(Check::LeaderKnows)
}
