//! The network, the faults, the clients and the clock.

use crate::checker::Checker;
use crate::node::SimNode;
use crate::random::Random;
use bytes::Bytes;
use paxos_ssh::disk::Log;
use paxos_ssh::node::event::{Event, Lookup, Read, RequestError, Transfer, Write};
use paxos_ssh::node::world::TICK;
use paxos_ssh::paxos::ballot::{Ballot, ClusterId, NodeId, ProposerId, Slot, VoterGeneration};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::Note;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::store::command::{Condition, Operation, Outcome};
use paxos_ssh::wire::peer::{PeerMessage, decode_peer, encode_peer};
use paxos_ssh::wire::store_call::{Found, Query};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the faults go on, in simulated time.
const FAULT_PHASE: Duration = Duration::from_secs(8);

/// Once healed, everything must work again within this time: several of the longest backoffs.
const LIVENESS_BOUND: Duration = Duration::from_secs(20);

/// How long a client waits for its answer.
const CLIENT_DEADLINE: Duration = Duration::from_secs(2);

/// What a seed draws: how many nodes, under which quorums, and how bad the world is.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Of each node, from node 1 on.
    roles: Vec<Mix>,
    phase1: u16,
    phase2: u16,
    window: u32,
    loss_per_mille: u64,
    duplicate_per_mille: u64,
    delay_max_micros: u64,
    sync_max_micros: u64,
    fault_every_millis: u64,
    clients: u64,
}

/// Which roles a node has; none makes a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mix {
    proposes: bool,
    accepts: bool,
    learns: bool,
}

impl Mix {
    const ALL: Mix = Mix { proposes: true, accepts: true, learns: true };
    const PROPOSER: Mix = Mix { proposes: true, accepts: false, learns: false };
    const ACCEPTOR: Mix = Mix { proposes: false, accepts: true, learns: false };
    const LEARNER: Mix = Mix { proposes: false, accepts: false, learns: true };
    const CLIENT: Mix = Mix { proposes: false, accepts: false, learns: false };

    fn draw(random: &mut Random) -> Mix {
        let mut has = || random.per_mille(500);
        Mix { proposes: has(), accepts: has(), learns: has() }
    }
}

/// Half of all clusters have nodes of all roles, a quarter one role a node, a quarter any mix.
fn draw_roles(random: &mut Random) -> Vec<Mix> {
    match random.below(4) {
        0 | 1 => vec![Mix::ALL; [1, 3, 3, 3, 5][random.below(5) as usize]],
        2 => {
            let mut roles = vec![Mix::PROPOSER; random.between(1, 3) as usize];
            roles.extend(vec![Mix::ACCEPTOR; [1, 3, 3, 5][random.below(4) as usize]]);
            roles.extend(vec![Mix::LEARNER; random.between(1, 2) as usize]);
            roles.extend(vec![Mix::CLIENT; random.below(2) as usize]);
            roles
        }
        _ => {
            let mut roles: Vec<Mix> =
                (0..random.between(2, 6)).map(|_| Mix::draw(random)).collect();
            // Nobody can do without any of the three.
            let last = roles.len() - 1;
            roles[0].proposes |= !roles.iter().any(|mix| mix.proposes);
            roles[last].accepts |= !roles.iter().any(|mix| mix.accepts);
            roles[last].learns |= !roles.iter().any(|mix| mix.learns);
            roles
        }
    }
}

/// A majority for both phases, mostly; else any sizes that intersect.
fn draw_quorums(acceptors: u16, random: &mut Random) -> (u16, u16) {
    let majority = acceptors / 2 + 1;
    if random.per_mille(600) {
        return (majority, majority);
    }
    let phase1 = random.between(1, u64::from(acceptors)) as u16;
    let least = acceptors + 1 - phase1;
    (phase1, random.between(u64::from(least), u64::from(acceptors)) as u16)
}

