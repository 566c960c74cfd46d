//! How a node without a store serves its clients all the same: it has one node with a store tell it
//! what becomes of its commands, and look things up.
//!
//! Requests stay here, where they came in: this node numbers its commands, proposes them again, and
//! keeps their deadlines. Of the other node, its host, it needs only what the log says anyway, so
//! any other learner will do as soon as this one falls silent, or answers and has nothing to say:
//! it may be cut off from everybody else. Nothing is lost by a change and nothing happens twice.
//!
//! The cost: a read takes one hop more, and a list that is read page by page ends with an error if
//! its host goes away.

use super::driver::Driver;
use super::event::{Lookup, RequestError};
use super::requests::READS_WAITING_MAX;
use super::world::{Peers, TICK, World};
use crate::disk::Log;
use crate::paxos::ballot::NodeId;
use crate::store::command::SessionId;
use crate::wire::peer::PeerMessage;
use crate::wire::store_call::{Found, SEQUENCES_MAX, StoreAnswer, StoreCall};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the host is asked while anything waits: as often as a leader says that it is there.
/// Outcomes are told as they come; asking again finds what got lost, and shows that the host lives.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// A host that does not answer for so long is left for another, if its answers usually come
/// quickly: three questions in vain, be it by requests of which each gives up sooner.
const HOST_PATIENCE: Duration = Duration::from_millis(175);

/// Each host that is left in a row gets twice the time of the one before, for it may be the network
/// that is slow; but no more than this.
const HOST_PATIENCE_MAX: Duration = Duration::from_secs(4);

/// How many times its usual answer a host may take.
const ANSWERS_PER_PATIENCE: u32 = 4;

/// A host that answers, but has told neither an outcome nor what was looked up for so long while
/// both were due, is left for another. Long enough for a full page over a slow link, and short
/// enough that a request of the usual timeout succeeds at the next host.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// And no sooner than after so many election timeouts: new leaders take that long.
const STUCK_ELECTIONS: u32 = 2;

/// And no sooner than after so many times what it may be silent.
const STUCK_PATIENCES: u32 = 4;

/// How often the time doubles if no host after the other gets anywhere: then it is not they, and
/// changing costs lists. 16 s at the least.
const STUCK_DOUBLINGS_MAX: u32 = 3;

/// A look-up that was sent longer ago than this is sent again.
const LOOKUP_RETRY: Duration = Duration::from_millis(500);

/// How often the host is asked to keep the view of a list whose client reads slowly: three times in
/// the half minute that it keeps one by itself, so that two may get lost.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// How long such a client may rest before the next page: somebody reads, or fetches a coffee. After
/// that its list is lost, for the view holds on to what the store has replaced since.
const LIST_IDLE_MAX: Duration = Duration::from_secs(600);

/// A list of which some pages were read.
struct Begun {
    /// When the last of them came.
    read: Duration,
    /// When the host was told last that it is wanted.
    kept: Duration,
}

struct Waiting {
    lookup: Lookup,
    tried: Option<Duration>,
    /// When this host was asked first.
    asked: Option<Duration>,
}

/// How long something has been waited for in vain. Rests in between do not count, and do not make
/// it start over either: requests that give up one after the other all wait for the same answer.
#[derive(Default)]
struct Vain {
    since: Option<Duration>,
    /// What was waited before the last rest.
    before: Duration,
}

impl Vain {
    fn goes_on(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    fn rests(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.before += now.saturating_sub(since);
        }
    }

    /// It came, or is no longer expected. Answers how long it took since the last rest.
    fn ends(&mut self, now: Duration) -> Option<Duration> {
        let took = self.since.map(|since| now.saturating_sub(since));
        *self = Vain::default();
        took
    }

