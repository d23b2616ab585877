//! Whether the authority could be given back to legacy right now. Pure, over what `status` knows anyway.

use serde::Serialize;

use crate::sql::{Db, Fault};

use super::replica::Replica;
use super::snapshot::Snapshot;
use super::state::{Phase, not_installed};
use super::{Backend, Stage};

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
        let rows = db
            .control(
                "SELECT
                    (SELECT count(*) FROM cutover.journal WHERE generation = $1 AND direction = 'storage'),
                    (SELECT count(*) FROM cutover.journal WHERE generation = $1 AND direction = 'legacy')",
                vec![generation.into()],
            )
            .await?;
        let row = rows.first().ok_or_else(not_installed)?;
        Ok(Self {
            to_storage: row.some_int(0)?,
            to_legacy: row.some_int(1)?,
        })
    }
}

/// Judges a rollback to `to` (`guard.rollback_to`).
#[must_use]
pub fn rollback_safety(
    snapshot: &Snapshot,
    owed: Owed,
    replicas: &[Replica],
    to: Stage,
) -> RollbackSafety {
    let mut blockers = vec![];
    let mut block = |holds: bool, code: &'static str, message: String| {
        if holds {
            blockers.push(Blocker { code, message });
        }
    };
    block(
        snapshot.phase == Phase::Recovering,
        "recovering",
        "history was lost: run `cutover recover` first".to_owned(),
    );
    if snapshot.authority() == Backend::Legacy {
        return RollbackSafety {
            safe: blockers.is_empty(),
            to: None,
            blockers,
        };
    }
    block(
        snapshot.legacy_stale,
        "legacy_stale",
        "legacy lacks acknowledged writes: backfill and verify it first".to_owned(),
    );
    // In `live` every acknowledged write is in legacy; later it is only owed to it.
    if snapshot.stage > Stage::Live {
        let message = format!(
            "{} entries are owed to legacy: wait for them",
            owed.to_legacy
        );
        block(owed.to_legacy > 0, "owed", message);
        let silent: Vec<&str> = replicas
            .iter()
            .filter(|replica| replica.dirty && !replica.leased)
            .map(|replica| replica.id.as_str())
            .collect();
        let message = format!(
            "{} may hold writes that legacy lacks and cannot be heard",
            silent.join(", ")
        );
        block(!silent.is_empty(), "replica_silent", message);
    }
    RollbackSafety {
        safe: blockers.is_empty(),
        to: Some(to),
        blockers,
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
        let safety = rollback_safety(&snapshot(Stage::Live), owed, &[], Stage::DualWrite);
        assert!(safety.safe);
        assert_eq!(safety.to, Some(Stage::DualWrite));
        assert!(!rollback_safety(&snapshot(Stage::RampDown), owed, &[], Stage::DualWrite).safe);
    }

    #[test]
    fn a_stale_legacy_makes_it_unsafe_and_legacy_as_authority_needs_none() {
        let stale = Snapshot {
            legacy_stale: true,
            ..snapshot(Stage::Live)
        };
        let safety = rollback_safety(&stale, Owed::default(), &[], Stage::DualWrite);
        assert_eq!(safety.blockers[0].code, "legacy_stale");
        let shadow = rollback_safety(
            &snapshot(Stage::Shadow),
            Owed::default(),
            &[],
            Stage::DualWrite,
        );
        assert_eq!((shadow.safe, shadow.to), (true, None));
    }
}
