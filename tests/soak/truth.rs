//! Whether what clients were told was true, once all is over.
//!
//! Three questions of independent records: does one store that does one thing at a time explain
//! what each key's clients saw, what each node holds in the end included; was every write that was
//! acknowledged applied, once, with the revision that was told; and do all nodes hold the same. A
//! checker that sees nothing would answer yes as well, so each question is asked again of records
//! into which one lie was planted.

use super::harness::{Cluster, until};
use super::history::Clients;
use super::linearizable::{self, Event, Operation};
use super::workload::{self, Stored, Told, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What one node holds.
pub struct Held {
    pub node: &'static str,
    pub begun: Instant,
    pub ended: Instant,
    /// Of the writers that write each key once.
    pub once: BTreeMap<String, Stored>,
    /// Of the clients whose histories are searched.
    pub shared: BTreeMap<String, Stored>,
}

/// What every node holds, one after the other.
pub fn held(cluster: &Cluster) -> Vec<Held> {
    let ask = |node: &&'static str| {
        let begun = Instant::now();
        let once = workload::stored(cluster, node);
        let shared = workload::stored_under(Clients::PREFIX, cluster, node);
        Held { node, begun, ended: Instant::now(), once, shared }
    };
    cluster.nodes.iter().map(ask).collect()
}

/// Waits until all nodes have applied the same; answers up to which slot, and the revision.
pub fn same_position(cluster: &Cluster) -> (u64, u64) {
    until("all nodes have applied the same", || {
        let mut positions = BTreeSet::new();
        for node in &cluster.nodes {
            let status = cluster.status(node)?;
            let slot = number(&status["applied_slot"])?;
            positions.insert((slot, number(&status["revision"])?));
        }
        positions.first().copied().filter(|_| positions.len() == 1)
    })
}

/// Numbers that may be large are text.
fn number(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// What is found by reading every key of the histories at this node, in the end.
pub fn last_reads(events: &[Event], held: &Held) -> Vec<Event> {
    let keys: BTreeSet<&str> = events.iter().map(|event| event.key.as_str()).collect();
    let read = |key: &str| {
        let stored = held.shared.get(key).and_then(|stored| stored.value.as_ref());
        let value = stored.map(|value| String::from_utf8_lossy(value).into_owned());
        let operation = Operation::Read(value);
        Event { key: key.to_owned(), operation, begun: held.begun, ended: Some(held.ended) }
    };
    keys.into_iter().map(read).collect()
}

/// Acknowledged writes that are not there.
pub fn lost<'a>(history: &'a [Write], stored: &BTreeMap<String, Stored>) -> Vec<&'a str> {
    let is_lost =
        |write: &&Write| matches!(write.told, Told::Done(_)) && !stored.contains_key(&write.key);
    history.iter().filter(is_lost).map(|write| write.key.as_str()).collect()
}

/// Acknowledged writes among the events.
pub fn acknowledged(events: &[Event]) -> usize {
    let is_one = |event: &&Event| match event.operation {
        Operation::Write(_) => event.ended.is_some(),
        Operation::WriteIf { told, .. } | Operation::Delete { told } => told == Some(true),
        Operation::Read(_) => false,
    };
    events.iter().filter(is_one).count()
}

/// Panics unless lies that are planted into these true records are found. `reads` of the events,
/// the last ones, are those of [`last_reads`].
pub fn planted_lies_are_found(history: &[Write], held: &Held, events: &mut [Event], reads: usize) {
    let first = events.len() - reads;
    // Nothing that is still open may explain that the key is gone.
    let open: BTreeSet<&str> =
        events.iter().filter(|e| e.ended.is_none()).map(|e| e.key.as_str()).collect();
    let is_sure = |event: &Event| !open.contains(event.key.as_str());
    let there = |event: &Event| matches!(event.operation, Operation::Read(Some(_)));
    let at = (first..events.len()).find(|at| is_sure(&events[*at]) && there(&events[*at]));
    let at = at.expect("something was written and is there");
    let truth = std::mem::replace(&mut events[at].operation, Operation::Read(None));
    let key = events[at].key.clone();
    assert!(!explained(events, &key), "a value of {key} that is gone in the end is not missed");
    events[at].operation = truth;
    assert!(explained(events, &key), "the truth is one again");

    let key = linearizable::plant_stale_read(events).expect("values were read twice");
    assert!(!explained(events, &key), "a stale read of {key} is not found");

    let done = history.iter().find(|write| matches!(write.told, Told::Done(_)));
    let key = &done.expect("something was acknowledged").key;
    let mut without = held.once.clone();
    without.remove(key);
    assert_eq!(lost(history, &without), [key], "a lost write is not missed");
    assert_eq!(workload::lies(history, &without).len(), 1, "a lost write is no lie");
}

fn explained(events: &[Event], key: &str) -> bool {
    let of_key: Vec<Event> = events.iter().filter(|event| event.key == key).cloned().collect();
    linearizable::unexplained(&of_key).is_empty()
}
