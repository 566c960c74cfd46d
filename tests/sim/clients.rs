//! The clients: what they ask, of whom, and what they do when no answer comes.
//!
//! Some write keys of their own, each once; some write, compare, delete and read a few registers
//! together; some read lists, page by page where a node has no store. Many requests carry a request
//! id. Whoever does not learn what became of such a request asks again at another node, and some
//! ask again although they know, or give another request the same id.

use crate::checks::Machine;
use crate::checks::acknowledged::Acknowledged;
use crate::checks::linearizable::{self, Open};
use crate::checks::violated;
use crate::node::SimNode;
use crate::world::{Action, World};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use paxos_ssh::node::driver::StoreView;
use paxos_ssh::node::event::{Event, Lookup, Read, Reply, RequestError, Write};
use paxos_ssh::store::command::{Condition, Operation, Outcome, VALUE_BYTES_MAX};
use paxos_ssh::wire::answer::Record;
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

/// The number of the first client that asks one node for one thing of each kind.
const PROBES: u64 = 100_000;

/// What the names of keys begin with that are written once.
const OWN_KEYS: &[u8] = b"c";

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

/// What a read found: the store's revision, and the key's value with the revision that made it.
type Seen = (u64, Option<(Bytes, u64)>);

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
    /// What must be answered, of a request that is repeated although it was answered.
    known: Option<Outcome>,
}

enum Waiting {
    Write {
        request: Request,
        answer: Answer<Outcome>,
    },
    Read {
        floor: u64,
        register: u64,
        open: Open,
        answer: Answer<Seen>,
    },
    List {
        listing: Listing,
        answer: Answer<Found>,
    },
    /// A list at a node with a store, of what follows a key.
    Page {
        floor: u64,
        after: Bytes,
        answer: Answer<Found>,
    },
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
            prefix: Bytes::from_static(OWN_KEYS),
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
        let after = self.before.as_ref().map(|(key, _)| key.clone()).unwrap_or_default();
        acknowledged.listed(&after, found);
        let last = found.records.last().map(|record| record.key.clone());
        let last = last.or(self.before.as_ref().map(|(key, _)| key.clone()));
        // As a node does for its clients, who hear then that the list is lost.
        let is_same = self.before.as_ref().is_none_or(|(_, revision)| *revision == found.revision);
        self.before = last.map(|key| (key, found.revision));
        self.page += 1;
        is_same && !found.ended && self.page < PAGES_MAX
    }
}

/// What a client got answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    writes: u64,
    reads: u64,
    lists: u64,
}

impl Done {
    fn reaches(&self, goal: &Done) -> bool {
        self.writes >= goal.writes && self.reads >= goal.reads && self.lists >= goal.lists
    }
}

/// What a client asks for.
enum Wish {
    OwnWrite,
    RegisterWrite,
    Read,
    List,
}

/// What a client's own line carries, about 30 Mbit/s. The network has no bounds of its own, and
/// without this one six clients with values of a megabyte write a gigabyte a second, which nobody
/// who lags could ever catch up with.
const LINE_BYTES_PER_MICRO: u64 = 4;

#[derive(Default)]
struct Client {
    done: Done,
    waiting: Option<Waiting>,
    /// When it was asked.
    since: u64,
    /// Asked before and not known: asked again.
    again: Option<Request>,
    /// What it last saw in each register, and since which revision it was there.
    seen: BTreeMap<u64, Option<(u64, u64)>>,
    /// Asks nobody else, if somebody is named.
    only: Option<Machine>,
    /// Asks for one thing of each kind, so that nobody is served only because somebody else is.
    is_probe: bool,
}

impl Waiting {
    /// Bytes of the value that it wants written.
    fn value_bytes(&self) -> u64 {
        match self {
            Waiting::Write {
                request: Request { operation: Operation::Put { value, .. }, .. },
                ..
            } => value.len() as u64,
            _ => 0,
        }
    }
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
    pub fn goal(&self) -> BTreeMap<u64, Done> {
        let more = |client: &Client| match client.is_probe {
            true => Done { writes: 1, reads: 1, lists: 1 },
            false => Done { writes: client.done.writes + 4, ..Done::default() },
        };
        self.clients.iter().map(|(id, client)| (*id, more(client))).collect()
    }

