//! The trust bundles that the log brings, judged one after the other where they come by.
//!
//! Whoever can propose a command can put bytes into the log that claim to be a bundle of any epoch.
//! So nothing counts of a bundle before a root key that the one before it names has signed it:
//! neither its epoch nor its place. Each is judged in its turn, since a root key is replaced by a
//! bundle that both root keys sign, and the next one may be signed by the new one alone.
//!
//! This runs on the node's own thread, also while the log is read at the start. It reads no file
//! and waits for nobody; a signature costs some hundred microseconds. What passes is handed to the
//! [`Keyring`](super::keyring::Keyring), which does the rest elsewhere.
//!
//! What must never happen: what nobody believed changes how the next bundle is judged.

use super::bundle::Bundle;
use super::live::LiveTrust;
use russh::keys::PublicKey;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::warn;

/// A bundle of the log that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub(super) bundle: Bundle,
    pub(super) signed: String,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Epoch of the newest bundle in the log that was believed; 0 before there is one.
    pub(super) in_log: AtomicU64,
    /// How many that claimed to be newer were not.
    pub(super) refused: AtomicU64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Succession {
    trust: Arc<LiveTrust>,
    pinned: PublicKey,
    /// The newest that came by, which may not be active yet.
    newest: Option<Bundle>,
    seen: Arc<Seen>,
}

impl Succession {
    pub(super) fn new(trust: Arc<LiveTrust>, pinned: PublicKey, seen: Arc<Seen>) -> Succession {
        Succession { trust, pinned, newest: None, seen }
    }

    /// Judges the next bundle of the log, which claims to be of this epoch. Gives it if it is newer
    /// than all before it and than the active one, and believed.
    pub fn judge(&mut self, epoch: u64, signed: &[u8]) -> Option<Published> {
        let active = self.trust.load();
        let newest = self.newest.as_ref().filter(|newest| newest.epoch > active.epoch());
        let newest = newest.unwrap_or_else(|| active.bundle());
        if epoch < newest.epoch {
            return None;
        }
        match believed(newest, &self.pinned, epoch, signed) {
            Ok((bundle, signed)) => {
                self.seen.in_log.fetch_max(epoch, Ordering::Relaxed);
                let is_news = epoch > newest.epoch;
                is_news.then(|| {
                    self.newest = Some(bundle.clone());
                    Published { bundle, signed }
                })
            }
            Err(error) => {
                // The first is told; whoever sends one can send many.
                if self.seen.refused.fetch_add(1, Ordering::Relaxed) == 0 {
                    warn!(epoch, error, "a trust bundle in the log is not believed");
                }
                None
            }
        }
    }
}

fn believed(
    before: &Bundle,
    pinned: &PublicKey,
    epoch: u64,
    signed: &[u8],
) -> Result<(Bundle, String), String> {
    let signed = std::str::from_utf8(signed).map_err(|error| error.to_string())?;
    let bundle = Bundle::verify_by_any(signed, &before.roots(pinned));
    let bundle = bundle.map_err(|error| error.to_string())?;
    if bundle.epoch != epoch {
        return Err(format!("it was published as epoch {epoch}, and has {}", bundle.epoch));
    }
    before.may_become(&bundle).map_err(|error| error.to_string())?;
    Ok((bundle, signed.to_owned()))
}
