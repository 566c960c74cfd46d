//! What was issued with a cluster's keys, and what was revoked of it, by what `keys/CLUSTER/`
//! remembers.
//!
//! `issued` has a line for each certificate, `revoked` one for each revocation, with the reason
//! that somebody gave. Neither decides anything: what is revoked stands in the bundle, which is all
//! that nodes are told. A line that a crash cut short is passed over; what it was about was never
//! handed out.

use super::issuer::{ISSUED, Issuer};
use super::{
    ClusterKeys, DAY, KeysError, PlainKey, exists, parse_public, read_certificate, read_optional,
};
use crate::controller::state::{ClusterState, STATE, StateError};
use crate::paxos::ballot::NodeId;
use crate::transport::authority::{self, PublicKey};
use crate::transport::bundle::{Authority, AuthorityRole, Revocation};
use crate::transport::diagnosis::Presented;
use crate::transport::identity::{self, Trust};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why things were revoked, beside the keys.
pub(in crate::controller) const REVOKED: &str = "revoked";

/// What ran out longer ago than this is not worth a line of the bundle: no clock is so far behind.
const RAN_OUT_LONG_AGO: Duration = DAY;

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its serial.
    pub serial: u64,
    /// Its key id.
    pub key_id: String,
    /// Whose authority signed it.
    pub role: AuthorityRole,
    /// The person or application it was issued to; none if it was to a node.
    pub person: Option<String>,
    /// Fingerprint of the key.
    pub key: String,
    /// When it runs out.
    pub valid_before: SystemTime,
    /// The line of the bundle that revokes it.
    pub revoked_by: Option<String>,
    /// Why, if somebody said so.
    pub reason: Option<String>,
}

/// What is to be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The certificate with this serial.
    Serial(u64),
    /// Every certificate of a person, or the key of a node.
    Name(String),
    /// A key in every certificate, or the one certificate that a file holds.
    File(PathBuf),
}

/// What came of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The lines of the bundle that say so, new or not.
    pub lines: Vec<String>,
    /// Whether any of them is new.
    pub changed: bool,
    /// The bundle's epoch.
    pub epoch: u64,
}

/// A line of [`REVOKED`].
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    at: String,
    /// Of the bundle that says so first.
    epoch: u64,
    what: String,
    reason: String,
}

