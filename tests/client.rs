//! The Rust client against nodes in miniature: many calls on one channel, broken channels, nodes
//! that are gone, and above all: that no write without a request id is ever sent twice when it may
//! have been applied.

mod backend;

use backend::{Fake, Mood};
use bytes::Bytes;
use paxos_ssh::client::cluster::{Cluster, Open, Opens};
use paxos_ssh::client::rpc::{CallError, Receives, RpcClient, Sends};
use paxos_ssh::store::command::Condition;
use paxos_ssh::transport::client::ChannelEvent;
use paxos_ssh::transport::identity::Principal;
use paxos_ssh::transport::session::{ExecRequest, ExecSession, OutputEvent};
use paxos_ssh::wire::failure::Code;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::rpc::{Call, Reply};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(5);

struct To(mpsc::Sender<Bytes>);

impl Sends for To {
    async fn send(&mut self, bytes: Bytes) -> bool {
        self.0.send(bytes).await.is_ok()
    }
}

struct From(mpsc::Receiver<ChannelEvent>);

impl Receives for From {
    async fn next(&mut self) -> ChannelEvent {
        self.0.recv().await.unwrap_or_else(|| ChannelEvent::Closed("cut".to_owned()))
    }
}

/// A channel to a node in miniature; cancelling `cut` breaks it.
fn connect(fake: &Fake, cut: CancellationToken) -> RpcClient {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let request = ExecRequest::Subsystem("paxos-rpc".to_owned());
    let (session, mut far) = ExecSession::detached(Principal::Local, nowhere, request);
    let api = fake.api();
    tokio::spawn(async move { api.serve(session).await });
    let (to, mut input) = mpsc::channel::<Bytes>(4);
    let (events, from) = mpsc::channel(4);
    tokio::spawn(async move {
        let (feed, mut output) = far.streams();
        let give = async {
            while let Some(bytes) = input.recv().await {
                feed.push(&bytes).await;
            }
            feed.end();
            std::future::pending::<()>().await;
        };
        let take = async {
            while let Some(event) = output.next().await {
                let event = match event {
                    OutputEvent::Stdout(bytes) => ChannelEvent::Stdout(bytes),
                    OutputEvent::Stderr(bytes) => ChannelEvent::Stderr(bytes),
                    OutputEvent::Exit(exit) => ChannelEvent::Exit(exit),
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = give => {}
            () = take => {}
            () = cut.cancelled() => {}
        }
    });
    RpcClient::start(To(to), From(from))
}

/// A node that can be unreachable.
#[derive(Clone)]
struct Node {
    name: &'static str,
    fake: Fake,
    is_down: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
}

impl Node {
    fn new(name: &'static str, fake: &Fake) -> Node {
        let (is_down, opened, cut) = Default::default();
        Node { name, fake: fake.clone(), is_down, opened, cut }
    }

    fn stop(&self) {
        self.is_down.store(true, Ordering::Relaxed);
        self.cut.lock().unwrap().cancel();
    }
}

impl Opens for Node {
    async fn open(&self, _limit: Duration) -> Result<Open, String> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err("connection refused".to_owned());
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        let cut = CancellationToken::new();
        *self.cut.lock().unwrap() = cut.clone();
        Ok(Open { client: connect(&self.fake, cut), connection: None })
    }

    fn name(&self) -> &str {
        self.name
    }
}

fn put(key: &str, value: &str, request_id: Option<&str>) -> Call {
    Call::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        condition: Condition::Always,
        request_id: request_id.map(str::to_owned),
    }
}

fn get(key: &str) -> Call {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Call::Get { key, consistency: Consistency::Linearizable }
}

#[tokio::test]
async fn many_calls_share_a_channel() {
    let fake = Fake::new();
    let client = connect(&fake, CancellationToken::new());
    let calls = (0..3000).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.call(put(&format!("k{n}"), "v", None), TIMEOUT).await })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        assert!(matches!(call.await.unwrap(), Ok(Reply::Written { .. })));
    }
    assert_eq!(fake.proposed(), 3000);
    let missing = client.call(get("missing"), TIMEOUT).await;
    assert!(matches!(missing, Err(CallError::Failed(failure)) if failure.code == Code::NotFound));
}

#[tokio::test]
async fn a_broken_channel_ends_every_call_and_takes_no_more() {
    let fake = Fake::new();
    let cut = CancellationToken::new();
    let client = connect(&fake, cut.clone());
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.call(put("held", "v", None), TIMEOUT).await })
    };
    while fake.proposed() == 0 {
        tokio::task::yield_now().await;
    }
    cut.cancel();
    assert!(matches!(waiting.await.unwrap(), Err(CallError::Lost(_))));
    assert!(!client.is_open());
    assert!(matches!(client.call(get("k"), TIMEOUT).await, Err(CallError::NotSent(_))));
}

#[tokio::test]
async fn a_silent_node_is_given_up() {
    let fake = Fake::new();
    fake.mood(Mood::Silent);
    let client = connect(&fake, CancellationToken::new());
    let call = client.call(put("k", "v", None), Duration::from_millis(1)).await;
    assert!(matches!(call, Err(CallError::Lost(_))), "{call:?}");
}

