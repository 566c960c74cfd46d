//! What phase 1 found, made into what a new leader proposes first.

use super::ballot::{NodeId, Slot};
use super::message::{Entry, Value, Vote};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What is to be proposed from `start` on: what was found, gaps filled with no-ops, and a no-op
/// behind it.
///
/// The gaps are fewer than α in all. A vote was cast for a slot at most α above what its proposer
/// knew chosen, and each slot up to there was accepted by a phase-2 quorum, of which at least one
/// member is among those who promised: it reports a vote, or a floor above. A vote beyond so many
/// gaps was never cast, and is left in `found`; believing it could cost all memory there is.
pub(super) fn fill_gaps<V: Value>(
    start: Slot,
    found: &mut BTreeMap<Slot, (NodeId, Vote<V>)>,
    window: u64,
) -> VecDeque<Arc<Entry<V>>> {
    let mut entries = VecDeque::new();
    let mut room = window;
    let mut next = start;
    while let Some(first) = found.first_entry() {
        let gap = first.key().0 - next.0;
        let Some(left) = room.checked_sub(gap) else { break };
        room = left;
        if !planted!(GapsClosed) {
            entries.extend((0..gap).map(|_| Arc::new(Entry::noop())));
        }
        next = first.key().next();
        entries.push_back(first.remove().1.entry);
    }
    if planted!(NoopOverVote)
        && let Some(last) = entries.back_mut()
    {
        *last = Arc::new(Entry::noop());
    }
    entries.push_back(Arc::new(Entry::noop()));
    entries
}
