//! What a reload changes while the proxy runs, and its sections. Single keys say where they need a restart after all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AdminToken, DoorToken, Guard, Readiness, duration};
use crate::stage::Stage;
use crate::telemetry::LogFormat;

/// The part that a reload changes while the proxy runs; meant for an `ArcSwap`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Hot {
    /// Comparing.
    pub compare: Compare,
    /// What has to be known before a stage is entered.
    pub readiness: Readiness,
    /// What storage is watched by.
    pub guard: Guard,
    /// Filling storage.
    pub backfill: Backfill,
    /// Comparing all rows.
    pub verify: Verify,
    /// Limits.
    pub limits: Limits,
    /// Logging.
    pub log: Log,
    /// `flag.pin`: the stage that overrides the control state.
    pub pin: Option<Stage>,
    /// Who may use the doors; empty means everyone.
    pub http_tokens: Vec<DoorToken>,
    /// Who may use the admin plane; empty means the token that start-up writes.
    pub admin_tokens: Vec<AdminToken>,
}

/// `[compare]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compare {
    /// The share of reads that are repeated on the secondary, 0 to 1.
    pub sample: f64,
    /// How long a suspect waits before both sides are read again, when no entry of its key is open.
    #[serde(with = "duration")]
    pub recheck_delay: Duration,
    /// Reads on the secondary at a time; more are shed.
    pub background_max: usize,
}

/// `[backfill]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backfill {
    /// Rows a second at most, unless a run says otherwise; 0 is no limit.
    pub rate: u32,
    /// Entries outstanding at most.
    pub window: u32,
    /// It waits while the oldest payable entry is older than this.
    #[serde(with = "duration")]
    pub lag_max: Duration,
}

/// `[verify]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// A verify begins by itself when the last full one is older than this; 0 is never.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Rows a second at most; 0 is no limit.
    pub rate: u32,
}

/// `[limits]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A request's body, in bytes.
    pub body_bytes_max: usize,
    /// Nesting of a request's JSON.
    pub json_depth_max: usize,
    /// Rows of one write.
    pub rows_write_max: usize,
    /// Rows of one select's answer.
    pub rows_select_max: usize,
    /// Requests in work per door; more are refused with `overloaded`.
    pub in_flight_max: usize,
    /// How long a read may take.
    #[serde(with = "duration")]
    pub read_deadline: Duration,
    /// How long a write may take.
    #[serde(with = "duration")]
    pub write_deadline: Duration,
    /// How long a client may take for a request's headers. Needs a restart.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long a client may take for a request's body.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a connection may wait for its next request. Needs a restart.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long requests in flight may go on after SIGTERM. Needs a restart.
    #[serde(with = "duration")]
    pub shutdown_grace: Duration,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A filter as `tracing-subscriber` reads it: `info`, or `info,cutover::applier=debug`.
    pub level: String,
    /// How lines look. Needs a restart.
    pub format: LogFormat,
}

impl Default for Compare {
    fn default() -> Self {
        Self {
            sample: 1.0,
            recheck_delay: Duration::from_millis(500),
            background_max: 64,
        }
    }
}

impl Default for Backfill {
    fn default() -> Self {
        Self {
            rate: 0,
            window: 10_000,
            lag_max: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            json_depth_max: 32,
            rows_write_max: 1_000,
            rows_select_max: 10_000,
            in_flight_max: 512,
            read_deadline: Duration::from_secs(2),
            write_deadline: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}
