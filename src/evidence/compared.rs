//! How much was compared, by table and operation, and under which epoch.
//!
//! Each replica adds what it counted since it last did. The epoch tells a comparison of this stay in
//! `shadow` from one of last month's; rows of epochs that nobody will ask about again are removed.

use crate::contract::Epoch;
use crate::sql::{Db, Fault, Record};

/// Comparisons of one operation on one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    /// The table.
    pub table: String,
    /// The operation, as the metrics spell it.
    pub op: String,
    /// Answers that could have been compared.
    pub asked: i64,
    /// Those that were, to a result that says something: equal, different, or different by a named rule.
    pub compared: i64,
}

/// Adds what was counted under `epoch`, and forgets what was counted before `since`.
///
/// # Errors
/// See [`Fault`]; the tallies before the failing one were added.
pub async fn record_compared(
    db: &Db,
    epoch: Epoch,
    since: Epoch,
    tally: &Tally,
) -> Result<(), Fault> {
    db.control(
        "INSERT INTO cutover.compared AS c (tbl, op, epoch, asked, compared) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tbl, op, epoch) DO UPDATE SET asked = c.asked + excluded.asked,
         compared = c.compared + excluded.compared",
        vec![
            tally.table.as_str().into(),
            tally.op.as_str().into(),
            epoch.into(),
            tally.asked.into(),
            tally.compared.into(),
        ],
    )
    .await?;
    db.control(
        "DELETE FROM cutover.compared WHERE tbl = $1 AND epoch < $2",
        vec![tally.table.as_str().into(), since.into()],
    )
    .await
    .map(drop)
}

/// What was compared under `since` and the epochs after it, by table and operation.
///
/// # Errors
/// See [`Fault`].
pub async fn compared_since(db: &Db, since: Epoch) -> Result<Vec<Tally>, Fault> {
    let rows = db
        .control(
            "SELECT tbl, op, sum(asked)::bigint, sum(compared)::bigint FROM cutover.compared
             WHERE epoch >= $1 GROUP BY tbl, op ORDER BY tbl, op",
            vec![since.into()],
        )
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &Record) -> Result<Tally, Fault> {
    Ok(Tally {
        table: row.some_text(0)?,
        op: row.some_text(1)?,
        asked: row.some_int(2)?,
        compared: row.some_int(3)?,
    })
}
