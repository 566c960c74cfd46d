//! What the log of a node that does not run holds, for whoever must choose among survivors.
//!
//! The node's own program reads it on its host, whole and without changing anything, and with no
//! more rights than the node's: whoever wrote a log can read it. That takes as long as the node's
//! start would.

use crate::controller::host::system;
use crate::controller::host::{HostError, Place, names};
use crate::wire::agent_frame::read_frame;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The hidden word that makes the program read the log of the node with these settings.
pub const SURVEY: &str = "survey-log";

/// How many bytes of votes a survivor tells, and as many are carried to another: in base64 they fit
/// into a frame between controller and agent, with room for what is around them.
pub const VOTES_BYTES_MAX: usize = 8 << 20;

/// So much of what the program complains about is shown.
const COMPLAINT_BYTES_MAX: u64 = 64 << 10;

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
pub(in crate::controller) fn remains(place: &Place) -> Result<Remains, HostError> {
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
    let mut child = command.spawn().map_err(|error| {
        failed(format!("{} cannot be run: {error}", place.executable().display()))
    })?;
    let told = match child.stdout.take() {
        Some(mut output) => read_frame(|part| output.read_exact(part)),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let mut complaint = Vec::new();
    if let (Err(_), Some(errors)) = (&told, child.stderr.take()) {
        // What came before it broke is worth showing.
        let _broken = errors.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint);
    }
    // It has said all that it will. Its account may be in somebody else's hands, who would have it
    // go on.
    let _ended_already = child.kill();
    let _status = child.wait();
    told.map_err(|error| match String::from_utf8_lossy(&complaint).trim() {
        "" => failed(format!("its program told something else: {error}")),
        complaint => failed(complaint.to_owned()),
    })
}
