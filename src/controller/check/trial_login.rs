//! A login from host to host, tried before nodes run there.
//!
//! On one host a stand-in listens where the node is to listen: the very SSH server that a node has,
//! with keys that were drawn for this moment. From the others somebody dials it by the address that
//! nodes will use, checks its host certificate and logs in. What lets this pass lets nodes pass:
//! the same ports, the same handshake. Where a node runs already, it is dialled itself, with the
//! keys of the node on the dialling host, if it has some.
//!
//! What must never happen: something is carried out for whoever logs in (they have no rights, and
//! what they ask for is dropped unread); a private key leaves the process that drew it; a stand-in
//! outlives its purpose (it ends when it is told to, with its process, and after [`LISTEN_LIMIT`]).
//!
//! The cost: one thread on each host, a port that is open for some seconds, and a handshake for
//! each pair of hosts and direction.

use crate::controller::host::{Place, names};
use crate::paxos::ballot::{ClusterId, NodeId};
use crate::telemetry::watchdog::Watchdog;
use crate::transport::authority::{self, IssueError, PrivateKey, PublicKey, Validity};
use crate::transport::bundle::Bundle;
use crate::transport::client::{ClientIdentity, DialError, Endpoint, HostCheck, dial};
use crate::transport::counters::Counters;
use crate::transport::identity::{ListedKey, NodeKeys, Trust};
use crate::transport::live::LiveTrust;
use crate::transport::rights::Rights;
use crate::transport::server::{LinkDown, PeerEvents, Server, ServerOptions, Sessions};
use crate::transport::session::ExecSession;
use crate::transport::settings::Settings;
use crate::transport::{Lane, LocalNode};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How long a stand-in listens at most. Whoever asked for it dismisses it; this is for when they
/// cannot.
pub const LISTEN_LIMIT: Duration = Duration::from_secs(60);

/// How long a stand-in may take until it listens: a name among its addresses is looked up first.
const BIND_LIMIT: Duration = Duration::from_secs(10);

/// How long a dial may take, with handshake and login. Two hosts that nodes are to run on are a
/// fraction of a second apart, so whoever says nothing for so long will not.
pub const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// Dials under way at once on one host: a few hundred hosts are through within one call, and the
/// handshakes do not wait for the processor for longer than [`DIAL_LIMIT`].
const DIALS_AT_ONCE: usize = 32;

/// A stand-in's certificates are valid for a hundred years around 2020: whether the clocks agree is
/// another question, with an answer of its own.
const VALID_FOR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// With which this process logs in at stand-ins. Never written down, never sent.
static CALLER: LazyLock<Result<Arc<PrivateKey>, String>> = LazyLock::new(|| {
    let key = authority::new_key("paxos-ctl check");
    key.map(Arc::new).map_err(|error| error.to_string())
});

/// The public line of the key with which this process will log in.
///
/// # Errors
/// When no key can be drawn, which would be a defect.
pub fn caller() -> Result<String, String> {
    match &*CALLER {
        Ok(key) => Ok(authority::public_line(key.public_key())),
        Err(error) => Err(error.clone()),
    }
}

/// What a stand-in takes in: nothing.
struct Nobody;

impl PeerEvents for Nobody {
    fn frame(&self, _from: NodeId, _lane: Lane, _body: Bytes) {}

    fn link_up(&self, _peer: NodeId, _lane: Lane) {}

    fn link_down(&self, _peer: NodeId, _lane: Lane, _why: LinkDown) {}
}

impl Sessions for Nobody {
    fn start(&self, session: ExecSession) {
        drop(session);
    }
}

/// Somebody who listens in a node's place, until it is dropped.
pub struct StandIn {
    authority: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Listens on these addresses as a node of this name, and lets in whoever has one of the keys
    /// with these public lines.
    ///
    /// # Errors
    /// When one of the addresses cannot be bound, in the words of a node that cannot.
    pub fn open(
        listen: &[String],
        node: &str,
        cluster: &str,
        callers: &[String],
    ) -> Result<StandIn, String> {
        let (options, authority) = options(node, cluster, callers)?;
        let stop = CancellationToken::new();
        let (listens, heard) = sync_channel(1);
        let (addresses, until) = (listen.to_vec(), stop.clone());
        let thread = std::thread::Builder::new().name("stand-in".to_owned());
        let thread = thread.spawn(move || serve(&addresses, options, &until, &listens));
        let thread = Some(thread.map_err(|error| format!("cannot start a thread: {error}"))?);
        let mut stand_in = StandIn { authority, stop, thread };
        match heard.recv_timeout(BIND_LIMIT) {
            Ok(Ok(())) => Ok(stand_in),
            Ok(Err(reason)) => Err(reason),
            Err(_timed_out_or_gone) => {
                // Busy with a name, and nobody's to wait for. It ends as soon as it is through.
                stand_in.thread = None;
                Err(format!("it did not listen within {} s", BIND_LIMIT.as_secs()))
            }
        }
    }

