//! What may happen to a leader, done to one while clients write, and how long they had to wait.

use super::harness::{Cluster, NODES, until};
use super::workload::Workload;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Pauses of one kind, in order of length.
#[derive(Debug, Default)]
pub struct Pauses(Vec<Duration>);

impl Pauses {
    pub fn add(&mut self, pause: Duration) {
        let at = self.0.partition_point(|other| *other <= pause);
        self.0.insert(at, pause);
    }

    /// The upper one of the two in the middle, if there are two.
    pub fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// One line for people.
    pub fn line(&self, what: &str) -> String {
        format!(
            "{what}, {} times: median {:.1} ms, longest {:.1} ms",
            self.0.len(),
            self.median().as_secs_f64() * 1e3,
            self.longest().as_secs_f64() * 1e3
        )
    }
}

/// Kills the leader; answers the pause to the next acknowledged write. The node is running again,
/// and the cluster healthy, afterwards.
#[track_caller]
pub fn kill_leader(cluster: &Cluster, work: &Workload) -> Duration {
    let leader = cluster.leader();
    let killed = Instant::now();
    cluster.signal(leader, Signal::KILL);
    let pause = work.next_acknowledged(killed);
    until("the killed leader is gone", || cluster.pid(leader).is_none().then_some(()));
    cluster.deploy().expect(0);
    cluster.wait_healthy();
    pause
}

/// Stops the leader as if it hung, without ending it; answers the pause to the next acknowledged
/// write. It goes on afterwards, as a follower.
#[track_caller]
pub fn freeze_leader(cluster: &Cluster, work: &Workload) -> Duration {
    let leader = cluster.leader();
    let frozen = Instant::now();
    cluster.signal(leader, Signal::STOP);
    let pause = work.next_acknowledged(frozen);
    cluster.signal(leader, Signal::CONT);
    cluster.wait_healthy();
    pause
}

/// Has the leader hand over to another node; answers the longest time without an acknowledgement
/// meanwhile.
#[track_caller]
pub fn transfer(cluster: &Cluster, work: &Workload) -> Duration {
    let leader = cluster.leader();
    let at = NODES.iter().position(|node| *node == leader).expect("it is one of them");
    let (next, asked) = (NODES[(at + 1) % NODES.len()], NODES[(at + 2) % NODES.len()]);
    let begun = Instant::now();
    cluster.ssh(asked, &format!("paxos leader transfer {next}")).expect(0);
    assert_eq!(cluster.leader(), next);
    // A gap that is still open ends with the next acknowledgement.
    work.next_acknowledged(Instant::now());
    work.longest_gap(begun, Instant::now())
}
