//! The cluster's keys to every host, and word from every node that it goes by them.
//!
//! [`Cluster::deliver_keys`] brings each host to what lies in the keys directory here: the newest
//! bundle, and its certificates. A node that runs takes them up without a restart, and is asked
//! until it says so. What is to be done follows from what hosts and nodes report, so it can be done
//! again by anybody, as often as one likes; what is as it should be is left alone.
//!
//! Everything goes over the way to the host that installed it, and a node is asked by the socket on
//! its host: no quorum is needed, and no certificate that is still valid. Then the bundle goes into
//! the cluster's log as well (see [`publish`](super::publish)), for nodes whose host was not
//! reached. It is the last step: a node that forgets an authority does so in its turn.
//!
//! What must never happen: a node that was not told is counted among those that were.

use super::certified::Certified;
use super::issued::{Revoked, Target};
use super::issuer::{Issuer, NODE_ROLES};
use super::newest::{NEWEST_COPY, Newer, newer};
use super::rotate::{Goal, Rotated};
use super::{ClusterKeys, KeyFile, KeysError, PlainKey};
use crate::controller::deploy::{Cluster, Progress, state_failure};
use crate::controller::host::{Found, HostError, Place, Wanted, names};
use crate::controller::inventory::NodeSpec;
use crate::controller::keys_failure;
use crate::controller::state::ClusterState;
use crate::controller::wait::{at_once, until};
use crate::transport::bundle::AuthorityRole;
use crate::transport::identity;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::StatusReport;
use std::time::{Duration, SystemTime};

/// How long a node may take to read a few files and judge its connections, on a busy machine.
const TAKE_UP_LIMIT: Duration = Duration::from_secs(10);

/// How often it is asked. Asking costs a process nothing and a host over ssh a round trip.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How far the keys came on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The node says that it goes by them.
    Active,
    /// They lie there; the node does not run, and takes them up when it starts.
    AtItsStart,
    /// Nothing of the cluster's is on the host yet; `deploy` brings everything.
    NotInstalled,
    /// It was not reached, and nobody waits for it.
    LeftOut,
}

impl Reached {
    /// In a word, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Reached::Active => "active",
            Reached::AtItsStart => "at_its_start",
            Reached::NotInstalled => "not_installed",
            Reached::LeftOut => "left_out",
        }
    }

    /// In words, behind a node's name.
    pub fn describe(self) -> &'static str {
        match self {
            Reached::Active => "goes by it",
            Reached::AtItsStart => "does not run; it goes by it when it starts",
            Reached::NotInstalled => "is not installed yet; deploy brings it",
            Reached::LeftOut => "was left out; keys resume brings it up to date",
        }
    }
}

/// A host that the keys came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The node on it.
    pub node: String,
    /// How far.
    pub reached: Reached,
}

/// What a node is to say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    epoch: u64,
    /// Serials of its host and its peer certificate, where these were delivered.
    serials: Option<(u64, u64)>,
}

impl Expected {
    /// Whether it says so; an error if it will not.
    fn is_met(self, status: &StatusReport) -> Result<bool, (String, &'static str)> {
        let Some(bundle) = &status.bundle else {
            let why =
                format!("its version, {}, does not say which bundle it goes by", status.version);
            return Err((why, "deploy again: it brings the node to this version"));
        };
        if bundle.epoch > self.epoch {
            let newer = Newer::Bundle { there: bundle.epoch, here: self.epoch };
            return Err((newer.to_string(), NEWEST_COPY));
        }
        let serials = status.certificates.map(|own| (own.host.serial.0, own.peer.serial.0));
        let takes = bundle.epoch == self.epoch && bundle.problem.is_none();
        Ok(takes && (self.serials.is_none() || self.serials == serials))
    }
}

/// Whoever cannot wait is told of the other way, too.
fn or_take_over(mut failure: Failure) -> Failure {
    if failure.code == Code::Busy {
        let other = "; if a key has to go and they hang, end their paxos-ctl and give --take-over";
        failure.hint.push_str(other);
    }
    failure
}

