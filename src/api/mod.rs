//! What clients reach: the verbs over ssh, batches, the subsystem for programs, the node's own
//! socket.
//!
//! * [`access`] says who may do what; it is asked before anything is proposed, read or shown.
//! * [`execute`] runs one request; [`exec`] is one `ssh node paxos …`, [`list`] its long answers,
//!   [`batch`] and [`rpc`] are many requests on one channel.
//! * [`local`] is the socket that only root and the node's owner can open.
//! * [`backend`] is all that a node is to this folder, so that tests can put something simpler
//!   there.
//!
//! Nothing here decides anything about the cluster, keeps state between requests, or waits without
//! a bound: requests end by their deadline, and a client that does not read its answer is cut off.

pub mod access;
pub mod backend;
mod batch;
mod exec;
mod execute;
mod list;
pub mod local;
mod logs;
mod protocol;
mod rpc;
mod status;

use crate::telemetry::metrics::Metrics;
use crate::transport::server::Sessions;
use crate::transport::session::{ExecSession, Gone, Output};
use backend::Backend;
use bytes::Bytes;
use execute::Executor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A client that takes nothing of its answer for this long is taken for gone: it holds a view of
/// the store in memory, and one of the node's sessions. A pager left open over lunch is cut off,
/// too.
const OUTPUT_STALL_MAX: Duration = Duration::from_secs(120);

/// Answers the sessions of clients.
#[derive(Debug)]
pub struct Api<B> {
    executor: Arc<Executor<B>>,
    metrics: Arc<Metrics>,
}

impl<B> Clone for Api<B> {
    fn clone(&self) -> Api<B> {
        Api { executor: Arc::clone(&self.executor), metrics: Arc::clone(&self.metrics) }
    }
}

impl<B: Backend> Api<B> {
    /// Answers from `backend`; `log_path` is the node's own log, for `paxos logs`.
    pub fn new(backend: B, metrics: Arc<Metrics>, log_path: PathBuf) -> Api<B> {
        let executor = Executor::new(backend, &metrics.api, log_path);
        Api { executor: Arc::new(executor), metrics }
    }

    /// Answers one session, to its end.
    pub async fn serve(&self, session: ExecSession) {
        self.metrics.api.sessions.inc();
        let _served = Served(&self.metrics);
        exec::serve(&self.executor, session).await;
    }
}

/// Counts a session out, also when it ends by a panic.
struct Served<'a>(&'a Metrics);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.0.api.sessions.dec();
    }
}

impl<B: Backend> Sessions for Api<B> {
    fn start(&self, session: ExecSession) {
        let api = self.clone();
        tokio::spawn(async move { api.serve(session).await });
    }
}

/// Sends to standard output, but not for ever.
async fn send(output: &Output, bytes: Bytes) -> Result<(), Gone> {
    match tokio::time::timeout(OUTPUT_STALL_MAX, output.stdout(bytes)).await {
        Ok(sent) => sent,
        Err(_stalled) => Err(Gone),
    }
}

/// Sends to standard error, but not for ever.
async fn complain(output: &Output, bytes: Bytes) -> Result<(), Gone> {
    match tokio::time::timeout(OUTPUT_STALL_MAX, output.stderr(bytes)).await {
        Ok(sent) => sent,
        Err(_stalled) => Err(Gone),
    }
}

/// Ends a session; a client that does not read is not waited for.
async fn finish(output: Output, exit: u8) {
    let _stalled = tokio::time::timeout(OUTPUT_STALL_MAX, output.finish(u32::from(exit))).await;
}
