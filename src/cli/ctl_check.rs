//! `paxos-ctl check`: a table of what is as it should be on every host and what is not.

use super::ctl::Reply;
use super::ctl_deploy::speaker;
use super::exit;
use crate::controller::deploy::Cluster;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;

/// Exit 0 if nothing failed; warnings do not count.
pub(super) fn check(cluster: &Cluster, format: Format) -> Result<Reply, Failure> {
    let mut speaker = speaker(format);
    // Nothing is being changed, so an interrupt ends it as it ends any program.
    let report = cluster.check(&mut |step| {
        speaker.step(step);
        Ok(())
    })?;
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
