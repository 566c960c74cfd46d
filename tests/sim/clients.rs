//! The clients: what they ask, of whom, and what they do when no answer comes.
//!
//! Some write keys of their own, each once; some write, compare, delete and read a few registers
//! together; some read lists page by page. Many requests carry a request id, and whoever does not
//! learn what became of such a request asks again at another node.

use crate::checks::Machine;
use crate::checks::acknowledged::Acknowledged;
use crate::checks::linearizable::{self, Open, Value};
use crate::checks::violated;
use crate::node::SimNode;
use crate::world::{Action, World};
use bytes::Bytes;
use paxos_ssh::node::event::{Event, Lookup, Read, Reply, RequestError, Write};
use paxos_ssh::store::command::{Condition, Operation, Outcome, VALUE_BYTES_MAX};
use paxos_ssh::wire::store_call::{Found, Query};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a node has for an answer.
const CLIENT_DEADLINE: Duration = Duration::from_secs(2);

/// How long a client waits for a node that may have stopped; longer than the node has.
const CLIENT_PATIENCE_MICROS: u64 = 3_000_000;

/// Registers that all clients share.
const REGISTERS: u64 = 3;

/// Keys on a page of a list: few, so that there are many pages.
const LISTED: u64 = 3;

/// Where values may be large, one in so many is.
const BULKY_EVERY: u64 = 16;

/// Pages of a list that are read before the client has seen enough.
const PAGES_MAX: u64 = 8;

/// What a node will answer, unless it dies.
struct Answer<T>(Arc<Mutex<Option<Result<T, RequestError>>>>);

enum Told<T> {
    Nothing,
    Answer(T),
    /// Certainly not applied.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl<T: Send + 'static> Answer<T> {
    fn new() -> (Answer<T>, Reply<T>) {
        let answer = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&answer);
        (Answer(answer), Box::new(move |told| *slot.lock().unwrap() = Some(told)))
    }

    fn look(&self) -> Told<T> {
        match self.0.lock().unwrap().take() {
            Some(Ok(answer)) => Told::Answer(answer),
            Some(Err(RequestError::NoQuorum(_) | RequestError::Busy(_))) => Told::Refused,
            Some(Err(RequestError::UnknownOutcome(_) | RequestError::Internal(_))) => Told::Unknown,
            // The node died, and its half of this with it.
            None if Arc::strong_count(&self.0) == 1 => Told::Unknown,
            None => Told::Nothing,
        }
    }
}

/// What a read found: the store's revision, and the value of the key.
type Seen = (u64, Option<Bytes>);

/// A write, from its first attempt to its last.
struct Request {
    key: Bytes,
    value: u64,
    operation: Operation,
    request_id: Option<String>,
    /// In the history, if the key is a register.
    register: Option<(Open, linearizable::Operation)>,
    /// Whether an attempt may have been applied although nobody said so.
    perhaps: bool,
}

enum Waiting {
    Write { request: Request, answer: Answer<Outcome> },
    Read { floor: u64, register: u64, open: Open, answer: Answer<Seen> },
    List { listing: Listing, answer: Answer<Found> },
}

/// A list that is read page by page, through a node without a store.
struct Listing {
    floor: u64,
    machine: Machine,
    life: u64,
    token: u64,
    page: u64,
    /// The last key of the page before, and the revision of all pages.
    before: Option<(Bytes, u64)>,
}

impl Listing {
    /// What asks for the next page.
    fn event(&self, deadline: Duration, reply: Reply<Found>) -> Event {
        let query = Query::List {
            prefix: Bytes::from_static(b"c"),
            after: self.before.as_ref().map(|(key, _)| key.clone()),
            keys_only: false,
            limit: LISTED,
        };
        let (token, page, linearizable) = (self.token, self.page, true);
        Event::Lookup(Lookup { token, page, linearizable, deadline, query, reply })
    }

