//! Real processes with one role each, or any mix of roles: that each serves, what may be lost, and
//! that nothing is lost, done twice or told wrongly meanwhile.
//!
//! | variable | default | |
//! |---|---|---|
//! | `PAXOS_TEST_ROLE_SECONDS` | 10 | how long writes go on while one node after the other dies |
//! | `PAXOS_TEST_DEADLOCKS` | 3 | how often all proposers are restarted at once |
//! | `PAXOS_TEST_HISTORIES` | 1 | how often each fault happens while a history is recorded |
//!
//! One test runs at a time, for they measure time on the same processors.

#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/faults.rs"]
mod faults;
#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/harness.rs"]
mod harness;
mod history;
mod kills;
mod linearizable;
mod losses;
mod serving;
#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/workload.rs"]
mod workload;

use harness::{ALL_ROLES, Cluster, Quorums};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Added to a request's own timeout: the way there and back on a busy machine.
const ON_THE_WAY: Duration = Duration::from_secs(4);

/// Nine nodes with one role each at most, as in `inventory/local-roles.yaml`.
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

const PROPOSERS: [&str; 3] = ["p1", "p2", "p3"];
const ACCEPTORS: [&str; 3] = ["a1", "a2", "a3"];
const LEARNERS: [&str; 2] = ["l1", "l2"];

/// Five nodes with all roles and a small quorum for writes, as in `inventory/local-five.yaml`.
const FIVE: [(&str, &str); 5] = [
    ("node1", ALL_ROLES),
    ("node2", ALL_ROLES),
    ("node3", ALL_ROLES),
    ("node4", ALL_ROLES),
    ("node5", ALL_ROLES),
];

/// One test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|failed_before| failed_before.into_inner())
}

fn times_from_environment(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn every_node_serves_whatever_its_role() {
    let _turn = turn();
    let cluster = Cluster::found_with(&APART, Quorums::Majority);
    serving::every_node_says_what_it_is(&cluster);
    serving::every_node_takes_and_gives(&cluster);
    serving::long_lists_are_whole(&cluster);
    losses::any_one_node_may_die(&cluster);
    losses::a_leader_and_an_acceptor_may_die(&cluster);
    losses::without_learners_requests_wait(&cluster);
}

#[test]
fn a_small_quorum_writes_on_but_elects_nobody() {
    let _turn = turn();
    let quorums = Quorums::Sizes { phase1: 4, phase2: 2 };
    losses::two_of_five_write_on(&Cluster::found_with(&FIVE, quorums));
}

#[test]
fn writes_happen_once_while_nodes_of_every_role_die() {
    let _turn = turn();
    kills::one_after_the_other();
}

#[test]
fn a_request_outlives_all_proposers() {
    let _turn = turn();
    kills::all_proposers_at_once(&Cluster::found_with(&APART, Quorums::Majority));
}

#[test]
fn what_clients_were_told_is_linearizable() {
    let _turn = turn();
    let cluster = Cluster::found_with(&APART, Quorums::Majority);
    let nodes = ["c1", "a1", "l1", "p1", "l2", "p2"];
    let rounds = times_from_environment("PAXOS_TEST_HISTORIES", 1);
    let mut record = history::Clients::record(&cluster, &nodes, |clients| {
        (0..rounds).for_each(|_| kills::disturb(&cluster, clients));
    });
    let events = &mut record.events;
    let unknown = events.iter().filter(|event| event.ended.is_none()).count();
    println!(
        "history: {} operations on {} keys, {unknown} of them with unknown outcome; {} refused",
        events.len(),
        linearizable::by_key(events).len(),
        record.refused
    );
    assert_eq!(linearizable::unexplained(events), Vec::<&str>::new());
    // The same history with one stale answer in it has no explanation.
    let planted = linearizable::plant_stale_read(events).expect("values were read twice");
    assert_eq!(linearizable::unexplained(events), [planted]);
}
