//! Inventories as Ansible reads them: groups, children, ranges of hosts, and which variable wins.
//!
//! Knows nothing of clusters. Only the YAML form is read, and templates are left as they are. A
//! variable keeps the file and line that gave it its value, for the messages of whoever uses it.
//!
//! Which value wins, from weakest to strongest, as in Ansible: groups in the inventory (`all`
//! first, then by depth, then by name), `group_vars/all`, other `group_vars/`, the host in the
//! inventory, `host_vars/`.

use super::problem::{Fault, Problem};
use super::yaml::{self, Entry, Node, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// More hosts than this come from a slip in a range.
pub const HOSTS_MAX: usize = 10_000;

/// The longest pattern of a range: a host's name has at most 253 characters. A number is padded to
/// the width in which it is written, and each pair of brackets takes a part of the stack.
const PATTERN_BYTES_MAX: usize = 253;

/// Every host is in it.
const ALL: &str = "all";

/// The texts that make an inventory.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The inventory itself.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// From `group_vars/`: group, file, text.
    pub group_files: Vec<(String, PathBuf, String)>,
    /// From `host_vars/`: host, file, text.
    pub host_files: Vec<(String, PathBuf, String)>,
}

/// A value and where it was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// In which file.
    pub file: PathBuf,
    /// On which line.
    pub line: u64,
    /// What.
    pub value: Value,
}

/// A host with all that applies to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its name in the inventory.
    pub name: String,
    /// The line that names it first.
    pub line: u64,
    /// Its variables.
    pub variables: BTreeMap<String, Setting>,
    /// Its groups and their ancestors, without `all`.
    pub groups: BTreeSet<String>,
}

/// An inventory as Ansible sees it.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// In the order of the file.
    pub hosts: Vec<Host>,
    /// Every group with the line that names it first.
    pub groups: BTreeMap<String, u64>,
    /// Every variable that is given anywhere, even where no host gets it.
    pub given: Vec<(String, PathBuf, u64)>,
}

#[derive(Default)]
struct Group {
    line: u64,
    children: BTreeSet<String>,
    hosts: BTreeSet<String>,
    variables: BTreeMap<String, Setting>,
    from_file: BTreeMap<String, Setting>,
}

#[derive(Default)]
struct Reader {
    file: PathBuf,
    groups: BTreeMap<String, Group>,
    order: Vec<(String, u64)>,
    own: BTreeMap<String, BTreeMap<String, Setting>>,
    given: Vec<(String, PathBuf, u64)>,
    problems: Vec<Problem>,
}

/// Reads the files beside `file` that belong to it. Missing folders are no error.
pub fn gather(file: &Path) -> Result<Sources, Box<Problem>> {
    let unreadable = |file: &Path, reason: String| {
        let (file, fault) = (file.to_owned(), Fault::Unreadable(reason));
        Box::new(Problem { file, line: 0, fault })
    };
    let read = |file: &Path| {
        let too_large = |length: u64| length > yaml::FILE_BYTES_MAX;
        let metadata = std::fs::metadata(file).map_err(|e| unreadable(file, e.to_string()))?;
        if metadata.is_dir() || too_large(metadata.len()) {
            let reason = format!("it is a directory, or above {} bytes", yaml::FILE_BYTES_MAX);
            return Err(unreadable(file, reason));
        }
        std::fs::read_to_string(file).map_err(|e| unreadable(file, e.to_string()))
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    let beside = |name: &str| -> Result<Vec<(String, PathBuf, String)>, Box<Problem>> {
        let Ok(entries) = std::fs::read_dir(folder.join(name)) else { return Ok(Vec::new()) };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let plain = |path: &PathBuf| {
            let extension = path.extension().and_then(|e| e.to_str());
            path.is_file() && matches!(extension, None | Some("yml" | "yaml" | "json"))
        };
        let files = paths.into_iter().filter(plain).map(|path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            read(&path).map(|text| (stem, path, text))
        });
        files.collect()
    };
    Ok(Sources {
        file: file.to_owned(),
        text: read(file)?,
        group_files: beside("group_vars")?,
        host_files: beside("host_vars")?,
    })
}

