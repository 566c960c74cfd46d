//! The byte stream under an SSH connection: reads ahead, writes behind, and can be slowed down.
//!
//! russh has two habits that this layer makes harmless, without a task or a lock of its own:
//!
//! * Its session loop does not read while it flushes. When both ends of one connection have more to
//!   send than the kernel's buffers hold, both stop for ever. So a write that the kernel does not
//!   take now goes into a bounded buffer here, and the loop goes on reading; what was buffered
//!   leaves whenever the loop reads, flushes or writes again, and it always does one of these. Only
//!   when that buffer is full, too, does a write wait. One end with a buffer as large as all
//!   windows that its peer grants is enough.
//! * It reads each packet with two system calls. Reading ahead makes it one for many packets.
//!
//! The [`SocketControl`] slows reading down ([`BRAKE_PAUSE`]; `connection.rs` says why), and cuts
//! the connection whatever russh is doing: its tasks cannot be aborted from outside, but they end
//! when their stream fails.
//!
//! The cost: a copy of the bytes that did not fit (none while the network keeps up), and one read
//! buffer per connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Bytes read ahead. Holds dozens of small packets; a larger packet's tail is read straight into
/// place.
const READ_AHEAD_BYTES: usize = 16 << 10;

/// How long a closing connection may take to send what is still buffered. A peer that stopped
/// reading must not keep a dead connection's memory.
const CLOSE_DRAIN: Duration = Duration::from_secs(2);

/// Time between two reads while the brake is on. Long enough that a client held back costs little,
/// short enough that other channels of its connection hardly notice.
pub(super) const BRAKE_PAUSE: Duration = Duration::from_millis(2);

/// A buffer that once grew over this is given back when it is empty.
const KEPT_CAPACITY_BYTES: usize = 64 << 10;

/// Reaches into a connection from outside of russh.
#[derive(Debug, Clone, Default)]
pub(super) struct SocketControl {
    brake: Arc<AtomicBool>,
    cut: CancellationToken,
}

impl SocketControl {
    /// Slows reading down, or lets it run again.
    pub(super) fn brake(&self, on: bool) {
        self.brake.store(on, Ordering::Relaxed);
    }

    /// Ends the connection at once, without a word.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Ends it when the guard is dropped, unless that is disarmed before.
    pub(super) fn cut_on_drop(&self) -> DropGuard {
        self.cut.clone().drop_guard()
    }

    fn is_braking(&self) -> bool {
        self.brake.load(Ordering::Relaxed)
    }
}

/// Wraps the stream that russh runs on.
pub(super) struct Socket<S> {
    stream: S,
    read_ahead: Box<[u8]>,
    read_from: usize,
    read_to: usize,
    behind: Vec<u8>,
    behind_from: usize,
    behind_max: usize,
    control: SocketControl,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    pause: Option<Pin<Box<Sleep>>>,
    closing: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `behind_max` bounds the bytes that wait for the kernel; 0 makes writes wait for it instead.
    pub(super) fn new(stream: S, behind_max: usize, control: SocketControl) -> Socket<S> {
        let cut = Box::pin(control.cut.clone().cancelled_owned());
        Socket {
            stream,
            read_ahead: vec![0; READ_AHEAD_BYTES].into_boxed_slice(),
            read_from: 0,
            read_to: 0,
            behind: Vec::new(),
            behind_from: 0,
            behind_max,
            control,
            cut,
            pause: None,
            closing: None,
        }
    }

    fn behind_bytes(&self) -> usize {
        self.behind.len() - self.behind_from
    }

    /// Ready once nothing is left behind. Pending leaves a waker with the stream.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.behind_bytes() > 0 {
            let rest = &self.behind[self.behind_from..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.behind_from += written;
        }
        self.behind_from = 0;
        if self.behind.capacity() > KEPT_CAPACITY_BYTES {
            self.behind = Vec::new();
        } else {
            self.behind.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what fits behind; there must be room.
    fn keep(&mut self, bytes: &[u8]) -> usize {
        if self.behind_from > 0 && self.behind.len() + bytes.len() > self.behind.capacity() {
            self.behind.drain(..self.behind_from);
            self.behind_from = 0;
        }
        let taken = bytes.len().min(self.behind_max - self.behind_bytes());
        self.behind.extend_from_slice(&bytes[..taken]);
        taken
    }

    fn check_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Pending until the pause that the brake asks for is over.
    fn poll_brake(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn poll_stream(
        &mut self,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() >= READ_AHEAD_BYTES {
            return Pin::new(&mut self.stream).poll_read(context, out);
        }
        let mut ahead = ReadBuf::new(&mut self.read_ahead);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut ahead))?;
        self.read_from = 0;
        self.read_to = ahead.filled().len();
        self.give(out);
        Poll::Ready(Ok(()))
    }

