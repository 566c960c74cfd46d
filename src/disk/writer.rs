//! What the log's writer does, step by step.
//!
//! It takes everything that waits, writes it as one block, syncs, reports, and begins again: what
//! was appended meanwhile shares the next sync. A batch that does not fit in one block or in what
//! is left of the segment is written as several, each synced before the next begins, for only then
//! can a crash tear the last one only.
//!
//! Nothing here waits, looks at a clock or starts a thread: whoever calls [`Writer::step`] decides
//! when the next step happens. In production that is the log's thread, in a simulation the
//! simulator, which may crash the node between any two steps and within each.
//!
//! Two things can go wrong. No room: the same step is to be tried again. Anything else is a
//! [`Failure`], and the writer is not to be used after it: what the disk then holds is unknown, and
//! a voter that is not sure of its memory must not vote.

use super::LogEvent;
use super::files::{Storage, is_no_room};
use super::log::LogSettings;
use super::queue::{Shared, Written};
use super::recovery::Segment;
use super::segment::{BLOCK_BYTES_MAX, BlockBuilder, HEADER_BYTES};
pub use super::spare::Spare;
use crate::paxos::record::{LogPosition, Record};
use crate::telemetry::watchdog::Work;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// A block was written; the next step syncs it.
    Written,
    /// Every record before this position will survive a crash.
    Durable(LogPosition),
    /// The next block does not fit in the segment; the next step begins a new one, from the spare
    /// if there is one by then (see [`Writer::provide`]).
    SegmentFull,
    /// The log goes on in a new segment.
    Rotated,
    /// There is no room. The next step tries the same again.
    NoRoom,
}

/// A write or a sync that failed, after which the log must not go on.
#[derive(Debug)]
pub struct Failure {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the operating system said.
    pub error: io::Error,
}

/// The end of the log that writes.
pub struct Writer {
    shared: Arc<Shared>,
    directory: PathBuf,
    segment: Segment,
    /// The position of the next record to be written.
    position: LogPosition,
    settings: LogSettings,
    storage: Arc<dyn Storage>,
    block: BlockBuilder,
    /// Taken from the queue, not yet in a block.
    batch: VecDeque<Record<Bytes>>,
    /// What the block holds, until it is durable.
    written: Vec<Written>,
    state: State,
    spare: Option<Spare>,
    /// Whether the node was told that there is no room.
    full: bool,
}

