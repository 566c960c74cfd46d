//! Who asks, and what they may do. Asked before anything is proposed, read or shown.

use crate::transport::identity::Principal;
use crate::transport::rights::Rights;
use crate::wire::failure::{Code, Failure};
use crate::wire::grammar::printable;

/// Somebody with rights.
#[derive(Debug, Clone)]
pub struct Access {
    name: String,
    grant: Grant,
}

#[derive(Debug, Clone)]
enum Grant {
    /// On the machine itself, as root or as the node's owner: may read the node's files anyhow.
    Everything,
    /// As issued.
    Rights(Rights),
    /// Peers speak frames; as clients they may look at the cluster's state and no more.
    Nothing,
}

impl Access {
    /// The rights of whoever is at the other end.
    pub fn of(principal: &Principal) -> Access {
        match principal {
            Principal::Local => Access { name: "local".to_owned(), grant: Grant::Everything },
            Principal::Node { id } => {
                Access { name: format!("node:{}", id.0), grant: Grant::Nothing }
            }
            Principal::Person { name, rights, .. } => {
                Access { name: name.clone(), grant: Grant::Rights(rights.clone()) }
            }
        }
    }

    /// The name under which changes are proposed; sessions and request ids belong to it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// `denied`.
    pub fn read(&self, key: &[u8]) -> Result<(), Failure> {
        match self.may_read(key) {
            true => Ok(()),
            false => Err(self.denied("read", key)),
        }
    }

    /// # Errors
    /// `denied`, unless every key under the prefix may be read.
    pub fn list(&self, prefix: &[u8]) -> Result<(), Failure> {
        match self.may(|rights| rights.may_list(prefix)) {
            true => Ok(()),
            false => Err(self.denied("list", prefix)),
        }
    }

    /// Whether the key may be shown.
    pub fn may_read(&self, key: &[u8]) -> bool {
        self.may(|rights| rights.may_read(key))
    }

    /// # Errors
    /// `denied`.
    pub fn write(&self, key: &[u8]) -> Result<(), Failure> {
        match self.may(|rights| rights.may_write(key)) {
            true => Ok(()),
            false => Err(self.denied("write", key)),
        }
    }

    /// # Errors
    /// `denied`.
    pub fn administer(&self, what: &str) -> Result<(), Failure> {
        if self.may(Rights::admin) {
            return Ok(());
        }
        Err(self.refuse(
            format!("{} may not {what}: it takes the right admin", self.name),
            "ask with an admin's key (paxos-ctl keys issue NAME --role admin)".to_owned(),
        ))
    }

    fn may(&self, allows: impl FnOnce(&Rights) -> bool) -> bool {
        match &self.grant {
            Grant::Everything => true,
            Grant::Rights(rights) => allows(rights),
            Grant::Nothing => false,
        }
    }

    fn denied(&self, verb: &str, key: &[u8]) -> Failure {
        let shown = printable(key);
        let (what, right) = match (verb, key.is_empty()) {
            ("list", true) => ("all keys".to_owned(), "read"),
            ("list", false) => (format!("everything under \"{shown}\""), "read"),
            _ => (format!("\"{shown}\""), verb),
        };
        self.refuse(
            format!("{} may not {verb} {what}", self.name),
            format!("use a key with the right {right}, or {right}:PREFIX for a prefix of it"),
        )
    }

    fn refuse(&self, message: String, hint: String) -> Failure {
        tracing::info!(principal = %self.name, "denied: {message}");
        Failure::new(Code::Denied, message, hint)
    }
}
