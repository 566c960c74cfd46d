//! Facts are gathered, and a plan is carried out, step by step, each of which can be done again.
//!
//! A controller that dies at any line leaves something that the next one takes up: the state is on
//! disk before a genesis leaves, a genesis is noted as given before its node starts, and files
//! appear whole. Nothing waits for a time to pass; what is waited for is looked at, and waiting has
//! an end.

use super::exclusive::Exclusive;
use super::host::{Host, Place, names};
use super::inventory::{Inventory, NodeSpec};
use super::keys::SshTarget;
use super::keys::issuer::{Issuer, NODE_ROLES};
use super::keys::signers::AskPassphrase;
use super::observe::Asker;
use super::plan::{EXECUTABLE, Facts, NodeFacts, Obstacle, Plan, Step};
use super::state::{ClusterState, StateError};
use super::wait::at_once;
use super::{host_failure, keys_failure, told};
use crate::transport::bundle::AuthorityRole;
use crate::wire::failure::{Code, Failure};
use rand::RngExt;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// A cluster as an inventory wants it, and the means to make it so.
pub struct Cluster {
    /// What is wanted.
    pub inventory: Inventory,
    /// Where that was read, for whoever is told what to type.
    pub file: PathBuf,
    /// Where its keys and the controller's state lie; absolute.
    pub keys_dir: PathBuf,
    /// The executable that nodes get unless the inventory names another.
    pub tool: PathBuf,
    /// An executable for all nodes, no matter what anybody else says.
    pub binary: Option<PathBuf>,
    /// Where its nodes run.
    pub host: Arc<dyn Host>,
    /// Who is asked for the passphrase of an authority's key.
    pub ask: AskPassphrase,
}

/// Told of each step before it begins. An error means that the step must not begin, because
/// somebody wants the run to stop: it is handed on as it is.
pub type Progress<'a> = &'a mut dyn FnMut(&str) -> Result<(), Failure>;

pub(super) fn state_failure(error: StateError) -> Failure {
    let code = match &error {
        StateError::File { .. } => Code::Internal,
        _ => Code::BadSettings,
    };
    told(code, &error.to_string())
}

impl Cluster {
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

    /// The cluster's keys, held against other controllers; made if there are none.
    ///
    /// # Errors
    /// As [`Issuer::open_or_init`].
    pub fn open_or_init_keys(&self) -> Result<Issuer, Failure> {
        let issuer = Issuer::open_or_init(&self.keys_dir, &self.inventory.cluster, self.ask);
        issuer.map_err(keys_failure)
    }

    /// Carries the plan out, for `what`, and gives the path of the ssh_config. What could not be
    /// done for single nodes is the failure at the end, after the others were seen to.
    ///
    /// # Errors
    /// When another controller is at work or was since the facts were gathered, and then nothing
    /// was done; when a step failed that the others need; or what failed for single nodes.
    pub fn apply(
        &self,
        what: &str,
        plan: &Plan,
        facts: &Facts,
        say: Progress<'_>,
    ) -> Result<PathBuf, Failure> {
        if let Some(obstacle) = plan.stopper() {
            return Err(obstacle_failure(obstacle));
        }
        let issuer = self.open_or_init_keys()?;
        // Not when everybody waits for it.
        issuer.must_be_able(&self.to_sign(plan, &issuer)?).map_err(keys_failure)?;
        let exclusive = match plan.is_empty() {
            true => None,
            false => Some(self.exclusive(what)?),
        };
        let state = self.state_as_planned(facts)?;
        let mut work = Work { cluster: self, issuer, state, asker: None, failed: BTreeMap::new() };
        let path = work.carry_out(plan, facts, exclusive.as_ref(), say);
        // Whatever ended it, nodes that were given up before are told as well.
        let ended = path.as_ref().err().cloned();
        let obstacles = plan.obstacles.iter().map(obstacle_failure);
        let failures = ended.into_iter().chain(obstacles).chain(work.failed.into_values());
        match together(failures.collect()) {
            None => path,
            Some(failure) => Err(failure),
        }
    }

    /// Which authorities sign something in this plan, by what was certified here before.
    fn to_sign(&self, plan: &Plan, issuer: &Issuer) -> Result<Vec<AuthorityRole>, Failure> {
        let mut roles = Vec::new();
        let now = SystemTime::now();
        for step in &plan.steps {
            match step {
                Step::IssueOperator => roles.push(AuthorityRole::Operator),
                Step::Install { node, .. } if !roles.contains(&AuthorityRole::Host) => {
                    let node = self.known(node)?;
                    // What cannot be read here is made anew.
                    if !issuer.keys().certified(&node.name, node.id, now).unwrap_or(false) {
                        roles.extend(NODE_ROLES);
                    }
                }
                _ => {}
            }
        }
        Ok(roles)
    }

