//! What a client may ask of the replicated store, and what it may be answered.
//!
//! A [`Command`] is what the log carries, one to a slot. It names the session and the sequence
//! number under which it was sent, so that one that is proposed twice is executed once. These types
//! are not a wire format: `wire` has its own, versioned one.

use bytes::Bytes;
use std::fmt;

/// The longest key, in bytes. Keys are compared along every path of the tree and repeated in
/// listings; a path of 4 KiB is as long as a file system allows.
pub const KEY_BYTES_MAX: usize = 4 * 1024;

/// The longest value, in bytes. One value travels in one frame and one log record, and what shares
/// the connection or the disk waits for it meanwhile: 1 MiB takes about a millisecond. etcd's
/// default is near.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// The longest name of a principal, in bytes: a user name and a host name, with room.
pub const PRINCIPAL_BYTES_MAX: usize = 256;

/// The longest request id, in bytes: a UUID or a short sentence. It is kept with the outcome.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// The longest request id as a command carries it, in bytes: a person's name, a separator and their
/// id. Whoever takes the request in puts the name there, so that two people may use one id.
pub const SCOPED_ID_BYTES_MAX: usize = PRINCIPAL_BYTES_MAX + 1 + REQUEST_ID_BYTES_MAX;

/// How far a session's sequence numbers may run ahead of what it acknowledged, hence how many
/// outcomes are kept for it. One node's session carries all plain ssh requests of that node: 8,192
/// is a quarter of a second at 33,000 a second, longer than a change of leader, and about 1 MB.
pub const SESSION_WINDOW: usize = 8192;

/// A client's session, named after the slot in which it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// "No session": what a command that opens one carries. Slot 0 is the genesis and opens none.
    pub const NONE: SessionId = SessionId(0);
}

/// One request as the log carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// Under which session; [`SessionId::NONE`] for opening one.
    pub session: SessionId,
    /// Names the request within its session; unique, and issued in rising order.
    pub sequence: u64,
    /// The client has seen the outcomes of all sequence numbers below this one.
    pub acknowledged_below: u64,
    /// Who asks; a session answers only to the principal that opened it.
    pub principal: String,
    /// A name for the request that outlives the session, so that a retry by hand finds the first
    /// outcome. It names one operation: with another one it is refused.
    pub request_id: Option<String>,
    /// What is asked.
    pub operation: Operation,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Open a session. The same principal and nonce again finds the same session.
    OpenSession {
        /// Drawn at random by whoever opens.
        nonce: u128,
    },
    /// End the command's session and forget its outcomes.
    CloseSession,
    /// Set a key.
    Put {
        /// Not empty, at most [`KEY_BYTES_MAX`].
        key: Bytes,
        /// At most [`VALUE_BYTES_MAX`].
        value: Bytes,
        /// Only if this holds.
        condition: Condition,
    },
    /// Remove a key.
    Delete {
        /// Not empty, at most [`KEY_BYTES_MAX`].
        key: Bytes,
        /// Only if this holds.
        condition: Condition,
    },
    /// Raise the cluster version, which gates what older programs would not understand. It rises by
    /// one at a time; to any other number than the next nothing happens.
    RaiseVersion {
        /// To which.
        to: u16,
    },
    /// Put a trust bundle where every node finds it. Whether it is believed is each node's own
    /// business: it may be old, or signed by anybody. So the last one stays, and not the one that
    /// claims the highest epoch, which nobody could follow.
    PublishBundle {
        /// Its epoch.
        epoch: u64,
        /// As it lies on disk; at most [`VALUE_BYTES_MAX`].
        signed: Bytes,
    },
}

/// What must hold of the key for a change to happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The key does not exist.
    Absent,
    /// The key holds exactly these bytes.
    Value(Bytes),
    /// The key was last changed at this revision.
    Revision(u64),
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The session is open.
    SessionOpened(SessionId),
    /// The session is closed.
    SessionClosed,
    /// The key is set.
    Put {
        /// The revision that this change made.
        revision: u64,
    },
    /// The key is gone.
    Deleted {
        /// The revision that this change made.
        revision: u64,
    },
    /// There was no such key to delete.
    NotFound,
    /// The condition did not hold; nothing changed.
    ConditionFailed {
        /// At which revision the key was last changed; none if it does not exist.
        revision: Option<u64>,
    },
    /// Not executed: no such session, or it expired, or it is another principal's.
    SessionUnknown,
    /// Not executed now: its outcome was acknowledged before and is forgotten.
    SequenceAcknowledged,
    /// Not executed: [`SESSION_WINDOW`] or more ahead of what the session acknowledged.
    /// Acknowledge, and send it again under the same sequence number.
    WindowFull,
    /// Not executed: its request id was used before, and for another operation.
    RequestIdReused,
    /// The cluster version is this now.
    ClusterVersion(u16),
    /// The bundle was published; it says that this is its epoch.
    BundleEpoch(u64),
}

