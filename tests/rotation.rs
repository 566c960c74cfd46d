//! Authorities that are replaced while a cluster of real processes serves, and what becomes of
//! those that come with certificates of the one before, through the stock `ssh`.

#[allow(dead_code, reason = "tests/roles uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;

use harness::{Cluster, NODES, Ran, run, until};
use paxos_ssh::transport::authority::load_private_key;
use paxos_ssh::transport::bundle::{AuthorityRole, Bundle, Revocation};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
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
                let put = format!("paxos put /writes {next} --request-id rotation-{next}");
                let first = cluster.ssh("node2", &put);
                // A login that began with the certificate of before is cut when that is forgotten.
                // Whoever it happens to asks again, and what was done already is not done twice.
                if first.exit() == 255 {
                    cluster.ssh("node2", &put).expect(0);
                } else {
                    first.expect(0);
                }
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
    let epoch = status["bundle"]["epoch"].as_u64();
    assert!(epoch.is_some_and(|epoch| epoch > 1), "the log told it what its host would not take");

    fs::remove_dir_all(&bundle).expect("it is ours");
    fs::rename(&aside, &bundle).expect("it is there");
    let told = cluster.keys(&["resume", "-o", "json"]).expect(0).json();
    assert_eq!(told["nodes"][2]["reached"], "active", "{told}");
    cluster.wait_healthy();
    assert_eq!(cluster.ssh("node3", "paxos get k").expect(0).out(), "without\n");
    cluster.ctl(&["plan"]).expect(0);
}

#[test]
fn the_key_of_each_node_is_replaced_and_no_write_fails() {
    let cluster = Cluster::found();
    let before = pids(&cluster);
    let there = |node: &str, name: &str| cluster.directory(node).join("keys").join(name);
    let read = |node: &str, name: &str| fs::read_to_string(there(node, name)).expect("it is there");
    let old = NODES.map(|node| read(node, "node_key.pub"));
    for node in NODES {
        let copy = cluster.path(&format!("{node}-cert.pub"));
        fs::copy(there(node, "peer-cert.pub"), copy).expect("it is there");
    }
    let writes = while_somebody_writes(&cluster, || {
        for node in NODES {
            let told = cluster.keys(&["rotate", "--node", node, "-o", "json"]).expect(0).json();
            assert_eq!(told["node"], node, "{told}");
            for at in 0..NODES.len() {
                assert_eq!(told["nodes"][at]["reached"], "active", "{told}");
            }
        }
    });
    println!("{writes} writes while the keys of three nodes were replaced");
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    for (node, old) in NODES.into_iter().zip(old) {
        assert_ne!(read(node, "node_key.pub"), old);
        for gone in ["node_key.new", "node_key.new.pub"] {
            assert!(!there(node, gone).exists(), "{node} {gone}");
        }
        let here = cluster.path("keys/nodes").join(node);
        let mut names: Vec<_> = fs::read_dir(here).expect("it is there").flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        let names: Vec<_> = names.iter().map(fs::DirEntry::file_name).collect();
        assert_eq!(names, ["host-cert.pub", "node_key.pub", "peer-cert.pub"], "no private half");
        let copy = cluster.path(&format!("{node}-cert.pub")).display().to_string();
        let why = cluster.keys(&["diagnose", &copy]).expect(3).out();
        assert!(why.contains("revoked"), "{why}");
    }
    let last = cluster.ssh("node3", "paxos get /writes").expect(0).out();
    assert_eq!(last, format!("{writes}\n"), "the last write is there");
    cluster.ctl(&["plan"]).expect(0);
    // The key that it has now is the one that it starts with.
    cluster.kill("node1");
    cluster.deploy().expect(0);
    cluster.wait_healthy();
}

#[test]
fn a_node_that_is_down_or_revoked_comes_back_with_another_key() {
    let cluster = Cluster::found();
    cluster.kill("node3");
    let told = cluster.keys(&["rotate", "--node", "node3", "-o", "json"]).expect(0).json();
    assert_eq!(told["nodes"][2]["reached"], "at_its_start", "{told}");
    cluster.deploy().expect(0);
    cluster.wait_healthy();
    let serial = |node: &str| {
        let status = cluster.status(node).expect("it answers");
        status["certificates"]["peer"]["serial"].clone()
    };
    let before = serial("node2");
    cluster.keys(&["revoke", "node2"]).expect(0);
    let plan = cluster.ctl(&["plan"]).said();
    assert!(plan.contains("keys rotate --node node2"), "{plan}");
    cluster.keys(&["rotate", "--node", "node2"]).expect(0);
    cluster.wait_healthy();
    assert_ne!(serial("node2"), before);
    cluster.ctl(&["plan"]).expect(0);
}

