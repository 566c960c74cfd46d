//! What a host is like, gathered on the host itself for `paxos-ctl check`.
//!
//! Facts only; what they mean is for [`super`]. Nothing is changed: one file is written for
//! a moment beside where the data will lie, under a name of its own, to see how fast the disk is,
//! and is removed again; where its process was killed, by the next check there.
//!
//! The cost: some two hundred small syncs on that disk, for [`SYNC_LIMIT`] at most, which a node
//! that runs there feels like so many writes more. A disk that hangs in one of them is given up by
//! the controller, as is any call.

use super::trial_login;
use crate::controller::host::local::{self, LocalHost};
use crate::controller::host::{Found, Host, HostError, Layout, Place, Wanted, names};
use crate::controller::host::{system, unit};
use crate::transport::confined::Confined;
use rand::RngExt;
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Blocks that are written and made durable, one by one. Of two hundred, the 99th percentile is the
/// third slowest, which one hiccup does not make.
const SYNCS: usize = 200;

/// As much as a small batch of the log.
const BLOCK_BYTES: usize = 4096;

/// A disk that is not through by then has said enough.
const SYNC_LIMIT: Duration = Duration::from_secs(2);

/// For how long a file of a check is not another's that is at work; with a disk that hangs now and
/// then.
const SCRATCH_IS_LEFT: Duration = Duration::from_secs(600);

/// What is in the blocks: something that no file system leaves out.
const PATTERN: u8 = 0x5a;

/// The pid of the systemd that runs a host.
const SYSTEMD: u32 = 1;

/// Files of the node that tell whose it is, in the order of [`Found::files`].
pub(super) const TELLING: [&str; 2] = [names::SETTINGS, "keys/root.pub"];

/// A host, as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Its wall clock when it began to look, in microseconds since 1970.
    pub came: i64,
    /// Its wall clock when it was done.
    pub left: i64,
    /// What lies there of a node, with the files of [`TELLING`].
    pub found: Found,
    /// Such as `x86_64`.
    pub architecture: String,
    /// Such as `glibc 2.36`, where it can be told.
    pub libc: Option<String>,
    /// Bytes of memory that can be had without swapping, where it can be told.
    pub memory: Option<u64>,
    /// How many files the node may have open; none for no limit.
    pub open_files: Option<u64>,
    /// Where the data lies or will lie.
    pub ground: Ground,
    /// The disk under it.
    pub disk: Disk,
    /// The key with which the host will log in at others; see [`trial_login`].
    pub caller: Result<String, String>,
}

/// Whether a node can keep its data where it is to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ground {
    /// The directory is the node's.
    Held,
    /// It is empty, or missing and can be made.
    Free,
    /// It cannot, and why.
    Unusable(String),
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The directory by which it was found: the data directory, or the nearest that is there.
    pub at: PathBuf,
    /// Bytes that others than root may still write.
    pub free_bytes: u64,
    /// Files that others than root may still make, where that has a limit.
    pub free_files: Option<u64>,
    /// How fast it makes blocks durable, or why it could not; none if it was not tried, because the
    /// directory is of no use.
    pub syncs: Option<Result<Syncs, String>>,
}

/// How long a disk took to make blocks durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syncs {
    /// How many.
    pub count: u64,
    /// The 99th percentile, in microseconds.
    pub p99_micros: u64,
    /// The slowest, in microseconds.
    pub max_micros: u64,
}

/// This machine's wall clock, in microseconds since 1970: what a comparison of clocks goes by.
pub(super) fn wall_clock() -> i64 {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

/// Looks at this machine as the host of a node.
///
/// # Errors
/// When something of the node's is there and cannot be read.
pub(in crate::controller) fn probe(place: &Place) -> Result<Probed, HostError> {
    let came = wall_clock();
    let telling = TELLING.map(str::to_owned);
    let found = LocalHost::default().find(place, &Wanted { executable: None, files: &telling })?;
    let nearest = nearest(&place.directory);
    let ground = ground(place, &nearest);
    let syncs = match &ground {
        Ground::Held | Ground::Free => Some(measure(&nearest).map_err(|error| error.to_string())),
        Ground::Unusable(_) => None,
    };
    let (free_bytes, free_files) = match statvfs(&nearest) {
        // File systems without a table of files say that it has no places.
        Ok(stat) => (
            stat.f_bavail.saturating_mul(stat.f_frsize),
            (stat.f_files > 0).then_some(stat.f_favail),
        ),
        Err(error) => return Err(unreadable(place, &nearest, &error.into())),
    };
    Ok(Probed {
        came,
        architecture: rustix::system::uname().machine().to_string_lossy().into_owned(),
        libc: libc(),
        memory: fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)),
        open_files: open_files_of(place, found.running),
        found,
        ground,
        disk: Disk { at: nearest, free_bytes, free_files, syncs },
        caller: trial_login::caller(),
        left: wall_clock(),
    })
}

