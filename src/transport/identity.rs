//! Who is at the other end, and whether we believe it: every check of a certificate or key, on both
//! sides.
//!
//! russh verifies that the other side holds the private key, and of a client's certificate the
//! signature and, off by one second, the dates. Authority, type, principals, critical options,
//! revocation and the algorithms are checked here and nowhere else; the signature and the dates are
//! checked again, so that nothing rests on what a library may drop. Nothing here touches the
//! network, waits, or asks a quorum: peers must be able to recognise each other before there is
//! one.
//!
//! Names in certificates. A node's client certificate has one principal, `node:CLUSTER:ID`; a
//! node's host certificate has `NODE.CLUSTER.paxos`; a person's has `person:CLUSTER:NAME` and one
//! `right:CLUSTER:WORD` per right. The cluster is part of each, so that an authority shared by two
//! clusters opens neither.
//!
//! A [`Trust`] never changes: who reloads keys builds another and swaps it in whole, by way of
//! [`LiveTrust`](super::live::LiveTrust), which has the connections that are open judged again.

use super::bundle::{self, AuthorityRole, Bundle};
use super::checks::{
    FORCE_COMMAND, NODE_ALGORITHMS, PERSON_ALGORITHMS, SOURCE_ADDRESS, check_algorithm,
    check_algorithms, check_dates, check_options, check_signature, check_type,
};
use super::keyfiles::{load_bundle, load_root, read_optional};
use super::rights::Rights;
use crate::paxos::ballot::NodeId;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::{HashAlg, public::KeyData};
use russh::keys::{Certificate, PublicKey};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub use super::keyfiles::{
    BUNDLE, HOST_CERTIFICATE, MEMBERS, NODE_KEY, NodeKeys, PEER_CERTIFICATE, PEOPLE, ROOT,
    TrustError, load_key_file, load_private_key,
};
pub use super::refusal::Refusal;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A node of the cluster.
    Node {
        /// Its id, from its certificate.
        id: NodeId,
    },
    /// A person or an application.
    Person {
        /// Their name.
        name: String,
        /// The serial of their certificate; none with a plain key.
        serial: Option<u64>,
        /// What they may do.
        rights: Rights,
        /// The only command they may run.
        force_command: Option<String>,
    },
    /// Whoever may open the node's own socket on this machine.
    Local,
}

impl Principal {
    /// How this principal is called in the log, and what its sessions are bound to. Names of people
    /// cannot hold a colon, so the three kinds never collide.
    pub fn label(&self) -> String {
        match self {
            Principal::Node { id } => format!("node:{}", id.0),
            Principal::Person { name, .. } => name.clone(),
            Principal::Local => "local:".to_owned(),
        }
    }
}

/// What happens to a certificate of a current member that has run out but was not revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerExpiry {
    /// It is believed, and reported: an outage would be the worse harm.
    #[default]
    Warn,
    /// It is refused.
    Enforce,
}

/// A plain key that somebody may use without a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Whose.
    pub name: String,
    /// What they may do.
    pub rights: Rights,
    /// The key.
    pub key: PublicKey,
}

/// Whom this node believes. Immutable.
#[derive(Debug, Clone)]
pub struct Trust {
    bundle: Bundle,
    people: Vec<ListedKey>,
    member_certificates: Vec<Certificate>,
    members: BTreeMap<NodeId, String>,
    peer_expiry: PeerExpiry,
}

/// The name on a node's host certificate.
pub fn host_principal(node: &str, cluster: &str) -> String {
    format!("{node}.{cluster}.paxos")
}

/// The name on a node's client certificate.
pub fn node_principal(id: NodeId, cluster: &str) -> String {
    format!("node:{cluster}:{}", id.0)
}

/// The name on a person's certificate.
pub fn person_principal(name: &str, cluster: &str) -> String {
    format!("person:{cluster}:{name}")
}

/// One right on a person's certificate.
pub fn right_principal(word: &str, cluster: &str) -> String {
    format!("right:{cluster}:{word}")
}

