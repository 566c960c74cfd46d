//! Which loops of this process turn, and which stand still.
//!
//! Every loop that must not stop registers under a name and says with [`Beat::busy`] that it begins
//! a turn, and what it does in it. A loop that waits without a limit, for work that may never come,
//! says [`Beat::idle`] first, and is never called stalled there; one that took work and does not
//! come back is. A beat is one reading of the clock and one atomic store, so that even the node's
//! thread can afford it for each batch.
//!
//! A thread of its own looks at all loops every [`LOOK_EVERY`]: neither a blocked runtime nor a
//! blocked node silences it. What it finds is published first ([`Watchdog::stalls`]) and logged
//! after, because standard error may be what everybody waits for. It reports, and that is all. A
//! stalled loop may come back (a disk that hung for a minute often does), and to end the process
//! would turn a slow node into a missing one; whoever supervises it sees the same in its health and
//! may decide otherwise.

use super::metrics::LoopMetrics;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// Time between two looks: a quarter of a second more or less tells an operator nothing, and four
/// looks a second at a dozen loops cost nothing.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A look that comes this much late says that the whole process got no time: it was stopped,
/// suspended, or the machine is overloaded. No loop is to blame for that.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// A loop that stands for so long is reported again, as an error, and each time that as much has
/// passed. What took a minute is no hiccup, and is not lost among older lines.
pub const STUCK_LONG: Duration = Duration::from_secs(60);

/// Bits of a turn that hold the work; the others hold microseconds, enough for two thousand years.
const WORK_BITS: u32 = 8;

/// What a loop is doing: a closed list, because it is stored in eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Waits for work that may never come. Never stalled.
    Idle,
    /// Waits, for a limited time, for whatever comes next.
    Waiting,
    /// Takes in what the node's own disk and clock, and its links, say.
    News,
    /// Takes in a peer's message.
    Message,
    /// Takes in a client's request.
    Request,
    /// Lets the clock of the protocol tick.
    Ticking,
    /// Sends and answers what a batch brought about.
    Answering,
    /// Publishes its status and its log lines.
    Publishing,
    /// Writes a block of the log.
    Writing,
    /// Makes the log durable.
    Syncing,
    /// Begins a new segment of the log.
    NewSegment,
    /// Waits until the disk has room.
    NoRoom,
    /// Connects to a peer.
    Dialling,
    /// Sends frames to a peer.
    Sending,
    /// Lets a connection in.
    Admitting,
    /// Accepts nobody, because as many as allowed are connected.
    Crowded,
    /// Pauses after accepting failed.
    Pausing,
    /// Panicked. It does not turn again.
    Panicked,
}

impl Work {
    const ALL: [Work; 18] = [
        Work::Idle,
        Work::Waiting,
        Work::News,
        Work::Message,
        Work::Request,
        Work::Ticking,
        Work::Answering,
        Work::Publishing,
        Work::Writing,
        Work::Syncing,
        Work::NewSegment,
        Work::NoRoom,
        Work::Dialling,
        Work::Sending,
        Work::Admitting,
        Work::Crowded,
        Work::Pausing,
        Work::Panicked,
    ];

    /// For people, to be read behind "the loop stands still while".
    pub fn describe(self) -> &'static str {
        match self {
            Work::Idle => "waiting for work",
            Work::Waiting => "waiting for what comes next",
            Work::News => "taking in news of its disk, clock and links",
            Work::Message => "taking in a peer's message",
            Work::Request => "taking in a client's request",
            Work::Ticking => "letting the protocol's clock tick",
            Work::Answering => "sending and answering what a batch brought about",
            Work::Publishing => "publishing its status",
            Work::Writing => "writing a block of the log",
            Work::Syncing => "making the log durable",
            Work::NewSegment => "beginning a new segment of the log",
            Work::NoRoom => "waiting for room on the disk",
            Work::Dialling => "connecting to the peer",
            Work::Sending => "sending to the peer, which takes nothing",
            Work::Admitting => "letting a connection in",
            Work::Crowded => {
                "waiting for one of the connections to end, as many as allowed are open"
            }
            Work::Pausing => "pausing after accepting failed",
            Work::Panicked => "unwinding from a panic; it does not turn again",
        }
    }
}

