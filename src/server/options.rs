//! The limits of a server. Every one is finite: what is unbounded finds its bound at night.

use std::sync::Arc;
use std::time::Duration;

use super::Tls;

/// How long a client may take for what, and how much it may send.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// From the connection (or the first byte of a later request) to the end of the request's headers; also
    /// for the TLS handshake.
    pub header_timeout: Duration,
    /// How long a client may leave an answer unread. The same limit for reading a request's body is given to
    /// [`super::read_body`] by the handler.
    pub body_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// The largest request body, in bytes, that reaches a handler by its declared length.
    pub body_bytes_max: u64,
    /// Open connections; at the limit further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// After the shutdown signal, how long requests in flight may go on.
    pub grace: Duration,
    /// TLS, when the listener speaks it.
    pub tls: Option<Arc<Tls>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_bytes_max: 1024 * 1024,
            connections_max: 1024,
            grace: Duration::from_secs(20),
            tls: None,
        }
    }
}
