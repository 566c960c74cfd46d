//! One outgoing link: a connection to one peer for one lane, kept up, and what waits to go out on
//! it.
//!
//! The task of a link is the only writer of its channel. It takes whatever waits and sends it as
//! one write: batches form by themselves while the write before is under way, and nothing waits for
//! a timer.
//!
//! While there is no link, what is sent is dropped, not kept: by the time the peer is back, old
//! votes and heartbeats say nothing that the core would not say again, newer.
//!
//! **Evidence of death.** When a process dies, its kernel closes its connections and refuses new
//! ones. So a link that breaks is dialled again at once, and a refusal is reported: the cluster
//! need not wait for a timeout to elect anew. Connections may be closed a little before the
//! listening socket, so a dial that breaks is repeated a few times within [`PROBES`].

use super::channel::RawChannel;
use super::client::Request;
use super::client::{self, ChannelEvent, ClientIdentity, Connection, Dialler, Endpoint, HostCheck};
use super::counters::Counters;
use super::identity::{self, NodeKeys};
use super::inbound::{check_hello, our_hello};
use super::live::{Changes, LiveTrust};
use super::peers::PeerAddress;
use super::server::{LinkDown, PeerEvents};
use super::settings::Settings;
use super::{Lane, LocalNode};
use crate::paxos::ballot::NodeId;
use crate::telemetry::watchdog::{Beat, Watched, Work};
use crate::wire::frame::{self, FrameDecoder, FrameKind};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Frames gathered into one write. Larger writes do not get faster, smaller ones cost a packet
/// each.
const WRITE_BYTES: usize = 64 << 10;

/// Pauses before each of the dials that follow a broken link. Together shorter than any election
/// timeout, long enough for a kernel to finish closing what a dead process had open.
const PROBES: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
];

/// A link that held this long was a good one: the next failure starts again with the shortest
/// pause.
const STEADY: Duration = Duration::from_secs(5);

/// Links in a row that may break before they were steady and still be replaced without a pause.
const UNSTEADY_MAX: u32 = 3;

/// The longest time that a link's task may be about one thing. More than a dial and a greeting may
/// take together, and less than a write may, so that a peer that takes nothing is named before it
/// is given up.
const LINK_TURN_MAX: Duration = Duration::from_secs(15);

/// How a link's task is watched.
pub(super) fn watched(peer: &str, lane: Lane) -> Watched {
    let lane = match lane {
        Lane::Consensus => "consensus",
        Lane::Bulk => "bulk",
    };
    Watched {
        name: format!("link {peer} {lane}"),
        limit: LINK_TURN_MAX,
        next: "look at that peer (`paxos status` there) and at the network to it; the link is \
               dialled anew by itself",
    }
}

/// What all links of a node share.
pub(super) struct LinkContext {
    pub(super) local: LocalNode,
    pub(super) settings: Settings,
    pub(super) trust: Arc<LiveTrust>,
    pub(super) keys: Arc<ArcSwap<NodeKeys>>,
    pub(super) events: Arc<dyn PeerEvents>,
    pub(super) counters: Arc<Counters>,
}

/// What waits to be sent to one peer on one lane.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<OutboxState>,
    ready: Notify,
    bytes_max: usize,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct OutboxState {
    bodies: VecDeque<Bytes>,
    bytes: usize,
    up: bool,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize, counters: Arc<Counters>) -> Outbox {
        let state = Mutex::new(OutboxState::default());
        Outbox { state, ready: Notify::new(), bytes_max, counters }
    }

    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Queues a body, or drops it when there is no link or no room. Never waits.
    pub(super) fn push(&self, body: Bytes) {
        let mut state = self.lock();
        if !state.up {
            drop(state);
            self.counters.frames_dropped_down.increment();
            return;
        }
        let bytes = state.bytes + body.len() + frame::HEADER_BYTES;
        // A frame always fits into an empty queue, whatever the bound.
        if bytes > self.bytes_max && !state.bodies.is_empty() {
            drop(state);
            self.counters.frames_dropped_full.increment();
            return;
        }
        state.bytes = bytes;
        state.bodies.push_back(body);
        drop(state);
        self.ready.notify_one();
    }

    fn set_up(&self, up: bool) {
        let mut state = self.lock();
        let dropped = state.bodies.len();
        *state = OutboxState { up, ..OutboxState::default() };
        drop(state);
        self.counters.frames_dropped_down.add(dropped as u64);
    }

    /// Up to about [`WRITE_BYTES`] of frames, ready to be written.
    fn take(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let mut frames = 0;
        let mut bytes = 0;
        for body in &state.bodies {
            frames += 1;
            bytes += body.len() + frame::HEADER_BYTES;
            if bytes >= WRITE_BYTES {
                break;
            }
        }
        if frames == 0 {
            return None;
        }
        let bodies: Vec<Bytes> = state.bodies.drain(..frames).collect();
        state.bytes -= bytes;
        drop(state);
        // Copied outside of the lock, which the sender's thread takes for each message.
        let mut out = BytesMut::with_capacity(bytes);
        for body in &bodies {
            frame::put_frame(&mut out, FrameKind::Message, body);
        }
        self.counters.frames_sent.add(frames as u64);
        self.counters.bytes_sent.add(bytes as u64);
        Some(out.freeze())
    }
}

