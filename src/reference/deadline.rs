//! When a request is too late.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::contract::{Code, Error};

/// Whether a deadline (unix time in milliseconds) has passed by this host's clock. Only good enough for
/// reads and for a message's age; a write is judged by the database's clock at its commit.
pub(super) fn is_past(deadline_ms: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.is_ok_and(|now| i128::from(deadline_ms) < now.as_millis().try_into().unwrap_or(i128::MAX))
}

/// The refusal of a late request.
pub(super) fn late() -> Error {
    Error::new(
        Code::DeadlineExceeded,
        "the request's deadline has passed; nothing was done",
    )
}
