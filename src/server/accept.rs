//! The accept loop: connections up to a limit, and the drain at the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::connection::drive;
use super::{ServerOptions, Service};

/// The first pause after an accept error that is not the client's (no file descriptors left); it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Serves `service` on `listener` until `shutdown`. Then it accepts nothing more, lets requests in flight
/// finish for `options.grace`, cuts off the rest, and returns.
///
/// An answer in the making is dropped when its client goes away: what must not be cancelled half-way runs in
/// a task of its own.
pub async fn serve(
    listener: TcpListener,
    service: impl Service,
    options: ServerOptions,
    shutdown: CancellationToken,
) {
    let options = Arc::new(options);
    let permits = Arc::new(Semaphore::new(options.connections_max));
    let mut connections = JoinSet::new();
    let mut pause = PAUSE_MIN;
    while let Some(accepted) = shutdown
        .run_until_cancelled(next(&listener, &permits, &mut connections))
        .await
    {
        match accepted {
            Ok((socket, peer, permit)) => {
                pause = PAUSE_MIN;
                let connection = drive(
                    socket,
                    peer,
                    service.clone(),
                    options.clone(),
                    shutdown.clone(),
                );
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept connections");
                // Nobody is kept waiting by this: a shutdown meanwhile is seen after at most PAUSE_MAX.
                tokio::time::sleep(pause).await;
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
    }
    // Closed before draining, so that a load balancer's next attempt goes elsewhere at once.
    drop(listener);
    drain(connections, options.grace).await;
}

type Accepted = (
    tokio::net::TcpStream,
    std::net::SocketAddr,
    tokio::sync::OwnedSemaphorePermit,
);

/// The next connection, once there is room for it; meanwhile reaps those that ended.
async fn next(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
) -> io::Result<Accepted> {
    let accept = async {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (socket, peer) = listener.accept().await?;
        // A reply is one small write: waiting to fill a packet only adds latency.
        socket.set_nodelay(true)?;
        Ok((socket, peer, permit))
    };
    tokio::pin!(accept);
    loop {
        tokio::select! {
            accepted = &mut accept => return accepted,
            Some(ended) = connections.join_next() => note(ended),
        }
    }
}

/// Waits for the connections to end, at most for `grace`; then ends them.
async fn drain(mut connections: JoinSet<()>, grace: Duration) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            ?grace,
            "cut off after the grace"
        );
        connections.shutdown().await;
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task died");
    }
}

/// Errors of the connection that was about to be accepted, not of the listener.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
    )
}
