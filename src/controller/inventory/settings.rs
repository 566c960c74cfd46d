//! The settings file of a node, as the inventory would have it.

use super::{Inventory, NodeSpec};
use crate::controller::host::{Place, names};
use crate::controller::state::{ClusterState, Founder};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
struct PeerText {
    name: String,
    id: u64,
    address: String,
}

#[derive(Serialize)]
struct SettingsText<'a> {
    cluster: &'a str,
    node: &'a str,
    id: u64,
    listen: &'a [String],
    data_dir: PathBuf,
    keys_dir: PathBuf,
    peers: Vec<PeerText>,
}

/// The text of `config.yaml`. The peers of a cluster that is formed are those that it was formed
/// with: what an inventory adds or leaves out later changes nobody's settings.
///
/// # Errors
/// When a path is no text, in the words of the serialiser.
pub fn settings_text(
    inventory: &Inventory,
    state: Option<&ClusterState>,
    node: &NodeSpec,
) -> Result<String, String> {
    let wanted = |peer: &NodeSpec| PeerText {
        name: peer.name.clone(),
        id: peer.id.0,
        address: peer.address(),
    };
    let formed = |peer: &Founder| PeerText {
        name: peer.name.clone(),
        id: peer.id,
        address: peer.address.clone(),
    };
    let mut peers: Vec<PeerText> = match state {
        Some(state) => state.nodes.iter().map(formed).collect(),
        None => inventory.nodes.iter().map(wanted).collect(),
    };
    peers.retain(|peer| peer.id != node.id.0);
    let text = SettingsText {
        cluster: &inventory.cluster,
        node: &node.name,
        id: node.id.0,
        listen: &node.listen,
        data_dir: node.data_dir.clone(),
        keys_dir: Place::of(node).path(names::KEYS),
        peers,
    };
    let text = serde_saphyr::to_string(&text).map_err(|error| error.to_string())?;
    Ok(format!("# Written by paxos-ctl from the inventory; deploy writes it anew.\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;
    use crate::paxos::ballot::ClusterId;

    #[test]
    fn peers_are_those_that_the_cluster_was_formed_with() {
        let all = three_nodes();
        let text = |inventory: &Inventory, state| {
            settings_text(inventory, state, &inventory.nodes[0]).unwrap()
        };
        let before = text(&all, None);
        assert!(before.contains("n2") && before.contains("127.0.0.1:3"), "{before}");
        let state = ClusterState::form(&all, ClusterId(7), || 9);
        assert_eq!(text(&all, Some(&state)), before, "forming changes nothing");
        let mut fewer = all.clone();
        fewer.nodes.pop();
        assert_eq!(text(&fewer, Some(&state)), before);
        assert_ne!(text(&fewer, None), before);
        let mut more = all;
        more.nodes.push(NodeSpec {
            name: "n4".into(),
            id: crate::paxos::ballot::NodeId(4),
            ..more.nodes[2].clone()
        });
        assert_eq!(text(&more, Some(&state)), before);
    }
}
