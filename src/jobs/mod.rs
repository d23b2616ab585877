//! Backfills and verifies as jobs, started, watched and ended by operators.
//!
//! A backfill is a record in the database (`crate::backfill`): any replica shows and steers it, one that has
//! its lease works on it (`filling`). A verify is one replica's, one at a time, and is lost with it. A job's
//! result stays readable until the next of its kind.

mod filling;
mod http;
mod job;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::backfill::{RunState, Throttle};
use crate::contract::{Code, Error};
use crate::repository::Parts;
use crate::sql::Fault;
use crate::verify::{self, VerifyOptions};
use crate::walk::WalkError;

#[cfg(test)]
mod tests;

pub use http::{ActorOf, acting, looking};
use job::Job;
pub use job::JobKind;

/// The jobs that this replica knows.
#[derive(Debug)]
pub struct Jobs {
    parts: Parts,
    throttle: ArcSwap<Throttle>,
    verify: Mutex<Option<Job>>,
    /// Wakes whoever looks for a backfill to work on.
    asked: tokio::sync::Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
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
    pub fn new(parts: Parts, throttle: Throttle) -> Arc<Self> {
        Arc::new(Self {
            parts,
            throttle: ArcSwap::from_pointee(throttle),
            verify: Mutex::default(),
            asked: tokio::sync::Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Another throttle from now on, for the backfill under way as well.
    pub fn set_throttle(&self, throttle: Throttle) {
        self.throttle.store(Arc::new(throttle));
    }

    /// Starts a verify.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn start_verify(&self, options: VerifyOptions) -> Result<Uuid, JobError> {
        let asked = json!({ "tables": options.tables, "repair": options.repair });
        let job = self.register(&options.actor, &options.reason)?;
        let id = job.id;
        let parts = self.parts.clone();
        self.tasks.spawn(job.run(asked, parts, async |job, parts| {
            verify::run(parts, options, &job.progress, job.cancel.clone()).await
        }));
        Ok(id)
    }

    /// A job's state, progress and result; none when it is not known (any more).
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn get(&self, id: Uuid) -> Result<Option<Value>, Fault> {
        if let Some(job) = self.find(id) {
            return Ok(Some(job.view()));
        }
        let run = self.backfill().await?;
        Ok(run.filter(|run| run["id"] == id.to_string()))
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
        if let Some(job) = self.find(id) {
            let ends = steer.to == Some(RunState::Cancelled);
            if ends {
                job.cancel.cancel();
            }
            return Ok(ends);
        }
        self.steer_backfill(actor, reason, id, steer).await
    }

    /// The latest job of each kind, for `status`: `{"backfill", "verify"}`.
    pub async fn current(&self) -> Value {
        let backfill = match self.backfill().await {
            Ok(run) => run,
            Err(fault) => Some(json!({ "error": fault.to_string() })),
        };
        let verify = self.latest().as_ref().map(Job::view);
        json!({ "backfill": backfill, "verify": verify })
    }

    /// Ends what this replica works on and waits for it; nothing starts any more. A backfill goes on elsewhere.
    pub async fn drain(&self) {
        self.tasks.close();
        self.stop.cancel();
        if let Some(job) = self.latest().as_ref() {
            job.cancel.cancel();
        }
        self.tasks.wait().await;
    }

    /// Takes the verify's place, if nothing is under way there.
    fn register(&self, actor: &str, reason: &str) -> Result<Job, JobError> {
        let mut latest = self.latest();
        // Looked at under the lock: either `drain` sees the job, or the job sees `drain`.
        if self.tasks.is_closed() {
            return Err(JobError::ShuttingDown);
        }
        if let Some(job) = latest.as_ref().filter(|job| job.is_under_way()) {
            let (kind, id) = (JobKind::Verify, job.id);
            return Err(JobError::UnderWay { kind, id });
        }
        let job = Job::new(JobKind::Verify, actor, reason);
        *latest = Some(job.clone());
        Ok(job)
    }

    fn find(&self, id: Uuid) -> Option<Job> {
        self.latest().as_ref().filter(|job| job.id == id).cloned()
    }

    fn latest(&self) -> MutexGuard<'_, Option<Job>> {
        self.verify.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        let message = error.to_string();
        match error {
            JobError::UnderWay { id, .. } => {
                Self::new(Code::PreconditionFailed, message).with_details(json!({ "job": id }))
            }
            JobError::ShuttingDown => Self::new(Code::Overloaded, message),
            JobError::Walk(error) => error.into(),
            JobError::Legacy(_) => Self::new(Code::BackendUnavailable, message),
        }
    }
}
