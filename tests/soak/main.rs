//! Real processes under faults of every kind, for as long as one likes: five nodes whose every
//! connection runs through a network of ours, killed, frozen, cut off, slowed and filled up, while
//! clients write and read, and are told nothing but the truth.
//!
//! | variable | default | |
//! |---|---|---|
//! | `PAXOS_TEST_SOAK_SECONDS` | 12 | how long faults go on |
//! | `PAXOS_TEST_SEED` | drawn | which faults, and which requests |
//! | `PAXOS_TEST_SOAK_WITHOUT_DISKS` | | `1`: no disk is filled |
//!
//! From [`DEMANDING_FROM`] on, a run that did not see every kind of fault take effect has failed:
//! what chance left out of its first half is tried then. Disks are filled by root only; whoever is
//! not must ask for a run without that, and the last line says so.
//!
//! `scripts/soak` sets them. A seed repeats what is tried, not what comes of it: real processes
//! have a time of their own.

mod dialler;
mod disks;
mod faults;
#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/harness.rs"]
mod harness;
#[allow(dead_code, reason = "tests/roles uses more of it")]
#[path = "../roles/history.rs"]
mod history;
#[path = "../roles/linearizable.rs"]
mod linearizable;
#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/faults.rs"]
mod pauses;
mod proxy;
#[allow(dead_code, reason = "tests/sim uses more of it")]
#[path = "../sim/random.rs"]
mod random;
mod report;
mod rig;
mod stage;
mod stream;
mod truth;
#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "../cluster/workload.rs"]
mod workload;

use faults::Kind;
use history::{Clients, Pace, Record};
use pauses::Pauses;
use random::Random;
use report::Noted;
use rig::{NODES, Rig};
use stage::{Stage, last_until};
use std::time::{Duration, Instant, SystemTime};
use workload::{Workload, Write};

/// Once all faults are over, a write that begins then is acknowledged within this time. Above the
/// longest election timeout (5 s), a dial that was begun too early (5 s) and its pause (2 s).
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// ... plus what it takes those who were killed to read their logs, all of them at once. A node
/// reads its whole log when it starts. Five at once were seen to read 400 MB/s on two idle cores;
/// here clients and a network run beside them.
const READ_BYTES_PER_SECOND: u64 = 200 << 20;

/// Each of the writers begins a write this often: rare enough that all writes of an hour can be
/// kept, frequent enough that pauses are seen.
const WRITES_EVERY: Duration = Duration::from_millis(20);

/// How many nodes have such a writer.
const WRITERS: usize = 3;

/// Each client whose history is searched begins a request at most this often.
const REQUESTS_EVERY: Duration = Duration::from_millis(15);

/// Pauses of this length are told one by one.
const LONG: Duration = Duration::from_secs(1);

/// In shorter runs no disk is filled, for that alone takes several seconds.
const FILLED_FROM: Duration = Duration::from_secs(60);

/// From this length on, every kind of fault must have taken effect: half of it has room for one
/// turn of each.
const DEMANDING_FROM: Duration = Duration::from_secs(600);

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
}

fn seed() -> u64 {
    from_environment("PAXOS_TEST_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        u64::from(now.expect("it is later than 1970").subsec_nanos())
    })
}

/// The stage, with disks to fill if that is wanted, and there is time.
///
/// # Panics
/// A run that must fill some and cannot does not begin.
fn found(length: Duration) -> Rig {
    let without = std::env::var("PAXOS_TEST_SOAK_WITHOUT_DISKS").is_ok_and(|value| value == "1");
    let rig = Rig::found(match without {
        true => Err("that was asked for".to_owned()),
        false if length < FILLED_FROM => Err("that takes longer".to_owned()),
        false => Ok(()),
    });
    if let Err(why) = &rig.disks {
        println!("no disk is filled: {why}");
        assert!(
            without || length < DEMANDING_FROM,
            "a run of {} s must fill disks, and cannot: {why}; be root where file systems may be \
             mounted, or say --without-disks to scripts/soak (PAXOS_TEST_SOAK_WITHOUT_DISKS=1)",
            length.as_secs()
        );
    }
    rig
}

/// Kinds of faults that did not take effect yet.
fn owed(noted: &[Noted], has_disks: bool) -> Vec<Kind> {
    let may_be = |kind: &Kind| has_disks || *kind != Kind::DiskFull;
    Kind::all().filter(may_be).filter(|kind| report::happened(noted, *kind) == 0).collect()
}

/// How long the nodes may read after faults that killed some of them.
fn reading(rig: &Rig, faults: &[Noted]) -> Duration {
    if !faults.iter().any(|fault| fault.kind.kills()) {
        return Duration::ZERO;
    }
    let bytes = |node: &&str| -> u64 {
        let entries = std::fs::read_dir(rig.cluster.directory(node).join("log"));
        let entries = entries.into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
    };
    Duration::from_secs(NODES.iter().map(bytes).sum::<u64>() / READ_BYTES_PER_SECOND)
}

/// What happened.
#[derive(Default)]
struct Played {
    noted: Vec<Noted>,
    /// From the moment when all was healed to the next acknowledged write, for each turn.
    back: Pauses,
}

