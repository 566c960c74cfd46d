//! What happened on the network, as numbers that only grow.
//!
//! Plain atomics: whoever publishes metrics reads them. Nothing decides by them.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn increment(&self) {
        self.add(1);
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// All counters of one node's transport.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Name, help text and value of each. A help text is a comment without the blank that
            /// parts it from the slashes.
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($help),+).trim_start(), self.$name.value()),)+]
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Errors of accept, such as no more file descriptors.
    accept_errors,
    /// Connections that authenticated.
    authenticated,
    /// Keys and certificates that were refused.
    refused_keys,
    /// Connections of members that were let in although their certificate had expired.
    overdue_members,
    /// Connections cut because the key or certificate at their far end was revoked, or is not
    /// believed any more for another reason.
    disowned,
    /// Connections that ended before they authenticated.
    unauthenticated_ended,
    /// Connections cut because too many had not authenticated, or one took too long.
    unauthenticated_cut,
    /// Connections closed at once because there were too many.
    connections_refused,
    /// Requests of authenticated clients that are not offered: forwarding, unknown subsystems and
    /// so on.
    refused_requests,
    /// Channels closed because their client ignored flow control.
    stdin_overflows,
    /// Links of peers cut because of what they sent.
    peer_protocol_errors,
    /// Frames received from peers.
    frames_received,
    /// Bytes of frames received from peers.
    bytes_received,
    /// Frames sent to peers.
    frames_sent,
    /// Bytes of frames sent to peers.
    bytes_sent,
    /// Frames dropped because a peer's queue was full.
    frames_dropped_full,
    /// Frames dropped because there was no link to the peer.
    frames_dropped_down,
    /// Links to peers that came up.
    links_up,
    /// Links to peers that went down.
    links_down,
    /// Dials of peers that failed.
    dials_failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_texts_begin_with_a_word() {
        for (name, help, _) in Counters::default().all() {
            assert!(help.starts_with(|first: char| first.is_uppercase()), "{name}: {help:?}");
        }
    }
}
