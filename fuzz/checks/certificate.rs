//! Certificates, the trust bundle, and the lines that name people and their rights.
//!
//! Nothing makes a check panic. No certificate is believed that says anything else than one that an
//! authority signed, however little it differs; none that a stranger signed is believed at all; and
//! those that are in order are believed at their doors, within their dates, from where they may be
//! used. The keys are made of constants and sign without drawing anything, so one input is judged
//! the same each time.

use super::input::Input;
use paxos_ssh::paxos::ballot::{ClusterId, NodeId};
use paxos_ssh::transport::bundle::{Authority, AuthorityRole, AuthorityStage, Bundle};
use paxos_ssh::transport::identity::{self, ListedKey, Principal, Trust};
use paxos_ssh::transport::rights::Rights;
use paxos_ssh::transport::source::AddressList;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Certificate, PrivateKey, PublicKey};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CLUSTER: &str = "fuzz";
const NODE: &str = "node1";

/// The second from which the certificates are valid, and the one from which they no longer are.
const AFTER: u64 = 1_700_000_000;
const BEFORE: u64 = 1_800_000_000;

/// From where the person with a list of addresses may come.
const SOURCES: &str = "10.0.0.0/8";

/// More changes than this leave nothing of a certificate.
const EDITS_MAX: usize = 8;

/// Which certificate it is, in the order of [`World::certificates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Peer,
    Host,
    Person,
    Bound,
    Stranger,
}

const KINDS: [Kind; 5] = [Kind::Peer, Kind::Host, Kind::Person, Kind::Bound, Kind::Stranger];

/// A cluster's trust and what its authorities signed.
struct World {
    trust: Trust,
    root: PublicKey,
    bundle: Bundle,
    certificates: Vec<(Kind, Vec<u8>)>,
}

fn key(number: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32]))
}

struct Wanted<'a> {
    kind: CertType,
    principals: &'a [String],
    options: &'a [(&'a str, &'a str)],
}

fn sign(authority: &PrivateKey, wanted: &Wanted<'_>) -> Vec<u8> {
    let subject = key(9);
    let subject = subject.public_key().key_data().clone();
    let mut builder = Builder::new([7; 32], subject, AFTER, BEFORE).expect("the dates are right");
    builder.serial(3).expect("any serial will do");
    builder.key_id("fuzz/3").expect("any key id will do");
    builder.cert_type(wanted.kind).expect("the type is set once");
    for principal in wanted.principals {
        builder.valid_principal(principal).expect("any principal will do");
    }
    for (option, value) in wanted.options {
        builder.critical_option(*option, *value).expect("each option is set once");
    }
    let certificate = builder.sign(authority).expect("an ed25519 key signs");
    certificate.to_bytes().expect("a certificate that was signed can be written")
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let [root, host, peer, operator, stranger] = [1, 2, 3, 4, 5].map(key);
        let current = |role, key: &PrivateKey| Authority {
            role,
            stage: AuthorityStage::Current,
            key: key.public_key().clone(),
        };
        let bundle = Bundle {
            epoch: 1,
            cluster: CLUSTER.to_owned(),
            cluster_id: ClusterId(7),
            authorities: vec![
                current(AuthorityRole::Host, &host),
                current(AuthorityRole::Peer, &peer),
                current(AuthorityRole::Operator, &operator),
            ],
            revocations: Vec::new(),
        };
        let node = [identity::node_principal(NodeId(1), CLUSTER)];
        let name = [identity::host_principal(NODE, CLUSTER)];
        let person = ["ann", "write:/a/"];
        let person = [
            identity::person_principal(person[0], CLUSTER),
            identity::right_principal(person[1], CLUSTER),
        ];
        let user = CertType::User;
        let bound = [("force-command", "paxos status"), ("source-address", SOURCES)];
        let plain = |kind, principals| Wanted { kind, principals, options: &[] };
        let certificates = vec![
            (Kind::Peer, sign(&peer, &plain(user, &node))),
            (Kind::Host, sign(&host, &plain(CertType::Host, &name))),
            (Kind::Person, sign(&operator, &plain(user, &person))),
            (Kind::Bound, sign(&operator, &Wanted { options: &bound, ..plain(user, &person) })),
            (Kind::Stranger, sign(&stranger, &plain(user, &node))),
        ];
        let members = BTreeMap::from([(NodeId(1), NODE.to_owned())]);
        let trust = Trust::new(bundle.clone(), Vec::new()).with_members(members);
        World { trust, root: root.public_key().clone(), bundle, certificates }
    })
}

/// The cluster's bundle as its root signs it, for an input to begin with.
///
/// # Panics
/// When it cannot be signed.
pub fn signed_bundle() -> String {
    world().bundle.sign(&key(1)).expect("the bundle can be read back")
}

/// The certificates, for inputs to begin with.
pub fn certificates() -> Vec<Vec<u8>> {
    world().certificates.iter().map(|(_, bytes)| bytes.clone()).collect()
}

/// Input: what it is, and its bytes.
///
/// # Panics
/// When something does not hold.
pub fn check(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    match which {
        b'e' => edited(&mut Input::new(rest)),
        b'r' => judge_bytes(rest),
        b'l' => judge_line(rest),
        b'd' => dated(&mut Input::new(rest)),
        b'b' => check_bundle(rest),
        _ => check_lines(rest),
    }
}

