//! `paxos-ctl verify`: asks nodes, has them serve requests, has the leader resign, and gives the
//! verdicts of the eight checks.
//!
//! What is asked goes through [`Nodes`], so that a stand-in can misbehave in ways in which no real
//! node can be made to. Nothing is killed; what is written lies under [`PREFIX`] and is deleted at
//! the end. Every wait has an end, and nodes are asked at once.

use super::observe::{ASK_LIMIT, Answer, ROUND_TRIP, leader};
use super::recorded::{Mark, Recording, after, mark, read};
use super::traces::{
    Campaigns, Probe, acceptor_learner, acceptor_receives, election, is, proposer_acceptor,
};
use super::verdict::{
    Asked, Check, Counted, Exchange, HandOver, Reach, Roster, Timed, Verdict, Watch,
    client_request, leader_knows, no_leader, proposer_reachable,
};
use super::wait::until;
use crate::wire::event::{Direction, What};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Under which all keys lie that are written here.
pub const PREFIX: &str = "_verify/";

/// How often leadership is moved at most until a request was under way meanwhile.
const HAND_OVERS_MAX: usize = 8;

/// What a request is given: longer than a few elections, so that one that waits is answered.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A cluster without a leader has so long to find one.
    pub leader: Duration,
    /// Nodes have so long to agree on a winner, to record and to learn, after the answer that we
    /// got: slow disks and links, not slow people.
    pub settle: Duration,
    /// So long the leader is watched.
    pub watch: Duration,
}

impl Default for Pace {
    /// The watch is ten times the shortest election timeout, a quarter of a second: a leader that
    /// does not know that it leads, or a rival that cannot hear it, shows within one.
    fn default() -> Pace {
        Pace {
            leader: Duration::from_secs(10),
            settle: Duration::from_secs(5),
            watch: Duration::from_millis(2500),
        }
    }
}

/// Events of each recorder that are read: the most lines that a node gives at once.
const EVENTS_MAX: usize = 10_000;

/// Nodes that get requests while leadership moves; more show nothing more.
const STREAMS_MAX: usize = 16;

/// The count of campaigns in the page of metrics.
const ELECTIONS: &str = "paxos_elections_started_total";

/// A command for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which node.
    pub node: String,
    /// The command line.
    pub command: String,
}

/// Requests that keep coming at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Which node.
    pub node: String,
    /// The key that they write and read.
    pub key: String,
}

/// What came of a command while requests kept coming.
#[derive(Debug, Clone, Default)]
pub struct Meanwhile {
    /// Of the command.
    pub asked: Asked,
    /// When it was sent and answered, counted from the same moment as the requests.
    pub span: (Duration, Duration),
    /// Of the requests, by node.
    pub requests: BTreeMap<String, Vec<Timed>>,
}

/// The nodes of a cluster, to whoever may ask them.
pub trait Nodes {
    /// Asks all at once; the answers come in the order of the questions, each within the limit.
    fn ask(&self, asks: &[Ask], limit: Duration) -> Vec<Asked>;

    /// Asks while requests keep coming from before the question until after its answer.
    fn ask_meanwhile(&self, ask: &Ask, streams: &[Stream], limit: Duration) -> Meanwhile;
}

/// Runs the eight checks. `run` tells the keys of this run from those of others; with `passive` the
/// leader is not made to resign.
pub fn verify(
    nodes: &dyn Nodes,
    roster: &Roster,
    run: &str,
    passive: bool,
    pace: Pace,
) -> Vec<Verdict> {
    let run = Run { nodes, roster, run, pace, keys: RefCell::default() };
    let mut verdicts = BTreeMap::new();
    verdicts.insert(Check::ProposerReachable, proposer_reachable(&run.reach()));
    verdicts.insert(Check::ClientRequest, client_request(&run.exchange()));
    if passive {
        for check in Check::ALL.into_iter().filter(|check| check.disturbs()) {
            verdicts.insert(check, Verdict::skipped(check, "--passive: the leader stays"));
        }
    } else {
        let (waited, elected) = run.hand_over();
        verdicts.insert(Check::NoLeader, waited);
        verdicts.insert(Check::Election, elected);
    }
    // Before the watch, while recorders still hold the election.
    let elected = !passive && roster.sole_proposer().is_none();
    let [phases, heard, learned] = run.probe(elected);
    verdicts.insert(Check::ProposerAcceptor, phases);
    verdicts.insert(Check::AcceptorReceives, heard);
    verdicts.insert(Check::AcceptorLearner, learned);
    let watched = run.watch();
    verdicts.insert(Check::LeaderKnows, leader_knows(&watched));
    run.tidy();
    Check::ALL.into_iter().filter_map(|check| verdicts.remove(&check)).collect()
}

