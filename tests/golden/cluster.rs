//! Nodes of the core, and everything between them that a scenario moves by hand: messages that are
//! on their way, and disks that have not synced yet.

use crate::words;
use paxos_ssh::paxos::ballot::{
    ClusterId, ClusterTime, Incarnation, NodeId, ProposerId, VoterGeneration,
};
use paxos_ssh::paxos::configuration::{Configuration, ConfigurationNumber, Genesis, Member, Roles};
use paxos_ssh::paxos::effects::{Effects, Held, Token};
use paxos_ssh::paxos::message::{Message, Statement};
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::{LogPosition, Record, Recovered};
use paxos_ssh::paxos::replica::{Replica, Start};
use paxos_ssh::paxos::timing::Timing;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A heartbeat each 5 ticks, an election after 25: round numbers for people.
const TIMING: Timing = Timing { heartbeat: 5, election: 25, request: 12 };

/// Steps after which messages that cause messages are taken for an endless exchange.
const STEPS_MAX: usize = 10_000;

struct Process {
    id: NodeId,
    replica: Replica<u64>,
    effects: Effects<u64>,
    held: Vec<Held<u64>>,
    /// Its disk does not sync until it is let.
    stalled: bool,
}

/// What a disk holds: all records, and how many of them would survive a power cut.
#[derive(Clone, Default)]
struct Disk {
    records: Vec<Record<u64>>,
    synced: usize,
}

struct Letter {
    from: (String, NodeId),
    to: String,
    message: Message<u64>,
}

/// See the module's documentation.
pub struct Cluster {
    processes: BTreeMap<String, Process>,
    disks: BTreeMap<String, Disk>,
    wire: VecDeque<Letter>,
    cut: BTreeSet<(String, String)>,
    lives: u64,
    /// Heartbeats and their answers are not worth a line.
    pub quiet: bool,
    story: Vec<String>,
}

/// The number in a node's name: `n2`, and `n2b` for a second process with the same identity.
fn id_of(name: &str) -> NodeId {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    NodeId(digits.parse().unwrap_or_else(|_| panic!("{name} is no node")))
}

impl Cluster {
    pub fn new(nodes: u64, quorums: QuorumSystem, window: u32) -> Cluster {
        let member = |id| {
            let roles = Roles {
                proposer: Some(ProposerId::new(id).unwrap()),
                acceptor: Some(VoterGeneration(id)),
                learner: true,
            };
            (NodeId(id), Member { name: format!("n{id}"), address: String::new(), roles })
        };
        let members = (1..=nodes).map(member).collect();
        let configuration = Configuration::new(ConfigurationNumber(1), members, quorums).unwrap();
        let genesis = Genesis { cluster: ClusterId(1), configuration, window };
        let mut cluster = Cluster {
            processes: BTreeMap::new(),
            disks: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            lives: 0,
            quiet: false,
            story: Vec::new(),
        };
        for id in 1..=nodes {
            let generation = Some(VoterGeneration(id));
            let records = vec![Record::Genesis { genesis: genesis.clone(), generation }];
            cluster.disks.insert(format!("n{id}"), Disk { records, synced: 1 });
            cluster.start(&format!("n{id}"));
        }
        cluster.story.clear();
        cluster
    }

