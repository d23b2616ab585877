//! Why a transition did not happen, and the one place where that becomes an error of the contract.

use std::time::Duration;

use serde_json::json;

use crate::contract::{Code, Error};
use crate::sql::Fault;

use super::holder::{GateHolder, told};
use super::plan::Refused;

/// Why a change of the control state was not made.
#[derive(Debug, thiserror::Error)]
pub enum TransitionError {
    /// It may not be made.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The gate stayed shut: writers or other transactions held it for the whole time.
    #[error("gave up after {:.1} s: {}", after.as_secs_f64(), told(by))]
    GateHeld {
        /// How long it was tried.
        after: Duration,
        /// Who held it at the end, as far as the database says.
        by: Vec<GateHolder>,
    },
    /// What was owed was not paid within the pause; the stage is the one before, at rest.
    #[error("gave up draining: {0}")]
    NotDrained(Refused),
    /// The database did not let it happen.
    #[error("{0}")]
    Fault(#[from] Fault),
}

impl From<TransitionError> for Error {
    fn from(error: TransitionError) -> Self {
        let message = error.to_string();
        match error {
            TransitionError::Refused(refused) => {
                let details = json!({"refused": refused.name()});
                Self::new(code(&refused), message).with_details(details)
            }
            TransitionError::GateHeld { .. }
            | TransitionError::NotDrained(_)
            | TransitionError::Fault(Fault::Unavailable(_) | Fault::TimedOut) => {
                Self::new(Code::BackendUnavailable, message)
            }
            TransitionError::Fault(Fault::InDoubt(_)) => Self::new(
                Code::OutcomeUnknown,
                "the answer to the commit was lost: look at the epoch before asking again",
            ),
            TransitionError::Fault(
                Fault::Refused(_) | Fault::OtherSchema(_) | Fault::Unexpected(_),
            ) => Self::new(Code::Internal, message),
        }
    }
}

fn code(refused: &Refused) -> Code {
    match refused {
        Refused::NoReason
        | Refused::SameStage(_)
        | Refused::NotNeighbour { .. }
        | Refused::NotBack { .. }
        | Refused::NotLatched
        | Refused::NotRecovering => Code::InvalidRequest,
        Refused::EpochMoved { .. }
        | Refused::Latched
        | Refused::Draining
        | Refused::Recovering
        | Refused::Stale(_)
        | Refused::Pending(_)
        | Refused::Owed(_)
        | Refused::Unconfirmed(_)
        | Refused::AppliedBefore
        | Refused::MaintenanceInLive(_) => Code::PreconditionFailed,
    }
}

impl Refused {
    /// Its name, for programs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NoReason => "no_reason",
            Self::EpochMoved { .. } => "epoch_moved",
            Self::SameStage(_) => "same_stage",
            Self::NotNeighbour { .. } => "not_neighbour",
            Self::NotBack { .. } => "not_back",
            Self::Latched => "latched",
            Self::NotLatched => "not_latched",
            Self::Draining => "draining",
            Self::Recovering => "recovering",
            Self::NotRecovering => "not_recovering",
            Self::Stale(_) => "stale",
            Self::Pending(_) => "pending",
            Self::Owed(_) => "owed",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::AppliedBefore => "applied_before",
            Self::MaintenanceInLive(_) => "maintenance_in_live",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Epoch;

    #[test]
    fn an_unexpected_epoch_is_a_failed_precondition_and_a_held_gate_can_be_tried_again() {
        let moved = TransitionError::Refused(Refused::EpochMoved {
            expected: Epoch(1),
            actual: Epoch(2),
        });
        assert_eq!(Error::from(moved).code, Code::PreconditionFailed);
        let held = Error::from(TransitionError::GateHeld {
            after: Duration::from_secs(5),
            by: vec![],
        });
        assert!(held.code.retryable());
    }
}
