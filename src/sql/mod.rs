//! Everything that talks SQL: connections, statements for both dialects, the shape of a database, faults.
//!
//! The only module that knows `sqlx`. Others hand it bound requests or text in the portable subset.

mod blueprint;
mod db;
mod dialect;
mod fault;
mod identity;
mod install;
mod introspect;
mod listen;
mod lock;
pub mod render;
mod run;
mod sqlite_change;
#[cfg(test)]
mod tests;

pub use blueprint::{Blueprint, blueprint};
pub use db::{Arg, Db, PoolOptions, Record, Tx};
pub use dialect::Dialect;
pub use fault::{Fault, Refusal};
pub use identity::{Identity, identity};
pub use install::{Component, INSTALL_LOCK, Step, ground_script};
pub use introspect::{IntrospectError, TableSpec, introspect};
pub use listen::Listener;
pub use run::{Applied, Held, reply_of};
