//! `paxos-ctl check`: asks all hosts how they are, has each log in at each other one, and judges.
//!
//! Hosts are asked at once. One that is not reached is a row, and the others are asked all the
//! same. What is left behind is the program on each host, at the place where a deployment puts it,
//! and nothing else; nodes that run are looked at and dialled, and go on.
//!
//! The cost: an ssh login for each host, as with every command, and a handshake for each pair of
//! them and direction.

use super::examine::{Examined, Unexamined};
use super::links::{Tried, judge_links};
use super::probe::Disk;
use super::trial_login::{Dial, LISTEN_LIMIT};
use super::{
    HostReport, Known, Offset, Report, Row, judge_clocks, judge_cluster, judge_host, judge_port,
    judge_unexamined,
};
use crate::controller::deploy::{Cluster, Progress, state_failure};
use crate::controller::host::{HostError, Place};
use crate::controller::inventory::NodeSpec;
use crate::controller::state::ClusterState;
use crate::controller::wait::at_once;
use crate::transport::authority;
use crate::transport::identity::host_principal;
use crate::wire::failure::Failure;
use std::time::{Duration, Instant};

/// Dials are begun no later than this after somebody began to listen: the last of them must be
/// through before [`LISTEN_LIMIT`].
const DIAL_WITHIN: Duration = LISTEN_LIMIT.saturating_sub(Duration::from_secs(15));

/// A host that said how it is.
struct Subject<'a> {
    node: &'a NodeSpec,
    place: Place,
    examined: Examined,
}

/// Who can be dialled, and what an attempt to stand in came to.
struct Ear<'a> {
    node: &'a NodeSpec,
    dial: Option<Dial>,
    refused: Option<HostError>,
}

/// What came of each node's logins.
type TriedFrom<'a> = Vec<(&'a str, Tried)>;

impl Cluster {
    /// Looks at every host, for a table of what is as it should be and what is not.
    ///
    /// # Errors
    /// When the controller's own files cannot be read. What is wrong with a host is in the report.
    pub fn check(&self, say: Progress<'_>) -> Result<Report, Failure> {
        let keys = self.keys()?;
        let state = ClusterState::load(&self.keys_dir, &self.inventory.cluster);
        let state = state.map_err(state_failure)?;
        let authorities = keys.iter().flat_map(|keys| keys.host_authorities());
        let authorities: Vec<String> =
            authorities.map(|key| authority::public_line(&key)).collect();
        let nodes: Vec<&NodeSpec> = self.inventory.nodes.iter().collect();
        say(&format!("look at {}", counted(nodes.len(), "host")))?;
        let examined = at_once(&nodes, |&node| {
            let place = Place::of(node);
            let executable = self.executable(state.as_ref(), node);
            let examined = self.host.examine(&place, &executable);
            examined.map(|examined| Subject { node, place, examined })
        });
        let subjects: Vec<&Subject<'_>> = examined.iter().flatten().collect();
        let (ears, tried) = self.try_logins(&subjects, &authorities, say)?;
        let known =
            Known { cluster: &self.inventory.cluster, state: state.as_ref(), keys: keys.as_ref() };
        Ok(self.judge(&examined, &ears, &tried, known))
    }

