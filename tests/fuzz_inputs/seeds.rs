//! Inputs that are made by hand: one for each thing that a target can be told, so that the fuzzer
//! need not find out how a certificate begins or what a configuration looks like.

use crate::checks::certificate;
use bytes::{Bytes, BytesMut};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::message::*;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::paxos::witness::Witnessed;
use paxos_ssh::store::command::*;
use paxos_ssh::wire::answer::{Page, Record as Found};
use paxos_ssh::wire::command::encode_command;
use paxos_ssh::wire::failure::Failure;
use paxos_ssh::wire::frame::{FrameKind, Hello, encode_hello, put_frame};
use paxos_ssh::wire::message::encode_message;
use paxos_ssh::wire::peer::{PeerMessage, encode_peer};
use paxos_ssh::wire::record::encode_record;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::rpc::{self, Call, Reply, encode_answer, encode_request};
use paxos_ssh::wire::store_call::{Found as FoundPage, Query, StoreAnswer, StoreCall};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Seed = (&'static str, String, Vec<u8>);

/// Target, file name, bytes.
pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target: &'static str, inputs: Vec<Vec<u8>>| {
        for (index, bytes) in inputs.into_iter().enumerate() {
            seeds.push((target, format!("made-{index:02}"), bytes));
        }
    };
    add("certificate", certificates());
    add("frame", frames());
    add("grammar", GRAMMAR.iter().map(|line| line.as_bytes().to_vec()).collect());
    add("inventory", INVENTORIES.iter().map(|text| text.as_bytes().to_vec()).collect());
    add("log_recovery", logs());
    add("message", messages());
    add("settings", SETTINGS.iter().map(|text| text.as_bytes().to_vec()).collect());
    seeds
}

fn with_prefix(prefix: &[u8], bytes: &[u8]) -> Vec<u8> {
    [prefix, bytes].concat()
}

fn certificates() -> Vec<Vec<u8>> {
    let made = certificate::certificates();
    let mut inputs: Vec<_> = made.iter().map(|bytes| with_prefix(b"r", bytes)).collect();
    inputs.push(with_prefix(b"b", certificate::signed_bundle().as_bytes()));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMr8mCnMZ8iqP8V5FUoNcRk1eLwLGFfHwqFyW5KJj5pQ";
    inputs.extend([
        // Of the first certificate one byte is another; a byte more; one less; another's part.
        b"e\0\0\0\0\x40\x01".to_vec(),
        b"e\0\0\x02\0\x40\x01".to_vec(),
        b"e\0\x01\x03\0\x40".to_vec(),
        b"e\0\x02\x05\0\x80\0\x04\0\xff".to_vec(),
        b"d\0\0\x01\x03\x0a\x01\x02\x03".to_vec(),
        b"d\0\x03\x01\x01\x0a\x01\x02\x03".to_vec(),
        b"d\0\x03\x00\x02\x0b\x01\x02\x03".to_vec(),
        format!("pann write:/a/,read {key}").into_bytes(),
        b"padmin,write:/a/,read".to_vec(),
        b"p10.0.0.0/8,2001:db8::/32,127.0.0.1".to_vec(),
    ]);
    inputs
}

fn frames() -> Vec<Vec<u8>> {
    let hello = Hello {
        protocol: (1, 1),
        cluster: "c".to_owned(),
        node: 1,
        software: "paxos 0.1.0".to_owned(),
    };
    let mut stream = BytesMut::new();
    put_frame(&mut stream, FrameKind::Hello, &encode_hello(&hello));
    put_frame(&mut stream, FrameKind::Message, b"abc");
    put_frame(&mut stream, FrameKind::Request, b"");
    put_frame(&mut stream, FrameKind::Answer, &[7; 40]);
    vec![
        with_prefix(b"\x03\x01\x05\x0b", &stream),
        with_prefix(b"\0", &stream[..stream.len() - 9]),
        b"\0\x01\0\0\x01\x01\x02".to_vec(),
        b"\0\0\0\0\x01\x01\x02".to_vec(),
        b"\0\0\0\0\x02\x09\x02".to_vec(),
        b"\0\0\0\0\x02\x01\x63".to_vec(),
        with_prefix(b"\0", &encode_hello(&hello)),
    ]
}

