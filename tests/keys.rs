//! Certificates, keys and the trust bundle: what is believed, and one test for each thing that is
//! not.
//!
//! Certificates that our own signer cannot make are made here with the library's builder, as a
//! stranger would.

use paxos_ssh::paxos::ballot::{ClusterId, NodeId};
use paxos_ssh::transport::authority::{self, PersonGrant, Validity};
use paxos_ssh::transport::bundle::{
    Authority, AuthorityRole, AuthorityStage, Bundle, BundleError, Revocation, fingerprint,
};
use paxos_ssh::transport::confined::Confined;
use paxos_ssh::transport::identity::{
    self, ListedKey, NodeKeys, PeerExpiry, Principal, Refusal, Trust, TrustError,
};
use paxos_ssh::transport::node_key;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{EcdsaCurve, LineEnding};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: Duration = Duration::from_secs(3600);

/// A cluster's keys, all in memory.
struct Cluster {
    root: PrivateKey,
    host: PrivateKey,
    peer: PrivateKey,
    operator: PrivateKey,
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn hour() -> Validity {
    Validity { after: now() - HOUR, before: now() + HOUR }
}

fn here() -> IpAddr {
    "127.0.0.1".parse().unwrap()
}

fn key() -> PrivateKey {
    authority::new_key("").unwrap()
}

fn ecdsa_key() -> PrivateKey {
    let curve = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
    PrivateKey::random(&mut rand::rng(), curve).unwrap()
}

impl Cluster {
    fn new() -> Cluster {
        Cluster { root: key(), host: key(), peer: key(), operator: key() }
    }

    fn bundle(&self) -> Bundle {
        let current = |role, key: &PrivateKey| Authority {
            role,
            stage: AuthorityStage::Current,
            key: key.public_key().clone(),
        };
        Bundle {
            epoch: 1,
            cluster: "local".to_owned(),
            cluster_id: ClusterId(7),
            authorities: vec![
                current(AuthorityRole::Host, &self.host),
                current(AuthorityRole::Peer, &self.peer),
                current(AuthorityRole::Operator, &self.operator),
            ],
            revocations: Vec::new(),
        }
    }

    fn trust(&self) -> Trust {
        Trust::new(self.bundle(), Vec::new())
    }

    fn trust_with(&self, revocation: Revocation) -> Trust {
        let mut bundle = self.bundle();
        bundle.revocations.push(revocation);
        Trust::new(bundle, Vec::new())
    }

    fn node(&self, subject: &PrivateKey, id: u64) -> Certificate {
        let subject = subject.public_key();
        authority::peer_certificate(&self.peer, subject, NodeId(id), "local", 3, hour()).unwrap()
    }

    fn host(&self, subject: &PrivateKey) -> Certificate {
        let subject = subject.public_key();
        authority::host_certificate(&self.host, subject, "node1", "local", 4, hour()).unwrap()
    }

    fn alice(&self, subject: &PrivateKey, rights: &str) -> Certificate {
        self.person(subject, &grant("alice", rights))
    }

