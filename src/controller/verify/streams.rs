//! Commands for nodes over SSH, and requests that keep coming at some of them meanwhile.
//!
//! Requests go through `paxos batch`: one connection for all of a node's, some on their way at all
//! times, each with its own answer. The command that goes out meanwhile finds its connection open,
//! too, and each stream sends some more requests just before it.

use super::hand_over::Timed;
use super::verdict::Asked;
use super::{Ask, Meanwhile, Nodes, Stream};
use crate::client::door::{ChannelEvent, Door, Talk, TalkInput, TalkOutput};
use crate::controller::observe::{Asker, Contact, ROUND_TRIP, Said, say};
use crate::wire::failure::Code;
use serde::Deserialize;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

/// Requests of one stream that are under way at all times, a write and a read: the next goes out
/// when one is answered. So some are, however short an election is.
const OPEN_MAX: usize = 2;

/// Requests of one stream: as many as go through in the time that a hand-over may take.
const REQUESTS_MAX: usize = 20_000;

/// Requests that each stream sends just before the command: so many that the last of them reach
/// the leader after it, whose way is shorter.
const TOPS: usize = 8;

/// Requests of one stream that a node works on at once: all of these, and one after the command.
const WINDOW: usize = OPEN_MAX + TOPS + 1;

/// A node that did not answer once is not waited for longer than this again.
const SILENT_LIMIT: Duration = Duration::from_secs(1);

/// So long streams may take to begin, before the command goes out without those that did not.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

/// So long streams may take to send these.
const TOP_LIMIT: Duration = Duration::from_secs(1);

/// The nodes of an inventory, asked as its operator.
pub struct Reached {
    asker: Asker,
    contacts: BTreeMap<String, Contact>,
    /// Nodes that did not answer when they were asked last.
    silent: RefCell<BTreeSet<String>>,
    /// Whether the user wants no more.
    interrupted: Arc<AtomicBool>,
}

impl Reached {
    /// Asks these.
    pub fn new(asker: Asker, contacts: impl IntoIterator<Item = Contact>) -> Reached {
        let contacts = contacts.into_iter().map(|node| (node.name.clone(), node)).collect();
        let interrupted = asker.heed_interrupts();
        Reached { asker, contacts, silent: RefCell::default(), interrupted }
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

    /// A way to the node on which one command goes out later.
    async fn open(&self, node: &str, limit: Duration) -> Result<Talk, String> {
        let door = self.door(node).ok_or("no such node is known")?;
        let command = format!("paxos batch --window 1 --timeout {}ms", limit.as_millis());
        door.ask(command.as_bytes(), BEGIN_LIMIT).await.map_err(|error| error.to_string())
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

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn ask_meanwhile(&self, ask: &Ask, streams: &[Stream], limit: Duration) -> Meanwhile {
        let begun = Instant::now();
        let (stage, stages) = watch::channel(Stage::Flow);
        let (began, mut beginnings) = mpsc::channel(streams.len().max(1));
        let (topped, mut toppings) = mpsc::channel(streams.len().max(1));
        let flow = |stream: &Stream| {
            let door = self.door(&stream.node);
            let (node, key) = (stream.node.clone(), stream.key.clone());
            let begin = self.patience(&node, BEGIN_LIMIT);
            let flow = Flow {
                begun,
                begin,
                limit,
                stages: stages.clone(),
                sent: RefCell::default(),
                open: Cell::default(),
                room: Notify::new(),
            };
            let (began, topped) = (began.clone(), topped.clone());
            async move {
                let requests = match door {
                    Some(door) => flow.run(&door, &key, began, topped).await,
                    None => Err("no such node is known".to_owned()),
                };
                (node, requests)
            }
        };
        let flows = futures::future::join_all(streams.iter().map(flow));
        drop((began, topped));
        let command = async {
            let talk = self.open(&ask.node, limit).await;
            // Each ends when all streams have come so far or are over.
            let all = async { while beginnings.recv().await.is_some() {} };
            let _without_the_others = timeout(BEGIN_LIMIT, all).await;
            // Fails if all streams broke, and then nobody listens.
            let _all_broke = stage.send(Stage::Ask);
            let all = async { while toppings.recv().await.is_some() {} };
            let _without_the_others = timeout(TOP_LIMIT, all).await;
            let from = begun.elapsed();
            let asked = over(talk, ask, limit).await;
            let span = (from, begun.elapsed());
            let _all_broke = stage.send(Stage::Over);
            (asked, span)
        };
        let (flows, (asked, span)) =
            self.asker.run(async { futures::future::join(flows, command).await });
        let mut meanwhile = Meanwhile { asked, span, ..Meanwhile::default() };
        for (node, requests) in flows {
            match requests {
                Ok(requests) => _ = meanwhile.requests.insert(node, requests),
                Err(why) => _ = meanwhile.unreached.insert(node, why),
            }
        }
        meanwhile
    }
}

/// The one command of a batch whose way to the node stands already, so that the time which it takes
/// is that of the command alone.
async fn over(talk: Result<Talk, String>, ask: &Ask, limit: Duration) -> Asked {
    let begun = Instant::now();
    let (node, command) = (ask.node.clone(), ask.command.clone());
    let mut asked = Asked { node, command, ..Asked::default() };
    let line = async {
        let Talk { mut input, mut output } = talk?;
        let words = ask.command.strip_prefix("paxos ").unwrap_or(&ask.command);
        // What the other side says tells more.
        let _gone = input.send(format!("@0 {words}\n").into_bytes().into()).await;
        let mut said = Vec::new();
        loop {
            match output.next().await {
                ChannelEvent::Stdout(bytes) => said.extend_from_slice(&bytes),
                ChannelEvent::Stderr(bytes) => {
                    return Err(String::from_utf8_lossy(&bytes).into_owned());
                }
                ChannelEvent::Exit(_) => {}
                ChannelEvent::Closed(reason) => return Err(reason),
            }
            if said.ends_with(b"\n") {
                return Ok(String::from_utf8_lossy(&said).into_owned());
            }
        }
    };
    let said = timeout(limit, line).await;
    let said = said.unwrap_or_else(|_| Err(format!("it did not answer within {limit:?}")));
    match said {
        Ok(said) => {
            let line: Option<Line> = serde_json::from_str(&said).ok();
            let exit = |error: &LineError| Code::from_name(&error.code).map(Code::exit);
            asked.exit = line.and_then(|line| match (line.ok, &line.error) {
                (true, _) => Some(0),
                (false, error) => error.as_ref().and_then(exit).map(u32::from),
            });
            asked.stdout = said;
        }
        Err(why) => asked.stderr = why,
    }
    asked.took = begun.elapsed();
    asked
}

fn unanswered(sent: Duration) -> Timed {
    Timed { sent, answered: None, ok: false, text: String::new() }
}

/// How far the command is, for the streams beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It was not sent.
    Flow,
    /// It goes out as soon as each stream has sent some requests more, which reach the cluster at
    /// about the same time.
    Ask,
    /// It was answered.
    Over,
}

/// The requests of one stream.
struct Flow {
    begun: Instant,
    /// So long the way to the node may take.
    begin: Duration,
    /// What each may take.
    limit: Duration,
    stages: watch::Receiver<Stage>,
    sent: RefCell<Vec<Timed>>,
    /// How many of them are not answered.
    open: Cell<usize>,
    /// Told of each answer.
    room: Notify,
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
    /// Fails if no request could be sent at all.
    async fn run(
        self,
        door: &Door,
        key: &str,
        began: mpsc::Sender<()>,
        topped: mpsc::Sender<()>,
    ) -> Result<Vec<Timed>, String> {
        let millis = self.limit.as_millis();
        let command = format!("paxos batch --window {WINDOW} --timeout {millis}ms");
        let talk = door.ask(command.as_bytes(), self.begin).await;
        let Talk { mut input, mut output } = talk.map_err(|error| error.to_string())?;
        let ((), why) =
            futures::join!(self.send(&mut input, key, topped), self.read(&mut output, began));
        let mut requests = self.sent.into_inner();
        if requests.is_empty() {
            return Err(why);
        }
        for request in requests.iter_mut().filter(|request| request.answered.is_none()) {
            request.text.clone_from(&why);
        }
        Ok(requests)
    }

