//! What stands in the way of a plan, in the words of a person, and what to do about it.
//!
//! Each is found by [`super::plan`]; some stop everything, others concern one node and leave the
//! rest to be seen to.

use super::keys::newest::Newer;
use super::plan::PortHolder;
use crate::wire::failure::Code;
use std::fmt;

/// Something that cannot be done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A host that could not be looked at.
    OutOfReach {
        /// Whose.
        node: String,
        /// Why not.
        why: String,
        /// What to do.
        hint: String,
        /// Whether the cluster was formed; one is not formed without its founders.
        formed: bool,
    },
    /// Somebody else has the node's address.
    PortHeld(String, PortHolder),
    /// A node's host has something newer than the keys here.
    OldKeys(String, Newer),
    /// The program that a node would get does not know the version that the cluster is at.
    Unfit(String, String),
    /// Nodes have logs of a cluster that the controller knows nothing of.
    FormedElsewhere(Vec<String>),
    /// The cluster was formed and its keys are gone.
    KeysGone,
    /// A node that the cluster was not formed with.
    NotAMember(String),
    /// The inventory wants something else of a node than the cluster was formed with.
    Changed(String, &'static str),
    /// The inventory wants other quorum sizes than the cluster was formed with.
    Quorums {
        /// Phase 1 and 2 as formed.
        formed: (u16, u16),
        /// Phase 1 and 2 as the inventory has it.
        wanted: (u16, u16),
    },
    /// A node of a formed cluster without its log.
    LogLost(String),
    /// A node whose key is revoked.
    KeyRevoked(String),
    /// The running cluster is not what the inventory says.
    Drift {
        /// About whom.
        node: String,
        /// How it differs.
        what: String,
    },
    /// A node that was given up when the cluster was recovered.
    GivenUp {
        /// Which.
        node: String,
        /// When, RFC 3339.
        at: String,
    },
}

impl Obstacle {
    /// Whether nothing at all may be done. Otherwise the other nodes are seen to.
    pub fn stops_everything(&self) -> bool {
        !matches!(
            self,
            Obstacle::LogLost(_)
                | Obstacle::KeyRevoked(_)
                | Obstacle::GivenUp { .. }
                | Obstacle::Drift { .. }
                | Obstacle::NotAMember(_)
                | Obstacle::OutOfReach { formed: true, .. }
        )
    }

    /// What kind of failure it is. Of a host that cannot be reached nobody can say that the
    /// inventory is wrong.
    pub fn code(&self) -> Code {
        match self {
            Obstacle::OutOfReach { .. } => Code::Internal,
            _ => Code::BadSettings,
        }
    }

    /// The node that it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Obstacle::OutOfReach { node, .. }
            | Obstacle::GivenUp { node, .. }
            | Obstacle::Drift { node, .. }
            | Obstacle::PortHeld(node, _)
            | Obstacle::OldKeys(node, _)
            | Obstacle::Unfit(node, _)
            | Obstacle::NotAMember(node)
            | Obstacle::Changed(node, _)
            | Obstacle::KeyRevoked(node)
            | Obstacle::LogLost(node) => Some(node),
            Obstacle::FormedElsewhere(_) | Obstacle::KeysGone | Obstacle::Quorums { .. } => None,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        let give_up = "to give up the cluster and its data, destroy it first";
        match self {
            Obstacle::OutOfReach { hint, .. } => hint.clone(),
            Obstacle::PortHeld(node, holder) => {
                let stop = match &holder.process {
                    Some((pid, name)) => format!("stop {name} (pid {pid})"),
                    None => "stop what listens there".to_owned(),
                };
                format!("{stop}, or give {node} another paxos_port")
            }
            Obstacle::OldKeys(..) => {
                "use the newest copy of the keys directory (--keys-dir)".to_owned()
            }
            Obstacle::Unfit(..) => {
                "use the newest copy of the keys directory, or a newer program: \
                                    paxos-ctl upgrade --binary FILE, or paxos_binary"
                    .to_owned()
            }
            Obstacle::FormedElsewhere(_) => format!(
                "restore state.yaml beside the keys, \
                 or give the directory that has it with --keys-dir; {give_up}"
            ),
            Obstacle::KeysGone => format!(
                "restore the keys from a backup, or give their directory with --keys-dir; {give_up}"
            ),
            Obstacle::NotAMember(node) => {
                format!("take {node} out of the inventory; this version cannot add members yet")
            }
            Obstacle::Changed(node, what) => {
                format!("put {what} of {node} back; this version cannot change members yet")
            }
            Obstacle::Quorums { formed: (phase1, phase2), .. } => format!(
                "put paxos_quorum_phase1: {phase1} and paxos_quorum_phase2: {phase2} back; \
                 this version cannot change quorum sizes yet"
            ),
            Obstacle::KeyRevoked(node) => format!(
                "if {node} is to take part again, make another key for it: paxos-ctl keys rotate \
                 --node {node}"
            ),
            Obstacle::Drift { .. } => {
                "somebody else may have changed the cluster: use the newest copy of the keys \
                 directory, and have the inventory say what paxos-ctl status shows"
                    .to_owned()
            }
            Obstacle::GivenUp { node, .. } => format!(
                "take {node} out of the inventory; if it came back, end its process and remove \
                 its data: it holds an old end of the log, and no survivor lets it in"
            ),
            Obstacle::LogLost(node) => format!(
                "the cluster goes on with its other acceptors; \
                 do not copy an old log back, for {node} may have voted since. \
                 It must rejoin under a new voter generation, which this version cannot do yet; \
                 to start over without the data, destroy the cluster and deploy"
            ),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::OutOfReach { node, why, .. } => {
                write!(f, "the host of {node} could not be looked at: {why}")
            }
            Obstacle::PortHeld(node, PortHolder { address, process }) => {
                write!(f, "{node} is to listen on {address}, but that port is in use")?;
                match process {
                    Some((pid, name)) => write!(f, " by {name} (pid {pid})"),
                    None => Ok(()),
                }
            }
            Obstacle::OldKeys(node, newer) => write!(f, "on the host of {node} {newer}"),
            Obstacle::Unfit(node, why) => write!(f, "{node} would get a program that {why}"),
            Obstacle::FormedElsewhere(nodes) => write!(
                f,
                "{} already have logs of a cluster that was formed before, \
                 and there is no state.yaml here that knows of it; \
                 a second genesis could make two clusters of one",
                nodes.join(", ")
            ),
            Obstacle::KeysGone => {
                write!(f, "the cluster was formed, but its keys are gone; new ones fit no node")
            }
            Obstacle::NotAMember(node) => {
                write!(f, "{node} was not there when the cluster was formed")
            }
            Obstacle::Changed(node, what) => {
                write!(f, "the inventory gives {node} another {what} than the cluster knows")
            }
            Obstacle::Quorums { formed, wanted } => write!(
                f,
                "the inventory wants quorums of {} (phase 1) and {} (phase 2), \
                 and the cluster was formed with {} and {}",
                wanted.0, wanted.1, formed.0, formed.1
            ),
            Obstacle::Drift { node, what } => write!(f, "{node}: {what}"),
            Obstacle::GivenUp { node, at } => {
                write!(f, "{node} was given up when the cluster was recovered, at {at}")
            }
            Obstacle::KeyRevoked(node) => {
                write!(f, "the key of {node} is revoked, so no other node talks to it")
            }
            Obstacle::LogLost(node) => write!(
                f,
                "{node} was part of the cluster and its log is gone; \
                 it is not made a voter again, since it could forget what it promised"
            ),
        }
    }
}
