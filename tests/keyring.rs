//! A node's keys while it runs: what is taken up, what is refused, and what is remembered over a
//! restart.

use paxos_ssh::paxos::ballot::{ClusterId, NodeId};
use paxos_ssh::transport::authority::{self, PrivateKey, Validity};
use paxos_ssh::transport::bundle::{
    Authority, AuthorityRole, AuthorityStage, Bundle, Replay, Revocation,
};
use paxos_ssh::transport::confined::Confined;
use paxos_ssh::transport::identity;
use paxos_ssh::transport::keyring::{KEPT, Keyring, ReloadError};
use paxos_ssh::transport::node_key;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

/// A cluster's keys, and the directories of one of its nodes.
struct Scene {
    root: PrivateKey,
    host: PrivateKey,
    peer: PrivateKey,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let key = || authority::new_key("").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene { root: key(), host: key(), peer: key(), folder };
        fs::create_dir(scene.keys("")).unwrap();
        scene.certify(10);
        let root = authority::public_line(scene.root.public_key());
        fs::write(scene.keys(identity::ROOT), root).unwrap();
        scene.deliver(&scene.bundle(1, &[]));
        scene
    }

    fn keys(&self, name: &str) -> PathBuf {
        self.folder.path().join("keys").join(name)
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join(KEPT)
    }

    /// Writes certificates of this serial and the next.
    fn certify(&self, serial: u64) {
        let subject = node_key::ensure(&Confined::open(&self.keys("")).unwrap(), "node1").unwrap();
        let validity = Validity::starting(SystemTime::now(), HOUR);
        let (host, peer) = (&self.host, &self.peer);
        let host = authority::host_certificate(host, &subject, "node1", "local", serial, validity)
            .unwrap();
        let peer =
            authority::peer_certificate(peer, &subject, NodeId(1), "local", serial + 1, validity)
                .unwrap();
        let write = |name: &str, text: String| fs::write(self.keys(name), text).unwrap();
        write(identity::HOST_CERTIFICATE, authority::certificate_line(&host));
        write(identity::PEER_CERTIFICATE, authority::certificate_line(&peer));
    }

    fn bundle(&self, epoch: u64, revoked: &[u64]) -> Bundle {
        let current = |role, key: &PrivateKey| Authority {
            role,
            stage: AuthorityStage::Current,
            key: key.public_key().clone(),
        };
        Bundle {
            epoch,
            cluster: "local".to_owned(),
            cluster_id: ClusterId(7),
            authorities: vec![
                current(AuthorityRole::Host, &self.host),
                current(AuthorityRole::Peer, &self.peer),
            ],
            revocations: revoked
                .iter()
                .map(|serial| Revocation::Serial(AuthorityRole::Operator, *serial))
                .collect(),
        }
    }

    /// As [`Scene::bundle`], with these root keys named, and signed by them.
    fn rooted(&self, epoch: u64, roots: &[(&PrivateKey, AuthorityStage)]) -> String {
        let mut bundle = self.bundle(epoch, &[]);
        for (root, stage) in roots {
            let (role, key) = (AuthorityRole::Root, root.public_key().clone());
            bundle.authorities.push(Authority { role, stage: *stage, key });
        }
        let signatures = roots.iter().map(|(root, _)| bundle.signature(*root).unwrap());
        bundle.signed_by(&signatures.collect::<Vec<_>>()).unwrap()
    }

    /// Lays a root key and a bundle there.
    fn lay(&self, root: &PrivateKey, bundle: &str) {
        fs::write(self.keys(identity::ROOT), authority::public_line(root.public_key())).unwrap();
        fs::write(self.keys(identity::BUNDLE), bundle).unwrap();
    }

    fn deliver(&self, bundle: &Bundle) {
        fs::write(self.keys(identity::BUNDLE), bundle.sign(&self.root).unwrap()).unwrap();
    }

    fn open(&self) -> Keyring {
        Keyring::open(&self.keys(""), self.folder.path()).unwrap()
    }
}

/// Epoch, and whether what lies in the keys directory is in use.
fn standing(keyring: &Keyring) -> (u64, bool) {
    let standing = keyring.standing(SystemTime::now());
    (standing.epoch, standing.problem.is_none())
}

/// How often files were taken up, and how often not.
fn counts(keyring: &Keyring) -> (u64, u64) {
    (total(keyring, "reloads"), total(keyring, "reloads_refused"))
}

fn total(keyring: &Keyring, name: &str) -> u64 {
    keyring.totals().iter().find(|total| total.0 == name).unwrap().2
}

