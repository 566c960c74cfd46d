//! Validity: a chosen command was asked by a client; everything else in the log is the protocol's
//! own.
//!
//! Source: Lamport, "Paxos Made Simple" (2001), §2.1: only a value that has been proposed may be
//! chosen. No-ops fill gaps (§3); sessions are opened by nodes in their own name.

use super::violated;
use bytes::Bytes;
use paxos_ssh::paxos::ballot::Slot;
use paxos_ssh::paxos::message::{Entry, Payload};
use paxos_ssh::store::command::Operation;
use paxos_ssh::wire::command::decode_command;
use std::collections::{BTreeSet, HashSet};

/// See the module's documentation.
#[derive(Default)]
pub struct Validity {
    asked: HashSet<Operation>,
    /// Slots that opened a session, as somebody learned.
    sessions: BTreeSet<Slot>,
}

impl Validity {
    /// How many sessions were opened.
    pub fn sessions(&self) -> u64 {
        self.sessions.len() as u64
    }

    /// A client asks for this.
    pub fn asked(&mut self, operation: &Operation) {
        self.asked.insert(operation.clone());
    }

    /// A node learned that the slot holds this.
    pub fn learned(&mut self, slot: Slot, entry: &Entry<Bytes>) {
        let bytes = match &entry.payload {
            Payload::Command(bytes) => bytes,
            Payload::Noop => return,
            // The program has nothing yet that proposes these.
            other => violated("validity", &format!("slot {slot} holds {other:?}")),
        };
        let Ok(command) = decode_command(bytes) else {
            violated("validity", &format!("slot {slot} holds a command that nobody can read"));
        };
        let made_by_node = matches!(command.operation, Operation::OpenSession { .. });
        if made_by_node {
            self.sessions.insert(slot);
        } else if !self.asked.contains(&command.operation) {
            let what = format!("slot {slot} holds {:?}; nobody asked that", command.operation);
            violated("validity", &what);
        }
    }
}
