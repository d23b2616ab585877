//! What a connection is doing, and until when it may.
//!
//! hyper's own header timer also runs while a kept-alive connection is idle, and nothing in it notices a
//! client that stops reading. So the stream and the service note what happens here, and the connection's
//! task asks whether it has gone on for too long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ServerOptions;

/// Shared between a connection's stream, its service and its task.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

/// Tells the activity that an answer has left the handler's hands when it is dropped with the answer's body.
#[derive(Debug)]
pub(super) struct Answering(Activity);

/// What is being waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Accepted; no byte has come yet.
    New,
    /// A request's headers are arriving.
    Headers,
    /// A handler works, or its answer is being written.
    Busy,
    /// Between requests.
    Idle,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the peer takes no more bytes.
    stalled_since: Option<Instant>,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::New,
            since: now,
            stalled_since: None,
        })))
    }

    /// Bytes came in: the first ones begin a request's headers.
    pub(super) fn received(&self, now: Instant) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::New | Phase::Idle) {
            state.enter(Phase::Headers, now);
        }
    }

    /// The headers are complete. The request lasts until the returned value is dropped.
    pub(super) fn request(&self, now: Instant) -> Answering {
        self.lock().enter(Phase::Busy, now);
        Answering(self.clone())
    }

    /// A write was tried: the peer took bytes, or takes none.
    pub(super) fn wrote(&self, took: bool, now: Instant) {
        let mut state = self.lock();
        state.stalled_since = match (took, state.stalled_since) {
            (true, _) => None,
            (false, since) => Some(since.unwrap_or(now)),
        };
    }

    /// Whether no request has ever begun, so that nobody misses the connection.
    pub(super) fn is_new(&self) -> bool {
        self.lock().phase == Phase::New
    }

    /// Which limit the client has passed, if any.
    pub(super) fn overdue(&self, options: &ServerOptions, now: Instant) -> Option<&'static str> {
        let state = self.lock();
        let longer =
            |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if let Some(since) = state.stalled_since
            && longer(since, options.body_timeout)
        {
            return Some("answer not read in time");
        }
        match state.phase {
            Phase::New | Phase::Headers => {
                longer(state.since, options.header_timeout).then_some("headers not sent in time")
            }
            Phase::Idle => longer(state.since, options.idle_timeout).then_some("idle"),
            Phase::Busy => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data, whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.lock().enter(Phase::Idle, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn headers_are_timed_from_their_first_byte_and_idling_is_not_headers() {
        let options = ServerOptions::default();
        let start = Instant::now();
        let activity = Activity::new(start);
        drop(activity.request(start));
        let later = Instant::now() + 70 * SECOND;
        assert_eq!(activity.overdue(&options, later), None);
        assert_eq!(activity.overdue(&options, later + 6 * SECOND), Some("idle"));
        activity.received(later);
        activity.received(later + 9 * SECOND);
        assert_eq!(activity.overdue(&options, later + 9 * SECOND), None);
        assert!(activity.overdue(&options, later + 10 * SECOND).is_some());
    }

    #[test]
    fn a_handler_may_work_but_a_client_that_reads_nothing_is_cut_off() {
        let options = ServerOptions::default();
        let start = Instant::now();
        let activity = Activity::new(start);
        let _answering = activity.request(start);
        assert_eq!(activity.overdue(&options, start + 500 * SECOND), None);
        activity.wrote(false, start);
        activity.wrote(false, start + 20 * SECOND);
        assert!(activity.overdue(&options, start + 31 * SECOND).is_some());
        activity.wrote(true, start + 31 * SECOND);
        assert_eq!(activity.overdue(&options, start + 31 * SECOND), None);
    }
}