    /// How long so far.
    fn lasted(&self, now: Duration) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// See the module's documentation.
pub(super) struct Attachment {
    /// Added to the tokens of this process, which count from 0, on their way to a host and taken
    /// off again: what was meant for an earlier life of this node finds nobody here.
    base: u64,
    host: Option<NodeId>,
    asked: Option<Duration>,
    /// The host's answer to a question.
    unanswered: Vain,
    patience: Duration,
    lookups: BTreeMap<u64, Waiting>,
    /// Lists whose views the host keeps.
    begun: BTreeMap<u64, Begun>,
    /// Since when writes have waited and the host has told no outcome.
    unsettled: Option<Duration>,
    /// When nobody was known to lead last: no host gets anywhere then.
    leaderless: Duration,
    /// How many hosts were left in a row because they got nowhere.
    stuck: u32,
}

impl Attachment {
    /// `base` is random.
    pub(super) fn new(base: u64) -> Attachment {
        Attachment {
            base,
            host: None,
            asked: None,
            unanswered: Vain::default(),
            patience: Duration::ZERO,
            lookups: BTreeMap::new(),
            begun: BTreeMap::new(),
            unsettled: None,
            leaderless: Duration::ZERO,
            stuck: 0,
        }
    }

    /// Look-ups that wait.
    pub(super) fn pending(&self) -> usize {
        self.lookups.len()
    }

    /// Whether that page is what a client waits for.
    fn awaits(&self, token: u64, page: u64) -> bool {
        self.lookups.get(&token).is_some_and(|waiting| waiting.lookup.page == page)
    }

    /// The host told an outcome, or what was looked up.
    fn got_on(&mut self) {
        self.unsettled = None;
        self.stuck = 0;
    }

    /// Whether the host answers for longer than `limit` without telling what is awaited. Pages of
    /// a list that was begun do not count: no other host has them.
    fn is_stuck(&self, limit: Duration, now: Duration) -> bool {
        let limit = limit * 2_u32.pow(self.stuck.min(STUCK_DOUBLINGS_MAX));
        let waited = |since: Duration| now.saturating_sub(since) > limit;
        let waits = |waiting: &Waiting| {
            let needs_leader = waiting.lookup.linearizable;
            let floor = if needs_leader { self.leaderless } else { Duration::ZERO };
            waiting.lookup.page == 0 && waiting.asked.is_some_and(|asked| waited(asked.max(floor)))
        };
        self.unsettled.is_some_and(|since| waited(since.max(self.leaderless)))
            || self.lookups.values().any(waits)
    }

    /// The node that serves this one, if any does.
    pub(super) fn host(&self) -> Option<NodeId> {
        self.host
    }
}

impl<L: Log, P: Peers, W: World> Driver<L, P, W> {
    /// A client of this node wants to know something.
    pub(super) fn on_lookup(&mut self, lookup: Lookup) {
        if self.attachment.lookups.len() >= READS_WAITING_MAX {
            (lookup.reply)(Err(RequestError::Busy(format!(
                "{READS_WAITING_MAX} reads wait at this node already; try again shortly"
            ))));
            return;
        }
        let waiting = Waiting { lookup, tried: None, asked: None };
        self.attachment.lookups.insert(waiting.lookup.token, waiting);
    }

    /// The client has read enough of a list.
    pub(super) fn on_leave(&mut self, token: u64) {
        self.attachment.lookups.remove(&token);
        self.leave_view(token);
    }

    /// Tells the host that the view which it keeps for this token is no longer needed.
    fn leave_view(&mut self, token: u64) {
        self.attachment.begun.remove(&token);
        if let Some(host) = self.attachment.host {
            let token = self.attachment.base.wrapping_add(token);
            self.peers.send(&[host], PeerMessage::Call(StoreCall::Leave { token }));
        }
    }

