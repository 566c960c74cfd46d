//! Calls to a cluster: on one node's connection while that works, on another's when it does not;
//! on that of the [first] that can be reached.
//!
//! A call is repeated only if that cannot do harm: reads and writes with a request id always, other
//! writes only when they were certainly not applied. Waits in between grow and are jittered;
//! everything ends by the call's deadline.

use super::backoff::Backoff;
use super::first::{First, first};
use super::rpc::{CallError, RpcClient};
use super::ssh_config::Node;
use crate::transport::client::{self, Connection};
use crate::transport::settings::Settings;
use crate::wire::failure::{Code, Failure};
use crate::wire::rpc::{Call, Reply};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The least time that a call at one node, or the way to one, is worth beginning with: longer than
/// an election takes.
const SHARE_MIN: Duration = Duration::from_millis(500);

/// The time is divided among so many nodes at the most.
const SHARES_MAX: usize = 3;

/// Opens a channel for calls to one node.
pub trait Opens: Send + Sync + 'static {
    /// Opens it, within that time.
    fn open(&self, limit: Duration) -> impl Future<Output = Result<Open, String>> + Send;

    /// What to call the node in messages.
    fn name(&self) -> &str;
}

/// An open channel, and the connection that it needs.
pub struct Open {
    /// For calls.
    pub client: RpcClient,
    /// Kept alive with it.
    pub connection: Option<Arc<Connection>>,
}

impl Opens for Node {
    async fn open(&self, limit: Duration) -> Result<Open, String> {
        let mut settings = Settings::default();
        settings.dial_timeout = settings.dial_timeout.min(limit);
        let Node { endpoint, identity, .. } = self.reread();
        let dialled = client::dial(&endpoint, &identity, &settings).await;
        let connection = dialled.map_err(|error| error.to_string())?;
        let opened = tokio::time::timeout(limit, RpcClient::open(&connection)).await;
        let client = match opened {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_elapsed) => {
                connection.cut();
                return Err(format!("{} did not open the channel within {limit:?}", self.name));
            }
        };
        Ok(Open { client, connection: Some(Arc::new(connection)) })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A channel, the connection that it needs, and which in the order of connections that is.
type Channel = (RpcClient, Option<Arc<Connection>>, u64);

/// Why there is none.
enum NoChannel {
    /// There is too little time left to connect anew.
    NoTime,
    /// For this reason.
    Failed(String),
}

/// Several nodes, as one to call.
pub struct Cluster<N> {
    nodes: Vec<N>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// The node to use, or to try next.
    index: usize,
    open: Option<Open>,
    /// Tells callers that failed together from one that fails later.
    generation: u64,
}

impl<N: Opens> Cluster<N> {
    /// Calls go to the first of `nodes` for as long as it answers.
    ///
    /// # Panics
    /// Without any node.
    pub fn new(nodes: Vec<N>) -> Cluster<N> {
        assert!(!nodes.is_empty(), "a cluster to call has at least one node");
        Cluster { nodes, current: Mutex::default() }
    }

