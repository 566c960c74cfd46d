//! A directory that is put back as it once was: what its acceptor forgot, others saw.
//!
//! The quorums of these clusters bear no such loss: had the acceptor gone on, two values could be
//! chosen for one slot. So it must be noticed before it says anything, which in a network without
//! losses is always, for whoever saw its pledges and asks for more says so first. It must stay
//! fenced over starts, and with it gone a majority of the others goes on, or nobody does.
//!
//! Where the one who saw is cut off, others may ask it first, and it answers. That is noticed
//! later, but it is noticed, whatever it has pledged meanwhile.

use crate::runner::{for_each_seed, seeds};
use crate::shape::Shape;
use crate::stats::distribution;
use crate::tape::Tape;
use crate::world::{Action, World};
use paxos_ssh::paxos::ballot::NodeId;
use std::time::Duration;

/// Seeds for each size.
const SEEDS: u64 = 50;

/// How long the log goes on after the copy was made.
const FORGOTTEN: Duration = Duration::from_millis(300);

/// What is on its way when a process ends is lost with its connections.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// Links stand again well within this, and the first message tells.
const NOTICED_MAX: Duration = Duration::from_secs(1);

/// Somebody else leads well within this.
const CUT_OFF: Duration = Duration::from_secs(2);

/// How long nobody may be served where fewer than a quorum vote.
const SILENCE: Duration = Duration::from_secs(5);

const FOREVER_MICROS: u64 = 3_600_000_000;

/// A cluster, its leader, and another node whose directory is about to be put back.
struct Old {
    world: World,
    leader: NodeId,
    machine: NodeId,
}

impl Old {
    /// The machine is down, and its disk holds what it held 300 ms before that.
    fn put_back(seed: u64, count: u64, tape: &Tape) -> Old {
        let mut world = World::new(seed, Shape::calm(count), tape);
        world.run_until_stable_leader();
        let (leader, _) = world.common_leader().expect("it is stable");
        for id in 1..=count {
            world.add_client_of(id, NodeId(id));
        }
        let machine = (1..=count).map(NodeId).find(|id| *id != leader).expect("there are others");
        let mut old = Old { world, leader, machine };
        old.run(FORGOTTEN);
        let copy = old.world.nodes[&machine].disk.backup();
        old.run(FORGOTTEN);
        old.world.note(&format!("{machine} is given an old copy of its directory"));
        assert!(old.world.kill(machine), "it ran");
        old.run(ON_ITS_WAY);
        old.world.atlas.forget_beyond(machine);
        old.world.nodes[&machine].disk.swap(&copy);
        old
    }

    fn run(&mut self, time: Duration) {
        let until = self.world.now() + time;
        self.world.run(until, |_| false);
    }

    fn start(&mut self) {
        assert!(self.world.start(self.machine), "an old log is a good log");
        assert!(!self.is_fenced(), "nobody told it yet");
    }

    fn is_fenced(&self) -> bool {
        is_fenced(&self.world, self.machine)
    }

    fn has_pledged(&self) -> bool {
        self.world.checks.promises.has_pledged(self.machine)
    }

    /// Micros until the acceptor is fenced.
    fn run_until_fenced(&mut self) -> u64 {
        let (at, bound, machine) =
            (self.world.micros(), self.world.now() + NOTICED_MAX, self.machine);
        let noticed = self.world.run(bound, |world| is_fenced(world, machine));
        assert!(noticed, "[fence] {machine} votes from an old log: {:?}", self.world.statuses());
        self.world.micros() - at
    }
}

fn is_fenced(world: &World, machine: NodeId) -> bool {
    let driver = world.nodes[&machine].driver.as_ref().expect("it runs");
    driver.replica().is_some_and(|replica| replica.status().fenced)
}

/// Micros from the start of a process over an old copy until its acceptor is fenced.
pub fn forget(seed: u64, count: u64, tape: &Tape) -> u64 {
    let mut old = Old::put_back(seed, count, tape);
    old.start();
    let took = old.run_until_fenced();
    assert!(!old.has_pledged(), "[fence] {} pledged before it was fenced", old.machine);

    // Whatever it knows by then, the log says so.
    old.run(FORGOTTEN);
    let Old { world, leader, machine } = &mut old;
    world.kill(*machine);
    world.nodes[machine].disk.cut();
    assert!(world.start(*machine), "a fenced log is a good log");
    assert!(is_fenced(world, *machine), "[fence] {machine} forgot that it is fenced");

    world.crash_for(*leader, FOREVER_MICROS);
    old.run(ON_ITS_WAY);
    assert!(!old.has_pledged(), "[fence] {} pledged though it is fenced", old.machine);
    let world = &mut old.world;
    let before = world.checks.acknowledged.count();
    let bound = world.now() + SILENCE;
    let is_served = world.run(bound, |world| world.checks.acknowledged.count() > before);
    let voters = count - 2;
    assert_eq!(is_served, voters > count / 2, "[fence] {voters} of {count} acceptors can vote");
    took
}

/// The only one who saw what was forgotten is cut off. The others, who hold all that was chosen,
/// elect another leader with the help of the old log; then the one who saw is back.
fn forget_and_vote(seed: u64, tape: &Tape) {
    let mut old = Old::put_back(seed, 5, tape);
    let witness = old.leader;
    old.world.isolate(witness, CUT_OFF.as_micros() as u64);
    old.start();
    old.run(CUT_OFF - ON_ITS_WAY);
    // Or it leads itself, and tells only itself what it votes.
    let leads = old.world.newest_leader() == Some(old.machine);
    assert!(old.has_pledged() || leads, "[liveness] nobody asked the old log for anything");
    assert!(!old.is_fenced(), "nobody knows better");
    old.run(2 * ON_ITS_WAY);
    let link = (witness, old.machine);
    old.world.after(0, Action::LinkUp(link));
    old.run_until_fenced();
}

#[test]
fn an_old_log_is_fenced() {
    for count in [3, 5] {
        let took = for_each_seed("an_old_log_is_fenced", seeds(SEEDS), |seed, tape| {
            forget(seed, count, tape)
        });
        println!("{count} nodes, micros until an old log is fenced: {}", distribution(&took));
    }
}

#[test]
fn an_old_log_that_voted_meanwhile_is_fenced() {
    for_each_seed("an_old_log_that_voted", seeds(SEEDS), forget_and_vote);
}
