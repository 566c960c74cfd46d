//! The program `paxos` over SSH, through the real server of a node: keys from files, several nodes
//! to choose from, values of every kind, and the Rust client's calls. Behind the server is a node
//! in miniature; the stock ssh is tested in tests/transport.rs and with whole clusters.

mod backend;
mod program;

use arc_swap::ArcSwap;
use backend::{Fake, Mood};
use bytes::Bytes;
use paxos_ssh::client::cluster::Cluster;
use paxos_ssh::client::ssh_config::SshConfig;
use paxos_ssh::paxos::ballot::{ClusterId, NodeId};
use paxos_ssh::store::command::Condition;
use paxos_ssh::telemetry::watchdog::Watchdog;
use paxos_ssh::transport::authority::{
    PersonGrant, Validity, certificate_line, host_certificate, new_key, peer_certificate,
    person_certificate, public_line, write_private_key,
};
use paxos_ssh::transport::bundle::{Authority, AuthorityRole, AuthorityStage, Bundle};
use paxos_ssh::transport::counters::Counters;
use paxos_ssh::transport::identity::{NodeKeys, Trust};
use paxos_ssh::transport::live::LiveTrust;
use paxos_ssh::transport::rights::Rights;
use paxos_ssh::transport::server::{LinkDown, PeerEvents, Server, ServerOptions};
use paxos_ssh::transport::settings::Settings;
use paxos_ssh::transport::{Lane, LocalNode};
use paxos_ssh::wire::failure::Code;
use paxos_ssh::wire::rpc::{Call, Reply};
use program::{code, feed, paxos, text};
use russh::keys::PrivateKey;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const CLUSTER: &str = "test";

/// Peers are not what is tested here.
struct NoPeers;

impl PeerEvents for NoPeers {
    fn frame(&self, _from: NodeId, _lane: Lane, _body: Bytes) {}
    fn link_up(&self, _peer: NodeId, _lane: Lane) {}
    fn link_down(&self, _peer: NodeId, _lane: Lane, _why: LinkDown) {}
}

/// Two nodes with a server each and one store behind both, and a directory with an ssh_config.
struct World {
    fake: Fake,
    directory: TempDir,
    operator: PrivateKey,
    addresses: Vec<SocketAddr>,
    runtime: Runtime,
}

impl World {
    fn start() -> World {
        let (host, peer, operator) =
            (new_key("host").unwrap(), new_key("peer").unwrap(), new_key("operator").unwrap());
        let authority = |role, key: &PrivateKey| Authority {
            role,
            stage: AuthorityStage::Current,
            key: key.public_key().clone(),
        };
        let bundle = Bundle {
            epoch: 1,
            cluster: CLUSTER.to_owned(),
            cluster_id: ClusterId(1),
            authorities: vec![
                authority(AuthorityRole::Host, &host),
                authority(AuthorityRole::Peer, &peer),
                authority(AuthorityRole::Operator, &operator),
            ],
            revocations: Vec::new(),
        };
        let trust = Arc::new(LiveTrust::new(Trust::new(bundle, Vec::new())));
        let runtime = Runtime::new().unwrap();
        let fake = Fake::new();
        let mut addresses = Vec::new();
        for id in 1..=2 {
            let options = ServerOptions {
                local: LocalNode {
                    id: NodeId(id),
                    cluster: CLUSTER.into(),
                    cluster_id: "1".into(),
                },
                settings: Settings::default(),
                trust: Arc::clone(&trust),
                keys: Arc::new(ArcSwap::from_pointee(node_keys(id, &host, &peer))),
                peers: Arc::new(NoPeers),
                sessions: Arc::new(fake.api()),
                counters: Arc::new(Counters::default()),
                watchdog: Watchdog::default(),
            };
            let server = runtime.block_on(Server::bind(&["127.0.0.1:0".to_owned()], options));
            let server = server.unwrap();
            addresses.push(server.addresses()[0]);
            runtime.spawn(server.run(CancellationToken::new()));
        }
        let directory = tempfile::tempdir().unwrap();
        let line = format!("@cert-authority *.{CLUSTER}.paxos {}", public_line(host.public_key()));
        std::fs::write(directory.path().join("known_hosts"), line).unwrap();
        let world = World { fake, directory, operator, addresses, runtime };
        world.write_person("alice", &["admin"]);
        world.write_config(world.addresses[0].port(), world.addresses[1].port());
        world
    }

