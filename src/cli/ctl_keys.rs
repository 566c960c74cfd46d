//! `paxos-ctl keys` and `paxos-ctl ssh-config`: who gets a key, who loses it, and how OpenSSH uses
//! it.

use super::ctl::{Reply, Words};
use super::ctl_audit::journaled;
use super::ctl_deploy::speaker;
use super::ctl_rotate::{self, What};
use super::exit;
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::keys::delivery::Delivered;
use crate::controller::keys::issued::{Issued, Target};
use crate::controller::keys::rotate::Goal;
use crate::controller::keys::{ClusterKeys, KeysError, OPERATOR};
use crate::transport::authority::PersonGrant;
use crate::transport::rights::Rights;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::table;
use crate::wire::request::Format;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How long a certificate is valid when nobody says: a working day.
const VALID_DEFAULT: &str = "12h";

#[derive(Subcommand)]
pub(super) enum KeysVerb {
    /// Makes the root key, the authorities and the bundle, and deploys nothing
    Init {
        #[command(flatten)]
        words: Words,
    },
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
    /// Lists what was issued, and what of it is revoked
    List {
        #[command(flatten)]
        words: Words,
    },
    /// Revokes a certificate or a key on every node, and cuts off whoever is connected with it
    Revoke {
        /// A person's or a node's name, the serial of a certificate, or the file of a key or of a
        /// certificate
        #[arg(value_name = "NAME|SERIAL|KEYFILE")]
        what: String,
        #[command(flatten)]
        words: Words,
        /// Why, for those who ask later
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Take the hosts from whoever is at work on them and hangs
        #[arg(long)]
        take_over: bool,
    },
    /// Renews certificates of nodes: of those named, or of all that are near their end
    Renew {
        #[command(flatten)]
        words: Words,
        /// By way of the hosts' own sshd, which is how it is always done
        #[arg(long)]
        over_host_ssh: bool,
    },
    /// Replaces an authority or the key of a node, or renews all certificates of a kind, while the
    /// cluster runs
    Rotate {
        #[command(flatten)]
        words: Words,
        #[command(flatten)]
        what: What,
        /// Stop when all nodes have learned of the new authority, or when it signs
        #[arg(long, value_name = "STAGE", conflicts_with_all = NOT_STAGED)]
        until: Option<StageWord>,
        /// Do not wait for this node; several with commas
        #[arg(long, value_name = "NODE", value_delimiter = ',')]
        force: Vec<String>,
    },
    /// Goes back to the authority of before a rotation, while no node has forgotten it
    Rollback {
        #[command(flatten)]
        words: Words,
        /// Do not wait for this node; several with commas
        #[arg(long, value_name = "NODE", value_delimiter = ',')]
        force: Vec<String>,
    },
    /// Delivers the newest bundle and certificates to every node that does not go by them yet, and
    /// goes on with a rotation
    Resume {
        #[command(flatten)]
        words: Words,
        /// Do not wait for this node; several with commas
        #[arg(long, value_name = "NODE", value_delimiter = ',')]
        force: Vec<String>,
        /// Take the hosts from whoever is at work on them and hangs
        #[arg(long)]
        take_over: bool,
    },
    /// Says why a key or certificate is let in or refused; exit 3 if it is refused
    Diagnose {
        /// A private key (with its certificate, if one lies beside it), a public key or a
        /// certificate
        #[arg(value_name = "KEYFILE")]
        file: PathBuf,
        #[command(flatten)]
        words: Words,
        /// As if it came from this address
        #[arg(long, value_name = "ADDRESS")]
        from: Option<IpAddr>,
    },
}

/// What is rotated in one stage.
const NOT_STAGED: [&str; 4] = ["node", "hosts", "peers", "operators"];

/// Where a rotation may stop.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum StageWord {
    Learned,
    Switched,
}

impl KeysVerb {
    pub(super) fn words(&self) -> &[String] {
        match self {
            KeysVerb::Init { words }
            | KeysVerb::Issue { words, .. }
            | KeysVerb::List { words }
            | KeysVerb::Revoke { words, .. }
            | KeysVerb::Renew { words, .. }
            | KeysVerb::Rotate { words, .. }
            | KeysVerb::Rollback { words, .. }
            | KeysVerb::Resume { words, .. }
            | KeysVerb::Diagnose { words, .. } => &words.words,
        }
    }

