//! The log on a real directory: what a crash, a flipped bit, a full disk, a failed sync or a second
//! process does to it.

mod disk_fixture;

use bytes::Bytes;
use disk_fixture::{Faults, PATIENCE, SMALL, beat_of, faulty, genesis, owner};
use paxos_ssh::disk::files::{Handle, Kernel, Storage};
use paxos_ssh::disk::log::{DiskLog, LogSettings, is_in_use, open_with};
use paxos_ssh::disk::{Log, LogError, LogEvent, LogOwner};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::message::{Entry, Payload, Vote};
use paxos_ssh::paxos::record::{LogPosition, Record, Recovered};
use paxos_ssh::telemetry::metrics::LogMetrics;
use paxos_ssh::telemetry::watchdog::Watchdog;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Sizes of the layout, written down again so that a change of the format shows.
const HEADER_BYTES: u64 = 4096;
const BLOCK_ALIGNMENT: u64 = 32;

/// In memory where there is such a place: these tests ask which bytes are found again, thousands of
/// times, and a device that takes its time over each sync answers that no better.
fn directory() -> TempDir {
    const IN_MEMORY: &str = "/dev/shm";
    tempfile::tempdir_in(IN_MEMORY).or_else(|_| tempfile::tempdir()).unwrap()
}

struct Opened {
    log: DiskLog,
    recovered: Recovered<Bytes>,
    events: Receiver<LogEvent>,
    metrics: LogMetrics,
}

impl Opened {
    fn append(&mut self, records: Vec<Record<Bytes>>) {
        self.log.append(records);
    }

    /// Appends, and returns once it is durable.
    fn write(&mut self, records: Vec<Record<Bytes>>) {
        self.append(records);
        self.wait_durable(self.log.end());
    }

    /// Asks for a sync, as whoever holds a pledge does, and waits for it.
    fn wait_durable(&mut self, end: LogPosition) {
        self.log.sync();
        loop {
            match self.events.recv_timeout(PATIENCE).expect("an event comes") {
                LogEvent::Durable { position, .. } if position >= end => return,
                _ => {}
            }
        }
    }
}

fn try_open(
    directory: &Path,
    owner: LogOwner,
    files: Arc<dyn Storage>,
) -> Result<Opened, LogError> {
    let metrics = LogMetrics::default();
    let (sender, events) = channel();
    let on_event = move |event| {
        // The test may have ended before the log.
        let _ = sender.send(event);
    };
    let opened = open_with(
        directory,
        owner,
        SMALL,
        files,
        metrics.clone(),
        beat_of(&Watchdog::default(), PATIENCE),
        on_event,
    );
    let (log, recovered) = opened?;
    Ok(Opened { log, recovered, events, metrics })
}

fn open(directory: &Path) -> Opened {
    try_open(directory, owner(), Arc::new(Kernel)).unwrap()
}

fn error(directory: &Path) -> LogError {
    match try_open(directory, owner(), Arc::new(Kernel)) {
        Ok(_) => panic!("the log opened"),
        Err(error) => error,
    }
}

fn ballot(number: u64) -> Ballot {
    Ballot { number: ProposalNumber::from_raw(number), incarnation: Incarnation(7) }
}

fn entry(value: &[u8]) -> Arc<Entry<Bytes>> {
    let payload = Payload::Command(Bytes::copy_from_slice(value));
    Arc::new(Entry { stamp: ClusterTime(3), payload })
}

fn accepted(slot: u64, value: &[u8]) -> Record<Bytes> {
    Record::Accepted(Vote { slot: Slot(slot), ballot: ballot(101), entry: entry(value) })
}

fn learned(slot: u64, value: &[u8]) -> Record<Bytes> {
    Record::Learned { slot: Slot(slot), entry: entry(value) }
}

fn replayed(records: &[Record<Bytes>]) -> Recovered<Bytes> {
    let mut recovered = Recovered::default();
    for record in records {
        recovered.replay(record.clone()).unwrap();
    }
    recovered
}

