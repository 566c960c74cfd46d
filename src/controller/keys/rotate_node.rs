//! The key of one node is replaced by another while the cluster serves.
//!
//! ```text
//! noted       which key is to go stands beside the keys here
//! made        the node's host has another key; the node uses the one before
//! certified   by the authorities that sign; delivered, and the node uses it from then on
//! proven      with it the node is let in by the others, and by it recognised
//! revoked     the key before, in the next bundle; connections made with it are cut
//! ```
//!
//! The node is not restarted: connections that are made after the delivery are made with the new
//! key, those before stay as they are until the last step, and are made again then. That the node
//! is let in with it is proven before the one before is revoked: there is no way back from that.
//!
//! The note here says that this is under way, and the node's host how far it is: which of its keys
//! the certificates there are for (see [`node_key`](crate::transport::node_key)). Each step can be
//! done again by whoever has the keys. Whatever else certifies the node meanwhile certifies the key
//! that its certificates on the host are for, and undoes at most what is done again.
//!
//! What must never happen: the new key leaves its host; a key is revoked that its node still uses.

use super::authorities::Phase;
use super::delivery::{Delivered, Reached, key_in};
use super::issued::{Revoked, Target};
use super::issuer::{Issuer, NODE_ROLES};
use super::{ClusterKeys, KeysError, parse_public, read_optional};
use crate::controller::check::trial_login::{Dial, Outcome};
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::host::Place;
use crate::controller::inventory::NodeSpec;
use crate::controller::observe::ASK_LIMIT;
use crate::controller::wait::at_once;
use crate::controller::{host_failure, keys_failure};
use crate::transport::authority::{self, PublicKey};
use crate::transport::bundle::AuthorityRole;
use crate::transport::identity::host_principal;
use crate::wire::failure::{Code, Failure};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// The key of a node that is to be revoked, beside the certificates of its next one.
const REPLACED: &str = "replaced.pub";

/// Why the key before is revoked, for those who ask later.
const REASON: &str = "replaced by another key of the node";

/// A node that has another key now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Its name.
    pub node: String,
    /// The fingerprint of its key.
    pub key: String,
    /// What revokes the one before.
    pub revoked: Revoked,
    /// How far each node is.
    pub delivered: Vec<Delivered>,
}

impl ClusterKeys {
    pub(super) fn replaced_path(&self, node: &str) -> PathBuf {
        self.node_path(node, REPLACED)
    }

    /// The key of this node that is being replaced, if one is.
    pub(super) fn replaced(&self, node: &str) -> Result<Option<PublicKey>, KeysError> {
        let path = self.replaced_path(node);
        read_optional(&path)?.map(|line| parse_public(&path, &line)).transpose()
    }
}

