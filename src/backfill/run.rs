//! The one backfill that there is at a time: its record, and which replica works on it.
//!
//! A run belongs to the replica that holds its lease in the record. Operators change the record, never the
//! replica: whoever works on it looks at every chunk and every few seconds. A replica that died is
//! followed by another as soon as its lease has run out. Two at once would be harmless, as a backfill only owes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::checkpoint::{self, Checkpoint, Hold};
use crate::clock::micros;
use crate::control::record_action;
use crate::schema::Table;
use crate::sql::{Arg, Db, Fault, Record, Tx};

/// How long a run stays with a replica that is not heard of.
pub const LEASE: Duration = Duration::from_secs(10);

/// Where a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// A replica works on it, or will in a moment.
    Running,
    /// An operator stopped it; it goes on where it was.
    Paused,
    /// Every key was owed and paid.
    Done,
    /// An operator ended it.
    Cancelled,
    /// It could not go on.
    Failed,
}

/// A run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Names it.
    pub id: String,
    /// Where it stands.
    pub state: RunState,
    /// Who began it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The tables that were named; all when empty.
    pub tables: Vec<String>,
    /// At most this many rows a second, instead of what the configuration says; 0 is no limit.
    pub rate: Option<i64>,
    /// The journal's generation that it fills.
    pub generation: i64,
    /// When it began, unix microseconds.
    pub started_us: i64,
    /// When it ended, unix microseconds.
    pub ended_us: Option<i64>,
    /// When the replica that works on it began to, unix microseconds.
    pub resumed_us: i64,
    /// How many rows were owed by then.
    pub resumed_rows: i64,
    /// The replica that works on it.
    pub owner: Option<String>,
    /// Entries that were owed at its end and that only an operator will move.
    pub quarantined: i64,
    /// Whether keys that only storage has were looked for.
    pub storage_walked: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// Table by table, in the order they are filled.
    pub checkpoints: Vec<Checkpoint>,
}

/// What an operator asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// These tables; all when empty.
    pub tables: Vec<String>,
    /// At most this many rows a second; the configuration's rate without one, no limit with 0.
    pub rate: Option<i64>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begun {
    /// A new run, or one that goes on where it was.
    Run(String),
    /// One of other tables is under way, or an operator paused it: it would lose its place.
    Other(String, RunState),
}

const COLUMNS: &str = "run_id, state, actor, reason, tables, rate, generation, started_us, ended_us, \
                       resumed_us, resumed_rows, owner, quarantined, storage_walked, error";

/// Its rate is measured from when it last began to go as it goes.
const MEASURE_ANEW: &str = "resumed_us = cutover.now_us(), resumed_rows = \
     (SELECT coalesce(sum(b.done_rows), 0)::bigint FROM cutover.backfill b WHERE b.run_id = r.run_id)";

impl RunState {
    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        [
            Self::Running,
            Self::Paused,
            Self::Done,
            Self::Cancelled,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| Fault::Unexpected(format!("a backfill that is {text}")))
    }
}

/// Begins a run of these tables, or lets the one that was paused, or failed, go on where it was. One that is
/// under way for the same tables goes on, at the rate that is asked for. The audit record is in the same transaction.
///
/// # Errors
/// See [`Fault`].
pub async fn begin(
    db: &Db,
    asked: Asked,
    tables: &[Arc<Table>],
    generation: i64,
) -> Result<Begun, Fault> {
    let (db, names) = (
        db.clone(),
        tables.iter().map(|table| table.name.clone()).collect(),
    );
    run_to_end(async move { begin_in(&db, &asked, names, generation).await }).await
}

