//! This machine as a host: for the controller, and for its agent on a host over ssh.
//!
//! Who watches over a node is decided here, on its host. A node of this machine's inventory is a
//! background process of the user who runs the controller, and nothing restarts it by itself. On a
//! host over ssh it is a unit where [`systemd`](super::systemd) runs the host and root lays it out,
//! and has a small supervisor of ours over it otherwise. What belongs to others is not touched: no
//! process that is not the node's (see [`super::process`]), no file that a node does not make.

use super::lock::{Busy, Holder, Holdings};
use super::ports::held;
use super::process;
use super::remote::sha256;
use super::started::{self, Outdated};
use super::system;
use super::systemd::{Service, Systemd};
use super::{Found, Halt, Halted, Host, HostError, Layout, Place, Wanted, names};
use crate::client::door::Door;
use crate::controller::check::probe::forget_scratch;
use crate::controller::destroy::remove_known;
use crate::controller::observe::say;
use crate::controller::plan::FileState;
use crate::controller::recover::remains::{Remains, remains};
use crate::controller::wait::until;
use crate::controller::watch::Watched;
use crate::transport::confined::{self, Confined};
use crate::transport::{authority, node_key};
use crate::wire::report::StatusReport;
use rustix::process::Signal;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a node may take to hand its leadership over and end. A hand-over takes milliseconds,
/// the last fsync of a bad disk seconds.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How long the kernel may take to end a process; one that hangs in a dead disk outlives even this.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How long a node may take to say how it is.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// How long a process that begins just now may take until it heeds SIGHUP: that is the first thing
/// it does.
const HANGUP_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked at.
const HANGUP_LOOK_EVERY: Duration = Duration::from_millis(10);

/// How far from its end a log is read for its last lines.
const TAIL_BYTES_MAX: u64 = 4 << 20;

/// Pieces in which executables are compared and copied.
const COPY_BYTES: usize = 1 << 20;

/// The hidden word that makes the program start a daemon; see [`process::become_daemon`].
pub const DAEMONISE: &str = "become-daemon";

/// The hidden word that makes the program watch over a node.
pub const SUPERVISE: &str = "become-supervisor";

/// What a supervised node is told last, so that it ends with its supervisor.
pub const SUPERVISED: &str = "--supervised";

/// This machine.
#[derive(Debug, Default)]
pub struct LocalHost {
    /// What this program keeps other controllers from.
    pub holdings: Holdings,
    /// Who watches an executable being copied.
    pub watched: Watched,
}

/// Who starts a node again that ended and was not told to.
enum Watcher<'a> {
    /// The host's own, of which the node is the unit of this cluster.
    Systemd(Systemd, &'a str),
    /// A process of ours.
    Supervisor,
    /// Nobody.
    Nobody,
}

impl Watcher<'_> {
    fn of(place: &Place) -> Watcher<'_> {
        match (&place.layout, place.supervised) {
            (_, false) => Watcher::Nobody,
            (Layout::Own, true) => Watcher::Supervisor,
            (Layout::System { cluster }, true) => match Systemd::running() {
                Some(systemd) => Watcher::Systemd(systemd, cluster),
                None => Watcher::Supervisor,
            },
        }
    }
}

/// Whether a node is a unit of this machine's systemd, or will be.
pub(in crate::controller) fn is_unit(place: &Place) -> bool {
    matches!(Watcher::of(place), Watcher::Systemd(..))
}

fn failed<T, E: std::fmt::Display>(
    place: &Place,
    what: impl Into<String>,
    result: Result<T, E>,
) -> Result<T, HostError> {
    result.map_err(|error| HostError {
        node: place.node.clone(),
        what: what.into(),
        reason: error.to_string(),
        hint: "check the owner of the directories and the space on the disk, and try again"
            .to_owned(),
    })
}

/// As [`failed`], where systemd did not do it.
fn failed_unit<T>(
    place: &Place,
    what: &str,
    cluster: &str,
    result: io::Result<T>,
) -> Result<T, HostError> {
    let unit = super::unit::name(cluster);
    let hint = format!("on the host, see systemctl status {unit} and journalctl -u {unit}");
    failed(place, what, result).map_err(|error| HostError { hint, ..error })
}

