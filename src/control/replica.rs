//! The heartbeat: one row per replica, and what a beat brings back.
//!
//! A beat locks the state row for share, so it commits either before a transition, which then sees the
//! lease it renewed, or after, and brings the new epoch back. Without the lock a beat could renew a lease
//! under the old epoch after the writers of the new one had looked for it. It is a single statement: a
//! replica that freezes in the middle leaves no lock behind.

use std::time::Duration;

use serde::Serialize;

use crate::clock::{micros, unix_us};
use crate::contract::Epoch;
use crate::sql::{Arg, Db, Dialect, Fault, Tx};

use super::options::ControlOptions;
use super::state::{State, lineage_sql, not_installed};
use super::task;

/// A replica whose lease ran out this long ago has died; before, it may merely be frozen.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Rows of replicas that are silent for this long are removed.
const PRUNE_AFTER: Duration = Duration::from_secs(600);

/// A replica, as the others see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Replica {
    /// Its name, of this one process.
    pub id: String,
    /// The program's version.
    pub version: String,
    /// A digest of its configuration.
    pub config_digest: String,
    /// The epoch it has acknowledged: it serves nothing under an older one.
    pub epoch: Epoch,
    /// How long ago it was heard of.
    pub silent: Duration,
    /// Whether it may still answer reads without asking.
    pub leased: bool,
    /// Whether it may hold debts to legacy that the journal does not.
    pub dirty: bool,
    /// The triggers of the guard that fired there, separated by commas.
    pub votes: String,
    /// What its callers waited lately (`evidence::CallersLately`).
    pub callers: String,
}

/// What a replica says of itself with every beat, besides its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said<'a> {
    /// It may hold debts to legacy that the journal does not.
    pub(super) dirty: bool,
    /// The triggers of the guard that fired here.
    pub(super) votes: &'a str,
    /// What its callers waited lately.
    pub(super) callers: &'a str,
}

/// How far the database's clock is ahead of ours, and how wrong that may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Skew {
    /// Database minus this machine, in microseconds.
    pub offset_us: i64,
    /// Half the round trip: the truth is within this of `offset_us`.
    pub error_us: i64,
}

/// What a beat brings back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Beat {
    pub(super) state: State,
    pub(super) lineage: String,
    pub(super) now_us: i64,
    pub(super) skew: Skew,
}

/// Acknowledges `epoch`, renews the lease and reads the state.
pub(super) async fn beat(
    db: &Db,
    options: &ControlOptions,
    epoch: Epoch,
    said: Said<'_>,
) -> Result<Beat, Fault> {
    let args: Vec<Arg> = vec![
        options.replica_id.clone().into(),
        options.version.clone().into(),
        options.config_digest.clone().into(),
        epoch.into(),
        micros(options.lease).into(),
        said.dirty.into(),
        said.votes.into(),
        said.callers.into(),
    ];
    let sent_us = unix_us();
    let rows = match db.dialect() {
        Dialect::Postgres => db.fetch(&postgres_beat(), args).await?,
        Dialect::Sqlite => sqlite_beat(db, args).await?,
    };
    let came_us = unix_us();
    let row = rows.first().ok_or_else(not_installed)?;
    let now_us = row.some_int(State::NEXT_COLUMN + 1)?;
    let half_us = (came_us - sent_us) / 2;
    Ok(Beat {
        state: State::from_record(row)?,
        lineage: row.some_text(State::NEXT_COLUMN)?,
        now_us,
        skew: Skew {
            offset_us: now_us - (sent_us + half_us),
            error_us: half_us,
        },
    })
}

const UPSERT: &str = "ON CONFLICT (id) DO UPDATE SET version = excluded.version,
    config_digest = excluded.config_digest, epoch = excluded.epoch, seen_us = excluded.seen_us,
    lease_until_us = excluded.lease_until_us, dirty = excluded.dirty, votes = excluded.votes,
    callers = excluded.callers";

fn postgres_beat() -> String {
    let columns = State::COLUMNS;
    let lineage = lineage_sql(Dialect::Postgres);
    format!(
        "WITH state AS (SELECT {columns} FROM cutover.state WHERE id = 1 FOR SHARE),
         beat AS (INSERT INTO cutover.replicas
            (id, version, config_digest, epoch, seen_us, lease_until_us, dirty, votes, callers)
            SELECT $1, $2, $3, $4, cutover.now_us(), cutover.now_us() + $5, $6, $7, $8 FROM state
            {UPSERT})
         SELECT {columns}, {lineage}, cutover.now_us() FROM state"
    )
}