async fn begin_in(
    db: &Db,
    asked: &Asked,
    tables: Vec<String>,
    generation: i64,
) -> Result<Begun, Fault> {
    let mut tx = db.begin().await?;
    let sql = format!("SELECT {COLUMNS} FROM cutover.backfill_run WHERE id = 1 FOR UPDATE");
    let last = tx.control(&sql, vec![]).await?;
    let last = last.first().map(read).transpose()?;
    let same = |run: &Run| {
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        set(&run.tables) == set(&asked.tables) && run.generation == generation
    };
    let has_place = |run: &Run| {
        let paused = run.state == RunState::Paused && run.generation == generation;
        run.state == RunState::Running || paused
    };
    let id = match last {
        Some(run) if has_place(&run) && !same(&run) => {
            return Ok(Begun::Other(run.id, run.state));
        }
        Some(run) if run.state == RunState::Running => {
            if asked.rate.is_some() {
                let sql = format!(
                    "UPDATE cutover.backfill_run AS r SET rate = $1, {MEASURE_ANEW} WHERE id = 1"
                );
                tx.control(&sql, vec![asked.rate.into()]).await?;
            }
            run.id
        }
        Some(run) if same(&run) && matches!(run.state, RunState::Paused | RunState::Failed) => {
            tx.control(
                "UPDATE cutover.backfill_run SET state = 'running', rate = coalesce($1, rate), owner = NULL, \
                 lease_until_us = 0, ended_us = NULL, error = NULL WHERE id = 1",
                vec![asked.rate.into()],
            )
            .await?;
            run.id
        }
        Some(_) | None => anew(&mut tx, asked, &tables, generation).await?,
    };
    let details = json!({ "job": id, "asked": { "tables": asked.tables, "rate": asked.rate } });
    record_action(&mut tx, &asked.actor, "backfill", &asked.reason, &details).await?;
    tx.commit().await?;
    Ok(Begun::Run(id))
}

async fn anew(
    tx: &mut Tx,
    asked: &Asked,
    tables: &[String],
    generation: i64,
) -> Result<String, Fault> {
    let id = Uuid::now_v7().to_string();
    tx.control("DELETE FROM cutover.backfill_run", vec![])
        .await?;
    tx.control(
        "INSERT INTO cutover.backfill_run (id, run_id, state, actor, reason, tables, rate, generation, \
         started_us, resumed_us, resumed_rows, lease_until_us, quarantined, storage_walked) \
         VALUES (1, $1, 'running', $2, $3, $4, $5, $6, cutover.now_us(), cutover.now_us(), 0, 0, 0, false)",
        vec![
            id.as_str().into(),
            asked.actor.as_str().into(),
            asked.reason.as_str().into(),
            json!(asked.tables).to_string().into(),
            asked.rate.into(),
            generation.into(),
        ],
    )
    .await?;
    for (place, table) in (0_i64..).zip(tables) {
        tx.control(
            "INSERT INTO cutover.backfill (tbl, run_id, place, generation, state, done_rows, extra_rows) \
             VALUES ($1, $2, $3, $4, 'waiting', 0, 0) ON CONFLICT (tbl) DO UPDATE SET run_id = excluded.run_id, \
             place = excluded.place, generation = excluded.generation, state = 'waiting', last_key = NULL, \
             upper_key = NULL, done_rows = 0, extra_rows = 0, total_rows = NULL",
            vec![
                table.as_str().into(),
                id.as_str().into(),
                place.into(),
                generation.into(),
            ],
        )
        .await?;
    }
    Ok(id)
}

/// Takes a run that nobody works on; none when there is none.
///
/// # Errors
/// See [`Fault`].
pub async fn claim(db: &Db, owner: &str) -> Result<Option<Run>, Fault> {
    let records = db
        .control(
            &format!(
                "UPDATE cutover.backfill_run AS r SET owner = $1, lease_until_us = cutover.now_us() + $2, {MEASURE_ANEW} \
                 WHERE id = 1 AND state = 'running' AND (owner IS NULL OR owner = $1 \
                 OR lease_until_us < cutover.now_us()) RETURNING {COLUMNS}"
            ),
            vec![owner.into(), micros(LEASE).into()],
        )
        .await?;
    with_checkpoints(db, records.first()).await
}

