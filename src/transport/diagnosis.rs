//! Why a key or certificate would be let in by a cluster, or not: what a node's log says to nobody
//! but those who can read it.
//!
//! Judged by the very checks that a node makes, so the answer is the node's; beside it stands what
//! the key or certificate says of itself. Only for whoever holds the cluster's own keys: it tells
//! what a stranger must not learn.

use super::bundle::{Authority, AuthorityRole, fingerprint};
use super::checks::SOURCE_ADDRESS;
use super::identity::{Principal, Refusal, Trust};
use russh::keys::ssh_key::HashAlg;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, PrivateKey, PublicKey};
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

/// What somebody would come with.
#[derive(Debug, Clone)]
pub enum Presented {
    /// A plain key.
    Key(PublicKey),
    /// A certificate.
    Certificate(Box<Certificate>),
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its key id.
    pub key_id: String,
    /// Its serial.
    pub serial: u64,
    /// Whether it is for a host; else for a user.
    pub host: bool,
    /// Fingerprint of who signed it.
    pub signer: String,
    /// Which authority of the cluster that is, with its stage, such as `operator, current`.
    pub authority: Option<String>,
    /// Whom it names.
    pub principals: Vec<String>,
    /// The first second in which it is valid, as seconds since 1970.
    pub valid_after: u64,
    /// The first second in which it is not any more.
    pub valid_before: u64,
    /// How it restricts its use.
    pub options: Vec<(String, String)>,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Fingerprint of the key.
    pub key: String,
    /// What the certificate says, if it is one.
    pub certificate: Option<CertificateFacts>,
    /// The line of the bundle that revokes it.
    pub revoked_by: Option<String>,
    /// The address from which it was taken to come.
    pub source: IpAddr,
    /// Who it would be, and what they may do; or the reason why not.
    pub verdict: Result<String, Refusal>,
}

impl Presented {
    /// Reads what a file holds: a private key, whose public half is meant, a public key or a
    /// certificate.
    ///
    /// # Errors
    /// When it is none of them, in the parser's words.
    pub fn parse(text: &str) -> Result<Presented, String> {
        let text = text.trim();
        if text.contains("PRIVATE KEY-----") {
            let key = PrivateKey::from_openssh(text);
            let key = key.map_err(|error| format!("it holds no private key: {error}"))?;
            return Ok(Presented::Key(key.public_key().clone()));
        }
        if text.split_whitespace().next().is_some_and(|kind| kind.contains("-cert-v01@")) {
            let certificate = Certificate::from_openssh(text);
            let certificate =
                certificate.map_err(|error| format!("it holds no certificate: {error}"))?;
            return Ok(Presented::Certificate(Box::new(certificate)));
        }
        let key = PublicKey::from_openssh(text);
        key.map(Presented::Key).map_err(|error| format!("it holds no key: {error}"))
    }
}

/// Says what a cluster that believes `trust` would do with `presented` at `now`, coming from
/// `source`; without one, from an address that the certificate itself allows.
pub fn diagnose(
    trust: &Trust,
    presented: &Presented,
    source: Option<IpAddr>,
    now: SystemTime,
) -> Diagnosis {
    match presented {
        Presented::Key(key) => {
            let source = source.unwrap_or(Ipv4Addr::LOCALHOST.into());
            let print = fingerprint(key);
            let revoked = trust.bundle().revokes_key(&print).map(ToString::to_string);
            Diagnosis {
                key: print,
                certificate: None,
                revoked_by: revoked,
                source,
                verdict: trust.accept_key(key, source, now).map(|principal| told(&principal)),
            }
        }
        Presented::Certificate(certificate) => {
            let source = source.unwrap_or_else(|| allowed_source(certificate));
            Diagnosis {
                key: certificate.public_key().fingerprint(HashAlg::Sha256).to_string(),
                certificate: Some(facts(trust, certificate)),
                revoked_by: revoked_by(trust, certificate),
                source,
                verdict: judge(trust, certificate, source, now),
            }
        }
    }
}

fn judge(
    trust: &Trust,
    certificate: &Certificate,
    source: IpAddr,
    now: SystemTime,
) -> Result<String, Refusal> {
    if certificate.cert_type() == CertType::User {
        let accepted = trust.accept_certificate(certificate, source, now);
        return accepted.map(|principal| told(&principal));
    }
    let name = certificate.valid_principals().first().cloned().unwrap_or_default();
    trust.accept_host(certificate, &name, now).map(|()| format!("the host {name}"))
}

fn facts(trust: &Trust, certificate: &Certificate) -> CertificateFacts {
    let signer = certificate.signature_key();
    let authority = signed_by(trust, certificate);
    CertificateFacts {
        key_id: certificate.key_id().to_owned(),
        serial: certificate.serial(),
        host: certificate.cert_type() == CertType::Host,
        signer: signer.fingerprint(HashAlg::Sha256).to_string(),
        authority: authority.map(|known| format!("{}, {}", known.role, known.stage)),
        principals: certificate.valid_principals().to_vec(),
        valid_after: certificate.valid_after(),
        valid_before: certificate.valid_before(),
        options: certificate
            .critical_options()
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    }
}

fn signed_by<'a>(trust: &'a Trust, certificate: &Certificate) -> Option<&'a Authority> {
    let mut authorities = trust.bundle().authorities.iter();
    authorities.find(|known| known.key.key_data() == certificate.signature_key())
}

