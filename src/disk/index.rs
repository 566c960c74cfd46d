//! Where the value of each slot is.
//!
//! A slot may have several records, and which of them holds the chosen value is a matter of three
//! rules, the same for every implementation of the log:
//!
//! * an acceptance replaces an earlier acceptance of its slot, for its ballot is not lower;
//! * a learned value is the chosen one, and an acceptance that comes later does not replace it: it
//!   may be that of an old leader under a ballot below the one that chose;
//! * what is within the chosen prefix stays as it is, for the same reason.
//!
//! The cost is eight bytes of memory for each slot since the floor, which is what makes a read one
//! seek.

use crate::paxos::ballot::Slot;
use crate::paxos::message::Entry;
use crate::paxos::record::Record;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Slot to place; what a place is, its owner knows.
#[derive(Debug, Clone)]
pub(super) struct SlotIndex<P> {
    /// Places of the slots from 1 to the end of the chosen prefix.
    chosen: Vec<P>,
    /// Places of slots above it.
    open: BTreeMap<Slot, Open<P>>,
}

#[derive(Debug, Clone)]
struct Open<P> {
    place: P,
    learned: bool,
}

impl<P: Clone> SlotIndex<P> {
    pub(super) fn new() -> SlotIndex<P> {
        SlotIndex { chosen: Vec::new(), open: BTreeMap::new() }
    }

    /// The end of the chosen prefix.
    pub(super) fn chosen(&self) -> Slot {
        Slot(self.chosen.len() as u64)
    }

    /// Takes note of a record; `place` says where the value is that it carries, if it carries one
    /// that counts.
    ///
    /// # Panics
    /// When it calls a slot chosen whose value was never recorded. Replay returns an error for such
    /// a log; appending such a record is a fault of the core.
    pub(super) fn note(
        &mut self,
        record: &Record<Bytes>,
        place: impl FnOnce(&Arc<Entry<Bytes>>) -> P,
    ) {
        match record {
            Record::Accepted(vote) if vote.slot > self.chosen() => {
                let learned = self.open.get(&vote.slot).is_some_and(|open| open.learned);
                if !learned {
                    let place = place(&vote.entry);
                    self.open.insert(vote.slot, Open { place, learned: false });
                }
            }
            Record::Learned { slot, entry } if *slot > self.chosen() => {
                let place = place(entry);
                self.open.insert(*slot, Open { place, learned: true });
            }
            Record::Chosen(up_to) => {
                while self.chosen() < *up_to {
                    let slot = self.chosen().next();
                    let open = self.open.remove(&slot);
                    let open = open.unwrap_or_else(|| {
                        panic!("slot {slot} was recorded as chosen before its value was")
                    });
                    self.chosen.push(open.place);
                }
            }
            Record::Accepted(_)
            | Record::Learned { .. }
            | Record::Genesis { .. }
            | Record::Promised(_)
            | Record::Floor(_)
            | Record::Fenced => {}
        }
    }

    /// Where the chosen value of a slot within the chosen prefix is.
    pub(super) fn get_chosen(&self, slot: Slot) -> Option<&P> {
        let index = usize::try_from(slot.0.checked_sub(1)?).ok()?;
        self.chosen.get(index)
    }

    /// The place of a slot's newest value, chosen or not, to be replaced when the value moves.
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut P> {
        if slot > self.chosen() {
            return self.open.get_mut(&slot).map(|open| &mut open.place);
        }
        let index = usize::try_from(slot.0.checked_sub(1)?).ok()?;
        self.chosen.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::{Ballot, Incarnation, ProposalNumber};
    use crate::paxos::message::Vote;

    fn accepted(slot: u64, number: u64) -> Record<Bytes> {
        let number = ProposalNumber::from_raw(number);
        let ballot = Ballot { number, incarnation: Incarnation(0) };
        Record::Accepted(Vote { slot: Slot(slot), ballot, entry: Arc::new(Entry::noop()) })
    }

    fn learned(slot: u64) -> Record<Bytes> {
        Record::Learned { slot: Slot(slot), entry: Arc::new(Entry::noop()) }
    }

    fn index(records: &[Record<Bytes>]) -> SlotIndex<usize> {
        let mut index = SlotIndex::new();
        for (position, record) in records.iter().enumerate() {
            index.note(record, |_| position);
        }
        index
    }

    #[test]
    fn a_later_acceptance_replaces_an_earlier_one() {
        let index = index(&[accepted(1, 101), accepted(1, 201), Record::Chosen(Slot(1))]);
        assert_eq!(index.get_chosen(Slot(1)), Some(&1));
    }

    #[test]
    fn a_learned_value_is_not_replaced_by_an_old_leaders() {
        let index = index(&[learned(1), accepted(1, 101), Record::Chosen(Slot(1))]);
        assert_eq!(index.get_chosen(Slot(1)), Some(&0));
    }

    #[test]
    fn a_chosen_slot_stays_as_it_is() {
        let index = index(&[learned(1), Record::Chosen(Slot(1)), accepted(1, 101), learned(1)]);
        assert_eq!(index.get_chosen(Slot(1)), Some(&0));
    }

    #[test]
    fn only_the_chosen_prefix_is_readable() {
        let mut index = index(&[accepted(1, 101), accepted(2, 101), Record::Chosen(Slot(1))]);
        assert_eq!(index.get_chosen(Slot(0)), None);
        assert_eq!(index.get_chosen(Slot(1)), Some(&0));
        assert_eq!(index.get_chosen(Slot(2)), None);
        assert_eq!(index.get_mut(Slot(2)), Some(&mut 1));
        assert_eq!(index.get_mut(Slot(3)), None);
    }

    #[test]
    #[should_panic(expected = "slot 2 was recorded as chosen before its value was")]
    fn a_gap_in_the_chosen_prefix_is_a_fault() {
        index(&[accepted(1, 101), Record::Chosen(Slot(2))]);
    }
}