/// Makes hosts and groups of the texts. What could be read comes back even beside problems.
pub fn read(sources: &Sources) -> (Tree, Vec<Problem>) {
    let mut reader = Reader { file: sources.file.clone(), ..Reader::default() };
    match yaml::parse(&sources.text) {
        Err(error) => reader.problem(error.line, Fault::Syntax(error.reason)),
        Ok(Node { value: Value::Map(entries), .. }) => {
            for entry in &entries {
                reader.group(&entry.key, entry.line, &entry.node);
            }
        }
        Ok(Node { value: Value::Null, .. }) => {}
        Ok(node) => reader.shape(&node, "the inventory", "a mapping of groups"),
    }
    for (name, file, text) in &sources.group_files {
        let variables = reader.variables_file(file, text);
        if let Some(group) = reader.groups.get_mut(name) {
            group.from_file.extend(variables);
        }
    }
    for (name, file, text) in &sources.host_files {
        let variables = reader.variables_file(file, text);
        if let Some(own) = reader.own.get_mut(name) {
            own.extend(variables);
        }
    }
    reader.finish()
}

impl Reader {
    fn problem(&mut self, line: u64, fault: Fault) {
        self.problems.push(Problem { file: self.file.clone(), line, fault });
    }

    fn shape(&mut self, node: &Node, what: impl Into<String>, wanted: &'static str) {
        let fault = Fault::Shape { what: what.into(), found: node.value.kind(), wanted };
        self.problem(node.line, fault);
    }

