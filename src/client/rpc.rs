//! One channel of the subsystem `paxos-rpc`: many calls under way, each answered by its id.
//!
//! A task writes, a task reads. The writer sends whatever has come together since its last write as
//! one piece, so callers that are busy at once share packets. When the channel breaks, every call
//! under way ends with [`CallError::Lost`], which says that it may have been heard.

use crate::transport::client::{ChannelEvent, ChannelReceiver, ChannelSender, Connection};
use crate::transport::{RPC_SUBSYSTEM, client::ChannelError};
use crate::wire::failure::Failure;
use crate::wire::frame::{FrameDecoder, FrameKind, put_frame};
use crate::wire::rpc::{self, Call, Reply, Request};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Calls that wait for the writer; callers beyond wait their turn. As many as a node runs at once.
const CALLS_WAITING: usize = 1024;

/// The writer sends at most about this much at once.
const WRITE_BYTES: usize = 64 << 10;

/// A node answers by the call's own timeout. One that says nothing for this much longer, which
/// covers the way there and back, is not there. Giving up a little early is harmless: the outcome
/// is unknown then too.
const GRACE: Duration = Duration::from_millis(500);

/// Why a call has no answer of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// The cluster answered no.
    #[error("{} ({})", .0.message, .0.code.name())]
    Failed(Failure),
    /// The channel broke, or the node fell silent; the call may have been heard.
    #[error("the call may have been heard, but was not answered: {0}")]
    Lost(String),
    /// The channel was broken already; the call was never heard.
    #[error("the call was not sent: {0}")]
    NotSent(String),
}

/// Where frames go.
pub trait Sends: Send + 'static {
    /// Sends a piece; false when nothing more can be sent.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

/// Where frames come from.
pub trait Receives: Send + 'static {
    /// The next event.
    fn next(&mut self) -> impl Future<Output = ChannelEvent> + Send;
}

impl Sends for ChannelSender {
    async fn send(&mut self, bytes: Bytes) -> bool {
        ChannelSender::send(self, bytes).await.is_ok()
    }
}

impl Receives for ChannelReceiver {
    async fn next(&mut self) -> ChannelEvent {
        ChannelReceiver::next(self).await
    }
}

type Answer = Result<Reply, CallError>;

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// Why nothing is answered any more.
    broken: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    over: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Ends every call under way, and all that come.
    fn finish(&self, reason: &str) {
        let waiting = {
            let mut state = self.lock();
            state.broken.get_or_insert_with(|| reason.to_owned());
            std::mem::take(&mut state.waiting)
        };
        for (_, caller) in waiting {
            let _gone = caller.send(Err(CallError::Lost(reason.to_owned())));
        }
        self.over.cancel();
    }
}

/// A channel for calls. Clones share it; it closes when the last is dropped.
#[derive(Debug, Clone)]
pub struct RpcClient {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
    _open: Arc<DropGuard>,
}

impl RpcClient {
    /// Opens the subsystem on a connection, which must be kept for as long as the client is used.
    ///
    /// # Errors
    /// When the node refuses it or the connection is gone.
    pub async fn open(connection: &Connection) -> Result<RpcClient, ChannelError> {
        let channel = connection.subsystem(RPC_SUBSYSTEM).await?;
        Ok(RpcClient::start(channel.sender, channel.receiver))
    }

    /// Speaks over any pair of streams.
    pub fn start(sender: impl Sends, receiver: impl Receives) -> RpcClient {
        let shared = Arc::new(Shared::default());
        let (queue, requests) = mpsc::channel(CALLS_WAITING);
        let open = shared.over.clone().drop_guard();
        tokio::spawn(write(sender, requests, Arc::clone(&shared)));
        tokio::spawn(read(receiver, Arc::clone(&shared)));
        RpcClient { shared, queue, _open: Arc::new(open) }
    }

