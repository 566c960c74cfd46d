//! What the log of a node that does not run holds, for whoever must choose among survivors.
//!
//! The node's own program reads it on its host, whole and without changing anything, and with no
//! more rights than the node's: whoever wrote a log can read it. That takes as long as the node's
//! start would.

use super::host::{HostError, Place, names};
use super::system;
use crate::wire::agent_frame::read_frame;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The hidden word that makes the program read the log of the node with these settings.
pub const SURVEY: &str = "survey-log";

/// How many bytes of votes a survivor tells, and as many are carried to another: in base64 they fit
/// into a frame between controller and agent, with room for what is around them.
pub const VOTES_BYTES_MAX: usize = 8 << 20;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Remains {
    /// The cluster that the log is of, 32 hexadecimal digits; none if it never began.
    pub cluster_id: Option<String>,
    /// Which voter it is.
    pub generation: Option<u64>,
    /// Whether that voter may vote no more.
    pub fenced: bool,
    /// The number of the newest configuration that it knows to be chosen.
    pub configuration: u64,
    /// Every slot up to here is chosen.
    pub chosen: u64,
    /// The last slot of which it holds anything.
    pub last: u64,
    /// Slots above `chosen` whose chosen entry it knows.
    pub learned: Vec<u64>,
    /// Its votes above `chosen`, as they stand in the log.
    pub votes: Vec<ByteBuf>,
    /// Slots whose votes are not among them, because all together are too many bytes.
    pub left_out: Vec<u64>,
    /// How long ago the log was last written to; none if the host does not say.
    pub idle: Option<Duration>,
}

/// Has the log of the node at a place read.
///
/// # Errors
/// When the node runs, or its log cannot be read.
pub(super) fn remains(place: &Place) -> Result<Remains, HostError> {
    let failed = |reason: String| HostError {
        node: place.node.clone(),
        what: "read what its log holds".to_owned(),
        reason,
        hint: format!(
            "if it runs, stop it; if its program is older than paxos-ctl, use the paxos-ctl of its \
             version; only if its log is damaged, name {} among the lost",
            place.node
        ),
    };
    let mut command = Command::new(place.executable());
    command.arg(SURVEY).arg(place.path(names::SETTINGS));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let account = system::account_of(&place.layout).map_err(|error| failed(error.to_string()))?;
    if let Some(account) = account {
        // Where its account may enter.
        command.current_dir(&place.directory).uid(account.user).gid(account.group);
    }
    let output = command.output();
    let output = output.map_err(|error| {
        failed(format!("{} cannot be run: {error}", place.executable().display()))
    })?;
    match output.status.success() {
        true => {
            let mut bytes = output.stdout.as_slice();
            let read = read_frame(|part| std::io::Read::read_exact(&mut bytes, part));
            read.map_err(|error| failed(format!("its program told something else: {error}")))
        }
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
