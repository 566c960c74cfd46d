//! Keeps two controllers apart on a host: a file that says who is at work on the cluster there.
//!
//! Whoever holds it touches it every [`TOUCH_EVERY`]; one that was not touched for [`STALE_AFTER`]
//! is nobody's, and neither is one whose process, on this host, has ended. The file is read and
//! written under the kernel's lock on it, so of two who come at once one finds the other; it stays
//! where it is and is emptied, because a file that is removed under somebody's lock is another file
//! to the next.
//!
//! Whoever was held up for so long that another took the file over must notice before it changes
//! anything: [`HostLock::touch`] says whether it is still ours. Between that look and the change
//! there is a moment in which it may be lost; what comes of it is two controllers that do the same
//! steps, each of which may be done twice.
//!
//! That holds as well for one whose lock is taken over on purpose, because it hangs: its process
//! may live, and touch its locks for as long as it likes.
//!
//! A run that was passed by another never gets the lock again: what it goes by is from before
//! whoever was there meanwhile. The file tells who had it last, also when nobody has it, and
//! whoever had it before and comes again says so.
//!
//! The cost: a controller that vanished with its machine keeps the others out for half a minute.

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// How often a lock is touched.
pub const TOUCH_EVERY: Duration = Duration::from_secs(10);

/// Two touches may be late or lost.
pub const STALE_AFTER: Duration = Duration::from_secs(30);

/// A holder's line is shorter; what is longer is none of ours.
const LINE_BYTES_MAX: u64 = 4096;

/// A link or a pipe under the file's name is an error, and not followed.
const PLAIN_FILE: i32 = (OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()) as i32;

/// Who is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// In words for people: who, from where, and what for.
    pub who: String,
    /// The same for all hosts that one run of a controller works on, and for nothing else.
    pub run: String,
    /// Whether it takes the lock from whoever has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_over: bool,
    /// Whether it had it before, and lost its way to the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub comes_again: bool,
}

/// Somebody else who is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy {
    /// As they wrote it.
    pub who: String,
    /// Seconds since they touched it.
    pub touched_seconds: u64,
    /// Whether they took it from the very run that asks, which does not get it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub took_it: bool,
}

/// What lies in the file.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    /// Of whoever holds it.
    #[serde(flatten)]
    line: Option<Line>,
    /// Whoever held it last, when nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Holder>,
}

impl Content {
    fn last(&self) -> Option<&Holder> {
        self.line.as_ref().map(|line| &line.holder).or(self.last.as_ref())
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    holder: Holder,
    /// Tells two holdings of one run apart: the one that is let go late must not let the other go.
    token: u64,
    /// The process that touches it, if it can be told from others.
    process: Option<Process>,
}

/// A process of this host, for ever: its number may be another's one day, and is no number at all
/// where other processes are seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: u32,
    /// When it began, in ticks since the host did.
    began: u64,
    /// Which processes it sees.
    namespace: PathBuf,
    /// Which run of the host.
    boot: String,
}

impl Process {
    fn own() -> Option<Process> {
        let pid = std::process::id();
        let (namespace, boot) = (namespace()?, boot()?);
        Some(Process { pid, began: began(pid)?, namespace, boot })
    }

    /// Whether it has surely ended.
    fn is_gone(&self) -> bool {
        let (Some(namespace), Some(boot)) = (namespace(), boot()) else { return false };
        match (self.boot == boot, self.namespace == namespace) {
            (false, _) => true,
            (true, true) => began(self.pid) != Some(self.began),
            (true, false) => false,
        }
    }
}

fn namespace() -> Option<PathBuf> {
    fs::read_link("/proc/self/ns/pid").ok()
}

