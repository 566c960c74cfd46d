//! The store against a dumb model, and its rules one by one.

use bytes::Bytes;
use paxos_ssh::disk::engine::MemoryEngine;
use paxos_ssh::paxos::ballot::{ClusterTime, Slot};
use paxos_ssh::store::command::*;
use paxos_ssh::store::sessions::{REQUEST_IDS_MAX, SESSION_TTL, SESSIONS_MAX};
use paxos_ssh::store::{KeyValue, Store};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A store that is fed slot after slot.
struct Fed {
    store: Store<MemoryEngine>,
    now: u64,
}

impl Fed {
    fn new() -> Fed {
        Fed { store: Store::new(MemoryEngine::new()), now: 0 }
    }

    fn apply(&mut self, command: Option<&Command>) -> Option<Outcome> {
        let slot = self.store.applied().next();
        self.store.apply(slot, ClusterTime(self.now), command)
    }

    fn run(&mut self, command: &Command) -> Outcome {
        self.apply(Some(command)).expect("a command has an outcome")
    }

    fn open(&mut self, principal: &str, nonce: u128) -> SessionId {
        match self.run(&open(principal, nonce)) {
            Outcome::SessionOpened(id) => id,
            other => panic!("the session did not open: {other:?}"),
        }
    }

    fn get(&self, key: &str) -> Option<KeyValue> {
        self.store.view().get(key.as_bytes())
    }
}

fn open(principal: &str, nonce: u128) -> Command {
    command(SessionId::NONE, 0, principal, Operation::OpenSession { nonce })
}

fn command(session: SessionId, sequence: u64, principal: &str, operation: Operation) -> Command {
    let principal = principal.to_owned();
    let (acknowledged_below, request_id) = (0, None);
    Command { session, sequence, acknowledged_below, principal, request_id, operation }
}

fn put_if(key: &str, value: &str, condition: Condition) -> Operation {
    Operation::Put { key: key.to_owned().into(), value: value.to_owned().into(), condition }
}

fn put(key: &str, value: &str) -> Operation {
    put_if(key, value, Condition::Always)
}

fn delete_if(key: &str, condition: Condition) -> Operation {
    Operation::Delete { key: key.to_owned().into(), condition }
}

fn alice(session: SessionId, sequence: u64, operation: Operation) -> Command {
    command(session, sequence, "alice", operation)
}

#[test]
fn revisions_count_changes_and_versions_count_puts() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    assert_eq!(fed.store.revision(), 0);
    assert_eq!(fed.run(&alice(id, 0, put("k", "one"))), Outcome::Put { revision: 1 });
    assert_eq!(fed.run(&alice(id, 1, put("other", "x"))), Outcome::Put { revision: 2 });
    assert_eq!(fed.run(&alice(id, 2, put("k", "two"))), Outcome::Put { revision: 3 });
    let expected =
        KeyValue { value: "two".into(), create_revision: 1, mod_revision: 3, version: 2 };
    assert_eq!(fed.get("k"), Some(expected));
    assert_eq!(
        fed.run(&alice(id, 3, delete_if("k", Condition::Always))),
        Outcome::Deleted { revision: 4 }
    );
    assert_eq!(fed.run(&alice(id, 4, delete_if("k", Condition::Always))), Outcome::NotFound);
    assert_eq!(fed.get("k"), None);
    assert_eq!(fed.run(&alice(id, 5, put("k", "three"))), Outcome::Put { revision: 5 });
    let expected =
        KeyValue { value: "three".into(), create_revision: 5, mod_revision: 5, version: 1 };
    assert_eq!(fed.get("k"), Some(expected));
    assert_eq!((fed.store.view().count(), fed.store.revision()), (2, 5));
}

