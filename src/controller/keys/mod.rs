//! What lies in `keys/CLUSTER/`: the root key, the three authorities, and what they signed.
//!
//! ```text
//! root            root.pub            signs trust bundles, and nothing else; may be moved away
//! host-authority  peer-authority  operator-authority  (and .pub of each)
//! ROLE-authority.new  root.new        while one is replaced; the bundle says which of both signs
//! bundle                              the trust bundle that nodes are given; holds the cluster id
//! known_hosts                         one @cert-authority line per host authority
//! people/NAME     NAME.pub  NAME-cert.pub
//! nodes/NAME/     node_key.pub  host-cert.pub  peer-cert.pub     public halves only
//! serial  issued  revoked  lock       the next serial; what was issued, revoked; who is at work
//! ```
//!
//! [`ClusterKeys`] reads and never changes anything, so that a plan can be made with it. What is
//! missing is made by an [`Issuer`], which holds the lock.
//!
//! What must never happen: a private key that others can read is used; a node's private key comes
//! here; a second bundle with another cluster id is made for a cluster that has one.
//!
//! Here: [`issuer`] makes and signs, with what [`signers`] finds; [`issued`] lists and revokes,
//! [`authorities`] are the stages of a replacement, `certified` who was signed for, `error` why not, `openssh` is what the stock client reads.
//!
//! With the nodes: [`delivery`] has them take up what is here, `publish` puts the bundle into their
//! log as well, [`newest`] tells an old copy, [`rotate`] replaces an authority, [`rotate_node`] the
//! key of a node, [`renewal`] all certificates of a kind.

pub mod authorities;
mod certified;
pub mod delivery;
mod error;
pub mod issued;
pub mod issuer;
pub mod newest;
mod openssh;
mod publish;
pub mod renewal;
pub mod rotate;
pub mod rotate_node;
pub mod signers;

use crate::paxos::ballot::{ClusterId, NodeId};
use crate::transport::authority::{self, Certificate, PrivateKey, PublicKey};
use crate::transport::bundle::{AuthorityRole, Bundle, Revocation};
use crate::transport::identity::{self, TrustError};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authorities::new_authority_file;
pub use error::KeysError;
use issuer::authority_file;
pub use issuer::{IssuedPerson, Issuer};
pub use openssh::SshTarget;

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A node's certificate with less than this left is replaced: the first warning comes at this time.
const NODE_RENEW_LEFT: Duration = DAY.saturating_mul(30);

/// The operator's certificate is replaced with less than this left.
const OPERATOR_RENEW_LEFT: Duration = DAY.saturating_mul(7);

/// The certificate that `deploy` makes, and that the ssh_config names.
pub const OPERATOR: &str = "operator";

pub(super) const KNOWN_HOSTS: &str = "known_hosts";
pub(super) const SERIAL: &str = "serial";

/// Where a cluster's keys lie unless somebody says otherwise: beside the folder of the inventory.
pub fn default_directory(inventory: &Path, cluster: &str) -> PathBuf {
    let folder = inventory.parent().unwrap_or(Path::new(""));
    folder.join("..").join("keys").join(cluster)
}

/// A file for a node's keys directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Its name there.
    pub name: &'static str,
    /// Its permission bits.
    pub mode: u32,
    /// What it holds.
    pub text: String,
}

/// A person or application that comes with a plain key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainKey {
    /// Who.
    pub name: String,
    /// What they may do, in words separated by commas.
    pub rights: String,
    /// The key, as in a `.pub` file.
    pub key: String,
}

/// The keys of one cluster, for reading.
#[derive(Debug, Clone)]
pub struct ClusterKeys {
    pub(super) directory: PathBuf,
    pub(super) bundle: Bundle,
    signed_bundle: String,
    /// The one that signs now.
    root: PublicKey,
}

impl ClusterKeys {
    /// Reads the keys of `cluster`; none if they were never made. Changes nothing.
    ///
    /// # Errors
    /// When they are another cluster's, the bundle is missing or not believed, or others can read
    /// the root key or an authority's.
    pub fn open(directory: &Path, cluster: &str) -> Result<Option<ClusterKeys>, KeysError> {
        let Some(keys) = read_keys(directory)? else { return Ok(None) };
        if keys.bundle.cluster != cluster {
            let (directory, wanted) = (keys.directory, cluster.to_owned());
            let found = keys.bundle.cluster;
            return Err(KeysError::OtherCluster { directory, found, wanted });
        }
        keys.refuse_exposed()?;
        Ok(Some(keys))
    }

