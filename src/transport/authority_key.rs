//! The key of an authority, wherever it is kept: here, or in an ssh-agent.
//!
//! An agent is another program (draft-ietf-sshm-ssh-agent): what it gave is verified before anybody
//! gets to see it. It may ask a person, or wait for a touch of a security key, so it has time for a
//! signature, but not for ever. Which keys it holds is told by their bytes: of the others beside
//! them nothing has to be understood, neither their kind nor their comment.
//!
//! The cost: two requests of the agent's protocol of our own, for the library's stops at the first
//! comment that is no UTF-8; each signature is a connection of its own, and blocks. Nothing that
//! runs a cluster signs, only the controller does.

use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Signature, SigningKey};
use russh::keys::{PrivateKey, PublicKey};
use signature::{Signer, Verifier};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an agent may take to say what it holds: it has to ask nobody.
const LIST_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take to sign: somebody has to find their security key.
const SIGN_LIMIT: Duration = Duration::from_secs(60);

/// OpenSSH's agent says no more in one answer (`AGENT_MAX_LEN` of ssh-agent.c is 256 KiB).
const ANSWER_BYTES_MAX: u32 = 256 << 10;

/// Numbers of the agent's protocol, section 3.1 and 6.1 of the draft.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// What can sign for an authority.
pub trait Signing: SigningKey {
    /// Why it did not the last time, for which the library has no room; none if that was the
    /// library's own failure.
    fn refusal(&self) -> Option<String> {
        None
    }
}

impl Signing for PrivateKey {}

/// The key of an authority.
#[derive(Debug)]
pub enum AuthorityKey {
    /// It is here.
    Here(Box<PrivateKey>),
    /// An agent has it.
    InAgent(AgentKey),
}

/// A key that an ssh-agent holds.
#[derive(Debug)]
pub struct AgentKey {
    socket: PathBuf,
    key: PublicKey,
    /// Why it did not sign the last time.
    said: Mutex<Option<String>>,
}

/// What an ssh-agent holds.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    /// The public halves, in the form of the wire.
    keys: Vec<Vec<u8>>,
}

impl Agent {
    /// Asks the agent at `socket` what it holds.
    ///
    /// # Errors
    /// When there is no agent, or it does not say, in words for a person.
    pub fn look(socket: &Path) -> Result<Agent, String> {
        let answer = ask(socket, &[REQUEST_IDENTITIES], LIST_LIMIT)?;
        let keys = match answer.split_first() {
            Some((&IDENTITIES_ANSWER, list)) => identities(list),
            _ => None,
        };
        let keys = keys.ok_or_else(|| failed(socket, "does not say which keys it holds"))?;
        Ok(Agent { socket: socket.to_owned(), keys })
    }

    /// A key, if the agent held it. One that stands there with a certificate stands there without
    /// it as well.
    pub fn key(&self, wanted: &PublicKey) -> Option<AgentKey> {
        let bytes = wanted.to_bytes().ok()?;
        self.keys.contains(&bytes).then(|| AgentKey {
            socket: self.socket.clone(),
            key: wanted.clone(),
            said: Mutex::default(),
        })
    }
}

impl AgentKey {
    fn said(&self) -> MutexGuard<'_, Option<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        let refused = |what: &str| failed(&self.socket, what);
        let key = self.key.to_bytes().map_err(|error| refused(&error.to_string()))?;
        let mut request = vec![SIGN_REQUEST];
        for field in [&key, message] {
            let length =
                u32::try_from(field.len()).map_err(|_| refused("takes no such message"))?;
            request.extend(length.to_be_bytes());
            request.extend(field);
        }
        // No flags: they are for RSA.
        request.extend(0_u32.to_be_bytes());
        let answer = ask(&self.socket, &request, SIGN_LIMIT)?;
        let signature = match answer.split_first() {
            Some((&SIGN_RESPONSE, mut rest)) => field(&mut rest).map(Signature::try_from),
            Some((&FAILURE, _)) => {
                let why = "did not sign: somebody said no, or the agent is locked or lost the key";
                return Err(refused(why));
            }
            _ => None,
        };
        let Some(Ok(signature)) = signature else {
            return Err(refused("answers with what is no signature"));
        };
        match self.key.key_data().verify(message, &signature) {
            Ok(()) => Ok(signature),
            Err(_mismatch) => Err(refused("gave a signature that is none of this key's")),
        }
    }
}

