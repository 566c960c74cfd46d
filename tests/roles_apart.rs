//! The core where each node has one role: who is told what, who counts, and who may be asked to
//! lead.

use paxos_ssh::paxos::ballot::{
    Ballot, ClusterId, ClusterTime, Incarnation, NodeId, ProposalNumber, ProposerId, Slot,
    VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::{Effects, Note, Offence, Rejection, Token};
use paxos_ssh::paxos::message::{DiskHealth, Entry, Message, Payload, Pledge, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use std::sync::Arc;

const TIMING: Timing = Timing { heartbeat: 5, election: 25, request: 12 };

/// Slots that may be open; small, so that a node which lags is far out of its reach.
const WINDOW: u32 = 4;

const P1: NodeId = NodeId(1);
const P2: NodeId = NodeId(2);
const A1: NodeId = NodeId(3);
const A2: NodeId = NodeId(4);
const A3: NodeId = NodeId(5);
const L1: NodeId = NodeId(6);
const CLIENT: NodeId = NodeId(7);

fn generation(id: NodeId) -> VoterGeneration {
    VoterGeneration(1000 + id.0)
}

fn roles(id: NodeId) -> Roles {
    Roles {
        proposer: [P1, P2].contains(&id).then(|| ProposerId::new(id.0).unwrap()),
        acceptor: [A1, A2, A3].contains(&id).then(|| generation(id)),
        learner: id == L1,
    }
}

struct Node {
    replica: Replica<u64>,
    effects: Effects<u64>,
}

impl Node {
    fn new(id: NodeId) -> Node {
        let member = |id: u64| {
            let (name, address, roles) = (format!("n{id}"), String::new(), roles(NodeId(id)));
            (NodeId(id), Member { name, address, roles })
        };
        let members = (1..=7).map(member).collect();
        let quorums = QuorumSystem::majority(3).unwrap();
        let configuration = Configuration::new(ConfigurationNumber(1), members, quorums).unwrap();
        let genesis = Genesis { cluster: ClusterId(1), configuration, window: WINDOW };
        let mut recovered = Recovered::default();
        recovered.replay(Record::Genesis { genesis, generation: roles(id).acceptor }).unwrap();
        let effects = Effects::new(recovered.end);
        let start = Start { id, incarnation: Incarnation(7), seed: 1, timing: TIMING, recovered };
        Node { replica: Replica::new(start).unwrap(), effects }
    }

    fn hear(&mut self, from: NodeId, message: impl Into<Message<u64>>) -> &mut Node {
        self.replica.step(from, message.into(), &mut self.effects);
        self.replica.persisted(self.effects.end(), &mut self.effects);
        self.replica.flush(&mut self.effects);
        self.replica.persisted(self.effects.end(), &mut self.effects);
        self
    }

    fn said(&mut self) -> Vec<(Vec<NodeId>, Statement<u64>)> {
        let said = self.effects.take_statements().into_iter();
        said.map(|outgoing| (outgoing.to, outgoing.statement)).collect()
    }

    fn tick(&mut self, times: u32) {
        (0..times).for_each(|_| self.replica.tick(&mut self.effects));
    }

    /// The first proposer leads, with the promises and votes of two acceptors.
    fn lead(&mut self) {
        self.replica.campaign(&mut self.effects);
        for acceptor in [A1, A2] {
            let (generation, floor) = (generation(acceptor), Slot(1));
            let (ballot, votes) = (ballot(1), Vec::new());
            let promise = Pledge::Promise { ballot, generation, floor, votes, part: 0, parts: 1 };
            self.hear(acceptor, promise);
        }
        for acceptor in [A1, A2] {
            self.hear(acceptor, accepted(acceptor, 1, 1));
        }
        assert_eq!(self.replica.status().leading, Some(ballot(1)));
        assert_eq!(self.replica.status().chosen, Slot(1));
    }
}

fn ballot(proposer: u64) -> Ballot {
    Ballot { number: ProposalNumber::from_raw(proposer), incarnation: Incarnation(7) }
}

fn entry(command: u64) -> Arc<Entry<u64>> {
    Arc::new(Entry { stamp: ClusterTime(1), payload: Payload::Command(command) })
}

fn accept(first: u64, commands: &[u64], chosen: u64) -> Statement<u64> {
    let (ballot, configuration) = (ballot(1), ConfigurationNumber(1));
    let entries = commands.iter().map(|command| entry(*command)).collect();
    Statement::Accept { ballot, configuration, first: Slot(first), entries, chosen: Slot(chosen) }
}

fn accepted(acceptor: NodeId, first: u64, last: u64) -> Pledge<u64> {
    let generation = generation(acceptor);
    Pledge::Accepted { ballot: ballot(1), generation, first: Slot(first), last: Slot(last) }
}

fn heartbeat(chosen: u64, configuration: u64) -> Statement<u64> {
    let configuration = ConfigurationNumber(configuration);
    Statement::Heartbeat { ballot: ballot(1), round: 1, chosen: Slot(chosen), configuration }
}

#[test]
fn an_acceptor_tells_the_proposer_and_the_learner_what_it_accepted() {
    let mut acceptor = Node::new(A1);
    acceptor.hear(P1, accept(1, &[10, 11], 0));
    let pledges = acceptor.effects.take_pledges();
    let told: Vec<_> = pledges.iter().map(|held| (held.to.clone(), held.pledge.clone())).collect();
    assert_eq!(told, [(vec![P1, L1], accepted(A1, 1, 2))]);
}

#[test]
fn a_leader_proposes_to_everybody_with_a_role_and_says_that_it_leads_to_all() {
    let mut leader = Node::new(P1);
    leader.lead();
    leader.said();
    leader.replica.propose(Token(1), 42, &mut leader.effects);
    leader.replica.flush(&mut leader.effects);
    let proposed: Vec<_> = leader
        .said()
        .into_iter()
        .filter(|(_, statement)| matches!(statement, Statement::Accept { .. }))
        .map(|(to, _)| to)
        .collect();
    assert_eq!(proposed, [vec![P2, A1, A2, A3, L1]], "a client holds no log");
    leader.tick(TIMING.heartbeat);
    let heartbeats = leader.said().into_iter().filter_map(|(to, statement)| {
        matches!(statement, Statement::Heartbeat { .. }).then_some(to)
    });
    assert_eq!(heartbeats.collect::<Vec<_>>(), [vec![P2, A1, A2, A3, L1, CLIENT]]);
}

#[test]
fn a_learner_counts_votes_without_the_leaders_word() {
    let mut learner = Node::new(L1);
    learner.hear(P1, accept(1, &[10, 11], 0));
    learner.hear(A1, accepted(A1, 1, 2));
    assert_eq!(learner.replica.status().chosen, Slot(0), "one vote is no quorum");
    learner.hear(A1, accepted(A1, 1, 2));
    assert_eq!(learner.replica.status().chosen, Slot(0), "one voter counts once");
    let (ballot, first, last) = (ballot(1), Slot(1), Slot(2));
    let of_another_life = Pledge::Accepted { ballot, generation: VoterGeneration(5), first, last };
    learner.hear(A2, of_another_life);
    assert_eq!(learner.replica.status().chosen, Slot(0), "a vote of a wiped log counts");
    let refused = Note::Refused(A2, Offence::StaleGeneration);
    assert!(learner.effects.take_notes().contains(&refused));
    learner.hear(A3, accepted(A3, 1, 1));
    assert_eq!(learner.replica.status().chosen, Slot(1));
    learner.hear(A2, accepted(A2, 2, 2));
    let chosen = learner.effects.take_chosen();
    assert_eq!(chosen, [(Slot(1), entry(10)), (Slot(2), entry(11))]);
}

#[test]
fn a_learner_that_missed_messages_fetches_them_all_from_whoever_voted() {
    let mut learner = Node::new(L1);
    for acceptor in [A1, A2] {
        learner.hear(acceptor, accepted(acceptor, 1, 1));
    }
    assert_eq!(learner.replica.status().chosen, Slot(0), "it never heard the proposal");
    learner.tick(TIMING.request);
    let fetch = (vec![A2], Statement::Fetch { first: Slot(1) });
    assert!(learner.said().contains(&fetch), "it asks nobody");
    // Far more than α slots at once, and at once all of them.
    let entries: Vec<_> = (1..=1000).map(entry).collect();
    let (chosen, floor) = (Slot(1000), Slot(1));
    learner.hear(A2, Statement::Fetched { first: Slot(1), entries, chosen, floor });
    assert_eq!(learner.replica.status().chosen, Slot(1000));
}

#[test]
fn a_client_follows_and_fetches_nothing_but_a_newer_configuration() {
    let mut client = Node::new(CLIENT);
    client.hear(P1, heartbeat(500, 1));
    client.tick(TIMING.heartbeat);
    assert_eq!(client.replica.status().leader, Some(P1));
    let fetches = |client: &mut Node| {
        client.said().iter().any(|(_, said)| matches!(said, Statement::Fetch { .. }))
    };
    assert!(!fetches(&mut client), "a client keeps no log");
    client.replica.propose(Token(1), 42, &mut client.effects);
    client.replica.flush(&mut client.effects);
    let forward = Statement::Forward { commands: vec![42], hops: 0 };
    assert!(client.said().contains(&(vec![P1], forward)));
    client.hear(P1, heartbeat(500, 2));
    client.tick(TIMING.heartbeat);
    assert!(fetches(&mut client), "it never learns who takes part");
}

#[test]
fn a_node_that_cannot_lead_looks_for_somebody_who_hears_the_leader() {
    for id in [A1, L1, CLIENT] {
        let mut node = Node::new(id);
        node.replica.propose(Token(1), 42, &mut node.effects);
        assert_eq!(node.effects.take_rejected(), [(Token(1), Rejection::NoLeader)]);
        node.tick(2 * TIMING.election);
        let inquiry = node.said().into_iter().find_map(|(_, statement)| match statement {
            Statement::Inquire { round } => Some(round),
            _ => None,
        });
        let round = inquiry.unwrap_or_else(|| panic!("{id} asks nobody"));
        let report = |hears| Statement::Report {
            round,
            generation: Some(generation(A2)),
            promised: ballot(1),
            hears,
            chosen: Slot(0),
        };
        node.hear(A2, report(Some(ballot(1))));
        node.replica.propose(Token(2), 43, &mut node.effects);
        node.replica.flush(&mut node.effects);
        let forward = Statement::Forward { commands: vec![43], hops: 0 };
        assert!(node.said().contains(&(vec![A2], forward)), "{id} does not use the relay");
        assert_eq!(node.replica.status().leading, None);
        let campaigns = |note: &Note| matches!(note, Note::Campaigning(_));
        assert!(!node.effects.take_notes().iter().any(campaigns), "{id} campaigns");
    }
}

#[test]
fn leadership_passes_to_a_proposer_that_has_no_vote() {
    let mut leader = Node::new(P1);
    leader.lead();
    assert_eq!(leader.replica.successor(), None, "nobody who could lead was heard");
    leader.tick(TIMING.heartbeat);
    let round = leader.said().into_iter().find_map(|(_, statement)| match statement {
        Statement::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    let ack = |generation| Statement::HeartbeatAck {
        ballot: ballot(1),
        round: round.expect("a leader says so"),
        generation,
        promised: Ballot::ZERO,
        hears: None,
        disk: DiskHealth::Healthy,
        chosen: Slot(1),
    };
    // An acceptor that lost its log does not become a follower by saying that it has no vote.
    leader.hear(A3, ack(None));
    leader.tick(TIMING.election - 2 * TIMING.heartbeat);
    leader.hear(P2, ack(None));
    assert_eq!(leader.replica.successor(), Some(P2));
    leader.said();
    assert!(leader.replica.hand_over(P2, &mut leader.effects));
    let asked = (vec![P2], Statement::HandOver { ballot: ballot(1) });
    assert!(leader.said().contains(&asked));
    // Its own followers are the acceptors that agreed, and nobody else keeps it in office.
    leader.tick(2 * TIMING.heartbeat);
    assert_eq!(leader.replica.status().leading, None, "P2 and A3 are no quorum");
}