impl ClusterKeys {
    /// Everything that was issued, in that order.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn issued(&self) -> Result<Vec<Issued>, KeysError> {
        let text = read_optional(&self.directory.join(ISSUED))?.unwrap_or_default();
        let notes = self.notes()?;
        let mut all: Vec<Issued> = text.lines().filter_map(|line| self.issued_line(line)).collect();
        for issued in &mut all {
            let issue = self.bundle.revokes_issue(issued.role, issued.serial, &issued.key_id);
            let line = issue.or_else(|| self.bundle.revokes_key(&issued.key));
            issued.revoked_by = line.map(Revocation::to_string);
            let note =
                notes.iter().rev().find(|note| Some(&note.what) == issued.revoked_by.as_ref());
            issued.reason = note.map(|note| note.reason.clone()).filter(|text| !text.is_empty());
        }
        Ok(all)
    }

    /// What a node believes that goes by these keys, and whose members are those that the cluster
    /// in `state_dir` was formed with.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn trust(&self, state_dir: &Path, people: &[PlainKey]) -> Result<Trust, KeysError> {
        let malformed = |error: StateError| KeysError::Malformed {
            path: state_dir.join(STATE),
            reason: error.to_string(),
        };
        let state = ClusterState::load(state_dir, &self.bundle.cluster).map_err(malformed)?;
        let founders = state.map(|state| state.nodes).unwrap_or_default();
        let mut certificates = Vec::new();
        for founder in &founders {
            let path = self.node_path(&founder.name, identity::PEER_CERTIFICATE);
            certificates.extend(read_certificate(&path)?);
        }
        let members = founders.into_iter().map(|founder| (NodeId(founder.id), founder.name));
        let listed = people.iter().map(|person| {
            let name = person.name.clone();
            person.listed().map_err(|reason| KeysError::PlainKey { name, reason })
        });
        let trust = Trust::new(self.bundle.clone(), listed.collect::<Result<_, _>>()?);
        Ok(trust.with_members(members.collect()).with_member_certificates(certificates))
    }

    fn notes(&self) -> Result<Vec<Note>, KeysError> {
        let text = read_optional(&self.directory.join(REVOKED))?.unwrap_or_default();
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    fn issued_line(&self, line: &str) -> Option<Issued> {
        let [serial, key_id, key, _after, before] = line.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let (serial, before): (u64, u64) = (serial.parse().ok()?, before.parse().ok()?);
        let cluster = &self.bundle.cluster;
        let person = key_id.strip_suffix(&format!("@{cluster}/{serial}"));
        let role = match (person, key_id.starts_with(&format!("node:{cluster}:"))) {
            (Some(_), _) => AuthorityRole::Operator,
            (None, true) => AuthorityRole::Peer,
            (None, false) => AuthorityRole::Host,
        };
        Some(Issued {
            serial,
            key_id: key_id.to_owned(),
            role,
            person: person.map(str::to_owned),
            key: key.to_owned(),
            valid_before: UNIX_EPOCH.checked_add(Duration::from_secs(before))?,
            revoked_by: None,
            reason: None,
        })
    }

    /// Whether it takes a new bundle to revoke this; nothing is revoked.
    ///
    /// # Errors
    /// As [`Issuer::revoke`].
    pub fn may_revoke(&self, target: &Target, now: SystemTime) -> Result<bool, KeysError> {
        let wanted = self.revocations(target, now)?;
        Ok(wanted.iter().any(|line| !self.bundle.revocations.contains(line)))
    }

    /// What a bundle has to say, to revoke this.
    fn revocations(&self, target: &Target, now: SystemTime) -> Result<Vec<Revocation>, KeysError> {
        match target {
            Target::Serial(serial) => {
                let all = self.issued()?;
                let issued = all.iter().find(|issued| issued.serial == *serial);
                let issued =
                    issued.ok_or_else(|| KeysError::NotIssued(format!("serial {serial}")))?;
                Ok(vec![Revocation::Serial(issued.role, *serial)])
            }
            Target::Name(name) => self.revocations_of(name, now),
            Target::File(path) => {
                let malformed = |reason| KeysError::Malformed { path: path.to_owned(), reason };
                let text = read_optional(path)?.ok_or_else(|| malformed("it is missing".into()))?;
                match Presented::parse(&text).map_err(malformed)? {
                    Presented::Key(key) => {
                        let print = authority::print(&key);
                        let mut all = self.bundle.authorities.iter();
                        match all.find(|authority| authority.key.key_data() == key.key_data()) {
                            // A bundle of before root keys were named in it.
                            None if key.key_data() == self.root().key_data() => {
                                Err(KeysError::RevokedAuthority {
                                    print,
                                    role: AuthorityRole::Root,
                                })
                            }
                            None => Ok(vec![Revocation::Fingerprint(print)]),
                            Some(Authority { role, .. }) => {
                                Err(KeysError::RevokedAuthority { print, role: *role })
                            }
                        }
                    }
                    Presented::Certificate(certificate) => {
                        let signer = certificate.signature_key();
                        let mut signers = self.bundle.authorities.iter();
                        let role = signers.find(|known| known.key.key_data() == signer);
                        let role = role.map(|known| known.role).ok_or_else(|| {
                            KeysError::NotIssued(format!("certificate {:?}", certificate.key_id()))
                        })?;
                        Ok(vec![Revocation::Serial(role, certificate.serial())])
                    }
                }
            }
        }
    }

    fn revocations_of(&self, name: &str, now: SystemTime) -> Result<Vec<Revocation>, KeysError> {
        let mut theirs = self.issued()?;
        theirs.retain(|issued| issued.person.as_deref() == Some(name));
        // A name that could be no node's could be a way out of the directory.
        let node = match identity::is_person_name(name) {
            true => self.node_key(name)?,
            false => None,
        };
        match (node, theirs.is_empty()) {
            (Some(_), false) => Err(KeysError::Ambiguous(name.to_owned())),
            (None, true) => Err(KeysError::NotIssued(name.to_owned())),
            // All certificates of a node are for its one key; for two, while it is replaced. Those
            // that it had before are revoked.
            (Some(key), true) => {
                let keys = [Some(key), self.replaced(name)?];
                let line = |key| Revocation::Fingerprint(authority::print(&key));
                Ok(keys.into_iter().flatten().map(line).collect())
            }
            (None, false) => {
                theirs.retain(|issued| issued.valid_before + RAN_OUT_LONG_AGO > now);
                if theirs.is_empty() {
                    return Err(KeysError::RanOut(name.to_owned()));
                }
                let line = |issued: &Issued| Revocation::Serial(issued.role, issued.serial);
                Ok(theirs.iter().map(line).collect())
            }
        }
    }

    /// The key that a node was certified for last.
    fn node_key(&self, node: &str) -> Result<Option<PublicKey>, KeysError> {
        let path = self.node_path(node, "node_key.pub");
        if !exists(&path)? {
            return Ok(None);
        }
        read_optional(&path)?.map(|line| parse_public(&path, &line)).transpose()
    }

    /// Whether the key of this line is revoked.
    pub fn is_revoked(&self, public_line: &str) -> bool {
        let key = PublicKey::from_openssh(public_line.trim());
        key.is_ok_and(|key| self.bundle.revokes_key(&authority::print(&key)).is_some())
    }

    /// The serials of a node's host and peer certificates; none if they are not here, or for
    /// another key than `public_line`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn node_serials(
        &self,
        node: &str,
        public_line: &str,
    ) -> Result<Option<(u64, u64)>, KeysError> {
        let subject = parse_public(&self.node_path(node, "node_key.pub"), public_line)?;
        let serial = |file| -> Result<Option<u64>, KeysError> {
            let certificate = read_certificate(&self.node_path(node, file))?;
            let ours = certificate.filter(|c| c.public_key() == subject.key_data());
            Ok(ours.map(|certificate| certificate.serial()))
        };
        let host = serial(identity::HOST_CERTIFICATE)?;
        Ok(host.zip(serial(identity::PEER_CERTIFICATE)?))
    }
}

