//! Frames: how messages stand one after another in a channel's byte stream.
//!
//! ```text
//! u32 big-endian: length of what follows | u8 format version | u8 kind | body
//! ```
//!
//! The channel below is encrypted and authenticated, so a frame has no checksum of its own. The
//! decoder takes bytes as they come, in pieces of any size, and gives every body as an allocation
//! of exactly its size: a small value that is kept for years must not keep the 64 KiB alive in
//! which it arrived. The cost is one copy per frame, which is small beside the decryption that came
//! before it.
//!
//! Nothing here believes a length: a body's memory grows with the bytes that really arrived.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Most bytes that may follow the length field. A batch of commands of 1 MiB each fits; a peer that
/// claims more is broken or hostile.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Most bytes of a body.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - VERSION_AND_KIND_BYTES;

/// The format of frames that this code writes, and the only one it reads.
pub const FRAME_VERSION: u8 = 1;

/// The oldest and the newest protocol between nodes that this code speaks; [`Hello`] carries both.
pub const PROTOCOL_VERSIONS: (u16, u16) = (1, 1);

/// Bytes before the body.
pub const HEADER_BYTES: usize = 4 + VERSION_AND_KIND_BYTES;

const VERSION_AND_KIND_BYTES: usize = 2;

/// Memory set aside for a body before its bytes arrive: a lying length costs no more than this.
const BODY_RESERVE_BYTES: usize = 64 << 10;

/// Most bytes of the texts in a [`Hello`].
const HELLO_TEXT_BYTES_MAX: usize = 256;

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The first frame of a link, in each direction: a [`Hello`].
    Hello,
    /// A message of the protocol between nodes.
    Message,
    /// A request of a client that speaks frames.
    Request,
    /// The answer to one.
    Answer,
}

impl FrameKind {
    fn code(self) -> u8 {
        match self {
            FrameKind::Hello => 1,
            FrameKind::Message => 2,
            FrameKind::Request => 3,
            FrameKind::Answer => 4,
        }
    }

    fn from_code(code: u8) -> Option<FrameKind> {
        match code {
            1 => Some(FrameKind::Hello),
            2 => Some(FrameKind::Message),
            3 => Some(FrameKind::Request),
            4 => Some(FrameKind::Answer),
            _ => None,
        }
    }
}

/// One whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: FrameKind,
    /// The body alone, without the header.
    pub body: Bytes,
}

/// Why bytes are no frame. After one of these the stream cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is above [`FRAME_BYTES_MAX`].
    #[error(
        "a frame claims {0} bytes, but the limit is {FRAME_BYTES_MAX}; \
         the sender is broken, or does not speak this protocol"
    )]
    Oversized(u64),
    /// The length field does not even cover version and kind.
    #[error("a frame claims {0} bytes, too few for its own header; the sender is broken")]
    Undersized(u64),
    /// A format that this version does not know.
    #[error(
        "a frame has format version {0}, but this program reads only {FRAME_VERSION}; \
         upgrade the older of the two nodes"
    )]
    Version(u8),
    /// A kind that this version does not know.
    #[error("a frame has the unknown kind {0}; upgrade the older of the two nodes")]
    Kind(u8),
    /// The body of a hello does not decode.
    #[error("a hello does not decode ({0}); the sender is broken, or does not speak this protocol")]
    Hello(String),
}

/// The header of a frame whose body has `body_bytes` bytes.
///
/// # Panics
/// When the body is over [`BODY_BYTES_MAX`]: whoever builds messages splits them before.
pub fn frame_header(kind: FrameKind, body_bytes: usize) -> [u8; HEADER_BYTES] {
    assert!(body_bytes <= BODY_BYTES_MAX, "a body of {body_bytes} bytes fits in no frame");
    let length = u32::try_from(body_bytes + VERSION_AND_KIND_BYTES).expect("the limit is below");
    let [a, b, c, d] = length.to_be_bytes();
    [a, b, c, d, FRAME_VERSION, kind.code()]
}

/// Appends a frame to `out`; panics as [`frame_header`] does.
pub fn put_frame(out: &mut BytesMut, kind: FrameKind, body: &[u8]) {
    out.reserve(HEADER_BYTES + body.len());
    out.put_slice(&frame_header(kind, body.len()));
    out.put_slice(body);
}

