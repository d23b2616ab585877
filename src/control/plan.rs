//! Which moves exist, and what stands in their way. Pure: a state and a request in, a plan or a refusal out.

use serde_json::Value;

use crate::contract::Epoch;

use super::maintenance::Maintained;
use super::state::{Phase, State};
use crate::stage::{Backend, Stage};

/// Whose hand is on the flag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransitionKind {
    /// A person, through the admin API.
    Operator,
    /// The flag file.
    File,
    /// A trigger of the guard. It only ever goes back, and latches.
    Guard,
    /// A person's `rollback`. It only ever goes back, and latches.
    Rollback,
    /// The proxy itself: a journal that is full. It only ever goes back.
    Proxy,
}

/// A wish to be in another stage.
#[derive(Clone, PartialEq, Debug)]
pub struct TransitionRequest {
    /// Where to.
    pub to: Stage,
    /// Whose hand.
    pub kind: TransitionKind,
    /// Who: a token's name, `flag file`, a trigger's name.
    pub actor: String,
    /// Why; never empty.
    pub reason: String,
    /// The change ticket.
    pub ticket: Option<String>,
    /// Refuse if the epoch is another.
    pub expected_epoch: Option<Epoch>,
    /// Override everything but what would lose writes.
    pub force: bool,
    /// Only say what would happen.
    pub dry_run: bool,
    /// What the decision rests on, for the audit record. Holds no row values.
    pub evidence: Value,
}

/// Why a change is not made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// No reason was given.
    #[error("a reason is required")]
    NoReason,
    /// The epoch is not the one the caller saw.
    #[error("the epoch is {actual}, not {expected}: look again before deciding")]
    EpochMoved {
        /// The epoch the caller saw.
        expected: Epoch,
        /// The epoch.
        actual: Epoch,
    },
    /// Already there.
    #[error("the stage is {0} already")]
    SameStage(Stage),
    /// A stage would be skipped.
    #[error("{from} does not lead to {to}: forward only one stage at a time")]
    NotNeighbour {
        /// The current stage.
        from: Stage,
        /// The stage asked for.
        to: Stage,
    },
    /// A rollback that would go forward.
    #[error("a rollback from {from} cannot lead to {to}")]
    NotBack {
        /// The current stage.
        from: Stage,
        /// The stage asked for.
        to: Stage,
    },
    /// After a rollback nothing advances until an operator re-arms.
    #[error("latched by a rollback or a freeze: find out why, then re-arm")]
    Latched,
    /// Nothing is latched.
    #[error("not latched")]
    NotLatched,
    /// A transition is under way.
    #[error("a transition is under way")]
    Draining,
    /// History was lost.
    #[error("recovering after lost history: run `recover` first")]
    Recovering,
    /// There is nothing to recover from.
    #[error("not recovering")]
    NotRecovering,
    /// The backend that would be relied on lacks acknowledged writes.
    #[error("{} is stale: {}", .0, mended_by(*.0))]
    Stale(Backend),
    /// Storage was not filled with tables that joined.
    #[error("{0} tables are pending: backfill and verify them first")]
    Pending(i64),
    /// Entries are owed to the backend that would become the authority or its fallback.
    #[error("{0} entries are still owed")]
    Owed(i64),
    /// Replicas have not confirmed the epoch, or hold debts that are not in the journal yet.
    #[error("{0} replicas have not confirmed the epoch")]
    Unconfirmed(i64),
    /// This content of the flag file was applied before.
    #[error("this content of the flag file was applied before")]
    AppliedBefore,
    /// In `live` callers need storage.
    #[error("in live callers need {0}: roll back first, and then start the maintenance")]
    MaintenanceInLive(Maintained),
}

/// What makes a backend that lacks writes whole again.
fn mended_by(backend: Backend) -> &'static str {
    match backend {
        Backend::Legacy => {
            "`cutover verify --repair` and then a clean full `cutover verify` before anything relies on it"
        }
        Backend::Storage => {
            "`cutover backfill` and then a clean full `cutover verify` before anything relies on it"
        }
    }
}

/// A move that may be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The current stage.
    pub from: Stage,
    /// The stage afterwards.
    pub to: Stage,
    /// Whether writers hold until nothing is owed.
    pub drains: bool,
    /// Whether nothing advances afterwards until an operator re-arms.
    pub latches: bool,
    /// What `force` overrode.
    pub overridden: Vec<Refused>,
}