#[test]
fn a_newer_bundle_and_other_certificates_are_taken_up() {
    let scene = Scene::new();
    let keyring = scene.open();
    keyring.set_members(BTreeMap::from([(NodeId(1), "node1".to_owned())]));
    scene.deliver(&scene.bundle(2, &[5]));
    scene.certify(20);
    keyring.reload().unwrap();
    let seen = keyring.standing(SystemTime::now());
    assert_eq!((seen.epoch, seen.revocations, seen.problem), (2, 1, None));
    assert_eq!((seen.host.serial, seen.peer.serial), (20, 21));
    assert!((3500..=3600).contains(&seen.host.remaining_seconds), "{seen:?}", seen = seen.host);
    assert_eq!(keyring.keys().load().host_certificate.serial(), 20);
    assert_eq!(counts(&keyring), (1, 0));
    let levels = keyring.levels(SystemTime::now());
    assert!(levels.iter().any(|(name, _, value)| (*name, *value) == ("bundle_epoch", 2)));
    // Its members are not in any file, and are still known.
    let late = SystemTime::now() + 2 * HOUR;
    let certificate = keyring.keys().load().peer_certificate.clone();
    let judged =
        keyring.trust().load().accept_certificate(&certificate, "::1".parse().unwrap(), late);
    assert!(judged.is_ok(), "{judged:?}");
    // The same once more is no offence.
    keyring.reload().unwrap();
    assert_eq!((standing(&keyring), counts(&keyring)), ((2, true), (2, 0)));
}

#[test]
fn what_may_not_follow_is_refused_and_the_old_stays() {
    let scene = Scene::new();
    scene.deliver(&scene.bundle(5, &[1]));
    let keyring = scene.open();
    let refused = |bundle: &Bundle| {
        scene.deliver(bundle);
        let error = keyring.reload().unwrap_err();
        assert_eq!(standing(&keyring), (5, false), "{error}");
        match error {
            ReloadError::Replay { source, .. } => source,
            other => panic!("another error: {other}"),
        }
    };
    assert_eq!(refused(&scene.bundle(4, &[])), Replay::Older { epoch: 4, active: 5 });
    assert_eq!(refused(&scene.bundle(5, &[2])), Replay::Twice { epoch: 5 });
    let other = Bundle { cluster_id: ClusterId(8), ..scene.bundle(6, &[]) };
    assert_eq!(refused(&other), Replay::OtherCluster { epoch: 6 });
    // By another root, with the root key of the cluster beside it, and with its own.
    let stranger = authority::new_key("").unwrap();
    fs::write(scene.keys(identity::BUNDLE), scene.bundle(6, &[]).sign(&stranger).unwrap()).unwrap();
    assert!(matches!(keyring.reload(), Err(ReloadError::Files(_))));
    let root = fs::read(scene.keys(identity::ROOT)).unwrap();
    let line = authority::public_line(stranger.public_key());
    fs::write(scene.keys(identity::ROOT), line).unwrap();
    assert!(matches!(keyring.reload(), Err(ReloadError::OtherRoot { .. })));
    assert_eq!((standing(&keyring), counts(&keyring)), ((5, false), (0, 5)));
    fs::write(scene.keys(identity::ROOT), root).unwrap();
    scene.deliver(&scene.bundle(6, &[]));
    keyring.reload().unwrap();
    assert_eq!((standing(&keyring), counts(&keyring)), ((6, true), (1, 5)));
}

#[test]
fn a_damaged_file_keeps_everything_as_it_was() {
    let scene = Scene::new();
    let keyring = scene.open();
    let names = [
        identity::BUNDLE,
        identity::ROOT,
        identity::PEOPLE,
        identity::MEMBERS,
        identity::HOST_CERTIFICATE,
        identity::PEER_CERTIFICATE,
        identity::NODE_KEY,
    ];
    for name in names {
        scene.deliver(&scene.bundle(2, &[]));
        let before = fs::read(scene.keys(name)).ok();
        fs::write(scene.keys(name), "damaged").unwrap();
        let error = keyring.reload().unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert_eq!(standing(&keyring), (1, false), "{name}");
        match before {
            Some(bytes) => fs::write(scene.keys(name), bytes).unwrap(),
            None => fs::remove_file(scene.keys(name)).unwrap(),
        }
    }
    keyring.reload().unwrap();
    assert_eq!(standing(&keyring), (2, true));
}

