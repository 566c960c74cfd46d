//! What may be lost, one by one, and what waits for whom.

use super::harness::{Cluster, PATIENCE, Ran, until};
use super::{ACCEPTORS, LEARNERS, ON_THE_WAY, PROPOSERS};
use std::time::Duration;

/// What nobody may ever be told.
const NEVER: &str = "not the leader";

/// A request that must succeed, whatever is missing.
#[track_caller]
fn served(cluster: &Cluster, node: &str, words: &str) -> Ran {
    let ran = cluster.ssh(node, &format!("{words} --timeout 20s"));
    assert!(!ran.said().to_lowercase().contains(NEVER), "{}", ran.said());
    ran.expect(0)
}

/// Starts nodes again, and waits until they and the client's node say that all is well.
#[track_caller]
fn start(cluster: &Cluster, nodes: &[&'static str]) {
    nodes.iter().for_each(|node| cluster.start(node));
    cluster.wait_healthy();
}

/// Each node in turn, and at the end whoever leads then.
pub fn any_one_node_may_die(cluster: &Cluster) {
    let [.., leader] = [cluster.leader()];
    let followers = PROPOSERS.into_iter().filter(|node| *node != leader);
    let in_turn = [leader].into_iter().chain(followers).chain(ACCEPTORS).chain(LEARNERS);
    for victim in in_turn {
        cluster.kill(victim);
        for node in ["c1", "a1", "p1", "l1"].into_iter().filter(|node| *node != victim) {
            let key = format!("without-{victim}/{node}");
            served(cluster, node, &format!("paxos put {key} v"));
            assert_eq!(served(cluster, node, &format!("paxos get {key}")).out(), "v\n");
        }
        let status = cluster.status("c1").expect("it answers");
        assert_eq!(status["health"], "degraded", "without {victim}: {status}");
        assert!(status["why"].as_str().is_some_and(|why| why.contains(victim)), "{status}");
        start(cluster, &[victim]);
    }
}

pub fn a_leader_and_an_acceptor_may_die(cluster: &Cluster) {
    let victims = [cluster.leader(), "a2"];
    victims.into_iter().for_each(|node| cluster.kill(node));
    served(cluster, "c1", "paxos put without-two v");
    assert_eq!(served(cluster, "a1", "paxos get without-two").out(), "v\n");
    start(cluster, &victims);
}

/// Requests need a store for their outcome. Without one they wait, and claim nothing.
pub fn without_learners_requests_wait(cluster: &Cluster) {
    served(cluster, "c1", "paxos put kept v");
    LEARNERS.iter().for_each(|node| cluster.kill(node));
    let mut perhaps = Vec::new();
    let mut certainly_not = Vec::new();
    for node in ["c1", "p1", "a1"] {
        let put = cluster.ssh(node, &format!("paxos put lost/{node} v --timeout 1s"));
        assert!(put.took < Duration::from_secs(1) + ON_THE_WAY, "it took {:?}", put.took);
        match put.exit() {
            69 => certainly_not.push(node),
            74 => perhaps.push(node),
            _ => panic!("exit {}: {}", put.exit(), put.said()),
        }
        let get = cluster.ssh(node, "paxos get kept --timeout 1s").expect(69);
        assert!(get.took < Duration::from_secs(1) + ON_THE_WAY, "it took {:?}", get.took);
    }
    println!("without learners: {perhaps:?} perhaps applied, {certainly_not:?} certainly not");
    let status = until("it says that no store can be reached", || {
        cluster.status("c1").filter(|status| status["health"] == "no_quorum")
    });
    assert!(status["why"].as_str().is_some_and(|why| why.contains("store")), "{status}");
    // What is asked now waits, and is answered when a learner is back.
    std::thread::scope(|scope| {
        let limit = PATIENCE.as_secs();
        let put = format!("paxos put waited v --timeout {limit}s");
        let put = scope.spawn(move || cluster.ssh("c1", &put));
        let get = format!("paxos get kept --timeout {limit}s");
        let get = scope.spawn(move || cluster.ssh("p1", &get));
        waiting(cluster, "c1");
        waiting(cluster, "p1");
        start(cluster, &LEARNERS);
        put.join().expect("it does not panic").expect(0);
        assert_eq!(get.join().expect("it does not panic").expect(0).out(), "v\n");
    });
    for node in ["c1", "l1", "l2", "p1"] {
        assert_eq!(served(cluster, node, "paxos get kept").out(), "v\n");
        assert_eq!(served(cluster, node, "paxos get waited").out(), "v\n");
        for other in &certainly_not {
            cluster.ssh(node, &format!("paxos get lost/{other}")).expect(3);
        }
    }
}

/// Waits until the node has a request that is not answered yet.
#[track_caller]
pub fn waiting(cluster: &Cluster, node: &str) {
    until(&format!("a request waits at {node}"), || {
        let page = cluster.ssh(node, "paxos metrics").out();
        let counts = page.lines().filter(|line| line.contains("requests_pending"));
        let mut counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        counts.any(|count| count > 0).then_some(())
    });
}

/// Phase 1 needs four of five, phase 2 two.
pub fn two_of_five_write_on(cluster: &Cluster) {
    let leader = cluster.leader();
    let mut others: Vec<&'static str> =
        cluster.nodes.iter().copied().filter(|node| *node != leader).collect();
    let left = others.remove(0);
    others.iter().for_each(|node| cluster.kill(node));
    for (number, node) in [leader, left].into_iter().enumerate() {
        served(cluster, node, &format!("paxos put two/{number} v"));
        assert_eq!(served(cluster, node, &format!("paxos get two/{number}")).out(), "v\n");
    }
    for node in [leader, left] {
        let status = until("it misses the three", || {
            cluster.status(node).filter(|status| status["quorum"]["reachable"] == 2)
        });
        assert_eq!(status["state"] == "leader", node == leader, "{status}");
        assert_eq!(status["health"], "degraded", "{status}");
        let why = status["why"].as_str().expect("text");
        for part in ["if the leader is lost", "4 of 5 acceptors", "2 can be reached"] {
            assert!(why.contains(part), "no {part}: {why}");
        }
    }

    // Without their leader two, and then three, elect nobody.
    cluster.kill(leader);
    cluster.start(others[0]);
    let put = cluster.ssh(left, "paxos put nobody v --timeout 2s");
    assert!([69, 74].contains(&put.exit()), "{}", put.said());
    let status = until("it says why nobody leads", || {
        let status = cluster.status(left)?;
        let why = status["why"].as_str()?;
        let said = why.contains("2 of 5 acceptors") && why.contains("need 4");
        (status["health"] == "no_quorum" && said).then_some(status)
    });
    assert!(status["leader"].is_null(), "{status}");
    cluster.start(others[1]);
    until("three are there", || {
        cluster.status(left).filter(|status| status["quorum"]["reachable"] == 3)
    });
    let refused = cluster.ssh(left, "paxos put nobody v --timeout 2s").expect(69);
    assert!(refused.took < Duration::from_secs(2) + ON_THE_WAY, "it took {:?}", refused.took);
    assert_eq!(cluster.ssh(left, "paxos health").exit(), 69);

    // Four elect one, and what two had written is there.
    cluster.start(others[2]);
    served(cluster, left, "paxos put four v");
    for node in [left, others[0], others[1], others[2]] {
        for key in ["two/0", "two/1", "four"] {
            assert_eq!(served(cluster, node, &format!("paxos get {key}")).out(), "v\n");
        }
    }
    start(cluster, &[leader]);
    assert_eq!(served(cluster, leader, "paxos get four").out(), "v\n");
}
