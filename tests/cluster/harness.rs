//! A cluster of real processes in a directory of its own, founded by the controller's own program
//! and reached by the stock `ssh`.
//!
//! Nothing outlives a [`Cluster`]: when it is dropped, also by a panic, every process whose
//! executable lies in its directory is killed by its pid, and the directory is removed. Nothing of
//! the user's is touched: keys, state and ssh settings all lie in that directory, and no variable
//! of the environment that names others reaches the programs.
//!
//! Waiting is always for something that can be seen, with a deadline; [`until`] is the one place
//! where anything sleeps.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The nodes of the cluster that [`Cluster::found`] makes, each with all roles.
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// The name of every cluster here.
pub const CLUSTER: &str = "probe";

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Longer than anything that works takes here, on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Ports are taken from here up to the range out of which the kernel gives ports to outgoing
/// connections: one of those could take a node's port while the node is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The pause between two looks.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks, until a deadline")]
pub fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

/// Looks until there is an answer, or panics after [`PATIENCE`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        pause();
    }
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl Ran {
    /// Its exit status; -1 if a signal ended it.
    pub fn exit(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Both outputs as text.
    pub fn said(&self) -> String {
        format!("{}{}", self.out(), String::from_utf8_lossy(&self.stderr))
    }

    /// Panics unless it ended with this status.
    #[track_caller]
    pub fn expect(self, exit: i32) -> Ran {
        assert_eq!(self.exit(), exit, "{}", self.said());
        self
    }

    /// Standard output as JSON: all of it, or, of a run that tells of its steps, the last line.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        if let Ok(value) = serde_json::from_slice(&self.stdout) {
            return value;
        }
        let mut events = self.events();
        let answer = events.pop().unwrap_or_else(|| panic!("nothing came: {}", self.said()));
        let strangers = events.iter().filter(|event| !event["event"].is_string());
        assert_eq!(strangers.count(), 0, "these are no events: {}", self.said());
        answer
    }

    /// Standard output as JSON, an object a line.
    #[track_caller]
    pub fn events(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("this is no JSON ({error}): {}", self.said()),
        };
        self.out().lines().map(parse).collect()
    }
}

/// Runs a program to its end with this standard input; kills it after [`PATIENCE`].
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Ran {
    let begun = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => Guarded(child),
        Err(error) => panic!("{command:?} does not start: {error}"),
    };
    let mut stdin = child.0.stdin.take().expect("it was piped");
    let mut stdout = child.0.stdout.take().expect("it was piped");
    let mut stderr = child.0.stderr.take().expect("it was piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let reads = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes).expect("a pipe can be read")
    });
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes).expect("a pipe can be read")
    });
    let status = until(&format!("{command:?} ends"), || {
        child.0.try_wait().expect("a child can be waited for")
    });
    let took = begun.elapsed();
    // A program that ends before it read everything is no failure of the pipe.
    let _broken_pipe = writer.join().expect("writing does not panic");
    let stdout = reads.join().expect("reading does not panic");
    let stderr = errors.join().expect("reading does not panic");
    Ran { status, stdout, stderr, took }
}

/// A child that does not outlive its owner.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

/// All roles on one node.
pub const ALL_ROLES: &str = "proposer acceptor learner";

/// How many acceptors must agree.
#[derive(Debug, Clone, Copy)]
pub enum Quorums {
    Majority,
    Sizes { phase1: usize, phase2: usize },
}

/// Nodes on this machine.
pub struct Cluster {
    root: tempfile::TempDir,
    /// In the order of their ids, which count from 1.
    pub nodes: Vec<&'static str>,
    /// Nodes that were started by [`Cluster::start`].
    started: Mutex<BTreeMap<&'static str, Guarded>>,
    /// Whether the directory stays behind when a test fails.
    keep: bool,
}

impl Cluster {
    /// Founds a cluster of three nodes with all roles and waits until all of it is healthy.
    pub fn found() -> Cluster {
        Cluster::found_with(&NODES.map(|node| (node, ALL_ROLES)), Quorums::Majority)
    }