/// A loop that is to be watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Names it in `paxos status`, in the metrics and in the log.
    pub name: String,
    /// The longest time that one turn may take.
    pub limit: Duration,
    /// What an operator should do when it stands still.
    pub next: &'static str,
}

/// A loop that stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// The loop's name.
    pub name: String,
    /// How long its turn has taken so far.
    pub lasts: Duration,
    /// What it does in that turn.
    pub work: Work,
    /// What to do about it.
    pub next: &'static str,
}

#[derive(Debug)]
struct Loop {
    watched: Watched,
    /// When its turn began, in microseconds, and the work it does, packed into one number so that
    /// both are of one moment.
    turn: AtomicU64,
}

impl Loop {
    fn turn(&self) -> (Duration, Work) {
        let turn = self.turn.load(Ordering::Relaxed);
        let work = usize::try_from(turn & ((1 << WORK_BITS) - 1)).unwrap_or(0);
        (Duration::from_micros(turn >> WORK_BITS), Work::ALL[work])
    }

    fn set(&self, now: Duration, work: Work) {
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.turn.store((micros << WORK_BITS) | work as u64, Ordering::Relaxed);
    }
}

/// A loop that the last look found standing still.
struct Standing {
    looped: Arc<Loop>,
    /// When its turn began.
    since: Duration,
    work: Work,
    /// How long it had stood when that was last logged.
    said: Duration,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// The whole process stood for so long.
    Paused(Duration),
    /// A loop stands still.
    Stalled(Stall),
    /// It still does, after [`STUCK_LONG`] or a multiple.
    Stuck(Stall),
    /// It turns again, or ended.
    Turns { name: String, stood: Duration },
}

#[derive(Default)]
struct State {
    loops: Vec<Arc<Loop>>,
    standing: Vec<Standing>,
    looked: Option<Duration>,
    /// No turn counts from before; see [`PAUSE_MIN`].
    awake_since: Duration,
}

struct Shared {
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    state: Mutex<State>,
    metrics: LoopMetrics,
}

/// The loops of one node, each with the time of its last turn. Clones are handles of the same.
#[derive(Clone)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").finish_non_exhaustive()
    }
}

impl Default for Watchdog {
    /// One whose metrics nobody shows.
    fn default() -> Watchdog {
        Watchdog::new(LoopMetrics::default())
    }
}

impl Watchdog {
    /// By the machine's monotonic clock.
    pub fn new(metrics: LoopMetrics) -> Watchdog {
        let started = Instant::now();
        Watchdog::with_clock(metrics, move || started.elapsed())
    }

