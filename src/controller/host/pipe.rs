//! Reading what another process says, with an end to one's patience.
//!
//! A pipe cannot be read with a deadline, so a thread reads it and hands on what came, at most
//! [`PIECES_MAX`] pieces ahead; it ends with the pipe.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much is read at once.
const PIECE_BYTES: usize = 64 << 10;

/// How many pieces may wait for whoever reads.
const PIECES_MAX: usize = 16;

/// A line longer than this is no line of ours.
const LINE_BYTES_MAX: usize = 16 << 10;

/// How much of what a program complains is kept: its last words.
const COMPLAINT_BYTES_MAX: usize = 16 << 10;

/// How long the last words of a program may take that has ended.
pub(super) const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// What comes out of a program.
pub(super) struct Inlet {
    pieces: Receiver<Vec<u8>>,
    rest: Vec<u8>,
    at: usize,
}

impl Inlet {
    pub(super) fn new(mut from: impl Read + Send + 'static) -> Inlet {
        let (sender, pieces) = sync_channel(PIECES_MAX);
        std::thread::spawn(move || {
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let read = match from.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_gone) => return,
                };
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Inlet { pieces, rest: Vec::new(), at: 0 }
    }

    /// At least one more byte, or why there is none.
    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        if self.at < self.rest.len() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match self.pieces.recv_timeout(left) {
            Ok(piece) => {
                (self.rest, self.at) = (piece, 0);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(super) fn read_exact(&mut self, into: &mut [u8], deadline: Instant) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            self.fill(deadline)?;
            let piece = (self.rest.len() - self.at).min(into.len() - done);
            into[done..done + piece].copy_from_slice(&self.rest[self.at..self.at + piece]);
            self.at += piece;
            done += piece;
        }
        Ok(())
    }

    /// A line without its end.
    pub(super) fn read_line(&mut self, deadline: Instant) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            self.fill(deadline)?;
            let rest = &self.rest[self.at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            self.at += end.map_or(rest.len(), |end| end + 1);
            if line.len() > LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless line"));
            }
            if end.is_some() {
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
}

/// What a program complains about, as far as it came.
#[derive(Clone, Default)]
pub(super) struct Complaints(Arc<Mutex<Vec<u8>>>);

impl Complaints {
    pub(super) fn new(mut from: impl Read + Send + 'static) -> (Complaints, Gathering) {
        let complaints = Complaints::default();
        let kept = complaints.clone();
        let (until_the_end, ended) = sync_channel(0);
        std::thread::spawn(move || {
            let _dropped_last: SyncSender<()> = until_the_end;
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let mut text = kept.0.lock().expect("no holder of this lock panics");
                text.extend_from_slice(&buffer[..read]);
                let over = text.len().saturating_sub(COMPLAINT_BYTES_MAX);
                text.drain(..over);
            }
        });
        (complaints, Gathering(ended))
    }

    pub(super) fn text(&self) -> String {
        let text = self.0.lock().expect("no holder of this lock panics");
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

/// The thread that gathers complaints; nothing comes from it before it ends.
pub(super) struct Gathering(Receiver<()>);

impl Gathering {
    /// Waits for the last words of a program that is known to have ended. What it started may live
    /// on and keep the pipe open: the `ssh` to a jump host does, while the host behind it is cut
    /// off, if nobody sent it a hang-up or it was started to ignore one (`nohup`).
    pub(super) fn finish(self) {
        let _ended_or_too_late = self.0.recv_timeout(LAST_WORDS_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn lines_and_bytes_are_told_apart_and_the_end_is_seen() {
        let mut inlet = Inlet::new(&b"one\ntwo\n\x00\x01rest"[..]);
        assert_eq!(inlet.read_line(soon()).unwrap(), "one");
        assert_eq!(inlet.read_line(soon()).unwrap(), "two");
        let mut bytes = [9; 2];
        inlet.read_exact(&mut bytes, soon()).unwrap();
        assert_eq!(bytes, [0, 1]);
        assert_eq!(inlet.read_line(soon()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn whoever_says_nothing_is_not_waited_for_for_ever() {
        let (reader, _writer) = io::pipe().unwrap();
        let mut inlet = Inlet::new(reader);
        let now = Instant::now();
        assert_eq!(inlet.read_line(now).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn last_words_are_heard_though_somebody_else_keeps_the_pipe_open() {
        let (reader, mut writer) = io::pipe().unwrap();
        let (complaints, gathering) = Complaints::new(reader);
        writer.write_all(b"it timed out\n").unwrap();
        gathering.finish();
        assert_eq!(complaints.text(), "it timed out");
        drop(writer);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut inlet = Inlet::new(io::repeat(b'x'));
        assert_eq!(inlet.read_line(soon()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
