//! Linearizability: what clients were told of a few registers fits one order of operations, in
//! which each takes effect at one moment between its question and its answer.
//!
//! Source: Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects"
//! (1990), §2, and its locality: a history is linearizable if that of each object is. The search is
//! that of Wing and Gong, "Testing and Verifying Concurrent Objects" (1993), with the memory of
//! Lowe, "Testing for linearizability" (2017): what was linearized already, together with the
//! state, is tried once.
//!
//! An operation of which nobody knows what became may take effect at any time after it was asked,
//! also after everything else. Those are what makes the search dear, so it is ours and not a
//! library's: known operations are tried first, unknown ones only where the order needs them, and
//! of those that nobody could tell apart only one.

use super::violated;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What a register holds.
pub type Value = Option<u64>;

/// Steps after which a search is given up and counted; sound histories take about as many steps as
/// they have operations.
const STEPS_MAX: u64 = 2_000_000;

/// What was asked of a register, and what the answer was if there was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Found this.
    Read(Value),
    /// Stored a value.
    Write(u64),
    /// Stored a value if the register held that other one; whether it did.
    WriteIf { holds: Value, value: u64, told: Option<bool> },
    /// Removed the value; whether there was one.
    Delete { told: Option<bool> },
    /// Removed the value if it was that one; whether it did.
    DeleteIf { holds: Value, told: Option<bool> },
}

impl Operation {
    /// What the register holds afterwards; nothing if the answer would have been another one.
    fn step(self, state: Value) -> Option<Value> {
        match self {
            Operation::Read(seen) => (seen == state).then_some(state),
            Operation::Write(value) => Some(Some(value)),
            Operation::WriteIf { holds, value, told } => {
                let held = holds == state;
                told.is_none_or(|told| told == held).then_some(if held {
                    Some(value)
                } else {
                    state
                })
            }
            Operation::DeleteIf { holds, told } => {
                let held = holds == state;
                told.is_none_or(|told| told == held).then_some(if held { None } else { state })
            }
            Operation::Delete { told } => {
                told.is_none_or(|told| told == state.is_some()).then_some(None)
            }
        }
    }
}

/// One operation of one client.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub operation: Operation,
    pub begun: u64,
    /// None if nobody knows what became of it.
    pub ended: Option<u64>,
}

/// Names an operation that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    key: u64,
    at: usize,
}

/// The history of all registers.
#[derive(Default)]
pub struct Registers {
    keys: BTreeMap<u64, Vec<Event>>,
    /// Operations in all histories that were searched.
    pub operations: u64,
    /// Those of them of which nobody knows what became.
    pub unknown: u64,
    /// Histories whose search took too long.
    pub given_up: u64,
}

impl Registers {
    /// A client asks.
    pub fn begin(&mut self, key: u64, operation: Operation, now: u64) -> Open {
        let events = self.keys.entry(key).or_default();
        events.push(Event { operation, begun: now, ended: None });
        Open { key, at: events.len() - 1 }
    }

    /// The client was answered, and this is what the operation turned out to be.
    pub fn end(&mut self, open: Open, operation: Operation, now: u64) {
        let event = &mut self.keys.get_mut(&open.key).expect("it was begun")[open.at];
        *event = Event { operation, ended: Some(now), ..*event };
    }

    /// The operation certainly never happened.
    pub fn forget(&mut self, open: Open) {
        let event = &mut self.keys.get_mut(&open.key).expect("it was begun")[open.at];
        *event = Event { operation: Operation::Read(None), ended: None, ..*event };
    }

    /// Every history has an order.
    pub fn complete(&mut self) {
        for (key, events) in &self.keys {
            // A read that was not answered says nothing.
            let known = |event: &&Event| {
                event.ended.is_some() || !matches!(event.operation, Operation::Read(_))
            };
            let events: Vec<Event> = events.iter().filter(known).copied().collect();
            self.operations += events.len() as u64;
            self.unknown += events.iter().filter(|event| event.ended.is_none()).count() as u64;
            match search(&events) {
                Some(true) => {}
                Some(false) => {
                    let what = format!("nothing explains the history of register {key}:");
                    let lines = events.iter().map(|event| format!("\n  {event:?}"));
                    violated("linearizable", &(what + &lines.collect::<String>()));
                }
                None => self.given_up += 1,
            }
        }
    }
}

/// Whether the events have an order; nothing if the search was given up.
pub fn search(events: &[Event]) -> Option<bool> {
    let mut search = Search::new(events);
    let found = search.go_on(None);
    (found || search.steps <= STEPS_MAX).then_some(found)
}

struct Search {
    events: Vec<Event>,
    done: Vec<u64>,
    left: usize,
    seen: HashSet<(Vec<u64>, Value)>,
    steps: u64,
}

/// Stands for every value that nobody asked about again: those need not be told apart.
const UNSEEN: u64 = u64::MAX;

