//! A cluster goes on with its survivors, after so many acceptors were lost for ever that the others
//! can choose nothing more.
//!
//! No protocol can do this: it is an operator who says that the lost never come back, and this
//! module that makes one survivor's log say so. What the log holds beyond its chosen prefix is
//! chosen by decree: what was learned there, else the vote of the highest ballot that any survivor
//! holds, else nothing. Behind it comes a configuration of the survivors alone, and behind that α
//! slots with nothing in them, so that it governs from the first slot that can be proposed next.
//! From there on everything is the ordinary protocol: the other survivors learn these entries as
//! they learn any that they missed.
//!
//! It is all of phase 1 that is left ("Paxos Made Simple" §2.2, P2c), and whether it loses anything
//! is a matter of counting: what was chosen has a vote in each phase-1 quorum's reach, so where the
//! lost are fewer than a phase-2 quorum, and all survivors still have their votes, each chosen
//! value has one among them and is kept. Where the lost are as many, they may have chosen values
//! among themselves that nobody knows.
//!
//! What must never happen: it is done to two logs of one cluster, or while the lost could still
//! choose; nothing here can know, and [`reform`] refuses what it can see. Done twice to one log,
//! as after a crash in the middle, it comes to the same.

use super::ballot::{ClusterId, NodeId, Slot, VoterGeneration};
use super::configuration::{Configuration, ConfigurationNumber};
use super::message::{Entry, Payload, Value, Vote};
use super::record::{Record, Recovered};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What an operator decreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reform<V> {
    /// For which cluster.
    pub cluster: ClusterId,
    /// The survivors.
    pub configuration: Configuration,
    /// The last slot of which any survivor holds anything.
    pub last: Slot,
    /// Votes of other survivors that count more than this log's own.
    pub votes: Vec<Vote<V>>,
}

/// Why a log cannot be the one that the survivors go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReformError {
    /// It never began.
    NoGenesis,
    /// It is of another cluster.
    OtherCluster(ClusterId),
    /// Its node is none of the survivors, or has no vote among them.
    NoVoter(NodeId, Option<VoterGeneration>),
    /// Its voter was fenced before.
    Fenced,
    /// It holds more than whoever decreed knew of.
    HoldsMore {
        /// The last slot of which it holds something.
        holds: Slot,
        /// The last that they knew of.
        known: Slot,
    },
    /// The log knows a configuration of this number or a later one.
    Outdated {
        /// What the log knows.
        known: ConfigurationNumber,
        /// What was decreed.
        decreed: ConfigurationNumber,
    },
}

impl fmt::Display for ReformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReformError::NoGenesis => f.write_str("the log never began, so it holds nothing"),
            ReformError::OtherCluster(found) => write!(f, "the log is of cluster {found}"),
            ReformError::NoVoter(id, Some(generation)) => write!(
                f,
                "node {} has no vote as voter {:016x} among the survivors",
                id.0, generation.0
            ),
            ReformError::NoVoter(id, None) => write!(f, "node {} never had a vote", id.0),
            ReformError::Fenced => f.write_str("its voter is fenced, so its log is behind"),
            ReformError::HoldsMore { holds, known } => write!(
                f,
                "the log reaches slot {holds}, and the survivors were said to reach {known}"
            ),
            ReformError::Outdated { known, decreed } => write!(
                f,
                "the log knows configuration {}, so {} is none of its successors",
                known.0, decreed.0
            ),
        }
    }
}

impl std::error::Error for ReformError {}

