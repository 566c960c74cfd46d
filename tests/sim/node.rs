//! One simulated node: a driver and its log while it runs, a disk that outlives them.

use bytes::Bytes;
use paxos_ssh::disk::log::{DiskLog, LogSettings, open_stepped};
use paxos_ssh::disk::writer::{Step, Writer};
use paxos_ssh::disk::{Log, LogError, LogOwner, watched};
use paxos_ssh::node::driver::{Driver, Parts};
use paxos_ssh::node::settings::TimeoutBounds;
use paxos_ssh::node::world::{Peers, World};
use paxos_ssh::paxos::ballot::{NodeId, VoterGeneration};
use paxos_ssh::paxos::record::{Record, Recovered};
use paxos_ssh::telemetry::metrics::{ConsensusMetrics, LogMetrics};
use paxos_ssh::telemetry::watchdog::Watchdog;
use paxos_ssh::wire::peer::PeerMessage;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::disk::SimDisk;
use crate::random::Random;
use crate::tap::{Appended, Tap};

pub type SimDriver = Driver<Tap<DiskLog>, SimPeers, SimClock>;
pub type Outbox = Arc<Mutex<Vec<(Vec<NodeId>, PeerMessage)>>>;

/// Keeps what the driver sends until the world takes it.
pub struct SimPeers(Outbox);

impl Peers for SimPeers {
    fn send(&mut self, to: &[NodeId], message: PeerMessage) {
        self.0.lock().unwrap().push((to.to_vec(), message));
    }
}

/// The clocks of a machine, as the world sets them before each event: one runs at the machine's own
/// rate, the other shows the time of day and may jump.
#[derive(Default)]
pub struct Clocks {
    pub monotonic_micros: AtomicU64,
    pub wall_micros: AtomicU64,
}

/// The machine's clock, counted from the node's start.
pub struct SimClock {
    clocks: Arc<Clocks>,
    started_micros: u64,
    random: Random,
}

impl World for SimClock {
    fn now(&self) -> Duration {
        let now = self.clocks.monotonic_micros.load(Ordering::Relaxed);
        Duration::from_micros(now - self.started_micros)
    }

    fn wall(&self) -> Duration {
        Duration::from_micros(self.clocks.wall_micros.load(Ordering::Relaxed))
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }
}

/// The cluster's name.
const CLUSTER: &str = "sim";

/// Where the log is; the simulated disk knows one directory only.
const DIRECTORY: &str = "/log";

pub struct SimNode {
    pub id: NodeId,
    pub disk: SimDisk,
    settings: LogSettings,
    /// As the configuration names it.
    pub generation: Option<VoterGeneration>,
    pub driver: Option<SimDriver>,
    /// Writes the log, step by step, when the world says so.
    pub writer: Option<Writer>,
    /// Whether the next step is on the clock.
    pub writing: bool,
    /// Whether the end of a batch of events is on the clock.
    pub gathers: bool,
    /// When the last step was taken, in micros of true time.
    pub wrote_at: u64,
    pub outbox: Outbox,
    pub clocks: Arc<Clocks>,
    /// What this life appended.
    pub appended: Appended,
    /// Counts starts; what was scheduled for an earlier life does not reach a later one.
    pub life: u64,
    pub paused: bool,
    /// Look-ups of this life; they are named by their number.
    pub lookups: u64,
}

/// The two ends of a log, and what it held.
type OpenLog = (DiskLog, Writer, Recovered<Bytes>);

impl SimNode {
    pub fn new(
        id: NodeId,
        generation: Option<VoterGeneration>,
        disk: SimDisk,
        settings: LogSettings,
    ) -> SimNode {
        SimNode {
            id,
            disk,
            settings,
            generation,
            driver: None,
            writer: None,
            writing: false,
            gathers: false,
            wrote_at: 0,
            outbox: Outbox::default(),
            clocks: Arc::default(),
            appended: Appended::default(),
            life: 0,
            paused: false,
            lookups: 0,
        }
    }

    /// Reads the disk as a process does when it starts, with all that is repaired on the way.
    fn open(&self) -> Result<OpenLog, LogError> {
        let owner = LogOwner { cluster_name: CLUSTER.to_owned(), node: self.id };
        let beat = Watchdog::default().watch(watched());
        let storage = Arc::new(self.disk.clone());
        let metrics = LogMetrics::default();
        open_stepped(Path::new(DIRECTORY), owner, self.settings, storage, metrics, beat)
    }

    /// Gives an empty disk its first record, for good.
    pub fn found(&mut self, genesis: Record<Bytes>) {
        let (mut log, mut writer, _) = self.open().expect("a new disk is in order");
        log.append(vec![genesis]);
        while writer.step().expect("a new disk is in order") != Step::Idle {}
    }

    /// Starts the process over whatever the disk holds.
    pub fn start(&mut self, random: &mut Random) -> Result<Recovered<Bytes>, LogError> {
        assert!(self.driver.is_none(), "{} runs already", self.id);
        self.life += 1;
        let (log, writer, recovered) = self.open()?;
        self.paused = false;
        self.lookups = 0;
        self.writing = false;
        self.gathers = false;
        self.outbox = Outbox::default();
        self.appended = Appended::default();
        let found = recovered.clone();
        let parts = Parts {
            id: self.id,
            cluster: CLUSTER.to_owned(),
            log: Tap::new(log, Arc::clone(&self.appended)),
            recovered,
            peers: SimPeers(Arc::clone(&self.outbox)),
            world: SimClock {
                clocks: Arc::clone(&self.clocks),
                started_micros: self.clocks.monotonic_micros.load(Ordering::Relaxed),
                random: Random::new(random.next()),
            },
            metrics: ConsensusMetrics::default(),
            bounds: TimeoutBounds { min: Duration::from_millis(250), max: Duration::from_secs(2) },
            judge: Box::new(|_, _| None),
        };
        self.driver = Some(Driver::new(parts).expect("what was just read can be read again"));
        self.writer = Some(writer);
        Ok(found)
    }

    /// Ends the process. What becomes of its disk, the caller says.
    pub fn kill(&mut self) {
        self.driver = None;
        self.writer = None;
        self.life += 1;
    }
}
