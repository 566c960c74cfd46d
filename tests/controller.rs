//! What the controller does to a machine, short of running nodes: those are in tests/cluster.

use paxos_ssh::controller::check::examine::{Examined, Examiner, Unexamined};
use paxos_ssh::controller::check::trial_login::{Dial, Dialled};
use paxos_ssh::controller::check::{Grade, Row};
use paxos_ssh::controller::deploy::Cluster;
use paxos_ssh::controller::host::local::LocalHost;
use paxos_ssh::controller::host::lock::{Busy, Holder};
use paxos_ssh::controller::host::{Found, Halt, Halted, Host, HostError, Place, Wanted};
use paxos_ssh::controller::inventory::Inventory;
use paxos_ssh::controller::inventory::groups::Sources;
use paxos_ssh::controller::keys::ClusterKeys;
use paxos_ssh::controller::keys::issuer::Issuer;
use paxos_ssh::controller::keys::signers::nobody;
use paxos_ssh::controller::observe::Asker;
use paxos_ssh::controller::plan::FileState;
use paxos_ssh::controller::recover::remains::Remains;
use paxos_ssh::controller::state::ClusterState;
use paxos_ssh::paxos::ballot::ClusterId;
use paxos_ssh::transport::bundle::AuthorityRole;
use paxos_ssh::wire::failure::Code;
use paxos_ssh::wire::report::StatusReport;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

/// A cluster of one node that was never deployed, with everything in `folder`.
fn cluster(folder: &Path, name: &str) -> Cluster {
    let text = format!(
        "all:\n  vars: {{paxos_cluster: {name}, ansible_connection: local}}\n  hosts:\n    \
         n1: {{paxos_id: 1, paxos_port: 1}}\n"
    );
    let sources = Sources { file: "i.yaml".into(), text, ..Sources::default() };
    Cluster {
        inventory: Inventory::from_sources(&sources, &folder.join("state")).unwrap(),
        file: "i.yaml".into(),
        keys_dir: folder.join("keys"),
        tool: PathBuf::from("/bin/true"),
        binary: None,
        host: Arc::new(LocalHost::default()),
        ask: nobody,
    }
}

/// A host on which every node runs, or ended with these last words.
struct Stage {
    running: Option<u32>,
    last_words: &'static str,
}

impl Host for Stage {
    fn find(&self, _place: &Place, wanted: &Wanted<'_>) -> Result<Found, HostError> {
        let files = wanted.files.iter().map(|_| None).collect();
        Ok(Found { running: self.running, files, ..Found::default() })
    }

    fn ensure_node_key(&self, _place: &Place, _comment: &str) -> Result<String, HostError> {
        unreachable!("nothing is installed here")
    }

    fn next_node_key(&self, _place: &Place, _comment: &str) -> Result<String, HostError> {
        unreachable!("nothing is installed here")
    }

    fn settle_node_key(&self, _place: &Place) -> Result<(), HostError> {
        unreachable!("nothing is installed here")
    }

    fn receive(&self, _: &Place, _: &str, _: u32, _: &[u8]) -> Result<(), HostError> {
        unreachable!("nothing is installed here")
    }

    fn receive_executable(&self, _place: &Place, _source: &Path) -> Result<(), HostError> {
        unreachable!("nothing is installed here")
    }

    fn start(&self, _place: &Place) -> Result<u32, HostError> {
        Ok(7)
    }

    fn halt(&self, _place: &Place, _how: Halt) -> Result<Halted, HostError> {
        Ok(Halted::WasNotRunning)
    }

    fn reload(&self, _place: &Place) -> Result<Option<u32>, HostError> {
        Ok(self.running)
    }

    fn status(&self, _place: &Place) -> Result<StatusReport, HostError> {
        unreachable!("nobody here has a socket")
    }

    fn survey(&self, _place: &Place) -> Result<Remains, HostError> {
        unreachable!("nobody is recovered here")
    }

    fn log_tail(&self, _place: &Place, _lines: usize) -> Result<Vec<String>, HostError> {
        Ok(self.last_words.lines().map(str::to_owned).collect())
    }

    fn hold(&self, _place: &Place, _holder: &Holder) -> Result<Option<Busy>, HostError> {
        Ok(None)
    }

    fn touch(&self, _place: &Place) -> Result<(), HostError> {
        Ok(())
    }

    fn release(&self, _place: &Place) {}

