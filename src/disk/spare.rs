//! New segments: made under another name, full of pattern, and given their name when they are
//! needed.

use super::files::{Handle, Storage};
use super::log::LogSettings;
use super::recovery::{Segment, segment_path};
use super::segment::{HEADER_BYTES, SegmentHeader, fill_with_pattern};
use super::{LogError, LogOwner};
use crate::paxos::record::LogPosition;
use std::io;
use std::path::{Path, PathBuf};

/// A segment that is being prepared; a leftover is worth nothing.
const SPARE_NAME: &str = "spare";

/// A new segment is filled in pieces of this size, each synced, so that the log's own sync never
/// waits behind 64 MiB of it.
const FILL_BYTES: usize = 1024 * 1024;

/// The first segment of a fresh directory.
pub(super) fn first_segment(
    directory: &Path,
    owner: &LogOwner,
    settings: LogSettings,
    storage: &dyn Storage,
) -> Result<Segment, LogError> {
    Spare::make(directory, settings.segment_bytes, storage)
        .and_then(|spare| spare.take_into_use(directory, 1, LogPosition(0), owner, storage))
        .map_err(|source| LogError::Io {
            action: "create the first segment in",
            path: directory.to_owned(),
            source,
        })
}

/// A segment full of pattern, without a header and a name yet.
pub struct Spare {
    file: Box<dyn Handle>,
    path: PathBuf,
    seed: u64,
    bytes: u64,
}

impl Spare {
    pub(super) fn make(directory: &Path, bytes: u64, storage: &dyn Storage) -> io::Result<Spare> {
        let path = directory.join(SPARE_NAME);
        let file = storage.create(&path)?;
        file.allocate(bytes)?;
        let seed = storage.seed();
        let mut piece = vec![0; FILL_BYTES.min(usize::try_from(bytes).unwrap_or(FILL_BYTES))];
        let mut offset = 0;
        while offset < bytes {
            let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
            piece.truncate(left);
            fill_with_pattern(seed, offset, &mut piece);
            file.write(&piece, offset)?;
            file.sync()?;
            offset += piece.len() as u64;
        }
        Ok(Spare { file, path, seed, bytes })
    }

    /// Gives it its header, then its name: a file with a segment's name always has a whole header.
    pub(super) fn take_into_use(
        self,
        directory: &Path,
        number: u64,
        first: LogPosition,
        owner: &LogOwner,
        storage: &dyn Storage,
    ) -> io::Result<Segment> {
        let Spare { file, path: spare_path, seed, bytes } = self;
        let header = SegmentHeader { number, first, seed, bytes, owner: owner.clone() };
        file.write(&header.encode(), 0)?;
        if !planted!(SegmentHeaderNotSynced) {
            file.sync()?;
        }
        let path = segment_path(directory, number);
        storage.rename(&spare_path, &path)?;
        if !planted!(NameNotSynced) {
            storage.sync_directory(directory)?;
        }
        Ok(Segment { file, path, header, offset: HEADER_BYTES as u64 })
    }
}
