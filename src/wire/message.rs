//! Layout of what nodes say to each other: the body of a frame of kind message.

use super::entry::{WireBallot, WireEntry, WireVote};
use super::{DecodeError, decode, encode, split};
use crate::paxos::ballot::{Ballot, NodeId, Slot, VoterGeneration};
use crate::paxos::configuration::ConfigurationNumber;
use crate::paxos::message::{DiskHealth, Entry, Message, Payload, Pledge, Statement, Vote};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

const MESSAGE: &str = "message";
const DISK_HEALTH: &str = "disk health";

/// The one layout of messages there is so far.
const MESSAGE_VERSION: u8 = 1;

const PROMISE: u8 = 0;
const ACCEPTED: u8 = 1;
const PREPARE: u8 = 2;
const ACCEPT: u8 = 3;
const REFUSED: u8 = 4;
const CHOSEN: u8 = 5;
const HEARTBEAT: u8 = 6;
const HEARTBEAT_ACK: u8 = 7;
const INQUIRE: u8 = 8;
const REPORT: u8 = 9;
const HAND_OVER: u8 = 10;
const FORWARD: u8 = 11;
const READ_INDEX_REQUEST: u8 = 12;
const READ_INDEX: u8 = 13;
const FETCH: u8 = 14;
const FETCHED: u8 = 15;
const ASK_HAND_OVER: u8 = 16;

const HEALTHY: u8 = 0;
const STALLED: u8 = 1;
const FULL: u8 = 2;

/// Room for the fields of a message beside its entries, and of an entry beside its value, so that
/// the buffer of a message does not grow while it is written.
const OVERHEAD_BYTES: usize = 64;

type WireEntries<'a> = Vec<WireEntry<'a>>;

/// ballot, generation, floor, votes, part, parts.
#[derive(Deserialize)]
struct WirePromise<'a>(WireBallot, u64, u64, #[serde(borrow)] Vec<WireVote<'a>>, u32, u32);

/// ballot, configuration, first, entries, chosen.
#[derive(Deserialize)]
struct WireAccept<'a>(WireBallot, u64, u64, #[serde(borrow)] WireEntries<'a>, u64);

/// first, entries, chosen, floor, more.
#[derive(Deserialize)]
struct WireFetched<'a>(u64, #[serde(borrow)] WireEntries<'a>, u64, u64, bool);

/// commands, hops.
#[derive(Deserialize)]
struct WireForward<'a>(#[serde(borrow)] Vec<&'a serde_bytes::Bytes>, u8);

/// ballot, round, generation, promised, hears, disk, chosen.
#[derive(Serialize, Deserialize)]
struct WireHeartbeatAck(WireBallot, u64, Option<u64>, WireBallot, Option<WireBallot>, u8, u64);

/// round, generation, promised, hears, chosen.
#[derive(Serialize, Deserialize)]
struct WireReport(u64, Option<u64>, WireBallot, Option<WireBallot>, u64);

/// A list written item by item, without a list of mirrors in between.
struct List<'a, T>(&'a [T]);

impl Serialize for List<'_, Arc<Entry<Bytes>>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|entry| WireEntry::from(&**entry)))
    }
}

impl Serialize for List<'_, Vote<Bytes>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(WireVote::from))
    }
}

impl Serialize for List<'_, Bytes> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|command| serde_bytes::Bytes::new(command)))
    }
}

/// The message as a frame's body.
pub fn encode_message(message: &Message<Bytes>) -> Bytes {
    let mut out = Vec::with_capacity(OVERHEAD_BYTES + payload_bytes(message));
    match message {
        Message::Pledge(pledge) => encode_pledge(pledge, &mut out),
        Message::Statement(statement) => encode_statement(statement, &mut out),
    }
    Bytes::from(out)
}

/// Reads a message back. Values stay slices of `input`.
///
/// # Errors
/// When the bytes are no message of a known version.
pub fn decode_message(input: &Bytes) -> Result<Message<Bytes>, DecodeError> {
    let (kind, fields) = split(MESSAGE, MESSAGE_VERSION, input)?;
    match kind {
        PROMISE | ACCEPTED => decode_pledge(kind, fields, input).map(Message::Pledge),
        PREPARE..=ASK_HAND_OVER => decode_statement(kind, fields, input).map(Message::Statement),
        found => Err(DecodeError::Kind { what: MESSAGE, found }),
    }
}

fn wire(ballot: &Ballot) -> WireBallot {
    WireBallot::from(*ballot)
}

fn encode_pledge(pledge: &Pledge<Bytes>, out: &mut Vec<u8>) {
    let mut put = Writer(out);
    match pledge {
        Pledge::Promise { ballot, generation, floor, votes, part, parts } => {
            let fields = (wire(ballot), generation.0, floor.0, List(votes), part, parts);
            put.fields(PROMISE, &fields);
        }
        Pledge::Accepted { ballot, generation, first, last } => {
            put.fields(ACCEPTED, &(wire(ballot), generation.0, first.0, last.0));
        }
    }
}

