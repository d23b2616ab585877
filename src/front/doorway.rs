//! What both doors lead to: from a body to an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::naming::{self, Naming};
use super::scope;
use crate::config::{DoorToken, Hot};
use crate::contract::{Code, Error, JsonLimits, Request};
use crate::repository::{Answer, Call};
use crate::telemetry::{Door, Metrics, Op, TraceParent};

/// Executes a call: the repository, or what a test puts in its place.
pub type Execute = Arc<dyn Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync>;

/// What a door needs.
#[derive(Clone)]
pub struct Doorway {
    /// Where calls go. It must not be harmed by being dropped half-way: clients hang up.
    pub execute: Execute,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// Limits and tokens, as the last reload left them.
    pub hot: Arc<ArcSwap<Hot>>,
}

/// A body that came in, with what came beside it.
pub(super) struct Incoming<'a> {
    pub(super) door: Door,
    pub(super) body: &'a [u8],
    pub(super) naming: Naming,
    pub(super) traceparent: Option<&'a str>,
    /// The token that was presented, where the door asks for one.
    pub(super) token: Option<&'a DoorToken>,
    pub(super) request_id: &'a str,
    pub(super) received: Instant,
}

/// What goes out: the answer, or the refusal of a request that never became a call.
pub(super) type Outgoing = Result<Answer, Error>;

/// One request's place among those in work; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Option<Arc<AtomicUsize>>,
    metrics: Arc<Metrics>,
    door: Door,
}

impl Doorway {
    /// Reads, names, allows, executes and counts one request.
    pub(super) async fn serve(&self, incoming: Incoming<'_>) -> Outgoing {
        let request = match self.read(incoming.body) {
            Ok(request) => request,
            Err(error) => {
                self.metrics
                    .request(incoming.door, Op::Invalid, None, Some(error.code));
                return Err(error);
            }
        };
        let op = Op::of(&request.query);
        let table = self
            .metrics
            .known_table(scope::single_table(&request.query));
        let called = self.call(&incoming, request);
        let outgoing = match called {
            Ok(call) => Ok((self.execute)(call).await),
            Err(error) => Err(error),
        };
        let code = match &outgoing {
            Ok(answer) => answer.result.as_ref().err().map(|error| error.code),
            Err(error) => Some(error.code),
        };
        self.metrics.request(incoming.door, op, table, code);
        let mut answer = outgoing?;
        self.metrics
            .request_took(incoming.door, op, answer.stage, incoming.received.elapsed());
        if answer.lease_expired {
            self.metrics.lease_expired_read();
        }
        answer.result = answer.result.map_err(|error| hide(error, &incoming));
        Ok(answer)
    }

    /// Takes a place among those in work, or none when all are taken.
    pub(super) fn enter(&self, door: Door, taken: &Arc<AtomicUsize>) -> Option<Place> {
        let limit = self.hot.load().limits.in_flight_max;
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now < limit).then_some(now + 1)
            })
            .ok()?;
        self.metrics.entered(door);
        Some(Place {
            taken: Some(Arc::clone(taken)),
            metrics: Arc::clone(&self.metrics),
            door,
        })
    }

    /// Reads a request within the limits.
    pub(super) fn read(&self, body: &[u8]) -> Result<Request, Error> {
        let hot = self.hot.load();
        let limits = JsonLimits {
            bytes_max: hot.limits.body_bytes_max,
            depth_max: hot.limits.json_depth_max,
        };
        Request::parse(body, &limits)
    }

    fn call(&self, incoming: &Incoming<'_>, mut request: Request) -> Result<Call, Error> {
        if let Some(token) = incoming.token {
            scope::allow(token, &request.query)?;
        }
        let op_id_source = naming::settle(&mut request, incoming.naming)?;
        Ok(Call {
            request,
            op_id_source,
            door: incoming.door,
            traceparent: incoming
                .traceparent
                .and_then(TraceParent::parse)
                .map(|parent| parent.child().to_string()),
            received: incoming.received,
        })
    }
}

impl Place {
    /// A place at a door that is bounded by something else.
    pub(super) fn unbounded(metrics: &Arc<Metrics>, door: Door) -> Self {
        metrics.entered(door);
        Self {
            taken: None,
            metrics: Arc::clone(metrics),
            door,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            taken.fetch_sub(1, Ordering::Relaxed);
        }
        self.metrics.left(self.door);
    }
}

/// Keeps what an internal error says in the log, and gives the caller an id to ask for it.
fn hide(error: Error, incoming: &Incoming<'_>) -> Error {
    if error.code != Code::Internal {
        return error;
    }
    let id = Uuid::now_v7();
    tracing::error!(
        %id,
        request_id = incoming.request_id,
        door = incoming.door.as_str(),
        error = error.message,
        "internal error"
    );
    Error {
        message: format!("a bug; the log has it under {id}"),
        details: Some(serde_json::json!({ "id": id })),
        ..error
    }
}