/// Plays turns until the time is over; answers what happened.
fn play(
    rig: &Rig,
    seed: u64,
    length: Duration,
    begun: Instant,
    work: &Workload,
    clients: &Clients,
) -> Played {
    let stage = Stage { cluster: &rig.cluster, network: &rig.network };
    let mut random = Random::new(seed);
    let mut noted: Vec<Noted> = Vec::new();
    let mut back = Pauses::default();
    while begun.elapsed() < length {
        let demanding = length >= DEMANDING_FROM && begun.elapsed() > length / 2;
        let owed = owed(&noted, rig.disks.is_ok()).first().copied().filter(|_| demanding);
        let turn = match owed {
            Some(kind) => faults::draw_kind(&mut random, NODES.len(), kind),
            None => faults::draw(&mut random, NODES.len(), rig.disks.is_ok()),
        };
        let first = noted.len();
        clients.next_keys();
        stage.play(&turn, |kind, effective, text| {
            let from = Instant::now();
            let text = format!("{:.1} s: {text}", begun.elapsed().as_secs_f64());
            println!("{text}");
            noted.push(Noted { kind, effective, text, from, to: from });
        });
        let healed = Instant::now();
        noted[first..].iter_mut().for_each(|fault| fault.to = healed);
        clients.next_keys();
        let took = work.next_acknowledged(healed);
        let limit = ANSWERS_WITHIN + reading(rig, &noted[first..]);
        assert!(
            took <= limit,
            "all was healed, and no write acknowledged for {took:?}; the limit is {limit:?}"
        );
        back.add(took);
        last_until(Instant::now() + turn.quiet);
        for node in NODES {
            assert!(rig.cluster.pid(node).is_some(), "{node} ended by itself; see its paxos.log");
        }
    }
    Played { noted, back }
}

/// Panics unless everything that anybody was told is true; prints what there was.
fn judge(rig: &Rig, history: &[Write], mut record: Record) {
    let (slot, revision) = truth::same_position(&rig.cluster);
    let held = truth::held(&rig.cluster);
    let unknown = record.events.iter().filter(|event| event.ended.is_none()).count();
    let operations = record.events.len();
    let (done, unknown_once, not_applied) = workload::count(history);
    let acknowledged = done + truth::acknowledged(&record.events);
    println!(
        "writes: {acknowledged} acknowledged ({done} of them to a key of their own), {} unknown, \
         {not_applied} failed and certainly not applied; {} other requests without an answer",
        unknown + unknown_once,
        record.refused
    );
    for at in &held {
        let lost = truth::lost(history, &at.once);
        let lies = workload::lies(history, &at.once);
        let first: Vec<&String> = lies.iter().take(10).collect();
        assert!(
            lies.is_empty(),
            "{}: {} lost, {} lies: {first:#?}",
            at.node,
            lost.len(),
            lies.len()
        );
        let same = at.once == held[0].once && at.shared == held[0].shared;
        assert!(same, "{} holds something else than {}", at.node, held[0].node);
    }
    println!("lost: 0, applied twice: 0, read back from each of {} nodes", held.len());
    let reads: Vec<_> =
        held.iter().flat_map(|held| truth::last_reads(&record.events, held)).collect();
    let count = reads.len();
    record.events.extend(reads);
    let unexplained = linearizable::unexplained(&record.events);
    for key in &unexplained {
        report::history(&record.events, key).iter().for_each(|line| eprintln!("{line}"));
    }
    assert!(unexplained.is_empty(), "nothing explains what was told of {unexplained:?}");
    let keys = linearizable::by_key(&record.events).len();
    println!("histories: {keys} keys with {operations} operations, all linearizable");
    println!("state: equal on all nodes, slot {slot}, revision {revision}");
    truth::planted_lies_are_found(history, &held[0], &mut record.events, count);
    println!("planted lies (a stale read, a lost value, a lost write): all found");
}

#[test]
fn what_clients_are_told_is_true_whatever_goes_wrong() {
    let seed = seed();
    let length = Duration::from_secs(from_environment("PAXOS_TEST_SOAK_SECONDS").unwrap_or(12));
    println!("seed {seed}, {} s of faults", length.as_secs());
    let rig = found(length);
    let work = Workload::start_every(WRITES_EVERY, &rig.cluster, &NODES[..WRITERS]);
    work.next_acknowledged(Instant::now());
    let begun = Instant::now();
    let mut played = Played::default();
    let pace = Pace { every: REQUESTS_EVERY, readers: true, seed };
    let record = Clients::record_at(pace, &rig.cluster, &NODES, |clients| {
        played = play(&rig, seed, length, begun, &work, clients);
        rig.cluster.wait_healthy();
    });
    let ended = Instant::now();
    let history = work.finish();
    let times = report::acknowledgements(&history);
    println!(
        "\nsoak: seed {seed}, {:.1} minutes, {} nodes, {} clients",
        (ended - begun).as_secs_f64() / 60.0,
        NODES.len(),
        2 * NODES.len() + WRITERS
    );
    let Played { noted, back } = played;
    println!("faults: {}", noted.len());
    report::by_kind(&noted, &times).iter().for_each(|line| println!("{line}"));
    report::long_pauses(&noted, &times, LONG).iter().for_each(|line| println!("{line}"));
    println!("{}", back.line("from when all was healed to a write that is acknowledged"));
    let mut dialled = rig.network.dialled();
    let by_clients = dialled.pop().expect("clients are counted");
    println!("connections: by each node {dialled:?}, by clients {by_clients}");
    // Nodes that were taken for clients would never be cut off from each other.
    assert!(dialled.iter().all(|count| *count > 0), "a node's connections are not known as its");
    judge(&rig, &history, record);
    let owed = owed(&noted, rig.disks.is_ok());
    let kinds: Vec<&str> = owed.iter().map(|kind| kind.name()).collect();
    assert!(length < DEMANDING_FROM || owed.is_empty(), "never happened: {}", kinds.join(", "));
    // `scripts/soak` has this in its last line.
    match &rig.disks {
        Ok(_) => println!("disks: {} were full", report::happened(&noted, Kind::DiskFull)),
        Err(why) => println!("disks: none was filled, for {why}"),
    }
}