#[test]
fn a_bundle_that_was_active_is_remembered_over_a_restart() {
    let scene = Scene::new();
    let keyring = scene.open();
    scene.deliver(&scene.bundle(3, &[9]));
    keyring.reload().unwrap();
    drop(keyring);
    // What somebody puts there while the node is down: an older one, none that can be read, none.
    let places: [fn(&Scene); 3] = [
        |scene| scene.deliver(&scene.bundle(2, &[])),
        |scene| fs::write(scene.keys(identity::BUNDLE), "damaged").unwrap(),
        |scene| fs::remove_file(scene.keys(identity::BUNDLE)).unwrap(),
    ];
    for place in places {
        place(&scene);
        let keyring = scene.open();
        assert_eq!((standing(&keyring), counts(&keyring)), ((3, false), (0, 1)));
        assert_eq!(keyring.trust().load().bundle().revocations.len(), 1);
    }
    scene.deliver(&scene.bundle(3, &[9]));
    assert_eq!(standing(&scene.open()), (3, true));
    scene.deliver(&scene.bundle(4, &[9]));
    assert_eq!(standing(&scene.open()), (4, true));
    scene.deliver(&scene.bundle(3, &[9]));
    assert_eq!(standing(&scene.open()), (4, false), "a start remembers as well");
}

/// Neither a copy that was cut short nor one of a cluster that was here before keeps a node from
/// starting.
#[test]
fn a_kept_bundle_that_cannot_be_used_bricks_nothing() {
    let scene = Scene::new();
    let stranger = authority::new_key("").unwrap();
    let signed = scene.bundle(9, &[]).sign(&scene.root).unwrap();
    let foreign = scene.bundle(9, &[]).sign(&stranger).unwrap();
    for kept in ["", &signed[..signed.len() / 2], &foreign] {
        fs::write(scene.kept(), kept).unwrap();
        assert_eq!(standing(&scene.open()), (1, true), "{kept:?}");
    }
    assert_eq!(fs::read(scene.kept()).unwrap(), fs::read(scene.keys(identity::BUNDLE)).unwrap());
}

/// What is revoked is revoked, although it cannot be written down.
#[test]
fn a_bundle_that_cannot_be_kept_is_active_all_the_same() {
    let scene = Scene::new();
    // A directory in its place is as bad as a disk without room, for every user.
    fs::create_dir(scene.kept()).unwrap();
    fs::write(scene.kept().join("x"), "x").unwrap();
    let keyring = scene.open();
    scene.deliver(&scene.bundle(2, &[1]));
    keyring.reload().unwrap();
    assert_eq!(standing(&keyring), (2, true));
}

/// A bundle comes by in the log.
fn publish(keyring: &Keyring, epoch: u64, signed: &[u8]) {
    if let Some(believed) = keyring.succession().judge(epoch, signed) {
        keyring.take_published(believed);
    }
}

/// How often a bundle of the log was taken up, and how often a newer one was not.
fn from_log(keyring: &Keyring) -> (u64, u64) {
    (total(keyring, "bundles_from_log"), total(keyring, "bundles_from_log_refused"))
}

#[test]
fn a_newer_bundle_of_the_log_is_taken_up_and_remembered() {
    let scene = Scene::new();
    let keyring = scene.open();
    let signed = scene.bundle(4, &[9]).sign(&scene.root).unwrap();
    publish(&keyring, 4, signed.as_bytes());
    assert_eq!((standing(&keyring), from_log(&keyring)), ((4, true), (1, 0)));
    assert_eq!(keyring.standing(SystemTime::now()).in_log, Some(4));
    assert_eq!((keyring.signed_bundle().epoch, &keyring.signed_bundle().text), (4, &signed));
    // What it had before, and what nobody signed, another signed, or another cluster's root did.
    let stranger = authority::new_key("").unwrap();
    let other = Bundle { cluster_id: ClusterId(8), ..scene.bundle(6, &[]) };
    let refused = [
        scene.bundle(6, &[]).sign(&stranger).unwrap(),
        other.sign(&scene.root).unwrap(),
        signed[..signed.len() / 2].to_owned(),
        // An older one under a number that it does not have.
        scene.bundle(3, &[]).sign(&scene.root).unwrap(),
    ];
    for (refused, count) in refused.iter().zip(1..) {
        publish(&keyring, 6, refused.as_bytes());
        assert_eq!((standing(&keyring), from_log(&keyring)), ((4, true), (1, count)));
    }
    publish(&keyring, 3, b"nobody looks at it");
    assert_eq!((standing(&keyring), from_log(&keyring)), ((4, true), (1, 4)));
    drop(keyring);
    assert_eq!(standing(&scene.open()), (4, false), "the keys directory has an older one");
}

