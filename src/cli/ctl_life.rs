//! What `paxos-ctl` does with a cluster that stands: status, verify, stop, kill, restart, destroy.

use super::ctl::Reply;
use super::ctl_audit::{journaled, told};
use super::ctl_deploy::speaker;
use super::exit;
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::host::Halt;
use crate::controller::operate::Halting;
use crate::controller::verify::verdict::report;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use serde_json::{Value, json};

pub(super) fn status(cluster: &Cluster) -> Result<Reply, Failure> {
    let overview = cluster.status()?;
    let mut json = serde_json::to_value(&overview).map_err(|error| {
        let message = format!("the status cannot be written as JSON: {error}");
        Failure::new(Code::Internal, message, "report this fault")
    })?;
    json["ok"] = json!(true);
    Ok(Reply { exit: overview.exit(), text: overview.to_table(), json })
}

pub(super) fn verify(cluster: &Cluster, passive: bool) -> Result<Reply, Failure> {
    let verdicts = cluster.verify(passive)?;
    let exit = match verdicts.iter().all(|verdict| verdict.pass) {
        true => exit::DONE,
        false => Code::Internal.exit(),
    };
    Ok(Reply { exit, text: report(&verdicts), json: json!(verdicts) })
}

pub(super) fn halt(cluster: &Cluster, names: &[String], how: Halt) -> Result<Reply, Failure> {
    let nodes = cluster.named(names)?;
    let (verb, halted) = match how {
        Halt::Gently => ("stopped", cluster.stop(&nodes)?),
        // Also while somebody else is at work, who may be why it has to be.
        Halt::AtOnce => ("killed", cluster.halt(&nodes, how)?),
    };
    let line = |halting: &Halting| match halting.pid {
        Some(pid) => format!("{}: {verb} (pid {pid})\n", halting.node),
        None => format!("{}: was not running\n", halting.node),
    };
    let nodes: Vec<Value> = halted.iter().map(|h| json!({"name": h.node, "pid": h.pid})).collect();
    let text = halted.iter().map(line).collect();
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "nodes": nodes}) })
}

pub(super) fn kill(
    cluster: &Cluster,
    mut names: Vec<String>,
    leader: bool,
) -> Result<Reply, Failure> {
    match (leader, names.is_empty()) {
        (true, true) => names.push(cluster.leader()?.name.clone()),
        (false, false) => {}
        (true, false) => {
            let hint = "give either, not both";
            return Err(Failure::usage("both --leader and a node were named", hint));
        }
        (false, true) => {
            let hint = "paxos-ctl kill NODE, or paxos-ctl kill --leader";
            return Err(Failure::usage("nobody was named", hint));
        }
    }
    halt(cluster, &names, Halt::AtOnce)
}

pub(super) fn restart(
    cluster: &Cluster,
    names: &[String],
    force: bool,
    format: Format,
) -> Result<Reply, Failure> {
    let restart = |say: Progress<'_>| cluster.restart(names, force, say);
    let done = journaled(cluster, "restart", names, &mut speaker(format), restart)?;
    let text = format!("restarted {}\n", done.join(", "));
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "restarted": done}) })
}

pub(super) fn destroy(
    cluster: &Cluster,
    confirm: Option<&str>,
    format: Format,
) -> Result<Reply, Failure> {
    let name = &cluster.inventory.cluster;
    let Some(confirm) = confirm else {
        let message = format!("this ends cluster {name} and deletes all its data and keys");
        return Err(Failure::usage(message, format!("if you mean it: --confirm {name}")));
    };
    let again = format!("go on with: paxos-ctl destroy --confirm {name}");
    let destroy = |say: Progress<'_>| cluster.destroy(confirm, say);
    let left = told(cluster, &mut speaker(format), None, again, |_step| {}, destroy)?;
    let mut text = format!("cluster {name} is gone\n");
    for path in &left {
        text.push_str(&format!(
            "left alone, for no node and no deploy made it: {}\n",
            path.display()
        ));
    }
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "cluster": name, "left": left}) })
}
