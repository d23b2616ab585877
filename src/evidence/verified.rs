//! The last full verify of each backend, whoever made it and on whichever replica.

use serde_json::Value;

use crate::contract::Epoch;
use crate::sql::{Db, Fault, Record, Tx};
use crate::stage::Backend;

/// What the last full verify of a backend found.
#[derive(Clone, PartialEq, Debug)]
pub struct Verified {
    /// The backend that was held against the other.
    pub backend: Backend,
    /// When it ended, in Unix microseconds by the database's clock.
    pub at_us: i64,
    /// How long ago that was, in microseconds.
    pub age_us: i64,
    /// It read every row of both sides and confirmed no difference.
    pub clean: bool,
    /// How long ago the last clean one ended; none when there never was one.
    pub clean_age_us: Option<i64>,
    /// The epoch when it ended.
    pub epoch: Epoch,
    /// Who asked for it.
    pub actor: String,
}

/// Puts the verdict of a full verify in the place of the one before. `details` holds no row values.
///
/// # Errors
/// See [`Fault`].
pub async fn record_verified(
    db: &Db,
    backend: Backend,
    clean: bool,
    epoch: Epoch,
    actor: &str,
    details: &Value,
) -> Result<(), Fault> {
    db.control(
        "INSERT INTO cutover.verified AS v (backend, at_us, clean, clean_us, epoch, actor, details)
         VALUES ($1, cutover.now_us(), $2, CASE WHEN $2 THEN cutover.now_us() END, $3, $4, $5)
         ON CONFLICT (backend) DO UPDATE SET at_us = excluded.at_us, clean = excluded.clean,
         clean_us = coalesce(excluded.clean_us, v.clean_us), epoch = excluded.epoch,
         actor = excluded.actor, details = excluded.details",
        vec![
            backend.as_str().into(),
            clean.into(),
            epoch.into(),
            actor.into(),
            details.to_string().into(),
        ],
    )
    .await
    .map(drop)
}

/// Forgets every verdict: the rows they were of may be gone.
///
/// # Errors
/// See [`Fault`]; the transaction can then only be dropped.
pub async fn forget_verified(tx: &mut Tx) -> Result<(), Fault> {
    tx.control("DELETE FROM cutover.verified", vec![])
        .await
        .map(drop)
}

/// What is on record about a backend, if it was ever verified as a whole.
///
/// # Errors
/// See [`Fault`].
pub async fn verified(db: &Db, backend: Backend) -> Result<Option<Verified>, Fault> {
    let rows = db
        .control(
            "SELECT at_us, cutover.now_us() - at_us, clean, cutover.now_us() - clean_us, epoch, actor
             FROM cutover.verified WHERE backend = $1",
            vec![backend.as_str().into()],
        )
        .await?;
    rows.first().map(|row| read(backend, row)).transpose()
}

fn read(backend: Backend, row: &Record) -> Result<Verified, Fault> {
    Ok(Verified {
        backend,
        at_us: row.some_int(0)?,
        age_us: row.some_int(1)?,
        clean: row.some_bool(2)?,
        clean_age_us: row.int(3)?,
        epoch: Epoch(row.some_int(4)?),
        actor: row.some_text(5)?,
    })
}
