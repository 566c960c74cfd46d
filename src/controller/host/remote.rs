//! The near end: a [`Host`] whose methods are calls to the agent there.
//!
//! Connects when it is first needed. Where nothing of ours is installed there is no agent, and the
//! shell of the [`landing`](super::landing) answers what little is to be known. A connection that
//! broke is given up with the call that noticed it; the next call makes a new one.
//!
//! It must never say of a host that it could not ask that nothing runs there.

use super::agent_call::{Answer, Call, Digest, Hello, PROTOCOL};
use super::landing::{Landing, Program, Trouble};
use super::local::status_of;
use super::lock::{Busy, Holder};
use super::login::Login;
use super::system;
use super::{Found, Halt, Halted, Host, HostError, Layout, Place, Wanted};
use crate::controller::check::examine::{Stage, Unexamined};
use crate::controller::recover::remains::Remains;
use crate::controller::wait::until;
use crate::controller::watch::Watched;
use crate::wire::agent_frame::{read_frame, write_frame};
use crate::wire::build::Build;
use crate::wire::report::StatusReport;
use rand::RngExt;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

/// How long a call may take that does something. The longest is to wait until a node has ended,
/// which has bounds of its own.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// How long one may take that only looks, or tells: the longest reads an executable for its
/// checksum. A host that hangs must not hold up a revocation for longer.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

fn limit(call: &Call) -> Duration {
    match call {
        Call::Find { .. }
        | Call::Hold(..)
        | Call::Touch(_)
        | Call::Release(_)
        | Call::Reload(_)
        | Call::Status(_) => LOOK_LIMIT,
        _ => CALL_LIMIT,
    }
}

/// Whoever could not be reached is not tried again for this long: a command looks more than once,
/// and a person waits.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long somebody comes again who was turned away because too many came at once.
const CROWD_LIMIT: Duration = Duration::from_secs(5);

/// How long another node's call over the same connection is waited for, to let go of a host.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Between two looks whether it is over.
const RELEASE_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Between two of those times, give or take a half, so that a crowd does not come again as one.
const CROWD_PAUSE: Duration = Duration::from_millis(500);

/// A host over ssh.
pub struct RemoteHost {
    login: Login,
    watched: Watched,
    session: Mutex<Option<Session>>,
    /// Whom each node's directory there is held for, if it is: a new connection takes their locks
    /// again before all else.
    holders: Mutex<BTreeMap<PathBuf, (Place, Holder)>>,
    /// When the last try failed, and why.
    failed: Mutex<Option<(Instant, Trouble)>>,
}

/// How far the connection has come.
enum Session {
    /// Nothing of ours was found there.
    Bare(Box<Landing>),
    /// The agent answers.
    Agent(Box<Program>),
}

/// Why an executable is no agent of ours.
enum Greeting {
    /// It speaks otherwise.
    Other(Trouble),
    /// It does not speak.
    None(Trouble),
}

impl RemoteHost {
    /// Connects later.
    pub fn new(login: Login, watched: Watched) -> RemoteHost {
        RemoteHost {
            login,
            watched,
            session: Mutex::new(None),
            holders: Mutex::default(),
            failed: Mutex::new(None),
        }
    }

    pub(super) fn error(place: &Place, what: impl Into<String>, trouble: Trouble) -> HostError {
        let Trouble { reason, hint } = trouble;
        HostError { node: place.node.clone(), what: what.into(), reason, hint }
    }

    fn connect(&self, place: &Place) -> Result<Session, Trouble> {
        let mut failed = self.failed.lock().expect("no holder of this lock panics");
        if let Some((at, trouble)) = failed.as_ref()
            && at.elapsed() < TRY_AGAIN_AFTER
        {
            return Err(trouble.clone());
        }
        let connected = self.connect_now(place, &[place.executable()]);
        *failed = connected.as_ref().err().map(|trouble| (Instant::now(), trouble.clone()));
        connected
    }

    /// Where many come at once an sshd turns some away, and they come again.
    fn land(&self, private: bool, agents: &[PathBuf]) -> Result<Landing, Trouble> {
        let mut turned_away = None;
        let pause = CROWD_PAUSE.mul_f64(rand::rng().random_range(0.5..1.5));
        let landed =
            until(CROWD_LIMIT, pause, || match Landing::open(&self.login, private, agents) {
                Ok(landing) => Ok(Some(landing)),
                Err(trouble) if trouble.is_crowded() => {
                    turned_away = Some(trouble);
                    Ok(None)
                }
                Err(trouble) => Err(trouble),
            })?;
        landed.ok_or_else(|| turned_away.expect("it tried at least once"))
    }

