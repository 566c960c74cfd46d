//! What the stock OpenSSH client meets at a node: what it is served, and what it is refused.

use super::harness::{Cluster, Guarded, NODES, free_port, run, until};
use super::terminal::AtTerminal;
use paxos_ssh::store::command::REQUEST_ID_BYTES_MAX;
use rustix::process::Signal;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The most that a value may hold.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// ssh's own exit status, for a connection that did not come about or a forwarding that was
/// refused.
const SSH_FAILED: i32 = 255;

type Check = (&'static str, fn(&Cluster));

/// All checks, with what they show.
pub const CHECKS: &[Check] = &[
    ("status", status_is_healthy_everywhere),
    ("put and get", what_one_node_takes_another_gives),
    ("request id", the_longest_request_id_serves),
    ("every byte", standard_input_keeps_every_byte),
    ("too large", a_value_over_the_limit_is_refused),
    ("usage", wrong_words_change_nothing),
    ("no command", without_a_command_there_is_help),
    ("typed value", what_is_typed_at_a_terminal_arrives),
    ("interrupt", an_interrupt_stops_a_command),
    ("screen", lines_begin_at_the_left_of_a_terminal),
    ("multiplexing", one_connection_serves_many),
    ("agent", a_key_in_an_agent_serves),
    ("unknown key", an_unknown_key_is_refused),
    ("foreign certificate", a_certificate_of_another_authority_is_refused),
    ("local forwarding", ports_are_not_forwarded),
    ("remote forwarding", no_port_is_opened_at_the_node),
    ("agent forwarding", an_agent_is_not_forwarded),
    ("subsystem", an_unknown_subsystem_is_refused),
    ("metrics", super::numbers::every_series_is_counted),
    ("log", the_log_calls_members_by_their_names),
    ("protocol", super::protocol::a_write_can_be_followed_to_its_votes),
    ("trace", super::protocol::a_slot_tells_how_it_was_chosen),
    ("merged logs", super::protocol::the_nodes_tell_one_story),
    ("frozen peers", peers_that_say_nothing_are_not_called_reachable),
];

fn status_is_healthy_everywhere(cluster: &Cluster) {
    let mut leaders = Vec::new();
    for node in NODES {
        assert!(cluster.ssh(node, "paxos status").expect(0).out().contains("healthy"));
        let status = cluster.ssh(node, "paxos status -o json").expect(0).json();
        assert_eq!(status["node"], node);
        assert_eq!(status["quorum"]["reachable"], 3, "{status}");
        leaders.push(status["leader"].clone());
        assert_eq!(cluster.ssh(node, "paxos health").expect(0).out().trim(), "healthy");
    }
    assert!(leaders.iter().all(|leader| leader.is_string() && *leader == leaders[0]));
    let overview = cluster.ctl(&["status", "-o", "json"]).expect(0).json();
    assert_eq!(overview["leader"], leaders[0]);
    assert_eq!(overview["nodes"].as_array().map(Vec::len), Some(3));
}

fn what_one_node_takes_another_gives(cluster: &Cluster) {
    for (round, writer) in NODES.into_iter().enumerate() {
        let value = format!("v{round}");
        cluster.ssh(writer, &format!("paxos put k {value}")).expect(0);
        for reader in NODES {
            let got = cluster.ssh(reader, "paxos get k").expect(0);
            assert_eq!(got.out(), format!("{value}\n"), "written at {writer}, read at {reader}");
        }
    }
    let same = cluster.ssh("node2", "paxos put k v9 --if-value v2 -o json").expect(0);
    assert_eq!(same.json()["ok"], true);
    let other = cluster.ssh("node2", "paxos put k v9 --if-value v2 -o json").expect(3).json();
    assert_eq!(other["error"]["code"], "condition_failed");
    cluster.ssh("node3", "paxos delete k").expect(0);
    cluster.ssh("node1", "paxos get k").expect(3);
    // A retry by hand, at another node, has the first outcome.
    let put = "paxos put once v --request-id r1 -o json";
    let first = cluster.ssh("node1", put).expect(0).json();
    let again = cluster.ssh("node2", put).expect(0).json();
    assert_eq!(again["revision"], first["revision"], "the retry was applied as well");
    let other = cluster.ssh("node3", "paxos put once other --request-id r1 -o json").expect(64);
    assert_eq!(other.json()["error"]["code"], "usage");
    assert_eq!(cluster.ssh("node3", "paxos get once").expect(0).out(), "v\n");
}

fn the_longest_request_id_serves(cluster: &Cluster) {
    let longest = "r".repeat(REQUEST_ID_BYTES_MAX);
    cluster.ssh("node3", &format!("paxos put long v --request-id {longest}")).expect(0);
    cluster.ssh("node3", &format!("paxos put long v --request-id {longest}r")).expect(64);
}

fn standard_input_keeps_every_byte(cluster: &Cluster) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let longest: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at * at / 7) as u8).collect();
    for value in [b"{\"a\": 1}\n".as_slice(), b"", b"no end of line", &every_byte, &longest] {
        cluster.ssh_input("node1", "paxos put k -", value).expect(0);
        let got = cluster.ssh("node3", "paxos get k --raw").expect(0);
        assert!(got.stdout == value, "{} bytes became {}", value.len(), got.stdout.len());
    }
    // As an operator would type it, through a shell at the near end.
    let config = cluster.ssh_config();
    let line = "echo '{\"a\": 1}' | ssh -F \"$1\" -o BatchMode=yes node1 paxos put k -";
    run(Command::new("sh").args(["-c", line, "sh"]).arg(&config), b"").expect(0);
    assert_eq!(cluster.ssh("node2", "paxos get k --raw").expect(0).out(), "{\"a\": 1}\n");
}

