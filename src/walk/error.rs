//! Why a walk ended before its end.

use crate::contract::{Code, Error};
use crate::control::TransitionError;
use crate::sql::Fault;
use crate::stage::Stage;
use crate::storage::StorageError;

/// Why a walk over the tables did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// There is nothing to fill or to verify in this stage, or the stage moved meanwhile.
    #[error(
        "not possible in stage {0}: a backfill is for `dual_write` and `shadow`, a verify for `dual_write` to `ramp_down`"
    )]
    Stage(Stage),
    /// This replica believes its configuration instead of the control state.
    #[error("not possible on a pinned replica")]
    Pinned,
    /// A table that is not configured.
    #[error("no such table: {0}")]
    UnknownTable(String),
    /// What was owed is void since the walk began: it has to begin again.
    #[error("the journal was voided meanwhile; start again")]
    Voided,
    /// The legacy database, after patience.
    #[error("legacy: {0}")]
    Legacy(#[from] Fault),
    /// The storage service, after patience.
    #[error("storage: {0}")]
    Storage(#[from] StorageError),
    /// The verdict could not be recorded.
    #[error("the verdict was not recorded: {0}")]
    Control(#[from] TransitionError),
    /// A reply that does not hold what was asked for.
    #[error("{0}")]
    Unreadable(String),
    /// Somebody cancelled it.
    #[error("cancelled")]
    Cancelled,
}

impl WalkError {
    /// Whether the same may go well a little later. Everything a walk does can be done twice.
    #[must_use]
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Legacy(fault) => matches!(
                fault,
                Fault::Unavailable(_) | Fault::TimedOut | Fault::InDoubt(_)
            ),
            Self::Storage(StorageError::Unavailable(_) | StorageError::InDoubt(_)) => true,
            Self::Storage(StorageError::Rejected(error)) => error.code.retryable(),
            Self::Stage(_)
            | Self::Pinned
            | Self::UnknownTable(_)
            | Self::Voided
            | Self::Control(_)
            | Self::Unreadable(_)
            | Self::Cancelled => false,
        }
    }
}

impl From<WalkError> for Error {
    fn from(error: WalkError) -> Self {
        let message = error.to_string();
        let code = match error {
            WalkError::Control(error) => return error.into(),
            WalkError::Stage(_) | WalkError::Pinned | WalkError::Voided | WalkError::Cancelled => {
                Code::PreconditionFailed
            }
            WalkError::UnknownTable(_) => Code::UnknownTable,
            WalkError::Legacy(_) | WalkError::Storage(_) => Code::BackendUnavailable,
            WalkError::Unreadable(_) => Code::Internal,
        };
        Self::new(code, message)
    }
}