    /// The entries of a mapping; none for nothing, and a problem for anything else.
    fn entries<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.shape(node, what, "a mapping");
                &[]
            }
        }
    }

    fn group(&mut self, name: &str, line: u64, node: &Node) {
        let group = self.groups.entry(name.to_owned()).or_default();
        if group.line == 0 {
            group.line = line;
        }
        for entry in self.entries(node, &format!("group {name}")) {
            match entry.key.as_str() {
                "hosts" => self.hosts(name, &entry.node),
                "children" => self.children(name, &entry.node),
                "vars" => {
                    let what = format!("vars of group {name}");
                    let variables = self.variables(&entry.node, &what);
                    let group = self.groups.entry(name.to_owned()).or_default();
                    group.variables.extend(variables);
                }
                key => {
                    let fault = Fault::GroupKey { group: name.to_owned(), key: key.to_owned() };
                    self.problem(entry.line, fault);
                }
            }
        }
    }

    fn children(&mut self, name: &str, node: &Node) {
        for child in self.entries(node, &format!("children of group {name}")) {
            let group = self.groups.entry(name.to_owned()).or_default();
            group.children.insert(child.key.clone());
            self.group(&child.key, child.line, &child.node);
        }
    }

    fn hosts(&mut self, group: &str, node: &Node) {
        for entry in self.entries(node, &format!("hosts of group {group}")) {
            let what = format!("host {}", entry.key);
            let variables = self.variables(&entry.node, &what);
            let Some(names) = expand(&entry.key) else {
                self.problem(entry.line, Fault::Range(entry.key.clone()));
                continue;
            };
            if names.len() + self.order.len() > HOSTS_MAX {
                self.problem(entry.line, Fault::TooManyHosts(HOSTS_MAX));
                continue;
            }
            for name in names {
                if !self.own.contains_key(&name) {
                    self.order.push((name.clone(), entry.line));
                }
                self.own.entry(name.clone()).or_default().extend(variables.clone());
                self.groups.entry(group.to_owned()).or_default().hosts.insert(name);
            }
        }
    }

    fn variables(&mut self, node: &Node, what: &str) -> BTreeMap<String, Setting> {
        let mut variables = BTreeMap::new();
        for Entry { key, line, node } in self.entries(node, what) {
            self.given.push((key.clone(), self.file.clone(), *line));
            let setting =
                Setting { file: self.file.clone(), line: *line, value: node.value.clone() };
            variables.insert(key.clone(), setting);
        }
        variables
    }

    fn variables_file(&mut self, file: &Path, text: &str) -> BTreeMap<String, Setting> {
        let inventory = std::mem::replace(&mut self.file, file.to_owned());
        let variables = match yaml::parse(text) {
            Ok(node) => self.variables(&node, "the file"),
            Err(error) => {
                self.problem(error.line, Fault::Syntax(error.reason));
                BTreeMap::new()
            }
        };
        self.file = inventory;
        variables
    }

    /// How far below `all` each group is, at most; none when groups go round in a circle.
    fn depths(&mut self) -> Option<BTreeMap<String, usize>> {
        let mut depths: BTreeMap<String, usize> =
            self.groups.keys().map(|name| (name.clone(), usize::from(name != ALL))).collect();
        // Without a circle no path is longer than there are groups.
        for _ in 0..=self.groups.len() {
            let mut changed = false;
            for (name, group) in &self.groups {
                let below = depths[name] + 1;
                for child in &group.children {
                    if depths.get(child).is_some_and(|depth| *depth < below) {
                        depths.insert(child.clone(), below);
                        changed = true;
                    }
                }
            }
            if !changed {
                return Some(depths);
            }
        }
        let deepest = depths.iter().max_by_key(|(_, depth)| **depth);
        let name = deepest.map(|(name, _)| name.clone()).unwrap_or_default();
        let line = self.groups.get(&name).map_or(0, |group| group.line);
        self.problem(line, Fault::GroupLoop(name));
        None
    }

    /// The groups that hold the host, directly or through children.
    fn groups_of(&self, host: &str) -> BTreeSet<String> {
        let holds =
            |(name, group): (&String, &Group)| group.hosts.contains(host).then(|| name.clone());
        let mut found: BTreeSet<String> = self.groups.iter().filter_map(holds).collect();
        loop {
            let before = found.len();
            for (name, group) in &self.groups {
                if !group.children.is_disjoint(&found) {
                    found.insert(name.clone());
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    fn finish(mut self) -> (Tree, Vec<Problem>) {
        let Some(depths) = self.depths() else { return (Tree::default(), self.problems) };
        let mut hosts = Vec::new();
        for (name, line) in &self.order {
            let mut groups = self.groups_of(name);
            let mut by_weight: Vec<&String> = groups.iter().filter(|g| *g != ALL).collect();
            by_weight.sort_by_key(|group| (depths.get(*group), *group));
            let all = ALL.to_owned();
            by_weight.insert(0, &all);
            let mut variables = BTreeMap::new();
            let held = || by_weight.iter().filter_map(|group| self.groups.get(*group));
            held().for_each(|group| variables.extend(group.variables.clone()));
            held().for_each(|group| variables.extend(group.from_file.clone()));
            variables.extend(self.own.get(name).cloned().unwrap_or_default());
            groups.remove(ALL);
            hosts.push(Host { name: name.clone(), line: *line, variables, groups });
        }
        let groups = self.groups.iter().map(|(name, group)| (name.clone(), group.line)).collect();
        (Tree { hosts, groups, given: self.given }, self.problems)
    }
}

/// `node[1:3]` as node1, node2, node3; also `[01:10]`, `[a:c]`, `[0:8:2]`, several in one name.
fn expand(pattern: &str) -> Option<Vec<String>> {
    let Some((head, rest)) = pattern.split_once('[') else {
        return (!pattern.is_empty() && !pattern.contains(']')).then(|| vec![pattern.to_owned()]);
    };
    if pattern.len() > PATTERN_BYTES_MAX {
        return None;
    }
    let (range, tail) = rest.split_once(']')?;
    let mut parts = range.split(':');
    let (first, last) = (parts.next()?, parts.next()?);
    let step: usize = parts.next().map_or(Some(1), |step| step.parse().ok())?;
    if parts.next().is_some() || step == 0 {
        return None;
    }
    let middles: Vec<String> = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to && (to - from) / step < HOSTS_MAX => {
            let width = if first.starts_with('0') { first.len() } else { 0 };
            (from..=to).step_by(step).map(|n| format!("{n:0width$}")).collect()
        }
        (Err(_), Err(_)) => {
            let (from, to) = (single_letter(first)?, single_letter(last)?);
            (from..=to).step_by(step).map(String::from).collect()
        }
        _ => return None,
    };
    let tails = if tail.is_empty() { vec![String::new()] } else { expand(tail)? };
    if middles.is_empty() || middles.len() * tails.len() > HOSTS_MAX {
        return None;
    }
    let join = |middle: &String| {
        let names = tails.iter().map(|tail| format!("{head}{middle}{tail}"));
        names.collect::<Vec<_>>()
    };
    Some(middles.iter().flat_map(join).collect())
}

fn single_letter(text: &str) -> Option<char> {
    let mut letters = text.chars();
    let letter = letters.next().filter(char::is_ascii_alphabetic)?;
    letters.next().is_none().then_some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Sources {
        Sources { file: "i.yaml".into(), text: text.to_owned(), ..Sources::default() }
    }

    #[test]
    fn ranges_expand_as_in_ansible() {
        let table: [(&str, Option<&[&str]>); 12] = [
            ("node1", Some(&["node1"])),
            ("node[1:3]", Some(&["node1", "node2", "node3"])),
            ("n[08:10].x", Some(&["n08.x", "n09.x", "n10.x"])),
            ("n[0:4:2]", Some(&["n0", "n2", "n4"])),
            ("db-[a:c]", Some(&["db-a", "db-b", "db-c"])),
            ("r[1:2]n[1:2]", Some(&["r1n1", "r1n2", "r2n1", "r2n2"])),
            ("n[3:1]", None),
            ("n[1:]", None),
            ("n[1:3", None),
            ("n1:3]", None),
            ("n[1:3:0]", None),
            ("n[1:99999999]", None),
        ];
        for (pattern, expected) in table {
            let expected = expected.map(|names| names.iter().map(|n| n.to_string()).collect());
            assert_eq!(expand(pattern), expected, "{pattern}");
        }
    }

    /// The first would be padded beyond what can be padded, the second takes all of the stack.
    #[test]
    fn a_range_longer_than_any_name_is_none() {
        assert_eq!(expand(&format!("n[{}1:2]", "0".repeat(70_000))), None);
        assert_eq!(expand(&"[1:1]".repeat(200_000)), None);
    }

    #[test]
    fn the_strongest_value_wins() {
        let text = "\
all:
  vars: {v: all, w: all}
  children:
    b:
      vars: {v: b}
      children:
        c:
          vars: {v: c}
          hosts:
            h1:
            h2: {v: own}
    a:
      vars: {v: a}
      hosts: {h1: , h3: }
";
        let mut all = sources(text);
        let value = |all: &Sources, host: &str, name: &str| {
            let (tree, problems) = read(all);
            assert_eq!(problems, []);
            let host = tree.hosts.iter().find(|h| h.name == host).cloned();
            host.and_then(|mut h| h.variables.remove(name)).map(|setting| setting.value)
        };
        let text = |text: &str| Some(Value::Scalar(text.to_owned()));
        assert_eq!(value(&all, "h1", "v"), text("c"));
        assert_eq!(value(&all, "h2", "v"), text("own"));
        assert_eq!(value(&all, "h3", "v"), text("a"));
        assert_eq!(value(&all, "h3", "w"), text("all"));
        all.group_files.push(("all".into(), "group_vars/all".into(), "w: file\nv: file".into()));
        assert_eq!(value(&all, "h3", "w"), text("file"));
        all.host_files.push(("h2".into(), "host_vars/h2".into(), "v: host file".into()));
        assert_eq!(value(&all, "h2", "v"), text("host file"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let table = [
            ("all:\n  host: {}\n", 2, "nothing else"),
            ("all:\n  hosts: [a]\n", 2, "must be a mapping"),
            ("all:\n  hosts:\n    n[2:1]:\n", 3, "no range"),
            ("all:\n  children: {a: {children: {b: {children: {a: }}}}}\n", 2, "descendant"),
            ("- a\n", 1, "must be a mapping"),
            ("all:\n  hosts: {a: b: c}\n", 2, "not YAML"),
        ];
        for (text, line, part) in table {
            let (_, problems) = read(&sources(text));
            let told = problems.first().map(|p| (p.line, p.to_string()));
            let Some((at, message)) = told else { panic!("{text:?} was taken") };
            assert_eq!((at, message.contains(part)), (line, true), "{text:?}: {message}");
        }
    }
}
