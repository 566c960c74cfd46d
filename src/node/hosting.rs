//! What a node with a store does for nodes without one: tells them what became of their commands,
//! and looks things up for them.
//!
//! A caller is served for a moment after each call and then forgotten, so a caller that is gone
//! costs nothing. Everything is bounded: one caller a member, and for each so many views kept for
//! lists that are read page by page.

use super::driver::{Driver, StoreView};
use super::event::{Read, RequestError};
use super::world::{Peers, World};
use crate::disk::Log;
use crate::paxos::ballot::NodeId;
use crate::paxos::depths::Depth;
use crate::store::command::{Command, Operation, Outcome, SessionId};
use crate::transport::identity::node_principal;
use crate::wire::answer::Record;
use crate::wire::peer::PeerMessage;
use crate::wire::request::TIMEOUT_MAX;
use crate::wire::store_call::{Found, LISTED_MAX, Query, StoreAnswer, StoreCall};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a caller is told outcomes after it asked last. It asks twenty times as often while it
/// waits for any.
const SUBSCRIPTION: Duration = Duration::from_secs(1);

/// Views kept for one caller's lists that are read page by page, so that slow lists at one node
/// shut out nobody else's. Each holds on to what the store has replaced since.
const VIEWS_MAX: usize = 32;

/// How long a view is kept after its last page. A caller whose client reads slowly asks three times
/// meanwhile that it be kept; one that is gone asks no more.
const VIEW_KEPT: Duration = Duration::from_secs(30);

/// How long a view is kept after the last page of its list was sent: should that page get lost, it
/// is asked for again every half second. A caller that has it says so.
const ENDED_KEPT: Duration = Duration::from_secs(5);

/// How long it is remembered that a caller let go of a view: a repeated question that was on its
/// way meanwhile would else make another one, which nobody lets go of.
const LEFT_REMEMBERED: Duration = Duration::from_secs(1);

/// How many such callers are remembered. What is forgotten costs a view for half a minute.
const LEFT_MAX: usize = 1024;

/// Bytes of keys and values in one answer: a fraction of a frame, on a lane of its own.
const FOUND_BYTES_MAX: usize = 1 << 20;

/// A node that waits for outcomes.
struct Caller {
    principal: String,
    nonce: u128,
    session: SessionId,
    until: Duration,
    /// To be told at the end of the batch.
    news: Vec<(u64, Outcome)>,
    is_due: bool,
}

struct Kept {
    view: Arc<StoreView>,
    until: Duration,
}

/// Which page of which of the caller's views.
#[derive(Debug, Clone, Copy)]
struct Place {
    token: u64,
    page: u64,
}

/// A look-up that waits for its round.
struct Awaited {
    from: NodeId,
    place: Place,
    query: Query,
    allowed: Result<(), RequestError>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Hosting {
    callers: BTreeMap<NodeId, Caller>,
    views: BTreeMap<(NodeId, u64), Kept>,
    /// Look-ups that wait for their round. They are asked for again meanwhile, and each waits once
    /// among the reads of this node, of which there are only so many.
    awaited: BTreeSet<(NodeId, u64)>,
    /// Until when it is remembered that the caller wants no more of this.
    left: BTreeMap<(NodeId, u64), Duration>,
    /// Filled in by the replies of reads, which know nothing of this node.
    ready: Arc<Mutex<Vec<Awaited>>>,
}

impl Hosting {
    /// A command was applied: whoever waits for it shall hear of it.
    pub(super) fn applied(&mut self, command: &Command, outcome: &Outcome) {
        for caller in self.callers.values_mut().filter(|c| c.principal == command.principal) {
            if let Operation::OpenSession { nonce } = &command.operation {
                let awaits = caller.session == SessionId::NONE && *nonce == caller.nonce;
                if let (Outcome::SessionOpened(id), true) = (outcome, awaits) {
                    caller.session = *id;
                    caller.is_due = true;
                }
            } else if command.session == caller.session {
                caller.news.push((command.sequence, outcome.clone()));
                caller.is_due = true;
            }
        }
    }

