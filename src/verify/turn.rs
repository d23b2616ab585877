//! Whose turn it is to verify, on record for every replica: one walks at a time, and all can say how far it is.
//!
//! The turn is a lease in the control schema, and its owner keeps beside it what it shows of itself. A verify that
//! somebody asked for takes the turn from one that began by itself, which then ends, because a person is waiting.
//! Should two run at once after all, that is harmless: they only read the same rows twice.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::clock::micros;
use crate::sql::{Db, Fault};
use crate::stage::Backend;

/// How long a turn lasts without being renewed.
pub const LEASE: Duration = Duration::from_secs(10);

/// The verify that has the turn, or had it last.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// What it last showed of itself.
    pub job: Value,
    /// Its lease has not run out.
    pub has_turn: bool,
}

/// What became of a turn that was to be renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewed {
    /// It lasts for another lease.
    Kept,
    /// It does, and somebody wants the verify to end.
    Cancelled,
    /// Somebody else has it.
    Lost,
}

/// Takes the turn for a verify of `backend` that begins by itself, if nobody has it and the last full one is older
/// than `interval`.
///
/// # Errors
/// See [`Fault`].
pub async fn claim(
    db: &Db,
    owner: Uuid,
    job: &Value,
    backend: Backend,
    interval: Duration,
) -> Result<bool, Fault> {
    let rows = db
        .control(
            "UPDATE cutover.verify_turn SET owner = $1, by_itself = true, job = $5, \
             lease_until_us = cutover.now_us() + $2 \
             WHERE (owner IS NULL OR lease_until_us < cutover.now_us()) AND not_before_us <= cutover.now_us() \
             AND NOT EXISTS (SELECT 1 FROM cutover.verified v \
                 WHERE v.backend = $3 AND v.at_us + $4 > cutover.now_us()) RETURNING 1::bigint",
            vec![
                owner.to_string().into(),
                micros(LEASE).into(),
                backend.as_str().into(),
                micros(interval).into(),
                job.to_string().into(),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Takes the turn for a verify that somebody asked for. `false`: another such one has it. One that is over may have
/// it still, for as long as it takes to let it go: `over` need not be waited for.
///
/// # Errors
/// See [`Fault`].
pub async fn take(db: &Db, owner: Uuid, over: Option<Uuid>, job: &Value) -> Result<bool, Fault> {
    let rows = db
        .control(
            "UPDATE cutover.verify_turn SET owner = $1, by_itself = false, job = $3, \
             lease_until_us = cutover.now_us() + $2 \
             WHERE owner IS NULL OR owner = $4 OR by_itself OR lease_until_us < cutover.now_us() RETURNING 1::bigint",
            vec![
                owner.to_string().into(),
                micros(LEASE).into(),
                job.to_string().into(),
                over.map(|over| over.to_string()).into(),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Keeps the turn for another lease.
///
/// # Errors
/// See [`Fault`].
pub async fn renew(db: &Db, owner: Uuid, job: &Value) -> Result<Renewed, Fault> {
    let rows = db
        .control(
            "UPDATE cutover.verify_turn SET lease_until_us = cutover.now_us() + $2, job = $3 WHERE owner = $1 \
             RETURNING coalesce(cancelled = owner, false)",
            vec![
                owner.to_string().into(),
                micros(LEASE).into(),
                job.to_string().into(),
            ],
        )
        .await?;
    let cancelled = rows.first().map(|row| row.some_bool(0)).transpose()?;
    Ok(match cancelled {
        Some(false) => Renewed::Kept,
        Some(true) => Renewed::Cancelled,
        None => Renewed::Lost,
    })
}

/// Asks the verify that has the turn to end, on whichever replica it walks: it learns of that when it renews.
/// `false`: this one does not have the turn.
///
/// # Errors
/// See [`Fault`].
pub async fn cancel(db: &Db, owner: Uuid) -> Result<bool, Fault> {
    let rows = db
        .control(
            "UPDATE cutover.verify_turn SET cancelled = owner \
             WHERE owner = $1 AND lease_until_us >= cutover.now_us() RETURNING 1::bigint",
            vec![owner.to_string().into()],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Gives the turn back, if it is still this one's; none begins by itself before `rest` has passed.
///
/// # Errors
/// See [`Fault`]; the lease then runs out.
pub async fn let_go(db: &Db, owner: Uuid, job: &Value, rest: Duration) -> Result<(), Fault> {
    db.control(
        "UPDATE cutover.verify_turn SET owner = NULL, lease_until_us = 0, job = $3, \
         not_before_us = cutover.now_us() + $2 WHERE owner = $1",
        vec![
            owner.to_string().into(),
            micros(rest).into(),
            job.to_string().into(),
        ],
    )
    .await
    .map(drop)
}

/// The verify that has the turn, or had it last; none before the first.
///
/// # Errors
/// See [`Fault`].
pub async fn told(db: &Db) -> Result<Option<Told>, Fault> {
    let rows = db
        .control(
            "SELECT job, owner IS NOT NULL AND lease_until_us >= cutover.now_us() FROM cutover.verify_turn",
            vec![],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let has_turn = row.some_bool(1)?;
    let job = row.text(0)?.map(|job| serde_json::from_str(&job));
    let job = job.transpose().map_err(|error| {
        Fault::Unexpected(format!(
            "what a verify showed of itself is no JSON: {error}"
        ))
    })?;
    Ok(job.map(|job| Told { job, has_turn }))
}
