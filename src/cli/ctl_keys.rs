//! `paxos-ctl keys` and `paxos-ctl ssh-config`: who gets a key, and how OpenSSH uses it.

use super::ctl::{Reply, Words};
use super::exit;
use crate::controller::deploy::Cluster;
use crate::controller::issuer::Issuer;
use crate::controller::keys::{ClusterKeys, KeysError, OPERATOR};
use crate::transport::authority::PersonGrant;
use crate::transport::rights::Rights;
use crate::wire::failure::{Code, Failure};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use std::time::SystemTime;

/// How long a certificate is valid when nobody says: a working day.
const VALID_DEFAULT: &str = "12h";

#[derive(Subcommand)]
pub(super) enum KeysVerb {
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

fn keys_failure(error: KeysError) -> Failure {
    Failure::told(error.code(), &error.to_string(), "see paxos-ctl keys --help")
}

pub(super) fn ssh_config(cluster: &Cluster) -> Result<Reply, Failure> {
    let keys = ClusterKeys::open_existing(&cluster.keys_dir, &cluster.inventory.cluster);
    let keys = keys.map_err(keys_failure)?;
    let text = keys.ssh_config(&cluster.ssh_targets(), OPERATOR).map_err(keys_failure)?;
    let json = json!({"ok": true, "ssh_config": text});
    Ok(Reply { exit: exit::DONE, text, json })
}

pub(super) fn issue(cluster: &Cluster, verb: &KeysVerb) -> Result<Reply, Failure> {
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