    /// Keeps requests under way until it is told to stop, and sends one more then.
    async fn send(&self, input: &mut TalkInput, key: &str, topped: mpsc::Sender<()>) {
        let (mut topped, mut left) = (Some(topped), TOPS);
        for number in 0..REQUESTS_MAX {
            let stage = self.turn(left > 0).await;
            let line = match number % 2 {
                0 => format!("@{number} put {key} {number}\n"),
                _ => format!("@{number} get {key}\n"),
            };
            self.sent.borrow_mut().push(unanswered(self.begun.elapsed()));
            self.open.set(self.open.get() + 1);
            if input.send(line.into_bytes().into()).await.is_err() {
                // It was never sent.
                self.sent.borrow_mut().pop();
                break;
            }
            match stage {
                Stage::Flow => {}
                Stage::Ask => {
                    left = left.saturating_sub(1);
                    if left == 0 {
                        drop(topped.take());
                    }
                }
                Stage::Over => break,
            }
        }
        // What the other side says tells more.
        let _gone = input.end().await;
    }

    /// Waits until the next request is to be sent, which is at once where one more is wanted.
    async fn turn(&self, more: bool) -> Stage {
        let mut stages = self.stages.clone();
        loop {
            let stage = *stages.borrow_and_update();
            let wanted = match stage {
                Stage::Flow => false,
                Stage::Ask => more,
                Stage::Over => true,
            };
            if wanted || self.open.get() < OPEN_MAX {
                return stage;
            }
            tokio::select! {
                changed = stages.changed() => if changed.is_err() {
                    return Stage::Over;
                },
                () = self.room.notified() => {}
            }
        }
    }

    /// Reads answers to the end; says why the last ones did not come.
    async fn read(&self, output: &mut TalkOutput, began: mpsc::Sender<()>) -> String {
        let (mut waiting, mut errors, mut began) = (Vec::new(), Vec::new(), Some(began));
        let mut stages = self.stages.clone();
        let overdue = async {
            let _senders_end = stages.wait_for(|stage| *stage == Stage::Over).await;
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
        let Some(request) = sent.get_mut(number).filter(|known| known.answered.is_none()) else {
            return;
        };
        request.answered = Some(self.begun.elapsed());
        self.open.set(self.open.get().saturating_sub(1));
        self.room.notify_one();
        // A key that is not there yet is an answer as good as any.
        request.ok = line.ok || line.error.as_ref().is_some_and(|error| error.code == "not_found");
        if let Some(error) = line.error {
            request.text = format!("{} ({})", error.message, error.code);
        }
    }
}
