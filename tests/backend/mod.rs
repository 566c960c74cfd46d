//! A node in miniature: a map behind the same trait as the real one, which can be told to have no
//! quorum, to be full, or to hold a write back until it is let go.

#![allow(dead_code, reason = "each test program uses a part of it")]

use bytes::Bytes;
use paxos_ssh::api::Api;
use paxos_ssh::api::backend::{Backend, Reads};
use paxos_ssh::node::event::RequestError;
use paxos_ssh::node::recorder::{Recalled, Recorded};
use paxos_ssh::node::status::{Health, MemberStatus, NodeState, NodeStatus, PeerState, RoleName};
use paxos_ssh::node::trace::Traced;
use paxos_ssh::paxos::ballot::{Ballot, ClusterId, Incarnation, NodeId, ProposalNumber, Slot};
use paxos_ssh::store::command::{Condition, Operation, Outcome};
use paxos_ssh::telemetry::metrics::Metrics;
use paxos_ssh::transport::keyring::SignedBundle;
use paxos_ssh::wire::answer::Record;
use paxos_ssh::wire::event::ProtocolEvent;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::store_call::Found;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    NoQuorum,
    Unknown,
    Busy,
    /// Never answers.
    Silent,
}

#[derive(Clone)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
    /// Writes to keys that start with `held` wait for a permit.
    pub(crate) gate: Arc<Semaphore>,
}

#[derive(Default)]
struct Inner {
    keys: BTreeMap<Bytes, Record>,
    revision: u64,
    outcomes: BTreeMap<(String, String), (Operation, Outcome)>,
    mood: Mood,
    health: Option<Health>,
    running: usize,
    running_most: usize,
    proposed: usize,
    transfers: Vec<Option<NodeId>>,
    /// What the recorder holds, and how many events it dropped before those.
    events: Vec<Recorded>,
    forgotten: u64,
    /// What the members' recorders hold.
    traced: Vec<ProtocolEvent>,
}

/// Few, so that pages are turned.
const EVENTS_PER_RECALL: usize = 2;

pub(crate) struct View {
    keys: BTreeMap<Bytes, Record>,
    revision: u64,
}

impl Reads for View {
    async fn get(&self, key: &Bytes) -> Result<Option<Record>, RequestError> {
        Ok(self.keys.get(key).cloned())
    }

    async fn list(
        &self,
        prefix: &Bytes,
        after: Option<&Bytes>,
        limit: usize,
        _keys_only: bool,
    ) -> Result<Found, RequestError> {
        let wanted = |key: &Bytes| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let mut found = self.keys.iter().filter(|(key, _)| wanted(key));
        let records = found.by_ref().take(limit).map(|(_, record)| record.clone()).collect();
        Ok(Found { revision: self.revision, records, ended: found.next().is_none() })
    }
}

