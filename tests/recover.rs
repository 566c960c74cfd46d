//! A cluster of real processes of which so many are lost that the others are no quorum, and how it
//! goes on with those.

#[allow(dead_code, reason = "tests/roles uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;

use harness::{ALL_ROLES, CLUSTER, Cluster, Quorums, run, until};
use std::fs;
use std::process::Command;

/// Kills nodes and takes all that they had away; [`comes_back`] brings it back.
fn destroy(cluster: &Cluster, nodes: &[&str]) {
    fs::create_dir_all(cluster.path("away")).unwrap();
    for node in nodes {
        cluster.kill(node);
        fs::rename(cluster.directory(node), cluster.path("away").join(node)).unwrap();
    }
}

fn comes_back(cluster: &Cluster, node: &'static str) {
    // A controller that was at work in between left its lock there.
    let _nothing = fs::remove_dir_all(cluster.directory(node));
    fs::rename(cluster.path("away").join(node), cluster.directory(node)).unwrap();
    cluster.start(node);
}

/// Takes hosts out of the inventory.
fn leave_out(cluster: &Cluster, nodes: &[&str]) {
    let path = cluster.path("inventory.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let stays = |line: &&str| !nodes.iter().any(|node| line.trim_start().starts_with(node));
    fs::write(
        &path,
        text.lines().filter(stays).map(|line| format!("{line}\n")).collect::<String>(),
    )
    .unwrap();
}

#[test]
fn the_survivor_of_three_serves_its_data_again_and_a_lost_one_is_refused() {
    let cluster = Cluster::found();
    for n in 0..20 {
        cluster.ssh("node2", &format!("paxos put /k{n} {n}")).expect(0);
    }
    let present = cluster.ctl(&["recover", "--lost", "node2,node3"]).expect(78);
    assert!(present.said().contains("node2 is not lost"), "{}", present.said());
    let typo = cluster.ctl(&["recover", "--lost", "node9"]).expect(3);
    assert!(typo.said().contains("node9 is no node"), "{}", typo.said());

    destroy(&cluster, &["node3"]);
    let early = cluster.ctl(&["recover", "--lost", "node3"]).expect(78);
    assert!(early.said().contains("nothing to recover from"), "{}", early.said());
    destroy(&cluster, &["node2"]);
    cluster.ssh("node1", "paxos put /late x --timeout 1s").expect(69);
    let pid = cluster.pid("node1");
    let look = cluster.ctl(&["recover", "--lost", "node2,node3"]).expect(2).out();
    assert!(look.contains("the lost were a quorum"), "{look}");
    assert!(look.contains(&format!("--from node1 --lost node2,node3 --confirm {CLUSTER}")));
    assert_eq!(cluster.pid("node1"), pid, "nothing was changed");
    let lost = ["recover", "--lost", "node2,node3"];
    cluster.ctl(&[&lost[..], &["--from", "node1", "--confirm", "other"]].concat()).expect(64);
    cluster.ctl(&[&lost[..], &["--confirm", CLUSTER]].concat()).expect(64);
    let confirmed = [&lost[..], &["--from", "node1", "--confirm", CLUSTER]].concat();
    let mut copy = Command::new("cp");
    run(copy.arg("-a").arg(cluster.path("keys")).arg(cluster.path("old")), b"").expect(0);
    let told = cluster.ctl(&confirmed).expect(0).out();
    assert!(told.contains("goes on from node1, under configuration 2: node1"), "{told}");

    for n in 0..20 {
        let got = cluster.ssh("node1", &format!("paxos get /k{n}")).expect(0).out();
        assert_eq!(got, format!("{n}\n"));
    }
    cluster.ssh("node1", "paxos put /after yes").expect(0);
    let plan = cluster.ctl(&["plan"]).expect(78).out();
    assert!(plan.contains("node2 was given up when the cluster was recovered"), "{plan}");
    assert!(cluster.ctl(&["audit"]).expect(0).out().contains("recover"));
    cluster.ctl(&confirmed).expect(78);
    // Another controller, which knows nothing of it.
    fs::rename(cluster.path("keys"), cluster.path("new")).unwrap();
    fs::rename(cluster.path("old"), cluster.path("keys")).unwrap();
    let plan = cluster.ctl(&["plan"]).expect(78).out();
    assert!(plan.contains("node2: it is in the inventory, and the running cluster"), "{plan}");
    assert!(plan.contains("use the newest copy of the keys directory"), "{plan}");
    let refused = cluster.ctl(&confirmed).expect(78);
    assert!(refused.said().contains("old copy"), "{}", refused.said());
    fs::rename(cluster.path("keys"), cluster.path("old")).unwrap();
    fs::rename(cluster.path("new"), cluster.path("keys")).unwrap();

    comes_back(&cluster, "node2");
    until("the survivor refuses it", || {
        let log = fs::read_to_string(cluster.directory("node1").join("paxos.log")).unwrap();
        log.lines().any(|line| line.contains("revoked")).then_some(())
    });
    // Whoever has the new known_hosts does not take its word.
    let stranger = cluster.ssh("node2", "paxos get /after").expect(255);
    assert!(stranger.said().contains("REVOKED"), "{}", stranger.said());
    let status = cluster.status("node1").expect("it answers");
    assert_eq!((&status["health"], &status["leader"]), (&"healthy".into(), &"node1".into()));
    let members = status["members"].as_array().unwrap();
    assert_eq!(members.len(), 1, "{status}");
    cluster.ctl(&["deploy", "--yes"]).expect(78);
    cluster.ssh("node1", "paxos put /after again").expect(0);

    cluster.kill("node2");
    leave_out(&cluster, &["node2", "node3"]);
    cluster.ctl(&["plan"]).expect(0);
    cluster.ctl(&["restart", "--force"]).expect(0);
    assert_eq!(cluster.ssh("node1", "paxos get /after").expect(0).out(), "again\n");
}

#[test]
fn two_of_five_go_on_from_the_one_that_holds_more() {
    let names = ["node1", "node2", "node3", "node4", "node5"];
    let cluster = Cluster::found_with(&names.map(|node| (node, ALL_ROLES)), Quorums::Majority);
    cluster.kill("node2");
    until("the others go on", || {
        let put = cluster.ssh("node1", "paxos put /first 1");
        (put.exit() == 0).then_some(())
    });
    for n in 0..20 {
        cluster.ssh("node1", &format!("paxos put /k{n} {n}")).expect(0);
    }
    destroy(&cluster, &["node3", "node4", "node5"]);
    let lost = ["recover", "--lost", "node3,node4,node5", "--confirm", CLUSTER];
    let wrong = cluster.ctl(&[&lost[..], &["--from", "node2"]].concat()).expect(78);
    assert!(wrong.said().contains("would undo what node1 has applied"), "{}", wrong.said());
    assert!(wrong.said().contains("go on from node1"), "{}", wrong.said());
    let told = cluster.ctl(&[&lost[..], &["--from", "node1", "-o", "json"]].concat()).expect(0);
    assert_eq!(told.json()["members"], serde_json::json!(["node1", "node2"]));
    for node in ["node1", "node2"] {
        for n in 0..20 {
            let got = cluster.ssh(node, &format!("paxos get /k{n}")).expect(0).out();
            assert_eq!(got, format!("{n}\n"), "at {node}");
        }
        cluster.ssh(node, "paxos put /after yes").expect(0);
        let status = cluster.status(node).expect("it answers");
        assert_eq!(status["quorum"]["acceptors"], 2, "{status}");
    }
    // A quorum of two is two.
    cluster.kill("node2");
    let alone = cluster.ssh("node1", "paxos put /after no --timeout 1s").exit();
    assert!([69, 74].contains(&alone), "{alone}");
    leave_out(&cluster, &["node3", "node4", "node5"]);
    cluster.deploy().expect(0);
    cluster.ssh("node2", "paxos put /after yes").expect(0);
}