impl Search {
    fn new(events: &[Event]) -> Search {
        let mut looked_for: BTreeSet<u64> = BTreeSet::new();
        for event in events {
            match event.operation {
                Operation::Read(value) => looked_for.extend(value),
                Operation::WriteIf { holds, .. } | Operation::DeleteIf { holds, .. } => {
                    looked_for.extend(holds);
                }
                Operation::Write(_) | Operation::Delete { .. } => {}
            }
        }
        let rename = |value: u64| if looked_for.contains(&value) { value } else { UNSEEN };
        let mut events = events.to_vec();
        events.sort_by_key(|event| event.begun);
        for event in &mut events {
            match &mut event.operation {
                Operation::Write(value) | Operation::WriteIf { value, .. } => {
                    *value = rename(*value);
                }
                Operation::Read(_) | Operation::Delete { .. } | Operation::DeleteIf { .. } => {}
            }
        }
        Search {
            done: vec![0; events.len().div_ceil(64)],
            left: events.iter().filter(|event| event.ended.is_some()).count(),
            events,
            seen: HashSet::new(),
            steps: 0,
        }
    }

    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] & (1 << (at % 64)) != 0
    }

    /// What may take effect next: everything that began before the first of those that are left
    /// ended. Known operations come first.
    fn candidates(&self) -> Vec<usize> {
        let mut limit = u64::MAX;
        let mut known = Vec::new();
        let mut unknown: Vec<usize> = Vec::new();
        for (at, event) in self.events.iter().enumerate() {
            if event.begun > limit {
                break;
            }
            match event.ended {
                _ if self.is_done(at) => {}
                Some(ended) => {
                    limit = limit.min(ended);
                    known.push(at);
                }
                None => unknown.push(at),
            }
        }
        known.retain(|at| self.events[*at].begun <= limit);
        known.sort_by_key(|at| self.events[*at].ended);
        let mut distinct: Vec<Operation> = Vec::new();
        for at in unknown {
            let operation = self.events[at].operation;
            if self.events[at].begun <= limit && !distinct.contains(&operation) {
                distinct.push(operation);
                known.push(at);
            }
        }
        known
    }

    /// Whether what is left has an order, from this state on.
    fn go_on(&mut self, state: Value) -> bool {
        if self.left == 0 {
            return true;
        }
        self.steps += 1;
        if self.steps > STEPS_MAX || !self.seen.insert((self.done.clone(), state)) {
            return false;
        }
        for at in self.candidates() {
            let Event { operation, ended, .. } = self.events[at];
            let Some(after) = operation.step(state) else { continue };
            let known = ended.is_some();
            if !known && after == state {
                continue;
            }
            self.done[at / 64] |= 1 << (at % 64);
            self.left -= usize::from(known);
            if self.go_on(after) {
                return true;
            }
            self.done[at / 64] &= !(1 << (at % 64));
            self.left += usize::from(known);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{Delete, DeleteIf, Read, Write, WriteIf};

    fn event(begun: u64, ended: u64, operation: Operation) -> Event {
        Event { operation, begun, ended: (ended > 0).then_some(ended) }
    }

    #[track_caller]
    fn judge(expected: bool, events: &[Event]) {
        assert_eq!(search(events), Some(expected), "{events:?}");
    }

    #[test]
    fn a_stale_read_has_no_order() {
        let writes = [event(1, 2, Write(1)), event(3, 4, Write(2))];
        judge(true, &[writes[0], writes[1], event(5, 6, Read(Some(2)))]);
        judge(false, &[writes[0], writes[1], event(5, 6, Read(Some(1)))]);
        judge(true, &[writes[0], event(3, 9, Write(2)), event(5, 6, Read(Some(1)))]);
        judge(false, &[event(1, 2, Read(Some(7)))]);
    }

    #[test]
    fn what_overlaps_has_either_order_but_one() {
        let both = [event(1, 9, Write(1)), event(1, 9, Write(2))];
        let reads = |a, b| [event(10, 11, Read(Some(a))), event(12, 13, Read(Some(b)))];
        judge(true, &[both.to_vec(), reads(1, 1).to_vec()].concat());
        judge(true, &[both.to_vec(), reads(2, 2).to_vec()].concat());
        judge(false, &[both.to_vec(), reads(1, 2).to_vec()].concat());
    }

    #[test]
    fn what_is_unknown_happens_late_or_never_but_once() {
        let known = [event(1, 2, Write(1)), event(3, 0, Write(2))];
        let reads = |seen: [u64; 3]| {
            let reads = [5, 7, 9].into_iter().zip(seen);
            let reads = reads.map(|(at, seen)| event(at, at + 1, Read(Some(seen))));
            known.into_iter().chain(reads).collect::<Vec<_>>()
        };
        judge(true, &reads([1, 1, 1]));
        judge(true, &reads([1, 1, 2]));
        judge(true, &reads([2, 2, 2]));
        judge(false, &reads([1, 2, 1]));
    }

    #[test]
    fn conditions_and_deletes_told_what_was_there() {
        let put = event(1, 2, Write(1));
        let put_if = |holds, told| WriteIf { holds, value: 2, told: Some(told) };
        judge(true, &[put, event(3, 4, put_if(Some(1), true)), event(5, 6, Read(Some(2)))]);
        judge(false, &[put, event(3, 4, put_if(None, true))]);
        judge(false, &[put, event(3, 4, put_if(Some(1), false))]);
        judge(true, &[put, event(3, 4, Delete { told: Some(true) }), event(5, 6, Read(None))]);
        judge(false, &[put, event(3, 4, Delete { told: Some(false) })]);
        let delete_if = |holds, told| DeleteIf { holds, told: Some(told) };
        judge(true, &[put, event(3, 4, delete_if(Some(1), true)), event(5, 6, Read(None))]);
        judge(false, &[put, event(3, 4, delete_if(Some(1), false))]);
        judge(false, &[put, event(3, 4, delete_if(Some(2), true))]);
        // An unknown delete explains an empty register, and a failed condition.
        judge(true, &[put, event(3, 0, Delete { told: None }), event(5, 6, put_if(None, true))]);
    }

    #[test]
    fn many_unknown_writes_do_not_make_the_search_long() {
        let mut events: Vec<Event> = (0..40).map(|n| event(1 + n, 0, Write(100 + n))).collect();
        events.push(event(50, 51, Write(1)));
        events.push(event(52, 53, Read(Some(2))));
        judge(false, &events);
        events.pop();
        events.push(event(52, 53, Read(Some(120))));
        events.push(event(54, 55, Read(Some(1))));
        judge(false, &events);
    }
}