    fn person(&self, subject: &PrivateKey, grant: &PersonGrant) -> Certificate {
        let subject = subject.public_key();
        authority::person_certificate(&self.operator, subject, grant, "local", 5, hour()).unwrap()
    }
}

fn grant(name: &str, rights: &str) -> PersonGrant {
    PersonGrant {
        name: name.to_owned(),
        rights: rights.parse().unwrap(),
        source_addresses: None,
        force_command: None,
    }
}

/// Any certificate at all.
fn forge(
    authority: &PrivateKey,
    subject: &PublicKey,
    kind: CertType,
    principals: &[&str],
    options: &[(&str, &str)],
) -> Certificate {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (after, before) = (seconds(hour().after), seconds(hour().before));
    let subject = subject.key_data().clone();
    let mut builder =
        Builder::new_with_random_nonce(&mut rand::rng(), subject, after, before).unwrap();
    builder.serial(9).unwrap().key_id("forged").unwrap().cert_type(kind).unwrap();
    if principals.is_empty() {
        builder.all_principals_valid().unwrap();
    }
    for principal in principals {
        builder.valid_principal(*principal).unwrap();
    }
    for (option, value) in options {
        builder.critical_option(*option, *value).unwrap();
    }
    builder.sign(authority).unwrap()
}

fn refusal(trust: &Trust, certificate: &Certificate) -> Refusal {
    trust.accept_certificate(certificate, here(), now()).unwrap_err()
}

#[test]
fn a_node_is_who_its_certificate_says() {
    let cluster = Cluster::new();
    let certificate = cluster.node(&key(), 2);
    let accepted = cluster.trust().accept_certificate(&certificate, here(), now());
    assert_eq!(accepted, Ok(Principal::Node { id: NodeId(2) }));
    assert_eq!(certificate.key_id(), "node:local:2/3");
}

#[test]
fn a_person_has_the_rights_in_the_certificate() {
    let cluster = Cluster::new();
    let certificate = cluster.alice(&ecdsa_key(), "write:/app1/,read");
    assert_eq!(certificate.key_id(), "alice@local/5");
    let accepted = cluster.trust().accept_certificate(&certificate, here(), now()).unwrap();
    let Principal::Person { name, serial, rights, force_command } = accepted else {
        panic!("not a person: {accepted:?}")
    };
    assert_eq!((name.as_str(), serial, force_command), ("alice", Some(5), None));
    assert!(rights.may_write(b"/app1/x") && !rights.may_write(b"/app10") && !rights.admin());
}

#[test]
fn an_unknown_authority_is_refused() {
    let cluster = Cluster::new();
    let certificate = Cluster::new().node(&key(), 2);
    assert!(matches!(refusal(&cluster.trust(), &certificate), Refusal::UnknownAuthority { .. }));
    let certificate = Cluster::new().alice(&key(), "admin");
    assert!(matches!(refusal(&cluster.trust(), &certificate), Refusal::UnknownAuthority { .. }));
    let certificate = Cluster::new().host(&key());
    let judged = cluster.trust().accept_host(&certificate, "node1.local.paxos", now());
    assert!(matches!(judged, Err(Refusal::UnknownAuthority { .. })));
}

#[test]
fn each_authority_vouches_for_its_own_kind_only() {
    let cluster = Cluster::new();
    let trust = cluster.trust();
    let key = key();
    let subject = key.public_key();
    // The operator authority makes no nodes, whatever it signs.
    let node = forge(&cluster.operator, subject, CertType::User, &["node:local:1"], &[]);
    assert!(matches!(refusal(&trust, &node), Refusal::WrongPrincipal { .. }));
    let both = ["person:local:eve", "right:local:admin", "node:local:1"];
    let both = forge(&cluster.operator, subject, CertType::User, &both, &[]);
    assert!(matches!(refusal(&trust, &both), Refusal::WrongPrincipal { .. }));
    // The peer authority makes no people.
    let person = ["person:local:eve", "right:local:admin"];
    let person = forge(&cluster.peer, subject, CertType::User, &person, &[]);
    assert!(matches!(refusal(&trust, &person), Refusal::WrongPrincipal { .. }));
    // The host authority lets nobody in.
    let node = forge(&cluster.host, subject, CertType::User, &["node:local:1"], &[]);
    assert!(matches!(refusal(&trust, &node), Refusal::UnknownAuthority { .. }));
    // Nor do the others vouch for hosts.
    for authority in [&cluster.peer, &cluster.operator, &cluster.root] {
        let host = forge(authority, subject, CertType::Host, &["node1.local.paxos"], &[]);
        let judged = trust.accept_host(&host, "node1.local.paxos", now());
        assert!(matches!(judged, Err(Refusal::UnknownAuthority { .. })), "{judged:?}");
    }
    // And root signs bundles only.
    let node = forge(&cluster.root, subject, CertType::User, &["node:local:1"], &[]);
    assert!(matches!(refusal(&trust, &node), Refusal::UnknownAuthority { .. }));
}

#[test]
fn our_signer_makes_no_node_out_of_a_person() {
    let cluster = Cluster::new();
    let key = key();
    for name in ["node:local:1", "", "a b", "-x", "a,b", "a/b", "é"] {
        let made = authority::person_certificate(
            &cluster.operator,
            key.public_key(),
            &grant(name, "admin"),
            "local",
            1,
            hour(),
        );
        assert!(made.is_err(), "{name:?}");
    }
}

#[test]
fn the_wrong_type_is_refused() {
    let cluster = Cluster::new();
    let key = key();
    let host = forge(&cluster.peer, key.public_key(), CertType::Host, &["node:local:1"], &[]);
    assert!(matches!(refusal(&cluster.trust(), &host), Refusal::WrongType { .. }));
    let person = ["person:local:eve", "right:local:admin"];
    let person = forge(&cluster.operator, key.public_key(), CertType::Host, &person, &[]);
    assert!(matches!(refusal(&cluster.trust(), &person), Refusal::WrongType { .. }));
    let user = forge(&cluster.host, key.public_key(), CertType::User, &["node1.local.paxos"], &[]);
    let judged = cluster.trust().accept_host(&user, "node1.local.paxos", now());
    assert!(matches!(judged, Err(Refusal::WrongType { .. })));
}

#[test]
fn the_name_must_be_ours_and_exact() {
    let cluster = Cluster::new();
    let key = key();
    let bad: [&[&str]; 8] = [
        &[],
        &["node:other:1"],
        &["node:local:"],
        &["node:local:01"],
        &["node:local:+1"],
        &["node:local:1x"],
        &["node:local:1", "node:local:2"],
        &["*"],
    ];
    for principals in bad {
        let node = forge(&cluster.peer, key.public_key(), CertType::User, principals, &[]);
        let judged = refusal(&cluster.trust(), &node);
        assert!(matches!(judged, Refusal::WrongPrincipal { .. }), "{principals:?}: {judged:?}");
    }
    let bad: [&[&str]; 5] = [
        &[],
        &["alice"],
        &["person:other:alice", "right:local:admin"],
        &["person:local:alice", "person:local:bob", "right:local:admin"],
        &["person:local:al:ice", "right:local:admin"],
    ];
    for principals in bad {
        let person = forge(&cluster.operator, key.public_key(), CertType::User, principals, &[]);
        let judged = refusal(&cluster.trust(), &person);
        assert!(matches!(judged, Refusal::WrongPrincipal { .. }), "{principals:?}: {judged:?}");
    }
    for principals in [&["person:local:alice"][..], &["person:local:alice", "right:local:root"]] {
        let person = forge(&cluster.operator, key.public_key(), CertType::User, principals, &[]);
        let judged = refusal(&cluster.trust(), &person);
        assert!(matches!(judged, Refusal::WrongRights { .. }), "{principals:?}: {judged:?}");
    }
}

#[test]
fn a_host_proves_exactly_the_name_that_was_dialled() {
    let cluster = Cluster::new();
    let key = key();
    let trust = cluster.trust();
    let host = cluster.host(&key);
    assert_eq!(trust.accept_host(&host, "node1.local.paxos", now()), Ok(()));
    for other in ["node2.local.paxos", "node1.other.paxos", "node1", ""] {
        let judged = trust.accept_host(&host, other, now());
        assert!(matches!(judged, Err(Refusal::WrongPrincipal { .. })), "{other:?}");
    }
    for principals in [&[][..], &["*.local.paxos"], &["*"]] {
        let host = forge(&cluster.host, key.public_key(), CertType::Host, principals, &[]);
        let judged = trust.accept_host(&host, "node1.local.paxos", now());
        assert!(matches!(judged, Err(Refusal::WrongPrincipal { .. })), "{principals:?}");
    }
}

#[test]
fn dates_are_judged_to_the_second() {
    let cluster = Cluster::new();
    let trust = cluster.trust();
    let certificates = [cluster.node(&key(), 1), cluster.alice(&key(), "admin")];
    let second = Duration::from_secs(1);
    for certificate in &certificates {
        let at = |time| trust.accept_certificate(certificate, here(), time);
        let Validity { after, before } = hour();
        assert!(matches!(at(after - second), Err(Refusal::NotYetValid { .. })));
        assert!(at(after).is_ok());
        assert!(at(before - second).is_ok());
        assert!(matches!(at(before), Err(Refusal::Expired { since, .. }) if since.is_zero()));
        assert!(matches!(at(UNIX_EPOCH), Err(Refusal::NotYetValid { .. })));
    }
    let host = cluster.host(&key());
    let at = |time| trust.accept_host(&host, "node1.local.paxos", time);
    assert!(at(hour().before - second).is_ok());
    assert!(matches!(at(hour().before), Err(Refusal::Expired { .. })));
    assert!(matches!(at(hour().after - second), Err(Refusal::NotYetValid { .. })));
}

#[test]
fn an_expired_member_is_borne_and_reported_unless_told_otherwise() {
    let cluster = Cluster::new();
    let certificate = cluster.node(&key(), 2);
    let host = cluster.host(&key());
    let late = hour().before + HOUR;
    let members =
        BTreeMap::from([(NodeId(1), "node1".to_owned()), (NodeId(2), "node2".to_owned())]);
    let trust = cluster.trust().with_members(members.clone());
    assert!(trust.accept_certificate(&certificate, here(), late).is_ok());
    let knowing = trust.clone().with_member_certificates(vec![certificate.clone()]);
    assert_eq!(knowing.overdue(NodeId(2), late), Some(HOUR));
    assert_eq!(knowing.overdue(NodeId(2), now()), None);
    assert_eq!(knowing.overdue(NodeId(1), late), None);
    assert!(trust.accept_host(&host, "node1.local.paxos", late).is_ok());

    let strict = trust.clone().with_peer_expiry(PeerExpiry::Enforce);
    let judged = strict.accept_certificate(&certificate, here(), late);
    assert!(matches!(judged, Err(Refusal::Expired { .. })));
    let judged = strict.accept_host(&host, "node1.local.paxos", late);
    assert!(matches!(judged, Err(Refusal::Expired { .. })));

    // Not for a node that is no member any more, nor for people, nor for what is not valid yet.
    let former = cluster.node(&key(), 3);
    let judged = trust.accept_certificate(&former, here(), late);
    assert!(matches!(judged, Err(Refusal::Expired { .. })));
    let judged = trust.accept_certificate(&cluster.alice(&key(), "admin"), here(), late);
    assert!(matches!(judged, Err(Refusal::Expired { .. })));
    let judged = trust.accept_certificate(&certificate, here(), hour().after - HOUR);
    assert!(matches!(judged, Err(Refusal::NotYetValid { .. })));

    let revoked = cluster.trust_with(Revocation::KeyId(certificate.key_id().to_owned()));
    let judged = revoked.with_members(members).accept_certificate(&certificate, here(), late);
    assert!(matches!(judged, Err(Refusal::Revoked(_))));
}

#[test]
fn unknown_critical_options_are_refused() {
    let cluster = Cluster::new();
    let key = key();
    let subject = key.public_key();
    let person = ["person:local:alice", "right:local:admin"];
    let odd = [("verify-required", "")];
    let alice = forge(&cluster.operator, subject, CertType::User, &person, &odd);
    assert!(matches!(refusal(&cluster.trust(), &alice), Refusal::CriticalOption { .. }));
    // A node runs no commands, so a certificate that would restrict them cannot be honoured.
    let force = [("force-command", "paxos status")];
    for options in [&odd, &force] {
        let node = forge(&cluster.peer, subject, CertType::User, &["node:local:1"], options);
        assert!(matches!(refusal(&cluster.trust(), &node), Refusal::CriticalOption { .. }));
    }
    // Of a host, every one.
    let source = [("source-address", "127.0.0.1")];
    for options in [&odd, &force, &source] {
        let name = ["node1.local.paxos"];
        let host = forge(&cluster.host, subject, CertType::Host, &name, options);
        let judged = cluster.trust().accept_host(&host, "node1.local.paxos", now());
        assert!(matches!(judged, Err(Refusal::CriticalOption { .. })));
    }
}

#[test]
fn source_address_and_force_command_are_honoured() {
    let cluster = Cluster::new();
    let grant = PersonGrant {
        source_addresses: Some("10.0.0.0/8,192.168.1.7".to_owned()),
        force_command: Some("paxos status".to_owned()),
        ..grant("alice", "read")
    };
    let alice = cluster.person(&key(), &grant);
    let from =
        |source: &str| cluster.trust().accept_certificate(&alice, source.parse().unwrap(), now());
    let accepted = from("10.3.4.5").unwrap();
    assert!(matches!(accepted,
        Principal::Person { force_command: Some(command), .. } if command == "paxos status"));
    assert!(from("::ffff:192.168.1.7").is_ok());
    assert!(matches!(from("192.168.1.8"), Err(Refusal::WrongSource { .. })));
    assert!(matches!(from("2001:db8::1"), Err(Refusal::WrongSource { .. })));
    // A list that is not understood allows nothing, not everything.
    let key = key();
    let odd = [("source-address", "*")];
    let node = forge(&cluster.peer, key.public_key(), CertType::User, &["node:local:1"], &odd);
    assert!(matches!(refusal(&cluster.trust(), &node), Refusal::WrongSource { .. }));
}

#[test]
fn what_is_revoked_is_refused_by_each_of_its_names() {
    let cluster = Cluster::new();
    let alices = key();
    let alice = cluster.alice(&alices, "admin");
    let print = fingerprint(alices.public_key());
    for revocation in [
        Revocation::Serial(AuthorityRole::Operator, 5),
        Revocation::KeyId("alice@local/5".to_owned()),
        Revocation::Fingerprint(print.clone()),
        Revocation::Fingerprint(fingerprint(cluster.operator.public_key())),
    ] {
        let trust = cluster.trust_with(revocation.clone());
        assert!(matches!(refusal(&trust, &alice), Refusal::Revoked(_)), "{revocation:?}");
    }
    for harmless in [
        Revocation::Serial(AuthorityRole::Peer, 5),
        Revocation::Serial(AuthorityRole::Operator, 6),
        Revocation::KeyId("alice@local/6".to_owned()),
    ] {
        let trust = cluster.trust_with(harmless);
        assert!(trust.accept_certificate(&alice, here(), now()).is_ok());
    }
    let host = cluster.host(&key());
    let trust = cluster.trust_with(Revocation::Serial(AuthorityRole::Host, 4));
    let judged = trust.accept_host(&host, "node1.local.paxos", now());
    assert!(matches!(judged, Err(Refusal::Revoked(_))));
    let listed = ListedKey {
        name: "alice".to_owned(),
        rights: "admin".parse().unwrap(),
        key: alices.public_key().clone(),
    };
    let mut bundle = cluster.bundle();
    bundle.revocations.push(Revocation::Fingerprint(print));
    let trust = Trust::new(bundle, vec![listed]);
    let judged = trust.accept_key(alices.public_key(), here(), now());
    assert!(matches!(judged, Err(Refusal::Revoked(_))));
}

#[test]
fn a_certificate_that_was_altered_is_refused() {
    let cluster = Cluster::new();
    let bytes = cluster.alice(&key(), "read").to_bytes().unwrap();
    let at = |needle: &[u8]| bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    let mut altered = bytes.clone();
    altered[at(b"person:local:alice") + 13] = b'b';
    let altered = Certificate::from_bytes(&altered).unwrap();
    assert_eq!(altered.valid_principals()[0], "person:local:blice");
    assert!(matches!(refusal(&cluster.trust(), &altered), Refusal::BadSignature(_)));
    let host = cluster.host(&key()).to_bytes().unwrap();
    let position = host.windows(5).rposition(|w| w == b"node1").unwrap();
    let mut altered = host;
    altered[position + 4] = b'2';
    let altered = Certificate::from_bytes(&altered).unwrap();
    let judged = cluster.trust().accept_host(&altered, "node2.local.paxos", now());
    assert!(matches!(judged, Err(Refusal::BadSignature(_))), "{judged:?}");
}

#[test]
fn nodes_have_ed25519_keys_and_nothing_else() {
    let cluster = Cluster::new();
    let key = ecdsa_key();
    let node = cluster.node(&key, 1);
    assert!(matches!(refusal(&cluster.trust(), &node), Refusal::Algorithm { .. }));
    let judged = cluster.trust().accept_host(&cluster.host(&key), "node1.local.paxos", now());
    assert!(matches!(judged, Err(Refusal::Algorithm { .. })));
}

/// An RSA key and its certificates, made with OpenSSH: the library here is built without RSA.
#[test]
fn rsa_is_refused_as_authority_and_as_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    keygen(&["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"], &[&path("rsa")]);
    let rsa = std::fs::read_to_string(path("rsa.pub")).unwrap();
    let rsa = PublicKey::from_openssh(rsa.trim()).unwrap();
    let cluster = Cluster::new();
    let listed =
        ListedKey { name: "bob".to_owned(), rights: "read".parse().unwrap(), key: rsa.clone() };
    let trust = Trust::new(cluster.bundle(), vec![listed]);
    let judged = trust.accept_key(&rsa, here(), now());
    assert!(matches!(judged, Err(Refusal::Algorithm { .. })), "{judged:?}");

