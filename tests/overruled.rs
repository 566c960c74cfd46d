//! A leader that was overruled misleads nobody.
//!
//! Five nodes; messages are delayed and dropped, none is invented. The old leader's proposal lies
//! with one acceptor, the new leader has something else chosen in that slot, and the old one hears
//! of it by a roundabout way without hearing of the new leader. What it then says is chosen must
//! not be taken for a word about its own proposal.

use paxos_ssh::paxos::ballot::{ClusterId, Incarnation, NodeId, ProposerId, Slot, VoterGeneration};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::{Effects, Token};
use paxos_ssh::paxos::message::{Entry, Message, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use std::collections::BTreeMap;
use std::sync::Arc;

const NODES: u64 = 5;

/// Far more deliveries than the scenario has.
const DELIVERIES_MAX: usize = 10_000;

const TIMING: Timing = Timing { heartbeat: 5, election: 25, request: 12 };

/// A replica over a perfect disk: all that it appends is durable at once.
struct Node {
    replica: Replica<u64>,
    effects: Effects<u64>,
    chosen: BTreeMap<Slot, Arc<Entry<u64>>>,
}

struct Cluster {
    nodes: BTreeMap<u64, Node>,
    wire: Vec<(u64, u64, Message<u64>)>,
}

fn genesis() -> Genesis {
    let member = |id| Member {
        name: format!("node{id}"),
        address: String::new(),
        roles: Roles {
            proposer: Some(ProposerId::new(id).expect("small")),
            acceptor: Some(VoterGeneration(id)),
            learner: true,
        },
    };
    let members = (1..=NODES).map(|id| (NodeId(id), member(id))).collect();
    let quorums = QuorumSystem::majority(5).expect("five acceptors");
    let configuration = Configuration::new(ConfigurationNumber(1), members, quorums);
    Genesis { cluster: ClusterId(1), window: 64, configuration: configuration.expect("sound") }
}

impl Cluster {
    fn new() -> Cluster {
        let node = |id| {
            let mut recovered = Recovered::default();
            let generation = Some(VoterGeneration(id));
            let first = Record::Genesis { genesis: genesis(), generation };
            recovered.replay(first).expect("a log starts with its genesis");
            let effects = Effects::new(recovered.end);
            let start = Start {
                id: NodeId(id),
                incarnation: Incarnation(id),
                seed: id,
                timing: TIMING,
                recovered,
            };
            let replica = Replica::new(start).expect("there is a genesis");
            (id, Node { replica, effects, chosen: BTreeMap::new() })
        };
        Cluster { nodes: (1..=NODES).map(node).collect(), wire: Vec::new() }
    }

    /// Has one node do something, and carries out what comes of it.
    fn with(&mut self, id: u64, act: impl FnOnce(&mut Replica<u64>, &mut Effects<u64>)) {
        let node = self.nodes.get_mut(&id).expect("a member");
        act(&mut node.replica, &mut node.effects);
        loop {
            let appended = node.effects.take_records().len();
            for outgoing in node.effects.take_statements() {
                for to in outgoing.to {
                    self.wire.push((id, to.0, outgoing.statement.clone().into()));
                }
            }
            for held in node.effects.take_pledges() {
                for to in held.to {
                    self.wire.push((id, to.0, held.pledge.clone().into()));
                }
            }
            node.chosen.extend(node.effects.take_chosen());
            if appended == 0 {
                return;
            }
            let end = node.effects.end();
            node.replica.persisted(end, &mut node.effects);
        }
    }

    /// Delivers what passes until nothing does; the rest stays under way.
    fn deliver(&mut self, passes: impl Fn(u64, u64, &Message<u64>) -> bool) {
        for _ in 0..DELIVERIES_MAX {
            let found = self.wire.iter().position(|(from, to, m)| passes(*from, *to, m));
            let Some(at) = found else { return };
            let (from, to, message) = self.wire.remove(at);
            self.with(to, |replica, effects| replica.step(NodeId(from), message, effects));
            for id in 1..=NODES {
                self.with(id, Replica::flush);
            }
        }
        panic!("the nodes never fall silent");
    }

    fn propose(&mut self, id: u64, command: u64) {
        self.with(id, |replica, effects| replica.propose(Token(command), command, effects));
        self.with(id, Replica::flush);
    }
}

fn is(message: &Message<u64>, kind: fn(&Statement<u64>) -> bool) -> bool {
    matches!(message, Message::Statement(statement) if kind(statement))
}

#[test]
fn a_leader_that_was_overruled_misleads_nobody() {
    let mut cluster = Cluster::new();

    // n1 once asked whether it should campaign; its question to n3 is still under way.
    let question = |(_, to, m): &(u64, u64, Message<u64>)| {
        *to == 3 && is(m, |s| matches!(s, Statement::Inquire { .. }))
    };
    while !cluster.wire.iter().any(question) {
        cluster.with(1, Replica::tick);
    }
    let at = cluster.wire.iter().position(question).expect("it was asked");
    let (_, _, late) = cluster.wire.remove(at);
    cluster.wire.clear();

    // n1 leads all five.
    cluster.with(1, Replica::campaign);
    cluster.deliver(|_, _, _| true);
    assert!(cluster.nodes[&1].replica.is_leading());
    let contested = cluster.nodes[&1].replica.status().chosen.next();

    // Its next proposal reaches n4 and nobody else.
    cluster.propose(1, 111);
    cluster.deliver(|from, to, m| {
        (from, to) == (1, 4) && is(m, |s| matches!(s, Statement::Accept { .. }))
    });
    cluster.wire.clear();

    // n2 leads n3 and n5, fills that slot with its opening, and goes on.
    let others = [2, 3, 5];
    let among_others = |from, to, _: &_| others.contains(&from) && others.contains(&to);
    cluster.with(2, Replica::campaign);
    cluster.deliver(among_others);
    cluster.propose(2, 222);
    cluster.deliver(among_others);
    assert!(cluster.nodes[&2].chosen.contains_key(&contested));
    cluster.wire.clear();

    // The late question arrives. From the answer n1 knows that more is chosen, and fetches it from
    // n3.
    cluster.with(3, |replica, effects| replica.step(NodeId(1), late, effects));
    for _ in 0..4 {
        cluster.deliver(|from, to, m| {
            [(1, 3), (3, 1)].contains(&(from, to))
                && is(m, |s| {
                    matches!(
                        s,
                        Statement::Report { .. }
                            | Statement::Fetch { .. }
                            | Statement::Fetched { .. }
                    )
                })
        });
        cluster.with(1, Replica::tick);
    }
    assert!(cluster.nodes[&1].chosen.contains_key(&contested), "n1 did not catch up");

    // Whatever n1 has to say reaches n4, which holds n1's own proposal for the slot.
    cluster.deliver(|from, to, _| (from, to) == (1, 4));

    for (id, node) in &cluster.nodes {
        for (slot, entry) in &node.chosen {
            for other in cluster.nodes.values() {
                let theirs = other.chosen.get(slot).unwrap_or(entry);
                assert_eq!(theirs, entry, "slot {slot} on n{id} is not what it is elsewhere");
            }
        }
    }
}
