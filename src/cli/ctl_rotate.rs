//! `paxos-ctl keys rotate`, `keys rollback` and `keys resume`: an authority is replaced, and what
//! was cut short is gone on with.

use super::ctl::Reply;
use super::ctl_audit::journaled;
use super::ctl_deploy::speaker;
use super::ctl_keys::{delivered_json, delivered_text, existing, keys_failure};
use super::exit;
use crate::controller::authorities::Phase;
use crate::controller::delivery::Reached;
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::journal::Run;
use crate::controller::rotate::{Goal, Rotated};
use crate::transport::bundle::AuthorityRole;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use serde_json::json;

pub(super) fn rotate(
    cluster: &Cluster,
    role: AuthorityRole,
    goal: Goal,
    left_out: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    // By the epoch, whoever resumes this sees whether it began.
    let words = [role.name().to_owned(), epoch(cluster)?.to_string(), goal_name(goal).to_owned()];
    let work = |say: Progress<'_>| cluster.rotate_keys(role, goal, left_out, say);
    let rotated = journaled(cluster, "keys rotate", &words, &mut speaker(format), work)?;
    told(cluster, &rotated)
}

pub(super) fn rollback(
    cluster: &Cluster,
    left_out: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    let words = [epoch(cluster)?.to_string()];
    let work = |say: Progress<'_>| cluster.roll_back_keys(left_out, say);
    let rotated = journaled(cluster, "keys rollback", &words, &mut speaker(format), work)?;
    told(cluster, &rotated)
}

pub(super) fn go_on(
    cluster: &Cluster,
    goal: Goal,
    left_out: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    let work = |say: Progress<'_>| cluster.resume_keys(goal, left_out, say);
    let (rotated, delivered) = journaled(cluster, "keys resume", &[], &mut speaker(format), work)?;
    match rotated {
        Some(rotated) => told(cluster, &rotated),
        None => {
            let json = json!({"ok": true, "nodes": delivered_json(&delivered)});
            Ok(Reply { exit: exit::DONE, text: delivered_text(&delivered), json })
        }
    }
}

/// Goes on with a run of `keys …` that was cut short.
pub(super) fn resume(cluster: &Cluster, run: &Run, format: Format) -> Result<Reply, Failure> {
    let word = |at: usize| run.words.get(at).map(String::as_str).unwrap_or_default();
    let now = epoch(cluster)?;
    let began = |at: usize| word(at).parse().is_ok_and(|before: u64| now > before);
    match run.verb.as_str() {
        "keys rotate" => {
            let goals = [Goal::Learned, Goal::Switched, Goal::Done];
            let goal = goals.into_iter().find(|goal| goal_name(*goal) == word(2));
            let role = AuthorityRole::ALL.into_iter().find(|role| role.name() == word(0));
            let (Some(goal), Some(role)) = (goal, role) else {
                let message = format!("run {} does not say what it was to rotate", run.id);
                let hint = "paxos-ctl keys resume goes on with a rotation that is under way";
                return Err(Failure::new(Code::BadSettings, message, hint));
            };
            match began(1) {
                true => go_on(cluster, goal, &[], format),
                false => rotate(cluster, role, goal, &[], format),
            }
        }
        "keys rollback" if !began(0) => rollback(cluster, &[], format),
        _ => go_on(cluster, Goal::Done, &[], format),
    }
}

fn epoch(cluster: &Cluster) -> Result<u64, Failure> {
    Ok(existing(cluster)?.bundle().epoch)
}

fn goal_name(goal: Goal) -> &'static str {
    match goal {
        Goal::Learned => "learned",
        Goal::Switched => "switched",
        Goal::Done => "done",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Settled => "settled",
        Phase::Learning => "learned",
        Phase::Switched => "switched",
        Phase::Returning => "returning",
        Phase::Forgetting => "forgetting",
        Phase::Dropping => "dropping",
    }
}

fn told(cluster: &Cluster, rotated: &Rotated) -> Result<Reply, Failure> {
    let keys = existing(cluster)?;
    let (role, epoch) = (rotated.role, keys.bundle().epoch);
    let signer = keys.signer(role).map_err(keys_failure)?;
    let whoever = match rotated.delivered.iter().any(|one| one.reached == Reached::LeftOut) {
        true => "every node that was not left out",
        false => "every node",
    };
    let mut text = match rotated.phase {
        Phase::Learning => format!(
            "{whoever} believes a new {role} authority too, and {signer} signs; bundle epoch \
             {epoch}\n"
        ),
        Phase::Switched => format!(
            "the {role} authority {signer} signs, and the one before is believed still; bundle \
             epoch {epoch}\n"
        ),
        _ => format!("the {role} authority is {signer}; bundle epoch {epoch}\n"),
    };
    text.push_str(&delivered_text(&rotated.delivered));
    if !rotated.people.is_empty() {
        let people = rotated.people.join(", ");
        let since = match rotated.phase {
            Phase::Settled => "is worthless now",
            _ => "is worthless once the old authority is forgotten",
        };
        text.push_str(&format!(
            "certified anew: {people}; a copy of an older certificate {since}\n"
        ));
    }
    if rotated.phase != Phase::Settled {
        text.push_str("go on with: paxos-ctl keys resume; or back with: paxos-ctl keys rollback\n");
    }
    let json = json!({
        "ok": true,
        "authority": role.name(),
        "stage": phase_name(rotated.phase),
        "signs": signer,
        "epoch": epoch,
        "people": rotated.people,
        "nodes": delivered_json(&rotated.delivered),
    });
    Ok(Reply { exit: exit::DONE, text, json })
}
