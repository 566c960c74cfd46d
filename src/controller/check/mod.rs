//! What a check makes of the facts: a row for each host and question, with what to do.
//!
//! A pure function of what hosts said. Where a figure is a matter of judgement it is a constant
//! here, with its reason. A fact that could not be had is no verdict: its row is missing, or says
//! so.
//!
//! | check | fails | warns |
//! |---|---|---|
//! | `reach` | the host is not reached, or does not let us work on it | |
//! | `program` | the program cannot be put there, or does not run there | |
//! | `look` | the host cannot say how it is | |
//! | `clock` | off by more than [`CLOCK_FAIL`] | [`CLOCK_WARN`] |
//! | `directory` | a node cannot keep its data there | |
//! | `space` | below [`SPACE_FAIL_BYTES`], [`FILES_FAIL`] | [`SPACE_WARN_BYTES`], [`FILES_WARN`] |
//! | `sync` | the disk takes longer than [`SYNC_FAIL`] | [`SYNC_WARN`] |
//! | `files` | fewer than [`OPEN_FILES_FAIL`] may be open | [`OPEN_FILES_WARN`] |
//! | `memory` | | below [`MEMORY_WARN_BYTES`] |
//! | `port` | somebody else has it, or it cannot be bound | |
//! | `cluster` | another cluster's, or not what this one was formed with | no member |
//! | `link` | another host cannot log in there | nobody knows who answers |
//!
//! [`links`] has the last of them.
//!
//! [`preflight`] asks all hosts, and [`examine`] is what it asks: [`probe`] looks at the ground,
//! [`trial_login`] logs in from one host at another.

pub mod examine;
pub mod links;
pub mod preflight;
pub mod probe;
pub mod trial_login;

use crate::controller::host::{Found, HostError};
use crate::controller::inventory::NodeSpec;
use crate::controller::keys::ClusterKeys;
use crate::controller::obstacle::Obstacle;
use crate::controller::plan::{NodeFacts, obstacle};
use crate::controller::state::ClusterState;
use crate::transport::authority::{BACKDATE, PublicKey};
use crate::wire::report::table;
use examine::{Examined, Stage, Unexamined};
use probe::{Disk, Ground, Probed};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Logs of several hosts are read side by side, and with more between them effects come before
/// their causes.
pub const CLOCK_WARN: Duration = Duration::from_millis(500);

/// Certificates are valid so much earlier than they are made: whoever is further behind does not
/// believe a new one.
pub const CLOCK_FAIL: Duration = BACKDATE;

/// Every write waits for such a sync on a quorum. What etcd asks of a disk.
pub const SYNC_WARN: Duration = Duration::from_millis(10);

/// A leader whose disk takes so long loses its lead to it again and again.
pub const SYNC_FAIL: Duration = Duration::from_millis(500);

/// Four segments of the log, of which the next is always made before the last one is full.
pub const SPACE_FAIL_BYTES: u64 = 256 << 20;

/// The log until it is first cut back, and snapshots of a small store beside it.
pub const SPACE_WARN_BYTES: u64 = 2 << 30;

/// A node makes about so many files: segments, snapshots, keys, settings.
pub const FILES_FAIL: u64 = 64;

/// A file system with fewer is about to be full of others' files.
pub const FILES_WARN: u64 = 1024;

/// Peers, the log and a few clients.
pub const OPEN_FILES_FAIL: u64 = 256;

/// As many connections as a node takes, with as much again for what they do.
pub const OPEN_FILES_WARN: u64 = 4096;

/// A million small keys take about this much.
pub const MEMORY_WARN_BYTES: u64 = 512 << 20;

/// In whose row the controller's own clock is.
pub const CONTROLLER: &str = "paxos-ctl";

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Pass,
    /// A cluster works there, and somebody should see to it.
    Warn,
    /// A cluster does not work there.
    Fail,
}

impl Grade {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Pass => "pass",
            Grade::Warn => "warn",
            Grade::Fail => "fail",
        }
    }
}

/// One question to one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The node whose host it is.
    pub node: String,
    /// What was asked.
    pub check: &'static str,
    /// What became of it.
    pub verdict: Grade,
    /// What was seen.
    pub detail: String,
    /// What to do; none where it passed.
    pub remedy: Option<String>,
}

