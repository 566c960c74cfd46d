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

use super::deploy::{Cluster, Progress, state_failure};
use super::host::{Found, Halt, Place, Wanted, names};
use super::inventory::NodeSpec;
use super::issued::Target;
use super::issuer::Issuer;
use super::keys::KeysError;
use super::membership::Membership;
use super::observe::ASK_LIMIT;
use super::remains::Remains;
use super::state::{ClusterState, Founder, Recovery};
use super::survivors::{Decision, decide, is_quorum, loses_nothing, ranking};
use super::wait::at_once;
use super::{host_failure, keys_failure};
use crate::wire::decree::{decode_decree, encode_decree};
use crate::wire::failure::{Code, Failure};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

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
    /// Every slot up to here is chosen.
    pub chosen: u64,
    /// The last slot of which its log holds anything; none while it runs.
    pub last: Option<u64>,
    /// How long ago its log was written to; none while it runs.
    pub idle: Option<Duration>,
    /// Whether it has a vote.
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
    /// Up to which slot the log was taken over; none if somebody else had decreed it before.
    pub last: Option<u64>,
    /// Slots that were taken over without anybody's knowing them chosen; likewise.
    pub taken_over: Option<u64>,
    /// Slots that no survivor knew; likewise.
    pub empty: Option<u64>,
}

impl Cluster {
    /// Looks at the survivors and changes nothing.
    ///
    /// # Errors
    /// When the cluster was not formed from here, a name is none of its nodes', somebody who is
    /// said to be lost is there, a survivor is not, or the survivors are a quorum.
    pub fn look_at_survivors(&self, lost: &[String]) -> Result<Look, Failure> {
        let state = self.formed()?;
        let (survivors, found) = self.survivors(&state, lost)?;
        let running: Vec<&NodeSpec> = survivors
            .iter()
            .zip(&found)
            .filter_map(|(node, found)| found.running.map(|_| *node))
            .collect();
        let answers = self.asker()?.ask(&running, ASK_LIMIT);
        let mut seen = BTreeMap::new();
        let mut runs = Vec::new();
        for (node, found) in survivors.iter().zip(&found) {
            let told = answers.get(&node.name).and_then(|answer| answer.as_ref().ok());
            let remains = match (found.running, told) {
                (None, _) if found.log => self.survey(node)?,
                (None, _) => Remains::default(),
                (Some(_), told) => {
                    runs.push(node.name.clone());
                    let chosen = told.map_or(0, |status| status.chosen_slot);
                    Remains { chosen, last: chosen, ..Remains::default() }
                }
            };
            seen.insert(node.name.clone(), remains);
        }
        let survivor = |name: &str| {
            let remains = &seen[name];
            let running = runs.iter().any(|node| node == name);
            let founder = state.node(name);
            Survivor {
                node: name.to_owned(),
                running,
                chosen: remains.chosen,
                last: (!running).then_some(remains.last),
                idle: remains.idle,
                votes: founder.is_some_and(|node| node.generation.is_some()) && !remains.fenced,
            }
        };
        let survivors = ranking(&seen).into_iter().map(survivor).collect();
        Ok(Look { survivors, loses_nothing: loses_nothing(&state, lost) })
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
        let mut issuer = self.issuer()?;
        let mut state = self.formed()?;
        let (survivors, found) = self.survivors(&state, lost)?;
        let _exclusive = self.exclusive("recover")?;
        let begun = begun(&state, &from.name, lost)?;
        let waiting = self.waiting_decree(from)?;
        let decision = match (&begun, waiting) {
            (Some(_), true) => None,
            _ => {
                say(&format!("stop {} survivors", survivors.len()));
                self.halt(&survivors, Halt::Gently)?;
                say("read what their logs hold");
                let held = self.held(&survivors, &found)?;
                decision(&state, &held, &from.name, lost, begun.as_ref())?
            }
        };
        let recovery = match (begun, &decision) {
            (Some(begun), _) => begun,
            (None, Some(decision)) => {
                say(&format!("give up {}", lost.join(", ")));
                let recovery = recovery(&from.name, lost, decision);
                state.recoveries.push(recovery.clone());
                state.save(&self.keys_dir).map_err(state_failure)?;
                recovery
            }
            (None, None) => unreachable!("nothing is decreed that was not begun"),
        };
        self.revoke_lost(&mut issuer, &recovery.lost, say)?;
        let not_there = self.inventory.nodes.iter().map(|node| node.name.clone());
        let not_there: Vec<String> = not_there.filter(|name| state.lost(name).is_some()).collect();
        self.deliver_keys(issuer.keys(), &not_there, say)?;
        if let Some(decision) = &decision {
            say(&format!("{}: decree configuration {}", from.name, recovery.configuration));
            self.hand_decree(from, decision)?;
        }
        self.start_survivors(from, &survivors, say)?;
        for recovery in &mut state.recoveries {
            recovery.done = true;
        }
        state.save(&self.keys_dir).map_err(state_failure)?;
        issuer.write_ssh_config(&self.ssh_targets()).map_err(keys_failure)?;
        Ok(Recovered {
            from: from.name.clone(),
            members: state.members().map(|node| node.name.clone()).collect(),
            configuration: recovery.configuration,
            last: decision.as_ref().map(|decision| decision.decree.last.0),
            taken_over: decision.as_ref().map(|decision| decision.taken_over),
            empty: decision.as_ref().map(|decision| decision.empty),
        })
    }

