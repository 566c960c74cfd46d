//! A rolling digest: of everything that was applied, and of single operations.
//!
//! The former is compared between nodes at equal slots, to find memory that flipped and programs
//! that differ; it is no defence against a forger. It covers what the engine was told to change,
//! not what was asked, so that two programs that understand one command differently show it at
//! once. One multiplication takes in eight bytes.

use super::command::{Condition, Operation};
use super::engine::Change;

/// An odd constant with no pattern in its bits: 2⁶⁴ divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The digest so far, to be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub u64);

impl Digest {
    pub(super) fn word(&mut self, word: u64) {
        // The rotation brings the product's high bits, where all input bits meet, back to the low
        // end.
        self.0 = (self.0 ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // The length first: otherwise two rows could share their bytes out differently.
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    fn condition(&mut self, condition: &Condition) {
        match condition {
            Condition::Always => self.word(1),
            Condition::Absent => self.word(2),
            Condition::Value(value) => {
                self.word(3);
                self.bytes(value);
            }
            Condition::Revision(revision) => {
                self.word(4);
                self.word(*revision);
            }
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        let deleted = u64::from(change.value.is_none());
        self.word(change.space as u64 * 2 + deleted);
        self.bytes(&change.key);
        if let Some(value) = &change.value {
            self.bytes(value);
        }
    }
}

/// Tells operations apart that came under one request id. It is kept in rows, so it may never
/// change. Every number below is part of it; none is 0, which an empty digest would swallow.
pub(super) fn operation_digest(operation: &Operation) -> u64 {
    let mut digest = Digest(0);
    match operation {
        Operation::OpenSession { nonce } => {
            digest.word(1);
            digest.bytes(&nonce.to_be_bytes());
        }
        Operation::CloseSession => digest.word(2),
        Operation::Put { key, value, condition } => {
            digest.word(3);
            digest.bytes(key);
            digest.bytes(value);
            digest.condition(condition);
        }
        Operation::Delete { key, condition } => {
            digest.word(4);
            digest.bytes(key);
            digest.condition(condition);
        }
        Operation::RaiseVersion { to } => {
            digest.word(5);
            digest.word(u64::from(*to));
        }
        Operation::PublishBundle { epoch, signed } => {
            digest.word(6);
            digest.word(*epoch);
            digest.bytes(signed);
        }
    }
    digest.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::Space;
    use bytes::Bytes;

    fn digest(changes: &[(&'static [u8], Option<&'static [u8]>)]) -> u64 {
        let mut digest = Digest(0);
        for (key, value) in changes {
            let (key, value) = (Bytes::from_static(key), value.map(Bytes::from_static));
            digest.change(&Change { space: Space::Keys, key, value });
        }
        digest.0
    }

    #[test]
    fn bytes_cannot_move_between_neighbours() {
        let all = [
            digest(&[(b"ab", Some(b"c"))]),
            digest(&[(b"a", Some(b"bc"))]),
            digest(&[(b"abc", Some(b""))]),
            digest(&[(b"abc", None)]),
            digest(&[(b"ab\0", Some(b"c"))]),
            digest(&[(b"ab", Some(b"c\0"))]),
            digest(&[(b"ab", None), (b"c", None)]),
            digest(&[(b"c", None), (b"ab", None)]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index} collides");
        }
    }

    fn put(key: &'static str, value: &'static str, condition: Condition) -> Operation {
        Operation::Put { key: key.into(), value: value.into(), condition }
    }

    #[test]
    fn every_part_of_an_operation_counts() {
        let delete = |condition| Operation::Delete { key: "k".into(), condition };
        let all = [
            put("k", "v", Condition::Always),
            put("k", "w", Condition::Always),
            put("l", "v", Condition::Always),
            put("kv", "", Condition::Always),
            put("k", "", Condition::Always),
            put("k", "v", Condition::Absent),
            put("k", "v", Condition::Value("".into())),
            put("k", "v", Condition::Value("v".into())),
            put("k", "v", Condition::Revision(0)),
            put("k", "v", Condition::Revision(1)),
            delete(Condition::Always),
            delete(Condition::Absent),
            delete(Condition::Revision(1)),
            Operation::CloseSession,
            Operation::RaiseVersion { to: 2 },
            Operation::RaiseVersion { to: 3 },
            Operation::PublishBundle { epoch: 2, signed: Bytes::from_static(b"x") },
            Operation::PublishBundle { epoch: 3, signed: Bytes::from_static(b"x") },
            Operation::PublishBundle { epoch: 3, signed: Bytes::from_static(b"y") },
            Operation::OpenSession { nonce: 0 },
            Operation::OpenSession { nonce: 1 },
        ];
        let all = all.map(|operation| operation_digest(&operation));
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index} collides");
        }
    }

    /// Rows keep it, and nodes of different versions must decide alike.
    #[test]
    fn the_digest_of_an_operation_is_fixed() {
        let operation = put("key", "a longer value", Condition::Revision(7));
        assert_eq!(operation_digest(&operation), 18_178_891_319_093_031_423);
    }

    /// Nodes of different versions compare digests, so the function may never change.
    #[test]
    fn the_function_is_fixed() {
        assert_eq!(digest(&[(b"key", Some(b"a longer value"))]), 8_836_000_224_363_304_664);
    }
}
