//! How long callers wait, in `off` and since: the two sides of the latency that readiness looks at.
//!
//! Legacy alone is what callers are used to; its samples are kept apart, so that neither a first write to
//! both nor a fall back to `off` mixes the two.

use std::time::{Duration, Instant};

use super::window::{Summary, Window};
use crate::stage::Stage;

/// Traffic may be thin: a baseline rests on the latest calls of this long.
const BASELINE_SPAN: Duration = Duration::from_secs(15 * 60);
/// And it is held against those of this long.
const PRESENT_SPAN: Duration = Duration::from_secs(5 * 60);

/// What a caller asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallKind {
    /// A select or count.
    Read,
    /// Anything that changes rows.
    Write,
}

/// Callers' latency, per kind of call.
#[derive(Debug)]
pub(super) struct Callers {
    alone: [Window; 2],
    since: [Window; 2],
}

/// Callers' latency, summed up.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct CallerLatency {
    /// In `off`, over the last quarter of an hour.
    pub alone: Summary,
    /// In any later stage, over the last five minutes.
    pub since: Summary,
}

impl CallKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Read => 0,
            Self::Write => 1,
        }
    }
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            alone: [BASELINE_SPAN; 2].map(Window::lasting),
            since: [PRESENT_SPAN; 2].map(Window::lasting),
        }
    }
}

impl Callers {
    /// A caller was answered under `stage`.
    pub(super) fn answered(&mut self, kind: CallKind, stage: Stage, took: Duration, now: Instant) {
        let windows = match stage {
            Stage::Off => &mut self.alone,
            Stage::DualWrite | Stage::Shadow | Stage::Live | Stage::RampDown | Stage::Complete => {
                &mut self.since
            }
        };
        windows[kind.index()].record(took, false, now);
    }

    /// What callers of one kind waited.
    pub(super) fn latency(&mut self, kind: CallKind, now: Instant) -> CallerLatency {
        CallerLatency {
            alone: self.alone[kind.index()].summary(now),
            since: self.since[kind.index()].summary(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_waited_in_off_is_kept_apart_from_what_came_after() {
        let now = Instant::now();
        let mut callers = Callers::default();
        callers.answered(CallKind::Read, Stage::Off, Duration::from_millis(2), now);
        callers.answered(CallKind::Read, Stage::Live, Duration::from_millis(9), now);
        let read = callers.latency(CallKind::Read, now);
        assert_eq!((read.alone.samples, read.since.samples), (1, 1));
        assert!((read.alone.p95_ms - 2.0).abs() < 1e-6);
        assert!((read.since.p95_ms - 9.0).abs() < 1e-6);
        assert_eq!(
            callers.latency(CallKind::Write, now),
            CallerLatency::default()
        );
    }

    #[test]
    fn a_baseline_outlasts_the_present() {
        let start = Instant::now();
        let mut callers = Callers::default();
        for stage in [Stage::Off, Stage::Shadow] {
            callers.answered(CallKind::Write, stage, Duration::from_millis(1), start);
        }
        let later = callers.latency(CallKind::Write, start + Duration::from_secs(600));
        assert_eq!((later.alone.samples, later.since.samples), (1, 0));
    }
}