    /// Whether names of nodes may be among the words.
    pub(super) fn takes_names(&self) -> bool {
        matches!(self, KeysVerb::Renew { .. })
    }
}

pub(super) fn keys_failure(error: KeysError) -> Failure {
    Failure::told(error.code(), &error.to_string(), "see paxos-ctl keys --help")
}

pub(super) fn existing(cluster: &Cluster) -> Result<ClusterKeys, Failure> {
    let keys = ClusterKeys::open_existing(&cluster.keys_dir, &cluster.inventory.cluster);
    keys.map_err(keys_failure)
}

pub(super) fn ssh_config(cluster: &Cluster) -> Result<Reply, Failure> {
    let keys = existing(cluster)?;
    let text = keys.ssh_config(&cluster.ssh_targets(), OPERATOR).map_err(keys_failure)?;
    let json = json!({"ok": true, "ssh_config": text});
    Ok(Reply { exit: exit::DONE, text, json })
}

pub(super) fn keys(
    cluster: &Cluster,
    verb: &KeysVerb,
    names: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    if !matches!(verb, KeysVerb::Init { .. }) {
        // Keys of a cluster that was never deployed are not made in passing, nor is a journal.
        existing(cluster)?;
    }
    match verb {
        KeysVerb::Init { .. } => init(cluster),
        KeysVerb::Issue { .. } => issue(cluster, verb),
        KeysVerb::List { .. } => list(cluster),
        KeysVerb::Revoke { what, reason, take_over, .. } => {
            revoke(cluster, what, reason, *take_over, format)
        }
        KeysVerb::Renew { .. } => renew(cluster, names, format),
        KeysVerb::Rotate { what, until, force, .. } => {
            ctl_rotate::rotate_what(cluster, what, goal(*until), force, format)
        }
        KeysVerb::Rollback { force, .. } => ctl_rotate::rollback(cluster, force, format),
        KeysVerb::Resume { force, take_over, .. } => {
            ctl_rotate::go_on(cluster, Goal::Done, force, *take_over, format)
        }
        KeysVerb::Diagnose { file, from, .. } => {
            super::ctl_diagnose::diagnose(cluster, file, *from)
        }
    }
}

fn goal(until: Option<StageWord>) -> Goal {
    match until {
        None => Goal::Done,
        Some(StageWord::Learned) => Goal::Learned,
        Some(StageWord::Switched) => Goal::Switched,
    }
}

fn init(cluster: &Cluster) -> Result<Reply, Failure> {
    let name = &cluster.inventory.cluster;
    let known = cluster.keys()?.is_some();
    let issuer = cluster.open_or_init_keys()?;
    let keys = issuer.keys();
    let directory = keys.directory();
    let made = if known { "are there already" } else { "were made" };
    let text = format!(
        "the keys of cluster {name} {made} in {}\ncluster id {}, bundle epoch {}\n",
        directory.display(),
        keys.cluster_id(),
        keys.bundle().epoch
    );
    let json = json!({
        "ok": true,
        "changed": !known,
        "directory": directory,
        "cluster_id": keys.cluster_id().to_string(),
        "epoch": keys.bundle().epoch,
    });
    Ok(Reply { exit: exit::DONE, text, json })
}

