//! The gate: what keeps a transaction and a change of epoch apart (invariant I5).
//!
//! Writers hold the lock shared until they end, a transition takes it exclusively: so a transition waits
//! for open writers, and a writer that comes later reads the new epoch and is refused.

use crate::contract::Epoch;
use crate::sql::{Dialect, Fault, Refusal, Tx};

/// The advisory lock of the epoch (PostgreSQL). On SQLite, `BEGIN IMMEDIATE` is the lock.
pub const GATE_LOCK: i64 = 0x6375_746f_7665_7201;

/// The condition on rows of `pg_locks` that are of the gate's lock: a 64-bit key is shown in two halves.
#[must_use]
pub fn gate_in_pg_locks() -> String {
    format!(
        "locktype = 'advisory' AND classid::bigint = {high} AND objid::bigint = {low} AND objsubid = 1",
        high = GATE_LOCK >> 32,
        low = GATE_LOCK & 0xffff_ffff,
    )
}

/// Commits if the epoch still is the epoch, and holds it until that is done. The gate is asked last, after every
/// lock on rows, and in one message with the commit: transitions wait for whoever holds it.
///
/// # Errors
/// `StaleEpoch` when it is not the epoch any more: nothing was committed. Else as [`Tx::commit`].
pub async fn commit_under(mut tx: Tx, epoch: Epoch) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Postgres => {
            tx.commit_after(&format!("SELECT cutover.gate_v1({epoch})"))
                .await
        }
        Dialect::Sqlite => {
            let rows = tx
                .control(
                    "SELECT 1 FROM cutover.state WHERE epoch = $1",
                    vec![epoch.into()],
                )
                .await?;
            if rows.is_empty() {
                return Err(Fault::Refused(Refusal::StaleEpoch));
            }
            tx.commit().await
        }
    }
}