/// One link's task.
pub(super) struct LinkTask {
    pub(super) peer: NodeId,
    pub(super) lane: Lane,
    pub(super) address: watch::Receiver<PeerAddress>,
    pub(super) outbox: Arc<Outbox>,
    /// Somebody saw the peer alive: dial now.
    pub(super) nudge: Arc<Notify>,
    pub(super) context: Arc<LinkContext>,
    pub(super) stop: CancellationToken,
    pub(super) beat: Beat,
}

struct OpenLink {
    connection: Connection,
    channel: RawChannel,
    /// Of the trust, since before the peer was judged.
    changes: Changes,
}

/// Why there is no link.
struct Failure {
    refused: bool,
    text: String,
}

impl Failure {
    fn other(text: String) -> Failure {
        Failure { refused: false, text }
    }
}

/// How the wait before the next dial ended.
#[derive(PartialEq)]
enum Woken {
    Nudged,
    TimeIsUp,
}

impl LinkTask {
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_up() => {}
        }
        self.outbox.set_up(false);
    }

    async fn keep_up(&mut self) {
        let mut failures = 0_u32;
        let mut last_text = String::new();
        loop {
            match self.open().await {
                Ok(link) => {
                    last_text.clear();
                    if self.use_link(link).await >= STEADY {
                        failures = 0;
                    }
                }
                Err(failure) => {
                    self.context.counters.dials_failed.increment();
                    let (peer, lane, name) = (self.peer, self.lane, self.name());
                    if failure.text == last_text {
                        let error = &failure.text;
                        debug!(peer = %name, ?lane, error, "still no link to the peer");
                    } else {
                        let error = &failure.text;
                        warn!(peer = %name, ?lane, error, "no link to the peer");
                        last_text = failure.text.clone();
                        // No evidence of a death: nothing was up before.
                        let down = LinkDown { refused: false, error: failure.text };
                        self.context.events.link_down(peer, lane, down);
                    }
                }
            }
            match self.pause(failures).await {
                Woken::Nudged => failures = 0,
                Woken::TimeIsUp => failures = failures.saturating_add(1),
            }
        }
    }

    /// Uses links until one could not be replaced by a quick dial, or they do not hold. Answers how
    /// long the last one held.
    async fn use_link(&mut self, mut link: OpenLink) -> Duration {
        let mut unsteady = 0;
        loop {
            let since = tokio::time::Instant::now();
            let why = self.pump(link).await;
            let held = since.elapsed();
            unsteady = if held < STEADY { unsteady + 1 } else { 0 };
            match self.probe(why, held).await {
                Some(next) if unsteady < UNSTEADY_MAX => link = next,
                _ => return held,
            }
        }
    }

    /// Sends what waits until the link breaks; answers why it did.
    async fn pump(&mut self, link: OpenLink) -> String {
        let (peer, lane) = (self.peer, self.lane);
        self.address.mark_unchanged();
        self.outbox.set_up(true);
        self.context.counters.links_up.increment();
        info!(peer = %self.name(), ?lane, "link up");
        self.context.events.link_up(peer, lane);
        let OpenLink { connection, channel, changes } = link;
        let (beat, limit) = (&self.beat, self.context.settings.send_timeout);
        let why = tokio::select! {
            why = write_frames(&channel, &self.outbox, limit, beat) => why,
            why = broken(&channel) => why,
            why = disowned(&self.context, &connection, changes) => why,
            _changed = self.address.changed() => "the peer's address changed".to_string(),
        };
        // The connection may be stuck; nothing on it is worth a goodbye.
        connection.cut();
        self.outbox.set_up(false);
        self.context.counters.links_down.increment();
        why
    }

    /// Dials a peer whose link just broke, and reports what that shows.
    async fn probe(&mut self, why: String, held: Duration) -> Option<OpenLink> {
        let (peer, lane) = (self.peer, self.lane);
        info!(peer = %self.name(), ?lane, ?held, error = why, "link down");
        let down = LinkDown { refused: false, error: why };
        self.context.events.link_down(peer, lane, down);
        for pause in PROBES {
            tokio::time::sleep(pause).await;
            match self.open().await {
                Ok(link) => return Some(link),
                Err(failure) if failure.refused => {
                    let down = LinkDown { refused: true, error: failure.text };
                    let (peer_name, error) = (self.name(), &down.error);
                    info!(peer = %peer_name, ?lane, error, "nobody listens at the peer any more");
                    self.context.events.link_down(peer, lane, down);
                    return None;
                }
                Err(failure) => {
                    debug!(peer = %self.name(), ?lane, error = failure.text, "probe failed")
                }
            }
        }
        None
    }

    /// What the peer is called.
    fn name(&self) -> String {
        self.address.borrow().name.clone()
    }

    /// Waits before the next dial: up to twice as long after each failure, at a random point of
    /// that time, so that nodes that lost one another do not meet in step.
    async fn pause(&mut self, failures: u32) -> Woken {
        self.beat.idle();
        let settings = &self.context.settings;
        let ceiling = settings.redial_min.saturating_mul(1 << failures.min(16));
        let pause = ceiling.min(settings.redial_max).mul_f64(rand::random::<f64>());
        tokio::select! {
            () = tokio::time::sleep(pause) => Woken::TimeIsUp,
            () = self.nudge.notified() => Woken::Nudged,
            changed = self.address.changed() => match changed {
                Ok(()) => Woken::Nudged,
                // Nobody can change it any more: the link is about to be stopped.
                Err(_) => std::future::pending().await,
            },
        }
    }

    async fn open(&self) -> Result<OpenLink, Failure> {
        self.beat.busy(Work::Dialling);
        let address = self.address.borrow().clone();
        let context = &self.context;
        let changes = context.trust.changes();
        let (host, port) =
            client::parse_address(&address.address).map_err(|e| Failure::other(e.to_string()))?;
        let endpoint = Endpoint {
            host,
            port,
            host_principal: identity::host_principal(&address.name, &context.local.cluster),
            check: HostCheck::Trust(context.trust.clone()),
            by_way_of: None,
        };
        let keys = context.keys.load_full();
        // russh turns an expired certificate away before the other side's own checks see it. They
        // know the bare key of a member, and whether to bear with it is theirs to say.
        let identity = match keys.peer_certificate_expired(SystemTime::now()) {
            true => ClientIdentity::Key(keys.peer_key.clone()),
            false => ClientIdentity::Certificate {
                key: keys.peer_key.clone(),
                certificate: Box::new(keys.peer_certificate.clone()),
            },
        };
        let connection = client::dial_as(Dialler::Peer, &endpoint, &identity, &context.settings)
            .await
            .map_err(|e| Failure { refused: e.is_refused(), text: e.to_string() })?;
        let greeted =
            tokio::time::timeout(context.settings.dial_timeout, self.greet(&connection)).await;
        match greeted {
            Ok(Ok(channel)) => Ok(OpenLink { connection, channel, changes }),
            Ok(Err(text)) => {
                connection.cut();
                Err(Failure::other(format!("{endpoint}: {text}")))
            }
            Err(_) => {
                connection.cut();
                let text =
                    "it let us in, but did not greet us in time; it is overloaded or stopped";
                Err(Failure::other(format!("{endpoint}: {text}")))
            }
        }
    }

    /// Opens the lane and exchanges the first frames.
    async fn greet(&self, connection: &Connection) -> Result<RawChannel, String> {
        let request = Request::Subsystem(self.lane.subsystem());
        let channel = connection.open(request).await.map_err(|e| e.to_string())?;
        let ours = our_hello(&self.context.local);
        let mut out = BytesMut::new();
        frame::put_frame(&mut out, FrameKind::Hello, &frame::encode_hello(&ours));
        channel.write.data_bytes(out.freeze()).await.map_err(|e| e.to_string())?;
        let mut decoder = FrameDecoder::new();
        loop {
            match channel.next().await {
                ChannelEvent::Stdout(bytes) => {
                    let mut input = &bytes[..];
                    let Some(first) = decoder.next(&mut input).map_err(|e| e.to_string())? else {
                        continue;
                    };
                    if first.kind != FrameKind::Hello {
                        return Err("its first frame is no hello".to_string());
                    }
                    let theirs = frame::decode_hello(&first.body).map_err(|e| e.to_string())?;
                    check_hello(&ours, &theirs, self.peer)?;
                    return Ok(channel);
                }
                ChannelEvent::Closed(reason) => return Err(reason),
                ChannelEvent::Stderr(_) | ChannelEvent::Exit(_) => {}
            }
        }
    }
}