    let mut bundle = cluster.bundle();
    bundle.authorities[2].key = rsa;
    std::fs::write(path("alice.pub"), authority::public_line(key().public_key())).unwrap();
    let principals = "person:local:alice,right:local:admin";
    keygen(&["-q", "-I", "alice", "-n", principals, "-s"], &[&path("rsa"), &path("alice.pub")]);
    let alice = std::fs::read_to_string(path("alice-cert.pub")).unwrap();
    let alice = Certificate::from_openssh(alice.trim()).unwrap();
    let trust = Trust::new(bundle, Vec::new());
    let judged = trust.accept_certificate(&alice, here(), SystemTime::now());
    let refused = matches!(judged, Err(Refusal::Algorithm { .. } | Refusal::BadSignature(_)));
    assert!(refused, "{judged:?}");
}

#[test]
fn plain_keys_are_those_that_were_listed() {
    let cluster = Cluster::new();
    let (listed, other) = (key(), key());
    let bob = ListedKey {
        name: "bob".to_owned(),
        rights: "read".parse().unwrap(),
        key: listed.public_key().clone(),
    };
    let trust = Trust::new(cluster.bundle(), vec![bob]);
    let accepted = trust.accept_key(listed.public_key(), here(), now()).unwrap();
    assert!(matches!(&accepted, Principal::Person { name, serial: None, rights, .. }
        if name == "bob" && rights.may_read(b"x") && !rights.may_write(b"x")));
    let judged = trust.accept_key(other.public_key(), here(), now());
    assert!(matches!(judged, Err(Refusal::UnknownKey(_))));
    // The authorities themselves open nothing.
    for authority in [&cluster.operator, &cluster.peer, &cluster.root] {
        assert!(trust.accept_key(authority.public_key(), here(), now()).is_err());
    }
}

