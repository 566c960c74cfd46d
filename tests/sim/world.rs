//! A whole cluster in one thread: its clock, its queue of what is due, and how events reach nodes.
//!
//! What the network does is in `network`, what goes wrong in `faults`, what clients want in
//! `clients`, and what must hold in `checks`. A process starts, crashes and syncs here and nowhere
//! else.

use crate::atlas::Atlas;
use crate::checks::{Checks, Machine, violated};
use crate::clients::Clients;
use crate::disk::SimDisk;
use crate::network::{Fate, Link, Network, Weather};
use crate::node::SimNode;
use crate::random::Random;
use crate::shape::{Mix, Shape};
use crate::stats::Stats;
use crate::tape::Tape;
use paxos_ssh::disk::LogError;
use paxos_ssh::disk::log::LogSettings;
use paxos_ssh::node::event::{Event, Recall};
use paxos_ssh::node::recorder::Recalled;
use paxos_ssh::node::world::TICK;
use paxos_ssh::paxos::ballot::{Ballot, ClusterId, NodeId, ProposerId, Slot, VoterGeneration};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::Note;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::wire::event::Columns;
use paxos_ssh::wire::peer::{PeerMessage, decode_peer, encode_peer};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the faults go on, in simulated time.
const FAULT_PHASE: Duration = Duration::from_secs(8);

/// Once healed, everything must work again within this time: several of the longest backoffs.
const LIVENESS_BOUND: Duration = Duration::from_secs(20);

/// A process that could not start tries again after a time between these.
const START_AGAIN_MICROS: (u64, u64) = (20_000, 400_000);

/// After a start, links stand again after a time between these.
const REDIAL_MICROS: (u64, u64) = (1_000, 60_000);

/// A clone of node n is machine n plus this.
pub const CLONE: u64 = 1_000;

/// Events that wait for a stopped process; what comes then is lost, as behind full buffers.
const ASLEEP_MAX: usize = 5_000;

/// Every so many events a process tells how deep its queues are.
const DEPTHS_EVERY: u64 = 16;

/// What is due at some time.
pub enum Action {
    Deliver {
        to: NodeId,
        from: NodeId,
        message: PeerMessage,
    },
    Write {
        machine: Machine,
        life: u64,
    },
    Tick {
        machine: Machine,
        life: u64,
    },
    /// A process has taken in what came together.
    Finish {
        machine: Machine,
        life: u64,
    },
    Restart(Machine),
    Resume(Machine),
    Mend(Link),
    Unstall(Link),
    Quicken(Link),
    Flap {
        link: Link,
        left: u64,
        is_cut: bool,
    },
    LinkUp(Link),
    Evidence {
        at: Machine,
        about: Machine,
    },
    Room(Machine),
    Dark {
        machine: Machine,
        length: u64,
    },
    Crash {
        machine: Machine,
        length: u64,
    },
    Wipe {
        machine: Machine,
        behind: Machine,
        length: u64,
    },
    Fault,
    Client(u64),
}

/// See the module's documentation.
pub struct World {
    pub seed: u64,
    pub shape: Shape,
    pub random: Random,
    now_micros: u64,
    /// When, which of those that are due then, and where in `actions`.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    actions: Vec<Option<Action>>,
    /// Places in `actions` that are free.
    free: Vec<usize>,
    next_action: u64,
    pub nodes: BTreeMap<Machine, SimNode>,
    pub genesis: Option<Genesis>,
    /// Parts in a thousand of true time at which a machine's clock runs.
    rates: BTreeMap<Machine, u64>,
    /// What a machine's time of day is off by.
    pub wall_offsets: BTreeMap<Machine, u64>,
    pub network: Network,
    /// Links that do not stand again since one of their ends started.
    undialled: BTreeSet<Link>,
    asleep: BTreeMap<Machine, Vec<Event>>,
    pub clients: Clients,
    pub faulty: bool,
    pub atlas: Atlas,
    pub checks: Checks,
    pub stats: Stats,
    pub tape: Tape,
    /// Where to go on reading a process's recorder.
    recorders: BTreeMap<Machine, (u64, u64)>,
    columns: Columns,
    /// Proposers that noticed that somebody else has their id.
    pub clashes: u64,
    /// Until when a machine's syncs take.
    pub stalls: BTreeMap<Machine, u64>,
    /// Copies of directories that may be put back.
    pub backups: BTreeMap<Machine, SimDisk>,
}

