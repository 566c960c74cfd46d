//! What a drawn fault does to the cluster, and how it ends.
//!
//! A fault of a process is a signal to it, and its port is closed meanwhile; a fault of the network
//! is a shape of the proxy's. Nothing is asked of the nodes that a person could not ask as well.

use super::disks::{self, Disks};
use super::faults::{Fault, Kind, Turn, met, victims};
use super::harness::{Cluster, pause, until};
use super::proxy::Network;
use super::stream::Shape;
use rustix::process::Signal;
use std::time::Instant;

/// Lets time pass: that is what a fault does while it lasts.
pub fn last_until(end: Instant) {
    while Instant::now() < end {
        pause();
    }
}

/// What faults are done to.
pub struct Stage<'a> {
    pub cluster: &'a Cluster,
    pub network: &'a Network,
}

/// A fault that began.
struct Begun<'a> {
    fault: &'a Fault,
    /// The nodes that it met, the first of which is its victim.
    met: Vec<usize>,
    ends: Instant,
}

impl Stage<'_> {
    /// Does all that a turn says, and ends it; hands each fault to `say` when it begins, and
    /// whether it took effect.
    pub fn play(&self, turn: &Turn, mut say: impl FnMut(Kind, bool, String)) {
        let leader = self.leader();
        let mut planned: Vec<(&Fault, Vec<usize>)> =
            turn.faults.iter().map(|fault| (fault, met(fault, leader))).collect();
        planned.sort_by_key(|(fault, _)| fault.after);
        let turn_begins = Instant::now();
        let mut begun = Vec::new();
        for (fault, met) in planned {
            last_until(turn_begins + fault.after);
            let victim = self.name(met[0]);
            let role = if leader == Some(met[0]) { " (leads)" } else { "" };
            let mut text = format!("{}: {victim}{role}, {:?}", fault.kind.name(), fault.lasts);
            // Before it begins, for it takes effect at once.
            if fault.kind != Kind::DiskFull {
                say(fault.kind, true, text);
                self.begin(fault, &met);
            } else {
                let by = self.name(met[1]);
                let said_so = Disks::fill(self.network.runtime(), self.cluster, victim, by);
                text.push_str(if said_so { "" } else { ", but it did not say so" });
                say(fault.kind, said_so, text);
            }
            begun.push(Begun { fault, met, ends: Instant::now() + fault.lasts });
        }
        begun.sort_by_key(|begun| begun.ends);
        for Begun { fault, met, ends } in begun {
            last_until(ends);
            self.end(fault, &met);
        }
    }

    fn name(&self, node: usize) -> &'static str {
        self.cluster.nodes[node]
    }

    /// Who says that it leads, if anybody does just now.
    fn leader(&self) -> Option<usize> {
        let leads = |node: &'static str| {
            self.cluster.status(node).is_some_and(|status| status["state"] == "leader")
        };
        self.cluster.nodes.iter().position(|node| leads(node))
    }

    fn begin(&self, fault: &Fault, met: &[usize]) {
        let cut = Shape { cut: true, ..Shape::default() };
        let victim = met[0];
        match fault.kind {
            Kind::Killed | Kind::TwoKilled | Kind::AllKilled => {
                for node in victims(fault.kind, met) {
                    self.cluster.signal(self.name(*node), Signal::KILL);
                }
                for node in victims(fault.kind, met) {
                    // As soon as its kernel would.
                    self.network.refuse(*node, true);
                }
            }
            Kind::Frozen => self.cluster.signal(self.name(victim), Signal::STOP),
            Kind::DiskFull => {}
            Kind::Isolated => self.between(victim, &met[1..], cut, cut),
            Kind::HearsNobody => self.between(victim, &met[1..], Shape::default(), cut),
            Kind::NobodyHearsIt => self.between(victim, &met[1..], cut, Shape::default()),
            Kind::Partitioned => {
                let (fewer, more) = met.split_at(met.len() / 2);
                fewer.iter().for_each(|node| self.between(*node, more, cut, cut));
            }
            Kind::LinkCut => self.between(victim, &met[1..2], cut, cut),
            Kind::LinkCutOneWay => self.between(victim, &met[1..2], cut, Shape::default()),
            Kind::Slow | Kind::SlowNode => {
                let slow = Shape { delay: fault.delay, jitter: fault.delay, ..Shape::default() };
                let how_many = if fault.kind == Kind::Slow { met.len() } else { 1 };
                for (at, node) in met[..how_many].iter().enumerate() {
                    self.between(*node, &met[at + 1..], slow, slow);
                }
            }
            Kind::Lossy => {
                // Most chunks pass; among a few thousand in a second some connections break.
                let lossy = Shape { lost_per_mille: 20, reset_per_mille: 1, ..Shape::default() };
                for (at, node) in met.iter().enumerate() {
                    self.between(*node, &met[at + 1..], lossy, lossy);
                    self.network.shape(self.network.clients(), *node, lossy);
                    self.network.shape(*node, self.network.clients(), lossy);
                }
            }
            Kind::Reset => {
                self.network.reset(victim);
            }
        }
    }

    /// Shapes what a node sends to others, and what these send to it.
    fn between(&self, node: usize, others: &[usize], there: Shape, back: Shape) {
        for other in others {
            self.network.shape(node, *other, there);
            self.network.shape(*other, node, back);
        }
    }

    fn end(&self, fault: &Fault, met: &[usize]) {
        match fault.kind {
            Kind::Killed | Kind::TwoKilled | Kind::AllKilled => {
                for node in victims(fault.kind, met) {
                    self.cluster.wait_gone(self.name(*node));
                    self.network.refuse(*node, false);
                    self.cluster.start(self.name(*node));
                }
            }
            Kind::Frozen => self.cluster.signal(self.name(met[0]), Signal::CONT),
            Kind::DiskFull => {
                let node = self.name(met[0]);
                Disks::heal(self.cluster, node);
                until("it has room again", || (!disks::is_full(self.cluster, node)).then_some(()));
            }
            _ => self.network.heal(),
        }
    }
}
