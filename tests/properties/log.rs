//! The log against a list of records: whatever is appended, however far the writer gets, and
//! whenever the process is killed or the power goes, what comes back is a first part of the list
//! that holds at least what was reported as durable.

use crate::power_disk::PowerDisk;
use crate::replicas;
use bytes::Bytes;
use paxos_ssh::disk::log::{DiskLog, LogSettings, open_stepped};
use paxos_ssh::disk::writer::{Step, Writer};
use paxos_ssh::disk::{Log, LogOwner, watched};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::Genesis;
use paxos_ssh::paxos::message::{Entry, Payload, Vote};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::telemetry::metrics::LogMetrics;
use paxos_ssh::telemetry::watchdog::Watchdog;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The smallest there are, so that histories cross them.
const SETTINGS: LogSettings = LogSettings { segment_bytes: 8 * 1024 };

/// What happens to a log.
#[derive(Debug, Clone)]
enum Deed {
    /// Records are handed over, made of these draws.
    Append(Vec<(u8, u8, usize)>),
    /// The writer takes so many steps.
    Steps(u8),
    /// The writer gets everything done.
    Settle,
    /// A new segment is prepared beforehand, if it is time for that.
    Prepare,
    /// The process is killed; the files stay as they are.
    Kill,
    /// The power goes; these draws say what arrived.
    PowerCut(Vec<u16>),
    /// Everything that can be read is read.
    Read,
}

fn deed() -> impl Strategy<Value = Deed> {
    let record = (any::<u8>(), any::<u8>(), prop_oneof![4 => 0..40usize, 1 => 0..2500usize]);
    prop_oneof![
        8 => vec(record, 1..6).prop_map(Deed::Append),
        4 => (1..8u8).prop_map(Deed::Steps),
        3 => Just(Deed::Settle),
        1 => Just(Deed::Prepare),
        2 => Just(Deed::Kill),
        2 => vec(any::<u16>(), 0..12).prop_map(Deed::PowerCut),
        1 => Just(Deed::Read),
    ]
}

/// The list, and how far it is known to be safe.
#[derive(Default)]
struct Model {
    records: Vec<Record<Bytes>>,
    durable: usize,
}

impl Model {
    fn replayed(&self, count: usize) -> Recovered<Bytes> {
        let mut recovered = Recovered::default();
        for record in &self.records[..count] {
            recovered.replay(record.clone()).unwrap();
        }
        recovered
    }

    /// A record that follows from those before it.
    fn next(&self, (kind, number, bytes): (u8, u8, usize)) -> Record<Bytes> {
        let state = self.replayed(self.records.len());
        if state.genesis.is_none() {
            let configuration =
                replicas::configuration(&[1], &[1], QuorumSystem::majority(1).unwrap());
            let genesis = Genesis { cluster: ClusterId(5), configuration, window: 100 };
            return Record::Genesis { genesis, generation: Some(replicas::generation(1)) };
        }
        let payload = Payload::Command(Bytes::from(vec![number; bytes]));
        let entry = Arc::new(Entry { stamp: ClusterTime(u64::from(kind)), payload });
        let slot = Slot((state.chosen.0 + u64::from(number % 5)).max(1));
        let step = u64::from(kind >> 4);
        let higher = ProposalNumber::from_raw(state.promised.number.value() + step);
        let ballot = Ballot { number: higher, ..state.promised };
        match kind % 5 {
            0 => Record::Promised(ballot),
            1 => Record::Accepted(Vote { slot, ballot, entry }),
            2 => Record::Learned { slot, entry },
            3 => {
                let known = |slot: Slot| {
                    state.votes.contains_key(&slot) || state.learned.contains_key(&slot)
                };
                let mut last = state.chosen;
                while known(Slot(last.0 + 1)) {
                    last = last.next();
                }
                Record::Chosen(last)
            }
            _ => Record::Floor(Slot(u64::from(number))),
        }
    }

