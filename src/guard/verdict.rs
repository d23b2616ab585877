//! What a trigger says, and what is decided on it.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Action, Electorate, Remedy};
use crate::contract::Epoch;
use crate::telemetry::Trigger;

/// How a trigger stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not watched in this stage, or excused by a maintenance.
    Off,
    /// Well below its threshold.
    Ok,
    /// Above half its threshold, or above it and not for long enough yet.
    Near,
    /// Too few samples to decide.
    Blind,
    /// It fires.
    Fired,
}

/// What one trigger says at one time.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Which.
    pub trigger: Trigger,
    /// What it does when it fires.
    pub action: Action,
    /// How it stands.
    pub standing: Standing,
    /// What it measures: a share, a count, seconds, or calls in a row.
    pub value: f64,
    /// What it fires at, in the same unit.
    pub threshold: f64,
    /// What the value rests on.
    pub samples: u64,
    /// How far back it looks.
    pub window: Duration,
}

/// Something has to be done.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// The trigger, with what it saw.
    pub verdict: Verdict,
    /// What to do.
    pub remedy: Remedy,
    /// The epoch it was decided under; void when that has passed.
    pub epoch: Epoch,
    /// Replicas that saw the same.
    pub votes: usize,
    /// Replicas that could have.
    pub replicas: usize,
}

impl Standing {
    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ok => "ok",
            Self::Near => "near",
            Self::Blind => "blind",
            Self::Fired => "fired",
        }
    }
}

impl Decision {
    pub(super) fn new(
        verdict: Verdict,
        remedy: Remedy,
        epoch: Epoch,
        electorate: &Electorate,
    ) -> Self {
        Self {
            votes: electorate.votes(verdict.trigger),
            replicas: electorate.replicas(),
            verdict,
            remedy,
            epoch,
        }
    }

    /// What it rests on, for the audit and for people. Holds no row values.
    #[must_use]
    pub fn evidence(&self) -> Value {
        json!({
            "trigger": self.verdict.trigger.as_str(),
            "value": self.verdict.value,
            "threshold": self.verdict.threshold,
            "samples": self.verdict.samples,
            "window_seconds": self.verdict.window.as_secs_f64(),
            "votes": self.votes,
            "replicas": self.replicas,
        })
    }

    /// In one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let Verdict {
            trigger,
            value,
            threshold,
            samples,
            window,
            ..
        } = &self.verdict;
        let told = match trigger {
            Trigger::FailureRate => format!(
                "{:.2} % of {samples} calls of storage failed, over {:.2} %",
                value * 100.0,
                threshold * 100.0
            ),
            Trigger::Inconsistency => format!("confirmed divergences: {value}"),
            Trigger::LatencyDelta => format!(
                "storage is {:.0} ms slower than legacy at p95 of {samples} pairs, over {:.0} ms",
                value * 1000.0,
                threshold * 1000.0
            ),
            Trigger::Unavailable => format!("{value} calls of storage in a row failed"),
        };
        format!("guard: {trigger}: {told}, within {window:?}")
    }
}
