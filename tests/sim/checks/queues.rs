//! Queues: every one keeps within its bound, whatever the network brings.
//!
//! Source: the house rule that every queue is bounded. A node tells its depths with their limits
//! (`Driver::depths`); the deepest that was seen is part of the statistics.

use super::{Machine, violated};
use paxos_ssh::paxos::depths::Depth;
use std::collections::BTreeMap;

/// See the module's documentation.
#[derive(Default)]
pub struct Queues {
    deepest: BTreeMap<&'static str, usize>,
}

impl Queues {
    /// A process tells how deep a queue is.
    pub fn depth(&mut self, machine: Machine, depth: Depth) {
        let Depth { queue, length, limit } = depth;
        let deepest = self.deepest.entry(queue).or_default();
        *deepest = (*deepest).max(length);
        if length > limit {
            let what = format!("{machine} keeps {length} in \"{queue}\", whose bound is {limit}");
            violated("queues", &what);
        }
    }

    /// The deepest that each queue ever was.
    pub fn deepest(&self) -> &BTreeMap<&'static str, usize> {
        &self.deepest
    }
}
