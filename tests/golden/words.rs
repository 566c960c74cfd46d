//! Protocol words for what nodes say, log and decide. Ballots are told by their number alone, but
//! for the run of the process behind it where two runs share a number.

use paxos_ssh::paxos::ballot::{Ballot, NodeId, Slot};
use paxos_ssh::paxos::effects::{ConfirmedRead, Note, Rejection, Token};
use paxos_ssh::paxos::message::{DiskHealth, Entry, Message, Payload, Pledge, Statement};
use paxos_ssh::paxos::record::Record;
use paxos_ssh::paxos::replica::Status;

/// The number, and the run of the process that issued it.
fn ballot(ballot: Ballot) -> String {
    match ballot == Ballot::ZERO {
        true => "0".to_owned(),
        false => format!("{}/run{}", ballot.number.value(), ballot.incarnation.0),
    }
}

fn node(id: NodeId) -> String {
    format!("n{}", id.0)
}

fn hears(heard: Option<Ballot>) -> String {
    heard.map_or("hears nobody".to_owned(), |heard| format!("hears {}", ballot(heard)))
}

fn slots(first: Slot, last: Slot) -> String {
    match first == last {
        true => format!("slot {}", first.0),
        false => format!("slots {}..{}", first.0, last.0),
    }
}

fn entry(entry: &Entry<u64>) -> String {
    match &entry.payload {
        Payload::Noop => "no-op".to_owned(),
        Payload::Command(command) => command.to_string(),
        Payload::Configuration(configuration) => {
            format!("configuration {}", configuration.number.0)
        }
        Payload::Floor(slot) => format!("floor {}", slot.0),
    }
}

fn entries<'a>(all: impl IntoIterator<Item = &'a Entry<u64>>) -> String {
    let all: Vec<String> = all.into_iter().map(entry).collect();
    format!("[{}]", all.join(", "))
}

/// What a node noticed; none for what its messages say as well.
pub fn note(note: &Note) -> Option<String> {
    Some(match *note {
        Note::Inquiring => "misses a leader, and asks around".to_owned(),
        Note::Campaigning(number) => format!("campaigns under {}", ballot(number)),
        Note::CampaignLost(number) => format!("gives up its campaign under {}", ballot(number)),
        Note::Leading(number) => format!("leads under {}", ballot(number)),
        Note::SteppedDown(number, why) => {
            format!("steps down from {}: {why:?}", ballot(number))
        }
        Note::Following(leader, number) => {
            format!("follows {} under {}", node(leader), ballot(number))
        }
        Note::LeaderLost(leader) => format!("no longer hears {}", node(leader)),
        Note::Refused(from, offence) => format!("refuses a message of {}: {offence:?}", node(from)),
        Note::ProposerClash(number) => {
            format!("sees another process under its proposer id: {}", ballot(number))
        }
        Note::Fenced { by, ballot: number, last } => format!(
            "was seen by {} to pledge {} up to slot {}, does not remember, and votes no more",
            node(by),
            ballot(number),
            last.0
        ),
        Note::PromisedItself { ballot: number, floor, votes } => {
            format!("counts its own promise {}, floor {}, {votes} votes", ballot(number), floor.0)
        }
        Note::AcceptedItself { ballot: number, first, last } => {
            format!("counts its own votes {}, {}", ballot(number), slots(first, last))
        }
        Note::Proposed { .. } | Note::ReadRound => return None,
    })
}

pub fn record(record: &Record<u64>) -> String {
    match record {
        Record::Genesis { .. } => "logs the genesis".to_owned(),
        Record::Promised(number) => format!("logs its promise {}", ballot(*number)),
        Record::Accepted(vote) => format!(
            "logs its vote {}, slot {}: {}",
            ballot(vote.ballot),
            vote.slot.0,
            entry(&vote.entry)
        ),
        Record::Learned { slot, entry: learned } => {
            format!("logs slot {} as learned: {}", slot.0, entry(learned))
        }
        Record::Chosen(slot) => format!("logs that all up to slot {} is chosen", slot.0),
        Record::Floor(slot) => format!("logs the floor {}", slot.0),
        Record::Fenced => "logs that it votes no more".to_owned(),
    }
}