struct Run<'a> {
    nodes: &'a dyn Nodes,
    roster: &'a Roster,
    run: &'a str,
    pace: Pace,
    /// What was written and is to be deleted.
    keys: RefCell<BTreeSet<String>>,
}

impl Run<'_> {
    fn everybody(&self) -> Vec<&str> {
        self.roster.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    fn proposers(&self) -> Vec<&str> {
        self.roster.proposers().map(|node| node.name.as_str()).collect()
    }

    /// The same question to several.
    fn each(&self, names: &[&str], command: &str) -> BTreeMap<String, Asked> {
        let ask = |name: &&str| Ask { node: (*name).to_owned(), command: command.to_owned() };
        let asks: Vec<Ask> = names.iter().map(ask).collect();
        let asked = self.nodes.ask(&asks, ASK_LIMIT);
        asked.into_iter().map(|asked| (asked.node.clone(), asked)).collect()
    }

    fn request(&self, node: &str, words: &str) -> Asked {
        let command = format!("paxos {words} --timeout {}s", REQUEST_LIMIT.as_secs());
        let ask = Ask { node: node.to_owned(), command };
        let mut asked = self.nodes.ask(&[ask], REQUEST_LIMIT + ROUND_TRIP);
        asked.pop().unwrap_or_default()
    }

    fn statuses(&self, names: &[&str]) -> BTreeMap<String, Answer> {
        let asked = self.each(names, "paxos status -o json");
        asked.into_iter().map(|(name, asked)| (name, status(&asked))).collect()
    }

    fn recordings(&self, names: &[&str]) -> BTreeMap<String, Recording> {
        let command = format!("paxos logs --protocol -o json --lines {EVENTS_MAX}");
        let asked = self.each(names, &command);
        asked.into_iter().map(|(name, asked)| (name, recording(&asked))).collect()
    }

    /// Where each recorder ends now; none of those that cannot be read.
    fn marks(&self, names: &[&str]) -> BTreeMap<String, Option<Mark>> {
        let asked = self.each(names, "paxos logs --protocol -o json --lines 1");
        let mark = |asked: &Asked| recording(asked).ok().map(|events| mark(&events));
        asked.into_iter().map(|(name, asked)| (name, mark(&asked))).collect()
    }

    /// A key of its own for what is done at a node.
    fn key(&self, what: &str, node: &str) -> String {
        let key = format!("{PREFIX}{}/{what}/{node}", self.run);
        self.keys.borrow_mut().insert(key.clone());
        key
    }

    fn reach(&self) -> Vec<Reach> {
        const WORDS: [&str; 4] = [
            "paxos status -o json",
            "paxos health",
            "paxos logs --lines 10",
            "paxos logs --protocol -o json --lines 10",
        ];
        let names = self.proposers();
        let all = |name: &&str| {
            let node = String::from(*name);
            WORDS.map(|words| Ask { node: node.clone(), command: words.to_owned() })
        };
        let asks: Vec<Ask> = names.iter().flat_map(all).collect();
        let asked = self.nodes.ask(&asks, ASK_LIMIT);
        let reach = |asked: &[Asked]| match asked {
            [said, health, log, recorder] => Some(Reach {
                node: said.node.clone(),
                status: status(said),
                health: health.clone(),
                log: log.clone(),
                recorder: recorder.clone(),
            }),
            _ => None,
        };
        asked.chunks(WORDS.len()).filter_map(reach).collect()
    }

    fn exchange(&self) -> Vec<Exchange> {
        let names = self.proposers();
        let timeout = format!("--timeout {}s", REQUEST_LIMIT.as_secs());
        let keys: Vec<String> = names.iter().map(|name| self.key("client", name)).collect();
        let value = |name: &str| format!("through-{name}");
        let ask = |command: &dyn Fn(&str, &str) -> String| -> Vec<Asked> {
            let asks = names.iter().zip(&keys).map(|(name, key)| Ask {
                node: (*name).to_owned(),
                command: format!("{} {timeout}", command(name, key)),
            });
            self.nodes.ask(&asks.collect::<Vec<_>>(), REQUEST_LIMIT + ROUND_TRIP)
        };
        let puts = ask(&|name, key| format!("paxos put {key} {}", value(name)));
        let gets = ask(&|_, key| format!("paxos get {key}"));
        let exchange =
            |((name, put), get): ((&&str, Asked), Asked)| Exchange { value: value(name), put, get };
        names.iter().zip(puts).zip(gets).map(exchange).collect()
    }

    /// The leader, as soon as somebody names one.
    fn leader(&self) -> Option<String> {
        let names = self.proposers();
        let look = || Ok::<_, std::convert::Infallible>(leader(&self.statuses(&names)));
        until(self.pace.leader, LOOK_EVERY, look).unwrap_or_default()
    }

    /// Moves leadership while requests come in at other nodes. Where it moves within a millisecond,
    /// no request may happen to be under way just then, and nothing is shown: it is moved again.
    fn hand_over(&self) -> (Verdict, Verdict) {
        for _ in 1..HAND_OVERS_MAX {
            let (verdicts, was_shown) = self.hand_over_once();
            if was_shown {
                return verdicts;
            }
        }
        self.hand_over_once().0
    }

    /// Also answers whether any request was under way.
    fn hand_over_once(&self) -> ((Verdict, Verdict), bool) {
        let mut hand_over = HandOver { before: self.leader(), ..HandOver::default() };
        let only = self.roster.sole_proposer();
        let marks = match only {
            None => self.marks(&self.proposers()),
            // Its one election is all that there is to see.
            Some(_) => BTreeMap::new(),
        };
        if let Some(before) = &hand_over.before {
            let words = match only {
                None => format!("paxos leader resign --timeout {}s", REQUEST_LIMIT.as_secs()),
                Some(_) => "paxos leader".to_owned(),
            };
            let ask = Ask { node: before.clone(), command: words };
            let limit = REQUEST_LIMIT + ROUND_TRIP;
            let done = self.nodes.ask_meanwhile(&ask, &self.streams(before), limit);
            hand_over.requests = done.requests;
            match only {
                None => (hand_over.resigned, hand_over.span) = (Some(done.asked), done.span),
                Some(_) => hand_over.span = (Duration::ZERO, Duration::MAX),
            }
        }
        let mut elected = None;
        let look = || {
            let campaigns = self.campaigns(hand_over.before.clone(), &marks);
            hand_over.after = leader(&campaigns.statuses);
            let verdict = election(self.roster, &campaigns);
            let settled = verdict.pass.then_some(());
            elected = Some(verdict);
            Ok::<_, std::convert::Infallible>(settled)
        };
        let _settled_or_not = until(self.pace.settle, LOOK_EVERY, look);
        let elected = elected.unwrap_or_else(|| election(self.roster, &Campaigns::default()));
        // Where leadership did not move, moving it again shows no more.
        let moved = hand_over.resigned.as_ref().is_some_and(Asked::done);
        let was_shown = !moved
            || hand_over.requests.iter().any(|(_, requests)| {
                let (begun, ended) = hand_over.span;
                requests.iter().any(|r| r.sent <= ended && r.answered.is_none_or(|at| at >= begun))
            });
        ((no_leader(self.roster, &hand_over), elected), was_shown)
    }

    /// Requests at nodes other than the leader, if there are any.
    fn streams(&self, leader: &str) -> Vec<Stream> {
        let mut names = self.everybody();
        if names.len() > 1 {
            names.retain(|name| *name != leader);
        }
        names.truncate(STREAMS_MAX);
        let stream = |name| Stream { node: String::from(name), key: self.key("waits", name) };
        names.into_iter().map(stream).collect()
    }

    fn campaigns(
        &self,
        before: Option<String>,
        marks: &BTreeMap<String, Option<Mark>>,
    ) -> Campaigns {
        let mut recordings = self.recordings(&self.proposers());
        for (name, mark) in marks {
            let Some(recording) = recordings.get_mut(name) else { continue };
            match (&mut *recording, mark) {
                (Ok(events), Some(mark)) => *events = after(events, *mark),
                (Ok(_), None) => *recording = Err("it did not answer before".to_owned()),
                (Err(_), _) => {}
            }
        }
        Campaigns { before, recordings, statuses: self.statuses(&self.everybody()) }
    }

    fn watch(&self) -> Watch {
        let names = self.proposers();
        let mut watch = Watch { leader: self.leader(), ..Watch::default() };
        let Some(leader) = watch.leader.clone() else { return watch };
        let (key, begun) = (self.key("watch", &leader), Instant::now());
        let look = || {
            watch.writes.push(self.request(&leader, &format!("put {key} {}", watch.writes.len())));
            for (name, status) in self.statuses(&names) {
                let state = status.map(|status| (status.state, status.leader));
                watch.states.entry(name).or_default().push(state);
            }
            for (name, asked) in self.each(&names, "paxos metrics") {
                watch.elections.entry(name).or_default().push(elections(&asked));
            }
            watch.span = begun.elapsed();
            Ok::<Option<()>, std::convert::Infallible>(None)
        };
        let _it_never_finds_anything = until(self.pace.watch, LOOK_EVERY, look);
        watch
    }

    /// Writes once, and sees what becomes of it everywhere.
    fn probe(&self, elected: bool) -> [Verdict; 3] {
        let everybody = self.everybody();
        let learners: Vec<&str> = self.roster.learners().map(|node| node.name.as_str()).collect();
        let mut probe = Probe {
            leader: self.leader(),
            marks: self.marks(&everybody),
            value: format!("seen-{}", self.run),
            elected,
            ..Probe::default()
        };
        let Some(leader) = probe.leader.clone() else { return self.judge(&probe) };
        let key = self.key("probe", &leader);
        // What others have under way may lie on both sides of a mark. The slots after this write's
        // were proposed after all marks.
        probe.write = self.request(&leader, &format!("put {key} marked-{}", self.run));
        if !probe.write.done() {
            return self.judge(&probe);
        }
        let before = self.statuses(&[&leader]);
        probe.write = self.request(&leader, &format!("put {key} {}", probe.value));
        if !probe.write.done() {
            return self.judge(&probe);
        }
        let mut verdicts = None;
        let look = || {
            probe.recordings = self.recordings(&everybody);
            probe.statuses = self.statuses(&everybody);
            probe.slots = slots(&probe, &before, &leader);
            probe.reads = self.each(&learners, &format!("paxos get {key} --consistency local"));
            let judged = self.judge(&probe);
            let settled = judged.iter().all(|verdict| verdict.pass).then_some(());
            verdicts = Some(judged);
            Ok::<_, std::convert::Infallible>(settled)
        };
        let _settled_or_not = until(self.pace.settle, LOOK_EVERY, look);
        verdicts.unwrap_or_else(|| self.judge(&Probe::default()))
    }

    fn judge(&self, probe: &Probe) -> [Verdict; 3] {
        [
            proposer_acceptor(self.roster, probe),
            acceptor_receives(self.roster, probe),
            acceptor_learner(self.roster, probe),
        ]
    }

    /// Deletes what was written. A key that stays does no harm, and its run names it.
    fn tidy(&self) {
        let names = self.proposers();
        let statuses = self.statuses(&names);
        let able = statuses.iter().find(|(_, status)| status.is_ok()).map(|(name, _)| name);
        let Some(node) = leader(&statuses).or_else(|| able.cloned()) else { return };
        let keys = self.keys.borrow();
        let delete = |key: &String| Ask {
            node: node.clone(),
            command: format!("paxos delete {key} --timeout {}s", REQUEST_LIMIT.as_secs()),
        };
        let asks: Vec<Ask> = keys.iter().map(delete).collect();
        let _best_effort = self.nodes.ask(&asks, REQUEST_LIMIT + ROUND_TRIP);
    }
}