/// Records of every kind, that follow from each other.
fn every_kind() -> Vec<Record<Bytes>> {
    vec![
        genesis(),
        Record::Promised(ballot(101)),
        accepted(1, b"one"),
        accepted(2, &[0; 100]),
        learned(3, b"three"),
        Record::Chosen(Slot(2)),
        Record::Floor(Slot(1)),
        accepted(5, b"five"),
        learned(7, b"seven"),
        Record::Fenced,
    ]
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(directory).unwrap().map(|item| item.unwrap().path());
    let mut names: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    names.sort();
    names
}

fn only_segment(directory: &Path) -> PathBuf {
    let segments = segments(directory);
    assert_eq!(segments.len(), 1);
    segments[0].clone()
}

/// A segment before and after one more block was written to it.
struct OneBlock {
    directory: TempDir,
    segment: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
    /// Where the block is in the file.
    start: usize,
    end: usize,
}

/// A log that holds `earlier`, and then `last` as one block.
fn with_last_block(earlier: Vec<Record<Bytes>>, last: Vec<Record<Bytes>>) -> OneBlock {
    let directory = directory();
    open(directory.path()).write(earlier);
    let segment = only_segment(directory.path());
    let before = std::fs::read(&segment).unwrap();
    open(directory.path()).write(last);
    let after = std::fs::read(&segment).unwrap();
    let start = (0..before.len()).find(|&at| before[at] != after[at]).unwrap();
    let start = start - start % BLOCK_ALIGNMENT as usize;
    let end = (0..before.len()).rev().find(|&at| before[at] != after[at]).unwrap() + 1;
    assert_eq!(
        end % BLOCK_ALIGNMENT as usize,
        0,
        "the trailer differs from the pattern everywhere"
    );
    OneBlock { directory, segment, before, after, start, end }
}

#[test]
fn what_was_durable_comes_back() {
    let directory = directory();
    let records = every_kind();
    let mut first = open(directory.path());
    assert_eq!(first.recovered, Recovered::default());
    first.write(records.clone());
    drop(first);
    let mut second = open(directory.path());
    assert_eq!(second.recovered, replayed(&records));
    assert_eq!(
        second.log.read(Slot(1), Slot(9), 1 << 20).unwrap(),
        [entry(b"one"), entry(&[0; 100])]
    );
    let more = vec![accepted(4, b"four"), Record::Chosen(Slot(5))];
    second.write(more.clone());
    drop(second);
    let mut third = open(directory.path());
    assert_eq!(third.recovered, replayed(&[records, more].concat()));
    let all = third.log.read(Slot(3), Slot(5), 1 << 20).unwrap();
    assert_eq!(all, [entry(b"three"), entry(b"four"), entry(b"five")]);
}

#[test]
fn a_dropped_log_has_written_what_it_was_given() {
    let directory = directory();
    open(directory.path()).append(every_kind());
    assert_eq!(open(directory.path()).recovered, replayed(&every_kind()));
}

#[test]
fn a_log_goes_on_across_segments() {
    let directory = directory();
    let mut log = open(directory.path());
    log.append(vec![genesis(), Record::Promised(ballot(101))]);
    let value = |slot: u64| vec![slot as u8; 700 + slot as usize];
    for slot in 1..=300u64 {
        log.append(vec![accepted(slot, &value(slot)), Record::Chosen(Slot(slot))]);
        if slot % 7 == 0 {
            log.wait_durable(log.log.end());
        }
    }
    drop(log);
    assert!(segments(directory.path()).len() > 6);
    let mut log = open(directory.path());
    assert_eq!(log.recovered.chosen, Slot(300));
    let mut slot = Slot(1);
    while slot <= Slot(300) {
        let entries = log.log.read(slot, Slot(300), 10_000).unwrap();
        assert!(entries.len() > 1, "several fit");
        for found in entries {
            assert_eq!(found, entry(&value(slot.0)));
            slot = slot.next();
        }
    }
}

/// Votes for three slots, each of 500 bytes of its number.
fn three_votes() -> Vec<Record<Bytes>> {
    let vote = |slot: u8| accepted(u64::from(slot), &[slot; 500]);
    vec![genesis(), vote(1), vote(2), vote(3)]
}

