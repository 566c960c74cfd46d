//! Nodes that die and freeze while clients are at work.

use super::faults::Pauses;
use super::harness::{ALL_ROLES, Cluster, PATIENCE, Quorums, until};
use super::history::Clients;
use super::losses::waiting;
use super::workload::{self, Workload};
use super::{PROPOSERS, times_from_environment};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Every kind of node there is.
const MIXED: [(&str, &str); 8] = [
    ("p1", "proposer"),
    ("p2", "proposer"),
    ("a1", "acceptor"),
    ("a2", "acceptor"),
    ("l1", "learner"),
    ("l2", "learner"),
    ("n1", ALL_ROLES),
    ("c1", ""),
];

/// A proposer, a client and a node with all roles.
const WRITERS: [&str; 3] = ["p1", "c1", "n1"];

/// Answers that clients get before and after each fault, so that there is something to compare.
const ANSWERS_BETWEEN: usize = 300;

/// Writes go on through nodes of three kinds while one node after the other is killed and comes
/// back, in an order that takes the leader every other time.
pub fn one_after_the_other() {
    let cluster = Cluster::found_with(&MIXED, Quorums::Majority);
    let length = times_from_environment("PAXOS_TEST_ROLE_SECONDS", 10);
    let end = Instant::now() + Duration::from_secs(length.into());
    let work = Workload::start_at(&cluster, &WRITERS);
    work.next_acknowledged(Instant::now());
    let mut pauses = Pauses::default();
    let mut victims = MIXED.iter().map(|(node, _)| *node).cycle();
    for round in 0.. {
        // Each kind at least once, however slow the machine.
        if Instant::now() > end && round >= MIXED.len() * 2 {
            break;
        }
        let leads = round % 2 == 1;
        let victim = if leads { cluster.leader() } else { victims.next().expect("they recur") };
        let killed = Instant::now();
        cluster.signal(victim, Signal::KILL);
        pauses.add(work.next_acknowledged(killed));
        cluster.wait_gone(victim);
        cluster.start(victim);
        until(&format!("{victim} is back"), || {
            cluster.status(victim).filter(|status| status["health"] == "healthy")
        });
    }
    println!("{}", pauses.line("a node killed (every other time the leader)"));
    cluster.wait_healthy();
    let history = work.finish();
    let (done, unknown, not_applied) = workload::count(&history);
    println!("{} writes: {done} done, {unknown} unknown, {not_applied} not applied", history.len());
    workload::check(&cluster, &history);
    for writer in WRITERS {
        let of = history.iter().filter(|write| write.key.starts_with(&format!("w/{writer}/")));
        assert!(of.count() > 10 * MIXED.len(), "{writer} wrote next to nothing");
    }
    assert!(done * 10 > history.len() * 9, "most writes are done: {done} of {}", history.len());
}

/// The leader is gone, and all proposers start anew at the same moment: each has a new incarnation
/// and knows of no leader. Whatever they do about it, a request that was there before is answered.
pub fn all_proposers_at_once(cluster: &Cluster) {
    let times = times_from_environment("PAXOS_TEST_DEADLOCKS", 3);
    let mut waited = Pauses::default();
    let mut elected = Pauses::default();
    for round in 0..times {
        PROPOSERS.iter().for_each(|node| cluster.signal(node, Signal::KILL));
        PROPOSERS.iter().for_each(|node| cluster.wait_gone(node));
        let node = ["c1", "a1", "l1"][round as usize % 3];
        std::thread::scope(|scope| {
            let limit = PATIENCE.as_secs();
            let put = format!("paxos put deadlock/{round} v --timeout {limit}s");
            let begun = Instant::now();
            let put = scope.spawn(move || cluster.ssh(node, &put));
            waiting(cluster, node);
            let started = Instant::now();
            PROPOSERS.iter().for_each(|node| cluster.start(node));
            let put = put.join().expect("it does not panic");
            let now = Instant::now();
            assert!(!put.said().to_lowercase().contains("not the leader"), "{}", put.said());
            put.expect(0);
            waited.add(now - begun);
            elected.add(now - started);
        });
        // The next round begins with a leader that is known everywhere.
        cluster.wait_healthy();
    }
    println!("{}", waited.line("a request that was there before all proposers waited"));
    println!("{}", elected.line("from their start to its answer"));
    for round in 0..times {
        let got = cluster.ssh("c1", &format!("paxos get deadlock/{round} -o json")).expect(0);
        assert_eq!(got.json()["version"], 1, "it was applied once");
    }
}

/// Kills and freezes nodes of every role while clients work.
pub fn disturb(cluster: &Cluster, clients: &Clients) {
    let more = |count: usize| {
        let enough = clients.answered() + count;
        until("clients are answered", || (clients.answered() >= enough).then_some(()));
    };
    for victim in ["leader", "l1", "a1", "l2"] {
        for signal in [Signal::KILL, Signal::STOP] {
            let victim = if victim == "leader" { cluster.leader() } else { victim };
            clients.next_keys();
            more(ANSWERS_BETWEEN);
            cluster.signal(victim, signal);
            more(ANSWERS_BETWEEN);
            if signal == Signal::KILL {
                cluster.wait_gone(victim);
                cluster.start(victim);
            } else {
                cluster.signal(victim, Signal::CONT);
            }
            // While it comes to itself is when it could tell something old.
            more(ANSWERS_BETWEEN);
            until(&format!("{victim} is back"), || {
                cluster.status(victim).filter(|status| status["health"] == "healthy")
            });
        }
    }
}
