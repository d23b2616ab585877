//! The backfill as a job: begun and steered in its record, worked on by whichever replica has its lease.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::speed::Speed;
use super::{JobError, Jobs, Steer};
use crate::backfill::{self, Asked, Begun, Checkpoint, Run, RunState, TableState};
use crate::clock::{rfc3339, unix_us};
use crate::schema::Table;
use crate::sql::Fault;
use crate::stage::Backend;
use crate::walk::WalkError;

/// How often a replica looks for a backfill that nobody works on.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Jobs {
    /// Works on a backfill whenever there is one that nobody works on, until `drain`.
    pub async fn keep_filling(self: Arc<Self>) {
        let owner = self.parts.control.options().replica_id.clone();
        while !self.stop.is_cancelled() {
            match backfill::claim(self.parts.legacy.db(), &owner).await {
                Ok(Some(run)) => {
                    tracing::info!(job = run.id, "working on a backfill");
                    self.work(run, &owner).await;
                }
                Ok(None) => {}
                Err(fault) => tracing::warn!(%fault, "could not look for a backfill"),
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.asked.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// In a task that is waited for, because it lets the run go in the end.
    async fn work(self: &Arc<Self>, run: Run, owner: &str) {
        let (jobs, owner) = (Arc::clone(self), owner.to_owned());
        let work = async move {
            let throttle = || jobs.settings.load().backfill;
            let stop = jobs.stop.clone();
            backfill::work(&jobs.parts, &run, &owner, &throttle, stop).await;
        };
        if self.tasks.spawn(work).await.is_err() {
            tracing::error!("the work on a backfill died");
        }
    }

    /// Begins a backfill, or lets the one that was paused go on.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn start_backfill(&self, asked: Asked) -> Result<Uuid, JobError> {
        if self.tasks.is_closed() {
            return Err(JobError::ShuttingDown);
        }
        let snapshot = self.parts.control.snapshot();
        if snapshot.stage.owes() != Some(Backend::Storage) {
            return Err(WalkError::Stage(snapshot.stage).into());
        }
        let tables = self.tables(&asked.tables)?;
        let db = self.parts.legacy.db();
        let begun = backfill::begin(db, asked, &tables, snapshot.generation).await?;
        self.asked.notify_one();
        match begun {
            Begun::Run(id) => Ok(uuid_of(&id)),
            Begun::Other(id, state) => Err(JobError::OtherTables {
                id: uuid_of(&id),
                state,
            }),
        }
    }

    /// What a backfill of these tables would do: how many rows each has, as far as that can be told in time,
    /// and how long that takes at this rate.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn plan_backfill(&self, asked: &Asked) -> Result<Value, JobError> {
        let db = self.parts.legacy.db();
        let pending = backfill::pending(
            db,
            &self.table_names(),
            self.parts.control.snapshot().generation,
        )
        .await?;
        let (mut lines, mut rows_in_all) = (Vec::new(), 0);
        for table in self.tables(&asked.tables)? {
            let counted = self.parts.legacy.rows_counted(&table).await.ok().flatten();
            let rows = match counted {
                Some(rows) => Some(rows),
                None => self.parts.legacy.rows_estimated(&table).await?,
            };
            rows_in_all += rows.unwrap_or(0);
            lines.push(json!({
                "table": table.name,
                "rows": rows,
                "counted": counted.is_some(),
                "pending": pending.contains(&table.name),
            }));
        }
        let rate = asked
            .rate
            .map_or(i64::from(self.settings.load().backfill.rate), |rate| rate);
        let seconds = u64::try_from(rate).ok().filter(|rate| *rate > 0);
        let seconds = seconds.map(|rate| rows_in_all.div_ceil(rate));
        Ok(json!({
            "dry_run": true, "tables": lines, "rows": rows_in_all, "rate": rate, "seconds": seconds,
        }))
    }

    /// The configured tables that were not filled yet.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn pending_backfill(&self) -> Result<Vec<String>, Fault> {
        let generation = self.parts.control.snapshot().generation;
        backfill::pending(self.parts.legacy.db(), &self.table_names(), generation).await
    }

    pub(super) async fn steer_backfill(
        &self,
        actor: &str,
        reason: &str,
        id: Uuid,
        steer: Steer,
    ) -> Result<bool, Fault> {
        let (db, rate) = (self.parts.legacy.db(), steer.rate.map(i64::from));
        if !backfill::steer(db, &id.to_string(), steer.to, rate).await? {
            return Ok(false);
        }
        self.asked.notify_one();
        let to = steer.to.map(RunState::as_str);
        let details = json!({ "job": id, "to": to, "rate": steer.rate });
        let record = self
            .parts
            .control
            .record_action(actor, "backfill", reason, details);
        record.await.map(|_| true)
    }

    /// The latest backfill, as it is shown.
    pub(super) async fn backfill(&self) -> Result<Option<Value>, Fault> {
        let run = backfill::latest(self.parts.legacy.db()).await?;
        Ok(run.map(|run| view(&run, unix_us())))
    }

    /// These tables, or all of them, parents first.
    pub(super) fn tables(&self, names: &[String]) -> Result<Vec<Arc<Table>>, WalkError> {
        let schema = self.parts.legacy.schema();
        if let Some(unknown) = names.iter().find(|name| schema.table(name).is_none()) {
            return Err(WalkError::UnknownTable(unknown.clone()));
        }
        let wanted = |table: &&Arc<Table>| names.is_empty() || names.contains(&table.name);
        Ok(schema.tables.values().filter(wanted).cloned().collect())
    }

    fn table_names(&self) -> Vec<String> {
        let schema = self.parts.legacy.schema();
        schema.tables.keys().cloned().collect()
    }
}

