//! Where the keys of authorities may be kept: in files with a passphrase, and in an ssh-agent.

#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;
#[allow(dead_code, reason = "tests/cluster uses more of it")]
#[path = "cluster/terminal.rs"]
mod terminal;

use harness::{Guarded, run, until};
use paxos_ssh::controller::keys::ClusterKeys;
use paxos_ssh::transport::authority::{load_key_file, print};
use paxos_ssh::transport::bundle::AuthorityRole;
use rustix::termios::LocalModes;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use terminal::AtTerminal;

const PASSPHRASE: &str = "correct horse";

/// The keys of a cluster whose one node is not installed yet.
struct Scene {
    folder: tempfile::TempDir,
    keys: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let text = "all:\n  vars: {paxos_cluster: c, ansible_connection: local}\n  hosts:\n    \
                    n1: {paxos_id: 1, paxos_port: 1}\n";
        fs::write(folder.path().join("i.yaml"), text).unwrap();
        Scene { folder, keys }
    }

    fn made() -> Scene {
        let scene = Scene::new();
        scene.ctl(&["init"], &[], 0);
        scene
    }

    /// `paxos-ctl keys` behind the words of `setsid`, which gives it a terminal or takes it away.
    fn command(&self, setsid: &[&str], words: &[&str], environment: &[(&str, &Path)]) -> Command {
        let mut command = Command::new("setsid");
        command.args(setsid).arg(env!("CARGO_BIN_EXE_paxos-ctl")).arg("keys").args(words);
        command.arg("-i").arg(self.folder.path().join("i.yaml")).arg("--keys-dir").arg(&self.keys);
        command.env("XDG_STATE_HOME", self.folder.path());
        for name in ["SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        command
    }

    /// Runs it without a terminal, and gives what it said.
    #[track_caller]
    fn ctl(&self, words: &[&str], environment: &[(&str, &Path)], code: i32) -> String {
        run(&mut self.command(&["--wait"], words, environment), b"").expect(code).said()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keys.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn epoch(&self) -> u64 {
        ClusterKeys::open_existing(&self.keys, "c").unwrap().bundle().epoch
    }

    /// Whether this passphrase opens a key, as the stock tool judges.
    fn opens(&self, name: &str, passphrase: &str) -> bool {
        let mut command = Command::new("ssh-keygen");
        command.args(["-y", "-P", passphrase, "-f"]).arg(self.path(name));
        run(&mut command, b"").status.success()
    }

    /// Gives a key a passphrase, with the stock tool.
    fn protect(&self, name: &str) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-p", "-P", "", "-N", PASSPHRASE, "-f"]).arg(self.path(name));
        run(&mut command, b"").expect(0);
        assert!(!self.opens(name, ""));
    }

    /// A program that answers this, and notes each question.
    fn askpass(&self, answer: &str) -> PathBuf {
        let path = self.folder.path().join("askpass");
        let asked = self.folder.path().join("asked");
        let text = format!("#!/bin/sh\necho \"$1\" >> '{}'\necho '{answer}'\n", asked.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// The questions since the last look.
    fn asked(&self) -> Vec<String> {
        let path = self.folder.path().join("asked");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _none_was_asked = fs::remove_file(&path);
        text.lines().map(str::to_owned).collect()
    }
}

/// A stock agent that ends with the test.
struct Agent {
    _child: Guarded,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path) -> Agent {
        let socket = folder.join("agent");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null());
        command.env("SSH_ASKPASS", "/bin/false").env("SSH_ASKPASS_REQUIRE", "force");
        let agent = Agent { _child: Guarded(command.spawn().unwrap()), socket };
        until("the agent listens", || agent.socket.exists().then_some(()));
        agent
    }

    fn add(&self, words: &[&str], key: &Path) {
        let mut command = Command::new("ssh-add");
        command.args(words).arg(key).env("SSH_AUTH_SOCK", &self.socket);
        run(&mut command, b"").expect(0);
    }
}

