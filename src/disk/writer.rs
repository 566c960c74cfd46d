//! The thread that writes the log.
//!
//! It takes everything that waits, writes it as one block, syncs, reports, and begins again: what
//! was appended meanwhile shares the next sync. A batch that does not fit in one block or in what
//! is left of the segment is written as several, each synced before the next begins, for only then
//! can a crash tear the last one only.
//!
//! Three things can go wrong. No room: the node is told, and the same write is tried again until
//! there is room or the node stops. A write or sync that fails otherwise ends the process, at once
//! and for good: what the kernel then holds is unknown, and a voter that is not sure of its memory
//! must not vote. So does a panic here, for a node whose pledges never leave would look alive.

use super::files::{Files, is_no_room};
use super::index::SlotIndex;
use super::log::{Books, Found, LogSettings, Place};
use super::recovery::{SPARE_NAME, Segment, segment_path};
use super::segment::{
    BLOCK_BYTES_MAX, BlockBuilder, HEADER_BYTES, SegmentHeader, fill_with_pattern,
};
use super::{LAZY_SYNC, LogError, LogEvent, LogOwner, command_bytes};
use crate::paxos::ballot::Slot;
use crate::paxos::record::{LogPosition, Record};
use crate::telemetry::metrics::LogMetrics;
use crate::telemetry::watchdog::{Beat, Work};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long to wait before trying again when there is no room. An operator who freed some sees
/// writes resume at once; two tries a second cost nothing.
const NO_ROOM_RETRY: Duration = Duration::from_millis(500);

/// A new segment is filled in pieces of this size, each synced, so that the log's own sync never
/// waits behind 64 MiB of it.
const FILL_BYTES: usize = 1024 * 1024;

