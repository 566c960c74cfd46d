//! Linearizable reads without a log entry: a round of heartbeats shows that no newer leader exists.
//!
//! The index of a round is the highest slot that the leader has proposed when the round starts.
//! Every write whose outcome anybody could have seen by then lies at or below it. The round counts
//! once more than N − Q1 acceptors acknowledge it whose promise is not above the leader's ballot:
//! any phase-1 quorum contains one of them, so no other leader was elected before the round began.
//! (Raft's ReadIndex, Ongaro's thesis §6.4, with the quorum that flexible sizes ask for.)
//!
//! No clock is involved, and no lease. The cost is one round trip, shared by every read that
//! arrived before the round started.

use super::ballot::{NodeId, Slot};
use super::depths::Depth;

/// Readers that may wait at the leader. Nodes ask once for all of their clients' reads, so this is
/// far above what members can cause; beyond it a reader asks again.
const READERS_MAX: usize = 4096;

/// Whom to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    pub(super) origin: NodeId,
    pub(super) token: u64,
    /// Who passed the question on, and passes on the answer: the origin has no other way, perhaps.
    pub(super) via: NodeId,
}

/// A heartbeat round that readers wait for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Round {
    round: u64,
    index: Slot,
    readers: Vec<Reader>,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Reads {
    waiting: Vec<Reader>,
    under_way: Option<Round>,
}

impl Reads {
    /// A read arrived; it joins the next round, never the one under way.
    pub(super) fn push(&mut self, reader: Reader) {
        if planted!(ReadJoinsRound)
            && let Some(round) = &mut self.under_way
        {
            round.readers.push(reader);
        } else if self.waiting.len() < READERS_MAX {
            self.waiting.push(reader);
        }
    }

    /// How many readers wait. Those of a round that a ballot's end broke off join those that wait.
    pub(super) fn depth(&self) -> Depth {
        let under_way = self.under_way.as_ref().map_or(0, |round| round.readers.len());
        Depth::new("readers waiting", self.waiting.len() + under_way, 2 * READERS_MAX)
    }

    /// Whether a round should start.
    pub(super) fn wants_round(&self) -> bool {
        self.under_way.is_none() && !self.waiting.is_empty()
    }

    /// A round starts: everybody who waits joins it.
    pub(super) fn start(&mut self, round: u64, index: Slot) {
        let readers = std::mem::take(&mut self.waiting);
        self.under_way = Some(Round { round, index, readers });
    }

    /// The round that readers wait for.
    pub(super) fn awaited(&self) -> Option<u64> {
        self.under_way.as_ref().map(|round| round.round)
    }

    /// The round under way is confirmed.
    pub(super) fn confirmed(&mut self) -> (Slot, Vec<Reader>) {
        self.under_way.take().map_or((Slot(0), Vec::new()), |round| (round.index, round.readers))
    }

    /// The ballot ended: readers of the round under way wait for the next ballot's first round.
    pub(super) fn restart(&mut self) {
        if let Some(round) = self.under_way.take() {
            self.waiting.splice(0..0, round.readers);
        }
    }

    /// This node leads no longer: readers ask again elsewhere. Answers the node's own.
    pub(super) fn stop(&mut self, me: NodeId) -> Vec<u64> {
        self.restart();
        let mine = self.waiting.drain(..).filter(|reader| reader.origin == me);
        mine.map(|reader| reader.token).collect()
    }
}
