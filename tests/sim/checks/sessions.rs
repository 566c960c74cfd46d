//! Exactly once: a request takes effect at most once, however often its node proposes it again, and
//! however often a client repeats it at other nodes under its request id.
//!
//! Source: Ongaro, "Consensus: Bridging Theory and Practice" (2014), §6.3: servers keep the outcome
//! of a session's requests, and a repeated one finds it instead of being executed.
//!
//! Every write of these clients has a key of its own, so a second execution shows as a second
//! version, and an outcome of a second execution as another revision.

use super::violated;
use bytes::Bytes;
use paxos_ssh::node::driver::StoreView;
use paxos_ssh::store::command::Outcome;

/// See the module's documentation.
#[derive(Default)]
pub struct Sessions {
    /// Requests that were answered once more, and the same.
    pub confirmed: u64,
    /// Requests that were asked more than once.
    pub repeated: u64,
}

impl Sessions {
    /// A request is asked again, perhaps elsewhere.
    pub fn repeated(&mut self) {
        self.repeated += 1;
    }

    /// A request that had been answered is answered again: always the same.
    pub fn told(&mut self, key: &Bytes, known: &Outcome, outcome: &Outcome) {
        self.confirmed += 1;
        if known != outcome {
            let what = format!("a request for {key:?} is answered {outcome:?}, and not {known:?}");
            violated("sessions", &what);
        }
    }

    /// No key that is written once was written twice.
    pub fn complete(&self, view: &StoreView) {
        for (key, found) in view.list(b"c", None, usize::MAX) {
            if found.version != 1 {
                let key = String::from_utf8_lossy(&key);
                violated("sessions", &format!("{key} was written {} times", found.version));
            }
        }
    }
}
