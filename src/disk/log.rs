//! The log on disk: a directory that one process owns, and what is written there.
//!
//! ```text
//! <directory>/LOCK                       held while open, names the process
//! <directory>/00000000000000000001.log   segments; see `segment` for what is in them
//! <directory>/spare                      the next segment, while it is prepared
//! ```
//! [`DiskLog`] is the end that the node's thread holds; it never waits for the disk except to read.
//! The other end is [`Writer`], which [`open`] gives to a thread of its own and [`open_stepped`] to
//! the caller. What was handed over but not yet written stays readable from memory.
//!
//! The log is not compacted yet: segments are only ever added.

use super::files::{Handle, Kernel, Storage};
use super::index::SlotIndex;
use super::queue::Shared;
use super::recovery::{Replayed, read, replay, segment_path};
use super::segment::{
    BLOCK_ALIGNMENT, FRAME_HEADER_BYTES, HEADER_BYTES, NAME_BYTES_MAX, claimed_frame_bytes,
    read_frame,
};
use super::spare::first_segment;
use super::writer::Writer;
use super::{Log, LogError, LogEvent, LogOwner, command_bytes, thread};
use crate::paxos::ballot::Slot;
use crate::paxos::message::Entry;
use crate::paxos::record::{LogPosition, Record, Recovered};
use crate::telemetry::metrics::LogMetrics;
use crate::telemetry::watchdog::Beat;
use crate::wire::record::decode_record;
use bytes::Bytes;
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A segment's length unless set otherwise: a new one every 200,000 writes of 256 bytes, whose
/// preparation then costs little, and small enough that a node with little data fits anywhere.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Offsets are kept in 32 bits, and a segment's tail is read whole when it is judged.
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Once this much waits to be written, the node should take no more. It is two seconds' worth for a
/// slow disk (30 MB/s), which is beyond any election timeout: what waits longer is answered by
/// another leader.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How much one read takes from the disk, for the neighbours that are usually wanted next.
const READ_BYTES: usize = 256 * 1024;

/// How many slots' places one read looks up under the lock; a longer run takes several reads.
const READ_SLOTS_MAX: usize = 16 * 1024;

const LOCK_NAME: &str = "LOCK";

/// Nobody but the node's user has business here.
const DIRECTORY_MODE: u32 = 0o700;

/// Group and others may not write.
const EXPOSED_MODE: u32 = 0o022;

/// What may be chosen about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// The length of new segments, in bytes: a multiple of 32, from 8 KiB to 1 GiB. It bounds the
    /// size of a record; what the store allows needs 4 MiB.
    pub segment_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { segment_bytes: SEGMENT_BYTES }
    }
}

/// Where a value is, in eight bytes: the position of its record while that waits to be written,
/// then the segment and the offset of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    const WAITING: u64 = 1 << 63;

    pub(super) fn waiting(position: LogPosition) -> Place {
        assert!(position.0 < Place::WAITING, "2⁶³ records are never written");
        Place(position.0 | Place::WAITING)
    }

    pub(super) fn on_disk(segment: u64, offset: u64) -> Place {
        assert!(segment < 1 << 31 && offset < 1 << 32, "a log has under 2³¹ segments of 1 GiB");
        Place(segment << 32 | offset)
    }

    fn position(self) -> Option<LogPosition> {
        (self.0 & Place::WAITING != 0).then_some(LogPosition(self.0 & !Place::WAITING))
    }
}

/// The log of one node. Dropping it writes what waits, then ends.
pub struct DiskLog {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    /// The position of the next record.
    end: LogPosition,
    /// The segment that was read last.
    reading: Option<(u64, Box<dyn Handle>)>,
    /// That something cannot be read back was said once; the metric counts the rest.
    has_complained: bool,
    /// None if the caller has the writer.
    writer: Option<JoinHandle<()>>,
    /// Held, never read: the kernel lets go of it with the file.
    _lock: Option<File>,
}

