//! The seam between the controller and the places where nodes run.
//!
//! A [`Host`] is something that can look, receive a file, start a process and end it. The local one
//! does it with system calls; one that is reached over its sshd has an agent do the same there (see
//! [`remote`]), and nothing above this trait has to know.
//!
//! * [`local`] is this machine, laid out by [`system`] where there is root; [`process`] says whose
//!   process is whose, [`started`] with what a node was started, [`systemd`] runs one as a
//!   [unit](mod@unit), `ports` are those that somebody else has.
//! * [`remote`] is the near end of a host over ssh, and [`agent`] the far end; [`agent_call`] is
//!   what they say. [`login`] knocks, [`landing`] sends the program that becomes the agent, [`run`]
//!   runs a command there. [`everywhere`] is hosts of both kinds.
//! * [`lock`] keeps two controllers apart on a host. [`child`] is a program that works for this
//!   one while somebody may press Ctrl-C, `pipe` how it is read.

pub mod agent;
pub mod agent_call;
pub mod child;
pub mod everywhere;
pub mod landing;
pub mod local;
pub mod lock;
pub mod login;
mod pipe;
mod ports;
pub mod process;
pub mod remote;
pub mod run;
pub mod started;
pub mod system;
pub mod systemd;
pub mod unit;

use crate::controller::check::examine::Examiner;
use crate::controller::inventory::NodeSpec;
use crate::controller::plan::{FileState, PortHolder};
use crate::controller::recover::remains::Remains;
use crate::transport::confined::{self, Confined};
use crate::wire::report::StatusReport;
use lock::{Busy, Holder};
use login::Login;
use process::Identity;
use serde::{Deserialize, Serialize};
use started::Outdated;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Names in a node's data directory.
pub mod names {
    use crate::transport::identity;

    /// The copy of the executable.
    pub const EXECUTABLE: &str = "paxos";
    /// The node's settings.
    pub const SETTINGS: &str = "config.yaml";
    /// The genesis, until the node takes it up.
    pub const GENESIS: &str = "genesis.yaml";
    /// What an operator decreed, until the node takes it up.
    pub const DECREE: &str = crate::wire::decree::DECREE_FILE;
    /// Keys and certificates.
    pub const KEYS: &str = "keys";
    /// The acceptor's log.
    pub const LOG: &str = "log";
    /// What the process says.
    pub const OUTPUT: &str = "paxos.log";
    /// Its pid.
    pub const PID: &str = "paxos.pid";
    /// A checksum of what it was last started with; see [`started`](super::started).
    pub const STARTED: &str = "started";
    /// Which controller is at work; see [`lock`](crate::controller::host::lock).
    pub const LOCK: &str = "controller.lock";

    /// What lies in [`KEYS`] beside the node's private key: all that it is given.
    pub const KEY_FILES: [&str; 6] = [
        identity::ROOT,
        identity::BUNDLE,
        identity::PEOPLE,
        identity::MEMBERS,
        identity::HOST_CERTIFICATE,
        identity::PEER_CERTIFICATE,
    ];

    /// The newest trust bundle that was ever active.
    pub const BUNDLE: &str = crate::transport::keyring::KEPT;
    /// Its own socket.
    pub const SOCKET: &str = crate::wire::local::SOCKET_NAME;

    /// All that a node may leave in its data directory, and so all that is removed with it.
    pub const ALL: [&str; 13] = [
        EXECUTABLE, SETTINGS, GENESIS, DECREE, KEYS, BUNDLE, LOG, OUTPUT, PID, "store", SOCKET,
        STARTED, LOCK,
    ];
}

/// How a host is laid out for its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Everything in the data directory, of the account that logs in.
    Own,
    /// As a package would do it; see [`system`].
    System {
        /// Settings are called after it.
        cluster: String,
    },
}

/// Where a node's things are on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// Its data directory.
    pub directory: PathBuf,
    /// Addresses that it binds.
    pub listen: Vec<String>,
    /// Where things lie.
    pub layout: Layout,
    /// Whether a supervisor starts it again when it ends by itself.
    pub supervised: bool,
    /// How its host is reached, unless it is this machine. No business of the host's.
    #[serde(skip)]
    pub login: Option<Login>,
}

impl Place {
    /// The place of a node of an inventory.
    pub fn of(node: &NodeSpec) -> Place {
        Place {
            node: node.name.clone(),
            directory: node.data_dir.clone(),
            listen: node.listen.clone(),
            layout: node.layout.clone(),
            supervised: node.login.is_some(),
            login: node.login.clone(),
        }
    }

    /// A file or directory of the node's.
    pub fn path(&self, name: &str) -> PathBuf {
        match (&self.layout, name) {
            (Layout::System { .. }, names::EXECUTABLE) => self.executable(),
            (Layout::System { cluster }, names::SETTINGS) => system::settings_path(cluster),
            (Layout::System { cluster }, names::STARTED | names::LOCK) => {
                // Where the node's account cannot write.
                Path::new(system::SETTINGS).join(format!("{cluster}.{name}"))
            }
            _ => self.directory.join(name),
        }
    }

    /// Its data directory, which its own account may have filled with anything.
    ///
    /// # Errors
    /// When it is missing, or a link on a host where root works in it.
    pub fn open(&self) -> io::Result<Confined> {
        match self.layout {
            // A link to a directory of one's own is as good.
            Layout::Own => Confined::open_own(&self.directory),
            Layout::System { .. } => Confined::open(&self.directory),
        }
    }