    /// Whether the channel is still good for calls.
    pub fn is_open(&self) -> bool {
        !self.shared.over.is_cancelled()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`CallError`]; only [`CallError::NotSent`] and some failures say that nothing was applied.
    pub async fn call(&self, call: Call, timeout: Duration) -> Result<Reply, CallError> {
        let (caller, answer) = oneshot::channel();
        let id = {
            let mut state = self.shared.lock();
            if let Some(reason) = &state.broken {
                return Err(CallError::NotSent(reason.clone()));
            }
            state.next_id += 1;
            let id = state.next_id;
            state.waiting.insert(id, caller);
            id
        };
        // However this ends, also by being dropped, nobody waits for the id any more.
        let _entry = Entry { shared: &self.shared, id };
        let request = Request { id, timeout, call };
        let asked = async {
            if self.queue.send(request).await.is_err() {
                return Err(CallError::NotSent("the channel is closed".to_owned()));
            }
            answer
                .await
                .unwrap_or_else(|_| Err(CallError::Lost("the channel is closed".to_owned())))
        };
        match tokio::time::timeout(timeout + GRACE, asked).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                Err(CallError::Lost(format!("no answer within {:?}", timeout + GRACE)))
            }
        }
    }
}

struct Entry<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.id);
    }
}

async fn write(mut sender: impl Sends, mut requests: mpsc::Receiver<Request>, shared: Arc<Shared>) {
    let writing = async {
        let mut out = BytesMut::new();
        let mut body = Vec::new();
        while let Some(request) = requests.recv().await {
            let mut next = Some(request);
            while let Some(request) = next.take() {
                body.clear();
                rpc::encode_request(&request, &mut body);
                put_frame(&mut out, FrameKind::Request, &body);
                if out.len() < WRITE_BYTES {
                    next = requests.try_recv().ok();
                }
            }
            if !sender.send(out.split().freeze()).await {
                return;
            }
        }
    };
    tokio::select! {
        () = shared.over.cancelled() => {}
        () = writing => {}
    }
    // The reader knows why the channel broke; it hears of the end by itself, or over this.
    requests.close();
}

async fn read(mut receiver: impl Receives, shared: Arc<Shared>) {
    let mut decoder = FrameDecoder::new();
    // What a node writes to standard error says why it ends the channel.
    let mut said = String::new();
    let reason = loop {
        let event = tokio::select! {
            biased;
            () = shared.over.cancelled() => break "the client was closed".to_owned(),
            event = receiver.next() => event,
        };
        match event {
            ChannelEvent::Stdout(bytes) => {
                if let Err(reason) = answer(&mut decoder, &bytes, &shared) {
                    break reason;
                }
            }
            ChannelEvent::Stderr(bytes) => {
                const SAID_BYTES_MAX: usize = 1024;
                let room = SAID_BYTES_MAX.saturating_sub(said.len()).min(bytes.len());
                said.push_str(&String::from_utf8_lossy(&bytes[..room]));
            }
            ChannelEvent::Exit(exit) => break format!("the node ended it with {exit} {said}"),
            ChannelEvent::Closed(reason) => break format!("{reason} {said}"),
        }
    };
    shared.finish(reason.trim_end());
}

/// Hands the answers in a piece to their callers.
fn answer(decoder: &mut FrameDecoder, bytes: &Bytes, shared: &Shared) -> Result<(), String> {
    let mut input = &bytes[..];
    while let Some(frame) = decoder.next(&mut input).map_err(|error| error.to_string())? {
        if frame.kind != FrameKind::Answer {
            return Err(format!("the node sent a frame of kind {:?}", frame.kind));
        }
        let (id, result) = rpc::decode_answer(&frame.body).map_err(|error| error.to_string())?;
        // Nobody waits any more if the caller gave up.
        if let Some(caller) = shared.lock().waiting.remove(&id) {
            let _gone = caller.send(result.map_err(CallError::Failed));
        }
    }
    Ok(())
}
