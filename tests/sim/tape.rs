//! What is written down of a history: everything, to compare two runs byte by byte, or what a
//! person wants to read of a failure. Usually nothing, for speed; a seed that failed is run again.

use paxos_ssh::node::recorder::Recorded;
use paxos_ssh::node::story;
use paxos_ssh::paxos::ballot::NodeId;
use paxos_ssh::wire::event::{Columns, Moment};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Lines for people that are kept: the last ones before the failure.
const TOLD_MAX: usize = 400;

enum Reel {
    Raw(String),
    Told(VecDeque<String>),
}

/// See the module's documentation. Clones write on one tape, which outlives a world that panics.
#[derive(Clone, Default)]
pub struct Tape(Option<Arc<Mutex<Reel>>>);

impl Tape {
    /// Keeps nothing.
    pub fn off() -> Tape {
        Tape(None)
    }

    /// Keeps every delivery, sync, decision and fault.
    pub fn raw() -> Tape {
        Tape(Some(Arc::new(Mutex::new(Reel::Raw(String::new())))))
    }

    /// Keeps the last lines of what nodes recorded and what was done to them, in order of time.
    pub fn told() -> Tape {
        Tape(Some(Arc::new(Mutex::new(Reel::Told(VecDeque::new())))))
    }

    /// Whether the nodes' recorders are to be read after each event.
    pub fn wants_recorders(&self) -> bool {
        self.0.as_ref().is_some_and(|reel| matches!(*reel.lock().unwrap(), Reel::Told(_)))
    }

    /// Whether every step is kept.
    pub fn wants_steps(&self) -> bool {
        self.0.as_ref().is_some_and(|reel| matches!(*reel.lock().unwrap(), Reel::Raw(_)))
    }

    /// What was done to the nodes.
    pub fn note(&self, micros: u64, line: &str) {
        let Some(reel) = &self.0 else { return };
        match &mut *reel.lock().unwrap() {
            Reel::Raw(text) => {
                let _ = writeln!(text, "{micros:>9} {line}");
            }
            Reel::Told(lines) => {
                let time = Moment::since_epoch(Duration::from_micros(micros)).time_of_day();
                push(lines, format!("{time} ---- {line}\n"));
            }
        }
    }

    /// What a node recorded.
    pub fn tell(&self, micros: u64, machine: &str, recorded: &[Recorded], columns: Columns) {
        let Some(reel) = &self.0 else { return };
        if let Reel::Told(lines) = &mut *reel.lock().unwrap() {
            for recorded in recorded {
                // Lines for people show no numbers.
                let name = |id: NodeId| id.to_string();
                let mut event = story::told((0, recorded), machine, name);
                event.at = Moment::since_epoch(Duration::from_micros(micros));
                push(lines, event.to_line(columns));
            }
        }
    }

    /// Everything that is kept.
    pub fn text(&self) -> String {
        let Some(reel) = &self.0 else { return String::new() };
        match &*reel.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Reel::Raw(text) => text.clone(),
            Reel::Told(lines) => lines.iter().map(String::as_str).collect(),
        }
    }
}

fn push(lines: &mut VecDeque<String>, line: String) {
    if lines.len() >= TOLD_MAX {
        lines.pop_front();
    }
    lines.push_back(line);
}
