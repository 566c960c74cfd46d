//! How an authority is replaced by another, as far as it is done with the keys here.
//!
//! Where that stands is told by the bundle, and by nothing else that could disagree with it. The
//! new key lies beside the old one, as `ROLE-authority.new`, from the first step to the last, and
//! which of the two signs is found by looking which of them the bundle calls current. So there is
//! no moment at which a crash leaves a bundle whose signer cannot be found, and no file has to be
//! renamed together with another.
//!
//! What must never happen: a key is removed that a bundle names.

use super::issuer::{Issuer, NODE_ROLES, PERSON_LIFETIME_MAX, authority_file};
use super::{ClusterKeys, KeysError, exists, read_certificate, read_public};
use crate::transport::authority::{self, BACKDATE, Certificate, PersonGrant, PublicKey, Validity};
use crate::transport::bundle::{Authority, AuthorityRole, AuthorityStage, Bundle, Revocation};
use crate::transport::identity;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the replacement of an authority stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is one authority, and no other is under way.
    Settled,
    /// Nodes learn of the new one; the old one signs.
    Learning,
    /// The new one signs; the old one is believed still.
    Switched,
    /// The old one signs again, after a way back; the new one is believed still.
    Returning,
    /// Nodes forget the old one.
    Forgetting,
    /// Nodes forget the new one, which never signed or signs no more.
    Dropping,
}

pub(in crate::controller) fn new_authority_file(role: AuthorityRole) -> String {
    format!("{}.new", authority_file(role))
}

