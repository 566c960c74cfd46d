//! Words that this program says to itself, and that no help mentions.

use super::{exit, output, supervise, survey};
use crate::controller::host::agent::{self, AGENT};
use crate::controller::host::local::{DAEMONISE, SUPERVISE};
use crate::controller::host::process;
use crate::controller::host::unit::SERVE;
use crate::controller::recover::remains::SURVEY;
use crate::wire::failure::Code;
use std::ffi::OsString;
use std::path::Path;

/// Does what a hidden word says, if the first one is; gives the exit status then.
pub(super) fn run(args: &[OsString]) -> Option<u8> {
    let (word, rest) = args.get(1..)?.split_first()?;
    match word.to_str()? {
        DAEMONISE => Some(become_daemon(rest)),
        SUPERVISE => Some(supervise::run(rest)),
        SERVE => Some(become_service(rest)),
        AGENT => Some(become_agent()),
        SURVEY => Some(survey::run(rest)),
        _ => None,
    }
}

/// Ends in another program; only a failure comes back. See [`process::become_daemon`].
fn become_daemon(words: &[OsString]) -> u8 {
    let error = match words {
        [pid_file, dashes, command @ ..] if dashes == "--" => {
            process::become_daemon(Path::new(pid_file), command)
        }
        _ => std::io::Error::new(std::io::ErrorKind::InvalidInput, "PIDFILE -- COMMAND is needed"),
    };
    output::stderr(format!("paxos: cannot start the node: {error}\n").as_bytes());
    Code::Internal.exit()
}

/// As [`become_daemon`]; see [`process::become_service`].
fn become_service(words: &[OsString]) -> u8 {
    let error = match words {
        [directory, settings] => process::become_service(Path::new(directory), Path::new(settings)),
        _ => std::io::Error::new(std::io::ErrorKind::InvalidInput, "DIRECTORY SETTINGS is needed"),
    };
    output::stderr(format!("paxos: cannot start the node: {error}\n").as_bytes());
    Code::Internal.exit()
}

fn become_agent() -> u8 {
    match agent::serve(std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => exit::DONE,
        Err(error) => {
            output::stderr(format!("paxos: the agent ends: {error}\n").as_bytes());
            Code::Internal.exit()
        }
    }
}
