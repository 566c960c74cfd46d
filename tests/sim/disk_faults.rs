//! How logs are written in the simulation, step by step, and what goes wrong with their disks.
//!
//! A step of the log's writer is an entry of the world's queue, so a crash may come between any
//! two. What is lost for good, [`crate::atlas`] allows or forbids.

use crate::checks::{Machine, violated};
use crate::faults::Kind;
use crate::world::{Action, World};
use paxos_ssh::disk::writer::Step;
use paxos_ssh::disk::{LAZY_SYNC, LogError, LogEvent};
use paxos_ssh::node::event::Event;
use paxos_ssh::paxos::ballot::VoterGeneration;
use paxos_ssh::paxos::record::Record;
use std::time::Duration;

/// What the writer's thread needs to take up what waits, or a write to reach the kernel.
const STEP_MICROS: (u64, u64) = (10, 60);

/// As the writer's thread does.
const NO_ROOM_RETRY_MICROS: u64 = 500_000;

/// The power goes within so many operations of the disk.
const OPERATIONS_MAX: u64 = 30;

/// A machine that starts again at once.
const SOON_MICROS: u64 = 1_000;

/// A disk that lies does so for a time between these.
const LIE_MICROS: (u64, u64) = (1_000, 400_000);

impl World {
    /// Has the log written if somebody waits for it.
    pub fn write_soon(&mut self, machine: Machine) {
        let node = &self.nodes[&machine];
        let Some(writer) = node.writer.as_ref().filter(|_| !node.writing && !node.paused) else {
            return;
        };
        if writer.is_wanted() || !writer.is_at_rest() {
            let micros = self.random.between(STEP_MICROS.0, STEP_MICROS.1);
            self.write_after(machine, micros);
        }
    }

    /// Has written what nobody waits for, in time.
    pub fn write_lazily(&mut self, machine: Machine) {
        let node = &self.nodes[&machine];
        let since = self.micros() - node.wrote_at;
        if node.writer.is_some() && !node.writing && since >= LAZY_SYNC.as_micros() as u64 {
            self.write_after(machine, STEP_MICROS.0);
        }
    }

    fn write_after(&mut self, machine: Machine, micros: u64) {
        let node = self.nodes.get_mut(&machine).unwrap();
        node.writing = true;
        let life = node.life;
        self.after(micros, Action::Write { machine, life });
    }

    /// The log's writer takes a step.
    pub fn write_step(&mut self, machine: Machine, life: u64) {
        let now = self.micros();
        let Some(node) = self.nodes.get_mut(&machine) else { return };
        let Some(writer) = node.writer.as_mut().filter(|_| node.life == life) else { return };
        node.writing = false;
        if node.paused {
            return;
        }
        let took = now - std::mem::replace(&mut node.wrote_at, now);
        let step = match writer.step() {
            Ok(step) => step,
            Err(failure) => {
                let (action, error) = (failure.action, failure.error);
                self.note(&format!("{machine} could not {action} its log: {error}; it ends"));
                return self.end_by_itself(machine);
            }
        };
        let mut events = Vec::new();
        let took = Duration::from_micros(took);
        writer.report(step, took, &mut |event| events.push(event));
        if matches!(step, Step::Durable(_)) && self.random.per_mille(500) {
            // If it fails, then at the next step, too, or there is room by then.
            if let Some(Ok(spare)) = writer.preparation().map(|make| make()) {
                writer.provide(spare);
            }
        }
        let wait = match step {
            Step::Idle => None,
            Step::Written => Some(self.sync_micros(machine)),
            Step::NoRoom => Some(NO_ROOM_RETRY_MICROS),
            Step::Durable(_) | Step::SegmentFull | Step::Rotated => None,
        };
        if let Some(micros) = wait {
            self.write_after(machine, micros);
        }
        for event in events {
            self.log_event(machine, event);
        }
        self.write_soon(machine);
    }

