//! Codecs against arbitrary values and arbitrary bytes: what is written is read back the same, and
//! nothing that is read makes the decoder panic.

use bytes::Bytes;
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::message::*;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::store::command::*;
use paxos_ssh::wire::command::{decode_command, encode_command};
use paxos_ssh::wire::message::{decode_message, encode_message};
use paxos_ssh::wire::record::{decode_record, encode_record};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn slot() -> impl Strategy<Value = Slot> {
    any::<u64>().prop_map(Slot)
}

fn ballot() -> impl Strategy<Value = Ballot> {
    any::<(u64, u64)>().prop_map(|(number, incarnation)| Ballot {
        number: ProposalNumber::from_raw(number),
        incarnation: Incarnation(incarnation),
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

prop_compose! {
    fn configuration()(
        number in any::<u64>(),
        members in vec((any::<u64>(), "[a-z0-9.:é]{0,40}", any::<u64>(), any::<bool>()), 1..6),
    ) -> Configuration {
        let mut all = BTreeMap::new();
        for (index, (id, address, generation, acceptor)) in members.into_iter().enumerate() {
            let voter = (acceptor || index == 0).then_some(VoterGeneration(generation));
            let proposer = ProposerId::new(index as u64).unwrap();
            let roles = Roles { proposer: Some(proposer), acceptor: voter, learner: true };
            all.insert(NodeId(id), Member { name: format!("node{index}"), address, roles });
        }
        // A second member with the id of the first may have replaced the only acceptor.
        all.values_mut().next().unwrap().roles.acceptor = Some(VoterGeneration(number));
        let acceptors = all.values().filter(|m| m.roles.acceptor.is_some()).count() as u16;
        let quorums = QuorumSystem::majority(acceptors).unwrap();
        Configuration::new(ConfigurationNumber(number), all, quorums).unwrap()
    }
}

fn entry() -> impl Strategy<Value = Arc<Entry<Bytes>>> {
    let payload = prop_oneof![
        2 => Just(Payload::Noop),
        6 => bytes().prop_map(Payload::Command),
        1 => configuration().prop_map(Payload::Configuration),
        1 => slot().prop_map(Payload::Floor),
    ];
    (any::<u64>(), payload)
        .prop_map(|(stamp, payload)| Arc::new(Entry { stamp: ClusterTime(stamp), payload }))
}

fn entries() -> impl Strategy<Value = Vec<Arc<Entry<Bytes>>>> {
    vec(entry(), 0..8)
}

fn vote() -> impl Strategy<Value = Vote<Bytes>> {
    (slot(), ballot(), entry()).prop_map(|(slot, ballot, entry)| Vote { slot, ballot, entry })
}

fn generation() -> impl Strategy<Value = VoterGeneration> {
    any::<u64>().prop_map(VoterGeneration)
}

fn record() -> impl Strategy<Value = Record<Bytes>> {
    prop_oneof![
        (any::<u128>(), configuration(), any::<u32>(), option::of(generation())).prop_map(
            |(cluster, configuration, window, generation)| Record::Genesis {
                genesis: Genesis { cluster: ClusterId(cluster), configuration, window },
                generation,
            }
        ),
        ballot().prop_map(Record::Promised),
        vote().prop_map(Record::Accepted),
        (slot(), entry()).prop_map(|(slot, entry)| Record::Learned { slot, entry }),
        slot().prop_map(Record::Chosen),
        slot().prop_map(Record::Floor),
        Just(Record::Fenced),
    ]
}

fn pledge() -> impl Strategy<Value = Pledge<Bytes>> {
    prop_oneof![
        (ballot(), generation(), slot(), vec(vote(), 0..6), any::<(u32, u32)>()).prop_map(
            |(ballot, generation, floor, votes, (part, parts))| Pledge::Promise {
                ballot,
                generation,
                floor,
                votes,
                part,
                parts
            }
        ),
        (ballot(), generation(), slot(), slot()).prop_map(|(ballot, generation, first, last)| {
            Pledge::Accepted { ballot, generation, first, last }
        }),
    ]
}

fn disk() -> impl Strategy<Value = DiskHealth> {
    prop_oneof![Just(DiskHealth::Healthy), Just(DiskHealth::Stalled), Just(DiskHealth::Full)]
}

fn number() -> impl Strategy<Value = ConfigurationNumber> {
    any::<u64>().prop_map(ConfigurationNumber)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn statement() -> impl Strategy<Value = Statement<Bytes>> {
    let first_half = prop_oneof![
        (ballot(), number(), slot()).prop_map(|(ballot, configuration, first)| {
            Statement::Prepare { ballot, configuration, first }
        }),
        (ballot(), number(), slot(), entries(), slot()).prop_map(
            |(ballot, configuration, first, entries, chosen)| Statement::Accept {
                ballot,
                configuration,
                first,
                entries,
                chosen
            }
        ),
        (ballot(), ballot(), option::of(ballot()))
            .prop_map(|(ballot, promised, hears)| Statement::Refused { ballot, promised, hears }),
        (ballot(), slot()).prop_map(|(ballot, chosen)| Statement::Chosen { ballot, chosen }),
        (ballot(), any::<u64>(), slot(), number()).prop_map(
            |(ballot, round, chosen, configuration)| Statement::Heartbeat {
                ballot,
                round,
                chosen,
                configuration
            }
        ),
        (
            (ballot(), any::<u64>(), option::of(generation())),
            (ballot(), option::of(ballot()), disk(), slot())
        )
            .prop_map(|((ballot, round, generation), (promised, hears, disk, chosen))| {
                Statement::HeartbeatAck { ballot, round, generation, promised, hears, disk, chosen }
            }),
        any::<u64>().prop_map(|round| Statement::Inquire { round }),
        (any::<u64>(), option::of(generation()), ballot(), option::of(ballot()), slot()).prop_map(
            |(round, generation, promised, hears, chosen)| Statement::Report {
                round,
                generation,
                promised,
                hears,
                chosen
            }
        ),
    ];
    let second_half =
        prop_oneof![
            ballot().prop_map(|ballot| Statement::HandOver { ballot }),
            (vec(bytes(), 0..8), any::<u8>())
                .prop_map(|(commands, hops)| Statement::Forward { commands, hops }),
            (node(), any::<u64>(), any::<u8>()).prop_map(|(origin, token, hops)| {
                Statement::ReadIndexRequest { origin, token, hops }
            }),
            (node(), any::<u64>(), slot())
                .prop_map(|(origin, token, index)| Statement::ReadIndex { origin, token, index }),
            slot().prop_map(|first| Statement::Fetch { first }),
            (slot(), entries(), slot(), slot(), any::<bool>()).prop_map(
                |(first, entries, chosen, floor, more)| Statement::Fetched {
                    first,
                    entries,
                    chosen,
                    floor,
                    more
                }
            ),
        ];
    prop_oneof![first_half, second_half]
}

fn message() -> impl Strategy<Value = Message<Bytes>> {
    prop_oneof![pledge().prop_map(Message::Pledge), statement().prop_map(Message::Statement)]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Always),
        Just(Condition::Absent),
        bytes().prop_map(Condition::Value),
        any::<u64>().prop_map(Condition::Revision),
    ]
}

fn key() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..50).prop_map(Bytes::from)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        any::<u128>().prop_map(|nonce| Operation::OpenSession { nonce }),
        Just(Operation::CloseSession),
        any::<u16>().prop_map(|to| Operation::RaiseVersion { to }),
        (any::<u64>(), bytes())
            .prop_map(|(epoch, signed)| Operation::PublishBundle { epoch, signed }),
        (key(), bytes(), condition()).prop_map(|(key, value, condition)| Operation::Put {
            key,
            value,
            condition
        }),
        (key(), condition()).prop_map(|(key, condition)| Operation::Delete { key, condition }),
    ]
}

