//! What a door hands in, and what it gets back.

use std::time::{Duration, Instant};

use crate::contract::{Epoch, Error, OpId, Reply, Request};
use crate::control::Snapshot;
use crate::stage::{Backend, Stage};
use crate::telemetry::Door;

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is asked; its `op_id` is set when the caller gave one, by whatever way.
    pub request: Request,
    /// Where it came in.
    pub door: Door,
    /// W3C trace context, passed on.
    pub traceparent: Option<String>,
    /// When it came in: deadlines count from here.
    pub received: Instant,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The reply, or why there is none.
    pub result: Result<Reply, Error>,
    /// Who answered, if a backend did.
    pub backend: Option<Backend>,
    /// The epoch it was answered under.
    pub epoch: Epoch,
    /// The stage it was answered under.
    pub stage: Stage,
    /// The write's operation id, to repeat it by.
    pub op_id: Option<OpId>,
    /// How long the answering backend took.
    pub backend_time: Option<Duration>,
    /// Read without a lease on the epoch, from storage, because the control state was out of reach.
    pub lease_expired: bool,
}

impl Answer {
    /// An answer that no backend gave.
    #[must_use]
    pub fn refused(snapshot: &Snapshot, error: Error) -> Self {
        Self {
            result: Err(error),
            backend: None,
            epoch: snapshot.epoch,
            stage: snapshot.stage,
            op_id: None,
            backend_time: None,
            lease_expired: false,
        }
    }
}
