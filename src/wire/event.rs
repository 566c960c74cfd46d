//! One event of the protocol as people and programs see it: a line, or a JSON object.
//!
//! A node's recorder fills these, `paxos logs --protocol` shows them, and the controller reads them
//! back to merge those of many nodes. Fields may be added; none changes its meaning. The wall clock
//! in here serves to put events of several nodes in order for a reader, and nothing else.

use super::report::JsonId;
use crate::paxos::ballot::ProposalNumber;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last microsecond of the year 9999, where the format of [`Moment`] ends.
const LAST_MICROSECOND: u64 = 253_402_300_799_999_999;

/// A point of wall-clock time: microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// That long after the Unix epoch.
    pub fn since_epoch(span: Duration) -> Moment {
        Moment(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }

    /// As in `2026-11-25T01:02:03.123456Z`; what lies beyond the calendar is its last moment.
    fn text(self) -> String {
        let at = Duration::from_micros(self.0.min(LAST_MICROSECOND));
        humantime::format_rfc3339_micros(UNIX_EPOCH + at).to_string()
    }

    /// The time of day in UTC, as in `01:02:03.123456`.
    pub fn time_of_day(self) -> String {
        let text = self.text();
        let time = text.split_once('T').map_or(&*text, |(_, time)| time);
        time.trim_end_matches('Z').to_owned()
    }
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: SystemTime = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        let span = time.duration_since(UNIX_EPOCH).map_err(serde::de::Error::custom)?;
        // A leap second at the very end lies behind it, and would be written as another time.
        Ok(Moment(Moment::since_epoch(span).0.min(LAST_MICROSECOND)))
    }
}

/// Which way it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To others. A promise or an acceptance that was sent is durable.
    Sent,
    /// From another.
    Received,
    /// Within the node.
    Local,
}

/// What happened: a message of the protocol, or a step of the node's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Phase 1a.
    Prepare,
    /// Phase 1b.
    Promise,
    /// Phase 2a.
    Accept,
    /// Phase 2b.
    Accepted,
    /// A higher ballot was promised.
    Refused,
    /// Whether anybody would miss the leader.
    Inquire,
    /// The answer to that.
    Report,
    /// The leader asks a node to take over.
    HandOver,
    /// A node asks the leader to pass leadership on.
    AskHandOver,
    /// A node asks for chosen entries.
    Fetch,
    /// Chosen entries.
    Fetched,
    /// How far slots are chosen.
    Chosen,
    /// Commands on their way to the leader.
    Forward,
    /// The node asks whether a leader is missed.
    Inquiring,
    /// The node begins phase 1.
    Campaigns,
    /// Phase 1 was given up.
    CampaignLost,
    /// Phase 1 is complete.
    Leads,
    /// The node leads no longer.
    StepsDown,
    /// The node follows a leader.
    Follows,
    /// The leader is no longer heard.
    LeaderLost,
    /// Slots became known chosen here.
    Learned,
    /// A peer said what it may not say.
    RefusedMessage,
    /// Another process uses this node's proposer id.
    ProposerClash,
    /// The node's acceptor forgot what it pledged, and votes no more.
    Fenced,
}

impl What {
    /// Whether it says how a slot was chosen, if it is about these slots. Phase 1 is about every
    /// slot from the first on.
    pub fn covers(self, first: Option<u64>, last: Option<u64>, slot: u64) -> bool {
        match (self, first, last) {
            (What::Prepare | What::Promise, Some(first), _) => first <= slot,
            (
                What::Accept | What::Accepted | What::Fetched | What::Learned,
                Some(first),
                Some(last),
            ) => (first..=last).contains(&slot),
            _ => false,
        }
    }

    /// The word in a line for people: the protocol's own, as the papers write it.
    pub fn word(self) -> &'static str {
        match self {
            What::Prepare => "Prepare",
            What::Promise => "Promise",
            What::Accept => "Accept",
            What::Accepted => "Accepted",
            What::Refused => "Refused",
            What::Inquire => "Inquire",
            What::Report => "Report",
            What::HandOver => "HandOver",
            What::AskHandOver => "AskHandOver",
            What::Fetch => "Fetch",
            What::Fetched => "Fetched",
            What::Chosen => "Chosen",
            What::Forward => "Forward",
            What::Inquiring => "inquires",
            What::Campaigns => "campaigns",
            What::CampaignLost => "campaign lost",
            What::Leads => "leads",
            What::StepsDown => "steps down",
            What::Follows => "follows",
            What::LeaderLost => "leader lost",
            What::Learned => "learned",
            What::RefusedMessage => "refused message",
            What::ProposerClash => "proposer clash",
            What::Fenced => "fenced",
        }
    }
}

