//! What nodes wrote and recorded, merged in order of time: `paxos-ctl logs -f` and `--protocol`.
//!
//! Each node is asked over SSH, as an operator would, for one JSON object a line; they go through
//! one bounded queue to whoever shows them. What is followed is held back for a moment, because
//! nodes tell at different times what happened at one, and a node that goes away is asked again
//! until it is back. Wall clocks put lines in order and decide nothing.

use super::deploy::Cluster;
use super::inventory::NodeSpec;
use super::observe::{ASK_LIMIT, Contact};
use crate::client::door::{ChannelEvent, Door};
use crate::wire::event::{Moment, ProtocolEvent};
use crate::wire::failure::{Code, Failure};
use crate::wire::logs::LOG_LINES_MAX;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a line is held back for others that happened before it: longer than nodes wait before
/// they look for news.
const HOLD: Duration = Duration::from_millis(300);

/// How often held lines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Lines held back at most; beyond that the oldest go out at once.
const HELD_MAX: usize = 65_536;

/// Lines on their way from the nodes. A full queue holds the nodes back.
const QUEUE_LINES: usize = 1024;

/// The pause before a node that went away is asked again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The longest line of a node; more is no line of a log.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What to show.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// So many of the last lines of each node.
    pub lines: usize,
    /// The protocol's events instead of log files.
    pub protocol: bool,
    /// And what comes.
    pub follow: bool,
}

/// What one line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A line of a log file.
    Line(String),
    /// An event of the protocol.
    Event(Box<ProtocolEvent>),
}

/// A line of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLine {
    /// When, by the node's wall clock.
    pub at: Moment,
    /// The node's name.
    pub node: String,
    /// What.
    pub body: Body,
}

/// What comes out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A line.
    Line(NodeLine),
    /// Something about the showing itself: a node that cannot be asked.
    Trouble(String),
}

/// How the showing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was shown.
    Done,
    /// Whoever looked has seen enough.
    Unread,
    /// The user stopped it.
    Interrupted,
}

impl Cluster {
    /// Shows lines of the named nodes, or of all, merged in order of time. `show` answers whether
    /// to go on.
    ///
    /// # Errors
    /// When no node can be asked at all.
    pub fn merged_logs(
        &self,
        names: &[String],
        wish: Wish,
        show: &mut dyn FnMut(Shown) -> bool,
    ) -> Result<Ended, Failure> {
        let nodes = self.named(names)?;
        let asker = self.asker()?;
        let (sender, queue) = mpsc::channel(QUEUE_LINES);
        let source = |node: &&NodeSpec| Source {
            door: asker.door(&Contact::of(node)),
            node: node.name.clone(),
            wish,
            queue: sender.clone(),
            seen: Seen::default(),
            skip: Skip::Nothing,
            is_away: false,
        };
        let sources: Vec<Source> = nodes.iter().map(source).collect();
        drop(sender);
        let count = sources.len();
        asker.run(async move {
            let reading = futures::future::join_all(sources.into_iter().map(Source::run));
            let mut reading = std::pin::pin!(reading);
            let showing = merge(queue, wish.follow, show);
            let mut showing = std::pin::pin!(showing);
            let interrupted = tokio::signal::ctrl_c();
            let mut interrupted = std::pin::pin!(interrupted);
            let mut failures = Vec::new();
            let mut is_read = false;
            loop {
                tokio::select! {
                    read = &mut reading, if !is_read => {
                        is_read = true;
                        failures = read.into_iter().flatten().collect();
                    }
                    ended = &mut showing => {
                        let asked_in_vain = is_read && failures.len() == count;
                        return match asked_in_vain {
                            true => Err(nobody(&failures)),
                            false => Ok(ended),
                        };
                    }
                    _ = &mut interrupted => return Ok(Ended::Interrupted),
                }
            }
        })
    }
}

fn nobody(failures: &[String]) -> Failure {
    let message = format!("no node could be asked: {}", failures.join("; "));
    Failure::new(Code::NoQuorum, message, "see paxos-ctl status; start what is stopped: deploy")
}