    /// Whether there are more pages to be read behind this one, which must follow the one before.
    fn turn(&mut self, found: &Found, acknowledged: &mut Acknowledged) -> bool {
        acknowledged.read(self.floor, found.revision);
        let mut last = self.before.as_ref().map(|(key, _)| key.clone());
        for record in &found.records {
            assert!(last.as_ref().is_none_or(|last| *last < record.key), "a page came twice");
            last = Some(record.key.clone());
        }
        // As a node does for its clients, who hear then that the list is lost.
        let is_same = self.before.as_ref().is_none_or(|(_, revision)| *revision == found.revision);
        self.before = last.map(|key| (key, found.revision));
        self.page += 1;
        is_same && !found.ended && self.page < PAGES_MAX
    }
}

#[derive(Default)]
struct Client {
    done: u64,
    waiting: Option<Waiting>,
    /// When it was asked.
    since: u64,
    /// Asked before and not known: asked again.
    again: Option<Request>,
    /// What it last saw in each register.
    seen: BTreeMap<u64, Value>,
    /// Asks nobody else, if somebody is named.
    only: Option<Machine>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Clients {
    clients: BTreeMap<u64, Client>,
    /// Makes values and names unique.
    next: u64,
}

impl Clients {
    /// What each client will have got done when the cluster works again.
    pub fn goal(&self) -> BTreeMap<u64, u64> {
        self.clients.iter().map(|(id, client)| (*id, client.done + 4)).collect()
    }

    pub fn has_reached(&self, goal: &BTreeMap<u64, u64>) -> bool {
        goal.iter().all(|(id, done)| self.clients.get(id).is_some_and(|c| c.done >= *done))
    }

    /// Who has not got so far, and what they do.
    pub fn stuck(&self, goal: &BTreeMap<u64, u64>) -> Vec<String> {
        let behind = self.clients.iter().filter(|(id, client)| client.done < goal[id]);
        let tell = |(id, client): (&u64, &Client)| {
            let what = match &client.waiting {
                None => "asks nobody".to_owned(),
                Some(Waiting::Write { request, .. }) => format!("writes {:?}", request.key),
                Some(Waiting::Read { register, .. }) => format!("reads register {register}"),
                Some(Waiting::List { listing, .. }) => format!("lists at {}", listing.machine),
            };
            format!("client {id} did {} of {}, {what}", client.done, goal[id])
        };
        behind.map(tell).collect()
    }

    /// All clients go home; what they wait for stays unknown.
    pub fn leave(&mut self) {
        self.clients.clear();
    }

    pub fn done(&self, client: u64) -> u64 {
        self.clients.get(&client).map_or(0, |client| client.done)
    }
}

fn register_key(register: u64) -> Bytes {
    Bytes::from(format!("r{register}"))
}

/// The number that a value begins with; the rest is there to be large.
fn as_value(bytes: &Bytes) -> Option<u64> {
    bytes.first_chunk().map(|number| u64::from_be_bytes(*number))
}

/// A value that says which number it has, the same for the same number.
fn value_of(number: u64, bulky: bool) -> Bytes {
    let mut value = number.to_be_bytes().to_vec();
    if bulky && number.is_multiple_of(BULKY_EVERY) {
        value.resize(VALUE_BYTES_MAX, number as u8);
    }
    Bytes::from(value)
}

impl World {
    pub fn add_client(&mut self, id: u64) {
        self.clients.clients.insert(id, Client::default());
        self.after(1_000, Action::Client(id));
    }

    /// A client that asks one node only, and only writes of its own.
    pub fn add_client_of(&mut self, id: u64, machine: Machine) {
        self.add_client(id);
        self.clients.clients.get_mut(&id).unwrap().only = Some(machine);
    }

    pub fn deadline(&self, machine: Machine) -> Duration {
        let driver = self.nodes[&machine].driver.as_ref();
        driver.map_or(Duration::ZERO, |driver| driver.now()) + CLIENT_DEADLINE
    }

    /// A client looks at its answer, and asks for the next thing.
    pub fn client(&mut self, id: u64) {
        let Some(mut client) = self.clients.clients.remove(&id) else { return };
        if let Some(waiting) = client.waiting.take() {
            client.waiting = self.look(&mut client, waiting);
        }
        if client.waiting.is_none() {
            self.ask(id, &mut client);
        }
        self.clients.clients.insert(id, client);
        let pause = self.random.between(500, 4_000);
        self.after(pause, Action::Client(id));
    }

