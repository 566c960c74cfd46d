//! Hosts that are reached over their own sshd.
//!
//! The stock `ssh` program makes the connection, so that whatever an operator's `~/.ssh/config`,
//! agent, hardware key, bastion and `known_hosts` say is done by the program that wrote the book on
//! it. On the far side lies the same program as here, under a hidden word: an agent that does what
//! [`LocalHost`] does and answers in frames over standard input and
//! output. Nothing above the [`Host`] trait can tell a host over ssh from this machine.
//!
//! * [`login`] is whom to knock at, [`landing`](super::landing) the moment after the door opened: a
//!   few lines of POSIX shell say what machine this is and take an executable in, if there is none.
//! * [`agent_call`](super::agent_call) is what the two ends say to one another, `agent` the far
//!   end, [`remote`](super::remote) the near one; `pipe` reads what comes, with an end to its
//!   patience.
//! * [`system`](super::system) is how a host with root is laid out.
//! * [`examine`](crate::controller::check::examine) is what a check asks of a host, before or
//!   after a deployment.
//!
//! What must never happen: a host key taken on trust; a question on a terminal in the middle of a
//! run; a look that changes the host; a wait without an end. Looking at a host on which nothing was
//! installed is done by the shell alone.
//!
//! The cost: one `ssh` process and one connection for each host and run, and `ssh` on the
//! operator's machine.

use super::local::LocalHost;
use super::lock::{Busy, Holder};
use super::login::{self, Login};
use super::remote::RemoteHost;
use super::{Found, Halt, Halted, Host, HostError, Place, Wanted};
use crate::controller::recover::remains::Remains;
use crate::controller::watch::Watched;
use crate::wire::report::StatusReport;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Every host of an inventory: this machine, and those over ssh, each connected when it is first
/// needed and then for the rest of the run.
#[derive(Default)]
pub struct Everywhere {
    local: LocalHost,
    remote: Mutex<HashMap<Login, Arc<RemoteHost>>>,
    watched: Watched,
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        // The programs that share connections end with their hosts.
        if let Ok(remote) = self.remote.get_mut() {
            remote.clear();
        }
        login::forget_shared();
    }
}

impl Everywhere {
    /// Hosts that somebody watches.
    pub fn watched(watched: Watched) -> Everywhere {
        let local = LocalHost { watched: watched.clone(), ..LocalHost::default() };
        Everywhere { local, remote: Mutex::default(), watched }
    }

    /// As [`Everywhere::at`], for what takes its time and is worth watching.
    pub(in crate::controller) fn work<T>(
        &self,
        place: &Place,
        what: &str,
        act: impl FnOnce(&dyn Host) -> T,
    ) -> T {
        self.watched.during(&place.node, what, || self.at(place, act))
    }

    pub(in crate::controller) fn at<T>(
        &self,
        place: &Place,
        act: impl FnOnce(&dyn Host) -> T,
    ) -> T {
        let Some(login) = &place.login else { return act(&self.local) };
        let mut remote = self.remote.lock().expect("no holder of this lock panics");
        let host = remote.entry(login.clone()).or_insert_with(|| {
            let login = login.clone();
            Arc::new(RemoteHost::new(login, self.watched.clone()))
        });
        let host = Arc::clone(host);
        // The others are not held up while this one works.
        drop(remote);
        act(&*host)
    }
}

impl Host for Everywhere {
    fn find(&self, place: &Place, wanted: &Wanted<'_>) -> Result<Found, HostError> {
        self.at(place, |host| host.find(place, wanted))
    }

    fn ensure_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError> {
        self.work(place, "make its key", |host| host.ensure_node_key(place, comment))
    }

    fn next_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError> {
        self.at(place, |host| host.next_node_key(place, comment))
    }

    fn settle_node_key(&self, place: &Place) -> Result<(), HostError> {
        self.at(place, |host| host.settle_node_key(place))
    }

    fn receive(&self, place: &Place, name: &str, mode: u32, bytes: &[u8]) -> Result<(), HostError> {
        let what = format!("write {name}");
        self.work(place, &what, |host| host.receive(place, name, mode, bytes))
    }

    fn receive_executable(&self, place: &Place, source: &Path) -> Result<(), HostError> {
        self.work(place, "send the program", |host| host.receive_executable(place, source))
    }

    fn start(&self, place: &Place) -> Result<u32, HostError> {
        self.work(place, "start it", |host| host.start(place))
    }

    fn halt(&self, place: &Place, how: Halt) -> Result<Halted, HostError> {
        let what = match how {
            Halt::Gently => "stop it",
            Halt::AtOnce => "end it",
        };
        self.work(place, what, |host| host.halt(place, how))
    }

    fn reload(&self, place: &Place) -> Result<Option<u32>, HostError> {
        self.work(place, "have it take up its keys", |host| host.reload(place))
    }

    fn status(&self, place: &Place) -> Result<StatusReport, HostError> {
        self.at(place, |host| host.status(place))
    }

    fn survey(&self, place: &Place) -> Result<Remains, HostError> {
        self.at(place, |host| host.survey(place))
    }

    fn log_tail(&self, place: &Place, lines: usize) -> Result<Vec<String>, HostError> {
        self.at(place, |host| host.log_tail(place, lines))
    }

    fn hold(&self, place: &Place, holder: &Holder) -> Result<Option<Busy>, HostError> {
        self.at(place, |host| host.hold(place, holder))
    }

    fn touch(&self, place: &Place) -> Result<(), HostError> {
        self.at(place, |host| host.touch(place))
    }

    fn release(&self, place: &Place) {
        self.at(place, |host| host.release(place));
    }

    fn remove(&self, place: &Place) -> Result<Vec<PathBuf>, HostError> {
        self.work(place, "remove what it keeps", |host| host.remove(place))
    }
}