/// A node that runs serves what it can from a log that is damaged under it, and says so.
#[test]
fn what_comes_before_an_unreadable_entry_is_read_and_the_damage_is_counted() {
    let directory = directory();
    let mut log = open(directory.path());
    log.write(three_votes());
    log.write(vec![Record::Chosen(Slot(3))]);
    let path = only_segment(directory.path());
    let whole = std::fs::read(&path).unwrap();
    let at = whole.windows(500).position(|bytes| bytes == [2; 500]).unwrap();
    File::options().write(true).open(&path).unwrap().write_all_at(&[9], at as u64).unwrap();
    assert_eq!(log.metrics.unreadable.get(), 0);
    assert_eq!(log.log.read(Slot(1), Slot(3), 1 << 20).unwrap(), [entry(&[1; 500])]);
    assert_eq!(log.metrics.unreadable.get(), 1);
    let found = log.log.read(Slot(2), Slot(3), 1 << 20);
    assert!(matches!(found, Err(LogError::Corrupt { .. })), "{found:?}");
    assert_eq!(log.metrics.unreadable.get(), 2);
    assert_eq!(log.log.read(Slot(3), Slot(3), 1 << 20).unwrap(), [entry(&[3; 500])]);
}

#[test]
fn a_read_returns_at_least_one_entry_and_no_more_than_asked() {
    let directory = directory();
    let mut log = open(directory.path());
    log.write(three_votes());
    assert!(matches!(log.log.read(Slot(1), Slot(1), 1), Err(LogError::Missing { slot: Slot(1) })));
    log.write(vec![Record::Chosen(Slot(2))]);
    assert_eq!(log.log.read(Slot(1), Slot(3), 1).unwrap().len(), 1);
    assert_eq!(log.log.read(Slot(1), Slot(3), 999).unwrap().len(), 1);
    assert_eq!(log.log.read(Slot(1), Slot(3), 1000).unwrap().len(), 2);
    assert_eq!(log.log.read(Slot(1), Slot(1), 1 << 20).unwrap().len(), 1);
    assert!(matches!(log.log.read(Slot(3), Slot(3), 1), Err(LogError::Missing { slot: Slot(3) })));
}

#[test]
fn a_tear_at_any_byte_drops_the_last_block_and_nothing_else() {
    let earlier = vec![genesis(), Record::Promised(ballot(101)), accepted(1, b"one")];
    let last = vec![accepted(2, b"two"), Record::Chosen(Slot(2)), learned(3, b"three")];
    let case = with_last_block(earlier.clone(), last.clone());
    for cut in case.start..case.end {
        let mut torn = case.before.clone();
        torn[..cut].copy_from_slice(&case.after[..cut]);
        std::fs::write(&case.segment, &torn).unwrap();
        let mut log = open(case.directory.path());
        assert_eq!(log.recovered, replayed(&earlier), "cut at {}", cut - case.start);
        // What is written over the torn place must not be disturbed by what is left of it.
        log.write(vec![Record::Promised(ballot(201))]);
        drop(log);
        let log = open(case.directory.path());
        assert_eq!(log.recovered.promised, ballot(201), "cut at {}", cut - case.start);
        assert_eq!(log.recovered.end, LogPosition(4));
    }
    std::fs::write(&case.segment, &case.after).unwrap();
    assert_eq!(open(case.directory.path()).recovered, replayed(&[earlier, last].concat()));
}

/// Sectors of one write may arrive in any order.
#[test]
fn any_lost_sector_of_the_last_block_is_a_tear() {
    const SECTOR_BYTES: usize = 512;
    let earlier = vec![genesis()];
    let case =
        with_last_block(earlier.clone(), vec![accepted(1, &[0; 5000]), learned(2, &[1; 900])]);
    let mut lost = case.start - case.start % SECTOR_BYTES;
    let mut sectors = 0;
    while lost < case.end {
        let mut torn = case.after.clone();
        torn[lost..lost + SECTOR_BYTES].copy_from_slice(&case.before[lost..lost + SECTOR_BYTES]);
        std::fs::write(&case.segment, &torn).unwrap();
        assert_eq!(open(case.directory.path()).recovered, replayed(&earlier), "lost {lost}");
        let repaired = std::fs::read(&case.segment).unwrap();
        assert!(repaired == case.before, "the torn place is as if nothing was ever written");
        lost += SECTOR_BYTES;
        sectors += 1;
    }
    assert!(sectors > 10);
}

