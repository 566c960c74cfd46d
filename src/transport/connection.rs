//! One accepted connection: decides who it is, and answers every request on each of its channels.
//!
//! russh calls the methods of [`Guest`] from the connection's only loop, so none of them waits for
//! anything: while one does, nothing moves on any channel. russh's own queues of received data are
//! not used (a full one stops the connection); data is taken in the callback and goes into a
//! bounded buffer.
//!
//! **Holding back a fast client.** russh grants a client new window as soon as data arrives, read
//! or not. But it asks what the window should be, once per grant and for the whole connection, and
//! the answer holds for the grant after. While any channel's input is clogged, the answer is
//! [`TRICKLE_WINDOW`] bytes: the client may send two bytes, which arrive, which makes russh ask
//! again. Slowing the socket's reads makes that a few hundred small packets a second, the other
//! channels go on, and no more than two windows ever wait. Without it a `batch` fed by a large file
//! would have to be cut off.
//!
//! **Channels are remembered by russh** until the connection ends if the server closes them first,
//! so their number is bounded over a connection's life.

use super::counters::Counters;
use super::identity::{Principal, Refusal, Trust};
use super::inbound::{Link, shown};
use super::limits::Place;
use super::live::{LiveTrust, Proof, Visitor};
use super::outbound::write_output;
use super::server::{PeerEvents, Sessions};
use super::session::{ExecRequest, ExecSession, FarEnds, Life, StdinFeed};
use super::settings::{Settings, WINDOW_BYTES};
use super::socket::SocketControl;
use super::terminal::{Keyboard, Terminal, to_screen};
use super::{Lane, LocalNode, RPC_SUBSYSTEM};
use crate::paxos::ballot::NodeId;
use russh::keys::ssh_key::{Certificate, HashAlg};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, Sig};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::SetOnce;
use tracing::{debug, info, warn};

/// Window while input is clogged: the least for which russh still asks again (it grants when less
/// than half is left).
const TRICKLE_WINDOW: u32 = 2;

/// Exit status of a session whose client ignored flow control; what `busy` means in the command
/// grammar.
const EXIT_OVERFLOW: u32 = 75;

/// What all connections share.
pub(super) struct GuestContext {
    pub(super) local: LocalNode,
    pub(super) settings: Settings,
    pub(super) trust: Arc<LiveTrust>,
    pub(super) peers: Arc<dyn PeerEvents>,
    pub(super) sessions: Arc<dyn Sessions>,
    pub(super) counters: Arc<Counters>,
}

/// The other end of one connection.
pub(super) struct Guest {
    context: Arc<GuestContext>,
    source: SocketAddr,
    place: Place,
    control: SocketControl,
    /// Told once, when the client has proved who it is.
    known: Arc<SetOnce<Visitor>>,
    principal: Option<Principal>,
    /// Whom to tell of then.
    visitor: Option<Visitor>,
    refusals: u32,
    channels: HashMap<ChannelId, GuestChannel>,
    channels_opened: u64,
}

struct GuestChannel {
    write: Option<ChannelWriteHalf<Msg>>,
    terminal: Option<Terminal>,
    purpose: Purpose,
}

enum Purpose {
    /// Opened, nothing asked for yet.
    Idle,
    /// A request that somebody answers.
    Session { stdin: StdinFeed, life: Life, keyboard: Option<Keyboard> },
    /// Frames of a peer.
    Link(Link),
}

impl Guest {
    pub(super) fn new(
        context: Arc<GuestContext>,
        source: SocketAddr,
        place: Place,
        control: SocketControl,
        known: Arc<SetOnce<Visitor>>,
    ) -> Guest {
        Guest {
            context,
            source,
            place,
            control,
            known,
            principal: None,
            visitor: None,
            refusals: 0,
            channels: HashMap::new(),
            channels_opened: 0,
        }
    }

    /// Lets somebody in, or refuses in the one way in which all are refused.
    fn decide(
        &mut self,
        user: &str,
        proof: Proof,
        decision: Result<Principal, Refusal>,
        presented: &str,
        now: SystemTime,
    ) -> Auth {
        match decision {
            Ok(principal) => {
                debug!(source = %self.source, %presented, ?principal, "authenticated");
                self.principal = Some(principal.clone());
                let source = self.source.ip();
                self.visitor = Some(Visitor { proof, source, at: now, principal });
                Auth::Accept
            }
            Err(reason) => {
                self.refusals += 1;
                self.context.counters.refused_keys.increment();
                let user = shown(user);
                warn!(source = %self.source, user, %presented, %reason, "refused");
                Auth::reject()
            }
        }
    }

