//! Authorities that are replaced while a cluster of real processes serves, and what becomes of
//! those that come with certificates of the one before, through the stock `ssh`.

#[allow(dead_code, reason = "tests/roles uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;

use harness::{Cluster, NODES, Ran, run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn rotate(cluster: &Cluster, role: &str, more: &[&str]) -> Ran {
    let words = [&["rotate", "--authority", role, "-o", "json"], more].concat();
    cluster.keys(&words)
}

fn pids(cluster: &Cluster) -> Vec<Option<u32>> {
    cluster.nodes.iter().map(|node| cluster.pid(node)).collect()
}

/// A login at a node with another file in the place of one that the ssh_config names.
fn login_with(cluster: &Cluster, from: &str, to: &str) -> Ran {
    let text = fs::read_to_string(cluster.ssh_config()).expect("it was written");
    let keys = cluster.path("keys");
    let path = |name: &str| keys.join(name).display().to_string();
    assert!(text.contains(&path(from)), "{text}");
    let config = cluster.path("ssh_config.other");
    fs::write(&config, text.replace(&path(from), &path(to))).expect("it is writable");
    run(cluster.ssh_with(&config).args(["node1", "paxos", "health"]), b"")
}

/// Writes through node2, each time by a login of its own, while `work` is done. Gives how many
/// writes there were; none may fail.
fn while_somebody_writes(cluster: &Cluster, work: impl FnOnce()) -> usize {
    /// Also where the work panics: the writer is waited for.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (over, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        let _over = Over(&over);
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let next = writes.fetch_add(1, Ordering::Relaxed) + 1;
                cluster.ssh("node2", &format!("paxos put /writes {next}")).expect(0);
            }
        });
        work();
    });
    writes.into_inner()
}

#[test]
fn each_authority_is_replaced_and_no_write_fails() {
    let cluster = Cluster::found();
    let before = pids(&cluster);
    let keys = cluster.path("keys");
    for file in ["", ".pub", "-cert.pub"] {
        let people = keys.join("people");
        fs::copy(people.join(format!("operator{file}")), people.join(format!("former{file}")))
            .expect("it is there");
    }
    let known_hosts = keys.join("known_hosts");
    let old_line = fs::read_to_string(&known_hosts).expect("it is there");
    let mut signers = Vec::new();
    let writes = while_somebody_writes(&cluster, || {
        for role in ["host", "peer", "operator"] {
            let told = rotate(&cluster, role, &[]).expect(0).json();
            assert_eq!((&told["stage"], &told["authority"]), (&"settled".into(), &role.into()));
            for node in 0..NODES.len() {
                assert_eq!(told["nodes"][node]["reached"], "active", "{told}");
            }
            assert!(!keys.join(format!("{role}-authority.new")).exists());
            signers.push(told["signs"].clone());
        }
    });
    let last = cluster.ssh("node3", "paxos get /writes").expect(0).out();
    assert_eq!(last, format!("{writes}\n"), "the last write is there");
    println!("{writes} writes while three authorities were replaced");
    signers.dedup();
    assert_eq!(signers.len(), 3, "each has its own");
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    let status = cluster.status("node1").expect("it answers");
    assert_eq!(
        (&status["bundle"]["epoch"], &status["bundle"]["problem"]),
        (&10.into(), &Value::Null)
    );
    cluster.ctl(&["plan"]).expect(0);

    let new_line = fs::read_to_string(&known_hosts).expect("it is there");
    assert_eq!((new_line.lines().count(), new_line == old_line), (1, false));
    cluster.ssh("node1", "paxos health").expect(0);
    fs::write(keys.join("known_hosts.old"), &old_line).expect("it is writable");
    let refused = login_with(&cluster, "known_hosts", "known_hosts.old").expect(255);
    assert!(refused.said().contains("Host key verification failed"), "{}", refused.said());
    let refused = login_with(&cluster, "people/operator", "people/former").expect(255);
    assert!(refused.said().contains("Permission denied"), "{}", refused.said());
    let former = keys.join("people/former-cert.pub").display().to_string();
    let why = cluster.keys(&["diagnose", &former]).expect(3).out();
    assert!(why.contains("authority"), "{why}");
}

#[test]
fn the_way_back_is_open_until_the_old_authority_is_forgotten() {
    let cluster = Cluster::found();
    let keys = cluster.path("keys");
    let nothing = cluster.keys(&["rollback"]).expect(3);
    assert!(nothing.said().contains("no authority is being replaced"), "{}", nothing.said());
    cluster.keys(&["issue", "alice", "--role", "write"]).expect(0);
    let line = fs::read_to_string(keys.join("operator-authority.pub")).expect("it is there");
    for until in ["learned", "switched"] {
        rotate(&cluster, "operator", &["--until", "learned"]).expect(0);
        // Who types it again goes on with it.
        let told = rotate(&cluster, "operator", &["--until", until]).expect(0).json();
        assert_eq!(told["stage"], until);
        let told = rotate(&cluster, "operator", &["--until", "learned"]).expect(0).json();
        assert_eq!(told["stage"], until, "it goes no farther than it was to go");
        let busy = rotate(&cluster, "host", &[]).expect(78);
        assert!(busy.said().contains("keys rollback"), "{}", busy.said());
        // Whoever has a certificate of either gets in.
        login_with(&cluster, "people/operator", "people/alice").expect(0);
        let back = cluster.keys(&["rollback", "-o", "json"]).expect(0).json();
        assert_eq!(back["stage"], "settled");
        let now = fs::read_to_string(keys.join("operator-authority.pub")).expect("it is there");
        assert_eq!(now, line, "after {until}");
        assert!(!keys.join("operator-authority.new").exists());
        login_with(&cluster, "people/operator", "people/alice").expect(0);
        cluster.ctl(&["plan"]).expect(0);
    }
    let copy = keys.join("people/alice-cert.pub");
    let older = fs::read(&copy).expect("it is there");
    rotate(&cluster, "operator", &["--until", "switched"]).expect(0);
    let told = cluster.keys(&["resume", "-o", "json"]).expect(0).json();
    assert_eq!(told["stage"], "settled");
    login_with(&cluster, "people/operator", "people/alice").expect(0);
    fs::write(&copy, older).expect("it is writable");
    login_with(&cluster, "people/operator", "people/alice").expect(255);
}

