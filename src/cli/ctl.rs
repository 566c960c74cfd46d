//! `paxos-ctl`: its words, and what it prints. What it does is the controller's.
//!
//! Every command takes the inventory as a word, as `-i FILE` or from `PAXOS_INVENTORY`. With `-o
//! json` exactly one value comes out on standard output, whatever happens; for people, answers go
//! to standard output and failures to standard error.

use super::ctl_audit::{audit, journaled};
use super::ctl_logs::{self, LogArgs};
use super::plan::{plan_json, plan_text, show_plan};
use super::{exit, output};
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::everywhere::Everywhere;
use crate::controller::host::Halt;
use crate::controller::init::{CLUSTER_DEFAULT, inventory_text};
use crate::controller::inventory::Inventory;
use crate::controller::issuer::Issuer;
use crate::controller::keys::{ClusterKeys, KeysError, OPERATOR, default_directory};
use crate::controller::plan::plan;
use crate::controller::verdict::report;
use crate::transport::authority::PersonGrant;
use crate::transport::rights::Rights;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How long a certificate is valid when nobody says: a working day.
const VALID_DEFAULT: &str = "12h";

#[derive(Parser)]
#[command(name = "paxos-ctl", version, about = "Makes and runs Paxos clusters from an inventory")]
#[command(disable_help_subcommand = true)]
struct Line {
    /// The inventory (an Ansible inventory in YAML)
    #[arg(short, long, global = true, value_name = "FILE", env = "PAXOS_INVENTORY")]
    inventory: Option<PathBuf>,
    /// Where the cluster's keys lie [default: keys/CLUSTER beside the inventory's folder]
    #[arg(long, global = true, value_name = "DIR", env = "PAXOS_KEYS_DIR")]
    keys_dir: Option<PathBuf>,
    /// For people, or one JSON object for programs
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    output: OutputFormat,
    /// The same as -o json
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    Table,
    Json,
}

#[derive(Args)]
struct Words {
    /// The inventory, and names of nodes
    #[arg(value_name = "INVENTORY|NODE")]
    words: Vec<String>,
}

#[derive(Args)]
struct Runs {
    /// The inventory, and the name of a run
    #[arg(value_name = "INVENTORY|RUN")]
    words: Vec<String>,
}

#[derive(Args)]
struct Whole {
    /// The inventory; what is done is done to the whole cluster
    #[arg(value_name = "INVENTORY")]
    words: Vec<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints an inventory of hosts, to begin with
    Init {
        /// As for ssh: USER@HOST:PORT, where user and port may be left out
        #[arg(value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// The cluster's name
        #[arg(long, value_name = "CLUSTER", default_value = CLUSTER_DEFAULT)]
        cluster: String,
    },
    #[command(flatten)]
    OfCluster(ClusterVerb),
}

