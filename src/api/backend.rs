//! All that a node is to its clients, as a trait: seven things, no more.
//!
//! The node implements it; so does the small imitation in the tests, which can be told to be slow,
//! without a quorum, or full.

use crate::node::driver::StoreView;
use crate::node::event::RequestError;
use crate::node::handle::NodeHandle;
use crate::node::status::NodeStatus;
use crate::paxos::ballot::NodeId;
use crate::store::command::{Operation, Outcome};
use crate::store::engine::ReadEngine;
use crate::store::{KeyValue, View};
use crate::wire::answer::Record;
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

/// A node.
pub trait Backend: Clone + Send + Sync + 'static {
    /// An unchanging picture of the store.
    type View: Reads;

    /// Proposes a change and waits until it is applied here, or the deadline is over.
    fn write(
        &self,
        principal: &str,
        operation: Operation,
        request_id: Option<String>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Outcome, RequestError>> + Send;

    /// Waits until [`view`](Backend::view) holds everything acknowledged before this call.
    fn read_barrier(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// The store as this node has applied it.
    fn view(&self) -> Arc<Self::View>;

    /// What the node knows of itself and the others.
    fn status(&self) -> Arc<NodeStatus>;

    /// Hands leadership to that node, or to the best-placed one; answers who leads.
    fn transfer(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> impl Future<Output = Result<NodeId, RequestError>> + Send;

    /// The page of metrics.
    fn metrics(&self) -> String;
}

/// A picture of the store.
pub trait Reads: Send + Sync + 'static {
    /// What is stored under the key.
    fn get(&self, key: &[u8]) -> Option<Record>;

    /// Up to `limit` keys that start with `prefix` and come behind `after`, in order, with their
    /// values.
    fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Record>;

    /// The revision of the last change in it.
    fn revision(&self) -> u64;
}

impl Backend for NodeHandle {
    type View = StoreView;

    fn write(
        &self,
        principal: &str,
        operation: Operation,
        request_id: Option<String>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Outcome, RequestError>> + Send {
        NodeHandle::write(self, principal, operation, request_id, deadline)
    }

    fn read_barrier(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        NodeHandle::read_barrier(self, deadline)
    }

    fn view(&self) -> Arc<StoreView> {
        NodeHandle::view(self)
    }

    fn status(&self) -> Arc<NodeStatus> {
        NodeHandle::status(self)
    }

    fn transfer(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> impl Future<Output = Result<NodeId, RequestError>> + Send {
        NodeHandle::transfer(self, to, deadline)
    }

    fn metrics(&self) -> String {
        NodeHandle::metrics(self)
    }
}

impl<S: ReadEngine + Send + Sync + 'static> Reads for View<S> {
    fn get(&self, key: &[u8]) -> Option<Record> {
        View::get(self, key).map(|stored| record(Bytes::copy_from_slice(key), stored))
    }

    fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Record> {
        let found = View::list(self, prefix, after, limit);
        found.into_iter().map(|(key, stored)| record(key, stored)).collect()
    }

    fn revision(&self) -> u64 {
        View::revision(self)
    }
}

fn record(key: Bytes, stored: KeyValue) -> Record {
    Record {
        key,
        value: Some(stored.value),
        revision: stored.mod_revision,
        create_revision: stored.create_revision,
        version: stored.version,
    }
}
