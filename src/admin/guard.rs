//! The guard's triggers, as `status` and the event stream show them.

use serde::Serialize;

use crate::guard::{Action, GuardHandle, Standing, Verdict};

/// One trigger, as it was last evaluated on this replica.
#[derive(Serialize, Debug)]
pub(super) struct TriggerView {
    trigger: &'static str,
    action: Action,
    /// A share, a count, seconds, or calls in a row.
    value: f64,
    /// In the same unit.
    threshold: f64,
    samples: u64,
    window_seconds: f64,
    state: Standing,
}

impl TriggerView {
    /// All of them; none before the first evaluation.
    pub(super) fn all(guard: &GuardHandle) -> Vec<Self> {
        guard.verdicts().iter().map(Self::from).collect()
    }
}

impl From<&Verdict> for TriggerView {
    fn from(verdict: &Verdict) -> Self {
        Self {
            trigger: verdict.trigger.as_str(),
            action: verdict.action,
            value: verdict.value,
            threshold: verdict.threshold,
            samples: verdict.samples,
            window_seconds: verdict.window.as_secs_f64(),
            state: verdict.standing,
        }
    }
}
