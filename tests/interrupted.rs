//! Controllers that are killed in the middle of what they do, and others that go on from another
//! directory: whatever the step, the end is the same.
//!
//! A journal's line is on disk before its step begins, so a kill that follows the line comes at
//! the step's beginning or within it. `KILL_POINTS=all` goes through every line; otherwise every
//! sixth is taken, from another first one each time.

#[allow(dead_code, reason = "tests/roles uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;

use harness::{CLUSTER, Cluster, Guarded, NODES, Ran, run, until};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Of how many lines one is taken, unless all are.
const EVERY: usize = 6;

/// No run here has more steps.
const STEPS_MAX: usize = 40;

/// What a build says of itself, here and in the second version.
const MARKS: [&str; 2] = [
    concat!("version=", env!("CARGO_PKG_VERSION"), " cluster-versions=1-1;"),
    "version=0.9.9 cluster-versions=1-2;",
];

fn write_inventory(cluster: &Cluster) {
    let ports: Vec<u16> = NODES.iter().map(|_| harness::free_port()).collect();
    let nodes = NODES.map(|node| (node, harness::ALL_ROLES));
    let text = harness::inventory(&nodes, &ports, harness::Quorums::Majority);
    fs::write(cluster.path("inventory.yaml"), text).unwrap();
}

/// The lines of this kind in the journal of the run that began last.
fn lines(keys: &Path, kind: &str) -> usize {
    let runs = fs::read_dir(keys.join("runs")).into_iter().flatten().flatten();
    let Some(last) = runs.map(|run| run.path()).max() else { return 0 };
    let text = fs::read_to_string(last).unwrap_or_default();
    text.lines().filter(|line| line.contains(&format!("\"event\":\"{kind}\""))).count()
}

fn runs(keys: &Path) -> usize {
    fs::read_dir(keys.join("runs")).into_iter().flatten().count()
}

