//! `paxos-ctl keys rotate`, `keys rollback` and `keys resume`: an authority or the key of a node is
//! replaced, certificates are renewed, and what was cut short is gone on with.

use super::ctl::Reply;
use super::ctl_audit::journaled;
use super::ctl_deploy::speaker;
use super::ctl_keys::{delivered_json, delivered_text, existing, keys_failure};
use super::exit;
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::journal::Run;
use crate::controller::keys::authorities::Phase;
use crate::controller::keys::delivery::Reached;
use crate::controller::keys::rotate::{Goal, Rotated};
use crate::transport::bundle::AuthorityRole;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use clap::{Args, ValueEnum};
use serde_json::json;

/// What is to be rotated.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct What {
    /// The authority of this kind
    #[arg(long, value_name = "ROLE")]
    authority: Option<AuthorityWord>,
    /// The key of this node; the new one is made on its host
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// The host certificates of all nodes, by the same authority
    #[arg(long)]
    hosts: bool,
    /// The peer certificates of all nodes, by the same authority
    #[arg(long)]
    peers: bool,
    /// The certificates of people in the keys directory, by the same authority
    #[arg(long)]
    operators: bool,
}

/// A kind of authority, as it is typed.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum AuthorityWord {
    Host,
    Peer,
    Operator,
    Root,
}

impl From<AuthorityWord> for AuthorityRole {
    fn from(word: AuthorityWord) -> AuthorityRole {
        match word {
            AuthorityWord::Host => AuthorityRole::Host,
            AuthorityWord::Peer => AuthorityRole::Peer,
            AuthorityWord::Operator => AuthorityRole::Operator,
            AuthorityWord::Root => AuthorityRole::Root,
        }
    }
}

pub(super) fn rotate_what(
    cluster: &Cluster,
    what: &What,
    goal: Goal,
    left_out: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    match what {
        What { authority: Some(word), .. } => {
            rotate(cluster, (*word).into(), goal, left_out, format)
        }
        What { node: Some(node), .. } => rotate_node(cluster, node, left_out, format),
        What { hosts: true, .. } => renew(cluster, AuthorityRole::Host, left_out, format),
        What { peers: true, .. } => renew(cluster, AuthorityRole::Peer, left_out, format),
        What { .. } => renew(cluster, AuthorityRole::Operator, left_out, format),
    }
}

/// In the journal of a run, before the name of a node.
const NODE_WORD: &str = "--node";

/// In the journal of a run, before a kind of certificates.
const ALL_WORD: &str = "--all";

fn rotate_node(
    cluster: &Cluster,
    node: &str,
    left_out: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    let words = [NODE_WORD.to_owned(), epoch(cluster)?.to_string(), node.to_owned()];
    let work = |say: Progress<'_>| cluster.rotate_node_key(node, left_out, say);
    let replaced = journaled(cluster, "keys rotate", &words, &mut speaker(format), work)?;
    let (key, lines) = (&replaced.key, replaced.revoked.lines.join(", "));
    let epoch = replaced.revoked.epoch;
    let text = format!(
        "the key of {node} is {key}; revoked {lines}; bundle epoch {epoch}\n{}",
        delivered_text(&replaced.delivered)
    );
    let json = json!({
        "ok": true,
        "node": node,
        "key": key,
        "revoked": replaced.revoked.lines,
        "epoch": epoch,
        "nodes": delivered_json(&replaced.delivered),
    });
    Ok(Reply { exit: exit::DONE, text, json })
}

fn renew(
    cluster: &Cluster,
    role: AuthorityRole,
    left_out: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    let words = [ALL_WORD.to_owned(), String::new(), role.name().to_owned()];
    let work = |say: Progress<'_>| cluster.renew_role(role, left_out, say);
    let renewed = journaled(cluster, "keys rotate", &words, &mut speaker(format), work)?;
    let names = match renewed.names.is_empty() {
        true => "nobody".to_owned(),
        false => renewed.names.join(", "),
    };
    let text = format!(
        "renewed the {role} certificates of {names}; those before are valid until they run out\n{}",
        delivered_text(&renewed.delivered)
    );
    let json = json!({
        "ok": true,
        "kind": role.name(),
        "renewed": renewed.names,
        "nodes": delivered_json(&renewed.delivered),
    });
    Ok(Reply { exit: exit::DONE, text, json })
}

fn rotate(
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
    take_over: bool,
    format: Format,
) -> Result<Reply, Failure> {
    let work = |say: Progress<'_>| cluster.resume_keys(goal, left_out, take_over, say);
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
    let role = |at: usize| AuthorityRole::ALL.into_iter().find(|role| role.name() == word(at));
    match run.verb.as_str() {
        "keys rotate" if word(0) == ALL_WORD => match role(2) {
            Some(role) => renew(cluster, role, &[], format),
            None => go_on(cluster, Goal::Done, &[], false, format),
        },
        // Begun, it is noted beside the keys.
        "keys rotate" if word(0) == NODE_WORD && began(1) => {
            go_on(cluster, Goal::Done, &[], false, format)
        }
        "keys rotate" if word(0) == NODE_WORD => rotate_node(cluster, word(2), &[], format),
        "keys rotate" => {
            let goals = [Goal::Learned, Goal::Switched, Goal::Done];
            let goal = goals.into_iter().find(|goal| goal_name(*goal) == word(2));
            let (Some(goal), Some(role)) = (goal, role(0)) else {
                let message = format!("run {} does not say what it was to rotate", run.id);
                let hint = "paxos-ctl keys resume goes on with a rotation that is under way";
                return Err(Failure::new(Code::BadSettings, message, hint));
            };
            match began(1) {
                true => go_on(cluster, goal, &[], false, format),
                false => rotate(cluster, role, goal, &[], format),
            }
        }
        "keys rollback" if !began(0) => rollback(cluster, &[], format),
        // What was revoked already is delivered once more.
        "keys revoke" => super::ctl_keys::revoke(cluster, word(0), word(1), false, format),
        "keys renew" => super::ctl_keys::renew(cluster, &run.words, format),
        _ => go_on(cluster, Goal::Done, &[], false, format),
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
