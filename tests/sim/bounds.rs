//! Queues that ordinary histories never fill: here somebody fills them on purpose.

use crate::shape::Shape;
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::node::event::{Event, RequestError, Transfer};
use paxos_ssh::paxos::ballot::NodeId;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// More wishes than may wait.
const WISHES: usize = 100;

#[test]
fn wishes_for_another_leader_do_not_pile_up() {
    let mut world = World::new(1, Shape::calm(3), &Tape::off());
    let node = NodeId(1);
    // Alone it finds no leader, so every wish waits.
    for peer in [NodeId(2), NodeId(3)] {
        world.network.cut((peer, node));
    }
    world.run(Duration::from_secs(1), |_| false);
    let told: Arc<Mutex<Vec<Result<NodeId, RequestError>>>> = Arc::default();
    for _ in 0..WISHES {
        let slot = Arc::clone(&told);
        let reply = Box::new(move |told| slot.lock().unwrap().push(told));
        let deadline = world.deadline(node);
        world.event(node, Event::Transfer(Transfer { to: None, deadline, reply }));
    }
    let busy = told.lock().unwrap().len();
    assert!((1..WISHES).contains(&busy), "{busy} of {WISHES} were turned away");
    assert!(told.lock().unwrap().iter().all(|told| matches!(told, Err(RequestError::Busy(_)))));
    let later = world.now() + Duration::from_secs(5);
    world.run(later, |_| false);
    assert_eq!(told.lock().unwrap().len(), WISHES, "a wish was never answered");
}
