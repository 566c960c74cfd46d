//! The words in which systemd is told how to run a node: one template for all clusters of a host,
//! and a drop-in where a node wants what the template does not allow.
//!
//! | path | what |
//! |---|---|
//! | `/etc/systemd/system/paxos@.service` | the template; the instance is the cluster's name |
//! | `….service.d/10-paxos.conf` beside it | another data directory, a port below 1024 |
//! | `/etc/paxos/CLUSTER.program` | a link to the version that was started last |
//!
//! The link is there because systemd starts a node that crashed, and every node of a host that
//! boots. By way of `/opt/paxos/current` it would take up a version that a deployment laid there
//! before it was cut short, at a time that nobody chose and on several hosts at once. So the
//! version is fixed when somebody starts the node, as it is under the small supervisor.
//!
//! The node's log is opened by the node's own account. systemd opens what `append:` names as root
//! and follows links, so whoever takes a node over, and with it its directory, could have root open
//! any file of the host for them to append to. Therefore the unit starts the program under a hidden
//! word that opens the log and becomes the node (see [`become_service`]). What goes wrong before
//! that is in the journal.
//!
//! Only what systemd 252 knows is used, so that `systemd-analyze verify` has nothing to say. In
//! particular the wait before another start does not grow: `RestartSteps=` came with 254.
//!
//! [`become_service`]: super::process::become_service

use super::system::{ACCOUNT, SETTINGS, STATE};
use crate::wire::failure::Code;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The template's name.
pub const TEMPLATE: &str = "paxos@.service";

/// The drop-in's name. An operator's own, which `systemctl edit` calls `override.conf`, comes after
/// it and wins.
pub const DROP_IN: &str = "10-paxos.conf";

/// How a text of ours begins. A unit without it is somebody else's.
pub const MARK: &str = "# Written by paxos-ctl";

/// The hidden word that makes the program the node of a unit.
pub const SERVE: &str = "become-service";

/// When systemd kills a node that was told to stop. Above [`STOP_LIMIT`](super::local::STOP_LIMIT),
/// so that the controller is the first to give up and can say so.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a node may take until it listens: it reads its log first, some gigabytes at worst, from
/// a disk that other nodes read as well after a power cut.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// Between a crash and the next start. Long enough that a node which cannot start does not burn its
/// host, and short beside what reading a log takes.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// Clients and peers, one file each, far beyond what one node serves; the usual limit of 1024 is
/// not.
pub const FILES_MAX: u32 = 65_536;

/// Ports below this want a capability.
const FIRST_FREE_PORT: u16 = 1024;

/// What the template hides from a node, and its data directory may lie in.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The unit of a cluster's node.
pub fn name(cluster: &str) -> String {
    format!("paxos@{cluster}.service")
}

/// Where the drop-ins of a cluster's unit lie, below the directory of units.
pub fn drop_in_folder(cluster: &str) -> String {
    format!("{}.d", name(cluster))
}

/// The name of the link to the version that was started last.
pub fn program_name(cluster: &str) -> String {
    format!("{cluster}.program")
}

/// The template.
pub fn template() -> String {
    let (corrupt, settings) = (Code::Corrupt.exit(), Code::BadSettings.exit());
    let start = start_line(&format!("{STATE}/%i"));
    let (starting, stopping) = (START_TIMEOUT.as_secs(), STOP_TIMEOUT.as_secs());
    let wait = RESTART_WAIT.as_secs();
    format!(
        "{MARK}, which writes it anew. What you want otherwise belongs into a drop-in:
# systemctl edit paxos@CLUSTER

[Unit]
Description=Paxos node of cluster %i
Wants=network-online.target
After=network-online.target
# A node that cannot start is tried again for ever: its disk or its address may come later.
StartLimitIntervalSec=0

[Service]
# It is ready when it listens, with or without a quorum.
Type=notify
NotifyAccess=main
User={ACCOUNT}
Group={ACCOUNT}
# Opens paxos.log in the data directory, as the account, and becomes `paxos node --config`. The
# link changes when somebody starts the node, and not when it crashes.
{start}
Restart=on-failure
RestartSec={wait}
# Damaged data, and settings that cannot be used: both want a person.
RestartPreventExitStatus={corrupt} {settings}
TimeoutStartSec={starting}
# More than handing leadership over and writing the log may take.
TimeoutStopSec={stopping}
StateDirectory=paxos/%i
StateDirectoryMode=0700
# For what must not outlive the process.
RuntimeDirectory=paxos-%i
RuntimeDirectoryMode=0700
UMask=0077
LimitNOFILE={FILES_MAX}
{HARDENING}
[Install]
WantedBy=multi-user.target
"
    )
}

/// What a node does without.
const HARDENING: &str = "
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateIPC=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
";

