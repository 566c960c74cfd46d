//! One simulated node: a driver while it runs, a disk that outlives it.

use bytes::Bytes;
use paxos_ssh::disk::memory::{MemoryDisk, MemoryLog};
use paxos_ssh::disk::{Log, LogError};
use paxos_ssh::node::driver::{Driver, Parts};
use paxos_ssh::node::settings::TimeoutBounds;
use paxos_ssh::node::world::{Peers, World};
use paxos_ssh::paxos::ballot::{NodeId, Slot};
use paxos_ssh::paxos::message::Entry;
use paxos_ssh::paxos::record::{LogPosition, Record};
use paxos_ssh::telemetry::metrics::ConsensusMetrics;
use paxos_ssh::wire::peer::PeerMessage;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::random::Random;
use crate::tap::{Appended, Tap};

pub type SimDriver = Driver<Tap<SimLog>, SimPeers, SimClock>;
pub type Outbox = Arc<Mutex<Vec<(Vec<NodeId>, PeerMessage)>>>;

/// A memory log that remembers that a sync was asked for; the world decides when it ends.
pub struct SimLog {
    log: MemoryLog,
    wants_sync: Arc<AtomicBool>,
}

impl Log for SimLog {
    fn append(&mut self, records: Vec<Record<Bytes>>) {
        self.log.append(records);
    }

    fn sync(&mut self) {
        self.wants_sync.store(true, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn read(
        &mut self,
        first: Slot,
        last: Slot,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Entry<Bytes>>>, LogError> {
        self.log.read(first, last, bytes_max)
    }
}

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

pub struct SimNode {
    pub id: NodeId,
    pub disk: MemoryDisk,
    pub driver: Option<SimDriver>,
    pub outbox: Outbox,
    pub clocks: Arc<Clocks>,
    /// What this life appended.
    pub appended: Appended,
    /// How long the log was when this life began.
    pub end: LogPosition,
    pub wants_sync: Arc<AtomicBool>,
    pub syncing: bool,
    /// Counts starts; what was scheduled for an earlier life does not reach a later one.
    pub life: u64,
    pub paused: bool,
    /// Look-ups of this life; they are named by their number.
    pub lookups: u64,
}

impl SimNode {
    pub fn new(id: NodeId) -> SimNode {
        SimNode {
            id,
            disk: MemoryDisk::new(),
            driver: None,
            outbox: Outbox::default(),
            clocks: Arc::default(),
            appended: Appended::default(),
            end: LogPosition(0),
            wants_sync: Arc::default(),
            syncing: false,
            life: 0,
            paused: false,
            lookups: 0,
        }
    }

    /// Starts the process over whatever the disk holds.
    pub fn start(&mut self, random: &mut Random) {
        assert!(self.driver.is_none(), "{} runs already", self.id);
        let (log, recovered) = self.disk.open().expect("the log was written by ourselves");
        self.life += 1;
        self.paused = false;
        self.lookups = 0;
        self.syncing = false;
        self.wants_sync = Arc::default();
        self.outbox = Outbox::default();
        self.appended = Appended::default();
        self.end = recovered.end;
        let log = SimLog { log, wants_sync: Arc::clone(&self.wants_sync) };
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
        };
        self.driver = Some(Driver::new(parts).expect("the log can be read back"));
    }

    /// Kills the process; of what was not synced, `kept` records happen to be on the disk.
    pub fn crash(&mut self, kept: usize) {
        self.driver = None;
        self.disk.crash(kept);
        self.life += 1;
    }
}
