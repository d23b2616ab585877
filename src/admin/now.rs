//! What is known without asking the database: the part of `status` that event streams repeat.

use std::time::Duration;

use serde::Serialize;

use crate::clock::rfc3339;
use crate::contract::Epoch;
use crate::control::{GateHolder, Phase, Snapshot};
use crate::journal::Owed;
use crate::observe::{Recent, Summary};
use crate::stage::{Backend, Stage};
use crate::telemetry::Comparison;

use super::AdminState;
use super::guard::TriggerView;

/// The stage and the last minute.
#[derive(Serialize, Debug)]
pub(super) struct Now {
    /// Who answers.
    replica: String,
    stage: Stage,
    phase: Phase,
    authority: Backend,
    epoch: Epoch,
    since: String,
    reason: String,
    actor: String,
    latched: bool,
    /// Who holds the gate that a change on this replica waits for.
    gate_held_by: Vec<GateHolder>,
    pinned: bool,
    legacy_stale: bool,
    storage_stale: bool,
    journal: JournalView,
    backends: Backends,
    latency_delta: Delta,
    comparisons: Comparisons,
    guard: Vec<TriggerView>,
    weakened: Vec<String>,
    version: String,
}

/// What is owed.
#[derive(Serialize, Debug)]
pub(super) struct JournalView {
    owed: i64,
    to_storage: i64,
    to_legacy: i64,
    oldest_seconds: f64,
    in_doubt: i64,
    quarantined: i64,
    full_in_seconds: Option<f64>,
}

#[derive(Serialize, Debug)]
struct Backends {
    legacy: BackendView,
    storage: BackendView,
}

/// A backend over the last minute; no numbers without samples.
#[derive(Serialize, Debug)]
struct BackendView {
    up: bool,
    samples: usize,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
    error_rate: Option<f64>,
}

/// Storage minus legacy, on calls that both answered.
#[derive(Serialize, Debug)]
struct Delta {
    samples: usize,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
}

/// Comparisons by result since start.
#[derive(Serialize, Debug)]
#[serde(transparent)]
struct Comparisons(serde_json::Map<String, serde_json::Value>);

impl Now {
    /// Puts together what is known; `owed` is the journal as the caller knows it.
    pub(super) fn new(
        state: &AdminState,
        snapshot: &Snapshot,
        owed: &Owed,
        legacy_up: bool,
    ) -> Self {
        let Recent {
            legacy,
            storage,
            delta,
        } = state.observer.recent();
        let (_, full_in) = state.observer.last_owed();
        Self {
            replica: state.control.options().replica_id.clone(),
            stage: snapshot.stage,
            phase: snapshot.phase,
            authority: snapshot.authority(),
            epoch: snapshot.epoch,
            since: rfc3339(snapshot.since_us),
            reason: snapshot.reason.clone(),
            actor: snapshot.actor.clone(),
            latched: snapshot.latched,
            gate_held_by: state.control.gate_held_by().to_vec(),
            pinned: snapshot.pinned,
            legacy_stale: snapshot.legacy_stale,
            storage_stale: snapshot.storage_stale,
            journal: JournalView::new(owed, full_in),
            backends: Backends {
                legacy: BackendView::new(&legacy, legacy_up),
                storage: BackendView::new(&storage, (state.storage.is_up)()),
            },
            latency_delta: Delta {
                samples: delta.samples,
                p50_ms: sampled(&delta, delta.p50_ms),
                p95_ms: sampled(&delta, delta.p95_ms),
            },
            comparisons: Comparisons::new(state.observer.comparisons()),
            guard: TriggerView::all(state.observer.guard()),
            weakened: state.storage.weakened.clone(),
            version: state.version.clone(),
        }
    }
}

impl JournalView {
    /// The journal, and when it will be full if it goes on like this.
    pub(super) fn new(owed: &Owed, full_in: Option<Duration>) -> Self {
        Self {
            owed: owed.to_storage + owed.to_legacy,
            to_storage: owed.to_storage,
            to_legacy: owed.to_legacy,
            oldest_seconds: owed.oldest_us as f64 / 1e6,
            in_doubt: owed.in_doubt,
            quarantined: owed.quarantined,
            full_in_seconds: full_in.map(|wait| wait.as_secs_f64()),
        }
    }
}

impl BackendView {
    fn new(summary: &Summary, up: bool) -> Self {
        Self {
            up,
            samples: summary.samples,
            p50_ms: sampled(summary, summary.p50_ms),
            p95_ms: sampled(summary, summary.p95_ms),
            p99_ms: sampled(summary, summary.p99_ms),
            error_rate: sampled(summary, summary.error_rate),
        }
    }
}

impl Comparisons {
    fn new(counts: [i64; 7]) -> Self {
        let named = Comparison::ALL.iter().zip(counts);
        Self(
            named
                .map(|(result, count)| (result.as_str().to_owned(), count.into()))
                .collect(),
        )
    }
}

fn sampled(summary: &Summary, number: f64) -> Option<f64> {
    (summary.samples > 0).then_some(number)
}
