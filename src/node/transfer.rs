//! Passing leadership on, as a client or a stopping node asks for it.
//!
//! The wish goes to whoever leads; it is granted when somebody else is seen to lead, and refused at
//! its deadline. Nothing is undone then: leadership may still move a moment later.

use super::driver::Driver;
use super::event::{RequestError, Transfer};
use super::world::{Peers, World};
use crate::disk::Log;
use crate::paxos::ballot::NodeId;
use crate::paxos::handover::Stays;
use std::time::Duration;

/// Wishes that may wait at one node. A wish is granted or refused within its deadline of seconds,
/// and a cluster has one leader to move: more than a few mean that somebody asks in a loop.
pub(super) const TRANSFERS_WAITING_MAX: usize = 64;

impl<L: Log, P: Peers, W: World> Driver<L, P, W> {
    pub(super) fn on_transfer(&mut self, transfer: Transfer) {
        let Some(replica) = &mut self.replica else {
            (transfer.reply)(Err(RequestError::no_genesis()));
            return;
        };
        if transfer.to.is_some() && replica.status().leader == transfer.to {
            let leader = transfer.to.unwrap_or(self.id);
            (transfer.reply)(Ok(leader));
            return;
        }
        let newest = replica.configurations().newest();
        let proposes =
            |id: NodeId| newest.member(id).is_some_and(|member| member.roles.proposer.is_some());
        if let Some(to) = transfer.to
            && !proposes(to)
        {
            let to = newest.member(to).map_or_else(|| to.to_string(), |to| to.name.clone());
            (transfer.reply)(Err(RequestError::Internal(format!(
                "{to} is no proposer and cannot lead; name one of the proposers that \
                 `paxos members` lists"
            ))));
            return;
        }
        if self.transfers.len() >= TRANSFERS_WAITING_MAX {
            (transfer.reply)(Err(RequestError::Busy(format!(
                "{TRANSFERS_WAITING_MAX} wishes for another leader wait at this node already; \
                 leadership was not asked to move: try again shortly"
            ))));
            return;
        }
        let leader = replica.status().leader;
        match replica.ask_hand_over(transfer.to, &mut self.effects) {
            Err(Stays::Unelectable { heard, needed }) => {
                (transfer.reply)(Err(RequestError::NoQuorum(format!(
                    "an election takes {needed} acceptors and {heard} answer, so nobody could \
                     take over; this node goes on leading: bring acceptors back first"
                ))));
            }
            // A leader or a successor may show up before the deadline.
            Ok(()) | Err(Stays::NoLeader | Stays::NoSuccessor) => {
                self.transfers.push((transfer, leader));
            }
        }
    }

    /// A transfer is done when somebody else leads: the one named, if one was.
    pub(super) fn answer_transfers(&mut self) {
        let Some(replica) = self.replica.as_ref().filter(|_| !self.transfers.is_empty()) else {
            return;
        };
        let Some(leader) = replica.status().leader else { return };
        for at in (0..self.transfers.len()).rev() {
            let (transfer, before) = &self.transfers[at];
            let done = transfer.to.map_or(*before != Some(leader), |to| to == leader);
            if done {
                let (transfer, _) = self.transfers.swap_remove(at);
                (transfer.reply)(Ok(leader));
            }
        }
    }

    /// Refuses the wishes whose time is up.
    pub(super) fn expire_transfers(&mut self, now: Duration, why: &str) {
        for at in (0..self.transfers.len()).rev() {
            if self.transfers[at].0.deadline <= now {
                let (transfer, _) = self.transfers.swap_remove(at);
                (transfer.reply)(Err(RequestError::NoQuorum(format!(
                    "leadership did not move before the deadline ({why}); try again"
                ))));
            }
        }
    }
}
