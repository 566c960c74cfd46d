//! What a run of the controller set out to do, and what came of it: a file for each run, a line for
//! each thing.
//!
//! A step's line is on disk before the step begins, so that whoever comes after a controller that
//! was killed sees what was in hand. What is to be done next is asked of the hosts, which know
//! better than a file here, and so a journal that is lost costs a memory, and no more. But nothing
//! on a host says why a node was started: whom a restart has been to is read back.

use crate::wire::build::Build;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The directory beside the keys.
pub const RUNS: &str = "runs";

/// How many runs are kept; the oldest go when another begins. A year of a deployment a day.
const RUNS_KEPT: usize = 400;

/// Ids begin with the time, down to this; a second run in the same microsecond finds it taken.
const ID_CHARS: usize = "20261128T221530.123456Z".len();

/// The outcome of a run that came to its end.
const DONE: &str = "done";

/// A line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Line {
    /// A run begins.
    Begin {
        /// When.
        at: String,
        /// What the controller was told to do.
        verb: String,
        /// By whom, as far as their system says.
        by: String,
        /// With which version.
        version: String,
        /// What else somebody has to know who resumes it.
        #[serde(default)]
        words: Vec<String>,
    },
    /// A step begins.
    Step {
        /// When.
        at: String,
        /// What is done.
        what: String,
    },
    /// The step before is done.
    Done {
        /// How long it took.
        seconds: f64,
    },
    /// The run is over.
    End {
        /// When.
        at: String,
        /// How long it took.
        seconds: f64,
        /// What it failed over, if it did, or after which step it was stopped.
        error: Option<String>,
        /// Whether somebody stopped it between two steps.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// It came to its end.
    Done,
    /// The step in hand failed, and this is why.
    Failed(&'a str),
    /// The step in hand was done, and somebody wanted no other.
    Interrupted(&'a str),
}

/// The journal of a run under way.
pub struct Journal {
    /// The run's name.
    pub id: String,
    file: File,
    begun: Instant,
    step: Option<Instant>,
}

impl Journal {
    /// Begins one, in `keys_dir`, which is made if it is missing.
    ///
    /// # Errors
    /// When it cannot be written; nothing was done then.
    pub fn begin(keys_dir: &Path, verb: &str, words: &[String]) -> io::Result<Journal> {
        let directory = keys_dir.join(RUNS);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let now = SystemTime::now();
        let id = id_of(now);
        let path = directory.join(format!("{id}.jsonl"));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        forget_oldest(&directory)?;
        let mut journal = Journal { id, file, begun: Instant::now(), step: None };
        journal.write(&Line::Begin {
            at: time(now),
            verb: verb.to_owned(),
            by: whoever_it_is(),
            version: Build::own().version.clone(),
            words: words.to_vec(),
        })?;
        Ok(journal)
    }

    /// Another step begins, and the one before is done.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn step(&mut self, what: &str) -> io::Result<()> {
        self.done()?;
        self.step = Some(Instant::now());
        let (at, what) = (time(SystemTime::now()), what.to_owned());
        self.write(&Line::Step { at, what })
    }

    /// The run is over; the step in hand is done, unless it failed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self, ending: Ending<'_>) -> io::Result<()> {
        let (error, interrupted) = match ending {
            Ending::Done => (None, false),
            Ending::Failed(why) => (Some(why.to_owned()), false),
            Ending::Interrupted(why) => (Some(why.to_owned()), true),
        };
        if error.is_none() || interrupted {
            self.done()?;
        }
        let (at, seconds) = (time(SystemTime::now()), self.begun.elapsed().as_secs_f64());
        self.write(&Line::End { at, seconds, error, interrupted })
    }

    fn done(&mut self) -> io::Result<()> {
        match self.step.take() {
            Some(begun) => self.write(&Line::Done { seconds: begun.elapsed().as_secs_f64() }),
            None => Ok(()),
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()
    }
}

/// What is told of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Its name.
    pub id: String,
    /// What the controller was told to do.
    pub verb: String,
    /// By whom.
    pub by: String,
    /// How many steps it began.
    pub steps: usize,
    /// `done`, `failed`, `interrupted`, or `cut short` where it has no end.
    pub outcome: &'static str,
    /// How long it took, if it ended.
    pub seconds: Option<f64>,
    /// What somebody has to know who resumes it.
    pub words: Vec<String>,
    /// What it failed over, or the step that was in hand when it was cut short.
    pub detail: Option<String>,
}

/// All runs that are kept, the newest first.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn runs(keys_dir: &Path) -> io::Result<Vec<Run>> {
    let directory = keys_dir.join(RUNS);
    let mut runs = Vec::new();
    for id in ids(&directory)?.into_iter().rev() {
        let lines = lines(keys_dir, &id)?;
        runs.push(summary(id, &lines));
    }
    Ok(runs)
}

impl Run {
    /// Whether it came to its end and all was well.
    pub fn is_done(&self) -> bool {
        self.outcome == DONE
    }
}

