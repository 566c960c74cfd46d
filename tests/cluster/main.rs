//! Three real processes, founded by `paxos-ctl deploy` and reached by the stock `ssh`: what an
//! operator meets, and what is left of acknowledged writes when nodes die.
//!
//! The environment variable `PAXOS_TEST_KILLS` says how often the leader is killed (3 by default).
//! One test runs at a time, for they measure time on the same processors.

mod doors;
mod faults;
mod flood;
#[allow(dead_code, reason = "tests/roles uses more of it")]
mod harness;
mod numbers;
mod protocol;
mod terminal;
mod workload;

use faults::Pauses;
use harness::{Cluster, Guarded, NODES, Ran, until};
use rustix::process::Signal;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use workload::Workload;

/// Added to a request's own timeout: the way there and back on a busy machine.
const ON_THE_WAY: Duration = Duration::from_secs(4);

/// The pause that a change of leader may cost on a machine that does other things as well; the aims
/// are a tenth of it, and the benchmark reports against them.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|failed_before| failed_before.into_inner())
}

fn times_from_environment(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn an_operator_with_a_stock_ssh_client_is_served() {
    let _turn = turn();
    let cluster = Cluster::found();
    let mut failed = Vec::new();
    for (name, check) in doors::CHECKS {
        // The others are still worth knowing.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&cluster)));
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "these failed, see above: {failed:?}");
}

#[test]
fn a_leader_may_die_hang_or_hand_over() {
    let _turn = turn();
    let cluster = Cluster::found();
    let work = Workload::start(&cluster);
    work.next_acknowledged(Instant::now());
    let (mut kills, mut freezes, mut transfers): (Pauses, Pauses, Pauses) = Default::default();
    let times = times_from_environment("PAXOS_TEST_KILLS", 3);
    let repeat = |what, times, pauses: &mut Pauses, fault: fn(&Cluster, &Workload) -> _| {
        (0..times).for_each(|_| pauses.add(fault(&cluster, &work)));
        println!("{}", pauses.line(what));
    };
    repeat("leader killed", times, &mut kills, faults::kill_leader);
    repeat("leader frozen", 1, &mut freezes, faults::freeze_leader);
    repeat("leadership transferred", 3, &mut transfers, faults::transfer);
    let history = work.finish();
    let (done, unknown, not_applied) = workload::count(&history);
    println!("writes: {done} done, {unknown} unknown, {not_applied} not applied");
    workload::check(&cluster, &history);
    assert!(done > 100 * usize::try_from(times).expect("a small number"), "{done} writes");
    for (what, pauses) in [("killed", kills), ("frozen", freezes), ("handed over", transfers)] {
        assert!(pauses.longest() < PAUSE_MAX, "{what}: {pauses:?}");
    }
}

/// A write that must not succeed, and how it was refused: 69 or 74, in time.
#[track_caller]
fn refused(cluster: &Cluster, node: &str, key: &str) -> i32 {
    let put = cluster.ssh(node, &format!("paxos put {key} v --timeout 1s"));
    assert!(put.took < Duration::from_secs(1) + ON_THE_WAY, "it took {:?}", put.took);
    assert!([69, 74].contains(&put.exit()), "exit {}: {}", put.exit(), put.said());
    put.exit()
}

#[track_caller]
fn get(cluster: &Cluster, node: &str, key: &str) -> Ran {
    cluster.ssh(node, &format!("paxos get {key}"))
}

#[test]
fn without_a_majority_nothing_is_claimed_and_everything_comes_back() {
    let _turn = turn();
    let cluster = Cluster::found();
    cluster.ssh("node1", "paxos put before v").expect(0);

    // The leader is left alone. What it proposes now may be chosen later: 74.
    let left = cluster.leader();
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != left).collect();
    others.iter().for_each(|node| cluster.kill(node));
    let mut perhaps = Vec::new();
    let mut certainly_not = Vec::new();
    let mut sort = |exit: i32, key: String| match exit {
        69 => certainly_not.push(key),
        _ => perhaps.push(key),
    };
    sort(refused(&cluster, left, "first"), "first".to_owned());
    // Soon it notices, says so, and takes nothing on any more: 69.
    let status = until("it says that there is no quorum", || {
        cluster.status(left).filter(|status| status["health"] == "no_quorum")
    });
    assert_eq!(cluster.ssh(left, "paxos status").exit(), 69);
    assert_eq!(cluster.ssh(left, "paxos health").exit(), 69);
    for field in ["why", "next"] {
        assert!(status[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {status}");
    }
    for node in &others {
        assert!(status["why"].as_str().is_some_and(|why| why.contains(node)), "{status}");
    }
    let unreachable = status["quorum"]["unreachable_members"].as_array().map(Vec::len);
    assert_eq!(unreachable, Some(2), "{status}");
    for number in 0..3 {
        let key = format!("later{number}");
        let exit = refused(&cluster, left, &key);
        assert_eq!(exit, 69, "nobody leads, so nobody can have applied it");
        sort(exit, key);
    }
    let read = cluster.ssh(left, "paxos get before --timeout 1s").expect(69);
    assert!(read.took < Duration::from_secs(1) + ON_THE_WAY);
    let stale = cluster.ssh(left, "paxos get before --consistency local").expect(0);
    assert_eq!(stale.out(), "v\n");

    cluster.deploy().expect(0);
    cluster.wait_healthy();
    for node in NODES {
        assert_eq!(get(&cluster, node, "before").expect(0).out(), "v\n");
        for key in &certainly_not {
            assert_eq!(get(&cluster, node, key).exit(), 3, "{key} was certainly not applied");
        }
        for key in &perhaps {
            assert!([0, 3].contains(&get(&cluster, node, key).exit()));
        }
    }

    // A follower that is left alone recovers as well, when but one of the others returns.
    let leader = cluster.leader();
    let left = NODES.into_iter().find(|node| *node != leader).expect("there are three");
    let last = NODES.into_iter().find(|node| ![leader, left].contains(node)).expect("the third");
    cluster.kill(last);
    cluster.kill(leader);
    refused(&cluster, left, "alone");
    let mut returned = start_by_hand(&cluster, last);
    until("two of three serve again", || {
        (cluster.ssh(left, "paxos put again v").exit() == 0).then_some(())
    });
    assert_eq!(cluster.ssh(left, "paxos status").exit(), 2, "degraded: one is missing");
    returned.0.kill().expect("it runs");
}

/// `paxos node --config …` as a child of ours.
fn start_by_hand(cluster: &Cluster, node: &str) -> Guarded {
    let directory = cluster.directory(node);
    let log = fs::OpenOptions::new().append(true).create(true).open(directory.join("paxos.log"));
    let mut command = Command::new(directory.join("paxos"));
    command.arg("node").arg("--config").arg(directory.join("config.yaml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log can be written"));
    Guarded(command.spawn().expect("it was started from here before"))
}

/// A leader drowned in requests must go on being heard by its peers and by its operator.
#[test]
fn a_leader_under_a_flood_of_requests_stays_leader() {
    let _turn = turn();
    let cluster = Cluster::found();
    let leader = cluster.leader();
    let ballots = || NODES.map(|node| cluster.status(node).expect("it answers")["ballot"].clone());
    let before = ballots();
    let seconds = times_from_environment("PAXOS_TEST_FLOOD_SECONDS", 5);
    let flood = flood::Flood::start(&cluster, leader);
    let until_then = Instant::now() + Duration::from_secs(seconds.into());
    let mut looks = Pauses::default();
    while Instant::now() < until_then {
        let health = cluster.ssh(leader, "paxos health").expect(0);
        looks.add(health.took);
        let status = cluster.ssh(leader, "paxos status -o json").json();
        assert_eq!(status["state"], "leader", "{status}");
    }
    let told = flood.stop();
    println!("{seconds} s of flood: {told:?}");
    println!("{}", looks.line("health of the flooded leader"));
    assert_eq!(ballots(), before, "an election was held");
    assert!(told.done > 1000 && told.most_under_way > 1000, "this was no flood: {told:?}");
    assert_eq!(told.other, Vec::<String>::new());
    assert!(looks.longest() < ON_THE_WAY, "{looks:?}");
    // What was refused as too much was not applied, and what was acknowledged is there.
    cluster.wait_healthy();
}

#[test]
fn all_killed_at_once_lose_nothing_and_deploying_again_changes_nothing() {
    let _turn = turn();
    let cluster = Cluster::found();
    let pids = || NODES.map(|node| cluster.pid(node).expect("it runs"));
    let before = pids();
    let again = cluster.deploy().expect(0);
    assert!(again.out().contains("nothing to do"), "{}", again.said());
    assert_eq!(pids(), before, "nothing was restarted");

    let work = Workload::start(&cluster);
    work.next_acknowledged(Instant::now());
    let until_then = Instant::now();
    NODES.iter().for_each(|node| cluster.signal(node, Signal::KILL));
    until("all are gone", || NODES.iter().all(|node| cluster.pid(node).is_none()).then_some(()));
    cluster.deploy().expect(0);
    work.next_acknowledged(until_then);
    cluster.wait_healthy();
    let history = work.finish();
    println!("writes (done, unknown, not applied): {:?}", workload::count(&history));
    workload::check(&cluster, &history);
    assert!(cluster.deploy().expect(0).out().contains("nothing to do"));
}

#[test]
fn a_node_that_lost_its_log_does_not_vote() {
    let _turn = turn();
    let cluster = Cluster::found();
    cluster.ssh("node1", "paxos put before v").expect(0);
    cluster.kill("node3");
    // Somebody starts it all the same, with keys and settings, and it cannot know what it promised.
    fs::remove_dir_all(cluster.directory("node3").join("log")).expect("it had a log");
    let blank = start_by_hand(&cluster, "node3");
    until("the blank node answers", || cluster.status("node3"));
    cluster.kill("node2");
    for number in 0..3 {
        refused(&cluster, "node1", &format!("k{number}"));
    }
    drop(blank);
    fs::remove_dir_all(cluster.directory("node3")).expect("it had a directory");
    let refusal = cluster.deploy();
    assert_ne!(refusal.exit(), 0, "{}", refusal.said());
    for word in ["node3", "log is gone", "rejoin"] {
        assert!(refusal.said().contains(word), "no {word}: {}", refusal.said());
    }
    assert_eq!(cluster.pid("node3"), None, "it was not founded anew");
    // The others were seen to: two of three serve.
    assert_eq!(get(&cluster, "node2", "before").expect(0).out(), "v\n");
    cluster.ssh("node1", "paxos put after v").expect(0);
    assert_eq!(cluster.ssh("node1", "paxos status").exit(), 2);
}
