//! Keys that are taken away and renewed while a cluster of real processes runs, by the controller's
//! own program and seen through the stock `ssh`: no process is restarted for it.

#[allow(dead_code, reason = "tests/roles uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;

use harness::{CLUSTER, Cluster, Guarded, NODES, run, until};
use paxos_ssh::paxos::ballot::NodeId;
use paxos_ssh::transport::authority::{
    self, Certificate, PersonGrant, PublicKey, Validity, certificate_line,
};
use paxos_ssh::transport::identity::{HOST_CERTIFICATE, MEMBERS, PEER_CERTIFICATE};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// From the moment at which a node says that it goes by a bundle.
const CUT_MAX: Duration = Duration::from_secs(1);

const HOUR: Duration = Duration::from_secs(3600);

/// A batch that runs until its input ends, by a stock ssh with somebody's key.
struct Batch {
    child: Guarded,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

fn ssh_as(cluster: &Cluster, person: &str) -> Command {
    let people = cluster.path("keys").join("people");
    let text = fs::read_to_string(cluster.ssh_config()).expect("it was written");
    let config = cluster.path(&format!("ssh_config.{person}"));
    let operator = people.join("operator").display().to_string();
    let theirs = people.join(person).display().to_string();
    fs::write(&config, text.replace(&operator, &theirs)).expect("the directory is writable");
    cluster.ssh_with(&config)
}

impl Batch {
    fn start(cluster: &Cluster, person: &str, node: &str) -> Batch {
        let mut command = ssh_as(cluster, person);
        command.arg(node).args(["paxos", "batch"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ssh starts");
        let input = child.stdin.take().expect("it was piped");
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut batch = Batch { child: Guarded(child), input, output };
        batch.goes_on();
        batch
    }

    #[track_caller]
    fn goes_on(&mut self) {
        self.input.write_all(b"put /k v\n").expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        assert!(line.contains("\"ok\":true"), "{line:?}");
    }

    /// Ssh's exit status, once the far end has closed the connection.
    #[track_caller]
    fn ended(&mut self) -> i32 {
        let status = until("the batch ends", || self.child.0.try_wait().expect("a child"));
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("a pipe can be read");
        assert_eq!(rest, "", "nothing is answered any more");
        status.code().unwrap_or(-1)
    }
}

fn pids(cluster: &Cluster) -> Vec<Option<u32>> {
    cluster.nodes.iter().map(|node| cluster.pid(node)).collect()
}

/// The epochs that the nodes go by.
fn epochs(cluster: &Cluster) -> Vec<Value> {
    let epoch = |node: &&str| cluster.status(node).map(|status| status["bundle"]["epoch"].clone());
    cluster.nodes.iter().map(|node| epoch(node).unwrap_or_default()).collect()
}

#[test]
fn a_revoked_operator_is_gone_from_every_node_and_nobody_else_notices() {
    let cluster = Cluster::found();
    for person in ["alice", "bob"] {
        cluster.keys(&["issue", person, "--role", "write"]).expect(0);
    }
    let before = pids(&cluster);
    let mut alices: Vec<Batch> =
        NODES.iter().map(|node| Batch::start(&cluster, "alice", node)).collect();
    let mut bobs = Batch::start(&cluster, "bob", "node1");
    let told = cluster.keys(&["revoke", "alice", "--reason", "laptop lost", "-o", "json"]);
    let since = Instant::now();
    let told = told.expect(0).json();
    assert_eq!((&told["epoch"], &told["changed"]), (&2.into(), &true.into()));
    for node in 0..NODES.len() {
        assert_eq!(told["nodes"][node]["reached"], "active", "{told}");
    }
    for alice in &mut alices {
        // Ssh's own word for a connection that is gone; the node gave no exit status.
        assert_eq!(alice.ended(), 255);
    }
    assert!(since.elapsed() < CUT_MAX, "it took {:?}", since.elapsed());
    bobs.goes_on();
    assert_eq!(epochs(&cluster), [2, 2, 2]);
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    let refused = run(ssh_as(&cluster, "alice").args(["node2", "paxos", "health"]), b"");
    assert_eq!(refused.exit(), 255, "{}", refused.said());

    let listed = cluster.keys(&["list", "-o", "json"]).expect(0).json();
    let entries = listed["issued"].as_array().expect("a list");
    let alice = entries.iter().find(|entry| entry["person"] == "alice").expect("she is listed");
    assert_eq!((&alice["revoked"], &alice["reason"]), (&true.into(), &"laptop lost".into()));
    let people = cluster.path("keys").join("people");
    let file = people.join("alice").display().to_string();
    let why = cluster.keys(&["diagnose", &file, "-o", "json"]).expect(3).json();
    assert_eq!((&why["refused"], &why["revoked_by"]), (&"revoked".into(), &alice["revoked_by"]));
    let file = people.join("bob").display().to_string();
    let text = cluster.keys(&["diagnose", &file]).expect(0).out();
    assert!(text.contains("accepted    as bob, with write"), "{text}");
    assert_eq!(cluster.ctl(&["plan"]).exit(), 0, "nothing is left to do");
}

#[test]
fn an_old_bundle_is_refused_while_a_node_runs_and_after() {
    let cluster = Cluster::found();
    let bundle = |node: &str| cluster.directory(node).join("keys/bundle");
    let old = fs::read(bundle("node1")).expect("it is there");
    cluster.keys(&["issue", "alice", "--role", "read"]).expect(0);
    // A node that is down while it happens takes the bundle up when it starts.
    cluster.kill("node3");
    let told = cluster.keys(&["revoke", "alice", "-o", "json"]).expect(0).json();
    assert_eq!(told["nodes"][2]["reached"], "at_its_start", "{told}");
    cluster.start("node3");
    until("node3 goes by it", || {
        cluster.status("node3").filter(|status| status["bundle"]["epoch"] == 2)
    });

    fs::write(bundle("node1"), &old).expect("the directory is writable");
    cluster.signal("node1", Signal::HUP);
    let refused = |status: &Value| {
        let problem = status["bundle"]["problem"].as_str().unwrap_or_default();
        problem.contains("epoch 1") && status["bundle"]["epoch"] == 2
    };
    until("node1 says so", || cluster.status("node1").filter(refused));
    cluster.kill("node1");
    cluster.start("node1");
    until("node1 says so again", || cluster.status("node1").filter(refused));
    let metrics = cluster.ssh("node1", "paxos metrics").expect(0).out();
    for line in ["paxos_trust_bundle_epoch 2", "paxos_trust_reloads_refused_total 1"] {
        assert!(metrics.lines().any(|shown| shown == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(cluster.ctl(&["plan"]).exit(), 2, "the host holds an older bundle");
    let before = pids(&cluster);
    cluster.keys(&["resume"]).expect(0);
    let status = cluster.status("node1").expect("it answers");
    assert_eq!((&status["bundle"]["problem"], pids(&cluster)), (&Value::Null, before));
    // A node that was not started by the controller is told once without need.
    let before = pids(&cluster);
    cluster.deploy().expect(0);
    assert_eq!(pids(&cluster), before);
    cluster.ctl(&["plan"]).expect(0);
}

#[test]
fn certificates_are_renewed_while_nodes_run() {
    let cluster = Cluster::found();
    let before = pids(&cluster);
    let mut batch = Batch::start(&cluster, "operator", "node2");
    let serial = |node: &str| {
        let status = cluster.status(node).expect("it answers");
        status["certificates"]["host"]["serial"].clone()
    };
    let (first, second) = (serial("node1"), serial("node2"));
    let told = cluster.keys(&["renew", "node2", "--over-host-ssh", "-o", "json"]);
    let told = told.expect(0).json();
    assert_eq!(told["renewed"], serde_json::json!(["node2"]));
    assert_eq!(serial("node1"), first);
    assert_ne!(serial("node2"), second);
    batch.goes_on();
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    assert!(fs::remove_file(cluster.path("keys/nodes/node1/host-cert.pub")).is_ok());
    let plan = cluster.ctl(&["plan"]).expect(2).out();
    assert!(plan.contains("take up the keys") && !plan.contains("restart"), "{plan}");
    cluster.deploy().expect(0);
    assert_ne!(serial("node1"), first);
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    cluster.wait_healthy();
}

/// Has every certificate run out an hour ago: those of the nodes, on their hosts and here, and the
/// operator's.
fn expire(cluster: &Cluster) {
    let directory = cluster.path("keys");
    let key = |name: &str| authority::load_private_key(&directory.join(name)).expect("it is there");
    let now = SystemTime::now();
    let validity = Validity { after: now - 3 * HOUR, before: now - HOUR };
    let public = |path: PathBuf| {
        let line = fs::read_to_string(path).expect("it is there");
        PublicKey::from_openssh(line.trim()).expect("it is a key")
    };
    let (host, peer, people) =
        (key("host-authority"), key("peer-authority"), key("operator-authority"));
    let mut members = String::new();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let id = NodeId(at as u64 + 1);
        let subject = public(directory.join("nodes").join(node).join("node_key.pub"));
        let host = authority::host_certificate(&host, &subject, node, CLUSTER, 90, validity);
        let peer = authority::peer_certificate(&peer, &subject, id, CLUSTER, 91, validity);
        let line = |made: Result<Certificate, _>| certificate_line(&made.expect("it is signed"));
        let files = [(HOST_CERTIFICATE, line(host)), (PEER_CERTIFICATE, line(peer))];
        members.push_str(&files[1].1);
        for (name, text) in files {
            let here = directory.join("nodes").join(node).join(name);
            fs::write(here, &text).expect("the directory is writable");
            let there = cluster.directory(node).join("keys").join(name);
            fs::write(there, &text).expect("the directory is writable");
        }
    }
    for node in &cluster.nodes {
        let there = cluster.directory(node).join("keys").join(MEMBERS);
        fs::write(there, &members).expect("the directory is writable");
    }
    let grant = PersonGrant {
        name: "operator".to_owned(),
        rights: "admin".parse().expect("it is a right"),
        source_addresses: None,
        force_command: None,
    };
    let subject = public(directory.join("people/operator.pub"));
    let made = authority::person_certificate(&people, &subject, &grant, CLUSTER, 92, validity);
    let text = certificate_line(&made.expect("it is signed"));
    fs::write(directory.join("people/operator-cert.pub"), text).expect("it is writable");
}

#[test]
fn with_everything_expired_and_no_quorum_certificates_are_renewed_all_the_same() {
    let cluster = Cluster::found();
    NODES.iter().for_each(|node| cluster.kill(node));
    expire(&cluster);
    cluster.start("node2");
    until("node2 begins", || cluster.directory("node2").join("paxos.sock").exists().then_some(()));
    assert!(cluster.status("node2").is_none(), "nobody gets in over ssh");
    let pid = cluster.pid("node2");
    let told = cluster.keys(&["renew", "--over-host-ssh", "-o", "json"]).expect(0).json();
    assert_eq!(told["renewed"], serde_json::json!(NODES));
    let reached = |node: usize| told["nodes"][node]["reached"].clone();
    assert_eq!([reached(0), reached(1), reached(2)], ["at_its_start", "active", "at_its_start"]);
    let status = cluster.status("node2").expect("the operator's certificate was renewed, too");
    assert_eq!((&status["health"], cluster.pid("node2")), (&"no_quorum".into(), pid));
    cluster.start("node1");
    cluster.start("node3");
    cluster.wait_healthy();
    for node in NODES {
        let metrics = cluster.ssh(node, "paxos metrics").expect(0).out();
        let remaining = metrics.lines().find_map(|line| {
            line.strip_prefix("paxos_trust_peer_certificate_remaining_seconds ")?.parse().ok()
        });
        assert!(remaining.is_some_and(|left: i64| left > 30 * 24 * 3600), "{metrics}");
    }
}

/// Puts a list of plain keys into the cluster's inventory, in the place of the one before.
fn list_people(cluster: &Cluster, people: &str) {
    let path = cluster.path("inventory.yaml");
    let text = fs::read_to_string(&path).expect("it was written");
    let others = text.lines().filter(|line| !line.contains("paxos_people"));
    let lines = others.flat_map(|line| match line.contains("paxos_cluster") {
        true => vec![line.to_owned(), format!("    paxos_people: {{{people}}}")],
        false => vec![line.to_owned()],
    });
    fs::write(&path, lines.map(|line| line + "\n").collect::<String>()).expect("it is writable");
}

#[test]
fn plain_keys_of_the_inventory_are_let_in_and_out_again_without_a_restart() {
    let cluster = Cluster::found();
    let before = pids(&cluster);
    let key = cluster.path("backup");
    let mut keygen = Command::new("ssh-keygen");
    run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "backup", "-f"]).arg(&key), b"")
        .expect(0);
    let line = fs::read_to_string(key.with_extension("pub")).expect("it was made");
    // No certificate beside it.
    let config = cluster.path("ssh_config.plain");
    let text = fs::read_to_string(cluster.ssh_config()).expect("it was written");
    let people = cluster.path("keys/people/operator").display().to_string();
    let text = text.lines().filter(|line| !line.trim_start().starts_with("CertificateFile"));
    let text = text.map(|line| line.replace(&people, &key.display().to_string()) + "\n");
    fs::write(&config, text.collect::<String>()).expect("it is writable");
    let ask = |words: &[&str]| run(cluster.ssh_with(&config).arg("node2").args(words), b"");
    ask(&["paxos", "health"]).expect(255);
    let list = |rights: &str| {
        let key = line.trim();
        list_people(&cluster, &format!("backup: {{rights: \"{rights}\", key: \"{key}\"}}"));
        cluster.ctl(&["plan"]).expect(2);
        cluster.deploy().expect(0);
        cluster.ctl(&["plan"]).expect(0);
    };
    list("write:/app1/");
    ask(&["paxos", "put", "/app1/k", "v"]).expect(0);
    ask(&["paxos", "put", "/app10/k", "v"]).expect(77);
    list("read");
    ask(&["paxos", "put", "/app1/k", "v"]).expect(77);
    assert_eq!(ask(&["paxos", "get", "/app1/k"]).expect(0).out(), "v\n");
    // Keys that are delivered for another reason leave the list as it is.
    cluster.keys(&["issue", "alice", "--role", "write"]).expect(0);
    cluster.keys(&["revoke", "alice"]).expect(0);
    ask(&["paxos", "health"]).expect(0);
    cluster.keys(&["revoke", &key.with_extension("pub").display().to_string()]).expect(0);
    ask(&["paxos", "health"]).expect(255);
    assert_eq!(pids(&cluster), before, "nobody was restarted");
}
