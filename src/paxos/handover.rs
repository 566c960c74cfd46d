//! Who follows, who should lead next, and passing leadership on.
//!
//! A hand-over is ordinary Paxos: the leader finishes what is under way, asks its successor to
//! campaign, and the successor's higher ballot ends its own. Nothing is promised: if the successor
//! does not take it, the leader goes on.
//!
//! A hand-over must never end a leadership that nobody could replace. Where phase 1 takes more
//! acceptors than phase 2, a leader may serve well while too few are left to elect another one. So
//! the successor is asked only after a round of heartbeats, begun when the hand-over was, came back
//! from as many acceptors as an election takes. It costs a round trip, during which what is under
//! way finishes anyhow.

use super::ballot::{NodeId, Slot};
use super::configuration::Configurations;
use super::effects::Effects;
use super::message::{Statement, Value};
use super::outbox::Outbox;
use super::proposer::{Phase, Proposer};
use super::replica::Replica;
use super::timing::Timing;

/// Why leadership stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// Nobody is known to lead.
    NoLeader,
    /// This node leads, and the one that was named, or every other one, is not heard or cannot
    /// lead.
    NoSuccessor,
    /// Too few acceptors answer to elect anybody.
    Unelectable {
        /// Acceptors that answered within the election timeout.
        heard: usize,
        /// Acceptors that an election takes.
        needed: usize,
    },
}

/// Leadership being passed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HandingOver {
    to: NodeId,
    left: u32,
    pub(super) asked: bool,
    /// The heartbeat round that shows whether an election could succeed.
    round: u64,
}

impl<V: Value> Replica<V> {
    /// Passes leadership on.
    ///
    /// # Errors
    /// When this node does not lead, or had better go on.
    pub fn hand_over(&mut self, to: NodeId, effects: &mut Effects<V>) -> Result<(), Stays> {
        if !self.is_leading() {
            return Err(Stays::NoLeader);
        }
        let proposes = |id| {
            self.configurations.newest().member(id).is_some_and(|m| m.roles.proposer.is_some())
        };
        if to == self.id || !self.followed_by().contains(&to) || !proposes(to) {
            return Err(Stays::NoSuccessor);
        }
        if let Some((heard, needed)) = self.elections_lack() {
            return Err(Stays::Unelectable { heard, needed });
        }
        let timing = self.election.timing();
        if self.proposer.as_mut().is_some_and(|proposer| proposer.hand_over(to, timing)) {
            // Whoever died a moment ago still counts as heard, but does not answer this.
            self.heartbeat(effects);
        }
        Ok(())
    }

    /// Has whoever leads pass leadership on: to `to`, or to whoever is best placed.
    ///
    /// # Errors
    /// When nobody is known to lead, or this node leads and had better go on.
    pub fn ask_hand_over(
        &mut self,
        to: Option<NodeId>,
        effects: &mut Effects<V>,
    ) -> Result<(), Stays> {
        if self.is_leading() {
            let to = to.or_else(|| self.successor()).ok_or(Stays::NoSuccessor)?;
            return self.hand_over(to, effects);
        }
        let (leader, _) = self.election.leader().ok_or(Stays::NoLeader)?;
        effects.say(leader, Statement::AskHandOver { to });
        Ok(())
    }

    /// Whether an election could succeed now, as far as this node, leading, can tell.
    pub(super) fn is_anybody_electable(&self) -> bool {
        self.elections_lack().is_none()
    }

    /// How many acceptors answered within the election timeout, and how many an election takes,
    /// where these are too few.
    fn elections_lack(&self) -> Option<(usize, usize)> {
        let Some(Phase::Leading(leading)) = self.proposer.as_ref().map(|p| &p.phase) else {
            return None;
        };
        let election = self.election.timing().election;
        let answers = |id: &NodeId| leading.followers.get(id).is_some_and(|f| f.unheard < election);
        self.open_configurations().find_map(|configuration| {
            let heard = configuration.acceptors().filter(answers).count();
            let needed = configuration.quorums().campaign();
            (heard < needed).then_some((heard, needed))
        })
    }

    /// The follower best placed to lead next: heard lately, sound disk, furthest ahead.
    pub fn successor(&self) -> Option<NodeId> {
        let Phase::Leading(leading) = &self.proposer.as_ref()?.phase else { return None };
        let election = self.election.timing().election;
        let newest = self.configurations.newest();
        leading
            .followers
            .iter()
            .filter(|(id, f)| **id != self.id && f.fit && f.silent < election)
            .filter(|(id, _)| newest.member(**id).is_some_and(|m| m.roles.proposer.is_some()))
            .max_by_key(|(id, f)| (f.chosen, std::cmp::Reverse(**id)))
            .map(|(id, _)| *id)
    }

    /// Whether this node leads.
    pub fn is_leading(&self) -> bool {
        self.proposer.as_ref().is_some_and(|proposer| proposer.leading().is_some())
    }

    /// The acceptors that this node, leading, heard from within the election timeout; itself
    /// included.
    pub fn followed_by(&self) -> Vec<NodeId> {
        let Some(Phase::Leading(leading)) = self.proposer.as_ref().map(|p| &p.phase) else {
            return Vec::new();
        };
        let election = self.election.timing().election;
        let heard = leading.followers.iter().filter(|(_, f)| f.silent < election);
        heard.map(|(id, _)| *id).collect()
    }
}

impl<V: Value> Proposer<V> {
    /// Starts to pass leadership on; new commands wait until it is done or given up. Answers
    /// whether this is news; then the next round of heartbeats is to begin.
    pub(super) fn hand_over(&mut self, to: NodeId, timing: Timing) -> bool {
        let Phase::Leading(leading) = &mut self.phase else { return false };
        if leading.handing_over.is_some() {
            return false;
        }
        let (left, round) = (timing.election, leading.round + 1);
        leading.handing_over = Some(HandingOver { to, left, asked: false, round });
        true
    }

    /// Whether leadership is being passed on.
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.phase, Phase::Leading(leading) if leading.handing_over.is_some())
    }

    /// Asks the successor to campaign once nothing is in flight and enough acceptors answered.
    pub(super) fn push_hand_over(
        &mut self,
        chosen: Slot,
        configurations: &Configurations,
        out: &mut Outbox<'_, V>,
    ) {
        let Phase::Leading(leading) = &mut self.phase else { return };
        let idle = leading.batches.is_empty() && leading.recovered.is_empty();
        let Some(handing_over) = &mut leading.handing_over else { return };
        let answered =
            |id: &NodeId| leading.followers.get(id).is_some_and(|f| f.round >= handing_over.round);
        let electable = configurations.from(chosen.next()).all(|configuration| {
            let answered = configuration.acceptors().filter(answered).count();
            answered >= configuration.quorums().campaign()
        });
        if idle && electable && !handing_over.asked {
            handing_over.asked = true;
            out.say(handing_over.to, Statement::HandOver { ballot: leading.ballot });
        }
    }

    /// Time passes while leadership is passed on. It is given up when the successor does not take
    /// it.
    pub(super) fn tick_hand_over(&mut self) {
        let Phase::Leading(leading) = &mut self.phase else { return };
        if let Some(handing_over) = &mut leading.handing_over {
            handing_over.left = handing_over.left.saturating_sub(1);
            if handing_over.left == 0 {
                leading.handing_over = None;
            }
        }
    }
}
