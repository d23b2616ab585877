//! What statements are given: few types, the same for both databases.

use crate::contract::{AttemptId, Epoch, OpId, Token};

/// A statement's parameter.
#[derive(Clone, PartialEq, Debug)]
pub enum Arg {
    /// Text, or NULL of type text.
    Text(Option<String>),
    /// A 64-bit integer, or NULL.
    Int(Option<i64>),
    /// A 64-bit float, or NULL.
    Float(Option<f64>),
    /// A boolean (0 or 1 in SQLite), or NULL.
    Bool(Option<bool>),
    /// Bytes, or NULL.
    Bytes(Option<Vec<u8>>),
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}
impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}
impl From<Option<String>> for Arg {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Arg {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}
impl From<Option<i64>> for Arg {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}
impl From<bool> for Arg {
    fn from(flag: bool) -> Self {
        Self::Bool(Some(flag))
    }
}
impl From<f64> for Arg {
    fn from(number: f64) -> Self {
        Self::Float(Some(number))
    }
}
impl From<Vec<u8>> for Arg {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}
impl From<OpId> for Arg {
    fn from(id: OpId) -> Self {
        Self::Text(Some(id.to_string()))
    }
}
impl From<Token> for Arg {
    fn from(token: Token) -> Self {
        Self::Text(Some(token.to_string()))
    }
}
impl From<AttemptId> for Arg {
    fn from(attempt: AttemptId) -> Self {
        Self::Text(Some(attempt.to_string()))
    }
}
impl From<Epoch> for Arg {
    fn from(epoch: Epoch) -> Self {
        Self::Int(Some(epoch.0))
    }
}
