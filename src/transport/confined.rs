//! Files in a directory into which somebody else may write.
//!
//! On a host the controller's agent is root, and a node's directory belongs to the node's account:
//! whoever takes a node over can put there what they like, while root works in it. A link would
//! lead root to a file elsewhere, a pipe would keep it waiting, a file of another's would be given
//! away. So the directory is opened once and held, and what lies in it is opened by that and by one
//! name: links are not followed, only plain files are read, and no more of them than fits. What is
//! written is a new file, given to its owner before it has its name.
//!
//! What must never happen: something outside of the directory is read, written or given away,
//! whatever is done to the names in it meanwhile.
//!
//! The directory's own name is only as good as what is above it: where the account may write there
//! as well, it chooses which of its directories is worked in.

use rand::Rng as _;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Files that are read whole are small; one that is larger is none of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How a file is opened: not over a link, and without a wait for whoever is at the other end of a
/// pipe.
const PLAIN: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The numbers of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
}

/// A directory that is held open.
#[derive(Debug)]
pub struct Confined {
    directory: OwnedFd,
    /// For people.
    path: PathBuf,
    /// To whom goes what is made in it, if not to this program.
    owner: Option<Account>,
}

impl Confined {
    /// Opens a directory that is no link.
    ///
    /// # Errors
    /// When it is missing, a link or no directory.
    pub fn open(path: &Path) -> io::Result<Confined> {
        Confined::at(fs::CWD, path, path.to_owned(), OFlags::NOFOLLOW)
    }

    /// Opens a directory that may be reached by a link, because whoever runs this program made it.
    ///
    /// # Errors
    /// When it is missing or no directory.
    pub fn open_own(path: &Path) -> io::Result<Confined> {
        Confined::at(fs::CWD, path, path.to_owned(), OFlags::empty())
    }

    fn at(from: impl AsFd, name: &Path, path: PathBuf, links: OFlags) -> io::Result<Confined> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | links;
        let directory = fs::openat(from.as_fd(), name, flags, Mode::empty()).map_err(|error| {
            // To whoever asks for a directory, a link is none.
            let is_link = || {
                let found = fs::statat(from.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
                found.is_ok_and(|found| kind(&found) == FileType::Symlink)
            };
            match error {
                Errno::NOTDIR | Errno::LOOP if is_link() => a_link(),
                error => error.into(),
            }
        })?;
        Ok(Confined { directory, path, owner: None })
    }

    /// What is made in it from now on is this account's.
    pub fn owned_by(self, owner: Option<Account>) -> Confined {
        Confined { owner, ..self }
    }

    /// Whose is what is made in it, if not this program's.
    pub fn owner(&self) -> Option<Account> {
        self.owner
    }

