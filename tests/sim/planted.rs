//! Planted bugs: each wrong variant of the program (`src/planted`) must be found by seeds like
//! any others, or by the checks of liveness and of numbers.
//!
//! A hunt goes through the histories that every test run goes through, seed after seed; then
//! through elections among five, which must stay few; then through partitions in which somebody can
//! still lead. It ends with the first finding. Each bug is hunted from several starting points, and
//! the score says how many seeds it took in the median.
//!
//! | variable | default | |
//! |---|---|---|
//! | `SIM_PLANTED` | `all` | the name of one bug, or all |
//! | `SIM_SEEDS` | 1,000 | histories before a hunt goes on to the next kind of test |
//! | `SIM_HUNTS` | 3 | hunts for each bug |

use crate::connectivity;
use crate::history;
use crate::random::Random;
use crate::runner::{STACK_BYTES, setting};
use crate::shape::Shape;
use crate::stats::percentile;
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::planted::{Bug, plant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hunts begin so many seeds apart.
const APART: u64 = 1_000_000;

/// Elections whose numbers are looked at together.
const ELECTIONS: u64 = 60;

/// Partitions of each kind that are tried.
const PARTITIONS: u64 = 6;

/// What a hunt came back with.
struct Catch {
    /// Worlds that were tried, the one with the finding included.
    seeds: u64,
    /// What it was.
    what: String,
}

/// What a world's end says, if it ended badly.
fn finding(run: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.unwrap_or_else(|| "a panic without words".to_owned()))
}

fn hunt(first: u64, histories: u64) -> Option<Catch> {
    let tape = Tape::off();
    for seed in first..first + histories {
        let shape = Shape::draw(&mut Random::new(seed));
        if let Some(what) = finding(|| drop(history(seed, shape, &tape))) {
            return Some(Catch { seeds: seed - first + 1, what });
        }
    }
    let mut ballots = Vec::new();
    for seed in first..first + ELECTIONS {
        let elect = || {
            let mut world = World::new(seed, Shape::calm(5), &tape);
            world.run_until_stable_leader();
            ballots.push(world.checks.elections.campaigns());
        };
        if let Some(what) = finding(elect) {
            return Some(Catch { seeds: histories + seed - first + 1, what });
        }
    }
    if let Some(what) = finding(|| crate::check_elections(&ballots)) {
        return Some(Catch { seeds: histories + ELECTIONS, what });
    }
    let tried = histories + ELECTIONS;
    for seed in first..first + PARTITIONS {
        if let Some(what) = finding(|| connectivity::recover_all(seed, &tape)) {
            return Some(Catch { seeds: tried + seed - first + 1, what });
        }
    }
    None
}

/// All hunts for one bug, on as many threads as there are.
fn hunt_often(hunts: u64, histories: u64) -> Vec<Option<Catch>> {
    let next = AtomicU64::new(0);
    let caught = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= hunts {
                return;
            }
            let catch = hunt(number * APART, histories);
            caught.lock().unwrap().push(catch);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..crate::runner::threads().min(hunts) {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, work).expect("a thread");
        }
    });
    caught.into_inner().unwrap()
}

#[test]
fn planted_bugs_are_found() {
    let wanted = std::env::var("SIM_PLANTED").unwrap_or_else(|_| "all".to_owned());
    let (histories, hunts) = (setting("SIM_SEEDS", 1_000), setting("SIM_HUNTS", 3));
    let bugs: Vec<Bug> =
        Bug::ALL.iter().copied().filter(|bug| wanted == "all" || bug.name() == wanted).collect();
    let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    assert!(!bugs.is_empty(), "no bug is named {wanted}; there are: {}", names.join(", "));
    // Findings are what is wanted here; they are told in one line each.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let mut medians = Vec::new();
    for bug in &bugs {
        plant(Some(*bug));
        let caught = hunt_often(hunts, histories);
        plant(None);
        let seeds: Vec<u64> = caught.iter().flatten().map(|catch| catch.seeds).collect();
        let what = caught.iter().flatten().next().map_or("nothing", |catch| &catch.what);
        let what: String = what.lines().next().unwrap_or_default().chars().take(90).collect();
        if seeds.len() as u64 == hunts {
            medians.push(percentile(&seeds, 500));
            println!("{:<26} {:>6} seeds  {what}", bug.name(), percentile(&seeds, 500));
        } else {
            missed.push(bug.name());
            println!(
                "{:<26} MISSED by {} of {hunts} hunts  {what}",
                bug.name(),
                hunts - seeds.len() as u64
            );
        }
    }
    drop(std::panic::take_hook());
    println!(
        "{} of {} planted bugs are found, by {hunts} of {hunts} hunts each",
        medians.len(),
        bugs.len()
    );
    assert!(missed.is_empty(), "not found: {}", missed.join(", "));
}
