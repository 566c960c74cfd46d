//! Layout of what programs say on the subsystem `paxos-rpc`: `[id, …]` asks, `[id, …]` answers,
//! many at once, answers in any order. Each stands in a frame of its own (`wire/frame.rs`).
//!
//! Only what programs do often is here: reading and writing keys. Everything else has words, and an
//! exec channel on the same connection.

use super::answer::{Page, Record};
use super::command::WireCondition;
use super::failure::{Code, Failure};
use super::request::{
    Consistency, TIMEOUT_MAX, ValueSource, Verb, check_key_length, check_value_length,
};
use super::{DecodeError, decode, encode, share, split};
use crate::store::command::{Condition, REQUEST_ID_BYTES_MAX};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const REQUEST: &str = "rpc request";
const ANSWER: &str = "rpc answer";

/// The one layout of requests and answers there is so far.
const RPC_VERSION: u8 = 1;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const GET: u8 = 3;
const LIST: u8 = 4;

const WRITTEN: u8 = 1;
const VALUE: u8 = 2;
const LISTED: u8 = 3;
const FAILED: u8 = 4;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Store a value.
    Put {
        /// Where.
        key: Bytes,
        /// What.
        value: Bytes,
        /// Only if.
        condition: Condition,
        /// Makes a retry apply once.
        request_id: Option<String>,
    },
    /// Remove a key.
    Delete {
        /// Which.
        key: Bytes,
        /// Only if.
        condition: Condition,
        /// Makes a retry apply once.
        request_id: Option<String>,
    },
    /// Read a value.
    Get {
        /// Of which key.
        key: Bytes,
        /// How fresh.
        consistency: Consistency,
    },
    /// Read many keys.
    List {
        /// What they start with.
        prefix: Bytes,
        /// Only keys behind this one.
        after: Option<Bytes>,
        /// At most so many.
        limit: Option<u64>,
        /// Without values.
        keys_only: bool,
        /// How fresh.
        consistency: Consistency,
    },
}

/// A call on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client; the answer carries it.
    pub id: u64,
    /// Give up after this long.
    pub timeout: Duration,
    /// What is asked for.
    pub call: Call,
}

/// What a call gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The store's revision with the change in it.
    Written {
        /// That revision.
        revision: u64,
    },
    /// What is stored.
    Value {
        /// The bytes.
        value: Bytes,
        /// When the key was last changed.
        revision: u64,
        /// When it came into being.
        create_revision: u64,
        /// How often it was written since.
        version: u64,
    },
    /// Keys in order.
    Listed(Page),
}

/// id, timeout in milliseconds, key, value, condition, request id.
#[derive(Serialize, Deserialize)]
struct PutFields<'a>(
    u64,
    u32,
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(borrow)] WireCondition<'a>,
    Option<&'a str>,
);

/// id, timeout in milliseconds, key, condition, request id.
#[derive(Serialize, Deserialize)]
struct DeleteFields<'a>(
    u64,
    u32,
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(borrow)] WireCondition<'a>,
    Option<&'a str>,
);

/// id, timeout in milliseconds, key, whether a local read will do.
#[derive(Serialize, Deserialize)]
struct GetFields<'a>(u64, u32, #[serde(with = "serde_bytes")] &'a [u8], bool);

/// id, timeout in milliseconds, prefix, after (empty for none), limit, keys only, whether a local
/// read will do.
#[derive(Serialize, Deserialize)]
struct ListFields<'a>(
    u64,
    u32,
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(with = "serde_bytes")] &'a [u8],
    Option<u64>,
    bool,
    bool,
);

/// id, revision.
#[derive(Serialize, Deserialize)]
struct WrittenFields(u64, u64);

/// id, value, revision, create revision, version.
#[derive(Serialize, Deserialize)]
struct ValueFields<'a>(u64, #[serde(with = "serde_bytes")] &'a [u8], u64, u64, u64);

/// id, revision, whether there is more, items.
#[derive(Serialize, Deserialize)]
struct ListedFields<'a>(u64, u64, bool, #[serde(borrow)] Vec<ItemFields<'a>>);

/// key, value, revision, create revision, version.
#[derive(Serialize, Deserialize)]
struct ItemFields<'a>(
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(with = "serde_bytes")] Option<&'a [u8]>,
    u64,
    u64,
    u64,
);

