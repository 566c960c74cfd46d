//! The decree file: what the controller lays beside the one survivor from whose log a cluster goes
//! on, and the node consumes; see [`crate::paxos::reform`].
//!
//! YAML as the genesis is, so that a person can read what was decreed; votes are log records in
//! base64.

use super::members::{self, MemberText};
use super::record::{decode_record, encode_record};
use crate::paxos::ballot::Slot;
use crate::paxos::configuration::ConfigurationNumber;
use crate::paxos::message::Vote;
use crate::paxos::record::Record;
use crate::paxos::reform::Reform;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
pub const DECREE_FILE: &str = "decree.yaml";

/// The one layout there is so far.
const DECREE_VERSION: u32 = 1;

/// Why a text is no decree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the decree is not usable: {0}; take the file that the controller wrote, unchanged")]
pub struct DecreeError(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecreeText {
    version: u32,
    cluster_id: String,
    /// The last slot that is taken over.
    last: u64,
    configuration: u64,
    phase1: u16,
    phase2: u16,
    members: Vec<MemberText>,
    votes: Vec<String>,
}

/// The file's text.
///
/// # Errors
/// Never for what [`decode_decree`] accepts; the writer of YAML has an error type of its own.
pub fn encode_decree(decree: &Reform<Bytes>) -> Result<String, DecreeError> {
    let (phase1, phase2) = members::sizes(&decree.configuration).map_err(DecreeError)?;
    let text = DecreeText {
        version: DECREE_VERSION,
        cluster_id: decree.cluster.to_string(),
        last: decree.last.0,
        configuration: decree.configuration.number.0,
        phase1,
        phase2,
        members: members::texts(&decree.configuration),
        votes: decree.votes.iter().map(|vote| BASE64_STANDARD.encode(encode_vote(vote))).collect(),
    };
    serde_saphyr::to_string(&text).map_err(|error| DecreeError(error.to_string()))
}

/// Reads the file's text.
///
/// # Errors
/// When it is no YAML of this layout, or what it holds makes no configuration or no vote.
pub fn decode_decree(text: &str) -> Result<Reform<Bytes>, DecreeError> {
    let text: DecreeText =
        serde_saphyr::from_str(text).map_err(|error| DecreeError(error.to_string()))?;
    if text.version != DECREE_VERSION {
        let found = text.version;
        return Err(DecreeError(format!("version {found}, and this program knows 1")));
    }
    let (number, sizes) = (ConfigurationNumber(text.configuration), (text.phase1, text.phase2));
    let configuration = members::configuration(number, sizes, text.members);
    let mut votes = Vec::new();
    for vote in &text.votes {
        let bytes = BASE64_STANDARD.decode(vote);
        let bytes = bytes.map_err(|error| DecreeError(format!("a vote is no base64: {error}")))?;
        votes.push(decode_vote(&Bytes::from(bytes)).map_err(DecreeError)?);
    }
    Ok(Reform {
        cluster: members::cluster_id(&text.cluster_id).map_err(DecreeError)?,
        configuration: configuration.map_err(DecreeError)?,
        last: Slot(text.last),
        votes,
    })
}

/// A vote as it stands in a log.
pub fn encode_vote(vote: &Vote<Bytes>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_record(&Record::Accepted(vote.clone()), &mut bytes);
    bytes
}

/// Reads a vote back.
///
/// # Errors
/// When the bytes are none.
pub fn decode_vote(bytes: &Bytes) -> Result<Vote<Bytes>, String> {
    match decode_record(bytes) {
        Ok(Record::Accepted(vote)) => Ok(vote),
        Ok(_) => Err("a record that is no vote stands among the votes".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::{Ballot, Incarnation, NodeId, ProposalNumber, VoterGeneration};
    use crate::paxos::configuration::{Configuration, Member, Roles};
    use crate::paxos::message::Entry;
    use crate::paxos::quorum::QuorumSystem;
    use crate::paxos::{ballot::ClusterId, ballot::ProposerId, message::Payload};
    use std::sync::Arc;

    fn decree() -> Reform<Bytes> {
        let roles = Roles {
            proposer: ProposerId::new(1).ok(),
            acceptor: Some(VoterGeneration(u64::MAX - 1)),
            learner: true,
        };
        let member = Member { name: "n1".into(), address: "127.0.0.1:1".into(), roles };
        let (members, majority) = ([(NodeId(1), member)].into(), QuorumSystem::majority(1));
        let number = ConfigurationNumber(2);
        let payload = Payload::Command(Bytes::from_static(b"\x00\xffx"));
        let vote = Vote {
            slot: Slot(9),
            ballot: Ballot { number: ProposalNumber::from_raw(301), incarnation: Incarnation(7) },
            entry: Arc::new(Entry { payload, ..Entry::noop() }),
        };
        Reform {
            cluster: ClusterId(u128::MAX - 1),
            configuration: Configuration::new(number, members, majority.unwrap()).unwrap(),
            last: Slot(u64::MAX - 9),
            votes: vec![vote],
        }
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let text = encode_decree(&decree()).unwrap();
        assert_eq!(decode_decree(&text).as_ref(), Ok(&decree()), "{text}");
    }

    #[test]
    fn what_was_edited_is_refused() {
        let text = encode_decree(&decree()).unwrap();
        let edits = [
            String::new(),
            text[..text.len() / 2].to_owned(),
            text.replace("version: 1", "version: 2"),
            text.replace("phase1: 1", "phase1: 0"),
            text.replace("votes:\n- ", "votes:\n- !"),
            text.replace("last:", "more: 1\nlast:"),
        ];
        for edited in edits {
            assert_ne!(edited, text);
            assert!(decode_decree(&edited).is_err(), "{edited}");
        }
    }
}
