//! An inventory as a cluster: its nodes, their roles, addresses and quorums, all checked.
//!
//! A pure function of the files' texts. All that is wrong is told at once, with lines. An inventory
//! says what somebody wishes; who votes is said by the log alone, so nothing here is believed about
//! a cluster that was formed.
//!
//! [`yaml`] and [`groups`] read it as Ansible would; `access` is how to get to a node's host,
//! `addresses` where it listens, `people` whose plain keys are let in, `limit` some of the nodes.
//! [`problem`] says what is wrong, [`init`] writes a first one, [`settings`] the file of a node.

mod access;
mod addresses;
pub mod groups;
pub mod init;
mod limit;
mod people;
pub mod problem;
pub mod settings;
pub mod yaml;

use crate::controller::host::Layout;
use crate::controller::host::login::Login;
use crate::controller::host::system::settings_path;
use crate::controller::keys::PlainKey;
use crate::paxos::ballot::{NodeId, ProposerId};
use crate::paxos::quorum::QuorumSystem;
use access::Access;
pub use access::Connection;
use addresses::host_port;
use groups::{Host, Setting, Sources, Tree};
use people::PEOPLE;
use problem::{Fault, InventoryError, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use yaml::Value;

/// The port of a node's SSH server where the inventory says nothing.
pub const PORT_DEFAULT: u16 = 7022;

/// What makes a node of a host; everything else that begins with `paxos_` is a slip.
const VARIABLES: [&str; 13] = [
    "paxos_cluster",
    "paxos_id",
    "paxos_proposer_id",
    "paxos_address",
    "paxos_port",
    "paxos_listen",
    "paxos_data_dir",
    "paxos_binary",
    "paxos_zone",
    "paxos_quorum_phase1",
    "paxos_quorum_phase2",
    "paxos_http",
    PEOPLE,
];

const PROPOSERS: &str = "paxos_proposers";
const ACCEPTORS: &str = "paxos_acceptors";
const LEARNERS: &str = "paxos_learners";
const CLIENTS: &str = "paxos_clients";
const GROUPS: [&str; 4] = [PROPOSERS, ACCEPTORS, LEARNERS, CLIENTS];

/// One node as the inventory wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name in the inventory, in its certificates and for operators.
    pub name: String,
    /// Its id, for ever.
    pub id: NodeId,
    /// Under which id it proposes, if it does.
    pub proposer: Option<ProposerId>,
    /// Whether it votes.
    pub acceptor: bool,
    /// Whether it keeps a store.
    pub learner: bool,
    /// Name or address at which others reach it.
    pub host: String,
    /// The port of its SSH server.
    pub port: u16,
    /// What its SSH server binds.
    pub listen: Vec<String>,
    /// Everything it keeps; absolute.
    pub data_dir: PathBuf,
    /// How its host is reached.
    pub connection: Connection,
    /// Where to knock, where its host is reached over ssh.
    pub login: Option<Login>,
    /// How its host is laid out.
    pub layout: Layout,
    /// The executable to install instead of the controller's own.
    pub binary: Option<PathBuf>,
    /// Where it stands, for people.
    pub zone: Option<String>,
    /// The groups that its host is in.
    pub groups: BTreeSet<String>,
}

impl NodeSpec {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        host_port(&self.host, self.port)
    }

    /// Names of its roles as in the status; none for a client.
    pub fn roles(&self) -> Vec<String> {
        let roles = [
            ("proposer", self.proposer.is_some()),
            ("acceptor", self.acceptor),
            ("learner", self.learner),
        ];
        roles.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
    }
}

/// A cluster as somebody wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The inventory's file.
    pub file: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// Its nodes, in the order of the file; at least one.
    pub nodes: Vec<NodeSpec>,
    /// How many of the acceptors make quorums.
    pub quorums: QuorumSystem,
    /// The sizes for phase 1 and 2, as far as they are written there.
    pub sizes: [Option<u64>; 2],
    /// Who comes with a plain key.
    pub people: Vec<PlainKey>,
}

