//! Between the node and its SSH links: frames become events, messages become frames.
//!
//! Runs on the transport's tasks, so nothing here waits: a message that finds no room in the inbox
//! is dropped, as if the network had lost it.

use super::event::Event;
use super::inbox::Inbox;
use super::world::Peers;
use crate::paxos::ballot::NodeId;
use crate::paxos::message::{Message, Statement};
use crate::telemetry::metrics::Metrics;
use crate::transport::Lane;
use crate::transport::peers::Peers as SshLinks;
use crate::transport::server::{LinkDown, PeerEvents};
use crate::wire::peer::{PeerMessage, decode_peer, encode_peer};
use crate::wire::store_call::StoreAnswer;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use tracing::{info, warn};

/// Hands what comes over the links to the node.
pub struct Arrivals {
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    links: OnceLock<Arc<SshLinks>>,
}

impl Arrivals {
    /// For this inbox.
    pub fn new(inbox: Arc<Inbox>, metrics: Arc<Metrics>) -> Arrivals {
        Arrivals { inbox, metrics, links: OnceLock::new() }
    }

    /// The links to wake when a peer shows that it lives; set once, when they are made.
    pub fn attach(&self, links: Arc<SshLinks>) {
        let _already_attached = self.links.set(links);
    }

    /// What the peer is called, or its id.
    fn name(&self, peer: NodeId) -> String {
        let known = self.links.get().and_then(|links| links.name(peer));
        known.unwrap_or_else(|| peer.to_string())
    }
}

impl PeerEvents for Arrivals {
    fn frame(&self, from: NodeId, _lane: Lane, body: Bytes) {
        match decode_peer(&body) {
            Ok(message) => {
                let event = match message {
                    PeerMessage::Paxos(message) => Event::Peer(from, message),
                    PeerMessage::Witness(seen) => Event::Witness(from, seen),
                    PeerMessage::Call(call) => Event::StoreCall(from, call),
                    PeerMessage::Answer(answer) => Event::StoreAnswer(from, answer),
                    PeerMessage::Trace(message) => Event::TraceMessage(from, message),
                };
                if !self.inbox.push_peer(event) {
                    self.metrics.consensus.messages_refused.inc();
                }
            }
            Err(error) => {
                self.metrics.consensus.messages_refused.inc();
                let from = self.name(from);
                warn!(%from, %error, "a peer's message cannot be read; is its version newer?");
            }
        }
    }

    fn greeted(&self, from: NodeId, _lane: Lane) {
        if let Some(links) = self.links.get() {
            links.nudge(from);
        }
    }

    fn link_up(&self, peer: NodeId, lane: Lane) {
        if lane == Lane::Consensus {
            info!(peer = %self.name(peer), "link up");
            self.inbox.push_own(Event::LinkUp(peer));
        }
    }

    fn link_down(&self, peer: NodeId, lane: Lane, why: LinkDown) {
        if lane == Lane::Consensus {
            let name = self.name(peer);
            info!(peer = %name, refused = why.refused, error = why.error, "link down");
            let LinkDown { refused, error } = why;
            self.inbox.push_own(Event::LinkDown { peer, refused, error });
        }
    }
}

/// The node's way to its peers.
pub struct Departures(pub Arc<SshLinks>);

impl Peers for Departures {
    fn send(&mut self, to: &[NodeId], message: PeerMessage) {
        let lane = lane(&message);
        let body = encode_peer(&message);
        for peer in to {
            self.0.send(*peer, lane, body.clone());
        }
    }
}

/// Chosen entries for somebody who lags, what was read for others and what recorders tell are bulk;
/// everything else is urgent.
fn lane(message: &PeerMessage) -> Lane {
    match message {
        PeerMessage::Paxos(Message::Statement(Statement::Fetched { .. }))
        | PeerMessage::Answer(StoreAnswer::Found { .. })
        | PeerMessage::Trace(_) => Lane::Bulk,
        PeerMessage::Paxos(_)
        | PeerMessage::Witness(_)
        | PeerMessage::Call(_)
        | PeerMessage::Answer(_) => Lane::Consensus,
    }
}
