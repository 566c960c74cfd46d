//! What counts as a quorum: the sizes that may be configured, and what the proposer and the learner
//! make of who promised and who accepted.

use crate::replicas::{Process, configuration, generation};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::message::Pledge;
use paxos_ssh::paxos::quorum::{QuorumError, QuorumSystem};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The node that proposes, has no vote, and is asked.
const PROPOSER: u64 = 1;

/// Acceptors of the exhaustive test; each one more doubles the subsets.
const SUBSETS_OF_MAX: u16 = 6;

fn acceptors(count: u16) -> Vec<u64> {
    (2..2 + u64::from(count)).collect()
}

/// Every system over so many acceptors.
fn systems(count: u16) -> impl Iterator<Item = QuorumSystem> {
    let sizes = (1..=count).flat_map(move |phase1| (1..=count).map(move |phase2| (phase1, phase2)));
    sizes.filter_map(move |(phase1, phase2)| QuorumSystem::flexible(count, phase1, phase2).ok())
}

fn candidate(system: QuorumSystem) -> Process {
    let acceptors = acceptors(system.acceptors() as u16);
    let mut process = Process::start(PROPOSER, 7, &configuration(&[PROPOSER], &acceptors, system));
    process.campaign();
    process
}

fn promise(ballot: Ballot, generation: VoterGeneration) -> Pledge<u64> {
    let (floor, votes) = (Slot(1), Vec::new());
    Pledge::Promise { ballot, generation, floor, votes, part: 0, parts: 1 }
}

fn accepted(ballot: Ballot, generation: VoterGeneration) -> Pledge<u64> {
    Pledge::Accepted { ballot, generation, first: Slot(1), last: Slot(1) }
}

/// Those acceptors whose bit is set.
fn members(acceptors: &[u64], subset: u32) -> impl Iterator<Item = u64> + '_ {
    let bits = acceptors.iter().enumerate();
    bits.filter(move |(bit, _)| subset >> bit & 1 == 1).map(|(_, id)| *id)
}

/// Who leads with exactly these promises.
fn leads(system: QuorumSystem, subset: u32) -> bool {
    let mut process = candidate(system);
    let ballot = process.ballot();
    for id in members(&acceptors(system.acceptors() as u16), subset) {
        process.hear(id, promise(ballot, generation(id)));
    }
    process.leads()
}

/// Whether exactly these votes choose what the leader proposes first.
fn chooses(system: QuorumSystem, subset: u32) -> bool {
    let acceptors = acceptors(system.acceptors() as u16);
    let mut process = candidate(system);
    let ballot = process.ballot();
    for id in &acceptors {
        process.hear(*id, promise(ballot, generation(*id)));
    }
    assert!(process.leads(), "all of them promised");
    for id in members(&acceptors, subset) {
        process.hear(id, accepted(ballot, generation(id)));
    }
    process.chosen() >= Slot(1)
}

#[test]
fn every_subset_is_counted_and_quorums_meet() {
    for count in 1..=SUBSETS_OF_MAX {
        let subsets = 0u32..1 << count;
        for system in systems(count) {
            let who = |test: fn(QuorumSystem, u32) -> bool| -> Vec<u32> {
                subsets.clone().filter(|subset| test(system, *subset)).collect()
            };
            let (elect, choose) = (who(leads), who(chooses));
            for subset in subsets.clone() {
                let size = subset.count_ones() as usize;
                assert_eq!(
                    elect.contains(&subset),
                    size >= system.phase1(),
                    "{system:?} {subset:b}"
                );
                assert_eq!(
                    choose.contains(&subset),
                    size >= system.phase2(),
                    "{system:?} {subset:b}"
                );
                // Whoever joins does not take a quorum away.
                for larger in (0..count).map(|bit| subset | 1 << bit) {
                    assert!(!elect.contains(&subset) || elect.contains(&larger));
                    assert!(!choose.contains(&subset) || choose.contains(&larger));
                }
            }
            let apart = elect.iter().find(|a| choose.iter().any(|b| *a & b == 0));
            assert_eq!(apart, None, "{system:?}: a phase-1 quorum misses a phase-2 quorum");
        }
    }
}