/// What a record counts for beside its command when the queue is measured.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// What the node's thread and the writer share. No lock is held during a system call.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Records wait, or the log is to stop.
    wake: Condvar,
    metrics: LogMetrics,
    /// The writer's.
    beat: Beat,
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

    /// Everything that waits, once somebody wants it durable or it has waited for [`LAZY_SYNC`];
    /// none when the log is to end.
    fn take_queue(&self) -> Option<VecDeque<Record<Bytes>>> {
        loop {
            self.beat.busy(Work::Waiting);
            let idle = |state: &mut State| !state.wanted && !state.stopping;
            let waited = self.wake.wait_timeout_while(self.state(), LAZY_SYNC, idle);
            let (mut state, _) = waited.expect("see state()");
            state.wanted = false;
            if !state.queue.is_empty() {
                return Some(std::mem::take(&mut state.queue));
            }
            if state.stopping {
                return None;
            }
        }
    }

    /// Waits before another try; says whether the log is to end instead.
    fn wait_for_room(&self) -> bool {
        self.beat.busy(Work::NoRoom);
        let going_on = |state: &mut State| !state.stopping;
        let waited = self.wake.wait_timeout_while(self.state(), NO_ROOM_RETRY, going_on);
        waited.expect("see state()").0.stopping
    }

    fn settle(&self, written: &[Written], segment: u64, block_offset: u64) {
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

/// What must be known of a record once it is in a block.
struct Written {
    position: LogPosition,
    slot: Option<Slot>,
    bytes: usize,
    frame_at: usize,
}

/// The log ends before all was written, because there is no room and the node stops.
struct Stopped;

pub(super) struct Writer<E> {
    shared: Arc<Shared>,
    directory: PathBuf,
    segment: Segment,
    /// The position of the next record to be written.
    position: LogPosition,
    settings: LogSettings,
    files: Arc<dyn Files>,
    on_event: E,
    block: BlockBuilder,
    spare: Option<JoinHandle<io::Result<Spare>>>,
    /// Whether the node was told that there is no room.
    full: bool,
}

impl<E: Fn(LogEvent)> Writer<E> {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: &Path,
        segment: Segment,
        position: LogPosition,
        settings: LogSettings,
        files: Arc<dyn Files>,
        on_event: E,
    ) -> Writer<E> {
        // Segments are numbered from 1, and none is ever removed.
        shared.metrics.segments.set(i64::try_from(segment.header.number).unwrap_or(i64::MAX));
        Writer {
            shared,
            directory: directory.to_owned(),
            segment,
            position,
            settings,
            files,
            on_event,
            block: BlockBuilder::default(),
            spare: None,
            full: false,
        }
    }

    /// Writes until the log is dropped.
    pub(super) fn run(mut self) {
        let _guard = AbortOnPanic;
        while let Some(queue) = self.shared.take_queue() {
            if self.write(queue).is_err() {
                break;
            }
        }
        if let Some(spare) = self.spare.take() {
            // It must not write on after the lock is gone; how it ended does not matter.
            let _ = spare.join();
        }
    }

    fn write(&mut self, mut queue: VecDeque<Record<Bytes>>) -> Result<(), Stopped> {
        while !queue.is_empty() {
            let written = self.fill_block(&mut queue);
            if written.is_empty() {
                self.rotate()?;
                continue;
            }
            self.write_block(&written)?;
        }
        Ok(())
    }

    /// Moves as many records into a block as fit in what is left of the segment; none if not even
    /// one does.
    fn fill_block(&mut self, queue: &mut VecDeque<Record<Bytes>>) -> Vec<Written> {
        let room = self.segment.header.bytes - self.segment.offset;
        let bytes_max = usize::try_from(room).map_or(BLOCK_BYTES_MAX, |r| r.min(BLOCK_BYTES_MAX));
        let mut written = Vec::with_capacity(queue.len());
        self.block.start();
        while let Some(record) = queue.front() {
            let Some(frame_at) = self.block.push(record, bytes_max) else { break };
            let (slot, bytes) = (slot_of(record), record_bytes(record));
            let position = LogPosition(self.position.0 + written.len() as u64);
            written.push(Written { position, slot, bytes, frame_at });
            queue.pop_front();
        }
        let is_new = self.segment.offset == HEADER_BYTES as u64;
        assert!(!(written.is_empty() && is_new), "a record is larger than a segment or a block");
        written
    }

    fn write_block(&mut self, written: &[Written]) -> Result<(), Stopped> {
        let Segment { file, header, offset, path } = &self.segment;
        let (number, offset) = (header.number, *offset);
        let bytes = self.block.finish(header.seed, offset, self.position);
        let block_bytes = bytes.len() as u64;
        loop {
            self.shared.beat.busy(Work::Writing);
            match self.files.write(file, bytes, offset) {
                Ok(()) => break,
                Err(error) if is_no_room(&error) => {
                    tell_full(&mut self.full, &self.shared.metrics, &self.on_event);
                    if self.shared.wait_for_room() {
                        return Err(Stopped);
                    }
                }
                Err(error) => die("write to", path, &error),
            }
        }
        self.shared.beat.busy(Work::Syncing);
        let start = Instant::now();
        if let Err(error) = self.files.sync(file) {
            die("sync", path, &error);
        }
        let took = start.elapsed();
        self.segment.offset += block_bytes;
        self.position = LogPosition(self.position.0 + written.len() as u64);
        let metrics = &self.shared.metrics;
        metrics.sync_seconds.observe(took);
        metrics.written_bytes.inc_by(block_bytes);
        metrics.records.inc_by(written.len() as u64);
        self.shared.settle(written, number, offset);
        tell_room(&mut self.full, metrics, &self.on_event);
        (self.on_event)(LogEvent::Durable { position: self.position, took });
        self.prepare_when_half_full();
        Ok(())
    }

    fn prepare_when_half_full(&mut self) {
        if self.spare.is_none() && self.segment.offset > self.segment.header.bytes / 2 {
            let (directory, files) = (self.directory.clone(), self.files.clone());
            let bytes = self.settings.segment_bytes;
            let thread = std::thread::Builder::new().name("log-spare".into());
            // Without a thread, the segment is made when it is needed.
            self.spare = thread.spawn(move || Spare::make(&directory, bytes, &*files)).ok();
        }
    }

    /// Goes on in a new segment.
    fn rotate(&mut self) -> Result<(), Stopped> {
        let number = self.segment.header.number + 1;
        let owner = self.segment.header.owner.clone();
        loop {
            self.shared.beat.busy(Work::NewSegment);
            let spare = match self.spare.take().map(JoinHandle::join) {
                Some(Ok(Ok(spare))) => Ok(spare),
                // It failed for want of room, most likely; that shows again, or is over.
                Some(_) | None => {
                    Spare::make(&self.directory, self.settings.segment_bytes, &*self.files)
                }
            };
            let made = spare.and_then(|spare| {
                spare.take_into_use(&self.directory, number, self.position, &owner, &*self.files)
            });
            match made {
                Ok(segment) => {
                    self.segment = segment;
                    self.shared.metrics.segments.inc();
                    return Ok(());
                }
                Err(error) if is_no_room(&error) => {
                    tell_full(&mut self.full, &self.shared.metrics, &self.on_event);
                    if self.shared.wait_for_room() {
                        return Err(Stopped);
                    }
                }
                Err(error) => die("add a segment to", &self.directory, &error),
            }
        }
    }
}

