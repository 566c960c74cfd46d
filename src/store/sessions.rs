//! Sessions: what makes a command that is proposed twice execute once.
//!
//! A session keeps the outcome of each command until the client acknowledges it, so that a
//! duplicate finds the outcome instead of executing. Outcomes it may no longer keep are therefore
//! refused, never executed: below what was acknowledged, or under a session that is not there. A
//! request id does the same for a retry by hand, which comes under another session, for as long as
//! the table of request ids remembers it. A person may give one id to two different requests, which
//! no client does with its sequence numbers; the second is refused, because the first one's outcome
//! would be a lie about it.
//!
//! Everything ends by rules that all nodes share: sessions by replicated time, and by age when
//! there are too many; request ids by age.

use super::command::{Command, Operation, Outcome, SESSION_WINDOW, SessionId};
use super::digest::operation_digest;
use super::draft::Draft;
use super::engine::{ReadEngine, Space};
use super::rows::{
    NamedRequest, Session, decode_number, decode_outcome, decode_pair, encode_outcome, nonce_key,
    number_key, pair_key, request_key, session_key,
};
use crate::paxos::ballot::{ClusterTime, Slot};
use bytes::Bytes;
use std::ops::Bound;

/// A session that was not used for this long ends, in nanoseconds of replicated time. A client that
/// was cut off or stopped for a coffee still finds its outcomes; a client that is gone costs its
/// memory no longer.
pub const SESSION_TTL: u64 = 10 * 60 * 1_000_000_000;

/// How much of its time to live a session may have lost before use renews it: often enough to be
/// exact within an eighth, seldom enough that a busy session's row of the expiry space does not
/// move with each command.
const SESSION_RENEW_STEP: u64 = SESSION_TTL / 8;

/// How many sessions may be open. A few hundred nodes and their applications stay far below; beyond
/// it the one that was idle longest ends, so that a client which opens sessions without end harms
/// idle ones first.
pub const SESSIONS_MAX: u64 = 4096;

/// How many request ids are remembered, the youngest: a retry by hand comes within minutes, and
/// with a thousand such requests a minute this is an hour.
pub const REQUEST_IDS_MAX: u64 = 65_536;