/// Runs `paxos-ctl WORDS` and kills it when its journal has so many steps. Says whether it came to
/// that: a run may end before.
fn kill_at(cluster: &Cluster, keys: &Path, words: &[&str], step: usize) -> bool {
    let before = runs(keys);
    let mut command = ctl(cluster, keys, words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Guarded(command.spawn().expect("the program is built"));
    until("the controller comes to its step, or its end", || {
        if runs(keys) > before && lines(keys, "step") >= step {
            child.0.kill().expect("it is our child");
            let killed = child.0.wait().expect("it is our child").code().is_none();
            // The kill may have come after the last of its work.
            return Some(killed && lines(keys, "end") == 0);
        }
        child.0.try_wait().expect("it is our child").map(|_| false)
    })
}

/// `paxos-ctl -i INVENTORY --keys-dir KEYS WORDS…`.
fn ctl(cluster: &Cluster, keys: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-ctl"));
    command.env_remove("PAXOS_INVENTORY").env_remove("PAXOS_KEYS_DIR");
    command.env("XDG_STATE_HOME", cluster.path("state"));
    command.arg("-i").arg(cluster.path("inventory.yaml"));
    command.arg("--keys-dir").arg(keys).args(words);
    command
}

#[track_caller]
fn ctl_now(cluster: &Cluster, keys: &Path, words: &[&str]) -> Ran {
    run(&mut ctl(cluster, keys, words), b"")
}

/// Another controller's copy of the keys; the first is gone.
fn elsewhere(cluster: &Cluster, keys: &Path, turn: usize) -> PathBuf {
    let other = cluster.path(&format!("keys-{turn}"));
    let mut copy = Command::new("cp");
    run(copy.arg("-a").arg(keys).arg(&other), b"").expect(0);
    fs::remove_dir_all(keys).unwrap();
    other
}

/// Everything is as it should be, and no change is wanted.
#[track_caller]
fn is_settled(cluster: &Cluster, keys: &Path, version: &str) {
    let plan = ctl_now(cluster, keys, &["plan"]);
    assert_eq!(plan.exit(), 0, "{}", plan.said());
    until("all of it is healthy", || {
        (ctl_now(cluster, keys, &["status"]).exit() == 0).then_some(())
    });
    log_in_with(cluster, keys);
    for node in NODES {
        let status = cluster.status(node).expect("it answers");
        assert_eq!((&status["version"], &status["cluster"]), (&version.into(), &CLUSTER.into()));
        assert_eq!(status["chosen_slot"].as_u64().map(|slot| slot > 0), Some(true));
    }
}

/// From now on `ssh` goes by these keys.
fn log_in_with(cluster: &Cluster, keys: &Path) {
    let config = ctl_now(cluster, keys, &["ssh-config"]).expect(0);
    fs::write(cluster.ssh_config(), &config.stdout).unwrap();
}

/// The steps to be killed at: all, or some.
fn points(first: usize) -> impl Iterator<Item = usize> {
    let every = match std::env::var("KILL_POINTS") {
        Ok(all) if all == "all" => 1,
        _ => EVERY,
    };
    let first = if every == 1 { 1 } else { 1 + first % EVERY };
    (first..STEPS_MAX).step_by(every)
}

/// A different number in each run of the tests.
fn whichever() -> usize {
    std::process::id() as usize
}

#[test]
fn a_deployment_that_was_killed_is_resumed_by_another_controller() {
    let mut killed = 0;
    for step in points(whichever()) {
        let cluster = Cluster::planned(NODES.to_vec());
        write_inventory(&cluster);
        let keys = cluster.path("keys");
        if !kill_at(&cluster, &keys, &["deploy", "--yes"], step) {
            assert!(killed > 0, "it ended before its step {step}");
            break;
        }
        killed += 1;
        let keys = elsewhere(&cluster, &keys, step);
        let resumed = ctl_now(&cluster, &keys, &["resume", "--yes"]);
        assert_eq!(resumed.exit(), 0, "killed at step {step}: {}", resumed.said());
        is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
        cluster.ssh("node1", "paxos put k v").expect(0);
        assert_eq!(cluster.ssh("node3", "paxos get k").expect(0).out(), "v\n");
    }
    println!("a deployment was killed at {killed} of its steps");
}

/// The program as its next version, which knows one cluster version more.
fn second_version(cluster: &Cluster) -> PathBuf {
    let mut program = fs::read(env!("CARGO_BIN_EXE_paxos-ctl")).unwrap();
    let [ours, theirs] = MARKS.map(str::as_bytes);
    assert_eq!(ours.len(), theirs.len(), "one takes the other's place");
    let mut places: Vec<usize> = program
        .windows(ours.len())
        .enumerate()
        .filter(|(_, window)| *window == ours)
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places.len(), 1, "the program says once what it is");
    let place = places.remove(0);
    program[place..place + theirs.len()].copy_from_slice(theirs);
    let path = cluster.path("second");
    fs::write(&path, program).unwrap();
    path
}

#[test]
fn an_upgrade_that_was_killed_is_resumed_and_taken_back() {
    let cluster = Cluster::found();
    let mut keys = cluster.path("keys");
    let second = second_version(&cluster);
    let binary = second.to_str().unwrap();
    let mut killed = 0;
    for step in points(whichever()) {
        if !kill_at(&cluster, &keys, &["upgrade", "--binary", binary, "--yes"], step) {
            break;
        }
        killed += 1;
        keys = elsewhere(&cluster, &keys, step);
        let resumed = ctl_now(&cluster, &keys, &["resume", "--yes"]);
        assert_eq!(resumed.exit(), 0, "killed at step {step}: {}", resumed.said());
        is_settled(&cluster, &keys, "0.9.9");
        ctl_now(&cluster, &keys, &["rollback", "--yes"]).expect(0);
        is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
    }
    assert!(killed > 0, "an upgrade has more steps");
    println!("an upgrade was killed at {killed} of its steps");
}

