//! Reading a request's body, within a size and a time.

use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::contract::{Code, Error};

/// Reads a whole body, at most `limit` bytes of it and for at most `timeout`.
///
/// # Errors
/// `too_large` as soon as the declared or the received length passes the limit (the rest is not read);
/// `invalid_request` when the body is not there in time or breaks off. After either the server closes the
/// connection, because the rest of the body is still in it.
pub async fn read_body<B>(body: B, limit: usize, timeout: Duration) -> Result<Bytes, Error>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit as u64));
    }
    match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit as u64)),
        Ok(Err(_)) => Err(Error::new(
            Code::InvalidRequest,
            "the request's body broke off",
        )),
        Err(_) => Err(Error::new(
            Code::InvalidRequest,
            format!("the request's body did not arrive within {timeout:?}"),
        )),
    }
}

/// The refusal of a body over its limit.
pub(super) fn too_large(limit: u64) -> Error {
    Error::new(
        Code::TooLarge,
        format!("the request's body is over its limit of {limit} bytes"),
    )
    .with_details(serde_json::json!({ "limit_bytes": limit }))
}