impl Cluster {
    /// Revokes something, and has every node go by it. Whom it hits among those connected now is
    /// cut off there and then.
    ///
    /// # Errors
    /// When somebody else is at work on a host, nothing like that was issued, or the bundle cannot
    /// be signed; and when a node was not reached: the bundle is signed then, and
    /// [`Cluster::resume_keys`] delivers it. With `take_over` the hosts are taken from somebody
    /// who hangs.
    pub fn revoke_keys(
        &self,
        target: &Target,
        reason: &str,
        take_over: bool,
        say: Progress<'_>,
    ) -> Result<(Revoked, Vec<Delivered>), Failure> {
        let mut issuer = self.issuer()?;
        let now = SystemTime::now();
        // Nobody's work is cut short for a name that was mistyped.
        if issuer.keys().may_revoke(target, now).map_err(keys_failure)? {
            issuer.must_be_able(&[AuthorityRole::Root]).map_err(keys_failure)?;
        }
        let exclusive = self.exclusive_where_installed("keys revoke", take_over);
        let _exclusive = exclusive.map_err(or_take_over)?;
        self.must_be_newest(issuer.keys())?;
        say("sign a bundle of the next epoch")?;
        let revoked = issuer.revoke(target, reason, now).map_err(keys_failure)?;
        let delivered = self.deliver_keys(issuer.keys(), &[], say);
        // It may have been the controller's own way in. Nobody else waits for that.
        let mut certified = Certified::default();
        let way_in = certified.signed(issuer.ensure_operator_serves(now));
        let (lines, epoch) = (revoked.lines.join(", "), revoked.epoch);
        let with_news = |mut failure: Failure| {
            failure.message = format!("revoked {lines}; bundle epoch {epoch}; {}", failure.message);
            failure
        };
        let delivered = delivered.map_err(|mut failure| {
            if let Err(other) = &way_in {
                failure.message = format!("{}; besides, {}", failure.message, other.message);
            }
            certified.beside(failure)
        })?;
        if way_in.map_err(with_news)? == Some(true) {
            say("issue the operator's certificate")?;
            self.publish_keys(issuer.keys(), &delivered, say)?;
        }
        certified.must_be_all(&[]).map_err(with_news)?;
        Ok((revoked, delivered))
    }

    /// Has every node go by the newest bundle and its certificates: what a delivery that was cut
    /// short left undone. Goes on with a rotation that is under way.
    ///
    /// # Errors
    /// When somebody else is at work, or a node was not reached that is not among those `left_out`.
    pub fn resume_keys(
        &self,
        goal: Goal,
        left_out: &[String],
        take_over: bool,
        say: Progress<'_>,
    ) -> Result<(Option<Rotated>, Vec<Delivered>), Failure> {
        self.named(left_out)?;
        let mut issuer = self.issuer()?;
        // What is not at hand is missed where it is needed, after what is signed was delivered.
        issuer.ask_to_resume().map_err(keys_failure)?;
        let exclusive = self.exclusive_where_installed("keys resume", take_over);
        let _exclusive = exclusive.map_err(or_take_over)?;
        if let Some(rotated) = self.go_on_rotating(&mut issuer, goal, left_out, say)? {
            self.go_on_replacing(&mut issuer, left_out, say)?;
            let delivered = rotated.delivered.clone();
            return Ok((Some(rotated), delivered));
        }
        let certified = self.certify_outdated(&issuer, say)?;
        let delivered = self.deliver_keys(issuer.keys(), left_out, say)?;
        certified.must_be_all(left_out)?;
        // After the others were seen to, who may have to wait for it otherwise.
        let replaced = self.go_on_replacing(&mut issuer, left_out, say)?;
        let delivered = replaced.into_iter().next_back().map_or(delivered, |last| last.delivered);
        Ok((None, delivered))
    }

    /// Renews the certificates of the named nodes, or of all whose certificates are near their end,
    /// and the operator's if it is. The nodes take them up while they run. Works with everything
    /// expired.
    ///
    /// # Errors
    /// When somebody else is at work, a node is none of the cluster's or has no key, a certificate
    /// cannot be signed, or a node was not reached.
    pub fn renew_keys(
        &self,
        names: &[String],
        say: Progress<'_>,
    ) -> Result<(Vec<String>, Vec<Delivered>), Failure> {
        let nodes = self.named(names)?;
        let issuer = self.issuer()?;
        if !names.is_empty() {
            issuer.must_be_able(&NODE_ROLES).map_err(keys_failure)?;
        }
        issuer.ask_for_way_in(SystemTime::now()).map_err(keys_failure)?;
        let _exclusive = self.exclusive_where_installed("keys renew", false)?;
        let now = SystemTime::now();
        let mut certified = Certified::default();
        if certified.signed(issuer.ensure_operator(now))? == Some(true) {
            say("issue the operator's certificate")?;
        }
        let mut renewed = Vec::new();
        for (node, found) in nodes.iter().zip(at_once(&nodes, |node| self.look_at_keys(node))) {
            // Who cannot be reached is named by the delivery, and who has no key is not installed.
            let Some(line) = found.ok().and_then(|found| found.node_key) else { continue };
            // Who asks for one of these by name is told why it gets none.
            if names.is_empty() && issuer.keys().is_revoked(&line) {
                continue;
            }
            let (name, id) = (&node.name, node.id);
            let is_new = match names.is_empty() {
                true => issuer.ensure_node(name, id, &line, now),
                false => issuer.certify_node(name, id, &line, now).map(|()| true),
            };
            if certified.signed(is_new)? == Some(true) {
                say(&format!("{name}: renew its certificates"))?;
                renewed.push(name.clone());
            }
        }
        let delivered = self.deliver_keys(issuer.keys(), &[], say)?;
        certified.must_be_all(&[])?;
        Ok((renewed, delivered))
    }

    /// Keys that must have been made before, held against other controllers.
    pub(in crate::controller) fn issuer(&self) -> Result<Issuer, Failure> {
        let name = &self.inventory.cluster;
        // None are made in passing.
        ClusterKeys::open_existing(&self.keys_dir, name).map_err(keys_failure)?;
        self.open_or_init_keys()
    }

