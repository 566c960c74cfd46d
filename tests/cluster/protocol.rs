//! What real nodes say to one another, as operators see it: events, the trace of a slot, all nodes
//! as one story.

use super::harness::{Cluster, Guarded, NODES, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Writes through the leader; answers its name and the slot that the write, or one after it, got.
fn write(cluster: &Cluster) -> (&'static str, u64) {
    let leader = cluster.leader();
    cluster.ssh(leader, "paxos put story told").expect(0);
    let status = cluster.status(leader).expect("the leader answers");
    (leader, status["chosen_slot"].as_u64().expect("a number"))
}

fn events(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn covers(event: &Value, slot: u64) -> bool {
    let number = |field: &str| event[field].as_u64();
    number("first").zip(number("last")).is_some_and(|(first, last)| (first..=last).contains(&slot))
}

pub fn a_write_can_be_followed_to_its_votes(cluster: &Cluster) {
    let (leader, slot) = write(cluster);
    let all = "paxos logs --protocol --lines 32768 -o json";
    let told = events(&cluster.ssh(leader, all).expect(0).out());
    let of = |event: &str, what: &str| {
        let is = |e: &&Value| e["event"] == event && e["what"] == what && covers(e, slot);
        told.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    let accepts = of("sent", "accept");
    assert_eq!(accepts[0]["peers"].as_array().map(Vec::len), Some(2), "{accepts:?}");
    assert_eq!(of("sent", "accepted")[0]["peers"][0], leader, "its own vote counts, too");
    assert!(!of("received", "accepted").is_empty() && !of("local", "learned").is_empty());
    assert!(told.iter().any(|e| e["what"] == "leads" && e["ballot"].is_string()));
    let times: Vec<&str> = told.iter().filter_map(|event| event["at"].as_str()).collect();
    assert!(times.len() == told.len() && times.is_sorted());
    let shown = cluster.ssh(leader, "paxos logs --protocol --grep Accepted --lines 5").expect(0);
    assert!(shown.out().lines().count() == 5 && shown.out().contains("Accepted  ballot "));
    let other = cluster.ssh(leader, "paxos logs --protocol --node nobody");
    assert_eq!(other.exit(), 64, "{}", other.said());
}

pub fn a_slot_tells_how_it_was_chosen(cluster: &Cluster) {
    let (leader, slot) = write(cluster);
    let elsewhere = NODES.into_iter().find(|node| *node != leader).expect("there are three");
    // The others hear of it a moment later.
    let report = until("all nodes know the slot", || {
        let ran = cluster.ssh(elsewhere, &format!("paxos trace {slot} -o json"));
        let report = ran.expect(0).json();
        let learned = report["summary"]["learned"].as_array().map(Vec::len);
        (learned == Some(3)).then_some(report)
    });
    let summary = &report["summary"];
    assert_eq!((&summary["chosen"], &summary["proposer"]), (&true.into(), &leader.into()));
    assert!(summary["voters"].as_array().is_some_and(|voters| voters.len() >= 2), "{summary}");
    assert_eq!(report["silent"], Value::Array(Vec::new()));
    let table = cluster.ssh(elsewhere, &format!("paxos trace {slot}")).expect(0).out();
    assert!(table.contains(&format!("slot {slot}: chosen under ballot ")), "{table}");
    let missing = cluster.ssh(elsewhere, "paxos trace 999999999").expect(3);
    assert!(missing.said().contains("are chosen so far"), "{}", missing.said());
}

/// A program whose lines are read as they come.
struct Following {
    child: Guarded,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Following {
    fn start(command: &mut Command) -> Following {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = Guarded(child.expect("it starts"));
        let out = BufReader::new(child.0.stdout.take().expect("it was piped"));
        let (sender, lines) = std::sync::mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            // Nobody listens once the test has seen enough.
            out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Following { child, lines }
    }

    fn interrupt(mut self) -> i32 {
        let pid = i32::try_from(self.child.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid is a small number"), Signal::INT).expect("it runs");
        // Its output is taken meanwhile, so that it never waits for us.
        let status = until("it ends", || {
            while self.lines.try_recv().is_ok() {}
            self.child.0.try_wait().expect("a child can be waited for")
        });
        status.code().unwrap_or(-1)
    }
}

pub fn the_nodes_tell_one_story(cluster: &Cluster) {
    let (_, slot) = write(cluster);
    let merged = cluster.ctl(&["logs", "--protocol", "-n", "500", "-o", "json"]).expect(0).json();
    let told = merged["events"].as_array().expect("a list");
    let times: Vec<&str> = told.iter().filter_map(|event| event["at"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let nodes: BTreeSet<&str> = told.iter().filter_map(|event| event["node"].as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(NODES));
    assert!(told.iter().any(|event| event["what"] == "accept" && covers(event, slot)));
    let mut command = cluster.ctl_command(&["logs", "--protocol", "-f", "-n", "1", "-o", "json"]);
    let following = Following::start(&mut command);
    let (_, slot) = write(cluster);
    let mut learned = BTreeSet::new();
    until("all nodes are heard to learn the slot", || {
        while let Ok(line) = following.lines.try_recv() {
            let event: Value = serde_json::from_str(&line).expect("an object a line");
            if event["what"] == "learned" && covers(&event, slot) {
                learned.insert(event["node"].as_str().unwrap_or_default().to_owned());
            }
        }
        (learned.len() == NODES.len()).then_some(())
    });
    assert_eq!(following.interrupt(), 130);
}
