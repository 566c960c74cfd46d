//! Asks for the passphrase of a key where `ssh-add` would: on the terminal, which does not show it,
//! or by the program that `SSH_ASKPASS` names (ssh-add(1), `SSH_ASKPASS_REQUIRE` included).
//!
//! It is asked on `/dev/tty`, so that standard output stays an answer, and what is piped in stays
//! what was piped in. Keys that send signals at other times are read like any other: Ctrl-C, Ctrl-\
//! and Ctrl-D give the run up, Ctrl-U begins the line anew, Ctrl-Z is nothing. Whoever stops the
//! program from elsewhere finds the terminal as their shell left it, and is asked again.
//!
//! What must never happen: a terminal that is left without its echo; a passphrase that is shown, or
//! that is left for the shell to read.

use super::{foot, interrupt};
use crate::controller::host::child::{Tethered, deaf};
use crate::controller::keys::signers::{Passphrase, Unasked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getpgrp, setrlimit};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// As long as OpenSSH takes one.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// How long a signal may go unnoticed while somebody types.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a terminal does not do while somebody types a passphrase: show it, edit it, send signals.
const LOUD: LocalModes = LocalModes::ECHO
    .union(LocalModes::ECHONL)
    .union(LocalModes::ICANON)
    .union(LocalModes::ISIG)
    .union(LocalModes::IEXTEN);

/// How the terminal is.
enum Echo {
    /// As everybody else wants it.
    On,
    /// Quiet, and how it was before.
    Off(File, Box<Termios>),
    /// The program ends, and it stays as it is.
    ForGood,
}

static ECHO: Mutex<Echo> = Mutex::new(Echo::On);

fn echo() -> MutexGuard<'static, Echo> {
    // Whoever panicked left one of the three.
    ECHO.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`echo`], for whoever would change it. Once the program ends this does not come back: the
/// last words are another thread's.
fn unless_over() -> MutexGuard<'static, Echo> {
    loop {
        let echo = echo();
        match *echo {
            Echo::ForGood => drop(echo),
            _ => return echo,
        }
        std::thread::park();
    }
}

/// Asks for the passphrase of the key in `path`; `again` when the one before was wrong.
///
/// # Errors
/// When nobody can be asked, or whoever was asked wants the run to stop.
pub(super) fn ask(path: &Path, again: bool) -> Result<Passphrase, Unasked> {
    // A core would hold what is typed now. Whoever may not set that limit has none to set.
    let _as_it_is = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let wrong = if again { "That was not it. " } else { "" };
    let question = format!("{wrong}Passphrase of {}: ", path.display());
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let required = set("SSH_ASKPASS_REQUIRE").unwrap_or_default();
    let requires = |word: &str| required.eq_ignore_ascii_case(word);
    let display = set("DISPLAY").is_some() || set("WAYLAND_DISPLAY").is_some();
    let program = set("SSH_ASKPASS");
    if let Some(program) = &program
        && (requires("force") || requires("prefer") && display)
    {
        return by_program(program, &question);
    }
    match (File::options().read(true).write(true).open("/dev/tty"), program) {
        (Ok(terminal), _) => on_terminal(terminal, &question),
        (Err(_), Some(program)) if display && !requires("never") => by_program(&program, &question),
        (Err(error), _) => {
            let why = format!("it cannot be asked for on a terminal ({error})");
            Err(Unasked::Nobody(why))
        }
    }
}

/// Its first line is what it was told. The terminal's interrupt does not reach it: whoever wants
/// the run to stop is heeded here, and it ends with this program.
fn by_program(program: &OsString, question: &str) -> Result<Passphrase, Unasked> {
    let failed = |what: &dyn std::fmt::Display| {
        Unasked::Nobody(format!("SSH_ASKPASS ({}) {what}", program.display()))
    };
    let mut command = deaf(program);
    command.arg(OsStr::new(question.trim_end())).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&format!("does not run: {error}")))?;
    let output = child.stdout.take();
    let _ended_with_this = Tethered::new(child);
    let mut output = output.ok_or_else(|| failed(&"has no output"))?;
    let said = line_of(&mut output, |_| Key::Other, || Ok(()));
    match said {
        Ok(Line::Typed(line)) => Ok(line),
        Ok(Line::GivenUp) => Err(Unasked::Interrupted),
        Ok(Line::None) => Err(failed(&"gave none")),
        Err(error) => Err(failed(&format!("gave none: {error}"))),
    }
}

