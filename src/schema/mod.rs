//! Tables as the database itself describes them, and requests bound to them.
//!
//! Nothing here asks a database (`sql::introspect` does); a bound request names tables and columns that
//! exist and values that fit, so what is wrong in a request is refused before a backend is touched.

mod bind;
mod bound;
#[cfg(test)]
pub(crate) mod fixture;
mod instant;
mod keys;
mod kind;
mod relation;
mod table;
mod unbind;
mod value;

pub use bind::{BindLimits, Bound, bind, bind_keys, bind_range};
pub use bound::{Change, Filter, Read, ReadKind, Sort, Step, Test, Write};
pub use kind::{Generated, Kind};
pub use relation::{References, Relation};
pub use table::{Column, Memo, OnChange, Policy, Reference, Schema, Table};
pub use unbind::{read_query, soft_delete_row, write_query};

pub(crate) use value::decimal;
