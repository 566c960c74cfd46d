//! How one slot was chosen: every event about it, of all members in order of time, and what they
//! come to.

use super::event::{Columns, Direction, ProtocolEvent, What};
use super::report::JsonId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Somebody asked the acceptors for the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalReport {
    /// Under this ballot.
    pub ballot: JsonId,
    /// Who.
    pub proposer: String,
}

/// A node came to know that the slot is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnedReport {
    /// Which node.
    pub node: String,
    /// So long after the first proposal; none if no proposal is known.
    pub after_seconds: Option<f64>,
}

/// What the events come to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TraceSummary {
    /// Whether a quorum is seen to have voted, or a node to have learned it.
    pub chosen: bool,
    /// Under which ballot, if the events tell.
    pub ballot: Option<JsonId>,
    /// Who proposed it under that ballot.
    pub proposer: Option<String>,
    /// Who voted for it under that ballot.
    pub voters: Vec<String>,
    /// Every attempt, in order of time.
    pub proposals: Vec<ProposalReport>,
    /// Where it is known chosen, in order of time.
    pub learned: Vec<LearnedReport>,
}

/// To `paxos trace`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceReport {
    /// The slot.
    pub slot: u64,
    /// In order of time.
    pub events: Vec<ProtocolEvent>,
    /// What they come to.
    pub summary: TraceSummary,
    /// Members whose events are not in here, because they did not answer.
    pub silent: Vec<String>,
    /// Members that may have known more: their recorders begin later, or this fell out of them.
    pub forgotten: Vec<String>,
}

impl TraceReport {
    /// Puts the events of several members in order and draws the sum; `quorum` acceptors choose.
    pub fn new(
        slot: u64,
        mut events: Vec<ProtocolEvent>,
        (silent, forgotten): (Vec<String>, Vec<String>),
        quorum: usize,
    ) -> TraceReport {
        events.retain(|event| event.covers(slot));
        // Events of one node stay as they were told.
        events.sort_by_key(|event| event.at);
        let summary = summary(&events, quorum);
        TraceReport { slot, events, summary, silent, forgotten }
    }

    /// Whether anything is known of the slot itself, beyond a phase 1 for all slots.
    pub fn is_empty(&self) -> bool {
        !self.events.iter().any(|e| !matches!(e.what, What::Prepare | What::Promise))
    }

    /// For people.
    pub fn to_table(&self) -> String {
        let names = self.events.iter().flat_map(|event| {
            let peers = event.peers.iter().map(String::as_str);
            peers.chain([event.node.as_str()])
        });
        let columns = Columns::for_names(names.collect::<BTreeSet<_>>());
        let mut text: String = self.events.iter().map(|event| event.to_line(columns)).collect();
        let TraceSummary { chosen, ballot, proposer, voters, proposals, learned } = &self.summary;
        let how = match (chosen, ballot, proposer) {
            (false, ..) => "not seen chosen".to_owned(),
            (true, Some(ballot), Some(proposer)) => {
                format!("chosen under ballot {}, proposed by {proposer}", ballot.0)
            }
            (true, Some(ballot), None) => format!("chosen under ballot {}", ballot.0),
            (true, None, _) => "chosen, by votes that no recorder holds any more".to_owned(),
        };
        text.push_str(&format!("\nslot {}: {how}\n", self.slot));
        let mut row = |name: &str, items: Vec<String>| {
            if !items.is_empty() {
                text.push_str(&format!("{name:<9}{}\n", items.join(", ")));
            }
        };
        let proposed = |p: &ProposalReport| format!("by {} under {}", p.proposer, p.ballot.0);
        row("proposed", proposals.iter().map(proposed).collect());
        row("votes", voters.clone());
        let known = |learned: &LearnedReport| match learned.after_seconds {
            Some(after) => format!("{} after {:.3} ms", learned.node, after * 1e3),
            None => learned.node.clone(),
        };
        row("known at", learned.iter().map(known).collect());
        let silent = self.silent.iter().map(|name| format!("{name} (did not answer)"));
        let begins_later = |name: &String| format!("{name} (its recorder begins later)");
        let forgotten = self.forgotten.iter().map(begins_later);
        row("missing", silent.chain(forgotten).collect());
        text
    }
}

