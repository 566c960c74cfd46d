//! Segments of the log, written by hand: the layout of `src/disk/segment.rs` a second time.
//!
//! Checksums hide the reader's later steps from a fuzzer. Here they are computed for whatever the
//! input says, so records that no node would write, and lengths that do not agree, arrive where
//! they are judged. It also means that the layout cannot change unnoticed.

use bytes::Bytes;
use paxos_ssh::disk::LogOwner;
use paxos_ssh::disk::log::LogSettings;

/// The first page.
pub const HEADER_BYTES: usize = 4096;
/// What a block begins with.
pub const BLOCK_HEADER_BYTES: usize = 32;
const ALIGNMENT: usize = 32;
const TRAILER_BYTES: usize = 8;

/// The smallest segments there are, so that stories cross them.
pub const SETTINGS: LogSettings = LogSettings { segment_bytes: 8 * 1024 };

/// A segment that is being written.
pub struct RawSegment {
    bytes: Vec<u8>,
    seed: u64,
    at: usize,
}

/// What a block's header says instead of the truth.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lies {
    /// The block's length.
    pub block_bytes: Option<u32>,
    /// The frames' length.
    pub frames_bytes: Option<u32>,
    /// The number of records.
    pub records: Option<u32>,
    /// The position of the first.
    pub first: Option<u64>,
}

impl Lies {
    /// Whether there is none.
    pub fn is_honest(&self) -> bool {
        let Lies { block_bytes, frames_bytes, records, first } = self;
        block_bytes.is_none() && frames_bytes.is_none() && records.is_none() && first.is_none()
    }
}

impl RawSegment {
    /// One with its header and nothing else.
    pub fn new(owner: &LogOwner, number: u64, first: u64, seed: u64, length: usize) -> RawSegment {
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(b"PAXOSLOG");
        bytes.extend(1u32.to_le_bytes());
        for field in [number, first, seed, length as u64, owner.node.0] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend((owner.cluster_name.len() as u16).to_le_bytes());
        bytes.extend(owner.cluster_name.as_bytes());
        bytes.resize(HEADER_BYTES - 4, 0);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        while bytes.len() < length {
            let word = pattern(seed, bytes.len());
            let left = length - bytes.len();
            bytes.extend(&word[..left.min(word.len())]);
        }
        RawSegment { bytes, seed, at: HEADER_BYTES }
    }

    /// Writes a block of these records, if there is room for it; says whether there was.
    pub fn block(&mut self, records: &[Bytes], first: u64, lies: Lies) -> bool {
        let mut frames = Vec::new();
        for record in records {
            frames.extend((record.len() as u32).to_le_bytes());
            frames.extend(crc32c::crc32c(record).to_le_bytes());
            frames.extend(&record[..]);
        }
        let length = BLOCK_HEADER_BYTES + frames.len() + TRAILER_BYTES;
        let length = length.next_multiple_of(ALIGNMENT);
        if self.at + length > self.bytes.len() {
            return false;
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        let block_bytes = lies.block_bytes.unwrap_or(length as u32);
        header[0..4].copy_from_slice(&block_bytes.to_le_bytes());
        let frames_bytes = lies.frames_bytes.unwrap_or(frames.len() as u32);
        header[4..8].copy_from_slice(&frames_bytes.to_le_bytes());
        let count = lies.records.unwrap_or(records.len() as u32);
        header[8..12].copy_from_slice(&count.to_le_bytes());
        header[16..24].copy_from_slice(&lies.first.unwrap_or(first).to_le_bytes());
        let sum = crc32c::crc32c(&header[..28]);
        let sum = crc32c::crc32c_append(sum, &self.seed.to_le_bytes());
        let sum = crc32c::crc32c_append(sum, &(self.at as u64).to_le_bytes());
        header[28..].copy_from_slice(&sum.to_le_bytes());
        let block = &mut self.bytes[self.at..self.at + length];
        block.fill(0);
        block[..BLOCK_HEADER_BYTES].copy_from_slice(&header);
        block[BLOCK_HEADER_BYTES..][..frames.len()].copy_from_slice(&frames);
        let trailer = pattern(self.seed, self.at + length - TRAILER_BYTES).map(|byte| !byte);
        block[length - TRAILER_BYTES..].copy_from_slice(&trailer);
        self.at += length;
        true
    }

    /// Where the next block would begin.
    pub fn end(&self) -> usize {
        self.at
    }

    /// The file.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// What stands at an aligned offset where nothing was written.
fn pattern(seed: u64, offset: usize) -> [u8; 8] {
    let mut word = seed.wrapping_add((offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)).to_le_bytes()
}
