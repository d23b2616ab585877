//! Backfills and verifies as jobs: one of each kind at a time on this replica, started, watched and
//! cancelled by operators.
//!
//! A job outlives the request that started it, and its result stays readable until the next of its kind.

mod http;
mod job;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::backfill::{self, BackfillOptions};
use crate::contract::{Code, Error};
use crate::repository::Parts;
use crate::verify::{self, VerifyOptions};

#[cfg(test)]
mod tests;

pub use http::{ActorOf, acting, looking};
use job::Job;
pub use job::JobKind;

/// The jobs of this replica.
#[derive(Debug)]
pub struct Jobs {
    parts: Parts,
    latest: Mutex<Latest>,
    tasks: TaskTracker,
}

/// The latest job of each kind, under way or ended.
#[derive(Debug, Default)]
struct Latest {
    backfill: Option<Job>,
    verify: Option<Job>,
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
}

impl Jobs {
    /// No jobs yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            latest: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Starts a backfill.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn start_backfill(
        &self,
        actor: &str,
        reason: &str,
        options: BackfillOptions,
    ) -> Result<Uuid, JobError> {
        let asked = json!({ "tables": options.tables, "rate": options.rate });
        let job = self.register(JobKind::Backfill, actor, reason)?;
        let id = job.id;
        let parts = self.parts.clone();
        self.tasks.spawn(job.run(asked, parts, async |job, parts| {
            backfill::run(parts, options, &job.progress, job.cancel.clone()).await
        }));
        Ok(id)
    }

    /// Starts a verify.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn start_verify(&self, options: VerifyOptions) -> Result<Uuid, JobError> {
        let asked = json!({ "tables": options.tables, "repair": options.repair });
        let job = self.register(JobKind::Verify, &options.actor, &options.reason)?;
        let id = job.id;
        let parts = self.parts.clone();
        self.tasks.spawn(job.run(asked, parts, async |job, parts| {
            verify::run(parts, options, &job.progress, job.cancel.clone()).await
        }));
        Ok(id)
    }

    /// A job's state, progress and result; none when it is not known (any more).
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<Value> {
        self.find(id).map(|job| job.view())
    }

    /// Asks a job to end. `false`: it is not known.
    #[must_use]
    pub fn cancel(&self, id: Uuid) -> bool {
        let job = self.find(id);
        if let Some(job) = &job {
            job.cancel.cancel();
        }
        job.is_some()
    }

    /// The latest job of each kind, for `status`: `{"backfill", "verify"}`.
    #[must_use]
    pub fn current(&self) -> Value {
        let latest = self.latest();
        let view = |job: &Option<Job>| job.as_ref().map(Job::view);
        json!({ "backfill": view(&latest.backfill), "verify": view(&latest.verify) })
    }

    /// Cancels what is under way and waits for it; nothing starts any more.
    pub async fn drain(&self) {
        self.tasks.close();
        {
            let latest = self.latest();
            for job in [&latest.backfill, &latest.verify].into_iter().flatten() {
                job.cancel.cancel();
            }
        }
        self.tasks.wait().await;
    }

    /// Takes the place of its kind, if nothing is under way there.
    fn register(&self, kind: JobKind, actor: &str, reason: &str) -> Result<Job, JobError> {
        let mut latest = self.latest();
        // Looked at under the lock: either `drain` sees the job, or the job sees `drain`.
        if self.tasks.is_closed() {
            return Err(JobError::ShuttingDown);
        }
        let slot = match kind {
            JobKind::Backfill => &mut latest.backfill,
            JobKind::Verify => &mut latest.verify,
        };
        if let Some(job) = slot.as_ref().filter(|job| job.is_under_way()) {
            return Err(JobError::UnderWay { kind, id: job.id });
        }
        let job = Job::new(kind, actor, reason);
        *slot = Some(job.clone());
        Ok(job)
    }

    fn find(&self, id: Uuid) -> Option<Job> {
        let latest = self.latest();
        let jobs = [&latest.backfill, &latest.verify];
        jobs.into_iter().flatten().find(|job| job.id == id).cloned()
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
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
        }
    }
}
