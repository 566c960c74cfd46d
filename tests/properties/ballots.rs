//! Ballots against pairs of numbers, and the ballots that processes issue against each other.

use crate::replicas::{Process, configuration};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::ConfigurationNumber;
use paxos_ssh::paxos::message::Statement;
use paxos_ssh::paxos::quorum::QuorumSystem;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Nodes that may propose.
const NODES: u64 = 4;

/// Numbers that are often equal, next to each other, or at the end.
fn raw() -> impl Strategy<Value = u64> {
    prop_oneof![0..500u64, any::<u64>(), (0..500u64).prop_map(|below| u64::MAX - below)]
}

/// How far ahead a counter is; often just as far as it may be.
fn step() -> impl Strategy<Value = u64> {
    prop_oneof![raw(), COUNTER_JUMP_MAX - 2..=COUNTER_JUMP_MAX + 2]
}

fn pair() -> impl Strategy<Value = (u64, u64)> {
    (raw(), raw())
}

fn ballot((number, incarnation): (u64, u64)) -> Ballot {
    Ballot { number: ProposalNumber::from_raw(number), incarnation: Incarnation(incarnation) }
}

/// One thing that happens among the processes.
#[derive(Debug, Clone)]
enum Deed {
    Campaign(u64),
    /// The newest ballot of the first is heard by the second.
    Hears(u64, u64),
    /// Somebody else's ballot, of a node's proposer, is heard by another.
    Told(u64, u64, u64),
    /// The process ends, and one with an empty log takes its place.
    Restart(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    let node = || 1..=NODES;
    prop_oneof![
        3 => node().prop_map(Deed::Campaign),
        3 => (node(), node()).prop_map(|(of, by)| Deed::Hears(of, by)),
        1 => (node(), node(), 0..1000u64).prop_map(|(of, by, counter)| Deed::Told(of, by, counter)),
        1 => node().prop_map(Deed::Restart),
    ]
}

fn prepare(ballot: Ballot) -> Statement<u64> {
    Statement::Prepare { ballot, configuration: ConfigurationNumber(1), first: Slot(1) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_order_is_that_of_pairs(a in pair(), b in pair(), c in pair()) {
        prop_assert_eq!(ballot(a).cmp(&ballot(b)), a.cmp(&b));
        prop_assert_eq!(ballot(a) == ballot(b), a == b);
        prop_assert!(ballot(a) >= Ballot::ZERO);
        if ballot(a) <= ballot(b) && ballot(b) <= ballot(c) {
            prop_assert!(ballot(a) <= ballot(c));
        }
    }

    #[test]
    fn the_next_number_is_what_counting_up_finds(from in raw(), id in 0..100u64) {
        let number = ProposalNumber::from_raw(from);
        let counted = (1..=100u64).filter_map(|step| from.checked_add(step));
        let counted = counted.into_iter().find(|number| number % PROPOSERS_PER_COUNTER == id);
        let next = number.next_for(ProposerId::new(id).unwrap());
        prop_assert_eq!(next.map(ProposalNumber::value).ok(), counted);
        if let Ok(next) = next {
            prop_assert_eq!(u64::from(next.proposer().value()), id);
            prop_assert!(next.counter() - number.counter() <= 1);
        }
        let parts = (number.counter(), u64::from(number.proposer().value()));
        prop_assert_eq!(parts, (from / 100, from % 100));
    }

    #[test]
    fn what_is_far_ahead_is_implausible(seen in pair(), step in step()) {
        let (seen_counter, bound) = (seen.0 / 100, COUNTER_JUMP_MAX);
        let counter = seen_counter.saturating_add(step).min(u64::MAX / 100);
        let other = ballot((counter * 100, 0));
        prop_assert_eq!(other.is_plausible_after(ballot(seen)), counter - seen_counter <= bound);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However often they hear each other, forget everything and start anew: no ballot is issued
    /// twice, and each is above all that its process had seen.
    #[test]
    fn no_ballot_is_issued_twice(deeds in vec(deed(), 1..60)) {
        let nodes: Vec<u64> = (1..=NODES).collect();
        let configuration = configuration(&nodes, &nodes, QuorumSystem::majority(4).unwrap());
        let mut incarnation = 0;
        let mut start = |id: u64| {
            incarnation += 1;
            Process::start(id, incarnation, &configuration)
        };
        let mut processes: Vec<Process> = nodes.iter().map(|id| start(*id)).collect();
        let mut issued = BTreeSet::new();
        for deed in deeds {
            match deed {
                Deed::Campaign(id) => {
                    let process = &mut processes[id as usize - 1];
                    let seen = process.ballot();
                    process.campaign();
                    let new = process.ballot();
                    prop_assert!(new > seen, "{:?} after {:?}", new, seen);
                    prop_assert_eq!(u64::from(new.number.proposer().value()), id);
                    prop_assert!(issued.insert(new), "{:?} is issued twice", new);
                    prop_assert_eq!(process.issued.last(), Some(&new));
                }
                Deed::Hears(of, by) => {
                    let Some(ballot) = processes[of as usize - 1].issued.last().copied() else {
                        continue;
                    };
                    processes[by as usize - 1].hear(of, prepare(ballot));
                    prop_assert!(processes[by as usize - 1].ballot() >= ballot);
                }
                Deed::Told(of, by, counter) => {
                    let ballot = ballot((counter * 100 + of, u64::MAX));
                    processes[by as usize - 1].hear(of, prepare(ballot));
                    prop_assert!(processes[by as usize - 1].ballot() >= ballot);
                }
                Deed::Restart(id) => processes[id as usize - 1] = start(id),
            }
        }
    }
}
