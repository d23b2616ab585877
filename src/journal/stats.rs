//! Looking at the journal, and the rare acts on it: appending copies, retrying, pruning.

use std::collections::HashSet;
use std::slice;
use std::time::Duration;

use super::claim::entries_of_keys;
use super::entry::{Direction, Parked};
use super::floor::FLOOR;
use super::intent::accept_intent;
use super::operation;
use super::stripes::json_list;
use crate::contract::Key;
use crate::sql::{Db, Fault, Record, Tx};

/// What is owed, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owed {
    /// Entries towards storage.
    pub to_storage: i64,
    /// Entries towards legacy, intents included.
    pub to_legacy: i64,
    /// Age of the oldest, microseconds.
    pub oldest_us: i64,
    /// Entries whose last request was never answered.
    pub in_doubt: i64,
    /// Entries that only an operator will move.
    pub quarantined: i64,
    /// Appended by writers that bypassed the proxy.
    pub bypassed: i64,
    /// Room they take, estimated: keys and names, and a fixed part for each.
    pub bytes: i64,
}

/// What is owed of the entries up to some place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwedUntil {
    /// Open entries.
    pub open: i64,
    /// Those among them that only an operator, or a later write of the row, will move.
    pub quarantined: i64,
}

/// One open entry, for people.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OpenEntry {
    /// Its place.
    pub seq: i64,
    /// `copy` or `intent`.
    pub kind: String,
    /// Who is owed: `storage` or `legacy`.
    pub direction: String,
    /// The table.
    pub table: String,
    /// The key.
    pub key: String,
    /// The write that caused it.
    pub op_id: Option<String>,
    /// Age in seconds.
    pub age_seconds: i64,
    /// How often it was tried.
    pub attempts: i64,
    /// `constraint` or `quarantined`, when it waits for more than time.
    pub parked: Option<String>,
}

/// The entries that are open now.
fn open() -> String {
    format!(
        "(SELECT * FROM cutover.journal WHERE seq >= {FLOOR} \
         AND generation = (SELECT generation FROM cutover.state))"
    )
}

/// That the open entry `j` stands behind one of its key for which `is_stuck` holds.
///
/// Asked of all keys at once first, which is a look into a hash, and in order for those alone that are in it. As a join
/// it would be for the planner to choose, by what it knows of a table that was empty when it last looked: then it
/// holds each entry against every stuck one.
fn behind(is_stuck: &str) -> String {
    format!(
        "((j.tbl, j.key) IN (SELECT q.tbl, q.key FROM {open} AS q WHERE q.{is_stuck}) \
         AND EXISTS (SELECT 1 FROM cutover.journal q WHERE q.tbl = j.tbl AND q.key = j.key \
         AND q.generation = j.generation AND q.seq + 0 < j.seq AND q.seq + 0 >= {FLOOR} AND q.{is_stuck}))",
        open = open()
    )
}

/// What is owed now.
///
/// # Errors
/// See [`Fault`].
pub async fn owed(db: &Db) -> Result<Owed, Fault> {
    let sql = format!(
        "SELECT coalesce(sum(CASE WHEN direction = 'storage' THEN 1 ELSE 0 END), 0)::bigint, \
         coalesce(sum(CASE WHEN direction = 'legacy' THEN 1 ELSE 0 END), 0)::bigint, \
         coalesce(cutover.now_us() - min(created_us), 0)::bigint, \
         coalesce(sum(CASE WHEN token IS NOT NULL AND deadline_us < cutover.now_us() THEN 1 ELSE 0 END), 0)::bigint, \
         coalesce(sum(CASE WHEN parked IN ('quarantined', 'mismatched') THEN 1 ELSE 0 END), 0)::bigint, \
         coalesce(sum(CASE WHEN bypass THEN 1 ELSE 0 END), 0)::bigint, \
         coalesce(sum(length(key) + length(tbl) + 160), 0)::bigint FROM {} AS j",
        open()
    );
    let rows = db.control(&sql, vec![]).await?;
    let row = some_row(&rows)?;
    Ok(Owed {
        to_storage: row.some_int(0)?,
        to_legacy: row.some_int(1)?,
        oldest_us: row.some_int(2)?,
        in_doubt: row.some_int(3)?,
        quarantined: row.some_int(4)?,
        bypassed: row.some_int(5)?,
        bytes: row.some_int(6)?,
    })
}

/// What can be paid now, in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Payable {
    /// Entries that wait for nothing but their turn. One behind a parked entry of its key waits for that one.
    pub open: i64,
    /// Entries that wait for another row.
    pub parked: i64,
    /// The age of the oldest of `open`.
    pub oldest: Duration,
}