#[test]
fn a_bundle_is_believed_only_as_root_signed_it() {
    let cluster = Cluster::new();
    let mut bundle = cluster.bundle();
    bundle.authorities.push(Authority {
        role: AuthorityRole::Peer,
        stage: AuthorityStage::Next,
        key: key().public_key().clone(),
    });
    bundle.revocations = vec![
        Revocation::Serial(AuthorityRole::Operator, 17),
        Revocation::KeyId("mallory@local/3".to_owned()),
        Revocation::Fingerprint(fingerprint(key().public_key())),
    ];
    let signed = bundle.sign(&cluster.root).unwrap();
    let root = cluster.root.public_key();
    assert_eq!(Bundle::verify(&signed, root).unwrap(), bundle);

    let forged = |text: &str| matches!(Bundle::verify(text, root), Err(BundleError::Forged { .. }));
    assert!(forged(&signed.replace("epoch 1", "epoch 2")));
    assert!(forged(&signed.replace("mallory@local/3", "mallory@local/4")));
    assert!(forged(&bundle.sign(&cluster.operator).unwrap()));
    let text = &signed[..signed.find("-----BEGIN").unwrap()];
    assert!(matches!(Bundle::verify(text, root), Err(BundleError::Unsigned)));
    // Signed by root, but for something else.
    let elsewhere = cluster.root.sign("file", Default::default(), text.as_bytes()).unwrap();
    assert!(forged(&format!("{text}{}", elsewhere.to_pem(LineEnding::LF).unwrap())));
    // Signed by root, but not a bundle that this version understands.
    for (from, to) in [
        ("paxos-trust-bundle 1", "paxos-trust-bundle 2"),
        ("epoch 1", "epoch 0"),
        ("authority host", "authority gossip"),
        ("revoked key-id", "revoked colour"),
        ("cluster local\n", ""),
    ] {
        let text = text.replace(from, to);
        let namespace = paxos_ssh::transport::bundle::NAMESPACE;
        let signature = cluster.root.sign(namespace, Default::default(), text.as_bytes()).unwrap();
        let signed = format!("{text}{}", signature.to_pem(LineEnding::LF).unwrap());
        let judged = Bundle::verify(&signed, root);
        assert!(matches!(judged, Err(BundleError::Malformed { .. })), "{to:?}: {judged:?}");
    }
    let mut odd = bundle.clone();
    odd.revocations = vec![Revocation::KeyId("a\nrevoked key SHA256:x".to_owned())];
    assert!(odd.sign(&cluster.root).is_err(), "it would say something else when read");
}