#[test]
fn a_rollback_that_is_given_again_is_finished_and_never_goes_forward() {
    let cluster = Cluster::found();
    let keys = cluster.path("keys");
    let second = second_version(&cluster);
    let upgrade = ["upgrade", "--binary", second.to_str().unwrap(), "--yes"];
    ctl_now(&cluster, &keys, &upgrade).expect(0);
    assert!(kill_at(&cluster, &keys, &["rollback", "--yes"], 3), "a rollback has more steps");
    for _twice in 0..2 {
        ctl_now(&cluster, &keys, &["rollback", "--yes"]).expect(0);
        is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
    }
    // The next upgrade has a way back of its own, also before it is done.
    assert!(kill_at(&cluster, &keys, &upgrade, 3), "an upgrade has more steps");
    ctl_now(&cluster, &keys, &["rollback", "--yes"]).expect(0);
    is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_restart_that_was_killed_is_resumed_where_it_was() {
    let cluster = Cluster::found();
    let keys = cluster.path("keys");
    let pids = || NODES.map(|node| cluster.pid(node));
    let before = pids();
    assert!(kill_at(&cluster, &keys, &["restart"], 3), "there are three nodes");
    // The third may have been stopped, and started.
    let then = pids();
    assert!(lines(&keys, "done") == 2);
    ctl_now(&cluster, &keys, &["resume", "--yes"]).expect(0);
    is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
    let after = pids();
    let stayed = (0..NODES.len()).filter(|node| after[*node] == then[*node]);
    assert_eq!(stayed.count(), 2, "{before:?} {then:?} {after:?}");
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(before, after);
    }
    // Killed after the last of its work, it has nothing left to do.
    let mut runs: Vec<PathBuf> =
        fs::read_dir(keys.join("runs")).unwrap().map(|run| run.unwrap().path()).collect();
    runs.sort();
    let last = runs.pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let end = text.lines().position(|line| line.contains("\"event\":\"end\"")).unwrap();
    let kept: Vec<&str> = text.lines().take(end).collect();
    fs::write(&last, format!("{}\n", kept.join("\n"))).unwrap();
    ctl_now(&cluster, &keys, &["resume", "--yes"]).expect(0);
    assert_eq!(pids(), after);
}

#[test]
fn a_rotation_that_was_killed_is_resumed_and_ends_with_one_authority() {
    rotations_are_resumed("peer", "peer-authority");
}

#[test]
fn a_rotation_of_the_root_key_that_was_killed_is_resumed_and_ends_with_one_key() {
    rotations_are_resumed("root", "root");
}

/// `file` is the name of the key's files.
fn rotations_are_resumed(role: &str, file: &str) {
    let cluster = Cluster::found();
    let mut keys = cluster.path("keys");
    let mut killed = 0;
    let authority = |keys: &Path| fs::read(keys.join(format!("{file}.pub"))).unwrap();
    for step in points(whichever()) {
        let before = authority(&keys);
        if !kill_at(&cluster, &keys, &["keys", "rotate", "--authority", role], step) {
            break;
        }
        killed += 1;
        keys = elsewhere(&cluster, &keys, step);
        let resumed = ctl_now(&cluster, &keys, &["resume", "--yes"]);
        assert_eq!(resumed.exit(), 0, "killed at step {step}: {}", resumed.said());
        is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
        assert_ne!(authority(&keys), before, "killed at step {step}");
        let bundle = fs::read_to_string(keys.join("bundle")).unwrap();
        let named = bundle.matches(&format!("authority {role} ")).count();
        assert_eq!(named, 1, "killed at step {step}");
        assert!(!keys.join(format!("{file}.new")).exists(), "killed at step {step}");
        let nothing = ctl_now(&cluster, &keys, &["keys", "rollback"]);
        assert_eq!(nothing.exit(), 3, "{}", nothing.said());
    }
    assert!(killed > 0, "a rotation has more steps");
    println!("a rotation of {role} was killed at {killed} of its steps");
}

