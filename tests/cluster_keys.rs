//! The directory of a cluster's keys: made once, taken up after any interruption, not mixed up, and
//! usable by the stock OpenSSH client.

use paxos_ssh::controller::keys::issuer::Issuer;
use paxos_ssh::controller::keys::signers::nobody;
use paxos_ssh::controller::keys::{ClusterKeys, KeysError, OPERATOR, PlainKey, SshTarget};
use paxos_ssh::controller::wait::until;
use paxos_ssh::paxos::ballot::NodeId;
use paxos_ssh::transport::authority::{self, IssueError, PersonGrant};
use paxos_ssh::transport::confined::Confined;
use paxos_ssh::transport::identity::{self, NodeKeys, Principal, Trust, TrustError};
use paxos_ssh::transport::node_key;
use paxos_ssh::wire::failure::Code;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::now()
}

fn issuer(directory: &Path) -> Issuer {
    Issuer::open_or_init(directory, "local", nobody).unwrap()
}

fn node_key() -> String {
    authority::public_line(authority::new_key("").unwrap().public_key())
}

fn grant(name: &str) -> PersonGrant {
    PersonGrant {
        name: name.to_owned(),
        rights: "read".parse().unwrap(),
        source_addresses: None,
        force_command: None,
    }
}

fn target(name: &str, port: u16) -> SshTarget {
    SshTarget { name: name.to_owned(), host: "127.0.0.1".to_owned(), port, proxy_command: None }
}

/// Every file below, with its text.
fn snapshot(directory: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    files
}

#[test]
fn keys_are_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("keys/local");
    assert!(ClusterKeys::open(&directory, "local").unwrap().is_none());
    assert!(!directory.exists(), "reading makes nothing");
    let line = node_key();
    let first = issuer(&directory);
    assert!(first.ensure_operator(now()).unwrap());
    assert!(first.ensure_node("node1", NodeId(1), &line, now()).unwrap());
    let cluster_id = first.keys().cluster_id();
    first.write_ssh_config(&[target("node1", 7101)]).unwrap();
    drop(first);
    let before = snapshot(&directory);

    let again = issuer(&directory);
    assert!(!again.ensure_operator(now()).unwrap());
    assert!(!again.ensure_node("node1", NodeId(1), &line, now()).unwrap());
    again.write_ssh_config(&[target("node1", 7101)]).unwrap();
    assert_eq!(again.keys().cluster_id(), cluster_id);
    assert_eq!(snapshot(&directory), before);
}

#[test]
fn private_files_are_the_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("local");
    issuer(&directory).ensure_operator(now()).unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    let mut private = 0;
    for (path, text) in snapshot(&directory) {
        if String::from_utf8_lossy(&text).contains("PRIVATE KEY") {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{path}");
            private += 1;
        }
    }
    assert_eq!(private, 5, "root, three authorities, the operator");
}

#[test]
fn an_exposed_key_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let maker = issuer(directory.path());
    maker.ensure_operator(now()).unwrap();
    let expose = |name: &str| {
        let path = directory.path().join(name);
        fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    };
    expose("peer-authority");
    let error = maker.ensure_node("node1", NodeId(1), &node_key(), now()).unwrap_err();
    assert!(matches!(&error, KeysError::Load(TrustError::Exposed { .. })), "{error}");
    assert!(error.to_string().contains("chmod 600"), "{error}");
    assert_eq!(error.code(), Code::BadSettings);
    expose("people/operator");
    assert!(matches!(maker.keys().person(OPERATOR), Err(KeysError::Load(_))));
    assert!(matches!(maker.ensure_operator(now()), Err(KeysError::Load(_))));
}

#[test]
fn an_interrupted_beginning_is_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    let root = {
        issuer(directory.path());
        fs::read(directory.path().join("root")).unwrap()
    };
    // As if the controller had died before the bundle: nothing refers to the keys yet.
    for name in ["bundle", "known_hosts", "peer-authority", "peer-authority.pub"] {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    let maker = issuer(directory.path());
    assert_eq!(fs::read(directory.path().join("root")).unwrap(), root);
    assert!(maker.ensure_node("node1", NodeId(1), &node_key(), now()).unwrap());
}

#[test]
fn keys_in_use_that_lost_their_bundle_are_not_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    issuer(directory.path());
    fs::remove_file(directory.path().join("bundle")).unwrap();
    let opened = ClusterKeys::open(directory.path(), "local");
    assert!(matches!(opened, Err(KeysError::Incomplete { .. })));
    let opened = Issuer::open_or_init(directory.path(), "local", nobody);
    assert!(matches!(opened, Err(KeysError::Incomplete { .. })));
}