    fn give(&mut self, out: &mut ReadBuf<'_>) {
        let given = out.remaining().min(self.read_to - self.read_from);
        out.put_slice(&self.read_ahead[self.read_from..][..given]);
        self.read_from += given;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check_cut(context)?;
        if this.behind_bytes() > 0
            && let Poll::Ready(Err(error)) = this.poll_drain(context)
        {
            return Poll::Ready(Err(error));
        }
        if this.read_from < this.read_to {
            this.give(out);
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_brake(context));
        ready!(this.poll_stream(context, out))?;
        if this.control.is_braking() {
            this.pause = Some(Box::pin(tokio::time::sleep(BRAKE_PAUSE)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check_cut(context)?;
        let stuck = match this.poll_drain(context) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_write(context, bytes),
            Poll::Pending => Poll::Pending,
        };
        if stuck.is_pending() && this.behind_bytes() < this.behind_max {
            return Poll::Ready(Ok(this.keep(bytes)));
        }
        stuck
    }

    /// Writing behind is the point: what waits for the kernel counts as flushed.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_drain(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_flush(context),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.poll_drain(context) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
            Poll::Pending => {
                let sleep = || Box::pin(tokio::time::sleep(CLOSE_DRAIN));
                let deadline = this.closing.get_or_insert_with(sleep);
                ready!(deadline.as_mut().poll(context));
            }
        }
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn writes_do_not_wait_for_a_peer_until_the_bound() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut socket = Socket::new(near, 100, SocketControl::default());
        let write = socket.write_all(&[1; 108]);
        tokio::time::timeout(Duration::from_secs(5), write).await.expect("waited").unwrap();
        socket.flush().await.unwrap();

        let full = tokio::time::timeout(Duration::from_millis(20), socket.write_all(&[2; 1])).await;
        assert!(full.is_err(), "the bound did not hold");

        // Reading, and nothing else, lets go of what waits behind.
        let reading = tokio::spawn(async move {
            let mut byte = [0];
            let _ended = socket.read_exact(&mut byte).await;
            socket
        });
        let mut got = vec![0; 108];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [1; 108]);
        far.write_all(&[9]).await.unwrap();
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn bytes_stay_in_order_through_any_buffering() {
        let (near, far) = tokio::io::duplex(7);
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let (mut read, mut write) =
            tokio::io::split(Socket::new(near, 1 << 20, SocketControl::default()));
        let sent: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let echo = tokio::spawn(async move {
            tokio::io::copy(&mut far_read, &mut far_write).await.unwrap();
        });
        for piece in sent.chunks(333) {
            write.write_all(piece).await.unwrap();
        }
        let mut got = vec![0; expected.len()];
        read.read_exact(&mut got).await.unwrap();
        assert!(got == expected);
        echo.abort();
    }

    #[tokio::test]
    async fn closing_does_not_wait_for_ever() {
        let (near, _far) = tokio::io::duplex(8);
        let mut socket = Socket::new(near, 100, SocketControl::default());
        socket.write_all(&[1; 50]).await.unwrap();
        tokio::time::timeout(CLOSE_DRAIN * 10, socket.shutdown()).await.expect("hangs").unwrap();
    }

    #[tokio::test]
    async fn the_brake_spaces_reads_out() {
        let (near, mut far) = tokio::io::duplex(64);
        let control = SocketControl::default();
        control.brake(true);
        let mut socket = Socket::new(near, 0, control);
        let started = std::time::Instant::now();
        for n in 0..5 {
            far.write_all(&[n]).await.unwrap();
            let mut byte = [0];
            socket.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [n]);
        }
        assert!(started.elapsed() >= BRAKE_PAUSE * 4, "read without pause");
    }

    #[tokio::test]
    async fn cutting_ends_a_read_that_waits() {
        let (near, _far) = tokio::io::duplex(8);
        let control = SocketControl::default();
        let mut socket = Socket::new(near, 0, control.clone());
        let reading = tokio::spawn(async move { socket.read_u8().await });
        tokio::task::yield_now().await;
        control.cut();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
