//! What nodes without a store and nodes with one say to each other, as bytes: it comes back as it
//! was, its layout is fixed, and no input panics.

use bytes::Bytes;
use paxos_ssh::paxos::ballot::{Ballot, Incarnation, ProposalNumber, Slot, VoterGeneration};
use paxos_ssh::paxos::message::{Message, Statement};
use paxos_ssh::paxos::witness::Witnessed;
use paxos_ssh::store::command::{Outcome, SessionId};
use paxos_ssh::wire::DecodeError;
use paxos_ssh::wire::answer::Record;
use paxos_ssh::wire::peer::{PeerMessage, decode_peer, encode_peer};
use paxos_ssh::wire::store_call::{Found, Query, SEQUENCES_MAX, StoreAnswer, StoreCall};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::time::Duration;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u64>().prop_map(|id| Outcome::SessionOpened(SessionId(id))),
        Just(Outcome::SessionClosed),
        any::<u64>().prop_map(|revision| Outcome::Put { revision }),
        any::<u64>().prop_map(|revision| Outcome::Deleted { revision }),
        Just(Outcome::NotFound),
        option::of(any::<u64>()).prop_map(|revision| Outcome::ConditionFailed { revision }),
        Just(Outcome::SessionUnknown),
        Just(Outcome::SequenceAcknowledged),
        Just(Outcome::WindowFull),
        Just(Outcome::RequestIdReused),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        bytes().prop_map(|key| Query::Get { key }),
        (bytes(), option::of(bytes()), any::<u64>(), any::<bool>()).prop_map(
            |(prefix, after, limit, keys_only)| Query::List { prefix, after, limit, keys_only }
        ),
    ]
}