    /// What happened since this was asked last.
    pub fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.story)
    }

    fn tell(&mut self, line: String) {
        self.story.push(line);
    }

    pub fn start(&mut self, name: &str) {
        assert!(!self.processes.contains_key(name), "{name} runs already");
        let id = id_of(name);
        let mut recovered = Recovered::default();
        for record in &self.disks[name].records {
            recovered.replay(record.clone()).unwrap();
        }
        self.lives += 1;
        let effects = Effects::new(recovered.end);
        let incarnation = Incarnation(self.lives);
        let start = Start { id, incarnation, seed: id.0, timing: TIMING, recovered };
        let replica = Replica::new(start).unwrap();
        let process = Process { id, replica, effects, held: Vec::new(), stalled: false };
        self.processes.insert(name.to_owned(), process);
        self.tell(format!("{name} starts"));
    }

    /// A second process with the identity and a copy of the disk of the first.
    pub fn clone_node(&mut self, name: &str, twin: &str) {
        let mut disk = self.disks[name].clone();
        disk.records.truncate(disk.synced);
        self.disks.insert(twin.to_owned(), disk);
        self.start(twin);
    }

    pub fn crash(&mut self, name: &str) {
        self.process(name);
        self.processes.remove(name);
        let disk = self.disks.get_mut(name).expect("a disk for each node");
        let lost = disk.records.split_off(disk.synced).len();
        self.wire.retain(|letter| letter.to != name);
        self.tell(format!("{name} crashes; {lost} records were not synced"));
    }

    fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// One input for one node, and all that comes of it before a message travels or a disk turns.
    fn input(&mut self, name: &str, act: impl FnOnce(&mut Replica<u64>, &mut Effects<u64>)) {
        let process = self.process(name);
        act(&mut process.replica, &mut process.effects);
        process.replica.flush(&mut process.effects);
        self.carry_out(name);
    }

    fn carry_out(&mut self, name: &str) {
        let process = self.processes.get_mut(name).expect("it runs");
        let (from, effects) = (process.id, &mut process.effects);
        let (notes, records) = (effects.take_notes(), effects.take_records());
        let (statements, held) = (effects.take_statements(), effects.take_pledges());
        let (chosen, rejected) = (effects.take_chosen(), effects.take_rejected());
        let (reads, log_reads) = (effects.take_reads(), effects.take_log_reads());
        assert!(log_reads.is_empty(), "scenarios are too short for anybody to lag that far");
        process.held.extend(held);
        let lines = notes.iter().filter_map(words::note);
        let lines = lines.chain(records.iter().map(words::record));
        let lines = lines.chain(chosen.iter().map(|(slot, entry)| words::chosen(*slot, entry)));
        let lines = lines.chain(rejected.iter().map(|(token, why)| words::rejected(*token, *why)));
        let lines = lines.chain(reads.iter().map(words::read));
        let lines: Vec<String> = lines.map(|line| format!("{name} {line}")).collect();
        self.story.extend(lines);
        self.disks.get_mut(name).expect("a disk for each node").records.extend(records);
        for outgoing in statements {
            self.send((name, from), &outgoing.to, outgoing.statement.into());
        }
    }

    fn send(&mut self, (name, from): (&str, NodeId), to: &[NodeId], message: Message<u64>) {
        let is_beat = matches!(
            message,
            Message::Statement(Statement::Heartbeat { .. } | Statement::HeartbeatAck { .. })
        );
        if !(self.quiet && is_beat) {
            let names: Vec<String> = to.iter().map(|id| format!("n{}", id.0)).collect();
            self.tell(format!("{name} → {}: {}", names.join(" "), words::message(&message)));
        }
        let processes = &self.processes;
        for id in to {
            let hearers = processes.iter().filter(|(_, process)| process.id == *id);
            for (to, _) in hearers {
                if !self.cut.contains(&(name.to_owned(), to.clone())) {
                    let (from, to) = ((name.to_owned(), from), to.clone());
                    self.wire.push_back(Letter { from, to, message: message.clone() });
                }
            }
        }
    }

    /// The disk takes everything that was handed to it.
    pub fn sync(&mut self, name: &str) {
        let disk = self.disks.get_mut(name).expect("a disk for each node");
        disk.synced = disk.records.len();
        let end = LogPosition(disk.synced as u64);
        let process = self.process(name);
        let from = process.id;
        let due = |held: &mut Held<u64>| held.after <= end;
        let held: Vec<Held<u64>> = process.held.extract_if(.., due).collect();
        process.replica.persisted(end, &mut process.effects);
        process.replica.flush(&mut process.effects);
        for held in held {
            self.send((name, from), &held.to, held.pledge.into());
        }
        self.carry_out(name);
    }

    fn wants_sync(&self, name: &str) -> bool {
        let (process, disk) = (&self.processes[name], &self.disks[name]);
        !process.stalled && process.effects.awaited() > LogPosition(disk.synced as u64)
    }

    /// All messages that are on their way now from one node to another, in order.
    pub fn deliver(&mut self, from: &str, to: &str) {
        let is_it = |letter: &mut Letter| letter.from.0 == from && letter.to == to;
        let mut due = VecDeque::new();
        let mut rest = VecDeque::new();
        for mut letter in self.wire.drain(..) {
            if is_it(&mut letter) { due.push_back(letter) } else { rest.push_back(letter) }
        }
        self.wire = rest;
        assert!(!due.is_empty(), "nothing is on its way from {from} to {to}");
        for letter in due {
            let sender = letter.from.1;
            self.input(to, |replica, effects| replica.step(sender, letter.message, effects));
        }
    }

    /// Messages that are on their way now are lost.
    pub fn lose(&mut self, from: &str, to: &str) {
        let before = self.wire.len();
        self.wire.retain(|letter| letter.from.0 != from || letter.to != to);
        let lost = before - self.wire.len();
        assert!(lost > 0, "nothing is on its way from {from} to {to}");
    }

    /// Delivers and syncs until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let names: Vec<String> = self.processes.keys().cloned().collect();
            if let Some(name) = names.iter().find(|name| self.wants_sync(name)) {
                self.sync(name);
            } else if let Some(letter) = self.wire.pop_front() {
                let (sender, to) = (letter.from.1, letter.to);
                if self.processes.contains_key(&to) {
                    self.input(&to, |replica, effects| {
                        replica.step(sender, letter.message, effects);
                    });
                }
            } else {
                return;
            }
        }
        panic!("an exchange without end");
    }

    pub fn tick(&mut self, name: &str, ticks: u32) {
        (0..ticks).for_each(|_| self.input(name, |replica, effects| replica.tick(effects)));
    }

    /// Time passes everywhere, and messages and disks take no time.
    pub fn run(&mut self, ticks: u32) {
        self.quiet = true;
        for _ in 0..ticks {
            let names: Vec<String> = self.processes.keys().cloned().collect();
            names.iter().for_each(|name| self.tick(name, 1));
            self.settle();
        }
        self.quiet = false;
    }

    pub fn cut(&mut self, from: &str, to: &str) {
        self.cut.insert((from.to_owned(), to.to_owned()));
    }

    pub fn mend(&mut self) {
        self.cut.clear();
    }

    pub fn stall(&mut self, name: &str, stalled: bool) {
        self.process(name).stalled = stalled;
    }

    pub fn campaign(&mut self, name: &str) {
        self.input(name, |replica, effects| replica.campaign(effects));
    }

    pub fn propose(&mut self, name: &str, command: u64) {
        self.input(name, |replica, effects| {
            replica.observe_time(ClusterTime(0));
            replica.propose(Token(command), command, effects);
        });
    }

    pub fn read(&mut self, name: &str, token: u64) {
        self.input(name, |replica, effects| replica.read(Token(token), effects));
    }

    pub fn suspect(&mut self, name: &str, peer: &str) {
        let peer = id_of(peer);
        self.input(name, |replica, effects| replica.suspect(peer, effects));
    }

    pub fn hand_over(&mut self, name: &str, to: &str) {
        let to = id_of(to);
        let mut answer = Ok(());
        self.input(name, |replica, effects| answer = replica.hand_over(to, effects));
        if let Err(why) = answer {
            self.tell(format!("{name} stays: {why:?}"));
        }
    }

    pub fn status(&mut self) {
        let lines: Vec<String> = self
            .processes
            .iter()
            .map(|(name, process)| format!("{name}: {}", words::status(&process.replica.status())))
            .collect();
        self.story.extend(lines);
    }
}
