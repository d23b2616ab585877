//! Whether a caller may wait for legacy's records. Pure.
//!
//! Only a legacy that answers within a bound is asked. Once it misses the bound no caller waits for it any
//! more; whether it is back, a probe finds out, for which nobody waits either (I12).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::clock::micros;

/// How long a caller waits for legacy's record of an operation, at most, and while legacy is known to be well.
pub(super) const WITHIN: Duration = Duration::from_millis(50);
/// How often it is looked whether legacy is well again.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// In the place of a time: legacy is well.
const WELL: i64 = 0;

/// What is known of legacy.
#[derive(Debug, Default)]
pub(in crate::repository) struct Circuit {
    /// When to probe next, in microseconds of the boot clock; `WELL` while it answers in time.
    probe_at_us: AtomicI64,
}

/// What a caller may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    /// Ask, and wait for `WITHIN`.
    Ask,
    /// Go on without, and let somebody ask whom nobody waits for.
    Probe,
    /// Go on without.
    GoOn,
}

impl Circuit {
    /// What a caller may do now, by the boot clock. Of those that come while a probe is due, one sends it.
    pub(super) fn leave(&self, now: Duration) -> Leave {
        let due_us = self.probe_at_us.load(Ordering::Acquire);
        let now_us = micros(now);
        if due_us == WELL {
            return Leave::Ask;
        }
        let next_us = now_us + micros(PROBE_EVERY);
        let mine = due_us <= now_us
            && self
                .probe_at_us
                .compare_exchange(due_us, next_us, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if mine { Leave::Probe } else { Leave::GoOn }
    }

    /// It did not answer in time. `true`: that is news.
    pub(super) fn missed(&self, now: Duration) -> bool {
        let next_us = micros(now + PROBE_EVERY);
        self.probe_at_us.swap(next_us, Ordering::AcqRel) == WELL
    }

    /// It answered in time. `true`: that is news.
    pub(super) fn answered(&self) -> bool {
        self.probe_at_us.load(Ordering::Acquire) != WELL
            && self.probe_at_us.swap(WELL, Ordering::AcqRel) != WELL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn once_it_was_missed_no_caller_waits_and_one_probe_at_a_time_is_sent() {
        let circuit = Circuit::default();
        assert_eq!(circuit.leave(NOW), Leave::Ask);
        assert!(circuit.missed(NOW));
        assert!(!circuit.missed(NOW), "others were waiting too");
        assert_eq!(circuit.leave(NOW + PROBE_EVERY / 2), Leave::GoOn);
        let due = NOW + PROBE_EVERY;
        let asked = [(); 5].map(|()| circuit.leave(due));
        assert_eq!(asked[0], Leave::Probe);
        assert!(asked[1..].iter().all(|leave| *leave == Leave::GoOn));
    }

    #[test]
    fn a_probe_that_is_answered_lets_callers_ask_again() {
        let circuit = Circuit::default();
        assert!(!circuit.answered(), "no news");
        circuit.missed(NOW);
        assert!(circuit.answered());
        assert_eq!(circuit.leave(NOW), Leave::Ask);
    }
}