fn a_value_over_the_limit_is_refused(cluster: &Cluster) {
    let value = vec![b'x'; VALUE_BYTES_MAX + 1];
    let put = cluster.ssh_input("node1", "paxos put large -", &value).expect(64);
    assert!(put.said().contains("too_large"), "{}", put.said());
    let key = "k".repeat(5000);
    cluster.ssh("node1", &format!("paxos put {key} v")).expect(64);
    cluster.ssh("node1", "paxos get large").expect(3);
}

fn wrong_words_change_nothing(cluster: &Cluster) {
    let before = cluster.ssh("node1", "paxos list --keys-only -o json").expect(0).json();
    for words in [
        "paxos frobnicate",
        "paxos",
        "paxos put",
        "paxos put k",
        "paxos put k two words",
        "paxos get k --nonsense",
        "paxos put k v --timeout never",
        "cat /etc/passwd",
        "bash",
        "paxos put k 'no end",
    ] {
        // sh -c would take the last one apart, a node must say what is wrong with it.
        let ran = run(cluster.ssh_with(&cluster.ssh_config()).args(["node1", words]), b"");
        assert_eq!(ran.exit(), 64, "{words}: {}", ran.said());
        assert!(ran.said().contains("hint") || ran.said().contains("help"), "{}", ran.said());
    }
    let error = cluster.ssh("node1", "paxos frobnicate -o json").expect(64).json();
    assert_eq!(error["ok"], false);
    assert_eq!(error["error"]["code"], "usage");
    let after = cluster.ssh("node1", "paxos list --keys-only -o json").expect(0).json();
    assert_eq!(after["revision"], before["revision"]);
}

fn without_a_command_there_is_help(cluster: &Cluster) {
    for flags in [&["-T"][..], &["-tt"], &[]] {
        let mut ssh = cluster.ssh_with(&cluster.ssh_config());
        let ran = run(ssh.args(flags).arg("node1"), b"").expect(64);
        assert!(ran.said().contains("ssh NODE paxos status"), "{flags:?}: {}", ran.said());
    }
}

/// `ssh -F … WORDS…`, typed at a terminal.
fn at_terminal(cluster: &Cluster, words: &[&str]) -> AtTerminal {
    let mut ssh = cluster.ssh_with(&cluster.ssh_config());
    ssh.args(words);
    AtTerminal::start(ssh)
}

fn what_is_typed_at_a_terminal_arrives(cluster: &Cluster) {
    let mut put = at_terminal(cluster, &["-t", "node1", "paxos put typed -"]);
    put.until_raw();
    put.press(b"one\r");
    put.until_shown("one\r\n");
    put.press(b"twi\x7fo\r\x04");
    let (exit, screen, said) = put.end();
    assert_eq!(exit, Some(0), "{screen}{said}");
    assert!(screen.contains("\r\nrevision "), "{screen:?}");
    let got = cluster.ssh("node2", "paxos get typed --raw").expect(0);
    assert_eq!(got.out(), "one\ntwo\n");
}