/// What is done to the cluster of an inventory.
#[derive(Subcommand)]
enum ClusterVerb {
    /// Shows what deploy would do; exit 2 if there is something
    Plan(Whole),
    /// Makes the cluster what the inventory says, and starts what is stopped
    Deploy {
        #[command(flatten)]
        words: Whole,
        /// Does not ask
        #[arg(short, long)]
        yes: bool,
        /// Shows the plan and changes nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Shows how the cluster and its nodes are; exit 0 healthy, 2 degraded, 69 no quorum
    Status(Whole),
    /// Shows that each role does its part, by eight checks; exit 0 if all pass, else 1
    Verify {
        #[command(flatten)]
        words: Whole,
        /// Leaves the leader where it is, and skips what needs an election
        #[arg(long)]
        passive: bool,
    },
    /// Stops nodes in good order: all, or those named
    Stop(Words),
    /// Restarts nodes, all or those named, one at a time, the leader last
    Restart {
        #[command(flatten)]
        words: Words,
        /// Even where it takes the quorum away
        #[arg(long)]
        force: bool,
    },
    /// Ends a node's process at once (SIGKILL), to see what happens
    Kill {
        #[command(flatten)]
        words: Words,
        /// The node that leads now
        #[arg(long)]
        leader: bool,
    },
    /// Shows the last lines that nodes wrote, or what they said to one another
    Logs {
        #[command(flatten)]
        words: Words,
        #[command(flatten)]
        args: LogArgs,
    },
    /// Lists what was done to the cluster from here, or shows one run
    Audit(Runs),
    /// Prints an ssh_config with which OpenSSH reaches every node
    SshConfig(Whole),
    /// Issues keys
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Ends the cluster for good: its processes, its data and its keys
    Destroy {
        #[command(flatten)]
        words: Whole,
        /// The cluster's name, as a confirmation
        #[arg(long, value_name = "CLUSTER")]
        confirm: Option<String>,
    },
}

#[derive(Subcommand)]
enum KeysVerb {
    /// Issues a certificate to a person or an application
    Issue {
        /// Their name
        name: String,
        #[command(flatten)]
        words: Words,
        /// What they may do: admin, write, read, write:/app1/, several with commas
        #[arg(long, value_name = "RIGHTS")]
        role: String,
        /// For how long: 8h, 30d
        #[arg(long, value_name = "TIME", default_value = VALID_DEFAULT)]
        valid: String,
        /// For this public key, instead of one that is made here
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
        /// Only from these addresses, as in OpenSSH's source-address
        #[arg(long, value_name = "CIDR")]
        source_address: Option<String>,
        /// Only this command
        #[arg(long, value_name = "COMMAND")]
        force_command: Option<String>,
    },
}

/// What a command answers: an exit status, a text for people, an object for programs.
pub(super) struct Reply {
    pub(super) exit: u8,
    pub(super) text: String,
    pub(super) json: Value,
}

/// Runs the controller's program and gives its exit status.
pub fn run(args: Vec<OsString>) -> u8 {
    let format = wanted_format(&args);
    match Line::command().try_get_matches_from(&args).and_then(|m| Line::from_arg_matches(&m)) {
        Ok(line) => match dispatch(&line, format) {
            Ok(reply) => print(&reply, format),
            Err(failure) => fail(&failure, format),
        },
        Err(error) if !error.use_stderr() => {
            output::stdout(error.render().to_string().as_bytes());
            exit::DONE
        }
        Err(error) => fail(&usage_failure(&error.render().to_string()), format),
    }
}

/// The form of output that was asked for, for errors that come before the words are understood.
fn wanted_format(args: &[OsString]) -> Format {
    let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
    let json =
        words.iter().any(|w| matches!(&**w, "--json" | "-ojson" | "-o=json" | "--output=json"))
            || words.windows(2).any(|w| matches!(&*w[0], "-o" | "--output") && w[1] == "json");
    if json { Format::Json } else { Format::Table }
}

fn usage_failure(text: &str) -> Failure {
    let text = text.trim().trim_start_matches("error: ");
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let hint = match rest.is_empty() {
        true => "see paxos-ctl --help".to_owned(),
        false => rest.replace("\n\n", "\n"),
    };
    Failure::usage(message, hint)
}

fn print(reply: &Reply, format: Format) -> u8 {
    let text = match format {
        // Everything was said as it came.
        Format::Json if reply.json.is_null() => String::new(),
        Format::Json => format!("{}\n", reply.json),
        Format::Table => reply.text.clone(),
    };
    match output::stdout(text.as_bytes()) {
        output::Written::Failed => Code::Internal.exit(),
        output::Written::Done | output::Written::Unread => reply.exit,
    }
}

fn fail(failure: &Failure, format: Format) -> u8 {
    match format {
        Format::Json => output::failure(failure, format),
        Format::Table => {
            let (message, code) = (&failure.message, failure.code.name());
            let text = format!("paxos-ctl: {message} ({code})\nhint: {}\n", failure.hint);
            output::stderr(text.as_bytes());
            failure.code.exit()
        }
    }
}

fn dispatch(line: &Line, format: Format) -> Result<Reply, Failure> {
    match &line.verb {
        Verb::Init { hosts, cluster } => init(cluster, hosts),
        Verb::OfCluster(verb) => act(line, verb, format),
    }
}

fn act(line: &Line, verb: &ClusterVerb, format: Format) -> Result<Reply, Failure> {
    let words = match verb {
        ClusterVerb::Plan(Whole { words })
        | ClusterVerb::Status(Whole { words })
        | ClusterVerb::SshConfig(Whole { words })
        | ClusterVerb::Deploy { words: Whole { words }, .. }
        | ClusterVerb::Verify { words: Whole { words }, .. }
        | ClusterVerb::Destroy { words: Whole { words }, .. }
        | ClusterVerb::Stop(Words { words })
        | ClusterVerb::Audit(Runs { words })
        | ClusterVerb::Restart { words: Words { words }, .. }
        | ClusterVerb::Kill { words: Words { words }, .. }
        | ClusterVerb::Logs { words: Words { words }, .. }
        | ClusterVerb::Keys(KeysVerb::Issue { words: Words { words }, .. }) => words,
    };
    let (file, names) = split(line, words)?;
    let cluster = open(line, &file)?;
    let takes_names = matches!(
        verb,
        ClusterVerb::Stop(_)
            | ClusterVerb::Audit(_)
            | ClusterVerb::Restart { .. }
            | ClusterVerb::Kill { .. }
            | ClusterVerb::Logs { .. }
    );
    if let (false, Some(extra)) = (takes_names, names.first()) {
        let message = format!("\"{extra}\" is one word too many");
        let hint = "give one inventory, as a path that ends in .yaml or .yml or holds a \"/\"";
        return Err(Failure::usage(message, hint));
    }
    match verb {
        ClusterVerb::Plan(_) => show_plan(&cluster),
        ClusterVerb::Deploy { yes, dry_run, .. } => deploy(&cluster, &file, *yes, *dry_run, format),
        ClusterVerb::Status(_) => status(&cluster),
        ClusterVerb::Verify { passive, .. } => verify(&cluster, *passive),
        ClusterVerb::Stop(_) => halt(&cluster, &names, Halt::Gently),
        ClusterVerb::Kill { leader, .. } => kill(&cluster, names, *leader),
        ClusterVerb::Restart { force, .. } => restart(&cluster, &names, *force, format),
        ClusterVerb::Logs { args, .. } => {
            let names = [names, args.node.clone()].concat();
            ctl_logs::logs(&cluster, &names, args, format)
        }
        ClusterVerb::SshConfig(_) => ssh_config(&cluster),
        ClusterVerb::Audit(_) => audit(&cluster, &names),
        ClusterVerb::Keys(verb) => issue(&cluster, verb),
        ClusterVerb::Destroy { confirm, .. } => destroy(&cluster, confirm.as_deref(), format),
    }
}

fn init(cluster: &str, hosts: &[String]) -> Result<Reply, Failure> {
    let text = inventory_text(cluster, hosts)?;
    let json = json!({"ok": true, "inventory": text});
    Ok(Reply { exit: exit::DONE, text, json })
}

/// Tells the inventory from the names of nodes: what looks like a path is the inventory.
fn split(line: &Line, words: &[String]) -> Result<(PathBuf, Vec<String>), Failure> {
    let is_file =
        |word: &&String| word.contains('/') || word.ends_with(".yaml") || word.ends_with(".yml");
    let mut names = words.to_vec();
    let place = names.iter().position(|word| is_file(&word));
    let named = place.map(|place| PathBuf::from(names.remove(place)));
    match named.or_else(|| line.inventory.clone()) {
        Some(file) => Ok((file, names)),
        None => Err(Failure::usage(
            "no inventory was given",
            "name it, such as paxos-ctl status inventory/local.yaml; \
             or -i FILE, or PAXOS_INVENTORY",
        )),
    }
}

fn open(line: &Line, file: &Path) -> Result<Cluster, Failure> {
    let inventory = Inventory::load(file)?;
    let bad = |what: &str, path: &Path, error: std::io::Error| {
        let message = format!("cannot find {what} {}: {error}", path.display());
        Failure::new(Code::BadSettings, message, "give a path that exists")
    };
    let file = std::fs::canonicalize(file).map_err(|error| bad("the inventory", file, error))?;
    let keys_dir = match &line.keys_dir {
        Some(directory) => directory.clone(),
        None => default_directory(&file, &inventory.cluster),
    };
    let keys_dir = plain(&keys_dir).map_err(|error| bad("the keys", &keys_dir, error))?;
    let tool = std::env::current_exe();
    let tool = tool.map_err(|error| bad("the program itself", Path::new("paxos-ctl"), error))?;
    Ok(Cluster { inventory, keys_dir, tool, host: Box::new(Everywhere::default()) })
}

/// The path absolute and without "..", though it may not exist yet.
fn plain(path: &Path) -> std::io::Result<PathBuf> {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            part => plain.push(part),
        }
    }
    Ok(plain)
}

