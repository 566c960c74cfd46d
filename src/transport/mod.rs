//! SSH: who is at the other end, and bytes to and from them. The only user of russh.
//!
//! * [`server`] accepts connections, lets in whom [`identity`] knows, and hands out two things:
//!   frames of peers ([`server::PeerEvents`]) and requests of people ([`server::Sessions`]).
//! * [`peers`] keeps a connection of our own to each peer and lane, and sends frames on it.
//! * [`client`] dials, for peers and for people's programs.
//! * [`keyring`] is what a node believes and proves itself with; it can be replaced while the node
//!   runs, and [`live`] has open connections judged by it again. [`succession`] judges the trust
//!   bundles that the log brings.
//! * [`confined`] is a directory into which somebody else may write.
//! * [`settings`] holds every limit and timeout, [`counters`] what happened.
//!
//! What must hold:
//!
//! * Frames flow from the dialler to the listener only, so no link carries bulk both ways (russh
//!   would dead-lock); and no callback from russh ever waits, so no slow reader stops a connection.
//! * A frame's sender is the id in the certificate of its connection. What a peer says about itself
//!   is compared, never believed.
//! * What is sent may be lost, repeated or reordered; whoever sends must stand it. Nothing here
//!   retries.
//! * Every queue is bounded in bytes. A peer that does not read fills its own queue and no other.
//! * A stranger learns nothing: a refusal has one look from outside; reasons are in our log and
//!   counters.

pub mod authority;
pub mod authority_key;
pub mod bundle;
mod callbacks;
mod channel;
mod checks;
pub mod client;
pub mod confined;
mod connection;
pub mod counters;
pub mod credentials;
pub mod diagnosis;
pub mod identity;
mod inbound;
mod keyfiles;
pub mod keyring;
mod limits;
mod link;
pub mod live;
pub mod node_key;
mod outbound;
pub mod peers;
mod refusal;
pub mod rights;
pub mod server;
pub mod session;
pub mod settings;
mod socket;
pub mod source;
pub mod succession;
mod terminal;
mod through;

use crate::paxos::ballot::NodeId;

/// Lets one kind of message pass another: each lane is an SSH connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Votes, heartbeats and proposals: small and urgent.
    Consensus,
    /// Catching up and snapshots: large and patient.
    Bulk,
}

impl Lane {
    /// Each of them.
    pub const ALL: [Lane; 2] = [Lane::Consensus, Lane::Bulk];

    /// The SSH subsystem that stands for it.
    pub fn subsystem(self) -> &'static str {
        match self {
            Lane::Consensus => "paxos-consensus",
            Lane::Bulk => "paxos-bulk",
        }
    }

    pub(super) fn from_subsystem(name: &str) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| lane.subsystem() == name)
    }
}

/// The subsystem on which clients speak frames instead of words.
pub const RPC_SUBSYSTEM: &str = "paxos-rpc";

/// Who this node is, as its links say in their first frame.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// Its id; must be the one in its certificate.
    pub id: NodeId,
    /// The cluster's name, as in certificates.
    pub cluster: String,
    /// The cluster's identity as text; empty while it is not known yet.
    pub cluster_id: String,
}