/// What is to be appended to the log of node `me`; nothing if it was appended before.
///
/// # Errors
/// When this log cannot be the one.
pub fn reform<V: Value>(
    recovered: &Recovered<V>,
    me: NodeId,
    decree: &Reform<V>,
) -> Result<Vec<Record<V>>, ReformError> {
    let genesis = recovered.genesis.as_ref().ok_or(ReformError::NoGenesis)?;
    if genesis.cluster != decree.cluster {
        return Err(ReformError::OtherCluster(genesis.cluster));
    }
    if recovered.fenced {
        return Err(ReformError::Fenced);
    }
    let votes = recovered.generation.filter(|life| decree.configuration.is_voter(me, *life));
    if votes.is_none() {
        return Err(ReformError::NoVoter(me, recovered.generation));
    }
    let at = decree.last.next();
    let end = Slot(at.0.saturating_add(u64::from(genesis.window)));
    let newest = recovered.configuration.as_ref();
    if newest.is_some_and(|(slot, known)| *slot == at && *known == decree.configuration) {
        return Ok(Vec::new());
    }
    let known = newest.map_or(genesis.configuration.number, |(_, known)| known.number);
    if decree.configuration.number <= known {
        return Err(ReformError::Outdated { known, decreed: decree.configuration.number });
    }
    let holds = recovered.votes.keys().next_back().copied().unwrap_or(Slot(0));
    let holds = holds.max(recovered.chosen);
    if holds > decree.last {
        return Err(ReformError::HoldsMore { holds, known: decree.last });
    }
    let records = decreed(recovered, decree, at, end);
    // Beyond the last slot lies at most what an attempt left that a crash cut short.
    let is_ours = |slot: &Slot, entry: &Arc<Entry<V>>| {
        let ours = Record::Learned { slot: *slot, entry: Arc::clone(entry) };
        records.contains(&ours)
    };
    let stranger = recovered.learned.range(at..).find(|(slot, entry)| !is_ours(slot, entry));
    match stranger {
        Some((slot, _)) => Err(ReformError::HoldsMore { holds: *slot, known: decree.last }),
        None => Ok(records),
    }
}

