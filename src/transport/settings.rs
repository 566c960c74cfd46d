//! How connections are set up: every russh setting that matters, and why it has its value.
//!
//! Nothing is left to russh's defaults that decides about safety or life and death of a connection:
//! its defaults accept passwords, offer SHA-1 and compression, leave Nagle's algorithm on, never
//! notice a dead peer, and delay each stock client by a second.

use super::identity::NodeKeys;
use russh::keys::ssh_key::{Algorithm, EcdsaCurve};
use russh::{
    MethodKind, MethodSet, Preferred, SshId, cipher, client, compression, kex, mac, server,
};
use std::borrow::Cow;
use std::time::Duration;

/// Bytes that one channel's sender may have under way. Enough for 20 MB/s at 50 ms of round trip.
/// russh ends a connection with more than twice this under way when it starts to exchange keys
/// anew, so it must not be smaller than what a receiver ever grants; nothing here grants more.
pub const WINDOW_BYTES: u32 = 1 << 20;

/// The window that people's clients grant for what a node answers.
pub const CLIENT_WINDOW_BYTES: u32 = 2 << 20;

/// Largest packet. Larger ones were slower on every machine measured: they leave the cache.
pub const PACKET_BYTES: u32 = 32 << 10;

/// Keys are exchanged anew after this many bytes in one direction; the protocol's advice is 1 GiB.
const REKEY_BYTES: usize = 1 << 30;

/// ... or after this time.
const REKEY_TIME: Duration = Duration::from_secs(3600);

/// The two ends would both start at the same byte. The dialler of a link, who sends all the bulk,
/// starts earlier, because an exchange that the sender starts finds nothing under way.
const DIALLER_STARTS_EARLIER: usize = 2;

/// What can be tuned, with values that fit a small cluster on a good network.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A connection must have authenticated within this time. A person may have to touch a token.
    pub login_grace: Duration,
    /// A dialler gives up on address, handshake and authentication after this time.
    pub dial_timeout: Duration,
    /// Connections that have not authenticated yet, at most. One more ends the oldest of them:
    /// whoever means it is through within milliseconds, so the oldest is the likeliest squatter.
    pub unauthenticated_max: usize,
    /// The same, for one source address (for IPv6: one /64 network).
    pub unauthenticated_per_source_max: usize,
    /// Connections altogether; one more is closed at once.
    pub connections_max: usize,
    /// Channels open at a time on one connection, as sshd's `MaxSessions`.
    pub channels_max: usize,
    /// Channels over the life of one connection. russh keeps about 3 KiB of each until the
    /// connection ends; stock clients that are refused one open a new connection by themselves.
    pub channels_lifetime_max: u64,
    /// Failed keys before a connection is closed, as sshd's `MaxAuthTries`.
    pub auth_attempts_max: usize,
    /// Delay before a refusal. Slows guessing; an agent with several keys is still let in quickly.
    pub refusal_delay: Duration,
    /// Frames that may wait for one peer on one lane, in bytes. What comes when it is full is
    /// dropped.
    pub outbox_bytes_max: usize,
    /// How long a peer may take nothing of a piece of frames before its link is cut and dialled
    /// anew.
    pub send_timeout: Duration,
    /// How often a silent client is asked for a sign of life.
    pub client_keepalive: Duration,
    /// How often a silent peer is asked for a sign of life.
    pub peer_keepalive: Duration,
    /// Unanswered asks before a connection counts as dead.
    pub keepalive_max: usize,
    /// Keys are exchanged anew after this many bytes; small only in tests.
    pub rekey_bytes: usize,
    /// First pause before a lost peer is dialled again, once quick attempts failed. Doubles, with
    /// jitter.
    pub redial_min: Duration,
    /// Longest pause between two dials of a peer.
    pub redial_max: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            login_grace: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(5),
            unauthenticated_max: 256,
            unauthenticated_per_source_max: 128,
            connections_max: 2048,
            channels_max: 32,
            channels_lifetime_max: 10_000,
            auth_attempts_max: 6,
            refusal_delay: Duration::from_millis(250),
            outbox_bytes_max: 32 << 20,
            // The largest frame passes in this time even at 5 Mbit/s.
            send_timeout: Duration::from_secs(30),
            client_keepalive: Duration::from_secs(15),
            peer_keepalive: Duration::from_secs(2),
            keepalive_max: 3,
            rekey_bytes: REKEY_BYTES,
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
        }
    }
}

