//! Loops that stand still, in a whole node without a network: whoever asks is told, although the
//! node's own thread is the one that hangs, and is told that it is over.

mod disk_fixture;

use bytes::Bytes;
use disk_fixture::{Faults, PATIENCE, SMALL, beat_of, faulty, genesis, owner};
use paxos_ssh::api::Api;
use paxos_ssh::disk::files::Handle;
use paxos_ssh::disk::log::open_with;
use paxos_ssh::disk::memory::{MemoryDisk, MemoryLog};
use paxos_ssh::disk::{Log, LogError};
use paxos_ssh::node::clock::SystemWorld;
use paxos_ssh::node::driver::{Driver, Parts};
use paxos_ssh::node::event::{Event, RequestError};
use paxos_ssh::node::handle::NodeHandle;
use paxos_ssh::node::inbox::Inbox;
use paxos_ssh::node::report::Identity;
use paxos_ssh::node::runner::{self, Runner};
use paxos_ssh::node::settings::TimeoutBounds;
use paxos_ssh::node::world::Peers;
use paxos_ssh::paxos::ballot::{NodeId, Slot};
use paxos_ssh::paxos::message::Entry;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::store::command::{Condition, Operation};
use paxos_ssh::telemetry::metrics::{LogMetrics, Metrics};
use paxos_ssh::telemetry::watchdog::{Watchdog, Watched, Watcher, Work};
use paxos_ssh::transport::identity::Principal;
use paxos_ssh::transport::session::{ExecRequest, ExecSession, OutputEvent};
use paxos_ssh::wire::peer::PeerMessage;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So that the tests need not wait as long as operators would.
const LIMIT: Duration = Duration::from_millis(100);

/// Holds up whoever passes while it is closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        drop(self.changed.wait_while(closed, |closed| *closed).unwrap());
    }
}

/// A log whose sync does not return while the gate is closed, which a log must never do.
struct HangingLog {
    log: MemoryLog,
    disk: MemoryDisk,
    inbox: Arc<Inbox>,
    gate: Arc<Gate>,
}

impl Log for HangingLog {
    fn append(&mut self, records: Vec<Record<Bytes>>) {
        self.log.append(records);
    }

    fn sync(&mut self) {
        self.gate.pass();
        self.inbox.push_own(Event::Persisted(self.disk.sync(), Duration::ZERO));
    }

    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn read(
        &mut self,
        first: Slot,
        last: Slot,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Entry<Bytes>>>, LogError> {
        self.log.read(first, last, bytes_max)
    }
}

struct Nobody;

impl Peers for Nobody {
    fn send(&mut self, _to: &[NodeId], _message: PeerMessage) {}
}

/// The only member of its cluster, with all its threads.
struct Node {
    gate: Arc<Gate>,
    inbox: Arc<Inbox>,
    handle: NodeHandle,
    api: Api<NodeHandle>,
    thread: Option<JoinHandle<()>>,
    _watcher: Watcher,
}

impl Node {
    fn start() -> Node {
        let (inbox, gate) = (Arc::new(Inbox::default()), Arc::new(Gate::default()));
        let disk = MemoryDisk::new();
        let (mut log, _) = disk.open().unwrap();
        log.append(vec![genesis()]);
        disk.sync();
        let (log, recovered) = disk.open().unwrap();
        let (hanging_inbox, hanging_gate) = (Arc::clone(&inbox), Arc::clone(&gate));
        let log = HangingLog { log, disk, inbox: hanging_inbox, gate: hanging_gate };
        let metrics = Arc::new(Metrics::new("test", "node1"));
        let watchdog = Watchdog::new(metrics.loops.clone());
        let world = SystemWorld::start();
        let bounds =
            TimeoutBounds { min: Duration::from_millis(50), max: Duration::from_millis(200) };
        let parts = Parts {
            id: NodeId(1),
            cluster: "test".into(),
            log,
            recovered,
            peers: Nobody,
            world,
            bounds,
            metrics: metrics.consensus.clone(),
            judge: Box::new(|_, _| None),
        };
        let driver = Driver::new(parts).unwrap();
        let identity = Identity {
            cluster: "test".into(),
            cluster_id: None,
            node: "node1".into(),
            id: NodeId(1),
        };
        let status = Arc::new(arc_swap::ArcSwap::from_pointee(driver.status(&identity)));
        let handle = NodeHandle::new(
            Arc::clone(&inbox),
            driver.views(),
            Arc::clone(&status),
            Arc::clone(&metrics),
            watchdog.clone(),
            world.started(),
        );
        let api = Api::new(handle.clone(), Arc::clone(&metrics), PathBuf::from("/nonexistent"));
        let beat = watchdog.watch(Watched { limit: LIMIT, ..runner::watched() });
        let inbox_of_runner = Arc::clone(&inbox);
        let runner = Runner { driver, inbox: inbox_of_runner, identity, status, metrics, beat };
        let thread = Some(std::thread::spawn(move || runner.run()));
        let watcher = watchdog.start().unwrap();
        Node { gate, inbox, handle, api, thread, _watcher: watcher }
    }

