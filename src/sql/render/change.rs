//! Changes as data-modifying CTEs (PostgreSQL), and the parts of them that SQLite shares.
//!
//! One statement carries a change and what the caller wraps around it. A partial upsert updates first and inserts what was not there: an INSERT
//! fails on an omitted NOT NULL column even where the row exists and ON CONFLICT would have taken it.

use std::fmt::Write as _;

use super::insert::{
    Group, groups, has_whole_key, must_update_first, on_conflict, record_select, record_source,
    settable, target, unchanged,
};
use super::keyed::returning;
use super::{ALIAS, Params, column, filter, key_expr, parse, quote, row_expr, where_clause};
use crate::contract::Row;
use crate::schema::{Change, Filter, Kind, Table};
use crate::sql::{Arg, Dialect};

/// A change as CTEs of a larger statement.
#[derive(Clone, PartialEq, Debug)]
pub struct Dml {
    /// `a AS (…), …, w AS (…)`, without WITH. `w` has the columns `n` (bigint: the position in the
    /// reply, from 1), `key` (canonical text) and `row` (JSON text). Names are `w` and `w_…`.
    pub ctes: String,
    /// For the placeholders `$1`, …; the caller's own come after them.
    pub args: Vec<Arg>,
}

/// The CTEs of a change on PostgreSQL.
///
/// Inserted rows come in the order given, others in key order; removed rows as they were, all others as
/// they are after the change.
#[must_use]
pub fn dml(change: &Change) -> Dml {
    let mut params = Params::new(Dialect::Postgres);
    let ctes = match change {
        Change::Insert {
            table,
            rows,
            upsert,
            ..
        } => insert(&mut params, table, rows, *upsert),
        Change::Update {
            table, filter, set, ..
        } => {
            let set = assignments(&mut params, table, set);
            update(&mut params, table, &set, filter)
        }
        Change::SoftDelete { table, filter, .. } => {
            let set = soft_delete(Dialect::Postgres, table);
            update(&mut params, table, &set, filter)
        }
        Change::Delete { table, filter, .. } => {
            let condition = where_clause(&mut params, table, filter);
            let name = &table.sql_name;
            in_key_order(table, &format!("DELETE FROM {name} AS {ALIAS} {condition}"))
        }
    };
    Dml {
        ctes,
        args: params.args,
    }
}

fn update(params: &mut Params, table: &Table, set: &str, filter: &Filter) -> String {
    let condition = where_clause(params, table, filter);
    let name = &table.sql_name;
    in_key_order(
        table,
        &format!("UPDATE {name} AS {ALIAS} SET {set} {condition}"),
    )
}

/// `SET` terms from a row.
pub(crate) fn assignments(params: &mut Params, table: &Table, set: &Row) -> String {
    let terms: Vec<_> = set
        .iter()
        .filter_map(|(name, value)| Some((table.column(name)?, value)))
        .map(|(index, value)| {
            let value = parse::scalar(params, &table.columns[index], value);
            format!("{} = {value}", quote(&table.columns[index].name))
        })
        .collect();
    match terms.is_empty() {
        true => unchanged(table),
        false => terms.join(", "),
    }
}

/// The `SET` term of a soft delete: the time of the database, as the column's kind has it.
pub(crate) fn soft_delete(dialect: Dialect, table: &Table) -> String {
    let Some(column) = table.policy.soft_delete.map(|index| &table.columns[index]) else {
        return unchanged(table);
    };
    let now = match (dialect, &column.kind) {
        (_, Kind::Bool) => "TRUE",
        (_, Kind::Date) => "CURRENT_DATE",
        (Dialect::Postgres, Kind::Timestamp) => "now() AT TIME ZONE 'UTC'",
        (Dialect::Postgres, Kind::Int(_)) => "extract(epoch FROM now())::bigint",
        (Dialect::Postgres, _) => "now()",
        (Dialect::Sqlite, Kind::Timestamp) => "strftime('%Y-%m-%dT%H:%M:%f000', 'now')",
        (Dialect::Sqlite, Kind::Int(_)) => "unixepoch()",
        (Dialect::Sqlite, _) => "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')",
    };
    format!("{} = {now}", quote(&column.name))
}

/// Rows of a change, numbered in key order.
fn in_key_order(table: &Table, statement: &str) -> String {
    let dialect = Dialect::Postgres;
    let mut keys = String::new();
    let mut order = Vec::new();
    for (at, &index) in table.key.iter().enumerate() {
        let name = column(table, index, ALIAS);
        let name = filter::order_side(dialect, &table.columns[index], &name);
        let _ok = write!(keys, ", {name} AS k{at}");
        order.push(format!("k{at}"));
    }
    format!(
        "w_rows AS ({statement} RETURNING {}{keys}), \
         w AS (SELECT row_number() OVER (ORDER BY {}) AS n, key, row FROM w_rows)",
        stored(table),
        order.join(", ")
    )
}

