//! Everything that one node may send to another, as the body of a frame of kind message.
//!
//! The second byte tells what it is: a message of the protocol, what the sender saw the receiver
//! pledge, something between a node without a store and one that has a store, or what the recorders
//! know.

use super::DecodeError;
use super::message::{decode_message, encode_message};
use super::store_call::{self, Either, StoreAnswer, StoreCall};
use super::trace_call::{self, TraceMessage};
use super::witness;
use crate::paxos::message::Message;
use crate::paxos::witness::Witnessed;
use bytes::Bytes;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// The protocol.
    Paxos(Message<Bytes>),
    /// What the sender saw the receiver's acceptor pledge.
    Witness(Witnessed),
    /// A question to a node with a store.
    Call(StoreCall),
    /// Its answer.
    Answer(StoreAnswer),
    /// What the recorders know of a slot.
    Trace(TraceMessage),
}

/// The message as a frame's body.
pub fn encode_peer(message: &PeerMessage) -> Bytes {
    let mut out = Vec::new();
    match message {
        PeerMessage::Paxos(message) => return encode_message(message),
        PeerMessage::Witness(seen) => witness::encode_witness(*seen, &mut out),
        PeerMessage::Call(call) => store_call::encode_call(call, &mut out),
        PeerMessage::Answer(answer) => store_call::encode_answer(answer, &mut out),
        PeerMessage::Trace(message) => trace_call::encode_trace(message, &mut out),
    }
    Bytes::from(out)
}

/// Reads a message back. Values stay slices of `input`.
///
/// # Errors
/// When the bytes are nothing of a known version.
pub fn decode_peer(input: &Bytes) -> Result<PeerMessage, DecodeError> {
    match input.get(1) {
        Some(store_call::FIRST_KIND..=store_call::LAST_KIND) => store_call::decode_either(input)
            .map(|either| match either {
                Either::Call(call) => PeerMessage::Call(call),
                Either::Answer(answer) => PeerMessage::Answer(answer),
            }),
        Some(trace_call::FIRST_KIND..=trace_call::LAST_KIND) => {
            trace_call::decode_trace(input).map(PeerMessage::Trace)
        }
        Some(&witness::KIND) => witness::decode_witness(input).map(PeerMessage::Witness),
        _ => decode_message(input).map(PeerMessage::Paxos),
    }
}
