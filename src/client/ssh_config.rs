//! Reads which nodes there are from an ssh_config, the one that `paxos-ctl ssh-config` prints.
//!
//! Only what that file says is understood: `Host` with one plain name, and the few options that say
//! where a node is, how it proves itself, and with which key to knock. Other options are OpenSSH's
//! business and are passed over, except those that would change where the connection goes or whom
//! it believes: these are errors, because doing half of them would be worse.

use crate::transport::client::{ClientIdentity, Endpoint, HostCheck};
use crate::transport::credentials::{CredentialsError, load_host_check, load_identity};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A node that can be dialled.
#[derive(Clone)]
pub struct Node {
    /// As in `Host`.
    pub name: String,
    /// Where it is, and how it proves itself.
    pub endpoint: Endpoint,
    /// Who knocks.
    pub identity: ClientIdentity,
    /// Where the keys were read from; none if they were given.
    files: Option<Files>,
}

/// The files of keys that a block names.
#[derive(Debug, Clone)]
struct Files {
    known_hosts: PathBuf,
    key: Option<PathBuf>,
    certificate: Option<PathBuf>,
    agent: Option<PathBuf>,
}

impl Node {
    /// A node that is dialled with these keys and no others.
    pub fn new(name: String, endpoint: Endpoint, identity: ClientIdentity) -> Node {
        Node { name, endpoint, identity, files: None }
    }

    /// The same node with what lies in its files of keys now, for a program that runs longer than a
    /// certificate is valid. What cannot be read, because it is being written for instance, leaves
    /// the keys of before.
    pub fn reread(&self) -> Node {
        let mut node = self.clone();
        if let Some(files) = &self.files {
            let alias = &self.endpoint.host_principal;
            if let (Ok(check), Ok(identity)) = (files.host_check(alias), files.identity()) {
                (node.endpoint.check, node.identity) = (check, identity);
            }
        }
        node
    }
}

impl Files {
    fn host_check(&self, alias: &str) -> Result<HostCheck, CredentialsError> {
        load_host_check(&self.known_hosts, alias)
    }

    fn identity(&self) -> Result<ClientIdentity, CredentialsError> {
        load_identity(self.key.as_deref(), self.certificate.as_deref(), self.agent.as_deref())
    }
}

/// Why there is nobody to dial.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the ssh_config {path}: {source}; print one with paxos-ctl ssh-config")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line that this program does not understand.
    #[error(
        "{path}:{line}: {reason}; print a new one with paxos-ctl ssh-config, or use ssh itself"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// No `Host` of that name.
    #[error("{path} has no Host {name}; it has {known}")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A `Host` without something that is needed.
    #[error("Host {name} in {path} has no {option}; print a new one with paxos-ctl ssh-config")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Which.
        name: String,
        /// What is missing.
        option: &'static str,
    },
    /// A `Host` that only OpenSSH can reach.
    #[error(
        "Host {name} in {path} has {option}, which only ssh can do; use: ssh -F {path} {name} paxos"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Which.
        name: String,
        /// What it has.
        option: &'static str,
    },
    /// The files that it names do not do.
    #[error("Host {name}: {source}")]
    Credentials {
        /// Which.
        name: String,
        /// Why.
        source: CredentialsError,
    },
}

/// One `Host` of the file, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostBlock {
    /// Its name.
    pub name: String,
    host_name: Option<String>,
    port: Option<u16>,
    host_key_alias: Option<String>,
    known_hosts: Option<PathBuf>,
    identity_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    proxy_command: Option<Vec<String>>,
    unusable: Option<&'static str>,
}

/// A parsed file.
#[derive(Debug)]
pub struct SshConfig {
    path: PathBuf,
    /// In the order of the file.
    pub hosts: Vec<HostBlock>,
}

