//! The small supervisor of hosts without one: who is started again, and who is not.

use paxos_ssh::controller::host::local::LocalHost;
use paxos_ssh::controller::host::{Host, Layout, Place};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor over a shell script that notes each of its starts in a file.
fn supervise(starts: &Path, script: &str) -> Child {
    let script = format!("echo $$ >> \"$STARTS\"; {script}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos"));
    command.args(["become-supervisor", "sh", "-c", &script]).env("STARTS", starts);
    command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program is built")
}

/// The pids of all that were started.
fn started(starts: &Path) -> Vec<u32> {
    let text = fs::read_to_string(starts).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Looks until there is something.
fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come");
        std::thread::yield_now();
    }
}

fn ended(supervisor: &mut Child) -> ExitStatus {
    wait(|| supervisor.try_wait().expect("it is our child"))
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it runs");
}

#[test]
fn who_fails_is_started_again_and_who_is_done_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let script = "[ $(wc -l < \"$STARTS\") -ge 3 ] || exit 1";
    let status = ended(&mut supervise(&starts, script));
    assert_eq!((status.code(), started(&starts).len()), (Some(0), 3));
}

#[test]
fn damaged_data_and_bad_settings_want_a_person() {
    for exit in [65, 78] {
        let folder = tempfile::tempdir().unwrap();
        let starts = folder.path().join("starts");
        let status = ended(&mut supervise(&starts, &format!("exit {exit}")));
        assert_eq!((status.code(), started(&starts).len()), (Some(exit), 1));
    }
}

#[test]
fn a_signal_to_end_is_handed_on() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let mut supervisor = supervise(&starts, "trap 'exit 0' TERM; while :; do sleep 0.01; done");
    wait(|| started(&starts).first().copied());
    signal(supervisor.id(), rustix::process::Signal::TERM);
    let status = ended(&mut supervisor);
    assert_eq!((status.signal(), status.code(), started(&starts).len()), (None, Some(0), 1));
}

#[test]
fn the_signal_to_take_keys_up_is_handed_on_to_whoever_heeds_it() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let script = "trap 'echo heard >> \"$STARTS\"' HUP; trap 'exit 0' TERM; \
                  echo ready >> \"$STARTS\"; while :; do sleep 0.01; done";
    let mut supervisor = supervise(&starts, script);
    let says = |word: &str| {
        let text = fs::read_to_string(&starts).unwrap_or_default();
        text.lines().any(|line| line == word).then_some(())
    };
    wait(|| says("ready"));
    signal(supervisor.id(), rustix::process::Signal::HUP);
    wait(|| says("heard"));
    signal(supervisor.id(), rustix::process::Signal::TERM);
    let status = ended(&mut supervisor);
    assert_eq!((status.code(), started(&starts).len()), (Some(0), 1), "and nobody was ended by it");
}

/// The processes that run this executable.
fn running(executable: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let runs = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
            exe.to_string_lossy().trim_end_matches(" (deleted)") == executable.to_string_lossy()
        })
    };
    pids.filter(runs).collect()
}

#[test]
fn what_a_node_leaves_is_removed_with_whoever_would_start_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        node: "n1".to_owned(),
        directory: folder.path().join("n1"),
        listen: Vec::new(),
        layout: Layout::Own,
        supervised: true,
        login: None,
    };
    fs::create_dir(&place.directory).unwrap();
    let node = place.executable();
    // By another process: what is open for writing cannot be executed.
    assert!(Command::new("cp").arg("/bin/sh").arg(&node).status().unwrap().success());
    // Both show the node's words, as on a host. The node heeds nothing but SIGKILL, and has noted
    // itself in the place of whoever watches over it.
    let deaf = "trap '' TERM; echo $$ > \"$PID\"; while :; do sleep 0.01; done";
    let settings = place.path("config.yaml");
    let watch = "while :; do \"$0\" -c \"$DEAF\" sh \"$1\" --supervised; done";
    let mut command = Command::new(&node);
    command.args(["-c", watch]).arg(&node).arg(&settings);
    command.env("DEAF", deaf).env("PID", place.path("paxos.pid"));
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let host = LocalHost::default();
    let noted = |pid: u32| {
        fs::read_to_string(place.path("paxos.pid")).is_ok_and(|text| text.trim().parse() == Ok(pid))
    };
    wait(|| running(&node).into_iter().find(|pid| noted(*pid)));
    let removed = host.remove(&place);
    let left = running(&node);
    let _ended_already = child.kill();
    child.wait().unwrap();
    for pid in running(&node) {
        signal(pid, rustix::process::Signal::KILL);
    }
    assert_eq!(left, [0; 0], "somebody runs still");
    assert_eq!(removed.unwrap(), [0; 0].map(|_| std::path::PathBuf::new()));
    assert!(!place.directory.exists());
}

#[test]
fn a_node_knows_its_supervisor_or_does_not_start() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos"));
    command.args(["node", "--config", "/nowhere.yaml", "--supervised"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "it has a parent, and no settings");
}
