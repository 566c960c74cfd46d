//! Facts are gathered, and a plan is carried out, step by step, each of which can be done again.
//!
//! A controller that dies at any line leaves something that the next one takes up: the state is on
//! disk before a genesis leaves, a genesis is noted as given before its node starts, and files
//! appear whole. Nothing waits for a time to pass; what is waited for is looked at, and waiting has
//! an end.

use super::host::{Found, Halt, Halted, Host, HostError, Place, Wanted, names};
use super::inventory::{Connection, Inventory, NodeSpec};
use super::issuer::Issuer;
use super::keys::{ClusterKeys, SshTarget};
use super::membership::Membership;
use super::observe::{ASK_LIMIT, Asker, Contact, leader};
use super::plan::{EXECUTABLE, Facts, FileState, NodeFacts, Obstacle, Plan, Step, obstacle};
use super::settings::settings_text;
use super::state::{ClusterState, StateError};
use super::wait::{at_once, until};
use super::{host_failure, keys_failure, told};
use crate::transport::identity;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::StatusReport;
use rand::RngExt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a node may take from its start to its first answer: a log of some gigabytes is read
/// first.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long nodes that answer may take to agree on a leader: a few elections at the longest
/// timeout.
const LEADER_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at a node that does not answer yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One look may take this long, so that a node that hangs does not hide one that died.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How many lines of a node's log go into the message about its death.
const LAST_WORDS: usize = 10;

/// What a node is given beside its private key.
const KEY_FILES: [&str; 6] = [
    identity::ROOT,
    identity::BUNDLE,
    identity::PEOPLE,
    identity::MEMBERS,
    identity::HOST_CERTIFICATE,
    identity::PEER_CERTIFICATE,
];

/// A cluster as an inventory wants it, and the means to make it so.
pub struct Cluster {
    /// What is wanted.
    pub inventory: Inventory,
    /// Where its keys and the controller's state lie; absolute.
    pub keys_dir: PathBuf,
    /// The executable that nodes get unless the inventory names another.
    pub tool: PathBuf,
    /// Where its nodes run.
    pub host: Box<dyn Host>,
}

/// Told what is being done.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

pub(super) fn state_failure(error: StateError) -> Failure {
    let code = match &error {
        StateError::File { .. } => Code::Internal,
        _ => Code::BadSettings,
    };
    told(code, &error.to_string())
}

