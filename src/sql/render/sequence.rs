//! Sequences: ids that legacy gives out, and ids that were written without asking it.

use super::{Params, Statement};
use crate::contract::Row;
use crate::schema::{Kind, Table};
use crate::sql::Dialect;

/// The next `n` values of a sequence, one per record.
///
/// On SQLite `sequence` is the quoted table name and the values follow its greatest rowid; they are not
/// reserved, so the caller remembers them until they are written.
#[must_use]
pub fn next_values(dialect: Dialect, sequence: &str, n: u32) -> Statement {
    let mut params = Params::new(dialect);
    let text = match dialect {
        Dialect::Postgres => {
            let name = params.push(sequence);
            let n = params.push(i64::from(n));
            format!("SELECT nextval({name}::regclass) FROM generate_series(1, {n})")
        }
        Dialect::Sqlite => {
            let n = params.push(i64::from(n));
            format!(
                "WITH RECURSIVE ids(i) AS (SELECT 1 WHERE {n} > 0 UNION ALL SELECT i + 1 FROM ids WHERE i < {n}) \
                 SELECT (SELECT coalesce(max(rowid), 0) FROM {sequence}) + i FROM ids"
            )
        }
    };
    params.statement(text)
}

/// Statements that move the table's sequences past the greatest ids among the rows just written, if they
/// are not past them already. SQLite needs none.
///
/// A sequence must never go back, and PostgreSQL has no compare-and-set for one. A small gap is closed by
/// taking values, which cannot; a gap of more than 1,000 by `setval`, which would only go back if a
/// thousand values were taken between two lines of one statement. An id past the sequence's end is one that
/// it can never give.
#[must_use]
pub fn advance_sequences(dialect: Dialect, table: &Table, rows: &[Row]) -> Vec<Statement> {
    if dialect == Dialect::Sqlite {
        return Vec::new();
    }
    let mut statements = Vec::new();
    for column in &table.columns {
        let (Some(sequence), Kind::Int(_)) = (&column.sequence, &column.kind) else {
            continue;
        };
        let ids = rows
            .iter()
            .filter_map(|row| row.get(&column.name).and_then(serde_json::Value::as_i64));
        let Some(greatest) = ids.max() else { continue };
        let mut params = Params::new(dialect);
        let name = params.push(sequence.as_str());
        let id = params.push(greatest);
        let text = format!(
            "SELECT CASE WHEN {id} - last > 1000 * step THEN setval({name}::regclass, {id}) \
             ELSE (SELECT max(nextval({name}::regclass)) \
             FROM generate_series(1, ({id} - last + step - 1) / step)) END \
             FROM (SELECT coalesce(pg_sequence_last_value(seqrelid), seqstart - seqincrement) AS last, \
             seqincrement AS step, seqmax FROM pg_sequence WHERE seqrelid = {name}::regclass) AS s \
             WHERE step > 0 AND last < {id} AND {id} <= seqmax"
        );
        statements.push(params.statement(text));
    }
    statements
}
