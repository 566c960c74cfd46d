//! A file system of its own for the log of each node, so that it can be full without harm to
//! anything else. Needs root; whoever is not goes without.
//!
//! It lies in memory and ends with [`Disks`], but not with a node's process: what a killed node had
//! written is there when it comes back, as with any disk whose machine goes on.

use super::harness::{Cluster, pause, until};
use super::workload;
use bytes::Bytes;
use paxos_ssh::store::command::Condition;
use paxos_ssh::wire::rpc::Call;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// So many nodes, the first ones, have a disk of their own; the others are on the machine's, whose
/// syncs take the time that they take.
pub const NODES: usize = 2;

/// More than any run writes; memory is taken only for what is written.
const ROOM: &str = "size=8g";

/// A segment of the log, and half of the next one that may be prepared already.
const BALLAST_BYTES: usize = 112 << 20;

/// What one write of the ballast holds: as large as the store takes.
const PIECE_BYTES: usize = 1 << 20;

/// Writes of the ballast that are under way at once.
const PIECES_AT_ONCE: usize = 8;

/// What a piece may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the disk of a node may take to become full, or to have room again. The ballast goes to
/// all nodes, and these are on the same processors.
pub const FULL_WITHIN: Duration = Duration::from_secs(30);

/// The logs' file systems.
pub struct Disks {
    mounted: Vec<PathBuf>,
}

impl Disks {
    /// Mounts one for the log of each of the first nodes of a planned cluster.
    ///
    /// # Errors
    /// Why there are none.
    pub fn mount(cluster: &Cluster) -> Result<Disks, String> {
        if !rustix::process::getuid().is_root() {
            return Err("only root may mount".to_owned());
        }
        let mut disks = Disks { mounted: Vec::new() };
        for node in &cluster.nodes[..NODES] {
            let path = log(cluster, node);
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let options = format!("{ROOM},mode=0700");
            mount(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "soak"]), &path)?;
            disks.mounted.push(path);
        }
        Ok(disks)
    }

    /// Takes away the room for anything new, and has so much written through `by` that the log of
    /// `node` needs some. Answers whether it said so.
    pub fn fill(runtime: &Runtime, cluster: &Cluster, node: &'static str, by: &str) -> bool {
        let path = log(cluster, node);
        // What is being prepared just now may take a page more in between.
        until("the disk is as small as what is on it", || {
            let now = rustix::fs::statvfs(&path).expect("it is mounted");
            let used = (now.f_blocks - now.f_bfree) * now.f_frsize;
            resize(&path, &format!("size={used}")).ok()
        });
        let ballast = runtime.spawn(ballast(workload::client(&cluster.ssh_config(), &[by], 0)));
        let deadline = Instant::now() + FULL_WITHIN;
        let mut said_so = is_full(cluster, node);
        while !said_so && !ballast.is_finished() && Instant::now() < deadline {
            pause();
            said_so = is_full(cluster, node);
        }
        ballast.abort();
        said_so
    }

    /// Gives the room back.
    pub fn heal(cluster: &Cluster, node: &str) {
        resize(&log(cluster, node), ROOM).expect("it had as much before");
    }

    /// Copies what is there to files that stay.
    pub fn keep(&self) {
        for path in &self.mounted {
            let copy = path.with_extension("kept");
            let _created = fs::create_dir_all(&copy);
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                let _copied = fs::copy(entry.path(), copy.join(entry.file_name()));
            }
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for path in &self.mounted {
            let unmounted = Command::new("umount").arg(path).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("{} stays mounted", path.display());
            }
        }
    }
}

/// Whether the node says that its disk is full.
pub fn is_full(cluster: &Cluster, node: &str) -> bool {
    cluster.ssh(node, "paxos metrics").out().contains("\npaxos_log_disk_full 1")
}

fn log(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.directory(node).join("log")
}

fn resize(path: &Path, size: &str) -> Result<(), String> {
    let options = format!("remount,{size}");
    mount(Command::new("mount").args(["-o", &options]), path)
}

fn mount(command: &mut Command, path: &Path) -> Result<(), String> {
    let output = command.arg(path).output().map_err(|error| format!("mount: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Writes large values over each other. What becomes of each does not matter.
async fn ballast(client: Client) {
    let client = Arc::new(client);
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..PIECES_AT_ONCE {
        let client = Arc::clone(&client);
        writers.spawn(async move {
            for _ in 0..BALLAST_BYTES / PIECE_BYTES / PIECES_AT_ONCE {
                let put = Call::Put {
                    key: Bytes::from(format!("ballast/{number}")),
                    value: Bytes::from(vec![b'x'; PIECE_BYTES]),
                    condition: Condition::Always,
                    request_id: None,
                };
                let _any_outcome = client.call(put, PIECE_TIMEOUT).await;
            }
        });
    }
    while writers.join_next().await.is_some() {}
}

type Client = paxos_ssh::client::cluster::Cluster<paxos_ssh::client::ssh_config::Node>;
