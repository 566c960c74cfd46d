//! `paxos-ctl deploy`, and what comes down to it: `upgrade`, `rollback`, `resume`. Each shows the
//! plan, asks, carries it out, and says what to type next.

use super::ctl::Reply;
use super::ctl_audit::{journaled, told};
use super::ctl_life::restart;
use super::ctl_recover::resume as resume_recovery;
use super::ctl_rotate::resume as resume_keys;
use super::plan::{plan_json, plan_text};
use super::progress::Speaker;
use super::{exit, output};
use crate::controller::deploy::{Cluster, Progress, obstacle_failure};
use crate::controller::plan::{Facts, Plan, plan};
use crate::controller::program::Program;
use crate::controller::upgrade::Way;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use serde_json::json;
use std::io::{BufRead, IsTerminal};
use std::path::Path;

/// How a command that changes the cluster was given.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// The inventory's path.
    pub(super) file: &'a Path,
    /// Without asking.
    pub(super) yes: bool,
    /// For people or programs.
    pub(super) format: Format,
}

pub(super) fn deploy(
    cluster: &Cluster,
    given: Given<'_>,
    limit: Option<&str>,
) -> Result<Reply, Failure> {
    let only = limit.map(|pattern| cluster.inventory.matching(pattern)).transpose()?;
    let facts = cluster.facts()?;
    let plan = plan(&cluster.inventory, &facts).limited(only.as_ref());
    show(cluster, &plan, given, "")?;
    let words = limit.map(|pattern| format!("--limit {pattern}"));
    carry_out(cluster, given, ("deploy", words.as_slice()), &plan, &facts)
}

/// Takes the cluster to another program, one node at a time.
pub(super) fn upgrade(
    cluster: &mut Cluster,
    given: Given<'_>,
    binary: &Path,
) -> Result<Reply, Failure> {
    let binary = std::fs::canonicalize(binary).map_err(|error| {
        let message = format!("cannot find the program {}: {error}", binary.display());
        Failure::new(Code::NotFound, message, "give the path of a paxos program: --binary FILE")
    })?;
    let program = cluster.upgradable_to(&binary)?;
    take_up(cluster, given, Way::Forward, &program, &binary)
}

/// Takes the cluster back to the program that it ran before, or to the end of the way back.
pub(super) fn rollback(cluster: &mut Cluster, given: Given<'_>) -> Result<Reply, Failure> {
    let program = cluster.previous()?;
    let binary = program.path(&cluster.keys_dir);
    take_up(cluster, given, Way::Back, &program, &binary)
}

fn take_up(
    cluster: &mut Cluster,
    given: Given<'_>,
    way: Way,
    program: &Program,
    binary: &Path,
) -> Result<Reply, Failure> {
    let verb = match way {
        Way::Forward => "upgrade",
        Way::Back => "rollback",
    };
    let before = cluster.facts()?;
    cluster.binary = Some(binary.to_owned());
    let wanted = plan(&cluster.inventory, &cluster.facts()?);
    cluster.binary = None;
    let heading = format!("{verb} to {}\n", program.name());
    show(cluster, &wanted, given, &heading)?;
    // From here on every deployment comes to the same end.
    cluster.choose(program, binary, way, &before)?;
    let facts = cluster.facts()?;
    let plan = plan(&cluster.inventory, &facts);
    let words = [program.name(), binary.display().to_string()];
    let mut reply = carry_out(cluster, given, (verb, &words), &plan, &facts)?;
    reply.json["program"] = json!(program.name());
    Ok(reply)
}

/// Raises the cluster version by one.
pub(super) fn raise(
    cluster: &Cluster,
    given: Given<'_>,
    to: Option<u16>,
) -> Result<Reply, Failure> {
    let version = to.map_or_else(|| cluster.next_version(), Ok)?;
    if !given.yes {
        output::stderr(b"programs that do not know the next version cannot go on; ");
        confirm()?;
    }
    let mut say = speaker(given.format);
    // Whoever resumes this raises to the same version, and no further.
    let words = [version.to_string()];
    journaled(cluster, "raise", &words, &mut say, |say: Progress<'_>| {
        say(&format!("raise the cluster version to {version}"))?;
        cluster.raise_version(version)
    })?;
    let text = format!("the cluster is at version {version}; the way back is closed\n");
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "cluster_version": version}) })
}