#[test]
fn every_stage_of_an_authority_is_believed() {
    let cluster = Cluster::new();
    let certificate = cluster.node(&key(), 1);
    for stage in [AuthorityStage::Current, AuthorityStage::Next, AuthorityStage::Retiring] {
        let mut bundle = cluster.bundle();
        bundle.authorities[1].stage = stage;
        let trust = Trust::new(bundle, Vec::new());
        assert!(trust.accept_certificate(&certificate, here(), now()).is_ok(), "{stage:?}");
    }
}

/// Fills a node's keys directory as the controller does.
fn keys_directory(cluster: &Cluster, directory: &Path) -> PublicKey {
    let subject = node_key::ensure(&Confined::open(directory).unwrap(), "node1").unwrap();
    let host = authority::host_certificate(&cluster.host, &subject, "node1", "local", 1, hour());
    let peer = authority::peer_certificate(&cluster.peer, &subject, NodeId(1), "local", 2, hour());
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write(identity::HOST_CERTIFICATE, &authority::certificate_line(&host.unwrap()));
    let peer = authority::certificate_line(&peer.unwrap());
    write(identity::PEER_CERTIFICATE, &peer);
    write(identity::MEMBERS, &peer);
    write(identity::ROOT, &authority::public_line(cluster.root.public_key()));
    write(identity::BUNDLE, &cluster.bundle().sign(&cluster.root).unwrap());
    subject
}

