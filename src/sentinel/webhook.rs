//! One POST of JSON.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use crate::tls::{HttpsConnector, reason};

/// Posts, and wants a success for an answer. The error never holds the URL, whose path is often a secret.
pub(super) async fn post(
    connector: &HttpsConnector,
    url: &str,
    body: String,
    within: Duration,
) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| "guard.webhook is not a URL".to_owned())?;
    // A connection of its own: there is nothing to keep one for.
    let client: Client<HttpsConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build(connector.clone());
    let exchange = async {
        let response = client.request(request).await;
        let response = response.map_err(|error| reason(&error))?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::routing::post as accept;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::server::{ServerOptions, Tls, serve};
    use crate::tls::issuer::{Authority, public_trust};

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_webhook_over_https_is_told_if_its_certificate_is_believed() {
        let ours = Authority::new();
        let certificate = ours.issue("localhost");
        let options = ServerOptions {
            tls: Some(Arc::new(
                Tls::load(&certificate.chain, &certificate.key).unwrap(),
            )),
            ..ServerOptions::default()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/",
            listener.local_addr().unwrap().port()
        );
        let stop = CancellationToken::new();
        let router = Router::new().route("/", accept(async |body: String| body));
        let serving = tokio::spawn(serve(listener, router, options, stop.clone()));
        let told = |trust: Arc<crate::tls::Trust>| {
            let (connector, url) = (trust.connector(SOON), url.clone());
            async move { post(&connector, &url, "{}".to_owned(), SOON).await }
        };
        let refused = told(public_trust()).await.unwrap_err();
        assert!(refused.contains("UnknownIssuer"), "{refused}");
        assert_eq!(told(ours.trust()).await, Ok(()));
        stop.cancel();
        serving.await.unwrap();
    }
}
