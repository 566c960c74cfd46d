//! A cluster whose nodes know each other only by addresses of the network in between, and whose
//! disks can be filled.
//!
//! Nothing of it outlives the [`Rig`], also when a test fails; then the nodes' directories stay.

use super::disks::Disks;
use super::harness::{CLUSTER, Cluster, free_port};
use super::proxy::{Network, Ports};
use std::fmt::Write;

/// Each has all roles; two may be away.
pub const NODES: [&str; 5] = ["node1", "node2", "node3", "node4", "node5"];

/// The whole stage.
pub struct Rig {
    pub cluster: Cluster,
    pub network: Network,
    /// Or why there are none.
    pub disks: Result<Disks, String>,
}

impl Rig {
    /// Founds it, and waits until all of it is healthy. Disks are made for who fills them; who does
    /// not says why.
    pub fn found(fills_disks: Result<(), String>) -> Rig {
        let mut cluster = Cluster::planned(NODES.to_vec());
        cluster.keep_when_it_fails();
        let ports = NODES.map(|_| Ports { known: free_port(), own: free_port() });
        // As the kernel tells it, for executables are found by it.
        let root = std::fs::canonicalize(cluster.path("")).expect("it was made");
        let directories = cluster.directories();
        let below = directories.strip_prefix(cluster.path("")).expect("it lies in it");
        let network = Network::start(root.join(below), &NODES, &ports);
        let disks = fills_disks.and_then(|()| Disks::mount(&cluster));
        let rig = Rig { cluster, network, disks };
        rig.cluster.found_by(&inventory(&ports));
        rig
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Nobody may use a disk that is taken away, and the cluster's directory goes last.
        self.cluster.end();
        if let Ok(disks) = &self.disks
            && std::thread::panicking()
        {
            disks.keep();
        }
        self.disks = Err("it is over".to_owned());
    }
}

fn inventory(ports: &[Ports]) -> String {
    let mut text = format!(
        "all:\n  vars:\n    paxos_cluster: {CLUSTER}\n    ansible_connection: local\n    \
         paxos_address: 127.0.0.1\n  hosts:\n"
    );
    for (at, (node, Ports { known, own })) in NODES.iter().zip(ports).enumerate() {
        let id = at + 1;
        let _infallible = writeln!(
            text,
            "    {node}: {{paxos_id: {id}, paxos_port: {known}, paxos_listen: \"127.0.0.1:{own}\"}}"
        );
    }
    text
}