#[test]
fn a_keys_directory_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new();
    let subject = keys_directory(&cluster, directory.path());
    assert_eq!(
        node_key::ensure(&Confined::open(directory.path()).unwrap(), "").unwrap(),
        subject,
        "made once"
    );
    let keys = NodeKeys::load(directory.path()).unwrap();
    assert_eq!(keys.host_key.public_key().key_data(), subject.key_data());
    let bobs = key();
    let people =
        format!("# people\n\nbob read,write:/x/ {}", authority::public_line(bobs.public_key()));
    std::fs::write(directory.path().join(identity::PEOPLE), people).unwrap();
    let trust = Trust::load(directory.path()).unwrap();
    assert_eq!((trust.epoch(), trust.cluster()), (1, "local"));
    assert!(trust.accept_certificate(&keys.peer_certificate, here(), now()).is_ok());
    assert!(trust.accept_key(bobs.public_key(), here(), now()).is_ok());
    std::fs::write(directory.path().join(identity::PEOPLE), "bob root ssh-ed25519 AAAA").unwrap();
    assert!(matches!(Trust::load(directory.path()), Err(TrustError::Malformed { .. })));
}

/// russh turns an expired certificate away by itself, so a member whose certificate has run out
/// comes with its plain key.
#[test]
fn an_expired_member_may_come_with_its_plain_key() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new();
    let subject = keys_directory(&cluster, directory.path());
    let trust = Trust::load(directory.path()).unwrap();
    let late = hour().before + HOUR;
    assert!(matches!(trust.accept_key(&subject, here(), late), Err(Refusal::Expired { .. })));
    let trust = trust.with_members(BTreeMap::from([(NodeId(1), "node1".to_owned())]));
    let accepted = trust.accept_key(&subject, here(), late);
    assert_eq!(accepted, Ok(Principal::Node { id: NodeId(1) }));
    let strict = trust.with_peer_expiry(PeerExpiry::Enforce);
    assert!(matches!(strict.accept_key(&subject, here(), late), Err(Refusal::Expired { .. })));
}

