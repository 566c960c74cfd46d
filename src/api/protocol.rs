//! What the node's recorder holds, as people and programs see it: ids become names, and the pages
//! that the node gives become one story.

use super::backend::Backend;
use super::execute::{failure, in_time};
use crate::node::event::RequestError;
use crate::node::recorder::{Detail, Recorded};
use crate::node::status::NodeStatus;
use crate::paxos::ballot::NodeId;
use crate::paxos::effects::{Offence, StepDown};
use crate::wire::event::{Columns, Moment, ProtocolEvent, What};
use crate::wire::failure::Failure;
use crate::wire::report::JsonId;
use crate::wire::request::{Format, LogQuery};
use std::collections::VecDeque;
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
    pub(super) events: Vec<Recorded>,
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
        Ok(Stretch { lost, next, end, events: recalled.events })
    }

    /// Reads what is recorded now, and keeps the last of what is wanted.
    pub(super) async fn last(
        &mut self,
        lines: usize,
        wanted: impl Fn(&Recorded) -> bool,
        deadline: Instant,
    ) -> Result<VecDeque<Recorded>, Failure> {
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
        let names = status.members.iter().map(|member| member.name.as_str());
        let columns = Columns::for_names(names.chain([status.node.as_str()]));
        Show { format, columns, status }
    }

    /// With a newline.
    pub(super) fn line(&self, recorded: &Recorded) -> String {
        let event = self.event(recorded);
        match self.format {
            Format::Json => event.to_json(),
            Format::Table => event.to_line(self.columns),
        }
    }

    /// With names in it.
    pub(super) fn event(&self, recorded: &Recorded) -> ProtocolEvent {
        named(recorded, &self.status)
    }

    /// Whether somebody who asked so wants the event: what is looked for is the line as it shows.
    pub(super) fn wants(&self, query: &LogQuery, recorded: &Recorded) -> bool {
        query.grep.is_none() || query.wants(&self.line(recorded))
    }
}

fn named(recorded: &Recorded, status: &NodeStatus) -> ProtocolEvent {
    let name = |id: &NodeId| {
        let member = status.members.iter().find(|member| member.id == *id);
        member.map_or_else(|| id.to_string(), |member| member.name.clone())
    };
    let mut event = ProtocolEvent {
        at: Moment::since_epoch(recorded.at),
        node: status.node.clone(),
        event: recorded.direction,
        what: recorded.what,
        peers: recorded.peers.as_slice().iter().map(name).collect(),
        ballot: recorded.ballot.map(|ballot| JsonId(ballot.value())),
        counter: recorded.ballot.map(|ballot| ballot.counter()),
        proposer: recorded.ballot.map(|ballot| ballot.proposer().value()),
        first: recorded.first.map(|slot| slot.0),
        last: recorded.last.map(|slot| slot.0),
        votes: None,
        promised: None,
        detail: None,
    };
    match recorded.detail {
        Detail::None => {}
        Detail::Votes(votes, part, parts) => {
            event.votes = Some(u64::from(votes));
            event.detail = (parts > 1).then(|| format!("part {} of {parts}", part + 1));
        }
        Detail::Promised(ballot) => event.promised = Some(JsonId(ballot.value())),
        Detail::Commands(1) => event.detail = Some("1 command".to_owned()),
        Detail::Commands(count) => event.detail = Some(format!("{count} commands")),
        Detail::StepDown(why) => event.detail = Some(step_down(why).to_owned()),
        Detail::Offence(offence) => {
            let from = std::mem::take(&mut event.peers).join(" ");
            event.detail = Some(format!("from {from}: {}", offence_text(offence)));
        }
    }
    if recorded.what == What::ProposerClash {
        event.detail = Some("another process issues ballots under this proposer id".to_owned());
    }
    event
}

fn step_down(why: StepDown) -> &'static str {
    match why {
        StepDown::QuorumLost => "a quorum of acceptors is silent",
        StepDown::Superseded => "a higher ballot is known",
        StepDown::HandedOver => "it handed over",
    }
}

fn offence_text(offence: Offence) -> &'static str {
    match offence {
        Offence::ForeignBallot => "the ballot belongs to another proposer",
        Offence::ImplausibleBallot => "the ballot is out of reach",
        Offence::Stranger => "it is no member",
        Offence::StaleGeneration => "the vote is of another life of its log",
        Offence::Malformed => "the slots are no run within the window",
        Offence::Contradiction => "it contradicts what is accepted or chosen",
    }
}