fn insert(params: &mut Params, table: &Table, rows: &[Row], upsert: bool) -> String {
    let groups = groups(table, rows);
    let mut ctes = String::new();
    let mut results = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        // With one group the position in it is the position in the request.
        let place = match groups.len() {
            1 => None,
            _ => {
                let positions: Vec<_> = group
                    .positions
                    .iter()
                    .map(|position| (position + 1).to_string())
                    .collect();
                let list = params.push(format!("{{{}}}", positions.join(",")));
                Some(format!("CAST({list} AS int8[])"))
            }
        };
        let numbered = if upsert && must_update_first(table, &group.columns) {
            update_then_insert(params, table, group, at, &mut ctes)
        } else {
            let source = record_source(params, table, &group.columns, group.rows.iter().copied());
            let conflict = match upsert && has_whole_key(table, &group.columns) {
                true => on_conflict(table, &group.columns),
                false => String::new(),
            };
            let _ok = write!(
                ctes,
                "w_i{at} AS (INSERT INTO {} AS {ALIAS} {} {source} {conflict} RETURNING {}), ",
                table.sql_name,
                target(Dialect::Postgres, table, &group.columns),
                stored(table),
            );
            let n = match group.rows.len() {
                1 => "1::bigint",
                _ => "row_number() OVER ()",
            };
            format!("SELECT {n} AS n, key, row FROM w_i{at}")
        };
        results.push(match place {
            None => numbered,
            Some(place) => format!("SELECT ({place})[n] AS n, key, row FROM ({numbered}) AS g{at}"),
        });
    }
    format!("{ctes}w AS ({})", results.join(" UNION ALL "))
}

/// Adds the CTEs of a partial upsert and returns the select of its numbered rows.
fn update_then_insert(
    params: &mut Params,
    table: &Table,
    group: &Group<'_>,
    at: usize,
    ctes: &mut String,
) -> String {
    let columns = &group.columns;
    let records = record_select(params, table, columns, group.rows.iter().copied(), true);
    let field = |index: usize| {
        columns
            .iter()
            .position(|&given| given == index)
            .unwrap_or(0)
    };
    let set: Vec<_> = settable(table, columns)
        .map(|index| {
            format!(
                "{} = x.v{}",
                quote(&table.columns[index].name),
                field(index)
            )
        })
        .collect();
    let set = match set.is_empty() {
        true => unchanged(table),
        false => set.join(", "),
    };
    let key: Vec<_> = table
        .key
        .iter()
        .map(|&index| format!("{} = x.v{}", column(table, index, ALIAS), field(index)))
        .collect();
    let values: Vec<_> = (0..columns.len())
        .map(|field| format!("v{field}"))
        .collect();
    let _ok = write!(
        ctes,
        "w_x{at} AS ({records}), \
         w_u{at} AS (UPDATE {name} AS {ALIAS} SET {set} FROM w_x{at} AS x WHERE {key} \
         RETURNING x.n AS n, {stored}), \
         w_m{at} AS (SELECT *, row_number() OVER (ORDER BY n) AS p FROM w_x{at} AS x \
         WHERE NOT EXISTS (SELECT FROM w_u{at} AS u WHERE u.n = x.n)), \
         w_i{at} AS (INSERT INTO {name} AS {ALIAS} {target} SELECT {values} FROM w_m{at} ORDER BY n \
         {conflict} RETURNING {stored}), ",
        name = table.sql_name,
        key = key.join(" AND "),
        stored = stored(table),
        target = target(Dialect::Postgres, table, columns),
        values = values.join(", "),
        conflict = on_conflict(table, columns),
    );
    format!(
        "SELECT n, key, row FROM w_u{at} UNION ALL SELECT m.n, i.key, i.row FROM \
         (SELECT row_number() OVER () AS p, key, row FROM w_i{at}) AS i JOIN w_m{at} AS m USING (p)"
    )
}

/// What a change returns of each row.
fn stored(table: &Table) -> String {
    let dialect = Dialect::Postgres;
    let qualifier = returning(dialect);
    format!(
        "{} AS key, {} AS row",
        key_expr(dialect, table, qualifier),
        row_expr(dialect, table, &table.every_column(), qualifier)
    )
}
