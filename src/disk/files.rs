//! What the log asks of a file system, as a trait, so that tests can let it fail and a simulator
//! can forget what was not synced.
//!
//! All that the log does with its files goes through here, and in order: the log never writes to
//! one file from two threads. Nothing here removes a file, for the log never does. Making the
//! directory and locking it are no part of this: they happen once, before there is a log.
//!
//! The cost is one indirect call beside each system call.

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Nobody but the node's user may read the log.
const FILE_MODE: u32 = 0o600;

/// Directories of files.
pub trait Storage: Send + Sync + 'static {
    /// The names of all that is in the directory, in any order.
    ///
    /// # Errors
    /// The kernel's.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Handle>>;

    /// Opens an empty file for reading and writing; one that is there loses all it holds.
    ///
    /// # Errors
    /// The kernel's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Handle>>;

    /// Gives a file another name. Only [`Storage::sync_directory`] makes that durable.
    ///
    /// # Errors
    /// The kernel's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Returns once the names in the directory would survive a power cut.
    ///
    /// # Errors
    /// The kernel's; as with [`Handle::sync`], nothing is known then.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// A number that nobody knows who writes values: what a segment's pattern is made from. Not for
    /// secrecy from whoever reads the disk, but so that no value can hold the pattern by intent.
    fn seed(&self) -> u64;
}

/// An open file.
pub trait Handle: Send + Sync {
    /// How long the file is, in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn length(&self) -> io::Result<u64>;

    /// Reserves room for the first `bytes` of the file, and makes it that long.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] when there is none.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Fills the buffer from `offset` on.
    ///
    /// # Errors
    /// The kernel's, and when the file ends before the buffer is full.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The kernel's; how much was written is then unknown.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns once all that was written to the file would survive a power cut.
    ///
    /// # Errors
    /// The kernel's; the data may be lost even if a later call succeeds.
    fn sync(&self) -> io::Result<()>;
}

/// The real thing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl Storage for Kernel {
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?.map(|item| item.map(|item| item.file_name())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn seed(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

impl Handle for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let reserve = || rustix::fs::fallocate(self, FallocateFlags::empty(), 0, bytes);
        match rustix::io::retry_on_intr(reserve) {
            // Some file systems cannot; the log writes every byte of a new segment anyway, and then
            // learns whether there was room.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Whether an error means that there is no room, which passes, unlike other failures.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
