//! How fast a job goes and how long it still takes: the figures of `status` and of the progress line.

use crate::walk::TableProgress;

/// A job's rows over time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Speed {
    /// Rows done in all.
    pub(super) rows: u64,
    /// How many there are in all; none while nobody knows.
    pub(super) total: Option<u64>,
    /// Rows done since whoever works on it began to.
    pub(super) recent: u64,
    /// And how long ago that was.
    pub(super) seconds: f64,
}

impl Speed {
    /// A verify's: rows of legacy, as storage's are walked beside them.
    pub(super) fn of_walk(tables: &[TableProgress], seconds: f64) -> Self {
        let rows = tables.iter().map(|table| table.rows).sum();
        Self {
            rows,
            total: tables.iter().map(TableProgress::known_total).sum(),
            recent: rows,
            seconds,
        }
    }

    /// Rows a second.
    pub(super) fn per_second(&self) -> f64 {
        (self.recent as f64 / self.seconds.max(0.001)).round()
    }

    /// Until the last row, at this rate; none when that was reached: what is left then is no matter of rows.
    pub(super) fn eta_seconds(&self) -> Option<f64> {
        let left = self.total?.checked_sub(self.rows)?;
        let rate = self.recent as f64 / self.seconds.max(0.001);
        (left > 0 && rate > 0.0).then(|| (left as f64 / rate).round())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done_lately() {
        let speed = Speed {
            rows: 600,
            total: Some(1000),
            recent: 100,
            seconds: 10.0,
        };
        assert_eq!(
            (speed.per_second(), speed.eta_seconds()),
            (10.0, Some(40.0))
        );
    }

    #[test]
    fn nobody_knows_when_a_job_ends_whose_size_or_rate_is_not_known() {
        let begun = Speed {
            rows: 0,
            total: Some(10),
            recent: 0,
            seconds: 0.0,
        };
        assert_eq!(begun.eta_seconds(), None);
        let vast = Speed {
            total: None,
            recent: 5,
            seconds: 1.0,
            ..begun
        };
        assert_eq!(vast.eta_seconds(), None);
        let more_than_expected = Speed {
            total: Some(5),
            rows: 6,
            ..vast
        };
        assert_eq!(more_than_expected.eta_seconds(), None);
    }
}