#[test]
fn conditions_hold_or_fail_with_the_current_revision() {
    use Condition::{Absent, Revision, Value};
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    let mut sequence = 0;
    let mut run = |fed: &mut Fed, operation| {
        sequence += 1;
        fed.run(&alice(id, sequence, operation))
    };
    let failed = |revision| Outcome::ConditionFailed { revision };
    assert_eq!(run(&mut fed, put_if("k", "a", Value("".into()))), failed(None));
    assert_eq!(run(&mut fed, put_if("k", "a", Revision(1))), failed(None));
    assert_eq!(run(&mut fed, put_if("k", "a", Absent)), Outcome::Put { revision: 1 });
    assert_eq!(run(&mut fed, put_if("k", "b", Absent)), failed(Some(1)));
    assert_eq!(run(&mut fed, put_if("k", "b", Revision(0))), failed(Some(1)));
    assert_eq!(run(&mut fed, put_if("k", "b", Value("b".into()))), failed(Some(1)));
    assert_eq!(run(&mut fed, put_if("k", "b", Value("a".into()))), Outcome::Put { revision: 2 });
    assert_eq!(run(&mut fed, put_if("k", "c", Revision(2))), Outcome::Put { revision: 3 });
    assert_eq!(run(&mut fed, delete_if("k", Revision(2))), failed(Some(3)));
    assert_eq!(run(&mut fed, delete_if("k", Absent)), failed(Some(3)));
    assert_eq!(run(&mut fed, delete_if("k", Value("c".into()))), Outcome::Deleted { revision: 4 });
    assert_eq!(run(&mut fed, delete_if("k", Value("c".into()))), failed(None));
    assert_eq!(run(&mut fed, delete_if("k", Absent)), Outcome::NotFound);
    assert_eq!(run(&mut fed, put_if("k", "d", Revision(0))), Outcome::Put { revision: 5 });
    assert_eq!(fed.get("k").unwrap().value, "d");
}

#[test]
fn a_duplicate_finds_the_first_outcome() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    let once = alice(id, 7, put_if("k", "v", Condition::Absent));
    assert_eq!(fed.run(&once), Outcome::Put { revision: 1 });
    assert_eq!(fed.run(&once), Outcome::Put { revision: 1 });
    let failing = alice(id, 3, put_if("k", "w", Condition::Absent));
    assert_eq!(fed.run(&failing), Outcome::ConditionFailed { revision: Some(1) });
    assert_eq!(
        fed.run(&alice(id, 8, delete_if("k", Condition::Always))),
        Outcome::Deleted { revision: 2 }
    );
    assert_eq!(fed.run(&failing), Outcome::ConditionFailed { revision: Some(1) });
    assert_eq!(fed.get("k"), None);
}

#[test]
fn opening_twice_with_one_nonce_opens_once() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    assert_eq!(fed.open("alice", 1), id);
    assert_ne!(fed.open("alice", 2), id);
    assert_ne!(fed.open("bob", 1), id, "a nonce is its principal's own");
    assert_eq!(fed.store.view().sessions(), 3);
}

#[test]
fn a_session_answers_to_its_principal_only() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    assert_eq!(fed.run(&command(id, 0, "bob", put("k", "v"))), Outcome::SessionUnknown);
    assert_eq!(fed.run(&command(id, 0, "bob", Operation::CloseSession)), Outcome::SessionUnknown);
    assert_eq!(fed.run(&alice(SessionId::NONE, 0, put("k", "v"))), Outcome::SessionUnknown);
    assert_eq!(fed.run(&alice(SessionId(99), 0, put("k", "v"))), Outcome::SessionUnknown);
    assert_eq!(fed.store.revision(), 0);
    assert_eq!(fed.run(&alice(id, 0, put("k", "v"))), Outcome::Put { revision: 1 });
}

#[test]
fn a_closed_session_executes_nothing_and_leaves_nothing() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    fed.run(&alice(id, 0, put("k", "v")));
    assert_eq!(fed.run(&alice(id, 1, Operation::CloseSession)), Outcome::SessionClosed);
    assert_eq!(fed.run(&alice(id, 1, Operation::CloseSession)), Outcome::SessionUnknown);
    assert_eq!(fed.run(&alice(id, 0, put("k", "v"))), Outcome::SessionUnknown);
    assert_eq!(fed.store.view().sessions(), 0);
    assert_ne!(fed.open("alice", 1), id, "its nonce went with it");
}

#[test]
fn what_was_acknowledged_is_refused_not_executed() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    fed.run(&alice(id, 0, put("k", "v")));
    let acknowledging = Command { acknowledged_below: 5, ..alice(id, 5, put("k", "w")) };
    assert_eq!(fed.run(&acknowledging), Outcome::Put { revision: 2 });
    for sequence in 0..5 {
        let late = alice(id, sequence, put("k", "late"));
        assert_eq!(fed.run(&late), Outcome::SequenceAcknowledged);
    }
    assert_eq!(fed.run(&acknowledging), Outcome::Put { revision: 2 });
    let nonsense = Command { acknowledged_below: 9, ..alice(id, 8, put("k", "x")) };
    assert_eq!(fed.run(&nonsense), Outcome::SequenceAcknowledged);
    assert_eq!(fed.store.revision(), 2);
}

