//! Sessions that end by age: clients go home for longer than a session lives, and come back.
//!
//! What is asked then is asked under sessions that are gone, or are gone as soon as the log moves
//! on. Nobody may hear of it, and a request must still take effect once. Clocks that run fast or
//! slow make nodes wrong about how old a session is.

use crate::random::Random;
use crate::runner::for_each_seed;
use crate::shape::Shape;
use crate::tape::Tape;
use crate::world::{Action, World};
use paxos_ssh::store::sessions::SESSION_TTL;
use std::time::Duration;

/// Seeds: few, for each has more than ten minutes of silence.
const SEEDS: u64 = 8;

/// How long clients are away: so that by the slowest clock all sessions have ended.
const AWAY: Duration = Duration::from_nanos(SESSION_TTL / 10 * 18);

/// How long they are back before anything goes wrong again.
const BACK: Duration = Duration::from_secs(1);

/// Sessions that were opened while clients were back and nothing went wrong.
fn come_back(seed: u64, tape: &Tape) -> u64 {
    let mut shape = Shape::draw(&mut Random::new(seed));
    shape.bulky = false;
    let mut world = World::new(seed, shape, tape);
    world.run_faults();
    world.heal();
    world.clients.leave();
    let home = world.now() + AWAY;
    world.run(home, |_| false);
    let before = world.checks.validity.sessions();
    for client in 0..world.shape.clients {
        world.add_client(client);
    }
    let back = world.now() + BACK;
    world.run(back, |_| false);
    let opened = world.checks.validity.sessions() - before;
    world.faulty = true;
    world.after(0, Action::Fault);
    world.run_faults();
    world.heal_and_check();
    opened
}

#[test]
fn sessions_that_ended_by_age_are_opened_again() {
    let opened = for_each_seed("sessions_that_ended_by_age", 0..SEEDS, come_back);
    println!("sessions opened after {AWAY:?} of silence, in each seed: {opened:?}");
    assert!(opened.iter().all(|opened| *opened > 0), "a session outlived its age");
}