fn unreadable(place: &Place, path: &Path, error: &io::Error) -> HostError {
    HostError {
        node: place.node.clone(),
        what: format!("look at the disk under {}", path.display()),
        reason: error.to_string(),
        hint: "see that the directory can be read there".to_owned(),
    }
}

/// The directory itself, or the nearest above it that is there.
fn nearest(directory: &Path) -> PathBuf {
    let there = directory.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// What a deployment would make of the data directory.
fn ground(place: &Place, nearest: &Path) -> Ground {
    let directory = &place.directory;
    let writable = |path: &Path| {
        access(path, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))
    };
    let found = match (fs::symlink_metadata(directory), &place.layout) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {
            return writable(nearest).map_or_else(Ground::Unusable, |()| Ground::Free);
        }
        (Err(error), _) => return Ground::Unusable(error.to_string()),
        (Ok(found), Layout::System { .. }) => found,
        // A link to a directory of one's own is as good.
        (Ok(found), Layout::Own) => fs::metadata(directory).unwrap_or(found),
    };
    if !found.is_dir() {
        return Ground::Unusable(format!("{} is no directory", directory.display()));
    }
    if let Err(why) = writable(directory) {
        return Ground::Unusable(why);
    }
    let is_empty = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    let is_ours = match place.layout {
        Layout::Own => true,
        Layout::System { .. } => {
            system::account().is_some_and(|account| account.user == found.uid())
        }
    };
    match (is_empty, is_ours) {
        (true, _) => Ground::Free,
        (false, true) => Ground::Held,
        (false, false) => Ground::Unusable(format!(
            "{} belongs to somebody else (user {}) and is not empty",
            directory.display(),
            found.uid()
        )),
    }
}

/// A file that is gone when this is.
///
/// It keeps its name until then: some file systems do not sync what has none. So a check that is
/// killed leaves it, and the next one on that disk takes it away.
struct Scratch {
    file: File,
    name: String,
    directory: Confined,
}

/// What its name begins with, before as many hexadecimal digits as a number of 64 bits has.
const SCRATCH: &str = ".paxos-check-";

impl Scratch {
    fn create(directory: &Path) -> io::Result<Scratch> {
        let directory = Confined::open_own(directory)?;
        forget_scratch(&directory, SCRATCH_IS_LEFT);
        let name = format!("{SCRATCH}{:016x}", rand::rng().random::<u64>());
        let file = directory.create(&name, 0o600)?;
        Ok(Scratch { file, name, directory })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone_already = self.directory.remove(&self.name);
    }
}