/// What can be paid now: how far the applier is behind.
///
/// # Errors
/// See [`Fault`].
pub async fn payable(db: &Db, direction: Direction) -> Result<Payable, Fault> {
    let sql = format!(
        "SELECT coalesce(sum(CASE WHEN j.waits THEN 0 ELSE 1 END), 0)::bigint, \
         coalesce(sum(CASE WHEN j.parked = 'constraint' THEN 1 ELSE 0 END), 0)::bigint, \
         coalesce(cutover.now_us() - min(CASE WHEN NOT j.waits THEN j.created_us END), 0)::bigint \
         FROM (SELECT j.parked, j.created_us, (j.parked IS NOT NULL OR {behind}) AS waits \
         FROM {open} AS j WHERE j.direction = $1) AS j",
        behind = behind("parked IS NOT NULL"),
        open = open(),
    );
    let rows = db.control(&sql, vec![direction.as_str().into()]).await?;
    let row = some_row(&rows)?;
    Ok(Payable {
        open: row.some_int(0)?,
        parked: row.some_int(1)?,
        oldest: Duration::from_micros(u64::try_from(row.some_int(2)?).unwrap_or(0)),
    })
}

/// Whether anything is owed of a row, or of any row of a table, in either direction.
///
/// # Errors
/// See [`Fault`].
pub async fn is_owed(db: &Db, table: &str, key: Option<&Key>) -> Result<bool, Fault> {
    if let Some(key) = key {
        let owed = owed_among(db, table, slice::from_ref(key)).await?;
        return Ok(!owed.is_empty());
    }
    let sql = format!("SELECT 1 FROM {} AS j WHERE j.tbl = $1 LIMIT 1", open());
    let rows = db.control(&sql, vec![table.into()]).await?;
    Ok(!rows.is_empty())
}

/// Which of these keys of a table anything is owed of.
///
/// # Errors
/// See [`Fault`].
pub async fn owed_among(db: &Db, table: &str, keys: &[Key]) -> Result<HashSet<Key>, Fault> {
    among(db, table, keys, "true").await
}

/// Of which of these keys of a table a removal may be on its way to storage.
///
/// # Errors
/// See [`Fault`].
pub async fn removing_among(db: &Db, table: &str, keys: &[Key]) -> Result<HashSet<Key>, Fault> {
    among(db, table, keys, "j.removing").await
}

async fn among(db: &Db, table: &str, keys: &[Key], is_meant: &str) -> Result<HashSet<Key>, Fault> {
    let texts: Vec<&str> = keys.iter().map(|key| key.0.as_str()).collect();
    let sql = format!(
        "SELECT DISTINCT j.key FROM {} WHERE j.generation = (SELECT generation FROM cutover.state) \
         AND {is_meant}",
        entries_of_keys(db.dialect())
    );
    let args = vec![json_list(&texts), table.into()];
    let rows = db.control(&sql, args).await?;
    rows.iter().map(|row| Ok(Key(row.some_text(0)?))).collect()
}

/// What `OpenEntry::read` reads, in its order.
fn entry_columns() -> String {
    format!(
        "SELECT seq, kind, direction, tbl, key, op_id::text, \
         (cutover.now_us() - created_us) / 1000000, attempts, parked FROM {} AS j",
        open()
    )
}

/// The last open entry's place; 0 when none is open.
///
/// # Errors
/// See [`Fault`].
pub async fn last_seq(db: &Db) -> Result<i64, Fault> {
    let sql =
        format!("SELECT coalesce(max(seq), 0)::bigint FROM cutover.journal WHERE seq >= {FLOOR}");
    let rows = db.control(&sql, vec![]).await?;
    some_row(&rows)?.some_int(0)
}

/// What is owed in one direction of the entries up to `seq`.
///
/// # Errors
/// See [`Fault`].
pub async fn owed_until(db: &Db, direction: Direction, seq: i64) -> Result<OwedUntil, Fault> {
    let sql = format!(
        "SELECT count(*)::bigint, coalesce(sum(CASE WHEN j.parked = $3 OR {behind} THEN 1 ELSE 0 END), 0)::bigint \
         FROM {open} AS j WHERE j.seq <= $1 AND j.direction = $2",
        behind = behind("parked = $3"),
        open = open(),
    );
    let args = vec![
        seq.into(),
        direction.as_str().into(),
        Parked::Quarantined.as_str().into(),
    ];
    let rows = db.control(&sql, args).await?;
    let row = some_row(&rows)?;
    Ok(OwedUntil {
        open: row.some_int(0)?,
        quarantined: row.some_int(1)?,
    })
}

