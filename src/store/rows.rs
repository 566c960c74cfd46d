//! Layout of the rows that the store keeps in its engine.
//!
//! Numbers are big-endian, so that rows sort as the numbers do. The rows are written by this module
//! alone; one that cannot be read means that the engine returned something else than it was given,
//! and the store cannot go on.

use super::command::{Outcome, SessionId};
use super::view::KeyValue;
use crate::paxos::ballot::{ClusterTime, Slot};
use bytes::{BufMut, Bytes, BytesMut};

/// The layout of all rows together, kept in the meta row. A program that finds another one must
/// convert.
const ROWS_VERSION: u8 = 1;

/// The key of the row that changes with every slot, in the meta space.
pub(super) const META_KEY: Bytes = Bytes::from_static(b"meta");

/// The key of the published trust bundle, in the meta space.
pub(super) const BUNDLE_KEY: Bytes = Bytes::from_static(b"bundle");

const DAMAGED: &str = "the engine returned a row that the store did not write";

/// How far the store is, and the sums that it would otherwise have to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub applied: Slot,
    pub time: ClusterTime,
    pub revision: u64,
    pub digest: u64,
    pub keys: u64,
    pub sessions: u64,
    pub requests: u64,
    pub cluster_version: u16,
}

impl Default for Meta {
    fn default() -> Meta {
        Meta {
            applied: Slot::default(),
            time: ClusterTime::default(),
            revision: 0,
            digest: 0,
            keys: 0,
            sessions: 0,
            requests: 0,
            // What every cluster is formed at.
            cluster_version: 1,
        }
    }
}

impl Meta {
    pub(super) fn encode(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(1 + 7 * 8 + 2);
        row.put_u8(ROWS_VERSION);
        row.put_u64(self.applied.0);
        row.put_u64(self.time.0);
        for field in [self.revision, self.digest, self.keys, self.sessions, self.requests] {
            row.put_u64(field);
        }
        row.put_u16(self.cluster_version);
        row.freeze()
    }

    pub(super) fn decode(row: &Bytes) -> Meta {
        let mut row = Row(row.clone());
        assert_eq!(row.u8(), ROWS_VERSION, "the store's rows were written by another version");
        Meta {
            applied: Slot(row.u64()),
            time: ClusterTime(row.u64()),
            revision: row.u64(),
            digest: row.u64(),
            keys: row.u64(),
            sessions: row.u64(),
            requests: row.u64(),
            cluster_version: u16::from_be_bytes(row.array()),
        }
    }
}

/// Reads a row from its start.
struct Row(Bytes);

impl Row {
    fn u8(&mut self) -> u8 {
        assert!(!self.0.is_empty(), "{DAMAGED}");
        self.0.split_to(1)[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        assert!(self.0.len() >= N, "{DAMAGED}");
        self.0.split_to(N)[..].try_into().expect("that many bytes were split off")
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn outcome(&mut self) -> Outcome {
        let (kind, number) = (self.u8(), self.u64());
        let outcome = Outcome::from_numbers(kind, number);
        outcome.unwrap_or_else(|| panic!("{DAMAGED}: an outcome of kind {kind}"))
    }

    fn text(self) -> String {
        String::from_utf8(self.0.into()).expect(DAMAGED)
    }
}

pub(super) fn encode_bundle(epoch: u64, signed: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(8 + signed.len());
    row.put_u64(epoch);
    row.put_slice(signed);
    row.freeze()
}

pub(super) fn decode_bundle(row: Bytes) -> (u64, Bytes) {
    let mut row = Row(row);
    (row.u64(), row.0)
}

pub(super) fn encode_key_value(found: &KeyValue) -> Bytes {
    let mut row = BytesMut::with_capacity(3 * 8 + found.value.len());
    for field in [found.create_revision, found.mod_revision, found.version] {
        row.put_u64(field);
    }
    row.put_slice(&found.value);
    row.freeze()
}

pub(super) fn decode_key_value(row: Bytes) -> KeyValue {
    let mut row = Row(row);
    let (create_revision, mod_revision, version) = (row.u64(), row.u64(), row.u64());
    KeyValue { value: row.0, create_revision, mod_revision, version }
}

/// What is known of an open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// When it ends unless it is used before.
    pub expires: ClusterTime,
    /// Outcomes below this sequence number are gone.
    pub acknowledged_below: u64,
    pub nonce: u128,
    pub principal: String,
}

impl Session {
    pub(super) fn encode(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(2 * 8 + 16 + self.principal.len());
        row.put_u64(self.expires.0);
        row.put_u64(self.acknowledged_below);
        row.put_u128(self.nonce);
        row.put_slice(self.principal.as_bytes());
        row.freeze()
    }

    pub(super) fn decode(row: Bytes) -> Session {
        let mut row = Row(row);
        Session {
            expires: ClusterTime(row.u64()),
            acknowledged_below: row.u64(),
            nonce: u128::from_be_bytes(row.array()),
            principal: row.text(),
        }
    }
}

pub(super) fn session_key(id: SessionId) -> Bytes {
    number_key(id.0)
}

pub(super) fn number_key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(super) fn decode_number(row: &Bytes) -> u64 {
    Row(row.clone()).u64()
}

/// Two numbers one after the other: session and sequence, or time and session.
pub(super) fn pair_key(first: u64, second: u64) -> Bytes {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&second.to_be_bytes());
    Bytes::copy_from_slice(&key)
}

pub(super) fn decode_pair(key: &Bytes) -> (u64, u64) {
    let mut key = Row(key.clone());
    (key.u64(), key.u64())
}

pub(super) fn nonce_key(nonce: u128, principal: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(16 + principal.len());
    key.put_u128(nonce);
    key.put_slice(principal.as_bytes());
    key.freeze()
}

/// The id alone: a retry may come through another node, whose session has another principal. Whose
/// id it is, is part of the id.
pub(super) fn request_key(request_id: &str) -> Bytes {
    Bytes::copy_from_slice(request_id.as_bytes())
}

/// The outcome as its kind and one number.
pub(super) fn encode_outcome(outcome: &Outcome) -> Bytes {
    let (kind, number) = outcome.numbers();
    let mut row = [kind; 9];
    row[1..].copy_from_slice(&number.to_be_bytes());
    Bytes::copy_from_slice(&row)
}

pub(super) fn decode_outcome(row: &Bytes) -> Outcome {
    Row(row.clone()).outcome()
}

/// What a request id was used for, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedRequest {
    /// The digest of the operation.
    pub operation: u64,
    pub outcome: Outcome,
}

impl NamedRequest {
    pub(super) fn encode(&self) -> Bytes {
        let outcome = encode_outcome(&self.outcome);
        let mut row = BytesMut::with_capacity(outcome.len() + 8);
        row.put_slice(&outcome);
        row.put_u64(self.operation);
        row.freeze()
    }

    pub(super) fn decode(row: &Bytes) -> NamedRequest {
        let mut row = Row(row.clone());
        let outcome = row.outcome();
        NamedRequest { operation: row.u64(), outcome }
    }
}