    /// The chosen values: what was learned, else what was accepted last, before the slot was
    /// chosen.
    fn chosen(&self) -> Vec<Arc<Entry<Bytes>>> {
        let (mut votes, mut learned, mut chosen) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for record in &self.records {
            match record {
                Record::Accepted(vote) => _ = votes.insert(vote.slot, vote.entry.clone()),
                Record::Learned { slot, entry } => _ = learned.insert(*slot, entry.clone()),
                Record::Chosen(up_to) => {
                    for slot in (chosen.len() as u64 + 1..=up_to.0).map(Slot) {
                        chosen.push(learned.get(&slot).unwrap_or_else(|| &votes[&slot]).clone());
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
}

fn open(disk: &PowerDisk) -> (DiskLog, Writer, Recovered<Bytes>) {
    let owner = LogOwner { cluster_name: "test".into(), node: NodeId(1) };
    let beat = Watchdog::default().watch(watched());
    let (storage, metrics) = (Arc::new(disk.clone()), LogMetrics::default());
    open_stepped(Path::new("log"), owner, SETTINGS, storage, metrics, beat)
        .unwrap_or_else(|error| panic!("nothing was damaged: {error}"))
}

/// Takes a step; says whether there was something to do.
fn step(writer: &mut Writer, model: &mut Model) -> bool {
    match writer.step().unwrap() {
        Step::Idle => return false,
        Step::Durable(position) => model.durable = position.0 as usize,
        Step::Written | Step::SegmentFull | Step::Rotated => {}
        Step::NoRoom => panic!("there is room"),
    }
    true
}

fn check_reads(log: &mut DiskLog, model: &Model) -> Result<(), TestCaseError> {
    let chosen = model.chosen();
    let mut slot = Slot(1);
    while slot.0 <= chosen.len() as u64 {
        let read = log.read(slot, Slot(u64::MAX), 1000).unwrap();
        prop_assert!(!read.is_empty());
        for entry in read {
            prop_assert_eq!(&entry, &chosen[slot.0 as usize - 1], "slot {}", slot);
            slot = slot.next();
        }
    }
    prop_assert!(log.read(slot, slot, 1000).is_err(), "slot {} is not chosen", slot);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_was_durable_comes_back_and_nothing_else(deeds in vec(deed(), 1..40)) {
        let disk = PowerDisk::default();
        let mut model = Model::default();
        let (mut log, mut writer, _) = open(&disk);
        for deed in deeds {
            match deed {
                Deed::Append(draws) => {
                    let mut records = Vec::new();
                    for draw in draws {
                        let record = model.next(draw);
                        model.records.push(record.clone());
                        records.push(record);
                    }
                    log.append(records);
                    log.sync();
                }
                Deed::Steps(count) => {
                    for _ in 0..count {
                        step(&mut writer, &mut model);
                    }
                }
                Deed::Settle => {
                    while step(&mut writer, &mut model) {}
                    prop_assert_eq!(model.durable, model.records.len());
                }
                Deed::Prepare => {
                    if let Some(prepare) = writer.preparation() {
                        writer.provide(prepare().unwrap());
                    }
                }
                Deed::Read => check_reads(&mut log, &model)?,
                Deed::Kill | Deed::PowerCut(_) => {
                    drop(log);
                    if let Deed::PowerCut(draws) = deed {
                        let mut draws = draws.into_iter();
                        disk.cut_power(|| draws.next().unwrap_or(0));
                    }
                    let recovered;
                    (log, writer, recovered) = open(&disk);
                    let count = recovered.end.0 as usize;
                    prop_assert!(model.durable <= count, "{} of {}", count, model.durable);
                    prop_assert!(count <= model.records.len());
                    prop_assert_eq!(&recovered, &model.replayed(count));
                    // What was read once will not go away any more.
                    model.records.truncate(count);
                    model.durable = count;
                }
            }
        }
        check_reads(&mut log, &model)?;
    }
}
