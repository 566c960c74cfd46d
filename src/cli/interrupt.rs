//! Ctrl-C while `paxos-ctl` changes something, SIGTERM and SIGHUP: the first lets the step in hand
//! finish, the second ends the program at once, and so does SIGQUIT.
//!
//! A step is what stands in the journal as one. Whoever is about to begin one asks
//! [`Working::may_begin`], so a run stops between two of them: its locks are let go of, its journal
//! says that it was interrupted, and `paxos-ctl resume` goes on. After the second signal everything
//! is as after SIGKILL, from which `resume` goes on as well. While no run is under way the
//! first signal ends the program, and the programs that work for it.
//!
//! What must never happen: a second signal that is not heeded, whatever the program hangs in.
//!
//! The cost: a thread, for as long as the program runs.
//!
//! `verify`, `logs` and `exec` listen for themselves, or end as any program does.

use super::{foot, output, passphrase, progress};
use crate::controller::host::{child, login, process};
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use futures::FutureExt;
use futures::future::select_all;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the last words may take: a terminal that somebody stopped takes none.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// The work under way, and whether it was asked to stop.
struct Work {
    go_on: String,
    asked: Option<&'static str>,
}

static WORK: Mutex<Option<Work>> = Mutex::new(None);

fn work() -> MutexGuard<'static, Option<Work>> {
    WORK.lock().expect("no holder of this lock panics")
}

/// While this lives a signal does not end the program.
pub(super) struct Working {
    /// The step in hand.
    step: Option<String>,
}

impl Drop for Working {
    fn drop(&mut self) {
        *work() = None;
    }
}

impl Working {
    /// A run begins; `go_on` says how to go on with it.
    pub(super) fn begin(go_on: String) -> Working {
        *work() = Some(Work { go_on, asked: None });
        Working { step: None }
    }

    /// Takes note of a step that is about to begin.
    ///
    /// # Errors
    /// When it must not, because somebody wants the run to stop.
    pub(super) fn may_begin(&mut self, step: &str) -> Result<(), Failure> {
        let asked = work().as_ref().and_then(|work| Some((work.asked?, work.go_on.clone())));
        let Some((signal, go_on)) = asked else {
            self.step = Some(step.to_owned());
            return Ok(());
        };
        let message = match &self.step {
            Some(done) => format!("stopped by {signal} after this step: {done}"),
            None => format!("stopped by {signal} before the first step; nothing was changed"),
        };
        Err(Failure::new(Code::Interrupted, message, go_on))
    }
}

/// Whether somebody wants the run under way to stop.
pub(super) fn is_asked_for() -> bool {
    work().as_ref().is_some_and(|work| work.asked.is_some())
}

/// From now on signals are heeded here; `format` is for the last words. To be called once.
///
/// # Errors
/// When the system does not let us hear of signals.
pub(super) fn listen(format: Format) -> Result<(), Failure> {
    start_listening(format).map_err(|error| {
        let message = format!("cannot listen for signals: {error}; nothing was changed");
        let hint = "see the limits of open files and threads (ulimit -a)";
        Failure::new(Code::Internal, message, hint)
    })
}

fn start_listening(format: Format) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut signals = vec![
        ("SIGINT", signal(SignalKind::interrupt())?),
        ("SIGTERM", signal(SignalKind::terminate())?),
        ("SIGQUIT", signal(SignalKind::quit())?),
    ];
    // Whoever started this with `nohup` wants it to outlive the terminal.
    if !process::ignores_hangup() {
        signals.push(("SIGHUP", signal(SignalKind::hangup())?));
    }
    drop(entered);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                heed(next(&mut signals).await, format);
            }
        });
    })?;
    Ok(())
}

async fn next(signals: &mut [(&'static str, Signal)]) -> &'static str {
    let signals = signals.iter_mut().map(|(name, signal)| Box::pin(signal.recv().map(|_| *name)));
    select_all(signals).await.0
}

fn heed(signal: &'static str, format: Format) {
    let mut under_way = work();
    let failure = match under_way.as_mut() {
        Some(work) if work.asked.is_none() && signal != "SIGQUIT" => {
            work.asked = Some(signal);
            drop(under_way);
            // A terminal that takes nothing must not keep this thread from the second signal.
            std::thread::spawn(move || acknowledge(signal));
            return;
        }
        Some(work) => {
            let message = format!("ended at once by {signal}, in the middle of a step");
            Failure::new(Code::Interrupted, message, work.go_on.clone())
        }
        None => {
            let message = format!("ended by {signal}");
            Failure::new(Code::Interrupted, message, "give the same command again")
        }
    };
    drop(under_way);
    end_at_once(failure, format);
}

fn acknowledge(signal: &str) {
    progress::interrupted(signal);
    let what = "the step in hand is finished, and no other is begun; a second one ends it at once";
    output::stderr(format!("paxos-ctl: {signal}: {what}\n").as_bytes());
}

/// Ends the program wherever it is.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "somebody insists, and the step in hand may take minutes"
)]
fn end_at_once(failure: Failure, format: Format) -> ! {
    let was_asked = passphrase::leave_terminal_for_good();
    child::end_all();
    login::forget_shared();
    // Whoever writes just now may hold the terminal for as long as it takes nothing.
    let (sender, said) = sync_channel::<()>(1);
    std::thread::spawn(move || {
        if was_asked {
            output::stderr(b"\n");
        }
        foot::take_away();
        super::ctl::fail(&failure, format);
        let _nobody_waits = sender.send(());
    });
    let _too_late = said.recv_timeout(LAST_WORDS_LIMIT);
    std::process::exit(Code::Interrupted.exit().into())
}
