//! Asks for the passphrase of a key where `ssh-add` would: on the terminal, which does not show it,
//! or by the program that `SSH_ASKPASS` names (ssh-add(1), `SSH_ASKPASS_REQUIRE` included).
//!
//! It is asked on `/dev/tty`, so that standard output stays an answer, and what is piped in stays
//! what was piped in. Whoever presses Ctrl-C meanwhile wants the run to stop.
//!
//! What must never happen: a terminal that is left without its echo.

use super::{foot, interrupt};
use crate::controller::keys::signers::{Passphrase, Unasked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// As long as OpenSSH takes one.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// How long a signal may go unnoticed while somebody types.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A terminal that does not show what is typed, and how it was before.
static QUIET: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Asks for the passphrase of the key in `path`; `again` when the one before was wrong.
///
/// # Errors
/// When nobody can be asked, or whoever was asked wants the run to stop.
pub(super) fn ask(path: &Path, again: bool) -> Result<Passphrase, Unasked> {
    let wrong = if again { "That was not it. " } else { "" };
    let question = format!("{wrong}Passphrase of {}: ", path.display());
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let required = set("SSH_ASKPASS_REQUIRE");
    let required = required.as_ref().and_then(|word| word.to_str());
    let display = set("DISPLAY").is_some() || set("WAYLAND_DISPLAY").is_some();
    let by_program = |program: OsString| by_program(&program, &question);
    match (required, set("SSH_ASKPASS")) {
        (Some("force"), Some(program)) => return by_program(program),
        (Some("prefer"), Some(program)) if display => return by_program(program),
        _ => {}
    }
    match on_terminal(&question) {
        Err(NoTerminal::Interrupted) => Err(Unasked::Interrupted),
        Ok(given) => Ok(given),
        Err(NoTerminal::Io(error)) => match set("SSH_ASKPASS") {
            Some(program) if display && required != Some("never") => by_program(program),
            _ => {
                let why = format!("it cannot be asked for on a terminal ({error})");
                Err(Unasked::Nobody(why))
            }
        },
    }
}

fn by_program(program: &OsString, question: &str) -> Result<Passphrase, Unasked> {
    let mut command = Command::new(program);
    let output = command.arg(question.trim_end()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = output.output().map_err(|error| {
        Unasked::Nobody(format!("SSH_ASKPASS ({}) cannot be run: {error}", program.display()))
    })?;
    let mut said = Zeroizing::new(output.stdout);
    if interrupt::is_asked_for() {
        return Err(Unasked::Interrupted);
    }
    if !output.status.success() {
        let why = format!("SSH_ASKPASS ({}) gave none: {}", program.display(), output.status);
        return Err(Unasked::Nobody(why));
    }
    let end = said.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    let end = end.unwrap_or(said.len());
    said.truncate(end);
    Ok(said)
}

enum NoTerminal {
    Io(io::Error),
    Interrupted,
}

impl From<io::Error> for NoTerminal {
    fn from(error: io::Error) -> NoTerminal {
        NoTerminal::Io(error)
    }
}

fn on_terminal(question: &str) -> Result<Passphrase, NoTerminal> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    foot::beside(|| {
        be_quiet(&terminal)?;
        let asked = terminal.write_all(question.as_bytes());
        let typed = asked.map_err(NoTerminal::Io).and_then(|()| line_of(&mut terminal));
        leave_terminal();
        typed
    })
}

/// What is typed is not shown until [`leave_terminal`]. What was typed before is dropped.
fn be_quiet(terminal: &File) -> io::Result<()> {
    let before = tcgetattr(terminal)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK);
    // First of all, for a signal may come at any time.
    let kept = terminal.try_clone()?;
    *QUIET.lock().unwrap_or_else(PoisonError::into_inner) = Some((kept, before));
    let done = tcsetattr(terminal, OptionalActions::Flush, &quiet);
    done.inspect_err(|_| leave_terminal())?;
    Ok(())
}

/// Gives the terminal its echo back, if somebody is being asked.
pub(super) fn leave_terminal() {
    let quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((mut terminal, before)) = quiet {
        let _gone = tcsetattr(&terminal, OptionalActions::Now, &before);
        // In the place of the one that was typed and not shown.
        let _gone = terminal.write_all(b"\n");
    }
}

fn line_of(terminal: &mut File) -> Result<Passphrase, NoTerminal> {
    // In one piece, for what is moved to make room leaves itself behind.
    let mut line = Zeroizing::new(vec![0; PASSPHRASE_BYTES_MAX]);
    let mut length = 0;
    while length < line.len() {
        let looked = poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&LOOK_EVERY));
        if interrupt::is_asked_for() {
            return Err(NoTerminal::Interrupted);
        }
        match looked {
            Ok(0) | Err(Errno::INTR) => continue,
            looked => looked.map_err(io::Error::from)?,
        };
        let read = terminal.read(&mut line[length..])?;
        let end = line[length..length + read].iter().position(|byte| *byte == b'\n');
        length += end.unwrap_or(read);
        if end.is_some() {
            break;
        }
        if read == 0 {
            return Err(NoTerminal::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    line.truncate(length);
    Ok(line)
}
