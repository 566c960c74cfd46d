//! `paxos-ctl verify` against real processes: green on clusters that are well, of several mixes of
//! roles, and red when a node is killed or frozen or the key that asks has too few rights, with the
//! node in its evidence.
//!
//! What no real node can be made to do from outside is in `tests/verdicts.rs`. One test runs at a
//! time, for elections take longer on a machine that does other things as well.

#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;

use harness::{ALL_ROLES, Cluster, Quorums, Ran};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

const CHECKS: [&str; 8] = [
    "proposer-reachable",
    "client-request",
    "no-leader",
    "election",
    "proposer-acceptor",
    "leader-knows",
    "acceptor-receives",
    "acceptor-learner",
];

/// Each role on nodes of its own.
const APART: [(&str, &str); 9] = [
    ("p1", "proposer"),
    ("p2", "proposer"),
    ("p3", "proposer"),
    ("a1", "acceptor"),
    ("a2", "acceptor"),
    ("a3", "acceptor"),
    ("l1", "learner"),
    ("l2", "learner"),
    ("c1", ""),
];

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|failed_before| failed_before.into_inner())
}

/// The checks that failed and what speaks against the cluster, after the exit status was seen to go
/// with them.
#[track_caller]
fn failed(ran: &Ran) -> Vec<(String, Vec<String>)> {
    let verdicts = ran.json();
    let verdicts = verdicts.as_array().unwrap_or_else(|| panic!("no array: {}", ran.said()));
    let names: Vec<&str> = verdicts.iter().filter_map(|v| v["check"].as_str()).collect();
    assert_eq!(names, CHECKS);
    let wrong = |verdict: &Value| -> Vec<String> {
        let lines = verdict["evidence"].as_array().expect("evidence");
        assert!(!lines.is_empty(), "{verdict}");
        let lines = lines.iter().filter_map(Value::as_str);
        lines.filter(|line| line.starts_with("wrong: ")).map(str::to_owned).collect()
    };
    let failed: Vec<(String, Vec<String>)> = verdicts
        .iter()
        .filter(|verdict| verdict["pass"] == false)
        .map(|verdict| (verdict["check"].to_string().replace('"', ""), wrong(verdict)))
        .collect();
    assert_eq!(ran.exit(), i32::from(!failed.is_empty()), "{}", ran.said());
    failed
}

#[track_caller]
fn demand_green(cluster: &Cluster) {
    let ran = cluster.ctl(&["verify", "-o", "json"]);
    let failed = failed(&ran);
    assert!(failed.is_empty(), "{failed:#?}\n{}", ran.said());
}

/// Exactly these checks fail, and each names the node in every line that speaks against it.
#[track_caller]
fn demand_red(ran: &Ran, node: &str, checks: &[&str]) {
    let failed = failed(ran);
    let names: Vec<&str> = failed.iter().map(|(check, _)| check.as_str()).collect();
    assert_eq!(names, checks, "{}", ran.said());
    for (check, lines) in &failed {
        let all = !lines.is_empty() && lines.iter().all(|line| line.contains(node));
        assert!(all, "{check}: {node} is not in {lines:#?}");
    }
}

fn skipped(ran: &Ran) -> Vec<String> {
    let verdicts = ran.json();
    let verdicts = verdicts.as_array().into_iter().flatten();
    let skipped = verdicts.filter(|verdict| verdict["skipped"] == true);
    skipped.map(|verdict| verdict["check"].to_string().replace('"', "")).collect()
}

/// The ballot under which the leader leads.
fn ballot(cluster: &Cluster) -> u64 {
    let status = cluster.status(cluster.leader()).expect("the leader answers");
    let number = status["ballot"]["number"].as_str().expect("text");
    number.parse().expect("a number")
}

/// A proposer that does not lead.
fn follower(cluster: &Cluster) -> &'static str {
    let leader = cluster.leader();
    ["p1", "p2", "p3"].into_iter().find(|name| *name != leader).expect("three proposers")
}

/// `paxos-ctl` with other keys than the operator's.
#[track_caller]
fn ctl_with(cluster: &Cluster, keys: &Path, words: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-ctl"));
    command.args(words).env_remove("PAXOS_INVENTORY").env_remove("PAXOS_KEYS_DIR");
    command.arg("-i").arg(cluster.path("inventory.yaml")).arg("--keys-dir").arg(keys);
    harness::run(&mut command, b"")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => _ = fs::copy(&path, &to).expect("a file can be copied"),
        }
    }
}

