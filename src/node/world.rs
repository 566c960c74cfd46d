//! What a node needs from the world: a clock, randomness, peers. The simulator brings its own.

use crate::paxos::ballot::NodeId;
use crate::wire::peer::PeerMessage;
use std::time::Duration;

/// Real time between two ticks of the core. Timeouts are whole ticks, so this is their resolution;
/// at 100 wake-ups a second an idle node costs well under one percent of a core.
pub const TICK: Duration = Duration::from_millis(10);

/// The only clock and the only randomness of a node.
pub trait World {
    /// Monotonic time since this node started.
    fn now(&self) -> Duration;
    /// The time of day, since the Unix epoch: shown to people, and input to nothing. Where there is
    /// none, the node's own time stands in.
    fn wall(&self) -> Duration {
        self.now()
    }
    /// 64 random bits, from the operating system in production: identities are made of them.
    fn random(&mut self) -> u64;
}

/// The way to other nodes. It may drop, duplicate, delay and reorder, but not invent.
pub trait Peers {
    /// Sends one message to each of `to`. Never blocks; what does not fit is dropped.
    fn send(&mut self, to: &[NodeId], message: PeerMessage);
}
