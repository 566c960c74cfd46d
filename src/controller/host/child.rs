//! Programs that work for this one, `ssh` above all, while somebody may press Ctrl-C.
//!
//! A terminal sends the interrupt to all that runs in its foreground, and so `ssh` would end in the
//! middle of a step that is to be finished. Therefore children are started with that signal
//! ignored, and stay so across `exec`; the stock client respects it. A process group of their own
//! would keep the signal away as well, but the terminal, too: `ssh` asks for nothing itself (see
//! [`login`](super::login)), but the one that it starts for a jump host may, and a security key may
//! want its PIN. From a group in the background they would be stopped instead.
//!
//! What must never happen: a child that goes on when this program has ended. Each ends with its
//! standard input; [`end_all`] does not wait for that.
//!
//! The cost: a shell that turns into the program at once.

use crate::controller::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// What the shell does before it becomes the program. Signals that are ignored stay ignored.
const DEAF: &str = r#"trap "" INT; exec "$0" "$@""#;

/// What a shell complains about that did not find the program, up to the reason.
pub(super) const NOT_FOUND: &str = "exec: ";

/// How long a program may take to end that has closed its output.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Those that run now.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().expect("no holder of this lock panics")
}

/// The program as a command that the terminal's interrupt does not reach.
pub fn deaf(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", DEAF]).arg(program);
    command
}

/// A child that ends with this program, in good order or not.
pub struct Tethered(Child);

impl Tethered {
    /// To be called right after it was started.
    pub fn new(child: Child) -> Tethered {
        running().insert(child.id());
        Tethered(child)
    }

    /// Ends it at once, if it has not ended.
    pub(super) fn kill(&mut self) {
        let _ended_already = self.0.kill();
    }

    /// Waits for its end, which is at hand, and says how that was if it was not good.
    ///
    /// # Errors
    /// How it ended.
    pub fn must_have_succeeded(&mut self) -> Result<(), String> {
        let failed = |error| format!("cannot be waited for: {error}");
        let ended = until(END_LIMIT, LOOK_EVERY, || self.0.try_wait().map_err(failed))?;
        let Some(status) = ended else { return Err("does not end".to_owned()) };
        running().remove(&self.0.id());
        if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) {
        // Once it was waited for, its number may be another's.
        running().remove(&self.0.id());
        let _ended_already = self.0.wait();
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        self.kill();
        self.wait();
    }
}

/// Ends all children at once, for this program ends at once.
pub fn end_all() {
    for number in running().iter() {
        if let Some(pid) = i32::try_from(*number).ok().and_then(Pid::from_raw) {
            let _ended_already = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    #[test]
    fn an_interrupt_does_not_end_it_and_its_words_are_its_own() {
        // It would not come to its word if the signal ended it.
        let mut command = deaf("sh");
        command.args(["-c", r#"kill -INT $$; printf "%s" "$1""#, "sh", "a b; $c"]);
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"a b; $c"[..]));
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let output = deaf("no-such-program").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(NOT_FOUND) && said.contains("no-such-program"), "{said}");
    }

    #[test]
    fn it_ends_when_its_owner_lets_go_of_it() {
        let mut child = deaf("cat");
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (_input, mut output) = (child.stdin.take(), child.stdout.take().unwrap());
        let tethered = Tethered::new(child);
        assert!(running().contains(&tethered.id()));
        drop(tethered);
        assert_eq!(output.read(&mut [0]).unwrap(), 0, "nobody holds its output any more");
    }
}
