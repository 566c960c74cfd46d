//! From whose log a cluster goes on, of which so many acceptors were lost that the others are no
//! quorum; a pure function of what the survivors' logs hold.
//!
//! The one must have a vote, and be as far as any other in what is known to be chosen: a survivor
//! that applied more would contradict it. Among those that are, any will do, for the votes of all
//! survivors are counted: of each slot the vote of the highest ballot, wherever it lies. See
//! [`crate::paxos::reform`] for what is made of them. What must never happen: a survivor's vote is
//! left out without a word, or nothing is said to be lost where votes are gone.

use super::remains::{Remains, VOTES_BYTES_MAX};
use crate::controller::state::ClusterState;
use crate::paxos::ballot::{Ballot, ClusterId, NodeId, Slot};
use crate::paxos::configuration::{Configuration, ConfigurationNumber, Member, Roles};
use crate::paxos::message::Vote;
use crate::paxos::quorum::QuorumSystem;
use crate::paxos::reform::Reform;
use crate::wire::decree::{decode_vote, encode_vote};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What is decreed, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the one survivor is told.
    pub decree: Reform<Bytes>,
    /// Slots above the chosen prefix whose entry is taken over, though nobody knows it chosen.
    pub taken_over: u64,
    /// Slots below the last one of which no survivor holds anything.
    pub empty: u64,
    /// Whether every acknowledged write is among what the survivors hold.
    pub loses_nothing: bool,
}

/// The survivors' names, those first from whose logs the cluster should go on.
pub fn ranking(state: &ClusterState, survivors: &BTreeMap<String, Remains>) -> Vec<String> {
    let mut names: Vec<(&String, &Remains)> = survivors.iter().collect();
    names.sort_by_key(|(name, remains)| {
        Reverse((votes(state, name, remains), remains.chosen, remains.last))
    });
    names.into_iter().map(|(name, _)| name.clone()).collect()
}

/// Whether a survivor's vote counts, and its log is the one that cast it.
pub fn votes(state: &ClusterState, name: &str, remains: &Remains) -> bool {
    let due = state.acceptors().find(|founder| founder.name == name);
    let due = due.and_then(|founder| founder.voter().ok().flatten());
    let is_ours = remains.cluster_id.as_ref() == Some(&state.cluster_id);
    is_ours && !remains.fenced && due.is_some() && remains.generation == due.map(|life| life.0)
}

/// What to decree, to go on from the log of `from`, without those of `lost`.
///
/// # Errors
/// Why that cannot be, in words.
pub fn decide(
    state: &ClusterState,
    survivors: &BTreeMap<String, Remains>,
    from: &str,
    lost: &[String],
) -> Result<Decision, String> {
    let base = must_be_the_base(state, survivors, from)?;
    let best = best_votes(survivors)?;
    let last = survivors.values().map(|remains| remains.last).max().unwrap_or(0);
    let own: BTreeMap<Slot, Ballot> =
        votes_of(base)?.map(|vote| (vote.slot, vote.ballot)).collect();
    let above = || best.values().filter(|vote| vote.slot.0 > base.chosen);
    let learned = |slot: u64| base.learned.contains(&slot);
    let is_carried = |vote: &&Vote<Bytes>| {
        own.get(&vote.slot).is_none_or(|ballot| *ballot < vote.ballot) && !learned(vote.slot.0)
    };
    let carried: Vec<Vote<Bytes>> = above().filter(is_carried).cloned().collect();
    let bytes: usize = carried.iter().map(|vote| encode_vote(vote).len()).sum();
    if bytes > VOTES_BYTES_MAX {
        return Err(format!(
            "the other survivors hold {bytes} bytes of votes that {from} lacks, more than the \
             {VOTES_BYTES_MAX} that can be carried; go on from another"
        ));
    }
    let held = |slot: &u64| learned(*slot) || best.contains_key(&Slot(*slot));
    let open = base.chosen.saturating_add(1)..=last;
    let cluster = u128::from_str_radix(&state.cluster_id, 16).map_err(|error| error.to_string())?;
    Ok(Decision {
        taken_over: above().filter(|vote| !learned(vote.slot.0)).count() as u64,
        empty: open.filter(|slot| !held(slot)).count() as u64,
        loses_nothing: loses_nothing(state, survivors),
        decree: Reform {
            cluster: ClusterId(cluster),
            configuration: configuration(state, survivors, lost)?,
            last: Slot(last),
            votes: carried,
        },
    })
}