    /// The public line of what signed its host certificate.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
        // The server gives its connections a moment to say goodbye, and no more.
        if let Some(thread) = self.thread.take() {
            let _nothing_panics_there = thread.join();
        }
    }
}

/// A server with keys of its own, and the public line of the authority behind them.
fn options(
    node: &str,
    cluster: &str,
    callers: &[String],
) -> Result<(ServerOptions, String), String> {
    let words = |error: IssueError| error.to_string();
    let signer = authority::new_key("stand-in").map_err(words)?;
    let key = authority::new_key("stand-in").map_err(words)?;
    let valid = Validity { after: UNIX_EPOCH, before: UNIX_EPOCH + VALID_FOR };
    let (subject, nobody) = (key.public_key(), NodeId(0));
    let host = authority::host_certificate(&signer, subject, node, cluster, 1, valid);
    // It dials nobody, so nobody sees this one.
    let peer = authority::peer_certificate(&signer, subject, nobody, cluster, 1, valid);
    let (host_certificate, peer_certificate) = (host.map_err(words)?, peer.map_err(words)?);
    let key = Arc::new(key);
    let (host_key, peer_key) = (Arc::clone(&key), key);
    let keys = NodeKeys { host_key, host_certificate, peer_key, peer_certificate };
    let people = callers.iter().map(|line| {
        let key = PublicKey::from_openssh(line.trim()).map_err(|error| error.to_string())?;
        Ok(ListedKey { name: "check".to_owned(), rights: Rights::default(), key })
    });
    // Without authorities: whoever comes with a certificate is a stranger.
    let bundle = Bundle {
        epoch: 1,
        cluster: cluster.to_owned(),
        cluster_id: ClusterId(0),
        authorities: Vec::new(),
        revocations: Vec::new(),
    };
    let trust = Trust::new(bundle, people.collect::<Result<_, String>>()?);
    let options = ServerOptions {
        local: LocalNode { id: nobody, cluster: cluster.to_owned(), cluster_id: String::new() },
        settings: Settings { login_grace: DIAL_LIMIT, ..Settings::default() },
        trust: Arc::new(LiveTrust::new(trust)),
        keys: Arc::new(ArcSwap::from_pointee(keys)),
        peers: Arc::new(Nobody),
        sessions: Arc::new(Nobody),
        counters: Arc::new(Counters::default()),
        watchdog: Watchdog::default(),
    };
    Ok((options, authority::public_line(signer.public_key())))
}

/// The thread of a stand-in.
fn serve(
    listen: &[String],
    options: ServerOptions,
    stop: &CancellationToken,
    listens: &SyncSender<Result<(), String>>,
) {
    // Whoever waits for the word has an end to their patience; then nobody takes it.
    let say = |word: Result<(), String>| _ = listens.send(word);
    let runtime = match event_loop() {
        Ok(runtime) => runtime,
        Err(error) => return say(Err(format!("cannot start an event loop: {error}"))),
    };
    runtime.block_on(async {
        let server = match Server::bind(listen, options).await {
            Ok(server) => server,
            Err(error) => return say(Err(error.to_string())),
        };
        say(Ok(()));
        let end = async {
            let _either = tokio::time::timeout(LISTEN_LIMIT, stop.cancelled()).await;
            stop.cancel();
        };
        tokio::join!(server.run(stop.clone()), end);
    });
    runtime.shutdown_background();
}

fn event_loop() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Whom to dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// The node's name.
    pub node: String,
    /// Name or address at which the others are to reach it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name that its host certificate must carry.
    pub principal: String,
    /// Public lines of those who may have signed that certificate; none where nobody knows them.
    pub authorities: Vec<String>,
    /// Whether somebody stands in for it.
    pub stand_in: bool,
}

/// What came of a dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialled {
    /// Whom.
    pub node: String,
    /// The address from which it was dialled, if that could be told; a firewall goes by it.
    pub from: Option<IpAddr>,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// How far it came.
    pub outcome: Outcome,
}

