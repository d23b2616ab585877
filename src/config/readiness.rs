//! `[readiness]`: how much has to be known before a stage may be entered, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::change_window::ChangeWindow;
use super::duration;

/// `[readiness]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Readiness {
    /// How old the last full and clean verify may be before `live`.
    #[serde(with = "duration")]
    pub verify_max_age: Duration,
    /// How much longer than in `off` callers may wait (95th percentile) before the next stage is entered.
    #[serde(with = "duration")]
    pub latency_increase_max: Duration,
    /// Calls of one kind that a baseline of callers' latency rests on; 0 asks for no baseline.
    pub baseline_samples_min: u32,
    /// How long `shadow` has to last before `live`.
    #[serde(with = "duration")]
    pub min_shadow: Duration,
    /// Comparisons of each table and operation, made in this stay in `shadow`, before `live`.
    pub min_comparisons: u32,
    /// How long nobody may have written past the proxy before `live`.
    #[serde(with = "duration")]
    pub bypass_quiet: Duration,
    /// How often each replica looks for drift between the sides' schemas.
    #[serde(with = "duration")]
    pub drift_every: Duration,
    /// When stages may be advanced; empty means always.
    pub change_window: Vec<ChangeWindow>,
}

impl Default for Readiness {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            verify_max_age: day,
            latency_increase_max: Duration::from_millis(50),
            baseline_samples_min: 100,
            min_shadow: day,
            min_comparisons: 100,
            bypass_quiet: day,
            drift_every: Duration::from_secs(30),
            change_window: Vec::new(),
        }
    }
}
