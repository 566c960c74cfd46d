//! What a run amounts to, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

/// See the module's documentation. Sums do not depend on the order of seeds.
#[derive(Debug, Default, Clone)]
pub struct Stats {
    pub seeds: u64,
    pub acknowledged: u64,
    pub reads: u64,
    /// Requests that were asked again, elsewhere.
    pub repeated: u64,
    /// Operations in histories of registers, and those of unknown outcome.
    pub operations: u64,
    pub unknown: u64,
    /// Histories whose search took too long.
    pub given_up: u64,
    pub simulated: Duration,
    pub events: u64,
    pub delivered: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Histories in which a proposer ran twice, and how often that was noticed.
    pub clones: u64,
    pub clashes: u64,
    /// How often a proposer took its own last life for another.
    pub false_clashes: u64,
    /// Acceptors that lost what was durable, and did not know.
    pub voters_forgot: u64,
    /// Acceptors that forgot what somebody saw them pledge, and were told.
    pub fenced: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// Machines that refused a damaged log or lost it.
    pub lost_machines: u64,
    pub campaigns_after_healing: Vec<u64>,
    /// Until the first write was acknowledged after healing, and until every node had served.
    pub millis_until_served: Vec<u64>,
    pub millis_until_all_served: Vec<u64>,
    /// Answered requests that were repeated, and answered the same.
    pub confirmed: u64,
    pub deepest: BTreeMap<&'static str, usize>,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.seeds += other.seeds;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.repeated += other.repeated;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.given_up += other.given_up;
        self.simulated += other.simulated;
        self.events += other.events;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.clones += other.clones;
        self.clashes += other.clashes;
        self.false_clashes += other.false_clashes;
        self.voters_forgot += other.voters_forgot;
        self.fenced += other.fenced;
        self.lost_machines += other.lost_machines;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.confirmed += other.confirmed;
        self.campaigns_after_healing.extend(&other.campaigns_after_healing);
        self.millis_until_served.extend(&other.millis_until_served);
        self.millis_until_all_served.extend(&other.millis_until_all_served);
        for (queue, depth) in &other.deepest {
            let deepest = self.deepest.entry(queue).or_default();
            *deepest = (*deepest).max(*depth);
        }
    }

    /// For people.
    pub fn print(&self, took: Duration) {
        let simulated = self.simulated.as_secs_f64();
        println!(
            "{} seeds, {} acknowledged writes ({} repeated elsewhere, {} although answered), \
             {} reads, {} messages",
            self.seeds,
            self.acknowledged,
            self.repeated,
            self.confirmed,
            self.reads,
            self.delivered
        );
        println!(
            "{:.2} simulated hours in {:.1} s: {:.0} times as fast as real time",
            simulated / 3_600.0,
            took.as_secs_f64(),
            simulated / took.as_secs_f64().max(0.001)
        );
        println!(
            "register histories: {} operations, {} of unknown outcome, {} searches given up",
            self.operations, self.unknown, self.given_up
        );
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!(
            "faults: {}, messages lost {}, doubled {}, machines lost for good {}",
            faults.join(", "),
            self.lost,
            self.doubled,
            self.lost_machines
        );
        println!(
            "a proposer ran twice in {} histories, noticed {} times, and {} times for no reason",
            self.clones, self.clashes, self.false_clashes
        );
        println!("ballots after healing: {}", distribution(&self.campaigns_after_healing));
        println!(
            "milliseconds from healing to the first write: {}; until every node served: {}",
            distribution(&self.millis_until_served),
            distribution(&self.millis_until_all_served)
        );
        let depths: Vec<String> =
            self.deepest.iter().map(|(queue, depth)| format!("{queue} {depth}")).collect();
        println!("deepest queues: {}", depths.join(", "));
    }
}

/// Median, 99th and 99.9th percentile, and the largest.
pub fn distribution(values: &[u64]) -> String {
    if values.is_empty() {
        return "none".to_owned();
    }
    format!(
        "median {}, p99 {}, p99.9 {}, most {}",
        percentile(values, 500),
        percentile(values, 990),
        percentile(values, 999),
        percentile(values, 1_000)
    )
}

/// What so many in a thousand do not exceed.
pub fn percentile(values: &[u64], per_mille: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * per_mille).div_ceil(1_000).clamp(1, sorted.len()) - 1]
}