impl Row {
    pub(super) fn pass(node: &str, check: &'static str, detail: impl Into<String>) -> Row {
        let (node, detail) = (node.to_owned(), detail.into());
        Row { node, check, verdict: Grade::Pass, detail, remedy: None }
    }

    pub(super) fn not(
        verdict: Grade,
        node: &str,
        check: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Row {
        let (node, detail) = (node.to_owned(), detail.into());
        // Nobody has to do anything about what passed.
        let remedy = (verdict != Grade::Pass).then(|| remedy.into());
        Row { node, check, verdict, detail, remedy }
    }

    fn failed(node: &str, check: &'static str, error: &HostError) -> Row {
        let detail = format!("cannot {}: {}", error.what, error.reason);
        Row::not(Grade::Fail, node, check, detail, &error.hint)
    }
}

/// What is known of a host, in numbers for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostReport {
    /// The node's name.
    pub node: String,
    /// At which address the others are to reach it.
    pub address: String,
    /// Whether it said how it is; if not, all else is unknown.
    pub examined: bool,
    /// Such as `x86_64`.
    pub architecture: Option<String>,
    /// Such as `glibc 2.36`.
    pub libc: Option<String>,
    /// How far its clock is ahead of the controller's.
    pub clock_offset_seconds: Option<f64>,
    /// By how much that may be wrong.
    pub clock_uncertainty_seconds: Option<f64>,
    /// The 99th percentile of making a block durable.
    pub sync_p99_seconds: Option<f64>,
    /// Bytes free for the node's data.
    pub free_bytes: Option<u64>,
    /// Bytes of memory that can be had.
    pub memory_bytes: Option<u64>,
    /// How many files a node there may have open.
    pub open_files: Option<u64>,
    /// The node's process, if it runs.
    pub pid: Option<u32>,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether nothing failed.
    pub ok: bool,
    /// The cluster.
    pub cluster: String,
    /// Every host, in the inventory's order.
    pub hosts: Vec<HostReport>,
    /// Every question, host by host.
    pub rows: Vec<Row>,
}

impl Report {
    /// Puts it together.
    pub fn new(cluster: &str, hosts: Vec<HostReport>, rows: Vec<Row>) -> Report {
        let ok = rows.iter().all(|row| row.verdict != Grade::Fail);
        Report { ok, cluster: cluster.to_owned(), hosts, rows }
    }

    /// A table for people, and below it what to do.
    pub fn to_text(&self) -> String {
        let cells = |row: &Row| {
            [
                row.node.clone(),
                row.check.to_owned(),
                row.verdict.name().to_owned(),
                flat(&row.detail),
            ]
        };
        let mut text = table(["NODE", "CHECK", "VERDICT", "DETAIL"], self.rows.iter().map(cells));
        for (at, (check, nodes, remedy)) in self.to_do().iter().enumerate() {
            if at == 0 {
                text.push_str("\nwhat to do:\n");
            }
            text.push_str(&format!("- {} {check}: {remedy}\n", nodes.join(", ")));
        }
        let count = |grade| self.rows.iter().filter(|row| row.verdict == grade).count();
        let (pass, warn, fail) = (count(Grade::Pass), count(Grade::Warn), count(Grade::Fail));
        text.push_str(&format!("\n{pass} pass, {warn} warn, {fail} fail\n"));
        text
    }

    /// What to do about which check of which nodes; what is to be done on many is said once.
    fn to_do(&self) -> Vec<(&'static str, Vec<&str>, String)> {
        let mut all: Vec<(&'static str, Vec<&str>, String)> = Vec::new();
        for row in &self.rows {
            let Some(remedy) = row.remedy.as_deref().map(flat) else { continue };
            let same =
                all.iter_mut().find(|(check, _, told)| *check == row.check && *told == remedy);
            match same {
                Some((_, nodes, _)) if nodes.contains(&row.node.as_str()) => {}
                Some((_, nodes, _)) => nodes.push(&row.node),
                None => all.push((row.check, vec![&row.node], remedy)),
            }
        }
        all
    }
}

/// A row is a line, whatever somebody said in it.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How far a clock is ahead of the controller's, in microseconds, and by how much that may be
/// wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// Ahead if positive.
    pub micros: i64,
    /// Half of what the question and the answer took on their way.
    pub uncertain: i64,
}

