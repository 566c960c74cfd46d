//! Reading the log back after a start.
//!
//! One pass from the first record to the last: each is checked, decoded and replayed, and memory
//! holds one block at a time. Only the last block of the last segment may be torn; it is dropped,
//! and its place is made pattern again before anything is written there. Anything else that is not
//! as it was written is an error, and nothing is changed then.

use super::files::{Handle, Storage};
use super::index::SlotIndex;
use super::log::Place;
use super::segment::{
    BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES, HeaderError, SegmentHeader, Tail,
    fill_with_pattern, frames, is_pattern, judge,
};
use super::{LogError, LogOwner};
use crate::paxos::message::{Entry, Payload};
use crate::paxos::record::{LogPosition, Recovered};
use crate::wire::record::decode_record;
use bytes::Bytes;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read ahead: enough for a disk's full speed, little beside the store.
const READ_AHEAD_BYTES: usize = 1024 * 1024;

/// File names of segments end so; before it stands the number, so that names sort as numbers do.
const SEGMENT_SUFFIX: &str = ".log";

/// What the directory says.
pub(super) struct Replayed {
    pub recovered: Recovered<Bytes>,
    pub index: SlotIndex<Place>,
    /// The last segment, to be continued; none in a fresh directory.
    pub last: Option<Segment>,
}

/// A segment that is open for writing.
pub(super) struct Segment {
    pub file: Box<dyn Handle>,
    pub path: PathBuf,
    pub header: SegmentHeader,
    /// Where the next block goes.
    pub offset: u64,
}

pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}{SEGMENT_SUFFIX}"))
}

/// Reads all segments of the directory.
///
/// # Errors
/// See [`LogError`]; nothing was changed.
pub(super) fn replay(
    directory: &Path,
    owner: &LogOwner,
    storage: &dyn Storage,
) -> Result<Replayed, LogError> {
    let (mut replayed, last) = read(directory, owner, storage)?;
    if let Some(last) = last {
        replayed.last = Some(last.finish()?);
        storage.sync_directory(directory).map_err(|source| LogError::Io {
            action: "make durable the names in",
            path: directory.to_owned(),
            source,
        })?;
    }
    Ok(replayed)
}

/// Reads all segments, and changes nothing in any case; the last one, if there is any, is handed
/// over to be finished.
///
/// # Errors
/// See [`LogError`].
pub(super) fn read(
    directory: &Path,
    owner: &LogOwner,
    storage: &dyn Storage,
) -> Result<(Replayed, Option<SegmentReader>), LogError> {
    let numbers = segment_numbers(directory, storage)?;
    let mut replayed =
        Replayed { recovered: Recovered::default(), index: SlotIndex::new(), last: None };
    let mut last = None;
    for (index, &number) in numbers.iter().enumerate() {
        let is_last = index + 1 == numbers.len();
        if number != index as u64 + 1 {
            return Err(LogError::Corrupt {
                path: segment_path(directory, index as u64 + 1),
                offset: 0,
                why: "the file is missing, but later ones are there".into(),
            });
        }
        let position = replayed.recovered.end;
        let mut reader = SegmentReader::open(directory, number, owner, position, storage)?;
        while let Some(block) = reader.next_block(is_last)? {
            replayed.take_in(directory, &reader, &block)?;
        }
        last = Some(reader);
    }
    replayed.recovered.votes.values_mut().for_each(|vote| detach(&mut vote.entry));
    replayed.recovered.learned.values_mut().for_each(detach);
    Ok((replayed, last))
}

impl Replayed {
    fn take_in(
        &mut self,
        directory: &Path,
        reader: &SegmentReader,
        block: &Block,
    ) -> Result<(), LogError> {
        for frame in &block.frames {
            let offset = block.offset + frame.at as u64;
            let record = decode_record(&frame.record).map_err(|error| LogError::Record {
                path: reader.path.clone(),
                offset,
                error,
            })?;
            self.recovered
                .replay(record.clone())
                .map_err(|error| LogError::Contradiction { path: directory.to_owned(), error })?;
            self.index.note(&record, |_| Place::on_disk(reader.header.number, offset));
        }
        Ok(())
    }
}

