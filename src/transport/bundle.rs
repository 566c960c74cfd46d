//! The trust bundle: which authorities a cluster believes, and what it has revoked; signed by root.
//!
//! A bundle is a text of one fact per line, followed by an OpenSSH signature (SSHSIG), so that a
//! person can read it and `ssh-keygen -Y verify` can check it. Every node holds one on its disk,
//! because the first connection needs it before any quorum exists, and it also travels in the log;
//! the highest epoch of the two is active. Nothing here decides which bundle is active, and nothing
//! believes one that is not signed: the only ways from bytes to a [`Bundle`] are [`Bundle::verify`]
//! and its kin.
//!
//! A bundle names the root keys as well. While one root key takes another's place, the bundle is
//! signed by both, so that whoever believes either of them can follow.
//!
//! The cost of a text of our own: a parser, strict enough that a bundle of a later version is
//! refused rather than half understood.

use super::authority_key::Signing;
use crate::paxos::ballot::ClusterId;
use russh::keys::PublicKey;
use russh::keys::ssh_key::{HashAlg, LineEnding, SshSig};
use std::fmt::{self, Write};

/// What the signature covers besides the text: a root key that signs other things too cannot be
/// tricked into signing a bundle.
pub const NAMESPACE: &str = "trust-bundle@paxos";

/// First line of a bundle; the number is the version of the format.
const HEADER: &str = "paxos-trust-bundle 1";

/// A bundle of a hundred thousand revocations is below this; a larger file is not one of ours.
const BUNDLE_BYTES_MAX: usize = 16 << 20;

const SIGNATURE_START: &str = "-----BEGIN SSH SIGNATURE-----";

/// Two root keys sign while one replaces the other. Others are not looked at.
const SIGNATURES_MAX: usize = 2;

/// What an authority may vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorityRole {
    /// Signs trust bundles, and with them all that follows.
    Root,
    /// Signs host certificates of nodes.
    Host,
    /// Signs client certificates of nodes.
    Peer,
    /// Signs certificates of people and applications.
    Operator,
}

impl AuthorityRole {
    /// Each of them.
    pub const ALL: [AuthorityRole; 4] =
        [AuthorityRole::Root, AuthorityRole::Host, AuthorityRole::Peer, AuthorityRole::Operator];

    /// The word for it in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            AuthorityRole::Root => "root",
            AuthorityRole::Host => "host",
            AuthorityRole::Peer => "peer",
            AuthorityRole::Operator => "operator",
        }
    }

    fn from_name(name: &str) -> Option<AuthorityRole> {
        AuthorityRole::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for AuthorityRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an authority stands in its rotation. Verifiers believe all three; only the current one
/// signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityStage {
    /// Signs.
    Current,
    /// Will sign, once every verifier knows it.
    Next,
    /// Signed until lately.
    Retiring,
}

impl AuthorityStage {
    const ALL: [AuthorityStage; 3] =
        [AuthorityStage::Current, AuthorityStage::Next, AuthorityStage::Retiring];

    fn name(self) -> &'static str {
        match self {
            AuthorityStage::Current => "current",
            AuthorityStage::Next => "next",
            AuthorityStage::Retiring => "retiring",
        }
    }
}

impl fmt::Display for AuthorityStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One key that may sign certificates of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// What it may vouch for.
    pub role: AuthorityRole,
    /// Where it stands.
    pub stage: AuthorityStage,
    /// The key itself.
    pub key: PublicKey,
}

/// Something that is no longer believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The certificate with this serial, of any authority of this role.
    Serial(AuthorityRole, u64),
    /// Certificates with this key id.
    KeyId(String),
    /// A key, by its SHA-256 fingerprint (`SHA256:…`), alone or in any certificate.
    Fingerprint(String),
}

impl fmt::Display for Revocation {
    /// In the words of a bundle.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Revocation::Serial(role, serial) => write!(f, "serial {role} {serial}"),
            Revocation::KeyId(id) => write!(f, "key-id {id}"),
            Revocation::Fingerprint(print) => write!(f, "key {print}"),
        }
    }
}

/// A root key's signature of a bundle.
#[derive(Debug, Clone)]
pub struct Signature(SshSig);

