//! Promises: never lowered, by a restart neither; never said before they are durable; and nothing
//! is accepted below one.
//!
//! Source: Lamport, "Paxos Made Simple" (2001), §2.2, P1a: an acceptor accepts a proposal numbered
//! n iff it has not responded to a prepare request numbered above n; §2.5: it records its intended
//! response in stable storage before it sends it.
//!
//! All of this is told per machine, over all lives of its log.

use super::{Machine, violated};
use bytes::Bytes;
use paxos_ssh::paxos::ballot::Ballot;
use paxos_ssh::paxos::message::Pledge;
use std::collections::BTreeMap;

#[derive(Default)]
struct Acceptor {
    /// The highest promise in durable records.
    durable: Ballot,
    /// The highest ballot in anything that was said to others.
    said: Ballot,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Promises {
    acceptors: BTreeMap<Machine, Acceptor>,
}

impl Promises {
    /// A record that promises `ballot` became durable.
    pub fn durable(&mut self, machine: Machine, ballot: Ballot) {
        let acceptor = self.acceptors.entry(machine).or_default();
        acceptor.durable = acceptor.durable.max(ballot);
    }

    /// The machine's disk forgot, within what the quorums bear.
    pub fn forgot(&mut self, machine: Machine) {
        self.acceptors.remove(&machine);
    }

    /// A vote is appended.
    pub fn accepts(&mut self, machine: Machine, ballot: Ballot) {
        let acceptor = self.acceptors.entry(machine).or_default();
        let promised = acceptor.said.max(acceptor.durable);
        if ballot < promised {
            let what = format!("{machine} accepts under {ballot} though it promised {promised}");
            violated("promises", &what);
        }
    }

    /// A pledge is sent.
    pub fn pledged(&mut self, machine: Machine, pledge: &Pledge<Bytes>) {
        let (Pledge::Promise { ballot, .. } | Pledge::Accepted { ballot, .. }) = pledge;
        let acceptor = self.acceptors.entry(machine).or_default();
        if *ballot > acceptor.durable {
            let what = format!("{machine} says {ballot}, and durable is {}", acceptor.durable);
            violated("promises", &what);
        }
        if *ballot < acceptor.said {
            let what = format!("{machine} says {ballot} after it said {}", acceptor.said);
            violated("promises", &what);
        }
        acceptor.said = *ballot;
    }

    /// A running acceptor says that it promised this much.
    pub fn says(&mut self, machine: Machine, promised: Ballot) {
        let Some(acceptor) = self.acceptors.get(&machine) else { return };
        let least = acceptor.durable.max(acceptor.said);
        if promised < least {
            let what = format!("{machine} has promised {promised} now, and {least} before");
            violated("promises", &what);
        }
    }
}
