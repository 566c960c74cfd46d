//! What clients were told, a line of JSON for each request, and what that amounts to.
//!
//! Times are microseconds of one monotonic clock since the recording began. A write without an end
//! is one of which nobody knows whether it was applied; a read without an answer is not recorded.

use super::linearizable::{Event, Operation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was asked, with what was told about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "asked")]
pub enum Asked {
    /// Found this value, or none.
    Get { found: Option<String> },
    /// Stored a value.
    Put { value: String },
    /// Stored a value if the key held that other one (none: if there was no key); said whether.
    PutIf { holds: Option<String>, value: String, told: Option<bool> },
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which client.
    pub client: String,
    pub key: String,
    #[serde(flatten)]
    pub asked: Asked,
    pub begun: u64,
    /// None if it was never answered.
    pub ended: Option<u64>,
    /// How often it was asked before it was answered: over another node, or once more.
    #[serde(default)]
    pub again: u32,
    /// Why it was asked again, or given up.
    #[serde(default)]
    pub trouble: Option<String>,
}

impl Line {
    fn is_write(&self) -> bool {
        !matches!(self.asked, Asked::Get { .. })
    }
}

/// Reads a record.
///
/// # Panics
/// With the number of a line that is none.
pub fn parse(text: &str) -> Vec<Line> {
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("line {}: {error}", at + 1))
    };
    text.lines().enumerate().map(line).collect()
}

/// The record as the checker takes it.
pub fn events(lines: &[Line]) -> Vec<Event> {
    let origin = Instant::now();
    let at = |micros| origin + Duration::from_micros(micros);
    let event = |line: &Line| Event {
        key: line.key.clone(),
        operation: match line.asked.clone() {
            Asked::Get { found } => Operation::Read(found),
            Asked::Put { value } => Operation::Write(value),
            Asked::PutIf { holds, value, told } => Operation::WriteIf { holds, value, told },
        },
        begun: at(line.begun),
        ended: line.ended.map(at),
    };
    lines.iter().map(event).collect()
}

/// What a record amounts to.
#[derive(Debug, Default, PartialEq)]
pub struct Summary {
    pub acknowledged: usize,
    pub failed: usize,
    pub reads: usize,
    /// Writes that were asked more than once.
    pub again: usize,
    /// The longest time that a client was without an acknowledged write, and which client.
    pub pause: (f64, String),
}

/// Counts.
pub fn summary(lines: &[Line]) -> Summary {
    let mut summary = Summary::default();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for line in lines {
        match (line.is_write(), line.ended) {
            (false, _) => summary.reads += 1,
            (true, None) => summary.failed += 1,
            (true, Some(ended)) => {
                summary.acknowledged += 1;
                summary.again += usize::from(line.again > 0);
                let before = last.insert(&line.client, ended).unwrap_or(ended);
                let pause = ended.saturating_sub(before) as f64 / 1e6;
                if pause > summary.pause.0 {
                    summary.pause = (pause, line.client.clone());
                }
            }
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(client: &str, asked: Asked, begun: u64, ended: Option<u64>) -> Line {
        let (client, key) = (client.to_owned(), "k".to_owned());
        Line { client, key, asked, begun, ended, again: 0, trouble: None }
    }

    #[test]
    fn what_is_written_is_read() {
        let value = "v1".to_owned();
        let lines = [
            line("a", Asked::Get { found: None }, 1, Some(2)),
            line("b", Asked::Put { value: value.clone() }, 1, None),
            line("c", Asked::PutIf { holds: None, value, told: Some(true) }, 3, Some(9)),
        ];
        let text: Vec<String> =
            lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        assert_eq!(parse(&text.join("\n")), lines);
        let events = events(&lines);
        assert_eq!(events[0].ended.unwrap() - events[0].begun, Duration::from_micros(1));
        assert_eq!((events[1].ended, &events[1].operation), (None, &Operation::Write("v1".into())));
    }

    #[test]
    fn a_pause_is_one_clients() {
        let put = |client, ended| line(client, Asked::Put { value: "v".to_owned() }, 0, ended);
        let second = 1_000_000;
        let lines = [
            put("a", Some(second)),
            put("b", Some(2 * second)),
            put("a", Some(4 * second)),
            put("b", None),
            line("b", Asked::Get { found: None }, 0, Some(9 * second)),
        ];
        let summary = summary(&lines);
        assert_eq!((summary.acknowledged, summary.failed, summary.reads), (3, 1, 1));
        assert_eq!(summary.pause, (3.0, "a".to_owned()));
    }
}