impl Offset {
    /// Of a host that was asked: as if question and answer had taken the same time.
    pub fn of(examined: &Examined) -> Offset {
        let Examined { probed, asked, answered } = examined;
        let ahead =
            probed.came.saturating_sub(*asked) / 2 + probed.left.saturating_sub(*answered) / 2;
        let there = probed.left.saturating_sub(probed.came);
        let way = answered.saturating_sub(*asked).saturating_sub(there);
        Offset { micros: ahead, uncertain: (way / 2).max(0) }
    }
}

/// The time that most have, ahead of the controller's. Of one or two hosts nobody can say which is
/// wrong, so there the controller's clock counts as well.
fn consensus(offsets: &[i64]) -> i64 {
    let mut all = offsets.to_vec();
    match all.len() {
        0 | 1 => return 0,
        2 => all.push(0),
        _ => {}
    }
    all.sort_unstable();
    let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
    low / 2 + high / 2
}

/// Each host's clock, and the controller's, against the time that most have.
pub fn judge_clocks(offsets: &[(&str, Offset)]) -> Vec<Row> {
    let all: Vec<i64> = offsets.iter().map(|(_, offset)| offset.micros).collect();
    let common = consensus(&all);
    let whom = if all.len() == 1 { "this machine's" } else { "the median" };
    let judge = |node: &str, micros: i64, uncertain: i64, remedy: String| {
        // What is certain: no clock is called wrong for a slow network.
        let off = micros.unsigned_abs().saturating_sub(uncertain.unsigned_abs());
        let verdict = at_most(off, micros_of(CLOCK_WARN), micros_of(CLOCK_FAIL));
        let way = if micros < 0 { "behind" } else { "ahead of" };
        let (off, uncertain) = (span(micros.unsigned_abs()), span(uncertain.unsigned_abs()));
        let detail = format!("{off} {way} {whom} (within {uncertain})");
        Row::not(verdict, node, "clock", detail, remedy)
    };
    let mut rows = Vec::new();
    for (node, offset) in offsets {
        let remedy =
            format!("have chrony or systemd-timesyncd set the clock of the host of {node}");
        rows.push(judge(node, offset.micros.saturating_sub(common), offset.uncertain, remedy));
    }
    if offsets.len() > 1 {
        // As wrong as the best of the questions to hosts.
        let uncertain = offsets.iter().map(|(_, offset)| offset.uncertain).min().unwrap_or(0);
        let remedy = "set the clock of this machine: it dates the certificates that hosts believe";
        rows.push(judge(CONTROLLER, common.saturating_neg(), uncertain, remedy.to_owned()));
    }
    rows
}

/// A host that did not come so far as to say how it is.
pub fn judge_unexamined(node: &NodeSpec, unexamined: &Unexamined) -> Vec<Row> {
    let (name, error) = (node.name.as_str(), &unexamined.error);
    let reached = || Row::pass(name, "reach", reached(node));
    match unexamined.stage {
        Stage::Reach => vec![Row::failed(name, "reach", error)],
        Stage::Program => vec![reached(), Row::failed(name, "program", error)],
        Stage::Look => vec![reached(), Row::failed(name, "look", error)],
    }
}

fn reached(node: &NodeSpec) -> String {
    match &node.login {
        None => "this machine".to_owned(),
        Some(login) => match login.becomes_root {
            true => format!("logs in at {} and becomes root", login.host),
            false => format!("logs in at {}", login.host),
        },
    }
}

/// What a host said of itself, its clock and its links excepted.
pub fn judge_host(node: &NodeSpec, probed: &Probed) -> Vec<Row> {
    let name = node.name.as_str();
    let libc = probed.libc.as_ref().map_or(String::new(), |libc| format!(", {libc}"));
    let mut rows = vec![
        Row::pass(name, "reach", reached(node)),
        Row::pass(name, "program", format!("runs there: {}{libc}", probed.architecture)),
        judge_ground(node, &probed.ground),
        judge_space(name, &probed.disk),
    ];
    rows.extend(judge_syncs(name, &probed.disk));
    rows.push(judge_open_files(name, probed.open_files));
    if let Some(memory) = probed.memory {
        let verdict = at_least(memory, MEMORY_WARN_BYTES, 0);
        let remedy = "a store is kept in memory as a whole; give the host more, or end something";
        rows.push(Row::not(
            verdict,
            name,
            "memory",
            format!("{} can be had", size(memory)),
            remedy,
        ));
    }
    rows
}