/// What revokes it: by what is written in it, by its key, or by its authority's.
fn revoked_by(trust: &Trust, certificate: &Certificate) -> Option<String> {
    let bundle = trust.bundle();
    let role = match (signed_by(trust, certificate), certificate.cert_type()) {
        (Some(authority), _) => authority.role,
        (None, CertType::Host) => AuthorityRole::Host,
        (None, CertType::User) => AuthorityRole::Operator,
    };
    let prints = [certificate.public_key(), certificate.signature_key()]
        .map(|key| key.fingerprint(HashAlg::Sha256).to_string());
    let issue = bundle.revokes_issue(role, certificate.serial(), certificate.key_id());
    let line = issue.or_else(|| prints.iter().find_map(|print| bundle.revokes_key(print)));
    line.map(ToString::to_string)
}

/// The first address of the certificate's own list, so that a restriction does not hide what else
/// is to be said.
fn allowed_source(certificate: &Certificate) -> IpAddr {
    let list = certificate.critical_options().get(SOURCE_ADDRESS);
    let first = list.and_then(|list| list.split([',', '/']).next()?.parse().ok());
    first.unwrap_or(Ipv4Addr::LOCALHOST.into())
}

fn told(principal: &Principal) -> String {
    match principal {
        Principal::Node { id } => format!("node {}", id.0),
        Principal::Person { name, rights, force_command: None, .. } => {
            format!("{name}, with {rights}")
        }
        Principal::Person { name, rights, force_command: Some(command), .. } => {
            format!("{name}, with {rights}, for the command {command:?} only")
        }
        Principal::Local => "whoever may open the socket".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::{self, PersonGrant, Validity};
    use super::super::bundle::{AuthorityStage, Bundle, Revocation};
    use super::*;
    use crate::paxos::ballot::ClusterId;
    use std::time::{Duration, UNIX_EPOCH};

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn bundle(operator: &PrivateKey) -> Bundle {
        Bundle {
            epoch: 4,
            cluster: "local".to_owned(),
            cluster_id: ClusterId(7),
            authorities: vec![Authority {
                role: AuthorityRole::Operator,
                stage: AuthorityStage::Retiring,
                key: operator.public_key().clone(),
            }],
            revocations: vec![Revocation::KeyId("bob@local/9".to_owned())],
        }
    }

    fn certificate(signer: &PrivateKey, name: &str, serial: u64, from: Option<&str>) -> Presented {
        let subject = authority::new_key("").unwrap();
        let grant = PersonGrant {
            name: name.to_owned(),
            rights: "write:/app1/".parse().unwrap(),
            source_addresses: from.map(str::to_owned),
            force_command: None,
        };
        let validity = Validity::starting(now(), HOUR);
        let made = authority::person_certificate(
            signer,
            subject.public_key(),
            &grant,
            "local",
            serial,
            validity,
        );
        Presented::parse(&authority::certificate_line(&made.unwrap())).unwrap()
    }

    #[test]
    fn each_reason_is_told_with_what_the_certificate_says() {
        let operator = authority::new_key("").unwrap();
        let trust = Trust::new(bundle(&operator), Vec::new());
        let judge = |presented: &Presented, time| diagnose(&trust, presented, None, time);

        let alice = certificate(&operator, "alice", 8, Some("10.1.0.0/16"));
        let good = judge(&alice, now());
        assert_eq!(good.verdict.as_deref(), Ok("alice, with write:/app1/"));
        assert_eq!(good.source, "10.1.0.0".parse::<IpAddr>().unwrap());
        let facts = good.certificate.unwrap();
        assert_eq!(facts.authority.as_deref(), Some("operator, retiring"));
        assert_eq!((facts.key_id.as_str(), facts.serial, facts.host), ("alice@local/8", 8, false));
        assert_eq!(facts.options, [("source-address".to_owned(), "10.1.0.0/16".to_owned())]);
        let elsewhere = diagnose(&trust, &alice, Some(Ipv4Addr::LOCALHOST.into()), now());
        assert!(matches!(elsewhere.verdict, Err(Refusal::WrongSource { .. })));
        assert!(matches!(judge(&alice, now() + HOUR).verdict, Err(Refusal::Expired { .. })));
        let early = judge(&alice, now() - HOUR).verdict;
        assert!(matches!(early, Err(Refusal::NotYetValid { .. })));

        let bob = judge(&certificate(&operator, "bob", 9, None), now());
        assert_eq!(bob.revoked_by.as_deref(), Some("key-id bob@local/9"));
        assert!(matches!(bob.verdict, Err(Refusal::Revoked(_))));

        let stranger = authority::new_key("").unwrap();
        let eve = judge(&certificate(&stranger, "eve", 1, None), now());
        assert!(matches!(eve.verdict, Err(Refusal::UnknownAuthority { .. })));
        let facts = eve.certificate.unwrap();
        assert_eq!((facts.authority, facts.signer), (None, fingerprint(stranger.public_key())));

        let key = Presented::Key(stranger.public_key().clone());
        assert!(matches!(judge(&key, now()).verdict, Err(Refusal::UnknownKey(_))));
    }

    #[test]
    fn files_are_told_apart() {
        let key = authority::new_key("").unwrap();
        let private = key.to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
        for text in [private.as_str(), &authority::public_line(key.public_key())] {
            let Ok(Presented::Key(parsed)) = Presented::parse(text) else { panic!("{text}") };
            assert_eq!(parsed.key_data(), key.public_key().key_data());
        }
        for text in ["", "hello", "ssh-ed25519 AAAA", "ssh-ed25519-cert-v01@openssh.com AAAA"] {
            assert!(Presented::parse(text).is_err(), "{text:?}");
        }
    }
}
