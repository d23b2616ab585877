//! The tables of the drills.

use std::borrow::Cow;

use crate::sql::{Db, Dialect, Fault};

/// In the portable subset. A row per drill, of which the latest are kept, and one per moment and replica.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS cutover.drills (
  id bigint PRIMARY KEY,
  provokes text NOT NULL,
  epoch bigint NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  started_us bigint NOT NULL,
  until_us bigint NOT NULL,
  ended_us bigint,
  outcome text
);
CREATE TABLE IF NOT EXISTS cutover.drill_marks (
  drill bigint NOT NULL,
  moment text NOT NULL,
  replica text NOT NULL,
  at_us bigint NOT NULL,
  PRIMARY KEY (drill, moment, replica)
);
";

/// Two replicas may start at once: one transaction that begins with a lock.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(7163668001);";

/// Creates what is missing. The schema `cutover` must be there.
///
/// # Errors
/// See [`Fault`].
pub async fn install(db: &Db) -> Result<(), Fault> {
    if is_complete(db).await? {
        return Ok(());
    }
    db.batch(&install_sql(db.dialect())).await
}

/// Whether the last table is there. `CREATE … IF NOT EXISTS` asks for the right to create even then, which a
/// running proxy need not have.
async fn is_complete(db: &Db) -> Result<bool, Fault> {
    if db.dialect() == Dialect::Sqlite {
        return Ok(false);
    }
    let last = "SELECT to_regclass('cutover.drill_marks') IS NOT NULL";
    let rows = db.fetch(last, vec![]).await?;
    rows.first().map_or(Ok(false), |row| row.some_bool(0))
}

/// The statements of `install`, for `cutover schema --control`.
#[must_use]
pub fn install_sql(dialect: Dialect) -> Cow<'static, str> {
    match dialect {
        Dialect::Postgres => Cow::Owned(format!("{ONE_AT_A_TIME}\n{TABLES}")),
        Dialect::Sqlite => dialect.control(TABLES),
    }
}