impl<E: ReadEngine> Draft<'_, E> {
    /// Ends the sessions whose time has come.
    pub(super) fn expire_sessions(&mut self) {
        let now = self.meta.time;
        let due: Vec<SessionId> = self
            .range_before(Space::Expiries, Bound::Unbounded)
            .map(|(key, _)| decode_pair(&key))
            .take_while(|(expires, _)| *expires <= now.0)
            .map(|(_, id)| SessionId(id))
            .collect();
        for id in due {
            self.end_session(id);
        }
    }

    /// Finds the session of this principal and nonce, or opens it.
    pub(super) fn open_session(&mut self, slot: Slot, principal: &str, nonce: u128) -> Outcome {
        if let Some(row) = self.get(Space::Nonces, &nonce_key(nonce, principal)) {
            let id = SessionId(decode_number(&row));
            let mut session = self.session(id).expect("a nonce goes when its session goes");
            self.use_session(id, &mut session, 0);
            return Outcome::SessionOpened(id);
        }
        if self.meta.sessions >= SESSIONS_MAX {
            self.end_longest_idle();
        }
        let id = SessionId(slot.0);
        let expires = self.expiry();
        let session =
            Session { expires, acknowledged_below: 0, nonce, principal: principal.to_owned() };
        self.put(Space::Sessions, session_key(id), session.encode());
        self.put(Space::Nonces, nonce_key(nonce, principal), number_key(id.0));
        self.put(Space::Expiries, pair_key(expires.0, id.0), Bytes::new());
        self.meta.sessions += 1;
        Outcome::SessionOpened(id)
    }

    /// Runs `execute` unless the command was executed before or may not be; keeps and returns the
    /// outcome.
    pub(super) fn once(
        &mut self,
        slot: Slot,
        command: &Command,
        execute: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let session = self.session(command.session);
        let session = session.filter(|session| session.principal == command.principal);
        let Some(mut session) = session else {
            return Outcome::SessionUnknown;
        };
        self.use_session(command.session, &mut session, command.acknowledged_below);
        let Some(ahead) = command.sequence.checked_sub(session.acknowledged_below) else {
            return Outcome::SequenceAcknowledged;
        };
        let key = pair_key(command.session.0, command.sequence);
        if let Some(row) = self.get(Space::Outcomes, &key) {
            return decode_outcome(&row);
        }
        if ahead >= SESSION_WINDOW as u64 {
            return Outcome::WindowFull;
        }
        let outcome = match &command.request_id {
            None => execute(self),
            Some(id) => self.once_by_request_id(slot, id, &command.operation, execute),
        };
        // A command that closed its session leaves nothing behind.
        if outcome != Outcome::SessionClosed && !planted!(OutcomeNotKept) {
            self.put(Space::Outcomes, key, encode_outcome(&outcome));
        }
        outcome
    }

    fn once_by_request_id(
        &mut self,
        slot: Slot,
        request_id: &str,
        operation: &Operation,
        execute: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let key = request_key(request_id);
        let operation = operation_digest(operation);
        if let Some(row) = self.get(Space::Requests, &key) {
            let first = NamedRequest::decode(&row);
            let same = first.operation == operation;
            return if same { first.outcome } else { Outcome::RequestIdReused };
        }
        let outcome = execute(self);
        if planted!(RequestIdNotKept) {
            return outcome;
        }
        if self.meta.requests >= REQUEST_IDS_MAX {
            let oldest = self.range_before(Space::RequestAges, Bound::Unbounded).next();
            let (age, oldest) = oldest.expect("as many ages are kept as requests");
            self.delete(Space::Requests, oldest);
            self.delete(Space::RequestAges, age);
            self.meta.requests -= 1;
        }
        self.put(Space::RequestAges, number_key(slot.0), key.clone());
        let named = NamedRequest { operation, outcome };
        self.put(Space::Requests, key, named.encode());
        self.meta.requests += 1;
        named.outcome
    }

    fn session(&self, id: SessionId) -> Option<Session> {
        self.get(Space::Sessions, &session_key(id)).map(Session::decode)
    }

    fn expiry(&self) -> ClusterTime {
        ClusterTime(self.meta.time.0.saturating_add(SESSION_TTL))
    }

    /// Renews the session and forgets the outcomes that the client has seen.
    fn use_session(&mut self, id: SessionId, session: &mut Session, acknowledged_below: u64) {
        let before = (session.expires, session.acknowledged_below);
        let expires = self.expiry();
        if expires.0 - session.expires.0 >= SESSION_RENEW_STEP {
            self.delete(Space::Expiries, pair_key(session.expires.0, id.0));
            self.put(Space::Expiries, pair_key(expires.0, id.0), Bytes::new());
            session.expires = expires;
        }
        if acknowledged_below > session.acknowledged_below {
            session.acknowledged_below = acknowledged_below;
            self.forget_outcomes(id, acknowledged_below);
        }
        if before != (session.expires, session.acknowledged_below) {
            self.put(Space::Sessions, session_key(id), session.encode());
        }
    }

    /// Forgets the session's outcomes with sequence numbers below `end`.
    fn forget_outcomes(&mut self, id: SessionId, end: u64) {
        let first = pair_key(id.0, 0);
        let seen: Vec<Bytes> = self
            .range_before(Space::Outcomes, Bound::Included(&first))
            .map(|(key, _)| key)
            .take_while(|key| {
                let (session, sequence) = decode_pair(key);
                session == id.0 && sequence < end
            })
            .collect();
        for key in seen {
            self.delete(Space::Outcomes, key);
        }
    }

    /// Ends a session that is there, and forgets all it knew.
    pub(super) fn end_session(&mut self, id: SessionId) {
        let session = self.session(id).expect("only sessions that are there end");
        self.forget_outcomes(id, u64::MAX);
        // The range above leaves out the very last sequence number, which is as good as any other.
        self.delete(Space::Outcomes, pair_key(id.0, u64::MAX));
        self.delete(Space::Sessions, session_key(id));
        self.delete(Space::Nonces, nonce_key(session.nonce, &session.principal));
        self.delete(Space::Expiries, pair_key(session.expires.0, id.0));
        self.meta.sessions -= 1;
    }

    fn end_longest_idle(&mut self) {
        let idle = self
            .range_before(Space::Expiries, Bound::Unbounded)
            .find(|(key, _)| self.get(Space::Expiries, key).is_some());
        let (key, _) =
            idle.expect("every session has an expiry, and none was renewed in this slot");
        self.end_session(SessionId(decode_pair(&key).1));
    }
}
