//! More requests than a node can answer: many connections to one node, each with as many calls
//! under way as it may have, asked again as soon as they are answered.

use super::harness::Cluster;
use bytes::Bytes;
use paxos_ssh::client::rpc::{CallError, RpcClient};
use paxos_ssh::client::ssh_config::SshConfig;
use paxos_ssh::store::command::Condition;
use paxos_ssh::transport::client::{self, Connection};
use paxos_ssh::transport::settings::Settings;
use paxos_ssh::wire::failure::Code;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::rpc::Call;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Connections to the node.
const CONNECTIONS: usize = 16;

/// Calls under way on each; together more than the node lets wait.
const CALLS: usize = 1024;

/// What one call may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the flood was told.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// Answered as asked.
    pub done: usize,
    /// Refused as too much, or not in time.
    pub refused: usize,
    /// Calls that waited at one moment.
    pub most_under_way: usize,
    /// What nobody should be told here.
    pub other: Vec<String>,
}

/// A flood that goes on until it is stopped.
pub struct Flood {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    /// Kept open until the flood ends.
    connections: Vec<Connection>,
    callers: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Half of the calls write, half read linearizably.
    pub fn start(cluster: &Cluster, node: &str) -> Flood {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let config = SshConfig::load(&cluster.ssh_config()).expect("the controller wrote it");
        let node = config.node(node, None).expect("it is in the file");
        let settings = Settings::default();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Mutex::new(Told::default()));
        let under_way = Arc::new(AtomicUsize::new(0));
        let (mut connections, mut callers) = (Vec::new(), Vec::new());
        for connection in 0..CONNECTIONS {
            let (open, client) = runtime.block_on(async {
                let dialled = client::dial(&node.endpoint, &node.identity, &settings).await;
                let open = dialled.unwrap_or_else(|error| panic!("{error}"));
                let client = RpcClient::open(&open).await.expect("the channel opens");
                (open, client)
            });
            connections.push(open);
            for caller in 0..CALLS {
                let caller = Caller {
                    client: client.clone(),
                    call: call(connection * CALLS + caller),
                    stop: Arc::clone(&stop),
                    told: Arc::clone(&told),
                    under_way: Arc::clone(&under_way),
                };
                callers.push(runtime.spawn(caller.run()));
            }
        }
        Flood { runtime, stop, told, connections, callers }
    }

    /// Waits for what is under way.
    pub fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            self.runtime.block_on(caller).expect("no caller panics");
        }
        drop(self.connections);
        self.told.lock().expect("no caller panics").clone()
    }
}

fn call(number: usize) -> Call {
    let key = Bytes::from(format!("flood/{number}"));
    if number.is_multiple_of(2) {
        let value = Bytes::from_static(&[b'v'; 256]);
        Call::Put { key, value, condition: Condition::Always, request_id: None }
    } else {
        Call::Get { key, consistency: Consistency::Linearizable }
    }
}

struct Caller {
    client: RpcClient,
    call: Call,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    under_way: Arc<AtomicUsize>,
}

impl Caller {
    async fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            let answer = self.client.call(self.call.clone(), TIMEOUT).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            let mut told = self.told.lock().expect("no caller panics");
            told.most_under_way = told.most_under_way.max(now);
            match answer {
                Ok(_) => told.done += 1,
                Err(CallError::Failed(failure)) => match failure.code {
                    // Nothing was written under the key yet.
                    Code::NotFound => told.done += 1,
                    Code::Busy | Code::UnknownOutcome | Code::NoQuorum => told.refused += 1,
                    _ => told.other.push(failure.to_text()),
                },
                Err(CallError::Lost(_)) => told.refused += 1,
                Err(error) => told.other.push(error.to_string()),
            }
        }
    }
}