#[test]
fn the_root_key_may_live_in_an_agent() {
    let scene = Scene::made();
    let agent = Agent::start(scene.folder.path());
    let with = [("SSH_AUTH_SOCK", agent.socket.as_path())];
    for name in ["alice", "bob"] {
        scene.ctl(&["issue", name, "--role", "read"], &[], 0);
    }
    let root = scene.path("root");
    agent.add(&[], &root);
    fs::remove_file(&root).unwrap();
    let said = scene.ctl(&["revoke", "alice"], &[], 78);
    assert!(said.contains("is in none of") && said.contains("ssh-add"), "{said}");
    assert_eq!(scene.epoch(), 1);
    let said = scene.ctl(&["revoke", "alice"], &with, 0);
    assert!(said.contains("n1 is not installed yet"), "{said}");
    assert_eq!(scene.epoch(), 2);
    // Another root key, which the one in the agent signs as well. It lies in a file at first.
    scene.ctl(&["rotate", "--authority", "root"], &with, 0);
    assert_eq!(scene.epoch(), 5);
    fs::remove_file(&root).unwrap();
    let said = scene.ctl(&["revoke", "bob"], &with, 78);
    assert!(said.contains("does not hold it"), "{said}");
    assert_eq!(scene.epoch(), 5);
}

#[test]
fn the_other_authorities_may_as_well() {
    let scene = Scene::made();
    let agent = Agent::start(scene.folder.path());
    let with = [("SSH_AUTH_SOCK", agent.socket.as_path())];
    let authority = scene.path("operator-authority");
    agent.add(&[], &authority);
    fs::remove_file(&authority).unwrap();
    let issue = ["issue", "alice", "--role", "read"];
    let said = scene.ctl(&issue, &[], 78);
    assert!(said.contains("the operator key") && said.contains("ssh-add"), "{said}");
    assert!(!scene.path("serial").exists(), "no serial was spent");
    scene.ctl(&issue, &with, 0);
    let keys = ClusterKeys::open_existing(&scene.keys, "c").unwrap();
    let signer = keys.bundle().authorities(AuthorityRole::Operator).next().unwrap().clone();
    let (_, certificate) = keys.person("alice").unwrap();
    assert_eq!(certificate.signature_key(), signer.key_data());
    certificate.verify_signature().unwrap();
    agent.add(&["-d"], &scene.path("operator-authority.pub"));
    let said = scene.ctl(&issue, &with, 78);
    assert!(said.contains("does not hold it"), "{said}");
}

#[test]
fn an_agent_may_hold_odd_keys_and_be_told_no() {
    let scene = Scene::made();
    let agent = Agent::start(scene.folder.path());
    let with = [("SSH_AUTH_SOCK", agent.socket.as_path())];
    let odd = scene.folder.path().join("odd");
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-C"]).arg(OsStr::from_bytes(b"caf\xe9"));
    run(make.arg("-f").arg(&odd), b"").expect(0);
    agent.add(&[], &odd);
    // The agent asks before each use, by a program that says no.
    let authority = scene.path("operator-authority");
    agent.add(&["-c"], &authority);
    fs::remove_file(&authority).unwrap();
    let said = scene.ctl(&["issue", "alice", "--role", "read"], &with, 77);
    assert!(said.contains("somebody said no") && said.contains("ssh-add -l"), "{said}");
    assert!(!scene.path("people/alice-cert.pub").exists());
}

#[test]
fn a_rotation_goes_on_with_the_old_authority_in_an_agent() {
    let scene = Scene::made();
    let agent = Agent::start(scene.folder.path());
    let with = [("SSH_AUTH_SOCK", agent.socket.as_path())];
    let authority = scene.path("host-authority");
    agent.add(&[], &authority);
    fs::remove_file(&authority).unwrap();
    let rotate = ["rotate", "--authority", "host"];
    scene.ctl(&["rotate", "--authority", "host", "--until", "switched"], &with, 0);
    // Back to one that nobody has any more.
    let before = scene.epoch();
    let said = scene.ctl(&["rollback"], &[], 78);
    assert!(said.contains("the host key"), "{said}");
    assert_eq!(scene.epoch(), before);
    scene.ctl(&rotate, &[], 0);
    assert!(scene.opens("host-authority", ""), "the new one lies in a file");
}

