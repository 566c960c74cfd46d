//! How people and programs see a run while it goes on.
//!
//! * On a terminal: [moving lines](super::foot) for what is in hand, and a line above them for each
//!   step that is over, with the time that it took.
//! * Elsewhere: a line for each step as it begins.
//! * With `-o json`: an object a line. Each step has one when it begins and one when it ends, and
//!   executables on their way have some; the last of all is the answer, or the failure.
//!
//! A process has one standard output and one terminal, and so one run at a time is told of, whoever
//! works on it; a slow reader holds the work up.

use super::foot::{self, Foot};
use super::output;
use crate::controller::journal::short;
use crate::controller::watch::Watch;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Between two events about the same bytes: often enough for a person who watches by a program.
const BYTES_EVERY: Duration = Duration::from_millis(250);

/// The run that is told of.
static RUN: Mutex<Option<Run>> = Mutex::new(None);

/// Whether any event was told.
static EVENTS: AtomicBool = AtomicBool::new(false);

fn run() -> MutexGuard<'static, Option<Run>> {
    RUN.lock().expect("no holder of this lock panics")
}

/// Tells of runs.
pub(super) struct Speaker {
    format: Format,
}

/// How the step in hand ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// As it should.
    Done,
    /// With a failure.
    Failed,
}

impl Ended {
    /// Whoever was interrupted had finished the step in hand.
    pub(super) fn of<T>(result: &Result<T, Failure>) -> Ended {
        match result {
            Err(failure) if failure.code != Code::Interrupted => Ended::Failed,
            _ => Ended::Done,
        }
    }
}

impl Speaker {
    pub(super) fn new(format: Format) -> Speaker {
        Speaker { format }
    }

    /// A run begins: its name, if it has one, and the nodes of the cluster.
    pub(super) fn begin(&mut self, id: Option<&str>, nodes: Vec<String>) -> Telling {
        let form = match self.format {
            Format::Json => {
                EVENTS.store(true, Ordering::Relaxed);
                Form::Events
            }
            Format::Table if foot::is_wanted() => Form::Moving(Box::new(Foot::on_terminal(&nodes))),
            Format::Table => Form::Lines,
        };
        let id = id.map(str::to_owned);
        *run() = Some(Run { id, nodes, form, step: None, told: BTreeMap::new() });
        Telling
    }
}

/// A run that is told of. Over when it is dropped.
pub(super) struct Telling;

impl Telling {
    /// A step begins, and that before is done.
    pub(super) fn step(&mut self, what: &str) {
        if let Some(run) = run().as_mut() {
            run.end(Ended::Done);
            run.begin(what);
        }
    }

    /// The run is over, and the step in hand with it.
    pub(super) fn end(self, ended: Ended) {
        if let Some(run) = run().as_mut() {
            run.end(ended);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        *run() = None;
    }
}

/// Somebody wants the run to stop.
pub(super) fn interrupted(signal: &str) {
    if let Some(Run { form: Form::Events, id, .. }) = run().as_ref() {
        event(&json!({"event": "interrupted", "run": id, "signal": signal}));
    }
}

/// The answer at the end of a run, as programs get it: it may be one event of several.
pub(super) fn answer(mut answer: Value) -> Value {
    if EVENTS.load(Ordering::Relaxed) {
        answer["event"] = json!("done");
    }
    answer
}

fn event(event: &Value) {
    // Nobody may be listening any more, and the work goes on.
    let _unread = output::stdout(format!("{event}\n").as_bytes());
}

enum Form {
    Lines,
    Events,
    Moving(Box<Foot>),
}

struct Step {
    node: Option<String>,
    what: String,
    begun: Instant,
}

struct Run {
    id: Option<String>,
    nodes: Vec<String>,
    form: Form,
    step: Option<Step>,
    /// When bytes on their way to a node were last told of.
    told: BTreeMap<String, Instant>,
}

impl Run {
    /// Tells a node from what is done there: steps of one node begin with its name.
    fn split<'a>(&self, step: &'a str) -> (Option<&'a str>, &'a str) {
        match step.split_once(": ") {
            Some((node, what)) if self.nodes.iter().any(|known| known == node) => {
                (Some(node), what)
            }
            _ => (None, step),
        }
    }

    fn begin(&mut self, step: &str) {
        let (node, what) = self.split(step);
        let begun = Instant::now();
        match &mut self.form {
            Form::Lines => _ = output::stdout(format!("- {step}\n").as_bytes()),
            Form::Events => event(&step_event(self.id.as_deref(), node, what, "begun")),
            Form::Moving(foot) => foot.step(node, what),
        }
        self.step = Some(Step { node: node.map(str::to_owned), what: what.to_owned(), begun });
        self.told.clear();
    }

    fn end(&mut self, ended: Ended) {
        let Some(Step { node, what, begun }) = self.step.take() else { return };
        let seconds = begun.elapsed().as_secs_f64();
        match &mut self.form {
            Form::Lines => {}
            Form::Events => {
                let state = match ended {
                    Ended::Done => "done",
                    Ended::Failed => "failed",
                };
                let mut told = step_event(self.id.as_deref(), node.as_deref(), &what, state);
                told["seconds"] = json!(seconds);
                event(&told);
            }
            Form::Moving(foot) => {
                foot.clear();
                let node = node.map_or(String::new(), |node| format!("{node}: "));
                let failed = if ended == Ended::Failed { "failed after " } else { "" };
                let line = format!("- {node}{what} ({failed}{})\n", short(seconds));
                let _unread = output::stdout(line.as_bytes());
            }
        }
    }

    fn sent(&mut self, node: &str, sent: u64, total: u64) {
        match &mut self.form {
            Form::Lines => {}
            Form::Moving(foot) => foot.sent(node, sent, total),
            Form::Events => {
                let last = self.told.get(node);
                if sent < total && last.is_some_and(|last| last.elapsed() < BYTES_EVERY) {
                    return;
                }
                self.told.insert(node.to_owned(), Instant::now());
                event(&json!({"event": "bytes", "host": node, "sent": sent, "total": total}));
            }
        }
    }
}

fn step_event(run: Option<&str>, node: Option<&str>, what: &str, state: &str) -> Value {
    json!({"event": "step", "run": run, "host": node, "step": what, "state": state})
}

/// Watches for whoever looks at the run that is told of.
pub(super) struct Onlooker;

impl Watch for Onlooker {
    fn begins(&self, node: &str, what: &str) {
        if let Some(Run { form: Form::Moving(foot), .. }) = run().as_mut() {
            foot.begins(node, what);
        }
    }

    fn ends(&self, node: &str) {
        if let Some(Run { form: Form::Moving(foot), .. }) = run().as_mut() {
            foot.ends(node);
        }
    }

    fn sent(&self, node: &str, sent: u64, total: u64) {
        if let Some(run) = run().as_mut() {
            run.sent(node, sent, total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_a_node_is_told_from_one_of_none() {
        let nodes = ["n1", "n2"].map(str::to_owned).into();
        let (form, told) = (Form::Lines, BTreeMap::new());
        let run = Run { id: None, nodes, form, step: None, told };
        assert_eq!(run.split("n2: install executable: x"), (Some("n2"), "install executable: x"));
        for step in ["left out: n1: cannot log in", "n3: start", "send the program to n1", ""] {
            assert_eq!(run.split(step), (None, step));
        }
    }
}
