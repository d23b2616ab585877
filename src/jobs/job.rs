//! One job, from its start until the next of its kind.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::speed::Speed;
use crate::clock::{rfc3339, unix_us};
use crate::repository::Parts;
use crate::walk::{Progress, WalkError};

/// What a job does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobKind {
    /// Fills storage.
    Backfill,
    /// Compares both sides.
    Verify,
}

/// A job that panicked must not look like one that goes on.
struct EndsAnyhow<'a>(&'a Job);

impl Drop for EndsAnyhow<'_> {
    fn drop(&mut self) {
        // Does nothing to a job that has ended already.
        self.0
            .keep("failed", Value::Null, Some("the job died".to_owned()));
    }
}

impl JobKind {
    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Verify => "verify",
        }
    }
}

/// A job; clones are the same job.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: Uuid,
    pub(super) kind: JobKind,
    pub(super) actor: String,
    pub(super) reason: String,
    replica: String,
    pub(super) cancel: CancellationToken,
    pub(super) progress: Arc<Progress>,
    started_us: i64,
    ended: Arc<OnceLock<Ended>>,
}

/// How a job ended.
#[derive(Debug)]
struct Ended {
    at_us: i64,
    state: &'static str,
    result: Value,
    error: Option<String>,
}

impl Job {
    pub(super) fn new(kind: JobKind, actor: &str, reason: &str, replica: &str) -> Self {
        Self {
            id: Uuid::now_v7(),
            kind,
            actor: actor.to_owned(),
            reason: reason.to_owned(),
            replica: replica.to_owned(),
            cancel: CancellationToken::new(),
            progress: Arc::default(),
            started_us: unix_us(),
            ended: Arc::default(),
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.ended.get().is_none()
    }

    /// Puts the start on record, does the work and keeps what came of it. What cannot be recorded does not run.
    pub(super) async fn run<T: Serialize>(
        &self,
        asked: Value,
        parts: &Parts,
        work: impl Future<Output = Result<T, WalkError>>,
    ) {
        let _guard = EndsAnyhow(self);
        let details = json!({ "job": self.id, "asked": asked });
        let kind = self.kind.as_str();
        let recorded = parts
            .control
            .record_action(&self.actor, kind, &self.reason, details);
        match recorded.await {
            Ok(_) => self.end(work.await),
            Err(fault) => self.end(Err::<T, _>(fault.into())),
        }
    }

    fn end(&self, result: Result<impl Serialize, WalkError>) {
        let (state, result, error) = match result {
            // Reports are plain data: they always become JSON.
            Ok(report) => (
                "done",
                serde_json::to_value(report).unwrap_or_default(),
                None,
            ),
            Err(WalkError::Cancelled) => ("cancelled", Value::Null, None),
            Err(error) => ("failed", Value::Null, Some(error.to_string())),
        };
        tracing::info!(job = %self.id, kind = self.kind.as_str(), state, ?error, "a job ended");
        self.keep(state, result, error);
    }

    fn keep(&self, state: &'static str, result: Value, error: Option<String>) {
        self.ended.get_or_init(|| Ended {
            at_us: unix_us(),
            state,
            result,
            error,
        });
    }

    /// As it is shown.
    pub(super) fn view(&self) -> Value {
        let ended = self.ended.get();
        let progress = self.progress.snapshot();
        let seconds = (unix_us() - self.started_us) as f64 / 1e6;
        let speed = Speed::of_walk(&progress, seconds);
        let running = ended.is_none();
        json!({
            "id": self.id,
            "kind": self.kind.as_str(),
            "state": ended.map_or("running", |ended| ended.state),
            "actor": self.actor,
            "reason": self.reason,
            "replica": self.replica,
            "started_at": rfc3339(self.started_us),
            "ended_at": ended.map(|ended| rfc3339(ended.at_us)),
            "rows": speed.rows,
            "total": speed.total,
            "rows_per_second": running.then(|| speed.per_second()),
            "eta_seconds": speed.eta_seconds().filter(|_| running),
            "progress": progress,
            "result": ended.map(|ended| &ended.result),
            "error": ended.and_then(|ended| ended.error.as_deref()),
        })
    }
}
