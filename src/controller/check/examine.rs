//! What a check asks of a host, over the same seam as everything else that is asked of one.
//!
//! On a host over ssh the answers come from this very program: it is sent to the place where a
//! deployment will put it, which is all that an examination leaves behind. In a directory of one's
//! own there may be another version already; then that one is asked, for putting another in its
//! place is a deployment's business.

use super::probe::{Probed, probe, wall_clock};
use super::trial_login::{Dial, Dialled, StandIn, dial_all};
use crate::controller::host::agent_call::{Answer, Call};
use crate::controller::host::everywhere::Everywhere;
use crate::controller::host::local::LocalHost;
use crate::controller::host::remote::{RemoteHost, unexpected};
use crate::controller::host::{HostError, Place};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

/// What a host is like, and when it was asked by the clock of whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// What it said.
    pub probed: Probed,
    /// When it was asked, in microseconds since 1970.
    pub asked: i64,
    /// When its answer was there.
    pub answered: i64,
}

/// How far an examination came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The host was not reached, or does not let us work on it.
    Reach,
    /// The program cannot be put there, or does not run there.
    Program,
    /// The program runs there, and cannot look.
    Look,
}

/// An examination that came to nothing.
#[derive(Debug)]
pub struct Unexamined {
    /// How far it came.
    pub stage: Stage,
    /// What stood in the way.
    pub error: HostError,
}

/// The part of a [`Host`](crate::controller::host::Host) that a check needs.
pub trait Examiner {
    /// Says what the host is like. Where something must be sent first, it is `source`.
    ///
    /// # Errors
    /// How far it came, and what stood in the way.
    fn examine(&self, place: &Place, source: &Path) -> Result<Examined, Unexamined>;

    /// Listens in the node's place until it is dismissed, and gives the public line of the
    /// authority behind its host certificate. To be asked only of a host that was examined, as
    /// what follows.
    ///
    /// # Errors
    /// When an address cannot be bound.
    fn stand_in(
        &self,
        place: &Place,
        cluster: &str,
        callers: &[String],
    ) -> Result<String, HostError>;

    /// Ends a stand-in; also one that there is not.
    ///
    /// # Errors
    /// When the host is gone, and the stand-in with it.
    fn dismiss(&self, place: &Place) -> Result<(), HostError>;

    /// Dials from this host, and gives what came of it in the same order.
    ///
    /// # Errors
    /// When nothing can be dialled from there at all.
    fn dial(&self, place: &Place, to: &[Dial]) -> Result<Vec<Dialled>, HostError>;
}

/// Who stands in on this machine, by node. An agent serves one controller, and ends with it.
static STANDING_IN: LazyLock<Mutex<BTreeMap<String, StandIn>>> = LazyLock::new(Mutex::default);

fn unable(place: &Place, what: &str, reason: String, hint: &str) -> HostError {
    let (node, what, hint) = (place.node.clone(), what.to_owned(), hint.to_owned());
    HostError { node, what, reason, hint }
}

impl Examiner for LocalHost {
    fn examine(&self, place: &Place, _source: &Path) -> Result<Examined, Unexamined> {
        let asked = wall_clock();
        let probed = probe(place).map_err(|error| Unexamined { stage: Stage::Look, error })?;
        Ok(Examined { probed, asked, answered: wall_clock() })
    }

    fn stand_in(
        &self,
        place: &Place,
        cluster: &str,
        callers: &[String],
    ) -> Result<String, HostError> {
        let opened = StandIn::open(&place.listen, &place.node, cluster, callers);
        let hint = "see who listens there (ss -ltnp), and that paxos_listen names addresses of \
                    this host";
        let stand_in = opened.map_err(|reason| unable(place, "listen for it", reason, hint))?;
        let authority = stand_in.authority().to_owned();
        let mut all = STANDING_IN.lock().expect("no holder of this lock panics");
        let older = all.insert(place.node.clone(), stand_in);
        // It takes a moment to end, for which nobody else has to wait.
        drop(all);
        drop(older);
        Ok(authority)
    }

    fn dismiss(&self, place: &Place) -> Result<(), HostError> {
        let mut all = STANDING_IN.lock().expect("no holder of this lock panics");
        let stand_in = all.remove(&place.node);
        drop(all);
        drop(stand_in);
        Ok(())
    }

    fn dial(&self, place: &Place, to: &[Dial]) -> Result<Vec<Dialled>, HostError> {
        let hint = "check the limits of open files and threads on that host";
        dial_all(place, to).map_err(|reason| unable(place, "dial the others", reason, hint))
    }
}

impl Examiner for RemoteHost {
    fn examine(&self, place: &Place, source: &Path) -> Result<Examined, Unexamined> {
        let what = "look at the host";
        self.bring(place, source)?;
        let look = |error| Unexamined { stage: Stage::Look, error };
        // What it took to get there is no part of what the clocks are compared by.
        let asked = wall_clock();
        let answer = self.demand(place, what, &Call::Probe(place.clone())).map_err(look)?;
        let answered = wall_clock();
        match answer {
            Answer::Probed(probed) => Ok(Examined { probed: *probed, asked, answered }),
            answer => Err(look(unexpected(place, what, &answer))),
        }
    }

    fn stand_in(
        &self,
        place: &Place,
        cluster: &str,
        callers: &[String],
    ) -> Result<String, HostError> {
        let (what, callers) = ("listen for it", callers.to_vec());
        let call = Call::Listen { place: place.clone(), cluster: cluster.to_owned(), callers };
        match self.demand(place, what, &call)? {
            Answer::Line(line) => Ok(line),
            answer => Err(unexpected(place, what, &answer)),
        }
    }

    fn dismiss(&self, place: &Place) -> Result<(), HostError> {
        let call = Call::Unlisten(place.clone());
        self.demand(place, "listen no longer", &call).map(|_done| ())
    }

    fn dial(&self, place: &Place, to: &[Dial]) -> Result<Vec<Dialled>, HostError> {
        let what = "dial the others";
        let call = Call::Dial { place: place.clone(), to: to.to_vec() };
        match self.demand(place, what, &call)? {
            Answer::Dialled(dialled) => Ok(dialled),
            answer => Err(unexpected(place, what, &answer)),
        }
    }
}

impl Examiner for Everywhere {
    fn examine(&self, place: &Place, source: &Path) -> Result<Examined, Unexamined> {
        self.work(place, "look at it", |host| host.examine(place, source))
    }

    fn stand_in(
        &self,
        place: &Place,
        cluster: &str,
        callers: &[String],
    ) -> Result<String, HostError> {
        self.at(place, |host| host.stand_in(place, cluster, callers))
    }

    fn dismiss(&self, place: &Place) -> Result<(), HostError> {
        self.at(place, |host| host.dismiss(place))
    }

    fn dial(&self, place: &Place, to: &[Dial]) -> Result<Vec<Dialled>, HostError> {
        self.work(place, "log in at the others", |host| host.dial(place, to))
    }
}
