//! What was handed over to the log and waits to be written: what the node's end of the log and the
//! writer's share.

use super::index::SlotIndex;
use super::log::{Books, Found, Place};
use super::{LAZY_SYNC, command_bytes};
use crate::paxos::ballot::Slot;
use crate::paxos::record::{LogPosition, Record};
use crate::telemetry::metrics::LogMetrics;
use crate::telemetry::watchdog::{Beat, Work};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What a record counts for beside its command when the queue is measured.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// What the node's thread and the writer share. No lock is held during a system call.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Records wait, or the log is to stop.
    wake: Condvar,
    pub metrics: LogMetrics,
    /// The writer's.
    pub beat: Beat,
}

struct State {
    queue: VecDeque<Record<Bytes>>,
    /// Of records handed over and not yet durable.
    waiting_bytes: usize,
    /// Somebody waits for what is in the queue.
    wanted: bool,
    stopping: bool,
    books: Books,
}

/// What must be known of a record once it is in a block.
pub(super) struct Written {
    pub position: LogPosition,
    pub slot: Option<Slot>,
    pub bytes: usize,
    pub frame_at: usize,
}

impl Written {
    pub(super) fn new(record: &Record<Bytes>, position: LogPosition, frame_at: usize) -> Written {
        Written { position, slot: slot_of(record), bytes: record_bytes(record), frame_at }
    }
}

impl Shared {
    pub(super) fn new(index: SlotIndex<Place>, metrics: LogMetrics, beat: Beat) -> Shared {
        let books = Books { index, waiting: BTreeMap::new() };
        let queue = VecDeque::new();
        let state = State { queue, waiting_bytes: 0, wanted: false, stopping: false, books };
        Shared { state: Mutex::new(state), wake: Condvar::new(), metrics, beat }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a thread that panics with the log in hand ends the process")
    }

    /// Hands records over, of which the first has position `end`; returns the new end.
    pub(super) fn append(&self, mut end: LogPosition, records: Vec<Record<Bytes>>) -> LogPosition {
        let mut state = self.state();
        for record in &records {
            state.waiting_bytes += record_bytes(record);
            state.books.hand_over(end, record);
            end = LogPosition(end.0 + 1);
        }
        state.queue.extend(records);
        self.count_queue(&state);
        end
    }

    fn count_queue(&self, state: &State) {
        self.metrics.queued_bytes.set(i64::try_from(state.waiting_bytes).unwrap_or(i64::MAX));
    }

    /// Has everything that waits written now.
    pub(super) fn sync(&self) {
        self.state().wanted = true;
        self.wake.notify_one();
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.state().waiting_bytes
    }

    pub(super) fn look_up(&self, first: Slot, last: Slot, count_max: usize) -> Vec<Found> {
        self.state().books.look_up(first, last, count_max)
    }

    /// Asks the writer to end once nothing waits.
    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.wake.notify_one();
    }

    /// Whether somebody waits for what is in the queue.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.state();
        state.wanted && !state.queue.is_empty()
    }

    /// Everything that waits; returns at once.
    pub(super) fn take_queue(&self) -> VecDeque<Record<Bytes>> {
        let mut state = self.state();
        state.wanted = false;
        std::mem::take(&mut state.queue)
    }

    /// Returns true once somebody wants what waits to be durable, or it has waited for
    /// [`LAZY_SYNC`]; false when nothing waits and the log is to end.
    pub(super) fn wait_for_work(&self) -> bool {
        loop {
            self.beat.busy(Work::Waiting);
            let idle = |state: &mut State| !state.wanted && !state.stopping;
            let waited = self.wake.wait_timeout_while(self.state(), LAZY_SYNC, idle);
            let (mut state, _) = waited.expect("see state()");
            if !state.queue.is_empty() {
                return true;
            }
            state.wanted = false;
            if state.stopping {
                return false;
            }
        }
    }

    /// Waits before another try; says whether the log is to end instead.
    pub(super) fn wait_for_room(&self, retry: Duration) -> bool {
        self.beat.busy(Work::NoRoom);
        let going_on = |state: &mut State| !state.stopping;
        let waited = self.wake.wait_timeout_while(self.state(), retry, going_on);
        waited.expect("see state()").0.stopping
    }

    /// Notes where records are that are durable now.
    pub(super) fn settle(&self, written: &[Written], segment: u64, block_offset: u64) {
        let mut state = self.state();
        for record in written {
            state.waiting_bytes -= record.bytes;
            if let Some(slot) = record.slot {
                let place = Place::on_disk(segment, block_offset + record.frame_at as u64);
                state.books.settle(slot, record.position, place);
            }
        }
        self.count_queue(&state);
    }
}

fn slot_of(record: &Record<Bytes>) -> Option<Slot> {
    match record {
        Record::Accepted(vote) => Some(vote.slot),
        Record::Learned { slot, .. } => Some(*slot),
        Record::Genesis { .. }
        | Record::Promised(_)
        | Record::Chosen(_)
        | Record::Floor(_)
        | Record::Fenced => None,
    }
}

fn record_bytes(record: &Record<Bytes>) -> usize {
    RECORD_OVERHEAD_BYTES
        + match record {
            Record::Accepted(vote) => command_bytes(&vote.entry),
            Record::Learned { entry, .. } => command_bytes(entry),
            _ => 0,
        }
}
