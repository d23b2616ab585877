//! The shapes of a query, as sent: names are still text, values are still JSON.

use serde_json::Value;

use super::{AttemptId, Key, OpId, Row};

/// A request: `{"db", "query", "op_id"?}`.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// The database the caller means.
    pub db: String,
    /// What to do.
    pub query: Query,
    /// Makes a write safe to repeat.
    pub op_id: Option<OpId>,
}

/// A query. The last three are spoken only to the storage service (see its capabilities).
#[derive(Clone, PartialEq, Debug)]
pub enum Query {
    /// Rows that match.
    Select(Select),
    /// How many match.
    Count(Count),
    /// New rows.
    Insert(Insert),
    /// New rows, or the given columns of rows with the same primary key.
    Upsert(Insert),
    /// Changed rows.
    Update(Update),
    /// Removed rows.
    Delete(Delete),
    /// All of these or none; never nested.
    Transaction(Vec<Query>),
    /// One page in key order.
    Range(Range),
    /// Many queries, each its own transaction.
    Batch(Vec<BatchItem>),
    /// What became of an attempt; from then on it is refused.
    Resolve(Resolve),
    /// What a table is like.
    Describe(Describe),
}

/// `select`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Select {
    /// The table.
    pub table: String,
    /// Which rows; none means all.
    pub filter: Option<Where>,
    /// Which columns; none means all.
    pub columns: Option<Vec<String>>,
    /// In which order; the primary key is always the last tie-breaker.
    pub order_by: Vec<Order>,
    /// At most this many rows.
    pub limit: Option<u64>,
    /// After this many rows.
    pub offset: Option<u64>,
    /// Also rows that are soft-deleted.
    pub include_deleted: bool,
}

/// `count`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Count {
    /// The table.
    pub table: String,
    /// Which rows; none means all.
    pub filter: Option<Where>,
    /// Also rows that are soft-deleted.
    pub include_deleted: bool,
}

/// `insert` and `upsert`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Insert {
    /// The table.
    pub table: String,
    /// The rows, in the order given.
    pub rows: Vec<Row>,
    /// `data` was one row, not an array: the reply is one row too.
    pub single: bool,
}

/// `update`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Update {
    /// The table.
    pub table: String,
    /// Which rows.
    pub filter: Option<Where>,
    /// Columns to set.
    pub data: Row,
    /// Matching everything is meant.
    pub all: bool,
    /// Also rows that are soft-deleted.
    pub include_deleted: bool,
}

/// `delete`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Delete {
    /// The table.
    pub table: String,
    /// Which rows.
    pub filter: Option<Where>,
    /// Remove the row even where the table has a soft-delete column.
    pub hard: bool,
    /// Matching everything is meant.
    pub all: bool,
    /// Also rows that are soft-deleted.
    pub include_deleted: bool,
}

/// `range`: rows after a key, in key order.
#[derive(Clone, PartialEq, Debug)]
pub struct Range {
    /// The table.
    pub table: String,
    /// The key's column values, in key order; none means from the start.
    pub after: Option<Vec<Value>>,
    /// At most this many rows.
    pub limit: u64,
}

/// One item of a `batch`.
#[derive(Clone, PartialEq, Debug)]
pub struct BatchItem {
    /// A query of the first kinds; not a batch, range or resolve.
    pub query: Query,
    /// This send of this item.
    pub attempt_id: AttemptId,
    /// Unix time in milliseconds after which the item must not commit.
    pub deadline_ms: i64,
    /// Fence tokens by key: older ones are refused.
    pub fences: Vec<(Key, i64)>,
}

/// `resolve`.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolve {
    /// The table.
    pub table: String,
    /// Rows by key: each the key's column values, in key order.
    pub keys: Vec<Vec<Value>>,
    /// The attempt in doubt.
    pub attempt_id: AttemptId,
}

/// `describe`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Describe {
    /// The table.
    pub table: String,
}

/// A condition tree. Entries of one object are ANDed.
#[derive(Clone, PartialEq, Debug)]
pub enum Where {
    /// All of them (an object's entries, or `and`); empty matches everything.
    And(Vec<Where>),
    /// Any of them; empty is treated as matching everything when judging whether a write is bounded.
    Or(Vec<Where>),
    /// Not this.
    Not(Box<Where>),
    /// One column's test.
    Column(String, Condition),
}

/// One test of one column.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    /// The comparison.
    pub operator: Operator,
    /// Its right side: a scalar, an array for `In`, a bool for `IsNull`.
    pub value: Value,
}

/// The comparisons of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// Equal; `null` is IS NULL.
    Eq,
    /// Not equal (SQL `<>`; `null` is IS NOT NULL).
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// One of an array.
    In,
    /// SQL LIKE, case-sensitive.
    Like,
    /// Is, or is not, NULL.
    IsNull,
}

/// One term of `order_by`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// The column.
    pub column: String,
    /// `-column`.
    pub descending: bool,
}

impl Query {
    /// The `type` member, also the `op` label of metrics.
    #[must_use]
    pub fn op(&self) -> &'static str {
        match self {
            Self::Select(_) => "select",
            Self::Count(_) => "count",
            Self::Insert(_) => "insert",
            Self::Upsert(_) => "upsert",
            Self::Update(_) => "update",
            Self::Delete(_) => "delete",
            Self::Transaction(_) => "transaction",
            Self::Range(_) => "range",
            Self::Batch(_) => "batch",
            Self::Resolve(_) => "resolve",
            Self::Describe(_) => "describe",
        }
    }
}
