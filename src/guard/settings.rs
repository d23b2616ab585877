//! What the triggers are told: when to fire, and what to do then.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Quorum;
use crate::stage::Stage;
use crate::telemetry::Trigger;

/// What a trigger that fires does. In the order of strength.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is shown, logged and counted; nothing moves.
    Observe,
    /// It latches: nothing advances until an operator re-arms.
    Freeze,
    /// It gives the authority back to legacy, and latches.
    Rollback,
}

/// A trigger that measures over a window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limit {
    /// What it fires at. A share for `failure_rate`, seconds for `latency_delta`, a count for `inconsistency`.
    pub threshold: f64,
    /// How far back it looks.
    pub window: Duration,
    /// With fewer samples in the window it decides nothing.
    pub min_samples: u32,
    /// For how many windows, back to back, it must be above the threshold.
    pub consecutive: u32,
    /// What it does.
    pub action: Action,
}

/// `unavailable`: a run of calls of which none succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outage {
    /// This many calls.
    pub failures: u32,
    /// From when the first of them was sent to when the last of them failed.
    pub over: Duration,
    /// What it does.
    pub action: Action,
}

/// All of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Failed calls of storage, of all calls.
    pub failure_rate: Limit,
    /// Confirmed divergences.
    pub inconsistency: Limit,
    /// p95 of storage minus p95 of legacy, on calls that went to both.
    pub latency_delta: Limit,
    /// Storage is not there at all.
    pub unavailable: Outage,
    /// How many replicas must agree; none: a majority from three on, else any.
    pub quorum: Option<Quorum>,
    /// Where a rollback leads.
    pub rollback_to: Stage,
    /// How often the triggers are evaluated.
    pub evaluate_every: Duration,
    /// Whether slow hours are measured by writes as well.
    pub canary_writes: bool,
}

impl Action {
    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Freeze => "freeze",
            Self::Rollback => "rollback",
        }
    }
}

impl Settings {
    /// What a trigger does when it fires.
    #[must_use]
    pub fn action(&self, trigger: Trigger) -> Action {
        match trigger {
            Trigger::FailureRate => self.failure_rate.action,
            Trigger::Inconsistency => self.inconsistency.action,
            Trigger::LatencyDelta => self.latency_delta.action,
            Trigger::Unavailable => self.unavailable.action,
        }
    }

    /// How often a probe must be sent, when nothing else is, so that no trigger is blind and an outage is
    /// noticed within its time.
    #[must_use]
    pub fn probe_every(&self) -> Duration {
        const OFTEN: Duration = Duration::from_millis(100);
        const SELDOM: Duration = Duration::from_secs(1);
        // A little more often than needed: a window is never quite full.
        let enough = |limit: &Limit| limit.window.mul_f64(0.8) / limit.min_samples.max(1);
        // The last of the run must fail soon after its time has come.
        let outage = self.unavailable.over.mul_f64(0.6) / self.unavailable.failures.max(1);
        enough(&self.failure_rate)
            .min(enough(&self.latency_delta))
            .min(outage)
            .clamp(OFTEN, SELDOM)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            failure_rate: Limit {
                threshold: 0.01,
                window: minute,
                min_samples: 100,
                consecutive: 1,
                action: Action::Rollback,
            },
            inconsistency: Limit {
                threshold: 1.0,
                window: minute * 5,
                // A confirmed divergence was read again and again: it needs no company.
                min_samples: 0,
                consecutive: 1,
                action: Action::Rollback,
            },
            latency_delta: Limit {
                threshold: 0.1,
                window: minute,
                min_samples: 100,
                consecutive: 2,
                action: Action::Rollback,
            },
            unavailable: Outage {
                failures: 5,
                over: Duration::from_secs(2),
                action: Action::Rollback,
            },
            quorum: None,
            rollback_to: Stage::DualWrite,
            evaluate_every: Duration::from_millis(100),
            canary_writes: false,
        }
    }
}
