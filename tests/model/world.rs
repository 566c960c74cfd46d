//! Everything that can happen to a few nodes within some bounds, as a model for the checker.
//!
//! The network is the set of all messages ever sent. Any of them may be delivered at any time, any
//! number of times, or never: that is loss, delay, duplication and reordering in one. Disks sync
//! when they like, and processes crash when they like, with as many of their unsynced records
//! surviving as they like.
//!
//! What this leaves out: ticks (a campaign is an action of its own, at any time), hence resending,
//! which duplication covers; heartbeats, which are always lost, and reads, which need them;
//! reconfiguration. A message about slots or ballots beyond the bounds is lost as well.

use super::atlas::{Atlas, Cause, EnvelopeNumber, Moves, NodeNumber};
use super::laws::{self, Seen};
use super::node::{Envelope, Fault, Node};
use super::roles::{ACCEPTORS, Layout, PROPOSERS};
use super::turn::{Ground, Move, Turn};
use super::votes::Votes;
use paxos_ssh::paxos::ballot::{Ballot, NodeId, Slot};
use paxos_ssh::paxos::configuration::Genesis;
use paxos_ssh::paxos::message::{Message, Pledge, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use stateright::{Model, Property};
use std::sync::Arc;

/// A wrong core may add to its log whenever it hears the same again, and have no end of states.
/// What comes after so many records is left out then. A sound one has an end, and no such limit.
const RECORDS_MAX: usize = 10;

/// How far a run goes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub layout: Layout,
    /// Votes that phase 1 and phase 2 take.
    pub quorums: (u16, u16),
    /// Campaigns that each proposer may start.
    pub campaigns: [u8; PROPOSERS as usize],
    /// Proposal numbers have a counter up to this one.
    pub counter: u64,
    /// Crashes of acceptors, and of proposers that do not vote.
    pub crashes: (u8, u8),
    /// Messages about later slots are lost.
    pub slots: u64,
    /// Values are proposed at any time after the campaign, so that slots fill one by one; otherwise
    /// with the campaign, and travel in one run with what it found.
    pub late: bool,
    /// Whether votes reach learners. Otherwise nobody finds out what is chosen, though it is.
    pub learning: bool,
    /// Whether proposers hear that acceptors promised more; otherwise such answers are lost.
    pub refusals: bool,
}

/// What was used up of the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Spent {
    campaigns: [u8; PROPOSERS as usize],
    proposals: [u8; PROPOSERS as usize],
    crashes: (u8, u8),
}

/// The nodes, what was ever said, and what is left of the bounds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    nodes: Vec<NodeNumber>,
    /// In rising order.
    sent: Vec<EnvelopeNumber>,
    spent: Spent,
    seen: Seen,
    fault: Option<Box<Fault>>,
}

impl World {
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_deref()
    }

    pub fn seen(&self) -> Seen {
        self.seen
    }

    pub fn has_crashed(&self) -> bool {
        self.spent.crashes.0 > 0
    }
}

/// One node and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    node: usize,
    made: Arc<Move>,
}

/// See the module's documentation.
pub struct Cluster {
    bounds: Bounds,
    genesis: Genesis,
    atlas: Atlas,
}

impl Cluster {
    pub fn new(bounds: Bounds) -> Cluster {
        let (phase1, phase2) = bounds.quorums;
        let quorums = QuorumSystem::flexible(ACCEPTORS as u16, phase1, phase2);
        let window = u32::try_from(bounds.slots).expect("few slots");
        let genesis = bounds.layout.genesis(quorums.expect("quorums that intersect"), window);
        Cluster { bounds, genesis, atlas: Atlas::default() }
    }

    pub fn atlas(&self) -> &Atlas {
        &self.atlas
    }

    pub fn phase2(&self) -> usize {
        usize::from(self.bounds.quorums.1)
    }

    /// The highest command that anybody may propose.
    pub fn last_command(&self) -> u64 {
        let campaigns = self.bounds.campaigns.iter().copied().max().unwrap_or_default();
        PROPOSERS * u64::from(campaigns + u8::from(self.bounds.late))
    }