    /// Founds a cluster of these nodes, each with its roles in words (none for a client), and waits
    /// until all of it is healthy.
    pub fn found_with(nodes: &[(&'static str, &str)], quorums: Quorums) -> Cluster {
        let cluster = Cluster::planned(nodes.iter().map(|(name, _)| *name).collect());
        let ports: Vec<u16> = nodes.iter().map(|_| free_port()).collect();
        cluster.found_by(&inventory(nodes, &ports, quorums));
        cluster
    }

    /// A directory for a cluster of these nodes, of which there is nothing else yet.
    pub fn planned(nodes: Vec<&'static str>) -> Cluster {
        let root = tempfile::Builder::new().prefix("paxos-").tempdir().expect("a directory");
        Cluster { root, nodes, started: Mutex::default(), keep: false }
    }

    /// Founds a planned cluster as this inventory says, whose cluster must have the name that all
    /// have here, and waits until all of it is healthy.
    #[track_caller]
    pub fn found_by(&self, inventory: &str) {
        fs::write(self.path("inventory.yaml"), inventory).expect("the directory is writable");
        self.deploy().expect(0);
        let config = self.ctl(&["ssh-config"]).expect(0);
        fs::write(self.ssh_config(), &config.stdout).expect("the directory is writable");
        self.wait_healthy();
    }

    /// From now on the directory stays behind if the test fails, and the test says where.
    pub fn keep_when_it_fails(&mut self) {
        self.keep = true;
    }

    /// A file or directory beside the cluster's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The file that `ssh -F` takes.
    pub fn ssh_config(&self) -> PathBuf {
        self.path("ssh_config")
    }

    /// A node's data directory.
    pub fn directory(&self, node: &str) -> PathBuf {
        self.directories().join(node)
    }

    /// Holds the nodes' data directories.
    pub fn directories(&self) -> PathBuf {
        self.path("state").join("paxos").join(CLUSTER)
    }

    /// `paxos-ctl WORD INVENTORY --keys-dir … REST`.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> Ran {
        run(&mut self.ctl_command(words), b"")
    }

    /// The same, not yet started.
    pub fn ctl_command(&self, words: &[&str]) -> Command {
        let mut command = clean(Command::new(env!("CARGO_BIN_EXE_paxos-ctl")));
        command.env("XDG_STATE_HOME", self.path("state"));
        command.arg(words[0]).arg(self.path("inventory.yaml"));
        command.arg("--keys-dir").arg(self.path("keys")).args(&words[1..]);
        command
    }

    /// `paxos-ctl keys WORDS…`.
    #[track_caller]
    pub fn keys(&self, words: &[&str]) -> Ran {
        let mut command = clean(Command::new(env!("CARGO_BIN_EXE_paxos-ctl")));
        command.env("XDG_STATE_HOME", self.path("state"));
        command.env("PAXOS_INVENTORY", self.path("inventory.yaml"));
        command.arg("--keys-dir").arg(self.path("keys")).arg("keys").args(words);
        run(&mut command, b"")
    }

    /// Makes the cluster what its inventory says; starts what is stopped.
    #[track_caller]
    pub fn deploy(&self) -> Ran {
        self.ctl(&["deploy", "--yes"])
    }

    /// `ssh -F … -o BatchMode=yes`, still without a host.
    pub fn ssh_with(&self, config: &Path) -> Command {
        let mut command = clean(Command::new("ssh"));
        command.arg("-F").arg(config).args(["-o", "BatchMode=yes"]);
        command
    }

    /// `ssh -F … -o BatchMode=yes NODE WORDS…` with this standard input.
    #[track_caller]
    pub fn ssh_input(&self, node: &str, words: &str, input: &[u8]) -> Ran {
        run(self.ssh_with(&self.ssh_config()).arg(node).args(words.split(' ')), input)
    }

    /// `ssh -F … -o BatchMode=yes NODE WORDS…`.
    #[track_caller]
    pub fn ssh(&self, node: &str, words: &str) -> Ran {
        self.ssh_input(node, words, b"")
    }

    /// What the node says of itself and others; none while it does not answer.
    pub fn status(&self, node: &str) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.ssh(node, "paxos status -o json").stdout).ok()
    }

    /// The leader's name, as soon as it says itself that it leads.
    #[track_caller]
    pub fn leader(&self) -> &'static str {
        until("somebody leads", || {
            self.nodes
                .iter()
                .copied()
                .filter(|node| self.pid(node).is_some())
                .find(|node| self.status(node).is_some_and(|status| status["state"] == "leader"))
        })
    }

    /// Waits until every node says that it is healthy.
    #[track_caller]
    pub fn wait_healthy(&self) {
        for node in &self.nodes {
            until(&format!("{node} is healthy"), || {
                self.status(node).filter(|status| status["health"] == "healthy")
            });
        }
    }

    /// The node's process, if it runs: the noted one, if it runs our copy of the program.
    pub fn pid(&self, node: &str) -> Option<u32> {
        self.noted_pid(node).filter(|pid| self.is_ours(*pid))
    }

    fn noted_pid(&self, node: &str) -> Option<u32> {
        let text = fs::read_to_string(self.directory(node).join("paxos.pid")).ok()?;
        text.trim().parse().ok()
    }

    /// Whether the process runs an executable in our directory.
    fn is_ours(&self, pid: u32) -> bool {
        let root = fs::canonicalize(self.root.path()).unwrap_or_else(|_| self.path(""));
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        program.is_ok_and(|program| program.starts_with(root))
    }

    /// Sends the node's process a signal. Panics if it does not run.
    #[track_caller]
    pub fn signal(&self, node: &str, signal: Signal) {
        let pid = self.pid(node).unwrap_or_else(|| panic!("{node} does not run"));
        send(pid, signal);
    }

    /// `kill -9`, and waits until it is gone.
    #[track_caller]
    pub fn kill(&self, node: &str) {
        self.signal(node, Signal::KILL);
        self.wait_gone(node);
    }

    /// Waits until the node's process is gone, and with it its locks and ports: the kernel takes
    /// away the name of its executable a little earlier.
    #[track_caller]
    pub fn wait_gone(&self, node: &str) {
        until(&format!("{node} is gone"), || {
            let noted = self.noted_pid(node);
            (self.pid(node).is_none() && !noted.is_some_and(is_ending)).then_some(())
        });
    }

    /// Starts a node that was deployed before, as the controller does but without asking anybody,
    /// and does not wait for it.
    #[track_caller]
    pub fn start(&self, node: &'static str) {
        assert_eq!(self.pid(node), None, "{node} runs already");
        let directory = self.directory(node);
        let log = fs::OpenOptions::new().append(true).open(directory.join("paxos.log"));
        let mut command = clean(Command::new(directory.join("paxos")));
        command.arg("node").arg("--config").arg(directory.join("config.yaml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("it has a log"));
        let child = Guarded(command.spawn().expect("it was started from here before"));
        let pid = child.0.id().to_string();
        fs::write(directory.join("paxos.pid"), pid).expect("the directory is writable");
        // The child before it, if there was one, is gone and is waited for here.
        self.started.lock().expect("nothing panics under it").insert(node, child);
    }
}

impl Cluster {
    /// Kills whatever of it runs, and waits until it is gone and holds no files.
    pub fn end(&self) {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours: Vec<u32> = pids.filter(|pid| self.is_ours(*pid)).collect();
        for pid in &ours {
            send(*pid, Signal::KILL);
        }
        let deadline = Instant::now() + PATIENCE;
        let is_there = |pid: &u32| self.is_ours(*pid) || is_ending(*pid);
        while ours.iter().any(is_there) && Instant::now() < deadline {
            pause();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = fs::read_to_string(self.directory(node).join("paxos.log"));
                let log = log.unwrap_or_default();
                let skipped = log.lines().count().saturating_sub(40);
                let last: Vec<&str> = log.lines().skip(skipped).collect();
                eprintln!("--- the last of {node}'s log\n{}", last.join("\n"));
            }
        }
        self.end();
        if self.keep && std::thread::panicking() {
            self.root.disable_cleanup(true);
            eprintln!("--- everything is kept in {}", self.root.path().display());
        }
    }
}