    /// The hosts as they were when the facts were gathered, but for the executables.
    fn must_be_as_planned(&self, facts: &Facts) -> Result<(), Failure> {
        let now = self.facts()?;
        let same = |(name, was): (&String, &NodeFacts)| {
            let is = now.nodes.get(name)?;
            // What nodes do themselves is none of a controller's: to take up a genesis, to run.
            let same = (was.settings, was.keys) == (is.settings, is.keys);
            (same || was.out_of_reach.is_some()).then_some(())
        };
        match facts.nodes.iter().all(|node| same(node).is_some()) {
            true => Ok(()),
            false => Err(changed_since()),
        }
    }

    /// The state, unless somebody else changed it since the facts were gathered.
    fn state_as_planned(&self, facts: &Facts) -> Result<Option<ClusterState>, Failure> {
        let state = ClusterState::load(&self.keys_dir, &self.inventory.cluster);
        let state = state.map_err(state_failure)?;
        if state == facts.state {
            return Ok(state);
        }
        Err(changed_since())
    }

    /// The names of the inventory's nodes.
    pub fn node_names(&self) -> Vec<String> {
        self.inventory.nodes.iter().map(|node| node.name.clone()).collect()
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
}

/// How OpenSSH gets to a node whose host stands behind another.
fn proxy_command(node: &NodeSpec) -> Option<String> {
    let login = node.login.as_ref()?;
    let behind = login.is_behind_another().unwrap_or(false);
    behind.then(|| shell_words::join(login.proxy_command()))
}

fn changed_since() -> Failure {
    let message = "another paxos-ctl changed the cluster since the plan was made";
    Failure::new(Code::Busy, message, "look at the plan again, and deploy again")
}

/// Several failures as one, with the first one's code.
fn together(failures: Vec<Failure>) -> Option<Failure> {
    let code = failures.first()?.code;
    let join =
        |part: fn(&Failure) -> &str| failures.iter().map(part).collect::<Vec<_>>().join("\n");
    Some(Failure::new(code, join(|failure| &failure.message), join(|failure| &failure.hint)))
}

/// What a deployment holds while it is under way.
struct Work<'a> {
    cluster: &'a Cluster,
    issuer: Issuer,
    state: Option<ClusterState>,
    asker: Option<Asker>,
    /// Nodes that nothing more is done for, and why.
    failed: BTreeMap<String, Failure>,
}

impl<'a> Work<'a> {
    fn asker(&mut self) -> Result<&Asker, Failure> {
        let asker = match self.asker.take() {
            Some(asker) => asker,
            None => Asker::new(self.issuer.keys(), &self.cluster.inventory.cluster)?,
        };
        Ok(self.asker.insert(asker))
    }

    fn carry_out(
        &mut self,
        plan: &Plan,
        facts: &Facts,
        exclusive: Option<&Exclusive>,
        say: Progress<'_>,
    ) -> Result<PathBuf, Failure> {
        self.deliver(plan, say)?;
        if let Some(exclusive) = exclusive {
            // A host that had no program yet has a lock only now.
            exclusive.renew()?;
            self.cluster.must_be_as_planned(facts)?;
        }
        self.certify(plan, say)?;
        self.take(plan, say)?;
        let targets = self.cluster.ssh_targets();
        self.issuer.write_ssh_config(&targets).map_err(keys_failure)
    }

    /// Sends executables to all hosts at once. They come before all else: on a host over ssh they
    /// do the rest.
    fn deliver(&mut self, plan: &Plan, say: Progress<'_>) -> Result<(), Failure> {
        let wants = |what: &[&str]| what.contains(&EXECUTABLE);
        let nodes = self.installed(plan, wants)?;
        if !nodes.is_empty() {
            say(&format!("send the program to {}", listed(&nodes)))?;
        }
        let (cluster, state) = (self.cluster, self.state.as_ref());
        let sent = at_once(&nodes, |node| {
            let source = cluster.executable(state, node);
            cluster.host.receive_executable(&Place::of(node), &source)
        });
        for (node, sent) in nodes.into_iter().zip(sent) {
            if let Err(error) = sent {
                self.give_up(node, host_failure(error), say)?;
            }
        }
        Ok(())
    }

    /// Nothing more is done for a node; the others are seen to.
    fn give_up(
        &mut self,
        node: &NodeSpec,
        failure: Failure,
        say: Progress<'_>,
    ) -> Result<(), Failure> {
        let said = format!("{}: given up: {}", node.name, failure.message);
        self.failed.insert(node.name.clone(), failure);
        say(&said)
    }

