//! How fast the log takes records, and how fast it is read back after a start.
//!
//! `cargo bench --bench log -- [RECORDS]`, 300,000 by default, in the system's directory for
//! temporary files, which must be on a real disk for the figures to mean anything (`TMPDIR` says
//! where).

use bytes::Bytes;
use paxos_ssh::disk::log::{DiskLog, open};
use paxos_ssh::disk::{Log, LogEvent, LogOwner, watched};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::message::{Entry, Payload, Vote};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{LogPosition, Record, Recovered};
use paxos_ssh::telemetry::metrics::LogMetrics;
use paxos_ssh::telemetry::watchdog::Watchdog;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const RECORDS_DEFAULT: u64 = 300_000;
/// A put of 256 bytes with its key and envelope.
const COMMAND_BYTES: usize = 320;
/// Closed loops with this many records on their way at a time.
const WINDOWS: [u64; 3] = [1, 64, 1024];
/// At one record a sync, fewer are enough.
const SYNCS_MAX: u64 = 3_000;

fn main() {
    let records = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(RECORDS_DEFAULT);
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut slot = 0;
    for window in WINDOWS {
        let (mut log, _, events) = start(directory.path());
        if slot == 0 {
            log.append(vec![genesis()]);
        }
        let count = records.min(window * SYNCS_MAX);
        append(&mut log, &events, window, count, &mut slot);
    }
    recover(directory.path(), slot);
}

fn start(directory: &Path) -> (DiskLog, Recovered<Bytes>, Receiver<LogEvent>) {
    let (sender, events) = channel();
    let owner = LogOwner { cluster_name: "bench".into(), node: NodeId(1) };
    let on_event = move |event| {
        // Late events of a log that is being dropped have no reader.
        let _ = sender.send(event);
    };
    let beat = Watchdog::default().watch(watched());
    let (log, recovered) =
        open(directory, owner, LogMetrics::default(), beat, on_event).expect("the log opens");
    (log, recovered, events)
}

fn append(log: &mut DiskLog, events: &Receiver<LogEvent>, window: u64, count: u64, slot: &mut u64) {
    let begin = log.end().0;
    let (mut durable, mut syncs, mut syncing) = (begin, 0u64, Duration::ZERO);
    let start = Instant::now();
    while durable < begin + count {
        while log.end().0 < (durable + window).min(begin + count) {
            *slot += 1;
            log.append(vec![accepted(*slot)]);
        }
        log.sync();
        let LogEvent::Durable { position, took } = events.recv().expect("the log lives") else {
            panic!("no room for the benchmark");
        };
        durable = position.0;
        syncs += 1;
        syncing += took;
    }
    let spent = start.elapsed();
    println!(
        "window {window}: {:.0} records/s, {:.1} MB/s, {:.1} records a sync, \
         {:.0} µs a sync, {:.0} µs a turn",
        count as f64 / spent.as_secs_f64(),
        (count * COMMAND_BYTES as u64) as f64 / spent.as_secs_f64() / 1e6,
        count as f64 / syncs as f64,
        syncing.as_secs_f64() / syncs as f64 * 1e6,
        spent.as_secs_f64() / syncs as f64 * 1e6,
    );
    log.append(vec![Record::Chosen(Slot(*slot))]);
}

fn recover(directory: &Path, slots: u64) {
    let bytes = slots * COMMAND_BYTES as u64;
    let begin = Instant::now();
    let (mut log, recovered, _events) = start(directory);
    let spent = begin.elapsed().as_secs_f64();
    assert_eq!(recovered.chosen, Slot(slots));
    assert!(recovered.end > LogPosition(slots));
    println!("recover {slots} records: {spent:.2} s, {:.0} MB/s", bytes as f64 / spent / 1e6);
    let begin = Instant::now();
    let mut slot = Slot(1);
    while slot <= recovered.chosen {
        let entries = log.read(slot, recovered.chosen, 1 << 20).expect("every slot is there");
        slot = Slot(slot.0 + entries.len() as u64);
    }
    let spent = begin.elapsed().as_secs_f64();
    println!("read them again: {spent:.2} s, {:.0} MB/s", bytes as f64 / spent / 1e6);
}

fn accepted(slot: u64) -> Record<Bytes> {
    let payload = Payload::Command(Bytes::from(vec![slot as u8; COMMAND_BYTES]));
    let entry = Arc::new(Entry { stamp: ClusterTime(slot), payload });
    let number = ProposalNumber::from_raw(101);
    let ballot = Ballot { number, incarnation: Incarnation(u64::MAX) };
    Record::Accepted(Vote { slot: Slot(slot), ballot, entry })
}

fn genesis() -> Record<Bytes> {
    let proposer = ProposerId::new(1).ok();
    let generation = Some(VoterGeneration(1));
    let roles = Roles { proposer, acceptor: generation, learner: true };
    let member = Member { name: "node1".into(), address: "127.0.0.1:1".into(), roles };
    let members = BTreeMap::from([(NodeId(1), member)]);
    let quorums = QuorumSystem::majority(1).expect("one acceptor is a quorum");
    let configuration = Configuration::new(ConfigurationNumber(1), members, quorums)
        .expect("the configuration is sound");
    let genesis = Genesis { cluster: ClusterId(1), configuration, window: 4096 };
    Record::Genesis { genesis, generation }
}