impl LocalHost {
    /// As [`Host::find`], for somebody who knows the checksum of what the executable should be.
    ///
    /// # Errors
    /// As there.
    pub fn look(
        &self,
        place: &Place,
        files: &[String],
        digest: Option<&[u8]>,
    ) -> Result<Found, HostError> {
        let nothing = Wanted { executable: None, files };
        let found = self.find(place, &nothing)?;
        let is_wanted = |path: &Path, wanted: &[u8]| sha256(path).map(|sum| sum[..] == *wanted);
        let compared = match (digest, place.executable()) {
            (None, _) => Ok(FileState::Absent),
            (_, executable) if !executable.exists() => Ok(FileState::Absent),
            (Some(wanted), executable) => is_wanted(&executable, wanted).and_then(|same| {
                // A deployment that was cut short may have laid the file and not restarted the
                // node.
                let runs_it = match found.running {
                    Some(pid) => is_wanted(Path::new(&format!("/proc/{pid}/exe")), wanted)?,
                    None => true,
                };
                Ok(if same && runs_it { FileState::Same } else { FileState::Differs })
            }),
        };
        let executable = failed(place, "compare the executable", compared)?;
        Ok(Found { executable, ..found })
    }

    /// Makes an executable that lies on the host already the node's.
    ///
    /// # Errors
    /// When the host cannot be laid out for it.
    pub fn adopt(&self, place: &Place, executable: &Path) -> Result<(), HostError> {
        match place.layout {
            Layout::Own => Ok(()),
            Layout::System { .. } => {
                failed(place, "make it the current version", system::adopt(executable))
            }
        }
    }

    /// As [`Host::status`], in the node's own JSON.
    ///
    /// # Errors
    /// When the node's socket is not there, or it does not answer in time.
    pub fn status_text(&self, place: &Place) -> Result<String, HostError> {
        let ask = || -> Result<String, String> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let socket = place.open().and_then(|directory| directory.socket(names::SOCKET));
            let (path, _held) = socket.map_err(|error| error.to_string())?;
            let door = Door::Socket(path);
            let said = runtime.block_on(say(&door, "paxos status -o json", STATUS_LIMIT))?;
            Ok(String::from_utf8_lossy(&said.stdout).into_owned())
        };
        ask().map_err(|reason| HostError {
            node: place.node.clone(),
            what: "ask it how it is".to_owned(),
            reason,
            hint: format!("see whether it runs, and its log: paxos-ctl logs {}", place.node),
        })
    }

    /// Makes the node's directory, and what must be there before it.
    fn prepare(&self, place: &Place) -> Result<Confined, HostError> {
        let Layout::System { .. } = place.layout else {
            let made = private_directory(&place.directory).and_then(|()| place.open());
            return failed(place, "make its directory", made);
        };
        let account = failed(place, "lay the host out", system::prepare(place))?;
        let taken = system::take_directory(&place.directory, account);
        failed(place, format!("take {}", place.directory.display()), taken)
    }

    /// The directory of its keys, in its own.
    fn keys(&self, place: &Place) -> Result<Confined, HostError> {
        let made = self.prepare(place)?.make_folder(names::KEYS);
        failed(place, format!("make {}", place.path(names::KEYS).display()), made)
    }
}

