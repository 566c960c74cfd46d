//! Finds the private key of an authority that is to sign: in a file, with a passphrase or without,
//! or in an ssh-agent.
//!
//! A file without a passphrase is read. Otherwise an agent that holds the key signs
//! (`SSH_AUTH_SOCK`), and otherwise somebody is asked for the passphrase, once a run for each key,
//! unless one that was given before opens it. Which key it is says the bundle; where it is kept is
//! nobody's business but the operator's, who may move it from one run to the next (`ssh-keygen -p`,
//! `ssh-add`).
//!
//! What must never happen: a key that others can read is used; a key that takes the place of one
//! with a passphrase is written without one.
//!
//! The cost: a key with a passphrase, and the passphrase, which the key that takes its place gets as
//! well, are in this process's memory from the first signature to the end of the run. With an agent
//! neither is.

use super::authorities::new_authority_file;
use super::issuer::authority_file;
use super::{KeysError, exists, is_vacant};
use crate::transport::authority::{self, IssueError, PrivateKey, PublicKey};
use crate::transport::authority_key::{Agent, AuthorityKey, Signing};
use crate::transport::bundle::{AuthorityRole, Bundle, Signature};
use crate::transport::identity::TrustError;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use zeroize::Zeroizing;

/// As often as OpenSSH asks for a passphrase.
const PASSPHRASE_TRIES: u32 = 3;

/// What helps when a key stays locked.
const UNLOCK: &str = "add it to an ssh-agent with ssh-add, or do this again on a terminal";

/// What helps when the passphrase itself is needed.
const GIVE_PASSPHRASE: &str = "do this again on a terminal, or with SSH_ASKPASS";

/// Forgotten when it is dropped.
pub type Passphrase = Zeroizing<Vec<u8>>;

/// Asks a person for the passphrase of this key file; `true` when the one before was wrong.
pub type AskPassphrase = fn(&Path, bool) -> Result<Passphrase, Unasked>;

/// Why there is no passphrase.
#[derive(Debug)]
pub enum Unasked {
    /// Nobody can be asked; why.
    Nobody(String),
    /// Somebody wants the run to stop.
    Interrupted,
}

/// For whoever has nobody to ask.
///
/// # Errors
/// Always.
pub fn nobody(_path: &Path, _again: bool) -> Result<Passphrase, Unasked> {
    Err(Unasked::Nobody("nobody can be asked for it".to_owned()))
}

/// The private keys of a cluster's authorities, wherever they are.
pub(super) struct Signers {
    directory: PathBuf,
    ask: AskPassphrase,
    /// What the agent holds, or why that is not known; asked once a run.
    agent: OnceLock<Result<Agent, String>>,
    /// What somebody said who was asked.
    told: Mutex<Told>,
}

/// By fingerprint.
#[derive(Default)]
struct Told {
    open: BTreeMap<String, Unlocked>,
    /// Nobody is asked twice in a run for what they did not know.
    locked: BTreeMap<String, String>,
    /// Somebody wants the run to stop, and is not asked for anything else.
    is_over: bool,
}

/// Passphrases are nobody's to read.
impl fmt::Debug for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signers").field("directory", &self.directory).finish_non_exhaustive()
    }
}

type Unlocked = (PrivateKey, Passphrase);

/// A file of a private key.
struct KeyAt {
    path: PathBuf,
    key: PrivateKey,
}

impl Signers {
    pub(super) fn of(directory: &Path, ask: AskPassphrase) -> Signers {
        let directory = directory.to_owned();
        Signers { directory, ask, agent: OnceLock::new(), told: Mutex::default() }
    }

