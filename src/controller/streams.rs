//! Commands for nodes over SSH, and requests that keep coming at some of them meanwhile.
//!
//! Requests go through `paxos batch`: one connection for all of a node's, many on their way at
//! once, each with its own answer.

use super::observe::{Asker, Contact, ROUND_TRIP, Said, say};
use super::verdict::{Asked, Timed};
use super::verify::{Ask, Meanwhile, Nodes, Stream};
use crate::client::door::{ChannelEvent, Door, TalkInput, TalkOutput};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between two requests at a node: a few fall into even a short election.
const REQUEST_EVERY: Duration = Duration::from_millis(5);

/// Requests of one stream, so that a hand-over that hangs does not fill the cluster.
const REQUESTS_MAX: usize = 2000;

/// Requests of one stream that are on their way at once, which is all of them.
const WINDOW: usize = 256;

/// A node that did not answer once is not waited for longer than this again.
const SILENT_LIMIT: Duration = Duration::from_secs(1);

/// So long streams may take to begin, before the command goes out without those that did not.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

/// The nodes of an inventory, asked as its operator.
pub struct Reached {
    asker: Asker,
    contacts: BTreeMap<String, Contact>,
    /// Nodes that did not answer when they were asked last.
    silent: RefCell<BTreeSet<String>>,
}

impl Reached {
    /// Asks these.
    pub fn new(asker: Asker, contacts: impl IntoIterator<Item = Contact>) -> Reached {
        let contacts = contacts.into_iter().map(|node| (node.name.clone(), node)).collect();
        Reached { asker, contacts, silent: RefCell::default() }
    }

    fn door(&self, node: &str) -> Option<Door> {
        self.contacts.get(node).map(|contact| self.asker.door(contact))
    }

    /// The limit, or a short one for a node that did not answer the last time.
    fn patience(&self, node: &str, limit: Duration) -> Duration {
        match self.silent.borrow().contains(node) {
            true => limit.min(SILENT_LIMIT),
            false => limit,
        }
    }

    async fn one(&self, ask: &Ask, limit: Duration) -> Asked {
        let begun = Instant::now();
        let limit = self.patience(&ask.node, limit);
        let said = match self.door(&ask.node) {
            Some(door) => say(&door, &ask.command, limit).await,
            None => Err("no such node is known".to_owned()),
        };
        match &said {
            Ok(_) => self.silent.borrow_mut().remove(&ask.node),
            Err(_) => self.silent.borrow_mut().insert(ask.node.clone()),
        };
        let said =
            said.unwrap_or_else(|error| Said { stderr: error.into_bytes(), ..Said::default() });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Asked {
            node: ask.node.clone(),
            command: ask.command.clone(),
            exit: said.exit,
            stdout: text(&said.stdout),
            stderr: text(&said.stderr),
            took: begun.elapsed(),
        }
    }
}

impl Nodes for Reached {
    fn ask(&self, asks: &[Ask], limit: Duration) -> Vec<Asked> {
        let asked = futures::future::join_all(asks.iter().map(|ask| self.one(ask, limit)));
        self.asker.run(asked)
    }

    fn ask_meanwhile(&self, ask: &Ask, streams: &[Stream], limit: Duration) -> Meanwhile {
        let begun = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let (began, mut beginnings) = mpsc::channel(streams.len().max(1));
        let flow = |stream: &Stream| {
            let door = self.door(&stream.node);
            let (node, key) = (stream.node.clone(), stream.key.clone());
            let begin = self.patience(&node, BEGIN_LIMIT);
            let (stopped, sent) = (stopped.clone(), RefCell::default());
            let flow = Flow { begun, begin, limit, stopped, sent };
            let began = began.clone();
            async move {
                let requests = match door {
                    Some(door) => flow.run(&door, &key, began).await,
                    None => vec![unanswered(begun.elapsed(), "no such node is known")],
                };
                (node, requests)
            }
        };
        let flows = futures::future::join_all(streams.iter().map(flow));
        drop(began);
        let command = async {
            // Ends when each stream has had its first answer or is over.
            let all = async { while beginnings.recv().await.is_some() {} };
            let _without_the_others = timeout(BEGIN_LIMIT, all).await;
            let from = begun.elapsed();
            let asked = self.one(ask, limit).await;
            let span = (from, begun.elapsed());
            // Nobody listens any more if all streams broke.
            let _all_broke = stop.send(true);
            (asked, span)
        };
        let (flows, (asked, span)) =
            self.asker.run(async { futures::future::join(flows, command).await });
        Meanwhile { asked, span, requests: flows.into_iter().collect() }
    }
}

