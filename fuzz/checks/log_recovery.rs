//! The log's recovery, over a disk that the input tells a story of.
//!
//! In one kind of story a log is written by the program, as the core would have it written; then
//! its last write is torn, bytes are flipped, files are cut, lost or swapped. Recovery must refuse,
//! and then leave everything as it is, or give back a first part of what was written, which ends
//! where a write ended: after a tear everything but the torn write, after flipped bits everything
//! or no more missing than the last write, if that was hit. It never gives back what was not
//! written.
//!
//! In the other kind the files are made by hand, with good checksums over records that contradict
//! each other or are none, and over lengths that do not agree. Where the files are as they should
//! be, recovery says of the records exactly what the core's replay says.

use super::input::Input;
use super::memory_files::MemoryFiles;
use super::raw_log::{BLOCK_HEADER_BYTES, Lies, RawSegment, SETTINGS};
use bytes::Bytes;
use paxos_ssh::disk::log::{DiskLog, open_stepped};
use paxos_ssh::disk::writer::{Step, Writer};
use paxos_ssh::disk::{Log, LogError, LogOwner, watched};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::message::{Entry, Payload, Vote};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::telemetry::metrics::LogMetrics;
use paxos_ssh::telemetry::watchdog::Watchdog;
use paxos_ssh::wire::record::{decode_record, encode_record};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// Longer stories repeat themselves.
const TURNS_MAX: usize = 48;
const DAMAGES_MAX: usize = 6;
const SEGMENTS_MAX: u64 = 3;
const BLOCKS_MAX: usize = 4;
const RECORDS_MAX: usize = 6;

/// What disks write whole.
const SECTOR_BYTES: usize = 512;

/// A value may be this many times as long as the input spells it out; one must fit in a segment.
const REPEATED_MAX: usize = 12;

type Opened = (DiskLog, Writer, Recovered<Bytes>);

/// Input: the kind of story, and the story.
///
/// # Panics
/// When something does not hold.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 2 {
        0 => damaged(&mut input),
        _ => made_by_hand(&mut input),
    }
}

fn owner() -> LogOwner {
    LogOwner { cluster_name: "fuzz".into(), node: NodeId(1) }
}

fn open(files: &MemoryFiles) -> Result<Opened, LogError> {
    let beat = Watchdog::default().watch(watched());
    let (owner, metrics) = (owner(), LogMetrics::default());
    open_stepped(Path::new("log"), owner, SETTINGS, Arc::new(files.clone()), metrics, beat)
}

/// Lets the writer work until there is nothing to do; says after how many records each write ended.
fn settle(writer: &mut Writer) -> Vec<u64> {
    let mut ends = Vec::new();
    loop {
        match writer.step().expect("files in memory do not fail") {
            Step::Idle => return ends,
            Step::Durable(position) => ends.push(position.0),
            Step::Written | Step::SegmentFull | Step::Rotated => {}
            Step::NoRoom => panic!("files in memory are never full"),
        }
    }
}

fn replayed(records: &[Record<Bytes>]) -> Recovered<Bytes> {
    let mut recovered = Recovered::default();
    for record in records {
        recovered.replay(record.clone()).expect("these records do not contradict each other");
    }
    recovered
}

fn genesis() -> Record<Bytes> {
    let proposer = ProposerId::new(1).ok();
    let roles = Roles { proposer, acceptor: Some(VoterGeneration(9)), learner: true };
    let member = Member { name: "n1".into(), address: "h:1".into(), roles };
    let configuration = Configuration::new(
        ConfigurationNumber(1),
        BTreeMap::from([(NodeId(1), member)]),
        QuorumSystem::majority(1).expect("one acceptor is a majority"),
    );
    let configuration = configuration.expect("one node of all roles makes a configuration");
    let genesis = Genesis { cluster: ClusterId(5), configuration, window: 100 };
    Record::Genesis { genesis, generation: Some(VoterGeneration(9)) }
}

fn entry(input: &mut Input<'_>) -> Arc<Entry<Bytes>> {
    let stamp = ClusterTime(u64::from(input.byte()));
    let payload = match input.byte() % 8 {
        0 => Payload::Noop,
        1 => Payload::Floor(Slot(u64::from(input.byte()))),
        times => {
            let value = input.short_bytes();
            let times = if times == 7 { REPEATED_MAX } else { 1 };
            Payload::Command(Bytes::from(value.repeat(times)))
        }
    };
    Arc::new(Entry { stamp, payload })
}