fn judge_ground(node: &NodeSpec, ground: &Ground) -> Row {
    let (name, path) = (node.name.as_str(), node.data_dir.display());
    match ground {
        Ground::Held => Row::pass(name, "directory", format!("{path} is the node's")),
        Ground::Free => Row::pass(name, "directory", format!("{path} can be made")),
        Ground::Unusable(why) => {
            let remedy = format!(
                "see who owns {path} and what it is mounted from, or give {name} another \
                 paxos_data_dir"
            );
            Row::not(Grade::Fail, name, "directory", why, remedy)
        }
    }
}

fn judge_space(name: &str, disk: &Disk) -> Row {
    let mut verdict = at_least(disk.free_bytes, SPACE_WARN_BYTES, SPACE_FAIL_BYTES);
    let mut detail = format!("{} free under {}", size(disk.free_bytes), disk.at.display());
    if let Some(files) = disk.free_files {
        let grade = at_least(files, FILES_WARN, FILES_FAIL);
        if grade > Grade::Pass {
            detail.push_str(&format!(", in {files} more files at most"));
        }
        verdict = verdict.max(grade);
    }
    let remedy = "make room on that disk, or give the node a paxos_data_dir on another";
    Row::not(verdict, name, "space", detail, remedy)
}

fn judge_syncs(name: &str, disk: &Disk) -> Option<Row> {
    let remedy = "give the node a paxos_data_dir on a faster disk, or one of its own";
    // Not tried where the directory is of no use, which has a row of its own.
    match disk.syncs.as_ref()? {
        Ok(syncs) => {
            let verdict = at_most(syncs.p99_micros, micros_of(SYNC_WARN), micros_of(SYNC_FAIL));
            let (p99, max) = (span(syncs.p99_micros), span(syncs.max_micros));
            let detail = format!("99 of 100 within {p99}, the slowest of {} {max}", syncs.count);
            Some(Row::not(verdict, name, "sync", detail, remedy))
        }
        Err(error) => {
            let detail = format!("cannot write under {}: {error}", disk.at.display());
            let remedy = "see that the disk is whole and has room";
            Some(Row::not(Grade::Fail, name, "sync", detail, remedy))
        }
    }
}

fn judge_open_files(name: &str, limit: Option<u64>) -> Row {
    let Some(limit) = limit else { return Row::pass(name, "files", "any number may be open") };
    let verdict = at_least(limit, OPEN_FILES_WARN, OPEN_FILES_FAIL);
    let remedy = format!(
        "raise nofile to {OPEN_FILES_WARN} or more for the account that logs in \
         (/etc/security/limits.conf), or LimitNOFILE= of the node's unit; a node that runs must be \
         restarted then"
    );
    Row::not(verdict, name, "files", format!("{limit} may be open"), remedy)
}

/// Whether the node can listen. `refused` is why somebody who stood in for it could not.
pub fn judge_port(node: &NodeSpec, found: &Found, refused: Option<&HostError>) -> Row {
    let (name, listen) = (node.name.as_str(), node.listen.join(", "));
    if let Some(holder) = found.held.first() {
        let obstacle = Obstacle::PortHeld(node.name.clone(), holder.clone());
        return Row::not(Grade::Fail, name, "port", obstacle.to_string(), obstacle.hint());
    }
    match (found.running, refused) {
        (Some(pid), _) => Row::pass(name, "port", format!("the node has {listen} (pid {pid})")),
        (None, Some(error)) => Row::failed(name, "port", error),
        (None, None) => Row::pass(name, "port", format!("{listen} can be bound")),
    }
}

/// What the controller knows of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its name.
    pub cluster: &'a str,
    /// What it was formed with, if it was formed from here.
    pub state: Option<&'a ClusterState>,
    /// Its keys, if there are any.
    pub keys: Option<&'a ClusterKeys>,
}