    /// A member whose certificate has run out comes with its bare key. It is let in, and not in
    /// silence.
    fn warn_if_overdue(&self, trust: &Trust, id: NodeId, now: SystemTime) {
        if let Some(since) = trust.overdue(id, now) {
            self.context.counters.overdue_members.increment();
            warn!(source = %self.source, node = id.0, ?since, "let in with an expired certificate");
        }
    }

    /// Counts and logs a request that is not offered.
    fn not_offered(&self, what: &str) {
        self.context.counters.refused_requests.increment();
        let principal = self.principal.as_ref();
        info!(source = %self.source, ?principal, "refused: {what}");
    }

    /// Answers a request for a session, and hands it to whoever answers sessions.
    fn start_session(
        &mut self,
        id: ChannelId,
        request: ExecRequest,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(principal) = self.principal.clone() else {
            return session.channel_failure(id);
        };
        if let Principal::Node { .. } = principal {
            self.not_offered("a node's certificate opens only links between nodes");
            return session.channel_failure(id);
        }
        let channel = self.channels.get_mut(&id);
        let Some((channel, write)) = channel.and_then(|c| c.write.take().map(|w| (c, w))) else {
            self.not_offered("a second request on one channel");
            return session.channel_failure(id);
        };
        // Programs that talk in frames get them as they are, terminal or not.
        let words = !matches!(request, ExecRequest::Subsystem(_));
        let terminal = channel.terminal.as_ref().filter(|_| words);
        let pty = terminal.map(|terminal| terminal.pty.clone());
        let (opened, far) = ExecSession::open(principal, self.source, request, pty);
        let FarEnds { stdin, output, life } = far;
        let keyboard = terminal.map(|terminal| terminal.keyboard(opened.output.echo()));
        let show = if keyboard.is_some() { to_screen } else { std::convert::identity };
        channel.purpose = Purpose::Session { stdin, life: life.clone(), keyboard };
        session.channel_success(id)?;
        tokio::spawn(write_output(write, output, life, show));
        self.context.sessions.start(opened);
        Ok(())
    }

    fn start_link(
        &mut self,
        id: ChannelId,
        lane: Lane,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(Principal::Node { id: from }) = self.principal else {
            self.not_offered("only nodes may open links between nodes");
            return session.channel_failure(id);
        };
        let idle = |c: &&mut GuestChannel| matches!(c.purpose, Purpose::Idle);
        let Some(channel) = self.channels.get_mut(&id).filter(idle) else {
            self.not_offered("a second request on one channel");
            return session.channel_failure(id);
        };
        channel.purpose = Purpose::Link(Link::new(from, lane));
        session.channel_success(id)
    }

    /// Whether clients must be held back now.
    fn is_clogged(&self) -> bool {
        self.channels.values().any(|channel| match &channel.purpose {
            Purpose::Session { stdin, .. } => stdin.is_clogged(),
            Purpose::Idle | Purpose::Link(_) => false,
        })
    }

    fn take_input(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        match &mut channel.purpose {
            // Nobody asked for anything yet; a client that talks anyway talks to itself.
            Purpose::Idle => Ok(()),
            Purpose::Session { stdin, life, keyboard } => {
                let taken = match keyboard {
                    Some(keyboard) => keyboard.typed(data, stdin, life),
                    None => stdin.push(data),
                };
                if taken.is_ok() {
                    return Ok(());
                }
                life.close();
                self.context.counters.stdin_overflows.increment();
                warn!(source = %self.source, "channel closed: its client ignores flow control");
                self.channels.remove(&id);
                session.exit_status_request(id, EXIT_OVERFLOW)?;
                session.close(id)
            }
            Purpose::Link(link) => match link.take(data, &self.context) {
                Ok(None) => Ok(()),
                Ok(Some(greeting)) => {
                    if let Some(write) = channel.write.take() {
                        tokio::spawn(async move { write.data_bytes(greeting).await });
                    }
                    Ok(())
                }
                Err(reason) => {
                    self.context.counters.peer_protocol_errors.increment();
                    let (from, lane) = (link.from, link.lane);
                    warn!(%from, ?lane, source = %self.source, %reason, "link of a peer cut");
                    session.disconnect(Disconnect::ProtocolError, &reason, "")
                }
            },
        }
    }

