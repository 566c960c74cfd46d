//! The only clocks and the only source of randomness of a running node.

use super::world::World;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clocks and its random numbers.
#[derive(Debug, Clone, Copy)]
pub struct SystemWorld {
    started: Instant,
}

impl SystemWorld {
    /// A clock that reads zero now.
    pub fn start() -> SystemWorld {
        SystemWorld { started: Instant::now() }
    }

    /// When it read zero.
    pub fn started(&self) -> Instant {
        self.started
    }
}

impl World for SystemWorld {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall(&self) -> Duration {
        // A machine whose clock stands before 1970 shows the epoch.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// From a generator that the operating system seeded and that cannot be predicted from its
    /// output.
    fn random(&mut self) -> u64 {
        rand::random()
    }
}