    fn log_event(&mut self, machine: Machine, event: LogEvent) {
        match event {
            LogEvent::Durable { position, took } => {
                if self.tape.wants_steps() {
                    self.note(&format!("{machine} durable up to {}", position.0));
                }
                self.checks.durable(machine, position);
                self.event(machine, Event::Persisted(position, took));
            }
            LogEvent::Full => self.event(machine, Event::DiskFull(true)),
            LogEvent::Room => self.event(machine, Event::DiskFull(false)),
        }
    }

    fn sync_micros(&mut self, machine: Machine) -> u64 {
        let stalled = self.stalls.get(&machine).copied().unwrap_or(0);
        let micros = self.random.between(50, self.shape.sync_max_micros);
        micros.max(stalled.saturating_sub(self.micros()))
    }

    /// A process that ends because its disk failed; somebody starts it again.
    fn end_by_itself(&mut self, machine: Machine) {
        self.kill(machine);
        self.nodes[&machine].disk.kill();
        let micros = self.random.between(20_000, 400_000);
        self.after(micros, Action::Restart(machine));
    }

    /// What passes, and costs nothing that was durable.
    pub fn disk_fault(&mut self, kind: Kind, length: u64) {
        let machine = self.any_machine();
        let disk = self.nodes[&machine].disk.clone();
        match kind {
            Kind::PowerCut => {
                let operations = self.random.between(1, OPERATIONS_MAX);
                self.note(&format!("the power of {machine} will go at operation {operations}"));
                disk.cut_after(operations);
            }
            Kind::SyncFails => {
                self.note(&format!("the next sync of {machine} fails"));
                disk.fail_next_sync();
            }
            Kind::DiskFull => {
                self.note(&format!("the disk of {machine} is full"));
                disk.set_full(true);
                self.after(length, Action::Room(machine));
            }
            _ => {
                self.note(&format!("the disk of {machine} hangs"));
                self.stalls.insert(machine, self.micros() + length);
            }
        }
    }

    pub fn make_room(&mut self, machine: Machine) {
        if let Some(node) = self.nodes.get(&machine) {
            node.disk.set_full(false);
        }
    }

    pub fn heal_disks(&mut self) {
        self.stalls.clear();
        for node in self.nodes.values() {
            node.disk.heal();
        }
    }

    /// Bits flip, a write lands elsewhere, or a directory is emptied. The next start, which follows
    /// soon, must notice or find everything that was durable.
    pub fn damage(&mut self, length: u64) -> bool {
        let machine = self.any_machine();
        if self.atlas.is_lost(machine) || self.atlas.has_lost_its_log(machine) {
            return false;
        }
        if !self.atlas.may_damage(machine) {
            return false;
        }
        let disk = self.nodes[&machine].disk.clone();
        let what = match self.random.below(3) {
            0 => disk.flip_bit(),
            1 => disk.misdirect(),
            _ if self.random.per_mille(500) => {
                let behind = self.any_machine();
                self.atlas.damage(machine);
                self.isolate(behind, length);
                self.after(length, Action::Wipe { machine, behind, length });
                return true;
            }
            _ => {
                self.wipe(machine, length);
                return true;
            }
        };
        let Some(what) = what else { return false };
        self.atlas.damage(machine);
        self.note(&format!("the disk of {machine}: {what}"));
        if self.random.per_mille(500) {
            self.crash_for(machine, length);
        } else {
            // Meanwhile a process that runs may read what is damaged.
            self.after(length, Action::Crash { machine, length });
        }
        true
    }

    /// The directory is emptied, and perhaps founded anew; the machine starts again in a while.
    fn wipe(&mut self, machine: Machine, length: u64) {
        self.kill(machine);
        self.nodes[&machine].disk.wipe();
        self.atlas.damage(machine);
        self.atlas.wipe(machine);
        self.note(&format!("the directory of {machine} is emptied"));
        if self.random.per_mille(700) {
            self.found_anew(machine);
        }
        self.after(length, Action::Restart(machine));
    }

