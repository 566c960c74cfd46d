//! Nodes that have nothing but a transport, each on a runtime of its own so that it can die like a
//! process.

#![allow(dead_code, reason = "each test program uses a part of it")]

use arc_swap::ArcSwap;
use bytes::Bytes;
use paxos_ssh::paxos::ballot::{ClusterId, NodeId};
use paxos_ssh::telemetry::watchdog::Watchdog;
use paxos_ssh::transport::bundle::{
    Authority, AuthorityRole, AuthorityStage, Bundle, Revocation, fingerprint,
};
use paxos_ssh::transport::client::{
    self, ChannelEvent, ClientIdentity, Connection, DialError, Endpoint, ExecChannel, HostCheck,
};
use paxos_ssh::transport::counters::Counters;
use paxos_ssh::transport::identity::{self, ListedKey, NodeKeys, PeerExpiry, Principal, Trust};
use paxos_ssh::transport::live::LiveTrust;
use paxos_ssh::transport::peers::{PeerAddress, Peers, PeersOptions};
use paxos_ssh::transport::rights::Rights;
use paxos_ssh::transport::server::{
    BindError, LinkDown, PeerEvents, Server, ServerOptions, Sessions,
};
use paxos_ssh::transport::session::{ExecRequest, ExecSession};
use paxos_ssh::transport::settings::Settings;
use paxos_ssh::transport::{Lane, LocalNode};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Whatever should happen does so well within this time, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(LONG, future).await;
    waited.unwrap_or_else(|_| panic!("waited {LONG:?} for {what}"))
}

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

fn certify(
    subject: &PublicKey,
    authority: &PrivateKey,
    kind: CertType,
    key_id: &str,
    principals: &[String],
) -> Certificate {
    certify_for(3600, subject, authority, kind, key_id, principals)
}

/// A certificate that ends in so many seconds, which may be in the past.
fn certify_for(
    seconds: i64,
    subject: &PublicKey,
    authority: &PrivateKey,
    kind: CertType,
    key_id: &str,
    principals: &[String],
) -> Certificate {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (rng, end) = (&mut rand::rng(), now.checked_add_signed(seconds).unwrap());
    let mut builder =
        Builder::new_with_random_nonce(rng, subject.clone(), now - 9000, end).unwrap();
    builder.serial(7).unwrap();
    builder.key_id(key_id).unwrap();
    builder.cert_type(kind).unwrap();
    for principal in principals {
        builder.valid_principal(principal).unwrap();
    }
    builder.sign(authority).unwrap()
}

/// The authorities of one cluster, named `test`.
pub(crate) struct Cluster {
    host: PrivateKey,
    peer: PrivateKey,
    operator: PrivateKey,
    listed: Mutex<Vec<ListedKey>>,
    prepared: Mutex<HashMap<u64, NodeKeys>>,
    trust: Arc<LiveTrust>,
}

const NAME: &str = "test";

impl Cluster {
    pub(crate) fn new() -> Cluster {
        let (host, peer, operator) = (new_key(), new_key(), new_key());
        let trust = Trust::new(bundle(&host, &peer, &operator), Vec::new());
        let trust = Arc::new(LiveTrust::new(trust));
        Cluster {
            host,
            peer,
            operator,
            listed: Mutex::default(),
            prepared: Mutex::default(),
            trust,
        }
    }

    pub(crate) fn host_authority(&self) -> PublicKey {
        self.host.public_key().clone()
    }

    /// A plain key that the inventory lists.
    pub(crate) fn listed_key(&self, name: &str) -> ClientIdentity {
        let key = new_key();
        let mut listed = self.listed.lock().unwrap();
        let rights = Rights::all();
        listed.push(ListedKey { name: name.to_string(), rights, key: key.public_key().clone() });
        let bundle = bundle(&self.host, &self.peer, &self.operator);
        self.trust.replace(Trust::new(bundle, listed.clone()));
        ClientIdentity::Key(Arc::new(key))
    }