fn issue(cluster: &Cluster, verb: &KeysVerb) -> Result<Reply, Failure> {
    let KeysVerb::Issue { name, role, valid, public_key, source_address, force_command, .. } = verb
    else {
        return Err(Failure::usage("this is no verb that issues", "see paxos-ctl keys --help"));
    };
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
    let issuer = cluster.open_or_init_keys()?;
    let grant = PersonGrant {
        name: name.clone(),
        rights,
        source_addresses: source_address.clone(),
        force_command: force_command.clone(),
    };
    let issued = issuer.issue(&grant, lifetime, line.as_deref(), SystemTime::now());
    let issued = issued.map_err(keys_failure)?;
    let until = time(issued.valid_before);
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

pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn list(cluster: &Cluster) -> Result<Reply, Failure> {
    let keys = existing(cluster)?;
    let now = SystemTime::now();
    let issued = keys.issued().map_err(keys_failure)?;
    let state = |one: &Issued| match &one.revoked_by {
        Some(_) => "revoked",
        None if one.valid_before <= now => "ran out",
        None => "valid",
    };
    let rows = issued.iter().map(|one| {
        let (id, role) = (one.key_id.clone(), one.role.name().to_owned());
        let reason = one.reason.clone().unwrap_or_default();
        let state = state(one).to_owned();
        [one.serial.to_string(), id, role, time(one.valid_before), state, reason]
    });
    let text = table(["SERIAL", "KEY ID", "ROLE", "VALID UNTIL", "STATE", "REASON"], rows);
    let entry = |one: &Issued| {
        json!({
            "serial": one.serial.to_string(),
            "key_id": one.key_id,
            "role": one.role.name(),
            "person": one.person,
            "key": one.key,
            "valid_before": time(one.valid_before),
            "state": state(one).replace(' ', "_"),
            "revoked": one.revoked_by.is_some(),
            "revoked_by": one.revoked_by,
            "reason": one.reason,
        })
    };
    let json = json!({
        "ok": true,
        "epoch": keys.bundle().epoch,
        "issued": issued.iter().map(entry).collect::<Vec<_>>(),
    });
    Ok(Reply { exit: exit::DONE, text, json })
}

/// Digits are a serial, what looks like a path is a file, and the rest is a name.
fn target(what: &str) -> Target {
    if let Ok(serial) = what.parse() {
        return Target::Serial(serial);
    }
    match what.contains('/') || what.ends_with(".pub") || Path::new(what).is_file() {
        true => Target::File(PathBuf::from(what)),
        false => Target::Name(what.to_owned()),
    }
}

pub(super) fn revoke(
    cluster: &Cluster,
    what: &str,
    reason: &str,
    take_over: bool,
    format: Format,
) -> Result<Reply, Failure> {
    let target = target(what);
    let work = |say: Progress<'_>| cluster.revoke_keys(&target, reason, take_over, say);
    let words = [what.to_owned(), reason.to_owned()];
    let (revoked, delivered) =
        journaled(cluster, "keys revoke", &words, &mut speaker(format), work)?;
    let epoch = revoked.epoch;
    let word = if revoked.changed { "revoked" } else { "was revoked already:" };
    let mut text = format!("{word} {}; bundle epoch {epoch}\n", revoked.lines.join(", "));
    text.push_str(&delivered_text(&delivered));
    let json = json!({
        "ok": true,
        "changed": revoked.changed,
        "revoked": revoked.lines,
        "epoch": epoch,
        "nodes": delivered_json(&delivered),
    });
    Ok(Reply { exit: exit::DONE, text, json })
}

pub(super) fn renew(cluster: &Cluster, names: &[String], format: Format) -> Result<Reply, Failure> {
    let work = |say: Progress<'_>| cluster.renew_keys(names, say);
    let (renewed, delivered) = journaled(cluster, "keys renew", names, &mut speaker(format), work)?;
    let mut text = match renewed.is_empty() {
        true => "no certificate of a node is near its end\n".to_owned(),
        false => format!("renewed the certificates of {}\n", renewed.join(", ")),
    };
    text.push_str(&delivered_text(&delivered));
    let json = json!({"ok": true, "renewed": renewed, "nodes": delivered_json(&delivered)});
    Ok(Reply { exit: exit::DONE, text, json })
}

pub(super) fn delivered_text(delivered: &[Delivered]) -> String {
    let line = |one: &Delivered| format!("{} {}\n", one.node, one.reached.describe());
    delivered.iter().map(line).collect()
}

pub(super) fn delivered_json(delivered: &[Delivered]) -> Value {
    let entry = |one: &Delivered| json!({"name": one.node, "reached": one.reached.name()});
    delivered.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_revoked_is_told_by_its_looks() {
        let file = |path: &str| Target::File(PathBuf::from(path));
        assert_eq!(target("17"), Target::Serial(17));
        assert_eq!(target("alice"), Target::Name("alice".to_owned()));
        assert_eq!(target("./alice"), file("./alice"));
        assert_eq!(target("alice.pub"), file("alice.pub"));
        assert_eq!(target("keys/c/people/alice"), file("keys/c/people/alice"));
        assert_eq!(target("-3"), Target::Name("-3".to_owned()));
    }
}