impl Shape {
    pub fn draw(random: &mut Random) -> Shape {
        let roles = draw_roles(random);
        let acceptors = roles.iter().filter(|mix| mix.accepts).count() as u16;
        let (phase1, phase2) = draw_quorums(acceptors, random);
        Shape {
            roles,
            phase1,
            phase2,
            window: [4, 64, 4096][random.below(3) as usize],
            loss_per_mille: [0, 10, 100, 250][random.below(4) as usize],
            duplicate_per_mille: [0, 10, 200][random.below(3) as usize],
            delay_max_micros: [500, 5_000, 40_000][random.below(3) as usize],
            sync_max_micros: [300, 5_000, 60_000][random.below(3) as usize],
            fault_every_millis: [100, 300, 900][random.below(3) as usize],
            clients: random.between(1, 6),
        }
    }

    /// Nothing goes wrong.
    pub fn calm(nodes: u64) -> Shape {
        let majority = nodes as u16 / 2 + 1;
        Shape {
            roles: vec![Mix::ALL; nodes as usize],
            phase1: majority,
            phase2: majority,
            window: 4096,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            delay_max_micros: 500,
            sync_max_micros: 500,
            fault_every_millis: u64::MAX,
            clients: 0,
        }
    }
}

/// What is due at some time.
enum Action {
    Deliver { to: NodeId, from: NodeId, message: PeerMessage },
    Synced { node: NodeId, life: u64 },
    Tick { node: NodeId, life: u64 },
    Restart(NodeId),
    Resume(NodeId),
    Mend((NodeId, NodeId)),
    Fault,
    Client(u64),
    Evidence { at: NodeId, about: NodeId },
}

/// Keys on a page of a list: few, so that there are many pages.
const LISTED: u64 = 3;

/// Pages of a list that are read before the client has seen enough.
const PAGES_MAX: u64 = 8;

/// What a client waits for; filled in by the driver's reply.
#[derive(Clone)]
enum Waiting {
    Write {
        key: Vec<u8>,
        value: Vec<u8>,
        answer: Arc<Mutex<Option<Result<Outcome, RequestError>>>>,
    },
    /// The answer is the revision that the node showed when it allowed the read.
    Read {
        floor: u64,
        answer: Arc<Mutex<Option<Result<u64, RequestError>>>>,
    },
    List(Listing),
}

/// A list that is read page by page, through a node without a store.
#[derive(Clone)]
struct Listing {
    floor: u64,
    node: NodeId,
    life: u64,
    token: u64,
    page: u64,
    /// The last key of the page before, and the revision of all pages.
    before: Option<(Bytes, u64)>,
    answer: Arc<Mutex<Option<Result<Found, RequestError>>>>,
}

impl Listing {
    /// What asks for the next page.
    fn event(&self, deadline: Duration) -> Event {
        let slot = Arc::clone(&self.answer);
        Event::Lookup(Lookup {
            token: self.token,
            page: self.page,
            linearizable: true,
            deadline,
            query: Query::List {
                prefix: Bytes::from_static(b"c"),
                after: self.before.as_ref().map(|(key, _)| key.clone()),
                limit: LISTED,
                keys_only: false,
            },
            reply: Box::new(move |found| *slot.lock().unwrap() = Some(found)),
        })
    }

    /// Whether there are more pages to be read behind this one, which must follow the one before.
    fn turn(&mut self, found: &Found, checker: &Checker) -> bool {
        checker.read(self.floor, found.revision);
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
    written: u64,
    waiting: Option<Waiting>,
}

pub struct World {
    seed: u64,
    shape: Shape,
    random: Random,
    now_micros: Arc<AtomicU64>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    actions: BTreeMap<u64, Action>,
    next_action: u64,
    nodes: BTreeMap<NodeId, SimNode>,
    cut: BTreeSet<(NodeId, NodeId)>,
    clients: BTreeMap<u64, Client>,
    faulty: bool,
    pub checker: Checker,
    trace: String,
    campaigns: u64,
}

impl World {
    pub fn new(seed: u64, shape: Shape) -> World {
        let mut world = World {
            seed,
            random: Random::new(seed ^ 0xA5A5),
            now_micros: Arc::default(),
            queue: BinaryHeap::new(),
            actions: BTreeMap::new(),
            next_action: 0,
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            clients: BTreeMap::new(),
            faulty: true,
            checker: Checker::default(),
            trace: String::new(),
            campaigns: 0,
            shape,
        };
        world.form();
        for client in 0..world.shape.clients {
            world.clients.insert(client, Client::default());
            world.after(1_000, Action::Client(client));
        }
        if world.shape.fault_every_millis < u64::MAX {
            world.after(world.shape.fault_every_millis * 1000, Action::Fault);
        }
        world
    }

