//! What goes wrong, and when it ends: every fault mends by itself after a while, so that many are
//! on at once and none for ever. The network's faults are carried out in `network`, those of
//! processes here.

use crate::checks::Machine;
use crate::network::{Link, Partition};
use crate::world::{Action, World};
use paxos_ssh::node::event::{Event, Transfer};
use paxos_ssh::paxos::ballot::NodeId;

/// A kind of fault. Loss, delay, doubling, reordering and drifting clocks are not among them: they
/// are there all the time, as the shape says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One process dies.
    Crash,
    /// All die at once.
    Storm,
    /// One is stopped, as by SIGSTOP.
    Pause,
    /// One link is cut, perhaps in one direction only.
    Cut,
    /// Many are.
    Partition,
    /// A link comes and goes.
    Flap,
    /// A link adds a long delay.
    Slow,
    /// A link holds messages back, and delivers them in a burst.
    Stall,
    /// A connection breaks and is made anew; perhaps a redial is refused although nobody is dead.
    Reset,
    /// Somebody wants another leader.
    Transfer,
    /// A time of day jumps.
    Wall,
    /// The power goes in the middle of some step of the disk's work.
    PowerCut,
    /// A sync fails.
    SyncFails,
    /// There is no room for a while.
    DiskFull,
    /// Syncs hang for a while.
    DiskStall,
    /// Bits flip, a write lands elsewhere, or a directory is emptied: what a start notices.
    Damage,
    /// Syncs were lies, or an old backup is put back: what nobody notices.
    Forget,
    /// Two machines are given each other's directories.
    Swap,
}

impl Kind {
    pub const ALL: [Kind; 18] = [
        Kind::Crash,
        Kind::Storm,
        Kind::Pause,
        Kind::Cut,
        Kind::Partition,
        Kind::Flap,
        Kind::Slow,
        Kind::Stall,
        Kind::Reset,
        Kind::Transfer,
        Kind::Wall,
        Kind::PowerCut,
        Kind::SyncFails,
        Kind::DiskFull,
        Kind::DiskStall,
        Kind::Damage,
        Kind::Forget,
        Kind::Swap,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Crash => "crash",
            Kind::Storm => "all crash",
            Kind::Pause => "pause",
            Kind::Cut => "cut",
            Kind::Partition => "partition",
            Kind::Flap => "flap",
            Kind::Slow => "slow link",
            Kind::Stall => "stalled link",
            Kind::Reset => "reset",
            Kind::Transfer => "transfer",
            Kind::Wall => "wall clock jump",
            Kind::PowerCut => "power cut",
            Kind::SyncFails => "failed sync",
            Kind::DiskFull => "full disk",
            Kind::DiskStall => "stalled disk",
            Kind::Damage => "damaged log",
            Kind::Forget => "forgotten log",
            Kind::Swap => "swapped directories",
        }
    }
}

/// A fault lasts between these, in microseconds.
const LENGTH_MICROS: (u64, u64) = (20_000, 2_000_000);

/// What a slow link adds, in microseconds.
const SLOW_MICROS: (u64, u64) = (20_000, 400_000);

impl World {
    /// The next fault of the kinds that the shape has.
    pub fn fault(&mut self) {
        if !self.faulty || self.shape.kinds.is_empty() {
            return;
        }
        let every = self.shape.fault_every_millis * 1_000;
        let wait = self.random.between(every / 2, every * 2);
        self.after(wait, Action::Fault);
        let at = self.random.below(self.shape.kinds.len() as u64) as usize;
        let kind = self.shape.kinds[at];
        let length = self.random.between(LENGTH_MICROS.0, LENGTH_MICROS.1);
        let happens = match kind {
            Kind::Damage => self.damage(length),
            Kind::Forget => self.make_forget(length),
            Kind::Swap => self.swap(length),
            kind => self.passing(kind, length),
        };
        if happens {
            *self.stats.faults.entry(kind.name()).or_default() += 1;
        }
    }

    /// A fault that costs nobody anything for good. Answers whether there was anything to harm.
    fn passing(&mut self, kind: Kind, length: u64) -> bool {
        let is_of_links = matches!(
            kind,
            Kind::Cut | Kind::Partition | Kind::Flap | Kind::Slow | Kind::Stall | Kind::Reset
        );
        if is_of_links && self.shape.roles.len() == 1 {
            return false;
        }
        match kind {
            Kind::Crash => {
                let machine = self.any_machine();
                return self.crash_for(machine, length);
            }
            Kind::Storm => return self.storm(length),
            Kind::Pause => return self.pause(length),
            Kind::Cut => {
                let both = self.random.per_mille(500);
                let (from, to) = self.any_link();
                self.note(&format!("cut {from} -> {to}{}", if both { " and back" } else { "" }));
                self.cut_for((from, to), length);
                if both {
                    self.cut_for((to, from), length);
                }
            }
            Kind::Partition => self.partition(length),
            Kind::Flap => {
                let link = self.any_link();
                let left = self.random.between(3, 20);
                self.note(&format!("{} -> {} flaps", link.0, link.1));
                self.flap(link, left, false);
            }
            Kind::Slow => {
                let link = self.any_link();
                let micros = self.random.between(SLOW_MICROS.0, SLOW_MICROS.1);
                self.note(&format!("{} -> {} is slower by {micros} µs", link.0, link.1));
                self.network.slow(link, micros);
                self.after(length, Action::Quicken(link));
            }
            Kind::Stall => {
                let link = self.any_link();
                self.note(&format!("{} -> {} stalls", link.0, link.1));
                self.network.stall(link);
                self.after(length, Action::Unstall(link));
            }
            Kind::Reset => self.reset(length),
            Kind::Transfer => return self.want_leader(),
            Kind::Wall => {
                let machine = self.any_machine();
                // Years, in microseconds.
                let offset = self.random.below(1 << 50);
                self.note(&format!("the time of day of {machine} jumps"));
                self.wall_offsets.insert(machine, offset);
            }
            Kind::PowerCut | Kind::SyncFails | Kind::DiskFull | Kind::DiskStall => {
                self.disk_fault(kind, length);
            }
            Kind::Damage | Kind::Forget | Kind::Swap => return false,
        }
        true
    }

