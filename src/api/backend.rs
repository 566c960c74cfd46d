//! All that a node is to its clients, as a trait: a handful of things, no more.
//!
//! The node implements it; so does the small imitation in the tests, which can be told to be slow,
//! without a quorum, or full.

use crate::node::event::RequestError;
use crate::node::handle::{NodeHandle, Sight};
use crate::node::recorder::Recalled;
use crate::node::status::NodeStatus;
use crate::node::trace::Traced;
use crate::paxos::ballot::NodeId;
use crate::store::command::{Operation, Outcome};
use crate::transport::keyring::SignedBundle;
use crate::wire::answer::Record;
use crate::wire::request::Consistency;
use crate::wire::store_call::{Found, Query};
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

/// A node.
pub trait Backend: Clone + Send + Sync + 'static {
    /// A picture of the store.
    type View: Reads;

    /// Proposes a change and waits until it is applied here, or the deadline is over.
    fn write(
        &self,
        principal: &str,
        operation: Operation,
        request_id: Option<String>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Outcome, RequestError>> + Send;

    /// The store: with everything acknowledged before this call in it, or as this node has it.
    fn view(
        &self,
        consistency: Consistency,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::View, RequestError>> + Send;

    /// What the node knows of itself and the others.
    fn status(&self) -> Arc<NodeStatus>;

    /// Hands leadership to that node, or to the best-placed one; answers who leads.
    fn transfer(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> impl Future<Output = Result<NodeId, RequestError>> + Send;

    /// Events of the protocol from number `since` on, or from the oldest one kept: a bounded part.
    fn recall(&self, since: u64) -> impl Future<Output = Result<Recalled, RequestError>> + Send;

    /// What the members' recorders hold of a slot.
    fn trace(
        &self,
        slot: u64,
        deadline: Instant,
    ) -> impl Future<Output = Result<Traced, RequestError>> + Send;

    /// The page of metrics.
    fn metrics(&self) -> String;

    /// The trust bundle that the node goes by, if it has keys.
    fn bundle(&self) -> Option<Arc<SignedBundle>>;
}

/// An unchanging picture of the store, here or on another node.
pub trait Reads: Send + Sync + 'static {
    /// What is stored under the key.
    fn get(&self, key: &Bytes)
    -> impl Future<Output = Result<Option<Record>, RequestError>> + Send;

    /// Some keys that start with `prefix` and come behind `after`, in order, with their values: at
    /// most `limit`, and fewer if they are large. At least one, if there is one. Values may be
    /// missing if only keys are wanted.
    fn list(
        &self,
        prefix: &Bytes,
        after: Option<&Bytes>,
        limit: usize,
        keys_only: bool,
    ) -> impl Future<Output = Result<Found, RequestError>> + Send;
}

impl Backend for NodeHandle {
    type View = Sight;

    fn write(
        &self,
        principal: &str,
        operation: Operation,
        request_id: Option<String>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Outcome, RequestError>> + Send {
        NodeHandle::write(self, principal, operation, request_id, deadline)
    }

    fn view(
        &self,
        consistency: Consistency,
        deadline: Instant,
    ) -> impl Future<Output = Result<Sight, RequestError>> + Send {
        self.sight(consistency == Consistency::Linearizable, deadline)
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

    fn recall(&self, since: u64) -> impl Future<Output = Result<Recalled, RequestError>> + Send {
        NodeHandle::recall(self, since)
    }

    fn trace(
        &self,
        slot: u64,
        deadline: Instant,
    ) -> impl Future<Output = Result<Traced, RequestError>> + Send {
        NodeHandle::trace(self, slot, deadline)
    }

    fn metrics(&self) -> String {
        NodeHandle::metrics(self)
    }

    fn bundle(&self) -> Option<Arc<SignedBundle>> {
        NodeHandle::bundle(self)
    }
}

impl Reads for Sight {
    async fn get(&self, key: &Bytes) -> Result<Option<Record>, RequestError> {
        match self {
            Sight::Here(view) => {
                Ok(view.get(key).map(|stored| Record::new(Bytes::copy_from_slice(key), stored)))
            }
            Sight::Elsewhere(view) => {
                let mut found = view.look_up(Query::Get { key: key.clone() }).await?;
                Ok(found.records.pop())
            }
        }
    }

    async fn list(
        &self,
        prefix: &Bytes,
        after: Option<&Bytes>,
        limit: usize,
        keys_only: bool,
    ) -> Result<Found, RequestError> {
        match self {
            Sight::Here(view) => {
                let mut rows =
                    view.list(prefix, after.map(|after| &after[..]), limit.saturating_add(1));
                let ended = rows.len() <= limit;
                rows.truncate(limit);
                let records = rows.into_iter().map(|(key, stored)| Record::new(key, stored));
                Ok(Found { revision: view.revision(), records: records.collect(), ended })
            }
            Sight::Elsewhere(view) => {
                let (prefix, after) = (prefix.clone(), after.cloned());
                view.look_up(Query::List { prefix, after, limit: limit as u64, keys_only }).await
            }
        }
    }
}