    async fn ask(&self, command: &str) -> (u32, String) {
        let request = ExecRequest::Exec(command.as_bytes().to_vec());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let (session, mut far) = ExecSession::detached(Principal::Local, nowhere, request);
        let api = self.api.clone();
        tokio::spawn(async move { api.serve(session).await });
        let mut out = Vec::new();
        let all = async {
            loop {
                match far.next().await.expect("a session ends with an exit status") {
                    OutputEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
                    OutputEvent::Stderr(_) => {}
                    OutputEvent::Exit(exit) => return exit,
                }
            }
        };
        let exit = tokio::time::timeout(PATIENCE, all).await.expect("the session hangs");
        (exit, String::from_utf8(out).unwrap())
    }

    /// Asks for the status until it is as wanted.
    async fn status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> (u32, Value) {
        let started = Instant::now();
        loop {
            let (exit, text) = self.ask("paxos status -o json").await;
            let status: Value = serde_json::from_str(&text).unwrap();
            if wanted(&status) {
                return (exit, status);
            }
            assert!(started.elapsed() < PATIENCE, "{what}: still {status}");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.gate.set(false);
        self.inbox.close();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn put() -> Operation {
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
    Operation::Put { key, value, condition: Condition::Always }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_thread_hangs_is_named_in_its_status_and_recovers() {
    let node = Node::start();
    let (exit, well) = node.status("it leads", |status| status["state"] == "leader").await;
    assert_eq!(
        (exit, &well["stalled"], &well["health"]),
        (0, &Value::Array(vec![]), &"healthy".into())
    );

    node.gate.set(true);
    let (handle, deadline) = (node.handle.clone(), Instant::now() + PATIENCE);
    let writing = tokio::spawn(async move { handle.write("local", put(), None, deadline).await });
    let is_named = |status: &Value| status["stalled"][0]["loop"] == "node";
    let (exit, ill) = node.status("it is named", is_named).await;
    assert_eq!((exit, &ill["health"]), (2, &"degraded".into()));
    assert!(ill["why"].as_str().unwrap().contains("the loop node stands still for"), "{ill}");
    assert!(ill["next"].as_str().unwrap().contains("look at the disk"), "{ill}");
    assert!(ill["stalled"][0]["for_seconds"].as_f64().unwrap() >= LIMIT.as_secs_f64(), "{ill}");
    assert!(ill["age_seconds"].as_f64().unwrap() >= LIMIT.as_secs_f64() / 2.0, "{ill}");
    assert_eq!(node.ask("paxos health").await, (0, "degraded\n".to_owned()));
    let (exit, health) = node.ask("paxos health -o json").await;
    let health: Value = serde_json::from_str(&health).expect("an object");
    assert_eq!((exit, &health["stalled"][0]["loop"]), (0, &"node".into()));
    assert!(health["why"].as_str().unwrap().contains("the loop node stands still for"), "{health}");
    let (_, page) = node.ask("paxos metrics").await;
    for line in ["paxos_loop_stalled 1", "paxos_loop_stalls_total{loop=\"node\"} 1"] {
        assert!(page.lines().any(|shown| shown == line), "{line} is missing in\n{page}");
    }
    // Whoever stops a leader waits for this, and must not wait for ever.
    let transfer = node.handle.transfer(None, Instant::now());
    let transferred = tokio::time::timeout(PATIENCE, transfer).await.expect("it hangs, too");
    assert!(matches!(transferred, Err(RequestError::UnknownOutcome(_))), "{transferred:?}");

    node.gate.set(false);
    writing.await.unwrap().expect("what was under way is done");
    let is_over = |status: &Value| status["stalled"] == Value::Array(vec![]);
    let (exit, again) = node.status("it is over", is_over).await;
    assert_eq!((exit, &again["health"], &again["why"]), (0, &"healthy".into(), &"".into()));
    assert!(again["age_seconds"].as_f64() < ill["age_seconds"].as_f64());
}

/// A disk whose syncs do not return while the gate is closed.
struct HangingDisk(Arc<Gate>);

impl Faults for HangingDisk {
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        self.0.pass();
        file.sync()
    }
}

#[test]
fn a_sync_that_does_not_come_back_is_named_and_its_end_is_seen() {
    let watchdog = Watchdog::default();
    let _watcher = watchdog.start().unwrap();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < PATIENCE, "{what}: {:?}", watchdog.stalls());
            std::thread::yield_now();
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let files = faulty(Arc::new(HangingDisk(Arc::clone(&gate))));
    // The writer looks around once a second when it has nothing to do.
    let beat = beat_of(&watchdog, Duration::from_millis(1_500));
    let metrics = LogMetrics::default();
    let (mut log, _) =
        open_with(directory.path(), owner(), SMALL, files, metrics, beat, |_| {}).unwrap();
    gate.set(true);
    log.append(vec![genesis()]);
    log.sync();
    until("the sync is named", &|| !watchdog.stalls().is_empty());
    let stall = watchdog.stalls().remove(0);
    assert_eq!((stall.name.as_str(), stall.work), ("log-writer", Work::Syncing));
    gate.set(false);
    until("the stall ends", &|| watchdog.stalls().is_empty());
}
