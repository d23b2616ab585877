//! Values as the contract spells them, written by SQL.
//!
//! PostgreSQL's own JSON functions keep every digit and turn NaN and infinities into text; only instants,
//! bytes and types that have a cast to JSON need help. A row goes through `row_to_json` of a subselect,
//! which has no limit on columns short of the table's own. SQLite's JSON functions would round numbers, so
//! there the text is put together from pieces.

use super::nested::nested;
use super::{ALIAS, column, literal, quote};
use crate::schema::{Kind, Table};
use crate::sql::Dialect;
#[cfg(doc)]
use crate::sql::SPELLING;

/// An expression for the row as JSON text in contract form, columns in the order given.
///
/// `qualifier` is the table's alias, or empty. On SQLite, bytes come as hexadecimal and floats with
/// 17 digits; the methods of `Db` and `Tx` finish such rows.
#[must_use]
pub fn row_expr(dialect: Dialect, table: &Table, columns: &[usize], qualifier: &str) -> String {
    match dialect {
        Dialect::Postgres => postgres_row(table, columns, qualifier),
        Dialect::Sqlite => sqlite_row(table, columns, qualifier),
    }
}

/// The expression for a whole row under the usual alias.
pub(crate) fn whole_row_expr(dialect: Dialect, table: &Table) -> &str {
    let make = || row_expr(dialect, table, &table.every_column(), ALIAS);
    table.row_sql[dialect as usize].get_or_make(make)
}

/// An expression for the canonical key: the text of a JSON array of the key's values, in key order,
/// without spaces.
///
/// Depends on no session setting but those of [`SPELLING`], for some kinds of columns ([`is_spelled_by_session`]).
#[must_use]
pub fn key_expr(dialect: Dialect, table: &Table, qualifier: &str) -> String {
    let values: Vec<_> = table
        .key
        .iter()
        .map(|&index| {
            key_value(
                dialect,
                &table.columns[index].kind,
                &column(table, index, qualifier),
            )
        })
        .collect();
    key_text(&values)
}

/// Whether the text of such values follows the session's settings.
#[must_use]
pub fn is_spelled_by_session(kind: &Kind) -> bool {
    match kind {
        // Instants beyond four digits of year, and types that are known by their text alone.
        Kind::Timestamptz | Kind::Timestamp | Kind::Interval | Kind::Float(_) | Kind::Other => true,
        Kind::Array(element) => is_spelled_by_session(element),
        Kind::Bool
        | Kind::Int(_)
        | Kind::Numeric
        | Kind::Text
        | Kind::Uuid
        | Kind::Date
        | Kind::Time
        | Kind::Bytes
        | Kind::Json(_)
        | Kind::Enum(_) => false,
    }
}

/// The key's text from its values' JSON texts.
pub(super) fn key_text(values: &[String]) -> String {
    format!("('[' || {} || ']')", values.join(" || ',' || "))
}

/// One key value as JSON text.
pub(super) fn key_value(dialect: Dialect, kind: &Kind, value: &str) -> String {
    match (dialect, kind) {
        (Dialect::Postgres, Kind::Int(_) | Kind::Bool) => format!("{value}::text"),
        (Dialect::Postgres, Kind::Uuid) => format!("'\"' || {value}::text || '\"'"),
        (Dialect::Postgres, Kind::Numeric) => format!("to_json(trim_scale({value}))::text"),
        // Both zeros are one key.
        (Dialect::Postgres, Kind::Float(_)) => {
            format!("to_json(CASE WHEN {value} = 0 THEN '0' ELSE {value} END)::text")
        }
        (Dialect::Postgres, _) => format!("to_json({})::text", postgres_value(kind, value)),
        (Dialect::Sqlite, Kind::Numeric) => sqlite_json(kind, &trim_scale(value)),
        (Dialect::Sqlite, _) => sqlite_json(kind, value),
    }
}

fn postgres_row(table: &Table, columns: &[usize], qualifier: &str) -> String {
    let values: Vec<_> = columns
        .iter()
        .map(|&index| {
            let name = quote(&table.columns[index].name);
            let value =
                postgres_value(&table.columns[index].kind, &column(table, index, qualifier));
            format!("{value} AS {name}")
        })
        .collect();
    // The alias must not be the name of a column: that would be meant instead.
    let mut alias = "cutover_row".to_owned();
    while table.column(&alias).is_some() {
        alias.push('_');
    }
    format!(
        "(SELECT row_to_json({alias})::text FROM (SELECT {}) {alias})",
        values.join(", ")
    )
}

