//! Layout of what a node without a store asks of one that has a store, and of the answers.
//!
//! None of this is part of the protocol: it decides nothing and promises nothing. Outcomes are what
//! the log says, wherever it was applied; a read is served by the rules of the node that serves it.
//! Calls and answers may get lost or come twice.

use super::answer::Record;
use super::{DecodeError, decode, encode, split};
use crate::store::command::{Outcome, SessionId};
use bytes::Bytes;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Sequence numbers in one question: a quarter of the writes that may wait at a node. Outcomes of
/// what exceeds it are told as they come. A longer question is refused.
pub const SEQUENCES_MAX: usize = 1024;

/// Keys in one answer, whatever limit was asked for: as many as a list takes at a time.
pub const LISTED_MAX: usize = 256;

const STORE_CALL: &str = "call to a store";

/// The one layout of calls there is so far.
const VERSION: u8 = 1;

// Kinds share their byte with the messages of the protocol, which have the lower numbers.
const ASK_OUTCOMES: u8 = 32;
const READ: u8 = 33;
const LEAVE: u8 = 34;
const OUTCOMES: u8 = 35;
const FOUND: u8 = 36;
const UNREADABLE: u8 = 37;
const KEEP: u8 = 38;

/// Kinds from here to [`LAST_KIND`] are calls and answers.
pub(super) const FIRST_KIND: u8 = ASK_OUTCOMES;
pub(super) const LAST_KIND: u8 = KEEP;

/// What a node without a store asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCall {
    /// Tell me what becomes of my session's commands from now on, and what became of these.
    /// Repeated for as long as any are awaited; it holds for a moment only.
    AskOutcomes {
        /// Under which the session was opened.
        nonce: u128,
        /// The session, once it is known to be open; [`SessionId::NONE`] before.
        session: SessionId,
        /// Those of its commands whose outcomes are awaited.
        sequences: Vec<u64>,
    },
    /// Look something up.
    Read {
        /// Names the view that is read, and with the page matches the answer to the question. No
        /// two of a caller's views have one token, in all the lives of its process.
        token: u64,
        /// How many answers under this token came before. Those after the first come from the
        /// view of the first, and no other.
        page: u64,
        /// Whether the store must first be as new as anything acknowledged before the call.
        linearizable: bool,
        /// How long the caller waits.
        patience: Duration,
        /// What to look up.
        query: Query,
    },
    /// Keep the view of this token: its reader is slow, and not gone.
    Keep {
        /// The token.
        token: u64,
    },
    /// Let go of the view that was kept for this token.
    Leave {
        /// The token.
        token: u64,
    },
}

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// One key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Keys in order. The view is kept for more of them.
    List {
        /// They begin with this.
        prefix: Bytes,
        /// They come behind this.
        after: Option<Bytes>,
        /// At most so many, and at most [`LISTED_MAX`].
        limit: u64,
        /// Without their values.
        keys_only: bool,
    },
}

/// What a node with a store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAnswer {
    /// Outcomes of the caller's session.
    Outcomes {
        /// Under which the session was opened.
        nonce: u128,
        /// The session of that nonce; [`SessionId::NONE`] if there is none so far.
        session: SessionId,
        /// Sequence numbers and what became of them.
        outcomes: Vec<(u64, Outcome)>,
    },
    /// What was looked up.
    Found {
        /// The call's token.
        token: u64,
        /// The call's page.
        page: u64,
        /// What was found.
        found: Found,
    },
    /// It could not be looked up.
    Unreadable {
        /// The call's token.
        token: u64,
        /// The call's page.
        page: u64,
        /// There is too much to do there; else nobody confirmed the read in time.
        busy: bool,
        /// What went wrong, and what to do.
        why: String,
    },
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The store's revision in the view that was read.
    pub revision: u64,
    /// What is there, in order.
    pub records: Vec<Record>,
    /// Whether nothing follows the last of them.
    pub ended: bool,
}

/// kind, number.
#[derive(Serialize, Deserialize)]
struct WireOutcome(u8, u64);