    /// Where it is, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is, for the kernel: the very directory that is held, whatever its name leads to by
    /// now.
    pub fn held_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }

    /// Gives the directory itself to an account: a new one, an empty one, or one that is its own
    /// already.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn take(&self, account: Account) -> io::Result<()> {
        if fs::fstat(&self.directory)?.st_uid == account.user {
            return Ok(());
        }
        if !self.names()?.is_empty() {
            return Err(io::Error::other("it is somebody else's, and not empty"));
        }
        fs::fchmod(&self.directory, Mode::RWXU)?;
        give(&self.directory, account)
    }

    /// All names in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.held_path())?;
        entries.map(|entry| Ok(entry?.file_name().into())).collect()
    }

    /// A directory in it.
    ///
    /// # Errors
    /// When it is missing, a link or no directory.
    pub fn folder(&self, name: &str) -> io::Result<Confined> {
        let opened =
            Confined::at(&self.directory, one(name)?, self.path.join(name), OFlags::NOFOLLOW);
        Ok(opened?.owned_by(self.owner))
    }

    /// As [`Confined::folder`], made for its owner alone if it is missing.
    ///
    /// # Errors
    /// When it is a link or no directory, is somebody else's, or cannot be made.
    pub fn make_folder(&self, name: &str) -> io::Result<Confined> {
        match fs::mkdirat(&self.directory, one(name)?, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = self.folder(name)?;
        if let Some(owner) = self.owner {
            folder.take(owner)?;
        }
        Ok(folder)
    }

    /// Whether there is something of this name; a link counts, wherever it leads.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        match fs::statat(&self.directory, one(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a plain file to be read.
    ///
    /// # Errors
    /// When it is missing, a link or something else.
    pub fn file(&self, name: &str) -> io::Result<File> {
        self.plain(name, OFlags::RDONLY)
    }

    /// The bytes of a small file, and its permission bits.
    ///
    /// # Errors
    /// As [`Confined::file`], and when it is a large one.
    pub fn read(&self, name: &str) -> io::Result<(Vec<u8>, u32)> {
        let file = self.file(name)?;
        let mode = Mode::from_raw_mode(fs::fstat(&file)?.st_mode).bits();
        let mut bytes = Vec::new();
        // It may grow while it is read.
        match file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > FILE_BYTES_MAX {
            true => {
                let message =
                    format!("it has more than {FILE_BYTES_MAX} bytes, and is none of ours");
                Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
            }
            false => Ok((bytes, mode & 0o777)),
        }
    }

    /// As [`Confined::read`]; none where there is no such file.
    ///
    /// # Errors
    /// As there, otherwise.
    pub fn read_optional(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.read(name) {
            Ok((bytes, _mode)) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a file of a name that nothing has, a link neither.
    ///
    /// # Errors
    /// When something has it, or the file cannot be made.
    pub fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | PLAIN;
        let mode = Mode::from_raw_mode(mode);
        Ok(File::from(fs::openat(&self.directory, one(name)?, flags, mode)?))
    }

    /// Writes a file whole: under a name of its own, flushed, given to its owner, renamed, and the
    /// directory flushed. What had its name before is replaced, a link itself and not where it
    /// leads.
    ///
    /// # Errors
    /// When it cannot be written; then it is as it was.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        // A name of its own, so that two writers never share a half-written file.
        let temporary = format!(".{name}.{:016x}", rand::rng().next_u64());
        let mut file = self.create(&temporary, mode)?;
        let mut attempt = || -> io::Result<()> {
            file.write_all(bytes)?;
            if let Some(owner) = self.owner {
                give(&file, owner)?;
            }
            file.sync_data()?;
            self.rename(&temporary, name)
        };
        attempt().inspect_err(|_| {
            // Best effort: the error that matters is the one before.
            let _left_behind = self.remove(&temporary);
        })
    }

    /// Opens a plain file to write at its end, which is made if it is missing.
    ///
    /// # Errors
    /// When it is a link or something else, is somebody else's, or has another name as well: its
    /// owner may have no rights to it.
    pub fn append(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND;
        let file = match self.plain(name, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.write(name, b"", 0o600)?;
                self.plain(name, flags)?
            }
            opened => opened?,
        };
        let found = fs::fstat(&file)?;
        match self.owner {
            Some(owner) if found.st_uid != owner.user || found.st_nlink != 1 => {
                Err(io::Error::other("it is somebody else's file; remove it"))
            }
            _ => Ok(file),
        }
    }

    /// Where the kernel finds a socket, which is no link; as long as what is given beside it lives.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn socket(&self, name: &str) -> io::Result<(PathBuf, OwnedFd)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = fs::openat(&self.directory, one(name)?, flags, Mode::empty())?;
        match kind(&fs::fstat(&socket)?) {
            FileType::Socket => {
                Ok((PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd())), socket))
            }
            other => Err(strange(other)),
        }
    }

    /// Renames what is in it, and flushes the directory: without that the rename is not there after
    /// a power cut.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::renameat(&self.directory, one(from)?, &self.directory, one(to)?)?;
        self.sync()
    }

    /// Flushes the directory, so that what has a name in it has it after a power cut as well.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.directory)?)
    }

    /// Removes a file, or a link itself. One that is gone already is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(&self.directory, one(name)?, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn plain(&self, name: &str, how: OFlags) -> io::Result<File> {
        let opened = fs::openat(&self.directory, one(name)?, how | PLAIN, Mode::empty());
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::LOOP) => return Err(a_link()),
            // Nobody is at the other end of a pipe, and nothing to connect with of a socket.
            Err(Errno::NXIO) => return Err(strange(FileType::Unknown)),
            Err(error) => return Err(error.into()),
        };
        match kind(&fs::fstat(&file)?) {
            FileType::RegularFile => Ok(file),
            other => Err(strange(other)),
        }
    }
}

/// Reads a small plain file, by the directory that it lies in.
///
/// # Errors
/// As [`Confined::read`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (directory, name) = split(path)?;
    Confined::open_own(directory)?.read(name).map(|(bytes, _mode)| bytes)
}

/// The directory that a file lies in, and its name there.
///
/// # Errors
/// When it has none.
pub fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let parts = path.parent().zip(path.file_name().and_then(|name| name.to_str()));
    parts.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// One name, and not a way to somewhere.
fn one(name: &str) -> io::Result<&Path> {
    match name.is_empty() || name.contains('/') || name == ".." || name == "." {
        false => Ok(Path::new(name)),
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name"))),
    }
}

fn kind(found: &fs::Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn give(file: impl AsFd, account: Account) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(account.user), Some(account.group))
}

fn a_link() -> io::Error {
    strange(FileType::Symlink)
}

