//! The dialling side: for links to peers, and for people's programs.
//!
//! A dial resolves the name anew, tries every address, proves the host by its certificate (the
//! exact name that is expected, an authority that is known; never a bare key, never trust on first
//! use), and then proves who dials. Everything together has one time limit.
//!
//! What a connection receives is taken in russh's callbacks and kept in a bounded buffer per
//! channel, so a channel that nobody reads stops neither its connection nor the others on it.
//! russh's client grants window on receipt and cannot be asked not to; a reader that falls
//! [`INBOX_BYTES_MAX`] behind loses its channel. Programs that may be read slowly ask for less at a
//! time.

use super::callbacks::{Callbacks, Shared};
use super::channel::RawChannel;
use super::live::{DialledHost, LiveTrust};
use super::settings::Settings;
use super::socket::{Socket, SocketControl};
use super::through::{Through, Way};
use futures::stream::{FuturesUnordered, StreamExt};
use russh::Disconnect;
use russh::client::{AuthResult, Handle};
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::{Certificate, HashAlg, PrivateKey, PublicKey};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

pub use super::channel::{
    ChannelEvent, ChannelGone, ChannelReceiver, ChannelSender, ExecChannel, INBOX_BYTES_MAX,
};

/// Bytes that may wait for the kernel on a client's connection. At least all that the server's
/// windows allow on 32 channels: with this much room a client always goes on reading, and the
/// dead-lock of two ends that only write cannot form. Memory is taken only when it happens.
const CLIENT_WRITE_BEHIND_BYTES: usize = 40 << 20;

/// When an address does not answer at once, the next one is tried beside it after this time.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// The user name in the protocol. No node looks at it: who you are is your key.
const USER: &str = "paxos";

/// A node to dial.
#[derive(Clone)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port of its SSH server.
    pub port: u16,
    /// The one name that its host certificate must carry.
    pub host_principal: String,
    /// Who may have signed that certificate.
    pub check: HostCheck,
    /// A program whose standard input and output are the connection, as OpenSSH's ProxyCommand,
    /// with `%h` and `%p` in its words; otherwise it is dialled.
    pub by_way_of: Option<Vec<String>>,
}

/// Whom to believe about hosts.
#[derive(Clone)]
pub enum HostCheck {
    /// The cluster's trust of the moment.
    Trust(Arc<LiveTrust>),
    /// As a known-hosts file says.
    Authorities {
        /// Host authorities: the `@cert-authority` lines.
        believed: Vec<PublicKey>,
        /// Hosts' own keys that nobody vouches for any more: the `@revoked` lines.
        revoked: Vec<PublicKey>,
    },
}

impl HostCheck {
    /// Believes these host authorities about every host.
    pub fn by(believed: Vec<PublicKey>) -> HostCheck {
        HostCheck::Authorities { believed, revoked: Vec::new() }
    }
}

/// Who dials.
#[derive(Clone)]
pub enum ClientIdentity {
    /// A key, and the certificate for it.
    Certificate {
        /// Signs.
        key: Arc<PrivateKey>,
        /// Says whose key it is.
        certificate: Box<Certificate>,
    },
    /// A plain key that the inventory lists.
    Key(Arc<PrivateKey>),
    /// A key that an ssh-agent holds, with the certificate if there is one.
    Agent {
        /// The agent's socket.
        socket: PathBuf,
        /// Which of its keys; without one, each of them is tried.
        key: Option<PublicKey>,
        /// For that key.
        certificate: Option<Box<Certificate>>,
    },
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The text is no `host:port`.
    #[error("\"{0}\" is no address; give host:port, such as node1.example:7022 or [::1]:7022")]
    Address(String),
    /// The name has no address.
    #[error("cannot resolve {host}: {source}; check the name, or the name service")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address answers.
    #[error(
        "cannot connect to {target}: {}; \
         check that the node runs and that the network lets this through",
        attempts_text(attempts)
    )]
    Connect {
        /// Whom we dialled.
        target: String,
        /// Each address and what happened.
        attempts: Vec<(SocketAddr, io::Error)>,
    },
    /// Too slow.
    #[error(
        "{target} did not finish {stage} within {limit:?}; it is overloaded, stopped, or cut off"
    )]
    Timeout {
        /// Whom we dialled.
        target: String,
        /// What it did not finish.
        stage: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The host did not prove that it is the one we mean.
    #[error("{target} is not trusted: {reason}; nothing was sent to it")]
    Host {
        /// Whom we dialled.
        target: String,
        /// What is wrong with its proof.
        reason: String,
    },
    /// The host does not let us in.
    #[error(
        "{target} refused {presented}; it does not say why over ssh, its own log does: \
         look there for \"refused\", as `paxos-ctl logs` shows it"
    )]
    Denied {
        /// Whom we dialled.
        target: String,
        /// The key or certificate.
        presented: String,
    },
    /// The agent cannot help.
    #[error("cannot use the ssh-agent at {socket}: {reason}; check SSH_AUTH_SOCK and `ssh-add -l`")]
    Agent {
        /// Its socket.
        socket: String,
        /// What happened.
        reason: String,
    },
    /// The program that was to make the connection cannot be run.
    #[error("cannot reach {target}: cannot run {program}: {source}; see that it is on the PATH")]
    Program {
        /// Whom we dialled.
        target: String,
        /// What was to be run.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke before it was ready.
    #[error("the connection to {target} broke during {stage}: {source}")]
    Broken {
        /// Whom we dialled.
        target: String,
        /// When.
        stage: &'static str,
        /// What happened.
        source: russh::Error,
    },
}

