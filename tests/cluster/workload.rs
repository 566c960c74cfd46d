//! Clients that write without pause through several nodes, what they were told, and whether it
//! was true.
//!
//! Every write goes to a key of its own, so the store itself counts how often it was applied: a
//! key's version. Half of the writes carry a request id and are tried again elsewhere when a node
//! goes away; the other half are tried once, so that "certainly not applied" and "perhaps applied"
//! are put to the test as well. Writers begin at fixed times and do not wait for answers; a pause
//! is therefore seen to within that time, and writes that fall into it are counted.

use super::harness::{Cluster, PATIENCE};
use bytes::Bytes;
use paxos_ssh::client::cluster::Cluster as Client;
use paxos_ssh::client::ssh_config::{Node, SshConfig};
use paxos_ssh::store::command::Condition;
use paxos_ssh::wire::failure::Code;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::rpc::{Call, Reply};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Each writer begins a write this often unless told otherwise.
pub const EVERY: Duration = Duration::from_millis(5);

/// Writes of one writer that are under way at once: seconds of a pause.
const UNDER_WAY_MAX: usize = 1000;

/// What a write may take. Longer than any change of leader.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What all keys start with.
pub const PREFIX: &str = "w/";

/// Keys that are read at once.
const PAGE: u64 = 1000;

/// What a writer was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It was applied, and this was the store's revision.
    Done(u64),
    /// It may have been applied.
    Unknown,
    /// It was certainly not applied.
    NotApplied,
    /// What nobody should be told here.
    Nonsense(String),
}

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: String,
    pub begun: Instant,
    pub ended: Instant,
    pub told: Told,
}

/// Writers at work.
pub struct Workload {
    runtime: Arc<Runtime>,
    history: Arc<Mutex<Vec<Write>>>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

/// A client of these nodes that asks the one at `first` before the others.
pub fn client(config: &Path, nodes: &[&str], first: usize) -> Client<Node> {
    let config = SshConfig::load(config).expect("the controller wrote it");
    let order = (0..nodes.len()).map(|offset| nodes[(first + offset) % nodes.len()]);
    let node = |name| config.node(name, None).expect("the controller wrote it");
    Client::new(order.map(node).collect())
}

impl Workload {
    /// Starts a writer at each node.
    pub fn start(cluster: &Cluster) -> Workload {
        Workload::start_at(cluster, &cluster.nodes)
    }

    /// Starts a writer at each of these nodes, which goes on at the others while its own is away.
    pub fn start_at(cluster: &Cluster, nodes: &[&'static str]) -> Workload {
        Workload::start_every(EVERY, cluster, nodes)
    }

    /// The same; each begins a write this often.
    pub fn start_every(every: Duration, cluster: &Cluster, nodes: &[&'static str]) -> Workload {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = Arc::new(runtime.expect("threads can be started"));
        let history = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let writers = nodes.iter().enumerate().map(|(at, name)| {
            let client = Arc::new(client(&cluster.ssh_config(), nodes, at));
            let writer = Writer { name, every, client, history: Arc::clone(&history) };
            runtime.spawn(writer.run(Arc::clone(&stop)))
        });
        let writers = writers.collect();
        Workload { runtime, history, stop, writers }
    }

    /// The writes that ended so far.
    fn ended(&self) -> Vec<Write> {
        self.history.lock().expect("no writer panics").clone()
    }

    /// Waits until a write that began after `since` was acknowledged; answers how long after
    /// `since` that was.
    #[track_caller]
    pub fn next_acknowledged(&self, since: Instant) -> Duration {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let history = self.history.lock().expect("no writer panics");
            let acknowledged = history
                .iter()
                .rev()
                .take_while(|write| write.ended >= since)
                .filter(|write| write.begun >= since && matches!(write.told, Told::Done(_)))
                .map(|write| write.ended)
                .min();
            drop(history);
            if let Some(at) = acknowledged {
                return at - since;
            }
            assert!(Instant::now() < deadline, "no write was acknowledged for {PATIENCE:?}");
            crate::harness::pause();
        }
    }

    /// The longest time without an acknowledgement that began between the two.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let acknowledged = |write: &Write| matches!(write.told, Told::Done(_));
        let mut times: Vec<Instant> =
            self.ended().iter().filter(|w| acknowledged(w)).map(|w| w.ended).collect();
        times.sort();
        let pairs = times.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Ends the writers, and waits for what is under way.
    pub fn finish(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            self.runtime.block_on(writer).expect("no writer panics");
        }
        self.history.lock().expect("no writer panics").clone()
    }
}

struct Writer {
    name: &'static str,
    every: Duration,
    client: Arc<Client<Node>>,
    history: Arc<Mutex<Vec<Write>>>,
}

impl Writer {
    async fn run(self, stop: Arc<AtomicBool>) {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut times = tokio::time::interval(self.every);
        for number in 0_u64.. {
            times.tick().await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let Ok(permit) = Arc::clone(&under_way).try_acquire_owned() else { continue };
            let key = format!("{PREFIX}{}/{number:08}", self.name);
            let request_id = (number % 2 == 0).then(|| key.clone());
            let (client, history) = (Arc::clone(&self.client), Arc::clone(&self.history));
            tokio::spawn(async move {
                let write = write(&client, key, request_id).await;
                history.lock().expect("no writer panics").push(write);
                drop(permit);
            });
        }
        let all = u32::try_from(UNDER_WAY_MAX).expect("a small number");
        let _closed_never = under_way.acquire_many(all).await;
    }
}

async fn write(client: &Client<Node>, key: String, request_id: Option<String>) -> Write {
    let begun = Instant::now();
    let put = Call::Put {
        key: Bytes::from(key.clone()),
        value: value_of(&key),
        condition: Condition::Always,
        request_id,
    };
    let told = match client.call(put, TIMEOUT).await {
        Ok(Reply::Written { revision }) => Told::Done(revision),
        Ok(other) => Told::Nonsense(format!("{other:?}")),
        Err(failure) => match failure.code {
            Code::UnknownOutcome => Told::Unknown,
            Code::NoQuorum | Code::Busy => Told::NotApplied,
            _ => Told::Nonsense(failure.to_text()),
        },
    };
    Write { key, begun, ended: Instant::now(), told }
}

fn value_of(key: &str) -> Bytes {
    Bytes::from(format!("the value of {key}"))
}

/// What the store holds for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub value: Option<Bytes>,
    revision: u64,
    version: u64,
}