    /// Has everybody log in at everybody else. Whoever stands in for a node is dismissed, or, if it
    /// does not come to that, ends with the agent of its host.
    fn try_logins<'a>(
        &self,
        subjects: &[&Subject<'a>],
        authorities: &[String],
        say: Progress<'_>,
    ) -> Result<(Vec<Ear<'a>>, TriedFrom<'a>), Failure> {
        let callers =
            subjects.iter().filter_map(|subject| subject.examined.probed.caller.clone().ok());
        let callers: Vec<String> = callers.collect();
        let began = Instant::now();
        let ears = at_once(subjects, |subject| self.ear(subject, authorities, &callers));
        let dials: Vec<&Dial> = ears.iter().filter_map(|ear| ear.dial.as_ref()).collect();
        if dials.len() > 1 || subjects.len() > 1 {
            say(&format!("log in from each to each of {}", counted(dials.len(), "node")))?;
        }
        let tried = at_once(subjects, |subject| {
            let others = dials.iter().filter(|dial| dial.node != subject.node.name);
            let others: Vec<Dial> = others.map(|dial| (*dial).clone()).collect();
            if began.elapsed() > DIAL_WITHIN {
                return Tried::TooLate;
            }
            match others.is_empty() {
                true => Tried::Dialled(Vec::new()),
                false => match self.host.dial(&subject.place, &others) {
                    Ok(dialled) => Tried::Dialled(dialled),
                    Err(error) => Tried::Failed(error),
                },
            }
        });
        at_once(subjects, |subject| {
            let listens = |ear: &Ear<'_>| {
                ear.node.name == subject.node.name
                    && ear.dial.as_ref().is_some_and(|dial| dial.stand_in)
            };
            if ears.iter().any(listens) {
                // A host that is gone by now took its stand-in with it.
                let _gone = self.host.dismiss(&subject.place);
            }
        });
        let names = subjects.iter().map(|subject| subject.node.name.as_str());
        Ok((ears, names.zip(tried).collect()))
    }

    /// The node if it runs, else somebody in its place.
    fn ear<'a>(
        &self,
        subject: &Subject<'a>,
        authorities: &[String],
        callers: &[String],
    ) -> Ear<'a> {
        let (node, found) = (subject.node, &subject.examined.probed.found);
        let dial = |authorities: &[String], stand_in| Dial {
            node: node.name.clone(),
            host: node.host.clone(),
            port: node.port,
            principal: host_principal(&node.name, &self.inventory.cluster),
            authorities: authorities.to_vec(),
            stand_in,
        };
        if found.running.is_some() {
            return Ear { node, dial: Some(dial(authorities, false)), refused: None };
        }
        if !found.held.is_empty() {
            return Ear { node, dial: None, refused: None };
        }
        match self.host.stand_in(&subject.place, &self.inventory.cluster, callers) {
            Ok(authority) => Ear { node, dial: Some(dial(&[authority], true)), refused: None },
            Err(error) => Ear { node, dial: None, refused: Some(error) },
        }
    }

    fn judge(
        &self,
        examined: &[Result<Subject<'_>, Unexamined>],
        ears: &[Ear<'_>],
        tried: &[(&str, Tried)],
        known: Known<'_>,
    ) -> Report {
        let subjects: Vec<&Subject<'_>> = examined.iter().flatten().collect();
        let offsets = subjects.iter().map(|subject| {
            let name = subject.node.name.as_str();
            (name, Offset::of(&subject.examined))
        });
        let clocks = judge_clocks(&offsets.collect::<Vec<_>>());
        let nodes: Vec<&NodeSpec> = self.inventory.nodes.iter().collect();
        let links = judge_links(&nodes, tried);
        let mut rows: Vec<Row> = Vec::new();
        for (node, examined) in nodes.iter().zip(examined) {
            let of_node = |row: &&Row| row.node == node.name;
            match examined {
                Err(unexamined) => rows.extend(judge_unexamined(node, unexamined)),
                Ok(Subject { examined: Examined { probed, .. }, .. }) => {
                    let refused = ears.iter().find(|ear| ear.node.name == node.name);
                    let refused = refused.and_then(|ear| ear.refused.as_ref());
                    rows.extend(judge_host(node, probed));
                    rows.push(judge_port(node, &probed.found, refused));
                    rows.push(judge_cluster(node, &probed.found, known));
                    rows.extend(clocks.iter().filter(of_node).cloned());
                }
            }
            rows.extend(links.iter().filter(of_node).cloned());
        }
        let of_none = |row: &&Row| self.inventory.node(&row.node).is_none();
        rows.extend(clocks.iter().filter(of_none).cloned());
        let hosts = nodes.iter().zip(examined);
        let hosts = hosts.map(|(node, examined)| host_report(node, examined.as_ref().ok()));
        Report::new(&self.inventory.cluster, hosts.collect(), rows)
    }
}

fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

fn host_report(node: &NodeSpec, subject: Option<&Subject<'_>>) -> HostReport {
    let probed = subject.map(|subject| &subject.examined.probed);
    let offset = subject.map(|subject| Offset::of(&subject.examined));
    let seconds = |micros: i64| micros as f64 / 1e6;
    let p99 = |disk: &Disk| {
        let syncs = disk.syncs.as_ref()?.as_ref().ok()?;
        Some(syncs.p99_micros as f64 / 1e6)
    };
    HostReport {
        node: node.name.clone(),
        address: node.address(),
        examined: subject.is_some(),
        architecture: probed.map(|probed| probed.architecture.clone()),
        libc: probed.and_then(|probed| probed.libc.clone()),
        clock_offset_seconds: offset.map(|offset| seconds(offset.micros)),
        clock_uncertainty_seconds: offset.map(|offset| seconds(offset.uncertain)),
        sync_p99_seconds: probed.and_then(|probed| p99(&probed.disk)),
        free_bytes: probed.map(|probed| probed.disk.free_bytes),
        memory_bytes: probed.and_then(|probed| probed.memory),
        open_files: probed.and_then(|probed| probed.open_files),
        pid: probed.and_then(|probed| probed.found.running),
    }
}
