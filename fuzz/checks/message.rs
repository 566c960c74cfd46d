//! Everything that others send as MessagePack, and the records of the log.
//!
//! What decodes encodes to something that means the same, and of that no part and nothing longer
//! decodes: there is one reading of all bytes, or none.

use bytes::Bytes;
use paxos_ssh::wire::command::{decode_command, encode_command};
use paxos_ssh::wire::message::{decode_message, encode_message};
use paxos_ssh::wire::peer::{decode_peer, encode_peer};
use paxos_ssh::wire::record::{decode_record, encode_record};
use paxos_ssh::wire::rpc::{decode_answer, decode_request, encode_answer, encode_request};
use std::fmt::Debug;

/// Input: which decoder, and its bytes.
///
/// # Panics
/// When something does not hold.
pub fn check(data: &[u8]) {
    let Some((which, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    match which % 6 {
        0 => stable(&body, decode_peer, encode_peer),
        1 => stable(&body, decode_message, encode_message),
        2 => stable(&body, decode_record, |record| written(|out| encode_record(record, out))),
        3 => stable(&body, decode_command, encode_command),
        4 => {
            stable(&body, decode_request, |request| written(|out| encode_request(request, out)));
            if let Ok(request) = decode_request(&body) {
                // Whether it keeps the limits is judged here; any judgement will do.
                let _ = request.call.into_verb();
            }
        }
        _ => stable(&body, decode_answer, |(id, answer)| {
            written(|out| encode_answer(*id, answer.as_ref(), out))
        }),
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    write(&mut out);
    Bytes::from(out)
}

fn stable<T: PartialEq + Debug, E: Debug>(
    body: &Bytes,
    decode: fn(&Bytes) -> Result<T, E>,
    encode: impl Fn(&T) -> Bytes,
) {
    let Ok(meant) = decode(body) else { return };
    let encoded = encode(&meant);
    let again = decode(&encoded).expect("what was encoded here decodes");
    assert_eq!(again, meant, "it means something else once encoded again");
    assert_eq!(encode(&again), encoded, "one value has two encodings");
    // One cut for each input, at a place that the input chooses by its length, else in the middle.
    for cut in [body.len() % encoded.len(), encoded.len() / 2, encoded.len() - 1] {
        assert!(decode(&encoded.slice(..cut)).is_err(), "cut at {cut}, it still decodes");
    }
    let longer = Bytes::from([&encoded[..], &[0xc0]].concat());
    assert!(decode(&longer).is_err(), "with a byte more it still decodes");
}