/// SQLite has one writer at a time, so two statements in one transaction are as good.
async fn sqlite_beat(db: &Db, args: Vec<Arg>) -> Result<Vec<crate::sql::Record>, Fault> {
    let db = db.clone();
    task::run_to_end(async move {
        let mut tx = db.begin().await?;
        let upsert = format!(
            "INSERT INTO cutover.replicas
                (id, version, config_digest, epoch, seen_us, lease_until_us, dirty, votes, callers)
             VALUES ($1, $2, $3, $4, cutover.now_us(), cutover.now_us() + $5, $6, $7, $8) {UPSERT}"
        );
        tx.control(&upsert, args).await?;
        let columns = State::COLUMNS;
        let lineage = lineage_sql(Dialect::Sqlite);
        let select = format!(
            "SELECT {columns}, {lineage}, cutover.now_us() FROM cutover.state WHERE id = 1"
        );
        let rows = tx.control(&select, vec![]).await?;
        tx.commit().await?;
        Ok(rows)
    })
    .await
}

/// How long the others may still serve under an epoch older than `epoch`; `None` when nobody may.
pub(super) async fn laggards(
    db: &Db,
    epoch: Epoch,
    own_id: &str,
) -> Result<Option<Duration>, Fault> {
    let rows = db
        .control(
            "SELECT max(lease_until_us - cutover.now_us()) FROM cutover.replicas
             WHERE epoch < $1 AND id <> $2 AND lease_until_us > cutover.now_us()",
            vec![epoch.into(), own_id.into()],
        )
        .await?;
    let left_us = rows.first().ok_or_else(not_installed)?.int(0)?;
    Ok(left_us.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0))))
}

/// Every replica heard of lately, by name.
pub(super) async fn list(db: &Db) -> Result<Vec<Replica>, Fault> {
    let rows = db
        .control(
            "SELECT id, version, config_digest, epoch, cutover.now_us() - seen_us,
                lease_until_us > cutover.now_us(), dirty, votes, callers
             FROM cutover.replicas ORDER BY id",
            vec![],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Replica {
                id: row.some_text(0)?,
                version: row.some_text(1)?,
                config_digest: row.some_text(2)?,
                epoch: Epoch(row.some_int(3)?),
                silent: Duration::from_micros(u64::try_from(row.some_int(4)?).unwrap_or(0)),
                leased: row.some_bool(5)?,
                dirty: row.some_bool(6)?,
                votes: row.some_text(7)?,
                callers: row.some_text(8)?,
            })
        })
        .collect()
}

/// Whether a replica died with debts to legacy that nobody else knows.
pub(super) async fn died_dirty(db: &Db) -> Result<bool, Fault> {
    let rows = db
        .control(
            "SELECT id FROM cutover.replicas WHERE dirty AND lease_until_us + $1 <= cutover.now_us() LIMIT 1",
            vec![micros(DEAD_AFTER).into()],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Removes the rows of replicas that died dirty, in the transaction that marks legacy stale for them.
pub(super) async fn bury(tx: &mut Tx) -> Result<(), Fault> {
    tx.control(
        "DELETE FROM cutover.replicas WHERE dirty AND lease_until_us + $1 <= cutover.now_us()",
        vec![micros(DEAD_AFTER).into()],
    )
    .await
    .map(drop)
}

/// Removes rows of replicas that are gone, except those whose debts are not accounted for yet.
pub(super) async fn prune(db: &Db) -> Result<(), Fault> {
    db.control(
        "DELETE FROM cutover.replicas WHERE lease_until_us + $1 <= cutover.now_us()
         AND (NOT dirty OR EXISTS (SELECT 1 FROM cutover.state WHERE stage <> 'ramp_down'))",
        vec![micros(PRUNE_AFTER).into()],
    )
    .await
    .map(drop)
}

/// Removes this replica's row: nobody waits for it any more.
pub(super) async fn leave(db: &Db, id: &str) -> Result<(), Fault> {
    db.control(
        "DELETE FROM cutover.replicas WHERE id = $1",
        vec![id.into()],
    )
    .await
    .map(drop)
}
