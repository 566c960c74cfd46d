//! What has to be done to make a cluster what its inventory says: a pure function of facts.
//!
//! Nothing here touches a host. Two rules stand above all others: a genesis is given only to nodes
//! that never ran, of a cluster that never was; and what the inventory leaves out is never taken
//! away.

use super::drift::drift;
use super::inventory::{Inventory, NodeSpec};
use super::state::{ClusterState, Founder, Handout};
use std::collections::BTreeSet;
use std::fmt;

pub use super::facts::{Facts, FileState, NodeFacts, PortHolder};
pub use super::obstacle::Obstacle;

/// What [`Step::Install`] calls the executable.
pub(super) const EXECUTABLE: &str = "executable";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the root key, the authorities and the bundle.
    CreateKeys,
    /// Make or renew the operator's key and certificate.
    IssueOperator,
    /// Remember, for ever, that the cluster is formed.
    Form,
    /// Lay files on a node's host.
    Install {
        /// Which node.
        node: String,
        /// Which files.
        what: Vec<&'static str>,
    },
    /// Hand a node its genesis.
    GiveGenesis(String),
    /// Start a node that does not run.
    Start(String),
    /// Have a node that runs take up the keys that were installed.
    Reload(String),
    /// Stop a node and start it, for what was installed.
    Restart(String),
}

impl Step {
    /// The node that it is done for, if it is done for one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Step::CreateKeys | Step::IssueOperator | Step::Form => None,
            Step::Install { node, .. }
            | Step::GiveGenesis(node)
            | Step::Start(node)
            | Step::Reload(node)
            | Step::Restart(node) => Some(node),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateKeys => f.write_str("make the root key, three authorities and the bundle"),
            Step::IssueOperator => f.write_str("issue the operator's certificate"),
            Step::Form => f.write_str("form the cluster (once in its life)"),
            Step::Install { node, what } => write!(f, "{node}: install {}", what.join(", ")),
            Step::GiveGenesis(node) => write!(f, "{node}: hand over the genesis"),
            Step::Start(node) => write!(f, "{node}: start"),
            Step::Reload(node) => write!(f, "{node}: take up the keys that were installed"),
            Step::Restart(node) => write!(f, "{node}: restart with what was installed"),
        }
    }
}

/// What to do, in order, and what cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order in which they are done.
    pub steps: Vec<Step>,
    /// What stands in the way.
    pub obstacles: Vec<Obstacle>,
    /// What somebody should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Only what concerns these nodes, and what is done for no node in particular.
    pub fn limited(mut self, only: Option<&BTreeSet<String>>) -> Plan {
        if let Some(only) = only {
            self.steps.retain(|step| step.node().is_none_or(|node| only.contains(node)));
            self.obstacles.retain(|obstacle| {
                obstacle.stops_everything() || obstacle.node().is_none_or(|n| only.contains(n))
            });
        }
        self
    }

    /// The first obstacle that keeps everything from being done.
    pub fn stopper(&self) -> Option<&Obstacle> {
        self.obstacles.iter().find(|obstacle| obstacle.stops_everything())
    }
}

