//! A node's private key on its own host, and the one that takes its place.
//!
//! ```text
//! node_key      node_key.pub          the node's key
//! node_key.new  node_key.new.pub      the next one, from the moment when it is made until it is
//!                                     the only one
//! ```
//!
//! Which of the two is used is told by the certificates: each is used with the key that it is for.
//! So certificates may be replaced one after the other, and a node that is started between two of
//! the files runs with what lies there. No rename decides anything: [`settle`] is done when both
//! certificates are for the next key, and can be done again.
//!
//! What must never happen: a private key leaves the directory; one is removed that a certificate
//! beside it is for.

use super::authority::{IssueError, new_key, private_text, public_line};
use super::confined::Confined;
use super::keyfiles::{
    HOST_CERTIFICATE, KeyFolder, NODE_KEY, PEER_CERTIFICATE, TrustError, certificate_in,
    private_key_in,
};
use russh::keys::{Certificate, PrivateKey, PublicKey};
use std::io;

/// The next private key, while a node's key is replaced.
pub const NEXT_NODE_KEY: &str = "node_key.new";

/// The private key that a certificate in this directory is for.
///
/// # Errors
/// When it is neither of the node's, or the file cannot be used.
pub(super) fn private_for(
    directory: &(impl KeyFolder + ?Sized),
    certificate: &Certificate,
    name: &str,
) -> Result<PrivateKey, TrustError> {
    let key = private_key_in(directory, NODE_KEY)?;
    if certificate.public_key() == key.public_key().key_data() {
        return Ok(key);
    }
    match private_key_in(directory, NEXT_NODE_KEY) {
        Ok(key) if certificate.public_key() == key.public_key().key_data() => return Ok(key),
        Err(error) if !is_missing(&error) => return Err(error),
        _ => {}
    }
    let reason = format!("it is for another key than {NODE_KEY}");
    Err(TrustError::malformed(&directory.path_of(name), reason))
}