const GRAMMAR: &[&str] = &[
    "paxos status",
    "paxos put --if-absent --request-id r1 -- k 'two words'",
    "paxos put k - --if-value \"a \\\"b\\\"\" --timeout 500ms",
    "paxos delete k --if-revision 7 -o json",
    "paxos get --raw --consistency local k",
    "paxos list /a/ --limit 10 --after /a/b --keys-only --json",
    "paxos batch --window 64",
    "paxos leader transfer node2",
    "paxos leader resign --timeout 1m30s",
    "paxos logs -f --protocol --grep Accept --lines 7 --node a1",
    "paxos trace 8 --timeout 0.5",
    "paxos help put",
    "paxos --help",
    "@7 put k v",
    "# a comment",
    "paxos puts k v",
    "paxos put 'k",
];

const INVENTORIES: &[&str] = &[
    "all:\n  vars: {paxos_cluster: c, ansible_connection: local}\n  hosts:\n    n[1:3]:\n    n1: \
     {paxos_id: 1, paxos_port: 7101}\n    n2: {paxos_id: 2, paxos_port: 7102}\n    n3: {paxos_id: \
     3, paxos_port: 7103}\n",
    "all:\n  vars:\n    paxos_cluster: c\n    paxos_quorum_phase1: 2\n    paxos_quorum_phase2: 1\n\
     \x20 children:\n    paxos_proposers:\n      hosts: {p1: {paxos_id: 1, paxos_address: \
     10.0.0.1}}\n    paxos_acceptors:\n      hosts:\n        a1: {paxos_id: 2, paxos_address: \
     '[::1]', paxos_listen: ['::1', '127.0.0.1:9']}\n        a2: {paxos_id: 3, paxos_zone: x}\n    \
     paxos_learners:\n      hosts:\n        l1: {paxos_id: 4, paxos_data_dir: /d, paxos_binary: \
     /b}\n    paxos_clients:\n      hosts: {c1: {paxos_id: 105, ansible_host: h}}\n",
    "all:\n  hosts: {n1: }\n#file group_vars/all\npaxos_cluster: c\n#file host_vars/n1\npaxos_id: \
     200\npaxos_proposer_id: 7\npaxos_port: 7000\n",
    "all:\n  hosts: {n1: {paxos_id: 1, paxos_idd: 2, paxos_port: x}, n2: {paxos_id: '{{ x }}'}}\n  \
     children: {a: {children: {b: {children: {a: }}}}}\n",
    "all:\n  hosts:\n    n[a:c]x[01:03]: {paxos_id: &i 1}\n    m[3:1]: *i\n    k: [\n",
];

