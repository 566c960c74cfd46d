//! How fast three real nodes on this machine are, and how long writes wait when a leader goes away.
//!
//! `cargo bench --bench cluster`. Three processes as `paxos-ctl deploy` makes them; each client has
//! one SSH connection and asks again as soon as it is answered; every write is on disk at a quorum
//! before it is acknowledged. The clients share the machine's processors with the nodes.
//!
//! | variable | default | |
//! |---|---|---|
//! | `PAXOS_BENCH_SECONDS` | 5 | how long each row of the table is measured |
//! | `PAXOS_BENCH_CLIENTS` | `1,64,256` | how many clients |
//! | `PAXOS_BENCH_KILLS` | 20 | how often the leader is killed, and how often it hands over |
//! | `PAXOS_BENCH_FREEZES` | 5 | how often it is stopped |
//! | `TMPDIR` | `/tmp` | must lie on a disk for the figures to mean anything |

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/cluster/faults.rs"]
mod faults;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/cluster/harness.rs"]
mod harness;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/cluster/workload.rs"]
mod workload;

use bytes::Bytes;
use faults::Pauses;
use harness::{Cluster, NODES};
use paxos_ssh::client::rpc::RpcClient;
use paxos_ssh::client::ssh_config::SshConfig;
use paxos_ssh::store::command::Condition;
use paxos_ssh::transport::client::{self, Connection};
use paxos_ssh::transport::settings::Settings;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::rpc::Call;
use std::time::{Duration, Instant};
use workload::Workload;

const VALUE_BYTES: usize = 256;

/// Keys that are written and read.
const KEYS: usize = 10_000;

/// Not counted at the beginning of each row, while connections and batches find their pace.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that are opened at once; nodes bound how many strangers may knock at a time.
const DIALS: usize = 8;

/// In which /proc counts a process's time: the same on every Linux there is, whatever its timer
/// does.
const TICKS_PER_SECOND: u64 = 100;

/// Which nodes the clients of a row are connected to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Leader,
    Follower,
    All,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Work {
    Put,
    Get(Consistency),
}

impl Work {
    fn call(self, key: usize) -> Call {
        let key = Bytes::from(format!("bench/{key:08}"));
        match self {
            Work::Put => Call::Put {
                key,
                value: Bytes::from_static(&[b'v'; VALUE_BYTES]),
                condition: Condition::Always,
                request_id: None,
            },
            Work::Get(consistency) => Call::Get { key, consistency },
        }
    }
}

