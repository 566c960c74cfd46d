//! What the node's recorder holds, as people and programs see it: ids become names, and the pages
//! that the node gives become one story.

use super::backend::Backend;
use super::execute::{failure, in_time};
use crate::node::event::RequestError;
use crate::node::recorder::{EVENTS_MAX, Recorded};
use crate::node::status::NodeStatus;
use crate::node::story;
use crate::wire::event::{Columns, ProtocolEvent};
use crate::wire::failure::{Code, Failure};
use crate::wire::logs::LogQuery;
use crate::wire::request::Format;
use crate::wire::trace::TraceReport;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Reads events page by page.
pub(super) struct Tape<'a, B> {
    backend: &'a B,
    /// The number of the next event to read.
    next: u64,
}

/// What was read of the tape at once.
pub(super) struct Stretch {
    /// With their numbers.
    pub(super) events: Vec<(u64, Recorded)>,
    /// Events that the ring dropped before they were read.
    pub(super) lost: u64,
    /// The number that the next event to be recorded will get.
    end: u64,
    /// The number of the next event to read.
    next: u64,
}

impl Stretch {
    /// Whether more is recorded already.
    pub(super) fn has_more(&self) -> bool {
        self.next < self.end
    }
}

impl<'a, B: Backend> Tape<'a, B> {
    /// From the oldest event that is kept.
    pub(super) fn new(backend: &'a B) -> Tape<'a, B> {
        Tape { backend, next: 0 }
    }

    /// The next events that there are now; may be none.
    pub(super) async fn read(&mut self, deadline: Instant) -> Result<Stretch, Failure> {
        let overdue =
            || RequestError::NoQuorum("the node did not show its recorder in time".to_owned());
        let recalled = in_time(deadline, self.backend.recall(self.next), overdue).await;
        let recalled = recalled.map_err(|error| failure(error, "recall"))?;
        let lost = recalled.first.saturating_sub(self.next);
        self.next = recalled.next();
        let (next, end) = (self.next, recalled.end);
        let events = (recalled.first..).zip(recalled.events).collect();
        Ok(Stretch { lost, next, end, events })
    }

    /// Reads what is recorded now, and keeps the last of what is wanted.
    pub(super) async fn last(
        &mut self,
        lines: usize,
        wanted: impl Fn(&(u64, Recorded)) -> bool,
        deadline: Instant,
    ) -> Result<VecDeque<(u64, Recorded)>, Failure> {
        let mut last = VecDeque::new();
        let mut until = None;
        loop {
            let stretch = self.read(deadline).await?;
            // What is recorded meanwhile is for the next reader, or there would be no end.
            let until = *until.get_or_insert(stretch.end);
            for recorded in stretch.events.into_iter().filter(&wanted) {
                last.push_back(recorded);
                if last.len() > lines {
                    last.pop_front();
                }
            }
            if stretch.next >= until {
                return Ok(last);
            }
        }
    }
}

/// How events are shown.
pub(super) struct Show {
    format: Format,
    columns: Columns,
    status: Arc<NodeStatus>,
}

impl Show {
    /// With the names that this status knows.
    pub(super) fn new(format: Format, status: Arc<NodeStatus>) -> Show {
        // A node that has no genesis yet is no member, and has a name all the same.
        let mut names: BTreeSet<&str> = [status.node.as_str()].into();
        names.extend(status.members.iter().map(|member| member.name.as_str()));
        let columns = Columns::for_names(names);
        Show { format, columns, status }
    }

    /// With a newline.
    pub(super) fn line(&self, recorded: &(u64, Recorded)) -> String {
        let event = self.event(recorded);
        match self.format {
            Format::Json => event.to_json(),
            Format::Table => event.to_line(self.columns),
        }
    }

    /// With names in it.
    pub(super) fn event(&self, (seq, recorded): &(u64, Recorded)) -> ProtocolEvent {
        story::told((*seq, recorded), &self.status.node, |id| {
            let member = self.status.members.iter().find(|member| member.id == id);
            member.map_or_else(|| id.to_string(), |member| member.name.clone())
        })
    }

    /// Whether somebody who asked so wants the event: what is looked for is the line as it shows.
    pub(super) fn wants(&self, query: &LogQuery, recorded: &(u64, Recorded)) -> bool {
        query.grep.is_none() || query.wants(&self.line(recorded))
    }
}

/// The failure for a slot of which nothing is recorded.
pub(super) fn not_traced(report: &TraceReport, status: &NodeStatus) -> Failure {
    let (slot, chosen) = (report.slot, status.chosen.0);
    let silent = match report.silent.is_empty() {
        true => String::new(),
        false => format!(" ({} did not answer)", report.silent.join(", ")),
    };
    let message = format!("no member recorded anything of slot {slot}{silent}");
    let hint = match slot > chosen {
        true => format!("slots up to {chosen} are chosen so far: name one of those"),
        false => format!(
            "the slot is older than what the recorders keep, each node its newest {EVENTS_MAX} \
             events since it started: name a newer one; slots up to {chosen} are chosen"
        ),
    };
    Failure::new(Code::NotFound, message, hint)
}
