//! What a node saw an acceptor pledge, and whether that one's log still holds it.
//!
//! An acceptor that forgets what it pledged lets two values be chosen ("Paxos Made Simple" §2.5),
//! and cannot know by itself: an old backup of its directory, or a disk that lied about a sync,
//! looks like any other log. Others may know better. Whoever hears pledges keeps the highest of
//! each acceptor, and tells it what it was when a link to it comes to stand, among the first that
//! is said over it, and when it pledges under another ballot than before.
//!
//! An acceptor pledges nothing that is not durable, so what anybody ever saw it pledge was pledged
//! in this life of its process, or was in its log when this life began, however late, reordered or
//! repeated it is told. If neither is so, memory is lost: the acceptor is **fenced**, durably, and
//! never votes again under this voter generation. Its node's other roles go on, for what the log
//! says is chosen is chosen; but a campaign or a leadership that may rest on the acceptor's own
//! promise ends, and its votes that were counted here are taken back. What others counted cannot
//! be.
//!
//! This notices what can be noticed. Nothing is known where all who saw the pledge are gone or
//! have started over, and an acceptor may be asked to vote by somebody who saw nothing of it
//! before it hears from somebody who did. It must never fence an acceptor that forgot nothing. The
//! cost is a message for each link that comes to stand and for each acceptor in an election.

use super::ballot::{Ballot, NodeId, Slot, VoterGeneration};
use super::effects::{Effects, Note, Offence, StepDown};
use super::message::{Pledge, Value};
use super::proposer::{Phase, Proposer};
use super::record::{Record, Recovered};
use super::replica::Replica;
use std::collections::BTreeMap;

/// The highest pledge of an acceptor that a node saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Witnessed {
    /// In which life of the acceptor's log.
    pub generation: VoterGeneration,
    /// Promised, or accepted under.
    pub ballot: Ballot,
    /// The highest slot accepted under that ballot; zero if it was only promised.
    pub last: Slot,
}

impl Witnessed {
    /// What this pledge amounts to.
    pub fn of<V>(pledge: &Pledge<V>) -> Witnessed {
        match *pledge {
            Pledge::Promise { ballot, generation, .. } => {
                Witnessed { generation, ballot, last: Slot(0) }
            }
            Pledge::Accepted { ballot, generation, last, .. } => {
                Witnessed { generation, ballot, last }
            }
        }
    }

    /// The higher of the two, of one life of a log.
    pub fn max(self, other: Witnessed) -> Witnessed {
        if (other.ballot, other.last) > (self.ballot, self.last) { other } else { self }
    }
}

/// All that an acceptor can have pledged, as far as it remembers.
#[derive(Debug)]
pub struct Memory {
    generation: Option<VoterGeneration>,
    /// What the log held when this life of the process began.
    promised: Ballot,
    chosen: Slot,
    votes: BTreeMap<Slot, Ballot>,
    since: Option<Since>,
}

/// What it pledged in this life of the process.
#[derive(Debug, Clone, Copy)]
struct Since {
    /// The first ballot, below which an acceptor never pledges again, and the lowest slot accepted
    /// under it.
    first: (Ballot, Slot),
    highest: Witnessed,
    /// The lowest slot accepted under the highest ballot.
    lowest: Slot,
}

impl Memory {
    /// At the start of a process over this log.
    pub fn new<V>(recovered: &Recovered<V>) -> Memory {
        Memory {
            generation: recovered.generation,
            promised: recovered.promised,
            chosen: recovered.chosen,
            votes: recovered.votes.iter().map(|(slot, vote)| (*slot, vote.ballot)).collect(),
            since: None,
        }
    }

    /// The acceptor says this to others.
    pub fn pledged<V>(&mut self, pledge: &Pledge<V>) {
        let said = Witnessed::of(pledge);
        let slot = match *pledge {
            Pledge::Promise { .. } => Slot(u64::MAX),
            Pledge::Accepted { first, .. } => first,
        };
        self.since = Some(match self.since {
            None => Since { first: (said.ballot, slot), highest: said, lowest: slot },
            Some(since) if since.highest.ballot > said.ballot => since,
            Some(Since { first, highest, lowest }) => {
                let is_same = highest.ballot == said.ballot;
                let lowest = if is_same { lowest.min(slot) } else { slot };
                let first = if first.0 == said.ballot { (first.0, lowest) } else { first };
                let highest = if is_same { highest.max(said) } else { said };
                Since { first, highest, lowest }
            }
        });
    }

    /// Whether it may have pledged this. Of another life of the log it says nothing.
    pub fn bears_out(&self, seen: Witnessed) -> bool {
        let is_ours = self.generation == Some(seen.generation);
        !is_ours || self.may_have_said(seen) || self.held(seen)
    }

    /// Whether it may have been pledged in this life. Of ballots between the first and the highest,
    /// and of slots in between, nothing is kept: those may.
    fn may_have_said(&self, seen: Witnessed) -> bool {
        self.since.is_some_and(|Since { first, highest, lowest }| {
            let is_promise = seen.last == Slot(0);
            let is_within = |lowest| is_promise || seen.last >= lowest;
            if seen.ballot == highest.ballot {
                is_within(lowest) && seen.last <= highest.last
            } else if seen.ballot == first.0 {
                is_within(first.1)
            } else {
                first.0 < seen.ballot && seen.ballot < highest.ballot
            }
        })
    }