/// Whose node a settings file is of.
#[derive(Debug, Deserialize)]
struct Named {
    cluster: String,
    node: String,
    id: u64,
}

/// Whether what lies on the host is this node's, of this cluster, as it was formed.
pub fn judge_cluster(node: &NodeSpec, found: &Found, known: Known<'_>) -> Row {
    let name = node.name.as_str();
    let row = |verdict, detail: String, remedy: String| {
        Row::not(verdict, name, "cluster", detail, remedy)
    };
    if let Some(whose) = somebody_elses(node, found, known) {
        let remedy = format!(
            "see that the inventory and --keys-dir are those of the cluster that lives there; or \
             destroy that one; or give {name} another paxos_data_dir and paxos_port"
        );
        return row(Grade::Fail, whose, remedy);
    }
    let facts = NodeFacts {
        directory: found.directory,
        log: found.log,
        genesis_waiting: found.genesis,
        running: found.running,
        ..NodeFacts::default()
    };
    let formed_elsewhere = known.state.is_none() && (found.log || found.running.is_some());
    let obstacle = match formed_elsewhere {
        true => Some(Obstacle::FormedElsewhere(vec![node.name.clone()])),
        false => obstacle(node, &facts, known.state),
    };
    if let Some(obstacle) = obstacle {
        // The others go on without one that is not of them.
        let verdict = match obstacle {
            Obstacle::NotAMember(_) => Grade::Warn,
            _ => Grade::Fail,
        };
        return row(verdict, obstacle.to_string(), obstacle.hint());
    }
    let detail = match (found.running, found.log) {
        (Some(_), _) => "the node runs",
        (None, true) => "the node is deployed, and does not run",
        (None, false) => "no cluster is there",
    };
    Row::pass(name, "cluster", detail)
}

fn somebody_elses(node: &NodeSpec, found: &Found, known: Known<'_>) -> Option<String> {
    let text = |at: usize| {
        let bytes = found.files.get(at)?.as_deref()?;
        std::str::from_utf8(bytes).ok()
    };
    // What is no settings file of ours is nobody's; a deployment writes over it.
    let named = text(0).and_then(|text| serde_saphyr::from_str::<Named>(text).ok());
    if let Some(Named { cluster, node: other, id }) = named
        && (cluster != known.cluster || other != node.name || id != node.id.0)
    {
        return Some(format!(
            "what is there belongs to node {other} (id {id}) of cluster {cluster}"
        ));
    }
    let root = text(1).and_then(|line| PublicKey::from_openssh(line.trim()).ok());
    match (root, known.keys) {
        (Some(there), Some(keys)) if !keys.had_root(&there) => Some(format!(
            "what is there belongs to another cluster named {}: its root key is another",
            known.cluster
        )),
        _ => None,
    }
}