fn an_interrupt_stops_a_command(cluster: &Cluster) {
    let mut put = at_terminal(cluster, &["-t", "node1", "paxos put stopped -"]);
    put.until_raw();
    put.press(b"one\r");
    put.until_shown("one\r\n");
    put.press(b"\x03");
    let (exit, screen, said) = put.end();
    assert_eq!(exit, Some(130), "{screen}{said}");
    assert!(screen.contains("^C\r\n"), "{screen:?}");
    cluster.ssh("node1", "paxos get stopped").expect(3);
}

fn lines_begin_at_the_left_of_a_terminal(cluster: &Cluster) {
    let no_staircase = |text: &str| {
        let ends = |end| text.matches(end).count();
        assert!(ends("\n") > 1 && ends("\n") == ends("\r\n"), "{text:?}");
    };
    let (exit, screen, _) = at_terminal(cluster, &["-t", "node1", "paxos status"]).end();
    assert_eq!(exit, Some(0));
    no_staircase(&screen);
    // Without a command the client asks for a terminal as well.
    let (exit, _, said) = at_terminal(cluster, &["node1"]).end();
    assert_eq!(exit, Some(64));
    assert!(said.contains("ssh NODE paxos status"), "{said}");
    assert!(!said.contains("PTY allocation"), "{said}");
    no_staircase(&said);
    // Without a terminal nothing is translated.
    let plain = cluster.ssh("node1", "paxos status").expect(0);
    assert!(!plain.stdout.contains(&b'\r'));
}

fn one_connection_serves_many(cluster: &Cluster) {
    let socket = cluster.path("mux");
    let path = format!("ControlPath={}", socket.display());
    let over = |words: &[&str]| {
        let mut ssh = cluster.ssh_with(&cluster.ssh_config());
        ssh.args(["-o", &path, "-o", "ControlMaster=no"]).args(words);
        ssh
    };
    let mut master = over(&["-M", "-N", "node1"]);
    master.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _master = Guarded(master.spawn().expect("ssh can be started"));
    until("the shared connection stands", || {
        (run(&mut over(&["-O", "check", "node1"]), b"").exit() == 0).then_some(())
    });
    std::thread::scope(|threads| {
        for number in 0..8 {
            let put = format!("paxos put mux{number} -");
            let over = &over;
            threads.spawn(move || run(&mut over(&["node1", &put]), b"v").expect(0));
        }
    });
    let got = run(&mut over(&["node1", "paxos get mux7"]), b"").expect(0);
    assert_eq!(got.out(), "v\n");
    // One that fails, and a shell that is refused, leave the others their connection.
    run(&mut over(&["node1", "paxos nonsense"]), b"").expect(64);
    run(&mut over(&["node1"]), b"").expect(64);
    run(&mut over(&["node1", "paxos get mux0"]), b"").expect(0);
    run(&mut over(&["-O", "exit", "node1"]), b"").expect(0);
}

/// The operator's private key.
fn operator_key(cluster: &Cluster) -> PathBuf {
    let config = fs::read_to_string(cluster.ssh_config()).expect("the controller wrote it");
    let line = config.lines().find_map(|line| line.trim().strip_prefix("IdentityFile "));
    PathBuf::from(line.expect("it names a key").trim_matches('"'))
}

/// The controller's ssh_config without the lines that name a key, and with these instead.
fn config_with(cluster: &Cluster, name: &str, lines: &str) -> PathBuf {
    let config = fs::read_to_string(cluster.ssh_config()).expect("the controller wrote it");
    let own = ["IdentityFile", "CertificateFile", "IdentitiesOnly"];
    let mut text = String::new();
    for line in config.lines().filter(|line| !own.iter().any(|w| line.trim().starts_with(w))) {
        text.push_str(&format!("{line}\n"));
        if line.starts_with("Host ") {
            text.push_str(lines);
        }
    }
    let path = cluster.path(name);
    fs::write(&path, text).expect("the directory is writable");
    path
}

