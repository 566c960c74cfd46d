//! What a run amounts to, in the words of whoever reads its end only.

use super::faults::Kind;
use super::linearizable::Event;
use super::workload::{Told, Write};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One turn's fault, when it began, and when all of its turn was healed.
#[derive(Debug, Clone)]
pub struct Noted {
    pub kind: Kind,
    /// Otherwise it was tried in vain: a disk that nobody noticed to be full.
    pub effective: bool,
    pub text: String,
    pub from: Instant,
    pub to: Instant,
}

/// The longest time without an acknowledged write.
pub struct Pause {
    pub began: Instant,
    pub lasted: Duration,
}

/// The times at which writes were acknowledged, in order.
pub fn acknowledgements(history: &[Write]) -> Vec<Instant> {
    let done = history.iter().filter(|write| matches!(write.told, Told::Done(_)));
    let mut times: Vec<Instant> = done.map(|write| write.ended).collect();
    times.sort();
    times
}

/// The longest pause that overlaps with this time.
pub fn longest_pause(times: &[Instant], from: Instant, to: Instant) -> Option<Pause> {
    let first = times.partition_point(|time| *time < from).saturating_sub(1);
    let gaps = times[first..].windows(2).take_while(|gap| gap[0] <= to);
    let gaps = gaps.map(|gap| Pause { began: gap[0], lasted: gap[1] - gap[0] });
    gaps.max_by_key(|gap| gap.lasted)
}

/// The pauses of this length at least, each with the faults that it overlaps with.
pub fn long_pauses(noted: &[Noted], times: &[Instant], from: Duration) -> Vec<String> {
    let gaps = times.windows(2).map(|gap| Pause { began: gap[0], lasted: gap[1] - gap[0] });
    let line = |pause: Pause| {
        let faults = during(noted, &pause).join("; ");
        format!("{:.2} s without an acknowledged write: {faults}", pause.lasted.as_secs_f64())
    };
    gaps.filter(|pause| pause.lasted >= from).map(line).collect()
}

/// How often a kind of fault took effect.
pub fn happened(noted: &[Noted], kind: Kind) -> usize {
    noted.iter().filter(|fault| fault.kind == kind && fault.effective).count()
}

/// How often each kind of fault happened, and the longest pause that it went with.
pub fn by_kind(noted: &[Noted], times: &[Instant]) -> Vec<String> {
    let mut kinds: BTreeMap<Kind, (usize, Duration)> = BTreeMap::new();
    let mut in_vain = 0;
    for fault in noted {
        if !fault.effective {
            in_vain += 1;
            continue;
        }
        let pause = longest_pause(times, fault.from, fault.to).map(|pause| pause.lasted);
        let (count, longest) = kinds.entry(fault.kind).or_default();
        *count += 1;
        *longest = (*longest).max(pause.unwrap_or_default());
    }
    let line = |kind: Kind| {
        let (count, longest) = kinds.get(&kind).copied().unwrap_or_default();
        let longest = longest.as_secs_f64();
        format!("  {:18}{count:5}   longest pause {longest:6.2} s", kind.name())
    };
    let in_vain = (in_vain > 0).then(|| format!("  tried in vain     {in_vain:5}"));
    Kind::all().map(line).chain(in_vain).collect()
}

/// What was asked of a key and told, in the order in which it was asked.
pub fn history(events: &[Event], key: &str) -> Vec<String> {
    let mut events: Vec<&Event> = events.iter().filter(|event| event.key == key).collect();
    events.sort_by_key(|event| event.begun);
    let Some(first) = events.first().map(|event| event.begun) else { return Vec::new() };
    let seconds = |time: Instant| (time - first).as_secs_f64();
    let line = |event: &&Event| {
        let ended = event.ended.map_or("never".to_owned(), |at| format!("{:.4}", seconds(at)));
        format!("{key} {:.4} to {ended}: {:?}", seconds(event.begun), event.operation)
    };
    events.iter().map(line).collect()
}

/// The faults that a pause overlaps with.
pub fn during(noted: &[Noted], pause: &Pause) -> Vec<String> {
    let end = pause.began + pause.lasted;
    let meets = |fault: &&Noted| fault.from <= end && fault.to >= pause.began;
    noted.iter().filter(meets).map(|fault| fault.text.clone()).collect()
}

#[test]
fn the_longest_pause_is_the_one_around_its_fault() {
    let origin = Instant::now();
    let at = |ms| origin + Duration::from_millis(ms);
    let times = [0, 10, 500, 510, 520, 900].map(at);
    let longest = |from, to| longest_pause(&times, at(from), at(to)).map(|p| p.lasted.as_millis());
    assert_eq!(longest(0, 1000), Some(490));
    assert_eq!(longest(200, 300), Some(490), "it lies within the pause");
    assert_eq!(longest(505, 515), Some(10));
    assert_eq!(longest(515, 600), Some(380));
    assert_eq!(longest(950, 1000), None);
}

#[test]
fn what_was_tried_in_vain_did_not_happen() {
    let now = Instant::now();
    let fault =
        |kind, effective| Noted { kind, effective, text: String::new(), from: now, to: now };
    let noted =
        [fault(Kind::DiskFull, false), fault(Kind::DiskFull, true), fault(Kind::Frozen, true)];
    assert_eq!(happened(&noted, Kind::DiskFull), 1);
    assert_eq!(happened(&noted[..1], Kind::DiskFull), 0);
    let lines = by_kind(&noted, &[now]);
    let of = |name: &str| lines.iter().filter(|line| line.contains(name)).count();
    assert_eq!(
        (of("disk full             1 "), of("tried in vain         1")),
        (1, 1),
        "{lines:?}"
    );
}
