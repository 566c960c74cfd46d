//! Clients of a cluster that is taken through its life: each asks one thing after the other, of a
//! few keys that all of them use, for as long as nobody tells them that it is enough.
//!
//! A request that is not answered is asked again, under the same request id, by the same way over
//! another node. One that is not answered within [`PATIENCE`] is given up, and recorded as one of
//! which nobody knows what became.

use super::record::{Asked, Line};
use super::ways::{Library, Program, Request, Session, Way};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Keys that are in use at one time.
const KEYS: u64 = 3;

/// After this time other keys are used: the history of one must not grow too long for the search.
const ROUND: Duration = Duration::from_secs(5);

/// Each client begins a request at most this often: often enough to see a pause, rare enough to
/// leave two processors to seven nodes.
const EVERY: Duration = Duration::from_millis(100);

/// One that logs in for each request: each is three processes and two handshakes.
const LOGIN_EVERY: Duration = Duration::from_secs(1);

/// A request that is not answered by then has failed. Longer than it takes seven nodes that were
/// all cut off to find each other again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries of one request.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// What all of them have in common.
pub struct Clients {
    /// The nodes, as the ssh_config names them.
    pub nodes: Vec<String>,
    pub config: PathBuf,
    /// They end when this file is there.
    pub enough: PathBuf,
    begun: Instant,
    record: Mutex<File>,
}

impl Clients {
    /// # Panics
    /// When the record cannot be made.
    pub fn new(nodes: Vec<String>, config: PathBuf, enough: PathBuf, record: &Path) -> Clients {
        let record = File::create(record).expect("the record can be made");
        Clients { nodes, config, enough, begun: Instant::now(), record: Mutex::new(record) }
    }

    /// Runs them until it is enough, and reads what each node holds in the end.
    pub fn run(&self) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.expect("a thread can be started"));
        let library = |first| -> Box<dyn Way> {
            Box::new(Library::new(Arc::clone(&runtime), self.config.clone(), self.from(first)))
        };
        let session = |first| -> Box<dyn Way> {
            Box::new(Session::new(self.config.clone(), self.from(first)))
        };
        let program = |first| -> Box<dyn Way> {
            Box::new(Program { config: self.config.clone(), nodes: self.from(first) })
        };
        let ways = [
            ("library", EVERY, library(0)),
            ("library", EVERY, library(3)),
            ("ssh", EVERY, session(1)),
            ("ssh", EVERY, session(4)),
            ("ssh", EVERY, session(6)),
            ("paxos", LOGIN_EVERY, program(2)),
        ];
        std::thread::scope(|scope| {
            for (number, (kind, every, way)) in ways.into_iter().enumerate() {
                // A bastion turns some away when all come at once.
                rest(EVERY);
                let name = format!("{kind}-{number}");
                scope.spawn(move || self.client(number, &name, every, way));
            }
        });
        let rounds = self.round() + 1;
        for (at, node) in self.nodes.iter().enumerate() {
            let own = vec![self.nodes[at].clone()];
            let mut way = Library::new(Arc::clone(&runtime), self.config.clone(), own);
            for key in (0..rounds).flat_map(|round| (0..KEYS).map(move |at| key(round, at))) {
                let read = Request { key, asked: Asked::Get { found: None }, id: String::new() };
                let line = self.until_answered(&format!("{node} in the end"), &read, &mut way);
                assert!(line.ended.is_some(), "{node} does not say what it holds: {line:?}");
                self.note(&line);
            }
        }
    }

    /// All nodes, this one first.
    fn from(&self, first: usize) -> Vec<String> {
        let mut nodes = self.nodes.clone();
        let first = first % nodes.len();
        nodes.rotate_left(first);
        nodes
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).expect("less than an age")
    }

    fn round(&self) -> u64 {
        self.begun.elapsed().as_secs() / ROUND.as_secs()
    }

    fn client(&self, number: usize, name: &str, every: Duration, mut way: Box<dyn Way>) {
        let mut seen: Option<(String, Option<String>)> = None;
        for turn in 0_u64.. {
            let next = Instant::now() + every;
            if self.enough.exists() {
                return;
            }
            let pair = turn / 2;
            let key = key(self.round(), (pair + number as u64) % KEYS);
            let held = seen.take().filter(|(seen, _)| *seen == key).map(|(_, held)| held);
            let value = format!("v{number}-{turn}");
            // A read, then a write that goes by what was read; every third time two that do not.
            let asked = match (held, pair % 3) {
                (Some(holds), _) => Asked::PutIf { holds, value, told: None },
                (None, 0) => Asked::Put { value },
                (None, _) => Asked::Get { found: None },
            };
            let request = Request { key, asked, id: format!("{name}-{turn}") };
            let line = self.until_answered(name, &request, way.as_mut());
            if let (Asked::Get { found }, Some(_)) = (&line.asked, line.ended) {
                seen = Some((line.key.clone(), found.clone()));
            }
            // Of a read without an answer there is nothing to be told.
            if line.ended.is_some() || !matches!(line.asked, Asked::Get { .. }) {
                self.note(&line);
            }
            rest(next.saturating_duration_since(Instant::now()));
        }
    }

    fn until_answered(&self, client: &str, request: &Request, way: &mut dyn Way) -> Line {
        let deadline = Instant::now() + PATIENCE;
        let mut line = Line {
            client: client.to_owned(),
            key: request.key.clone(),
            asked: request.asked.clone(),
            begun: self.now(),
            ended: None,
            again: 0,
            trouble: None,
        };
        loop {
            match way.ask(request) {
                Ok(asked) => {
                    line.asked = asked;
                    line.ended = Some(self.now());
                    return line;
                }
                Err(why) => line.trouble = Some(why),
            }
            if Instant::now() + TRY_AGAIN_AFTER >= deadline {
                return line;
            }
            line.again += 1;
            way.turn_away();
            rest(TRY_AGAIN_AFTER);
        }
    }

    fn note(&self, line: &Line) {
        let mut text = serde_json::to_string(line).expect("it is plain data");
        text.push('\n');
        let mut record = self.record.lock().expect("no client panics while it writes");
        record.write_all(text.as_bytes()).expect("the record can be written");
    }
}

fn key(round: u64, at: u64) -> String {
    format!("life/{round}/{at}")
}

#[expect(clippy::disallowed_methods, reason = "a client's pace, which waits for nothing")]
fn rest(pause: Duration) {
    std::thread::sleep(pause);
}