#[test]
fn a_window_that_is_full_opens_by_acknowledging() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    let window = SESSION_WINDOW as u64;
    assert_eq!(fed.run(&alice(id, window - 1, put("k", "v"))), Outcome::Put { revision: 1 });
    let ahead = alice(id, window, put("k", "w"));
    assert_eq!(fed.run(&ahead), Outcome::WindowFull);
    assert_eq!(fed.run(&alice(id, u64::MAX, put("k", "w"))), Outcome::WindowFull);
    let acknowledging = Command { acknowledged_below: 1, ..ahead };
    assert_eq!(fed.run(&acknowledging), Outcome::Put { revision: 2 });
}

#[test]
fn an_absurd_acknowledgement_harms_only_its_own_session() {
    let mut fed = Fed::new();
    let (mine, other) = (fed.open("alice", 1), fed.open("alice", 2));
    fed.run(&alice(mine, 0, put("k", "v")));
    let absurd = Command { acknowledged_below: u64::MAX, ..alice(mine, 1, put("k", "w")) };
    assert_eq!(fed.run(&absurd), Outcome::SequenceAcknowledged);
    let last = Command { acknowledged_below: u64::MAX, ..alice(mine, u64::MAX, put("k", "w")) };
    assert_eq!(fed.run(&last), Outcome::Put { revision: 2 });
    assert_eq!(fed.run(&last), Outcome::Put { revision: 2 });
    assert_eq!(fed.run(&alice(other, 0, put("k", "x"))), Outcome::Put { revision: 3 });
    assert_eq!(fed.run(&alice(mine, 2, Operation::CloseSession)), Outcome::SequenceAcknowledged);
}

#[test]
fn a_retry_by_hand_finds_the_outcome_under_another_session() {
    let mut fed = Fed::new();
    let (first, second) = (fed.open("alice", 1), fed.open("alice", 2));
    let named = |session, sequence, value| Command {
        request_id: Some("deploy-7".into()),
        ..alice(session, sequence, put("k", value))
    };
    assert_eq!(fed.run(&named(first, 0, "v")), Outcome::Put { revision: 1 });
    assert_eq!(fed.run(&named(second, 0, "v")), Outcome::Put { revision: 1 });
    fed.run(&alice(first, 1, Operation::CloseSession));
    assert_eq!(fed.run(&named(second, 1, "v")), Outcome::Put { revision: 1 });
    let bob = fed.open("bob", 1);
    let other = Command { principal: "bob".into(), ..named(bob, 0, "v") };
    let elsewhere = "the retry came through another node, whose session is another principal's";
    assert_eq!(fed.run(&other), Outcome::Put { revision: 1 }, "{elsewhere}");
}

#[test]
fn a_request_id_with_another_operation_is_refused() {
    let mut fed = Fed::new();
    let (first, second) = (fed.open("alice", 1), fed.open("alice", 2));
    let named = |session, sequence, operation| Command {
        request_id: Some("r1".into()),
        ..alice(session, sequence, operation)
    };
    assert_eq!(fed.run(&named(first, 0, put("k", "z"))), Outcome::Put { revision: 1 });
    let others = [
        put("k", "other"),
        put("other", "z"),
        put_if("k", "z", Condition::Revision(1)),
        delete_if("k", Condition::Always),
    ];
    for (sequence, operation) in others.into_iter().enumerate() {
        let reused = named(second, sequence as u64, operation);
        assert_eq!(fed.run(&reused), Outcome::RequestIdReused, "{reused:?}");
        assert_eq!(fed.run(&reused), Outcome::RequestIdReused, "a duplicate of {reused:?}");
    }
    assert_eq!(fed.store.view().get(b"k").unwrap().value, "z");
    assert_eq!(fed.store.view().revision(), 1);
    let again = named(second, 9, put("k", "z"));
    assert_eq!(fed.run(&again), Outcome::Put { revision: 1 }, "the first one still has its id");
}

#[test]
fn refusals_are_not_remembered_under_a_request_id() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    let named = |session| Command {
        request_id: Some("r".into()),
        ..alice(session, SESSION_WINDOW as u64, put("k", "v"))
    };
    assert_eq!(fed.run(&named(SessionId(77))), Outcome::SessionUnknown);
    assert_eq!(fed.run(&named(id)), Outcome::WindowFull);
    let acknowledging = Command { acknowledged_below: 1, ..named(id) };
    assert_eq!(fed.run(&acknowledging), Outcome::Put { revision: 1 });
}

