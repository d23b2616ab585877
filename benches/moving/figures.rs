//! The table of figures: what is promised, what was measured, whether it was kept.

use std::fmt;
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
        let ratios = rounds.map(|(theirs, ours)| theirs.as_secs_f64() / ours.as_secs_f64());
        let ratios = Spread::of(ratios.collect());
        let per_second =
            |times: &[Duration]| self.rows / times.iter().sum::<Duration>().as_secs_f64();
        format!(
            "{:<34} {:>8.2} {ratios} {:>11.0} {:>11.0}  {}",
            self.name,
            self.ratio_min,
            per_second(&self.theirs),
            per_second(&self.ours),
            kept(ratios.median >= self.ratio_min),
        )
    }
}

/// What was measured over some rounds.
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of one number for each round, of which there is at least one.
    pub(crate) fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let last = rounds.len() - 1;
        Self {
            median: f64::midpoint(rounds[last / 2], rounds[rounds.len() / 2]),
            least: rounds[0],
            most: rounds[last],
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.2} {:>6.2} {:>6.2}",
            self.median, self.least, self.most
        )
    }
}

/// The table's head: the median over the rounds and their spread, and rows a second over all of them.
pub(crate) fn header() -> String {
    format!(
        "{:<34} {:>8} {:>8} {:>6} {:>6} {:>11} {:>11}",
        "", "promise", "measured", "least", "most", "bare rows/s", "our rows/s"
    )
}

/// A figure that has a most.
pub(crate) fn at_most(name: &str, most: f64, measured: &Spread) -> String {
    let kept = kept(measured.median <= most);
    let gap = "";
    format!("{name:<34} {most:>8.2} {measured} {gap:>23}  {kept}")
}

/// A figure to hold another one against.
pub(crate) fn noise(name: &str, measured: &Spread) -> String {
    let gap = "";
    format!("{name:<34} {gap:>8} {measured}")
}

fn kept(kept: bool) -> &'static str {
    if kept { "kept" } else { "MISSED" }
}