/// See `fuzz/checks/log_recovery.rs` for how a story is told: the kind; for each turn how many
/// records, and each of them; how the last write is torn, and what else happens.
fn logs() -> Vec<Vec<u8>> {
    // Genesis and a vote; a learned value, and both are chosen.
    let story: &[u8] = b"\0\x01\x01\x01\x01\x05\x02\x03abc\x01\x02\x02\0\x02\x03xyz\x03";
    let told = |rest: &[u8]| [story, rest].concat();
    let large = [b"\0\x06\x06\x01\x01\x01\x05\x07\xff".as_slice(), &[7; 255]].concat();
    let segments = large.repeat(3).into_iter().filter(|byte| *byte != 0);
    vec![
        // The process starts anew, and goes on.
        told(b"\x10\x02\0\x07\x01\0\x01\0\x01\x04\x02\0"),
        // The last write is torn at a byte, not at all, or by sectors.
        told(b"\0\x01\0\x28"),
        told(b"\0\x01\xff\xff"),
        [&large[..], b"\0\x02\x55\x55"].concat(),
        // A bit of the first write, of the last one and behind it is another.
        told(b"\0\0\0\0\x10\x24\x01"),
        told(b"\0\0\0\0\x11\x04\x01"),
        told(b"\0\0\0\0\x1f\0\x01"),
        // A file is shorter, gone, or zero in places.
        told(b"\0\0\0\x04\x10\x20"),
        told(b"\0\0\0\x05\0\0"),
        told(b"\0\0\0\x07\x10\0\0\x80"),
        // Several segments, of which two have each other's names.
        [&[0], &segments.collect::<Vec<u8>>()[..], b"\0\0\0\x06\0\x01"].concat(),
        // By hand: records that follow, that contradict each other, that are none; lies.
        b"\x01\0\0\0\x01\x05\0\x01\x07\x01\x01\x01\x09\x02\x05\x03\x03abc\x03\x01\x01\x01\0"
            .to_vec(),
        b"\x01\x01\0\0\x02\x02\x03\x05\x01\x01\0\x03\x07\x03xyz\0".to_vec(),
        b"\x01\0\0\0\x01\x01\x07\x03\x01\x63\x90\0".to_vec(),
        b"\x01\0\0\0\x01\x01\0\x01\x07\x01\xd0\x28\0".to_vec(),
        b"\x01\0\0\xf5\x01\x01\0\x01\x07\x01\xc0\x29\x28aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            .to_vec(),
    ]
}

const SETTINGS: &[&str] = &[
    "scluster: c\nnode: n1\nid: 1\nlisten: ['127.0.0.1:7101']\ndata_dir: /d\nkeys_dir: /k\npeers:\n\
     - {name: n2, id: 2, address: 'h:1'}\nelection_timeout: {min: 250ms, max: 5s}\n",
    "scluster: c\nnode: n1\nid: 0\nlisten: []\ndata_dir: /d\nkeys_dir: /k\n",
    "gversion: 1\ncluster_id: 0000000000000000000000000000000f\nwindow: 4096\ngeneration: \
     0000000000000009\nphase1: 1\nphase2: 1\nmembers:\n- {name: n1, id: 1, address: 'h:1', \
     proposer: 1, acceptor: '0000000000000009', learner: true}\n- {name: n2, id: 2, address: \
     'h:2', proposer: null, acceptor: null, learner: false}\n",
    "cversion: 1\ncluster: c\ncluster_id: 0000000000000000000000000000000f\nwindow: 4096\nphase1: \
     1\nphase2: 1\nnodes:\n- {name: n1, id: 1, address: 'h:1', proposer: 1, generation: \
     '0000000000000009', learner: true, genesis: pending}\n",
    "hHost node1\n    HostName 127.0.0.1\n    Port 7101\n    HostKeyAlias node1.c.paxos\n    \
     UserKnownHostsFile \"/k d/known_hosts\"\n    IdentityFile ~/id\n    CertificateFile=/c\n\
     Host node2\n    ProxyJump none\n",
    "hMatch all\nInclude x\nHost *\n",
];

