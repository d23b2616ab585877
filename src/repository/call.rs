//! What a door hands in and what it gets back.

use std::time::{Duration, Instant};

use crate::contract::{self, Epoch, OpId, Reply, Request};
use crate::control::Snapshot;
use crate::stage::{Backend, Stage};
use crate::telemetry::Door;

/// A request, read and allowed, with what the door knows about it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request; its `op_id` is final, wherever the client wrote it.
    pub request: Request,
    /// How far `request.op_id` can be trusted to name one operation; without meaning when there is none.
    pub op_id_source: OpIdSource,
    /// The door it came through.
    pub door: Door,
    /// The W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// When it arrived: deadlines count from here.
    pub received: Instant,
}

/// Who gave an operation its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpIdSource {
    /// The client. A record under the id is the answer.
    Client,
    /// The door, from `reply_to` and `correlation_id`, for a message that the broker delivers for the first time.
    /// The operation is recorded under the id, replacing what is there: a record that exists is of an earlier
    /// request of a client that reuses correlation ids, and must not become this one's answer.
    FirstDelivery,
    /// The same, for a message that was delivered before. A record under the id is the answer.
    Redelivery,
}

/// What became of a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The reply, or why there is none.
    pub result: Result<Reply, contract::Error>,
    /// Who answered; none when no backend was asked.
    pub backend: Option<Backend>,
    /// The epoch it was answered under.
    pub epoch: Epoch,
    /// The stage it was answered under.
    pub stage: Stage,
    /// The operation's id, for writes.
    pub op_id: Option<OpId>,
    /// How long the backend that answered took.
    pub backend_time: Option<Duration>,
    /// A read answered by a replica without a lease on the epoch: it may be stale.
    pub lease_expired: bool,
}

impl Answer {
    /// An answer that no backend gave.
    #[must_use]
    pub fn refused(snapshot: &Snapshot, error: contract::Error) -> Self {
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