    /// Gives every node its genesis, durably, and starts it.
    fn form(&mut self) {
        let seed = self.seed;
        let generation = move |id: u64| VoterGeneration(seed.wrapping_mul(31) + id);
        let members: BTreeMap<NodeId, Member> = (1..)
            .zip(&self.shape.roles)
            .map(|(id, mix)| {
                let roles = Roles {
                    proposer: mix.proposes.then(|| ProposerId::new(id).unwrap()),
                    acceptor: mix.accepts.then(|| generation(id)),
                    learner: mix.learns,
                };
                let name = format!("node{id}");
                (NodeId(id), Member { name: name.clone(), address: name, roles })
            })
            .collect();
        let acceptors = members.values().filter(|m| m.roles.acceptor.is_some()).count();
        let acceptors = u16::try_from(acceptors).unwrap();
        let quorums =
            QuorumSystem::flexible(acceptors, self.shape.phase1, self.shape.phase2).unwrap();
        let configuration =
            Configuration::new(ConfigurationNumber(1), members.clone(), quorums).unwrap();
        let cluster = ClusterId(u128::from(self.seed));
        let genesis = Genesis { cluster, configuration, window: self.shape.window };
        for (id, member) in members {
            let node = SimNode::new(id);
            let (mut log, _) = node.disk.open().unwrap();
            log.append(vec![Record::Genesis {
                genesis: genesis.clone(),
                generation: member.roles.acceptor,
            }]);
            node.disk.sync();
            self.nodes.insert(id, node);
            self.start(id);
        }
    }

    pub fn now(&self) -> Duration {
        Duration::from_micros(self.micros())
    }

    pub fn trace(&self) -> String {
        self.trace.clone()
    }

    /// How often anybody started phase 1.
    pub fn campaigns(&self) -> u64 {
        self.campaigns
    }

    fn micros(&self) -> u64 {
        self.now_micros.load(Ordering::Relaxed)
    }

    fn after(&mut self, micros: u64, action: Action) {
        self.next_action += 1;
        self.queue.push(Reverse((self.micros() + micros, self.next_action)));
        self.actions.insert(self.next_action, action);
    }

    fn note(&mut self, line: &str) {
        let _ = writeln!(self.trace, "{:>9} {line}", self.micros());
    }

    fn start(&mut self, id: NodeId) {
        let now_micros = Arc::clone(&self.now_micros);
        let node = self.nodes.get_mut(&id).unwrap();
        node.start(&now_micros, &mut self.random);
        let life = node.life;
        self.after(TICK.as_micros() as u64, Action::Tick { node: id, life });
    }

    /// Lets time run until `until`, or until `done`.
    fn run(&mut self, until: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        while let Some(Reverse((due, id))) = self.queue.pop() {
            if due > until.as_micros() as u64 {
                self.queue.push(Reverse((due, id)));
                break;
            }
            self.now_micros.store(due, Ordering::Relaxed);
            let action = self.actions.remove(&id).expect("every entry has an action");
            self.act(action);
            if done(self) {
                return true;
            }
        }
        self.now_micros.store(until.as_micros() as u64, Ordering::Relaxed);
        done(self)
    }

    pub fn run_faults(&mut self) {
        self.run(FAULT_PHASE, |_| false);
    }

    /// Ends all faults, then demands that every node answers a write and a read, and that all
    /// agree.
    pub fn heal_and_check(&mut self) {
        self.note("heal");
        self.faulty = false;
        self.cut.clear();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in &ids {
            let node = self.nodes.get_mut(id).unwrap();
            node.paused = false;
            if node.driver.is_none() {
                self.start(*id);
            } else {
                self.resume(*id);
            }
        }
        let before: BTreeMap<u64, u64> =
            self.clients.iter().map(|(id, client)| (*id, client.written)).collect();
        let deadline = self.now() + LIVENESS_BOUND;
        let lively = self.run(deadline, |world| {
            world.clients.iter().all(|(id, client)| client.written >= before[id] + 4)
        });
        assert!(lively, "healed, but clients are stuck: {:?}", self.statuses());
        self.clients.clear();
        let deadline = self.now() + LIVENESS_BOUND;
        let level = self.run(deadline, |world| {
            let roles = &world.shape.roles;
            // Clients hold no log.
            let with_role = |node: &&SimNode| roles[node.id.0 as usize - 1] != Mix::CLIENT;
            let chosen: Vec<Slot> = world.nodes.values().filter(with_role).map(applied).collect();
            chosen.iter().all(|slot| *slot == chosen[0])
        });
        assert!(level, "healed, but the stores differ in length: {:?}", self.statuses());
        for node in self.nodes.values() {
            if let Some(view) = node.driver.as_ref().unwrap().views().load_full() {
                self.checker.complete(&view);
            }
        }
    }

