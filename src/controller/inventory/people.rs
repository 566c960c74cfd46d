//! People and applications whose plain keys the inventory lists, instead of certificates that run
//! out:
//!
//! ```yaml
//! all:
//!   vars:
//!     paxos_people:
//!       backup: {rights: read, key: "ssh-ed25519 AAAA… backup@host"}
//! ```
//!
//! Every node is given the same list, and goes by it as soon as it was deployed. Whoever is taken
//! out of it is cut off by the next deployment, and whose key is revoked there and then.
//!
//! What must never happen: a list of which a part is not understood is taken for a shorter one.

use super::Checker;
use super::groups::{Host, Setting};
use super::problem::Fault;
use super::yaml::{Entry, Node, Value};
use crate::controller::keys::PlainKey;
use crate::transport::identity::ListedKey;
use std::path::{Path, PathBuf};

/// The variable.
pub(super) const PEOPLE: &str = "paxos_people";

impl Checker {
    /// The list, which is one for the cluster.
    pub(super) fn people(&mut self, ours: &[&Host]) -> Vec<PlainKey> {
        let of = |host: &Host| host.variables.get(PEOPLE).cloned();
        let first = ours.first().and_then(|host| of(host));
        for host in ours.iter().skip(1) {
            let other = of(host);
            // The same lines, or the same words on other lines.
            if other.as_ref().map(words) != first.as_ref().map(words) {
                let at = other.map(|setting| (setting.file, setting.line));
                let fault = Fault::Differs {
                    host: host.name.clone(),
                    variable: PEOPLE,
                    other_host: ours[0].name.clone(),
                };
                self.problem(at.unwrap_or((self.file().to_owned(), host.line)), fault);
                return Vec::new();
            }
        }
        let Some(Setting { file, line, value }) = first else { return Vec::new() };
        let Value::Map(entries) = value else {
            self.shape((file, line), PEOPLE.to_owned(), &value, "a mapping from names to keys");
            return Vec::new();
        };
        let mut people: Vec<PlainKey> = Vec::new();
        for entry in &entries {
            let Some(person) = self.person(&file, entry) else { continue };
            let is_known = people.iter().find(|one| one.is_key_of(&person));
            match is_known.map(|one| one.name.clone()) {
                Some(other) => {
                    let wanted = "another key for each name: rights are found by the key";
                    let value = format!("the key of {other}");
                    let variable = format!("{PEOPLE}: {}", person.name);
                    self.problem(
                        (file.clone(), entry.line),
                        Fault::Value { variable, value, wanted },
                    );
                }
                None => people.push(person),
            }
        }
        people
    }

    fn person(&mut self, file: &Path, Entry { key: name, line, node }: &Entry) -> Option<PlainKey> {
        let at = (file.to_owned(), *line);
        let variable = format!("{PEOPLE}: {name}");
        let Value::Map(parts) = &node.value else {
            self.shape(at, variable, &node.value, "a mapping with rights and key");
            return None;
        };
        let (mut rights, mut key) = (None, None);
        for Entry { key: part, line, node } in parts {
            let place = match part.as_str() {
                "rights" => &mut rights,
                "key" => &mut key,
                _ => {
                    let (value, wanted) = (part.clone(), "rights and key, and nothing else");
                    let at = (file.to_owned(), *line);
                    self.problem(at, Fault::Value { variable: variable.clone(), value, wanted });
                    return None;
                }
            };
            *place = scalar(node);
        }
        let (Some(rights), Some(key)) = (rights, key) else {
            let (value, wanted) = ("incomplete".to_owned(), "a mapping with rights and key");
            self.problem(at, Fault::Value { variable, value, wanted });
            return None;
        };
        let person = PlainKey { name: name.clone(), rights, key: key.trim().to_owned() };
        match person.line() {
            Ok(_) => Some(person),
            Err(reason) => {
                self.problem(at, Fault::Person { name: name.clone(), reason });
                None
            }
        }
    }

    fn shape(&mut self, at: (PathBuf, u64), what: String, found: &Value, wanted: &'static str) {
        let found = found.kind();
        self.problem(at, Fault::Shape { what, found, wanted });
    }
}

impl PlainKey {
    /// Whether both are one key, whatever is written behind it.
    fn is_key_of(&self, other: &PlainKey) -> bool {
        let bare = |one: &PlainKey| {
            let words: Vec<&str> = one.key.split_whitespace().take(2).collect();
            words.join(" ")
        };
        bare(self) == bare(other)
    }

    /// The line of a node's file, checked as the node will check it.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub(in crate::controller) fn line(&self) -> Result<String, String> {
        let PlainKey { name, rights, key } = self;
        if name.contains(char::is_whitespace) {
            return Err(format!("{name:?} is no name; use letters, digits and . _ @ + -"));
        }
        // Words are separated by blanks there.
        let rights: String = rights.split_whitespace().collect();
        let line = format!("{name} {rights} {}", key.trim());
        match ListedKey::parse(&line)? {
            Some(listed) if !line.contains('\n') => {
                listed.check_algorithm().map_err(|error| error.to_string())?;
                Ok(line)
            }
            _ => Err("it has no name, or a line break in it".to_owned()),
        }
    }

    /// As the node reads that line.
    ///
    /// # Errors
    /// As [`PlainKey::line`].
    pub(in crate::controller) fn listed(&self) -> Result<ListedKey, String> {
        let listed = ListedKey::parse(&self.line()?)?;
        listed.ok_or_else(|| "it has no name".to_owned())
    }
}

fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(text) => Some(text.clone()),
        _ => None,
    }
}

/// All that is said, without the lines it stands on.
fn words(setting: &Setting) -> String {
    fn of(value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::Scalar(text) => format!("{text:?}"),
            Value::List(items) => items.iter().map(|item| of(&item.value)).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| format!("{:?}:{},", entry.key, of(&entry.node.value)))
                .collect(),
        }
    }
    of(&setting.value)
}
