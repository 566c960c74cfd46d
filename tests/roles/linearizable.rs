//! Whether what clients were told can be explained by one store that did one thing at a time.
//!
//! The search is `todc-utils`' checker after Wing, Gong and Lowe: not ours, and not tuned to what
//! is checked here. Ours is only what a store is, key by key; a history is linearizable if that of
//! each key is.
//!
//! A write of which nobody knows whether it was applied may take effect at any time after it was
//! sent, also after everything else, where nobody sees it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

/// What was asked of a key, and what the answer was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Found this value, or none.
    Read(Option<String>),
    /// Stored a value, or perhaps stored it.
    Write(String),
    /// Stored a value if the key held that other one (none: if there was no key); said whether it
    /// did, if it said anything.
    WriteIf { holds: Option<String>, value: String, told: Option<bool> },
    /// Removed the key; said whether there was one, if it said anything.
    Delete { told: Option<bool> },
}

/// One operation of one client.
#[derive(Debug, Clone)]
pub struct Event {
    pub key: String,
    pub operation: Operation,
    pub begun: Instant,
    /// None if nobody knows what became of it.
    pub ended: Option<Instant>,
}

/// One key of the store.
struct Key;

impl Specification for Key {
    type State = Option<String>;
    type Operation = Operation;

    fn init() -> Option<String> {
        None
    }

    fn apply(operation: &Operation, state: &Option<String>) -> (bool, Option<String>) {
        match operation {
            Operation::Read(seen) => (seen == state, state.clone()),
            Operation::Write(value) => (true, Some(value.clone())),
            Operation::WriteIf { holds, value, told } => {
                let held = holds == state;
                let after = if held { Some(value.clone()) } else { state.clone() };
                (told.is_none_or(|told| told == held), after)
            }
            Operation::Delete { told } => (told.is_none_or(|told| told == state.is_some()), None),
        }
    }
}

/// The events of each key, in the order in which they began.
pub fn by_key(events: &[Event]) -> BTreeMap<&str, Vec<&Event>> {
    let mut keys: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        keys.entry(event.key.as_str()).or_default().push(event);
    }
    for events in keys.values_mut() {
        events.sort_by_key(|event| event.begun);
    }
    keys
}

/// Whether events of one key, from its first on, can be explained.
///
/// Each write of unknown outcome doubles what the search may have to go through. So it is first
/// tried without those that nobody saw: what explains the rest explains them as well, for they may
/// have happened after all of it.
pub fn is_linearizable(events: &[&Event]) -> bool {
    let seen: BTreeSet<&str> = events.iter().filter_map(|event| found(&event.operation)).collect();
    let was_seen = |event: &&Event| match &event.operation {
        Operation::Write(value) | Operation::WriteIf { value, .. } => seen.contains(value.as_str()),
        Operation::Read(_) | Operation::Delete { .. } => false,
    };
    let counts = |event: &&Event| event.ended.is_some() || was_seen(event);
    let known: Vec<&Event> = events.iter().copied().filter(counts).collect();
    has_an_order(&known) || (known.len() < events.len() && has_an_order(events))
}

/// The value that an operation tells was there.
fn found(operation: &Operation) -> Option<&str> {
    match operation {
        Operation::Read(value) | Operation::WriteIf { holds: value, told: Some(true), .. } => {
            value.as_deref()
        }
        _ => None,
    }
}

/// Whether all of these events can be explained.
fn has_an_order(events: &[&Event]) -> bool {
    if events.is_empty() {
        return true;
    }
    // At the same moment, what begins comes first: then both orders are possible.
    let mut points: Vec<(bool, Option<Instant>, usize)> = Vec::with_capacity(events.len() * 2);
    for (at, event) in events.iter().enumerate() {
        points.push((false, Some(event.begun), at));
        points.push((true, event.ended, at));
    }
    points.sort_by_key(|(is_end, when, _)| (when.is_none(), *when, *is_end));
    let actions = points.into_iter().map(|(is_end, _, at)| {
        let operation = events[at].operation.clone();
        (at, if is_end { Action::Response(operation) } else { Action::Call(operation) })
    });
    WGLChecker::<Key>::is_linearizable(History::from_actions(actions.collect()))
}

/// The keys whose events nothing explains.
pub fn unexplained(events: &[Event]) -> Vec<&str> {
    let keys = by_key(events);
    keys.into_iter().filter(|(_, events)| !is_linearizable(events)).map(|(key, _)| key).collect()
}