fn micros_of(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Of something that should be small.
fn at_most(value: u64, warn: u64, fail: u64) -> Grade {
    match value {
        value if value > fail => Grade::Fail,
        value if value > warn => Grade::Warn,
        _ => Grade::Pass,
    }
}

/// Of something that should be large.
fn at_least(value: u64, warn: u64, fail: u64) -> Grade {
    match value {
        value if value < fail => Grade::Fail,
        value if value < warn => Grade::Warn,
        _ => Grade::Pass,
    }
}

/// A span of time for people.
pub(super) fn span(micros: u64) -> String {
    let seconds = micros as f64 / 1e6;
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", seconds * 1e3),
        1_000_000..120_000_000 => format!("{seconds:.1} s"),
        _ => format!("{:.1} min", seconds / 60.0),
    }
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    match mebibytes {
        small if small < 1024.0 => format!("{small:.0} MiB"),
        large => format!("{:.1} GiB", large / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::check::probe::Syncs;
    use crate::controller::keys::issuer::Issuer;
    use crate::controller::keys::signers::nobody;
    use crate::controller::plan::PortHolder;
    use crate::controller::plan::tests::three_nodes;
    use crate::paxos::ballot::ClusterId;
    use crate::transport::authority;
    use crate::transport::bundle::AuthorityRole;
    use std::path::PathBuf;

    const SECOND: i64 = 1_000_000;

    fn probed() -> Probed {
        Probed {
            came: 0,
            left: 0,
            found: Found { files: vec![None, None], ..Found::default() },
            architecture: "x86_64".to_owned(),
            libc: Some("glibc 2.36".to_owned()),
            memory: Some(8 << 30),
            open_files: Some(1 << 20),
            ground: Ground::Free,
            disk: Disk {
                at: PathBuf::from("/var/lib"),
                free_bytes: 100 << 30,
                free_files: Some(1 << 20),
                syncs: Some(Ok(Syncs { count: 200, p99_micros: 900, max_micros: 2_000 })),
            },
            caller: Ok(String::new()),
        }
    }

    /// The one row that did not pass, for a host that is otherwise as it should be.
    fn fault(change: impl FnOnce(&mut Probed)) -> Row {
        let mut probed = probed();
        change(&mut probed);
        let rows = judge_host(&three_nodes().nodes[0], &probed);
        let mut bad = rows.into_iter().filter(|row| row.verdict != Grade::Pass);
        let row = bad.next().expect("something is wrong");
        assert_eq!(bad.next(), None);
        assert!(row.remedy.is_some(), "{row:?}");
        row
    }

    #[test]
    fn a_good_host_passes_everything() {
        let rows = judge_host(&three_nodes().nodes[0], &probed());
        assert!(rows.iter().all(|row| row.verdict == Grade::Pass), "{rows:?}");
        let checks: Vec<&str> = rows.iter().map(|row| row.check).collect();
        assert_eq!(checks, ["reach", "program", "directory", "space", "sync", "files", "memory"]);
        assert!(rows.iter().all(|row| row.remedy.is_none()), "{rows:?}");
    }

    #[test]
    fn each_fault_of_a_host_has_its_row() {
        let seen = |change: fn(&mut Probed)| {
            let row = fault(change);
            (row.check, row.verdict)
        };
        assert_eq!(seen(|p| p.disk.free_bytes = SPACE_FAIL_BYTES - 1), ("space", Grade::Fail));
        assert_eq!(seen(|p| p.disk.free_bytes = SPACE_FAIL_BYTES), ("space", Grade::Warn));
        assert_eq!(seen(|p| p.disk.free_files = Some(3)), ("space", Grade::Fail));
        assert_eq!(seen(|p| p.disk.free_files = Some(FILES_FAIL)), ("space", Grade::Warn));
        assert_eq!(seen(|p| p.open_files = Some(1024)), ("files", Grade::Warn));
        assert_eq!(seen(|p| p.open_files = Some(64)), ("files", Grade::Fail));
        assert_eq!(seen(|p| p.memory = Some(1 << 20)), ("memory", Grade::Warn));
        let unusable = |p: &mut Probed| {
            p.ground = Ground::Unusable("it is read-only".to_owned());
            p.disk.syncs = None;
        };
        assert_eq!(seen(unusable), ("directory", Grade::Fail));
        let full = |p: &mut Probed| p.disk.syncs = Some(Err("No space left".to_owned()));
        assert_eq!(seen(full), ("sync", Grade::Fail));
        let slow = |micros| {
            move |p: &mut Probed| {
                let syncs = Syncs { count: 4, p99_micros: micros, max_micros: micros };
                p.disk.syncs = Some(Ok(syncs));
            }
        };
        assert_eq!(fault(slow(10_001)).verdict, Grade::Warn);
        assert_eq!(fault(slow(500_001)).verdict, Grade::Fail);
    }

    fn offset(micros: i64) -> Offset {
        Offset { micros, uncertain: 0 }
    }

    #[test]
    fn a_clock_is_read_in_the_middle_of_the_question() {
        // Asked at 100, answered at 300, and it worked for 100 in between: 50 on each way.
        let quick = Probed { came: 5_150, left: 5_250, ..probed() };
        let examined = Examined { probed: quick, asked: 100, answered: 300 };
        assert_eq!(Offset::of(&examined), Offset { micros: 5_000, uncertain: 50 });
        let behind = Probed { came: i64::MIN, left: i64::MIN, ..probed() };
        let absurd = Examined { probed: behind, asked: i64::MAX, answered: i64::MAX };
        assert!(Offset::of(&absurd).micros < 0, "whatever a host says, nothing overflows");
        assert_eq!(judge_clocks(&[("n1", Offset::of(&absurd))])[0].verdict, Grade::Fail);
    }

    #[test]
    fn the_clock_that_differs_from_most_is_the_wrong_one() {
        let verdicts = |offsets: &[i64]| -> Vec<Grade> {
            let named: Vec<(&str, Offset)> = offsets.iter().map(|m| ("n", offset(*m))).collect();
            judge_clocks(&named).iter().map(|row| row.verdict).collect()
        };
        use Grade::{Fail, Pass, Warn};
        assert_eq!(verdicts(&[0, 0, 2 * SECOND]), [Pass, Pass, Warn, Pass]);
        assert_eq!(verdicts(&[0, -301 * SECOND, 0]), [Pass, Fail, Pass, Pass]);
        let all = [600 * SECOND; 3];
        assert_eq!(verdicts(&all), [Pass, Pass, Pass, Fail], "it is the controller's that is off");
        assert_eq!(verdicts(&[0, 600 * SECOND]), [Pass, Fail, Pass], "the controller's decides");
        assert_eq!(verdicts(&[600 * SECOND]), [Fail]);
        assert_eq!(verdicts(&[0, 0, 0, 600 * SECOND]), [Pass, Pass, Pass, Fail, Pass]);
        assert!(verdicts(&[]).is_empty());
    }

    #[test]
    fn a_slow_way_makes_no_clock_wrong() {
        let far = Offset { micros: 2 * SECOND, uncertain: 1_600_000 };
        let rows = judge_clocks(&[("n1", offset(0)), ("n2", far), ("n3", offset(0))]);
        assert_eq!(rows[1].verdict, Grade::Pass);
        assert!(rows[1].detail.contains("2.0 s ahead of") && rows[1].detail.contains("1.6 s"));
    }

    #[test]
    fn a_host_that_was_not_examined_says_how_far_it_came() {
        let node = &three_nodes().nodes[0];
        let at = |stage| {
            let error = HostError {
                node: "n1".to_owned(),
                what: "log in".to_owned(),
                reason: "its host key is not the one that known_hosts has".to_owned(),
                hint: "find out from whoever runs the host".to_owned(),
            };
            judge_unexamined(node, &Unexamined { stage, error })
        };
        let last = |stage| at(stage).pop().map(|row| (row.check, row.verdict));
        assert_eq!(last(Stage::Reach), Some(("reach", Grade::Fail)));
        assert_eq!(last(Stage::Program), Some(("program", Grade::Fail)));
        assert_eq!(last(Stage::Look), Some(("look", Grade::Fail)));
        let row = &at(Stage::Reach)[0];
        assert!(row.detail.contains("cannot log in: its host key"), "{row:?}");
        assert_eq!(row.remedy.as_deref(), Some("find out from whoever runs the host"));
    }

    #[test]
    fn a_port_is_the_nodes_or_free_or_somebodys() {
        let node = &three_nodes().nodes[0];
        let mut found = Found::default();
        assert_eq!(judge_port(node, &found, None).verdict, Grade::Pass);
        let error = HostError {
            node: "n1".to_owned(),
            what: "listen for it".to_owned(),
            reason: "Cannot assign requested address".to_owned(),
            hint: "see paxos_listen".to_owned(),
        };
        assert_eq!(judge_port(node, &found, Some(&error)).verdict, Grade::Fail);
        found.running = Some(7);
        assert!(judge_port(node, &found, None).detail.contains("pid 7"));
        found.running = None;
        let process = Some((9, "nginx".to_owned()));
        found.held = vec![PortHolder { address: "127.0.0.1:1".to_owned(), process }];
        let row = judge_port(node, &found, None);
        assert_eq!(row.verdict, Grade::Fail);
        assert!(row.detail.contains("nginx (pid 9)"), "{row:?}");
        assert!(row.remedy.is_some_and(|remedy| remedy.contains("stop nginx")));
    }

    #[test]
    fn what_lies_there_is_this_clusters_or_it_fails() {
        let inventory = three_nodes();
        let node = &inventory.nodes[0];
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Issuer::open_or_init(folder.path(), "c", nobody).unwrap();
        let replaced = keys.keys().root().clone();
        keys.begin_rotation(AuthorityRole::Root).unwrap();
        keys.switch(AuthorityRole::Root).unwrap();
        keys.forget(AuthorityRole::Root).unwrap();
        let ours = keys.keys().root().clone();
        let theirs = authority::new_key("theirs").unwrap().public_key().clone();
        let mut state = ClusterState::form(&inventory, ClusterId(7), || 9);
        let files = |settings: &str, root: &PublicKey| {
            let root = authority::public_line(root).into_bytes();
            vec![Some(settings.as_bytes().to_vec()), Some(root)]
        };
        let settings = "cluster: c\nnode: n1\nid: 1\nlisten: []\n";
        let verdict = |found: &Found, state: Option<&ClusterState>| {
            let known = Known { cluster: "c", state, keys: Some(keys.keys()) };
            let row = judge_cluster(node, found, known);
            (row.verdict, row.detail)
        };
        let nothing = Found { files: vec![None, None], ..Found::default() };
        assert_eq!(verdict(&nothing, None).0, Grade::Pass);
        let deployed = Found { log: true, files: files(settings, &ours), ..Found::default() };
        assert_eq!(verdict(&deployed, Some(&state)).0, Grade::Pass);
        let (grade, detail) = verdict(&deployed, None);
        assert_eq!(grade, Grade::Fail, "a log of which nobody here knows");
        assert!(detail.contains("already have logs"), "{detail}");
        let other = Found { files: files(settings, &theirs), ..Found::default() };
        assert_eq!(verdict(&other, Some(&state)).0, Grade::Fail, "another root");
        let slept = Found { log: true, files: files(settings, &replaced), ..Found::default() };
        assert_eq!(verdict(&slept, Some(&state)).0, Grade::Pass, "the root of before");
        for text in ["cluster: d\nnode: n1\nid: 1\n", "cluster: c\nnode: n2\nid: 2\n"] {
            let other = Found { files: files(text, &ours), ..Found::default() };
            assert_eq!(verdict(&other, Some(&state)).0, Grade::Fail, "{text}");
        }
        let rubbish = Found { files: files("][", &ours), ..Found::default() };
        assert_eq!(verdict(&rubbish, None).0, Grade::Pass, "nobody's");
        state.mark_given("n1");
        let (grade, detail) = verdict(&nothing, Some(&state));
        assert_eq!(grade, Grade::Fail);
        assert!(detail.contains("its log is gone"), "{detail}");
        state.nodes.retain(|node| node.name != "n1");
        assert_eq!(verdict(&nothing, Some(&state)).0, Grade::Warn, "no member");
    }

    #[test]
    fn a_report_is_a_table_with_what_to_do_below() {
        let rows = vec![
            Row::pass("n1", "reach", "this machine"),
            Row::not(Grade::Fail, "n2", "port", "in use\nby nginx", "stop nginx"),
            Row::not(Grade::Warn, "n1", "files", "7 may be open", "raise nofile"),
            Row::not(Grade::Warn, "n2", "files", "8 may be open", "raise nofile"),
        ];
        let report = Report::new("c", Vec::new(), rows);
        assert!(!report.ok);
        let text = report.to_text();
        assert!(text.contains("n2    port   fail     in use by nginx\n"), "{text}");
        assert!(text.contains("- n2 port: stop nginx\n"), "{text}");
        assert!(text.contains("- n1, n2 files: raise nofile\n"), "{text}");
        assert!(text.ends_with("\n1 pass, 2 warn, 1 fail\n"), "{text}");
        assert!(Report::new("c", Vec::new(), Vec::new()).ok);
    }

    #[test]
    fn figures_are_as_a_person_says_them() {
        assert_eq!(span(999), "999 us");
        assert_eq!(span(1_500), "1.5 ms");
        assert_eq!(span(2_000_000), "2.0 s");
        assert_eq!(span(300_000_000), "5.0 min");
        assert_eq!((size(5 << 20), size(3 << 30)), ("5 MiB".to_owned(), "3.0 GiB".to_owned()));
    }
}