impl Host for LocalHost {
    fn find(&self, place: &Place, wanted: &Wanted<'_>) -> Result<Found, HostError> {
        let running = place.identity().find();
        let mut files = Vec::new();
        for name in wanted.files {
            files.push(failed(place, format!("read {name}"), place.read(name))?);
        }
        let what = || format!("open {}", place.directory.display());
        let directory = failed(place, what(), there(place.open()))?;
        let keys = directory.as_ref().and_then(|held| there(held.folder(names::KEYS)).transpose());
        let line = keys.map(|keys| node_key::line_in_use(&keys?)).transpose();
        let line = failed(place, "read its public key", line)?.flatten();
        let executable = place.executable();
        let compare = |wanted: &Path| match (compare(&executable, wanted)?, running) {
            // A deployment that was cut short may have laid the file and not restarted the node.
            (FileState::Same, Some(pid)) => compare(Path::new(&format!("/proc/{pid}/exe")), wanted)
                .map(|runs| match runs {
                    FileState::Same => FileState::Same,
                    FileState::Absent | FileState::Differs => FileState::Differs,
                }),
            (compared, _) => Ok(compared),
        };
        let compared = wanted.executable.map_or(Ok(FileState::Absent), compare);
        let has_entries = |held: &Confined| match place.layout {
            // Whoever has a log on another disk, by a link, is at home there.
            Layout::Own => {
                fs::read_dir(place.path(names::LOG)).is_ok_and(|mut e| e.next().is_some())
            }
            Layout::System { .. } => {
                let log = held.folder(names::LOG).and_then(|log| log.names());
                log.is_ok_and(|names| !names.is_empty())
            }
        };
        let has_genesis = |held: &Confined| held.has(names::GENESIS).unwrap_or(false);
        Ok(Found {
            directory: directory.is_some(),
            log: directory.as_ref().is_some_and(has_entries),
            genesis: directory.as_ref().is_some_and(has_genesis),
            running,
            executable: failed(place, "compare the executable", compared)?,
            node_key: line,
            files,
            held: if running.is_some() { Vec::new() } else { held(&place.listen) },
            outdated: match running {
                None => Outdated::default(),
                Some(_) => failed(place, "see what it runs with", started::outdated(place))?,
            },
        })
    }

    fn ensure_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError> {
        let key = node_key::ensure(&self.keys(place)?, comment);
        Ok(authority::public_line(&failed(place, "make its key", key)?))
    }

    fn next_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError> {
        let key = node_key::ensure_next(&self.keys(place)?, comment);
        Ok(authority::public_line(&failed(place, "make its next key", key)?))
    }

    fn settle_node_key(&self, place: &Place) -> Result<(), HostError> {
        failed(place, "keep its next key only", node_key::settle(&self.keys(place)?))
    }

    fn receive(&self, place: &Place, name: &str, mode: u32, bytes: &[u8]) -> Result<(), HostError> {
        let directory = self.prepare(place)?;
        let write = || {
            let path = place.path(name);
            let (above, file) = confined::split(&path)?;
            let folder = match above.strip_prefix(&place.directory).map(Path::to_str) {
                Ok(Some("")) => directory,
                Ok(below) => directory.make_folder(below.unwrap_or_default())?,
                // Where only root writes.
                Err(_elsewhere) => Confined::open(above)?.owned_by(directory.owner()),
            };
            folder.write(file, bytes, mode)
        };
        failed(place, format!("write {name}"), write())
    }