/// Makes the plan.
pub fn plan(inventory: &Inventory, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    let nothing = NodeFacts::default();
    let of = |node: &NodeSpec| facts.nodes.get(&node.name).unwrap_or(&nothing);
    let mut usable = Vec::new();
    for node in &inventory.nodes {
        let obstacle = obstacle(node, of(node), facts.state.as_ref());
        match obstacle {
            Some(obstacle) => plan.obstacles.push(obstacle),
            None => usable.push(node),
        }
        if let Some(newer) = of(node).newer_bundle {
            plan.obstacles.push(Obstacle::OldKeys(node.name.clone(), newer));
        }
        if let Some(why) = &of(node).unfit {
            plan.obstacles.push(Obstacle::Unfit(node.name.clone(), why.clone()));
        }
        for holder in &of(node).held {
            plan.obstacles.push(Obstacle::PortHeld(node.name.clone(), holder.clone()));
        }
    }
    match &facts.state {
        None => {
            let logs =
                inventory.nodes.iter().filter(|node| of(node).log || of(node).running.is_some());
            let logs: Vec<String> = logs.map(|node| node.name.clone()).collect();
            if !logs.is_empty() {
                plan.obstacles.push(Obstacle::FormedElsewhere(logs));
            }
        }
        Some(_) if !facts.keys => plan.obstacles.push(Obstacle::KeysGone),
        Some(state) => {
            plan.obstacles.extend(other_quorums(inventory, state));
            let told = facts.told.iter();
            plan.obstacles.extend(told.flat_map(|told| drift(inventory, state, told)));
            let left_out = state.members().filter(|node| inventory.node(&node.name).is_none());
            plan.notes.extend(left_out.map(|node| {
                let name = &node.name;
                format!(
                    "{name} is not in the inventory any more; it stays a member, and is left alone"
                )
            }));
        }
    }
    if plan.stopper().is_some() {
        return plan;
    }
    if !facts.keys {
        plan.steps.push(Step::CreateKeys);
    }
    if !facts.operator {
        plan.steps.push(Step::IssueOperator);
    }
    if facts.state.is_none() {
        plan.steps.push(Step::Form);
    }
    plan.steps.extend(usable.iter().filter_map(|node| install(node, of(node))));
    let founder = |node: &NodeSpec| facts.state.as_ref().and_then(|state| state.node(&node.name));
    let unstarted = |node: &&&NodeSpec| {
        founder(node).is_none_or(|founder| founder.genesis == Handout::Pending) && !of(node).log
    };
    let genesis = usable.iter().filter(unstarted);
    plan.steps.extend(genesis.map(|node| Step::GiveGenesis(node.name.clone())));
    let stopped = usable.iter().filter(|node| of(node).running.is_none());
    plan.steps.extend(stopped.map(|node| Step::Start(node.name.clone())));
    plan.steps.extend(renewals(&usable, facts));
    plan
}

/// What has nodes that run go by what was installed. Keys alone are taken up without a restart, and
/// a restart takes up everything; the leader's comes last.
fn renewals(usable: &[&NodeSpec], facts: &Facts) -> Vec<Step> {
    let is_same = |state: FileState| state == FileState::Same;
    let mut reloads = Vec::new();
    let mut restarts = Vec::new();
    for node in usable {
        let Some(found) = facts.nodes.get(&node.name).filter(|found| found.running.is_some())
        else {
            continue;
        };
        let name = node.name.clone();
        let other_settings = !is_same(found.settings) || found.settings_outdated;
        if !is_same(found.executable) || other_settings {
            restarts.push(name);
        } else if !is_same(found.keys) || found.keys_outdated || found.behind {
            reloads.push(Step::Reload(name));
        }
    }
    restarts.sort_by_key(|node| facts.leader.as_ref() == Some(node));
    reloads.extend(restarts.into_iter().map(Step::Restart));
    reloads
}

/// Why a node cannot be what the inventory says.
pub(super) fn obstacle(
    node: &NodeSpec,
    facts: &NodeFacts,
    state: Option<&ClusterState>,
) -> Option<Obstacle> {
    let name = node.name.clone();
    if let Some(recovery) = state.and_then(|state| state.lost(&node.name)) {
        return Some(Obstacle::GivenUp { node: name, at: recovery.at.clone() });
    }
    if let Some((why, hint)) = &facts.out_of_reach {
        let (why, hint, formed) = (why.clone(), hint.clone(), state.is_some());
        return Some(Obstacle::OutOfReach { node: name, why, hint, formed });
    }
    let state = state?;
    let Some(founder) = state.node(&node.name) else { return Some(Obstacle::NotAMember(name)) };
    if facts.revoked {
        return Some(Obstacle::KeyRevoked(name));
    }
    if let Some(what) = difference(node, founder) {
        return Some(Obstacle::Changed(name, what));
    }
    let given = founder.genesis == Handout::Given;
    let lost = given && !facts.log && !facts.genesis_waiting;
    lost.then_some(Obstacle::LogLost(name))
}

/// What the inventory says otherwise than the cluster was formed with.
fn difference(node: &NodeSpec, founder: &Founder) -> Option<&'static str> {
    let proposer = node.proposer.map(|id| u64::from(id.value()));
    let same = [
        ("paxos_id", node.id.0 == founder.id),
        ("address", node.address() == founder.address),
        ("proposer id or role", proposer == founder.proposer),
        ("acceptor's role", node.acceptor == founder.generation.is_some()),
        ("learner's role", node.learner == founder.learner),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}