/// The end of what was shown of a node.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The newest time that a line had.
    newest: Option<Moment>,
    /// The last line that had a time of its own.
    last: Option<Body>,
    /// How many came since that had none: a panic's, for example.
    untimed: usize,
}

impl Seen {
    fn note(&mut self, own: Option<Moment>, body: &Body) {
        match own {
            Some(_) => (self.last, self.untimed) = (Some(body.clone()), 0),
            None => self.untimed += 1,
        }
        self.newest = self.newest.max(own);
    }

    /// Whether what a node tells is newer by its own account: its time, or an event's number.
    fn is_older_than(&self, own: Option<Moment>, body: &Body) -> bool {
        let by_number = match (&self.last, body) {
            (Some(Body::Event(last)), Body::Event(event)) => event.seq > last.seq,
            _ => false,
        };
        own > self.newest || by_number
    }
}

/// What is left out of what a node tells again: up to the last line that was shown, and no line
/// more, for what a node said last before it died is what somebody looks for.
#[derive(Debug)]
enum Skip {
    /// Up to this.
    Until(Seen),
    /// So many lines without a time of their own.
    Untimed(usize),
    /// Nothing more.
    Nothing,
}

impl Skip {
    fn leaves_out(&mut self, own: Option<Moment>, body: &Body) -> bool {
        match self {
            Skip::Nothing => return false,
            Skip::Untimed(left) if own.is_none() && *left > 0 => {
                *left -= 1;
                return true;
            }
            Skip::Untimed(_) => {}
            Skip::Until(seen) if seen.is_older_than(own, body) => {}
            Skip::Until(seen) => {
                if seen.last.as_ref() == Some(body) {
                    *self = Skip::Untimed(seen.untimed);
                }
                return true;
            }
        }
        *self = Skip::Nothing;
        false
    }
}

/// One node that is read.
struct Source {
    door: Door,
    node: String,
    wish: Wish,
    queue: mpsc::Sender<Shown>,
    /// The end of what was passed on; a node that is asked again tells some of it twice.
    seen: Seen,
    skip: Skip,
    /// Said once for each time that it goes away.
    is_away: bool,
}

