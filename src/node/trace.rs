//! How a slot was chosen, as far as the recorders of all members tell: one question to each of
//! them, and what came back until a deadline. A member that is silent is named, and nobody waits
//! for one to which no link stands.

use super::driver::Driver;
use super::event::{RequestError, Trace};
use super::story;
use super::world::{Peers, World};
use crate::disk::Log;
use crate::paxos::ballot::{NodeId, Slot};
use crate::paxos::depths::Depth;
use crate::wire::event::ProtocolEvent;
use crate::wire::peer::PeerMessage;
use crate::wire::trace_call::{EVENTS_MAX, TraceMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Traces under way at once. People ask for them, one at a time.
const TRACES_MAX: usize = 64;

/// No member is waited for longer than this: a few round trips around the world.
const TRACE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the members know of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traced {
    /// Of each member in order; not yet merged.
    pub events: Vec<ProtocolEvent>,
    /// Members that told nothing, by name.
    pub silent: Vec<String>,
    /// Members that may have known more, which their recorders hold no longer.
    pub forgotten: Vec<String>,
}

struct Pending {
    trace: Trace,
    awaited: BTreeSet<NodeId>,
    traced: Traced,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Traces {
    pending: BTreeMap<u64, Pending>,
    last_token: u64,
}

impl Traces {
    /// How many are under way.
    pub(super) fn depth(&self) -> Depth {
        Depth::new("traces under way", self.pending.len(), TRACES_MAX)
    }
}

impl<L: Log, P: Peers, W: World> Driver<L, P, W> {
    /// A client asks.
    pub(super) fn on_trace(&mut self, mut trace: Trace) {
        if self.traces.pending.len() >= TRACES_MAX {
            (trace.reply)(Err(RequestError::Busy(format!(
                "{TRACES_MAX} traces are under way at this node already; try again shortly"
            ))));
            return;
        }
        trace.deadline = trace.deadline.min(self.world.now() + TRACE_WAIT_MAX);
        let mut traced = Traced { events: self.about(trace.slot), ..Traced::default() };
        if self.recorder.forgot(trace.slot) {
            traced.forgotten.push(self.member_name(self.id));
        }
        let mut awaited = BTreeSet::new();
        let members = self.replica.iter().flat_map(|r| r.configurations().newest().members());
        for (id, member) in members.filter(|(id, _)| **id != self.id) {
            match self.outlook.peer(*id).and_then(|peer| peer.linked) {
                Some(true) => _ = awaited.insert(*id),
                _ => traced.silent.push(member.name.clone()),
            }
        }
        if awaited.is_empty() {
            (trace.reply)(Ok(traced));
            return;
        }
        self.traces.last_token += 1;
        let token = self.traces.last_token;
        let to: Vec<NodeId> = awaited.iter().copied().collect();
        let ask = TraceMessage::Ask { token, slot: trace.slot.0 };
        self.traces.pending.insert(token, Pending { trace, awaited, traced });
        self.peers.send(&to, PeerMessage::Trace(ask));
    }

    /// A member asks, or answers.
    pub(super) fn on_trace_message(&mut self, from: NodeId, message: TraceMessage) {
        let newest = self.replica.as_ref().map(|replica| replica.configurations().newest());
        if newest.is_none_or(|newest| newest.member(from).is_none()) {
            return;
        }
        match message {
            TraceMessage::Ask { token, slot } => {
                let (events, forgot) = (self.about(Slot(slot)), self.recorder.forgot(Slot(slot)));
                let told = TraceMessage::Told { token, events, forgot };
                self.peers.send(&[from], PeerMessage::Trace(told));
            }
            TraceMessage::Told { token, events, forgot } => {
                let name = self.member_name(from);
                let Some(pending) = self.traces.pending.get_mut(&token) else { return };
                if !pending.awaited.remove(&from) {
                    return;
                }
                pending.traced.events.extend(events);
                pending.traced.forgotten.extend(forgot.then_some(name));
                if pending.awaited.is_empty() {
                    self.end_trace(token);
                }
            }
        }
    }

    /// Whoever did not answer in time is left out.
    pub(super) fn expire_traces(&mut self, now: Duration) {
        let late = |(_, pending): &(&u64, &Pending)| pending.trace.deadline <= now;
        let tokens: Vec<u64> =
            self.traces.pending.iter().filter(late).map(|(token, _)| *token).collect();
        for token in tokens {
            self.end_trace(token);
        }
    }

    fn end_trace(&mut self, token: u64) {
        let Some(Pending { trace, awaited, mut traced }) = self.traces.pending.remove(&token)
        else {
            return;
        };
        traced.silent.extend(awaited.iter().map(|id| self.member_name(*id)));
        (trace.reply)(Ok(traced));
    }

    /// What this node recorded of a slot.
    fn about(&self, slot: Slot) -> Vec<ProtocolEvent> {
        let me = self.member_name(self.id);
        let about = self.recorder.about(slot, EVENTS_MAX);
        about.map(|recorded| story::told(recorded, &me, |id| self.member_name(id))).collect()
    }

    fn member_name(&self, id: NodeId) -> String {
        let newest = self.replica.as_ref().map(|replica| replica.configurations().newest());
        let member = newest.and_then(|newest| newest.member(id));
        member.map_or_else(|| id.to_string(), |member| member.name.clone())
    }
}
