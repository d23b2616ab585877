//! Taking intents over: once its request can no longer run, anybody may find out what became of an intent.

use std::time::Duration;

use super::Parked;
use super::claim::{epoch_and_generation, micros, uuid_at};
use super::floor::FLOOR;
use super::low_water::LowWater;
use crate::contract::{AttemptId, Epoch, Key, OpId, Token};
use crate::sql::{Db, Fault};

/// An intent whose deadline has passed, taken over to be resolved; all its keys at once (P12).
#[derive(Clone, Debug)]
pub struct ClaimedIntent {
    /// Proves ownership from now on.
    pub token: Token,
    /// The write.
    pub op_id: OpId,
    /// The attempt that is in doubt.
    pub attempt: AttemptId,
    /// Its keys.
    pub keys: Vec<(String, Key)>,
    /// The epoch the take-over was made under.
    pub epoch: Epoch,
    /// Until when its last request could run (unix microseconds).
    pub ran_until_us: i64,
}

/// Takes over one intent whose request can no longer run (deadline plus skew has passed), unless storage
/// is not believed about it.
///
/// # Errors
/// See [`Fault`].
pub async fn claim_intents(
    db: &Db,
    lease: Duration,
    clock_skew_max: Duration,
    low_water: &LowWater,
) -> Result<Option<ClaimedIntent>, Fault> {
    let mut tx = db.begin().await?;
    let (epoch, _) = epoch_and_generation(&mut tx).await?;
    let Some(from) = low_water.first_open(&mut tx, epoch).await? else {
        return Ok(None);
    };
    let found = tx
        .control(
            "SELECT op_id::text, attempt_id::text, token::text, deadline_us FROM cutover.journal \
             WHERE seq >= $3 AND kind = 'intent' AND deadline_us + $1 < cutover.now_us() \
             AND coalesce(parked, '') <> $2 \
             ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED",
            vec![
                micros(clock_skew_max).into(),
                Parked::Mismatched.as_str().into(),
                from.into(),
            ],
        )
        .await?;
    let Some(first) = found.first() else {
        return Ok(None);
    };
    let (op_id, attempt, old) = (uuid_at(first, 0)?, uuid_at(first, 1)?, first.some_text(2)?);
    let token = Token::fresh();
    let take = format!(
        "UPDATE cutover.journal SET token = $1::uuid, deadline_us = cutover.now_us() + $2, attempts = attempts + 1 \
         WHERE seq >= {FLOOR} AND kind = 'intent' AND token = $3::uuid RETURNING tbl, key"
    );
    let args = vec![token.into(), micros(lease).into(), old.into()];
    let rows = tx.control(&take, args).await?;
    let keys = rows
        .iter()
        .map(|row| Ok((row.some_text(0)?, Key(row.some_text(1)?))))
        .collect::<Result<_, Fault>>()?;
    tx.commit().await?;
    Ok(Some(ClaimedIntent {
        token,
        op_id: OpId(op_id),
        attempt: AttemptId(attempt),
        keys,
        epoch,
        ran_until_us: first.some_int(3)?,
    }))
}
