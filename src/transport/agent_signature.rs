//! Signatures by a key that an ssh-agent holds, so that a key need not lie in a file.
//!
//! The agent is another program: whoever uses what it gave verifies it first. It may ask a person,
//! or wait for a touch of a security key, so it has time, but not for ever.

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::{HashAlg, Signature, SshSig};
use russh::keys::{PublicKey, ssh_key};
use std::path::Path;
use std::time::Duration;

/// How long an agent may take: somebody has to find their security key.
const AGENT_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a length before the agent's signature.
const LENGTH_BYTES: usize = 4;

/// Has the agent sign a message for this purpose, as `ssh-keygen -Y sign` would.
///
/// # Errors
/// When there is no agent, it does not hold the key, or it does not sign, in words for a person.
pub(super) async fn sign(
    socket: &Path,
    key: &PublicKey,
    namespace: &str,
    message: &[u8],
) -> Result<SshSig, String> {
    const HASH: HashAlg = HashAlg::Sha512;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        format!("the ssh-agent at {} {what}: {error}", socket.display())
    };
    let library = |error: ssh_key::Error| failed("gave what cannot be used", &error);
    let asking = async {
        let agent = AgentClient::connect_uds(socket).await;
        let mut agent = agent.map_err(|error| failed("cannot be reached", &error))?;
        let held = agent.request_identities().await;
        let held = held.map_err(|error| failed("does not say what it holds", &error))?;
        let is_it = |identity: &&AgentIdentity| {
            matches!(identity,
            AgentIdentity::PublicKey { key: held, .. } if held.key_data() == key.key_data())
        };
        let identity = held.iter().find(is_it);
        let identity = identity
            .ok_or_else(|| failed("does not hold the key", &"add it with ssh-add and try again"))?;
        let data = SshSig::signed_data(namespace, HASH, message).map_err(library)?;
        let length = data.len();
        let signed = agent.sign_request(identity, None, data).await;
        let signed = signed.map_err(|error| failed("does not sign", &error))?;
        // The signature comes behind what was signed.
        let signature = signed.get(length + LENGTH_BYTES..).unwrap_or_default();
        let signature = Signature::try_from(signature).map_err(library)?;
        SshSig::new(key.key_data().clone(), namespace, HASH, signature).map_err(library)
    };
    match tokio::time::timeout(AGENT_LIMIT, asking).await {
        Ok(signed) => signed,
        Err(_elapsed) => Err(failed("did not answer", &format!("not within {AGENT_LIMIT:?}"))),
    }
}
