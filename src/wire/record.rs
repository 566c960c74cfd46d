//! Layout of the log's records.
//!
//! Length and checksum are the disk's business, which frames each record; here is what lies
//! between.

use super::configuration::WireGenesis;
use super::entry::{WireBallot, WireEntry, WireVote};
use super::{DecodeError, decode, encode, split};
use crate::paxos::ballot::{Slot, VoterGeneration};
use crate::paxos::record::Record;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const RECORD: &str = "log record";

/// The one layout of records there is so far.
const RECORD_VERSION: u8 = 1;

const GENESIS: u8 = 0;
const PROMISED: u8 = 1;
const ACCEPTED: u8 = 2;
const LEARNED: u8 = 3;
const CHOSEN: u8 = 4;
const FLOOR: u8 = 5;
const FENCED: u8 = 6;

/// genesis, voter generation.
#[derive(Serialize, Deserialize)]
struct WireFirst<'a>(#[serde(borrow)] WireGenesis<'a>, Option<u64>);

/// slot, entry.
#[derive(Serialize, Deserialize)]
struct WireLearned<'a>(u64, #[serde(borrow)] WireEntry<'a>);

/// Appends the record to `out`.
pub fn encode_record(record: &Record<Bytes>, out: &mut Vec<u8>) {
    let version = RECORD_VERSION;
    match record {
        Record::Genesis { genesis, generation } => {
            let fields = WireFirst(genesis.into(), generation.map(|generation| generation.0));
            encode(version, GENESIS, &fields, out);
        }
        Record::Promised(ballot) => encode(version, PROMISED, &WireBallot::from(*ballot), out),
        Record::Accepted(vote) => encode(version, ACCEPTED, &WireVote::from(vote), out),
        Record::Learned { slot, entry } => {
            encode(version, LEARNED, &WireLearned(slot.0, WireEntry::from(&**entry)), out);
        }
        Record::Chosen(slot) => encode(version, CHOSEN, &slot.0, out),
        Record::Floor(slot) => encode(version, FLOOR, &slot.0, out),
        Record::Fenced => encode(version, FENCED, &(), out),
    }
}

/// Reads a record back. A value stays a slice of `input`.
///
/// # Errors
/// When the bytes are no record of a known version.
pub fn decode_record(input: &Bytes) -> Result<Record<Bytes>, DecodeError> {
    let (kind, fields) = split(RECORD, RECORD_VERSION, input)?;
    match kind {
        GENESIS => {
            let WireFirst(genesis, generation) = decode(RECORD, fields)?;
            let generation = generation.map(VoterGeneration);
            Ok(Record::Genesis { genesis: genesis.check()?, generation })
        }
        PROMISED => Ok(Record::Promised(decode::<WireBallot>(RECORD, fields)?.into())),
        ACCEPTED => Ok(Record::Accepted(decode::<WireVote>(RECORD, fields)?.check(input)?)),
        LEARNED => {
            let WireLearned(slot, entry) = decode(RECORD, fields)?;
            Ok(Record::Learned { slot: Slot(slot), entry: entry.check(input)? })
        }
        CHOSEN => Ok(Record::Chosen(Slot(decode(RECORD, fields)?))),
        FLOOR => Ok(Record::Floor(Slot(decode(RECORD, fields)?))),
        FENCED => decode::<()>(RECORD, fields).map(|()| Record::Fenced),
        found => Err(DecodeError::Kind { what: RECORD, found }),
    }
}