impl Issuer {
    /// Revokes something in the bundle of the next epoch, unless it is revoked already. No node
    /// knows of it yet.
    ///
    /// # Errors
    /// When nothing like that was issued, the root key is missing, or a file cannot be written.
    pub fn revoke(
        &mut self,
        target: &Target,
        reason: &str,
        now: SystemTime,
    ) -> Result<Revoked, KeysError> {
        let wanted = self.keys.revocations(target, now)?;
        let known = &self.keys.bundle.revocations;
        let new: Vec<_> = wanted.iter().filter(|line| !known.contains(line)).cloned().collect();
        let changed = !new.is_empty();
        if changed {
            let epoch = self.keys.bundle.epoch.saturating_add(1);
            let lines = new.clone();
            let signed = self.sign_next(|bundle| bundle.revocations.extend(lines))?;
            for line in &new {
                // Before the bundle, so that no revocation is without its reason.
                self.note_revoked(epoch, line, reason, now)?;
            }
            self.adopt(&signed)?;
        }
        let lines = wanted.iter().map(Revocation::to_string).collect();
        Ok(Revoked { lines, changed, epoch: self.keys.bundle.epoch })
    }

    fn note_revoked(
        &self,
        epoch: u64,
        line: &Revocation,
        reason: &str,
        now: SystemTime,
    ) -> Result<(), KeysError> {
        let path = self.keys.directory.join(REVOKED);
        let at = humantime::format_rfc3339_seconds(now).to_string();
        let note = Note { at, epoch, what: line.to_string(), reason: reason.to_owned() };
        // A line break first: it ends what a crash may have cut short.
        let written = serde_json::to_string(&note).map_err(std::io::Error::other);
        written
            .and_then(|note| append(&path, &format!("\n{note}\n")))
            .map_err(KeysError::file("write", &path))
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::keys::signers::nobody;
    use crate::transport::authority::PersonGrant;

    const HOUR: Duration = Duration::from_secs(3600);

    fn issue(issuer: &Issuer, name: &str, lifetime: Duration, now: SystemTime) -> u64 {
        let grant = PersonGrant {
            name: name.to_owned(),
            rights: "read".parse().unwrap(),
            source_addresses: None,
            force_command: None,
        };
        issuer.issue(&grant, lifetime, None, now).unwrap().serial
    }

    fn node_line() -> String {
        authority::public_line(authority::new_key("").unwrap().public_key())
    }

    #[test]
    fn what_was_issued_is_listed_with_what_revokes_it() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut issuer = Issuer::open_or_init(folder.path(), "c", nobody).unwrap();
        issuer.ensure_node("n1", NodeId(1), &node_line(), now).unwrap();
        let old = issue(&issuer, "alice", HOUR, now - 3 * DAY);
        let one = issue(&issuer, "alice", HOUR, now);
        let two = issue(&issuer, "alice", 8 * HOUR, now);
        let bob = issue(&issuer, "bob", HOUR, now);
        let issued = issuer.keys().issued().unwrap();
        let roles: Vec<&str> = issued.iter().map(|issued| issued.role.name()).collect();
        assert_eq!(roles, ["host", "peer", "operator", "operator", "operator", "operator"]);
        assert_eq!(issued[3].person.as_deref(), Some("alice"));

        let target = Target::Name("alice".to_owned());
        let revoked = issuer.revoke(&target, "laptop lost", now).unwrap();
        let lines = [format!("serial operator {one}"), format!("serial operator {two}")];
        assert_eq!(revoked, Revoked { lines: lines.to_vec(), changed: true, epoch: 2 });
        let again = issuer.revoke(&target, "", now).unwrap();
        assert_eq!((again.changed, again.epoch), (false, 2), "twice is fine");
        let reopened = ClusterKeys::open_existing(folder.path(), "c").unwrap();
        assert_eq!(reopened.bundle().epoch, 2);
        let find = |serial| {
            let issued = reopened.issued().unwrap().into_iter().find(|i| i.serial == serial);
            let issued = issued.unwrap();
            (issued.revoked_by, issued.reason)
        };
        assert_eq!(find(one), (Some(lines[0].clone()), Some("laptop lost".to_owned())));
        assert_eq!((find(bob), find(old)), ((None, None), (None, None)));

        let by_serial = issuer.revoke(&Target::Serial(bob), "", now).unwrap();
        assert_eq!((by_serial.lines, by_serial.epoch), (vec![format!("serial operator {bob}")], 3));
        let host = issuer.revoke(&Target::Serial(1), "", now).unwrap();
        assert_eq!(host.lines, ["serial host 1"], "the role is known by the serial");
    }

