//! A steady pace: no more than so many rows a second, and no burst after a pause.

use std::time::Duration;

use tokio::time::Instant;

/// Spreads rows over time.
#[derive(Debug)]
pub(crate) struct Pace {
    rows_per_second: Option<u32>,
    next: Instant,
}

impl Pace {
    /// At most this many rows a second; as fast as it goes without a number (or with 0).
    pub(crate) fn new(rows_per_second: Option<u32>, now: Instant) -> Self {
        Self {
            rows_per_second: rows_per_second.filter(|rate| *rate > 0),
            next: now,
        }
    }

    /// Another rate from now on; 0 is none.
    pub(crate) fn set(&mut self, rows_per_second: u32) {
        self.rows_per_second = Some(rows_per_second).filter(|rate| *rate > 0);
    }

    /// When to go on after `rows` more. Time that was lost is not caught up.
    pub(crate) fn after(&mut self, rows: usize, now: Instant) -> Instant {
        let Some(rate) = self.rows_per_second else {
            return now;
        };
        let took = Duration::from_secs_f64(rows as f64 / f64::from(rate));
        self.next = self.next.max(now) + took;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_not_caught_up_by_a_burst() {
        let begun = Instant::now();
        let mut pace = Pace::new(Some(100), begun);
        let later = begun + Duration::from_secs(60);
        assert_eq!(pace.after(50, later) - later, Duration::from_millis(500));
        assert_eq!(pace.after(50, later) - later, Duration::from_secs(1));
    }

    #[test]
    fn without_a_rate_there_is_no_waiting() {
        let now = Instant::now();
        assert_eq!(Pace::new(None, now).after(1_000_000, now), now);
        assert_eq!(Pace::new(Some(0), now).after(1_000_000, now), now);
    }
}