// Stored and sent: a number once given keeps its meaning.
const SESSION_OPENED: u8 = 0;
const SESSION_CLOSED: u8 = 1;
const PUT: u8 = 2;
const DELETED: u8 = 3;
const NOT_FOUND: u8 = 4;
const CONDITION_FAILED: u8 = 5;
const CONDITION_FAILED_ABSENT: u8 = 6;
const SESSION_UNKNOWN: u8 = 7;
const SEQUENCE_ACKNOWLEDGED: u8 = 8;
const WINDOW_FULL: u8 = 9;
const REQUEST_ID_REUSED: u8 = 10;
const CLUSTER_VERSION: u8 = 11;
const BUNDLE_EPOCH: u8 = 12;

impl Outcome {
    /// The outcome as its kind and one number, which say all there is of it.
    pub fn numbers(&self) -> (u8, u64) {
        match self {
            Outcome::SessionOpened(id) => (SESSION_OPENED, id.0),
            Outcome::SessionClosed => (SESSION_CLOSED, 0),
            Outcome::Put { revision } => (PUT, *revision),
            Outcome::Deleted { revision } => (DELETED, *revision),
            Outcome::NotFound => (NOT_FOUND, 0),
            Outcome::ConditionFailed { revision: Some(revision) } => (CONDITION_FAILED, *revision),
            Outcome::ConditionFailed { revision: None } => (CONDITION_FAILED_ABSENT, 0),
            Outcome::SessionUnknown => (SESSION_UNKNOWN, 0),
            Outcome::SequenceAcknowledged => (SEQUENCE_ACKNOWLEDGED, 0),
            Outcome::WindowFull => (WINDOW_FULL, 0),
            Outcome::RequestIdReused => (REQUEST_ID_REUSED, 0),
            Outcome::ClusterVersion(version) => (CLUSTER_VERSION, u64::from(*version)),
            Outcome::BundleEpoch(epoch) => (BUNDLE_EPOCH, *epoch),
        }
    }

    /// The outcome of these numbers; none if there is no such kind.
    pub fn from_numbers(kind: u8, number: u64) -> Option<Outcome> {
        Some(match kind {
            SESSION_OPENED => Outcome::SessionOpened(SessionId(number)),
            SESSION_CLOSED => Outcome::SessionClosed,
            PUT => Outcome::Put { revision: number },
            DELETED => Outcome::Deleted { revision: number },
            NOT_FOUND => Outcome::NotFound,
            CONDITION_FAILED => Outcome::ConditionFailed { revision: Some(number) },
            CONDITION_FAILED_ABSENT => Outcome::ConditionFailed { revision: None },
            SESSION_UNKNOWN => Outcome::SessionUnknown,
            SEQUENCE_ACKNOWLEDGED => Outcome::SequenceAcknowledged,
            WINDOW_FULL => Outcome::WindowFull,
            REQUEST_ID_REUSED => Outcome::RequestIdReused,
            CLUSTER_VERSION => Outcome::ClusterVersion(u16::try_from(number).ok()?),
            BUNDLE_EPOCH => Outcome::BundleEpoch(number),
            _ => return None,
        })
    }
}

/// Why a command may not enter the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitError {
    /// A part of it is too long.
    TooLong {
        /// Which part.
        what: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// A key without a byte.
    EmptyKey,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::TooLong { what, bytes, bytes_max } => {
                write!(f, "the {what} has {bytes} bytes; use at most {bytes_max}")
            }
            LimitError::EmptyKey => write!(f, "the key is empty; give at least one byte"),
        }
    }
}

impl std::error::Error for LimitError {}

impl Command {
    /// Checks every length. Who takes a request in calls this, and so does the decoder: the store
    /// relies on it.
    ///
    /// # Errors
    /// Names the part that is too long.
    pub fn check_limits(&self) -> Result<(), LimitError> {
        limit("principal's name", self.principal.len(), PRINCIPAL_BYTES_MAX)?;
        if let Some(id) = &self.request_id {
            limit("request id", id.len(), SCOPED_ID_BYTES_MAX)?;
        }
        self.operation.check_limits()
    }
}