/// Takes away what checks left in a directory and did not write to for so long.
pub(in crate::controller) fn forget_scratch(directory: &Confined, age: Duration) {
    let is_ours = |name: &str| {
        let number = name.strip_prefix(SCRATCH).unwrap_or_default();
        number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_old = |name: &str| -> io::Result<bool> {
        let written = directory.file(name)?.metadata()?.modified()?;
        // Of a time to come nothing is known; it passes.
        Ok(written.elapsed().unwrap_or_default() >= age)
    };
    for path in directory.names().unwrap_or_default() {
        // What cannot be taken away costs a file's space and no more.
        if let Some(name) = path.to_str().filter(|name| is_ours(name))
            && is_old(name).unwrap_or(false)
        {
            let _left = directory.remove(name);
        }
    }
}

/// Writes over blocks that are there already, as the log does, and makes each durable.
fn measure(directory: &Path) -> io::Result<Syncs> {
    let scratch = Scratch::create(directory)?;
    scratch.file.write_all_at(&vec![0; SYNCS * BLOCK_BYTES], 0)?;
    scratch.file.sync_all()?;
    let deadline = Instant::now() + SYNC_LIMIT;
    let mut took = Vec::with_capacity(SYNCS);
    for block in 0..SYNCS {
        let started = Instant::now();
        scratch.file.write_all_at(&[PATTERN; BLOCK_BYTES], (block * BLOCK_BYTES) as u64)?;
        scratch.file.sync_data()?;
        took.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(summary(took))
}

/// At least one.
fn summary(mut took: Vec<u64>) -> Syncs {
    took.sort_unstable();
    let rank = (took.len() * 99).div_ceil(100).max(1);
    let at = |rank: usize| took.get(rank - 1).copied().unwrap_or_default();
    Syncs { count: took.len() as u64, p99_micros: at(rank), max_micros: at(took.len().max(1)) }
}

/// What can be had without swapping, of `/proc/meminfo`.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// How many files the node may have open: one that runs, as it was started; one that will be a unit
/// of systemd, as the unit says; any other as many as whoever starts it. None is no limit.
fn open_files_of(place: &Place, running: Option<u32>) -> Option<u64> {
    match running.and_then(limits_of) {
        Some(limits) => limits.at_first,
        None if local::is_unit(place) => Some(unit_open_files(limits_of(SYSTEMD))),
        None => getrlimit(Resource::Nofile).current,
    }
}

/// As many as the unit says, or the most that systemd itself may allow: in a container it cannot go
/// above that, and then starts a service with as many.
fn unit_open_files(of_systemd: Option<Limits>) -> u64 {
    let most = of_systemd.and_then(|limits| limits.at_most).unwrap_or(u64::MAX);
    most.min(unit::FILES_MAX.into())
}

/// How many files a process may have open, and may allow itself to; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    at_first: Option<u64>,
    at_most: Option<u64>,
}

fn limits_of(pid: u32) -> Option<Limits> {
    open_files(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// Of `/proc/PID/limits`.
fn open_files(text: &str) -> Option<Limits> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    Some(Limits { at_first: numbers.next()??, at_most: numbers.next()?? })
}

/// The C library that programs here are linked with.
fn libc() -> Option<String> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    if let Ok(output) = output
        && output.status.success()
    {
        return Some(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let is_musl = |name: &str| name.starts_with("ld-musl-");
    let mut names = fs::read_dir("/lib").ok()?.flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(is_musl)).then(|| "musl".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity;
    use std::net::TcpListener;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn place(directory: &Path, layout: Layout) -> Place {
        Place {
            node: "n1".to_owned(),
            directory: directory.to_owned(),
            listen: Vec::new(),
            layout,
            supervised: false,
            login: None,
        }
    }

    fn system() -> Layout {
        Layout::System { cluster: "c".to_owned() }
    }

    #[test]
    fn the_percentile_is_one_that_was_seen() {
        let summed = |took: &[u64]| {
            let Syncs { count, p99_micros, max_micros } = summary(took.to_vec());
            (count, p99_micros, max_micros)
        };
        assert_eq!(summed(&[7]), (1, 7, 7));
        assert_eq!(summed(&[3, 1, 2]), (3, 3, 3));
        let rising: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(summed(&rising), (200, 198, 200));
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        let text = "MemTotal:  8 kB\nMemFree:  2 kB\nMemAvailable:    5 kB\n";
        assert_eq!(available(text), Some(5 * 1024));
        assert_eq!(available("MemAvailable: much\n"), None);
        assert_eq!(available(""), None);
        let head = "Limit                     Soft Limit           Hard Limit           Units\n";
        let limits = |soft: &str, hard: &str| {
            open_files(&format!("{head}Max open files   {soft}  {hard}   files"))
        };
        let are = |at_first, at_most| Some(Limits { at_first, at_most });
        assert_eq!(limits("1024", "524288"), are(Some(1024), Some(524_288)));
        assert_eq!(limits("1024", "unlimited"), are(Some(1024), None));
        assert_eq!(limits("unlimited", "unlimited"), are(None, None));
        assert_eq!(open_files(head), None);
        let mine = getrlimit(Resource::Nofile);
        assert_eq!(limits_of(std::process::id()), are(mine.current, mine.maximum));
    }

    #[test]
    fn a_unit_has_the_files_that_it_asks_for_if_systemd_may_allow_them() {
        let most = |at_most| unit_open_files(Some(Limits { at_first: Some(1024), at_most }));
        assert_eq!(most(Some(1 << 20)), u64::from(unit::FILES_MAX));
        assert_eq!(most(None), u64::from(unit::FILES_MAX));
        assert_eq!(most(Some(20_000)), 20_000);
        assert_eq!(unit_open_files(None), u64::from(unit::FILES_MAX));
    }

    #[test]
    fn a_directory_is_judged_as_a_deployment_would() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/n1");
        assert_eq!(nearest(&deep), folder.path());
        let judge = |path: &Path, layout| ground(&place(path, layout), &nearest(path));
        assert_eq!(judge(&deep, Layout::Own), Ground::Free);
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(judge(&deep, system()), Ground::Free, "an empty one is taken");
        fs::write(deep.join("thesis.tex"), "x").unwrap();
        assert_eq!(judge(&deep, Layout::Own), Ground::Held);
        let me = fs::metadata(&deep).unwrap().uid();
        if system::account().is_none_or(|account| account.user != me) {
            let Ground::Unusable(why) = judge(&deep, system()) else { panic!("taken") };
            assert!(why.contains("somebody else"), "{why}");
        }
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(judge(&file, Layout::Own), Ground::Unusable(_)));
        let link = folder.path().join("link");
        symlink(&deep, &link).unwrap();
        assert!(matches!(judge(&link, system()), Ground::Unusable(_)), "a link leads somewhere");
        assert_eq!(judge(&link, Layout::Own), Ground::Held);
        if !rustix::process::geteuid().is_root() {
            fs::set_permissions(&deep, fs::Permissions::from_mode(0o500)).unwrap();
            assert!(matches!(judge(&deep.join("n2"), Layout::Own), Ground::Unusable(_)));
        }
    }

    #[test]
    fn a_probe_measures_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place {
            listen: vec![socket.local_addr().unwrap().to_string()],
            ..place(&folder.path().join("n1"), Layout::Own)
        };
        let before = wall_clock();
        let probed = probe(&place).unwrap();
        assert!(before <= probed.came && probed.came <= probed.left && probed.left <= wall_clock());
        assert_eq!(probed.ground, Ground::Free);
        assert_eq!(probed.found.held.len(), 1);
        assert_eq!(probed.found.files, [None, None]);
        let syncs = probed.disk.syncs.unwrap().unwrap();
        assert!(syncs.count >= 1 && syncs.p99_micros <= syncs.max_micros, "{syncs:?}");
        assert!(probed.disk.free_bytes > 0 && probed.memory.is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "its file is gone");
        assert!(probed.caller.unwrap().starts_with("ssh-ed25519 "));
    }

    #[test]
    fn a_measurement_that_fails_leaves_nothing_behind_either() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(scratch);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(measure(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn what_a_check_left_that_was_killed_goes_with_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (old, young) = (".paxos-check-0123456789abcdef", ".paxos-check-fedcba9876543210");
        let others = [".paxos-check-notes", "paxos-check-0123456789abcdef"];
        let link = ".paxos-check-00000000000000ff";
        for name in [&[old, young][..], &others].concat() {
            fs::write(path(name), "x").unwrap();
            let hour_ago = SystemTime::now() - Duration::from_secs(3600);
            if name != young {
                File::options()
                    .write(true)
                    .open(path(name))
                    .unwrap()
                    .set_modified(hour_ago)
                    .unwrap();
            }
        }
        symlink(path(others[0]), path(link)).unwrap();
        measure(folder.path()).unwrap();
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [link, young, others[0], others[1]]);
        let place = place(folder.path(), Layout::Own);
        let left = LocalHost::default().remove(&place).unwrap();
        assert_eq!(left, [link, others[0], others[1]].map(path), "with all that is the node's");
    }

    #[test]
    fn the_files_that_tell_are_where_nodes_have_them() {
        assert_eq!(TELLING[1], format!("{}/{}", names::KEYS, identity::ROOT));
    }
}
