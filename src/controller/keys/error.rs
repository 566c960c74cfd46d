//! Why keys could not be read or made, in words that say what to do next.
//!
//! What must never happen: a message that shows a key or a passphrase.

use crate::transport::authority::IssueError;
use crate::transport::bundle::{AuthorityRole, BundleError};
use crate::transport::identity::TrustError;
use crate::wire::failure::Code;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There are none.
    #[error(
        "there are no keys of cluster {cluster} in {directory}; \
         deploy makes them, or give --keys-dir"
    )]
    Missing {
        /// Whose.
        cluster: String,
        /// Where.
        directory: PathBuf,
    },
    /// They are another cluster's.
    #[error(
        "the keys in {directory} are those of cluster {found}, not of {wanted}; \
         give the directory of {wanted} with --keys-dir"
    )]
    OtherCluster {
        /// Where.
        directory: PathBuf,
        /// Whose they are.
        found: String,
        /// Whose they should be.
        wanted: String,
    },
    /// Something was signed with keys that are not there any more.
    #[error(
        "{directory} was in use, and {missing} is gone; \
         restore it from a backup, since a new one would make another cluster"
    )]
    Incomplete {
        /// Where.
        directory: PathBuf,
        /// What.
        missing: &'static str,
    },
    /// A file that is there and does not hold what it should.
    #[error("{path} is not usable: {reason}; restore it from a backup")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Somebody else is at work.
    #[error(
        "another paxos-ctl{} works with {directory} now; wait until it is done, or end it",
        .pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Busy {
        /// Where.
        directory: PathBuf,
        /// Which process, if it says so.
        pid: Option<u32>,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {what} {path}: {source}; check its owner and the space on the disk")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A lifetime that makes no sense.
    #[error("a certificate cannot be valid for {0:?}; give between 1 second and 366 days")]
    Lifetime(Duration),
    /// A plain key of the inventory.
    #[error("the key of {name} in the inventory is not usable: {reason}")]
    PlainKey {
        /// Whose.
        name: String,
        /// Why.
        reason: String,
    },
    /// A path that an ssh_config cannot hold.
    #[error(
        "{0:?} cannot be written into an ssh_config; \
         move the keys to a path without quotation marks, backslashes, dollar signs \
         and control characters"
    )]
    Path(PathBuf),
    /// A key that is to sign is not there.
    #[error(
        "the {role} key {print} is needed to sign, and is in none of {}, and {agent}; \
         put it back for as long as this takes, or into an ssh-agent (ssh-add, SSH_AUTH_SOCK)",
        .paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoSigner {
        /// What it vouches for.
        role: AuthorityRole,
        /// Its fingerprint.
        print: String,
        /// Where it was looked for.
        paths: Vec<PathBuf>,
        /// What came of asking an agent.
        agent: String,
    },
    /// A key that is to sign has a passphrase that is not to be had.
    #[error("{path} has a passphrase: {why}; {next}")]
    Locked {
        /// Which file.
        path: PathBuf,
        /// Why it stays locked.
        why: String,
        /// What to do.
        next: &'static str,
    },
    /// Somebody was asked for a passphrase, and wants the run to stop.
    #[error("stopped while it asked for a passphrase; give the same command again")]
    Interrupted,
    /// Nothing of that name or number was issued here.
    #[error("{0} was not issued with these keys; paxos-ctl keys list shows what was")]
    NotIssued(String),
    /// All that was issued has run out.
    #[error("every certificate of {0} has run out already; there is nothing to revoke")]
    RanOut(String),
    /// A name of a person and of a node.
    #[error("{0} is a node and a person; name the serial or the key file that is meant")]
    Ambiguous(String),
    /// An authority, which would take everybody with it.
    #[error(
        "{print} is the {role} authority, and whoever it vouched for would be cut off at once; \
         replace it: paxos-ctl keys rotate --authority {role}"
    )]
    RevokedAuthority {
        /// Its fingerprint.
        print: String,
        /// What it vouches for.
        role: AuthorityRole,
    },
    /// A key that no certificate would help any more.
    #[error("the key {print} of {name} is revoked; {next}")]
    RevokedKey {
        /// Whose.
        name: String,
        /// Its fingerprint.
        print: String,
        /// What to do.
        next: &'static str,
    },
    /// The bundle is not believed.
    #[error("{path}: {source}")]
    Bundle {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// A key that is there cannot be used.
    #[error(transparent)]
    Load(#[from] TrustError),
    /// A key or certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl KeysError {
    /// Whether nothing is wrong but that a key is not at hand.
    pub(super) fn is_unsigned(&self) -> bool {
        matches!(
            self,
            KeysError::NoSigner { .. }
                | KeysError::Locked { .. }
                | KeysError::Issue(IssueError::Refused { .. })
        )
    }

    /// The kind of failure, for the exit status.
    pub fn code(&self) -> Code {
        match self {
            KeysError::Busy { .. } => Code::Busy,
            KeysError::Lifetime(_)
            | KeysError::Ambiguous(_)
            | KeysError::Issue(IssueError::Name(_) | IssueError::Source(_)) => Code::Usage,
            KeysError::NotIssued(_) | KeysError::RanOut(_) => Code::NotFound,
            KeysError::Issue(IssueError::Refused { .. }) => Code::Denied,
            KeysError::Interrupted => Code::Interrupted,
            KeysError::File { .. } | KeysError::Issue(_) => Code::Internal,
            _ => Code::BadSettings,
        }
    }

    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeysError {
        let path = path.to_owned();
        move |source| KeysError::File { what, path, source }
    }
}
