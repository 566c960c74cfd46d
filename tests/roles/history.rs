//! Clients that a person could be: each holds a session of `ssh NODE paxos batch` and types one
//! request after another, on few keys that all of them use. What they asked and were told is
//! recorded; nothing inside the nodes is looked at.

use super::harness::{Cluster, Guarded};
use super::linearizable::{Event, Operation};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Keys that are in use at one time.
const KEYS: usize = 4;

/// What a request may take: longer than any change of leader.
const TIMEOUT: &str = "20s";

/// How hard the clients work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Each begins a request at most this often.
    pub every: Duration,
    /// Whether each node has a second client that only reads. One that also writes soon waits at a
    /// node that is cut off, and then nobody would see what that node still tells.
    pub readers: bool,
    /// Other numbers make other requests.
    pub seed: u64,
}

/// Clients at work.
pub struct Clients<'a> {
    cluster: &'a Cluster,
    pace: Pace,
    events: Mutex<Vec<Event>>,
    /// How many requests ended in an error that leaves nothing to check.
    refused: AtomicUsize,
    stop: AtomicBool,
    /// Which keys are in use: the history of one key must not grow too long for the search.
    round: AtomicUsize,
}

/// What was recorded.
pub struct Record {
    pub events: Vec<Event>,
    pub refused: usize,
}

/// How often a client that finds nobody doubles its wait. Ten of them that start an ssh each as
/// fast as they can take both processors from nodes that are reading their logs.
const DOUBLINGS_MAX: u32 = 6;