    /// Brings every host to what these keys are, and waits until each node that runs says that it
    /// goes by them.
    ///
    /// # Errors
    /// Names each node that was not brought that far and is not among those `left_out`, with the
    /// reason; all others are.
    pub fn deliver_keys(
        &self,
        keys: &ClusterKeys,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Vec<Delivered>, Failure> {
        let nodes = self.named(&[])?;
        let epoch = keys.bundle().epoch;
        say(&format!("have {} nodes go by the bundle of epoch {epoch}", nodes.len()))?;
        let outcomes = at_once(&nodes, |node| self.deliver_to(keys, node));
        let (mut delivered, mut missed) = (Vec::new(), Vec::new());
        for (node, outcome) in nodes.iter().zip(outcomes) {
            let node = node.name.clone();
            match outcome {
                Ok(reached) => delivered.push(Delivered { node, reached }),
                Err(error) if left_out.contains(&node) => {
                    say(&format!("left out: {error}"))?;
                    delivered.push(Delivered { node, reached: Reached::LeftOut });
                }
                Err(error) => missed.push((error.to_string(), error.hint)),
            }
        }
        self.publish_keys(keys, &delivered, say)?;
        let state = ClusterState::load(&self.keys_dir, &self.inventory.cluster);
        let state = state.map_err(state_failure)?;
        let members = state.iter().flat_map(ClusterState::members);
        let left_out = members.filter(|node| self.inventory.node(&node.name).is_none());
        missed.extend(left_out.map(|node| {
            let why =
                format!("{} is a member, and not in the inventory: it was not told", node.name);
            (why, format!("put {} back into the inventory", node.name))
        }));
        match missed.is_empty() {
            true => Ok(delivered),
            false => Err(not_all(epoch, &missed)),
        }
    }

    pub(super) fn look_at_keys(&self, node: &NodeSpec) -> Result<Found, HostError> {
        let files: Vec<String> = names::KEY_FILES.iter().map(|name| in_keys(name)).collect();
        self.host.find(&Place::of(node), &Wanted { executable: None, files: &files })
    }

    pub(super) fn deliver_to(
        &self,
        keys: &ClusterKeys,
        node: &NodeSpec,
    ) -> Result<Reached, HostError> {
        self.deliver_for(keys, node, None)
    }

    /// As [`Cluster::deliver_to`], with the certificates for another key than those that lie there
    /// are for, which the host has as well.
    pub(super) fn deliver_for(
        &self,
        keys: &ClusterKeys,
        node: &NodeSpec,
        other_key: Option<&str>,
    ) -> Result<Reached, HostError> {
        let found = self.look_at_keys(node)?;
        let Some(line) = other_key.or(key_in(&found, node)?) else {
            return Ok(Reached::NotInstalled);
        };
        let (place, people) = (Place::of(node), &self.inventory.people);
        let (files, expected) =
            parcel(keys, node, line, people).map_err(|error| unreadable(node, &error))?;
        if let Some(newer) = newer(keys, &found) {
            return Err(HostError {
                node: node.name.clone(),
                what: "deliver the bundle".to_owned(),
                reason: newer.to_string(),
                hint: NEWEST_COPY.to_owned(),
            });
        }
        // Whoever laid the files may have died before the node was told.
        let mut changed = found.outdated.keys;
        for file in &files {
            if file_in(&found, file.name) != Some(file.text.as_bytes()) {
                let name = in_keys(file.name);
                self.host.receive(&place, &name, file.mode, file.text.as_bytes())?;
                changed = true;
            }
        }
        // Also one that did not run when it was looked at: it may have begun since, and read what
        // lay there before.
        self.await_keys(&place, expected, changed)
    }

    /// Has a node that runs take up the keys that lie on its host, and waits until it says so.
    ///
    /// # Errors
    /// When it does not.
    pub(in crate::controller) fn take_up_keys(
        &self,
        keys: &ClusterKeys,
        node: &NodeSpec,
    ) -> Result<Reached, HostError> {
        let found = self.look_at_keys(node)?;
        let Some(line) = key_in(&found, node)? else { return Ok(Reached::NotInstalled) };
        let parcel = parcel(keys, node, line, &self.inventory.people);
        let (_, expected) = parcel.map_err(|error| unreadable(node, &error))?;
        self.await_keys(&Place::of(node), expected, true)
    }

    /// `changed` says that files came which the node cannot have read.
    fn await_keys(
        &self,
        place: &Place,
        expected: Expected,
        changed: bool,
    ) -> Result<Reached, HostError> {
        let error = |reason: String, hint: &str| HostError {
            node: place.node.clone(),
            what: "have it go by the newest keys".to_owned(),
            reason,
            hint: hint.to_owned(),
        };
        let judge = |status: &StatusReport| {
            expected.is_met(status).map_err(|(reason, hint)| error(reason, hint))
        };
        // One that begins just now does not answer yet, and is told all the same.
        if !changed
            && let Ok(status) = self.host.status(place)
            && judge(&status)?
        {
            return Ok(Reached::Active);
        }
        if self.host.reload(place)?.is_none() {
            return Ok(Reached::AtItsStart);
        }
        let mut last = String::new();
        let look = || -> Result<Option<()>, HostError> {
            match self.host.status(place) {
                Ok(status) => {
                    let problem = status.bundle.as_ref().and_then(|b| b.problem.clone());
                    last = problem.unwrap_or_else(|| "it does not say that it did".to_owned());
                    Ok(judge(&status)?.then_some(()))
                }
                Err(error) => {
                    last = error.reason;
                    Ok(None)
                }
            }
        };
        match until(TAKE_UP_LIMIT, LOOK_EVERY, look)? {
            Some(()) => Ok(Reached::Active),
            None => {
                let reason = format!("not within {TAKE_UP_LIMIT:?}: {last}");
                Err(error(reason, &format!("see its log: paxos-ctl logs {}", place.node)))
            }
        }
    }
}

/// What lies on a host under the name of one of its key files.
pub(super) fn file_in<'a>(found: &'a Found, name: &str) -> Option<&'a [u8]> {
    let at = names::KEY_FILES.iter().position(|file| *file == name)?;
    found.files.get(at)?.as_deref()
}

