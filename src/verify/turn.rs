//! Whose turn it is: a verify that nobody asked for runs on one replica at a time, and on none while an operator's
//! runs.
//!
//! The turn is a lease in the control schema. An operator's verify takes it whoever has it, because a person is
//! waiting; one that began by itself then ends. Two at once are harmless, they only read the same rows twice.

use std::time::Duration;

use uuid::Uuid;

use crate::clock::micros;
use crate::sql::{Db, Fault};
use crate::stage::Backend;

/// How long a turn lasts without being renewed.
pub const LEASE: Duration = Duration::from_secs(10);

/// Takes the turn for a verify of `backend`, if nobody has it and the last full one is older than `interval`.
///
/// # Errors
/// See [`Fault`].
pub async fn claim(
    db: &Db,
    owner: Uuid,
    backend: Backend,
    interval: Duration,
) -> Result<bool, Fault> {
    let rows = db
        .control(
            "UPDATE cutover.verify_turn SET owner = $1, lease_until_us = cutover.now_us() + $2 \
             WHERE (owner IS NULL OR lease_until_us < cutover.now_us()) AND not_before_us <= cutover.now_us() \
             AND NOT EXISTS (SELECT 1 FROM cutover.verified v \
                 WHERE v.backend = $3 AND v.at_us + $4 > cutover.now_us()) RETURNING 1::bigint",
            vec![
                owner.to_string().into(),
                micros(LEASE).into(),
                backend.as_str().into(),
                micros(interval).into(),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Takes the turn from whoever has it.
///
/// # Errors
/// See [`Fault`].
pub async fn take(db: &Db, owner: Uuid) -> Result<(), Fault> {
    db.control(
        "UPDATE cutover.verify_turn SET owner = $1, lease_until_us = cutover.now_us() + $2",
        vec![owner.to_string().into(), micros(LEASE).into()],
    )
    .await
    .map(drop)
}

/// Keeps the turn for another lease. `false`: somebody else has it.
///
/// # Errors
/// See [`Fault`].
pub async fn renew(db: &Db, owner: Uuid) -> Result<bool, Fault> {
    let rows = db
        .control(
            "UPDATE cutover.verify_turn SET lease_until_us = cutover.now_us() + $2 WHERE owner = $1 \
             RETURNING 1::bigint",
            vec![owner.to_string().into(), micros(LEASE).into()],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Gives the turn back, if it is still this one's; none begins by itself before `rest` has passed.
///
/// # Errors
/// See [`Fault`]; the lease then runs out.
pub async fn let_go(db: &Db, owner: Uuid, rest: Duration) -> Result<(), Fault> {
    db.control(
        "UPDATE cutover.verify_turn SET owner = NULL, lease_until_us = 0, \
         not_before_us = cutover.now_us() + $2 WHERE owner = $1",
        vec![owner.to_string().into(), micros(rest).into()],
    )
    .await
    .map(drop)
}
