//! Nodes that are farther apart than the least timeouts bear. Nothing is measured yet when they
//! start, and nobody leads who could measure it: the questions of those who would like to must do.

use crate::runner::{for_each_seed, seeds};
use crate::shape::Shape;
use crate::stats::distribution;
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::paxos::ballot::NodeId;
use std::time::Duration;

/// Seeds for each distance.
const SEEDS: u64 = 30;

/// How long messages may be on their way, each way. The least inquiry waits for 125 ms.
const DISTANCES_MICROS: [u64; 3] = [100_000, 200_000, 300_000];

/// From the start until somebody leads and all follow: some twenty of the longest round trips.
const ELECTED_MAX: Duration = Duration::from_secs(12);

/// Writes that are then answered within the time that follows.
const WRITES: u64 = 3;
const SERVED_MAX: Duration = Duration::from_secs(12);

/// Milliseconds until a leader is followed by all.
fn elect(seed: u64, delay_max_micros: u64, tape: &Tape) -> u64 {
    let mut shape = Shape::calm(3);
    shape.delay_max_micros = delay_max_micros;
    let mut world = World::new(seed, shape, tape);
    world.add_client_of(1, NodeId(1));
    let elected = world.run(ELECTED_MAX, |world| world.common_leader().is_some());
    assert!(elected, "[liveness] nobody leads nodes far apart: {:?}", world.statuses());
    let took = world.now();
    let bound = took + SERVED_MAX;
    let served = world.run(bound, |world| world.clients.done(1) >= WRITES);
    assert!(served, "[liveness] nodes far apart serve nobody: {:?}", world.statuses());
    took.as_millis() as u64
}

#[test]
fn nodes_far_apart_elect_their_first_leader() {
    for distance in DISTANCES_MICROS {
        let took = for_each_seed("nodes_far_apart", seeds(SEEDS), |seed, tape| {
            elect(seed, distance, tape)
        });
        println!("{distance} µs each way at most, milliseconds: {}", distribution(&took));
    }
}