#[tokio::test]
async fn calls_go_on_at_another_node() {
    let fake = Fake::new();
    let (one, two) = (Node::new("one", &fake), Node::new("two", &fake));
    let cluster = Cluster::new(vec![one.clone(), two.clone()]);
    cluster.call(put("k", "1", None), TIMEOUT).await.unwrap();
    one.stop();
    let Reply::Value { value, .. } = cluster.call(get("k"), TIMEOUT).await.unwrap() else {
        panic!("no value")
    };
    assert_eq!(value, "1");
    cluster.call(put("k", "2", None), TIMEOUT).await.unwrap();
    assert_eq!((one.opened.load(Ordering::Relaxed), two.opened.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_not_sent_again() {
    let fake = Fake::new();
    let (one, two) = (Node::new("one", &fake), Node::new("two", &fake));
    let cluster = Arc::new(Cluster::new(vec![one.clone(), two]));
    let writing = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.call(put("held", "v", None), TIMEOUT).await })
    };
    while fake.proposed() == 0 {
        tokio::task::yield_now().await;
    }
    one.stop();
    let failure = writing.await.unwrap().unwrap_err();
    assert_eq!(failure.code, Code::UnknownOutcome);
    assert_eq!(fake.proposed(), 1);
}

#[tokio::test]
async fn a_write_with_a_request_id_is_sent_again_and_applied_once() {
    let fake = Fake::new();
    let (one, two) = (Node::new("one", &fake), Node::new("two", &fake));
    let cluster = Arc::new(Cluster::new(vec![one.clone(), two]));
    let writing = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.call(put("held", "v", Some("r1")), TIMEOUT).await })
    };
    while fake.proposed() == 0 {
        tokio::task::yield_now().await;
    }
    one.stop();
    fake.gate.add_permits(2);
    assert_eq!(writing.await.unwrap(), Ok(Reply::Written { revision: 1 }));
}

#[tokio::test]
async fn what_was_certainly_not_applied_is_tried_until_the_deadline() {
    let fake = Fake::new();
    fake.mood(Mood::NoQuorum);
    let cluster = Arc::new(Cluster::new(vec![Node::new("one", &fake), Node::new("two", &fake)]));
    let failure = cluster.call(put("k", "v", None), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(failure.code, Code::NoQuorum);
    assert!(fake.proposed() > 1, "it was not tried again");
    let writing = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.call(put("k", "v", None), TIMEOUT).await })
    };
    let before = fake.proposed();
    while fake.proposed() == before {
        tokio::task::yield_now().await;
    }
    fake.mood(Mood::Well);
    assert!(writing.await.unwrap().is_ok());
}

#[tokio::test]
async fn with_every_node_gone_nothing_was_applied() {
    let fake = Fake::new();
    let (one, two) = (Node::new("one", &fake), Node::new("two", &fake));
    one.stop();
    two.stop();
    let cluster = Cluster::new(vec![one, two]);
    let failure = cluster.call(put("k", "v", None), Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((failure.code, fake.proposed()), (Code::NoQuorum, 0));
    assert!(failure.message.contains("connection refused"), "{}", failure.message);
}

/// A node that takes all the time that it gets, and more callers than can try it in turn.
struct Tarpit;

impl Opens for Tarpit {
    async fn open(&self, limit: Duration) -> Result<Open, String> {
        tokio::time::sleep(limit).await;
        Err("nothing came back".to_owned())
    }

    fn name(&self) -> &str {
        "tarpit"
    }
}

/// A node that cannot be reached, and how much time it got to be.
#[derive(Clone, Default)]
struct Gone(Arc<std::sync::Mutex<Vec<Duration>>>);

impl Opens for Gone {
    async fn open(&self, limit: Duration) -> Result<Open, String> {
        self.0.lock().unwrap().push(limit);
        Err("connection refused".to_owned())
    }

    fn name(&self) -> &str {
        "gone"
    }
}

/// A handshake that is begun to be given up a moment later helps nobody, and keeps a busy node
/// busy. A call that has no more time from the start may try once all the same.
#[tokio::test]
async fn a_call_at_its_end_begins_no_handshake() {
    let enough = Duration::from_millis(500);
    let gone = Gone::default();
    let cluster = Cluster::new(vec![gone.clone()]);
    let failure = cluster.call(get("key"), enough * 4).await.unwrap_err();
    assert!(failure.message.contains("connection refused"), "{}", failure.message);
    let limits = std::mem::take(&mut *gone.0.lock().unwrap());
    assert!(limits.len() > 1 && limits.iter().all(|limit| *limit >= enough), "{limits:?}");
    let failure = cluster.call(get("key"), enough / 10).await.unwrap_err();
    assert!(failure.message.contains("connection refused"), "{}", failure.message);
    assert!(!gone.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn callers_that_queue_for_a_connection_keep_their_deadlines() {
    let cluster = Cluster::new(vec![Tarpit]);
    let timeout = Duration::from_millis(500);
    let calls = (0..20).map(|_| cluster.call(get("key"), timeout));
    let limit = timeout * 4;
    let all = tokio::time::timeout(limit, futures::future::join_all(calls)).await;
    let all = all.expect("they wait for one another");
    assert!(all.iter().all(|ended| ended.as_ref().is_err_and(|f| f.code == Code::NoQuorum)));
}