impl Source {
    /// Reads to the end, or for ever; answers why not, if the node could not be asked.
    async fn run(mut self) -> Option<String> {
        loop {
            let trouble = match self.read().await {
                Ok(()) if !self.wish.follow => return None,
                Ok(()) => "it ended the conversation".to_owned(),
                Err(reason) => reason,
            };
            let trouble = match self.wish.follow {
                false => format!("{}: {trouble}", self.node),
                true => format!(
                    "{}: following its log broke off ({trouble}); it is asked again every second; \
                     see paxos-ctl status",
                    self.node
                ),
            };
            if !std::mem::replace(&mut self.is_away, true) {
                let _nobody_looks = self.queue.send(Shown::Trouble(trouble.clone())).await;
            }
            if !self.wish.follow || self.queue.is_closed() {
                return Some(trouble);
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    fn command(&self) -> String {
        let Wish { lines, protocol, follow } = self.wish;
        // What happened while the node could not be asked is wanted, too.
        let lines = if self.seen.last.is_some() { LOG_LINES_MAX } else { lines };
        let protocol = if protocol { " --protocol" } else { "" };
        let follow = if follow { " --follow" } else { "" };
        format!("paxos logs --lines {lines}{protocol}{follow} -o json --timeout 30s")
    }

    async fn read(&mut self) -> Result<(), String> {
        let talk = self.door.ask(self.command().as_bytes(), ASK_LIMIT).await;
        let talk = talk.map_err(|error| error.to_string())?;
        let (mut input, mut output) = (talk.input, talk.output);
        // A node that is gone already says so when its output is read.
        let _gone = input.end().await;
        let (mut rest, mut complaint) = (Vec::new(), Vec::new());
        self.skip = match self.seen.last {
            Some(_) => Skip::Until(self.seen.clone()),
            None => Skip::Nothing,
        };
        loop {
            match output.next().await {
                ChannelEvent::Stdout(bytes) => {
                    rest.extend_from_slice(&bytes);
                    self.pass_on(&mut rest).await?;
                }
                ChannelEvent::Stderr(bytes) if complaint.len() < LINE_BYTES_MAX => {
                    complaint.extend_from_slice(&bytes);
                }
                ChannelEvent::Stderr(_) => {}
                ChannelEvent::Exit(0) => return Ok(()),
                ChannelEvent::Exit(_) => {
                    let told = if rest.is_empty() { &complaint } else { &rest };
                    return Err(String::from_utf8_lossy(told).trim().to_owned());
                }
                ChannelEvent::Closed(reason) => return Err(reason),
            }
        }
    }

    /// Passes whole lines on, but for those that were shown before.
    async fn pass_on(&mut self, rest: &mut Vec<u8>) -> Result<(), String> {
        let Some(end) = rest.iter().rposition(|&byte| byte == b'\n') else {
            return match rest.len() > LINE_BYTES_MAX {
                true => Err(format!("it said a line of more than {LINE_BYTES_MAX} bytes")),
                false => Ok(()),
            };
        };
        let lines: Vec<u8> = rest.drain(..=end).collect();
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let (own, body) = understood(line)?;
            self.is_away = false;
            if self.skip.leaves_out(own, &body) {
                continue;
            }
            // A line without a time of its own belongs to the one before it.
            let at = own.or(self.seen.newest).unwrap_or_default();
            self.seen.note(own, &body);
            let line = NodeLine { at, node: self.node.clone(), body };
            if self.queue.send(Shown::Line(line)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// What a line of a node's answer holds: an event, or a line of its log; and when, if it tells.
fn understood(line: &[u8]) -> Result<(Option<Moment>, Body), String> {
    if let Ok(event) = serde_json::from_slice::<ProtocolEvent>(line) {
        return Ok((Some(event.at), Body::Event(Box::new(event))));
    }
    let told = || {
        let told = String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned();
        format!("it answered something else than a log: {told}")
    };
    let value: serde_json::Value = serde_json::from_slice(line).map_err(|_| told())?;
    if let Some(message) = value["error"]["message"].as_str() {
        return Err(message.to_owned());
    }
    let text = value["line"].as_str().ok_or_else(told)?;
    Ok((time_of(text), Body::Line(text.to_owned())))
}

/// When a line of a log was written: it begins with that, as text or in JSON.
fn time_of(line: &str) -> Option<Moment> {
    let line = line.strip_prefix("{\"timestamp\":\"").unwrap_or(line);
    let end = line.find([' ', '"']).unwrap_or(line.len());
    let time = humantime::parse_rfc3339(&line[..end]).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(Moment::since_epoch)
}

/// Lines that wait for those before them.
#[derive(Default)]
struct Held {
    lines: BTreeMap<(Moment, u64), (NodeLine, Instant)>,
    count: u64,
}

impl Held {
    fn add(&mut self, line: NodeLine, now: Instant) {
        self.count += 1;
        self.lines.insert((line.at, self.count), (line, now));
    }

    /// Those that were held for long enough, and all that happened before them.
    fn ripe(&mut self, now: Instant) -> Vec<NodeLine> {
        let ripe = self.lines.iter().rev().find(|(_, (_, came))| now.duration_since(*came) >= HOLD);
        let mut last = ripe.map(|(key, _)| *key);
        if let Some(surplus) = self.lines.len().checked_sub(HELD_MAX + 1) {
            last = last.max(self.lines.keys().nth(surplus).copied());
        }
        let Some((at, number)) = last else { return Vec::new() };
        let later = self.lines.split_off(&(at, number + 1));
        std::mem::replace(&mut self.lines, later).into_values().map(|(line, _)| line).collect()
    }

    fn all(&mut self) -> Vec<NodeLine> {
        std::mem::take(&mut self.lines).into_values().map(|(line, _)| line).collect()
    }
}

async fn merge(
    mut queue: mpsc::Receiver<Shown>,
    follow: bool,
    show: &mut dyn FnMut(Shown) -> bool,
) -> Ended {
    let mut held = Held::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            next = queue.recv() => match next {
                Some(Shown::Line(line)) => held.add(line, Instant::now()),
                Some(trouble) => if !show(trouble) {
                    return Ended::Unread;
                },
                None => {
                    let go_on = held.all().into_iter().all(|line| show(Shown::Line(line)));
                    return if go_on { Ended::Done } else { Ended::Unread };
                }
            },
            _ = look.tick(), if follow => {
                let mut ripe = held.ripe(Instant::now()).into_iter();
                if !ripe.all(|line| show(Shown::Line(line))) {
                    return Ended::Unread;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64) -> NodeLine {
        NodeLine { at: Moment(at), node: "n".to_owned(), body: Body::Line(at.to_string()) }
    }

    fn times(lines: Vec<NodeLine>) -> Vec<u64> {
        lines.into_iter().map(|line| line.at.0).collect()
    }

    #[test]
    fn held_lines_come_out_in_order() {
        let begun = Instant::now();
        let mut held = Held::default();
        held.add(line(30), begun);
        held.add(line(20), begun + HOLD / 2);
        held.add(line(40), begun + HOLD / 2);
        assert!(held.ripe(begun + HOLD / 2).is_empty());
        assert_eq!(times(held.ripe(begun + HOLD)), [20, 30]);
        assert_eq!(times(held.ripe(begun + HOLD * 2)), [40]);
        assert!(held.ripe(begun + HOLD * 2).is_empty());
    }

    #[test]
    fn more_lines_than_may_be_held_go_out_at_once() {
        let begun = Instant::now();
        let mut held = Held::default();
        (0..HELD_MAX as u64 + 2).for_each(|at| held.add(line(at), begun));
        assert_eq!(times(held.ripe(begun)), [0, 1]);
        assert_eq!(held.lines.len(), HELD_MAX);
    }

    #[test]
    fn lines_of_logs_have_a_time() {
        let at = Some(Moment(1_795_568_523_123_456));
        assert_eq!(time_of("2026-11-25T01:02:03.123456Z  INFO x"), at);
        assert_eq!(time_of("{\"timestamp\":\"2026-11-25T01:02:03.123456Z\",\"x\":1}"), at);
        assert_eq!(time_of("thread panicked at"), None);
    }

    #[test]
    fn what_is_no_line_of_a_log_is_an_error() {
        let text = understood(b"{\"line\":\"panicked\"}").unwrap();
        assert_eq!(text, (None, Body::Line("panicked".to_owned())));
        let denied = b"{\"ok\":false,\"error\":{\"code\":\"denied\",\"message\":\"may not\"}}";
        assert_eq!(understood(denied), Err("may not".to_owned()));
        assert!(understood(b"hello").is_err());
    }

    /// What is shown of lines that a node tells, each with its time or none.
    fn shown(seen: &mut Seen, told: &[(Option<u64>, &str)]) -> Vec<String> {
        let mut skip = if seen.last.is_some() { Skip::Until(seen.clone()) } else { Skip::Nothing };
        let mut shown = Vec::new();
        for (own, text) in told {
            let (own, body) = (own.map(Moment), Body::Line((*text).to_owned()));
            if !skip.leaves_out(own, &body) {
                seen.note(own, &body);
                shown.push((*text).to_owned());
            }
        }
        shown
    }

    #[test]
    fn the_last_words_of_a_node_that_crashed_are_shown_once() {
        let mut seen = Seen::default();
        let alive = [(Some(1), "one"), (Some(2), "two")];
        assert_eq!(shown(&mut seen, &alive), ["one", "two"]);
        let words = [(None, "panicked at"), (None, "note")];
        let dead = [alive, words].concat();
        assert_eq!(shown(&mut seen, &dead), ["panicked at", "note"]);
        let again = [&dead[..], &[(None, "more"), (Some(3), "three")]].concat();
        assert_eq!(shown(&mut seen, &again), ["more", "three"]);
        assert_eq!(shown(&mut seen, &again), [""; 0]);
        // The file that held them was put aside.
        assert_eq!(shown(&mut seen, &[(None, "lost"), (Some(4), "four")]), ["four"]);
    }
}