/// What the one to go on from holds, if it can be that one.
fn must_be_the_base<'a>(
    state: &ClusterState,
    survivors: &'a BTreeMap<String, Remains>,
    from: &str,
) -> Result<&'a Remains, String> {
    let Some(base) = survivors.get(from) else {
        return Err(format!("{from} is none of the survivors"));
    };
    let known = state.recoveries.iter().map(|recovery| recovery.configuration).max().unwrap_or(1);
    for (name, remains) in survivors {
        if remains.configuration > known {
            return Err(format!(
                "the log of {name} knows configuration {}, and state.yaml here none after {known}: \
                 it is an old copy",
                remains.configuration
            ));
        }
        match &remains.cluster_id {
            Some(found) if *found != state.cluster_id => {
                return Err(format!("the log of {name} is of another cluster, {found}"));
            }
            _ => {}
        }
    }
    if !votes(state, from, base) {
        return Err(format!("{from} has no vote, or its log lost it: go on from one that votes"));
    }
    for (name, remains) in survivors {
        if remains.chosen > base.chosen {
            return Err(format!(
                "{name} knows slot {} to be chosen and {from} only slot {}: going on from {from} \
                 would undo what {name} has applied; go on from {}",
                remains.chosen,
                base.chosen,
                ranking(state, survivors).first().map_or(name.as_str(), String::as_str)
            ));
        }
        if name != from
            && let Some(slot) = remains.left_out.iter().find(|slot| **slot > base.chosen)
        {
            return Err(format!(
                "{name} holds more votes than can be carried to {from}, among them that of slot \
                 {slot}: go on from {name}"
            ));
        }
    }
    Ok(base)
}

fn votes_of(remains: &Remains) -> Result<impl Iterator<Item = Vote<Bytes>>, String> {
    let decoded: Result<Vec<_>, String> =
        remains.votes.iter().map(|bytes| decode_vote(&Bytes::copy_from_slice(bytes))).collect();
    Ok(decoded?.into_iter())
}

/// Of each slot the vote of the highest ballot.
fn best_votes(
    survivors: &BTreeMap<String, Remains>,
) -> Result<BTreeMap<Slot, Vote<Bytes>>, String> {
    let mut best: BTreeMap<Slot, Vote<Bytes>> = BTreeMap::new();
    for (name, remains) in survivors {
        let votes = votes_of(remains).map_err(|why| format!("the votes of {name}: {why}"))?;
        for vote in votes {
            if best.get(&vote.slot).is_none_or(|other| other.ballot < vote.ballot) {
                best.insert(vote.slot, vote);
            }
        }
    }
    Ok(best)
}

/// The survivors with the roles that they had; without a vote, where the log cannot have one.
fn configuration(
    state: &ClusterState,
    survivors: &BTreeMap<String, Remains>,
    lost: &[String],
) -> Result<Configuration, String> {
    let genesis = state.genesis().map_err(|error| error.to_string())?;
    let mut members = BTreeMap::new();
    for founder in state.members().filter(|founder| !lost.contains(&founder.name)) {
        let id = NodeId(founder.id);
        let Some(formed) = genesis.configuration.member(id) else { continue };
        let remains = survivors.get(&founder.name);
        let may_vote = remains.is_some_and(|remains| votes(state, &founder.name, remains));
        let roles = Roles { acceptor: formed.roles.acceptor.filter(|_| may_vote), ..formed.roles };
        members.insert(id, Member { roles, ..formed.clone() });
    }
    let acceptors = members.values().filter(|member| member.roles.acceptor.is_some()).count();
    let acceptors = u16::try_from(acceptors).map_err(|error| error.to_string())?;
    let quorums = QuorumSystem::majority(acceptors).map_err(|error| error.to_string())?;
    // Also above one that was begun and that no survivor's log knows: its only copy may be lost.
    let known = survivors.values().map(|remains| remains.configuration);
    let known = known.chain(state.recoveries.iter().map(|recovery| recovery.configuration));
    let number = ConfigurationNumber(known.max().unwrap_or(0).saturating_add(1));
    Configuration::new(number, members, quorums).map_err(|error| error.to_string())
}

