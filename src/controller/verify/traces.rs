//! Judging what nodes recorded of the protocol: an election, both phases, what acceptors heard and
//! what learners learned. Pure functions, as in [`super::verdict`].
//!
//! A leader that votes sends its own acceptor nothing over the network, so there are no questions
//! of that kind in any recorder; its own promises and acceptances are, once they are durable, and
//! count like those of others. Nothing is taken as given.

use super::recorded::{Mark, Recording, after, uncovered};
use super::verdict::{Asked, Check, Findings, Roster, Verdict, ms};
use crate::controller::observe::Answer;
use crate::wire::event::{Direction, ProtocolEvent, What};
use crate::wire::report::JsonId;
use std::collections::{BTreeMap, BTreeSet};

/// Whether it is this word, and went this way.
pub(super) fn is(event: &ProtocolEvent, way: Direction, what: What) -> bool {
    event.event == way && event.what == what
}

/// Whether this node is one of its peers.
fn with(event: &ProtocolEvent, peer: &str) -> bool {
    event.peers.iter().any(|name| name == peer)
}

/// Whether the slot lies in its run.
fn covers(event: &ProtocolEvent, slot: u64) -> bool {
    matches!((event.first, event.last), (Some(first), Some(last)) if first <= slot && slot <= last)
}

/// An election, as the proposers recorded it and all nodes see its outcome.
#[derive(Debug, Clone, Default)]
pub struct Campaigns {
    /// Who led before and was to resign.
    pub before: Option<String>,
    /// By proposer: what it recorded since then, or at all where nobody could resign.
    pub recordings: BTreeMap<String, Recording>,
    /// By node: its status afterwards.
    pub statuses: BTreeMap<String, Answer>,
}

/// What one proposer did in an election.
#[derive(Default)]
struct Candidate {
    /// Ballots under which it campaigned.
    tried: Vec<u64>,
    /// Who promised, by ballot.
    promises: BTreeMap<u64, BTreeSet<String>>,
    /// Ballots under which it led.
    led: Vec<u64>,
    /// Whether it gave up or followed after its last campaign.
    backed_off: bool,
}

fn candidate(node: &str, events: &[ProtocolEvent]) -> Candidate {
    let mut candidate = Candidate::default();
    for event in events {
        let ballot = || event.ballot.map_or(0, |ballot| ballot.0);
        match (event.event, event.what) {
            (Direction::Local, What::Campaigns) => {
                candidate.tried.push(ballot());
                candidate.backed_off = false;
            }
            (Direction::Local, What::Leads) => candidate.led.push(ballot()),
            (Direction::Local, What::CampaignLost | What::Follows) => candidate.backed_off = true,
            (Direction::Received, What::Promise) => {
                let promises = candidate.promises.entry(ballot()).or_default();
                promises.extend(event.peers.iter().cloned());
            }
            // To itself: to others it promises what they ask for.
            (Direction::Sent, What::Promise) if with(event, node) => {
                candidate.promises.entry(ballot()).or_default().insert(node.to_owned());
            }
            _ => {}
        }
    }
    candidate
}

/// An election has ballots, votes and one winner, on whom all agree.
pub fn election(roster: &Roster, campaigns: &Campaigns) -> Verdict {
    let mut findings = Findings::default();
    let mut candidates = BTreeMap::new();
    for (node, recording) in &campaigns.recordings {
        match recording {
            Ok(events) => _ = candidates.insert(node.as_str(), candidate(node, events)),
            Err(error) => findings.wrong(format!("{node}: its recorder was not read: {error}")),
        }
    }
    for (node, candidate) in &candidates {
        judge_candidate(&mut findings, roster, node, candidate);
    }
    let winners: Vec<&str> =
        candidates.iter().filter(|(_, c)| !c.led.is_empty()).map(|(name, _)| *name).collect();
    let winner = match (winners.as_slice(), roster.sole_proposer()) {
        ([winner], _) => {
            if roster.sole_proposer().is_none() && campaigns.before.as_deref() == Some(winner) {
                findings.wrong(format!("{winner} resigned and won again, against nobody"));
            }
            Some(*winner)
        }
        ([], Some(only)) => {
            findings.saw(format!("{only}: its recorder does not reach back to its election"));
            Some(only)
        }
        ([], None) => {
            findings.wrong(format!("{}: none recorded that it leads", roster.proposers_named()));
            None
        }
        (several, _) => {
            findings.wrong(format!("several won one after another: {}", several.join(", ")));
            None
        }
    };
    if let Some(winner) = winner {
        judge_agreement(&mut findings, winner, &campaigns.statuses);
    }
    findings.verdict(Check::Election)
}

