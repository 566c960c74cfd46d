//! Model checking: the core that production runs, in every order of events within stated bounds.
//!
//! Three acceptors, two proposers with a value each, and a network that loses, repeats and reorders
//! as it likes. Each run visits every state within its [`Bounds`], and prints how many there are.
//! `MODEL_DEEP=1` adds runs that take minutes, and gigabytes of memory.
//!
//! With the feature `planted`, which makes the core wrong, `planted` is the only test.

#![cfg_attr(
    feature = "planted",
    allow(dead_code, reason = "what only the tests of the sound core use")
)]

mod atlas;
mod laws;
mod node;
#[cfg(feature = "planted")]
mod planted;
mod roles;
mod turn;
mod votes;
mod world;

use roles::Layout;
use stateright::{Checker, HasDiscoveries, Model};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use world::{Bounds, Cluster};

/// As many as the smallest machine that runs this has cores.
const THREADS: usize = 2;

/// One run at a time: each takes all cores, and its time is printed.
static ALONE: Mutex<()> = Mutex::new(());

/// One campaign each on nodes that have all roles, with majorities.
const TOGETHER: Bounds = Bounds {
    layout: Layout::Together,
    quorums: (2, 2),
    campaigns: [1, 1],
    counter: 0,
    crashes: (0, 0),
    slots: 2,
    late: false,
    learning: true,
    refusals: false,
};

/// The same on nodes that vote and others that propose, of which none finds out what is chosen.
const APART: Bounds = Bounds { layout: Layout::Apart, learning: false, refusals: true, ..TOGETHER };

/// All roles on each node, and proposers that may go above each other, but learn of nothing.
const DEAF: Bounds = Bounds { counter: 1, learning: false, ..TOGETHER };

/// A proposer that keeps nothing, and campaigns again in another life.
const FORGETFUL: Bounds = Bounds { campaigns: [2, 1], crashes: (0, 1), refusals: false, ..APART };

/// What came of all states within some bounds.
struct Explored {
    /// For people.
    line: String,
    /// What was broken, and the moves that broke it; or what was never seen.
    finding: Option<String>,
}

/// Visits everything, or so many transitions at most.
fn explore(name: &str, bounds: Bounds, most: Option<usize>) -> Explored {
    let started = Instant::now();
    let mut checker = Cluster::new(bounds).checker().threads(THREADS);
    if let Some(most) = most {
        checker = checker.target_state_count(most);
    }
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let [nodes, messages] = checker.model().atlas().sizes();
    let line = format!(
        "{name}: {} states, {} transitions, {} moves deep, of {nodes} states of nodes and \
         {messages} messages, in {:.1} s\n  {bounds:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth() - 1,
        started.elapsed().as_secs_f64(),
    );
    let properties = checker.model().properties();
    // What is broken comes first: it ends the search, and much is not seen for that alone.
    let broken = properties.iter().find_map(|property| {
        let path = checker.discovery(property.name)?;
        property.expectation.discovery_is_failure().then_some((property.name, path))
    });
    if let Some((law, path)) = broken {
        let steps = path.into_vec();
        let mut finding = format!("broken after {} moves: {law}", steps.len() - 1);
        for (world, action) in &steps {
            match action {
                Some(action) => finding.push_str(&format!("\n  {}", checker.model().tell(action))),
                None => finding.push_str(&format!("\n  {world:?}")),
            }
        }
        return Explored { line, finding: Some(finding) };
    }
    // Of a search that was cut short that says nothing.
    let complete = most.is_none_or(|most| checker.state_count() < most);
    let unseen = properties.iter().filter(|_| complete).find(|property| {
        !property.expectation.discovery_is_failure() && checker.discovery(property.name).is_none()
    });
    let finding = unseen.map(|property| format!("never seen: {}", property.name));
    Explored { line, finding }
}

fn check(runs: &[(&str, Bounds)]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, bounds) in runs {
        let Explored { line, finding } = explore(name, *bounds, None);
        println!("{line}");
        assert!(finding.is_none(), "{name}: {}", finding.unwrap_or_default());
    }
}

/// Runs without crashes, with majorities.
const MAJORITIES: &[(&str, Bounds)] = &[
    ("learning", TOGETHER),
    ("roles apart", APART),
    ("refusals", Bounds { counter: 1, learning: false, refusals: true, ..TOGETHER }),
    ("one tries twice", Bounds { campaigns: [2, 1], ..DEAF }),
];

/// Runs with a crash, with majorities.
const CRASHES: &[(&str, Bounds)] = &[
    ("a crash", Bounds { crashes: (1, 0), ..DEAF }),
    // One slot would be too few for a value: the first is the no-op of whoever leads.
    ("learning, one proposer, a crash", Bounds { crashes: (1, 0), campaigns: [1, 0], ..TOGETHER }),
    ("roles apart, a crash", Bounds { crashes: (1, 0), refusals: false, ..APART }),
    ("roles apart, the only proposer starts over", Bounds { campaigns: [2, 0], ..FORGETFUL }),
];

/// Runs with other quorums.
const FLEXIBLE: &[(&str, Bounds)] = &[
    ("quorums of 3 and 1, a crash", Bounds { quorums: (3, 1), crashes: (1, 0), ..TOGETHER }),
    (
        "quorums of 1 and 3, a crash",
        Bounds { quorums: (1, 3), crashes: (1, 0), counter: 0, ..DEAF },
    ),
];

/// Runs that take minutes.
const DEEP: &[(&str, Bounds)] = &[
    ("learning, a crash", Bounds { crashes: (1, 0), ..TOGETHER }),
    ("two crashes", Bounds { crashes: (2, 0), ..DEAF }),
    ("learning and refusals", Bounds { refusals: true, ..TOGETHER }),
    ("slot by slot", Bounds { late: true, learning: false, refusals: true, ..TOGETHER }),
    ("roles apart, a proposer starts over", FORGETFUL),
    ("roles apart, higher ballots", Bounds { counter: 1, ..APART }),
];

#[cfg_attr(not(feature = "planted"), test)]
fn majorities() {
    check(MAJORITIES);
}

#[cfg_attr(not(feature = "planted"), test)]
fn crashes() {
    check(CRASHES);
}

#[cfg_attr(not(feature = "planted"), test)]
fn flexible_quorums() {
    check(FLEXIBLE);
}

#[cfg_attr(not(feature = "planted"), test)]
fn deep() {
    if std::env::var_os("MODEL_DEEP").is_none_or(|deep| deep != "1") {
        println!("deeper runs are left out; MODEL_DEEP=1 adds them");
        return;
    }
    check(DEEP);
}