impl Cluster {
    /// Replaces the key of the named node by a new one, which is made on its host and stays there;
    /// then the one before is revoked. Goes on with that where it was begun.
    ///
    /// # Errors
    /// When an authority is being replaced or somebody else is at work, the node is not installed,
    /// or a step failed: then it stands where it stands, and [`Cluster::resume_keys`] goes on.
    pub fn rotate_node_key(
        &self,
        name: &str,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Replaced, Failure> {
        self.named(left_out)?;
        let node = self.known(name)?;
        let mut issuer = self.issuer()?;
        let under_way = issuer.keys().rotating().map_err(keys_failure)?;
        if let Some((role, _)) = under_way.filter(|(_, phase)| *phase != Phase::Dropping) {
            let message = format!("the {role} authority is being replaced; {name} keeps its key");
            let hint = "go on with that first: paxos-ctl keys resume";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        issuer.must_be_able(&NODE_ROLES).map_err(keys_failure)?;
        issuer.must_be_able(&[AuthorityRole::Root]).map_err(keys_failure)?;
        issuer.ask_for_way_in(SystemTime::now()).map_err(keys_failure)?;
        let _exclusive = self.exclusive("keys rotate")?;
        self.must_be_newest(issuer.keys())?;
        if issuer.keys().replaced(name).map_err(keys_failure)?.is_none() {
            say(&format!("{name}: note which key is to go"))?;
            let line = self.line_of(node)?;
            issuer.note_replaced(name, &line).map_err(keys_failure)?;
        }
        self.replace_node_key(&mut issuer, node, left_out, say)
    }

    /// Goes on with every node whose key is being replaced and that is not among those left out.
    pub(super) fn go_on_replacing(
        &self,
        issuer: &mut Issuer,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Vec<Replaced>, Failure> {
        let mut begun = Vec::new();
        for node in self.named(&[])? {
            let is_begun = issuer.keys().replaced(&node.name).map_err(keys_failure)?.is_some();
            if is_begun && !left_out.contains(&node.name) {
                begun.push(node);
            }
        }
        if begun.is_empty() {
            return Ok(Vec::new());
        }
        self.must_be_newest(issuer.keys())?;
        let go_on = |node| self.replace_node_key(issuer, node, left_out, say);
        begun.into_iter().map(go_on).collect()
    }

    /// The public line of the key that the node uses.
    fn line_of(&self, node: &NodeSpec) -> Result<String, Failure> {
        let found = self.look_at_keys(node).map_err(host_failure)?;
        let line = key_in(&found, node).map_err(host_failure)?;
        line.map(str::to_owned).ok_or_else(|| {
            let message = format!("{} is not installed, and has no key to replace", node.name);
            Failure::new(Code::NotFound, message, "deploy makes its first one")
        })
    }

    fn replace_node_key(
        &self,
        issuer: &mut Issuer,
        node: &NodeSpec,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Replaced, Failure> {
        let (name, place) = (&node.name, Place::of(node));
        let mut line = self.line_of(node)?;
        let is_old = |issuer: &Issuer, line: &str| -> Result<bool, KeysError> {
            let key = parse_public(&issuer.keys().replaced_path(name), line)?;
            let old = issuer.keys().replaced(name)?;
            Ok(old.is_some_and(|old| old.key_data() == key.key_data()))
        };
        if is_old(issuer, &line).map_err(keys_failure)? {
            say(&format!("{name}: make another key on its host"))?;
            line = self.host.next_node_key(&place, name).map_err(host_failure)?;
        }
        say(&format!("{name}: certify its new key"))?;
        let now = SystemTime::now();
        issuer.ensure_node(name, node.id, &line, now).map_err(keys_failure)?;
        if issuer.ensure_operator(now).map_err(keys_failure)? {
            say("issue the operator's certificate")?;
        }
        say(&format!("{name}: have it use its new key"))?;
        let reached = self.deliver_for(issuer.keys(), node, Some(&line)).map_err(host_failure)?;
        if reached == Reached::Active {
            say(&format!("{name}: make new logins with it"))?;
            self.prove_node(issuer, node)?;
        }
        say(&format!("{name}: keep its new key only"))?;
        self.host.settle_node_key(&place).map_err(host_failure)?;
        say(&format!("{name}: revoke its key before"))?;
        let old = Target::File(issuer.keys().replaced_path(name));
        let revoked = issuer.revoke(&old, REASON, now).map_err(keys_failure)?;
        let delivered = self.deliver_keys(issuer.keys(), left_out, say)?;
        if reached == Reached::Active {
            let mut nodes = self.named(&[])?;
            nodes.retain(|node| !left_out.contains(&node.name));
            self.wait_heard(&self.strict_asker(issuer)?, node, &nodes, Instant::now())?;
        }
        issuer.forget_replaced(name).map_err(keys_failure)?;
        let key = parse_public(&issuer.keys().replaced_path(name), &line).map_err(keys_failure)?;
        Ok(Replaced { node: name.clone(), key: authority::print(&key), revoked, delivered })
    }

    /// New logins at the node, and of the node at the others.
    fn prove_node(&self, issuer: &Issuer, node: &NodeSpec) -> Result<(), Failure> {
        let answers = self.strict_asker(issuer)?.ask(&[node], ASK_LIMIT);
        let refused = answers.into_values().find_map(Result::err);
        let others: Vec<&NodeSpec> = self.named(&[])?;
        let proven = match refused {
            Some(why) => Err(format!("{} was not logged in to with it: {why}", node.name)),
            None => self.prove_links(issuer.keys(), &[node], &others),
        };
        proven.map_err(|why| {
            let message = format!("{why}; its key before is not revoked");
            let hint = "mend it, and go on: paxos-ctl keys resume";
            Failure::new(Code::Internal, message, hint)
        })
    }

    /// Has each of some nodes log in at each of others, with the certificates that lie on its host.
    /// Whoever does not answer, or is not to be reached from there, shows nothing of keys.
    ///
    /// # Errors
    /// Who was refused, or refused the other, and why.
    pub(super) fn prove_links(
        &self,
        keys: &ClusterKeys,
        from: &[&NodeSpec],
        to: &[&NodeSpec],
    ) -> Result<(), String> {
        let signs = keys.current(AuthorityRole::Host).map(authority::public_line);
        let authorities: Vec<String> = signs.into_iter().collect();
        let dial = |node: &NodeSpec| Dial {
            node: node.name.clone(),
            host: node.host.clone(),
            port: node.port,
            principal: host_principal(&node.name, &self.inventory.cluster),
            authorities: authorities.clone(),
            stand_in: false,
        };
        let outcomes = at_once(from, |node| {
            let others: Vec<Dial> = to
                .iter()
                .filter(|other| other.name != node.name)
                .map(|other| dial(other))
                .collect();
            self.host.dial(&Place::of(node), &others)
        });
        for (node, outcome) in from.iter().zip(outcomes) {
            for dialled in outcome.map_err(|error| error.to_string())? {
                match dialled.outcome {
                    Outcome::Stranger(why) => {
                        return Err(format!(
                            "{} does not recognise {}: {why}",
                            node.name, dialled.node
                        ));
                    }
                    Outcome::Denied(why) => {
                        return Err(format!(
                            "{} does not let {} in: {why}",
                            dialled.node, node.name
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Issuer {
    fn note_replaced(&self, node: &str, line: &str) -> Result<(), KeysError> {
        let path = self.keys.replaced_path(node);
        let key = parse_public(&path, line)?;
        Ok(authority::write_file(&path, authority::public_line(&key).as_bytes(), 0o644)?)
    }

    fn forget_replaced(&self, node: &str) -> Result<(), KeysError> {
        let path = self.keys.replaced_path(node);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(KeysError::file("remove", &path)),
        }
    }
}
