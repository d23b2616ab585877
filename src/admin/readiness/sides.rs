//! Blockers in the databases themselves: legacy's sequences and triggers, and the drift between the sides.

use super::{Asked, Blockers, Facts};
use crate::stage::Stage;

impl Blockers {
    /// What would go wrong once rows are applied to legacy as the secondary.
    pub(super) fn of_legacy(&mut self, asked: &Asked) {
        if !asked.sequences.is_empty() {
            let behind: Vec<String> = asked
                .sequences
                .iter()
                .map(|one| {
                    format!(
                        "{} at {}, {}.{} at {}",
                        one.sequence, one.last, one.table, one.column, one.greatest
                    )
                })
                .collect();
            let message = format!(
                "sequences would hand out taken keys: {}; move each past it with setval()",
                behind.join("; ")
            );
            self.add("sequences_behind", message);
        }
        if !asked.app_triggers.is_empty() {
            let triggers: Vec<String> = asked
                .app_triggers
                .iter()
                .map(|one| format!("{} on {}", one.trigger, one.table))
                .collect();
            let message = format!(
                "triggers would fire again on rows applied to legacy: {}; GRANT SET ON PARAMETER \
                 session_replication_role to the proxy's role, or drop them",
                triggers.join(", ")
            );
            self.add("app_triggers", message);
        }
    }

    /// The two schemas are not each other's.
    pub(super) fn of_drift(&mut self, facts: &Facts<'_>, next: Stage) {
        let blocking = facts.drift.iter().filter(|one| one.kind.blocks());
        let differences: Vec<String> = blocking
            .map(|one| format!("{}: {one}", one.table))
            .collect();
        if differences.is_empty() || next > Stage::Live {
            return;
        }
        let message = format!(
            "the sides' schemas differ: {}; bring them together first (`cutover schema --diff`)",
            differences.join("; ")
        );
        self.add("schema_drift", message);
    }
}