/// One event of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolEvent {
    /// When, by the node's wall clock.
    pub at: Moment,
    /// At which node.
    pub node: String,
    /// The how-manieth event of the node's recorder it is; they count from 0 in the life of the
    /// process. None from a node that does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seq: Option<u64>,
    /// Which way.
    pub event: Direction,
    /// What.
    pub what: What,
    /// To whom it goes, from whom it came, or whom it is about.
    pub peers: Vec<String>,
    /// The ballot that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ballot: Option<JsonId>,
    /// The how-manieth attempt that ballot is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counter: Option<u64>,
    /// Of which proposer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposer: Option<u8>,
    /// The first slot; of a promise its floor, below which all is chosen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<u64>,
    /// The last slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<u64>,
    /// How many votes a promise reports.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub votes: Option<u64>,
    /// The ballot that was promised instead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub promised: Option<JsonId>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// The width of the column of protocol words; the longest one of a round fits.
const WORD_WIDTH: usize = 8;

/// No column of peers is wider: names of a large cluster run over, and the lines stay readable.
const PEERS_WIDTH_MAX: usize = 32;

/// How wide the columns of names are, so that lines stand below one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Columns {
    node: usize,
    peers: usize,
}

impl Columns {
    /// Wide enough for these members; a message goes to all of them but one at most.
    pub fn for_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Columns {
        let widths: Vec<usize> = names.into_iter().map(|name| name.chars().count()).collect();
        let node = widths.iter().copied().max().unwrap_or(0);
        let all: usize = widths.iter().map(|width| width + 1).sum();
        let least = widths.iter().copied().min().unwrap_or(0);
        Columns {
            node,
            peers: all.saturating_sub(least + 2).clamp(node, PEERS_WIDTH_MAX.max(node)),
        }
    }
}

impl ProtocolEvent {
    /// The line for people, with a newline.
    pub fn to_line(&self, columns: Columns) -> String {
        let Columns { node, peers } = columns;
        let (time, name, word) = (self.at.time_of_day(), &self.node, self.what.word());
        let mut line = format!("{time} {name:node$}  ");
        let names = self.peers.join(" ");
        let _ = match self.event {
            Direction::Sent => write!(line, "→ {names:peers$}  {word:WORD_WIDTH$}"),
            Direction::Received => write!(line, "← {names:peers$}  {word:WORD_WIDTH$}"),
            Direction::Local => {
                let word = format!("{word} {names}");
                write!(line, "  {:width$}", word.trim_end(), width = peers + 2 + WORD_WIDTH)
            }
        };
        let facts = self.facts().join(", ");
        let mut line = format!("{line}  {facts}").trim_end().to_owned();
        line.push('\n');
        line
    }

    /// The JSON object, with a newline.
    pub fn to_json(&self) -> String {
        let mut line =
            serde_json::to_string(self).expect("strings and numbers into memory cannot fail");
        line.push('\n');
        line
    }

    /// Whether it says how that slot was chosen.
    pub fn covers(&self, slot: u64) -> bool {
        self.what.covers(self.first, self.last, slot)
    }

    fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        if let Some(ballot) = self.ballot {
            let number = ProposalNumber::from_raw(ballot.0);
            let (counter, proposer) = (number.counter(), number.proposer().value());
            facts.push(match self.what {
                What::Prepare | What::Campaigns => {
                    format!("ballot {} (attempt {counter} of proposer {proposer})", ballot.0)
                }
                _ => format!("ballot {}", ballot.0),
            });
        }
        if let Some(promised) = self.promised {
            facts.push(format!("promised {}", promised.0));
        }
        facts.extend(match (self.what, self.first, self.last) {
            (What::Prepare | What::Fetch, Some(first), _) => {
                Some(format!("every slot from {first}"))
            }
            (What::Promise, Some(floor), _) => Some(format!("floor {floor}")),
            (_, Some(first), Some(last)) if first == last => Some(format!("slot {first}")),
            (_, Some(first), Some(last)) => Some(format!("slots {first}..{last}")),
            (_, Some(first), None) => Some(format!("from slot {first}")),
            (_, None, Some(last)) => Some(format!("every slot up to {last}")),
            (_, None, None) => None,
        });
        match self.votes {
            Some(1) => facts.push("1 vote".to_owned()),
            Some(votes) => facts.push(format!("{votes} votes")),
            None => {}
        }
        facts.extend(self.detail.clone());
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(node: &str, event: Direction, what: What, peers: &[&str]) -> ProtocolEvent {
        ProtocolEvent {
            at: Moment(1_795_568_523_123_456),
            node: node.to_owned(),
            seq: Some(7),
            event,
            what,
            peers: peers.iter().map(|&peer| peer.to_owned()).collect(),
            ballot: Some(JsonId(101)),
            counter: Some(1),
            proposer: Some(1),
            first: Some(8),
            last: None,
            votes: None,
            promised: None,
            detail: None,
        }
    }

    #[test]
    fn lines_stand_below_one_another() {
        let columns = Columns::for_names(["p1", "a1", "a2", "a3"]);
        let prepare = event("p1", Direction::Sent, What::Prepare, &["a1", "a2", "a3"]);
        let promise = event("p1", Direction::Received, What::Promise, &["a1"]);
        let promise = ProtocolEvent { votes: Some(0), ..promise };
        let leads = event("p1", Direction::Local, What::Leads, &[]);
        let leads = ProtocolEvent { first: None, ..leads };
        let accept = event("p1", Direction::Sent, What::Accept, &["a1", "a2", "a3"]);
        let accept = ProtocolEvent { last: Some(10), ..accept };
        let learned = event("a1", Direction::Local, What::Learned, &[]);
        let learned = ProtocolEvent { last: Some(8), ballot: None, ..learned };
        let lines = [prepare, promise, leads, accept, learned].map(|e| e.to_line(columns));
        let time = "01:02:03.123456";
        let attempt = "ballot 101 (attempt 1 of proposer 1)";
        assert_eq!(
            lines.concat(),
            format!(
                "{time} p1  → a1 a2 a3  Prepare   {attempt}, every slot from 8\n\
                 {time} p1  ← a1        Promise   ballot 101, floor 8, 0 votes\n\
                 {time} p1    leads               ballot 101\n\
                 {time} p1  → a1 a2 a3  Accept    ballot 101, slots 8..10\n\
                 {time} a1    learned             slot 8\n"
            )
        );
    }

    #[test]
    fn json_comes_back_and_holds_no_empty_fields() {
        let accept = event("p1", Direction::Sent, What::Accept, &["a1"]);
        let accept = ProtocolEvent { last: Some(10), ..accept };
        let json = accept.to_json();
        assert_eq!(
            json,
            "{\"at\":\"2026-11-25T01:02:03.123456Z\",\"node\":\"p1\",\"seq\":7,\"event\":\"sent\",\
             \"what\":\"accept\",\"peers\":[\"a1\"],\"ballot\":\"101\",\"counter\":1,\
             \"proposer\":1,\"first\":8,\"last\":10}\n"
        );
        assert_eq!(serde_json::from_str::<ProtocolEvent>(&json).unwrap(), accept);
    }

    #[test]
    fn events_cover_the_slots_that_they_speak_of() {
        let covers = |what, first, last, slot| {
            ProtocolEvent { first, last, ..event("p1", Direction::Sent, what, &[]) }.covers(slot)
        };
        assert!(
            covers(What::Prepare, Some(8), None, 8) && covers(What::Prepare, Some(8), None, 99)
        );
        assert!(!covers(What::Prepare, Some(8), None, 7));
        assert!(covers(What::Accept, Some(8), Some(9), 9));
        assert!(!covers(What::Accept, Some(8), Some(9), 10));
        assert!(!covers(What::Chosen, None, Some(9), 9));
    }

    #[test]
    fn time_beyond_the_calendar_is_no_panic() {
        assert!(Moment(u64::MAX).time_of_day().starts_with("23:59:59"));
    }
}
