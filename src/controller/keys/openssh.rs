//! What OpenSSH's client reads of a cluster: whom it may believe, and how it gets to the nodes.

use super::{ClusterKeys, KNOWN_HOSTS, KeysError, parse_public, read_optional};
use crate::transport::authority::{self, PublicKey};
use crate::transport::bundle::AuthorityRole;
use crate::transport::identity;
use std::path::Path;

/// How a node is reached, for the ssh_config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// The node's name.
    pub name: String,
    /// Name or address of its host.
    pub host: String,
    /// Port of its SSH server.
    pub port: u16,
    /// What makes the connection, where it leads by way of another host. No ProxyJump: the jump
    /// would be made with this file, which knows nothing of the bastion.
    pub proxy_command: Option<String>,
}

impl ClusterKeys {
    /// Keys of nodes that are revoked, as far as they are here.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn revoked_nodes(&self) -> Result<Vec<PublicKey>, KeysError> {
        let mut revoked = Vec::new();
        for node in self.node_directories()? {
            let path = node.join("node_key.pub");
            let Some(line) = read_optional(&path)? else { continue };
            let key = parse_public(&path, &line)?;
            if self.bundle.revokes_key(&authority::print(&key)).is_some() {
                revoked.push(key);
            }
        }
        Ok(revoked)
    }

    /// The known_hosts file: whom OpenSSH may believe about hosts of this cluster. No host is ever
    /// taken on trust at first use, and none whose key is revoked, whoever vouches for it.
    ///
    /// # Errors
    /// When a node's key that is here cannot be read.
    pub fn known_hosts(&self) -> Result<String, KeysError> {
        let cluster = &self.bundle.cluster;
        let lines = self.bundle.authorities(AuthorityRole::Host).map(|key| {
            let line = authority::public_line(key);
            let comment = authority::authority_comment(AuthorityRole::Host, cluster);
            format!("@cert-authority *.{cluster}.paxos {} {comment}\n", line.trim_end())
        });
        let revoked = self.revoked_nodes()?.into_iter().map(|key| {
            let line = authority::public_line(&key);
            format!("@revoked *.{cluster}.paxos {}\n", line.trim_end())
        });
        Ok(lines.chain(revoked).collect())
    }

    /// An ssh_config with one `Host` per node and nothing that concerns other hosts.
    ///
    /// # Errors
    /// When the keys lie at a path that an ssh_config cannot hold.
    pub fn ssh_config(&self, targets: &[SshTarget], person: &str) -> Result<String, KeysError> {
        let cluster = &self.bundle.cluster;
        let known_hosts = config_path(&self.directory.join(KNOWN_HOSTS))?;
        let key = config_path(&self.person_path(person, ""))?;
        let certificate = config_path(&self.person_path(person, "-cert.pub"))?;
        let mut text = format!(
            "# How to reach the nodes of cluster {cluster}, as {person}. Written by paxos-ctl.\n"
        );
        for SshTarget { name, host, port, proxy_command } in targets {
            let alias = identity::host_principal(name, cluster);
            text.push_str(&format!(
                "\nHost {name}\n  HostName {host}\n  Port {port}\n  HostKeyAlias {alias}\n  \
                 UserKnownHostsFile {known_hosts}\n  GlobalKnownHostsFile none\n  \
                 StrictHostKeyChecking yes\n  IdentitiesOnly yes\n  \
                 IdentityFile {key}\n  CertificateFile {certificate}\n"
            ));
            if let Some(command) = proxy_command {
                text.push_str(&format!("  ProxyCommand {command}\n"));
            }
        }
        Ok(text)
    }
}

/// A path as ssh_config takes it: quoted, and with the one character doubled that OpenSSH would
/// expand.
fn config_path(path: &Path) -> Result<String, KeysError> {
    let text =
        path.to_str().filter(|t| !t.contains(['"', '$', '\\']) && !t.contains(char::is_control));
    let text = text.ok_or_else(|| KeysError::Path(path.to_owned()))?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}