prop_compose! {
    fn command()(
        (session, sequence, acknowledged_below) in any::<(u64, u64, u64)>(),
        principal in "\\PC{0,30}",
        request_id in option::of("\\PC{0,20}"),
        operation in operation(),
    ) -> Command {
        let session = SessionId(session);
        Command { session, sequence, acknowledged_below, principal, request_id, operation }
    }
}

fn record_bytes(record: &Record<Bytes>) -> Bytes {
    let mut out = Vec::new();
    encode_record(record, &mut out);
    Bytes::from(out)
}

/// Changes one byte, or cuts the end off, or adds to it.
fn mutate(input: &Bytes, at: prop::sample::Index, byte: u8, how: u8) -> Bytes {
    let mut bytes = input.to_vec();
    let at = at.index(bytes.len());
    match how % 3 {
        0 => bytes[at] = byte,
        1 => bytes.truncate(at),
        _ => bytes.push(byte),
    }
    Bytes::from(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn messages_come_back(message in message()) {
        prop_assert_eq!(decode_message(&encode_message(&message)).unwrap(), message);
    }

    #[test]
    fn records_come_back(record in record()) {
        prop_assert_eq!(decode_record(&record_bytes(&record)).unwrap(), record);
    }

    #[test]
    fn commands_come_back(command in command()) {
        prop_assert_eq!(decode_command(&encode_command(&command)).unwrap(), command);
    }

    /// A mutated input may still mean something (a value may differ), but what it means encodes to
    /// something that means the same again.
    #[test]
    fn mutated_bytes_never_panic(
        message in message(), record in record(), command in command(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(), how in any::<u8>(),
    ) {
        if let Ok(other) = decode_message(&mutate(&encode_message(&message), at, byte, how)) {
            prop_assert_eq!(decode_message(&encode_message(&other)).unwrap(), other);
        }
        if let Ok(other) = decode_record(&mutate(&record_bytes(&record), at, byte, how)) {
            prop_assert_eq!(decode_record(&record_bytes(&other)).unwrap(), other);
        }
        if let Ok(other) = decode_command(&mutate(&encode_command(&command), at, byte, how)) {
            prop_assert_eq!(decode_command(&encode_command(&other)).unwrap(), other);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0u8..20, noise in vec(any::<u8>(), 0..200)) {
        let mut input = vec![1, kind];
        input.extend(noise);
        let input = Bytes::from(input);
        let _ = decode_message(&input);
        let _ = decode_record(&input);
        let _ = decode_command(&input);
    }

    #[test]
    fn nothing_is_read_from_a_cut_or_longer_input(message in message(), byte in any::<u8>()) {
        let whole = encode_message(&message);
        for end in 0..whole.len() {
            prop_assert!(decode_message(&whole.slice(..end)).is_err(), "cut at {}", end);
        }
        let longer = Bytes::from([&whole[..], &[byte]].concat());
        prop_assert!(decode_message(&longer).is_err());
    }
}

#[test]
fn values_are_slices_of_the_input() {
    let value = Bytes::from(vec![7u8; 1000]);
    let entry = Arc::new(Entry { stamp: ClusterTime(1), payload: Payload::Command(value.clone()) });
    let fetched = Statement::Fetched {
        first: Slot(1),
        entries: vec![entry],
        chosen: Slot(1),
        floor: Slot(1),
        more: false,
    };
    let input = encode_message(&fetched.into());
    let Message::Statement(Statement::Fetched { entries, .. }) = decode_message(&input).unwrap()
    else {
        panic!("another message came back");
    };
    let Payload::Command(decoded) = &entries[0].payload else {
        panic!("another payload came back");
    };
    assert_eq!(*decoded, value);
    assert!(input.as_ptr_range().contains(&decoded.as_ptr()), "the value was copied");
}

#[test]
fn nesting_bombs_are_refused() {
    for kind in 0..16 {
        let mut input = vec![1, kind];
        input.extend(std::iter::repeat_n(0x91, 1 << 20));
        assert!(decode_message(&Bytes::from(input)).is_err());
    }
}

/// Lists that claim four billion items must not reserve room for them.
#[test]
fn claimed_lengths_are_not_believed() {
    let mut input = vec![1, 15, 0x94, 1, 0xdd, 0xff, 0xff, 0xff, 0xff];
    assert!(decode_message(&Bytes::from(input.clone())).is_err());
    input[4] = 0xc6;
    assert!(decode_message(&Bytes::from(input)).is_err());
}

/// Every layout byte by byte. A change here is a new version of that layout, never an edit.
#[test]
fn layouts_are_fixed() {
    for (name, encoded, golden) in golden_cases() {
        assert_eq!(hex(&encoded), golden, "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden_ballot() -> Ballot {
    Ballot {
        number: ProposalNumber::from_raw(101),
        incarnation: Incarnation(0x0102_0304_0506_0708),
    }
}

fn golden_configuration() -> Configuration {
    let roles = Roles {
        proposer: Some(ProposerId::new(7).unwrap()),
        acceptor: Some(VoterGeneration(8)),
        learner: true,
    };
    let member = |name: &str, roles| Member { name: name.into(), address: "h:1".into(), roles };
    let members = BTreeMap::from([
        (NodeId(1), member("a", roles)),
        (NodeId(2), member("b", Roles::default())),
    ]);
    let quorums = QuorumSystem::flexible(1, 1, 1).unwrap();
    Configuration::new(ConfigurationNumber(3), members, quorums).unwrap()
}

fn golden_cases() -> Vec<(&'static str, Bytes, &'static str)> {
    let ballot = golden_ballot();
    let generation = VoterGeneration(9);
    let entry = |payload| Arc::new(Entry { stamp: ClusterTime(1000), payload });
    let value = || entry(Payload::Command(Bytes::from_static(b"xyz")));
    let vote = || Vote { slot: Slot(5), ballot, entry: value() };
    let every_payload = || {
        vec![
            entry(Payload::Noop),
            value(),
            entry(Payload::Configuration(golden_configuration())),
            entry(Payload::Floor(Slot(4))),
        ]
    };
    let genesis =
        Genesis { cluster: ClusterId(0x0f0e), configuration: golden_configuration(), window: 256 };
    let record = |record: Record<Bytes>| record_bytes(&record);
    let says = |statement: Statement<Bytes>| encode_message(&statement.into());
    let pledges = |pledge: Pledge<Bytes>| encode_message(&pledge.into());
    let (configuration, slot) = (ConfigurationNumber(3), Slot);
    let command = |operation, request_id: Option<&str>| {
        encode_command(&Command {
            session: SessionId(1),
            sequence: 2,
            acknowledged_below: 300,
            principal: "ann".into(),
            request_id: request_id.map(str::to_owned),
            operation,
        })
    };
    let put = |condition| Operation::Put { key: "k".into(), value: "v".into(), condition };
    vec![
        (
            "record genesis",
            record(Record::Genesis { genesis, generation: Some(generation) }),
            "01009293c41000000000000000000000000000000f0e9403929601a161a3683a310708c3\
             9602a162a3683a31c0c0c20101cd010009",
        ),
        ("record promised", record(Record::Promised(ballot)), "01019265cf0102030405060708"),
        (
            "record accepted",
            record(Record::Accepted(vote())),
            "010293059265cf0102030405060708940101cd03e8c40378797a",
        ),
        (
            "record learned",
            record(Record::Learned { slot: slot(5), entry: value() }),
            "01039205940101cd03e8c40378797a",
        ),
        ("record chosen", record(Record::Chosen(slot(5))), "010405"),
        ("record floor", record(Record::Floor(slot(300))), "0105cd012c"),
        ("record fenced", record(Record::Fenced), "0106c0"),
        (
            "promise",
            pledges(Pledge::Promise {
                ballot,
                generation,
                floor: slot(2),
                votes: vec![vote()],
                part: 0,
                parts: 1,
            }),
            "0100969265cf010203040506070809029193059265cf0102030405060708940101cd03e8\
             c40378797a0001",
        ),
        (
            "accepted",
            pledges(Pledge::Accepted { ballot, generation, first: slot(1), last: slot(2) }),
            "0101949265cf0102030405060708090102",
        ),
        (
            "prepare",
            says(Statement::Prepare { ballot, configuration, first: slot(2) }),
            "0102939265cf01020304050607080302",
        ),
        (
            "accept",
            says(Statement::Accept {
                ballot,
                configuration,
                first: slot(2),
                entries: every_payload(),
                chosen: slot(1),
            }),
            "0103959265cf0102030405060708030294940100cd03e8c400940101cd03e8c40378797a\
             940102cd03e8c41b9403929601a161a3683a310708c39602a162a3683a31c0c0c2010194\
             0103cd03e8c4010401",
        ),
        (
            "refused",
            says(Statement::Refused { ballot, promised: ballot, hears: None }),
            "0104939265cf01020304050607089265cf0102030405060708c0",
        ),
        (
            "chosen",
            says(Statement::Chosen { ballot, chosen: slot(3) }),
            "0105929265cf010203040506070803",
        ),
        (
            "heartbeat",
            says(Statement::Heartbeat { ballot, round: 4, chosen: slot(3), configuration }),
            "0106949265cf0102030405060708040303",
        ),
        (
            "heartbeat ack",
            says(Statement::HeartbeatAck {
                ballot,
                round: 4,
                generation: Some(generation),
                promised: ballot,
                hears: Some(ballot),
                disk: DiskHealth::Full,
                chosen: slot(3),
            }),
            "0107979265cf010203040506070804099265cf01020304050607089265cf010203040506\
             07080203",
        ),
        ("inquire", says(Statement::Inquire { round: 4 }), "010804"),
        (
            "report",
            says(Statement::Report {
                round: 4,
                generation: None,
                promised: ballot,
                hears: None,
                chosen: slot(3),
            }),
            "01099504c09265cf0102030405060708c003",
        ),
        ("hand over", says(Statement::HandOver { ballot }), "010a9265cf0102030405060708"),
        (
            "forward",
            says(Statement::Forward { commands: vec!["abc".into()], hops: 1 }),
            "010b9291c40361626301",
        ),
        (
            "read index request",
            says(Statement::ReadIndexRequest { origin: NodeId(2), token: 77, hops: 0 }),
            "010c93024d00",
        ),
        (
            "read index",
            says(Statement::ReadIndex { origin: NodeId(2), token: 77, index: slot(6) }),
            "010d93024d06",
        ),
        ("fetch", says(Statement::Fetch { first: slot(2) }), "010e02"),
        (
            "fetched",
            says(Statement::Fetched {
                first: slot(2),
                entries: vec![value()],
                chosen: slot(3),
                floor: slot(1),
                more: true,
            }),
            "010f950291940101cd03e8c40378797a0301c3",
        ),
        (
            "open session",
            command(Operation::OpenSession { nonce: 0xabcd }, None),
            "010092950102cd012ca3616e6ec0c4100000000000000000000000000000abcd",
        ),
        ("close session", command(Operation::CloseSession, None), "0101950102cd012ca3616e6ec0"),
        (
            "put",
            command(put(Condition::Always), Some("id")),
            "010294950102cd012ca3616e6ea26964c4016bc401769300c40000",
        ),
        (
            "put if absent",
            command(put(Condition::Absent), None),
            "010294950102cd012ca3616e6ec0c4016bc401769301c40000",
        ),
        (
            "put if value",
            command(put(Condition::Value("w".into())), None),
            "010294950102cd012ca3616e6ec0c4016bc401769302c4017700",
        ),
        (
            "delete if revision",
            command(
                Operation::Delete { key: "k".into(), condition: Condition::Revision(400) },
                None,
            ),
            "010393950102cd012ca3616e6ec0c4016b9303c400cd0190",
        ),
        (
            "raise the cluster version",
            command(Operation::RaiseVersion { to: 400 }, None),
            "010492950102cd012ca3616e6ec0cd0190",
        ),
        (
            "publish a trust bundle",
            command(Operation::PublishBundle { epoch: 400, signed: "b".into() }, None),
            "010593950102cd012ca3616e6ec0cd0190c40162",
        ),
    ]
}
