//! A cluster that lost its quorum for ever goes on with its survivors.
//!
//! ```text
//! look       which survivors there are, what they hold, what may be lost; nothing is changed
//! stop       all survivors; only now is it certain what their logs hold
//! give up    the lost are noted in the state and revoked in a bundle: no survivor lets them in
//! decree     one survivor is told, by a file that it takes up when it starts
//! start      that one first, then the others, which learn from it as they learn anything
//! ```
//!
//! An operator says who is lost, and must be right: nodes that were given up and are enough for a
//! quorum among themselves go on as before, if they come back, for those who still ask them. So a
//! host that answers and has its log is no lost one, and whoever has the new `known_hosts` believes
//! the lost no more.
//!
//! Where a recovery stands is in the state beside the keys and on the one survivor's host, so that
//! whoever has the keys goes on with it: typed again it does what is left. Two must never go on
//! from two logs, therefore what was begun from one is not begun from another.
//!
//! [`remains`] is what the log of one survivor holds, [`survivors`] from which of them to go on.

pub mod remains;
pub mod survivors;

use super::{host_failure, keys_failure};
use crate::controller::deploy::{Cluster, Progress, state_failure};
use crate::controller::host::{Found, Halt, Place, Wanted, names};
use crate::controller::inventory::NodeSpec;
use crate::controller::keys::issued::Target;
use crate::controller::keys::issuer::Issuer;
use crate::controller::membership::Membership;
use crate::controller::observe::ASK_LIMIT;
use crate::controller::state::{ClusterState, Founder, Recovery};
use crate::controller::wait::at_once;
use crate::transport::bundle::AuthorityRole;
use crate::wire::decree::{decode_decree, encode_decree};
use crate::wire::failure::{Code, Failure};
use remains::Remains;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};
use survivors::{Decision, decide, is_quorum, loses_nothing, ranking, votes};

/// What a look at the survivors found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Those first from whose logs the cluster should go on.
    pub survivors: Vec<Survivor>,
    /// Whether every acknowledged write is among what they hold, by the number of the lost alone.
    pub loses_nothing: bool,
}

/// One that is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its name.
    pub node: String,
    /// Whether it runs; then its log is not read, and it says itself what it knows.
    pub running: bool,
    /// Every slot up to here is chosen; none if it runs and does not answer.
    pub chosen: Option<u64>,
    /// The last slot of which its log holds anything; none while it runs.
    pub last: Option<u64>,
    /// How long ago its log was written to; none while it runs.
    pub idle: Option<Duration>,
    /// Whether it has a vote; of one that runs only whether it should have.
    pub votes: bool,
}

/// A recovery that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// From whose log.
    pub from: String,
    /// Who takes part now.
    pub members: Vec<String>,
    /// The number of their configuration.
    pub configuration: u64,
    /// Whether every acknowledged write was among what they held.
    pub loses_nothing: bool,
    /// Nodes that were given up and of which no key is here, so that none was revoked.
    pub unrevoked: Vec<String>,
    /// What was decreed now; none if it was before, by somebody who did not come to the end.
    pub decreed: Option<Decreed>,
}

/// What became of the log that the survivors go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decreed {
    /// Up to which slot it was taken over.
    pub last: u64,
    /// Slots that were taken over without anybody's knowing them chosen.
    pub taken_over: u64,
    /// Slots that no survivor knew.
    pub empty: u64,
}

/// The survivors, and what is known of them before anything is touched.
struct Seen<'a> {
    nodes: Vec<&'a NodeSpec>,
    running: Vec<String>,
    /// Who runs and does not answer.
    silent: Vec<String>,
    /// Of one that runs it is what it says, and that it is the voter that it should be.
    held: BTreeMap<String, Remains>,
}

impl Cluster {
    /// Looks at the survivors and changes nothing.
    ///
    /// # Errors
    /// When the cluster was not formed from here, a name is none of its nodes', somebody who is
    /// said to be lost is there, a survivor is not, or the survivors are a quorum.
    pub fn look_at_survivors(&self, lost: &[String]) -> Result<Look, Failure> {
        let state = self.formed()?;
        let seen = self.see(&state, lost)?;
        let survivor = |name: String| {
            let remains = &seen.held[&name];
            let running = seen.running.contains(&name);
            Survivor {
                running,
                chosen: (!seen.silent.contains(&name)).then_some(remains.chosen),
                last: (!running).then_some(remains.last),
                idle: remains.idle,
                votes: votes(&state, &name, remains),
                node: name,
            }
        };
        let open = state.recoveries.iter().find(|recovery| !recovery.done);
        Ok(Look {
            survivors: ranking(&state, &seen.held).into_iter().map(survivor).collect(),
            loses_nothing: open.is_none_or(|open| open.loses_nothing)
                && loses_nothing(&state, &seen.held),
        })
    }

