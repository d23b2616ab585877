//! The one place where the admin plane turns failures into answers.

use axum::http::HeaderValue;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::contract::{Code, Error};
use crate::control::TransitionError;
use crate::server::{error_response, json_response};
use crate::sql::Fault;

/// Why there is no better answer, in the contract's form.
#[derive(Debug)]
pub(super) struct Failed(Error);

/// A JSON answer, or why there is none.
pub(super) type Answer = Result<Response, Failed>;

/// The answer to a request that went well.
pub(super) fn ok(body: &impl Serialize) -> Answer {
    let json = serde_json::to_string(body)
        .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    Ok(json_response(axum::http::StatusCode::OK, json))
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<TransitionError> for Failed {
    fn from(error: TransitionError) -> Self {
        Self(error.into())
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        TransitionError::from(fault).into()
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        if self.0.code == Code::Internal {
            tracing::error!(error = %self.0, "the admin plane failed");
        }
        let mut response = error_response(&self.0);
        if self.0.code == Code::Unauthorized {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
