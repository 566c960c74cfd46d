//! What a node of each role says of itself, and what it does for whoever asks it.

use super::harness::Cluster;
use super::{APART, LEARNERS};
use std::fmt::Write;

/// More than one page of anything on the way.
const LISTED: usize = 2_000;

pub fn every_node_says_what_it_is(cluster: &Cluster) {
    let leader = cluster.leader();
    for (node, roles) in APART {
        let status = cluster.ssh(node, "paxos status -o json").expect(0).json();
        let state = match roles {
            "proposer" if node == leader => "leader",
            "proposer" => "follower",
            "" => "client",
            other => other,
        };
        assert_eq!(status["node"], node);
        assert_eq!(status["state"], state, "{status}");
        let told: Vec<&str> =
            status["roles"].as_array().expect("a list").iter().filter_map(|r| r.as_str()).collect();
        let expected: Vec<&str> = roles.split(' ').filter(|role| !role.is_empty()).collect();
        assert_eq!(told, expected, "{status}");
        assert_eq!(status["leader"], leader, "{status}");
        assert_eq!(status["revision"].is_null(), !LEARNERS.contains(&node), "{status}");
        for (field, value) in [("acceptors", 3), ("reachable", 3), ("phase1", 2), ("phase2", 2)] {
            assert_eq!(status["quorum"][field], value, "{status}");
        }
        assert_eq!(status["members"].as_array().map(Vec::len), Some(APART.len()), "{status}");
        assert_eq!(status["health"], "healthy", "{status}");
        let table = cluster.ssh(node, "paxos status").expect(0).out();
        assert_eq!(table.contains("no store here"), !LEARNERS.contains(&node), "{table}");
        assert_eq!(cluster.ssh(node, "paxos health").expect(0).out(), "healthy\n");
    }
}

/// What one node takes, the next one gives, in turn; by single requests and in a batch.
pub fn every_node_takes_and_gives(cluster: &Cluster) {
    let nodes = &cluster.nodes;
    for (at, writer) in nodes.iter().enumerate() {
        let reader = nodes[(at + 1) % nodes.len()];
        let value = format!("by-{writer}");
        let put = format!("paxos put k {value} -o json");
        let put = cluster.ssh(writer, &put).expect(0).json();
        let got = cluster.ssh(reader, "paxos get k -o json").expect(0).json();
        assert_eq!(got["value"], value, "written at {writer}, read at {reader}");
        assert_eq!(got["revision"], put["revision"], "the same put");
        let batch = format!(
            "put k/1 {value}\nput k/2 {value} --if-absent\nget k/1\nlist k/\nput k {value}x \
             --if-value {value}\ndelete k/2\nget k/2\nget k --consistency local\n"
        );
        let ran = cluster.ssh_input(writer, "paxos batch", batch.as_bytes()).expect(0);
        let answers: Vec<serde_json::Value> =
            ran.out().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(answers.len(), 8, "{}", ran.said());
        for (line, answer) in answers.iter().enumerate() {
            assert_eq!(answer["ok"] == true, line != 6, "line {line} at {writer}: {answer}");
        }
        assert_eq!(answers[2]["value"], value, "{writer}");
        let keys: Vec<&str> = answers[3]["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|item| item["key"].as_str())
            .collect();
        assert_eq!(keys, ["k/1", "k/2"], "{writer}");
        assert_eq!(answers[6]["error"]["code"], "not_found", "{writer}");
        let listed = cluster.ssh(reader, "paxos list k").expect(0).out();
        assert_eq!(listed, format!("k\t{value}x\nk/1\t{value}\n"), "{reader}");
    }
}

/// A list comes page by page from the store of another node, and arrives as one.
pub fn long_lists_are_whole(cluster: &Cluster) {
    let mut puts = String::new();
    let mut expected = String::new();
    for number in 0..LISTED {
        let _infallible = writeln!(puts, "put many/{number:05} v{number}");
        let _infallible = writeln!(expected, "many/{number:05}\tv{number}");
    }
    cluster.ssh_input("a1", "paxos batch --window 256", puts.as_bytes()).expect(0);
    for node in ["c1", "a2", "p1", "l1"] {
        let listed = cluster.ssh(node, "paxos list many/").expect(0);
        assert!(listed.out() == expected, "at {node}: {} lines", listed.out().lines().count());
        let part = "paxos list many/ --after many/00997 --limit 1500 --keys-only";
        let part = cluster.ssh(node, part).expect(0).out();
        let wanted = (998..LISTED).map(|number| format!("many/{number:05}\n"));
        assert!(part == wanted.collect::<String>(), "at {node}: {} lines", part.lines().count());
    }
}
