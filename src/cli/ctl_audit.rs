//! What `paxos-ctl` did before: a journal for each run, and `paxos-ctl audit`, which shows them.

use super::ctl::Reply;
use super::interrupt::Working;
use super::progress::{Ended, Speaker};
use super::{exit, output};
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::journal::{self, Ending, Journal};
use crate::controller::resume::how_to_go_on;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::table;
use serde_json::json;

/// Does something, tells of its steps, and notes them in the journal of a run. It may be
/// interrupted between two of them.
pub(super) fn journaled<T>(
    cluster: &Cluster,
    verb: &str,
    words: &[String],
    speaker: &mut Speaker,
    work: impl FnOnce(Progress<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let unable = |error: std::io::Error| {
        let message =
            format!("cannot write the journal in {}: {error}", cluster.keys_dir.display());
        Failure::new(Code::Internal, message, "mend its permissions, or make room on its disk")
    };
    let mut journal = Journal::begin(&cluster.keys_dir, verb, words).map_err(unable)?;
    // The work is not given up half done because a file here cannot be written.
    let mut lost = None;
    let run = journal.id.clone();
    let go_on = how_to_go_on(verb, &run, &cluster.file);
    let note = |step: &str| lost = journal.step(step).err().or(lost.take());
    let result = told(cluster, speaker, Some(&run), go_on, note, work);
    let ending = match &result {
        Ok(_) => Ending::Done,
        Err(failure) if failure.code == Code::Interrupted => Ending::Interrupted(&failure.message),
        Err(failure) => Ending::Failed(&failure.message),
    };
    if let Some(error) = journal.end(ending).err().or(lost) {
        output::stderr(
            format!("paxos-ctl: the journal of this run is cut short: {error}\n").as_bytes(),
        );
    }
    result
}

/// Does something and tells of its steps, each of which is noted before it begins. It may be
/// interrupted between two of them; `go_on` says what to do then.
pub(super) fn told<T>(
    cluster: &Cluster,
    speaker: &mut Speaker,
    run: Option<&str>,
    go_on: String,
    mut note: impl FnMut(&str),
    work: impl FnOnce(Progress<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut working = Working::begin(go_on);
    let mut telling = speaker.begin(run, cluster.node_names());
    let result = work(&mut |step| {
        working.may_begin(step)?;
        note(step);
        telling.step(step);
        Ok(())
    });
    telling.end(Ended::of(&result));
    result
}

/// All runs, or the lines of one.
pub(super) fn audit(cluster: &Cluster, runs: &[String]) -> Result<Reply, Failure> {
    let unable = |what: &str, error: &std::io::Error| {
        let message = format!("cannot read {what}: {error}");
        Failure::new(Code::NotFound, message, "paxos-ctl audit lists the runs that are kept")
    };
    match runs {
        [] => {
            let runs = journal::runs(&cluster.keys_dir);
            let runs = runs.map_err(|error| unable("the journals", &error))?;
            let rows = runs.iter().map(|run| {
                let took = run.seconds.map_or("-".to_owned(), journal::short);
                let detail = run.detail.clone().unwrap_or_default();
                let outcome = run.outcome.to_owned();
                [run.id.clone(), run.verb.clone(), run.by.clone(), took, outcome, detail]
            });
            let text = table(["RUN", "VERB", "BY", "TOOK", "OUTCOME", "DETAIL"], rows);
            Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "runs": runs}) })
        }
        [id] => {
            let lines = journal::lines(&cluster.keys_dir, id);
            let lines = lines.map_err(|error| unable(&format!("run {id}"), &error))?;
            let text = lines.iter().map(shown).collect();
            Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "lines": lines}) })
        }
        [_, extra, ..] => {
            let message = format!("\"{extra}\" is one word too many");
            Err(Failure::usage(message, "name one run, or none for a list of all"))
        }
    }
}

fn shown(line: &journal::Line) -> String {
    match line {
        journal::Line::Begin { at, verb, by, version, words } => {
            let words = [std::slice::from_ref(verb), words].concat().join(" ");
            format!("{at} {words} by {by}, with version {version}\n")
        }
        journal::Line::Step { at, what } => format!("{at} {what}\n"),
        journal::Line::Done { seconds } => format!("  done in {}\n", journal::short(*seconds)),
        journal::Line::End { at, seconds, error, interrupted } => {
            let took = journal::short(*seconds);
            match error {
                None => format!("{at} done, in {took}\n"),
                Some(why) if *interrupted => format!("{at} interrupted after {took}: {why}\n"),
                Some(why) => format!("{at} failed after {took}: {why}\n"),
            }
        }
    }
}
