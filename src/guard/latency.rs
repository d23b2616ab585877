//! Latencies by the two sides of a pair, as histograms of bounded size and bounded error.
//!
//! Bins are linear within each power of two of microseconds, as in an HDR histogram
//! (<https://hdrhistogram.github.io/HdrHistogram/>): a percentile is off by at most 1/64 of itself.

use std::time::Duration;

use super::window::Tally;

/// Linear bins per power of two.
const BINS_PER_OCTAVE: usize = 32;
/// Powers of two from 32 µs up to 67 s; what takes longer counts as the last.
const OCTAVES: usize = 21;
const BINS: usize = BINS_PER_OCTAVE * (OCTAVES + 1);
/// Which percentile is compared.
const PERCENTILE: f64 = 0.95;

/// How long one side took.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Histogram {
    bins: Vec<u32>,
}

/// Calls that went to both sides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Pairs {
    pub(super) count: u64,
    legacy: Histogram,
    storage: Histogram,
}

impl Pairs {
    pub(super) fn add(&mut self, legacy: Duration, storage: Duration) {
        self.count += 1;
        self.legacy.bins[bin(legacy)] += 1;
        self.storage.bins[bin(storage)] += 1;
    }

    /// p95 of storage minus p95 of legacy, in seconds; 0 without pairs.
    pub(super) fn delta_seconds(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.storage.percentile_seconds(self.count) - self.legacy.percentile_seconds(self.count)
    }
}

impl Tally for Pairs {
    fn take_away(&mut self, other: &Self) {
        self.count -= other.count;
        self.legacy.take_away(&other.legacy);
        self.storage.take_away(&other.storage);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            bins: vec![0; BINS],
        }
    }
}

impl Histogram {
    fn take_away(&mut self, other: &Self) {
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            *mine -= theirs;
        }
    }

    fn percentile_seconds(&self, count: u64) -> f64 {
        let rank = ((count as f64 * PERCENTILE).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let at = self.bins.iter().position(|samples| {
            seen += u64::from(*samples);
            seen >= rank
        });
        at.map_or(0.0, middle_us) / 1e6
    }
}

/// The bin of a duration. The first octave is 0 to 31 µs, one bin each.
fn bin(took: Duration) -> usize {
    let us = usize::try_from(took.as_micros()).unwrap_or(usize::MAX);
    if us < BINS_PER_OCTAVE {
        return us;
    }
    let octave = (us / BINS_PER_OCTAVE).ilog2() as usize;
    let within = (us >> octave) - BINS_PER_OCTAVE;
    ((octave + 1) * BINS_PER_OCTAVE + within).min(BINS - 1)
}

/// The middle of a bin, in microseconds.
fn middle_us(bin: usize) -> f64 {
    if bin < BINS_PER_OCTAVE {
        return bin as f64;
    }
    let octave = bin / BINS_PER_OCTAVE - 1;
    let width = (1_u64 << octave) as f64;
    ((bin % BINS_PER_OCTAVE + BINS_PER_OCTAVE) as f64 + 0.5) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_holds_what_is_within_a_64th_of_its_middle() {
        for us in [
            0, 1, 31, 32, 33, 100, 999, 1500, 123_456, 5_000_000, 60_000_000,
        ] {
            let middle = middle_us(bin(Duration::from_micros(us)));
            let error = (middle - us as f64).abs();
            assert!(error <= us as f64 / 64.0, "{us}: {middle}");
        }
        assert_eq!(bin(Duration::from_secs(3600)), BINS - 1);
    }

    #[test]
    fn the_delta_is_of_the_percentiles_and_has_a_sign() {
        let mut pairs = Pairs::default();
        for _ in 0..94 {
            pairs.add(Duration::from_millis(2), Duration::from_millis(3));
        }
        for _ in 0..6 {
            pairs.add(Duration::from_millis(2), Duration::from_millis(300));
        }
        assert!((pairs.delta_seconds() - 0.298).abs() < 0.006);
        let mut faster = Pairs::default();
        faster.add(Duration::from_millis(50), Duration::from_millis(1));
        assert!(faster.delta_seconds() < -0.04);
        assert_eq!(Pairs::default().delta_seconds(), 0.0);
    }

    #[test]
    fn what_is_taken_away_was_never_there() {
        let mut part = Pairs::default();
        part.add(Duration::from_millis(1), Duration::from_secs(9));
        let mut whole = part.clone();
        whole.add(Duration::from_millis(1), Duration::from_millis(2));
        whole.take_away(&part);
        let mut rest = Pairs::default();
        rest.add(Duration::from_millis(1), Duration::from_millis(2));
        assert_eq!(whole, rest);
    }
}