    fn is_near(&self, ballot: Ballot) -> bool {
        ballot.number.counter() <= self.bounds.counter
    }

    pub fn is_within(&self, slot: Slot) -> bool {
        slot.0 <= self.bounds.slots
    }

    pub fn votes(&self, sent: &[EnvelopeNumber]) -> Votes {
        let mut votes = Votes::default();
        self.atlas.for_each(sent, |_, envelope| votes.count(envelope));
        votes
    }

    fn proposer(&self, node: usize) -> Option<usize> {
        let id = NodeId(node as u64 + 1);
        self.bounds.layout.proposers().iter().position(|proposer| *proposer == id)
    }

    fn votes_at(&self, node: usize) -> bool {
        (node as u64) < ACCEPTORS
    }

    /// Whether a node may crash once more.
    fn may_crash(&self, world: &World, node: usize) -> bool {
        let ((voters, others), spent) = (self.bounds.crashes, world.spent.crashes);
        if self.votes_at(node) { spent.0 < voters } else { spent.1 < others }
    }

    fn travels(&self, envelope: &Envelope) -> bool {
        let near = |ballot: &Ballot| self.is_near(*ballot);
        match &envelope.message {
            Message::Statement(statement) => match statement {
                Statement::Heartbeat { .. } | Statement::HeartbeatAck { .. } => false,
                Statement::Refused { .. } => self.bounds.refusals,
                Statement::Prepare { ballot, .. } => near(ballot),
                Statement::Accept { ballot, first, entries, .. } => {
                    near(ballot) && self.is_within(Slot(first.0 + entries.len() as u64 - 1))
                }
                _ => true,
            },
            Message::Pledge(Pledge::Promise { ballot, .. }) => near(ballot),
            Message::Pledge(Pledge::Accepted { ballot, last, .. }) => {
                near(ballot) && self.is_within(*last)
            }
        }
    }

    /// Whether it is any use to deliver this to that node.
    fn is_heard(&self, envelope: &Envelope, by: NodeId) -> bool {
        let vote = matches!(envelope.message, Message::Pledge(Pledge::Accepted { .. }));
        envelope.to.contains(&by) && (self.bounds.learning || !vote)
    }

    fn ground(&self, world: &World, node: usize) -> Ground {
        let id = NodeId(node as u64 + 1);
        let mut sent = Vec::with_capacity(world.sent.len());
        self.atlas.for_each(&world.sent, |number, envelope| {
            if envelope.from == id || self.is_heard(envelope, id) {
                sent.push(number);
            }
        });
        let proposer = self.proposer(node);
        let spent = world.spent;
        let late = self.bounds.late;
        // Another value each time, so that two lives of a proposer cannot agree by chance.
        let own = proposer.map(|p| p as u64 + 1 + PROPOSERS * u64::from(spent.campaigns[p]));
        let campaign = proposer.filter(|p| spent.campaigns[*p] < self.bounds.campaigns[*p]);
        let propose = proposer.filter(|p| late && spent.proposals[*p] == 0);
        let may_crash = self.may_crash(world, node);
        Ground {
            node: world.nodes[node],
            sent,
            campaign: campaign.map(|_| own.filter(|_| !late)),
            propose: propose.and(own),
            may_crash,
            // Nobody could tell a slow disk of a node that only votes from a slow network, unless
            // it crashes.
            swift: self.bounds.layout == Layout::Apart && !may_crash,
        }
    }

