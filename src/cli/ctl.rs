//! `paxos-ctl`: its words, and what it prints. What it does is the controller's.
//!
//! Every command takes the inventory as a word, as `-i FILE` or from `PAXOS_INVENTORY`. With `-o
//! json` exactly one value comes out on standard output, whatever happens, and before it, of what
//! changes the cluster, an event a line; for people, answers go to standard output and failures to
//! standard error.

use super::ctl_audit::audit;
use super::ctl_check::check;
use super::ctl_deploy::{Given, deploy, raise, resume, rollback, upgrade};
use super::ctl_exec::exec;
use super::ctl_keys::{KeysVerb, keys, ssh_config};
use super::ctl_life::{destroy, halt, kill, restart, status, verify};
use super::ctl_logs::{self, LogArgs};
use super::ctl_recover::recover;
use super::plan::show_plan;
use super::progress::{Onlooker, answer};
use super::{exit, interrupt, output, passphrase};
use crate::controller::deploy::Cluster;
use crate::controller::host::Halt;
use crate::controller::host::everywhere::Everywhere;
use crate::controller::inventory::Inventory;
use crate::controller::inventory::init::{CLUSTER_DEFAULT, inventory_text};
use crate::controller::keys::default_directory;
use crate::controller::watch::Watched;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// For people, or JSON for programs: one object, after an event a line from what takes its time
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
pub(super) struct Words {
    /// The inventory, and names of nodes
    #[arg(value_name = "INVENTORY|NODE")]
    pub(super) words: Vec<String>,
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
    /// Prints what a shell needs to complete the words of paxos-ctl
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    OfCluster(ClusterVerb),
}