/// Goes on with a run that did not come to its end: the one that is named, or the last.
pub(super) fn resume(
    cluster: &mut Cluster,
    given: Given<'_>,
    runs: &[String],
) -> Result<Reply, Failure> {
    let run = cluster.unfinished(runs)?;
    match run.verb.as_str() {
        "upgrade" | "rollback" => match (cluster.is_chosen(&run), run.words.get(1)) {
            (false, Some(binary)) if run.verb == "upgrade" => {
                upgrade(cluster, given, Path::new(binary))
            }
            (false, _) if run.verb == "rollback" => {
                let previous = cluster.previous()?.name();
                match run.words.first() == Some(&previous) {
                    true => rollback(cluster, given),
                    false => Err(Failure::new(
                        Code::BadSettings,
                        format!("run {} was to go back, and not to {previous}", run.id),
                        "the cluster was upgraded since; look at paxos-ctl audit",
                    )),
                }
            }
            _ => go_on(cluster, given, None),
        },
        "restart" => {
            let left = cluster.left_to_restart(&run)?;
            match left.is_empty() {
                // No name would stand for all.
                true => {
                    let text = "all were restarted already\n".to_owned();
                    let json = json!({"ok": true, "restarted": []});
                    Ok(Reply { exit: exit::DONE, text, json })
                }
                false => restart(cluster, &left, false, given.format),
            }
        }
        "raise" => raise(cluster, given, run.words.first().and_then(|word| word.parse().ok())),
        "deploy" => {
            let limit = run.words.first().and_then(|word| word.strip_prefix("--limit "));
            go_on(cluster, given, limit)
        }
        "recover" => resume_recovery(cluster, &run, given.format),
        keys if keys.starts_with("keys ") => resume_keys(cluster, &run, given.format),
        other => Err(Failure::new(
            Code::Usage,
            format!("run {} is of {other}, which is not resumed", run.id),
            "give the same command again",
        )),
    }
}

/// A deployment, and the wait that one before it may have been killed in.
fn go_on(cluster: &Cluster, given: Given<'_>, limit: Option<&str>) -> Result<Reply, Failure> {
    let reply = deploy(cluster, given, limit)?;
    cluster.wait_until_it_serves()?;
    Ok(reply)
}

/// Shows a plan and has it confirmed, unless there is nothing to confirm.
fn show(cluster: &Cluster, plan: &Plan, given: Given<'_>, heading: &str) -> Result<(), Failure> {
    if let Some(obstacle) = plan.stopper() {
        return Err(obstacle_failure(obstacle));
    }
    let shown = format!("{heading}{}", plan_text(plan, &cluster.inventory.cluster));
    let asks = !plan.is_empty() && !given.yes;
    match given.format {
        Format::Table => _ = output::stdout(shown.as_bytes()),
        // Nobody confirms what they have not seen, and standard output is for the one object.
        Format::Json if asks => output::stderr(shown.as_bytes()),
        Format::Json => {}
    }
    match asks {
        true => confirm(),
        false => Ok(()),
    }
}

fn carry_out(
    cluster: &Cluster,
    given: Given<'_>,
    (verb, words): (&str, &[String]),
    plan: &Plan,
    facts: &Facts,
) -> Result<Reply, Failure> {
    let mut say = speaker(given.format);
    let apply = |say: Progress<'_>| cluster.apply(verb, plan, facts, say);
    let ssh_config = match plan.is_empty() {
        true => told(cluster, &mut say, None, "deploy again".to_owned(), |_step| {}, apply)?,
        false => journaled(cluster, verb, words, &mut say, apply)?,
    };
    let name = &cluster.inventory.cluster;
    let next = next_lines(cluster, given.file, &ssh_config);
    let changed = !plan.is_empty();
    let mut text = String::new();
    if changed {
        text.push_str(&format!("cluster {name} runs\n"));
    }
    text.push_str(&format!("\ntry next:\n  {}\n", next.join("\n  ")));
    let mut json = plan_json(plan, name);
    json["changed"] = json!(changed);
    json["ssh_config"] = json!(ssh_config);
    json["next"] = json!(next);
    Ok(Reply { exit: exit::DONE, text, json })
}

/// What to type next, with absolute paths, so that it works in any directory.
fn next_lines(cluster: &Cluster, file: &Path, ssh_config: &Path) -> Vec<String> {
    let quote = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
    let ssh = format!("ssh -F {}", quote(ssh_config));
    let nodes: Vec<&str> = cluster.inventory.nodes.iter().map(|node| node.name.as_str()).collect();
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else { return Vec::new() };
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let tool = quote(&cluster.tool);
    vec![
        format!("{ssh} {first} paxos status"),
        format!("{ssh} {first} paxos put greeting hello"),
        format!("{ssh} {last} paxos get greeting"),
        format!("{tool} status {}", quote(&file)),
    ]
}

/// Asks on the terminal.
pub(super) fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let message =
            "there is no terminal to ask on, and --yes was not given; nothing was changed";
        return Err(Failure::usage(message, "look at the plan, then do this with --yes"));
    }
    output::stderr(b"do this? [y/N] ");
    let mut answer = String::new();
    // A person thinks for as long as it takes.
    let read = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(Failure::new(
            Code::Interrupted,
            "it was not confirmed; nothing was changed",
            "deploy again and answer y, or give --yes",
        )),
    }
}

/// Whoever tells of a run in this form.
pub(super) fn speaker(format: Format) -> Speaker {
    Speaker::new(format)
}
