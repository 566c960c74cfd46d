//! The node whose log is tested, and what its log begins with.

use bytes::Bytes;
use paxos_ssh::disk::log::LogSettings;
use paxos_ssh::disk::{LogOwner, watched};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::configuration::*;
use paxos_ssh::paxos::quorum::QuorumSystem;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::telemetry::watchdog::{Beat, Watchdog, Watched};
use std::collections::BTreeMap;
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