impl Operation {
    /// Checks the lengths of keys and values.
    ///
    /// # Errors
    /// Names the part that is too long.
    pub fn check_limits(&self) -> Result<(), LimitError> {
        let (key, condition) = match self {
            Operation::OpenSession { .. }
            | Operation::CloseSession
            | Operation::RaiseVersion { .. } => return Ok(()),
            Operation::Put { key, value, condition } => {
                limit("value", value.len(), VALUE_BYTES_MAX)?;
                (key, condition)
            }
            Operation::Delete { key, condition } => (key, condition),
            Operation::PublishBundle { signed, .. } => {
                return limit("trust bundle", signed.len(), VALUE_BYTES_MAX);
            }
        };
        if key.is_empty() {
            return Err(LimitError::EmptyKey);
        }
        limit("key", key.len(), KEY_BYTES_MAX)?;
        match condition {
            Condition::Value(value) => {
                limit("value of the condition", value.len(), VALUE_BYTES_MAX)
            }
            Condition::Always | Condition::Absent | Condition::Revision(_) => Ok(()),
        }
    }
}

fn limit(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), LimitError> {
    if bytes > bytes_max {
        return Err(LimitError::TooLong { what, bytes, bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: usize, value: usize, condition: Condition) -> Operation {
        Operation::Put { key: vec![b'k'; key].into(), value: vec![0; value].into(), condition }
    }

    #[test]
    fn limits_hold_at_the_edge_and_fail_just_above() {
        let value = |bytes| Condition::Value(Bytes::from(vec![0; bytes]));
        let (key_max, value_max) = (KEY_BYTES_MAX, VALUE_BYTES_MAX);
        assert_eq!(put(key_max, value_max, value(value_max)).check_limits(), Ok(()));
        assert_eq!(put(1, 0, value(0)).check_limits(), Ok(()));
        assert_eq!(put(0, 0, Condition::Always).check_limits(), Err(LimitError::EmptyKey));
        assert!(put(key_max + 1, 0, Condition::Always).check_limits().is_err());
        assert!(put(1, value_max + 1, Condition::Always).check_limits().is_err());
        assert!(put(1, 0, value(value_max + 1)).check_limits().is_err());
        let empty_delete = Operation::Delete { key: Bytes::new(), condition: Condition::Always };
        assert_eq!(empty_delete.check_limits(), Err(LimitError::EmptyKey));
    }

    #[test]
    fn names_have_limits_too() {
        let command = |principal: usize, id: usize| Command {
            session: SessionId(1),
            sequence: 1,
            acknowledged_below: 0,
            principal: "p".repeat(principal),
            request_id: Some("r".repeat(id)),
            operation: Operation::CloseSession,
        };
        assert_eq!(command(PRINCIPAL_BYTES_MAX, SCOPED_ID_BYTES_MAX).check_limits(), Ok(()));
        assert!(command(PRINCIPAL_BYTES_MAX + 1, 1).check_limits().is_err());
        assert!(command(1, SCOPED_ID_BYTES_MAX + 1).check_limits().is_err());
    }

    #[test]
    fn outcomes_keep_their_numbers() {
        let outcomes = [
            Outcome::SessionOpened(SessionId(7)),
            Outcome::SessionClosed,
            Outcome::Put { revision: 7 },
            Outcome::Deleted { revision: 7 },
            Outcome::NotFound,
            Outcome::ConditionFailed { revision: Some(7) },
            Outcome::ConditionFailed { revision: None },
            Outcome::SessionUnknown,
            Outcome::SequenceAcknowledged,
            Outcome::WindowFull,
            Outcome::RequestIdReused,
            Outcome::ClusterVersion(7),
            Outcome::BundleEpoch(7),
        ];
        for (kind, outcome) in (0..).zip(outcomes) {
            let (found, number) = outcome.numbers();
            assert_eq!(found, kind, "{outcome:?} has another number at nodes that run already");
            assert_eq!(Outcome::from_numbers(kind, number), Some(outcome));
        }
        assert_eq!(Outcome::from_numbers(13, 0), None);
        assert_eq!(Outcome::from_numbers(CLUSTER_VERSION, 1 << 16), None);
    }
}
