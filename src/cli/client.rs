//! The admin API's client.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::AdminArgs;
use super::print::blockers;
use crate::tls::{HttpsConnector, Trust, TrustFiles, reason};

/// Where start-up leaves the operator's token, relative to the working directory.
const TOKEN_FILE: &str = "data/operator.token";
/// How long a request may take: a transition holds writers for seconds at most.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Speaks to one proxy's admin plane.
#[derive(Debug)]
pub struct AdminClient {
    base: String,
    token: Option<String>,
    http: Client<HttpsConnector, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one that can be spoken to.
    #[error("{0}")]
    Address(String),
    /// Nobody answers there, or not as an admin plane does.
    #[error("{0}")]
    Unreachable(String),
    /// The proxy answered with an error of the contract.
    #[error("{code}: {message}")]
    Refused {
        /// The error's code.
        code: String,
        /// The error's message.
        message: String,
        /// What stands in the way, where that is why: code and what to do, a line each.
        blockers: Vec<String>,
    },
}

impl AdminClient {
    /// A client for the proxy that the arguments name.
    ///
    /// # Errors
    /// `Address`.
    pub fn new(args: &AdminArgs) -> Result<Self, ClientError> {
        let base = args.admin.trim_end_matches('/').to_owned();
        let uri = base.parse::<Uri>().ok();
        let speaks_http = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        if !uri.is_some_and(|uri| speaks_http(&uri) && uri.host().is_some()) {
            let message = format!("{base:?} is not an http:// or https:// address");
            return Err(ClientError::Address(message));
        }
        let files = TrustFiles {
            ca: args.ca_file.clone(),
            identity: None,
        };
        let trust = Trust::load(files).map_err(|error| ClientError::Address(error.to_string()))?;
        let token = args.token.clone().or_else(|| {
            let text = std::fs::read_to_string(TOKEN_FILE).ok()?;
            Some(text.trim().to_owned())
        });
        Ok(Self {
            base,
            token: token.filter(|token| !token.is_empty()),
            http: Client::builder(TokioExecutor::new()).build(trust.connector(TIMEOUT)),
        })
    }

    /// Asks.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, path, None).await
    }

    /// Changes something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Ends something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::DELETE, path, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.base))
            .header(header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        // Also without a body: an act must declare what a page of another site cannot.
        if method != Method::GET {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Address(error.to_string()))?;
        let unreachable = |why: String| {
            ClientError::Unreachable(format!(
                "the proxy at {} cannot be reached: {why}",
                self.base
            ))
        };
        let exchange = async {
            let response = self.http.request(request).await;
            let (parts, body) = response
                .map_err(|error| unreachable(reason(&error)))?
                .into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| unreachable(error.to_string()))?;
            Ok((parts.status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| unreachable(format!("no answer within {TIMEOUT:?}")))??;
        read(status, &body).ok_or_else(|| {
            unreachable(format!("it answered {status}, but not as an admin plane"))
        })?
    }
}

/// The answer, or the contract's error; none when it is neither.
fn read(status: StatusCode, body: &[u8]) -> Option<Result<Value, ClientError>> {
    let value: Value = match body {
        [] => Value::Null,
        text => serde_json::from_slice(text).ok()?,
    };
    if status.is_success() {
        return Some(Ok(value));
    }
    let error = value.get("error")?;
    Some(Err(ClientError::Refused {
        code: error.get("code")?.as_str()?.to_owned(),
        message: error.get("message")?.as_str()?.to_owned(),
        blockers: blockers(error.pointer("/details/readiness")),
    }))
}