    /// Those that are not lost, and how their hosts look.
    fn survivors(
        &self,
        state: &ClusterState,
        lost: &[String],
    ) -> Result<(Vec<&NodeSpec>, Vec<Found>), Failure> {
        if let Some(name) = lost.iter().find(|name| state.node(name).is_none()) {
            let message = format!("{name} is no node of cluster {}", self.inventory.cluster);
            let names = state.members().map(|node| node.name.as_str()).collect::<Vec<_>>();
            let hint = format!("its nodes are {}", names.join(", "));
            return Err(Failure::new(Code::NotFound, message, hint));
        }
        let is_open = state.recoveries.iter().any(|recovery| !recovery.done);
        if is_quorum(state, lost) && !is_open {
            let message = "those that are not lost are a quorum: there is nothing to recover from";
            let hint = "start them: paxos-ctl deploy; see paxos-ctl status";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        self.must_be_gone(state, lost)?;
        let stays = |founder: &&Founder| !lost.contains(&founder.name);
        let mut survivors = Vec::new();
        for founder in state.members().filter(stays) {
            survivors.push(self.inventory.node(&founder.name).ok_or_else(|| {
                let message = format!("{} is a member and not in the inventory", founder.name);
                let hint = "put it back into the inventory, or name it among the lost";
                Failure::new(Code::BadSettings, message, hint)
            })?);
        }
        let nothing = Wanted { executable: None, files: &[] };
        let found = at_once(&survivors, |node| self.host.find(&Place::of(node), &nothing));
        let found: Result<Vec<Found>, Failure> = found
            .into_iter()
            .map(|found| {
                found.map_err(|error| {
                    let hint = format!("{}; or name {} among the lost", error.hint, error.node);
                    Failure { hint, ..host_failure(error) }
                })
            })
            .collect();
        Ok((survivors, found?))
    }

    /// A node whose host answers and has its log may vote again, and so is not lost. For one that
    /// was given up already there is no way back.
    fn must_be_gone(&self, state: &ClusterState, lost: &[String]) -> Result<(), Failure> {
        let new = lost.iter().filter(|name| state.lost(name).is_none());
        let named: Vec<&NodeSpec> = new.filter_map(|name| self.inventory.node(name)).collect();
        let nothing = Wanted { executable: None, files: &[] };
        let found = at_once(&named, |node| self.host.find(&Place::of(node), &nothing));
        let is_there = |found: Found| found.log || found.running.is_some();
        let there = named
            .iter()
            .zip(found)
            .find(|(_, found)| found.as_ref().is_ok_and(|found| is_there(found.clone())));
        match there {
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

    /// Whether a decree lies on the host of the one to go on from and was not taken up.
    fn waiting_decree(&self, from: &NodeSpec) -> Result<bool, Failure> {
        let files = [names::DECREE.to_owned()];
        let wanted = Wanted { executable: None, files: &files };
        let found = self.host.find(&Place::of(from), &wanted).map_err(host_failure)?;
        let text = found.files.into_iter().flatten().next().map(String::from_utf8);
        Ok(text.and_then(Result::ok).is_some_and(|text| decode_decree(&text).is_ok()))
    }

    /// What the survivors' logs hold, now that they are stopped.
    fn held(
        &self,
        survivors: &[&NodeSpec],
        found: &[Found],
    ) -> Result<BTreeMap<String, Remains>, Failure> {
        let with_log = survivors.iter().zip(found).collect::<Vec<_>>();
        let read = at_once(&with_log, |(node, found)| match found.log {
            true => self.survey(node),
            false => Ok(Remains::default()),
        });
        let named = survivors.iter().zip(read);
        named.map(|(node, remains)| Ok((node.name.clone(), remains?))).collect()
    }

    /// No survivor lets the lost in any more.
    fn revoke_lost(
        &self,
        issuer: &mut Issuer,
        lost: &[String],
        say: Progress<'_>,
    ) -> Result<(), Failure> {
        let now = SystemTime::now();
        for name in lost {
            match issuer.revoke(&Target::Name(name.clone()), "lost for ever", now) {
                Ok(revoked) if revoked.changed => say(&format!("revoke the key of {name}")),
                // One that never had a certificate is let in by nobody.
                Ok(_) | Err(KeysError::NotIssued(_)) => {}
                Err(error) => return Err(keys_failure(error)),
            }
        }
        Ok(())
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
                say(&format!("{}: start", node.name));
                self.host.start(&Place::of(node)).map_err(host_failure)?;
            }
            self.wait_answers(&asker, &[node])?;
        }
        say("wait until they serve");
        self.wait_leader(&asker, &order)?;
        for node in &order {
            self.wait_caught_up(&asker, node)?;
        }
        self.must_be_alone(&asker.ask(&order, ASK_LIMIT), &order)
    }

    /// Everybody who answers must know the survivors for all members that there are.
    fn must_be_alone(
        &self,
        answers: &BTreeMap<String, super::observe::Answer>,
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

/// The recovery that was begun and is not done; it must be this one.
fn begun(state: &ClusterState, from: &str, lost: &[String]) -> Result<Option<Recovery>, Failure> {
    let Some(open) = state.recoveries.iter().find(|recovery| !recovery.done) else {
        return Ok(None);
    };
    let same = open.from == from && lost.iter().all(|name| open.lost.contains(name));
    match same {
        true => Ok(Some(open.clone())),
        false => {
            let lost = open.lost.join(",");
            let message = format!(
                "a recovery from {} without {lost} was begun at {} and is not done",
                open.from, open.at
            );
            let hint = format!(
                "go on with it: paxos-ctl recover --from {} --lost {lost} --confirm {}",
                open.from, state.cluster
            );
            Err(Failure::new(Code::BadSettings, message, hint))
        }
    }
}

/// What to decree; none if the log of `from` knows already what was `begun`.
fn decision(
    state: &ClusterState,
    held: &BTreeMap<String, Remains>,
    from: &str,
    lost: &[String],
    begun: Option<&Recovery>,
) -> Result<Option<Decision>, Failure> {
    let knows = |begun: &Recovery| {
        held.get(from).is_some_and(|remains| remains.configuration >= begun.configuration)
    };
    if begun.is_some_and(knows) {
        return Ok(None);
    }
    decide(state, held, from, lost).map(Some).map_err(|why| {
        let best = ranking(held).into_iter().next().unwrap_or("none");
        let hint = format!(
            "the survivor that holds most is {best}; the survivors were stopped: paxos-ctl deploy \
             starts them as they were"
        );
        Failure::new(Code::BadSettings, why, hint)
    })
}

fn recovery(from: &str, lost: &[String], decision: &Decision) -> Recovery {
    let configuration = &decision.decree.configuration;
    let size = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
    Recovery {
        configuration: configuration.number.0,
        from: from.to_owned(),
        lost: lost.to_vec(),
        at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        phase1: size(configuration.quorums().phase1()),
        phase2: size(configuration.quorums().phase2()),
        done: false,
    }
}
