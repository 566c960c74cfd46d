//! One request, from typed words to a typed answer.

use super::access::Access;
use super::backend::{Backend, Reads};
use super::protocol::{self, Show, Tape};
use super::{list, logs, status};
use crate::node::event::RequestError;
use crate::node::recorder::Recorded;
use crate::node::status::NodeStatus;
use crate::paxos::ballot::NodeId;
use crate::store::command::{Operation, Outcome};
use crate::telemetry::metrics::{ApiMetrics, VerbMetrics};
use crate::transport::keyring::SignedBundle;
use crate::wire::answer::{Answer, not_found};
use crate::wire::build::Build;
use crate::wire::failure::{Code, Failure};
use crate::wire::grammar::{VERBS, printable};
use crate::wire::help;
use crate::wire::logs::LogQuery;
use crate::wire::request::{Consistency, Format, ValueSource, Verb};
use crate::wire::trace::TraceReport;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The node keeps deadlines itself and says what became of the request; only if it does not say
/// anything for this much longer (its thread is stuck, say) is the request given up here.
const GRACE: Duration = Duration::from_secs(1);

/// Runs requests.
#[derive(Debug)]
pub(super) struct Executor<B> {
    backend: B,
    log_path: PathBuf,
    verbs: BTreeMap<&'static str, VerbMetrics>,
}

impl<B: Backend> Executor<B> {
    pub(super) fn new(backend: B, metrics: &ApiMetrics, log_path: PathBuf) -> Executor<B> {
        let verbs = VERBS.iter().map(|spec| (spec.name, metrics.verb(spec.name))).collect();
        Executor { backend, log_path, verbs }
    }

    /// Runs a request that needs nothing but itself: no batch, and no value from standard input.
    pub(super) async fn run(
        &self,
        access: &Access,
        verb: Verb,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let name = verb.name();
        let started = Instant::now();
        let result = self.answer(access, verb, deadline).await;
        self.count(name, started, result.as_ref().err());
        result
    }

    /// Counts an answer.
    pub(super) fn count(&self, verb: &'static str, started: Instant, failure: Option<&Failure>) {
        if let Some(metrics) = self.verbs.get(verb) {
            let code = failure.map_or(Ok(()), |failure| Err(failure.code.name()));
            metrics.answered(code, started.elapsed());
        }
    }

    async fn answer(
        &self,
        access: &Access,
        verb: Verb,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        match verb {
            Verb::Status => Ok(Answer::Status(Box::new(status::report(&self.backend.status())))),
            Verb::Health => Ok(Answer::Health(status::health_report(&self.backend.status()))),
            Verb::Members => Ok(Answer::Members(status::members(&self.backend.status()))),
            Verb::Put { key, value: ValueSource::Given(value), condition, request_id } => {
                access.write(&key)?;
                let operation = Operation::Put { key: key.clone(), value, condition };
                self.write(access, key, operation, request_id, deadline).await
            }
            Verb::Delete { key, condition, request_id } => {
                access.write(&key)?;
                let operation = Operation::Delete { key: key.clone(), condition };
                self.write(access, key, operation, request_id, deadline).await
            }
            Verb::Get { key, raw, consistency } => {
                access.read(&key)?;
                let view = self.view(consistency, deadline).await?;
                let record = view.get(&key).await.map_err(|error| failure(error, "read"))?;
                let record = record.ok_or_else(|| not_found(&key))?;
                Ok(Answer::Value { record, raw })
            }
            list @ Verb::List { .. } => {
                let listing = list::open(self, access, list, deadline).await?;
                Ok(Answer::Listed(listing.collect().await?))
            }
            Verb::Leader => self.leader(),
            Verb::Transfer { to } => self.transfer(access, to, deadline).await,
            Verb::Metrics => Ok(Answer::Text { name: "metrics", text: self.backend.metrics() }),
            Verb::Logs(query) => self.logs(access, query, deadline).await,
            Verb::Trace { slot } => self.trace(access, slot, deadline).await,
            Verb::Version => Ok(version()),
            Verb::RaiseVersion { to } => self.raise_version(access, to, deadline).await,
            Verb::Trust => {
                let text = self.trusted()?.text.clone();
                Ok(Answer::Text { name: "bundle", text })
            }
            Verb::PublishTrust => self.publish_trust(access, deadline).await,
            Verb::Help(about) => Ok(help_answer(about)),
            Verb::Batch { .. } | Verb::Put { value: ValueSource::Stdin, .. } => {
                unreachable!("whoever has a standard input reads it first")
            }
        }
    }

