//! What a person's program dials with, read from the files that an ssh_config names: a private key,
//! the certificate for it, and the host authorities of a known-hosts file.
//!
//! As strict as OpenSSH with `StrictHostKeyChecking yes`: a private key that others can read is
//! refused, and only `@cert-authority` lines count. Bare host keys are not believed here, so a
//! known-hosts file without such a line for the host is an error and not an invitation to ask.

use super::client::{ClientIdentity, HostCheck};
use super::keyfiles::{PrivateKeyFault, read_private_key};
use russh::keys::ssh_key::{Certificate, PrivateKey, PublicKey};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is nothing to dial with.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}: {source}; check the path in the ssh_config")]
    Read {
        /// What it should hold.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no {what} ({reason}); print a new ssh_config with paxos-ctl ssh-config")]
    Malformed {
        /// What it should hold.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// Others can read the private key.
    #[error(
        "the private key {path} has mode {mode:03o}, so others can read it; do: chmod 600 {path}"
    )]
    Exposed {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The private key needs a passphrase, which is the agent's business.
    #[error("the private key {path} has a passphrase; start an ssh-agent and do: ssh-add {path}")]
    Encrypted {
        /// Where.
        path: PathBuf,
    },
    /// There is neither a key file nor an agent.
    #[error("there is no key to dial with: no IdentityFile in the ssh_config and no SSH_AUTH_SOCK")]
    NoKey,
    /// Nobody vouches for the host.
    #[error(
        "{path} has no @cert-authority line for {host}, so the host cannot be checked; \
         print a new ssh_config with paxos-ctl ssh-config"
    )]
    NoAuthority {
        /// The known-hosts file.
        path: PathBuf,
        /// The host's principal.
        host: String,
    },
}

/// Reads the key and the certificate to dial with. A key with a passphrase, or without its file, is
/// looked for in the agent whose socket is given.
///
/// # Errors
/// [`CredentialsError`].
pub fn load_identity(
    key: Option<&Path>,
    certificate: Option<&Path>,
    agent: Option<&Path>,
) -> Result<ClientIdentity, CredentialsError> {
    let certificate = certificate.map(load_certificate).transpose()?.map(Box::new);
    let Some(path) = key else {
        let socket = agent.ok_or(CredentialsError::NoKey)?.to_owned();
        return Ok(ClientIdentity::Agent { socket, key: None, certificate });
    };
    let loaded = load_private_key(path);
    match (loaded, agent) {
        (Ok(key), _) => {
            let key = Arc::new(key);
            Ok(match certificate {
                Some(certificate) => ClientIdentity::Certificate { key, certificate },
                None => ClientIdentity::Key(key),
            })
        }
        (Err(CredentialsError::Encrypted { .. }), Some(socket)) => {
            with_agent(path, certificate, socket)
        }
        (Err(CredentialsError::Read { source, .. }), Some(socket))
            if source.kind() == io::ErrorKind::NotFound =>
        {
            with_agent(path, certificate, socket)
        }
        (Err(error), _) => Err(error),
    }
}

/// The agent's key is told from its others by the public file beside the private one.
fn with_agent(
    path: &Path,
    certificate: Option<Box<Certificate>>,
    socket: &Path,
) -> Result<ClientIdentity, CredentialsError> {
    let key = match &certificate {
        Some(certificate) => PublicKey::from(certificate.public_key().clone()),
        None => load_public_key(&path.with_extension("pub"))?,
    };
    Ok(ClientIdentity::Agent { socket: socket.to_owned(), key: Some(key), certificate })
}

/// Whom to believe about `host`, a host certificate's principal: the authorities that the
/// known-hosts file names for it.
///
/// # Errors
/// [`CredentialsError`], also when there is none.
pub fn load_host_check(known_hosts: &Path, host: &str) -> Result<HostCheck, CredentialsError> {
    let text = read("known-hosts file", known_hosts)?;
    let (mut believed, mut revoked) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let list = match fields.next() {
            Some("@cert-authority") => &mut believed,
            Some("@revoked") => &mut revoked,
            _ => continue,
        };
        let patterns = fields.next().unwrap_or_default();
        if !patterns.split(',').any(|pattern| matches_host(pattern, host)) {
            continue;
        }
        let key = fields.collect::<Vec<_>>().join(" ");
        let key = PublicKey::from_openssh(&key)
            .map_err(|error| malformed("key of a host or its authority", known_hosts, &error))?;
        list.push(key);
    }
    believed.retain(|key| !revoked.iter().any(|other| other.key_data() == key.key_data()));
    if believed.is_empty() {
        let (path, host) = (known_hosts.to_owned(), host.to_owned());
        return Err(CredentialsError::NoAuthority { path, host });
    }
    Ok(HostCheck::Authorities { believed, revoked })
}

