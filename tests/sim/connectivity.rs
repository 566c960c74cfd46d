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
//!
//! To decide again is not enough: servers that do not hear each other could take leadership from
//! each other for ever, and a write would get through in between. So the cluster is watched for a
//! while afterwards, and the ballots since the cuts must be few. Among three, two of the cases
//! leave the leader its quorum; there it must stay, and nobody may issue a ballot at all.

use crate::network::Partition;
use crate::runner::{for_each_seed, seeds};
use crate::shape::Shape;
use crate::stats::{distribution, percentile};
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::paxos::ballot::NodeId;
use std::time::Duration;

/// Seeds for each case and size.
const SEEDS: u64 = 150;

/// The lower bound of the election timeout, which is what calm links make of it.
pub const ELECTION_TIMEOUT_MICROS: u64 = 250_000;

/// Recovery takes no longer than so many election timeouts,
const TIMEOUTS_MAX: u64 = 4;

/// in so many of a thousand histories.
const RECOVERED_PER_MILLE: usize = 999;

/// How long the one in the middle does not hear the leader before a constrained election.
const BEHIND: Duration = Duration::from_millis(100);

/// How long the cluster is watched once all are served: twenty election timeouts.
const WATCHED: Duration = Duration::from_secs(5);

/// Ballots from the cuts until then, in the median and at most.
const CAMPAIGNS_MEDIAN_MAX: u64 = 1;
const CAMPAIGNS_MAX: u64 = 4;

const FOREVER_MICROS: u64 = 3_600_000_000;

/// A case, and among how many.
#[derive(Debug, Clone, Copy)]
struct Cell {
    partition: Partition,
    count: u64,
}

impl Cell {
    fn all() -> impl Iterator<Item = Cell> {
        let cases = [Partition::QuorumLoss, Partition::Constrained, Partition::Chained];
        let sized = |partition| [3, 5, 7].map(|count| Cell { partition, count });
        cases.into_iter().flat_map(sized)
    }

    /// Whether whoever led before the cuts still reaches a quorum, itself included.
    fn leaves_the_leader_a_quorum(self) -> bool {
        let order: Vec<NodeId> = (1..=self.count).map(NodeId).collect();
        let cuts = self.partition.cuts(&order);
        let reached = order.iter().filter(|id| !cuts.contains(&(order[0], **id))).count() as u64;
        reached > self.count / 2
    }
}

/// What came after the cuts.
struct Recovery {
    /// Micros until the first write.
    first: u64,
    /// Micros until a write at each node that is at most a hop away from the leader.
    all: u64,
    /// Ballots that anybody issued, until the end of the watch.
    campaigns: u64,
}

fn recover(seed: u64, cell: Cell, tape: &Tape) -> Recovery {
    let Cell { partition, count } = cell;
    let mut world = World::new(seed, Shape::calm(count), tape);
    world.run_until_stable_leader();
    let (leader, _) = world.common_leader().expect("it is stable");
    let order = order(&mut world, leader);
    for at in 1..=count {
        world.add_client_of(at, NodeId(at));
    }
    let settled = world.now() + Duration::from_millis(50);
    world.run(settled, |_| false);
    if partition == Partition::Constrained {
        // The leader and the others go on without the one in the middle.
        let middle = order[count as usize - 1];
        for from in order.iter().filter(|from| **from != middle) {
            world.cut_for((*from, middle), BEHIND.as_micros() as u64);
        }
        let behind = world.now() + BEHIND;
        world.run(behind, |_| false);
    }
    let at = world.micros();
    let campaigns = world.checks.elections.campaigns();
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
    let all = world.micros() - at;
    let campaigns = watch(&mut world, cell, leader) - campaigns;
    Recovery { first, all, campaigns }
}

/// The leader first, and somebody in the middle last.
fn order(world: &mut World, leader: NodeId) -> Vec<NodeId> {
    let count = world.nodes.len();
    let mut order: Vec<NodeId> = (1..=count as u64).map(NodeId).collect();
    order.swap(0, leader.0 as usize - 1);
    let last = 1 + world.random.below(count as u64 - 1) as usize;
    order.swap(last, count - 1);
    order
}

