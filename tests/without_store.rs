//! A node without a store, by itself: what it asks of whom, and what it tells its clients. The test
//! plays the leader and both learners, and says what time it is.

use bytes::Bytes;
use paxos_ssh::disk::Log;
use paxos_ssh::disk::memory::{MemoryDisk, MemoryLog};
use paxos_ssh::node::driver::{Driver, Parts};
use paxos_ssh::node::event::{Event, Lookup, RequestError, Write};
use paxos_ssh::node::settings::TimeoutBounds;
use paxos_ssh::node::world::{Peers, TICK, World};
use paxos_ssh::paxos::ballot::{
    Ballot, ClusterId, Incarnation, NodeId, ProposalNumber, ProposerId, Slot, VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::message::{Message, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::store::command::{Command, Condition, Operation, Outcome, SessionId};
use paxos_ssh::telemetry::metrics::ConsensusMetrics;
use paxos_ssh::wire::command::decode_command;
use paxos_ssh::wire::peer::PeerMessage;
use paxos_ssh::wire::store_call::{Found, Query, StoreAnswer, StoreCall};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LEADER: NodeId = NodeId(1);
const L1: NodeId = NodeId(2);
const L2: NodeId = NodeId(3);
const CLIENT: NodeId = NodeId(4);

/// The first session that the log opens, and the next one.
const S1: SessionId = SessionId(10);
const S2: SessionId = SessionId(20);

const MINUTE: Duration = Duration::from_secs(60);

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

type Sent = Arc<Mutex<Vec<(NodeId, PeerMessage)>>>;

struct Out(Sent);

impl Peers for Out {
    fn send(&mut self, to: &[NodeId], message: PeerMessage) {
        let sent = to.iter().map(|to| (*to, message.clone()));
        self.0.lock().unwrap().extend(sent);
    }
}

type Answer<T> = Arc<Mutex<Option<Result<T, RequestError>>>>;

/// The node under test.
struct Client {
    driver: Driver<MemoryLog, Out, Clock>,
    clock: Clock,
    sent: Sent,
    /// The nonce of the session that it opened last.
    nonce: u128,
}

fn genesis() -> Genesis {
    let member = |id: NodeId| {
        let leads = id == LEADER;
        let roles = Roles {
            proposer: leads.then(|| ProposerId::new(id.0).unwrap()),
            acceptor: leads.then_some(VoterGeneration(7)),
            learner: [L1, L2].contains(&id),
        };
        (id, Member { name: format!("n{}", id.0), address: String::new(), roles })
    };
    let members = [LEADER, L1, L2, CLIENT].map(member).into_iter().collect();
    let quorums = QuorumSystem::majority(1).unwrap();
    let configuration = Configuration::new(ConfigurationNumber(1), members, quorums).unwrap();
    Genesis { cluster: ClusterId(1), configuration, window: 64 }
}

impl Client {
    /// It follows the leader, and its links to both learners stand.
    fn start() -> Client {
        Client::start_linked_to(&[L1, L2])
    }

    /// It follows the leader, and of links to learners it knows these.
    fn start_linked_to(learners: &[NodeId]) -> Client {
        let disk = MemoryDisk::new();
        let (mut log, _) = disk.open().unwrap();
        log.append(vec![Record::Genesis { genesis: genesis(), generation: None }]);
        disk.sync();
        let (log, recovered) = disk.open().unwrap();
        let (clock, sent) = (Clock::default(), Sent::default());
        let parts = Parts {
            id: CLIENT,
            cluster: "test".to_owned(),
            log,
            recovered,
            peers: Out(Arc::clone(&sent)),
            world: clock.clone(),
            bounds: TimeoutBounds { min: Duration::from_millis(250), max: Duration::from_secs(2) },
            metrics: ConsensusMetrics::default(),
            judge: Box::new(|_, _| None),
        };
        let driver = Driver::new(parts).unwrap();
        let mut client = Client { driver, clock, sent, nonce: 0 };
        for learner in learners {
            client.hear(Event::LinkUp(*learner));
        }
        client.pass(TICK);
        client
    }

    fn hear(&mut self, event: Event) {
        self.driver.handle(event);
        self.driver.finish();
    }

    /// Time passes, with a leader.
    fn pass(&mut self, time: Duration) {
        self.clock.0.lock().unwrap().0 += time;
        let ballot =
            Ballot { number: ProposalNumber::from_raw(LEADER.0), incarnation: Incarnation(5) };
        let (chosen, configuration) = (Slot(0), ConfigurationNumber(1));
        let heartbeat = Statement::Heartbeat { ballot, round: 1, chosen, configuration };
        self.hear(Event::Peer(LEADER, Message::Statement(heartbeat)));
        self.hear(Event::Tick);
    }

    fn put(&mut self, deadline: Duration) -> Answer<Outcome> {
        let answer: Answer<Outcome> = Arc::default();
        let told = Arc::clone(&answer);
        let operation = Operation::Put {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            condition: Condition::Always,
        };
        self.hear(Event::Write(Write {
            principal: "alice".to_owned(),
            operation,
            request_id: None,
            deadline: self.clock.now() + deadline,
            reply: Box::new(move |outcome| *told.lock().unwrap() = Some(outcome)),
        }));
        answer
    }

    /// A client looks something up.
    fn look_up(&mut self, token: u64, page: u64, query: Query) -> Answer<Found> {
        let answer: Answer<Found> = Arc::default();
        let told = Arc::clone(&answer);
        let lookup = Lookup {
            token,
            linearizable: true,
            page,
            query,
            deadline: self.clock.now() + MINUTE,
            reply: Box::new(move |found| *told.lock().unwrap() = Some(found)),
        };
        self.hear(Event::Lookup(lookup));
        answer
    }

    fn host(&self) -> NodeId {
        self.driver.host().expect("it has a host")
    }

    /// What it called a learner for since it was looked at last.
    fn calls(&mut self) -> Vec<(NodeId, StoreCall)> {
        let calls = self.sent().into_iter().filter_map(|(to, message)| match message {
            PeerMessage::Call(call) => Some((to, call)),
            _ => None,
        });
        calls.collect()
    }

    /// Time passes, and the host answers all the while but has nothing to tell.
    fn pass_in_vain(&mut self, time: Duration) {
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            self.pass(5 * TICK);
            self.host_tells(S1, &[]);
        }
    }

    fn sent(&mut self) -> Vec<(NodeId, PeerMessage)> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }

    /// The commands that it passed to the leader since it was looked at last.
    fn forwarded(&mut self) -> Vec<Command> {
        let commands = self.sent().into_iter().filter_map(|(_, message)| match message {
            PeerMessage::Paxos(Message::Statement(Statement::Forward { commands, .. })) => {
                Some(commands)
            }
            _ => None,
        });
        let commands: Vec<Command> =
            commands.flatten().map(|bytes| decode_command(&bytes).unwrap()).collect();
        for command in &commands {
            if let Operation::OpenSession { nonce } = command.operation {
                self.nonce = nonce;
            }
        }
        commands
    }

    /// The session and number of the one command that it passed on.
    fn forwarded_one(&mut self) -> (SessionId, u64) {
        let commands = self.forwarded();
        assert_eq!(commands.len(), 1, "{commands:?}");
        (commands[0].session, commands[0].sequence)
    }

    fn tell(&mut self, from: NodeId, session: SessionId, outcomes: &[(u64, Outcome)]) {
        let (nonce, outcomes) = (self.nonce, outcomes.to_vec());
        let answer = StoreAnswer::Outcomes { nonce, session, outcomes };
        self.hear(Event::StoreAnswer(from, answer));
    }

    /// Its host says what became of things.
    fn host_tells(&mut self, session: SessionId, outcomes: &[(u64, Outcome)]) {
        self.tell(self.host(), session, outcomes);
    }

    /// It writes under an open session; the write is under way.
    fn put_under(&mut self, session: SessionId, deadline: Duration) -> Answer<Outcome> {
        let answer = self.put(deadline);
        assert_eq!(self.forwarded_one(), (SessionId::NONE, 0), "no session was open");
        self.host_tells(session, &[]);
        assert_eq!(self.forwarded_one(), (session, 1));
        answer
    }
}

