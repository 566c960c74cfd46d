//! `paxos logs`: the node's own log file, or its protocol's events; their end, and what comes then.
//!
//! What is followed is looked at a few times a second and goes out as fast as its reader takes it.
//! Nothing is kept for a slow reader: lines wait in the file, events in the recorder's ring, and
//! who is slower than the ring is told how many were lost.

use super::access::Access;
use super::backend::Backend;
use super::execute::Executor;
use super::protocol::{Show, Tape};
use super::{complain, send};
use crate::node::recorder::Recorded;
use crate::transport::session::{Gone, Output};
use crate::wire::answer::Answer;
use crate::wire::failure::{Code, Failure};
use crate::wire::logs::LogQuery;
use crate::wire::request::Format;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most bytes read from the end of the file, however many lines were asked for.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Most bytes of a file that is followed read at once, and so the longest line shown whole.
const FOLLOW_BYTES_MAX: u64 = 256 << 10;

/// How often somebody who follows sees what is new: at once, to a person.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// A node that does not show its recorder for so long, to somebody who follows, is stuck.
const FOLLOW_WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes of lines that are sent at once.
const OUTPUT_BYTES: usize = 64 << 10;

/// Shows what was asked for, line by line; ends only with its client if it is to follow.
pub(super) async fn serve<B: Backend>(
    executor: &Executor<B>,
    access: &Access,
    query: &LogQuery,
    format: Format,
    deadline: Instant,
    output: &Output,
) -> Result<Result<(), Failure>, Gone> {
    if let Err(failure) = executor.may_read_logs(access, query) {
        return Ok(Err(failure));
    }
    match query.protocol {
        true => serve_events(executor.backend(), query, format, deadline, output).await,
        false => serve_file(executor.log_file(), query, format, output).await,
    }
}

async fn serve_events<B: Backend>(
    backend: &B,
    query: &LogQuery,
    format: Format,
    deadline: Instant,
    output: &Output,
) -> Result<Result<(), Failure>, Gone> {
    let show = Show::new(format, backend.status());
    let mut tape = Tape::new(backend);
    let wanted = |recorded: &(u64, Recorded)| show.wants(query, recorded);
    let last = match tape.last(query.lines, wanted, deadline).await {
        Ok(last) => last,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut lines = Lines::new(output);
    for recorded in last {
        lines.add(&show.line(&recorded)).await?;
    }
    lines.flush().await?;
    if !query.follow {
        return Ok(Ok(()));
    }
    loop {
        let stretch = match tape.read(Instant::now() + FOLLOW_WAIT_MAX).await {
            Ok(stretch) => stretch,
            Err(failure) => return Ok(Err(failure)),
        };
        if stretch.lost > 0 {
            let text = format!("paxos: {} events were lost to this slow reader\n", stretch.lost);
            complain(output, text.into()).await?;
        }
        // Members may have come since.
        let show = Show::new(format, backend.status());
        for recorded in stretch.events.iter().filter(|recorded| show.wants(query, recorded)) {
            lines.add(&show.line(recorded)).await?;
        }
        lines.flush().await?;
        if !stretch.has_more() {
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

async fn serve_file(
    file: LogFile,
    query: &LogQuery,
    format: Format,
    output: &Output,
) -> Result<Result<(), Failure>, Gone> {
    let (last, mut place) = match file.last(query).await {
        Ok(last) => last,
        Err(failure) => return Ok(Err(failure)),
    };
    if !query.follow {
        send(output, Answer::Lines(last).render(format)).await?;
        return Ok(Ok(()));
    }
    let shown = |line: &str| match format {
        Format::Table => format!("{line}\n"),
        Format::Json => format!("{}\n", serde_json::json!({ "line": line })),
    };
    let mut lines = Lines::new(output);
    for line in &last {
        lines.add(&shown(line)).await?;
    }
    lines.flush().await?;
    loop {
        let (new, next) = match file.new_lines(place).await {
            Ok(new) => new,
            Err(failure) => return Ok(Err(failure)),
        };
        for line in new.iter().filter(|line| query.wants(line)) {
            lines.add(&shown(line)).await?;
        }
        lines.flush().await?;
        if next == place {
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
        place = next;
    }
}

/// Lines on their way out, several in one piece.
struct Lines<'a> {
    output: &'a Output,
    waiting: Vec<u8>,
}

impl Lines<'_> {
    fn new(output: &Output) -> Lines<'_> {
        Lines { output, waiting: Vec::new() }
    }

    async fn add(&mut self, line: &str) -> Result<(), Gone> {
        self.waiting.extend_from_slice(line.as_bytes());
        match self.waiting.len() >= OUTPUT_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        match self.waiting.is_empty() {
            true => Ok(()),
            false => send(self.output, std::mem::take(&mut self.waiting).into()).await,
        }
    }
}

/// How far a log file was read: which file, and up to which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    file: u64,
    offset: u64,
}

/// The node's log file, which somebody else writes, and may put aside for a new one.
pub(super) struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> LogFile {
        LogFile { path }
    }

    /// The last lines that are wanted, and where to go on. A line that is still being written shows
    /// only where nothing follows.
    pub(super) async fn last(&self, query: &LogQuery) -> Result<(Vec<String>, Place), Failure> {
        let (path, query) = (self.path.clone(), query.clone());
        blocking(move || tail(&path, &query)).await
    }

    /// Whole lines behind that place, and the place behind them.
    async fn new_lines(&self, place: Place) -> Result<(Vec<String>, Place), Failure> {
        let path = self.path.clone();
        blocking(move || read_on(&path, place).map_err(|error| unreadable(&path, &error))).await
    }
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(read).await.map_err(|error| {
        let message = format!("reading the node's log failed: {error}");
        Failure::new(Code::Internal, message, "report this as a defect")
    })?
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot read the node's log {}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(
            Code::NotFound,
            message,
            "the service manager may keep it: try journalctl -u 'paxos@*' on the host",
        ),
        _ => Failure::new(Code::Internal, message, "look at the file's owner and mode"),
    }
}