#[test]
fn what_is_to_be_rotated_must_be_said() {
    let cluster = Cluster::found();
    let flags = ["--authority", "--node", "--hosts", "--peers", "--operators"];
    let nothing = cluster.keys(&["rotate"]).expect(64).said();
    assert!(flags.iter().all(|flag| nothing.contains(flag)), "{nothing}");
    cluster.keys(&["rotate", "--hosts", "--peers"]).expect(64);
    cluster.keys(&["rotate", "--hosts", "--until", "learned"]).expect(64);
    cluster.keys(&["rotate", "--node", "nobody"]).expect(3);
    cluster.keys(&["issue", "alice", "--role", "read"]).expect(0);
    let serials = || {
        let listed = cluster.keys(&["list", "-o", "json"]).expect(0).json();
        let all = listed["issued"].as_array().expect("a list").clone();
        ["host", "peer", "operator"]
            .map(|role| all.iter().filter(|one| one["role"] == role).count())
    };
    assert_eq!(serials(), [3, 3, 2]);
    let before = pids(&cluster);
    for (flag, want) in [("--hosts", [6, 3, 2]), ("--peers", [6, 6, 2]), ("--operators", [6, 6, 4])]
    {
        let told = cluster.keys(&["rotate", flag, "-o", "json"]).expect(0).json();
        assert_eq!((serials(), &told["nodes"][0]["reached"]), (want, &"active".into()), "{told}");
    }
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    login_with(&cluster, "people/operator", "people/alice").expect(0);
    let epoch = cluster.status("node1").expect("it answers")["bundle"]["epoch"].clone();
    assert_eq!(epoch, 1, "the authorities are the same");
    rotate(&cluster, "host", &["--until", "learned"]).expect(0);
    let busy = cluster.keys(&["rotate", "--node", "node1"]).expect(78).said();
    assert!(busy.contains("keys resume"), "{busy}");
    cluster.keys(&["resume"]).expect(0);
    cluster.ctl(&["plan"]).expect(0);
}

/// Has every node refuse the next so many peer certificates that will be issued.
fn refuse_ahead(cluster: &Cluster, count: u64) {
    let keys = cluster.path("keys");
    let root = load_private_key(&keys.join("root")).expect("it is there");
    let text = |name: &str| fs::read_to_string(keys.join(name)).expect("it is there");
    let bundle = Bundle::verify(&text("bundle"), root.public_key());
    let mut bundle = bundle.expect("it is the cluster's");
    let next: u64 = text("serial").trim().parse().expect("a number");
    let refused = (next..next + count).map(|at| Revocation::Serial(AuthorityRole::Peer, at));
    bundle.revocations.extend(refused);
    bundle.epoch += 1;
    fs::write(keys.join("bundle"), bundle.sign(&root).expect("a bundle")).expect("it is writable");
    cluster.keys(&["resume"]).expect(0);
}

