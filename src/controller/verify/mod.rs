//! `paxos-ctl verify`: asks nodes, has them serve requests, has the leader resign, and gives the
//! verdicts of the eight checks.
//!
//! What is asked goes through [`Nodes`], so that a stand-in can misbehave in ways in which no real
//! node can be made to. Nothing is killed; what is written lies under [`PREFIX`] and is deleted at
//! the end. Every wait has an end, and nodes are asked at once.
//!
//! [`streams`] are the requests and commands meanwhile; [`verdict`], [`hand_over`] and [`traces`]
//! judge what was seen, the last of these what nodes [`recorded`].

pub mod hand_over;
pub mod recorded;
pub mod streams;
pub mod traces;
pub mod verdict;

use crate::controller::observe::{ASK_LIMIT, Answer, ROUND_TRIP, leader};
use crate::controller::wait::until;
use crate::wire::logs::LOG_LINES_MAX;
use hand_over::{HandOver, Timed, no_leader};
use recorded::{Mark, Recording, after, mark, reaches, read};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use traces::{Campaigns, Probe, acceptor_learner, acceptor_receives, election, proposer_acceptor};
use verdict::{
    Asked, Check, Counted, Exchange, Findings, Reach, Roster, Verdict, Watch, client_request,
    leader_knows, proposer_reachable,
};

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

/// Events of each recorder that are read at first; where these do not reach back far enough, more.
const EVENTS_FIRST: usize = 1024;

/// So many times more then, up to all that a node keeps.
const EVENTS_MORE: usize = 8;

/// Shows a node's recorder.
const RECORDER: &str = "paxos logs --protocol -o json";

/// What tells of phase 1 and of who led, in the events of a recorder. Nodes find these words, so
/// that all of what they keep is looked through and little is sent.
const HISTORY: [&str; 3] = ["prepare", "promise", "leads"];

/// Keys of earlier runs that are deleted at most: those that were interrupted left a few each.
const EARLIER_MAX: usize = 1000;

/// Keys that are deleted at once.
const DELETES_AT_ONCE: usize = 16;

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
    /// Nodes to which no request could be sent, and why not.
    pub unreached: BTreeMap<String, String>,
}

/// The user stopped it: there are no verdicts, and keys under this prefix may remain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted(pub String);

/// The nodes of a cluster, to whoever may ask them.
pub trait Nodes {
    /// Asks all at once; the answers come in the order of the questions, each within the limit.
    fn ask(&self, asks: &[Ask], limit: Duration) -> Vec<Asked>;

    /// Asks while requests keep coming from before the question until after its answer.
    fn ask_meanwhile(&self, ask: &Ask, streams: &[Stream], limit: Duration) -> Meanwhile;

    /// Whether the user wants no more.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Runs the eight checks. `run` tells the keys of this run from those of others; with `passive` the
/// leader is not made to resign.
///
/// # Errors
/// When the user stopped it; what was written is deleted all the same, if that can be done.
pub fn verify(
    nodes: &dyn Nodes,
    roster: &Roster,
    run: &str,
    passive: bool,
    pace: Pace,
) -> Result<Vec<Verdict>, Interrupted> {
    let run = Run { nodes, roster, run, pace, keys: RefCell::default() };
    let verdicts = run.checks(passive);
    run.tidy();
    verdicts
}

struct Run<'a> {
    nodes: &'a dyn Nodes,
    roster: &'a Roster,
    run: &'a str,
    pace: Pace,
    /// What was written and is to be deleted.
    keys: RefCell<BTreeSet<String>>,
}

/// A hand-over, judged, and whether doing it again would show no more.
struct Moved {
    waited: Verdict,
    elected: Verdict,
    /// Whether there was an election just now.
    is_new: bool,
    is_telling: bool,
}