    /// What may happen to this node in one of its states.
    fn causes(&self, ground: &Ground, node: NodeNumber, id: NodeId) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.atlas.for_each(&ground.sent, |number, envelope| {
            if self.is_heard(envelope, id) {
                causes.push(Cause::Hear(number));
            }
        });
        let node = self.atlas.node(node);
        if cfg!(feature = "planted") && node.records() > RECORDS_MAX {
            return Vec::new();
        }
        if node.unsynced() > 0 {
            causes.push(Cause::Sync);
        }
        if ground.may_crash {
            causes.extend((0..=node.unsynced()).map(Cause::Crash));
        }
        causes.extend(ground.campaign.map(Cause::Campaign));
        causes.extend(ground.propose.filter(|_| node.is_active()).map(Cause::Propose));
        causes
    }

    fn moves(&self, world: &World, node: usize) -> Moves {
        let id = NodeId(node as u64 + 1);
        self.atlas.moves(self.ground(world, node), |ground| {
            let outcome = |node, cause| {
                self.atlas.outcome(
                    (node, cause, ground.swift),
                    |node, input| node.after(input, &self.genesis, ground.swift),
                    |envelope| self.travels(envelope),
                )
            };
            let causes = |node| self.causes(ground, node, id);
            let mut moves = Turn { ground, outcome, causes }.moves();
            // A campaign beyond the bounds is none.
            moves.retain(|made| {
                let campaigns = matches!(made.cause(), Cause::Campaign(_));
                !campaigns || self.is_near(self.atlas.node(made.node).ballot())
            });
            moves
        })
    }

    /// Whether a move leaves a trace. A crash may leave none.
    fn matters(&self, world: &World, node: usize, made: &Move) -> bool {
        made.node != world.nodes[node]
            || !made.said.is_empty()
            || made.fault.is_some()
            || self.learned_falsely(&world.sent, &made.learned).is_some()
    }

    /// A move in words.
    pub fn tell(&self, action: &Action) -> String {
        let node = action.node + 1;
        let inputs = action.made.causes.iter().map(|(state, cause)| match *cause {
            Cause::Hear(number) => {
                let envelope = self.atlas.envelope(number);
                format!("n{node} hears from {}: {:?}", envelope.from, envelope.message)
            }
            Cause::Campaign(Some(value)) => format!("n{node} campaigns, to propose {value}"),
            Cause::Campaign(None) => format!("n{node} campaigns"),
            Cause::Propose(value) => format!("n{node} is asked to propose {value}"),
            Cause::Sync => format!("n{node} syncs"),
            Cause::Crash(kept) => {
                let unsynced = self.atlas.node(*state).unsynced();
                format!("n{node} crashes and starts; of {unsynced} unsynced records {kept} survive")
            }
        });
        inputs.collect::<Vec<_>>().join("\n  ")
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let members = self.genesis.configuration.members();
        let nodes = members.keys().map(|id| self.atlas.add_node(Node::new(*id, &self.genesis)));
        let (spent, seen) = (Spent::default(), Seen::default());
        vec![World { nodes: nodes.collect(), sent: Vec::new(), spent, seen, fault: None }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.fault.is_some() {
            return;
        }
        for node in 0..world.nodes.len() {
            let moves = self.moves(world, node);
            let moves = moves.iter().filter(|made| self.matters(world, node, made));
            actions.extend(moves.map(|made| Action { node, made: Arc::clone(made) }));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let Action { node, made } = action;
        let mut next = world.clone();
        next.nodes[node] = made.node;
        match made.cause() {
            Cause::Campaign(_) => next.spent.campaigns[self.proposer(node)?] += 1,
            Cause::Propose(_) => next.spent.proposals[self.proposer(node)?] += 1,
            Cause::Crash(_) if self.votes_at(node) => next.spent.crashes.0 += 1,
            Cause::Crash(_) => next.spent.crashes.1 += 1,
            Cause::Hear(_) | Cause::Sync => {}
        }
        next.sent.extend(&made.said);
        next.sent.sort_unstable();
        next.sent.dedup();
        let id = NodeId(node as u64 + 1);
        let fault = self.judge((id, &made), (&world.sent, &next.sent), &mut next.seen);
        next.fault = fault.map(Box::new);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let rivals = self.bounds.campaigns.iter().all(|campaigns| *campaigns > 0);
        laws::properties(rivals, self.bounds.crashes.0 > 0)
    }
}