/// The entries up to `end`, with the configuration `at` its slot.
fn decreed<V: Value>(
    recovered: &Recovered<V>,
    decree: &Reform<V>,
    at: Slot,
    end: Slot,
) -> Vec<Record<V>> {
    let carried: BTreeMap<Slot, &Vote<V>> =
        decree.votes.iter().map(|vote| (vote.slot, vote)).collect();
    let mut records = Vec::new();
    let mut slot = recovered.chosen.next();
    while slot <= end {
        let entry = if slot == at {
            let payload = Payload::Configuration(decree.configuration.clone());
            Arc::new(Entry { payload, ..Entry::noop() })
        } else if slot > at {
            Arc::new(Entry::noop())
        } else if let Some(entry) = recovered.learned.get(&slot) {
            Arc::clone(entry)
        } else {
            let votes = recovered.votes.get(&slot).into_iter().chain(carried.get(&slot).copied());
            let best = votes.max_by_key(|vote| vote.ballot);
            best.map_or_else(|| Arc::new(Entry::noop()), |vote| Arc::clone(&vote.entry))
        };
        records.push(Record::Learned { slot, entry });
        slot = slot.next();
    }
    records.push(Record::Chosen(end));
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::{Ballot, Incarnation, ProposalNumber, ProposerId};
    use crate::paxos::configuration::{Genesis, Member, Roles};
    use crate::paxos::quorum::QuorumSystem;

    const WINDOW: u32 = 4;

    fn configuration(number: u64, ids: &[u64]) -> Configuration {
        let member = |id: &u64| {
            let roles = Roles {
                proposer: Some(ProposerId::new(*id).unwrap()),
                acceptor: Some(VoterGeneration(*id)),
                learner: true,
            };
            let (name, address) = (format!("n{id}"), "127.0.0.1:1".to_owned());
            (NodeId(*id), Member { name, address, roles })
        };
        let members = ids.iter().map(member).collect();
        let quorums = QuorumSystem::majority(ids.len() as u16).unwrap();
        Configuration::new(ConfigurationNumber(number), members, quorums).unwrap()
    }

    fn vote(slot: u64, counter: u64, value: u64) -> Vote<u64> {
        let number = ProposalNumber::from_raw(counter * 100 + 1);
        let ballot = Ballot { number, incarnation: Incarnation(1) };
        Vote { slot: Slot(slot), ballot, entry: Arc::new(command(value)) }
    }

    fn command(value: u64) -> Entry<u64> {
        Entry { payload: Payload::Command(value), ..Entry::noop() }
    }

    /// The log of n1 of three: slot 1 chosen, votes in 2 and 4, and slot 5 learned.
    fn log() -> Recovered<u64> {
        let genesis = Genesis {
            cluster: ClusterId(7),
            configuration: configuration(1, &[1, 2, 3]),
            window: WINDOW,
        };
        let mut log = Recovered::default();
        let generation = Some(VoterGeneration(1));
        let records = [
            Record::Genesis { genesis, generation },
            Record::Accepted(vote(1, 1, 10)),
            Record::Chosen(Slot(1)),
            Record::Accepted(vote(2, 2, 20)),
            Record::Accepted(vote(4, 2, 40)),
            Record::Learned { slot: Slot(5), entry: Arc::new(command(50)) },
        ];
        records.into_iter().for_each(|record| log.replay(record).unwrap());
        log
    }

    fn decree(last: u64) -> Reform<u64> {
        Reform {
            cluster: ClusterId(7),
            configuration: configuration(2, &[1]),
            last: Slot(last),
            votes: Vec::new(),
        }
    }

    fn values(records: &[Record<u64>]) -> Vec<Option<u64>> {
        let value = |record: &Record<u64>| match record {
            Record::Learned { entry, .. } => match entry.payload {
                Payload::Command(value) => Some(Some(value)),
                _ => Some(None),
            },
            _ => None,
        };
        records.iter().filter_map(value).collect()
    }

    #[test]
    fn what_survivors_hold_is_chosen_and_the_configuration_governs_what_comes_next() {
        let mut log = log();
        let newer =
            Reform { votes: vec![vote(3, 9, 30), vote(4, 1, 41), vote(2, 3, 21)], ..decree(6) };
        let records = reform(&log, NodeId(1), &newer).unwrap();
        let mut wanted = vec![Some(21), Some(30), Some(40), Some(50), None, None];
        wanted.extend([None; WINDOW as usize]);
        assert_eq!(values(&records), wanted);
        records.iter().for_each(|record| log.replay(record.clone()).unwrap());
        assert_eq!(log.chosen, Slot(7 + u64::from(WINDOW)));
        assert_eq!(log.configuration, Some((Slot(7), newer.configuration.clone())));
        assert_eq!(log.votes.len() + log.learned.len(), 0);
        assert_eq!(reform(&log, NodeId(1), &newer), Ok(Vec::new()), "it is done");
        let again = Reform { last: log.chosen, ..newer.clone() };
        let stale = ReformError::Outdated {
            known: ConfigurationNumber(2),
            decreed: ConfigurationNumber(2),
        };
        assert_eq!(reform(&log, NodeId(1), &again), Err(stale));
    }

    #[test]
    fn an_attempt_that_was_cut_short_anywhere_comes_to_the_same() {
        let newer = Reform { votes: vec![vote(3, 9, 30)], ..decree(5) };
        let whole = reform(&log(), NodeId(1), &newer).unwrap();
        for cut in 0..whole.len() {
            let mut log = log();
            whole[..cut].iter().for_each(|record| log.replay(record.clone()).unwrap());
            assert_eq!(reform(&log, NodeId(1), &newer).as_ref(), Ok(&whole), "cut at {cut}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_the_one_is_refused() {
        let refused = |log: &Recovered<u64>, me, decree: &Reform<u64>| {
            reform(log, NodeId(me), decree).expect_err("it is refused")
        };
        assert_eq!(refused(&Recovered::default(), 1, &decree(5)), ReformError::NoGenesis);
        let other = Reform { cluster: ClusterId(8), ..decree(5) };
        assert_eq!(refused(&log(), 1, &other), ReformError::OtherCluster(ClusterId(7)));
        let no_voter = ReformError::NoVoter(NodeId(2), Some(VoterGeneration(1)));
        assert_eq!(refused(&log(), 2, &decree(5)), no_voter);
        let fenced = Recovered { fenced: true, ..log() };
        assert_eq!(refused(&fenced, 1, &decree(5)), ReformError::Fenced);
        let more = ReformError::HoldsMore { holds: Slot(4), known: Slot(3) };
        assert_eq!(refused(&log(), 1, &decree(3)), more);
        let learned = ReformError::HoldsMore { holds: Slot(5), known: Slot(4) };
        assert_eq!(refused(&log(), 1, &decree(4)), learned);
        let stale = Reform { configuration: configuration(1, &[1]), ..decree(5) };
        assert!(matches!(refused(&log(), 1, &stale), ReformError::Outdated { .. }));
    }
}