impl TransitionKind {
    /// Whether it goes on trying while somebody holds the gate: giving the authority back cannot wait for a
    /// better day, and going ahead can.
    pub(super) fn insists(self) -> bool {
        match self {
            Self::Guard | Self::Rollback => true,
            Self::Operator | Self::File | Self::Proxy => false,
        }
    }

    /// As it is spelled in the audit and in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::File => "flag_file",
            Self::Guard => "guard",
            Self::Rollback => "rollback",
            Self::Proxy => "proxy",
        }
    }

    fn latches(self) -> bool {
        match self {
            Self::Guard | Self::Rollback => true,
            Self::Operator | Self::File | Self::Proxy => false,
        }
    }

    fn only_goes_back(self) -> bool {
        match self {
            Self::Guard | Self::Rollback | Self::Proxy => true,
            Self::Operator | Self::File => false,
        }
    }
}

impl Refused {
    /// Whether `force` may override it. What is left would lose writes or has no meaning.
    fn yields_to_force(&self) -> bool {
        match self {
            Self::Latched => true,
            Self::NoReason
            | Self::EpochMoved { .. }
            | Self::SameStage(_)
            | Self::NotNeighbour { .. }
            | Self::NotBack { .. }
            | Self::NotLatched
            | Self::Draining
            | Self::Recovering
            | Self::NotRecovering
            | Self::Stale(_)
            | Self::Pending(_)
            | Self::Owed(_)
            | Self::Unconfirmed(_)
            | Self::AppliedBefore
            | Self::MaintenanceInLive(_) => false,
        }
    }
}

/// Judges a request.
///
/// # Errors
/// The first thing that stands in its way.
pub fn plan(current: &State, request: &TransitionRequest) -> Result<Plan, Refused> {
    if let Some(expected) = request.expected_epoch
        && expected != current.epoch
    {
        return Err(Refused::EpochMoved {
            expected,
            actual: current.epoch,
        });
    }
    let (from, to) = (current.stage, request.to);
    let plan = Plan {
        from,
        to,
        drains: drains(from, to),
        latches: request.kind.latches(),
        overridden: vec![],
    };
    objections(current, request, &plan)
        .into_iter()
        .try_fold(plan, |mut plan, objection| {
            if request.force && objection.yields_to_force() {
                plan.overridden.push(objection);
                Ok(plan)
            } else {
                Err(objection)
            }
        })
}

/// Everything that stands in the way, the plainest first.
fn objections(current: &State, request: &TransitionRequest, plan: &Plan) -> Vec<Refused> {
    let (from, to) = (plan.from, plan.to);
    let forward = to > from;
    let mut found = vec![];
    let mut object = |holds: bool, objection: Refused| {
        if holds {
            found.push(objection);
        }
    };
    object(request.reason.trim().is_empty(), Refused::NoReason);
    object(current.phase == Phase::Recovering, Refused::Recovering);
    object(from == to, Refused::SameStage(to));
    object(
        forward && request.kind.only_goes_back(),
        Refused::NotBack { from, to },
    );
    object(
        forward && from.next() != Some(to),
        Refused::NotNeighbour { from, to },
    );
    // A way back that needs no drain of its own ends a drain under way; everything else waits for it.
    object(
        current.phase == Phase::Draining && (forward || plan.drains),
        Refused::Draining,
    );
    object(forward && current.latched, Refused::Latched);
    for backend in relies_on(from, to) {
        object(current.stale(*backend), Refused::Stale(*backend));
    }
    found
}

/// Whether writers must hold until nothing is owed.
///
/// Forward into `live` (I7); and whenever legacy, paid only as well as could be in `ramp_down`, is to be
/// relied on again (P15).
fn drains(from: Stage, to: Stage) -> bool {
    match (from, to) {
        (Stage::Shadow, Stage::Live) => true,
        (Stage::RampDown | Stage::Complete, to) => to < Stage::RampDown,
        (Stage::Off | Stage::DualWrite | Stage::Shadow | Stage::Live, _) => false,
    }
}