    /// The private half of an authority's key.
    ///
    /// # Errors
    /// When it is in no file and no agent, others can read it, or its passphrase is not to be had.
    pub(super) fn find(
        &self,
        role: AuthorityRole,
        wanted: &PublicKey,
    ) -> Result<AuthorityKey, KeysError> {
        let locked = match self.file_of(role, wanted) {
            Ok(Some(file)) if !file.key.is_encrypted() => {
                return Ok(AuthorityKey::Here(Box::new(file.key)));
            }
            Err(error @ KeysError::Load(TrustError::Exposed { .. })) => return Err(error),
            file => file,
        };
        if let Ok(Some(file)) = &locked
            && let Some((key, _)) = self.unlocked(&file.key)
        {
            return Ok(AuthorityKey::Here(Box::new(key)));
        }
        let agent = match self.agent.get_or_init(look_at_agent) {
            Ok(agent) => match agent.key(wanted) {
                Some(key) => return Ok(AuthorityKey::InAgent(key)),
                None => "the ssh-agent does not hold it, or is locked".to_owned(),
            },
            Err(why) => why.clone(),
        };
        match locked? {
            Some(file) => Ok(AuthorityKey::Here(Box::new(self.unlock(&file, &agent, UNLOCK)?.0))),
            None => {
                let (print, paths) = (authority::print(wanted), self.paths(role).to_vec());
                Err(KeysError::NoSigner { role, print, paths, agent })
            }
        }
    }

    /// A bundle in the signed form, by each of its root keys: two, while one takes the other's
    /// place, so that whoever believes either of them believes the bundle. It is to lie at `path`.
    ///
    /// # Errors
    /// As [`Signers::find`]; also when one does not sign.
    pub(super) fn sign(
        &self,
        bundle: &Bundle,
        roots: &[&PublicKey],
        path: &Path,
    ) -> Result<String, KeysError> {
        let unsigned = |source| KeysError::Bundle { path: path.to_owned(), source };
        let sign = |root: &&PublicKey| {
            let key = self.find(AuthorityRole::Root, root)?;
            bundle.signature(&key).map_err(|source| match key.refusal() {
                None => unsigned(source),
                Some(reason) => {
                    let what = format!("the trust bundle of epoch {}", bundle.epoch);
                    IssueError::Refused { what, reason }.into()
                }
            })
        };
        let signatures: Vec<Signature> = roots.iter().map(sign).collect::<Result<_, _>>()?;
        bundle.signed_by(&signatures).map_err(unsigned)
    }

    /// Two, while the authority is replaced.
    fn paths(&self, role: AuthorityRole) -> [PathBuf; 2] {
        [authority_file(role), new_authority_file(role)].map(|name| self.directory.join(name))
    }

    /// The file of this key. One that is unusable may be the one that is wanted.
    fn file_of(&self, role: AuthorityRole, wanted: &PublicKey) -> Result<Option<KeyAt>, KeysError> {
        let mut unusable = Ok(None);
        for path in self.paths(role) {
            if !exists(&path)? {
                continue;
            }
            match authority::load_key_file(&path) {
                Ok(key) if key.public_key().key_data() == wanted.key_data() => {
                    return Ok(Some(KeyAt { path, key }));
                }
                // The other one of the two.
                Ok(_) => {}
                Err(error @ TrustError::Exposed { .. }) => return Err(error.into()),
                Err(error) => unusable = Err(error.into()),
            }
        }
        unusable
    }

    fn unlocked(&self, key: &PrivateKey) -> Option<Unlocked> {
        self.told().open.get(&print_of(key)).cloned()
    }