fn told<T: Clone>(answer: &Answer<T>) -> Option<Result<T, RequestError>> {
    answer.lock().unwrap().clone()
}

fn is_unknown(answer: &Answer<Outcome>) -> bool {
    matches!(told(answer), Some(Err(RequestError::UnknownOutcome(_))))
}

const DONE: Outcome = Outcome::Put { revision: 1 };

#[test]
fn a_write_whose_session_ended_may_have_been_executed() {
    let mut client = Client::start();
    let first = client.put_under(S1, 20 * MINUTE);
    // It is executed, and no news comes through for so long that its session ends. The same looks
    // shorter to a machine that was suspended meanwhile, or if too many sessions were opened.
    client.pass(Duration::from_secs(2));
    assert_eq!(client.forwarded_one(), (S1, 1), "it is not tried again");
    client.host_tells(S1, &[(1, Outcome::SessionUnknown)]);
    assert!(is_unknown(&first), "{:?}", told(&first));
    // Nor is it executed once more.
    assert_eq!(client.forwarded_one(), (SessionId::NONE, 0));
    client.host_tells(S2, &[]);
    client.pass(MINUTE);
    assert_eq!(client.forwarded(), []);
}

#[test]
fn a_write_that_nobody_was_handed_waits_while_its_session_is_in_doubt() {
    let mut client = Client::start();
    let first = client.put_under(S1, 20 * MINUTE);
    client.pass(11 * MINUTE);
    assert_eq!(client.forwarded_one(), (S1, 1));
    let second = client.put(MINUTE);
    assert_eq!(client.forwarded(), [], "it went under a session that may have ended");
    client.host_tells(S1, &[(1, Outcome::SessionUnknown)]);
    assert!(is_unknown(&first), "{:?}", told(&first));
    assert_eq!(client.forwarded_one(), (SessionId::NONE, 0));
    client.host_tells(S2, &[]);
    assert_eq!(client.forwarded_one(), (S2, 1));
    client.host_tells(S2, &[(1, DONE)]);
    assert_eq!(told(&second), Some(Ok(DONE)));
}