async fn write_frames(
    channel: &RawChannel,
    outbox: &Outbox,
    limit: Duration,
    beat: &Beat,
) -> String {
    loop {
        let ready = outbox.ready.notified();
        match outbox.take() {
            None => {
                // There may be nothing to say for ever; `broken` tells when nobody listens.
                beat.idle();
                ready.await;
            }
            Some(bytes) => {
                beat.busy(Work::Sending);
                // A peer can answer keepalives and yet take nothing.
                match tokio::time::timeout(limit, channel.write.data_bytes(bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_elapsed) => {
                        return format!("the peer took nothing of what was sent for {limit:?}");
                    }
                }
            }
        }
    }
}

/// Resolves when the peer is not believed any more to be itself.
async fn disowned(context: &LinkContext, connection: &Connection, changes: Changes) -> String {
    // Nobody gets through a handshake without having proved something.
    let Some(host) = connection.host() else { return std::future::pending().await };
    let why = context.trust.until_disowned(changes, host).await;
    context.counters.disowned.increment();
    format!("the peer is not believed any more: {why}")
}

/// Resolves when the link is over. Nothing else comes from a listener after its greeting.
async fn broken(channel: &RawChannel) -> String {
    loop {
        if let ChannelEvent::Closed(reason) = channel.next().await {
            return reason;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(bytes_max: usize) -> Outbox {
        Outbox::new(bytes_max, Arc::new(Counters::default()))
    }

    #[test]
    fn without_a_link_nothing_is_kept() {
        let outbox = outbox(1000);
        outbox.push(Bytes::from_static(b"lost"));
        assert!(outbox.take().is_none());
        outbox.set_up(true);
        outbox.push(Bytes::from_static(b"waits"));
        outbox.set_up(false);
        outbox.set_up(true);
        assert!(outbox.take().is_none());
        assert_eq!(outbox.counters.frames_dropped_down.value(), 2);
    }

    #[test]
    fn a_full_outbox_drops_the_newest() {
        let outbox = outbox(2 * (10 + frame::HEADER_BYTES));
        outbox.set_up(true);
        for n in 0..5_u8 {
            outbox.push(Bytes::from(vec![n; 10]));
        }
        assert_eq!(outbox.counters.frames_dropped_full.value(), 3);
        let taken = outbox.take().unwrap();
        assert_eq!(taken[frame::HEADER_BYTES], 0);
        assert_eq!(taken[taken.len() - 1], 1);
        assert_eq!(outbox.lock().bytes, 0);
    }

    #[test]
    fn small_frames_share_a_write_and_a_large_one_fits_an_empty_box() {
        let outbox = outbox(1 << 20);
        outbox.set_up(true);
        for _ in 0..1000 {
            outbox.push(Bytes::from(vec![0; 250]));
        }
        let first = outbox.take().unwrap();
        assert!(first.len() >= WRITE_BYTES && first.len() < WRITE_BYTES + 256);
        while outbox.take().is_some() {}
        outbox.push(Bytes::from(vec![0; 2 << 20]));
        assert_eq!(outbox.counters.frames_dropped_full.value(), 0);
    }
}