#[test]
fn any_flipped_bit_of_any_record_is_damage() {
    for record in every_kind().into_iter().skip(1) {
        let mut earlier = every_kind();
        earlier.truncate(if matches!(record, Record::Chosen(_)) { 5 } else { 2 });
        for record_is_last in [true, false] {
            let case = with_last_block(earlier.clone(), vec![record.clone()]);
            if !record_is_last {
                open(case.directory.path()).write(vec![Record::Promised(ballot(501))]);
            }
            let whole = std::fs::read(&case.segment).unwrap();
            let file = File::options().write(true).open(&case.segment).unwrap();
            for bit in case.start * 8..case.end * 8 {
                let (at, mask) = (bit / 8, 1 << (bit % 8));
                file.write_all_at(&[whole[at] ^ mask], at as u64).unwrap();
                let found = error(case.directory.path());
                assert!(
                    matches!(found, LogError::Corrupt { .. }),
                    "{record:?}, bit {bit}: {found}"
                );
                file.write_all_at(&whole[at..=at], at as u64).unwrap();
            }
            assert!(std::fs::read(&case.segment).unwrap() == whole, "nothing was changed");
            open(case.directory.path());
        }
    }
}

#[test]
fn any_flipped_bit_of_the_genesis_or_the_segments_header_is_refused() {
    let directory = directory();
    open(directory.path()).write(vec![genesis()]);
    let segment = only_segment(directory.path());
    let whole = std::fs::read(&segment).unwrap();
    let file = File::options().write(true).open(&segment).unwrap();
    for at in (0..HEADER_BYTES as usize + 128).filter(|at| !(200..4090).contains(at)) {
        for bit in 0..8 {
            file.write_all_at(&[whole[at] ^ (1 << bit)], at as u64).unwrap();
            let found = error(directory.path());
            let refused = matches!(found, LogError::Corrupt { .. } | LogError::Version { .. });
            assert!(refused, "byte {at}: {found}");
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
}

#[test]
fn a_lost_write_before_the_last_one_is_damage() {
    let case = with_last_block(vec![genesis()], vec![accepted(1, &[1; 3000])]);
    open(case.directory.path()).write(vec![Record::Promised(ballot(901))]);
    let mut lost = std::fs::read(&case.segment).unwrap();
    lost[case.start..case.end].copy_from_slice(&case.before[case.start..case.end]);
    std::fs::write(&case.segment, &lost).unwrap();
    // What is left looks like a block whose first sectors did not arrive, but for the header of the
    // next one.
    let found = error(case.directory.path());
    assert!(matches!(found, LogError::Corrupt { .. }), "{found}");
}

#[test]
fn a_tear_in_a_segment_that_is_not_the_last_is_damage() {
    let directory = directory();
    let mut log = open(directory.path());
    log.append(vec![genesis()]);
    for slot in 1..=60 {
        log.write(vec![accepted(slot, &[1; 1000])]);
    }
    drop(log);
    let segments = segments(directory.path());
    assert!(segments.len() > 1);
    let whole = std::fs::read(&segments[0]).unwrap();
    let file = File::options().write(true).open(&segments[0]).unwrap();
    file.write_all_at(&[!whole[20_000]], 20_000).unwrap();
    assert!(matches!(error(directory.path()), LogError::Corrupt { .. }));
    file.write_all_at(&whole, 0).unwrap();
    open(directory.path());
    std::fs::remove_file(&segments[0]).unwrap();
    let found = error(directory.path()).to_string();
    assert!(found.contains("the file is missing"), "{found}");
}

#[test]
fn a_file_cut_short_is_damage() {
    let directory = directory();
    open(directory.path()).write(vec![genesis()]);
    let segment = only_segment(directory.path());
    for bytes in [0, 100, HEADER_BYTES, HEADER_BYTES + 64, SMALL.segment_bytes - 1] {
        let whole = std::fs::read(&segment).unwrap();
        File::options().write(true).open(&segment).unwrap().set_len(bytes).unwrap();
        let found = error(directory.path());
        assert!(matches!(found, LogError::Corrupt { .. }), "cut to {bytes}: {found}");
        std::fs::write(&segment, whole).unwrap();
    }
    open(directory.path());
}

#[test]
fn a_leftover_spare_is_worth_nothing() {
    let directory = directory();
    open(directory.path()).write(vec![genesis()]);
    std::fs::write(directory.path().join("spare"), b"half of a segment").unwrap();
    assert_eq!(open(directory.path()).recovered, replayed(&[genesis()]));
}

#[test]
fn another_owners_directory_is_refused() {
    let directory = directory();
    open(directory.path()).write(every_kind());
    let other_node = LogOwner { node: NodeId(2), ..owner() };
    let other_cluster = LogOwner { cluster_name: "prod".into(), ..owner() };
    for other in [other_node, other_cluster] {
        let found = try_open(directory.path(), other.clone(), Arc::new(Kernel)).err().unwrap();
        let LogError::Foreign { found, wanted, .. } = found else { panic!("{found}") };
        assert_eq!((found, wanted), (owner(), other));
    }
    assert_eq!(open(directory.path()).recovered, replayed(&every_kind()));
}

#[test]
fn a_file_that_is_no_segment_is_refused() {
    let directory = directory();
    std::fs::write(directory.path().join("00000000000000000001.log"), vec![b'x'; 9000]).unwrap();
    let found = error(directory.path()).to_string();
    assert!(found.contains("does not begin as a log segment does"), "{found}");
}

#[test]
fn a_directory_in_use_is_refused_and_names_the_process() {
    let directory = directory();
    let log = open(directory.path());
    let found = error(directory.path());
    assert!(matches!(found, LogError::InUse { .. }), "{found}");
    assert!(found.to_string().contains(&format!("(process {})", std::process::id())), "{found}");
    assert!(is_in_use(directory.path()));
    drop(log);
    assert!(!is_in_use(directory.path()));
    open(directory.path());
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let directory = directory();
    for mode in [0o770, 0o702, 0o777] {
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode)).unwrap();
        let found = error(directory.path());
        assert!(matches!(found, LogError::Exposed { .. }), "{found}");
        assert!(found.to_string().contains("chmod 700"), "{found}");
    }
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    open(directory.path());
}

