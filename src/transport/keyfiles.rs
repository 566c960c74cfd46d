//! The files of a node's keys directory: their names, and reading them.
//!
//! A private key that others can read is refused, not repaired: whoever could read it may have done
//! so already. Nothing here judges what the files say about others; that is the business of
//! identity.

use super::bundle::{Bundle, BundleError};
use super::checks::check_dates;
use super::confined::Confined;
use super::node_key;
use super::refusal::Refusal;
use russh::keys::{Certificate, PrivateKey, PublicKey, ssh_key};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A node's private key, in its keys directory.
pub const NODE_KEY: &str = "node_key";
/// Proves the node to those who dial it.
pub const HOST_CERTIFICATE: &str = "host-cert.pub";
/// Proves the node to those it dials.
pub const PEER_CERTIFICATE: &str = "peer-cert.pub";
/// The signed trust bundle.
pub const BUNDLE: &str = "bundle";
/// The root's public key, by which the bundle is judged.
pub const ROOT: &str = "root.pub";
/// Plain keys of people: `NAME RIGHTS KEY` on each line. May be missing.
pub const PEOPLE: &str = "people";
/// Peer certificates of the members, one on each line. May be missing.
pub const MEMBERS: &str = "members.pub";

/// Files of keys are small; reading stops here, whatever lies there.
const KEY_FILE_BYTES_MAX: u64 = 16 << 20;

/// Why keys cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file is missing or cannot be read.
    #[error(
        "cannot read {path}: {source}; deploy again: what is missing is made or delivered anew"
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A private key that others can read.
    #[error("{path} is readable by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that does not hold what it should.
    #[error("{path} is not usable: {reason}; deploy again to deliver it")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The bundle is not believed.
    #[error("{path}: {source}")]
    Bundle {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
}

