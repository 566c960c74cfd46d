//! What an acceptor and a learner must remember across a crash, and how memory is rebuilt from it.
//!
//! The log is a sequence of [`Record`]s. Reading it from the start through [`Recovered::replay`]
//! gives the state that the writer held when the last record was appended. Replay never guesses: a
//! record that contradicts what came before it is an error, for the log is ours and nobody else's.

use super::ballot::{Ballot, Slot, VoterGeneration};
use super::configuration::{Configuration, Genesis};
use super::message::{Entry, Payload, Vote};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Position in the log of records: how many were appended before. Not a [`Slot`]: one slot may have
/// several records, and a promise has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogPosition(pub u64);

/// One durable fact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Record<V> {
    /// The first record of every log: where the cluster starts, and which voter this log is.
    Genesis {
        /// Where the cluster starts.
        genesis: Genesis,
        /// This life of the log; none for a node that does not vote.
        generation: Option<VoterGeneration>,
    },
    /// No proposal below this ballot will be accepted any more.
    Promised(Ballot),
    /// A value was accepted; raises the promise to the vote's ballot as well.
    Accepted(Vote<V>),
    /// A value that is chosen, learned from a peer rather than accepted.
    Learned {
        /// Where.
        slot: Slot,
        /// What.
        entry: Arc<Entry<V>>,
    },
    /// Each slot up to here is chosen, and the newest record of each holds the chosen value.
    Chosen(Slot),
    /// Slots below this one are dropped; snapshots hold them.
    Floor(Slot),
    /// This log turned out to be behind what its acceptor was seen to pledge: no promise and no
    /// vote is given from it any more.
    Fenced,
}

/// What a node knows after reading its log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recovered<V> {
    /// Where the cluster starts, if this log ever did.
    pub genesis: Option<Genesis>,
    /// Which voter this log is, if any.
    pub generation: Option<VoterGeneration>,
    /// Whether that voter may vote no more.
    pub fenced: bool,
    /// The highest promise.
    pub promised: Ballot,
    /// Everything up to here is chosen.
    pub chosen: Slot,
    /// Slots below are gone.
    pub floor: Slot,
    /// Accepted values of slots not known chosen.
    pub votes: BTreeMap<Slot, Vote<V>>,
    /// The newest configuration of the chosen prefix and where it was chosen; none if that of the
    /// genesis still holds.
    pub configuration: Option<(Slot, Configuration)>,
    /// Values learned out of order, above the chosen prefix.
    pub learned: BTreeMap<Slot, Arc<Entry<V>>>,
    /// Where the next record goes.
    pub end: LogPosition,
}

/// A log that says two things at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayError {
    /// A record came before the genesis.
    NoGenesis(LogPosition),
    /// A second genesis.
    GenesisTwice(LogPosition),
    /// A vote below the promise that was already given.
    VoteBelowPromise(LogPosition),
    /// The chosen prefix covers a slot of which the log holds no value.
    ChosenWithoutValue(LogPosition, Slot),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::NoGenesis(at) => write!(f, "record {} comes before the genesis", at.0),
            ReplayError::GenesisTwice(at) => write!(f, "record {} is a second genesis", at.0),
            ReplayError::VoteBelowPromise(at) => {
                write!(f, "record {} accepts below a promise given earlier", at.0)
            }
            ReplayError::ChosenWithoutValue(at, slot) => {
                write!(f, "record {} says slot {slot} is chosen, but its value is missing", at.0)
            }
        }
    }
}

impl std::error::Error for ReplayError {}

impl<V> Default for Recovered<V> {
    fn default() -> Self {
        Recovered {
            genesis: None,
            generation: None,
            fenced: false,
            promised: Ballot::ZERO,
            chosen: Slot(0),
            floor: Slot(1),
            configuration: None,
            votes: BTreeMap::new(),
            learned: BTreeMap::new(),
            end: LogPosition(0),
        }
    }
}

impl<V> Recovered<V> {
    /// Who takes part, by the newest configuration that is known to be chosen; none if the log
    /// never began.
    pub fn members(&self) -> Option<&Configuration> {
        let genesis = self.genesis.as_ref().map(|genesis| &genesis.configuration);
        self.configuration.as_ref().map(|(_, newest)| newest).or(genesis)
    }
}

impl<V: Clone> Recovered<V> {
    /// Takes in the next record of the log. Entries that are chosen leave memory here: whoever
    /// applies them reads them from the log again, in order.
    ///
    /// # Errors
    /// When the record contradicts those before it; the log is damaged or was written by a faulty
    /// program.
    pub fn replay(&mut self, record: Record<V>) -> Result<(), ReplayError> {
        let at = self.end;
        match record {
            Record::Genesis { genesis, generation } => {
                if self.genesis.is_some() {
                    return Err(ReplayError::GenesisTwice(at));
                }
                self.genesis = Some(genesis);
                self.generation = generation;
            }
            _ if self.genesis.is_none() => return Err(ReplayError::NoGenesis(at)),
            Record::Promised(ballot) => self.promised = self.promised.max(ballot),
            Record::Accepted(vote) => {
                if vote.ballot < self.promised {
                    return Err(ReplayError::VoteBelowPromise(at));
                }
                self.promised = vote.ballot;
                if vote.slot > self.chosen {
                    self.votes.insert(vote.slot, vote);
                }
            }
            Record::Learned { slot, entry } => {
                if slot > self.chosen {
                    self.learned.insert(slot, entry);
                }
            }
            Record::Chosen(up_to) => {
                let mut slot = self.chosen.next();
                while slot <= up_to {
                    let vote = self.votes.remove(&slot).map(|vote| vote.entry);
                    let Some(entry) = self.learned.remove(&slot).or(vote) else {
                        return Err(ReplayError::ChosenWithoutValue(at, slot));
                    };
                    if let Payload::Configuration(configuration) = &entry.payload {
                        self.configuration = Some((slot, configuration.clone()));
                    }
                    slot = slot.next();
                }
                self.chosen = self.chosen.max(up_to);
            }
            Record::Floor(slot) => self.floor = self.floor.max(slot),
            Record::Fenced => self.fenced = true,
        }
        self.end = LogPosition(at.0 + 1);
        Ok(())
    }
}
