//! `paxos-ctl check`: a table of what is as it should be on every host and what is not.

use super::ctl::Reply;
use super::ctl_deploy::speaker;
use super::exit;
use super::progress::Ended;
use crate::controller::deploy::Cluster;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;

/// Exit 0 if nothing failed; warnings do not count.
pub(super) fn check(cluster: &Cluster, format: Format) -> Result<Reply, Failure> {
    // A look has no events; and an interrupt ends it as it ends any program.
    let mut telling = match format {
        Format::Table => Some(speaker(format).begin(None, cluster.node_names())),
        Format::Json => None,
    };
    let checked = cluster.check(&mut |step| {
        if let Some(telling) = &mut telling {
            telling.step(step);
        }
        Ok(())
    });
    if let Some(telling) = telling {
        telling.end(Ended::of(&checked));
    }
    let report = checked?;
    let json = serde_json::to_value(&report).map_err(|error| {
        let message = format!("the report cannot be written as JSON: {error}");
        Failure::new(Code::Internal, message, "report this fault")
    })?;
    let exit = match report.ok {
        true => exit::DONE,
        false => Code::BadSettings.exit(),
    };
    Ok(Reply { exit, text: report.to_text(), json })
}
