//! Drills: rehearsing a rollback on a running proxy, by the way it would really happen.
//!
//! A drill provokes one trigger of the guard from inside the storage client of every replica
//! (`storage::Rehearsal`) and lets everything else be real: the samples, the votes, the decision, the
//! transition, the callers. It is one row in the control schema (`record`), under one epoch, that every
//! replica turns into faults of its own and to which each adds what it saw and when (`follow`). So it ends
//! by itself: with its time, with its epoch, or when somebody cancels it. What may be rehearsed, and when,
//! is judged purely (`objection`, `provoke`), and so is the story afterwards (`timeline`).

mod ddl;
mod follow;
mod objection;
mod provoke;
mod record;
#[cfg(test)]
mod tests;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use crate::contract::{Code, Error};
use crate::control::{RollbackSafety, TransitionError};
use crate::repository::Parts;
use crate::sql::Fault;
use crate::telemetry::Trigger;

pub use ddl::COMPONENT;
pub use record::{DrillWish, Outcome};
pub use timeline::Report;

use objection::{Facts, objections};
use provoke::{provoke, usual_time};

/// The longest drill: whoever needs more has a trigger that would not help at night either.
pub const DRILL_MAX: Duration = Duration::from_secs(15 * 60);

/// Begins drills, takes part in them, and tells of them. One per replica.
#[derive(Debug)]
pub struct Drills {
    parts: Parts,
}

impl Drills {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { parts })
    }

    /// Begins one, unless something stands in its way; `rollback` is whether one is safe now. Without a time it
    /// lasts as long as the trigger needs.
    ///
    /// # Errors
    /// `precondition_failed` with everything that stands in its way.
    pub async fn begin(
        &self,
        trigger: Trigger,
        actor: &str,
        reason: &str,
        lasting: Option<Duration>,
        rollback: &RollbackSafety,
    ) -> Result<Report, Error> {
        let Parts {
            control,
            storage,
            observer,
            ..
        } = &self.parts;
        let settings = observer.guard().settings();
        let snapshot = control.snapshot();
        let verdicts = observer.guard().verdicts();
        let facts = Facts {
            snapshot: &snapshot,
            rollback,
            maintenance: !control.maintenance().is_empty(),
            action: settings.action(trigger),
            standing: verdicts
                .iter()
                .find(|verdict| verdict.trigger == trigger)
                .map(|verdict| verdict.standing),
            provoked: provoke(trigger, &settings, storage.rpc_deadline()),
        };
        let found = objections(trigger, &facts);
        if !found.is_empty() {
            return Err(refused(&found));
        }
        let wish = DrillWish {
            trigger,
            epoch: snapshot.epoch,
            lasting: lasting.unwrap_or_else(|| usual_time(trigger, &settings)),
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        };
        let db = control.db().clone();
        let begun = tokio::spawn(async move { record::begin(&db, &wish).await }).await;
        if !ended(begun)? {
            return Err(refused(&[objection::raced()]));
        }
        self.latest().await?.ok_or_else(no_drill)
    }

    /// Ends the one under way before its time.
    ///
    /// # Errors
    /// `not_found` when there is none; else what the database says.
    pub async fn cancel(&self, actor: &str) -> Result<Report, Error> {
        let (db, actor) = (self.parts.control.db().clone(), actor.to_owned());
        let cancelled = tokio::spawn(async move { record::cancel(&db, &actor).await }).await;
        if !ended(cancelled)? {
            return Err(no_drill());
        }
        self.latest().await?.ok_or_else(no_drill)
    }

    /// The latest drill, from whichever replica; none when there never was one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn latest(&self) -> Result<Option<Report>, Error> {
        let report = self.report().await;
        report.map_err(|fault| TransitionError::from(fault).into())
    }

    async fn report(&self) -> Result<Option<Report>, Fault> {
        let db = self.parts.control.db();
        let Some(drill) = record::latest(db).await? else {
            return Ok(None);
        };
        let committed = record::committed(db, drill.epoch).await?;
        let marks = record::marks(db, drill.id).await?;
        let replicas = self.parts.control.replicas().await?;
        Ok(Some(Report::of(&drill, committed, &marks, &replicas)))
    }
}

/// What became of a transaction that ran in a task of its own.
fn ended<T>(task: Result<Result<T, Fault>, tokio::task::JoinError>) -> Result<T, Error> {
    let result = task.unwrap_or_else(|error| Err(Fault::Unexpected(error.to_string())));
    result.map_err(|fault| TransitionError::from(fault).into())
}

fn refused(found: &[crate::control::Blocker]) -> Error {
    let told: Vec<&str> = found.iter().map(|one| one.message.as_str()).collect();
    let message = format!("no drill now: {}", told.join("; "));
    Error::new(Code::PreconditionFailed, message)
        .with_details(serde_json::json!({ "blockers": found }))
}

fn no_drill() -> Error {
    Error::new(Code::NotFound, "no drill is under way")
}
