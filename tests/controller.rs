//! What the controller does to a machine, short of running nodes: those are in tests/cluster.

use paxos_ssh::controller::deploy::Cluster;
use paxos_ssh::controller::groups::Sources;
use paxos_ssh::controller::inventory::Inventory;
use paxos_ssh::controller::issuer::Issuer;
use paxos_ssh::controller::local::LocalHost;
use paxos_ssh::controller::state::ClusterState;
use paxos_ssh::paxos::ballot::ClusterId;
use paxos_ssh::wire::failure::Code;
use std::fs;
use std::path::{Path, PathBuf};

/// A cluster of one node that was never deployed, with everything in `folder`.
fn cluster(folder: &Path, name: &str) -> Cluster {
    let text = format!(
        "all:\n  vars: {{paxos_cluster: {name}, ansible_connection: local}}\n  hosts:\n    \
         n1: {{paxos_id: 1, paxos_port: 1}}\n"
    );
    let sources = Sources { file: "i.yaml".into(), text, ..Sources::default() };
    Cluster {
        inventory: Inventory::from_sources(&sources, &folder.join("state")).unwrap(),
        keys_dir: folder.join("keys"),
        tool: PathBuf::from("/bin/true"),
        host: Box::new(LocalHost),
    }
}

fn everything_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn destroy_leaves_a_directory_alone_that_is_not_the_cluster_s() {
    for name in ["root", "root.pub", "bundle", "state.yaml", "people"] {
        let folder = tempfile::tempdir().unwrap();
        let cluster = cluster(folder.path(), "fakec");
        fs::create_dir_all(cluster.keys_dir.join("precious")).unwrap();
        fs::write(cluster.keys_dir.join("precious/file"), "hi").unwrap();
        fs::write(cluster.keys_dir.join(name), "mine").unwrap();
        let data = folder.path().join("state/paxos/fakec/n1");
        fs::create_dir_all(data.join("log")).unwrap();
        let failure = cluster.destroy("fakec", &mut |_| ()).unwrap_err();
        assert_eq!(failure.code, Code::BadSettings, "{name}: {}", failure.message);
        assert!(failure.hint.contains("--keys-dir"), "{}", failure.hint);
        assert_eq!(fs::read_to_string(cluster.keys_dir.join("precious/file")).unwrap(), "hi");
        assert_eq!(fs::read_to_string(cluster.keys_dir.join(name)).unwrap(), "mine");
        assert!(data.join("log").exists(), "nothing was removed");
    }
}

#[test]
fn destroy_refuses_the_keys_of_another_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path(), "one");
    drop(Issuer::open_or_init(&cluster.keys_dir, "two").unwrap());
    // Even with a state of its own beside them.
    let state = ClusterState::form(&cluster.inventory, ClusterId(1), || 1);
    state.save(&cluster.keys_dir).unwrap();
    let before = everything_in(&cluster.keys_dir);
    let failure = cluster.destroy("one", &mut |_| ()).unwrap_err();
    assert!(failure.message.contains("two"), "{}", failure.message);
    assert_eq!(everything_in(&cluster.keys_dir), before);
}

#[test]
fn destroy_removes_what_was_made_and_tells_what_it_left() {
    for forged in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let cluster = cluster(folder.path(), "c");
        let issuer = Issuer::open_or_init(&cluster.keys_dir, "c").unwrap();
        issuer.ensure_operator(std::time::SystemTime::now()).unwrap();
        issuer.write_ssh_config(&cluster.ssh_targets()).unwrap();
        drop(issuer);
        let state = ClusterState::form(&cluster.inventory, ClusterId(1), || 1);
        state.save(&cluster.keys_dir).unwrap();
        if forged {
            fs::write(cluster.keys_dir.join("bundle"), "no bundle").unwrap();
        }
        let (thesis, link) = (cluster.keys_dir.join("thesis"), cluster.keys_dir.join("nodes/link"));
        fs::create_dir(&thesis).unwrap();
        fs::write(thesis.join("chapter"), "1").unwrap();
        std::os::unix::fs::symlink(&thesis, &link).unwrap();
        let left = cluster.destroy("c", &mut |_| ()).unwrap();
        assert_eq!(left, [thesis.clone()], "forged: {forged}");
        assert_eq!(everything_in(&cluster.keys_dir), ["thesis"]);
        assert_eq!(everything_in(&thesis), ["chapter"], "a link is not followed");
        assert_eq!(cluster.destroy("c", &mut |_| ()).unwrap(), [thesis.clone()], "twice is fine");
        fs::remove_dir_all(&thesis).unwrap();
        assert!(cluster.destroy("c", &mut |_| ()).unwrap().is_empty());
        assert!(!cluster.keys_dir.exists());
    }
}
