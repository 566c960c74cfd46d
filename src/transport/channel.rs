//! A channel of a connection that we dialled: what comes is kept until it is read, what goes has
//! one writer.
//!
//! What arrives is put into an [`Inbox`] by russh's callbacks, which never wait; it is bounded in
//! bytes. What leaves goes through a short queue to a task that owns the channel's writing half: a
//! write that is cancelled in the middle would cost window for ever, and callers do get cancelled.

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelWriteHalf, Sig};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a node's answer may have waiting for its reader before the channel is given up.
pub const INBOX_BYTES_MAX: usize = 64 << 20;

/// Pieces of input that wait for a channel's writer.
const SEND_QUEUE: usize = 16;

/// What comes out of a channel, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The exit status.
    Exit(u32),
    /// Nothing more comes, and why. Repeated at each later call.
    Closed(String),
}

/// What arrived on one channel and nobody read yet.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    arrived: Notify,
    over: CancellationToken,
}

#[derive(Default)]
struct InboxState {
    events: VecDeque<ChannelEvent>,
    bytes: usize,
    /// The answer to the one request of this channel.
    accepted: Option<bool>,
    closed: Option<String>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// `false` when the reader is too far behind.
    pub(super) fn push(&self, event: ChannelEvent, bytes: usize) -> bool {
        let mut state = self.lock();
        if state.closed.is_some() {
            return true;
        }
        if state.bytes + bytes > INBOX_BYTES_MAX {
            drop(state);
            self.close("its reader fell too far behind");
            return false;
        }
        state.bytes += bytes;
        state.events.push_back(event);
        drop(state);
        self.arrived.notify_one();
        true
    }

    pub(super) fn answer(&self, accepted: bool) {
        self.lock().accepted = Some(accepted);
        self.arrived.notify_one();
    }

    pub(super) fn close(&self, reason: &str) {
        self.lock().closed.get_or_insert_with(|| reason.to_string());
        self.over.cancel();
        self.arrived.notify_one();
    }

    async fn next(&self) -> ChannelEvent {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.lock();
                if let Some(event) = state.events.pop_front() {
                    if let ChannelEvent::Stdout(bytes) | ChannelEvent::Stderr(bytes) = &event {
                        state.bytes -= bytes.len();
                    }
                    return event;
                }
                if let Some(reason) = &state.closed {
                    return ChannelEvent::Closed(reason.clone());
                }
            }
            arrived.await;
        }
    }

    /// Whether the request was accepted; an error once the channel is gone.
    pub(super) async fn answered(&self) -> Result<bool, String> {
        loop {
            let arrived = self.arrived.notified();
            {
                let state = self.lock();
                if let Some(accepted) = state.accepted {
                    return Ok(accepted);
                }
                if let Some(reason) = &state.closed {
                    return Err(reason.clone());
                }
            }
            arrived.await;
        }
    }
}

/// A channel whose only writer is its owner.
pub(super) struct RawChannel {
    pub(super) write: ChannelWriteHalf<Msg>,
    pub(super) inbox: Arc<Inbox>,
}

impl RawChannel {
    pub(super) async fn next(&self) -> ChannelEvent {
        self.inbox.next().await
    }
}

/// A running command or subsystem. Dropping its receiver closes it.
pub struct ExecChannel {
    /// Towards the node.
    pub sender: ChannelSender,
    /// From the node.
    pub receiver: ChannelReceiver,
}

/// The input of a running command. Clones share one order; when the last is dropped, the input
/// ends.
#[derive(Clone)]
pub struct ChannelSender {
    queue: mpsc::Sender<Input>,
}

/// The output of a running command.
pub struct ChannelReceiver {
    inbox: Arc<Inbox>,
    _open: DropGuard,
}

enum Input {
    Data(Bytes),
    Interrupt,
    End,
}

impl ExecChannel {
    pub(super) fn new(raw: RawChannel) -> ExecChannel {
        let RawChannel { write, inbox } = raw;
        let (queue, input) = mpsc::channel(SEND_QUEUE);
        let unread = CancellationToken::new();
        tokio::spawn(write_input(write, input, inbox.clone(), unread.clone()));
        let receiver = ChannelReceiver { inbox, _open: unread.drop_guard() };
        ExecChannel { sender: ChannelSender { queue }, receiver }
    }

    /// As [`ChannelSender::send`].
    pub async fn send(&self, bytes: Bytes) -> Result<(), ChannelGone> {
        self.sender.send(bytes).await
    }

    /// As [`ChannelSender::eof`].
    pub async fn eof(&self) -> Result<(), ChannelGone> {
        self.sender.eof().await
    }

    /// As [`ChannelReceiver::next`].
    pub async fn next(&mut self) -> ChannelEvent {
        self.receiver.next().await
    }
}

/// The channel or its connection is gone; the receiver tells why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed; nothing more can be sent on it")]
pub struct ChannelGone;

impl ChannelSender {
    /// Sends input; waits while the node takes it too slowly. Cancelling loses this piece or
    /// nothing.
    pub async fn send(&self, bytes: Bytes) -> Result<(), ChannelGone> {
        self.queue.send(Input::Data(bytes)).await.map_err(|_| ChannelGone)
    }

    /// Ends the input.
    pub async fn eof(&self) -> Result<(), ChannelGone> {
        self.queue.send(Input::End).await.map_err(|_| ChannelGone)
    }

    /// Sends the signal INT.
    pub async fn interrupt(&self) -> Result<(), ChannelGone> {
        self.queue.send(Input::Interrupt).await.map_err(|_| ChannelGone)
    }
}

impl ChannelReceiver {
    /// What comes next. Cancelling is safe.
    pub async fn next(&mut self) -> ChannelEvent {
        self.inbox.next().await
    }
}

/// The only writer of a channel, cancelled by nobody while the channel lives.
async fn write_input(
    write: ChannelWriteHalf<Msg>,
    mut input: mpsc::Receiver<Input>,
    inbox: Arc<Inbox>,
    unread: CancellationToken,
) {
    let writing = async {
        // Its owner may have nothing to say for as long as it likes.
        while let Some(next) = input.recv().await {
            match next {
                Input::Data(bytes) => write.data_bytes(bytes).await?,
                Input::Interrupt => write.signal(Sig::INT).await?,
                Input::End => break,
            }
        }
        input.close();
        write.eof().await
    };
    // A channel that is gone wakes nobody who waits for its window; its inbox does.
    tokio::select! {
        _ended = async { let _ended = writing.await; std::future::pending::<()>().await } => {}
        () = inbox.over.cancelled() => {}
        () = unread.cancelled() => {}
    }
    let _gone = write.close().await;
}