fn deploy(
    cluster: &Cluster,
    file: &Path,
    yes: bool,
    dry_run: bool,
    format: Format,
) -> Result<Reply, Failure> {
    if dry_run {
        return show_plan(cluster);
    }
    let facts = cluster.facts()?;
    let plan = plan(&cluster.inventory, &facts);
    if let Some(obstacle) = plan.stopper() {
        return Err(Failure::new(Code::BadSettings, obstacle.to_string(), obstacle.hint()));
    }
    let name = &cluster.inventory.cluster;
    let mut say = speaker(format);
    let (shown, asks) = (plan_text(&plan, name), !plan.is_empty() && !yes);
    match format {
        Format::Table => _ = output::stdout(shown.as_bytes()),
        // Nobody confirms what they have not seen, and standard output is for the one object.
        Format::Json if asks => output::stderr(shown.as_bytes()),
        Format::Json => {}
    }
    if asks {
        confirm()?;
    }
    let apply = |say: Progress<'_>| cluster.apply(&plan, &facts, say);
    let ssh_config = match plan.is_empty() {
        true => apply(&mut say)?,
        false => journaled(cluster, "deploy", &mut say, apply)?,
    };
    let next = next_lines(cluster, file, &ssh_config);
    let changed = !plan.is_empty();
    let mut text = String::new();
    if changed {
        text.push_str(&format!("cluster {name} runs\n"));
    }
    text.push_str(&format!("\ntry next:\n  {}\n", next.join("\n  ")));
    let mut json = plan_json(&plan, name);
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
fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let message =
            "there is no terminal to ask on, and --yes was not given; nothing was changed";
        return Err(Failure::usage(message, "look at the plan, then deploy with --yes"));
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

/// Progress for people; a program gets its one object at the end.
fn speaker(format: Format) -> impl FnMut(&str) {
    move |text: &str| {
        if format == Format::Table {
            output::stdout(format!("- {text}\n").as_bytes());
        }
    }
}

fn status(cluster: &Cluster) -> Result<Reply, Failure> {
    let overview = cluster.status()?;
    let mut json = serde_json::to_value(&overview).map_err(|error| {
        let message = format!("the status cannot be written as JSON: {error}");
        Failure::new(Code::Internal, message, "report this fault")
    })?;
    json["ok"] = json!(true);
    Ok(Reply { exit: overview.exit(), text: overview.to_table(), json })
}

fn verify(cluster: &Cluster, passive: bool) -> Result<Reply, Failure> {
    let verdicts = cluster.verify(passive)?;
    let exit = match verdicts.iter().all(|verdict| verdict.pass) {
        true => exit::DONE,
        false => Code::Internal.exit(),
    };
    Ok(Reply { exit, text: report(&verdicts), json: json!(verdicts) })
}

fn halt(cluster: &Cluster, names: &[String], how: Halt) -> Result<Reply, Failure> {
    let nodes = cluster.named(names)?;
    let halted = cluster.halt(&nodes, how)?;
    let verb = match how {
        Halt::Gently => "stopped",
        Halt::AtOnce => "killed",
    };
    let line = |halting: &crate::controller::operate::Halting| match halting.pid {
        Some(pid) => format!("{}: {verb} (pid {pid})\n", halting.node),
        None => format!("{}: was not running\n", halting.node),
    };
    let nodes: Vec<Value> = halted.iter().map(|h| json!({"name": h.node, "pid": h.pid})).collect();
    let text = halted.iter().map(line).collect();
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "nodes": nodes}) })
}

