//! The tables of the evidence.

use std::borrow::Cow;

use crate::sql::{Db, Dialect, Fault};

/// In the portable subset. A handful of rows each: one per backend, table, kind of call.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS cutover.verified (
  backend text PRIMARY KEY,
  at_us bigint NOT NULL,
  clean boolean NOT NULL,
  clean_us bigint,
  epoch bigint NOT NULL,
  actor text NOT NULL,
  details text NOT NULL
);
CREATE TABLE IF NOT EXISTS cutover.bypassed (
  tbl text PRIMARY KEY,
  written bigint NOT NULL,
  last_us bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS cutover.baseline (
  kind text PRIMARY KEY,
  samples bigint NOT NULL,
  p50_us bigint NOT NULL,
  p95_us bigint NOT NULL,
  at_us bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS cutover.compared (
  tbl text NOT NULL,
  op text NOT NULL,
  epoch bigint NOT NULL,
  asked bigint NOT NULL,
  compared bigint NOT NULL,
  PRIMARY KEY (tbl, op, epoch)
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
    let last = "SELECT to_regclass('cutover.compared') IS NOT NULL";
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
