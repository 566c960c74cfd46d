//! What a replica does with each message.
//!
//! What a peer says is data. It is checked here before any role sees it, and refused with a note
//! when it cannot be: a ballot that is not the sender's, a counter out of reach, runs that
//! overflow, votes of another life of an acceptor's log. Nothing a peer sends may panic, or change
//! state before it passed.

use super::acceptor::{Acceptor, Run};
use super::ballot::{Ballot, NodeId, Slot, VoterGeneration};
use super::catch_up::Piece;
use super::configuration::Configuration;
use super::effects::{ConfirmedRead, Effects, Note, Offence, StepDown, Token};
use super::election::Call;
use super::message::{DiskHealth, Entry, Message, Pledge, Statement, Value};
use super::outbox::Outbox;
use super::proposer::{Phase, Proposer};
use super::reads::Reader;
use super::replica::Replica;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Parts that a promise may come in: α slots of the largest values, and to spare.
const PROMISE_PARTS_MAX: u32 = 64 * 1024;

/// How often a request may be passed on between the node that holds it and the leader.
const RELAY_HOPS_MAX: u8 = 1;

impl<V: Value> Replica<V> {
    pub(super) fn deliver(&mut self, from: NodeId, message: Message<V>, effects: &mut Effects<V>) {
        if self.configurations.newest().member(from).is_none() {
            effects.note(Note::Refused(from, Offence::Stranger));
            return;
        }
        let refused = match message {
            Message::Pledge(pledge) => self.on_pledge(from, pledge, effects),
            Message::Statement(statement) => self.on_statement(from, statement, effects),
        };
        if let Err(offence) = refused {
            effects.note(Note::Refused(from, offence));
        }
    }

    fn on_pledge(
        &mut self,
        from: NodeId,
        pledge: Pledge<V>,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        match pledge {
            Pledge::Promise { ballot, generation, floor, votes, part, parts } => {
                self.check_voter(from, generation)?;
                if part >= parts || parts > PROMISE_PARTS_MAX {
                    return Err(Offence::Malformed);
                }
                if votes.iter().any(|vote| vote.slot.0 == 0 || vote.ballot > ballot) {
                    return Err(Offence::Malformed);
                }
                if let Some(proposer) = &mut self.proposer {
                    proposer.on_promise(from, ballot, floor, votes, (part, parts));
                }
                self.try_lead(effects);
            }
            Pledge::Accepted { ballot, generation, first, last } => {
                self.check_voter(from, generation)?;
                if first > last || first.0 == 0 {
                    return Err(Offence::Malformed);
                }
                // Votes of a ballot that cannot be would displace those that count.
                self.check_plausible(ballot)?;
                self.learner.on_votes(from, ballot, (first, last), &self.configurations);
            }
        }
        Ok(())
    }

    fn on_statement(
        &mut self,
        from: NodeId,
        statement: Statement<V>,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        match statement {
            Statement::Prepare { ballot, configuration: _, first } => {
                self.on_prepare(from, ballot, first, effects)?;
            }
            Statement::Accept { ballot, configuration: _, first, entries, chosen } => {
                self.on_accept(from, ballot, first, &entries, chosen, effects)?;
            }
            Statement::Refused { ballot, promised, hears } => {
                self.hear_from(from);
                self.on_promised_elsewhere(ballot, promised, hears, effects)?;
            }
            Statement::Chosen { ballot, chosen } => {
                self.check_ballot(from, ballot)?;
                self.follow(from, ballot, effects);
                self.learner.on_chosen(from, ballot, chosen);
            }
            Statement::Heartbeat { ballot, round, chosen, configuration } => {
                self.check_ballot(from, ballot)?;
                self.on_heartbeat(from, ballot, round, chosen, effects);
                self.outdated = configuration > self.configurations.newest().number;
            }
            ack @ Statement::HeartbeatAck { .. } => self.on_heartbeat_ack(from, ack, effects)?,
            Statement::Inquire { round } => self.on_inquire(from, round, effects),
            report @ Statement::Report { .. } => self.on_report(from, report, effects)?,
            Statement::HandOver { ballot } => {
                self.check_ballot(from, ballot)?;
                if self.election.leader() == Some((from, ballot)) {
                    self.start_campaign(effects);
                }
            }
            Statement::AskHandOver { to } => {
                if let Some(to) = to.or_else(|| self.successor()) {
                    // Whoever asked sees that leadership stays, and asks again or gives up.
                    let _refused_or_under_way = self.hand_over(to, effects);
                }
            }
            Statement::Forward { commands, hops } => {
                self.on_forward(commands, hops, effects);
            }
            Statement::ReadIndexRequest { origin, token, hops } => {
                let reader = Reader { origin, token, via: from };
                self.on_read_request(reader, hops, effects);
            }
            Statement::ReadIndex { origin, token, index } => {
                if origin == self.id {
                    effects.confirm(ConfirmedRead { token: Token(token), index });
                } else if self.configurations.newest().member(origin).is_some() {
                    effects.say(origin, Statement::ReadIndex { origin, token, index });
                }
            }
            Statement::Fetch { first } => self.on_fetch(from, first, effects)?,
            Statement::Fetched { first, entries, chosen, floor: _, more } => {
                self.on_fetched(from, Piece { first, entries, chosen, more }, effects)?;
            }
        }
        Ok(())
    }

