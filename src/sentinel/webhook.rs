//! One POST of JSON.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// Posts, and wants a success for an answer. The error never holds the URL, whose path is often a secret.
pub(super) async fn post(url: &str, body: String, within: Duration) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| "guard.webhook is not a URL".to_owned())?;
    // A connection of its own: there is nothing to keep one for.
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client.request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        // Taken, so that the connection ends in order; what it says matters to nobody.
        drop(response.into_body().frame().await);
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("it answered {status}")),
        }
    };
    timeout(within, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
}