/// id, code, message, hint, revision.
#[derive(Serialize, Deserialize)]
struct FailedFields<'a>(u64, &'a str, &'a str, &'a str, Option<u64>);

impl Call {
    /// The verb that it stands for, if it is within the limits.
    ///
    /// # Errors
    /// `usage` or `too_large`.
    pub fn into_verb(self) -> Result<Verb, Failure> {
        let (Call::Put { key, .. } | Call::Delete { key, .. } | Call::Get { key, .. }) = &self
        else {
            return self.into_checked_list();
        };
        if key.is_empty() {
            return Err(Failure::usage("the key is empty", "a key holds at least one byte"));
        }
        check_key_length(key.len())?;
        Ok(match self {
            Call::Put { key, value, condition, request_id } => {
                check_value_length(value.len())?;
                check_condition(&condition, request_id.as_deref())?;
                Verb::Put { key, value: ValueSource::Given(value), condition, request_id }
            }
            Call::Delete { key, condition, request_id } => {
                check_condition(&condition, request_id.as_deref())?;
                Verb::Delete { key, condition, request_id }
            }
            Call::Get { key, consistency } => Verb::Get { key, raw: false, consistency },
            Call::List { .. } => unreachable!("lists are checked by themselves"),
        })
    }

    fn into_checked_list(self) -> Result<Verb, Failure> {
        let Call::List { prefix, after, limit, keys_only, consistency } = self else {
            unreachable!("only lists come here");
        };
        check_key_length(prefix.len())?;
        check_key_length(after.as_ref().map_or(0, Bytes::len))?;
        Ok(Verb::List { prefix, after, limit, keys_only, consistency })
    }

    /// Whether it can be asked again, elsewhere, without anything happening twice.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Call::Put { request_id, .. } | Call::Delete { request_id, .. } => request_id.is_some(),
            Call::Get { .. } | Call::List { .. } => true,
        }
    }
}

