//! Layout of what a node asks of the others' recorders, and of the answers.
//!
//! None of this is part of the protocol. An event travels as the JSON object that programs get:
//! that form is a contract already, to which fields may be added, and a slot has a handful of them.

use super::event::ProtocolEvent;
use super::{DecodeError, decode, encode, split};
use serde::{Deserialize, Serialize};

const TRACE: &str = "trace of a slot";

/// The one layout there is so far.
const VERSION: u8 = 1;

// Kinds share their byte with the messages of the protocol and the calls to a store.
const ASK: u8 = 40;
const TOLD: u8 = 41;

/// Kinds from here to [`LAST_KIND`] are traces.
pub(super) const FIRST_KIND: u8 = ASK;
pub(super) const LAST_KIND: u8 = TOLD;

/// Events that one node tells of one slot. A slot that is chosen at the first attempt has a dozen.
pub const EVENTS_MAX: usize = 256;

/// The longest event: names of as many members as a cluster has.
const EVENT_BYTES_MAX: usize = 64 << 10;

/// A question, or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceMessage {
    /// What do you know of this slot?
    Ask {
        /// Matches the answer to the question.
        token: u64,
        /// Which slot.
        slot: u64,
    },
    /// This.
    Told {
        /// The question's token.
        token: u64,
        /// In order; at most [`EVENTS_MAX`].
        events: Vec<ProtocolEvent>,
        /// Whether there may have been more, of which the recorder holds nothing any more.
        forgot: bool,
    },
}

/// token, slot.
#[derive(Serialize, Deserialize)]
struct WireAsk(u64, u64);

/// token, events, whether there may have been more.
#[derive(Serialize, Deserialize)]
struct WireTold(u64, Vec<String>, bool);

pub(super) fn encode_trace(message: &TraceMessage, out: &mut Vec<u8>) {
    match message {
        TraceMessage::Ask { token, slot } => encode(VERSION, ASK, &WireAsk(*token, *slot), out),
        TraceMessage::Told { token, events, forgot } => {
            let events = events.iter().map(ProtocolEvent::to_json).collect();
            encode(VERSION, TOLD, &WireTold(*token, events, *forgot), out);
        }
    }
}

pub(super) fn decode_trace(input: &[u8]) -> Result<TraceMessage, DecodeError> {
    let (kind, fields) = split(TRACE, VERSION, input)?;
    match kind {
        ASK => {
            let WireAsk(token, slot) = decode(TRACE, fields)?;
            Ok(TraceMessage::Ask { token, slot })
        }
        TOLD => {
            let WireTold(token, events, forgot) = decode(TRACE, fields)?;
            if events.len() > EVENTS_MAX || events.iter().any(|e| e.len() > EVENT_BYTES_MAX) {
                return Err(DecodeError::invalid(TRACE, "it holds more than a slot can have"));
            }
            let event = |text: &String| serde_json::from_str(text);
            let events = events.iter().map(event).collect::<Result<_, _>>();
            let events = events.map_err(|error| DecodeError::invalid(TRACE, error))?;
            Ok(TraceMessage::Told { token, events, forgot })
        }
        found => Err(DecodeError::Kind { what: TRACE, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::{Direction, Moment, What};

    fn event() -> ProtocolEvent {
        ProtocolEvent {
            at: Moment(1),
            node: "a1".to_owned(),
            seq: None,
            event: Direction::Local,
            what: What::Learned,
            peers: Vec::new(),
            ballot: None,
            counter: None,
            proposer: None,
            first: Some(1),
            last: Some(2),
            votes: None,
            promised: None,
            detail: None,
        }
    }

    #[test]
    fn questions_and_answers_come_back() {
        for message in [
            TraceMessage::Ask { token: 7, slot: u64::MAX },
            TraceMessage::Told { token: 7, events: vec![event(); 2], forgot: true },
        ] {
            let mut bytes = Vec::new();
            encode_trace(&message, &mut bytes);
            assert_eq!(decode_trace(&bytes), Ok(message));
            bytes.push(0);
            assert!(decode_trace(&bytes).is_err());
        }
    }

    #[test]
    fn the_layout_stays() {
        let mut bytes = Vec::new();
        encode_trace(&TraceMessage::Ask { token: 7, slot: 8 }, &mut bytes);
        assert_eq!(bytes, [1, 40, 0x92, 7, 8]);
        bytes.clear();
        encode_trace(
            &TraceMessage::Told { token: 7, events: Vec::new(), forgot: false },
            &mut bytes,
        );
        assert_eq!(bytes, [1, 41, 0x93, 7, 0x90, 0xC2]);
    }

    #[test]
    fn what_no_slot_can_have_is_refused() {
        let mut bytes = Vec::new();
        let events = vec![event(); EVENTS_MAX + 1];
        encode_trace(&TraceMessage::Told { token: 7, events, forgot: false }, &mut bytes);
        assert!(matches!(decode_trace(&bytes), Err(DecodeError::Invalid { .. })));
        bytes.clear();
        encode(VERSION, TOLD, &WireTold(7, vec!["{}".to_owned()], false), &mut bytes);
        assert!(matches!(decode_trace(&bytes), Err(DecodeError::Invalid { .. })));
    }
}
