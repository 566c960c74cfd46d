//! The commands of a scenario.
//!
//! | command | what happens |
//! |---|---|
//! | `nodes N [quorums Q1 Q2] [window W]` | N nodes of all roles, `n1` to `nN`, freshly founded |
//! | `campaign NODE` | it tries to lead, asking nobody |
//! | `put NODE NUMBER` | a client of this node wants the number chosen |
//! | `read NODE NUMBER` | a client of this node wants to read |
//! | `deliver FROM TO` | all messages that are on their way between the two arrive |
//! | `lose FROM TO` | they do not |
//! | `sync NODE` | its disk takes what was handed to it |
//! | `settle` | messages arrive and disks sync until nothing is left to do |
//! | `run TICKS` | time passes everywhere, settling after each tick; heartbeats are not told |
//! | `tick NODE TICKS` | time passes at one node alone |
//! | `cut FROM TO`, `mend` | what goes from one to the other is lost from now on; until `mend` |
//! | `stall NODE`, `free NODE` | its disk does not sync when things settle; it does again |
//! | `crash NODE`, `start NODE` | a power cut; a start from what the disk holds |
//! | `twin NODE NEW` | a second process with its identity and a copy of its disk |
//! | `suspect NODE PEER` | evidence that the peer is dead |
//! | `handover NODE TO` | the leader passes leadership on |
//! | `status` | a line for each node |

use crate::cluster::Cluster;
use paxos_ssh::paxos::quorum::QuorumSystem;
use std::fmt::Write as _;

/// Slots that may be open unless a scenario says otherwise.
const WINDOW: u32 = 16;

/// The scenario with its answers written anew.
pub fn play(scenario: &str) -> String {
    let mut text = String::new();
    let mut cluster = None;
    for line in scenario.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let _ = writeln!(text, "{line}");
            let words: Vec<&str> = command.split_whitespace().collect();
            for told in obey(&mut cluster, &words) {
                let _ = writeln!(text, "{told}");
            }
        } else if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn obey(cluster: &mut Option<Cluster>, words: &[&str]) -> Vec<String> {
    if let ["nodes", count, rest @ ..] = words {
        *cluster = Some(founded(number(count), rest));
        return Vec::new();
    }
    let cluster = cluster.as_mut().expect("a scenario begins with `nodes`");
    match words {
        ["campaign", node] => cluster.campaign(node),
        ["put", node, command] => cluster.propose(node, number(command)),
        ["read", node, token] => cluster.read(node, number(token)),
        ["deliver", from, to] => cluster.deliver(from, to),
        ["lose", from, to] => cluster.lose(from, to),
        ["sync", node] => cluster.sync(node),
        ["settle"] => cluster.settle(),
        ["run", ticks] => cluster.run(number(ticks) as u32),
        ["tick", node, ticks] => cluster.tick(node, number(ticks) as u32),
        ["cut", from, to] => cluster.cut(from, to),
        ["mend"] => cluster.mend(),
        ["stall", node] => cluster.stall(node, true),
        ["free", node] => cluster.stall(node, false),
        ["crash", node] => cluster.crash(node),
        ["start", node] => cluster.start(node),
        ["twin", node, new] => cluster.clone_node(node, new),
        ["suspect", node, peer] => cluster.suspect(node, peer),
        ["handover", node, to] => cluster.hand_over(node, to),
        ["status"] => cluster.status(),
        _ => panic!("no such command: {}", words.join(" ")),
    }
    cluster.told()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn founded(count: u64, mut rest: &[&str]) -> Cluster {
    let acceptors = u16::try_from(count).expect("a few nodes");
    let (mut quorums, mut window) = (QuorumSystem::majority(acceptors).unwrap(), WINDOW);
    loop {
        match rest {
            [] => return Cluster::new(count, quorums, window),
            ["quorums", phase1, phase2, more @ ..] => {
                let size = |text| u16::try_from(number(text)).expect("a few nodes");
                let (phase1, phase2) = (size(phase1), size(phase2));
                quorums = QuorumSystem::flexible(acceptors, phase1, phase2).unwrap();
                rest = more;
            }
            ["window", slots, more @ ..] => {
                window = u32::try_from(number(slots)).expect("a few slots");
                rest = more;
            }
            _ => panic!("no such words: {}", rest.join(" ")),
        }
    }
}
