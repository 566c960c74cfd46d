//! A node as a unit of systemd: installed when it differs, started, stopped, and taken away.
//!
//! All is asked of `systemctl`, with words that a person can repeat. It never waits for a job of
//! systemd's (`--no-block`), because a node may take minutes until it listens, and the controller
//! has a patience of its own: what is waited for is looked at. Units that do not begin as ours do
//! are somebody else's, and are not touched.
//!
//! The process itself is found and signalled as every other node's, by what it runs (see
//! [`Identity`]), so that a look at a host costs no call, and so that one which an older version
//! started without a unit is stopped as well.

use super::local::STOP_LIMIT;
use super::process::Identity;
use super::system::{self, SETTINGS};
use super::unit;
use crate::controller::wait::until;
use crate::transport::authority;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// It is there where systemd runs the host; see sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// Where an operator's units lie, and ours with them.
const UNITS: &str = "/etc/systemd/system";

/// The program that asks systemd.
const SYSTEMCTL: &str = "systemctl";

/// How long one question may take. Loading all units of a large host anew takes seconds; a systemd
/// that hangs would keep the controller waiting for minutes.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// How long systemd may take to start a process. What the process does then is not its business.
const START_LIMIT: Duration = Duration::from_secs(15);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// From this exit status on, systemd could not start the program; see systemd.exec(5).
const STATUS_OF_SYSTEMD: u32 = 200;

/// What is asked of a unit.
const PROPERTIES: &str = "ActiveState,SubState,UnitFileState,NeedDaemonReload,InvocationID,\
                          MainPID,ExecMainPID,ExecMainCode,ExecMainStatus";

/// `ExecMainCode` of a process that ended by itself (`CLD_EXITED`).
const EXITED: u32 = 1;

/// The systemd of a host.
#[derive(Debug, Clone)]
pub struct Systemd {
    systemctl: PathBuf,
    units: PathBuf,
    links: PathBuf,
}

/// What systemd says of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnitState {
    active: String,
    sub: String,
    enabled: bool,
    /// Whether files changed since it read them.
    stale: bool,
    /// Differs with each start.
    invocation: String,
    pid: u32,
    last_pid: u32,
    last_code: u32,
    last_status: u32,
}

/// A node that is to run as a unit.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// The unit's instance.
    pub cluster: &'a str,
    /// The node's data directory.
    pub directory: &'a Path,
    /// Addresses that it binds.
    pub listen: &'a [String],
    /// The version that is to run; no link.
    pub executable: &'a Path,
}

impl Systemd {
    /// The one that runs this host, if one does.
    pub fn running() -> Option<Systemd> {
        let booted = fs::symlink_metadata(BOOTED).is_ok_and(|found| found.is_dir());
        booted.then(|| Systemd::new(SYSTEMCTL, UNITS, SETTINGS))
    }

    /// One that is asked by this program, has units in this directory, and links to versions in
    /// that.
    pub fn new(
        systemctl: impl Into<PathBuf>,
        units: impl Into<PathBuf>,
        links: impl Into<PathBuf>,
    ) -> Systemd {
        Systemd { systemctl: systemctl.into(), units: units.into(), links: links.into() }
    }

    /// Installs the unit as far as it differs, has it start with the host from now on, starts it,
    /// and gives the pid once the process is the node. One that ended again by then is given as
    /// well, for its log says why.
    ///
    /// # Errors
    /// When a file cannot be written or is somebody else's, systemd refuses, or could not run the
    /// program.
    pub fn start(&self, service: &Service<'_>, identity: &Identity) -> io::Result<u32> {
        let name = unit::name(service.cluster);
        let changed = self.install(service)?;
        let before = self.show(&name)?;
        if changed || before.stale {
            self.ask(&["daemon-reload"])?;
        }
        if !before.enabled {
            self.ask(&["enable", "--quiet", &name])?;
        }
        self.ask(&["start", "--no-block", &name])?;
        let look = || -> io::Result<Option<u32>> {
            let state = self.show(&name)?;
            if state.pid != 0 && identity.is_process(state.pid) {
                return Ok(Some(state.pid));
            }
            // Until it was started anew, what is told is of the last time.
            match state.invocation != before.invocation && state.has_ended() {
                true => state.last_pid().map(Some),
                false => Ok(None),
            }
        };
        until(START_LIMIT, LOOK_EVERY, look)?.ok_or_else(|| {
            let message = format!("systemd started no process of {name} within {START_LIMIT:?}");
            io::Error::other(message)
        })
    }