fn main() {
    let length = Duration::from_secs(from_environment("PAXOS_BENCH_SECONDS", 5));
    let text = std::env::var("PAXOS_BENCH_CLIENTS").unwrap_or_else(|_| "1,64,256".to_owned());
    let sizes: Vec<usize> = text.split(',').map(|n| n.parse().expect("a number")).collect();
    let cluster = Cluster::found();
    println!("three nodes in {}", cluster.path("").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads can be started").block_on(throughput(&cluster, &sizes, length));
    pauses(&cluster);
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

async fn throughput(cluster: &Cluster, sizes: &[usize], length: Duration) {
    fill(cluster).await;
    println!("{:32} {:>9} {:>9} {:>10} {:>11}", "", "p50 ms", "p99 ms", "per second", "CPU µs/op");
    let works = [
        ("put", Work::Put),
        ("get", Work::Get(Consistency::Linearizable)),
        ("local get", Work::Get(Consistency::Local)),
    ];
    for (name, work) in works {
        for clients in sizes {
            if *clients > 1 {
                row(cluster, name, work, *clients, To::All, length).await;
            } else {
                row(cluster, name, work, 1, To::Leader, length).await;
                row(cluster, name, work, 1, To::Follower, length).await;
            }
        }
    }
}

/// Connects that many clients; node by node, so that each has as many as the others.
async fn connect(cluster: &Cluster, clients: usize, to: To) -> Vec<(Connection, RpcClient)> {
    let leader = tokio::task::block_in_place(|| cluster.leader());
    let nodes = NODES.into_iter().filter(|node| match to {
        To::All => true,
        To::Leader => *node == leader,
        To::Follower => *node != leader,
    });
    let nodes: Vec<&str> = nodes.collect();
    let config = SshConfig::load(&cluster.ssh_config()).expect("the controller wrote it");
    let settings = Settings::default();
    let mut open = Vec::with_capacity(clients);
    while open.len() < clients {
        let dials = (open.len()..clients.min(open.len() + DIALS)).map(|at| {
            let node = config.node(nodes[at % nodes.len()], None).expect("it is in the file");
            let settings = &settings;
            async move {
                let dialled = client::dial(&node.endpoint, &node.identity, settings).await;
                let connection = dialled.unwrap_or_else(|error| panic!("{}: {error}", node.name));
                let client = RpcClient::open(&connection).await.expect("the channel opens");
                (connection, client)
            }
        });
        open.extend(futures::future::join_all(dials).await);
    }
    open
}

/// Writes every key once.
async fn fill(cluster: &Cluster) {
    let open = connect(cluster, 1, To::Leader).await;
    let keys: Vec<usize> = (0..KEYS).collect();
    for keys in keys.chunks(500) {
        let puts = keys.iter().map(|key| open[0].1.call(Work::Put.call(*key), TIMEOUT));
        for answer in futures::future::join_all(puts).await {
            answer.expect("the cluster is healthy");
        }
    }
}

async fn row(cluster: &Cluster, name: &str, work: Work, clients: usize, to: To, length: Duration) {
    let open = connect(cluster, clients, to).await;
    let from = Instant::now() + WARM_UP;
    let end = from + length;
    let mut tasks = Vec::with_capacity(clients);
    for (number, (_, client)) in open.iter().enumerate() {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let mut times: Vec<u32> = Vec::new();
            let mut failed = 0_u64;
            // A step without a common divisor with KEYS, from a place of its own.
            let mut key = number * 7919;
            loop {
                key = (key + 6_007) % KEYS;
                let begun = Instant::now();
                if begun >= end {
                    return (times, failed);
                }
                let answer = client.call(work.call(key), TIMEOUT).await;
                if begun < from {
                    continue;
                }
                match answer {
                    Ok(_) => times.push(microseconds(begun.elapsed())),
                    Err(_) => failed += 1,
                }
            }
        }));
    }
    tokio::time::sleep_until(from.into()).await;
    let before = processor_time(cluster);
    tokio::time::sleep_until(end.into()).await;
    let spent = processor_time(cluster).saturating_sub(before);
    let (mut times, mut failed) = (Vec::new(), 0);
    for task in tasks {
        let (of_one, failures) = task.await.expect("no client panics");
        times.extend(of_one);
        failed += failures;
    }
    times.sort_unstable();
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        times.get(index).map_or(f64::NAN, |time| f64::from(*time) / 1e3)
    };
    let place = match to {
        To::Leader => " at the leader",
        To::Follower => " at a follower",
        To::All => "s",
    };
    let count = times.len() as f64;
    println!(
        "{:32} {:9.2} {:9.2} {:10.0} {:11.1}{}",
        format!("{name}, {clients} client{place}"),
        at(0.5),
        at(0.99),
        count / length.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / count,
        if failed > 0 { format!("  {failed} failed") } else { String::new() }
    );
}

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// What the three nodes have used since they started.
fn processor_time(cluster: &Cluster) -> Duration {
    let of = |node: &&str| {
        let pid = cluster.pid(node).expect("it runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in brackets may hold blanks; what is behind it starts with the third field.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|n| n.parse().ok());
        let (user, system): (Option<u64>, Option<u64>) = (ticks(11), ticks(12));
        user.unwrap_or(0) + system.unwrap_or(0)
    };
    let ticks: u64 = NODES.iter().map(of).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn pauses(cluster: &Cluster) {
    let kills = from_environment("PAXOS_BENCH_KILLS", 20);
    let freezes = from_environment("PAXOS_BENCH_FREEZES", 5);
    let work = Workload::start(cluster);
    work.next_acknowledged(Instant::now());
    println!("\npauses to the next acknowledged write, with a writer at each node:");
    let repeat = |what, times, fault: fn(&Cluster, &Workload) -> Duration| {
        let mut pauses = Pauses::default();
        (0..times).for_each(|_| pauses.add(fault(cluster, &work)));
        println!("{}", pauses.line(what));
    };
    repeat("leader killed (-9)", kills, faults::kill_leader);
    repeat("leader stopped (SIGSTOP)", freezes, faults::freeze_leader);
    repeat("leadership transferred", kills, faults::transfer);
    let history = work.finish();
    let (done, unknown, not_applied) = workload::count(&history);
    println!("writes meanwhile: {done} done, {unknown} unknown, {not_applied} not applied");
    workload::check(cluster, &history);
    println!("each acknowledged write is there, once");
}
