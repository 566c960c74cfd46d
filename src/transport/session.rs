//! What a client's request looks like to whoever answers it: words that came, a stream in, a stream
//! out.
//!
//! An [`ExecSession`] is one channel of a connection, or one conversation over a local socket;
//! whoever answers it cannot tell them apart and needs no SSH. Nothing here waits for the network
//! while it holds anything that others need: input is kept in a bounded buffer whose fullness is
//! told to the sender, and output goes through a bounded queue to one writer task that nobody
//! cancels (a write that is cancelled in the middle would cost window for ever).

use super::identity::Principal;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Input that waits for its reader before the sender is held back. A batch's reader takes far less
/// per turn, so it is never short of input.
pub(super) const STDIN_HIGH_WATER_BYTES: usize = 256 << 10;

/// Input that waits for its reader at most. Holding back leaves room for all that the sender was
/// allowed to send until then; only one that ignores its window gets here, and its channel is
/// closed.
pub(super) const STDIN_BYTES_MAX: usize = 4 << 20;

/// Pieces of output that wait for the writer; each is at most [`OUTPUT_PIECE_BYTES`].
const OUTPUT_PIECES_MAX: usize = 8;

/// Longer output is cut into pieces of this size, which bounds what one session has waiting.
const OUTPUT_PIECE_BYTES: usize = 64 << 10;

/// One request of a client, and the streams that go with it.
#[derive(Debug)]
pub struct ExecSession {
    /// Who asks, by their key or certificate; never by a user name.
    pub principal: Principal,
    /// From where; all zero for a local socket.
    pub source: SocketAddr,
    /// What is asked for.
    pub request: ExecRequest,
    /// The terminal, if the client asked for one (`ssh -t`).
    pub pty: Option<Pty>,
    /// What the client sends.
    pub stdin: Stdin,
    /// What the client gets.
    pub output: Output,
}

/// The three ways to ask for something on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecRequest {
    /// `ssh node WORDS`: the words as one string of bytes, quoting lost.
    Exec(Vec<u8>),
    /// `ssh node` without a command.
    Shell,
    /// `ssh -s node NAME`, by its name.
    Subsystem(String),
}

/// The client's terminal.
#[derive(Debug, Clone)]
pub struct Pty {
    /// Its kind, as in `TERM`.
    pub term: String,
    /// Columns and rows; changes when the client's window does.
    pub size: watch::Receiver<(u32, u32)>,
}

/// The client is not there any more: nothing that is sent would arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client closed its channel or its connection; there is nobody to answer")]
pub struct Gone;

#[derive(Debug, Default)]
struct Inflow {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    /// Nobody will read: what comes is thrown away.
    unread: bool,
}

#[derive(Debug, Default)]
struct InflowShared {
    inflow: Mutex<Inflow>,
    arrived: Notify,
    /// Told when the reader took something, or will take nothing more.
    taken: Notify,
    /// Copy of `bytes`, to be looked at without the lock.
    waiting: AtomicUsize,
}

impl InflowShared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inflow> {
        self.inflow.lock().expect("no holder of this lock panics")
    }
}

/// What the client sends. Dropping it throws away what still comes.
#[derive(Debug)]
pub struct Stdin(Arc<InflowShared>);

impl Stdin {
    /// The next bytes, or `None` at the end of input (or when the client is gone). Cancelling is
    /// safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let arrived = self.0.arrived.notified();
            {
                let mut inflow = self.0.lock();
                if let Some(piece) = inflow.pieces.pop_front() {
                    inflow.bytes -= piece.len();
                    self.0.waiting.store(inflow.bytes, Ordering::Relaxed);
                    self.0.taken.notify_one();
                    return Some(piece);
                }
                if inflow.ended {
                    return None;
                }
            }
            arrived.await;
        }
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        let mut inflow = self.0.lock();
        inflow.unread = true;
        inflow.pieces.clear();
        inflow.bytes = 0;
        self.0.waiting.store(0, Ordering::Relaxed);
        self.0.taken.notify_one();
    }
}

/// More input came than may wait: the sender ignores what it was allowed to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StdinOverflow;

/// The sending end of a [`Stdin`].
#[derive(Debug)]
pub(super) struct StdinFeed(Arc<InflowShared>);

impl StdinFeed {
    pub(super) fn push(&self, piece: &[u8]) -> Result<(), StdinOverflow> {
        let mut inflow = self.0.lock();
        if inflow.unread || inflow.ended || piece.is_empty() {
            return Ok(());
        }
        if inflow.bytes + piece.len() > STDIN_BYTES_MAX {
            return Err(StdinOverflow);
        }
        inflow.pieces.push_back(Bytes::copy_from_slice(piece));
        inflow.bytes += piece.len();
        self.0.waiting.store(inflow.bytes, Ordering::Relaxed);
        drop(inflow);
        self.0.arrived.notify_one();
        Ok(())
    }

    pub(super) fn end(&self) {
        self.0.lock().ended = true;
        self.0.arrived.notify_one();
    }