    /// The bytes of a small file of the node's; none where there is no such file.
    ///
    /// # Errors
    /// When it cannot be read, or is none that a node has there.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let read = || {
            let path = self.path(name);
            let (above, name) = confined::split(&path)?;
            let folder = match above.strip_prefix(&self.directory).map(Path::to_str) {
                Ok(Some("")) => self.open()?,
                Ok(below) => self.open()?.folder(below.unwrap_or_default())?,
                // Where only root writes.
                Err(_elsewhere) => Confined::open(above)?,
            };
            folder.read_optional(name)
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read,
        }
    }

    /// What runs when the node is started.
    pub fn executable(&self) -> PathBuf {
        match &self.layout {
            Layout::Own => self.directory.join(names::EXECUTABLE),
            Layout::System { .. } => Path::new(system::CURRENT).join("paxos"),
        }
    }

    /// What tells the node's process from others.
    pub fn identity(&self) -> Identity {
        Identity {
            executable: self.executable(),
            any_version: matches!(self.layout, Layout::System { .. }),
            settings: self.path(names::SETTINGS),
            pid_file: self.path(names::PID),
        }
    }
}

/// What is on a host now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Found {
    /// Whether the data directory is there.
    pub directory: bool,
    /// Whether the log has anything in it.
    pub log: bool,
    /// Whether a genesis waits.
    pub genesis: bool,
    /// The node's process.
    pub running: Option<u32>,
    /// The executable, against the one it should be.
    pub executable: FileState,
    /// The public line of the node's key, if it has one.
    pub node_key: Option<String>,
    /// The bytes of those files that were asked for, where there are any; none for a missing one.
    pub files: Vec<Option<Vec<u8>>>,
    /// Addresses of the node that somebody else has.
    pub held: Vec<PortHolder>,
    /// What lies there now and is not what the node runs with.
    #[serde(default)]
    pub outdated: Outdated,
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The executable that should be there; without one nothing is compared.
    pub executable: Option<&'a Path>,
    /// Files in the data directory whose bytes are wanted.
    pub files: &'a [String],
}

/// What a node's host should do to its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// Ask it to hand over and end (SIGTERM).
    Gently,
    /// End it at once (SIGKILL).
    AtOnce,
}

/// How an attempt to halt a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halted {
    /// There was none.
    WasNotRunning,
    /// It is gone.
    Stopped(u32),
    /// It was told, and is still there.
    StillRunning(u32),
}

/// Something that a host could not do.
#[derive(Debug, Error)]
#[error("{node}: cannot {what}: {reason}")]
pub struct HostError {
    /// For which node.
    pub node: String,
    /// What was tried.
    pub what: String,
    /// What went wrong.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

/// A host of nodes: it can run a command and receive a file.
pub trait Host: Examiner + Send + Sync {
    /// Looks, and changes nothing.
    fn find(&self, place: &Place, wanted: &Wanted<'_>) -> Result<Found, HostError>;

    /// Makes the node's private key unless it has one; gives the public line. The private half
    /// stays there.
    fn ensure_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError>;

    /// Makes the key that is to take the place of the node's, unless there is one, and gives its
    /// public line; the node uses it as soon as its certificates are for it. The private half stays
    /// there.
    fn next_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError>;

    /// Makes the next key, whose certificates lie there, the node's only one; nothing if there is
    /// none.
    fn settle_node_key(&self, place: &Place) -> Result<(), HostError>;

    /// Puts a file whole into the node's data directory, which is made (0700) if it is missing.
    fn receive(&self, place: &Place, name: &str, mode: u32, bytes: &[u8]) -> Result<(), HostError>;

    /// As [`Host::receive`], for the executable.
    fn receive_executable(&self, place: &Place, source: &Path) -> Result<(), HostError>;

    /// Starts the node in a session of its own, its output appended to its log; gives the pid.
    fn start(&self, place: &Place) -> Result<u32, HostError>;

    /// Ends the node's process, and waits for that as long as the kind of halt allows.
    fn halt(&self, place: &Place, how: Halt) -> Result<Halted, HostError>;

    /// Has the node take up what lies in its keys directory (SIGHUP). Gives its pid; none if it
    /// does not run. What came of it is for the node to say.
    fn reload(&self, place: &Place) -> Result<Option<u32>, HostError>;

    /// What the node says of itself over the socket on its host, which asks for no key.
    fn status(&self, place: &Place) -> Result<StatusReport, HostError>;

    /// What the log of a node that does not run holds.
    fn survey(&self, place: &Place) -> Result<Remains, HostError>;

    /// The last lines of the node's log.
    fn log_tail(&self, place: &Place, lines: usize) -> Result<Vec<String>, HostError>;

    /// Keeps other controllers from the node's host until it is released or this program ends.
    /// Gives who has it, if somebody else does. Where nothing of ours is installed yet there is
    /// nothing to keep them from.
    fn hold(&self, place: &Place, holder: &Holder) -> Result<Option<Busy>, HostError>;

    /// Says that the holder is still at work, unless just now the host works for it.
    fn touch(&self, place: &Place) -> Result<(), HostError>;

    /// Lets other controllers to the host again.
    fn release(&self, place: &Place);

    /// Ends what still runs of a node and of whoever watches over it, and removes what it keeps and
    /// nothing else; gives what was left because it is not a node's.
    fn remove(&self, place: &Place) -> Result<Vec<PathBuf>, HostError>;
}
