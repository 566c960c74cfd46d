//! Catching up: a node that misses what others call chosen asks one of them for it.
//!
//! It asks whoever told of the most, and goes on asking whoever answers. It must not depend on one
//! peer: the one who tells of the most, most often the leader, may have a disk from which it cannot
//! read an old entry back, and be heard all the same. The cost is a wait for each peer that is
//! asked in vain: a request timeout, doubled from one to the next. It asks for one piece at a time,
//! so over a slow link it gains one for each round trip.

use super::ballot::{NodeId, Slot};
use super::effects::Effects;
use super::message::{Statement, Value};
use super::replica::Replica;

/// How often the wait doubles from one who was asked in vain to the next.
const DOUBLINGS_MAX: u32 = 3;

/// A catch-up under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct CatchUp {
    /// Ticks until it is asked (again).
    pub(super) left: u32,
    /// The first slot that was missing when it was asked last.
    pub(super) asked: Slot,
    /// Who was asked then.
    from: Option<NodeId>,
    /// How many were asked for that slot, one after the other.
    sources: usize,
}

impl<V: Value> Replica<V> {
    pub(super) fn tick_catch_up(&mut self, effects: &mut Effects<V>) {
        let roles = self.configurations.newest().member(self.id).map(|member| member.roles);
        if roles.is_none_or(|roles| roles.is_client()) && !self.outdated {
            // Who neither votes, proposes nor keeps a store needs the log for its configurations
            // only.
            return;
        }
        let Some(source) = self.learner.behind().filter(|_| !planted!(NeverCatchesUp)) else {
            self.catch_up.left = 1;
            return;
        };
        if self.catch_up.left > 0 {
            self.catch_up.left -= 1;
            return;
        }
        let first = self.learner.chosen().next();
        if self.catch_up.asked == first && self.catch_up.sources >= self.holders().count() {
            // Nobody has it. Whoever spread the rumour will say so again, if there is anything.
            self.learner.forget_rumour();
            self.catch_up.asked = Slot(0);
            return;
        }
        self.fetch(source, first, effects);
    }

    /// Asks `source` for what is chosen from `first` on. If somebody was asked for just that and
    /// nothing came, it may be gone, or cannot read those entries back from its disk, though it may
    /// well be the one who tells of the most: the next one is asked instead.
    pub(super) fn fetch(&mut self, source: NodeId, first: Slot, effects: &mut Effects<V>) {
        let failed = self.catch_up.from.filter(|_| self.catch_up.asked == first);
        let next = failed.and_then(|failed| {
            let after = self.holders().find(|id| *id > failed);
            after.or_else(|| self.holders().next())
        });
        let source = next.unwrap_or(source);
        let sources = match failed {
            Some(_) => self.catch_up.sources + 1,
            // A client holds no log, and may be the one who tells of the most.
            None => usize::from(self.holders().any(|id| id == source)),
        };
        // It may be this node's own link that is slow, and all of their answers on the way.
        let doublings = u32::try_from(sources).unwrap_or(u32::MAX).clamp(1, DOUBLINGS_MAX + 1) - 1;
        let left = self.election.timing().request.saturating_mul(1 << doublings);
        self.catch_up = CatchUp { left, asked: first, from: Some(source), sources };
        effects.say(source, Statement::Fetch { first });
    }

    /// The others who hold a log, in order of their ids.
    fn holders(&self) -> impl Iterator<Item = NodeId> {
        let members = self.configurations.newest().members().iter();
        members
            .filter(|(id, member)| **id != self.id && !member.roles.is_client())
            .map(|(id, _)| *id)
    }
}
