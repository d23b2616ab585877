//! The query contract: what the front doors, the storage service and the reference service speak.
//!
//! Everything here is plain data. It knows JSON and nothing else: no table exists yet (that is `schema`),
//! no SQL and no transport. Parsing is strict because a member that is ignored today is a write that is
//! lost tomorrow.

mod condition;
mod description;
mod error;
mod ids;
mod members;
mod query;
mod reply;
mod strict;
mod wire;
mod written;

pub use description::{DescribedColumn, Description, ForeignKey, GeneratedBy, Holds, OnDelete};
pub use error::{Code, Error};
pub use ids::{AttemptId, Epoch, Key, OpId, Token};
pub use query::{
    BatchItem, Condition, Count, Delete, Describe, Insert, Operator, Order, Query, Range, Request,
    Resolve, Select, Update, Where,
};
pub use reply::{Reply, Row};
pub use strict::{JsonLimits, parse_json};
pub use written::{carried_row, written_rows};

pub(crate) use members::shown;