impl SshConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError::Read`] and [`ConfigError::Line`].
    pub fn load(path: &Path) -> Result<SshConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        SshConfig::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<SshConfig, ConfigError> {
        let mut hosts: Vec<HostBlock> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |reason: String| ConfigError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason,
            };
            let Some((keyword, value)) = split_line(line) else { continue };
            if keyword == "host" {
                if value.contains([' ', '*', '?', '!']) {
                    return Err(wrong(format!("Host {value} is no plain name")));
                }
                hosts.push(HostBlock { name: value, ..HostBlock::default() });
            } else if let Some(host) = hosts.last_mut() {
                host.set(&keyword, value).map_err(wrong)?;
            } else if matches!(keyword.as_str(), "include" | "match") {
                return Err(wrong(format!("{keyword} is not understood here")));
            }
        }
        Ok(SshConfig { path: path.to_owned(), hosts })
    }

    /// Makes the node of that name ready to be dialled, with the keys that its block names. `agent`
    /// is the socket of an ssh-agent.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn node(&self, name: &str, agent: Option<&Path>) -> Result<Node, ConfigError> {
        let host = self.hosts.iter().find(|host| host.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
            let (path, name) = (self.path.clone(), name.to_owned());
            ConfigError::Unknown { path, name, known: known.join(", ") }
        })?;
        let missing = |option| {
            let (path, name) = (self.path.clone(), name.to_owned());
            ConfigError::Missing { path, name, option }
        };
        if let Some(option) = host.unusable {
            let (path, name) = (self.path.clone(), name.to_owned());
            return Err(ConfigError::Unusable { path, name, option });
        }
        let credentials = |source| ConfigError::Credentials { name: name.to_owned(), source };
        let alias = host.host_key_alias.clone().ok_or_else(|| missing("HostKeyAlias"))?;
        let known_hosts = host.known_hosts.as_ref().ok_or_else(|| missing("UserKnownHostsFile"))?;
        let files = Files {
            known_hosts: known_hosts.clone(),
            key: host.identity_file.clone(),
            certificate: host.certificate_file.clone(),
            agent: agent.map(Path::to_owned),
        };
        let check = files.host_check(&alias).map_err(credentials)?;
        let identity = files.identity().map_err(credentials)?;
        let endpoint = Endpoint {
            host: host.host_name.clone().unwrap_or_else(|| name.to_owned()),
            port: host.port.unwrap_or(22),
            host_principal: alias,
            check,
            by_way_of: host.proxy_command.clone(),
        };
        Ok(Node { name: name.to_owned(), endpoint, identity, files: Some(files) })
    }
}

impl HostBlock {
    /// As with OpenSSH, the first value of an option counts.
    fn set(&mut self, keyword: &str, value: String) -> Result<(), String> {
        match keyword {
            "hostname" => _ = self.host_name.get_or_insert(value),
            "port" => {
                let port = value.parse().map_err(|_| format!("\"{value}\" is no port"))?;
                self.port.get_or_insert(port);
            }
            "hostkeyalias" => _ = self.host_key_alias.get_or_insert(value),
            "userknownhostsfile" => _ = self.known_hosts.get_or_insert(expanded(&value)),
            "identityfile" => _ = self.identity_file.get_or_insert(expanded(&value)),
            "certificatefile" => _ = self.certificate_file.get_or_insert(expanded(&value)),
            "proxyjump" if value != "none" => self.unusable = Some("ProxyJump"),
            "proxycommand" if value != "none" => {
                let words = shell_words::split(&value);
                let words = words.map_err(|_| format!("{value:?} has unbalanced quotes"))?;
                self.proxy_command.get_or_insert(words);
            }
            "include" | "match" => return Err(format!("{keyword} is not understood here")),
            _ => {}
        }
        Ok(())
    }
}

/// Keyword in lower case, and value without its quotes; none for blank lines and comments.
fn split_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let value = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some((keyword.to_ascii_lowercase(), unquoted.unwrap_or(value).to_owned()))
}

/// A path with the home directory of whoever runs this program for `~/`.
pub fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SshConfig, ConfigError> {
        SshConfig::parse(Path::new("F"), text)
    }

    #[test]
    fn what_the_controller_prints_is_understood() {
        let config = parse(
            "\
# cluster local
Host node1
    HostName 127.0.0.1
    Port 7101
    HostKeyAlias node1.local.paxos
    UserKnownHostsFile \"/keys dir/known_hosts\"
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    IdentitiesOnly yes
    IdentityFile /keys/operator
    CertificateFile=/keys/operator-cert.pub
    ProxyCommand ssh -W %h:%p 'a b'

Host node2
",
        )
        .unwrap();
        assert_eq!(
            config.hosts[0],
            HostBlock {
                name: "node1".into(),
                host_name: Some("127.0.0.1".into()),
                port: Some(7101),
                host_key_alias: Some("node1.local.paxos".into()),
                known_hosts: Some("/keys dir/known_hosts".into()),
                identity_file: Some("/keys/operator".into()),
                certificate_file: Some("/keys/operator-cert.pub".into()),
                proxy_command: Some(["ssh", "-W", "%h:%p", "a b"].map(str::to_owned).into()),
                unusable: None,
            }
        );
        assert_eq!(config.hosts[1].name, "node2");
    }

    #[test]
    fn what_would_change_the_destination_is_refused() {
        for (text, message) in [
            ("Host *\n", "F:1: Host * is no plain name"),
            ("Host a b\n", "F:1: Host a b is no plain name"),
            ("Include other\n", "F:1: include is not understood here"),
            ("Host a\nPort x\n", "F:2: \"x\" is no port"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let node = |text| parse(text).unwrap().node("a", None).err().unwrap().to_string();
        assert!(node("Host a\nProxyJump b\n").contains("has ProxyJump, which only ssh"));
        assert!(node("Host a\n").starts_with("Host a in F has no HostKeyAlias"));
        assert!(node("Host b\nHost c\n").starts_with("F has no Host a; it has b, c"));
    }
}
