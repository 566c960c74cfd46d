//! What the local program itself writes: its own answers and failures, in the form that was asked
//! for.
//!
//! Nobody may be listening any more (`paxos list | head`): that is no failure of ours.

use crate::wire::answer::{Answer, render_failure};
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use std::io::{self, Write};

use super::{exit, foot};

/// Writes an answer to standard output and says how to exit.
pub fn answer(answer: &Answer, format: Format) -> u8 {
    match stdout(&answer.render(format)) {
        Written::Done => answer.exit(),
        Written::Unread => exit::DONE,
        Written::Failed => Code::Internal.exit(),
    }
}

/// Writes a failure (JSON to standard output, text to standard error) and says how to exit.
pub fn failure(failure: &Failure, format: Format) -> u8 {
    let text = render_failure(failure, format);
    match format {
        Format::Json => _ = stdout(&text),
        Format::Table => stderr(&text),
    }
    failure.code.exit()
}

/// What became of a piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// The reader is gone, as in `paxos list | head`.
    Unread,
    /// It cannot be written, say to a full disk; standard error says so.
    Failed,
}

/// Writes to standard output, at once and whole. Blocks while its reader is slow.
pub fn stdout(bytes: &[u8]) -> Written {
    let write = || {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    };
    match foot::beside(write) {
        Ok(()) => Written::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Written::Unread,
        Err(error) => {
            stderr(format!("paxos: cannot write to standard output: {error}\n").as_bytes());
            Written::Failed
        }
    }
}

/// Writes to standard error; if that fails there is nobody left to tell.
pub fn stderr(bytes: &[u8]) {
    foot::beside(|| {
        let mut err = io::stderr().lock();
        let _nobody_left = err.write_all(bytes).and_then(|()| err.flush());
    });
}