    fn remove(&self, _place: &Place) -> Result<Vec<PathBuf>, HostError> {
        Ok(Vec::new())
    }
}

impl Examiner for Stage {
    fn examine(&self, _place: &Place, _source: &Path) -> Result<Examined, Unexamined> {
        unreachable!("nothing is checked here")
    }

    fn stand_in(&self, _: &Place, _: &str, _: &[String]) -> Result<String, HostError> {
        unreachable!("nothing is checked here")
    }

    fn dismiss(&self, _place: &Place) -> Result<(), HostError> {
        unreachable!("nothing is checked here")
    }

    fn dial(&self, _place: &Place, _to: &[Dial]) -> Result<Vec<Dialled>, HostError> {
        unreachable!("nothing is checked here")
    }
}

/// As [`cluster`], with an operator's key and a host out of a play.
fn staged(folder: &Path, stage: Stage) -> Cluster {
    let cluster = Cluster { host: Arc::new(stage), ..cluster(folder, "c") };
    let issuer = Issuer::open_or_init(&cluster.keys_dir, "c", nobody).unwrap();
    issuer.ensure_operator(SystemTime::now()).unwrap();
    cluster
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
        let failure = cluster.destroy("fakec", &mut |_| Ok(())).unwrap_err();
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
    drop(Issuer::open_or_init(&cluster.keys_dir, "two", nobody).unwrap());
    // Even with a state of its own beside them.
    let state = ClusterState::form(&cluster.inventory, ClusterId(1), || 1);
    state.save(&cluster.keys_dir).unwrap();
    let before = everything_in(&cluster.keys_dir);
    let failure = cluster.destroy("one", &mut |_| Ok(())).unwrap_err();
    assert!(failure.message.contains("two"), "{}", failure.message);
    assert_eq!(everything_in(&cluster.keys_dir), before);
}

#[test]
fn destroy_removes_what_was_made_and_tells_what_it_left() {
    for forged in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let cluster = cluster(folder.path(), "c");
        let mut issuer = Issuer::open_or_init(&cluster.keys_dir, "c", nobody).unwrap();
        issuer.ensure_operator(SystemTime::now()).unwrap();
        issuer.begin_rotation(AuthorityRole::Host).unwrap();
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
        let left = cluster.destroy("c", &mut |_| Ok(())).unwrap();
        assert_eq!(left, std::slice::from_ref(&thesis), "forged: {forged}");
        assert_eq!(everything_in(&cluster.keys_dir), ["thesis"]);
        assert_eq!(everything_in(&thesis), ["chapter"], "a link is not followed");
        let again = cluster.destroy("c", &mut |_| Ok(())).unwrap();
        assert_eq!(again, std::slice::from_ref(&thesis), "twice is fine");
        fs::remove_dir_all(&thesis).unwrap();
        assert!(cluster.destroy("c", &mut |_| Ok(())).unwrap().is_empty());
        assert!(!cluster.keys_dir.exists());
    }
}

#[test]
fn a_node_that_ends_at_once_passes_its_own_failure_on() {
    let table = [
        (
            "INFO x\nERROR it is damaged\npaxos: it is damaged (corrupt)\nhint: keep it\n",
            Code::Corrupt,
            "n1 ended right after its start: it is damaged",
            "keep it (log: ",
        ),
        (
            "paxos: no key\n in there (bad_settings)\nhint: deploy again\n",
            Code::BadSettings,
            "n1 ended right after its start: no key\n in there",
            "deploy again (log: ",
        ),
        (
            "thread panicked\n",
            Code::Internal,
            "n1 ended right after its start; its last words were:\n  thread panicked",
            "mend what it says and deploy again; its log is ",
        ),
    ];
    for (last_words, code, message, hint) in table {
        let folder = tempfile::tempdir().unwrap();
        let cluster = staged(folder.path(), Stage { running: None, last_words });
        let keys = ClusterKeys::open_existing(&cluster.keys_dir, "c").unwrap();
        let asker = Asker::new(&keys, "c").unwrap();
        let node = cluster.known("n1").unwrap();
        let failure = cluster.wait_answers(&asker, &[node]).unwrap_err();
        assert_eq!((failure.code, &*failure.message), (code, message));
        assert!(failure.hint.starts_with(hint), "{}", failure.hint);
    }
}