fn judge_candidate(findings: &mut Findings, roster: &Roster, node: &str, candidate: &Candidate) {
    let nobody = BTreeSet::new();
    for ballot in &candidate.tried {
        let promises = candidate.promises.get(ballot).unwrap_or(&nobody);
        let voters: Vec<&str> =
            promises.iter().map(String::as_str).filter(|name| roster.votes(name)).collect();
        let list = voters.join(", ");
        let votes = format!("promises of {}", if list.is_empty() { "nobody" } else { &list });
        let led = candidate.led.contains(ballot);
        match (led, voters.len() >= roster.phase1) {
            (true, true) => findings.saw(format!("{node}: won ballot {ballot} with {votes}")),
            (true, false) => findings.wrong(format!(
                "{node}: leads under ballot {ballot} with {votes}; {} are needed",
                roster.phase1
            )),
            (false, _) => findings.saw(format!("{node}: tried ballot {ballot}, got {votes}")),
        }
    }
    for ballot in candidate.led.iter().filter(|ballot| !candidate.tried.contains(ballot)) {
        findings.wrong(format!("{node}: leads under ballot {ballot}, for which it did not ask"));
    }
    match (candidate.led.is_empty(), candidate.tried.last(), candidate.backed_off) {
        (true, Some(ballot), false) => findings
            .wrong(format!("{node}: tried ballot {ballot}, did not win and did not back off")),
        (true, Some(_), true) => findings.saw(format!("{node}: backed off")),
        (true, None, _) => findings.saw(format!("{node}: did not campaign")),
        (false, ..) => {}
    }
}

fn judge_agreement(findings: &mut Findings, winner: &str, statuses: &BTreeMap<String, Answer>) {
    let mut agreed = Vec::new();
    for (node, status) in statuses {
        match status {
            Ok(status) if status.leader.as_deref() == Some(winner) => agreed.push(node.as_str()),
            Ok(status) => {
                let named = status.leader.as_deref().unwrap_or("nobody");
                findings.wrong(format!("{node}: says that {named} leads; {winner} won"));
            }
            Err(error) => findings.wrong(format!("{node}: did not say who leads: {error}")),
        }
    }
    findings.saw(format!("{} say that {winner} leads: {}", agreed.len(), agreed.join(", ")));
}

/// One write of the check's own, and what nodes recorded of it.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// Who led when it was sent.
    pub leader: Option<String>,
    /// The write.
    pub write: Asked,
    /// What it wrote.
    pub value: String,
    /// The slots that were proposed meanwhile, the write's among them; none if it left no trace.
    pub slots: Option<(u64, u64)>,
    /// By node: what its recorder still has of phase 1 and of who led.
    pub history: BTreeMap<String, Recording>,
    /// By node: what its recorder has, back to the mark.
    pub recordings: BTreeMap<String, Recording>,
    /// By node: where its recorder ended before the write; none if it could not be read then.
    pub marks: BTreeMap<String, Option<Mark>>,
    /// By node: its status afterwards.
    pub statuses: BTreeMap<String, Answer>,
    /// By learner: a local read of the value.
    pub reads: BTreeMap<String, Asked>,
    /// Whether an election was held just before, so that all of it must have been recorded.
    pub elected: bool,
}

impl Probe {
    /// What the node recorded after the write was sent.
    fn since(&self, node: &str) -> Recording {
        match (self.recordings.get(node), self.marks.get(node)) {
            (Some(Ok(events)), Some(Some(mark))) => after(events, *mark),
            (Some(Err(error)), _) => Err(error.clone()),
            _ => Err("it did not answer before the write".to_owned()),
        }
    }

    fn whole(&self, node: &str) -> Result<&[ProtocolEvent], String> {
        match self.history.get(node) {
            Some(Ok(events)) => Ok(events),
            Some(Err(error)) => Err(error.clone()),
            None => Err("it was not asked".to_owned()),
        }
    }

    /// Leader and slots, or what speaks against the cluster already.
    fn basis(&self, roster: &Roster, findings: &mut Findings) -> Option<(&str, (u64, u64))> {
        let Some(leader) = &self.leader else {
            findings.wrong(format!("{}: none of them knows a leader", roster.proposers_named()));
            return None;
        };
        if !self.write.done() {
            findings.wrong(format!("the check's own write failed: {}", self.write.failure()));
            return None;
        }
        let Some(slots) = self.slots else {
            findings.wrong(format!("{leader}: no slot was seen for the check's own write"));
            return None;
        };
        Some((leader, slots))
    }
}

