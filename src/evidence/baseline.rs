//! How long callers waited while legacy was alone: what every later stage is measured against.
//!
//! It is recorded over and over in `off`, so that the last one is of the traffic just before the migration
//! began, and stays as it is once `off` is left.

use crate::sql::{Db, Fault, Record};

/// What callers waited for one kind of call in `off`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Baseline {
    /// `read` or `write`.
    pub kind: String,
    /// How many calls it rests on.
    pub samples: i64,
    /// Median, microseconds.
    pub p50_us: i64,
    /// 95th percentile, microseconds.
    pub p95_us: i64,
    /// When it was recorded, in Unix microseconds by the database's clock; given by `record_baseline`.
    pub at_us: i64,
}

/// Records it in the place of the one before, unless `off` was left meanwhile.
///
/// # Errors
/// See [`Fault`].
pub async fn record_baseline(db: &Db, baseline: &Baseline) -> Result<(), Fault> {
    db.control(
        "INSERT INTO cutover.baseline (kind, samples, p50_us, p95_us, at_us)
         SELECT $1, $2, $3, $4, cutover.now_us() FROM cutover.state WHERE stage = 'off'
         ON CONFLICT (kind) DO UPDATE SET samples = excluded.samples, p50_us = excluded.p50_us,
         p95_us = excluded.p95_us, at_us = excluded.at_us",
        vec![
            baseline.kind.as_str().into(),
            baseline.samples.into(),
            baseline.p50_us.into(),
            baseline.p95_us.into(),
        ],
    )
    .await
    .map(drop)
}

/// What is on record, by kind of call.
///
/// # Errors
/// See [`Fault`].
pub async fn baselines(db: &Db) -> Result<Vec<Baseline>, Fault> {
    let sql = "SELECT kind, samples, p50_us, p95_us, at_us FROM cutover.baseline ORDER BY kind";
    let rows = db.control(sql, vec![]).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Record) -> Result<Baseline, Fault> {
    Ok(Baseline {
        kind: row.some_text(0)?,
        samples: row.some_int(1)?,
        p50_us: row.some_int(2)?,
        p95_us: row.some_int(3)?,
        at_us: row.some_int(4)?,
    })
}
