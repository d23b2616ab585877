//! Everything that talks SQL: connections, statements for both dialects, the shape of a database, faults.
//!
//! The only module that knows `sqlx`. Others hand it bound requests or text in the portable subset.

mod arg;
mod blueprint;
mod commit;
mod db;
mod describe;
mod dialect;
mod fault;
mod identity;
mod install;
mod introspect;
mod listen;
mod lock;
mod open;
pub mod render;
mod run;
mod sqlite_change;
#[cfg(test)]
mod tests;

pub use arg::Arg;
pub use blueprint::{Blueprint, blueprint};
pub use db::{Db, PoolOptions, Record, Tx};
pub use describe::describe;
pub use dialect::Dialect;
pub use fault::{Fault, Refusal};
pub use identity::{Identity, identity};
pub use install::{Component, INSTALL_LOCK, Step, ground_script};
pub use introspect::{IntrospectError, TableSpec, introspect};
pub use listen::Listener;
pub use open::{IDLE_IN_TRANSACTION_MAX, SPELLING};
pub use run::{Applied, Held, reply_of};