/// What the next step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Fill a block.
    Between,
    /// Write the block that is filled.
    Filled,
    /// Sync the block that is written.
    Unsynced,
    /// Begin a new segment.
    SegmentFull,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: &Path,
        segment: Segment,
        position: LogPosition,
        settings: LogSettings,
        storage: Arc<dyn Storage>,
    ) -> Writer {
        // Segments are numbered from 1, and none is ever removed.
        shared.metrics.segments.set(i64::try_from(segment.header.number).unwrap_or(i64::MAX));
        Writer {
            shared,
            directory: directory.to_owned(),
            segment,
            position,
            settings,
            storage,
            block: BlockBuilder::default(),
            batch: VecDeque::new(),
            written: Vec::new(),
            state: State::Between,
            spare: None,
            full: false,
        }
    }

    /// Whether all that was taken from the queue is durable, so that a step would take more.
    pub fn is_at_rest(&self) -> bool {
        self.state == State::Between && self.batch.is_empty()
    }

    /// Whether somebody waits for records that were not taken yet.
    pub fn is_wanted(&self) -> bool {
        self.shared.is_wanted()
    }

    /// Does what is next.
    ///
    /// # Errors
    /// When the disk failed; the log is then at its end.
    pub fn step(&mut self) -> Result<Step, Failure> {
        match self.state {
            State::Between => {
                if self.batch.is_empty() {
                    self.batch = self.shared.take_queue();
                }
                if self.batch.is_empty() {
                    return Ok(Step::Idle);
                }
                self.fill_block();
                if self.written.is_empty() {
                    self.state = State::SegmentFull;
                    return Ok(Step::SegmentFull);
                }
                self.write_block()
            }
            State::Filled => self.write_block(),
            State::Unsynced => self.sync_block(),
            State::SegmentFull => self.rotate(),
        }
    }

    /// Tells the node what it must know of a step that took so long.
    pub fn report(&mut self, step: Step, took: Duration, on_event: &mut impl FnMut(LogEvent)) {
        match step {
            Step::NoRoom if !self.full => {
                self.full = true;
                self.shared.metrics.disk_full.set(1);
                tracing::error!(
                    "no room for the log; nothing is accepted until there is, nothing is lost"
                );
                on_event(LogEvent::Full);
            }
            Step::Durable(position) => {
                self.shared.metrics.sync_seconds.observe(took);
                if self.full {
                    self.full = false;
                    self.shared.metrics.disk_full.set(0);
                    tracing::info!("there is room for the log again");
                    on_event(LogEvent::Room);
                }
                on_event(LogEvent::Durable { position, took });
            }
            Step::Idle | Step::Written | Step::SegmentFull | Step::Rotated | Step::NoRoom => {}
        }
    }

    /// What makes the next segment, anywhere and at any time, if it is time for that.
    pub fn preparation(&self) -> Option<impl FnOnce() -> io::Result<Spare> + Send + 'static> {
        let is_half_full = self.segment.offset > self.segment.header.bytes / 2;
        if self.spare.is_some() || !is_half_full {
            return None;
        }
        let (directory, storage) = (self.directory.clone(), self.storage.clone());
        let bytes = self.settings.segment_bytes;
        Some(move || Spare::make(&directory, bytes, &*storage))
    }

    /// Hands over the next segment. Without one, the writer makes it when it is needed.
    pub fn provide(&mut self, spare: Spare) {
        self.spare = Some(spare);
    }

    /// Moves as many records into a block as fit in what is left of the segment; none if not even
    /// one does.
    fn fill_block(&mut self) {
        let room = self.segment.header.bytes - self.segment.offset;
        let bytes_max = usize::try_from(room).map_or(BLOCK_BYTES_MAX, |r| r.min(BLOCK_BYTES_MAX));
        self.written = Vec::with_capacity(self.batch.len());
        self.block.start();
        while let Some(record) = self.batch.front() {
            let Some(frame_at) = self.block.push(record, bytes_max) else { break };
            let position = LogPosition(self.position.0 + self.written.len() as u64);
            self.written.push(Written::new(record, position, frame_at));
            self.batch.pop_front();
        }
        let is_new = self.segment.offset == HEADER_BYTES as u64;
        let is_stuck = self.written.is_empty() && is_new;
        assert!(!is_stuck, "a record is larger than a segment or a block");
        if !self.written.is_empty() {
            let Segment { header, offset, .. } = &self.segment;
            self.block.finish(header.seed, *offset, self.position);
        }
    }

    fn write_block(&mut self) -> Result<Step, Failure> {
        self.shared.beat.busy(Work::Writing);
        self.state = State::Filled;
        let Segment { file, offset, path, .. } = &self.segment;
        match file.write(self.block.bytes(), *offset) {
            Ok(()) => {
                self.state = State::Unsynced;
                Ok(Step::Written)
            }
            Err(error) if is_no_room(&error) && planted!(FullIsWritten) => {
                self.state = State::Unsynced;
                Ok(Step::Written)
            }
            Err(error) if is_no_room(&error) => Ok(Step::NoRoom),
            Err(error) => Err(Failure { action: "write to", path: path.clone(), error }),
        }
    }

    fn sync_block(&mut self) -> Result<Step, Failure> {
        self.shared.beat.busy(Work::Syncing);
        let Segment { file, header, offset, path } = &mut self.segment;
        let mut synced = if planted!(SyncSkipped) { Ok(()) } else { file.sync() };
        if synced.is_err() && planted!(SyncTriedAgain) {
            synced = file.sync();
        }
        synced.map_err(|error| Failure { action: "sync", path: path.clone(), error })?;
        let block_bytes = self.block.bytes().len() as u64;
        let metrics = &self.shared.metrics;
        metrics.written_bytes.inc_by(block_bytes);
        metrics.records.inc_by(self.written.len() as u64);
        self.shared.settle(&self.written, header.number, *offset);
        *offset += block_bytes;
        self.position = LogPosition(self.position.0 + self.written.len() as u64);
        self.state = State::Between;
        if planted!(PositionOffByOne) {
            return Ok(Step::Durable(LogPosition(self.position.0 + 1)));
        }
        Ok(Step::Durable(self.position))
    }

    /// Goes on in a new segment.
    fn rotate(&mut self) -> Result<Step, Failure> {
        self.shared.beat.busy(Work::NewSegment);
        let (directory, storage) = (&self.directory, &*self.storage);
        let spare = match self.spare.take() {
            Some(spare) => Ok(spare),
            None => Spare::make(directory, self.settings.segment_bytes, storage),
        };
        let Segment { header, .. } = &self.segment;
        let made = spare.and_then(|spare| {
            let (number, owner) = (header.number + 1, &header.owner);
            spare.take_into_use(directory, number, self.position, owner, storage)
        });
        match made {
            Ok(segment) => {
                self.segment = segment;
                self.shared.metrics.segments.inc();
                self.state = State::Between;
                Ok(Step::Rotated)
            }
            Err(error) if is_no_room(&error) => Ok(Step::NoRoom),
            Err(error) => {
                Err(Failure { action: "add a segment to", path: directory.clone(), error })
            }
        }
    }
}