    fn person_certificate(&self, key: &PrivateKey, name: &str, kind: CertType) -> Certificate {
        let principals =
            [identity::person_principal(name, NAME), identity::right_principal("admin", NAME)];
        let key_id = format!("{name}@{NAME}/7");
        certify(key.public_key(), &self.operator, kind, &key_id, &principals)
    }

    pub(crate) fn person(&self, name: &str) -> ClientIdentity {
        let key = new_key();
        let certificate = Box::new(self.person_certificate(&key, name, CertType::User));
        ClientIdentity::Certificate { key: Arc::new(key), certificate }
    }

    /// A host certificate in place of a person's.
    pub(crate) fn wrong_type(&self, name: &str) -> ClientIdentity {
        let key = new_key();
        let certificate = Box::new(self.person_certificate(&key, name, CertType::Host));
        ClientIdentity::Certificate { key: Arc::new(key), certificate }
    }

    /// Two members, the second of which will show a certificate that ran out an hour ago.
    pub(crate) fn expire_two(&self, peer_expiry: PeerExpiry) {
        let mut keys = self.keys(2);
        let names = [identity::node_principal(NodeId(2), NAME)];
        let public = keys.peer_key.public_key();
        keys.peer_certificate =
            certify_for(-3600, public, &self.peer, CertType::User, "peer", &names);
        let (root, directory) = (new_key(), tempfile::tempdir().unwrap());
        let write = |name, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write(identity::ROOT, &root.public_key().to_openssh().unwrap());
        let bundle = bundle(&self.host, &self.peer, &self.operator);
        write(identity::BUNDLE, &bundle.sign(&root).unwrap());
        write(identity::MEMBERS, &keys.peer_certificate.to_openssh().unwrap());
        let members = [1, 2].map(|id| (NodeId(id), format!("node{id}")));
        let trust = Trust::load(directory.path()).unwrap();
        let trust = trust.with_members(members.into()).with_peer_expiry(peer_expiry);
        self.trust.replace(trust);
        self.prepared.lock().unwrap().insert(2, keys);
    }

    fn keys(&self, id: u64) -> NodeKeys {
        if let Some(prepared) = self.prepared.lock().unwrap().get(&id) {
            return prepared.clone();
        }
        let key = new_key();
        let host = [identity::host_principal(&format!("node{id}"), NAME)];
        let peer = [identity::node_principal(NodeId(id), NAME)];
        let public = key.public_key();
        let host_certificate = certify(public, &self.host, CertType::Host, "host", &host);
        let peer_certificate = certify(public, &self.peer, CertType::User, "peer", &peer);
        let key = Arc::new(key);
        NodeKeys { host_key: Arc::clone(&key), host_certificate, peer_key: key, peer_certificate }
    }

    /// The fingerprint of the key that this node will have, whenever it is started.
    pub(crate) fn prepare(&self, id: u64) -> String {
        let keys = self.keys(id);
        let print = fingerprint(keys.host_key.public_key());
        self.prepared.lock().unwrap().insert(id, keys);
        print
    }

    /// A person whose certificate ends in so many seconds.
    pub(crate) fn person_for(&self, seconds: i64, name: &str) -> ClientIdentity {
        let key = new_key();
        let names =
            [identity::person_principal(name, NAME), identity::right_principal("admin", NAME)];
        let (public, key_id) = (key.public_key(), format!("{name}@{NAME}/7"));
        let certificate =
            certify_for(seconds, public, &self.operator, CertType::User, &key_id, &names);
        let certificate = Box::new(certificate);
        ClientIdentity::Certificate { key: Arc::new(key), certificate }
    }

    /// Has every node believe in another bundle and other plain keys from now on.
    pub(crate) fn believe(
        &self,
        change: impl FnOnce(&mut Bundle),
        rights: impl Fn(&str) -> Rights,
    ) {
        let mut bundle = bundle(&self.host, &self.peer, &self.operator);
        bundle.epoch = self.trust.load().epoch() + 1;
        change(&mut bundle);
        let mut listed = self.listed.lock().unwrap();
        for listed in listed.iter_mut() {
            listed.rights = rights(&listed.name);
        }
        self.trust.replace(Trust::new(bundle, listed.clone()));
    }