/// Ids are made here: they always parse.
fn uuid_of(id: &str) -> Uuid {
    id.parse().unwrap_or_default()
}

fn view(run: &Run, now_us: i64) -> Value {
    let whole = |rows: i64| u64::try_from(rows).unwrap_or(0);
    let rows: i64 = run.checkpoints.iter().map(|line| line.rows).sum();
    let known = |line: &Checkpoint| line.total.filter(|total| *total >= line.rows);
    let totals = run.checkpoints.iter().map(|line| known(line).map(whole));
    let running = run.state == RunState::Running && run.owner.is_some();
    let speed = Speed {
        rows: whole(rows),
        total: totals.sum(),
        recent: whole(rows - run.resumed_rows),
        seconds: (now_us - run.resumed_us) as f64 / 1e6,
    };
    let result = (run.state == RunState::Done).then(|| {
        let lines = run.checkpoints.iter();
        let tables: Vec<Value> = lines
            .map(|line| json!({ "table": line.table, "rows": line.rows, "extra": line.extra }))
            .collect();
        json!({ "tables": tables, "quarantined": run.quarantined, "storage_walked": run.storage_walked })
    });
    json!({
        "id": run.id,
        "kind": "backfill",
        "state": run.state.as_str(),
        "actor": run.actor,
        "reason": run.reason,
        "started_at": rfc3339(run.started_us),
        "ended_at": run.ended_us.map(rfc3339),
        "replica": run.owner,
        "rate": run.rate,
        "rows": speed.rows,
        "total": speed.total,
        "rows_per_second": running.then(|| speed.per_second()),
        "eta_seconds": speed.eta_seconds().filter(|_| running),
        "progress": run.checkpoints.iter().map(|line| json!({
            "table": line.table,
            "state": shown(line.state, run.state),
            "rows": line.rows,
            "total": line.total,
        })).collect::<Vec<_>>(),
        "result": result,
        "error": run.error,
    })
}

fn shown(table: TableState, run: RunState) -> &'static str {
    match table {
        TableState::Waiting => "waiting",
        TableState::Legacy | TableState::Storage if run == RunState::Running => "running",
        TableState::Legacy | TableState::Storage => "begun",
        TableState::Done => "done",
    }
}
