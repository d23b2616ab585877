//! What stands in the way of the next stage. Pure, over facts that were gathered before.
//!
//! The control refuses what would lose writes by itself and whatever is forced; what is here protects from
//! going ahead blindly, and yields to `force`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::clock::micros;
use crate::control::{Blocker, Phase, Replica, Skew, Snapshot};
use crate::journal::Owed;
use crate::stage::{Backend, Stage};

/// Under traffic something is always owed for a moment; a debt older than this is not being paid.
const OWED_AGE_MAX: Duration = Duration::from_secs(5);

/// What readiness is judged by.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// What only the database knows; nothing when it did not answer.
    pub(super) asked: Option<&'a Asked>,
    pub(super) storage_up: bool,
    /// The last stage that the storage service's capabilities allow.
    pub(super) highest_stage: Stage,
    pub(super) clock_skew_max: Duration,
}

/// What the database said.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) owed: Owed,
    pub(super) divergences_open: i64,
    pub(super) replicas: Vec<Replica>,
    pub(super) skew: Skew,
}

/// Whether the next stage may be entered.
#[derive(Serialize, Debug)]
pub(super) struct Readiness {
    /// The next stage; none at the end.
    pub(super) next: Option<Stage>,
    /// There is one, and nothing stands in its way.
    pub(super) ready: bool,
    /// What does.
    pub(super) blockers: Vec<Blocker>,
}

impl Readiness {
    /// Judges the facts.
    pub(super) fn judge(facts: &Facts<'_>) -> Self {
        let next = facts.snapshot.stage.next();
        let mut blockers = Blockers::default();
        if let Some(next) = next {
            blockers.of_state(facts, next);
            match facts.asked {
                Some(asked) => {
                    blockers.of_debts(asked, next);
                    blockers.of_replicas(asked, facts.clock_skew_max);
                }
                None => blockers.add(
                    "legacy_down",
                    "the legacy database, where the control state lives, does not answer",
                ),
            }
        }
        Self {
            next,
            ready: next.is_some() && blockers.0.is_empty(),
            blockers: blockers.0,
        }
    }
}

#[derive(Default)]
struct Blockers(Vec<Blocker>);

impl Blockers {
    fn add(&mut self, code: &'static str, message: impl Into<String>) {
        let message = message.into();
        self.0.push(Blocker { code, message });
    }

    fn of_state(&mut self, facts: &Facts<'_>, next: Stage) {
        let snapshot = facts.snapshot;
        if snapshot.latched {
            self.add("latched", "latched after a rollback: re-arm first");
        }
        match snapshot.phase {
            Phase::Steady => {}
            Phase::Draining => self.add("draining", "a transition is under way"),
            Phase::Recovering => self.add(
                "recovering",
                "history was lost: run `cutover recover` first",
            ),
        }
        if snapshot.pinned {
            self.add("pinned", "flag.pin holds this replica: remove it first");
        }
        if !facts.storage_up {
            self.add("storage_down", "the storage service does not answer");
        }
        // In `dual_write` it is filled; `shadow` would only measure what is known to be missing.
        if snapshot.storage_stale && next >= Stage::Shadow {
            self.add(
                "storage_stale",
                "storage lacks acknowledged writes: backfill and verify it first",
            );
        }
        if snapshot.legacy_stale && next == Stage::Live {
            self.add(
                "legacy_stale",
                "legacy lacks acknowledged writes: backfill and verify it first",
            );
        }
        if next > facts.highest_stage {
            let highest = facts.highest_stage;
            let message =
                format!("the storage service's capabilities allow {highest} as the last stage");
            self.add("capability_ceiling", message);
        }
    }

    fn of_debts(&mut self, asked: &Asked, next: Stage) {
        let owed = &asked.owed;
        if owed.quarantined > 0 {
            let message = format!(
                "{} quarantined entries: retry or accept each",
                owed.quarantined
            );
            self.add("quarantined", message);
        }
        if owed.oldest_us > micros(OWED_AGE_MAX) {
            let message = format!(
                "{} entries are owed, the oldest for {} s: wait until they are paid",
                owed.to_storage + owed.to_legacy,
                owed.oldest_us / 1_000_000
            );
            self.add("owed", message);
        }
        let trusts_storage = next.authority() == Backend::Storage;
        if trusts_storage && asked.divergences_open > 0 {
            let message = format!(
                "{} divergences are not explained: repair or explain each",
                asked.divergences_open
            );
            self.add("divergences", message);
        }
    }

