//! A sliding window of bounded size: counts in a ring of time slots, not one entry per call.
//!
//! The window moves by one slot at a time, so it covers between 49/50 and all of its length. The sum over the
//! slots is kept, so that evaluating costs the same under any load.

use std::collections::VecDeque;
use std::time::Duration;

/// Slots in a window.
const SLOTS: u64 = 50;

/// What can be added up and taken away again.
pub(super) trait Tally: Default {
    /// Takes away what another counted, which is part of this.
    fn take_away(&mut self, other: &Self);
}

/// The last `window` of what a tally counts.
#[derive(Debug)]
pub(super) struct Ring<T> {
    slot: Duration,
    /// By number of the slot, ascending; empty slots are not kept.
    slots: VecDeque<(u64, T)>,
    total: T,
}

/// Calls, and those of them that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outcomes {
    pub(super) calls: u64,
    pub(super) failed: u64,
}

/// Comparisons, and divergences that were confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Findings {
    pub(super) compared: u64,
    pub(super) confirmed: u64,
}

impl<T: Tally> Ring<T> {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            slot: (window / SLOTS as u32).max(Duration::from_micros(1)),
            slots: VecDeque::new(),
            total: T::default(),
        }
    }

    /// Counts something that happens now.
    pub(super) fn record(&mut self, now: Duration, count: impl Fn(&mut T)) {
        self.forget(now);
        let number = self.number(now);
        // Of two samples at once the later may come first; it does not open an earlier slot again.
        match self.slots.back_mut() {
            Some((last, tally)) if *last >= number => count(tally),
            Some(_) | None => {
                let mut tally = T::default();
                count(&mut tally);
                self.slots.push_back((number, tally));
            }
        }
        count(&mut self.total);
    }

    /// The sum over the window that ends now.
    pub(super) fn total(&mut self, now: Duration) -> &T {
        self.forget(now);
        &self.total
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.total = T::default();
    }

    fn forget(&mut self, now: Duration) {
        let number = self.number(now);
        while let Some((first, _)) = self.slots.front()
            && first + SLOTS <= number
            && let Some((_, tally)) = self.slots.pop_front()
        {
            self.total.take_away(&tally);
        }
    }

    fn number(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Tally for Outcomes {
    fn take_away(&mut self, other: &Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
    }
}

impl Tally for Findings {
    fn take_away(&mut self, other: &Self) {
        self.compared -= other.compared;
        self.confirmed -= other.confirmed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    fn call(outcomes: &mut Outcomes) {
        outcomes.calls += 1;
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_and_the_rest_is_not() {
        let mut ring = Ring::<Outcomes>::new(WINDOW);
        let start = Duration::from_secs(100);
        ring.record(start, call);
        ring.record(start + WINDOW / 2, call);
        assert_eq!(ring.total(start + WINDOW.mul_f64(0.97)).calls, 2);
        assert_eq!(ring.total(start + WINDOW).calls, 1);
        assert_eq!(ring.total(start + WINDOW * 2).calls, 0);
    }

    #[test]
    fn a_window_is_bounded_whatever_the_load() {
        let mut ring = Ring::<Outcomes>::new(WINDOW);
        for ms in 0..20_000 {
            ring.record(Duration::from_millis(ms), call);
        }
        assert!(ring.slots.len() as u64 <= SLOTS);
        assert_eq!(ring.total.calls, 5_000);
    }

    #[test]
    fn a_clock_that_jumps_ahead_leaves_an_empty_window() {
        let mut ring = Ring::<Outcomes>::new(WINDOW);
        ring.record(Duration::from_secs(1), call);
        assert_eq!(ring.total(Duration::from_secs(1_000_000)).calls, 0);
    }
}
