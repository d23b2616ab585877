//! `GET /admin/events`: server-sent events, for whoever would otherwise poll.
//!
//! Each event carries what is known without asking the database, so that watching costs it next to nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::contract::{Code, Error};
use crate::control::Snapshot;
use crate::stage::Backend;

use super::AdminState;
use super::failed::Failed;
use super::health::is_up;
use super::now::Now;

/// How often there is an event when the epoch stands still.
const EVERY: Duration = Duration::from_secs(2);

/// One client that listens.
struct Listener {
    state: Arc<AdminState>,
    news: watch::Receiver<Arc<Snapshot>>,
    first: bool,
    /// Its place among the clients that there is room for.
    _place: OwnedSemaphorePermit,
}

/// A summary of the status at once, at every change of the control state, and every two seconds.
pub(super) async fn events(
    State(state): State<Arc<AdminState>>,
    places: Arc<Semaphore>,
) -> Result<Response, Failed> {
    let place = places.try_acquire_owned().map_err(|_| {
        Error::new(
            Code::Overloaded,
            "too many clients listen to events already",
        )
    })?;
    let listener = Listener {
        news: state.control.watch(),
        state,
        first: true,
        _place: place,
    };
    let stream = stream::unfold(listener, async |mut listener| {
        listener.next().await.map(|event| (event, listener))
    });
    Ok(Sse::new(Box::pin(stream)).into_response())
}

impl Listener {
    async fn next(&mut self) -> Option<Result<Event, axum::Error>> {
        if self.first {
            self.first = false;
        } else {
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = sleep(EVERY) => {}
                () = self.state.shutdown.cancelled() => return None,
            }
        }
        let snapshot = Arc::clone(&self.news.borrow_and_update());
        let legacy_up = is_up(&self.state, Backend::Legacy).await;
        let (owed, _) = self.state.observer.last_owed();
        let now = Now::new(&self.state, &snapshot, &owed, legacy_up);
        Some(Event::default().event("status").json_data(now))
    }
}
