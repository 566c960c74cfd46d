//! The flight recorder: what this node said, heard and decided lately, in a bounded ring in memory.
//!
//! It is always on, so that the story of an incident is there when somebody asks for it. It belongs
//! to the node's thread: recording takes no lock, and who wants to read sends the driver an event
//! and gets a copy of a bounded part. One event stands for a message about a run of slots, never
//! for a slot. Heartbeats and rounds of reads are left out: they would push everything else out of
//! the ring.
//!
//! A message of a node to itself does not travel and is not recorded, but for its own promises and
//! acceptances once they are durable: they count in quorums like anybody else's.

use crate::paxos::ballot::{Ballot, NodeId, ProposalNumber, Slot};
use crate::paxos::depths::Depth;
use crate::paxos::effects::{Note, Offence, StepDown};
use crate::paxos::message::{Message, Pledge, Statement};
use crate::wire::event::{Direction, What};
use crate::wire::logs::LOG_LINES_MAX;
use std::collections::VecDeque;
use std::time::Duration;

/// Events kept: a few megabytes, and minutes of a node that is not busy.
pub const EVENTS_MAX: usize = 32_768;

const _: () = assert!(EVENTS_MAX <= LOG_LINES_MAX, "all that is kept can be asked for at once");

/// Events copied for a reader at once. Copying them takes the node's thread some tens of
/// microseconds, less than a sync of the log.
pub const RECALL_EVENTS_MAX: usize = 1024;

/// Whom an event is about, without an allocation in the usual case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Nobody else.
    None,
    /// One node.
    One(NodeId),
    /// Several.
    Many(Box<[NodeId]>),
}

impl Peers {
    fn of(peers: &[NodeId]) -> Peers {
        match peers {
            [] => Peers::None,
            [one] => Peers::One(*one),
            many => Peers::Many(many.into()),
        }
    }

    /// All of them.
    pub fn as_slice(&self) -> &[NodeId] {
        match self {
            Peers::None => &[],
            Peers::One(one) => std::slice::from_ref(one),
            Peers::Many(many) => many,
        }
    }
}

/// What else there is to say; becomes text only when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    None,
    /// The promise reports so many votes, and is one of so many parts.
    Votes(u32, u32, u32),
    /// This ballot was promised, and the leader of that one is heard, if anybody is: it decides
    /// whether a candidate goes on.
    Promised(ProposalNumber, Option<ProposalNumber>),
    /// So many commands.
    Commands(u32),
    /// Why it leads no longer.
    StepDown(StepDown),
    /// What was wrong with a message.
    Offence(Offence),
}

/// One event, as compact as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Wall-clock time since the Unix epoch; for people only.
    pub at: Duration,
    /// Which way it went.
    pub direction: Direction,
    /// What.
    pub what: What,
    /// To whom, from whom, or about whom.
    pub peers: Peers,
    /// The ballot.
    pub ballot: Option<ProposalNumber>,
    /// The first slot.
    pub first: Option<Slot>,
    /// The last slot.
    pub last: Option<Slot>,
    /// What else.
    pub detail: Detail,
}

/// A part of what is recorded. Events are numbered from 0 in the life of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recalled {
    /// The number of the first event in here.
    pub first: u64,
    /// In order; at most [`RECALL_EVENTS_MAX`].
    pub events: Vec<Recorded>,
    /// The number that the next event to be recorded will get.
    pub end: u64,
}

impl Recalled {
    /// Where to go on reading.
    pub fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    ring: VecDeque<Recorded>,
    end: u64,
    /// Up to here slots were chosen before it began, or events about them fell out of the ring.
    forgotten: Slot,
}

/// A message in as far as it is recorded: what, under which ballot, about which slots.
struct Gist {
    what: What,
    ballot: Option<Ballot>,
    first: Option<Slot>,
    last: Option<Slot>,
    detail: Detail,
}

impl Recorder {
    /// A message left.
    pub(super) fn sent<V>(&mut self, at: Duration, to: &[NodeId], message: &Message<V>) {
        if let Some(gist) = gist(message) {
            self.keep(at, Direction::Sent, Peers::of(to), gist);
        }
    }