    /// What the client goes on waiting for.
    fn look(&mut self, client: &mut Client, waiting: Waiting) -> Option<Waiting> {
        let late = self.micros() - client.since > CLIENT_PATIENCE_MICROS;
        match waiting {
            Waiting::Write { request, answer } => match answer.look() {
                Told::Nothing if !late => Some(Waiting::Write { request, answer }),
                told => {
                    self.settle(client, request, told);
                    None
                }
            },
            Waiting::Read { floor, register, open, answer } => match answer.look() {
                Told::Nothing if !late => Some(Waiting::Read { floor, register, open, answer }),
                Told::Answer((revision, value)) => {
                    self.checks.acknowledged.read(floor, revision);
                    let value = value.as_ref().and_then(as_value);
                    client.seen.insert(register, value);
                    let (read, now) = (linearizable::Operation::Read(value), self.micros());
                    self.checks.registers.end(open, read, now);
                    None
                }
                _ => None,
            },
            Waiting::List { mut listing, answer } => match answer.look() {
                Told::Nothing if !late => Some(Waiting::List { listing, answer }),
                Told::Answer(found) => {
                    let goes_on = listing.turn(&found, &mut self.checks.acknowledged);
                    let machine = listing.machine;
                    let same = |node: &SimNode| node.life == listing.life;
                    let same = self.nodes.get(&machine).is_some_and(same);
                    (goes_on && same && self.is_awake(machine)).then(|| {
                        client.since = self.micros();
                        let (answer, reply) = Answer::new();
                        let event = listing.event(self.deadline(machine), reply);
                        self.event(machine, event);
                        Waiting::List { listing, answer }
                    })
                }
                _ => None,
            },
        }
    }

    /// An attempt at a write is over.
    fn settle(&mut self, client: &mut Client, mut request: Request, told: Told<Outcome>) {
        match told {
            Told::Answer(outcome) => self.answered(client, request, &outcome),
            Told::Refused if !request.perhaps => match request.register {
                Some((open, _)) => self.checks.registers.forget(open),
                None => self.checks.acknowledged.refused(&request.key),
            },
            Told::Refused | Told::Unknown | Told::Nothing => {
                request.perhaps = true;
                if request.request_id.is_some() && self.random.per_mille(900) {
                    client.again = Some(request);
                }
            }
        }
    }

    fn answered(&mut self, client: &mut Client, request: Request, outcome: &Outcome) {
        let revision = match outcome {
            Outcome::Put { revision } | Outcome::Deleted { revision } => Some(*revision),
            Outcome::NotFound | Outcome::ConditionFailed { .. } => None,
            other => violated("sessions", &format!("{:?} was answered {other:?}", request.key)),
        };
        client.done += 1;
        if let (Some(id), Some(revision)) = (&request.request_id, revision) {
            self.checks.sessions.told(id, revision);
        }
        let Some((open, asked)) = request.register else {
            let Some(revision) = revision else {
                violated("sessions", "a plain put failed");
            };
            let value = value_of(request.value, self.shape.bulky);
            self.checks.acknowledged.wrote(&request.key, value, revision);
            return;
        };
        if let Some(revision) = revision {
            self.checks.acknowledged.changed(revision);
        }
        let told = Some(revision.is_some());
        let operation = match asked {
            linearizable::Operation::WriteIf { holds, value, .. } => {
                linearizable::Operation::WriteIf { holds, value, told }
            }
            linearizable::Operation::Delete { .. } => linearizable::Operation::Delete { told },
            plain => plain,
        };
        let now = self.micros();
        self.checks.registers.end(open, operation, now);
    }

    fn ask(&mut self, id: u64, client: &mut Client) {
        let machine = client.only.unwrap_or_else(|| self.any_machine());
        // That a node is stopped some know, and others learn from its silence.
        if !self.is_up(machine) || (!self.is_awake(machine) && self.random.per_mille(500)) {
            return;
        }
        client.since = self.micros();
        self.clients.next += 1;
        let draw = self.random.below(1_000);
        let waiting = if let Some(request) = client.again.take() {
            self.checks.sessions.repeated();
            self.write(id, machine, request)
        } else if draw < 400 || client.only.is_some() {
            let request = self.own_write(id);
            self.write(id, machine, request)
        } else if draw < 650 {
            let request = self.register_write(id, client);
            self.write(id, machine, request)
        } else {
            self.read(machine)
        };
        client.waiting = Some(waiting);
    }

