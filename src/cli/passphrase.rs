//! Asks for the passphrase of a key where `ssh-add` would: on the terminal, which does not show it,
//! or by the program that `SSH_ASKPASS` names (ssh-add(1), `SSH_ASKPASS_REQUIRE` included).
//!
//! It is asked on `/dev/tty`, so that standard output stays an answer, and what is piped in stays
//! what was piped in. Keys that send signals at other times are read like any other: Ctrl-C, Ctrl-\
//! and Ctrl-D give the run up, Ctrl-U and Ctrl-W begin the line anew, Ctrl-Z is nothing. Whoever
//! stops the program from elsewhere finds the terminal as their shell left it, and is asked again.
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
    InputModes, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush,
    tcgetattr, tcgetpgrp, tcsetattr,
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

/// That the program ends, in a word that nobody reads.
fn over() -> io::Error {
    io::ErrorKind::Other.into()
}

/// Does not come back once the program ends: the last words are another thread's.
fn wait_if_over() {
    while matches!(*echo(), Echo::ForGood) {
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
    let mut child = Tethered::new(child);
    let mut output = output.ok_or_else(|| failed(&"has no output"))?;
    let said = line_of(&mut output, |_| Key::Other, || Ok(()));
    if let Ok(Line::Typed(_)) = said {
        // What it says behind its first line is nobody's, but it may yet fail.
        while let Ok(Line::Typed(_)) = line_of(&mut output, |_| Key::Other, || Ok(())) {}
        match interrupt::is_asked_for() {
            true => return Err(Unasked::Interrupted),
            false => child.must_have_succeeded().map_err(|error| failed(&error))?,
        }
    }
    match said {
        Ok(Line::Typed(line)) => Ok(line),
        Ok(Line::GivenUp) => Err(Unasked::Interrupted),
        Ok(Line::None) => Err(failed(&"gave none")),
        Err(error) => Err(failed(&format!("gave none: {error}"))),
    }
}

fn on_terminal(mut terminal: File, question: &str) -> Result<Passphrase, Unasked> {
    let typed = foot::beside(|| -> io::Result<Line> {
        let quiet = be_quiet(&terminal)?;
        terminal.write_all(question.as_bytes())?;
        let codes = quiet.special_codes.clone();
        let key = |byte| match byte {
            // As is a code that nobody has.
            0 => Key::Nothing,
            _ if byte == codes[SpecialCodeIndex::VINTR] => Key::GiveUp,
            _ if byte == codes[SpecialCodeIndex::VQUIT] => Key::GiveUp,
            _ if byte == codes[SpecialCodeIndex::VEOF] => Key::GiveUp,
            _ if byte == codes[SpecialCodeIndex::VERASE] || byte == 8 => Key::Erase,
            _ if byte == codes[SpecialCodeIndex::VKILL] => Key::Anew,
            // Nobody sees where a word begins.
            _ if byte == codes[SpecialCodeIndex::VWERASE] => Key::Anew,
            _ if byte == codes[SpecialCodeIndex::VSUSP] => Key::Nothing,
            _ => Key::Other,
        };
        let mut shown = terminal.try_clone()?;
        line_of(&mut terminal, key, || {
            let echo = echo();
            if let Echo::ForGood = *echo {
                return Err(over());
            }
            // Somebody stopped the program, and their shell gave the terminal its echo back.
            if !tcgetattr(&shown)?.local_modes.intersects(LOUD) {
                return Ok(());
            }
            make(&shown, &quiet)?;
            drop(echo);
            shown.write_all(question.as_bytes())?;
            Err(io::ErrorKind::Interrupted.into())
        })
    });
    leave_terminal();
    wait_if_over();
    match typed {
        Ok(Line::Typed(line)) => Ok(line),
        Ok(Line::GivenUp | Line::None) => Err(Unasked::Interrupted),
        // It is gone, and whoever was at it.
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            Err(Unasked::Interrupted)
        }
        Err(error) => Err(Unasked::Nobody(format!("it cannot be typed on the terminal: {error}"))),
    }
}

/// What is typed is not shown until [`leave_terminal`]. What was typed before is dropped.
fn be_quiet(terminal: &File) -> io::Result<Termios> {
    let mut echo = echo();
    if let Echo::ForGood = *echo {
        return Err(over());
    }
    let before = tcgetattr(terminal)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LOUD);
    quiet.input_modes.remove(InputModes::IXON);
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    // Before it is so: a signal may come at any time.
    *echo = Echo::Off(terminal.try_clone()?, Box::new(before));
    make(terminal, &quiet)?;
    Ok(quiet)
}

/// Sets the modes of a terminal and drops what was typed, without waiting for what is to be shown.
fn make(terminal: &File, modes: &Termios) -> io::Result<()> {
    tcflush(terminal, QueueSelector::IFlush)?;
    Ok(tcsetattr(terminal, OptionalActions::Now, modes)?)
}

/// Gives the terminal its echo back, and drops what was typed.
fn leave_terminal() {
    if let Some(mut terminal) = take_back(Echo::On) {
        // In the place of the line break that was typed and not shown.
        let _gone = terminal.write_all(b"\n");
    }
}

/// The program ends: nobody is asked any more, and the terminal gets its echo back, if somebody was
/// being asked just now. Never waits, for a terminal may be stopped.
pub(super) fn leave_terminal_for_good() -> bool {
    take_back(Echo::ForGood).is_some()
}

fn take_back(next: Echo) -> Option<File> {
    let mut echo = echo();
    if let Echo::ForGood = *echo {
        return None;
    }
    let Echo::Off(terminal, before) = std::mem::replace(&mut *echo, next) else { return None };
    // From the background it would stop the program, and there the terminal is another's anyway.
    if tcgetpgrp(terminal.as_fd()).is_ok_and(|group| group == getpgrp()) {
        let _gone = make(&terminal, &before);
    }
    Some(terminal)
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

/// Where the last letter of a line begins, in UTF-8.
fn before_last(line: &[u8]) -> usize {
    line.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0)
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
            (_, Key::Erase) => length = before_last(&line[..length.min(PASSPHRASE_BYTES_MAX)]),
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