#[test]
fn an_authority_may_have_a_passphrase() {
    let scene = Scene::made();
    scene.protect("operator-authority");
    let issue = ["issue", "alice", "--role", "read"];
    let said = scene.ctl(&issue, &[], 78);
    assert!(said.contains("has a passphrase") && said.contains("ssh-add"), "{said}");
    let forced = |program: &Path| {
        let program = program.to_owned();
        move |scene: &Scene, words: &[&str], code: i32| {
            let environment =
                [("SSH_ASKPASS", program.as_path()), ("SSH_ASKPASS_REQUIRE", "force".as_ref())];
            scene.ctl(words, &environment, code)
        }
    };
    let said = forced(&scene.askpass("wrong"))(&scene, &issue, 78);
    assert!(said.contains("given 3 times"), "{said}");
    let asked = scene.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[0].contains("operator-authority") && asked[1].contains("not it"), "{asked:?}");
    assert!(!scene.path("serial").exists(), "no serial was spent");
    let ctl = forced(&scene.askpass(PASSPHRASE));
    ctl(&scene, &issue, 0);
    ctl(&scene, &["issue", "bob", "--role", "read"], 0);
    scene.asked();

    // Once for all that it signs, and the new one has the same.
    ctl(&scene, &["rotate", "--operators"], 0);
    assert_eq!(scene.asked().len(), 1);
    let old = print(load_key_file(&scene.path("operator-authority")).unwrap().public_key());
    ctl(&scene, &["rotate", "--authority", "operator"], 0);
    assert_eq!(scene.asked().len(), 1, "it is that of the new one as well");
    let new = print(load_key_file(&scene.path("operator-authority")).unwrap().public_key());
    assert_ne!(old, new);
    assert!(scene.opens("operator-authority", PASSPHRASE));
    assert!(!scene.opens("operator-authority", ""));

    // Nobody is asked for what an agent holds.
    let agent = Agent::start(scene.folder.path());
    let mut add = Command::new("ssh-add");
    add.arg(scene.path("operator-authority")).env("SSH_AUTH_SOCK", &agent.socket);
    add.env("SSH_ASKPASS", scene.askpass(PASSPHRASE)).env("SSH_ASKPASS_REQUIRE", "force");
    run(&mut add, b"").expect(0);
    scene.asked();
    scene.ctl(&issue, &[("SSH_AUTH_SOCK", &agent.socket)], 0);
}

#[test]
fn no_key_without_a_passphrase_takes_the_place_of_one_with() {
    let scene = Scene::made();
    // One that got its passphrase when its successor lay there already.
    scene.ctl(&["rotate", "--authority", "host", "--until", "learned"], &[], 0);
    scene.protect("host-authority");
    let rotate = ["rotate", "--authority", "host"];
    let said = scene.ctl(&rotate, &[], 78);
    assert!(said.contains("SSH_ASKPASS"), "{said}");
    let askpass = scene.askpass(PASSPHRASE);
    let forced = [("SSH_ASKPASS", askpass.as_path()), ("SSH_ASKPASS_REQUIRE", "force".as_ref())];
    scene.ctl(&rotate, &forced, 0);
    assert!(scene.opens("host-authority", PASSPHRASE) && !scene.opens("host-authority", ""));
}

#[test]
fn whoever_cannot_sign_changes_nothing() {
    let scene = Scene::made();
    scene.ctl(&["issue", "alice", "--role", "read"], &[], 0);
    scene.protect("root");
    for role in ["root", "operator"] {
        let said = scene.ctl(&["rotate", "--authority", role], &[], 78);
        assert!(said.contains("root has a passphrase"), "{said}");
        assert!(!scene.path("root.new").exists() && !scene.path("operator-authority.new").exists());
    }
    scene.ctl(&["revoke", "alice"], &[], 78);
    assert!(!scene.path("revoked").exists(), "nothing is noted as revoked that is not");
    assert_eq!(scene.epoch(), 1);
}