#[test]
fn a_node_that_was_idle_writes_under_a_new_session() {
    let mut client = Client::start();
    let first = client.put_under(S1, MINUTE);
    client.host_tells(S1, &[(1, DONE)]);
    assert_eq!(told(&first), Some(Ok(DONE)));
    client.pass(4 * MINUTE);
    client.put(MINUTE);
    assert_eq!(client.forwarded_one(), (S1, 2), "a session is given up too early");
    client.host_tells(S1, &[(2, DONE)]);
    client.pass(6 * MINUTE);
    let last = client.put_under(S2, MINUTE);
    client.host_tells(S2, &[(1, DONE)]);
    assert_eq!(told(&last), Some(Ok(DONE)));
}

#[test]
fn a_write_of_which_one_copy_was_refused_may_have_been_executed() {
    let mut client = Client::start();
    let write = client.put_under(S1, Duration::from_secs(3));
    client.pass(Duration::from_secs(2));
    assert_eq!(client.forwarded_one(), (S1, 1), "there is one copy only");
    // Both learners tell of the first one; the second is still on its way.
    client.tell(L1, S1, &[(1, Outcome::WindowFull)]);
    client.tell(L2, S1, &[(1, Outcome::WindowFull)]);
    client.pass(Duration::from_secs(2));
    assert!(is_unknown(&write), "{:?}", told(&write));
}

#[test]
fn a_host_that_tells_no_outcome_is_left() {
    let mut client = Client::start();
    let write = client.put_under(S1, MINUTE);
    let first = client.host();
    client.pass_in_vain(Duration::from_secs(1));
    assert_eq!(client.host(), first, "it is left too early");
    client.pass_in_vain(Duration::from_secs(3));
    let next = client.host();
    assert_ne!(next, first, "it is never left");
    client.host_tells(S1, &[(1, DONE)]);
    assert_eq!(told(&write), Some(Ok(DONE)));
    // What the next one tells keeps it.
    for sequence in 2..10 {
        client.put(MINUTE);
        client.pass_in_vain(Duration::from_secs(1));
        client.host_tells(S1, &[(sequence, DONE)]);
    }
    assert_eq!(client.host(), next);
}

#[test]
fn a_host_that_finds_nothing_is_left_though_it_tells_outcomes() {
    let mut client = Client::start();
    client.put_under(S1, MINUTE);
    client.host_tells(S1, &[(1, DONE)]);
    let first = client.host();
    let read = client.look_up(1, 0, Query::Get { key: Bytes::from_static(b"k") });
    for sequence in 2..6 {
        client.put(MINUTE);
        client.pass_in_vain(Duration::from_secs(1));
        client.tell(first, S1, &[(sequence, DONE)]);
    }
    let next = client.host();
    assert_ne!(next, first, "it is never left");
    let asked = client.calls().into_iter().find_map(|call| match call {
        (to, StoreCall::Read { token, .. }) if to == next => Some(token),
        _ => None,
    });
    let token = asked.expect("the next one is not asked");
    let found = Found { revision: 1, records: Vec::new(), ended: true };
    let answer = StoreAnswer::Found { token, page: 0, found: found.clone() };
    client.hear(Event::StoreAnswer(next, answer));
    assert_eq!(told(&read), Some(Ok(found)));
}

