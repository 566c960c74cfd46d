//! Durability: what a log said is durable is there after every start, record for record, and
//! nothing else is; whoever cannot have it so refuses to start.
//!
//! Source: Lamport, "Paxos Made Simple" (2001), §2.5: an acceptor must remember in stable storage;
//! Rebello et al., "Can Applications Recover from fsync Failures?" (USENIX ATC 2020), on what
//! stable means.

use super::{Machine, violated};
use bytes::Bytes;
use paxos_ssh::paxos::record::{LogPosition, Record, Recovered};
use std::collections::BTreeMap;

/// A log as it was seen to be written.
#[derive(Default)]
struct Log {
    records: Vec<Record<Bytes>>,
    /// How many of them were said to be durable.
    durable: usize,
    /// What those amount to.
    state: Recovered<Bytes>,
}

impl Log {
    fn advance(&mut self, end: usize) -> Vec<Record<Bytes>> {
        let news: Vec<_> = self.records[self.durable.min(end)..end].to_vec();
        for record in &news {
            let replayed = self.state.replay(record.clone());
            replayed.unwrap_or_else(|error| violated("durability", &error.to_string()));
        }
        self.durable = self.durable.max(end);
        news
    }
}

/// See the module's documentation.
#[derive(Default)]
pub struct Durability {
    logs: BTreeMap<Machine, Log>,
}

impl Durability {
    /// Records are handed over.
    pub fn appended(&mut self, machine: Machine, records: Vec<Record<Bytes>>) {
        self.logs.entry(machine).or_default().records.extend(records);
    }

    /// The log says that it is durable up to `position`. Answers what is new of it.
    pub fn durable(&mut self, machine: Machine, position: LogPosition) -> Vec<Record<Bytes>> {
        let log = self.logs.entry(machine).or_default();
        if position.0 > log.records.len() as u64 {
            let what = format!("{machine} calls {position:?} durable, and never wrote so much");
            violated("durability", &what);
        }
        log.advance(position.0 as usize)
    }

    /// A process starts and found this. Answers what is durable now and was not said to be before.
    pub fn started(&mut self, machine: Machine, found: &Recovered<Bytes>) -> Vec<Record<Bytes>> {
        let log = self.logs.entry(machine).or_default();
        let end = found.end.0 as usize;
        if end < log.durable {
            let what =
                format!("{machine} said that {} records are durable; it has {end}", log.durable);
            violated("durability", &what);
        }
        if end > log.records.len() {
            let what = format!("{machine} finds {end} records, and wrote {}", log.records.len());
            violated("durability", &what);
        }
        // What a crash took was never said to anybody.
        log.records.truncate(end);
        let news = log.advance(end);
        if log.state != *found {
            let what = format!("{machine} wrote {:?} and reads {found:?}", log.state);
            violated("durability", &what);
        }
        news
    }

    /// A disk that may forget left so many records. Answers them, and whether others are lost.
    pub fn forgot(&mut self, machine: Machine, end: LogPosition) -> (&[Record<Bytes>], bool) {
        let log = self.logs.entry(machine).or_default();
        let lost = (end.0 as usize) < log.durable;
        log.records.truncate(end.0 as usize);
        (log.durable, log.state) = (0, Recovered::default());
        log.advance(log.records.len());
        (&log.records, lost)
    }
}
