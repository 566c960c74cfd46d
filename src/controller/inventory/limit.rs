//! `--limit PATTERN`: some of the nodes of an inventory, in Ansible's words.
//!
//! Parts are separated by commas or colons. A part is the name of a node or of a group, where `*`
//! stands for any characters; `!` before it takes away, `&` keeps only what is in it as well. What
//! takes away or keeps counts after all that adds, wherever it stands. A part that fits nobody is
//! an error: it is a slip, and what is left would be more than was meant.

use super::{Inventory, NodeSpec};
use crate::wire::failure::{Code, Failure};
use std::collections::BTreeSet;

/// The group that every node is in.
const ALL: &str = "all";

impl Inventory {
    /// The names of the nodes that a pattern fits.
    ///
    /// # Errors
    /// When a part fits nobody, or nobody is left.
    pub fn matching(&self, pattern: &str) -> Result<BTreeSet<String>, Failure> {
        let parts = || pattern.split([',', ':']).map(str::trim).filter(|part| !part.is_empty());
        let is_filter = |part: &&str| part.starts_with(['!', '&']);
        let mut chosen = BTreeSet::new();
        // To take away from nothing is to take away from all.
        if parts().all(|part| is_filter(&part)) {
            chosen.extend(self.fitting(ALL)?);
        }
        for part in parts().filter(|part| !is_filter(part)) {
            chosen.extend(self.fitting(part)?);
        }
        for part in parts().filter(is_filter) {
            let fitting = self.fitting(&part[1..])?;
            let keeps = part.starts_with('&');
            chosen.retain(|name| fitting.contains(name) == keeps);
        }
        match chosen.is_empty() {
            false => Ok(chosen),
            true => {
                let message = format!("--limit {pattern} leaves no node");
                Err(Failure::new(Code::NotFound, message, "see the inventory for names and groups"))
            }
        }
    }

    fn fitting(&self, part: &str) -> Result<BTreeSet<String>, Failure> {
        let fits = |node: &&NodeSpec| {
            part == ALL
                || glob(part, &node.name)
                || node.groups.iter().any(|group| glob(part, group))
        };
        let found: BTreeSet<String> =
            self.nodes.iter().filter(fits).map(|node| node.name.clone()).collect();
        match found.is_empty() {
            false => Ok(found),
            true => {
                let names = self.nodes.iter().map(|node| node.name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                let message = format!("--limit: \"{part}\" fits no node and no group");
                Err(Failure::new(Code::NotFound, message, format!("the nodes are {names}")))
            }
        }
    }
}

/// Whether a pattern in which `*` stands for any characters fits the whole name.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(place) = left.find(part) else { return false };
        left = &left[place + part.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::inventory::groups::Sources;
    use std::path::Path;

    #[test]
    fn patterns_are_ansibles() {
        let text = "all:\n  vars: {paxos_cluster: c, ansible_connection: local}\n  children:\n    \
                    east: {hosts: {db1: {paxos_id: 1, paxos_port: 1}, db2: {paxos_id: 2, \
                    paxos_port: 2}}}\n    \
                    west: {hosts: {db3: {paxos_id: 3, paxos_port: 3}, \
                    web1: {paxos_id: 4, paxos_port: 4}}}\n";
        let text = text.to_owned();
        let sources = Sources { file: "i.yaml".into(), text, ..Sources::default() };
        let inventory = Inventory::from_sources(&sources, Path::new("/state")).unwrap();
        let table: [(&str, &[&str]); 11] = [
            ("db1", &["db1"]),
            ("db1,web1", &["db1", "web1"]),
            ("db1:db3", &["db1", "db3"]),
            ("east", &["db1", "db2"]),
            ("db*", &["db1", "db2", "db3"]),
            ("*1", &["db1", "web1"]),
            ("d*2", &["db2"]),
            ("all,!west", &["db1", "db2"]),
            ("!db*", &["web1"]),
            ("db*,&west", &["db3"]),
            ("all", &["db1", "db2", "db3", "web1"]),
        ];
        for (pattern, expected) in table {
            let found = inventory.matching(pattern).unwrap();
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{pattern}");
        }
        for slip in ["db9", "db1,eats", "east,&west", "!db9", "db1*1"] {
            assert_eq!(inventory.matching(slip).unwrap_err().code, Code::NotFound, "{slip}");
        }
    }
}