fn encode_statement(statement: &Statement<Bytes>, out: &mut Vec<u8>) {
    let mut put = Writer(out);
    match statement {
        Statement::Prepare { ballot, configuration, first } => {
            put.fields(PREPARE, &(wire(ballot), configuration.0, first.0));
        }
        Statement::Accept { ballot, configuration, first, entries, chosen } => {
            let fields = (wire(ballot), configuration.0, first.0, List(entries), chosen.0);
            put.fields(ACCEPT, &fields);
        }
        Statement::Refused { ballot, promised, hears } => {
            put.fields(REFUSED, &(wire(ballot), wire(promised), hears.as_ref().map(wire)));
        }
        Statement::Chosen { ballot, chosen } => put.fields(CHOSEN, &(wire(ballot), chosen.0)),
        Statement::Heartbeat { ballot, round, chosen, configuration } => {
            put.fields(HEARTBEAT, &(wire(ballot), round, chosen.0, configuration.0));
        }
        Statement::HeartbeatAck { ballot, round, generation, promised, hears, disk, chosen } => {
            let fields = WireHeartbeatAck(
                wire(ballot),
                *round,
                generation.map(|generation| generation.0),
                wire(promised),
                hears.as_ref().map(wire),
                disk_kind(*disk),
                chosen.0,
            );
            put.fields(HEARTBEAT_ACK, &fields);
        }
        Statement::Inquire { round } => put.fields(INQUIRE, round),
        Statement::Report { round, generation, promised, hears, chosen } => {
            let generation = generation.map(|generation| generation.0);
            let hears = hears.as_ref().map(wire);
            let fields = WireReport(*round, generation, wire(promised), hears, chosen.0);
            put.fields(REPORT, &fields);
        }
        Statement::HandOver { ballot } => put.fields(HAND_OVER, &wire(ballot)),
        Statement::AskHandOver { to } => put.fields(ASK_HAND_OVER, &to.map(|to| to.0)),
        Statement::Forward { commands, hops } => put.fields(FORWARD, &(List(commands), hops)),
        Statement::ReadIndexRequest { origin, token, hops } => {
            put.fields(READ_INDEX_REQUEST, &(origin.0, token, hops));
        }
        Statement::ReadIndex { origin, token, index } => {
            put.fields(READ_INDEX, &(origin.0, token, index.0));
        }
        Statement::Fetch { first } => put.fields(FETCH, &first.0),
        Statement::Fetched { first, entries, chosen, floor, more } => {
            put.fields(FETCHED, &(first.0, List(entries), chosen.0, floor.0, more));
        }
    }
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn fields(&mut self, kind: u8, fields: &impl Serialize) {
        encode(MESSAGE_VERSION, kind, fields, self.0);
    }
}

fn decode_pledge(kind: u8, fields: &[u8], input: &Bytes) -> Result<Pledge<Bytes>, DecodeError> {
    if kind == PROMISE {
        let WirePromise(ballot, generation, floor, votes, part, parts) = read(fields)?;
        let votes = votes.into_iter().map(|vote| vote.check(input));
        return Ok(Pledge::Promise {
            ballot: ballot.into(),
            generation: VoterGeneration(generation),
            floor: Slot(floor),
            votes: votes.collect::<Result<_, _>>()?,
            part,
            parts,
        });
    }
    let (ballot, generation, first, last): (WireBallot, u64, u64, u64) = read(fields)?;
    Ok(Pledge::Accepted {
        ballot: ballot.into(),
        generation: VoterGeneration(generation),
        first: Slot(first),
        last: Slot(last),
    })
}

