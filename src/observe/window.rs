//! A bounded sliding window of samples.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples older than this are forgotten, unless said otherwise.
const SPAN: Duration = Duration::from_secs(60);
/// At most this many samples are kept: the latest.
const SAMPLES_MAX: usize = 4096;

/// The latest samples of the last minute, or of another span.
#[derive(Clone, Debug)]
pub struct Window {
    span: Duration,
    samples: VecDeque<(Instant, f64, bool)>,
}

/// A window summed up. All numbers are 0 without samples.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Summary {
    /// How many samples.
    pub samples: usize,
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 95th percentile, milliseconds.
    pub p95_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
    /// The share that failed.
    pub error_rate: f64,
}

impl Default for Window {
    fn default() -> Self {
        Self::lasting(SPAN)
    }
}

impl Window {
    /// An empty window that forgets what is older than `span`.
    #[must_use]
    pub fn lasting(span: Duration) -> Self {
        Self {
            span,
            samples: VecDeque::new(),
        }
    }

    /// Adds a duration.
    pub fn record(&mut self, took: Duration, failed: bool, now: Instant) {
        self.record_seconds(took.as_secs_f64(), failed, now);
    }

    /// Adds a number of seconds, which may be negative.
    pub fn record_seconds(&mut self, seconds: f64, failed: bool, now: Instant) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, seconds, failed));
    }

    /// Sums up what is not too old.
    pub fn summary(&mut self, now: Instant) -> Summary {
        while self
            .samples
            .front()
            .is_some_and(|(at, _, _)| now.duration_since(*at) > self.span)
        {
            self.samples.pop_front();
        }
        let mut values: Vec<f64> = self.samples.iter().map(|(_, value, _)| *value).collect();
        if values.is_empty() {
            return Summary::default();
        }
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
            values[index] * 1000.0
        };
        let failed = self.samples.iter().filter(|(_, _, failed)| *failed).count();
        Summary {
            samples: values.len(),
            p50_ms: at(0.50),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            error_rate: failed as f64 / values.len() as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_is_older_than_a_minute() {
        let start = Instant::now();
        let mut window = Window::default();
        window.record(Duration::from_millis(900), true, start);
        window.record(Duration::from_millis(10), false, start + SPAN);
        assert_eq!(window.summary(start + SPAN).error_rate, 0.5);
        let later = window.summary(start + SPAN + Duration::from_millis(1));
        assert_eq!((later.samples, later.error_rate), (1, 0.0));
        assert!((later.p50_ms - 10.0).abs() < 1e-6);
    }

    #[test]
    fn percentiles_are_samples_that_were_seen() {
        let now = Instant::now();
        let mut window = Window::default();
        for ms in 1..=100 {
            window.record(Duration::from_millis(ms), false, now);
        }
        let summary = window.summary(now);
        assert!((summary.p50_ms - 50.0).abs() < 1e-6);
        assert!((summary.p95_ms - 95.0).abs() < 1e-6);
        assert!((summary.p99_ms - 99.0).abs() < 1e-6);
    }

    #[test]
    fn a_window_is_bounded() {
        let now = Instant::now();
        let mut window = Window::default();
        for _ in 0..SAMPLES_MAX + 10 {
            window.record(Duration::from_millis(1), false, now);
        }
        assert_eq!(window.summary(now).samples, SAMPLES_MAX);
    }
}