#[test]
fn only_the_youngest_request_ids_are_remembered() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    let named = |number: u64, sequence: u64| Command {
        request_id: Some(number.to_string()),
        acknowledged_below: sequence,
        ..alice(id, sequence, put("k", "v"))
    };
    for number in 0..=REQUEST_IDS_MAX {
        fed.run(&named(number, number));
    }
    let next = REQUEST_IDS_MAX + 1;
    assert_eq!(fed.run(&named(1, next)), Outcome::Put { revision: 2 }, "the second is remembered");
    let again = fed.run(&named(0, next + 1));
    assert_eq!(again, Outcome::Put { revision: next + 1 }, "the first is forgotten");
}

#[test]
fn sessions_end_by_replicated_time_unless_used() {
    let mut fed = Fed::new();
    let (used, idle) = (fed.open("alice", 1), fed.open("alice", 2));
    fed.run(&alice(idle, 0, put("k", "v")));
    fed.now = SESSION_TTL / 2;
    fed.run(&alice(used, 0, put("k", "v")));
    fed.now = SESSION_TTL - 1;
    fed.apply(None);
    assert_eq!(fed.store.view().sessions(), 2);
    fed.now = SESSION_TTL;
    // The session ends before the command that comes at this very time is looked at.
    assert_eq!(fed.run(&alice(idle, 1, put("k", "v"))), Outcome::SessionUnknown);
    assert_eq!(fed.run(&alice(used, 1, put("k", "v"))), Outcome::Put { revision: 3 });
    assert_eq!(fed.store.view().sessions(), 1);
    fed.now = SESSION_TTL / 4;
    fed.apply(None);
    assert_eq!(fed.store.time(), ClusterTime(SESSION_TTL), "time does not go back");
    fed.now = 3 * SESSION_TTL;
    fed.apply(None);
    assert_eq!(fed.store.view().sessions(), 0);
}

#[test]
fn too_many_sessions_end_the_one_that_was_idle_longest() {
    let mut fed = Fed::new();
    let first = fed.open("alice", 0);
    let second = fed.open("alice", 1);
    for nonce in 2..u128::from(SESSIONS_MAX) {
        fed.open("mallory", nonce);
    }
    fed.now = SESSION_TTL / 2;
    fed.run(&alice(first, 0, put("k", "v")));
    fed.open("mallory", 1 << 100);
    assert_eq!(fed.store.view().sessions(), SESSIONS_MAX);
    assert_eq!(fed.run(&alice(second, 0, put("k", "v"))), Outcome::SessionUnknown);
    assert_eq!(fed.run(&alice(first, 0, put("k", "v"))), Outcome::Put { revision: 1 });
}

#[test]
fn a_list_is_ordered_bounded_and_resumable() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    for (sequence, key) in ["b", "a/2", "a/", "a/10", "a", "a/1", "a0"].iter().enumerate() {
        fed.run(&alice(id, sequence as u64, put(key, key)));
    }
    let view = fed.store.view();
    let keys = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let found = view.list(prefix.as_bytes(), after.map(str::as_bytes), limit);
        found.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
    };
    assert_eq!(keys("", None, 100), ["a", "a/", "a/1", "a/10", "a/2", "a0", "b"]);
    assert_eq!(keys("a/", None, 100), ["a/", "a/1", "a/10", "a/2"]);
    assert_eq!(keys("a/", None, 2), ["a/", "a/1"]);
    assert_eq!(keys("a/", Some("a/1"), 2), ["a/10", "a/2"]);
    assert_eq!(keys("a/", Some("a"), 1), ["a/"]);
    assert_eq!(keys("a/", Some("a0"), 9), Vec::<String>::new());
    assert_eq!(keys("c", None, 9), Vec::<String>::new());
}

#[test]
fn a_view_does_not_change() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    fed.run(&alice(id, 0, put("k", "old")));
    let view = fed.store.view();
    fed.run(&alice(id, 1, put("k", "new")));
    fed.run(&alice(id, 2, put("l", "new")));
    assert_eq!(view.get(b"k").unwrap().value, "old");
    assert_eq!((view.count(), view.revision(), view.applied()), (1, 1, Slot(2)));
    assert_eq!(fed.store.view().get(b"k").unwrap().value, "new");
}

#[test]
#[should_panic(expected = "in order and without gaps")]
fn a_gap_between_slots_is_a_fault() {
    Store::new(MemoryEngine::new()).apply(Slot(2), ClusterTime(0), None);
}

