//! Asks nodes how they are, over SSH as any operator would, all at once and within a bound of time.
//!
//! A node that does not answer is an answer too: the words of what went wrong. Nothing here changes
//! a node, but for the one command that hands leadership over.

use super::host::login::Login;
use super::inventory::NodeSpec;
use super::keys::{ClusterKeys, OPERATOR};
use crate::client::door::{ChannelEvent, Door};
use crate::client::ssh_config::Node;
use crate::transport::authority::PublicKey;
use crate::transport::client::{ClientIdentity, Endpoint, HostCheck};
use crate::transport::identity::host_principal;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::StatusReport;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// No node may take longer to say how it is.
pub const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Added to what a command was given, for the way there and back.
pub(super) const ROUND_TRIP: Duration = Duration::from_secs(1);

/// A status of a thousand members is below this, and so are all events of a recorder; more than
/// that is no answer to what was asked.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// What a node said of itself, or why it did not.
pub type Answer = Result<StatusReport, String>;

/// Somebody who can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The node's name.
    pub name: String,
    /// Name or address of its host.
    pub host: String,
    /// The port of its SSH server.
    pub port: u16,
    /// The program that makes the connection, where it leads by way of another host.
    pub by_way_of: Option<Vec<String>>,
}

impl Contact {
    /// A node of an inventory.
    pub fn of(node: &NodeSpec) -> Contact {
        // Whoever cannot ask ssh about its ways notices it at the first login.
        let behind = |login: &&Login| login.is_behind_another().unwrap_or(false);
        let by_way_of = node.login.as_ref().filter(behind).map(Login::shared_proxy_command);
        Contact { name: node.name.clone(), host: node.host.clone(), port: node.port, by_way_of }
    }

    /// A node at `host:port`, an IPv6 address in brackets; none if it is no such address.
    pub fn at(name: &str, address: &str) -> Option<Contact> {
        let (host, port) = address.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let (name, host, port) = (name.to_owned(), bare.to_owned(), port.parse().ok()?);
        Some(Contact { name, host, port, by_way_of: None })
    }
}

/// Somebody who may ask the nodes of a cluster.
pub struct Asker {
    runtime: tokio::runtime::Runtime,
    cluster: String,
    check: HostCheck,
    identity: ClientIdentity,
}

/// What a command on a node left behind.
#[derive(Debug, Default)]
pub struct Said {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Its exit status, if it came that far.
    pub exit: Option<u32>,
}

impl Asker {
    /// Asks as the operator of these keys.
    ///
    /// # Errors
    /// When the operator's key is missing or exposed, or its certificate ran out.
    pub fn new(keys: &ClusterKeys, cluster: &str) -> Result<Asker, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            let message = format!("cannot start the program's event loop: {error}");
            Failure::new(Code::Internal, message, "check the limits of open files and threads")
        })?;
        let (key, certificate) = keys.person(OPERATOR).map_err(super::keys_failure)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if certificate.valid_before() <= now.as_secs() {
            let message = "the operator's certificate has run out, and no node believes it";
            return Err(Failure::new(Code::BadSettings, message, "deploy again: it is renewed"));
        }
        let (key, certificate) = (Arc::new(key), Box::new(certificate));
        Ok(Asker {
            runtime,
            cluster: cluster.to_owned(),
            check: HostCheck::Authorities {
                believed: keys.host_authorities(),
                revoked: keys.revoked_nodes().map_err(super::keys_failure)?,
            },
            identity: ClientIdentity::Certificate { key, certificate },
        })
    }

    /// The same asker, who believes no host that another authority than this one vouches for.
    pub(super) fn believing_only(mut self, authority: PublicKey) -> Asker {
        self.check = HostCheck::by(vec![authority]);
        self
    }

    /// Waits for something that uses the asker's doors.
    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Takes Ctrl-C from now on; whoever looks sees whether it came.
    pub(super) fn heed_interrupts(&self) -> Arc<AtomicBool> {
        let came = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&came);
        self.runtime.block_on(async {
            // Without a handler Ctrl-C ends the program, as it does anyway.
            if let Ok(mut signal) = signal(SignalKind::interrupt()) {
                tokio::spawn(async move {
                    if signal.recv().await.is_some() {
                        seen.store(true, Ordering::Relaxed);
                    }
                });
            }
        });
        came
    }

    pub(super) fn door(&self, node: &Contact) -> Door {
        let endpoint = Endpoint {
            host: node.host.clone(),
            port: node.port,
            host_principal: host_principal(&node.name, &self.cluster),
            check: self.check.clone(),
            by_way_of: node.by_way_of.clone(),
        };
        let identity = self.identity.clone();
        Door::Node(Box::new(Node::new(node.name.clone(), endpoint, identity)))
    }

    /// Asks each of the nodes, at once, for no longer than `limit` in all.
    pub fn ask(&self, nodes: &[&NodeSpec], limit: Duration) -> BTreeMap<String, Answer> {
        let contacts: Vec<Contact> = nodes.iter().map(|node| Contact::of(node)).collect();
        self.ask_all(&contacts, limit)
    }

    /// As [`Asker::ask`], for nodes that no inventory has to name. Of two contacts of one name
    /// that both answer, either's answer is kept; an answer counts more than none.
    pub fn ask_all(&self, contacts: &[Contact], limit: Duration) -> BTreeMap<String, Answer> {
        let ask = |node: &Contact| {
            let (name, door) = (node.name.clone(), self.door(node));
            async move {
                let said = say(&door, "paxos status -o json", limit).await;
                (name, said.and_then(read_status))
            }
        };
        let asked = futures::future::join_all(contacts.iter().map(ask));
        let mut answers = BTreeMap::new();
        for (name, answer) in self.runtime.block_on(asked) {
            if answer.is_ok() || !answers.contains_key(&name) {
                answers.insert(name, answer);
            }
        }
        answers
    }

    /// Gives a node a command as an operator would.
    ///
    /// # Errors
    /// In the node's words.
    pub fn tell(&self, node: &NodeSpec, command: &str, limit: Duration) -> Result<(), String> {
        let door = self.door(&Contact::of(node));
        let said = self.runtime.block_on(say(&door, command, limit + ROUND_TRIP))?;
        match said.exit {
            Some(0) => Ok(()),
            _ => Err(String::from_utf8_lossy(&said.stderr).trim().to_owned()),
        }
    }

    /// Asks a node to see to it that another one leads, and waits until it does.
    ///
    /// # Errors
    /// In the node's words.
    pub fn resign(&self, node: &NodeSpec, limit: Duration) -> Result<(), String> {
        let command = format!("paxos leader resign --timeout {}ms", limit.as_millis());
        self.tell(node, &command, limit)
    }
}