/// All written keys, as a node tells them after it caught up.
pub fn stored(cluster: &Cluster, node: &str) -> BTreeMap<String, Stored> {
    stored_under(PREFIX, cluster, node)
}

/// All keys that start like this, as a node tells them after it caught up.
pub fn stored_under(
    prefix: &'static str,
    cluster: &Cluster,
    node: &str,
) -> BTreeMap<String, Stored> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let config = SshConfig::load(&cluster.ssh_config()).expect("the controller wrote it");
    let client = Client::new(vec![config.node(node, None).expect("the controller wrote it")]);
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let list = Call::List {
            prefix: Bytes::from_static(prefix.as_bytes()),
            after: after.take(),
            limit: Some(PAGE),
            keys_only: false,
            consistency: Consistency::Linearizable,
        };
        let page = match runtime.block_on(client.call(list, PATIENCE)) {
            Ok(Reply::Listed(page)) => page,
            other => panic!("{node} does not list its keys: {other:?}"),
        };
        after = page.items.last().map(|record| record.key.clone());
        for record in page.items {
            let key = String::from_utf8(record.key.to_vec()).expect("we wrote text");
            let (value, revision, version) = (record.value, record.revision, record.version);
            all.insert(key, Stored { value, revision, version });
        }
        if !page.more {
            return all;
        }
    }
}

/// What is wrong with what the writers were told, given what is stored: nothing, if all is well.
pub fn lies(history: &[Write], stored: &BTreeMap<String, Stored>) -> Vec<String> {
    let mut lies = Vec::new();
    let told: BTreeMap<&str, &Told> = history.iter().map(|w| (w.key.as_str(), &w.told)).collect();
    for (key, found) in stored {
        if !told.contains_key(key.as_str()) {
            lies.push(format!("{key} is stored, and nobody wrote it"));
        }
        if found.version != 1 {
            lies.push(format!("{key} was applied {} times", found.version));
        }
        if found.value.as_ref() != Some(&value_of(key)) {
            lies.push(format!("{key} holds {:?}", found.value));
        }
    }
    for (key, told) in told {
        match (told, stored.get(key)) {
            (Told::Done(revision), Some(found)) if found.revision == *revision => {}
            (Told::NotApplied, None) | (Told::Unknown, _) => {}
            (told, found) => lies.push(format!("{key}: told {told:?}, stored {found:?}")),
        }
    }
    lies
}

/// Panics unless all that the writers were told is true at every node, and they were told enough.
#[track_caller]
pub fn check(cluster: &Cluster, history: &[Write]) {
    for node in &cluster.nodes {
        let lies = lies(history, &stored(cluster, node));
        let first: Vec<&String> = lies.iter().take(10).collect();
        assert!(lies.is_empty(), "{} of {} at {node}: {first:#?}", lies.len(), history.len());
    }
}

/// How many writes were told what: done, unknown, not applied.
pub fn count(history: &[Write]) -> (usize, usize, usize) {
    let of = |wanted: fn(&Told) -> bool| history.iter().filter(|w| wanted(&w.told)).count();
    let done = of(|told| matches!(told, Told::Done(_)));
    (done, of(|told| *told == Told::Unknown), of(|told| *told == Told::NotApplied))
}

#[test]
fn each_kind_of_lie_is_found() {
    let now = Instant::now();
    let write = |key: &str, told| Write { key: key.into(), begun: now, ended: now, told };
    let entry = |key: &str, revision, version| {
        let stored = Stored { value: Some(value_of(key)), revision, version };
        (key.to_owned(), stored)
    };
    let history = [
        write("a", Told::Done(7)),
        write("b", Told::Unknown),
        write("c", Told::Unknown),
        write("d", Told::NotApplied),
    ];
    let truth = BTreeMap::from([entry("a", 7, 1), entry("c", 8, 1)]);
    assert_eq!(lies(&history, &truth), Vec::<String>::new());
    let with = |key, revision, version| {
        let mut changed = truth.clone();
        changed.extend([entry(key, revision, version)]);
        lies(&history, &changed).len()
    };
    assert_eq!(with("a", 7, 2), 1, "applied twice");
    assert_eq!(with("a", 9, 1), 1, "another revision than was told");
    assert_eq!(with("d", 9, 1), 1, "applied, and told that it was not");
    assert_eq!(with("e", 9, 1), 1, "never written");
    let mut lost = truth.clone();
    lost.remove("a");
    assert_eq!(lies(&history, &lost).len(), 1, "acknowledged, and lost");
    let mut changed = truth.clone();
    changed.extend([("a".to_owned(), Stored { value: None, revision: 7, version: 1 })]);
    assert_eq!(lies(&history, &changed).len(), 1, "another value");
}
