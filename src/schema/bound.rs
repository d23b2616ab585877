//! Requests bound to tables: what `bind` makes of a query, and all that SQL is rendered from.

use std::sync::Arc;

use serde_json::Value;

use super::Table;
use crate::contract::{Operator, Row};

/// A read.
#[derive(Clone, Debug)]
pub struct Read {
    /// Where from.
    pub table: Arc<Table>,
    /// What of it.
    pub kind: ReadKind,
    /// Which rows; soft-deleted rows are already excluded by it unless asked for.
    pub filter: Filter,
}

/// What a read returns.
#[derive(Clone, PartialEq, Debug)]
pub enum ReadKind {
    /// An array of rows.
    Rows {
        /// Column indexes, in the order asked for.
        columns: Vec<usize>,
        /// Complete: ends with the primary key.
        order: Vec<Sort>,
        /// At most this many.
        limit: Option<u64>,
        /// After this many.
        offset: Option<u64>,
    },
    /// `{"count": n}`.
    Count,
}

/// One term of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sort {
    /// The column's index.
    pub column: usize,
    /// From the greatest; NULLs first then.
    pub descending: bool,
}

/// A condition over one table.
#[derive(Clone, PartialEq, Debug)]
pub enum Filter {
    /// All; empty is true.
    All(Vec<Filter>),
    /// Any; empty is false.
    Any(Vec<Filter>),
    /// Not.
    Not(Box<Filter>),
    /// One column's test.
    Test(Test),
    /// The primary key is one of these (each the key's column values, in key order); empty is false.
    Keys(Vec<Vec<Value>>),
    /// In key order, strictly after this key.
    After(Vec<Value>),
}

/// One column's test, its value already checked against the column's kind.
#[derive(Clone, PartialEq, Debug)]
pub struct Test {
    /// The column's index.
    pub column: usize,
    /// The comparison; `Eq` and `Ne` never hold NULL (that is `IsNull`).
    pub operator: Operator,
    /// Right side: scalar, array for `In`, bool for `IsNull`.
    pub value: Value,
}

/// A write: one step, or a transaction's steps in order.
#[derive(Clone, Debug)]
pub struct Write {
    /// In order; reads only inside a transaction.
    pub steps: Vec<Step>,
    /// The reply is an array of the steps' replies.
    pub transaction: bool,
}

/// A member of a write.
#[derive(Clone, Debug)]
pub enum Step {
    /// Changes rows.
    Change(Change),
    /// Reads rows inside the same transaction.
    Read(Read),
}

/// One change of one table.
#[derive(Clone, Debug)]
pub enum Change {
    /// New rows; every row holds all of its key, except columns with a sequence.
    Insert {
        /// Where.
        table: Arc<Table>,
        /// The rows as given, values spelled canonically, missing UUID keys made.
        rows: Vec<Row>,
        /// The reply is one row.
        single: bool,
        /// Rows with the same primary key get the given columns set instead of a conflict.
        upsert: bool,
    },
    /// Changed rows.
    Update {
        /// Where.
        table: Arc<Table>,
        /// Which rows; excludes soft-deleted ones unless asked for.
        filter: Filter,
        /// Columns to set.
        set: Row,
        /// The filter pins the whole primary key by equality: the reply is a row or `null`.
        single: bool,
    },
    /// Removed rows; a soft delete is `SoftDelete`.
    Delete {
        /// Where.
        table: Arc<Table>,
        /// Which rows.
        filter: Filter,
        /// The reply is a row or `null`.
        single: bool,
    },
    /// Sets the table's soft-delete column to the time of the database.
    SoftDelete {
        /// Where.
        table: Arc<Table>,
        /// Which rows.
        filter: Filter,
        /// The reply is a row or `null`.
        single: bool,
    },
}

impl Read {
    /// Whole rows, soft-deleted ones included, in key order.
    #[must_use]
    pub fn whole_rows(table: &Arc<Table>, filter: Filter, limit: Option<u64>) -> Self {
        let in_key_order = |&column: &usize| Sort {
            column,
            descending: false,
        };
        Self {
            table: Arc::clone(table),
            kind: ReadKind::Rows {
                columns: table.every_column(),
                order: table.key.iter().map(in_key_order).collect(),
                limit,
                offset: None,
            },
            filter,
        }
    }
}

impl Change {
    /// The table that changes.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        match self {
            Self::Insert { table, .. }
            | Self::Update { table, .. }
            | Self::Delete { table, .. }
            | Self::SoftDelete { table, .. } => table,
        }
    }

    /// Whether the reply is one row (or `null`), not an array.
    #[must_use]
    pub fn is_single(&self) -> bool {
        match self {
            Self::Insert { single, .. }
            | Self::Update { single, .. }
            | Self::Delete { single, .. }
            | Self::SoftDelete { single, .. } => *single,
        }
    }
}

impl Write {
    /// The changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().filter_map(|step| match step {
            Step::Change(change) => Some(change),
            Step::Read(_) => None,
        })
    }
}