/// The public line of the key of a node; none where nothing of it is installed.
///
/// # Errors
/// When something is: a node that runs and could not be told is none that needs not be.
pub(super) fn key_in<'a>(found: &'a Found, node: &NodeSpec) -> Result<Option<&'a str>, HostError> {
    match &found.node_key {
        Some(line) => Ok(Some(line)),
        None if found.running.is_none() && !found.log => Ok(None),
        None => Err(HostError {
            node: node.name.clone(),
            what: "see which key it has".to_owned(),
            reason: "it is installed, and its key or the public half of it is gone".to_owned(),
            hint: format!("deploy again: what {} is missing is put back", node.name),
        }),
    }
}

fn in_keys(name: &str) -> String {
    format!("{}/{name}", names::KEYS)
}

fn unreadable(node: &NodeSpec, error: &KeysError) -> HostError {
    HostError {
        node: node.name.clone(),
        what: "put its keys together".to_owned(),
        reason: error.to_string(),
        hint: "mend the keys directory here".to_owned(),
    }
}

/// What a node is to get, the bundle first: verifiers learn before anybody signs otherwise. Where
/// there are no certificates here for the key that it has, it gets the bundle alone: what
/// certificates it needs is `deploy`'s business, and what is revoked is not to wait for it.
fn parcel(
    keys: &ClusterKeys,
    node: &NodeSpec,
    public_line: &str,
    people: &[PlainKey],
) -> Result<(Vec<KeyFile>, Expected), KeysError> {
    let epoch = keys.bundle().epoch;
    let serials = keys.node_serials(&node.name, public_line)?;
    let mut files = match serials {
        Some(_) => keys.node_files(&node.name, people)?,
        None => vec![keys.bundle_file(), keys.root_file()],
    };
    files.sort_by_key(|file| file.name != identity::BUNDLE);
    Ok((files, Expected { epoch, serials }))
}

/// The failure of a delivery, by why each of the others was not reached and what to do about it.
pub(super) fn not_all(epoch: u64, missed: &[(String, String)]) -> Failure {
    let message = format!(
        "the bundle of epoch {epoch} is signed, but not every node goes by it, and those that do \
         not still believe what they believed before"
    );
    unfinished(&message, missed)
}

