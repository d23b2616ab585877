//! Backfills and verifies as jobs, started, watched and ended by operators.
//!
//! A backfill is a record in the database (`crate::backfill`): any replica shows and steers it, one that has
//! its lease works on it (`filling`). A verify is one replica's, one at a time in the fleet, and is lost with its
//! replica; the others show how far it is and can end it, and where `[verify] interval` is set it also begins by itself
//! (`verifying`). A job's result stays readable until the next of its kind.

mod filling;
mod http;
mod job;
mod speed;
mod verifying;

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::backfill::{RunState, Throttle};
use crate::contract::{Code, Error};
use crate::repository::Parts;
use crate::sql::Fault;
use crate::verify::{self, VerifySettings};
use crate::walk::WalkError;

#[cfg(test)]
mod tests;

pub use http::{ActorOf, acting, looking};

pub use job::JobKind;
use verifying::Verifies;

/// The jobs that this replica knows.
#[derive(Debug)]
pub struct Jobs {
    parts: Parts,
    settings: ArcSwap<JobSettings>,
    verifies: Mutex<Verifies>,
    /// Wakes whoever looks for a backfill to work on.
    asked: tokio::sync::Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How jobs go by the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JobSettings {
    /// How fast a backfill may go.
    pub backfill: Throttle,
    /// When and how fast verifies go.
    pub verify: VerifySettings,
}

/// Why a job was not started.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// One of its kind is under way.
    #[error("a {} is under way: job {id}", kind.as_str())]
    UnderWay {
        /// Its kind.
        kind: JobKind,
        /// Its id.
        id: Uuid,
    },
    /// A backfill of other tables has not come to its end.
    #[error(
        "a backfill of other tables is {}: job {id}; let it go on, or cancel it: POST /admin/jobs/{id} {{\"action\":\"cancel\"}}",
        state.as_str()
    )]
    OtherTables {
        /// Its id.
        id: Uuid,
        /// Running, or paused.
        state: RunState,
    },
    /// Another replica verifies because somebody asked for it.
    #[error("a verify is under way on replica {replica}: job {id}")]
    Elsewhere {
        /// The replica.
        replica: String,
        /// Its id.
        id: String,
    },
    /// The replica is shutting down.
    #[error("shutting down")]
    ShuttingDown,
    /// Not in this stage, or not these tables.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The database did not take the record.
    #[error("legacy: {0}")]
    Legacy(#[from] Fault),
}

/// What is asked of a job that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Steer {
    /// Paused, running again or cancelled; as it is without one.
    pub to: Option<RunState>,
    /// At most this many rows a second; 0 is no limit.
    pub rate: Option<u32>,
}

impl Jobs {
    /// No jobs yet.
    #[must_use]
    pub fn new(parts: Parts, settings: JobSettings) -> Arc<Self> {
        Arc::new(Self {
            parts,
            settings: ArcSwap::from_pointee(settings),
            verifies: Mutex::default(),
            asked: tokio::sync::Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Other settings from now on, for the jobs under way as well.
    pub fn set_settings(&self, settings: JobSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// A job's state, progress and result; none when it is not known (any more).
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn get(&self, id: Uuid) -> Result<Option<Value>, Fault> {
        if let Some(job) = self.verifies().find(id) {
            return Ok(Some(job.view()));
        }
        let others = [self.verify_elsewhere().await?, self.backfill().await?];
        let mut others = others.into_iter().flatten();
        Ok(others.find(|job| job["id"] == id.to_string()))
    }

    /// Pauses, resumes, ends or throttles a job; a verify can only be ended. `false`: it is not known, or has
    /// ended, or does not know how.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn steer(
        &self,
        actor: &str,
        reason: &str,
        id: Uuid,
        steer: Steer,
    ) -> Result<bool, Fault> {
        let ends = steer.to == Some(RunState::Cancelled);
        if let Some(job) = self.verifies().find(id) {
            if ends {
                job.cancel.cancel();
            }
            return Ok(ends);
        }
        if ends && verify::cancel(self.parts.legacy.db(), id).await? {
            return Ok(true);
        }
        self.steer_backfill(actor, reason, id, steer).await
    }

    /// The latest job of each kind, on whichever replica, for `status`: `{"backfill", "verify"}`.
    pub async fn current(&self) -> Value {
        let (backfill, verify) = tokio::join!(self.backfill(), self.latest_verify());
        let shown = |job: Result<Option<Value>, Fault>| match job {
            Ok(job) => job,
            Err(fault) => Some(json!({ "error": fault.to_string() })),
        };
        json!({ "backfill": shown(backfill), "verify": shown(verify) })
    }

    /// Ends what this replica works on and waits for it; nothing starts any more. A backfill goes on elsewhere.
    pub async fn drain(&self) {
        self.tasks.close();
        self.stop.cancel();
        self.verifies().cancel();
        self.tasks.wait().await;
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        let message = error.to_string();
        match error {
            JobError::UnderWay { id, .. } | JobError::OtherTables { id, .. } => {
                Self::new(Code::PreconditionFailed, message).with_details(json!({ "job": id }))
            }
            JobError::Elsewhere { id, replica } => Self::new(Code::PreconditionFailed, message)
                .with_details(json!({ "job": id, "replica": replica })),
            JobError::ShuttingDown => Self::new(Code::Overloaded, message),
            JobError::Walk(error) => error.into(),
            JobError::Legacy(_) => Self::new(Code::BackendUnavailable, message),
        }
    }
}
