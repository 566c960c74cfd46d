//! The newest bundle into the cluster's log, from which nodes take it up whose hosts no controller
//! reaches.
//!
//! It is a second way, and never the only one: it needs a quorum and a certificate that nodes still
//! believe, and a node that is cut off from its peers hears nothing by it. So whoever was not
//! reached is named all the same, and that nothing could be published is said and is no failure.
//!
//! What must never happen: nodes that were not reached count as told because of this.
//!
//! A rotation has nodes forget an authority one at a time, so it publishes when the last of them
//! was told. A revocation in the middle of that is more urgent: its bundle goes to all at once, and
//! those that had not forgotten yet do so together and dial each other again.

use super::ClusterKeys;
use super::delivery::{Delivered, Reached};
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::inventory::NodeSpec;
use crate::controller::observe::{ASK_LIMIT, Asker, leader};
use crate::wire::failure::Failure;

impl Cluster {
    /// Has a node put the bundle that it goes by into the log, if it is not there.
    ///
    /// # Errors
    /// When somebody wants no more progress.
    pub(super) fn publish_keys(
        &self,
        keys: &ClusterKeys,
        delivered: &[Delivered],
        say: Progress<'_>,
    ) -> Result<(), Failure> {
        let active = delivered.iter().filter(|one| one.reached == Reached::Active);
        let nodes: Vec<&NodeSpec> =
            active.map(|one| self.known(&one.node)).collect::<Result<_, _>>()?;
        if nodes.is_empty() {
            return Ok(());
        }
        let epoch = keys.bundle().epoch;
        match self.publish_by(keys, &nodes) {
            Ok(()) => say(&format!("the bundle of epoch {epoch} is in the cluster's log")),
            Err(why) => say(&format!(
                "whether the bundle of epoch {epoch} is in the cluster's log is not known, so \
                 nodes that were not reached may not hear of it: {why}"
            )),
        }
    }

    fn publish_by(&self, keys: &ClusterKeys, nodes: &[&NodeSpec]) -> Result<(), String> {
        let asker = Asker::new(keys, &self.inventory.cluster).map_err(|error| error.message)?;
        let answers = asker.ask(nodes, ASK_LIMIT);
        let leads = leader(&answers).ok_or("no leader is known")?;
        // Any other hands it to the leader.
        let node = nodes.iter().find(|node| node.name == leads).unwrap_or(&nodes[0]);
        let command = format!("paxos trust publish --timeout {}ms", ASK_LIMIT.as_millis());
        asker.tell(node, &command, ASK_LIMIT)
    }
}
