//! The single checks of a certificate, each with a refusal of its own.
//!
//! Every check looks at one property and believes nothing about the others; the order in which they
//! are made, and that none is left out, is the business of identity.

use super::refusal::Refusal;
use super::source::AddressList;
use russh::keys::ssh_key::HashAlg;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, PublicKey};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const SOURCE_ADDRESS: &str = "source-address";
pub(super) const FORCE_COMMAND: &str = "force-command";

/// What a node's key and its authorities may be: one kind, so that there is one to audit.
pub(super) const NODE_ALGORITHMS: fn(&Algorithm) -> bool =
    |algorithm| *algorithm == Algorithm::Ed25519;

/// What people may bring: also what security keys and smart cards hold. No RSA, no DSA.
pub(super) const PERSON_ALGORITHMS: fn(&Algorithm) -> bool = |algorithm| {
    matches!(
        algorithm,
        Algorithm::Ed25519
            | Algorithm::Ecdsa { .. }
            | Algorithm::SkEd25519
            | Algorithm::SkEcdsaSha2NistP256
    )
};

pub(super) fn check_algorithm(
    what: &str,
    algorithm: &Algorithm,
    accepted: fn(&Algorithm) -> bool,
) -> Result<(), Refusal> {
    if accepted(algorithm) {
        return Ok(());
    }
    Err(Refusal::Algorithm { what: what.to_owned(), algorithm: algorithm.to_string() })
}

/// The subject's key by `accepted`; the authority's key and signature by what people may bring,
/// since an authority may live on a security key.
pub(super) fn check_algorithms(
    certificate: &Certificate,
    accepted: fn(&Algorithm) -> bool,
) -> Result<(), Refusal> {
    let what = |part: &str| format!("the {part} of certificate {:?}", certificate.key_id());
    check_algorithm(&what("key"), &certificate.algorithm(), accepted)?;
    let signature = certificate.signature().algorithm();
    check_algorithm(&what("signature"), &signature, PERSON_ALGORITHMS)
}

pub(super) fn check_signature<'a>(
    certificate: &Certificate,
    authorities: impl Iterator<Item = &'a PublicKey>,
    role: &'static str,
    cluster: &str,
) -> Result<(), Refusal> {
    let key_id = certificate.key_id().to_owned();
    let signer = certificate.signature_key();
    let print = signer.fingerprint(HashAlg::Sha256);
    if !authorities.into_iter().any(|authority| authority.key_data() == signer) {
        let (authority, cluster) = (print.to_string(), cluster.to_owned());
        return Err(Refusal::UnknownAuthority { key_id, authority, role, cluster });
    }
    // At its own first second a certificate is within its dates, so what this call judges is the
    // signature; the dates have a check of their own, with a reason of their own. (A window of no
    // length fails here. It is never valid anyway.)
    certificate
        .validate_at(certificate.valid_after(), [&print])
        .map_err(|_| Refusal::BadSignature(key_id))
}

pub(super) fn check_type(certificate: &Certificate, wanted: CertType) -> Result<(), Refusal> {
    let name = |kind| if kind == CertType::Host { "host" } else { "user" };
    if certificate.cert_type() == wanted {
        return Ok(());
    }
    Err(Refusal::WrongType {
        key_id: certificate.key_id().to_owned(),
        found: name(certificate.cert_type()),
        wanted: name(wanted),
    })
}

/// `valid_after <= now < valid_before`, in whole seconds as certificates count them.
pub(super) fn check_dates(certificate: &Certificate, now: SystemTime) -> Result<(), Refusal> {
    let key_id = certificate.key_id().to_owned();
    // A clock before 1970 sees nothing as valid yet.
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < certificate.valid_after() {
        let wait = Duration::from_secs(certificate.valid_after() - now);
        return Err(Refusal::NotYetValid { key_id, wait });
    }
    if now >= certificate.valid_before() {
        let since = Duration::from_secs(now - certificate.valid_before());
        return Err(Refusal::Expired { key_id, since });
    }
    Ok(())
}

/// Refuses every critical option that is not in `known`, and keeps those that are.
pub(super) fn check_options(
    certificate: &Certificate,
    source: IpAddr,
    known: &[&str],
) -> Result<(), Refusal> {
    let key_id = || certificate.key_id().to_owned();
    for (option, value) in certificate.critical_options().iter() {
        if !known.contains(&option.as_str()) {
            return Err(Refusal::CriticalOption { key_id: key_id(), option: option.clone() });
        }
        if option == SOURCE_ADDRESS {
            // A list that is not understood allows nothing.
            let allowed = value.parse::<AddressList>().is_ok_and(|list| list.contains(source));
            if !allowed {
                let (allowed, source_ip) = (value.clone(), source);
                return Err(Refusal::WrongSource { key_id: key_id(), allowed, source_ip });
            }
        }
    }
    Ok(())
}