impl TrustError {
    pub(super) fn malformed(path: &Path, reason: impl ToString) -> TrustError {
        TrustError::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Why a file gives no private key to use. Node and person are each told in their own words.
pub(super) enum PrivateKeyFault {
    Unreadable(io::Error),
    Exposed { mode: u32 },
    Malformed(ssh_key::Error),
    Encrypted,
}

/// This node's own keys.
#[derive(Debug, Clone)]
pub struct NodeKeys {
    /// The private key that the host certificate is for.
    pub host_key: Arc<PrivateKey>,
    /// Proves it to those who dial it.
    pub host_certificate: Certificate,
    /// The private key that the peer certificate is for: the same, but for the moment at which the
    /// node's key is replaced.
    pub peer_key: Arc<PrivateKey>,
    /// Proves it to those it dials.
    pub peer_certificate: Certificate,
}

impl NodeKeys {
    /// Reads a node's keys directory: [`HOST_CERTIFICATE`], [`PEER_CERTIFICATE`], and for each the
    /// private key that it is for (see [`node_key`]).
    ///
    /// # Errors
    /// When one is missing or not usable, others can read a private key, or a certificate is for
    /// another key.
    pub fn load(directory: &Path) -> Result<NodeKeys, TrustError> {
        NodeKeys::load_from(directory)
    }

    /// As [`NodeKeys::load`], for somebody with more rights than the directory's owner.
    ///
    /// # Errors
    /// As there, and where a file is none that a node has there.
    pub fn load_confined(directory: &Confined) -> Result<NodeKeys, TrustError> {
        NodeKeys::load_from(directory)
    }

    fn load_from(directory: &(impl KeyFolder + ?Sized)) -> Result<NodeKeys, TrustError> {
        let load = |name: &str| -> Result<_, TrustError> {
            let certificate = certificate_in(directory, name)?;
            let key = node_key::private_for(directory, &certificate, name)?;
            Ok((Arc::new(key), certificate))
        };
        // Named first where it is missing, for all else is made from it.
        private_key_in(directory, NODE_KEY)?;
        let (host_key, host_certificate) = load(HOST_CERTIFICATE)?;
        let (peer_key, peer_certificate) = load(PEER_CERTIFICATE)?;
        Ok(NodeKeys { host_key, host_certificate, peer_key, peer_certificate })
    }

    /// Whether the certificate that proves this node to those it dials has run out.
    pub fn peer_certificate_expired(&self, now: SystemTime) -> bool {
        matches!(check_dates(&self.peer_certificate, now), Err(Refusal::Expired { .. }))
    }
}

/// Reads the root's public key from a keys directory.
pub(super) fn load_root(directory: &Path) -> Result<PublicKey, TrustError> {
    let path = directory.join(ROOT);
    PublicKey::from_openssh(read(&path)?.trim())
        .map_err(|error| TrustError::malformed(&path, error))
}

/// Reads a bundle that one of these root keys signed, and gives its signed text as well.
pub(super) fn load_bundle(
    path: &Path,
    roots: &[&PublicKey],
) -> Result<(Bundle, String), TrustError> {
    let signed = read(path)?;
    let bundle = Bundle::verify_by_any(&signed, roots)
        .map_err(|source| TrustError::Bundle { path: path.to_owned(), source })?;
    Ok((bundle, signed))
}

/// As [`load_bundle`], of a bundle that this node wrote there itself when it believed it: also if a
/// root key signed it that it names. This shows that it is whole.
pub(super) fn load_own_bundle(
    path: &Path,
    root: &PublicKey,
) -> Result<(Bundle, String), TrustError> {
    let signed = read(path)?;
    let bundle = Bundle::verify_own(&signed, root)
        .map_err(|source| TrustError::Bundle { path: path.to_owned(), source })?;
    Ok((bundle, signed))
}

/// Where the files of a keys directory are read from.
pub(super) trait KeyFolder {
    /// What is in a file, and its permission bits.
    fn text(&self, name: &str) -> io::Result<(String, u32)>;

    /// Its path, for people.
    fn path_of(&self, name: &str) -> PathBuf;
}

impl KeyFolder for Path {
    fn text(&self, name: &str) -> io::Result<(String, u32)> {
        text_and_mode(&self.join(name))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.join(name)
    }
}

impl KeyFolder for Confined {
    fn text(&self, name: &str) -> io::Result<(String, u32)> {
        let (bytes, mode) = self.read(name)?;
        let text = String::from_utf8(bytes);
        Ok((text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?, mode))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

pub(super) fn private_key_in(
    folder: &(impl KeyFolder + ?Sized),
    name: &str,
) -> Result<PrivateKey, TrustError> {
    let key = folder.text(name).map_err(PrivateKeyFault::Unreadable);
    key.and_then(private_key_of).map_err(|fault| fault.at(&folder.path_of(name)))
}

pub(super) fn certificate_in(
    folder: &(impl KeyFolder + ?Sized),
    name: &str,
) -> Result<Certificate, TrustError> {
    let path = folder.path_of(name);
    let read = |source| TrustError::Read { path: path.clone(), source };
    let (text, _mode) = folder.text(name).map_err(read)?;
    Certificate::from_openssh(text.trim()).map_err(|error| TrustError::malformed(&path, error))
}

/// Reads a private key that only its owner can read.
///
/// # Errors
/// When it is missing, encrypted, no key, or readable by others.
pub fn load_private_key(path: &Path) -> Result<PrivateKey, TrustError> {
    read_private_key(path).map_err(|fault| fault.at(path))
}

/// Reads a private key that only its owner can read, and that may have a passphrase: its public
/// half can be told without.
///
/// # Errors
/// When it is missing, no key, or readable by others.
pub fn load_key_file(path: &Path) -> Result<PrivateKey, TrustError> {
    let file = text_and_mode(path).map_err(PrivateKeyFault::Unreadable);
    file.and_then(any_private_key_of).map_err(|fault| fault.at(path))
}

impl PrivateKeyFault {
    fn at(self, path: &Path) -> TrustError {
        match self {
            PrivateKeyFault::Unreadable(source) => {
                TrustError::Read { path: path.to_owned(), source }
            }
            PrivateKeyFault::Exposed { mode } => {
                TrustError::Exposed { path: path.to_owned(), mode }
            }
            PrivateKeyFault::Malformed(error) => {
                TrustError::malformed(path, format!("no private key: {error}"))
            }
            PrivateKeyFault::Encrypted => {
                TrustError::malformed(path, "it has a passphrase, which nobody here can type")
            }
        }
    }
}

pub(super) fn read_private_key(path: &Path) -> Result<PrivateKey, PrivateKeyFault> {
    private_key_of(text_and_mode(path).map_err(PrivateKeyFault::Unreadable)?)
}

/// The one place where a private key is taken from a file.
fn any_private_key_of((text, mode): (String, u32)) -> Result<PrivateKey, PrivateKeyFault> {
    if mode & 0o077 != 0 {
        return Err(PrivateKeyFault::Exposed { mode });
    }
    PrivateKey::from_openssh(text).map_err(PrivateKeyFault::Malformed)
}

fn private_key_of(file: (String, u32)) -> Result<PrivateKey, PrivateKeyFault> {
    let key = any_private_key_of(file)?;
    match key.is_encrypted() {
        true => Err(PrivateKeyFault::Encrypted),
        false => Ok(key),
    }
}

fn text_and_mode(path: &Path) -> io::Result<(String, u32)> {
    // Read before its mode is judged: of what is no readable file, that is the thing to say.
    let text = read_text(path)?;
    Ok((text, std::fs::metadata(path)?.permissions().mode() & 0o777))
}

pub(super) fn read(path: &Path) -> Result<String, TrustError> {
    read_text(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })
}

/// A file of keys, up to [`KEY_FILE_BYTES_MAX`].
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

pub(super) fn read_optional(path: &Path) -> Result<String, TrustError> {
    match read(path) {
        Err(TrustError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(String::new())
        }
        result => result,
    }
}
