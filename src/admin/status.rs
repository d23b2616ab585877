//! `GET /admin/status`: everything that an operator decides by, in one answer.
//!
//! It is never an error: in the stages where storage is the authority, an operator needs it most when
//! the legacy database is gone. What only that database knows is missing then, and `readiness` and
//! `rollback` say so.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::contract::Epoch;
use crate::control::{self, Blocker, Replica, RollbackSafety, Snapshot, rollback_safety};
use crate::sql::Fault;
use crate::stage::{Backend, Stage};
use crate::{divergence, journal};

use super::AdminState;
use super::failed::{Answer, ok};
use super::now::Now;
use super::readiness::{Asked, Facts, Readiness};

/// How long the database may take over all questions.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize, Debug)]
struct Status {
    #[serde(flatten)]
    now: Now,
    rollback: RollbackSafety,
    readiness: Readiness,
    /// The triggers; none is built in.
    guard: [(); 0],
    /// The latest backfill, whichever replica works on it.
    backfill: Value,
    /// The latest verify of this replica.
    verify: Value,
    replicas: Vec<ReplicaView>,
}

#[derive(Serialize, Debug)]
struct ReplicaView {
    id: String,
    version: String,
    config: String,
    epoch: Epoch,
    seen_seconds: f64,
    dirty: bool,
}

/// The status.
pub(super) async fn status(State(state): State<Arc<AdminState>>) -> Answer {
    let snapshot = state.control.snapshot();
    let asked = ask(&state).await;
    let owed = asked
        .as_ref()
        .map_or_else(|| state.observer.last_owed().0, |asked| asked.owed);
    let mut jobs = state.jobs.current().await;
    let status = Status {
        now: Now::new(&state, &snapshot, &owed, asked.is_some()),
        rollback: rollback(&snapshot, asked.as_ref()),
        readiness: readiness(&state, &snapshot, asked.as_ref()),
        guard: [],
        backfill: jobs["backfill"].take(),
        verify: jobs["verify"].take(),
        replicas: asked
            .into_iter()
            .flat_map(|asked| asked.replicas)
            .map(ReplicaView::from)
            .collect(),
    };
    ok(&status)
}

/// Asks the database what only it knows; nothing when it does not answer in time.
pub(super) async fn ask(state: &AdminState) -> Option<Asked> {
    let asked = timeout(ASK_TIMEOUT, ask_all(state)).await;
    match asked {
        Ok(Ok(asked)) => Some(asked),
        Ok(Err(fault)) => {
            tracing::warn!(%fault, "the legacy database did not answer for status");
            None
        }
        Err(_) => {
            tracing::warn!("the legacy database did not answer in time for status");
            None
        }
    }
}

async fn ask_all(state: &AdminState) -> Result<Asked, Fault> {
    let db = state.legacy.db();
    Ok(Asked {
        owed: journal::owed(db).await?,
        divergences_open: divergence::count_open(db).await?,
        replicas: state.control.replicas().await?,
        skew: state.control.skew().await,
    })
}

/// Whether the next stage may be entered, by what is known.
pub(super) fn readiness(
    state: &AdminState,
    snapshot: &Snapshot,
    asked: Option<&Asked>,
) -> Readiness {
    Readiness::judge(&Facts {
        snapshot,
        asked,
        storage_up: (state.storage.is_up)(),
        highest_stage: state.storage.highest_stage,
        clock_skew_max: state.control.options().clock_skew_max,
    })
}

/// Where a rollback leads when nobody says: to where legacy answers and storage goes on being paid; from
/// the earlier stages and from the last, to the stage before. None from `off`.
pub(super) fn rollback_target(stage: Stage) -> Option<Stage> {
    match stage {
        Stage::Off => None,
        Stage::DualWrite => Some(Stage::Off),
        Stage::Shadow | Stage::Live | Stage::RampDown => Some(Stage::DualWrite),
        Stage::Complete => Some(Stage::RampDown),
    }
}

fn rollback(snapshot: &Snapshot, asked: Option<&Asked>) -> RollbackSafety {
    let to = rollback_target(snapshot.stage).unwrap_or(Stage::Off);
    let Some(asked) = asked else {
        return RollbackSafety {
            safe: false,
            to: (snapshot.authority() == Backend::Storage).then_some(to),
            blockers: vec![Blocker {
                code: "legacy_down",
                message: "the legacy database does not answer: nothing can be rolled back to it"
                    .to_owned(),
            }],
        };
    };
    let owed = control::Owed {
        to_storage: asked.owed.to_storage,
        to_legacy: asked.owed.to_legacy,
    };
    rollback_safety(snapshot, owed, &asked.replicas, to)
}

impl From<Replica> for ReplicaView {
    fn from(replica: Replica) -> Self {
        Self {
            id: replica.id,
            version: replica.version,
            config: replica.config_digest,
            epoch: replica.epoch,
            seen_seconds: replica.silent.as_secs_f64(),
            dirty: replica.dirty,
        }
    }
}