    fn connect_now(&self, place: &Place, agents: &[PathBuf]) -> Result<Session, Trouble> {
        let private = place.layout == Layout::Own;
        let landing = self.land(private, agents)?;
        let Some(executable) = landing.found.clone() else {
            return Ok(Session::Bare(Box::new(landing)));
        };
        match self.greet(landing.become_agent(&executable)?) {
            Ok(program) => Ok(Session::Agent(Box::new(program))),
            Err(Greeting::Other(trouble)) => Err(trouble),
            // A file that cannot be run, for another machine or cut short, is as good as none, and
            // the next deployment puts another in its place.
            Err(Greeting::None(_)) => {
                Ok(Session::Bare(Box::new(Landing::open(&self.login, private, &[])?)))
            }
        }
    }

    fn greet(&self, mut program: Program) -> Result<Program, Greeting> {
        let deadline = Instant::now() + LOOK_LIMIT;
        let hello = read_frame(|bytes| program.output.read_exact(bytes, deadline));
        match hello {
            Ok(Hello { protocol: PROTOCOL, .. }) => Ok(program),
            Ok(Hello { protocol, version }) => Err(Greeting::Other(Trouble {
                reason: format!(
                    "paxos {version} is installed there and speaks protocol {protocol} to \
                     controllers; this paxos-ctl speaks {PROTOCOL}"
                ),
                hint: format!("use the paxos-ctl of version {version}"),
            })),
            // It may only be slow: that nothing is there would be a bold thing to say.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(Greeting::Other(program.trouble(&self.login, &error)))
            }
            Err(error) => Err(Greeting::None(program.trouble(&self.login, &error))),
        }
    }

    /// One call, or nothing where no agent is.
    fn call(&self, place: &Place, what: &str, call: &Call) -> Result<Option<Answer>, HostError> {
        let mut session = self.session.lock().expect("no holder of this lock panics");
        if session.is_none() {
            let failed = |trouble| RemoteHost::error(place, what, trouble);
            *session = Some(self.connect(place).map_err(failed)?);
            self.hold_again(&mut session, place, what)?;
        }
        self.call_over(&mut session, place, what, call)
    }

    /// With the connection before, the lock was gone, and somebody else may have it by now.
    fn hold_again(
        &self,
        session: &mut Option<Session>,
        place: &Place,
        what: &str,
    ) -> Result<(), HostError> {
        let held: Vec<(Place, Holder)> = self.holders().values().cloned().collect();
        for (at, holder) in held {
            match self.call_over(session, &at, what, &Call::Hold(at.clone(), holder.clone()))? {
                None => {}
                Some(Answer::Held(None)) => self.note_held(&at, &holder, true),
                Some(Answer::Held(Some(busy))) => {
                    *session = None;
                    let reason = format!("somebody else was at work there meanwhile: {}", busy.who);
                    let hint = "see what they did, and go on with: paxos-ctl resume".to_owned();
                    return Err(RemoteHost::error(place, what, Trouble { reason, hint }));
                }
                Some(answer) => return Err(unexpected(place, what, &answer)),
            }
        }
        Ok(())
    }

    fn holders(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (Place, Holder)>> {
        self.holders.lock().expect("no holder of this lock panics")
    }

    /// `was_held` if there was somebody to take the lock, and not a host with nothing on it.
    fn note_held(&self, place: &Place, holder: &Holder, was_held: bool) {
        // When it connects again it takes what is its own, and nobody else's.
        let comes_again = holder.comes_again || was_held;
        let own = Holder { takes_over: false, comes_again, ..holder.clone() };
        self.holders().insert(place.directory.clone(), (place.clone(), own));
    }

    fn call_over(
        &self,
        session: &mut Option<Session>,
        place: &Place,
        what: &str,
        call: &Call,
    ) -> Result<Option<Answer>, HostError> {
        let Some(Session::Agent(program)) = session.as_mut() else { return Ok(None) };
        let deadline = Instant::now() + limit(call);
        let mut frame = Vec::new();
        let asked = write_frame(&mut frame, call).and_then(|()| program.send(&frame));
        let answer =
            asked.and_then(|()| read_frame(|bytes| program.output.read_exact(bytes, deadline)));
        match answer {
            Ok(Answer::Failed { what, reason, hint }) => {
                Err(HostError { node: place.node.clone(), what, reason, hint })
            }
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                let trouble = program.trouble(&self.login, &error);
                *session = None;
                Err(RemoteHost::error(place, what, trouble))
            }
        }
    }

    /// As [`RemoteHost::call`], where something must be installed first.
    pub(in crate::controller) fn demand(
        &self,
        place: &Place,
        what: &str,
        call: &Call,
    ) -> Result<Answer, HostError> {
        self.call(place, what, call)?.ok_or_else(|| {
            let reason = "nothing is installed on the host".to_owned();
            let hint = "deploy again".to_owned();
            RemoteHost::error(place, what, Trouble { reason, hint })
        })
    }

    /// Sees to it that an agent of this program answers, and lays nothing but the program, at the
    /// place where a deployment puts it. A node's own directory keeps the program that is in it.
    ///
    /// # Errors
    /// How far it came, and what stood in the way.
    pub(in crate::controller) fn bring(
        &self,
        place: &Place,
        source: &Path,
    ) -> Result<(), Unexamined> {
        let mut session = self.session.lock().expect("no holder of this lock panics");
        // Nodes of one host share its agent.
        if matches!(*session, Some(Session::Agent(_))) {
            return Ok(());
        }
        // Beside the current version of a host there may be another, which is the one to bring.
        let agents = match place.layout {
            Layout::Own => vec![place.executable()],
            Layout::System { .. } => Vec::new(),
        };
        let connected = self.connect_now(place, &agents).map_err(|trouble| {
            let error = RemoteHost::error(place, "log in", trouble);
            Unexamined { stage: Stage::Reach, error }
        })?;
        if let Session::Agent(_) = session.insert(connected) {
            return Ok(());
        }
        let installed = self.install_on(&mut session, place, source).map(|_executable| ());
        installed.map_err(|trouble| {
            let error = RemoteHost::error(place, "run the program there", trouble);
            Unexamined { stage: Stage::Program, error }
        })
    }

    /// What the shell can tell of a host without an agent.
    fn look_bare(&self, place: &Place, files: usize) -> Result<Found, HostError> {
        let mut session = self.session.lock().expect("no holder of this lock panics");
        let Some(Session::Bare(landing)) = session.as_mut() else {
            return Ok(Found { files: vec![None; files], ..Found::default() });
        };
        let looked = landing.look(&place.directory);
        match looked {
            Ok((directory, log)) => {
                Ok(Found { directory, log, files: vec![None; files], ..Found::default() })
            }
            Err(trouble) => {
                *session = None;
                Err(RemoteHost::error(place, "look at the host", trouble))
            }
        }
    }

    /// Whether there is truly nothing, where no agent was found.
    fn must_be_bare(&self, place: &Place, what: &str) -> Result<(), HostError> {
        if !self.look_bare(place, 0)?.directory {
            return Ok(());
        }
        let (executable, directory) = (place.executable(), place.directory.display());
        let reason = format!("{} is gone, though {directory} is there", executable.display());
        let hint = "deploy again: it puts the program back; then do this again".to_owned();
        Err(RemoteHost::error(place, what, Trouble { reason, hint }))
    }

    /// Sends the executable, makes it the agent and gives its path there.
    fn install(&self, place: &Place, source: &Path) -> Result<PathBuf, Trouble> {
        let mut session = self.session.lock().expect("no holder of this lock panics");
        self.install_on(&mut session, place, source)
    }

    fn install_on(
        &self,
        session: &mut Option<Session>,
        place: &Place,
        source: &Path,
    ) -> Result<PathBuf, Trouble> {
        let (digest, version) = known(source).map_err(|error| Trouble {
            reason: format!("cannot read {}: {error}", source.display()),
            hint: "give the path of the program with paxos_binary".to_owned(),
        })?;
        let Some(version) = version else {
            let reason = format!("{} does not say that it is a paxos program", source.display());
            let hint = "give the path of a paxos program for the host with paxos_binary".to_owned();
            return Err(Trouble { reason, hint });
        };
        let executable = match place.layout {
            Layout::Own => place.executable(),
            Layout::System { .. } => system::version_path(&version, &digest),
        };
        let private = place.layout == Layout::Own;
        let mut landing = match session.take() {
            Some(Session::Bare(landing)) => landing,
            older => {
                // Its connection is the one that others share, and would take them with it.
                drop(older);
                Box::new(Landing::open(&self.login, private, &[])?)
            }
        };
        let sent = |sent, total| self.watched.sent(&place.node, sent, total);
        landing.put(source, &digest, &executable, sent)?;
        match self.greet(landing.become_agent(&executable)?) {
            Ok(program) => *session = Some(Session::Agent(Box::new(program))),
            Err(Greeting::Other(trouble) | Greeting::None(trouble)) => return Err(trouble),
        }
        Ok(executable)
    }
}

