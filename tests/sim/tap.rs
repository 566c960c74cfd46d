//! A log that lets the checks see every record on its way to the disk, whatever disk that is.

use bytes::Bytes;
use paxos_ssh::disk::{Log, LogError};
use paxos_ssh::paxos::ballot::Slot;
use paxos_ssh::paxos::message::Entry;
use paxos_ssh::paxos::record::Record;
use std::sync::{Arc, Mutex};

/// Records that were appended and that nobody has looked at yet.
pub type Appended = Arc<Mutex<Vec<Record<Bytes>>>>;

/// See the module's documentation.
pub struct Tap<L> {
    log: L,
    appended: Appended,
}

impl<L> Tap<L> {
    pub fn new(log: L, appended: Appended) -> Tap<L> {
        Tap { log, appended }
    }
}

impl<L: Log> Log for Tap<L> {
    fn append(&mut self, records: Vec<Record<Bytes>>) {
        self.appended.lock().unwrap().extend(records.iter().cloned());
        self.log.append(records);
    }

    fn sync(&mut self) {
        self.log.sync();
    }

    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn read(
        &mut self,
        first: Slot,
        last: Slot,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Entry<Bytes>>>, LogError> {
        self.log.read(first, last, bytes_max)
    }
}
