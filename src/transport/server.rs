//! The listening side: accepts connections and hands out what authenticated clients bring.
//!
//! The accept loop is ours because russh's ends at the first error of accept, knows no limits, and
//! keeps one set of keys for life. This one waits a little after an error and goes on, admits by
//! [`limits`], and takes the keys and the trust of the moment for each connection, so that
//! replacing them needs no restart.
//!
//! [`limits`]: super::limits

use super::connection::{Guest, GuestContext};
use super::counters::Counters;
use super::identity::NodeKeys;
use super::limits::{Admission, Entry, Place};
use super::live::{Changes, LiveTrust, Visitor};
use super::session::ExecSession;
use super::settings::Settings;
use super::socket::{Socket, SocketControl};
use super::{Lane, LocalNode};
use crate::paxos::ballot::NodeId;
use crate::telemetry::watchdog::{Beat, Watchdog, Watched, Work};
use arc_swap::ArcSwap;
use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::sockopt::set_ipv6_v6only;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::SetOnce;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// What a node learns from its links. All calls come from the task of one connection and must not
/// wait: what waits there stops that connection.
pub trait PeerEvents: Send + Sync + 'static {
    /// A message came. `from` is the id in the sender's certificate; `body` is one frame's body, in
    /// an allocation of its own.
    fn frame(&self, from: NodeId, lane: Lane, body: Bytes);

    /// The peer opened its link to us, so it is alive; a good moment for [`Peers::nudge`].
    ///
    /// [`Peers::nudge`]: super::peers::Peers::nudge
    fn greeted(&self, from: NodeId, lane: Lane) {
        let _ = (from, lane);
    }

    /// Our own link to `peer` is there: authenticated both ways, and greeted.
    fn link_up(&self, peer: NodeId, lane: Lane);

    /// Our own link to `peer` is gone, or could not be made. Said again when the reason changes:
    /// for a loss first without and then, once a dial was refused, with `refused`.
    fn link_down(&self, peer: NodeId, lane: Lane, why: LinkDown);
}

/// What is known about a lost link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkDown {
    /// The link was up, broke, and a dial right after was refused: nobody listens there any more.
    /// As good as a death certificate for a process, but only a hint: a firewall can refuse, too.
    pub refused: bool,
    /// What happened, for people.
    pub error: String,
}

/// Who answers the requests of people and applications.
pub trait Sessions: Send + Sync + 'static {
    /// Takes over a request. Must return at once (spawn a task): it is called from a connection's
    /// loop.
    fn start(&self, session: ExecSession);
}

/// What a server needs.
pub struct ServerOptions {
    /// Who this node is.
    pub local: LocalNode,
    /// Limits and timeouts.
    pub settings: Settings,
    /// Whom to let in; replaced whole when it changes.
    pub trust: Arc<LiveTrust>,
    /// This node's own keys; replaced whole when they change.
    pub keys: Arc<ArcSwap<NodeKeys>>,
    /// Takes the frames of peers.
    pub peers: Arc<dyn PeerEvents>,
    /// Takes the requests of people.
    pub sessions: Arc<dyn Sessions>,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Watches the loops that accept.
    pub watchdog: Watchdog,
}

/// Why a node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The text names no address.
    #[error(
        "cannot listen on {address}: {source}; \
         give an IP address or a name of this machine, and a port, such as 127.0.0.1:7022"
    )]
    Resolve {
        /// As given.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The system does not let us listen there.
    #[error(
        "cannot listen on {address}: {source}; \
         see which process has the port (ss -ltnp), stop it, or give this node another port"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing to listen on.
    #[error("no address to listen on was given; give at least one, such as 127.0.0.1:7022")]
    None,
}

/// Bytes of answers that may wait for the kernel, per connection. Stock clients read while they
/// write, so this only smooths; our own clients bring the buffer that prevents the dead-lock (see
/// `socket.rs`).
const WRITE_BEHIND_BYTES: usize = 4 << 20;

