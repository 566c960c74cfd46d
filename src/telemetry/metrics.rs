//! The node's numbers: plain handles to atomics, grouped by who counts, and one page of text that
//! shows all.
//!
//! A part of the node gets its group and increments fields; nothing has to be looked up, locked or
//! formatted until somebody asks for the page. Names start with `paxos_`, units are seconds and
//! bytes, what only grows ends in `_total` (the text encoder appends it), and moments are exported
//! as timestamps, not as ages.

use super::histogram::Histogram;
use super::process::Process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use std::fmt;
use std::time::Duration;

/// Name (without prefix), help text and value of numbers that only grow and that somebody else
/// keeps.
pub type Totals = Vec<(&'static str, &'static str, u64)>;

/// Asked for its numbers each time the page is made.
struct TotalsSource {
    prefix: &'static str,
    totals: Box<dyn Fn() -> Totals + Send + Sync>,
}

impl fmt::Debug for TotalsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TotalsSource").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Collector for TotalsSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in (self.totals)() {
            let name = format!("{}_{name}", self.prefix);
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

/// The same of numbers that rise and fall.
pub type Levels = Vec<(&'static str, &'static str, i64)>;

/// Asked for its numbers each time the page is made.
struct LevelsSource {
    prefix: &'static str,
    levels: Box<dyn Fn() -> Levels + Send + Sync>,
}

impl fmt::Debug for LevelsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelsSource").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Collector for LevelsSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in (self.levels)() {
            let name = format!("{}_{name}", self.prefix);
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// Every number of a node.
#[derive(Debug)]
pub struct Metrics {
    /// Counted by the node's loop.
    pub consensus: ConsensusMetrics,
    /// Counted by the log's writer.
    pub log: LogMetrics,
    /// Counted by what clients reach.
    pub api: ApiMetrics,
    /// Counted by the watchdog.
    pub loops: LoopMetrics,
    registry: Registry,
}

/// Ballots, slots, requests inside the node. Cloning gives other handles to the same numbers.
///
/// How many requests failed, and how, is counted by verb and code in [`ApiMetrics`] and not again
/// here.
#[derive(Debug, Clone, Default)]
pub struct ConsensusMetrics {
    /// 1 while a leader is known.
    pub has_leader: Gauge,
    /// 1 while this node reaches enough acceptors, itself included, to elect a leader and to write.
    pub has_quorum: Gauge,
    /// Members of the newest configuration.
    pub members: Gauge,
    /// Those of them that this node reaches, itself included.
    pub members_up: Gauge,
    /// 1 while this node leads.
    pub is_leader: Gauge,
    /// Times that another leader than before was seen.
    pub leader_changes: Counter,
    /// Phase 1 begun by this node.
    pub elections_started: Counter,
    /// Phase 1 completed by this node.
    pub elections_won: Counter,
    /// Times that a higher ballot ended one under which this node led.
    pub preemptions: Counter,
    /// The number of the highest ballot known; it rises with every change of leader.
    pub ballot_number: Gauge,
    /// The end of the chosen prefix.
    pub chosen_slot: Gauge,
    /// The end of what is applied.
    pub applied_slot: Gauge,
    /// The store's revision.
    pub revision: Gauge,
    /// Keys in the store.
    pub keys: Gauge,
    /// Slots proposed and not yet chosen.
    pub slots_in_flight: Gauge,
    /// 1 once this node's acceptor was found to have forgotten what it pledged.
    pub fenced: Gauge,
    /// Requests taken in and not yet answered.
    pub requests_pending: Gauge,
    /// Commands that this node proposed as leader, whoever asked for them.
    pub proposals: Counter,
    /// Rounds that confirmed this node's leadership for reads.
    pub read_rounds: Counter,
    /// Linearizable reads that this node answered, whoever leads.
    pub reads_confirmed: Counter,
    /// Messages of peers that were refused.
    pub messages_refused: Counter,
    /// From proposing a run of slots to knowing all of it chosen.
    pub commit_seconds: Histogram,
    /// Applying one batch of slots.
    pub apply_seconds: Histogram,
    /// From this node's first campaign without a leader to leading.
    pub election_seconds: Histogram,
}

/// The acceptor's log. Cloning gives other handles to the same numbers.
#[derive(Debug, Clone, Default)]
pub struct LogMetrics {
    /// Making one block durable.
    pub sync_seconds: Histogram,
    /// Bytes of blocks that are durable.
    pub written_bytes: Counter,
    /// Records in those blocks.
    pub records: Counter,
    /// Bytes of records that were handed over and are not durable yet.
    pub queued_bytes: Gauge,
    /// Segment files.
    pub segments: Gauge,
    /// 1 while the disk has no room.
    pub disk_full: Gauge,
    /// Entries that a peer wanted and that could not be read back.
    pub unreadable: Counter,
}

