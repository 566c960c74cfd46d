//! What `paxos-ctl plan` prints, and `deploy` before it begins.

use super::ctl::Reply;
use super::exit;
use crate::controller::deploy::Cluster;
use crate::controller::plan::{Obstacle, Plan, plan};
use crate::wire::failure::Failure;
use serde_json::{Value, json};

/// Exit status of a plan with changes in it.
pub(super) const CHANGES_PENDING: u8 = 2;

pub(super) fn plan_text(plan: &Plan, cluster: &str) -> String {
    let mut text = String::new();
    for note in &plan.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    match plan.is_empty() {
        true if plan.obstacles.is_empty() => {
            text.push_str(&format!("cluster {cluster} is as it should be; nothing to do\n"));
        }
        true => {}
        false => text.push_str(&format!("to do for cluster {cluster}:\n")),
    }
    for step in &plan.steps {
        text.push_str(&format!("  {step}\n"));
    }
    for obstacle in &plan.obstacles {
        text.push_str(&format!("cannot: {obstacle}\n  next: {}\n", obstacle.hint()));
    }
    text
}

pub(super) fn plan_json(plan: &Plan, cluster: &str) -> Value {
    let obstacle = |o: &Obstacle| json!({"message": o.to_string(), "hint": o.hint()});
    json!({
        "ok": true,
        "cluster": cluster,
        "changes": plan.steps.len(),
        "steps": plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "obstacles": plan.obstacles.iter().map(obstacle).collect::<Vec<_>>(),
        "notes": plan.notes,
    })
}

fn plan_exit(plan: &Plan) -> u8 {
    // What somebody has to mend in the inventory comes before what may come back by itself.
    match (plan.obstacles.iter().map(|obstacle| obstacle.code().exit()).max(), plan.is_empty()) {
        (Some(exit), _) => exit,
        (None, false) => CHANGES_PENDING,
        (None, true) => exit::DONE,
    }
}

pub(super) fn show_plan(cluster: &Cluster, limit: Option<&str>) -> Result<Reply, Failure> {
    let only = limit.map(|pattern| cluster.inventory.matching(pattern)).transpose()?;
    let plan = plan(&cluster.inventory, &cluster.facts()?).limited(only.as_ref());
    let name = &cluster.inventory.cluster;
    Ok(Reply { exit: plan_exit(&plan), text: plan_text(&plan, name), json: plan_json(&plan, name) })
}