    /// A message came.
    pub(super) fn received<V>(&mut self, at: Duration, from: NodeId, message: &Message<V>) {
        if let Some(gist) = gist(message) {
            self.keep(at, Direction::Received, Peers::One(from), gist);
        }
    }

    /// Slots became known chosen.
    pub(super) fn learned(&mut self, at: Duration, first: Slot, last: Slot) {
        let slots = (Some(first), Some(last));
        let gist = Gist::new(What::Learned, None, slots, Detail::None);
        self.keep(at, Direction::Local, Peers::None, gist);
    }

    /// The core noted something. `me` is this node.
    pub(super) fn note(&mut self, at: Duration, me: NodeId, note: &Note) {
        let local = |what, ballot| Gist::new(what, ballot, (None, None), Detail::None);
        let (peers, gist) = match *note {
            Note::Inquiring => (Peers::None, local(What::Inquiring, None)),
            Note::Campaigning(ballot) => (Peers::None, local(What::Campaigns, Some(ballot))),
            Note::CampaignLost(ballot) => (Peers::None, local(What::CampaignLost, Some(ballot))),
            Note::Leading(ballot) => (Peers::None, local(What::Leads, Some(ballot))),
            Note::SteppedDown(ballot, why) => {
                let gist = local(What::StepsDown, Some(ballot));
                (Peers::None, Gist { detail: Detail::StepDown(why), ..gist })
            }
            Note::Following(leader, ballot) => {
                (Peers::One(leader), local(What::Follows, Some(ballot)))
            }
            Note::LeaderLost(leader) => (Peers::One(leader), local(What::LeaderLost, None)),
            Note::Refused(from, offence) => {
                let gist = local(What::RefusedMessage, None);
                (Peers::One(from), Gist { detail: Detail::Offence(offence), ..gist })
            }
            Note::ProposerClash(ballot) => (Peers::None, local(What::ProposerClash, Some(ballot))),
            Note::Fenced { by, ballot, last } => {
                let slots = (None, Some(last).filter(|last| last.0 > 0));
                (Peers::One(by), Gist::new(What::Fenced, Some(ballot), slots, Detail::None))
            }
            Note::PromisedItself { ballot, floor, votes } => {
                let detail = Detail::Votes(votes, 0, 1);
                let gist = Gist::new(What::Promise, Some(ballot), (Some(floor), None), detail);
                return self.keep(at, Direction::Sent, Peers::One(me), gist);
            }
            Note::AcceptedItself { ballot, first, last } => {
                let slots = (Some(first), Some(last));
                let gist = Gist::new(What::Accepted, Some(ballot), slots, Detail::None);
                return self.keep(at, Direction::Sent, Peers::One(me), gist);
            }
            // The messages themselves are recorded.
            Note::Proposed { .. } | Note::ReadRound => return,
        };
        self.keep(at, Direction::Local, peers, gist);
    }

    /// How many events are kept.
    pub(super) fn depth(&self) -> Depth {
        Depth::new("events recorded", self.ring.len(), EVENTS_MAX)
    }

    fn keep(&mut self, at: Duration, direction: Direction, peers: Peers, gist: Gist) {
        if self.ring.len() >= EVENTS_MAX
            && let Some(oldest) = self.ring.pop_front()
            && matches!(oldest.what, What::Accept | What::Accepted | What::Learned)
        {
            self.forgotten = self.forgotten.max(oldest.last.unwrap_or_default());
        }
        let Gist { what, ballot, first, last, detail } = gist;
        let ballot = ballot.map(|ballot| ballot.number);
        self.ring.push_back(Recorded { at, direction, what, peers, ballot, first, last, detail });
        self.end += 1;
    }

    /// The number of the oldest event that is kept.
    fn oldest(&self) -> u64 {
        self.end - self.ring.len() as u64
    }

    /// One that begins where this much is chosen.
    pub(super) fn beginning_at(chosen: Slot) -> Recorder {
        Recorder { forgotten: chosen, ..Recorder::default() }
    }

    /// Whether it may have known more of the slot than it holds.
    pub(super) fn forgot(&self, slot: Slot) -> bool {
        slot <= self.forgotten
    }

