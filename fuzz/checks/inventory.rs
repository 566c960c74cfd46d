//! Inventories, with the files beside them.
//!
//! No text makes the reader panic. What it refuses it explains, line by line. What it takes is a
//! cluster: its parts fit each other, a genesis and settings can be made of it, and the nodes' own
//! readers take these for what was meant.

use super::scratch;
use paxos_ssh::controller::inventory::groups::Sources;
use paxos_ssh::controller::inventory::problem::InventoryError;
use paxos_ssh::controller::inventory::settings::settings_text;
use paxos_ssh::controller::inventory::{Inventory, NodeSpec};
use paxos_ssh::controller::state::ClusterState;
use paxos_ssh::node::settings::Settings;
use paxos_ssh::paxos::ballot::ClusterId;
use paxos_ssh::wire::genesis::decode_genesis;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A line that begins so begins the text of another file, which it names: `group_vars/all` or
/// `host_vars/node1`.
const FILE_MARK: &str = "#file ";

/// A cluster of more nodes is judged by its first ones.
const NODES_JUDGED_MAX: usize = 3;

/// Input: the inventory's text, then those of other files, each behind a line `#file NAME`.
///
/// # Panics
/// When something does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let sources = sources(text);
    let read = || Inventory::from_sources(&sources, Path::new("/state"));
    match read() {
        Ok(inventory) => {
            assert_eq!(read().ok().as_ref(), Some(&inventory), "read twice, it differs");
            check_parts(&inventory);
            check_products(&inventory);
        }
        Err(error) => check_problems(&sources, &error),
    }
}

fn sources(text: &str) -> Sources {
    let mut sources = Sources { file: "inventory.yaml".into(), ..Sources::default() };
    // Name and text, the inventory's own first.
    let mut files = vec![(String::new(), String::new())];
    for line in text.split_inclusive('\n') {
        match line.strip_prefix(FILE_MARK) {
            Some(name) => files.push((name.trim_end().to_owned(), String::new())),
            None => files.last_mut().expect("there is the first").1.push_str(line),
        }
    }
    let mut files = files.into_iter();
    sources.text = files.next().expect("there is the first").1;
    for (name, text) in files {
        let path = PathBuf::from(&name);
        match name.split_once('/') {
            Some(("group_vars", of)) => sources.group_files.push((of.to_owned(), path, text)),
            Some(("host_vars", of)) => sources.host_files.push((of.to_owned(), path, text)),
            _ => {}
        }
    }
    sources
}

fn check_problems(sources: &Sources, error: &InventoryError) {
    assert!(!error.problems.is_empty(), "refused without a reason");
    let beside = sources.group_files.iter().chain(&sources.host_files);
    let lines = |of: &Path| {
        let texts = beside.clone().filter(|(_, file, _)| file == of).map(|(_, _, text)| text);
        let own = (sources.file == of).then_some(&sources.text);
        // YAML breaks lines at either.
        texts.chain(own).map(|text| text.split(['\n', '\r']).count() as u64).max()
    };
    for problem in &error.problems {
        let last = lines(&problem.file).expect("a problem is in one of the files");
        assert!(problem.line <= last, "{problem}: there are only {last} lines");
        assert!(problem.to_string().starts_with(&problem.file.display().to_string()));
    }
}

fn all_differ<T: Ord>(parts: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    parts.into_iter().all(|part| seen.insert(part))
}

fn check_parts(inventory: &Inventory) {
    let nodes = &inventory.nodes;
    assert!(all_differ(nodes.iter().map(|node| node.id)), "an id twice");
    assert!(all_differ(nodes.iter().map(|node| &node.name)), "a name twice");
    assert!(all_differ(nodes.iter().map(NodeSpec::address)), "an address twice");
    assert!(all_differ(nodes.iter().filter_map(|node| node.proposer)), "a proposer twice");
    assert!(nodes.iter().any(|node| node.proposer.is_some()), "nobody proposes");
    assert!(nodes.iter().any(|node| node.learner), "nobody keeps a store");
    assert!(nodes.iter().all(|node| node.id.0 > 0 && node.port > 0 && !node.listen.is_empty()));
    assert!(nodes.iter().all(|node| node.data_dir.is_absolute()));
    let acceptors = nodes.iter().filter(|node| node.acceptor).count();
    let quorums = inventory.quorums;
    assert_eq!(quorums.acceptors(), acceptors);
    assert!(quorums.phase1() + quorums.phase2() > acceptors, "quorums may miss each other");
}

/// What a deployment writes of it.
fn check_products(inventory: &Inventory) {
    let mut last = 0;
    let state = ClusterState::form(inventory, ClusterId(7), || {
        last += 1;
        last
    });
    let genesis = state.genesis().expect("an inventory that was taken makes a genesis");
    for node in inventory.nodes.iter().take(NODES_JUDGED_MAX) {
        let text = state.genesis_file(&node.name).expect("each node gets a genesis");
        let file = decode_genesis(&text).expect("a genesis that was written is read");
        assert_eq!(file.genesis, genesis, "the genesis changed on its way:\n{text}");
        let text = settings_text(inventory, Some(&state), node).expect("each node gets settings");
        check_settings(inventory, node, &text);
    }
}

fn check_settings(inventory: &Inventory, node: &NodeSpec, text: &str) {
    const NAME: &str = "config.yaml";
    let settings = scratch::with_file(NAME, text.as_bytes(), |directory| {
        Settings::load(&directory.join(NAME))
    });
    let settings = settings.unwrap_or_else(|error| panic!("{error}:\n{text}"));
    assert_eq!(settings.cluster, inventory.cluster, "{text}");
    assert_eq!((&settings.node, settings.id), (&node.name, node.id.0), "{text}");
    assert_eq!((&settings.listen, &settings.data_dir), (&node.listen, &node.data_dir), "{text}");
    let peers: Vec<_> =
        settings.peers.iter().map(|p| (p.name.clone(), p.id, p.address.clone())).collect();
    let others = inventory.nodes.iter().filter(|other| other.id != node.id);
    let wanted: Vec<_> = others.map(|o| (o.name.clone(), o.id.0, o.address())).collect();
    assert_eq!(peers, wanted, "{text}");
}