    /// Runs until one node leads and all others follow it for an election timeout.
    pub fn run_until_stable_leader(&mut self) -> Duration {
        let settled = self.run(Duration::from_secs(60), |world| world.common_leader().is_some());
        assert!(settled, "nobody leads: {:?}", self.statuses());
        let at = self.now();
        let leader = self.common_leader();
        self.run(at + Duration::from_secs(2), |_| false);
        assert_eq!(self.common_leader(), leader, "the leader did not stay");
        at
    }

    fn common_leader(&self) -> Option<(NodeId, Ballot)> {
        let mut common = None;
        for node in self.nodes.values() {
            let status = node.driver.as_ref()?.replica()?.status();
            let leader = (status.leader?, status.ballot);
            if common.is_some_and(|known| known != leader) {
                return None;
            }
            common = Some(leader);
        }
        let (leader, ballot) = common?;
        let status = self.nodes[&leader].driver.as_ref()?.replica()?.status();
        (status.leading == Some(ballot)).then_some((leader, ballot))
    }

    fn statuses(&self) -> Vec<String> {
        let tell = |node: &SimNode| {
            let status = node.driver.as_ref().and_then(|d| d.replica()).map(|r| r.status());
            format!("{}: {status:?}", node.id)
        };
        self.nodes.values().map(tell).collect()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Deliver { to, from, message } => {
                let event = match message {
                    PeerMessage::Paxos(message) => Event::Peer(from, message),
                    PeerMessage::Call(call) => Event::StoreCall(from, call),
                    PeerMessage::Answer(answer) => Event::StoreAnswer(from, answer),
                    PeerMessage::Trace(message) => Event::TraceMessage(from, message),
                };
                self.event(to, event);
            }
            Action::Synced { node: id, life } => {
                let node = self.nodes.get_mut(&id).unwrap();
                if node.life == life && node.driver.is_some() {
                    node.syncing = false;
                    let position = node.disk.sync();
                    self.event(id, Event::Persisted(position, Duration::from_micros(300)));
                }
            }
            Action::Tick { node: id, life } => {
                if self.nodes[&id].life == life && self.nodes[&id].driver.is_some() {
                    self.event(id, Event::Tick);
                    self.after(TICK.as_micros() as u64, Action::Tick { node: id, life });
                }
            }
            Action::Restart(id) => {
                if self.nodes[&id].driver.is_none() {
                    self.note(&format!("restart {id}"));
                    self.start(id);
                }
            }
            Action::Resume(id) => {
                self.nodes.get_mut(&id).unwrap().paused = false;
                self.resume(id);
            }
            Action::Mend(link) => {
                self.cut.remove(&link);
            }
            Action::Fault => self.fault(),
            Action::Client(id) => self.client(id),
            Action::Evidence { at, about } => {
                if self.nodes[&about].driver.is_none() {
                    let error = "connection refused".to_owned();
                    self.event(at, Event::LinkDown { peer: about, refused: true, error });
                }
            }
        }
    }

