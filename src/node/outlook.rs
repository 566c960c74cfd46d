//! What a node thinks of its peers, for people and for timeouts. Never input to safety.

use super::estimate::Smoothed;
use super::status::PeerState;
use crate::paxos::ballot::{Ballot, NodeId, Slot, VoterGeneration};
use crate::paxos::configuration::Configuration;
use crate::paxos::depths::Depth;
use crate::paxos::effects::Outgoing;
use crate::paxos::message::{Message, Statement};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Heartbeats whose time of sending is remembered: more than fit in an election timeout.
const HEARTBEATS_REMEMBERED: usize = 64;

/// Inquiries whose time of sending is remembered. While nobody leads there are a few in a second,
/// and the longest timeouts are seconds.
const INQUIRIES_REMEMBERED: usize = 64;

/// Acknowledgements that come within so short a time are one burst: a peer that was stopped answers
/// all it missed at once, and only the quickest of those answers says anything about the network.
const BURST: Duration = Duration::from_millis(40);

/// What it means that a peer says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing: it talks to its leader, and that is neither of the two.
    Natural,
    /// This node leads, or asks around because nobody does: whoever is asked answers.
    AfterQuestion,
    /// It leads, and so should be heard all the time.
    OfLeader,
}

/// One peer as this node sees it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) last_heard: Option<Duration>,
    /// Since when it owes this node an answer to a heartbeat or an inquiry.
    asked: Option<Duration>,
    pub(super) round_trip: Smoothed,
    /// The quickest round trip since this node came to lead.
    quickest: Option<Duration>,
    /// When the latest burst of acknowledgements began, and the quickest of them.
    burst: Option<(Duration, Duration)>,
    pub(super) chosen: Option<Slot>,
    /// Under which voter generation it says that it votes, if it said anything of that: none of a
    /// node whose acceptor has lost its log, or is fenced.
    pub(super) votes_as: Option<Option<VoterGeneration>>,
    /// Whether this node's own link to it stands; none if it was never tried.
    pub(super) linked: Option<bool>,
    /// Since when it does not, and why.
    pub(super) broken: Option<(Duration, String)>,
}

impl Peer {
    /// In one word; beyond `limit` the silence means something.
    pub(super) fn state(&self, now: Duration, limit: Duration, silence: Silence) -> PeerState {
        let since = match silence {
            Silence::Natural => None,
            Silence::AfterQuestion => self.asked,
            Silence::OfLeader => Some(self.last_heard.unwrap_or_default()),
        };
        let silent = since.is_some_and(|since| now.saturating_sub(since) > limit);
        match self.linked {
            Some(false) => PeerState::Down,
            Some(true) if silent => PeerState::Suspect,
            Some(true) => PeerState::Up,
            None if self.last_heard.is_some() && !silent => PeerState::Up,
            None => PeerState::Unknown,
        }
    }
}