    /// Whether everybody got so far, but for those who ask only somebody that is `lost`.
    pub fn have_reached(&self, goal: &BTreeMap<u64, Done>, lost: impl Fn(Machine) -> bool) -> bool {
        let has =
            |client: &Client, goal| client.done.reaches(goal) || client.only.is_some_and(&lost);
        goal.iter().all(|(id, goal)| self.clients.get(id).is_some_and(|c| has(c, goal)))
    }

    /// Who has not got so far, and what they do.
    pub fn stuck(&self, goal: &BTreeMap<u64, Done>) -> Vec<String> {
        let behind = self.clients.iter().filter(|(id, client)| !client.done.reaches(&goal[id]));
        let tell = |(id, client): (&u64, &Client)| {
            let what = match &client.waiting {
                None => "asks nobody".to_owned(),
                Some(Waiting::Write { request, .. }) => format!("writes {:?}", request.key),
                Some(Waiting::Read { register, .. }) => format!("reads register {register}"),
                Some(Waiting::List { listing, .. }) => format!("lists at {}", listing.machine),
                Some(Waiting::Page { .. }) => "lists".to_owned(),
            };
            format!("client {id} did {:?} of {:?}, {what}", client.done, goal[id])
        };
        behind.map(tell).collect()
    }

    /// All clients go home; what they wait for stays unknown.
    pub fn leave(&mut self) {
        self.clients.clear();
    }

    pub fn done(&self, client: u64) -> u64 {
        self.clients.get(&client).map_or(0, |client| client.done.writes)
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
        let mut sent = 0;
        if client.waiting.is_none() {
            self.ask(id, &mut client);
            sent = client.waiting.as_ref().map_or(0, Waiting::value_bytes);
        }
        self.clients.clients.insert(id, client);
        let pause = self.random.between(500, 4_000) + sent / LINE_BYTES_PER_MICRO;
        self.after(pause, Action::Client(id));
    }

