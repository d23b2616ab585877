//! The latch without a move: what a trigger of the guard does where there is nothing to roll back.

use serde_json::Value;

use super::change::{AuditEntry, Cause, Change, Facts, expect, noted, steady};
use super::convert::Conversion;
use super::plan::{Refused, TransitionKind};
use super::state::{Phase, State};
use crate::contract::Epoch;

/// A wish that nothing advances until an operator re-arms.
#[derive(Clone, PartialEq, Debug)]
pub struct FreezeWish {
    /// The epoch it was decided under: void if anything changed since.
    pub expected_epoch: Epoch,
    /// Who.
    pub actor: String,
    /// Why; never empty.
    pub reason: String,
    /// What the decision rests on, for the audit record. Holds no row values.
    pub evidence: Value,
}

/// An advance that is still draining ends here: it would go ahead on what has just failed.
pub(super) fn freeze(current: &State, wish: &FreezeWish, facts: &Facts) -> Result<Change, Refused> {
    let cause = Cause::new(&wish.actor, &wish.reason);
    cause.given()?;
    expect(current, wish.expected_epoch)?;
    if current.latched {
        return Err(Refused::Latched);
    }
    let after = match current.phase {
        Phase::Steady => noted(current),
        Phase::Draining => steady(current, facts, &cause),
        Phase::Recovering => return Err(Refused::Recovering),
    };
    let kind = TransitionKind::Guard.as_str();
    Ok(Change {
        after: State {
            latched: true,
            ..after
        },
        conversion: Conversion::Keep,
        entry: AuditEntry::of("freeze", kind, &cause, wish.evidence.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;

    fn state(phase: Phase) -> State {
        State {
            stage: Stage::Shadow,
            phase,
            ..State::initial(0, String::new())
        }
    }

    fn frozen(current: &State, epoch: i64) -> Result<State, Refused> {
        let wish = FreezeWish {
            expected_epoch: Epoch(epoch),
            actor: "failure_rate".to_owned(),
            reason: "calls failed".to_owned(),
            evidence: Value::Null,
        };
        freeze(current, &wish, &Facts::default()).map(|change| change.after)
    }

    #[test]
    fn a_freeze_latches_and_leaves_the_stage_and_who_brought_it_about() {
        let current = state(Phase::Steady);
        let after = frozen(&current, 1).unwrap();
        assert_eq!((after.epoch, after.latched), (Epoch(2), true));
        assert_eq!((after.stage, &after.actor), (Stage::Shadow, &current.actor));
        assert_eq!(frozen(&after, 2), Err(Refused::Latched));
    }

    #[test]
    fn a_freeze_ends_an_advance_that_is_draining() {
        let after = frozen(&state(Phase::Draining), 1).unwrap();
        assert_eq!((after.phase, after.latched), (Phase::Steady, true));
    }

    #[test]
    fn a_freeze_is_void_once_anything_has_changed_or_while_recovering() {
        let moved = frozen(&state(Phase::Steady), 7);
        assert!(matches!(moved, Err(Refused::EpochMoved { .. })));
        assert_eq!(
            frozen(&state(Phase::Recovering), 1),
            Err(Refused::Recovering)
        );
    }
}