/// Reads frames out of a byte stream that comes in pieces.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    body: Vec<u8>,
    body_bytes: usize,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> FrameDecoder {
        FrameDecoder::default()
    }

    /// Takes what it needs from the front of `input` and answers the next whole frame, or `None`
    /// once `input` is used up. An error is final: it is repeated at each later call.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.advance(input);
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.header_bytes < HEADER_BYTES {
            let taken = input.len().min(HEADER_BYTES - self.header_bytes);
            let (head, rest) = input.split_at(taken);
            self.header[self.header_bytes..][..taken].copy_from_slice(head);
            self.header_bytes += taken;
            *input = rest;
            self.check_length()?;
            if self.header_bytes < HEADER_BYTES {
                return Ok(None);
            }
            self.check_version_and_kind()?;
            self.body = Vec::with_capacity(self.body_bytes.min(BODY_RESERVE_BYTES));
        }
        let taken = input.len().min(self.body_bytes - self.body.len());
        let (head, rest) = input.split_at(taken);
        if self.body.capacity() - self.body.len() < taken {
            // Doubles, but never beyond the body's size: nothing is left over when it is complete.
            let wanted = (self.body.capacity() * 2).max(self.body.len() + taken);
            self.body.reserve_exact(wanted.min(self.body_bytes) - self.body.len());
        }
        self.body.extend_from_slice(head);
        *input = rest;
        if self.body.len() < self.body_bytes {
            return Ok(None);
        }
        self.header_bytes = 0;
        let kind = self.kind()?;
        Ok(Some(Frame { kind, body: Bytes::from(std::mem::take(&mut self.body)) }))
    }

    /// As soon as the length is there it is judged: nobody waits for a body that may not come.
    fn check_length(&mut self) -> Result<(), FrameError> {
        if self.header_bytes < 4 {
            return Ok(());
        }
        let [a, b, c, d, ..] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes > FRAME_BYTES_MAX {
            return Err(FrameError::Oversized(u64::from(length)));
        }
        self.body_bytes = bytes
            .checked_sub(VERSION_AND_KIND_BYTES)
            .ok_or(FrameError::Undersized(u64::from(length)))?;
        Ok(())
    }

    fn check_version_and_kind(&self) -> Result<(), FrameError> {
        let [_, _, _, _, version, _] = self.header;
        if version != FRAME_VERSION {
            return Err(FrameError::Version(version));
        }
        self.kind().map(|_| ())
    }

    fn kind(&self) -> Result<FrameKind, FrameError> {
        let [.., code] = self.header;
        FrameKind::from_code(code).ok_or(FrameError::Kind(code))
    }
}

/// What both ends of a link between nodes say before anything else, so that versions and clusters
/// that do not belong together find out at once. None of it is believed in place of the
/// certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest and newest protocol between nodes that the sender speaks.
    pub protocol: (u16, u16),
    /// The cluster's identity as text; empty while the sender does not know it yet.
    pub cluster: String,
    /// The id that the sender goes by.
    pub node: u64,
    /// The sender's software, for people who read logs.
    pub software: String,
}

/// The fields of a hello in the order of the array. New fields are added at the end.
#[derive(Serialize, Deserialize)]
struct HelloFields(u8, u16, u16, String, u64, String);

const HELLO_VERSION: u8 = 1;

impl Hello {
    /// The newest protocol that both ends speak.
    pub fn common_protocol(&self, other: &Hello) -> Option<u16> {
        let newest = self.protocol.1.min(other.protocol.1);
        let oldest = self.protocol.0.max(other.protocol.0);
        (oldest <= newest).then_some(newest)
    }
}

/// The body of a [`FrameKind::Hello`].
pub fn encode_hello(hello: &Hello) -> Bytes {
    let (oldest, newest) = hello.protocol;
    let fields = HelloFields(
        HELLO_VERSION,
        oldest,
        newest,
        hello.cluster.clone(),
        hello.node,
        hello.software.clone(),
    );
    Bytes::from(rmp_serde::to_vec(&fields).expect("numbers and texts always encode"))
}