/// The version line. Names the protocol, not the build: what a stranger learns helps only
/// strangers.
fn ssh_id() -> SshId {
    SshId::Standard(Cow::Borrowed("SSH-2.0-paxos"))
}

/// A connection on which nothing moves for this long is dead even if keepalives cannot tell (they
/// are not sent before authentication, and a blocked write is bounded by nothing else).
fn inactivity(keepalive: Duration, keepalive_max: usize) -> Duration {
    keepalive * u32::try_from(keepalive_max + 2).unwrap_or(u32::MAX)
}

fn ecdsa(curve: EcdsaCurve) -> Algorithm {
    Algorithm::Ecdsa { curve }
}

/// Keys that people may have: ed25519, ecdsa, and either on a FIDO token. No RSA, no DSA.
fn people_keys() -> Vec<Algorithm> {
    vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        Algorithm::SkEd25519,
        Algorithm::SkEcdsaSha2NistP256,
    ]
}

/// Key exchange against later quantum computers first, then what everybody has. The markers switch
/// strict key exchange on (without it, messages can be cut from the start of a connection) and let
/// clients learn which signatures are accepted.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// Only ciphers that authenticate. aes128-gcm first: three times as fast as chacha20 with the
/// processor's help, and the dialler's order decides.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];

/// None of the ciphers needs one, but some clients insist on a common name.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// Never: it was the way in for a bomb before authentication, and what we send hardly shrinks.
const COMPRESSION: &[compression::Name] = &[compression::NONE];

fn preferred(key: Vec<Algorithm>, host_key_certificates: Vec<Algorithm>) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Owned(key),
        host_key_certificates: Cow::Owned(host_key_certificates),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(COMPRESSION),
    }
}

fn limits(bytes: usize) -> russh::Limits {
    russh::Limits::new(bytes, bytes, REKEY_TIME)
}

impl Settings {
    /// The russh configuration of one accepted connection, with the node's keys of this moment.
    pub(super) fn server(&self, keys: &NodeKeys) -> server::Config {
        server::Config {
            server_id: ssh_id(),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: self.refusal_delay,
            // Stock clients always ask with "none" first; delaying that would delay every command.
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![(*keys.host_key).clone()],
            certificates: vec![keys.host_certificate.clone()],
            limits: limits(self.rekey_bytes),
            window_size: WINDOW_BYTES,
            maximum_packet_size: PACKET_BYTES,
            // Nobody reads these queues: what comes is taken in callbacks, which never wait.
            channel_buffer_size: 1,
            // Shared by all writers of a connection; small, because what waits here has left its
            // bound.
            event_buffer_size: 16,
            preferred: preferred(people_keys(), Vec::new()),
            max_auth_attempts: self.auth_attempts_max,
            inactivity_timeout: Some(inactivity(self.client_keepalive, self.keepalive_max)),
            keepalive_interval: Some(self.client_keepalive),
            keepalive_max: self.keepalive_max,
            // Set on the socket by the accept loop; russh would only do it for its own.
            nodelay: true,
        }
    }

    /// The russh configuration with which a node dials a peer.
    pub(super) fn peer(&self) -> client::Config {
        self.dialler(self.peer_keepalive, vec![Algorithm::Ed25519], WINDOW_BYTES)
    }

    /// The russh configuration with which people's programs dial a node.
    pub(super) fn client(&self) -> client::Config {
        self.dialler(self.client_keepalive, vec![Algorithm::Ed25519], CLIENT_WINDOW_BYTES)
    }

    fn dialler(
        &self,
        keepalive: Duration,
        host_keys: Vec<Algorithm>,
        window_size: u32,
    ) -> client::Config {
        client::Config {
            client_id: ssh_id(),
            limits: limits((self.rekey_bytes / DIALLER_STARTS_EARLIER).max(1)),
            window_size,
            maximum_packet_size: PACKET_BYTES,
            channel_buffer_size: 1,
            // A host proves itself with a certificate and nothing else; a bare key is refused.
            preferred: preferred(host_keys.clone(), host_keys),
            inactivity_timeout: Some(inactivity(keepalive, self.keepalive_max)),
            keepalive_interval: Some(keepalive),
            keepalive_max: self.keepalive_max,
            anonymous: false,
            nodelay: true,
            // Group exchange is not among our algorithms.
            gex: client::GexParams::default(),
        }
    }
}