/// A message that goes from one node to another, as both should have recorded it.
struct Leg<'a> {
    what: What,
    from: (&'a str, &'a [ProtocolEvent]),
    to: (&'a str, &'a [ProtocolEvent]),
}

impl Leg<'_> {
    /// What is missing: the sender's record, the receiver's, or nothing.
    fn missing(&self, about: impl Fn(&ProtocolEvent) -> bool) -> Option<String> {
        let ((from, sent), (to, received)) = (self.from, self.to);
        let (this, what) = (self.what, self.what.word());
        let seen = |events: &[ProtocolEvent], way, peer: &str| {
            events.iter().any(|event| is(event, way, this) && with(event, peer) && about(event))
        };
        match (seen(sent, Direction::Sent, to), seen(received, Direction::Received, from)) {
            (true, true) => None,
            (false, true) => Some(format!("{to} got {what} from {from}, which did not send it")),
            (true, false) => Some(format!("{from} sent {what} to {to}, where it was not seen")),
            (false, false) => Some(format!("{from} sent no {what} to {to}")),
        }
    }
}

/// Both phases are seen at the leader and at each acceptor.
pub fn proposer_acceptor(roster: &Roster, probe: &Probe) -> Verdict {
    let mut findings = Findings::default();
    let Some((leader, (first, last))) = probe.basis(roster, &mut findings) else {
        return findings.verdict(Check::ProposerAcceptor);
    };
    let (whole, since) = match (probe.whole(leader), probe.since(leader)) {
        (Ok(whole), Ok(since)) => (whole, since),
        (Err(error), _) | (_, Err(error)) => {
            findings.wrong(format!("{leader}: its recorder was not read: {error}"));
            return findings.verdict(Check::ProposerAcceptor);
        }
    };
    let ballot = whole.iter().rev().find(|event| is(event, Direction::Local, What::Leads));
    let ballot = ballot.and_then(|event| event.ballot);
    match (ballot, probe.elected) {
        (Some(_), _) => {}
        (None, true) => findings.wrong(format!(
            "{leader}: leads since the election just held, and did not record that it does"
        )),
        (None, false) => findings.saw(format!(
            "phase 1: not seen, for the recorder of {leader} does not reach back to its election"
        )),
    }
    for acceptor in roster.acceptors() {
        let name = acceptor.name.as_str();
        let (all, new) = match (probe.whole(name), probe.since(name)) {
            (Ok(all), Ok(new)) => (all, new),
            (Err(error), _) | (_, Err(error)) => {
                findings.wrong(format!("{name}: its recorder was not read: {error}"));
                continue;
            }
        };
        if let Some(JsonId(ballot)) = ballot {
            let words = (What::Prepare, What::Promise);
            let missing = phase((leader, whole), (name, all), words, |event| {
                event.ballot == Some(JsonId(ballot))
            });
            match missing.is_empty() {
                true => findings.saw(format!("{name}: Prepare and Promise, ballot {ballot}")),
                // A node that came later was not needed for it.
                false if !probe.elected => findings.saw(format!(
                    "{name}: phase 1: not seen in the last election, ballot {ballot}"
                )),
                false => missing.iter().for_each(|text| findings.wrong(text)),
            }
        }
        let touches = |event: &ProtocolEvent| {
            event.first.is_some_and(|from| from <= last) && event.last.is_some_and(|to| first <= to)
        };
        let missing =
            phase((leader, &since), (name, &new), (What::Accept, What::Accepted), touches);
        match missing.is_empty() {
            true => findings.saw(format!("{name}: Accept and Accepted, slots {first}..{last}")),
            false => missing.iter().for_each(|text| findings.wrong(text)),
        }
    }
    findings.verdict(Check::ProposerAcceptor)
}

/// What is missing of a question and its answer; of the answer only where an acceptor leads, which
/// asks itself without a message.
fn phase(
    leader: (&str, &[ProtocolEvent]),
    acceptor: (&str, &[ProtocolEvent]),
    (question, answer): (What, What),
    about: impl Fn(&ProtocolEvent) -> bool,
) -> Vec<String> {
    if leader.0 == acceptor.0 {
        let (own, what) = (acceptor.0, answer.word());
        let is_own = |e: &&ProtocolEvent| is(e, Direction::Sent, answer) && with(e, own);
        return match acceptor.1.iter().filter(is_own).any(about) {
            true => Vec::new(),
            false => vec![format!("{own} leads and votes, and recorded no {what} of its own")],
        };
    }
    let there = Leg { what: question, from: leader, to: acceptor };
    let back = Leg { what: answer, from: acceptor, to: leader };
    [there, back].iter().filter_map(|leg| leg.missing(&about)).collect()
}