/// What was written, as a dumb model keeps it.
struct Story {
    records: Vec<Record<Bytes>>,
    state: Recovered<Bytes>,
    /// After how many records each write ended.
    ends: Vec<u64>,
}

impl Story {
    /// The next record that follows from those before it.
    fn next_record(&self, input: &mut Input<'_>) -> Record<Bytes> {
        let state = &self.state;
        if state.genesis.is_none() {
            return genesis();
        }
        let above = |ballot: Ballot, step: u64| {
            let number = ProposalNumber::from_raw(ballot.number.value() + step);
            Ballot { number, incarnation: ballot.incarnation }
        };
        match input.byte() % 5 {
            0 => Record::Promised(above(state.promised, u64::from(input.byte()))),
            1 => {
                let ballot = above(state.promised, u64::from(input.byte() % 3));
                let slot = Slot((state.chosen.0 + u64::from(input.byte() % 5)).max(1));
                Record::Accepted(Vote { slot, ballot, entry: entry(input) })
            }
            2 => {
                let slot = Slot((state.chosen.0 + u64::from(input.byte() % 5)).max(1));
                Record::Learned { slot, entry: entry(input) }
            }
            3 => {
                let mut last = state.chosen;
                let known = |slot: Slot| {
                    state.votes.contains_key(&slot) || state.learned.contains_key(&slot)
                };
                while known(last.next()) {
                    last = last.next();
                }
                Record::Chosen(last)
            }
            _ => Record::Floor(Slot(u64::from(input.byte()))),
        }
    }

    fn push(&mut self, record: Record<Bytes>) {
        self.state.replay(record.clone()).expect("it follows from those before it");
        self.records.push(record);
    }

    /// The chosen values of the first `count` records: what was learned, else the last vote, of
    /// those that came before the slot was chosen.
    fn chosen_values(&self, count: usize) -> Vec<Arc<Entry<Bytes>>> {
        let (mut votes, mut learned, mut chosen) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for record in &self.records[..count] {
            match record {
                Record::Accepted(vote) => _ = votes.insert(vote.slot.0, vote.entry.clone()),
                Record::Learned { slot, entry } => _ = learned.insert(slot.0, entry.clone()),
                Record::Chosen(up_to) => {
                    for slot in chosen.len() as u64 + 1..=up_to.0 {
                        let value = learned.get(&slot).or_else(|| votes.get(&slot));
                        chosen.push(value.expect("it has a value").clone());
                    }
                }
                Record::Genesis { .. }
                | Record::Promised(_)
                | Record::Floor(_)
                | Record::Fenced => {}
            }
        }
        chosen
    }

    fn last_write_first(&self) -> u64 {
        self.ends.iter().rev().nth(1).copied().unwrap_or(0)
    }
}

/// Writes a log, a few records to each write; now and then the process starts anew.
fn write_story(input: &mut Input<'_>, files: &MemoryFiles) -> Story {
    let mut story = Story { records: Vec::new(), state: Recovered::default(), ends: Vec::new() };
    let (mut log, mut writer, _) = open(files).expect("a fresh directory opens");
    for _ in 0..TURNS_MAX {
        let turn = input.byte();
        if turn == 0 {
            break;
        }
        if turn.is_multiple_of(16) {
            drop(log);
            let opened = open(files).expect("what nobody damaged opens");
            assert_eq!(opened.2, story.state, "what was written did not come back");
            (log, writer, _) = opened;
            continue;
        }
        let count = 1 + usize::from(turn) % RECORDS_MAX;
        for _ in 0..count {
            let record = story.next_record(input);
            story.push(record.clone());
            log.append(vec![record]);
        }
        story.ends.extend(settle(&mut writer));
    }
    story
}

/// What happened to a disk, by what may follow from it.
#[derive(Default)]
struct Damage {
    /// The last write did not arrive whole.
    torn: bool,
    /// Bytes of the last write are others.
    last_hit: bool,
    /// Bytes anywhere are others.
    flipped: bool,
    /// Files are shorter, gone, or have each other's names.
    moved: bool,
}

fn damaged(input: &mut Input<'_>) {
    let files = MemoryFiles::default();
    let story = write_story(input, &files);
    let mut damage = Damage::default();
    if !story.ends.is_empty() {
        tear(input, &files, &mut damage);
    }
    for _ in 0..DAMAGES_MAX {
        if input.is_empty() {
            break;
        }
        hurt(input, &files, &mut damage);
    }
    let before = files.contents();
    match open(&files) {
        Ok(opened) => check_recovered(opened, &files, &story, &damage),
        Err(error) => {
            assert!(damage.flipped || damage.moved, "a log that was at most torn: {error}");
            assert!(files.contents() == before, "refused, and changed all the same: {error}");
        }
    }
}