pub(in crate::controller) fn unexpected(place: &Place, what: &str, answer: &Answer) -> HostError {
    let reason = format!("the agent answered something else: {answer:?}");
    let hint = "report this fault".to_owned();
    RemoteHost::error(place, what, Trouble { reason, hint })
}

impl Host for RemoteHost {
    fn find(&self, place: &Place, wanted: &Wanted<'_>) -> Result<Found, HostError> {
        let what = "look at the host";
        let digest = wanted.executable.map(digest_of).transpose();
        let executable = digest.map_err(|error| {
            let reason = format!("the executable cannot be read here: {error}");
            let hint = "give the path of the program with paxos_binary".to_owned();
            RemoteHost::error(place, what, Trouble { reason, hint })
        })?;
        let files = wanted.files.to_vec();
        let call = Call::Find { place: place.clone(), executable, files };
        match self.call(place, what, &call)? {
            Some(Answer::Found(found)) => Ok(*found),
            Some(answer) => Err(unexpected(place, what, &answer)),
            None => self.look_bare(place, wanted.files.len()),
        }
    }

    fn ensure_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError> {
        let what = "make its key";
        let call = Call::EnsureNodeKey { place: place.clone(), comment: comment.to_owned() };
        match self.demand(place, what, &call)? {
            Answer::Line(line) => Ok(line),
            answer => Err(unexpected(place, what, &answer)),
        }
    }