    /// Revokes these, and nothing else.
    pub(crate) fn revoke(&self, revocations: &[Revocation]) {
        self.believe(|bundle| bundle.revocations = revocations.to_vec(), |_| Rights::all());
    }

    /// What a node shows to those it dials.
    pub(crate) fn peer(&self, id: u64) -> ClientIdentity {
        let keys = self.keys(id);
        let certificate = Box::new(keys.peer_certificate);
        ClientIdentity::Certificate { key: keys.peer_key, certificate }
    }

    pub(crate) async fn node(&self, id: u64, settings: Settings) -> TestNode {
        self.node_at(id, "127.0.0.1:0", settings).await
    }

    pub(crate) async fn node_at(&self, id: u64, listen: &str, settings: Settings) -> TestNode {
        TestNode::start(self, id, listen, settings).await
    }

    /// What binding to an address that cannot be had says.
    pub(crate) async fn bind_error(&self, listen: &str) -> String {
        self.bind(&[listen.to_owned()]).await.err().unwrap().to_string()
    }

    /// A server that listens and does not answer.
    pub(crate) async fn bind(&self, listen: &[String]) -> Result<Server, BindError> {
        let options = ServerOptions {
            local: local(9),
            settings: Settings::default(),
            trust: self.trust.clone(),
            keys: Arc::new(ArcSwap::from_pointee(self.keys(9))),
            peers: Arc::new(Recorder::default()),
            sessions: Arc::new(Answers(Arc::default())),
            counters: Arc::default(),
            watchdog: Watchdog::default(),
        };
        Server::bind(listen, options).await
    }

    /// Two nodes with links both ways on both lanes.
    pub(crate) async fn pair(&self, settings: Settings) -> (TestNode, TestNode) {
        let one = self.node(1, settings.clone()).await;
        let two = self.node(2, settings).await;
        one.know(&[&two]);
        two.know(&[&one]);
        within("links", one.events.wait_ups(NodeId(2), 2)).await;
        within("links", two.events.wait_ups(NodeId(1), 2)).await;
        (one, two)
    }

    /// A third node, known to `one`, that can be frozen as SIGSTOP freezes a process.
    pub(crate) async fn stuck_peer(&self, one: &TestNode, id: u64) -> StuckPeer {
        let node = self.node(id, Settings::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peers = one.known.lock().unwrap().clone();
        let address = listener.local_addr().unwrap().to_string();
        peers.push(PeerAddress { address, ..node.as_peer() });
        one.peers.set_members(peers);
        let frozen = CancellationToken::new();
        let ice = frozen.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(node.address).await.unwrap();
                let ice = ice.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ended = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = ice.cancelled() => std::future::pending().await,
                    }
                });
            }
            drop(node);
        });
        StuckPeer { frozen }
    }
}

fn local(id: u64) -> LocalNode {
    LocalNode { id: NodeId(id), cluster: NAME.to_string(), cluster_id: "c1".to_string() }
}

fn bundle(host: &PrivateKey, peer: &PrivateKey, operator: &PrivateKey) -> Bundle {
    let authority = |role, key: &PrivateKey| Authority {
        role,
        stage: AuthorityStage::Current,
        key: key.public_key().clone(),
    };
    Bundle {
        epoch: 1,
        cluster: NAME.to_string(),
        cluster_id: ClusterId(1),
        authorities: vec![
            authority(AuthorityRole::Host, host),
            authority(AuthorityRole::Peer, peer),
            authority(AuthorityRole::Operator, operator),
        ],
        revocations: Vec::new(),
    }
}

pub(crate) struct StuckPeer {
    frozen: CancellationToken,
}

impl StuckPeer {
    pub(crate) fn freeze(&mut self) {
        self.frozen.cancel();
    }
}

