//! Timeouts that follow what is measured.
//!
//! Round trips and sync times are smoothed as RFC 6298 §2 smooths round trips: a mean and a mean
//! deviation, each new sample weighing 1/8 and 1/4. A timeout is the time that heartbeats need in a
//! bad moment (mean plus four deviations), times a margin, between the operator's bounds.

use super::settings::TimeoutBounds;
use super::world::TICK;
use crate::paxos::timing::Timing;
use std::time::Duration;

/// Round trips that may go missing in a row before a leader is given up.
const ROUND_TRIPS_PER_ELECTION: u32 = 10;

/// Syncs for which an election timeout leaves time. Heartbeats wait for no disk; a promise waits
/// for one sync, and the first write of a new leader for another.
const SYNCS_PER_ELECTION: u32 = 2;

/// Heartbeats per election timeout: three may be lost or late and the fourth still counts.
const HEARTBEATS_PER_ELECTION: u32 = 5;

/// A sample above so many means is an outlier,
const OUTLIER_MEANS: u32 = 4;

/// unless it is below this, which no timeout notices.
const OUTLIER_FLOOR: Duration = Duration::from_millis(10);

/// Gaps between heartbeats that an election timeout spans.
const GAPS_PER_ELECTION: u32 = 3;

/// A smoothed delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smoothed {
    mean: Duration,
    deviation: Duration,
    samples: u64,
}

impl Smoothed {
    /// Takes in one measurement. One far above what came before counts as a few times the mean: a
    /// peer that was stopped answers old heartbeats seconds later, which says nothing about the
    /// network. If it stays that slow, the mean follows within a second of heartbeats.
    pub fn add(&mut self, sample: Duration) {
        let sample = sample.min((self.mean * OUTLIER_MEANS).max(OUTLIER_FLOOR));
        if self.samples == 0 {
            self.mean = sample;
            self.deviation = sample / 2;
        } else {
            self.deviation = (self.deviation * 3 + self.mean.abs_diff(sample)) / 4;
            self.mean = (self.mean * 7 + sample) / 8;
        }
        self.samples += 1;
    }

    /// A delay that was always this.
    pub fn steady(mean: Duration) -> Smoothed {
        Smoothed { mean, deviation: Duration::ZERO, samples: 1 }
    }

    /// The mean, once anything was measured.
    pub fn mean(&self) -> Option<Duration> {
        (self.samples > 0).then_some(self.mean)
    }

    /// What most samples stay below: RFC 6298's retransmission timeout, without its floor.
    pub fn bound(&self) -> Duration {
        self.mean + self.deviation * 4
    }
}

/// What a node has measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// To the slowest acceptor that answers; measured by whoever leads, or asks who does.
    pub round_trip: Smoothed,
    /// Between two heartbeats of the leader; a follower's measure.
    pub gap: Smoothed,
    /// Of the node's own log.
    pub sync: Smoothed,
}

/// The waits that suit what was measured.
///
/// The pace of heartbeats follows the lower bound and nothing else: followers measure for
/// themselves how long silence is normal, and a leader that slowed down because its own links are
/// slow would look dead to those whose are not.
pub fn timing(bounds: &TimeoutBounds, measured: &Measured) -> Timing {
    let Measured { round_trip, gap, sync } = measured;
    let silence =
        (round_trip.bound() * ROUND_TRIPS_PER_ELECTION).max(gap.bound() * GAPS_PER_ELECTION);
    let wanted = silence + sync.bound() * SYNCS_PER_ELECTION;
    let election = wanted.clamp(bounds.min, bounds.max);
    let ticks = |duration: Duration| {
        u32::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
    };
    let election = ticks(election).max(2 * HEARTBEATS_PER_ELECTION);
    Timing {
        heartbeat: (ticks(bounds.min) / HEARTBEATS_PER_ELECTION).max(1),
        election,
        request: (election / 2).max(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: TimeoutBounds =
        TimeoutBounds { min: Duration::from_millis(250), max: Duration::from_secs(5) };

    fn steady(millis: u64) -> Smoothed {
        let mut smoothed = Smoothed::default();
        for _ in 0..256 {
            smoothed.add(Duration::from_millis(millis));
        }
        smoothed
    }

    #[test]
    fn a_fast_network_gets_the_lower_bound_and_a_slow_one_more() {
        let measured = |millis| Measured { round_trip: steady(millis), ..Measured::default() };
        let near = timing(&BOUNDS, &measured(0));
        assert_eq!(near.election, 25);
        let far = timing(&BOUNDS, &measured(150));
        assert!((150..=250).contains(&far.election), "{far:?}");
        assert_eq!(far.heartbeat, near.heartbeat, "a slow link must not make a leader look dead");
        let moon = timing(&BOUNDS, &measured(2_600));
        assert_eq!(moon.election, 500);
        let rare = Measured { gap: steady(400), ..Measured::default() };
        assert!((120..=160).contains(&timing(&BOUNDS, &rare).election));
    }

    #[test]
    fn the_estimate_follows_a_change_and_remembers_trouble() {
        let mut smoothed = steady(1);
        for _ in 0..20 {
            smoothed.add(Duration::from_millis(100));
        }
        assert!(smoothed.bound() > Duration::from_millis(90), "{smoothed:?}");
        for _ in 0..100 {
            smoothed.add(Duration::from_millis(1));
        }
        assert!(smoothed.bound() < Duration::from_millis(3), "{smoothed:?}");
    }

    #[test]
    fn one_late_answer_of_a_stopped_peer_is_not_the_network() {
        let mut smoothed = steady(1);
        smoothed.add(Duration::from_secs(4));
        let measured = Measured { round_trip: smoothed, ..Measured::default() };
        assert_eq!(timing(&BOUNDS, &measured).election, 25, "{smoothed:?}");
    }
}
