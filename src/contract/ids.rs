//! Identifiers that must never be mixed up, each a type of its own.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names one write of one client, whatever is retried or redelivered: it takes effect at most once per backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub Uuid);

/// Names one send of one request to the storage service; fresh for every send (rule P7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub Uuid);

/// Proves that whoever settles a journal entry is whoever claimed it (rules P1, P2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub Uuid);

/// Grows by one with every change of the control state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

/// A primary key in canonical form: the text of a JSON array of the key's column values, in key order.
///
/// Only SQL makes one (`sql::render`), so that two spellings of one value are one key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

impl OpId {
    /// A new id, ordered by time so that index inserts stay local.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl AttemptId {
    /// A new id for one send.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Token {
    /// A new owner token for one claim.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! show_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
show_inner!(OpId, AttemptId, Token, Epoch, Key);
