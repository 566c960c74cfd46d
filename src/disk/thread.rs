//! The thread that writes the log: the writer's steps, one after the other, with a clock, and with
//! waits where there is nothing to do.
//!
//! When there is no room, the node is told, and the same step is tried again until there is room or
//! the node stops. A write or sync that fails otherwise ends the process, at once and for good. So
//! does a panic here, for a node whose pledges never leave would look alive.

use super::LogEvent;
use super::queue::Shared;
use super::writer::{Failure, Spare, Step, Writer};
use crate::telemetry::watchdog::Work;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long to wait before trying again when there is no room. An operator who freed some sees
/// writes resume at once; two tries a second cost nothing.
const NO_ROOM_RETRY: Duration = Duration::from_millis(500);

/// Writes until the log is dropped.
pub(super) fn run(shared: &Arc<Shared>, mut writer: Writer, mut on_event: impl FnMut(LogEvent)) {
    let _guard = AbortOnPanic;
    let mut spare: Option<JoinHandle<io::Result<Spare>>> = None;
    while !writer.is_at_rest() || shared.wait_for_work() {
        let start = Instant::now();
        let step = writer.step().unwrap_or_else(|failure| die(&failure));
        writer.report(step, start.elapsed(), &mut on_event);
        match step {
            Step::Durable(_) if spare.is_none() => spare = prepare(&writer),
            Step::SegmentFull => {
                shared.beat.busy(Work::NewSegment);
                // If it failed, then for want of room, most likely; that shows again, or is over.
                if let Some(Ok(Ok(spare))) = spare.take().map(JoinHandle::join) {
                    writer.provide(spare);
                }
            }
            Step::NoRoom if shared.wait_for_room(NO_ROOM_RETRY) => break,
            Step::Idle | Step::Written | Step::Durable(_) | Step::Rotated | Step::NoRoom => {}
        }
    }
    if let Some(spare) = spare {
        // It must not write on after the lock is gone; how it ended does not matter.
        let _ = spare.join();
    }
}

fn prepare(writer: &Writer) -> Option<JoinHandle<io::Result<Spare>>> {
    let make = writer.preparation()?;
    // Without a thread, the segment is made when it is needed.
    std::thread::Builder::new().name("log-spare".into()).spawn(make).ok()
}

/// Ends the process: what is on the disk is no longer known, and it must not be guessed by trying
/// again.
fn die(failure: &Failure) -> ! {
    let Failure { action, path, error } = failure;
    let path = path.display();
    // On standard error as well: the tracing output may be elsewhere or already gone.
    eprintln!(
        "fatal: could not {action} {path}: {error}; this process ends, for the log may have lost \
         what was written; check the disk, then start the node again"
    );
    tracing::error!(%path, %error, "could not {action} the log; the process ends");
    std::process::abort();
}

/// See the module's documentation.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("fatal: the log's writer panicked; this process ends; report this fault");
            std::process::abort();
        }
    }
}
