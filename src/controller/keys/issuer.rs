//! Makes what is missing in `keys/CLUSTER/`: keys, the bundle, certificates.
//!
//! Each step is idempotent and leaves the directory usable: files appear whole, a serial is spent
//! before it is used, a certificate is noted before it is handed out, and the bundle, which names
//! the authorities, comes last. One controller at a time: an [`Issuer`] holds the lock while it
//! lives.

use super::signers::{AskPassphrase, Signers};
use super::{
    ClusterKeys, DAY, KNOWN_HOSTS, KeysError, OPERATOR, OPERATOR_RENEW_LEFT, SERIAL, SshTarget,
    exists, is_vacant, parse_public, read_optional, read_public,
};
use crate::paxos::ballot::{ClusterId, NodeId};
use crate::transport::authority::{
    self, Algorithm, Certificate, IssueError, PersonGrant, PrivateKey, PublicKey, Validity,
};
use crate::transport::authority_key::AuthorityKey;
use crate::transport::bundle::{Authority, AuthorityRole, AuthorityStage, Bundle};
use crate::transport::identity;
use crate::transport::rights::Rights;
use rand::RngExt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a node's certificates are valid. A tenth of it at random is taken off, so that a
/// cluster made in one go does not expire in one go.
const NODE_LIFETIME: Duration = DAY.saturating_mul(90);

/// How long the operator's certificate of a cluster on this machine is valid.
pub const OPERATOR_LIFETIME: Duration = DAY.saturating_mul(30);

/// Certificates for people may not outlive this: whoever wants longer lists a plain key.
pub(super) const PERSON_LIFETIME_MAX: Duration = DAY.saturating_mul(366);

/// What a node has certificates as.
pub(in crate::controller) const NODE_ROLES: [AuthorityRole; 2] =
    [AuthorityRole::Host, AuthorityRole::Peer];

/// The root's private key; its public half is [`identity::ROOT`].
const ROOT: &str = "root";

pub(in crate::controller) const ISSUED: &str = "issued";
pub(in crate::controller) const LOCK: &str = "lock";

/// What was issued to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedPerson {
    /// Serial of the certificate.
    pub serial: u64,
    /// `NAME@CLUSTER/SERIAL`.
    pub key_id: String,
    /// The private key, if it lies here.
    pub key: Option<PathBuf>,
    /// The certificate.
    pub certificate: PathBuf,
    /// When it expires.
    pub valid_before: SystemTime,
}

/// The keys of one cluster, for making what is missing. Holds the lock while it lives.
#[derive(Debug)]
pub struct Issuer {
    pub(super) keys: ClusterKeys,
    pub(super) signers: Signers,
    _lock: File,
}

impl Issuer {
    /// Takes the lock, reads the keys of `cluster`, and makes those that were never made: root, the
    /// three authorities, the bundle at epoch 1, known_hosts.
    ///
    /// # Errors
    /// When somebody else holds the lock, or keys that were there are gone or unusable.
    pub fn open_or_init(
        directory: &Path,
        cluster: &str,
        ask: AskPassphrase,
    ) -> Result<Issuer, KeysError> {
        make_directory(directory)?;
        let lock = take_lock(directory)?;
        let signers = Signers::of(directory, ask);
        if ClusterKeys::open(directory, cluster)?.is_none() {
            init(directory, cluster, &signers)?;
        }
        let keys = ClusterKeys::open_existing(directory, cluster)?;
        let issuer = Issuer { keys, signers, _lock: lock };
        for folder in ["people", "nodes"] {
            make_directory(&issuer.keys.directory.join(folder))?;
        }
        issuer.ensure_file(KNOWN_HOSTS, &issuer.keys.known_hosts()?)?;
        Ok(issuer)
    }

    /// The keys, for reading.
    pub fn keys(&self) -> &ClusterKeys {
        &self.keys
    }

    /// Signs a node's host and peer certificates, unless those that are here still serve.
    /// `public_line` is what the node's own host said its key is. Says whether it signed.
    ///
    /// # Errors
    /// When an authority's key is missing or exposed, or a file cannot be written.
    pub fn ensure_node(
        &self,
        name: &str,
        id: NodeId,
        public_line: &str,
        now: SystemTime,
    ) -> Result<bool, KeysError> {
        if self.keys.node_is_current(name, id, public_line, now)? {
            return Ok(false);
        }
        self.certify_node(name, id, public_line, now)?;
        Ok(true)
    }