/// Each acceptor hears a proposer.
pub fn acceptor_receives(roster: &Roster, probe: &Probe) -> Verdict {
    let mut findings = Findings::default();
    let Some((leader, _)) = probe.basis(roster, &mut findings) else {
        return findings.verdict(Check::AcceptorReceives);
    };
    for acceptor in roster.acceptors() {
        let name = acceptor.name.as_str();
        let events = match probe.since(name) {
            Ok(events) => events,
            Err(error) => {
                findings.wrong(format!("{name}: its recorder was not read: {error}"));
                continue;
            }
        };
        let mut heard: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        // What else a proposer sends, it sends to learners as well, and votes answer an acceptor.
        let asks = |event: &&ProtocolEvent| {
            event.event == Direction::Received && matches!(event.what, What::Prepare | What::Accept)
        };
        for event in events.iter().filter(asks) {
            for peer in roster.proposers().filter(|peer| with(event, &peer.name)) {
                *heard.entry((peer.name.as_str(), event.what.word())).or_default() += 1;
            }
        }
        if name == leader {
            let own =
                events.iter().filter(|e| is(e, Direction::Sent, What::Accepted) && with(e, name));
            match own.count() {
                0 => findings.wrong(format!("{name}: leads and votes, and did not accept once")),
                count => findings.saw(format!("{name}: leads, and accepted {count} times itself")),
            }
            continue;
        }
        if heard.is_empty() {
            findings.wrong(format!("{name}: recorded no Prepare and no Accept of a proposer"));
            continue;
        }
        let list = heard.iter().map(|((peer, what), count)| format!("{count} {what} of {peer}"));
        let list = list.collect::<Vec<_>>().join(", ");
        findings.saw(format!("{name}: received after the write: {list}"));
    }
    findings.verdict(Check::AcceptorReceives)
}

/// What was accepted is learned by each learner.
pub fn acceptor_learner(roster: &Roster, probe: &Probe) -> Verdict {
    let mut findings = Findings::default();
    let Some((_, (first, last))) = probe.basis(roster, &mut findings) else {
        return findings.verdict(Check::AcceptorLearner);
    };
    let accepted = |name: &str| {
        let events = probe.since(name).unwrap_or_default();
        events.iter().any(|e| is(e, Direction::Sent, What::Accepted) && covers(e, last))
    };
    let voters: Vec<&str> =
        roster.acceptors().map(|node| node.name.as_str()).filter(|name| accepted(name)).collect();
    let (names, needed) = (voters.join(", "), roster.phase2);
    match voters.len() >= needed {
        true => findings.saw(format!("slot {last} was accepted by {names}")),
        false => {
            let names = if names.is_empty() { "nobody" } else { &names };
            findings.wrong(format!("slot {last} was accepted by {names}; {needed} are needed"));
        }
    }
    for learner in roster.learners() {
        judge_learner(&mut findings, probe, &learner.name, (first, last));
    }
    findings.verdict(Check::AcceptorLearner)
}

fn judge_learner(findings: &mut Findings, probe: &Probe, name: &str, (first, last): (u64, u64)) {
    match probe.since(name) {
        Err(error) => findings.wrong(format!("{name}: its recorder was not read: {error}")),
        Ok(events) => {
            let learned = events.iter().filter(|event| is(event, Direction::Local, What::Learned));
            match uncovered(learned, first, last) {
                None => findings.saw(format!("{name}: learned slots {first}..{last}")),
                Some(slot) => findings.wrong(format!("{name}: did not learn slot {slot}")),
            }
        }
    }
    match probe.statuses.get(name) {
        Some(Ok(status)) if status.applied_slot >= last => {
            findings.saw(format!("{name}: applied up to slot {}", status.applied_slot));
        }
        Some(Ok(status)) => {
            let applied = status.applied_slot;
            findings.wrong(format!("{name}: applied up to slot {applied} only, not {last}"));
        }
        Some(Err(error)) => findings.wrong(format!("{name}: no status: {error}")),
        None => findings.wrong(format!("{name}: no status")),
    }
    match probe.reads.get(name) {
        Some(read) if read.done() && read.stdout.trim_end() == probe.value => {
            findings.saw(format!("{name}: a local read gives the value, in {}", ms(read.took)));
        }
        Some(read) if read.done() => {
            let (found, value) = (read.stdout.trim_end(), &probe.value);
            findings.wrong(format!("{name}: a local read gives {found} instead of {value}"));
        }
        Some(read) => findings.wrong(read.failure()),
        None => findings.wrong(format!("{name}: was not read")),
    }
}