    fn any_id(&mut self) -> NodeId {
        NodeId(self.random.between(1, self.shape.roles.len() as u64))
    }

    fn any_link(&mut self) -> Link {
        let from = self.any_id();
        // Any of the others; in a cluster of one there are none.
        let others = (self.shape.roles.len() as u64).saturating_sub(1);
        let to = (from.0 + self.random.below(others)) % self.shape.roles.len() as u64 + 1;
        (from, NodeId(to))
    }

    /// Answers whether the machine ran.
    pub fn crash_for(&mut self, machine: Machine, length: u64) -> bool {
        if !self.crash(machine) {
            return false;
        }
        self.after(length, Action::Restart(machine));
        let others: Vec<Machine> = self.nodes.keys().copied().filter(|at| *at != machine).collect();
        for at in others {
            if self.random.per_mille(500) {
                self.after(2_000, Action::Evidence { at, about: machine });
            }
        }
        true
    }

    /// All crash at once, and come back one after the other.
    fn storm(&mut self, length: u64) -> bool {
        let machines: Vec<Machine> = self.nodes.keys().copied().collect();
        let mut anybody = false;
        for machine in machines {
            if self.crash(machine) {
                anybody = true;
                let micros = self.random.below(length / 4);
                self.after(micros, Action::Restart(machine));
            }
        }
        anybody
    }

    fn pause(&mut self, length: u64) -> bool {
        let machine = self.any_machine();
        let is_awake = self.is_awake(machine);
        if is_awake {
            self.note(&format!("pause {machine}"));
            self.nodes.get_mut(&machine).unwrap().paused = true;
            self.after(length, Action::Resume(machine));
        }
        is_awake
    }

    /// Cuts every link of a machine.
    pub fn isolate(&mut self, machine: Machine, length: u64) {
        self.note(&format!("{machine} is cut off"));
        let others: Vec<Machine> = self.nodes.keys().copied().filter(|at| *at != machine).collect();
        for other in others {
            self.cut_for((machine, other), length);
            self.cut_for((other, machine), length);
        }
    }

    pub fn cut_for(&mut self, link: Link, length: u64) {
        self.network.cut(link);
        self.after(length, Action::Mend(link));
    }

    /// Whoever is thought to lead plays the leader's part in a partition, mostly.
    fn partition(&mut self, length: u64) {
        let mut order: Vec<NodeId> = (1..=self.shape.roles.len() as u64).map(NodeId).collect();
        for at in (1..order.len()).rev() {
            let other = self.random.below(at as u64 + 1) as usize;
            order.swap(at, other);
        }
        if let Some(leader) = self.newest_leader() {
            let at = order.iter().position(|id| *id == leader).unwrap_or(0);
            order.swap(0, at);
        }
        let which = self.random.below(Partition::ALL.len() as u64) as usize;
        let partition = Partition::ALL[which];
        self.note(&format!("partition {partition:?} over {order:?}"));
        for link in partition.cuts(&order) {
            self.cut_for(link, length);
        }
    }

    /// Cuts the link or mends it, and comes back for the opposite.
    pub fn flap(&mut self, link: Link, left: u64, is_cut: bool) {
        if is_cut {
            self.network.mend(link);
        }
        if left == 0 || !self.faulty {
            return;
        }
        if !is_cut {
            self.network.cut(link);
        }
        let micros = self.random.between(5_000, 150_000);
        self.after(micros, Action::Flap { link, left: left - 1, is_cut: !is_cut });
    }

    fn reset(&mut self, length: u64) {
        let (at, peer) = self.any_link();
        let refused = self.random.per_mille(200);
        self.note(&format!("the connection of {at} and {peer} breaks"));
        let error = "connection reset by peer".to_owned();
        self.event(at, Event::LinkDown { peer, refused, error: error.clone() });
        self.event(peer, Event::LinkDown { peer: at, refused: false, error });
        let micros = length / 20;
        for link in [(at, peer), (peer, at)] {
            self.cut_for(link, micros);
            self.after(micros, Action::LinkUp(link));
        }
    }

    fn want_leader(&mut self) -> bool {
        let machine = self.any_machine();
        if !self.is_awake(machine) {
            return false;
        }
        let to = self.random.per_mille(500).then(|| self.any_id());
        self.note(&format!("{machine} asks for another leader"));
        let deadline = self.deadline(machine);
        let transfer = Transfer { to, deadline, reply: Box::new(|_| ()) };
        self.event(machine, Event::Transfer(transfer));
        true
    }
}
