//! What became of a call.

use crate::contract;

/// Why a call to storage has no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The service refused it and remembers that it did: it certainly did not happen.
    #[error("rejected: {0}")]
    Rejected(contract::Error),
    /// It was never executed (unroutable, connection refused, shed): it certainly did not happen.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Sent, and no answer: it may have happened, or may still happen until its deadline.
    #[error("in doubt: {0}")]
    InDoubt(String),
}

impl StorageError {
    /// The `kind` label of `cutover_backend_errors_total`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Unavailable(_) => "unavailable",
            Self::InDoubt(_) => "in_doubt",
        }
    }
}