    /// By a clock of the caller's, which must not go backwards.
    pub fn with_clock(
        metrics: LoopMetrics,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Watchdog {
        let shared = Shared { clock: Box::new(clock), state: Mutex::default(), metrics };
        Watchdog { shared: Arc::new(shared) }
    }

    /// Adds a loop, idle at first. It is watched until its beat is dropped.
    pub fn watch(&self, watched: Watched) -> Beat {
        self.shared.metrics.know(&watched.name);
        let looped = Arc::new(Loop { watched, turn: AtomicU64::new(0) });
        looped.set(self.now(), Work::Idle);
        self.state().loops.push(Arc::clone(&looped));
        Beat { looped, watchdog: self.clone() }
    }

    /// The loops that stood still at the last look, the longest-standing first.
    pub fn stalls(&self) -> Vec<Stall> {
        let now = self.now();
        self.state().standing.iter().map(|standing| standing.stall(now)).collect()
    }

    /// Has a thread of its own look, until what is returned is dropped.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(&self) -> io::Result<Watcher> {
        self.begin();
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (watchdog, told) = (self.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let thread = thread.spawn(move || {
            while !is_told(&told) {
                watchdog.look();
            }
        })?;
        Ok(Watcher { stop, thread: Some(thread) })
    }

    /// A pause before the first look counts as well.
    fn begin(&self) {
        let now = self.now();
        self.state().looked = Some(now);
    }

    fn now(&self) -> Duration {
        (self.shared.clock)()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A watchdog that fell silent because of a panic elsewhere would be of no use.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once at every loop, publishes, counts, and only then logs.
    fn look(&self) {
        for change in self.changes() {
            log(&change);
        }
    }

    fn changes(&self) -> Vec<Change> {
        let now = self.now();
        let mut state = self.state();
        let mut changes = Vec::new();
        let slept = state.looked.map_or(Duration::ZERO, |looked| now.saturating_sub(looked));
        state.looked = Some(now);
        if slept >= LOOK_EVERY + PAUSE_MIN {
            state.awake_since = now;
            changes.push(Change::Paused(slept));
        }
        state.standing.retain_mut(|standing| {
            let (since, work) = standing.looped.turn();
            standing.work = work;
            if work == Work::Panicked || (since == standing.since && work != Work::Idle) {
                return true;
            }
            let name = standing.looped.watched.name.clone();
            changes.push(Change::Turns { name, stood: now.saturating_sub(standing.since) });
            false
        });
        let State { loops, standing, awake_since, .. } = &mut *state;
        for looped in loops {
            let (since, work) = looped.turn();
            let known = standing.iter().any(|standing| Arc::ptr_eq(&standing.looped, looped));
            let took = now.saturating_sub(since.max(*awake_since));
            let is_late = took > looped.watched.limit || work == Work::Panicked;
            if known || work == Work::Idle || !is_late {
                continue;
            }
            let found = Standing { looped: Arc::clone(looped), since, work, said: Duration::ZERO };
            changes.push(Change::Stalled(found.stall(now)));
            self.shared.metrics.stalls(&looped.watched.name).inc();
            standing.push(found);
        }
        for standing in &mut *standing {
            let stall = standing.stall(now);
            if stall.lasts >= standing.said + STUCK_LONG {
                standing.said = stall.lasts;
                changes.push(Change::Stuck(stall));
            }
        }
        standing.sort_by_key(|standing| standing.since);
        let count = i64::try_from(standing.len()).unwrap_or(i64::MAX);
        self.shared.metrics.stalled.set(count);
        changes
    }
}

impl Standing {
    fn stall(&self, now: Duration) -> Stall {
        let Watched { name, next, .. } = &self.looped.watched;
        let lasts = now.saturating_sub(self.since);
        Stall { name: name.clone(), lasts, work: self.work, next }
    }
}

fn log(change: &Change) {
    match change {
        Change::Paused(slept) => warn!(
            ?slept,
            "the whole process stood still: it was stopped or suspended, or the machine is \
             overloaded; look at the machine's load"
        ),
        Change::Stalled(Stall { name, lasts, work, next }) => {
            let doing = work.describe();
            warn!(loop_name = name, since = ?lasts, doing, next, "a loop stands still");
        }
        Change::Stuck(Stall { name, lasts, work, next }) => {
            let doing = work.describe();
            error!(
                loop_name = name, since = ?lasts, doing, next,
                "a loop still stands still; the process is left running in case it comes back"
            );
        }
        Change::Turns { name, stood } => {
            warn!(loop_name = name, ?stood, "a loop that stood still turns again");
        }
    }
}

/// Waits for the next look; says whether there is to be none.
fn is_told(stop: &(Mutex<bool>, Condvar)) -> bool {
    let (told, changed) = stop;
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = changed.wait_timeout_while(told, LOOK_EVERY, |told| !*told);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

/// The thread that looks. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // At worst it is about to write a line. A panic of it has been reported.
            let _ended = thread.join();
        }
    }
}

/// A loop's own end. Dropping it ends the watch, unless that is because the loop panicked: then it
/// is reported for as long as the process lives, for nobody does its work any more.
#[derive(Debug)]
pub struct Beat {
    looped: Arc<Loop>,
    watchdog: Watchdog,
}