/// Lets time pass, and answers how many ballots there were until then, in all of the history.
/// Clients are gone meanwhile: who leads is decided by heartbeats, and a watch of five seconds
/// under load would take a hundred times as long.
fn watch(world: &mut World, cell: Cell, led: NodeId) -> u64 {
    world.clients.leave();
    let until = world.now() + WATCHED;
    if !cell.leaves_the_leader_a_quorum() {
        world.run(until, |_| false);
        return world.checks.elections.campaigns();
    }
    let moved = world.run(until, |world| world.newest_leader() != Some(led));
    assert!(!moved, "[elections] {cell:?}: {led} had its quorum and lost the leadership");
    world.checks.elections.campaigns()
}

/// All cases and sizes once; fails as well when one of them takes twice the time or twice the
/// ballots that it may.
#[cfg(feature = "planted")]
pub fn recover_all(seed: u64, tape: &Tape) {
    for cell in Cell::all() {
        let recovery = recover(seed, cell, tape);
        let took = in_timeouts(recovery.first);
        assert!(took <= 2 * TIMEOUTS_MAX * 100, "[liveness] {cell:?} took {took} hundredths");
        let most = if cell.leaves_the_leader_a_quorum() { 0 } else { 2 * CAMPAIGNS_MAX };
        let campaigns = recovery.campaigns;
        assert!(campaigns <= most, "[elections] {cell:?} took {campaigns} ballots");
    }
}

/// In hundredths of an election timeout.
fn in_timeouts(micros: u64) -> u64 {
    micros * 100 / ELECTION_TIMEOUT_MICROS
}

/// What is wrong with these recoveries, all of one cell.
fn complaints(cell: Cell, results: &[Recovery]) -> Vec<String> {
    let campaigns: Vec<u64> = results.iter().map(|r| r.campaigns).collect();
    let (median, most) = (percentile(&campaigns, 500), percentile(&campaigns, 1_000));
    let mut complaints = Vec::new();
    if cell.leaves_the_leader_a_quorum() {
        if most > 0 {
            complaints.push(format!("[elections] {cell:?}: {most} ballots against a sound leader"));
        }
        return complaints;
    }
    let soon = results.iter().filter(|r| in_timeouts(r.first) <= TIMEOUTS_MAX * 100).count();
    if soon * 1_000 < results.len() * RECOVERED_PER_MILLE {
        complaints.push(format!("[liveness] {cell:?}: only {soon} within {TIMEOUTS_MAX} timeouts"));
    }
    if median > CAMPAIGNS_MEDIAN_MAX || most > CAMPAIGNS_MAX {
        complaints.push(format!("[elections] {cell:?}: ballots {}", distribution(&campaigns)));
    }
    complaints
}

#[cfg_attr(not(feature = "planted"), test)]
fn partial_connectivity_is_recovered_from() {
    let mut wrong = Vec::new();
    for cell in Cell::all() {
        let results = for_each_seed("partial_connectivity", seeds(SEEDS), |seed, tape: &Tape| {
            recover(seed, cell, tape)
        });
        let of = |value: fn(&Recovery) -> u64| {
            distribution(&results.iter().map(value).collect::<Vec<u64>>())
        };
        let first = match cell.leaves_the_leader_a_quorum() {
            true => "the leader stayed".to_owned(),
            false => format!("first write {}", of(|r| in_timeouts(r.first))),
        };
        println!(
            "{:?} of {}, {} seeds, in hundredths of an election timeout: {first}; every node {}; \
             ballots within {WATCHED:?} after that {}",
            cell.partition,
            cell.count,
            results.len(),
            of(|r| in_timeouts(r.all)),
            of(|r| r.campaigns),
        );
        wrong.extend(complaints(cell, &results));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A case that asked nothing of the leader would be passed by any program.
#[test]
fn only_among_three_the_leader_keeps_its_quorum() {
    let kept = Cell::all().filter(|cell| cell.leaves_the_leader_a_quorum());
    let kept: Vec<(Partition, u64)> = kept.map(|cell| (cell.partition, cell.count)).collect();
    assert_eq!(kept, [(Partition::QuorumLoss, 3), (Partition::Chained, 3)]);
}