/// The row that an aggregate always has.
pub(super) fn some_row(rows: &[Record]) -> Result<&Record, Fault> {
    rows.first()
        .ok_or_else(|| Fault::Unexpected("an aggregate without a row".to_owned()))
}

/// Open entries, oldest first, at most `limit`.
///
/// # Errors
/// See [`Fault`].
pub async fn entries(db: &Db, limit: i64) -> Result<Vec<OpenEntry>, Fault> {
    let sql = format!("{} ORDER BY seq LIMIT $1", entry_columns());
    let rows = db.control(&sql, vec![limit.into()]).await?;
    rows.iter().map(OpenEntry::read).collect()
}

/// One open entry, if it still is one.
///
/// # Errors
/// See [`Fault`].
pub async fn entry(db: &Db, seq: i64) -> Result<Option<OpenEntry>, Fault> {
    let sql = format!("{} WHERE seq = $1", entry_columns());
    let rows = db.control(&sql, vec![seq.into()]).await?;
    rows.first().map(OpenEntry::read).transpose()
}

impl OpenEntry {
    fn read(row: &Record) -> Result<Self, Fault> {
        Ok(Self {
            seq: row.some_int(0)?,
            kind: row.some_text(1)?,
            direction: row.some_text(2)?,
            table: row.some_text(3)?,
            key: row.some_text(4)?,
            op_id: row.text(5)?,
            age_seconds: row.some_int(6)?,
            attempts: row.some_int(7)?,
            parked: row.text(8)?,
        })
    }
}

/// Lets a parked entry be tried again, in the transaction of the action's audit record: with a mismatched
/// intent, storage's row is believed from now on. `false`: there is no such parked entry.
///
/// # Errors
/// See [`Fault`].
pub async fn retry(tx: &mut Tx, seq: i64) -> Result<bool, Fault> {
    let rows = tx
        .control(
            "UPDATE cutover.journal SET parked = NULL, not_before_us = 0 WHERE parked IS NOT NULL \
             AND (seq = $1 OR token = (SELECT token FROM cutover.journal WHERE seq = $1 AND kind = 'intent')) \
             RETURNING seq",
            vec![seq.into()],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Lets quarantined entries be tried again whose rows were written since: the later write may have mended them. A claim
/// settles the older in favour of the newest, so that one which is refused again stands alone. Returns how many.
///
/// # Errors
/// See [`Fault`].
pub async fn retry_written_again(db: &Db) -> Result<usize, Fault> {
    let sql = format!(
        "UPDATE cutover.journal SET parked = NULL, not_before_us = 0 WHERE parked = $1 AND seq IN (\
         SELECT q.seq FROM cutover.journal q WHERE q.seq >= {FLOOR} AND q.parked = $1 \
         AND EXISTS (SELECT 1 FROM cutover.journal n \
         WHERE n.tbl = q.tbl AND n.key = q.key AND n.generation = q.generation AND n.seq + 0 > q.seq)) \
         RETURNING seq"
    );
    let args = vec![Parked::Quarantined.as_str().into()];
    let rows = db.control(&sql, args).await?;
    Ok(rows.len())
}

/// Gives up a quarantined entry, or all of a mismatched intent: the difference stays, by an operator's
/// decision. `false`: there is none.
///
/// # Errors
/// See [`Fault`].
pub async fn accept(tx: &mut Tx, seq: i64) -> Result<bool, Fault> {
    let rows = tx
        .control(
            "DELETE FROM cutover.journal WHERE seq = $1 AND parked = $2 RETURNING seq",
            vec![seq.into(), Parked::Quarantined.as_str().into()],
        )
        .await?;
    Ok(!rows.is_empty() || accept_intent(tx, seq).await?)
}

/// Removes entries of older generations (void after a fall to `off`), at most `batch_max`. Returns how many.
///
/// # Errors
/// See [`Fault`].
pub async fn prune_void(db: &Db, batch_max: i64) -> Result<usize, Fault> {
    let sql = format!(
        "DELETE FROM cutover.journal WHERE seq IN (SELECT seq FROM cutover.journal WHERE seq >= {FLOOR} \
         AND generation < (SELECT generation FROM cutover.state) LIMIT $1) RETURNING seq"
    );
    let rows = db.control(&sql, vec![batch_max.into()]).await?;
    Ok(rows.len())
}

/// Forgets operation records settled before `before_us`, at most `batch_max`. Returns how many.
///
/// # Errors
/// See [`Fault`].
pub async fn prune_operations(db: &Db, before_us: i64, batch_max: i64) -> Result<usize, Fault> {
    operation::prune(db, before_us, batch_max).await
}