/// The slots of what was proposed after the status of `before`: as the leader recorded it, or,
/// where it has nobody to send anything to, up to what its status says now.
fn slots(probe: &Probe, before: &BTreeMap<String, Answer>, leader: &str) -> Option<(u64, u64)> {
    let chosen = |statuses: &BTreeMap<String, Answer>| match statuses.get(leader) {
        Some(Ok(status)) => Some(status.chosen_slot),
        _ => None,
    };
    let next = chosen(before)? + 1;
    let Some(Ok(events)) = probe.recordings.get(leader) else { return None };
    let sent = events.iter().filter(|event| is(event, Direction::Sent, What::Accept));
    let sent = sent.filter_map(|event| Some((event.first?.max(next), event.last?)));
    let sent: Vec<(u64, u64)> = sent.filter(|(first, last)| first <= last).collect();
    let first = sent.iter().map(|(first, _)| *first).min();
    let last = sent.iter().map(|(_, last)| *last).max();
    if let (Some(first), Some(last)) = (first, last) {
        return Some((first, last));
    }
    let last = chosen(&probe.statuses)?;
    (next <= last).then_some((next, last))
}

/// The exit status is not looked at: a node without a quorum answers, and exits with 69.
fn status(asked: &Asked) -> Answer {
    serde_json::from_str(&asked.stdout).map_err(|_| asked.words())
}

fn recording(asked: &Asked) -> Recording {
    if asked.done() { read(&asked.stdout) } else { Err(asked.words()) }
}

fn elections(asked: &Asked) -> Counted {
    let line =
        asked.stdout.lines().find_map(|line| line.strip_prefix(ELECTIONS)?.trim().parse().ok());
    line.ok_or_else(|| match asked.done() {
        true => format!("its metrics do not hold {ELECTIONS}"),
        false => asked.words(),
    })
}
