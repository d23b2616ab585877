//! Conditions.
//!
//! Equality uses the column's own comparison, and so its index; order of text is by code point
//! (`COLLATE "C"`; SQLite's BINARY is the same for UTF-8). SQLite's numerics are text and compared by a
//! collation of ours.

use serde_json::Value;

use super::{ALIAS, Params, column, parse, quote, value};
use crate::contract::Operator;
use crate::schema::{Column, Filter, Kind, Table, Test};
use crate::sql::Dialect;
use crate::sql::open::NUMERIC_COLLATION;

/// `WHERE …`, over the table under its usual alias.
pub(crate) fn where_clause(params: &mut Params, table: &Table, filter: &Filter) -> String {
    format!("WHERE {}", condition(params, table, filter))
}

fn condition(params: &mut Params, table: &Table, filter: &Filter) -> String {
    match filter {
        Filter::All(parts) => joined(params, table, parts, " AND ", "TRUE"),
        Filter::Any(parts) => joined(params, table, parts, " OR ", "FALSE"),
        Filter::Not(inner) => format!("NOT ({})", condition(params, table, inner)),
        Filter::Test(test) => comparison(params, table, test),
        Filter::Keys(keys) => keys_are(params, table, keys),
        Filter::After(key) => after(params, table, key),
    }
}

fn joined(
    params: &mut Params,
    table: &Table,
    parts: &[Filter],
    separator: &str,
    empty: &str,
) -> String {
    if parts.is_empty() {
        return empty.to_owned();
    }
    let parts: Vec<_> = parts
        .iter()
        .map(|part| condition(params, table, part))
        .collect();
    format!("({})", parts.join(separator))
}

fn comparison(params: &mut Params, table: &Table, test: &Test) -> String {
    let tested = &table.columns[test.column];
    let name = column(table, test.column, ALIAS);
    let mut against = |side: fn(Dialect, &Column, &str) -> String, operator: &str| {
        let left = side(params.dialect, tested, &name);
        let right = parse::scalar(params, tested, &test.value);
        format!("{left} {operator} {right}")
    };
    match test.operator {
        Operator::Eq => against(equal_side, "="),
        Operator::Ne => against(equal_side, "<>"),
        Operator::Lt => against(order_side, "<"),
        Operator::Lte => against(order_side, "<="),
        Operator::Gt => against(order_side, ">"),
        Operator::Gte => against(order_side, ">="),
        Operator::In => is_in(params, tested, &name, &test.value),
        Operator::Like => {
            let pattern = params.push(test.value.as_str().unwrap_or_default());
            match params.dialect {
                Dialect::Postgres => format!("{name}::text LIKE {pattern} ESCAPE '\\'"),
                Dialect::Sqlite => format!("{name} LIKE {pattern} ESCAPE '\\'"),
            }
        }
        Operator::IsNull if test.value == Value::Bool(false) => format!("{name} IS NOT NULL"),
        Operator::IsNull => format!("{name} IS NULL"),
    }
}

fn is_in(params: &mut Params, tested: &Column, name: &str, values: &Value) -> String {
    let keys: Vec<Vec<Value>> = values
        .as_array()
        .map(|values| values.iter().map(|value| vec![value.clone()]).collect())
        .unwrap_or_default();
    one_of(params, &[(tested, name.to_owned())], &keys)
}

fn keys_are(params: &mut Params, table: &Table, keys: &[Vec<Value>]) -> String {
    let columns: Vec<_> = table
        .key
        .iter()
        .map(|&index| (&table.columns[index], column(table, index, ALIAS)))
        .collect();
    one_of(params, &columns, keys)
}

/// The columns are one of the tuples. One tuple is compared directly; more travel as one JSON parameter.
fn one_of(params: &mut Params, columns: &[(&Column, String)], tuples: &[Vec<Value>]) -> String {
    match tuples {
        [] => return "FALSE".to_owned(),
        [tuple] => {
            let parts: Vec<_> = columns
                .iter()
                .zip(tuple)
                .map(|((tested, name), value)| {
                    let left = equal_side(params.dialect, tested, name);
                    format!("{left} = {}", parse::scalar(params, tested, value))
                })
                .collect();
            return format!("({})", parts.join(" AND "));
        }
        _ => {}
    }
    let members = members(params.dialect, columns.iter().map(|(tested, _)| *tested));
    let left: Vec<_> = columns
        .iter()
        .map(|(tested, name)| equal_side(params.dialect, tested, name))
        .collect();
    let kinds: Vec<_> = columns.iter().map(|(tested, _)| &tested.kind).collect();
    let source = tuples_source(params, &kinds, tuples);
    match (params.dialect, left.as_slice()) {
        // An array is looked up in the index whatever the planner thinks of the number of keys.
        (Dialect::Postgres, [left]) => {
            format!("{left} = ANY(ARRAY(SELECT {} FROM {source}))", members[0])
        }
        _ => format!(
            "({}) IN (SELECT {} FROM {source})",
            left.join(", "),
            members.join(", ")
        ),
    }
}

/// The members of each tuple of `tuples_source`, as values of the columns.
pub(super) fn members<'a>(
    dialect: Dialect,
    columns: impl Iterator<Item = &'a Column>,
) -> Vec<String> {
    columns
        .enumerate()
        .map(|(index, column)| {
            parse::from_member(dialect, &column.kind, &column.base_type, "k.value", index)
        })
        .collect()
}

/// A table `k` with one tuple (a JSON array) a row, in `k.value`.
pub(super) fn tuples_source(params: &mut Params, kinds: &[&Kind], tuples: &[Vec<Value>]) -> String {
    match params.dialect {
        Dialect::Postgres => {
            let json = serde_json::Value::from(
                tuples.iter().cloned().map(Value::from).collect::<Vec<_>>(),
            );
            let json = params.push(json.to_string());
            format!("jsonb_array_elements({json}::jsonb) WITH ORDINALITY AS k(value, position)")
        }
        Dialect::Sqlite => {
            let stored = |tuple: &Vec<Value>| {
                let parts = kinds.iter().zip(tuple);
                Value::from_iter(parts.map(|(kind, part)| value::sqlite_json(kind, part)))
            };
            let json = Value::from_iter(tuples.iter().map(stored));
            format!("json_each({}) AS k", params.push(json.to_string()))
        }
    }
}

fn after(params: &mut Params, table: &Table, key: &[Value]) -> String {
    let left: Vec<_> = table
        .key
        .iter()
        .map(|&index| {
            order_side(
                params.dialect,
                &table.columns[index],
                &column(table, index, ALIAS),
            )
        })
        .collect();
    let right: Vec<_> = table
        .key
        .iter()
        .zip(key)
        .map(|(&index, value)| parse::scalar(params, &table.columns[index], value))
        .collect();
    format!("({}) > ({})", left.join(", "), right.join(", "))
}

/// A column's side of an equality.
pub(super) fn equal_side(dialect: Dialect, tested: &Column, name: &str) -> String {
    match (dialect, &tested.kind) {
        (Dialect::Sqlite, Kind::Numeric) => {
            format!("CAST({name} AS TEXT) COLLATE {}", quote(NUMERIC_COLLATION))
        }
        _ => name.to_owned(),
    }
}

/// A column's side of an order.
pub(super) fn order_side(dialect: Dialect, tested: &Column, name: &str) -> String {
    match (dialect, &tested.kind) {
        (Dialect::Postgres, Kind::Text) => format!("{name} COLLATE \"C\""),
        _ => equal_side(dialect, tested, name),
    }
}
