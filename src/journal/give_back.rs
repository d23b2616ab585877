//! Giving back: a live write that storage took and legacy refuses (P13).
//!
//! Legacy may refuse because another write under way holds the value: then its own step 5 will let go of it.
//! So a refused intent is marked, and waits for the others that were open beside it. When they are gone and
//! legacy still refuses, legacy is right: it is what a rollback goes back to. The intent becomes a `copy`
//! towards storage in the commit that records the refusal, and as an open entry it keeps its keys.

use super::bonds::Named;
use super::floor::FLOOR;
use super::gate::gate;
use super::intent::to_intent;
use super::stats::some_row;
use super::{OperationState, Parked, record_state};
use crate::contract::{Epoch, OpId, Token};
use crate::sql::{Db, Fault};

/// The intents of other writes that are open beside one that legacy refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beside {
    /// Those that legacy has not refused: their step 5 may let go of the value.
    pub under_way: i64,
    /// Those that legacy has refused as well.
    pub refused: i64,
}

/// An intent to be given back.
#[derive(Clone, Copy, Debug)]
pub struct GiveBack<'a> {
    /// Its owner.
    pub token: Token,
    /// All its keys.
    pub keys: &'a [Named],
    /// Its operation.
    pub op_id: OpId,
    /// The constraint that refused it.
    pub rule: &'a str,
    /// The epoch to commit under.
    pub epoch: Epoch,
}

/// Marks an intent as refused by legacy, and counts the others that were opened until `opened_until_us`
/// and are still open. Later ones cannot have let go of a value before storage took this one's.
///
/// # Errors
/// See [`Fault`].
pub async fn open_beside(db: &Db, token: Token, opened_until_us: i64) -> Result<Beside, Fault> {
    let refused = Parked::Constraint.as_str();
    let mark = format!(
        "UPDATE cutover.journal SET parked = $2 \
         WHERE seq >= {FLOOR} AND kind = 'intent' AND token = $1::uuid AND parked IS NULL"
    );
    let args = vec![token.into(), refused.into()];
    db.control(&mark, args).await?;
    let count = format!(
        "SELECT coalesce(sum(CASE WHEN parked IS NULL THEN 1 ELSE 0 END), 0)::bigint, \
         coalesce(sum(CASE WHEN parked = $2 THEN 1 ELSE 0 END), 0)::bigint \
         FROM cutover.journal WHERE seq >= {FLOOR} AND kind = 'intent' AND token <> $1::uuid AND created_us <= $3 \
         AND generation = (SELECT generation FROM cutover.state)"
    );
    let args = vec![token.into(), refused.into(), opened_until_us.into()];
    let rows = db.control(&count, args).await?;
    let row = some_row(&rows)?;
    Ok(Beside {
        under_way: row.some_int(0)?,
        refused: row.some_int(1)?,
    })
}

/// Turns the intent into a `copy` towards storage and records the refusal, in one commit. `false`: it is
/// not ours any more, and its record tells what became of it.
///
/// # Errors
/// See [`Fault`]; `StaleEpoch` when the epoch moved. Must not be cancelled half-way.
pub async fn give_back(db: &Db, refused: &GiveBack<'_>) -> Result<bool, Fault> {
    let mut tx = db.begin().await?;
    gate(&mut tx, refused.epoch).await?;
    let turn = "UPDATE cutover.journal SET kind = 'copy', direction = 'storage', token = NULL, attempt_id = NULL, \
         deadline_us = 0, attempts = 0, not_before_us = 0, parked = NULL";
    if !to_intent(&mut tx, refused.token, refused.keys, turn, &[]).await? {
        return Ok(false);
    }
    let rule = Some(refused.rule);
    record_state(&mut tx, refused.op_id, OperationState::Refused, rule).await?;
    tx.commit().await?;
    Ok(true)
}

/// Whether storage has legacy's rows again: no entry of the operation is open.
///
/// # Errors
/// See [`Fault`].
pub async fn is_given_back(db: &Db, op_id: OpId) -> Result<bool, Fault> {
    let open = format!(
        "SELECT 1 FROM cutover.journal WHERE seq >= {FLOOR} AND op_id = $1::uuid \
         AND generation = (SELECT generation FROM cutover.state) LIMIT 1"
    );
    Ok(db.control(&open, vec![op_id.into()]).await?.is_empty())
}
