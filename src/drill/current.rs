//! The drill that the present state is of, for those who are paged: one under way, or one whose rollback
//! still holds the latch.
//!
//! It outlasts the drill because a page comes after it, and because the fault itself may be shorter than
//! the pause between two scrapes. It is kept in memory: whoever asks while the database is away is told too.

use std::sync::Arc;

use serde::Serialize;

use super::Drills;
use super::record::{self, Drill, Outcome};
use crate::clock::rfc3339;
use crate::control::Snapshot;
use crate::sql::Fault;
use crate::telemetry::Trigger;

/// A drill, as `status` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Current {
    id: i64,
    trigger: &'static str,
    actor: String,
    reason: String,
    started: String,
    until: String,
    /// How it ended; none while it is under way.
    outcome: Option<Outcome>,
}

impl Drills {
    /// The drill that the present state is of, as this replica last saw it.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// Whether one is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.current().is_some_and(|one| one.outcome.is_none())
    }

    /// Takes notice of the latest drill, for `status` and for the metric.
    pub(super) async fn notice(&self, latest: Option<&Drill>) -> Result<(), Fault> {
        let snapshot = self.parts.control.snapshot();
        let drill = match latest {
            Some(drill) if self.explains(drill, &snapshot).await? => Some(drill),
            Some(_) | None => None,
        };
        for trigger in Trigger::ALL {
            let rehearsed = drill.is_some_and(|drill| drill.trigger == *trigger);
            self.parts.observer.metrics().drill(*trigger, rehearsed);
        }
        self.current
            .store(drill.map(|drill| Arc::new(Current::from(drill))));
        Ok(())
    }

    /// Whether the present state is of this drill.
    async fn explains(&self, drill: &Drill, snapshot: &Snapshot) -> Result<bool, Fault> {
        match drill.ended {
            None => Ok(true),
            Some(Outcome::RolledBack) if snapshot.latched => {
                let db = self.parts.control.db();
                let committed = record::committed(db, drill.epoch).await?;
                Ok(committed.is_some_and(|one| one.at_us == snapshot.since_us))
            }
            Some(Outcome::RolledBack | Outcome::TimeUp | Outcome::Cancelled | Outcome::Moved) => {
                Ok(false)
            }
        }
    }
}

impl From<&Drill> for Current {
    fn from(drill: &Drill) -> Self {
        Self {
            id: drill.id,
            trigger: drill.trigger.as_str(),
            actor: drill.actor.clone(),
            reason: drill.reason.clone(),
            started: rfc3339(drill.started_us),
            until: rfc3339(drill.until_us),
            outcome: drill.ended,
        }
    }
}
