//! From an answer to a response.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::head::{Head, REQUEST_ID};
use crate::contract::{Code, Error};
use crate::repository::Answer;
use crate::server::{error_response, json_response};

const BACKEND: HeaderName = HeaderName::from_static("x-cutover-backend");
const EPOCH: HeaderName = HeaderName::from_static("x-cutover-epoch");
const OP_ID: HeaderName = HeaderName::from_static("x-cutover-op-id");
/// `expired`: the answer came from a replica without a lease on the epoch, and may be stale.
const LEASE: HeaderName = HeaderName::from_static("x-cutover-lease");
/// <https://www.w3.org/TR/server-timing/>
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A request that never became a call.
pub(super) struct Refused {
    error: Error,
    /// Where HTTP tells more apart than the contract's codes do.
    status: Option<StatusCode>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            error,
            status: None,
        }
    }
}

impl Refused {
    pub(super) fn with_status(error: Error, status: StatusCode) -> Self {
        Self {
            error,
            status: Some(status),
        }
    }

    pub(super) fn code(&self) -> Code {
        self.error.code
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = error_response(&self.error);
        if let Some(status) = self.status {
            *response.status_mut() = status;
        }
        if self.error.code == Code::Unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The response to a request.
pub(super) fn respond(
    outgoing: Result<Answer, Refused>,
    head: &Head<'_>,
    received: Instant,
) -> Response<Body> {
    let mut response = match outgoing {
        Ok(answer) => answered(answer, received),
        Err(refused) => refused.into_response(),
    };
    response
        .headers_mut()
        .insert(REQUEST_ID, head.request_id_value());
    response
}

fn answered(answer: Answer, received: Instant) -> Response<Body> {
    let mut response = match answer.result {
        Ok(reply) => json_response(StatusCode::OK, reply.into_json()),
        Err(error) => error_response(&error),
    };
    let headers = response.headers_mut();
    if let Some(backend) = answer.backend {
        headers.insert(BACKEND, HeaderValue::from_static(backend.as_str()));
    }
    headers.insert(EPOCH, HeaderValue::from(answer.epoch.0));
    if let Some(op_id) = answer.op_id {
        put(headers, OP_ID, &op_id.to_string());
    }
    if answer.lease_expired {
        headers.insert(LEASE, HeaderValue::from_static("expired"));
    }
    put(
        headers,
        SERVER_TIMING,
        &timing(received.elapsed(), answer.backend_time),
    );
    response
}

fn timing(total: Duration, backend: Option<Duration>) -> String {
    let ms = |time: Duration| {
        let us = time.as_micros();
        format!("{}.{:03}", us / 1000, us % 1000)
    };
    match backend {
        Some(backend) => format!("total;dur={}, backend;dur={}", ms(total), ms(backend)),
        None => format!("total;dur={}", ms(total)),
    }
}

/// Adds a header whose text is digits, letters and punctuation of our own.
fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_in_milliseconds() {
        let total = Duration::from_micros(1500);
        assert_eq!(timing(total, None), "total;dur=1.500");
        assert_eq!(
            timing(total, Some(Duration::from_micros(900))),
            "total;dur=1.500, backend;dur=0.900"
        );
    }
}
