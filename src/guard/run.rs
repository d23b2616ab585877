//! A run of failed calls: what `unavailable` is decided by, past every window.
//!
//! It counts from when the first of them was *sent*: when packets vanish, each call takes its whole deadline
//! to fail, and that time was an outage too. A success ends the run, also one of the same instant, so that
//! the order in which equal times arrive decides nothing.

use std::time::Duration;

/// Calls further apart are not one run: with probes every second, a hole means that nothing was measured.
pub(super) const HOLE: Duration = Duration::from_secs(30);

/// The failed calls since the last that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Run {
    succeeded_at: Option<Duration>,
    failed: Option<Failed>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Failed {
    count: u32,
    first_sent: Duration,
    last_ended: Duration,
}

impl Run {
    pub(super) fn failed(&mut self, sent: Duration, ended: Duration) {
        if self.succeeded_at.is_some_and(|at| at >= ended) {
            return;
        }
        let one = Failed {
            count: 1,
            first_sent: sent,
            last_ended: ended,
        };
        self.failed = Some(match self.failed {
            Some(run) if ended.saturating_sub(run.last_ended) <= HOLE => Failed {
                count: run.count.saturating_add(1),
                first_sent: run.first_sent.min(sent),
                last_ended: run.last_ended.max(ended),
            },
            Some(_) | None => one,
        });
    }

    pub(super) fn succeeded(&mut self, ended: Duration) {
        self.succeeded_at = self.succeeded_at.max(Some(ended));
        if self.failed.is_some_and(|run| run.last_ended <= ended) {
            self.failed = None;
        }
    }

    /// How many failed, and over how long.
    pub(super) fn length(&self, now: Duration) -> (u32, Duration) {
        match self.failed {
            Some(run) if now.saturating_sub(run.last_ended) <= HOLE => {
                let over = run.last_ended.saturating_sub(run.first_sent);
                (run.count, over)
            }
            Some(_) | None => (0, Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn calls_that_time_out_count_from_when_they_were_sent() {
        let mut run = Run::default();
        for number in 0..5 {
            run.failed(ms(1000 + number * 100), ms(2500 + number * 100));
        }
        assert_eq!(run.length(ms(3000)), (5, ms(1900)));
    }

    #[test]
    fn a_success_ends_the_run_even_at_the_same_instant() {
        let mut run = Run::default();
        run.failed(ms(0), ms(100));
        run.succeeded(ms(100));
        run.failed(ms(50), ms(100));
        assert_eq!(run.length(ms(100)), (0, ms(0)));
        run.failed(ms(50), ms(101));
        assert_eq!(run.length(ms(101)), (1, ms(51)));
    }

    #[test]
    fn a_hole_ends_the_run_too() {
        let mut run = Run::default();
        run.failed(ms(0), ms(10));
        assert_eq!(run.length(HOLE + ms(11)).0, 0);
        run.failed(HOLE, HOLE + ms(11));
        assert_eq!(run.length(HOLE + ms(11)), (1, ms(11)));
    }
}