#[test]
fn keys_that_others_can_read_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    keys_directory(&Cluster::new(), directory.path());
    let path = directory.path().join(identity::NODE_KEY);
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for exposed in [0o640, 0o604, 0o644, 0o660] {
        mode(exposed);
        let loaded = NodeKeys::load(directory.path());
        assert!(matches!(loaded, Err(TrustError::Exposed { .. })), "{exposed:o}");
    }
    mode(0o400);
    NodeKeys::load(directory.path()).unwrap();
}

#[test]
fn certificates_for_another_key_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new();
    keys_directory(&cluster, directory.path());
    std::fs::remove_file(directory.path().join(identity::NODE_KEY)).unwrap();
    node_key::ensure(&Confined::open(directory.path()).unwrap(), "another").unwrap();
    let loaded = NodeKeys::load(directory.path());
    assert!(matches!(loaded, Err(TrustError::Malformed { .. })));
}

fn keygen(words: &[&str], paths: &[&Path]) -> String {
    let output = Command::new("ssh-keygen").args(words).args(paths).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn openssh_reads_what_we_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let cluster = Cluster::new();
    let alices = key();
    authority::write_private_key(&path("alice"), &alices).unwrap();
    let listed = keygen(&["-y", "-f"], &[&path("alice")]);
    let ours = authority::public_line(alices.public_key());
    let blob = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    assert_eq!(blob(&listed), blob(&ours));
    let certificate = cluster.alice(&alices, "admin,write:/app1/");
    std::fs::write(path("alice-cert.pub"), authority::certificate_line(&certificate)).unwrap();
    let listed = keygen(&["-L", "-f"], &[&path("alice-cert.pub")]);
    for part in
        ["user certificate", "\"alice@local/5\"", "person:local:alice", "right:local:write:/app1/"]
    {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }

    // The bundle's signature holds for ssh-keygen too.
    let signed = cluster.bundle().sign(&cluster.root).unwrap();
    let (text, signature) = signed.split_at(signed.find("-----BEGIN").unwrap());
    std::fs::write(path("text"), text).unwrap();
    std::fs::write(path("text.sig"), signature).unwrap();
    let root = authority::public_line(cluster.root.public_key());
    std::fs::write(path("signers"), format!("root {root}")).unwrap();
    let words = ["-Y", "verify", "-I", "root", "-n", paxos_ssh::transport::bundle::NAMESPACE, "-f"];
    let output = Command::new("ssh-keygen")
        .args(words)
        .arg(path("signers"))
        .arg("-s")
        .arg(path("text.sig"))
        .stdin(std::fs::File::open(path("text")).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