pub(crate) type ReceivedFrame = (NodeId, Lane, Bytes);

/// Notes what the transport tells.
#[derive(Default)]
pub(crate) struct Recorder {
    state: Mutex<Recorded>,
    changed: Notify,
    /// Counts bytes instead of keeping frames.
    pub(crate) counts_only: AtomicBool,
    pub(crate) bytes: AtomicU64,
    peers: OnceLock<Weak<Peers>>,
}

#[derive(Default)]
struct Recorded {
    frames: Vec<ReceivedFrame>,
    ups: HashMap<NodeId, usize>,
    downs: Vec<(NodeId, LinkDown)>,
}

impl Recorder {
    async fn wait<T>(&self, mut found: impl FnMut(&Recorded) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(result) = found(&self.state.lock().unwrap()) {
                return result;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Recorded)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
    }

    pub(crate) fn frames(&self) -> Vec<ReceivedFrame> {
        self.state.lock().unwrap().frames.clone()
    }

    pub(crate) fn downs(&self) -> Vec<(NodeId, LinkDown)> {
        self.state.lock().unwrap().downs.clone()
    }

    pub(crate) async fn wait_frames(&self, count: usize) -> Vec<ReceivedFrame> {
        self.wait(|r| (r.frames.len() >= count).then(|| r.frames.clone())).await
    }

    pub(crate) async fn wait_up(&self, peer: NodeId) {
        self.wait_ups(peer, 1).await;
    }

    /// Links to `peer` came up this often, over all lanes.
    pub(crate) async fn wait_ups(&self, peer: NodeId, count: usize) {
        self.wait(|r| r.ups.get(&peer).is_some_and(|ups| *ups >= count).then_some(())).await;
    }

    /// A link to `peer` went down this often.
    pub(crate) async fn wait_downs(&self, peer: NodeId, count: usize) {
        let downs = |r: &Recorded| r.downs.iter().filter(|(id, _)| *id == peer).count();
        self.wait(|r| (downs(r) >= count).then_some(())).await;
    }

    pub(crate) async fn wait_refused(&self, peer: NodeId) -> LinkDown {
        let refused = |r: &Recorded| {
            let found = r.downs.iter().find(|(id, down)| *id == peer && down.refused);
            found.map(|(_, down)| down.clone())
        };
        self.wait(refused).await
    }
}

impl PeerEvents for Recorder {
    fn frame(&self, from: NodeId, lane: Lane, body: Bytes) {
        if self.counts_only.load(Ordering::Relaxed) {
            self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        } else {
            self.change(|r| r.frames.push((from, lane, body)));
        }
    }

    fn greeted(&self, from: NodeId, _lane: Lane) {
        if let Some(peers) = self.peers.get().and_then(Weak::upgrade) {
            peers.nudge(from);
        }
    }

    fn link_up(&self, peer: NodeId, _lane: Lane) {
        self.change(|r| *r.ups.entry(peer).or_default() += 1);
    }

    fn link_down(&self, peer: NodeId, _lane: Lane, why: LinkDown) {
        self.change(|r| r.downs.push((peer, why)));
    }
}

/// What the answering side of a test shares with the test.
#[derive(Default)]
pub(crate) struct Controls {
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) stuck: Arc<AtomicBool>,
    pub(crate) go: Arc<Notify>,
}

impl Controls {
    fn note(&self, text: String) {
        self.seen.lock().unwrap().push(text);
        self.changed.notify_waiters();
    }
}

struct Answers(Arc<Controls>);

impl Sessions for Answers {
    fn start(&self, session: ExecSession) {
        let name = match &session.principal {
            Principal::Person { name, .. } => name.clone(),
            other => format!("{other:?}"),
        };
        let request = match &session.request {
            ExecRequest::Exec(words) => format!("Exec({:?})", String::from_utf8_lossy(words)),
            other => format!("{other:?}"),
        };
        self.0.note(format!("{name} {request}"));
        tokio::spawn(answer(session, self.0.clone()));
    }
}