#[test]
fn keys_of_another_cluster_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    issuer(directory.path());
    let opened = ClusterKeys::open(directory.path(), "other");
    assert!(matches!(opened, Err(KeysError::OtherCluster { .. })));
    assert!(matches!(
        Issuer::open_or_init(directory.path(), "other", nobody),
        Err(KeysError::OtherCluster { .. })
    ));
    let missing = ClusterKeys::open_existing(&directory.path().join("none"), "local");
    assert!(matches!(missing, Err(KeysError::Missing { .. })));
}

#[test]
fn an_authority_that_the_bundle_does_not_name_signs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let maker = issuer(directory.path());
    let stranger = authority::new_key("").unwrap();
    let path = directory.path().join("operator-authority");
    authority::write_private_key(&path, &stranger).unwrap();
    assert!(matches!(maker.ensure_operator(now()), Err(KeysError::NoSigner { .. })));
}

#[test]
fn two_controllers_do_not_work_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = issuer(directory.path());
    let second = Issuer::open_or_init(directory.path(), "local", nobody);
    assert!(matches!(&second, Err(KeysError::Busy { .. })));
    assert_eq!(second.unwrap_err().code(), Code::Busy);
    assert!(ClusterKeys::open(directory.path(), "local").unwrap().is_some(), "reading is free");
    drop(first);
    // A process that another test starts just now has all files open for the moment of its birth.
    let look = || Ok::<_, ()>(Issuer::open_or_init(directory.path(), "local", nobody).ok());
    let freed = until(Duration::from_secs(10), Duration::from_millis(1), look);
    assert!(matches!(freed, Ok(Some(_))), "the lock outlives its holder");
}

#[test]
fn a_node_takes_what_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = tempfile::tempdir().unwrap();
    let maker = issuer(directory.path());
    for (name, id) in [("node1", 1), ("node2", 2)] {
        fs::create_dir(nodes.path().join(name)).unwrap();
        let public =
            node_key::ensure(&Confined::open(&nodes.path().join(name)).unwrap(), name).unwrap();
        let line = authority::public_line(&public);
        maker.ensure_node(name, NodeId(id), &line, now()).unwrap();
    }
    let bob = authority::new_key("").unwrap();
    let key = authority::public_line(bob.public_key());
    let people = [PlainKey { name: "bob".to_owned(), rights: "read".to_owned(), key }];
    let node1 = nodes.path().join("node1");
    for file in maker.keys().node_files("node1", &people).unwrap() {
        fs::write(node1.join(file.name), &file.text).unwrap();
    }
    let keys = NodeKeys::load(&node1).unwrap();
    let trust = Trust::load(&node1).unwrap();
    let here = "127.0.0.1".parse().unwrap();
    let judged = trust.accept_certificate(&keys.peer_certificate, here, now());
    assert_eq!(judged, Ok(Principal::Node { id: NodeId(1) }));
    trust.accept_host(&keys.host_certificate, "node1.local.paxos", now()).unwrap();
    assert!(trust.accept_key(bob.public_key(), here, now()).is_ok());
    maker.ensure_operator(now()).unwrap();
    let (_, operator) = maker.keys().person(OPERATOR).unwrap();
    let judged = trust.accept_certificate(&operator, here, now()).unwrap();
    assert!(matches!(judged, Principal::Person { rights, .. } if rights.admin()));
    let members = fs::read_to_string(node1.join(identity::MEMBERS)).unwrap();
    assert_eq!(members.lines().count(), 2);
    // Lifetimes differ, so that not all of them end in the same hour.
    let (_, node2) = members.split_once('\n').unwrap();
    let node2 = authority::Certificate::from_openssh(node2.trim()).unwrap();
    assert_ne!(node2.valid_before(), keys.peer_certificate.valid_before());
}

#[test]
fn certificates_are_replaced_in_time_and_when_the_key_changes() {
    let directory = tempfile::tempdir().unwrap();
    let maker = issuer(directory.path());
    let line = node_key();
    let ensure = |id, line: &str, when| maker.ensure_node("node1", NodeId(id), line, when).unwrap();
    assert!(ensure(1, &line, now()));
    assert!(!ensure(1, &line, now() + 50 * DAY));
    assert!(ensure(1, &line, now() + 61 * DAY), "less than 30 days are left");
    assert!(ensure(1, &node_key(), now()), "the node has another key");
    assert!(ensure(2, &node_key(), now()), "it is another node");
    assert!(maker.ensure_operator(now()).unwrap());
    assert!(!maker.ensure_operator(now() + 22 * DAY).unwrap());
    assert!(maker.ensure_operator(now() + 24 * DAY).unwrap());
}

