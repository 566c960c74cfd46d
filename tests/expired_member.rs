//! A member whose certificate has run out, over real connections: it is let in and counted, or
//! refused when the cluster says so. (russh refuses the certificate itself; the node comes with its
//! bare key.)

use arc_swap::ArcSwap;
use bytes::Bytes;
use paxos_ssh::paxos::ballot::{ClusterId, NodeId};
use paxos_ssh::telemetry::watchdog::Watchdog;
use paxos_ssh::transport::authority::{self, PrivateKey, PublicKey, Validity};
use paxos_ssh::transport::bundle::{Authority, AuthorityRole, AuthorityStage, Bundle};
use paxos_ssh::transport::client::{
    self, ClientIdentity, Connection, DialError, Endpoint, HostCheck,
};
use paxos_ssh::transport::counters::Counters;
use paxos_ssh::transport::identity::{NodeKeys, PeerExpiry, Trust};
use paxos_ssh::transport::live::LiveTrust;
use paxos_ssh::transport::peers::{PeerAddress, Peers, PeersOptions};
use paxos_ssh::transport::server::{LinkDown, PeerEvents, Server, ServerOptions, Sessions};
use paxos_ssh::transport::session::ExecSession;
use paxos_ssh::transport::settings::Settings;
use paxos_ssh::transport::{Lane, LocalNode};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

/// Far above what a link on one machine takes, and below what makes a failing test tiresome.
const PATIENCE: Duration = Duration::from_secs(30);

/// One node has links on two lanes to one other; a few more are links that came up again.
const LINKS_MAX: usize = 16;

struct Cluster {
    host: PrivateKey,
    peer: PrivateKey,
    /// Of every certificate made here.
    validity: Validity,
}

/// Hands the links that came up to the test.
struct Events(mpsc::Sender<NodeId>);

impl PeerEvents for Events {
    fn frame(&self, _from: NodeId, _lane: Lane, _body: Bytes) {}

    fn link_up(&self, peer: NodeId, _lane: Lane) {
        // The test may have seen enough and gone.
        self.0.try_send(peer).ok();
    }

    fn link_down(&self, _peer: NodeId, _lane: Lane, _why: LinkDown) {}
}

struct NoSessions;

impl Sessions for NoSessions {
    fn start(&self, _session: ExecSession) {}
}

impl Cluster {
    fn new(validity: Validity) -> Cluster {
        let key = || authority::new_key("").unwrap();
        Cluster { host: key(), peer: key(), validity }
    }

    fn keys(&self, id: u64) -> NodeKeys {
        let key = authority::new_key("").unwrap();
        let (public, name) = (key.public_key(), format!("node{id}"));
        let Cluster { host, peer, validity } = self;
        let host_certificate =
            authority::host_certificate(host, public, &name, "local", 1, *validity).unwrap();
        let peer_certificate =
            authority::peer_certificate(peer, public, NodeId(id), "local", 1, *validity).unwrap();
        let key = Arc::new(key);
        NodeKeys { host_key: Arc::clone(&key), host_certificate, peer_key: key, peer_certificate }
    }

    fn trust(&self, nodes: &[&NodeKeys], members: &[u64], expiry: PeerExpiry) -> Trust {
        let current = |role, key: &PublicKey| Authority {
            role,
            stage: AuthorityStage::Current,
            key: key.clone(),
        };
        let bundle = Bundle {
            epoch: 1,
            cluster: "local".to_owned(),
            cluster_id: ClusterId(7),
            authorities: vec![
                current(AuthorityRole::Host, self.host.public_key()),
                current(AuthorityRole::Peer, self.peer.public_key()),
            ],
            revocations: Vec::new(),
        };
        let members: BTreeMap<_, _> =
            members.iter().map(|id| (NodeId(*id), format!("node{id}"))).collect();
        Trust::new(bundle, Vec::new())
            .with_members(members)
            .with_member_certificates(nodes.iter().map(|n| n.peer_certificate.clone()).collect())
            .with_peer_expiry(expiry)
    }
}

fn local(id: u64) -> LocalNode {
    LocalNode { id: NodeId(id), cluster: "local".to_owned(), cluster_id: "c1".to_owned() }
}