/// A value that `to_json` writes in contract form.
fn postgres_value(kind: &Kind, value: &str) -> String {
    match kind {
        Kind::Timestamptz => format!(
            "CASE WHEN {value} >= '0001-01-01 00:00:00Z' AND {value} < '10000-01-01 00:00:00Z' \
             THEN to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
             ELSE {value}::text END"
        ),
        Kind::Timestamp => format!(
            "CASE WHEN {value} >= '0001-01-01 00:00:00' AND {value} < '10000-01-01 00:00:00' \
             THEN to_char({value}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US') ELSE {value}::text END"
        ),
        Kind::Bytes => format!("translate(encode({value}, 'base64'), chr(10), '')"),
        // The output function, as a cast to text may write another text (inet) or JSON (composites).
        Kind::Other => {
            format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN format('%s', {value}) END")
        }
        Kind::Array(element) if needs_help(element) => format!(
            "CASE WHEN {value} IS NOT NULL THEN CAST({} AS json) END",
            nested(value, ['[', ']'], &json_text(element))
        ),
        Kind::Array(_)
        | Kind::Bool
        | Kind::Int(_)
        | Kind::Numeric
        | Kind::Float(_)
        | Kind::Text
        | Kind::Uuid
        | Kind::Date
        | Kind::Time
        | Kind::Interval
        | Kind::Json(_)
        | Kind::Enum(_) => value.to_owned(),
    }
}

/// The JSON text of an array's element.
fn json_text(element: &Kind) -> String {
    let item = postgres_value(element, "cutover_array.item");
    format!("coalesce(CAST(to_json({item}) AS text), 'null')")
}

fn needs_help(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Timestamptz | Kind::Timestamp | Kind::Bytes | Kind::Other
    )
}

fn sqlite_row(table: &Table, columns: &[usize], qualifier: &str) -> String {
    let members: Vec<_> = columns
        .iter()
        .map(|&index| {
            let kind = &table.columns[index].kind;
            let value = sqlite_json(kind, &column(table, index, qualifier));
            let name = serde_json::Value::from(table.columns[index].name.as_str()).to_string();
            format!(
                "{} || coalesce({value}, 'null')",
                literal(&format!("{name}:"))
            )
        })
        .collect();
    format!("('{{' || {} || '}}')", members.join(" || ',' || "))
}

/// A value as JSON text, or NULL for NULL.
fn sqlite_json(kind: &Kind, value: &str) -> String {
    let quoted =
        format!("CASE WHEN {value} IS NOT NULL THEN json_quote(CAST({value} AS TEXT)) END");
    match kind {
        Kind::Bool => format!("CASE {value} WHEN 0 THEN 'false' WHEN 1 THEN 'true' END"),
        Kind::Int(_) => format!("CAST({value} AS TEXT)"),
        Kind::Numeric => format!(
            "CASE WHEN CAST({value} AS TEXT) GLOB '*[Na]*' THEN json_quote({value}) \
             ELSE CAST({value} AS TEXT) END"
        ),
        Kind::Float(_) => format!(
            "CASE typeof({value}) WHEN 'real' THEN printf('%!.17g', {value}) \
             WHEN 'integer' THEN CAST({value} AS TEXT) WHEN 'text' THEN json_quote({value}) END"
        ),
        Kind::Timestamptz => sqlite_instant(value, "Z"),
        Kind::Timestamp => sqlite_instant(value, ""),
        Kind::Bytes => {
            format!("CASE WHEN {value} IS NOT NULL THEN '\"' || hex({value}) || '\"' END")
        }
        Kind::Json(_) | Kind::Array(_) => {
            format!("CASE WHEN json_valid({value}) THEN CAST({value} AS TEXT) ELSE {quoted} END")
        }
        Kind::Text
        | Kind::Uuid
        | Kind::Date
        | Kind::Time
        | Kind::Interval
        | Kind::Enum(_)
        | Kind::Other => quoted,
    }
}

/// What other writers left (`CURRENT_TIMESTAMP`) is spelled as the contract does; what is no instant stays.
fn sqlite_instant(value: &str, zone: &str) -> String {
    format!(
        "CASE WHEN {value} IS NOT NULL THEN json_quote(CASE \
         WHEN {value} GLOB '????-??-??T??:??:??.??????{zone}' THEN {value} \
         ELSE coalesce(strftime('%Y-%m-%dT%H:%M:%f', {value}) || '000{zone}', CAST({value} AS TEXT)) END) END"
    )
}

fn trim_scale(value: &str) -> String {
    let text = format!("CAST({value} AS TEXT)");
    format!(
        "CASE WHEN {text} GLOB '*.*' AND {text} NOT GLOB '*[eE]*' \
         THEN rtrim(rtrim({text}, '0'), '.') ELSE {text} END"
    )
}
