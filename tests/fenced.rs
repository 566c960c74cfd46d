//! An acceptor that forgot what it pledged votes no more, and what it had given its own node by
//! then counts no more either: neither its promise to a candidate nor its votes.

use paxos_ssh::paxos::ballot::{
    Ballot, ClusterId, Incarnation, NodeId, ProposalNumber, ProposerId, Slot, VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::{Effects, Note, Offence, StepDown};
use paxos_ssh::paxos::message::Pledge;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use paxos_ssh::paxos::witness::Witnessed;

const TIMING: Timing = Timing { heartbeat: 5, election: 25, request: 12 };

const ME: NodeId = NodeId(1);
const WITNESS: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const CLIENT: NodeId = NodeId(4);

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
    let members = (1..=4).map(|id| (NodeId(id), member(id))).collect();
    let quorums = QuorumSystem::majority(3).expect("three acceptors");
    let configuration = Configuration::new(ConfigurationNumber(1), members, quorums);
    Genesis { cluster: ClusterId(1), window: 64, configuration: configuration.expect("sound") }
}

/// A node over a perfect disk, and all that it wrote.
struct Node {
    replica: Replica<u64>,
    effects: Effects<u64>,
    log: Vec<Record<u64>>,
}

impl Node {
    fn new() -> Node {
        let generation = Some(VoterGeneration(ME.0));
        let log = vec![Record::Genesis { genesis: genesis(), generation }];
        let (replica, effects) = start(&log);
        Node { replica, effects, log }
    }

    /// Everything that was appended is durable.
    fn persist(&mut self) {
        self.log.extend(self.effects.take_records());
        self.replica.persisted(self.effects.end(), &mut self.effects);
        self.log.extend(self.effects.take_records());
    }

    /// Its own promise is durable and counts; another's is missing.
    fn campaign(&mut self) -> Ballot {
        self.replica.campaign(&mut self.effects);
        self.persist();
        let notes = self.effects.take_notes();
        let campaigning = |note: &Note| match note {
            Note::Campaigning(ballot) => Some(*ballot),
            _ => None,
        };
        notes.iter().find_map(campaigning).expect("it campaigns")
    }

    fn is_promised(&mut self, ballot: Ballot) {
        let generation = VoterGeneration(OTHER.0);
        let (floor, votes, part, parts) = (Slot(1), Vec::new(), 0, 1);
        let promise = Pledge::Promise { ballot, generation, floor, votes, part, parts };
        self.replica.step(OTHER, promise.into(), &mut self.effects);
    }

    fn is_told_by(&mut self, by: NodeId, number: u64) {
        let number = ProposalNumber::from_raw(number);
        let ballot = Ballot { number, incarnation: Incarnation(9) };
        let seen = Witnessed { generation: VoterGeneration(ME.0), ballot, last: Slot(199) };
        self.replica.fence(by, seen, &mut self.effects);
    }
}

fn start(log: &[Record<u64>]) -> (Replica<u64>, Effects<u64>) {
    let mut recovered = Recovered::default();
    for record in log {
        recovered.replay(record.clone()).expect("they follow from each other");
    }
    let effects = Effects::new(recovered.end);
    let start = Start { id: ME, incarnation: Incarnation(1), seed: 1, timing: TIMING, recovered };
    (Replica::new(start).expect("there is a genesis"), effects)
}

#[test]
fn a_campaign_that_may_rest_on_its_promise_ends() {
    let mut node = Node::new();
    let ballot = node.campaign();
    node.is_promised(ballot);
    assert_eq!(node.replica.status().leading, Some(ballot), "two of three promised");

    let mut node = Node::new();
    let ballot = node.campaign();
    node.is_told_by(WITNESS, 102);
    node.is_promised(ballot);
    let status = node.replica.status();
    assert!(status.fenced && status.leading.is_none() && !status.campaigning, "{status:?}");
}

#[test]
fn a_leader_steps_down_and_its_own_votes_no_longer_count() {
    let lead = || {
        let mut node = Node::new();
        let ballot = node.campaign();
        node.is_promised(ballot);
        node.replica.flush(&mut node.effects);
        node.persist();
        let generation = VoterGeneration(OTHER.0);
        let accepted = Pledge::Accepted { ballot, generation, first: Slot(1), last: Slot(1) };
        (node, ballot, accepted)
    };
    let (mut node, _, accepted) = lead();
    node.replica.step(OTHER, accepted.into(), &mut node.effects);
    assert_eq!(node.replica.status().chosen, Slot(1), "two of three voted");

    let (mut node, ballot, accepted) = lead();
    node.is_told_by(WITNESS, 102);
    assert!(node.effects.take_notes().contains(&Note::SteppedDown(ballot, StepDown::Fenced)));
    node.replica.step(OTHER, accepted.into(), &mut node.effects);
    assert_eq!(node.replica.status().chosen, Slot(0));
}

#[test]
fn a_fence_outlives_the_process() {
    let mut node = Node::new();
    node.campaign();
    node.is_told_by(WITNESS, 102);
    node.persist();
    assert_eq!(node.log.last(), Some(&Record::Fenced));
    let (replica, _) = start(&node.log);
    assert!(replica.status().fenced);
}

#[test]
fn nobody_is_believed_who_can_have_seen_nothing_or_says_what_cannot_be() {
    let mut node = Node::new();
    node.is_told_by(CLIENT, 102);
    node.is_told_by(NodeId(7), 102);
    node.is_told_by(WITNESS, u64::MAX);
    assert!(!node.replica.status().fenced);
    let refused = |from, offence| Note::Refused(from, offence);
    let expected = [
        refused(CLIENT, Offence::Stranger),
        refused(NodeId(7), Offence::Stranger),
        refused(WITNESS, Offence::ImplausibleBallot),
    ];
    assert_eq!(node.effects.take_notes(), expected);
    assert_eq!(node.effects.take_records(), []);
}
