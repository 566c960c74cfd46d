//! What a client can ask for, as types, and how words become one.
//!
//! One definition for all doors: `ssh node paxos …`, the local program (which parses before it
//! dials), the lines of a batch. A [`Request`] that exists is well-formed: keys within their
//! limits, numbers in range, flags that agree with each other. Parsing touches nothing: no files,
//! no standard input, no clock.

use super::failure::{Code, Failure};
use super::grammar::{self, Sorted, VerbSpec, forms, printable};
use super::logs;
pub use super::verb::{Consistency, Format, ValueSource, Verb};
use super::words;
use crate::store::command::{Condition, KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX, VALUE_BYTES_MAX};
use bytes::Bytes;
use std::time::Duration;

/// How long a request may take if nothing else is said. Long enough for an election and a retry,
/// short enough for somebody who waits at a terminal.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// A request that may take longer than this is a request without a deadline, which nothing here is.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The longest request id and batch id; they are stored and echoed.
pub const ID_BYTES_MAX: usize = REQUEST_ID_BYTES_MAX;

/// The most requests of one batch that may run at once: what one client may have in flight.
pub const BATCH_WINDOW_MAX: usize = 1024;

/// The longest line of a batch: the longest value with a backslash before each byte, and room for
/// the other words.
pub const LINE_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX + 64 * 1024;

/// The most keys that one list may ask for by number. Without `--limit` a list is bounded by bytes
/// instead.
pub const LIST_LIMIT_MAX: u64 = 1_000_000;

/// A well-formed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub verb: Verb,
    /// Give up after this long.
    pub timeout: Duration,
    /// How to answer; none if the words do not say.
    pub format: Option<Format>,
}

/// One line of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLine {
    /// What `@ID` said.
    pub id: Option<String>,
    /// The request, or what is wrong with it.
    pub request: Result<Request, Failure>,
}

/// Parses the words after `paxos`.
///
/// # Errors
/// `usage` or `too_large`.
pub fn parse(words: &[Vec<u8>]) -> Result<Request, Failure> {
    parse_within(words, TIMEOUT_DEFAULT)
}

fn parse_within(words: &[Vec<u8>], timeout_default: Duration) -> Result<Request, Failure> {
    let sorted = grammar::sort(words)?;
    let timeout = match sorted.value("--timeout") {
        Some(text) => parse_timeout(text)?,
        None => timeout_default,
    };
    let format = parse_format(&sorted)?;
    let verb = if sorted.has("--help") {
        Verb::Help(sorted.verb)
    } else if let Some(spec) = sorted.verb {
        parse_verb(spec, &sorted)?
    } else {
        return Err(Failure::usage("no verb is given", "\"paxos help\" lists the verbs"));
    };
    Ok(Request { verb, timeout, format })
}

/// Parses a whole command line, as ssh brings it: `paxos put k v`.
///
/// # Errors
/// `usage` or `too_large`, and the format in which the sender would like to hear it.
pub fn parse_command(line: &[u8]) -> Result<Request, (Failure, Format)> {
    let words = words::split(line).map_err(|error| {
        let hint = "close it, or put a backslash before it";
        (Failure::usage(format!("cannot cut the command into words: {error}"), hint), Format::Table)
    })?;
    let format = match grammar::asks_for_json(&words) {
        true => Format::Json,
        false => Format::Table,
    };
    match words.split_first() {
        Some((program, words)) if names_program(program) => {
            parse(words).map_err(|failure| (failure, format))
        }
        Some((program, _)) => {
            let message = format!("\"{}\" is no command here", printable(program));
            let hint = "commands start with the word paxos, as in: paxos status";
            Err((Failure::usage(message, hint), format))
        }
        None => {
            let failure = Failure::usage("the command is empty", "try: paxos status");
            Err((failure, format))
        }
    }
}

/// `paxos`, or a path to it: what an operator's alias or a forced command may say.
fn names_program(word: &[u8]) -> bool {
    word.rsplit(|&byte| byte == b'/').next() == Some(b"paxos")
}

