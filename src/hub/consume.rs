//! Taking messages from a queue, across reconnects.
//!
//! What was delivered and not acknowledged when a connection breaks is delivered again by the broker, marked
//! as redelivered; an acknowledgement over the old channel then does nothing, and says so.

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::sync::watch;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::link::{Hub, Link, SETUP_TIMEOUT, connected};
use super::message::{Message, short};

/// What to consume, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumeOptions {
    /// The queue.
    pub queue: String,
    /// Declare it, durable, if it does not exist. An existing queue is taken as it is, whatever its arguments.
    pub declare: bool,
    /// Bind it to these exchanges.
    pub bindings: Vec<Binding>,
    /// Unacknowledged deliveries at most.
    pub prefetch: u16,
}

/// A binding of the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The exchange; it has to exist.
    pub exchange: String,
    /// The routing key or topic pattern.
    pub routing_key: String,
}

/// Takes messages from one queue.
pub struct Consumer {
    options: ConsumeOptions,
    link: watch::Receiver<Link>,
    stream: Option<lapin::Consumer>,
    backoff: Backoff,
    /// Keeps the connection.
    _hub: Hub,
}

/// A message that was delivered; it stays unacknowledged until `ack` or `reject`.
#[derive(Debug)]
pub struct Delivery {
    /// Body and properties.
    pub message: Message,
    /// The broker delivered it before, perhaps to somebody else.
    pub redelivered: bool,
    acker: lapin::Acker,
}

/// The channel of a delivery is gone: the broker will deliver it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the channel is gone: the message will be delivered again")]
pub struct Lost;

impl Consumer {
    /// A consumer over `hub`; it starts with the first `next`.
    #[must_use]
    pub fn new(hub: &Hub, options: ConsumeOptions) -> Self {
        Self {
            options,
            link: hub.link(),
            stream: None,
            backoff: Backoff::default(),
            _hub: hub.clone(),
        }
    }

    /// Whether deliveries can come now.
    #[must_use]
    pub fn is_consuming(&self) -> bool {
        self.stream.is_some()
    }

    /// The next message; waits through broken connections. `None` once the hub is closed.
    ///
    /// Cancel-safe: dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(stream) = self.stream.as_mut() {
                match stream.next().await {
                    Some(Ok(delivery)) => return Some(Delivery::from(delivery)),
                    Some(Err(error)) => {
                        tracing::warn!(queue = self.options.queue, %error, "consumer lost");
                    }
                    None => {
                        tracing::warn!(queue = self.options.queue, "consumer cancelled");
                    }
                }
                self.stream = None;
                self.backoff.wait().await;
            }
            let connection = connected(&mut self.link).await?;
            match timeout(SETUP_TIMEOUT, open(&connection, &self.options)).await {
                Ok(Ok(stream)) => {
                    self.stream = Some(stream);
                    self.backoff.reset();
                }
                Ok(Err(error)) => {
                    tracing::warn!(queue = self.options.queue, %error, "cannot consume");
                    self.backoff.wait().await;
                }
                Err(_) => self.backoff.wait().await,
            }
        }
    }

    /// Stops deliveries; the broker gives what was not acknowledged to others.
    pub fn stop(&mut self) {
        self.stream = None;
    }
}

impl Delivery {
    /// Done: the broker may forget it.
    ///
    /// # Errors
    /// When the broker no longer waits for it, and delivers it again.
    pub async fn ack(self) -> Result<(), Lost> {
        match self.acker.ack(BasicAckOptions::default()).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Lost),
        }
    }

    /// Not done: back to the queue, or, without `requeue`, to the queue's dead-letter exchange if it has one.
    ///
    /// # Errors
    /// When the broker no longer waits for it, and delivers it again.
    pub async fn reject(self, requeue: bool) -> Result<(), Lost> {
        match self.acker.reject(BasicRejectOptions { requeue }).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Lost),
        }
    }
}

impl From<lapin::message::Delivery> for Delivery {
    fn from(delivery: lapin::message::Delivery) -> Self {
        Self {
            message: Message::received(delivery.data, &delivery.properties),
            redelivered: delivery.redelivered,
            acker: delivery.acker,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    TooLong(#[from] super::message::TooLong),
    #[error(transparent)]
    Amqp(#[from] lapin::Error),
}

async fn open(
    connection: &Connection,
    options: &ConsumeOptions,
) -> Result<lapin::Consumer, OpenError> {
    let queue = short("the queue", &options.queue)?;
    let channel = channel_with_queue(connection, options).await?;
    for binding in &options.bindings {
        channel
            .queue_bind(
                queue.clone(),
                short("the exchange", &binding.exchange)?,
                short("the routing key", &binding.routing_key)?,
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
    }
    channel
        .basic_qos(options.prefetch, BasicQosOptions::default())
        .await?;
    let consume = BasicConsumeOptions::default();
    Ok(channel
        .basic_consume(queue, "".into(), consume, FieldTable::default())
        .await?)
}

/// A channel, and the queue known to exist. A passive declaration that finds no queue costs the channel.
async fn channel_with_queue(
    connection: &Connection,
    options: &ConsumeOptions,
) -> Result<Channel, OpenError> {
    let queue = short("the queue", &options.queue)?;
    let channel = connection.create_channel().await?;
    let look = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel
        .queue_declare(queue.clone(), look, FieldTable::default())
        .await;
    match found {
        Ok(_) => return Ok(channel),
        Err(error) if !options.declare || !error.is_amqp_soft_error() => return Err(error.into()),
        Err(_) => {}
    }
    let channel = connection.create_channel().await?;
    let create = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue, create, FieldTable::default())
        .await?;
    Ok(channel)
}