    fn next_node_key(&self, place: &Place, comment: &str) -> Result<String, HostError> {
        let what = "make its next key";
        let call = Call::NextNodeKey { place: place.clone(), comment: comment.to_owned() };
        match self.demand(place, what, &call)? {
            Answer::Line(line) => Ok(line),
            answer => Err(unexpected(place, what, &answer)),
        }
    }

    fn settle_node_key(&self, place: &Place) -> Result<(), HostError> {
        let call = Call::SettleNodeKey(place.clone());
        self.demand(place, "keep its next key only", &call).map(|_done| ())
    }

    fn receive(&self, place: &Place, name: &str, mode: u32, bytes: &[u8]) -> Result<(), HostError> {
        let what = format!("write {name}");
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        let call = Call::Receive { place: place.clone(), name, mode, bytes };
        self.demand(place, &what, &call).map(|_done| ())
    }

    fn receive_executable(&self, place: &Place, source: &Path) -> Result<(), HostError> {
        let what = "install the executable";
        let installed = self.install(place, source);
        let executable = installed.map_err(|trouble| RemoteHost::error(place, what, trouble))?;
        let call = Call::Adopt { place: place.clone(), executable };
        self.demand(place, what, &call).map(|_done| ())
    }

    fn start(&self, place: &Place) -> Result<u32, HostError> {
        match self.demand(place, "start it", &Call::Start(place.clone()))? {
            Answer::Pid(pid) => Ok(pid),
            answer => Err(unexpected(place, "start it", &answer)),
        }
    }

    fn halt(&self, place: &Place, how: Halt) -> Result<Halted, HostError> {
        match self.call(place, "stop it", &Call::Halt(place.clone(), how))? {
            Some(Answer::Halted(halted)) => Ok(halted),
            Some(answer) => Err(unexpected(place, "stop it", &answer)),
            None => self.must_be_bare(place, "stop it").map(|()| Halted::WasNotRunning),
        }
    }

    fn reload(&self, place: &Place) -> Result<Option<u32>, HostError> {
        let what = "have it take up its keys";
        match self.call(place, what, &Call::Reload(place.clone()))? {
            Some(Answer::Told(pid)) => Ok(pid),
            Some(answer) => Err(unexpected(place, what, &answer)),
            None => self.must_be_bare(place, what).map(|()| None),
        }
    }