    /// Tells the unit to stop, and does not wait. Says whether there was anything to stop: a
    /// process, or the wait before the next one.
    ///
    /// # Errors
    /// When systemd cannot be asked or refuses.
    pub fn stop(&self, cluster: &str) -> io::Result<bool> {
        let name = unit::name(cluster);
        if self.show(&name)?.is_over() {
            return Ok(false);
        }
        self.ask(&["stop", "--no-block", &name]).map(|_nothing| true)
    }

    /// Takes away what is the cluster's alone, once nothing of it runs.
    ///
    /// # Errors
    /// When the unit does not stop, systemd cannot be asked or refuses, or a file cannot be
    /// removed.
    pub fn forget(&self, cluster: &str) -> io::Result<()> {
        let name = unit::name(cluster);
        self.stop(cluster)?;
        let over = || Ok::<_, io::Error>(Some(self.show(&name)?).filter(UnitState::is_over));
        let Some(state) = until(STOP_LIMIT, LOOK_EVERY, over)? else {
            let message = format!("{name} did not stop within {STOP_LIMIT:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        };
        if state.enabled {
            self.ask(&["disable", "--quiet", &name])?;
        }
        let folder = self.units.join(unit::drop_in_folder(cluster));
        if remove_ours(&folder.join(unit::DROP_IN))? {
            // Somebody else's drop-ins may be left.
            let _not_empty = fs::remove_dir(&folder);
            self.ask(&["daemon-reload"])?;
        }
        match fs::remove_file(self.links.join(unit::program_name(cluster))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the template away, once no cluster has a node here.
    ///
    /// # Errors
    /// As [`Systemd::forget`].
    pub fn remove_template(&self) -> io::Result<()> {
        if remove_ours(&self.units.join(unit::TEMPLATE))? {
            self.ask(&["daemon-reload"])?;
        }
        Ok(())
    }

    /// Whether a unit changed. The link to the version is no part of it.
    fn install(&self, service: &Service<'_>) -> io::Result<bool> {
        let mut changed = write_ours(&self.units.join(unit::TEMPLATE), &unit::template())?;
        let folder = self.units.join(unit::drop_in_folder(service.cluster));
        let path = folder.join(unit::DROP_IN);
        match unit::drop_in(service.cluster, service.directory, service.listen) {
            Some(text) => {
                fs::create_dir_all(&folder)?;
                changed |= write_ours(&path, &text)?;
            }
            None => changed |= remove_ours(&path)?,
        }
        let link = self.links.join(unit::program_name(service.cluster));
        if fs::read_link(&link).ok().as_deref() != Some(service.executable) {
            system::replace_link(service.executable, &link)?;
        }
        Ok(changed)
    }

    fn show(&self, name: &str) -> io::Result<UnitState> {
        let text = self.ask(&["show", "--property", PROPERTIES, name])?;
        Ok(UnitState::parse(&text))
    }

    /// What systemctl answers. One that does not end in time is ended, and one that fails is
    /// quoted.
    fn ask(&self, words: &[&str]) -> io::Result<String> {
        let asked = format!("systemctl {}", words.join(" "));
        let mut command = Command::new(&self.systemctl);
        // Its messages are quoted, and read by people everywhere.
        command.args(words).arg("--no-ask-password").env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot run {asked}: {error}"))
        })?;
        // A few lines, which fit into a pipe, so that nobody has to read while it runs.
        let ended = until(ASK_LIMIT, LOOK_EVERY, || child.try_wait())?;
        let Some(status) = ended else {
            let _ended_already = child.kill();
            let _status = child.wait();
            let message = format!("{asked} did not end within {ASK_LIMIT:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        };
        let mut answer = String::new();
        let mut complaint = String::new();
        if let Some(mut output) = child.stdout.take() {
            output.read_to_string(&mut answer)?;
        }
        if let Some(mut errors) = child.stderr.take() {
            errors.read_to_string(&mut complaint)?;
        }
        match status.success() {
            true => Ok(answer),
            false => {
                let said = match complaint.trim() {
                    "" => status.to_string(),
                    said => said.to_owned(),
                };
                Err(io::Error::other(format!("{asked}: {said}")))
            }
        }
    }
}

impl UnitState {
    /// From the lines that `systemctl show` prints. What is not among them is as in a unit that was
    /// never started.
    fn parse(text: &str) -> UnitState {
        let mut state = UnitState::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let number = || value.parse().unwrap_or_default();
            match key {
                "ActiveState" => value.clone_into(&mut state.active),
                "SubState" => value.clone_into(&mut state.sub),
                "UnitFileState" => state.enabled = value == "enabled",
                "NeedDaemonReload" => state.stale = value == "yes",
                "InvocationID" => value.clone_into(&mut state.invocation),
                "MainPID" => state.pid = number(),
                "ExecMainPID" => state.last_pid = number(),
                "ExecMainCode" => state.last_code = number(),
                "ExecMainStatus" => state.last_status = number(),
                _ => {}
            }
        }
        state
    }

    /// Whether nothing runs and nothing will.
    fn is_over(&self) -> bool {
        matches!(self.active.as_str(), "" | "inactive" | "failed")
    }

    /// Whether the process ended; another may follow.
    fn has_ended(&self) -> bool {
        self.is_over() || self.sub.starts_with("auto-restart")
    }

    /// The process that ended.
    fn last_pid(&self) -> io::Result<u32> {
        let by_systemd = self.last_code == EXITED && self.last_status >= STATUS_OF_SYSTEMD;
        if by_systemd || self.last_pid == 0 {
            let message = format!(
                "systemd could not run the program (it is {}, status {})",
                self.active, self.last_status
            );
            return Err(io::Error::other(message));
        }
        Ok(self.last_pid)
    }
}

/// Writes a text of ours unless it is there already. Says whether it was written.
fn write_ours(path: &Path, text: &str) -> io::Result<bool> {
    match read_ours(path)? {
        Some(found) if found == text => Ok(false),
        _ => {
            let written = authority::write_file(path, text.as_bytes(), 0o644);
            written.map(|()| true).map_err(|error| io::Error::other(error.to_string()))
        }
    }
}

/// Removes a text of ours. Says whether there was one.
fn remove_ours(path: &Path) -> io::Result<bool> {
    match read_ours(path)? {
        Some(_) => fs::remove_file(path).map(|()| true),
        None => Ok(false),
    }
}

/// What is there, unless somebody else wrote it.
fn read_ours(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(unit::MARK) => Ok(Some(text)),
        Ok(_) => {
            let message = format!("{} is somebody else's; move it away", path.display());
            Err(io::Error::other(message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::cell::Cell;

    /// Stands for systemctl: notes what it is asked, shows what is in a file, and does on `start`
    /// what is in another.
    const FAKE: &str = r#"#!/bin/sh
echo "$*" | sed "s/ --no-ask-password//" >> "$0.calls"
case "$1" in
show) cat "$0.state" ;;
start) . "$0.start" ;;
refuse) echo "no such thing" >&2; exit 1 ;;
esac
"#;

    struct Host {
        folder: tempfile::TempDir,
        systemd: Systemd,
        identity: Identity,
        started: Cell<Option<u32>>,
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let pid = self.started.get().and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                let _ended_already = kill_process(pid, Signal::KILL);
            }
        }
    }

    impl Host {
        fn new() -> Host {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            // By another process: what is open for writing here may be so in one that another test
            // forks, and cannot be executed then.
            let place = |source: &Path, name: &str| {
                let mut install = Command::new("install");
                let placed = install.args(["-m", "755"]).arg(source).arg(path(name)).status();
                assert!(placed.unwrap().success());
            };
            fs::write(path("fake"), FAKE).unwrap();
            place(&path("fake"), "systemctl");
            place(Path::new("/bin/sleep"), "paxos");
            for name in ["units", "links"] {
                fs::create_dir(path(name)).unwrap();
            }
            let systemd = Systemd::new(path("systemctl"), path("units"), path("links"));
            let identity = Identity {
                executable: path("paxos"),
                any_version: false,
                settings: PathBuf::from("600"),
                pid_file: path("paxos.pid"),
            };
            let host = Host { folder, systemd, identity, started: Cell::new(None) };
            host.is(&["ActiveState=inactive", "InvocationID="]);
            host
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// What `show` says from now on.
        fn is(&self, lines: &[&str]) {
            fs::write(self.path("systemctl.state"), format!("{}\n", lines.join("\n"))).unwrap();
        }

        fn on_start(&self, script: &str) {
            fs::write(self.path("systemctl.start"), script).unwrap();
        }

        /// What was asked since the last time, without the looks.
        fn asked(&self) -> Vec<String> {
            let path = self.path("systemctl.calls");
            let text = fs::read_to_string(&path).unwrap_or_default();
            let _none_yet = fs::remove_file(path);
            text.lines().filter(|line| !line.starts_with("show")).map(str::to_owned).collect()
        }

        fn start(&self, directory: &str) -> io::Result<u32> {
            let executable = self.path("paxos");
            let listen = ["0.0.0.0:7022".to_owned()];
            let directory = Path::new(directory);
            let service =
                Service { cluster: "c", directory, listen: &listen, executable: &executable };
            self.systemd.start(&service, &self.identity)
        }
    }

    /// Starts what stands for the node, and says so.
    const RUNS: &str = "\"${0%/*}/paxos\" 600 >/dev/null 2>&1 &
printf 'ActiveState=activating\nInvocationID=2\nUnitFileState=enabled\nMainPID=%s\n' $! \
    > \"$0.state\"";

    #[test]
    fn a_node_is_installed_enabled_and_started() {
        let host = Host::new();
        host.on_start(RUNS);
        let pid = host.start("/var/lib/paxos/c").unwrap();
        host.started.set(Some(pid));
        assert!(host.identity.is_process(pid));
        let asked =
            ["daemon-reload", "enable --quiet paxos@c.service", "start --no-block paxos@c.service"];
        assert_eq!(host.asked(), asked);
        let template = fs::read_to_string(host.path("units/paxos@.service")).unwrap();
        assert_eq!(template, unit::template());
        assert_eq!(fs::read_link(host.path("links/c.program")).unwrap(), host.path("paxos"));
        assert!(!host.path("units/paxos@c.service.d").exists());
    }

    #[test]
    fn what_lies_there_already_is_loaded_again_only_if_systemd_has_not_read_it() {
        for (stale, asked) in [
            ("no", &["start --no-block paxos@c.service"][..]),
            ("yes", &["daemon-reload", "start --no-block paxos@c.service"][..]),
        ] {
            let host = Host::new();
            fs::write(host.path("units/paxos@.service"), unit::template()).unwrap();
            host.on_start(RUNS);
            let stale = format!("NeedDaemonReload={stale}");
            host.is(&["ActiveState=failed", "InvocationID=1", "UnitFileState=enabled", &stale]);
            host.started.set(Some(host.start("/var/lib/paxos/c").unwrap()));
            assert_eq!(host.asked(), asked);
        }
    }

    #[test]
    fn a_directory_elsewhere_has_a_drop_in_that_goes_when_it_comes_home() {
        let host = Host::new();
        let path = host.path("units/paxos@c.service.d/10-paxos.conf");
        let ended = "printf 'ActiveState=failed\\nInvocationID=%s\\nExecMainPID=7\\n' $$ > \
                     \"$0.state\"";
        host.on_start(ended);
        assert_eq!(host.start("/data/c").unwrap(), 7);
        assert!(fs::read_to_string(&path).unwrap().contains("ReadWritePaths=\"/data/c\""));
        host.asked();
        assert_eq!(host.start("/var/lib/paxos/c").unwrap(), 7);
        assert!(!path.exists());
        assert_eq!(host.asked()[0], "daemon-reload");
    }

    #[test]
    fn a_program_that_systemd_could_not_run_is_no_node_that_ended() {
        let host = Host::new();
        let state = "ActiveState=activating\\nSubState=auto-restart\\nInvocationID=2\\n\
                     ExecMainPID=7\\nExecMainCode=1\\nExecMainStatus=";
        for (status, runs) in [("203", false), ("226", false), ("78", true), ("1", true)] {
            host.on_start(&format!("printf '{state}{status}\\n' > \"$0.state\""));
            host.is(&["ActiveState=inactive", "InvocationID=1"]);
            let started = host.start("/var/lib/paxos/c");
            assert_eq!(started.is_ok(), runs, "{status}: {started:?}");
        }
    }

    #[test]
    fn a_unit_is_stopped_if_there_is_anything_to_stop() {
        let host = Host::new();
        for state in ["inactive", "failed"] {
            host.is(&[&format!("ActiveState={state}")]);
            assert!(!host.systemd.stop("c").unwrap());
        }
        assert!(host.asked().is_empty());
        for state in ["active", "activating"] {
            host.is(&[&format!("ActiveState={state}")]);
            assert!(host.systemd.stop("c").unwrap());
            assert_eq!(host.asked(), ["stop --no-block paxos@c.service"]);
        }
    }

    #[test]
    fn the_end_of_a_cluster_takes_its_own_and_no_more() {
        let host = Host::new();
        let drop_ins = host.path("units/paxos@c.service.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::write(drop_ins.join(unit::DROP_IN), format!("{}.\n", unit::MARK)).unwrap();
        fs::write(drop_ins.join("override.conf"), "[Service]\n").unwrap();
        fs::write(host.path("units/paxos@.service"), unit::template()).unwrap();
        host.is(&["ActiveState=inactive", "UnitFileState=enabled"]);
        host.systemd.forget("c").unwrap();
        assert_eq!(host.asked(), ["disable --quiet paxos@c.service", "daemon-reload"]);
        assert!(drop_ins.join("override.conf").exists() && !drop_ins.join(unit::DROP_IN).exists());
        host.is(&["ActiveState=inactive"]);
        host.systemd.forget("c").unwrap();
        assert!(host.asked().is_empty(), "twice is fine");
        host.systemd.remove_template().unwrap();
        host.systemd.remove_template().unwrap();
        assert_eq!(host.asked(), ["daemon-reload"]);
        assert!(!host.path("units/paxos@.service").exists());
    }

    #[test]
    fn somebody_elses_unit_is_not_touched() {
        let host = Host::new();
        let theirs = "[Service]\nExecStart=/bin/true\n";
        fs::write(host.path("units/paxos@.service"), theirs).unwrap();
        let error = host.start("/var/lib/paxos/c").unwrap_err().to_string();
        assert!(error.contains("paxos@.service is somebody else's"), "{error}");
        assert!(host.systemd.remove_template().is_err());
        assert_eq!(fs::read_to_string(host.path("units/paxos@.service")).unwrap(), theirs);
        assert!(host.asked().is_empty());
    }

    #[test]
    fn what_systemctl_complains_of_is_quoted() {
        let host = Host::new();
        let error = host.systemd.ask(&["refuse"]).unwrap_err().to_string();
        assert_eq!(error, "systemctl refuse: no such thing");
        let nowhere = Systemd::new("/nowhere/systemctl", "/", "/");
        let error = nowhere.stop("c").unwrap_err().to_string();
        assert!(error.starts_with("cannot run systemctl show"), "{error}");
    }
}
