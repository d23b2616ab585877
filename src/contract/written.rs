//! Rows that a database wrote, read one by one and column by column.
//!
//! A `json` column takes what no strict reader does: a name twice in one object, half of a surrogate pair, nesting
//! without end. One such document must neither be altered in silence nor keep its neighbours from being read.

use serde_json::Value;
use serde_json::value::RawValue;

use super::strict::{JsonLimits, parse_json};
use super::{Error, Row};

/// The contract's own rules, without a limit of their own on bytes and nesting.
const RULES: JsonLimits = JsonLimits {
    bytes_max: usize::MAX,
    depth_max: usize::MAX,
};

/// A row, and the names of its columns whose values the contract cannot carry; those have the text of the value.
///
/// # Errors
/// `invalid_request` when it is no row at all.
pub fn carried_row(json: &str) -> Result<(Row, Vec<String>), Error> {
    match parse_json(json.as_bytes(), &RULES) {
        Ok(Value::Object(row)) => Ok((row, Vec::new())),
        Ok(_) => Err(no_row()),
        Err(_) => members(json, |text| parse_json(text.as_bytes(), &RULES).ok()),
    }
}

/// Rows to compare. A value that cannot be read is the text of it, and so equal to none that can.
///
/// # Errors
/// `invalid_request` when they are no rows at all.
pub fn written_rows(json: &str) -> Result<Vec<Row>, Error> {
    if let Ok(rows) = serde_json::from_str(json) {
        return Ok(rows);
    }
    let rows: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| no_row())?;
    let read = |row: &&RawValue| match serde_json::from_str(row.get()) {
        Ok(row) => Ok(row),
        Err(_) => members(row.get(), |text| serde_json::from_str(text).ok()).map(|(row, _)| row),
    };
    rows.iter().map(read).collect()
}

/// A row of which each value is read for itself.
fn members(json: &str, read: impl Fn(&str) -> Option<Value>) -> Result<(Row, Vec<String>), Error> {
    let texts: indexmap::IndexMap<String, &RawValue> =
        serde_json::from_str(json).map_err(|_| no_row())?;
    let mut unread = Vec::new();
    let row = texts.into_iter().map(|(name, text)| {
        let value = read(text.get()).unwrap_or_else(|| {
            unread.push(name.clone());
            Value::from(text.get())
        });
        (name, value)
    });
    let row = row.collect();
    Ok((row, unread))
}

fn no_row() -> Error {
    Error::new(super::Code::InvalidRequest, "a row that is none")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A document that nobody here can read, by column.
    const STRANGE: [(&str, &str); 4] = [
        ("twice", r#"{"a":1,"a":2}"#),
        ("half", r#""\ud800""#),
        ("zero", r#""\u0000""#),
        ("private", r#"{"$serde_json::private::Number":"1"}"#),
    ];

    #[test]
    fn what_cannot_be_carried_is_named_and_the_rest_is_read() {
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        for (name, document) in STRANGE.into_iter().chain([("deep", deep.as_str())]) {
            let row = format!(r#"{{"id":1,"{name}":{document},"n":1.50}}"#);
            let (row, unread) = carried_row(&row).unwrap();
            assert_eq!(unread, [name]);
            assert_eq!(
                (&row["id"], row["n"].to_string().as_str()),
                (&json!(1), "1.50")
            );
        }
        let plain = r#"{"id":1,"j":{"a":[1,{"b":null}]}}"#;
        let (row, unread) = carried_row(plain).unwrap();
        assert_eq!(
            (Value::Object(row).to_string().as_str(), unread.len()),
            (plain, 0)
        );
    }

    #[test]
    fn a_document_that_cannot_be_read_costs_no_other_row() {
        let rows = written_rows(r#"[{"id":1,"j":"\ud800"},{"id":2,"j":{}}]"#).unwrap();
        assert_eq!(rows[0]["j"], json!(r#""\ud800""#));
        assert_eq!(rows[1]["j"], json!({}));
        assert!(written_rows("[1]").is_err());
    }
}