    /// How many lists are being read through this node by the caller that reads most, and how many
    /// were left by their readers.
    pub(super) fn depths(&self) -> [Depth; 2] {
        let mut of_callers: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (caller, _) in self.views.keys() {
            *of_callers.entry(*caller).or_default() += 1;
        }
        let most = of_callers.into_values().max().unwrap_or(0);
        [
            Depth::new("views kept for the lists of one caller", most, VIEWS_MAX),
            Depth::new("lists left by their readers", self.left.len(), LEFT_MAX),
        ]
    }

    fn forget_the_gone(&mut self, now: Duration) {
        self.callers.retain(|_, caller| caller.until > now);
        self.views.retain(|_, kept| kept.until > now);
        self.left.retain(|_, until| *until > now);
    }

    fn leave(&mut self, from: NodeId, token: u64, now: Duration) {
        self.views.remove(&(from, token));
        if self.left.len() < LEFT_MAX {
            self.left.insert((from, token), now + LEFT_REMEMBERED);
        }
    }
}

impl<L: Log, P: Peers, W: World> Driver<L, P, W> {
    /// A node without a store asks.
    pub(super) fn on_store_call(&mut self, from: NodeId, call: StoreCall) {
        let newest = self.replica.as_ref().map(|replica| replica.configurations().newest());
        if newest.is_none_or(|newest| newest.member(from).is_none()) {
            return;
        }
        match call {
            StoreCall::AskOutcomes { nonce, session, sequences } => {
                self.on_ask_outcomes(from, nonce, session, &sequences);
            }
            StoreCall::Read { token, page, linearizable, patience, query } => {
                let place = Place { token, page };
                if self.applied.store().is_none() {
                    self.cannot_read(from, place, false, "the node asked keeps no store");
                } else if let Some(kept) = self.hosting.views.get(&(from, token)) {
                    // Also for a first page that is asked for again: one token is one view.
                    let view = Arc::clone(&kept.view);
                    self.answer_lookup(from, place, &query, &view);
                } else if page > 0 {
                    self.cannot_read(from, place, false, "the view is gone");
                } else if self.hosting.left.contains_key(&(from, token)) {
                    // A repetition that came late.
                } else if linearizable {
                    self.await_round(from, place, patience, query);
                } else if let Some(view) = self.applied.view() {
                    self.answer_lookup(from, place, &query, &Arc::new(view));
                }
            }
            StoreCall::Keep { token } => {
                let until = self.world.now() + VIEW_KEPT;
                if let Some(kept) = self.hosting.views.get_mut(&(from, token)) {
                    kept.until = kept.until.max(until);
                }
            }
            StoreCall::Leave { token } => self.hosting.leave(from, token, self.world.now()),
        }
    }

    fn on_ask_outcomes(
        &mut self,
        from: NodeId,
        nonce: u128,
        session: SessionId,
        sequences: &[u64],
    ) {
        let Some(store) = self.applied.store() else { return };
        let principal = node_principal(from, &self.cluster);
        // A session that ended is still named by its caller, who hears so from the next command. It
        // is not looked up by its nonce then: the command that opened it may have come twice, and
        // late enough to open another one, of which its caller knows nothing.
        let session = match session {
            SessionId::NONE => store.session_of(&principal, nonce).unwrap_or(session),
            named => named,
        };
        let outcome = |sequence: &u64| {
            store.outcome(&principal, session, *sequence).map(|outcome| (*sequence, outcome))
        };
        let outcomes = sequences.iter().filter_map(outcome).collect();
        let until = self.world.now() + SUBSCRIPTION;
        let caller = Caller { principal, nonce, session, until, news: Vec::new(), is_due: false };
        self.hosting.callers.insert(from, caller);
        self.tell(from, StoreAnswer::Outcomes { nonce, session, outcomes });
    }

    /// The look-up joins the reads of this node's own clients, if it is not among them already.
    fn await_round(&mut self, from: NodeId, place: Place, patience: Duration, query: Query) {
        if !self.hosting.awaited.insert((from, place.token)) {
            return;
        }
        let ready = Arc::clone(&self.hosting.ready);
        let reply = move |allowed| {
            let awaited = Awaited { from, place, query, allowed };
            ready.lock().unwrap_or_else(PoisonError::into_inner).push(awaited);
        };
        let deadline = self.world.now() + patience.min(TIMEOUT_MAX);
        self.requests.push_read(Read { deadline, reply: Box::new(reply) });
    }