/// Copies a command out of the block that it was read from, so that it does not keep all of it in
/// memory.
fn detach(entry: &mut Arc<Entry<Bytes>>) {
    if let Payload::Command(command) = &entry.payload {
        let payload = Payload::Command(Bytes::copy_from_slice(command));
        *entry = Arc::new(Entry { stamp: entry.stamp, payload });
    }
}

/// The segments' numbers in order. Other files are none of the log's business.
fn segment_numbers(directory: &Path, storage: &dyn Storage) -> Result<Vec<u64>, LogError> {
    let failed = |source| LogError::Io { action: "list", path: directory.to_owned(), source };
    let mut numbers = Vec::new();
    for name in storage.list(directory).map_err(failed)? {
        let number = name.to_str().and_then(|name| name.strip_suffix(SEGMENT_SUFFIX));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A good block.
struct Block {
    offset: u64,
    frames: Vec<super::segment::Frame>,
}

/// A file that is read from its beginning to its end.
struct Sequential {
    file: Box<dyn Handle>,
    bytes: u64,
    at: u64,
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        self.file.read(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

pub(super) struct SegmentReader {
    path: PathBuf,
    input: BufReader<Sequential>,
    header: SegmentHeader,
    /// Where the next block begins.
    offset: u64,
    /// The position of the next record.
    position: LogPosition,
    /// How many bytes at `offset` must become pattern again.
    torn_bytes: usize,
    /// The last good block, and where it is.
    last_block: Option<(u64, Bytes)>,
}

impl SegmentReader {
    fn open(
        directory: &Path,
        number: u64,
        owner: &LogOwner,
        position: LogPosition,
        storage: &dyn Storage,
    ) -> Result<SegmentReader, LogError> {
        let path = segment_path(directory, number);
        let failed = |action, source| LogError::Io { action, path: path.clone(), source };
        let file = storage.open(&path).map_err(|error| failed("open", error))?;
        let bytes = file.length().map_err(|error| failed("inspect", error))?;
        let mut page = [0; HEADER_BYTES];
        let damaged =
            |why: &str| LogError::Corrupt { path: path.clone(), offset: 0, why: why.to_owned() };
        if bytes < HEADER_BYTES as u64 {
            return Err(damaged("the file is shorter than its header"));
        }
        let ahead = usize::try_from(bytes).map_or(READ_AHEAD_BYTES, |b| b.min(READ_AHEAD_BYTES));
        let mut input = BufReader::with_capacity(ahead, Sequential { file, bytes, at: 0 });
        input.read_exact(&mut page).map_err(|error| failed("read", error))?;
        let header = SegmentHeader::decode(&page).map_err(|error| match error {
            HeaderError::NotASegment => damaged("it does not begin as a log segment does"),
            HeaderError::Version(found) => LogError::Version {
                path: path.clone(),
                found,
                known: super::segment::FORMAT_VERSION,
            },
            HeaderError::Checksum => damaged("the header does not match its checksum"),
            HeaderError::Name => damaged("the header's cluster name is not readable"),
        })?;
        if header.owner != *owner && !planted!(OwnerIgnored) {
            let (found, wanted) = (header.owner, owner.clone());
            return Err(LogError::Foreign { path, found, wanted });
        }
        if header.number != number {
            return Err(damaged("the file has another segment's name"));
        }
        if header.bytes != bytes {
            return Err(damaged("the file's length is not the one in its header"));
        }
        if header.first != position {
            return Err(damaged("records are missing before this segment"));
        }
        let offset = HEADER_BYTES as u64;
        Ok(SegmentReader { path, input, header, offset, position, torn_bytes: 0, last_block: None })
    }

    /// The next good block, or none at the end.
    fn next_block(&mut self, is_last_segment: bool) -> Result<Option<Block>, LogError> {
        let room = self.header.bytes - self.offset;
        if room < BLOCK_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let (seed, offset) = (self.header.seed, self.offset);
        let mut start = [0; BLOCK_HEADER_BYTES];
        self.fill(&mut start)?;
        let Some(header) = BlockHeader::decode(&start, seed, offset) else {
            if !is_last_segment && is_pattern(seed, offset, &start) {
                return Ok(None);
            }
            return self.end(is_last_segment, "the block's header does not match its checksum");
        };
        if u64::from(header.block_bytes) > room || header.first != self.position {
            return self.end(is_last_segment, "the block does not follow the one before it");
        }
        let mut block = vec![0; header.block_bytes as usize];
        let Some((block_start, rest)) = block.split_first_chunk_mut::<BLOCK_HEADER_BYTES>() else {
            return self.end(is_last_segment, "the block is shorter than its header");
        };
        *block_start = start;
        self.fill(rest)?;
        let block = Bytes::from(block);
        match frames(&block, header, seed, offset) {
            Ok(frames) => {
                self.last_block = Some((offset, block));
                self.offset += u64::from(header.block_bytes);
                self.position = LogPosition(self.position.0 + frames.len() as u64);
                Ok(Some(Block { offset, frames }))
            }
            Err((_, why)) => self.end(is_last_segment, why),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), LogError> {
        let path = &self.path;
        let failed = |source| LogError::Io { action: "read", path: path.clone(), source };
        self.input.read_exact(buffer).map_err(failed)
    }

    /// No good block begins here. That is the end of the log, or it is damaged.
    fn end(&mut self, is_last_segment: bool, why: &str) -> Result<Option<Block>, LogError> {
        let damaged = |why: &str| LogError::Corrupt {
            path: self.path.clone(),
            offset: self.offset,
            why: why.to_owned(),
        };
        if !is_last_segment {
            return Err(damaged(why));
        }
        let room = usize::try_from(self.header.bytes - self.offset)
            .map_err(|_| damaged("the segment is larger than memory"))?;
        let mut tail = vec![0; room];
        self.input.get_ref().file.read(&mut tail, self.offset).map_err(|source| LogError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        match judge(self.header.seed, self.offset, &tail) {
            Tail::Clean => Ok(None),
            Tail::Torn(bytes) => {
                self.torn_bytes = bytes;
                Ok(None)
            }
            Tail::Damaged(_) if planted!(DamageIsTorn) => {
                self.torn_bytes = room;
                Ok(None)
            }
            Tail::Damaged(reason) => Err(damaged(reason)),
        }
    }

    /// Hands the segment over to be continued: what was read is durable, and the tail is as if
    /// nothing had ever been written there.
    fn finish(self) -> Result<Segment, LogError> {
        let file = self.input.into_inner().file;
        let path = self.path;
        let failed = |action| {
            let path = path.clone();
            move |source| LogError::Io { action, path, source }
        };
        if self.torn_bytes > 0 && !planted!(TornTailLeft) {
            tracing::warn!(
                path = %path.display(), offset = self.offset, bytes = self.torn_bytes,
                "dropping a write that a crash interrupted; it was never acknowledged"
            );
            let mut blank = vec![0; self.torn_bytes.next_multiple_of(BLOCK_HEADER_BYTES)];
            fill_with_pattern(self.header.seed, self.offset, &mut blank);
            // The block's header last: until it is gone, or as long as it is, a power cut in the
            // middle of this leaves what is still seen to be torn, wherever it cuts.
            let (start, rest) = blank.split_at(BLOCK_HEADER_BYTES);
            let rest_at = self.offset + BLOCK_HEADER_BYTES as u64;
            file.write(rest, rest_at).map_err(failed("repair"))?;
            file.sync().map_err(failed("repair"))?;
            file.write(start, self.offset).map_err(failed("repair"))?;
        }
        if planted!(NotSyncedAtStart) {
            return Ok(Segment { file, path, header: self.header, offset: self.offset });
        }
        if let Some((offset, block)) = self.last_block {
            file.write(&block, offset).map_err(failed("write again the last records of"))?;
        }
        file.sync().map_err(failed("sync"))?;
        Ok(Segment { file, path, header: self.header, offset: self.offset })
    }
}
