//! Who follows, who should lead next, and passing leadership on.
//!
//! A hand-over is ordinary Paxos: the leader finishes what is under way, asks its successor to
//! campaign, and the successor's higher ballot ends its own. Nothing is promised: if the successor
//! does not take it, the leader goes on.

use super::ballot::NodeId;
use super::effects::Effects;
use super::message::{Statement, Value};
use super::outbox::Outbox;
use super::proposer::Phase;
use super::replica::Replica;

impl<V: Value> Replica<V> {
    /// Passes leadership on. Answers false when this node does not lead or cannot pass it to that
    /// node.
    pub fn hand_over(&mut self, to: NodeId, effects: &mut Effects<V>) -> bool {
        let proposes = |id| {
            self.configurations.newest().member(id).is_some_and(|m| m.roles.proposer.is_some())
        };
        if to == self.id || !self.followed_by().contains(&to) || !proposes(to) {
            return false;
        }
        let timing = self.election.timing();
        if let Some(proposer) = &mut self.proposer {
            proposer.hand_over(to, timing);
            let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects };
            proposer.push_hand_over(&mut out);
        }
        true
    }

    /// Has whoever leads pass leadership on: to `to`, or to whoever is best placed. Answers false
    /// when nobody is known to lead.
    pub fn ask_hand_over(&mut self, to: Option<NodeId>, effects: &mut Effects<V>) -> bool {
        if self.is_leading() {
            return to.or_else(|| self.successor()).is_some_and(|to| self.hand_over(to, effects));
        }
        let leader = self.election.leader().map(|(leader, _)| leader);
        leader.inspect(|leader| effects.say(*leader, Statement::AskHandOver { to })).is_some()
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