impl Inventory {
    /// Reads an inventory and what belongs to it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: &Path) -> Result<Inventory, InventoryError> {
        let sources = groups::gather(file).map_err(|p| InventoryError { problems: vec![*p] })?;
        Inventory::from_sources(&sources, &state_directory())
    }

    /// As [`Inventory::load`], from texts. `state_home` holds the directories of local nodes.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_sources(sources: &Sources, state_home: &Path) -> Result<Inventory, InventoryError> {
        let (tree, problems) = groups::read(sources);
        let broken = !problems.is_empty();
        let file = sources.file.clone();
        let mut checker = Checker { file, problems, state_home: state_home.to_owned() };
        checker.spelling(&tree);
        // With half of the file unread, whatever else is missing may be in the other half.
        let cluster = if broken { None } else { checker.cluster(&tree) };
        match cluster {
            Some(inventory) if checker.problems.is_empty() => Ok(inventory),
            _ => {
                let mut problems = checker.problems;
                problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
                problems.dedup();
                Err(InventoryError { problems })
            }
        }
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// Where programs keep what must survive: `$XDG_STATE_HOME`, else `~/.local/state`.
pub fn state_directory() -> PathBuf {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let home = || absolute("HOME").unwrap_or_else(|| PathBuf::from("/var/lib"));
    absolute("XDG_STATE_HOME").unwrap_or_else(|| home().join(".local/state"))
}

/// A node with the lines that gave it its numbers.
struct Placed {
    node: NodeSpec,
    id_at: (PathBuf, u64),
    proposer_at: (PathBuf, u64),
    address_at: (PathBuf, u64),
    directory_at: (PathBuf, u64),
}

pub(super) struct Checker {
    file: PathBuf,
    problems: Vec<Problem>,
    pub(super) state_home: PathBuf,
}

impl Checker {
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn problem(&mut self, (file, line): (PathBuf, u64), fault: Fault) {
        self.problems.push(Problem { file, line, fault });
    }

    /// Names that look like ours and are not.
    fn spelling(&mut self, tree: &Tree) {
        for (name, file, line) in &tree.given {
            if name.starts_with("paxos_") && !VARIABLES.contains(&name.as_str()) {
                let nearest = nearest(name, &VARIABLES);
                let fault = Fault::UnknownVariable { name: name.clone(), nearest };
                self.problem((file.clone(), *line), fault);
            }
        }
        for (name, line) in &tree.groups {
            if name.starts_with("paxos_") && !GROUPS.contains(&name.as_str()) {
                let nearest = nearest(name, &GROUPS);
                let fault = Fault::UnknownGroup { name: name.clone(), nearest };
                self.problem((self.file.clone(), *line), fault);
            }
        }
    }

    fn cluster(&mut self, tree: &Tree) -> Option<Inventory> {
        let ours: Vec<&Host> = tree.hosts.iter().filter(|host| is_ours(host)).collect();
        let cluster = self.cluster_name(&ours)?;
        let by_groups = tree.groups.keys().any(|group| GROUPS.contains(&group.as_str()));
        let mut placed = Vec::new();
        for host in &ours {
            placed.extend(self.node(host, &cluster, by_groups));
        }
        self.unique(&placed);
        let sizes = self.quorum_sizes(&ours);
        if placed.len() < ours.len() {
            return None;
        }
        let nodes: Vec<NodeSpec> = placed.into_iter().map(|placed| placed.node).collect();
        let written = sizes.clone().map(|size| size.map(|(size, _)| size));
        let quorums = self.quorums(&nodes, sizes)?;
        let (file, people) = (self.file.clone(), self.people(&ours));
        Some(Inventory { file, cluster, nodes, quorums, sizes: written, people })
    }