    /// A write of a key that nobody else writes.
    fn own_write(&mut self, id: u64) -> Request {
        let number = self.clients.next;
        let key = Bytes::from(format!("c{id}-{number}"));
        let value = value_of(number, self.shape.bulky);
        let condition = Condition::Always;
        Request {
            key: key.clone(),
            value: number,
            operation: Operation::Put { key, value, condition },
            request_id: self.random.per_mille(500).then(|| format!("id{number}")),
            register: None,
            perhaps: false,
        }
    }

    /// A put, a conditional one, or a delete of a register.
    fn register_write(&mut self, id: u64, client: &Client) -> Request {
        let number = self.clients.next;
        let register = self.random.below(REGISTERS);
        let key = register_key(register);
        let value = value_of(number, self.shape.bulky);
        let put = |condition| Operation::Put { key: key.clone(), value, condition };
        let (operation, asked) = match self.random.below(4) {
            0 | 1 => (put(Condition::Always), linearizable::Operation::Write(number)),
            2 => {
                let holds = client.seen.get(&register).copied().flatten();
                let condition = holds.map_or(Condition::Absent, |held| {
                    Condition::Value(value_of(held, self.shape.bulky))
                });
                let asked = linearizable::Operation::WriteIf { holds, value: number, told: None };
                (put(condition), asked)
            }
            _ => {
                let delete = Operation::Delete { key: key.clone(), condition: Condition::Always };
                (delete, linearizable::Operation::Delete { told: None })
            }
        };
        let open = self.checks.registers.begin(register, asked, self.now().as_micros() as u64);
        Request {
            key,
            value: number,
            operation,
            request_id: self.random.per_mille(600).then(|| format!("id{id}-{number}")),
            register: Some((open, asked)),
            perhaps: false,
        }
    }

    fn write(&mut self, id: u64, machine: Machine, request: Request) -> Waiting {
        self.checks.validity.asked(&request.operation);
        let (answer, reply) = Answer::new();
        let write = Write {
            principal: format!("client{id}"),
            operation: request.operation.clone(),
            request_id: request.request_id.clone(),
            deadline: self.deadline(machine),
            reply,
        };
        self.event(machine, Event::Write(write));
        Waiting::Write { request, answer }
    }

    /// A register, or, through a node without a store, a list.
    fn read(&mut self, machine: Machine) -> Waiting {
        let floor = self.checks.acknowledged.revision();
        let deadline = self.deadline(machine);
        let node = self.nodes.get_mut(&machine).unwrap();
        let views = node.driver.as_ref().unwrap().views();
        let has_store = views.load().is_some();
        let (token, life) = (node.lookups, node.life);
        node.lookups += u64::from(!has_store);
        if !has_store && self.random.per_mille(500) {
            let (answer, reply) = Answer::new();
            let listing = Listing { floor, machine, life, token, page: 0, before: None };
            let event = listing.event(deadline, reply);
            self.event(machine, event);
            return Waiting::List { listing, answer };
        }
        let register = self.random.below(REGISTERS);
        let key = register_key(register);
        let now = self.micros();
        let open = self.checks.registers.begin(register, linearizable::Operation::Read(None), now);
        let (answer, told) = Answer::<Seen>::new();
        let event = if has_store {
            let reply = Box::new(move |allowed: Result<(), RequestError>| {
                let view = views.load_full().expect("a learner stays one");
                told(allowed.map(|()| (view.revision(), view.get(&key).map(|found| found.value))));
            });
            Event::Read(Read { deadline, reply })
        } else {
            let reply = Box::new(move |found: Result<Found, RequestError>| {
                told(found.map(|found| {
                    let value = found.records.into_iter().next().and_then(|record| record.value);
                    (found.revision, value)
                }));
            });
            let (page, linearizable, query) = (0, true, Query::Get { key });
            Event::Lookup(Lookup { token, page, linearizable, query, deadline, reply })
        };
        self.event(machine, event);
        Waiting::Read { floor, register, open, answer }
    }
}