impl Fake {
    pub(crate) fn new() -> Fake {
        Fake { inner: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn api(&self) -> Api<Fake> {
        self.api_with_log(PathBuf::from("/nonexistent/paxos.log"))
    }

    pub(crate) fn api_with_log(&self, log: PathBuf) -> Api<Fake> {
        Api::new(self.clone(), Arc::new(Metrics::new("local", "node1")), log)
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    pub(crate) fn health(&self, health: Health) {
        self.inner.lock().unwrap().health = Some(health);
    }

    /// Stores a value past every check.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        self.inner.lock().unwrap().put(key, value);
    }

    pub(crate) fn value(&self, key: &[u8]) -> Option<Bytes> {
        self.inner.lock().unwrap().keys.get(key).and_then(|record| record.value.clone())
    }

    /// Records an event.
    pub(crate) fn record(&self, recorded: Recorded) {
        self.inner.lock().unwrap().events.push(recorded);
    }

    /// Drops the oldest events, as a full ring does.
    pub(crate) fn forget(&self, count: usize) {
        let mut inner = self.inner.lock().unwrap();
        inner.events.drain(..count);
        inner.forgotten += count as u64;
    }

    /// Records events and drops the oldest, before anybody can look.
    pub(crate) fn overrun(&self, events: Vec<Recorded>, dropped: usize) {
        let mut inner = self.inner.lock().unwrap();
        inner.events.extend(events);
        inner.events.drain(..dropped);
        inner.forgotten += dropped as u64;
    }

    /// What members will tell of slots.
    pub(crate) fn traced(&self, events: Vec<ProtocolEvent>) {
        self.inner.lock().unwrap().traced = events;
    }

    /// How many writes were handed over.
    pub(crate) fn proposed(&self) -> usize {
        self.inner.lock().unwrap().proposed
    }

    /// The most writes that were under way at once.
    pub(crate) fn running_most(&self) -> usize {
        self.inner.lock().unwrap().running_most
    }

    pub(crate) fn transfers(&self) -> Vec<Option<NodeId>> {
        self.inner.lock().unwrap().transfers.clone()
    }

    async fn refuse(&self) -> Result<(), RequestError> {
        let mood = self.inner.lock().unwrap().mood;
        match mood {
            Mood::Well => Ok(()),
            Mood::NoQuorum => Err(RequestError::NoQuorum("1 of 3 acceptors answer".into())),
            Mood::Unknown => Err(RequestError::UnknownOutcome("time ran out under way".into())),
            Mood::Busy => Err(RequestError::Busy("4096 writes wait already".into())),
            Mood::Silent => std::future::pending().await,
        }
    }
}

impl Inner {
    fn put(&mut self, key: Bytes, value: Bytes) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        let record = self.keys.entry(key.clone()).or_insert(Record {
            key,
            value: None,
            revision,
            create_revision: revision,
            version: 0,
        });
        record.value = Some(value);
        record.revision = revision;
        record.version += 1;
        revision
    }

    fn holds(&self, key: &Bytes, condition: &Condition) -> Result<(), Outcome> {
        let now = self.keys.get(key);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => now.is_none(),
            Condition::Value(value) => now.is_some_and(|now| now.value.as_ref() == Some(value)),
            Condition::Revision(revision) => now.is_some_and(|now| now.revision == *revision),
        };
        match holds {
            true => Ok(()),
            false => Err(Outcome::ConditionFailed { revision: now.map(|now| now.revision) }),
        }
    }

    fn apply(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::Put { key, value, condition } => match self.holds(&key, &condition) {
                Ok(()) => Outcome::Put { revision: self.put(key, value) },
                Err(outcome) => outcome,
            },
            Operation::Delete { key, condition } => match self.holds(&key, &condition) {
                Ok(()) if self.keys.remove(&key).is_none() => Outcome::NotFound,
                Ok(()) => {
                    self.revision += 1;
                    Outcome::Deleted { revision: self.revision }
                }
                Err(outcome) => outcome,
            },
            Operation::RaiseVersion { to } => Outcome::ClusterVersion(to),
            Operation::PublishBundle { epoch, .. } => Outcome::BundleEpoch(epoch),
            other => panic!("no client asks for {other:?}"),
        }
    }
}

impl Backend for Fake {
    type View = View;

    async fn write(
        &self,
        principal: &str,
        operation: Operation,
        request_id: Option<String>,
        _deadline: Instant,
    ) -> Result<Outcome, RequestError> {
        {
            let mut inner = self.inner.lock().unwrap();
            inner.proposed += 1;
            inner.running += 1;
            inner.running_most = inner.running_most.max(inner.running);
        }
        let held = matches!(&operation, Operation::Put { key, .. } if key.starts_with(b"held"));
        if held {
            self.gate.acquire().await.unwrap().forget();
        } else {
            // Others get their turn, as with a real node.
            tokio::task::yield_now().await;
        }
        self.refuse().await?;
        let mut inner = self.inner.lock().unwrap();
        inner.running -= 1;
        let id = request_id.map(|id| (principal.to_owned(), id));
        if let Some((first, outcome)) = id.as_ref().and_then(|id| inner.outcomes.get(id)) {
            let same = *first == operation;
            return Ok(if same { outcome.clone() } else { Outcome::RequestIdReused });
        }
        let outcome = inner.apply(operation.clone());
        inner.outcomes.extend(id.map(|id| (id, (operation, outcome.clone()))));
        Ok(outcome)
    }