    /// Whether the log held it when this life began. Votes within the chosen prefix are not kept.
    fn held(&self, seen: Witnessed) -> bool {
        let voted = || self.votes.get(&seen.last).is_some_and(|ballot| *ballot >= seen.ballot);
        self.promised >= seen.ballot && (seen.last <= self.chosen || voted())
    }
}

impl<V: Value> Replica<V> {
    /// A peer saw this node's acceptor pledge what it does not remember: it votes no more. Pledges
    /// of it that wait for the log must be withheld.
    pub fn fence(&mut self, by: NodeId, seen: Witnessed, effects: &mut Effects<V>) {
        if self.acceptor.is_none() {
            return;
        }
        if let Err(offence) = self.check_witness(by, seen) {
            effects.note(Note::Refused(by, offence));
            return;
        }
        effects.note(Note::Fenced { by, ballot: seen.ballot, last: seen.last });
        self.acceptor = None;
        self.fenced = true;
        self.loopback.held.clear();
        self.learner.disown(self.id);
        let is_idle = |proposer: &Proposer<V>| matches!(proposer.phase, Phase::Idle);
        if !self.proposer.as_ref().is_none_or(is_idle) {
            self.step_down(StepDown::Fenced, effects);
        }
        if !planted!(FenceNotLogged) {
            effects.append(Record::Fenced);
            effects.await_end();
        }
        self.settle(effects);
    }

    /// Pledges are said to candidates, leaders and learners.
    fn check_witness(&self, by: NodeId, seen: Witnessed) -> Result<(), Offence> {
        let roles = self.configurations.newest().member(by).map(|member| member.roles);
        if !roles.is_some_and(|roles| roles.proposer.is_some() || roles.learner) {
            return Err(Offence::Stranger);
        }
        self.check_plausible(seen.ballot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::{Incarnation, ProposalNumber};
    use crate::paxos::message::{Entry, Vote};
    use crate::paxos::record::Recovered;
    use std::sync::Arc;

    const GENERATION: VoterGeneration = VoterGeneration(1);

    fn ballot(number: u64) -> Ballot {
        Ballot { number: ProposalNumber::from_raw(number), incarnation: Incarnation(1) }
    }

    fn seen(number: u64, last: u64) -> Witnessed {
        Witnessed { generation: GENERATION, ballot: ballot(number), last: Slot(last) }
    }

    fn memory(promised: u64, chosen: u64, votes: &[(u64, u64)]) -> Memory {
        let vote = |&(slot, number): &(u64, u64)| {
            let (slot, entry) = (Slot(slot), Arc::new(Entry::<u64>::noop()));
            (slot, Vote { slot, ballot: ballot(number), entry })
        };
        Memory::new(&Recovered {
            generation: Some(GENERATION),
            promised: ballot(promised),
            chosen: Slot(chosen),
            votes: votes.iter().map(vote).collect(),
            ..Recovered::default()
        })
    }

    #[test]
    fn the_highest_pledge_is_kept_in_whatever_order_they_come() {
        let all = [seen(101, 7), seen(201, 0), seen(201, 5), seen(201, 4)];
        let highest = |order: &[Witnessed]| order.iter().copied().reduce(Witnessed::max);
        assert_eq!(highest(&all), Some(seen(201, 5)));
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        assert_eq!(highest(&reversed), Some(seen(201, 5)));
    }

    #[test]
    fn a_memory_bears_out_what_the_log_held() {
        let memory = memory(201, 4, &[(5, 101), (6, 201)]);
        for held in [seen(201, 0), seen(101, 5), seen(101, 6), seen(201, 6), seen(201, 4)] {
            assert!(memory.bears_out(held), "{held:?}");
        }
        for lost in [seen(301, 0), seen(201, 5), seen(101, 7), seen(201, 7), seen(301, 4)] {
            assert!(!memory.bears_out(lost), "{lost:?}");
        }
        let stranger = Witnessed { generation: VoterGeneration(2), ..seen(301, 9) };
        assert!(memory.bears_out(stranger), "another life of the log");
    }

    #[test]
    fn a_memory_bears_out_what_was_pledged_since() {
        let mut memory = memory(101, 0, &[]);
        let promise = |number| Pledge::<u64>::Promise {
            ballot: ballot(number),
            generation: GENERATION,
            floor: Slot(1),
            votes: Vec::new(),
            part: 0,
            parts: 1,
        };
        let accepted = |number, first, last| Pledge::<u64>::Accepted {
            ballot: ballot(number),
            generation: GENERATION,
            first: Slot(first),
            last: Slot(last),
        };
        assert!(!memory.bears_out(seen(201, 3)));
        memory.pledged(&promise(201));
        assert!(memory.bears_out(seen(201, 0)) && !memory.bears_out(seen(201, 3)));
        memory.pledged(&accepted(201, 3, 4));
        memory.pledged(&accepted(201, 2, 2));
        memory.pledged(&promise(201));
        for said in [seen(201, 2), seen(201, 3), seen(201, 4), seen(201, 0), seen(101, 0)] {
            assert!(memory.bears_out(said), "{said:?}");
        }
        assert!(!memory.bears_out(seen(201, 1)) && !memory.bears_out(seen(201, 5)));
        memory.pledged(&promise(301));
        assert!(memory.bears_out(seen(301, 0)) && !memory.bears_out(seen(301, 1)));
        assert!(memory.bears_out(seen(201, 9)), "not all of it is kept");
        assert!(!memory.bears_out(seen(201, 1)), "the lowest slot under the first ballot was 2");
        assert!(!memory.bears_out(seen(101, 9)), "nothing below the first ballot was said since");
    }
}