fn configuration() -> Configuration {
    let roles = Roles {
        proposer: ProposerId::new(7).ok(),
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

fn entries() -> Vec<Arc<Entry<Bytes>>> {
    let payloads = [
        Payload::Noop,
        Payload::Command(Bytes::from_static(b"xyz")),
        Payload::Configuration(configuration()),
        Payload::Floor(Slot(4)),
    ];
    payloads.map(|payload| Arc::new(Entry { stamp: ClusterTime(1000), payload })).to_vec()
}

fn ballot() -> Ballot {
    Ballot { number: ProposalNumber::from_raw(101), incarnation: Incarnation(0x0102) }
}

fn messages() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    inputs.extend(protocol().into_iter().map(|body| with_prefix(&[1], &body)));
    inputs.extend(peers().into_iter().map(|body| with_prefix(&[0], &body)));
    inputs.extend(records().into_iter().map(|body| with_prefix(&[2], &body)));
    inputs.extend(commands().into_iter().map(|body| with_prefix(&[3], &body)));
    inputs.extend(requests().into_iter().map(|body| with_prefix(&[4], &body)));
    inputs.extend(answers().into_iter().map(|body| with_prefix(&[5], &body)));
    inputs
}

fn protocol() -> Vec<Bytes> {
    let (ballot, configuration, chosen, first) =
        (ballot(), ConfigurationNumber(3), Slot(9), Slot(5));
    let generation = VoterGeneration(9);
    let votes =
        entries().into_iter().map(|entry| Vote { slot: first, ballot, entry }).collect::<Vec<_>>();
    let (promised, hears) = (ballot, Some(ballot));
    let heard = Some(generation);
    let statements: [Statement<Bytes>; 15] = [
        Statement::Prepare { ballot, configuration, first },
        Statement::Accept { ballot, configuration, first, entries: entries(), chosen },
        Statement::Refused { ballot, promised, hears },
        Statement::Chosen { ballot, chosen },
        Statement::Heartbeat { ballot, round: 2, chosen, configuration },
        Statement::HeartbeatAck {
            ballot,
            round: 2,
            generation: heard,
            promised,
            hears,
            disk: DiskHealth::Stalled,
            chosen,
        },
        Statement::Inquire { round: 3 },
        Statement::Report { round: 3, generation: heard, promised, hears: None, chosen },
        Statement::HandOver { ballot },
        Statement::AskHandOver { to: Some(NodeId(2)) },
        Statement::Forward { commands: vec![Bytes::from_static(b"xyz")], hops: 1 },
        Statement::ReadIndexRequest { origin: NodeId(2), token: 300, hops: 1 },
        Statement::ReadIndex { origin: NodeId(2), token: 300, index: chosen },
        Statement::Fetch { first },
        Statement::Fetched { first, entries: entries(), chosen, floor: Slot(1), more: true },
    ];
    let pledges: [Pledge<Bytes>; 2] = [
        Pledge::Promise { ballot, generation, floor: Slot(1), votes, part: 0, parts: 1 },
        Pledge::Accepted { ballot, generation, first, last: chosen },
    ];
    let statements = statements.into_iter().map(Message::Statement);
    let all = statements.chain(pledges.into_iter().map(Message::Pledge));
    all.map(|message| encode_message(&message)).collect()
}

fn peers() -> Vec<Bytes> {
    let page =
        Query::List { prefix: "a".into(), after: Some("b".into()), limit: 7, keys_only: true };
    let read = |query| StoreCall::Read {
        token: 1,
        page: 2,
        linearizable: true,
        patience: Duration::from_millis(5),
        query,
    };
    let calls = [
        StoreCall::AskOutcomes { nonce: 7, session: SessionId(3), sequences: vec![1, 200] },
        read(Query::Get { key: "k".into() }),
        read(page),
        StoreCall::Keep { token: 1 },
        StoreCall::Leave { token: 1 },
    ];
    let outcomes = vec![(1, Outcome::Put { revision: 5 }), (2, Outcome::NotFound)];
    let found = FoundPage { revision: 9, records: vec![record("k", Some("v"))], ended: true };
    let answers = [
        StoreAnswer::Outcomes { nonce: 7, session: SessionId(3), outcomes },
        StoreAnswer::Found { token: 1, page: 0, found },
        StoreAnswer::Unreadable { token: 1, page: 0, busy: true, why: "busy; wait".into() },
    ];
    let calls = calls.into_iter().map(PeerMessage::Call);
    let all = calls.chain(answers.into_iter().map(PeerMessage::Answer));
    let seen = Witnessed { generation: VoterGeneration(9), ballot: ballot(), last: Slot(5) };
    let all = all.chain([PeerMessage::Witness(seen)]);
    let mut bodies: Vec<Bytes> = all.map(|message| encode_peer(&message)).collect();
    // What the recorders tell: an event is a JSON object in a MessagePack text.
    let event = concat!(
        r#"{"at":"1970-01-01T00:00:00.000001Z","node":"a1","event":"local","#,
        r#""what":"learned","peers":[]}"#
    );
    let mut told = vec![1, 41, 0x93, 7, 0x91, 0xd9, event.len() as u8];
    told.extend(event.as_bytes());
    told.push(0xc3);
    bodies.push(Bytes::from(told));
    bodies.push(Bytes::from_static(&[1, 40, 0x92, 7, 8]));
    bodies
}

fn records() -> Vec<Bytes> {
    let genesis =
        Genesis { cluster: ClusterId(0x0f0e), configuration: configuration(), window: 256 };
    let mut records = vec![
        Record::Genesis { genesis, generation: Some(VoterGeneration(9)) },
        Record::Promised(ballot()),
        Record::Chosen(Slot(5)),
        Record::Floor(Slot(5)),
        Record::Fenced,
    ];
    for entry in entries() {
        records.push(Record::Accepted(Vote {
            slot: Slot(5),
            ballot: ballot(),
            entry: entry.clone(),
        }));
        records.push(Record::Learned { slot: Slot(6), entry });
    }
    let encode = |record: &Record<Bytes>| {
        let mut out = Vec::new();
        encode_record(record, &mut out);
        Bytes::from(out)
    };
    records.iter().map(encode).collect()
}

fn commands() -> Vec<Bytes> {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    let put = |condition| Operation::Put { key: key.clone(), value: value.clone(), condition };
    let operations = [
        Operation::OpenSession { nonce: 7 },
        Operation::CloseSession,
        Operation::RaiseVersion { to: 2 },
        Operation::PublishBundle { epoch: 2, signed: value.clone() },
        put(Condition::Always),
        put(Condition::Value(value.clone())),
        Operation::Delete { key: key.clone(), condition: Condition::Revision(8) },
        Operation::Delete { key: key.clone(), condition: Condition::Absent },
    ];
    let command = |operation| Command {
        session: SessionId(1),
        sequence: 2,
        acknowledged_below: 300,
        principal: "ann".into(),
        request_id: Some("r1".into()),
        operation,
    };
    operations.map(|operation| encode_command(&command(operation))).to_vec()
}

fn requests() -> Vec<Bytes> {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    let (local, request_id) = (Consistency::Local, Some("r1".to_owned()));
    let condition = Condition::Value(value.clone());
    let after = Some(key.clone());
    let calls = [
        Call::Put { key: key.clone(), value, condition, request_id: request_id.clone() },
        Call::Delete { key: key.clone(), condition: Condition::Revision(8), request_id },
        Call::Get { key: key.clone(), consistency: local },
        Call::List { prefix: key, after, limit: Some(7), keys_only: true, consistency: local },
    ];
    let request = |call| {
        let mut out = Vec::new();
        encode_request(&rpc::Request { id: 1, timeout: Duration::from_secs(5), call }, &mut out);
        Bytes::from(out)
    };
    calls.map(request).to_vec()
}

fn record(key: &'static str, value: Option<&'static str>) -> Found {
    let (key, value) = (Bytes::from(key), value.map(Bytes::from));
    Found { key, value, revision: 5, create_revision: 4, version: 2 }
}

fn answers() -> Vec<Bytes> {
    let items = vec![record("k", Some("v")), record("l", None)];
    let value = Bytes::from_static(b"v");
    let replies = [
        Ok(Reply::Written { revision: 9 }),
        Ok(Reply::Value { value, revision: 5, create_revision: 4, version: 2 }),
        Ok(Reply::Listed(Page { revision: 9, items, more: true })),
        Err(Failure { revision: Some(7), ..Failure::usage("it is wrong", "mend it") }),
    ];
    let answer = |reply: Result<Reply, Failure>| {
        let mut out = Vec::new();
        encode_answer(1, reply.as_ref(), &mut out);
        Bytes::from(out)
    };
    replies.map(answer).to_vec()
}