    /// At the end of a batch: what was applied, and what may be read now.
    pub(super) fn serve_callers(&mut self) {
        let ready =
            std::mem::take(&mut *self.hosting.ready.lock().unwrap_or_else(PoisonError::into_inner));
        if !ready.is_empty()
            && let Some(view) = self.applied.view().map(Arc::new)
        {
            for Awaited { from, place, query, allowed } in ready {
                self.hosting.awaited.remove(&(from, place.token));
                match allowed {
                    Ok(()) if self.hosting.left.contains_key(&(from, place.token)) => {}
                    Ok(()) => self.answer_lookup(from, place, &query, &view),
                    Err(error) => {
                        let busy = matches!(error, RequestError::Busy(_));
                        self.cannot_read(from, place, busy, &error.to_string());
                    }
                }
            }
        }
        let due = self.hosting.callers.iter_mut().filter(|(_, caller)| caller.is_due);
        let answers = due.map(|(id, caller)| {
            caller.is_due = false;
            let (nonce, session) = (caller.nonce, caller.session);
            let outcomes = std::mem::take(&mut caller.news);
            (*id, StoreAnswer::Outcomes { nonce, session, outcomes })
        });
        for (to, answer) in answers.collect::<Vec<_>>() {
            self.tell(to, answer);
        }
    }

    pub(super) fn forget_callers(&mut self, now: Duration) {
        self.hosting.forget_the_gone(now);
    }

    fn answer_lookup(&mut self, to: NodeId, place: Place, query: &Query, view: &Arc<StoreView>) {
        let Place { token, page } = place;
        let found = look_up(view, query);
        let is_list = matches!(query, Query::List { .. });
        let now = self.world.now();
        if is_list && !found.ended {
            let kept = self.hosting.views.contains_key(&(to, token));
            let callers = self.hosting.views.range((to, 0)..=(to, u64::MAX)).count();
            if !kept && callers >= VIEWS_MAX {
                let why = "too many lists are being read through this node; try again shortly";
                self.cannot_read(to, place, true, why);
                return;
            }
            let until = now + VIEW_KEPT;
            self.hosting.views.insert((to, token), Kept { view: Arc::clone(view), until });
        } else if let Some(kept) = self.hosting.views.get_mut(&(to, token)) {
            kept.until = kept.until.min(now + ENDED_KEPT);
        }
        self.tell(to, StoreAnswer::Found { token, page, found });
    }

    fn cannot_read(&mut self, to: NodeId, place: Place, busy: bool, why: &str) {
        let Place { token, page } = place;
        self.tell(to, StoreAnswer::Unreadable { token, page, busy, why: why.to_owned() });
    }

    fn tell(&mut self, to: NodeId, answer: StoreAnswer) {
        self.peers.send(&[to], PeerMessage::Answer(answer));
    }
}

fn look_up(view: &StoreView, query: &Query) -> Found {
    let revision = view.revision();
    match query {
        Query::Get { key } => {
            let found = view.get(key).map(|found| Record::new(key.clone(), found));
            Found { revision, records: found.into_iter().collect(), ended: true }
        }
        Query::List { prefix, after, limit, keys_only } => {
            let limit = usize::try_from(*limit).unwrap_or(usize::MAX).min(LISTED_MAX);
            let mut records = Vec::new();
            let mut bytes = 0;
            let rows = view.list(prefix, after.as_deref(), limit + 1);
            let count = rows.len();
            for (key, found) in rows.into_iter().take(limit) {
                let mut record = Record::new(key, found);
                if *keys_only {
                    record.value = None;
                }
                bytes += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
                if bytes > FOUND_BYTES_MAX && !records.is_empty() {
                    break;
                }
                records.push(record);
            }
            let ended = records.len() == count;
            Found { revision, records, ended }
        }
    }
}