/// As people write it; one line for each host, in groups by role.
pub fn inventory(nodes: &[(&str, &str)], ports: &[u16], quorums: Quorums) -> String {
    let mut text = format!(
        "all:\n  vars:\n    paxos_cluster: {CLUSTER}\n    ansible_connection: local\n    \
         paxos_address: 127.0.0.1\n"
    );
    if let Quorums::Sizes { phase1, phase2 } = quorums {
        let _infallible =
            write!(text, "    paxos_quorum_phase1: {phase1}\n    paxos_quorum_phase2: {phase2}\n");
    }
    text.push_str("  hosts:\n");
    for (at, ((name, _), port)) in nodes.iter().zip(ports).enumerate() {
        let id = at + 1;
        let _infallible = writeln!(text, "    {name}: {{paxos_id: {id}, paxos_port: {port}}}");
    }
    if nodes.iter().all(|(_, roles)| *roles == ALL_ROLES) {
        return text;
    }
    text.push_str("  children:\n");
    for group in ["proposer", "acceptor", "learner", "client"] {
        let is_in = |roles: &str| {
            let roles = if roles.is_empty() { "client" } else { roles };
            roles.split(' ').any(|role| role == group)
        };
        let hosts: Vec<&str> =
            nodes.iter().filter(|(_, roles)| is_in(roles)).map(|(name, _)| *name).collect();
        if !hosts.is_empty() {
            let hosts = hosts.join(":\n        ");
            let _infallible = write!(text, "    paxos_{group}s:\n      hosts:\n        {hosts}:\n");
        }
    }
    text
}

/// Whether a process without an executable still holds files: it is neither gone nor wholly a
/// zombie. Its first thread is one early; another may wait for the disk still.
fn is_ending(pid: u32) -> bool {
    let has_executable = fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold blanks; the state is the first field behind it.
    let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.trim_start().chars().next());
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let is_zombie = state.is_none_or(|state| ['Z', 'X'].contains(&state)) && threads <= 1;
    !has_executable && !is_zombie
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is a small number");
    // Gone already is as good.
    let _gone = kill_process(pid, signal);
}

/// Without what would make our programs or ssh look at somebody's own settings.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PAXOS_") || text.starts_with("SSH_") {
            command.env_remove(&name);
        }
    }
    command
}

/// A port that nobody listens on. Processes that look at the same time begin at different places.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    let first = (std::process::id() % u32::from(span)) as u16;
    until("a port is free", || {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7) % span;
        let port = PORTS.start + (first + offset) % span;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    })
}
