//! Takes the members out of one JSON object, each once, each of its type.
//!
//! A member that is not known is refused by name: ignored today, it is a write that is lost tomorrow.
//! Messages name members, never values.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Code, Error};

/// Longest name that is repeated in a message, in characters.
const SHOWN_MAX: usize = 64;

/// An object whose members are all known; each is taken out by its type.
pub(super) struct Members {
    what: &'static str,
    map: Map<String, Value>,
}

/// An `invalid_request`.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, message)
}

/// A name as messages show it: quoted, escaped and cut to a sensible length.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

impl Members {
    /// Opens an object; `what` names it in messages.
    pub(super) fn open(what: &'static str, value: Value, allowed: &[&str]) -> Result<Self, Error> {
        let Value::Object(map) = value else {
            return Err(invalid(format!("{what} must be an object")));
        };
        if let Some(unknown) = map.keys().find(|key| !allowed.contains(&key.as_str())) {
            let message = format!(
                "{what} has no member {}; it has {}",
                shown(unknown),
                allowed.join(", ")
            );
            return Err(invalid(message));
        }
        Ok(Self { what, map })
    }

    /// A member that may be missing; `null` is as good as missing.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A member that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<Value, Error> {
        self.take(name)
            .ok_or_else(|| invalid(format!("{} needs a member {name}", self.what)))
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, name: &str) -> Result<String, Error> {
        match self.required(name)? {
            Value::String(text) => Ok(text),
            _ => Err(self.must_be(name, "text")),
        }
    }

    /// A boolean, false when missing.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Error> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(self.must_be(name, "true or false")),
        }
    }

    /// A count that may be missing.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) => Ok(Some(count)),
            None => Err(self.must_be(name, "a non-negative integer")),
        }
    }

    /// An array that must be there and not be empty.
    pub(super) fn array(&mut self, name: &str) -> Result<Vec<Value>, Error> {
        match self.required(name)? {
            Value::Array(items) if !items.is_empty() => Ok(items),
            _ => Err(self.must_be(name, "a non-empty array")),
        }
    }

    /// A UUID that may be missing.
    pub(super) fn uuid(&mut self, name: &str) -> Result<Option<Uuid>, Error> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_str().map(Uuid::parse_str) {
            Some(Ok(uuid)) => Ok(Some(uuid)),
            _ => Err(self.must_be(name, "a UUID")),
        }
    }

    /// The error for a member of the wrong type.
    pub(super) fn must_be(&self, name: &str, expected: &str) -> Error {
        invalid(format!("{}: {name} must be {expected}", self.what))
    }
}