    /// Signs a node's host and peer certificates anew.
    ///
    /// # Errors
    /// As [`Issuer::ensure_node`]; also when the node's key is revoked.
    pub fn certify_node(
        &self,
        name: &str,
        id: NodeId,
        public_line: &str,
        now: SystemTime,
    ) -> Result<(), KeysError> {
        self.certify_node_as(&NODE_ROLES, name, id, public_line, now)
    }

    /// Signs one of a node's certificates anew; both, where those that are here are for another
    /// key.
    ///
    /// # Errors
    /// As [`Issuer::certify_node`].
    pub fn renew_node(
        &self,
        role: AuthorityRole,
        name: &str,
        id: NodeId,
        public_line: &str,
        now: SystemTime,
    ) -> Result<(), KeysError> {
        match self.keys.node_serials(name, public_line)? {
            Some(_) => self.certify_node_as(&[role], name, id, public_line, now),
            None => self.certify_node(name, id, public_line, now),
        }
    }

    fn certify_node_as(
        &self,
        roles: &[AuthorityRole],
        name: &str,
        id: NodeId,
        public_line: &str,
        now: SystemTime,
    ) -> Result<(), KeysError> {
        make_directory(&self.keys.directory.join("nodes").join(name))?;
        let key_path = self.keys.node_path(name, "node_key.pub");
        let subject = parse_public(&key_path, public_line)?;
        let next = "paxos-ctl keys rotate --node makes another for it";
        self.must_not_be_revoked(name, &subject, next)?;
        let cluster = &self.keys.bundle.cluster;
        let jitter = rand::rng().random_range(0.0..0.1);
        let valid = Validity::starting(now, NODE_LIFETIME.mul_f64(1.0 - jitter));
        let mut signed = Vec::new();
        for role in roles {
            let signer = self.authority(*role)?;
            let serial = self.spend_serial()?;
            signed.push(match role {
                AuthorityRole::Host => (
                    identity::HOST_CERTIFICATE,
                    authority::host_certificate(&signer, &subject, name, cluster, serial, valid)?,
                ),
                _ => (
                    identity::PEER_CERTIFICATE,
                    authority::peer_certificate(&signer, &subject, id, cluster, serial, valid)?,
                ),
            });
        }
        authority::write_file(&key_path, authority::public_line(&subject).as_bytes(), 0o644)?;
        for (file, certificate) in signed {
            self.note_issued(&certificate)?;
            let text = authority::certificate_line(&certificate);
            authority::write_file(&self.keys.node_path(name, file), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn must_not_be_revoked(
        &self,
        name: &str,
        key: &PublicKey,
        next: &'static str,
    ) -> Result<(), KeysError> {
        let print = authority::print(key);
        match self.keys.bundle.revokes_key(&print) {
            Some(_) => Err(KeysError::RevokedKey { name: name.to_owned(), print, next }),
            None => Ok(()),
        }
    }

    /// Makes the operator's key and certificate, unless what is here still serves. Says whether it
    /// did.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub fn ensure_operator(&self, now: SystemTime) -> Result<bool, KeysError> {
        self.ensure_operator_has_left(now, OPERATOR_RENEW_LEFT)
    }

    /// As [`Issuer::ensure_operator`], but content with a certificate that still serves, however
    /// near its end: for when something else is in a hurry.
    ///
    /// # Errors
    /// As there.
    pub(super) fn ensure_operator_serves(&self, now: SystemTime) -> Result<bool, KeysError> {
        self.ensure_operator_has_left(now, Duration::ZERO)
    }

    fn ensure_operator_has_left(&self, now: SystemTime, left: Duration) -> Result<bool, KeysError> {
        if self.keys.operator_has_left(now, left)? {
            return Ok(false);
        }
        let rights = Rights::all();
        let grant = PersonGrant {
            name: OPERATOR.to_owned(),
            rights,
            source_addresses: None,
            force_command: None,
        };
        self.issue(&grant, OPERATOR_LIFETIME, None, now)?;
        Ok(true)
    }

    /// Issues a certificate to a person or application: for the key given as the line of a `.pub`
    /// file, else for a key here, which is made if there is none.
    ///
    /// # Errors
    /// When the name, lifetime or key makes no sense, the operator authority's key is missing or
    /// exposed, or a file cannot be written.
    pub fn issue(
        &self,
        grant: &PersonGrant,
        lifetime: Duration,
        public_line: Option<&str>,
        now: SystemTime,
    ) -> Result<IssuedPerson, KeysError> {
        if lifetime < Duration::from_secs(1) || lifetime > PERSON_LIFETIME_MAX {
            return Err(KeysError::Lifetime(lifetime));
        }
        let name = &grant.name;
        // Before the name becomes part of a path.
        if !identity::is_person_name(name) {
            return Err(IssueError::Name(name.clone()).into());
        }
        let cluster = &self.keys.bundle.cluster;
        let key_path = self.keys.person_path(name, "");
        let (subject, key) = match public_line {
            Some(line) => (parse_public(&self.keys.person_path(name, ".pub"), line)?, None),
            None => {
                let comment = format!("{name}@{cluster}");
                (self.unrevoked(&key_path, &comment)?.public_key().clone(), Some(key_path))
            }
        };
        self.must_not_be_revoked(name, &subject, "certify another key")?;
        let signed = self.sign_person(grant, &subject, Validity::starting(now, lifetime))?;
        let certificate = self.keys.person_path(name, "-cert.pub");
        let (serial, key_id) = (signed.serial(), signed.key_id().to_owned());
        Ok(IssuedPerson { serial, key_id, key, certificate, valid_before: now + lifetime })
    }

    /// Signs a person's certificate, and writes it and the public key beside the others.
    pub(super) fn sign_person(
        &self,
        grant: &PersonGrant,
        subject: &PublicKey,
        validity: Validity,
    ) -> Result<Certificate, KeysError> {
        let (name, cluster) = (&grant.name, &self.keys.bundle.cluster);
        let signer = self.authority(AuthorityRole::Operator)?;
        let serial = self.spend_serial()?;
        let signed =
            authority::person_certificate(&signer, subject, grant, cluster, serial, validity)?;
        self.note_issued(&signed)?;
        let public = authority::public_line(subject);
        authority::write_file(&self.keys.person_path(name, ".pub"), public.as_bytes(), 0o644)?;
        let text = authority::certificate_line(&signed);
        let path = self.keys.person_path(name, "-cert.pub");
        authority::write_file(&path, text.as_bytes(), 0o644)?;
        Ok(signed)
    }

    /// The private key of a file, made if there is none, and made anew if it is revoked.
    fn unrevoked(&self, path: &Path, comment: &str) -> Result<PrivateKey, KeysError> {
        let key = ensure_private(path, comment)?;
        if self.keys.bundle.revokes_key(&authority::print(key.public_key())).is_none() {
            return Ok(key);
        }
        let key = authority::new_key(comment)?;
        authority::write_private_key(path, &key)?;
        Ok(key)
    }

    /// Signs the bundle of the next epoch, and makes it the cluster's: it is on disk before any
    /// host hears of it, so whoever goes on after a crash goes on with it.
    ///
    /// # Errors
    /// When the root key is not there or exposed, or a file cannot be written.
    pub(super) fn advance(&mut self, change: impl FnOnce(&mut Bundle)) -> Result<(), KeysError> {
        let signed = self.sign_next(change)?;
        self.adopt(&signed)
    }

    /// The bundle of the next epoch, of which nothing is on disk yet.
    pub(super) fn sign_next(&self, change: impl FnOnce(&mut Bundle)) -> Result<String, KeysError> {
        let mut bundle = self.keys.bundle.clone();
        let path = self.keys.directory.join(identity::BUNDLE);
        change(&mut bundle);
        bundle.epoch = bundle.epoch.checked_add(1).ok_or_else(|| KeysError::Malformed {
            path: path.clone(),
            reason: "there is no epoch left".to_owned(),
        })?;
        self.signers.sign(&bundle, &bundle.roots(self.keys.root()), &path)
    }

    /// Makes a signed bundle the cluster's.
    pub(super) fn adopt(&mut self, signed: &str) -> Result<(), KeysError> {
        let directory = self.keys.directory.clone();
        authority::write_file(&directory.join(identity::BUNDLE), signed.as_bytes(), 0o644)?;
        self.keys = ClusterKeys::open_existing(&directory, &self.keys.bundle.cluster)?;
        self.ensure_file(KNOWN_HOSTS, &self.keys.known_hosts()?)
    }

    /// Has the keys of these authorities at hand, so that nobody is asked for a passphrase later,
    /// when others may be waiting.
    ///
    /// # Errors
    /// When one is not to be had.
    pub(in crate::controller) fn must_be_able(
        &self,
        roles: &[AuthorityRole],
    ) -> Result<(), KeysError> {
        for role in roles {
            match role {
                AuthorityRole::Root => {
                    for root in self.keys.bundle.roots(self.keys.root()) {
                        self.signers.find(AuthorityRole::Root, root)?;
                    }
                }
                role => _ = self.authority(*role)?,
            }
        }
        Ok(())
    }

    /// Asks now for what the operator's certificate will need; what is not at hand is missed then.
    ///
    /// # Errors
    /// When somebody wants the run to stop, or a file cannot be read.
    pub(super) fn ask_for_way_in(&self, now: SystemTime) -> Result<(), KeysError> {
        match self.keys.operator_is_current(now)? {
            true => Ok(()),
            false => or_later(self.must_be_able(&[AuthorityRole::Operator])),
        }
    }

    /// Asks now for what it will take to go on with what is under way; what is not at hand is missed
    /// where it is needed.
    ///
    /// # Errors
    /// As [`Issuer::ask_for_way_in`].
    pub(super) fn ask_to_resume(&self) -> Result<(), KeysError> {
        if let Some((role, phase)) = self.keys.rotating()? {
            or_later(self.must_be_able_to_go_on(role, phase))?;
        }
        for entry in fs::read_dir(self.keys.directory.join("nodes")).into_iter().flatten().flatten()
        {
            let node = entry.file_name();
            if node.to_str().is_some_and(|node| self.keys.replaced_path(node).exists()) {
                or_later(self.must_be_able(&NODE_ROLES))?;
                return or_later(self.must_be_able(&[AuthorityRole::Root]));
            }
        }
        Ok(())
    }

    /// The private key of the authority that signs now.
    fn authority(&self, role: AuthorityRole) -> Result<AuthorityKey, KeysError> {
        self.signers.find(role, self.keys.signing(role)?)
    }

    /// Takes the next serial. It is written as spent before it is used: after a crash one is
    /// skipped, and none is used twice.
    fn spend_serial(&self) -> Result<u64, KeysError> {
        let path = self.keys.directory.join(SERIAL);
        let serial = match read_optional(&path)? {
            None => 1,
            Some(text) => text.trim().parse::<u64>().map_err(|error| KeysError::Malformed {
                path: path.clone(),
                reason: format!("the next serial is no number: {error}"),
            })?,
        };
        let next = serial.checked_add(1).ok_or_else(|| KeysError::Malformed {
            path: path.clone(),
            reason: "there is no serial left".to_owned(),
        })?;
        authority::write_file(&path, format!("{next}\n").as_bytes(), 0o600)?;
        Ok(serial)
    }

    /// Notes a certificate before it is handed out, so that it can be found and revoked later.
    fn note_issued(&self, certificate: &Certificate) -> Result<(), KeysError> {
        let path = self.keys.directory.join(ISSUED);
        let key = PublicKey::from(certificate.public_key().clone());
        let torn =
            read_optional(&path)?.is_some_and(|text| !text.is_empty() && !text.ends_with('\n'));
        // What was cut short stands for a certificate that nobody got; this one gets its own line.
        let line = format!(
            "{}{} {} {} {} {}\n",
            if torn { "\n" } else { "" },
            certificate.serial(),
            certificate.key_id(),
            authority::print(&key),
            certificate.valid_after(),
            certificate.valid_before(),
        );
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_data()))
            .map_err(KeysError::file("write", &path))
    }

