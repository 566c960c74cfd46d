//! What the controller and its agent on a host say to one another.
//!
//! In frames of [`crate::wire::agent_frame`]. The agent begins with a [`Hello`]; then each [`Call`]
//! has one [`Answer`], in order. An agent of another protocol is not talked to: the two ends are
//! mostly the same program.

use super::lock::{Busy, Holder};
use super::{Found, Halt, Halted, Place};
use crate::controller::check::probe::Probed;
use crate::controller::check::trial_login::{Dial, Dialled};
use crate::controller::recover::remains::Remains;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What this program speaks. Raised by whatever an older one would misunderstand.
pub const PROTOCOL: u32 = 1;

/// SHA-256 of an executable.
pub type Digest = [u8; 32];

/// The first thing that an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its [`PROTOCOL`].
    pub protocol: u32,
    /// The program's version.
    pub version: String,
}

/// A method of [`Host`](super::Host), with what it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// Look, and change nothing.
    Find {
        /// Whose.
        place: Place,
        /// What its executable should be.
        executable: Option<Digest>,
        /// Files whose bytes are wanted.
        files: Vec<String>,
    },
    /// Make the node's key unless it has one.
    EnsureNodeKey {
        /// Whose.
        place: Place,
        /// The comment in its public line.
        comment: String,
    },
    /// Put a file whole.
    Receive {
        /// Whose.
        place: Place,
        /// Its name in the node's directory.
        name: String,
        /// Its mode.
        mode: u32,
        /// What is in it.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Make an executable that lies there already the node's.
    Adopt {
        /// Whose.
        place: Place,
        /// Where it lies.
        executable: PathBuf,
    },
    /// Start the node.
    Start(Place),
    /// End its process.
    Halt(Place, Halt),
    /// The last lines of its log.
    LogTail(Place, usize),
    /// Keep other controllers out.
    Hold(Place, Holder),
    /// The controller is still there.
    Touch(Place),
    /// Let others in.
    Release(Place),
    /// Remove what it keeps.
    Remove(Place),
    /// Look at the host, for a check.
    Probe(Place),
    /// Stand in for the node, which does not run.
    Listen {
        /// For whom, and where.
        place: Place,
        /// Its cluster.
        cluster: String,
        /// Public lines of those who may log in.
        callers: Vec<String>,
    },
    /// Do so no longer.
    Unlisten(Place),
    /// Log in at other hosts' nodes, or at those who stand in for them.
    Dial {
        /// From whose host.
        place: Place,
        /// At whose.
        to: Vec<Dial>,
    },
    /// Have the node take up its keys anew.
    Reload(Place),
    /// Ask the node how it is, by its socket.
    Status(Place),
    /// Read what its log holds, while it does not run.
    Survey(Place),
    /// Make the key that is to take the place of the node's, unless there is one.
    NextNodeKey {
        /// Whose.
        place: Place,
        /// The comment in its public line.
        comment: String,
    },
    /// Make that key the node's only one.
    SettleNodeKey(Place),
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// What was found.
    Found(Box<Found>),
    /// A line of text.
    Line(String),
    /// Lines of text.
    Lines(Vec<String>),
    /// The node's pid.
    Pid(u32),
    /// How halting ended.
    Halted(Halted),
    /// Who has the host, if not the one who asked.
    Held(Option<Busy>),
    /// What was left.
    Left(Vec<PathBuf>),
    /// What the host is like.
    Probed(Box<Probed>),
    /// What came of each dial.
    Dialled(Vec<Dialled>),
    /// Who was told, if anybody.
    Told(Option<u32>),
    /// What the log holds.
    Surveyed(Box<Remains>),
    /// It could not be done.
    Failed {
        /// What was tried.
        what: String,
        /// What went wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
}
