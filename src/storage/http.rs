//! The HTTP transport: pooled HTTP/1.1 connections, with TLS for `https://`.
//!
//! Whether a request left is read off its body: a request whose body was never taken for writing cannot have
//! been executed, whatever went wrong. That covers a refused connection, a slow connect, and a pooled
//! connection that closed before it was used again, and a server whose certificate is not believed.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::outcome::{Ending, REPLY_BYTES_MAX};
use super::{Call, HttpOptions};
use crate::tls::{HttpsConnector, Trust, reason};

/// Idle connections are closed well before a server closes them (75 s is common): one that is being closed
/// when it is used again is a doubt.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// The line over HTTP.
#[derive(Debug)]
pub(super) struct Http {
    client: ArcSwap<HttpClient>,
    uri: Uri,
    pool: usize,
    connect_limit: Duration,
    trust: Arc<Trust>,
    /// Why the service cannot be reached, while it cannot: said once, not with every call.
    unreachable: ArcSwapOption<String>,
}

type HttpClient = Client<HttpsConnector, Watched>;

/// A body that remembers whether it was taken.
#[derive(Debug)]
struct Watched {
    bytes: Option<Bytes>,
    taken: Arc<AtomicBool>,
}

impl Http {
    pub(super) fn new(
        options: &HttpOptions,
        connect_limit: Duration,
        trust: Arc<Trust>,
    ) -> Result<Self, String> {
        let text = format!("{}/query", options.base_url.trim_end_matches('/'));
        let uri: Uri = text
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| error.to_string())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err("must be http[s]://host[:port][/path]".to_owned());
        }
        let client = client(&trust, connect_limit, options.pool);
        Ok(Self {
            client: ArcSwap::from_pointee(client),
            uri,
            pool: options.pool,
            connect_limit,
            trust,
            unreachable: ArcSwapOption::empty(),
        })
    }

    /// Begins with an empty pool, so that no connection outlasts the trust it was made under. Calls under way
    /// keep theirs.
    pub(super) fn renew_trust(&self) {
        let client = client(&self.trust, self.connect_limit, self.pool);
        self.client.store(Arc::new(client));
    }

    pub(super) async fn call(
        &self,
        call: &Call,
        fences: Option<String>,
        body: String,
        limit: Duration,
    ) -> Ending {
        let taken = Arc::new(AtomicBool::new(false));
        let body = Watched {
            bytes: Some(Bytes::from(body)),
            taken: Arc::clone(&taken),
        };
        let request = match self.request(call, fences, body) {
            Ok(request) => request,
            Err(error) => return Ending::NotSent(error.to_string()),
        };
        let ending = timeout(limit, self.exchange(request))
            .await
            .unwrap_or(Ending::TimedOut);
        match ending {
            Ending::Lost(why) if !taken.load(Ordering::Acquire) => Ending::NotSent(why),
            Ending::TimedOut if !taken.load(Ordering::Acquire) => {
                Ending::NotSent("no connection in time".to_owned())
            }
            ending => ending,
        }
    }

    fn request(
        &self,
        call: &Call,
        fences: Option<String>,
        body: Watched,
    ) -> Result<Request<Watched>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("deadline", call.deadline.0)
            .header("attempt_id", call.attempt.to_string())
            .header("epoch", call.epoch.0);
        if let Some(trace) = &call.traceparent {
            request = request.header("traceparent", trace);
        }
        if let Some(fences) = fences {
            request = request.header("fences", fences);
        }
        request.body(body)
    }

    async fn exchange(&self, request: Request<Watched>) -> Ending {
        let asked = self.client.load().request(request);
        let response = match asked.await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                let why = reason(&error);
                self.say_unreachable(&why);
                return Ending::NotSent(format!("the service cannot be reached: {why}"));
            }
            Err(error) => return Ending::Lost(error.to_string()),
        };
        if self.unreachable.load().is_some() && self.unreachable.swap(None).is_some() {
            tracing::info!("the storage service can be reached again");
        }
        let status = response.status().as_u16();
        match Limited::new(response.into_body(), REPLY_BYTES_MAX)
            .collect()
            .await
        {
            Ok(body) => Ending::Answered {
                status: Some(status),
                body: body.to_bytes().to_vec(),
            },
            Err(error) => Ending::Lost(format!("the reply broke off: {error}")),
        }
    }

    fn say_unreachable(&self, why: &str) {
        let said = self.unreachable.load();
        if said.as_deref().is_none_or(|said| said != why) {
            self.unreachable.store(Some(Arc::new(why.to_owned())));
            tracing::warn!(why, "the storage service cannot be reached");
        }
    }
}

fn client(trust: &Trust, connect_limit: Duration, pool: usize) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(pool)
        .build(trust.connector(connect_limit))
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.bytes.take();
        if bytes.is_some() {
            self.taken.store(true, Ordering::Release);
        }
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.bytes.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(left as u64)
    }
}