/// Nodes of different versions compare digests, and snapshots carry rows: neither may change by
/// accident.
#[test]
fn the_digest_of_a_fixed_history_is_fixed() {
    let mut fed = Fed::new();
    let id = fed.open("alice", 1);
    fed.apply(None);
    let named = Command { request_id: Some("r".into()), ..alice(id, 0, put("k", "v")) };
    fed.run(&named);
    fed.now = 5;
    fed.run(&Command { acknowledged_below: 1, ..alice(id, 1, delete_if("k", Condition::Always)) });
    assert_eq!(fed.store.digest(), 8_531_294_432_610_368_526);
}

// What follows is the model: written for being obviously right, not for being quick.

#[derive(Default)]
struct Model {
    now: u64,
    slot: u64,
    revision: u64,
    /// How often the cluster version was raised.
    raised: u16,
    bundle: Option<(u64, Bytes)>,
    keys: BTreeMap<Bytes, KeyValue>,
    sessions: BTreeMap<u64, ModelSession>,
    requests: BTreeMap<String, (Operation, Outcome)>,
}

struct ModelSession {
    principal: String,
    nonce: u128,
    /// When it ends. The store renews in steps, so the test uses a session either often or not for
    /// long.
    used: u64,
    acknowledged_below: u64,
    outcomes: BTreeMap<u64, Outcome>,
}

impl Model {
    fn apply(&mut self, stamp: u64, command: Option<&Command>) -> Option<Outcome> {
        self.slot += 1;
        self.now = self.now.max(stamp);
        let now = self.now;
        self.sessions.retain(|_, session| session.used + SESSION_TTL > now);
        command.map(|command| self.run(command))
    }

    fn run(&mut self, command: &Command) -> Outcome {
        if let Operation::OpenSession { nonce } = command.operation {
            let open = self.sessions.iter_mut();
            let mut open =
                open.filter(|(_, s)| (s.nonce, &s.principal) == (nonce, &command.principal));
            if let Some((id, session)) = open.next() {
                session.renew(self.now);
                return Outcome::SessionOpened(SessionId(*id));
            }
            let session = ModelSession {
                principal: command.principal.clone(),
                nonce,
                used: self.now,
                acknowledged_below: 0,
                outcomes: BTreeMap::new(),
            };
            self.sessions.insert(self.slot, session);
            return Outcome::SessionOpened(SessionId(self.slot));
        }
        let Some(session) = self.sessions.get_mut(&command.session.0) else {
            return Outcome::SessionUnknown;
        };
        if session.principal != command.principal {
            return Outcome::SessionUnknown;
        }
        session.renew(self.now);
        session.acknowledged_below = session.acknowledged_below.max(command.acknowledged_below);
        session.outcomes.retain(|sequence, _| *sequence >= session.acknowledged_below);
        if command.sequence < session.acknowledged_below {
            return Outcome::SequenceAcknowledged;
        }
        if let Some(outcome) = session.outcomes.get(&command.sequence) {
            return outcome.clone();
        }
        if command.sequence >= session.acknowledged_below + SESSION_WINDOW as u64 {
            return Outcome::WindowFull;
        }
        let name = command.request_id.clone();
        let known = name.as_ref().and_then(|name| self.requests.get(name).cloned());
        let outcome = match known {
            None => self.execute(command),
            Some((operation, outcome)) if operation == command.operation => outcome,
            Some(_) => Outcome::RequestIdReused,
        };
        if let Some(name) = name {
            let first = || (command.operation.clone(), outcome.clone());
            self.requests.entry(name).or_insert_with(first);
        }
        if let Some(session) = self.sessions.get_mut(&command.session.0)
            && outcome != Outcome::SessionClosed
        {
            session.outcomes.insert(command.sequence, outcome.clone());
        }
        outcome
    }