    /// A client that wants everything that a node does, of one node.
    pub fn add_probe(&mut self, machine: Machine) {
        let id = PROBES + machine.0;
        self.add_client_of(id, machine);
        self.clients.clients.get_mut(&id).unwrap().is_probe = true;
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
                    client.done.reads += 1;
                    self.checks.acknowledged.read(floor, revision);
                    let seen = value.and_then(|(value, since)| Some((as_value(&value)?, since)));
                    client.seen.insert(register, seen);
                    let value = seen.map(|(value, _)| value);
                    let (read, now) = (linearizable::Operation::Read(value), self.micros());
                    self.checks.registers.end(open, read, now);
                    None
                }
                _ => None,
            },
            Waiting::Page { floor, after, answer } => match answer.look() {
                Told::Nothing if !late => Some(Waiting::Page { floor, after, answer }),
                Told::Answer(found) => {
                    client.done.lists += 1;
                    self.checks.acknowledged.read(floor, found.revision);
                    self.checks.acknowledged.listed(&after, &found);
                    None
                }
                _ => None,
            },
            Waiting::List { mut listing, answer } => {
                let machine = listing.machine;
                let goes_on = match answer.look() {
                    Told::Nothing if !late => return Some(Waiting::List { listing, answer }),
                    Told::Answer(found) => {
                        client.done.lists += 1;
                        listing.turn(&found, &mut self.checks.acknowledged)
                    }
                    _ => false,
                };
                let is_same = |node: &SimNode| node.life == listing.life;
                if !self.nodes.get(&machine).is_some_and(is_same) {
                    return None;
                }
                if !goes_on || !self.is_awake(machine) {
                    self.event(machine, Event::Leave(listing.token));
                    return None;
                }
                client.since = self.micros();
                let (answer, reply) = Answer::new();
                let event = listing.event(self.deadline(machine), reply);
                self.event(machine, event);
                Some(Waiting::List { listing, answer })
            }
        }
    }

    /// An attempt at a write is over.
    fn settle(&mut self, client: &mut Client, mut request: Request, told: Told<Outcome>) {
        if let Some(known) = &request.known {
            if let Told::Answer(outcome) = told {
                self.checks.sessions.told(&request.key, known, &outcome);
            }
            return;
        }
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
        let may_fail = |condition: &Condition| *condition != Condition::Always;
        let revision = match (outcome, &request.operation) {
            (Outcome::Put { revision }, Operation::Put { .. })
            | (Outcome::Deleted { revision }, Operation::Delete { .. }) => Some(*revision),
            (Outcome::NotFound, Operation::Delete { .. }) => None,
            (
                Outcome::ConditionFailed { .. },
                Operation::Put { condition, .. } | Operation::Delete { condition, .. },
            ) if may_fail(condition) => None,
            (other, asked) => violated("sessions", &format!("{asked:?} was answered {other:?}")),
        };
        client.done.writes += 1;
        self.repeat_at_times(client, &request, outcome);
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
            linearizable::Operation::DeleteIf { holds, .. } => {
                linearizable::Operation::DeleteIf { holds, told }
            }
            plain => plain,
        };
        let now = self.micros();
        self.checks.registers.end(open, operation, now);
    }

    /// A person does not trust the answer and repeats the request, or gives another one its id.
    fn repeat_at_times(&mut self, client: &mut Client, request: &Request, outcome: &Outcome) {
        if request.request_id.is_none() || client.is_probe {
            return;
        }
        let key = Bytes::from_static(b"nobody's");
        let other = Operation::Delete { key, condition: Condition::Always };
        let (operation, known) = match self.random.below(1_000) {
            0..80 => (request.operation.clone(), outcome.clone()),
            80..100 => (other, Outcome::RequestIdReused),
            _ => return,
        };
        client.again = Some(Request {
            key: request.key.clone(),
            value: request.value,
            operation,
            request_id: request.request_id.clone(),
            register: None,
            perhaps: false,
            known: Some(known),
        });
    }

    fn ask(&mut self, id: u64, client: &mut Client) {
        let machine = client.only.unwrap_or_else(|| self.any_machine());
        // That a node is stopped some know, and others learn from its silence.
        if !self.is_up(machine) || (!self.is_awake(machine) && self.random.per_mille(500)) {
            return;
        }
        client.since = self.micros();
        self.clients.next += 1;
        let waiting = if let Some(request) = client.again.take() {
            self.checks.sessions.repeated();
            self.write(id, machine, request)
        } else {
            match self.wish(client) {
                Wish::OwnWrite => {
                    let request = self.own_write(id);
                    self.write(id, machine, request)
                }
                Wish::RegisterWrite => {
                    let request = self.register_write(id, client);
                    self.write(id, machine, request)
                }
                Wish::Read => self.read(machine),
                Wish::List => self.list(machine),
            }
        };
        client.waiting = Some(waiting);
    }

    /// What the client wants next.
    fn wish(&mut self, client: &Client) -> Wish {
        let done = client.done;
        if client.only.is_some() {
            return match client.is_probe && done.writes > 0 {
                true if done.reads == 0 => Wish::Read,
                true if done.lists == 0 => Wish::List,
                _ => Wish::OwnWrite,
            };
        }
        match self.random.below(1_000) {
            0..400 => Wish::OwnWrite,
            400..650 => Wish::RegisterWrite,
            650..880 => Wish::Read,
            _ => Wish::List,
        }
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
            known: None,
        }
    }

    /// A put or a delete of a register, half of them on a condition.
    fn register_write(&mut self, id: u64, client: &Client) -> Request {
        let number = self.clients.next;
        let register = self.random.below(REGISTERS);
        let key = register_key(register);
        let value = value_of(number, self.shape.bulky);
        let put = |condition| Operation::Put { key: key.clone(), value, condition };
        let seen = client.seen.get(&register).copied().flatten();
        let holds = seen.map(|(held, _)| held);
        let condition = match seen {
            None => Condition::Absent,
            // Each value is written once, so a revision stands for the value that it made.
            Some((_, since)) if self.random.per_mille(500) => Condition::Revision(since),
            Some((held, _)) => Condition::Value(value_of(held, self.shape.bulky)),
        };
        let delete = |condition| Operation::Delete { key: key.clone(), condition };
        let (operation, asked) = match self.random.below(8) {
            0..4 => (put(Condition::Always), linearizable::Operation::Write(number)),
            4..6 => {
                let asked = linearizable::Operation::WriteIf { holds, value: number, told: None };
                (put(condition), asked)
            }
            6 if seen.is_some() => {
                (delete(condition), linearizable::Operation::DeleteIf { holds, told: None })
            }
            _ => {
                let asked = linearizable::Operation::Delete { told: None };
                (delete(Condition::Always), asked)
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
            known: None,
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

    /// A register.
    fn read(&mut self, machine: Machine) -> Waiting {
        let floor = self.checks.acknowledged.revision();
        let deadline = self.deadline(machine);
        let register = self.random.below(REGISTERS);
        let key = register_key(register);
        let now = self.micros();
        let open = self.checks.registers.begin(register, linearizable::Operation::Read(None), now);
        let (answer, told) = Answer::<Seen>::new();
        let event = if let Some(views) = self.views(machine) {
            let reply = Box::new(move |allowed: Result<(), RequestError>| {
                let view = views.load_full().expect("a learner stays one");
                let found = view.get(&key).map(|found| (found.value, found.mod_revision));
                told(allowed.map(|()| (view.revision(), found)));
            });
            Event::Read(Read { deadline, reply })
        } else {
            let reply = Box::new(move |found: Result<Found, RequestError>| {
                told(found.map(|found| {
                    let record = found.records.into_iter().next();
                    let value = record.and_then(|record| Some((record.value?, record.revision)));
                    (found.revision, value)
                }));
            });
            let token = self.next_lookup(machine);
            let (page, linearizable, query) = (0, true, Query::Get { key });
            Event::Lookup(Lookup { token, page, linearizable, query, deadline, reply })
        };
        self.event(machine, event);
        Waiting::Read { floor, register, open, answer }
    }

    /// Keys that are written once: all, page by page, or some of them at once.
    fn list(&mut self, machine: Machine) -> Waiting {
        let floor = self.checks.acknowledged.revision();
        let deadline = self.deadline(machine);
        let (answer, told) = Answer::<Found>::new();
        let Some(views) = self.views(machine) else {
            let (token, life) = (self.next_lookup(machine), self.nodes[&machine].life);
            let listing = Listing { floor, machine, life, token, page: 0, before: None };
            let event = listing.event(deadline, told);
            self.event(machine, event);
            return Waiting::List { listing, answer };
        };
        let number = self.random.below(self.clients.next.max(1));
        let after = Bytes::from(format!("c{}-{number}", self.random.below(8)));
        let from = after.clone();
        let reply = Box::new(move |allowed: Result<(), RequestError>| {
            let view = views.load_full().expect("a learner stays one");
            let rows = view.list(OWN_KEYS, Some(&from), LISTED as usize);
            let ended = rows.len() < LISTED as usize;
            let records = rows.into_iter().map(|(key, found)| Record::new(key, found)).collect();
            told(allowed.map(|()| Found { revision: view.revision(), records, ended }));
        });
        self.event(machine, Event::Read(Read { deadline, reply }));
        Waiting::Page { floor, after, answer }
    }

    /// Where a node with a store shows it.
    fn views(&self, machine: Machine) -> Option<Arc<ArcSwapOption<StoreView>>> {
        let views = self.nodes[&machine].driver.as_ref()?.views();
        views.load().is_some().then_some(views)
    }

    fn next_lookup(&mut self, machine: Machine) -> u64 {
        let node = self.nodes.get_mut(&machine).unwrap();
        node.lookups += 1;
        node.lookups
    }
}
