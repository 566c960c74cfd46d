//! Whoever watches what is done on each host, while it is done.
//!
//! A run says which step it begins; this is what happens within one: several hosts are worked on at
//! a time, and an executable is on its way for minutes. It changes nothing and is told from several
//! threads, so whoever listens must not wait for what comes later.

use std::fmt;
use std::sync::Arc;

/// Somebody who watches.
pub trait Watch: Send + Sync {
    /// Something begins on the host of a node.
    fn begins(&self, node: &str, what: &str);

    /// What began there is over, well or not.
    fn ends(&self, node: &str);

    /// So many bytes of an executable are on their way to the host of a node.
    fn sent(&self, node: &str, sent: u64, total: u64);
}

/// Whether somebody watches.
#[derive(Clone, Default)]
pub struct Watched(Option<Arc<dyn Watch>>);

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.0.is_some()).finish()
    }
}

impl Watched {
    /// Somebody does.
    pub fn by(watch: Arc<dyn Watch>) -> Watched {
        Watched(Some(watch))
    }

    /// Does something on the host of a node.
    pub(super) fn during<T>(&self, node: &str, what: &str, act: impl FnOnce() -> T) -> T {
        let Some(watch) = &self.0 else { return act() };
        watch.begins(node, what);
        let done = act();
        watch.ends(node);
        done
    }

    /// So many bytes of an executable are on their way.
    pub(super) fn sent(&self, node: &str, sent: u64, total: u64) {
        if let Some(watch) = &self.0 {
            watch.sent(node, sent, total);
        }
    }
}
