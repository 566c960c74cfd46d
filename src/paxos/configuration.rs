//! Who takes part, in which roles, and under which quorums.
//!
//! A configuration is an entry of the log like any other. One that is chosen at slot *i* governs
//! the slots from *i* + α on (Lamport, Malkhi, Zhou, "Reconfiguring a State Machine", §3), and α
//! bounds how far the leader may run ahead of what is chosen, so whoever proposes for a slot knows
//! its configuration. Nothing else may say who votes: no file, no flag, no gossip.

use super::ballot::{ClusterId, NodeId, ProposerId, Slot, VoterGeneration};
use super::quorum::{QuorumError, QuorumSystem};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Counts the configurations of a cluster; the genesis has number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigurationNumber(pub u64);

/// What one member is there for. All `None`/`false` is a client: registered, listed, without a
/// vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Roles {
    /// Proposes, under this id.
    pub proposer: Option<ProposerId>,
    /// Votes, as this life of its log.
    pub acceptor: Option<VoterGeneration>,
    /// Learns what is chosen and holds a store.
    pub learner: bool,
}

impl Roles {
    /// Registered and no more.
    pub fn is_client(&self) -> bool {
        *self == Roles::default()
    }
}

/// One registered node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// The name that operators use; part of the node's host certificate.
    pub name: String,
    /// `host:port` at which peers reach its SSH server; resolved anew on each dial.
    pub address: String,
    /// What it does.
    pub roles: Roles,
}

/// The members, and how many of the acceptors make a quorum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// Its place in the succession.
    pub number: ConfigurationNumber,
    members: BTreeMap<NodeId, Member>,
    quorums: QuorumSystem,
}

/// Where a log starts: handed out once in a cluster's life, and consumed durably by each founding
/// node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Genesis {
    /// Drawn when the cluster is formed.
    pub cluster: ClusterId,
    /// Governs from slot 1 on.
    pub configuration: Configuration,
    /// α: slots that may be open above the highest prefix known chosen.
    pub window: u32,
}

/// Why members make no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigurationError {
    /// The quorum sizes do not hold.
    Quorum(QuorumError),
    /// Sizes were given for another number of acceptors than there are.
    AcceptorCount {
        /// Acceptors among the members.
        members: usize,
        /// Acceptors that the quorum sizes assume.
        quorums: usize,
    },
    /// Two members would issue the same proposal numbers.
    ProposerTwice(ProposerId),
    /// Two members answer to one name.
    NameTwice(String),
    /// Nobody can propose.
    NoProposer,
    /// Nobody would hold the data.
    NoLearner,
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigurationError::Quorum(error) => write!(f, "{error}"),
            ConfigurationError::AcceptorCount { members, quorums } => write!(
                f,
                "the quorum sizes are for {quorums} acceptors, but the members hold {members}; \
                 give sizes for {members}"
            ),
            ConfigurationError::ProposerTwice(id) => write!(
                f,
                "two members have proposer id {}; give each its own between 0 and 99",
                id.value()
            ),
            ConfigurationError::NameTwice(name) => {
                write!(f, "two members are named {name}; give each a name of its own")
            }
            ConfigurationError::NoProposer => {
                write!(f, "no member is a proposer; a cluster needs at least one")
            }
            ConfigurationError::NoLearner => {
                write!(f, "no member is a learner; a cluster needs at least one to hold the data")
            }
        }
    }
}

impl std::error::Error for ConfigurationError {}