/// Parses a line of a batch; none if it is blank or a comment.
///
/// `timeout` is what a line gets that names none of its own.
pub fn parse_batch_line(line: &[u8], timeout: Duration) -> Option<BatchLine> {
    let line = line.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return None;
    }
    let (id, rest) = match split_id(line) {
        Ok(parts) => parts,
        Err(failure) => return Some(BatchLine { id: None, request: Err(failure) }),
    };
    Some(BatchLine { id, request: parse_batch_request(rest, timeout) })
}

/// The ID of a line that starts with `@ID`, and the rest of the line.
pub fn split_id(line: &[u8]) -> Result<(Option<String>, &[u8]), Failure> {
    let Some(tail) = line.trim_ascii_start().strip_prefix(b"@") else {
        return Ok((None, line));
    };
    let end = tail.iter().position(u8::is_ascii_whitespace).unwrap_or(tail.len());
    let id = parse_id(&tail[..end], "@ID")?;
    Ok((Some(id), &tail[end..]))
}

fn parse_batch_request(line: &[u8], timeout: Duration) -> Result<Request, Failure> {
    let words = words::split(line).map_err(|error| {
        let hint = "close it, or put a backslash before it; a request may not span lines";
        Failure::usage(format!("cannot cut the line into words: {error}"), hint)
    })?;
    let request = parse_within(&words, timeout)?;
    if request.format == Some(Format::Table) {
        return Err(Failure::usage("a batch answers in JSON only", "leave out -o table"));
    }
    if request.verb.is_endless() {
        let message = "a line of a batch has one answer, and what is followed has no end";
        return Err(Failure::usage(message, "follow a log by itself, outside of the batch"));
    }
    if request.verb.reads_stdin() {
        let message = "standard input holds the batch itself, so a line of it cannot read there";
        return Err(Failure::usage(message, "write the value into the line, or do this one alone"));
    }
    Ok(request)
}

fn parse_verb(spec: &'static VerbSpec, sorted: &Sorted) -> Result<Verb, Failure> {
    let operand = |index: usize| sorted.operands.get(index).map(Vec::as_slice);
    Ok(match spec.name {
        "status" => Verb::Status,
        "health" => Verb::Health,
        "members" => Verb::Members,
        "put" => Verb::Put {
            key: parse_key(operand(0).unwrap_or_default())?,
            value: match operand(1).unwrap_or_default() {
                b"-" => ValueSource::Stdin,
                value => ValueSource::Given(parse_value(value)?),
            },
            condition: parse_condition(sorted)?,
            request_id: parse_request_id(sorted)?,
        },
        "get" => Verb::Get {
            key: parse_key(operand(0).unwrap_or_default())?,
            raw: sorted.has("--raw"),
            consistency: parse_consistency(sorted)?,
        },
        "delete" => Verb::Delete {
            key: parse_key(operand(0).unwrap_or_default())?,
            condition: parse_condition(sorted)?,
            request_id: parse_request_id(sorted)?,
        },
        "list" => parse_list(sorted)?,
        "batch" => Verb::Batch {
            window: parse_number(sorted, "--window", 1, BATCH_WINDOW_MAX as u64)?.unwrap_or(1)
                as usize,
        },
        "leader" => parse_leader(spec, &sorted.operands)?,
        "metrics" => Verb::Metrics,
        "logs" => Verb::Logs(logs::parse(sorted)?),
        "trace" => {
            Verb::Trace { slot: number(operand(0).unwrap_or_default(), "a slot", 1, u64::MAX)? }
        }
        "version" => parse_version(spec, &sorted.operands)?,
        "trust" => parse_trust(spec, &sorted.operands)?,
        "help" => match operand(0) {
            None => Verb::Help(None),
            Some(name) => Verb::Help(Some(grammar::verb(name).ok_or_else(|| {
                let message = format!("there is no verb \"{}\"", printable(name));
                Failure::usage(message, "\"paxos help\" lists the verbs")
            })?)),
        },
        other => unreachable!("the verb {other} is in the table and not here"),
    })
}