/// Opens the log in `directory`, which is made if it is not there, and reads it back. What is
/// written is counted in `metrics`; `beat` is the writer's (see [`super::watched`]); `on_event` is
/// called from the log's thread and must not wait.
///
/// # Errors
/// When the directory is in use, somebody else's, open to others, damaged, or cannot be read or
/// written.
pub fn open(
    directory: &Path,
    owner: LogOwner,
    metrics: LogMetrics,
    beat: Beat,
    on_event: impl Fn(LogEvent) + Send + 'static,
) -> Result<(DiskLog, Recovered<Bytes>), LogError> {
    open_with(directory, owner, LogSettings::default(), Arc::new(Kernel), metrics, beat, on_event)
}

/// As [`open`], with settings and system calls of the caller's.
///
/// # Errors
/// As [`open`].
///
/// # Panics
/// When the settings are out of range.
pub fn open_with(
    directory: &Path,
    owner: LogOwner,
    settings: LogSettings,
    storage: Arc<dyn Storage>,
    metrics: LogMetrics,
    beat: Beat,
    on_event: impl Fn(LogEvent) + Send + 'static,
) -> Result<(DiskLog, Recovered<Bytes>), LogError> {
    check_name(&owner)?;
    prepare_directory(directory)?;
    let lock = lock(directory)?;
    let (mut log, writer, recovered) =
        open_stepped(directory, owner, settings, storage, metrics, beat)?;
    let shared = Arc::clone(&log.shared);
    let thread = std::thread::Builder::new().name("log-writer".into());
    let thread = thread.spawn(move || thread::run(&shared, writer, on_event));
    log.writer = Some(thread.map_err(|source| LogError::Io {
        action: "start a thread for",
        path: directory.to_owned(),
        source,
    })?);
    log._lock = Some(lock);
    Ok((log, recovered))
}

/// As [`open_with`], but nothing is written unless the caller lets the writer take its steps. The
/// directory must be there, and nobody else may use it: it is neither made nor locked.
///
/// # Errors
/// When the directory is somebody else's, damaged, or cannot be read or written.
///
/// # Panics
/// When the settings are out of range.
pub fn open_stepped(
    directory: &Path,
    owner: LogOwner,
    settings: LogSettings,
    storage: Arc<dyn Storage>,
    metrics: LogMetrics,
    beat: Beat,
) -> Result<(DiskLog, Writer, Recovered<Bytes>), LogError> {
    let bytes = settings.segment_bytes;
    assert!(bytes.is_multiple_of(BLOCK_ALIGNMENT as u64) && bytes <= SEGMENT_BYTES_MAX);
    assert!(bytes >= 2 * HEADER_BYTES as u64, "a segment must hold more than its header");
    check_name(&owner)?;
    let Replayed { recovered, index, last } = replay(directory, &owner, &*storage)?;
    let segment = match last {
        Some(segment) => segment,
        None => first_segment(directory, &owner, settings, &*storage)?,
    };
    let end = recovered.end;
    let shared = Arc::new(Shared::new(index, metrics, beat));
    let writer =
        Writer::new(shared.clone(), directory, segment, end, settings, Arc::clone(&storage));
    let directory = directory.to_owned();
    let log = DiskLog {
        shared,
        storage,
        directory,
        end,
        reading: None,
        has_complained: false,
        writer: None,
        _lock: None,
    };
    Ok((log, writer, recovered))
}

fn check_name(owner: &LogOwner) -> Result<(), LogError> {
    let (bytes, bytes_max) = (owner.cluster_name.len(), NAME_BYTES_MAX);
    if bytes > bytes_max {
        return Err(LogError::NameTooLong { bytes, bytes_max });
    }
    Ok(())
}

fn prepare_directory(directory: &Path) -> Result<(), LogError> {
    let failed = |action| move |source| LogError::Io { action, path: directory.to_owned(), source };
    if !directory.exists() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed("create"))?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(failed("make durable"))?;
        }
    }
    let permissions = std::fs::metadata(directory).map_err(failed("inspect"))?.permissions();
    let mode = permissions.mode() & 0o777;
    if mode & EXPOSED_MODE != 0 {
        return Err(LogError::Exposed { path: directory.to_owned(), mode });
    }
    Ok(())
}