impl Signer<Signature> for AuthorityKey {
    fn try_sign(&self, message: &[u8]) -> signature::Result<Signature> {
        match self {
            AuthorityKey::Here(key) => key.try_sign(message),
            AuthorityKey::InAgent(agent) => agent.sign(message).map_err(|why| {
                *agent.said() = Some(why);
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
    fn refusal(&self) -> Option<String> {
        match self {
            AuthorityKey::Here(_) => None,
            AuthorityKey::InAgent(agent) => agent.said().clone(),
        }
    }
}

/// One request and its answer, on a connection of its own.
fn ask(socket: &Path, request: &[u8], limit: Duration) -> Result<Vec<u8>, String> {
    let unreachable = |error: io::Error| failed(socket, &format!("cannot be reached: {error}"));
    let mut agent = UnixStream::connect(socket).map_err(unreachable)?;
    let asked = exchange(&mut agent, request, limit);
    asked.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            failed(socket, &format!("did not answer within {limit:?}"))
        }
        _ => failed(socket, &format!("cannot be asked: {error}")),
    })
}

fn exchange(agent: &mut UnixStream, request: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + limit;
    agent.set_write_timeout(Some(limit))?;
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    agent.write_all(&[&length.to_be_bytes(), request].concat())?;
    let mut length = [0; 4];
    read_until(agent, &mut length, deadline)?;
    let length = u32::from_be_bytes(length);
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other(format!("an answer of {length} bytes")));
    }
    let mut answer = vec![0; length as usize];
    read_until(agent, &mut answer, deadline)?;
    Ok(answer)
}

/// However slowly it comes.
fn read_until(agent: &mut UnixStream, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        // None at all would be no limit.
        agent.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match agent.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
            Ok(read) => bytes = &mut bytes[read..],
            // A signal that lets the step in hand finish.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The keys of a list: how many, and of each its bytes and a comment.
fn identities(mut list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, rest) = list.split_first_chunk()?;
    list = rest;
    // Each takes some bytes, so a number that lies runs out of them.
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        keys.push(field(&mut list)?.to_vec());
        let _comment = field(&mut list)?;
    }
    Some(keys)
}

/// Takes one field, which its length stands before.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (field, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(field)
}

fn failed(socket: &Path, what: &str) -> String {
    format!("the ssh-agent at {} {what}", socket.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::authority::new_key;
    use std::os::unix::net::UnixListener;

    /// An agent that gives each of these answers once.
    fn agent(folder: &Path, answers: Vec<Vec<u8>>) -> PathBuf {
        let socket = folder.join("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut caller, _) = listener.accept().unwrap();
                let mut length = [0; 4];
                caller.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                caller.read_exact(&mut request).unwrap();
                caller.write_all(&framed(&answer)).unwrap();
            }
        });
        socket
    }

    fn framed(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn list(keys: &[&[u8]]) -> Vec<u8> {
        let count = u32::try_from(keys.len()).unwrap().to_be_bytes();
        // A comment in Latin-1, as somebody may have typed it.
        let entries = keys.iter().map(|key| [framed(key), framed(b"caf\xe9")].concat());
        [vec![IDENTITIES_ANSWER], count.to_vec(), entries.collect::<Vec<_>>().concat()].concat()
    }

    #[test]
    fn what_stands_beside_a_key_does_not_have_to_be_understood() {
        let folder = tempfile::tempdir().unwrap();
        let key = new_key("").unwrap();
        let bytes = key.public_key().to_bytes().unwrap();
        let socket = agent(folder.path(), vec![list(&[b"no key at all", &bytes])]);
        let held = Agent::look(&socket).unwrap();
        assert!(held.key(key.public_key()).is_some());
        assert!(held.key(new_key("").unwrap().public_key()).is_none());
    }

    #[test]
    fn a_list_that_makes_no_sense_is_an_error() {
        let mut short = list(&[b"a key"]);
        short.pop();
        let endless = [&[IDENTITIES_ANSWER][..], &u32::MAX.to_be_bytes()].concat();
        for answer in [vec![], vec![FAILURE], short, endless] {
            let folder = tempfile::tempdir().unwrap();
            let socket = agent(folder.path(), vec![answer]);
            let why = Agent::look(&socket).unwrap_err();
            assert!(why.contains("does not say which keys"), "{why}");
        }
        let folder = tempfile::tempdir().unwrap();
        let why = Agent::look(&folder.path().join("none")).unwrap_err();
        assert!(why.contains("cannot be reached"), "{why}");
    }

    #[test]
    fn a_signature_is_verified_before_anybody_sees_it() {
        let key = new_key("").unwrap();
        let bytes = key.public_key().to_bytes().unwrap();
        let signed = |message: &[u8]| {
            let signature = Vec::try_from(key.try_sign(message).unwrap()).unwrap();
            [vec![SIGN_RESPONSE], framed(&signature)].concat()
        };
        let asked = |answer: Vec<u8>| {
            let folder = tempfile::tempdir().unwrap();
            let socket = agent(folder.path(), vec![list(&[&bytes]), answer]);
            let held = Agent::look(&socket).unwrap().key(key.public_key()).unwrap();
            let held = AuthorityKey::InAgent(held);
            held.try_sign(b"this").map_err(|_| held.refusal().unwrap())
        };
        assert!(asked(signed(b"this")).is_ok());
        for (answer, why) in [
            (signed(b"that"), "none of this key's"),
            (vec![FAILURE], "did not sign"),
            (vec![SIGN_RESPONSE, 0, 0], "no signature"),
            (vec![SIGN_RESPONSE, 0, 0, 0, 1, 7], "no signature"),
        ] {
            let said = asked(answer).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
