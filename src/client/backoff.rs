//! How long to wait before trying again: longer each time, and never two clients alike.

use rand::RngExt;
use std::time::Duration;

/// The first wait is up to this long: about a round trip to another site.
const FIRST: Duration = Duration::from_millis(20);

/// No wait is longer. An election takes less than this, and it is short enough to use most of a
/// deadline.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits of one request: each is drawn from zero up to a bound that doubles ("full jitter"), so
/// that clients that failed together do not return together.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        let bound = Backoff::bound(self.failures);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::rng().random::<f64>())
    }

    fn bound(failures: u32) -> Duration {
        FIRST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_and_stop() {
        let bounds: Vec<u128> = (0..9).map(|n| Backoff::bound(n).as_millis()).collect();
        assert_eq!(bounds, [20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        assert_eq!(Backoff::bound(u32::MAX), LONGEST);
        let mut backoff = Backoff::default();
        assert!((0..100).all(|_| backoff.next_wait() <= LONGEST));
    }
}
