//! `paxos-ctl keys diagnose`: why a key or certificate is let in or refused, which no node tells
//! over ssh.

use super::ctl::Reply;
use super::ctl_keys::{existing, keys_failure, time};
use super::exit;
use crate::controller::deploy::Cluster;
use crate::transport::diagnosis::{CertificateFacts, Diagnosis, Presented, diagnose as judge};
use crate::wire::failure::{Code, Failure};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Exit status when it would be refused: a negative answer.
const REFUSED: u8 = 3;

pub(super) fn diagnose(
    cluster: &Cluster,
    file: &Path,
    from: Option<IpAddr>,
) -> Result<Reply, Failure> {
    let trust = existing(cluster)?.trust(&cluster.keys_dir, &cluster.inventory.people);
    let trust = trust.map_err(keys_failure)?;
    let read = beside(file);
    let text = std::fs::read_to_string(&read).map_err(|error| {
        let message = format!("cannot read {}: {error}", read.display());
        Failure::new(Code::NotFound, message, "give the path of a key or of a certificate")
    })?;
    let presented = Presented::parse(&text).map_err(|reason| {
        let message = format!("{} is not understood: {reason}", read.display());
        let hint = "give a private key, a .pub file or a -cert.pub file, as OpenSSH writes them";
        Failure::new(Code::Usage, message, hint)
    })?;
    let diagnosis = judge(&trust, &presented, from, SystemTime::now());
    let exit = if diagnosis.verdict.is_ok() { exit::DONE } else { REFUSED };
    let text = to_text(&read, &diagnosis);
    Ok(Reply { exit, text, json: to_json(&read, &diagnosis) })
}

/// What ssh would show: with a private key, the certificate that lies beside it.
fn beside(file: &Path) -> PathBuf {
    let mut certificate = file.as_os_str().to_owned();
    certificate.push("-cert.pub");
    let certificate = PathBuf::from(certificate);
    if certificate.is_file() { certificate } else { file.to_owned() }
}

fn at(seconds: u64) -> String {
    // The last moment that this form of writing has.
    const YEAR_9999: u64 = 253_402_300_799;
    time(UNIX_EPOCH + Duration::from_secs(seconds.min(YEAR_9999)))
}

fn to_text(file: &Path, diagnosis: &Diagnosis) -> String {
    let mut rows = vec![("file", file.display().to_string()), ("key", diagnosis.key.clone())];
    if let Some(facts) = &diagnosis.certificate {
        let CertificateFacts { key_id, serial, host, signer, authority, principals, .. } = facts;
        let kind = if *host { "host" } else { "user" };
        rows.push(("certificate", format!("{key_id} (serial {serial}), for a {kind}")));
        let authority = match authority {
            Some(authority) => format!("authority of this cluster: {authority}"),
            None => "no authority of this cluster".to_owned(),
        };
        rows.push(("signed by", format!("{signer} ({authority})")));
        rows.push(("names", principals.join(" ")));
        let (after, before) = (at(facts.valid_after), at(facts.valid_before));
        rows.push(("valid", format!("from {after} until {before}")));
        for (option, value) in &facts.options {
            rows.push(("only", format!("{option} {value}")));
        }
    }
    if let Some(line) = &diagnosis.revoked_by {
        rows.push(("revoked", format!("by the line: revoked {line}")));
    }
    rows.push(("from", diagnosis.source.to_string()));
    rows.push(match &diagnosis.verdict {
        Ok(who) => ("accepted", format!("as {who}")),
        Err(refusal) => ("refused", refusal.to_string()),
    });
    rows.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}

fn to_json(file: &Path, diagnosis: &Diagnosis) -> Value {
    let certificate = diagnosis.certificate.as_ref().map(|facts| {
        let options = facts.options.iter().map(|(k, v)| (k.clone(), json!(v)));
        json!({
            "key_id": facts.key_id,
            "serial": facts.serial.to_string(),
            "type": if facts.host { "host" } else { "user" },
            "signed_by": facts.signer,
            "authority": facts.authority,
            "principals": facts.principals,
            "valid_after": at(facts.valid_after),
            "valid_before": at(facts.valid_before),
            "options": options.collect::<serde_json::Map<_, _>>(),
        })
    });
    let (accepted_as, kind, reason) = match &diagnosis.verdict {
        Ok(who) => (Some(who), None, None),
        Err(refusal) => (None, Some(refusal.kind()), Some(refusal.to_string())),
    };
    json!({
        "ok": true,
        "file": file,
        "key": diagnosis.key,
        "certificate": certificate,
        "revoked_by": diagnosis.revoked_by,
        "source": diagnosis.source.to_string(),
        "accepted": diagnosis.verdict.is_ok(),
        "accepted_as": accepted_as,
        "refused": kind,
        "reason": reason,
    })
}