    /// Whether the sender should be held back.
    pub(super) fn is_clogged(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > STDIN_HIGH_WATER_BYTES
    }

    /// Waits until it is not clogged any more.
    async fn unclogged(&self) {
        loop {
            let taken = self.0.taken.notified();
            if !self.is_clogged() {
                return;
            }
            taken.await;
        }
    }
}

impl Drop for StdinFeed {
    fn drop(&mut self) {
        self.end();
    }
}

fn stdin() -> (StdinFeed, Stdin) {
    let shared = Arc::new(InflowShared::default());
    (StdinFeed(shared.clone()), Stdin(shared))
}

/// One thing for the client, in the order in which it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputEvent {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The end, with the exit status. Nothing follows.
    Exit(u32),
}

/// What the client gets. Clones share one order. When the last one is dropped without
/// [`finish`](Output::finish), the client gets exit status [`EXIT_UNFINISHED`].
#[derive(Debug, Clone)]
pub struct Output {
    queue: mpsc::Sender<OutputEvent>,
    life: Life,
}

/// Exit status of a session that was dropped without one: the answerer failed.
pub const EXIT_UNFINISHED: u32 = 1;

impl Output {
    /// Sends to standard output; waits while the client reads too slowly.
    pub async fn stdout(&self, bytes: Bytes) -> Result<(), Gone> {
        self.send(bytes, OutputEvent::Stdout).await
    }

    /// Sends to standard error; waits while the client reads too slowly.
    pub async fn stderr(&self, bytes: Bytes) -> Result<(), Gone> {
        self.send(bytes, OutputEvent::Stderr).await
    }

    /// Ends the session: everything sent before, then the exit status, then the channel's end.
    /// Does not wait until the client has it.
    pub async fn finish(self, exit: u32) {
        let _gone = self.put(OutputEvent::Exit(exit)).await;
    }

    /// Resolves when the client is gone, or asked by a signal (INT, TERM, HUP, QUIT) to stop. After
    /// a signal, output still arrives.
    pub async fn gone(&self) {
        self.life.unwanted.cancelled().await;
    }

    /// For what the client typed, to be shown among the output.
    pub(super) fn echo(&self) -> Echo {
        Echo(self.queue.downgrade())
    }

    async fn send(&self, mut bytes: Bytes, make: fn(Bytes) -> OutputEvent) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(OUTPUT_PIECE_BYTES));
            self.put(make(piece)).await?;
        }
        Ok(())
    }

    async fn put(&self, event: OutputEvent) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.life.closed.cancelled() => Err(Gone),
            sent = self.queue.send(event) => sent.map_err(|_| Gone),
        }
    }
}

/// Shows a client what it typed. Holds the session's output open no longer than the session does.
#[derive(Debug)]
pub(super) struct Echo(mpsc::WeakSender<OutputEvent>);

impl Echo {
    /// Never waits: while the client does not take its output, it does not see its keys either.
    pub(super) fn show(&self, bytes: Bytes) {
        if let Some(queue) = self.0.upgrade()
            && !bytes.is_empty()
        {
            let _full_or_gone = queue.try_send(OutputEvent::Stdout(bytes));
        }
    }
}

/// Whether a session's client is still there.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    /// Nothing can be sent any more.
    closed: CancellationToken,
    /// The client does not want the rest; also set once `closed` is.
    unwanted: CancellationToken,
}

impl Life {
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.unwanted.cancel();
    }

    pub(super) fn unwant(&self) {
        self.unwanted.cancel();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

/// The far ends of a session's streams, for whoever moves the bytes.
#[derive(Debug)]
pub(super) struct FarEnds {
    pub(super) stdin: StdinFeed,
    pub(super) output: mpsc::Receiver<OutputEvent>,
    pub(super) life: Life,
}

impl ExecSession {
    pub(super) fn open(
        principal: Principal,
        source: SocketAddr,
        request: ExecRequest,
        pty: Option<Pty>,
    ) -> (ExecSession, FarEnds) {
        let (feed, stdin) = stdin();
        let (queue, output) = mpsc::channel(OUTPUT_PIECES_MAX);
        let life = Life::default();
        let near = Output { queue, life: life.clone() };
        let session = ExecSession { principal, source, request, pty, stdin, output: near };
        (session, FarEnds { stdin: feed, output, life })
    }

    /// A session that no SSH connection stands behind: for a local socket, and for tests.
    pub fn detached(
        principal: Principal,
        source: SocketAddr,
        request: ExecRequest,
    ) -> (ExecSession, Attachment) {
        let (session, far) = ExecSession::open(principal, source, request, None);
        (session, Attachment { far })
    }
}

/// The client's side of a detached session. Dropping it means that the client is gone.
#[derive(Debug)]
pub struct Attachment {
    far: FarEnds,
}

impl Attachment {
    /// Both directions at once: whoever only ever waits for one of them can come to a standstill
    /// with a session that waits for the other.
    pub fn streams(&mut self) -> (AttachedInput<'_>, AttachedOutput<'_>) {
        let FarEnds { stdin, output, life } = &mut self.far;
        (AttachedInput { far: (stdin, life) }, AttachedOutput { far: output })
    }

    /// Gives input; waits while the reader is behind.
    pub async fn push(&self, piece: &[u8]) {
        AttachedInput { far: (&self.far.stdin, &self.far.life) }.push(piece).await;
    }

    /// Ends the input.
    pub fn end(&self) {
        self.far.stdin.end();
    }

    /// Asks the session to stop, as a signal does.
    pub fn interrupt(&self) {
        self.far.life.unwant();
    }

    /// The next output; after [`OutputEvent::Exit`] there is none.
    pub async fn next(&mut self) -> Option<OutputEvent> {
        self.far.output.recv().await
    }
}

/// The input of a detached session.
#[derive(Debug)]
pub struct AttachedInput<'a> {
    far: (&'a StdinFeed, &'a Life),
}

