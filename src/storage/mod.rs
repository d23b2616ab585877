//! The storage service, reached by RPC over AMQP or HTTP.
//!
//! What matters about a call is whether it happened: the three errors say so, and nothing else decides
//! what the caller does next.

mod capability;
mod outcome;

pub use capability::{Capabilities, Capability};
pub use outcome::StorageError;
