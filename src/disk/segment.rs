//! Layout of the log's files.
//!
//! ```text
//! segment   header (4 KiB) | block | block | … | pattern to the end
//! block     header (32 B) | frame | frame | … | zeros | trailer (8 B)     a multiple of 32 bytes
//! frame     length u32 | crc32c u32 | record, beginning with its version
//! ```
//! All integers are little-endian. A block is what one write and one sync made durable, and the
//! next block is written only afterwards, so a crash can tear the last block only.
//!
//! **Torn or damaged?** A torn block was never reported as durable and is dropped; a damaged one
//! was, and dropping it would break a promise. To tell them apart, a new segment is filled with a
//! *pattern*: each aligned word is a function of its offset and of the segment's random seed. A
//! block that was torn still shows the pattern where the write did not arrive; a bit that flipped
//! does not restore it. The trailer is the complement of the pattern, so that even a tear within
//! the last bytes shows. A record's value could imitate the pattern only by knowing the seed.
//!
//! The cost: a new segment is written twice, once with the pattern. That also keeps its size and
//! extents stable, which spares every sync a journal commit of the file system.
//!
//! No input makes this module panic; lengths are believed only after their checksum held.

use super::LogOwner;
use crate::paxos::ballot::NodeId;
use crate::paxos::record::{LogPosition, Record};
use crate::wire::record::encode_record;
use bytes::Bytes;

/// Room for a segment's header: one page, never written again once blocks follow it.
pub(super) const HEADER_BYTES: usize = 4096;

/// The layout described above.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The longest cluster name that a header holds.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// The largest block, so that one sync stays within some ten milliseconds. It holds the largest
/// record (two values of 1 MiB) several times.
pub(super) const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Blocks begin at multiples of this and so have their header within one sector, whatever its size.
pub(super) const BLOCK_ALIGNMENT: usize = 32;

pub(super) const BLOCK_HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 8;
const TRAILER_BYTES: usize = WORD_BYTES;
const WORD_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"PAXOSLOG";
const NAME_AT: usize = 54;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;
const BLOCK_CHECKSUM_AT: usize = BLOCK_HEADER_BYTES - 4;

/// The first page of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Counts the segments of a log from 1.
    pub number: u64,
    /// The position of its first record.
    pub first: LogPosition,
    /// Makes its pattern.
    pub seed: u64,
    /// The file's length.
    pub bytes: u64,
    /// Whose it is.
    pub owner: LogOwner,
}

/// Why a page is no header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    NotASegment,
    Version(u32),
    Checksum,
    Name,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let name = self.owner.cluster_name.as_bytes();
        assert!(
            name.len() <= NAME_BYTES_MAX,
            "the name's length was checked when the log was opened"
        );
        let mut page = Vec::with_capacity(HEADER_BYTES);
        page.extend(MAGIC);
        page.extend(FORMAT_VERSION.to_le_bytes());
        for field in [self.number, self.first.0, self.seed, self.bytes, self.owner.node.0] {
            page.extend(field.to_le_bytes());
        }
        page.extend((name.len() as u16).to_le_bytes());
        assert_eq!(page.len(), NAME_AT);
        page.extend(name);
        page.resize(CHECKSUM_AT, 0);
        page.extend(crc32c::crc32c(&page).to_le_bytes());
        page
    }

    pub(super) fn decode(page: &[u8; HEADER_BYTES]) -> Result<SegmentHeader, HeaderError> {
        if page[..MAGIC.len()] != MAGIC {
            return Err(HeaderError::NotASegment);
        }
        let version = read_u32(page, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        if read_u32(page, CHECKSUM_AT) != crc32c::crc32c(&page[..CHECKSUM_AT]) {
            return Err(HeaderError::Checksum);
        }
        let name_bytes = usize::from(u16::from_le_bytes([page[NAME_AT - 2], page[NAME_AT - 1]]));
        let name = page.get(NAME_AT..NAME_AT + name_bytes).ok_or(HeaderError::Name)?;
        let cluster_name = String::from_utf8(name.to_vec()).map_err(|_| HeaderError::Name)?;
        Ok(SegmentHeader {
            number: read_u64(page, 12),
            first: LogPosition(read_u64(page, 20)),
            seed: read_u64(page, 28),
            bytes: read_u64(page, 36),
            owner: LogOwner { cluster_name, node: NodeId(read_u64(page, 44)) },
        })
    }
}