#[test]
fn a_recovery_that_was_killed_is_resumed_from_the_same_log() {
    let words = ["recover", "--lost", "node2,node3", "--from", "node1", "--confirm", CLUSTER];
    let mut killed = 0;
    for step in points(whichever()) {
        let cluster = Cluster::found();
        cluster.ssh("node2", "paxos put k before").expect(0);
        for node in ["node2", "node3"] {
            cluster.kill(node);
            fs::remove_dir_all(cluster.directory(node)).unwrap();
        }
        let keys = cluster.path("keys");
        if !kill_at(&cluster, &keys, &words, step) {
            assert!(killed > 0, "it ended before its step {step}");
            break;
        }
        killed += 1;
        let keys = elsewhere(&cluster, &keys, step);
        let resumed = ctl_now(&cluster, &keys, &["resume", "--yes"]);
        assert_eq!(resumed.exit(), 0, "killed at step {step}: {}", resumed.said());
        log_in_with(&cluster, &keys);
        assert_eq!(cluster.ssh("node1", "paxos get k").expect(0).out(), "before\n");
        cluster.ssh("node1", "paxos put k after").expect(0);
        let status = cluster.status("node1").expect("it answers");
        assert_eq!(status["members"].as_array().map(Vec::len), Some(1), "{status}");
        let over = ctl_now(&cluster, &keys, &words).expect(78);
        assert!(over.said().contains("nothing to recover from"), "{}", over.said());
    }
    println!("a recovery was killed at {killed} of its steps");
}

#[test]
fn a_node_whose_key_was_being_replaced_ends_with_one() {
    let cluster = Cluster::found();
    let mut keys = cluster.path("keys");
    let mut killed = 0;
    let there = |name: &str| cluster.directory("node2").join("keys").join(name);
    for step in points(whichever()) {
        let before = fs::read(there("node_key.pub")).unwrap();
        if !kill_at(&cluster, &keys, &["keys", "rotate", "--node", "node2"], step) {
            break;
        }
        killed += 1;
        // It may be started at any of these moments.
        cluster.kill("node2");
        cluster.start("node2");
        keys = elsewhere(&cluster, &keys, step);
        let resumed = ctl_now(&cluster, &keys, &["resume", "--yes"]);
        assert_eq!(resumed.exit(), 0, "killed at step {step}: {}", resumed.said());
        is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
        assert_ne!(fs::read(there("node_key.pub")).unwrap(), before, "killed at step {step}");
        assert!(!there("node_key.new").exists(), "killed at step {step}");
        assert!(!keys.join("nodes/node2/replaced.pub").exists(), "killed at step {step}");
    }
    assert!(killed > 0, "it has more steps");
    println!("a node's key was being replaced and the controller killed at {killed} of its steps");
}

#[test]
fn the_way_back_is_open_until_the_version_is_raised() {
    let cluster = Cluster::found();
    let keys = cluster.path("keys");
    let second = second_version(&cluster);
    let raise = ["upgrade", "--raise", "--yes"];
    let early = ctl_now(&cluster, &keys, &raise).expect(78);
    assert!(early.said().contains("does not know it"), "{}", early.said());
    let nothing = ctl_now(&cluster, &keys, &["rollback", "--yes"]).expect(3);
    assert!(nothing.said().contains("nothing is known of a program"), "{}", nothing.said());
    let no_program = ctl_now(&cluster, &keys, &["upgrade", "--binary", "/bin/true", "--yes"]);
    assert!(no_program.expect(78).said().contains("does not say that it is a paxos program"));
    cluster.ssh("node2", "paxos put k before").expect(0);
    let upgrade = ["upgrade", "--binary", second.to_str().unwrap(), "--yes"];
    ctl_now(&cluster, &keys, &upgrade).expect(0);
    ctl_now(&cluster, &keys, &raise).expect(0);
    for node in NODES {
        until("the version is raised", || {
            cluster.status(node).filter(|status| status["cluster_version"] == 2)
        });
    }
    let closed = ctl_now(&cluster, &keys, &["rollback", "--yes"]).expect(78);
    assert!(closed.said().contains("the way back is closed"), "{}", closed.said());
    assert_eq!(cluster.ssh("node1", "paxos get k").expect(0).out(), "before\n");
    // Whoever starts the old program by hand is told.
    ctl_now(&cluster, &keys, &["stop", "node3"]).expect(0);
    let mut old = Command::new(env!("CARGO_BIN_EXE_paxos"));
    old.arg("node").arg("--config").arg(cluster.directory("node3").join("config.yaml"));
    let refused = run(&mut old, b"").expect(78);
    assert!(refused.said().contains("the cluster is at version 2"), "{}", refused.said());
    ctl_now(&cluster, &keys, &["deploy", "--yes"]).expect(0);
    is_settled(&cluster, &keys, "0.9.9");
}

