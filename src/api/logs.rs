//! The end of the node's own log file.

use crate::wire::failure::{Code, Failure};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Most bytes read from the end of the file, however many lines were asked for.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// The last `lines` lines. Reads the file, so it belongs on a thread that may block.
///
/// # Errors
/// `not_found` when there is no such file, `internal` when it cannot be read.
pub(super) fn tail(path: &Path, lines: usize) -> Result<Vec<String>, Failure> {
    let bytes = read_end(path).map_err(|error| {
        let message = format!("cannot read the node's log {}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Failure::new(
                Code::NotFound,
                message,
                "the service manager may keep it: try journalctl -u 'paxos@*' on the host",
            ),
            _ => Failure::new(Code::Internal, message, "look at the file's owner and mode"),
        }
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut last: Vec<String> = text.lines().rev().take(lines).map(str::to_owned).collect();
    last.reverse();
    Ok(last)
}

fn read_end(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LOG_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // The file may grow meanwhile.
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    if start > 0 {
        // The first line is a part of one.
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..end);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_come_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("paxos.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["two", "three"]);
        assert_eq!(tail(&path, 9).unwrap(), ["one", "two", "three"]);
    }

    #[test]
    fn a_huge_file_gives_whole_lines_of_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("paxos.log");
        let line = "x".repeat(99);
        std::fs::write(&path, format!("{line}\n").repeat(60_000)).unwrap();
        let last = tail(&path, usize::MAX).unwrap();
        assert!(last.len() > 40_000 && last.iter().all(|shown| *shown == line));
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let failure = tail(Path::new("/nonexistent/paxos.log"), 1).unwrap_err();
        assert_eq!(failure.code, Code::NotFound);
    }
}