/// The lines of one run. What is not a line of ours, as the last of one that was cut short, is
/// left out.
///
/// # Errors
/// When it cannot be read.
pub fn lines(keys_dir: &Path, id: &str) -> io::Result<Vec<Line>> {
    if !is_id(id) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let text = fs::read_to_string(keys_dir.join(RUNS).join(format!("{id}.jsonl")))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The steps that were done, in their order; the one in hand when a run ended is not among them.
pub fn done_steps(lines: &[Line]) -> Vec<&str> {
    let mut done = Vec::new();
    let mut in_hand = None;
    for line in lines {
        match line {
            Line::Step { what, .. } => in_hand = Some(what.as_str()),
            Line::Done { .. } => done.extend(in_hand.take()),
            Line::Begin { .. } | Line::End { .. } => {}
        }
    }
    done
}

fn summary(id: String, lines: &[Line]) -> Run {
    let unknown = || "?".to_owned();
    let mut run = Run {
        id,
        verb: unknown(),
        by: unknown(),
        steps: 0,
        outcome: "cut short",
        seconds: None,
        words: Vec::new(),
        detail: None,
    };
    for line in lines {
        match line {
            Line::Begin { verb, by, words, .. } => {
                (run.verb, run.by, run.words) = (verb.clone(), by.clone(), words.clone());
            }
            Line::Step { what, .. } => {
                run.steps += 1;
                run.detail = Some(what.clone());
            }
            Line::Done { .. } => run.detail = None,
            Line::End { seconds, error, interrupted, .. } => {
                run.seconds = Some(*seconds);
                run.outcome = match (error, interrupted) {
                    (_, true) => "interrupted",
                    (Some(_), false) => "failed",
                    (None, false) => DONE,
                };
                run.detail.clone_from(error);
            }
        }
    }
    run
}

/// The ids of all runs, the oldest first.
fn ids(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = PathBuf::from(entry?.file_name());
        let id = name.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if name.extension().is_some_and(|extension| extension == "jsonl") && is_id(id) {
            ids.push(id.to_owned());
        }
    }
    ids.sort();
    Ok(ids)
}

fn forget_oldest(directory: &Path) -> io::Result<()> {
    let ids = ids(directory)?;
    for id in ids.iter().take(ids.len().saturating_sub(RUNS_KEPT)) {
        match fs::remove_file(directory.join(format!("{id}.jsonl"))) {
            // Another controller begins a run as well.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Digits, `T`, `.` and `Z`: nothing that leads out of the directory.
fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, 'T' | '.' | 'Z'))
}

fn id_of(now: SystemTime) -> String {
    time(now).replace(['-', ':'], "")
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}

/// Who runs this program, as far as their system says.
pub(super) fn whoever_it_is() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}@{host}", user.unwrap_or_else(|_| "somebody".to_owned()))
}

/// How long something took, for people.
pub fn short(seconds: f64) -> String {
    format!("{:.1}s", Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_as_it_went() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        assert!(runs(&keys).unwrap().is_empty());
        let mut done = Journal::begin(&keys, "deploy", &[]).unwrap();
        done.step("n1: start").unwrap();
        done.step("n2: start").unwrap();
        done.end(Ending::Done).unwrap();
        let mut failed = Journal::begin(&keys, "restart", &[]).unwrap();
        failed.step("n1: restart").unwrap();
        failed.end(Ending::Failed("n1 is down")).unwrap();
        let mut stopped = Journal::begin(&keys, "upgrade", &[]).unwrap();
        stopped.step("n1: restart").unwrap();
        let stopped_id = stopped.id.clone();
        stopped.end(Ending::Interrupted("stopped after n1")).unwrap();
        let mut killed = Journal::begin(&keys, "deploy", &[]).unwrap();
        killed.step("n3: start").unwrap();
        let id = killed.id.clone();
        drop(killed);
        let path = keys.join(RUNS).join(format!("{id}.jsonl"));
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"event\":\"do").unwrap();
        let runs = runs(&keys).unwrap();
        let told = runs.iter().map(|r| (r.verb.as_str(), r.steps, r.outcome, r.detail.as_deref()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("deploy", 1, "cut short", Some("n3: start")),
                ("upgrade", 1, "interrupted", Some("stopped after n1")),
                ("restart", 1, "failed", Some("n1 is down")),
                ("deploy", 2, "done", None),
            ]
        );
        let cut_short = lines(&keys, &id).unwrap();
        assert_eq!((cut_short.len(), done_steps(&cut_short).len()), (2, 0));
        let stopped = lines(&keys, &stopped_id).unwrap();
        assert_eq!(done_steps(&stopped), ["n1: restart"], "its last step was finished");
        for outside in ["../keys", "", "20261128T221530.123456Z/../../x"] {
            assert!(lines(&keys, outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn old_runs_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join(RUNS);
        fs::create_dir(&directory).unwrap();
        let id = |n: usize| format!("20200101T000000.{n:06}Z");
        for n in 0..RUNS_KEPT + 5 {
            fs::write(directory.join(format!("{}.jsonl", id(n))), "").unwrap();
        }
        fs::write(directory.join("notes.txt"), "somebody's").unwrap();
        let journal = Journal::begin(folder.path(), "deploy", &[]).unwrap();
        let kept = ids(&directory).unwrap();
        assert_eq!(kept.len(), RUNS_KEPT);
        assert_eq!(kept.first(), Some(&id(6)));
        assert_eq!(kept.last(), Some(&journal.id));
        assert!(directory.join("notes.txt").exists());
    }
}
