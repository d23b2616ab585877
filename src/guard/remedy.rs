//! What may be done about a trigger that fired, by where the migration stands.
//!
//! Before `live` storage matters to no caller, so there is nothing to give back: a trigger freezes. In `live`
//! legacy has every acknowledged write, in `ramp_down` while it is not stale. In `off` and `complete` there
//! is nobody to fall back from or to.

use super::{Action, Trigger};
use crate::contract::Epoch;
use crate::stage::Stage;

/// Where the migration stands, as far as the guard cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Situation {
    /// The epoch.
    pub epoch: Epoch,
    /// The stage.
    pub stage: Stage,
    /// Nothing advances anyway.
    pub latched: bool,
    /// Legacy lacks acknowledged writes.
    pub legacy_stale: bool,
    /// Storage lacks acknowledged writes, and so differs.
    pub storage_stale: bool,
    /// The guard must not move anything: pinned, recovering, or on the way back already.
    pub hands_off: bool,
    /// An outage of storage is expected.
    pub maintenance: bool,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Remedy {
    /// Latch; the stage stays.
    Freeze,
    /// Give the authority back, by moving to this stage, and latch.
    Rollback(Stage),
}

impl Situation {
    /// Whether a trigger is watched at all.
    #[must_use]
    pub fn watches(&self, trigger: Trigger) -> bool {
        let expected = self.maintenance && self.stage < Stage::Live;
        match self.stage {
            Stage::Off | Stage::Complete => false,
            _ if self.hands_off || expected => false,
            Stage::DualWrite | Stage::Shadow | Stage::Live => {
                trigger != Trigger::Inconsistency || !self.storage_stale
            }
            // Nothing is compared there.
            Stage::RampDown => trigger != Trigger::Inconsistency,
        }
    }

    /// What a trigger with this action leads to; nothing, if it only watches or all is done already.
    #[must_use]
    pub fn remedy(&self, action: Action, rollback_to: Stage) -> Option<Remedy> {
        let freeze = (!self.latched).then_some(Remedy::Freeze);
        if self.hands_off {
            return None;
        }
        match (action, self.stage) {
            (Action::Observe, _) | (_, Stage::Off | Stage::Complete) => None,
            (Action::Freeze, _) | (Action::Rollback, Stage::DualWrite | Stage::Shadow) => freeze,
            (Action::Rollback, Stage::RampDown) if self.legacy_stale => freeze,
            // Also when latched, by a weaker trigger or because somebody forced his way past the latch: it
            // keeps the stage from advancing, not callers from an authority that fails them.
            (Action::Rollback, Stage::Live | Stage::RampDown) => {
                Some(Remedy::Rollback(rollback_to))
            }
        }
    }

    /// Whether what was measured before still says something. It does not after a way back, a freeze, a re-arm
    /// or a maintenance: what was bad then must not fire again. An advance leaves storage as it was. Of several
    /// epochs in one stage since the last look, some may have been a freeze and its re-arm.
    pub(super) fn continues(&self, before: &Self) -> bool {
        let unseen = self.stage == before.stage && self.epoch > before.epoch.next();
        self.stage >= before.stage
            && !unseen
            && self.latched == before.latched
            && self.maintenance == before.maintenance
    }

    /// At rest in a stage, for tests.
    #[cfg(test)]
    pub(super) fn at(stage: Stage) -> Self {
        Self {
            epoch: Epoch(4),
            stage,
            latched: false,
            legacy_stale: false,
            storage_stale: false,
            hands_off: false,
            maintenance: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stage_that_relies_on_storage_is_rolled_back() {
        let remedy = |stage| Situation::at(stage).remedy(Action::Rollback, Stage::DualWrite);
        let back = Some(Remedy::Rollback(Stage::DualWrite));
        assert_eq!(
            Stage::ALL.map(remedy),
            [
                None,
                Some(Remedy::Freeze),
                Some(Remedy::Freeze),
                back,
                back,
                None
            ]
        );
    }

    #[test]
    fn a_latch_is_enough_of_a_freeze_and_no_bar_to_a_rollback() {
        let latched = |stage| Situation {
            latched: true,
            ..Situation::at(stage)
        };
        let remedy = |stage, action| latched(stage).remedy(action, Stage::Off);
        assert_eq!(remedy(Stage::Shadow, Action::Rollback), None);
        assert_eq!(remedy(Stage::Live, Action::Freeze), None);
        assert_eq!(
            remedy(Stage::Live, Action::Rollback),
            Some(Remedy::Rollback(Stage::Off))
        );
    }

    #[test]
    fn a_stale_legacy_is_never_rolled_back_to() {
        let stale = Situation {
            legacy_stale: true,
            ..Situation::at(Stage::RampDown)
        };
        assert_eq!(
            stale.remedy(Action::Rollback, Stage::DualWrite),
            Some(Remedy::Freeze)
        );
    }

    #[test]
    fn an_expected_outage_excuses_before_live_only() {
        let excused = |stage| Situation {
            maintenance: true,
            ..Situation::at(stage)
        };
        assert!(!excused(Stage::Shadow).watches(Trigger::Unavailable));
        assert!(excused(Stage::Live).watches(Trigger::Unavailable));
    }

    #[test]
    fn a_storage_that_is_known_to_lack_rows_is_not_called_inconsistent() {
        let stale = Situation {
            storage_stale: true,
            ..Situation::at(Stage::DualWrite)
        };
        assert!(!stale.watches(Trigger::Inconsistency));
        assert!(stale.watches(Trigger::Unavailable));
    }
}
