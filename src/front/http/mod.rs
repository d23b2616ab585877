//! The HTTP door: `POST /v1/query` and `GET /v1/openapi.json`.
//!
//! Every failure is answered in the contract's form, also those of the path and the method. The order of checks is the order of
//! cost: who is it, is there room, is it JSON, then the body. A place
//! among the requests in work is taken before the body is read, so that their number bounds memory as well.

mod answer;
mod head;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};

use self::answer::Refused;
use self::head::Head;
use super::doorway::{Doorway, Incoming, Place};
use super::naming::Naming;
use crate::config::{DoorToken, Hot};
use crate::contract::{Code, Error};
use crate::repository::Answer;
use crate::server::{Arriving, Service, error_response, json_response, read_body};
use crate::telemetry::{Door, Op, Shed};

/// The description of the door, OpenAPI 3.1.
const OPENAPI: &str = include_str!("../openapi.json");

/// The door, to be served by [`crate::server::serve`].
#[derive(Clone)]
pub struct HttpDoor {
    doorway: Doorway,
    in_flight: Arc<AtomicUsize>,
}

/// Two paths need no router, and this is the way that every request takes.
impl Service for HttpDoor {
    async fn answer(&self, request: Request<Arriving>, _peer: SocketAddr) -> Response<Body> {
        match (request.uri().path(), request.method()) {
            ("/v1/query", &Method::POST) => self.query(request).await,
            ("/v1/query", other) => wrong_method(other, HeaderValue::from_static("POST")),
            ("/v1/openapi.json", &Method::GET | &Method::HEAD) => {
                json_response(StatusCode::OK, OPENAPI.to_owned())
            }
            ("/v1/openapi.json", other) => {
                wrong_method(other, HeaderValue::from_static("GET, HEAD"))
            }
            _ => not_found(),
        }
    }
}

impl HttpDoor {
    /// A door that leads to `doorway`.
    #[must_use]
    pub fn new(doorway: Doorway) -> Self {
        Self {
            doorway,
            in_flight: Arc::default(),
        }
    }

    async fn query(&self, request: Request<Arriving>) -> Response<Body> {
        let received = Instant::now();
        let (parts, body) = request.into_parts();
        let head = Head::read(&parts.headers);
        let outgoing = self.handle(&head, body, received).await;
        answer::respond(outgoing, &head, received)
    }

    async fn handle(
        &self,
        head: &Head<'_>,
        body: Arriving,
        received: Instant,
    ) -> Result<Answer, Refused> {
        let hot = self.doorway.hot.load_full();
        let admitted = self.admit(head, body, &hot).await;
        let (_place, token, body, naming) = admitted.inspect_err(|refused| {
            let code = Some(refused.code());
            self.doorway
                .metrics
                .request(Door::Http, Op::Invalid, None, code);
        })?;
        let incoming = Incoming {
            door: Door::Http,
            body: &body,
            naming,
            traceparent: head.traceparent(),
            token,
            request_id: head.request_id(),
            received,
        };
        Ok(self.doorway.serve(incoming).await?)
    }

    /// Everything that is checked before the body is read, and the body.
    async fn admit<'h>(
        &self,
        head: &Head<'_>,
        body: Arriving,
        hot: &'h Hot,
    ) -> Result<(Place, Option<&'h DoorToken>, Bytes, Naming), Refused> {
        let token = head.token(&hot.http_tokens)?;
        let Some(place) = self.doorway.enter(Door::Http, &self.in_flight) else {
            self.doorway.metrics.shed(Shed::HttpRequest);
            let message = "too many requests in work; nothing was done";
            return Err(Error::new(Code::Overloaded, message).into());
        };
        if !head.is_json() {
            let message = "the body must be JSON: send content-type: application/json";
            let error = Error::new(Code::InvalidRequest, message);
            return Err(Refused::with_status(
                error,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ));
        }
        let naming = head.naming()?;
        let limits = &hot.limits;
        let body = read_body(body, limits.body_bytes_max, limits.body_timeout).await?;
        Ok((place, token, body, naming))
    }
}

fn not_found() -> Response<Body> {
    let error = Error::new(
        Code::NotFound,
        "no such path; there are POST /v1/query and GET /v1/openapi.json",
    );
    error_response(&error)
}

/// 405, whose code is the contract's for a request that is wrong.
fn wrong_method(method: &Method, allowed: HeaderValue) -> Response<Body> {
    let shown = allowed.to_str().unwrap_or_default();
    let error = Error::new(
        Code::InvalidRequest,
        format!("this path does not take {method}; it takes {shown}"),
    );
    let refused = Refused::with_status(error, StatusCode::METHOD_NOT_ALLOWED);
    let mut response = refused.into_response();
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

#[cfg(test)]
mod tests;
