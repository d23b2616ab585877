//! One connection from its first byte to its last.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Answering};
use super::answer::error_response;
use super::body::too_large;
use super::in_place::InPlace;
use super::stream::{Stream, Transport};
use super::{Arriving, Hangup, ServerOptions, Service};

/// Serves requests on one connection until either side closes it, a limit is passed, or, after `shutdown`,
/// the request in flight is answered.
pub(super) async fn drive(
    socket: TcpStream,
    peer: SocketAddr,
    service: impl Service,
    options: Arc<ServerOptions>,
    shutdown: CancellationToken,
) {
    let Some(transport) = handshake(socket, &options).await else {
        return;
    };
    let activity = Activity::new(Instant::now());
    let stream = Stream::new(transport, activity.clone());
    let answers = service_fn(|request| {
        let answering = activity.request(Instant::now());
        answer(&service, request, peer, &options, answering)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // `Activity` times the headers, and tells them from idling.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), answers);
    let connection = pin!(connection);
    let mut connection = InPlace::new(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection broke off");
                }
                return;
            }
            // The shortest limit is also how often limits are looked at.
            () = tokio::time::sleep(options.header_timeout) => {
                if let Some(limit) = activity.overdue(&options, Instant::now()) {
                    tracing::debug!(%peer, limit, "client cut off");
                    return;
                }
            }
            () = shutdown.cancelled(), if !draining => {
                if activity.is_new() {
                    return;
                }
                draining = true;
                connection.get_mut().as_mut().graceful_shutdown();
            }
        }
    }
}

/// The TLS handshake, where there is one, within the header timeout.
async fn handshake(socket: TcpStream, options: &ServerOptions) -> Option<Transport> {
    let Some(tls) = &options.tls else {
        return Some(Transport::Plain(socket));
    };
    let accept = TlsAcceptor::from(tls.config()).accept(socket);
    match tokio::time::timeout(options.header_timeout, accept).await {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake not finished in time");
            None
        }
    }
}

async fn answer(
    service: &impl Service,
    request: Request<Arriving>,
    peer: SocketAddr,
    options: &ServerOptions,
    answering: Answering,
) -> Result<Response<Answer>, Hangup> {
    let mut response = if request.body().size_hint().lower() > options.body_bytes_max {
        error_response(&too_large(options.body_bytes_max))
    } else {
        service.answer(request, peer).await
    };
    if response.extensions().get::<Hangup>().is_some() {
        return Err(Hangup);
    }
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answer {
        body,
        _answering: answering,
    }))
}

/// An answer's body; as long as it lives, its request is being answered.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
