//! Values as the database reads them: a parameter, or a part of a JSON parameter, as SQL.
//!
//! The type of a value is the column's without its modifiers: an explicit cast to `varchar(3)` cuts and
//! one to `numeric(10,2)` rounds without a word, while the assignment to the column refuses what does not
//! fit, and a comparison must not round at all.

use std::borrow::Cow;

use serde_json::Value;

use super::nested::nested;
use super::{Params, value};
use crate::schema::{Column, Kind};
use crate::sql::Dialect;

/// The part of an array literal that an element in base64 stands for.
const BYTES: &str =
    r#"coalesce('"\\x' || encode(decode(cutover_array.item, 'base64'), 'hex') || '"', 'NULL')"#;

/// One value of a column as a parameter.
pub(crate) fn scalar(params: &mut Params, column: &Column, value: &Value) -> String {
    match params.dialect {
        Dialect::Postgres => {
            let placeholder = params.push(value::postgres_text(&column.kind, value));
            from_text(&column.kind, &column.base_type, &placeholder)
        }
        Dialect::Sqlite => params.push(value::sqlite_arg(&column.kind, value)),
    }
}

/// The expression that reads a value from its text in PostgreSQL.
pub(super) fn from_text(kind: &Kind, base_type: &str, text: &str) -> String {
    match kind {
        Kind::Bytes => format!("decode({text}, 'base64')"),
        Kind::Text if !is_blank_padded(base_type) => text.to_owned(),
        _ => format!("CAST({text} AS {})", value_type(kind, base_type)),
    }
}

/// The expression that reads a value from a JSON array's member, `array -> index`.
pub(super) fn from_member(
    dialect: Dialect,
    kind: &Kind,
    base_type: &str,
    array: &str,
    index: usize,
) -> String {
    let text = format!("({array} ->> {index})");
    match (dialect, kind) {
        (Dialect::Sqlite, Kind::Bytes) => format!("unhex({text})"),
        (Dialect::Sqlite, _) => text,
        (Dialect::Postgres, Kind::Array(element)) => {
            let element_type = value_type(element, element_type(base_type));
            let item = match element.as_ref() {
                Kind::Bytes => "decode(item, 'base64')".to_owned(),
                _ => format!("CAST(item AS {element_type})"),
            };
            format!("ARRAY(SELECT {item} FROM jsonb_array_elements_text({array} -> {index}) item)")
        }
        (Dialect::Postgres, _) => from_text(kind, base_type, &text),
    }
}

/// The type that `json_to_recordset` reads a column as, and what makes the value of it.
pub(super) fn from_record(column: &Column, field: &str) -> (String, String) {
    match &column.kind {
        Kind::Bytes => ("text".to_owned(), format!("decode({field}, 'base64')")),
        Kind::Array(element) if **element == Kind::Bytes => (
            "text[]".to_owned(),
            format!(
                "CASE WHEN {field} IS NOT NULL THEN CAST({} AS bytea[]) END",
                nested(field, ['{', '}'], BYTES)
            ),
        ),
        kind => (
            value_type(kind, &column.base_type).into_owned(),
            field.to_owned(),
        ),
    }
}

/// The type of a column's values, without modifiers.
pub(super) fn value_type<'a>(kind: &Kind, base_type: &'a str) -> Cow<'a, str> {
    let name = match kind {
        Kind::Bool => "bool",
        Kind::Int(16) => "int2",
        Kind::Int(32) => "int4",
        Kind::Int(_) => "int8",
        Kind::Numeric => "numeric",
        Kind::Float(32) => "float4",
        Kind::Float(_) => "float8",
        Kind::Text if is_blank_padded(base_type) => "bpchar",
        Kind::Text => "text",
        Kind::Uuid => "uuid",
        Kind::Timestamptz => "timestamptz",
        Kind::Timestamp => "timestamp",
        Kind::Date => "date",
        Kind::Time => "time",
        Kind::Interval => "interval",
        Kind::Bytes => "bytea",
        Kind::Json(true) => "jsonb",
        Kind::Json(false) => "json",
        Kind::Array(element) => {
            return Cow::Owned(format!(
                "{}[]",
                value_type(element, element_type(base_type))
            ));
        }
        Kind::Enum(_) | Kind::Other => base_type,
    };
    Cow::Borrowed(name)
}

/// `character(n)`: trailing blanks do not count when it is compared, unless it is cast to text.
pub(super) fn is_blank_padded(base_type: &str) -> bool {
    base_type == "character" || base_type.starts_with("character(") || base_type == "bpchar"
}

fn element_type(base_type: &str) -> &str {
    base_type.strip_suffix("[]").unwrap_or(base_type)
}