    /// The keys that sign are refused if others can read them, though they are not needed now: who
    /// has read one can make a node or an operator of his own at any time.
    fn refuse_exposed(&self) -> Result<(), KeysError> {
        let names = AuthorityRole::ALL.map(|role| [authority_file(role), new_authority_file(role)]);
        for name in names.iter().flatten() {
            let path = self.directory.join(name);
            let mode = match fs::metadata(&path) {
                Ok(metadata) => metadata.permissions().mode() & 0o777,
                // Moved away, as the root key may be; whoever needs it says so.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(KeysError::file("look at", &path)(error)),
            };
            if mode & 0o077 != 0 {
                return Err(TrustError::Exposed { path, mode }.into());
            }
        }
        Ok(())
    }

    /// As [`ClusterKeys::open`], when there must be keys.
    ///
    /// # Errors
    /// Also when there are none.
    pub fn open_existing(directory: &Path, cluster: &str) -> Result<ClusterKeys, KeysError> {
        ClusterKeys::open(directory, cluster)?.ok_or_else(|| KeysError::Missing {
            cluster: cluster.to_owned(),
            directory: directory.to_owned(),
        })
    }

    /// Where they lie, as an absolute path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cluster's identity, for its genesis.
    pub fn cluster_id(&self) -> ClusterId {
        self.bundle.cluster_id
    }

    /// The public key of the root that signs.
    pub fn root(&self) -> &PublicKey {
        &self.root
    }

    /// Whether this is a root key of the cluster, or was one.
    pub fn had_root(&self, root: &PublicKey) -> bool {
        let named = self.bundle.roots(&self.root);
        named.iter().any(|ours| ours.key_data() == root.key_data())
            || self.bundle.revokes_key(&authority::print(root)).is_some()
    }

    /// What the nodes are to believe.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The host authorities, for whoever dials a node.
    pub fn host_authorities(&self) -> Vec<PublicKey> {
        self.bundle.authorities(AuthorityRole::Host).cloned().collect()
    }

    /// Private key and certificate of a person, for whoever dials a node as them.
    ///
    /// # Errors
    /// When they are missing, or the key is readable by others.
    pub fn person(&self, name: &str) -> Result<(PrivateKey, Certificate), KeysError> {
        let key = authority::load_private_key(&self.person_path(name, ""))?;
        let path = self.person_path(name, "-cert.pub");
        match read_certificate(&path)? {
            Some(certificate) => Ok((key, certificate)),
            None => Err(KeysError::Malformed { path, reason: "it is missing".to_owned() }),
        }
    }

    /// Whether the operator's certificate is there and has time left.
    ///
    /// # Errors
    /// When a file cannot be read or a private key is readable by others.
    pub fn operator_is_current(&self, now: SystemTime) -> Result<bool, KeysError> {
        self.operator_has_left(now, OPERATOR_RENEW_LEFT)
    }

    fn operator_has_left(&self, now: SystemTime, left: Duration) -> Result<bool, KeysError> {
        if !exists(&self.person_path(OPERATOR, ""))? {
            return Ok(false);
        }
        let key = authority::load_private_key(&self.person_path(OPERATOR, ""))?;
        let certificate = read_certificate(&self.person_path(OPERATOR, "-cert.pub"))?;
        Ok(certificate.is_some_and(|certificate| {
            certificate.public_key() == key.public_key().key_data()
                && self.serves(AuthorityRole::Operator, &certificate)
                && has_left(&certificate, now, left)
        }))
    }

