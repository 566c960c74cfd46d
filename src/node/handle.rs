//! How the asynchronous side of the program reaches the node: requests in, answers out, and what
//! can be read without asking.
//!
//! Cloned freely. The store's view and the node's status are published whole by the node's thread
//! and read here without a lock, so they answer even when that thread is busy or waits for nobody.

use super::driver::StoreView;
use super::event::{Event, Read, RequestError, Transfer, Write};
use super::inbox::Inbox;
use super::status::NodeStatus;
use crate::paxos::ballot::NodeId;
use crate::store::command::{Operation, Outcome};
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// See the module's documentation.
#[derive(Clone)]
pub struct NodeHandle {
    inbox: Arc<Inbox>,
    views: Arc<ArcSwap<StoreView>>,
    status: Arc<ArcSwap<NodeStatus>>,
    metrics: Arc<Metrics>,
    /// When the node's clock read zero.
    started: Instant,
}

impl NodeHandle {
    /// A handle to the node that reads this inbox and publishes there; `started` is when its clock
    /// read zero.
    pub fn new(
        inbox: Arc<Inbox>,
        views: Arc<ArcSwap<StoreView>>,
        status: Arc<ArcSwap<NodeStatus>>,
        metrics: Arc<Metrics>,
        started: Instant,
    ) -> NodeHandle {
        NodeHandle { inbox, views, status, metrics, started }
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
        answer.await.map_err(|_| {
            RequestError::UnknownOutcome(
                "the node stopped while the write was under way; it may have been applied: read \
                 the \
                 key on another node"
                    .to_owned(),
            )
        })?
    }

    /// Resolves once [`NodeHandle::view`] shows everything that was acknowledged, anywhere, before
    /// the call.
    ///
    /// # Errors
    /// When no quorum confirmed that in time.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<(), RequestError> {
        let (sender, answer) = oneshot::channel();
        let read = Read {
            deadline: self.on_node_clock(deadline),
            reply: Box::new(move |outcome| {
                let _ = sender.send(outcome);
            }),
        };
        self.push(Event::Read(read))?;
        answer.await.map_err(|_| stopped())?
    }

    /// The store as this node has applied it.
    pub fn view(&self) -> Arc<StoreView> {
        self.views.load_full()
    }

    /// What the node knows of itself and the others.
    pub fn status(&self) -> Arc<NodeStatus> {
        self.status.load_full()
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
        answer.await.map_err(|_| stopped())?
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

fn stopped() -> RequestError {
    RequestError::NoQuorum("the node stopped; ask another node".to_owned())
}