    /// Writes a file that others are derived from nothing else but the keys, if it is not as it
    /// should be.
    fn ensure_file(&self, name: &str, text: &str) -> Result<(), KeysError> {
        let path = self.keys.directory.join(name);
        if read_optional(&path)?.as_deref() == Some(text) {
            return Ok(());
        }
        Ok(authority::write_file(&path, text.as_bytes(), 0o644)?)
    }

    /// Writes the ssh_config beside the keys and gives its absolute path.
    ///
    /// # Errors
    /// As [`ClusterKeys::ssh_config`], or when it cannot be written.
    pub fn write_ssh_config(&self, targets: &[SshTarget]) -> Result<PathBuf, KeysError> {
        let text = self.keys.ssh_config(targets, OPERATOR)?;
        self.ensure_file("ssh_config", &text)?;
        Ok(self.keys.directory.join("ssh_config"))
    }
}

/// Makes the four keys, then the bundle. A controller that died in the middle left only keys that
/// nothing refers to yet; those that are there are taken up. So are those that an operator made
/// beforehand: with a passphrase, or in an agent with only the public half here.
fn init(directory: &Path, cluster: &str, signers: &Signers) -> Result<(), KeysError> {
    let mut authorities: Vec<Authority> = Vec::new();
    for role in AuthorityRole::ALL {
        let key = ensure_authority(directory, role, cluster)?;
        // One that is not at hand is told of before anybody hears of it.
        signers.find(role, &key)?;
        let is_same = |other: &&Authority| other.key.key_data() == key.key_data();
        if let Some(other) = authorities.iter().find(is_same) {
            let path = directory.join(authority_file(role));
            let reason = format!("it is the {} key as well; each has its own", other.role);
            return Err(KeysError::Malformed { path, reason });
        }
        authorities.push(Authority { role, stage: AuthorityStage::Current, key });
    }
    let bundle = Bundle {
        epoch: 1,
        cluster: cluster.to_owned(),
        cluster_id: ClusterId(rand::random()),
        authorities,
        revocations: Vec::new(),
    };
    let path = directory.join(identity::BUNDLE);
    let roots: Vec<&PublicKey> = bundle.authorities(AuthorityRole::Root).collect();
    let signed = signers.sign(&bundle, &roots, &path)?;
    Ok(authority::write_file(&path, signed.as_bytes(), 0o644)?)
}