    /// The nodes that get some of what is wanted.
    fn installed(
        &self,
        plan: &Plan,
        wants: impl Fn(&[&'static str]) -> bool,
    ) -> Result<Vec<&'a NodeSpec>, Failure> {
        let node = |step: &Step| match step {
            Step::Install { node, what } if wants(what) && !self.failed.contains_key(node) => {
                Some(self.cluster.known(node))
            }
            _ => None,
        };
        plan.steps.iter().filter_map(node).collect()
    }

    /// Has each node that gets files make its key, and certifies it. Comes before the first file,
    /// for each node is told of all certificates.
    fn certify(&mut self, plan: &Plan, say: Progress<'_>) -> Result<(), Failure> {
        let nodes = self.installed(plan, |_| true)?;
        if !nodes.is_empty() {
            say(&format!("certify {}", listed(&nodes)))?;
        }
        let cluster = self.cluster;
        let lines =
            at_once(&nodes, |node| cluster.host.ensure_node_key(&Place::of(node), &node.name));
        for (node, line) in nodes.into_iter().zip(lines) {
            match line {
                Ok(line) => {
                    let now = SystemTime::now();
                    let issued = self.issuer.ensure_node(&node.name, node.id, &line, now);
                    issued.map_err(keys_failure)?;
                }
                Err(error) => self.give_up(node, host_failure(error), say)?,
            }
        }
        Ok(())
    }

    /// Takes the steps in their order. One that fails for a node ends what is done for that node;
    /// a restart that fails ends everything, for the next node must not be stopped then.
    fn take(&mut self, plan: &Plan, say: Progress<'_>) -> Result<(), Failure> {
        let mut started: Vec<&NodeSpec> = Vec::new();
        for step in &plan.steps {
            let node = step.node().map(|name| self.cluster.known(name)).transpose()?;
            if node.is_some_and(|node| self.failed.contains_key(&node.name)) {
                continue;
            }
            if let Step::Restart(_) = step {
                self.settle(&started, say)?;
                started.clear();
            }
            say(&step.to_string())?;
            match (self.take_one(step, node), step, node) {
                (Ok(()), Step::Start(_), Some(node)) => started.push(node),
                (Ok(()), _, _) => {}
                (Err(failure), Step::Restart(_), _) | (Err(failure), _, None) => {
                    return Err(failure);
                }
                (Err(failure), _, Some(node)) => self.give_up(node, failure, say)?,
            }
        }
        self.settle(&started, say)
    }

    fn take_one(&mut self, step: &Step, node: Option<&NodeSpec>) -> Result<(), Failure> {
        match (step, node) {
            (Step::IssueOperator, _) => {
                self.issuer.ensure_operator(SystemTime::now()).map_err(keys_failure)?;
            }
            (Step::Form, _) => self.form()?,
            // Its executable is there already.
            (Step::Install { .. }, Some(node)) => self.install(node)?,
            (Step::GiveGenesis(_), Some(node)) => self.give_genesis(node)?,
            (Step::Start(_), Some(node)) => {
                // Somebody may have started it since the facts were gathered.
                if !self.cluster.runs(node)? {
                    self.cluster.host.start(&Place::of(node)).map_err(host_failure)?;
                }
            }
            (Step::Reload(_), Some(node)) => {
                let taken = self.cluster.take_up_keys(self.issuer.keys(), node);
                taken.map_err(host_failure)?;
            }
            (Step::Restart(_), Some(node)) => {
                let cluster = self.cluster;
                cluster.restart_one(self.asker()?, node, false)?;
            }
            // Keys were made when they were opened.
            (Step::CreateKeys, _) | (_, None) => {}
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
        let files = self
            .issuer
            .keys()
            .node_files(&node.name, &self.cluster.inventory.people)
            .map_err(keys_failure)?;
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
        say("wait until they answer")?;
        cluster.wait_answers(asker, started)?;
        say("wait until they have a leader")?;
        cluster.wait_leader(asker, started)
    }
}

/// What stands in the way, as a failure.
pub fn obstacle_failure(obstacle: &Obstacle) -> Failure {
    Failure::new(obstacle.code(), obstacle.to_string(), obstacle.hint())
}

/// A node that was told to stop and did not.
pub fn still_running(node: &str, pid: u32) -> Failure {
    let message = format!("{node} (pid {pid}) was told to stop and still runs");
    Failure::new(Code::Internal, message, format!("see its log, or end it: paxos-ctl kill {node}"))
}

fn listed(nodes: &[&NodeSpec]) -> String {
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where a node's process writes.
pub fn log_path(node: &NodeSpec) -> PathBuf {
    Place::of(node).path(names::OUTPUT)
}
