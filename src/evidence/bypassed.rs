//! Writes past the proxy, table by table, as the applier finds them in the journal.

use crate::sql::{Db, Fault, Record};

/// What is known of writes past the proxy to one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bypassed {
    /// The table.
    pub table: String,
    /// Rows written so, since the installation.
    pub rows: i64,
    /// How long ago the last of them was written, in microseconds.
    pub last_age_us: i64,
}

/// Adds rows that a stranger wrote, the last of them at `last_us` by the database's clock.
///
/// # Errors
/// See [`Fault`].
pub async fn record_bypass(db: &Db, table: &str, rows: usize, last_us: i64) -> Result<(), Fault> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    db.control(
        "INSERT INTO cutover.bypassed AS b (tbl, written, last_us) VALUES ($1, $2, $3)
         ON CONFLICT (tbl) DO UPDATE SET written = b.written + excluded.written,
         last_us = CASE WHEN b.last_us > excluded.last_us THEN b.last_us ELSE excluded.last_us END",
        vec![table.into(), rows.into(), last_us.into()],
    )
    .await
    .map(drop)
}

/// Every table that was ever written past the proxy, by name.
///
/// # Errors
/// See [`Fault`].
pub async fn bypassed(db: &Db) -> Result<Vec<Bypassed>, Fault> {
    let rows = db
        .control(
            "SELECT tbl, written, cutover.now_us() - last_us FROM cutover.bypassed ORDER BY tbl",
            vec![],
        )
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &Record) -> Result<Bypassed, Fault> {
    Ok(Bypassed {
        table: row.some_text(0)?,
        rows: row.some_int(1)?,
        last_age_us: row.some_int(2)?,
    })
}
