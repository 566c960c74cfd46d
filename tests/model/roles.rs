//! Who takes part in a model, and who may do what.

use paxos_ssh::paxos::ballot::{ClusterId, NodeId, ProposerId, VoterGeneration};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::quorum::QuorumSystem;

/// Acceptors of every model.
pub const ACCEPTORS: u64 = 3;

/// Proposers of every model; as many values, for each proposes one of its own.
pub const PROPOSERS: u64 = 2;

/// How roles are spread over nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Nodes 1 to 3 vote; nodes 4 and 5 propose and learn.
    Apart,
    /// Nodes 1 to 3 vote and learn; nodes 1 and 2 propose as well.
    Together,
}

impl Layout {
    /// The nodes that propose.
    pub fn proposers(self) -> [NodeId; PROPOSERS as usize] {
        match self {
            Layout::Apart => [NodeId(4), NodeId(5)],
            Layout::Together => [NodeId(1), NodeId(2)],
        }
    }

    /// The first log of everybody. `window` bounds how many slots are open at once.
    pub fn genesis(self, quorums: QuorumSystem, window: u32) -> Genesis {
        let nodes = match self {
            Layout::Apart => ACCEPTORS + PROPOSERS,
            Layout::Together => ACCEPTORS,
        };
        let member = |id: u64| {
            let place = self.proposers().iter().position(|proposer| *proposer == NodeId(id));
            let proposer = place.map(|place| ProposerId::new(place as u64 + 1).expect("small"));
            let acceptor = (id <= ACCEPTORS).then(|| generation(NodeId(id)));
            let learner = proposer.is_some() || self == Layout::Together;
            let roles = Roles { proposer, acceptor, learner };
            (NodeId(id), Member { name: format!("n{id}"), address: String::new(), roles })
        };
        let members = (1..=nodes).map(member).collect();
        let configuration = Configuration::new(ConfigurationNumber(1), members, quorums);
        let configuration = configuration.expect("the roles are sound");
        Genesis { cluster: ClusterId(1), configuration, window }
    }
}

/// The only life of an acceptor's log: crashes lose what was not synced, never the disk.
pub fn generation(id: NodeId) -> VoterGeneration {
    VoterGeneration(id.0)
}

/// Whether a node issues ballots.
pub fn proposes(genesis: &Genesis, id: NodeId) -> bool {
    genesis.configuration.member(id).is_some_and(|member| member.roles.proposer.is_some())
}