    /// Asks the cluster, trying again on other nodes until `timeout` is over.
    ///
    /// # Errors
    /// The cluster's answer, or: `unknown_outcome` if a write may have been applied, `no_quorum` if
    /// nothing certainly was.
    pub async fn call(&self, call: Call, timeout: Duration) -> Result<Reply, Failure> {
        let deadline = Instant::now() + timeout;
        let mut backoff = Backoff::default();
        let mut may_be_applied = false;
        let mut last: Option<String> = None;
        loop {
            let least = if last.is_none() { Duration::ZERO } else { SHARE_MIN.min(timeout / 4) };
            match self.channel(deadline, least).await {
                // Others may leave the node meanwhile; what is under way there goes on.
                Ok((client, _connection, generation)) => {
                    let left = left_until(deadline);
                    let limit = if call.is_repeatable() { self.share(left) } else { left };
                    match client.call(call.clone(), limit).await {
                        Ok(reply) => return Ok(reply),
                        Err(error) => {
                            let judged = self.judge(&call, error, generation, &mut may_be_applied);
                            last = Some(judged.await?);
                        }
                    }
                }
                Err(NoChannel::NoTime) => {}
                Err(NoChannel::Failed(reason)) => last = Some(reason),
            }
            let wait = backoff.next_wait();
            if Instant::now() + wait >= deadline {
                let last = last.as_deref().unwrap_or("nothing was tried");
                return Err(out_of_time(last, may_be_applied));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The part of the time that one node gets for a call: one that takes the call and then says
    /// nothing must not eat all of it. Two such nodes one after the other leave a third of it; to
    /// divide by more would turn away from nodes that wait for a new leader as they should.
    fn share(&self, left: Duration) -> Duration {
        let nodes = self.nodes.len().clamp(1, SHARES_MAX);
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        (left / nodes).max(SHARE_MIN).min(left)
    }

    /// Whether the call may be repeated; if so, answers why it failed this time.
    async fn judge(
        &self,
        call: &Call,
        error: CallError,
        generation: u64,
        may_be_applied: &mut bool,
    ) -> Result<String, Failure> {
        match error {
            CallError::NotSent(reason) => {
                self.leave(generation).await;
                Ok(reason)
            }
            CallError::Lost(reason) => {
                self.leave(generation).await;
                if !call.is_repeatable() {
                    return Err(out_of_time(&reason, true));
                }
                *may_be_applied |= is_write(call);
                Ok(reason)
            }
            CallError::Failed(failure) => match failure.code {
                // The node knows that nothing was applied; another may do better.
                Code::NoQuorum | Code::SessionExpired => {
                    self.leave(generation).await;
                    Ok(failure.message)
                }
                Code::Busy => Ok(failure.message),
                Code::UnknownOutcome if call.is_repeatable() => {
                    *may_be_applied |= is_write(call);
                    Ok(failure.message)
                }
                _ => Err(failure),
            },
        }
    }

    /// The channel in use, or a new one to the node whose turn it is. The lock is held by whoever
    /// connects, so the wait for it counts as well.
    ///
    /// A call that has less time left than `least` does not connect: those who wait the longest
    /// come first, and one after the other would give up a handshake just begun, which keeps busy
    /// nodes busier and all the other calls waiting.
    async fn channel(&self, deadline: Instant, least: Duration) -> Result<Channel, NoChannel> {
        let waited = tokio::time::timeout_at(deadline.into(), self.current.lock()).await;
        let Ok(mut current) = waited else {
            let reason = "other calls were connecting all that time".to_owned();
            return Err(NoChannel::Failed(reason));
        };
        if let Some(open) = current.open.as_ref().filter(|open| open.client.is_open()) {
            return Ok((open.client.clone(), open.connection.clone(), current.generation));
        }
        if left_until(deadline) < least {
            return Err(NoChannel::NoTime);
        }
        let count = self.nodes.len();
        let in_turn: Vec<usize> = (0..count).map(|at| (current.index + at) % count).collect();
        current.generation += 1;
        current.open = None;
        let left = left_until(deadline);
        let ways: Vec<_> = in_turn.iter().map(|at| self.nodes[*at].open(left)).collect();
        let First { opened, closed } = first(ways).await;
        let Some((place, open)) = opened else {
            current.index = (current.index + 1) % count;
            let why = |(place, why): (usize, String)| {
                format!("{}: {why}", self.nodes[in_turn[place]].name())
            };
            let why: Vec<String> = closed.into_iter().map(why).collect();
            return Err(NoChannel::Failed(why.join("; ")));
        };
        current.index = in_turn[place];
        let (client, connection) = (open.client.clone(), open.connection.clone());
        current.open = Some(open);
        Ok((client, connection, current.generation))
    }

    /// Turns to the next node, unless another caller did so already. Waits no longer than the
    /// callers before it have left.
    async fn leave(&self, generation: u64) {
        let mut current = self.current.lock().await;
        if current.generation == generation {
            current.open = None;
            current.generation += 1;
            current.index = (current.index + 1) % self.nodes.len();
        }
    }
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn is_write(call: &Call) -> bool {
    matches!(call, Call::Put { .. } | Call::Delete { .. })
}

fn out_of_time(last: &str, may_be_applied: bool) -> Failure {
    match may_be_applied {
        true => Failure::new(
            Code::UnknownOutcome,
            format!("the outcome of the write is not known: {last}"),
            "read the key before writing again, or write under a request id",
        ),
        false => Failure::new(
            Code::NoQuorum,
            format!("no node answered in time: {last}"),
            "nothing was changed; \"paxos status\" says what is missing",
        ),
    }
}