/// A word of an acceptor that may be another's, twice, of another life or under another ballot.
fn word() -> impl Strategy<Value = (usize, bool, u8)> {
    (
        0..9usize,
        prop::bool::weighted(0.8),
        prop_oneof![1 => Just(0u8), 6 => Just(1u8), 1 => Just(2u8)],
    )
}

fn any_system() -> impl Strategy<Value = QuorumSystem> {
    (1u16..=7).prop_flat_map(|count| {
        let all: Vec<QuorumSystem> = systems(count).collect();
        prop::sample::select(all)
    })
}

/// Ballots below, at and above the candidate's own.
fn nearby(own: Ballot, which: u8) -> Ballot {
    let number = own.number.value() + u64::from(which) * 100 - 100;
    Ballot { number: ProposalNumber::from_raw(number), ..own }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn only_promises_of_this_life_under_this_ballot_elect(
        system in any_system(), words in vec(word(), 0..30),
    ) {
        let acceptors = acceptors(system.acceptors() as u16);
        let mut process = candidate(system);
        // Above the first round, so that there are ballots below it.
        let above = promise(process.ballot(), generation(0));
        process.hear(0, above);
        process.campaign();
        let own = process.ballot();
        let mut promised = BTreeSet::new();
        for (who, same_life, which) in words {
            let Some(id) = acceptors.get(who) else { continue };
            let life = if same_life { generation(*id) } else { generation(*id + 1) };
            process.hear(*id, promise(nearby(own, which), life));
            if same_life && which == 1 {
                promised.insert(*id);
            }
            prop_assert_eq!(process.leads(), promised.len() >= system.phase1());
        }
    }

    #[test]
    fn only_votes_of_this_life_under_one_ballot_choose(
        system in any_system(), words in vec(word(), 0..30),
    ) {
        let acceptors = acceptors(system.acceptors() as u16);
        let mut process = candidate(system);
        process.campaign();
        let own = process.ballot();
        for id in &acceptors {
            process.hear(*id, promise(own, generation(*id)));
        }
        prop_assert!(process.leads());
        // Votes under the highest ballot that anybody voted under; of a ballot above its own the
        // learner has no proposal.
        let (mut highest, mut voters, mut chosen) = (Ballot::ZERO, BTreeSet::new(), false);
        for (who, same_life, which) in words {
            let Some(id) = acceptors.get(who) else { continue };
            let life = if same_life { generation(*id) } else { generation(*id + 1) };
            let ballot = nearby(own, which);
            process.hear(*id, accepted(ballot, life));
            if same_life && ballot > highest {
                (highest, voters) = (ballot, BTreeSet::new());
            }
            if same_life && ballot == highest {
                voters.insert(*id);
            }
            chosen |= highest <= own && voters.len() >= system.phase2();
            prop_assert_eq!(process.chosen() >= Slot(1), chosen);
        }
    }

    #[test]
    fn sizes_are_judged_as_they_are_counted(count in 0u16..20, a in 0u16..22, b in 0u16..22) {
        let fits = |size| size >= 1 && size <= count;
        match QuorumSystem::flexible(count, a, b) {
            Ok(system) => {
                prop_assert!(fits(a) && fits(b) && a + b > count);
                prop_assert_eq!(system.phase1(), usize::from(a));
                prop_assert_eq!(system.phase2(), usize::from(b));
                prop_assert_eq!(system.campaign(), usize::from(a.max(b)));
                // The fewest that no phase-1 quorum avoids.
                prop_assert_eq!(system.confirmation() + system.phase1(), system.acceptors() + 1);
            }
            Err(QuorumError::NoAcceptors) => prop_assert_eq!(count, 0),
            Err(QuorumError::OutOfRange { .. }) => prop_assert!(!fits(a) || !fits(b)),
            Err(QuorumError::Disjoint { .. }) => prop_assert!(a + b <= count),
        }
    }

    #[test]
    fn a_majority_is_the_smallest_that_meets_itself(count in 1u16..=u16::MAX) {
        let system = QuorumSystem::majority(count).unwrap();
        prop_assert_eq!(system.phase1(), system.phase2());
        prop_assert!(2 * system.phase1() > usize::from(count));
        prop_assert!(2 * (system.phase1() - 1) <= usize::from(count));
    }
}