#[test]
fn nodes_that_cannot_be_asked_are_not_said_to_lack_a_quorum() {
    for running in [Some(77), None] {
        let folder = tempfile::tempdir().unwrap();
        let cluster = staged(folder.path(), Stage { running, last_words: "" });
        let overview = cluster.status().unwrap();
        assert_eq!(overview.exit(), 69, "it was asked, or it is known not to run");
        let key = cluster.keys_dir.join("people/operator");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let status = cluster.status();
        fs::remove_dir_all(&cluster.keys_dir).unwrap();
        for status in [status, cluster.status()] {
            match running {
                Some(_) => assert_eq!(status.unwrap_err().code, Code::BadSettings),
                None => assert_eq!(status.unwrap().exit(), 69),
            }
        }
    }
}

#[test]
fn a_restart_is_refused_while_nobody_says_who_the_members_are() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = staged(folder.path(), Stage { running: Some(7), last_words: "" });
    let failure = cluster.restart(&[], false, &mut |_| Ok(())).unwrap_err();
    assert_eq!(failure.code, Code::NoQuorum);
    assert!(failure.message.contains("left alone"), "{}", failure.message);
    // What the controller remembers counts, and the inventory does not: n1 is one of two.
    let mut state = ClusterState::form(&cluster.inventory, ClusterId(1), || 1);
    let mut second = state.nodes[0].clone();
    (second.name, second.id, second.proposer) = ("n2".to_owned(), 2, Some(2));
    second.address = "127.0.0.1:2".to_owned();
    state.nodes.push(second);
    let text = serde_saphyr::to_string(&state).unwrap();
    let text = text.replace("phase1: 1", "phase1: 2").replace("phase2: 1", "phase2: 2");
    fs::write(cluster.keys_dir.join("state.yaml"), text).unwrap();
    let failure = cluster.restart(&[], false, &mut |_| Ok(())).unwrap_err();
    assert!(failure.message.contains("only 0 acceptors answer"), "{}", failure.message);
}

#[test]
fn a_signing_key_that_others_can_read_is_refused_by_a_plan() {
    for name in ["root", "host-authority", "peer-authority", "operator-authority"] {
        let folder = tempfile::tempdir().unwrap();
        let cluster = staged(folder.path(), Stage { running: None, last_words: "" });
        cluster.facts().unwrap();
        let path = cluster.keys_dir.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = cluster.facts().unwrap_err();
        assert_eq!(failure.code, Code::BadSettings, "{name}");
        assert!(failure.message.contains(name), "{}", failure.message);
        assert!(failure.hint.contains("chmod 600"), "{}", failure.hint);
        fs::remove_file(&path).unwrap();
        cluster.facts().expect("a key that is moved away exposes nobody");
    }
}

#[test]
fn who_asks_shows_the_plan_first_and_an_answer_says_that_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let inventory = folder.path().join("i.yaml");
    let text = "all:\n  vars: {paxos_cluster: c, ansible_connection: local}\n  hosts:\n    \
                n1: {paxos_id: 1, paxos_port: 1}\n";
    fs::write(&inventory, text).unwrap();
    let ctl = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-ctl"));
        command.args(words).arg(&inventory).arg("--keys-dir").arg(folder.path().join("keys"));
        command.env("XDG_STATE_HOME", folder.path()).stdin(Stdio::null());
        command.output().unwrap()
    };
    let asked = ctl(&["deploy", "-o", "json"]);
    let told = String::from_utf8_lossy(&asked.stderr);
    assert!(told.contains("to do for cluster c:") && told.contains("n1: start"), "{told}");
    let json: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!((asked.status.code(), &json["ok"]), (Some(64), &serde_json::json!(false)));
    let status = ctl(&["status", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((status.status.code(), &json["ok"]), (Some(69), &serde_json::json!(true)));
}

#[test]
fn a_lost_key_is_made_anew_and_told_to_all_but_a_lost_log_concerns_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let text = "all:\n  vars: {paxos_cluster: c, ansible_connection: local}\n  hosts:\n    \
                n1: {paxos_id: 1, paxos_port: 1}\n    n2: {paxos_id: 2, paxos_port: 2}\n";
    let sources = Sources { file: "i.yaml".into(), text: text.to_owned(), ..Sources::default() };
    let inventory = Inventory::from_sources(&sources, folder.path()).unwrap();
    let cluster = Cluster { inventory, ..cluster(folder.path(), "c") };
    let issuer = Issuer::open_or_init(&cluster.keys_dir, "c", nobody).unwrap();
    for node in &cluster.inventory.nodes {
        let line = LocalHost::default().ensure_node_key(&Place::of(node), &node.name).unwrap();
        issuer.ensure_node(&node.name, node.id, &line, SystemTime::now()).unwrap();
    }
    for node in &cluster.inventory.nodes {
        for file in issuer.keys().node_files(&node.name, &[]).unwrap() {
            let (name, text) = (format!("keys/{}", file.name), file.text.as_bytes());
            LocalHost::default().receive(&Place::of(node), &name, file.mode, text).unwrap();
        }
        LocalHost::default().receive(&Place::of(node), "log/1", 0o600, b"x").unwrap();
    }
    let mut state = ClusterState::form(&cluster.inventory, ClusterId(1), || 1);
    state.mark_given("n1");
    state.mark_given("n2");
    state.save(&cluster.keys_dir).unwrap();
    let keys = || {
        let facts = cluster.facts().unwrap();
        ["n1", "n2"].map(|name| facts.nodes[name].keys)
    };
    assert_eq!(keys(), [FileState::Same, FileState::Same]);
    let second = Place::of(&cluster.inventory.nodes[1]).directory;
    fs::remove_file(second.join("keys/node_key")).unwrap();
    assert_eq!(keys(), [FileState::Differs, FileState::Absent]);
    fs::remove_dir_all(&second).unwrap();
    assert_eq!(keys(), [FileState::Same, FileState::Absent]);
}