/// Answers the few commands that the tests need.
pub(crate) async fn answer(session: ExecSession, controls: Arc<Controls>) {
    let ExecSession { request, mut stdin, output, pty, .. } = session;
    let words = match &request {
        ExecRequest::Exec(words) => String::from_utf8_lossy(words).into_owned(),
        ExecRequest::Shell => "shell".to_string(),
        ExecRequest::Subsystem(_) => "cat".to_string(),
    };
    let words: Vec<&str> = words.split(' ').collect();
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match words[..] {
        ["both", out, err, code] => {
            output.stdout(text(out)).await.unwrap();
            output.stderr(text(err)).await.unwrap();
            output.finish(code.parse().unwrap()).await;
        }
        ["cat"] => {
            while let Some(piece) = stdin.next().await {
                if output.stdout(piece).await.is_err() {
                    return;
                }
            }
            output.finish(0).await;
        }
        ["slow"] => {
            let go = controls.go.notified();
            let mut bytes = stdin.next().await.map_or(0, |piece| piece.len());
            controls.stuck.store(true, Ordering::Relaxed);
            go.await;
            while let Some(piece) = stdin.next().await {
                bytes += piece.len();
            }
            output.stdout(text(&bytes.to_string())).await.unwrap();
            output.finish(0).await;
        }
        ["talk", bytes] => {
            let bytes: usize = bytes.parse().unwrap();
            let listening = tokio::spawn(async move { while stdin.next().await.is_some() {} });
            let piece = Bytes::from(vec![6; 50_000]);
            for _ in 0..bytes / piece.len() {
                output.stdout(piece.clone()).await.unwrap();
            }
            listening.await.unwrap();
            output.finish(0).await;
        }
        ["wait"] => {
            output.gone().await;
            match output.stderr(text("interrupted")).await {
                Ok(()) => output.finish(130).await,
                Err(_) => controls.note("gone".to_string()),
            }
        }
        ["shell"] => {
            if let Some(pty) = pty {
                assert!(!pty.term.is_empty());
                controls.note("pty".to_string());
            }
            output.stdout(text("shell")).await.unwrap();
            output.finish(64).await;
        }
        ["drop"] => {}
        _ => panic!("no such test command: {words:?}"),
    }
}

/// One node: a server, links, and nothing behind them.
pub(crate) struct TestNode {
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    pub(crate) peers: Arc<Peers>,
    pub(crate) events: Arc<Recorder>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    pub(crate) stuck: Arc<AtomicBool>,
    pub(crate) go: Arc<Notify>,
    changed: Arc<Notify>,
    known: Mutex<Vec<PeerAddress>>,
    stop: CancellationToken,
    stopped: CancellationToken,
    trust: Arc<LiveTrust>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl TestNode {
    async fn start(cluster: &Cluster, id: u64, listen: &str, settings: Settings) -> TestNode {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let events = Arc::new(Recorder::default());
        let counters = Arc::new(Counters::default());
        let controls = Arc::new(Controls::default());
        let local = local(id);
        let keys = Arc::new(ArcSwap::from_pointee(cluster.keys(id)));
        let options = PeersOptions {
            local: local.clone(),
            settings: settings.clone(),
            trust: cluster.trust.clone(),
            keys: keys.clone(),
            counters: counters.clone(),
            watchdog: Watchdog::default(),
        };
        let of_peers: Arc<dyn PeerEvents> = events.clone();
        let entered = runtime.enter();
        let peers = Arc::new(Peers::start(options, of_peers.clone()));
        drop(entered);
        events.peers.set(Arc::downgrade(&peers)).unwrap();
        let options = ServerOptions {
            local,
            settings,
            trust: cluster.trust.clone(),
            keys,
            peers: of_peers,
            sessions: Arc::new(Answers(controls.clone())),
            counters: counters.clone(),
            watchdog: Watchdog::default(),
        };
        let listen = vec![listen.to_string()];
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let (asked, done) = (stop.clone(), stopped.clone());
        let binding = runtime.spawn(async move {
            let server = Server::bind(&listen, options).await.unwrap();
            let address = server.addresses()[0];
            tokio::spawn(async move {
                server.run(asked).await;
                done.cancel();
            });
            address
        });
        let address = binding.await.unwrap();
        TestNode {
            id,
            address,
            peers,
            events,
            counters,
            seen: controls.seen.clone(),
            stuck: controls.stuck.clone(),
            go: controls.go.clone(),
            changed: controls.changed.clone(),
            known: Mutex::default(),
            stop,
            stopped,
            trust: cluster.trust.clone(),
            runtime: Some(runtime),
        }
    }

    pub(crate) fn as_peer(&self) -> PeerAddress {
        self.as_peer_with_id(self.id)
    }

    pub(crate) fn as_peer_with_id(&self, id: u64) -> PeerAddress {
        let name = format!("node{}", self.id);
        PeerAddress { id: NodeId(id), name, address: self.address.to_string() }
    }

    pub(crate) fn know(&self, peers: &[&TestNode]) {
        let peers: Vec<_> = peers.iter().map(|peer| peer.as_peer()).collect();
        *self.known.lock().unwrap() = peers.clone();
        self.peers.set_members(peers);
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            host_principal: identity::host_principal(&format!("node{}", self.id), NAME),
            check: HostCheck::Trust(self.trust.clone()),
            by_way_of: None,
        }
    }