impl Beat {
    /// A turn begins, with this work.
    pub fn busy(&self, work: Work) {
        self.looped.set(self.watchdog.now(), work);
    }

    /// The turn goes on with other work. Cheaper than [`Beat::busy`]: it does not look at the
    /// clock. Only for the loop itself.
    pub fn goes_on(&self, work: Work) {
        let (since, _) = self.looped.turn();
        self.looped.set(since, work);
    }

    /// The loop waits for work, for as long as it takes.
    pub fn idle(&self) {
        self.looped.set(self.watchdog.now(), Work::Idle);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.busy(Work::Panicked);
            return;
        }
        self.idle();
        self.watchdog.state().loops.retain(|looped| !Arc::ptr_eq(looped, &self.looped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// A watchdog with a clock that the test sets, in milliseconds, and a loop under it.
    struct Fixture {
        clock: Arc<AtomicU64>,
        watchdog: Watchdog,
        metrics: LoopMetrics,
        beat: Beat,
    }

    fn fixture() -> Fixture {
        let clock = Arc::new(AtomicU64::new(0));
        let metrics = LoopMetrics::default();
        let time = Arc::clone(&clock);
        let watchdog = Watchdog::with_clock(metrics.clone(), move || {
            Duration::from_millis(time.load(Ordering::SeqCst))
        });
        let beat = watchdog.watch(watched("disk"));
        Fixture { clock, watchdog, metrics, beat }
    }

    fn watched(name: &str) -> Watched {
        Watched { name: name.to_owned(), limit: LIMIT, next: "look at the disk" }
    }

    impl Fixture {
        /// Looks as often as the thread would until then; answers what was found.
        fn run(&self, to_millis: u64) -> Vec<Change> {
            let mut changes = Vec::new();
            let mut now = self.clock.load(Ordering::SeqCst);
            while now < to_millis {
                now = (now + 250).min(to_millis);
                self.clock.store(now, Ordering::SeqCst);
                changes.extend(self.watchdog.changes());
            }
            changes
        }

        fn counted(&self, name: &str) -> (u64, i64) {
            (self.metrics.stalls(name).get(), self.metrics.stalled.get())
        }
    }

    fn stall(lasts: u64, work: Work) -> Stall {
        let (name, next) = ("disk".to_owned(), "look at the disk");
        Stall { name, lasts: Duration::from_millis(lasts), work, next }
    }

    #[test]
    fn a_turn_that_takes_too_long_is_named_once_and_its_end_once() {
        let f = fixture();
        f.beat.busy(Work::Syncing);
        assert_eq!(f.run(2_000), [], "the limit is not over yet");
        assert_eq!(f.run(2_250), [Change::Stalled(stall(2_250, Work::Syncing))]);
        assert_eq!(f.run(5_000), [], "it was said already");
        assert_eq!(f.watchdog.stalls(), [stall(5_000, Work::Syncing)]);
        assert_eq!(f.counted("disk"), (1, 1));
        f.beat.busy(Work::Writing);
        let stood = Duration::from_millis(5_250);
        assert_eq!(f.run(5_250), [Change::Turns { name: "disk".into(), stood }]);
        assert_eq!(f.watchdog.stalls(), []);
        assert_eq!(f.counted("disk"), (1, 0));
        f.run(9_000);
        assert_eq!(f.counted("disk"), (2, 1), "the next stall counts anew");
    }

    #[test]
    fn a_loop_that_turns_or_waits_for_work_is_well() {
        let f = fixture();
        for second in 1..20 {
            f.beat.busy(Work::Writing);
            assert_eq!(f.run(second * 1_000), []);
        }
        f.beat.idle();
        assert_eq!(f.run(600_000), []);
        f.beat.busy(Work::Writing);
        assert_eq!(f.run(602_000), [], "what counts is the turn, not the wait before it");
        assert_eq!(f.run(602_250).len(), 1, "but it took work and does not come back");
        f.beat.idle();
        assert!(matches!(f.run(602_500)[..], [Change::Turns { .. }]));
    }

    #[test]
    fn other_work_in_the_same_turn_is_shown_and_is_no_new_turn() {
        let f = fixture();
        f.beat.busy(Work::Message);
        f.run(1_500);
        f.beat.goes_on(Work::Ticking);
        assert_eq!(f.run(2_250), [Change::Stalled(stall(2_250, Work::Ticking))]);
        f.beat.goes_on(Work::Answering);
        assert_eq!(f.run(2_500), []);
        assert_eq!(f.watchdog.stalls(), [stall(2_500, Work::Answering)]);
    }

    #[test]
    fn what_stands_for_long_is_said_again_and_the_longest_comes_first() {
        let f = fixture();
        let other = f.watchdog.watch(watched("other"));
        f.run(1_000);
        f.beat.busy(Work::Syncing);
        f.run(2_000);
        other.busy(Work::Sending);
        f.run(5_000);
        let names: Vec<String> = f.watchdog.stalls().into_iter().map(|stall| stall.name).collect();
        assert_eq!(names, ["disk", "other"]);
        drop(other);
        assert!(matches!(&f.run(5_250)[..], [Change::Turns { name, .. }] if name == "other"));
        assert_eq!(f.run(60_750), []);
        assert_eq!(f.run(61_000), [Change::Stuck(stall(60_000, Work::Syncing))]);
        assert_eq!(f.run(120_750), []);
        assert_eq!(f.run(121_000), [Change::Stuck(stall(120_000, Work::Syncing))]);
    }

    #[test]
    fn a_pause_of_the_whole_process_is_blamed_on_no_loop() {
        let f = fixture();
        f.beat.busy(Work::Waiting);
        f.run(1_000);
        f.clock.store(31_000, Ordering::SeqCst);
        assert_eq!(f.watchdog.changes(), [Change::Paused(Duration::from_secs(30))]);
        assert_eq!(f.watchdog.stalls(), []);
        assert_eq!(f.run(33_000), [], "it has its whole limit from then on");
        assert!(matches!(f.run(33_250)[..], [Change::Stalled(_)]));

        let fresh = fixture();
        fresh.beat.busy(Work::Waiting);
        fresh.watchdog.begin();
        fresh.clock.store(30_000, Ordering::SeqCst);
        assert_eq!(fresh.watchdog.changes(), [Change::Paused(Duration::from_secs(30))]);
    }

    #[test]
    fn a_loop_that_ended_is_forgotten_and_one_that_panicked_is_not() {
        let f = fixture();
        f.beat.busy(Work::Sending);
        let Fixture { clock, watchdog, beat, .. } = f;
        drop(beat);
        let panics = watchdog.watch(watched("accept"));
        let ended = std::thread::spawn(move || {
            panics.idle();
            let _held = panics;
            panic!("for the test");
        });
        assert!(ended.join().is_err());
        clock.store(60_000, Ordering::SeqCst);
        watchdog.changes();
        let stalls = watchdog.stalls();
        assert_eq!(stalls.len(), 1, "{stalls:?}");
        assert_eq!((stalls[0].name.as_str(), stalls[0].work), ("accept", Work::Panicked));
    }

    #[test]
    fn every_work_comes_back_as_it_was_stored() {
        let f = fixture();
        for work in Work::ALL {
            f.beat.busy(work);
            assert_eq!(f.beat.looped.turn().1, work);
        }
    }

    #[test]
    fn its_thread_looks_and_ends() {
        let watchdog = Watchdog::default();
        let limit = Duration::ZERO;
        let beat = watchdog.watch(Watched { limit, ..watched("disk") });
        beat.busy(Work::Syncing);
        let watcher = watchdog.start().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while watchdog.stalls().is_empty() {
            assert!(Instant::now() < until, "nobody looks");
            std::thread::yield_now();
        }
        drop(watcher);
    }
}