#[test]
fn a_new_directory_is_its_owners_alone() {
    let parent = directory();
    let directory = parent.path().join("a/log");
    open(&directory).write(vec![genesis()]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&only_segment(&directory)), 0o600);
}

#[test]
fn a_path_that_is_no_directory_is_an_error_that_names_it() {
    let parent = directory();
    let path = parent.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let found = error(&path).to_string();
    assert!(found.contains(path.to_str().unwrap()), "{found}");
}

#[test]
fn an_overlong_cluster_name_is_refused() {
    let directory = directory();
    let owner = LogOwner { cluster_name: "x".repeat(256), node: NodeId(1) };
    let found = try_open(directory.path(), owner, Arc::new(Kernel)).err().unwrap();
    assert!(matches!(found, LogError::NameTooLong { bytes: 256, bytes_max: 255 }), "{found}");
}

/// Writes down what is done to the disk.
#[derive(Default)]
struct Diary(Mutex<Vec<Deed>>);

#[derive(Debug, PartialEq, Eq)]
enum Deed {
    Write(u64, Vec<u8>),
    Sync,
    SyncDirectory,
}

impl Faults for Diary {
    fn write(&self, file: &dyn Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.lock().unwrap().push(Deed::Write(offset, bytes.to_vec()));
        file.write(bytes, offset)
    }

    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        self.0.lock().unwrap().push(Deed::Sync);
        file.sync()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.0.lock().unwrap().push(Deed::SyncDirectory);
        Kernel.sync_directory(directory)
    }
}

