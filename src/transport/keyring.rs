//! A node's keys and trust while it runs: read at its start, and taken up anew when other files
//! were delivered, or when the cluster's log brings a newer bundle.
//!
//! Two rules:
//!
//! * **All or nothing.** A reload takes everything that lies in the keys directory, or keeps
//!   everything as it was and says why. A file that is damaged, missing or not signed by root
//!   changes nothing.
//! * **A bundle never gets older.** Its epoch only grows while the process runs, and beyond: the
//!   newest bundle that was ever active is kept, whole and signed, as [`KEPT`] in the data
//!   directory. What was put into the keys directory while the node was down is compared with it.
//!   If it is older, the kept one stays active.
//!
//! A copy of the bundle is kept, and not only its epoch, so that an old bundle in the keys
//! directory is no reason not to start: a node that was told no more than "at least epoch 7" could
//! only refuse to run. The copy is on disk before the bundle is active. A crash in between leaves
//! both, which are the same; a crash before leaves the newer one in the keys directory, where it is
//! found again. A copy that is damaged or that this root key did not sign is passed over, and said
//! to be. A disk without room keeps no copy, which is said too, and keeps nobody from being
//! revoked.
//!
//! **Which root key is believed.** A bundle from the log is judged by the root keys that the active
//! one names: so a root key is replaced by bundles alone. What lies in the keys directory is judged
//! by the root key beside it, if that is the one that the process began with or one that the active
//! bundle names; any other takes a restart. A root key that the newest bundle revokes is believed
//! from nowhere: it was replaced, and whoever put it back did so from an old copy of the keys. The
//! kept bundle is judged by the root keys that it names itself, for it lies as safe as the keys.

use super::authority::write_file;
use super::bundle::{Bundle, Replay, fingerprint};
use super::identity::{self, NodeKeys, Trust, TrustError};
use super::keyfiles::{load_bundle, load_own_bundle, load_root};
use super::live::LiveTrust;
use super::succession::{Published, Seen, Succession};
use crate::paxos::ballot::NodeId;
use arc_swap::{ArcSwap, ArcSwapOption};
use russh::keys::{Certificate, PublicKey};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{error, info, warn};

/// The newest bundle that was ever active, in the node's data directory.
pub const KEPT: &str = "bundle.kept";

/// Why what lies in the keys directory was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Something there cannot be used.
    #[error(transparent)]
    Files(#[from] TrustError),
    /// The bundle is none that may follow the active one.
    #[error("{path}: {source}")]
    Replay {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Replay,
    },
    /// The root key there was replaced by another.
    #[error(
        "{path} holds a root key that was replaced and is revoked, so what lies beside it comes \
         from an old copy of the cluster's keys; deliver the newest: paxos-ctl keys resume"
    )]
    RevokedRoot {
        /// The file.
        path: PathBuf,
    },
    /// The root key is another.
    #[error(
        "{path} holds another root key than this process began with; if that is meant, restart \
         the node, else deliver the cluster's own: paxos-ctl deploy"
    )]
    OtherRoot {
        /// The file.
        path: PathBuf,
    },
}

/// One of the node's own certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateLife {
    /// Its serial.
    pub serial: u64,
    /// Seconds until it runs out; negative since it did.
    pub remaining_seconds: i64,
}

/// What a keyring holds, for whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of the active bundle.
    pub epoch: u64,
    /// How many lines of it revoke something.
    pub revocations: u64,
    /// Proves the node to those who dial it.
    pub host: CertificateLife,
    /// Proves it to those it dials.
    pub peer: CertificateLife,
    /// Why what lies in the keys directory is not what is active; none if it was taken up.
    pub problem: Option<String>,
    /// Epoch of the newest bundle in the log that was believed here; none before there is one.
    pub in_log: Option<u64>,
}

/// A bundle as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBundle {
    /// Its epoch.
    pub epoch: u64,
    /// Its text, with the signatures.
    pub text: String,
}

/// Numbers for metrics, with name and help text.
pub type Numbers<T> = Vec<(&'static str, &'static str, T)>;

/// See the module's documentation.
#[derive(Debug)]
pub struct Keyring {
    directory: PathBuf,
    kept: PathBuf,
    /// The root key that lay there at the start.
    root: PublicKey,
    trust: Arc<LiveTrust>,
    signed: ArcSwap<SignedBundle>,
    keys: Arc<ArcSwap<NodeKeys>>,
    /// What the last attempt to take files up ran into.
    problem: ArcSwapOption<String>,
    /// Held while the trust is replaced. Whoever shows the standing does not wait for it, for the
    /// disk may be slow.
    turn: Mutex<()>,
    reloads: AtomicU64,
    refused: AtomicU64,
    from_log: AtomicU64,
    seen: Arc<Seen>,
}

