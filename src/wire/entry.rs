//! Layout of log entries, ballots and votes: the parts that messages and records share.
//!
//! An entry carries a version and a kind of its own besides those of the message around it, because
//! entries outlive messages: they stay in logs and are passed on by nodes of later versions.

use super::configuration::WireConfiguration;
use super::{DecodeError, decode, share};
use crate::paxos::ballot::{Ballot, ClusterTime, Incarnation, ProposalNumber, Slot};
use crate::paxos::message::{Entry, Payload, Vote};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

const ENTRY: &str = "log entry";

/// The one layout of entries there is so far.
const ENTRY_VERSION: u8 = 1;

const NOOP: u8 = 0;
const COMMAND: u8 = 1;
const CONFIGURATION: u8 = 2;
const FLOOR: u8 = 3;

/// number, incarnation.
#[derive(Serialize, Deserialize)]
pub(super) struct WireBallot(u64, u64);

/// version, kind, stamp in nanoseconds, payload: nothing for a no-op, the command's bytes as they
/// are, or the MessagePack of a configuration or a floor.
#[derive(Serialize, Deserialize)]
pub(super) struct WireEntry<'a>(u8, u8, u64, #[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>);

/// slot, ballot, entry.
#[derive(Serialize, Deserialize)]
pub(super) struct WireVote<'a>(u64, WireBallot, #[serde(borrow)] WireEntry<'a>);

impl From<Ballot> for WireBallot {
    fn from(ballot: Ballot) -> WireBallot {
        WireBallot(ballot.number.value(), ballot.incarnation.0)
    }
}

impl From<WireBallot> for Ballot {
    fn from(WireBallot(number, incarnation): WireBallot) -> Ballot {
        Ballot { number: ProposalNumber::from_raw(number), incarnation: Incarnation(incarnation) }
    }
}

impl<'a> From<&'a Entry<Bytes>> for WireEntry<'a> {
    fn from(entry: &'a Entry<Bytes>) -> WireEntry<'a> {
        let (kind, payload) = match &entry.payload {
            Payload::Noop => (NOOP, Cow::Borrowed(&[][..])),
            Payload::Command(command) => (COMMAND, Cow::Borrowed(&command[..])),
            Payload::Configuration(configuration) => {
                (CONFIGURATION, Cow::Owned(packed(&WireConfiguration::from(configuration))))
            }
            Payload::Floor(slot) => (FLOOR, Cow::Owned(packed(&slot.0))),
        };
        WireEntry(ENTRY_VERSION, kind, entry.stamp.0, payload)
    }
}

fn packed(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("writing to memory cannot fail")
}

impl WireEntry<'_> {
    /// Checks the entry; a command stays a slice of `input`.
    pub(super) fn check(self, input: &Bytes) -> Result<Arc<Entry<Bytes>>, DecodeError> {
        let WireEntry(version, kind, stamp, payload) = self;
        if version != ENTRY_VERSION {
            let known = ENTRY_VERSION;
            return Err(DecodeError::Version { what: ENTRY, found: version, known });
        }
        let payload = match kind {
            NOOP if payload.is_empty() => Payload::Noop,
            NOOP => return Err(DecodeError::Trailing { what: ENTRY }),
            COMMAND => Payload::Command(match payload {
                Cow::Borrowed(command) => share(input, command),
                Cow::Owned(command) => Bytes::from(command),
            }),
            CONFIGURATION => {
                Payload::Configuration(decode::<WireConfiguration>(ENTRY, &payload)?.check()?)
            }
            FLOOR => Payload::Floor(Slot(decode(ENTRY, &payload)?)),
            found => return Err(DecodeError::Kind { what: ENTRY, found }),
        };
        Ok(Arc::new(Entry { stamp: ClusterTime(stamp), payload }))
    }
}

impl<'a> From<&'a Vote<Bytes>> for WireVote<'a> {
    fn from(vote: &'a Vote<Bytes>) -> WireVote<'a> {
        WireVote(vote.slot.0, vote.ballot.into(), WireEntry::from(&*vote.entry))
    }
}

impl WireVote<'_> {
    pub(super) fn check(self, input: &Bytes) -> Result<Vote<Bytes>, DecodeError> {
        let WireVote(slot, ballot, entry) = self;
        Ok(Vote { slot: Slot(slot), ballot: ballot.into(), entry: entry.check(input)? })
    }
}