impl Peer {
    /// It answered a heartbeat or an inquiry of that time, however late. Were reports that come too
    /// late for their inquiry not measured, nodes farther apart than the least timeout bears would
    /// never elect the first leader, who could measure anything else.
    fn answered(&mut self, asked: Duration, now: Duration) {
        let took = now.saturating_sub(asked);
        match &mut self.burst {
            Some((began, quickest)) if now.saturating_sub(*began) < BURST => {
                *quickest = took.min(*quickest);
            }
            burst => {
                if let Some((_, quickest)) = burst.replace((now, took)) {
                    self.round_trip.add(quickest);
                    let best = self.quickest.map_or(quickest, |q| q.min(quickest));
                    self.quickest = Some(best);
                }
            }
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct PeerTable {
    peers: BTreeMap<NodeId, Peer>,
    heartbeats: VecDeque<(Ballot, u64, Duration)>,
    inquiries: VecDeque<(u64, Duration)>,
    /// Between heartbeats of one leader under one ballot.
    gap: Smoothed,
    last_heartbeat: Option<(Ballot, Duration)>,
}

impl PeerTable {
    /// How many rounds of heartbeats and of inquiries are remembered.
    pub(super) fn depths(&self) -> [Depth; 2] {
        let heartbeats = self.heartbeats.len();
        [
            Depth::new("rounds of heartbeats", heartbeats, HEARTBEATS_REMEMBERED),
            Depth::new("rounds of inquiries", self.inquiries.len(), INQUIRIES_REMEMBERED),
        ]
    }

    pub(super) fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// A peer said something beside the protocol: it is there.
    pub(super) fn alive(&mut self, from: NodeId, now: Duration) {
        self.peers.entry(from).or_default().last_heard = Some(now);
    }

    /// A peer said something; if it answers a heartbeat, the round trip is measured.
    pub(super) fn heard(&mut self, from: NodeId, message: &Message<Bytes>, now: Duration) {
        let peer = self.peers.entry(from).or_default();
        peer.last_heard = Some(now);
        peer.asked = None;
        if let Message::Statement(Statement::Heartbeat { ballot, .. }) = message {
            if let Some((_, before)) = self.last_heartbeat.filter(|(known, _)| known == ballot) {
                self.gap.add(now.saturating_sub(before));
            }
            self.last_heartbeat = Some((*ballot, now));
        }
        if let Message::Statement(
            Statement::HeartbeatAck { generation, .. } | Statement::Report { generation, .. },
        ) = message
        {
            peer.votes_as = Some(*generation);
        }
        match message {
            Message::Statement(Statement::HeartbeatAck { ballot, round, chosen, .. }) => {
                peer.chosen = Some(*chosen);
                let sent = self.heartbeats.iter().find(|(b, r, _)| b == ballot && r == round);
                if let Some((_, _, sent)) = sent {
                    peer.answered(*sent, now);
                }
            }
            Message::Statement(Statement::Report { round, chosen, .. }) => {
                peer.chosen = Some(*chosen);
                if let Some((_, sent)) = self.inquiries.iter().find(|(asked, _)| asked == round) {
                    peer.answered(*sent, now);
                }
            }
            Message::Statement(
                Statement::Heartbeat { chosen, .. }
                | Statement::Chosen { chosen, .. }
                | Statement::Accept { chosen, .. },
            ) => peer.chosen = Some(*chosen),
            _ => {}
        }
    }

    /// This node said something; the time of a heartbeat is remembered, and who owes an answer.
    pub(super) fn said(&mut self, outgoing: &Outgoing<Bytes>, now: Duration) {
        let asks =
            |said: &_| matches!(said, Statement::Heartbeat { .. } | Statement::Inquire { .. });
        if asks(&outgoing.statement) {
            for peer in &outgoing.to {
                self.peers.entry(*peer).or_default().asked.get_or_insert(now);
            }
        }
        match outgoing.statement {
            Statement::Heartbeat { ballot, round, .. } => {
                if self.heartbeats.len() >= HEARTBEATS_REMEMBERED {
                    self.heartbeats.pop_front();
                }
                self.heartbeats.push_back((ballot, round, now));
            }
            Statement::Inquire { round } => {
                if self.inquiries.len() >= INQUIRIES_REMEMBERED {
                    self.inquiries.pop_front();
                }
                self.inquiries.push_back((round, now));
            }
            _ => {}
        }
    }

    /// The peer greeted over this node's own link, so it was heard.
    pub(super) fn link_up(&mut self, peer: NodeId, now: Duration) {
        let peer = self.peers.entry(peer).or_default();
        peer.linked = Some(true);
        peer.last_heard = Some(now);
        peer.asked = None;
        peer.broken = None;
    }

    pub(super) fn link_down(&mut self, peer: NodeId, error: String, now: Duration) {
        let peer = self.peers.entry(peer).or_default();
        peer.linked = Some(false);
        let since = peer.broken.as_ref().map_or(now, |(since, _)| *since);
        peer.broken = Some((since, error));
    }

    /// Another node leads. Round trips are no longer measured here, and what load made of the last
    /// ones must not decide how long the next leader's silence is borne: of each peer only the
    /// quickest is kept, which is what the network itself takes.
    pub(super) fn follow(&mut self) {
        for peer in self.peers.values_mut() {
            if let Some(quickest) = peer.quickest.take() {
                peer.round_trip = Smoothed::steady(quickest);
            }
        }
    }

    /// How far heartbeats of a leader are apart, as this node hears them.
    pub(super) fn gap(&self) -> Smoothed {
        self.gap
    }

    /// The round trip that a quorum's worth of heartbeats has to wait for: that of the slowest
    /// acceptor that answers. Peers that are gone do not count.
    pub(super) fn slowest_round_trip(&self, configuration: &Configuration) -> Smoothed {
        let measured = configuration.acceptors().filter_map(|id| self.peers.get(&id));
        measured
            .filter(|peer| peer.linked != Some(false))
            .map(|peer| peer.round_trip)
            .max_by_key(Smoothed::bound)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::message::DiskHealth;

    const PEER: NodeId = NodeId(2);

    fn heartbeat(table: &mut PeerTable, round: u64, now: Duration) {
        let (ballot, chosen) = (Ballot::ZERO, Slot(0));
        let configuration = crate::paxos::configuration::ConfigurationNumber(1);
        let statement = Statement::Heartbeat { ballot, round, chosen, configuration };
        table.said(&Outgoing { to: vec![PEER], statement }, now);
    }

    fn acknowledge(table: &mut PeerTable, round: u64, now: Duration) {
        let ack = Statement::HeartbeatAck {
            ballot: Ballot::ZERO,
            round,
            generation: Some(VoterGeneration(1)),
            promised: Ballot::ZERO,
            hears: None,
            disk: DiskHealth::Healthy,
            chosen: Slot(0),
        };
        table.heard(PEER, &Message::Statement(ack), now);
    }

    const LIMIT: Duration = Duration::from_secs(1);

    fn inquire(table: &mut PeerTable, now: Duration) {
        let statement = Statement::Inquire { round: 1 };
        table.said(&Outgoing { to: vec![PEER], statement }, now);
    }

    #[test]
    fn whoever_was_asked_and_says_nothing_is_suspect() {
        let second = |n| Duration::from_secs(n);
        let mut table = PeerTable::default();
        let state = |table: &PeerTable, now, silence| {
            table.peer(PEER).expect("it is known").state(now, LIMIT, silence)
        };
        table.link_up(PEER, second(0));
        let after = Silence::AfterQuestion;
        assert_eq!(state(&table, second(9), after), PeerState::Up, "nobody asked it anything");
        // Asking again does not start the time anew.
        inquire(&mut table, second(9));
        inquire(&mut table, second(10));
        assert_eq!(state(&table, second(10), after), PeerState::Up);
        inquire(&mut table, second(11));
        assert_eq!(state(&table, second(11), after), PeerState::Suspect);
        assert_eq!(state(&table, second(11), Silence::Natural), PeerState::Up);
        acknowledge(&mut table, 1, second(12));
        assert_eq!(state(&table, second(20), after), PeerState::Up);
        assert_eq!(state(&table, second(20), Silence::OfLeader), PeerState::Suspect);
        heartbeat(&mut table, 2, second(20));
        assert_eq!(state(&table, second(22), after), PeerState::Suspect);
    }

    #[test]
    fn a_peer_that_was_never_heard_is_unknown() {
        let mut table = PeerTable::default();
        inquire(&mut table, Duration::ZERO);
        let state = |table: &PeerTable| {
            let peer = table.peer(PEER).expect("it is known");
            (peer.state(Duration::ZERO, LIMIT, Silence::AfterQuestion), peer.last_heard)
        };
        assert_eq!(state(&table), (PeerState::Unknown, None));
        table.link_up(PEER, Duration::ZERO);
        assert_eq!(state(&table), (PeerState::Up, Some(Duration::ZERO)), "its greeting was heard");
    }

    /// A leader under load sees acknowledgements late. Once it follows, nothing measures anew, and
    /// it would bear the next leader's silence for ten of those round trips.
    #[test]
    fn a_leader_that_follows_forgets_what_load_did_to_its_round_trips() {
        let every = Duration::from_millis(50);
        let mut table = PeerTable::default();
        for round in 1..=60 {
            let load = if round > 10 { Duration::from_millis(150) } else { Duration::ZERO };
            heartbeat(&mut table, round, every * round as u32 * 4);
            let took = load + Duration::from_micros(300);
            acknowledge(&mut table, round, every * round as u32 * 4 + took);
        }
        let bound = |table: &PeerTable| table.peer(PEER).expect("it was heard").round_trip.bound();
        assert!(bound(&table) > every, "{:?}", bound(&table));
        table.follow();
        assert_eq!(bound(&table), Duration::from_micros(300));
        table.follow();
        assert_eq!(bound(&table), Duration::from_micros(300), "once is enough");
    }

    /// A peer that was stopped for two seconds answers forty heartbeats at once. Taken one by one
    /// they would say that its round trip is a second, and the next dead leader would be borne for
    /// as long.
    #[test]
    fn a_backlog_of_answers_is_one_measurement() {
        let every = Duration::from_millis(50);
        let round_trip = Duration::from_micros(300);
        let mut table = PeerTable::default();
        for round in 1..=20 {
            heartbeat(&mut table, round, every * round as u32);
            acknowledge(&mut table, round, every * round as u32 + round_trip);
        }
        let before = table.peer(PEER).expect("it was heard").round_trip.bound();
        for round in 21..=60 {
            heartbeat(&mut table, round, every * round as u32);
        }
        let resumed = every * 61;
        for round in 21..=60 {
            acknowledge(&mut table, round, resumed + Duration::from_micros(round * 10));
        }
        for round in 61..=62 {
            heartbeat(&mut table, round, every * (round as u32 + 1));
            acknowledge(&mut table, round, every * (round as u32 + 1) + round_trip);
        }
        let after = table.peer(PEER).expect("it was heard").round_trip.bound();
        assert!(before < every && after < every, "{before:?} became {after:?}");
    }
}