impl ClusterKeys {
    /// Where the replacement of this authority stands.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn phase(&self, role: AuthorityRole) -> Result<Phase, KeysError> {
        let at = |stage| self.at(role, stage).is_some();
        let new = read_public(&self.directory, &new_authority_file(role))?;
        let signs = new.as_ref().zip(self.current(role));
        let signs = signs.is_some_and(|(new, current)| new.key_data() == current.key_data());
        Ok(match (at(AuthorityStage::Next), at(AuthorityStage::Retiring), new) {
            (true, _, _) => Phase::Learning,
            (false, true, _) if signs => Phase::Switched,
            (false, true, _) => Phase::Returning,
            (false, false, None) => Phase::Settled,
            (false, false, Some(_)) if signs => Phase::Forgetting,
            (false, false, Some(_)) => Phase::Dropping,
        })
    }

    /// The authority whose replacement is under way, if one is.
    ///
    /// # Errors
    /// As [`ClusterKeys::phase`].
    pub fn rotating(&self) -> Result<Option<(AuthorityRole, Phase)>, KeysError> {
        for role in AuthorityRole::ALL {
            let phase = self.phase(role)?;
            if phase != Phase::Settled {
                return Ok(Some((role, phase)));
            }
        }
        Ok(None)
    }

    /// Fingerprint of the key that signs now.
    ///
    /// # Errors
    /// When the bundle names none.
    pub fn signer(&self, role: AuthorityRole) -> Result<String, KeysError> {
        self.signing(role).map(authority::print)
    }

    /// The key that signs now; for a root that the bundle does not name, as those of old do not, the
    /// one that the cluster began with.
    pub(super) fn signing(&self, role: AuthorityRole) -> Result<&PublicKey, KeysError> {
        match (role, self.current(role)) {
            (AuthorityRole::Root, _) => Ok(self.root()),
            (_, Some(key)) => Ok(key),
            (role, None) => Err(self.no_signer(role)),
        }
    }

    fn no_signer(&self, role: AuthorityRole) -> KeysError {
        let path = self.directory.join(identity::BUNDLE);
        KeysError::Malformed { path, reason: format!("it names no {role} authority that signs") }
    }

    /// The key that signs now.
    pub(super) fn current(&self, role: AuthorityRole) -> Option<&PublicKey> {
        self.at(role, AuthorityStage::Current)
    }

    fn at(&self, role: AuthorityRole, stage: AuthorityStage) -> Option<&PublicKey> {
        let mut all = self.bundle.authorities.iter();
        let is = |authority: &&Authority| authority.role == role && authority.stage == stage;
        all.find(is).map(|authority| &authority.key)
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// Gives every authority of `role` another stage, or takes it out.
fn restage(
    bundle: &mut Bundle,
    role: AuthorityRole,
    stage: impl Fn(AuthorityStage) -> Option<AuthorityStage>,
) {
    bundle.authorities.retain_mut(|authority| {
        if authority.role != role {
            return true;
        }
        let next = stage(authority.stage);
        authority.stage = next.unwrap_or(authority.stage);
        next.is_some()
    });
}

impl Issuer {
    /// Has at hand what it takes to replace an authority, as far as anybody has to be asked for it.
    ///
    /// # Errors
    /// As [`Issuer::must_be_able`].
    pub(super) fn must_be_able_to_rotate(&self, role: AuthorityRole) -> Result<(), KeysError> {
        self.signers.ready_successor(role, self.keys.signing(role)?)?;
        self.must_be_able(&[AuthorityRole::Root])?;
        if NODE_ROLES.contains(&role) {
            // Both certificates of a node are signed anew.
            self.must_be_able(&NODE_ROLES)?;
        }
        self.ask_for_way_in(SystemTime::now())
    }

    /// As [`Issuer::must_be_able_to_rotate`], for a replacement that is under way.
    ///
    /// # Errors
    /// As there.
    pub(super) fn must_be_able_to_go_on(
        &self,
        role: AuthorityRole,
        phase: Phase,
    ) -> Result<(), KeysError> {
        if !matches!(phase, Phase::Forgetting | Phase::Dropping) {
            return self.must_be_able_to_rotate(role);
        }
        // Nothing is left for root to sign.
        match role {
            AuthorityRole::Root => {}
            AuthorityRole::Host | AuthorityRole::Peer => self.must_be_able(&NODE_ROLES)?,
            AuthorityRole::Operator => self.must_be_able(&[role])?,
        }
        self.ask_for_way_in(SystemTime::now())
    }

    /// Makes the new authority, and a bundle by which it is believed and signs nothing yet.
    ///
    /// # Errors
    /// When a file cannot be written or the root key is not there.
    pub fn begin_rotation(&mut self, role: AuthorityRole) -> Result<(), KeysError> {
        let comment = authority::authority_comment(role, &self.keys.bundle.cluster);
        let key = self.signers.successor(role, &comment, self.keys.signing(role)?)?;
        let public = self.keys.directory.join(format!("{}.pub", new_authority_file(role)));
        authority::write_file(&public, authority::public_line(&key).as_bytes(), 0o644)?;
        let root = self.keys.root().clone();
        self.advance(|bundle| {
            // A bundle of before root keys were named in it.
            if role == AuthorityRole::Root && bundle.authorities(role).next().is_none() {
                let stage = AuthorityStage::Current;
                bundle.authorities.push(Authority { role, stage, key: root });
            }
            bundle.authorities.push(Authority { role, stage: AuthorityStage::Next, key });
        })
    }

    /// Has the new authority sign from now on.
    ///
    /// # Errors
    /// As [`Issuer::begin_rotation`]; also when its private key is not here, for then nobody could
    /// sign.
    pub fn switch(&mut self, role: AuthorityRole) -> Result<(), KeysError> {
        self.must_be_able_to_sign(role, AuthorityStage::Next)?;
        // Its file may have got one since.
        self.signers.protect_successor(role, self.keys.signing(role)?)?;
        self.advance(|bundle| {
            restage(bundle, role, |stage| match stage {
                AuthorityStage::Next => Some(AuthorityStage::Current),
                AuthorityStage::Current => Some(AuthorityStage::Retiring),
                AuthorityStage::Retiring => None,
            });
        })
    }

    /// Refuses to have one sign whose key is not here. A root key may be in an agent: there it
    /// signs the very bundle that says so, or there is none.
    fn must_be_able_to_sign(
        &self,
        role: AuthorityRole,
        stage: AuthorityStage,
    ) -> Result<(), KeysError> {
        match (role, self.keys.at(role, stage)) {
            (AuthorityRole::Root, _) => Ok(()),
            (role, Some(key)) => self.signers.find(role, key).map(|_| ()),
            (role, None) => Err(self.keys.no_signer(role)),
        }
    }

    /// Has nobody believe the one any more that does not sign. A root key is revoked besides: a
    /// node that finds it in its keys directory again, from an old copy of the keys, must be able
    /// to tell that it is not a new one.
    ///
    /// # Errors
    /// As [`Issuer::begin_rotation`].
    pub fn forget(&mut self, role: AuthorityRole) -> Result<(), KeysError> {
        let current = |stage| (stage == AuthorityStage::Current).then_some(stage);
        self.advance(|bundle| {
            if role == AuthorityRole::Root {
                let mut leaves = bundle.authorities.clone();
                leaves.retain(|one| one.role == role && one.stage != AuthorityStage::Current);
                let print = |one: &Authority| authority::print(&one.key);
                let revoked = leaves.iter().map(|one| Revocation::Fingerprint(print(one)));
                bundle.revocations.extend(revoked);
            }
            restage(bundle, role, current);
        })
    }

    /// Has the old authority sign again, where the new one does, and else drops the new one.
    ///
    /// # Errors
    /// As [`Issuer::switch`].
    pub fn go_back(&mut self, role: AuthorityRole) -> Result<(), KeysError> {
        if self.keys.at(role, AuthorityStage::Retiring).is_some() {
            self.must_be_able_to_sign(role, AuthorityStage::Retiring)?;
        }
        self.advance(|bundle| {
            restage(bundle, role, |stage| match stage {
                AuthorityStage::Next => None,
                AuthorityStage::Current => Some(AuthorityStage::Current),
                AuthorityStage::Retiring => Some(AuthorityStage::Retiring),
            });
            let retires = |a: &Authority| a.role == role && a.stage == AuthorityStage::Retiring;
            if bundle.authorities.iter().any(retires) {
                restage(bundle, role, |stage| match stage {
                    AuthorityStage::Current => Some(AuthorityStage::Retiring),
                    _ => Some(AuthorityStage::Current),
                });
            }
        })
    }

    /// Leaves one key of this authority: the one that signs. To be called when no bundle names the
    /// other any more.
    ///
    /// # Errors
    /// When a file cannot be renamed or removed.
    pub fn settle(&self, role: AuthorityRole) -> Result<(), KeysError> {
        let directory = &self.keys.directory;
        let phase = self.keys.phase(role)?;
        let (old, new) = (authority_file(role), new_authority_file(role));
        let (old, new) = (directory.join(old), directory.join(new));
        if phase == Phase::Forgetting && !exists(&new)? {
            // Moved elsewhere, or renamed by a controller that was killed after it.
            self.put_away_retired(role, &old)?;
        }
        // The public half last: it is what tells that something is left to do.
        for end in ["", ".pub"] {
            let (old, new) = (with_end(&old, end), with_end(&new, end));
            let moved = match phase {
                Phase::Forgetting => fs::rename(&new, &old),
                Phase::Dropping => fs::remove_file(&new),
                _ => return Ok(()),
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                moved => moved.map_err(KeysError::file("put away", &new))?,
            }
        }
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(KeysError::file("flush", directory))
    }

    /// Removes the private key of an authority that no bundle names any more, from the name under
    /// which its successor's would be looked for.
    fn put_away_retired(&self, role: AuthorityRole, path: &Path) -> Result<(), KeysError> {
        if !exists(path)? {
            return Ok(());
        }
        let key = authority::load_key_file(path)?;
        if key.public_key().key_data() == self.keys.signing(role)?.key_data() {
            return Ok(());
        }
        fs::remove_file(path).map_err(KeysError::file("put away", path))
    }

    /// Signs the certificates of people again that are here and that the current authority did not
    /// sign: with the same rights, for as long as they had left. Gives their names. What is revoked
    /// or ran out stays as it is.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the authority's key is missing.
    pub fn recertify_people(&self, now: SystemTime) -> Result<Vec<String>, KeysError> {
        let mut outdated = self.valid_people(now)?;
        outdated.retain(|(_, old)| !self.keys.serves(AuthorityRole::Operator, old));
        self.sign_again(&outdated, now, |old| until(old.valid_before(), now))
    }

    /// Signs all certificates of people again that are here: with the same rights, for as long as
    /// they were issued for. Gives their names. What is revoked or ran out stays as it is.
    ///
    /// # Errors
    /// As [`Issuer::recertify_people`].
    pub fn renew_people(&self, now: SystemTime) -> Result<Vec<String>, KeysError> {
        let span = |old: &Certificate| {
            let whole = Duration::from_secs(old.valid_before().saturating_sub(old.valid_after()));
            whole.saturating_sub(BACKDATE).min(PERSON_LIFETIME_MAX)
        };
        self.sign_again(&self.valid_people(now)?, now, span)
    }

    fn sign_again(
        &self,
        people: &[(String, Certificate)],
        now: SystemTime,
        lifetime: impl Fn(&Certificate) -> Duration,
    ) -> Result<Vec<String>, KeysError> {
        let mut names = Vec::new();
        for (name, old) in people {
            let grant = PersonGrant::of(old, &self.keys.bundle.cluster);
            let Some(grant) = grant.filter(|grant| grant.name == *name) else { continue };
            let subject = PublicKey::from(old.public_key().clone());
            self.sign_person(&grant, &subject, Validity::starting(now, lifetime(old)))?;
            names.push(name.clone());
        }
        names.sort();
        Ok(names)
    }

    /// Those people's certificates here that nodes believe now.
    fn valid_people(&self, now: SystemTime) -> Result<Vec<(String, Certificate)>, KeysError> {
        let directory = self.keys.directory.join("people");
        let entries = fs::read_dir(&directory).map_err(KeysError::file("list", &directory))?;
        let mut valid = Vec::new();
        for entry in entries {
            let path = entry.map_err(KeysError::file("list", &directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| name.strip_suffix("-cert.pub")) else { continue };
            let Some(certificate) = read_certificate(&path)? else { continue };
            let role = AuthorityRole::Operator;
            let mut ours = self.keys.bundle.authorities(role);
            let ours = ours.any(|key| key.key_data() == certificate.signature_key());
            let is_valid = !until(certificate.valid_before(), now).is_zero()
                && self.keys.revocation(role, &certificate).is_none();
            if ours && is_valid {
                valid.push((name.to_owned(), certificate));
            }
        }
        Ok(valid)
    }
}

/// How long until this second of the calendar.
fn until(second: u64, now: SystemTime) -> Duration {
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(second));
    end.and_then(|end| end.duration_since(now).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::keys::signers::nobody;

    const ROLE: AuthorityRole = AuthorityRole::Operator;

    fn issuer(folder: &Path) -> Issuer {
        Issuer::open_or_init(folder, "c", nobody).unwrap()
    }

    fn issue(issuer: &Issuer, name: &str, now: SystemTime) -> u64 {
        let grant = PersonGrant {
            name: name.to_owned(),
            rights: "read,write:/app1/".parse().unwrap(),
            source_addresses: Some("10.0.0.0/8".to_owned()),
            force_command: Some("paxos health".to_owned()),
        };
        issuer.issue(&grant, Duration::from_secs(3600), None, now).unwrap().serial
    }

    #[test]
    fn each_stage_is_told_by_the_bundle_and_has_a_signer() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut stages = issuer(folder.path());
        let old = stages.keys().signer(ROLE).unwrap();
        let phase = |issuer: &Issuer| issuer.keys().phase(ROLE).unwrap();
        assert_eq!((phase(&stages), stages.keys().rotating().unwrap()), (Phase::Settled, None));
        let signs = |stages: &Issuer| {
            // What signs is found for whoever opens the keys anew, too.
            issue(stages, "alice", now);
            stages.keys().signer(ROLE).unwrap()
        };
        stages.begin_rotation(ROLE).unwrap();
        assert_eq!((phase(&stages), signs(&stages)), (Phase::Learning, old.clone()));
        stages.switch(ROLE).unwrap();
        assert_eq!(phase(&stages), Phase::Switched);
        let new = signs(&stages);
        assert_ne!(new, old);
        stages.go_back(ROLE).unwrap();
        assert_eq!((phase(&stages), signs(&stages)), (Phase::Returning, old.clone()));
        stages.forget(ROLE).unwrap();
        assert_eq!((phase(&stages), signs(&stages)), (Phase::Dropping, old.clone()));
        stages.settle(ROLE).unwrap();
        assert_eq!((phase(&stages), signs(&stages)), (Phase::Settled, old.clone()));

        stages.begin_rotation(ROLE).unwrap();
        stages.go_back(ROLE).unwrap();
        assert_eq!(phase(&stages), Phase::Dropping);
        // It was never told to anybody, so it may be taken up.
        stages.begin_rotation(ROLE).unwrap();
        stages.switch(ROLE).unwrap();
        stages.forget(ROLE).unwrap();
        assert_eq!(phase(&stages), Phase::Forgetting);
        let new = signs(&stages);
        assert_ne!(new, old);
        // A controller that was killed between the two files of the key.
        let file = |name: &str| folder.path().join(name);
        fs::rename(file("operator-authority.new"), file("operator-authority")).unwrap();
        drop(stages);
        let stages = issuer(folder.path());
        assert_eq!((phase(&stages), signs(&stages)), (Phase::Forgetting, new.clone()));
        stages.settle(ROLE).unwrap();
        assert_eq!((phase(&stages), signs(&stages)), (Phase::Settled, new));
        assert!(!file("operator-authority.new.pub").exists());
        assert_eq!(stages.keys().bundle().authorities.len(), AuthorityRole::ALL.len());
    }

    #[test]
    fn a_root_key_is_replaced_by_bundles_that_both_of_them_sign() {
        let folder = tempfile::tempdir().unwrap();
        let role = AuthorityRole::Root;
        let file = |name: &str| folder.path().join(name);
        let signed_by = |issuer: &Issuer, roots: [&PublicKey; 2]| {
            let signed = issuer.keys().bundle_file().text;
            roots.map(|root| Bundle::verify(&signed, root).is_ok())
        };
        let mut stages = issuer(folder.path());
        let old = stages.keys().root().clone();
        stages.begin_rotation(role).unwrap();
        let new = read_public(folder.path(), "root.new").unwrap().unwrap();
        assert_eq!(stages.keys().root().key_data(), old.key_data());
        assert_eq!(signed_by(&stages, [&old, &new]), [true, true]);
        stages.switch(role).unwrap();
        assert_eq!(stages.keys().root().key_data(), new.key_data(), "nodes are given this one");
        assert_eq!(signed_by(&stages, [&old, &new]), [true, true]);
        stages.go_back(role).unwrap();
        assert_eq!(stages.keys().root().key_data(), old.key_data());
        assert_eq!(signed_by(&stages, [&old, &new]), [true, true]);
        stages.forget(role).unwrap();
        assert_eq!(signed_by(&stages, [&old, &new]), [true, false]);
        stages.settle(role).unwrap();

        stages.begin_rotation(role).unwrap();
        let new = read_public(folder.path(), "root.new").unwrap().unwrap();
        stages.switch(role).unwrap();
        stages.forget(role).unwrap();
        assert_eq!(signed_by(&stages, [&old, &new]), [false, true]);
        assert!(stages.keys().bundle().revokes_key(&authority::print(&old)).is_some());
        assert!(stages.keys().had_root(&old), "it is nobody else's");
        // A controller that was killed between the two files of the key.
        fs::rename(file("root.new"), file("root")).unwrap();
        drop(stages);
        let mut stages = issuer(folder.path());
        assert_eq!(stages.keys().rotating().unwrap(), Some((role, Phase::Forgetting)));
        stages.settle(role).unwrap();
        assert_eq!(stages.keys().rotating().unwrap(), None);
        assert!(!file("root.new.pub").exists());
        // Without its private half nothing is signed, and nothing changes.
        fs::rename(file("root"), file("aside")).unwrap();
        assert!(stages.begin_rotation(role).is_err());
        assert_eq!(issuer_phase(folder.path(), stages), Phase::Dropping);
    }

    /// As whoever comes next sees it.
    fn issuer_phase(folder: &Path, before: Issuer) -> Phase {
        drop(before);
        issuer(folder).keys().phase(AuthorityRole::Root).unwrap()
    }

    #[test]
    fn nobody_is_to_sign_whose_key_is_not_here() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let phase = |issuer: &Issuer| issuer.keys().phase(ROLE).unwrap();
        let mut issuer = issuer(folder.path());
        issuer.begin_rotation(ROLE).unwrap();
        for name in ["operator-authority.new", "operator-authority.new.pub"] {
            fs::rename(file(name), file(&format!("aside-{name}"))).unwrap();
        }
        let error = issuer.switch(ROLE).unwrap_err();
        assert!(error.to_string().contains("operator-authority.new"), "{error}");
        assert_eq!((phase(&issuer), issuer.keys().bundle().epoch), (Phase::Learning, 2));
        for name in ["operator-authority.new", "operator-authority.new.pub"] {
            fs::rename(file(&format!("aside-{name}")), file(name)).unwrap();
        }
        issuer.switch(ROLE).unwrap();
        fs::rename(file("operator-authority"), file("aside")).unwrap();
        let error = issuer.go_back(ROLE).unwrap_err();
        assert!(error.to_string().contains("operator-authority"), "{error}");
        assert_eq!((phase(&issuer), issuer.keys().bundle().epoch), (Phase::Switched, 3));
        // What is lost is no reason not to give the rotation up before anybody signs with it.
        fs::rename(file("aside"), file("operator-authority")).unwrap();
        issuer.go_back(ROLE).unwrap();
        issuer.forget(ROLE).unwrap();
        issuer.settle(ROLE).unwrap();
        issuer.begin_rotation(ROLE).unwrap();
        fs::remove_file(file("operator-authority.new")).unwrap();
        issuer.go_back(ROLE).unwrap();
        issuer.settle(ROLE).unwrap();
        assert_eq!(phase(&issuer), Phase::Settled);
    }

    #[test]
    fn people_keep_their_rights_and_what_is_revoked_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut issuer = issuer(folder.path());
        issue(&issuer, "alice", now);
        issue(&issuer, "former", now - 2 * Duration::from_secs(3600));
        let bob = issue(&issuer, "bob", now);
        issuer.revoke(&crate::controller::keys::issued::Target::Serial(bob), "", now).unwrap();
        assert!(issuer.recertify_people(now).unwrap().is_empty());
        let (_, before) = issuer.keys().person("alice").unwrap();
        issuer.begin_rotation(ROLE).unwrap();
        assert!(issuer.recertify_people(now).unwrap().is_empty());
        issuer.switch(ROLE).unwrap();
        assert_eq!(issuer.recertify_people(now).unwrap(), ["alice"]);
        assert!(issuer.recertify_people(now).unwrap().is_empty(), "once is enough");
        let (_, after) = issuer.keys().person("alice").unwrap();
        let said = |certificate: &Certificate| {
            let valid_before = certificate.valid_before();
            let principals = certificate.valid_principals().to_vec();
            (principals, certificate.critical_options().clone(), valid_before)
        };
        assert_eq!(said(&after), said(&before));
        assert_ne!(after.signature_key(), before.signature_key());
        assert!(after.serial() > before.serial());

        let later = now + Duration::from_secs(600);
        assert_eq!(issuer.renew_people(later).unwrap(), ["alice"], "nobody comes back to life");
        let (_, renewed) = issuer.keys().person("alice").unwrap();
        assert_eq!(renewed.valid_principals(), after.valid_principals());
        let span =
            |certificate: &Certificate| certificate.valid_before() - certificate.valid_after();
        assert_eq!(span(&renewed), span(&after), "for as long as the one before");
        assert_eq!(renewed.valid_before(), after.valid_before() + 600);
    }
}