pub fn chosen(slot: Slot, chosen: &Entry<u64>) -> String {
    format!("applies slot {}: {}", slot.0, entry(chosen))
}

pub fn rejected(token: Token, why: Rejection) -> String {
    format!("cannot pass on request {}: {why:?}", token.0)
}

pub fn read(read: &ConfirmedRead) -> String {
    format!("may serve read {} once slot {} is applied", read.token.0, read.index.0)
}

pub fn message(message: &Message<u64>) -> String {
    match message {
        Message::Pledge(told) => pledge(told),
        Message::Statement(told) => statement(told),
    }
}

fn pledge(pledge: &Pledge<u64>) -> String {
    match pledge {
        Pledge::Promise { ballot: number, floor, votes, .. } => {
            let vote = |vote: &paxos_ssh::paxos::message::Vote<u64>| {
                format!("{}: {} of {}", vote.slot.0, entry(&vote.entry), ballot(vote.ballot))
            };
            let votes: Vec<String> = votes.iter().map(vote).collect();
            format!("Promise {}, floor {}, votes [{}]", ballot(*number), floor.0, votes.join(", "))
        }
        Pledge::Accepted { ballot: number, first, last, .. } => {
            format!("Accepted {}, {}", ballot(*number), slots(*first, *last))
        }
    }
}

fn statement(statement: &Statement<u64>) -> String {
    match statement {
        Statement::Prepare { ballot: number, first, .. } => {
            format!("Prepare {}, every slot from {}", ballot(*number), first.0)
        }
        Statement::Accept { ballot: number, first, entries: all, chosen, .. } => {
            let all = entries(all.iter().map(AsRef::as_ref));
            format!("Accept {}, from slot {} {all}, chosen {}", ballot(*number), first.0, chosen.0)
        }
        Statement::Refused { ballot: number, promised, hears: heard } => format!(
            "Refused {}, promised {}, {}",
            ballot(*number),
            ballot(*promised),
            hears(*heard)
        ),
        Statement::Chosen { ballot: number, chosen } => {
            format!("Chosen {}, all up to slot {}", ballot(*number), chosen.0)
        }
        Statement::Heartbeat { ballot: number, round, chosen, .. } => {
            format!("Heartbeat {}, round {round}, chosen {}", ballot(*number), chosen.0)
        }
        Statement::HeartbeatAck { ballot: number, round, promised, hears: heard, disk, .. } => {
            let mut text = format!("HeartbeatAck {}, round {round}", ballot(*number));
            if promised > number {
                text += &format!(", but promised {}, {}", ballot(*promised), hears(*heard));
            }
            if *disk != DiskHealth::Healthy {
                text += &format!(", disk {disk:?}");
            }
            text
        }
        Statement::Inquire { round } => format!("Inquire {round}"),
        Statement::Report { round, promised, hears: heard, .. } => {
            format!("Report {round}, promised {}, {}", ballot(*promised), hears(*heard))
        }
        Statement::HandOver { ballot: number } => format!("HandOver {}", ballot(*number)),
        Statement::AskHandOver { to } => {
            format!("AskHandOver to {}", to.map_or("anybody".to_owned(), node))
        }
        Statement::Forward { commands, .. } => format!("Forward {commands:?}"),
        Statement::ReadIndexRequest { token, .. } => format!("ReadIndexRequest {token}"),
        Statement::ReadIndex { token, index, .. } => format!("ReadIndex {token}: {}", index.0),
        Statement::Fetch { first } => format!("Fetch from slot {}", first.0),
        Statement::Fetched { first, entries: all, chosen, more, .. } => {
            let all = entries(all.iter().map(AsRef::as_ref));
            let more = if *more { ", more follows" } else { "" };
            format!("Fetched from slot {} {all}, chosen {}{more}", first.0, chosen.0)
        }
    }
}

pub fn status(status: &Status) -> String {
    let state = match (status.leading, status.campaigning, status.leader) {
        (Some(number), _, _) => format!("leads under {}", ballot(number)),
        (None, true, _) => "tries to lead".to_owned(),
        (None, false, Some(leader)) => format!("follows {}", node(leader)),
        (None, false, None) => "knows no leader".to_owned(),
    };
    format!("{state}, promised {}, chosen {}", ballot(status.promised), status.chosen.0)
}
