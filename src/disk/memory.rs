//! A log without a disk, for the simulator and for tests.
//!
//! [`MemoryDisk`] is what outlives a crash; [`MemoryLog`] is one run of a process over it. Nothing
//! becomes durable by itself: the test says when and how much, and what a crash leaves behind.

use super::index::SlotIndex;
use super::{Log, LogError, command_bytes};
use crate::paxos::ballot::Slot;
use crate::paxos::message::Entry;
use crate::paxos::record::{LogPosition, Record, Recovered, ReplayError};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The records, durable or not. Clones are handles of one disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record<Bytes>>,
    durable: usize,
    full: bool,
    /// How often it was opened; only the newest log may use it.
    life: u64,
}

/// A [`Log`] over a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryLog {
    disk: MemoryDisk,
    life: u64,
    index: SlotIndex<Arc<Entry<Bytes>>>,
}

impl MemoryDisk {
    /// An empty one.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Starts a process over what is there. Records that were not durable are lost, as after
    /// [`MemoryDisk::crash`] with nothing kept.
    ///
    /// # Errors
    /// When the records contradict each other.
    pub fn open(&self) -> Result<(MemoryLog, Recovered<Bytes>), ReplayError> {
        self.crash(0);
        let mut state = self.state();
        state.life += 1;
        let mut recovered = Recovered::default();
        let mut index = SlotIndex::new();
        for record in &state.records {
            recovered.replay(record.clone())?;
            index.note(record, Arc::clone);
        }
        let log = MemoryLog { disk: self.clone(), life: state.life, index };
        Ok((log, recovered))
    }

    /// Makes everything durable that was appended, and says how far that is.
    pub fn sync(&self) -> LogPosition {
        let mut state = self.state();
        state.durable = state.records.len();
        LogPosition(state.durable as u64)
    }

    /// How many records a crash may take.
    pub fn unsynced(&self) -> usize {
        let state = self.state();
        state.records.len() - state.durable
    }

    /// The process ends. Of the records that were not durable the first `kept` happen to be on the
    /// disk.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state();
        let left = (state.durable + kept).min(state.records.len());
        state.records.truncate(left);
        state.durable = left;
        state.life += 1;
    }

    /// Whether [`Log::is_full`] says yes.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryLog {
    /// # Panics
    /// When the disk was crashed or opened anew since: the process that owns this log is dead.
    fn append(&mut self, records: Vec<Record<Bytes>>) {
        let mut state = self.disk.state();
        assert_eq!(state.life, self.life, "a dead process appends to its log");
        for record in records {
            self.index.note(&record, Arc::clone);
            state.records.push(record);
        }
    }

    /// Does nothing: the test decides when a sync happens.
    fn sync(&mut self) {}

    fn is_full(&self) -> bool {
        self.disk.state().full
    }

    fn read(
        &mut self,
        first: Slot,
        last: Slot,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Entry<Bytes>>>, LogError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut slot = first;
        while slot <= last.min(self.index.chosen()) {
            let entry = self.index.get_chosen(slot).ok_or(LogError::Missing { slot })?;
            bytes += command_bytes(entry);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
            slot = slot.next();
        }
        if entries.is_empty() {
            return Err(LogError::Missing { slot: first });
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::{
        Ballot, ClusterId, NodeId, ProposalNumber, ProposerId, VoterGeneration,
    };
    use crate::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
    use crate::paxos::quorum::QuorumSystem;
    use std::collections::BTreeMap;

    fn genesis() -> Record<Bytes> {
        let proposer = Some(ProposerId::new(1).unwrap());
        let roles = Roles { proposer, acceptor: Some(VoterGeneration(1)), learner: true };
        let member = Member { name: "node1".into(), address: "a:1".into(), roles };
        let members = BTreeMap::from([(NodeId(1), member)]);
        let quorums = QuorumSystem::majority(1).unwrap();
        let configuration = Configuration::new(ConfigurationNumber(1), members, quorums).unwrap();
        let genesis = Genesis { cluster: ClusterId(1), configuration, window: 10 };
        Record::Genesis { genesis, generation: None }
    }

    fn promised(number: u64) -> Record<Bytes> {
        let number = ProposalNumber::from_raw(number);
        Record::Promised(Ballot { number, ..Ballot::ZERO })
    }

    fn learned(slot: u64) -> Record<Bytes> {
        Record::Learned { slot: Slot(slot), entry: Arc::new(Entry::noop()) }
    }

    #[test]
    fn a_crash_takes_what_was_not_synced() {
        let disk = MemoryDisk::new();
        let (mut log, recovered) = disk.open().unwrap();
        assert_eq!(recovered, Recovered::default());
        log.append(vec![genesis(), promised(101)]);
        assert_eq!((disk.unsynced(), disk.sync()), (2, LogPosition(2)));
        log.append(vec![promised(201), promised(301), promised(401)]);
        disk.crash(1);
        let (_, recovered) = disk.open().unwrap();
        assert_eq!(recovered.promised.number.value(), 201);
        assert_eq!(recovered.end, LogPosition(3));
    }

    #[test]
    fn what_was_not_synced_can_be_read_but_is_gone_after_a_start() {
        let disk = MemoryDisk::new();
        let (mut log, _) = disk.open().unwrap();
        log.append(vec![genesis(), learned(1), learned(2)]);
        assert!(log.read(Slot(1), Slot(2), 0).is_err(), "it is not known to be chosen yet");
        log.append(vec![Record::Chosen(Slot(2))]);
        assert_eq!(log.read(Slot(1), Slot(9), usize::MAX).unwrap().len(), 2);
        let (mut log, recovered) = disk.open().unwrap();
        assert_eq!(recovered, Recovered::default());
        assert!(log.read(Slot(1), Slot(2), 0).is_err());
    }

    #[test]
    #[should_panic(expected = "a dead process appends")]
    fn a_dead_process_cannot_append() {
        let disk = MemoryDisk::new();
        let (mut log, _) = disk.open().unwrap();
        disk.crash(0);
        log.append(vec![genesis()]);
    }
}