    fn bundle(&self) -> Option<Arc<SignedBundle>> {
        Some(Arc::new(SignedBundle { epoch: 3, text: "the bundle\n".to_owned() }))
    }

    async fn view(
        &self,
        consistency: Consistency,
        _deadline: Instant,
    ) -> Result<View, RequestError> {
        if consistency == Consistency::Linearizable {
            self.refuse().await?;
        }
        let inner = self.inner.lock().unwrap();
        Ok(View { keys: inner.keys.clone(), revision: inner.revision })
    }

    fn status(&self) -> Arc<NodeStatus> {
        let inner = self.inner.lock().unwrap();
        let health = inner.health.unwrap_or(Health::Healthy);
        let roles = vec![RoleName::Proposer, RoleName::Acceptor, RoleName::Learner];
        let member = |id: u64| MemberStatus {
            name: format!("node{id}"),
            id: NodeId(id),
            roles: roles.clone(),
            address: format!("127.0.0.1:710{id}"),
            state: if id == 3 { PeerState::Down } else { PeerState::Up },
            round_trip: (id == 2).then_some(Duration::from_micros(180)),
            chosen: Some(Slot(10)),
            applied: (id == 1).then_some(Slot(9)),
            last_heard: Some(Duration::from_secs(if id == 3 { 12 } else { 0 })),
            error: (id == 3).then(|| "connection refused".to_owned()),
        };
        Arc::new(NodeStatus {
            cluster: "local".into(),
            cluster_id: Some(ClusterId(0xabc)),
            node: "node1".into(),
            id: NodeId(1),
            roles: roles.clone(),
            state: NodeState::Leader,
            leader: (health != Health::NoQuorum).then(|| (NodeId(1), "node1".to_owned())),
            ballot: Ballot { number: ProposalNumber::from_raw(301), incarnation: Incarnation(7) },
            chosen: Slot(10),
            applied: Slot(9),
            revision: Some(inner.revision),
            phase1: 2,
            phase2: 2,
            acceptors: 3,
            reachable: 2,
            members: (1..=3).map(member).collect(),
            health,
            why: "node3 cannot be reached".into(),
            next: "start node3".into(),
            uptime: Duration::from_millis(61_500),
            age: Duration::ZERO,
            stalled: Vec::new(),
            keys: None,
            version: "0.1.0",
            cluster_version: Some(1),
        })
    }

    async fn transfer(
        &self,
        to: Option<NodeId>,
        _deadline: Instant,
    ) -> Result<NodeId, RequestError> {
        self.refuse().await?;
        self.inner.lock().unwrap().transfers.push(to);
        Ok(to.unwrap_or(NodeId(2)))
    }

    async fn recall(&self, since: u64) -> Result<Recalled, RequestError> {
        self.refuse().await?;
        let inner = self.inner.lock().unwrap();
        let oldest = inner.forgotten;
        let end = oldest + inner.events.len() as u64;
        let first = since.clamp(oldest, end);
        let from = usize::try_from(first - oldest).unwrap();
        let events = inner.events[from..].iter().take(EVENTS_PER_RECALL).cloned().collect();
        Ok(Recalled { first, events, end })
    }

    async fn trace(&self, slot: u64, _deadline: Instant) -> Result<Traced, RequestError> {
        self.refuse().await?;
        let mut events = self.inner.lock().unwrap().traced.clone();
        events.retain(|event| event.covers(slot));
        let forgotten = vec!["node4".to_owned()];
        Ok(Traced { events, silent: vec!["node3".to_owned()], forgotten })
    }

    fn metrics(&self) -> String {
        "# TYPE paxos_has_leader gauge\npaxos_has_leader 1\n# EOF\n".to_owned()
    }
}
