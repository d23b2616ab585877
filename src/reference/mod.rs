//! The reference storage service, `cutover storage`: all of the contract over PostgreSQL or SQLite.
//!
//! It is a real service, and the standard that others are certified against: it refuses late writes at their
//! commit, recognises every repeat, fences keys and resolves doubts (rules P6 and P7). A request comes in by
//! `http` or `amqp`, passes `service` (faults on demand) and is executed by `engine`, whose promises rest on
//! the rows that `ledger` keeps; `sequences` follow the ids that came with rows. `lesser` takes capabilities away,
//! `events` tells the hub what changed.
//!
//! On the wire, beyond the contract: the members `deadline`, `attempt_id` and `fences` are headers (`fences`
//! a JSON object of key to token); a `batch` is answered by an array with one member per item, in order,
//! its reply or `{"error": {…}}`. A refusal whose code is not retryable is recorded with its attempt;
//! `overloaded`, `backend_unavailable` and `internal` are not, but over AMQP an attempt that is delivered again
//! is answered from the record or refused, never executed for the first time.

mod amqp;
mod answer;
mod catalog;
mod deadline;
mod engine;
mod events;
mod faults;
mod http;
mod ledger;
mod lesser;
mod members;
mod page;
mod refusal;
mod sequences;
mod service;
mod start;

pub use faults::Faults;
pub use start::{Broker, Options, StartError, Started, run, start};

#[cfg(test)]
mod tests;
