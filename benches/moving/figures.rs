//! The table of figures: what is promised, what was measured, whether it was kept.

use std::time::Duration;

/// Rows a second of the proxy against those of a bare loop, over some rounds.
pub(crate) struct Figure {
    name: &'static str,
    ratio_min: f64,
    rows: f64,
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

impl Figure {
    pub(crate) fn new(name: &'static str, ratio_min: f64) -> Self {
        Self {
            name,
            ratio_min,
            rows: 0.0,
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }

    /// A round: how long each side took for the same rows.
    pub(crate) fn add(&mut self, rows: u64, ours: Duration, theirs: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let rows = rows as f64;
        self.rows += rows;
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// Its line under [`header`].
    pub(crate) fn line(&self) -> String {
        let rounds = self.theirs.iter().zip(&self.ours);
        let mut ratios: Vec<f64> = rounds
            .map(|(theirs, ours)| theirs.as_secs_f64() / ours.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        let last = ratios.len() - 1;
        let ratio = f64::midpoint(ratios[last / 2], ratios[ratios.len() / 2]);
        let per_second =
            |times: &[Duration]| self.rows / times.iter().sum::<Duration>().as_secs_f64();
        format!(
            "{:<34} {:>8.2} {:>8.2} {:>6.2} {:>6.2} {:>11.0} {:>11.0}  {}",
            self.name,
            self.ratio_min,
            ratio,
            ratios[0],
            ratios[last],
            per_second(&self.theirs),
            per_second(&self.ours),
            kept(ratio >= self.ratio_min),
        )
    }
}

/// The table's head: the median of the rounds' ratios, their spread, and rows a second over all rounds.
pub(crate) fn header() -> String {
    format!(
        "{:<34} {:>8} {:>8} {:>6} {:>6} {:>11} {:>11}",
        "", "promise", "measured", "least", "most", "bare rows/s", "our rows/s"
    )
}

/// A figure that has a most.
pub(crate) fn at_most(name: &str, most: f64, measured: f64) -> String {
    let kept = kept(measured <= most);
    let gap = "";
    format!("{name:<34} {most:>8.2} {measured:>8.2} {gap:>37}  {kept}")
}

fn kept(kept: bool) -> &'static str {
    if kept { "kept" } else { "MISSED" }
}
