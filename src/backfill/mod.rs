//! Backfill: owes storage every row that legacy has, and every key that only storage has.
//!
//! It writes nothing but `copy` entries into the journal. The applier pays them in order with the row as
//! it is then, so a backfill cannot overwrite a newer write or bring a deleted row back (I4); rows that
//! appear meanwhile are captured anyway. How much it may owe at a time is bounded (`fill`). It is a record in
//! the database and not a task (`run`), so it outlives the replica that works on it, and each table's place is
//! written down with what is owed (`checkpoint`).

mod checkpoint;
mod ddl;
mod fill;
mod run;

pub use checkpoint::{Checkpoint, TableState, pending};
pub use ddl::COMPONENT;
pub use fill::{Throttle, work};
pub use run::{Asked, Begun, LEASE, Run, RunState, begin, claim, latest, steer};