    pub(crate) async fn dial_as(&self, identity: &ClientIdentity) -> Result<Connection, DialError> {
        client::dial(&self.endpoint(), identity, &Settings::default()).await
    }

    pub(crate) async fn wait_seen(&self, text: &str) {
        self.wait_seen_times(text, 1).await;
    }

    pub(crate) async fn wait_seen_times(&self, text: &str, times: usize) {
        within(text, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.seen.lock().unwrap().iter().filter(|seen| *seen == text).count() >= times {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    /// Stops the server in good order.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        within("the server to stop", self.stopped.cancelled()).await;
    }

    /// Ends it as `kill -9` ends a process: its sockets close, and nobody says goodbye.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Everything that comes out of a channel until it closes.
pub(crate) async fn collect(channel: &mut ExecChannel) -> (Vec<u8>, Vec<u8>, Option<u32>) {
    let (mut out, mut err, mut exit) = (Vec::new(), Vec::new(), None);
    loop {
        match channel.next().await {
            ChannelEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
            ChannelEvent::Stderr(bytes) => err.extend_from_slice(&bytes),
            ChannelEvent::Exit(status) => exit = Some(status),
            ChannelEvent::Closed(_) => return (out, err, exit),
        }
    }
}

/// Sends from each to the other as fast as it goes for a time, and demands progress in each tenth
/// of it.
pub(crate) async fn flood(
    one: &TestNode,
    two: &TestNode,
    time: Duration,
    body_bytes: usize,
) -> String {
    for node in [one, two] {
        node.events.counts_only.store(true, Ordering::Relaxed);
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for (from, to) in [(one, two), (two, one)] {
        let (peers, counters) = (from.peers.clone(), from.counters.clone());
        let (to, over) = (NodeId(to.id), over.clone());
        let body = Bytes::from(vec![8; body_bytes]);
        senders.push(tokio::spawn(async move {
            let mut sent = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let dropped = counters.frames_dropped_full.value();
                for _ in 0..64 {
                    peers.send(to, Lane::Consensus, body.clone());
                    sent += 1;
                }
                if counters.frames_dropped_full.value() > dropped {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            sent
        }));
    }
    let started = Instant::now();
    let mut before = [0, 0];
    for tenth in 1..=10 {
        tokio::time::sleep(time / 10).await;
        let now = [one, two].map(|node| node.events.bytes.load(Ordering::Relaxed));
        for (now, before) in now.iter().zip(before) {
            assert!(*now > before, "no progress in tenth {tenth}");
        }
        before = now;
    }
    let seconds = started.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.await.unwrap());
    }
    // Nothing but what was dropped for lack of room is missing.
    for (n, (from, to)) in [(one, two), (two, one)].into_iter().enumerate() {
        within("the rest of the flood", async {
            loop {
                let dropped = from.counters.frames_dropped_full.value()
                    + from.counters.frames_dropped_down.value();
                if to.counters.frames_received.value() + dropped == sent[n] {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
    let rate = |bytes: u64| format!("{:.0} MB/s", bytes as f64 / seconds / 1e6);
    format!("{} and {} in {seconds:.1} s", rate(before[0]), rate(before[1]))
}

/// The stock client, set up for one node.
pub(crate) struct Stock {
    pub(crate) node: TestNode,
    pub(crate) directory: tempfile::TempDir,
    _cluster: Cluster,
}

impl Stock {
    /// `None` (and a note) where there is no stock client.
    pub(crate) async fn new() -> Option<Stock> {
        if std::process::Command::new("ssh").arg("-V").stderr(Stdio::null()).status().is_err() {
            eprintln!("skipped: no ssh on this machine");
            return None;
        }
        let cluster = Cluster::new();
        let node = cluster.node(1, Settings::default()).await;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let authority = cluster.host_authority().to_openssh().unwrap();
        let known = format!("@cert-authority *.{NAME}.paxos {authority}\n");
        std::fs::write(path("known_hosts"), known).unwrap();
        let config = format!(
            "Host node1\n HostName 127.0.0.1\n Port {}\n HostKeyAlias node1.{NAME}.paxos\n \
             UserKnownHostsFile {}\n GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n \
             IdentitiesOnly yes\n IdentityAgent none\n IdentityFile {}\n CertificateFile {}\n \
             BatchMode yes\n LogLevel ERROR\n",
            node.address.port(),
            path("known_hosts"),
            path("key"),
            path("key-cert.pub"),
        );
        std::fs::write(path("config"), config).unwrap();
        let key = new_key();
        let certificate = cluster.person_certificate(&key, "alice", CertType::User);
        let stock = Stock { node, directory, _cluster: cluster };
        stock.write_identity(&key, Some(&certificate));
        Some(stock)
    }

    pub(crate) fn write_identity(&self, key: &PrivateKey, certificate: Option<&Certificate>) {
        let path = |name: &str| self.directory.path().join(name);
        write_private(&path("key"), &key.to_openssh(LineEnding::LF).unwrap());
        match certificate {
            Some(certificate) => {
                std::fs::write(path("key-cert.pub"), certificate.to_openssh().unwrap()).unwrap();
            }
            None => std::fs::remove_file(path("key-cert.pub")).unwrap(),
        }
    }

    pub(crate) async fn run(&self, words: &[&str], input: &[u8]) -> Finished {
        self.run_with(&[], words, input).await
    }

    pub(crate) async fn run_with(
        &self,
        options: &[&str],
        words: &[&str],
        input: &[u8],
    ) -> Finished {
        let mut command = tokio::process::Command::new("ssh");
        command.arg("-F").arg(self.directory.path().join("config"));
        command.args(options).arg("node1").args(words).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        // A connection shared in the background keeps standard error open; its first words are
        // enough.
        let running = async {
            let writing = async {
                let _closed = stdin.write_all(input).await;
                drop(stdin);
            };
            let reading_errors = async {
                let _some = tokio::time::timeout(
                    Duration::from_millis(if options.contains(&"ControlMaster=auto") {
                        200
                    } else {
                        60_000
                    }),
                    stderr.read_to_end(&mut err),
                )
                .await;
            };
            let (_, read, (), status) =
                tokio::join!(writing, stdout.read_to_end(&mut out), reading_errors, child.wait());
            read.unwrap();
            status.unwrap().code()
        };
        let code = within("ssh", running).await;
        (out, err, code)
    }
}

pub(crate) type Finished = (Vec<u8>, Vec<u8>, Option<i32>);

fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o77, 0);
}
