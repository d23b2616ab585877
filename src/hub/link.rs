//! The connection, and the task that keeps it.
//!
//! The library's own recovery replays channels behind one's back, and with it "was this message sent?" has
//! no answer. So a connection here is never repaired: it is dropped, a new one is made, and everything that
//! hung on the old one learns that it is gone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event, ExchangeKind};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::message::short;
use super::task::Task;
use crate::tls::Trust;

/// Heartbeat interval unless the URL says otherwise; a silent peer is given up after twice as long.
const HEARTBEAT_S: u16 = 10;
/// Time to connect, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a channel to open and be set up.
pub(super) const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an orderly close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pseudo-queue of direct reply-to (<https://www.rabbitmq.com/docs/direct-reply-to>).
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// A connection to the broker that comes back by itself. Clones share it; it is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Hub {
    link: watch::Receiver<Link>,
    task: Arc<Task>,
}

/// Whether messages can be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HubState {
    /// No connection; one is being made.
    Down,
    /// Connected.
    Up,
    /// Connected, but the broker has an alarm (memory, disk) and takes no messages.
    Blocked,
}

/// Why a hub cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The URL is not an AMQP URL. The text never holds the URL, which holds a password.
    #[error("not an AMQP URL: {0}")]
    Url(String),
    /// Not connected in time.
    #[error("the broker is out of reach")]
    Unreachable,
    /// The broker refused.
    #[error("the broker refused: {0}")]
    Refused(String),
}

/// Where to connect, as whom, and whom to believe.
#[derive(Debug)]
struct Broker {
    uri: AMQPUri,
    name: String,
    trust: Arc<Trust>,
}

/// What the keeping task publishes.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// No connection.
    Down,
    /// This connection.
    Up {
        /// The connection.
        connection: Arc<Connection>,
        /// The broker takes no messages from it.
        blocked: bool,
    },
}

impl Hub {
    /// Starts to connect, and stays at it. `name` is what the broker's own tools show. Over `amqps://` the broker
    /// must be one that `trust` believes, as it is at each connection.
    ///
    /// Must be called within a Tokio runtime. Does not wait: see `wait_up`.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn connect(url: &str, name: &str, trust: &Arc<Trust>) -> Result<Self, HubError> {
        let mut uri: AMQPUri = url.parse().map_err(HubError::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let broker = Broker {
            uri,
            name: name.to_owned(),
            trust: Arc::clone(trust),
        };
        let (publish, link) = watch::channel(Link::Down);
        let task = Task::spawn(|stop| keep(broker, publish, stop));
        Ok(Self {
            link,
            task: Arc::new(task),
        })
    }

    /// What can be done now.
    #[must_use]
    pub fn state(&self) -> HubState {
        match *self.link.borrow() {
            Link::Down => HubState::Down,
            Link::Up { blocked: false, .. } => HubState::Up,
            Link::Up { blocked: true, .. } => HubState::Blocked,
        }
    }

    /// Whether there is a connection, blocked or not.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state() != HubState::Down
    }

    /// Waits until there is a connection, at most `limit`.
    ///
    /// # Errors
    /// `Unreachable` when there is none by then.
    pub async fn wait_up(&self, limit: Duration) -> Result<(), HubError> {
        self.connection(Instant::now() + limit).await.map(|_| ())
    }

    /// Makes sure a durable topic exchange of that name exists.
    ///
    /// # Errors
    /// `Refused` when it exists as something else or the user may not.
    pub async fn declare_topic(&self, exchange: &str, limit: Duration) -> Result<(), HubError> {
        let connection = self.connection(Instant::now() + limit).await?;
        let refused = |error: lapin::Error| HubError::Refused(error.to_string());
        let name = short("the exchange", exchange)
            .map_err(|error| HubError::Refused(error.to_string()))?;
        let declare = async {
            let channel = connection.create_channel().await?;
            let options = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            channel
                .exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default())
                .await
        };
        timeout(limit, declare)
            .await
            .map_err(|_| HubError::Unreachable)?
            .map_err(refused)
    }

    /// Closes the connection and waits until it is. What still uses the hub finds it down for good.
    pub async fn close(&self) {
        self.task.stop().await;
    }

    /// A view of the connection that does not keep the hub alive.
    pub(super) fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, HubError> {
        let mut link = self.link();
        match timeout_at(deadline, connected(&mut link)).await {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) | Err(_) => Err(HubError::Unreachable),
        }
    }
}

