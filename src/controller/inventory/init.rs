//! An inventory from a list of hosts, as one would type them for ssh.
//!
//! What is written is read back as an inventory before it is handed out, so that nobody deploys
//! with a file that this program wrote and does not understand.

use super::Inventory;
use super::groups::Sources;
use crate::wire::failure::Failure;
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::Path;

/// The cluster's name where none is given.
pub const CLUSTER_DEFAULT: &str = "main";

/// A host as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

/// The text of an inventory of these hosts, `[USER@]HOST[:PORT]` each, with ids in their order.
///
/// # Errors
/// When a word is no host, one is named twice, or the names make no inventory.
pub fn inventory_text(cluster: &str, words: &[String]) -> Result<String, Failure> {
    let mut targets = Vec::new();
    let mut seen = BTreeSet::new();
    for word in words {
        let target = parse(word).ok_or_else(|| {
            let hint = "write [USER@]HOST[:PORT], with brackets around an IPv6 address";
            Failure::usage(format!("{word:?} is no host"), hint)
        })?;
        if !seen.insert((target.host.to_ascii_lowercase(), target.port)) {
            let hint = "one host runs one node of a cluster; name each once";
            return Err(Failure::usage(format!("{word:?} is there twice"), hint));
        }
        targets.push(target);
    }
    let text = write(cluster, &targets);
    let sources = Sources { file: "the new inventory".into(), text, ..Sources::default() };
    match Inventory::from_sources(&sources, Path::new("/")) {
        Ok(_) => Ok(sources.text),
        Err(error) => {
            let hint = "name the cluster with --cluster, in lower-case letters and digits, and \
                        the hosts as ssh knows them";
            Err(Failure::usage(error.to_string(), hint))
        }
    }
}

fn write(cluster: &str, targets: &[Target]) -> String {
    let mut text = format!(
        "# Hosts of cluster {cluster}. Next: paxos-ctl plan FILE, then paxos-ctl deploy FILE.\n\
         all:\n  vars:\n    paxos_cluster: {cluster}\n    \
         # Becomes root there, by sudo without a password, unless the user is root.\n    \
         ansible_become: true\n  hosts:\n"
    );
    for (place, Target { user, host, port }) in targets.iter().enumerate() {
        let id = place + 1;
        let name = match host.contains(':') {
            // Colons cannot stand in a name.
            true => format!("node{id}"),
            false => host.to_ascii_lowercase(),
        };
        text.push_str(&format!(
            "    {name}:\n      # For ever; no other host ever gets it.\n      paxos_id: {id}\n"
        ));
        if *host != name {
            text.push_str(&format!("      ansible_host: \"{host}\"\n"));
        }
        if let Some(user) = user {
            text.push_str(&format!("      ansible_user: {user}\n"));
        }
        if let Some(port) = port {
            text.push_str(&format!("      ansible_port: {port}\n"));
        }
    }
    text
}

fn parse(word: &str) -> Option<Target> {
    let (user, rest) = match word.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, word),
    };
    let is_word = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
    };
    if user.as_deref().is_some_and(|user| !is_word(user)) {
        return None;
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            match behind.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if behind.is_empty() => (host, None),
                None => return None,
            }
        }
        None if rest.parse::<Ipv6Addr>().is_ok() => (rest, None),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port @ 1..)) => Some(port),
        Some(_) => return None,
    };
    let is_host = is_word(host) || host.parse::<Ipv6Addr>().is_ok();
    is_host.then(|| Target { user, host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(words: &[&str]) -> Result<Inventory, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let text = inventory_text("main", &words).map_err(|failure| failure.message)?;
        let sources = Sources { file: "i.yaml".into(), text, ..Sources::default() };
        Inventory::from_sources(&sources, Path::new("/state")).map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_become_nodes_in_their_order() {
        let inventory = made(&["DB1.example.org", "ops@db2:2222", "[fd00::3]:22", "10.0.0.4"]);
        let inventory = inventory.unwrap();
        let names: Vec<&str> = inventory.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["db1.example.org", "db2", "node3", "10.0.0.4"]);
        let ids: Vec<u64> = inventory.nodes.iter().map(|node| node.id.0).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        let login = |at: usize| inventory.nodes[at].login.clone().unwrap();
        assert_eq!(login(0).host, "DB1.example.org");
        assert_eq!((login(1).user.as_deref(), login(1).port), (Some("ops"), Some(2222)));
        assert_eq!((login(2).host.as_str(), login(2).port), ("fd00::3", Some(22)));
        assert!(login(3).becomes_root);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for word in
            ["", "-oProxyCommand=x", "a b", "a:ssh", "a:0", "@a", "a@", "[::1", "x'y", "a\nb"]
        {
            let error = made(&[word]).unwrap_err();
            assert!(error.ends_with("is no host"), "{word:?}: {error}");
        }
        let error = made(&["db1", "ops@DB1"]).unwrap_err();
        assert_eq!(error, "\"ops@DB1\" is there twice");
        let words = ["db1".to_owned()];
        assert!(inventory_text("No Name", &words).is_err());
    }
}