/// What a cluster believes. Its epoch only grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Which of two bundles is newer.
    pub epoch: u64,
    /// The cluster's name, as in every principal.
    pub cluster: String,
    /// The cluster's identity.
    pub cluster_id: ClusterId,
    /// Who may vouch for whom.
    pub authorities: Vec<Authority>,
    /// Who is no longer believed.
    pub revocations: Vec<Revocation>,
}

/// Why a bundle is not believed or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not signed at all.
    #[error("the trust bundle has no signature; have it signed by the root key again")]
    Unsigned,
    /// The signature does not fit the text, or is by another key.
    #[error(
        "the trust bundle is not signed by the root key {root}; \
         it was altered, or belongs to another cluster: deliver the cluster's own bundle again"
    )]
    Forged {
        /// Fingerprint of the root key that was expected, or of each of them.
        root: String,
    },
    /// The text is not in the format.
    #[error(
        "line {line} of the trust bundle is not understood: {reason}; deliver it again, or update"
    )]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The signer failed.
    #[error("cannot sign the trust bundle with the root key: {0}; check the key")]
    Signing(String),
}

/// Why a bundle that root signed is not taken all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Replay {
    /// A newer one is active.
    #[error(
        "the bundle has epoch {epoch}, and the one that is active here has epoch {active}; \
         deliver the newest: paxos-ctl keys resume"
    )]
    Older {
        /// Of the one that was offered.
        epoch: u64,
        /// Of the one that is active.
        active: u64,
    },
    /// Two bundles of one epoch: somebody works with an old copy of the cluster's keys.
    #[error(
        "another bundle of epoch {epoch} is active here, so there are two sets of the cluster's \
         keys; find the newest, and make a bundle of a higher epoch with it"
    )]
    Twice {
        /// Of both.
        epoch: u64,
    },
    /// It is of another cluster that has the same root key.
    #[error(
        "the bundle, of epoch {epoch}, is another cluster's; deliver this cluster's own: \
         paxos-ctl keys resume"
    )]
    OtherCluster {
        /// Of the one that was offered.
        epoch: u64,
    },
}

fn malformed(line: usize, reason: impl Into<String>) -> BundleError {
    BundleError::Malformed { line, reason: reason.into() }
}

/// SHA-256 fingerprint as OpenSSH prints it.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

impl Bundle {
    /// The keys that may vouch in this role, the current one first.
    pub fn authorities(&self, role: AuthorityRole) -> impl Iterator<Item = &PublicKey> {
        let of = move |stage| {
            self.authorities.iter().filter(move |a| a.role == role && a.stage == stage)
        };
        AuthorityStage::ALL.into_iter().flat_map(of).map(|authority| &authority.key)
    }

    /// What revokes a certificate of this role by what is written in it. Its keys are another
    /// question, and are asked for with [`Bundle::revokes_key`].
    pub fn revokes_issue(
        &self,
        role: AuthorityRole,
        serial: u64,
        key_id: &str,
    ) -> Option<&Revocation> {
        self.revocations.iter().find(|revocation| match revocation {
            Revocation::Serial(of, revoked) => *of == role && *revoked == serial,
            Revocation::KeyId(id) => id == key_id,
            Revocation::Fingerprint(_) => false,
        })
    }

    /// What revokes the key with this fingerprint.
    pub fn revokes_key(&self, print: &str) -> Option<&Revocation> {
        let hit = |r: &&Revocation| matches!(r, Revocation::Fingerprint(p) if p == print);
        self.revocations.iter().find(hit)
    }

    /// Whether a node that believes in this bundle may take another one.
    ///
    /// # Errors
    /// When it may not.
    pub fn may_become(&self, other: &Bundle) -> Result<(), Replay> {
        let (epoch, active) = (other.epoch, self.epoch);
        if other.cluster_id != self.cluster_id {
            return Err(Replay::OtherCluster { epoch });
        }
        if epoch < active {
            return Err(Replay::Older { epoch, active });
        }
        // Comments of keys are not part of a bundle, but take part in the comparison of keys.
        match epoch > active || other.to_text() == self.to_text() {
            true => Ok(()),
            false => Err(Replay::Twice { epoch }),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: fmt::Arguments<'_>| {
            writeln!(text, "{words}").expect("writing to a string cannot fail");
        };
        line(format_args!("{HEADER}"));
        line(format_args!("cluster {}", self.cluster));
        line(format_args!("cluster-id {}", self.cluster_id));
        line(format_args!("epoch {}", self.epoch));
        for Authority { role, stage, key } in &self.authorities {
            let key = PublicKey::new(key.key_data().clone(), "").to_openssh();
            let key = key.expect("a key that was parsed or made can be written");
            line(format_args!("authority {role} {} {}", stage.name(), key.trim_end()));
        }
        for revocation in &self.revocations {
            line(format_args!("revoked {revocation}"));
        }
        text
    }

