//! How an inventory says that a node's host is reached, and what the node may do there.
//!
//! The variables are Ansible's, so that an inventory that Ansible works with works here. What would
//! weaken a login is not among them, and templates in other people's variables cannot be filled in:
//! they are as if they were not there.

use super::Checker;
use super::groups::Host;
use super::problem::Fault;
use crate::client::ssh_config::expanded;
use crate::controller::host::Layout;
use crate::controller::host::login::Login;
use crate::controller::host::system;
use std::fmt;
use std::path::{Path, PathBuf};

/// How a node's host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It is this machine.
    Local,
    /// Over its own sshd.
    Ssh,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Connection::Local => "local",
            Connection::Ssh => "ssh",
        })
    }
}

/// How a node's host is reached and laid out.
pub(super) struct Access {
    pub(super) connection: Connection,
    pub(super) login: Option<Login>,
    pub(super) layout: Layout,
    pub(super) data_dir: PathBuf,
    /// The line that gave the directory.
    pub(super) directory_at: Option<(PathBuf, u64)>,
}

impl Checker {
    pub(super) fn access(&mut self, host: &Host, cluster: &str) -> Access {
        let connection = match self.text(host, "ansible_connection") {
            Some((kind, _)) if kind == "local" => Connection::Local,
            _ => Connection::Ssh,
        };
        let given = self.absolute_path(host, "paxos_data_dir");
        let login = match connection {
            Connection::Local => None,
            Connection::Ssh => Some(self.login(host)),
        };
        let as_root = |login: &Login| login.becomes_root || login.user.as_deref() == Some("root");
        let own = match &login {
            None => true,
            // Somebody's own directory needs nobody's leave.
            Some(login) => given.is_some() && !as_root(login),
        };
        let (default, layout) = match (&login, own) {
            (_, false) => {
                let layout = Layout::System { cluster: cluster.to_owned() };
                (Path::new(system::STATE).join(cluster), layout)
            }
            (_, true) => {
                (self.state_home.join("paxos").join(cluster).join(&host.name), Layout::Own)
            }
        };
        let (data_dir, directory_at) = match given {
            Some((path, at)) => (path, Some(at)),
            None => (default, None),
        };
        Access { connection, login, layout, data_dir, directory_at }
    }

    fn login(&mut self, host: &Host) -> Login {
        let first = |names: &[&str]| names.iter().find_map(|name| self.plain_text(host, name));
        let address = first(&["ansible_host", "ansible_ssh_host"]);
        let user = first(&["ansible_user", "ansible_ssh_user"]).map(|(user, _)| user);
        let key = first(&["ansible_ssh_private_key_file", "ansible_private_key_file"]);
        let port = first(&["ansible_port", "ansible_ssh_port"]);
        let arguments = ["ansible_ssh_common_args", "ansible_ssh_extra_args"];
        let arguments = arguments.map(|name| (name, self.plain_text(host, name)));
        let becomes = first(&["ansible_become"]);
        let method = first(&["ansible_become_method"]);
        let account = first(&["ansible_become_user"]);
        let mut words = Vec::new();
        for (name, given) in arguments {
            let Some((text, at)) = given else { continue };
            match shell_words::split(&text) {
                Ok(split) => words.extend(split),
                Err(_unbalanced) => {
                    let wanted = "words as in a shell, with balanced quotes";
                    let fault = Fault::Value { variable: name.to_owned(), value: text, wanted };
                    self.problem(at, fault);
                }
            }
        }
        let port = port.and_then(|(text, at)| match text.parse() {
            Ok(port @ 1..) => Some(port),
            _ => {
                let (variable, wanted) = ("ansible_port".to_owned(), "a port, 1 to 65535");
                self.problem(at, Fault::Value { variable, value: text, wanted });
                None
            }
        });
        let becomes_root = becomes.is_some_and(|(text, at)| match truth(&text) {
            Some(truth) => truth,
            None => {
                let (variable, wanted) = ("ansible_become".to_owned(), "true or false");
                self.problem(at, Fault::Value { variable, value: text, wanted });
                false
            }
        });
        for (variable, given, only) in
            [("ansible_become_method", method, "sudo"), ("ansible_become_user", account, "root")]
        {
            if let Some((value, at)) = given.filter(|(value, _)| becomes_root && value != only) {
                let wanted = match only {
                    "sudo" => "sudo; no other way to become root is known here",
                    _ => "root; nodes get an account of their own",
                };
                self.problem(at, Fault::Value { variable: variable.to_owned(), value, wanted });
            }
        }
        Login {
            host: address.map_or_else(|| host.name.clone(), |(address, _)| address),
            port,
            user,
            key: key.map(|(key, _)| expanded(&key)),
            arguments: words,
            becomes_root,
        }
    }
}

/// What Ansible takes for true and false.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::inventory::groups::Sources;
    use crate::controller::inventory::{Inventory, NodeSpec};

    fn node(variables: &str) -> Result<NodeSpec, String> {
        let text = format!(
            "all:\n  vars: {{paxos_cluster: c}}\n  hosts:\n    n1: {{paxos_id: 1{variables}}}\n"
        );
        let sources = Sources { file: "i.yaml".into(), text, ..Sources::default() };
        let inventory = Inventory::from_sources(&sources, Path::new("/state"));
        inventory.map(|inventory| inventory.nodes[0].clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_host_over_ssh_is_laid_out_as_by_a_package() {
        let node = node(", ansible_host: db1, ansible_user: ops, ansible_become: yes").unwrap();
        assert_eq!(node.layout, Layout::System { cluster: "c".to_owned() });
        assert_eq!(node.data_dir, Path::new("/var/lib/paxos/c"));
        let login = node.login.unwrap();
        assert_eq!((login.host.as_str(), login.user.as_deref()), ("db1", Some("ops")));
        assert!(login.becomes_root);
    }

    #[test]
    fn a_directory_of_ones_own_needs_no_root() {
        let own = node(", paxos_data_dir: /srv/n1, ansible_user: ops").unwrap();
        assert_eq!((own.layout, own.data_dir), (Layout::Own, "/srv/n1".into()));
        let root = node(", paxos_data_dir: /data/c, ansible_become: true").unwrap();
        assert_eq!(root.layout, Layout::System { cluster: "c".to_owned() });
        assert_eq!(root.data_dir, Path::new("/data/c"));
        let local = node(", ansible_connection: local").unwrap();
        assert_eq!((local.layout, local.login), (Layout::Own, None));
        assert_eq!(local.data_dir, Path::new("/state/paxos/c/n1"));
    }

    #[test]
    fn what_ssh_is_told_is_split_as_by_a_shell() {
        let node = node(", ansible_ssh_common_args: \"-J 'a b' -o X=1\", ansible_port: 2222");
        let login = node.unwrap().login.unwrap();
        assert_eq!(login.arguments, ["-J", "a b", "-o", "X=1"]);
        assert_eq!(login.port, Some(2222));
    }

    #[test]
    fn what_cannot_be_done_is_told_with_its_line() {
        for (variables, message) in [
            (", ansible_become: perhaps", "ansible_become is \"perhaps\", but must be true"),
            (", ansible_become: true, ansible_become_method: su", "ansible_become_method is"),
            (", ansible_become: true, ansible_become_user: bob", "ansible_become_user is"),
            (", ansible_port: ssh", "ansible_port is \"ssh\", but must be a port"),
            (", ansible_ssh_common_args: \"-J 'a\"", "with balanced quotes"),
        ] {
            let error = node(variables).unwrap_err();
            assert!(error.contains(message) && error.contains("i.yaml:4"), "{error}");
        }
    }
}
