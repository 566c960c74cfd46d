//! Codecs that the tests beside `src/wire` leave out: what is put in comes out, and a first part of
//! it is not taken for the whole.

use bytes::Bytes;
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::store::command::{Command, Condition, Operation, SessionId};
use paxos_ssh::transport::rights::Rights;
use paxos_ssh::transport::source::AddressList;
use paxos_ssh::wire::command::{decode_command, encode_command};
use paxos_ssh::wire::event::{Direction, Moment, ProtocolEvent, What};
use paxos_ssh::wire::failure::{Code, Failure};
use paxos_ssh::wire::frame::{Hello, decode_hello, encode_hello};
use paxos_ssh::wire::genesis::{GenesisFile, decode_genesis, encode_genesis};
use paxos_ssh::wire::peer::{PeerMessage, decode_peer, encode_peer};
use paxos_ssh::wire::record::{decode_record, encode_record};
use paxos_ssh::wire::report::JsonId;
use paxos_ssh::wire::request::parse_timeout;
use paxos_ssh::wire::rpc::{self, Call, Reply};
use paxos_ssh::wire::trace_call::TraceMessage;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Texts that YAML, JSON and shells all have something to say about.
fn text() -> impl Strategy<Value = String> {
    let odd =
        ["", "~", "null", "no", "1e3", "0x10", " a", "a: b", "#a", "'", "\"", "\\", "é\u{85}"];
    prop_oneof![
        3 => "\\PC{0,12}",
        1 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        1 => "[\\n\\r\\t\\x00-\\x1fa]{0,6}",
    ]
}

prop_compose! {
    fn genesis()(
        cluster in any::<u128>(),
        window in 1u32..=1 << 20,
        members in vec((any::<u64>(), text(), any::<u64>(), any::<(bool, bool, bool)>()), 1..7),
        first in any::<u64>(),
        generation in option::of(any::<u64>()),
        (phase1, phase2) in any::<(u16, u16)>(),
    ) -> GenesisFile {
        let mut all = BTreeMap::new();
        for (index, (id, address, life, roles)) in members.into_iter().enumerate() {
            let (proposes, votes, learns) = roles;
            let roles = Roles {
                proposer: proposes.then(|| ProposerId::new(index as u64).unwrap()),
                acceptor: votes.then_some(VoterGeneration(life)),
                learner: learns,
            };
            all.insert(NodeId(id), Member { name: format!("{address}{index}"), address, roles });
        }
        // Whoever is first does everything, so that there is a cluster.
        let proposer = ProposerId::new(99).ok();
        let acceptor = Some(VoterGeneration(first));
        all.values_mut().next().unwrap().roles = Roles { proposer, acceptor, learner: true };
        let acceptors = all.values().filter(|m| m.roles.acceptor.is_some()).count() as u16;
        let phase1 = 1 + phase1 % acceptors;
        let least = acceptors - phase1 + 1;
        let quorums =
            QuorumSystem::flexible(acceptors, phase1, least + phase2 % (acceptors - least + 1));
        let configuration = Configuration::new(ConfigurationNumber(1), all, quorums.unwrap());
        let configuration = configuration.unwrap();
        let genesis = Genesis { cluster: ClusterId(cluster), configuration, window };
        GenesisFile { genesis, generation: generation.map(VoterGeneration) }
    }
}

fn event() -> impl Strategy<Value = ProtocolEvent> {
    let what = [What::Prepare, What::AskHandOver, What::CampaignLost, What::RefusedMessage];
    let direction = [Direction::Sent, Direction::Received, Direction::Local];
    let who = (0..=253_402_300_799_999_999u64, text(), vec(text(), 0..3));
    let number = || option::of(any::<u64>());
    (
        (who, prop::sample::select(what.to_vec()), prop::sample::select(direction.to_vec())),
        (number(), number(), number(), option::of(any::<u8>())),
        (number(), number(), number(), number(), option::of(text())),
    )
        .prop_map(
            |(((at, node, peers), what, event), (seq, ballot, counter, proposer), rest)| {
                let (first, last, votes, promised, detail) = rest;
                let (ballot, promised) = (ballot.map(JsonId), promised.map(JsonId));
                let at = Moment(at);
                ProtocolEvent {
                    at,
                    node,
                    seq,
                    event,
                    what,
                    peers,
                    ballot,
                    counter,
                    proposer,
                    first,
                    last,
                    votes,
                    promised,
                    detail,
                }
            },
        )
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    write(&mut out);
    Bytes::from(out)
}

/// No first part of the whole decodes.
fn refuses_parts<T, E>(whole: &Bytes, decode: impl Fn(&Bytes) -> Result<T, E>) -> bool {
    (0..whole.len()).all(|end| decode(&whole.slice(..end)).is_err())
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..20).prop_map(Bytes::from)
}

