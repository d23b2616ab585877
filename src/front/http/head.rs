//! What a request's headers say.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use uuid::Uuid;

use crate::config::{DoorToken, TokenHash};
use crate::contract::{Code, Error};
use crate::front::naming::{self, Naming};

/// Longest request id that is taken over from the caller.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The key to repeat a write safely (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Names a request in the logs of everyone who handles it; given back with the answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The headers of one request.
pub(super) struct Head<'a> {
    headers: &'a HeaderMap,
    request_id: HeaderValue,
}

impl<'a> Head<'a> {
    pub(super) fn read(headers: &'a HeaderMap) -> Self {
        let given = headers.get(&REQUEST_ID).filter(|value| {
            value.len() <= REQUEST_ID_BYTES_MAX && !value.is_empty() && value.to_str().is_ok()
        });
        let request_id = given.cloned().unwrap_or_else(|| {
            let mut buffer = Uuid::encode_buffer();
            let text = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
            // Hexadecimal digits and hyphens are a header value.
            HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
        });
        Self {
            headers,
            request_id,
        }
    }

    /// The caller's token among those allowed; none when the door asks for none.
    pub(super) fn token<'t>(
        &self,
        tokens: &'t [DoorToken],
    ) -> Result<Option<&'t DoorToken>, Error> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let presented = self
            .text(&header::AUTHORIZATION)
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| TokenHash::of(token.trim()))
            .ok_or_else(|| {
                Error::new(
                    Code::Unauthorized,
                    "this door asks for a token: Authorization: Bearer <token>",
                )
            })?;
        // All are compared, so that the time says nothing about which one matched.
        let mut found = None;
        for token in tokens {
            if token.hash.matches(&presented) {
                found = Some(token);
            }
        }
        match found {
            Some(token) => Ok(Some(token)),
            None => Err(Error::new(Code::Unauthorized, "no such token")),
        }
    }

    /// Whether the body is said to be JSON. It must be: a form sent by a browser on another site cannot.
    pub(super) fn is_json(&self) -> bool {
        self.text(&header::CONTENT_TYPE)
            .and_then(|text| text.split(';').next())
            .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
    }

    /// The operation id in `Idempotency-Key`.
    pub(super) fn naming(&self) -> Result<Naming, Error> {
        let Some(value) = self.headers.get(&IDEMPOTENCY_KEY) else {
            return Ok(Naming::None);
        };
        // The draft writes the key as a quoted string; most clients leave the quotes out.
        match value.to_str().map(|text| text.trim_matches('"')) {
            Ok(name) if !name.is_empty() && name.len() <= IDEMPOTENCY_KEY_BYTES_MAX => {
                Ok(Naming::Client(naming::from_client(name)))
            }
            _ => Err(Error::new(
                Code::InvalidRequest,
                "Idempotency-Key must be 1 to 255 visible ASCII characters",
            )),
        }
    }

    pub(super) fn traceparent(&self) -> Option<&str> {
        self.text(&TRACEPARENT)
    }

    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    pub(super) fn request_id_value(&self) -> HeaderValue {
        self.request_id.clone()
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