fn summary(events: &[ProtocolEvent], quorum: usize) -> TraceSummary {
    let mut proposals: Vec<ProposalReport> = Vec::new();
    let mut votes: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let mut begun = None;
    for event in events {
        let Some(ballot) = event.ballot else { continue };
        // What a silent member sent is known from who received it.
        let sender = match (event.event, event.peers.first()) {
            (Direction::Sent, _) => event.node.as_str(),
            (Direction::Received, Some(peer)) => peer.as_str(),
            _ => continue,
        };
        match event.what {
            What::Accept => {
                begun.get_or_insert(event.at);
                if !proposals.iter().any(|known| known.ballot == ballot) {
                    proposals.push(ProposalReport { ballot, proposer: sender.to_owned() });
                }
            }
            What::Accepted => _ = votes.entry(ballot.0).or_default().insert(sender),
            _ => {}
        }
    }
    let learnings = || events.iter().filter(|event| event.what == What::Learned);
    let learned: Vec<LearnedReport> = learnings()
        .map(|event| LearnedReport {
            node: event.node.clone(),
            after_seconds: begun.map(|begun| (event.at.0 as f64 - begun.0 as f64) / 1e6),
        })
        .collect();
    // The lowest ballot with a quorum: whatever comes under a higher one is the same value. Where
    // votes are missing, the last one that was voted for before anybody knew.
    let whole = votes.iter().find(|(_, voters)| voters.len() >= quorum.max(1));
    let known_at = learnings().next().map(|event| event.at);
    let last = events.iter().rfind(|event| {
        event.what == What::Accepted && known_at.is_some_and(|known_at| event.at <= known_at)
    });
    let ballot = whole.map(|(ballot, _)| JsonId(*ballot)).or(last.and_then(|last| last.ballot));
    let by = |ballot: &JsonId| proposals.iter().find(|proposal| proposal.ballot == *ballot);
    let proposer = ballot.as_ref().and_then(by).map(|proposal| proposal.proposer.clone());
    let voters = ballot.and_then(|ballot| votes.get(&ballot.0)).into_iter().flatten();
    TraceSummary {
        chosen: whole.is_some() || !learned.is_empty(),
        ballot,
        proposer,
        voters: voters.map(|&voter| voter.to_owned()).collect(),
        proposals,
        learned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::Moment;

    fn event(at: u64, node: &str, event: Direction, what: What, peers: &[&str]) -> ProtocolEvent {
        ProtocolEvent {
            at: Moment(at),
            node: node.to_owned(),
            seq: None,
            event,
            what,
            peers: peers.iter().map(|&peer| peer.to_owned()).collect(),
            ballot: (event != Direction::Local).then_some(JsonId(101)),
            counter: None,
            proposer: None,
            first: Some(8),
            last: Some(10),
            votes: None,
            promised: None,
            detail: None,
        }
    }

    fn story() -> Vec<ProtocolEvent> {
        use Direction::{Local, Received, Sent};
        let late = event(5_000, "p2", Sent, What::Accept, &["a1", "a2"]);
        vec![
            event(2_500, "l1", Local, What::Learned, &[]),
            event(1_000, "p1", Sent, What::Accept, &["a1", "a2", "a3"]),
            event(1_900, "p1", Received, What::Accepted, &["a2"]),
            event(1_500, "a1", Sent, What::Accepted, &["p1"]),
            ProtocolEvent { ballot: Some(JsonId(102)), ..late },
            ProtocolEvent { first: Some(11), ..event(9, "p1", Sent, What::Accept, &["a1"]) },
        ]
    }

    #[test]
    fn the_sum_of_a_story() {
        let report =
            TraceReport::new(9, story(), (vec!["a2".to_owned()], vec!["l1".to_owned()]), 2);
        let times: Vec<u64> = report.events.iter().map(|event| event.at.0).collect();
        assert_eq!(times, [1_000, 1_500, 1_900, 2_500, 5_000]);
        let json = serde_json::to_value(&report.summary).unwrap();
        let expected = serde_json::json!({
            "chosen": true, "ballot": "101", "proposer": "p1", "voters": ["a1", "a2"],
            "proposals": [
                {"ballot": "101", "proposer": "p1"}, {"ballot": "102", "proposer": "p2"}
            ],
            "learned": [{"node": "l1", "after_seconds": 0.0015}],
        });
        assert_eq!(json, expected);
        let end = "\nslot 9: chosen under ballot 101, proposed by p1\n\
                   proposed by p1 under 101, by p2 under 102\nvotes    a1, a2\n\
                   known at l1 after 1.500 ms\nmissing  a2 (did not answer), \
                   l1 (its recorder begins later)\n";
        assert!(report.to_table().ends_with(end), "{}", report.to_table());
    }

    #[test]
    fn one_vote_of_two_chooses_nothing() {
        let mut events = story();
        events.retain(|event| event.what != What::Learned && event.node != "a1");
        let summary = TraceReport::new(9, events, Default::default(), 2).summary;
        assert!(!summary.chosen && summary.ballot.is_none() && summary.voters.is_empty());
    }

    #[test]
    fn a_phase_one_alone_is_no_trace() {
        let prepare = event(1, "p1", Direction::Sent, What::Prepare, &["a1"]);
        assert!(TraceReport::new(9, vec![prepare], Default::default(), 2).is_empty());
        assert!(!TraceReport::new(9, story(), Default::default(), 2).is_empty());
    }
}
