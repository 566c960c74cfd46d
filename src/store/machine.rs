//! The store: applies chosen slots, one after the other.

use super::command::{Command, Condition, Operation, Outcome, SessionId};
use super::draft::Draft;
use super::engine::{Engine, ReadEngine, Space};
use super::rows::{
    BUNDLE_KEY, META_KEY, Meta, Session, decode_bundle, decode_key_value, decode_number,
    decode_outcome, encode_bundle, encode_key_value, nonce_key, pair_key, session_key,
};
use super::view::{KeyValue, View};
use crate::paxos::ballot::{ClusterTime, Slot};
use bytes::Bytes;

/// The replicated state, in an engine.
#[derive(Debug)]
pub struct Store<E> {
    engine: E,
    meta: Meta,
}

impl<E: Engine> Store<E> {
    /// Goes on where the engine is.
    ///
    /// # Panics
    /// When the engine holds something that no store wrote.
    pub fn new(engine: E) -> Store<E> {
        let row = engine.get(Space::Meta, &META_KEY);
        let meta = row.map_or_else(Meta::default, |row| Meta::decode(&row));
        assert_eq!(
            meta.applied,
            engine.applied(),
            "the engine and its data are at different slots"
        );
        Store { engine, meta }
    }

    /// The last slot that was applied; 0 before the first.
    pub fn applied(&self) -> Slot {
        self.meta.applied
    }

    /// How many changes to keys were made since genesis.
    pub fn revision(&self) -> u64 {
        self.meta.revision
    }

    /// The version that the cluster is at.
    pub fn cluster_version(&self) -> u16 {
        self.meta.cluster_version
    }

    /// The trust bundle that was published last, and what it says its epoch is. Nobody has judged
    /// it.
    pub fn bundle(&self) -> Option<(u64, Bytes)> {
        self.engine.get(Space::Meta, &BUNDLE_KEY).map(decode_bundle)
    }

    /// The largest stamp so far.
    pub fn time(&self) -> ClusterTime {
        self.meta.time
    }

    /// Covers everything that was ever applied; equal at equal slots on every node.
    pub fn digest(&self) -> u64 {
        self.meta.digest
    }

    /// The session that this principal opened under this nonce, if it is still open.
    pub fn session_of(&self, principal: &str, nonce: u128) -> Option<SessionId> {
        let row = self.engine.get(Space::Nonces, &nonce_key(nonce, principal))?;
        Some(SessionId(decode_number(&row)))
    }

    /// What became of a command of this principal's session, while that is remembered.
    pub fn outcome(&self, principal: &str, id: SessionId, sequence: u64) -> Option<Outcome> {
        let session = Session::decode(self.engine.get(Space::Sessions, &session_key(id))?);
        let key = pair_key(id.0, sequence);
        let row = self.engine.get(Space::Outcomes, &key).filter(|_| session.principal == principal);
        row.map(|row| decode_outcome(&row))
    }

    /// The state as it is now.
    pub fn view(&self) -> View<E::Snapshot> {
        View::new(self.engine.snapshot(), self.meta)
    }

    /// Applies the next slot. `command` is none for a slot without one, and for one that cannot be
    /// decoded: time passes all the same. The outcome is none exactly if the command is.
    ///
    /// # Panics
    /// When the slot is not the next one.
    pub fn apply(
        &mut self,
        slot: Slot,
        stamp: ClusterTime,
        command: Option<&Command>,
    ) -> Option<Outcome> {
        assert_eq!(slot, self.meta.applied.next(), "slots are applied in order and without gaps");
        let mut draft = Draft::new(&self.engine, self.meta);
        draft.meta.time = draft.meta.time.max(stamp);
        // First what time does, then what the command does: whoever comes too late has come too
        // late.
        draft.expire_sessions();
        let outcome = command.map(|command| draft.run(slot, command));
        let (batch, meta) = draft.finish(slot);
        self.engine.commit(batch);
        self.meta = meta;
        outcome
    }
}

impl<E: ReadEngine> Draft<'_, E> {
    fn run(&mut self, slot: Slot, command: &Command) -> Outcome {
        if let Operation::OpenSession { nonce } = command.operation {
            return self.open_session(slot, &command.principal, nonce);
        }
        self.once(slot, command, |draft| match &command.operation {
            Operation::OpenSession { .. } => unreachable!("opening needs no session, see above"),
            Operation::CloseSession => {
                draft.end_session(command.session);
                Outcome::SessionClosed
            }
            Operation::Put { key, value, condition } => draft.put_key(key, value, condition),
            Operation::Delete { key, condition } => draft.delete_key(key, condition),
            Operation::RaiseVersion { to } => {
                if draft.meta.cluster_version.checked_add(1) == Some(*to) {
                    draft.meta.cluster_version = *to;
                }
                Outcome::ClusterVersion(draft.meta.cluster_version)
            }
            Operation::PublishBundle { epoch, signed } => draft.publish_bundle(*epoch, signed),
        })
    }

    fn put_key(&mut self, key: &Bytes, value: &Bytes, condition: &Condition) -> Outcome {
        let current = self.get(Space::Keys, key).map(decode_key_value);
        if !holds(condition, current.as_ref()) {
            return Outcome::ConditionFailed { revision: current.map(|found| found.mod_revision) };
        }
        self.meta.revision += 1;
        let revision = self.meta.revision;
        let (create_revision, version) = match &current {
            Some(found) => (found.create_revision, found.version + 1),
            None => (revision, 1),
        };
        self.meta.keys += u64::from(current.is_none());
        let value = value.clone();
        let row = KeyValue { value, create_revision, mod_revision: revision, version };
        self.put(Space::Keys, key.clone(), encode_key_value(&row));
        Outcome::Put { revision }
    }

    fn publish_bundle(&mut self, epoch: u64, signed: &Bytes) -> Outcome {
        self.put(Space::Meta, BUNDLE_KEY, encode_bundle(epoch, signed));
        Outcome::BundleEpoch(epoch)
    }

    fn delete_key(&mut self, key: &Bytes, condition: &Condition) -> Outcome {
        let current = self.get(Space::Keys, key).map(decode_key_value);
        if !holds(condition, current.as_ref()) {
            return Outcome::ConditionFailed { revision: current.map(|found| found.mod_revision) };
        }
        if current.is_none() {
            return Outcome::NotFound;
        }
        self.meta.revision += 1;
        self.meta.keys -= 1;
        self.delete(Space::Keys, key.clone());
        Outcome::Deleted { revision: self.meta.revision }
    }
}

/// Whether the condition holds of what the key holds now. Revision 0 is that of a key that does not
/// exist.
fn holds(condition: &Condition, current: Option<&KeyValue>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => current.is_none(),
        Condition::Value(_) if planted!(ConditionIgnored) => true,
        Condition::Value(value) => current.is_some_and(|found| found.value == *value),
        Condition::Revision(revision) => current.map_or(0, |found| found.mod_revision) == *revision,
    }
}
