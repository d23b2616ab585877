//! The tables of the journal and of operation records.

use crate::sql::{Db, Dialect, Fault};

/// Each batch is one transaction that begins with a lock: two replicas may start at once.
///
/// Functions that let control SQL be written once; SQLite has the same under other names
/// (`Dialect::control`).
const POSTGRES_BASE: &str = r#"
SELECT pg_advisory_xact_lock(7163668001);
CREATE SCHEMA IF NOT EXISTS cutover;
CREATE OR REPLACE FUNCTION cutover.now_us() RETURNS bigint LANGUAGE sql VOLATILE AS
  'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint';
CREATE OR REPLACE FUNCTION cutover.each(items text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE AS
  'SELECT jsonb_array_elements_text(items::jsonb)';
"#;

/// `fillfactor` keeps claims on the page (heap-only updates); vacuum comes early because entries are
/// short-lived.
const POSTGRES: &str = r#"
SELECT pg_advisory_xact_lock(7163668001);
CREATE TABLE IF NOT EXISTS cutover.journal (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  generation bigint NOT NULL,
  direction text NOT NULL CHECK (direction IN ('storage', 'legacy')),
  kind text NOT NULL CHECK (kind IN ('copy', 'intent')),
  tbl text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  op_id uuid,
  bypass boolean NOT NULL DEFAULT false,
  epoch bigint NOT NULL,
  created_us bigint NOT NULL,
  token uuid,
  attempt_id uuid,
  deadline_us bigint NOT NULL DEFAULT 0,
  attempts bigint NOT NULL DEFAULT 0,
  not_before_us bigint NOT NULL DEFAULT 0,
  parked text
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS journal_key ON cutover.journal (tbl, key, seq);
CREATE TABLE IF NOT EXISTS cutover.operations (
  op_id uuid PRIMARY KEY,
  digest text NOT NULL,
  state text NOT NULL CHECK (state IN ('open', 'done', 'converted', 'not_applied', 'unknown', 'refused')),
  reply text,
  epoch bigint NOT NULL,
  created_us bigint NOT NULL,
  settled_us bigint
);
CREATE INDEX IF NOT EXISTS operations_settled ON cutover.operations USING brin (settled_us);
ALTER TABLE cutover.journal ADD COLUMN IF NOT EXISTS leaves boolean NOT NULL DEFAULT false;
ALTER TABLE cutover.journal ADD COLUMN IF NOT EXISTS points boolean NOT NULL DEFAULT false;
CREATE INDEX IF NOT EXISTS journal_leaves ON cutover.journal (tbl, key) WHERE leaves;
"#;

const SQLITE: &str = r#"
CREATE TABLE IF NOT EXISTS cutover_journal (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  generation INTEGER NOT NULL,
  direction TEXT NOT NULL CHECK (direction IN ('storage', 'legacy')),
  kind TEXT NOT NULL CHECK (kind IN ('copy', 'intent')),
  tbl TEXT NOT NULL,
  key TEXT NOT NULL,
  op_id TEXT,
  bypass INTEGER NOT NULL DEFAULT 0,
  epoch INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  token TEXT,
  attempt_id TEXT,
  deadline_us INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  not_before_us INTEGER NOT NULL DEFAULT 0,
  parked TEXT,
  leaves INTEGER NOT NULL DEFAULT 0,
  points INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS cutover_journal_key ON cutover_journal (tbl, key, seq);
CREATE TABLE IF NOT EXISTS cutover_operations (
  op_id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'done', 'converted', 'not_applied', 'unknown', 'refused')),
  reply TEXT,
  epoch INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  settled_us INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cutover_ctx (
  epoch INTEGER NOT NULL,
  op_id TEXT,
  role TEXT NOT NULL
);
"#;

/// What SQLite, which has no `ADD COLUMN IF NOT EXISTS`, adds to a journal made without these columns.
const SQLITE_COLUMNS: [&str; 2] = ["leaves", "points"];

/// Creates what is missing; changes nothing that is there.
///
/// What is there is not even touched: `CREATE INDEX IF NOT EXISTS` locks its table before it looks, and a
/// replica that starts beside others that write would hold them up, or deadlock with them.
///
/// # Errors
/// When the database refuses or cannot be reached.
pub async fn install(db: &Db) -> Result<(), Fault> {
    if is_complete(db).await? {
        return Ok(());
    }
    for statements in install_sql(db.dialect()) {
        db.batch(statements).await?;
    }
    match db.dialect() {
        Dialect::Postgres => Ok(()),
        Dialect::Sqlite => add_columns(db).await,
    }
}

async fn add_columns(db: &Db) -> Result<(), Fault> {
    for column in SQLITE_COLUMNS {
        let there = "SELECT 1 FROM pragma_table_info('cutover_journal') WHERE name = $1";
        if db.fetch(there, vec![column.into()]).await?.is_empty() {
            let add = format!(
                "ALTER TABLE cutover_journal ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
            );
            db.batch(&add).await?;
        }
    }
    Ok(())
}

/// Whether the last thing that `install` makes is there: it makes all of it in one transaction.
async fn is_complete(db: &Db) -> Result<bool, Fault> {
    if db.dialect() == Dialect::Sqlite {
        return Ok(false);
    }
    let last = "SELECT to_regclass('cutover.journal_leaves') IS NOT NULL";
    let rows = db.fetch(last, vec![]).await?;
    rows.first().map_or(Ok(false), |row| row.some_bool(0))
}

/// The statements of `install`, for `cutover schema --control`.
#[must_use]
pub fn install_sql(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Postgres => &[POSTGRES_BASE, POSTGRES],
        Dialect::Sqlite => &[SQLITE],
    }
}
