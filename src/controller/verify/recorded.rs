//! What a node's recorder kept of the protocol, as `paxos logs --protocol -o json` tells it.
//!
//! What is newer is told by the numbers that each recorder gives its events, and by no clock.

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
pub type Mark = Option<Marked>;

/// The last event of a recording. Its moment does not say what is newer; it tells the event from
/// one that got the same number in another life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    seq: u64,
    at: Moment,
}

/// The mark at the end of these events.
///
/// # Errors
/// When the node does not number its events.
pub fn mark(events: &[ProtocolEvent]) -> Result<Mark, String> {
    let marked = |event: &ProtocolEvent| {
        event.seq.map(|seq| Marked { seq, at: event.at }).ok_or_else(unnumbered)
    };
    events.last().map(marked).transpose()
}

fn unnumbered() -> String {
    "its recorder does not number its events; deploy a newer version there".to_owned()
}

/// What was recorded after the mark. Numbers begin again when a process does: then all is new.
///
/// # Errors
/// When what came right after the mark is not among these events any more.
pub fn after(events: &[ProtocolEvent], mark: Mark) -> Recording {
    let numbers: Vec<u64> =
        events.iter().map(|event| event.seq.ok_or_else(unnumbered)).collect::<Result<_, _>>()?;
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
        return Ok(Vec::new());
    };
    let lost = |from: u64| {
        let gone = first.saturating_sub(from);
        format!("{gone} events after the mark are in its recorder no more; it is too busy for this")
    };
    let Some(mark) = mark else {
        return if *first == 0 { Ok(events.to_vec()) } else { Err(lost(0)) };
    };
    let same = events.iter().find(|event| event.seq == Some(mark.seq));
    if *last < mark.seq || same.is_some_and(|event| event.at != mark.at) {
        return if *first == 0 { Ok(events.to_vec()) } else { Err(lost(0)) };
    }
    if *first > mark.seq + 1 {
        return Err(lost(mark.seq + 1));
    }
    Ok(events.iter().filter(|event| event.seq > Some(mark.seq)).cloned().collect())
}

/// Whether these events, the newest of a recorder, reach back to the mark or to its beginning.
pub fn reaches(events: &[ProtocolEvent], mark: Mark) -> bool {
    let first = events.first().and_then(|event| event.seq);
    first.is_none_or(|first| first == 0 || mark.is_some_and(|mark| first <= mark.seq))
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
            at: Moment(100 - at),
            node: "l1".to_owned(),
            seq: Some(at - 1),
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
        let after = |events, marked| after(events, mark(marked).unwrap());
        assert_eq!(after(&events, &events[..2]).unwrap(), events[2..], "clocks may run backwards");
        assert_eq!(after(&events[1..], &events[..2]).unwrap(), events[2..]);
        assert_eq!(after(&events, &[]).unwrap(), events);
        assert!(after(&events[2..], &events[..1]).unwrap_err().contains("1 events"));
        assert!(reaches(&events[1..], mark(&events[..2]).unwrap()));
        assert!(!reaches(&events[2..], mark(&events[..2]).unwrap()));
        let unnumbered = ProtocolEvent { seq: None, ..learned(1, 1, 1) };
        assert!(mark(&[unnumbered]).is_err());
    }

    #[test]
    fn after_a_restart_all_is_new() {
        let before = [learned(1, 1, 1), learned(2, 2, 2)];
        let again = |at| ProtocolEvent { at: Moment(200 + at), ..learned(at, 1, 1) };
        let restarted = [again(1), again(2), again(3)];
        let mark = mark(&before).unwrap();
        assert_eq!(after(&restarted, mark).unwrap(), restarted);
        assert_eq!(after(&restarted[..1], mark).unwrap(), restarted[..1]);
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
