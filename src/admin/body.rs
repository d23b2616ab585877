//! What an act must look like: JSON, from the same origin, with a reason.
//!
//! A browser sends JSON to a foreign origin only after asking first, and names the origin it comes from; so
//! neither a form on another site nor a script can act with what the operator's browser holds.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::middleware::Next;
use serde::de::DeserializeOwned;

use crate::contract::{Code, Error, JsonLimits, parse_json};
use crate::server::read_body;

use super::failed::Answer;

/// The largest body of an act, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest reason, in characters.
const REASON_CHARS_MAX: usize = 2_000;

/// Refuses acts that are not JSON, and those that a page of another origin sends.
pub(super) async fn only_json_from_here(request: Request, next: Next) -> Answer {
    same_origin(request.headers())?;
    json_declared(request.headers())?;
    Ok(next.run(request).await)
}

/// Reads an act. Its type refuses unknown members.
///
/// # Errors
/// `too_large`, or `invalid_request` with what is wrong.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Error> {
    let bytes = read_body(request.into_body(), BODY_BYTES_MAX, BODY_TIMEOUT).await?;
    let limits = JsonLimits {
        bytes_max: BODY_BYTES_MAX,
        depth_max: 4,
    };
    let value = parse_json(&bytes, &limits)?;
    serde_json::from_value(value)
        .map_err(|error| Error::new(Code::InvalidRequest, error.to_string()))
}

/// A reason that says something.
///
/// # Errors
/// `invalid_request` when it is blank, or longer than anybody reads.
pub(super) fn reason(text: &str) -> Result<&str, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::new(Code::InvalidRequest, "a reason is required"));
    }
    if text.chars().count() > REASON_CHARS_MAX {
        let message = format!("the reason is longer than {REASON_CHARS_MAX} characters");
        return Err(Error::new(Code::InvalidRequest, message));
    }
    Ok(text)
}

fn json_declared(headers: &HeaderMap) -> Result<(), Error> {
    let declared = headers.get(CONTENT_TYPE).and_then(|one| one.to_str().ok());
    let kind = declared.and_then(|one| one.split(';').next());
    if kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = "send the body as content-type application/json";
    Err(Error::new(Code::InvalidRequest, message))
}

fn same_origin(headers: &HeaderMap) -> Result<(), Error> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let from = origin.to_str().ok().and_then(|one| one.split_once("://"));
    let host = headers.get(HOST).and_then(|one| one.to_str().ok());
    match (from, host) {
        (Some((_, from)), Some(host)) if from.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Error::new(
            Code::Forbidden,
            "changes are accepted from the same origin only",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(origin: &str) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "127.0.0.1:8081".parse().unwrap());
        headers.insert(ORIGIN, origin.parse().unwrap());
        same_origin(&headers)
    }

    #[test]
    fn another_origin_is_refused_and_so_is_a_hidden_one() {
        assert_eq!(origin("http://127.0.0.1:8081"), Ok(()));
        for foreign in ["http://127.0.0.1:9999", "http://elsewhere", "null", ""] {
            assert_eq!(origin(foreign).unwrap_err().code, Code::Forbidden);
        }
        assert_eq!(same_origin(&HeaderMap::new()), Ok(()));
    }

    #[test]
    fn a_reason_says_something() {
        assert_eq!(reason(" planned "), Ok("planned"));
        assert!(reason("  ").is_err());
        assert!(reason(&"x".repeat(REASON_CHARS_MAX + 1)).is_err());
    }
}
