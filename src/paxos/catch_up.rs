//! Catching up: a node that misses what others call chosen asks one of them for it.
//!
//! It asks whoever told of the most, and goes on asking whoever answers. It must not depend on one
//! peer: the one who tells of the most, most often the leader, may have a disk from which it cannot
//! read an old entry back, and be heard all the same. The cost is a wait for each peer that is
//! asked in vain: a request timeout, doubled from one to the next. An answer is several pieces,
//! each a frame, so that a slow link is not idle for a round trip after each of them; whoever
//! answers reads that many from its disk at once, which is what bounds their number.

use super::ballot::{NodeId, Slot};
use super::effects::{Effects, LogRead, Offence};
use super::learner::Tail;
use super::message::{Entry, Statement, Value};
use super::replica::Replica;
use std::sync::Arc;

/// How often the wait doubles from one who was asked in vain to the next.
const DOUBLINGS_MAX: u32 = 3;

/// Pieces in one answer, of about a mebibyte each. Over 40 ms each way one piece for each round
/// trip is 12 MiB/s, which is less than a leader may be writing; four are read from a disk in the
/// time of a heartbeat even where nothing is cached.
const PIECES_MAX: u32 = 4;

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
    /// The last piece of an answer came since then. It may have overtaken the others.
    ended: bool,
}

/// A part of the chosen log, as somebody answers it.
pub(super) struct Piece<V> {
    pub(super) first: Slot,
    pub(super) entries: Vec<Arc<Entry<V>>>,
    /// The end of the chosen prefix that the answering node knows.
    pub(super) chosen: Slot,
    /// The next one comes without being asked for.
    pub(super) more: bool,
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
        let (asked, from) = (first, Some(source));
        self.catch_up = CatchUp { left, asked, from, sources, ended: false };
        effects.say(source, Statement::Fetch { first });
    }

    pub(super) fn on_fetch(
        &mut self,
        from: NodeId,
        mut first: Slot,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        if first.0 == 0 {
            return Err(Offence::Malformed);
        }
        let chosen = self.learner.chosen();
        for left in (0..PIECES_MAX).rev() {
            let Tail::Entries(entries) = self.learner.tail(first) else {
                effects.read_log(LogRead { to: from, first, chosen, pieces: left + 1 });
                break;
            };
            let next = Slot(first.0.saturating_add(entries.len() as u64));
            let more = left > 0 && !entries.is_empty() && next <= chosen;
            let fetched = Statement::Fetched { first, entries, chosen, floor: Slot(1), more };
            self.outbox(effects).say(from, fetched);
            if !more {
                break;
            }
            first = next;
        }
        Ok(())
    }

    pub(super) fn on_fetched(
        &mut self,
        from: NodeId,
        piece: Piece<V>,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        let Piece { first, entries, chosen, more } = piece;
        let end = first.0.checked_add(entries.len() as u64);
        if first.0 == 0 || end.is_none_or(|end| end.saturating_sub(1) > chosen.0) {
            return Err(Offence::Malformed);
        }
        self.learner.hear(from, chosen);
        self.learner.on_fetched(first, &entries, self.configurations.window());
        self.catch_up.ended |= !more;
        let missing = self.learner.first_missing();
        let helped = missing > self.catch_up.asked && self.catch_up.asked.0 > 0;
        if !helped || missing > chosen {
            return Ok(());
        }
        if self.catch_up.ended {
            self.fetch(from, missing, effects);
        } else {
            // What follows counts as asked for, and is waited for as long.
            let left = self.election.timing().request;
            let (asked, from) = (missing, Some(from));
            self.catch_up = CatchUp { left, asked, from, sources: 1, ended: false };
        }
        Ok(())
    }

    /// The others who hold a log, in order of their ids.
    fn holders(&self) -> impl Iterator<Item = NodeId> {
        let members = self.configurations.newest().members().iter();
        members
            .filter(|(id, member)| **id != self.id && !member.roles.is_client())
            .map(|(id, _)| *id)
    }
}