/// An agent of our own with these keys in it; its socket.
fn agent(cluster: &Cluster, name: &str, keys: &[&Path]) -> (Guarded, PathBuf) {
    let socket = cluster.path(name);
    let mut agent = Command::new("ssh-agent");
    agent.args(["-D", "-a"]).arg(&socket);
    agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let agent = Guarded(agent.spawn().expect("ssh-agent can be started"));
    until("the agent listens", || socket.exists().then_some(()));
    for key in keys {
        run(Command::new("ssh-add").env("SSH_AUTH_SOCK", &socket).arg(key), b"").expect(0);
    }
    (agent, socket)
}

fn a_key_in_an_agent_serves(cluster: &Cluster) {
    // ssh-add takes the certificate beside the key along.
    let (_agent, socket) = agent(cluster, "agent", &[&operator_key(cluster)]);
    let lines = format!("  IdentityAgent {}\n  IdentityFile none\n", socket.display());
    let config = config_with(cluster, "agent_config", &lines);
    let ssh = |words: &[&str]| run(cluster.ssh_with(&config).arg("node2").args(words), b"");
    ssh(&["paxos", "put", "agent", "v"]).expect(0);
    assert_eq!(ssh(&["paxos", "get", "agent"]).expect(0).out(), "v\n");
    run(Command::new("ssh-add").env("SSH_AUTH_SOCK", &socket).arg("-D"), b"").expect(0);
    ssh(&["paxos", "get", "agent"]).expect(SSH_FAILED);
}

#[track_caller]
fn keygen(words: &[&str], path: &Path) {
    run(Command::new("ssh-keygen").arg("-q").args(words).arg(path), b"").expect(0);
}

fn new_key(cluster: &Cluster, name: &str) -> PathBuf {
    let key = cluster.path(name);
    keygen(&["-t", "ed25519", "-N", "", "-f"], &key);
    key
}

#[track_caller]
fn assert_denied(cluster: &Cluster, config: &Path) {
    let before = cluster.ssh("node1", "paxos list --keys-only -o json").expect(0).json();
    let ran = run(cluster.ssh_with(config).args(["node1", "paxos put denied v"]), b"");
    assert_eq!(ran.exit(), SSH_FAILED, "{}", ran.said());
    assert!(ran.said().contains("Permission denied (publickey)"), "{}", ran.said());
    let after = cluster.ssh("node1", "paxos list --keys-only -o json").expect(0).json();
    assert_eq!(after["revision"], before["revision"]);
}

fn an_unknown_key_is_refused(cluster: &Cluster) {
    let key = new_key(cluster, "stranger");
    let lines = format!("  IdentitiesOnly yes\n  IdentityFile {}\n", key.display());
    assert_denied(cluster, &config_with(cluster, "stranger_config", &lines));
    // The operator's own key without its certificate is as unknown.
    let copy = cluster.path("bare");
    fs::copy(operator_key(cluster), &copy).expect("it can be read");
    let lines = format!("  IdentitiesOnly yes\n  IdentityFile {}\n", copy.display());
    assert_denied(cluster, &config_with(cluster, "bare_config", &lines));
}

fn a_certificate_of_another_authority_is_refused(cluster: &Cluster) {
    let authority = new_key(cluster, "foreign_authority");
    let key = new_key(cluster, "impostor");
    let authority = authority.display().to_string();
    let public = key.with_extension("pub");
    keygen(&["-s", &authority, "-I", "operator@probe/1", "-n", "operator"], &public);
    let (key, path) = (key.display(), cluster.path("impostor-cert.pub"));
    let lines = format!(
        "  IdentitiesOnly yes\n  IdentityFile {key}\n  CertificateFile {}\n",
        path.display()
    );
    assert_denied(cluster, &config_with(cluster, "impostor_config", &lines));
}