/// Makes one read stale: it now tells what an earlier read told, although another read of what
/// came later had ended before it began. Every value is written once, so nothing can explain that.
/// Answers the key; none if no read is such that it can be made stale.
pub fn plant_stale_read(events: &mut [Event]) -> Option<String> {
    let read = |event: &Event| match (&event.operation, event.ended) {
        (Operation::Read(Some(value)), Some(ended)) => Some((value.clone(), ended)),
        _ => None,
    };
    for last in 0..events.len() {
        let Some((value, _)) = read(&events[last]) else { continue };
        let key = events[last].key.clone();
        let before = |at: usize, limit: Instant| {
            let event = &events[at];
            read(event).filter(|(_, ended)| event.key == key && *ended < limit)
        };
        let witnesses = (0..events.len())
            .filter(|at| before(*at, events[last].begun).is_some_and(|(seen, _)| seen == value));
        for witness in witnesses {
            let older = (0..events.len()).filter_map(|at| before(at, events[witness].begun));
            if let Some((stale, _)) = older.into_iter().find(|(seen, _)| *seen != value) {
                events[last].operation = Operation::Read(Some(stale));
                return Some(key);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Begins and ends at these moments; ends never if `to` is 0.
    fn event(from: u64, to: u64, operation: Operation) -> Event {
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let at = |ms| *ORIGIN.get_or_init(Instant::now) + Duration::from_millis(ms);
        let ended = (to > 0).then(|| at(to));
        Event { key: "k".to_owned(), operation, begun: at(from), ended }
    }

    fn read(value: &str) -> Operation {
        Operation::Read((!value.is_empty()).then(|| value.to_owned()))
    }

    fn write(value: &str) -> Operation {
        Operation::Write(value.to_owned())
    }

    fn write_if(holds: &str, value: &str, told: Option<bool>) -> Operation {
        let holds = (!holds.is_empty()).then(|| holds.to_owned());
        Operation::WriteIf { holds, value: value.to_owned(), told }
    }

    #[track_caller]
    fn good(events: &[Event]) {
        assert_eq!(unexplained(events), Vec::<&str>::new());
    }

    #[track_caller]
    fn bad(events: &[Event]) {
        assert_eq!(unexplained(events), ["k"]);
    }

    #[test]
    fn what_one_client_does_after_another_has_one_order() {
        good(&[
            event(1, 2, read("")),
            event(3, 4, write("a")),
            event(5, 6, read("a")),
            event(7, 8, Operation::Delete { told: Some(true) }),
            event(9, 10, Operation::Delete { told: Some(false) }),
        ]);
        bad(&[event(1, 2, write("a")), event(3, 4, read(""))]);
        bad(&[event(1, 2, write("a")), event(3, 4, write("b")), event(5, 6, read("a"))]);
        bad(&[event(1, 2, Operation::Delete { told: Some(true) })]);
    }

    #[test]
    fn what_overlaps_may_have_either_order_but_only_one() {
        let writes = [event(1, 9, write("a")), event(1, 9, write("b"))];
        let with = |seen: [&str; 2]| {
            let reads = [event(10, 11, read(seen[0])), event(12, 13, read(seen[1]))];
            [writes.clone().to_vec(), reads.to_vec()].concat()
        };
        good(&with(["a", "a"]));
        good(&with(["b", "b"]));
        bad(&with(["a", "b"]));
        // A write that is seen stays seen, although it has not ended.
        bad(&[event(1, 9, write("a")), event(2, 3, read("a")), event(4, 5, read(""))]);
    }

    #[test]
    fn a_condition_that_held_held() {
        let put = event(1, 2, write("a"));
        good(&[put.clone(), event(3, 4, write_if("a", "b", Some(true))), event(5, 6, read("b"))]);
        good(&[put.clone(), event(3, 4, write_if("", "b", Some(false))), event(5, 6, read("a"))]);
        bad(&[put.clone(), event(3, 4, write_if("", "b", Some(true)))]);
        bad(&[put.clone(), event(3, 4, write_if("a", "b", Some(false)))]);
        // Of two that wait for the same value one may win.
        let both = |told| {
            let second = event(3, 9, write_if("a", "c", Some(told)));
            [put.clone(), event(3, 9, write_if("a", "b", Some(true))), second]
        };
        good(&both(false));
        bad(&both(true));
    }

    #[test]
    fn what_is_not_known_may_happen_late_or_never_but_once() {
        let put = event(1, 2, write("a"));
        let perhaps = event(3, 0, write("b"));
        let with = |seen: [&str; 3]| {
            let reads = [5, 7, 9].into_iter().zip(seen);
            let reads = reads.map(|(at, seen)| event(at, at + 1, read(seen)));
            [put.clone(), perhaps.clone()].into_iter().chain(reads).collect::<Vec<_>>()
        };
        good(&with(["a", "a", "a"]));
        good(&with(["a", "b", "b"]));
        bad(&with(["a", "b", "a"]));
        bad(&[event(1, 2, read("b")), perhaps.clone()]);
        // Nobody saw it, and nothing else explains that the condition did not hold.
        let unseen = event(5, 6, write_if("a", "c", Some(false)));
        good(&[put.clone(), perhaps.clone(), unseen.clone()]);
        bad(&[put.clone(), unseen]);
        let conditional = event(3, 0, write_if("x", "c", None));
        good(&[put.clone(), conditional.clone(), event(5, 6, read("a"))]);
        bad(&[put, conditional, event(5, 6, read("c"))]);
    }

    #[test]
    fn a_planted_stale_read_is_found() {
        let mut events = vec![
            event(1, 2, write("a")),
            event(3, 4, read("a")),
            event(5, 6, write("b")),
            event(7, 8, read("b")),
            event(9, 10, read("b")),
        ];
        good(&events);
        assert_eq!(plant_stale_read(&mut events).as_deref(), Some("k"));
        assert_eq!(events[4].operation, read("a"));
        bad(&events);
        let mut too_few = events[..3].to_vec();
        assert_eq!(plant_stale_read(&mut too_few), None);
    }
}