#[test]
fn a_new_authority_that_was_moved_to_an_agent_leaves_no_other_under_its_name() {
    let scene = Scene::made();
    let agent = Agent::start(scene.folder.path());
    let with = [("SSH_AUTH_SOCK", agent.socket.as_path())];
    scene.ctl(&["rotate", "--authority", "host", "--until", "switched"], &[], 0);
    let new = scene.path("host-authority.new");
    agent.add(&[], &new);
    fs::remove_file(&new).unwrap();
    let public = scene.text("host-authority.new.pub");
    scene.ctl(&["resume"], &with, 0);
    assert_eq!(scene.text("host-authority.pub"), public);
    assert!(!scene.path("host-authority").exists(), "it is the one of before");
}

#[test]
fn a_revocation_reaches_the_nodes_though_something_else_is_not_signed() {
    let cluster = harness::Cluster::found();
    cluster.keys(&["issue", "eve", "--role", "read"]).expect(0);
    // The controller's own way in ran out, and the authority that signs it is not at hand.
    fs::remove_file(cluster.path("keys/people/operator-cert.pub")).unwrap();
    let authority = cluster.path("keys/operator-authority");
    fs::rename(&authority, cluster.path("aside")).unwrap();
    let said = cluster.keys(&["revoke", "eve"]).expect(78).said();
    assert!(said.contains("not everything was signed") && said.contains("keys resume"), "{said}");
    assert!(said.contains("bundle epoch 2"), "{said}");
    for node in harness::NODES {
        let bundle = fs::read_to_string(cluster.directory(node).join("keys/bundle")).unwrap();
        assert!(bundle.contains("epoch 2") && bundle.contains("revoke"), "{node}: {bundle}");
    }
    fs::rename(cluster.path("aside"), &authority).unwrap();
    cluster.keys(&["resume"]).expect(0);
}

#[test]
fn a_passphrase_is_typed_on_a_terminal_that_does_not_show_it() {
    let scene = Scene::made();
    scene.protect("operator-authority");
    let typed = |words: &[&str], keys: &[&[u8]]| {
        let mut shown = AtTerminal::start(scene.command(&["--ctty"], words, &[]));
        for keys in keys {
            shown.until_shown("Passphrase of ");
            shown.until_mode(LocalModes::ECHO, false);
            shown.press(keys);
        }
        shown.until_mode(LocalModes::ECHO, true);
        shown.end()
    };
    let line = format!("{PASSPHRASE}\n");
    let issue = ["issue", "alice", "--role", "read"];
    let (code, screen, said) = typed(&issue, &[line.as_bytes()]);
    assert_eq!(code, Some(0), "{screen}{said}");
    assert!(screen.contains("issued alice@c/1") && !screen.contains(PASSPHRASE), "{screen:?}");
    // Ctrl-C ends it, and the terminal shows again what is typed.
    let (code, screen, said) = typed(&issue, &[b"half\x03"]);
    assert_eq!(code, Some(130), "{screen}{said}");
    scene.protect("root");
    let (code, screen, said) = typed(&["revoke", "alice"], &[b"\x03"]);
    assert_eq!(code, Some(130), "{screen}{said}");
    assert_eq!(scene.epoch(), 1);
}

