//! Whether the keys here are the newest copy, by what hosts hold and nodes go by.
//!
//! A bundle that is signed on an old copy has a higher epoch than one that it does not know of, and
//! what that one revoked would be believed again, after one more. So hosts and nodes are asked
//! before anything is signed, and nothing is laid over what is newer. Whoever cannot be reached
//! says nothing: this narrows the hole and does not close it.
//!
//! What must never happen: one node that was taken over keeps everybody from revoking its keys, by
//! what it says of newer ones.

use super::ClusterKeys;
use super::delivery::file_in;
use crate::controller::deploy::Cluster;
use crate::controller::host::{Found, Place};
use crate::controller::wait::at_once;
use crate::transport::authority::PublicKey;
use crate::transport::bundle::Bundle;
use crate::transport::identity;
use crate::wire::failure::{Code, Failure};
use std::fmt;

/// What to do with an old copy of the keys.
pub(super) const NEWEST_COPY: &str = "use the newest copy of the keys directory (--keys-dir)";

/// What the keys here do not know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newer {
    /// A bundle of a higher epoch, or another one of the same.
    Bundle {
        /// Of that one.
        there: u64,
        /// Of the newest here.
        here: u64,
    },
    /// Another root key, where a node of the cluster is.
    Root,
}

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Newer::Bundle { there, here } if there == here => write!(
                f,
                "there is another bundle of epoch {there} than here: two copies of the keys \
                 directory were used to sign"
            ),
            Newer::Bundle { there, here } => write!(
                f,
                "there is a bundle of epoch {there}, and the newest here has epoch {here}: the \
                 keys directory is an old copy"
            ),
            Newer::Root => write!(
                f,
                "there is a root key that the keys here have never heard of: they are an old \
                 copy, from before the root key was replaced, or another cluster's"
            ),
        }
    }
}

/// What a host holds that these keys do not know of.
pub(in crate::controller) fn newer(keys: &ClusterKeys, found: &Found) -> Option<Newer> {
    let text = |name| std::str::from_utf8(file_in(found, name)?).ok();
    // What lies on a host without a log is nobody's any more.
    let is_node = found.log || found.running.is_some();
    let root = text(identity::ROOT).and_then(|line| PublicKey::from_openssh(line.trim()).ok());
    if is_node && root.is_some_and(|root| !keys.had_root(&root)) {
        return Some(Newer::Root);
    }
    let ours = keys.bundle();
    let there = Bundle::verify_by_any(text(identity::BUNDLE)?, &ours.roots(keys.root())).ok()?;
    // Of one epoch there is one bundle, or two copies of the keys were both used to sign.
    let is_other = there.epoch == ours.epoch && there != *ours;
    let (there, here) = (there.epoch, ours.epoch);
    (there > here || is_other).then_some(Newer::Bundle { there, here })
}

impl Newer {
    /// Whether a root key that we know vouches for it. All else is what a host says, and a node
    /// that was taken over can say anything.
    fn is_proven(self, by_a_bundle: bool) -> bool {
        by_a_bundle && matches!(self, Newer::Bundle { .. })
    }
}

/// One look at a host.
struct Look {
    newer: Newer,
    is_proven: bool,
}

/// What is so of the keys, by looks at all hosts that could be looked at: what one of them proves,
/// or what more than half of them say. So one node that was taken over keeps nobody from revoking
/// it, and an old copy of the keys finds the others in agreement.
fn judge<T>(looks: impl IntoIterator<Item = (T, Option<Look>)>) -> Option<(T, Newer)> {
    let looks: Vec<_> = looks.into_iter().collect();
    let count = looks.len();
    let told = looks.iter().filter(|(_, look)| look.is_some()).count();
    let is_agreed = told * 2 > count;
    let found = looks.into_iter().filter_map(|(of, look)| Some((of, look?)));
    let mut found = found.filter(|(_, look)| look.is_proven || is_agreed);
    found.next().map(|(of, look)| (of, look.newer))
}

/// Takes back what single hosts say of a newer root key, where the others do not.
pub(in crate::controller) fn discount<'a>(nodes: impl Iterator<Item = &'a mut Option<Newer>>) {
    let nodes: Vec<_> = nodes.collect();
    let told = nodes.iter().filter(|newer| ***newer == Some(Newer::Root)).count();
    if told * 2 <= nodes.len() {
        nodes.into_iter().filter(|newer| **newer == Some(Newer::Root)).for_each(|n| *n = None);
    }
}

impl Cluster {
    /// Refuses to sign with a copy of the keys that is not the newest. Nodes are asked as well: a
    /// bundle may have come to them through the log alone.
    pub(in crate::controller) fn must_be_newest(&self, keys: &ClusterKeys) -> Result<(), Failure> {
        let nodes = self.named(&[])?;
        let here = keys.bundle().epoch;
        let looks = at_once(&nodes, |node| {
            let found = self.look_at_keys(node).ok()?;
            if let Some(newer) = newer(keys, &found) {
                return Some(Some(Look { newer, is_proven: newer.is_proven(true) }));
            }
            let status = found.running.and_then(|_| self.host.status(&Place::of(node)).ok());
            let there = status.and_then(|status| status.bundle).map_or(0, |bundle| bundle.epoch);
            let newer = Newer::Bundle { there, here };
            Some((there > here).then_some(Look { newer, is_proven: newer.is_proven(false) }))
        });
        let looked = nodes.iter().zip(looks).filter_map(|(node, look)| Some((node, look?)));
        match judge(looked) {
            None => Ok(()),
            Some((node, newer)) => {
                let message = format!("{}: {newer}; nothing was signed", node.name);
                Err(Failure::new(Code::BadSettings, message, NEWEST_COPY))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_proves_or_more_than_half_say_so() {
        let proven = Newer::Bundle { there: 3, here: 2 };
        let look = |newer: Newer, by_a_bundle| {
            Some(Look { newer, is_proven: newer.is_proven(by_a_bundle) })
        };
        let judged = |looks: Vec<Option<Look>>| judge((1..).zip(looks)).map(|(of, _)| of);
        assert_eq!(judged(vec![None, look(proven, true), None]), Some(2));
        // A node that was taken over.
        assert_eq!(judged(vec![None, look(Newer::Root, true), None]), None);
        assert_eq!(judged(vec![None, look(proven, false)]), None);
        // An old copy of the keys.
        assert_eq!(judged(vec![None, look(Newer::Root, true), look(proven, false)]), Some(2));
        assert_eq!(judged(vec![look(Newer::Root, true)]), Some(1));
        assert_eq!(judged(Vec::new()), None);
        let mut facts = [Some(Newer::Root), None, Some(proven)];
        discount(facts.iter_mut());
        assert_eq!(facts, [None, None, Some(proven)]);
        let mut facts = [Some(Newer::Root), None, Some(Newer::Root)];
        discount(facts.iter_mut());
        assert_eq!(facts, [Some(Newer::Root), None, Some(Newer::Root)]);
    }
}
