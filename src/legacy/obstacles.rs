//! What in the legacy database itself stands in the way of becoming the secondary.

use super::Legacy;
use crate::sql::render::quote;
use crate::sql::{Dialect, Fault};

/// A sequence that would hand out a key that is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SequenceBehind {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The sequence, ready for SQL.
    pub sequence: String,
    /// What it gave last.
    pub last: i64,
    /// The greatest value in the table.
    pub greatest: i64,
}

/// A trigger of the application that fires when rows are applied to a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppTrigger {
    /// The table.
    pub table: String,
    /// The trigger.
    pub trigger: String,
}

impl Legacy {
    /// Sequences behind the greatest value of their column; only columns that lead a key are looked at.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn sequences_behind(&self) -> Result<Vec<SequenceBehind>, Fault> {
        let mut behind = Vec::new();
        // SQLite's rowids follow the greatest key by themselves.
        if self.db.dialect() == Dialect::Sqlite {
            return Ok(behind);
        }
        let schema = self.schema();
        for table in schema.tables.values() {
            for (column, sequence) in table.counted() {
                let sql = format!(
                    "SELECT coalesce(pg_sequence_last_value(s.seqrelid), s.seqstart - s.seqincrement), \
                     (SELECT max({})::int8 FROM {}) FROM pg_sequence s \
                     WHERE s.seqrelid = $1::regclass AND s.seqincrement > 0",
                    quote(&column.name),
                    table.sql_name
                );
                let rows = self.db.fetch(&sql, vec![sequence.into()]).await?;
                let Some(row) = rows.first() else { continue };
                let (last, greatest) = (row.some_int(0)?, row.int(1)?);
                if let Some(greatest) = greatest.filter(|greatest| *greatest > last) {
                    behind.push(SequenceBehind {
                        table: table.name.clone(),
                        column: column.name.clone(),
                        sequence: sequence.to_owned(),
                        last,
                        greatest,
                    });
                }
            }
        }
        Ok(behind)
    }

    /// Triggers of the application that would fire again on what is applied to legacy as the secondary. Where
    /// `session_replication_role` may be set, only those that ask for it do (`ENABLE REPLICA`, `ENABLE ALWAYS`).
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn app_triggers(&self) -> Result<Vec<AppTrigger>, Fault> {
        let mut found = Vec::new();
        let schema = self.schema();
        for table in schema.tables.values() {
            let rows = match self.db.dialect() {
                Dialect::Postgres => {
                    let firing = if self.replica_role {
                        "'R', 'A'"
                    } else {
                        "'O', 'A'"
                    };
                    let sql = format!(
                        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal \
                         AND tgname::text NOT LIKE 'cutover\\_capture\\_%' AND tgenabled IN ({firing}) ORDER BY 1"
                    );
                    self.db
                        .fetch(&sql, vec![table.sql_name.as_str().into()])
                        .await?
                }
                Dialect::Sqlite => {
                    let sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = $1 \
                               AND name NOT LIKE 'cutover\\_capture\\_%' ESCAPE '\\' ORDER BY 1";
                    self.db.fetch(sql, vec![table.name.as_str().into()]).await?
                }
            };
            for row in &rows {
                found.push(AppTrigger {
                    table: table.name.clone(),
                    trigger: row.some_text(0)?,
                });
            }
        }
        Ok(found)
    }
}