    /// A key and a certificate for it, as `paxos-ctl keys issue` leaves them.
    fn write_person(&self, name: &str, rights: &[&str]) {
        let key = new_key(name).unwrap();
        let grant = PersonGrant {
            name: name.to_owned(),
            rights: Rights::from_words(rights.iter().copied()).unwrap(),
            source_addresses: None,
            force_command: None,
        };
        let (subject, now) = (key.public_key(), validity());
        let signed = person_certificate(&self.operator, subject, &grant, CLUSTER, 7, now);
        let path = self.directory.path().join("id");
        write_private_key(&path, &key).unwrap();
        let line = certificate_line(&signed.unwrap());
        std::fs::write(self.directory.path().join("id-cert.pub"), line).unwrap();
    }

    fn write_config(&self, port1: u16, port2: u16) {
        let here = self.directory.path().display();
        let mut text = String::new();
        for (name, port) in [("node1", port1), ("node2", port2)] {
            write!(
                text,
                "Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  \
                 HostKeyAlias {name}.{CLUSTER}.paxos\n  \
                 UserKnownHostsFile {here}/known_hosts\n  GlobalKnownHostsFile none\n  \
                 StrictHostKeyChecking yes\n  IdentitiesOnly yes\n  \
                 IdentityFile {here}/id\n  CertificateFile {here}/id-cert.pub\n\n"
            )
            .unwrap();
        }
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> std::path::PathBuf {
        self.directory.path().join("ssh_config")
    }

    fn run(&self, words: &[&str], stdin: &[u8]) -> Output {
        run(&self.config(), words, stdin)
    }
}

fn validity() -> Validity {
    Validity::starting(SystemTime::now(), Duration::from_secs(3600))
}

fn node_keys(id: u64, host: &PrivateKey, peer: &PrivateKey) -> NodeKeys {
    let key = new_key("node").unwrap();
    let (subject, name) = (key.public_key(), format!("node{id}"));
    let host_certificate = host_certificate(host, subject, &name, CLUSTER, 1, validity()).unwrap();
    let peer_certificate =
        peer_certificate(peer, subject, NodeId(id), CLUSTER, 2, validity()).unwrap();
    let key = Arc::new(key);
    NodeKeys { host_key: Arc::clone(&key), host_certificate, peer_key: key, peer_certificate }
}

fn run(config: &Path, words: &[&str], stdin: &[u8]) -> Output {
    let mut command = paxos();
    command.env("PAXOS_SSH_CONFIG", config).args(words);
    feed(command, stdin)
}

/// A port on which nobody listens.
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn verbs_go_over_ssh() {
    let world = World::start();
    let put = world.run(&["--to", "node1", "put", "a key", "it's \"two\" $words"], b"");
    assert_eq!((code(&put), text(&put.stdout), text(&put.stderr)), (0, "revision 1\n", ""));
    let get = world.run(&["--to=node2", "get", "a key"], b"");
    assert_eq!((code(&get), text(&get.stdout)), (0, "it's \"two\" $words\n"));
    let get = world.run(&["get", "missing", "-o", "json"], b"");
    assert_eq!(code(&get), 3);
    assert!(text(&get.stdout).starts_with("{\"ok\":false,\"error\":{\"code\":\"not_found\""));
    world.fake.mood(Mood::NoQuorum);
    assert_eq!(code(&world.run(&["put", "k", "v"], b"")), 69);
    world.fake.mood(Mood::Unknown);
    assert_eq!(code(&world.run(&["put", "k", "v"], b"")), 74);
}

#[test]
fn values_keep_every_byte() {
    let world = World::start();
    let long: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for value in [&long[..], b"", b"-", b"\xff\xfe", b"a\r\n"] {
        assert_eq!(code(&world.run(&["put", "k", "-"], value)), 0);
        assert_eq!(world.fake.value(b"k").unwrap(), value);
        assert_eq!(world.run(&["get", "--raw", "k"], b"").stdout, value);
    }
    // Longer than what one SSH packet has to hold: it goes through standard input by itself.
    let word = "w".repeat(100_000);
    assert_eq!(code(&world.run(&["put", "k", &word], b"")), 0);
    assert_eq!(world.fake.value(b"k").unwrap(), word);
}

#[test]
fn a_batch_goes_over_ssh() {
    let world = World::start();
    let input: String = (0..20_000).map(|n| format!("put k{n} {n}\n")).collect();
    let output = world.run(&["batch", "--window", "64"], input.as_bytes());
    assert_eq!((code(&output), text(&output.stderr)), (0, ""));
    assert_eq!(text(&output.stdout).lines().count(), 20_000);
    assert_eq!(world.fake.proposed(), 20_000);
}

#[test]
fn the_next_node_is_asked_when_one_cannot_be_reached() {
    let world = World::start();
    world.write_config(dead_port(), world.addresses[1].port());
    let put = world.run(&["--to", "node1,node2", "put", "k", "v"], b"");
    assert_eq!((code(&put), text(&put.stdout), text(&put.stderr)), (0, "revision 1\n", ""));
    assert_eq!(code(&world.run(&["put", "k", "-"], b"again")), 0);
    assert_eq!(world.fake.value(b"k").unwrap(), "again");
    // A node that takes the connection and says nothing does not eat all of the time.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    world.write_config(mute.local_addr().unwrap().port(), world.addresses[1].port());
    assert_eq!(code(&world.run(&["put", "k", "v", "--timeout", "4s"], b"")), 0);
    world.write_config(dead_port(), dead_port());
    let put = world.run(&["put", "k", "v", "-o", "json"], b"");
    assert_eq!(code(&put), 69);
    assert!(text(&put.stdout).contains("node1: ") && text(&put.stdout).contains("node2: "));
    assert_eq!(world.fake.proposed(), 3);
}

#[test]
fn who_is_not_let_in_and_what_is_not_trusted() {
    let world = World::start();
    world.write_person("bob", &["read:/app/"]);
    let put = world.run(&["put", "k", "v"], b"");
    assert_eq!(code(&put), 77);
    assert!(text(&put.stderr).starts_with("paxos: bob may not write \"k\" (denied)"), "{put:?}");

    let stranger = World::start();
    stranger.write_config(world.addresses[0].port(), world.addresses[1].port());
    let untrusted = stranger.run(&["status"], b"");
    assert_eq!(code(&untrusted), 69);
    assert!(text(&untrusted.stderr).contains("is not trusted"), "{untrusted:?}");

    let known_hosts = world.directory.path().join("known_hosts");
    std::fs::copy(known_hosts, stranger.directory.path().join("known_hosts")).unwrap();
    let refused = stranger.run(&["status"], b"");
    assert_eq!(code(&refused), 77);
    assert!(text(&refused.stderr).contains("no node let this key in"), "{refused:?}");
}

#[test]
fn programs_call_over_ssh() {
    let world = World::start();
    let config = SshConfig::load(&world.config()).unwrap();
    let nodes = ["node1", "node2"].map(|name| config.node(name, None).unwrap());
    world.runtime.block_on(async {
        let cluster = Arc::new(Cluster::new(nodes.to_vec()));
        let put = |n: u32| Call::Put {
            key: format!("k{n}").into(),
            value: vec![b'v'; 256].into(),
            condition: Condition::Always,
            request_id: None,
        };
        let calls = (0..500).map(|n| {
            let cluster = Arc::clone(&cluster);
            tokio::spawn(async move { cluster.call(put(n), Duration::from_secs(20)).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert!(matches!(call.await.unwrap(), Ok(Reply::Written { .. })));
        }
        let again = Call::Put {
            key: "k1".into(),
            value: Bytes::new(),
            condition: Condition::Absent,
            request_id: None,
        };
        let failure = cluster.call(again, Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(failure.code, Code::ConditionFailed);
    });
}

#[test]
fn a_program_that_runs_on_finds_the_keys_that_were_renewed() {
    let (world, stranger) = (World::start(), World::start());
    for file in ["id", "id-cert.pub"] {
        let (from, to) = (stranger.directory.path(), world.directory.path());
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let config = SshConfig::load(&world.config()).unwrap();
    let nodes = ["node1", "node2"].map(|name| config.node(name, None).unwrap());
    world.runtime.block_on(async {
        let cluster = Cluster::new(nodes.to_vec());
        let put = || Call::Put {
            key: "k".into(),
            value: "v".into(),
            condition: Condition::Always,
            request_id: None,
        };
        let failure = cluster.call(put(), Duration::from_secs(1)).await.unwrap_err();
        assert_eq!((failure.code, world.fake.proposed()), (Code::NoQuorum, 0), "{failure:?}");
        world.write_person("alice", &["admin"]);
        let written = cluster.call(put(), Duration::from_secs(20)).await;
        assert!(matches!(written, Ok(Reply::Written { .. })), "{written:?}");
    });
}
