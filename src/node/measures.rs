//! What the driver counts while it works. Never input to anything.
//!
//! The core has no clock, so it says in notes what it did, and the time of a note is the time at
//! which the driver finds it: before anything that belongs to it is sent. Runs and batches are
//! counted, not commands one by one: a run of a thousand costs as much as a run of one.

use crate::paxos::ballot::{NodeId, Slot};
use crate::paxos::effects::{Note, StepDown};
use crate::telemetry::metrics::ConsensusMetrics;
use std::collections::VecDeque;
use std::time::Duration;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Measures {
    id: NodeId,
    numbers: ConsensusMetrics,
    /// The last slot of each run that awaits its votes, and when it was proposed. The core keeps
    /// only a few on their way, so this is as short.
    proposed: VecDeque<(Slot, Duration)>,
    /// When the batch of slots that is being applied was begun.
    applying: Option<Duration>,
    /// When this node began to try to lead, unless it leads or follows since.
    campaigning: Option<Duration>,
    leads: bool,
    /// Whoever led last.
    leader: Option<NodeId>,
}

impl Measures {
    pub(super) fn new(id: NodeId, numbers: ConsensusMetrics) -> Measures {
        Measures {
            id,
            numbers,
            proposed: VecDeque::new(),
            applying: None,
            campaigning: None,
            leads: false,
            leader: None,
        }
    }

    /// Counts what happened; says whether people want to read of it as well.
    pub(super) fn note(&mut self, note: &Note, now: Duration) -> bool {
        match *note {
            Note::Proposed { last, commands } => {
                self.numbers.proposals.inc_by(commands);
                self.proposed.push_back((last, now));
                return false;
            }
            Note::ReadRound => {
                self.numbers.read_rounds.inc();
                return false;
            }
            Note::PromisedItself { .. } | Note::AcceptedItself { .. } => return false,
            Note::Campaigning(_) => {
                self.numbers.elections_started.inc();
                // A leader campaigns only to get above a ballot that ended its own.
                if self.leads {
                    self.numbers.preemptions.inc();
                }
                self.stops_leading();
                self.campaigning.get_or_insert(now);
            }
            Note::Leading(_) => {
                self.numbers.elections_won.inc();
                self.leads = true;
                if let Some(begun) = self.campaigning.take() {
                    self.numbers.election_seconds.observe(now.saturating_sub(begun));
                }
                self.led_by(self.id);
            }
            Note::SteppedDown(_, why) => {
                if why == StepDown::Superseded {
                    self.numbers.preemptions.inc();
                }
                self.stops_leading();
            }
            Note::Following(leader, _) => {
                self.campaigning = None;
                self.led_by(leader);
            }
            Note::Refused(..) => {
                self.numbers.messages_refused.inc();
            }
            Note::Inquiring
            | Note::CampaignLost(_)
            | Note::LeaderLost(_)
            | Note::ProposerClash(_)
            | Note::Fenced { .. } => {}
        }
        true
    }

    /// What is still on its way may be chosen, but under somebody else's ballot.
    fn stops_leading(&mut self) {
        self.leads = false;
        self.proposed.clear();
    }

    fn led_by(&mut self, leader: NodeId) {
        if self.leader.replace(leader) != Some(leader) {
            self.numbers.leader_changes.inc();
        }
    }

    /// Everything up to `last` is known chosen, and what is new of it is about to be applied.
    pub(super) fn chosen(&mut self, last: Option<Slot>, now: Duration) {
        let Some(chosen) = last else { return };
        self.applying = Some(now);
        while let Some((_, proposed)) = self.proposed.pop_front_if(|(last, _)| *last <= chosen) {
            self.numbers.commit_seconds.observe(now.saturating_sub(proposed));
        }
    }

    /// The batch of slots, if there was one, is applied.
    pub(super) fn applied(&mut self, now: Duration) {
        if let Some(begun) = self.applying.take() {
            self.numbers.apply_seconds.observe(now.saturating_sub(begun));
        }
    }

    /// So many linearizable reads were answered.
    pub(super) fn reads_served(&self, reads: usize) {
        if reads > 0 {
            self.numbers.reads_confirmed.inc_by(reads as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::Ballot;

    const BALLOT: Ballot = Ballot::ZERO;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn measures() -> (Measures, ConsensusMetrics) {
        let numbers = ConsensusMetrics::default();
        (Measures::new(NodeId(1), numbers.clone()), numbers)
    }

    #[test]
    fn a_run_is_timed_from_its_proposal_until_its_last_slot_is_chosen() {
        let (mut measures, numbers) = measures();
        assert!(!measures.note(&Note::Proposed { last: Slot(3), commands: 2 }, at(10)));
        assert!(!measures.note(&Note::Proposed { last: Slot(5), commands: 2 }, at(11)));
        measures.chosen(None, at(12));
        measures.applied(at(12));
        measures.chosen(Some(Slot(2)), at(12));
        assert_eq!((numbers.commit_seconds.count(), numbers.apply_seconds.count()), (0, 0));
        measures.applied(at(13));
        measures.chosen(Some(Slot(4)), at(20));
        measures.applied(at(21));
        assert_eq!((numbers.commit_seconds.count(), numbers.apply_seconds.count()), (1, 2));
        measures.chosen(Some(Slot(5)), at(22));
        assert_eq!((numbers.commit_seconds.count(), numbers.proposals.get()), (2, 4));
    }

    #[test]
    fn what_a_lost_leader_had_on_its_way_is_not_timed() {
        let (mut measures, numbers) = measures();
        measures.note(&Note::Leading(BALLOT), at(0));
        measures.note(&Note::Proposed { last: Slot(3), commands: 3 }, at(1));
        measures.note(&Note::SteppedDown(BALLOT, StepDown::QuorumLost), at(2));
        measures.chosen(Some(Slot(9)), at(60_000));
        assert_eq!((numbers.commit_seconds.count(), numbers.preemptions.get()), (0, 0));
    }

    #[test]
    fn an_election_lasts_from_the_first_campaign_to_leading() {
        let (mut measures, numbers) = measures();
        measures.note(&Note::Campaigning(BALLOT), at(100));
        measures.note(&Note::Following(NodeId(2), BALLOT), at(200));
        measures.note(&Note::Campaigning(BALLOT), at(1_000));
        measures.note(&Note::CampaignLost(BALLOT), at(1_100));
        measures.note(&Note::Campaigning(BALLOT), at(1_200));
        measures.note(&Note::Leading(BALLOT), at(1_300));
        assert_eq!((numbers.elections_started.get(), numbers.elections_won.get()), (3, 1));
        assert_eq!(numbers.election_seconds.count(), 1);
        assert_eq!(numbers.election_seconds.sum(), at(300));
        assert_eq!(numbers.leader_changes.get(), 2);
    }

    #[test]
    fn a_leader_that_must_go_above_another_ballot_is_preempted_and_no_new_leader() {
        let (mut measures, numbers) = measures();
        measures.note(&Note::Leading(BALLOT), at(0));
        measures.note(&Note::Campaigning(BALLOT), at(1));
        measures.note(&Note::Leading(BALLOT), at(2));
        assert_eq!((numbers.preemptions.get(), numbers.leader_changes.get()), (1, 1));
        measures.note(&Note::SteppedDown(BALLOT, StepDown::Superseded), at(3));
        assert_eq!(numbers.preemptions.get(), 2);
    }
}
