//! Why a transition did not happen, and the one place where that becomes an error of the contract.

use std::time::Duration;

use serde_json::json;

use crate::contract::{Code, Error};
use crate::sql::Fault;

use super::plan::Refused;

/// Why a change of the control state was not made.
#[derive(Debug, thiserror::Error)]
pub enum TransitionError {
    /// It may not be made.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The gate stayed shut: writers or other transactions held it for the whole pause.
    #[error("gave up after {0:?}: open transactions hold the gate")]
    GateHeld(Duration),
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
                let details = json!({"refused": name(&refused)});
                Self::new(code(&refused), message).with_details(details)
            }
            TransitionError::GateHeld(_)
            | TransitionError::NotDrained(_)
            | TransitionError::Fault(Fault::Unavailable(_) | Fault::TimedOut) => {
                Self::new(Code::BackendUnavailable, message)
            }
            TransitionError::Fault(Fault::InDoubt(_)) => Self::new(
                Code::OutcomeUnknown,
                "the answer to the commit was lost: look at the epoch before asking again",
            ),
            TransitionError::Fault(Fault::Refused(_) | Fault::Unexpected(_)) => {
                Self::new(Code::Internal, message)
            }
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
        | Refused::Owed(_)
        | Refused::Unconfirmed(_)
        | Refused::AppliedBefore => Code::PreconditionFailed,
    }
}

/// A refusal's name, for programs.
fn name(refused: &Refused) -> &'static str {
    match refused {
        Refused::NoReason => "no_reason",
        Refused::EpochMoved { .. } => "epoch_moved",
        Refused::SameStage(_) => "same_stage",
        Refused::NotNeighbour { .. } => "not_neighbour",
        Refused::NotBack { .. } => "not_back",
        Refused::Latched => "latched",
        Refused::NotLatched => "not_latched",
        Refused::Draining => "draining",
        Refused::Recovering => "recovering",
        Refused::NotRecovering => "not_recovering",
        Refused::Stale(_) => "stale",
        Refused::Owed(_) => "owed",
        Refused::Unconfirmed(_) => "unconfirmed",
        Refused::AppliedBefore => "applied_before",
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
        let held = Error::from(TransitionError::GateHeld(Duration::from_secs(5)));
        assert!(held.code.retryable());
    }
}
