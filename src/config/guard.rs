//! `[guard]`: what storage is watched by, and what happens when it fails.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::check::Checker;
use super::raw::RawSecret;
use super::{Address, TablePolicy, duration};
use crate::guard::{self, Action, Quorum};
use crate::stage::Stage;

/// Windows longer than this would hold a decision up for hours.
const WINDOW_MAX: Duration = Duration::from_secs(3600);
/// What an hour of samples can still be counted by.
const MIN_SAMPLES_MAX: u32 = 1_000_000;

/// `[guard]`, checked.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Guard {
    /// How many replicas must agree; none: a majority from three on, else any.
    pub quorum: Option<Quorum>,
    /// Where a rollback leads.
    pub rollback_to: Stage,
    /// Who is told by HTTP, if anybody. Shown without its path, which is often the secret.
    #[serde(serialize_with = "origin")]
    pub webhook: Option<Address>,
    /// How often the triggers are evaluated.
    #[serde(with = "duration")]
    pub evaluate_every: Duration,
    /// The share of storage's calls that fail.
    pub failure_rate: FailureRate,
    /// Confirmed divergences.
    pub inconsistency: Inconsistency,
    /// How much slower storage is than legacy.
    pub latency_delta: LatencyDelta,
    /// Storage is not there at all.
    pub unavailable: Unavailable,
    /// Writes in slow hours, if any.
    pub canary: Option<Canary>,
}

/// `[guard]`, as written.
#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGuard {
    quorum: Option<Quorum>,
    rollback_to: Stage,
    webhook: Option<RawSecret>,
    #[serde(deserialize_with = "duration::deserialize")]
    evaluate_every: Duration,
    failure_rate: FailureRate,
    inconsistency: Inconsistency,
    latency_delta: LatencyDelta,
    unavailable: Unavailable,
    canary: Option<Canary>,
}

/// `[guard.failure_rate]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureRate {
    /// Fires above this share, 0 to 1.
    pub threshold: f64,
    /// How far back it looks.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Calls in the window, at least.
    pub min_samples: u32,
    /// Windows above the threshold, back to back.
    pub consecutive: u32,
    /// What it does.
    pub action: Action,
}

/// `[guard.inconsistency]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inconsistency {
    /// Fires at this many confirmed divergences.
    pub threshold: u32,
    /// How far back it looks.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Comparisons in the window, at least.
    pub min_samples: u32,
    /// Windows at the threshold, back to back.
    pub consecutive: u32,
    /// What it does.
    pub action: Action,
}

/// `[guard.latency_delta]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatencyDelta {
    /// Fires when p95 of storage exceeds p95 of legacy by more than this.
    #[serde(with = "duration")]
    pub threshold: Duration,
    /// How far back it looks.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Paired calls in the window, at least.
    pub min_samples: u32,
    /// Windows above the threshold, back to back.
    pub consecutive: u32,
    /// What it does.
    pub action: Action,
}

/// `[guard.unavailable]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Unavailable {
    /// Calls that fail in a row, at least.
    pub failures: u32,
    /// From when the first was sent to when the last failed, at least.
    #[serde(with = "duration")]
    pub over: Duration,
    /// What it does.
    pub action: Action,
}

/// `[guard.canary]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The table that is made for it.
    pub table: String,
    /// How often a row of it is written.
    #[serde(with = "duration", default = "a_second")]
    pub every: Duration,
}

fn origin<S: Serializer>(webhook: &Option<Address>, output: S) -> Result<S::Ok, S::Error> {
    webhook.as_ref().map(Address::origin).serialize(output)
}

fn a_second() -> Duration {
    Duration::from_secs(1)
}

impl Guard {
    /// What the triggers are told.
    #[must_use]
    pub fn settings(&self) -> guard::Settings {
        let (rate, found, delta) = (self.failure_rate, self.inconsistency, self.latency_delta);
        guard::Settings {
            failure_rate: guard::Limit {
                threshold: rate.threshold,
                window: rate.window,
                min_samples: rate.min_samples,
                consecutive: rate.consecutive,
                action: rate.action,
            },
            inconsistency: guard::Limit {
                threshold: f64::from(found.threshold),
                window: found.window,
                min_samples: found.min_samples,
                consecutive: found.consecutive,
                action: found.action,
            },
            latency_delta: guard::Limit {
                threshold: delta.threshold.as_secs_f64(),
                window: delta.window,
                min_samples: delta.min_samples,
                consecutive: delta.consecutive,
                action: delta.action,
            },
            unavailable: guard::Outage {
                failures: self.unavailable.failures,
                over: self.unavailable.over,
                action: self.unavailable.action,
            },
            quorum: self.quorum,
            rollback_to: self.rollback_to,
            evaluate_every: self.evaluate_every,
            canary_writes: self.canary.is_some(),
        }
    }
}

