//! How fast the store applies and answers, and what it takes in memory.
//!
//! `cargo bench --bench store -- [KEYS]`, a million by default. Keys of 24 bytes and values of 256
//! are put in random order under one session that acknowledges as it goes; a view is taken every 64
//! slots, as a node does.

use bytes::Bytes;
use paxos_ssh::disk::engine::MemoryEngine;
use paxos_ssh::paxos::ballot::ClusterTime;
use paxos_ssh::store::Store;
use paxos_ssh::store::command::*;
use paxos_ssh::store::engine::Engine;
use paxos_ssh::wire::command::{decode_command, encode_command};
use std::hint::black_box;
use std::time::Duration;

const KEYS_DEFAULT: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;
const SLOTS_PER_VIEW: u64 = 64;
/// How far the client's acknowledgements lag behind.
const IN_FLIGHT: u64 = 64;
const READS: u64 = 200_000;

fn main() {
    // Cargo passes --bench as well.
    let keys = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(KEYS_DEFAULT);
    measure("memory engine", MemoryEngine::new(), keys);
}

fn key(number: u64) -> Bytes {
    // Multiplying by an odd constant shuffles the numbers without repeating one.
    Bytes::from(format!("key/{:020}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn put(session: SessionId, sequence: u64, number: u64) -> Bytes {
    let value = Bytes::from(vec![number as u8; VALUE_BYTES]);
    let condition = Condition::Always;
    encode_command(&Command {
        session,
        sequence,
        acknowledged_below: sequence.saturating_sub(IN_FLIGHT),
        principal: "bench".into(),
        request_id: None,
        operation: Operation::Put { key: key(number), value, condition },
    })
}

fn measure<E: Engine>(name: &str, engine: E, keys: u64) {
    let mut store = Store::new(engine);
    let open = Command {
        session: SessionId::NONE,
        sequence: 0,
        acknowledged_below: 0,
        principal: "bench".into(),
        request_id: None,
        operation: Operation::OpenSession { nonce: 1 },
    };
    let opened = store.apply(store.applied().next(), ClusterTime(1), Some(&open));
    let Some(Outcome::SessionOpened(session)) = opened else {
        panic!("the session did not open: {opened:?}");
    };
    let before = resident_bytes();
    let rounds = [("put new", 0), ("put again", keys)];
    for (what, first_sequence) in rounds {
        let mut view = store.view();
        let mut spent = Duration::ZERO;
        for chunk in 0..keys.div_ceil(SLOTS_PER_VIEW) {
            let numbers = chunk * SLOTS_PER_VIEW..keys.min((chunk + 1) * SLOTS_PER_VIEW);
            let commands: Vec<Bytes> =
                numbers.map(|number| put(session, first_sequence + number, number)).collect();
            let start = processor_time();
            for bytes in &commands {
                let command = decode_command(bytes).expect("it was encoded just now");
                let slot = store.applied().next();
                black_box(store.apply(slot, ClusterTime(slot.0), Some(&command)));
            }
            view = store.view();
            spent += processor_time() - start;
        }
        report(name, what, keys, spent);
        black_box(view);
    }
    let resident = resident_bytes().saturating_sub(before) >> 20;
    println!("{name}: {resident} MiB for {keys} keys ({} per key)", (resident << 20) / keys);
    let view = store.view();
    let start = processor_time();
    for number in 0..READS {
        black_box(view.get(&key(number * 7919 % keys)).expect("every key was put"));
    }
    report(name, "get", READS, processor_time() - start);
    let start = processor_time();
    let all = view.list(b"", None, usize::MAX);
    report(name, "list all, per key", all.len() as u64, processor_time() - start);
    let start = processor_time();
    for _ in 0..READS {
        black_box(store.view());
    }
    report(name, "view", READS, processor_time() - start);
}

fn report(name: &str, what: &str, count: u64, spent: Duration) {
    let each = spent.as_secs_f64() / count as f64;
    println!("{name}: {what}: {:.2} µs each, {:.0}/s", each * 1e6, 1.0 / each);
}

/// What this thread has used.
fn processor_time() -> Duration {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = schedule.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok());
    Duration::from_nanos(spent.unwrap_or(0))
}

fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}