fn tear(input: &mut Input<'_>, files: &MemoryFiles, damage: &mut Damage) {
    let Some(write) = files.last_write() else { return };
    let how = input.byte();
    match how % 4 {
        1 => {
            let kept = input.below(write.after.len() + 1);
            files.tear(&write, |at| at < write.offset + kept);
            damage.torn = kept < write.after.len();
        }
        2 => {
            let arrived = u16::from_be_bytes([input.byte(), input.byte()]);
            files.tear(&write, |at| arrived >> (at / SECTOR_BYTES % 16) & 1 == 1);
            damage.torn = true;
        }
        _ => {}
    }
}

fn hurt(input: &mut Input<'_>, files: &MemoryFiles, damage: &mut Damage) {
    let names: Vec<OsString> = files.names();
    let Some(name) = names.get(usize::from(input.byte()) % names.len().max(1)) else { return };
    let what = input.byte();
    let at = input.below(SETTINGS.segment_bytes as usize);
    match what % 8 {
        0..=3 => {
            let bits = input.byte();
            let write = files.last_write();
            files.change(name, |bytes| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            });
            // By offset alone, whatever the file: it allows more, never less.
            let range = write.map(|write| write.offset..write.offset + write.after.len());
            damage.last_hit |= range.is_some_and(|range| range.contains(&at));
            damage.flipped |= bits != 0;
        }
        4 => {
            files.change(name, |bytes| bytes.truncate(at));
            damage.moved = true;
        }
        5 => {
            files.remove(name);
            damage.moved = true;
        }
        6 => {
            let other = &names[at % names.len()];
            let contents = files.contents();
            files.put(name, contents[other].clone());
            files.put(other, contents[name].clone());
            damage.moved = true;
        }
        _ => {
            let length = input.below(SETTINGS.segment_bytes as usize);
            files.change(name, |bytes| {
                let end = (at + length).min(bytes.len());
                if let Some(range) = bytes.get_mut(at..end) {
                    range.fill(0);
                }
            });
            damage.moved = true;
        }
    }
}

fn check_recovered(opened: Opened, files: &MemoryFiles, story: &Story, damage: &Damage) {
    let (mut log, mut writer, recovered) = opened;
    let count = recovered.end.0;
    let total = story.records.len() as u64;
    assert!(count <= total, "{count} records came back of {total}");
    assert!(count == 0 || story.ends.contains(&count), "it ends within a write, at {count}");
    let kept = &story.records[..count as usize];
    assert!(recovered == replayed(kept), "what came back was not written");
    if !damage.moved && count < total {
        assert!(damage.torn || damage.last_hit, "{count} of {total} came back, none was hit");
        assert_eq!(count, story.last_write_first(), "more is gone than the last write");
    }
    let values = story.chosen_values(count as usize);
    check_reads(&mut log, &values);

    let mut kept = kept.to_vec();
    if kept.is_empty() {
        kept.push(genesis());
        log.append(vec![genesis()]);
    }
    let number = ProposalNumber::from_raw(u64::MAX);
    let promise = Record::Promised(Ballot { number, ..Ballot::ZERO });
    kept.push(promise.clone());
    log.append(vec![promise]);
    settle(&mut writer);
    check_reads(&mut log, &values);
    drop(log);
    let (_, _, recovered) = open(files).expect("what was written after a recovery opens");
    assert!(recovered == replayed(&kept), "what was written after a recovery did not come back");
}

fn check_reads(log: &mut DiskLog, values: &[Arc<Entry<Bytes>>]) {
    let mut slot = Slot(1);
    for value in values {
        let read = log.read(slot, slot, 0).expect("a chosen value is read");
        assert!(read.len() == 1 && read[0] == *value, "slot {slot} has another value");
        slot = slot.next();
    }
    assert!(log.read(slot, slot, 0).is_err(), "slot {slot} is not chosen");
    if !values.is_empty() {
        let read = log.read(Slot(1), slot, usize::MAX).expect("all are read at once");
        assert!(read == values, "read at once, values are others");
    }
}

