//! The settings file of a node, as the inventory would have it.

use super::host::{Place, names};
use super::inventory::{Inventory, NodeSpec};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
struct PeerText<'a> {
    name: &'a str,
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
    peers: Vec<PeerText<'a>>,
}

/// The text of `config.yaml`.
///
/// # Errors
/// When a path is no text, in the words of the serialiser.
pub fn settings_text(inventory: &Inventory, node: &NodeSpec) -> Result<String, String> {
    let peers = inventory.nodes.iter().filter(|peer| peer.id != node.id);
    let text = SettingsText {
        cluster: &inventory.cluster,
        node: &node.name,
        id: node.id.0,
        listen: &node.listen,
        data_dir: node.data_dir.clone(),
        keys_dir: Place::of(node).path(names::KEYS),
        peers: peers
            .map(|peer| PeerText { name: &peer.name, id: peer.id.0, address: peer.address() })
            .collect(),
    };
    let text = serde_saphyr::to_string(&text).map_err(|error| error.to_string())?;
    Ok(format!("# Written by paxos-ctl from the inventory; deploy writes it anew.\n{text}"))
}
