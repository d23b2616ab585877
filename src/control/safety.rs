//! Whether the authority could be given back to legacy right now. Pure, over what `status` knows anyway.

use serde::Serialize;

use crate::journal::FLOOR;
use crate::sql::{Db, Fault};

use super::replica::Replica;
use super::snapshot::Snapshot;
use super::state::{Phase, not_installed};
use crate::stage::{Backend, Stage};

/// Open entries of the current generation, by the backend they are owed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Owed {
    /// Owed to storage.
    pub to_storage: i64,
    /// Owed to legacy, open intents included.
    pub to_legacy: i64,
}

/// Something that stands in the way, for programs and for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Blocker {
    /// Its name.
    pub code: &'static str,
    /// What it is and what to do.
    pub message: String,
}

/// Whether a rollback would succeed now, without losing a write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RollbackSafety {
    /// It would, or there is nothing to roll back.
    pub safe: bool,
    /// Where it would lead; none while legacy is the authority already.
    pub to: Option<Stage>,
    /// What stands in its way.
    pub blockers: Vec<Blocker>,
}

impl Owed {
    /// Counts them.
    pub(super) async fn count(db: &Db, generation: i64) -> Result<Self, Fault> {
        let open = format!("cutover.journal WHERE seq >= {FLOOR} AND generation = $1");
        let sql = format!(
            "SELECT (SELECT count(*) FROM {open} AND direction = 'storage'),
                (SELECT count(*) FROM {open} AND direction = 'legacy')"
        );
        let rows = db.control(&sql, vec![generation.into()]).await?;
        let row = rows.first().ok_or_else(not_installed)?;
        Ok(Self {
            to_storage: row.some_int(0)?,
            to_legacy: row.some_int(1)?,
        })
    }
}

/// Judges a rollback to `to` (`guard.rollback_to`), in any stage, over what is `known`: what is owed, and the
/// replicas; nothing when the legacy database does not answer. Then nothing could be rolled back to it.
#[must_use]
pub fn rollback_safety(
    snapshot: &Snapshot,
    known: Option<(Owed, &[Replica])>,
    to: Stage,
) -> RollbackSafety {
    let mut blockers = Blockers::default();
    blockers.add(
        snapshot.phase == Phase::Recovering,
        "recovering",
        "history was lost: run `cutover recover` first",
    );
    blockers.add(
        known.is_none(),
        "legacy_down",
        "the legacy database does not answer: nothing can be rolled back to it",
    );
    let storage_answers = snapshot.authority() == Backend::Storage;
    blockers.add(
        storage_answers && snapshot.legacy_stale,
        "legacy_stale",
        "legacy lacks acknowledged writes: `cutover verify --repair`, then a clean full `cutover verify`",
    );
    // In `live` every acknowledged write is in legacy; later it is only owed to it.
    if let Some((owed, replicas)) = known.filter(|_| snapshot.stage > Stage::Live) {
        blockers.of_debts(owed, replicas);
    }
    RollbackSafety {
        safe: blockers.0.is_empty(),
        to: storage_answers.then_some(to),
        blockers: blockers.0,
    }
}

#[derive(Default)]
struct Blockers(Vec<Blocker>);

impl Blockers {
    fn add(&mut self, holds: bool, code: &'static str, message: impl Into<String>) {
        if holds {
            let message = message.into();
            self.0.push(Blocker { code, message });
        }
    }

    fn of_debts(&mut self, owed: Owed, replicas: &[Replica]) {
        self.add(
            owed.to_legacy > 0,
            "owed",
            format!(
                "{} entries are owed to legacy: wait for them",
                owed.to_legacy
            ),
        );
        let silent: Vec<&str> = replicas
            .iter()
            .filter(|replica| replica.dirty && !replica.leased)
            .map(|replica| replica.id.as_str())
            .collect();
        self.add(
            !silent.is_empty(),
            "replica_silent",
            format!(
                "{} may hold writes that legacy lacks and cannot be heard",
                silent.join(", ")
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(stage: Stage) -> Snapshot {
        Snapshot {
            storage_stale: false,
            ..Snapshot::pinned_blind(stage)
        }
    }

    #[test]
    fn in_live_a_rollback_is_safe_whatever_is_owed() {
        let owed = Owed {
            to_storage: 0,
            to_legacy: 7,
        };
        let safety = rollback_safety(&snapshot(Stage::Live), Some((owed, &[])), Stage::DualWrite);
        assert!(safety.safe);
        assert_eq!(safety.to, Some(Stage::DualWrite));
        assert!(
            !rollback_safety(
                &snapshot(Stage::RampDown),
                Some((owed, &[])),
                Stage::DualWrite
            )
            .safe
        );
    }

    #[test]
    fn a_stale_legacy_makes_it_unsafe_and_legacy_as_authority_needs_none() {
        let stale = Snapshot {
            legacy_stale: true,
            ..snapshot(Stage::Live)
        };
        let nothing = Some((Owed::default(), &[][..]));
        let safety = rollback_safety(&stale, nothing, Stage::DualWrite);
        assert_eq!(safety.blockers[0].code, "legacy_stale");
        let shadow = rollback_safety(&snapshot(Stage::Shadow), nothing, Stage::DualWrite);
        assert_eq!((shadow.safe, shadow.to), (true, None));
    }

    #[test]
    fn in_every_stage_a_legacy_that_does_not_answer_or_lost_history_makes_it_unsafe() {
        for stage in Stage::ALL {
            let whole = Snapshot {
                legacy_stale: false,
                ..snapshot(stage)
            };
            let nothing = Some((Owed::default(), &[][..]));
            assert!(rollback_safety(&whole, nothing, Stage::DualWrite).safe);
            let blind = rollback_safety(&whole, None, Stage::DualWrite);
            assert_eq!((blind.safe, blind.blockers[0].code), (false, "legacy_down"));
            let to_go = (stage.authority() == Backend::Storage).then_some(Stage::DualWrite);
            assert_eq!(blind.to, to_go, "{stage}");
            let lost = Snapshot {
                phase: Phase::Recovering,
                ..whole
            };
            assert!(!rollback_safety(&lost, nothing, Stage::DualWrite).safe);
        }
    }

    #[test]
    fn in_ramp_down_a_replica_that_may_hold_debts_and_cannot_be_heard_makes_it_unsafe() {
        let replica = |dirty, leased| Replica {
            id: "one".to_owned(),
            version: String::new(),
            config_digest: String::new(),
            epoch: crate::contract::Epoch(1),
            silent: std::time::Duration::ZERO,
            leased,
            dirty,
            votes: String::new(),
            callers: String::new(),
        };
        let judged = |replicas: &[Replica]| {
            let known = Some((Owed::default(), replicas));
            rollback_safety(&snapshot(Stage::RampDown), known, Stage::DualWrite).safe
        };
        assert!(judged(&[replica(true, true), replica(false, false)]));
        assert!(!judged(&[replica(true, false)]));
    }
}
