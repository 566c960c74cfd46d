//! One controller at a time works on the hosts of a cluster.
//!
//! Before it changes anything a run takes the [`lock`](super::host::lock) of each host that it can
//! reach, keeps it while it works, and lets go of it at its end. One that somebody else has is a
//! failure that says who, and all that was taken is let go of: nobody waits with half of the hosts.
//! A host on which nothing of ours is installed has no lock yet; [`Exclusive::renew`] takes it once
//! there is.
//!
//! All that changes a cluster's hosts does so. Three ask nobody: `kill`, which is for when nothing
//! else helps; `exec`, of which nobody knows what it does; and `check`, which lays a program beside
//! others. Keys are revoked in a hurry, and whoever has the hosts may hang: then they are named
//! (exit 75), nothing is signed, and with `--take-over` the hosts are taken from them. Nobody is
//! waited for: how long a deployment may take is for a person to judge. The run that they were
//! taken from does not get them again; it is gone on with by `resume`, which is another run.
//!
//! What must hold: a run that lost a host to another changes nothing there meanwhile. The agent on
//! a host over ssh sees to that; see [`lock`](super::host::lock) for the moment that remains. On
//! this machine nobody does: a controller that was suspended for longer than a lock lasts goes on.

use super::deploy::Cluster;
use super::host::lock::{Busy, Holder, STALE_AFTER, TOUCH_EVERY};
use super::host::{Found, Host, HostError, Place, Wanted};
use super::host_failure;
use super::journal::whoever_it_is;
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
        let mut exclusive = self.claim(what, |_found| true);
        exclusive.renew()?;
        exclusive.keep_touching();
        Ok(exclusive)
    }

    /// As [`Cluster::exclusive`], for what is done to nodes that are there: a host without one is
    /// left alone, and one whose lock cannot be taken, because its disk is full for example, is
    /// worked on without, for it may have to be stopped for that.
    ///
    /// With `take_over` they are taken from whoever is at work on them: those change nothing there
    /// any more while this lives.
    ///
    /// # Errors
    /// When somebody else has one of them.
    pub fn exclusive_where_installed(
        &self,
        what: &str,
        take_over: bool,
    ) -> Result<Exclusive, Failure> {
        let mut exclusive = self.claim(what, is_installed);
        exclusive.holder.takes_over = take_over;
        exclusive.take().into_iter().try_for_each(|taken| taken.unwrap_or(Ok(())))?;
        exclusive.keep_touching();
        Ok(exclusive)
    }

    fn claim(&self, what: &str, wanted: impl Fn(&Found) -> bool + Sync) -> Exclusive {
        let nothing = Wanted { executable: None, files: &[] };
        let places: Vec<Place> = self.inventory.nodes.iter().map(Place::of).collect();
        let is_wanted = |place: &Place| self.host.find(place, &nothing).is_ok_and(|f| wanted(&f));
        let reached = at_once(&places, is_wanted);
        let reached = places.into_iter().zip(reached).filter(|(_, reached)| *reached);
        let run = format!("{:016x}", rand::rng().random::<u64>());
        let who = format!("{}: {what}", whoever_it_is());
        Exclusive {
            host: Arc::clone(&self.host),
            places: reached.map(|(place, _)| place).collect(),
            holder: Holder { who, run, takes_over: false, comes_again: false },
            until: None,
            toucher: None,
        }
    }
}

fn is_installed(found: &Found) -> bool {
    found.directory || found.running.is_some()
}

impl Exclusive {
    /// Takes those hosts, too, on which something was installed since, and those whose connection
    /// was made anew.
    ///
    /// # Errors
    /// As [`Cluster::exclusive`].
    pub fn renew(&self) -> Result<(), Failure> {
        self.take().into_iter().try_for_each(|taken| taken.map_err(host_failure)?)
    }

    /// What came of each host: whether it could be asked, and somebody else has it.
    fn take(&self) -> Vec<Result<Result<(), Failure>, HostError>> {
        let taken = at_once(&self.places, |place| self.host.hold(place, &self.holder));
        let judge = |(place, taken): (&Place, Result<Option<Busy>, HostError>)| {
            taken.map(|busy| busy.map_or(Ok(()), |busy| Err(at_work(place, &busy))))
        };
        self.places.iter().zip(taken).map(judge).collect()
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

/// Who somebody has to wait for, and for how long.
fn at_work(place: &Place, busy: &Busy) -> Failure {
    if busy.took_it {
        let message = format!(
            "somebody else was at work on the host of {} meanwhile: {}",
            place.node, busy.who
        );
        let hint = "see what they did (paxos-ctl audit, paxos-ctl status), then go on: paxos-ctl \
                    resume";
        return Failure::new(Code::Busy, message, hint);
    }
    let message = format!(
        "somebody else is at work on the host of {}: {} (seen {} s ago)",
        place.node, busy.who, busy.touched_seconds
    );
    let hint = format!(
        "wait until they are done; if they are gone, the host is free {} s after it last heard of \
         them",
        STALE_AFTER.as_secs()
    );
    Failure::new(Code::Busy, message, hint)
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
