//! Changes as data-modifying CTEs (PostgreSQL), and the parts of them that SQLite shares.
//!
//! A column that a row does not give must get the database's default, not NULL, so rows are inserted in
//! groups of equal column sets. A partial upsert updates first and inserts what was not there: an INSERT
//! fails on an omitted NOT NULL column even where the row exists and ON CONFLICT would have taken it.

use std::fmt::Write as _;

use serde_json::Value;

use super::keyed::{every_column, returning};
use super::{ALIAS, Params, column, filter, key_expr, parse, quote, row_expr, value, where_clause};
use crate::contract::Row;
use crate::schema::{Change, Filter, Generated, Kind, Table};
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

/// Rows of one insert that give the same columns.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// Indexes of the columns, in the table's order.
    pub(crate) columns: Vec<usize>,
    /// Positions of the rows in the request, from 0.
    pub(crate) positions: Vec<usize>,
    pub(crate) rows: Vec<&'a Row>,
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
            format!("SELECT row_number() OVER () AS n, key, row FROM w_i{at}")
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

/// Groups rows by the columns they give, in order of appearance; a row that gives none is alone.
pub(crate) fn groups<'a>(table: &Table, rows: &'a [Row]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (position, row) in rows.iter().enumerate() {
        let columns: Vec<_> = (0..table.columns.len())
            .filter(|&index| row.contains_key(&table.columns[index].name))
            .filter(|&index| table.columns[index].generated != Generated::Expression)
            .collect();
        let same = groups
            .iter_mut()
            .find(|group| group.columns == columns && !columns.is_empty());
        match same {
            Some(group) => {
                group.positions.push(position);
                group.rows.push(row);
            }
            None => groups.push(Group {
                columns,
                positions: vec![position],
                rows: vec![row],
            }),
        }
    }
    groups
}

/// Whether an upsert of these columns could fail as an INSERT on a row that exists.
pub(crate) fn must_update_first(table: &Table, columns: &[usize]) -> bool {
    has_whole_key(table, columns)
        && table.columns.iter().enumerate().any(|(index, column)| {
            !column.nullable && !column.has_default && !columns.contains(&index)
        })
}

pub(crate) fn has_whole_key(table: &Table, columns: &[usize]) -> bool {
    table.key.iter().all(|index| columns.contains(index))
}

/// The target columns of an INSERT.
pub(crate) fn target(dialect: Dialect, table: &Table, columns: &[usize]) -> String {
    let names: Vec<_> = columns
        .iter()
        .map(|&index| quote(&table.columns[index].name))
        .collect();
    match (dialect, names.is_empty()) {
        (_, true) => String::new(),
        (Dialect::Postgres, false) => {
            format!("({}) OVERRIDING SYSTEM VALUE", names.join(", "))
        }
        (Dialect::Sqlite, false) => format!("({})", names.join(", ")),
    }
}

/// `ON CONFLICT` on the primary key, setting the given columns. It must set something for the row to be
/// returned. An identity column that is GENERATED ALWAYS cannot be set; a key never needs to be.
pub(crate) fn on_conflict(table: &Table, columns: &[usize]) -> String {
    let key: Vec<_> = table.key_columns().map(|key| quote(&key.name)).collect();
    let set: Vec<_> = settable(table, columns)
        .map(|index| quote(&table.columns[index].name))
        .map(|name| format!("{name} = EXCLUDED.{name}"))
        .collect();
    let set = match set.is_empty() {
        true => unchanged(table),
        false => set.join(", "),
    };
    format!("ON CONFLICT ({}) DO UPDATE SET {set}", key.join(", "))
}

fn settable(table: &Table, columns: &[usize]) -> impl Iterator<Item = usize> {
    columns.iter().copied().filter(|index| {
        !table.key.contains(index)
            && !matches!(
                table.columns[*index].generated,
                Generated::IdentityAlways | Generated::Expression
            )
    })
}

/// A `SET` term that changes nothing. (A table whose only column is GENERATED ALWAYS has none; its rows
/// cannot be upserted, and PostgreSQL says so.)
fn unchanged(table: &Table) -> String {
    let column = table
        .columns
        .iter()
        .find(|column| column.generated == Generated::No)
        .or_else(|| {
            let by_default = |column: &&_| is_by_default(column);
            table.columns.iter().find(by_default)
        })
        .unwrap_or(&table.columns[0]);
    let name = quote(&column.name);
    format!("{name} = {ALIAS}.{name}")
}

fn is_by_default(column: &crate::schema::Column) -> bool {
    column.generated == Generated::IdentityByDefault
}

/// The source of an INSERT: rows as one JSON parameter.
pub(crate) fn record_source<'a>(
    params: &mut Params,
    table: &Table,
    columns: &[usize],
    rows: impl IntoIterator<Item = &'a Row>,
) -> String {
    if columns.is_empty() {
        return "DEFAULT VALUES".to_owned();
    }
    match params.dialect {
        Dialect::Postgres => format!(
            "{} ORDER BY n",
            record_select(params, table, columns, rows, false)
        ),
        Dialect::Sqlite => {
            let stored = |row: &Row| {
                Value::from_iter(columns.iter().map(|&index| {
                    let column = &table.columns[index];
                    let value = row.get(&column.name).unwrap_or(&Value::Null);
                    value::sqlite_json(&column.kind, value)
                }))
            };
            let json = Value::from_iter(rows.into_iter().map(stored));
            let json = params.push(json.to_string());
            let members = filter::members(
                Dialect::Sqlite,
                columns.iter().map(|&index| &table.columns[index]),
            );
            // WHERE keeps ON CONFLICT from being read as a join's ON.
            format!(
                "SELECT {} FROM json_each({json}) AS k WHERE TRUE ORDER BY k.key",
                members.join(", ")
            )
        }
    }
}

/// A select of `v0, …` from rows in one JSON parameter, and of their position `n` where it is asked for.
fn record_select<'a>(
    params: &mut Params,
    table: &Table,
    columns: &[usize],
    rows: impl IntoIterator<Item = &'a Row>,
    numbered: bool,
) -> String {
    let json: Vec<_> = rows
        .into_iter()
        .map(|row| serde_json::to_string(row).unwrap_or_default())
        .collect();
    let json = params.push(format!("[{}]", json.join(",")));
    let (mut fields, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (at, &index) in columns.iter().enumerate() {
        let column = &table.columns[index];
        let (sql_type, value) = parse::from_record(column, &format!("c{at}"));
        fields.push(format!("{} {sql_type}", quote(&column.name)));
        names.push(format!("c{at}"));
        values.push(format!("{value} AS v{at}"));
    }
    if numbered {
        values.push("n".to_owned());
    }
    format!(
        "SELECT {} FROM ROWS FROM (json_to_recordset({json}::json) AS ({})) \
         WITH ORDINALITY AS w_records({}, n)",
        values.join(", "),
        fields.join(", "),
        names.join(", ")
    )
}

/// What a change returns of each row.
fn stored(table: &Table) -> String {
    let dialect = Dialect::Postgres;
    let qualifier = returning(dialect);
    format!(
        "{} AS key, {} AS row",
        key_expr(dialect, table, qualifier),
        row_expr(dialect, table, &every_column(table), qualifier)
    )
}