/// Of the bundle that node2 goes by.
fn epoch(cluster: &Cluster) -> Option<u64> {
    cluster.status("node2").expect("it answers")["bundle"]["epoch"].as_u64()
}

/// The run that holds a lock.
fn held_by(lock: &Path) -> Value {
    let content: Value = serde_json::from_slice(&fs::read(lock).unwrap()).unwrap();
    content["run"].clone()
}

#[test]
fn two_controllers_at_once_do_not_meet() {
    let cluster = Cluster::found();
    let keys = cluster.path("keys");
    let lock = cluster.directory("node2").join("controller.lock");
    let line = "{\"who\":\"bob@elsewhere: upgrade\",\"run\":\"0\",\"token\":1}\n";
    fs::write(&lock, line).unwrap();
    let before = NODES.map(|node| cluster.pid(node));
    let busy = ctl_now(&cluster, &keys, &["restart"]).expect(75);
    assert!(busy.said().contains("bob@elsewhere: upgrade"), "{}", busy.said());
    let ctl_keys: [&[&str]; 3] = [&["revoke", "alice"], &["renew", "node1"], &["resume"]];
    cluster.keys(&["issue", "alice", "--role", "read"]).expect(0);
    for words in ctl_keys {
        let busy = ctl_now(&cluster, &keys, &[&["keys"], words].concat()).expect(75);
        assert!(busy.said().contains("bob@elsewhere: upgrade"), "{words:?}: {}", busy.said());
        let may_take_over = busy.said().contains("--take-over");
        assert_eq!(may_take_over, words[0] != "renew", "{words:?}: {}", busy.said());
    }
    let busy = ctl_now(&cluster, &keys, &["stop", "node1"]).expect(75);
    assert!(busy.said().contains("bob@elsewhere: upgrade"), "{}", busy.said());
    assert_eq!(NODES.map(|node| cluster.pid(node)), before, "nobody was touched");
    assert_eq!(epoch(&cluster), Some(1), "nothing was signed");
    ctl_now(&cluster, &keys, &["keys", "revoke", "nobody", "--take-over"]).expect(3);
    assert_eq!(fs::read_to_string(&lock).unwrap(), line, "not for a name that was mistyped");
    // Whoever hangs with the hosts keeps nobody from revoking a key, nor from the last resort.
    ctl_now(&cluster, &keys, &["keys", "revoke", "alice", "--take-over"]).expect(0);
    assert_eq!(epoch(&cluster), Some(2));
    // Nobody has it, and whom it was taken from can tell that it was.
    assert_eq!(held_by(&lock), Value::Null);
    assert!(fs::read_to_string(&lock).unwrap().contains("keys revoke"));
    fs::write(&lock, line).unwrap();
    ctl_now(&cluster, &keys, &["kill", "node1"]).expect(0);
    assert_eq!(fs::read_to_string(&lock).unwrap(), line, "it asks nobody, and says so to nobody");
    ctl_now(&cluster, &keys, &["deploy", "--yes"]).expect(75);
    ctl_now(&cluster, &keys, &["keys", "resume", "--take-over"]).expect(0);
    ctl_now(&cluster, &keys, &["deploy", "--yes"]).expect(0);
    fs::write(&lock, line).unwrap();
    // Nobody has touched it for longer than any controller is silent.
    let stale = std::time::SystemTime::now() - Duration::from_secs(31);
    fs::File::options().write(true).open(&lock).unwrap().set_modified(stale).unwrap();
    ctl_now(&cluster, &keys, &["restart", "node2"]).expect(0);
    assert_eq!(held_by(&lock), Value::Null, "it was let go of");
    // What was refused for that reason is done when it is resumed.
    cluster.keys(&["issue", "bob", "--role", "read"]).expect(0);
    fs::write(&lock, line).unwrap();
    ctl_now(&cluster, &keys, &["keys", "revoke", "bob"]).expect(75);
    fs::write(&lock, "").unwrap();
    let resumed = ctl_now(&cluster, &keys, &["resume", "--yes"]).expect(0);
    assert!(resumed.said().contains("revoked serial operator"), "{}", resumed.said());
    assert_eq!(epoch(&cluster), Some(3));
}