/// How far a dial came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The host proved who it is, and let us in.
    LoggedIn,
    /// The host proved who it is. This host has no keys yet, with which it could log in.
    Recognised,
    /// An SSH server answers, and nobody here knows who it should be.
    Answered,
    /// Nobody listens there, or a firewall says so.
    Refused,
    /// No answer within [`DIAL_LIMIT`].
    Silent,
    /// The name has no address here.
    Unresolved(String),
    /// The network says no.
    Unreachable(String),
    /// It answers, and is somebody else.
    Stranger(String),
    /// It is who it should be, and does not let us in.
    Denied(String),
    /// It answers, and no login comes of it.
    Broken(String),
}

/// Dials each of them from this host, and gives what came of it in their order.
///
/// # Errors
/// When nothing can be dialled from here at all.
pub fn dial_all(place: &Place, to: &[Dial]) -> Result<Vec<Dialled>, String> {
    let runtime = event_loop().map_err(|error| format!("cannot start an event loop: {error}"))?;
    let caller = CALLER.as_ref().map_err(Clone::clone)?;
    let settings = Settings { dial_timeout: DIAL_LIMIT, ..Settings::default() };
    let keys = place.open().and_then(|directory| directory.folder(names::KEYS)).ok();
    let own = keys.and_then(|keys| NodeKeys::load_confined(&keys).ok());
    let dials = to.iter().map(|dial| {
        let own = own.as_ref().filter(|_| !dial.stand_in);
        let identity = match own {
            Some(NodeKeys { peer_key, peer_certificate, .. }) => ClientIdentity::Certificate {
                key: Arc::clone(peer_key),
                certificate: Box::new(peer_certificate.clone()),
            },
            None => ClientIdentity::Key(Arc::clone(caller)),
        };
        let may_log_in = dial.stand_in || own.is_some();
        try_one(dial, identity, may_log_in, &settings)
    });
    let dialled = runtime.block_on(stream::iter(dials).buffered(DIALS_AT_ONCE).collect());
    // A name that is still looked up is not waited for.
    runtime.shutdown_background();
    Ok(dialled)
}

async fn try_one(
    to: &Dial,
    identity: ClientIdentity,
    may_log_in: bool,
    settings: &Settings,
) -> Dialled {
    let started = Instant::now();
    let authorities: Vec<PublicKey> = to
        .authorities
        .iter()
        .filter_map(|line| PublicKey::from_openssh(line.trim()).ok())
        .collect();
    let known = !authorities.is_empty();
    let endpoint = Endpoint {
        host: to.host.clone(),
        port: to.port,
        host_principal: to.principal.clone(),
        check: HostCheck::by(authorities),
        by_way_of: None,
    };
    let outcome = match dial(&endpoint, &identity, settings).await {
        Ok(connection) => {
            connection.close().await;
            Outcome::LoggedIn
        }
        Err(error) => judge(&error, known, may_log_in),
    };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let from = match outcome {
        Outcome::LoggedIn | Outcome::Unresolved(_) => None,
        _ => source(&to.host, to.port).await,
    };
    Dialled { node: to.node.clone(), from, micros, outcome }
}

/// `known` says whether there was a name to hold the host to, `may_log_in` whether it should let us
/// in.
fn judge(error: &DialError, known: bool, may_log_in: bool) -> Outcome {
    match error {
        DialError::Resolve { source, .. } => Outcome::Unresolved(source.to_string()),
        DialError::Connect { .. } if error.is_refused() => Outcome::Refused,
        DialError::Connect { attempts, .. } => {
            let texts = attempts.iter().map(|(address, error)| format!("{address}: {error}"));
            Outcome::Unreachable(texts.collect::<Vec<_>>().join(", "))
        }
        DialError::Timeout { stage: "connecting", .. } => Outcome::Silent,
        DialError::Timeout { stage, .. } => {
            Outcome::Broken(format!("it did not finish {stage} within {DIAL_LIMIT:?}"))
        }
        DialError::Host { .. } if !known => Outcome::Answered,
        DialError::Host { reason, .. } => Outcome::Stranger(reason.clone()),
        DialError::Denied { .. } if !may_log_in => Outcome::Recognised,
        DialError::Denied { presented, .. } => Outcome::Denied(presented.clone()),
        DialError::Broken { stage, source, .. } => {
            Outcome::Broken(format!("the connection broke during {stage}: {source}"))
        }
        error => Outcome::Broken(error.to_string()),
    }
}