impl Cluster {
    /// The cluster's keys, if they were made.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn keys(&self) -> Result<Option<ClusterKeys>, Failure> {
        ClusterKeys::open(&self.keys_dir, &self.inventory.cluster).map_err(keys_failure)
    }

    /// Where a node's executable comes from.
    fn executable<'a>(&'a self, node: &'a NodeSpec) -> &'a Path {
        node.binary.as_deref().unwrap_or(&self.tool)
    }

    /// Looks at everything that a plan depends on. Changes nothing.
    ///
    /// # Errors
    /// When something is there and cannot be read.
    pub fn facts(&self) -> Result<Facts, Failure> {
        let keys = self.keys()?;
        let now = SystemTime::now();
        let mut facts = Facts {
            state: ClusterState::load(&self.keys_dir, &self.inventory.cluster)
                .map_err(state_failure)?,
            keys: keys.is_some(),
            ..Facts::default()
        };
        if let Some(keys) = &keys {
            facts.operator = keys.operator_is_current(now).map_err(keys_failure)?;
        }
        let mut all_certified = true;
        for (node, found) in self.inventory.nodes.iter().zip(self.look()) {
            let (found, certified) = match found {
                Ok(found) => {
                    self.node_facts(node, found, facts.state.as_ref(), keys.as_ref(), now)?
                }
                Err(error) if node.connection == Connection::Ssh => {
                    let why = format!("cannot {}: {}", error.what, error.reason);
                    let out_of_reach = Some((why, error.hint));
                    (NodeFacts { out_of_reach, ..NodeFacts::default() }, false)
                }
                Err(error) => return Err(host_failure(error)),
            };
            // One that is not seen to gets no certificates either.
            all_certified &= certified || obstacle(node, &found, facts.state.as_ref()).is_some();
            facts.nodes.insert(node.name.clone(), found);
        }
        if !all_certified {
            // Each node is told of all certificates, so a new one is news to the others as well.
            let told = facts.nodes.values_mut().filter(|found| found.keys == FileState::Same);
            told.for_each(|found| found.keys = FileState::Differs);
        }
        if let Some(keys) = keys.filter(|_| facts.operator) {
            let asker = Asker::new(&keys, &self.inventory.cluster)?;
            let running = |node: &&NodeSpec| {
                facts.nodes.get(&node.name).is_some_and(|found| found.running.is_some())
            };
            let running: Vec<&NodeSpec> = self.inventory.nodes.iter().filter(running).collect();
            facts.leader = leader(&asker.ask(&running, ASK_LIMIT));
        }
        Ok(facts)
    }

    /// What lies on each node's host, asked at once.
    fn look(&self) -> Vec<Result<Found, HostError>> {
        let mut files = vec![names::SETTINGS.to_owned()];
        files.extend(KEY_FILES.iter().map(|name| format!("{}/{name}", names::KEYS)));
        at_once(&self.inventory.nodes, |node| {
            let wanted = Wanted { executable: Some(self.executable(node)), files: &files };
            self.host.find(&Place::of(node), &wanted)
        })
    }

    /// Also whether the node's certificates serve.
    fn node_facts(
        &self,
        node: &NodeSpec,
        found: Found,
        state: Option<&ClusterState>,
        keys: Option<&ClusterKeys>,
        now: SystemTime,
    ) -> Result<(NodeFacts, bool), Failure> {
        let settings = self.settings(state, node)?;
        let compare = |found: Option<&Option<Vec<u8>>>, wanted: &str| match found {
            Some(Some(bytes)) if bytes == wanted.as_bytes() => FileState::Same,
            Some(Some(_)) => FileState::Differs,
            _ => FileState::Absent,
        };
        let certified = match (keys, &found.node_key) {
            (Some(keys), Some(line)) => {
                keys.node_is_current(&node.name, node.id, line, now).map_err(keys_failure)?
            }
            _ => false,
        };
        let keys = match (keys, &found.node_key) {
            (_, None) => FileState::Absent,
            (Some(keys), Some(_)) if certified => {
                let wanted = keys.node_files(&node.name, &[]).map_err(keys_failure)?;
                let same = wanted.iter().all(|file| {
                    let place = KEY_FILES.iter().position(|name| *name == file.name);
                    let found = place.and_then(|place| found.files.get(place + 1));
                    compare(found, &file.text) == FileState::Same
                });
                if same { FileState::Same } else { FileState::Differs }
            }
            _ => FileState::Differs,
        };
        let facts = NodeFacts {
            directory: found.directory,
            log: found.log,
            genesis_waiting: found.genesis,
            running: found.running,
            executable: found.executable,
            settings: compare(found.files.first(), &settings),
            keys,
            held: found.held,
            out_of_reach: None,
        };
        Ok((facts, certified))
    }

    fn settings(&self, state: Option<&ClusterState>, node: &NodeSpec) -> Result<String, Failure> {
        settings_text(&self.inventory, state, node).map_err(|error| {
            let message = format!("the settings of {} cannot be written down: {error}", node.name);
            Failure::new(
                Code::BadSettings,
                message,
                "use a data directory whose path is plain text",
            )
        })
    }

    /// How OpenSSH reaches the nodes.
    pub fn ssh_targets(&self) -> Vec<SshTarget> {
        let nodes = self.inventory.nodes.iter();
        nodes
            .map(|node| SshTarget {
                name: node.name.clone(),
                host: node.host.clone(),
                port: node.port,
                proxy_command: proxy_command(node),
            })
            .collect()
    }

    /// Carries the plan out and gives the path of the ssh_config. What could not be done because of
    /// an obstacle that concerns single nodes is the failure at the end, after the others were seen
    /// to.
    ///
    /// # Errors
    /// The first step that failed; all before it are done.
    pub fn apply(&self, plan: &Plan, facts: &Facts, say: Progress<'_>) -> Result<PathBuf, Failure> {
        if let Some(obstacle) = plan.stopper() {
            return Err(obstacle_failure(&[obstacle]));
        }
        let issuer = Issuer::open_or_init(&self.keys_dir, &self.inventory.cluster);
        let issuer = issuer.map_err(keys_failure)?;
        let mut work =
            Work { cluster: self, issuer, state: self.state_as_planned(facts)?, asker: None };
        let mut started: Vec<&NodeSpec> = Vec::new();
        work.deliver(plan)?;
        work.certify(plan)?;
        for step in &plan.steps {
            say(&step.to_string());
            match step {
                Step::CreateKeys => {}
                Step::IssueOperator => {
                    work.issuer.ensure_operator(SystemTime::now()).map_err(keys_failure)?;
                }
                Step::Form => work.form()?,
                // Its executable is there already.
                Step::Install { node, .. } => work.install(self.known(node)?)?,
                Step::GiveGenesis(node) => work.give_genesis(self.known(node)?)?,
                Step::Start(node) => {
                    let node = self.known(node)?;
                    // Somebody may have started it since the facts were gathered.
                    if !self.runs(node)? {
                        self.host.start(&Place::of(node)).map_err(host_failure)?;
                    }
                    started.push(node);
                }
                Step::Restart(node) => {
                    work.settle(&started, say)?;
                    started.clear();
                    let asker = work.asker()?;
                    self.restart_one(asker, self.known(node)?, false)?;
                }
            }
        }
        let path = work.issuer.write_ssh_config(&self.ssh_targets()).map_err(keys_failure)?;
        work.settle(&started, say)?;
        match plan.obstacles.is_empty() {
            true => Ok(path),
            false => Err(obstacle_failure(&plan.obstacles.iter().collect::<Vec<_>>())),
        }
    }

    /// The state, unless somebody else changed it since the facts were gathered.
    fn state_as_planned(&self, facts: &Facts) -> Result<Option<ClusterState>, Failure> {
        let state = ClusterState::load(&self.keys_dir, &self.inventory.cluster);
        let state = state.map_err(state_failure)?;
        if state == facts.state {
            return Ok(state);
        }
        let message = "another paxos-ctl changed the cluster since the plan was made";
        Err(Failure::new(Code::Busy, message, "deploy again"))
    }

    /// A node of the inventory.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn known(&self, name: &str) -> Result<&NodeSpec, Failure> {
        self.inventory.node(name).ok_or_else(|| {
            let nodes = self.inventory.nodes.iter().map(|node| node.name.as_str());
            let message = format!("{name} is no node of cluster {}", self.inventory.cluster);
            let hint = format!("its nodes are {}", nodes.collect::<Vec<_>>().join(", "));
            Failure::new(Code::NotFound, message, hint)
        })
    }

    /// Stops a node, starts it, and waits until it takes part again. Refuses to take a quorum away
    /// unless it is forced to.
    ///
    /// # Errors
    /// When it does not stop, does not start, or does not take part in time.
    pub fn restart_one(&self, asker: &Asker, node: &NodeSpec, force: bool) -> Result<(), Failure> {
        if !force {
            self.can_spare(asker, node)?;
        }
        let place = Place::of(node);
        if let Halted::StillRunning(pid) =
            self.host.halt(&place, Halt::Gently).map_err(host_failure)?
        {
            return Err(still_running(&node.name, pid));
        }
        self.host.start(&place).map_err(host_failure)?;
        self.wait_answers(asker, &[node])?;
        self.wait_leader(asker, &[node])
    }

    /// Whether the cluster can do without this node for a while. Who its members are is for them to
    /// say, and the inventory's word counts for nothing: somebody may have edited it since.
    fn can_spare(&self, asker: &Asker, node: &NodeSpec) -> Result<(), Failure> {
        let state = ClusterState::load(&self.keys_dir, &self.inventory.cluster);
        let state = state.map_err(state_failure)?;
        let mut contacts: Vec<Contact> = self.inventory.nodes.iter().map(Contact::of).collect();
        let founders = state.iter().flat_map(|state| &state.nodes);
        contacts.extend(founders.filter_map(|node| Contact::at(&node.name, &node.address)));
        let mut answers = asker.ask_all(&contacts, ASK_LIMIT);
        let membership = Membership::told(&answers).or_else(|| state.as_ref().map(Into::into));
        let Some(membership) = membership else {
            let message = format!(
                "nobody says who the members of {} are; {} was left alone",
                self.inventory.cluster, node.name
            );
            let hint = "see paxos-ctl status, or restart with --force";
            return Err(Failure::new(Code::NoQuorum, message, hint));
        };
        let known = |name: &str| contacts.iter().any(|contact| contact.name == name);
        let strangers = membership.members.iter().filter(|member| !known(&member.name));
        let strangers = strangers.filter_map(|member| Contact::at(&member.name, &member.address));
        answers.extend(asker.ask_all(&strangers.collect::<Vec<_>>(), ASK_LIMIT));
        let answering = |name: &str| answers.get(name).is_some_and(Result::is_ok);
        membership.can_spare(&node.name, answering).map_err(|why| {
            let message = format!("{why}; {} was left alone", node.name);
            let hint = "start the others first (deploy), or restart with --force";
            Failure::new(Code::NoQuorum, message, hint)
        })
    }

    /// Waits until each of the nodes answers.
    ///
    /// # Errors
    /// When one dies, with its last words, or does not answer in time.
    pub fn wait_answers(&self, asker: &Asker, nodes: &[&NodeSpec]) -> Result<(), Failure> {
        let mut waiting = nodes.to_vec();
        let mut last = None;
        let look = || -> Result<Option<()>, Failure> {
            let answers = asker.ask(&waiting, LOOK_LIMIT);
            waiting.retain(|node| !answers.get(&node.name).is_some_and(Result::is_ok));
            for node in &waiting {
                if !self.runs(node)? {
                    return Err(self.died(node));
                }
            }
            last = waiting.first().map(|node| (*node, answers.get(&node.name).cloned()));
            Ok(waiting.is_empty().then_some(()))
        };
        let answered = until(ANSWER_LIMIT, LOOK_EVERY, look)?;
        let (None, Some((node, answer))) = (answered, last) else { return Ok(()) };
        let why = match answer {
            Some(Err(why)) => why,
            _ => "no reason is known".to_owned(),
        };
        let message =
            format!("{} runs but did not answer within {ANSWER_LIMIT:?}: {why}", node.name);
        let hint = format!("see its log: {}", where_its_log_is(node));
        Err(Failure::new(Code::Internal, message, hint))
    }

    fn runs(&self, node: &NodeSpec) -> Result<bool, Failure> {
        let nothing = Wanted { executable: None, files: &[] };
        let found = self.host.find(&Place::of(node), &nothing).map_err(host_failure)?;
        Ok(found.running.is_some())
    }

    /// Why a node ended right after its start: its own failure where it left one, else its last
    /// words.
    fn died(&self, node: &NodeSpec) -> Failure {
        let words = self.host.log_tail(&Place::of(node), LAST_WORDS).unwrap_or_default();
        let (name, log) = (&node.name, where_its_log_is(node));
        if let Some(own) = Failure::from_text(&words.join("\n")) {
            let message = format!("{name} ended right after its start: {}", own.message);
            return Failure::new(own.code, message, format!("{} (log: {})", own.hint, log));
        }
        let words = match words.is_empty() {
            true => "it said nothing".to_owned(),
            false => format!("its last words were:\n  {}", words.join("\n  ")),
        };
        let message = format!("{name} ended right after its start; {words}");
        let hint = format!("mend what it says and deploy again; its log is {log}");
        Failure::new(Code::Internal, message, hint)
    }

    /// Waits until one of the nodes knows a leader and has a quorum.
    ///
    /// # Errors
    /// When that does not come in time, with what the nodes say.
    pub fn wait_leader(&self, asker: &Asker, nodes: &[&NodeSpec]) -> Result<(), Failure> {
        let mut answers = BTreeMap::new();
        let look = || -> Result<Option<()>, Failure> {
            answers = asker.ask(nodes, LOOK_LIMIT);
            let serves =
                |status: &StatusReport| status.leader.is_some() && status.health != "no_quorum";
            Ok(answers.values().flatten().any(serves).then_some(()))
        };
        if until(LEADER_LIMIT, LOOK_EVERY, look)?.is_some() {
            return Ok(());
        }
        let why = answers.iter().map(|(name, answer)| match answer {
            Ok(status) => format!("{name}: {}", status.why),
            Err(error) => format!("{name}: {error}"),
        });
        let why = why.collect::<Vec<_>>().join("\n  ");
        let message = format!("the nodes run, but have no leader after {LEADER_LIMIT:?}:\n  {why}");
        let hint = "start the nodes that are missing, or see their logs (paxos-ctl logs)";
        Err(Failure::new(Code::NoQuorum, message, hint))
    }
}

