//! A successful reply. It stays JSON text: most replies go from a backend to the caller untouched, and
//! text keeps every digit.

use serde_json::Value;

/// One row: column name to JSON value, in column order.
pub type Row = serde_json::Map<String, Value>;

/// The body of a successful reply, as JSON text: an array of rows, a row, `null`, or `{"count": n}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    json: String,
}

impl Reply {
    /// A reply from JSON text that a backend made.
    #[must_use]
    pub fn from_json(json: String) -> Self {
        Self { json }
    }

    /// A reply from a value.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        Self {
            json: value.to_string(),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// The text, owned.
    #[must_use]
    pub fn into_json(self) -> String {
        self.json
    }

    /// The reply parsed.
    ///
    /// # Errors
    /// When the text is not JSON: the backend that made it does not keep the contract.
    pub fn parse(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(&self.json)
    }
}