/// What a log holds that nobody uses now. Nothing is changed, not even a tail that a crash tore.
///
/// # Errors
/// When somebody uses it, and as [`open`].
pub fn survey(directory: &Path, owner: &LogOwner) -> Result<Recovered<Bytes>, LogError> {
    if is_in_use(directory) {
        return Err(LogError::InUse { path: directory.to_owned(), holder: None });
    }
    let (replayed, _last) = read(directory, owner, &Kernel)?;
    Ok(replayed.recovered)
}

/// Whether a process has the log in this directory open now. One that was killed may have it for a
/// moment longer than it has a name, until the kernel is done with its last write.
pub fn is_in_use(directory: &Path) -> bool {
    let held = |file: File| {
        let tried = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        tried == Err(rustix::io::Errno::WOULDBLOCK)
    };
    File::open(directory.join(LOCK_NAME)).is_ok_and(held)
}

fn lock(directory: &Path) -> Result<File, LogError> {
    let path = directory.join(LOCK_NAME);
    let failed = |action| {
        let path = path.clone();
        move |source| LogError::Io { action, path, source }
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed("open"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only for the message: without the number it is still true.
            let _ = file.read_to_string(&mut holder);
            let holder = Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty());
            return Err(LogError::InUse { path: directory.to_owned(), holder });
        }
        Err(error) => return Err(failed("lock")(error.into())),
    }
    file.set_len(0).map_err(failed("write"))?;
    file.write_all(format!("process {}\n", std::process::id()).as_bytes())
        .map_err(failed("write"))?;
    Ok(file)
}

impl Log for DiskLog {
    fn append(&mut self, records: Vec<Record<Bytes>>) {
        if !records.is_empty() {
            self.end = self.shared.append(self.end, records);
        }
    }

    fn sync(&mut self) {
        self.shared.sync();
    }

    fn is_full(&self) -> bool {
        self.shared.waiting_bytes() > QUEUE_BYTES_MAX
    }

