//! JSON values as parameters, and rows as SQLite leaves them, finished.
//!
//! SQLite has five storage classes and no types, so the contract's spelling is what is stored: numerics
//! as text with every digit, instants in UTC with microseconds, bytes as BLOB.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Number, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::contract::Row;
use crate::schema::{Kind, Table};
use crate::sql::{Arg, Fault};

/// The text that PostgreSQL parses as a value of the kind; NULL for `null`, JSON's included.
pub(super) fn postgres_text(kind: &Kind, value: &Value) -> Option<String> {
    match (kind, value) {
        (_, Value::Null) => None,
        (Kind::Json(_), value) => Some(value.to_string()),
        (Kind::Array(element), Value::Array(items)) => Some(array_literal(element, items)),
        (_, Value::String(text)) => Some(text.clone()),
        (_, value) => Some(value.to_string()),
    }
}

/// PostgreSQL's array literal (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).
fn array_literal(element: &Kind, items: &[Value]) -> String {
    let parts: Vec<_> = items
        .iter()
        .map(|item| match item {
            // A further dimension, as the database takes it where it reads rows from JSON.
            Value::Array(inner) => array_literal(element, inner),
            Value::String(text) if *element == Kind::Bytes => {
                // The binder checked it; what is not base64 is refused by bytea.
                let hex = BASE64.decode(text).map(|bytes| to_hex(&bytes));
                format!("\"\\\\x{}\"", hex.unwrap_or_else(|_| "?".to_owned()))
            }
            item => match postgres_text(element, item) {
                None => "NULL".to_owned(),
                Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            },
        })
        .collect();
    format!("{{{}}}", parts.join(","))
}

/// What SQLite stores for a value of the kind.
pub(super) fn sqlite_arg(kind: &Kind, value: &Value) -> Arg {
    match (kind, value) {
        (_, Value::Null) => Arg::Text(None),
        (Kind::Json(_) | Kind::Array(_), value) => Arg::from(value.to_string()),
        (_, Value::Bool(flag)) => Arg::from(i64::from(*flag)),
        (Kind::Int(_), Value::Number(number)) => number
            .as_i64()
            .map_or_else(|| Arg::from(number.to_string()), Arg::from),
        (Kind::Float(_), Value::Number(number)) => number
            .as_f64()
            .map_or_else(|| Arg::from(number.to_string()), Arg::from),
        (Kind::Timestamptz, Value::String(text)) => Arg::from(instant(text)),
        (Kind::Uuid, Value::String(text)) => Arg::from(text.to_ascii_lowercase()),
        (Kind::Bytes, Value::String(text)) => BASE64
            .decode(text)
            .map_or_else(|_| Arg::from(text.as_str()), Arg::from),
        (_, Value::String(text)) => Arg::from(text.as_str()),
        (_, value) => Arg::from(value.to_string()),
    }
}

/// The same inside a JSON parameter; bytes as hexadecimal.
pub(super) fn sqlite_json(kind: &Kind, value: &Value) -> Value {
    match sqlite_arg(kind, value) {
        Arg::Text(text) => text.map_or(Value::Null, Value::String),
        Arg::Int(number) => number.map_or(Value::Null, Value::from),
        Arg::Float(number) => number.map_or(Value::Null, Value::from),
        Arg::Bool(flag) => flag.map_or(Value::Null, |flag| Value::from(i64::from(flag))),
        Arg::Bytes(bytes) => bytes.map_or(Value::Null, |bytes| Value::from(to_hex(&bytes))),
    }
}

/// An RFC 3339 instant in UTC with microseconds; any other text as it is.
fn instant(text: &str) -> String {
    let form =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|at| at.to_offset(time::UtcOffset::UTC).format(&form).ok())
        .unwrap_or_else(|| text.to_owned())
}

/// A row of SQLite in contract form: it has no base64 and no shortest float.
pub(crate) fn finish_row(table: &Table, row: String) -> Result<String, Fault> {
    let unfinished = |kind: &Kind| matches!(kind, Kind::Bytes | Kind::Float(_));
    if !table.columns.iter().any(|column| unfinished(&column.kind)) {
        return Ok(row);
    }
    let not_json = |_| Fault::Unexpected(format!("a row of {} is not JSON", table.name));
    let mut members: Row = serde_json::from_str(&row).map_err(not_json)?;
    for column in &table.columns {
        let Some(value) = members.get_mut(&column.name) else {
            continue;
        };
        match (&column.kind, &*value) {
            (Kind::Bytes, Value::String(hex)) => *value = Value::from(BASE64.encode(from_hex(hex))),
            (Kind::Float(_), Value::Number(number)) => {
                if let Some(number) = number.as_f64().and_then(Number::from_f64) {
                    *value = Value::Number(number);
                }
            }
            _ => {}
        }
    }
    Ok(Value::Object(members).to_string())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ok = write!(hex, "{byte:02x}");
        hex
    })
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default();
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            let value = pair.iter().fold(0, |value, &byte| value * 16 + digit(byte));
            u8::try_from(value).unwrap_or_default()
        })
        .collect()
}