fn strange(found: FileType) -> io::Error {
    let what = match found {
        FileType::Symlink => "a link",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::RegularFile => "a file",
        _ => "a pipe, a socket or a device",
    };
    io::Error::other(format!("it is {what}, and nobody here made it; remove it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs as std_fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    /// Of somebody else, where the tests may give something away.
    fn account(folder: &Path) -> Account {
        let own = std_fs::metadata(folder).unwrap();
        match rustix::process::geteuid().is_root() {
            true => Account { user: 4_242, group: 4_242 },
            false => Account { user: own.uid(), group: own.gid() },
        }
    }

    #[test]
    fn what_is_written_is_its_owners_and_replaces_a_link_itself() {
        let folder = tempfile::tempdir().unwrap();
        let account = account(folder.path());
        let (secret, inside) = (folder.path().join("secret"), folder.path().join("in"));
        std_fs::write(&secret, "s").unwrap();
        std_fs::create_dir(&inside).unwrap();
        let directory = Confined::open(&inside).unwrap();
        directory.take(account).unwrap();
        symlink(&secret, inside.join("people")).unwrap();
        let directory = directory.owned_by(Some(account));
        directory.write("people", b"p", 0o640).unwrap();
        directory.write("people", b"q", 0o640).unwrap();
        let found = std_fs::symlink_metadata(inside.join("people")).unwrap();
        assert!(found.is_file());
        assert_eq!((found.uid(), found.gid()), (account.user, account.group));
        assert_eq!(found.permissions().mode() & 0o137, 0);
        assert_eq!(directory.read("people").unwrap().0, b"q");
        assert_eq!(std_fs::read(&secret).unwrap(), b"s");
        let keys = directory.make_folder("keys").unwrap();
        keys.write("k", b"", 0o600).unwrap();
        for path in [inside.join("keys"), inside.join("keys/k"), inside.clone()] {
            assert_eq!(std_fs::metadata(&path).unwrap().uid(), account.user, "{}", path.display());
        }
        assert_eq!(directory.names().unwrap().len(), 2, "nothing half-written is left");
    }

    #[test]
    fn nothing_but_a_plain_file_of_one_name_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Confined::open(folder.path()).unwrap();
        let (own, fifo) = (Mode::RUSR | Mode::WUSR, FileType::Fifo);
        fs::mknodat(&directory.directory, "pipe", fifo, own, 0).unwrap();
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        std_fs::create_dir(folder.path().join("folder")).unwrap();
        let large = File::create(folder.path().join("large")).unwrap();
        large.set_len(FILE_BYTES_MAX + 1).unwrap();
        for name in ["pipe", "link", "folder", "large", "", ".", "..", "/etc/passwd", "folder/x"] {
            directory.read(name).unwrap_err();
        }
        for name in ["pipe", "link", "folder"] {
            directory.append(name).unwrap_err();
            directory.socket(name).unwrap_err();
        }
        for name in ["pipe", "link", "large"] {
            directory.folder(name).unwrap_err();
            directory.make_folder(name).unwrap_err();
        }
        assert!(directory.read("link").unwrap_err().to_string().contains("is a link"));
        assert!(Confined::open(&folder.path().join("link")).is_err());
        assert_eq!(directory.read_optional("missing").unwrap(), None);
    }

    #[test]
    fn a_file_with_another_name_is_not_written_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let account = account(folder.path());
        let directory = Confined::open(folder.path()).unwrap().owned_by(Some(account));
        directory.append("log").unwrap().write_all(b"1").unwrap();
        directory.append("log").unwrap().write_all(b"2").unwrap();
        assert_eq!(directory.read("log").unwrap().0, b"12");
        std_fs::hard_link(folder.path().join("log"), folder.path().join("other")).unwrap();
        directory.append("log").unwrap_err();
        if account.user == 4_242 {
            std_fs::write(folder.path().join("roots"), "").unwrap();
            directory.append("roots").unwrap_err();
            let roots = folder.path().join("a");
            std_fs::create_dir(&roots).unwrap();
            std_fs::write(roots.join("b"), "").unwrap();
            directory.make_folder("a").unwrap_err();
        }
    }

    #[test]
    fn a_directory_that_is_exchanged_is_worked_in_as_it_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std_fs::create_dir(path("in")).unwrap();
        std_fs::create_dir(path("elsewhere")).unwrap();
        let directory = Confined::open(&path("in")).unwrap();
        std_fs::rename(path("in"), path("moved")).unwrap();
        symlink(path("elsewhere"), path("in")).unwrap();
        directory.write("x", b"", 0o600).unwrap();
        directory.make_folder("keys").unwrap().write("y", b"", 0o600).unwrap();
        assert_eq!(std_fs::read_dir(path("elsewhere")).unwrap().count(), 0);
        assert!(path("moved/keys/y").exists());
    }

    #[test]
    fn a_socket_is_found_by_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paxos.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        symlink(&path, folder.path().join("link")).unwrap();
        let directory = Confined::open(folder.path()).unwrap();
        directory.socket("link").unwrap_err();
        let (by, _held) = directory.socket("paxos.sock").unwrap();
        UnixStream::connect(by).unwrap();
    }
}