/// `*` stands for any text; nothing else is special. Enough for what `paxos-ctl ssh-config` writes.
fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == host,
        Some((before, after)) => {
            !after.contains('*')
                && host.len() >= before.len() + after.len()
                && host.starts_with(before)
                && host.ends_with(after)
        }
    }
}

fn load_private_key(path: &Path) -> Result<PrivateKey, CredentialsError> {
    const WHAT: &str = "private key";
    read_private_key(path).map_err(|fault| match fault {
        PrivateKeyFault::Unreadable(source) => {
            CredentialsError::Read { what: WHAT, path: path.to_owned(), source }
        }
        PrivateKeyFault::Exposed { mode } => {
            CredentialsError::Exposed { path: path.to_owned(), mode }
        }
        PrivateKeyFault::Malformed(error) => malformed(WHAT, path, &error),
        PrivateKeyFault::Encrypted => CredentialsError::Encrypted { path: path.to_owned() },
    })
}

fn load_certificate(path: &Path) -> Result<Certificate, CredentialsError> {
    const WHAT: &str = "certificate";
    let text = read(WHAT, path)?;
    Certificate::from_openssh(text.trim()).map_err(|error| malformed(WHAT, path, &error))
}

fn load_public_key(path: &Path) -> Result<PublicKey, CredentialsError> {
    const WHAT: &str = "public key";
    let text = read(WHAT, path)?;
    PublicKey::from_openssh(text.trim()).map_err(|error| malformed(WHAT, path, &error))
}

fn malformed(what: &'static str, path: &Path, error: &dyn std::fmt::Display) -> CredentialsError {
    CredentialsError::Malformed { what, path: path.to_owned(), reason: error.to_string() }
}

fn read(what: &'static str, path: &Path) -> Result<String, CredentialsError> {
    std::fs::read_to_string(path).map_err(|source| CredentialsError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::ssh_key::{Algorithm, LineEnding};
    use std::os::unix::fs::PermissionsExt;

    fn key_file(directory: &Path, mode: u32) -> PathBuf {
        let key = PrivateKey::random(&mut rand_core(), Algorithm::Ed25519).unwrap();
        let path = directory.join("id");
        std::fs::write(&path, key.to_openssh(LineEnding::LF).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let public = key.public_key().to_openssh().unwrap();
        std::fs::write(directory.join("id.pub"), public).unwrap();
        path
    }

    fn rand_core() -> impl russh::keys::ssh_key::rand_core::CryptoRng {
        rand::rng()
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = key_file(directory.path(), 0o640);
        let error = load_identity(Some(&path), None, None).err().unwrap();
        assert!(matches!(error, CredentialsError::Exposed { mode: 0o640, .. }), "{error}");
        let path = key_file(directory.path(), 0o600);
        assert!(matches!(load_identity(Some(&path), None, None), Ok(ClientIdentity::Key(_))));
    }

    #[test]
    fn a_missing_key_is_looked_for_in_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = key_file(directory.path(), 0o600);
        std::fs::remove_file(&path).unwrap();
        let agent = Path::new("/agent.sock");
        let identity = load_identity(Some(&path), None, Some(agent));
        assert!(matches!(identity, Ok(ClientIdentity::Agent { key: Some(_), .. })));
        let error = load_identity(Some(&path), None, None).err().unwrap();
        assert!(matches!(error, CredentialsError::Read { .. }), "{error}");
        let error = load_identity(None, None, None).err().unwrap();
        assert!(matches!(error, CredentialsError::NoKey));
    }

    #[test]
    fn only_authorities_for_the_host_are_believed() {
        let directory = tempfile::tempdir().unwrap();
        let key = key_file(directory.path(), 0o600).with_extension("pub");
        let key = std::fs::read_to_string(key).unwrap();
        let known_hosts = directory.path().join("known_hosts");
        let check = |line: &str| {
            std::fs::write(&known_hosts, format!("# comment\n{line}\n")).unwrap();
            load_host_check(&known_hosts, "node1.local.paxos")
        };
        assert!(check(&format!("@cert-authority *.local.paxos {key}")).is_ok());
        assert!(check(&format!("@cert-authority other,node1.local.paxos {key} comment")).is_ok());
        for line in [
            format!("node1.local.paxos {key}"),
            format!("@revoked *.local.paxos {key}"),
            format!("@cert-authority *.other.paxos {key}"),
        ] {
            assert!(matches!(check(&line), Err(CredentialsError::NoAuthority { .. })), "{line}");
        }
        let both = "@cert-authority *.local.paxos";
        let revoked = check(&format!("{both} {key}\n@revoked *.local.paxos {key}"));
        assert!(matches!(revoked, Err(CredentialsError::NoAuthority { .. })), "it is revoked");
        let garbage = check("@cert-authority *.local.paxos ssh-ed25519 AAAA");
        assert!(matches!(garbage, Err(CredentialsError::Malformed { .. })));
    }
}