    /// Those that say how a slot was chosen, with their numbers: the first `most` of them.
    pub(super) fn about(&self, slot: Slot, most: usize) -> impl Iterator<Item = (u64, &Recorded)> {
        let number = |slot: Option<Slot>| slot.map(|slot| slot.0);
        let covers = move |(_, recorded): &(u64, &Recorded)| {
            recorded.what.covers(number(recorded.first), number(recorded.last), slot.0)
        };
        (self.oldest()..).zip(&self.ring).filter(covers).take(most)
    }

    /// Copies events from number `since` on, or from the oldest one there is.
    pub(super) fn recall(&self, since: u64) -> Recalled {
        let oldest = self.oldest();
        let first = since.clamp(oldest, self.end);
        // What is skipped is at most the ring.
        let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        let until = self.ring.len().min(skipped.saturating_add(RECALL_EVENTS_MAX));
        let events = self.ring.range(skipped..until).cloned().collect();
        Recalled { first, events, end: self.end }
    }
}

impl Gist {
    fn new(
        what: What,
        ballot: Option<Ballot>,
        (first, last): (Option<Slot>, Option<Slot>),
        detail: Detail,
    ) -> Gist {
        Gist { what, ballot, first, last, detail }
    }
}

/// None for what is not recorded.
fn gist<V>(message: &Message<V>) -> Option<Gist> {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let run_end = |first: Slot, length: usize| {
        let more = (length as u64).checked_sub(1)?;
        first.0.checked_add(more).map(Slot)
    };
    let none = (None, None);
    let pledge = match message {
        Message::Pledge(pledge) => pledge,
        Message::Statement(statement) => {
            return Some(match statement {
                Statement::Prepare { ballot, first, .. } => {
                    Gist::new(What::Prepare, Some(*ballot), (Some(*first), None), Detail::None)
                }
                Statement::Accept { ballot, first, entries, .. } => {
                    let slots = (Some(*first), run_end(*first, entries.len()));
                    Gist::new(What::Accept, Some(*ballot), slots, Detail::None)
                }
                Statement::Refused { ballot, promised, hears } => {
                    let detail = Detail::Promised(promised.number, hears.map(|b| b.number));
                    Gist::new(What::Refused, Some(*ballot), none, detail)
                }
                Statement::Chosen { ballot, chosen } => {
                    Gist::new(What::Chosen, Some(*ballot), (None, Some(*chosen)), Detail::None)
                }
                Statement::Inquire { .. } => Gist::new(What::Inquire, None, none, Detail::None),
                Statement::Report { promised, hears, .. } => {
                    let detail = Detail::Promised(promised.number, hears.map(|b| b.number));
                    Gist::new(What::Report, None, none, detail)
                }
                Statement::HandOver { ballot } => {
                    Gist::new(What::HandOver, Some(*ballot), none, Detail::None)
                }
                Statement::AskHandOver { .. } => {
                    Gist::new(What::AskHandOver, None, none, Detail::None)
                }
                Statement::Forward { commands, .. } => {
                    let detail = Detail::Commands(count(commands.len()));
                    Gist::new(What::Forward, None, none, detail)
                }
                Statement::Fetch { first } => {
                    Gist::new(What::Fetch, None, (Some(*first), None), Detail::None)
                }
                Statement::Fetched { first, entries, .. } => {
                    let slots = (Some(*first), run_end(*first, entries.len()));
                    Gist::new(What::Fetched, None, slots, Detail::None)
                }
                Statement::Heartbeat { .. }
                | Statement::HeartbeatAck { .. }
                | Statement::ReadIndexRequest { .. }
                | Statement::ReadIndex { .. } => return None,
            });
        }
    };
    Some(match pledge {
        Pledge::Promise { ballot, floor, votes, part, parts, .. } => {
            let detail = Detail::Votes(count(votes.len()), *part, *parts);
            Gist::new(What::Promise, Some(*ballot), (Some(*floor), None), detail)
        }
        Pledge::Accepted { ballot, first, last, .. } => {
            Gist::new(What::Accepted, Some(*ballot), (Some(*first), Some(*last)), Detail::None)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(recorder: &mut Recorder, first: u64) {
        let message: Message<u64> = Statement::Fetch { first: Slot(first) }.into();
        recorder.sent(Duration::ZERO, &[NodeId(2)], &message);
    }

    #[test]
    fn what_fell_out_or_came_before_is_known_to_be_forgotten() {
        let mut recorder = Recorder::beginning_at(Slot(5));
        assert!(recorder.forgot(Slot(5)) && !recorder.forgot(Slot(6)));
        recorder.learned(Duration::ZERO, Slot(6), Slot(7));
        (0..EVENTS_MAX as u64 - 1).for_each(|first| fetch(&mut recorder, first));
        assert!(!recorder.forgot(Slot(6)), "it is still there");
        fetch(&mut recorder, 1);
        assert!(recorder.forgot(Slot(7)) && !recorder.forgot(Slot(8)));
    }

    #[test]
    fn the_ring_keeps_the_newest_and_numbers_go_on() {
        let mut recorder = Recorder::default();
        let total = EVENTS_MAX as u64 + 10;
        (0..total).for_each(|first| fetch(&mut recorder, first));
        assert_eq!(recorder.ring.len(), EVENTS_MAX);
        let oldest = recorder.recall(0);
        assert_eq!((oldest.first, oldest.end), (10, total));
        assert_eq!(oldest.events.len(), RECALL_EVENTS_MAX);
        assert_eq!(oldest.events[0].first, Some(Slot(10)));
        let (mut next, mut seen) = (oldest.next(), oldest.events.len());
        while next < total {
            let page = recorder.recall(next);
            assert_eq!(page.first, next);
            assert_eq!(page.events[0].first, Some(Slot(next)));
            (next, seen) = (page.next(), seen + page.events.len());
        }
        assert_eq!(seen, EVENTS_MAX);
        assert_eq!(
            recorder.recall(u64::MAX),
            Recalled { first: total, events: vec![], end: total }
        );
    }

    #[test]
    fn heartbeats_and_reads_are_left_out() {
        let mut recorder = Recorder::default();
        let ballot = Ballot::ZERO;
        let inquire: Statement<u64> = Statement::Inquire { round: 1 };
        let read = Statement::ReadIndex { origin: NodeId(1), token: 1, index: Slot(1) };
        let heartbeat = Statement::Heartbeat {
            ballot,
            round: 1,
            chosen: Slot(1),
            configuration: crate::paxos::configuration::ConfigurationNumber(1),
        };
        for statement in [inquire, read, heartbeat] {
            recorder.received(Duration::ZERO, NodeId(2), &statement.into());
        }
        let whats: Vec<What> = recorder.ring.iter().map(|recorded| recorded.what).collect();
        assert_eq!(whats, [What::Inquire]);
    }

    #[test]
    fn one_event_stands_for_a_run_of_slots() {
        let mut recorder = Recorder::default();
        let accept: Statement<u64> = Statement::Accept {
            ballot: Ballot { number: ProposalNumber::from_raw(101), ..Ballot::ZERO },
            configuration: crate::paxos::configuration::ConfigurationNumber(1),
            first: Slot(8),
            entries: std::iter::repeat_with(|| {
                std::sync::Arc::new(crate::paxos::message::Entry::noop())
            })
            .take(3)
            .collect(),
            chosen: Slot(7),
        };
        recorder.sent(Duration::from_secs(9), &[NodeId(2), NodeId(3)], &accept.into());
        let expected = Recorded {
            at: Duration::from_secs(9),
            direction: Direction::Sent,
            what: What::Accept,
            peers: Peers::Many([NodeId(2), NodeId(3)].into()),
            ballot: Some(ProposalNumber::from_raw(101)),
            first: Some(Slot(8)),
            last: Some(Slot(10)),
            detail: Detail::None,
        };
        assert_eq!(recorder.recall(0).events, [expected]);
    }

    #[test]
    fn an_own_acceptance_is_a_vote_like_any_other() {
        let mut recorder = Recorder::default();
        let (first, last) = (Slot(8), Slot(10));
        let note = Note::AcceptedItself { ballot: Ballot::ZERO, first, last };
        recorder.note(Duration::ZERO, NodeId(1), &note);
        let event = &recorder.recall(0).events[0];
        assert_eq!((event.direction, event.what), (Direction::Sent, What::Accepted));
        assert_eq!(event.peers, Peers::One(NodeId(1)));
    }
}
