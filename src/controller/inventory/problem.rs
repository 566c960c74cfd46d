//! What can be wrong with an inventory, each with its file, its line and what to do about it.

use crate::paxos::quorum::QuorumError;
use crate::wire::failure::{Code, Failure};
use std::fmt;
use std::path::PathBuf;
use thiserror::Error;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In which file.
    pub file: PathBuf,
    /// On which line, from 1; 0 when it is about the whole file.
    pub line: u64,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.fault),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.fault),
        }
    }
}

/// The kinds of things that can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot read it: {0}; give the path of an inventory file")]
    Unreadable(String),
    /// The file is no YAML.
    #[error("this is not YAML: {0}; mend the line")]
    Syntax(String),
    /// Something has the wrong shape.
    #[error("{what} is {found}, but must be {wanted}; mend it")]
    Shape {
        /// Which part.
        what: String,
        /// What stands there.
        found: &'static str,
        /// What should.
        wanted: &'static str,
    },
    /// A group may hold `hosts`, `children` and `vars` only.
    #[error("group {group} has \"{key}\"; a group holds hosts, children and vars, nothing else")]
    GroupKey {
        /// Which group.
        group: String,
        /// The word.
        key: String,
    },
    /// A group is a child of itself.
    #[error("group {0} is its own descendant; take one of the children away")]
    GroupLoop(String),
    /// A range of hosts makes no sense.
    #[error("\"{0}\" is no range of hosts; write node[1:5] or node[a:e]")]
    Range(String),
    /// More hosts than anybody has.
    #[error("more than {0} hosts; check the ranges")]
    TooManyHosts(usize),
    /// A variable that is spelled like ours and is not.
    #[error("unknown variable {name}; {}", match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "paxos_* variables are listed in the README".to_owned(),
    })]
    UnknownVariable {
        /// As written.
        name: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// A group that is spelled like ours and is not.
    #[error("unknown group {name}; {}", match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "the groups are paxos_proposers, paxos_acceptors, paxos_learners and paxos_clients"
            .to_owned(),
    })]
    UnknownGroup {
        /// As written.
        name: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// A key that cannot be given to nodes.
    #[error("paxos_people: {name} is not usable: {reason}; mend it")]
    Person {
        /// Whose.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A value that a variable cannot have.
    #[error("{variable} is {value:?}, but must be {wanted}")]
    Value {
        /// Which variable.
        variable: String,
        /// As written.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A template, which only Ansible can fill in.
    #[error(
        "{variable} is the template {value:?}; templates are not filled in here, write the value"
    )]
    Template {
        /// Which variable.
        variable: String,
        /// As written.
        value: String,
    },
    /// A variable that a node cannot do without.
    #[error("host {host} has no {variable}; {hint}")]
    Missing {
        /// Which host.
        host: String,
        /// Which variable.
        variable: &'static str,
        /// What to write.
        hint: &'static str,
    },
    /// No host belongs to any cluster.
    #[error("no host has paxos_cluster; set it under all: vars: and give each host a paxos_id")]
    NoNodes,
    /// Hosts of several clusters in one inventory.
    #[error(
        "host {host} is in cluster {cluster}, but {other_host} is in {other}; \
         keep one inventory per cluster"
    )]
    SeveralClusters {
        /// Which host.
        host: String,
        /// Its cluster.
        cluster: String,
        /// A host before it.
        other_host: String,
        /// That one's cluster.
        other: String,
    },
    /// A name that cannot be part of a certificate's principal and of a path.
    #[error(
        "\"{0}\" cannot name a {1}; use lower-case letters, digits, \"-\" and \".\", at most 63, \
         beginning with a letter or a digit"
    )]
    Name(String, &'static str),
    /// Two nodes with one id.
    #[error("hosts {first} and {second} both have paxos_id {id}; give each an id of its own")]
    IdTwice {
        /// The id.
        id: u64,
        /// One node.
        first: String,
        /// The other.
        second: String,
    },
    /// A proposer id outside 0 to 99.
    #[error(
        "proposer id {id} of host {host} is above 99; \
         set paxos_proposer_id to a free one of 0 to 99"
    )]
    ProposerId {
        /// Which host.
        host: String,
        /// The id.
        id: u64,
    },
    /// Two proposers with one id.
    #[error(
        "hosts {first} and {second} both have proposer id {id}; \
         set paxos_proposer_id of one to a free one of 0 to 99"
    )]
    ProposerIdTwice {
        /// The id.
        id: u8,
        /// One node.
        first: String,
        /// The other.
        second: String,
    },
    /// Two nodes at one address and port.
    #[error("hosts {first} and {second} both have the address {address}; set paxos_port of one")]
    AddressTwice {
        /// `host:port`.
        address: String,
        /// One node.
        first: String,
        /// The other.
        second: String,
    },
    /// Two nodes of this machine in one directory.
    #[error(
        "hosts {first} and {second} both use the directory {directory}; set paxos_data_dir of one"
    )]
    DirectoryTwice {
        /// The directory.
        directory: String,
        /// One node.
        first: String,
        /// The other.
        second: String,
    },
    /// Something that is the whole cluster's differs between hosts.
    #[error("host {host} has another {variable} than {other_host}; set it once, under all: vars:")]
    Differs {
        /// Which host.
        host: String,
        /// Which variable.
        variable: &'static str,
        /// A host before it.
        other_host: String,
    },
    /// The quorum sizes do not hold.
    #[error(
        "{0}; mend paxos_quorum_phase1 and paxos_quorum_phase2, or leave both out for majorities"
    )]
    Quorum(QuorumError),
    /// A role that nobody has.
    #[error("no host is {role}; put at least one into the group {group}")]
    NoRole {
        /// With its article.
        role: &'static str,
        /// The group that gives it.
        group: &'static str,
    },
}

/// Everything that is wrong with an inventory, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InventoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for InventoryError {}

impl From<InventoryError> for Failure {
    fn from(error: InventoryError) -> Failure {
        let count = error.problems.len();
        let message = match count {
            1 => format!("the inventory cannot be used: {error}"),
            _ => format!("the inventory cannot be used, for {count} reasons:\n{error}"),
        };
        Failure::new(
            Code::BadSettings,
            message,
            "mend the inventory and try again; nothing was changed",
        )
    }
}
