//! How long to wait before the next attempt to reach the broker.
//!
//! Exponential, capped, and with full jitter, so that the replicas of a fleet do not come back in step.

use std::time::Duration;

use uuid::Uuid;

/// The first wait is at most this.
const FIRST: Duration = Duration::from_millis(100);
/// No wait is longer than this.
const LONGEST: Duration = Duration::from_secs(5);

/// A run of failures.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The attempt worked: the next failure waits shortly again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and waits.
    pub(super) async fn wait(&mut self) {
        let wait = self.next(random_fraction());
        tokio::time::sleep(wait).await;
    }

    /// The next wait, given a random number in `0.0..1.0`: between half of the bound and the bound.
    fn next(&mut self, fraction: f64) -> Duration {
        let bound = FIRST
            .saturating_mul(1_u32 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(0.5 + fraction / 2.0)
    }
}

/// A version 4 UUID holds enough randomness for a jitter, and spares a crate.
fn random_fraction() -> f64 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    f64::from(u32::try_from(low & 0xffff_ffff).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..10).map(|_| backoff.next(1.0)).collect();
        assert_eq!(waits[0], FIRST);
        assert_eq!(waits[1], FIRST * 2);
        assert_eq!(waits[9], LONGEST);
        backoff.reset();
        assert_eq!(backoff.next(0.0), FIRST / 2);
    }
}
