//! A request on its way through the service, whatever transport it came by: parsed, delayed or spoilt as
//! asked, executed, answered.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio_util::task::TaskTracker;

use super::answer::Answer;
use super::engine::Engine;
use super::faults::{self, FaultSwitch, Faults};
use super::members::Members;
use crate::contract::{Code, Error, JsonLimits, Query, Request};

/// What a request may be: a proxy packs many of its own requests, each within the contract's limits, into
/// one batch.
pub(super) const LIMITS: JsonLimits = JsonLimits {
    bytes_max: 4 << 20,
    depth_max: 48,
};

/// Shared by the transports.
#[derive(Clone, Debug)]
pub(super) struct Service {
    engine: Arc<Engine>,
    faults: FaultSwitch,
    tasks: TaskTracker,
}

impl Service {
    pub(super) fn new(engine: Arc<Engine>, faults: FaultSwitch, tasks: TaskTracker) -> Self {
        Self {
            engine,
            faults,
            tasks,
        }
    }

    /// The faults for a request that arrives now.
    pub(super) fn faults(&self) -> Faults {
        self.faults.now()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// `backend_unavailable`.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        self.engine.probe().await
    }

    /// Executes a request and answers it; `None` when its reply is to be lost.
    ///
    /// It runs in a task of its own: a client that goes away cancels nothing, as with any service, and no
    /// transaction is dropped half-way.
    pub(super) async fn answer(
        &self,
        body: Bytes,
        members: Result<Members, Error>,
        faults: Faults,
    ) -> Option<Answer> {
        let service = self.clone();
        let task = self
            .tasks
            .spawn(async move { service.run(&body, members, faults).await });
        match task.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "a request's task died");
                Some(Error::new(Code::OutcomeUnknown, "the request's task died").into())
            }
        }
    }

    async fn run(
        &self,
        body: &[u8],
        members: Result<Members, Error>,
        faults: Faults,
    ) -> Option<Answer> {
        if faults.latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(faults.latency_ms)).await;
        }
        let mut answer = match self.execute(body, members, faults).await {
            Ok(answer) => answer,
            Err(error) => error.into(),
        };
        if answer.is_done() && faults::happens(faults.corrupt_rate) {
            spoil(&mut answer);
        }
        (!faults::happens(faults.lost_reply_rate)).then_some(answer)
    }

    async fn execute(
        &self,
        body: &[u8],
        members: Result<Members, Error>,
        faults: Faults,
    ) -> Result<Answer, Error> {
        let members = members?;
        let request = Request::parse(body, &LIMITS)?;
        if faults::happens(faults.error_rate) {
            return Err(Error::new(
                Code::Internal,
                "a fault, as asked; nothing was done",
            ));
        }
        if faults.read_only && writes(&request.query) {
            return Err(Error::new(
                Code::BackendUnavailable,
                "read-only, as asked; nothing was done",
            ));
        }
        Ok(self.engine.execute(request, members).await)
    }
}

/// Whether the query is one that changes rows; a transaction or batch counts as one.
pub(super) fn writes(query: &Query) -> bool {
    match query {
        Query::Insert(_)
        | Query::Upsert(_)
        | Query::Update(_)
        | Query::Delete(_)
        | Query::Transaction(_)
        | Query::Batch(_) => true,
        Query::Select(_)
        | Query::Count(_)
        | Query::Range(_)
        | Query::Resolve(_)
        | Query::Describe(_) => false,
    }
}

fn spoil(answer: &mut Answer) {
    if let Ok(mut value) = serde_json::from_str(&answer.json)
        && faults::corrupt(&mut value)
    {
        answer.json = value.to_string();
    }
}