/// Any record, whether or not it follows from others; or bytes that are none.
fn any_record(input: &mut Input<'_>) -> Bytes {
    let kind = input.byte();
    if kind % 8 == 7 {
        return Bytes::copy_from_slice(input.short_bytes());
    }
    let slot = match kind {
        0x80.. => Slot(u64::MAX - u64::from(input.byte() % 4)),
        _ => Slot(u64::from(input.byte() % 8)),
    };
    let number = ProposalNumber::from_raw(u64::from(input.byte()));
    let ballot = Ballot { number, incarnation: Incarnation(u64::from(input.byte())) };
    let record = match kind % 8 {
        0 => Record::Promised(ballot),
        1 => Record::Accepted(Vote { slot, ballot, entry: entry(input) }),
        2 => Record::Learned { slot, entry: entry(input) },
        3 => Record::Chosen(slot),
        4 => Record::Floor(slot),
        5 => genesis(),
        _ => Record::Fenced,
    };
    let mut out = Vec::new();
    encode_record(&record, &mut out);
    Bytes::from(out)
}

fn any_lies(input: &mut Input<'_>) -> Lies {
    let which = input.byte();
    // Most blocks are honest, or hardly any would be read to its end.
    if which < 0xc0 {
        return Lies::default();
    }
    let number = match which & 0x10 {
        0 => u64::from(input.byte()),
        _ => u64::MAX - u64::from(input.byte()),
    };
    let mut lies = Lies::default();
    match which % 4 {
        0 => lies.block_bytes = Some(number as u32),
        1 => lies.frames_bytes = Some(number as u32),
        2 => lies.records = Some(number as u32),
        _ => lies.first = Some(number),
    }
    lies
}

/// What recovery must say of records in files that are as they should be.
#[derive(Debug, PartialEq)]
enum Verdict {
    Opens,
    NoRecord,
    Contradiction,
}

fn verdict(records: &[Bytes], state: &mut Recovered<Bytes>) -> Verdict {
    for record in records {
        let Ok(record) = decode_record(record) else { return Verdict::NoRecord };
        if state.replay(record).is_err() {
            return Verdict::Contradiction;
        }
    }
    Verdict::Opens
}

fn made_by_hand(input: &mut Input<'_>) {
    let files = MemoryFiles::default();
    let mut records: Vec<Bytes> = Vec::new();
    let mut honest = true;
    let segments = 1 + u64::from(input.byte()) % SEGMENTS_MAX;
    let begun = input.byte() % 8 != 7;
    for number in 1..=segments {
        let length = SETTINGS.segment_bytes as usize;
        // Lengths that no segment has.
        let odd = usize::from(input.byte());
        let length = if odd >= 0xf0 { length + odd - 0xef } else { length };
        honest &= odd < 0xf0;
        let first = records.len() as u64;
        let mut segment = RawSegment::new(&owner(), number, first, number * 77, length);
        for block in 0..usize::from(input.byte()) % (BLOCKS_MAX + 1) {
            let first = records.len() as u64;
            let mut own: Vec<Bytes> = Vec::new();
            if first == 0 && block == 0 && begun {
                let mut out = Vec::new();
                encode_record(&genesis(), &mut out);
                own.push(Bytes::from(out));
            }
            let count = usize::from(input.byte()) % RECORDS_MAX;
            own.extend((0..count).map(|_| any_record(input)));
            let lies = any_lies(input);
            if segment.block(&own, first, lies) {
                honest &= lies.is_honest();
                records.extend(own);
            }
        }
        let end = segment.end();
        let mut bytes = segment.into_bytes();
        // The beginning of a write that did not arrive, or something worse.
        let tail = input.short_bytes();
        if tail.len() > BLOCK_HEADER_BYTES {
            for (byte, bits) in bytes[end..].iter_mut().zip(tail) {
                *byte ^= bits;
            }
            honest = false;
        }
        files.put(&OsString::from(format!("{number:020}.log")), bytes);
    }
    check_made_by_hand(&files, &records, honest);
}

fn check_made_by_hand(files: &MemoryFiles, records: &[Bytes], honest: bool) {
    let before = files.contents();
    let mut state = Recovered::default();
    let wanted = verdict(records, &mut state);
    match open(files) {
        Ok((log, mut writer, recovered)) => {
            if honest {
                assert_eq!(wanted, Verdict::Opens);
                assert!(recovered == state, "the records mean something else to the log");
            }
            assert!(settle(&mut writer).is_empty(), "nothing was appended");
            drop(log);
            let (_, _, again) = open(files).expect("a log that opened opens again");
            assert!(again == recovered, "opened again, it holds something else");
        }
        Err(error) => {
            if honest {
                let found = match error {
                    LogError::Record { .. } => Verdict::NoRecord,
                    LogError::Contradiction { .. } => Verdict::Contradiction,
                    error => panic!("files that are as they should be: {error}"),
                };
                assert_eq!(found, wanted);
            }
            assert!(files.contents() == before, "refused, and changed all the same");
        }
    }
}