#[test]
fn what_no_peer_would_let_in_is_noticed_before_there_is_no_way_back() {
    let cluster = Cluster::found();
    refuse_ahead(&cluster, 6);
    let stopped = rotate(&cluster, "peer", &[]).expect(1).json();
    let message = stopped["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("does not let") && message.contains("nothing was forgotten"));
    assert_eq!(stages(&cluster), [1, 0, 1], "the way back is open");
    cluster.ssh("node2", "paxos put k v").expect(0);
    // Those that are signed after the refused ones are let in.
    let told = cluster.keys(&["resume", "-o", "json"]).expect(0).json();
    assert_eq!(told["stage"], "settled");
    refuse_ahead(&cluster, 2);
    let key = cluster.directory("node2").join("keys/node_key");
    let before = fs::read(&key).expect("it is there");
    let stopped = cluster.keys(&["rotate", "--node", "node2"]).expect(1).said();
    assert!(stopped.contains("its key before is not revoked"), "{stopped}");
    assert_eq!(fs::read(&key).expect("it is there"), before, "nor gone");
    cluster.keys(&["resume"]).expect(0);
    assert_ne!(fs::read(&key).expect("it is there"), before);
    cluster.wait_healthy();
    cluster.ctl(&["plan"]).expect(0);
}

#[test]
fn the_root_key_is_replaced_and_the_one_before_signs_nothing_any_more() {
    let cluster = Cluster::found();
    let before = pids(&cluster);
    let keys = cluster.path("keys");
    let read = |name: &str| fs::read_to_string(keys.join(name)).expect("it is there");
    let old = read("root.pub");
    for until in ["learned", "switched"] {
        rotate(&cluster, "root", &["--until", until]).expect(0);
        let back = cluster.keys(&["rollback", "-o", "json"]).expect(0).json();
        assert_eq!((&back["stage"], read("root.pub") == old), (&"settled".into(), true));
    }
    // What an old copy of the keys has.
    let (old_root, old_bundle) = (load_private_key(&keys.join("root")), read("bundle"));
    let old_root = old_root.expect("it is there");
    let old_copy = cluster.path("keys-old");
    run(Command::new("cp").arg("-a").arg(&keys).arg(&old_copy), b"").expect(0);
    cluster.kill("node3");
    let told = rotate(&cluster, "root", &[]).expect(0).json();
    assert_eq!((&told["stage"], &told["authority"]), (&"settled".into(), &"root".into()));
    assert_eq!(told["nodes"][2]["reached"], "at_its_start", "{told}");
    assert_ne!(read("root.pub"), old);
    for gone in ["root.new", "root.new.pub"] {
        assert!(!keys.join(gone).exists(), "{gone}");
    }
    cluster.deploy().expect(0);
    cluster.wait_healthy();
    assert_eq!(pids(&cluster)[..2], before[..2], "nobody was restarted");
    cluster.ctl(&["plan"]).expect(0);
    // An old copy of the keys is told by its root key, before it signs or lays anything.
    let with_old_copy = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-ctl"));
        command.env("XDG_STATE_HOME", cluster.path("state")).args(words);
        command.arg("-i").arg(cluster.path("inventory.yaml")).arg("--keys-dir").arg(&old_copy);
        run(&mut command, b"").expect(78).said()
    };
    let there = || fs::read(cluster.directory("node2").join("keys/bundle")).expect("it is there");
    let before_it = (there(), fs::read(old_copy.join("bundle")).expect("it is there"));
    for words in [&["keys", "revoke", "operator"][..], &["deploy", "--yes"]] {
        let refused = with_old_copy(words);
        assert!(refused.contains("never heard of"), "{words:?}: {refused}");
    }
    let after_it = (there(), fs::read(old_copy.join("bundle")).expect("it is there"));
    assert_eq!(after_it, before_it);
    // The new one signs.
    cluster.keys(&["issue", "alice", "--role", "write"]).expect(0);
    cluster.keys(&["revoke", "alice"]).expect(0);
    login_with(&cluster, "people/operator", "people/alice").expect(255);
    // Whoever has the old one lays a bundle there that would take that back.
    let mut forged = Bundle::verify(&old_bundle, old_root.public_key()).expect("it was believed");
    forged.epoch += 100;
    let there = cluster.directory("node1").join("keys");
    fs::write(there.join("root.pub"), &old).expect("it is writable");
    let forged = forged.sign(&old_root).expect("a bundle");
    fs::write(there.join("bundle"), forged).expect("it is writable");
    let epoch = read("bundle").lines().find_map(|line| {
        line.strip_prefix("epoch ").map(|epoch| epoch.parse::<u64>().expect("a number"))
    });
    let goes_by = || {
        let status = until("node1 answers", || cluster.status("node1"));
        let problem = status["bundle"]["problem"].as_str().unwrap_or_default().to_owned();
        (status["bundle"]["epoch"].as_u64(), problem)
    };
    cluster.kill("node1");
    cluster.start("node1");
    let (active, problem) = goes_by();
    assert_eq!(active, epoch);
    assert!(problem.contains("a root key that was replaced"), "{problem}");
    cluster.keys(&["resume"]).expect(0);
    assert_eq!(goes_by(), (epoch, String::new()));
}

#[test]
fn a_node_whose_host_takes_no_files_hears_of_a_revocation_through_the_log() {
    let cluster = Cluster::found();
    cluster.keys(&["issue", "alice", "--role", "write"]).expect(0);
    let config = fs::read_to_string(cluster.ssh_config()).expect("it was written");
    let people = |name: &str| cluster.path("keys/people").join(name).display().to_string();
    let alices = cluster.path("ssh_config.alice");
    fs::write(&alices, config.replace(&people("operator"), &people("alice"))).expect("writable");
    let alice = || run(cluster.ssh_with(&alices).args(["node3", "paxos", "health"]), b"");
    alice().expect(0);
    let bundle = cluster.directory("node3").join("keys/bundle");
    let aside = bundle.with_extension("aside");
    fs::rename(&bundle, &aside).expect("it is there");
    fs::create_dir_all(bundle.join("in-the-way")).expect("it is writable");
    let told = cluster.keys(&["revoke", "alice"]).expect(1).said();
    assert!(told.contains("node3"), "it is named all the same: {told}");
    let status = until("node3 goes by the bundle of the log", || {
        cluster.status("node3").filter(|status| status["bundle"]["epoch"] == 2)
    });
    assert_eq!(status["bundle"]["in_log"], 2);
    alice().expect(255);
    let shown = cluster.ssh("node3", "paxos trust").expect(0).out();
    assert_eq!(shown, fs::read_to_string(cluster.path("keys/bundle")).expect("it is there"));
    fs::remove_dir_all(&bundle).expect("it is ours");
    fs::rename(&aside, &bundle).expect("it is there");
    // What lies there is older than what it goes by, and it remembers.
    cluster.kill("node3");
    cluster.start("node3");
    let status = until("node3 answers", || cluster.status("node3"));
    assert_eq!(status["bundle"]["epoch"], 2);
    alice().expect(255);
    cluster.keys(&["resume"]).expect(0);
    cluster.wait_healthy();
}
