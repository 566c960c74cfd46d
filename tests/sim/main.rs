//! A whole cluster in one thread: the same driver, core, store and codecs as in production, over a
//! network, disks and clocks that do what they should not. One seed is one history, the same every
//! time.
//!
//! Each seed runs in two phases. First faults, of the kinds that the seed drew. Then everything is
//! healed, and the cluster must come back to life within a bound. What must hold throughout is in
//! `checks/`, one file for each property.
//!
//! `scripts/sim --seeds N` runs more seeds than the tests do; a failure names its seed, tells its
//! story in the words of the protocol, and says how to replay it.
//!
//! With the feature `planted`, which makes the program wrong, the hunts of `planted` are the only
//! tests that run worlds.

#![cfg_attr(
    feature = "planted",
    allow(dead_code, reason = "what only the tests of the sound program use")
)]

mod amnesia;
mod atlas;
#[cfg(not(feature = "planted"))]
mod bounds;
mod checks;
mod clients;
mod connectivity;
mod disk;
mod disk_faults;
#[cfg(not(feature = "planted"))]
mod expiry;
#[cfg(not(feature = "planted"))]
mod far_apart;
mod faults;
#[cfg(not(feature = "planted"))]
mod last_quorum;
mod network;
mod node;
#[cfg(feature = "planted")]
mod planted;
mod random;
mod runner;
mod shape;
mod stats;
mod tap;
mod tape;
mod world;

use random::Random;
use runner::{for_each_seed, run, seeds};
use shape::Shape;
use stats::{Stats, distribution, percentile};
use std::time::Instant;
use tape::Tape;
use world::World;

/// Seeds that every run of the tests covers.
const SEEDS: u64 = 1_000;

/// Of the smaller tests.
const FEWER_SEEDS: u64 = 200;

/// One in so many acceptors that forgot is fenced: not those of which nobody saw what they forgot,
/// and not those of nodes whose links or peers were gone.
const FENCED_OF: u64 = 4;

/// One history: faults, healing, and everything that can be said of it.
fn history(seed: u64, shape: Shape, tape: &Tape) -> Stats {
    let is_cloned = shape.cloned.is_some();
    let mut world = World::new(seed, shape, tape);
    world.run_faults();
    world.heal_and_check();
    let checks = &world.checks;
    Stats {
        seeds: 1,
        acknowledged: checks.acknowledged.count(),
        reads: checks.acknowledged.reads(),
        repeated: checks.sessions.repeated,
        confirmed: checks.sessions.confirmed,
        operations: checks.registers.operations,
        unknown: checks.registers.unknown,
        given_up: checks.registers.given_up,
        simulated: world.now(),
        delivered: world.network.delivered,
        lost: world.network.lost,
        doubled: world.network.doubled,
        clashes: if is_cloned { world.clashes } else { 0 },
        false_clashes: if is_cloned { 0 } else { world.clashes },
        clones: u64::from(is_cloned),
        deepest: checks.queues.deepest().clone(),
        ..world.stats
    }
}

#[cfg_attr(not(feature = "planted"), test)]
fn safe_under_faults_and_live_after_healing() {
    let began = Instant::now();
    let total = run("safe_under_faults", seeds(SEEDS), |seed, tape| {
        history(seed, Shape::draw(&mut Random::new(seed)), tape)
    });
    total.print(began.elapsed());
    assert!(total.acknowledged >= total.seeds, "the clients hardly got anything done");
    assert!(total.given_up * 1_000 <= total.seeds, "the search of histories gives up too often");
    let forgot = total.voters_forgot;
    println!("{forgot} acceptors lost memory unnoticed, and {} were fenced", total.fenced);
    // A few histories say little of one in a hundred.
    if total.seeds >= SEEDS {
        let median = percentile(&total.campaigns_after_healing, 500);
        let p99 = percentile(&total.campaigns_after_healing, 990);
        // Rivals that do not draw their waits at random, or never give way, make 8 of the latter.
        assert!(median <= 1, "[elections] {median} ballots after healing, in the median");
        assert!(p99 <= 5, "[elections] {p99} ballots after healing, in one of a hundred seeds");
        // Nobody runs twice there; a node that has just restarted met a ballot of its last life.
        let are_few = total.false_clashes * 100 <= total.seeds;
        assert!(are_few, "[ballots] {} proposers clashed with nobody", total.false_clashes);
        let is_noticed = total.fenced * FENCED_OF >= forgot;
        assert!(is_noticed, "[fence] of {forgot} acceptors {} were fenced", total.fenced);
        assert!(total.confirmed >= total.seeds, "hardly anybody repeats what was answered");
    }
}

