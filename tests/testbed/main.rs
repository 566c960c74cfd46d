//! A cluster's life on seven hosts over their own sshd, as `scripts/testbed` runs it: the shorter
//! half of it here, with the clients that write and read meanwhile, and the check of what they were
//! told. And a node's life as a unit of a real systemd, on three hosts which that runs.
//!
//! It makes namespaces and mounts, so it needs root and a kernel that lets it; elsewhere it says
//! that it was not run. The script runs the two tests that are ignored here:
//!
//! | variable | |
//! |---|---|
//! | `PAXOS_TEST_RECORD` | the file that clients write, and that is checked |
//! | `PAXOS_TEST_SSH_CONFIG` | how clients reach the nodes |
//! | `PAXOS_TEST_ENOUGH` | clients end when this file is there |

mod clients;
#[path = "../roles/linearizable.rs"]
mod linearizable;
mod record;
mod ways;

use clients::Clients;
use paxos_ssh::client::ssh_config::SshConfig;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Where systemd lies, whatever else does.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// One life at a time: each wants the machine to itself.
static MACHINE: Mutex<()> = Mutex::new(());

/// What keeps the test bed from being made here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this is not root".to_owned());
    }
    let on_path = |tool: &str| {
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(tool).exists())
    };
    for tool in ["ip", "sshd", "sudo", "useradd", "ssh", "unshare"] {
        if !on_path(tool) {
            return Some(format!("{tool} is not installed"));
        }
    }
    let script = "mount -t tmpfs probe /mnt && mkdir /mnt/upper /mnt/work /mnt/root && \
                  mount -t overlay probe /mnt/root \
                  -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work && \
                  ip link add probe type bridge";
    let namespaces = ["--mount", "--net", "--pid", "--fork"];
    (!kernel_does(&namespaces, script))
        .then(|| "the kernel makes no namespaces, overlays and bridges here".to_owned())
}

/// What keeps hosts from being run by a systemd here, where the test bed can be made.
fn systemd_missing() -> Option<String> {
    if !Path::new(SYSTEMD).exists() {
        return Some("systemd is not installed".to_owned());
    }
    let script = "mount -t cgroup2 probe /mnt && mkdir /mnt/paxos-probe && \
                  rmdir /mnt/paxos-probe && \
                  setpriv --bounding-set=-sys_time mount -t proc probe /mnt";
    let namespaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork"];
    (!kernel_does(&namespaces, script))
        .then(|| "the kernel makes no control groups (version 2) here".to_owned())
}

fn kernel_does(namespaces: &[&str], script: &str) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(namespaces).args(["sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Runs `scripts/testbed`, and gives its standard output; panics unless all held.
fn testbed(words: &[&str]) -> String {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/testbed");
    let mut command = Command::new(script);
    command.args(words).env("PAXOS_CTL", env!("CARGO_BIN_EXE_paxos-ctl")).stdin(Stdio::null());
    command.env("PAXOS_CLIENTS", std::env::current_exe().expect("this program has a path"));
    let output = command.output().expect("there is a bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n--- standard error\n{stderr}");
    stdout
}

#[test]
fn a_cluster_lives_on_hosts_over_their_own_sshd() {
    if let Some(why) = missing() {
        println!("NOT RUN: {why}");
        return;
    }
    let stdout = testbed(&["slice"]);
    assert!(stdout.contains("first deploy of 7 hosts: "), "it printed no figures:\n{stdout}");
}

#[test]
fn a_node_is_a_unit_of_a_systemd_that_runs() {
    if let Some(why) = missing().or_else(systemd_missing) {
        println!("NOT RUN: {why}");
        return;
    }
    let stdout = testbed(&["systemd", "slice"]);
    assert!(stdout.contains("from a crash until it listens: "), "it printed no figures:\n{stdout}");
}

fn path(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set")).into()
}

#[test]
#[ignore = "scripts/testbed runs it beside a cluster"]
fn clients_note_what_they_are_told() {
    let config = path("PAXOS_TEST_SSH_CONFIG");
    let hosts = SshConfig::load(&config).expect("paxos-ctl wrote it").hosts;
    let nodes = hosts.into_iter().map(|host| host.name).collect();
    Clients::new(nodes, config, path("PAXOS_TEST_ENOUGH"), &path("PAXOS_TEST_RECORD")).run();
}

/// Panics unless one store that does one thing at a time explains all that was told, and every
/// write was acknowledged; and unless a lie that is planted then is found.
#[test]
#[ignore = "scripts/testbed runs it on what clients noted"]
fn what_clients_noted_is_true() {
    let text = std::fs::read_to_string(path("PAXOS_TEST_RECORD")).expect("there is a record");
    let lines = record::parse(&text);
    for line in lines.iter().filter(|line| line.ended.is_none()) {
        println!("never answered: {line:?}");
    }
    let summary = record::summary(&lines);
    let mut events = record::events(&lines);
    let unexplained = linearizable::unexplained(&events);
    for line in lines.iter().filter(|line| unexplained.contains(&line.key.as_str())) {
        println!("{}", serde_json::to_string(line).expect("it is plain data"));
    }
    assert!(unexplained.is_empty(), "nothing explains what was told of {unexplained:?}");
    assert_eq!(summary.failed, 0, "writes were not acknowledged");
    assert!(summary.acknowledged > 0 && summary.reads > 0, "nobody was told anything");
    let keys = linearizable::by_key(&events).len();
    let lie = linearizable::plant_stale_read(&mut events).expect("values were read twice");
    assert_eq!(linearizable::unexplained(&events), [lie], "a stale read that was planted");
    println!(
        "clients: {} writes acknowledged ({} of them asked again), {} failed; {} reads; {keys} \
         keys, all linearizable; longest pause {:.2} s ({})",
        summary.acknowledged,
        summary.again,
        summary.failed,
        summary.reads,
        summary.pause.0,
        summary.pause.1
    );
}