/// Writes `pattern` words over `buffer`, which lies at `offset` in the segment.
pub(super) fn fill_with_pattern(seed: u64, offset: u64, buffer: &mut [u8]) {
    assert!(offset.is_multiple_of(WORD_BYTES as u64) && buffer.len().is_multiple_of(WORD_BYTES));
    let mut at = offset;
    for word in buffer.chunks_exact_mut(WORD_BYTES) {
        word.copy_from_slice(&pattern(seed, at));
        at += WORD_BYTES as u64;
    }
}

/// The pattern's word at an aligned offset: one round of SplitMix64, so that no two look alike.
fn pattern(seed: u64, offset: u64) -> [u8; WORD_BYTES] {
    let mut word = seed.wrapping_add(offset.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)).to_le_bytes()
}

/// Whether an aligned range shows nothing but the pattern.
pub(super) fn is_pattern(seed: u64, offset: u64, range: &[u8]) -> bool {
    written_bytes(seed, offset, range) == 0
}

/// How long a prefix of `range` (which begins aligned, at `offset`) holds all that is not the
/// pattern.
fn written_bytes(seed: u64, offset: u64, range: &[u8]) -> usize {
    let words = range.chunks(WORD_BYTES).enumerate();
    for (index, word) in words.rev() {
        let at = index * WORD_BYTES;
        let expected = pattern(seed, offset + at as u64);
        // Nearly all words are as expected, and one comparison is cheaper than eight.
        if <[u8; WORD_BYTES]>::try_from(word).is_ok_and(|word| word == expected) {
            continue;
        }
        if let Some(last) = (0..word.len()).rev().find(|&byte| word[byte] != expected[byte]) {
            return at + last + 1;
        }
    }
    0
}

/// Encodes one block into a buffer that is used again and again.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    records: u32,
}

impl BlockBuilder {
    /// Forgets the previous block.
    pub(super) fn start(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BLOCK_HEADER_BYTES, 0);
        self.records = 0;
    }

    /// Adds a record, unless the finished block would then be longer than `bytes_max`. Says where
    /// in the block its frame begins.
    pub(super) fn push(&mut self, record: &Record<Bytes>, bytes_max: usize) -> Option<usize> {
        let frame_at = self.bytes.len();
        self.bytes.extend([0; FRAME_HEADER_BYTES]);
        encode_record(record, &mut self.bytes);
        if finished_bytes(self.bytes.len()) > bytes_max {
            self.bytes.truncate(frame_at);
            return None;
        }
        let payload = &self.bytes[frame_at + FRAME_HEADER_BYTES..];
        let length = u32::try_from(payload.len()).expect("a record fits in a block");
        let checksum = crc32c::crc32c(payload);
        self.bytes[frame_at..frame_at + 4].copy_from_slice(&length.to_le_bytes());
        self.bytes[frame_at + 4..frame_at + 8].copy_from_slice(&checksum.to_le_bytes());
        self.records += 1;
        Some(frame_at)
    }

    /// How long the finished block will be.
    pub(super) fn finished_bytes(&self) -> usize {
        finished_bytes(self.bytes.len())
    }

    /// The block so far; all of it once it is finished.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Completes the block for its place in a segment.
    pub(super) fn finish(&mut self, seed: u64, offset: u64, first: LogPosition) -> &[u8] {
        let frames_bytes = self.bytes.len() - BLOCK_HEADER_BYTES;
        let block_bytes = self.finished_bytes();
        self.bytes.resize(block_bytes - TRAILER_BYTES, 0);
        self.bytes.extend(trailer(seed, offset, block_bytes));
        let header = BlockHeader {
            block_bytes: block_bytes as u32,
            frames_bytes: frames_bytes as u32,
            records: self.records,
            first,
        };
        self.bytes[..BLOCK_HEADER_BYTES].copy_from_slice(&header.encode(seed, offset));
        &self.bytes
    }
}

