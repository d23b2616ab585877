//! The storage service, reached by RPC over AMQP or HTTP.
//!
//! What matters about a call is whether it happened: the three errors say so, and nothing else decides
//! what the caller does next. Nothing here sends anything twice: a retry is a new attempt, and only whoever
//! owns the journal entry may decide on one (rule P7).

mod amqp;
mod call;
mod capability;
mod client;
mod http;
mod keyed;
mod look;
mod outcome;
mod pay;
mod promise;
mod rehearsal;
#[cfg(test)]
mod tests;

pub use call::{Call, UnixMs};
pub use capability::{Capabilities, Capability};
pub use client::{AmqpOptions, HttpOptions, OptionsError, Storage, StorageOptions, Transport};
pub use keyed::{Page, Resolved};
pub use look::Look;
pub use outcome::StorageError;
pub use pay::{Paid, Payment};
pub use promise::Promise;
pub use rehearsal::{REHEARSED_FIELD, Rehearsal, Rehearsing};
