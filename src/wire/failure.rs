//! How a request fails: one code out of a closed list, what happened, and what to do next.
//!
//! The code and its exit status are a contract with scripts and never change their meaning. A
//! failure never claims more than is known: `no_quorum` means certainly not applied,
//! `unknown_outcome` means perhaps.

use serde::{Deserialize, Serialize};

/// What kind of failure it is, in the words that programs compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A defect, or something that no other code names.
    Internal,
    /// There is no such key, member or file.
    NotFound,
    /// The condition of a write did not hold; nothing was written.
    ConditionFailed,
    /// Somebody else holds it.
    NotAcquired,
    /// The request is not in the grammar.
    Usage,
    /// A key, a value or a line is over its limit.
    TooLarge,
    /// Stored or received bytes are damaged.
    Corrupt,
    /// Nobody could serve the request in time; it was certainly not applied.
    NoQuorum,
    /// The request may have been applied.
    UnknownOutcome,
    /// Too much at once; certainly not applied, try again.
    Busy,
    /// The key that asks may not do this.
    Denied,
    /// The session is over; nothing was applied.
    SessionExpired,
    /// A file of settings, or an inventory, is missing or wrong.
    BadSettings,
    /// The user stopped it.
    Interrupted,
}

impl Code {
    /// Every code, in the order of their exit statuses.
    pub const ALL: [Code; 14] = [
        Code::Internal,
        Code::NotFound,
        Code::ConditionFailed,
        Code::NotAcquired,
        Code::Usage,
        Code::TooLarge,
        Code::Corrupt,
        Code::NoQuorum,
        Code::UnknownOutcome,
        Code::Busy,
        Code::Denied,
        Code::SessionExpired,
        Code::BadSettings,
        Code::Interrupted,
    ];

    /// The code as programs see it.
    pub fn name(self) -> &'static str {
        match self {
            Code::Internal => "internal",
            Code::NotFound => "not_found",
            Code::ConditionFailed => "condition_failed",
            Code::NotAcquired => "not_acquired",
            Code::Usage => "usage",
            Code::TooLarge => "too_large",
            Code::Corrupt => "corrupt",
            Code::NoQuorum => "no_quorum",
            Code::UnknownOutcome => "unknown_outcome",
            Code::Busy => "busy",
            Code::Denied => "denied",
            Code::SessionExpired => "session_expired",
            Code::BadSettings => "bad_settings",
            Code::Interrupted => "interrupted",
        }
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The exit status that goes with the code. Never 255, which is ssh's own.
    pub fn exit(self) -> u8 {
        match self {
            Code::Internal => 1,
            Code::NotFound | Code::ConditionFailed | Code::NotAcquired => 3,
            Code::Usage | Code::TooLarge => 64,
            Code::Corrupt => 65,
            Code::NoQuorum => 69,
            Code::UnknownOutcome => 74,
            Code::Busy => 75,
            Code::Denied | Code::SessionExpired => 77,
            Code::BadSettings => 78,
            Code::Interrupted => 130,
        }
    }
}

/// A request that was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub code: Code,
    /// What was tried and what went wrong, as a sentence without a full stop.
    pub message: String,
    /// What to do next; never empty.
    pub hint: String,
    /// The key's revision now, for a condition that did not hold on a key that exists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<u64>,
}

/// How the text of a failure begins.
const START: &str = "paxos: ";

/// How the line begins that says what to do.
const HINT: &str = "hint: ";

impl Failure {
    /// Puts a failure together.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        let hint = hint.into();
        assert!(!hint.is_empty(), "whoever fails says what to do next");
        Failure { code, message: message.into(), hint, revision: None }
    }

    /// Of an error whose text says what to do next behind its last semicolon; one that does not
    /// gets the hint given here.
    pub fn told(code: Code, text: &str, otherwise: &str) -> Failure {
        match text.rsplit_once("; ") {
            Some((message, hint)) if !hint.is_empty() => Failure::new(code, message, hint),
            _ => Failure::new(code, text, otherwise),
        }
    }

    /// A request that is not in the grammar.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::new(Code::Usage, message, hint)
    }

    /// Two lines for a person: the message, and the hint below it.
    pub fn to_text(&self) -> String {
        format!("{START}{} ({})\n{HINT}{}\n", self.message, self.code.name(), self.hint)
    }

    /// The failure with which a text ends, as [`Failure::to_text`] writes it; none if it ends
    /// otherwise.
    pub fn from_text(text: &str) -> Option<Failure> {
        let line = |start: &str| text.starts_with(start).then_some(0);
        let last = |start: &str| text.rfind(&format!("\n{start}")).map(|at| at + 1);
        let at = last(START).or_else(|| line(START))?;
        let (head, hint) = text[at + START.len()..].split_once(&format!("\n{HINT}"))?;
        let (message, code) = head.strip_suffix(')')?.rsplit_once(" (")?;
        let hint = hint.trim_end();
        let code = Code::from_name(code)?;
        (!hint.is_empty()).then(|| Failure::new(code, message, hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_json_form_and_lead_back() {
        for code in Code::ALL {
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.name()));
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
    }

    #[test]
    fn the_failure_at_the_end_of_a_text_is_found_again() {
        let failure = Failure::new(Code::Corrupt, "it is damaged\n(twice); alas", "restore it");
        let older = Failure::new(Code::BadSettings, "older", "forget it").to_text();
        for before in ["", "2026-01-01 INFO ready\n", &*older] {
            let text = format!("{before}{}", failure.to_text());
            assert_eq!(Failure::from_text(&text), Some(failure.clone()), "{text}");
        }
        for text in ["", "paxos: x", "paxos: x (corrupt)\n", "paxos: x (odd)\nhint: y\n", "hint: y"]
        {
            assert_eq!(Failure::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn what_to_do_stands_behind_the_last_semicolon() {
        let told = |text: &str| {
            let failure = Failure::told(Code::Internal, text, "ask");
            (failure.message, failure.hint)
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(told("it broke; twice; mend it"), pair("it broke; twice", "mend it"));
        assert_eq!(told("it broke"), pair("it broke", "ask"));
        assert_eq!(told("it broke; "), pair("it broke; ", "ask"));
    }

    #[test]
    fn exit_statuses_are_the_contract() {
        let table: Vec<(&str, u8)> = Code::ALL.iter().map(|c| (c.name(), c.exit())).collect();
        assert_eq!(
            table,
            [
                ("internal", 1),
                ("not_found", 3),
                ("condition_failed", 3),
                ("not_acquired", 3),
                ("usage", 64),
                ("too_large", 64),
                ("corrupt", 65),
                ("no_quorum", 69),
                ("unknown_outcome", 74),
                ("busy", 75),
                ("denied", 77),
                ("session_expired", 77),
                ("bad_settings", 78),
                ("interrupted", 130),
            ]
        );
    }
}