    fn end_channel(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.remove(&id)
            && let Purpose::Session { life, .. } = channel.purpose
        {
            life.close();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        for (_, channel) in self.channels.drain() {
            if let Purpose::Session { life, .. } = channel.purpose {
                life.close();
            }
        }
        if self.principal.is_none() {
            self.context.counters.unauthenticated_ended.increment();
            let refusals = self.refusals;
            // An expired certificate and a wrong signature are refused below us, where no reason is
            // told.
            info!(
                source = %self.source,
                refusals,
                "connection ended unauthenticated; without a refusal logged before, \
                 it offered no key, an expired or not yet valid certificate, \
                 or one with a broken signature"
            );
        }
    }
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let (trust, now) = (self.context.trust.load(), SystemTime::now());
        let proof = Proof::Key(key.public_key.clone());
        let decision = proof.judge(&trust, self.source.ip(), now);
        if let Ok(Principal::Node { id }) = decision {
            self.warn_if_overdue(&trust, id, now);
        }
        let presented = format!("key {}", key.public_key.fingerprint(HashAlg::Sha256));
        Ok(self.decide(user, proof, decision, &presented, now))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let trust = self.context.trust.load();
        let now = SystemTime::now();
        let proof = Proof::Certificate(Box::new(certificate.clone()));
        let decision = proof.judge(&trust, self.source.ip(), now);
        let presented = format!(
            "certificate {:?} serial {} for key {} by authority {}",
            shown(certificate.key_id()),
            certificate.serial(),
            certificate.public_key().fingerprint(HashAlg::Sha256),
            certificate.signature_key().fingerprint(HashAlg::Sha256),
        );
        Ok(self.decide(user, proof, decision, &presented, now))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), russh::Error> {
        self.place.authenticated();
        if let Some(visitor) = self.visitor.take() {
            // A connection authenticates once.
            let _known = self.known.set(visitor);
        }
        self.context.counters.authenticated.increment();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.retain(|_, channel| match &channel.purpose {
            Purpose::Session { life, .. } => !life.is_closed(),
            Purpose::Idle | Purpose::Link(_) => true,
        });
        let settings = &self.context.settings;
        if self.channels.len() >= settings.channels_max
            || self.channels_opened >= settings.channels_lifetime_max
        {
            self.not_offered("one more channel on this connection");
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channels_opened += 1;
        let id = channel.id();
        // Without its reading half, russh queues nothing for the channel and cannot wait for a
        // reader.
        let (_unused, write) = channel.split();
        let purpose = Purpose::Idle;
        self.channels.insert(id, GuestChannel { write: Some(write), terminal: None, purpose });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.end_channel(id);
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(channel) = self.channels.get_mut(&id)
            && let Purpose::Session { stdin, keyboard, .. } = &mut channel.purpose
        {
            match keyboard {
                Some(keyboard) => keyboard.end(stdin),
                None => stdin.end(),
            }
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.take_input(id, data, session)?;
        self.control.brake(self.is_clogged());
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        if self.is_clogged() { TRICKLE_WINDOW } else { WINDOW_BYTES }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _pixels_wide: u32,
        _pixels_high: u32,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(channel) = self.channels.get_mut(&id) else { return session.channel_failure(id) };
        channel.terminal = Some(Terminal::new(shown(term), (columns, rows), modes));
        session.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _pixels_wide: u32,
        _pixels_high: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(terminal) = self.channels.get(&id).and_then(|c| c.terminal.as_ref()) {
            terminal.resize(columns, rows);
        }
        session.channel_success(id)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.start_session(id, ExecRequest::Exec(command.to_vec()), session)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.start_session(id, ExecRequest::Shell, session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(lane) = Lane::from_subsystem(name) {
            return self.start_link(id, lane, session);
        }
        if name == RPC_SUBSYSTEM {
            return self.start_session(id, ExecRequest::Subsystem(name.to_string()), session);
        }
        self.not_offered(&format!("the subsystem \"{}\"", shown(name)));
        session.channel_failure(id)
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let stops = matches!(signal, Sig::INT | Sig::TERM | Sig::HUP | Sig::QUIT);
        if let Some(channel) = self.channels.get(&id)
            && let Purpose::Session { life, .. } = &channel.purpose
            && stops
        {
            life.unwant();
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // Stock clients send their locale with each command: not worth a line in the log.
        self.context.counters.refused_requests.increment();
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.not_offered("X11 forwarding");
        session.channel_failure(id)
    }

    async fn agent_request(
        &mut self,
        _id: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.not_offered("agent forwarding");
        Ok(false)
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _address: &str,
        _port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.not_offered("X11 forwarding");
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.not_offered(&format!("forwarding to {}:{port}", shown(host)));
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.not_offered("forwarding");
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.not_offered(&format!("forwarding to the socket {}", shown(path)));
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        _address: &str,
        _port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.not_offered("listening for a client");
        Ok(false)
    }

    async fn streamlocal_forward(
        &mut self,
        _path: &str,
        _session: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.not_offered("listening for a client");
        Ok(false)
    }
}