/// How many of those that may vote are still there and can.
fn voters_left(state: &ClusterState, survivors: &BTreeMap<String, Remains>) -> usize {
    survivors.iter().filter(|(name, remains)| votes(state, name, remains)).count()
}

/// Whether every write that was ever acknowledged is among what the survivors hold: those whose
/// votes are gone were too few to choose anything.
pub fn loses_nothing(state: &ClusterState, survivors: &BTreeMap<String, Remains>) -> bool {
    let gone = state.acceptors().count().saturating_sub(voters_left(state, survivors));
    gone < usize::from(state.quorums().1)
}

/// Whether the survivors could choose something: then there is nothing to recover from.
pub fn is_quorum(state: &ClusterState, survivors: &BTreeMap<String, Remains>) -> bool {
    let (phase1, phase2) = state.quorums();
    voters_left(state, survivors) >= usize::from(phase1.max(phase2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;
    use crate::controller::state::Recovery;
    use crate::paxos::ballot::{Incarnation, ProposalNumber};
    use crate::paxos::message::{Entry, Payload};
    use std::sync::Arc;

    fn state() -> ClusterState {
        let mut last = 0;
        ClusterState::form(&three_nodes(), ClusterId(7), || {
            last += 1;
            last
        })
    }

    fn vote(slot: u64, counter: u64, value: &'static [u8]) -> Vote<Bytes> {
        let number = ProposalNumber::from_raw(counter * 100 + 1);
        let payload = Payload::Command(Bytes::from_static(value));
        let entry = Arc::new(Entry { payload, ..Entry::noop() });
        Vote { slot: Slot(slot), ballot: Ballot { number, incarnation: Incarnation(1) }, entry }
    }

    /// The log of the node of this generation.
    fn remains(generation: u64, chosen: u64, votes: &[Vote<Bytes>]) -> Remains {
        let last = votes.iter().map(|vote| vote.slot.0).max().unwrap_or(chosen);
        Remains {
            cluster_id: Some(format!("{:032x}", 7)),
            generation: Some(generation),
            configuration: 1,
            chosen,
            last,
            votes: votes.iter().map(|vote| encode_vote(vote).into()).collect(),
            ..Remains::default()
        }
    }

    fn survivors(all: &[(&str, Remains)]) -> BTreeMap<String, Remains> {
        all.iter().map(|(name, remains)| ((*name).to_owned(), remains.clone())).collect()
    }

    fn lost(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn of_each_slot_the_vote_of_the_highest_ballot_is_taken_over() {
        let n1 = remains(1, 4, &[vote(5, 2, b"five"), vote(6, 2, b"old")]);
        let n2 = remains(2, 3, &[vote(4, 2, b"known"), vote(6, 3, b"new"), vote(8, 2, b"far")]);
        let all = survivors(&[("n1", n1), ("n2", n2)]);
        assert_eq!(ranking(&state(), &all), ["n1", "n2"]);
        let decision = decide(&state(), &all, "n1", &lost(&["n3"])).unwrap();
        let decree = &decision.decree;
        assert_eq!((decree.last, decision.taken_over, decision.empty), (Slot(8), 3, 1));
        assert_eq!(decree.votes, [vote(6, 3, b"new"), vote(8, 2, b"far")]);
        assert_eq!(decree.configuration.number, ConfigurationNumber(2));
        assert_eq!(decree.configuration.acceptors().collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
        assert_eq!(decree.configuration.quorums().phase1(), 2);
        let why = decide(&state(), &all, "n2", &lost(&["n3"])).unwrap_err();
        assert!(why.contains("n1 knows slot 4 to be chosen and n2 only slot 3"), "{why}");
    }

    #[test]
    fn a_log_that_cannot_vote_is_no_voter_and_a_strange_one_stops_everything() {
        let fenced = Remains { fenced: true, ..remains(2, 9, &[]) };
        let ahead = Remains { chosen: 10, last: 10, ..fenced.clone() };
        let furthest = survivors(&[("n1", remains(1, 9, &[])), ("n2", ahead)]);
        assert_eq!(ranking(&state(), &furthest), ["n1", "n2"], "it could not go on");
        let why = decide(&state(), &furthest, "n2", &lost(&["n3"])).unwrap_err();
        assert!(why.contains("n2 has no vote"), "{why}");
        let all = survivors(&[("n1", remains(1, 9, &[])), ("n2", fenced)]);
        assert_eq!(ranking(&state(), &all), ["n1", "n2"]);
        let decision = decide(&state(), &all, "n1", &lost(&["n3"])).unwrap();
        let configuration = decision.decree.configuration;
        assert_eq!(configuration.acceptors().collect::<Vec<_>>(), [NodeId(1)]);
        assert!(configuration.member(NodeId(2)).is_some_and(|member| member.roles.learner));
        let other = Remains { cluster_id: Some("8".to_owned()), ..remains(2, 1, &[]) };
        let all = survivors(&[("n1", remains(1, 9, &[])), ("n2", other)]);
        assert!(decide(&state(), &all, "n1", &lost(&["n3"])).is_err());
        let later = Remains { configuration: 2, ..remains(1, 9, &[]) };
        let why = decide(&state(), &survivors(&[("n1", later)]), "n1", &lost(&["n2", "n3"]));
        assert!(why.unwrap_err().contains("an old copy"));
        let another_life = survivors(&[("n1", remains(5, 9, &[]))]);
        let why = decide(&state(), &another_life, "n1", &lost(&["n2", "n3"])).unwrap_err();
        assert!(why.contains("n1 has no vote"), "{why}");
        assert!(decide(&state(), &another_life, "n2", &lost(&["n3"])).is_err());
    }

    #[test]
    fn votes_that_cannot_be_carried_are_not_dropped() {
        let heavy = Remains { left_out: vec![9], last: 9, ..remains(2, 3, &[]) };
        let all = survivors(&[("n1", remains(1, 4, &[])), ("n2", heavy)]);
        let why = decide(&state(), &all, "n1", &lost(&["n3"])).unwrap_err();
        assert!(why.contains("that of slot 9: go on from n2"), "{why}");
        let known = survivors(&[("n1", remains(1, 9, &[])), ("n2", all["n2"].clone())]);
        assert!(decide(&state(), &known, "n1", &lost(&["n3"])).is_ok(), "it is chosen");
    }

    #[test]
    fn whether_anything_is_lost_is_a_matter_of_counting_those_that_can_vote() {
        let state = state();
        let [n1, n2, n3] = [1, 2, 3].map(|generation| remains(generation, 5, &[]));
        let fenced = Remains { fenced: true, ..n2.clone() };
        let all = survivors(&[("n1", n1.clone()), ("n2", n2.clone()), ("n3", n3)]);
        let two = survivors(&[("n1", n1.clone()), ("n2", n2)]);
        let one_and_a_half = survivors(&[("n1", n1.clone()), ("n2", fenced)]);
        let one = survivors(&[("n1", n1)]);
        for (left, enough) in [(all, true), (two, true), (one_and_a_half, false), (one, false)] {
            assert_eq!(is_quorum(&state, &left), enough, "{left:?}");
            assert_eq!(loses_nothing(&state, &left), enough, "{left:?}");
        }
    }

    #[test]
    fn after_a_recovery_its_own_voters_count() {
        let mut state = state();
        let all = survivors(&[("n1", remains(1, 5, &[])), ("n2", remains(2, 5, &[]))]);
        state.recoveries.push(Recovery {
            configuration: 2,
            from: "n1".to_owned(),
            lost: lost(&["n3"]),
            at: String::new(),
            acceptors: lost(&["n1", "n2"]),
            phase1: 2,
            phase2: 2,
            loses_nothing: true,
            done: true,
        });
        assert!(is_quorum(&state, &all));
        let mut again = all.clone();
        again.remove("n2");
        assert!(!is_quorum(&state, &again));
        let decision = decide(&state, &again, "n1", &lost(&["n2"])).unwrap();
        assert_eq!(decision.decree.configuration.number, ConfigurationNumber(3));
        assert!(decision.loses_nothing, "both had to accept");
    }
}
