//! Whether the page of numbers tells the truth: what is on it was counted by somebody.

use super::harness::{Cluster, NODES, until};
use std::collections::BTreeMap;

/// Series that may be zero on every node of a cluster that does well, and what would move them.
const MAY_REST: &[(&str, &str)] = &[
    ("paxos_slots_in_flight", "zero whenever nothing is being written"),
    ("paxos_requests_pending", "zero whenever nothing is being asked"),
    ("paxos_log_queued_bytes", "zero whenever nothing is being written"),
    ("paxos_log_disk_full", "a full disk"),
    ("paxos_fenced", "an old copy of a directory"),
    ("paxos_ssh_disowned", "somebody who is connected and believed no more"),
    ("paxos_trust_bundle_revocations", "somebody whose key was taken away"),
    ("paxos_trust_reloads", "other keys while the node runs"),
    ("paxos_trust_reloads_refused", "an old bundle"),
    ("paxos_trust_bundles_from_log", "a bundle that came through the log first"),
    ("paxos_trust_bundles_from_log_refused", "somebody who slips one into the log"),
    ("paxos_log_unreadable", "a damaged disk"),
    ("paxos_loop_stalled", "a loop that stands still"),
    ("paxos_loop_stalls", "a loop that stands still"),
    ("paxos_preemptions", "two nodes that want to lead at once"),
    ("paxos_messages_refused", "a peer that breaks the protocol, or an inbox that is full"),
    ("paxos_ssh_accept_errors", "no file descriptors left"),
    ("paxos_ssh_overdue_members", "a certificate that nobody renewed"),
    ("paxos_ssh_refused_keys", "a stranger"),
    ("paxos_ssh_refused_requests", "a client that asks for more than there is"),
    ("paxos_ssh_unauthenticated_ended", "a stranger"),
    ("paxos_ssh_unauthenticated_cut", "a flood of strangers"),
    ("paxos_ssh_connections_refused", "a flood of clients"),
    ("paxos_ssh_stdin_overflows", "a client that ignores flow control"),
    ("paxos_ssh_peer_protocol_errors", "a peer of another version"),
    ("paxos_ssh_frames_dropped_full", "a peer that does not keep up"),
    ("paxos_ssh_frames_dropped_down", "a peer that is gone"),
    ("paxos_ssh_links_down", "a peer that is gone"),
    ("paxos_ssh_dials_failed", "a peer that is gone"),
];

/// Series that some node counts and not each: who leads differs, and so does who is asked.
const SOMEWHERE: &[&str] = &[
    "paxos_is_leader",
    "paxos_elections_started",
    "paxos_elections_won",
    "paxos_election_seconds",
    "paxos_proposals",
    "paxos_commit_seconds",
    "paxos_read_rounds",
];

/// Writes and reads at each node.
const ROUNDS: usize = 5;

/// Large enough to tell the log's bytes from everything else that is written meanwhile.
const VALUE_BYTES: usize = 200_000;

/// Every series of a node by its registered name: the value, or how many there were; those with
/// labels added up.
fn page(cluster: &Cluster, node: &str) -> BTreeMap<String, f64> {
    let text = cluster.ssh(node, "paxos metrics").expect(0).out();
    let mut series = BTreeMap::new();
    let (mut name, mut sample) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (typed, kind) = kind.split_once(' ').expect("a name and a type");
            let suffix = match kind {
                "counter" => "_total",
                "histogram" => "_count",
                "info" => "_info",
                "gauge" => "",
                other => panic!("{typed} is a {other}, which this test does not know"),
            };
            sample = format!("{typed}{suffix}");
            typed.clone_into(&mut name);
            series.insert(name.clone(), 0.0);
        } else if let Some((named, value)) = line.rsplit_once(' ')
            && named.split('{').next() == Some(&sample)
        {
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            series.entry(name.clone()).and_modify(|sum| *sum += value);
        }
    }
    series
}

/// What one series grew by, on all nodes together.
fn growth(before: &[BTreeMap<String, f64>], after: &[BTreeMap<String, f64>], name: &str) -> f64 {
    let sum = |pages: &[BTreeMap<String, f64>]| pages.iter().map(|page| page[name]).sum::<f64>();
    sum(after) - sum(before)
}

pub fn every_series_is_counted(cluster: &Cluster) {
    let before = NODES.map(|node| page(cluster, node));
    let value = vec![b'v'; VALUE_BYTES];
    for node in NODES {
        for round in 0..ROUNDS {
            let put = format!("paxos put counted-{node}-{round} -");
            cluster.ssh_input(node, &put, &value).expect(0);
            cluster.ssh(node, &format!("paxos get counted-{node}-{round}")).expect(0);
        }
    }
    let led = cluster.leader();
    cluster.ssh(led, "paxos leader transfer").expect(0);
    cluster.ssh(led, "paxos put counted v").expect(0);
    // A follower applies, and its gauges are renewed, a moment after the leader.
    let after = until("all have applied the same", || {
        let pages = NODES.map(|node| page(cluster, node));
        let applied = |page: &BTreeMap<String, f64>| page["paxos_applied_slot"];
        pages.iter().all(|page| applied(page) == applied(&pages[0])).then_some(pages)
    });

    let mut still = Vec::new();
    for name in after[0].keys() {
        let moved = after.iter().filter(|page| page[name] > 0.0).count();
        let wanted = match name.as_str() {
            name if MAY_REST.iter().any(|(resting, _)| *resting == name) => 0,
            name if SOMEWHERE.contains(&name) => 1,
            _ => NODES.len(),
        };
        if moved < wanted {
            still.push(format!("{name}: counted by {moved} nodes of {wanted}"));
        }
    }
    assert!(still.is_empty(), "registered, and counted by too few:\n{}", still.join("\n"));
    for name in MAY_REST.iter().map(|(name, _)| name).chain(SOMEWHERE) {
        assert!(after[0].contains_key(*name), "{name} is not on the page any more");
    }

    let requests = (NODES.len() * ROUNDS) as f64;
    let grew = |name: &str| growth(&before, &after, name);
    for name in ["paxos_proposals", "paxos_reads_confirmed"] {
        let count = grew(name);
        // Proposals are repeated when leadership moves, and a new leader has its session to open.
        assert!((requests..3.0 * requests).contains(&count), "{name} grew by {count}");
    }
    assert!((1.0..=requests).contains(&grew("paxos_read_rounds")));
    // A busy machine may have cost the leader its place once more.
    assert!(grew("paxos_elections_won") >= 1.0, "leadership was handed over");
    assert!(grew("paxos_leader_changes") >= 3.0, "and all three saw it");
    let written = requests * VALUE_BYTES as f64;
    for (before, after) in before.iter().zip(&after) {
        let bytes = after["paxos_log_written_bytes"] - before["paxos_log_written_bytes"];
        assert!((written..2.0 * written).contains(&bytes), "{bytes} bytes for {written}");
        assert_eq!(after["paxos_members"], 3.0);
    }
}