fn finished_bytes(content_bytes: usize) -> usize {
    (content_bytes + TRAILER_BYTES).next_multiple_of(BLOCK_ALIGNMENT)
}

fn trailer(seed: u64, offset: u64, block_bytes: usize) -> [u8; TRAILER_BYTES] {
    pattern(seed, offset + (block_bytes - TRAILER_BYTES) as u64).map(|byte| !byte)
}

/// The first bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// From the header's first byte to the trailer's last.
    pub block_bytes: u32,
    /// How much of it is frames.
    pub frames_bytes: u32,
    /// How many frames.
    pub records: u32,
    /// The position of the first record.
    pub first: LogPosition,
}

impl BlockHeader {
    fn encode(&self, seed: u64, offset: u64) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.block_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.frames_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.records.to_le_bytes());
        // Bytes 12 to 16 and 24 to 28 are zero, for later.
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        let checksum = Self::checksum(&bytes, seed, offset);
        bytes[BLOCK_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at `offset`, if its checksum holds there. A block of another segment or from
    /// another place does not pass.
    pub(super) fn decode(
        bytes: &[u8; BLOCK_HEADER_BYTES],
        seed: u64,
        offset: u64,
    ) -> Option<BlockHeader> {
        if read_u32(bytes, BLOCK_CHECKSUM_AT) != Self::checksum(bytes, seed, offset) {
            return None;
        }
        Some(BlockHeader {
            block_bytes: read_u32(bytes, 0),
            frames_bytes: read_u32(bytes, 4),
            records: read_u32(bytes, 8),
            first: LogPosition(read_u64(bytes, 16)),
        })
    }

    fn checksum(bytes: &[u8; BLOCK_HEADER_BYTES], seed: u64, offset: u64) -> u32 {
        let sum = crc32c::crc32c(&bytes[..BLOCK_CHECKSUM_AT]);
        let sum = crc32c::crc32c_append(sum, &seed.to_le_bytes());
        crc32c::crc32c_append(sum, &offset.to_le_bytes())
    }
}

/// One record's bytes within a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where its frame begins, from the start of the block.
    pub at: usize,
    /// The encoded record.
    pub record: Bytes,
}

/// Splits a whole block into its records, checking every byte of it.
///
/// # Errors
/// Where in the block something is wrong, and what.
pub(super) fn frames(
    block: &Bytes,
    header: BlockHeader,
    seed: u64,
    offset: u64,
) -> Result<Vec<Frame>, (usize, &'static str)> {
    let frames_end = BLOCK_HEADER_BYTES + header.frames_bytes as usize;
    let padding_end = block.len().saturating_sub(TRAILER_BYTES);
    if block.len() != header.block_bytes as usize || frames_end > padding_end {
        return Err((0, "the block's lengths do not agree"));
    }
    // A frame has at least its header, so this is bounded by the block's length.
    let mut frames = Vec::with_capacity((header.records as usize).min(block.len()));
    let content = block.slice(..frames_end);
    let mut at = BLOCK_HEADER_BYTES;
    while at < frames_end {
        let record = read_frame(&content, at).map_err(|why| (at, why))?;
        let next = at + FRAME_HEADER_BYTES + record.len();
        frames.push(Frame { at, record });
        at = next;
    }
    if frames.len() != header.records as usize {
        return Err((at, "the block holds another number of records than it says"));
    }
    if block[frames_end..padding_end].iter().any(|&byte| byte != 0) {
        return Err((frames_end, "the padding is not zero"));
    }
    if block[padding_end..] != trailer(seed, offset, block.len()) {
        return Err((padding_end, "the block's end is not as it was written"));
    }
    Ok(frames)
}

