//! The system calls that make a log durable, as a trait, so that tests can let them fail.
//!
//! Only what must be seen to fail is here: room, writing and syncing. Opening and reading go
//! straight to std.

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Writing to files. The defaults are the real thing; a test overrides what it wants to break.
pub trait Files: Send + Sync + 'static {
    /// Reserves room for the first `bytes` of the file, and makes it that long.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] when there is none.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let reserve = || rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes);
        match rustix::io::retry_on_intr(reserve) {
            // Some file systems cannot; the log writes every byte of a new segment anyway, and then
            // learns whether there was room.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The kernel's; how much was written is then unknown.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Returns once all that was written to the file would survive a power cut.
    ///
    /// # Errors
    /// The kernel's; the data may be lost even if a later call succeeds.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The real thing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl Files for Kernel {}

/// Whether an error means that there is no room, which passes, unlike other failures.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