    /// The hardest time for a machine to lose its directory: whoever could tell what it knew is
    /// away, and back is one who was `behind` all the while.
    pub fn wipe_among_laggards(&mut self, machine: Machine, behind: Machine, length: u64) {
        if !self.faulty || self.atlas.is_lost(machine) || self.atlas.has_lost_its_log(machine) {
            return;
        }
        self.wipe(machine, SOON_MICROS);
        let others = self.nodes.keys().filter(|at| **at != machine && **at != behind);
        for other in others.copied().collect::<Vec<_>>() {
            if self.random.per_mille(600) {
                self.crash_for(other, length);
            }
        }
    }

    /// Somebody gives the machine with the empty directory the genesis again. Nothing that it says
    /// as an acceptor may count: it has another voter generation than the configuration names.
    fn found_anew(&mut self, machine: Machine) {
        let node = self.nodes.get_mut(&machine).unwrap();
        let drawn = self.random.next() | 1 << 63;
        let generation = node.generation.map(|_| VoterGeneration(drawn));
        let record = Record::Genesis { genesis: self.genesis.clone().unwrap(), generation };
        node.disk.heal();
        node.found(record.clone());
        self.note(&format!("{machine} is given the genesis again, as another voter"));
        self.atlas.found_anew(machine);
        self.checks.founded_anew(machine, record);
    }

    /// Syncs lie until the power goes, or an old copy of the directory is put back.
    pub fn make_forget(&mut self, length: u64) -> bool {
        let machine = self.any_machine();
        let lost = self.atlas.is_lost(machine) || self.atlas.has_lost_its_log(machine);
        if lost || !self.is_up(machine) {
            return false;
        }
        let disk = self.nodes[&machine].disk.clone();
        let draw = self.random.below(3);
        if draw == 1 {
            self.note(&format!("somebody copies the directory of {machine}"));
            self.backups.entry(machine).or_insert_with(|| disk.backup());
            return true;
        }
        if !self.atlas.forget(machine) {
            return false;
        }
        let backup = if draw == 0 { self.backups.remove(&machine) } else { None };
        match backup {
            Some(backup) => {
                self.note(&format!("{machine} is given an old copy of its directory"));
                self.kill(machine);
                disk.swap(&backup);
                self.after(length, Action::Restart(machine));
            }
            None => {
                self.note(&format!("the disk of {machine} lies until its power goes"));
                disk.lie();
                let micros = self.random.between(LIE_MICROS.0, LIE_MICROS.1);
                self.after(micros, Action::Dark { machine, length });
            }
        }
        true
    }

    /// The power goes at a machine whose disk lied.
    pub fn go_dark(&mut self, machine: Machine, length: u64) {
        if !self.nodes.contains_key(&machine) {
            return;
        }
        self.kill(machine);
        self.note(&format!("power cut at {machine}"));
        self.nodes[&machine].disk.cut();
        self.after(length, Action::Restart(machine));
    }

    /// Two machines are given each other's directories: both must refuse, and change nothing.
    pub fn swap(&mut self, length: u64) -> bool {
        let (one, other) = (self.any_machine(), self.any_machine());
        let is_apt = |machine: Machine| !self.atlas.is_damaged(machine);
        let same = self.nodes[&one].id == self.nodes[&other].id;
        if same || !is_apt(one) || !is_apt(other) {
            return false;
        }
        self.crash(one);
        self.crash(other);
        self.note(&format!("{one} and {other} are given each other's directories"));
        self.nodes[&one].disk.swap(&self.nodes[&other].disk);
        for machine in [one, other] {
            let started = self.nodes.get_mut(&machine).unwrap().start(&mut self.random);
            match started {
                Err(LogError::Foreign { .. }) => {}
                // The power went meanwhile.
                Err(LogError::Io { .. }) => {}
                Err(error) => violated("durability", &format!("{machine} says: {error}")),
                Ok(_) => violated("durability", &format!("{machine} runs over another's log")),
            }
        }
        self.nodes[&one].disk.swap(&self.nodes[&other].disk);
        for machine in [one, other] {
            self.nodes[&machine].disk.kill();
            self.after(length, Action::Restart(machine));
        }
        true
    }
}