fn on_terminal(mut terminal: File, question: &str) -> Result<Passphrase, Unasked> {
    let typed = foot::beside(|| {
        let quiet = be_quiet(&terminal)?;
        terminal.write_all(question.as_bytes())?;
        let codes = quiet.special_codes.clone();
        let key = |byte| match byte {
            _ if byte == codes[SpecialCodeIndex::VINTR] => Key::GiveUp,
            _ if byte == codes[SpecialCodeIndex::VQUIT] => Key::GiveUp,
            _ if byte == codes[SpecialCodeIndex::VEOF] => Key::GiveUp,
            _ if byte == codes[SpecialCodeIndex::VERASE] || byte == 8 => Key::Erase,
            _ if byte == codes[SpecialCodeIndex::VKILL] => Key::Anew,
            _ if byte == codes[SpecialCodeIndex::VSUSP] => Key::Nothing,
            _ => Key::Other,
        };
        let mut shown = terminal.try_clone()?;
        line_of(&mut terminal, key, || {
            let _as_it_is = unless_over();
            // Somebody stopped the program, and their shell gave the terminal its echo back.
            if !tcgetattr(&shown)?.local_modes.intersects(LOUD) {
                return Ok(());
            }
            tcsetattr(&shown, OptionalActions::Flush, &quiet)?;
            shown.write_all(question.as_bytes())?;
            Err(io::ErrorKind::Interrupted.into())
        })
    });
    leave_terminal(false);
    match typed {
        Ok(Line::Typed(line)) => Ok(line),
        Ok(Line::GivenUp | Line::None) => Err(Unasked::Interrupted),
        Err(error) => Err(Unasked::Nobody(format!("it cannot be typed on the terminal: {error}"))),
    }
}

/// What is typed is not shown until [`leave_terminal`]. What was typed before is dropped.
fn be_quiet(terminal: &File) -> io::Result<Termios> {
    let mut echo = unless_over();
    let before = tcgetattr(terminal)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LOUD);
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    // Before it is so: a signal may come at any time.
    *echo = Echo::Off(terminal.try_clone()?, Box::new(before));
    tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
    Ok(quiet)
}

/// Gives the terminal its echo back, if somebody is being asked, and drops what they typed. With
/// `for_good` nobody is asked any more, for the program ends.
pub(super) fn leave_terminal(for_good: bool) {
    let mut echo = echo();
    let next = if for_good { Echo::ForGood } else { Echo::On };
    let Echo::Off(mut terminal, before) = std::mem::replace(&mut *echo, next) else { return };
    // From the background it would stop the program, and there the terminal is another's anyway.
    if tcgetpgrp(terminal.as_fd()).is_ok_and(|group| group == getpgrp()) {
        let _gone = tcsetattr(&terminal, OptionalActions::Flush, &before);
        // In the place of the line break that was typed and not shown.
        let _gone = terminal.write_all(b"\n");
    }
}

/// What a byte that was typed is for.
enum Key {
    GiveUp,
    Erase,
    Anew,
    Nothing,
    Other,
}

enum Line {
    Typed(Passphrase),
    GivenUp,
    /// It ended before there was a line.
    None,
}

/// Reads a line, and what is too long of it to no purpose. `look` is asked before each read, and
/// makes the line begin anew with [`io::ErrorKind::Interrupted`].
fn line_of(
    source: &mut (impl Read + AsFd),
    key: impl Fn(u8) -> Key,
    mut look: impl FnMut() -> io::Result<()>,
) -> io::Result<Line> {
    // In one piece, for what is moved to make room leaves itself behind.
    let mut line = Zeroizing::new(vec![0; PASSPHRASE_BYTES_MAX]);
    let mut length: usize = 0;
    loop {
        let ready = poll(&mut [PollFd::new(source, PollFlags::IN)], Some(&LOOK_EVERY));
        if interrupt::is_asked_for() {
            return Ok(Line::GivenUp);
        }
        match look() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                length = 0;
                continue;
            }
            looked => looked?,
        }
        match ready {
            Ok(0) | Err(Errno::INTR) => continue,
            ready => ready.map_err(io::Error::from)?,
        };
        let mut byte = Zeroizing::new([0]);
        let ended = source.read(&mut *byte)? == 0;
        match (byte[0], key(byte[0])) {
            (_, _) if ended && length == 0 => return Ok(Line::None),
            (b'\n' | b'\r', _) => break,
            (_, _) if ended => break,
            (_, Key::GiveUp) => return Ok(Line::GivenUp),
            (_, Key::Erase) => length = length.saturating_sub(1),
            (_, Key::Anew) => length = 0,
            (_, Key::Nothing) => {}
            (byte, Key::Other) => {
                // One that is too long is none, but somebody typed it to its end.
                if let Some(place) = line.get_mut(length) {
                    *place = byte;
                }
                length = length.saturating_add(1);
            }
        }
    }
    line.truncate(if length > PASSPHRASE_BYTES_MAX { 0 } else { length });
    Ok(Line::Typed(line))
}
