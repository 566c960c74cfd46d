//! `paxos-ctl recover`: what is left of a cluster that lost its quorum for ever, and how it goes
//! on with that.

use super::ctl::Reply;
use super::ctl_audit::journaled;
use super::ctl_deploy::speaker;
use super::exit;
use super::plan::CHANGES_PENDING;
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::host::unit;
use crate::controller::journal::Run;
use crate::controller::recover::{Decreed, Look, Recovered, Survivor};
use crate::wire::failure::{Code, Failure};
use crate::wire::report::table;
use crate::wire::request::Format;
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn recover(
    cluster: &Cluster,
    file: &Path,
    from: Option<&str>,
    lost: &[String],
    confirm: Option<&str>,
    format: Format,
) -> Result<Reply, Failure> {
    let name = &cluster.inventory.cluster;
    let Some(confirm) = confirm else {
        return Ok(shown(cluster, file, lost, &cluster.look_at_survivors(lost)?));
    };
    if confirm != name {
        let message = format!("the cluster is {name}, but {confirm} was confirmed");
        let hint = format!("if the lost are lost for ever: --confirm {name}");
        return Err(Failure::usage(message, hint));
    }
    let Some(from) = from else {
        let message = "nobody was named to go on from";
        let hint = "paxos-ctl recover without --confirm says who holds most: --from NODE";
        return Err(Failure::usage(message, hint));
    };
    carry_out(cluster, from, lost, format)
}

/// Goes on with a recovery that was cut short.
pub(super) fn resume(cluster: &Cluster, run: &Run, format: Format) -> Result<Reply, Failure> {
    match run.words.split_first() {
        Some((from, lost)) if !lost.is_empty() => carry_out(cluster, from, lost, format),
        _ => {
            let message = format!("run {} does not say who was lost", run.id);
            let hint = "paxos-ctl recover, with what was given then, goes on";
            Err(Failure::new(Code::BadSettings, message, hint))
        }
    }
}

fn carry_out(
    cluster: &Cluster,
    from: &str,
    lost: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    let words = [&[from.to_owned()], lost].concat();
    let work = |say: Progress<'_>| cluster.recover(from, lost, say);
    let recovered = journaled(cluster, "recover", &words, &mut speaker(format), work)?;
    Ok(told(cluster, lost, &recovered))
}

fn shown(cluster: &Cluster, file: &Path, lost: &[String], look: &Look) -> Reply {
    let name = &cluster.inventory.cluster;
    let lost = lost.join(",");
    let row = |survivor: &Survivor| {
        let dash = || "-".to_owned();
        let idle = survivor.idle.map(|idle| format!("{} s ago", idle.as_secs()));
        [
            survivor.node.clone(),
            if survivor.running { "yes" } else { "no" }.to_owned(),
            if survivor.votes { "yes" } else { "no" }.to_owned(),
            survivor.chosen.map_or_else(dash, |chosen| chosen.to_string()),
            survivor.last.map_or_else(dash, |last| last.to_string()),
            idle.unwrap_or_else(dash),
        ]
    };
    let columns = ["SURVIVOR", "RUNS", "VOTES", "CHOSEN", "LAST", "WRITTEN"];
    let mut text = table(columns, look.survivors.iter().map(row));
    let best = look.survivors.first().map(|survivor| survivor.node.as_str()).unwrap_or_default();
    text.push_str(what_is_lost(look.loses_nothing));
    text.push_str(&format!(
        "nothing was changed; the survivors are stopped and read before anything is decreed\n\
         if {lost} are lost for ever:\n  \
         paxos-ctl recover {} --from {best} --lost {lost} --confirm {name}\n",
        file.display()
    ));
    let survivors = look.survivors.iter().map(|survivor| {
        json!({
            "name": survivor.node,
            "running": survivor.running,
            "votes": survivor.votes,
            "chosen_slot": survivor.chosen,
            "last_slot": survivor.last,
            "written_seconds": survivor.idle.map(|idle| idle.as_secs()),
        })
    });
    let json = json!({
        "ok": true,
        "cluster": name,
        "survivors": survivors.collect::<Vec<Value>>(),
        "loses_nothing": look.loses_nothing,
        "from": best,
    });
    Reply { exit: CHANGES_PENDING, text, json }
}

fn what_is_lost(nothing: bool) -> &'static str {
    match nothing {
        true => "every write that was acknowledged has a vote in a survivor's log: none is lost\n",
        false => {
            "the lost were a quorum: writes that only they accepted are gone, although they may \
             have been acknowledged; such are those after the survivors last heard of a leader\n"
        }
    }
}

fn told(cluster: &Cluster, lost: &[String], recovered: &Recovered) -> Reply {
    let name = &cluster.inventory.cluster;
    let (from, number) = (&recovered.from, recovered.configuration);
    let members = recovered.members.join(", ");
    let mut text =
        format!("cluster {name} goes on from {from}, under configuration {number}: {members}\n");
    if let Some(Decreed { last, taken_over, empty }) = recovered.decreed {
        text.push_str(&format!(
            "its log was taken over up to slot {last}, {taken_over} of them by votes alone, \
             {empty} of them without anything\n"
        ));
    }
    text.push_str(what_is_lost(recovered.loses_nothing));
    text.push_str(&format!(
        "given up: {}; take them out of the inventory, and paxos_quorum_phase1 and _phase2 with \
         them. If their hosts come back, end their nodes there before anybody uses them (with \
         systemctl disable --now {}, where systemd starts them with the host): they hold an old \
         end of the log, and do not know it\n",
        lost.join(", "),
        unit::name(name)
    ));
    if !recovered.unrevoked.is_empty() {
        text.push_str(&format!(
            "not revoked, for their keys are not known here: {}\n",
            recovered.unrevoked.join(", ")
        ));
    }
    let json = json!({
        "ok": true,
        "cluster": name,
        "from": from,
        "configuration": number,
        "members": recovered.members,
        "lost": lost,
        "loses_nothing": recovered.loses_nothing,
        "unrevoked": recovered.unrevoked,
        "last_slot": recovered.decreed.map(|decreed| decreed.last),
        "taken_over": recovered.decreed.map(|decreed| decreed.taken_over),
        "empty": recovered.decreed.map(|decreed| decreed.empty),
    });
    Reply { exit: exit::DONE, text, json }
}