/// Changes a good certificate a little.
fn edited(input: &mut Input<'_>) {
    let certificates = &world().certificates;
    let pick = |input: &mut Input<'_>| &certificates[input.below(certificates.len())].1;
    let mut bytes = pick(input).clone();
    for _ in 0..EDITS_MAX {
        if input.is_empty() || bytes.is_empty() {
            break;
        }
        let (how, at) = (input.byte(), input.below(bytes.len()));
        match how % 6 {
            0 | 1 => bytes[at] ^= input.byte(),
            2 => bytes.insert(at, input.byte()),
            3 => _ = bytes.remove(at),
            4 => bytes.truncate(at),
            _ => {
                // A part of another: its signature under this one's words, for example.
                let other = pick(input);
                let count = input.below(other.len());
                let from = at.min(other.len());
                let part = &other[from..(from + count).min(other.len())];
                let end = (at + part.len()).min(bytes.len());
                bytes.splice(at..end, part.iter().copied());
            }
        }
    }
    judge_bytes(&bytes);
}

fn judge_bytes(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::from_bytes(bytes) {
        judge(&certificate);
    }
}

fn judge_line(line: &[u8]) {
    let Ok(line) = std::str::from_utf8(line) else { return };
    if let Ok(certificate) = Certificate::from_openssh(line) {
        judge(&certificate);
    }
}

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

/// Within the dates, and from where everybody may come.
fn judge(certificate: &Certificate) {
    let source = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
    judge_at(certificate, source, at(AFTER + 1), |_, believed| believed);
}

/// Judges at both doors. A certificate that says what one of ours says is believed where that one
/// is and `may` agrees; any other is not.
fn judge_at(
    certificate: &Certificate,
    source: IpAddr,
    now: SystemTime,
    may: impl Fn(Kind, bool) -> bool,
) {
    let World { trust, certificates, .. } = world();
    let said = certificate.to_bytes().expect("what was read can be written");
    let same = certificates.iter().find(|(_, bytes)| *bytes == said).map(|(kind, _)| *kind);
    let wanted = |doors: &[Kind]| same.is_some_and(|kind| may(kind, doors.contains(&kind)));
    let dialler = trust.accept_certificate(certificate, source, now);
    let diallers = wanted(&[Kind::Peer, Kind::Person, Kind::Bound]);
    assert_eq!(dialler.is_ok(), diallers, "{same:?} dials: {dialler:?}");
    if let Ok(principal) = dialler {
        check_principal(same, principal);
    }
    let name = identity::host_principal(NODE, CLUSTER);
    let host = trust.accept_host(certificate, &name, now);
    assert_eq!(host.is_ok(), wanted(&[Kind::Host]), "{same:?} is dialled: {host:?}");
    let other = identity::host_principal("node2", CLUSTER);
    assert!(trust.accept_host(certificate, &other, now).is_err(), "{same:?} is another host");
}

fn check_principal(kind: Option<Kind>, principal: Principal) {
    match (kind, principal) {
        (Some(Kind::Peer), Principal::Node { id }) => assert_eq!(id, NodeId(1)),
        (Some(kind), Principal::Person { name, rights, force_command, .. }) => {
            assert_eq!((&*name, &*rights.to_string()), ("ann", "write:/a/"));
            assert_eq!(force_command.is_some(), kind == Kind::Bound);
        }
        (kind, principal) => panic!("{kind:?} was taken for {principal:?}"),
    }
}

/// A good certificate at any time, from anywhere.
fn dated(input: &mut Input<'_>) {
    let (kind, bytes) = &world().certificates[input.below(KINDS.len())];
    let certificate = Certificate::from_bytes(bytes).expect("it was made here");
    let near = u64::from(input.byte());
    let second = match input.byte() % 5 {
        0 => AFTER.saturating_sub(near),
        1 => AFTER + near,
        2 => BEFORE - near,
        3 => BEFORE + near,
        // As late as a clock can be told without leaving its range.
        _ => near << 55,
    };
    let source = Ipv4Addr::from([input.byte(), input.byte(), input.byte(), input.byte()]);
    judge_at(&certificate, IpAddr::V4(source), at(second), |found, believed| {
        assert_eq!(found, *kind);
        let is_member = matches!(kind, Kind::Peer | Kind::Host);
        // A member that runs out is warned about and let in.
        let in_time = AFTER <= second && (second < BEFORE || is_member);
        let from_there = *kind != Kind::Bound || source.octets()[0] == 10;
        believed && in_time && from_there
    });
}

fn check_bundle(signed: &[u8]) {
    let Ok(signed) = std::str::from_utf8(signed) else { return };
    let World { root, bundle, .. } = world();
    if let Ok(found) = Bundle::verify(signed, root) {
        let mut wanted = bundle.clone();
        // Comments of keys are no part of it.
        for authority in &mut wanted.authorities {
            authority.key.set_comment("");
        }
        assert_eq!(found, wanted, "a bundle that nobody signed is believed");
    }
}

fn check_lines(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(Some(listed)) = ListedKey::parse(text) {
        assert!(identity::is_person_name(&listed.name));
    }
    if let Ok(rights) = text.parse::<Rights>() {
        let words = rights.words();
        let again = Rights::from_words(words.iter().map(String::as_str));
        assert_eq!(again.as_ref(), Ok(&rights), "spelt again, they differ");
        assert_eq!(rights.to_string().parse(), Ok(rights), "written in a line, they differ");
    }
    if let Ok(list) = text.parse::<AddressList>() {
        let everywhere = text.split(',').any(|block| block == "0.0.0.0/0");
        assert!(!everywhere || list.contains(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
