//! Partial connectivity: the three cases of the OmniPaxos paper (see `network`), and how long the
//! cluster takes to decide again.
//!
//! Source: Ng, Haridi, Carbone, "Omni-Paxos: Breaking the Barriers of Partial Connectivity"
//! (EuroSys 2023), §2.2 and §7.2: recovery within a constant number of election timeouts, four at
//! most.
//!
//! A server that reaches a quorum asks for nothing but what it can have: so the time is measured
//! from the cuts to the first success of a write that was asked after them, at any node. Requests
//! at nodes with one link may take a hop more, and are measured apart.

use crate::network::Partition;
use crate::runner::{for_each_seed, seeds};
use crate::shape::Shape;
use crate::stats::distribution;
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::paxos::ballot::NodeId;
use std::time::Duration;

/// Seeds for each case and size.
const SEEDS: u64 = 200;

/// The lower bound of the election timeout, which is what calm links make of it.
pub const ELECTION_TIMEOUT_MICROS: u64 = 250_000;

/// Recovery takes no longer than so many election timeouts,
const TIMEOUTS_MAX: u64 = 4;

/// in so many of a thousand histories.
const RECOVERED_PER_MILLE: usize = 999;

/// How long the one in the middle does not hear the leader before a constrained election.
const BEHIND: Duration = Duration::from_millis(100);

const FOREVER_MICROS: u64 = 3_600_000_000;

/// Micros from the cuts until the first write, and until a write at each node that is at most a hop
/// away from the leader.
struct Recovery {
    first: u64,
    all: u64,
}

fn recover(seed: u64, count: u64, partition: Partition, tape: &Tape) -> Recovery {
    let mut world = World::new(seed, Shape::calm(count), tape);
    world.run_until_stable_leader();
    let (leader, _) = world.common_leader().expect("it is stable");
    let mut order: Vec<NodeId> = (1..=count).map(NodeId).collect();
    order.swap(0, leader.0 as usize - 1);
    let last = 1 + world.random.below(count - 1) as usize;
    order.swap(last, count as usize - 1);
    let middle = order[count as usize - 1];
    for at in 1..=count {
        world.add_client_of(at, NodeId(at));
    }
    let settled = world.now() + Duration::from_millis(50);
    world.run(settled, |_| false);
    if partition == Partition::Constrained {
        // The leader and the others go on without the one in the middle.
        for from in order.iter().filter(|from| **from != middle) {
            world.cut_for((*from, middle), BEHIND.as_micros() as u64);
        }
        let behind = world.now() + BEHIND;
        world.run(behind, |_| false);
    }
    let at = world.micros();
    world.note(&format!("{partition:?} over {order:?}"));
    let cuts = partition.cuts(&order);
    for link in &cuts {
        world.cut_for(*link, FOREVER_MICROS);
    }
    // What was on its way is through, or lost.
    let moment = world.now() + Duration::from_millis(5);
    world.run(moment, |_| false);
    let before: Vec<u64> = (1..=count).map(|id| world.clients.done(id)).collect();
    let done = |world: &World, id: u64| world.clients.done(id) >= before[id as usize - 1] + 2;
    let bound = world.now() + Duration::from_secs(20);
    let recovered = world.run(bound, |world| (1..=count).any(|id| done(world, id)));
    assert!(recovered, "[liveness] {partition:?}: nothing is decided: {:?}", world.statuses());
    let first = world.micros() - at;
    // A hop from the leader: linked to it, or to somebody who is.
    let linked = |a: NodeId, b: NodeId| a == b || !cuts.contains(&(a, b));
    let near = |world: &World| {
        let leader = world.newest_leader()?;
        let is_near =
            |id: &NodeId| order.iter().any(|via| linked(*id, *via) && linked(*via, leader));
        Some(order.iter().copied().filter(is_near).collect::<Vec<_>>())
    };
    let bound = world.now() + Duration::from_secs(60);
    let served = world.run(bound, |world| {
        near(world).is_some_and(|near| near.iter().all(|id| done(world, id.0)))
    });
    assert!(served, "[liveness] {partition:?}: a node is not served: {:?}", world.statuses());
    Recovery { first, all: world.micros() - at }
}

/// All cases and sizes once; fails as well when one of them takes twice the time it may.
#[cfg(feature = "planted")]
pub fn recover_all(seed: u64, tape: &Tape) {
    for partition in [Partition::QuorumLoss, Partition::Constrained, Partition::Chained] {
        for count in [3, 5] {
            let took = in_timeouts(recover(seed, count, partition, tape).first);
            let most = 2 * TIMEOUTS_MAX * 100;
            assert!(took <= most, "[liveness] {partition:?} of {count} took {took} hundredths");
        }
    }
}

/// In hundredths of an election timeout.
fn in_timeouts(micros: u64) -> u64 {
    micros * 100 / ELECTION_TIMEOUT_MICROS
}

#[test]
fn partial_connectivity_is_recovered_from() {
    let mut late = Vec::new();
    for partition in [Partition::QuorumLoss, Partition::Constrained, Partition::Chained] {
        for count in [3, 5, 7] {
            let results =
                for_each_seed("partial_connectivity", seeds(SEEDS), |seed, tape: &Tape| {
                    recover(seed, count, partition, tape)
                });
            let firsts: Vec<u64> = results.iter().map(|r| in_timeouts(r.first)).collect();
            let all: Vec<u64> = results.iter().map(|r| in_timeouts(r.all)).collect();
            let soon = firsts.iter().filter(|t| **t <= TIMEOUTS_MAX * 100).count();
            println!(
                "{partition:?} of {count}, {} seeds, in hundredths of an election timeout: \
                 first write {}; every node {}; {soon} within {TIMEOUTS_MAX} timeouts",
                results.len(),
                distribution(&firsts),
                distribution(&all),
            );
            if soon * 1_000 < results.len() * RECOVERED_PER_MILLE {
                late.push(format!("{partition:?} of {count}: {soon} of {}", results.len()));
            }
        }
    }
    assert!(late.is_empty(), "[liveness] recovery takes too long: {late:?}");
}
