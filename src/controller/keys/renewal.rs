//! All certificates of one kind anew, by the authority that signs already.
//!
//! Each is signed again for as long as one of its kind is valid. The ones before stay valid until
//! they run out: nothing is revoked by this, and nobody is cut off. So it can be cut short at any
//! line and done again, which renews once more.

use super::certified::Certified;
use super::delivery::{Delivered, key_in};
use super::issuer::Issuer;
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::keys_failure;
use crate::controller::wait::at_once;
use crate::transport::bundle::AuthorityRole;
use crate::wire::failure::Failure;
use std::time::SystemTime;

/// What was renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Of which kind.
    pub role: AuthorityRole,
    /// Nodes, or people.
    pub names: Vec<String>,
    /// How far each node is.
    pub delivered: Vec<Delivered>,
}

impl Cluster {
    /// Renews every certificate of a kind: the host or the peer certificates of all nodes, or those
    /// of people that lie in the keys directory and are valid still. What is revoked stays so.
    ///
    /// # Errors
    /// When somebody else is at work, a certificate cannot be signed, or a node was not reached
    /// that is not among those `left_out`; the others are renewed then.
    pub fn renew_role(
        &self,
        role: AuthorityRole,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Renewed, Failure> {
        self.named(left_out)?;
        let issuer = self.issuer()?;
        issuer.must_be_able(&[role]).map_err(keys_failure)?;
        issuer.ask_for_way_in(SystemTime::now()).map_err(keys_failure)?;
        let _exclusive = self.exclusive("keys rotate")?;
        let now = SystemTime::now();
        let (names, mut certified) = match role {
            AuthorityRole::Operator => {
                say("renew the certificates of people")?;
                let mut certified = Certified::default();
                let names = certified.signed(issuer.renew_people(now))?;
                (names.unwrap_or_default(), certified)
            }
            AuthorityRole::Host | AuthorityRole::Peer => self.renew_nodes(&issuer, role, say)?,
            // It signs no certificates.
            AuthorityRole::Root => (Vec::new(), Certified::default()),
        };
        if certified.signed(issuer.ensure_operator(now))? == Some(true) {
            say("issue the operator's certificate")?;
        }
        let delivered = self.deliver_keys(issuer.keys(), left_out, say)?;
        certified.must_be_all(left_out)?;
        Ok(Renewed { role, names, delivered })
    }

    fn renew_nodes(
        &self,
        issuer: &Issuer,
        role: AuthorityRole,
        say: Progress<'_>,
    ) -> Result<(Vec<String>, Certified), Failure> {
        let (mut names, mut certified) = (Vec::new(), Certified::default());
        let nodes = self.named(&[])?;
        for (node, found) in nodes.iter().zip(at_once(&nodes, |node| self.look_at_keys(node))) {
            let line = found.and_then(|found| Ok(key_in(&found, node)?.map(str::to_owned)));
            match line {
                Ok(Some(line)) if issuer.keys().is_revoked(&line) => {
                    say(&format!("{}: its key is revoked, and stays so", node.name))?;
                }
                Ok(Some(line)) => {
                    say(&format!("{}: renew its {role} certificate", node.name))?;
                    let renewed =
                        issuer.renew_node(role, &node.name, node.id, &line, SystemTime::now());
                    if certified.signed(renewed)?.is_some() {
                        names.push(node.name.clone());
                    }
                }
                // Nothing of it is installed.
                Ok(None) => {}
                Err(error) => certified.miss(error),
            }
        }
        Ok((names, certified))
    }
}
