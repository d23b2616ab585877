//! Who answers a listener's requests.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

/// The body of a request as it arrives.
pub type Arriving = Incoming;

/// Answers requests. Every path answers something; there are no errors here.
pub trait Service: Clone + Send + Sync + 'static {
    /// Answers one request of a client at `peer`. Dropped when the client goes away.
    fn answer(
        &self,
        request: Request<Arriving>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Handlers find the client's address as `ConnectInfo<SocketAddr>`.
impl Service for Router {
    async fn answer(&self, request: Request<Arriving>, peer: SocketAddr) -> Response<Body> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let Ok(response) = TowerToHyperService::new(self.clone()).call(request).await;
        response
    }
}
