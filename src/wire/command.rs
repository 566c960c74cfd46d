//! Layout of commands: what the log's slots carry for the store.
//!
//! The kind is the operation. A decoded command keeps every limit of `store::command`, so the store
//! need not look again.

use super::{DecodeError, decode, encode, share, split};
use crate::store::command::{Command, Condition, Operation, SessionId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const COMMAND: &str = "command";
const CONDITION: &str = "condition";

/// The one layout of commands there is so far.
const COMMAND_VERSION: u8 = 1;

const OPEN_SESSION: u8 = 0;
const CLOSE_SESSION: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const RAISE_VERSION: u8 = 4;
const PUBLISH_BUNDLE: u8 = 5;

const ALWAYS: u8 = 0;
const ABSENT: u8 = 1;
const VALUE: u8 = 2;
const REVISION: u8 = 3;

/// What is little beside a command's key and value, for the size of its buffer.
const OVERHEAD_BYTES: usize = 64;

/// session, sequence, acknowledged below, principal, request id.
#[derive(Serialize, Deserialize)]
struct Envelope<'a>(u64, u64, u64, &'a str, Option<&'a str>);

/// kind, value to compare (else empty), revision to compare (else 0).
#[derive(Serialize, Deserialize)]
pub(super) struct WireCondition<'a>(u8, #[serde(with = "serde_bytes")] &'a [u8], u64);

/// envelope, nonce (big-endian).
#[derive(Serialize, Deserialize)]
struct OpenSession<'a>(#[serde(borrow)] Envelope<'a>, #[serde(with = "serde_bytes")] [u8; 16]);

/// envelope, key, value, condition.
#[derive(Serialize, Deserialize)]
struct Put<'a>(
    #[serde(borrow)] Envelope<'a>,
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(borrow)] WireCondition<'a>,
);

/// envelope, key, condition.
#[derive(Serialize, Deserialize)]
struct Delete<'a>(
    #[serde(borrow)] Envelope<'a>,
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(borrow)] WireCondition<'a>,
);

/// envelope, to which.
#[derive(Serialize, Deserialize)]
struct RaiseVersion<'a>(#[serde(borrow)] Envelope<'a>, u16);

/// envelope, epoch, signed bundle.
#[derive(Serialize, Deserialize)]
struct PublishBundle<'a>(
    #[serde(borrow)] Envelope<'a>,
    u64,
    #[serde(with = "serde_bytes")] &'a [u8],
);

/// The command as one slot's bytes.
pub fn encode_command(command: &Command) -> Bytes {
    let envelope = Envelope(
        command.session.0,
        command.sequence,
        command.acknowledged_below,
        &command.principal,
        command.request_id.as_deref(),
    );
    let mut out = Vec::with_capacity(encoded_bytes_about(command));
    match &command.operation {
        Operation::OpenSession { nonce } => {
            let fields = OpenSession(envelope, nonce.to_be_bytes());
            encode(COMMAND_VERSION, OPEN_SESSION, &fields, &mut out);
        }
        Operation::CloseSession => {
            encode(COMMAND_VERSION, CLOSE_SESSION, &envelope, &mut out);
        }
        Operation::Put { key, value, condition } => {
            let fields = Put(envelope, key, value, condition.into());
            encode(COMMAND_VERSION, PUT, &fields, &mut out);
        }
        Operation::Delete { key, condition } => {
            let fields = Delete(envelope, key, condition.into());
            encode(COMMAND_VERSION, DELETE, &fields, &mut out);
        }
        Operation::RaiseVersion { to } => {
            let fields = RaiseVersion(envelope, *to);
            encode(COMMAND_VERSION, RAISE_VERSION, &fields, &mut out);
        }
        Operation::PublishBundle { epoch, signed } => {
            let fields = PublishBundle(envelope, *epoch, signed);
            encode(COMMAND_VERSION, PUBLISH_BUNDLE, &fields, &mut out);
        }
    }
    Bytes::from(out)
}

/// Whether this is a command that publishes a trust bundle, if it is one at all: for whoever wants
/// no other, and has thousands to look at.
pub fn publishes_bundle(input: &Bytes) -> bool {
    matches!(split(COMMAND, COMMAND_VERSION, input), Ok((PUBLISH_BUNDLE, _)))
}