    fn status(&self, place: &Place) -> Result<StatusReport, HostError> {
        let what = "ask it how it is";
        match self.demand(place, what, &Call::Status(place.clone()))? {
            Answer::Line(text) => status_of(place, &text),
            answer => Err(unexpected(place, what, &answer)),
        }
    }

    fn survey(&self, place: &Place) -> Result<Remains, HostError> {
        let what = "read what its log holds";
        match self.demand(place, what, &Call::Survey(place.clone()))? {
            Answer::Surveyed(remains) => Ok(*remains),
            answer => Err(unexpected(place, what, &answer)),
        }
    }

    fn log_tail(&self, place: &Place, lines: usize) -> Result<Vec<String>, HostError> {
        match self.call(place, "read its log", &Call::LogTail(place.clone(), lines))? {
            Some(Answer::Lines(lines)) => Ok(lines),
            Some(answer) => Err(unexpected(place, "read its log", &answer)),
            None => Ok(Vec::new()),
        }
    }

    fn hold(&self, place: &Place, holder: &Holder) -> Result<Option<Busy>, HostError> {
        let what = "keep other controllers out";
        let before = self.holders().remove(&place.directory);
        let comes_again = before.is_some_and(|(_, own)| own.run == holder.run && own.comes_again);
        let asked = Holder { comes_again, ..holder.clone() };
        let call = Call::Hold(place.clone(), asked.clone());
        let (taken, was_held) = match self.call(place, what, &call)? {
            Some(Answer::Held(busy)) => (busy, true),
            Some(answer) => return Err(unexpected(place, what, &answer)),
            None => (None, false),
        };
        if taken.is_none() {
            self.note_held(place, &asked, was_held);
        }
        Ok(taken)
    }

    fn touch(&self, place: &Place) -> Result<(), HostError> {
        // While a call is under way the agent touches the lock itself, and whoever is not connected
        // has no lock.
        let Ok(mut session) = self.session.try_lock() else { return Ok(()) };
        if session.is_none() {
            return Ok(());
        }
        let touched = self.call_over(&mut session, place, "go on", &Call::Touch(place.clone()));
        touched.map(|_done| ())
    }

    fn release(&self, place: &Place) {
        self.holders().remove(&place.directory);
        // Not for as long as a call may hang; the end of the connection lets go of it as well.
        let free = || Ok::<_, Infallible>(self.session.try_lock().ok());
        let Ok(Some(mut session)) = until(RELEASE_LIMIT, RELEASE_LOOK_EVERY, free) else { return };
        // A connection that is gone has released it.
        let release = Call::Release(place.clone());
        let _gone = self.call_over(&mut session, place, "let others in", &release);
    }

    fn remove(&self, place: &Place) -> Result<Vec<PathBuf>, HostError> {
        match self.call(place, "remove what it keeps", &Call::Remove(place.clone()))? {
            Some(Answer::Left(left)) => Ok(left),
            Some(answer) => Err(unexpected(place, "remove what it keeps", &answer)),
            None => self.must_be_bare(place, "remove what it keeps").map(|()| Vec::new()),
        }
    }
}

/// The checksum of an executable, and its version if it is one of ours.
type Checked = (Digest, Option<String>);

/// Executables that were read already, by path, with what tells whether they changed since.
type Known = HashMap<PathBuf, (u64, Option<SystemTime>, Checked)>;

/// Many hosts get one executable, and it is read once for all of them.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn digest_of(path: &Path) -> io::Result<Digest> {
    known(path).map(|(digest, _)| digest)
}

fn known(path: &Path) -> io::Result<Checked> {
    let metadata = std::fs::metadata(path)?;
    let (length, modified) = (metadata.len(), metadata.modified().ok());
    let mut known = KNOWN.lock().expect("no holder of this lock panics");
    if let Some((known_length, known_time, checked)) = known.get(path)
        && (*known_length, *known_time) == (length, modified)
    {
        return Ok(checked.clone());
    }
    let bytes = std::fs::read(path)?;
    let version = Build::of(&bytes).map(|build| build.version);
    let checked = (Sha256::digest(&bytes).into(), version);
    known.insert(path.to_owned(), (length, modified, checked.clone()));
    Ok(checked)
}

/// SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> io::Result<Digest> {
    const PIECE_BYTES: usize = 1 << 20;
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}
