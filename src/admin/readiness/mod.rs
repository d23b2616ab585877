//! What stands in the way of the next stage. Pure, over facts that were gathered before.
//!
//! The control refuses what would lose writes by itself and whatever is forced; what is here protects from
//! going ahead blindly, and yields to `force`. Each blocker says what to do. What is judged by the state of
//! this moment is here; what is judged by hours and days on record is in `record`, what concerns the legacy
//! database and the drift between the sides in `sides`.

mod record;
mod sides;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::clock::micros;
use crate::config;
use crate::control::{Blocker, Entered, Phase, Replica, Skew, Snapshot};
use crate::drift::Difference;
use crate::evidence::{Baseline, Bypassed, Tally, Verified};
use crate::journal::Owed;
use crate::legacy::{AppTrigger, SequenceBehind};
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
    /// `[readiness]`.
    pub(super) settings: &'a config::Readiness,
    /// Now, in Unix microseconds.
    pub(super) now_us: i64,
    /// A backfill runs or rests.
    pub(super) backfill_under_way: bool,
    /// The expected outages under way, for people.
    pub(super) maintenance: Vec<String>,
    /// The configured tables.
    pub(super) tables: Vec<String>,
    /// Those that storage was not filled with yet.
    pub(super) pending_tables: Vec<String>,
    /// The triggers of the guard.
    pub(super) triggers: Vec<TriggerFact>,
    /// Where the sides' schemas differ.
    pub(super) drift: Vec<Difference>,
}

/// A trigger of the guard, as far as an advance depends on it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct TriggerFact {
    /// Its name.
    pub(super) trigger: String,
    /// It has too few samples to decide anything.
    pub(super) blind: bool,
    /// What it measures.
    pub(super) value: f64,
    /// What it fires at.
    pub(super) threshold: f64,
}

/// What the database said.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) owed: Owed,
    pub(super) divergences_open: i64,
    pub(super) replicas: Vec<Replica>,
    pub(super) skew: Skew,
    /// The last full verify of storage.
    pub(super) verified: Option<Verified>,
    /// When `shadow` was entered, while it is the stage.
    pub(super) shadow: Option<Entered>,
    /// What was compared since.
    pub(super) compared: Vec<Tally>,
    /// Who was written past the proxy.
    pub(super) bypassed: Vec<Bypassed>,
    /// Callers' latency in `off`.
    pub(super) baselines: Vec<Baseline>,
    /// A backfill runs or rests.
    pub(super) backfill_under_way: bool,
    /// Sequences that would hand out taken keys; asked for before `live`.
    pub(super) sequences: Vec<SequenceBehind>,
    /// The application's triggers that would fire again; asked for before `live`.
    pub(super) app_triggers: Vec<AppTrigger>,
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
            blockers.of_window(facts);
            blockers.of_guard(facts, next);
            blockers.of_drift(facts, next);
            match facts.asked {
                Some(asked) => {
                    blockers.of_debts(asked, next);
                    blockers.of_replicas(asked, facts.clock_skew_max);
                    blockers.of_callers(facts, asked, next);
                    if next == Stage::Live {
                        blockers.of_verify(facts, asked);
                        blockers.of_shadow(facts, asked);
                        blockers.of_strangers(facts, asked);
                        blockers.of_legacy(asked);
                    }
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
            self.add("latched", "latched by a rollback or a freeze: find out why (`cutover history`), then `cutover rearm`");
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
        if !facts.maintenance.is_empty() {
            let message = format!("{}: let it end first", facts.maintenance.join("; "));
            self.add("maintenance", message);
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
        if facts.backfill_under_way && next >= Stage::Shadow {
            self.add(
                "backfill_incomplete",
                "a backfill is under way or paused: let it end, or cancel it (POST /admin/jobs/ID)",
            );
        }
        if !facts.pending_tables.is_empty() && next >= Stage::Shadow {
            let message = format!(
                "tables that joined are pending: {}; backfill and verify each",
                facts.pending_tables.join(", ")
            );
            self.add("backfill_incomplete", message);
        }
        if snapshot.legacy_stale && next == Stage::Live {
            self.add(
                "legacy_stale",
                "legacy lacks acknowledged writes: backfill and verify it first",
            );
        }
        if next > facts.highest_stage {
            let highest = facts.highest_stage;
            let message = format!(
                "the storage service's capabilities allow {highest} as the last stage: see `weakened` in the status"
            );
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
