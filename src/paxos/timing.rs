//! Time as the core sees it: ticks, and a seeded source of jitter.
//!
//! The core never reads a clock. Its driver calls `Replica::tick` at a fixed pace and hands in a
//! new [`Timing`] whenever measured round trips and disk times suggest one.

/// How long to wait for what, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// A leader speaks at least this often.
    pub heartbeat: u32,
    /// Silence of this length means that a leader is gone; also how long a leader survives without
    /// a quorum.
    pub election: u32,
    /// How long a phase 1 or an inquiry may take before it is given up, and the pace of
    /// repetitions.
    pub request: u32,
}

impl Timing {
    /// Panics on a timing under which no leader could stay: heartbeats slower than half the
    /// election timeout.
    pub(super) fn check(&self) {
        assert!(self.heartbeat >= 1 && self.request >= 1, "a wait of no ticks never ends");
        assert!(self.election >= 2 * self.heartbeat, "a leader would be lost between heartbeats");
    }
}

/// Random numbers for jitter alone (SplitMix64, Steele, Lea, Flood, OOPSLA 2014). Never for
/// identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// Evenly spread over `0..=bound`, but for a bias below 2⁻³².
    pub(super) fn up_to(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        if planted!(NoJitter) {
            return bound / 2;
        }
        (mixed % (u64::from(bound) + 1)) as u32
    }
}

/// Waits that grow: doubled after each failure up to a limit, drawn evenly from zero to the bound
/// ("full jitter"), so that rivals which failed together do not fail together again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Backoff {
    failures: u32,
}

/// Doublings after which a wait no longer grows: 16 times the base,
const DOUBLINGS_MAX: u32 = 4;

/// if that is no longer than this, in ticks: what the least request timeout grows to. A base that
/// is longer already leaves time for several round trips, and only a few doublings are due.
const WAIT_MAX: u32 = 200;

/// Doublings that are due in any case.
const DOUBLINGS_MIN: u32 = 2;

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { failures: 0 }
    }

    /// The wait after one more failure, at least one tick.
    pub(super) fn fail(&mut self, base: u32, jitter: &mut Jitter) -> u32 {
        let most = base.saturating_mul(1 << DOUBLINGS_MIN).max(WAIT_MAX);
        let bound = base.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX)).min(most);
        self.failures = self.failures.saturating_add(1);
        jitter.up_to(bound).max(1)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_covers_its_range_and_nothing_else() {
        let mut jitter = Jitter::new(7);
        let mut seen = [0u32; 11];
        for _ in 0..11_000 {
            seen[jitter.up_to(10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
    }

    #[test]
    fn backoff_grows_then_stays_and_starts_over_after_progress() {
        let mut jitter = Jitter::new(1);
        let longest = |backoff: &Backoff, jitter: &mut Jitter| {
            (0..2_000).map(|_| backoff.clone().fail(10, jitter)).max().expect("not empty")
        };
        let mut backoff = Backoff::new();
        assert_eq!(longest(&backoff, &mut jitter), 10);
        backoff.fail(10, &mut jitter);
        assert_eq!(longest(&backoff, &mut jitter), 20);
        for _ in 0..50 {
            backoff.fail(10, &mut jitter);
        }
        assert_eq!(longest(&backoff, &mut jitter), 160);
        backoff.reset();
        assert_eq!(longest(&backoff, &mut jitter), 10);
    }

    #[test]
    fn a_long_wait_grows_less() {
        let mut jitter = Jitter::new(1);
        let mut backoff = Backoff::new();
        for _ in 0..50 {
            backoff.fail(100, &mut jitter);
        }
        let waits = (0..20_000).map(|_| backoff.clone().fail(100, &mut jitter));
        assert_eq!(waits.max(), Some(400));
    }
}
