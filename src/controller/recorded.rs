//! What a node's recorder kept of the protocol, as `paxos logs --protocol -o json` tells it.
//!
//! Times are each node's own: those of two nodes are never compared here.

use crate::wire::event::{Moment, ProtocolEvent};

/// So much of a line that cannot be read is shown.
const LINE_SHOWN: usize = 160;

/// A recorder's events in their order, or why they could not be had.
pub type Recording = Result<Vec<ProtocolEvent>, String>;

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

/// Where a recording ended: what comes after is newer. None for one that was empty.
pub type Mark = Option<Moment>;

/// The mark at the end of these events.
pub fn mark(events: &[ProtocolEvent]) -> Mark {
    events.last().map(|event| event.at)
}

/// What was recorded after the mark.
pub fn after(events: &[ProtocolEvent], mark: Mark) -> Vec<ProtocolEvent> {
    let newer = |event: &&ProtocolEvent| mark.is_none_or(|mark| event.at > mark);
    events.iter().filter(newer).cloned().collect()
}

/// The first slot from `first` to `last` that none of the events covers.
pub fn uncovered<'a>(
    events: impl Iterator<Item = &'a ProtocolEvent>,
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
    use crate::wire::event::{Direction, What};

    fn learned(at: u64, first: u64, last: u64) -> ProtocolEvent {
        ProtocolEvent {
            at: Moment(at),
            node: "l1".to_owned(),
            seq: None,
            event: Direction::Local,
            what: What::Learned,
            peers: Vec::new(),
            ballot: None,
            counter: None,
            proposer: None,
            first: Some(first),
            last: Some(last),
            votes: None,
            promised: None,
            detail: None,
        }
    }

    #[test]
    fn what_is_written_line_by_line_is_read_again() {
        let events = [learned(1, 8, 10), learned(2, 11, 11)];
        let text: String =
            events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n\n").collect();
        assert_eq!(read(&text).unwrap(), events);
        let error = read("{\"ok\":false}").unwrap_err();
        assert!(error.contains("{\"ok\":false}"), "{error}");
    }

    #[test]
    fn what_is_after_a_mark_is_newer() {
        let events = [learned(1, 1, 1), learned(2, 2, 2), learned(3, 3, 3)];
        assert_eq!(mark(&events), Some(Moment(3)));
        assert_eq!(after(&events, mark(&events[..2])), events[2..]);
        assert_eq!(after(&events, mark(&[])), events);
    }

    #[test]
    fn slots_are_covered_by_runs_in_any_order() {
        let runs = [learned(1, 7, 9), learned(2, 1, 5), learned(3, 4, 6)];
        assert_eq!(uncovered(runs.iter(), 2, 9), None);
        assert_eq!(uncovered(runs.iter(), 2, 11), Some(10));
        assert_eq!(uncovered(runs[..2].iter(), 2, 9), Some(6));
        assert_eq!(uncovered([].iter(), 3, 3), Some(3));
    }
}
