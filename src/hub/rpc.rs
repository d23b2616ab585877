//! Calls over direct reply-to, each with an honest end.
//!
//! Replies come to a pseudo-queue of the very channel that asked, without acknowledgement: they are lost when it
//! closes (<https://www.rabbitmq.com/docs/direct-reply-to>). So the error says whether the request may have
//! been executed, and nothing is ever sent again from here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::lane::Lane;
use super::link::{Hub, HubError, HubState};
use super::message::{Header, Message};
use super::table::{Fate, Until};

/// The header in which a reply carries its HTTP status.
const STATUS: &str = "x-cutover-status";
/// How often a wait for readiness looks again.
const READY_POLL: Duration = Duration::from_millis(10);

/// The bounds of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RpcOptions {
    /// Channels to spread calls over; one carries some 20,000 calls a second.
    pub channels: usize,
    /// Calls under way at most, over all channels; more are refused.
    pub pending_max: usize,
}

/// Asks, and is answered. Dropping a call's future forgets the call; its reply is then a late one.
#[derive(Debug)]
pub struct RpcClient {
    hub: Hub,
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcReply {
    /// The HTTP status that the answer claims, if it does.
    pub status: Option<u16>,
    /// The payload.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RpcError {
    /// It never left this process: certainly not executed.
    #[error("not sent: {0}")]
    NotSent(String),
    /// No queue takes it: certainly not executed.
    #[error("unroutable: {0}")]
    Returned(String),
    /// Sent, and no answer in time: in doubt.
    #[error("no answer in time")]
    TimedOut,
    /// The connection or the broker failed after it was sent: in doubt.
    #[error("lost after sending: {0}")]
    ConnectionLost(String),
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            channels: 2,
            pending_max: 8192,
        }
    }
}

impl RpcClient {
    /// A client over `hub`; its channels open when there is a connection.
    #[must_use]
    pub fn new(hub: &Hub, options: RpcOptions) -> Self {
        let channels = options.channels.max(1);
        let each = options.pending_max.div_ceil(channels);
        Self {
            hub: hub.clone(),
            lanes: (0..channels).map(|_| Lane::open(hub, each, true)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Whether calls can be made now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.hub.state() == HubState::Up && self.lanes.iter().any(Lane::is_open)
    }

    /// Waits until every channel is open, at most `limit`.
    ///
    /// # Errors
    /// `Unreachable` when they are not by then.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), HubError> {
        let deadline = Instant::now() + limit;
        while !self.lanes.iter().all(Lane::is_open) {
            if Instant::now() >= deadline {
                return Err(HubError::Unreachable);
            }
            sleep(READY_POLL).await;
        }
        Ok(())
    }

    /// Sends `message` and waits for its answer, at most `limit`. The message's `reply_to`, `correlation_id`
    /// and `expiration` are set here: what was not taken from the queue by then never will be.
    ///
    /// # Errors
    /// See [`RpcError`]: certainly not executed, or in doubt.
    pub async fn call(
        &self,
        exchange: &str,
        routing_key: &str,
        mut message: Message,
        limit: Duration,
    ) -> Result<RpcReply, RpcError> {
        let deadline = Instant::now() + limit;
        let expiration_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        if expiration_ms == 0 {
            return Err(RpcError::NotSent("the deadline has passed".to_owned()));
        }
        message.expiration_ms = Some(expiration_ms);
        match self.hub.state() {
            HubState::Up => {}
            HubState::Blocked => {
                let why = "the broker takes no messages (resource alarm)";
                return Err(RpcError::NotSent(why.to_owned()));
            }
            HubState::Down => {
                return Err(RpcError::NotSent("no connection to the broker".to_owned()));
            }
        }
        let mut ticket = self
            .lane()
            .send(exchange, routing_key, message, Until::Reply)
            .map_err(RpcError::NotSent)?;
        match timeout_at(deadline, &mut ticket.fate).await {
            Ok(Ok(fate)) => ended(fate),
            // The lane itself is gone.
            Ok(Err(_)) => Err(RpcError::ConnectionLost("the client was closed".to_owned())),
            Err(_) if ticket.give_up() => Err(RpcError::TimedOut),
            Err(_) => Err(RpcError::NotSent("the deadline has passed".to_owned())),
        }
    }

    /// Calls under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lanes.iter().map(Lane::under_way).sum()
    }

    /// Replies dropped because nobody waited for them any more, since the start.
    #[must_use]
    pub fn late_replies(&self) -> u64 {
        self.lanes.iter().map(Lane::late_replies).sum()
    }

    /// Ends the client; calls under way end as lost.
    pub async fn close(&self) {
        for lane in &self.lanes {
            lane.close().await;
        }
    }

    /// The next lane that is open; any if none is.
    fn lane(&self) -> &Lane {
        let count = self.lanes.len();
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = (0..count).map(|step| &self.lanes[start.wrapping_add(step) % count]);
        turn.clone()
            .find(|lane| lane.is_open())
            .unwrap_or(&self.lanes[start % count])
    }
}

fn ended(fate: Fate) -> Result<RpcReply, RpcError> {
    match fate {
        Fate::Reply(message) => {
            let status = message.headers.get(STATUS).and_then(Header::as_int);
            Ok(RpcReply {
                status: status.and_then(|status| u16::try_from(status).ok()),
                body: message.body,
            })
        }
        Fate::NotSent(why) => Err(RpcError::NotSent(why)),
        Fate::Returned(why) => Err(RpcError::Returned(why)),
        Fate::Lost(why) => Err(RpcError::ConnectionLost(why)),
        // A call does not end with its confirm.
        Fate::Confirmed => Err(RpcError::ConnectionLost("confirmed only".to_owned())),
    }
}
