//! Bytes to types and back: the only serialisation of this program.
//!
//! Every encoded thing begins with two bytes, a version and a kind (both are MessagePack's positive
//! fixint), and then one MessagePack array with the fields in a fixed order. The types that derive
//! serde here are private mirrors: what the program works with may change, what is on disks and
//! wires may not.
//!
//! Rules for change: a field is never added to, taken from or reordered within a version. A new
//! layout is a new version of that kind of thing, is written only once the cluster version in the
//! log allows it, and the old one stays readable. The golden tests hold each layout byte by byte.
//!
//! Decoding is for hostile input. It returns a [`DecodeError`], never panics, and allocates at most
//! about twenty times its input (a run of one-byte no-ops grows most). Values are not copied: they
//! are slices that keep the input alive, so who holds a small value for long copies it first.

pub mod agent_frame;
pub mod answer;
pub mod build;
pub mod command;
pub mod configuration;
pub mod decree;
pub mod entry;
pub mod event;
pub mod failure;
pub mod frame;
pub mod genesis;
pub mod grammar;
pub mod help;
pub mod local;
pub mod logs;
mod members;
pub mod message;
pub mod peer;
pub mod record;
pub mod report;
pub mod request;
pub mod rpc;
pub mod spelling;
pub mod store_call;
pub mod trace;
pub mod trace_call;
pub mod verb;
mod witness;
pub mod words;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io;

/// MessagePack integers up to here are a single byte, which is what versions and kinds are.
const FIXINT_MAX: u8 = 0x7f;

/// How deep an input may nest arrays. The deepest layout of ours has four levels; the decoder is
/// recursive, so the bound protects the stack.
const NESTING_MAX: usize = 16;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even a version and a kind.
    #[error("reading a {what} failed: the input ends before its version and kind")]
    Short {
        /// What was expected.
        what: &'static str,
    },
    /// A layout of another program version.
    #[error(
        "reading a {what} failed: its layout has version {found}, this program knows {known}; \
         upgrade this node"
    )]
    Version {
        /// What was expected.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The version known.
        known: u8,
    },
    /// A kind of thing that this version does not have.
    #[error("reading a {what} failed: there is no kind {found}; upgrade this node")]
    Kind {
        /// What was expected.
        what: &'static str,
        /// The kind found.
        found: u8,
    },
    /// Not the fields of this kind.
    #[error("reading a {what} failed: {why}; the sender or the disk is faulty")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the MessagePack decoder said.
        why: String,
    },
    /// More bytes than the layout has.
    #[error("reading a {what} failed: bytes follow its end; the sender or the disk is faulty")]
    Trailing {
        /// What was expected.
        what: &'static str,
    },
    /// Well formed, but against a rule.
    #[error("reading a {what} failed: {why}; the sender is faulty")]
    Invalid {
        /// What was expected.
        what: &'static str,
        /// Which rule.
        why: String,
    },
}

impl DecodeError {
    fn invalid(what: &'static str, why: impl ToString) -> DecodeError {
        DecodeError::Invalid { what, why: why.to_string() }
    }
}

/// Appends version, kind and fields.
fn encode(version: u8, kind: u8, fields: &impl Serialize, out: &mut Vec<u8>) {
    assert!(version <= FIXINT_MAX && kind <= FIXINT_MAX);
    out.push(version);
    out.push(kind);
    rmp_serde::encode::write(out, fields)
        .expect("writing to memory cannot fail, and no mirror type refuses to be serialised");
}

/// Splits version and kind from the fields, refusing versions other than `known`.
fn split<'a>(
    what: &'static str,
    known: u8,
    input: &'a [u8],
) -> Result<(u8, &'a [u8]), DecodeError> {
    let [version, kind, fields @ ..] = input else {
        return Err(DecodeError::Short { what });
    };
    if *version != known {
        return Err(DecodeError::Version { what, found: *version, known });
    }
    Ok((*kind, fields))
}

/// Reads one MessagePack value that must span all of `input`.
fn decode<'a, T: Deserialize<'a>>(what: &'static str, input: &'a [u8]) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(input);
    deserializer.set_max_depth(NESTING_MAX);
    let fields = T::deserialize(&mut deserializer)
        .map_err(|error| DecodeError::Malformed { what, why: error.to_string() })?;
    // The deserialiser does not tell where it stopped; but only at the end is there no next marker.
    // A unit reads that marker and nothing nested in it.
    match <()>::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(error))
            if error.kind() == io::ErrorKind::UnexpectedEof =>
        {
            Ok(fields)
        }
        _ => Err(DecodeError::Trailing { what }),
    }
}

/// `part` as an owner of its own in the buffer that it was decoded from. Empty slices keep nothing
/// alive.
fn share(input: &Bytes, part: &[u8]) -> Bytes {
    input.slice_ref(part)
}
