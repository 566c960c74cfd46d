//! Why somebody is not let in, as a closed list.
//!
//! These texts are for our own log. The other side learns only that it was refused: a stranger must
//! not be able to find out which part of a forgery to improve.

use super::rights::RightsError;
use std::net::IpAddr;
use std::time::Duration;

/// Why somebody is not let in. For our own log; the other side is told nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signer is nobody we know.
    #[error(
        "certificate {key_id:?} is signed by {authority}, \
         which is no {role} authority of cluster {cluster}; issue it with this cluster's keys"
    )]
    UnknownAuthority {
        /// The certificate.
        key_id: String,
        /// Fingerprint of the signer.
        authority: String,
        /// What it would have to be.
        role: &'static str,
        /// Our cluster.
        cluster: String,
    },
    /// The signer's signature does not hold.
    #[error("certificate {0:?} has a bad signature; it was altered: issue it again")]
    BadSignature(String),
    /// A host's certificate where a user's is wanted, or the other way round.
    #[error("certificate {key_id:?} is of type {found}, want {wanted}; use the other certificate")]
    WrongType {
        /// The certificate.
        key_id: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// It names nobody, or somebody it may not name.
    #[error(
        "certificate {key_id:?} names {found:?}, want {wanted}; issue it again for this cluster"
    )]
    WrongPrincipal {
        /// The certificate.
        key_id: String,
        /// Whom it names.
        found: Vec<String>,
        /// Whom it should name.
        wanted: String,
    },
    /// Its rights are not understood.
    #[error("certificate {key_id:?} grants what is not understood: {source}")]
    WrongRights {
        /// The certificate.
        key_id: String,
        /// Why.
        source: RightsError,
    },
    /// Its time has not come.
    #[error(
        "certificate {key_id:?} is not valid for another {wait:?}; compare the machines' clocks"
    )]
    NotYetValid {
        /// The certificate.
        key_id: String,
        /// Until then.
        wait: Duration,
    },
    /// Its time is over.
    #[error("certificate {key_id:?} expired {since:?} ago; issue a new one")]
    Expired {
        /// The certificate.
        key_id: String,
        /// Since then.
        since: Duration,
    },
    /// It restricts its use in a way that we do not know or cannot keep.
    #[error(
        "certificate {key_id:?} has the critical option {option:?}, which is not honoured here"
    )]
    CriticalOption {
        /// The certificate.
        key_id: String,
        /// The option.
        option: String,
    },
    /// It may not be used from there.
    #[error(
        "certificate {key_id:?} may be used from {allowed} only, and was used from {source_ip}"
    )]
    WrongSource {
        /// The certificate.
        key_id: String,
        /// Its list.
        allowed: String,
        /// Where it came from.
        source_ip: IpAddr,
    },
    /// It was revoked.
    #[error("{0} is revoked; issue a new key and certificate if that was not meant")]
    Revoked(String),
    /// A signature or key of a kind that is not accepted.
    #[error("{what} uses {algorithm}, which is not accepted; use an ed25519 key")]
    Algorithm {
        /// What.
        what: String,
        /// Which.
        algorithm: String,
    },
    /// A plain key that nobody listed.
    #[error("key {0} is not listed and came without a certificate; issue one, or list the key")]
    UnknownKey(String),
}

impl Refusal {
    /// The kind in one word, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::UnknownAuthority { .. } => "unknown_authority",
            Refusal::BadSignature(_) => "bad_signature",
            Refusal::WrongType { .. } => "wrong_type",
            Refusal::WrongPrincipal { .. } => "wrong_principal",
            Refusal::WrongRights { .. } => "wrong_rights",
            Refusal::NotYetValid { .. } => "not_yet_valid",
            Refusal::Expired { .. } => "expired",
            Refusal::CriticalOption { .. } => "critical_option",
            Refusal::WrongSource { .. } => "wrong_source",
            Refusal::Revoked(_) => "revoked",
            Refusal::Algorithm { .. } => "algorithm",
            Refusal::UnknownKey(_) => "unknown_key",
        }
    }
}
