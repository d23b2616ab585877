//! Who holds the gate, when a change waits for it: for the person who waits.
//!
//! Nobody is ended for it. A session of ours that rests in its transaction is ended by the database itself
//! (`IDLE_IN_TRANSACTION_MAX`), sooner than anybody could decide; ended from here, it might be one that was
//! between two statements of a transaction that is well. A stranger's transaction is not ours to end: its
//! owner can be found by what is told here.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::gate_in_pg_locks;
use crate::sql::{Db, Dialect, Fault};

/// Holders that are told; there is no use in a longer list.
const HOLDERS_MAX: i64 = 5;

/// A session whose open transaction holds the gate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GateHolder {
    /// The server process, as `pg_stat_activity` and `pg_terminate_backend` know it.
    pub pid: i64,
    /// What the session calls itself: `cutover` is a replica.
    pub application: String,
    /// `active`, `idle in transaction`, …
    pub state: String,
    /// How old its transaction is; not known of other roles' sessions without `pg_read_all_stats`.
    pub transaction_seconds: Option<i64>,
}

impl fmt::Display for GateHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({}, {}", self.pid, self.application, self.state)?;
        if let Some(seconds) = self.transaction_seconds {
            write!(f, ", in its transaction for {seconds} s")?;
        }
        f.write_str(")")
    }
}

/// Those that have held it for `at_least`, the oldest first. SQLite has no such list.
pub(super) async fn holders(db: &Db, at_least: Duration) -> Result<Vec<GateHolder>, Fault> {
    if db.dialect() == Dialect::Sqlite {
        return Ok(vec![]);
    }
    let sql = format!(
        "SELECT a.pid::bigint, a.application_name, coalesce(a.state, 'state unknown'),
            extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
         FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE {gate} AND l.granted AND l.pid <> pg_backend_pid()
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND coalesce(clock_timestamp() - a.xact_start >= $1 * interval '1 millisecond', true)
         ORDER BY a.xact_start NULLS LAST LIMIT $2",
        gate = gate_in_pg_locks(),
    );
    let at_least_ms = i64::try_from(at_least.as_millis()).unwrap_or(i64::MAX);
    let rows = db
        .fetch(&sql, vec![at_least_ms.into(), HOLDERS_MAX.into()])
        .await?;
    rows.iter()
        .map(|row| {
            Ok(GateHolder {
                pid: row.some_int(0)?,
                application: row.text(1)?.unwrap_or_default(),
                state: row.some_text(2)?,
                transaction_seconds: row.int(3)?,
            })
        })
        .collect()
}

/// In words.
pub(super) fn told(holders: &[GateHolder]) -> String {
    if holders.is_empty() {
        return "open transactions hold the gate".to_owned();
    }
    let each: Vec<String> = holders.iter().map(ToString::to_string).collect();
    format!("the gate is held by {}", each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_told_by_what_its_owner_can_be_found_by() {
        let mut holder = GateHolder {
            pid: 4711,
            application: "psql".to_owned(),
            state: "idle in transaction".to_owned(),
            transaction_seconds: Some(61),
        };
        assert_eq!(
            told(&[holder.clone()]),
            "the gate is held by pid 4711 (psql, idle in transaction, in its transaction for 61 s)"
        );
        holder.transaction_seconds = None;
        assert_eq!(holder.to_string(), "pid 4711 (psql, idle in transaction)");
        assert_eq!(told(&[]), "open transactions hold the gate");
    }
}
