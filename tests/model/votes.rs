//! What quorums voted for, read off the messages that were ever sent.
//!
//! An acceptance that left an acceptor is a vote for good, whether anybody heard it or not, for it
//! left only once it was durable. So the set of messages says what is chosen, whatever became of
//! the nodes since ("Paxos Made Simple" §2.2: a value is chosen once a majority has accepted it).

use super::node::{Envelope, Value};
use paxos_ssh::paxos::ballot::{Ballot, NodeId, Slot};
use paxos_ssh::paxos::message::{Message, Payload, Pledge, Statement};

/// Slots and ballots for which there are votes, or a proposal.
#[derive(Default)]
pub struct Votes {
    rows: Vec<Row>,
}

struct Row {
    slot: Slot,
    ballot: Ballot,
    /// One bit for each acceptor.
    voters: u64,
    value: Option<Value>,
    /// There is another proposal in this ballot.
    contradicted: bool,
}

impl Votes {
    fn row(&mut self, slot: Slot, ballot: Ballot) -> &mut Row {
        let found = self.rows.iter().position(|row| (row.slot, row.ballot) == (slot, ballot));
        let at = found.unwrap_or_else(|| {
            let (voters, value, contradicted) = (0, None, false);
            self.rows.push(Row { slot, ballot, voters, value, contradicted });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// Takes in a message that was sent.
    pub fn count(&mut self, envelope: &Envelope) {
        match &envelope.message {
            Message::Pledge(Pledge::Accepted { ballot, first, last, .. }) => {
                for slot in first.0..=last.0 {
                    self.row(Slot(slot), *ballot).voters |= 1 << envelope.from.0;
                }
            }
            Message::Statement(Statement::Accept { ballot, first, entries, .. }) => {
                for (slot, entry) in (first.0..).zip(entries) {
                    let row = self.row(Slot(slot), *ballot);
                    match &row.value {
                        Some(value) => row.contradicted |= value != entry,
                        None => row.value = Some(Value::clone(entry)),
                    }
                }
            }
            _ => {}
        }
    }

    /// Everything that a quorum of `phase2` voted for; more than one value for a slot, if it comes
    /// to that.
    pub fn chosen(&self, phase2: usize) -> impl Iterator<Item = (Slot, Ballot, &Value)> {
        let enough = move |row: &&Row| row.voters.count_ones() as usize >= phase2;
        let rows = self.rows.iter().filter(enough);
        rows.filter_map(|row| Some((row.slot, row.ballot, row.value.as_ref()?)))
    }

    /// Whether two values were proposed under one ballot.
    pub fn are_contradicted(&self) -> bool {
        self.rows.iter().any(|row| row.contradicted)
    }

    /// Whether some proposer proposed again, under a higher ballot, another one's command.
    pub fn takes_up(&self) -> bool {
        let commands = || {
            let is_command = |value: &&Value| matches!(value.payload, Payload::Command(_));
            self.rows
                .iter()
                .filter_map(move |row| Some((row, row.value.as_ref().filter(is_command)?)))
        };
        commands().any(|(low, value)| {
            let proposer = low.ballot.number.proposer();
            commands().any(|(high, again)| {
                high.slot == low.slot
                    && high.ballot > low.ballot
                    && high.ballot.number.proposer() != proposer
                    && again == value
            })
        })
    }
}

/// The ballot that this message pledges, if it is a pledge of that node.
pub fn pledged(envelope: &Envelope, node: NodeId) -> Option<Ballot> {
    match &envelope.message {
        Message::Pledge(Pledge::Promise { ballot, .. } | Pledge::Accepted { ballot, .. }) => {
            (envelope.from == node).then_some(*ballot)
        }
        Message::Statement(_) => None,
    }
}