    /// Whether a node's certificates are here, for this key, and have time left.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn node_is_current(
        &self,
        name: &str,
        id: NodeId,
        public_line: &str,
        now: SystemTime,
    ) -> Result<bool, KeysError> {
        let subject = parse_public(&self.node_path(name, "node_key.pub"), public_line)?;
        let cluster = &self.bundle.cluster;
        let host = (AuthorityRole::Host, identity::host_principal(name, cluster));
        let peer = (AuthorityRole::Peer, identity::node_principal(id, cluster));
        let files = [identity::HOST_CERTIFICATE, identity::PEER_CERTIFICATE];
        for ((role, principal), file) in [host, peer].into_iter().zip(files) {
            let certificate = read_certificate(&self.node_path(name, file))?;
            let serves = certificate.is_some_and(|certificate| {
                certificate.public_key() == subject.key_data()
                    && certificate.valid_principals() == [principal]
                    && self.serves(role, &certificate)
                    && has_left(&certificate, now, NODE_RENEW_LEFT)
            });
            if !serves {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a node's certificates are here and have time left, for the key that it had the last
    /// time that it was certified.
    pub(super) fn certified(
        &self,
        name: &str,
        id: NodeId,
        now: SystemTime,
    ) -> Result<bool, KeysError> {
        match read_optional(&self.node_path(name, "node_key.pub"))? {
            Some(line) => self.node_is_current(name, id, &line, now),
            None => Ok(false),
        }
    }

    /// The files of a node's keys directory, its private key excepted, which only the node has. To
    /// be taken after [`ensure_node`](issuer::Issuer::ensure_node) ran for every node, since
    /// each is told of all.
    ///
    /// # Errors
    /// When the node has no certificates here, a file cannot be read, or a plain key makes no
    /// sense.
    pub fn node_files(&self, name: &str, people: &[PlainKey]) -> Result<Vec<KeyFile>, KeysError> {
        let file = |name, text| KeyFile { name, mode: 0o644, text };
        let mut files = vec![
            self.root_file(),
            self.bundle_file(),
            file(identity::PEOPLE, people_text(people)?),
            file(identity::MEMBERS, self.members_text()?),
        ];
        for certificate in [identity::HOST_CERTIFICATE, identity::PEER_CERTIFICATE] {
            let path = self.node_path(name, certificate);
            let text = read_optional(&path)?.ok_or_else(|| KeysError::Malformed {
                path,
                reason: "it is missing: deploy issues it".to_owned(),
            })?;
            files.push(file(certificate, text));
        }
        Ok(files)
    }

    /// The public key of the root that signs, as a node is given it.
    pub fn root_file(&self) -> KeyFile {
        let text = authority::public_line(&self.root);
        KeyFile { name: identity::ROOT, mode: 0o644, text }
    }

    /// The bundle, as a node is given it.
    pub fn bundle_file(&self) -> KeyFile {
        KeyFile { name: identity::BUNDLE, mode: 0o644, text: self.signed_bundle.clone() }
    }

    /// The nodes that there are keys of here, in their order.
    pub(super) fn node_directories(&self) -> Result<Vec<PathBuf>, KeysError> {
        let directory = self.directory.join("nodes");
        let mut names = Vec::new();
        if exists(&directory)? {
            let entries = fs::read_dir(&directory).map_err(KeysError::file("list", &directory))?;
            for entry in entries {
                names.push(entry.map_err(KeysError::file("list", &directory))?.file_name());
            }
        }
        names.sort();
        Ok(names.into_iter().map(|name| directory.join(name)).collect())
    }

    /// Every node's peer certificate, by name.
    fn members_text(&self) -> Result<String, KeysError> {
        let mut text = String::new();
        for node in self.node_directories()? {
            let path = node.join(identity::PEER_CERTIFICATE);
            text.push_str(&read_optional(&path)?.unwrap_or_default());
        }
        Ok(text)
    }

    pub(super) fn person_path(&self, name: &str, suffix: &str) -> PathBuf {
        self.directory.join("people").join(format!("{name}{suffix}"))
    }

    pub(super) fn node_path(&self, node: &str, file: &str) -> PathBuf {
        self.directory.join("nodes").join(node).join(file)
    }

    /// Whether the certificate is by the authority that signs now, and not revoked.
    pub(super) fn serves(&self, role: AuthorityRole, certificate: &Certificate) -> bool {
        self.current(role).is_some_and(|key| key.key_data() == certificate.signature_key())
            && self.revocation(role, certificate).is_none()
    }

    /// What revokes a certificate of this role, or its key.
    pub(super) fn revocation(
        &self,
        role: AuthorityRole,
        certificate: &Certificate,
    ) -> Option<&Revocation> {
        let key = PublicKey::from(certificate.public_key().clone());
        let issue = self.bundle.revokes_issue(role, certificate.serial(), certificate.key_id());
        issue.or_else(|| self.bundle.revokes_key(&authority::print(&key)))
    }
}

/// Reads the keys, whosever they are.
fn read_keys(directory: &Path) -> Result<Option<ClusterKeys>, KeysError> {
    let Some(signed_bundle) = read_optional(&directory.join(identity::BUNDLE))? else {
        return match was_used(directory)? {
            true => Err(incomplete(directory, "the bundle")),
            false => Ok(None),
        };
    };
    let directory = fs::canonicalize(directory).map_err(KeysError::file("find", directory))?;
    let pinned = read_public(&directory, &authority_file(AuthorityRole::Root))?;
    let pinned = pinned.ok_or_else(|| incomplete(&directory, identity::ROOT))?;
    let new = read_public(&directory, &new_authority_file(AuthorityRole::Root))?;
    let path = directory.join(identity::BUNDLE);
    let roots: Vec<_> = [&pinned].into_iter().chain(&new).collect();
    let bundle = Bundle::verify_by_any(&signed_bundle, &roots)
        .map_err(|source| KeysError::Bundle { path, source })?;
    let root = bundle.roots(&pinned).first().map_or(pinned.clone(), |root| PublicKey::clone(root));
    Ok(Some(ClusterKeys { directory, bundle, signed_bundle, root }))
}

/// Which cluster the bundle in this directory is of, if there is one that is believed.
pub(super) fn owner(directory: &Path) -> Result<Option<String>, KeysError> {
    Ok(read_keys(directory)?.map(|keys| keys.bundle.cluster))
}

/// Whether anything was ever signed here; the bundle must then be there.
fn was_used(directory: &Path) -> Result<bool, KeysError> {
    Ok(exists(&directory.join(SERIAL))? || exists(&directory.join(KNOWN_HOSTS))?)
}

fn incomplete(directory: &Path, missing: &'static str) -> KeysError {
    KeysError::Incomplete { directory: directory.to_owned(), missing }
}

/// Whether a key may be made under this name: a link that leads nowhere leads to one that is not
/// within reach now.
///
/// # Errors
/// When it cannot be told, and for such a link.
fn is_vacant(path: &Path) -> Result<bool, KeysError> {
    match (exists(path)?, fs::symlink_metadata(path)) {
        (true, _) => Ok(false),
        (false, Ok(_)) => {
            let reason = "it is a link to what is not there; mount it, or take the link away";
            Err(KeysError::Malformed { path: path.to_owned(), reason: reason.to_owned() })
        }
        (false, Err(_)) => Ok(true),
    }
}

pub(super) fn exists(path: &Path) -> Result<bool, KeysError> {
    path.try_exists().map_err(KeysError::file("look for", path))
}

pub(super) fn read_optional(path: &Path) -> Result<Option<String>, KeysError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeysError::file("read", path)(error)),
    }
}

