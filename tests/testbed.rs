//! The shorter half of a cluster's life on seven hosts over their own sshd, as
//! `scripts/testbed slice` runs it.
//!
//! It makes namespaces and mounts, so it needs root and a kernel that lets it; elsewhere it says
//! that it was not run.

use std::path::Path;
use std::process::{Command, Stdio};

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
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--net", "--pid", "--fork", "sh", "-c", script]);
    match probe.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => None,
        _ => Some("the kernel makes no namespaces, overlays and bridges here".to_owned()),
    }
}

#[test]
fn a_cluster_lives_on_hosts_over_their_own_sshd() {
    if let Some(why) = missing() {
        println!("NOT RUN: {why}");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/testbed");
    let mut command = Command::new(script);
    command.arg("slice").env("PAXOS_CTL", env!("CARGO_BIN_EXE_paxos-ctl")).stdin(Stdio::null());
    let output = command.output().expect("there is a bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n--- standard error\n{stderr}");
    assert!(stdout.contains("first deploy of 7 hosts: "), "it printed no figures:\n{stdout}");
}
