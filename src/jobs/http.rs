//! Jobs over the admin plane. Who may ask is decided by the layers around these routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{Extensions, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::verifying::PAGE;
use super::{Jobs, Steer};
use crate::backfill::{Asked, RunState};
use crate::contract::{Code, Error, JsonLimits, parse_json};
use crate::server::{error_response, json_response, read_body};
use crate::verify::VerifyOptions;

/// The largest body, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells who asks from what the layers left on the request.
pub type ActorOf = fn(&Extensions) -> String;

#[derive(Clone)]
struct Door {
    jobs: Arc<Jobs>,
    actor_of: ActorOf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackfillBody {
    #[serde(default)]
    tables: Vec<String>,
    rate: Option<u32>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    reason: String,
}

/// What to do with a job that exists.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SteerBody {
    action: Option<Action>,
    rate: Option<u32>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Action {
    Pause,
    Resume,
    Cancel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    repair: bool,
    #[serde(default)]
    reason: String,
}

/// For operators: `POST /admin/backfill`, `POST /admin/verify`, `POST|DELETE /admin/jobs/{id}`.
pub fn acting<S: Clone + Send + Sync + 'static>(jobs: Arc<Jobs>, actor_of: ActorOf) -> Router<S> {
    Router::new()
        .route("/admin/backfill", post(backfill))
        .route("/admin/verify", post(verify))
        .route("/admin/jobs/{id}", delete(cancel).post(steer))
        .with_state(Door { jobs, actor_of })
}

/// For viewers: `GET /admin/jobs/{id}`.
pub fn looking<S: Clone + Send + Sync + 'static>(jobs: Arc<Jobs>, actor_of: ActorOf) -> Router<S> {
    Router::new()
        .route("/admin/jobs/{id}", get(look))
        .with_state(Door { jobs, actor_of })
}

async fn backfill(State(door): State<Door>, request: Request) -> Response {
    let actor = (door.actor_of)(request.extensions());
    answer(StatusCode::ACCEPTED, async {
        let body: BackfillBody = read(request).await?;
        let asked = Asked {
            tables: body.tables,
            rate: body.rate.map(i64::from),
            actor,
            reason: body.reason,
        };
        if body.dry_run {
            return Ok(door.jobs.plan_backfill(&asked).await?);
        }
        Ok(json!({ "id": door.jobs.start_backfill(asked).await? }))
    })
    .await
}

async fn verify(State(door): State<Door>, request: Request) -> Response {
    let actor = (door.actor_of)(request.extensions());
    answer(StatusCode::ACCEPTED, async {
        let body: VerifyBody = read(request).await?;
        let options = VerifyOptions {
            tables: body.tables,
            repair: body.repair,
            page: PAGE,
            actor,
            reason: body.reason,
        };
        Ok(json!({ "id": door.jobs.start_verify(options).await? }))
    })
    .await
}

async fn look(State(door): State<Door>, Path(id): Path<String>) -> Response {
    answer(StatusCode::OK, async { find(&door, job_id(&id)?).await }).await
}

async fn cancel(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Response {
    let actor = (door.actor_of)(request.extensions());
    let cancel = Steer {
        to: Some(RunState::Cancelled),
        rate: None,
    };
    answer(StatusCode::OK, async {
        let id = job_id(&id)?;
        steered(&door, &actor, "", id, cancel).await
    })
    .await
}

async fn steer(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Response {
    let actor = (door.actor_of)(request.extensions());
    answer(StatusCode::OK, async {
        let body: SteerBody = read(request).await?;
        let to = body.action.map(|action| match action {
            Action::Pause => RunState::Paused,
            Action::Resume => RunState::Running,
            Action::Cancel => RunState::Cancelled,
        });
        let rate = body.rate;
        let id = job_id(&id)?;
        steered(&door, &actor, &body.reason, id, Steer { to, rate }).await
    })
    .await
}

async fn steered(
    door: &Door,
    actor: &str,
    reason: &str,
    id: Uuid,
    steer: Steer,
) -> Result<Value, Error> {
    let steered = door.jobs.steer(actor, reason, id, steer).await;
    if !steered.map_err(unavailable)? {
        let message =
            "no such job, or it has ended, or it is a verify: those can only be cancelled";
        return Err(Error::new(Code::NotFound, message));
    }
    find(door, id).await
}

async fn find(door: &Door, id: Uuid) -> Result<Value, Error> {
    let job = door.jobs.get(id).await.map_err(unavailable)?;
    job.ok_or_else(no_such_job)
}

fn unavailable(fault: crate::sql::Fault) -> Error {
    Error::new(Code::BackendUnavailable, format!("legacy: {fault}"))
}

async fn answer(status: StatusCode, work: impl Future<Output = Result<Value, Error>>) -> Response {
    match work.await {
        Ok(value) => json_response(status, value.to_string()),
        Err(error) => error_response(&error),
    }
}

/// The body; none at all is an empty object.
async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Error> {
    let bytes = read_body(request.into_body(), BODY_BYTES_MAX, BODY_TIMEOUT).await?;
    let limits = JsonLimits {
        bytes_max: BODY_BYTES_MAX,
        depth_max: 4,
    };
    let value = match bytes.as_ref() {
        [] => json!({}),
        bytes => parse_json(bytes, &limits)?,
    };
    serde_json::from_value(value)
        .map_err(|error| Error::new(Code::InvalidRequest, error.to_string()))
}

fn job_id(text: &str) -> Result<Uuid, Error> {
    text.parse().map_err(|_| no_such_job())
}

fn no_such_job() -> Error {
    Error::new(
        Code::NotFound,
        "no such job; only the latest of each kind is kept",
    )
}
