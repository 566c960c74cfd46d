//! Finds the private key of an authority that is to sign: in a file, with a passphrase or without,
//! or in an ssh-agent.
//!
//! A file without a passphrase is read. Otherwise an agent that holds the key signs
//! (`SSH_AUTH_SOCK`), and otherwise somebody is asked for the passphrase, once a run. Which key it
//! is says the bundle; where it is kept is nobody's business but the operator's, who may move it
//! from one run to the next (`ssh-keygen -p`, `ssh-add`).
//!
//! What must never happen: a key that others can read is used; a key that takes the place of one
//! with a passphrase is written without one.
//!
//! The cost: a key with a passphrase is in this process's memory from its first signature to the
//! end of the run. With an agent it never is.

use super::authorities::new_authority_file;
use super::issuer::authority_file;
use super::{KeysError, exists};
use crate::transport::authority::{self, PrivateKey, PublicKey};
use crate::transport::authority_key::{AgentKey, AuthorityKey};
use crate::transport::bundle::{AuthorityRole, Bundle, Signature};
use crate::transport::identity::TrustError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// As often as OpenSSH asks for a passphrase.
const PASSPHRASE_TRIES: u32 = 3;

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
#[derive(Debug)]
pub(super) struct Signers {
    directory: PathBuf,
    ask: AskPassphrase,
    /// Those that somebody gave the passphrase of, by fingerprint.
    open: Mutex<BTreeMap<String, Unlocked>>,
}

type Unlocked = (PrivateKey, Passphrase);

/// A file of a private key.
struct Locked {
    path: PathBuf,
    key: PrivateKey,
}

impl Signers {
    pub(super) fn of(directory: &Path, ask: AskPassphrase) -> Signers {
        Signers { directory: directory.to_owned(), ask, open: Mutex::default() }
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
        let file = self.file_of(role, wanted);
        let locked = match file {
            Ok(Some(file)) if !file.key.is_encrypted() => return Ok(AuthorityKey::Here(file.key)),
            Err(error @ KeysError::Load(TrustError::Exposed { .. })) => return Err(error),
            file => file,
        };
        if let Ok(Some(Locked { key, .. })) = &locked
            && let Some((key, _)) = self.unlocked(key)
        {
            return Ok(AuthorityKey::Here(key));
        }
        let agent = match std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) {
            None => "there is no ssh-agent (SSH_AUTH_SOCK)".to_owned(),
            Some(socket) => match AgentKey::find(Path::new(&socket), wanted) {
                Ok(Some(key)) => return Ok(AuthorityKey::InAgent(key)),
                Ok(None) => format!("the ssh-agent at {} does not hold it", socket.display()),
                Err(why) => why,
            },
        };
        match locked? {
            Some(locked) => Ok(AuthorityKey::Here(self.unlock(&locked, &agent)?.0)),
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
            bundle.signature(&key).map_err(unsigned)
        };
        let signatures: Vec<Signature> = roots.iter().map(sign).collect::<Result<_, _>>()?;
        bundle.signed_by(&signatures).map_err(unsigned)
    }

    /// Two, while the authority is replaced.
    fn paths(&self, role: AuthorityRole) -> [PathBuf; 2] {
        [authority_file(role), new_authority_file(role)].map(|name| self.directory.join(name))
    }

    /// The file of this key. One that is unusable may be the one that is wanted.
    fn file_of(
        &self,
        role: AuthorityRole,
        wanted: &PublicKey,
    ) -> Result<Option<Locked>, KeysError> {
        let mut unusable = Ok(None);
        for path in self.paths(role) {
            if !exists(&path)? {
                continue;
            }
            match authority::load_key_file(&path) {
                Ok(key) if key.public_key().key_data() == wanted.key_data() => {
                    return Ok(Some(Locked { path, key }));
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
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&print_of(key)).cloned()
    }

    fn keep(&self, key: &PrivateKey, passphrase: &Passphrase) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(print_of(key), (key.clone(), passphrase.clone()));
    }

    fn unlock(&self, locked: &Locked, agent: &str) -> Result<Unlocked, KeysError> {
        let Locked { path, key } = locked;
        let mut reason = String::new();
        for attempt in 0..PASSPHRASE_TRIES {
            let given = (self.ask)(path, attempt > 0).map_err(|unasked| match unasked {
                Unasked::Interrupted => KeysError::Interrupted,
                Unasked::Nobody(why) => {
                    KeysError::Locked { path: path.clone(), why: format!("{agent}, and {why}") }
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
        Err(KeysError::Locked { path: path.clone(), why })
    }

    /// Makes the key that is to take another's place, as `ROLE.new`, unless it is there, and gives
    /// its public half. Where the other one's file has a passphrase, it gets the same.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the passphrase is not to be had.
    pub(super) fn successor(
        &self,
        role: AuthorityRole,
        comment: &str,
        replaces: Option<&PublicKey>,
    ) -> Result<PublicKey, KeysError> {
        let path = self.directory.join(new_authority_file(role));
        if exists(&path)? {
            return Ok(authority::load_key_file(&path)?.public_key().clone());
        }
        let old = replaces.map(|key| self.file_of(role, key)).transpose()?.flatten();
        let key = authority::new_key(comment)?;
        let public = key.public_key().clone();
        let key = match old.filter(|old| old.key.is_encrypted()) {
            None => key,
            Some(old) => {
                let (_, passphrase) = match self.unlocked(&old.key) {
                    Some(unlocked) => unlocked,
                    None => self.unlock(&old, "the new key is to have the same one")?,
                };
                let locked = authority::with_passphrase(&key, &passphrase)?;
                self.keep(&key, &passphrase);
                locked
            }
        };
        authority::write_private_key(&path, &key)?;
        Ok(public)
    }
}

fn print_of(key: &PrivateKey) -> String {
    authority::print(key.public_key())
}
