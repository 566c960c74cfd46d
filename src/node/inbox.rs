//! The one queue between the asynchronous world and the node's thread.
//!
//! Three lanes, so that a flood in one starves no other: what the node's own disk and clock say,
//! and that a list is over; what peers say; and what clients want. Each is bounded. The node's
//! thread takes everything that waits at once, which is what makes batches: one wake-up, one lock,
//! for as many events as gathered meanwhile.
//!
//! A full lane refuses: a peer's message is dropped (the protocol stands that), a client's request
//! is handed back to be answered `busy`. Nothing that the disk or the clock says is ever dropped,
//! and there is never more of it than the driver caused.

use super::event::Event;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Messages of peers that may wait: a few milliseconds of the node's work.
pub const PEER_EVENTS_MAX: usize = 8192;

/// Requests of clients that may wait to be looked at. The node holds far more once it has looked.
pub const CLIENT_EVENTS_MAX: usize = 8192;

/// Requests of clients taken at once, so that peers and disk get their turn in between.
const CLIENT_EVENTS_PER_BATCH: usize = 1024;

#[derive(Default)]
struct Lanes {
    own: VecDeque<Event>,
    peers: VecDeque<Event>,
    clients: VecDeque<Event>,
    closed: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Inbox {
    lanes: Mutex<Lanes>,
    arrived: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // A thread that panicked while it held the lock had only pushed or taken whole events.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the node's own disk or clock, or about something that the node itself began.
    pub fn push_own(&self, event: Event) {
        self.lock().own.push_back(event);
        self.arrived.notify_one();
    }

    /// From a peer. Answers whether there was room.
    pub fn push_peer(&self, event: Event) -> bool {
        let mut lanes = self.lock();
        if lanes.peers.len() >= PEER_EVENTS_MAX {
            return false;
        }
        lanes.peers.push_back(event);
        drop(lanes);
        self.arrived.notify_one();
        true
    }

    /// From a client. Hands the event back if there is no room.
    pub fn push_client(&self, event: Event) -> Result<(), Event> {
        let mut lanes = self.lock();
        if lanes.clients.len() >= CLIENT_EVENTS_MAX || lanes.closed {
            return Err(event);
        }
        lanes.clients.push_back(event);
        drop(lanes);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes no more requests, and ends the node's thread once it looks.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Everything that waits, the node's own first; waits up to `patience` for something. Answers
    /// false once the inbox is closed.
    pub fn take(&self, batch: &mut Vec<Event>, patience: Duration) -> bool {
        let lanes = self.lock();
        let idle = |lanes: &mut Lanes| {
            lanes.own.is_empty()
                && lanes.peers.is_empty()
                && lanes.clients.is_empty()
                && !lanes.closed
        };
        let waited = self.arrived.wait_timeout_while(lanes, patience, idle);
        let (mut lanes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        batch.extend(lanes.own.drain(..));
        batch.extend(lanes.peers.drain(..));
        let clients = lanes.clients.len().min(CLIENT_EVENTS_PER_BATCH);
        batch.extend(lanes.clients.drain(..clients));
        !lanes.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::NodeId;

    #[test]
    fn a_flood_of_clients_keeps_nobody_else_out_and_is_bounded() {
        let inbox = Inbox::default();
        let mut taken = 0;
        while inbox.push_client(Event::LinkUp(NodeId(9))).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, CLIENT_EVENTS_MAX);
        assert!(inbox.push_peer(Event::LinkUp(NodeId(1))));
        inbox.push_own(Event::Tick);
        let mut batch = Vec::new();
        assert!(inbox.take(&mut batch, Duration::ZERO));
        assert!(matches!(batch[0], Event::Tick));
        assert!(matches!(batch[1], Event::LinkUp(NodeId(1))));
        assert_eq!(batch.len(), 2 + CLIENT_EVENTS_PER_BATCH);
    }

    #[test]
    fn closing_wakes_the_reader_and_refuses_requests() {
        let inbox = Inbox::default();
        inbox.close();
        assert!(!inbox.take(&mut Vec::new(), Duration::from_secs(60)));
        assert!(inbox.push_client(Event::Tick).is_err());
    }
}
