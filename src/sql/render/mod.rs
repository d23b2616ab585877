//! Bound requests as SQL text and parameters, for both dialects.
//!
//! Identifiers are always quoted and values are always parameters. Values are parsed and formatted by the
//! database, not by a table of types of our own: PostgreSQL gets text and casts it, SQLite gets the
//! contract's spelling. Many rows or keys travel as one JSON parameter, so the text of a statement does not
//! depend on how many there are and its prepared form is found again.

mod change;
mod faithful;
mod filter;
mod format;
mod insert;
mod keyed;
mod nested;
mod parse;
mod read;
mod sequence;
mod value;

pub use change::{Dml, dml};
pub(crate) use change::{assignments, soft_delete};
pub(crate) use filter::where_clause;
pub(crate) use format::whole_row_expr;
pub use format::{is_spelled_by_session, key_expr, row_expr};
pub(crate) use insert::{
    groups, has_whole_key, must_update_first, on_conflict, record_source, target,
};
pub use keyed::{canonical_keys, keys_matching, put_rows, remove_keys, rows_by_keys};
pub use read::read;
pub use sequence::{advance_sequences, next_values};
pub(crate) use value::finish_row;

use super::{Arg, Dialect};
use crate::schema::Table;

/// The alias of the table in every statement that names one.
pub(crate) const ALIAS: &str = "r";

/// SQL text and its parameters.
#[derive(Clone, PartialEq, Debug)]
pub struct Statement {
    /// Placeholders are `$1`, `$2`, … on both dialects.
    pub text: String,
    /// In the order of the placeholders.
    pub args: Vec<Arg>,
}

/// The parameters of a statement that is being written.
#[derive(Debug)]
pub(crate) struct Params {
    pub(crate) dialect: Dialect,
    pub(crate) args: Vec<Arg>,
}

impl Params {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            args: Vec::new(),
        }
    }

    /// Adds a parameter and returns its placeholder. PostgreSQL is told its type, so that it does not
    /// guess another from the context.
    pub(crate) fn push(&mut self, arg: impl Into<Arg>) -> String {
        let arg = arg.into();
        let cast = match (self.dialect, &arg) {
            (Dialect::Sqlite, _) => "",
            (Dialect::Postgres, Arg::Text(_)) => "::text",
            (Dialect::Postgres, Arg::Int(_)) => "::int8",
            (Dialect::Postgres, Arg::Float(_)) => "::float8",
            (Dialect::Postgres, Arg::Bool(_)) => "::bool",
            (Dialect::Postgres, Arg::Bytes(_)) => "::bytea",
        };
        self.args.push(arg);
        format!("${}{cast}", self.args.len())
    }

    pub(crate) fn statement(self, text: String) -> Statement {
        Statement {
            text,
            args: self.args,
        }
    }
}

/// An identifier, quoted.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal; only for names that the database itself told us.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A column, quoted and qualified.
pub(crate) fn column(table: &Table, index: usize, qualifier: &str) -> String {
    let name = quote(&table.columns[index].name);
    if qualifier.is_empty() {
        name
    } else {
        format!("{qualifier}.{name}")
    }
}

/// `ORDER BY` terms of the primary key.
pub(crate) fn key_order(dialect: Dialect, table: &Table, qualifier: &str) -> String {
    let terms: Vec<_> = table
        .key
        .iter()
        .map(|&index| {
            let sort = crate::schema::Sort {
                column: index,
                descending: false,
            };
            read::order_term(dialect, table, sort, qualifier)
        })
        .collect();
    terms.join(", ")
}