/// Reads the body of a [`FrameKind::Hello`].
pub fn decode_hello(body: &[u8]) -> Result<Hello, FrameError> {
    let fields: HelloFields =
        rmp_serde::from_slice(body).map_err(|error| FrameError::Hello(error.to_string()))?;
    let HelloFields(version, oldest, newest, cluster, node, software) = fields;
    if version != HELLO_VERSION {
        return Err(FrameError::Hello(format!("its version is {version}, not {HELLO_VERSION}")));
    }
    if cluster.len() > HELLO_TEXT_BYTES_MAX || software.len() > HELLO_TEXT_BYTES_MAX {
        return Err(FrameError::Hello(format!("a text is over {HELLO_TEXT_BYTES_MAX} bytes")));
    }
    Ok(Hello { protocol: (oldest, newest), cluster, node, software })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(decoder: &mut FrameDecoder, mut input: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty(), "the decoder stopped before the input was used up");
        Ok(frames)
    }

    #[test]
    fn a_frame_has_the_bytes_it_always_had() {
        let mut out = BytesMut::new();
        put_frame(&mut out, FrameKind::Message, b"abc");
        assert_eq!(&out[..], [0, 0, 0, 5, 1, 2, b'a', b'b', b'c']);
    }

    #[test]
    fn a_hello_has_the_bytes_it_always_had() {
        let hello = Hello {
            protocol: (1, 1),
            cluster: "ab".to_string(),
            node: 3,
            software: "0.1".to_string(),
        };
        let body = encode_hello(&hello);
        assert_eq!(&body[..], b"\x96\x01\x01\x01\xa2ab\x03\xa30.1");
        assert_eq!(decode_hello(&body), Ok(hello));
    }

    #[test]
    fn an_oversized_length_is_refused_before_the_body() {
        let mut decoder = FrameDecoder::new();
        let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
        let refused = decoder.next(&mut &length[..]);
        assert_eq!(refused, Err(FrameError::Oversized(FRAME_BYTES_MAX as u64 + 1)));
        let again = decoder.next(&mut &[0, 0, 0, 2, 1, 2][..]);
        assert!(again.is_err(), "a stream goes on after it was found broken");
    }

    #[test]
    fn the_largest_frame_passes_and_leaves_no_slack() {
        let body = vec![7; BODY_BYTES_MAX];
        let mut out = BytesMut::new();
        put_frame(&mut out, FrameKind::Message, &body);
        let mut decoder = FrameDecoder::new();
        let mut frames = Vec::new();
        for piece in out.chunks(32 << 10) {
            frames.extend(decode_all(&mut decoder, piece).unwrap());
        }
        assert_eq!(frames.len(), 1);
        assert!(frames[0].body == body);
    }

    #[test]
    fn unknown_versions_and_kinds_and_short_lengths_are_refused() {
        for (bytes, error) in [
            ([0, 0, 0, 2, 9, 2], FrameError::Version(9)),
            ([0, 0, 0, 2, 1, 99], FrameError::Kind(99)),
            ([0, 0, 0, 1, 1, 2], FrameError::Undersized(1)),
            ([0, 0, 0, 0, 1, 2], FrameError::Undersized(0)),
        ] {
            assert_eq!(FrameDecoder::new().next(&mut &bytes[..]), Err(error));
        }
    }

    #[test]
    fn a_lying_length_reserves_little() {
        let mut decoder = FrameDecoder::new();
        let header = frame_header(FrameKind::Message, BODY_BYTES_MAX);
        assert_eq!(decoder.next(&mut &header[..]), Ok(None));
        assert!(decoder.body.capacity() <= BODY_RESERVE_BYTES);
    }

    #[test]
    fn protocols_meet_at_the_newest_common_one() {
        let hello =
            |protocol| Hello { protocol, cluster: String::new(), node: 1, software: String::new() };
        assert_eq!(hello((1, 3)).common_protocol(&hello((2, 5))), Some(3));
        assert_eq!(hello((1, 1)).common_protocol(&hello((2, 2))), None);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            cuts in prop::collection::vec(1_usize..50, 1..40),
        ) {
            let mut out = BytesMut::new();
            for body in &bodies {
                put_frame(&mut out, FrameKind::Message, body);
            }
            let mut decoder = FrameDecoder::new();
            let mut frames = Vec::new();
            let mut rest = &out[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                frames.extend(decode_all(&mut decoder, piece).unwrap());
                rest = tail;
            }
            let got: Vec<Vec<u8>> = frames.iter().map(|f| f.body.to_vec()).collect();
            prop_assert_eq!(got, bodies);
        }

        #[test]
        fn no_input_panics(pieces in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..300), 0..10,
        )) {
            let mut decoder = FrameDecoder::new();
            for piece in &pieces {
                let mut input = &piece[..];
                while let Ok(Some(frame)) = decoder.next(&mut input) {
                    decode_hello(&frame.body).ok();
                }
                decode_hello(piece).ok();
            }
        }
    }
}
