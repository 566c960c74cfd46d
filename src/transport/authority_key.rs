//! The key of an authority, wherever it is kept: here, or in an ssh-agent.
//!
//! An agent is another program: what it gave is verified before anybody gets to see it. It may ask
//! a person, or wait for a touch of a security key, so it has time, but not for ever.
//!
//! The cost: each signature by an agent is a connection of its own, and blocks. Nothing that runs a
//! cluster signs, only the controller does.

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{self, Signature, SigningKey};
use russh::keys::{PrivateKey, PublicKey};
use signature::{Signer, Verifier};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long an agent may take: somebody has to find their security key.
const AGENT_LIMIT: Duration = Duration::from_secs(60);

/// What can sign for an authority.
pub trait Signing: SigningKey {
    /// Why it did not, for a person; `error` is what the library made of it.
    fn reason(&self, error: &ssh_key::Error) -> String {
        error.to_string()
    }
}

impl Signing for PrivateKey {}

/// The key of an authority.
#[derive(Debug)]
pub enum AuthorityKey {
    /// It is here.
    Here(PrivateKey),
    /// An agent has it.
    InAgent(AgentKey),
}

/// A key that an ssh-agent holds.
#[derive(Debug)]
pub struct AgentKey {
    socket: PathBuf,
    key: PublicKey,
    /// Why it did not sign, for which the library has no room.
    said: Mutex<String>,
}

impl AgentKey {
    /// The key, if the agent at `socket` holds it.
    ///
    /// # Errors
    /// When there is no agent, or it does not say what it holds, in words for a person.
    pub fn find(socket: &Path, key: &PublicKey) -> Result<Option<AgentKey>, String> {
        let held = ask(socket, async |agent| agent.request_identities().await)?;
        // One that stands there with a certificate stands there without it as well.
        let is_it = |held: &AgentIdentity| match held {
            AgentIdentity::PublicKey { key: held, .. } => held.key_data() == key.key_data(),
            AgentIdentity::Certificate { .. } => false,
        };
        if !held.iter().any(is_it) {
            return Ok(None);
        }
        let (socket, key) = (socket.to_owned(), key.clone());
        Ok(Some(AgentKey { socket, key, said: Mutex::default() }))
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        let signed = ask(&self.socket, async |agent| {
            agent.sign_request_signature(&self.key, None, message).await
        })?;
        self.key.key_data().verify(message, &signed).map_err(|_mismatch| {
            failed(&self.socket, "gave a signature that is none of this key's")
        })?;
        Ok(signed)
    }
}

impl Signer<Signature> for AuthorityKey {
    fn try_sign(&self, message: &[u8]) -> signature::Result<Signature> {
        match self {
            AuthorityKey::Here(key) => key.try_sign(message),
            AuthorityKey::InAgent(agent) => agent.sign(message).map_err(|why| {
                *agent.said.lock().unwrap_or_else(PoisonError::into_inner) = why;
                signature::Error::new()
            }),
        }
    }
}

impl From<&AuthorityKey> for KeyData {
    fn from(key: &AuthorityKey) -> KeyData {
        match key {
            AuthorityKey::Here(key) => key.public_key().key_data().clone(),
            AuthorityKey::InAgent(agent) => agent.key.key_data().clone(),
        }
    }
}

impl Signing for AuthorityKey {
    fn reason(&self, error: &ssh_key::Error) -> String {
        if let AuthorityKey::InAgent(agent) = self {
            let said = agent.said.lock().unwrap_or_else(PoisonError::into_inner);
            if !said.is_empty() {
                return said.clone();
            }
        }
        error.to_string()
    }
}

type Agent = AgentClient<tokio::net::UnixStream>;

/// Asks the agent at `socket`, on a connection of its own.
fn ask<T, E: fmt::Display>(
    socket: &Path,
    question: impl AsyncFnOnce(&mut Agent) -> Result<T, E>,
) -> Result<T, String> {
    let asking = async {
        let agent = AgentClient::connect_uds(socket).await;
        let mut agent = agent.map_err(|error| format!("cannot be reached: {error}"))?;
        question(&mut agent).await.map_err(|error| format!("refuses: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(async { timeout(AGENT_LIMIT, asking).await }),
        Err(error) => Ok(Err(format!("cannot be asked: {error}"))),
    };
    let answer = answer.unwrap_or_else(|_| Err(format!("did not answer within {AGENT_LIMIT:?}")));
    answer.map_err(|what| failed(socket, &what))
}

fn failed(socket: &Path, what: &str) -> String {
    format!("the ssh-agent at {} {what}", socket.display())
}