fn kill(cluster: &Cluster, mut names: Vec<String>, leader: bool) -> Result<Reply, Failure> {
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

fn restart(
    cluster: &Cluster,
    names: &[String],
    force: bool,
    format: Format,
) -> Result<Reply, Failure> {
    let restart = |say: Progress<'_>| cluster.restart(names, force, say);
    let done = journaled(cluster, "restart", &mut speaker(format), restart)?;
    let text = format!("restarted {}\n", done.join(", "));
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "restarted": done}) })
}

fn keys_failure(error: KeysError) -> Failure {
    Failure::told(error.code(), &error.to_string(), "see paxos-ctl keys --help")
}

fn ssh_config(cluster: &Cluster) -> Result<Reply, Failure> {
    let keys = ClusterKeys::open_existing(&cluster.keys_dir, &cluster.inventory.cluster);
    let keys = keys.map_err(keys_failure)?;
    let text = keys.ssh_config(&cluster.ssh_targets(), OPERATOR).map_err(keys_failure)?;
    let json = json!({"ok": true, "ssh_config": text});
    Ok(Reply { exit: exit::DONE, text, json })
}

fn issue(cluster: &Cluster, verb: &KeysVerb) -> Result<Reply, Failure> {
    let KeysVerb::Issue { name, role, valid, public_key, source_address, force_command, .. } = verb;
    let rights = Rights::from_words(role.split(',').map(str::trim)).map_err(|error| {
        Failure::usage(error.to_string(), "such as --role admin or read,write:/app1/")
    })?;
    let lifetime = humantime::parse_duration(valid).map_err(|error| {
        let message = format!("{valid:?} is no span of time: {error}");
        Failure::usage(message, "write --valid 8h or --valid 30d")
    })?;
    let line = match public_key {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read the public key {}: {error}", path.display());
            Failure::new(Code::NotFound, message, "give the path of a .pub file")
        })?),
    };
    let cluster_name = &cluster.inventory.cluster;
    // Keys of a cluster that was never deployed are not made in passing.
    ClusterKeys::open_existing(&cluster.keys_dir, cluster_name).map_err(keys_failure)?;
    let issuer = Issuer::open_or_init(&cluster.keys_dir, cluster_name).map_err(keys_failure)?;
    let grant = PersonGrant {
        name: name.clone(),
        rights,
        source_addresses: source_address.clone(),
        force_command: force_command.clone(),
    };
    let issued = issuer.issue(&grant, lifetime, line.as_deref(), SystemTime::now());
    let issued = issued.map_err(keys_failure)?;
    let until = humantime::format_rfc3339_seconds(issued.valid_before).to_string();
    let mut text = format!(
        "issued {} until {until}\ncertificate {}\n",
        issued.key_id,
        issued.certificate.display()
    );
    if let Some(key) = &issued.key {
        text.push_str(&format!("key {}\n", key.display()));
    }
    let json = json!({
        "ok": true,
        "key_id": issued.key_id,
        "serial": issued.serial.to_string(),
        "certificate": issued.certificate,
        "key": issued.key,
        "valid_before": until,
    });
    Ok(Reply { exit: exit::DONE, text, json })
}

fn destroy(cluster: &Cluster, confirm: Option<&str>, format: Format) -> Result<Reply, Failure> {
    let name = &cluster.inventory.cluster;
    let Some(confirm) = confirm else {
        let message = format!("this ends cluster {name} and deletes all its data and keys");
        return Err(Failure::usage(message, format!("if you mean it: --confirm {name}")));
    };
    let left = cluster.destroy(confirm, &mut speaker(format))?;
    let mut text = format!("cluster {name} is gone\n");
    for path in &left {
        text.push_str(&format!(
            "left alone, for no node and no deploy made it: {}\n",
            path.display()
        ));
    }
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "cluster": name, "left": left}) })
}