/// Ports on which nobody listens, as far as that can be.
fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

#[test]
fn a_check_finds_a_port_that_is_taken_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = free_ports();
    let text = format!(
        "all:\n  vars: {{paxos_cluster: c, ansible_connection: local}}\n  hosts:\n    \
         n1: {{paxos_id: 1, paxos_port: {first}}}\n    n2: {{paxos_id: 2, paxos_port: {second}}}\n"
    );
    let sources = Sources { file: "i.yaml".into(), text, ..Sources::default() };
    let inventory = Inventory::from_sources(&sources, &folder.path().join("state")).unwrap();
    let cluster = Cluster { inventory, ..cluster(folder.path(), "c") };
    let verdict = |rows: &[Row], node: &str, check: &str| {
        let mut rows = rows.iter().filter(|row| row.node == node && row.check == check);
        rows.next().map(|row| (row.verdict, row.detail.clone()))
    };
    let mut said = Vec::new();
    let mut say = |text: &str| {
        said.push(text.to_owned());
        Ok(())
    };
    let report = cluster.check(&mut say).unwrap();
    assert_eq!(said, ["look at 2 hosts", "log in from each to each of 2 nodes"]);
    for node in ["n1", "n2"] {
        for check in ["reach", "program", "directory", "port", "cluster", "clock", "link"] {
            let verdict = verdict(&report.rows, node, check);
            let passed = verdict.as_ref().is_some_and(|(verdict, _)| *verdict == Grade::Pass);
            assert!(passed, "{node} {check}: {verdict:?}");
        }
    }
    let taken = TcpListener::bind(("127.0.0.1", second)).expect("whoever stood in is gone");
    let report = cluster.check(&mut |_text| Ok(())).unwrap();
    assert!(!report.ok);
    let (grade, detail) = verdict(&report.rows, "n2", "port").unwrap();
    assert_eq!(grade, Grade::Fail);
    assert!(detail.contains(&format!("127.0.0.1:{second}")), "{detail}");
    assert_eq!(verdict(&report.rows, "n2", "link"), None, "nobody can be dialled there");
    assert_eq!(verdict(&report.rows, "n1", "link").map(|(grade, _)| grade), Some(Grade::Pass));
    drop(taken);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The inventory may well be right.
#[test]
fn a_host_out_of_reach_is_no_fault_of_the_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let [closed, _] = free_ports();
    let inventory = folder.path().join("i.yaml");
    let host = format!("{{paxos_id: 1, ansible_host: 127.0.0.1, ansible_port: {closed}}}");
    let text = format!("all:\n  vars: {{paxos_cluster: c}}\n  hosts:\n    n1: {host}\n");
    fs::write(&inventory, text).unwrap();
    for words in [&["plan"][..], &["deploy", "--yes"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-ctl"));
        command.args(words).arg(&inventory).arg("--keys-dir").arg(folder.path().join("keys"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("the host of n1 could not be looked at"), "{said}");
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
    }
}