fn ports_are_not_forwarded(cluster: &Cluster) {
    let target = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    target.set_nonblocking(true).expect("a listener can be told");
    let port = target.local_addr().expect("it is bound").port();
    let near = free_port();
    let forward = format!("127.0.0.1:{near}:127.0.0.1:{port}");
    let mut ssh = cluster.ssh_with(&cluster.ssh_config());
    ssh.args(["-N", "-L", &forward, "node1"]);
    ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ssh = Guarded(ssh.spawn().expect("ssh can be started"));
    let mut stream = until("ssh listens", || TcpStream::connect(("127.0.0.1", near)).ok());
    let mut bytes = Vec::new();
    // ssh closes what the node does not forward.
    let _end_or_reset = stream.read_to_end(&mut bytes);
    assert!(bytes.is_empty());
    assert!(target.accept().is_err(), "the node opened a connection");
    // The same as ProxyJump would ask for it.
    let to = format!("127.0.0.1:{port}");
    let ran = run(cluster.ssh_with(&cluster.ssh_config()).args(["-W", &to, "node1"]), b"x");
    assert_eq!(ran.exit(), SSH_FAILED, "{}", ran.said());
    assert!(ran.said().contains("prohibited"), "{}", ran.said());
    assert!(target.accept().is_err(), "the node opened a connection");
    cluster.ssh("node1", "paxos health").expect(0);
}

fn no_port_is_opened_at_the_node(cluster: &Cluster) {
    let mut ssh = cluster.ssh_with(&cluster.ssh_config());
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "node1"]);
    let ran = run(ssh.arg("paxos version"), b"");
    assert_eq!(ran.exit(), SSH_FAILED, "{}", ran.said());
    assert!(ran.said().contains("remote port forwarding failed"), "{}", ran.said());
}

fn an_agent_is_not_forwarded(cluster: &Cluster) {
    let (_agent, socket) = agent(cluster, "forwarded_agent", &[]);
    let mut ssh = cluster.ssh_with(&cluster.ssh_config());
    ssh.env("SSH_AUTH_SOCK", &socket).args(["-A", "-X", "-v", "node1", "paxos version"]);
    let ran = run(&mut ssh, b"").expect(0);
    assert!(ran.said().contains("Requesting authentication agent forwarding"), "{}", ran.said());
    // What a server would open towards us if it wanted to use the agent.
    assert!(!ran.said().contains("auth-agent@openssh.com"), "{}", ran.said());
}

fn an_unknown_subsystem_is_refused(cluster: &Cluster) {
    let mut ssh = cluster.ssh_with(&cluster.ssh_config());
    let ran = run(ssh.args(["-s", "node1", "sftp"]), b"");
    assert_ne!(ran.exit(), 0, "{}", ran.said());
    assert!(ran.said().contains("subsystem request failed"), "{}", ran.said());
}

fn the_log_calls_members_by_their_names(cluster: &Cluster) {
    for node in NODES {
        let log = fs::read_to_string(cluster.directory(node).join("paxos.log")).expect("a log");
        let links: Vec<&str> = log.lines().filter(|line| line.contains(": link ")).collect();
        let peers = NODES.map(|peer| format!("peer={peer}"));
        let names =
            |line: &&&str| line.split(' ').any(|word| peers.iter().any(|peer| peer == word));
        let (links, named) = (links.len(), links.iter().filter(names).count());
        assert!(links > 0 && links == named, "{named} of {links} links are named in:\n{log}");
    }
}

/// The connections of a stopped process stand; only its silence tells.
fn peers_that_say_nothing_are_not_called_reachable(cluster: &Cluster) {
    cluster.wait_healthy();
    let leader = cluster.leader();
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != leader).collect();
    others.iter().for_each(|node| cluster.signal(node, Signal::STOP));
    let status = until("the leader counts itself alone", || {
        cluster.status(leader).filter(|status| status["quorum"]["reachable"] == 1)
    });
    let later = until("the leader says that there is no quorum", || {
        cluster.status(leader).filter(|status| status["health"] == "no_quorum")
    });
    others.iter().for_each(|node| cluster.signal(node, Signal::CONT));
    for missing in status["quorum"]["unreachable_members"].as_array().expect("a list") {
        assert_eq!(
            missing["error"],
            serde_json::Value::Null,
            "only a broken link showed: {status}"
        );
    }
    let text = |field: &str| later[field].as_str().unwrap_or_default().to_owned();
    for node in others {
        assert!(text("why").contains(node) && text("next").contains(node), "{later}");
    }
    assert!(text("next").contains("they cannot be reached"), "{later}");
    let members = later["members"].as_array().expect("a list");
    for member in members {
        let told = member["applied_slot"].is_number();
        assert_eq!(told, member["name"] == leader, "{later}");
        assert!(member["id"].is_string() && member["chosen_slot"].is_number(), "{later}");
    }
    cluster.wait_healthy();
}
