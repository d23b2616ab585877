//! What stands in the way of a drill. Pure.
//!
//! A drill gives the authority back for real. So it begins only where that loses nothing, where the trigger
//! would do it, and where nobody is in the middle of something else.

use crate::control::{Blocker, Phase, RollbackSafety, Snapshot};
use crate::guard::{Action, Standing};
use crate::stage::Stage;
use crate::storage::Rehearsal;
use crate::telemetry::Trigger;

/// What it is judged by.
pub(super) struct Facts<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) rollback: &'a RollbackSafety,
    /// Anything is under maintenance.
    pub(super) maintenance: bool,
    /// What the trigger does when it fires.
    pub(super) action: Action,
    /// How it stands on this replica; none before its first evaluation.
    pub(super) standing: Option<Standing>,
    /// The fault; none when no fault would make it fire.
    pub(super) provoked: Option<Rehearsal>,
}

/// Everything that stands in the way.
pub(super) fn objections(trigger: Trigger, facts: &Facts<'_>) -> Vec<Blocker> {
    let Facts {
        snapshot, rollback, ..
    } = facts;
    let mut found = vec![];
    let mut object = |holds: bool, code: &'static str, message: String| {
        if holds {
            found.push(Blocker { code, message });
        }
    };
    object(
        snapshot.stage != Stage::Live,
        "not_live",
        format!("the stage is {}, not live", snapshot.stage),
    );
    object(
        snapshot.phase != Phase::Steady,
        "not_steady",
        format!("the phase is {}", snapshot.phase),
    );
    object(
        snapshot.pinned,
        "pinned",
        "this replica is pinned: nothing would move it".to_owned(),
    );
    object(
        snapshot.latched,
        "latched",
        "latched: look into that, then `cutover rearm`".to_owned(),
    );
    let unsafe_for: Vec<&str> = rollback.blockers.iter().map(|one| one.code).collect();
    object(
        !rollback.safe,
        "rollback_unsafe",
        format!("a rollback would not be safe: {}", unsafe_for.join(", ")),
    );
    object(
        facts.maintenance,
        "maintenance",
        "a maintenance is under way".to_owned(),
    );
    object(
        facts.action != Action::Rollback,
        "no_rollback",
        format!("guard.{trigger}.action is {}", facts.action.as_str()),
    );
    let blind = match facts.standing {
        // Its failures are its samples.
        Some(Standing::Blind) => trigger != Trigger::Unavailable,
        Some(Standing::Off) | None => snapshot.stage == Stage::Live,
        Some(Standing::Ok | Standing::Near | Standing::Fired) => false,
    };
    object(
        blind,
        "blind",
        format!("{trigger} has too few samples to fire, or is not watched"),
    );
    object(
        facts.standing == Some(Standing::Fired),
        "fires_already",
        format!("{trigger} fires already: that is no drill"),
    );
    object(
        facts.provoked.is_none(),
        "threshold",
        format!("no fault would bring {trigger} above its threshold"),
    );
    found
}

/// Another drill is under way, or the epoch has moved since it was looked at.
pub(super) fn raced() -> Blocker {
    Blocker {
        code: "raced",
        message: "another drill is under way, or the state has just changed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Epoch;

    fn at(stage: Stage) -> Snapshot {
        Snapshot {
            epoch: Epoch(7),
            stage,
            phase: Phase::Steady,
            drain_to: None,
            drain_deadline_us: None,
            generation: 1,
            since_us: 0,
            reason: String::new(),
            actor: String::new(),
            latched: false,
            bypass_refused: true,
            legacy_stale: false,
            storage_stale: false,
            deadline_last_us: 0,
            pinned: false,
        }
    }

    fn safe(safe: bool) -> RollbackSafety {
        RollbackSafety {
            safe,
            to: Some(Stage::DualWrite),
            blockers: vec![],
        }
    }

    fn codes(
        snapshot: &Snapshot,
        trigger: Trigger,
        change: impl FnOnce(&mut Facts<'_>),
    ) -> Vec<&'static str> {
        let rollback = safe(true);
        let mut facts = Facts {
            snapshot,
            rollback: &rollback,
            maintenance: false,
            action: Action::Rollback,
            standing: Some(Standing::Ok),
            provoked: Some(Rehearsal::Unavailable),
        };
        change(&mut facts);
        let found = objections(trigger, &facts);
        found.iter().map(|one| one.code).collect()
    }

    #[test]
    fn only_live_at_rest_and_with_a_trigger_that_would_roll_back_is_drilled() {
        let live = at(Stage::Live);
        assert!(codes(&live, Trigger::FailureRate, |_| {}).is_empty());
        for stage in Stage::ALL {
            let found = codes(&at(stage), Trigger::Unavailable, |_| {});
            assert_eq!(found.is_empty(), stage == Stage::Live, "{stage}");
        }
        let draining = Snapshot {
            phase: Phase::Draining,
            latched: true,
            pinned: true,
            ..at(Stage::Live)
        };
        assert_eq!(
            codes(&draining, Trigger::Unavailable, |_| {}),
            ["not_steady", "pinned", "latched"]
        );
        let watching = |facts: &mut Facts<'_>| facts.action = Action::Observe;
        assert_eq!(
            codes(&live, Trigger::Unavailable, watching),
            ["no_rollback"]
        );
    }

    #[test]
    fn nothing_is_provoked_that_could_not_be_rolled_back_or_is_on_its_way_already() {
        let live = at(Stage::Live);
        let lossy = safe(false);
        let mut facts = Facts {
            snapshot: &live,
            rollback: &lossy,
            maintenance: true,
            action: Action::Rollback,
            standing: Some(Standing::Fired),
            provoked: None,
        };
        let found = |facts: &Facts<'_>| -> Vec<&'static str> {
            let found = objections(Trigger::LatencyDelta, facts);
            found.iter().map(|one| one.code).collect()
        };
        assert_eq!(
            found(&facts),
            [
                "rollback_unsafe",
                "maintenance",
                "fires_already",
                "threshold"
            ]
        );
        facts.standing = Some(Standing::Near);
        assert_eq!(
            found(&facts),
            ["rollback_unsafe", "maintenance", "threshold"]
        );
    }

    #[test]
    fn a_blind_trigger_would_not_fire_except_for_an_outage_which_needs_no_samples() {
        let live = at(Stage::Live);
        for trigger in Trigger::ALL {
            let blind = |facts: &mut Facts<'_>| facts.standing = Some(Standing::Blind);
            let expected = *trigger == Trigger::Unavailable;
            assert_eq!(codes(&live, *trigger, blind).is_empty(), expected);
            let unknown = |facts: &mut Facts<'_>| facts.standing = None;
            assert_eq!(codes(&live, *trigger, unknown), ["blind"]);
        }
    }
}