    /// The signed form, as it lies on disk and travels.
    ///
    /// # Errors
    /// When the key cannot sign, or the bundle could not be read back: a name with a line break in
    /// it.
    pub fn sign(&self, root: &impl Signing) -> Result<String, BundleError> {
        self.signed_by(&[self.signature(root)?])
    }

    /// What a root key says to this bundle.
    ///
    /// # Errors
    /// As [`Bundle::sign`].
    pub fn signature(&self, root: &impl Signing) -> Result<Signature, BundleError> {
        let text = self.checked_text()?;
        let signature = SshSig::sign(root, NAMESPACE, HashAlg::Sha512, text.as_bytes());
        signature.map(Signature).map_err(|error| {
            BundleError::Signing(root.refusal().unwrap_or_else(|| error.to_string()))
        })
    }

    /// The signed form with these signatures of it: one, and two while a root key is replaced.
    ///
    /// # Errors
    /// As [`Bundle::sign`].
    pub fn signed_by(&self, signatures: &[Signature]) -> Result<String, BundleError> {
        let mut signed = self.checked_text()?;
        for Signature(signature) in signatures {
            let signature = signature.to_pem(LineEnding::LF);
            let signature = signature.map_err(|error| BundleError::Signing(error.to_string()))?;
            signed.push_str(signature.trim_end());
            signed.push('\n');
        }
        Ok(signed)
    }

    /// The text, if it says what it should when it is read back.
    fn checked_text(&self) -> Result<String, BundleError> {
        let text = self.to_text();
        // Comments of keys are not part of a bundle, but take part in the comparison of keys.
        let mut plain = self.clone();
        for authority in &mut plain.authorities {
            authority.key.set_comment("");
        }
        if parse(&text)? != plain {
            return Err(BundleError::Signing(
                "a name or key id in it holds white space that the format cannot keep".to_owned(),
            ));
        }
        Ok(text)
    }

    /// Reads a signed bundle and believes it only if `root` signed it.
    ///
    /// # Errors
    /// When it is not signed, signed by another key, altered, or not in the format.
    pub fn verify(signed: &str, root: &PublicKey) -> Result<Bundle, BundleError> {
        Bundle::verify_by_any(signed, &[root])
    }

    /// As [`Bundle::verify`], if any of these root keys signed it.
    ///
    /// # Errors
    /// As there.
    pub fn verify_by_any(signed: &str, roots: &[&PublicKey]) -> Result<Bundle, BundleError> {
        if signed.len() > BUNDLE_BYTES_MAX {
            return Err(malformed(1, format!("longer than {BUNDLE_BYTES_MAX} bytes")));
        }
        let start = signed.find(SIGNATURE_START).ok_or(BundleError::Unsigned)?;
        let (text, signatures) = signed.split_at(start);
        let believed = signatures_in(signatures).iter().any(|signature| {
            let signs =
                |root: &&&PublicKey| root.verify(NAMESPACE, text.as_bytes(), signature).is_ok();
            roots.iter().find(signs).is_some()
        });
        if !believed {
            let prints: Vec<_> = roots.iter().map(|root| fingerprint(root)).collect();
            return Err(BundleError::Forged { root: prints.join(" or ") });
        }
        parse(text)
    }

    /// As [`Bundle::verify`], if a root key signed it that it names itself, or `pinned`. To be
    /// asked only of a bundle that comes from a place which nobody else can write to: anybody can
    /// sign a bundle that names their own key.
    ///
    /// # Errors
    /// As there.
    pub fn verify_own(signed: &str, pinned: &PublicKey) -> Result<Bundle, BundleError> {
        let text = signed.find(SIGNATURE_START).map(|start| &signed[..start]);
        let claimed = text.filter(|text| text.len() <= BUNDLE_BYTES_MAX).map(parse);
        let Some(Ok(claimed)) = claimed else { return Bundle::verify(signed, pinned) };
        let mut roots = claimed.roots(pinned);
        roots.push(pinned);
        Bundle::verify_by_any(signed, &roots)
    }

