//! How the asynchronous side of the program reaches the node: requests in, answers out, and what
//! can be read without asking.
//!
//! Cloned freely. The store's view and the node's status are published whole by the node's thread
//! and read here without a lock, so they answer even when that thread is busy or waits for nobody.
//!
//! The node's thread ends every request by its deadline. Should that thread be stuck, writes and
//! reads still wait for it here: whoever asks gives up by a timer of their own (as `api` does), and
//! a second one would cost each request as much as the first. Requests that are rare, or that have
//! no such timer above them, have one here.

use super::attached::list_lost;
use super::driver::StoreView;
use super::event::{Event, Lookup, Read, Recall, RequestError, Trace, Transfer, Write};
use super::inbox::Inbox;
use super::recorder::Recalled;
use super::status::NodeStatus;
use super::trace::Traced;
use crate::paxos::ballot::{NodeId, Slot};
use crate::store::command::{Operation, Outcome};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::watchdog::Watchdog;
use crate::transport::keyring::{Keyring, SignedBundle};
use crate::wire::store_call::{Found, Query};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// The node's thread keeps the deadlines, and knows best what became of a request. Only if it says
/// nothing for this much longer is it taken for stuck, so that whoever asks never waits for ever.
const STUCK_AFTER: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Clone)]
pub struct NodeHandle {
    inbox: Arc<Inbox>,
    views: Arc<ArcSwapOption<StoreView>>,
    tokens: Arc<AtomicU64>,
    status: Arc<ArcSwap<NodeStatus>>,
    metrics: Arc<Metrics>,
    watchdog: Watchdog,
    /// When the node's clock read zero.
    started: Instant,
    keyring: Option<Arc<Keyring>>,
}

impl NodeHandle {
    /// A handle to the node that reads this inbox and publishes there; `started` is when its clock
    /// read zero.
    pub fn new(
        inbox: Arc<Inbox>,
        views: Arc<ArcSwapOption<StoreView>>,
        status: Arc<ArcSwap<NodeStatus>>,
        metrics: Arc<Metrics>,
        watchdog: Watchdog,
        started: Instant,
    ) -> NodeHandle {
        let (tokens, keyring) = (Arc::default(), None);
        NodeHandle { inbox, views, tokens, status, metrics, watchdog, started, keyring }
    }

    /// With the keys that the status is to tell of.
    pub fn with_keyring(self, keyring: Arc<Keyring>) -> NodeHandle {
        NodeHandle { keyring: Some(keyring), ..self }
    }

    /// The trust bundle that the node goes by; none without keys.
    pub fn bundle(&self) -> Option<Arc<SignedBundle>> {
        self.keyring.as_ref().map(|keyring| keyring.signed_bundle())
    }

    /// The deadline on the node's clock.
    fn on_node_clock(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.started)
    }

    /// Replicates a write; resolves once it is applied on this node.
    ///
    /// # Errors
    /// Says whether the write may have been applied.
    pub async fn write(
        &self,
        principal: &str,
        operation: Operation,
        request_id: Option<String>,
        deadline: Instant,
    ) -> Result<Outcome, RequestError> {
        let (sender, answer) = oneshot::channel();
        let write = Write {
            principal: principal.to_owned(),
            operation,
            request_id,
            deadline: self.on_node_clock(deadline),
            reply: Box::new(move |outcome| {
                // Nobody listens any more when the client went away.
                let _ = sender.send(outcome);
            }),
        };
        self.push(Event::Write(write))?;
        // No timer here; see the module's documentation.
        answer.await.map_err(|_| {
            RequestError::UnknownOutcome(
                "the node stopped while the write was under way; it may have been applied: read \
                 the key on another node"
                    .to_owned(),
            )
        })?
    }

    /// The store, on this node or on another: as new as anything that was acknowledged, anywhere,
    /// before the call, or as this node has applied it.
    ///
    /// # Errors
    /// When no quorum confirmed that in time.
    pub async fn sight(
        &self,
        linearizable: bool,
        deadline: Instant,
    ) -> Result<Sight, RequestError> {
        if self.views.load().is_none() {
            // The node that has the store looks at the deadline with the first question.
            let token = self.tokens.fetch_add(1, Ordering::Relaxed);
            return Ok(Sight::Elsewhere(Borrowed {
                node: self.clone(),
                token,
                linearizable,
                deadline,
                page: AtomicU64::new(0),
                revision: AtomicU64::new(0),
            }));
        }
        if linearizable {
            self.read_barrier(deadline).await?;
        }
        self.views.load_full().map(Sight::Here).ok_or_else(|| Unanswered::Stopped.into())
    }

    /// Resolves once the view shows everything that was acknowledged before the call.
    async fn read_barrier(&self, deadline: Instant) -> Result<(), RequestError> {
        let (sender, answer) = oneshot::channel();
        let read = Read {
            deadline: self.on_node_clock(deadline),
            reply: Box::new(move |outcome| {
                let _ = sender.send(outcome);
            }),
        };
        self.push(Event::Read(read))?;
        // No timer here; see the module's documentation.
        answer.await.map_err(|_| RequestError::from(Unanswered::Stopped))?
    }

    /// What the node knows of itself and the others, and which loops of its process stand still.
    /// Answers when the node's thread does not: with what it published last, and how old that is.
    pub fn status(&self) -> Arc<NodeStatus> {
        let published = self.status.load();
        let now = self.started.elapsed();
        let status = NodeStatus::clone(&published).seen(now, self.watchdog.stalls());
        Arc::new(match &self.keyring {
            Some(keyring) => status.with_keys(keyring.standing(SystemTime::now())),
            None => status,
        })
    }

    /// Has leadership passed to `to`, or to whoever is best placed; answers who leads then.
    ///
    /// # Errors
    /// When it did not move before the deadline.
    pub async fn transfer(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, RequestError> {
        let (sender, answer) = oneshot::channel();
        let transfer = Transfer {
            to,
            deadline: self.on_node_clock(deadline),
            reply: Box::new(move |outcome| {
                let _ = sender.send(outcome);
            }),
        };
        self.push(Event::Transfer(transfer))?;
        answered(answer, deadline).await.unwrap_or_else(|why| {
            let text = format!("{}; leadership may yet move: see who leads", why.says());
            Err(RequestError::UnknownOutcome(text))
        })
    }

    /// What the recorder holds from number `since` on: a bounded part of it.
    ///
    /// # Errors
    /// When the node has too much to do, or stopped.
    pub async fn recall(&self, since: u64) -> Result<Recalled, RequestError> {
        let (sender, answer) = oneshot::channel();
        let reply = Box::new(move |recalled| {
            let _ = sender.send(recalled);
        });
        self.push(Event::Recall(Recall { since, reply }))?;
        // The node's thread answers at its next turn.
        answered(answer, Instant::now()).await.unwrap_or_else(|why| Err(why.into()))
    }

    /// How a slot was chosen, as far as the members' recorders tell.
    ///
    /// # Errors
    /// When the node has too much to do, or stopped.
    pub async fn trace(&self, slot: u64, deadline: Instant) -> Result<Traced, RequestError> {
        let (sender, answer) = oneshot::channel();
        let reply = Box::new(move |traced| {
            let _ = sender.send(traced);
        });
        let by = self.on_node_clock(deadline);
        self.push(Event::Trace(Trace { slot: Slot(slot), deadline: by, reply }))?;
        answered(answer, deadline).await.unwrap_or_else(|why| Err(why.into()))
    }

    /// The page of metrics.
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn push(&self, event: Event) -> Result<(), RequestError> {
        self.inbox.push_client(event).map_err(|_| {
            RequestError::Busy(
                "this node has more requests than it can look at; nothing was applied: try again \
                 shortly"
                    .to_owned(),
            )
        })
    }
}

