//! What people and programs see of a run: lines, events, and lines that move on a terminal.

#[allow(dead_code, reason = "tests/roles uses more of it")]
#[path = "cluster/harness.rs"]
mod harness;

use harness::{Cluster, NODES, Ran, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// What begins every sequence that moves a cursor or colours something.
const ESCAPE: char = '\x1b';

fn planned() -> Cluster {
    let cluster = Cluster::planned(NODES.to_vec());
    let ports: Vec<u16> = NODES.iter().map(|_| harness::free_port()).collect();
    let nodes = NODES.map(|node| (node, harness::ALL_ROLES));
    let text = harness::inventory(&nodes, &ports, harness::Quorums::Majority);
    fs::write(cluster.path("inventory.yaml"), text).unwrap();
    cluster
}

/// Asserts that each step that began has its end, and gives the states they ended in.
#[track_caller]
fn ends(events: &[Value]) -> Vec<String> {
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    let mut ends = Vec::new();
    for event in events.iter().filter(|event| event["event"] == "step") {
        assert!(event["run"].is_string() || event["run"].is_null(), "{event}");
        let step = format!("{} {}", event["host"], event["step"]);
        let state = event["state"].as_str().unwrap();
        if state == "begun" {
            assert!(event["seconds"].is_null(), "{event}");
            *open.entry(step).or_default() += 1;
        } else {
            assert!(event["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{event}");
            assert_eq!(open.remove(&step), Some(1), "it began once: {event}");
            ends.push(state.to_owned());
        }
    }
    assert!(open.is_empty(), "no end came of {open:?}");
    ends
}

#[test]
fn a_program_is_told_of_each_step_and_last_of_the_answer() {
    let cluster = planned();
    let events = cluster.ctl(&["deploy", "--yes", "-o", "json"]).expect(0).events();
    assert!(ends(&events).iter().all(|state| state == "done"), "{events:?}");
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["ok"]), (&"done".into(), &true.into()));
    assert_eq!(last["changed"], true);
    let runs: Vec<&Value> = events.iter().filter_map(|event| event.get("run")).collect();
    assert!(runs.iter().all(|run| run.is_string() && *run == runs[0]), "{runs:?}");
    for node in NODES {
        let of_node = |event: &&Value| event["host"] == node;
        let sent: Vec<&Value> = events.iter().filter(of_node).collect();
        let bytes: Vec<(u64, u64)> = sent
            .iter()
            .filter(|event| event["event"] == "bytes")
            .map(|event| (event["sent"].as_u64().unwrap(), event["total"].as_u64().unwrap()))
            .collect();
        assert!(bytes.is_sorted(), "{bytes:?}");
        let size = fs::metadata(env!("CARGO_BIN_EXE_paxos-ctl")).unwrap().len();
        assert_eq!(bytes.last(), Some(&(size, size)), "all of it was sent");
        assert!(sent.iter().any(|event| event["step"] == "start"), "{sent:?}");
    }
    // Nothing is left to do: that is an answer as well.
    let again = cluster.ctl(&["deploy", "--yes", "-o", "json"]).expect(0).events();
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((&again[0]["event"], &again[0]["changed"]), (&"done".into(), &false.into()));
}

#[test]
fn the_step_that_failed_is_told_and_last_the_failure() {
    let cluster = Cluster::found();
    cluster.kill("node1");
    let ran = cluster.ctl(&["restart", "node2", "-o", "json"]).expect(69);
    let events = ran.events();
    assert_eq!(ends(&events), ["failed"]);
    let last = events.last().unwrap();
    assert_eq!((&last["ok"], &last["error"]["code"]), (&false.into(), &"no_quorum".into()));
    assert_eq!(last.get("event"), None);
    let events = cluster.keys(&["renew", "node3", "-o", "json"]).expect(0).events();
    assert!(ends(&events).len() > 1, "{events:?}");
    assert_eq!(events.last().unwrap()["event"], "done");
}

#[test]
fn without_a_terminal_each_step_is_a_line_and_no_byte_moves_a_cursor() {
    let cluster = planned();
    let ran = cluster.deploy().expect(0);
    assert!(!ran.said().contains(ESCAPE), "{}", ran.said());
    for node in NODES {
        assert!(ran.out().contains(&format!("\n- {node}: start\n")), "{}", ran.out());
    }
    assert!(String::from_utf8_lossy(&ran.stderr).is_empty(), "{}", ran.said());
}

/// `paxos-ctl restart` on a terminal of its own, with this in its environment.
fn restarted_on_a_terminal(cluster: &Cluster, environment: &[(&str, &str)]) -> Ran {
    let restart = cluster.ctl_command(&["restart"]);
    let words = std::iter::once(restart.get_program()).chain(restart.get_args());
    let words = words.map(|word| shell_words::quote(word.to_str().unwrap()).into_owned());
    let line = words.collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.env("TERM", "xterm").env_remove("NO_COLOR");
    script.env("XDG_STATE_HOME", cluster.path("state"));
    script.envs(environment.iter().copied());
    run(&mut script, b"").expect(0)
}

#[test]
fn on_a_terminal_lines_move_unless_somebody_wants_none() {
    let cluster = Cluster::found();
    let shown = restarted_on_a_terminal(&cluster, &[]).out();
    assert!(shown.contains("\x1b[2K"), "a line is drawn anew: {shown:?}");
    for node in NODES {
        assert!(shown.contains(&format!("- {node}: restart (")), "{shown:?}");
    }
    assert!(shown.contains("restart: stop it"), "{shown:?}");
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = restarted_on_a_terminal(&cluster, &[environment]).out();
        assert!(!shown.contains(ESCAPE), "{environment:?}: {shown:?}");
        for node in NODES {
            assert!(shown.contains(&format!("- {node}: restart\r\n")), "{shown:?}");
        }
    }
    let shown = restarted_on_a_terminal(&cluster, &[("NO_COLOR", "")]).out();
    assert!(shown.contains(ESCAPE), "an empty NO_COLOR says nothing: {shown:?}");
}
