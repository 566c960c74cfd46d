//! The core alone, message by message: what it refuses, what it never does, and who leads in the
//! awkward cases.

use paxos_ssh::paxos::ballot::{
    Ballot, COUNTER_JUMP_MAX, ClusterId, ClusterTime, Incarnation, NodeId, ProposalNumber,
    ProposerId, Slot, VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::{Effects, Note, Offence, Rejection, Token};
use paxos_ssh::paxos::message::{DiskHealth, Entry, Message, Payload, Pledge, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{LogPosition, Record, Recovered};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use std::sync::Arc;

const TIMING: Timing = Timing { heartbeat: 5, election: 25, request: 12 };
const ME: NodeId = NodeId(1);

fn generation(id: NodeId) -> VoterGeneration {
    VoterGeneration(1000 + id.0)
}

fn genesis() -> Genesis {
    let member = |id: u64| {
        let roles = Roles {
            proposer: Some(ProposerId::new(id).unwrap()),
            acceptor: Some(generation(NodeId(id))),
            learner: true,
        };
        (NodeId(id), Member { name: format!("n{id}"), address: String::new(), roles })
    };
    let quorums = QuorumSystem::majority(3).unwrap();
    let configuration =
        Configuration::new(ConfigurationNumber(1), (1..=3).map(member).collect(), quorums);
    Genesis { cluster: ClusterId(1), configuration: configuration.unwrap(), window: 64 }
}

/// A node over a log that holds its genesis, and whose disk is always done at once.
struct Node {
    replica: Replica<u64>,
    effects: Effects<u64>,
}

impl Node {
    fn new() -> Node {
        let mut recovered = Recovered::default();
        let record = Record::Genesis { genesis: genesis(), generation: Some(generation(ME)) };
        recovered.replay(record).unwrap();
        let effects = Effects::new(recovered.end);
        let start =
            Start { id: ME, incarnation: Incarnation(7), seed: 1, timing: TIMING, recovered };
        Node { replica: Replica::new(start).unwrap(), effects }
    }

    fn hear(&mut self, from: u64, message: impl Into<Message<u64>>) -> &mut Node {
        self.replica.step(NodeId(from), message.into(), &mut self.effects);
        self
    }

    /// The disk catches up, and everything that gathered leaves.
    fn settle(&mut self) -> &mut Node {
        self.replica.persisted(self.effects.end(), &mut self.effects);
        self.replica.flush(&mut self.effects);
        self.replica.persisted(self.effects.end(), &mut self.effects);
        self
    }

    fn refusals(&mut self) -> Vec<Offence> {
        let notes = self.effects.take_notes().into_iter();
        notes.filter_map(|n| if let Note::Refused(_, why) = n { Some(why) } else { None }).collect()
    }

    /// Leads under its first ballot, with node 2's promise and vote.
    fn lead(&mut self) -> Ballot {
        self.replica.campaign(&mut self.effects);
        self.settle();
        let ballot = ballot(1, 1, 7);
        self.promise(2, ballot, 1).settle();
        self.accepted(2, ballot, 1, 1).settle();
        assert_eq!(self.replica.status().leading, Some(ballot));
        assert_eq!(self.replica.status().chosen, Slot(1), "the opening no-op is not chosen");
        ballot
    }

    fn promise(&mut self, from: u64, ballot: Ballot, floor: u64) -> &mut Node {
        let generation = generation(NodeId(from));
        let floor = Slot(floor);
        let promise =
            Pledge::Promise { ballot, generation, floor, votes: Vec::new(), part: 0, parts: 1 };
        self.hear(from, promise)
    }

    fn accepted(&mut self, from: u64, ballot: Ballot, first: u64, last: u64) -> &mut Node {
        let generation = generation(NodeId(from));
        let (first, last) = (Slot(first), Slot(last));
        self.hear(from, Pledge::Accepted { ballot, generation, first, last })
    }

    fn statements(&mut self) -> Vec<Statement<u64>> {
        self.effects.take_statements().into_iter().map(|outgoing| outgoing.statement).collect()
    }
}

/// The `counter`-th ballot of a proposer. The first number of proposer 1 is 1, with counter 0.
fn ballot(proposer: u64, counter: u64, incarnation: u64) -> Ballot {
    let number = ProposalNumber::from_raw((counter - 1) * 100 + proposer);
    Ballot { number, incarnation: Incarnation(incarnation) }
}

fn prepare(ballot: Ballot) -> Statement<u64> {
    Statement::Prepare { ballot, configuration: ConfigurationNumber(1), first: Slot(1) }
}

fn accept(ballot: Ballot, first: u64, commands: &[u64], chosen: u64) -> Statement<u64> {
    let entry = |command: &u64| {
        Arc::new(Entry { stamp: ClusterTime(1), payload: Payload::Command(*command) })
    };
    let configuration = ConfigurationNumber(1);
    let entries = commands.iter().map(entry).collect();
    Statement::Accept { ballot, configuration, first: Slot(first), entries, chosen: Slot(chosen) }
}

fn heartbeat(ballot: Ballot, round: u64) -> Statement<u64> {
    let configuration = ConfigurationNumber(1);
    Statement::Heartbeat { ballot, round, chosen: Slot(0), configuration }
}

#[test]
fn a_node_without_genesis_is_no_replica() {
    let recovered = Recovered::<u64>::default();
    let start = Start { id: ME, incarnation: Incarnation(7), seed: 1, timing: TIMING, recovered };
    assert!(Replica::new(start).is_none());
}

#[test]
fn what_a_peer_may_not_say_is_refused_and_changes_nothing() {
    let far = Ballot {
        number: ProposalNumber::from_raw((COUNTER_JUMP_MAX + 1) * 100 + 2),
        incarnation: Incarnation(9),
    };
    let own = ballot(2, 1, 9);
    let stale = VoterGeneration(1);
    let cases: Vec<(&str, u64, Message<u64>, Offence)> = vec![
        ("a stranger", 9, prepare(own).into(), Offence::Stranger),
        ("another's ballot", 3, prepare(own).into(), Offence::ForeignBallot),
        ("a ballot nobody owns", 2, prepare(ballot(77, 1, 9)).into(), Offence::ForeignBallot),
        ("ballot zero", 2, prepare(Ballot::ZERO).into(), Offence::ForeignBallot),
        ("a ballot out of reach", 2, prepare(far).into(), Offence::ImplausibleBallot),
        ("another's heartbeat", 3, heartbeat(own, 1).into(), Offence::ForeignBallot),
        ("an empty run", 2, accept(own, 1, &[], 0).into(), Offence::Malformed),
        ("slot 0", 2, accept(own, 0, &[1], 0).into(), Offence::Malformed),
        ("the last slot", 2, accept(own, u64::MAX, &[1], u64::MAX).into(), Offence::Malformed),
        ("a run that overflows", 2, accept(own, u64::MAX, &[1, 2], 0).into(), Offence::Malformed),
        ("a run beyond the window", 2, accept(own, 66, &[1], 1).into(), Offence::Malformed),
        (
            "a vote of another life",
            2,
            Pledge::Accepted { ballot: own, generation: stale, first: Slot(1), last: Slot(1) }
                .into(),
            Offence::StaleGeneration,
        ),
        (
            "votes that run backwards",
            2,
            Pledge::Accepted {
                ballot: own,
                generation: generation(NodeId(2)),
                first: Slot(2),
                last: Slot(1),
            }
            .into(),
            Offence::Malformed,
        ),
        (
            "a promise without parts",
            2,
            Pledge::Promise {
                ballot: own,
                generation: generation(NodeId(2)),
                floor: Slot(1),
                votes: Vec::new(),
                part: 0,
                parts: 0,
            }
            .into(),
            Offence::Malformed,
        ),
        ("a fetch from slot 0", 2, Statement::Fetch { first: Slot(0) }.into(), Offence::Malformed),
        (
            "entries beyond what is chosen",
            2,
            Statement::Fetched {
                first: Slot(1),
                entries: vec![Arc::new(Entry::noop())],
                chosen: Slot(0),
                floor: Slot(1),
                more: false,
            }
            .into(),
            Offence::Malformed,
        ),
    ];
    for (what, from, message, offence) in cases {
        let mut node = Node::new();
        let before = node.replica.status();
        node.hear(from, message);
        assert_eq!(node.refusals(), [offence], "{what}");
        assert_eq!(node.replica.status(), before, "{what} changed something");
        assert!(node.effects.take_records().is_empty(), "{what} was recorded");
        assert!(node.effects.take_pledges().is_empty(), "{what} was answered");
    }
}

#[test]
fn a_second_value_under_one_ballot_is_refused() {
    let mut node = Node::new();
    let theirs = ballot(2, 1, 9);
    node.hear(2, accept(theirs, 1, &[5], 0)).hear(2, accept(theirs, 1, &[6], 0));
    assert_eq!(node.refusals(), [Offence::Contradiction]);
}

#[test]
fn a_pledge_waits_for_its_record() {
    let mut node = Node::new();
    node.hear(2, prepare(ballot(2, 1, 9)));
    let records = node.effects.take_records();
    assert_eq!(records, [Record::Promised(ballot(2, 1, 9))]);
    let pledges = node.effects.take_pledges();
    assert_eq!(pledges.len(), 1);
    assert_eq!(pledges[0].after, LogPosition(2), "the promise could leave before its record");
    assert_eq!(node.effects.awaited(), LogPosition(2));
}

#[test]
fn the_leaders_own_vote_counts_only_once_durable() {
    let mut node = Node::new();
    let ballot = node.lead();
    node.replica.propose(Token(1), 42, &mut node.effects);
    node.replica.flush(&mut node.effects);
    node.accepted(2, ballot, 2, 2);
    assert_eq!(node.replica.status().chosen, Slot(1), "chosen by one durable vote of three");
    node.settle();
    assert_eq!(node.replica.status().chosen, Slot(2));
}

#[test]
fn votes_of_a_wiped_disk_do_not_choose() {
    let mut node = Node::new();
    let ballot = node.lead();
    node.replica.propose(Token(1), 42, &mut node.effects);
    node.settle();
    let (first, last) = (Slot(2), Slot(2));
    node.hear(2, Pledge::Accepted { ballot, generation: VoterGeneration(5), first, last }).settle();
    assert_eq!(node.replica.status().chosen, Slot(1));
}

#[test]
fn a_new_leader_takes_up_the_value_of_the_highest_ballot_and_fills_the_gap() {
    let mut node = Node::new();
    // Slot 2 was accepted here under an old ballot; node 2 knows a newer value for slot 2 and one
    // for 4.
    node.hear(2, accept(ballot(2, 1, 8), 2, &[30], 0)).settle();
    node.effects.take_statements();
    node.replica.campaign(&mut node.effects);
    node.settle();
    let mine = node.replica.status().ballot;
    let vote = |slot: u64, ballot: Ballot, command: u64| paxos_ssh::paxos::message::Vote {
        slot: Slot(slot),
        ballot,
        entry: Arc::new(Entry { stamp: ClusterTime(1), payload: Payload::Command(command) }),
    };
    let votes = vec![vote(2, ballot(3, 1, 8), 31), vote(4, ballot(2, 1, 8), 40)];
    let generation = generation(NodeId(2));
    let floor = Slot(1);
    node.effects.take_statements();
    node.hear(2, Pledge::Promise { ballot: mine, generation, floor, votes, part: 0, parts: 1 });
    node.settle();
    let proposed = node.statements().into_iter().find_map(|statement| match statement {
        Statement::Accept { first, entries, .. } => Some((first, entries)),
        _ => None,
    });
    let (first, entries) = proposed.expect("the new leader proposes");
    let payloads: Vec<_> = entries.iter().map(|entry| entry.payload.clone()).collect();
    assert_eq!(first, Slot(1));
    let wanted =
        [Payload::Noop, Payload::Command(31), Payload::Noop, Payload::Command(40), Payload::Noop];
    assert_eq!(payloads, wanted, "the last one is the leader's own no-op");
}

#[test]
fn a_promise_in_parts_counts_when_all_arrived_and_answers_are_not_mixed() {
    let mut node = Node::new();
    node.replica.campaign(&mut node.effects);
    node.settle();
    let mine = node.replica.status().ballot;
    let part = |floor: u64, part: u32, parts: u32| Pledge::Promise {
        ballot: mine,
        generation: generation(NodeId(2)),
        floor: Slot(floor),
        votes: Vec::new(),
        part,
        parts,
    };
    node.hear(2, part(1, 0, 3)).hear(2, part(1, 1, 3)).settle();
    assert_eq!(node.replica.status().leading, None, "a third of the promise is missing");
    // The acceptor answers again, in two parts now: part 1 of the first answer must not complete
    // it.
    node.hear(2, part(1, 0, 2)).settle();
    node.hear(2, part(1, 2, 3)).settle();
    assert!(node.replica.status().leading.is_some(), "the first answer is complete");
}

#[test]
fn a_candidate_below_the_floor_fetches_before_it_leads() {
    let mut node = Node::new();
    node.replica.campaign(&mut node.effects);
    node.settle();
    let mine = node.replica.status().ballot;
    node.effects.take_statements();
    node.promise(2, mine, 3).settle();
    assert_eq!(node.replica.status().leading, None, "leads without knowing slots 1 and 2");
    assert!(node.statements().contains(&Statement::Fetch { first: Slot(1) }));
    let entries = vec![Arc::new(Entry::noop()), Arc::new(Entry::noop())];
    let (chosen, floor) = (Slot(2), Slot(1));
    node.hear(2, Statement::Fetched { first: Slot(1), entries, chosen, floor, more: false })
        .settle();
    assert_eq!(node.replica.status().leading, Some(mine));
    assert_eq!(node.replica.status().chosen, Slot(2));
}

#[test]
fn a_proved_leader_goes_above_a_promise_to_a_dead_candidate() {
    let mut node = Node::new();
    let first = node.lead();
    let promised = ballot(3, 5, 8);
    let refused = Statement::Refused { ballot: first, promised, hears: None };
    node.hear(2, refused);
    assert_eq!(node.replica.status().leading, None);
    assert!(node.replica.status().ballot > promised, "the next ballot is not above the promise");
    let again = node.replica.status().ballot;
    node.settle().promise(2, again, 2).settle();
    assert_eq!(node.replica.status().leading, Some(again));
}

#[test]
fn a_fresh_leader_gives_way_to_a_rival() {
    let mut node = Node::new();
    node.replica.campaign(&mut node.effects);
    node.settle();
    let mine = node.replica.status().ballot;
    node.promise(2, mine, 1).settle();
    assert_eq!(node.replica.status().leading, Some(mine));
    node.hear(3, prepare(ballot(3, 2, 8)));
    assert_eq!(node.replica.status().leading, None, "two fresh leaders would outbid each other");
    assert!(!node.replica.status().campaigning);
}

#[test]
fn a_leader_without_a_quorum_steps_down_and_one_with_it_stays() {
    let mut node = Node::new();
    let ballot = node.lead();
    for tick in 0..200 {
        node.replica.tick(&mut node.effects);
        let round = 1 + tick / 5;
        let ack = Statement::HeartbeatAck {
            ballot,
            round,
            generation: Some(generation(NodeId(2))),
            promised: ballot,
            hears: None,
            disk: DiskHealth::Healthy,
            chosen: Slot(1),
        };
        node.hear(2, ack).settle();
        assert!(node.replica.status().leading.is_some(), "stepped down though node 2 follows");
    }
    for _ in 0..TIMING.election {
        node.replica.tick(&mut node.effects);
        node.settle();
    }
    assert_eq!(node.replica.status().leading, None);
}

#[test]
fn a_read_needs_a_round_that_began_after_it() {
    let mut node = Node::new();
    let ballot = node.lead();
    let ack = |round: u64, promised: Ballot| Statement::HeartbeatAck {
        ballot,
        round,
        generation: Some(generation(NodeId(2))),
        promised,
        hears: None,
        disk: DiskHealth::Healthy,
        chosen: Slot(1),
    };
    let rounds = |node: &mut Node| {
        let statements = node.statements().into_iter();
        statements
            .filter_map(
                |s| if let Statement::Heartbeat { round, .. } = s { Some(round) } else { None },
            )
            .max()
    };
    let before = rounds(&mut node).unwrap_or(1);
    node.replica.read(Token(9), &mut node.effects);
    node.settle();
    let round = rounds(&mut node).expect("a read starts a round");
    assert!(round > before);
    node.hear(2, ack(before, ballot));
    assert!(node.effects.take_reads().is_empty(), "an old round confirmed the read");
    node.hear(2, ack(round, ballot));
    let reads = node.effects.take_reads();
    assert_eq!((reads.len(), reads[0].token, reads[0].index), (1, Token(9), Slot(1)));
}

#[test]
fn no_leader_is_never_an_answer_but_a_reason_to_wait() {
    let mut node = Node::new();
    node.replica.propose(Token(4), 1, &mut node.effects);
    assert_eq!(node.effects.take_rejected(), [(Token(4), Rejection::NoLeader)]);
    node.hear(2, heartbeat(ballot(2, 1, 9), 1));
    node.replica.propose(Token(4), 1, &mut node.effects);
    node.replica.flush(&mut node.effects);
    assert!(node.effects.take_rejected().is_empty());
    assert!(node.statements().contains(&Statement::Forward { commands: vec![1], hops: 0 }));
}

#[test]
fn a_node_asks_before_it_campaigns_and_believes_those_who_hear_a_leader() {
    let mut node = Node::new();
    let mut round = None;
    for _ in 0..2 * TIMING.election {
        node.replica.tick(&mut node.effects);
        round = round.or(node.statements().into_iter().find_map(|statement| match statement {
            Statement::Inquire { round } => Some(round),
            _ => None,
        }));
        if round.is_some() {
            break;
        }
    }
    let round = round.expect("nobody leads, so the node asks");
    let report = |from: u64, hears: Option<Ballot>| Statement::Report {
        round,
        generation: Some(generation(NodeId(from))),
        promised: Ballot::ZERO,
        hears,
        chosen: Slot(0),
    };
    node.hear(2, report(2, Some(ballot(3, 1, 8))));
    assert!(node.replica.status().leader.is_none());
    let campaigning = |node: &mut Node| {
        node.effects.take_notes().iter().any(|note| matches!(note, Note::Campaigning(_)))
    };
    assert!(!campaigning(&mut node), "campaigned though node 2 hears a leader");
    node.hear(3, report(3, None));
    assert!(campaigning(&mut node), "two of three miss a leader");
}

/// In the words of the prototype: leaders gone, proposers restarted, and a request issued first.
#[test]
fn nobody_needs_to_be_leader_to_become_leader() {
    let mut node = Node::new();
    node.replica.campaign(&mut node.effects);
    node.settle();
    let mine = node.replica.status().ballot;
    node.promise(3, mine, 1).settle();
    assert_eq!(node.replica.status().leading, Some(mine));
}