fn attempts_text(attempts: &[(SocketAddr, io::Error)]) -> String {
    let texts: Vec<_> = attempts.iter().map(|(a, error)| format!("{a}: {error}")).collect();
    if texts.is_empty() { "the name has no address".to_string() } else { texts.join(", ") }
}

impl DialError {
    /// Every address answered that nobody listens there.
    pub fn is_refused(&self) -> bool {
        let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        matches!(self, DialError::Connect { attempts, .. }
            if !attempts.is_empty() && attempts.iter().all(|(_, error)| refused(error)))
    }
}

/// Why something on a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection or the channel is gone.
    #[error("the connection to {target} is gone: {reason}")]
    Gone {
        /// Whom we dialled.
        target: String,
        /// What happened.
        reason: String,
    },
    /// The node answered no.
    #[error("{target} does not offer {what}")]
    Refused {
        /// Whom we dialled.
        target: String,
        /// What was asked for.
        what: String,
    },
}

/// Splits `host:port`, with or without brackets around an IPv6 address.
pub fn parse_address(text: &str) -> Result<(String, u16), DialError> {
    let wrong = || DialError::Address(text.to_string());
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    if host.is_empty() || (bracketed.is_none() && host.contains(':')) {
        return Err(wrong());
    }
    Ok((host.to_string(), port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.host_principal, self.host, self.port)
    }
}

/// An authenticated connection to a node.
pub struct Connection {
    handle: Handle<Callbacks>,
    shared: Arc<Shared>,
    target: String,
    control: SocketControl,
}

/// Which of the two kinds of dialler this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialler {
    Person,
    Peer,
}

/// Connects to `endpoint` and authenticates as `identity`, for a person or an application.
pub async fn dial(
    endpoint: &Endpoint,
    identity: &ClientIdentity,
    settings: &Settings,
) -> Result<Connection, DialError> {
    dial_as(Dialler::Person, endpoint, identity, settings).await
}

pub(super) async fn dial_as(
    dialler: Dialler,
    endpoint: &Endpoint,
    identity: &ClientIdentity,
    settings: &Settings,
) -> Result<Connection, DialError> {
    let target = endpoint.to_string();
    let limit = settings.dial_timeout;
    let control = SocketControl::default();
    let deadline = tokio::time::Instant::now() + limit;
    let timeout = |stage| DialError::Timeout { target: target.clone(), stage, limit };
    let connecting = reach(endpoint, &target);
    let stream = tokio::time::timeout_at(deadline, connecting)
        .await
        .map_err(|_| timeout("connecting"))??;
    // russh's task for the connection goes on by itself unless its stream fails; also when nobody
    // waits for this any more.
    let unfinished = control.cut_on_drop();
    let secured = secure(dialler, stream, endpoint, identity, settings, &control);
    let outcome = tokio::time::timeout_at(deadline, secured).await;
    let connection = outcome.map_err(|_| timeout("the ssh handshake"))??;
    unfinished.disarm();
    Ok(connection)
}

async fn reach(endpoint: &Endpoint, target: &str) -> Result<Way, DialError> {
    let Some(words) = &endpoint.by_way_of else {
        return Ok(Way::Dialled(connect_any(endpoint, target).await?));
    };
    let through = Through::start(words, &endpoint.host, endpoint.port);
    let through = through.map_err(|source| {
        let (target, program) = (target.to_string(), words.join(" "));
        DialError::Program { target, program, source }
    })?;
    Ok(Way::Through(Box::new(through)))
}

