//! What orchestrators and scrapers ask.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::time::timeout;

use crate::contract::{Code, Error};
use crate::stage::Backend;
use crate::telemetry::Metrics;

use super::AdminState;
use super::failed::{Answer, Failed, ok};

/// How long a backend may take to show that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The process is alive.
pub(super) async fn alive() -> Answer {
    ok(&json!({"alive": true}))
}

/// Ready while the authority answers. The secondary does not count: what it misses is owed to it.
pub(super) async fn ready(State(state): State<Arc<AdminState>>) -> Answer {
    let authority = state.control.snapshot().authority();
    let message = if state.shutdown.is_cancelled() {
        "shutting down".to_owned()
    } else if !is_up(&state, authority).await {
        format!("the authority, {authority}, does not answer")
    } else {
        return ok(&json!({"ready": true, "authority": authority}));
    };
    Err(Error::new(Code::BackendUnavailable, message).into())
}

/// The metrics, as Prometheus reads them.
pub(super) async fn metrics(State(state): State<Arc<AdminState>>) -> Result<Response, Failed> {
    let snapshot = state.control.snapshot();
    let metrics = state.observer.metrics();
    metrics.control(snapshot.stage, snapshot.epoch, snapshot.latched);
    let text = metrics
        .render()
        .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    let kind = HeaderValue::try_from(Metrics::content_type())
        .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// Whether a backend answers now.
pub(super) async fn is_up(state: &AdminState, backend: Backend) -> bool {
    match backend {
        Backend::Legacy => matches!(
            timeout(PROBE_TIMEOUT, state.legacy.probe()).await,
            Ok(Ok(()))
        ),
        Backend::Storage => (state.storage.is_up)(),
    }
}
