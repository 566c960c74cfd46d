//! Replicas over logs that are durable at once, for tests that ask one node what it makes of what
//! it hears.

use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::effects::Effects;
use paxos_ssh::paxos::message::{Message, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use std::collections::BTreeMap;

const TIMING: Timing = Timing { heartbeat: 5, election: 25, request: 12 };

/// The generation of each acceptor's log.
pub(crate) fn generation(id: u64) -> VoterGeneration {
    VoterGeneration(1000 + id)
}

/// Node `n` proposes as `n` if it is among the proposers, and votes if it is among the acceptors.
pub(crate) fn configuration(
    proposers: &[u64],
    acceptors: &[u64],
    quorums: QuorumSystem,
) -> Configuration {
    let member = |id: &u64| {
        let proposer = proposers.contains(id).then(|| ProposerId::new(*id).unwrap());
        let acceptor = acceptors.contains(id).then(|| generation(*id));
        let roles = Roles { proposer, acceptor, learner: true };
        (NodeId(*id), Member { name: format!("n{id}"), address: String::new(), roles })
    };
    let members: BTreeMap<_, _> = proposers.iter().chain(acceptors).map(member).collect();
    Configuration::new(ConfigurationNumber(1), members, quorums).unwrap()
}

/// One process of a node.
pub(crate) struct Process {
    replica: Replica<u64>,
    effects: Effects<u64>,
    /// The ballots that it asked promises for.
    pub(crate) issued: Vec<Ballot>,
}

impl Process {
    /// A process over an empty log.
    pub(crate) fn start(id: u64, incarnation: u64, configuration: &Configuration) -> Process {
        let configuration = configuration.clone();
        let genesis = Genesis { cluster: ClusterId(1), window: 64, configuration };
        let mut recovered = Recovered::default();
        let generation = Some(generation(id));
        recovered.replay(Record::Genesis { genesis, generation }).unwrap();
        let (id, incarnation) = (NodeId(id), Incarnation(incarnation));
        let effects = Effects::new(recovered.end);
        let start = Start { id, incarnation, seed: 1, timing: TIMING, recovered };
        Process { replica: Replica::new(start).unwrap(), effects, issued: Vec::new() }
    }

    fn settle(&mut self) {
        loop {
            for outgoing in self.effects.take_statements() {
                if let Statement::Prepare { ballot, .. } = outgoing.statement
                    && !self.issued.contains(&ballot)
                {
                    self.issued.push(ballot);
                }
            }
            self.effects.take_pledges();
            if self.effects.take_records().is_empty() {
                return;
            }
            let end = self.effects.end();
            self.replica.persisted(end, &mut self.effects);
        }
    }

    pub(crate) fn campaign(&mut self) {
        self.replica.campaign(&mut self.effects);
        self.settle();
    }

    pub(crate) fn hear(&mut self, from: u64, message: impl Into<Message<u64>>) {
        self.replica.step(NodeId(from), message.into(), &mut self.effects);
        self.settle();
        self.replica.flush(&mut self.effects);
        self.settle();
    }

    pub(crate) fn leads(&self) -> bool {
        self.replica.status().leading.is_some()
    }

    pub(crate) fn chosen(&self) -> Slot {
        self.replica.status().chosen
    }

    /// The highest ballot it knows.
    pub(crate) fn ballot(&self) -> Ballot {
        self.replica.status().ballot
    }
}