    fn read(
        &mut self,
        first: Slot,
        last: Slot,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Entry<Bytes>>>, LogError> {
        let found = self.shared.look_up(first, last, READ_SLOTS_MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut chunk = Chunk::default();
        let mut slot = first;
        for item in found {
            let entry = match item {
                Found::Waiting(entry) => entry,
                Found::OnDisk(place) => {
                    match self.read_entry(slot, place, &mut chunk) {
                        Ok(entry) => entry,
                        Err(error) => {
                            self.complain(&error);
                            // What comes before it is good.
                            if entries.is_empty() {
                                return Err(error);
                            }
                            break;
                        }
                    }
                }
            };
            bytes += command_bytes(&entry);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
            slot = slot.next();
        }
        if entries.is_empty() {
            return Err(LogError::Missing { slot: first });
        }
        Ok(entries)
    }
}

/// Where a slot's value was found.
pub(super) enum Found {
    /// It waits to be written.
    Waiting(Arc<Entry<Bytes>>),
    /// It is in a file.
    OnDisk(Place),
}

/// Bytes of a segment, read in one go.
#[derive(Default)]
struct Chunk {
    segment: u64,
    offset: u64,
    bytes: Bytes,
}

impl Chunk {
    /// Where in the chunk the frame at `offset` of `segment` begins, if all of it is here.
    fn find(&self, segment: u64, offset: u64) -> Option<usize> {
        if segment != self.segment {
            return None;
        }
        let at = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let end = at.checked_add(claimed_frame_bytes(&self.bytes, at)?)?;
        (end <= self.bytes.len()).then_some(at)
    }
}

impl DiskLog {
    /// How many records were ever appended.
    pub fn end(&self) -> LogPosition {
        self.end
    }

    /// What was durable cannot be read back any more.
    fn complain(&mut self, error: &LogError) {
        self.shared.metrics.unreadable.inc();
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::error!(
                %error,
                "an entry of the log cannot be read back; peers that miss it have to ask others. \
                 Have this node's disk checked: a start over a damaged log is refused"
            );
        }
    }

    fn read_entry(
        &mut self,
        slot: Slot,
        place: Place,
        chunk: &mut Chunk,
    ) -> Result<Arc<Entry<Bytes>>, LogError> {
        let (segment, offset) = (place.0 >> 32, place.0 & u64::from(u32::MAX));
        if chunk.find(segment, offset).is_none() {
            *chunk = self.read_chunk(segment, offset, READ_BYTES)?;
            let claimed = claimed_frame_bytes(&chunk.bytes, 0).unwrap_or(FRAME_HEADER_BYTES);
            if claimed > READ_BYTES {
                *chunk = self.read_chunk(segment, offset, claimed)?;
            }
        }
        let path = segment_path(&self.directory, segment);
        let damaged =
            |why: &str| LogError::Corrupt { path: path.clone(), offset, why: why.to_owned() };
        let at = chunk.find(segment, offset).ok_or_else(|| damaged("the record is cut short"))?;
        let bytes = read_frame(&chunk.bytes, at).map_err(damaged)?;
        let record = decode_record(&bytes).map_err(|error| LogError::Record {
            path: path.clone(),
            offset,
            error,
        })?;
        match record {
            Record::Accepted(vote) if vote.slot == slot => Ok(vote.entry),
            Record::Learned { slot: found, entry } if found == slot => Ok(entry),
            _ => Err(damaged("another record is where this slot's was")),
        }
    }

    /// Up to `bytes_max` bytes of a segment from `offset` on, less at the segment's end.
    fn read_chunk(
        &mut self,
        segment: u64,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Chunk, LogError> {
        let path = segment_path(&self.directory, segment);
        let failed = |source| LogError::Io { action: "read", path: path.clone(), source };
        let file = match self.reading.take() {
            Some((open, file)) if open == segment => file,
            _ => self.storage.open(&path).map_err(failed)?,
        };
        let left = file.length().map_err(failed)?.saturating_sub(offset);
        let mut bytes =
            vec![0; usize::try_from(left).map_or(bytes_max, |left| left.min(bytes_max))];
        file.read(&mut bytes, offset).map_err(failed)?;
        self.reading = Some((segment, file));
        Ok(Chunk { segment, offset, bytes: Bytes::from(bytes) })
    }
}

impl Drop for DiskLog {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has ended the process already.
            let _ = writer.join();
        }
    }
}

/// The state that both ends share.
pub(super) struct Books {
    pub index: SlotIndex<Place>,
    /// Values of records that wait to be written, by position.
    pub waiting: std::collections::BTreeMap<LogPosition, Arc<Entry<Bytes>>>,
}

impl Books {
    /// Notes a record that was handed over.
    pub(super) fn hand_over(&mut self, position: LogPosition, record: &Record<Bytes>) {
        let Books { index, waiting } = self;
        index.note(record, |entry| {
            waiting.insert(position, entry.clone());
            Place::waiting(position)
        });
    }

    /// Notes that the record of `slot` at `position` is in a file now.
    pub(super) fn settle(&mut self, slot: Slot, position: LogPosition, place: Place) {
        if self.waiting.remove(&position).is_none() {
            return;
        }
        // A later record of the slot may have taken its place meanwhile.
        if let Some(current) = self.index.get_mut(slot)
            && *current == Place::waiting(position)
        {
            *current = place;
        }
    }

    /// Where the chosen values of `first..=last` are, up to `count_max` of them, without gaps.
    pub(super) fn look_up(&self, first: Slot, last: Slot, count_max: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let mut slot = first;
        while slot <= last && found.len() < count_max {
            let Some(place) = self.index.get_chosen(slot) else { break };
            found.push(match place.position() {
                Some(position) => {
                    let entry = self.waiting.get(&position);
                    Found::Waiting(entry.expect("what is not in a file waits in memory").clone())
                }
                None => Found::OnDisk(*place),
            });
            slot = slot.next();
        }
        found
    }
}