/// How the node is started; `directory` as a word of a command line.
fn start_line(directory: &str) -> String {
    format!("ExecStart={SETTINGS}/%i.program {SERVE} {directory} {SETTINGS}/%i.yaml")
}

/// What a node with this data directory and these addresses wants beyond the template; nothing for
/// most.
pub fn drop_in(cluster: &str, directory: &Path, listen: &[String]) -> Option<String> {
    let elsewhere = directory != Path::new(STATE).join(cluster);
    let low = listen.iter().any(|address| is_low_port(address));
    if !elsewhere && !low {
        return None;
    }
    let mut text = format!("{MARK}, which writes it anew.\n");
    let mut line = |line: &str| writeln!(text, "{line}").expect("a string takes everything");
    if elsewhere {
        let path = directory.to_string_lossy();
        let below = |folders: &[&str]| folders.iter().any(|folder| directory.starts_with(folder));
        line("\n[Unit]");
        line(&format!("RequiresMountsFor={}", quoted(&path)));
        line("\n[Service]");
        line("StateDirectory=");
        line(&format!("ReadWritePaths={}", quoted(&path)));
        // What is hidden cannot be opened in part.
        if below(&HOMES) {
            line("ProtectHome=read-only");
        }
        if below(&TEMPORARY) {
            line("PrivateTmp=no");
        }
        line("ExecStart=");
        // Only a command line has variables.
        line(&start_line(&quoted(&path).replace('$', "$$")));
    }
    if low {
        line("\n[Service]");
        line("CapabilityBoundingSet=CAP_NET_BIND_SERVICE");
        line("AmbientCapabilities=CAP_NET_BIND_SERVICE");
    }
    Some(text)
}

fn is_low_port(address: &str) -> bool {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.is_some_and(|port: u16| (1..FIRST_FREE_PORT).contains(&port))
}

/// One word of a unit, whatever is in it. Line breaks cannot be; no inventory lets them in.
fn quoted(text: &str) -> String {
    let mut word = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => word.extend(['\\', character]),
            '%' => word.push_str("%%"),
            _ => word.push(character),
        }
    }
    word.push('"');
    word
}

/// Where the link to the version that was started last lies.
pub fn program_path(cluster: &str) -> PathBuf {
    Path::new(SETTINGS).join(program_name(cluster))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::host::local::STOP_LIMIT;

    fn listen(address: &str) -> Vec<String> {
        vec![address.to_owned()]
    }

    #[test]
    fn systemd_is_more_patient_than_the_controller() {
        assert!(STOP_TIMEOUT > STOP_LIMIT);
    }

    #[test]
    fn the_template_holds_whatever_it_is_filled_in_with() {
        let text = template();
        assert!(text.starts_with(MARK));
        for line in [
            "ExecStart=/etc/paxos/%i.program become-service /var/lib/paxos/%i /etc/paxos/%i.yaml",
            "RestartPreventExitStatus=65 78",
            "TimeoutStopSec=30",
            "User=paxos",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        assert!(!text.contains("append:"), "root opens that, and follows links");
    }

    #[test]
    fn only_what_differs_from_the_template_is_in_a_drop_in() {
        let default = Path::new("/var/lib/paxos/c");
        for address in ["0.0.0.0:7022", "[::]:1024", "10.0.0.1:0", "nonsense"] {
            assert_eq!(drop_in("c", default, &listen(address)), None, "{address}");
        }
        let low = drop_in("c", default, &listen("[::]:22")).unwrap();
        assert!(low.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE"), "{low}");
        assert!(!low.contains("ExecStart"), "{low}");
        let elsewhere = drop_in("c", Path::new("/data/c"), &listen("[::]:7022")).unwrap();
        for line in ["StateDirectory=", "ReadWritePaths=\"/data/c\"", "ExecStart="] {
            assert!(elsewhere.lines().any(|found| found == line), "{line}:\n{elsewhere}");
        }
        assert!(!elsewhere.contains("Ambient") && !elsewhere.contains("Protect"), "{elsewhere}");
    }

    #[test]
    fn a_directory_in_a_hidden_place_is_shown() {
        let text = |path: &str| drop_in("c", Path::new(path), &[]).unwrap();
        assert!(text("/run/user/db/c").contains("ProtectHome=read-only"));
        assert!(text("/var/tmp/c").contains("PrivateTmp=no"));
        assert!(!text("/homes/c").contains("ProtectHome"));
    }

    #[test]
    fn no_path_is_read_as_words_of_the_unit() {
        let text = drop_in("c", Path::new("/data/a b\"%i$HOME\\"), &[]).unwrap();
        assert!(text.contains("ReadWritePaths=\"/data/a b\\\"%%i$HOME\\\\\"\n"), "{text}");
        assert!(text.contains(" \"/data/a b\\\"%%i$$HOME\\\\\" /etc"), "{text}");
    }
}
