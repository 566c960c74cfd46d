//! Which process is a node of ours, and signals that can reach no other.
//!
//! A pid file may be old, and its pid somebody else's by now. So a process counts as a node only if
//! it runs the executable in the node's own directory with the node's own settings, and a signal
//! goes through a pidfd that was opened before that was checked: the process that gets it is the
//! one that was looked at.

use super::local::SUPERVISED;
use super::names;
use super::system;
use crate::controller::wait::until;
use crate::transport::confined;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often a process that was told to stop is looked at. Nothing waits for less than this to
/// matter.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a process may show no words at most. The kernel shows the new executable of a process
/// that becomes another program a moment before its words; on a busy machine the moment may last.
const EXEC_LIMIT: Duration = Duration::from_secs(1);

/// How often such a process is looked at.
const EXEC_LOOK_EVERY: Duration = Duration::from_millis(1);

/// The kernel adds this to the name of an executable whose file was replaced.
const DELETED: &[u8] = b" (deleted)";

/// What tells a node's process from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node's executable, or a link to it.
    pub executable: PathBuf,
    /// Whether another version beside it counts as well: the one that runs while the link already
    /// leads to the next.
    pub any_version: bool,
    /// The settings that it was started with.
    pub settings: PathBuf,
    /// Where its pid is noted.
    pub pid_file: PathBuf,
}

impl Identity {
    /// The node's process, if it runs: the noted one, else one that is found by looking at all, for
    /// a pid file may be lost while its process lives.
    pub fn find(&self) -> Option<u32> {
        // Its directory is the node's, which may have put anything there.
        let noted = confined::read(&self.pid_file).ok();
        let noted = noted.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
        noted
            .filter(|pid| self.is_process(*pid))
            .or_else(|| pids()?.find(|pid| self.is_process(*pid)))
    }

    /// As [`Identity::find`], but the node itself where a supervisor stands over it, which shows
    /// the node's words as well and has its pid noted.
    pub fn find_beneath(&self) -> Option<u32> {
        let mut beneath = pids()?.filter(|pid| self.is_process(*pid) && is_supervised(*pid));
        beneath.next().or_else(|| self.find())
    }

    /// Ends every process that is the node, whatever is noted, and first those that would start it
    /// again. Says whether all are gone in time.
    ///
    /// # Errors
    /// When one may not be signalled.
    pub fn end_all(&self, limit: Duration) -> io::Result<bool> {
        let look = || -> io::Result<Option<()>> {
            let mut all: Vec<u32> = pids().into_iter().flatten().collect();
            all.retain(|pid| self.is_process(*pid));
            all.sort_by_key(|pid| is_supervised(*pid));
            for pid in &all {
                self.signal(*pid, Signal::KILL)?;
            }
            Ok(all.is_empty().then_some(()))
        };
        Ok(until(limit, LOOK_EVERY, look)?.is_some())
    }

    /// Whether the process of this pid is the node now. A zombie is not: it has no executable any
    /// more.
    pub fn is_process(&self, pid: u32) -> bool {
        let Ok(link) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
        let bytes = link.into_os_string().into_vec();
        let path = bytes.strip_suffix(DELETED).unwrap_or(&bytes);
        let ours = fs::canonicalize(&self.executable).unwrap_or_else(|_| self.executable.clone());
        let version = self.any_version && system::is_version(Path::new(OsStr::from_bytes(path)));
        let names = [ours.as_os_str().as_bytes(), self.executable.as_os_str().as_bytes()];
        if !version && !names.contains(&path) {
            return false;
        }
        let Some(words) = words_of(pid) else { return false };
        words.split(|byte| *byte == 0).any(|word| word == self.settings.as_os_str().as_bytes())
    }

