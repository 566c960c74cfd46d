//! Handing requests out to whoever leads, again and again, until they have their outcome.

use super::driver::Driver;
use super::event::RequestError;
use super::world::{Peers, World};
use crate::disk::Log;
use crate::paxos::ballot::Ballot;
use crate::paxos::effects::Token;
use crate::store::command::SessionId;
use std::time::Duration;

impl<L: Log, P: Peers, W: World> Driver<L, P, W> {
    pub(super) fn open_session(&mut self) {
        let nonce = u128::from(self.world.random()) << 64 | u128::from(self.world.random());
        let command = crate::wire::command::encode_command(&self.session.open(nonce));
        self.session_tried = Some(self.world.now());
        if let Some(replica) = &mut self.replica {
            replica.propose(Token(0), command, &mut self.effects);
        }
    }

    /// The session that the waiting writes went under is gone. A node with a store applied every
    /// slot itself, so it would know the outcome of what was executed: whatever still waits was
    /// not, and gets a number in the next session. A node without one may have missed the news
    /// while it was cut off, and nobody remembers any more. It knows only of what it handed to
    /// nobody. How long ago a write was handed out proves nothing: clocks stand still while a
    /// machine is suspended, and a session ends early when there are too many.
    pub(super) fn on_session_lost(&mut self) {
        self.session.lost();
        self.session_tried = None;
        if self.applied.store().is_none() {
            for waiting in self.requests.take_handed_out() {
                let why = "the write was on its way when this node's session with the cluster \
                           ended, and nobody remembers what became of it; it may have been \
                           applied: read the key, or repeat the request under the same \
                           --request-id";
                (waiting.write.reply)(Err(RequestError::UnknownOutcome(why.to_owned())));
            }
        }
        self.requests.unnumber();
        self.open_session();
    }

    /// The session to hand a write out under, if it may be handed out now. A node without a store
    /// could not tell what became of a write under a session that ended, so it gives nothing more
    /// to one that may have: once nobody holds anything of it, it opens the next one.
    fn session_for_write(&mut self, is_held: bool, now: Duration) -> Option<SessionId> {
        let Some(session) = self.session.id() else {
            if self.session_tried.is_none() {
                self.open_session();
            }
            return None;
        };
        let is_safe = self.applied.store().is_some() || !self.session.is_doubtful(now);
        if is_safe || is_held {
            // What may have been executed under this session can go under no other.
            return Some(session);
        }
        if !self.requests.is_any_handed_out() {
            self.requests.unnumber();
            self.open_session();
        }
        None
    }

    pub(super) fn hand_out_write(&mut self, token: u64) {
        let now = self.world.now();
        let Some(waiting) = self.requests.writes.get(&token) else { return };
        let is_held = waiting.handed_out > 0;
        let Some(session) = self.session_for_write(is_held, now) else { return };
        let Some(waiting) = self.requests.writes.get_mut(&token) else { return };
        waiting.tried = Some(now);
        waiting.first_tried.get_or_insert(now);
        waiting.handed_out += 1;
        let request_id = waiting
            .write
            .request_id
            .as_ref()
            .map(|id| format!("{}\n{id}", waiting.write.principal));
        let operation = waiting.write.operation.clone();
        let numbered = waiting.sequence.filter(|_| !planted!(RetryIsNew));
        let sequence = numbered.unwrap_or_else(|| self.session.issue());
        self.requests.number(token, sequence);
        let command = self.session.command(session, sequence, request_id, operation);
        let command = crate::wire::command::encode_command(&command);
        if let Some(replica) = &mut self.replica {
            replica.propose(Token(token), command, &mut self.effects);
        }
    }

    pub(super) fn hand_out_reads(&mut self, token: u64) {
        let now = self.world.now();
        if let (Some(replica), Some(group)) =
            (&mut self.replica, self.requests.read_groups.get_mut(&token))
        {
            group.tried = Some(now);
            replica.read(Token(token), &mut self.effects);
        }
    }

    /// Hands out what nobody holds, and again what was handed out before `stale`.
    pub(super) fn hand_out_all(&mut self, stale: Duration) {
        if self.replica.as_ref().is_none_or(|replica| replica.passes_on_to().is_none()) {
            return;
        }
        let (writes, reads) = self.requests.due(stale);
        if self.session.id().is_none() && !writes.is_empty() {
            if self.session_tried.is_none_or(|tried| tried <= stale) {
                self.open_session();
            }
        } else {
            writes.into_iter().for_each(|token| self.hand_out_write(token));
        }
        reads.into_iter().for_each(|token| self.hand_out_reads(token));
    }

    /// Another leader, or the same one under another ballot, may never have heard of what waits
    /// here. Nor has it while only a relay hears it.
    pub(super) fn follow_leadership(&mut self) {
        let Some(replica) = &self.replica else { return };
        let status = replica.status();
        let relay = replica.passes_on_to().map(|relay| (relay, Ballot::ZERO));
        let leadership = status.leader.map(|leader| (leader, status.ballot)).or(relay);
        if leadership == self.leadership {
            return;
        }
        self.leadership = leadership;
        if status.leader.is_some_and(|leader| leader != self.id) {
            self.outlook.follow();
        }
        if leadership.is_some() {
            self.hand_out_all(self.world.now());
            if let Some(replica) = &mut self.replica {
                replica.flush(&mut self.effects);
            }
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        let why = self.why_not();
        for waiting in self.requests.overdue_writes(now) {
            if let Some(sequence) = waiting.sequence {
                self.session.settle(sequence);
            }
            let error = if waiting.handed_out == 0 {
                RequestError::NoQuorum(format!(
                    "the write found no leader before its deadline ({why}); it was not applied: \
                     try \
                     again once `paxos status` shows a leader"
                ))
            } else {
                RequestError::UnknownOutcome(format!(
                    "the write was on its way when its deadline passed ({why}); it may have been \
                     applied: read the key, or repeat the request under the same --request-id"
                ))
            };
            (waiting.write.reply)(Err(error));
        }
        for read in self.requests.overdue_reads(now) {
            (read.reply)(Err(RequestError::NoQuorum(format!(
                "no quorum confirmed the read before its deadline ({why}); try again, or read with \
                 --consistency local"
            ))));
        }
        self.expire_lookups(now, &why);
        self.expire_transfers(now, &why);
    }

    fn why_not(&self) -> String {
        let Some(replica) = &self.replica else { return "this node holds no log".to_owned() };
        let status = replica.status();
        match status.leader {
            Some(leader) if leader == self.id => {
                "this node leads, but a quorum did not answer".into()
            }
            Some(leader) => {
                let newest = replica.configurations().newest();
                let name = newest.member(leader).map_or("?", |member| &member.name);
                format!("{name} leads, but did not answer in time")
            }
            None => "no leader is known".to_owned(),
        }
    }
}