#[test]
fn a_host_is_kept_while_nobody_leads_or_no_other_could_serve() {
    let mut client = Client::start();
    client.put_under(S1, 20 * MINUTE);
    let first = client.host();
    let other = if first == L1 { L2 } else { L1 };
    let down = |peer| Event::LinkDown { peer, refused: false, error: String::new() };
    client.hear(down(other));
    client.pass_in_vain(Duration::from_secs(20));
    assert_eq!(client.host(), first);
    // The leader falls silent, and the other learner comes back.
    for _ in 0..200 {
        client.clock.0.lock().unwrap().0 += TICK;
        client.hear(Event::Tick);
        client.host_tells(S1, &[]);
    }
    client.hear(Event::LinkUp(other));
    for _ in 0..1000 {
        client.clock.0.lock().unwrap().0 += TICK;
        client.hear(Event::Tick);
        assert_eq!(client.host(), first, "lists that are read there are lost for nothing");
        client.host_tells(S1, &[]);
    }
}

#[test]
fn a_host_that_is_silent_is_left_though_no_other_link_is_known_to_stand() {
    let mut client = Client::start_linked_to(&[L1]);
    client.put_under(S1, 20 * MINUTE);
    assert_eq!(client.host(), L1);
    // It falls silent, and nobody says that its link broke.
    let end = client.clock.now() + Duration::from_secs(1);
    while client.host() == L1 {
        assert!(client.clock.now() < end, "it asks a silent host again and again");
        client.pass(TICK);
    }
    assert_eq!(client.host(), L2);
}

/// None of the requests lasts as long as the node has patience with a host that took its time
/// before.
#[test]
fn a_host_that_is_silent_is_left_though_every_request_gives_up_sooner() {
    let mut client = Client::start();
    let write = client.put_under(S1, MINUTE);
    let first = client.host();
    // Each answer takes a little longer, and so does the patience with the next one.
    for late in [150, 500] {
        client.pass(10 * TICK);
        client.pass(Duration::from_millis(late));
        client.host_tells(S1, &[]);
    }
    client.host_tells(S1, &[(1, DONE)]);
    assert_eq!(told(&write), Some(Ok(DONE)));
    assert_eq!(client.host(), first);
    for _ in 0..10 {
        client.pass(Duration::from_secs(1));
        let write = client.put(Duration::from_millis(500));
        while told(&write).is_none() {
            client.pass(TICK);
        }
        if client.host() != first {
            return;
        }
    }
    panic!("it asks a silent host again and again");
}

#[test]
fn a_list_that_was_read_to_its_end_is_let_go_of() {
    let mut client = Client::start();
    let query = |after| Query::List { prefix: Bytes::new(), after, limit: 1, keys_only: false };
    let mut token = None;
    for page in 0..3 {
        let read = client.look_up(1, page, query(None));
        let calls = client.calls();
        token = calls.iter().find_map(|(_, call)| match call {
            StoreCall::Read { token, .. } => Some(*token),
            _ => None,
        });
        let left = calls.iter().any(|(_, call)| matches!(call, StoreCall::Leave { .. }));
        assert!(!left, "page {page} is not the last one");
        let found = Found { revision: 1, records: Vec::new(), ended: page == 2 };
        let token = token.expect("the host is asked");
        client.hear(Event::StoreAnswer(client.host(), StoreAnswer::Found { token, page, found }));
        assert!(matches!(told(&read), Some(Ok(_))));
    }
    let left = StoreCall::Leave { token: token.unwrap() };
    assert_eq!(client.calls(), [(client.host(), left)]);
}

#[test]
fn the_view_of_a_list_that_is_read_slowly_is_kept() {
    let mut client = Client::start();
    let query = Query::List { prefix: Bytes::new(), after: None, limit: 1, keys_only: false };
    client.look_up(1, 0, query);
    let token = client.calls().into_iter().find_map(|(_, call)| match call {
        StoreCall::Read { token, .. } => Some(token),
        _ => None,
    });
    let token = token.expect("the host is asked");
    let found = Found { revision: 1, records: Vec::new(), ended: false };
    client.hear(Event::StoreAnswer(client.host(), StoreAnswer::Found { token, page: 0, found }));
    let kept = |seconds: u64, client: &mut Client| {
        for _ in 0..seconds {
            client.pass(Duration::from_secs(1));
        }
        client.calls().iter().filter(|(_, call)| *call == StoreCall::Keep { token }).count()
    };
    assert_eq!(kept(60, &mut client), 6);
    client.hear(Event::Leave(1));
    assert_eq!(kept(60, &mut client), 0, "its client has gone");
}
