//! What the chosen entries amount to on this node: a store, if it is a learner, and in any case how
//! far they reach and what time it is.
//!
//! A node that only votes or proposes takes entries in to know their configurations and their time,
//! and keeps no value of them in memory.

use super::driver::StoreView;
use crate::disk::Log;
use crate::disk::engine::MemoryEngine;
use crate::paxos::ballot::{ClusterTime, Slot};
use crate::paxos::message::{Entry, Payload};
use crate::paxos::replica::Replica;
use crate::store::Store;
use crate::store::command::{Command, Operation, Outcome};
use crate::wire::build::Build;
use crate::wire::command::{decode_command, publishes_bundle};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of log read at once while a store is rebuilt.
const LOG_READ_BYTES: usize = 1 << 20;

/// The store cannot be rebuilt from the log.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// What is in it is not what it should be.
    #[error(
        "cannot rebuild the store from the log: {0}; restore this node from its peers under a new \
         voter"
    )]
    Log(String),
    /// It is of a cluster that has gone on.
    #[error(
        "the cluster is at version {version}, and this program runs clusters of version {} to {}; \
         start a newer program here (paxos-ctl deploy puts it back)",
        .runs.0,
        .runs.1
    )]
    Version {
        /// The cluster's.
        version: u16,
        /// What this program runs.
        runs: (u16, u16),
    },
}

/// Trust bundles that are remembered until somebody judges them. More than one, so that what nobody
/// would believe cannot hide what came right before it; a bundle is some kilobytes, and a megabyte
/// at the most.
const BUNDLES_KEPT: usize = 16;

/// A trust bundle that the log brought. Nobody has judged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it came by.
    pub slot: Slot,
    /// What it says its epoch is.
    pub epoch: u64,
    /// Its text.
    pub signed: Bytes,
}

/// See the module's documentation.
pub(super) struct Applied {
    store: Option<Store<MemoryEngine>>,
    slot: Slot,
    time: ClusterTime,
    /// The last trust bundles that came by.
    bundles: Arc<VecDeque<Published>>,
}

impl Applied {
    /// Nothing yet.
    pub(super) fn new(with_store: bool) -> Applied {
        let store = with_store.then(|| Store::new(MemoryEngine::new()));
        let (slot, time) = (Slot(0), ClusterTime(0));
        Applied { store, slot, time, bundles: Arc::default() }
    }

    /// Takes in what the log holds up to `chosen`, and tells the replica of configurations.
    pub(super) fn rebuild<L: Log>(
        &mut self,
        log: &mut L,
        chosen: Slot,
        replica: &mut Replica<Bytes>,
    ) -> Result<(), RebuildError> {
        while self.slot < chosen {
            let next = self.slot.next();
            let entries = log
                .read(next, chosen, LOG_READ_BYTES)
                .map_err(|error| RebuildError::Log(format!("slots from {next}: {error}")))?;
            if entries.is_empty() {
                return Err(RebuildError::Log(format!("slot {next} is chosen but missing")));
            }
            for entry in entries {
                let next = self.slot.next();
                if let Payload::Configuration(configuration) = &entry.payload {
                    replica.recall(next, configuration.clone());
                }
                self.take_in(next, &entry);
                if let Some(version) = self.too_new() {
                    let runs = Build::own().cluster_versions;
                    return Err(RebuildError::Version { version, runs });
                }
            }
        }
        Ok(())
    }

    /// The version that the cluster is at, if this program does not know it yet. A log begins at
    /// the first, so older ones come by.
    fn too_new(&self) -> Option<u16> {
        let version = self.store.as_ref()?.cluster_version();
        (version > Build::own().cluster_versions.1).then_some(version)
    }

    /// Takes in the next slot; answers its command and what became of it, where there is a store to
    /// tell.
    ///
    /// # Panics
    /// When the cluster is raised to a version that this program does not know: what comes next in
    /// the log would be read wrongly, and a process that is started anew says what to do.
    pub(super) fn apply(&mut self, slot: Slot, entry: &Entry<Bytes>) -> Option<(Command, Outcome)> {
        let applied = self.take_in(slot, entry);
        if let Some(version) = self.too_new() {
            panic!("the cluster was raised to version {version}, which this program does not know");
        }
        applied
    }

    fn take_in(&mut self, slot: Slot, entry: &Entry<Bytes>) -> Option<(Command, Outcome)> {
        assert_eq!(slot, self.slot.next(), "slots are applied in order and without gaps");
        self.slot = slot;
        self.time = self.time.max(entry.stamp);
        let command = match &entry.payload {
            // A command that this version cannot read is one that no version could write: the codec
            // of its origin checked it. It changes nothing, on any node alike.
            Payload::Command(bytes) if self.store.is_some() || publishes_bundle(bytes) => {
                decode_command(bytes).ok()
            }
            _ => None,
        };
        if let Some(Operation::PublishBundle { epoch, signed }) =
            command.as_ref().map(|command| &command.operation)
        {
            let bundles = Arc::make_mut(&mut self.bundles);
            // Not a slice of the entry, which would be kept with it.
            let (epoch, signed) = (*epoch, Bytes::copy_from_slice(signed));
            bundles.push_back(Published { slot, epoch, signed });
            if bundles.len() > BUNDLES_KEPT {
                bundles.pop_front();
            }
        }
        let store = self.store.as_mut()?;
        let outcome = store.apply(slot, entry.stamp, command.as_ref());
        command.zip(outcome)
    }

    /// The last slot taken in.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// The last trust bundles that came by, in their order.
    pub(super) fn bundles(&self) -> &Arc<VecDeque<Published>> {
        &self.bundles
    }

    /// The largest stamp so far.
    pub(super) fn time(&self) -> ClusterTime {
        self.time
    }

    /// The store, on a learner.
    pub(super) fn store(&self) -> Option<&Store<MemoryEngine>> {
        self.store.as_ref()
    }

    /// The store as it is now, for readers.
    pub(super) fn view(&self) -> Option<StoreView> {
        self.store.as_ref().map(Store::view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::command::SessionId;
    use crate::wire::command::encode_command;

    fn entry(operation: Operation) -> Entry<Bytes> {
        let command = Command {
            session: SessionId::NONE,
            sequence: 1,
            acknowledged_below: 0,
            principal: "operator".to_owned(),
            request_id: None,
            operation,
        };
        Entry { payload: Payload::Command(encode_command(&command)), ..Entry::noop() }
    }

    #[test]
    fn bundles_come_by_whether_or_not_there_is_a_store() {
        for with_store in [true, false] {
            let mut applied = Applied::new(with_store);
            let mut slot = Slot(0);
            let mut publish = |applied: &mut Applied, epoch: u64| {
                slot = slot.next();
                let signed = Bytes::from(format!("signed {epoch}"));
                applied.apply(slot, &entry(Operation::PublishBundle { epoch, signed }));
                applied.apply(slot.next(), &entry(Operation::CloseSession));
                slot = slot.next();
                applied.bundles().iter().map(|one| one.epoch).collect::<Vec<_>>()
            };
            assert_eq!(publish(&mut applied, 4), [4]);
            // Whoever claims most may be nobody that one believes.
            assert_eq!(publish(&mut applied, u64::MAX), [4, u64::MAX]);
            assert_eq!(publish(&mut applied, 5), [4, u64::MAX, 5]);
            for epoch in 6..6 + BUNDLES_KEPT as u64 {
                publish(&mut applied, epoch);
            }
            assert_eq!(applied.bundles().len(), BUNDLES_KEPT);
            assert_eq!(applied.bundles()[0].epoch, 6);
        }
    }
}
