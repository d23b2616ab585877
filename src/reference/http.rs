//! The HTTP transport: `POST /query`, `GET /healthz`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};

use super::members::Members;
use super::service::{LIMITS, Service};
use crate::contract::{Code, Error};
use crate::server::{Hangup, ServerOptions, error_response, json_response, read_body};

/// The limits of the service's listener.
pub(super) fn limits() -> ServerOptions {
    ServerOptions {
        body_bytes_max: LIMITS.bytes_max as u64,
        ..ServerOptions::default()
    }
}

/// The service's routes.
pub(super) fn router(service: Service) -> Router {
    Router::new()
        .route("/query", post(query))
        .route("/healthz", get(healthz))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(service)
}

async fn query(State(service): State<Service>, request: Request) -> Response<Body> {
    let faults = service.faults();
    if faults.refuse {
        return hangup();
    }
    let (parts, body) = request.into_parts();
    let body = match read_body(body, LIMITS.bytes_max, limits().body_timeout).await {
        Ok(body) => body,
        Err(error) => return error_response(&error),
    };
    let members = Members::read(|name| {
        let value = parts.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    match service.answer(body, members, faults).await {
        Some(answer) => {
            let status =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            json_response(status, answer.json)
        }
        None => hangup(),
    }
}

async fn healthz(State(service): State<Service>) -> Response<Body> {
    match service.probe().await {
        Ok(()) => json_response(StatusCode::OK, r#"{"status":"ok"}"#.to_owned()),
        Err(error) => error_response(&error),
    }
}

async fn not_found() -> Response<Body> {
    error_response(&Error::new(
        Code::NotFound,
        "POST /query and GET /healthz are all there is",
    ))
}

fn hangup() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Hangup);
    response
}