    /// Sends a signal to the process of this pid if it is the node. Says whether it was.
    ///
    /// # Errors
    /// When it is the node and may not be signalled.
    pub fn signal(&self, pid: u32, signal: Signal) -> io::Result<bool> {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let process = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !self.is_process(pid) {
            return Ok(false);
        }
        match pidfd_send_signal(&process, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process of this pid is not the node any more. Says whether that came in
    /// time.
    pub fn wait_gone(&self, pid: u32, limit: Duration) -> bool {
        let gone = || Ok::<_, Infallible>((!self.is_process(pid)).then_some(()));
        matches!(until(limit, LOOK_EVERY, gone), Ok(Some(())))
    }
}

/// Whether somebody stands over a process of a node's who starts it again.
fn is_supervised(pid: u32) -> bool {
    let words = words_of(pid).unwrap_or_default();
    let mut words = words.strip_suffix(&[0]).unwrap_or(&words).rsplit(|byte| *byte == 0);
    words.next() == Some(SUPERVISED.as_bytes())
}

/// Every process there is.
fn pids() -> Option<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc").ok()?;
    Some(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The words that a process was started with, once it shows any; none if it ended.
fn words_of(pid: u32) -> Option<Vec<u8>> {
    let look = || -> io::Result<Option<Vec<u8>>> {
        let words = fs::read(format!("/proc/{pid}/cmdline"))?;
        // What ended shows no words either, for ever, but no executable as well.
        fs::read_link(format!("/proc/{pid}/exe"))?;
        Ok((!words.is_empty()).then_some(words))
    };
    until(EXEC_LIMIT, EXEC_LOOK_EVERY, look).ok().flatten()
}

/// Whether a process does something of its own when it gets SIGHUP. One that does not would be
/// ended by it: an older version, or one that begins just now.
pub fn catches_hangup(pid: u32) -> bool {
    hangup_is_in(pid, "SigCgt:")
}

/// Whether this process was started by somebody who wants it to outlive a SIGHUP, as `nohup` does.
pub fn ignores_hangup() -> bool {
    hangup_is_in(std::process::id(), "SigIgn:")
}

/// A mask of signals of `/proc/PID/status`, see proc(5).
fn hangup_is_in(pid: u32, mask: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let signals = status.lines().find_map(|line| line.strip_prefix(mask));
    let signals = signals.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signals count from 1, and so do the bits.
    let bit = 1 << (Signal::HUP.as_raw() - 1);
    signals.is_some_and(|mask| mask & bit != 0)
}

/// Who listens on a TCP address, as far as we may see: pid and name.
pub fn listener(address: SocketAddr) -> Option<(u32, String)> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().filter_map(|line| listening_inode(line, address.port())));
    }
    let wanted: Vec<PathBuf> =
        inodes.iter().map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect();
    for pid in pids()? {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let holds = |link: io::Result<PathBuf>| link.is_ok_and(|link| wanted.contains(&link));
        if files.flatten().any(|file| holds(fs::read_link(file.path()))) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// The inode of a socket that listens on the port, from a line of the kernel's table.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let same = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTEN;
    if same { fields.get(9)?.parse().ok() } else { None }
}

/// Turns this process into `command`, in a session of its own, so that neither a closed terminal
/// nor an interrupt meant for the controller reaches it. Its pid, which stays the same, is noted
/// first. Returns only if something failed.
pub fn become_daemon(pid_file: &Path, command: &[std::ffi::OsString]) -> io::Error {
    let Some((program, words)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command was given");
    };
    let mut session = rustix::process::setsid();
    // The leader of a group gets none. For a moment it is a member of its parent's instead.
    if session == Err(Errno::PERM) && join_parent().is_ok() {
        session = rustix::process::setsid();
    }
    if let Err(error) = session
        && error != Errno::PERM
    {
        return error.into();
    }
    match note_pid(pid_file) {
        Ok(()) => Command::new(program).args(words).exec(),
        Err(error) => error,
    }
}

fn join_parent() -> rustix::io::Result<()> {
    let group = rustix::process::getpgid(rustix::process::getppid())?;
    rustix::process::setpgid(None, Some(group))
}

/// Turns this process, which systemd started as the node's account, into the node with these
/// settings. Its output goes to the log in its directory, opened with no more rights than the
/// node's; its pid is noted first. Returns only if something failed.
pub fn become_service(directory: &Path, settings: &Path) -> io::Error {
    let attempt = || -> io::Result<io::Error> {
        // The very file that systemd started, whatever a link says by now.
        let program = std::env::current_exe()?;
        let log = directory.join(names::OUTPUT);
        let output = OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
        let output = output.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open {}: {error}", log.display()))
        })?;
        note_pid(&directory.join(names::PID))?;
        let mut command = Command::new(program);
        command.args(["node", "--config"]).arg(settings).current_dir(directory);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(command.exec())
    };
    attempt().unwrap_or_else(|error| error)
}