/// Quorum sizes that were changed. Those that are not written follow from the number of acceptors,
/// and are no wish of anybody's while an acceptor is left out.
fn other_quorums(inventory: &Inventory, state: &ClusterState) -> Option<Obstacle> {
    let formed = state.quorums();
    let founders = state.acceptors().count();
    let all_there = inventory.quorums.acceptors() == founders;
    let wanted = |place: usize, formed: u16| match inventory.sizes[place] {
        Some(size) => u16::try_from(size).unwrap_or(u16::MAX),
        None if !all_there => formed,
        None if place == 0 => inventory.quorums.phase1() as u16,
        None => inventory.quorums.phase2() as u16,
    };
    let wanted = (wanted(0, formed.0), wanted(1, formed.1));
    (wanted != formed).then_some(Obstacle::Quorums { formed, wanted })
}

fn install(node: &NodeSpec, facts: &NodeFacts) -> Option<Step> {
    let parts = [
        (EXECUTABLE, facts.executable),
        ("keys and certificates", facts.keys),
        ("settings", facts.settings),
    ];
    let missing = parts.into_iter().filter(|(_, state)| *state != FileState::Same);
    let what: Vec<&'static str> = missing.map(|(what, _)| what).collect();
    (!what.is_empty()).then(|| Step::Install { node: node.name.clone(), what })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::controller::inventory::groups::Sources;
    use crate::controller::keys::newest::Newer;
    use crate::paxos::ballot::ClusterId;
    use std::path::Path;

    pub(crate) fn three_nodes() -> Inventory {
        let text = "all:\n  vars: {paxos_cluster: c, ansible_connection: local}\n  hosts:\n    \
                    n1: {paxos_id: 1, paxos_port: 1}\n    \
                    n2: {paxos_id: 2, paxos_port: 2}\n    \
                    n3: {paxos_id: 3, paxos_port: 3}\n";
        let sources =
            Sources { file: "i.yaml".into(), text: text.to_owned(), ..Sources::default() };
        Inventory::from_sources(&sources, Path::new("/state")).expect("the inventory is right")
    }

    fn state(inventory: &Inventory, given: &[&str]) -> ClusterState {
        let mut state = ClusterState::form(inventory, ClusterId(7), || 9);
        given.iter().for_each(|name| state.mark_given(name));
        state
    }

    fn running(pid: u32) -> NodeFacts {
        NodeFacts {
            directory: true,
            log: true,
            running: Some(pid),
            executable: FileState::Same,
            settings: FileState::Same,
            keys: FileState::Same,
            ..NodeFacts::default()
        }
    }

    /// A cluster that runs as it should, with something done to it.
    fn settled(change: impl FnOnce(&mut Facts)) -> Facts {
        let nodes = [("n1", 11), ("n2", 12), ("n3", 13)];
        let mut facts = Facts {
            state: Some(state(&three_nodes(), &["n1", "n2", "n3"])),
            keys: true,
            operator: true,
            nodes: nodes.map(|(name, pid)| (name.to_owned(), running(pid))).into(),
            leader: Some("n1".to_owned()),
            told: None,
        };
        change(&mut facts);
        facts
    }

    fn at<'a>(facts: &'a mut Facts, node: &str) -> &'a mut NodeFacts {
        facts.nodes.get_mut(node).expect("the node is one of the three")
    }

    fn steps(facts: &Facts) -> Vec<String> {
        plan(&three_nodes(), facts).steps.iter().map(Step::to_string).collect()
    }

    #[test]
    fn a_host_out_of_reach_is_named_and_the_others_are_seen_to() {
        let facts = settled(|facts| {
            at(facts, "n2").out_of_reach = Some(("down".to_owned(), "start it".to_owned()));
            at(facts, "n3").running = None;
        });
        let plan = plan(&three_nodes(), &facts);
        assert_eq!(plan.stopper(), None);
        assert_eq!(plan.steps, [Step::Start("n3".to_owned())]);
        let named: Vec<_> = plan.obstacles.iter().map(Obstacle::node).collect();
        assert_eq!(named, [Some("n2")]);
    }

    #[test]
    fn old_keys_and_a_program_that_is_too_old_stop_everything() {
        let old_keys = settled(|facts| {
            at(facts, "n2").newer_bundle = Some(Newer::Bundle { there: 3, here: 2 });
            at(facts, "n3").running = None;
        });
        let unfit = settled(|facts| {
            let why = "runs clusters of version 1 to 1 (0.1.0), and the cluster is at version 2";
            at(facts, "n1").unfit = Some(why.to_owned());
            at(facts, "n1").executable = FileState::Differs;
        });
        for (facts, part) in [(old_keys, "epoch 3"), (unfit, "at version 2")] {
            let plan = plan(&three_nodes(), &facts);
            let stopper = plan.stopper().expect("it stops everything");
            assert!(stopper.to_string().contains(part), "{stopper}");
            assert!(stopper.hint().contains("newest copy of the keys"), "{}", stopper.hint());
            assert_eq!(plan.steps, []);
        }
    }

    #[test]
    fn a_node_whose_key_is_revoked_is_left_alone_and_the_others_are_seen_to() {
        let facts = settled(|facts| {
            at(facts, "n2").revoked = true;
            at(facts, "n2").keys = FileState::Differs;
            at(facts, "n3").running = None;
        });
        let plan = plan(&three_nodes(), &facts);
        assert_eq!(plan.obstacles, [Obstacle::KeyRevoked("n2".to_owned())]);
        assert_eq!(plan.stopper(), None);
        assert_eq!(plan.steps, [Step::Start("n3".to_owned())]);
    }

    #[test]
    fn a_new_cluster_is_formed_before_anybody_gets_a_genesis_or_starts() {
        let install = "install executable, keys and certificates, settings";
        let mut expected = vec![
            Step::CreateKeys.to_string(),
            Step::IssueOperator.to_string(),
            Step::Form.to_string(),
        ];
        let each = |what: &str| ["n1", "n2", "n3"].map(|node| format!("{node}: {what}"));
        expected.extend(each(install));
        expected.extend(each("hand over the genesis"));
        expected.extend(each("start"));
        assert_eq!(steps(&Facts::default()), expected);
    }

    #[test]
    fn steps_follow_from_facts() {
        type Change = fn(&mut Facts);
        let table: Vec<(&str, Change, &[&str])> = vec![
            ("nothing", |_| (), &[]),
            (
                "after a reboot",
                |f| f.nodes.values_mut().for_each(|n| n.running = None),
                &["n1: start", "n2: start", "n3: start"],
            ),
            ("one stopped", |f| at(f, "n2").running = None, &["n2: start"]),
            (
                "a new executable: the leader comes last",
                |f| f.nodes.values_mut().for_each(|n| n.executable = FileState::Differs),
                &[
                    "n1: install executable",
                    "n2: install executable",
                    "n3: install executable",
                    "n2: restart with what was installed",
                    "n3: restart with what was installed",
                    "n1: restart with what was installed",
                ],
            ),
            (
                "other settings of a stopped node",
                |f| {
                    at(f, "n3").settings = FileState::Differs;
                    at(f, "n3").running = None;
                },
                &["n3: install settings", "n3: start"],
            ),
            ("operator", |f| f.operator = false, &["issue the operator's certificate"]),
            (
                "other keys of nodes that run: no restart",
                |f| {
                    f.nodes.values_mut().for_each(|n| n.keys = FileState::Differs);
                    at(f, "n1").running = None;
                    at(f, "n2").settings = FileState::Differs;
                },
                &[
                    "n1: install keys and certificates",
                    "n2: install keys and certificates, settings",
                    "n3: install keys and certificates",
                    "n1: start",
                    "n3: take up the keys that were installed",
                    "n2: restart with what was installed",
                ],
            ),
            (
                "a node that was not told of the newest bundle on its host",
                |f| at(f, "n2").behind = true,
                &["n2: take up the keys that were installed"],
            ),
            (
                "a controller that died before it handed out all",
                |f| {
                    f.state = Some(state(&three_nodes(), &["n1"]));
                    f.nodes.values_mut().for_each(|n| {
                        n.running = None;
                        n.log = false;
                    });
                    at(f, "n1").genesis_waiting = true;
                },
                &[
                    "n2: hand over the genesis",
                    "n3: hand over the genesis",
                    "n1: start",
                    "n2: start",
                    "n3: start",
                ],
            ),
        ];
        for (name, change, expected) in table {
            let facts = settled(change);
            assert_eq!(steps(&facts), expected, "{name}");
            assert_eq!(plan(&three_nodes(), &facts).obstacles, [], "{name}");
        }
    }

    #[test]
    fn a_node_that_lost_its_log_never_gets_a_genesis() {
        for waiting in [false, true] {
            let facts = settled(|f| {
                let lost = NodeFacts { genesis_waiting: waiting, ..NodeFacts::default() };
                f.nodes.insert("n2".to_owned(), lost);
                at(f, "n3").running = None;
            });
            let plan = plan(&three_nodes(), &facts);
            assert!(!plan.steps.iter().any(|step| matches!(step, Step::GiveGenesis(_))));
            if !waiting {
                assert_eq!(plan.obstacles, [Obstacle::LogLost("n2".to_owned())]);
                assert_eq!(plan.steps, [Step::Start("n3".to_owned())], "the others are seen to");
                assert!(plan.stopper().is_none());
            }
        }
    }

    #[test]
    fn what_stops_everything_leaves_no_steps() {
        type Change = fn(&mut Facts);
        let table: Vec<(Change, Obstacle, &str)> = vec![
            (
                |f| f.state = None,
                Obstacle::FormedElsewhere(vec!["n1".into(), "n2".into(), "n3".into()]),
                "destroy",
            ),
            (|f| f.keys = false, Obstacle::KeysGone, "backup"),
            (
                |f| {
                    f.nodes.values_mut().for_each(|n| n.running = None);
                    let process = Some((42, "nc".to_owned()));
                    let holder = PortHolder { address: "127.0.0.1:2".to_owned(), process };
                    at(f, "n2").held.push(holder);
                },
                Obstacle::PortHeld(
                    "n2".into(),
                    PortHolder { address: "127.0.0.1:2".into(), process: Some((42, "nc".into())) },
                ),
                "stop nc (pid 42)",
            ),
            (
                |f| f.state.as_mut().unwrap().nodes[1].address = "127.0.0.1:9".to_owned(),
                Obstacle::Changed("n2".into(), "address"),
                "put address of n2 back",
            ),
            (
                |f| f.state.as_mut().unwrap().nodes[2].learner = false,
                Obstacle::Changed("n3".into(), "learner's role"),
                "put",
            ),
        ];
        for (change, obstacle, hint) in table {
            let plan = plan(&three_nodes(), &settled(change));
            assert_eq!(plan.steps, [], "{obstacle}");
            assert_eq!(plan.stopper(), Some(&obstacle));
            assert!(obstacle.hint().contains(hint), "{}", obstacle.hint());
        }
    }

    #[test]
    fn other_quorums_need_a_reconfiguration_and_a_left_out_acceptor_does_not() {
        let sized = |vars: &str, hosts: usize| {
            let mut text =
                format!("all:\n  vars: {{paxos_cluster: c, ansible_connection: local{vars}}}\n");
            text.push_str("  hosts:\n");
            for n in 1..=hosts {
                text.push_str(&format!("    n{n}: {{paxos_id: {n}, paxos_port: {n}}}\n"));
            }
            let sources = Sources { file: "i.yaml".into(), text, ..Sources::default() };
            Inventory::from_sources(&sources, Path::new("/state")).expect("the inventory is right")
        };
        let (majority, wide) =
            (sized("", 5), sized(", paxos_quorum_phase1: 4, paxos_quorum_phase2: 2", 5));
        let facts = |formed: &Inventory| Facts {
            state: Some(state(formed, &[])),
            keys: true,
            operator: true,
            ..Facts::default()
        };
        let table = [
            (&majority, &wide, Some(((3, 3), (4, 2)))),
            (&wide, &majority, Some(((4, 2), (3, 3)))),
            (&wide, &wide, None),
            (&wide, &sized(", paxos_quorum_phase1: 4", 5), Some(((4, 2), (4, 3)))),
            // Three of five would make other majorities, which nobody asked for.
            (&majority, &sized("", 3), None),
            (&wide, &sized(", paxos_quorum_phase2: 2", 3), None),
            (&wide, &sized(", paxos_quorum_phase2: 3", 3), Some(((4, 2), (4, 3)))),
        ];
        for (formed, wanted, expected) in table {
            let plan = plan(wanted, &facts(formed));
            let expected = expected.map(|(formed, wanted)| Obstacle::Quorums { formed, wanted });
            assert_eq!(plan.stopper(), expected.as_ref(), "{:?}", wanted.sizes);
            assert_eq!(plan.steps.is_empty(), expected.is_some());
        }
    }

    #[test]
    fn members_are_neither_added_nor_taken_away() {
        let facts = settled(|f| {
            f.state.as_mut().unwrap().nodes.remove(2);
        });
        let made = plan(&three_nodes(), &facts);
        assert_eq!(made.obstacles, [Obstacle::NotAMember("n3".to_owned())]);
        let mut two = three_nodes();
        two.nodes.remove(0);
        let made = plan(&two, &settled(|_| ()));
        assert_eq!((made.steps.len(), made.obstacles.len(), made.notes.len()), (0, 0, 1));
    }
}