impl From<&Outcome> for WireOutcome {
    fn from(outcome: &Outcome) -> WireOutcome {
        let (kind, number) = outcome.numbers();
        WireOutcome(kind, number)
    }
}

impl WireOutcome {
    fn check(self) -> Result<Outcome, DecodeError> {
        let WireOutcome(kind, number) = self;
        let unknown = DecodeError::Kind { what: "outcome", found: kind };
        Outcome::from_numbers(kind, number).ok_or(unknown)
    }
}

type Text<'a> = &'a serde_bytes::Bytes;

/// nonce (high, low), session, sequences.
#[derive(Serialize, Deserialize)]
struct WireAskOutcomes(u64, u64, u64, #[serde(deserialize_with = "sequences")] Vec<u64>);

/// Reads no more of them than there may be, so that a frame full of them costs no memory.
fn sequences<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    struct Sequences;

    impl<'de> Visitor<'de> for Sequences {
        type Value = Vec<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {SEQUENCES_MAX} sequence numbers")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<u64>, A::Error> {
            let mut sequences = Vec::new();
            while let Some(sequence) = numbers.next_element()? {
                if sequences.len() >= SEQUENCES_MAX {
                    return Err(A::Error::invalid_length(sequences.len() + 1, &self));
                }
                sequences.push(sequence);
            }
            Ok(sequences)
        }
    }

    from.deserialize_seq(Sequences)
}

/// token, page, linearizable, patience in microseconds, the key of a `get` or else none, and
/// of a list prefix, after, limit and whether only keys are wanted.
#[derive(Serialize, Deserialize)]
struct WireRead<'a>(
    u64,
    u64,
    bool,
    u64,
    #[serde(borrow)] Option<Text<'a>>,
    #[serde(borrow)] Text<'a>,
    #[serde(borrow)] Option<Text<'a>>,
    u64,
    bool,
);

/// nonce (high, low), session, outcomes.
#[derive(Serialize, Deserialize)]
struct WireOutcomes(u64, u64, u64, Vec<(u64, WireOutcome)>);

/// key, value if wanted, revision, create revision, version.
#[derive(Serialize, Deserialize)]
struct WireRecord<'a>(#[serde(borrow)] Text<'a>, #[serde(borrow)] Option<Text<'a>>, u64, u64, u64);

/// token, page, revision, records, ended.
#[derive(Serialize, Deserialize)]
struct WireFound<'a>(u64, u64, u64, #[serde(borrow)] Vec<WireRecord<'a>>, bool);

fn halves(nonce: u128) -> (u64, u64) {
    ((nonce >> 64) as u64, nonce as u64)
}

fn whole(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn text(bytes: &Bytes) -> Text<'_> {
    serde_bytes::Bytes::new(bytes)
}

pub(super) fn encode_call(call: &StoreCall, out: &mut Vec<u8>) {
    match call {
        StoreCall::AskOutcomes { nonce, session, sequences } => {
            let (high, low) = halves(*nonce);
            let fields = WireAskOutcomes(high, low, session.0, sequences.clone());
            encode(VERSION, ASK_OUTCOMES, &fields, out);
        }
        StoreCall::Read { token, page, linearizable, patience, query } => {
            let micros = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
            let empty = serde_bytes::Bytes::new(&[]);
            let (key, prefix, after, limit, keys_only) = match query {
                Query::Get { key } => (Some(text(key)), empty, None, 0, false),
                Query::List { prefix, after, limit, keys_only } => {
                    (None, text(prefix), after.as_ref().map(text), *limit, *keys_only)
                }
            };
            let (token, page, linearizable) = (*token, *page, *linearizable);
            let fields =
                WireRead(token, page, linearizable, micros, key, prefix, after, limit, keys_only);
            encode(VERSION, READ, &fields, out);
        }
        StoreCall::Keep { token } => encode(VERSION, KEEP, token, out),
        StoreCall::Leave { token } => encode(VERSION, LEAVE, token, out),
    }
}