    fn cluster_name(&mut self, ours: &[&Host]) -> Option<String> {
        let mut first: Option<(String, &str)> = None;
        for host in ours {
            let at = (self.file.clone(), host.line);
            let Some((name, at)) = self.text(host, "paxos_cluster") else {
                let hint = "set it under all: vars:";
                let host = host.name.clone();
                self.problem(at, Fault::Missing { host, variable: "paxos_cluster", hint });
                continue;
            };
            match &first {
                None => {
                    if !is_name(&name) {
                        self.problem(at, Fault::Name(name.clone(), "cluster"));
                    }
                    first = Some((name, &host.name));
                }
                Some((other, _)) if *other == name => {}
                Some((other, other_host)) => {
                    let fault = Fault::SeveralClusters {
                        host: host.name.clone(),
                        cluster: name,
                        other_host: (*other_host).to_owned(),
                        other: other.clone(),
                    };
                    self.problem(at, fault);
                }
            }
        }
        if ours.is_empty() {
            self.problem((self.file.clone(), 0), Fault::NoNodes);
        }
        first.map(|(name, _)| name)
    }

    fn node(&mut self, host: &Host, cluster: &str, by_groups: bool) -> Option<Placed> {
        let here = (self.file.clone(), host.line);
        if !is_name(&host.name) {
            self.problem(here.clone(), Fault::Name(host.name.clone(), "node"));
        }
        let in_group = |group: &str| !by_groups || host.groups.contains(group);
        let id = self.id(host);
        let Access { connection, login, layout, data_dir, directory_at } =
            self.access(host, cluster);
        let proposer = self.proposer(host, in_group(PROPOSERS), id.as_ref().map(|(id, _)| *id));
        let (address, address_at) = self.address(host, connection);
        let port = self.number(host, "paxos_port", 1..=65_535, "a port, 1 to 65535");
        let (port, port_at) = match port {
            Some((port, at)) => (port as u16, Some(at)),
            None => (PORT_DEFAULT, None),
        };
        let listen = self.listen(host, connection, &address, port);
        let binary = self.absolute_path(host, "paxos_binary").map(|(path, _)| path);
        let zone = self.text(host, "paxos_zone").map(|(zone, _)| zone);
        self.text(host, "paxos_http");
        let (proposer, proposer_at) = proposer;
        let (id, id_at) = id?;
        let node = NodeSpec {
            name: host.name.clone(),
            id: NodeId(id),
            proposer,
            acceptor: in_group(ACCEPTORS),
            learner: in_group(LEARNERS),
            host: address,
            port,
            listen,
            data_dir,
            connection,
            login,
            layout,
            binary,
            zone,
            groups: host.groups.clone(),
        };
        let address_at = port_at.or(address_at).unwrap_or_else(|| here.clone());
        let proposer_at = proposer_at.unwrap_or_else(|| id_at.clone());
        let directory_at = directory_at.unwrap_or(here);
        Some(Placed { node, id_at, proposer_at, address_at, directory_at })
    }

    fn id(&mut self, host: &Host) -> Option<(u64, (PathBuf, u64))> {
        if !host.variables.contains_key("paxos_id") {
            let hint = "give each host a number of its own that never changes and is never reused";
            let fault = Fault::Missing { host: host.name.clone(), variable: "paxos_id", hint };
            self.problem((self.file.clone(), host.line), fault);
            return None;
        }
        self.number(host, "paxos_id", 1..=u64::MAX, "a whole number from 1 on")
    }

    fn proposer(
        &mut self,
        host: &Host,
        proposes: bool,
        id: Option<u64>,
    ) -> (Option<ProposerId>, Option<(PathBuf, u64)>) {
        let own = self.number(host, "paxos_proposer_id", 0..=u64::MAX, "a whole number, 0 to 99");
        let at = own.as_ref().map(|(_, at)| at.clone());
        let Some(wanted) = own.map(|(wanted, _)| wanted).or(id) else { return (None, at) };
        match ProposerId::new(wanted) {
            _ if !proposes && at.is_none() => (None, None),
            Ok(id) => (proposes.then_some(id), at),
            Err(_) => {
                let fault = Fault::ProposerId { host: host.name.clone(), id: wanted };
                let id_at = || host.variables.get("paxos_id").map(|s| (s.file.clone(), s.line));
                let line = at.clone().or_else(id_at);
                self.problem(line.unwrap_or((self.file.clone(), host.line)), fault);
                (None, at)
            }
        }
    }

