//! Making keys and signing certificates: what the controller does with the cluster's authorities.
//!
//! Each function that signs can make one kind of certificate only, so that no caller's mistake
//! turns the operator authority into one that makes nodes: a person's name cannot hold a colon, and
//! the principals are put together here. Nothing here reads a clock or decides how long anything is
//! valid.
//!
//! Private keys go to disk as files that only their owner can read, through a temporary file and a
//! rename, so that a key is there whole or not at all.

use super::authority_key::Signing;
use super::bundle::{AuthorityRole, fingerprint};
use super::checks::{FORCE_COMMAND, SOURCE_ADDRESS};
use super::identity::{self, TrustError, is_person_name};
use super::rights::Rights;
use super::source::AddressList;
use crate::paxos::ballot::NodeId;
use rand::Rng;

use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{Cipher, Kdf, KdfAlg, LineEnding};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use super::identity::{load_key_file, load_private_key};
pub use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};

/// Certificates are valid a little earlier than they are made, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From this second on.
    pub after: SystemTime,
    /// Until the second before this one.
    pub before: SystemTime,
}

impl Validity {
    /// From a little before `now` until `lifetime` after it.
    pub fn starting(now: SystemTime, lifetime: Duration) -> Validity {
        Validity { after: now - BACKDATE, before: now + lifetime }
    }
}

/// What a person's certificate shall say.
#[derive(Debug, Clone)]
pub struct PersonGrant {
    /// Whose it is.
    pub name: String,
    /// What they may do.
    pub rights: Rights,
    /// From where, as OpenSSH writes it; none for anywhere.
    pub source_addresses: Option<String>,
    /// The only command; none for any.
    pub force_command: Option<String>,
}

impl PersonGrant {
    /// What a person's certificate says; none if it is none of this cluster's. Judges nothing: who
    /// signed it is for the caller to know.
    pub fn of(certificate: &Certificate, cluster: &str) -> Option<PersonGrant> {
        let (person, right) =
            (identity::person_principal("", cluster), identity::right_principal("", cluster));
        let starting = |prefix| {
            let all = certificate.valid_principals().iter();
            all.filter_map(move |principal| principal.strip_prefix(prefix))
        };
        let option = |name: &str| certificate.critical_options().get(name).cloned();
        Some(PersonGrant {
            name: starting(person.as_str()).next()?.to_owned(),
            rights: Rights::from_words(starting(right.as_str())).ok()?,
            source_addresses: option(SOURCE_ADDRESS),
            force_command: option(FORCE_COMMAND),
        })
    }
}

/// Why a key or certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The library refused.
    #[error("cannot make {what}: {reason}; check the key that signs")]
    Library {
        /// What was to be made.
        what: String,
        /// Why not.
        reason: String,
    },
    /// An agent did not sign.
    #[error("cannot sign {what}: {reason}; see ssh-add -l, and confirm it where you are asked")]
    Refused {
        /// What was to be signed.
        what: String,
        /// What the agent said.
        reason: String,
    },
    /// A name that could be mistaken for something else.
    #[error(
        "{0:?} is no name for a person or application; \
         use up to 64 letters, digits and . _ @ + -, starting with a letter or digit"
    )]
    Name(String),
    /// A list of addresses that would let nobody in.
    #[error("the source addresses are not usable: {0}")]
    Source(String),
    /// A file could not be written.
    #[error("cannot write {path}: {source}; check the directory and the space on the disk")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key that is there cannot be used.
    #[error(transparent)]
    Load(#[from] TrustError),
}

/// Draws an ed25519 key.
///
/// # Errors
/// When the library cannot, which would be a defect.
pub fn new_key(comment: &str) -> Result<PrivateKey, IssueError> {
    let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
        .map_err(|error| library("a key", error))?;
    key.set_comment(comment);
    Ok(key)
}

/// The key, as it can only be used with this passphrase: to be tried as slowly as that of another,
/// for somebody may have chosen how slowly (`ssh-keygen -a`).
///
/// # Errors
/// When the library cannot, which would be a defect.
pub fn with_passphrase(
    key: &PrivateKey,
    passphrase: &[u8],
    like: &PrivateKey,
) -> Result<PrivateKey, IssueError> {
    let failed = |error| library("a key with a passphrase", error);
    let mut kdf = Kdf::new(KdfAlg::Bcrypt, &mut rand::rng()).map_err(failed)?;
    if let (Kdf::Bcrypt { rounds, .. }, Kdf::Bcrypt { rounds: chosen, .. }) = (&mut kdf, like.kdf())
    {
        *rounds = *chosen;
    }
    let check = rand::rng().next_u32();
    key.encrypt_with(Cipher::Aes256Ctr, kdf, check, passphrase).map_err(failed)
}

/// The public line of a key, as in a `.pub` file, with its line break.
pub fn public_line(key: &PublicKey) -> String {
    let line = key.to_openssh().expect("a key that was parsed or made can be written");
    format!("{}\n", line.trim_end())
}

/// The line of a certificate, as in a `-cert.pub` file, with its line break.
pub fn certificate_line(certificate: &Certificate) -> String {
    let line = certificate.to_openssh().expect("a certificate that was signed can be written");
    format!("{}\n", line.trim_end())
}

