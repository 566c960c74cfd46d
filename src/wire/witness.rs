//! Layout of what one node tells another that it saw it pledge.

use super::entry::WireBallot;
use super::{DecodeError, decode, encode, split};
use crate::paxos::ballot::{Slot, VoterGeneration};
use crate::paxos::witness::Witnessed;
use serde::{Deserialize, Serialize};

const WITNESS: &str = "witness";

/// The one layout there is so far.
const VERSION: u8 = 1;

/// Shares its byte with the messages of the protocol and all else that peers say.
pub(super) const KIND: u8 = 48;

/// voter generation, ballot, last slot.
#[derive(Serialize, Deserialize)]
struct WireWitnessed(u64, WireBallot, u64);

pub(super) fn encode_witness(seen: Witnessed, out: &mut Vec<u8>) {
    let Witnessed { generation, ballot, last } = seen;
    encode(VERSION, KIND, &WireWitnessed(generation.0, ballot.into(), last.0), out);
}

pub(super) fn decode_witness(input: &[u8]) -> Result<Witnessed, DecodeError> {
    let (kind, fields) = split(WITNESS, VERSION, input)?;
    if kind != KIND {
        return Err(DecodeError::Kind { what: WITNESS, found: kind });
    }
    let WireWitnessed(generation, ballot, last) = decode(WITNESS, fields)?;
    let generation = VoterGeneration(generation);
    Ok(Witnessed { generation, ballot: ballot.into(), last: Slot(last) })
}