/// Keeps a run for another lease; its rate, or none when it is not ours to work on any more.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn renew(db: &Db, hold: &Hold) -> Result<Option<Option<i64>>, Fault> {
    let records = db
        .control(
            "UPDATE cutover.backfill_run SET lease_until_us = cutover.now_us() + $1 \
             WHERE run_id = $2 AND owner = $3 AND state = 'running' RETURNING rate",
            vec![
                micros(LEASE).into(),
                hold.run_id.as_str().into(),
                hold.owner.as_str().into(),
            ],
        )
        .await?;
    records.first().map(|record| record.int(0)).transpose()
}

/// Lets another replica go on at once.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn let_go(db: &Db, hold: &Hold) -> Result<(), Fault> {
    db.control(
        "UPDATE cutover.backfill_run SET owner = NULL, lease_until_us = 0 WHERE run_id = $1 AND owner = $2",
        vec![hold.run_id.as_str().into(), hold.owner.as_str().into()],
    )
    .await
    .map(drop)
}

/// Writes down how it ended, if it is still ours.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn end(
    db: &Db,
    hold: &Hold,
    state: RunState,
    report: (i64, bool),
    error: Option<String>,
) -> Result<(), Fault> {
    db.control(
        "UPDATE cutover.backfill_run SET state = $1, ended_us = cutover.now_us(), quarantined = $2, \
         storage_walked = $3, error = $4, owner = NULL, lease_until_us = 0 \
         WHERE run_id = $5 AND owner = $6 AND state = 'running'",
        vec![
            state.as_str().into(),
            report.0.into(),
            report.1.into(),
            error.into(),
            hold.run_id.as_str().into(),
            hold.owner.as_str().into(),
        ],
    )
    .await
    .map(drop)
}

/// Pauses, resumes or cancels a run, or changes its rate. `false`: there is no such run, or it has ended.
///
/// # Errors
/// See [`Fault`].
pub async fn steer(
    db: &Db,
    id: &str,
    to: Option<RunState>,
    rate: Option<i64>,
) -> Result<bool, Fault> {
    let records = db
        .control(
            &format!(
                "UPDATE cutover.backfill_run AS r SET state = coalesce($1, state), rate = coalesce($2, rate), \
                 ended_us = CASE WHEN $1 = 'cancelled' THEN cutover.now_us() ELSE NULL END, {MEASURE_ANEW} \
                 WHERE run_id = $3 AND state IN ('running', 'paused') RETURNING 1::bigint"
            ),
            vec![
                Arg::from(to.map(|state| state.as_str().to_owned())),
                rate.into(),
                id.into(),
            ],
        )
        .await?;
    Ok(!records.is_empty())
}

/// The latest run, if there was any.
///
/// # Errors
/// See [`Fault`].
pub async fn latest(db: &Db) -> Result<Option<Run>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM cutover.backfill_run WHERE id = 1");
    let records = db.control(&sql, vec![]).await?;
    with_checkpoints(db, records.first()).await
}

async fn with_checkpoints(db: &Db, record: Option<&Record>) -> Result<Option<Run>, Fault> {
    let Some(mut run) = record.map(read).transpose()? else {
        return Ok(None);
    };
    run.checkpoints = checkpoint::of_run(db, &run.id).await?;
    Ok(Some(run))
}

fn read(record: &Record) -> Result<Run, Fault> {
    let tables = record.some_text(4)?;
    Ok(Run {
        id: record.some_text(0)?,
        state: RunState::parse(&record.some_text(1)?)?,
        actor: record.some_text(2)?,
        reason: record.some_text(3)?,
        tables: serde_json::from_str(&tables)
            .map_err(|_| Fault::Unexpected("a backfill of tables that are no list".to_owned()))?,
        rate: record.int(5)?,
        generation: record.some_int(6)?,
        started_us: record.some_int(7)?,
        ended_us: record.int(8)?,
        resumed_us: record.some_int(9)?,
        resumed_rows: record.some_int(10)?,
        owner: record.text(11)?,
        quarantined: record.some_int(12)?,
        storage_walked: record.some_bool(13)?,
        error: record.text(14)?,
        checkpoints: Vec::new(),
    })
}

/// In a task: dropping a transaction that is being begun would leave it open on its connection.
async fn run_to_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Fault>> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::Unexpected(error.to_string())),
    }
}