/// A killed process leaves a block that can be read and is not durable; after a failed sync, only
/// writing it again makes it so.
#[test]
fn what_is_read_back_is_durable_before_the_log_is_open() {
    let case = with_last_block(vec![genesis()], vec![accepted(1, b"value")]);
    let diary = Arc::new(Diary::default());
    let log = try_open(case.directory.path(), owner(), faulty(diary.clone())).unwrap();
    assert_eq!(log.recovered.end, LogPosition(2));
    let block = case.after[case.start..case.end].to_vec();
    let wanted = [Deed::Write(case.start as u64, block), Deed::Sync, Deed::SyncDirectory];
    assert_eq!(*diary.0.lock().unwrap(), wanted);
}

/// The repair of a torn tail may be torn itself, at any byte of any of its writes.
#[test]
fn a_torn_repair_of_a_tear_leaves_a_tear() {
    let earlier = vec![genesis()];
    let case = with_last_block(earlier.clone(), vec![accepted(1, &[7; 100])]);
    for cut in case.start + 1..case.end {
        let mut torn = case.after.clone();
        torn[cut..case.end].copy_from_slice(&case.before[cut..case.end]);
        std::fs::write(&case.segment, &torn).unwrap();
        let diary = Arc::new(Diary::default());
        drop(try_open(case.directory.path(), owner(), faulty(diary.clone())).unwrap());
        let mut disk = torn;
        for deed in diary.0.lock().unwrap().iter() {
            let Deed::Write(offset, bytes) = deed else { continue };
            for kept in 0..=bytes.len() {
                let at = *offset as usize;
                disk[at..at + kept].copy_from_slice(&bytes[..kept]);
                std::fs::write(&case.segment, &disk).unwrap();
                let again = open(case.directory.path());
                assert_eq!(again.recovered, replayed(&earlier), "cut at {cut}, then {kept}");
            }
        }
    }
}

/// Lets each sync wait for a word from the test, and counts them.
struct Gate {
    entered: Mutex<Sender<()>>,
    leave: Mutex<Receiver<()>>,
    closed: AtomicBool,
    syncs: AtomicUsize,
}

impl Faults for Gate {
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            self.syncs.fetch_add(1, Ordering::SeqCst);
            self.entered.lock().unwrap().send(()).unwrap();
            // A test that failed leaves nobody to open the gate; its log must still be able to end.
            let _ = self.leave.lock().unwrap().recv_timeout(PATIENCE);
        }
        file.sync()
    }
}

#[test]
fn appends_during_a_sync_share_the_next() {
    let directory = directory();
    let (entered, was_entered) = channel();
    let (may_leave, leave) = channel();
    let gate = Arc::new(Gate {
        entered: Mutex::new(entered),
        leave: Mutex::new(leave),
        closed: AtomicBool::new(false),
        syncs: AtomicUsize::new(0),
    });
    let mut log = try_open(directory.path(), owner(), faulty(gate.clone())).unwrap();
    gate.closed.store(true, Ordering::SeqCst);
    log.append(vec![genesis()]);
    was_entered.recv_timeout(PATIENCE).unwrap();
    for slot in 1..=50 {
        log.append(vec![accepted(slot, b"value"), Record::Chosen(Slot(slot))]);
    }
    // Chosen by others' votes before its own disk has it, an entry is read all the same.
    assert_eq!(log.log.read(Slot(50), Slot(50), 1).unwrap(), [entry(b"value")]);
    assert!(log.events.try_recv().is_err(), "nothing is durable while the sync runs");
    may_leave.send(()).unwrap();
    was_entered.recv_timeout(PATIENCE).unwrap();
    let LogEvent::Durable { position, .. } = log.events.recv_timeout(PATIENCE).unwrap() else {
        panic!("durability is reported");
    };
    assert_eq!(position, LogPosition(1));
    may_leave.send(()).unwrap();
    log.wait_durable(LogPosition(101));
    assert_eq!(gate.syncs.load(Ordering::SeqCst), 2, "fifty appends shared one sync");
    assert_eq!(log.log.read(Slot(50), Slot(50), 1).unwrap(), [entry(b"value")]);
}