/// The store as a client sees it.
pub enum Sight {
    /// This node's own, unchanging.
    Here(Arc<StoreView>),
    /// Another node's, asked for piece by piece; its pieces are of one view as well.
    Elsewhere(Borrowed),
}

/// A view that another node keeps for a client of this one.
pub struct Borrowed {
    node: NodeHandle,
    token: u64,
    linearizable: bool,
    deadline: Instant,
    /// Answers so far; 0 again once nothing is kept for this view.
    page: AtomicU64,
    /// That of the first page.
    revision: AtomicU64,
}

/// How long a further page of a list may take: its client reads as it likes, so the deadline of the
/// request does not hold for it.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(5);

impl Borrowed {
    /// # Errors
    /// When no node with a store answered in time.
    pub async fn look_up(&self, query: Query) -> Result<Found, RequestError> {
        let (sender, answer) = oneshot::channel();
        let page = self.page.load(Ordering::Relaxed);
        let deadline = if page > 0 { Instant::now() + PAGE_WAIT_MAX } else { self.deadline };
        let lookup = Lookup {
            token: self.token,
            linearizable: self.linearizable,
            page,
            query,
            deadline: self.node.on_node_clock(deadline),
            reply: Box::new(move |found| {
                let _ = sender.send(found);
            }),
        };
        self.node.push(Event::Lookup(lookup))?;
        let found = answered(answer, deadline).await.unwrap_or_else(|why| Err(why.into()))?;
        let before = self.revision.swap(found.revision, Ordering::Relaxed);
        if page > 0 && before != found.revision {
            // A host that was left and taken again may have kept another view under our token.
            return Err(list_lost());
        }
        self.page.store(if found.ended { 0 } else { page + 1 }, Ordering::Relaxed);
        Ok(found)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.page.load(Ordering::Relaxed) > 0 {
            // However much clients want: the view would be kept for long. Each list that was begun
            // causes one.
            self.node.inbox.push_own(Event::Leave(self.token));
        }
    }
}

/// Why the node's thread said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    /// It ended.
    Stopped,
    /// It does not come back.
    Stuck,
}

impl Unanswered {
    fn says(self) -> &'static str {
        match self {
            Unanswered::Stopped => "the node stopped",
            Unanswered::Stuck => "the node's thread did not answer in time (see `paxos status`)",
        }
    }
}

/// What to say of a request that changes nothing.
impl From<Unanswered> for RequestError {
    fn from(why: Unanswered) -> RequestError {
        RequestError::NoQuorum(format!("{}; ask another node", why.says()))
    }
}

/// The node's answer, or why there is none.
async fn answered<T>(answer: oneshot::Receiver<T>, deadline: Instant) -> Result<T, Unanswered> {
    let limit = tokio::time::Instant::from_std(deadline + STUCK_AFTER);
    match tokio::time::timeout_at(limit, answer).await {
        Ok(answer) => answer.map_err(|_| Unanswered::Stopped),
        Err(_elapsed) => Err(Unanswered::Stuck),
    }
}