#[test]
fn a_node_that_is_down_takes_the_new_authority_up_when_it_starts() {
    let cluster = Cluster::found();
    cluster.kill("node3");
    let told = rotate(&cluster, "peer", &[]).expect(0).json();
    assert_eq!(told["nodes"][2]["reached"], "at_its_start", "{told}");
    cluster.ssh("node1", "paxos put k v").expect(0);
    cluster.deploy().expect(0);
    cluster.wait_healthy();
    assert_eq!(cluster.ssh("node3", "paxos get k").expect(0).out(), "v\n");
}

/// How many authorities of peers the newest bundle here names, at each stage.
fn stages(cluster: &Cluster) -> [usize; 3] {
    let text = fs::read_to_string(cluster.path("keys/bundle")).expect("it is there");
    ["current", "next", "retiring"]
        .map(|stage| text.matches(&format!("authority peer {stage} ")).count())
}

#[test]
fn the_way_back_cuts_off_one_node_after_the_other() {
    let cluster = Cluster::found();
    rotate(&cluster, "peer", &["--until", "switched"]).expect(0);
    // From now on the new authority vouches for every connection.
    cluster.ctl(&["restart"]).expect(0);
    while_somebody_writes(&cluster, || {
        let told = cluster.keys(&["rollback"]).expect(0).said();
        for node in NODES {
            let step = format!("{node}: forget the other peer authority");
            assert!(told.contains(&step), "{told}");
        }
    });
    cluster.ctl(&["plan"]).expect(0);
}

#[test]
fn without_a_quorum_nothing_is_forgotten() {
    let cluster = Cluster::found();
    let killed = ["node2", "node3"];
    killed.iter().for_each(|node| cluster.kill(node));
    let stopped = rotate(&cluster, "peer", &[]).expect(69).json();
    let message = stopped["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("nothing was forgotten"), "{message}");
    assert_eq!(stages(&cluster), [1, 0, 1], "the way back is open");
    cluster.deploy().expect(0);
    let told = cluster.keys(&["resume", "-o", "json"]).expect(0).json();
    assert_eq!(told["stage"], "settled", "{told}");
    cluster.wait_healthy();
}

#[test]
fn nobody_forgets_after_one_that_could_not() {
    let cluster = Cluster::found();
    rotate(&cluster, "peer", &["--until", "switched"]).expect(0);
    let leader = cluster.leader();
    let first = NODES.into_iter().find(|node| *node != leader).expect("one leads");
    // A node refuses all that lies there when others can read its key.
    let key = cluster.directory(first).join("keys/node_key");
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode));
    mode(0o644).expect("it is ours");
    let stopped = cluster.keys(&["resume"]).expect(1);
    assert!(stopped.said().contains(first), "{}", stopped.said());
    let epoch = |node: &str| cluster.status(node).expect("it answers")["bundle"]["epoch"].clone();
    assert_eq!(NODES.map(epoch), [3, 3, 3], "all believe both still");
    mode(0o600).expect("it is ours");
    let told = cluster.keys(&["resume", "-o", "json"]).expect(0).json();
    assert_eq!(told["stage"], "settled", "{told}");
    cluster.wait_healthy();
}

#[test]
fn a_host_that_takes_no_files_stops_it_and_is_brought_back_later() {
    let cluster = Cluster::found();
    let bundle = cluster.directory("node3").join("keys/bundle");
    let aside = bundle.with_extension("aside");
    fs::rename(&bundle, &aside).expect("it is there");
    fs::create_dir_all(bundle.join("in-the-way")).expect("it is writable");
    let stopped = rotate(&cluster, "peer", &[]).expect(1).json();
    let message = stopped["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("node3") && !message.contains("node2"), "{message}");
    assert_eq!(stages(&cluster), [1, 1, 0], "nobody signs otherwise yet");
    cluster.ssh("node2", "paxos put k before").expect(0);
    cluster.keys(&["resume"]).expect(1);

    let told = cluster.keys(&["resume", "--force", "node3", "-o", "json"]).expect(0).json();
    assert_eq!(
        (&told["stage"], &told["nodes"][2]["reached"]),
        (&"settled".into(), &"left_out".into())
    );
    cluster.ssh("node1", "paxos put k without").expect(0);
    let status = cluster.status("node3").expect("it lets the operator in");
    assert_eq!(status["bundle"]["epoch"], 1, "it slept through all of it");

    fs::remove_dir_all(&bundle).expect("it is ours");
    fs::rename(&aside, &bundle).expect("it is there");
    let told = cluster.keys(&["resume", "-o", "json"]).expect(0).json();
    assert_eq!(told["nodes"][2]["reached"], "active", "{told}");
    cluster.wait_healthy();
    assert_eq!(cluster.ssh("node3", "paxos get k").expect(0).out(), "without\n");
    cluster.ctl(&["plan"]).expect(0);
}