    fn receive_executable(&self, place: &Place, source: &Path) -> Result<(), HostError> {
        failed(place, "make its directory", private_directory(&place.directory))?;
        let target = place.path(names::EXECUTABLE);
        let temporary = place.path(&format!(".{}.new", names::EXECUTABLE));
        let copy = || -> io::Result<()> {
            let mut to = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o755)
                .open(&temporary)?;
            let mut from = File::open(source)?;
            let (mut copied, total) = (0, from.metadata()?.len());
            loop {
                let piece = io::copy(&mut from.by_ref().take(COPY_BYTES as u64), &mut to)?;
                if piece == 0 {
                    break;
                }
                copied += piece;
                self.watched.sent(&place.node, copied, total);
            }
            to.set_permissions(fs::Permissions::from_mode(0o755))?;
            to.sync_all()?;
            // A file that is open for writing cannot be executed.
            drop(to);
            fs::rename(&temporary, &target)?;
            File::open(&place.directory)?.sync_all()
        };
        failed(place, format!("copy {} to {}", source.display(), target.display()), copy())
    }

    fn start(&self, place: &Place) -> Result<u32, HostError> {
        failed(place, "note what it is started with", started::note(place))?;
        let Watcher::Systemd(systemd, cluster) = Watcher::of(place) else {
            return failed(place, "start it", start_in_background(place));
        };
        let attempt = || {
            // Not by the link: see the module `unit`.
            let executable = fs::canonicalize(place.executable())?;
            let (directory, listen) = (place.directory.as_path(), place.listen.as_slice());
            let service = Service { cluster, directory, listen, executable: &executable };
            systemd.start(&service, &place.identity())
        };
        failed_unit(place, "start it", cluster, attempt())
    }

    fn halt(&self, place: &Place, how: Halt) -> Result<Halted, HostError> {
        let identity = place.identity();
        let (found, signal, limit) = match how {
            Halt::Gently => (identity.find(), Signal::TERM, STOP_LIMIT),
            // As a crash: whoever watches over the node starts it again.
            Halt::AtOnce => (identity.find_beneath(), Signal::KILL, KILL_LIMIT),
        };
        // The process may be none of the unit's, and the unit may wait without a process.
        let told = match (how, Watcher::of(place)) {
            (Halt::Gently, Watcher::Systemd(systemd, cluster)) => {
                failed_unit(place, "stop it", cluster, systemd.stop(cluster))?
            }
            _ => false,
        };
        let Some(pid) = found else { return Ok(Halted::WasNotRunning) };
        if !told {
            let sent = identity.signal(pid, signal);
            if !failed(place, format!("signal process {pid}"), sent)? {
                return Ok(Halted::WasNotRunning);
            }
        }
        match identity.wait_gone(pid, limit) {
            true => Ok(Halted::Stopped(pid)),
            false => Ok(Halted::StillRunning(pid)),
        }
    }

    fn reload(&self, place: &Place) -> Result<Option<u32>, HostError> {
        let identity = place.identity();
        let Some(pid) = identity.find() else { return Ok(None) };
        let ready = || {
            let there = identity.is_process(pid);
            let caught = process::catches_hangup(pid);
            Ok::<_, Infallible>((caught || !there).then_some(caught))
        };
        match until(HANGUP_LIMIT, HANGUP_LOOK_EVERY, ready) {
            Ok(Some(true)) => {
                let sent = identity.signal(pid, Signal::HUP);
                let sent = failed(place, format!("signal process {pid}"), sent)?;
                failed(place, "note what it goes by", started::note_keys(place))?;
                Ok(sent.then_some(pid))
            }
            Ok(Some(false)) => Ok(None),
            Ok(None) => Err(HostError {
                node: place.node.clone(),
                what: "have it take up its keys".to_owned(),
                reason: format!(
                    "process {pid} is of a version that reads them at its start only, and would \
                     be ended by the signal"
                ),
                hint: format!("paxos-ctl restart {}", place.node),
            }),
            Err(never) => match never {},
        }
    }

    fn status(&self, place: &Place) -> Result<StatusReport, HostError> {
        status_of(place, &self.status_text(place)?)
    }

    fn survey(&self, place: &Place) -> Result<Remains, HostError> {
        remains(place)
    }

    fn log_tail(&self, place: &Place, lines: usize) -> Result<Vec<String>, HostError> {
        let log = there(place.open().and_then(|directory| directory.file(names::OUTPUT)));
        let read = log.and_then(|log| log.map_or(Ok(Vec::new()), |log| tail(log, lines)));
        failed(place, format!("read {}", place.path(names::OUTPUT).display()), read)
    }

    fn hold(&self, place: &Place, holder: &Holder) -> Result<Option<Busy>, HostError> {
        let path = place.path(names::LOCK);
        let made = match place.layout {
            Layout::Own => private_directory(&place.directory),
            Layout::System { .. } => fs::create_dir_all(system::SETTINGS),
        };
        let taken = made.and_then(|()| self.holdings.take(&path, holder));
        failed(place, format!("take the lock {}", path.display()), taken)
    }

    fn touch(&self, place: &Place) -> Result<(), HostError> {
        let path = place.path(names::LOCK);
        let touched = self.holdings.touch(&path);
        match failed(place, format!("touch the lock {}", path.display()), touched)? {
            true => Ok(()),
            false => Err(HostError {
                node: place.node.clone(),
                what: "go on".to_owned(),
                reason: "another controller took its host over, on purpose or because this one \
                         was silent for too long"
                    .to_owned(),
                hint: "see what it does: paxos-ctl status; then do this again".to_owned(),
            }),
        }
    }

    fn release(&self, place: &Place) {
        self.holdings.release(&place.path(names::LOCK));
    }

    fn remove(&self, place: &Place) -> Result<Vec<PathBuf>, HostError> {
        self.release(place);
        let watcher = Watcher::of(place);
        if let Watcher::Systemd(systemd, cluster) = &watcher {
            failed_unit(place, "take its unit away", cluster, systemd.forget(cluster))?;
        }
        // A supervisor would start it again.
        let ended = place.identity().end_all(KILL_LIMIT).and_then(|gone| match gone {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        });
        failed(place, "end what still runs of it", ended)?;
        if let Ok(directory) = place.open() {
            forget_scratch(&directory, Duration::ZERO);
        }
        let removed = remove_known(place.open(), &names::ALL);
        let left = failed(place, format!("remove {}", place.directory.display()), removed)?;
        let Layout::System { cluster } = &place.layout else { return Ok(left) };
        // The settings last: they are what says that the cluster is still there.
        for name in [names::STARTED, names::LOCK, names::SETTINGS] {
            let removed = match fs::remove_file(place.path(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            failed(place, format!("remove {}", place.path(name).display()), removed)?;
        }
        let removed = system::remove_shared();
        let was_last = failed(place, "remove what no cluster uses any more", removed)?;
        if let (true, Watcher::Systemd(systemd, _)) = (was_last, &watcher) {
            failed_unit(place, "take its unit away", cluster, systemd.remove_template())?;
        }
        Ok(left)
    }
}

/// Starts the node in a session of its own, with a supervisor over it if it is to have one.
fn start_in_background(place: &Place) -> io::Result<u32> {
    let account = system::account_of(&place.layout)?;
    let output = place.open()?.owned_by(account).append(names::OUTPUT)?;
    let executable = match place.layout {
        Layout::Own => place.executable(),
        // Not by the link: another version is taken up when somebody restarts the node, and not
        // when its supervisor does.
        Layout::System { .. } => fs::canonicalize(place.executable())?,
    };
    let mut words: Vec<OsString> = vec![DAEMONISE.into(), place.path(names::PID).into()];
    words.push("--".into());
    if place.supervised {
        words.extend([executable.clone().into(), SUPERVISE.into()]);
    }
    words.push(executable.clone().into());
    words.extend(["node".into(), "--config".into()]);
    words.push(place.path(names::SETTINGS).into());
    let mut command = Command::new(&executable);
    command.args(words).current_dir(&place.directory);
    if let Some(account) = account {
        command.uid(account.user).gid(account.group);
    }
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // Until it has a session of its own, an interrupt meant for this program would reach it.
    command.process_group(0);
    // Settings in the operator's own environment are not the node's.
    let foreign = std::env::vars_os().map(|(name, _)| name);
    let ours = |name: &OsString| name.to_string_lossy().starts_with("PAXOS_");
    foreign.filter(ours).for_each(|name| {
        command.env_remove(name);
    });
    let mut child = command.spawn()?;
    let pid = child.id();
    // Takes note of its end, so that it does not stay behind as a zombie of ours.
    let _reaper = std::thread::spawn(move || child.wait());
    Ok(pid)
}

/// What a node said of itself.
///
/// # Errors
/// When it said something else.
pub(super) fn status_of(place: &Place, text: &str) -> Result<StatusReport, HostError> {
    serde_json::from_str(text).map_err(|error| HostError {
        node: place.node.clone(),
        what: "ask it how it is".to_owned(),
        reason: format!("it answered something else than a status: {error}"),
        hint: "see that the node and paxos-ctl are of one version".to_owned(),
    })
}

/// A directory that only its owner enters, with those above it that are missing.
fn private_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What is missing is none.
fn there<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn compare(there: &Path, wanted: &Path) -> io::Result<FileState> {
    let mut left = match File::open(there) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FileState::Absent),
        Err(error) => return Err(error),
    };
    let mut right = File::open(wanted)?;
    let length = left.metadata()?.len();
    if length != right.metadata()?.len() {
        return Ok(FileState::Differs);
    }
    let (mut a, mut b) = (vec![0; COPY_BYTES], vec![0; COPY_BYTES]);
    let mut remaining = length;
    while remaining > 0 {
        let piece = remaining.min(COPY_BYTES as u64) as usize;
        left.read_exact(&mut a[..piece])?;
        right.read_exact(&mut b[..piece])?;
        if a[..piece] != b[..piece] {
            return Ok(FileState::Differs);
        }
        remaining -= piece as u64;
    }
    Ok(FileState::Same)
}