    pub(super) fn outbox<'a>(&'a mut self, effects: &'a mut Effects<V>) -> Outbox<'a, V> {
        Outbox { me: self.id, loopback: &mut self.loopback, effects }
    }

    fn promised(&self) -> Ballot {
        self.acceptor.as_ref().map_or(Ballot::ZERO, Acceptor::promised)
    }

    /// The live leader that this node hears or is.
    fn hears(&self) -> Option<Ballot> {
        self.proposer.as_ref().and_then(Proposer::leading).or_else(|| self.election.hears())
    }

    /// A ballot must belong to its sender, and be within reach of what was seen.
    fn check_ballot(&mut self, from: NodeId, ballot: Ballot) -> Result<(), Offence> {
        let owner = self.configurations.newest().proposer(ballot.number.proposer());
        if owner != Some(from) || ballot == Ballot::ZERO {
            return Err(Offence::ForeignBallot);
        }
        self.check_plausible(ballot)?;
        if let Some(proposer) = &mut self.proposer {
            proposer.see(ballot);
        }
        Ok(())
    }

    /// A ballot must be within reach of what was seen.
    pub(super) fn check_plausible(&self, ballot: Ballot) -> Result<(), Offence> {
        let seen = self.promised().max(self.hears().unwrap_or(Ballot::ZERO));
        let seen = seen.max(self.proposer.as_ref().map_or(Ballot::ZERO, |p| p.highest()));
        match ballot.is_plausible_after(seen) {
            true => Ok(()),
            false => Err(Offence::ImplausibleBallot),
        }
    }

    /// A vote counts only in the life of the log that the configuration names.
    fn check_voter(&self, from: NodeId, generation: VoterGeneration) -> Result<(), Offence> {
        if self.configurations.newest().is_voter(from, generation)
            || planted!(StaleGenerationCounts)
        {
            Ok(())
        } else {
            Err(Offence::StaleGeneration)
        }
    }

    fn is_acceptor(&self, id: NodeId) -> bool {
        let member = self.configurations.newest().member(id);
        member.is_some_and(|member| member.roles.acceptor.is_some())
    }

    /// Takes note of a ballot that somebody else promised.
    fn see(&mut self, promised: Ballot, effects: &mut Effects<V>) -> Result<(), Offence> {
        let Some(proposer) = &mut self.proposer else { return Ok(()) };
        if !promised.is_plausible_after(proposer.highest()) {
            return Err(Offence::ImplausibleBallot);
        }
        if proposer.see(promised) {
            effects.note(Note::ProposerClash(promised));
        }
        Ok(())
    }