fn check_condition(condition: &Condition, request_id: Option<&str>) -> Result<(), Failure> {
    if let Condition::Value(value) = condition {
        check_value_length(value.len())?;
    }
    if request_id.is_some_and(|id| id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX) {
        return Err(Failure::usage(
            "the request id is empty or too long",
            format!("use 1 to {REQUEST_ID_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

/// Appends a request's body.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let id = request.id;
    let timeout = u32::try_from(request.timeout.as_millis()).unwrap_or(u32::MAX);
    match &request.call {
        Call::Put { key, value, condition, request_id } => {
            let request_id = request_id.as_deref();
            let fields = PutFields(id, timeout, key, value, condition.into(), request_id);
            encode(RPC_VERSION, PUT, &fields, out);
        }
        Call::Delete { key, condition, request_id } => {
            let request_id = request_id.as_deref();
            let fields = DeleteFields(id, timeout, key, condition.into(), request_id);
            encode(RPC_VERSION, DELETE, &fields, out);
        }
        Call::Get { key, consistency } => {
            let local = *consistency == Consistency::Local;
            encode(RPC_VERSION, GET, &GetFields(id, timeout, key, local), out);
        }
        Call::List { prefix, after, limit, keys_only, consistency } => {
            let local = *consistency == Consistency::Local;
            let after = after.as_deref().unwrap_or_default();
            let fields = ListFields(id, timeout, prefix, after, *limit, *keys_only, local);
            encode(RPC_VERSION, LIST, &fields, out);
        }
    }
}

/// Reads a request's body. Key and value stay slices of it.
///
/// # Errors
/// When the bytes are no request of a known version. Limits are not looked at: [`Call::into_verb`]
/// does, and its failure can be answered.
pub fn decode_request(body: &Bytes) -> Result<Request, DecodeError> {
    let (kind, fields) = split(REQUEST, RPC_VERSION, body)?;
    let own = |id: Option<&str>| id.map(str::to_owned);
    let (id, timeout, call) = match kind {
        PUT => {
            let PutFields(id, timeout, key, value, condition, request_id) =
                decode(REQUEST, fields)?;
            let condition = condition.check(body)?;
            let (key, value) = (share(body, key), share(body, value));
            (id, timeout, Call::Put { key, value, condition, request_id: own(request_id) })
        }
        DELETE => {
            let DeleteFields(id, timeout, key, condition, request_id) = decode(REQUEST, fields)?;
            let (condition, key) = (condition.check(body)?, share(body, key));
            (id, timeout, Call::Delete { key, condition, request_id: own(request_id) })
        }
        GET => {
            let GetFields(id, timeout, key, local) = decode(REQUEST, fields)?;
            (id, timeout, Call::Get { key: share(body, key), consistency: consistency(local) })
        }
        LIST => {
            let ListFields(id, timeout, prefix, after, limit, keys_only, local) =
                decode(REQUEST, fields)?;
            let after = (!after.is_empty()).then(|| share(body, after));
            let (prefix, consistency) = (share(body, prefix), consistency(local));
            (id, timeout, Call::List { prefix, after, limit, keys_only, consistency })
        }
        found => return Err(DecodeError::Kind { what: REQUEST, found }),
    };
    let timeout = Duration::from_millis(u64::from(timeout)).min(TIMEOUT_MAX);
    Ok(Request { id, timeout, call })
}

fn consistency(local: bool) -> Consistency {
    match local {
        true => Consistency::Local,
        false => Consistency::Linearizable,
    }
}

/// Appends an answer's body.
pub fn encode_answer(id: u64, answer: Result<&Reply, &Failure>, out: &mut Vec<u8>) {
    match answer {
        Ok(Reply::Written { revision }) => {
            encode(RPC_VERSION, WRITTEN, &WrittenFields(id, *revision), out);
        }
        Ok(Reply::Value { value, revision, create_revision, version }) => {
            let fields = ValueFields(id, value, *revision, *create_revision, *version);
            encode(RPC_VERSION, VALUE, &fields, out);
        }
        Ok(Reply::Listed(page)) => {
            let items = page.items.iter().map(item_fields).collect();
            encode(RPC_VERSION, LISTED, &ListedFields(id, page.revision, page.more, items), out);
        }
        Err(Failure { code, message, hint, revision }) => {
            let fields = FailedFields(id, code.name(), message, hint, *revision);
            encode(RPC_VERSION, FAILED, &fields, out);
        }
    }
}

fn item_fields(record: &Record) -> ItemFields<'_> {
    let Record { key, value, revision, create_revision, version } = record;
    ItemFields(key, value.as_deref(), *revision, *create_revision, *version)
}

/// Reads an answer's body: the id it carries, and the answer. Values stay slices of it.
///
/// # Errors
/// When the bytes are no answer of a known version.
pub fn decode_answer(body: &Bytes) -> Result<(u64, Result<Reply, Failure>), DecodeError> {
    let (kind, fields) = split(ANSWER, RPC_VERSION, body)?;
    match kind {
        WRITTEN => {
            let WrittenFields(id, revision) = decode(ANSWER, fields)?;
            Ok((id, Ok(Reply::Written { revision })))
        }
        VALUE => {
            let ValueFields(id, value, revision, create_revision, version) =
                decode(ANSWER, fields)?;
            let value = share(body, value);
            Ok((id, Ok(Reply::Value { value, revision, create_revision, version })))
        }
        LISTED => {
            let ListedFields(id, revision, more, items) = decode(ANSWER, fields)?;
            let item = |ItemFields(key, value, revision, create_revision, version)| Record {
                key: share(body, key),
                value: value.map(|value| share(body, value)),
                revision,
                create_revision,
                version,
            };
            let items = items.into_iter().map(item).collect();
            Ok((id, Ok(Reply::Listed(Page { revision, items, more }))))
        }
        FAILED => {
            let FailedFields(id, code, message, hint, revision) = decode(ANSWER, fields)?;
            // A newer node may know codes that this program does not; it is a failure all the same.
            let code = Code::from_name(code).unwrap_or(Code::Internal);
            let (message, hint) = (message.to_owned(), hint.to_owned());
            Ok((id, Err(Failure { code, message, hint, revision })))
        }
        found => Err(DecodeError::Kind { what: ANSWER, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn condition() -> impl Strategy<Value = Condition> {
        prop_oneof![
            Just(Condition::Always),
            Just(Condition::Absent),
            bytes().prop_map(Condition::Value),
            any::<u64>().prop_map(Condition::Revision),
        ]
    }

    fn call() -> impl Strategy<Value = Call> {
        let id = || proptest::option::of("[a-z]{1,8}");
        let consistency = || any::<bool>().prop_map(consistency);
        let after = || proptest::option::of(bytes().prop_filter("not none", |b| !b.is_empty()));
        prop_oneof![
            (bytes(), bytes(), condition(), id()).prop_map(
                |(key, value, condition, request_id)| {
                    Call::Put { key, value, condition, request_id }
                }
            ),
            (bytes(), condition(), id()).prop_map(|(key, condition, request_id)| Call::Delete {
                key,
                condition,
                request_id
            }),
            (bytes(), consistency()).prop_map(|(key, consistency)| Call::Get { key, consistency }),
            (bytes(), after(), any::<Option<u64>>(), any::<bool>(), consistency()).prop_map(
                |(prefix, after, limit, keys_only, consistency)| Call::List {
                    prefix,
                    after,
                    limit,
                    keys_only,
                    consistency
                }
            ),
        ]
    }

    fn reply() -> impl Strategy<Value = Result<Reply, Failure>> {
        let record = (bytes(), proptest::option::of(bytes()), any::<[u64; 3]>()).prop_map(
            |(key, value, [revision, create_revision, version])| Record {
                key,
                value,
                revision,
                create_revision,
                version,
            },
        );
        let page = (any::<u64>(), proptest::collection::vec(record, 0..4), any::<bool>())
            .prop_map(|(revision, items, more)| Page { revision, items, more });
        prop_oneof![
            any::<u64>().prop_map(|revision| Ok(Reply::Written { revision })),
            (bytes(), any::<[u64; 3]>()).prop_map(
                |(value, [revision, create_revision, version])| Ok(Reply::Value {
                    value,
                    revision,
                    create_revision,
                    version
                })
            ),
            page.prop_map(|page| Ok(Reply::Listed(page))),
            ("[a-z]{0,9}", any::<Option<u64>>()).prop_map(|(message, revision)| {
                Err(Failure { revision, ..Failure::new(Code::Busy, message, "wait") })
            }),
        ]
    }

    #[test]
    fn the_layout_is_the_one_that_was_agreed() {
        let request = Request {
            id: 7,
            timeout: Duration::from_secs(5),
            call: Call::Put {
                key: Bytes::from_static(b"k"),
                value: Bytes::from_static(b"v"),
                condition: Condition::Always,
                request_id: None,
            },
        };
        let mut out = Vec::new();
        encode_request(&request, &mut out);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01019607cd1388c4016bc401769300c40000c0");
        let mut out = Vec::new();
        encode_answer(7, Ok(&Reply::Written { revision: 9 }), &mut out);
        assert_eq!(out, [1, 1, 0x92, 7, 9]);
    }

    #[test]
    fn another_version_and_unknown_kinds_are_told_apart() {
        let decode = |bytes: &'static [u8]| decode_request(&Bytes::from_static(bytes)).unwrap_err();
        assert!(matches!(decode(&[1]), DecodeError::Short { .. }));
        assert!(matches!(decode(&[2, 1, 0x90]), DecodeError::Version { found: 2, .. }));
        assert!(matches!(decode(&[1, 99, 0x90]), DecodeError::Kind { found: 99, .. }));
    }

    #[test]
    fn limits_are_failures_that_can_be_answered() {
        let get = |bytes: usize| {
            let key = Bytes::from(vec![b'k'; bytes]);
            Call::Get { key, consistency: Consistency::Local }.into_verb()
        };
        assert_eq!(get(0).unwrap_err().code, Code::Usage);
        assert!(get(4096).is_ok());
        assert_eq!(get(4097).unwrap_err().code, Code::TooLarge);
    }

    proptest! {
        #[test]
        fn requests_come_back(id: u64, call in call()) {
            let request = Request { id, timeout: Duration::from_millis(250), call };
            let mut out = Vec::new();
            encode_request(&request, &mut out);
            prop_assert_eq!(decode_request(&out.into()).unwrap(), request);
        }

        #[test]
        fn answers_come_back(id: u64, reply in reply()) {
            let mut out = Vec::new();
            encode_answer(id, reply.as_ref(), &mut out);
            prop_assert_eq!(decode_answer(&out.into()).unwrap(), (id, reply));
        }

        #[test]
        fn no_bytes_make_it_panic(
            kind in 0u8..6,
            body in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut input = vec![RPC_VERSION, kind];
            input.extend(body);
            let input = Bytes::from(input);
            if let Ok(request) = decode_request(&input) {
                let _verb = request.call.into_verb();
            }
            let _answer = decode_answer(&input);
        }
    }
}