/// First and longest pause after an error of accept. The usual one is that file descriptors ran
/// out, which passes when a connection ends.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The longest time that admitting one connection may take, which waits for nothing. More than the
/// longest pause after an error.
const ACCEPT_TURN_MAX: Duration = Duration::from_secs(5);

/// How long connections may take to say goodbye when the server stops.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// How many connections may wait until they are accepted; the kernel bounds it as well.
const BACKLOG: u32 = 1024;

/// A server that listens. [`run`](Server::run) makes it answer.
pub struct Server {
    listeners: Vec<TcpListener>,
    shared: Arc<Shared>,
    watchdog: Watchdog,
}

struct Shared {
    context: Arc<GuestContext>,
    keys: Arc<ArcSwap<NodeKeys>>,
    admission: Arc<Admission>,
}

impl Server {
    /// Listens on every address that the texts (`host:port`) stand for.
    pub async fn bind(listen: &[String], options: ServerOptions) -> Result<Server, BindError> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in listen {
            // At the start only; the resolver has limits of its own.
            let resolved = tokio::net::lookup_host(address.as_str())
                .await
                .map_err(|source| BindError::Resolve { address: address.clone(), source })?;
            addresses.extend(resolved);
        }
        let mut listeners = Vec::new();
        for address in &addresses {
            let shared = has_all_of_ipv4(&addresses, address.port()) && address.is_ipv6();
            match listen_on(*address, shared) {
                Ok(listener) => listeners.push(listener),
                // All of IPv4 is listened on, and there is nothing else.
                Err(error) if shared && knows_no_ipv6(&error) => {
                    info!(%address, "this host has no IPv6");
                }
                Err(source) => return Err(BindError::Bind { address: *address, source }),
            }
        }
        if listeners.is_empty() {
            return Err(BindError::None);
        }
        let ServerOptions { local, settings, trust, keys, peers, sessions, counters, watchdog } =
            options;
        let admission = Admission::new(
            settings.unauthenticated_max,
            settings.unauthenticated_per_source_max,
            settings.connections_max,
        );
        let context = GuestContext { local, settings, trust, peers, sessions, counters };
        let shared = Shared { context: Arc::new(context), keys, admission };
        Ok(Server { listeners, shared: Arc::new(shared), watchdog })
    }

    /// Where it listens; tells the port that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Accepts and serves until `stop`; then says goodbye to every connection and returns.
    pub async fn run(self, stop: CancellationToken) {
        let mut loops = JoinSet::new();
        for listener in self.listeners {
            let beat = self.watchdog.watch(watched(&listener));
            loops.spawn(accept(listener, self.shared.clone(), stop.clone(), beat));
        }
        // Ends with `stop`, which each loop listens to, and with the connections, which end within
        // STOP_GRACE then.
        while loops.join_next().await.is_some() {}
        let (connections, strangers) = self.shared.admission.counts();
        debug!(connections, strangers, "the ssh server stopped");
    }
}

/// Whether every address of IPv4 is among these, on that port.
fn has_all_of_ipv4(addresses: &[SocketAddr], port: u16) -> bool {
    addresses.contains(&(Ipv4Addr::UNSPECIFIED, port).into())
}