    fn on_prepare(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Slot,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        self.check_ballot(from, ballot)?;
        let hears = self.hears().filter(|heard| *heard > ballot);
        let floor = self.learner.chosen().next();
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects: &mut *effects };
        if let Some(acceptor) = &mut self.acceptor {
            if acceptor.on_prepare(from, ballot, first, floor, &mut out) {
                if from != self.id && self.election.leader().is_none() {
                    self.election.yield_to_candidate();
                }
            } else {
                let refusal = acceptor.refusal(ballot, hears);
                out.say(from, refusal);
            }
        }
        if from != self.id {
            self.on_rival(ballot, effects);
        }
        Ok(())
    }

    /// Somebody prepares above this node's own ballot.
    fn on_rival(&mut self, ballot: Ballot, effects: &mut Effects<V>) {
        let Some(proposer) = &self.proposer else { return };
        if proposer.leading().is_some_and(|mine| mine < ballot) {
            self.defend(effects);
        }
    }

    /// Others promised a ballot above the one that this node leads under, and nobody leads under
    /// it. The candidate may be dead by now, and nobody else would ever end the stalemate: a leader
    /// that has proved itself goes above it at once and stays leader. One that just came to lead
    /// gives way instead, or two rivals elected in the same moment would outbid each other for
    /// ever; so does one that asked for a successor.
    ///
    /// Where fewer than a phase-1 quorum answer, nobody could win. With a smaller phase-2 quorum
    /// the leader may still get things chosen, so it stays for as long as enough follow it.
    fn defend(&mut self, effects: &mut Effects<V>) {
        let chosen = self.learner.chosen();
        let electable = self.is_anybody_electable();
        let Some(proposer) = &mut self.proposer else { return };
        let handing_over = proposer.is_handing_over();
        let proved = proposer.leading_mut().is_some_and(|leading| chosen >= leading.opening);
        if (proved && !handing_over) || planted!(RivalsNeverYield) {
            if electable {
                self.start_campaign(effects);
            }
        } else {
            self.step_down(StepDown::Superseded, effects);
            self.election.yield_to_candidate();
        }
    }

    fn on_accept(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Slot,
        entries: &[Arc<Entry<V>>],
        chosen: Slot,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        let window = self.configurations.window();
        let last = first.0.checked_add(entries.len() as u64).map(|end| end.saturating_sub(1));
        let Some(last) = last.filter(|_| first.0 > 0 && !entries.is_empty()) else {
            return Err(Offence::Malformed);
        };
        if last > chosen.0.saturating_add(window) || last == u64::MAX {
            return Err(Offence::Malformed);
        }
        self.check_ballot(from, ballot)?;
        if from != self.id {
            self.follow(from, ballot, effects);
        }
        let hears = self.hears().filter(|heard| *heard > ballot);
        let known = self.learner.chosen();
        let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects: &mut *effects };
        if let Some(acceptor) = &mut self.acceptor {
            let run = Run { ballot, first, entries };
            let governing = self.configurations.governing(Slot(last));
            let mut learners: BTreeSet<NodeId> = governing.counting_learners().collect();
            learners.insert(from);
            let accepted = acceptor.on_accept(learners, &run, known, window, &mut out)?;
            if !accepted && acceptor.promised() > ballot {
                let refusal = acceptor.refusal(ballot, hears);
                out.say(from, refusal);
            }
        }
        self.learner.on_proposals(ballot, first, entries, &self.configurations);
        let chosen = if planted!(AcceptedIsChosen) { Slot(last) } else { chosen };
        self.learner.on_chosen(from, ballot, chosen);
        Ok(())
    }

    /// Hears a leader: follows it, unless this node leads or hears one with a higher ballot.
    fn follow(&mut self, from: NodeId, ballot: Ballot, effects: &mut Effects<V>) {
        if from == self.id {
            return;
        }
        if let Some(proposer) = &self.proposer {
            let mine = proposer.leading().or(proposer.preparing());
            match mine {
                Some(mine) if mine > ballot => return,
                Some(_) => self.step_down(StepDown::Superseded, effects),
                None => {}
            }
        }
        if self.election.heard(from, ballot) {
            effects.note(Note::Following(from, ballot));
        }
    }

    fn on_heartbeat(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        round: u64,
        chosen: Slot,
        effects: &mut Effects<V>,
    ) {
        self.follow(from, ballot, effects);
        self.learner.on_chosen(from, ballot, chosen);
        let ack = Statement::HeartbeatAck {
            ballot,
            round,
            generation: self.acceptor.as_ref().map(Acceptor::generation),
            promised: self.promised(),
            hears: self.hears().filter(|heard| *heard > ballot),
            disk: self.disk,
            chosen: self.learner.chosen(),
        };
        self.outbox(effects).say(from, ack);
    }

    fn on_heartbeat_ack(
        &mut self,
        from: NodeId,
        ack: Statement<V>,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        let Statement::HeartbeatAck { ballot, round, generation, promised, hears, disk, chosen } =
            ack
        else {
            return Err(Offence::Malformed);
        };
        self.learner.hear(from, chosen);
        match generation {
            Some(generation) => self.check_voter(from, generation)?,
            // A member without a vote follows as well: it may be asked to lead next. An acceptor
            // that says it has none lost its log, and must not count.
            None if self.is_acceptor(from) => return Ok(()),
            None => {}
        }
        if promised > ballot {
            self.hear_from(from);
            return self.on_promised_elsewhere(ballot, promised, hears, effects);
        }
        let Some(leading) = self.proposer.as_mut().and_then(Proposer::leading_mut) else {
            return Ok(());
        };
        if leading.ballot != ballot || round > leading.round {
            return Ok(());
        }
        let follower = leading.followers.entry(from).or_default();
        (follower.silent, follower.unheard) = (0, 0);
        follower.round = follower.round.max(round);
        follower.chosen = follower.chosen.max(chosen);
        follower.fit = disk == DiskHealth::Healthy;
        self.confirm_reads(effects);
        Ok(())
    }

    /// Somebody answered this node, leading, though it does not follow.
    fn hear_from(&mut self, from: NodeId) {
        let leading = self.proposer.as_mut().and_then(Proposer::leading_mut);
        if let Some(follower) = leading.and_then(|leading| leading.followers.get_mut(&from)) {
            follower.unheard = 0;
        }
    }

    /// An acceptor has promised a higher ballot than the one this node works under.
    fn on_promised_elsewhere(
        &mut self,
        ballot: Ballot,
        promised: Ballot,
        hears: Option<Ballot>,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        self.see(promised, effects)?;
        let Some(proposer) = &self.proposer else { return Ok(()) };
        if promised <= ballot || proposer.leading().or(proposer.preparing()) != Some(ballot) {
            return Ok(());
        }
        let leader_above = hears.is_some_and(|heard| heard > ballot);
        match &proposer.phase {
            Phase::Leading(_) if leader_above => self.step_down(StepDown::Superseded, effects),
            Phase::Leading(_) => self.defend(effects),
            Phase::Preparing(_) => self.step_down(StepDown::Superseded, effects),
            Phase::Idle => {}
        }
        Ok(())
    }

    fn on_inquire(&mut self, from: NodeId, round: u64, effects: &mut Effects<V>) {
        let report = Statement::Report {
            round,
            generation: self.acceptor.as_ref().map(Acceptor::generation),
            promised: self.promised(),
            hears: self.hears(),
            chosen: self.learner.chosen(),
        };
        self.outbox(effects).say(from, report);
    }

    fn on_report(
        &mut self,
        from: NodeId,
        report: Statement<V>,
        effects: &mut Effects<V>,
    ) -> Result<(), Offence> {
        let Statement::Report { round, generation, promised, hears, chosen } = report else {
            return Err(Offence::Malformed);
        };
        self.learner.hear(from, chosen);
        let Some(generation) = generation else { return Ok(()) };
        self.check_voter(from, generation)?;
        self.see(promised, effects)?;
        let idle = self.proposer.as_ref().is_some_and(|p| matches!(p.phase, Phase::Idle));
        let first = self.learner.chosen().next();
        let open = self.configurations.from(first);
        let call = self.election.on_report(from, round, hears, open);
        if idle && call == Some(Call::Campaign) {
            self.start_campaign(effects);
        }
        Ok(())
    }

    fn on_forward(&mut self, commands: Vec<V>, hops: u8, effects: &mut Effects<V>) {
        let active = |p: &&mut Proposer<V>| !matches!(p.phase, Phase::Idle);
        if let Some(proposer) = self.proposer.as_mut().filter(active) {
            let mut out = Outbox { me: self.id, loopback: &mut self.loopback, effects };
            for command in commands {
                proposer.enqueue(None, command, &mut out);
            }
        } else if hops < RELAY_HOPS_MAX
            && let Some((leader, _)) = self.election.leader()
        {
            effects.say(leader, Statement::Forward { commands, hops: hops + 1 });
        }
    }

    fn on_read_request(&mut self, reader: Reader, hops: u8, effects: &mut Effects<V>) {
        let Reader { origin, token, via: _ } = reader;
        if self.configurations.newest().member(origin).is_none() {
            effects.note(Note::Refused(origin, Offence::Stranger));
        } else if self.is_leading() {
            self.reads.push(reader);
        } else if hops < RELAY_HOPS_MAX
            && let Some((leader, _)) = self.election.leader()
        {
            let statement = Statement::ReadIndexRequest { origin, token, hops: hops + 1 };
            effects.say(leader, statement);
        }
    }

    /// Everybody who may have a say in slots that are still open.
    pub fn open_configurations(&self) -> impl Iterator<Item = &Configuration> {
        self.configurations.from(self.learner.chosen().next())
    }
}