#[cfg_attr(not(feature = "planted"), test)]
fn one_seed_is_one_history() {
    let tell = |seed| {
        let tape = Tape::raw();
        history(seed, Shape::draw(&mut Random::new(seed)), &tape);
        tape.text()
    };
    let range = seeds(10);
    let range = range.start..range.end.min(range.start + 10);
    for_each_seed("one_seed_is_one_history", range, |seed, _| {
        let (first, second) = (tell(seed), tell(seed));
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert!(first == second, "seed {seed} differed between two runs: {differs:?}");
    });
    assert_ne!(tell(1), tell(2), "the tape says nothing");
}

/// What a person reads of a failure is written while the history is the same.
#[cfg_attr(not(feature = "planted"), test)]
fn writing_a_story_changes_nothing() {
    let shape = |seed| Shape::draw(&mut Random::new(seed));
    for_each_seed("writing_a_story", 0..5, |seed, _| {
        let told = Tape::told();
        let with = history(seed, shape(seed), &told);
        let without = history(seed, shape(seed), &Tape::off());
        assert_eq!((with.events, with.acknowledged), (without.events, without.acknowledged));
        let text = told.text();
        assert!(text.contains("Accept") && text.lines().count() > 100, "{text}");
    });
}

/// Damage that nothing keeps within what the quorums bear: no log that is not as it was written is
/// ever opened, and whoever still runs says nothing wrong.
#[cfg_attr(not(feature = "planted"), test)]
fn damage_to_every_copy_is_noticed() {
    let began = Instant::now();
    let total = run("damage_to_every_copy", seeds(FEWER_SEEDS), |seed, tape| {
        history(seed, Shape::damaged(&mut Random::new(seed)), tape)
    });
    total.print(began.elapsed());
    let is_hard = total.lost_machines > total.seeds;
    assert!(total.seeds < 100 || is_hard, "hardly anything was damaged");
}

/// A directory that was copied and runs twice. What is promised of it is in `docs/protocol.md`,
/// "Genesis and lives": proposers with one id issue different ballots, so nothing goes wrong, and
/// one of them notices. (Of a copied *acceptor* nothing can be promised.)
#[cfg_attr(not(feature = "planted"), test)]
fn a_proposer_that_runs_twice_is_safe_and_noticed() {
    let began = Instant::now();
    let total = run("a_proposer_that_runs_twice", seeds(FEWER_SEEDS), |seed, tape| {
        let shape = Shape::cloned_proposer(&mut Random::new(seed));
        let mut stats = history(seed, shape, tape);
        stats.clashes = stats.clashes.min(1);
        stats
    });
    total.print(began.elapsed());
    println!("{} of {} seeds noticed the clash", total.clashes, total.seeds);
    // Often only one of the two ever tries to lead, and nothing clashes.
    let is_noticed = total.clashes * 5 > total.seeds;
    assert!(total.seeds < 100 || is_noticed, "a clash of proposers is hardly ever noticed");
}

/// Five proposers whose clocks start together: the case in which rivals could duel for ever.
#[cfg_attr(not(feature = "planted"), test)]
fn an_election_among_five_settles_soon() {
    let results = for_each_seed("an_election_among_five", seeds(SEEDS), |seed, tape| {
        let mut world = World::new(seed, Shape::calm(5), tape);
        let wait = world.run_until_stable_leader();
        (world.checks.elections.campaigns(), wait.as_millis() as u64)
    });
    let (ballots, waits): (Vec<u64>, Vec<u64>) = results.into_iter().unzip();
    println!("{} elections among five", ballots.len());
    println!("ballots until a stable leader: {}", distribution(&ballots));
    println!("milliseconds until a stable leader: {}", distribution(&waits));
    check_elections(&ballots);
}

/// Elections are few, if this is how many ballots each of many needed.
fn check_elections(ballots: &[u64]) {
    let (median, most) = (percentile(ballots, 500), percentile(ballots, 1_000));
    assert!(median <= 2, "[elections] a storm of elections: {median} ballots in the median");
    assert!(most <= 5, "[elections] a storm of elections: {most} ballots at worst");
}