    /// At the end of a batch: asks the host for what is awaited.
    pub(super) fn call_host(&mut self) {
        if self.applied.store().is_some() || self.replica.is_none() {
            return;
        }
        let awaits_outcomes = !self.requests.writes.is_empty();
        let now = self.world.now();
        self.keep_views(now);
        if self.leadership.is_none() {
            self.attachment.leaderless = now;
        }
        if awaits_outcomes {
            self.attachment.unsettled.get_or_insert(now);
        } else {
            self.attachment.unsettled = None;
        }
        if !awaits_outcomes && self.attachment.lookups.is_empty() {
            self.attachment.unanswered.rests(now);
            return;
        }
        self.choose_host(now);
        let Some(host) = self.attachment.host else { return };
        for (token, waiting) in &mut self.attachment.lookups {
            let stale = waiting.tried.is_none_or(|tried| now.saturating_sub(tried) > LOOKUP_RETRY);
            if stale {
                waiting.tried = Some(now);
                waiting.asked.get_or_insert(now);
                let call = StoreCall::Read {
                    token: self.attachment.base.wrapping_add(*token),
                    page: waiting.lookup.page,
                    linearizable: waiting.lookup.linearizable,
                    patience: waiting.lookup.deadline.saturating_sub(now),
                    query: waiting.lookup.query.clone(),
                };
                self.peers.send(&[host], PeerMessage::Call(call));
            }
        }
        if self.attachment.asked.is_none_or(|asked| now.saturating_sub(asked) >= ASK_EVERY) {
            self.attachment.asked = Some(now);
            self.attachment.unanswered.goes_on(now);
            let call = StoreCall::AskOutcomes {
                nonce: self.session.nonce(),
                session: self.session.id().unwrap_or(SessionId::NONE),
                sequences: self.requests.numbered().take(SEQUENCES_MAX).collect(),
            };
            self.peers.send(&[host], PeerMessage::Call(call));
        }
    }

    /// Has the host keep the views of lists that are read slowly.
    fn keep_views(&mut self, now: Duration) {
        self.attachment.begun.retain(|_, list| now.saturating_sub(list.read) < LIST_IDLE_MAX);
        let Some(host) = self.attachment.host else { return };
        for (token, list) in &mut self.attachment.begun {
            if now.saturating_sub(list.kept) >= KEEP_EVERY {
                list.kept = now;
                let token = self.attachment.base.wrapping_add(*token);
                self.peers.send(&[host], PeerMessage::Call(StoreCall::Keep { token }));
            }
        }
    }

    /// Whether the host answers and gets nowhere. Looked at as often as it is asked.
    fn is_host_stuck(&self, now: Duration) -> bool {
        let attachment = &self.attachment;
        if attachment.asked.is_some_and(|asked| now.saturating_sub(asked) < ASK_EVERY) {
            return false;
        }
        let elections = TICK * self.election_ticks() * STUCK_ELECTIONS;
        let patience = attachment.patience.max(HOST_PATIENCE) * STUCK_PATIENCES;
        attachment.is_stuck(STUCK_AFTER.max(elections).max(patience), now)
    }

    /// Keeps the host while it answers, gets on and its link stands; else takes the next learner
    /// whose link stands, or any.
    fn choose_host(&mut self, now: Duration) {
        let patience = self.attachment.patience.max(HOST_PATIENCE);
        let silent = self.attachment.unanswered.lasted(now) > patience;
        let link = |id: NodeId| self.outlook.peer(id).and_then(|peer| peer.linked);
        let Some(replica) = &self.replica else { return };
        let learners: Vec<NodeId> =
            replica.configurations().newest().learners().filter(|id| *id != self.id).collect();
        // A host whose link broke is left at once, but only for one whose link stands; and so is
        // one that gets nowhere.
        let better = |host| learners.iter().any(|id| *id != host && link(*id) == Some(true));
        let is_stuck = self.is_host_stuck(now);
        let broken = |host| link(host) == Some(false);
        if self
            .attachment
            .host
            .is_some_and(|host| !silent && !((broken(host) || is_stuck) && better(host)))
        {
            return;
        }
        // The nodes that are served this way spread over the learners; a host that failed is
        // tried last.
        let start = match self.attachment.host {
            Some(host) => learners.iter().position(|id| *id == host).map_or(0, |at| at + 1),
            None => usize::try_from(self.id.0).unwrap_or(0),
        };
        let in_turn = (0..learners.len())
            .map(|at| learners[(start + at) % learners.len()])
            .collect::<Vec<_>>();
        // One that was silent is not asked again at once because no other link is known to stand:
        // what is known of links may be old.
        let is_apt = |id: NodeId| !silent || Some(id) != self.attachment.host;
        let stands = in_turn.iter().find(|id| link(**id) == Some(true) && is_apt(**id));
        let next = stands.or(in_turn.first()).copied();
        if silent {
            self.attachment.patience = (patience * 2).min(HOST_PATIENCE_MAX);
        } else if is_stuck {
            self.attachment.stuck += 1;
        }
        self.attachment.unanswered = Vain::default();
        self.attachment.unsettled = None;
        if next != self.attachment.host {
            self.attachment.host = next;
            self.fail_continued();
            // The new one is asked at once.
            self.attachment.asked = None;
            for waiting in self.attachment.lookups.values_mut() {
                (waiting.tried, waiting.asked) = (None, None);
            }
        }
    }

