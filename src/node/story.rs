//! What the recorder holds, told with names and words.

use super::recorder::{Detail, Recorded};
use crate::paxos::ballot::NodeId;
use crate::paxos::effects::{Offence, StepDown};
use crate::wire::event::{Moment, ProtocolEvent, What};
use crate::wire::report::JsonId;

/// An event of this node, with its number and with names in it.
pub fn told(
    (seq, recorded): (u64, &Recorded),
    node: &str,
    name: impl Fn(NodeId) -> String,
) -> ProtocolEvent {
    let mut event = ProtocolEvent {
        at: Moment::since_epoch(recorded.at),
        node: node.to_owned(),
        seq: Some(seq),
        event: recorded.direction,
        what: recorded.what,
        peers: recorded.peers.as_slice().iter().map(|id| name(*id)).collect(),
        ballot: recorded.ballot.map(|ballot| JsonId(ballot.value())),
        counter: recorded.ballot.map(|ballot| ballot.counter()),
        proposer: recorded.ballot.map(|ballot| ballot.proposer().value()),
        first: recorded.first.map(|slot| slot.0),
        last: recorded.last.map(|slot| slot.0),
        votes: None,
        promised: None,
        detail: None,
    };
    match recorded.detail {
        Detail::None => {}
        Detail::Votes(votes, part, parts) => {
            event.votes = Some(u64::from(votes));
            event.detail = (parts > 1).then(|| format!("part {} of {parts}", part + 1));
        }
        Detail::Promised(ballot, heard) => {
            event.promised = Some(JsonId(ballot.value()));
            event.detail = Some(heard.map_or_else(
                || "hears nobody".to_owned(),
                |heard| format!("hears the leader of ballot {}", heard.value()),
            ));
        }
        Detail::Commands(1) => event.detail = Some("1 command".to_owned()),
        Detail::Commands(count) => event.detail = Some(format!("{count} commands")),
        Detail::StepDown(why) => event.detail = Some(step_down(why).to_owned()),
        Detail::Offence(offence) => {
            let from = std::mem::take(&mut event.peers).join(" ");
            event.detail = Some(format!("from {from}: {}", offence_text(offence)));
        }
    }
    if recorded.what == What::ProposerClash {
        event.detail = Some("another process issues ballots under this proposer id".to_owned());
    } else if recorded.what == What::Fenced {
        let by = std::mem::take(&mut event.peers).join(" ");
        event.detail = Some(format!("{by} saw it pledge this, and its log does not hold it"));
    }
    event
}

fn step_down(why: StepDown) -> &'static str {
    match why {
        StepDown::QuorumLost => "a quorum of acceptors is silent",
        StepDown::Superseded => "a higher ballot is known",
        StepDown::HandedOver => "it handed over",
        StepDown::Fenced => "its own acceptor forgot what it pledged",
    }
}

fn offence_text(offence: Offence) -> &'static str {
    match offence {
        Offence::ForeignBallot => "the ballot belongs to another proposer",
        Offence::ImplausibleBallot => "the ballot is out of reach",
        Offence::Stranger => "it is no member",
        Offence::StaleGeneration => "the vote is of another life of its log",
        Offence::Malformed => "the slots are no run within the window",
        Offence::Contradiction => "it contradicts what is accepted or chosen",
    }
}
