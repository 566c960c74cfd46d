//! A small supervisor, for hosts without one: starts a node again when it ended and was not told
//! to.
//!
//! It waits longer each time, so that a node that cannot start does not burn its host, and forgets
//! that once a node ran well. It does not start a node again that ended over its data or its
//! settings: both want a person. A signal to end is handed on, and so is the one to take keys up
//! anew (SIGHUP). Its own end is the node's end too, whatever ended it: the node asks the kernel
//! for that.

use super::output;
use crate::controller::host::local::SUPERVISED;
use crate::controller::host::process;
use crate::wire::failure::Code;
use std::ffi::OsString;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// The first wait before another start: a port that is still held is free by then.
const WAIT_MIN: Duration = Duration::from_millis(200);

/// The longest wait, doubled up to: about what systemd's limits come to, without giving up.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Who ran for so long did not fail at its start.
const RAN_WELL: Duration = Duration::from_secs(60);

/// Runs the command until it is told to stop, or needs a person. Answers the exit status.
pub fn run(words: &[OsString]) -> u8 {
    let Some((program, words)) = words.split_first() else {
        output::stderr(b"paxos: become-supervisor needs a command\n");
        return Code::Usage.exit();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(watch(program, words)));
    outcome.unwrap_or_else(|error| {
        say(&format!("cannot watch over the node: {error}"));
        Code::Internal.exit()
    })
}

fn say(text: &str) {
    let now = humantime::format_rfc3339_micros(std::time::SystemTime::now());
    output::stderr(format!("{now} supervisor: {text}\n").as_bytes());
}

async fn watch(program: &OsString, words: &[OsString]) -> std::io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut wait = WAIT_MIN;
    loop {
        let started = Instant::now();
        let ended = match Command::new(program).args(words).arg(SUPERVISED).spawn() {
            // Memory or processes may be short just now.
            Err(error) => format!("cannot be started: {error}"),
            Ok(mut child) => {
                let status = loop {
                    tokio::select! {
                        status = child.wait() => break status?,
                        _ = terminate.recv() => return end(&mut child).await,
                        _ = interrupt.recv() => return end(&mut child).await,
                        _ = hangup.recv() => hang_up(&child),
                    }
                };
                if let Some(exit) = last_word(status) {
                    say(&format!("the node ended with {status}; it is not started again"));
                    return Ok(exit);
                }
                format!("ended with {status}")
            }
        };
        if started.elapsed() >= RAN_WELL {
            wait = WAIT_MIN;
        }
        say(&format!("the node {ended}; it is started again in {wait:?}"));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Something was delivered; perhaps it was what the node missed.
            _ = hangup.recv() => {}
            _ = terminate.recv() => return Ok(0),
            _ = interrupt.recv() => return Ok(0),
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// The exit status of a node that is done, or needs a person.
fn last_word(status: ExitStatus) -> Option<u8> {
    let exit = status.code().and_then(|code| u8::try_from(code).ok())?;
    let last = [0, Code::Corrupt.exit(), Code::BadSettings.exit()];
    last.contains(&exit).then_some(exit)
}

/// Hands the signal on, unless the node has just begun: it would end then, and has not read the
/// files yet that it is to take up.
fn hang_up(child: &Child) {
    if let Some(pid) = child.id().filter(|pid| process::catches_hangup(*pid))
        && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
    {
        // It may have ended by itself just now.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::HUP);
    }
}

/// Hands the signal on, and waits: the node's own end has a bound.
async fn end(child: &mut Child) -> std::io::Result<u8> {
    let number = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = number.and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself just now.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let status = child.wait().await?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(0))
}

/// Has the kernel end this process with the one that started it.
///
/// # Errors
/// When the kernel has no such thing, or the supervisor is gone already.
pub fn end_with_supervisor() -> std::io::Result<()> {
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal)?;
    // Whose supervisor was gone before that has been adopted since.
    match rustix::process::getppid() {
        Some(parent) if parent.is_init() => {
            Err(std::io::Error::other("the supervisor is gone already"))
        }
        _ => Ok(()),
    }
}