    #[test]
    fn what_was_never_issued_cannot_be_revoked_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut issuer = Issuer::open_or_init(folder.path(), "c", nobody).unwrap();
        issuer.ensure_node("n1", NodeId(1), &node_line(), now).unwrap();
        issue(&issuer, "old", HOUR, now - 3 * DAY);
        issue(&issuer, "n1", HOUR, now);
        let name = |name: &str| Target::Name(name.to_owned());
        let mut refused = |target| issuer.revoke(&target, "", now).unwrap_err();
        assert!(matches!(refused(name("mallory")), KeysError::NotIssued(_)));
        assert!(matches!(refused(name("../..")), KeysError::NotIssued(_)));
        assert!(matches!(refused(Target::Serial(99)), KeysError::NotIssued(_)));
        assert!(matches!(refused(name("old")), KeysError::RanOut(_)));
        assert!(matches!(refused(name("n1")), KeysError::Ambiguous(_)));
        let file = folder.path().join("nothing");
        assert!(matches!(refused(Target::File(file)), KeysError::Malformed { .. }));
        assert_eq!(issuer.keys().bundle().epoch, 1);
        std::fs::remove_file(folder.path().join("root")).unwrap();
        let error = issuer.revoke(&Target::Serial(1), "", now).unwrap_err();
        assert!(matches!(error, KeysError::NoSigner { .. }), "{error}");
        assert_eq!(issuer.keys().bundle().epoch, 1);
    }

    #[test]
    fn a_revoked_key_is_certified_no_more_and_ones_own_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut issuer = Issuer::open_or_init(folder.path(), "c", nobody).unwrap();
        let line = node_line();
        issuer.ensure_node("n1", NodeId(1), &line, now).unwrap();
        let node = issuer.revoke(&Target::Name("n1".to_owned()), "", now).unwrap();
        assert!(node.lines[0].starts_with("key SHA256:"), "{:?}", node.lines);
        assert!(!issuer.keys().node_is_current("n1", NodeId(1), &line, now).unwrap());
        let error = issuer.ensure_node("n1", NodeId(1), &line, now).unwrap_err();
        assert!(matches!(error, KeysError::RevokedKey { .. }), "{error}");
        assert!(issuer.ensure_node("n1", NodeId(1), &node_line(), now).unwrap());

        issuer.ensure_operator(now).unwrap();
        let path = folder.path().join("people/operator.pub");
        let before = std::fs::read_to_string(&path).unwrap();
        issuer.revoke(&Target::File(path.clone()), "", now).unwrap();
        assert!(issuer.ensure_operator(now).unwrap(), "it is replaced");
        assert_ne!(std::fs::read_to_string(&path).unwrap(), before);
        let certificate = folder.path().join("people/operator-cert.pub");
        let one = issuer.revoke(&Target::File(certificate), "", now).unwrap();
        assert!(one.lines[0].starts_with("serial operator "), "{:?}", one.lines);
        let grant = PersonGrant {
            name: "eve".to_owned(),
            rights: "read".parse().unwrap(),
            source_addresses: None,
            force_command: None,
        };
        let refused = issuer.issue(&grant, HOUR, Some(&before), now).unwrap_err();
        assert!(matches!(refused, KeysError::RevokedKey { .. }), "{refused}");
    }

    #[test]
    fn an_authority_is_replaced_and_not_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut issuer = Issuer::open_or_init(folder.path(), "c", nobody).unwrap();
        let role = AuthorityRole::Peer;
        let file = Target::File(folder.path().join("peer-authority.pub"));
        let refused = issuer.revoke(&file, "", now).unwrap_err();
        assert!(refused.to_string().contains("keys rotate --authority peer"), "{refused}");
        assert_eq!(issuer.keys().bundle().epoch, 1);
        std::fs::copy(folder.path().join("peer-authority.pub"), folder.path().join("old.pub"))
            .unwrap();
        issuer.begin_rotation(role).unwrap();
        issuer.switch(role).unwrap();
        let old = Target::File(folder.path().join("old.pub"));
        assert!(issuer.revoke(&old, "", now).is_err(), "it is believed still");
        issuer.forget(role).unwrap();
        issuer.settle(role).unwrap();
        assert!(issuer.revoke(&old, "", now).unwrap().changed);
    }

    #[test]
    fn a_line_that_a_crash_cut_short_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let issuer = Issuer::open_or_init(folder.path(), "c", nobody).unwrap();
        issue(&issuer, "alice", HOUR, now);
        append(&folder.path().join(ISSUED), "2 bob@c/2 SHA2").unwrap();
        let carol = issue(&issuer, "carol", HOUR, now);
        let issued = issuer.keys().issued().unwrap();
        let serials: Vec<u64> = issued.iter().map(|issued| issued.serial).collect();
        assert_eq!(serials, [1, carol]);
    }
}
