//! Reads.

use std::borrow::Cow;

use super::{ALIAS, Params, Statement, column, filter, row_expr, where_clause, whole_row_expr};
use crate::schema::{Read, ReadKind, Sort, Table};
use crate::sql::Dialect;

/// The statement of a read; column 0 of each record is a row's JSON text, or the count.
#[must_use]
pub fn read(dialect: Dialect, read: &Read) -> Statement {
    let mut params = Params::new(dialect);
    let table = &read.table;
    let condition = where_clause(&mut params, table, &read.filter);
    let from = format!("FROM {} AS {ALIAS} {condition}", table.sql_name);
    let text = match &read.kind {
        ReadKind::Count => format!("SELECT count(*) {from}"),
        ReadKind::Rows {
            columns,
            order,
            limit,
            offset,
        } => {
            let row = selected(dialect, table, columns);
            let window = window(&mut params, *limit, *offset);
            format!(
                "SELECT {row} {from}{}{window}",
                order_by(dialect, table, order)
            )
        }
    };
    params.statement(text)
}

/// The columns asked for, which are nearly always all of them.
fn selected<'t>(dialect: Dialect, table: &'t Table, columns: &[usize]) -> Cow<'t, str> {
    if columns.iter().copied().eq(0..table.columns.len()) {
        return Cow::Borrowed(whole_row_expr(dialect, table));
    }
    Cow::Owned(row_expr(dialect, table, columns, ALIAS))
}

fn order_by(dialect: Dialect, table: &Table, order: &[Sort]) -> String {
    if order.is_empty() {
        return String::new();
    }
    let terms: Vec<_> = order
        .iter()
        .map(|&sort| order_term(dialect, table, sort, ALIAS))
        .collect();
    format!(" ORDER BY {}", terms.join(", "))
}

/// One term: NULLs last ascending, first descending, which is PostgreSQL's own habit.
pub(super) fn order_term(dialect: Dialect, table: &Table, sort: Sort, qualifier: &str) -> String {
    let sorted = &table.columns[sort.column];
    let name = filter::order_side(dialect, sorted, &column(table, sort.column, qualifier));
    let nulls = match (dialect, sorted.nullable, sort.descending) {
        (Dialect::Postgres, ..) | (Dialect::Sqlite, false, _) => "",
        (Dialect::Sqlite, true, false) => " NULLS LAST",
        (Dialect::Sqlite, true, true) => " NULLS FIRST",
    };
    let direction = if sort.descending { " DESC" } else { "" };
    format!("{name}{direction}{nulls}")
}

/// SQLite takes an OFFSET only after a LIMIT.
fn window(params: &mut Params, limit: Option<u64>, offset: Option<u64>) -> String {
    let bounded = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let limit = match (limit, offset) {
        (None, None) => return String::new(),
        (limit, _) => bounded(limit.unwrap_or(u64::MAX)),
    };
    let limit = params.push(limit);
    match offset {
        None => format!(" LIMIT {limit}"),
        Some(offset) => format!(" LIMIT {limit} OFFSET {}", params.push(bounded(offset))),
    }
}
