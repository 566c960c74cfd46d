//! One connection through the network of [`super::proxy`]: bytes both ways, each way in its shape.
//!
//! What flows is never changed, reordered or dropped inside of a connection, for TCP does not do so
//! either: a cut keeps bytes until it heals, loss is a wait for the repetition, and a connection
//! may be reset. What is kept is bounded, and then the sender's kernel waits.

use bytes::{Bytes, BytesMut};
use rand::RngExt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What one read takes: a packet on loopback has no more.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks of one direction that are on their way: as much as a fast link over 100 ms holds.
const CHUNKS_WAITING: usize = 64;

/// How long TCP waits at first before it sends again what was lost; doubled each time.
const REPEAT_AFTER: Duration = Duration::from_millis(200);

/// Repetitions that are lost as well, at most.
const REPEATS_MAX: u32 = 3;

/// How one direction between two ends is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Nothing arrives; what was sent arrives once this is over.
    pub cut: bool,
    /// Everything takes this long.
    pub delay: Duration,
    /// Up to this much longer, drawn anew for each chunk.
    pub jitter: Duration,
    /// So many of 1000 chunks have to be sent again.
    pub lost_per_mille: u32,
    /// So many of 1000 chunks reset their connection.
    pub reset_per_mille: u32,
}

/// Moves bytes both ways until both ends have closed, or it is reset.
pub async fn carry(
    mut dialled: TcpStream,
    mut reached: TcpStream,
    there: watch::Receiver<Shape>,
    back: watch::Receiver<Shape>,
    reset: CancellationToken,
) {
    let moved = {
        let (dialled_read, dialled_write) = dialled.split();
        let (reached_read, reached_write) = reached.split();
        let both = async {
            tokio::try_join!(
                pass(dialled_read, reached_write, there),
                pass(reached_read, dialled_write, back)
            )
        };
        tokio::select! {
            moved = both => moved.is_ok(),
            () = reset.cancelled() => false,
        }
    };
    if !moved {
        // What is dropped now is reset, not closed in order.
        let _gone = (dialled.set_zero_linger(), reached.set_zero_linger());
    }
}

/// One direction of one connection.
async fn pass(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    shape: watch::Receiver<Shape>,
) -> io::Result<()> {
    let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
    tokio::try_join!(take(from, sender, shape.clone()), give(to, chunks, shape)).map(|_| ())
}

type Chunk = (Instant, Bytes);

/// Reads, and says when each chunk will have arrived.
async fn take(
    mut from: ReadHalf<'_>,
    chunks: mpsc::Sender<Chunk>,
    shape: watch::Receiver<Shape>,
) -> io::Result<()> {
    let mut last = Instant::now();
    loop {
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let shape = *shape.borrow();
        if happens(shape.reset_per_mille) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        // Whatever comes after a chunk that is late waits for it.
        last = last.max(Instant::now() + transit(shape));
        if chunks.send((last, bytes.freeze())).await.is_err() {
            return Ok(());
        }
    }
}

/// Writes each chunk when its time has come and the way is free.
async fn give(
    mut to: WriteHalf<'_>,
    mut chunks: mpsc::Receiver<Chunk>,
    mut shape: watch::Receiver<Shape>,
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    while let Some((due, bytes)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        shape.wait_for(|shape| !shape.cut).await.map_err(gone)?;
        to.write_all(&bytes).await?;
    }
    // That it is closed does not arrive through a cut either.
    shape.wait_for(|shape| !shape.cut).await.map_err(gone)?;
    to.shutdown().await
}

fn happens(per_mille: u32) -> bool {
    per_mille > 0 && rand::rng().random_range(0..1000) < per_mille
}

/// How long a chunk takes.
fn transit(shape: Shape) -> Duration {
    let mut total = shape.delay + shape.jitter.mul_f64(rand::random());
    let mut wait = REPEAT_AFTER;
    for _ in 0..REPEATS_MAX {
        if !happens(shape.lost_per_mille) {
            break;
        }
        total += wait;
        wait *= 2;
    }
    total
}

#[test]
fn what_is_lost_comes_again() {
    let lost = Shape { lost_per_mille: 1000, ..Shape::default() };
    let repeats: Duration = (0..REPEATS_MAX).map(|n| REPEAT_AFTER * 2_u32.pow(n)).sum();
    assert_eq!(transit(lost), repeats);
    assert_eq!(transit(Shape::default()), Duration::ZERO);
}