    /// Hands an event to a node and carries on what comes of it. A paused node is deaf.
    fn event(&mut self, id: NodeId, event: Event) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.paused {
            if matches!(event, Event::Persisted(..)) {
                let life = node.life;
                self.after(10_000, Action::Synced { node: id, life });
            }
            return;
        }
        let Some(driver) = &mut node.driver else { return };
        driver.handle(event);
        driver.finish();
        let notes = driver.take_notes();
        if let Some(store) = driver.store() {
            self.checker.applied(id.0, store.applied(), store.digest());
        }
        for note in notes {
            self.campaigns += u64::from(matches!(note, Note::Campaigning(_)));
            self.note(&format!("{id} {note:?}"));
        }
        self.collect(id);
    }

    fn resume(&mut self, id: NodeId) {
        self.collect(id);
    }

    /// Puts what a node sent on the network and its sync on the clock.
    fn collect(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let sent = std::mem::take(&mut *node.outbox.lock().unwrap());
        let life = node.life;
        if node.wants_sync.swap(false, Ordering::Relaxed) {
            if node.syncing {
                node.wants_sync.store(true, Ordering::Relaxed);
            } else {
                node.syncing = true;
                let most = self.shape.sync_max_micros;
                let micros = self.random.between(50, most);
                self.after(micros, Action::Synced { node: id, life });
            }
        }
        for (to, message) in sent {
            let decoded = decode_peer(&encode_peer(&message));
            assert_eq!(decoded.as_ref(), Ok(&message), "a message changed on its way");
            for peer in to {
                self.transmit(id, peer, &message);
            }
        }
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let lost = self.faulty && self.random.per_mille(self.shape.loss_per_mille);
        let twice = self.faulty && self.random.per_mille(self.shape.duplicate_per_mille);
        for _ in 0..(if lost { 0 } else { 1 + u64::from(twice) }) {
            let micros = self.random.between(30, self.shape.delay_max_micros);
            self.after(micros, Action::Deliver { to, from, message: message.clone() });
        }
    }

    fn any_node(&mut self) -> NodeId {
        NodeId(self.random.between(1, self.shape.roles.len() as u64))
    }

    fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let every = self.shape.fault_every_millis * 1000;
        let wait = self.random.between(every / 2, every * 2);
        self.after(wait, Action::Fault);
        let id = self.any_node();
        let length = self.random.between(20_000, 2_000_000);
        match self.random.below(6) {
            0 | 1 => self.crash(id, length),
            2 => {
                self.note(&format!("pause {id}"));
                self.nodes.get_mut(&id).unwrap().paused = true;
                self.after(length, Action::Resume(id));
            }
            3 | 4 => {
                let to = self.any_node();
                self.note(&format!("cut {id} -> {to}"));
                self.cut.insert((id, to));
                self.after(length, Action::Mend((id, to)));
                if self.random.per_mille(500) {
                    self.cut.insert((to, id));
                    self.after(length, Action::Mend((to, id)));
                }
            }
            _ => {
                self.note(&format!("{id} asks for another leader"));
                let deadline = self.deadline(id);
                let transfer = Transfer { to: None, deadline, reply: Box::new(|_| ()) };
                self.event(id, Event::Transfer(transfer));
            }
        }
    }

    fn crash(&mut self, id: NodeId, length: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.driver.is_none() {
            return;
        }
        let kept = self.random.below(node.disk.unsynced() as u64 + 1);
        node.crash(kept as usize);
        self.note(&format!("crash {id}, {kept} unsynced records kept"));
        self.after(length, Action::Restart(id));
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|at| *at != id).collect();
        for at in others {
            if self.random.per_mille(500) {
                self.after(2_000, Action::Evidence { at, about: id });
            }
        }
    }

    fn deadline(&self, id: NodeId) -> Duration {
        let driver = self.nodes[&id].driver.as_ref();
        driver.map_or(Duration::ZERO, |driver| driver.now()) + CLIENT_DEADLINE
    }

    /// A client looks at its answer, and asks for the next thing.
    fn client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let answered = match client.waiting.clone() {
            None => true,
            Some(Waiting::List(listing)) => self.listed(id, listing),
            Some(waiting) => Self::answered(client, waiting, &mut self.checker),
        };
        let pause = self.random.between(500, 4_000);
        self.after(pause, Action::Client(id));
        if answered {
            self.ask(id);
        }
    }

    /// Whether the list was read far enough, or came to nothing; else has the next page read.
    fn listed(&mut self, id: u64, mut listing: Listing) -> bool {
        let answer = listing.answer.lock().unwrap().take();
        let goes_on = match answer {
            None if Arc::strong_count(&listing.answer) > 2 => return false,
            Some(Ok(found)) => listing.turn(&found, &self.checker),
            None | Some(Err(_)) => false,
        };
        let node = &self.nodes[&listing.node];
        if goes_on && node.life == listing.life && node.driver.is_some() && !node.paused {
            let event = listing.event(self.deadline(listing.node));
            let at = listing.node;
            self.clients.get_mut(&id).unwrap().waiting = Some(Waiting::List(listing));
            self.event(at, event);
            return false;
        }
        self.clients.get_mut(&id).unwrap().waiting = None;
        true
    }

    /// Whether the answer is there, or never will be because the node died.
    fn answered(client: &mut Client, waiting: Waiting, checker: &mut Checker) -> bool {
        let done = match waiting {
            Waiting::Write { key, value, answer } => match answer.lock().unwrap().take() {
                Some(Ok(Outcome::Put { revision })) => {
                    checker.wrote(&key, &value, revision);
                    client.written += 1;
                    true
                }
                Some(Ok(other)) => panic!("a plain put was answered {other:?}"),
                Some(Err(_)) => true,
                None => Arc::strong_count(&answer) == 2,
            },
            Waiting::List(_) => unreachable!("lists are looked at on their own"),
            Waiting::Read { floor, answer } => match answer.lock().unwrap().take() {
                Some(Ok(seen)) => {
                    checker.read(floor, seen);
                    true
                }
                Some(Err(_)) => true,
                None => Arc::strong_count(&answer) == 2,
            },
        };
        if done {
            client.waiting = None;
        }
        done
    }

    fn ask(&mut self, id: u64) {
        let node = self.any_node();
        let deadline = self.deadline(node);
        if self.nodes[&node].driver.is_none() || self.nodes[&node].paused {
            return;
        }
        let number = self.next_action;
        if self.random.per_mille(600) {
            let key = format!("c{id}-{number}").into_bytes();
            let value = number.to_be_bytes().to_vec();
            let answer = Arc::new(Mutex::new(None));
            let slot = Arc::clone(&answer);
            let write = Write {
                principal: format!("client{id}"),
                operation: Operation::Put {
                    key: Bytes::from(key.clone()),
                    value: Bytes::from(value.clone()),
                    condition: Condition::Always,
                },
                request_id: None,
                deadline,
                reply: Box::new(move |outcome| *slot.lock().unwrap() = Some(outcome)),
            };
            let waiting = Waiting::Write { key, value, answer };
            self.clients.get_mut(&id).unwrap().waiting = Some(waiting);
            self.event(node, Event::Write(write));
        } else {
            let answer = Arc::new(Mutex::new(None));
            let slot = Arc::clone(&answer);
            let views = self.nodes[&node].driver.as_ref().unwrap().views();
            let token = self.nodes[&node].lookups;
            if views.load().is_none() {
                self.nodes.get_mut(&node).unwrap().lookups += 1;
                if self.random.per_mille(500) {
                    let (floor, life) = (self.checker.revision(), self.nodes[&node].life);
                    let answer = Arc::default();
                    let listing =
                        Listing { floor, node, life, token, page: 0, before: None, answer };
                    let event = listing.event(deadline);
                    self.clients.get_mut(&id).unwrap().waiting = Some(Waiting::List(listing));
                    self.event(node, event);
                    return;
                }
            }
            let event = if views.load().is_some() {
                let reply = Box::new(move |allowed: Result<(), RequestError>| {
                    let view = views.load_full().expect("a learner stays one");
                    *slot.lock().unwrap() = Some(allowed.map(|()| view.revision()));
                });
                Event::Read(Read { deadline, reply })
            } else {
                let reply = Box::new(move |found: Result<Found, RequestError>| {
                    *slot.lock().unwrap() = Some(found.map(|found| found.revision));
                });
                let query = Query::Get { key: Bytes::from_static(b"k") };
                let (page, linearizable) = (0, true);
                Event::Lookup(Lookup { token, page, linearizable, query, deadline, reply })
            };
            let waiting = Waiting::Read { floor: self.checker.revision(), answer };
            self.clients.get_mut(&id).unwrap().waiting = Some(waiting);
            self.event(node, event);
        }
    }
}

fn applied(node: &SimNode) -> Slot {
    node.driver.as_ref().map_or(Slot(0), |driver| driver.applied())
}