/// Reads a command back. Key and value stay slices of `input`.
///
/// # Errors
/// When the bytes are no command of a known version, or break a limit.
pub fn decode_command(input: &Bytes) -> Result<Command, DecodeError> {
    let (kind, fields) = split(COMMAND, COMMAND_VERSION, input)?;
    let (envelope, operation) = match kind {
        OPEN_SESSION => {
            let OpenSession(envelope, nonce) = decode(COMMAND, fields)?;
            (envelope, Operation::OpenSession { nonce: u128::from_be_bytes(nonce) })
        }
        CLOSE_SESSION => (decode(COMMAND, fields)?, Operation::CloseSession),
        PUT => {
            let Put(envelope, key, value, condition) = decode(COMMAND, fields)?;
            let condition = condition.check(input)?;
            let (key, value) = (share(input, key), share(input, value));
            (envelope, Operation::Put { key, value, condition })
        }
        DELETE => {
            let Delete(envelope, key, condition) = decode(COMMAND, fields)?;
            let condition = condition.check(input)?;
            (envelope, Operation::Delete { key: share(input, key), condition })
        }
        RAISE_VERSION => {
            let RaiseVersion(envelope, to) = decode(COMMAND, fields)?;
            (envelope, Operation::RaiseVersion { to })
        }
        PUBLISH_BUNDLE => {
            let PublishBundle(envelope, epoch, signed) = decode(COMMAND, fields)?;
            (envelope, Operation::PublishBundle { epoch, signed: share(input, signed) })
        }
        found => return Err(DecodeError::Kind { what: COMMAND, found }),
    };
    let Envelope(session, sequence, acknowledged_below, principal, request_id) = envelope;
    let command = Command {
        session: SessionId(session),
        sequence,
        acknowledged_below,
        principal: principal.to_owned(),
        request_id: request_id.map(str::to_owned),
        operation,
    };
    command.check_limits().map_err(|error| DecodeError::invalid(COMMAND, error))?;
    Ok(command)
}

fn encoded_bytes_about(command: &Command) -> usize {
    let names = command.principal.len() + command.request_id.as_ref().map_or(0, String::len);
    let data = match &command.operation {
        Operation::OpenSession { .. }
        | Operation::CloseSession
        | Operation::RaiseVersion { .. } => 0,
        Operation::Put { key, value, condition } => key.len() + value.len() + condition.bytes(),
        Operation::Delete { key, condition } => key.len() + condition.bytes(),
        Operation::PublishBundle { signed, .. } => signed.len(),
    };
    OVERHEAD_BYTES + names + data
}

impl Condition {
    fn bytes(&self) -> usize {
        match self {
            Condition::Value(value) => value.len(),
            Condition::Always | Condition::Absent | Condition::Revision(_) => 0,
        }
    }
}

impl<'a> From<&'a Condition> for WireCondition<'a> {
    fn from(condition: &'a Condition) -> WireCondition<'a> {
        match condition {
            Condition::Always => WireCondition(ALWAYS, &[], 0),
            Condition::Absent => WireCondition(ABSENT, &[], 0),
            Condition::Value(value) => WireCondition(VALUE, value, 0),
            Condition::Revision(revision) => WireCondition(REVISION, &[], *revision),
        }
    }
}

impl WireCondition<'_> {
    pub(super) fn check(self, input: &Bytes) -> Result<Condition, DecodeError> {
        let WireCondition(kind, value, revision) = self;
        match (kind, value, revision) {
            (ALWAYS, [], 0) => Ok(Condition::Always),
            (ABSENT, [], 0) => Ok(Condition::Absent),
            (VALUE, value, 0) => Ok(Condition::Value(share(input, value))),
            (REVISION, [], revision) => Ok(Condition::Revision(revision)),
            (ALWAYS..=REVISION, ..) => {
                Err(DecodeError::invalid(CONDITION, "it compares what it does not name"))
            }
            (found, ..) => Err(DecodeError::Kind { what: CONDITION, found }),
        }
    }
}