    fn unique(&mut self, placed: &[Placed]) {
        let mut ids = BTreeMap::new();
        let mut proposers = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        let mut directories = BTreeMap::new();
        for Placed { node, id_at, proposer_at, address_at, directory_at } in placed {
            let second = node.name.clone();
            if let Some(first) = ids.insert(node.id, second.clone()) {
                let fault = Fault::IdTwice { id: node.id.0, first, second: second.clone() };
                self.problem(id_at.clone(), fault);
            } else if let Some(id) = node.proposer
                && let Some(first) = proposers.insert(id, second.clone())
            {
                let id = id.value();
                let fault = Fault::ProposerIdTwice { id, first, second: second.clone() };
                self.problem(proposer_at.clone(), fault);
            }
            let address = node.address();
            if let Some(first) = addresses.insert(address.clone(), second.clone()) {
                let fault = Fault::AddressTwice { address, first, second: second.clone() };
                self.problem(address_at.clone(), fault);
            }
            // What is laid out as by a package is there once on a host.
            let directory = match &node.layout {
                Layout::Own => node.data_dir.clone(),
                Layout::System { cluster } => settings_path(cluster),
            };
            let on_one_host = (node.login.clone(), directory.clone());
            if let Some(first) = directories.insert(on_one_host, second.clone()) {
                let directory = directory.display().to_string();
                let fault = Fault::DirectoryTwice { directory, first, second };
                self.problem(directory_at.clone(), fault);
            }
        }
    }

    /// Sizes that the inventory gives, with the line of the last.
    fn quorum_sizes(&mut self, ours: &[&Host]) -> [Option<(u64, (PathBuf, u64))>; 2] {
        let mut sizes = [None, None];
        let names = ["paxos_quorum_phase1", "paxos_quorum_phase2"];
        for (name, size) in names.into_iter().zip(&mut sizes) {
            let mut first: Option<(Option<u64>, String)> = None;
            for host in ours {
                let given = self.number(host, name, 1..=65_535, "a number of acceptors");
                let value = given.as_ref().map(|(value, _)| *value);
                match &first {
                    Some((other, other_host)) if *other != value => {
                        let fault = Fault::Differs {
                            host: host.name.clone(),
                            variable: name,
                            other_host: other_host.clone(),
                        };
                        let at = given.clone().map(|(_, at)| at);
                        self.problem(at.unwrap_or((self.file.clone(), host.line)), fault);
                    }
                    Some(_) => {}
                    None => first = Some((value, host.name.clone())),
                }
                *size = given.or(size.take());
            }
        }
        sizes
    }

    fn quorums(
        &mut self,
        nodes: &[NodeSpec],
        [phase1, phase2]: [Option<(u64, (PathBuf, u64))>; 2],
    ) -> Option<QuorumSystem> {
        let start = (self.file.clone(), 0);
        let has = |role: fn(&NodeSpec) -> bool| nodes.iter().any(role);
        let roles = [
            ("an acceptor", ACCEPTORS, has(|node| node.acceptor)),
            ("a proposer", PROPOSERS, has(|node| node.proposer.is_some())),
            ("a learner", LEARNERS, has(|node| node.learner)),
        ];
        for (role, group, _) in roles.into_iter().filter(|(_, _, present)| !present) {
            // A proposer whose id is out of range was complained about already.
            if self.problems.is_empty() {
                self.problem(start.clone(), Fault::NoRole { role, group });
            }
        }
        let count = nodes.iter().filter(|node| node.acceptor).count();
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        let majority = QuorumSystem::majority(count).ok()?;
        let at = phase2.as_ref().or(phase1.as_ref()).map(|(_, at)| at.clone());
        let size = |given: Option<(u64, (PathBuf, u64))>, default: usize| {
            given.map_or(default as u16, |(size, _)| u16::try_from(size).unwrap_or(u16::MAX))
        };
        let first = size(phase1, majority.phase1());
        let second = size(phase2, majority.phase2());
        match QuorumSystem::flexible(count, first, second) {
            Ok(system) => Some(system),
            Err(error) => {
                self.problem(at.unwrap_or(start), Fault::Quorum(error));
                None
            }
        }
    }

