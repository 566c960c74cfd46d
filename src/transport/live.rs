//! The trust of the moment, and what becomes of open connections when it changes.
//!
//! A key or certificate is judged when its holder logs in. The trust may change while the
//! connection lives: then whoever keeps the connection judges its far end once more, by
//! [`LiveTrust::until_disowned`], and cuts it when it is not believed any more. Trust can be
//! replaced in no other way than by [`LiveTrust::replace`], which wakes all of them, so nobody can
//! forget to.
//!
//! What is judged again is whether the same login would succeed: by a known authority, not revoked,
//! for the same principal with the same rights. That time passes ends no connection: a login counts
//! if it would succeed now, or would have at the moment when it was made. (So a member that came
//! with an expired certificate stays when a new one, not valid at that moment yet, takes its
//! place.)
//!
//! The cost: a copy of the proof per connection, and a verification or two per connection and
//! change, which are rare.

use super::identity::{Principal, Refusal, Trust};
use arc_swap::ArcSwap;
use russh::keys::{Certificate, PublicKey};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// Whom a node believes now.
pub struct LiveTrust {
    current: ArcSwap<Trust>,
    changes: watch::Sender<()>,
}

impl fmt::Debug for LiveTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveTrust").field("epoch", &self.load().epoch()).finish_non_exhaustive()
    }
}

impl LiveTrust {
    /// Begins with this trust.
    pub fn new(trust: Trust) -> LiveTrust {
        LiveTrust { current: ArcSwap::from_pointee(trust), changes: watch::Sender::new(()) }
    }

    /// The trust of the moment.
    pub fn load(&self) -> Arc<Trust> {
        self.current.load_full()
    }

    /// Puts another trust in its place, and has every open connection judged by it.
    pub fn replace(&self, trust: Trust) {
        self.current.store(Arc::new(trust));
        self.changes.send_replace(());
    }

    /// To be taken before a login is judged: then no change is missed that comes after that.
    pub(super) fn changes(&self) -> Changes {
        Changes(self.changes.subscribe())
    }

    /// Resolves when a change has come after which `login` is not believed any more, with the
    /// reason. Never, if that does not happen.
    pub(super) async fn until_disowned(&self, mut changes: Changes, login: &impl Login) -> String {
        loop {
            // Fails when the sender is gone, which is in `self`.
            if changes.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Err(why) = stands(login, &self.load(), SystemTime::now()) {
                return why;
            }
        }
    }
}

/// Tells that the trust was replaced.
pub(super) struct Changes(watch::Receiver<()>);

/// A far end that was believed once.
pub(super) trait Login {
    /// When that was.
    fn at(&self) -> SystemTime;

    /// Whether it would be believed at `time`; the refusal, or another reason against it.
    fn judge(&self, trust: &Trust, time: SystemTime) -> Result<(), String>;
}

fn stands(login: &impl Login, trust: &Trust, now: SystemTime) -> Result<(), String> {
    login.judge(trust, now).or_else(|_| login.judge(trust, login.at()))
}

/// How somebody proved who they are.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    Certificate(Box<Certificate>),
    Key(PublicKey),
}

impl Proof {
    pub(super) fn judge(
        &self,
        trust: &Trust,
        source: IpAddr,
        time: SystemTime,
    ) -> Result<Principal, Refusal> {
        match self {
            Proof::Certificate(certificate) => trust.accept_certificate(certificate, source, time),
            Proof::Key(key) => trust.accept_key(key, source, time),
        }
    }
}

/// Somebody who dialled us and was let in.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) proof: Proof,
    pub(super) source: IpAddr,
    pub(super) at: SystemTime,
    pub(super) principal: Principal,
}

impl Login for Visitor {
    fn at(&self) -> SystemTime {
        self.at
    }

    fn judge(&self, trust: &Trust, time: SystemTime) -> Result<(), String> {
        match self.proof.judge(trust, self.source, time) {
            Ok(principal) if principal == self.principal => Ok(()),
            Ok(_) => Err("it stands for somebody else, or for other rights, now".to_owned()),
            Err(refusal) => Err(refusal.to_string()),
        }
    }
}

/// A node that we dialled, by the host certificate that it showed.
#[derive(Debug, Clone)]
pub(super) struct DialledHost {
    pub(super) certificate: Certificate,
    pub(super) expected: String,
    pub(super) at: SystemTime,
}

impl Login for DialledHost {
    fn at(&self) -> SystemTime {
        self.at
    }

    fn judge(&self, trust: &Trust, time: SystemTime) -> Result<(), String> {
        let judged = trust.accept_host(&self.certificate, &self.expected, time);
        judged.map_err(|refusal| refusal.to_string())
    }
}
