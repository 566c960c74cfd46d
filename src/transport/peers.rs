//! The links to all peers: who they are, and how to send to one of them.
//!
//! Each peer has one connection per [`Lane`], dialled by us, on which frames flow from us to it;
//! what it has to say to us comes over the connections that it dials. Sending never waits and never
//! fails: what cannot go is dropped and counted, and the protocol above says it again.

use super::counters::Counters;
use super::identity::NodeKeys;
use super::link::{LinkContext, LinkTask, Outbox, watched};
use super::live::LiveTrust;
use super::server::PeerEvents;
use super::settings::Settings;
use super::{Lane, LocalNode};
use crate::paxos::ballot::NodeId;
use crate::telemetry::watchdog::Watchdog;
use crate::wire::frame::BODY_BYTES_MAX;
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its id; its certificate must say the same.
    pub id: NodeId,
    /// Its name; its host certificate must be for `NAME.CLUSTER.paxos`.
    pub name: String,
    /// `host:port`; resolved anew on each dial.
    pub address: String,
}

/// What the links need.
pub struct PeersOptions {
    /// Who this node is.
    pub local: LocalNode,
    /// Limits and timeouts.
    pub settings: Settings,
    /// Whom to believe; replaced whole when it changes.
    pub trust: Arc<LiveTrust>,
    /// This node's own keys; replaced whole when they change.
    pub keys: Arc<ArcSwap<NodeKeys>>,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Watches the links' tasks.
    pub watchdog: Watchdog,
}

/// The links of one node. Dropping it takes them down.
pub struct Peers {
    context: Arc<LinkContext>,
    watchdog: Watchdog,
    runtime: tokio::runtime::Handle,
    /// What [`Peers::send`] reads, without a lock.
    outboxes: ArcSwap<BTreeMap<NodeId, [Arc<Outbox>; Lane::ALL.len()]>>,
    members: Mutex<BTreeMap<NodeId, Member>>,
}

struct Member {
    address: watch::Sender<PeerAddress>,
    outboxes: [Arc<Outbox>; Lane::ALL.len()],
    nudges: [Arc<Notify>; Lane::ALL.len()],
    stop: CancellationToken,
}

impl Peers {
    /// No links yet; [`set_members`](Peers::set_members) makes them. Must be called within a
    /// runtime, on which the links then live.
    pub fn start(options: PeersOptions, events: Arc<dyn PeerEvents>) -> Peers {
        let PeersOptions { local, settings, trust, keys, counters, watchdog } = options;
        let context = LinkContext { local, settings, trust, keys, events, counters };
        Peers {
            context: Arc::new(context),
            watchdog,
            runtime: tokio::runtime::Handle::current(),
            outboxes: ArcSwap::default(),
            members: Mutex::default(),
        }
    }

    /// Queues a message's body for a peer. Never waits; drops it when the peer is unknown, its link
    /// is down or its queue is full.
    pub fn send(&self, to: NodeId, lane: Lane, body: Bytes) {
        if body.len() > BODY_BYTES_MAX {
            let bytes = body.len();
            error!(%to, bytes, "a message over the frame limit was dropped; it should be in parts");
            self.context.counters.frames_dropped_full.increment();
            return;
        }
        match self.outboxes.load().get(&to) {
            Some(outboxes) => outboxes[lane as usize].push(body),
            None => self.context.counters.frames_dropped_down.increment(),
        }
    }

    /// Links to these and to nobody else (this node itself is skipped). Those that stay keep their
    /// links unless their address or name changed.
    pub fn set_members(&self, peers: Vec<PeerAddress>) {
        let mut members = self.members.lock().expect("no holder of this lock panics");
        members.retain(|id, member| {
            let stays = peers.iter().any(|peer| peer.id == *id);
            if !stays {
                member.stop.cancel();
            }
            stays
        });
        for peer in peers {
            if peer.id == self.context.local.id {
                continue;
            }
            match members.get(&peer.id) {
                Some(member) => {
                    member.address.send_if_modified(|address| {
                        let changes = *address != peer;
                        *address = peer;
                        changes
                    });
                }
                None => {
                    members.insert(peer.id, self.add(peer));
                }
            }
        }
        let outboxes = members.iter().map(|(id, member)| (*id, member.outboxes.clone())).collect();
        self.outboxes.store(Arc::new(outboxes));
    }

    /// What the peer is called; none if it is no member.
    pub fn name(&self, peer: NodeId) -> Option<String> {
        let members = self.members.lock().expect("no holder of this lock panics");
        members.get(&peer).map(|member| member.address.borrow().name.clone())
    }

    /// Says that this peer is alive (a message of it came, say): a link that waits before its next
    /// dial dials now. Costs nothing when the links are up.
    pub fn nudge(&self, peer: NodeId) {
        let members = self.members.lock().expect("no holder of this lock panics");
        if let Some(member) = members.get(&peer) {
            for nudge in &member.nudges {
                nudge.notify_waiters();
            }
        }
    }

    fn add(&self, peer: PeerAddress) -> Member {
        let context = &self.context;
        let (id, name) = (peer.id, peer.name.clone());
        let (address, address_of_links) = watch::channel(peer);
        let stop = CancellationToken::new();
        let nudges = Lane::ALL.map(|_| Arc::new(Notify::new()));
        let outboxes = Lane::ALL.map(|lane| {
            let bytes_max = context.settings.outbox_bytes_max;
            let outbox = Arc::new(Outbox::new(bytes_max, context.counters.clone()));
            let task = LinkTask {
                peer: id,
                lane,
                address: address_of_links.clone(),
                outbox: outbox.clone(),
                nudge: nudges[lane as usize].clone(),
                context: context.clone(),
                stop: stop.clone(),
                beat: self.watchdog.watch(watched(&name, lane)),
            };
            self.runtime.spawn(task.run());
            outbox
        });
        Member { address, outboxes, nudges, stop }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for member in self.members.lock().expect("no holder of this lock panics").values() {
            member.stop.cancel();
        }
    }
}