fn shared<T>(value: T) -> Arc<ArcSwap<T>> {
    Arc::new(ArcSwap::from_pointee(value))
}

fn events() -> (Arc<Events>, mpsc::Receiver<NodeId>) {
    let (sender, receiver) = mpsc::channel(LINKS_MAX);
    (Arc::new(Events(sender)), receiver)
}

/// Node 1, which listens, and the keys of node 2, which will dial it.
struct Scene {
    cluster: Cluster,
    one: NodeKeys,
    two: NodeKeys,
    address: SocketAddr,
    counters: Arc<Counters>,
    _running: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Scene {
    async fn new(validity: Validity, members: &[u64], expiry: PeerExpiry) -> Scene {
        let cluster = Cluster::new(validity);
        let (one, two) = (cluster.keys(1), cluster.keys(2));
        let counters = Arc::new(Counters::default());
        let options = ServerOptions {
            local: local(1),
            settings: Settings::default(),
            trust: Arc::new(LiveTrust::new(cluster.trust(&[&one, &two], members, expiry))),
            keys: shared(one.clone()),
            peers: events().0,
            sessions: Arc::new(NoSessions),
            counters: counters.clone(),
            watchdog: Watchdog::default(),
        };
        let server = Server::bind(&["127.0.0.1:0".to_owned()], options).await.unwrap();
        let address = server.addresses()[0];
        let running = tokio::spawn(async move {
            server.run(CancellationToken::new()).await;
        });
        Scene { cluster, one, two, address, counters, _running: AbortOnDrop(running) }
    }

    /// What node 2 believes: it bears with node 1's certificate, so that what is judged is its own.
    fn trust_of_two(&self) -> Arc<LiveTrust> {
        let trust = self.cluster.trust(&[&self.one, &self.two], &[1, 2], PeerExpiry::Warn);
        Arc::new(LiveTrust::new(trust))
    }

    /// Waits for node 2's link to node 1.
    async fn link(&self) {
        let (seen, mut sees) = events();
        let options = PeersOptions {
            local: local(2),
            settings: Settings::default(),
            trust: self.trust_of_two(),
            keys: shared(self.two.clone()),
            counters: Arc::new(Counters::default()),
            watchdog: Watchdog::default(),
        };
        let peers = Peers::start(options, seen);
        let address = self.address.to_string();
        peers.set_members(vec![PeerAddress { id: NodeId(1), name: "node1".to_owned(), address }]);
        let up = tokio::time::timeout(PATIENCE, sees.recv()).await.unwrap();
        assert_eq!(up, Some(NodeId(1)));
    }

    /// Dials once, with the bare key.
    async fn dial(&self) -> Result<Connection, DialError> {
        let endpoint = Endpoint {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            host_principal: "node1.local.paxos".to_owned(),
            check: HostCheck::Trust(self.trust_of_two()),
            by_way_of: None,
        };
        let identity = ClientIdentity::Key(self.two.peer_key.clone());
        client::dial(&endpoint, &identity, &Settings::default()).await
    }
}

fn expired() -> Validity {
    let now = SystemTime::now();
    Validity { after: now - 3 * HOUR, before: now - 2 * HOUR }
}

#[tokio::test]
async fn an_expired_member_is_let_in_and_counted() {
    let scene = Scene::new(expired(), &[1, 2], PeerExpiry::Warn).await;
    scene.link().await;
    assert!(scene.counters.overdue_members.value() > 0);
}

#[tokio::test]
async fn a_valid_member_is_let_in_without_alarm() {
    let valid = Validity::starting(SystemTime::now(), HOUR);
    let scene = Scene::new(valid, &[1, 2], PeerExpiry::Enforce).await;
    scene.link().await;
    assert_eq!(scene.counters.overdue_members.value(), 0);
}

#[tokio::test]
async fn an_expired_member_is_refused_when_dates_are_enforced() {
    let scene = Scene::new(expired(), &[1, 2], PeerExpiry::Enforce).await;
    assert!(matches!(scene.dial().await, Err(DialError::Denied { .. })));
}

#[tokio::test]
async fn an_expired_node_that_is_no_member_is_refused() {
    let scene = Scene::new(expired(), &[1], PeerExpiry::Warn).await;
    assert!(matches!(scene.dial().await, Err(DialError::Denied { .. })));
}