    /// Has the cluster go on from the log of `from`, without those who are `lost`; or goes on with
    /// doing so.
    ///
    /// # Errors
    /// As [`Cluster::look_at_survivors`]; when `from` is not the one to go on from; and when a
    /// survivor could not be brought as far. It can be called again.
    pub fn recover(
        &self,
        from: &str,
        lost: &[String],
        say: Progress<'_>,
    ) -> Result<Recovered, Failure> {
        let from = self.known(from)?;
        if lost.contains(&from.name) {
            let message = format!("{} is among the lost, and nobody goes on from it", from.name);
            return Err(Failure::usage(message, "name a survivor: --from NODE"));
        }
        let mut issuer = self.issuer()?;
        // Not when the survivors are stopped.
        if self.is_to_revoke(&issuer, lost) {
            issuer.must_be_able(&[AuthorityRole::Root]).map_err(keys_failure)?;
        }
        self.must_be_newest(issuer.keys())?;
        let _exclusive = self.exclusive("recover")?;
        let mut state = self.formed()?;
        let begun = begun(&mut state, &from.name, lost)?;
        let seen = self.see(&state, lost)?;
        let decision = self.decision(&state, begun.as_ref(), &seen, from, lost, say)?;
        if let Some(decision) = &decision {
            say(&format!("give up {}", lost.join(", ")))?;
            give_up(&mut state, begun, &from.name, lost, decision);
            state.save(&self.keys_dir).map_err(state_failure)?;
        }
        let unrevoked = self.revoke_lost(&mut issuer, &state, say)?;
        let not_there = self.inventory.nodes.iter().map(|node| node.name.clone());
        let not_there: Vec<String> = not_there.filter(|name| state.lost(name).is_some()).collect();
        self.deliver_keys(issuer.keys(), &not_there, say)?;
        if let Some(decision) = &decision {
            let number = decision.decree.configuration.number.0;
            say(&format!("{}: decree configuration {number}", from.name))?;
            self.hand_decree(from, decision)?;
        }
        self.start_survivors(from, &seen.nodes, say)?;
        for recovery in &mut state.recoveries {
            recovery.done = true;
        }
        state.save(&self.keys_dir).map_err(state_failure)?;
        issuer.write_ssh_config(&self.ssh_targets()).map_err(keys_failure)?;
        let last = state.recoveries.last();
        Ok(Recovered {
            from: from.name.clone(),
            members: state.members().map(|node| node.name.clone()).collect(),
            configuration: last.map_or(1, |recovery| recovery.configuration),
            loses_nothing: last.is_none_or(|recovery| recovery.loses_nothing),
            unrevoked,
            decreed: decision.map(|decision| Decreed {
                last: decision.decree.last.0,
                taken_over: decision.taken_over,
                empty: decision.empty,
            }),
        })
    }

    /// What to decree; none if that was done, or a decree waits to be taken up.
    fn decision(
        &self,
        state: &ClusterState,
        begun: Option<&Begun>,
        seen: &Seen<'_>,
        from: &NodeSpec,
        lost: &[String],
        say: Progress<'_>,
    ) -> Result<Option<Decision>, Failure> {
        let open = begun.filter(|begun| begun.goes_on).map(|begun| &begun.recovery);
        let waits = self.waiting_decree(from)?;
        if open.is_some_and(|open| waits == Some(open.configuration)) {
            // One that came up beside its decree has not taken it up.
            self.halt(&[from], Halt::Gently)?;
            return Ok(None);
        }
        if seen.silent.is_empty() && open.is_none() {
            // What can be known to be wrong is told while everybody runs.
            decide(state, &seen.held, &from.name, lost).map_err(undecided)?;
        }
        say(&format!("stop {} survivors", seen.nodes.len()))?;
        self.halt(&seen.nodes, Halt::Gently)?;
        say("read what their logs hold")?;
        let held = self.held(&seen.nodes)?;
        match open.is_some_and(|open| knows(&held, &from.name, open)) {
            true => Ok(None),
            false => decide(state, &held, &from.name, lost).map(Some).map_err(undecided),
        }
    }