/// From which address this host would speak to that one. Asks the kernel's routes, and sends
/// nothing.
async fn source(host: &str, port: u16) -> Option<IpAddr> {
    let looked_up = tokio::time::timeout(DIAL_LIMIT, tokio::net::lookup_host((host, port)));
    let address = looked_up.await.ok()?.ok()?.next()?;
    let any: IpAddr = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::host_principal;
    use std::net::TcpListener;
    use std::path::Path;

    fn place(folder: &Path) -> Place {
        Place {
            node: "n1".to_owned(),
            directory: folder.to_owned(),
            listen: Vec::new(),
            layout: crate::controller::host::Layout::Own,
            supervised: false,
            login: None,
        }
    }

    /// An address on which nobody listens, as far as that can be.
    fn free_address() -> (String, u16) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (address.to_string(), address.port())
    }

    fn dial_to(port: u16, authority: &str) -> Dial {
        Dial {
            node: "n2".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            principal: host_principal("n2", "c"),
            authorities: vec![authority.to_owned()],
            stand_in: true,
        }
    }

    fn outcome(to: Dial) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let dialled = dial_all(&place(folder.path()), &[to]).unwrap();
        assert_eq!(dialled.len(), 1);
        assert_eq!(dialled[0].node, "n2");
        dialled[0].outcome.clone()
    }

    #[test]
    fn who_is_expected_logs_in_and_who_is_not_does_not() {
        let (address, port) = free_address();
        let listen = std::slice::from_ref(&address);
        let callers = [caller().unwrap()];
        let stand_in = StandIn::open(listen, "n2", "c", &callers).unwrap();
        let right = dial_to(port, stand_in.authority());
        assert_eq!(outcome(right.clone()), Outcome::LoggedIn);
        let other = Dial { principal: host_principal("n3", "c"), ..right.clone() };
        assert!(matches!(outcome(other), Outcome::Stranger(_)), "it is the stand-in of n2");
        let stranger = authority::new_key("").unwrap();
        let other = dial_to(port, &authority::public_line(stranger.public_key()));
        assert!(matches!(outcome(other), Outcome::Stranger(_)), "somebody else signed for it");
        let nobody = Dial { authorities: Vec::new(), ..right.clone() };
        assert_eq!(outcome(nobody), Outcome::Answered);
        let taken = StandIn::open(listen, "n3", "c", &callers);
        assert!(taken.is_err_and(|reason| reason.contains(&address)), "the port is taken");
        drop(stand_in);
        assert_eq!(outcome(right), Outcome::Refused);
        let again = StandIn::open(listen, "n2", "c", &[]).unwrap();
        let closed = dial_to(port, again.authority());
        assert!(matches!(outcome(closed.clone()), Outcome::Denied(_)), "nobody may log in");
        let without_keys = Dial { stand_in: false, ..closed };
        assert_eq!(outcome(without_keys), Outcome::Recognised);
    }

    #[test]
    fn nothing_is_carried_out_for_who_logs_in() {
        let (address, port) = free_address();
        let key = authority::new_key("").unwrap();
        let callers = [authority::public_line(key.public_key())];
        let stand_in = StandIn::open(&[address], "n2", "c", &callers).unwrap();
        let to = dial_to(port, stand_in.authority());
        let signer = PublicKey::from_openssh(to.authorities[0].trim()).unwrap();
        let endpoint = Endpoint {
            host: to.host,
            port,
            host_principal: to.principal,
            check: HostCheck::by(vec![signer]),
            by_way_of: None,
        };
        let identity = ClientIdentity::Key(Arc::new(key));
        event_loop().unwrap().block_on(async {
            let connection = dial(&endpoint, &identity, &Settings::default()).await.unwrap();
            if let Ok(mut channel) = connection.exec("paxos status").await {
                use crate::transport::client::ChannelEvent::{Closed, Exit};
                let said = tokio::time::timeout(DIAL_LIMIT, channel.next()).await;
                assert!(matches!(said, Ok(Closed(_) | Exit(1..))), "{said:?}");
            }
            assert!(connection.subsystem("paxos-consensus").await.is_err(), "it is no node");
        });
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let started = Instant::now();
        assert!(matches!(outcome(dial_to(port, "")), Outcome::Broken(_)));
        assert!(started.elapsed() < DIAL_LIMIT * 3, "it has an end");
    }

    #[test]
    fn the_address_that_a_firewall_sees_is_told() {
        let source = event_loop().unwrap().block_on(source("127.0.0.1", 9));
        assert_eq!(source, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let (_, port) = free_address();
        let folder = tempfile::tempdir().unwrap();
        let dialled = dial_all(&place(folder.path()), &[dial_to(port, "")]).unwrap();
        assert_eq!(dialled[0].outcome, Outcome::Refused);
        assert_eq!(dialled[0].from, source);
    }

    #[test]
    fn an_address_of_another_machine_cannot_be_listened_on() {
        // Of a network that is for documentation only.
        let listen = ["192.0.2.1:7022".to_owned()];
        assert!(StandIn::open(&listen, "n2", "c", &[]).is_err());
    }
}