pub(super) fn encode_answer(answer: &StoreAnswer, out: &mut Vec<u8>) {
    match answer {
        StoreAnswer::Outcomes { nonce, session, outcomes } => {
            let (high, low) = halves(*nonce);
            let outcomes = outcomes.iter().map(|(sequence, outcome)| (*sequence, outcome.into()));
            let fields = WireOutcomes(high, low, session.0, outcomes.collect());
            encode(VERSION, OUTCOMES, &fields, out);
        }
        StoreAnswer::Found { token, page, found } => {
            let records = found.records.iter().map(|record| {
                let value = record.value.as_ref().map(text);
                let (revision, created) = (record.revision, record.create_revision);
                WireRecord(text(&record.key), value, revision, created, record.version)
            });
            let fields = WireFound(*token, *page, found.revision, records.collect(), found.ended);
            encode(VERSION, FOUND, &fields, out);
        }
        StoreAnswer::Unreadable { token, page, busy, why } => {
            encode(VERSION, UNREADABLE, &(token, page, busy, why), out);
        }
    }
}

/// A call or an answer.
pub(super) enum Either {
    Call(StoreCall),
    Answer(StoreAnswer),
}

/// Reads either back. Keys and values stay slices of `input`.
pub(super) fn decode_either(input: &Bytes) -> Result<Either, DecodeError> {
    let (kind, fields) = split(STORE_CALL, VERSION, input)?;
    Ok(match kind {
        ASK_OUTCOMES => {
            let WireAskOutcomes(high, low, session, sequences) = decode(STORE_CALL, fields)?;
            let (nonce, session) = (whole(high, low), SessionId(session));
            Either::Call(StoreCall::AskOutcomes { nonce, session, sequences })
        }
        READ => Either::Call(decode::<WireRead<'_>>(STORE_CALL, fields)?.check(input)),
        KEEP => Either::Call(StoreCall::Keep { token: decode(STORE_CALL, fields)? }),
        LEAVE => Either::Call(StoreCall::Leave { token: decode(STORE_CALL, fields)? }),
        OUTCOMES => {
            let WireOutcomes(high, low, session, outcomes) = decode(STORE_CALL, fields)?;
            let outcomes = outcomes
                .into_iter()
                .map(|(sequence, outcome)| outcome.check().map(|outcome| (sequence, outcome)));
            Either::Answer(StoreAnswer::Outcomes {
                nonce: whole(high, low),
                session: SessionId(session),
                outcomes: outcomes.collect::<Result<_, _>>()?,
            })
        }
        FOUND => {
            let WireFound(token, page, revision, records, ended) = decode(STORE_CALL, fields)?;
            let records = records.into_iter().map(|record| record.check(input)).collect();
            let found = Found { revision, records, ended };
            Either::Answer(StoreAnswer::Found { token, page, found })
        }
        UNREADABLE => {
            let (token, page, busy, why) = decode(STORE_CALL, fields)?;
            Either::Answer(StoreAnswer::Unreadable { token, page, busy, why })
        }
        found => return Err(DecodeError::Kind { what: STORE_CALL, found }),
    })
}

impl WireRead<'_> {
    fn check(self, input: &Bytes) -> StoreCall {
        let WireRead(token, page, linearizable, micros, key, prefix, after, limit, keys_only) =
            self;
        let share = |part: Text<'_>| super::share(input, part);
        let query = match key {
            Some(key) => Query::Get { key: share(key) },
            None => {
                Query::List { prefix: share(prefix), after: after.map(share), limit, keys_only }
            }
        };
        let patience = Duration::from_micros(micros);
        StoreCall::Read { token, page, linearizable, patience, query }
    }
}

impl WireRecord<'_> {
    fn check(self, input: &Bytes) -> Record {
        let WireRecord(key, value, revision, create_revision, version) = self;
        let value = value.map(|value| super::share(input, value));
        Record { key: super::share(input, key), value, revision, create_revision, version }
    }
}