#[test]
fn people_get_what_was_asked_for_and_serials_never_repeat() {
    let directory = tempfile::tempdir().unwrap();
    let maker = issuer(directory.path());
    let hours = Duration::from_secs(8 * 3600);
    let alice = maker.issue(&grant("alice"), hours, None, now()).unwrap();
    let again = maker.issue(&grant("alice"), hours, None, now()).unwrap();
    assert_ne!(alice.serial, again.serial);
    assert_eq!(again.key_id, format!("alice@local/{}", again.serial));
    let (key, certificate) = maker.keys().person("alice").unwrap();
    assert_eq!(certificate.public_key(), key.public_key().key_data(), "the key stayed");
    assert_eq!(certificate.serial(), again.serial);

    // With a key of one's own nothing private lies here.
    let own = node_key();
    let bob = maker.issue(&grant("bob"), hours, Some(&own), now()).unwrap();
    assert_eq!(bob.key, None);
    assert!(!directory.path().join("people/bob").exists());
    let noted = fs::read_to_string(directory.path().join("issued")).unwrap();
    let ids: Vec<_> = noted.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(ids, [alice.key_id, again.key_id, bob.key_id]);

    for name in ["../root", "node:local:1", "a/b", ""] {
        let refused = maker.issue(&grant(name), hours, None, now());
        assert!(matches!(refused, Err(KeysError::Issue(IssueError::Name(_)))), "{name:?}");
    }
    for lifetime in [Duration::ZERO, 400 * DAY] {
        let refused = maker.issue(&grant("alice"), lifetime, None, now());
        assert!(matches!(refused, Err(KeysError::Lifetime(_))));
    }
    let refused = maker.issue(&grant("alice"), hours, Some("ssh-rsa nonsense"), now());
    assert!(matches!(refused, Err(KeysError::Malformed { .. })));
}

#[test]
fn plain_keys_that_say_more_than_they_should_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let maker = issuer(directory.path());
    maker.ensure_node("node1", NodeId(1), &node_key(), now()).unwrap();
    let key = node_key();
    let two = format!("{}\neve admin {}", key.trim(), node_key());
    for (name, rights, key) in [
        ("bob", "root", key.as_str()),
        ("bob", "read admin", &key),
        ("node:local:1", "admin", &key),
        ("#bob", "admin", &key),
        ("bob", "read", "no key"),
        ("bob", "read", &two),
    ] {
        let plain =
            PlainKey { name: name.to_owned(), rights: rights.to_owned(), key: key.to_owned() };
        let files = maker.keys().node_files("node1", &[plain]);
        assert!(matches!(files, Err(KeysError::PlainKey { .. })), "{name} {rights} {key}");
    }
}

/// `ssh -G` prints the settings that the stock client would use.
#[test]
fn the_stock_client_understands_the_ssh_config() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("a b%h/keys/local");
    let maker = issuer(&directory);
    maker.ensure_operator(now()).unwrap();
    let far = SshTarget {
        proxy_command: Some("ssh -W %h:%p bastion".to_owned()),
        ..target("node2", 7022)
    };
    let config = maker.write_ssh_config(&[target("node1", 7101), far]).unwrap();
    assert!(config.is_absolute());
    let settings = |host: &str| {
        let output =
            Command::new("ssh").arg("-F").arg(&config).args(["-G", host]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let found = settings("node1");
    for line in [
        "hostname 127.0.0.1",
        "port 7101",
        "hostkeyalias node1.local.paxos",
        "identitiesonly yes",
        "stricthostkeychecking true",
        "globalknownhostsfile none",
    ] {
        assert!(found.lines().any(|l| l == line), "{line} is not in {found}");
    }
    let far = settings("node2");
    assert!(far.lines().any(|l| l == "proxycommand ssh -W %h:%p bastion"), "{far}");
    let elsewhere = settings("example.org");
    assert!(!elsewhere.contains("keys/local"), "other hosts are left alone");

    // The authority in known_hosts is the one that signs: OpenSSH finds it for the alias.
    let output = Command::new("ssh-keygen")
        .args(["-F", "node1.local.paxos", "-f"])
        .arg(directory.join("known_hosts"))
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&output.stdout);
    let authority = authority::public_line(&maker.keys().host_authorities()[0]);
    assert!(found.contains(authority.trim()), "{found}");
}
