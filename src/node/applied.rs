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
use crate::transport::succession::Published;
use crate::wire::build::Build;
use crate::wire::command::{decode_command, publishes_bundle};
use bytes::Bytes;

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

/// Judges the trust bundles that come by, in their order: what they claim as epoch, and their text.
pub type Judge = Box<dyn FnMut(u64, &[u8]) -> Option<Published> + Send>;

/// See the module's documentation.
pub(super) struct Applied {
    store: Option<Store<MemoryEngine>>,
    slot: Slot,
    time: ClusterTime,
    judge: Judge,
    /// The newest trust bundle that was believed, until somebody takes it.
    bundle: Option<Published>,
}

impl Applied {
    /// Nothing yet.
    pub(super) fn new(with_store: bool, judge: Judge) -> Applied {
        let store = with_store.then(|| Store::new(MemoryEngine::new()));
        let (slot, time) = (Slot(0), ClusterTime(0));
        Applied { store, slot, time, judge, bundle: None }
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
            && let Some(believed) = (self.judge)(*epoch, signed)
        {
            self.bundle = Some(believed);
        }
        let store = self.store.as_mut()?;
        let outcome = store.apply(slot, entry.stamp, command.as_ref());
        command.zip(outcome)
    }

    /// The last slot taken in.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// The newest trust bundle, if one came by since the last call.
    pub(super) fn take_bundle(&mut self) -> Option<Published> {
        self.bundle.take()
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
    fn bundles_are_judged_in_their_order_whether_or_not_there_is_a_store() {
        for with_store in [true, false] {
            let (sender, judged) = std::sync::mpsc::sync_channel(8);
            let judge: Judge = Box::new(move |epoch, signed: &[u8]| {
                sender.try_send((epoch, signed.to_vec())).unwrap();
                None
            });
            let mut applied = Applied::new(with_store, judge);
            for (slot, epoch) in (1..).zip([4, u64::MAX, 5]) {
                let signed = Bytes::from_static(b"signed");
                let publish = entry(Operation::PublishBundle { epoch, signed });
                applied.apply(Slot(2 * slot - 1), &publish);
                applied.apply(Slot(2 * slot), &entry(Operation::CloseSession));
            }
            assert!(applied.take_bundle().is_none(), "none was believed");
            let epochs: Vec<u64> = judged.try_iter().map(|(epoch, _)| epoch).collect();
            assert_eq!(epochs, [4, u64::MAX, 5]);
        }
    }
}
