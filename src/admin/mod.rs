//! The admin plane: what operators, scrapers and orchestrators ask, and the acts that operators may do.
//!
//! Three kinds of path, each with its own door: health and metrics (open), looking (`look`, `status`,
//! `events`: a viewer), and acting (`act`: an operator, JSON, same origin). Nothing here decides: it reads
//! what the others know, and hands acts to the control, the journal and the list of divergences, each with
//! a record of who did it and why.

mod act;
mod auth;
mod body;
mod drill;
mod events;
mod evidence;
mod failed;
mod guard;
mod health;
mod look;
mod maintenance;
mod now;
mod readiness;
mod record;
mod recover;
mod schema;
mod stage;
mod status;
mod token;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{AdminToken, Readiness, TokenHash};
use crate::contract::{Code, Error};
use crate::control::{Control, FlagFile};
use crate::drift::Drift;
use crate::drill::Drills;
use crate::jobs::{self, Jobs};
use crate::legacy::Legacy;
use crate::observe::Observer;
use crate::stage::Stage;

use failed::Failed;

pub use stage::judge_for_flag_file;
pub use token::write_operator_token;

/// Clients of `/admin/events` at a time; more are refused.
const EVENT_CLIENTS_MAX: usize = 32;

/// What the admin plane looks at and acts on.
#[derive(Debug)]
pub struct AdminState {
    /// The control state of this replica.
    pub control: Control,
    /// The legacy database, in which journal and divergences live too.
    pub legacy: Arc<Legacy>,
    /// What is known of the storage service.
    pub storage: StorageView,
    /// What happened lately.
    pub observer: Arc<Observer>,
    /// Where the sides' schemas differ.
    pub drift: Arc<Drift>,
    /// Who may use the admin plane; empty means the operator token, on loopback.
    pub tokens: ArcSwap<Vec<AdminToken>>,
    /// The hash of the token that start-up wrote.
    pub operator_token: TokenHash,
    /// Whether `/metrics` asks for a token.
    pub protect_metrics: bool,
    /// The program's version.
    pub version: String,
    /// The configuration without its secrets.
    pub config_view: ArcSwap<serde_json::Value>,
    /// `[readiness]`, as the last reload left it.
    pub readiness: ArcSwap<Readiness>,
    /// What became of the flag file.
    pub flag: watch::Receiver<FlagFile>,
    /// Backfills and verifies.
    pub jobs: Arc<Jobs>,
    /// Rehearsals of a rollback.
    pub drills: Arc<Drills>,
    /// Once cancelled, nothing is ready any more and event streams end.
    pub shutdown: CancellationToken,
}

/// What the admin plane needs to know of the storage service.
pub struct StorageView {
    /// Whether it answers.
    pub is_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// The promises that are weaker for want of a capability, for people.
    pub weakened: Vec<String>,
    /// The last stage that its capabilities allow.
    pub highest_stage: Stage,
}

impl fmt::Debug for StorageView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageView")
            .field("is_up", &(self.is_up)())
            .field("weakened", &self.weakened)
            .field("highest_stage", &self.highest_stage)
            .finish()
    }
}

/// Everything the admin plane answers. Handlers need the client's address (`server::serve` gives it).
pub fn router(state: Arc<AdminState>) -> Router {
    let streams = Arc::new(Semaphore::new(EVENT_CLIENTS_MAX));
    let health = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready));
    let metrics = Router::new()
        .route("/metrics", get(health::metrics))
        .route_layer(from_fn_with_state(state.clone(), auth::scraper));
    let look = Router::new()
        .route("/admin/status", get(status::status))
        .route("/admin/transitions", get(look::transitions))
        .route("/admin/divergences", get(look::divergences))
        .route("/admin/journal", get(look::journal))
        .route("/admin/journal/{seq}", get(look::entry))
        .route("/admin/config", get(look::config))
        .route("/admin/schema", get(schema::schema))
        .route("/admin/drill", get(drill::latest))
        .route(
            "/admin/events",
            get(async move |state| events::events(state, streams).await),
        )
        .merge(jobs::looking(Arc::clone(&state.jobs), auth::actor_of))
        .route_layer(from_fn_with_state(state.clone(), auth::viewer));
    let act = Router::new()
        .route("/admin/stage", post(stage::stage))
        .route("/admin/rollback", post(stage::rollback))
        .route("/admin/rearm", post(stage::rearm))
        .route("/admin/recover", post(recover::recover))
        .route("/admin/maintenance", post(maintenance::maintenance))
        .route("/admin/drill", post(drill::begin).delete(drill::cancel))
        .route("/admin/journal/{seq}/retry", post(act::retry))
        .route("/admin/journal/{seq}/accept", post(act::accept))
        .route("/admin/divergences/{id}/explain", post(act::explain))
        .merge(jobs::acting(Arc::clone(&state.jobs), auth::actor_of))
        // Layers run from the last to the first: who asks comes before what is asked.
        .route_layer(from_fn(body::only_json_from_here))
        .route_layer(from_fn_with_state(state.clone(), auth::operator));
    health
        .merge(metrics)
        .merge(look)
        .merge(act)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .with_state(state)
}

async fn no_such_path() -> Failed {
    let message = "no such path, or not with this method";
    Failed::from(Error::new(Code::NotFound, message))
}
