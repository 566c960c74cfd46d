//! A request spelt out: the words that mean it. The other direction of `wire/request.rs`, for the
//! local program, which parses what was typed before it asks a node.

use super::logs::LogQuery;
use super::request::{Consistency, Format, Request, ValueSource, Verb};
use crate::store::command::Condition;

impl Request {
    /// The words that [`parse`](super::request::parse) makes into this request again: how the local
    /// program asks a node.
    ///
    /// A value goes into the words as it is; whoever sends it elsewhere says [`ValueSource::Stdin`]
    /// first.
    pub fn to_words(&self) -> Vec<Vec<u8>> {
        let mut words = Words(Vec::new());
        words.option("--timeout", format!("{}ns", self.timeout.as_nanos()).as_bytes());
        match self.format {
            Some(Format::Json) => words.option("-o", b"json"),
            Some(Format::Table) => words.option("-o", b"table"),
            None => {}
        }
        words.verb(&self.verb);
        words.0
    }
}

/// Words being put together.
struct Words(Vec<Vec<u8>>);

impl Words {
    fn word(&mut self, word: &[u8]) {
        self.0.push(word.to_vec());
    }

    fn option(&mut self, name: &str, value: &[u8]) {
        self.word(name.as_bytes());
        self.word(value);
    }

    fn switch(&mut self, name: &str, is_on: bool) {
        if is_on {
            self.word(name.as_bytes());
        }
    }

    fn verb(&mut self, verb: &Verb) {
        self.word(verb.name().as_bytes());
        match verb {
            Verb::Put { key, value, condition, request_id } => {
                self.write(condition, request_id.as_deref());
                self.word(b"--");
                self.word(key);
                match value {
                    ValueSource::Given(value) => self.word(value),
                    ValueSource::Stdin => self.word(b"-"),
                }
            }
            Verb::Delete { key, condition, request_id } => {
                self.write(condition, request_id.as_deref());
                self.word(b"--");
                self.word(key);
            }
            Verb::Get { key, raw, consistency } => {
                self.switch("--raw", *raw);
                self.consistency(*consistency);
                self.word(b"--");
                self.word(key);
            }
            Verb::List { prefix, after, limit, keys_only, consistency } => {
                if let Some(after) = after {
                    self.option("--after", after);
                }
                if let Some(limit) = limit {
                    self.option("--limit", limit.to_string().as_bytes());
                }
                self.switch("--keys-only", *keys_only);
                self.consistency(*consistency);
                self.word(b"--");
                self.word(prefix);
            }
            Verb::Batch { window } => self.option("--window", window.to_string().as_bytes()),
            Verb::Logs(query) => self.logs(query),
            Verb::Trace { slot } => self.word(slot.to_string().as_bytes()),
            Verb::Transfer { to } => {
                self.word(b"transfer");
                if let Some(to) = to {
                    self.word(b"--");
                    self.word(to.as_bytes());
                }
            }
            Verb::RaiseVersion { to } => {
                self.word(b"raise");
                self.word(to.to_string().as_bytes());
            }
            Verb::PublishTrust => self.word(b"publish"),
            Verb::Help(Some(about)) => self.word(about.name.as_bytes()),
            Verb::Help(None)
            | Verb::Status
            | Verb::Health
            | Verb::Members
            | Verb::Leader
            | Verb::Metrics
            | Verb::Version
            | Verb::Trust => {}
        }
    }

    fn logs(&mut self, query: &LogQuery) {
        self.option("--lines", query.lines.to_string().as_bytes());
        self.switch("--protocol", query.protocol);
        if let Some(text) = &query.grep {
            self.option("--grep", text.as_bytes());
        }
        self.switch("--follow", query.follow);
        if let Some(node) = &query.node {
            self.option("--node", node.as_bytes());
        }
    }

    fn write(&mut self, condition: &Condition, request_id: Option<&str>) {
        match condition {
            Condition::Always => {}
            // The form that put and delete both know.
            Condition::Absent => self.option("--if-revision", b"0"),
            Condition::Value(value) => self.option("--if-value", value),
            Condition::Revision(revision) => {
                self.option("--if-revision", revision.to_string().as_bytes());
            }
        }
        if let Some(id) = request_id {
            self.option("--request-id", id.as_bytes());
        }
    }

    fn consistency(&mut self, consistency: Consistency) {
        if consistency == Consistency::Local {
            self.option("--consistency", b"local");
        }
    }
}