fn is_missing(error: &TrustError) -> bool {
    matches!(error, TrustError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// The public line of the key that the node's host certificate is for, as far as the public halves
/// say; of [`NODE_KEY`] where there is no certificate yet. None where there is no key.
///
/// # Errors
/// When a file cannot be read.
pub fn line_in_use(directory: &Confined) -> io::Result<Option<String>> {
    let text = |name: &str| -> io::Result<Option<String>> {
        Ok(directory.read_optional(name)?.and_then(|bytes| String::from_utf8(bytes).ok()))
    };
    // A public half alone is no key: the node could not prove that it is its own.
    let line = |name: &str| match directory.has(name)? {
        true => text(&format!("{name}.pub")),
        false => Ok(None),
    };
    let (line, next) = (line(NODE_KEY)?, line(NEXT_NODE_KEY)?);
    let certificate = text(HOST_CERTIFICATE)?;
    let certificate = certificate.and_then(|text| Certificate::from_openssh(text.trim()).ok());
    let is_for = |line: &String| {
        let key = PublicKey::from_openssh(line.trim()).ok();
        let certified = certificate.as_ref().map(Certificate::public_key);
        key.is_some_and(|key| Some(key.key_data()) == certified)
    };
    Ok(next.filter(is_for).or(line))
}

/// Makes a node's key in its keys directory, unless there is one, and gives the public half of the
/// one in use. Runs on the node's own host, which the key never leaves.
///
/// # Errors
/// When a key that is there cannot be used, or a new one cannot be written.
pub fn ensure(directory: &Confined, comment: &str) -> Result<PublicKey, IssueError> {
    let key = ensure_at(directory, NODE_KEY, comment)?;
    let in_use = line_in_use(directory).ok().flatten();
    let in_use = in_use.and_then(|line| PublicKey::from_openssh(line.trim()).ok());
    Ok(in_use.unwrap_or(key))
}

/// Makes the key that is to take the place of the node's, unless there is one, and gives its public
/// half. The node goes on with the key that its certificates are for.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_next(directory: &Confined, comment: &str) -> Result<PublicKey, IssueError> {
    // One that is used already is none to come.
    let next = directory.read_optional(&format!("{NEXT_NODE_KEY}.pub"));
    let in_use = line_in_use(directory).ok().flatten();
    if in_use.is_some_and(|line| matches!(next, Ok(Some(next)) if next == line.as_bytes())) {
        settle(directory)?;
    }
    ensure_at(directory, NEXT_NODE_KEY, comment)
}

fn ensure_at(directory: &Confined, name: &str, comment: &str) -> Result<PublicKey, IssueError> {
    let key = match private_key_in(directory, name) {
        Ok(key) => key,
        Err(error) if is_missing(&error) => {
            let key = new_key(comment)?;
            write(directory, name, private_text(&key)?.as_bytes(), 0o600)?;
            key
        }
        Err(error) => return Err(error.into()),
    };
    // While it is replaced the public half of the next key may lie here already; see `settle`.
    let is_settling = name == NODE_KEY && is_next(directory, &format!("{NODE_KEY}.pub"));
    if !is_settling {
        let public = public_line(key.public_key());
        write(directory, &format!("{name}.pub"), public.as_bytes(), 0o644)?;
    }
    Ok(key.public_key().clone())
}

fn write(directory: &Confined, name: &str, bytes: &[u8], mode: u32) -> Result<(), IssueError> {
    let path = directory.path_of(name);
    directory.write(name, bytes, mode).map_err(|source| IssueError::Write { path, source })
}

/// Whether a public file holds the next key.
fn is_next(directory: &Confined, public: &str) -> bool {
    let read = |name: &str| directory.read_optional(name).ok().flatten();
    let next = read(&format!("{NEXT_NODE_KEY}.pub"));
    next.is_some() && next == read(public)
}

/// Makes the next key the only one, if there is one.
///
/// # Errors
/// When a certificate is for the key before, or a file cannot be written.
pub fn settle(directory: &Confined) -> Result<(), IssueError> {
    let path = directory.path_of(NODE_KEY);
    let failed = |source| IssueError::Write { path: path.clone(), source };
    if directory.has(NEXT_NODE_KEY).map_err(failed)? {
        let key = private_key_in(directory, NEXT_NODE_KEY)?;
        for name in [HOST_CERTIFICATE, PEER_CERTIFICATE] {
            let certificate = certificate_in(directory, name)?;
            if certificate.public_key() != key.public_key().key_data() {
                let reason = format!("it is for another key than {NEXT_NODE_KEY}");
                return Err(TrustError::malformed(&directory.path_of(name), reason).into());
            }
        }
        // The public half first: whoever looks takes the one that the certificate is for.
        let public = public_line(key.public_key());
        write(directory, &format!("{NODE_KEY}.pub"), public.as_bytes(), 0o644)?;
        directory.rename(NEXT_NODE_KEY, NODE_KEY).map_err(failed)?;
    }
    directory.remove(&format!("{NEXT_NODE_KEY}.pub")).map_err(failed)?;
    directory.sync().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::authority::{
        Validity, certificate_line, host_certificate, peer_certificate, write_file,
    };
    use super::super::keyfiles::NodeKeys;
    use super::*;
    use crate::paxos::ballot::NodeId;
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    fn certify(directory: &Path, signer: &PrivateKey, key: &PublicKey, name: &str) {
        let valid = Validity::starting(SystemTime::now(), Duration::from_secs(60));
        let signed = match name {
            HOST_CERTIFICATE => host_certificate(signer, key, "n", "c", 1, valid),
            _ => peer_certificate(signer, key, NodeId(1), "c", 2, valid),
        };
        let line = certificate_line(&signed.unwrap());
        write_file(&directory.join(name), line.as_bytes(), 0o644).unwrap();
    }

    #[test]
    fn at_each_step_a_node_starts_and_its_key_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        let confined = &Confined::open(directory).unwrap();
        let signer = new_key("").unwrap();
        assert_eq!(line_in_use(confined).unwrap(), None);
        let old = ensure(confined, "n").unwrap();
        let in_use = || {
            let line = line_in_use(confined).unwrap().unwrap();
            let key = PublicKey::from_openssh(line.trim()).unwrap();
            assert_eq!(ensure(confined, "n").unwrap(), key, "a deployment is told the same");
            assert_eq!(line_in_use(confined).unwrap().unwrap(), line, "and changes nothing");
            key
        };
        // What the node's two certificates are used with.
        let starts = || {
            let NodeKeys { host_key, peer_key, .. } = NodeKeys::load(directory).unwrap();
            (host_key.public_key().clone(), peer_key.public_key().clone())
        };
        assert_eq!(in_use(), old);
        certify(directory, &signer, &old, HOST_CERTIFICATE);
        certify(directory, &signer, &old, PEER_CERTIFICATE);
        let next = ensure_next(confined, "n").unwrap();
        assert_eq!(ensure_next(confined, "n").unwrap(), next, "once");
        assert_ne!(next, old);
        assert_eq!((in_use(), starts()), (old.clone(), (old.clone(), old.clone())));
        assert!(settle(confined).is_err(), "nobody vouches for it yet");
        certify(directory, &signer, &next, HOST_CERTIFICATE);
        assert_eq!((in_use(), starts()), (next.clone(), (next.clone(), old.clone())));
        assert!(settle(confined).is_err(), "the other one is needed still");
        certify(directory, &signer, &next, PEER_CERTIFICATE);
        let both = (next.clone(), next.clone());
        assert_eq!((in_use(), starts()), (next.clone(), both.clone()));
        // Ended between the files, at the one place and at the other.
        let public = |name: &str| directory.join(format!("{name}.pub"));
        fs::copy(public(NEXT_NODE_KEY), public(NODE_KEY)).unwrap();
        assert_eq!((in_use(), starts()), (next.clone(), both.clone()));
        fs::rename(directory.join(NEXT_NODE_KEY), directory.join(NODE_KEY)).unwrap();
        assert_eq!((in_use(), starts()), (next.clone(), both.clone()));
        for _twice in 0..2 {
            settle(confined).unwrap();
            assert_eq!((in_use(), starts()), (next.clone(), both.clone()));
        }
        // The next after this one, also where that was not made the only one.
        let third = ensure_next(confined, "n").unwrap();
        assert_ne!(third, next);
        certify(directory, &signer, &third, HOST_CERTIFICATE);
        certify(directory, &signer, &third, PEER_CERTIFICATE);
        assert_ne!(ensure_next(confined, "n").unwrap(), third);
        assert_eq!(in_use(), third);
        fs::remove_file(directory.join(NEXT_NODE_KEY)).unwrap();
        settle(confined).unwrap();
        let left = fs::read_dir(directory).unwrap().count();
        assert_eq!(left, 4, "two halves of a key, two certificates");
    }
}