fn tail(mut file: File, lines: usize) -> io::Result<Vec<String>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut last = VecDeque::new();
    for line in BufReader::new(file.take(TAIL_BYTES_MAX)).split(b'\n') {
        last.push_back(String::from_utf8_lossy(&line?).into_owned());
        if last.len() > lines {
            last.pop_front();
        }
    }
    Ok(last.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> Place {
        Place {
            node: "n1".to_owned(),
            directory: folder.join("a/b/n1"),
            listen: vec!["127.0.0.1:1".to_owned()],
            layout: Layout::Own,
            supervised: false,
            login: None,
        }
    }

    #[test]
    fn what_is_received_is_found_again_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let source = folder.path().join("program");
        fs::write(&source, vec![7; COPY_BYTES + 3]).unwrap();
        let files = ["config.yaml".to_owned(), "keys/bundle".to_owned()];
        let wanted = Wanted { executable: Some(&source), files: &files };
        assert_eq!(
            LocalHost::default().find(&place, &wanted).unwrap(),
            Found { files: vec![None, None], ..Found::default() }
        );
        LocalHost::default().receive(&place, "keys/bundle", 0o600, b"x").unwrap();
        LocalHost::default().receive_executable(&place, &source).unwrap();
        let public = LocalHost::default().ensure_node_key(&place, "n1").unwrap();
        assert_eq!(LocalHost::default().ensure_node_key(&place, "n1").unwrap(), public);
        let found = LocalHost::default().find(&place, &wanted).unwrap();
        assert!(found.directory && !found.log && !found.genesis);
        assert_eq!(found.executable, FileState::Same);
        assert_eq!(found.files, [None, Some(b"x".to_vec())]);
        assert_eq!(found.node_key.as_deref().map(str::trim), Some(public.trim()));
        let mode =
            |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("keys"), mode("paxos")), (0o700, 0o700, 0o755));
        assert_eq!((mode("keys/bundle"), mode("keys/node_key")), (0o600, 0o600));
        fs::remove_file(place.path("keys/node_key")).unwrap();
        let lost = LocalHost::default().find(&place, &wanted).unwrap();
        assert_eq!(lost.node_key, None, "its public half alone is no key");
        assert_ne!(LocalHost::default().ensure_node_key(&place, "n1").unwrap(), public);
        fs::write(&source, vec![8; COPY_BYTES + 3]).unwrap();
        assert_eq!(
            LocalHost::default().find(&place, &wanted).unwrap().executable,
            FileState::Differs
        );
    }

    #[test]
    fn only_what_a_node_makes_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        LocalHost::default().receive(&place, "keys/bundle", 0o600, b"x").unwrap();
        LocalHost::default().receive(&place, "config.yaml", 0o600, b"x").unwrap();
        fs::create_dir(place.path("log")).unwrap();
        fs::write(place.path("log/1"), b"x").unwrap();
        fs::write(place.path(".paxos.new"), b"x").unwrap();
        fs::write(place.path("thesis.tex"), b"x").unwrap();
        assert_eq!(LocalHost::default().remove(&place).unwrap(), [place.path("thesis.tex")]);
        assert_eq!(fs::read_dir(&place.directory).unwrap().count(), 1);
        fs::remove_file(place.path("thesis.tex")).unwrap();
        assert!(LocalHost::default().remove(&place).unwrap().is_empty());
        assert!(!place.directory.exists());
        assert!(LocalHost::default().remove(&place).unwrap().is_empty(), "twice is fine");
    }

    #[test]
    fn the_last_lines_are_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        fs::write(&path, "1\n2\n3\n4\n").unwrap();
        let tail = |lines| tail(File::open(&path).unwrap(), lines).unwrap();
        assert_eq!(tail(3), ["2", "3", "4"]);
        assert_eq!(tail(9).len(), 4);
    }

    /// What comes of something that must not hang.
    fn soon<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, came) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || sender.send(act()));
        came.recv_timeout(Duration::from_secs(10)).expect("it hangs")
    }

    /// All that is looked at on a host, or done there without a process.
    fn looks_and_works(place: &Place) -> Vec<(&'static str, Result<String, HostError>)> {
        let host = LocalHost::default();
        let files = ["keys/bundle".to_owned()];
        let wanted = Wanted { executable: None, files: &files };
        let (lines, key) = (host.log_tail(place, 9), host.ensure_node_key(place, "n1"));
        // Elsewhere it would come to a process, and fail only then.
        let log = fs::symlink_metadata(place.path(names::OUTPUT));
        let start = match log.is_ok_and(|log| !log.is_file()) {
            true => host.start(place).map(|pid| pid.to_string()),
            false => Ok(String::new()),
        };
        vec![
            ("look", host.find(place, &wanted).map(|found| format!("{found:?}"))),
            ("logs", lines.map(|lines| lines.concat())),
            ("key", key),
            ("next key", host.next_node_key(place, "n1")),
            ("settle", host.settle_node_key(place).map(|()| String::new())),
            (
                "dial",
                Ok(format!("{:?}", crate::controller::check::trial_login::dial_all(place, &[]))),
            ),
            ("start", start),
        ]
    }

    const PLANTED: [&str; 7] = [
        "paxos.pid",
        "paxos.log",
        "keys/bundle",
        "keys/node_key",
        "keys/node_key.pub",
        "keys/node_key.new.pub",
        "keys/host-cert.pub",
    ];

    #[test]
    fn a_pipe_in_a_nodes_directory_keeps_nobody_waiting() {
        for name in PLANTED {
            let folder = tempfile::tempdir().unwrap();
            let place = place(folder.path());
            fs::create_dir_all(place.path("keys")).unwrap();
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, place.path(name), fifo, mode, 0).unwrap();
            soon(move || looks_and_works(&place));
        }
    }

    #[test]
    fn a_link_in_a_nodes_directory_leads_nowhere() {
        for name in PLANTED {
            let folder = tempfile::tempdir().unwrap();
            let place = place(folder.path());
            fs::create_dir_all(place.path("keys")).unwrap();
            let secret = folder.path().join("secret");
            fs::write(&secret, "root:x:0:0\n").unwrap();
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
            std::os::unix::fs::symlink(&secret, place.path(name)).unwrap();
            for (what, came) in looks_and_works(&place) {
                let told = came.unwrap_or_else(|error| error.to_string());
                // The debug form of bytes, and of text.
                for form in ["root:x", "114, 111, 111, 116"] {
                    assert!(!told.contains(form), "{what} reads {name}: {told}");
                }
            }
            assert_eq!(fs::read_to_string(&secret).unwrap(), "root:x:0:0\n", "{name}");
            let mode = fs::metadata(&secret).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o640, "{name}");
        }
    }

    #[test]
    fn a_directory_of_keys_that_is_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::create_dir_all(&place.directory).unwrap();
        std::os::unix::fs::symlink(&elsewhere, place.path("keys")).unwrap();
        let host = LocalHost::default();
        let received = host.receive(&place, "keys/bundle", 0o600, b"x");
        let error = received.unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        looks_and_works(&place);
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