fn call() -> impl Strategy<Value = StoreCall> {
    let outcomes = (any::<u128>(), any::<u64>(), vec(any::<u64>(), 0..9));
    let read = (any::<u64>(), any::<u64>(), any::<bool>(), any::<u32>(), query());
    prop_oneof![
        outcomes.prop_map(|(nonce, session, sequences)| StoreCall::AskOutcomes {
            nonce,
            session: SessionId(session),
            sequences
        }),
        read.prop_map(|(token, page, linearizable, micros, query)| StoreCall::Read {
            token,
            page,
            linearizable,
            patience: Duration::from_micros(micros.into()),
            query
        }),
        any::<u64>().prop_map(|token| StoreCall::Leave { token }),
        any::<u64>().prop_map(|token| StoreCall::Keep { token }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (bytes(), option::of(bytes()), any::<[u64; 3]>()).prop_map(|(key, value, numbers)| {
        let [revision, create_revision, version] = numbers;
        Record { key, value, revision, create_revision, version }
    })
}

fn answer() -> impl Strategy<Value = StoreAnswer> {
    let outcomes = (any::<u128>(), any::<u64>(), vec((any::<u64>(), outcome()), 0..9));
    let found = (any::<[u64; 3]>(), vec(record(), 0..5), any::<bool>());
    prop_oneof![
        outcomes.prop_map(|(nonce, session, outcomes)| StoreAnswer::Outcomes {
            nonce,
            session: SessionId(session),
            outcomes
        }),
        found.prop_map(|([token, page, revision], records, ended)| StoreAnswer::Found {
            token,
            page,
            found: Found { revision, records, ended }
        }),
        (any::<[u64; 2]>(), any::<bool>(), "\\PC{0,30}").prop_map(|([token, page], busy, why)| {
            StoreAnswer::Unreadable { token, page, busy, why }
        }),
    ]
}

fn witnessed() -> impl Strategy<Value = Witnessed> {
    any::<(u64, u64, u64, u64)>().prop_map(|(generation, number, incarnation, last)| Witnessed {
        generation: VoterGeneration(generation),
        ballot: Ballot {
            number: ProposalNumber::from_raw(number),
            incarnation: Incarnation(incarnation),
        },
        last: Slot(last),
    })
}

fn message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        call().prop_map(PeerMessage::Call),
        answer().prop_map(PeerMessage::Answer),
        witnessed().prop_map(PeerMessage::Witness),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_said_comes_back(message in message()) {
        prop_assert_eq!(decode_peer(&encode_peer(&message)).unwrap(), message);
    }

    #[test]
    fn changed_bytes_never_panic(
        message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encode_peer(&message).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        decode_peer(&Bytes::from(bytes.clone())).ok();
        bytes.truncate(at);
        prop_assert!(decode_peer(&Bytes::from(bytes)).is_err(), "a part was taken for the whole");
    }

    #[test]
    fn no_input_panics(kind in 30u8..50, noise in vec(any::<u8>(), 0..200)) {
        let mut input = vec![1, kind];
        input.extend(noise);
        decode_peer(&Bytes::from(input)).ok();
    }
}

fn hex(message: &PeerMessage) -> String {
    encode_peer(message).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn layouts_are_fixed() {
    let nonce = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    let session = SessionId(7);
    let ask = StoreCall::AskOutcomes { nonce, session, sequences: vec![3, 4] };
    assert_eq!(hex(&PeerMessage::Call(ask)), "012094cf0102030405060708cf090a0b0c0d0e0f1007920304");
    let read = StoreCall::Read {
        token: 5,
        page: 2,
        linearizable: true,
        patience: Duration::from_micros(9),
        query: Query::Get { key: Bytes::from_static(b"k") },
    };
    assert_eq!(hex(&PeerMessage::Call(read)), "0121990502c309c4016bc400c000c2");
    assert_eq!(hex(&PeerMessage::Call(StoreCall::Leave { token: 5 })), "012205");
    assert_eq!(hex(&PeerMessage::Call(StoreCall::Keep { token: 5 })), "012605");
    let outcomes = vec![(3, Outcome::Put { revision: 8 })];
    let told = StoreAnswer::Outcomes { nonce, session, outcomes };
    assert_eq!(
        hex(&PeerMessage::Answer(told)),
        "012394cf0102030405060708cf090a0b0c0d0e0f1007919203920208"
    );
    let unreadable = StoreAnswer::Unreadable { token: 5, page: 2, busy: true, why: "no".into() };
    assert_eq!(hex(&PeerMessage::Answer(unreadable)), "0125940502c3a26e6f");
    let ballot = Ballot { number: ProposalNumber::from_raw(101), incarnation: Incarnation(9) };
    let seen = Witnessed { generation: VoterGeneration(8), ballot, last: Slot(300) };
    assert_eq!(hex(&PeerMessage::Witness(seen)), "01309308926509cd012c");
}

#[test]
fn another_version_or_kind_is_refused_and_the_protocol_passes() {
    let refused = |input: &'static [u8]| decode_peer(&Bytes::from_static(input)).unwrap_err();
    assert!(matches!(refused(&[2, 32, 0x90]), DecodeError::Version { found: 2, .. }));
    assert!(matches!(refused(&[1, 31, 0x90]), DecodeError::Kind { found: 31, .. }));
    assert!(matches!(refused(&[1]), DecodeError::Short { .. }));
    let inquire = PeerMessage::Paxos(Message::Statement(Statement::Inquire { round: 4 }));
    assert_eq!(decode_peer(&encode_peer(&inquire)), Ok(inquire));
}

#[test]
fn a_question_for_too_many_outcomes_is_refused() {
    let ask = |count: usize| {
        let sequences = vec![7; count];
        PeerMessage::Call(StoreCall::AskOutcomes { nonce: 1, session: SessionId(7), sequences })
    };
    let most = ask(SEQUENCES_MAX);
    assert_eq!(decode_peer(&encode_peer(&most)), Ok(most));
    let refused = decode_peer(&encode_peer(&ask(SEQUENCES_MAX + 1)));
    assert!(matches!(refused, Err(DecodeError::Malformed { .. })), "{refused:?}");
}