/// Loops that stand still. Cloning gives other handles to the same numbers.
#[derive(Debug, Clone, Default)]
pub struct LoopMetrics {
    /// Loops that stand still now.
    pub stalled: Gauge,
    stalls: Family<LoopLabels, Counter>,
}

/// Requests of clients.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    /// Sessions being served.
    pub sessions: Gauge,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<VerbLabels, Histogram>,
}

/// One verb; keep it where the same verb is asked for again and again.
#[derive(Debug, Clone)]
pub struct VerbMetrics {
    verb: &'static str,
    granted: Counter,
    seconds: Histogram,
    requests: Family<RequestLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabels {
    r#loop: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    cluster: String,
    node: String,
    version: &'static str,
}

impl Metrics {
    /// All numbers at zero, for a process that starts now. The names of cluster and node go into
    /// one `info` series.
    pub fn new(cluster: &str, node: &str) -> Metrics {
        let mut registry = Registry::with_prefix("paxos");
        let build = BuildLabels {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
        };
        registry.register("build", "which program this is", Info::new(build));
        registry.register_collector(Box::new(Process::starts()));
        let metrics = Metrics {
            consensus: ConsensusMetrics::default(),
            log: LogMetrics::default(),
            api: ApiMetrics::default(),
            loops: LoopMetrics::default(),
            registry: Registry::default(),
        };
        metrics.consensus.register(&mut registry);
        metrics.log.register(&mut registry);
        metrics.api.register(&mut registry);
        metrics.loops.register(&mut registry);
        Metrics { registry, ..metrics }
    }

    /// Adds numbers that another part keeps in a form of its own; they are shown as
    /// `paxos_PREFIX_NAME_total`.
    pub fn add_totals(
        &mut self,
        prefix: &'static str,
        totals: impl Fn() -> Totals + Send + Sync + 'static,
    ) {
        let source = TotalsSource { prefix, totals: Box::new(totals) };
        self.registry.register_collector(Box::new(source));
    }

    /// Adds numbers that another part keeps and that rise and fall; they are shown as
    /// `paxos_PREFIX_NAME`.
    pub fn add_levels(
        &mut self,
        prefix: &'static str,
        levels: impl Fn() -> Levels + Send + Sync + 'static,
    ) {
        let source = LevelsSource { prefix, levels: Box::new(levels) };
        self.registry.register_collector(Box::new(source));
    }

    /// The page, in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string cannot fail");
        page
    }
}

/// Registers another handle to the same number.
fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(name, help, metric.clone());
}

impl ConsensusMetrics {
    fn register(&self, r: &mut Registry) {
        register(r, "has_leader", "1 while a leader is known", &self.has_leader);
        register(r, "has_quorum", "1 while a quorum can be reached", &self.has_quorum);
        register(r, "members", "members of the cluster", &self.members);
        register(r, "members_up", "members reached, this one included", &self.members_up);
        register(r, "is_leader", "1 while this node leads", &self.is_leader);
        register(r, "leader_changes", "times a new leader was seen", &self.leader_changes);
        register(r, "elections_started", "phase 1 begun here", &self.elections_started);
        register(r, "elections_won", "phase 1 completed here", &self.elections_won);
        register(r, "preemptions", "times a higher ballot ended the lead", &self.preemptions);
        register(r, "ballot_number", "number of the highest ballot known", &self.ballot_number);
        register(r, "chosen_slot", "end of the chosen prefix", &self.chosen_slot);
        register(r, "applied_slot", "end of what is applied", &self.applied_slot);
        register(r, "revision", "the store's revision", &self.revision);
        register(r, "keys", "keys in the store", &self.keys);
        register(r, "slots_in_flight", "slots proposed, not yet chosen", &self.slots_in_flight);
        register(r, "fenced", "1 if the acceptor forgot a pledge: it votes no more", &self.fenced);
        register(r, "requests_pending", "requests not yet answered", &self.requests_pending);
        register(r, "proposals", "commands proposed here", &self.proposals);
        register(r, "read_rounds", "rounds that confirmed the lead for reads", &self.read_rounds);
        register(r, "reads_confirmed", "linearizable reads answered here", &self.reads_confirmed);
        register(r, "messages_refused", "messages of peers refused", &self.messages_refused);
        register(
            r,
            "commit_seconds",
            "from proposing a run of slots to all chosen",
            &self.commit_seconds,
        );
        register(r, "apply_seconds", "applying one batch of slots", &self.apply_seconds);
        register(r, "election_seconds", "from campaign to leading", &self.election_seconds);
    }
}