    /// Those that are not lost, and how they look.
    fn see(&self, state: &ClusterState, lost: &[String]) -> Result<Seen<'_>, Failure> {
        if let Some(name) = lost.iter().find(|name| state.node(name).is_none()) {
            let message = format!("{name} is no node of cluster {}", self.inventory.cluster);
            let names = state.members().map(|node| node.name.as_str()).collect::<Vec<_>>();
            let hint = format!("its nodes are {}", names.join(", "));
            return Err(Failure::new(Code::NotFound, message, hint));
        }
        self.must_be_gone(state, lost)?;
        let (nodes, found) = self.survivors(state, lost)?;
        let running = nodes.iter().zip(&found).filter(|(_, found)| found.running.is_some());
        let running: Vec<&NodeSpec> = running.map(|(node, _)| *node).collect();
        let answers = self.asker()?.ask(&running, ASK_LIMIT);
        let (mut held, mut silent) = (BTreeMap::new(), Vec::new());
        for (node, found) in nodes.iter().zip(&found) {
            let told = answers.get(&node.name).and_then(|answer| answer.as_ref().ok());
            let remains = match (found.running, told) {
                (None, _) => self.survey(node)?,
                (Some(_), Some(status)) => assumed(state, &node.name, status.chosen_slot),
                (Some(_), None) => {
                    silent.push(node.name.clone());
                    assumed(state, &node.name, 0)
                }
            };
            held.insert(node.name.clone(), remains);
        }
        let is_open = state.recoveries.iter().any(|recovery| !recovery.done);
        if is_quorum(state, &held) && !is_open {
            let message = "those that are not lost are a quorum: there is nothing to recover from";
            let hint = "start them: paxos-ctl deploy, and see paxos-ctl status; of one that runs \
                        the log is not read, so stop one that is fenced and look again";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        let running = running.iter().map(|node| node.name.clone()).collect();
        Ok(Seen { nodes, running, silent, held })
    }

