//! Moves what a session says to its channel.

use super::session::{EXIT_UNFINISHED, Life, OutputEvent};
use bytes::{Bytes, BytesMut};
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::sync::mpsc;
use tracing::debug;

/// Output gathered into one write.
const WRITE_BYTES: usize = 64 << 10;

/// SSH's number for standard error among the kinds of extended data.
const STDERR: u32 = 1;

/// Moves a session's output to its channel: the only writer of that channel, cancelled by nobody
/// while the channel lives. `show` is what a terminal needs done to it.
pub(super) async fn write_output(
    write: ChannelWriteHalf<Msg>,
    mut queue: mpsc::Receiver<OutputEvent>,
    life: Life,
    show: fn(Bytes) -> Bytes,
) {
    let writing = async {
        let mut next = queue.recv().await;
        let exit = loop {
            let (stderr, first) = match next {
                None => break EXIT_UNFINISHED,
                Some(OutputEvent::Exit(exit)) => break exit,
                Some(OutputEvent::Stdout(bytes)) => (false, bytes),
                Some(OutputEvent::Stderr(bytes)) => (true, bytes),
            };
            let (bytes, after) = gather(first, stderr, &mut queue);
            let bytes = show(bytes);
            if stderr {
                write.extended_data_bytes(STDERR, bytes).await?;
            } else {
                write.data_bytes(bytes).await?;
            }
            next = match after {
                Some(event) => Some(event),
                None => queue.recv().await,
            };
        };
        write.exit_status(exit).await?;
        write.eof().await
    };
    // A channel that is gone wakes nobody who waits for its window; `life` does.
    let written = tokio::select! {
        written = writing => written,
        () = life.closed() => return,
    };
    // Before the client learns of the end: it may open its next channel at once.
    life.close();
    if let Err(error) = written.and(write.close().await) {
        debug!(%error, "a connection ended before its answer was sent");
    }
}

/// Adds what waits behind `first` and goes the same way. Also answers what was taken but does not.
fn gather(
    first: Bytes,
    stderr: bool,
    queue: &mut mpsc::Receiver<OutputEvent>,
) -> (Bytes, Option<OutputEvent>) {
    let mut gathered = BytesMut::new();
    loop {
        let more = match queue.try_recv() {
            Ok(OutputEvent::Stdout(bytes)) if !stderr => bytes,
            Ok(OutputEvent::Stderr(bytes)) if stderr => bytes,
            other => {
                let bytes = if gathered.is_empty() { first } else { gathered.freeze() };
                return (bytes, other.ok());
            }
        };
        if gathered.is_empty() {
            gathered.extend_from_slice(&first);
        }
        gathered.extend_from_slice(&more);
        if gathered.len() >= WRITE_BYTES {
            return (gathered.freeze(), None);
        }
    }
}