impl Keyring {
    /// Reads a node's keys directory, and the bundle that was kept in its data directory.
    ///
    /// # Errors
    /// When a file is missing or not usable, others can read the private key, or neither bundle is
    /// believed.
    pub fn open(directory: &Path, data_dir: &Path) -> Result<Keyring, TrustError> {
        let keys = NodeKeys::load(directory)?;
        let root = load_root(directory)?;
        let kept = data_dir.join(KEPT);
        let delivered = load_bundle(&directory.join(identity::BUNDLE), &[&root]);
        let before = load_kept(&kept, &root);
        let ((bundle, signed), problem) = newest(delivered, before, &root, directory)?;
        let trust = Trust::load_around(bundle, directory)?;
        let active = SignedBundle { epoch: trust.epoch(), text: signed.clone() };
        if let Some(problem) = &problem {
            error!(epoch = trust.epoch(), problem, "starts with the bundle that was kept");
        }
        keep(&kept, &signed);
        Ok(Keyring {
            directory: directory.to_owned(),
            kept,
            root,
            trust: Arc::new(LiveTrust::new(trust)),
            signed: ArcSwap::from_pointee(active),
            keys: Arc::new(ArcSwap::from_pointee(keys)),
            refused: AtomicU64::new(u64::from(problem.is_some())),
            problem: ArcSwapOption::from_pointee(problem),
            turn: Mutex::default(),
            reloads: AtomicU64::new(0),
            from_log: AtomicU64::new(0),
            seen: Arc::default(),
        })
    }

    /// Whom to believe; replaced whole when it changes.
    pub fn trust(&self) -> &Arc<LiveTrust> {
        &self.trust
    }

    /// The node's own keys; replaced whole when they change.
    pub fn keys(&self) -> &Arc<ArcSwap<NodeKeys>> {
        &self.keys
    }

    /// Says who the members are, by id and name.
    pub fn set_members(&self, members: BTreeMap<NodeId, String>) {
        let _turn = self.turn();
        self.trust.replace(Trust::clone(&self.trust.load()).with_members(members));
    }

