//! What a request gets, as types, and the two forms in which people and programs see it.
//!
//! Rendering touches nothing but memory. A value goes out as it was stored: the table form of `get`
//! is its bytes, the JSON form is `value` if they are UTF-8 and `value_base64` if not.

use super::event::{Columns, ProtocolEvent};
use super::failure::{Code, Failure};
use super::grammar::escaped;
use super::report::{self, HealthReport, JsonId, MemberReport, StatusReport};
use super::request::Format;
use super::trace::TraceReport;
use crate::store::KeyValue;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A key with what is stored under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Bytes,
    /// The value; none where only keys were asked for.
    pub value: Option<Bytes>,
    /// When it was last changed; what `--if-revision` compares.
    pub revision: u64,
    /// When it came into being.
    pub create_revision: u64,
    /// How often it was written since; 1 at first.
    pub version: u64,
}

impl Record {
    /// As the store keeps it.
    pub fn new(key: Bytes, stored: KeyValue) -> Record {
        Record {
            key,
            value: Some(stored.value),
            revision: stored.mod_revision,
            create_revision: stored.create_revision,
            version: stored.version,
        }
    }
}

/// Keys in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The store's revision at which all of them were read.
    pub revision: u64,
    /// The keys.
    pub items: Vec<Record>,
    /// Whether a limit cut the list; the last item's key is where to go on.
    pub more: bool,
}

/// A request that was granted.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To `status`.
    Status(Box<StatusReport>),
    /// To `health`.
    Health(HealthReport),
    /// To `members`.
    Members(Vec<MemberReport>),
    /// To `put` and `delete`.
    Written {
        /// The key.
        key: Bytes,
        /// The store's revision with the change in it.
        revision: u64,
    },
    /// To `get`.
    Value {
        /// What is stored.
        record: Record,
        /// Without the newline.
        raw: bool,
    },
    /// To `list`.
    Listed(Page),
    /// To `leader`, and to a transfer.
    Leader {
        /// Its name.
        name: String,
        /// Its id.
        id: u64,
    },
    /// Text under a name: `metrics`, `help`, `version`.
    Text {
        /// The field's name in JSON.
        name: &'static str,
        /// The text.
        text: String,
    },
    /// To `logs`.
    Lines(Vec<String>),
    /// To `logs --protocol` in a batch.
    Events(Vec<ProtocolEvent>),
    /// To `trace`.
    Trace(Box<TraceReport>),
}

/// What an answer to a line of a batch is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineId {
    /// As the line itself said.
    Given(String),
    /// The line's number, from 1.
    Number(u64),
}

impl Answer {
    /// The exit status: 0, unless the answer is about health.
    pub fn exit(&self) -> u8 {
        match self {
            Answer::Status(report) => report::status_exit(&report.health),
            Answer::Health(report) => report::health_exit(&report.health),
            _ => 0,
        }
    }

    /// The bytes for standard output.
    pub fn render(&self, format: Format) -> Bytes {
        match format {
            Format::Json => {
                let mut out = Vec::new();
                write_line(&mut out, None, Ok(self));
                out.into()
            }
            Format::Table => self.to_table(),
        }
    }

    fn to_table(&self) -> Bytes {
        let text = match self {
            Answer::Status(report) => report.to_table(),
            Answer::Health(report) => format!("{}\n", report.health),
            Answer::Members(members) => report::members_table(members),
            Answer::Written { revision, .. } => format!("revision {revision}\n"),
            Answer::Value { record, raw } => return value_with_newline(record, *raw),
            Answer::Listed(page) => {
                let mut out = Vec::new();
                for record in &page.items {
                    write_row(&mut out, record);
                }
                return out.into();
            }
            Answer::Leader { name, .. } => format!("{name}\n"),
            Answer::Text { text, .. } if text.ends_with('\n') => text.clone(),
            Answer::Text { text, .. } => format!("{text}\n"),
            Answer::Lines(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
            Answer::Trace(report) => report.to_table(),
            Answer::Events(events) => {
                events.iter().map(|event| event.to_line(Columns::default())).collect()
            }
        };
        text.into()
    }
}

fn value_with_newline(record: &Record, raw: bool) -> Bytes {
    let value = record.value.clone().unwrap_or_default();
    if raw {
        return value;
    }
    let mut line = Vec::with_capacity(value.len() + 1);
    line.extend_from_slice(&value);
    line.push(b'\n');
    line.into()
}

/// A key and its value for people: a tab between them, everything that moves a cursor escaped.
pub fn write_row(out: &mut Vec<u8>, record: &Record) {
    out.extend_from_slice(visible(&record.key).as_bytes());
    if let Some(value) = &record.value {
        out.push(b'\t');
        out.extend_from_slice(visible(value).as_bytes());
    }
    out.push(b'\n');
}

fn visible(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().flat_map(escaped).collect()
}

/// One JSON object and a newline: an answer or a failure, with its id if it is one of a batch.
pub fn write_line(out: &mut Vec<u8>, id: Option<&LineId>, result: Result<&Answer, &Failure>) {
    let line = Line { id, result };
    serde_json::to_writer(&mut *out, &line).expect("strings and numbers into memory cannot fail");
    out.push(b'\n');
}

/// A failure for standard output (JSON) or standard error (text).
pub fn render_failure(failure: &Failure, format: Format) -> Bytes {
    match format {
        Format::Table => failure.to_text().into(),
        Format::Json => {
            let mut out = Vec::new();
            write_line(&mut out, None, Err(failure));
            out.into()
        }
    }
}

/// One key of a list as JSON, without a newline.
pub fn write_record(out: &mut Vec<u8>, record: &Record) {
    serde_json::to_writer(out, record).expect("strings and numbers into memory cannot fail");
}

struct Line<'a> {
    id: Option<&'a LineId>,
    result: Result<&'a Answer, &'a Failure>,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.id {
            Some(LineId::Given(id)) => map.serialize_entry("id", id)?,
            Some(LineId::Number(number)) => map.serialize_entry("id", number)?,
            None => {}
        }
        map.serialize_entry("ok", &self.result.is_ok())?;
        match self.result {
            Err(failure) => map.serialize_entry("error", failure)?,
            Ok(answer) => write_answer(answer, self.id.is_some(), &mut map)?,
        }
        map.end()
    }
}