/// What is done to the cluster of an inventory.
#[derive(Subcommand)]
enum ClusterVerb {
    /// Looks at every host for what a cluster needs; exit 0 if nothing fails, else 78
    ///
    /// Asks each host about its clock, disk, directories, limits and port, and has each log in at
    /// each other one. It sends the program to hosts over ssh, to the place where deploy puts it,
    /// and changes nothing else.
    Check(Whole),
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
        /// Only these nodes: names and groups, as for Ansible (web*,!web3)
        #[arg(long, value_name = "PATTERN")]
        limit: Option<String>,
    },
    /// Has all nodes run another program, one at a time, the leader last
    Upgrade {
        #[command(flatten)]
        words: Whole,
        /// The program: a paxos or paxos-ctl built for the hosts
        #[arg(long, value_name = "FILE", required_unless_present = "raise")]
        binary: Option<PathBuf>,
        /// Raises the cluster version by one; there is no way back from it
        #[arg(long, conflicts_with = "binary")]
        raise: bool,
        /// Does not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Goes back to the program before the last upgrade
    Rollback {
        #[command(flatten)]
        words: Whole,
        /// Does not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Goes on with a run that was cut short or failed: the last, or the one named
    Resume {
        #[command(flatten)]
        words: Runs,
        /// Does not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Runs a command on the hosts, by their own sshd; exit 0 if it was 0 on all of them
    Exec {
        #[command(flatten)]
        words: Whole,
        /// Only these nodes' hosts: names and groups, as for Ansible (web*,!web3)
        #[arg(long, value_name = "PATTERN")]
        limit: Option<String>,
        /// As root, by sudo without a password
        #[arg(long)]
        sudo: bool,
        /// The command, after "--"; a shell there reads it
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
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
    /// Ends a node's process at once (SIGKILL), to see what happens; also while somebody else is at
    /// work on the hosts
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
    /// Issues, lists, revokes, renews and diagnoses keys
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Has the survivors go on when so many nodes are lost for ever that they are no quorum
    ///
    /// Without --confirm it looks, says who holds most and what may be lost, and changes nothing;
    /// exit 2. With it the survivors are stopped, the lost are given up and revoked, and one
    /// survivor's log becomes the cluster's.
    Recover {
        #[command(flatten)]
        words: Whole,
        /// Nodes that never come back
        #[arg(long, value_name = "NODE,…", value_delimiter = ',', required = true)]
        lost: Vec<String>,
        /// The survivor from whose log the cluster goes on
        #[arg(long, value_name = "NODE")]
        from: Option<String>,
        /// The cluster's name, as a confirmation
        #[arg(long, value_name = "CLUSTER")]
        confirm: Option<String>,
    },
    /// Ends the cluster for good: its processes, its data and its keys
    Destroy {
        #[command(flatten)]
        words: Whole,
        /// The cluster's name, as a confirmation
        #[arg(long, value_name = "CLUSTER")]
        confirm: Option<String>,
    },
}

impl ClusterVerb {
    /// Whether it has its own way with Ctrl-C.
    fn listens_itself(&self) -> bool {
        use ClusterVerb::{Exec, Logs, Verify};
        matches!(self, Exec { .. } | Logs { .. } | Verify { .. })
    }
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
        Format::Json => format!("{}\n", answer(reply.json.clone())),
        Format::Table => reply.text.clone(),
    };
    match output::stdout(text.as_bytes()) {
        output::Written::Failed => Code::Internal.exit(),
        output::Written::Done | output::Written::Unread => reply.exit,
    }
}

pub(super) fn fail(failure: &Failure, format: Format) -> u8 {
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
        Verb::Completions { shell } => Ok(completions(*shell)),
        Verb::OfCluster(verb) => {
            if !verb.listens_itself() {
                interrupt::listen(format)?;
            }
            act(line, verb, format)
        }
    }
}

fn act(line: &Line, verb: &ClusterVerb, format: Format) -> Result<Reply, Failure> {
    let words: &[String] = match verb {
        ClusterVerb::Check(Whole { words })
        | ClusterVerb::Plan(Whole { words })
        | ClusterVerb::Status(Whole { words })
        | ClusterVerb::SshConfig(Whole { words })
        | ClusterVerb::Deploy { words: Whole { words }, .. }
        | ClusterVerb::Upgrade { words: Whole { words }, .. }
        | ClusterVerb::Rollback { words: Whole { words }, .. }
        | ClusterVerb::Exec { words: Whole { words }, .. }
        | ClusterVerb::Verify { words: Whole { words }, .. }
        | ClusterVerb::Recover { words: Whole { words }, .. }
        | ClusterVerb::Destroy { words: Whole { words }, .. }
        | ClusterVerb::Stop(Words { words })
        | ClusterVerb::Audit(Runs { words })
        | ClusterVerb::Resume { words: Runs { words }, .. }
        | ClusterVerb::Restart { words: Words { words }, .. }
        | ClusterVerb::Kill { words: Words { words }, .. }
        | ClusterVerb::Logs { words: Words { words }, .. } => words,
        ClusterVerb::Keys(verb) => verb.words(),
    };
    let (file, names) = split(line, words)?;
    let mut cluster = open(line, &file)?;
    let given = |yes: bool| Given { file: &file, yes, format };
    let takes_names = matches!(
        verb,
        ClusterVerb::Stop(_)
            | ClusterVerb::Audit(_)
            | ClusterVerb::Resume { .. }
            | ClusterVerb::Restart { .. }
            | ClusterVerb::Kill { .. }
            | ClusterVerb::Logs { .. }
    ) || matches!(verb, ClusterVerb::Keys(verb) if verb.takes_names());
    if let (false, Some(extra)) = (takes_names, names.first()) {
        let message = format!("\"{extra}\" is one word too many");
        let hint = "give one inventory, as a path that ends in .yaml or .yml or holds a \"/\"";
        return Err(Failure::usage(message, hint));
    }
    match verb {
        ClusterVerb::Check(_) => check(&cluster, format),
        ClusterVerb::Plan(_) => show_plan(&cluster, None),
        ClusterVerb::Deploy { dry_run: true, limit, .. } => show_plan(&cluster, limit.as_deref()),
        ClusterVerb::Deploy { yes, limit, .. } => deploy(&cluster, given(*yes), limit.as_deref()),
        ClusterVerb::Upgrade { yes, binary: Some(binary), .. } => {
            upgrade(&mut cluster, given(*yes), binary)
        }
        ClusterVerb::Upgrade { yes, binary: None, .. } => raise(&cluster, given(*yes), None),
        ClusterVerb::Rollback { yes, .. } => rollback(&mut cluster, given(*yes)),
        ClusterVerb::Resume { yes, .. } => resume(&mut cluster, given(*yes), &names),
        ClusterVerb::Exec { limit, sudo, command, .. } => {
            exec(&cluster, limit.as_deref(), *sudo, command, format)
        }
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
        ClusterVerb::Keys(verb) => keys(&cluster, verb, &names, format),
        ClusterVerb::Recover { lost, from, confirm, .. } => {
            recover(&cluster, &file, from.as_deref(), lost, confirm.as_deref(), format)
        }
        ClusterVerb::Destroy { confirm, .. } => destroy(&cluster, confirm.as_deref(), format),
    }
}

fn completions(shell: clap_complete::Shell) -> Reply {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Line::command(), "paxos-ctl", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let json = json!({"ok": true, "completions": text});
    Reply { exit: exit::DONE, text, json }
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
    let host = Arc::new(Everywhere::watched(Watched::by(Arc::new(Onlooker))));
    let ask = passphrase::ask;
    Ok(Cluster { inventory, file, keys_dir, tool, binary: None, host, ask })
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
