//! The core where each node has one role: who is told what, who counts, and who may be asked to
//! lead.

use bytes::Bytes;
use paxos_ssh::paxos::ballot::{
    Ballot, ClusterId, ClusterTime, Incarnation, NodeId, ProposalNumber, ProposerId, Slot,
    VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::{Effects, Note, Offence, Rejection, Token};
use paxos_ssh::paxos::handover::Stays;
use paxos_ssh::paxos::message::{
    DiskHealth, Entry, Message, Payload, Pledge, Statement, Value, Vote,
};
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

fn configuration(number: u64, quorums: QuorumSystem) -> Configuration {
    let member = |id: u64| {
        let (name, address, roles) = (format!("n{id}"), String::new(), roles(NodeId(id)));
        (NodeId(id), Member { name, address, roles })
    };
    let members = (1..=7).map(member).collect();
    Configuration::new(ConfigurationNumber(number), members, quorums).unwrap()
}

struct Node<V = u64> {
    replica: Replica<V>,
    effects: Effects<V>,
}

impl Node {
    fn new(id: NodeId) -> Node {
        Node::with(id, QuorumSystem::majority(3).unwrap())
    }
}

impl<V: Value> Node<V> {
    fn with(id: NodeId, quorums: QuorumSystem) -> Node<V> {
        let configuration = configuration(1, quorums);
        let genesis = Genesis { cluster: ClusterId(1), configuration, window: WINDOW };
        let mut recovered = Recovered::default();
        recovered.replay(Record::Genesis { genesis, generation: roles(id).acceptor }).unwrap();
        let effects = Effects::new(recovered.end);
        let start = Start { id, incarnation: Incarnation(7), seed: 1, timing: TIMING, recovered };
        Node { replica: Replica::new(start).unwrap(), effects }
    }

    fn hear(&mut self, from: NodeId, message: impl Into<Message<V>>) -> &mut Node<V> {
        self.replica.step(from, message.into(), &mut self.effects);
        self.replica.persisted(self.effects.end(), &mut self.effects);
        self.replica.flush(&mut self.effects);
        self.replica.persisted(self.effects.end(), &mut self.effects);
        self
    }

    fn said(&mut self) -> Vec<(Vec<NodeId>, Statement<V>)> {
        let said = self.effects.take_statements().into_iter();
        said.map(|outgoing| (outgoing.to, outgoing.statement)).collect()
    }

    fn tick(&mut self, times: u32) {
        (0..times).for_each(|_| self.replica.tick(&mut self.effects));
    }

    /// The first proposer leads, with the promises and votes of these acceptors.
    fn lead_with(&mut self, acceptors: &[NodeId]) {
        self.replica.campaign(&mut self.effects);
        for acceptor in acceptors.iter().copied() {
            let (generation, floor) = (generation(acceptor), Slot(1));
            let (ballot, votes) = (ballot(1), Vec::new());
            let promise = Pledge::Promise { ballot, generation, floor, votes, part: 0, parts: 1 };
            self.hear(acceptor, promise);
        }
        for acceptor in acceptors.iter().copied() {
            self.hear(acceptor, accepted(acceptor, 1, 1));
        }
        assert_eq!(self.replica.status().leading, Some(ballot(1)));
        assert_eq!(self.replica.status().chosen, Slot(1));
    }

    fn lead(&mut self) {
        self.lead_with(&[A1, A2]);
    }

    /// The round of the newest heartbeat among what it said, which is taken.
    fn round(&mut self) -> u64 {
        let rounds = self.said().into_iter().filter_map(|(_, statement)| match statement {
            Statement::Heartbeat { round, .. } => Some(round),
            _ => None,
        });
        rounds.last().expect("a leader says that it leads")
    }
}

/// The answer to a heartbeat of the first proposer's first ballot.
fn ack<V>(voter: Option<NodeId>, round: u64, promised: Ballot) -> Statement<V> {
    let generation = voter.map(generation);
    let (ballot, disk, chosen) = (ballot(1), DiskHealth::Healthy, Slot(1));
    Statement::HeartbeatAck { ballot, round, generation, promised, hears: None, disk, chosen }
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

fn accepted<V>(acceptor: NodeId, first: u64, last: u64) -> Pledge<V> {
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
    learner.hear(A2, Statement::Fetched { first: Slot(1), entries, chosen, floor, more: false });
    assert_eq!(learner.replica.status().chosen, Slot(1000));
}

#[test]
fn a_learner_counts_votes_that_came_before_the_proposal() {
    let mut learner = Node::new(L1);
    learner.hear(A1, accepted(A1, 1, 1)).hear(A2, accepted(A2, 1, 1));
    learner.hear(P1, accept(1, &[10], 0));
    assert_eq!(learner.effects.take_chosen(), [(Slot(1), entry(10))]);
}

#[test]
fn votes_are_counted_by_no_configuration_that_may_be_over() {
    let mut learner = Node::with(L1, QuorumSystem::flexible(3, 3, 1).unwrap());
    let far = 2 + u64::from(WINDOW);
    learner.hear(P1, accept(far, &[60], 2)).hear(A1, accepted(A1, far, far));
    // From slot 5 on two votes are a quorum, and one was before.
    let payload = Payload::Configuration(configuration(2, QuorumSystem::majority(3).unwrap()));
    let mut entries = vec![Arc::new(Entry { payload, ..Entry::noop() })];
    entries.extend((2..far).map(entry));
    let (chosen, floor) = (Slot(far - 1), Slot(1));
    learner.hear(A2, Statement::Fetched { first: Slot(1), entries, chosen, floor, more: false });
    assert_eq!(learner.replica.status().chosen, Slot(far - 1), "one vote is no quorum there");
    learner.hear(A3, accepted(A3, far, far));
    assert_eq!(learner.replica.status().chosen, Slot(far));
}

#[test]
fn votes_under_a_ballot_out_of_reach_displace_no_others() {
    let mut learner = Node::new(L1);
    learner.hear(P1, accept(1, &[10], 0)).hear(A1, accepted(A1, 1, 1));
    let far = ballot(u64::MAX);
    let (generation, first, last) = (generation(A2), Slot(1), Slot(1));
    learner.hear(A2, Pledge::Accepted { ballot: far, generation, first, last });
    let refused = Note::Refused(A2, Offence::ImplausibleBallot);
    assert!(learner.effects.take_notes().contains(&refused));
    learner.hear(A3, accepted(A3, 1, 1));
    assert_eq!(learner.effects.take_chosen(), [(Slot(1), entry(10))]);
}

#[test]
fn a_vote_that_was_never_cast_makes_no_leader_fill_an_endless_gap() {
    let mut leader = Node::new(P1);
    leader.replica.campaign(&mut leader.effects);
    let promise = |acceptor, slots: &[u64]| {
        let vote = |slot: &u64| Vote { slot: Slot(*slot), ballot: ballot(0), entry: entry(*slot) };
        let (ballot, generation, votes) = (ballot(1), generation(acceptor), slots.iter().map(vote));
        let (votes, floor) = (votes.collect(), Slot(1));
        Pledge::Promise { ballot, generation, floor, votes, part: 0, parts: 1 }
    };
    leader.hear(A1, promise(A1, &[3, 1 << 60]));
    leader.hear(A2, promise(A2, &[6]));
    let proposed: Vec<_> = leader
        .said()
        .into_iter()
        .filter_map(|(_, statement)| match statement {
            Statement::Accept { first, entries, .. } => Some((first, entries)),
            _ => None,
        })
        .collect();
    let noop = || Arc::new(Entry::noop());
    let all = vec![noop(), noop(), entry(3), noop()];
    assert_eq!(proposed, [(Slot(1), all)], "α slots at once, and what was found");
    assert!(leader.effects.take_notes().contains(&Note::Refused(A1, Offence::Malformed)));
    assert_eq!(leader.replica.status().leading, Some(ballot(1)));
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
    let round = leader.round();
    // An acceptor that lost its log does not become a follower by saying that it has no vote.
    leader.hear(A3, ack(None, round, Ballot::ZERO));
    leader.tick(TIMING.election - 2 * TIMING.heartbeat);
    leader.hear(P2, ack(None, round, Ballot::ZERO));
    assert_eq!(leader.replica.successor(), Some(P2));
    leader.said();
    assert_eq!(leader.replica.hand_over(P2, &mut leader.effects), Ok(()));
    let asked = (vec![P2], Statement::HandOver { ballot: ballot(1) });
    let said = leader.said();
    assert!(!said.contains(&asked), "nobody answered yet");
    let round = said.iter().find_map(|(_, said)| match said {
        Statement::Heartbeat { round, .. } => Some(*round),
        _ => None,
    });
    for acceptor in [A1, A3] {
        let round = round.expect("it asks who is there");
        leader.hear(acceptor, ack(Some(acceptor), round, Ballot::ZERO));
    }
    assert!(leader.said().contains(&asked));
    // Its own followers are the acceptors that agreed, and nobody else keeps it in office.
    for _ in 1..TIMING.election / TIMING.heartbeat {
        leader.tick(TIMING.heartbeat);
        let round = leader.round();
        leader.hear(P2, ack(None, round, Ballot::ZERO));
        leader.hear(A3, ack(Some(A3), round, Ballot::ZERO));
    }
    leader.tick(2 * TIMING.heartbeat);
    assert_eq!(leader.replica.status().leading, None, "P2 and A3 are no quorum");
}

/// With a phase-1 quorum of all three and a phase-2 quorum of one, a leader serves with one
/// acceptor left, and nobody could take its place.
#[test]
fn a_leader_that_nobody_could_replace_stays() {
    let mut leader: Node = Node::with(P1, QuorumSystem::flexible(3, 3, 1).unwrap());
    leader.lead_with(&[A1, A2, A3]);
    // A1 and P2 follow; A2 and A3 fall silent.
    for _ in 0..2 * TIMING.election / TIMING.heartbeat {
        leader.tick(TIMING.heartbeat);
        let round = leader.round();
        leader.hear(A1, ack(Some(A1), round, Ballot::ZERO));
        leader.hear(P2, ack(None, round, Ballot::ZERO));
    }
    let stays = Err(Stays::Unelectable { heard: 1, needed: 3 });
    assert_eq!(leader.replica.hand_over(P2, &mut leader.effects), stays);
    assert_eq!(leader.replica.ask_hand_over(None, &mut leader.effects), stays);
    leader.hear(P2, Statement::AskHandOver { to: None });
    let asks = |(_, said): &(_, _)| matches!(said, Statement::HandOver { .. });
    assert!(!leader.said().iter().any(asks), "it gives up what nobody can take");

    // A2 is back, and has promised a candidate that died. It is one too few for a phase 1.
    leader.tick(TIMING.heartbeat);
    let round = leader.round();
    leader.hear(A1, ack(Some(A1), round, Ballot::ZERO));
    leader.hear(A2, ack(Some(A2), round, ballot(202)));
    assert_eq!(leader.replica.status().leading, Some(ballot(1)), "A1 is quorum enough");
    // With A3 it can go above that promise, and does.
    leader.hear(A3, ack(Some(A3), round, Ballot::ZERO));
    leader.hear(A2, ack(Some(A2), round, ballot(202)));
    assert!(leader.replica.status().campaigning);
}

/// The acceptors die a moment before the leader is asked to hand over, and still count as heard.
#[test]
fn a_hand_over_waits_for_answers_of_those_who_elect() {
    let mut leader: Node = Node::with(P1, QuorumSystem::flexible(3, 3, 1).unwrap());
    leader.lead_with(&[A1, A2, A3]);
    let asks = |said: &[(Vec<NodeId>, Statement<u64>)]| {
        said.iter().any(|(_, said)| matches!(said, Statement::HandOver { .. }))
    };
    leader.tick(TIMING.heartbeat);
    let round = leader.round();
    for acceptor in [A1, A2, A3] {
        leader.hear(acceptor, ack(Some(acceptor), round, Ballot::ZERO));
    }
    leader.hear(P2, ack(None, round, Ballot::ZERO));
    assert_eq!(leader.replica.hand_over(P2, &mut leader.effects), Ok(()));
    for _ in 0..TIMING.election / TIMING.heartbeat {
        leader.tick(TIMING.heartbeat);
        let said = leader.said();
        assert!(!asks(&said), "it gives up what nobody can take");
        let rounds = said.iter().filter_map(|(_, said)| match said {
            Statement::Heartbeat { round, .. } => Some(*round),
            _ => None,
        });
        leader.hear(A1, ack(Some(A1), rounds.max().unwrap(), Ballot::ZERO));
        assert!(!asks(&leader.said()), "one of three answered");
    }
    assert_eq!(leader.replica.status().leading, Some(ballot(1)));

    // Evidence of their deaths is believed at once.
    let mut leader: Node = Node::with(P1, QuorumSystem::flexible(3, 3, 1).unwrap());
    leader.lead_with(&[A1, A2, A3]);
    leader.tick(TIMING.heartbeat);
    let round = leader.round();
    leader.hear(P2, ack(None, round, Ballot::ZERO));
    leader.replica.suspect(A2, &mut leader.effects);
    leader.replica.suspect(A3, &mut leader.effects);
    let stays = Err(Stays::Unelectable { heard: 1, needed: 3 });
    assert_eq!(leader.replica.hand_over(P2, &mut leader.effects), stays);
}

#[test]
fn a_read_that_came_through_another_node_is_answered_through_it() {
    let mut leader = Node::new(P1);
    leader.lead();
    leader.said();
    let (origin, token) = (CLIENT, 9);
    leader.hear(A1, Statement::ReadIndexRequest { origin, token, hops: 1 });
    let round = leader.round();
    for acceptor in [A1, A2] {
        leader.hear(acceptor, ack(Some(acceptor), round, Ballot::ZERO));
    }
    let answer = Statement::ReadIndex { origin, token, index: Slot(1) };
    assert!(leader.said().contains(&(vec![A1], answer.clone())), "the client may not be reached");

    let mut relay = Node::new(A1);
    relay.hear(P1, answer.clone());
    assert_eq!(relay.said(), [(vec![CLIENT], answer)]);
}

/// Twenty values of 300 KB: more than a frame may hold if they went together.
#[test]
fn commands_for_the_leader_travel_in_messages_of_a_bounded_size() {
    const COMMAND_BYTES: usize = 300_000;
    const MESSAGE_BYTES_MAX: usize = 1 << 20;
    let mut client: Node<Bytes> = Node::with(CLIENT, QuorumSystem::majority(3).unwrap());
    let (ballot, configuration) = (ballot(1), ConfigurationNumber(1));
    let heartbeat = Statement::Heartbeat { ballot, round: 1, chosen: Slot(0), configuration };
    client.hear(P1, heartbeat);
    client.said();
    let commands: Vec<Bytes> = (0..20).map(|n| Bytes::from(vec![n; COMMAND_BYTES])).collect();
    for (token, command) in (0..).zip(&commands) {
        client.replica.propose(Token(token), command.clone(), &mut client.effects);
    }
    client.replica.flush(&mut client.effects);
    let mut arrived = Vec::new();
    for (to, statement) in client.said() {
        let Statement::Forward { commands, hops: 0 } = statement else { panic!("{statement:?}") };
        assert_eq!(to, [P1]);
        assert!(commands.iter().map(Bytes::len).sum::<usize>() <= MESSAGE_BYTES_MAX);
        arrived.extend(commands);
    }
    assert_eq!(arrived, commands);
}
