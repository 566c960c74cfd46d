//! A node that lags asks the one who tells of the most; if nothing comes of that, it asks the
//! others, one after the other, though the first goes on telling of the most.

use paxos_ssh::paxos::ballot::{
    Ballot, ClusterId, Incarnation, NodeId, ProposalNumber, ProposerId, Slot, VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::Effects;
use paxos_ssh::paxos::message::{Entry, Payload, Statement, Value};
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

/// So many bytes of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Command(usize);

impl Value for Command {
    fn weight(&self) -> usize {
        self.0
    }
}

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
    replica: Replica<Command>,
    effects: Effects<Command>,
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

    fn hears(&mut self, from: NodeId, statement: Statement<Command>) {
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
        self.is_told_a_piece(from, first, count, false);
    }

    fn is_told_a_piece(&mut self, from: NodeId, first: Slot, count: usize, more: bool) {
        let entries = (0..count).map(|_| Arc::new(Entry::noop())).collect();
        self.hears(
            from,
            Statement::Fetched { first, entries, chosen: CHOSEN, floor: Slot(1), more },
        );
    }

    /// What it says when it is asked for everything: first slots, and whether more follows.
    fn answers(&mut self) -> Vec<(Slot, bool)> {
        self.effects.take_statements();
        self.hears(NodeId(1), Statement::Fetch { first: Slot(1) });
        let said = self.effects.take_statements();
        let piece = |statement: &Statement<Command>| match statement {
            Statement::Fetched { first, more, .. } => Some((*first, *more)),
            _ => None,
        };
        said.iter().filter_map(|said| piece(&said.statement)).collect()
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

#[test]
fn a_piece_that_follows_is_waited_for_and_not_asked_for() {
    let mut laggard = Laggard::new();
    assert_eq!(laggard.asks(), Some((LEADER, Slot(1))));
    laggard.is_told_a_piece(LEADER, Slot(1), 3, true);
    let said = laggard.effects.take_statements();
    let asked = said.iter().any(|said| matches!(said.statement, Statement::Fetch { .. }));
    assert!(!asked, "what is on the way would come twice");
    laggard.is_told_a_piece(LEADER, Slot(4), 3, false);
    assert_eq!(laggard.asks(), Some((LEADER, Slot(7))), "the last piece asks for the next ones");
    laggard.is_told_a_piece(LEADER, Slot(7), 1, true);
    assert_eq!(laggard.asks(), Some((NodeId(1), Slot(8))), "what was to follow got lost");
}

/// Links over SSH keep the order, but nothing here may depend on it.
#[test]
fn pieces_that_overtake_one_another_do_not_make_it_wait() {
    let mut laggard = Laggard::new();
    assert_eq!(laggard.asks(), Some((LEADER, Slot(1))));
    laggard.is_told_a_piece(LEADER, Slot(5), 2, false);
    laggard.is_told_a_piece(LEADER, Slot(1), 2, true);
    let said = laggard.effects.take_statements();
    let asked = said
        .iter()
        .any(|said| said.to == [LEADER] && said.statement == Statement::Fetch { first: Slot(3) });
    assert!(asked, "the end has come, and 3 and 4 are missing");
}

#[test]
fn an_answer_has_several_pieces_and_an_end() {
    let mut holder = Laggard::new();
    holder.asks();
    holder.is_told(LEADER, Slot(1), 10);
    assert_eq!(holder.answers(), [(Slot(1), false)], "all of it fits in one");

    let mut holder = Laggard::new();
    holder.asks();
    let heavy = || Entry { payload: Payload::Command(Command(1 << 20)), ..Entry::noop() };
    let entries = (0..10).map(|_| Arc::new(heavy())).collect();
    let (first, floor, more) = (Slot(1), Slot(1), false);
    holder.hears(LEADER, Statement::Fetched { first, entries, chosen: CHOSEN, floor, more });
    let pieces = [(Slot(1), true), (Slot(2), true), (Slot(3), true), (Slot(4), false)];
    assert_eq!(holder.answers(), pieces, "one that is asked for so much never ends");
}
