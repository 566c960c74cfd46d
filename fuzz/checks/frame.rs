//! The stream of frames, its hello, and the pieces of the local socket.
//!
//! However a stream is cut on its way, the same frames come out and the same refusal ends it. What
//! comes out is what was put in: written again, the frames are the bytes that were read.

use super::input::Input;
use bytes::BytesMut;
use paxos_ssh::wire::frame::{
    Frame, FrameDecoder, FrameError, decode_hello, encode_hello, put_frame,
};
use paxos_ssh::wire::local::{self, parse_piece_header, piece_header};

/// The most cuts of one pattern, which is repeated until the stream ends.
const CUTS_MAX: usize = 7;

/// How a frame begins; see `src/wire/frame.rs`.
const LENGTH_BYTES: usize = 4;

/// Input: a number of cuts, their lengths, and the stream.
///
/// # Panics
/// When something does not hold.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let count = usize::from(input.byte()) % (CUTS_MAX + 1);
    let cuts: Vec<usize> = (0..count).map(|_| usize::from(input.byte())).collect();
    let stream = input.rest();
    let whole = read(stream, &[]);
    assert_eq!(read(stream, &cuts), whole, "other cuts give other frames");
    assert_eq!(read(stream, &[1]), whole, "single bytes give other frames");
    let (frames, error) = whole;
    let mut again = BytesMut::new();
    for frame in &frames {
        put_frame(&mut again, frame.kind, &frame.body);
    }
    assert!(stream.starts_with(&again), "the frames are not what was sent");
    if error.is_none() {
        check_unfinished(&stream[again.len()..]);
    }
    for body in frames.iter().map(|frame| &frame.body[..]).chain([stream]) {
        check_hello(body);
    }
    check_piece(stream);
}

/// All frames of a stream that arrives in pieces of these lengths, and what ended it.
fn read(stream: &[u8], cuts: &[usize]) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    let mut cuts = cuts.iter().cycle();
    let mut left = stream;
    let mut rounds = 0;
    while !left.is_empty() {
        // A pattern of empty pieces would never end.
        rounds += 1;
        let wanted = if rounds > 2 * stream.len() { None } else { cuts.next() };
        let taken = wanted.map_or(left.len(), |wanted| left.len().min(*wanted));
        let (mut piece, rest) = left.split_at(taken);
        left = rest;
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    let mut more = stream;
                    assert_eq!(decoder.next(&mut more), Err(error.clone()), "an error is final");
                    return (frames, Some(error));
                }
            }
        }
        assert!(piece.is_empty(), "the decoder stopped before its input ended");
    }
    (frames, None)
}

/// What no frame was made of, without an error, is the beginning of one.
fn check_unfinished(left: &[u8]) {
    let Some(length) = left.first_chunk::<LENGTH_BYTES>() else { return };
    let wanted = LENGTH_BYTES + u32::from_be_bytes(*length) as usize;
    assert!(left.len() < wanted, "a whole frame was not given out");
}

fn check_hello(body: &[u8]) {
    if let Ok(hello) = decode_hello(body) {
        assert_eq!(decode_hello(&encode_hello(&hello)), Ok(hello));
    }
}

fn check_piece(stream: &[u8]) {
    let Some(header) = stream.first_chunk::<{ local::HEADER_BYTES }>() else { return };
    if let Ok((kind, bytes)) = parse_piece_header(*header) {
        assert_eq!(piece_header(kind, bytes), *header);
    }
}
