//! The numbers that order everything: who a node is, which proposal is newer, which slot comes
//! first.
//!
//! A [`Ballot`] is the pair (proposal number, incarnation). The number is the user's formula,
//! `counter × 100 + proposer id`; the incarnation is drawn at random when a process starts. The
//! pair makes a ballot unique without a disk write before `Prepare` ("Paxos Made Simple" §2.2 asks
//! only that different proposers choose from disjoint sets): a proposer that restarts, is cloned or
//! shares its id by mistake has another incarnation, so it can never issue a ballot that was issued
//! before.
//!
//! The cost: a ballot is 16 bytes instead of 8, and two clones of one proposer duel until an
//! operator separates them, instead of corrupting the log.

use std::fmt;

/// Identity of a node, for ever: never reused, even after the node is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// Identity of a cluster, drawn once at genesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u128);

/// A position in the replicated log. Slot 0 is the genesis; the first slot that is proposed for is
/// 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Slot(pub u64);

/// Replicated time in nanoseconds since genesis (not since any calendar's epoch).
///
/// Zero on an entry means "says nothing about time"; whoever applies takes the largest stamp so
/// far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClusterTime(pub u64);

/// Random tag of one life of an acceptor's log. Votes of a generation other than the one in the
/// configuration do not count, so a node that lost its disk cannot vote twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VoterGeneration(pub u64);

/// Random tag of one run of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Incarnation(pub u64);

/// How many proposers share one counter: ids run from 0 to 99.
pub const PROPOSERS_PER_COUNTER: u64 = 100;

/// A counter further above the highest one seen is refused before it is stored: one corrupt or
/// hostile frame with a huge number would otherwise end all elections for ever.
pub const COUNTER_JUMP_MAX: u64 = 1 << 32;

/// The part of a proposal number that tells proposers apart, 0 to 99, unique among current members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProposerId(u8);

/// Why a number is no proposal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BallotError {
    /// A proposer id above 99.
    ProposerId(u64),
    /// `counter × 100 + id` does not fit in 64 bits.
    Exhausted,
}

impl fmt::Display for BallotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BallotError::ProposerId(id) => {
                write!(f, "proposer id {id} is out of range; use 0 to 99, unique among the members")
            }
            BallotError::Exhausted => {
                write!(f, "the proposal counter left 64 bits; the cluster needs a new genesis")
            }
        }
    }
}

impl std::error::Error for BallotError {}

impl ProposerId {
    /// Accepts 0 to 99.
    pub fn new(id: u64) -> Result<ProposerId, BallotError> {
        match u8::try_from(id) {
            Ok(small) if id < PROPOSERS_PER_COUNTER => Ok(ProposerId(small)),
            _ => Err(BallotError::ProposerId(id)),
        }
    }

    /// The id as a plain number.
    pub fn value(self) -> u8 {
        self.0
    }
}

/// `counter × 100 + proposer id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ProposalNumber(u64);

impl ProposalNumber {
    /// Takes a number as it came from a peer or a disk; every `u64` is one.
    pub fn from_raw(raw: u64) -> ProposalNumber {
        ProposalNumber(raw)
    }

    /// The whole number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// How often somebody tried before.
    pub fn counter(self) -> u64 {
        self.0 / PROPOSERS_PER_COUNTER
    }

    /// Whose number this is.
    pub fn proposer(self) -> ProposerId {
        ProposerId((self.0 % PROPOSERS_PER_COUNTER) as u8)
    }

    /// The smallest number of `proposer` above this one.
    ///
    /// # Errors
    /// [`BallotError::Exhausted`] when it would not fit in 64 bits.
    pub fn next_for(self, proposer: ProposerId) -> Result<ProposalNumber, BallotError> {
        let same_counter = (self.counter().checked_mul(PROPOSERS_PER_COUNTER))
            .and_then(|base| base.checked_add(u64::from(proposer.0)))
            .ok_or(BallotError::Exhausted)?;
        if same_counter > self.0 {
            return Ok(ProposalNumber(same_counter));
        }
        same_counter
            .checked_add(PROPOSERS_PER_COUNTER)
            .map(ProposalNumber)
            .ok_or(BallotError::Exhausted)
    }
}

/// A proposal number made unique by the incarnation of the process that issued it. Ordered by
/// number, then incarnation. [`Ballot::ZERO`] is below every ballot that is ever issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ballot {
    /// Whose turn, and the how-manieth.
    pub number: ProposalNumber,
    /// Which run of that proposer's process.
    pub incarnation: Incarnation,
}

impl Ballot {
    /// "Never promised anything."
    pub const ZERO: Ballot = Ballot { number: ProposalNumber(0), incarnation: Incarnation(0) };

    /// Whether this ballot's counter lies within reach of `seen`; see [`COUNTER_JUMP_MAX`].
    pub fn is_plausible_after(self, seen: Ballot) -> bool {
        self.number.counter() <= seen.number.counter().saturating_add(COUNTER_JUMP_MAX)
    }
}

impl Slot {
    /// The slot after this one.
    ///
    /// # Panics
    /// At 2⁶⁴ entries, which a cluster writing a million a second reaches in half a million years.
    pub fn next(self) -> Slot {
        Slot(self.0.checked_add(1).expect("slots are 64 bits wide"))
    }

    /// The slot before this one; the genesis has none and answers itself.
    pub fn previous(self) -> Slot {
        Slot(self.0.saturating_sub(1))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ProposalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(raw: u64) -> ProposalNumber {
        ProposalNumber::from_raw(raw)
    }

    #[test]
    fn next_number_is_the_smallest_own_one_above() {
        let seven = ProposerId::new(7).unwrap();
        assert_eq!(number(0).next_for(seven), Ok(number(7)));
        assert_eq!(number(7).next_for(seven), Ok(number(107)));
        assert_eq!(number(100).next_for(seven), Ok(number(107)));
        assert_eq!(number(199).next_for(seven), Ok(number(207)));
        assert_eq!(number(0).next_for(ProposerId::new(0).unwrap()), Ok(number(100)));
    }

    #[test]
    fn numbers_end_without_wrapping() {
        let id = ProposerId::new(50).unwrap();
        assert_eq!(number(u64::MAX).next_for(id), Err(BallotError::Exhausted));
    }

    #[test]
    fn a_proposer_id_above_99_is_refused() {
        assert_eq!(ProposerId::new(100), Err(BallotError::ProposerId(100)));
        assert!(ProposerId::new(99).is_ok());
    }

    #[test]
    fn incarnation_breaks_ties_of_equal_numbers() {
        let low = Ballot { number: number(101), incarnation: Incarnation(1) };
        let high = Ballot { number: number(101), incarnation: Incarnation(2) };
        let above = Ballot { number: number(102), incarnation: Incarnation(0) };
        assert!(low < high && high < above && Ballot::ZERO < low);
    }

    #[test]
    fn a_counter_far_above_what_was_seen_is_implausible() {
        let far = Ballot { number: number(u64::MAX), incarnation: Incarnation(0) };
        assert!(!far.is_plausible_after(Ballot::ZERO));
        let near = Ballot { number: number(COUNTER_JUMP_MAX * 100), incarnation: Incarnation(0) };
        assert!(near.is_plausible_after(Ballot::ZERO));
    }
}