/// Whether the first `bits` bits of two addresses of one kind are the same, bit by bit.
fn same_start(a: &[u8], b: &[u8], bits: usize) -> bool {
    (0..bits).all(|bit| (a[bit / 8] ^ b[bit / 8]) >> (7 - bit % 8) & 1 == 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_genesis_comes_back_through_its_file(file in genesis()) {
        let text = encode_genesis(&file).unwrap();
        prop_assert_eq!(decode_genesis(&text), Ok(file), "{}", text);
    }

    #[test]
    fn a_genesis_record_comes_back_and_its_parts_do_not(file in genesis()) {
        let GenesisFile { genesis, generation } = file;
        let record = Record::Genesis { genesis, generation };
        let whole = written(|out| encode_record(&record, out));
        prop_assert_eq!(decode_record(&whole), Ok(record));
        prop_assert!(refuses_parts(&whole, decode_record));
    }

    #[test]
    fn a_hello_comes_back_and_its_parts_do_not(
        protocol in any::<(u16, u16)>(), cluster in text(), node: u64, software in text(),
    ) {
        let hello = Hello { protocol, cluster, node, software };
        let whole = encode_hello(&hello);
        prop_assert!(refuses_parts(&whole, |part| decode_hello(part)));
        prop_assert_eq!(decode_hello(&whole), Ok(hello));
    }

    #[test]
    fn events_come_back_and_their_parts_do_not(events in vec(event(), 0..3), forgot: bool) {
        let message = PeerMessage::Trace(TraceMessage::Told { token: 7, events, forgot });
        let whole = encode_peer(&message);
        prop_assert!(refuses_parts(&whole, decode_peer));
        prop_assert_eq!(decode_peer(&whole), Ok(message));
    }

    #[test]
    fn a_part_of_a_command_or_request_is_none(
        key in bytes(), value in bytes(), revision: u64, id in option::of("[a-z]{1,9}"),
    ) {
        let condition = Condition::Revision(revision);
        let put = Operation::Put { key: key.clone(), value: value.clone(), condition };
        let (session, principal, request_id) = (SessionId(revision), "ann".to_owned(), id);
        let command = Command {
            session,
            sequence: 1,
            acknowledged_below: revision,
            principal,
            request_id: request_id.clone(),
            operation: put,
        };
        prop_assert!(refuses_parts(&encode_command(&command), decode_command));
        let condition = Condition::Value(value.clone());
        let call = Call::Put { key, value: value.clone(), condition, request_id };
        let request = rpc::Request { id: revision, timeout: Duration::from_secs(1), call };
        let whole = written(|out| rpc::encode_request(&request, out));
        prop_assert!(refuses_parts(&whole, rpc::decode_request));
        let reply = Reply::Value { value, revision, create_revision: revision, version: 1 };
        let whole = written(|out| rpc::encode_answer(revision, Ok(&reply), out));
        prop_assert!(refuses_parts(&whole, rpc::decode_answer));
    }

    #[test]
    fn a_failure_is_found_behind_whatever_was_said_before(
        before in text(), code in prop::sample::select(Code::ALL.to_vec()),
        message in "\\PC{0,20}", hint in "[!-~]{1,20}",
    ) {
        let failure = Failure::new(code, message, hint);
        let said = format!("{before}\n{}", failure.to_text());
        prop_assert_eq!(Failure::from_text(&said), Some(failure));
    }

    #[test]
    fn rights_are_what_their_words_say(
        words in vec(("(admin|read|write)", option::of("[a-z/:]{1,6}")), 1..4),
        key in "[a-z/:]{1,8}",
    ) {
        let spelt: Vec<String> = words.iter().map(|(verb, prefix)| match prefix {
            Some(prefix) if verb != "admin" => format!("{verb}:{prefix}"),
            _ => verb.clone(),
        }).collect();
        let rights: Rights = spelt.join(",").parse().unwrap();
        prop_assert_eq!(&rights.to_string().parse::<Rights>().unwrap(), &rights);
        let covers = |wanted: &[&str]| spelt.iter().any(|word| {
            let (verb, prefix) = word.split_once(':').unwrap_or((word, ""));
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            let below = key.strip_prefix(prefix).is_some_and(|rest| {
                rest.starts_with('/') || (rest.is_empty() && !word.ends_with('/'))
            });
            wanted.contains(&verb) && (!word.contains(':') || below)
        });
        prop_assert_eq!(rights.admin(), spelt.contains(&"admin".to_owned()));
        prop_assert_eq!(rights.may_write(key.as_bytes()), covers(&["admin", "write"]));
        prop_assert_eq!(rights.may_read(key.as_bytes()), covers(&["admin", "write", "read"]));
    }

    #[test]
    fn a_block_of_addresses_holds_those_that_begin_alike(
        network in any::<[u8; 16]>(), flip in 0..128usize, bits in 0..=128usize, four: bool,
    ) {
        let (bytes, width) = if four { (&network[..4], 32) } else { (&network[..], 128) };
        let (flip, bits) = (flip % width, bits % (width + 1));
        let mut other = bytes.to_vec();
        other[flip / 8] ^= 1 << (7 - flip % 8);
        let address = |bytes: &[u8]| match four {
            true => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap())),
            false => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap())),
        };
        let (network, near) = (address(bytes), address(&other));
        // An address in the clothes of another kind is judged as that kind.
        prop_assume!(network.to_canonical() == network && near.to_canonical() == near);
        let list: AddressList = format!("{network}/{bits}").parse().unwrap();
        prop_assert!(list.contains(network));
        prop_assert_eq!(list.contains(near), same_start(bytes, &other, bits));
    }

    #[test]
    fn timeouts_are_read_as_they_are_written(nanos in 1..=3_600_000_000_000u64) {
        let span = Duration::from_nanos(nanos);
        let written = humantime::format_duration(span).to_string();
        prop_assert_eq!(parse_timeout(written.as_bytes()), Ok(span));
        let written = format!("{nanos}ns");
        prop_assert_eq!(parse_timeout(written.as_bytes()), Ok(span));
    }
}
