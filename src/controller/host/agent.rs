//! The far end: does on a host what the controller asks, as long as the controller is there.
//!
//! Started by hand of the controller alone, over ssh, with the rights of whoever logged in or of
//! root; it asks for nobody's name, because whoever can start it can do all of this without it. It
//! ends with its standard input, and leaves nothing running but the nodes that it was told to
//! start.

use super::agent_call::{Answer, Call, Hello, PROTOCOL};
use super::local::LocalHost;
use super::lock::TOUCH_EVERY;
use super::{Host, HostError};
use crate::controller::check::examine::Examiner;
use crate::controller::check::probe::probe;
use crate::wire::agent_frame::{read_frame, write_frame};
use crate::wire::build::Build;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

/// The hidden word that makes the program an agent.
pub const AGENT: &str = "become-agent";

/// Answers calls until there are no more.
///
/// # Errors
/// When something else than a call comes, or nobody reads the answers.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let version = Build::own().version.clone();
    write_frame(&mut output, &Hello { protocol: PROTOCOL, version })?;
    let agent = Agent::default();
    std::thread::scope(|threads| {
        let (_until_it_ends, ended) = sync_channel::<()>(0);
        threads.spawn(|| agent.keep_holding(ended));
        loop {
            let call = match read_frame(|bytes| input.read_exact(bytes)) {
                Ok(call) => call,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            agent.works.store(true, Ordering::Relaxed);
            let answer = agent.answer(call);
            agent.works.store(false, Ordering::Relaxed);
            write_frame(&mut output, &answer)?;
        }
    })
}

#[derive(Default)]
struct Agent {
    host: LocalHost,
    /// Whether a call is in hand.
    works: AtomicBool,
}

impl Agent {
    /// Touches what is held while a call is in hand, for its controller cannot then. At other times
    /// it is the controller's word that counts: it may be gone, and its connection not know.
    fn keep_holding(&self, ended: Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TOUCH_EVERY) {
            if self.works.load(Ordering::Relaxed) {
                self.host.holdings.touch_all();
            }
        }
    }

    fn answer(&self, call: Call) -> Answer {
        let answered = self.may(&call).and_then(|()| self.act(call));
        answered.unwrap_or_else(|HostError { node: _, what, reason, hint }| Answer::Failed {
            what,
            reason,
            hint,
        })
    }

    /// Whoever held the host and lost it to another changes nothing any more.
    fn may(&self, call: &Call) -> Result<(), HostError> {
        match call {
            Call::EnsureNodeKey { place, .. }
            | Call::NextNodeKey { place, .. }
            | Call::SettleNodeKey(place)
            | Call::Receive { place, .. }
            | Call::Adopt { place, .. }
            | Call::Start(place)
            | Call::Reload(place)
            | Call::Halt(place, _)
            | Call::Remove(place) => self.host.touch(place),
            Call::Find { .. }
            | Call::LogTail(..)
            | Call::Probe(_)
            | Call::Listen { .. }
            | Call::Unlisten(_)
            | Call::Status(_)
            | Call::Survey(_)
            | Call::Dial { .. }
            | Call::Hold(..)
            | Call::Touch(_)
            | Call::Release(_) => Ok(()),
        }
    }

    fn act(&self, call: Call) -> Result<Answer, HostError> {
        let host = &self.host;
        Ok(match call {
            Call::Find { place, executable, files } => {
                let digest = executable.map(|digest| digest.to_vec());
                Answer::Found(Box::new(host.look(&place, &files, digest.as_deref())?))
            }
            Call::EnsureNodeKey { place, comment } => {
                Answer::Line(host.ensure_node_key(&place, &comment)?)
            }
            Call::NextNodeKey { place, comment } => {
                Answer::Line(host.next_node_key(&place, &comment)?)
            }
            Call::SettleNodeKey(place) => {
                host.settle_node_key(&place)?;
                Answer::Done
            }
            Call::Receive { place, name, mode, bytes } => {
                host.receive(&place, &name, mode, &bytes)?;
                Answer::Done
            }
            Call::Adopt { place, executable } => {
                host.adopt(&place, &executable)?;
                Answer::Done
            }
            Call::Start(place) => Answer::Pid(host.start(&place)?),
            Call::Halt(place, how) => Answer::Halted(host.halt(&place, how)?),
            Call::LogTail(place, lines) => Answer::Lines(host.log_tail(&place, lines)?),
            Call::Hold(place, holder) => Answer::Held(host.hold(&place, &holder)?),
            Call::Touch(place) => {
                host.touch(&place)?;
                Answer::Done
            }
            Call::Release(place) => {
                host.release(&place);
                Answer::Done
            }
            Call::Remove(place) => Answer::Left(host.remove(&place)?),
            Call::Reload(place) => Answer::Told(host.reload(&place)?),
            Call::Status(place) => Answer::Line(host.status_text(&place)?),
            Call::Survey(place) => Answer::Surveyed(Box::new(host.survey(&place)?)),
            Call::Probe(place) => Answer::Probed(Box::new(probe(&place)?)),
            Call::Listen { place, cluster, callers } => {
                Answer::Line(host.stand_in(&place, &cluster, &callers)?)
            }
            Call::Unlisten(place) => {
                host.dismiss(&place)?;
                Answer::Done
            }
            Call::Dial { place, to } => Answer::Dialled(host.dial(&place, &to)?),
        })
    }
}