    fn of_replicas(&mut self, asked: &Asked, clock_skew_max: Duration) {
        let replicas = &asked.replicas;
        let silent: Vec<&str> = replicas
            .iter()
            .filter(|replica| !replica.leased)
            .map(|replica| replica.id.as_str())
            .collect();
        if !silent.is_empty() {
            let message = format!("not heard of: {}", silent.join(", "));
            self.add("replica_silent", message);
        }
        if differ(replicas, |replica| &replica.version) {
            self.add(
                "mixed_versions",
                "replicas run different versions: finish the rollout",
            );
        }
        if differ(replicas, |replica| &replica.config_digest) {
            self.add(
                "mixed_configs",
                "replicas run different configurations: finish the rollout",
            );
        }
        let surely_off_us = asked.skew.offset_us.abs() - asked.skew.error_us;
        if surely_off_us > micros(clock_skew_max) {
            let message = format!(
                "the database's clock is {} ms away from this replica's",
                asked.skew.offset_us / 1000
            );
            self.add("clock_skew", message);
        }
    }
}

fn differ<'a>(replicas: &'a [Replica], what: impl Fn(&'a Replica) -> &'a String) -> bool {
    replicas.iter().map(what).collect::<BTreeSet<_>>().len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Epoch;

    fn snapshot(stage: Stage) -> Snapshot {
        Snapshot {
            epoch: Epoch(3),
            stage,
            phase: Phase::Steady,
            drain_to: None,
            drain_deadline_us: None,
            generation: 1,
            since_us: 0,
            reason: String::new(),
            actor: String::new(),
            latched: false,
            bypass_refused: false,
            legacy_stale: false,
            storage_stale: false,
            deadline_last_us: 0,
            pinned: false,
        }
    }

    fn replica(id: &str) -> Replica {
        Replica {
            id: id.to_owned(),
            version: "1".to_owned(),
            config_digest: "a".to_owned(),
            epoch: Epoch(3),
            silent: Duration::ZERO,
            leased: true,
            dirty: false,
        }
    }

    fn asked() -> Asked {
        Asked {
            owed: Owed::default(),
            divergences_open: 0,
            replicas: vec![replica("one"), replica("two")],
            skew: Skew::default(),
        }
    }

    fn codes(snapshot: &Snapshot, asked: Option<&Asked>) -> Vec<&'static str> {
        let facts = Facts {
            snapshot,
            asked,
            storage_up: true,
            highest_stage: Stage::Shadow,
            clock_skew_max: Duration::from_millis(500),
        };
        let readiness = Readiness::judge(&facts);
        assert_eq!(
            readiness.ready,
            readiness.next.is_some() && readiness.blockers.is_empty()
        );
        readiness.blockers.iter().map(|one| one.code).collect()
    }

    #[test]
    fn with_nothing_in_the_way_the_next_stage_is_ready() {
        assert!(codes(&snapshot(Stage::DualWrite), Some(&asked())).is_empty());
    }

    #[test]
    fn a_stale_storage_may_be_filled_but_not_compared() {
        let stale = |stage| Snapshot {
            storage_stale: true,
            ..snapshot(stage)
        };
        assert!(codes(&stale(Stage::Off), Some(&asked())).is_empty());
        assert_eq!(
            codes(&stale(Stage::DualWrite), Some(&asked())),
            ["storage_stale"]
        );
    }

    #[test]
    fn a_service_that_cannot_delete_never_becomes_the_authority() {
        let blockers = codes(&snapshot(Stage::Shadow), Some(&asked()));
        assert_eq!(blockers, ["capability_ceiling"]);
    }

    #[test]
    fn a_young_debt_is_traffic_and_an_old_one_is_a_blocker() {
        let mut asked = asked();
        asked.owed.to_storage = 3;
        asked.owed.oldest_us = 1_000_000;
        assert!(codes(&snapshot(Stage::DualWrite), Some(&asked)).is_empty());
        asked.owed.oldest_us = 6_000_000;
        assert_eq!(codes(&snapshot(Stage::DualWrite), Some(&asked)), ["owed"]);
    }

    #[test]
    fn replicas_must_be_heard_of_and_alike() {
        let mut asked = asked();
        asked.replicas[1].leased = false;
        asked.replicas[1].version = "2".to_owned();
        asked.replicas[1].config_digest = "b".to_owned();
        assert_eq!(
            codes(&snapshot(Stage::Off), Some(&asked)),
            ["replica_silent", "mixed_versions", "mixed_configs"]
        );
    }

    #[test]
    fn without_the_database_nothing_is_ready_and_at_the_end_nothing_is_next() {
        assert_eq!(codes(&snapshot(Stage::Off), None), ["legacy_down"]);
        assert!(codes(&snapshot(Stage::Complete), None).is_empty());
    }
}
