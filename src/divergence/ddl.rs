//! The table of divergences.

use crate::sql::{Db, Dialect, Fault};

/// One transaction that begins with a lock: two replicas may start at once.
const POSTGRES: &str = r#"
SELECT pg_advisory_xact_lock(7163668001);
CREATE TABLE IF NOT EXISTS cutover.divergences (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tbl text NOT NULL,
  kind text NOT NULL,
  key text COLLATE "C" NOT NULL,
  fields text NOT NULL,
  first_us bigint NOT NULL,
  last_us bigint NOT NULL,
  seen bigint NOT NULL,
  explained text,
  explained_until_us bigint,
  UNIQUE (tbl, kind, key)
);
"#;

const SQLITE: &str = r#"
CREATE TABLE IF NOT EXISTS cutover_divergences (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tbl TEXT NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  fields TEXT NOT NULL,
  first_us INTEGER NOT NULL,
  last_us INTEGER NOT NULL,
  seen INTEGER NOT NULL,
  explained TEXT,
  explained_until_us INTEGER,
  UNIQUE (tbl, kind, key)
);
"#;

/// Creates what is missing. The schema `cutover` must be there.
///
/// # Errors
/// See [`Fault`].
pub async fn install(db: &Db) -> Result<(), Fault> {
    db.batch(install_sql(db.dialect())).await
}

/// The statements of `install`.
#[must_use]
pub fn install_sql(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => POSTGRES,
        Dialect::Sqlite => SQLITE,
    }
}