#[test]
fn authorities_that_an_operator_made_are_taken_up() {
    let scene = Scene::new();
    fs::create_dir(&scene.keys).unwrap();
    fs::set_permissions(&scene.keys, fs::Permissions::from_mode(0o700)).unwrap();
    let make = |name: &str, kind: &str, passphrase: &str| {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-N", passphrase, "-f"]).arg(scene.path(name));
        run(&mut command, b"").expect(0);
    };
    make("root", "ed25519", PASSPHRASE);
    make("peer-authority", "ed25519", "");
    let agent = Agent::start(scene.folder.path());
    agent.add(&[], &scene.path("peer-authority"));
    fs::remove_file(scene.path("peer-authority")).unwrap();
    let askpass = scene.askpass(PASSPHRASE);
    let asking = ("SSH_ASKPASS", askpass.as_path());
    let forced = ("SSH_ASKPASS_REQUIRE", Path::new("force"));
    let said = scene.ctl(&["init"], &[asking, forced], 78);
    assert!(said.contains("the peer key"), "{said}");
    assert!(!scene.path("bundle").exists(), "nothing is told of what cannot sign");
    let public = scene.text("peer-authority.pub");
    scene.ctl(&["init"], &[asking, forced, ("SSH_AUTH_SOCK", &agent.socket)], 0);
    assert_eq!(scene.epoch(), 1);
    assert!(scene.text("bundle").contains(public.split(' ').nth(1).unwrap()));
    assert!(scene.opens("root", PASSPHRASE) && !scene.path("peer-authority").exists());
}

#[test]
fn authorities_that_make_no_sense_are_not_taken_up() {
    let scene = Scene::new();
    fs::create_dir(&scene.keys).unwrap();
    let init = |reason: &str| {
        let said = scene.ctl(&["init"], &[], 78);
        assert!(said.contains(reason), "{said}");
        assert!(!scene.path("bundle").exists());
    };
    let make = |kind: &str| {
        let _not_there =
            (fs::remove_file(scene.path("root")), fs::remove_file(scene.path("root.pub")));
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-N", "", "-f"]).arg(scene.path("root"));
        run(&mut command, b"").expect(0);
    };
    make("ecdsa");
    init("ed25519");
    make("ed25519");
    fs::copy(scene.path("root"), scene.path("host-authority")).unwrap();
    init("it is the root key as well");
    fs::remove_file(scene.path("host-authority")).unwrap();
    fs::remove_file(scene.path("host-authority.pub")).unwrap();
    let public = scene.text("root.pub");
    make("ed25519");
    fs::write(scene.path("root.pub"), public).unwrap();
    init("it is not the public half of");
    for name in ["root", "root.pub"] {
        fs::remove_file(scene.path(name)).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere/root", scene.path("root")).unwrap();
    init("a link to what is not there");
}

#[test]
fn what_is_signed_is_delivered_whatever_the_next_stage_of_a_rotation_lacks() {
    let cluster = harness::Cluster::found();
    cluster.keys(&["issue", "eve", "--role", "read"]).expect(0);
    cluster.keys(&["rotate", "--authority", "host", "--until", "learned"]).expect(0);
    let epoch = |node: &str| {
        let text = fs::read_to_string(cluster.directory(node).join("keys/bundle")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("epoch ")).unwrap().to_owned()
    };
    // One node's host takes no files, so it does not hear of the revocation.
    let folder = cluster.directory("node3").join("keys");
    let aside = cluster.path("aside");
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "").unwrap();
    cluster.keys(&["revoke", "eve"]).expect(1);
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    assert_ne!(epoch("node3"), epoch("node1"));
    let root = cluster.path("keys/root");
    fs::rename(&root, cluster.path("root-aside")).unwrap();
    let said = cluster.keys(&["resume"]).expect(78).said();
    assert!(said.contains("the root key"), "{said}");
    assert_eq!(epoch("node3"), epoch("node1"));
    fs::rename(cluster.path("root-aside"), &root).unwrap();
    cluster.keys(&["resume"]).expect(0);
}

#[test]
fn a_root_key_that_is_told_no_notes_nothing() {
    let scene = Scene::made();
    let agent = Agent::start(scene.folder.path());
    scene.ctl(&["issue", "alice", "--role", "read"], &[], 0);
    let root = scene.path("root");
    agent.add(&["-c"], &root);
    fs::remove_file(&root).unwrap();
    let with = [("SSH_AUTH_SOCK", agent.socket.as_path())];
    let said = scene.ctl(&["revoke", "alice"], &with, 77);
    assert!(said.contains("somebody said no"), "{said}");
    assert!(!scene.path("revoked").exists() && scene.epoch() == 1);
}