    fn keep(&self, key: &PrivateKey, passphrase: &Passphrase) {
        self.told().open.insert(print_of(key), (key.clone(), passphrase.clone()));
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // It holds whole entries, whoever panicked.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `why` nobody but a person can open it, and what is `next` if no person does.
    fn unlock(
        &self,
        KeyAt { path, key }: &KeyAt,
        why: &str,
        next: &'static str,
    ) -> Result<Unlocked, KeysError> {
        let locked = |why| KeysError::Locked { path: path.clone(), why, next };
        // As ssh-add does: people have one for several keys.
        let known: Vec<_> = self.told().open.values().map(|(_, known)| known.clone()).collect();
        for known in known {
            if let Ok(key) = key.decrypt(&*known) {
                self.keep(&key, &known);
                return Ok((key, known));
            }
        }
        if let Some(why) = self.told().locked.get(&print_of(key)) {
            return Err(locked(why.clone()));
        }
        let mut reason = String::new();
        for attempt in 0..PASSPHRASE_TRIES {
            if self.told().is_over {
                return Err(KeysError::Interrupted);
            }
            let given = (self.ask)(path, attempt > 0).map_err(|unasked| match unasked {
                Unasked::Nobody(unasked) => {
                    let why = format!("{why}, and {unasked}");
                    self.told().locked.insert(print_of(key), why.clone());
                    locked(why)
                }
                Unasked::Interrupted => {
                    self.told().is_over = true;
                    KeysError::Interrupted
                }
            })?;
            match key.decrypt(&*given) {
                Ok(key) => {
                    self.keep(&key, &given);
                    return Ok((key, given));
                }
                Err(error) => reason = error.to_string(),
            }
        }
        let why = format!("what was given {PASSPHRASE_TRIES} times is not it ({reason})");
        self.told().locked.insert(print_of(key), why.clone());
        Err(locked(why))
    }

    /// Asks for the passphrase that the key which takes this one's place is to get, so that nobody
    /// has to be asked later.
    ///
    /// # Errors
    /// When there is one, and it is not to be had.
    pub(super) fn ready_successor(
        &self,
        role: AuthorityRole,
        replaces: &PublicKey,
    ) -> Result<(), KeysError> {
        self.passphrase(role, replaces).map(|_| ())
    }

    /// The passphrase of a key, and the key as it stands in its file; none where it has none.
    fn passphrase(
        &self,
        role: AuthorityRole,
        key: &PublicKey,
    ) -> Result<Option<(KeyAt, Passphrase)>, KeysError> {
        let file = self.file_of(role, key)?.filter(|file| file.key.is_encrypted());
        let Some(file) = file else { return Ok(None) };
        let (_, passphrase) = match self.unlocked(&file.key) {
            Some(unlocked) => unlocked,
            None => self.unlock(&file, "the new key is to have the same one", GIVE_PASSPHRASE)?,
        };
        Ok(Some((file, passphrase)))
    }

    /// Makes the key that is to take another's place, as `ROLE.new`, unless it is there, and gives
    /// its public half.
    ///
    /// # Errors
    /// As [`Signers::protect_successor`].
    pub(super) fn successor(
        &self,
        role: AuthorityRole,
        comment: &str,
        replaces: &PublicKey,
    ) -> Result<PublicKey, KeysError> {
        let [_, path] = self.paths(role);
        if !is_vacant(&path)? {
            self.protect_successor(role, replaces)?;
            return Ok(authority::load_key_file(&path)?.public_key().clone());
        }
        let key = authority::new_key(comment)?;
        match self.passphrase(role, replaces)? {
            None => authority::write_private_key(&path, &key)?,
            Some((like, passphrase)) => self.write_locked(&path, &key, &like.key, &passphrase)?,
        }
        Ok(key.public_key().clone())
    }

    /// Gives the key that is to take another's place that one's passphrase, where it lies in a file
    /// without one.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the passphrase is not to be had.
    pub(super) fn protect_successor(
        &self,
        role: AuthorityRole,
        replaces: &PublicKey,
    ) -> Result<(), KeysError> {
        let [_, path] = self.paths(role);
        if !exists(&path)? {
            return Ok(());
        }
        let key = authority::load_key_file(&path)?;
        if key.is_encrypted() {
            return Ok(());
        }
        let Some((like, passphrase)) = self.passphrase(role, replaces)? else { return Ok(()) };
        self.write_locked(&path, &key, &like.key, &passphrase)
    }

    fn write_locked(
        &self,
        path: &Path,
        key: &PrivateKey,
        like: &PrivateKey,
        passphrase: &Passphrase,
    ) -> Result<(), KeysError> {
        let locked = authority::with_passphrase(key, passphrase, like)?;
        authority::write_private_key(path, &locked)?;
        self.keep(key, passphrase);
        Ok(())
    }
}

fn look_at_agent() -> Result<Agent, String> {
    match std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) {
        None => Err("there is no ssh-agent (SSH_AUTH_SOCK)".to_owned()),
        Some(socket) => Agent::look(Path::new(&socket)),
    }
}

fn print_of(key: &PrivateKey) -> String {
    authority::print(key.public_key())
}