fn ensure_authority(
    directory: &Path,
    role: AuthorityRole,
    cluster: &str,
) -> Result<PublicKey, KeysError> {
    let name = authority_file(role);
    let (path, public) = (directory.join(&name), directory.join(format!("{name}.pub")));
    let refused = |reason: String| Err(KeysError::Malformed { path: public.clone(), reason });
    let key = match (is_vacant(&path)?, read_public(directory, &name)?) {
        (false, told) => {
            let key = authority::load_key_file(&path)?.public_key().clone();
            if told.is_some_and(|told| told.key_data() != key.key_data()) {
                return refused(format!("it is not the public half of {}", path.display()));
            }
            key
        }
        (true, Some(key)) => key,
        (true, None) => {
            let comment = authority::authority_comment(role, cluster);
            ensure_private(&path, &comment)?.public_key().clone()
        }
    };
    if key.algorithm() != Algorithm::Ed25519 {
        return refused(format!("authorities have ed25519 keys, and this is {}", key.algorithm()));
    }
    authority::write_file(&public, authority::public_line(&key).as_bytes(), 0o644)?;
    Ok(key)
}

/// What is not at hand now is told of when it is needed.
fn or_later(outcome: Result<(), KeysError>) -> Result<(), KeysError> {
    match outcome {
        Err(error) if error.is_unsigned() || matches!(error, KeysError::Load(_)) => Ok(()),
        outcome => outcome,
    }
}

/// The private key of a file, which is made if there is none.
pub(super) fn ensure_private(path: &Path, comment: &str) -> Result<PrivateKey, KeysError> {
    if exists(path)? {
        return Ok(authority::load_private_key(path)?);
    }
    let key = authority::new_key(comment)?;
    authority::write_private_key(path, &key)?;
    Ok(key)
}

pub(in crate::controller) fn authority_file(role: AuthorityRole) -> String {
    match role {
        AuthorityRole::Root => ROOT.to_owned(),
        role => format!("{role}-authority"),
    }
}

fn make_directory(path: &Path) -> Result<(), KeysError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(KeysError::file("make the directory", path))
}

fn take_lock(directory: &Path) -> Result<File, KeysError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(KeysError::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => {
            // For whoever finds it locked; they can do without.
            let pid = std::process::id().to_string();
            let _untold = file.set_len(0).and_then(|()| (&file).write_all(pid.as_bytes()));
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => {
            let pid = read_optional(&path)?.and_then(|text| text.trim().parse().ok());
            Err(KeysError::Busy { directory: directory.to_owned(), pid })
        }
        Err(fs::TryLockError::Error(source)) => Err(KeysError::file("lock", &path)(source)),
    }
}
