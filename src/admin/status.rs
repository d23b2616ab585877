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

use crate::backfill::{self, RunState};
use crate::clock::unix_us;
use crate::contract::Epoch;
use crate::control::{self, Maintenance, Replica, RollbackSafety, Snapshot, rollback_safety};
use crate::drill::Current;
use crate::sql::{Db, Fault};
use crate::stage::{Backend, Stage};
use crate::{divergence, evidence, journal};

use super::AdminState;
use super::evidence::{BaselineView, FlagFileView, VerifiedView};
use super::failed::{Answer, ok};
use super::maintenance::MaintenanceView;
use super::now::Now;
use super::readiness::{Asked, Facts, Readiness, TriggerFact};
use super::schema::SchemaView;

/// How long the database may take over all questions.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize, Debug)]
struct Status {
    #[serde(flatten)]
    now: Now,
    rollback: RollbackSafety,
    readiness: Readiness,
    /// The latest backfill, whichever replica works on it.
    backfill: Value,
    /// The latest verify, of whichever replica.
    verify: Value,
    /// The last full verify of storage, on whichever replica.
    verified: Option<VerifiedView>,
    /// Callers' latency in `off`, and lately on this replica, by kind of call.
    baseline: BaselineView,
    /// Tables that joined and that storage was not filled with yet.
    pending_tables: Vec<String>,
    /// Where the sides' schemas differed when this replica last looked.
    schema: SchemaView,
    /// Rows written past the proxy since the installation; nothing when the database did not answer.
    bypass_writes: Option<i64>,
    flag_file: FlagFileView,
    /// The drill under way, or the one whose rollback holds the latch.
    drill: Option<Current>,
    /// The expected outages under way.
    maintenance: Vec<MaintenanceView>,
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
        backfill: jobs["backfill"].take(),
        verify: jobs["verify"].take(),
        verified: asked
            .as_ref()
            .and_then(|asked| asked.verified.as_ref())
            .map(VerifiedView::from),
        baseline: BaselineView::new(&state, asked.as_ref()),
        pending_tables: state.control.pending_tables().iter().cloned().collect(),
        schema: SchemaView::new(&state.drift.found()),
        bypass_writes: asked.as_ref().map(|asked| {
            let tables = asked.bypassed.iter();
            tables.map(|table| table.rows).sum()
        }),
        flag_file: FlagFileView::new(&state.flag.borrow(), snapshot.stage),
        drill: state.drills.current().map(Arc::unwrap_or_clone),
        maintenance: MaintenanceView::all(&state.control),
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
    // What only matters before `live` is not asked for in the other stages.
    let in_shadow = state.control.snapshot().stage == Stage::Shadow;
    let shadow = match in_shadow {
        true => control::entered(db, Stage::Shadow).await?,
        false => None,
    };
    Ok(Asked {
        owed: journal::owed(db).await?,
        divergences_open: divergence::count_open(db).await?,
        replicas: state.control.replicas().await?,
        skew: state.control.skew().await,
        verified: evidence::verified(db, Backend::Storage).await?,
        compared: match shadow {
            Some(entered) => evidence::compared_since(db, entered.epoch).await?,
            None => vec![],
        },
        shadow,
        bypassed: evidence::bypassed(db).await?,
        baselines: evidence::baselines(db).await?,
        backfill_under_way: backfill_under_way(db).await?,
        sequences: match in_shadow {
            true => state.legacy.sequences_behind().await?,
            false => vec![],
        },
        app_triggers: match in_shadow {
            true => state.legacy.app_triggers().await?,
            false => vec![],
        },
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
        settings: &state.readiness.load(),
        now_us: unix_us(),
        backfill_under_way: asked.is_some_and(|asked| asked.backfill_under_way),
        maintenance: state
            .control
            .maintenance()
            .iter()
            .map(Maintenance::told)
            .collect(),
        tables: state.legacy.schema().tables.keys().cloned().collect(),
        pending_tables: state.control.pending_tables().iter().cloned().collect(),
        triggers: TriggerFact::all(&state.observer.guard().verdicts()),
        drift: state.drift.found().differences().cloned().collect(),
    })
}

/// Whether a backfill runs, or rests to be resumed, on whatever replica.
async fn backfill_under_way(db: &Db) -> Result<bool, Fault> {
    let latest = backfill::latest(db).await?;
    Ok(latest.is_some_and(|run| match run.state {
        RunState::Running | RunState::Paused => true,
        RunState::Done | RunState::Cancelled | RunState::Failed => false,
    }))
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

pub(super) fn rollback(snapshot: &Snapshot, asked: Option<&Asked>) -> RollbackSafety {
    let to = rollback_target(snapshot.stage).unwrap_or(Stage::Off);
    let known = asked.map(|asked| {
        let owed = control::Owed {
            to_storage: asked.owed.to_storage,
            to_legacy: asked.owed.to_legacy,
        };
        (owed, asked.replicas.as_slice())
    });
    rollback_safety(snapshot, known, to)
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