fn parse_list(sorted: &Sorted) -> Result<Verb, Failure> {
    let prefix = sorted.operands.first().map_or(&[][..], Vec::as_slice);
    Ok(Verb::List {
        prefix: match prefix.is_empty() {
            true => Bytes::new(),
            false => parse_key(prefix)?,
        },
        after: sorted.value("--after").map(parse_key).transpose()?,
        limit: parse_number(sorted, "--limit", 1, LIST_LIMIT_MAX)?,
        keys_only: sorted.has("--keys-only"),
        consistency: parse_consistency(sorted)?,
    })
}

fn parse_leader(spec: &VerbSpec, operands: &[Vec<u8>]) -> Result<Verb, Failure> {
    match operands {
        [] => Ok(Verb::Leader),
        [word] if word == b"resign" => Ok(Verb::Transfer { to: None }),
        [word] if word == b"transfer" => Ok(Verb::Transfer { to: None }),
        [word, node] if word == b"transfer" => match std::str::from_utf8(node) {
            Ok(name) if !name.is_empty() => Ok(Verb::Transfer { to: Some(name.to_owned()) }),
            _ => Err(Failure::usage(
                format!("\"{}\" is no member's name", printable(node)),
                "\"paxos members\" lists them",
            )),
        },
        [word, ..] => Err(not_so(spec, word)),
    }
}

fn parse_trust(spec: &VerbSpec, operands: &[Vec<u8>]) -> Result<Verb, Failure> {
    match operands {
        [] => Ok(Verb::Trust),
        [word] if word == b"publish" => Ok(Verb::PublishTrust),
        [word, ..] => Err(not_so(spec, word)),
    }
}

/// A verb was given a word that it does not take in this place.
fn not_so(spec: &VerbSpec, word: &[u8]) -> Failure {
    Failure::usage(
        format!("{} does not take \"{}\" so", spec.name, printable(word)),
        format!("write {}", forms(spec).join(" or ")),
    )
}

fn parse_version(spec: &VerbSpec, operands: &[Vec<u8>]) -> Result<Verb, Failure> {
    match operands {
        [] => Ok(Verb::Version),
        [word, to] if word == b"raise" => {
            let to = number(to, "a cluster version", 2, u64::from(u16::MAX))?;
            Ok(Verb::RaiseVersion { to: u16::try_from(to).unwrap_or(u16::MAX) })
        }
        [word, ..] => Err(not_so(spec, word)),
    }
}

fn parse_key(word: &[u8]) -> Result<Bytes, Failure> {
    if word.is_empty() {
        return Err(Failure::usage("the key is empty", "a key holds at least one byte"));
    }
    check_key_length(word.len())?;
    Ok(Bytes::copy_from_slice(word))
}

/// Refuses a key over its limit.
///
/// # Errors
/// `too_large`.
pub fn check_key_length(bytes: usize) -> Result<(), Failure> {
    if bytes <= KEY_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the key has {bytes} bytes, more than {KEY_BYTES_MAX}");
    Err(Failure::new(Code::TooLarge, message, "use a shorter key, and put the rest into the value"))
}

fn parse_value(word: &[u8]) -> Result<Bytes, Failure> {
    check_value_length(word.len())?;
    Ok(Bytes::copy_from_slice(word))
}

/// Refuses a value over its limit.
///
/// # Errors
/// `too_large`.
pub fn check_value_length(bytes: usize) -> Result<(), Failure> {
    match bytes <= VALUE_BYTES_MAX {
        true => Ok(()),
        false => Err(value_too_large(&bytes.to_string())),
    }
}

/// The failure for a value over its limit, whose size is told in words.
pub fn value_too_large(bytes: &str) -> Failure {
    let message = format!("the value has {bytes} bytes, more than {VALUE_BYTES_MAX}");
    Failure::new(Code::TooLarge, message, "split it over several keys, or store where it is kept")
}

