//! What a node tells the supervisor that started it: that it is ready once it listens, with nobody
//! to agree with; and that it ends.

use paxos_ssh::controller::host::local::LocalHost;
use paxos_ssh::controller::host::{Host, Place};
use paxos_ssh::controller::inventory::Inventory;
use paxos_ssh::controller::inventory::groups::Sources;
use paxos_ssh::controller::inventory::settings::settings_text;
use paxos_ssh::controller::keys::issuer::Issuer;
use paxos_ssh::controller::keys::signers::nobody;
use paxos_ssh::controller::state::ClusterState;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

/// Nothing here takes a second.
const PATIENCE: Duration = Duration::from_secs(30);

fn paxos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos"));
    command.stdin(Stdio::null());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

/// The first of three nodes with keys, settings and a genesis. The others do not run; it listens
/// where there is room. Gives its directory.
fn first_of_three(folder: &Path) -> PathBuf {
    let inventory = "all:\n  vars: {paxos_cluster: c, ansible_connection: local}\n  hosts:\n    \
                     n1: {paxos_id: 1, paxos_port: 1}\n    n2: {paxos_id: 2, paxos_port: 2}\n    \
                     n3: {paxos_id: 3, paxos_port: 3}\n";
    let sources =
        Sources { file: "i.yaml".into(), text: inventory.to_owned(), ..Sources::default() };
    let inventory = Inventory::from_sources(&sources, folder).unwrap();
    let issuer = Issuer::open_or_init(&folder.join("keys"), "c", nobody).unwrap();
    let node = &inventory.nodes[0];
    let place = Place::of(node);
    let line = LocalHost::default().ensure_node_key(&place, "n1").unwrap();
    issuer.ensure_node("n1", node.id, &line, SystemTime::now()).unwrap();
    for file in issuer.keys().node_files("n1", &[]).unwrap() {
        let name = format!("keys/{}", file.name);
        LocalHost::default().receive(&place, &name, file.mode, file.text.as_bytes()).unwrap();
    }
    let state = ClusterState::form(&inventory, issuer.keys().cluster_id(), || 7);
    let genesis = state.genesis_file("n1").unwrap();
    LocalHost::default().receive(&place, "genesis.yaml", 0o600, genesis.as_bytes()).unwrap();
    let settings = settings_text(&inventory, Some(&state), node).unwrap();
    let anywhere = settings.replace("127.0.0.1:1\n", "127.0.0.1:0\n");
    assert_ne!(settings, anywhere, "no address of its own:\n{settings}");
    LocalHost::default().receive(&place, "config.yaml", 0o600, anywhere.as_bytes()).unwrap();
    place.directory
}

/// The next datagram that says something else than what it is about.
fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).expect("it did not say so");
        let said = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if !said.starts_with("STATUS=") {
            return said;
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("it runs");
}

#[test]
fn a_node_is_ready_when_it_listens_and_says_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let directory = first_of_three(folder.path());
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = paxos();
    command.arg("become-service").arg(&directory).arg(directory.join("config.yaml"));
    command.env("NOTIFY_SOCKET", &path).stderr(Stdio::null());
    let mut node = Running(command.spawn().unwrap());

    let ready = next(&socket);
    assert!(ready.starts_with("READY=1\nSTATUS=n1 "), "{ready}");
    assert!(ready.contains("listens on [127.0.0.1:"), "{ready}");
    let noted = std::fs::read_to_string(directory.join("paxos.pid")).unwrap();
    assert_eq!(noted.trim(), node.0.id().to_string(), "it became the node");
    let mut status = paxos();
    status.arg("--socket").arg(directory.join("paxos.sock")).args(["status", "-o", "json"]);
    let status = status.output().unwrap();
    assert_eq!(status.status.code(), Some(69), "one of three has no quorum: {status:?}");

    signal(&node.0, Signal::TERM);
    assert!(next(&socket).starts_with("STOPPING=1\n"));
    assert_eq!(node.0.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(directory.join("paxos.log")).unwrap();
    assert!(log.contains("ready") && log.contains("stopped"), "{log}");
}

#[test]
fn a_service_without_a_directory_says_so() {
    let mut command = paxos();
    let output = command.args(["become-service", "/nowhere", "/nowhere.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot open /nowhere/paxos.log"), "{said}");
}