    fn survivors(
        &self,
        state: &ClusterState,
        lost: &[String],
    ) -> Result<(Vec<&NodeSpec>, Vec<Found>), Failure> {
        let stays = |founder: &&Founder| !lost.contains(&founder.name);
        let mut survivors = Vec::new();
        for founder in state.members().filter(stays) {
            survivors.push(self.inventory.node(&founder.name).ok_or_else(|| {
                let message = format!("{} is a member and not in the inventory", founder.name);
                let hint = "put it back into the inventory, so that its host can be looked at";
                Failure::new(Code::BadSettings, message, hint)
            })?);
        }
        if survivors.is_empty() {
            let message = "nobody is left to go on from";
            let hint = "to start over without the data: paxos-ctl destroy, then deploy";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        let nothing = Wanted { executable: None, files: &[] };
        let looked = at_once(&survivors, |node| self.host.find(&Place::of(node), &nothing));
        let mut found = Vec::new();
        for (node, looked) in survivors.iter().zip(looked) {
            let looked = looked.map_err(|error| {
                let hint = format!("{}; or name {} among the lost", error.hint, error.node);
                Failure { hint, ..host_failure(error) }
            })?;
            if !looked.log {
                let message = format!("{} has no log, and so nothing to go on with", node.name);
                let hint = format!("name {} among the lost", node.name);
                return Err(Failure::new(Code::BadSettings, message, hint));
            }
            found.push(looked);
        }
        Ok((survivors, found))
    }

    /// A node whose host answers and has its log may vote again, and so is not lost. For one that
    /// was given up already there is no way back.
    fn must_be_gone(&self, state: &ClusterState, lost: &[String]) -> Result<(), Failure> {
        let mut named = Vec::new();
        for name in lost.iter().filter(|name| state.lost(name).is_none()) {
            named.push(self.inventory.node(name).ok_or_else(|| {
                let message =
                    format!("{name} is not in the inventory, so nobody looked whether it is lost");
                let hint = format!("put {name} back into the inventory until this is done");
                Failure::new(Code::BadSettings, message, hint)
            })?);
        }
        let nothing = Wanted { executable: None, files: &[] };
        let found = at_once(&named, |node| self.host.find(&Place::of(node), &nothing));
        let is_there = |found: &Found| found.log || found.running.is_some();
        let mut looked = named.iter().zip(found);
        match looked.find(|(_, found)| found.as_ref().is_ok_and(is_there)) {
            None => Ok(()),
            Some((node, _)) => {
                let message =
                    format!("{} is not lost: its host answers and has its log", node.name);
                let hint = format!(
                    "leave it out of --lost and start it: paxos-ctl deploy; if its log is to be \
                     given up, stop it and remove {} on its host first",
                    node.data_dir.display()
                );
                Err(Failure::new(Code::BadSettings, message, hint))
            }
        }
    }

    fn survey(&self, node: &NodeSpec) -> Result<Remains, Failure> {
        self.host.survey(&Place::of(node)).map_err(host_failure)
    }

    /// The number of the configuration in a decree that lies on the host of the one to go on from
    /// and was not taken up.
    fn waiting_decree(&self, from: &NodeSpec) -> Result<Option<u64>, Failure> {
        let files = [names::DECREE.to_owned()];
        let wanted = Wanted { executable: None, files: &files };
        let found = self.host.find(&Place::of(from), &wanted).map_err(host_failure)?;
        let bytes = found.files.into_iter().flatten().next();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let decree = text.and_then(|text| decode_decree(&text).ok());
        Ok(decree.map(|decree| decree.configuration.number.0))
    }

    /// What the survivors' logs hold, now that they are stopped.
    fn held(&self, survivors: &[&NodeSpec]) -> Result<BTreeMap<String, Remains>, Failure> {
        let read = at_once(survivors, |node| self.survey(node));
        let named = survivors.iter().zip(read);
        named.map(|(node, remains)| Ok((node.name.clone(), remains?))).collect()
    }

    /// Whether a key of the lost is here that is not revoked yet.
    fn is_to_revoke(&self, issuer: &Issuer, lost: &[String]) -> bool {
        lost.iter().any(|name| {
            let line = fs::read_to_string(issuer.keys().node_path(name, "node_key.pub"));
            line.is_ok_and(|line| !issuer.keys().is_revoked(&line))
        })
    }

    /// No survivor lets the lost in any more. Gives those of which no key is here.
    fn revoke_lost(
        &self,
        issuer: &mut Issuer,
        state: &ClusterState,
        say: Progress<'_>,
    ) -> Result<Vec<String>, Failure> {
        let now = SystemTime::now();
        let mut unrevoked = Vec::new();
        for name in state.recoveries.iter().flat_map(|recovery| &recovery.lost) {
            let key = issuer.keys().node_path(name, "node_key.pub");
            if !key.exists() {
                unrevoked.push(name.clone());
                continue;
            }
            let revoked = issuer.revoke(&Target::File(key), "lost for ever", now);
            if revoked.map_err(keys_failure)?.changed {
                say(&format!("revoke the key of {name}"))?;
            }
        }
        Ok(unrevoked)
    }

    fn hand_decree(&self, from: &NodeSpec, decision: &Decision) -> Result<(), Failure> {
        let text = encode_decree(&decision.decree).map_err(|error| {
            let hint = "report this fault; nothing was decreed";
            Failure::new(Code::Internal, error.to_string(), hint)
        })?;
        let place = Place::of(from);
        self.host.receive(&place, names::DECREE, 0o600, text.as_bytes()).map_err(host_failure)
    }

    /// Starts the one that goes on first, so that the others learn from it.
    fn start_survivors(
        &self,
        from: &NodeSpec,
        survivors: &[&NodeSpec],
        say: Progress<'_>,
    ) -> Result<(), Failure> {
        let mut order = survivors.to_vec();
        order.sort_by_key(|node| node.name != from.name);
        let asker = self.asker()?;
        for node in &order {
            if !self.runs(node)? {
                say(&format!("{}: start", node.name))?;
                self.host.start(&Place::of(node)).map_err(host_failure)?;
            }
            self.wait_answers(&asker, &[node])?;
        }
        say("wait until they serve")?;
        self.wait_leader(&asker, &order)?;
        for node in &order {
            self.wait_caught_up(&asker, node)?;
        }
        self.must_be_alone(&asker.ask(&order, ASK_LIMIT), &order)
    }

    /// Everybody who answers must know the survivors for all members that there are.
    fn must_be_alone(
        &self,
        answers: &BTreeMap<String, crate::controller::observe::Answer>,
        survivors: &[&NodeSpec],
    ) -> Result<(), Failure> {
        let told = Membership::told(answers).map(|told| told.members).unwrap_or_default();
        let stranger = told.iter().find(|member| survivors.iter().all(|n| n.name != member.name));
        match stranger {
            None => Ok(()),
            Some(member) => {
                let message = format!("the survivors still count {} as a member", member.name);
                let hint = "see paxos-ctl status and paxos-ctl logs, and recover again";
                Err(Failure::new(Code::Internal, message, hint))
            }
        }
    }
}

/// A recovery that was begun and is not done.
struct Begun {
    recovery: Recovery,
    /// Whether this is to go on with it. One that lost another survivor since is given up for a new
    /// one.
    goes_on: bool,
}

/// What was begun, if this can go on with it or take its place: two are never gone on from that are
/// both there.
fn begun(state: &mut ClusterState, from: &str, lost: &[String]) -> Result<Option<Begun>, Failure> {
    let Some(open) = state.recoveries.iter_mut().find(|recovery| !recovery.done) else {
        return Ok(None);
    };
    let recovery = open.clone();
    let more = lost.iter().any(|name| !open.lost.contains(name));
    if open.from == from && !more {
        return Ok(Some(Begun { recovery, goes_on: true }));
    }
    if more && (open.from == from || lost.contains(&open.from)) {
        // Noted together with the new one, and not before.
        open.done = true;
        return Ok(Some(Begun { recovery, goes_on: false }));
    }
    let names = open.lost.join(",");
    let message = format!(
        "a recovery from {} without {names} was begun at {} and is not done",
        open.from, open.at
    );
    let hint = format!(
        "go on with it: paxos-ctl recover --from {} --lost {names} --confirm {}; if {} is lost as \
         well, name it among the lost",
        open.from, state.cluster, open.from
    );
    Err(Failure::new(Code::BadSettings, message, hint))
}

/// Notes who is given up and how the others go on. An attempt of which no log knows is made anew.
fn give_up(
    state: &mut ClusterState,
    begun: Option<Begun>,
    from: &str,
    lost: &[String],
    decision: &Decision,
) {
    let configuration = &decision.decree.configuration;
    let size = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
    let voters = configuration.members().values().filter(|m| m.roles.acceptor.is_some());
    let mut recovery = Recovery {
        configuration: configuration.number.0,
        from: from.to_owned(),
        lost: lost.to_vec(),
        at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        acceptors: voters.map(|member| member.name.clone()).collect(),
        phase1: size(configuration.quorums().phase1()),
        phase2: size(configuration.quorums().phase2()),
        loses_nothing: decision.loses_nothing,
        done: false,
    };
    if let Some(before) = begun {
        recovery.loses_nothing &= before.recovery.loses_nothing;
        if before.goes_on {
            recovery.lost = before.recovery.lost;
            state.recoveries.retain(|known| known.done);
        }
    }
    state.recoveries.push(recovery);
}

/// Whether the log of the one to go on from holds what was decreed.
fn knows(held: &BTreeMap<String, Remains>, from: &str, open: &Recovery) -> bool {
    held.get(from).is_some_and(|remains| remains.configuration >= open.configuration)
}

/// What is assumed of a node that runs.
fn assumed(state: &ClusterState, name: &str, chosen: u64) -> Remains {
    let voter = state.node(name).and_then(|founder| founder.voter().ok().flatten());
    Remains {
        cluster_id: Some(state.cluster_id.clone()),
        generation: voter.map(|life| life.0),
        chosen,
        last: chosen,
        ..Remains::default()
    }
}

fn undecided(why: String) -> Failure {
    let hint = "paxos-ctl recover without --confirm says who holds what; survivors that were \
                stopped are started as they were by paxos-ctl deploy";
    Failure::new(Code::BadSettings, why, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;
    use crate::paxos::ballot::ClusterId;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A cluster of which n3 was given up, to go on from n1; that is not done.
    fn open() -> ClusterState {
        let mut state = ClusterState::form(&three_nodes(), ClusterId(7), || 9);
        state.recoveries.push(Recovery {
            configuration: 2,
            from: "n1".to_owned(),
            lost: names(&["n3"]),
            at: "then".to_owned(),
            acceptors: names(&["n1", "n2"]),
            phase1: 2,
            phase2: 2,
            loses_nothing: true,
            done: false,
        });
        state
    }

    #[test]
    fn what_was_begun_is_gone_on_with_from_the_same_log_and_no_other() {
        let goes_on = |from: &str, lost: &[&str]| {
            let mut state = open();
            let begun = begun(&mut state, from, &names(lost));
            let done = state.recoveries[0].done;
            begun.map(|begun| (begun.map(|begun| begun.goes_on), done))
        };
        assert_eq!(goes_on("n1", &["n3"]).ok(), Some((Some(true), false)));
        // A survivor was lost since.
        assert_eq!(goes_on("n1", &["n3", "n2"]).ok(), Some((Some(false), true)));
        assert_eq!(goes_on("n1", &["n2"]).ok(), Some((Some(false), true)));
        // The very one.
        assert_eq!(goes_on("n2", &["n1", "n3"]).ok(), Some((Some(false), true)));
        // Two that are both there.
        let refused = goes_on("n2", &["n3"]).unwrap_err();
        assert!(refused.message.contains("from n1 without n3 was begun at then"), "{refused:?}");
        assert!(refused.hint.contains("--from n1 --lost n3 --confirm c"), "{refused:?}");
        let mut settled = open();
        settled.recoveries[0].done = true;
        assert!(begun(&mut settled, "n2", &names(&["n3"])).is_ok_and(|begun| begun.is_none()));
    }
}