/// Tries every address of the endpoint, the next one beside the last when that does not answer
/// quickly.
async fn connect_any(endpoint: &Endpoint, target: &str) -> Result<TcpStream, DialError> {
    let name = (endpoint.host.as_str(), endpoint.port);
    let addresses = tokio::net::lookup_host(name)
        .await
        .map_err(|source| DialError::Resolve { host: endpoint.host.clone(), source })?;
    let mut waiting: VecDeque<SocketAddr> = addresses.collect();
    let mut connecting = FuturesUnordered::new();
    let mut attempts = Vec::new();
    loop {
        if let Some(address) = waiting.pop_front() {
            connecting.push(async move { (address, TcpStream::connect(address).await) });
        }
        if connecting.is_empty() {
            return Err(DialError::Connect { target: target.to_string(), attempts });
        }
        tokio::select! {
            Some((address, outcome)) = connecting.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => attempts.push((address, error)),
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if !waiting.is_empty() => {}
        }
    }
}

async fn secure(
    dialler: Dialler,
    stream: Way,
    endpoint: &Endpoint,
    identity: &ClientIdentity,
    settings: &Settings,
    control: &SocketControl,
) -> Result<Connection, DialError> {
    let target = endpoint.to_string();
    let broken = |stage| {
        let target = target.clone();
        move |source| DialError::Broken { target, stage, source }
    };
    stream.set_nodelay().map_err(|e| broken("connecting")(e.into()))?;
    let (config, behind) = match dialler {
        Dialler::Person => (settings.client(), CLIENT_WRITE_BEHIND_BYTES),
        // Nothing but window and keepalives comes back on a link, so writes may simply wait.
        Dialler::Peer => (settings.peer(), 0),
    };
    let shared = Arc::new(Shared::default());
    let expected = endpoint.host_principal.clone();
    let check = endpoint.check.clone();
    let callbacks = Callbacks { shared: shared.clone(), expected, check };
    let socket = Socket::new(stream, behind, control.clone());
    let connected = russh::client::connect_stream(Arc::new(config), socket, callbacks).await;
    let mut handle = match connected {
        Ok(handle) => handle,
        Err(source) => {
            let distrust = shared.distrust();
            return Err(match distrust {
                Some(reason) => DialError::Host { target, reason },
                None => broken("the ssh handshake")(source),
            });
        }
    };
    let authenticated = authenticate(&mut handle, identity, &target).await;
    match (authenticated, identity) {
        (Ok(()), _) => {}
        // A certificate that ran out by the other side's clock, if not by ours, is turned away by
        // russh before anybody can judge it; the bare key gets through to those who know a member.
        (Err(DialError::Denied { .. }), ClientIdentity::Certificate { key, .. })
            if dialler == Dialler::Peer =>
        {
            let plain = ClientIdentity::Key(key.clone());
            authenticate(&mut handle, &plain, &target).await?;
        }
        (Err(error), _) => return Err(error),
    }
    Ok(Connection { handle, shared, target, control: control.clone() })
}

async fn authenticate(
    handle: &mut Handle<Callbacks>,
    identity: &ClientIdentity,
    target: &str,
) -> Result<(), DialError> {
    let broken = |source| {
        let target = target.to_string();
        DialError::Broken { target, stage: "authentication", source }
    };
    let (outcome, presented) = match identity {
        ClientIdentity::Certificate { key, certificate } => {
            let certificate = (**certificate).clone();
            let presented = format!("the certificate \"{}\"", certificate.key_id());
            let outcome = handle.authenticate_openssh_cert(USER, key.clone(), certificate).await;
            (outcome.map_err(broken)?, presented)
        }
        ClientIdentity::Key(key) => {
            let presented = format!("the key {}", key.fingerprint(HashAlg::Sha256));
            let key = PrivateKeyWithHashAlg::new(key.clone(), None);
            (handle.authenticate_publickey(USER, key).await.map_err(broken)?, presented)
        }
        ClientIdentity::Agent { socket, key, certificate } => {
            return with_agent(handle, socket, key.as_ref(), certificate.as_deref(), target).await;
        }
    };
    judge_outcome(outcome, target, presented)
}

/// russh tells "no" and "the connection ended" apart only by the methods that remain.
fn judge_outcome(outcome: AuthResult, target: &str, presented: String) -> Result<(), DialError> {
    let target = target.to_string();
    match outcome {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty() => {
            let source = russh::Error::Disconnect;
            Err(DialError::Broken { target, stage: "authentication", source })
        }
        AuthResult::Failure { .. } => Err(DialError::Denied { target, presented }),
    }
}