fn unanswered(sent: Duration, why: &str) -> Timed {
    Timed { sent, answered: None, ok: false, text: why.to_owned() }
}

/// The requests of one stream.
struct Flow {
    begun: Instant,
    /// So long the way to the node may take.
    begin: Duration,
    /// What each may take.
    limit: Duration,
    stopped: watch::Receiver<bool>,
    sent: RefCell<Vec<Timed>>,
}

/// The fields of an answer in a batch that matter here.
#[derive(Deserialize)]
struct Line {
    id: String,
    ok: bool,
    #[serde(default)]
    error: Option<LineError>,
}

#[derive(Deserialize)]
struct LineError {
    code: String,
    message: String,
}

impl Flow {
    async fn run(self, door: &Door, key: &str, began: mpsc::Sender<()>) -> Vec<Timed> {
        let millis = self.limit.as_millis();
        let command = format!("paxos batch --window {WINDOW} --timeout {millis}ms");
        let talk = match door.ask(command.as_bytes(), self.begin).await {
            Ok(talk) => talk,
            Err(error) => return vec![unanswered(self.begun.elapsed(), &error.to_string())],
        };
        let (mut input, mut output) = (talk.input, talk.output);
        let ((), why) = futures::join!(self.send(&mut input, key), self.read(&mut output, began));
        let mut requests = self.sent.into_inner();
        for request in requests.iter_mut().filter(|request| request.answered.is_none()) {
            request.text.clone_from(&why);
        }
        requests
    }

    /// Sends until it is told to stop, and once more after that.
    async fn send(&self, input: &mut TalkInput, key: &str) {
        let mut stopped = self.stopped.clone();
        let mut pace = interval(REQUEST_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..REQUESTS_MAX {
            let last = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => true,
                _ = pace.tick() => false,
            };
            let line = match number % 2 {
                0 => format!("@{number} put {key} {number}\n"),
                _ => format!("@{number} get {key}\n"),
            };
            self.sent.borrow_mut().push(unanswered(self.begun.elapsed(), ""));
            if input.send(line.into_bytes().into()).await.is_err() || last {
                break;
            }
        }
        // What the other side says tells more.
        let _gone = input.end().await;
    }

    /// Reads answers to the end; says why the last ones did not come.
    async fn read(&self, output: &mut TalkOutput, began: mpsc::Sender<()>) -> String {
        let (mut waiting, mut errors, mut began) = (Vec::new(), Vec::new(), Some(began));
        let mut stopped = self.stopped.clone();
        let overdue = async {
            let _senders_end = stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(self.limit + ROUND_TRIP).await;
        };
        let mut overdue = std::pin::pin!(overdue);
        loop {
            let event = tokio::select! {
                event = output.next() => event,
                () = &mut overdue => return format!("no answer within {:?}", self.limit),
            };
            match event {
                ChannelEvent::Stdout(bytes) => waiting.extend_from_slice(&bytes),
                ChannelEvent::Stderr(bytes) => errors.extend_from_slice(&bytes),
                ChannelEvent::Exit(_) => {}
                ChannelEvent::Closed(reason) => {
                    let said = String::from_utf8_lossy(&errors);
                    return format!("{reason} {}", said.trim());
                }
            }
            while let Some(end) = waiting.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = waiting.drain(..=end).collect();
                self.answered(&line);
                drop(began.take());
            }
        }
    }

    fn answered(&self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { return };
        let Ok(number) = line.id.parse::<usize>() else { return };
        let mut sent = self.sent.borrow_mut();
        let Some(request) = sent.get_mut(number) else { return };
        request.answered = Some(self.begun.elapsed());
        // A key that is not there yet is an answer as good as any.
        request.ok = line.ok || line.error.as_ref().is_some_and(|error| error.code == "not_found");
        if let Some(error) = line.error {
            request.text = format!("{} ({})", error.message, error.code);
        }
    }
}