impl Configuration {
    /// Builds a configuration in which somebody proposes, somebody learns, and quorums intersect.
    pub fn new(
        number: ConfigurationNumber,
        members: BTreeMap<NodeId, Member>,
        quorums: QuorumSystem,
    ) -> Result<Configuration, ConfigurationError> {
        let acceptors = members.values().filter(|m| m.roles.acceptor.is_some()).count();
        if acceptors != quorums.acceptors() {
            return Err(ConfigurationError::AcceptorCount {
                members: acceptors,
                quorums: quorums.acceptors(),
            });
        }
        let mut proposers = BTreeSet::new();
        let mut names = BTreeSet::new();
        for member in members.values() {
            if let Some(id) = member.roles.proposer
                && !proposers.insert(id)
            {
                return Err(ConfigurationError::ProposerTwice(id));
            }
            if !names.insert(&member.name) {
                return Err(ConfigurationError::NameTwice(member.name.clone()));
            }
        }
        if proposers.is_empty() {
            return Err(ConfigurationError::NoProposer);
        }
        if !members.values().any(|m| m.roles.learner) {
            return Err(ConfigurationError::NoLearner);
        }
        Ok(Configuration { number, members, quorums })
    }

    /// Every registered node, by id.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// One node, if it is registered.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// How many votes decide.
    pub fn quorums(&self) -> QuorumSystem {
        self.quorums
    }

    /// Those who vote.
    pub fn acceptors(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, m)| m.roles.acceptor.is_some()).map(|(id, _)| *id)
    }

    /// Those who keep a store.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, m)| m.roles.learner).map(|(id, _)| *id)
    }

    /// Those who keep a store and have no vote. Acceptors tell them what they accepted, and they
    /// count for themselves; a learner that is an acceptor too hears from the leader what is
    /// chosen, which is one message instead of one from each acceptor ("Paxos Made Simple" §2.3,
    /// the distinguished learner).
    pub fn counting_learners(&self) -> impl Iterator<Item = NodeId> + '_ {
        let counts = |roles: &Roles| roles.learner && roles.acceptor.is_none();
        self.members.iter().filter(move |(_, m)| counts(&m.roles)).map(|(id, _)| *id)
    }

    /// Everybody with a role: those who hear every proposal. Clients do not; they hold no log.
    pub fn participants(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, m)| !m.roles.is_client()).map(|(id, _)| *id)
    }

    /// The node that issues numbers of this proposer.
    pub fn proposer(&self, proposer: ProposerId) -> Option<NodeId> {
        self.members.iter().find(|(_, m)| m.roles.proposer == Some(proposer)).map(|(id, _)| *id)
    }

    /// Whether a vote of this node in this life of its log counts.
    pub fn is_voter(&self, id: NodeId, generation: VoterGeneration) -> bool {
        self.member(id).is_some_and(|m| m.roles.acceptor == Some(generation))
    }
}

/// Every configuration that may still govern a slot, by the first slot that it governs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configurations {
    window: u32,
    by_first_slot: BTreeMap<Slot, Configuration>,
}

impl Configurations {
    /// What holds at genesis.
    pub fn new(genesis: &Genesis) -> Configurations {
        Configurations {
            window: genesis.window,
            by_first_slot: BTreeMap::from([(Slot(1), genesis.configuration.clone())]),
        }
    }

    /// α.
    pub fn window(&self) -> u64 {
        u64::from(self.window)
    }

    /// The configuration by which a proposal for `slot` is judged.
    pub fn governing(&self, slot: Slot) -> &Configuration {
        let found = self.by_first_slot.range(..=slot.max(Slot(1))).next_back();
        found.expect("the genesis governs from slot 1 on").1
    }

    /// The newest one known, whether or not it governs yet.
    pub fn newest(&self) -> &Configuration {
        self.by_first_slot.values().next_back().expect("there is always the genesis")
    }

    /// Each configuration that may govern `slot` or a later one.
    pub fn from(&self, slot: Slot) -> impl Iterator<Item = &Configuration> {
        let first = self.by_first_slot.range(..=slot.max(Slot(1))).next_back();
        let first = first.map_or(Slot(1), |(first_slot, _)| *first_slot);
        self.by_first_slot.range(first..).map(|(_, configuration)| configuration)
    }

    /// Takes note of a configuration that was chosen at `slot`.
    pub fn chosen(&mut self, slot: Slot, configuration: Configuration) {
        self.by_first_slot.insert(Slot(slot.0.saturating_add(self.window())), configuration);
    }
}
