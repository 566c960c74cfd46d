//! A whole cluster in one thread: the same driver, core, store and codecs as in production, over a
//! network and disks that lose things. One seed is one history, the same every time.
//!
//! Each seed runs in two phases. First faults: loss, delay, duplication, reordering, cuts (one-way
//! too), crashes that lose what was not synced, pauses, changes of leader. Then everything is
//! healed, and the cluster must come back to life within a bound. Checked throughout: agreement,
//! durability and single execution of acknowledged writes, and that no read is older than what was
//! acknowledged before it.
//!
//! `SIM_SEEDS=N` runs more seeds, `SIM_START=S` starts elsewhere; a failure names its seed, and
//! `SIM_START=S SIM_SEEDS=1 cargo test --release --test sim` replays it.

mod checker;
mod node;
mod random;
mod world;

use random::Random;
use world::{Shape, World};

/// Seeds that every run of the tests covers.
const SEEDS: u64 = 1_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seeds() -> std::ops::Range<u64> {
    let start = setting("SIM_START", 0);
    start..start + setting("SIM_SEEDS", SEEDS)
}

/// Runs `each` for every seed, and names the seed that panics.
fn for_each_seed(name: &str, mut each: impl FnMut(u64)) {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| each(seed)));
        if let Err(panic) = outcome {
            eprintln!(
                "seed {seed} failed; replay it with\n  \
                 SIM_START={seed} SIM_SEEDS=1 cargo test --release --test sim {name} -- --nocapture"
            );
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn safe_under_faults_and_live_after_healing() {
    let mut acknowledged = 0;
    let mut simulated = std::time::Duration::ZERO;
    for_each_seed("safe_under_faults", |seed| {
        let mut world = World::new(seed, Shape::draw(&mut Random::new(seed)));
        world.run_faults();
        world.heal_and_check();
        acknowledged += world.checker.acknowledged();
        simulated += world.now();
    });
    let count = seeds().count();
    println!("{count} seeds, {acknowledged} acknowledged writes, {simulated:?} simulated");
    assert!(acknowledged as usize > count, "the clients hardly got anything done");
}

#[test]
fn one_seed_is_one_history() {
    let run = |seed| {
        let mut world = World::new(seed, Shape::draw(&mut Random::new(seed)));
        world.run_faults();
        world.heal_and_check();
        world.trace()
    };
    for seed in seeds().take(20) {
        assert_eq!(run(seed), run(seed), "seed {seed} differed between two runs");
    }
    assert_ne!(run(1), run(2), "the trace says nothing");
}

/// Five proposers whose clocks start together: the case in which rivals could duel for ever.
#[test]
fn an_election_among_five_settles_soon() {
    let mut ballots: Vec<u64> = Vec::new();
    let mut waits: Vec<u128> = Vec::new();
    for_each_seed("an_election_among_five", |seed| {
        let mut world = World::new(seed, Shape::calm(5));
        let wait = world.run_until_stable_leader();
        ballots.push(world.campaigns());
        waits.push(wait.as_millis());
    });
    ballots.sort_unstable();
    waits.sort_unstable();
    let (median, most) = (ballots[ballots.len() / 2], ballots[ballots.len() - 1]);
    println!(
        "{} elections among five: ballots until a stable leader: median {median}, most {most}; \
         time: median {} ms, most {} ms",
        ballots.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    assert!(median <= 2, "elections storm: {median} ballots in the median");
    assert!(most <= 5, "elections storm: {most} ballots at worst");
}
