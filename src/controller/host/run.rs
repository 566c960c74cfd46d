//! A command on a host, read by a shell there: by the host's own sshd, or here.
//!
//! What it prints is kept up to a bound, and read on beyond it, so that it is not held up. It has
//! no standard input, and lasts as long as it lasts: whoever gave it can interrupt it.

use super::login::{Login, SSH};
use super::pipe::LAST_WORDS_LIMIT;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is kept of each of a command's outputs. Programs whose output is longer write it to a file.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// What ssh ends with when it could not run the command; it says why on standard error.
const SSH_FAILED: i32 = 255;

/// A command that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status; none if a signal ended it.
    pub exit: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Runs a line of shell on a host, which is this machine without a login; as root by `sudo`, if so
/// wanted.
///
/// # Errors
/// When the host cannot be reached, in ssh's words, or nothing can be run here.
pub fn run(login: Option<&Login>, sudo: bool, line: &str) -> Result<Ran, String> {
    let line = match sudo {
        true => format!("sudo -n sh -c {}", shell_words::quote(line)),
        false => line.to_owned(),
    };
    let mut command = match login {
        Some(login) => {
            let mut ssh = Command::new(SSH);
            ssh.arg("-T").args(login.words()).arg(line);
            ssh
        }
        None => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &line]);
            shell
        }
    };
    let ran = watch(&mut command).map_err(|error| format!("cannot run it: {error}"))?;
    match (login, ran.exit) {
        (Some(_), Some(SSH_FAILED)) => Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()),
        _ => Ok(ran),
    }
}

fn watch(command: &mut Command) -> io::Result<Ran> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let (until_the_end, ended) = sync_channel::<()>(0);
    let kept_errors = Arc::new(Mutex::new(Vec::new()));
    let (into, from) = (Arc::clone(&kept_errors), errors);
    std::thread::spawn(move || {
        let _dropped_last = until_the_end;
        keep(from, &into);
    });
    let kept_output = Mutex::new(Vec::new());
    keep(output, &kept_output);
    let exit = child.wait()?.code();
    // Not of what a jump host's `ssh` may say that lives on.
    let _ended_or_too_late = ended.recv_timeout(LAST_WORDS_LIMIT);
    let stderr = std::mem::take(&mut *whole(&kept_errors));
    let stdout = std::mem::take(&mut *whole(&kept_output));
    Ok(Ran { exit, stdout, stderr })
}

fn whole(kept: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    // What came is there, whoever panicked.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads to the end. What came before it broke is worth showing.
fn keep(from: Option<impl Read>, into: &Mutex<Vec<u8>>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 8192];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let mut kept = whole(into);
        let room = KEPT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(&buffer[..read.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_and_the_exit_status_are_kept() {
        let ran = run(None, false, "echo out; echo err >&2; exit 7").unwrap();
        assert_eq!(ran, Ran { exit: Some(7), stdout: b"out\n".into(), stderr: b"err\n".into() });
        let ran = run(None, false, "kill -9 $$").unwrap();
        assert_eq!(ran.exit, None);
    }

    #[test]
    fn whoever_outlives_it_and_keeps_its_error_output_is_not_waited_for() {
        let begun = std::time::Instant::now();
        let ran =
            run(None, false, "echo out; echo err >&2; sleep 600 >/dev/null & echo $!").unwrap();
        assert!(begun.elapsed() < 60 * LAST_WORDS_LIMIT);
        assert_eq!(ran.stderr, b"err\n");
        let text = String::from_utf8(ran.stdout).unwrap();
        let pid = text.lines().nth(1).unwrap();
        run(None, false, &format!("kill {pid}")).unwrap();
    }

    #[test]
    fn a_flood_is_cut_and_does_not_stop_the_command() {
        let ran = run(None, false, "head -c 9000000 /dev/zero; echo done >&2").unwrap();
        assert_eq!(ran.stdout.len(), KEPT_BYTES_MAX);
        assert_eq!((ran.exit, ran.stderr.as_slice()), (Some(0), &b"done\n"[..]));
    }
}
