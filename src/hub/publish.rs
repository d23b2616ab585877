//! Publishing with confirms: events and the door's replies.
//!
//! A confirm says that the broker has the message, not that anybody ran it, and an unroutable message is
//! confirmed as well: everything is `mandatory`, and a return is told apart from a delivery
//! (<https://www.rabbitmq.com/docs/confirms>). Only whether somebody still waits for a direct reply cannot be learned.

use tokio::time::{Instant, timeout_at};

use super::lane::Lane;
use super::link::{Hub, HubState};
use super::message::Message;
use super::table::{Fate, Ticket, Until};

/// Sends messages, many at a time.
#[derive(Debug)]
pub struct Publisher {
    hub: Hub,
    lane: Lane,
}

/// A message on its way. It goes out even if this is dropped.
#[derive(Debug)]
#[must_use = "await `settled` to learn what became of the message"]
pub struct Receipt {
    ticket: Ticket,
    deadline: Instant,
}

/// The broker's answer to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// A queue has it, or it was a direct reply, which the broker took.
    Confirmed,
    /// No queue takes it.
    Returned(String),
}

/// Why it is not known that the broker has the message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PublishError {
    /// It certainly did not leave.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It left and was not confirmed: it may have arrived.
    #[error("in doubt: {0}")]
    InDoubt(String),
}

impl Publisher {
    /// A publisher over `hub` for at most `pending_max` unconfirmed messages.
    #[must_use]
    pub fn new(hub: &Hub, pending_max: usize) -> Self {
        Self {
            hub: hub.clone(),
            lane: Lane::open(hub, pending_max, false),
        }
    }

    /// Whether messages can be sent now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.hub.state() == HubState::Up && self.lane.is_open()
    }

    /// Hands a message over without waiting; the receipt tells by `deadline` what became of it.
    ///
    /// # Errors
    /// `NotSent`, at once, when there is no connection, the broker has an alarm, or too much is unconfirmed.
    pub fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        message: Message,
        deadline: Instant,
    ) -> Result<Receipt, PublishError> {
        if self.hub.state() == HubState::Blocked {
            let why = "the broker takes no messages (resource alarm)";
            return Err(PublishError::NotSent(why.to_owned()));
        }
        let ticket = self
            .lane
            .send(exchange, routing_key, message, Until::Confirm)
            .map_err(PublishError::NotSent)?;
        Ok(Receipt { ticket, deadline })
    }

    /// Ends the publisher; what is not confirmed is in doubt.
    pub async fn close(&self) {
        self.lane.close().await;
    }
}

impl Receipt {
    /// What became of the message.
    ///
    /// # Errors
    /// `InDoubt` also when the deadline passed first.
    pub async fn settled(mut self) -> Result<Published, PublishError> {
        match timeout_at(self.deadline, &mut self.ticket.fate).await {
            Ok(Ok(Fate::Confirmed)) => Ok(Published::Confirmed),
            Ok(Ok(Fate::Returned(why))) => Ok(Published::Returned(why)),
            Ok(Ok(Fate::NotSent(why))) => Err(PublishError::NotSent(why)),
            Ok(Ok(Fate::Lost(why))) => Err(PublishError::InDoubt(why)),
            Ok(Ok(Fate::Reply(_))) => Ok(Published::Confirmed),
            Ok(Err(_)) => Err(PublishError::InDoubt("the publisher was closed".to_owned())),
            Err(_) => Err(PublishError::InDoubt("not confirmed in time".to_owned())),
        }
    }
}