impl<'a> Clients<'a> {
    /// Runs a client at each of `nodes` while `faults` happen, and ends them.
    pub fn record(
        cluster: &'a Cluster,
        nodes: &[&'static str],
        faults: impl FnOnce(&Clients<'a>),
    ) -> Record {
        Clients::record_at(Pace::default(), cluster, nodes, faults)
    }

    /// The same, at that pace.
    pub fn record_at(
        pace: Pace,
        cluster: &'a Cluster,
        nodes: &[&'static str],
        faults: impl FnOnce(&Clients<'a>),
    ) -> Record {
        let clients = Clients {
            cluster,
            pace,
            events: Mutex::default(),
            refused: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            round: AtomicUsize::new(0),
        };
        std::thread::scope(|scope| {
            let each = if pace.readers { 2 } else { 1 };
            for number in 0..each * nodes.len() {
                let clients = &clients;
                scope.spawn(move || clients.client(number, nodes));
            }
            // Also when the faults panic; else the clients would be waited for in vain.
            let stop = StopOnDrop(&clients.stop);
            faults(&clients);
            drop(stop);
        });
        Record {
            events: clients.events.into_inner().expect("no client panicked"),
            refused: clients.refused.into_inner(),
        }
    }

    /// From now on other keys are used.
    pub fn next_keys(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    /// What all keys start with.
    pub const PREFIX: &'static str = "h";

    /// Requests that were answered so far.
    pub fn answered(&self) -> usize {
        let events = self.events.lock().expect("no client panics");
        events.iter().filter(|event| event.ended.is_some()).count()
    }

    /// One client: at its own node for as long as that is there, then at the next.
    fn client(&self, number: usize, nodes: &[&'static str]) {
        let mut draw = Draw(self.pace.seed.wrapping_mul(1 << 8) + number as u64 + 1);
        let mut requests = 0;
        let mut next = Instant::now();
        // What it last saw each key hold.
        let mut seen: Vec<Option<String>> = vec![None; KEYS];
        let mut in_vain = 0;
        for offset in 0.. {
            let node = nodes[(number + offset) % nodes.len()];
            let mut session = Session::open(self.cluster, node);
            // A session that was never there heard no request: there is nothing to be recorded.
            let mut is_there = session.ask("get greeting").is_some();
            in_vain = if is_there { 0 } else { in_vain + 1 };
            loop {
                while Instant::now() < next && !self.stop.load(Ordering::Relaxed) {
                    super::harness::pause();
                }
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                next = Instant::now() + self.pace.every * (1 << in_vain.min(DOUBLINGS_MAX));
                if !is_there {
                    break;
                }
                requests += 1;
                let at = draw.below(KEYS);
                let key = format!("{}{}/{at}", Clients::PREFIX, self.round.load(Ordering::Relaxed));
                let (line, mut operation) = if number < nodes.len() {
                    draw.request(&key, &format!("v{number}-{requests}"), &seen[at])
                } else {
                    (format!("get {key}"), Operation::Read(None))
                };
                let begun = Instant::now();
                let answer = session.ask(&line);
                let now = Instant::now();
                let known = match &answer {
                    Some(answer) => judge(&mut operation, answer),
                    None => Known::Perhaps,
                };
                if let (Known::Done, Operation::Read(found)) = (&known, &operation) {
                    seen[at].clone_from(found);
                }
                let ended = match known {
                    Known::Done => Some(now),
                    Known::Perhaps if !matches!(operation, Operation::Read(_)) => None,
                    _ => {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                        is_there = answer.is_some();
                        continue;
                    }
                };
                let event = Event { key, operation, begun, ended };
                self.events.lock().expect("no client panics").push(event);
                is_there = answer.is_some();
            }
        }
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

enum Known {
    /// It is known what happened, and part of the operation now.
    Done,
    Perhaps,
    NotApplied,
}

/// Puts what the node answered into the operation.
fn judge(operation: &mut Operation, answer: &serde_json::Value) -> Known {
    let is_ok = answer["ok"] == true;
    match (answer["error"]["code"].as_str(), operation) {
        (Some("unknown_outcome"), _) => return Known::Perhaps,
        (Some("no_quorum" | "busy"), _) => return Known::NotApplied,
        (None, Operation::Read(found)) if is_ok => {
            *found = Some(answer["value"].as_str().expect("we wrote text").to_owned());
        }
        (Some("not_found"), Operation::Read(found)) => *found = None,
        (None, Operation::Write(_)) if is_ok => {}
        (None, Operation::WriteIf { told, .. } | Operation::Delete { told }) if is_ok => {
            *told = Some(true);
        }
        (Some("condition_failed"), Operation::WriteIf { told, .. })
        | (Some("not_found"), Operation::Delete { told }) => *told = Some(false),
        (_, operation) => panic!("{operation:?} was answered with {answer}"),
    }
    Known::Done
}

/// A long-running `ssh NODE paxos batch`.
struct Session {
    _ssh: Guarded,
    lines: Option<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Session {
    fn open(cluster: &Cluster, node: &str) -> Session {
        let mut command = cluster.ssh_with(&cluster.ssh_config());
        command.args(["-o", "ConnectTimeout=10", node, "paxos", "batch", "--timeout", TIMEOUT]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut ssh = Guarded(command.spawn().expect("ssh starts"));
        let stdin = ssh.0.stdin.take().expect("it was piped");
        let stdout = ssh.0.stdout.take().expect("it was piped");
        Session { _ssh: ssh, lines: Some((stdin, BufReader::new(stdout).lines())) }
    }

    /// The answer; none if the session ended instead, and then for ever.
    fn ask(&mut self, line: &str) -> Option<serde_json::Value> {
        let (stdin, stdout) = self.lines.as_mut()?;
        let answer = stdin
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| stdin.flush())
            .ok()
            .and_then(|()| stdout.next()?.ok());
        match answer {
            Some(text) => match serde_json::from_str(&text) {
                Ok(answer) => Some(answer),
                Err(error) => panic!("this is no answer ({error}): {text}"),
            },
            None => {
                self.lines = None;
                None
            }
        }
    }
}

/// The same draws for the same client in every run; what they meet is different every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX generator; its upper bits are good enough to mix requests.
        const FACTOR: u64 = 6_364_136_223_846_793_005;
        const SUMMAND: u64 = 1_442_695_040_888_963_407;
        self.0 = self.0.wrapping_mul(FACTOR).wrapping_add(SUMMAND);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    /// A line for the batch, and what it asks: half of them read, and a quarter has a condition.
    fn request(&mut self, key: &str, value: &str, seen: &Option<String>) -> (String, Operation) {
        let value = value.to_owned();
        match self.below(16) {
            0..=7 => (format!("get {key}"), Operation::Read(None)),
            8..=10 => (format!("put {key} {value}"), Operation::Write(value)),
            11..=14 => {
                let condition = match seen {
                    Some(seen) => format!("--if-value {seen}"),
                    None => "--if-absent".to_owned(),
                };
                let line = format!("put {key} {value} {condition}");
                (line, Operation::WriteIf { holds: seen.clone(), value, told: None })
            }
            _ => (format!("delete {key}"), Operation::Delete { told: None }),
        }
    }
}
