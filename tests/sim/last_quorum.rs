//! Elections when exactly a quorum is left: every one of them must agree, and nobody may be late.
//!
//! With somebody to spare, a candidate does without a peer that still hears the old leader, or that
//! promised a rival. Here it cannot, so what rivals and stale news cost shows nowhere better. The
//! time counts from the loss of the leader to the first write that was asked after it.

use crate::connectivity::ELECTION_TIMEOUT_MICROS;
use crate::runner::{for_each_seed, seeds};
use crate::shape::Shape;
use crate::stats::{distribution, percentile};
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::paxos::ballot::NodeId;
use std::time::Duration;

/// How long messages may be on their way: as in one room, or from town to town.
const NEAR_MICROS: u64 = 500;
const FAR_MICROS: u64 = 40_000;

/// In nine of ten elections among near nodes, so many hundredths of the least election timeout.
const NEAR_HUNDREDTHS_MAX: u64 = 150;

/// Among far ones, whose timeouts grow with what they measure.
const FAR_HUNDREDTHS_MAX: u64 = 400;

/// Seeds for each case.
const SEEDS: u64 = 30;

const FOREVER_MICROS: u64 = 3_600_000_000;

/// How a leader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Its process ends, and some peers see their connection to it refused.
    Killed,
    /// Every link to and from it is cut: nobody is told.
    Silent,
}

/// Micros until a write is answered by one of those who are left.
fn lose(seed: u64, count: u64, loss: Loss, delay_max_micros: u64, tape: &Tape) -> u64 {
    let mut shape = Shape::calm(count);
    shape.delay_max_micros = delay_max_micros;
    let mut world = World::new(seed, shape, tape);
    world.run_until_stable_leader();
    let (leader, _) = world.common_leader().expect("it is stable");
    let all: Vec<NodeId> = (1..=count).map(NodeId).collect();
    let others: Vec<NodeId> = all.iter().copied().filter(|id| *id != leader).collect();
    let (spare, left) = others.split_at(count as usize / 2 - 1);
    for id in left {
        world.add_client_of(id.0, *id);
    }
    for id in spare {
        world.crash_for(*id, FOREVER_MICROS);
    }
    // So that links are measured.
    let settled = world.now() + Duration::from_millis(800);
    world.run(settled, |_| false);
    let at = world.micros();
    match loss {
        Loss::Killed => assert!(world.crash_for(leader, FOREVER_MICROS), "it led"),
        Loss::Silent => world.isolate(leader, FOREVER_MICROS),
    }
    // What was on its way is through, or lost.
    let moment = world.now() + Duration::from_micros(2 * delay_max_micros + 5_000);
    world.run(moment, |_| false);
    let before: Vec<u64> = left.iter().map(|id| world.clients.done(id.0)).collect();
    let bound = world.now() + Duration::from_secs(60);
    let served = world.run(bound, |world| {
        left.iter().zip(&before).any(|(id, before)| world.clients.done(id.0) >= before + 2)
    });
    assert!(served, "[liveness] nobody follows the lost leader: {:?}", world.statuses());
    world.micros() - at
}

#[test]
fn exactly_a_quorum_elects_soon() {
    for (count, delay_max_micros, most) in [
        (3, NEAR_MICROS, NEAR_HUNDREDTHS_MAX),
        (5, NEAR_MICROS, NEAR_HUNDREDTHS_MAX),
        (5, FAR_MICROS, FAR_HUNDREDTHS_MAX),
    ] {
        for loss in [Loss::Killed, Loss::Silent] {
            let took = for_each_seed("exactly_a_quorum", seeds(SEEDS), |seed, tape: &Tape| {
                let micros = lose(seed, count, loss, delay_max_micros, tape);
                micros * 100 / ELECTION_TIMEOUT_MICROS
            });
            println!(
                "{loss:?} leader of {count}, links up to {delay_max_micros} µs, {} seeds, \
                 in hundredths of an election timeout: {}",
                took.len(),
                distribution(&took),
            );
            let slow = percentile(&took, 900);
            assert!(slow <= most, "[liveness] {slow} hundredths of an election timeout");
        }
    }
}