/// The backends whose acknowledged writes the stage `to` takes for complete, coming from `from`.
fn relies_on(from: Stage, to: Stage) -> &'static [Backend] {
    match to {
        // Legacy is the authority on both sides of these moves, or is about to be.
        Stage::Off | Stage::DualWrite | Stage::Shadow => match from.authority() {
            Backend::Legacy => &[],
            Backend::Storage => &[Backend::Legacy],
        },
        Stage::Live => &[Backend::Storage, Backend::Legacy],
        Stage::RampDown | Stage::Complete => &[Backend::Storage],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(stage: Stage) -> State {
        State {
            stage,
            storage_stale: false,
            ..State::initial(0, String::new())
        }
    }

    fn request(to: Stage) -> TransitionRequest {
        TransitionRequest {
            to,
            kind: TransitionKind::Operator,
            actor: "ada".to_owned(),
            reason: "planned".to_owned(),
            ticket: None,
            expected_epoch: None,
            force: false,
            dry_run: false,
            evidence: Value::Null,
        }
    }

    #[test]
    fn forward_goes_only_to_the_neighbour_and_back_to_any_stage() {
        for from in Stage::ALL {
            for to in Stage::ALL {
                let result = plan(&state(from), &request(to));
                let allowed = from.next() == Some(to) || to < from;
                assert_eq!(result.is_ok(), allowed, "{from} to {to}");
            }
        }
    }

    #[test]
    fn a_latch_blocks_forward_and_yields_to_force() {
        let latched = State {
            latched: true,
            ..state(Stage::DualWrite)
        };
        let forward = request(Stage::Shadow);
        assert_eq!(plan(&latched, &forward), Err(Refused::Latched));
        assert!(plan(&latched, &request(Stage::Off)).is_ok());
        let forced = TransitionRequest {
            force: true,
            ..forward
        };
        assert_eq!(
            plan(&latched, &forced).unwrap().overridden,
            vec![Refused::Latched]
        );
    }

    #[test]
    fn force_never_goes_live_on_a_stale_storage_nor_back_to_a_stale_legacy() {
        let force = |to| TransitionRequest {
            force: true,
            ..request(to)
        };
        let stale_storage = State {
            storage_stale: true,
            ..state(Stage::Shadow)
        };
        assert_eq!(
            plan(&stale_storage, &force(Stage::Live)),
            Err(Refused::Stale(Backend::Storage))
        );
        for from in [Stage::Live, Stage::RampDown, Stage::Complete] {
            let stale_legacy = State {
                legacy_stale: true,
                ..state(from)
            };
            assert_eq!(
                plan(&stale_legacy, &force(Stage::DualWrite)),
                Err(Refused::Stale(Backend::Legacy))
            );
        }
    }

    #[test]
    fn a_rollback_latches_and_never_goes_forward() {
        let rollback = |to| TransitionRequest {
            kind: TransitionKind::Rollback,
            ..request(to)
        };
        assert!(
            plan(&state(Stage::Live), &rollback(Stage::DualWrite))
                .unwrap()
                .latches
        );
        assert!(matches!(
            plan(&state(Stage::Shadow), &rollback(Stage::Live)),
            Err(Refused::NotBack { .. })
        ));
        assert!(
            !plan(&state(Stage::Live), &request(Stage::Shadow))
                .unwrap()
                .latches
        );
    }

    #[test]
    fn a_plain_way_back_ends_a_drain_and_everything_else_waits_for_it() {
        let draining = |stage| State {
            phase: Phase::Draining,
            ..state(stage)
        };
        assert!(plan(&draining(Stage::Shadow), &request(Stage::DualWrite)).is_ok());
        assert_eq!(
            plan(&draining(Stage::Shadow), &request(Stage::Live)),
            Err(Refused::Draining)
        );
        assert_eq!(
            plan(&draining(Stage::RampDown), &request(Stage::DualWrite)),
            Err(Refused::Draining)
        );
    }

    #[test]
    fn nothing_moves_while_recovering_or_for_an_epoch_that_has_passed() {
        let recovering = State {
            phase: Phase::Recovering,
            ..state(Stage::Live)
        };
        assert_eq!(
            plan(&recovering, &request(Stage::DualWrite)),
            Err(Refused::Recovering)
        );
        let old = TransitionRequest {
            expected_epoch: Some(Epoch(7)),
            ..request(Stage::DualWrite)
        };
        assert!(matches!(
            plan(&state(Stage::Live), &old),
            Err(Refused::EpochMoved { .. })
        ));
    }
}