/// The last lines that are wanted, out of the end of the file.
///
/// # Errors
/// `not_found` when there is no such file, `internal` when it cannot be read.
fn tail(path: &Path, query: &LogQuery) -> Result<(Vec<String>, Place), Failure> {
    let read = read_end(path).map_err(|error| unreadable(path, &error));
    let (mut bytes, mut place) = read?;
    if query.follow {
        let whole = whole_lines(&bytes);
        place.offset -= (bytes.len() - whole) as u64;
        bytes.truncate(whole);
    }
    let text = String::from_utf8_lossy(&bytes);
    let wanted = text.lines().rev().filter(|line| query.wants(line));
    let mut last: Vec<String> = wanted.take(query.lines).map(str::to_owned).collect();
    last.reverse();
    Ok((last, place))
}

/// How many bytes whole lines take.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

fn read_end(path: &Path) -> std::io::Result<(Vec<u8>, Place)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let start = metadata.len().saturating_sub(LOG_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // The file may grow meanwhile.
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    let place = Place { file: metadata.ino(), offset: start + bytes.len() as u64 };
    if start > 0 {
        // The first line is a part of one.
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..end);
    }
    Ok((bytes, place))
}

fn read_on(path: &Path, place: Place) -> std::io::Result<(Vec<String>, Place)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Between an old file and a new one there is none for a moment.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((Vec::new(), place));
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let is_another = metadata.ino() != place.file || metadata.len() < place.offset;
    let start = if is_another { 0 } else { place.offset };
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(FOLLOW_BYTES_MAX).read_to_end(&mut bytes)?;
    let is_full = bytes.len() as u64 == FOLLOW_BYTES_MAX;
    let whole = match whole_lines(&bytes) {
        // A line without an end is shown piece by piece rather than never.
        0 if is_full => bytes.len(),
        whole => whole,
    };
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let place = Place { file: metadata.ino(), offset: start + whole as u64 };
    Ok((text.lines().map(str::to_owned).collect(), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(path: &Path, lines: usize, grep: Option<&str>) -> Vec<String> {
        let grep = grep.map(str::to_owned);
        tail(path, &LogQuery { lines, grep, ..LogQuery::default() }).unwrap().0
    }

    #[test]
    fn the_last_lines_come_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("paxos.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(last(&path, 2, None), ["two", "three"]);
        assert_eq!(last(&path, 9, None), ["one", "two", "three"]);
        assert_eq!(last(&path, 1, Some("O")), ["two"]);
        assert_eq!(last(&path, 9, Some("four")), [""; 0]);
    }

    #[test]
    fn a_huge_file_gives_whole_lines_of_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("paxos.log");
        let line = "x".repeat(99);
        std::fs::write(&path, format!("{line}\n").repeat(60_000)).unwrap();
        let last = last(&path, usize::MAX, None);
        assert!(last.len() > 40_000 && last.iter().all(|shown| *shown == line));
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let query = LogQuery::default();
        let failure = tail(Path::new("/nonexistent/paxos.log"), &query).unwrap_err();
        assert_eq!(failure.code, Code::NotFound);
    }

    #[test]
    fn what_is_followed_comes_in_whole_lines_and_from_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("paxos.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let (shown, place) = tail(&path, &query).unwrap();
        assert_eq!(shown, ["one"]);
        assert_eq!(read_on(&path, place).unwrap(), (vec![], place));
        std::fs::write(&path, "one\ntwo\nthree\nfo").unwrap();
        let (shown, place) = read_on(&path, place).unwrap();
        assert_eq!(shown, ["two", "three"]);
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        assert_eq!(read_on(&path, place).unwrap(), (vec![], place));
        std::fs::write(&path, "a new file, longer than the one before\n").unwrap();
        let (shown, place) = read_on(&path, place).unwrap();
        assert_eq!(shown, ["a new file, longer than the one before"]);
        std::fs::write(&path, "cut\n").unwrap();
        assert_eq!(read_on(&path, place).unwrap().0, ["cut"]);
    }

    #[test]
    fn a_line_without_an_end_is_shown_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("paxos.log");
        let length = usize::try_from(FOLLOW_BYTES_MAX).unwrap();
        std::fs::write(&path, "x".repeat(length + 1)).unwrap();
        let place = Place { file: 0, offset: 0 };
        let (shown, place) = read_on(&path, place).unwrap();
        assert_eq!((shown.len(), shown[0].len()), (1, length));
        assert_eq!(read_on(&path, place).unwrap(), (vec![], place));
    }
}