/// All addresses of IPv6 are those of IPv4 as well, unless the socket leaves these to another:
/// otherwise both could not have one port.
fn listen_on(address: SocketAddr, leaves_ipv4: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of a process before may not be quite over.
    socket.set_reuseaddr(true)?;
    if leaves_ipv4 {
        set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a kernel without it says to whoever wants a socket of it.
fn knows_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

fn watched(listener: &TcpListener) -> Watched {
    let address = listener.local_addr().map_or_else(|_| "?".to_owned(), |a| a.to_string());
    Watched {
        name: format!("ssh-accept {address}"),
        limit: ACCEPT_TURN_MAX,
        next: "nobody new gets in over ssh; use the socket on the node itself (`sudo paxos status` \
               there), and restart this node if the loop does not turn again",
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, beat: Beat) {
    let mut connections = JoinSet::new();
    let (first_pause, longest_pause) = ACCEPT_PAUSE;
    let mut pause = first_pause;
    loop {
        // Nobody may ever come.
        beat.idle();
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, source)) => {
                    beat.busy(Work::Admitting);
                    pause = first_pause;
                    admit(stream, source, &shared, &stop, &mut connections);
                }
                Err(error) => {
                    beat.busy(Work::Pausing);
                    shared.context.counters.accept_errors.increment();
                    warn!(%error, ?pause, "cannot accept a connection; trying again after a pause");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest_pause);
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(
    stream: TcpStream,
    source: SocketAddr,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    let counters = &shared.context.counters;
    counters.accepted.increment();
    match shared.admission.enter(source.ip()) {
        Entry::Full => {
            counters.connections_refused.increment();
            let limit = shared.context.settings.connections_max;
            warn!(%source, limit, "connection closed: as many as allowed are open");
        }
        Entry::Place { place, cut } => {
            if cut > 0 {
                counters.unauthenticated_cut.add(cut as u64);
                warn!(%source, cut, "too many unauthenticated connections: cut the oldest");
            }
            connections.spawn(serve(stream, source, place, shared.clone(), stop.clone()));
        }
    }
}

async fn serve(
    stream: TcpStream,
    source: SocketAddr,
    place: Place,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%source, %error, "the connection was gone before it began");
        return;
    }
    let context = &shared.context;
    let config = Arc::new(context.settings.server(&shared.keys.load()));
    let control = SocketControl::default();
    let socket = Socket::new(stream, WRITE_BEHIND_BYTES, control.clone());
    let changes = context.trust.changes();
    let visitor = Arc::new(SetOnce::new());
    let crowded_out = place.cut();
    let guest = Guest::new(context.clone(), source, place, control.clone(), visitor.clone());

    let connection = async {
        let session = tokio::select! {
            session = russh::server::run_stream(config, socket, guest) => session?,
            // It has not even said that it speaks SSH.
            () = stop.cancelled() => return Ok(()),
        };
        let handle = session.handle();
        tokio::pin!(session);
        tokio::select! {
            ended = &mut session => return ended,
            () = stop.cancelled() => {}
        }
        let reason = "the node is stopping; connect to another one".to_string();
        let goodbye = async {
            let disconnect = russh::Disconnect::ByApplication;
            let _closed = handle.disconnect(disconnect, reason, String::new()).await;
            session.as_mut().await
        };
        match tokio::time::timeout(STOP_GRACE, goodbye).await {
            Ok(ended) => ended,
            Err(_) => {
                // Ends now: its stream fails.
                control.cut();
                session.await
            }
        }
    };
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        why = disowned(context, &visitor, changes) => {
            context.counters.disowned.increment();
            warn!(%source, why, "connection cut: the far end is not believed any more");
            control.cut();
            connection.await
        }
        why = stranger_must_go(context.settings.login_grace, &crowded_out, &visitor) => {
            if why == TOO_SLOW {
                context.counters.unauthenticated_cut.increment();
            }
            info!(%source, why, "unauthenticated connection cut");
            control.cut();
            connection.await
        }
    };
    match ended {
        Ok(()) => debug!(%source, "connection ended"),
        Err(error) => debug!(%source, %error, "connection ended"),
    }
}

const TOO_SLOW: &str = "it did not authenticate in time";

async fn stranger_must_go(
    grace: Duration,
    crowded_out: &CancellationToken,
    visitor: &SetOnce<Visitor>,
) -> &'static str {
    tokio::select! {
        // No stranger any more.
        _visitor = visitor.wait() => std::future::pending().await,
        () = tokio::time::sleep(grace) => TOO_SLOW,
        () = crowded_out.cancelled() => "there were too many",
    }
}

/// Resolves when somebody who was let in is not believed any more, with the reason.
async fn disowned(context: &GuestContext, visitor: &SetOnce<Visitor>, changes: Changes) -> String {
    let visitor = visitor.wait().await;
    let why = context.trust.until_disowned(changes, visitor).await;
    format!("{}: {why}", visitor.principal.label())
}