/// As [`not_all`], in other words.
pub(super) fn unfinished(message: &str, missed: &[(String, String)]) -> Failure {
    let lines: Vec<&str> = missed.iter().map(|(why, _)| why.as_str()).collect();
    let message = format!("{message}:\n  {}", lines.join("\n  "));
    let mut hints: Vec<&str> = missed.iter().map(|(_, hint)| hint.as_str()).collect();
    hints.push("then go on with: paxos-ctl keys resume");
    Failure::new(Code::Internal, message, hints.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::check::examine::{Examined, Examiner, Unexamined};
    use crate::controller::check::trial_login::{Dial, Dialled};
    use crate::controller::host::lock::{Busy, Holder};
    use crate::controller::host::{Halt, Halted, Host};
    use crate::controller::keys::authorities::Phase;
    use crate::controller::keys::signers::nobody;
    use crate::controller::plan::tests::three_nodes;
    use crate::controller::recover::remains::Remains;
    use crate::transport::authority;
    use crate::transport::bundle::AuthorityRole;
    use crate::wire::report::tests::sample;
    use crate::wire::report::{BundleReport, CertificateReport, CertificatesReport, JsonId};
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    /// What a host of a play holds.
    #[derive(Clone, Default)]
    struct Stage {
        key: Option<String>,
        /// The key that is to take its place.
        next: Option<String>,
        files: BTreeMap<String, Vec<u8>>,
        running: bool,
        /// What the node goes by: epoch and serials.
        active: (u64, u64, u64),
        reloads: usize,
        /// Why the host cannot be reached.
        away: bool,
        /// How many looks at it fail.
        misses: usize,
    }

    #[derive(Default)]
    struct Play(Mutex<BTreeMap<String, Stage>>);

    impl Play {
        fn at<T>(&self, place: &Place, act: impl FnOnce(&mut Stage) -> T) -> Result<T, HostError> {
            let mut stages = self.0.lock().unwrap();
            let stage = stages.get_mut(&place.node).unwrap();
            match stage.away {
                false => Ok(act(stage)),
                true => Err(away(place)),
            }
        }
    }

    fn away(place: &Place) -> HostError {
        HostError {
            node: place.node.clone(),
            what: "look at the host".to_owned(),
            reason: "it is away".to_owned(),
            hint: "start it".to_owned(),
        }
    }

    fn certificate_in(stage: &Stage, name: &str) -> Option<authority::Certificate> {
        let text = stage.files.get(&in_keys(name)).cloned().unwrap_or_default();
        let text = String::from_utf8(text).unwrap();
        authority::Certificate::from_openssh(text.trim()).ok()
    }

    fn serial_in(stage: &Stage, name: &str) -> u64 {
        certificate_in(stage, name).map_or(0, |certificate| certificate.serial())
    }

    /// As on a host: the next key as soon as the certificate is for it.
    fn in_use(stage: &Stage) -> Option<String> {
        let certificate = certificate_in(stage, identity::HOST_CERTIFICATE);
        let is_for = |line: &String| {
            let key = authority::PublicKey::from_openssh(line.trim()).unwrap();
            certificate.as_ref().is_some_and(|c| c.public_key() == key.key_data())
        };
        stage.next.clone().filter(is_for).or(stage.key.clone())
    }

    impl Examiner for Play {
        fn examine(&self, _: &Place, _: &Path) -> Result<Examined, Unexamined> {
            unreachable!("nothing is checked")
        }

        fn stand_in(&self, _: &Place, _: &str, _: &[String]) -> Result<String, HostError> {
            unreachable!("nothing is checked")
        }

        fn dismiss(&self, _: &Place) -> Result<(), HostError> {
            unreachable!("nothing is checked")
        }

        fn dial(&self, _: &Place, _: &[Dial]) -> Result<Vec<Dialled>, HostError> {
            unreachable!("nothing is checked")
        }
    }

    impl Host for Play {
        fn find(&self, place: &Place, wanted: &Wanted<'_>) -> Result<Found, HostError> {
            let missed = |stage: &mut Stage| {
                let left = stage.misses.checked_sub(1);
                stage.misses = left.unwrap_or_default();
                left.is_some()
            };
            if self.at(place, missed)? {
                return Err(away(place));
            }
            self.at(place, |stage| Found {
                running: stage.running.then_some(7),
                node_key: in_use(stage),
                files: wanted.files.iter().map(|name| stage.files.get(name).cloned()).collect(),
                ..Found::default()
            })
        }

        fn ensure_node_key(&self, _: &Place, _: &str) -> Result<String, HostError> {
            unreachable!("keys are there or not")
        }

        fn next_node_key(&self, place: &Place, _: &str) -> Result<String, HostError> {
            let key = authority::new_key("").unwrap();
            let line = authority::public_line(key.public_key());
            self.at(place, |stage| stage.next.get_or_insert(line).clone())
        }

        fn settle_node_key(&self, place: &Place) -> Result<(), HostError> {
            self.at(place, |stage| stage.key = stage.next.take().or(stage.key.take()))
        }

        fn receive(
            &self,
            place: &Place,
            name: &str,
            _: u32,
            bytes: &[u8],
        ) -> Result<(), HostError> {
            self.at(place, |stage| _ = stage.files.insert(name.to_owned(), bytes.to_vec()))
        }

        fn receive_executable(&self, _: &Place, _: &Path) -> Result<(), HostError> {
            unreachable!("no executable is delivered")
        }

        fn start(&self, _: &Place) -> Result<u32, HostError> {
            unreachable!("nothing is started")
        }

        fn halt(&self, _: &Place, _: Halt) -> Result<Halted, HostError> {
            unreachable!("nothing is stopped")
        }

        fn reload(&self, place: &Place) -> Result<Option<u32>, HostError> {
            self.at(place, |stage| {
                if !stage.running {
                    return None;
                }
                stage.reloads += 1;
                let bundle = stage.files.get(&in_keys(identity::BUNDLE)).cloned();
                let text = String::from_utf8(bundle.unwrap_or_default()).unwrap();
                let epoch = text.lines().find_map(|line| line.strip_prefix("epoch "));
                let host = serial_in(stage, identity::HOST_CERTIFICATE);
                let peer = serial_in(stage, identity::PEER_CERTIFICATE);
                stage.active = (epoch.unwrap_or("0").parse().unwrap(), host, peer);
                Some(7)
            })
        }

        fn status(&self, place: &Place) -> Result<StatusReport, HostError> {
            self.at(place, |stage| {
                let (epoch, host, peer) = stage.active;
                let life =
                    |serial| CertificateReport { serial: JsonId(serial), remaining_seconds: 1 };
                let certificates = CertificatesReport { host: life(host), peer: life(peer) };
                StatusReport {
                    bundle: Some(BundleReport {
                        epoch,
                        revocations: 0,
                        problem: None,
                        in_log: None,
                    }),
                    certificates: Some(certificates),
                    ..sample()
                }
            })
        }

        fn survey(&self, _: &Place) -> Result<Remains, HostError> {
            unreachable!("nobody is recovered")
        }

        fn log_tail(&self, _: &Place, _: usize) -> Result<Vec<String>, HostError> {
            Ok(Vec::new())
        }

        fn hold(&self, _: &Place, _: &Holder) -> Result<Option<Busy>, HostError> {
            Ok(None)
        }

        fn touch(&self, _: &Place) -> Result<(), HostError> {
            Ok(())
        }

        fn release(&self, _: &Place) {}

        fn remove(&self, _: &Place) -> Result<Vec<PathBuf>, HostError> {
            unreachable!("nothing is removed")
        }
    }

    /// A cluster whose three nodes run and go by the keys of epoch 1.
    fn settled(folder: &Path) -> (Cluster, std::sync::Arc<Play>) {
        let play = std::sync::Arc::new(Play::default());
        let inventory = three_nodes();
        let issuer = Issuer::open_or_init(folder, "c", nobody).unwrap();
        issuer.ensure_operator(SystemTime::now()).unwrap();
        for node in &inventory.nodes {
            let key = authority::new_key("").unwrap();
            let line = authority::public_line(key.public_key());
            issuer.ensure_node(&node.name, node.id, &line, SystemTime::now()).unwrap();
            let stage = Stage { key: Some(line), running: true, ..Stage::default() };
            play.0.lock().unwrap().insert(node.name.clone(), stage);
        }
        drop(issuer);
        let (keys_dir, tool) = (folder.to_owned(), PathBuf::from("/bin/true"));
        let (host, ask) = (play.clone(), nobody);
        let file = "i.yaml".into();
        let cluster = Cluster { inventory, file, keys_dir, tool, binary: None, host, ask };
        cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap();
        (cluster, play)
    }

    fn change(play: &Play, node: &str, change: impl FnOnce(&mut Stage)) {
        change(play.0.lock().unwrap().get_mut(node).unwrap());
    }

    fn seen(play: &Play, see: impl Fn(&Stage) -> u64) -> [u64; 3] {
        let stages = play.0.lock().unwrap();
        ["n1", "n2", "n3"].map(|node| see(&stages[node]))
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        assert_eq!(seen(&play, |stage| stage.reloads as u64), [1, 1, 1]);
        let (_, delivered) = cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap();
        assert!(delivered.iter().all(|one| one.reached == Reached::Active), "{delivered:?}");
        assert_eq!(seen(&play, |stage| stage.reloads as u64), [1, 1, 1]);
    }

    #[test]
    fn a_revocation_reaches_all_that_can_be_reached_and_names_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        change(&play, "n1", |stage| stage.running = false);
        change(&play, "n2", |stage| stage.away = true);
        let target = Target::Name("operator".to_owned());
        let failure = cluster.revoke_keys(&target, "", false, &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("n2: cannot look at the host: it is away"), "{failure:?}");
        assert!(!failure.message.contains("n1") && !failure.message.contains("n3"), "{failure:?}");
        assert!(failure.hint.ends_with("paxos-ctl keys resume"), "{}", failure.hint);
        assert_eq!(seen(&play, |stage| stage.active.0), [1, 1, 2]);
        let keys = ClusterKeys::open_existing(folder.path(), "c").unwrap();
        assert!(keys.operator_is_current(SystemTime::now()).unwrap(), "it has another certificate");

        change(&play, "n2", |stage| stage.away = false);
        let (_, delivered) = cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap();
        let reached: Vec<Reached> = delivered.iter().map(|one| one.reached).collect();
        assert_eq!(reached, [Reached::AtItsStart, Reached::Active, Reached::Active]);
        assert_eq!(seen(&play, |stage| stage.active.0), [1, 2, 2]);
        let bundle = |stage: &Stage| stage.files[&in_keys(identity::BUNDLE)].clone();
        let stages = play.0.lock().unwrap();
        assert_eq!(bundle(&stages["n1"]), bundle(&stages["n2"]), "it lies there for its start");
    }

    #[test]
    fn renewed_certificates_are_taken_up_and_only_by_those_that_were_named() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        let before = seen(&play, |stage| stage.active.1);
        let (renewed, _) = cluster.renew_keys(&[], &mut |_| Ok(())).unwrap();
        assert!(renewed.is_empty(), "none is near its end");
        let (renewed, _) = cluster.renew_keys(&["n2".to_owned()], &mut |_| Ok(())).unwrap();
        assert_eq!(renewed, ["n2"]);
        let after = seen(&play, |stage| stage.active.1);
        assert_eq!((after[0], after[2]), (before[0], before[2]));
        assert!(after[1] > before[1], "{before:?} {after:?}");
        let members = in_keys(identity::MEMBERS);
        let stages = play.0.lock().unwrap();
        assert_eq!(stages["n1"].files[&members], stages["n2"].files[&members], "all are told");
    }

    #[test]
    fn a_host_without_certificates_here_gets_the_bundle_and_an_empty_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        let other = authority::new_key("").unwrap();
        let line = authority::public_line(other.public_key());
        change(&play, "n1", |stage| stage.key = Some(line));
        change(&play, "n3", |stage| *stage = Stage::default());
        let certificate = |stage: &Stage| stage.files[&in_keys(identity::HOST_CERTIFICATE)].clone();
        let before = certificate(&play.0.lock().unwrap()["n1"]);
        let (_, delivered) = cluster
            .revoke_keys(&Target::Name("operator".to_owned()), "", false, &mut |_| Ok(()))
            .unwrap();
        assert_eq!(delivered[2].reached, Reached::NotInstalled);
        assert_eq!(seen(&play, |stage| stage.active.0), [2, 2, 0]);
        assert_eq!(certificate(&play.0.lock().unwrap()["n1"]), before);
    }

    #[test]
    fn an_old_copy_of_the_keys_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        let path = folder.path().join(identity::BUNDLE);
        let old = std::fs::read(&path).unwrap();
        let target = Target::Name("operator".to_owned());
        cluster.revoke_keys(&target, "", false, &mut |_| Ok(())).unwrap();
        let new = std::fs::read(&path).unwrap();
        std::fs::write(&path, old).unwrap();
        let failure = cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("n1: ") && failure.message.contains("old copy"));
        let stages = play.0.lock().unwrap();
        assert!(stages.values().all(|stage| stage.files[&in_keys(identity::BUNDLE)] == new));
    }

    #[test]
    fn an_old_copy_of_the_keys_signs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        let path = folder.path().join(identity::BUNDLE);
        let old = std::fs::read(&path).unwrap();
        cluster
            .revoke_keys(&Target::Name("operator".to_owned()), "", false, &mut |_| Ok(()))
            .unwrap();
        std::fs::write(&path, &old).unwrap();
        // A second bundle of its own would be newer than the one that it does not know.
        for serial in [2, 3] {
            let failure = cluster.revoke_keys(&Target::Serial(serial), "", false, &mut |_| Ok(()));
            let failure = failure.unwrap_err();
            assert!(failure.message.contains("old copy"), "{}", failure.message);
            assert!(failure.hint.contains("--keys-dir"), "{}", failure.hint);
            assert_eq!(std::fs::read(&path).unwrap(), old);
        }
        let peer = AuthorityRole::Peer;
        assert!(cluster.rotate_keys(peer, Goal::Done, &[], &mut |_| Ok(())).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), old);
        assert_eq!(seen(&play, |stage| stage.active.0), [2, 2, 2]);
    }

    #[test]
    fn a_node_that_runs_without_a_public_key_is_not_taken_for_an_empty_host() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        change(&play, "n1", |stage| stage.key = None);
        let target = Target::Name("operator".to_owned());
        let failure = cluster.revoke_keys(&target, "", false, &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("n1: "), "{}", failure.message);
        assert_eq!(seen(&play, |stage| stage.active.0), [1, 2, 2]);
    }

    #[test]
    fn one_whose_key_is_revoked_keeps_no_other_from_being_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, _play) = settled(folder.path());
        cluster.revoke_keys(&Target::Name("n1".to_owned()), "", false, &mut |_| Ok(())).unwrap();
        std::fs::remove_file(folder.path().join("nodes/n2/host-cert.pub")).unwrap();
        let (renewed, _) = cluster.renew_keys(&[], &mut |_| Ok(())).unwrap();
        assert_eq!(renewed, ["n2"]);
        let named = cluster.renew_keys(&["n1".to_owned()], &mut |_| Ok(())).unwrap_err();
        assert!(named.message.contains("is revoked"), "{}", named.message);
    }

    #[test]
    fn who_was_away_when_certificates_were_made_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        let mut say = |step: &str| {
            if step.contains("peer authority sign") {
                change(&play, "n3", |stage| stage.misses = 1);
            }
            Ok(())
        };
        let rotated = cluster.rotate_keys(AuthorityRole::Peer, Goal::Switched, &[], &mut say);
        let failure = rotated.unwrap_err();
        assert!(failure.message.contains("n3: ") && !failure.message.contains("n2: "));
        let before = seen(&play, |stage| stage.active.2);
        let (rotated, _) =
            cluster.resume_keys(Goal::Switched, &[], false, &mut |_| Ok(())).unwrap();
        assert_eq!(rotated.map(|rotated| rotated.phase), Some(Phase::Switched));
        let after = seen(&play, |stage| stage.active.2);
        assert_eq!((before[..2].to_vec(), before[2] < after[2]), (after[..2].to_vec(), true));
    }

    /// A controller that is killed when it says its step of this number. Says whether it came to
    /// that.
    fn killed_at(step: usize, work: impl FnOnce(Progress<'_>)) -> bool {
        let mut steps = 0;
        let mut say = |_: &str| {
            steps += 1;
            // As a kill: nothing more is done, and locks are let go of.
            if steps == step {
                std::panic::resume_unwind(Box::new("killed"));
            }
            Ok(())
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut say))).is_err()
    }

    #[test]
    fn the_key_of_a_node_is_replaced_wherever_it_was_cut_short() {
        let name = "n2".to_owned();
        let mut step = 1;
        loop {
            let folder = tempfile::tempdir().unwrap();
            let (cluster, play) = settled(folder.path());
            change(&play, "n2", |stage| stage.running = false);
            let key = || play.0.lock().unwrap()["n2"].key.clone().unwrap();
            let old = key();
            if !killed_at(step, |say| _ = cluster.rotate_node_key(&name, &[], say).unwrap()) {
                break;
            }
            cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap();
            if step == 1 {
                // Nothing was noted yet.
                assert_eq!(key(), old);
                cluster.rotate_node_key(&name, &[], &mut |_| Ok(())).unwrap();
            }
            assert_ne!(key(), old, "killed at {step}");
            let keys = ClusterKeys::open_existing(folder.path(), "c").unwrap();
            assert_eq!(keys.bundle().epoch, 2, "killed at {step}");
            assert!(keys.is_revoked(&old) && !keys.is_revoked(&key()), "killed at {step}");
            assert!(keys.node_serials("n2", &key()).unwrap().is_some(), "killed at {step}");
            assert_eq!(keys.replaced("n2").unwrap(), None, "killed at {step}");
            assert_eq!(play.0.lock().unwrap()["n2"].next, None, "killed at {step}");
            step += 1;
        }
        assert!(step > 6, "it has more steps than {step}");
    }

    #[test]
    fn who_is_revoked_while_its_key_is_replaced_keeps_neither() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        change(&play, "n2", |stage| stage.running = false);
        let line = |next: fn(&Stage) -> &Option<String>| {
            next(&play.0.lock().unwrap()["n2"]).clone().unwrap()
        };
        let old = line(|stage| &stage.key);
        assert!(killed_at(4, |say| _ = cluster.rotate_node_key("n2", &[], say).unwrap()));
        let next = line(|stage| &stage.next);
        cluster.revoke_keys(&Target::Name("n2".to_owned()), "", false, &mut |_| Ok(())).unwrap();
        let keys = ClusterKeys::open_existing(folder.path(), "c").unwrap();
        assert!(keys.is_revoked(&old) && keys.is_revoked(&next));
        let failure = cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("is revoked"), "{}", failure.message);
    }

    #[test]
    fn all_certificates_of_a_kind_are_renewed_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        let serials = || [seen(&play, |stage| stage.active.1), seen(&play, |stage| stage.active.2)];
        let before = serials();
        cluster.revoke_keys(&Target::Name("n3".to_owned()), "", false, &mut |_| Ok(())).unwrap();
        let renewed = cluster.renew_role(AuthorityRole::Host, &[], &mut |_| Ok(())).unwrap();
        assert_eq!(renewed.names, ["n1", "n2"], "the key of n3 is revoked");
        let hosts = serials();
        assert_eq!(hosts[1], before[1]);
        assert!(hosts[0][0] > before[0][0] && hosts[0][1] > before[0][1]);
        assert_eq!(hosts[0][2], before[0][2]);
        cluster.renew_role(AuthorityRole::Peer, &[], &mut |_| Ok(())).unwrap();
        let peers = serials();
        assert_eq!(peers[0], hosts[0]);
        assert!(peers[1][0] > before[1][0] && peers[1][1] > before[1][1]);
        let renewed = cluster.renew_role(AuthorityRole::Operator, &[], &mut |_| Ok(())).unwrap();
        assert_eq!((renewed.names, serials()), (vec!["operator".to_owned()], peers));
        change(&play, "n1", |stage| stage.away = true);
        let failure = cluster.renew_role(AuthorityRole::Host, &[], &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("n1: ") && !failure.message.contains("n2: "));
        let left_out = ["n1".to_owned()];
        cluster.renew_role(AuthorityRole::Host, &left_out, &mut |_| Ok(())).unwrap();
    }

    #[test]
    fn an_old_copy_of_the_keys_is_told_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, play) = settled(folder.path());
        change(&play, "n2", |stage| stage.active.0 = 9);
        let failure = cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("n2: ") && failure.message.contains("old copy"));
        assert!(failure.hint.contains("--keys-dir"), "{}", failure.hint);
    }

    #[test]
    fn a_member_that_no_inventory_names_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (mut cluster, _play) = settled(folder.path());
        let keys = ClusterKeys::open_existing(folder.path(), "c").unwrap();
        let state = ClusterState::form(&cluster.inventory, keys.cluster_id(), || 9);
        state.save(folder.path()).unwrap();
        cluster.inventory.nodes.pop();
        let failure = cluster.resume_keys(Goal::Done, &[], false, &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("n3 is a member"), "{}", failure.message);
    }
}
