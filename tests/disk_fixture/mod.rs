//! The node whose log is tested, what its log begins with, and disks that fail.

use bytes::Bytes;
use paxos_ssh::disk::files::{Handle, Kernel, Storage};
use paxos_ssh::disk::log::LogSettings;
use paxos_ssh::disk::{LogOwner, watched};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::telemetry::watchdog::{Beat, Watchdog, Watched};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Small, so that every test begins quickly and the larger ones cross segments.
pub(crate) const SMALL: LogSettings = LogSettings { segment_bytes: 32 * 1024 };

/// Far beyond what any test waits for; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn owner() -> LogOwner {
    LogOwner { cluster_name: "test".into(), node: NodeId(1) }
}

/// Of a writer that this watchdog watches.
pub(crate) fn beat_of(watchdog: &Watchdog, limit: Duration) -> Beat {
    watchdog.watch(Watched { limit, ..watched() })
}

pub(crate) fn genesis() -> Record<Bytes> {
    let roles = Roles {
        proposer: Some(ProposerId::new(1).unwrap()),
        acceptor: Some(VoterGeneration(9)),
        learner: true,
    };
    let member = Member { name: "node1".into(), address: "127.0.0.1:1".into(), roles };
    let configuration = Configuration::new(
        ConfigurationNumber(1),
        BTreeMap::from([(NodeId(1), member)]),
        QuorumSystem::majority(1).unwrap(),
    );
    let configuration = configuration.unwrap();
    Record::Genesis {
        genesis: Genesis { cluster: ClusterId(5), configuration, window: 100 },
        generation: Some(VoterGeneration(9)),
    }
}

/// What is wrong with a disk; what is not said is as it should be.
pub(crate) trait Faults: Send + Sync + 'static {
    fn allocate(&self, file: &dyn Handle, bytes: u64) -> io::Result<()> {
        file.allocate(bytes)
    }

    fn write(&self, file: &dyn Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write(bytes, offset)
    }

    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        file.sync()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        Kernel.sync_directory(directory)
    }
}

/// The kernel's files with these faults.
pub(crate) fn faulty(faults: Arc<impl Faults>) -> Arc<dyn Storage> {
    Arc::new(Faulty(faults))
}

struct Faulty<F>(Arc<F>);

struct FaultyFile<F> {
    faults: Arc<F>,
    file: Box<dyn Handle>,
}

impl<F: Faults> Faulty<F> {
    fn wrap(&self, file: Box<dyn Handle>) -> Box<dyn Handle> {
        Box::new(FaultyFile { faults: Arc::clone(&self.0), file })
    }
}

impl<F: Faults> Storage for Faulty<F> {
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        Kernel.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        Kernel.open(path).map(|file| self.wrap(file))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        Kernel.create(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Kernel.rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_directory(directory)
    }

    fn seed(&self) -> u64 {
        Kernel.seed()
    }
}

impl<F: Faults> Handle for FaultyFile<F> {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.faults.allocate(&*self.file, bytes)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read(buffer, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.write(&*self.file, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.sync(&*self.file)
    }
}
