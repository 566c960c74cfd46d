//! A node that lags asks the one who tells of the most; if nothing comes of that, it asks the
//! others, one after the other, though the first goes on telling of the most.

use paxos_ssh::paxos::ballot::{
    Ballot, ClusterId, Incarnation, NodeId, ProposalNumber, ProposerId, Slot, VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::Effects;
use paxos_ssh::paxos::message::{Entry, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use std::sync::Arc;

const TIMING: Timing = Timing { heartbeat: 5, election: 25, request: 12 };

const ME: NodeId = NodeId(2);
const LEADER: NodeId = NodeId(3);
/// Neither holds a log nor is ever asked.
const CLIENT: NodeId = NodeId(4);
const NODES: u64 = 4;

/// The end of what is chosen, as the leader tells.
const CHOSEN: Slot = Slot(10);

fn genesis() -> Genesis {
    let member = |id| {
        let all = Roles {
            proposer: Some(ProposerId::new(id).expect("small")),
            acceptor: Some(VoterGeneration(id)),
            learner: true,
        };
        let roles = if NodeId(id) == CLIENT { Roles::default() } else { all };
        Member { name: format!("node{id}"), address: String::new(), roles }
    };
    let members = (1..=NODES).map(|id| (NodeId(id), member(id))).collect();
    let quorums = QuorumSystem::majority(3).expect("three acceptors");
    let configuration = Configuration::new(ConfigurationNumber(1), members, quorums);
    Genesis { cluster: ClusterId(1), window: 64, configuration: configuration.expect("sound") }
}

struct Laggard {
    replica: Replica<u64>,
    effects: Effects<u64>,
}

impl Laggard {
    fn new() -> Laggard {
        let mut recovered = Recovered::default();
        let generation = Some(VoterGeneration(ME.0));
        let first = Record::Genesis { genesis: genesis(), generation };
        recovered.replay(first).expect("a log starts with its genesis");
        let effects = Effects::new(recovered.end);
        let (incarnation, seed) = (Incarnation(1), 1);
        let start = Start { id: ME, incarnation, seed, timing: TIMING, recovered };
        Laggard { replica: Replica::new(start).expect("there is a genesis"), effects }
    }

    fn hears(&mut self, from: NodeId, statement: Statement<u64>) {
        self.replica.step(from, statement.into(), &mut self.effects);
    }

    /// Whom it asks next for what, while the leader goes on telling of the most.
    fn asks(&mut self) -> Option<(NodeId, Slot)> {
        let number = ProposalNumber::from_raw(100 + LEADER.0);
        let ballot = Ballot { number, incarnation: Incarnation(9) };
        let configuration = ConfigurationNumber(1);
        for round in 0..4 * u64::from(TIMING.request) {
            let said = self.effects.take_statements();
            let fetch = said.iter().find_map(|said| match said.statement {
                Statement::Fetch { first } => Some((said.to[0], first)),
                _ => None,
            });
            if fetch.is_some() {
                return fetch;
            }
            let heartbeat = Statement::Heartbeat { ballot, round, chosen: CHOSEN, configuration };
            self.hears(LEADER, heartbeat);
            self.replica.tick(&mut self.effects);
        }
        None
    }

    fn is_told(&mut self, from: NodeId, first: Slot, count: usize) {
        let entries = (0..count).map(|_| Arc::new(Entry::noop())).collect();
        let fetched = Statement::Fetched { first, entries, chosen: CHOSEN, floor: Slot(1) };
        self.hears(from, fetched);
    }
}

#[test]
fn whoever_cannot_answer_is_passed_over() {
    let mut laggard = Laggard::new();
    assert_eq!(laggard.asks(), Some((LEADER, Slot(1))), "it tells of the most");
    // The leader's disk cannot read those entries back. It goes on leading.
    assert_eq!(laggard.asks(), Some((NodeId(1), Slot(1))));
    laggard.is_told(NodeId(1), Slot(1), 4);
    assert_eq!(laggard.asks(), Some((NodeId(1), Slot(5))), "who helped once is asked on");
    assert_eq!(laggard.asks(), Some((LEADER, Slot(5))), "both were asked for this one");
    laggard.is_told(LEADER, Slot(5), 6);
    assert_eq!(laggard.replica.status().chosen, CHOSEN);
    assert_eq!(laggard.asks(), None, "nothing is missing");
}

#[test]
fn what_nobody_has_is_asked_for_again_when_somebody_tells_of_it() {
    let mut laggard = Laggard::new();
    for _ in 0..3 {
        assert_eq!(laggard.asks(), Some((LEADER, Slot(1))));
        assert_eq!(laggard.asks(), Some((NodeId(1), Slot(1))));
    }
}
