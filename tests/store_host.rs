//! A node with a store, by itself, asked by nodes without one: what it answers, what it keeps for
//! them, and for how long.

use bytes::Bytes;
use paxos_ssh::disk::Log;
use paxos_ssh::disk::memory::{MemoryDisk, MemoryLog};
use paxos_ssh::node::driver::{Driver, Parts};
use paxos_ssh::node::event::{Event, Write};
use paxos_ssh::node::settings::TimeoutBounds;
use paxos_ssh::node::world::{Peers, TICK, World};
use paxos_ssh::paxos::ballot::{ClusterId, NodeId, ProposerId, VoterGeneration};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::message::{Message, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::store::command::{Command, Condition, Operation, Outcome, SessionId};
use paxos_ssh::store::sessions::SESSION_TTL;
use paxos_ssh::telemetry::metrics::ConsensusMetrics;
use paxos_ssh::transport::identity::node_principal;
use paxos_ssh::wire::command::encode_command;
use paxos_ssh::wire::peer::PeerMessage;
use paxos_ssh::wire::store_call::{Found, LISTED_MAX, Query, StoreAnswer, StoreCall};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HOST: NodeId = NodeId(1);
/// An acceptor that is down; where it is needed nobody leads.
const DOWN: NodeId = NodeId(2);
const C1: NodeId = NodeId(3);
const C2: NodeId = NodeId(4);

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
struct Clock(Arc<Mutex<(Duration, u64)>>);

impl World for Clock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap().0
    }

    fn random(&mut self) -> u64 {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        state.1
    }
}

type Answers = Arc<Mutex<Vec<(NodeId, StoreAnswer)>>>;

struct Out(Answers);

impl Peers for Out {
    fn send(&mut self, to: &[NodeId], message: PeerMessage) {
        if let PeerMessage::Answer(answer) = message {
            self.0.lock().unwrap().extend(to.iter().map(|to| (*to, answer.clone())));
        }
    }
}

/// The node under test.
struct Host {
    driver: Driver<MemoryLog, Out, Clock>,
    disk: MemoryDisk,
    clock: Clock,
    answers: Answers,
}

fn genesis(acceptors: &[NodeId]) -> Genesis {
    let member = |id: NodeId| {
        let roles = Roles {
            proposer: (id == HOST).then(|| ProposerId::new(id.0).unwrap()),
            acceptor: acceptors.contains(&id).then_some(VoterGeneration(id.0)),
            learner: id == HOST,
        };
        (id, Member { name: format!("n{}", id.0), address: String::new(), roles })
    };
    let members = [HOST, DOWN, C1, C2].map(member).into_iter().collect();
    let quorums = QuorumSystem::majority(acceptors.len() as u16).unwrap();
    let configuration = Configuration::new(ConfigurationNumber(1), members, quorums).unwrap();
    Genesis { cluster: ClusterId(1), configuration, window: 64 }
}

impl Host {
    fn start(acceptors: &[NodeId]) -> Host {
        let disk = MemoryDisk::new();
        let (mut log, _) = disk.open().unwrap();
        let generation = Some(VoterGeneration(HOST.0));
        log.append(vec![Record::Genesis { genesis: genesis(acceptors), generation }]);
        disk.sync();
        let (log, recovered) = disk.open().unwrap();
        let (clock, answers) = (Clock::default(), Answers::default());
        let parts = Parts {
            id: HOST,
            cluster: "test".to_owned(),
            log,
            recovered,
            peers: Out(Arc::clone(&answers)),
            world: clock.clone(),
            bounds: TimeoutBounds { min: Duration::from_millis(250), max: SECOND },
            metrics: ConsensusMetrics::default(),
            judge: Box::new(|_, _| None),
        };
        let driver = Driver::new(parts).unwrap();
        Host { driver, disk, clock, answers }
    }

    /// It is the only acceptor, leads, and has so many keys, `k000` and on.
    fn leading(keys: usize) -> Host {
        let mut host = Host::start(&[HOST]);
        for _ in 0..1000 {
            host.pass(TICK);
            if host.driver.replica().unwrap().status().leading.is_some() {
                break;
            }
        }
        for key in 0..keys {
            host.put(key);
        }
        host
    }

    /// Nobody leads.
    fn following() -> Host {
        Host::start(&[HOST, DOWN])
    }

