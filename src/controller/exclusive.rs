//! One controller at a time works on the hosts of a cluster.
//!
//! Before it changes anything a run takes the [`lock`](super::lock) of each host that it can reach,
//! keeps it while it works, and lets go of it at its end. One that somebody else has is a failure
//! that says who, and all that was taken is let go of: nobody waits with half of the hosts. A host
//! on which nothing of ours is installed has no lock yet; [`Exclusive::renew`] takes it once there
//! is.
//!
//! What must hold: a run that lost a host to another changes nothing there any more. The agent on
//! a host over ssh sees to that; see [`lock`](super::lock) for the moment that remains. On this
//! machine nobody does: a controller that was suspended for longer than a lock lasts goes on.

use super::deploy::Cluster;
use super::host::{Host, Place, Wanted};
use super::host_failure;
use super::journal::whoever_it_is;
use super::lock::{Holder, STALE_AFTER, TOUCH_EVERY};
use super::wait::at_once;
use crate::wire::failure::{Code, Failure};
use rand::RngExt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// The hosts are held while this lives.
pub struct Exclusive {
    host: Arc<dyn Host>,
    places: Vec<Place>,
    holder: Holder,
    /// Dropped when it is over.
    until: Option<SyncSender<()>>,
    toucher: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Takes every host of the inventory that can be reached, for `what`.
    ///
    /// # Errors
    /// When somebody else has one of them, or it cannot be taken.
    pub fn exclusive(&self, what: &str) -> Result<Exclusive, Failure> {
        let nothing = Wanted { executable: None, files: &[] };
        let places: Vec<Place> = self.inventory.nodes.iter().map(Place::of).collect();
        let reached = at_once(&places, |place| self.host.find(place, &nothing).is_ok());
        let reached = places.into_iter().zip(reached).filter(|(_, reached)| *reached);
        let run = format!("{:016x}", rand::rng().random::<u64>());
        let who = format!("{}: {what}", whoever_it_is());
        let mut exclusive = Exclusive {
            host: Arc::clone(&self.host),
            places: reached.map(|(place, _)| place).collect(),
            holder: Holder { who, run },
            until: None,
            toucher: None,
        };
        exclusive.renew()?;
        exclusive.keep_touching();
        Ok(exclusive)
    }
}

impl Exclusive {
    /// Takes those hosts, too, on which something was installed since, and those whose connection
    /// was made anew.
    ///
    /// # Errors
    /// As [`Cluster::exclusive`].
    pub fn renew(&self) -> Result<(), Failure> {
        let taken = at_once(&self.places, |place| self.host.hold(place, &self.holder));
        for (place, taken) in self.places.iter().zip(taken) {
            if let Some(busy) = taken.map_err(host_failure)? {
                let message = format!(
                    "somebody else is at work on the host of {}: {} (seen {} s ago)",
                    place.node, busy.who, busy.touched_seconds
                );
                let hint = format!(
                    "wait until they are done; if they are gone, the host is free {} s after it \
                     last heard of them",
                    STALE_AFTER.as_secs()
                );
                return Err(Failure::new(Code::Busy, message, hint));
            }
        }
        Ok(())
    }

    fn keep_touching(&mut self) {
        let (until, over) = sync_channel::<()>(0);
        let (host, places) = (Arc::clone(&self.host), self.places.clone());
        self.until = Some(until);
        self.toucher = Some(std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(TOUCH_EVERY) {
                // Whoever lost a host is told when they change something there.
                at_once(&places, |place| host.touch(place).is_ok());
            }
        }));
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.until = None;
        if let Some(toucher) = self.toucher.take() {
            let _panicked = toucher.join();
        }
        at_once(&self.places, |place| self.host.release(place));
    }
}
