//! What a node's recorder kept of the protocol, as `paxos logs --protocol -o json` tells it.
//!
//! Times are each node's own: those of two nodes are never compared here.

use serde::Deserialize;

/// Which way a message went, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// It left this node; what is said of the disk was durable before.
    Sent,
    /// It came in.
    Received,
    /// The node itself did or learned something.
    Local,
}

/// One event, with those of its fields that somebody looks at. What newer nodes add is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// When, in the clock of the node; texts of one length, so they compare as times do.
    pub at: String,
    /// Which way.
    pub event: Way,
    /// The protocol's word for it: prepare, promise, accept, leads, …
    pub what: String,
    /// Whom it went to, or who sent it.
    #[serde(default)]
    pub peers: Vec<String>,
    /// The ballot's number, where there is one.
    #[serde(default)]
    pub ballot: Option<String>,
    /// The first slot that it speaks of.
    #[serde(default)]
    pub first: Option<u64>,
    /// The last one.
    #[serde(default)]
    pub last: Option<u64>,
}

impl Event {
    /// Whether it is this word, and went this way.
    pub fn is(&self, way: Way, what: &str) -> bool {
        self.event == way && self.what == what
    }

    /// Whether it is about this ballot.
    pub fn under(&self, ballot: &str) -> bool {
        self.ballot.as_deref() == Some(ballot)
    }

    /// Whether this node is one of its peers.
    pub fn with(&self, peer: &str) -> bool {
        self.peers.iter().any(|name| name == peer)
    }

    /// Whether the slot lies in its run.
    pub fn covers(&self, slot: u64) -> bool {
        matches!((self.first, self.last), (Some(first), Some(last)) if first <= slot && slot <= last)
    }
}

/// A recorder's events in their order, or why they could not be had.
pub type Recording = Result<Vec<Event>, String>;

/// Reads one JSON object per line.
///
/// # Errors
/// When a line is something else, in words that show it.
pub fn read(text: &str) -> Recording {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let parse = |line: &str| {
        serde_json::from_str(line).map_err(|error| {
            let start: String = line.chars().take(LINE_SHOWN).collect();
            format!("it told something else than events of its recorder ({error}): {start}")
        })
    };
    lines.map(parse).collect()
}

/// So much of a line that cannot be read is shown.
const LINE_SHOWN: usize = 160;

/// Where a recording ended: what comes after is newer. None for one that was empty.
pub type Mark = Option<String>;

/// The mark at the end of these events.
pub fn mark(events: &[Event]) -> Mark {
    events.last().map(|event| event.at.clone())
}

/// What was recorded after the mark.
pub fn after(events: &[Event], mark: &Mark) -> Vec<Event> {
    let newer = |event: &&Event| mark.as_ref().is_none_or(|mark| event.at > *mark);
    events.iter().filter(newer).cloned().collect()
}

/// The first slot from `first` to `last` that none of the events covers.
pub fn uncovered<'a>(
    events: impl Iterator<Item = &'a Event>,
    first: u64,
    last: u64,
) -> Option<u64> {
    let mut runs: Vec<(u64, u64)> =
        events.filter_map(|event| Some((event.first?, event.last?))).collect();
    runs.sort_unstable();
    let mut next = first;
    for (from, to) in runs {
        if from <= next && next <= to {
            next = to.saturating_add(1);
        }
    }
    (next <= last).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_with_or_without_their_fields() {
        let text = concat!(
            r#"{"at":"2026-11-25T01:02:03.123456Z","node":"p1","event":"sent","what":"accept","#,
            r#""peers":["a1","a2"],"ballot":"101","counter":1,"proposer":1,"first":8,"last":10}"#,
            "\n\n",
            r#"{"at":"2026-11-25T01:02:04.000000Z","node":"p1","event":"local","what":"inquiring"}"#,
            "\n"
        );
        let events = read(text).unwrap();
        assert_eq!(events.len(), 2);
        let accept = &events[0];
        assert!(accept.is(Way::Sent, "accept") && accept.under("101") && accept.with("a2"));
        assert!(accept.covers(8) && accept.covers(10) && !accept.covers(11) && !accept.with("a3"));
        assert!(!events[1].covers(8) && events[1].peers.is_empty());
        let error = read("{\"ok\":false}").unwrap_err();
        assert!(error.contains("{\"ok\":false}"), "{error}");
    }

    #[test]
    fn what_is_after_a_mark_is_newer() {
        let event = |at: &str| Event {
            at: at.to_owned(),
            event: Way::Local,
            what: "learned".to_owned(),
            peers: Vec::new(),
            ballot: None,
            first: None,
            last: None,
        };
        let events = [event("1"), event("2"), event("3")];
        assert_eq!(mark(&events), Some("3".to_owned()));
        assert_eq!(after(&events, &mark(&events[..2])), events[2..]);
        assert_eq!(after(&events, &mark(&[])), events);
    }

    #[test]
    fn slots_are_covered_by_runs_in_any_order() {
        let run = |first, last| Event {
            at: String::new(),
            event: Way::Local,
            what: "learned".to_owned(),
            peers: Vec::new(),
            ballot: None,
            first: Some(first),
            last: Some(last),
        };
        let runs = [run(7, 9), run(1, 5), run(4, 6)];
        assert_eq!(uncovered(runs.iter(), 2, 9), None);
        assert_eq!(uncovered(runs.iter(), 2, 11), Some(10));
        assert_eq!(uncovered(runs[..2].iter(), 2, 9), Some(6));
        assert_eq!(uncovered([].iter(), 3, 3), Some(3));
    }
}