fn decode_statement(
    kind: u8,
    fields: &[u8],
    input: &Bytes,
) -> Result<Statement<Bytes>, DecodeError> {
    Ok(match kind {
        PREPARE => {
            let (ballot, configuration, first): (WireBallot, u64, u64) = read(fields)?;
            let configuration = ConfigurationNumber(configuration);
            Statement::Prepare { ballot: ballot.into(), configuration, first: Slot(first) }
        }
        ACCEPT => read::<WireAccept<'_>>(fields)?.check(input)?,
        REFUSED => {
            let (ballot, promised, hears): (WireBallot, WireBallot, Option<WireBallot>) =
                read(fields)?;
            let hears = hears.map(Ballot::from);
            Statement::Refused { ballot: ballot.into(), promised: promised.into(), hears }
        }
        CHOSEN => {
            let (ballot, chosen): (WireBallot, u64) = read(fields)?;
            Statement::Chosen { ballot: ballot.into(), chosen: Slot(chosen) }
        }
        HEARTBEAT => {
            let (ballot, round, chosen, configuration): (WireBallot, u64, u64, u64) = read(fields)?;
            let configuration = ConfigurationNumber(configuration);
            let chosen = Slot(chosen);
            Statement::Heartbeat { ballot: ballot.into(), round, chosen, configuration }
        }
        HEARTBEAT_ACK => read::<WireHeartbeatAck>(fields)?.check()?,
        INQUIRE => Statement::Inquire { round: read(fields)? },
        REPORT => {
            let WireReport(round, generation, promised, hears, chosen) = read(fields)?;
            Statement::Report {
                round,
                generation: generation.map(VoterGeneration),
                promised: promised.into(),
                hears: hears.map(Ballot::from),
                chosen: Slot(chosen),
            }
        }
        HAND_OVER => Statement::HandOver { ballot: read::<WireBallot>(fields)?.into() },
        ASK_HAND_OVER => Statement::AskHandOver { to: read::<Option<u64>>(fields)?.map(NodeId) },
        FORWARD => {
            let WireForward(commands, hops) = read(fields)?;
            let commands = commands.into_iter().map(|command| super::share(input, command));
            Statement::Forward { commands: commands.collect(), hops }
        }
        READ_INDEX_REQUEST => {
            let (origin, token, hops) = read(fields)?;
            Statement::ReadIndexRequest { origin: NodeId(origin), token, hops }
        }
        READ_INDEX => {
            let (origin, token, index) = read(fields)?;
            Statement::ReadIndex { origin: NodeId(origin), token, index: Slot(index) }
        }
        FETCH => Statement::Fetch { first: Slot(read(fields)?) },
        FETCHED => {
            let WireFetched(first, entries, chosen, floor, more) = read(fields)?;
            let entries = checked(entries, input)?;
            let (first, chosen, floor) = (Slot(first), Slot(chosen), Slot(floor));
            Statement::Fetched { first, entries, chosen, floor, more }
        }
        found => return Err(DecodeError::Kind { what: MESSAGE, found }),
    })
}

fn read<'a, T: Deserialize<'a>>(fields: &'a [u8]) -> Result<T, DecodeError> {
    decode(MESSAGE, fields)
}

fn checked(entries: WireEntries<'_>, input: &Bytes) -> Result<Vec<Arc<Entry<Bytes>>>, DecodeError> {
    entries.into_iter().map(|entry| entry.check(input)).collect()
}

fn disk_kind(disk: DiskHealth) -> u8 {
    match disk {
        DiskHealth::Healthy => HEALTHY,
        DiskHealth::Stalled => STALLED,
        DiskHealth::Full => FULL,
    }
}

impl WireAccept<'_> {
    fn check(self, input: &Bytes) -> Result<Statement<Bytes>, DecodeError> {
        let WireAccept(ballot, configuration, first, entries, chosen) = self;
        Ok(Statement::Accept {
            ballot: ballot.into(),
            configuration: ConfigurationNumber(configuration),
            first: Slot(first),
            entries: checked(entries, input)?,
            chosen: Slot(chosen),
        })
    }
}

impl WireHeartbeatAck {
    fn check(self) -> Result<Statement<Bytes>, DecodeError> {
        let WireHeartbeatAck(ballot, round, generation, promised, hears, disk, chosen) = self;
        let disk = match disk {
            HEALTHY => DiskHealth::Healthy,
            STALLED => DiskHealth::Stalled,
            FULL => DiskHealth::Full,
            found => return Err(DecodeError::Kind { what: DISK_HEALTH, found }),
        };
        Ok(Statement::HeartbeatAck {
            ballot: ballot.into(),
            round,
            generation: generation.map(VoterGeneration),
            promised: promised.into(),
            hears: hears.map(Ballot::from),
            disk,
            chosen: Slot(chosen),
        })
    }
}

/// About how many bytes the entries or commands of a message take.
fn payload_bytes(message: &Message<Bytes>) -> usize {
    let entry_bytes = |entry: &Arc<Entry<Bytes>>| match &entry.payload {
        Payload::Command(command) => OVERHEAD_BYTES + command.len(),
        Payload::Noop | Payload::Configuration(_) | Payload::Floor(_) => OVERHEAD_BYTES,
    };
    match message {
        Message::Pledge(Pledge::Promise { votes, .. }) => {
            votes.iter().map(|vote| OVERHEAD_BYTES + entry_bytes(&vote.entry)).sum()
        }
        Message::Statement(
            Statement::Accept { entries, .. } | Statement::Fetched { entries, .. },
        ) => entries.iter().map(entry_bytes).sum(),
        Message::Statement(Statement::Forward { commands, .. }) => {
            commands.iter().map(|command| OVERHEAD_BYTES + command.len()).sum()
        }
        _ => 0,
    }
}
