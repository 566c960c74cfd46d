//! The far end: does on a host what the controller asks, as long as the controller is there.
//!
//! Started by hand of the controller alone, over ssh, with the rights of whoever logged in or of
//! root; it asks for nobody's name, because whoever can start it can do all of this without it. It
//! ends with its standard input, and leaves nothing running but the nodes that it was told to
//! start.

use super::agent_call::{Answer, Call, Hello, PROTOCOL};
use super::host::{Host, HostError};
use super::local::LocalHost;
use crate::wire::agent_frame::{read_frame, write_frame};
use std::io::{self, Read, Write};

/// The hidden word that makes the program an agent.
pub const AGENT: &str = "become-agent";

/// Answers calls until there are no more.
///
/// # Errors
/// When something else than a call comes, or nobody reads the answers.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    write_frame(&mut output, &Hello { protocol: PROTOCOL, version })?;
    loop {
        let call = match read_frame(|bytes| input.read_exact(bytes)) {
            Ok(call) => call,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        write_frame(&mut output, &answer(call))?;
    }
}

fn answer(call: Call) -> Answer {
    let host = LocalHost;
    let answered = match call {
        Call::Find { place, executable, files } => host
            .look(&place, &files, executable.map(|digest| digest.to_vec()).as_deref())
            .map(|found| Answer::Found(Box::new(found))),
        Call::EnsureNodeKey { place, comment } => {
            host.ensure_node_key(&place, &comment).map(Answer::Line)
        }
        Call::Receive { place, name, mode, bytes } => {
            host.receive(&place, &name, mode, &bytes).map(|()| Answer::Done)
        }
        Call::Adopt { place, executable } => host.adopt(&place, &executable).map(|()| Answer::Done),
        Call::Start(place) => host.start(&place).map(Answer::Pid),
        Call::Halt(place, how) => host.halt(&place, how).map(Answer::Halted),
        Call::LogTail(place, lines) => host.log_tail(&place, lines).map(Answer::Lines),
        Call::Remove(place) => host.remove(&place).map(Answer::Left),
    };
    answered.unwrap_or_else(|HostError { node: _, what, reason, hint }| Answer::Failed {
        what,
        reason,
        hint,
    })
}