    /// Lists of which pages were read go on at no other node: their view was there.
    fn fail_continued(&mut self) {
        self.attachment.begun.clear();
        let continued = |(_, waiting): &(&u64, &Waiting)| waiting.lookup.page > 0;
        let tokens = self.attachment.lookups.iter().filter(continued).map(|(token, _)| *token);
        for token in tokens.collect::<Vec<_>>() {
            self.end_lookup(token, Err(list_lost()));
        }
    }

    /// The host found what was looked up under this token of ours. Answers may come twice and
    /// late, and from a host that was left: only the page that is waited for counts.
    fn on_found(&mut self, is_host: bool, token: u64, page: u64, found: Found) {
        // The pages behind this one could not be had from a host that was left.
        if self.attachment.awaits(token, page) && (found.ended || is_host) {
            if is_host {
                self.attachment.got_on();
                if !found.ended {
                    let now = self.world.now();
                    self.attachment.begun.insert(token, Begun { read: now, kept: now });
                } else if page > 0 {
                    self.leave_view(token);
                }
            }
            self.end_lookup(token, Ok(found));
        }
    }

    fn end_lookup(&mut self, token: u64, result: Result<Found, RequestError>) {
        if let Some(waiting) = self.attachment.lookups.remove(&token) {
            (waiting.lookup.reply)(result);
        }
    }

    /// The host answers.
    pub(super) fn on_store_answer(&mut self, from: NodeId, answer: StoreAnswer) {
        let newest = self.replica.as_ref().map(|replica| replica.configurations().newest());
        if !newest.is_some_and(|newest| newest.learners().any(|learner| learner == from)) {
            return;
        }
        let is_host = self.attachment.host == Some(from);
        match answer {
            StoreAnswer::Outcomes { nonce, session, outcomes } => {
                let now = self.world.now();
                if is_host && let Some(took) = self.attachment.unanswered.ends(now) {
                    let patience = took * ANSWERS_PER_PATIENCE;
                    self.attachment.patience = patience.min(HOST_PATIENCE_MAX);
                }
                let opens = session != SessionId::NONE && self.session.awaits(nonce);
                if is_host && (opens || !outcomes.is_empty()) {
                    self.attachment.got_on();
                }
                if opens {
                    self.session.opened(session, self.session_tried.unwrap_or_default());
                    self.hand_out_all(self.world.now());
                }
                for (sequence, outcome) in outcomes {
                    if self.session.id() == Some(session) {
                        self.settle(sequence, outcome);
                    }
                }
                self.answer();
            }
            StoreAnswer::Found { token, page, found } => {
                let token = token.wrapping_sub(self.attachment.base);
                self.on_found(is_host, token, page, found);
            }
            StoreAnswer::Unreadable { token, page, busy, why } => {
                let token = token.wrapping_sub(self.attachment.base);
                if !is_host || !self.attachment.awaits(token, page) {
                    return;
                }
                self.attachment.begun.remove(&token);
                let error = match (page > 0, busy) {
                    (true, _) => list_lost(),
                    (false, true) => RequestError::Busy(why),
                    (false, false) => RequestError::NoQuorum(why),
                };
                self.end_lookup(token, Err(error));
            }
        }
    }

    /// Refuses look-ups whose time is up.
    pub(super) fn expire_lookups(&mut self, now: Duration, why: &str) {
        let late = |(_, waiting): &(&u64, &Waiting)| waiting.lookup.deadline <= now;
        let tokens = self.attachment.lookups.iter().filter(late).map(|(token, _)| *token);
        for token in tokens.collect::<Vec<_>>() {
            self.end_lookup(
                token,
                Err(RequestError::NoQuorum(format!(
                    "this node keeps no store, and no learner answered the read before its \
                     deadline ({why}); try again, or ask a learner: `paxos members` lists them"
                ))),
            );
        }
    }
}

pub(super) fn list_lost() -> RequestError {
    RequestError::NoQuorum(
        "the node from whose store the list was read went away in the middle of it; list again"
            .to_owned(),
    )
}