fn note_pid(pid_file: &Path) -> io::Result<()> {
    let pid = format!("{}\n", std::process::id());
    let noted = crate::transport::authority::write_file(pid_file, pid.as_bytes(), 0o600);
    noted.map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Child;

    /// Copies a program, by another process: one that another test forks just then would hold the
    /// copy open for writing until it executes, and what is open for writing cannot be executed.
    fn copy(program: &Path, to: &Path) {
        assert!(Command::new("cp").arg(program).arg(to).status().unwrap().success());
    }

    fn copy_of_sleep(to: &Path) {
        copy(Path::new("/bin/sleep"), to);
    }

    /// A directory with a copy of `sleep` that stands for a node's executable.
    fn node() -> (tempfile::TempDir, Identity) {
        let folder = tempfile::tempdir().unwrap();
        let executable = folder.path().join("paxos");
        copy_of_sleep(&executable);
        // sleep takes several numbers, so this one can stand where the settings' path does.
        let settings = PathBuf::from("600");
        let pid_file = folder.path().join("paxos.pid");
        (folder, Identity { executable, any_version: false, settings, pid_file })
    }

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn start(program: &Path, word: &str) -> Running {
        let mut command = Command::new(program);
        Running(command.arg(word).stdin(Stdio::null()).spawn().unwrap())
    }

    #[test]
    fn only_our_executable_with_our_settings_is_ours() {
        let (_folder, identity) = node();
        let ours = start(&identity.executable, "600");
        let other_settings = start(&identity.executable, "601");
        let other_program = start(Path::new("/bin/sleep"), "600");
        assert!(identity.is_process(ours.0.id()));
        assert!(!identity.is_process(other_settings.0.id()));
        assert!(!identity.is_process(other_program.0.id()));
        for stranger in [other_settings.0.id(), other_program.0.id(), 1, u32::MAX] {
            fs::write(&identity.pid_file, stranger.to_string()).unwrap();
            assert_eq!(identity.find(), Some(ours.0.id()), "an old pid file is not believed");
            assert!(!identity.signal(stranger, Signal::KILL).unwrap());
        }
        fs::remove_file(&identity.pid_file).unwrap();
        assert_eq!(identity.find(), Some(ours.0.id()), "a lost pid file is no loss");
        assert!(identity.is_process(ours.0.id()), "nobody was signalled");
    }

    /// As deploy does: started, and looked at the next moment.
    #[test]
    fn a_process_that_becomes_the_node_just_now_is_the_node() {
        let (_folder, identity) = node();
        for _ in 0..500 {
            let ours = start(&identity.executable, "600");
            assert!(identity.is_process(ours.0.id()));
        }
    }

    #[test]
    fn a_signal_reaches_the_node_and_its_end_is_seen() {
        let (_folder, identity) = node();
        let mut ours = start(&identity.executable, "600");
        let pid = ours.0.id();
        fs::write(&identity.pid_file, pid.to_string()).unwrap();
        assert!(!identity.wait_gone(pid, Duration::ZERO));
        assert!(identity.signal(pid, Signal::TERM).unwrap());
        assert!(identity.wait_gone(pid, Duration::from_secs(10)), "a zombie counts as gone");
        assert_eq!(identity.find(), None);
        ours.0.wait().unwrap();
        assert!(!identity.signal(pid, Signal::TERM).unwrap());
    }

    #[test]
    fn a_node_whose_executable_was_replaced_is_still_itself() {
        let (folder, identity) = node();
        let ours = start(&identity.executable, "600");
        let newer = folder.path().join("new");
        copy_of_sleep(&newer);
        fs::rename(&newer, &identity.executable).unwrap();
        assert!(identity.is_process(ours.0.id()));
        fs::remove_file(&identity.executable).unwrap();
        assert_eq!(identity.find(), Some(ours.0.id()));
    }

    #[test]
    fn a_node_is_told_from_its_supervisor() {
        let (folder, identity) = node();
        // A shell takes whatever words it is given.
        copy(Path::new("/bin/sh"), &identity.executable);
        let start = |last: &str| {
            let mut command = Command::new(&identity.executable);
            // Waits until its standard input ends, which is when the test does.
            let script = command.args(["-c", "read line", "sh", "600", last]);
            Running(script.stdin(Stdio::piped()).spawn().unwrap())
        };
        let supervisor = start("node");
        fs::write(folder.path().join("paxos.pid"), supervisor.0.id().to_string()).unwrap();
        assert_eq!(identity.find_beneath(), Some(supervisor.0.id()), "nobody else is there");
        let node = start(SUPERVISED);
        assert_eq!(identity.find(), Some(supervisor.0.id()));
        assert_eq!(identity.find_beneath(), Some(node.0.id()));
    }

    #[test]
    fn who_catches_a_hangup_is_told_from_whom_it_would_end() {
        let sleeps = start(Path::new("/bin/sleep"), "600");
        assert!(!catches_hangup(sleeps.0.id()));
        // A shell that was begun with the signal ignored, as under nohup, cannot trap it.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", "/bin/sh", "-c", "trap : HUP; echo ready; read end"]);
        command.stdin(Stdio::piped());
        let mut traps = Running(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut ready = [0; 6];
        let mut stdout = traps.0.stdout.take().unwrap();
        io::Read::read_exact(&mut stdout, &mut ready).unwrap();
        assert!(catches_hangup(traps.0.id()));
        assert!(!catches_hangup(u32::MAX));
    }

    #[test]
    fn the_holder_of_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (pid, _) = listener(address).expect("we hold it");
        assert_eq!(pid, std::process::id());
        drop(socket);
        assert_eq!(listener(address), None);
    }
}
