//! Who was certified anew, and who could not be, for whatever brings certificates to nodes: what
//! was signed is delivered first, and what was not is told at the end.

use super::KeysError;
use super::delivery::unfinished;
use crate::controller::host::HostError;
use crate::controller::{keys_failure, told};
use crate::wire::failure::Failure;

/// Who was certified by the authority that signs.
#[derive(Default)]
pub(super) struct Certified {
    /// People whose certificates were signed again.
    pub(super) people: Vec<String>,
    /// Nodes of which it is not known whether they were.
    unseen: Vec<HostError>,
    /// Why somebody was not: the first reason.
    unsigned: Option<KeysError>,
    /// Whether a node was not.
    misses_node: bool,
}

impl Certified {
    /// A node could not be looked at.
    pub(super) fn miss(&mut self, error: HostError) {
        self.unseen.push(error);
    }

    /// What came of a signature. One whose key is not at hand is told of when all others were seen
    /// to: nobody waits for a revocation because something else is not signed.
    ///
    /// # Errors
    /// What else went wrong.
    pub(super) fn signed<T>(
        &mut self,
        outcome: Result<T, KeysError>,
    ) -> Result<Option<T>, Failure> {
        match outcome {
            Ok(signed) => Ok(Some(signed)),
            Err(error) if error.is_unsigned() || matches!(error, KeysError::Interrupted) => {
                self.unsigned.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(keys_failure(error)),
        }
    }

    /// As [`Certified::signed`], for a node.
    ///
    /// # Errors
    /// As there.
    pub(super) fn signed_node<T>(
        &mut self,
        outcome: Result<T, KeysError>,
    ) -> Result<Option<T>, Failure> {
        let signed = self.signed(outcome)?;
        self.misses_node |= signed.is_none();
        Ok(signed)
    }

    /// Whether every node was, but for those left out, before anything is forgotten.
    ///
    /// # Errors
    /// As [`Certified::must_be_all`].
    pub(super) fn must_be_all_nodes(&self, left_out: &[String]) -> Result<(), Failure> {
        let is_missed = self.unseen.iter().any(|error| !left_out.contains(&error.node));
        if !self.misses_node && !is_missed {
            return Ok(());
        }
        self.all_but(left_out, "a node was not certified anew, so nothing was forgotten")
    }

    /// A failure that comes before this one is told.
    pub(super) fn beside(&self, mut failure: Failure) -> Failure {
        if let Some(error) = &self.unsigned {
            let why = told(error.code(), &error.to_string());
            failure.message = format!("{}; besides, {}", failure.message, why.message);
        }
        failure
    }

    /// Whether everybody was, but for those left out. One that comes back while it is asked for
    /// gets the bundle with the certificates of before, and would be cut off by the next stage.
    pub(super) fn must_be_all(&self, left_out: &[String]) -> Result<(), Failure> {
        let what = "the nodes were brought what there is, but not everything was signed";
        self.all_but(left_out, what)
    }

    fn all_but(&self, left_out: &[String], what: &str) -> Result<(), Failure> {
        let unseen = self.unseen.iter().filter(|error| !left_out.contains(&error.node));
        let unseen: Vec<_> = unseen.map(|error| (error.to_string(), error.hint.clone())).collect();
        match (&self.unsigned, unseen.is_empty()) {
            (_, false) => Err(unfinished("not every node was certified anew", &unseen)),
            (None, true) => Ok(()),
            (Some(error), true) => {
                let why = told(error.code(), &error.to_string());
                let hint = format!("{}; then go on: paxos-ctl keys resume", why.hint);
                Err(Failure::new(why.code, format!("{what}: {}", why.message), hint))
            }
        }
    }
}