fn parse_condition(sorted: &Sorted) -> Result<Condition, Failure> {
    let mut conditions = Vec::new();
    if sorted.has("--if-absent") {
        conditions.push(Condition::Absent);
    }
    if let Some(value) = sorted.value("--if-value") {
        conditions.push(Condition::Value(parse_value(value)?));
    }
    if let Some(revision) = parse_number(sorted, "--if-revision", 0, u64::MAX)? {
        // A key that does not exist was last changed at revision 0, as lists and answers number
        // them.
        conditions.push(match revision {
            0 => Condition::Absent,
            _ => Condition::Revision(revision),
        });
    }
    match conditions.len() {
        0 => Ok(Condition::Always),
        1 => Ok(conditions.remove(0)),
        _ => Err(Failure::usage(
            "more than one condition is given",
            "use one of --if-absent, --if-value and --if-revision",
        )),
    }
}

fn parse_request_id(sorted: &Sorted) -> Result<Option<String>, Failure> {
    sorted.value("--request-id").map(|word| parse_id(word, "--request-id")).transpose()
}

/// Ids are stored, echoed and logged, so they are short and visible.
fn parse_id(word: &[u8], what: &str) -> Result<String, Failure> {
    match std::str::from_utf8(word) {
        Ok(id)
            if (1..=ID_BYTES_MAX).contains(&id.len())
                && !id.chars().any(|c| c.is_control() || c.is_whitespace()) =>
        {
            Ok(id.to_owned())
        }
        _ => Err(Failure::usage(
            format!("\"{}\" cannot be an id ({what})", printable(word)),
            format!("use 1 to {ID_BYTES_MAX} visible characters without blanks"),
        )),
    }
}

fn parse_consistency(sorted: &Sorted) -> Result<Consistency, Failure> {
    match sorted.value("--consistency") {
        None | Some(b"linearizable") => Ok(Consistency::Linearizable),
        Some(b"local") => Ok(Consistency::Local),
        Some(other) => Err(Failure::usage(
            format!("\"{}\" is no consistency", printable(other)),
            "use --consistency linearizable (the default) or --consistency local",
        )),
    }
}

fn parse_format(sorted: &Sorted) -> Result<Option<Format>, Failure> {
    let named = match sorted.value("--output") {
        None => None,
        Some(b"json") => Some(Format::Json),
        Some(b"table") => Some(Format::Table),
        Some(other) => {
            let message = format!("\"{}\" is no output format", printable(other));
            return Err(Failure::usage(message, "use -o table or -o json"));
        }
    };
    match (named, sorted.has("--json")) {
        (Some(Format::Table), true) => {
            Err(Failure::usage("-o table and --json contradict each other", "give one of them"))
        }
        (None, true) => Ok(Some(Format::Json)),
        (named, _) => Ok(named),
    }
}

/// Reads a span of time: `5s`, `500ms`, `1m30s`, or plain seconds as `5` or `0.5`.
///
/// # Errors
/// `usage`, also for zero and for more than [`TIMEOUT_MAX`].
pub fn parse_timeout(word: &[u8]) -> Result<Duration, Failure> {
    let text = std::str::from_utf8(word).unwrap_or_default();
    let plain_seconds = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let span = match plain_seconds {
        true => text.parse().ok().and_then(|s: f64| Duration::try_from_secs_f64(s).ok()),
        false => humantime::parse_duration(text).ok(),
    };
    match span {
        Some(span) if !span.is_zero() && span <= TIMEOUT_MAX => Ok(span),
        _ => Err(Failure::usage(
            format!("\"{}\" is no timeout", printable(word)),
            "write it as 5s, 500ms, 1m30s or plain seconds; above zero, at most 1h",
        )),
    }
}

pub(super) fn parse_number(
    sorted: &Sorted,
    flag: &str,
    least: u64,
    most: u64,
) -> Result<Option<u64>, Failure> {
    sorted.value(flag).map(|word| number(word, flag, least, most)).transpose()
}

fn number(word: &[u8], what: &str, least: u64, most: u64) -> Result<u64, Failure> {
    // `parse` alone would let a leading plus sign through.
    let digits = std::str::from_utf8(word).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Failure::usage(
            format!("\"{}\" is no number for {what}", printable(word)),
            match most {
                u64::MAX => format!("use a whole number from {least} on"),
                _ => format!("use a whole number from {least} to {most}"),
            },
        )),
    }
}