/// Starts `paxos-ctl WORDS` and sends it a signal when its journal has so many steps.
fn interrupted_at(
    cluster: &Cluster,
    keys: &Path,
    words: &[&str],
    step: usize,
    signal: Signal,
) -> Guarded {
    let before = runs(keys);
    let mut command = ctl(cluster, keys, words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // So that the signal is for it and its children, as at a terminal, and not for the tests.
    let child = Guarded(command.process_group(0).spawn().expect("the program is built"));
    until("the controller comes to its step", || {
        (runs(keys) > before && lines(keys, "step") >= step).then_some(())
    });
    kill_process_group(pid_of(&child), signal).expect("it is at work");
    child
}

fn pid_of(child: &Guarded) -> Pid {
    i32::try_from(child.0.id()).ok().and_then(Pid::from_raw).expect("a pid is a small number")
}

/// Waits for its end, and gives its exit status and what it said on standard error.
fn ended(mut child: Guarded) -> (Option<i32>, String) {
    let status = until("the controller ends", || child.0.try_wait().expect("it is our child"));
    let mut said = String::new();
    let mut stderr = child.0.stderr.take().expect("it was piped");
    stderr.read_to_string(&mut said).expect("a pipe can be read");
    (status.code(), said)
}

/// The last line of the journal of the run that began last.
fn last_line(keys: &Path) -> Value {
    let runs = fs::read_dir(keys.join("runs")).unwrap().map(|run| run.unwrap().path());
    let text = fs::read_to_string(runs.max().unwrap()).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn an_interrupt_ends_a_run_after_the_step_in_hand_and_it_is_resumed() {
    for signal in [Signal::INT, Signal::TERM] {
        let cluster = Cluster::found();
        let keys = cluster.path("keys");
        let before = NODES.map(|node| cluster.pid(node));
        let child = interrupted_at(&cluster, &keys, &["restart"], 1, signal);
        let (exit, said) = ended(child);
        assert_eq!(exit, Some(130), "{said}");
        assert!(said.contains("the step in hand is finished"), "{said}");
        assert!(said.contains("after this step: node") && said.contains(": restart"), "{said}");
        assert!(said.contains("go on with: paxos-ctl resume "), "{said}");
        let restarted = NODES.iter().zip(before);
        let restarted = restarted.filter(|(node, before)| cluster.pid(node) != *before).count();
        assert_eq!(restarted, 1, "the first was restarted, and no other");
        assert_eq!((lines(&keys, "step"), lines(&keys, "done")), (1, 1), "it was finished");
        assert_eq!(last_line(&keys)["interrupted"], true);
        for node in NODES {
            let lock = cluster.directory(node).join("controller.lock");
            assert_eq!(held_by(&lock), Value::Null, "{node} was let go of");
            assert!(leads_a_session(cluster.pid(node).unwrap()), "{node}");
        }
        let audit = ctl_now(&cluster, &keys, &["audit"]).expect(0).out();
        assert!(audit.contains("interrupted"), "{audit}");
        let (_, command) = said.split_once("paxos-ctl resume ").unwrap();
        let (id, file) = command.trim().split_once(" -i ").unwrap();
        assert_eq!(Path::new(file), fs::canonicalize(cluster.path("inventory.yaml")).unwrap());
        ctl_now(&cluster, &keys, &["resume", "--yes", id]).expect(0);
        is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
        let untouched = NODES.iter().zip(before).find(|(node, pid)| cluster.pid(node) == *pid);
        assert!(untouched.is_none(), "resuming restarted all: {untouched:?}");
    }
}

/// Whether a process leads a session: no terminal of the controller's reaches it.
fn leads_a_session(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_ascii_whitespace().nth(3) == Some(&pid.to_string())
}

#[test]
fn an_interrupted_deployment_and_rotation_come_to_the_same_end() {
    let cluster = Cluster::planned(NODES.to_vec());
    write_inventory(&cluster);
    let keys = cluster.path("keys");
    let child = interrupted_at(&cluster, &keys, &["deploy", "--yes"], 5, Signal::INT);
    let (exit, said) = ended(child);
    assert_eq!(exit, Some(130), "{said}");
    assert_eq!(lines(&keys, "step"), lines(&keys, "done"), "each step was finished");
    ctl_now(&cluster, &keys, &["resume", "--yes"]).expect(0);
    is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
    let authority = || fs::read(keys.join("host-authority.pub")).unwrap();
    let before = authority();
    let rotate = ["keys", "rotate", "--authority", "host"];
    let (exit, said) = ended(interrupted_at(&cluster, &keys, &rotate, 3, Signal::INT));
    assert_eq!(exit, Some(130), "{said}");
    ctl_now(&cluster, &keys, &["resume", "--yes"]).expect(0);
    is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
    assert_ne!(authority(), before);
}

#[test]
fn an_interrupt_before_a_run_ends_the_program() {
    let cluster = Cluster::found();
    let keys = cluster.path("keys");
    let before = (runs(&keys), NODES.map(|node| cluster.pid(node)));
    // They keep it waiting for their answers.
    for node in NODES {
        cluster.signal(node, Signal::STOP);
    }
    let mut command = ctl(&cluster, &keys, &["status", "-o", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guarded(command.process_group(0).spawn().expect("the program is built"));
    until("it listens for signals", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        (caught & (1 << (Signal::INT.as_raw() - 1)) != 0).then_some(())
    });
    let mut stdout = child.0.stdout.take().expect("it was piped");
    kill_process_group(pid_of(&child), Signal::INT).expect("it asks nodes that are frozen");
    let (exit, said) = ended(child);
    assert_eq!((exit, said.as_str()), (Some(130), ""));
    let mut answer = String::new();
    stdout.read_to_string(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["error"]["code"], "interrupted");
    for node in NODES {
        cluster.signal(node, Signal::CONT);
    }
    assert_eq!((runs(&keys), NODES.map(|node| cluster.pid(node))), before);
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let cluster = Cluster::found();
    let keys = cluster.path("keys");
    // A node that is frozen does not end for a long time, and its step does not either.
    cluster.signal("node2", Signal::STOP);
    let mut child =
        interrupted_at(&cluster, &keys, &["restart", "node2", "--force"], 1, Signal::INT);
    let begun = Instant::now();
    // Two that come at once are one, to the kernel.
    until("it has heard a second one", || {
        let _ended_already = kill_process_group(pid_of(&child), Signal::INT);
        child.0.try_wait().expect("it is our child")
    });
    let (exit, said) = ended(child);
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert_eq!(exit, Some(130), "{said}");
    assert!(said.contains("ended at once by SIGINT"), "{said}");
    assert_eq!((lines(&keys, "done"), lines(&keys, "end")), (0, 0), "as if it were killed");
    cluster.signal("node2", Signal::CONT);
    ctl_now(&cluster, &keys, &["resume", "--yes"]).expect(0);
    ctl_now(&cluster, &keys, &["deploy", "--yes"]).expect(0);
    is_settled(&cluster, &keys, env!("CARGO_PKG_VERSION"));
}