pub(super) fn read_public(directory: &Path, name: &str) -> Result<Option<PublicKey>, KeysError> {
    let path = directory.join(format!("{name}.pub"));
    read_optional(&path)?.map(|text| parse_public(&path, &text)).transpose()
}

pub(super) fn parse_public(path: &Path, line: &str) -> Result<PublicKey, KeysError> {
    PublicKey::from_openssh(line.trim()).map_err(|error| KeysError::Malformed {
        path: path.to_owned(),
        reason: format!("no public key: {error}"),
    })
}

pub(super) fn read_certificate(path: &Path) -> Result<Option<Certificate>, KeysError> {
    let parse = |text: String| {
        Certificate::from_openssh(text.trim()).map_err(|error| KeysError::Malformed {
            path: path.to_owned(),
            reason: format!("no certificate: {error}"),
        })
    };
    read_optional(path)?.map(parse).transpose()
}

fn has_left(certificate: &Certificate, now: SystemTime, left: Duration) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + left).as_secs() < certificate.valid_before()
}

/// The file of plain keys, checked as the node will check it.
fn people_text(people: &[PlainKey]) -> Result<String, KeysError> {
    let mut text = String::new();
    for person in people {
        let name = person.name.clone();
        let line = person.line().map_err(|reason| KeysError::PlainKey { name, reason })?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}