#[test]
fn an_answer_of_a_program_that_failed_is_none() {
    let scene = Scene::made();
    scene.protect("operator-authority");
    let program = scene.askpass(PASSPHRASE);
    let text = fs::read_to_string(&program).unwrap();
    fs::write(&program, format!("{text}exit 1\n")).unwrap();
    let forced = [("SSH_ASKPASS", program.as_path()), ("SSH_ASKPASS_REQUIRE", "force".as_ref())];
    let said = scene.ctl(&["issue", "alice", "--role", "read"], &forced, 78);
    assert!(said.contains("exit status: 1"), "{said}");
    assert_eq!(scene.asked().len(), 1);
}

/// A terminal at which somebody is asked for the passphrase of the operator authority.
fn asked(scene: &Scene) -> (AtTerminal, String) {
    let words = ["issue", "alice", "--role", "read"];
    let shown = AtTerminal::start(scene.command(&["--ctty"], &words, &[]));
    shown.until_shown("Passphrase of ");
    shown.until_mode(LocalModes::ECHO, false);
    let is_it = |pid: &String| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        words.contains("\0issue\0") && words.contains(scene.keys.to_str().unwrap())
    };
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pid = all.filter_map(|name| name.into_string().ok()).find(is_it).unwrap();
    (shown, pid)
}

fn send(signal: &str, pid: &str) {
    run(Command::new("sh").args(["-c", "kill -s $0 $1", signal, pid]), b"").expect(0);
}

#[test]
fn a_terminal_gets_its_echo_back_whatever_ends_the_program() {
    let scene = Scene::made();
    scene.protect("operator-authority");
    for signal in ["TERM", "INT", "QUIT", "HUP"] {
        let (mut shown, pid) = asked(&scene);
        // Ctrl-S stops nothing.
        shown.press(b"half\x13");
        send(signal, &pid);
        shown.until_mode(LocalModes::ECHO, true);
        let (code, screen, said) = shown.end();
        assert_eq!(code, Some(130), "{signal}: {screen}{said}");
        assert!(!screen.contains("half"), "{signal}: {screen:?}");
    }
}

#[test]
fn a_program_that_was_stopped_asks_anew_and_shows_nothing() {
    let scene = Scene::made();
    scene.protect("operator-authority");
    let (mut shown, pid) = asked(&scene);
    // Ctrl-Z does nothing; what was typed goes with the line.
    shown.press(b"half\x1a");
    send("STOP", &pid);
    let terminal = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    run(Command::new("stty").arg("-F").arg(&terminal).arg("sane"), b"").expect(0);
    shown.until_mode(LocalModes::ECHO, true);
    send("CONT", &pid);
    shown.until_mode(LocalModes::ECHO, false);
    shown.press(format!("wrong\x15{PASSPHRASE}é\x7f\n").as_bytes());
    let (code, screen, said) = shown.end();
    assert_eq!(code, Some(0), "{screen}{said}");
    assert!(!screen.contains(PASSPHRASE) && !screen.contains("wrong"), "{screen:?}");
    assert_eq!(screen.matches("Passphrase of ").count(), 2, "{screen:?}");
}

#[test]
fn what_is_too_long_is_no_passphrase_and_is_left_to_nobody() {
    let scene = Scene::made();
    scene.protect("operator-authority");
    let (mut shown, _pid) = asked(&scene);
    for tries in 1..=3 {
        // What is typed before somebody is asked is dropped.
        until("it is asked for", || {
            (shown.screen().matches("Passphrase of ").count() == tries).then_some(())
        });
        shown.press(format!("{PASSPHRASE}{}\n", "a".repeat(1200)).as_bytes());
    }
    let (code, screen, said) = shown.end();
    assert_eq!(code, Some(78), "{screen}{said}");
    assert!(said.contains("given 3 times") && !screen.contains("aaa"), "{said}{screen:?}");
}