    /// Takes up what lies in the keys directory now, and has open connections judged by it. Reads
    /// and writes files, so it is nothing for a thread that others wait for.
    ///
    /// # Errors
    /// When it is not taken up; then everything stays as it was.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let _turn = self.turn();
        let outcome = self.take_up();
        match &outcome {
            Ok(()) => {
                self.reloads.fetch_add(1, Ordering::Relaxed);
                let trust = self.trust.load();
                let (epoch, revocations) = (trust.epoch(), trust.bundle().revocations.len());
                info!(epoch, revocations, "keys were taken up anew");
                self.problem.store(None);
            }
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let epoch = self.trust.load().epoch();
                error!(epoch, %error, "keys were not taken up; those before stay in use");
                self.problem.store(Some(Arc::new(error.to_string())));
            }
        }
        outcome
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().expect("no holder of this lock panics")
    }

    fn take_up(&self) -> Result<(), ReloadError> {
        let directory = &self.directory;
        let keys = NodeKeys::load(directory)?;
        let active = self.trust.load();
        let root = load_root(directory)?;
        let path = directory.join(identity::ROOT);
        if active.bundle().revokes_key(&fingerprint(&root)).is_some() {
            return Err(ReloadError::RevokedRoot { path });
        }
        let mut known = active.bundle().roots(&self.root);
        known.push(&self.root);
        if known.iter().all(|known| known.key_data() != root.key_data()) {
            return Err(ReloadError::OtherRoot { path });
        }
        let path = directory.join(identity::BUNDLE);
        let (bundle, signed) = load_bundle(&path, &[&root])?;
        let follows = active.bundle().may_become(&bundle);
        follows.map_err(|source| ReloadError::Replay { path, source })?;
        let trust = Trust::load_around(bundle, directory)?.in_place_of(&active);
        keep(&self.kept, &signed);
        // Before the trust: connections that are cut by it are dialled again at once.
        self.keys.store(Arc::new(keys));
        self.believe(trust, signed);
        Ok(())
    }

    /// Judges the bundles of the log for this keyring.
    pub fn succession(&self) -> Succession {
        Succession::new(Arc::clone(&self.trust), self.root.clone(), Arc::clone(&self.seen))
    }

    /// Takes up a bundle of the log, if it is newer than the active one. Everything else stays as
    /// it is: what lies in the keys directory may be half of a delivery. Writes a file, as
    /// [`Keyring::reload`].
    pub fn take_published(&self, published: Published) {
        let _turn = self.turn();
        let Published { bundle, signed } = published;
        let active = self.trust.load();
        // Files may have come meanwhile.
        if bundle.epoch <= active.epoch() || active.bundle().may_become(&bundle).is_err() {
            return;
        }
        let epoch = bundle.epoch;
        keep(&self.kept, &signed);
        self.believe(Trust::clone(&active).with_bundle(bundle), signed);
        self.from_log.fetch_add(1, Ordering::Relaxed);
        info!(epoch, "the trust bundle in the log was taken up");
    }

    fn believe(&self, trust: Trust, signed: String) {
        self.signed.store(Arc::new(SignedBundle { epoch: trust.epoch(), text: signed }));
        self.trust.replace(trust);
    }

    /// The active bundle.
    pub fn signed_bundle(&self) -> Arc<SignedBundle> {
        self.signed.load_full()
    }

    /// What is active, and what stands against the files.
    pub fn standing(&self, now: SystemTime) -> Standing {
        let (trust, keys) = (self.trust.load(), self.keys.load());
        Standing {
            epoch: trust.epoch(),
            revocations: trust.bundle().revocations.len() as u64,
            host: life(&keys.host_certificate, now),
            peer: life(&keys.peer_certificate, now),
            problem: self.problem.load_full().map(|problem| problem.to_string()),
            in_log: Some(self.seen.in_log.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0),
        }
    }

    /// What happened, as numbers that only grow.
    pub fn totals(&self) -> Numbers<u64> {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        vec![
            ("reloads", "times that the files of keys were taken up anew", count(&self.reloads)),
            (
                "reloads_refused",
                "times that the files of keys were not taken up, at the start or later",
                count(&self.refused),
            ),
            (
                "bundles_from_log",
                "trust bundles that the log brought and that were taken up",
                count(&self.from_log),
            ),
            (
                "bundles_from_log_refused",
                "trust bundles in the log that claimed to be newer and were not believed",
                count(&self.seen.refused),
            ),
        ]
    }

    /// How things are.
    pub fn levels(&self, now: SystemTime) -> Numbers<i64> {
        let Standing { epoch, revocations, host, peer, .. } = self.standing(now);
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        vec![
            ("bundle_epoch", "epoch of the active trust bundle", number(epoch)),
            ("bundle_revocations", "revocations in the active trust bundle", number(revocations)),
            (
                "host_certificate_remaining_seconds",
                "until the certificate runs out that proves this node to those who dial it",
                host.remaining_seconds,
            ),
            (
                "peer_certificate_remaining_seconds",
                "until the certificate runs out that proves this node to those it dials",
                peer.remaining_seconds,
            ),
        ]
    }
}

/// A bundle and its signed text.
type Signed = (Bundle, String);

/// Which of the two is active, and what speaks against the delivered one if that is not it.
fn newest(
    delivered: Result<Signed, TrustError>,
    kept: Option<Signed>,
    root: &PublicKey,
    directory: &Path,
) -> Result<(Signed, Option<String>), TrustError> {
    let Some(kept) = kept else { return Ok((delivered?, None)) };
    let delivered = match delivered {
        Ok(delivered) => delivered,
        Err(error) => return Ok((kept, Some(error.to_string()))),
    };
    if kept.0.cluster_id != delivered.0.cluster_id {
        warn!("the bundle that was kept is another cluster's, and is passed over");
        return Ok((delivered, None));
    }
    let problem = match kept.0.may_become(&delivered.0) {
        _ if kept.0.revokes_key(&fingerprint(root)).is_some() => {
            ReloadError::RevokedRoot { path: directory.join(identity::ROOT) }
        }
        Ok(()) => return Ok((delivered, None)),
        Err(source) => ReloadError::Replay { path: directory.join(identity::BUNDLE), source },
    };
    Ok((kept, Some(problem.to_string())))
}

/// The kept bundle, if there is one to go by.
fn load_kept(path: &Path, root: &PublicKey) -> Option<Signed> {
    match load_own_bundle(path, root) {
        Ok(kept) => Some(kept),
        Err(TrustError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(%error, "the bundle that was kept is passed over");
            None
        }
    }
}

fn keep(path: &Path, signed: &str) {
    if std::fs::read_to_string(path).is_ok_and(|kept| kept == signed) {
        return;
    }
    if let Err(error) = write_file(path, signed.as_bytes(), 0o600) {
        warn!(%error, "the bundle is in use, and will not be remembered after a restart");
    }
}

fn life(certificate: &Certificate, now: SystemTime) -> CertificateLife {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    CertificateLife {
        serial: certificate.serial(),
        remaining_seconds: seconds(certificate.valid_before()).saturating_sub(seconds(now)),
    }
}