/// Judges a host certificate by given authorities. Revocation is [`Trust::accept_host`]'s business.
///
/// # Errors
/// Says which check failed.
pub fn accept_host(
    certificate: &Certificate,
    authorities: &[PublicKey],
    expected_principal: &str,
    now: SystemTime,
) -> Result<(), Refusal> {
    let key_id = certificate.key_id().to_owned();
    check_signature(certificate, authorities.iter(), "host", expected_principal)?;
    check_type(certificate, CertType::Host)?;
    check_algorithms(certificate, NODE_ALGORITHMS)?;
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return Err(Refusal::CriticalOption { key_id, option: option.clone() });
    }
    // No wildcards: the name that we dial is known to the letter.
    if !certificate.valid_principals().iter().any(|name| name == expected_principal) {
        let found = certificate.valid_principals().to_vec();
        return Err(Refusal::WrongPrincipal {
            key_id,
            found,
            wanted: expected_principal.to_owned(),
        });
    }
    check_dates(certificate, now)
}

impl Trust {
    /// Builds trust from its parts; the bundle must have come from [`Bundle::verify`].
    pub fn new(bundle: Bundle, people: Vec<ListedKey>) -> Trust {
        Trust {
            bundle,
            people,
            member_certificates: Vec::new(),
            members: BTreeMap::new(),
            peer_expiry: PeerExpiry::default(),
        }
    }

    /// Reads a node's keys directory: [`ROOT`], [`BUNDLE`], [`PEOPLE`], [`MEMBERS`].
    ///
    /// # Errors
    /// When a file is missing or not usable, or the bundle is not signed by root.
    pub fn load(directory: &Path) -> Result<Trust, TrustError> {
        let (bundle, _) = load_bundle(&directory.join(BUNDLE), &[&load_root(directory)?])?;
        Trust::load_around(bundle, directory)
    }

    /// As [`Trust::load`], with a bundle from elsewhere.
    pub(super) fn load_around(bundle: Bundle, directory: &Path) -> Result<Trust, TrustError> {
        let mut trust = Trust::new(bundle, Vec::new());
        let path = directory.join(PEOPLE);
        for line in read_optional(&path)?.lines() {
            let listed = ListedKey::parse(line).map_err(|e| TrustError::malformed(&path, e))?;
            trust.people.extend(listed);
        }
        let path = directory.join(MEMBERS);
        for line in read_optional(&path)?.lines().filter(|line| !line.trim().is_empty()) {
            let certificate = Certificate::from_openssh(line)
                .map_err(|error| TrustError::malformed(&path, error))?;
            trust.member_certificates.push(certificate);
        }
        Ok(trust)
    }

    /// The same trust with another set of current members, by id and name. To be called whenever
    /// the configuration changes; without it every expired certificate is refused.
    pub fn with_members(mut self, members: BTreeMap<NodeId, String>) -> Trust {
        self.members = members;
        self
    }

    /// The same trust with another bundle.
    pub(super) fn with_bundle(mut self, bundle: Bundle) -> Trust {
        self.bundle = bundle;
        self
    }

    /// The same trust with the members, and the rule about them, of the one that it takes the place
    /// of.
    pub(super) fn in_place_of(self, old: &Trust) -> Trust {
        self.with_members(old.members.clone()).with_peer_expiry(old.peer_expiry)
    }

    /// The same trust that also knows the keys of members by these peer certificates.
    pub fn with_member_certificates(mut self, certificates: Vec<Certificate>) -> Trust {
        self.member_certificates = certificates;
        self
    }

    /// The same trust with another rule about expired members.
    pub fn with_peer_expiry(mut self, peer_expiry: PeerExpiry) -> Trust {
        self.peer_expiry = peer_expiry;
        self
    }

    /// The bundle's epoch.
    pub fn epoch(&self) -> u64 {
        self.bundle.epoch
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.bundle.cluster
    }