/// The output of a detached session.
#[derive(Debug)]
pub struct AttachedOutput<'a> {
    far: &'a mut mpsc::Receiver<OutputEvent>,
}

impl AttachedInput<'_> {
    /// As [`Attachment::push`].
    pub async fn push(&self, piece: &[u8]) {
        let (stdin, _) = self.far;
        for part in piece.chunks(STDIN_HIGH_WATER_BYTES) {
            stdin.unclogged().await;
            let pushed = stdin.push(part);
            assert!(pushed.is_ok(), "two marks of input are less than the maximum");
        }
    }

    /// As [`Attachment::end`].
    pub fn end(&self) {
        self.far.0.end();
    }

    /// As [`Attachment::interrupt`].
    pub fn interrupt(&self) {
        self.far.1.unwant();
    }
}

impl AttachedOutput<'_> {
    /// As [`Attachment::next`].
    pub async fn next(&mut self) -> Option<OutputEvent> {
        self.far.recv().await
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.far.life.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (ExecSession, Attachment) {
        let source = SocketAddr::from(([0, 0, 0, 0], 0));
        ExecSession::detached(Principal::Local, source, ExecRequest::Shell)
    }

    #[tokio::test]
    async fn input_arrives_in_order_and_ends() {
        let (mut session, far) = session();
        far.push(b"one").await;
        far.push(b"two").await;
        far.end();
        far.push(b"late").await;
        assert_eq!(session.stdin.next().await.as_deref(), Some(&b"one"[..]));
        assert_eq!(session.stdin.next().await.as_deref(), Some(&b"two"[..]));
        assert_eq!(session.stdin.next().await, None);
    }

    #[tokio::test]
    async fn input_that_nobody_reads_clogs_then_overflows() {
        let (session, far) = session();
        let feed = &far.far.stdin;
        assert_eq!(feed.push(&vec![0; STDIN_HIGH_WATER_BYTES]), Ok(()));
        assert!(!feed.is_clogged());
        assert_eq!(feed.push(b"x"), Ok(()));
        assert!(feed.is_clogged());
        let rest = vec![0; STDIN_BYTES_MAX - STDIN_HIGH_WATER_BYTES - 1];
        assert_eq!(feed.push(&rest), Ok(()));
        assert_eq!(feed.push(b"y"), Err(StdinOverflow));
        drop(session.stdin);
        assert_eq!(feed.push(b"z"), Ok(()), "what nobody reads is thrown away");
        assert!(!feed.is_clogged());
    }

    #[tokio::test]
    async fn a_giver_waits_for_a_slow_reader() {
        let (mut session, far) = session();
        let size = STDIN_HIGH_WATER_BYTES * 20;
        let giving = tokio::spawn(async move {
            far.push(&vec![5; size]).await;
            far.end();
            far
        });
        let mut got = 0;
        while let Some(piece) = session.stdin.next().await {
            got += piece.len();
            assert!(session.stdin.0.waiting.load(Ordering::Relaxed) <= STDIN_BYTES_MAX);
        }
        assert_eq!(got, size);
        giving.await.unwrap();
    }

    #[tokio::test]
    async fn output_waits_for_a_slow_client_and_stops_for_a_gone_one() {
        let (session, far) = session();
        let output = session.output.clone();
        let sending = tokio::spawn(async move {
            let piece = Bytes::from(vec![7; OUTPUT_PIECE_BYTES * OUTPUT_PIECES_MAX * 2]);
            output.stdout(piece).await
        });
        tokio::task::yield_now().await;
        assert!(!sending.is_finished(), "output is not bounded");
        drop(far);
        assert_eq!(sending.await.unwrap(), Err(Gone));
        session.output.gone().await;
    }

    #[tokio::test]
    async fn an_interrupt_still_lets_output_through() {
        let (session, mut far) = session();
        far.interrupt();
        session.output.gone().await;
        session.output.stderr(Bytes::from_static(b"stopped")).await.unwrap();
        session.output.finish(130).await;
        assert_eq!(far.next().await, Some(OutputEvent::Stderr(Bytes::from_static(b"stopped"))));
        assert_eq!(far.next().await, Some(OutputEvent::Exit(130)));
    }
}
