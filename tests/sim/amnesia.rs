//! A directory that is put back as it once was: what its acceptor forgot, others saw.
//!
//! The quorums of these clusters bear no such loss: had the acceptor gone on, two values could be
//! chosen for one slot. So it must be noticed before anybody asks it to vote, which in a network
//! without losses is always, for whoever saw its pledges says so first. It must stay fenced over
//! starts, and with it gone a majority of the others goes on, or nobody does.

use crate::runner::{for_each_seed, seeds};
use crate::shape::Shape;
use crate::stats::distribution;
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::paxos::ballot::NodeId;
use std::time::Duration;

/// Seeds for each size.
const SEEDS: u64 = 50;

/// How long the log goes on after the copy was made.
const FORGOTTEN: Duration = Duration::from_millis(300);

/// Links stand again well within this, and the first message tells.
const NOTICED_MAX: Duration = Duration::from_secs(1);

/// How long nobody may be served where fewer than a quorum vote.
const SILENCE: Duration = Duration::from_secs(5);

const FOREVER_MICROS: u64 = 3_600_000_000;

/// Micros from the start of a process over an old copy until its acceptor is fenced.
pub fn forget(seed: u64, count: u64, tape: &Tape) -> u64 {
    let mut world = World::new(seed, Shape::calm(count), tape);
    world.run_until_stable_leader();
    let (leader, _) = world.common_leader().expect("it is stable");
    for id in 1..=count {
        world.add_client_of(id, NodeId(id));
    }
    let run = |world: &mut World, time| {
        let until = world.now() + time;
        world.run(until, |_| false);
    };
    run(&mut world, FORGOTTEN);
    let machine = (1..=count).map(NodeId).find(|id| *id != leader).expect("there are others");
    let copy = world.nodes[&machine].disk.backup();
    run(&mut world, FORGOTTEN);
    world.note(&format!("{machine} is given an old copy of its directory"));
    assert!(world.kill(machine), "it ran");
    world.atlas.forget_beyond(machine);
    world.nodes[&machine].disk.swap(&copy);
    assert!(world.start(machine), "an old log is a good log");
    let at = world.micros();
    let is_fenced = |world: &World| {
        let driver = world.nodes[&machine].driver.as_ref().expect("it runs");
        driver.replica().is_some_and(|replica| replica.status().fenced)
    };
    assert!(!is_fenced(&world), "nobody told it yet");
    let bound = world.now() + NOTICED_MAX;
    let noticed = world.run(bound, |world| is_fenced(world));
    assert!(noticed, "[fence] {machine} votes from an old log: {:?}", world.statuses());
    let took = world.micros() - at;

    // Whatever it knows by then, the log says so.
    run(&mut world, FORGOTTEN);
    world.kill(machine);
    world.nodes[&machine].disk.cut();
    assert!(world.start(machine), "a fenced log is a good log");
    assert!(is_fenced(&world), "[fence] {machine} forgot that it is fenced");

    world.crash_for(leader, FOREVER_MICROS);
    // What was on its way is through.
    run(&mut world, Duration::from_millis(50));
    let before = world.checks.acknowledged.count();
    let bound = world.now() + SILENCE;
    let is_served = world.run(bound, |world| world.checks.acknowledged.count() > before);
    let voters = count - 2;
    assert_eq!(is_served, voters > count / 2, "[fence] {voters} of {count} acceptors can vote");
    took
}

#[test]
fn an_old_log_is_fenced() {
    for count in [3, 5] {
        let took = for_each_seed("an_old_log_is_fenced", seeds(SEEDS), |seed, tape| {
            forget(seed, count, tape)
        });
        println!("{count} nodes, micros until an old log is fenced: {}", distribution(&took));
    }
}