impl LogMetrics {
    fn register(&self, r: &mut Registry) {
        register(r, "log_sync_seconds", "making one block of the log durable", &self.sync_seconds);
        register(r, "log_written_bytes", "bytes written to the log", &self.written_bytes);
        register(r, "log_records", "records written to the log", &self.records);
        register(r, "log_queued_bytes", "bytes that are not durable yet", &self.queued_bytes);
        register(r, "log_segments", "segment files of the log", &self.segments);
        register(r, "log_disk_full", "1 while the disk has no room", &self.disk_full);
        register(r, "log_unreadable", "Entries that could not be read back", &self.unreadable);
    }
}

impl LoopMetrics {
    fn register(&self, r: &mut Registry) {
        register(r, "loop_stalled", "loops that stand still now", &self.stalled);
        register(r, "loop_stalls", "times a loop stood still, by loop", &self.stalls);
    }

    /// Shows the loop from now on, if only with a zero.
    pub(super) fn know(&self, name: &str) {
        self.stalls(name);
    }

    /// Times that this loop stood still.
    pub fn stalls(&self, name: &str) -> Counter {
        self.stalls.get_or_create_owned(&LoopLabels { r#loop: name.to_owned() })
    }
}

impl ApiMetrics {
    fn register(&self, r: &mut Registry) {
        register(r, "api_sessions", "sessions being served", &self.sessions);
        register(r, "api_requests", "requests answered, by verb and code", &self.requests);
        register(r, "api_request_seconds", "from request to answer", &self.seconds);
    }

    /// The numbers of one verb.
    pub fn verb(&self, verb: &'static str) -> VerbMetrics {
        VerbMetrics {
            verb,
            granted: self.requests.get_or_create_owned(&RequestLabels { verb, code: "ok" }),
            seconds: self.seconds.get_or_create_owned(&VerbLabels { verb }),
            requests: self.requests.clone(),
        }
    }
}

impl VerbMetrics {
    /// Counts an answer: `ok`, or the failure's code.
    pub fn answered(&self, code: Result<(), &'static str>, took: Duration) {
        self.seconds.observe(took);
        match code {
            Ok(()) => self.granted.inc(),
            Err(code) => {
                let labels = RequestLabels { verb: self.verb, code };
                self.requests.get_or_create_owned(&labels).inc()
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_was_counted() {
        let mut metrics = Metrics::new("local", "node1");
        metrics.add_totals("ssh", || vec![("frames_sent", "Frames sent to peers", 10)]);
        metrics.add_levels("trust", || vec![("remaining_seconds", "until the end", -3)]);
        metrics.consensus.leader_changes.inc();
        metrics.consensus.chosen_slot.set(7);
        metrics.log.sync_seconds.observe(Duration::from_micros(120));
        metrics.log.sync_seconds.observe(Duration::from_secs(60));
        metrics.loops.know("runtime");
        metrics.loops.stalls("node").inc();
        metrics.loops.stalled.set(1);
        let put = metrics.api.verb("put");
        put.answered(Ok(()), Duration::from_millis(1));
        put.answered(Err("busy"), Duration::from_millis(1));
        let page = metrics.render();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            &format!(
                "paxos_build_info{{cluster=\"local\",node=\"node1\",version=\"{version}\"}} 1"
            ),
            "# TYPE paxos_leader_changes counter",
            "paxos_leader_changes_total 1",
            "paxos_chosen_slot 7",
            "paxos_log_sync_seconds_count 2",
            "paxos_log_sync_seconds_sum 60.00012",
            "paxos_log_sync_seconds_bucket{le=\"0.0001\"} 0",
            "paxos_log_sync_seconds_bucket{le=\"0.00025\"} 1",
            "paxos_log_sync_seconds_bucket{le=\"+Inf\"} 2",
            "# TYPE paxos_ssh_frames_sent counter",
            "paxos_ssh_frames_sent_total 10",
            "# TYPE paxos_trust_remaining_seconds gauge",
            "paxos_trust_remaining_seconds -3",
            "paxos_api_requests_total{verb=\"put\",code=\"ok\"} 1",
            "paxos_api_requests_total{verb=\"put\",code=\"busy\"} 1",
            "paxos_api_request_seconds_count{verb=\"put\"} 2",
            "paxos_loop_stalls_total{loop=\"node\"} 1",
            "paxos_loop_stalls_total{loop=\"runtime\"} 0",
            "paxos_loop_stalled 1",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line} is missing in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    /// Every series carries the prefix, and what is exported as a name says its unit or is a plain
    /// count.
    #[test]
    fn names_follow_the_rules() {
        let page = Metrics::new("local", "node1").render();
        for line in page.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(name.starts_with("paxos_"), "{name}");
            assert!(!name.ends_with("_total") && !name.contains("millis"), "{name}");
            assert!(!line.ends_with("histogram") || name.ends_with("_seconds"), "{name}");
        }
    }
}