impl World {
    pub fn new(seed: u64, shape: Shape, tape: &Tape) -> World {
        let mut world = World {
            seed,
            random: Random::new(seed ^ 0xA5A5),
            now_micros: 0,
            queue: BinaryHeap::new(),
            actions: Vec::new(),
            free: Vec::new(),
            next_action: 0,
            nodes: BTreeMap::new(),
            genesis: None,
            rates: BTreeMap::new(),
            wall_offsets: BTreeMap::new(),
            network: Network::default(),
            undialled: BTreeSet::new(),
            asleep: BTreeMap::new(),
            clients: Clients::default(),
            faulty: true,
            atlas: Atlas::new(&shape),
            checks: Checks::new(shape.phase1, shape.phase2),
            stats: Stats::default(),
            tape: tape.clone(),
            recorders: BTreeMap::new(),
            columns: Columns::default(),
            clashes: 0,
            stalls: BTreeMap::new(),
            backups: BTreeMap::new(),
            shape,
        };
        world.form();
        for client in 0..world.shape.clients {
            world.add_client(client);
        }
        if world.shape.fault_every_millis < u64::MAX {
            world.after(world.shape.fault_every_millis * 1000, Action::Fault);
        }
        world
    }

    /// Gives every machine its genesis, durably, and starts it.
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
        self.genesis = Some(genesis.clone());
        let clones = self.shape.cloned.map(|id| (NodeId(id + CLONE), NodeId(id)));
        let machines: Vec<(Machine, NodeId)> =
            members.keys().map(|id| (*id, *id)).chain(clones).collect();
        let names: Vec<String> = machines.iter().map(|(machine, _)| machine.to_string()).collect();
        self.columns = Columns::for_names(names.iter().map(String::as_str));
        for (machine, id) in machines {
            let disk = SimDisk::new(self.random.next());
            let settings = LogSettings { segment_bytes: self.shape.segment_bytes };
            let generation = members[&id].roles.acceptor;
            let mut node = SimNode::new(id, generation, disk, settings);
            let record = Record::Genesis { genesis: genesis.clone(), generation };
            node.found(record.clone());
            self.checks.appended(machine, vec![record]);
            self.nodes.insert(machine, node);
            let drift = self.shape.drift_per_mille;
            self.rates.insert(machine, 1_000 - drift + self.random.below(2 * drift + 1));
            self.start(machine);
        }
    }

    pub fn now(&self) -> Duration {
        Duration::from_micros(self.now_micros)
    }

    pub fn micros(&self) -> u64 {
        self.now_micros
    }

    pub fn after(&mut self, micros: u64, action: Action) {
        self.next_action += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.actions.push(None);
            self.actions.len() - 1
        });
        self.actions[place] = Some(action);
        self.queue.push(Reverse((self.now_micros + micros, self.next_action, place)));
    }

    pub fn note(&self, line: &str) {
        self.tape.note(self.now_micros, line);
    }

    pub fn is_up(&self, machine: Machine) -> bool {
        self.nodes.get(&machine).is_some_and(|node| node.driver.is_some())
    }

    pub fn is_awake(&self, machine: Machine) -> bool {
        self.is_up(machine) && !self.nodes[&machine].paused
    }

    /// Sets a machine's clocks to what they show now.
    fn set_clocks(&self, machine: Machine) {
        let rate = self.rates.get(&machine).copied().unwrap_or(1_000);
        let clocks = &self.nodes[&machine].clocks;
        clocks.monotonic_micros.store(self.now_micros * rate / 1_000, Ordering::Relaxed);
        let offset = self.wall_offsets.get(&machine).copied().unwrap_or(0);
        clocks.wall_micros.store(self.now_micros + offset, Ordering::Relaxed);
    }

    /// A tick of the machine's clock, in true time.
    fn tick_micros(&self, machine: Machine) -> u64 {
        TICK.as_micros() as u64 * 1_000 / self.rates[&machine].max(1)
    }

    /// Starts a process over what its disk holds; whether it runs then.
    pub fn start(&mut self, machine: Machine) -> bool {
        self.set_clocks(machine);
        self.asleep.remove(&machine);
        let node = self.nodes.get_mut(&machine).unwrap();
        let found = match node.start(&mut self.random) {
            Ok(found) => found,
            Err(error) => {
                self.refused(machine, &error);
                return false;
            }
        };
        let life = node.life;
        if self.atlas.may_have_forgotten(machine) {
            if self.checks.forgot(machine, &found) {
                *self.stats.faults.entry("memory lost").or_default() += 1;
                let is_voter = self.mix(machine).accepts && !self.atlas.has_lost_its_log(machine);
                self.stats.voters_forgot += u64::from(is_voter);
                // What it holds is a past that this machine never had any more.
                self.backups.remove(&machine);
            }
            if !self.nodes[&machine].disk.is_lying() {
                self.atlas.remembers_again(machine);
            }
        } else {
            self.checks.started(machine, &found);
        }
        self.recorders.insert(machine, (life, 0));
        self.connect(machine);
        self.tell_promise(machine);
        let micros = self.tick_micros(machine);
        self.after(micros, Action::Tick { machine, life });
        true
    }

    /// A process that starts dials the others, and is dialled; nothing gets through before.
    fn connect(&mut self, machine: Machine) {
        let others: Vec<Machine> = self.nodes.keys().copied().filter(|at| *at != machine).collect();
        for other in others {
            let micros = self.random.between(REDIAL_MICROS.0, REDIAL_MICROS.1);
            for link in [(machine, other), (other, machine)] {
                self.undialled.insert(link);
                self.after(micros, Action::LinkUp(link));
            }
        }
    }

    /// A process that was not there any more when it should have started: it tries again if that
    /// may help, and stays away if its log is damaged.
    fn refused(&mut self, machine: Machine, error: &LogError) {
        self.note(&format!("{machine} does not start: {error}"));
        if matches!(error, LogError::Io { .. }) {
            if !self.faulty {
                violated("liveness", &format!("{machine} cannot start over a sound disk: {error}"));
            }
            self.nodes[&machine].disk.kill();
            let micros = self.random.between(START_AGAIN_MICROS.0, START_AGAIN_MICROS.1);
            self.after(micros, Action::Restart(machine));
        } else if !self.atlas.refuse(machine) {
            let what = format!("{machine} refuses its log, and nothing was done to it: {error}");
            violated("durability", &what);
        }
    }

    /// Kills a process that runs, or cuts its power.
    pub fn crash(&mut self, machine: Machine) -> bool {
        let is_cut = self.random.per_mille(500);
        if !self.kill(machine) {
            return false;
        }
        self.note(&format!("{} {machine}", if is_cut { "power cut at" } else { "kill" }));
        let disk = &self.nodes[&machine].disk;
        if is_cut {
            disk.cut()
        } else {
            disk.kill()
        }
        true
    }

    /// Ends a process, if it runs.
    pub fn kill(&mut self, machine: Machine) -> bool {
        self.asleep.remove(&machine);
        let node = self.nodes.get_mut(&machine).unwrap();
        let ran = node.driver.is_some();
        if ran {
            node.kill();
        }
        ran
    }

    /// Lets time run until `until`, or until `done`.
    pub fn run(&mut self, until: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let until = until.as_micros() as u64;
        while let Some(Reverse((due, order, place))) = self.queue.pop() {
            if due > until {
                self.queue.push(Reverse((due, order, place)));
                break;
            }
            self.now_micros = due;
            let action = self.actions[place].take().expect("every entry has an action");
            self.free.push(place);
            self.act(action);
            self.stats.events += 1;
            if done(self) {
                return true;
            }
        }
        self.now_micros = until;
        done(self)
    }

    pub fn run_faults(&mut self) {
        let until = self.now() + FAULT_PHASE;
        self.run(until, |_| false);
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.note("everything is healed");
        self.faulty = false;
        self.checks.elections.healed();
        self.separate();
        for (link, held) in self.network.heal() {
            held.into_iter().for_each(|message| self.arrive(link, message, 1_000));
        }
        self.heal_disks();
        let machines: Vec<Machine> = self.nodes.keys().copied().collect();
        for machine in machines {
            if self.is_up(machine) {
                self.resume(machine);
            } else if !self.atlas.is_lost(machine) {
                self.start(machine);
            }
        }
    }

    /// Ends all faults, then demands that every node answers writes and reads, and that all agree.
    pub fn heal_and_check(&mut self) {
        self.heal();
        if self.atlas.goes_beyond() {
            // Nobody promises that the rest goes on, or that it knows all.
            let end = self.now() + LIVENESS_BOUND / 4;
            self.run(end, |_| false);
            self.clients.leave();
            return self.check_completeness(false);
        }
        for machine in self.able() {
            self.add_probe(machine);
        }
        let goal = self.clients.goal();
        let (healed, before) = (self.micros(), self.checks.acknowledged.count());
        let deadline = self.now() + LIVENESS_BOUND;
        let mut served = None;
        let lively = self.run(deadline, |world| {
            if served.is_none() && world.checks.acknowledged.count() > before {
                served = Some(world.micros() - healed);
            }
            // A log that was damaged before may be refused only now.
            world.clients.have_reached(&goal, |machine| world.atlas.is_lost(machine))
        });
        self.stats.millis_until_served.extend(served.map(|micros| micros / 1_000));
        self.stats.millis_until_all_served.push((self.micros() - healed) / 1_000);
        let stuck = if lively { Vec::new() } else { self.clients.stuck(&goal) };
        assert!(lively, "[liveness] healed, but {stuck:?}: {:?}", self.statuses());
        self.stats.campaigns_after_healing.push(self.checks.elections.settled());
        self.clients.leave();
        let deadline = self.now() + LIVENESS_BOUND;
        let level = self.run(deadline, |world| {
            let able = world.able();
            let mut applied = able.iter().filter(|m| world.has_log(**m)).map(|m| world.applied(*m));
            let first = applied.next().flatten();
            first.is_some() && applied.all(|slot| slot == first)
        });
        assert!(level, "[liveness] healed, but the logs differ in length: {:?}", self.statuses());
        self.check_completeness(true);
    }

    /// Machines that must work once everything is healed: all but those whose log is damaged, or
    /// gone and not founded anew.
    fn able(&self) -> Vec<Machine> {
        let is_able = |m: &Machine| !self.atlas.is_lost(*m) && !self.atlas.is_wiped(*m);
        self.nodes.keys().copied().filter(is_able).collect()
    }

    /// Clients hold no log.
    fn has_log(&self, machine: Machine) -> bool {
        self.mix(machine) != Mix::CLIENT
    }

    fn mix(&self, machine: Machine) -> Mix {
        self.shape.roles[self.nodes[&machine].id.0 as usize - 1]
    }

    /// Up to where a machine applied the log; nothing if it does not run.
    fn applied(&self, machine: Machine) -> Option<Slot> {
        let driver = self.nodes[&machine].driver.as_ref()?;
        driver.replica().map(|_| driver.applied())
    }

    /// An operator ends the second of two machines with one id: while both run, nobody promises
    /// that they do not outbid each other.
    fn separate(&mut self) {
        if let Some(id) = self.shape.cloned.take() {
            let machine = NodeId(id + CLONE);
            self.crash(machine);
            self.nodes.remove(&machine);
        }
    }

    /// What can be said once at the end, of stores that hold everything or not.
    fn check_completeness(&mut self, all: bool) {
        self.stats.lost_machines = self.atlas.lost();
        // Stores are shown at the end of a batch.
        let machines: Vec<Machine> = self.nodes.keys().copied().collect();
        machines.into_iter().for_each(|machine| self.finish(machine));
        let views: Vec<_> = self
            .nodes
            .values()
            .filter_map(|node| node.driver.as_ref()?.views().load_full())
            .collect();
        self.checks.complete(views.iter().map(AsRef::as_ref), all);
    }

    /// Runs until one node leads and all others follow it for an election timeout.
    pub fn run_until_stable_leader(&mut self) -> Duration {
        let until = self.now() + Duration::from_secs(60);
        let settled = self.run(until, |world| world.common_leader().is_some());
        assert!(settled, "[liveness] nobody leads: {:?}", self.statuses());
        let at = self.now();
        let leader = self.common_leader();
        self.run(at + Duration::from_secs(2), |_| false);
        assert_eq!(self.common_leader(), leader, "[liveness] the leader did not stay");
        at
    }

    pub fn common_leader(&self) -> Option<(NodeId, Ballot)> {
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

    /// Whoever leads under the highest ballot.
    pub fn newest_leader(&self) -> Option<NodeId> {
        let leading = |node: &SimNode| node.driver.as_ref()?.replica()?.status().leading;
        let leaders = self.nodes.values().filter_map(|node| Some((leading(node)?, node.id)));
        leaders.max().map(|(_, id)| id)
    }

    pub fn statuses(&self) -> Vec<String> {
        let tell = |(machine, node): (&Machine, &SimNode)| {
            let status = node.driver.as_ref().and_then(|d| d.replica()).map(|r| r.status());
            format!("{machine}: {status:?}")
        };
        self.nodes.iter().map(tell).collect()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Deliver { to, from, message } => self.deliver(to, from, message),
            Action::Write { machine, life } => self.write_step(machine, life),
            Action::Tick { machine, life } => {
                if self.is_up(machine) && self.nodes[&machine].life == life {
                    if self.is_awake(machine) {
                        self.event(machine, Event::Tick);
                        self.write_lazily(machine);
                    }
                    let micros = self.tick_micros(machine);
                    self.after(micros, Action::Tick { machine, life });
                }
            }
            Action::Finish { machine, life } => {
                let node = self.nodes.get_mut(&machine).filter(|node| node.life == life);
                if let Some(node) = node {
                    node.gathers = false;
                    self.finish(machine);
                }
            }
            Action::Restart(machine) => {
                let is_there = self.nodes.contains_key(&machine) && !self.atlas.is_lost(machine);
                if is_there && !self.is_up(machine) {
                    self.note(&format!("restart {machine}"));
                    self.start(machine);
                }
            }
            Action::Resume(machine) => self.resume(machine),
            Action::Mend(link) => self.network.mend(link),
            Action::Unstall(link) => {
                let held = self.network.unstall(link);
                held.into_iter().for_each(|message| self.arrive(link, message, 100));
            }
            Action::Quicken(link) => self.network.quicken(link),
            Action::Flap { link, left, is_cut } => self.flap(link, left, is_cut),
            Action::LinkUp((at, to)) => {
                if self.is_up(to) {
                    self.undialled.remove(&(at, to));
                    self.event(at, Event::LinkUp(to));
                }
            }
            Action::Evidence { at, about } => {
                if !self.is_up(about) {
                    let error = "connection refused".to_owned();
                    self.event(at, Event::LinkDown { peer: about, refused: true, error });
                }
            }
            Action::Room(machine) => self.make_room(machine),
            Action::Dark { machine, length } => self.go_dark(machine, length),
            Action::Crash { machine, length } => {
                if self.faulty {
                    self.crash_for(machine, length);
                }
            }
            Action::Wipe { machine, behind, length } => {
                self.wipe_among_laggards(machine, behind, length);
            }
            Action::Fault => self.fault(),
            Action::Client(id) => self.client(id),
        }
    }

    /// Whoever answers under this id: if two machines have it, either.
    fn machine_of(&mut self, id: NodeId) -> Machine {
        let is_cloned = self.shape.cloned == Some(id.0);
        if is_cloned && self.random.per_mille(500) { NodeId(id.0 + CLONE) } else { id }
    }

    fn deliver(&mut self, to: NodeId, from: NodeId, message: PeerMessage) {
        if self.undialled.contains(&(from, to)) {
            // It was sent to a process that is gone, and its connection with it.
            self.network.lost += 1;
            return;
        }
        let machine = self.machine_of(to);
        self.network.delivered += 1;
        if self.tape.wants_steps() {
            self.note(&format!("{from} -> {machine} {message:?}"));
        }
        let event = match message {
            PeerMessage::Paxos(message) => Event::Peer(from, message),
            PeerMessage::Witness(seen) => Event::Witness(from, seen),
            PeerMessage::Call(call) => Event::StoreCall(from, call),
            PeerMessage::Answer(answer) => Event::StoreAnswer(from, answer),
            PeerMessage::Trace(message) => Event::TraceMessage(from, message),
        };
        self.event(machine, event);
    }

    /// Hands an event to a process and carries on what comes of it. For a stopped one it waits.
    pub fn event(&mut self, machine: Machine, event: Event) {
        if !self.is_up(machine) {
            return;
        }
        if self.nodes[&machine].paused {
            let asleep = self.asleep.entry(machine).or_default();
            if asleep.len() < ASLEEP_MAX || matches!(event, Event::Persisted(..)) {
                asleep.push(event);
            }
            return;
        }
        self.set_clocks(machine);
        let node = self.nodes.get_mut(&machine).unwrap();
        let Some(driver) = &mut node.driver else { return };
        driver.handle(event);
        let (life, gathers) = (node.life, std::mem::replace(&mut node.gathers, true));
        let notes = driver.take_notes();
        self.observe(machine, notes);
        self.collect(machine);
        if gathers {
            return;
        }
        let micros = match self.shape.batch_max_micros {
            0 => 0,
            most => self.random.below(most),
        };
        if micros > 0 {
            self.after(micros, Action::Finish { machine, life });
        } else if let Some(node) = self.nodes.get_mut(&machine) {
            node.gathers = false;
            self.finish(machine);
        }
    }

    /// Ends a process's batch of events. A stopped one does so when it goes on.
    fn finish(&mut self, machine: Machine) {
        if !self.is_awake(machine) {
            return;
        }
        self.set_clocks(machine);
        let node = self.nodes.get_mut(&machine).unwrap();
        let Some(driver) = &mut node.driver else { return };
        driver.finish();
        let notes = driver.take_notes();
        self.observe(machine, notes);
        self.collect(machine);
    }

    /// Lets the checks see what a process did.
    fn observe(&mut self, machine: Machine, notes: Vec<Note>) {
        let node = &self.nodes[&machine];
        let life = node.life;
        let records = std::mem::take(&mut *node.appended.lock().unwrap());
        if !records.is_empty() {
            if self.atlas.is_wiped(machine) {
                violated("durability", &format!("{machine} lost its directory and writes on"));
            }
            self.checks.appended(machine, records);
        }
        let Some(driver) = &node.driver else { return };
        if let Some(store) = driver.store() {
            self.checks.digests.applied(machine, store.applied(), store.digest());
        }
        if self.stats.events.is_multiple_of(DEPTHS_EVERY) {
            for depth in driver.depths() {
                self.checks.queues.depth(machine, depth);
            }
        }
        for note in notes {
            self.checks.noted(machine, life, &note);
            self.clashes += u64::from(matches!(note, Note::ProposerClash(_)));
            if matches!(note, Note::Fenced { .. }) {
                if !self.atlas.is_forgetful(machine) {
                    violated("fence", &format!("{machine} forgot nothing: {note:?}"));
                }
                self.stats.fenced += 1;
            }
            if self.tape.wants_steps() {
                self.note(&format!("{machine} {note:?}"));
            }
        }
        self.tell_promise(machine);
        if self.tape.wants_recorders() {
            self.read_recorder(machine);
        }
    }

    fn tell_promise(&mut self, machine: Machine) {
        let node = &self.nodes[&machine];
        let accepts = self.mix(machine).accepts && !self.atlas.is_founded_anew(machine);
        if let Some(replica) = node.driver.as_ref().and_then(|d| d.replica()).filter(|_| accepts) {
            let status = replica.status();
            if !status.fenced {
                self.checks.promised(machine, status.promised);
            }
        }
    }

    fn read_recorder(&mut self, machine: Machine) {
        let micros = self.now_micros;
        let node = self.nodes.get_mut(&machine).unwrap();
        let (Some(driver), Some((life, since))) =
            (&mut node.driver, self.recorders.get_mut(&machine))
        else {
            return;
        };
        assert_eq!(*life, node.life, "a process begins with its recorder");
        loop {
            let recalled: Arc<Mutex<Recalled>> = Arc::default();
            let slot = Arc::clone(&recalled);
            let reply = Box::new(move |told| {
                if let Ok(told) = told {
                    *slot.lock().unwrap() = told;
                }
            });
            driver.handle(Event::Recall(Recall { since: *since, reply }));
            let recalled = std::mem::take(&mut *recalled.lock().unwrap());
            if recalled.events.is_empty() {
                return;
            }
            *since = recalled.next();
            self.tape.tell(micros, &machine.to_string(), &recalled.events, self.columns);
        }
    }

    /// A stopped process goes on, with everything that waited for it. Each connection kept its own
    /// order, but nobody says which is read first: in half of the cases those of clients are.
    pub fn resume(&mut self, machine: Machine) {
        let Some(node) = self.nodes.get_mut(&machine) else { return };
        if !std::mem::take(&mut node.paused) {
            return;
        }
        self.note(&format!("resume {machine}"));
        let mut events = self.asleep.remove(&machine).unwrap_or_default();
        if self.random.per_mille(500) {
            let by_client = |event: &Event| {
                matches!(event, Event::Read(_) | Event::Write(_) | Event::Lookup(_))
            };
            events.sort_by_key(|event| !by_client(event));
        }
        for event in events {
            self.event(machine, event);
        }
        self.write_soon(machine);
    }

    /// Puts what a process sent on the network and its sync on the clock.
    fn collect(&mut self, machine: Machine) {
        let node = self.nodes.get_mut(&machine).unwrap();
        let id = node.id;
        let sent = std::mem::take(&mut *node.outbox.lock().unwrap());
        self.write_soon(machine);
        for (to, message) in sent {
            let decoded = decode_peer(&encode_peer(&message));
            assert_eq!(decoded.as_ref(), Ok(&message), "a message changed on its way");
            if let PeerMessage::Paxos(message) = &message {
                self.checks.sent(machine, message);
            }
            for peer in to {
                self.transmit((id, peer), &message);
            }
        }
    }

    fn transmit(&mut self, link: Link, message: &PeerMessage) {
        if self.undialled.contains(&link) {
            self.network.lost += 1;
            return;
        }
        let weather = Weather {
            loss_per_mille: if self.faulty { self.shape.loss_per_mille } else { 0 },
            duplicate_per_mille: if self.faulty { self.shape.duplicate_per_mille } else { 0 },
            delay_max_micros: self.shape.delay_max_micros,
            reorders: self.shape.reorders,
        };
        let now = self.now_micros;
        let fate = self.network.send(link, message, now, &weather, &mut self.random);
        if let Fate::Arrives(delays) = fate {
            for micros in delays {
                self.arrive(link, message.clone(), micros);
            }
        }
    }

    fn arrive(&mut self, (from, to): Link, message: PeerMessage, micros: u64) {
        self.after(micros, Action::Deliver { to, from, message });
    }

    /// Any machine that runs, or does not.
    pub fn any_machine(&mut self) -> Machine {
        let at = self.random.below(self.nodes.len() as u64) as usize;
        *self.nodes.keys().nth(at).expect("there are that many")
    }
}
