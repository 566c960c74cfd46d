//! The unit of a node, as systemd's own tools see it: they must have nothing to say against it, and
//! little about what it exposes.
//!
//! No systemd needs to run for that, but `systemd-analyze` must be there and know `--root`;
//! elsewhere this says that it was not run.

use paxos_ssh::controller::host::unit;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The highest exposure that passes, in tenths; systemd calls 2.5 "OK", and a service that says
/// nothing of itself has 96.
const EXPOSURE_MAX: &str = "25";

/// The first version that verifies units of another root directory and judges one unit alone.
const VERSION_MIN: u32 = 250;

/// Where a systemd's own units lie.
const OWN_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// What keeps this from being run here.
fn missing() -> Option<String> {
    let Ok(output) = Command::new("systemd-analyze").arg("--version").output() else {
        return Some("systemd-analyze is not installed".to_owned());
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    match version {
        Some(VERSION_MIN..) => None,
        _ => Some(format!("this systemd-analyze knows no --root: {text:?}")),
    }
}

/// A root directory in which a version of the program lies, and systemd's own units.
fn host() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let own = OWN_UNITS.iter().find(|path| Path::new(path).exists()).expect("systemd has units");
    fs::create_dir_all(path("usr/lib/systemd")).unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(own).arg(path("usr/lib/systemd/system"));
    assert!(copy.status().unwrap().success());
    for name in ["etc/systemd/system", "etc/paxos", "opt/paxos/1"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::write(path("opt/paxos/1/paxos"), "#!/bin/sh\n").unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path("opt/paxos/1/paxos"), executable).unwrap();
    let link = unit::program_path("c");
    let link = link.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
    symlink("/opt/paxos/1/paxos", path(&link)).unwrap();
    folder
}

fn install(host: &Path, template: &str, drop_in: Option<&str>) {
    let units = host.join("etc/systemd/system");
    fs::write(units.join(unit::TEMPLATE), template).unwrap();
    if let Some(text) = drop_in {
        let folder = units.join(unit::drop_in_folder("c"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(unit::DROP_IN), text).unwrap();
    }
}

fn analyze(host: &Path, words: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.arg(words[0]).arg("--root").arg(host).args(&words[1..]).arg(unit::name("c"));
    command.env("LC_ALL", "C").env("SYSTEMD_PAGER", "").output().unwrap()
}

/// What `systemd-analyze verify` complains about, unless it is about nothing.
fn complaint(host: &Path) -> Option<String> {
    let words = ["verify", "--man=no", "--generators=no", "--recursive-errors=no"];
    let output = analyze(host, &words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success() || !said.is_empty()).then_some(said)
}

/// The line with the overall exposure; fails if it is above the limit.
fn exposure(host: &Path) -> String {
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let output = analyze(host, &["security", "--offline=yes", "--no-pager", &threshold]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn systemd_has_nothing_to_say_against_a_node_wherever_its_data_lie() {
    if let Some(why) = missing() {
        println!("NOT RUN: {why}");
        return;
    }
    for (directory, address) in [
        ("/var/lib/paxos/c", "0.0.0.0:7022"),
        ("/var/lib/paxos/c", "[::]:22"),
        ("/data/c", "0.0.0.0:7022"),
        ("/data/of \"all\" 100% $HOME \\ nodes", "0.0.0.0:7022"),
        ("/run/user/db/c", "0.0.0.0:22"),
    ] {
        let host = host();
        let drop_in = unit::drop_in("c", &PathBuf::from(directory), &[address.to_owned()]);
        install(host.path(), &unit::template(), drop_in.as_deref());
        assert_eq!(complaint(host.path()), None, "{directory} {address}");
        println!("{directory} {address}: {}", exposure(host.path()));
    }
}

#[test]
fn a_unit_that_systemd_does_not_understand_is_seen() {
    if let Some(why) = missing() {
        println!("NOT RUN: {why}");
        return;
    }
    let host = host();
    let typo = unit::template().replace("\nProtectSystem=", "\nProtectsSystem=");
    install(host.path(), &typo, None);
    let said = complaint(host.path()).expect("there is no such word");
    assert!(said.contains("ProtectsSystem"), "{said}");
    let missing = unit::template().replace(".program ", ".programme ");
    install(host.path(), &missing, None);
    let said = complaint(host.path()).expect("there is no such program");
    assert!(said.contains("c.programme"), "{said}");
}
