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

/// Holds the epoch until `tx` ends, if it still is the epoch.
///
/// Called after every lock on the application's rows, which may have to be waited for, and before every lock on
/// entries that are there already: a transition converts entries while it holds the gate alone, and whoever held
/// one of them and waited for the gate would keep it from doing so.
///
/// # Errors
/// `StaleEpoch` when it is not the epoch any more.
pub async fn gate(tx: &mut Tx, epoch: Epoch) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Postgres => {
            let asked = tx.fetch("SELECT cutover.gate_v1($1)", vec![epoch.into()]);
            asked.await.map(drop)
        }
        Dialect::Sqlite => {
            let current = "SELECT 1 FROM cutover.state WHERE epoch = $1";
            match tx.control(current, vec![epoch.into()]).await?.is_empty() {
                true => Err(Fault::Refused(Refusal::StaleEpoch)),
                false => Ok(()),
            }
        }
    }
}

/// Asks the gate and commits, where nothing is left to be done in between: on PostgreSQL in one message, because
/// a transition waits for whoever holds the gate, and a process may have to wait for its turn.
///
/// # Errors
/// As [`gate`], and then nothing was committed; as [`Tx::commit`].
pub async fn commit_under(mut tx: Tx, epoch: Epoch) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Postgres => {
            let gate = format!("SELECT cutover.gate_v1({epoch})");
            tx.commit_after(&gate).await
        }
        Dialect::Sqlite => {
            gate(&mut tx, epoch).await?;
            tx.commit().await
        }
    }
}