/// The record whose frame begins at `at`.
///
/// # Errors
/// When it does not fit in `bytes` or its checksum does not hold.
pub(super) fn read_frame(bytes: &Bytes, at: usize) -> Result<Bytes, &'static str> {
    let start = at + FRAME_HEADER_BYTES;
    if start > bytes.len() {
        return Err("a record's length lies beyond the end");
    }
    let end = start.saturating_add(read_u32(bytes, at) as usize);
    if end > bytes.len() {
        return Err("a record is longer than what is left");
    }
    let record = bytes.slice(start..end);
    if crc32c::crc32c(&record) != read_u32(bytes, at + 4) && !planted!(ChecksumsIgnored) {
        return Err("a record's checksum does not match");
    }
    Ok(record)
}

/// How many bytes the frame at `at` takes, by its own word.
pub(super) fn claimed_frame_bytes(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at + 4)?;
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
    Some(FRAME_HEADER_BYTES + length as usize)
}

/// What the end of the last segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing was written here.
    Clean,
    /// A block was under way when the process or the power went; this many bytes must become
    /// pattern again.
    Torn(usize),
    /// What was durable is not as it was.
    Damaged(&'static str),
}

/// Judges what follows the last good block: `tail` begins at `offset` and goes on to the segment's
/// end, and no good block begins it.
pub(super) fn judge(seed: u64, offset: u64, tail: &[u8]) -> Tail {
    let written = written_bytes(seed, offset, tail);
    if written == 0 {
        return Tail::Clean;
    }
    let Some((header, _)) = tail.split_first_chunk::<BLOCK_HEADER_BYTES>() else {
        return Tail::Damaged("too little room is left for a block");
    };
    let Some(header_fields) = BlockHeader::decode(header, seed, offset) else {
        return match written {
            // The header itself is torn: nothing after it was written.
            1..=BLOCK_HEADER_BYTES => Tail::Torn(written),
            _ if has_block(seed, offset, &tail[..written]) => {
                Tail::Damaged("a block is missing before later ones")
            }
            // The sector with the header did not arrive, while others of the same block did.
            _ if is_pattern(seed, offset, header) && written <= BLOCK_BYTES_MAX => {
                Tail::Torn(written)
            }
            _ => Tail::Damaged("the block's header does not match its checksum"),
        };
    };
    let block_bytes = header_fields.block_bytes as usize;
    match tail.get(..block_bytes) {
        None => Tail::Damaged("the block is longer than the segment"),
        Some(_) if written > block_bytes => Tail::Damaged("a bad block is followed by others"),
        Some(block) if shows_pattern(seed, offset, block) => Tail::Torn(written),
        Some(_) => Tail::Damaged("the block's records do not match their checksums"),
    }
}

/// Whether some block begins in `range`. Its header was written for that very place, so no value
/// imitates it.
fn has_block(seed: u64, offset: u64, range: &[u8]) -> bool {
    let starts = range.chunks_exact(BLOCK_ALIGNMENT).enumerate();
    let mut headers = starts.filter_map(|(index, start)| {
        let header = start.first_chunk::<BLOCK_HEADER_BYTES>()?;
        BlockHeader::decode(header, seed, offset + (index * BLOCK_ALIGNMENT) as u64)
    });
    headers.next().is_some()
}

/// Whether part of a block never arrived: a whole word of pattern, or pattern after a part of the
/// trailer.
fn shows_pattern(seed: u64, offset: u64, block: &[u8]) -> bool {
    let mut words = block.chunks_exact(WORD_BYTES).enumerate();
    let whole_word =
        words.any(|(index, word)| word == pattern(seed, offset + (index * WORD_BYTES) as u64));
    let Some((_, found)) = block.split_last_chunk::<TRAILER_BYTES>() else {
        return whole_word;
    };
    let written = trailer(seed, offset, block.len());
    let arrived = (0..TRAILER_BYTES).take_while(|&byte| found[byte] == written[byte]).count();
    let rest_is_pattern = (arrived..TRAILER_BYTES).all(|byte| found[byte] == !written[byte]);
    whole_word || (arrived < TRAILER_BYTES && rest_is_pattern)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has four bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has eight bytes"))
}