impl Checker<'_> {
    /// The section, once every rule of it holds.
    pub(super) fn guard(&mut self, raw: RawGuard, tables: &[TablePolicy]) -> Guard {
        self.guard_stage(raw.rollback_to);
        self.guard_durations(&raw);
        self.guard_counts(&raw);
        if let Some(canary) = &raw.canary
            && !tables.iter().any(|table| table.name == canary.table)
        {
            self.found(
                "guard.canary.table",
                format!("{:?} is not among [[tables]]", canary.table),
                "add [[tables]] with that name: canaries are written as requests are",
            );
        }
        let webhook = raw.webhook.as_ref();
        Guard {
            quorum: raw.quorum,
            rollback_to: raw.rollback_to,
            webhook: webhook
                .and_then(|_| self.address("guard.webhook", webhook, &["http", "https"])),
            evaluate_every: raw.evaluate_every,
            failure_rate: raw.failure_rate,
            inconsistency: raw.inconsistency,
            latency_delta: raw.latency_delta,
            unavailable: raw.unavailable,
            canary: raw.canary,
        }
    }

    fn guard_stage(&mut self, rollback_to: Stage) {
        if rollback_to > Stage::DualWrite {
            self.found(
                "guard.rollback_to",
                format!("{rollback_to} still relies on storage, or goes on measuring it"),
                "give \"dual_write\" (storage is paid on) or \"off\"",
            );
        }
    }

    fn guard_durations(&mut self, raw: &RawGuard) {
        for (key, window) in [
            ("guard.failure_rate.window", raw.failure_rate.window),
            ("guard.inconsistency.window", raw.inconsistency.window),
            ("guard.latency_delta.window", raw.latency_delta.window),
        ] {
            if window < Duration::from_secs(1) || window > WINDOW_MAX {
                self.found(key, "is not from 1s to 1h", "give a window such as \"60s\"");
            }
        }
        if raw.unavailable.over > WINDOW_MAX {
            self.found(
                "guard.unavailable.over",
                "is longer than 1h",
                "give a time such as \"2s\"",
            );
        }
        let every = raw.evaluate_every;
        if every < Duration::from_millis(10) || every > Duration::from_secs(10) {
            self.found(
                "guard.evaluate_every",
                "is not from 10ms to 10s",
                "give \"100ms\"",
            );
        }
        if let Some(canary) = &raw.canary
            && canary.every < Duration::from_millis(100)
        {
            self.found(
                "guard.canary.every",
                "is shorter than 100ms",
                "give a time such as \"1s\"",
            );
        }
    }

    fn guard_counts(&mut self, raw: &RawGuard) {
        let share = raw.failure_rate.threshold;
        if !(0.0..1.0).contains(&share) {
            self.found(
                "guard.failure_rate.threshold",
                format!("is {share}: no share of calls could exceed it"),
                "give a share from 0.0 to below 1.0, such as 0.01",
            );
        }
        let positive = [
            (
                "guard.failure_rate.min_samples",
                raw.failure_rate.min_samples,
            ),
            (
                "guard.failure_rate.consecutive",
                raw.failure_rate.consecutive,
            ),
            ("guard.inconsistency.threshold", raw.inconsistency.threshold),
            (
                "guard.inconsistency.consecutive",
                raw.inconsistency.consecutive,
            ),
            (
                "guard.latency_delta.min_samples",
                raw.latency_delta.min_samples,
            ),
            (
                "guard.latency_delta.consecutive",
                raw.latency_delta.consecutive,
            ),
            ("guard.unavailable.failures", raw.unavailable.failures),
        ];
        for (key, value) in positive {
            if value == 0 || value > MIN_SAMPLES_MAX {
                let range = format!("is not from 1 to {MIN_SAMPLES_MAX}");
                self.found(key, range, "give at least 1");
            }
        }
    }
}

impl Default for RawGuard {
    fn default() -> Self {
        let default = guard::Settings::default();
        Self {
            quorum: default.quorum,
            rollback_to: default.rollback_to,
            webhook: None,
            evaluate_every: default.evaluate_every,
            failure_rate: FailureRate::default(),
            inconsistency: Inconsistency::default(),
            latency_delta: LatencyDelta::default(),
            unavailable: Unavailable::default(),
            canary: None,
        }
    }
}

impl Default for FailureRate {
    fn default() -> Self {
        let limit = guard::Settings::default().failure_rate;
        Self {
            threshold: limit.threshold,
            window: limit.window,
            min_samples: limit.min_samples,
            consecutive: limit.consecutive,
            action: limit.action,
        }
    }
}

impl Default for Inconsistency {
    fn default() -> Self {
        let limit = guard::Settings::default().inconsistency;
        Self {
            threshold: 1,
            window: limit.window,
            min_samples: limit.min_samples,
            consecutive: limit.consecutive,
            action: limit.action,
        }
    }
}

impl Default for LatencyDelta {
    fn default() -> Self {
        let limit = guard::Settings::default().latency_delta;
        Self {
            threshold: Duration::from_millis(100),
            window: limit.window,
            min_samples: limit.min_samples,
            consecutive: limit.consecutive,
            action: limit.action,
        }
    }
}

impl Default for Unavailable {
    fn default() -> Self {
        let outage = guard::Settings::default().unavailable;
        Self {
            failures: outage.failures,
            over: outage.over,
            action: outage.action,
        }
    }
}