fn tell_full(full: &mut bool, metrics: &LogMetrics, on_event: &impl Fn(LogEvent)) {
    if !*full {
        *full = true;
        metrics.disk_full.set(1);
        tracing::error!("no room for the log; nothing is accepted until there is, nothing is lost");
        on_event(LogEvent::Full);
    }
}

fn tell_room(full: &mut bool, metrics: &LogMetrics, on_event: &impl Fn(LogEvent)) {
    if *full {
        *full = false;
        metrics.disk_full.set(0);
        tracing::info!("there is room for the log again");
        on_event(LogEvent::Room);
    }
}

/// The first segment of a fresh directory.
pub(super) fn first_segment(
    directory: &Path,
    owner: &LogOwner,
    settings: LogSettings,
    files: &dyn Files,
) -> Result<Segment, LogError> {
    Spare::make(directory, settings.segment_bytes, files)
        .and_then(|spare| spare.take_into_use(directory, 1, LogPosition(0), owner, files))
        .map_err(|source| LogError::Io {
            action: "create the first segment in",
            path: directory.to_owned(),
            source,
        })
}

/// A segment full of pattern, without a header and a name yet.
struct Spare {
    file: File,
    path: PathBuf,
    seed: u64,
    bytes: u64,
}

impl Spare {
    fn make(directory: &Path, bytes: u64, files: &dyn Files) -> io::Result<Spare> {
        let path = directory.join(SPARE_NAME);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = file.open(&path)?;
        files.allocate(&file, bytes)?;
        // Not for secrecy from whoever reads the disk, but so that no value can hold the pattern by
        // intent.
        let seed = RandomState::new().build_hasher().finish();
        let mut piece = vec![0; FILL_BYTES.min(usize::try_from(bytes).unwrap_or(FILL_BYTES))];
        let mut offset = 0;
        while offset < bytes {
            let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
            piece.truncate(left);
            fill_with_pattern(seed, offset, &mut piece);
            files.write(&file, &piece, offset)?;
            files.sync(&file)?;
            offset += piece.len() as u64;
        }
        Ok(Spare { file, path, seed, bytes })
    }

    /// Gives it its header, then its name: a file with a segment's name always has a whole header.
    fn take_into_use(
        self,
        directory: &Path,
        number: u64,
        first: LogPosition,
        owner: &LogOwner,
        files: &dyn Files,
    ) -> io::Result<Segment> {
        let Spare { file, path: spare_path, seed, bytes } = self;
        let header = SegmentHeader { number, first, seed, bytes, owner: owner.clone() };
        files.write(&file, &header.encode(), 0)?;
        files.sync(&file)?;
        let path = segment_path(directory, number);
        std::fs::rename(spare_path, &path)?;
        File::open(directory)?.sync_all()?;
        Ok(Segment { file, path, header, offset: HEADER_BYTES as u64 })
    }
}

fn slot_of(record: &Record<Bytes>) -> Option<Slot> {
    match record {
        Record::Accepted(vote) => Some(vote.slot),
        Record::Learned { slot, .. } => Some(*slot),
        Record::Genesis { .. } | Record::Promised(_) | Record::Chosen(_) | Record::Floor(_) => None,
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

/// Ends the process: what is on the disk is no longer known, and it must not be guessed by trying
/// again.
fn die(action: &str, path: &Path, error: &io::Error) -> ! {
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