/// One command, to its end.
pub(super) async fn say(door: &Door, command: &str, limit: Duration) -> Result<Said, String> {
    let talk = async {
        let talk = door.ask(command.as_bytes(), limit).await.map_err(|error| error.to_string())?;
        let (mut input, mut output) = (talk.input, talk.output);
        // A node that is gone already says so when its output is read.
        let _gone = input.end().await;
        let mut said = Said::default();
        loop {
            match output.next().await {
                ChannelEvent::Stdout(bytes) => said.stdout.extend_from_slice(&bytes),
                ChannelEvent::Stderr(bytes) => said.stderr.extend_from_slice(&bytes),
                ChannelEvent::Exit(status) => said.exit = Some(status),
                ChannelEvent::Closed(reason) => match said.exit {
                    Some(_) => return Ok(said),
                    None => return Err(reason),
                },
            }
            if said.stdout.len() + said.stderr.len() > ANSWER_BYTES_MAX {
                return Err(format!("it said more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
    };
    match tokio::time::timeout(limit, talk).await {
        Ok(result) => result,
        Err(_elapsed) => Err(format!("it did not answer within {limit:?}")),
    }
}

/// The exit status is not looked at: a node without a quorum answers, and exits with 69.
fn read_status(said: Said) -> Answer {
    serde_json::from_slice(&said.stdout).map_err(|error| {
        let told = match said.stdout.is_empty() {
            true => &said.stderr,
            false => &said.stdout,
        };
        let told = String::from_utf8_lossy(&told[..told.len().min(300)]).trim().to_owned();
        format!("it answered something else than a status ({error}): {told}")
    })
}

/// Who leads, according to most of those who know one.
pub fn leader(answers: &BTreeMap<String, Answer>) -> Option<String> {
    let mut votes: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for status in answers.values().flatten() {
        if let Some(leader) = &status.leader {
            let vote = votes.entry(leader).or_default();
            *vote = (vote.0 + 1, vote.1.max(status.ballot.number.0));
        }
    }
    // Of two that are named, the one of the higher ballot is the newer.
    let newest = votes.into_iter().max_by_key(|(_, (count, ballot))| (*ballot, *count));
    newest.map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let parts = |address| Contact::at("n", address).map(|c| (c.host, c.port));
        assert_eq!(parts("127.0.0.1:7101"), Some(("127.0.0.1".to_owned(), 7101)));
        assert_eq!(parts("[::1]:7022"), Some(("::1".to_owned(), 7022)));
        assert_eq!(parts("host"), None);
        assert_eq!(parts("host:x"), None);
    }
}