/// Signs what proves a node to those who dial it.
///
/// # Errors
/// When the authority cannot sign.
pub fn host_certificate(
    authority: &impl Signing,
    subject: &PublicKey,
    node: &str,
    cluster: &str,
    serial: u64,
    validity: Validity,
) -> Result<Certificate, IssueError> {
    let principal = identity::host_principal(node, cluster);
    let certificate = Unsigned {
        kind: CertType::Host,
        key_id: format!("{principal}/{serial}"),
        principals: vec![principal],
        options: Vec::new(),
    };
    certificate.sign(authority, subject, serial, validity)
}

/// Signs what proves a node to those it dials.
///
/// # Errors
/// When the authority cannot sign.
pub fn peer_certificate(
    authority: &impl Signing,
    subject: &PublicKey,
    id: NodeId,
    cluster: &str,
    serial: u64,
    validity: Validity,
) -> Result<Certificate, IssueError> {
    let principal = identity::node_principal(id, cluster);
    let certificate = Unsigned {
        kind: CertType::User,
        key_id: format!("{principal}/{serial}"),
        principals: vec![principal],
        options: Vec::new(),
    };
    certificate.sign(authority, subject, serial, validity)
}

/// Signs what proves a person or an application. It can never prove a node.
///
/// # Errors
/// When the name could be mistaken, the addresses are not understood, or the authority cannot sign.
pub fn person_certificate(
    authority: &impl Signing,
    subject: &PublicKey,
    grant: &PersonGrant,
    cluster: &str,
    serial: u64,
    validity: Validity,
) -> Result<Certificate, IssueError> {
    let PersonGrant { name, rights, source_addresses, force_command } = grant;
    if !is_person_name(name) {
        return Err(IssueError::Name(name.clone()));
    }
    let mut principals = vec![identity::person_principal(name, cluster)];
    let words = rights.words();
    principals.extend(words.iter().map(|word| identity::right_principal(word, cluster)));
    let mut options = Vec::new();
    if let Some(addresses) = source_addresses {
        addresses.parse::<AddressList>().map_err(IssueError::Source)?;
        options.push((SOURCE_ADDRESS, addresses.clone()));
    }
    if let Some(command) = force_command {
        options.push((FORCE_COMMAND, command.clone()));
    }
    let key_id = format!("{name}@{cluster}/{serial}");
    let certificate = Unsigned { kind: CertType::User, key_id, principals, options };
    certificate.sign(authority, subject, serial, validity)
}

struct Unsigned {
    kind: CertType,
    key_id: String,
    principals: Vec<String>,
    options: Vec<(&'static str, String)>,
}

impl Unsigned {
    fn sign(
        self,
        authority: &impl Signing,
        subject: &PublicKey,
        serial: u64,
        validity: Validity,
    ) -> Result<Certificate, IssueError> {
        let seconds = |time: SystemTime| {
            // A clock before 1970 makes certificates that are expired, not ones that never do.
            time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
        };
        let what = format!("certificate {:?}", self.key_id);
        let failed = |error| library(&what, error);
        let mut builder = Builder::new_with_random_nonce(
            &mut rand::rng(),
            subject.key_data().clone(),
            seconds(validity.after),
            seconds(validity.before),
        )
        .map_err(failed)?;
        builder.serial(serial).map_err(failed)?;
        builder.comment(self.key_id.clone()).map_err(failed)?;
        builder.key_id(self.key_id.clone()).map_err(failed)?;
        builder.cert_type(self.kind).map_err(failed)?;
        for principal in self.principals {
            builder.valid_principal(principal).map_err(failed)?;
        }
        for (option, value) in self.options {
            builder.critical_option(option, value).map_err(failed)?;
        }
        let unsigned = |error| match authority.refusal() {
            Some(reason) => IssueError::Refused { what: what.clone(), reason },
            None => library(&what, error),
        };
        builder.sign(authority).map_err(unsigned)
    }
}

fn library(what: &str, error: russh::keys::ssh_key::Error) -> IssueError {
    IssueError::Library { what: what.to_owned(), reason: error.to_string() }
}

/// How an authority's key file is commented: what it is, and of which cluster.
pub fn authority_comment(role: AuthorityRole, cluster: &str) -> String {
    format!("paxos {role} authority of {cluster}")
}

/// The fingerprint of a key as OpenSSH prints it.
pub fn print(key: &PublicKey) -> String {
    fingerprint(key)
}

/// Writes a private key so that only its owner can read it. An existing file is replaced whole.
///
/// # Errors
/// Names the file.
pub fn write_private_key(path: &Path, key: &PrivateKey) -> Result<(), IssueError> {
    write_file(path, private_text(key)?.as_bytes(), 0o600)
}

/// A private key as it stands in a file; forgotten when it is dropped.
pub(super) fn private_text(key: &PrivateKey) -> Result<impl Deref<Target = String>, IssueError> {
    key.to_openssh(LineEnding::LF).map_err(|error| library("a key file", error))
}

/// Writes a file whole: temporary name beside it, flushed, renamed, directory flushed.
///
/// # Errors
/// Names the file.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IssueError> {
    let attempt = || -> io::Result<()> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        // A name of its own, so that two writers never share a half-written file.
        let temporary = directory.join(format!(".{name}.{:016x}", rand::rng().next_u64()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_data()
            })
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // Best effort: the error that matters is the one before.
            fs::remove_file(&temporary).ok();
        }
        written?;
        // The rename is not there after a power cut unless the directory is flushed as well.
        Ok(rustix::fs::fsync(File::open(directory)?)?)
    };
    attempt().map_err(|source| IssueError::Write { path: path.to_owned(), source })
}
