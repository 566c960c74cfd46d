//! Which lines of a node's log somebody wants: the operands of `paxos logs`.

use super::failure::Failure;
use super::grammar::Sorted;
use super::request::parse_number;

/// Lines of the node's log shown if no number is given: a few screens.
pub const LOG_LINES_DEFAULT: usize = 100;

/// The most lines of the node's log shown at once: all events of the protocol that a node keeps.
pub const LOG_LINES_MAX: usize = 32_768;

/// The longest text to look for in a log.
pub const GREP_BYTES_MAX: usize = 256;

/// Which lines of a node's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// How many from its end.
    pub lines: usize,
    /// The protocol's events instead of the log file.
    pub protocol: bool,
    /// Only lines that hold this text.
    pub grep: Option<String>,
    /// And what comes, until the client goes away.
    pub follow: bool,
    /// Of this node and no other.
    pub node: Option<String>,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        let (protocol, follow) = (false, false);
        LogQuery { lines: LOG_LINES_DEFAULT, protocol, grep: None, follow, node: None }
    }
}

impl LogQuery {
    /// Whether a line is wanted. Large and small ASCII letters count as the same.
    pub fn wants(&self, line: &str) -> bool {
        let Some(text) = self.grep.as_ref().filter(|text| !text.is_empty()) else { return true };
        line.as_bytes().windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
    }
}

pub(super) fn parse(sorted: &Sorted) -> Result<LogQuery, Failure> {
    let text = |flag: &str| match sorted.value(flag).map(std::str::from_utf8) {
        None => Ok(None),
        Some(Ok(text)) if (1..=GREP_BYTES_MAX).contains(&text.len()) => Ok(Some(text.to_owned())),
        Some(_) => Err(Failure::usage(
            format!("what follows {flag} is no text of 1 to {GREP_BYTES_MAX} bytes"),
            "give a shorter text, in UTF-8",
        )),
    };
    Ok(LogQuery {
        lines: parse_number(sorted, "--lines", 1, LOG_LINES_MAX as u64)?
            .map_or(LOG_LINES_DEFAULT, |lines| lines as usize),
        protocol: sorted.has("--protocol"),
        grep: text("--grep")?,
        follow: sorted.has("--follow"),
        node: text("--node")?,
    })
}