/// Has no room while it is told so.
#[derive(Default)]
struct FullDisk {
    full: AtomicBool,
}

impl FullDisk {
    fn check(&self) -> io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Faults for FullDisk {
    fn allocate(&self, file: &dyn Handle, bytes: u64) -> io::Result<()> {
        self.check().and_then(|()| file.allocate(bytes))
    }

    fn write(&self, file: &dyn Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            // As the kernel does, some of it gets through.
            file.write(&bytes[..bytes.len() / 2], offset)?;
        }
        self.check().and_then(|()| file.write(bytes, offset))
    }
}

#[test]
fn a_full_disk_loses_nothing_and_recovers_when_space_returns() {
    let directory = directory();
    let disk = Arc::new(FullDisk::default());
    let mut log = try_open(directory.path(), owner(), faulty(disk.clone())).unwrap();
    let mut records = vec![genesis()];
    log.write(records.clone());
    disk.full.store(true, Ordering::SeqCst);
    for slot in 1..=200 {
        let batch = vec![accepted(slot, &[slot as u8; 400]), Record::Chosen(Slot(slot))];
        records.extend(batch.clone());
        log.append(batch);
    }
    assert_eq!(log.events.recv_timeout(PATIENCE).unwrap(), LogEvent::Full);
    assert_eq!(log.log.read(Slot(200), Slot(200), 1).unwrap(), [entry(&[200; 400])]);
    assert!(log.events.try_recv().is_err(), "nothing becomes durable without room");
    let metrics = log.metrics.clone();
    assert_eq!((metrics.disk_full.get(), metrics.segments.get()), (1, 1));
    assert!(metrics.queued_bytes.get() > 200 * 400);
    disk.full.store(false, Ordering::SeqCst);
    assert_eq!(log.events.recv_timeout(PATIENCE).unwrap(), LogEvent::Room);
    log.wait_durable(LogPosition(records.len() as u64));
    drop(log);
    assert_eq!((metrics.disk_full.get(), metrics.queued_bytes.get()), (0, 0));
    assert_eq!(metrics.records.get(), records.len() as u64);
    assert!(metrics.written_bytes.get() > 200 * 400 && metrics.sync_seconds.count() > 1);
    let again = open(directory.path());
    assert_eq!(again.recovered, replayed(&records));
    // All that does not fit in one segment; opened again, the log finds as many.
    assert!(metrics.segments.get() > 1);
    assert_eq!(again.metrics.segments.get(), metrics.segments.get());
    assert_eq!(again.metrics.records.get(), 0);
}

#[test]
fn a_log_without_room_ends_when_its_node_does_and_keeps_what_was_durable() {
    let directory = directory();
    let disk = Arc::new(FullDisk::default());
    let mut log = try_open(directory.path(), owner(), faulty(disk.clone())).unwrap();
    log.write(vec![genesis()]);
    disk.full.store(true, Ordering::SeqCst);
    log.append(vec![accepted(1, &[1; 400])]);
    assert_eq!(log.events.recv_timeout(PATIENCE).unwrap(), LogEvent::Full);
    drop(log);
    assert_eq!(open(directory.path()).recovered, replayed(&[genesis()]));
}

#[test]
fn a_queue_that_is_too_long_is_reported() {
    let directory = directory();
    let disk = Arc::new(FullDisk::default());
    let (log, _) = open_with(
        directory.path(),
        owner(),
        LogSettings { segment_bytes: 16 << 20 },
        faulty(disk.clone()),
        LogMetrics::default(),
        beat_of(&Watchdog::default(), PATIENCE),
        |_| {},
    )
    .unwrap();
    let mut log = log;
    log.append(vec![genesis()]);
    disk.full.store(true, Ordering::SeqCst);
    assert!(!log.is_full());
    for slot in 1..=65 {
        log.append(vec![accepted(slot, &vec![0; 1 << 20])]);
    }
    assert!(log.is_full());
}