    /// The root keys by which a bundle that follows this one is judged: those that it names. One
    /// that names none leaves `pinned` in its place.
    pub fn roots<'a>(&'a self, pinned: &'a PublicKey) -> Vec<&'a PublicKey> {
        let named: Vec<_> = self.authorities(AuthorityRole::Root).collect();
        if named.is_empty() { vec![pinned] } else { named }
    }
}

/// Those that can be read. What is none of them is none that anybody would believe.
fn signatures_in(text: &str) -> Vec<SshSig> {
    let starts = text.match_indices(SIGNATURE_START).map(|(start, _)| start);
    let mut starts: Vec<_> = starts.take(SIGNATURES_MAX).collect();
    starts.push(text.len());
    let ranges = starts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
    ranges.filter_map(|signature| SshSig::from_pem(signature).ok()).collect()
}

fn parse(text: &str) -> Result<Bundle, BundleError> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut field = |name: &str| {
        let (number, line) = lines.next().ok_or_else(|| malformed(1, "it ends too early"))?;
        let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
        let value = value.filter(|value| !value.is_empty() && !value.contains(char::is_whitespace));
        value.map(|value| (number, value)).ok_or_else(|| malformed(number, format!("want {name}")))
    };
    let (header, version) = HEADER.split_once(' ').expect("the header has two words");
    let (number, found) = field(header)?;
    if found != version {
        return Err(malformed(number, format!("version {found} of the format is not known here")));
    }
    let (_, cluster) = field("cluster")?;
    let (number, id) = field("cluster-id")?;
    let id = u128::from_str_radix(id, 16)
        .ok()
        .filter(|_| id.len() == 32)
        .ok_or_else(|| malformed(number, "a cluster id is 32 hexadecimal digits"))?;
    let (number, epoch) = field("epoch")?;
    let epoch = epoch
        .parse()
        .ok()
        .filter(|epoch| *epoch > 0)
        .ok_or_else(|| malformed(number, "an epoch is a number from 1 on"))?;
    let mut bundle = Bundle {
        epoch,
        cluster: cluster.to_owned(),
        cluster_id: ClusterId(id),
        authorities: Vec::new(),
        revocations: Vec::new(),
    };
    for (number, line) in lines {
        match line.split_once(' ') {
            Some(("authority", rest)) => {
                let authority = parse_authority(rest).map_err(|why| malformed(number, why))?;
                bundle.authorities.push(authority);
            }
            Some(("revoked", rest)) => {
                let revocation = parse_revocation(rest).map_err(|why| malformed(number, why))?;
                bundle.revocations.push(revocation);
            }
            _ => return Err(malformed(number, "want authority or revoked")),
        }
    }
    Ok(bundle)
}

fn parse_authority(text: &str) -> Result<Authority, String> {
    let mut words = text.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let role = word();
    let role = AuthorityRole::from_name(role).ok_or(format!("{role:?} is no kind of authority"))?;
    let stage = word();
    let stage = AuthorityStage::ALL
        .into_iter()
        .find(|known| known.name() == stage)
        .ok_or(format!("{stage:?} is no stage of an authority"))?;
    let key = PublicKey::from_openssh(word()).map_err(|error| format!("no public key: {error}"))?;
    Ok(Authority { role, stage, key })
}

fn parse_revocation(text: &str) -> Result<Revocation, String> {
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["serial", role, serial] => {
            let role = AuthorityRole::from_name(role).ok_or(format!("{role:?} is no authority"))?;
            let serial = serial.parse().map_err(|_| format!("{serial:?} is no serial"))?;
            Ok(Revocation::Serial(role, serial))
        }
        ["key-id", id] if !id.is_empty() => Ok(Revocation::KeyId(id.to_owned())),
        ["key", print] if print.starts_with("SHA256:") => {
            Ok(Revocation::Fingerprint(print.to_owned()))
        }
        _ => Err(format!("{text:?} is no revocation")),
    }
}