    /// The bundle behind this trust.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// How long ago the certificate of a current member expired, by all that is known here; none
    /// while it is valid. Such a member may still be let in: whoever lets it in raises the alarm
    /// with this.
    pub fn overdue(&self, id: NodeId, now: SystemTime) -> Option<Duration> {
        let principal = node_principal(id, self.cluster());
        let ages = (self.member_certificates.iter())
            .filter(|certificate| certificate.valid_principals() == [principal.as_str()])
            .map(|certificate| match check_dates(certificate, now) {
                Err(Refusal::Expired { since, .. }) => Some(since),
                _ => None,
            });
        // Of several certificates the one that lasts longest counts; `None`, for valid, is the
        // least.
        ages.min().flatten()
    }

    /// Judges the certificate of somebody who dials us, from `source`, at `now`.
    ///
    /// # Errors
    /// Says which check failed.
    pub fn accept_certificate(
        &self,
        certificate: &Certificate,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Principal, Refusal> {
        let signer = certificate.signature_key();
        let has_signed = |role| self.bundle.authorities(role).any(|key| key.key_data() == signer);
        if has_signed(AuthorityRole::Peer) {
            self.accept_node(certificate, source, now)
        } else if has_signed(AuthorityRole::Operator) {
            self.accept_person(certificate, source, now)
        } else {
            let key_id = certificate.key_id().to_owned();
            let authority = signer.fingerprint(HashAlg::Sha256).to_string();
            let (role, cluster) = ("peer or operator", self.cluster().to_owned());
            Err(Refusal::UnknownAuthority { key_id, authority, role, cluster })
        }
    }

    fn accept_node(
        &self,
        certificate: &Certificate,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Principal, Refusal> {
        self.check_issue(certificate, AuthorityRole::Peer, CertType::User)?;
        check_algorithms(certificate, NODE_ALGORITHMS)?;
        check_options(certificate, source, &[SOURCE_ADDRESS])?;
        let prefix = format!("node:{}:", self.cluster());
        let id = match certificate.valid_principals() {
            [name] => name.strip_prefix(&prefix).and_then(decimal),
            _ => None,
        };
        let id = id.map(NodeId).ok_or_else(|| Refusal::WrongPrincipal {
            key_id: certificate.key_id().to_owned(),
            found: certificate.valid_principals().to_vec(),
            wanted: format!("exactly {prefix}ID"),
        })?;
        let is_member = self.members.contains_key(&id);
        self.check_member_dates(certificate, is_member, now)?;
        Ok(Principal::Node { id })
    }

    fn accept_person(
        &self,
        certificate: &Certificate,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Principal, Refusal> {
        self.check_issue(certificate, AuthorityRole::Operator, CertType::User)?;
        check_algorithms(certificate, PERSON_ALGORITHMS)?;
        check_options(certificate, source, &[SOURCE_ADDRESS, FORCE_COMMAND])?;
        check_dates(certificate, now)?;
        let person = person_principal("", self.cluster());
        let right = right_principal("", self.cluster());
        let key_id = || certificate.key_id().to_owned();
        let wrong = || Refusal::WrongPrincipal {
            key_id: key_id(),
            found: certificate.valid_principals().to_vec(),
            wanted: format!("one {person}NAME, and {right}WORD for each right"),
        };
        let mut names = Vec::new();
        let mut words = Vec::new();
        for principal in certificate.valid_principals() {
            if let Some(name) = principal.strip_prefix(&person) {
                names.push(name);
            } else if let Some(word) = principal.strip_prefix(&right) {
                words.push(word);
            } else {
                return Err(wrong());
            }
        }
        let [name] = names[..] else { return Err(wrong()) };
        if !is_person_name(name) {
            return Err(wrong());
        }
        let rights = Rights::from_words(words)
            .map_err(|source| Refusal::WrongRights { key_id: key_id(), source })?;
        Ok(Principal::Person {
            name: name.to_owned(),
            serial: Some(certificate.serial()),
            rights,
            force_command: certificate.critical_options().get(FORCE_COMMAND).cloned(),
        })
    }

    /// Judges a plain key: one of the inventory's people; or the key of a current member whose
    /// certificate we hold, because russh turns an expired certificate away before anybody here
    /// sees it.
    ///
    /// # Errors
    /// When nobody listed the key, or it is revoked.
    pub fn accept_key(
        &self,
        key: &PublicKey,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Principal, Refusal> {
        if let Some(listed) = self.people.iter().find(|l| l.key.key_data() == key.key_data()) {
            check_algorithm("the key", &key.algorithm(), PERSON_ALGORITHMS)?;
            self.check_key_revocation(key.key_data())?;
            return Ok(Principal::Person {
                name: listed.name.clone(),
                serial: None,
                rights: listed.rights.clone(),
                force_command: None,
            });
        }
        let held = self.member_certificates.iter().find(|c| c.public_key() == key.key_data());
        match held {
            Some(certificate) => self.accept_certificate(certificate, source, now),
            None => Err(Refusal::UnknownKey(bundle::fingerprint(key))),
        }
    }

    /// Judges the certificate of a node that we dial; it must be for exactly `expected_principal`.
    ///
    /// # Errors
    /// Says which check failed.
    pub fn accept_host(
        &self,
        certificate: &Certificate,
        expected_principal: &str,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        self.check_issue(certificate, AuthorityRole::Host, CertType::Host)?;
        let authorities: Vec<_> = self.bundle.authorities(AuthorityRole::Host).cloned().collect();
        match accept_host(certificate, &authorities, expected_principal, now) {
            Err(Refusal::Expired { .. }) => {
                let is_member = (self.members.values())
                    .any(|name| host_principal(name, self.cluster()) == expected_principal);
                self.check_member_dates(certificate, is_member, now)
            }
            judged => judged,
        }
    }

    /// What holds for every certificate of ours: signed by whom we believe, of the right type, not
    /// revoked.
    fn check_issue(
        &self,
        certificate: &Certificate,
        role: AuthorityRole,
        wanted: CertType,
    ) -> Result<(), Refusal> {
        let authorities = self.bundle.authorities(role);
        check_signature(certificate, authorities, role.name(), self.cluster())?;
        check_type(certificate, wanted)?;
        let key_id = certificate.key_id();
        if self.bundle.revokes_issue(role, certificate.serial(), key_id).is_some() {
            return Err(Refusal::Revoked(format!("certificate {key_id:?}")));
        }
        self.check_key_revocation(certificate.public_key())?;
        self.check_key_revocation(certificate.signature_key())
    }

    fn check_key_revocation(&self, key: &KeyData) -> Result<(), Refusal> {
        let print = key.fingerprint(HashAlg::Sha256).to_string();
        match self.bundle.revokes_key(&print) {
            Some(_) => Err(Refusal::Revoked(format!("key {print}"))),
            None => Ok(()),
        }
    }

    fn check_member_dates(
        &self,
        certificate: &Certificate,
        is_member: bool,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        match check_dates(certificate, now) {
            Err(Refusal::Expired { .. }) if is_member && self.peer_expiry == PeerExpiry::Warn => {
                Ok(())
            }
            judged => judged,
        }
    }
}

/// A number as we write it: no sign, no leading zero, so that one id has one principal.
fn decimal(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

/// Letters, digits and `. _ @ + -`, at most 64 of them, starting with a letter or digit: safe in
/// file names, principals and lines of text.
pub fn is_person_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

impl ListedKey {
    /// Reads one line `NAME RIGHTS KEY`; none for an empty line or a comment.
    ///
    /// # Errors
    /// Says which of the three is wrong.
    pub fn parse(line: &str) -> Result<Option<ListedKey>, String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (name, rights, key) = (word(), word(), word());
        if !is_person_name(name) {
            return Err(format!("{name:?} is no name; use letters, digits and . _ @ + -"));
        }
        let rights = rights.parse().map_err(|error| format!("{name}: {error}"))?;
        let key =
            PublicKey::from_openssh(key).map_err(|e| format!("{name}: no public key: {e}"))?;
        Ok(Some(ListedKey { name: name.to_owned(), rights, key }))
    }

    /// Whether a node lets in keys of this kind at all. One that it does not is no reason for it
    /// to refuse a whole list, and is one not to list it.
    ///
    /// # Errors
    /// Names the kind.
    pub fn check_algorithm(&self) -> Result<(), Refusal> {
        check_algorithm("the key", &self.key.algorithm(), PERSON_ALGORITHMS)
    }
}