    fn execute(&mut self, command: &Command) -> Outcome {
        let (key, condition) = match &command.operation {
            Operation::Put { key, condition, .. } | Operation::Delete { key, condition } => {
                (key, condition)
            }
            Operation::CloseSession => {
                self.sessions.remove(&command.session.0);
                return Outcome::SessionClosed;
            }
            Operation::RaiseVersion { to } => {
                self.raised += u16::from(*to == self.raised + 2);
                return Outcome::ClusterVersion(self.raised + 1);
            }
            Operation::PublishBundle { epoch, signed } => {
                self.bundle = Some((*epoch, signed.clone()));
                return Outcome::BundleEpoch(*epoch);
            }
            Operation::OpenSession { .. } => unreachable!(),
        };
        let current = self.keys.get(key).cloned();
        let revision = current.as_ref().map(|found| found.mod_revision);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => revision.is_none(),
            Condition::Value(value) => current.as_ref().map(|found| &found.value) == Some(value),
            Condition::Revision(wanted) => revision.unwrap_or(0) == *wanted,
        };
        match (&command.operation, current) {
            _ if !holds => Outcome::ConditionFailed { revision },
            (Operation::Put { key, value, .. }, current) => {
                self.revision += 1;
                let current = current.unwrap_or(KeyValue {
                    value: Bytes::new(),
                    create_revision: self.revision,
                    mod_revision: 0,
                    version: 0,
                });
                let (value, mod_revision) = (value.clone(), self.revision);
                let version = current.version + 1;
                self.keys.insert(key.clone(), KeyValue { value, mod_revision, version, ..current });
                Outcome::Put { revision: self.revision }
            }
            (_, None) => Outcome::NotFound,
            (_, Some(_)) => {
                self.keys.remove(key);
                self.revision += 1;
                Outcome::Deleted { revision: self.revision }
            }
        }
    }
}

impl ModelSession {
    fn renew(&mut self, now: u64) {
        if now - self.used >= SESSION_TTL / 8 {
            self.used = now;
        }
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        4 => Just(Condition::Always),
        1 => Just(Condition::Absent),
        1 => "[ab]".prop_map(|value| Condition::Value(value.into())),
        1 => (0u64..20).prop_map(Condition::Revision),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => (0u128..3).prop_map(|nonce| Operation::OpenSession { nonce }),
        1 => Just(Operation::CloseSession),
        1 => (0u16..5).prop_map(|to| Operation::RaiseVersion { to }),
        1 => (0u64..5, "[ab]").prop_map(|(epoch, signed)| {
            Operation::PublishBundle { epoch, signed: signed.into() }
        }),
        8 => ("[a-d]{1,2}", "[ab]", condition()).prop_map(|(k, v, c)| put_if(&k, &v, c)),
        4 => ("[a-d]{1,2}", condition()).prop_map(|(key, condition)| delete_if(&key, condition)),
    ]
}

prop_compose! {
    /// Sessions are named after slots, so small numbers hit; sequences repeat often.
    fn any_command()(
        session in 0u64..12,
        sequence in prop_oneof![9 => 0u64..12, 1 => 8190u64..8210],
        acknowledged_below in prop_oneof![6 => Just(0u64), 3 => 0u64..6, 1 => 0u64..30],
        principal in prop_oneof![3 => Just("alice"), 1 => Just("bob")],
        request_id in option::weighted(0.2, "[xyz]"),
        operation in operation(),
    ) -> Command {
        let (session, principal) = (SessionId(session), principal.to_owned());
        Command { session, sequence, acknowledged_below, principal, request_id, operation }
    }
}

fn step() -> impl Strategy<Value = (u64, Option<Command>)> {
    let waits = prop_oneof![8 => Just(0), 3 => 0..SESSION_TTL / 4, 1 => 0..SESSION_TTL * 2];
    (waits, option::weighted(0.95, any_command()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_store_does_what_the_model_does(
        opening in vec(prop_oneof![Just("alice"), Just("bob")], 1..4),
        steps in vec(step(), 1..120),
    ) {
        let mut model = Model::default();
        let (mut store, mut twin) =
            (Store::new(MemoryEngine::new()), Store::new(MemoryEngine::new()));
        let opening = opening.iter().enumerate();
        let opening = opening.map(|(nonce, who)| (0, Some(open(who, 1000 + nonce as u128))));
        let mut now = 0;
        for (wait, command) in opening.chain(steps) {
            now += wait;
            let slot = store.applied().next();
            let expected = model.apply(now, command.as_ref());
            let outcome = store.apply(slot, ClusterTime(now), command.as_ref());
            prop_assert_eq!(outcome, expected, "{:?}", command);
            twin.apply(slot, ClusterTime(now), command.as_ref());
        }
        let view = store.view();
        let expected: Vec<_> = model.keys.into_iter().collect();
        prop_assert_eq!(view.list(b"", None, usize::MAX), expected);
        prop_assert_eq!(view.count(), view.list(b"", None, usize::MAX).len() as u64);
        prop_assert_eq!(view.revision(), model.revision);
        prop_assert_eq!(store.cluster_version(), model.raised + 1);
        prop_assert_eq!(store.bundle(), model.bundle);
        prop_assert_eq!(view.sessions(), model.sessions.len() as u64);
        prop_assert_eq!(store.digest(), twin.digest());
    }
}