impl Run<'_> {
    fn checks(&self, passive: bool) -> Result<Vec<Verdict>, Interrupted> {
        let mut verdicts = BTreeMap::new();
        self.find_earlier();
        verdicts.insert(Check::ProposerReachable, proposer_reachable(self.roster, &self.reach()));
        self.go_on()?;
        verdicts.insert(Check::ClientRequest, client_request(&self.exchange()));
        self.go_on()?;
        let mut elected = false;
        if passive {
            for check in Check::ALL.into_iter().filter(|check| check.disturbs()) {
                verdicts.insert(check, Verdict::skipped(check, "--passive: the leader stays"));
            }
        } else {
            let moved = self.hand_over();
            elected = moved.is_new;
            verdicts.insert(Check::NoLeader, moved.waited);
            verdicts.insert(Check::Election, moved.elected);
        }
        self.go_on()?;
        let [phases, heard, learned] = self.probe(elected);
        verdicts.insert(Check::ProposerAcceptor, phases);
        verdicts.insert(Check::AcceptorReceives, heard);
        verdicts.insert(Check::AcceptorLearner, learned);
        self.go_on()?;
        verdicts.insert(Check::LeaderKnows, leader_knows(self.roster, &self.watch()));
        self.go_on()?;
        Ok(Check::ALL.into_iter().filter_map(|check| verdicts.remove(&check)).collect())
    }

    fn go_on(&self) -> Result<(), Interrupted> {
        match self.nodes.interrupted() {
            true => Err(Interrupted(format!("{PREFIX}{}/", self.run))),
            false => Ok(()),
        }
    }

    /// Looks again until it is as it should be, the time is up, or the user wants no more.
    fn settle(&self, limit: Duration, mut look: impl FnMut() -> bool) {
        let look = || {
            let settled = look() || self.nodes.interrupted();
            Ok::<_, std::convert::Infallible>(settled.then_some(()))
        };
        let _settled_or_not = until(limit, LOOK_EVERY, look);
    }

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

    /// The newest events of recorders, each back to its mark; without one, all that is kept.
    fn recordings(
        &self,
        names: &[&str],
        marks: &BTreeMap<String, Option<Mark>>,
    ) -> BTreeMap<String, Recording> {
        let (mut recordings, mut names) = (BTreeMap::new(), names.to_vec());
        let mut lines = EVENTS_FIRST;
        loop {
            let asked = self.each(&names, &format!("{RECORDER} --lines {lines}"));
            for (name, asked) in asked {
                let recording = recording(&asked);
                let mark = marks.get(&name).copied().flatten().flatten();
                let is_enough = lines >= LOG_LINES_MAX
                    || recording.as_ref().map_or(true, |events| reaches(events, mark));
                if is_enough {
                    names.retain(|other| *other != name);
                    recordings.insert(name, recording);
                }
            }
            if names.is_empty() || lines >= LOG_LINES_MAX {
                return recordings;
            }
            lines = lines.saturating_mul(EVENTS_MORE).min(LOG_LINES_MAX);
        }
    }

    /// What recorders keep of phase 1 and of who led.
    fn histories(&self, names: &[&str]) -> BTreeMap<String, Recording> {
        let mut histories: BTreeMap<String, Recording> = BTreeMap::new();
        for word in HISTORY {
            let command = format!("{RECORDER} --lines {LOG_LINES_MAX} --grep {word}");
            for (name, asked) in self.each(names, &command) {
                let history = histories.entry(name).or_insert_with(|| Ok(Vec::new()));
                match (&mut *history, recording(&asked)) {
                    (Ok(events), Ok(more)) => events.extend(more),
                    (Ok(_), Err(error)) => *history = Err(error),
                    (Err(_), _) => {}
                }
            }
        }
        for events in histories.values_mut().flatten() {
            events.sort_by_key(|event| event.seq);
        }
        histories
    }

    /// Where each recorder ends now; none of those that cannot be read.
    fn marks(&self, names: &[&str]) -> BTreeMap<String, Option<Mark>> {
        let asked = self.each(names, &format!("{RECORDER} --lines 1"));
        let mark = |asked: &Asked| recording(asked).and_then(|events| mark(&events)).ok();
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

    /// Moves leadership while requests are under way at other nodes. Where it moves within a
    /// millisecond, none may happen to be just then, and nothing is shown: it is moved again.
    fn hand_over(&self) -> Moved {
        for _ in 1..HAND_OVERS_MAX {
            let moved = self.hand_over_once();
            // What went wrong once is not tried again until it does not.
            if moved.is_telling || !moved.elected.pass || self.nodes.interrupted() {
                return moved;
            }
        }
        self.hand_over_once()
    }

    fn hand_over_once(&self) -> Moved {
        let mut hand_over = HandOver { before: self.leader(), ..HandOver::default() };
        let only = self.roster.sole_proposer();
        let marks = match only {
            None => self.marks(&self.proposers()),
            // Its one election is all that there is to see.
            Some(_) => BTreeMap::new(),
        };
        if let Some(before) = hand_over.before.clone() {
            hand_over.refused = only.is_none().then(|| self.obstacle(&before)).flatten();
            if let Some(why) = &hand_over.refused {
                let waited = no_leader(self.roster, &hand_over);
                let mut findings = Findings::default();
                findings.wrong(why);
                let elected = findings.verdict(Check::Election);
                return Moved { waited, elected, is_new: false, is_telling: true };
            }
            let command = match only {
                None => format!("paxos leader resign --timeout {}s", REQUEST_LIMIT.as_secs()),
                Some(_) => "paxos leader".to_owned(),
            };
            let ask = Ask { node: before.clone(), command };
            let limit = REQUEST_LIMIT + ROUND_TRIP;
            let done = self.nodes.ask_meanwhile(&ask, &self.streams(&before), limit);
            (hand_over.requests, hand_over.unreached) = (done.requests, done.unreached);
            if only.is_none() {
                (hand_over.resigned, hand_over.span) = (Some(done.asked), done.span);
            }
        }
        let mut elected = election(self.roster, &Campaigns::default());
        self.settle(self.pace.settle, || {
            let campaigns = self.campaigns(hand_over.before.clone(), &marks);
            hand_over.after = leader(&campaigns.statuses);
            elected = election(self.roster, &campaigns);
            elected.pass
        });
        let waited = no_leader(self.roster, &hand_over);
        let (is_new, is_telling) = (hand_over.moved(), hand_over.is_telling());
        Moved { waited, elected, is_new, is_telling }
    }

    /// Why this leader must not resign, if nobody could be elected in its place: what is down now
    /// may leave enough to write and too little to elect, and a check takes no cluster down.
    fn obstacle(&self, before: &str) -> Option<String> {
        match self.statuses(&[before]).remove(before) {
            Some(Ok(status)) => {
                let quorum = &status.quorum;
                let (reached, all, needed) = (quorum.reachable, quorum.acceptors, quorum.phase1);
                (reached < needed).then(|| {
                    format!(
                        "{before} was not asked to resign: it reaches {reached} of {all} \
                         acceptors, and an election needs promises of {needed}; start the others"
                    )
                })
            }
            Some(Err(error)) => Some(format!(
                "{before} was not asked to resign, for it does not say whom it reaches: {error}"
            )),
            None => None,
        }
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
        let mut recordings = self.recordings(&self.proposers(), marks);
        for (name, mark) in marks {
            let Some(recording) = recordings.get_mut(name) else { continue };
            match (&mut *recording, mark) {
                (Ok(events), Some(mark)) => *recording = after(events, *mark),
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
        self.settle(self.pace.watch, || {
            watch.writes.push(self.request(&leader, &format!("put {key} {}", watch.writes.len())));
            for (name, status) in self.statuses(&names) {
                let state = status.map(|status| (status.state, status.leader));
                watch.states.entry(name).or_default().push(state);
            }
            for (name, asked) in self.each(&names, "paxos metrics") {
                watch.elections.entry(name).or_default().push(elections(&asked));
            }
            watch.span = begun.elapsed();
            false
        });
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
        let before = self.chosen(&leader);
        probe.write = self.request(&leader, &format!("put {key} {}", probe.value));
        if !probe.write.done() {
            return self.judge(&probe);
        }
        // Both ends are fixed before the first look: others go on writing, and a learner need not
        // have learned what was proposed a moment ago.
        self.settle(self.pace.settle, || {
            let slots = before.zip(self.chosen(&leader)).map(|(before, last)| (before + 1, last));
            probe.slots = slots.filter(|(first, last)| first <= last);
            probe.slots.is_some()
        });
        let voters: BTreeSet<&str> =
            self.roster.acceptors().map(|node| &*node.name).chain([&*leader]).collect();
        let voters: Vec<&str> = voters.into_iter().collect();
        let mut verdicts = self.judge(&probe);
        self.settle(self.pace.settle, || {
            probe.history = self.histories(&voters);
            probe.recordings = self.recordings(&everybody, &probe.marks);
            probe.statuses = self.statuses(&everybody);
            probe.reads = self.each(&learners, &format!("paxos get {key} --consistency local"));
            verdicts = self.judge(&probe);
            verdicts.iter().all(|verdict| verdict.pass)
        });
        verdicts
    }

    /// The end of what the node knows to be chosen.
    fn chosen(&self, node: &str) -> Option<u64> {
        let status = self.statuses(&[node]).remove(node)?;
        Some(status.ok()?.chosen_slot)
    }

    fn judge(&self, probe: &Probe) -> [Verdict; 3] {
        [
            proposer_acceptor(self.roster, probe),
            acceptor_receives(self.roster, probe),
            acceptor_learner(self.roster, probe),
        ]
    }

    /// Notes what earlier runs left, which is deleted with what this one writes. A run that goes on
    /// meanwhile writes its keys anew.
    fn find_earlier(&self) {
        let command = format!("paxos list {PREFIX} --keys-only --limit {EARLIER_MAX}");
        let listed = self.each(&self.proposers(), &command);
        let lines = listed.values().find(|asked| asked.done()).map_or("", |asked| &*asked.stdout);
        // What a shell or a terminal would not take as it is was not written here.
        let plain = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
        let keys = lines.lines().filter(|key| key.starts_with(PREFIX) && key.chars().all(plain));
        self.keys.borrow_mut().extend(keys.map(str::to_owned));
    }

    /// Deletes what was written. A key that stays does no harm, and the next run deletes it.
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
        for asks in asks.chunks(DELETES_AT_ONCE) {
            let _best_effort = self.nodes.ask(asks, REQUEST_LIMIT + ROUND_TRIP);
        }
    }
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
