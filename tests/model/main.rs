//! Model checking: the core that production runs, in every order of events within stated bounds.
//!
//! Three acceptors, two proposers with a value each, and a network that loses, repeats and reorders
//! as it likes. Each run visits every state within its [`Bounds`], and prints how many there are.
//! `MODEL_DEEP=1` adds runs that take minutes, and gigabytes of memory.

mod atlas;
mod laws;
mod node;
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

fn check(name: &str, bounds: Bounds) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let started = Instant::now();
    let checker = Cluster::new(bounds).checker().threads(THREADS);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let [nodes, messages] = checker.model().atlas().sizes();
    println!(
        "{name}: {} states, {} transitions, {} moves deep, of {nodes} states of nodes and \
         {messages} messages, in {:.1} s\n  {bounds:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth() - 1,
        started.elapsed().as_secs_f64(),
    );
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        let failed = property.expectation.discovery_is_failure();
        let Some(path) = found else {
            assert!(failed, "{name}: never seen: {}", property.name);
            continue;
        };
        if failed {
            let steps = path.into_vec();
            for (world, action) in &steps {
                match action {
                    Some(action) => println!("  {}", checker.model().tell(action)),
                    None => println!("  {world:?}"),
                }
            }
            panic!("{name}: broken after {} moves: {}", steps.len() - 1, property.name);
        }
    }
}

#[test]
fn majorities() {
    check("roles apart", APART);
    check("learning", TOGETHER);
    check("refusals", Bounds { counter: 1, learning: false, refusals: true, ..TOGETHER });
    check("one tries twice", Bounds { campaigns: [2, 1], ..DEAF });
}

#[test]
fn crashes() {
    check("roles apart, a crash", Bounds { crashes: (1, 0), refusals: false, ..APART });
    check("roles apart, the only proposer starts over", Bounds { campaigns: [2, 0], ..FORGETFUL });
    check("a crash", Bounds { crashes: (1, 0), ..DEAF });
}

#[test]
fn flexible_quorums() {
    check("quorums of 3 and 1, a crash", Bounds { quorums: (3, 1), crashes: (1, 0), ..TOGETHER });
    let deaf = Bounds { counter: 0, ..DEAF };
    check("quorums of 1 and 3, a crash", Bounds { quorums: (1, 3), crashes: (1, 0), ..deaf });
}

#[test]
fn deep() {
    if std::env::var_os("MODEL_DEEP").is_none_or(|deep| deep != "1") {
        println!("deeper runs are left out; MODEL_DEEP=1 adds them");
        return;
    }
    check("two crashes", Bounds { crashes: (2, 0), ..DEAF });
    check("learning and refusals", Bounds { refusals: true, ..TOGETHER });
    check("slot by slot", Bounds { late: true, learning: false, refusals: true, ..TOGETHER });
    check("roles apart, a proposer starts over", FORGETFUL);
    check("roles apart, higher ballots", Bounds { counter: 1, ..APART });
}