/// The answer's fields. In a batch `id` is the line's, so a node's own goes by another name there.
fn write_answer<M: SerializeMap>(
    answer: &Answer,
    in_batch: bool,
    map: &mut M,
) -> Result<(), M::Error> {
    let node_id = if in_batch { "node_id" } else { "id" };
    match answer {
        Answer::Status(report) => write_status(report, node_id, map),
        Answer::Health(report) => {
            map.serialize_entry("health", &report.health)?;
            map.serialize_entry("why", &report.why)?;
            map.serialize_entry("stalled", &report.stalled)
        }
        Answer::Members(members) => map.serialize_entry("members", members),
        Answer::Written { key, revision } => {
            write_bytes("key", key, map)?;
            map.serialize_entry("revision", revision)
        }
        Answer::Value { record, .. } => write_record_fields(record, map),
        Answer::Listed(page) => {
            map.serialize_entry("revision", &page.revision)?;
            map.serialize_entry("items", &page.items)?;
            map.serialize_entry("more", &page.more)
        }
        Answer::Leader { name, id } => {
            map.serialize_entry("leader", name)?;
            map.serialize_entry(node_id, &JsonId(*id))
        }
        Answer::Text { name, text } => map.serialize_entry(name, text),
        Answer::Lines(lines) => map.serialize_entry("lines", lines),
        Answer::Events(events) => map.serialize_entry("events", events),
        Answer::Trace(report) => {
            map.serialize_entry("slot", &report.slot)?;
            map.serialize_entry("events", &report.events)?;
            map.serialize_entry("summary", &report.summary)?;
            map.serialize_entry("silent", &report.silent)?;
            map.serialize_entry("forgotten", &report.forgotten)
        }
    }
}

fn write_status<M: SerializeMap>(
    report: &StatusReport,
    node_id: &str,
    map: &mut M,
) -> Result<(), M::Error> {
    map.serialize_entry("cluster", &report.cluster)?;
    map.serialize_entry("cluster_id", &report.cluster_id)?;
    map.serialize_entry("node", &report.node)?;
    map.serialize_entry(node_id, &report.id)?;
    map.serialize_entry("roles", &report.roles)?;
    map.serialize_entry("state", &report.state)?;
    map.serialize_entry("leader", &report.leader)?;
    map.serialize_entry("ballot", &report.ballot)?;
    map.serialize_entry("chosen_slot", &report.chosen_slot)?;
    map.serialize_entry("applied_slot", &report.applied_slot)?;
    map.serialize_entry("revision", &report.revision)?;
    map.serialize_entry("quorum", &report.quorum)?;
    map.serialize_entry("members", &report.members)?;
    map.serialize_entry("health", &report.health)?;
    map.serialize_entry("why", &report.why)?;
    map.serialize_entry("next", &report.next)?;
    map.serialize_entry("stalled", &report.stalled)?;
    map.serialize_entry("bundle", &report.bundle)?;
    map.serialize_entry("certificates", &report.certificates)?;
    map.serialize_entry("age_seconds", &report.age_seconds)?;
    map.serialize_entry("uptime_seconds", &report.uptime_seconds)?;
    map.serialize_entry("version", &report.version)?;
    map.serialize_entry("cluster_version", &report.cluster_version)?;
    map.serialize_entry("cluster_versions", &report.cluster_versions)
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_record_fields(self, &mut map)?;
        map.end()
    }
}

fn write_record_fields<M: SerializeMap>(record: &Record, map: &mut M) -> Result<(), M::Error> {
    write_bytes("key", &record.key, map)?;
    if let Some(value) = &record.value {
        write_bytes("value", value, map)?;
    }
    map.serialize_entry("revision", &record.revision)?;
    map.serialize_entry("create_revision", &record.create_revision)?;
    map.serialize_entry("version", &record.version)
}

/// Under `name` if the bytes are text, else under `name_base64`.
fn write_bytes<M: SerializeMap>(name: &str, bytes: &[u8], map: &mut M) -> Result<(), M::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(name, text),
        Err(_) => map.serialize_entry(&format!("{name}_base64"), &BASE64_STANDARD.encode(bytes)),
    }
}

/// The failure for a key that does not exist.
pub fn not_found(key: &[u8]) -> Failure {
    let key = super::grammar::printable(key);
    Failure::new(
        Code::NotFound,
        format!("there is no key \"{key}\""),
        "\"paxos list --keys-only\" shows which there are",
    )
}