#[test]
fn a_root_key_is_replaced_by_bundles_and_the_one_before_is_believed_no_more() {
    use AuthorityStage::{Current, Next, Retiring};
    let scene = Scene::new();
    let (old, new) = (scene.root.clone(), authority::new_key("").unwrap());
    let keyring = scene.open();
    let both = scene.rooted(2, &[(&old, Current), (&new, Next)]);
    let alone = scene.rooted(2, &[(&new, Current)]);
    publish(&keyring, 2, alone.as_bytes());
    assert_eq!(from_log(&keyring), (0, 1), "nobody named it yet");
    publish(&keyring, 2, both.as_bytes());
    // The next root key comes with the files or through the log.
    let switched = scene.rooted(3, &[(&new, Current), (&old, Retiring)]);
    scene.lay(&new, &switched);
    keyring.reload().unwrap();
    assert_eq!(standing(&keyring), (3, true));
    let mut forgotten = scene.bundle(4, &[]);
    let (role, key) = (AuthorityRole::Root, new.public_key().clone());
    forgotten.authorities.push(Authority { role, stage: Current, key });
    forgotten.revocations.push(Revocation::Fingerprint(authority::print(old.public_key())));
    let forgotten = forgotten.sign(&new).unwrap();
    publish(&keyring, 4, forgotten.as_bytes());
    assert_eq!((standing(&keyring), from_log(&keyring)), ((4, true), (2, 1)));
    // Whoever has the old one can do nothing with it, and neither can an old copy of the keys.
    let forged = scene.rooted(9, &[(&old, Current)]);
    publish(&keyring, 9, forged.as_bytes());
    assert_eq!((standing(&keyring), from_log(&keyring)), ((4, true), (2, 2)));
    scene.lay(&old, &forged);
    assert!(matches!(keyring.reload(), Err(ReloadError::RevokedRoot { .. })));
    assert_eq!(standing(&keyring), (4, false));
    drop(keyring);
    let keyring = scene.open();
    assert_eq!(standing(&keyring), (4, false), "nor at a start");
    publish(&keyring, 9, forged.as_bytes());
    assert_eq!((standing(&keyring), from_log(&keyring)), ((4, false), (0, 1)));
    scene.lay(&new, &forgotten);
    keyring.reload().unwrap();
    assert_eq!(standing(&keyring), (4, true));
}

#[test]
fn a_node_that_slept_through_it_starts_with_the_root_key_that_was_brought() {
    let scene = Scene::new();
    drop(scene.open());
    let new = authority::new_key("").unwrap();
    scene.lay(&new, &scene.rooted(7, &[(&new, AuthorityStage::Current)]));
    assert_eq!(standing(&scene.open()), (7, true));
    // And is not led astray by what another cluster left in its data directory.
    let mut foreign = Bundle { cluster_id: ClusterId(8), ..scene.bundle(9, &[]) };
    let (role, key) = (AuthorityRole::Root, scene.host.public_key().clone());
    foreign.authorities.push(Authority { role, stage: AuthorityStage::Current, key });
    fs::write(scene.kept(), foreign.sign(&scene.host).unwrap()).unwrap();
    assert_eq!(standing(&scene.open()), (7, true));
}

#[test]
fn what_nobody_signed_hides_no_bundle_of_the_log() {
    use AuthorityStage::{Current, Next, Retiring};
    let scene = Scene::new();
    let (old, new) = (scene.root.clone(), authority::new_key("").unwrap());
    let keyring = scene.open();
    let mut succession = keyring.succession();
    let garbage = scene.bundle(u64::MAX, &[]).sign(&new).unwrap();
    assert!(succession.judge(u64::MAX, garbage.as_bytes()).is_none());
    assert!(succession.judge(u64::MAX, b"not even text: \xff").is_none());
    // A node that was away reads all of it before any of it is active.
    let both = scene.rooted(2, &[(&old, Current), (&new, Next)]);
    let switched = scene.rooted(3, &[(&new, Current), (&old, Retiring)]);
    let alone = scene.rooted(4, &[(&new, Current)]);
    let mut last = None;
    for (epoch, signed) in [(2, &both), (3, &switched), (4, &alone)] {
        last = succession.judge(epoch, signed.as_bytes());
        assert!(last.is_some(), "epoch {epoch}");
    }
    let forged = scene.rooted(5, &[(&old, Current)]);
    assert!(succession.judge(5, forged.as_bytes()).is_none(), "by the root key of before");
    assert!(succession.judge(4, alone.as_bytes()).is_none(), "no news");
    assert_eq!(standing(&keyring), (1, true));
    // What lies in the keys directory may be half of a delivery.
    fs::write(scene.keys(identity::PEOPLE), "damaged").unwrap();
    keyring.take_published(last.unwrap());
    assert_eq!((standing(&keyring), from_log(&keyring)), ((4, true), (1, 3)));
    assert_eq!(keyring.standing(SystemTime::now()).in_log, Some(4));
}