impl Link {
    /// The connection, if there is one.
    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Down => None,
            Self::Up { connection, .. } => Some(connection),
        }
    }
}

/// Waits for a connection; `None` when the hub was closed and none will come.
pub(super) async fn connected(link: &mut watch::Receiver<Link>) -> Option<Arc<Connection>> {
    let found = link.wait_for(|link| link.connection().is_some()).await;
    found.ok()?.connection().cloned()
}

/// Waits until `connection` is no longer the hub's.
pub(super) async fn replaced(link: &mut watch::Receiver<Link>, connection: &Arc<Connection>) {
    let other =
        |link: &Link| !matches!(link.connection(), Some(now) if Arc::ptr_eq(now, connection));
    if link.wait_for(other).await.is_err() {
        // The hub was closed: the same.
    }
}

async fn keep(broker: Broker, link: watch::Sender<Link>, stop: CancellationToken) {
    let name = broker.name.as_str();
    let mut backoff = Backoff::default();
    loop {
        let once = async {
            match open(&broker).await {
                Ok((connection, sentinel)) => {
                    backoff.reset();
                    tracing::info!(hub = name, "connected to the broker");
                    watch_over(connection, sentinel, &link).await;
                    tracing::warn!(hub = name, "lost the connection to the broker");
                }
                Err(error) => tracing::warn!(hub = name, %error, "cannot reach the broker"),
            }
        };
        tokio::select! {
            () = once => {}
            () = stop.cancelled() => break,
        }
        link.send_replace(Link::Down);
        tokio::select! {
            () = backoff.wait() => {}
            () = stop.cancelled() => break,
        }
    }
    let last = link.send_replace(Link::Down);
    if let Some(connection) = last.connection() {
        let close = connection.close(200, "closing".into());
        if !matches!(timeout(CLOSE_TIMEOUT, close).await, Ok(Ok(()))) {
            tracing::debug!(hub = name, "the connection did not close in order");
        }
    }
}

/// Connects, and opens the sentinel: a consumer of the reply pseudo-queue, which costs the broker nothing
/// and ends when the connection does. The library has no other notice of that.
async fn open(broker: &Broker) -> Result<(Arc<Connection>, Sentinel), String> {
    let open = async {
        let connection = broker.connect().await?;
        let channel = connection.create_channel().await?;
        let replies = consume_replies(&channel).await?;
        Ok((Arc::new(connection), Sentinel { replies, channel }))
    };
    match timeout(CONNECT_TIMEOUT, open).await {
        Ok(opened) => opened.map_err(|error: lapin::Error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

impl Broker {
    async fn connect(&self) -> lapin::Result<Connection> {
        let name = self.name.as_bytes().into();
        let properties = ConnectionProperties::default().with_connection_name(name);
        let tls = OwnedTLSConfig {
            // Besides the public ones, which the library has by itself.
            cert_chain: self.trust.private_roots(),
            identity: self.trust.identity().map(|identity| OwnedIdentity::PKCS8 {
                pem: identity.chain.into_bytes(),
                key: identity.key.into_bytes(),
            }),
        };
        let runtime = lapin::runtime::default_runtime()?;
        Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime).await
    }
}

struct Sentinel {
    replies: lapin::Consumer,
    /// Kept: a channel is closed when its last handle goes.
    channel: Channel,
}

/// Consumes direct replies on `channel`; what is published on it may then name `REPLY_TO`.
pub(super) async fn consume_replies(channel: &Channel) -> lapin::Result<lapin::Consumer> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default())
        .await
}

/// Publishes the connection and its alarms until it ends.
async fn watch_over(
    connection: Arc<Connection>,
    mut sentinel: Sentinel,
    link: &watch::Sender<Link>,
) {
    let mut events = Box::pin(connection.events_listener());
    let up = |blocked| Link::Up {
        connection: Arc::clone(&connection),
        blocked,
    };
    link.send_replace(up(connection.status().blocked()));
    loop {
        tokio::select! {
            reply = sentinel.replies.next() => match reply {
                // Nobody was given this address.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "the broker takes no messages");
                    link.send_replace(up(true));
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!("the broker takes messages again");
                    link.send_replace(up(false));
                }
                Some(_) => {}
                None => break,
            },
        }
    }
    tracing::debug!(channel = sentinel.channel.id(), "the sentinel ended");
}
