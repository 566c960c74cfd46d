//! The program `paxos` itself, as a process, against a node in miniature behind a local socket:
//! arguments, streams, exit statuses, broken pipes, signals. What nodes answer is tested in
//! tests/api.rs.

mod backend;
mod program;

use backend::{Fake, Mood};
use paxos_ssh::api::local::{self, LocalSocket};
use paxos_ssh::telemetry::watchdog::Watchdog;
use program::{code, feed, paxos, text};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// No step here takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node in miniature with a socket of its own.
struct Node {
    fake: Fake,
    directory: TempDir,
    _runtime: Runtime,
}

impl Node {
    fn start() -> Node {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let log = directory.path().join("paxos.log");
        std::fs::write(&log, "first\nlast\n").unwrap();
        let api = Arc::new(fake.api_with_log(log));
        let runtime = Runtime::new().unwrap();
        let socket = {
            let _inside = runtime.enter();
            LocalSocket::bind(directory.path()).unwrap()
        };
        let beat = Watchdog::default().watch(local::watched());
        runtime.spawn(socket.serve(api, beat));
        Node { fake, directory, _runtime: runtime }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("paxos.sock")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = paxos();
        command.arg("--socket").arg(self.socket()).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn run_with(&self, words: &[&str], stdin: &[u8]) -> Output {
        feed(self.command(words), stdin)
    }
}

/// Waits for a condition of another process or thread.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

fn end_in_time(child: &mut Child) -> std::process::ExitStatus {
    let mut status = None;
    eventually("the end of the program", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

#[test]
fn a_verb_goes_to_the_node_and_comes_back() {
    let node = Node::start();
    let put = node.run(&["put", "k", "two words"]);
    assert_eq!((code(&put), text(&put.stdout), text(&put.stderr)), (0, "revision 1\n", ""));
    let get = node.run(&["get", "k"]);
    assert_eq!((code(&get), text(&get.stdout)), (0, "two words\n"));
    let get = node.run(&["get", "missing"]);
    assert_eq!((code(&get), text(&get.stdout)), (3, ""));
    assert!(text(&get.stderr).starts_with("paxos: there is no key \"missing\" (not_found)\n"));
    let get = node.run(&["-o", "json", "get", "k"]);
    let json: serde_json::Value = serde_json::from_slice(&get.stdout).unwrap();
    assert_eq!(json["value"], "two words");
    assert_eq!(text(&node.run(&["logs", "--lines", "1"]).stdout), "last\n");
}

#[test]
fn the_socket_is_its_owner_s_alone() {
    let node = Node::start();
    let mode = std::fs::metadata(node.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn values_keep_every_byte_both_ways() {
    let node = Node::start();
    let mut value: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    value.splice(0..10, *b"{\"a\": 1}\r\n");
    assert_eq!(code(&node.run_with(&["put", "k", "-"], &value)), 0);
    assert_eq!(node.fake.value(b"k").unwrap(), value);
    assert_eq!(node.run(&["get", "--raw", "k"]).stdout, value);
    for small in [&b""[..], b"-", b"\xff", b" '\"\\ $x", b"\n"] {
        assert_eq!(code(&node.run_with(&["put", "k", "-"], small)), 0);
        assert_eq!(node.fake.value(b"k").unwrap(), small, "{small:?}");
    }
    let odd = "it's \"$HOME\" \\ #1; `x` *\n";
    assert_eq!(code(&node.run(&["put", "--", "-odd key #", odd])), 0);
    assert_eq!(node.fake.value(b"-odd key #").unwrap(), odd);
    value.push(b'x');
    let output = node.run_with(&["put", "k", "-"], &value);
    assert_eq!(code(&output), 64);
    assert!(text(&output.stderr).contains("(too_large)"), "{output:?}");
}

#[test]
fn mistakes_cost_no_connection() {
    for words in [
        &["gett", "k"][..],
        &["put", "k"],
        &["get", "k", "extra"],
        &["--to"],
        &["--to", "node1", "status"],
        &["status"],
        &[],
        &["node"],
    ] {
        let output = paxos().args(words).output().unwrap();
        assert_eq!((code(&output), text(&output.stdout)), (64, ""), "{words:?}");
        let mut lines = text(&output.stderr).lines();
        assert!(lines.next().unwrap().ends_with("(usage)"), "{output:?}");
        assert!(lines.next().unwrap().starts_with("hint: ") && lines.next().is_none());
    }
    let output = paxos().args(["gett", "--json"]).output().unwrap();
    assert_eq!((code(&output), text(&output.stderr)), (64, ""));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["error"]["code"], "usage");
    assert_eq!(json["error"]["hint"], "did you mean get? \"paxos help\" lists the verbs");
}

#[test]
fn help_and_version_ask_nobody() {
    let output = paxos().args(["--to", "nobody", "help"]).output().unwrap();
    assert_eq!(code(&output), 0);
    assert!(text(&output.stdout).contains("--socket PATH"));
    let output = paxos().args(["help", "put"]).output().unwrap();
    assert!(text(&output.stdout).starts_with("put: store a value"));
    for words in [&["version"][..], &["--version"], &["-V"]] {
        let output = paxos().args(words).output().unwrap();
        let version = format!("{}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((code(&output), text(&output.stdout)), (0, version.as_str()));
    }
}

#[test]
fn a_bad_ssh_config_is_bad_settings() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("F");
    let run = || {
        let output = paxos().arg("-F").arg(&config).args(["--to", "node1", "status"]).output();
        let output = output.unwrap();
        (code(&output), text(&output.stderr).to_owned())
    };
    assert_eq!(run().0, 78);
    std::fs::write(&config, "Host node2\n").unwrap();
    let (exit, message) = run();
    assert_eq!(exit, 78);
    assert!(message.contains("has no Host node1; it has node2 (bad_settings)"), "{message}");
    std::fs::write(&config, "Host node1\nHostKeyAlias node1.local.paxos\n").unwrap();
    assert!(run().1.contains("Host node1 in "));
}

#[test]
fn no_node_there_is_certainly_not_applied() {
    let socket = ["--socket", "/nonexistent/paxos.sock"];
    let output = paxos().args(socket).args(["put", "k", "v", "--timeout", "300ms"]).output();
    let output = output.unwrap();
    assert_eq!(code(&output), 69);
    assert!(text(&output.stderr).contains("is the node running?"), "{output:?}");
}

#[test]
fn whoever_wants_keys_waits_for_a_node_and_who_asks_how_it_is_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("paxos.sock");
    let ask = |words: &[&str]| {
        let mut command = paxos();
        command.arg("--socket").arg(&socket).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut put = ask(&["put", "k", "v", "--timeout", "30s"]);
    let status = ask(&["status", "--timeout", "30s"]).wait_with_output().unwrap();
    assert_eq!(code(&status), 69);
    assert!(put.try_wait().unwrap().is_none(), "it waits still");
    let node = Node::start();
    std::os::unix::fs::symlink(node.socket(), &socket).unwrap();
    let output = put.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stdout)), (0, "revision 1\n"));
}

/// On a host the node is found where it is by default.
#[test]
fn the_node_of_this_machine_is_found_by_itself() {
    let state = tempfile::tempdir().unwrap();
    let home = state.path().join("paxos/local/node1");
    std::fs::create_dir_all(&home).unwrap();
    let ask = || paxos().env("XDG_STATE_HOME", state.path()).args(["get", "k"]).output().unwrap();
    assert_eq!(code(&ask()), 64);
    let node = Node::start();
    node.fake.set(b"k", b"v");
    std::os::unix::fs::symlink(node.socket(), home.join("paxos.sock")).unwrap();
    assert_eq!(text(&ask().stdout), "v\n");
    // A second node of the same cluster, dead: the first is asked.
    let other = state.path().join("paxos/local/node0");
    std::fs::create_dir_all(&other).unwrap();
    drop(std::os::unix::net::UnixListener::bind(other.join("paxos.sock")).unwrap());
    assert_eq!(text(&ask().stdout), "v\n");
    // A node of another cluster: it is not ours to guess.
    let stranger = state.path().join("paxos/other/node1");
    std::fs::create_dir_all(&stranger).unwrap();
    std::fs::write(stranger.join("paxos.sock"), "").unwrap();
    let output = ask();
    assert_eq!(code(&output), 64);
    assert!(text(&output.stderr).contains("several clusters"), "{output:?}");
}

#[test]
fn exit_statuses_of_the_node_are_passed_on() {
    let node = Node::start();
    for (mood, exit) in [(Mood::NoQuorum, 69), (Mood::Unknown, 74), (Mood::Busy, 75)] {
        node.fake.mood(mood);
        assert_eq!(code(&node.run(&["put", "k", "v"])), exit);
    }
}

#[test]
fn a_silent_node_is_given_up() {
    let node = Node::start();
    node.fake.mood(Mood::Silent);
    let started = Instant::now();
    assert_eq!(code(&node.run(&["put", "k", "v", "--timeout", "50ms"])), 74);
    assert_eq!(code(&node.run(&["get", "k", "--timeout", "50ms"])), 69);
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn a_batch_goes_through() {
    let node = Node::start();
    let input: String = (0..5000).map(|n| format!("@id{n} put k{n} 'v {n}'\n")).collect();
    let output = node.run_with(&["batch", "--window", "32"], input.as_bytes());
    assert_eq!(code(&output), 0);
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 5000);
    assert!(lines[4999].starts_with("{\"id\":\"id4999\",\"ok\":true,\"key\":\"k4999\","));
}

/// Each answer is there before the next question, as somebody at a terminal expects.
#[test]
fn a_batch_is_a_conversation() {
    let node = Node::start();
    let mut child = node.command(&["batch"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    for number in 1..=3 {
        writeln!(stdin, "put k {number}").unwrap();
        let expected =
            format!("{{\"id\":{number},\"ok\":true,\"key\":\"k\",\"revision\":{number}}}\n");
        let mut answer = vec![0; expected.len()];
        stdout.read_exact(&mut answer).unwrap();
        assert_eq!(text(&answer), expected);
    }
    drop(stdin);
    assert_eq!(end_in_time(&mut child).code(), Some(0));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let node = Node::start();
    for number in 0..20_000 {
        node.fake.set(format!("k{number}").as_bytes(), &[b'v'; 100]);
    }
    let mut child = node.command(&["list"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    drop(stdout);
    let status = end_in_time(&mut child);
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn a_slow_reader_gets_everything() {
    let node = Node::start();
    for number in 0..20_000 {
        node.fake.set(format!("k{number:05}").as_bytes(), &[b'v'; 100]);
    }
    let mut child = node.command(&["list"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut bytes = 0;
    let mut buffer = [0; 4096];
    loop {
        match stdout.read(&mut buffer).unwrap() {
            0 => break,
            read => bytes += read,
        }
        std::thread::yield_now();
    }
    assert_eq!(bytes, 20_000 * (6 + 1 + 100 + 1));
    assert_eq!(end_in_time(&mut child).code(), Some(0));
}

#[test]
fn ctrl_c_ends_it_with_130() {
    let node = Node::start();
    let mut child = node.command(&["put", "held", "v"]).spawn().unwrap();
    eventually("the write", || node.fake.proposed() == 1);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(end_in_time(&mut child).code(), Some(130));
}

/// The program acts by its name: `paxos-ctl` is another one.
#[test]
fn the_name_decides() {
    let directory = tempfile::tempdir().unwrap();
    let other_name: &Path = &directory.path().join("renamed");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_paxos-ctl"), other_name).unwrap();
    let output = Command::new(other_name).arg("version").output().unwrap();
    assert_eq!(text(&output.stdout), format!("{}\n", env!("CARGO_PKG_VERSION")));
}