    /// A single value of one of our variables.
    pub(super) fn text(&mut self, host: &Host, variable: &str) -> Option<(String, (PathBuf, u64))> {
        let Setting { file, line, value } = host.variables.get(variable)?;
        let at = (file.clone(), *line);
        let (name, wanted) = (variable.to_owned(), "a single value");
        match value {
            Value::Scalar(text) if text.contains("{{") && variable.starts_with("paxos_") => {
                let fault = Fault::Template { variable: name, value: text.clone() };
                self.problem(at, fault);
                None
            }
            Value::Scalar(text) => Some((text.clone(), at)),
            other => {
                let value = other.kind().to_owned();
                self.problem(at, Fault::Value { variable: name, value, wanted });
                None
            }
        }
    }

    /// A single value of somebody else's variable, which may be a template that we cannot use.
    pub(super) fn plain_text(
        &self,
        host: &Host,
        variable: &str,
    ) -> Option<(String, (PathBuf, u64))> {
        let Setting { file, line, value } = host.variables.get(variable)?;
        match value {
            Value::Scalar(text) if !text.contains("{{") => {
                Some((text.clone(), (file.clone(), *line)))
            }
            _ => None,
        }
    }

    fn number(
        &mut self,
        host: &Host,
        variable: &str,
        range: std::ops::RangeInclusive<u64>,
        wanted: &'static str,
    ) -> Option<(u64, (PathBuf, u64))> {
        let (text, at) = self.text(host, variable)?;
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Some((number, at)),
            _ => {
                let variable = variable.to_owned();
                self.problem(at, Fault::Value { variable, value: text, wanted });
                None
            }
        }
    }

    pub(super) fn absolute_path(
        &mut self,
        host: &Host,
        variable: &str,
    ) -> Option<(PathBuf, (PathBuf, u64))> {
        let (text, at) = self.text(host, variable)?;
        let path = match text.strip_prefix("~/") {
            Some(rest) => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(rest),
            None => PathBuf::from(&text),
        };
        let plain = !text.chars().any(char::is_control) && text.trim() == text;
        let climbs = path.components().any(|part| part == Component::ParentDir);
        if path.is_absolute() && path.parent().is_some() && plain && !climbs {
            return Some((path, at));
        }
        let wanted = "an absolute path, without \"..\", line breaks or blanks at its ends";
        let variable = variable.to_owned();
        self.problem(at, Fault::Value { variable, value: text, wanted });
        None
    }
}

/// Whether a host belongs to a cluster of ours: anything of ours is said about it.
fn is_ours(host: &Host) -> bool {
    host.variables.keys().any(|name| VARIABLES.contains(&name.as_str()))
        || host.groups.iter().any(|group| GROUPS.contains(&group.as_str()))
}

/// A name that can stand in a principal, in a path and in a line of an ssh_config.
fn is_name(name: &str) -> bool {
    let inner =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
    name.len() <= 63
        && name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// The known name that was most likely meant; none when nothing is near.
fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(name, known);
    let best = known.iter().min_by_key(distance)?;
    // Half of what follows the prefix may be wrong; more has another word in mind.
    (distance(&best) * 2 <= name.len().saturating_sub("paxos_".len()).max(2))
        .then(|| (*best).to_string())
}