fn boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat`, see proc(5); the second may hold blanks and brackets.
fn began(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    // A zombie does nothing any more.
    let mut fields = rest.split_ascii_whitespace();
    fields.next().filter(|state| *state != "Z")?;
    fields.nth(22 - 4)?.parse().ok()
}

/// The locks that one program holds. What is let go of, or removed with the directory it lies in,
/// is not among them any more.
#[derive(Debug, Default)]
pub struct Holdings(Mutex<BTreeMap<PathBuf, HostLock>>);

impl Holdings {
    /// Takes a lock as [`HostLock::take`] does, and keeps it.
    ///
    /// # Errors
    /// As there.
    pub fn take(&self, path: &Path, holder: &Holder) -> io::Result<Option<Busy>> {
        let again = self.held().get(path).is_some_and(|lock| lock.run == holder.run);
        let holder = Holder { comes_again: holder.comes_again || again, ..holder.clone() };
        match HostLock::take(path, &holder, rand::random())? {
            Err(busy) => Ok(Some(busy)),
            Ok(lock) => {
                // One that was held before is let go of, and is ours no more.
                self.held().insert(path.to_owned(), lock);
                Ok(None)
            }
        }
    }

    /// Touches a lock, and says whether it is still ours; true where none was taken.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn touch(&self, path: &Path) -> io::Result<bool> {
        self.held().get(path).map_or(Ok(true), HostLock::touch)
    }

    /// Touches all of them.
    pub fn touch_all(&self) {
        for lock in self.held().values() {
            // Whoever lost it notices when they change something.
            let _lost = lock.touch();
        }
    }

    /// Lets go of a lock.
    pub fn release(&self, path: &Path) {
        self.held().remove(path);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<PathBuf, HostLock>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// A lock that is held. Letting go of it is [`HostLock::release`], or its drop.
#[derive(Debug)]
pub struct HostLock {
    path: PathBuf,
    run: String,
    token: u64,
}

impl HostLock {
    /// Takes the lock, if nobody has it, or nobody touched it lately, or it is this run's own; or
    /// from whoever has it, where the holder takes over.
    ///
    /// # Errors
    /// When the file cannot be made or read.
    pub fn take(path: &Path, holder: &Holder, token: u64) -> io::Result<Result<HostLock, Busy>> {
        let mut file = locked(path, true)?;
        let content = read(&mut file);
        let passed_by = content.last().filter(|last| last.run != holder.run);
        if let Some(last) = passed_by.filter(|_| holder.comes_again) {
            let (who, touched_seconds) = (last.who.clone(), touched(&file)?.as_secs());
            return Ok(Err(Busy { who, touched_seconds, took_it: true }));
        }
        if let Some(line) = content.line
            && line.holder.run != holder.run
            && !holder.takes_over
            && !line.process.is_some_and(|process| process.is_gone())
            && let age = touched(&file)?
            && age < STALE_AFTER
        {
            let (who, touched_seconds) = (line.holder.who, age.as_secs());
            return Ok(Err(Busy { who, touched_seconds, took_it: false }));
        }
        // These are of the moment, and none of the next one's business.
        let holder = Holder { takes_over: false, comes_again: false, ..holder.clone() };
        let run = holder.run.clone();
        let line = Line { holder, token, process: Process::own() };
        let content = Content { line: Some(line), last: None };
        file.set_permissions(PermissionsExt::from_mode(0o600))?;
        write(&mut file, &content)?;
        Ok(Ok(HostLock { path: path.to_owned(), run, token }))
    }

    /// Says that its holder is still there, and whether it is still the holder.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn touch(&self) -> io::Result<bool> {
        let mut file = locked(&self.path, false)?;
        let ours = read(&mut file).line.is_some_and(|line| line.token == self.token);
        if ours {
            file.set_modified(SystemTime::now())?;
        }
        Ok(ours)
    }

    /// Lets go of it, unless another has taken it over.
    pub fn release(self) {}
}

impl Drop for HostLock {
    fn drop(&mut self) {
        // Where it cannot be let go of it grows stale.
        let _stale_soon =
            locked(&self.path, false).and_then(|mut file| match read(&mut file).line {
                Some(line) if line.token == self.token => {
                    write(&mut file, &Content { line: None, last: Some(line.holder) })
                }
                _ => Ok(()),
            });
    }
}

fn locked(path: &Path, create: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(PLAIN_FILE)
        .open(path)?;
    // Others hold it for as long as it takes to read a line.
    file.lock()?;
    Ok(file)
}

/// Nobody holds a file that is empty or was cut short.
fn read(file: &mut File) -> Content {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(LINE_BYTES_MAX).read_to_string(&mut text));
    read.ok().and_then(|_bytes| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn write(file: &mut File, content: &Content) -> io::Result<()> {
    let mut text = serde_json::to_vec(content).map_err(io::Error::other)?;
    text.push(b'\n');
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)
}

/// How long ago it was touched. A time to come, from before the clock was set back, counts like one
/// that is past.
fn touched(file: &File) -> io::Result<Duration> {
    let touched = file.metadata()?.modified()?;
    Ok(match SystemTime::now().duration_since(touched) {
        Ok(age) => age,
        Err(ahead) => ahead.duration(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(run: &str) -> Holder {
        Holder {
            who: format!("ana ({run})"),
            run: run.to_owned(),
            takes_over: false,
            comes_again: false,
        }
    }

    fn take(path: &Path, run: &str, token: u64) -> Result<HostLock, Busy> {
        HostLock::take(path, &holder(run), token).unwrap()
    }

    fn age(path: &Path, seconds: u64) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = take(&path, "a", 1).unwrap();
        let busy = take(&path, "b", 2).unwrap_err();
        assert_eq!((busy.who.as_str(), busy.touched_seconds), ("ana (a)", 0));
        assert!(first.touch().unwrap());
        first.release();
        take(&path, "b", 2).unwrap();
    }

    #[test]
    fn one_that_is_not_touched_any_more_is_taken_over_and_its_holder_notices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = take(&path, "a", 1).unwrap();
        age(&path, STALE_AFTER.as_secs() - 5);
        assert!(take(&path, "b", 2).is_err(), "it may only be late");
        age(&path, STALE_AFTER.as_secs() + 1);
        let second = take(&path, "b", 2).unwrap();
        assert!(!first.touch().unwrap());
        first.release();
        assert!(second.touch().unwrap(), "the first lets go of what it had, and of no more");
    }

    #[test]
    fn one_that_hangs_is_taken_over_on_purpose_and_by_nobody_after_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let hangs = take(&path, "a", 1).unwrap();
        let holder = Holder { takes_over: true, ..holder("b") };
        let second = HostLock::take(&path, &holder, 2).unwrap().unwrap();
        assert!(!hangs.touch().unwrap());
        assert!(take(&path, "c", 3).is_err());
        assert!(!fs::read_to_string(&path).unwrap().contains("takes_over"));
        second.release();
        take(&path, "c", 3).unwrap().release();
    }

    #[test]
    fn a_run_that_was_passed_by_another_does_not_get_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let again = |run: &str| Holder { comes_again: true, ..holder(run) };
        let come = |run: &str| HostLock::take(&path, &again(run), 9).unwrap();
        // Whether its process ended, or it let go of the host, or hung.
        take(&path, "a", 1).unwrap().release();
        come("a").unwrap().release();
        let other = take(&path, "b", 2).unwrap();
        let busy = come("a").unwrap_err();
        assert_eq!((busy.who.as_str(), busy.took_it), ("ana (b)", true));
        other.release();
        let busy = come("a").unwrap_err();
        assert_eq!((busy.who.as_str(), busy.took_it), ("ana (b)", true));
        assert!(fs::read_to_string(&path).unwrap().find("comes_again").is_none());
        // Another run of the same controller begins with a look at the hosts.
        take(&path, "c", 3).unwrap();
        fs::remove_file(&path).unwrap();
        come("a").unwrap();
    }

    #[test]
    fn what_one_program_held_it_comes_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holdings = Holdings::default();
        assert_eq!(holdings.take(&path, &holder("a")).unwrap(), None);
        assert_eq!(holdings.take(&path, &holder("a")).unwrap(), None);
        age(&path, STALE_AFTER.as_secs() + 1);
        take(&path, "b", 2).unwrap().release();
        assert!(holdings.take(&path, &holder("a")).unwrap().is_some_and(|busy| busy.took_it));
    }

    #[test]
    fn a_run_that_connects_again_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let before = take(&path, "a", 1).unwrap();
        let after = take(&path, "a", 2).unwrap();
        before.release();
        assert!(after.touch().unwrap());
        assert!(take(&path, "b", 3).is_err());
    }

    #[test]
    fn what_is_no_line_of_ours_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        for text in ["", "{\"who\":", "[]", "{}", "{\"last\":null}"] {
            fs::write(&path, text).unwrap();
            take(&path, "a", 1).unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(HostLock::take(&link, &holder("a"), 1).is_err(), "a link leads somewhere");
    }

    #[test]
    fn one_whose_process_has_ended_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let _held = take(&path, "a", 1).unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let mut content: Content = serde_json::from_str(&text).unwrap();
        let line = content.line.as_mut().unwrap();
        let process = Process {
            pid: child.id(),
            began: began(child.id()).unwrap(),
            ..Process::own().unwrap()
        };
        assert_ne!(Some(&process), line.process.as_ref());
        line.process = Some(process.clone());
        fs::write(&path, serde_json::to_vec(&content).unwrap()).unwrap();
        assert!(take(&path, "b", 2).is_err(), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
        take(&path, "b", 2).unwrap();
        let elsewhere = Process { namespace: "pid:[1]".into(), ..process.clone() };
        assert!(!elsewhere.is_gone(), "nobody here can tell");
        assert!(Process { boot: "before".to_owned(), ..elsewhere }.is_gone());
        assert!(Process { began: 1, pid: std::process::id(), ..process }.is_gone());
    }

    #[test]
    fn a_touch_makes_it_fresh() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = take(&path, "a", 1).unwrap();
        age(&path, STALE_AFTER.as_secs() - 1);
        assert!(first.touch().unwrap());
        let busy = take(&path, "b", 2).unwrap_err();
        assert!(busy.touched_seconds < 5, "{busy:?}");
    }
}