    /// The store, as fresh as asked.
    pub(super) async fn view(
        &self,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<B::View, Failure> {
        let overdue = || RequestError::NoQuorum("the node did not answer a read".to_owned());
        let view = in_time(deadline, self.backend.view(consistency, deadline), overdue).await;
        view.map_err(|error| failure(error, "read"))
    }

    async fn write(
        &self,
        access: &Access,
        key: Bytes,
        operation: Operation,
        request_id: Option<String>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let overdue = || RequestError::UnknownOutcome("the node did not answer a write".to_owned());
        let write = self.backend.write(access.name(), operation, request_id, deadline);
        let outcome = in_time(deadline, write, overdue).await;
        match outcome.map_err(|error| failure(error, "write"))? {
            Outcome::Put { revision } | Outcome::Deleted { revision } => {
                Ok(Answer::Written { key, revision })
            }
            Outcome::NotFound => Err(not_found(&key)),
            Outcome::ConditionFailed { revision } => Err(condition_failed(&key, revision)),
            Outcome::SessionUnknown => Err(Failure::new(
                Code::SessionExpired,
                "the session under which the write was made is over; nothing was written",
                "send it again",
            )),
            Outcome::WindowFull => Err(Failure::new(
                Code::Busy,
                "too many writes wait for their outcome; this one was not made",
                "send it again a little later",
            )),
            Outcome::RequestIdReused => Err(Failure::usage(
                "this request id was used for another request; nothing was written",
                "use another id; one id serves for repeating the very same request",
            )),
            outcome @ (Outcome::SessionOpened(_)
            | Outcome::SessionClosed
            | Outcome::ClusterVersion(_)
            | Outcome::BundleEpoch(_)
            | Outcome::SequenceAcknowledged) => Err(Failure::new(
                Code::Internal,
                format!("the write got an outcome that is none of a write: {outcome:?}"),
                "read the key to see whether it was written, and report this as a defect",
            )),
        }
    }

    /// The next cluster version and no other: whoever asks knows where it stands.
    async fn raise_version(
        &self,
        access: &Access,
        to: u16,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        access.administer("raise the cluster version")?;
        let (oldest, newest) = Build::own().cluster_versions;
        if to > newest {
            let message =
                format!("this program runs clusters of version {oldest} to {newest}, not {to}");
            return Err(Failure::new(Code::BadSettings, message, "upgrade the nodes first"));
        }
        tracing::info!(principal = access.name(), to, "raising the cluster version asked");
        let overdue = || RequestError::UnknownOutcome("the node did not answer in time".to_owned());
        let operation = Operation::RaiseVersion { to };
        let raise = self.backend.write(access.name(), operation, None, deadline);
        let outcome = in_time(deadline, raise, overdue).await;
        match outcome.map_err(|error| failure(error, "raise"))? {
            Outcome::ClusterVersion(version) if version == to => {
                Ok(Answer::Text { name: "cluster_version", text: version.to_string() })
            }
            Outcome::ClusterVersion(version) => {
                let message = format!("the cluster is at version {version}, and {to} is not next");
                Err(Failure::new(Code::ConditionFailed, message, "it rises by one at a time"))
            }
            other => Err(Failure::new(
                Code::Internal,
                format!("raising the version got an outcome that is none of it: {other:?}"),
                "see paxos status for the version, and report this as a defect",
            )),
        }
    }

    fn trusted(&self) -> Result<Arc<SignedBundle>, Failure> {
        self.backend.bundle().ok_or_else(|| {
            let message = "this node has no keys, so it goes by no trust bundle";
            Failure::new(Code::NotFound, message, "ask a node that was deployed")
        })
    }

    /// The bundle that this node goes by, which it has judged; it takes no other from anybody.
    async fn publish_trust(&self, access: &Access, deadline: Instant) -> Result<Answer, Failure> {
        access.administer("publish the trust bundle")?;
        let bundle = self.trusted()?;
        let told = |epoch: u64| Answer::Text { name: "bundle_epoch", text: epoch.to_string() };
        let in_log = self.backend.status().keys.as_ref().and_then(|keys| keys.in_log);
        if in_log.is_some_and(|in_log| in_log >= bundle.epoch) {
            return Ok(told(bundle.epoch));
        }
        let signed = Bytes::from(bundle.text.clone());
        let operation = Operation::PublishBundle { epoch: bundle.epoch, signed };
        operation.check_limits().map_err(|error| {
            let hint = "it stays on the nodes' disks, and reaches those that paxos-ctl reaches";
            Failure::new(Code::TooLarge, error.to_string(), hint)
        })?;
        tracing::info!(principal = access.name(), epoch = bundle.epoch, "publishes the bundle");
        let overdue = || RequestError::UnknownOutcome("the node did not answer in time".to_owned());
        let publish = self.backend.write(access.name(), operation, None, deadline);
        match in_time(deadline, publish, overdue)
            .await
            .map_err(|error| failure(error, "publish"))?
        {
            Outcome::BundleEpoch(epoch) => Ok(told(epoch)),
            other => Err(Failure::new(
                Code::Internal,
                format!("publishing the bundle got an outcome that is none of it: {other:?}"),
                "see paxos status for what is in the log, and report this as a defect",
            )),
        }
    }

    fn leader(&self) -> Result<Answer, Failure> {
        let status = self.backend.status();
        match &status.leader {
            Some((id, name)) => Ok(Answer::Leader { name: name.clone(), id: id.0 }),
            None => Err(Failure::new(
                Code::NotFound,
                format!("{} knows of no leader now", status.node),
                "\"paxos status\" says why, and what to do",
            )),
        }
    }

    async fn transfer(
        &self,
        access: &Access,
        to: Option<String>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        access.administer("hand leadership over")?;
        let status = self.backend.status();
        let to = to.map(|name| member(&status, &name)).transpose()?;
        tracing::info!(
            principal = access.name(),
            to = to.map(|id| id.0),
            "leadership transfer asked"
        );
        let overdue = || {
            RequestError::UnknownOutcome(
                "the node did not answer a transfer of leadership".to_owned(),
            )
        };
        let id = in_time(deadline, self.backend.transfer(to, deadline), overdue)
            .await
            .map_err(|error| failure(error, "transfer"))?;
        let status = self.backend.status();
        let name = status.members.iter().find(|member| member.id == id);
        // An id serves as a name to whoever transfers.
        let name = name.map_or_else(|| id.0.to_string(), |member| member.name.clone());
        Ok(Answer::Leader { name, id: id.0 })
    }

    /// The end of a log, whole in memory; what is longer or endless is streamed by [`logs`].
    async fn logs(
        &self,
        access: &Access,
        query: LogQuery,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        self.may_read_logs(access, &query)?;
        if !query.protocol {
            return Ok(Answer::Lines(self.log_file().last(&query).await?.0));
        }
        let show = Show::new(Format::Json, self.backend.status());
        let mut tape = Tape::new(&self.backend);
        let wanted = |recorded: &(u64, Recorded)| show.wants(&query, recorded);
        let last = tape.last(query.lines, wanted, deadline).await?;
        Ok(Answer::Events(last.iter().map(|recorded| show.event(recorded)).collect()))
    }

    async fn trace(
        &self,
        access: &Access,
        slot: u64,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        access.administer("read what the nodes recorded")?;
        let overdue =
            || RequestError::NoQuorum("the node did not show its recorder in time".to_owned());
        let traced = in_time(deadline, self.backend.trace(slot, deadline), overdue).await;
        let traced = traced.map_err(|error| failure(error, "trace"))?;
        let status = self.backend.status();
        let report =
            TraceReport::new(slot, traced.events, (traced.silent, traced.forgotten), status.phase2);
        match report.is_empty() {
            true => Err(protocol::not_traced(&report, &status)),
            false => Ok(Answer::Trace(Box::new(report))),
        }
    }

    pub(super) fn may_read_logs(&self, access: &Access, query: &LogQuery) -> Result<(), Failure> {
        access.administer("read the node's log")?;
        let here = &self.backend.status().node;
        match &query.node {
            Some(node) if node != here => {
                let node = printable(node.as_bytes());
                let message = format!("this is {here}, and it has no log of \"{node}\"");
                Err(Failure::usage(message, format!("ask {node} itself, as in: --to {node}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn log_file(&self) -> logs::LogFile {
        logs::LogFile::new(self.log_path.clone())
    }

    pub(super) fn backend(&self) -> &B {
        &self.backend
    }
}

/// What `version` says.
pub(super) fn version() -> Answer {
    Answer::Text { name: "version", text: Build::own().version.clone() }
}

/// What `help` says.
fn help_answer(about: Option<&'static crate::wire::grammar::VerbSpec>) -> Answer {
    Answer::Text { name: "help", text: about.map_or_else(help::overview, help::about) }
}

pub(super) async fn in_time<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, RequestError>>,
    overdue: impl FnOnce() -> RequestError,
) -> Result<T, RequestError> {
    let limit = tokio::time::Instant::from_std(deadline + GRACE);
    match tokio::time::timeout_at(limit, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(overdue()),
    }
}

/// The member of that name, or of that id.
fn member(status: &NodeStatus, name: &str) -> Result<NodeId, Failure> {
    let by_name = status.members.iter().find(|member| member.name == name);
    let by_id = || status.members.iter().find(|member| member.id.0.to_string() == name);
    by_name.or_else(by_id).map(|member| member.id).ok_or_else(|| {
        let names: Vec<&str> = status.members.iter().map(|m| m.name.as_str()).collect();
        Failure::new(
            Code::NotFound,
            format!("no member is called \"{}\"", printable(name.as_bytes())),
            format!("the members are {}", names.join(", ")),
        )
    })
}

fn condition_failed(key: &[u8], revision: Option<u64>) -> Failure {
    let key = printable(key);
    let now = match revision {
        Some(revision) => format!("it was last changed at revision {revision}"),
        None => "it does not exist".to_owned(),
    };
    let message = format!("the condition on \"{key}\" does not hold: {now}; nothing was written");
    let hint = "read the key again, and retry with what it holds now";
    Failure { revision, ..Failure::new(Code::ConditionFailed, message, hint) }
}

/// The node's word on a request that it could not grant.
pub(super) fn failure(error: RequestError, what: &str) -> Failure {
    match error {
        RequestError::NoQuorum(text) => Failure::new(
            Code::NoQuorum,
            text,
            match what {
                "read" => {
                    "\"paxos status\" says what is missing; --consistency local reads without it"
                }
                // The wish may have reached the leader, and be granted after its deadline.
                "transfer" => {
                    "leadership may have moved meanwhile, or still move: see \"paxos leader\""
                }
                _ => "nothing was changed; \"paxos status\" says what is missing",
            },
        ),
        RequestError::UnknownOutcome(text) => Failure::new(
            Code::UnknownOutcome,
            text,
            "it may have happened: look before you repeat it, \
             or repeat it under the --request-id that it had",
        ),
        RequestError::Busy(text) => {
            Failure::new(Code::Busy, text, "nothing was changed; try again a little later")
        }
        RequestError::Internal(text) => {
            Failure::new(Code::Internal, text, "see \"paxos logs\", and report this as a defect")
        }
    }
}
