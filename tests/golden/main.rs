//! Scenarios of the protocol, told step by step: what each node says, logs, counts and decides.
//!
//! A scenario is a text file in `tests/golden/scenarios`. Lines that begin with `> ` are commands
//! (see `script`), lines that begin with `#` explain, and all others are what the core answered. A
//! change of the core that changes any answer fails here, with the difference; if the new answers
//! are the right ones, `UPDATE_GOLDEN=1 cargo test --release --test golden` writes them down, for a
//! reviewer to read.
//!
//! It is the core alone, without driver, disk, network or clock: nothing happens but what a command
//! asks for.

mod cluster;
mod script;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// All scenarios, so that none can go missing unnoticed, and none lies there unplayed.
const SCENARIOS: [&str; 13] = [
    "chained_election",
    "constrained_election",
    "duelling_proposers",
    "first_election",
    "floor",
    "gap_filling",
    "half_accepted_value",
    "no_successor_possible",
    "promise_to_a_dead_candidate",
    "quorum_loss",
    "slow_disk",
    "step_down",
    "tie_of_proposer_ids",
];

fn scenarios() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scenarios");
    let entries = fs::read_dir(&directory).expect("the scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let named = SCENARIOS.map(|name| directory.join(name).with_extension("txt"));
    assert_eq!(paths, named, "what is in the folder, and what is named in tests/golden/main.rs");
    paths
}

/// The first line that differs, with a few around it.
fn difference(wanted: &str, found: &str) -> String {
    const AROUND: usize = 4;
    let (wanted, found): (Vec<&str>, Vec<&str>) =
        (wanted.lines().collect(), found.lines().collect());
    let at = wanted.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], mark: char| {
        let lines = lines.iter().skip(at).take(AROUND);
        lines.map(|line| format!("  {mark} {line}\n")).collect::<String>()
    };
    let before: String =
        wanted[at.saturating_sub(AROUND)..at].iter().map(|line| format!("    {line}\n")).collect();
    format!("line {}\n{before}{}{}", at + 1, part(&wanted, '-'), part(&found, '+'))
}

#[test]
fn scenarios_are_told_as_they_were() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut differ = Vec::new();
    for path in scenarios() {
        let wanted = fs::read_to_string(&path).expect("a scenario can be read");
        let found = script::play(&wanted);
        if found == wanted {
            continue;
        }
        if update {
            fs::write(&path, found).expect("a scenario can be written");
        } else {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            differ.push(format!("{name}, {}", difference(&wanted, &found)));
        }
    }
    assert!(differ.is_empty(), "the core answers otherwise now:\n{}", differ.join("\n"));
}
