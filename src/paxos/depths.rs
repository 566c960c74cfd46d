//! How deep the core's queues are, and how deep they may get: every one has a bound, and whoever
//! watches a node can see it kept.

use super::acceptor::{Acceptor, open_votes_max};
use super::message::Value;
use super::replica::Replica;

/// One queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// What waits in it.
    pub queue: &'static str,
    /// How much there is of it now.
    pub length: usize,
    /// There is never more.
    pub limit: usize,
}

impl Depth {
    /// A queue by name.
    pub fn new(queue: &'static str, length: usize, limit: usize) -> Depth {
        Depth { queue, length, limit }
    }
}

impl<V: Value> Replica<V> {
    /// All queues of the core.
    pub fn depths(&self) -> Vec<Depth> {
        let window = usize::try_from(self.configurations.window()).unwrap_or(usize::MAX);
        let mut depths = self.learner.depths(window);
        depths.extend(self.acceptor.as_ref().map(|acceptor| Acceptor::depth(acceptor, window)));
        let votes = self.configurations.newest().quorums().acceptors() * open_votes_max(window);
        depths.extend(self.proposer.iter().flat_map(|proposer| proposer.depths(votes)));
        depths.push(self.loopback.depth());
        depths.push(self.reads.depth());
        depths.push(self.forwards_depth());
        depths
    }
}