async fn with_agent(
    handle: &mut Handle<Callbacks>,
    socket: &PathBuf,
    key: Option<&PublicKey>,
    certificate: Option<&Certificate>,
    target: &str,
) -> Result<(), DialError> {
    let trouble = |reason: String| {
        let socket = socket.display().to_string();
        DialError::Agent { socket, reason }
    };
    let mut agent = AgentClient::connect_uds(socket).await.map_err(|e| trouble(e.to_string()))?;
    if let Some(certificate) = certificate {
        let presented = format!("the certificate \"{}\"", certificate.key_id());
        let outcome =
            handle.authenticate_certificate_with(USER, certificate.clone(), None, &mut agent);
        return judge_outcome(
            outcome.await.map_err(|e| trouble(e.to_string()))?,
            target,
            presented,
        );
    }
    let held = agent.request_identities().await.map_err(|e| trouble(e.to_string()))?;
    let wanted = |k: &PublicKey| key.is_none_or(|key| key.key_data() == k.key_data());
    let mut last = None;
    for identity in held {
        let (outcome, presented) = match identity {
            russh::keys::agent::AgentIdentity::Certificate { certificate, .. }
                if key.is_none_or(|key| key.key_data() == certificate.public_key()) =>
            {
                let presented = format!("the certificate \"{}\"", certificate.key_id());
                let asking =
                    handle.authenticate_certificate_with(USER, certificate, None, &mut agent);
                (asking.await, presented)
            }
            russh::keys::agent::AgentIdentity::PublicKey { key, .. } if wanted(&key) => {
                let presented = format!("the key {}", key.fingerprint(HashAlg::Sha256));
                (handle.authenticate_publickey_with(USER, key, None, &mut agent).await, presented)
            }
            _ => continue,
        };
        match judge_outcome(outcome.map_err(|e| trouble(e.to_string()))?, target, presented) {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| trouble("it does not hold the key".to_string())))
}

impl Connection {
    /// Runs `command`, as `ssh node COMMAND` does. How long opening a channel may take is the
    /// caller's to say; keepalives end a connection whose far end is dead.
    pub async fn exec(&self, command: &str) -> Result<ExecChannel, ChannelError> {
        let raw = self.open(Request::Exec(command)).await?;
        Ok(ExecChannel::new(raw))
    }

    /// Opens a subsystem, as `ssh -s node NAME` does.
    pub async fn subsystem(&self, name: &str) -> Result<ExecChannel, ChannelError> {
        let raw = self.open(Request::Subsystem(name)).await?;
        Ok(ExecChannel::new(raw))
    }

    /// Says goodbye. Without it, the connection ends when it and its channels are dropped.
    pub async fn close(&self) {
        let _gone = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }

    /// What the host proved itself with.
    pub(super) fn host(&self) -> Option<&DialledHost> {
        self.shared.host.get()
    }

    /// Ends the connection at once, whatever it is doing.
    pub fn cut(&self) {
        self.control.cut();
    }

    /// Resolves once the connection is over, with the reason.
    pub async fn closed(&self) -> String {
        self.shared.over.cancelled().await;
        self.shared.reason()
    }

    pub(super) async fn open(&self, request: Request<'_>) -> Result<RawChannel, ChannelError> {
        let gone = |reason: String| ChannelError::Gone { target: self.target.clone(), reason };
        let from_russh = |error: russh::Error| match error {
            russh::Error::ChannelOpenFailure(_) => ChannelError::Refused {
                target: self.target.clone(),
                what: "one more channel on this connection".to_string(),
            },
            other => gone(other.to_string()),
        };
        let channel = self.handle.channel_open_session().await.map_err(from_russh)?;
        let inbox = self.shared.register(channel.id());
        // Without its reading half, russh queues nothing for the channel and cannot wait for a
        // reader.
        let (_unused, write) = channel.split();
        match request {
            Request::Exec(command) => write.exec(true, command).await,
            Request::Subsystem(name) => write.request_subsystem(true, name).await,
        }
        .map_err(from_russh)?;
        if inbox.answered().await.map_err(gone)? {
            return Ok(RawChannel { write, inbox });
        }
        let _gone = write.close().await;
        Err(ChannelError::Refused { target: self.target.clone(), what: request.to_string() })
    }
}

/// What to ask for on a new channel.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Exec(&'a str),
    Subsystem(&'a str),
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Exec(command) => write!(f, "the command \"{command}\""),
            Request::Subsystem(name) => write!(f, "the subsystem \"{name}\""),
        }
    }
}
