//! What an INSERT is made of on both dialects: groups of rows, target columns, source, conflict clause.
//!
//! A column that a row does not give must get the database's default, not NULL, so rows are inserted in
//! groups of equal column sets, each as one JSON parameter.

use serde_json::Value;

use super::{ALIAS, Params, filter, parse, quote, value};
use crate::contract::Row;
use crate::schema::{Column, Generated, Kind, Table};
use crate::sql::Dialect;

/// Rows of one insert that give the same columns.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// Indexes of the columns, in the table's order.
    pub(crate) columns: Vec<usize>,
    /// Positions of the rows in the request, from 0.
    pub(crate) positions: Vec<usize>,
    pub(crate) rows: Vec<&'a Row>,
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

pub(super) fn settable(table: &Table, columns: &[usize]) -> impl Iterator<Item = usize> {
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
pub(super) fn unchanged(table: &Table) -> String {
    let first = |generated| {
        let mut columns = table.columns.iter();
        columns.find(|column: &&Column| column.generated == generated)
    };
    let column = first(Generated::No)
        .or_else(|| first(Generated::IdentityByDefault))
        .unwrap_or(&table.columns[0]);
    let name = quote(&column.name);
    format!("{name} = {ALIAS}.{name}")
}

/// The source of an INSERT: rows as one JSON parameter; on PostgreSQL a row alone as its values, which the
/// database reads faster. Arrays are left to its JSON functions, which refuse what they cannot take.
pub(crate) fn record_source<'a>(
    params: &mut Params,
    table: &Table,
    columns: &[usize],
    rows: impl IntoIterator<Item = &'a Row>,
) -> String {
    if columns.is_empty() {
        return "DEFAULT VALUES".to_owned();
    }
    let rows: Vec<&Row> = rows.into_iter().collect();
    match (params.dialect, rows.as_slice()) {
        (Dialect::Postgres, [row]) if !has_arrays(table, columns) => {
            values(params, table, columns, row)
        }
        (Dialect::Postgres, _) => format!(
            "{} ORDER BY n",
            record_select(params, table, columns, rows, false)
        ),
        (Dialect::Sqlite, _) => {
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

fn has_arrays(table: &Table, columns: &[usize]) -> bool {
    let mut kinds = columns.iter().map(|&index| &table.columns[index].kind);
    kinds.any(|kind| matches!(kind, Kind::Array(_)))
}

fn values(params: &mut Params, table: &Table, columns: &[usize], row: &Row) -> String {
    let values: Vec<_> = columns
        .iter()
        .map(|&index| &table.columns[index])
        .map(|column| {
            parse::scalar(
                params,
                column,
                row.get(&column.name).unwrap_or(&Value::Null),
            )
        })
        .collect();
    format!("VALUES ({})", values.join(", "))
}

/// A select of `v0, …` from rows in one JSON parameter, and of their position `n` where it is asked for.
pub(super) fn record_select<'a>(
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