    fn hear(&mut self, event: Event) {
        self.driver.handle(event);
        self.driver.finish();
        for _ in 0..4 {
            let durable = self.disk.sync();
            self.driver.handle(Event::Persisted(durable, Duration::ZERO));
            self.driver.finish();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.0.lock().unwrap().0 += time;
        self.hear(Event::Tick);
    }

    fn put(&mut self, key: usize) {
        let told = Arc::new(Mutex::new(None));
        let reply = Arc::clone(&told);
        self.hear(Event::Write(Write {
            principal: "alice".to_owned(),
            operation: Operation::Put {
                key: Bytes::from(format!("k{key:03}")),
                value: Bytes::from_static(b"v"),
                condition: Condition::Always,
            },
            request_id: None,
            deadline: self.clock.now() + SECOND,
            reply: Box::new(move |outcome| *reply.lock().unwrap() = Some(outcome)),
        }));
        let told = told.lock().unwrap().take();
        assert!(matches!(told, Some(Ok(Outcome::Put { .. }))), "{told:?}");
    }

    /// What it answers to the call.
    fn call(&mut self, from: NodeId, call: StoreCall) -> Vec<StoreAnswer> {
        self.answers.lock().unwrap().clear();
        self.hear(Event::StoreCall(from, call));
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers.into_iter().filter(|(to, _)| *to == from).map(|(_, answer)| answer).collect()
    }

    fn list(&mut self, from: NodeId, token: u64, page: u64, limit: u64) -> Vec<StoreAnswer> {
        // As many keys come before as were on the pages before.
        let before = page * limit;
        let after = before.checked_sub(1).map(|last| Bytes::from(format!("k{last:03}")));
        let query =
            Query::List { prefix: Bytes::from_static(b"k"), after, limit, keys_only: false };
        self.call(from, read(token, page, query))
    }

    /// A peer passes commands on to the leader.
    fn forward(&mut self, from: NodeId, command: &Command) -> Vec<StoreAnswer> {
        self.answers.lock().unwrap().clear();
        let commands = vec![encode_command(command)];
        let forward = Statement::Forward { commands, hops: 0 };
        self.hear(Event::Peer(from, Message::Statement(forward)));
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

fn read(token: u64, page: u64, query: Query) -> StoreCall {
    StoreCall::Read { token, page, linearizable: true, patience: 10 * SECOND, query }
}

/// The one page that was found.
fn found(answers: &[StoreAnswer]) -> &Found {
    match answers {
        [StoreAnswer::Found { found, .. }] => found,
        _ => panic!("not one page: {answers:?}"),
    }
}

/// Whether it said that it cannot, and whether for having too much to do.
fn refusal(answers: &[StoreAnswer]) -> Option<bool> {
    match answers {
        [StoreAnswer::Unreadable { busy, .. }] => Some(*busy),
        _ => None,
    }
}

#[test]
fn a_look_up_that_is_repeated_waits_once() {
    let mut host = Host::following();
    for _ in 0..20 {
        for token in 0..100 {
            let query = Query::Get { key: Bytes::from_static(b"k") };
            assert_eq!(host.call(C1, read(token, 0, query)), []);
        }
    }
    assert_eq!(host.driver.pending(), 100);
    host.clock.0.lock().unwrap().0 += 11 * SECOND;
    host.hear(Event::Tick);
    assert_eq!(host.driver.pending(), 0);
    assert_eq!(host.answers.lock().unwrap().len(), 100, "each is told once");
    // It may be asked again after that.
    let query = Query::Get { key: Bytes::from_static(b"k") };
    host.call(C1, read(1, 0, query));
    assert_eq!(host.driver.pending(), 1);
}

#[test]
fn a_question_that_comes_after_its_asker_left_makes_no_view() {
    let mut host = Host::leading(9);
    assert!(!found(&host.list(C1, 7, 0, 2)).ended);
    host.call(C1, StoreCall::Leave { token: 7 });
    assert_eq!(host.list(C1, 7, 0, 2), [], "a view that nobody lets go of");
    assert!(!found(&host.list(C2, 7, 0, 2)).ended, "another caller's token is another one");
    assert_eq!(refusal(&host.list(C1, 7, 1, 2)), Some(false));
}

#[test]
fn the_last_page_of_a_list_can_be_asked_for_again() {
    let mut host = Host::leading(3);
    assert!(!found(&host.list(C1, 7, 0, 2)).ended);
    let last = found(&host.list(C1, 7, 1, 2)).clone();
    assert!(last.ended);
    // It is on its way for longer than the caller waits before it asks again.
    host.put(9);
    host.pass(SECOND);
    assert_eq!(found(&host.list(C1, 7, 1, 2)), &last);
    // Whoever has it says so; if that gets lost, the view is let go of soon.
    host.pass(6 * SECOND);
    assert_eq!(refusal(&host.list(C1, 7, 1, 2)), Some(false));
}

#[test]
fn a_page_is_bounded_whatever_limit_is_asked_for() {
    let mut host = Host::leading(LISTED_MAX + 1);
    for limit in [u64::MAX, LISTED_MAX as u64 + 1] {
        let page = found(&host.list(C1, limit, 0, limit)).clone();
        assert_eq!(page.records.len(), LISTED_MAX);
        assert!(!page.ended);
    }
    assert!(found(&host.list(C1, 1, 0, 3)).records.len() == 3, "a limit is one");
}

#[test]
fn the_session_that_a_caller_names_is_the_one_that_it_is_told_of() {
    let mut host = Host::leading(0);
    let (nonce, principal) = (5, node_principal(C1, "test"));
    let open = Command {
        session: SessionId::NONE,
        sequence: 0,
        acknowledged_below: 0,
        principal,
        request_id: None,
        operation: Operation::OpenSession { nonce },
    };
    let ask = |session| StoreCall::AskOutcomes { nonce, session, sequences: vec![1] };
    assert_eq!(host.call(C1, ask(SessionId::NONE)).len(), 1);
    let session = match &host.forward(C1, &open)[..] {
        [StoreAnswer::Outcomes { session, .. }] => *session,
        other => panic!("the session is not told of: {other:?}"),
    };
    assert_ne!(session, SessionId::NONE);
    // It ends, and the command that opened it comes once more.
    host.clock.0.lock().unwrap().0 += Duration::from_nanos(SESSION_TTL) + SECOND;
    host.put(1);
    host.call(C1, ask(session));
    assert_eq!(host.forward(C1, &open), [], "nobody waits for that session");
    let outcomes = |outcomes| StoreAnswer::Outcomes { nonce, session, outcomes };
    assert_eq!(host.call(C1, ask(session)), [outcomes(Vec::new())]);
    let operation =
        Operation::Delete { key: Bytes::from_static(b"k"), condition: Condition::Always };
    let command = Command { session, sequence: 1, operation, ..open };
    assert_eq!(host.forward(C1, &command), [outcomes(vec![(1, Outcome::SessionUnknown)])]);
}

#[test]
fn slow_lists_of_one_caller_shut_nobody_else_out() {
    let mut host = Host::leading(3);
    let begun = |answers: Vec<StoreAnswer>| match refusal(&answers) {
        Some(busy) => {
            assert!(busy, "{answers:?}");
            false
        }
        None => !found(&answers).ended,
    };
    let lists = (0..1000).take_while(|token| begun(host.list(C1, *token, 0, 1))).count();
    assert!((16..1000).contains(&lists), "{lists} lists at once");
    assert!(begun(host.list(C2, 1, 0, 1)), "another caller's list is refused");
    host.call(C1, StoreCall::Leave { token: 0 });
    assert!(begun(host.list(C1, 5000, 0, 1)), "there is room again");
}

#[test]
fn a_view_is_kept_for_as_long_as_its_caller_says_that_it_is_read() {
    let mut host = Host::leading(3);
    for token in [1, 2] {
        assert!(!found(&host.list(C1, token, 0, 1)).ended);
    }
    for _ in 0..12 {
        host.pass(10 * SECOND);
        assert_eq!(host.call(C1, StoreCall::Keep { token: 1 }), []);
    }
    assert_eq!(found(&host.list(C1, 1, 1, 1)).records[0].key, "k001");
    assert_eq!(refusal(&host.list(C1, 2, 1, 1)), Some(false), "nobody asked for that one");
    host.pass(31 * SECOND);
    assert_eq!(refusal(&host.list(C1, 1, 2, 1)), Some(false));
}

#[test]
fn values_stay_where_they_are_if_only_keys_are_listed() {
    let mut host = Host::leading(2);
    let prefix = Bytes::from_static(b"k");
    let query = Query::List { prefix, after: None, limit: 9, keys_only: true };
    let answers = host.call(C1, read(1, 0, query));
    let records = &found(&answers).records;
    assert_eq!(
        records.iter().map(|record| &record.key[..]).collect::<Vec<_>>(),
        [b"k000", b"k001"]
    );
    assert!(records.iter().all(|record| record.value.is_none() && record.version == 1));
    assert!(found(&host.list(C1, 2, 0, 9)).records.iter().all(|record| record.value.is_some()));
}