/// How OpenSSH gets to a node whose host stands behind another.
fn proxy_command(node: &NodeSpec) -> Option<String> {
    let login = node.login.as_ref()?;
    let behind = login.is_behind_another().unwrap_or(false);
    behind.then(|| shell_words::join(login.proxy_command()))
}

/// What a deployment holds while it is under way.
struct Work<'a> {
    cluster: &'a Cluster,
    issuer: Issuer,
    state: Option<ClusterState>,
    asker: Option<Asker>,
}

impl Work<'_> {
    fn asker(&mut self) -> Result<&Asker, Failure> {
        let asker = match self.asker.take() {
            Some(asker) => asker,
            None => Asker::new(self.issuer.keys(), &self.cluster.inventory.cluster)?,
        };
        Ok(self.asker.insert(asker))
    }

    /// Sends executables to all hosts at once. They come before all else: on a host over ssh they
    /// do the rest.
    fn deliver(&self, plan: &Plan) -> Result<(), Failure> {
        let wants = |what: &[&str]| what.contains(&EXECUTABLE);
        let nodes = self.installed(plan, wants)?;
        let sent = at_once(&nodes, |node| {
            let source = self.cluster.executable(node);
            self.cluster.host.receive_executable(&Place::of(node), source)
        });
        sent.into_iter().collect::<Result<(), _>>().map_err(host_failure)
    }

    /// The nodes that get some of what is wanted.
    fn installed(
        &self,
        plan: &Plan,
        wants: impl Fn(&[&'static str]) -> bool,
    ) -> Result<Vec<&NodeSpec>, Failure> {
        let node = |step: &Step| match step {
            Step::Install { node, what } if wants(what) => Some(self.cluster.known(node)),
            _ => None,
        };
        plan.steps.iter().filter_map(node).collect()
    }

    /// Has each node that gets files make its key, and certifies it. Comes before the first file,
    /// for each node is told of all certificates.
    fn certify(&self, plan: &Plan) -> Result<(), Failure> {
        let nodes = self.installed(plan, |_| true)?;
        let lines =
            at_once(&nodes, |node| self.cluster.host.ensure_node_key(&Place::of(node), &node.name));
        for (node, line) in nodes.into_iter().zip(lines) {
            let line = line.map_err(host_failure)?;
            let issued = self.issuer.ensure_node(&node.name, node.id, &line, SystemTime::now());
            issued.map_err(keys_failure)?;
        }
        Ok(())
    }

    fn form(&mut self) -> Result<(), Failure> {
        let id = self.issuer.keys().cluster_id();
        let mut random = rand::rng();
        let state = ClusterState::form(&self.cluster.inventory, id, || random.random());
        state.genesis().map_err(state_failure)?;
        state.save(&self.cluster.keys_dir).map_err(state_failure)?;
        self.state = Some(state);
        Ok(())
    }

    fn install(&self, node: &NodeSpec) -> Result<(), Failure> {
        let (host, place) = (&self.cluster.host, Place::of(node));
        let files = self.issuer.keys().node_files(&node.name, &[]).map_err(keys_failure)?;
        for file in files {
            let name = format!("{}/{}", names::KEYS, file.name);
            let bytes = file.text.as_bytes();
            host.receive(&place, &name, file.mode, bytes).map_err(host_failure)?;
        }
        let settings = self.cluster.settings(self.state.as_ref(), node)?;
        let received = host.receive(&place, names::SETTINGS, 0o600, settings.as_bytes());
        received.map_err(host_failure)
    }

    fn give_genesis(&mut self, node: &NodeSpec) -> Result<(), Failure> {
        let Some(state) = &mut self.state else {
            let message = "a genesis was to be given although the cluster is not formed";
            return Err(Failure::new(Code::Internal, message, "report this fault"));
        };
        let text = state.genesis_file(&node.name).map_err(state_failure)?;
        let place = Place::of(node);
        let received = self.cluster.host.receive(&place, names::GENESIS, 0o600, text.as_bytes());
        received.map_err(host_failure)?;
        state.mark_given(&node.name);
        state.save(&self.cluster.keys_dir).map_err(state_failure)
    }

    fn settle(&mut self, started: &[&NodeSpec], say: Progress<'_>) -> Result<(), Failure> {
        if started.is_empty() {
            return Ok(());
        }
        let cluster = self.cluster;
        let asker = self.asker()?;
        say("wait until they answer");
        cluster.wait_answers(asker, started)?;
        say("wait until they have a leader");
        cluster.wait_leader(asker, started)
    }
}

/// All that stands in the way as one failure.
pub fn obstacle_failure(obstacles: &[&Obstacle]) -> Failure {
    let messages: Vec<String> = obstacles.iter().map(|obstacle| obstacle.to_string()).collect();
    let hints: Vec<String> = obstacles.iter().map(|obstacle| obstacle.hint()).collect();
    Failure::new(Code::BadSettings, messages.join("\n"), hints.join("\n"))
}

/// A node that was told to stop and did not.
pub fn still_running(node: &str, pid: u32) -> Failure {
    let message = format!("{node} (pid {pid}) was told to stop and still runs");
    Failure::new(Code::Internal, message, format!("see its log, or end it: paxos-ctl kill {node}"))
}

/// Where a person finds what a node's process writes.
fn where_its_log_is(node: &NodeSpec) -> String {
    match node.login {
        None => log_path(node).display().to_string(),
        Some(_) => format!("paxos-ctl logs {}", node.name),
    }
}

/// Where a node's process writes.
pub fn log_path(node: &NodeSpec) -> PathBuf {
    Place::of(node).path(names::OUTPUT)
}