#[test]
fn separate_roles_pass_and_nodes_that_misbehave_are_named() {
    let _turn = turn();
    let cluster = Cluster::found_with(&APART, Quorums::Majority);
    let before = ballot(&cluster);
    demand_green(&cluster);
    // After two hand-overs the first leader may lead again.
    assert!(ballot(&cluster) > before, "it resigned");
    let left = cluster.ssh("l1", "paxos list _verify/ --keys-only").expect(0);
    assert_eq!(left.out(), "", "what was written is deleted");

    let led = cluster.leader();
    let passive = cluster.ctl(&["verify", "--passive", "-o", "json"]);
    assert_eq!(failed(&passive), [], "{}", passive.said());
    assert_eq!(skipped(&passive), ["no-leader", "election"]);
    assert_eq!(cluster.leader(), led, "nobody resigned");
    let table = cluster.ctl(&["verify", "--passive"]).expect(0).out();
    assert!(table.starts_with("CHECK") && table.contains("6 passed, 0 failed, 2 skipped"));

    let frozen = follower(&cluster);
    cluster.signal(frozen, Signal::STOP);
    let ran = cluster.ctl(&["verify", "--passive", "-o", "json"]);
    cluster.signal(frozen, Signal::CONT);
    demand_red(&ran, frozen, &["proposer-reachable", "client-request"]);
    cluster.wait_healthy();

    cluster.signal("l2", Signal::STOP);
    let ran = cluster.ctl(&["verify", "--passive", "-o", "json"]);
    cluster.signal("l2", Signal::CONT);
    demand_red(&ran, "l2", &["acceptor-learner"]);
    cluster.wait_healthy();

    cluster.kill("a3");
    let ran = cluster.ctl(&["verify", "--passive", "-o", "json"]);
    demand_red(&ran, "a3", &["proposer-acceptor", "acceptor-receives"]);
    cluster.deploy().expect(0);
    cluster.wait_healthy();

    let killed = follower(&cluster);
    cluster.kill(killed);
    let ran = cluster.ctl(&["verify", "-o", "json"]);
    let checks = ["proposer-reachable", "client-request", "no-leader", "election"];
    demand_red(&ran, killed, &checks);
    cluster.deploy().expect(0);
    cluster.wait_healthy();
    demand_green(&cluster);
}

#[test]
fn a_key_that_may_not_read_logs_verifies_nothing() {
    let _turn = turn();
    let cluster = Cluster::found();
    let home = cluster.path("keys");
    ctl_with(&cluster, &home, &["keys", "issue", "clerk", "--role", "read,write"]).expect(0);
    let (keys, people) = (cluster.path("clerks-keys"), cluster.path("clerks-keys/people"));
    copy(&home, &keys);
    for suffix in ["", ".pub", "-cert.pub"] {
        let (from, to) = (format!("clerk{suffix}"), format!("operator{suffix}"));
        fs::rename(people.join(from), people.join(to)).expect("the clerk's files");
    }
    let ran = ctl_with(&cluster, &keys, &["verify", "-o", "json"]);
    let failed = failed(&ran);
    let (check, lines) = &failed[0];
    assert_eq!(check, "proposer-reachable", "{}", ran.said());
    for node in harness::NODES {
        let told = lines.iter().any(|line| line.contains(node) && line.contains("(denied)"));
        assert!(told, "{node}: {lines:#?}");
    }
}

/// With quorums of 4 and 2 a leader goes on writing where nobody could be elected in its place.
#[test]
fn no_cluster_is_taken_down_that_could_elect_nobody() {
    let _turn = turn();
    const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
    let quorums = Quorums::Sizes { phase1: 4, phase2: 2 };
    let cluster = Cluster::found_with(&FIVE.map(|node| (node, ALL_ROLES)), quorums);
    let leader = cluster.leader();
    FIVE.into_iter().filter(|node| *node != leader).take(3).for_each(|node| cluster.kill(node));
    harness::until("the leader misses them", || {
        let status = cluster.status(leader)?;
        (status["quorum"]["reachable"] == 2).then_some(())
    });
    let ran = cluster.ctl(&["verify", "-o", "json"]);
    let failed = failed(&ran);
    for check in ["no-leader", "election"] {
        let lines = failed.iter().find(|(name, _)| name == check).map(|(_, lines)| &lines[..]);
        let [line] = lines.unwrap_or_default() else { panic!("{check}: {}", ran.said()) };
        assert!(line.contains(leader) && line.contains("reaches 2 of 5 acceptors"), "{line}");
    }
    assert_eq!(cluster.leader(), leader);
    cluster.ssh(leader, "paxos put still written").expect(0);
}

#[test]
fn any_mix_of_roles_passes() {
    let _turn = turn();
    let one = [("node1", ALL_ROLES)];
    let witness = [("node1", ALL_ROLES), ("node2", ALL_ROLES), ("node3", "acceptor")];
    let alone = [("p1", "proposer"), ("a1", "acceptor"), ("l1", "learner")];
    let three = harness::NODES.map(|node| (node, ALL_ROLES));
    for nodes in [&one[..], &witness, &alone, &three] {
        let cluster = Cluster::found_with(nodes, Quorums::Majority);
        demand_green(&cluster);
    }
}
