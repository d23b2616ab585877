//! One channel that publishes, and the task that owns it.
//!
//! A task, because a publish must not be dropped half-way when its caller is: the library keeps every confirm
//! that nobody awaited. Confirms are awaited side by side, never one by one. Returned messages are told apart
//! by a header of our own: the library hands a returned message to whichever confirm comes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backoff::Backoff;
use super::link::{Hub, Link, REPLY_TO, SETUP_TIMEOUT, connected, consume_replies, replaced};
use super::message::{Header, Message, short};
use super::table::{Fate, Table, Ticket, Until};
use super::task::Task;

/// Numbers each message on its lane, so that a returned one is known again.
const PUBLISH_ID: &str = "x-cutover-publish";

/// How addresses of direct reply-to begin. The broker hands such a message straight to the asker's channel and yet
/// returns a `mandatory` one, whole, as "not routed", because no queue has it
/// (<https://www.rabbitmq.com/docs/direct-reply-to#limitations>): a return would say nothing and cost as much again.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

/// A publishing channel that comes back with the hub's connection.
#[derive(Debug)]
pub(super) struct Lane {
    table: Arc<Table>,
    queue: mpsc::Sender<Outgoing>,
    late_replies: Arc<AtomicU64>,
    /// Begins every correlation id, so that no other client's answer is ever taken for one of ours.
    name: Arc<str>,
    task: Task,
}

/// A message, ready to go.
#[derive(Debug)]
struct Outgoing {
    id: u64,
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
}

/// What the broker said about one publish.
struct Landed {
    id: u64,
    result: Result<Confirmation, Fate>,
}

/// The task's half of a lane.
struct Runner {
    name: Arc<str>,
    replies: bool,
    table: Arc<Table>,
    queue: mpsc::Receiver<Outgoing>,
    late_replies: Arc<AtomicU64>,
}

impl Lane {
    /// Opens a lane for at most `waiting_max` messages under way; with `replies`, calls are possible.
    pub(super) fn open(hub: &Hub, waiting_max: usize, replies: bool) -> Self {
        let table = Table::new(waiting_max);
        let late_replies = Arc::new(AtomicU64::new(0));
        let (queue, outgoing) = mpsc::channel(waiting_max.max(1));
        let name: Arc<str> = Uuid::new_v4().simple().to_string().into();
        let runner = Runner {
            name: Arc::clone(&name),
            replies,
            table: Arc::clone(&table),
            queue: outgoing,
            late_replies: Arc::clone(&late_replies),
        };
        let link = hub.link();
        let task = Task::spawn(|stop| runner.run(link, stop));
        Self {
            table,
            queue,
            late_replies,
            name,
            task,
        }
    }

    /// Hands a message over. What cannot be routed comes back, unless it goes to an address of direct reply-to.
    ///
    /// # Errors
    /// Why it will certainly not be sent.
    pub(super) fn send(
        &self,
        exchange: &str,
        routing_key: &str,
        mut message: Message,
        until: Until,
    ) -> Result<Ticket, String> {
        let ticket = self.table.enter(until).map_err(str::to_owned)?;
        let number = i64::try_from(ticket.id).map_err(|error| error.to_string())?;
        message
            .headers
            .insert(PUBLISH_ID.to_owned(), Header::Int(number));
        if until == Until::Reply {
            message.reply_to = Some(REPLY_TO.to_owned());
            message.correlation_id = Some(format!("{}.{}", self.name, ticket.id));
        }
        let prepared = prepare(ticket.id, exchange, routing_key, message);
        let sent = prepared.and_then(|outgoing| {
            let full = |_| "overloaded: too many messages under way".to_owned();
            self.queue.try_send(outgoing).map_err(full)
        });
        match sent {
            Ok(()) => Ok(ticket),
            Err(why) => {
                self.table.resolve(ticket.id, Fate::NotSent(why.clone()));
                Err(why)
            }
        }
    }

    /// Replies that nobody waited for any more.
    pub(super) fn late_replies(&self) -> u64 {
        self.late_replies.load(Ordering::Relaxed)
    }

    /// Whether a channel is open.
    pub(super) fn is_open(&self) -> bool {
        self.table.is_open()
    }

    /// Messages under way.
    pub(super) fn under_way(&self) -> usize {
        self.table.len()
    }

    /// Ends the task; what is under way is given up.
    pub(super) async fn close(&self) {
        self.task.stop().await;
    }
}

fn prepare(
    id: u64,
    exchange: &str,
    routing_key: &str,
    message: Message,
) -> Result<Outgoing, String> {
    let outgoing = || {
        Ok(Outgoing {
            id,
            exchange: short("the exchange", exchange)?,
            routing_key: short("the routing key", routing_key)?,
            properties: message.properties()?,
            body: message.body,
        })
    };
    outgoing().map_err(|error: super::message::TooLong| error.to_string())
}

impl Runner {
    async fn run(mut self, mut link: watch::Receiver<Link>, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let once = async {
                let Some(connection) = connected(&mut link).await else {
                    return false;
                };
                if self.serve(&connection, &mut link).await {
                    backoff.reset();
                }
                true
            };
            let again = tokio::select! {
                again = once => again,
                () = stop.cancelled() => false,
            };
            self.table.close("the connection to the broker was lost");
            if !again {
                return;
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Serves one channel until it ends; whether it ever worked.
    async fn serve(
        &mut self,
        connection: &Arc<Connection>,
        link: &mut watch::Receiver<Link>,
    ) -> bool {
        let opened = timeout(SETUP_TIMEOUT, set_up(connection, self.replies)).await;
        let (channel, mut replies) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot open a channel");
                return false;
            }
            Err(_) => return false,
        };
        self.table.open();
        let mut flights = FuturesUnordered::new();
        loop {
            tokio::select! {
                reply = next_reply(&mut replies) => match reply {
                    Some(Ok(delivery)) => self.answer(delivery),
                    Some(Err(_)) | None => return true,
                },
                outgoing = self.queue.recv() => match outgoing {
                    Some(outgoing) => {
                        if self.table.mark_sent(outgoing.id) {
                            flights.push(fly(channel.clone(), outgoing));
                        }
                    }
                    None => return true,
                },
                Some(landed) = flights.next() => {
                    // All that landed together: a confirm may carry another message's return.
                    let mut batch = vec![landed];
                    while let Some(Some(landed)) = flights.next().now_or_never() {
                        batch.push(landed);
                    }
                    self.land(batch);
                    if !channel.status().connected() {
                        return true;
                    }
                },
                () = replaced(link, connection) => return true,
            }
        }
    }

    fn answer(&self, delivery: lapin::message::Delivery) {
        let message = Message::received(delivery.data, &delivery.properties);
        if !self
            .call_of(&message)
            .is_some_and(|id| self.table.answer(id, message))
        {
            self.late_replies.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of the call that a message answers, if it is one of this lane's.
    fn call_of(&self, message: &Message) -> Option<u64> {
        let (name, id) = message.correlation_id.as_ref()?.split_once('.')?;
        if name == &*self.name {
            id.parse().ok()
        } else {
            None
        }
    }

    fn land(&self, batch: Vec<Landed>) {
        let mut settled = Vec::with_capacity(batch.len());
        for Landed { id, result } in batch {
            match result {
                Ok(Confirmation::Ack(returned)) => {
                    if let Some(returned) = returned {
                        self.send_back(&returned);
                    }
                    settled.push(id);
                }
                Ok(Confirmation::Nack(returned)) => {
                    if let Some(returned) = returned {
                        self.send_back(&returned);
                    }
                    self.table
                        .resolve(id, Fate::Lost("the broker failed".to_owned()));
                }
                Ok(Confirmation::NotRequested) => settled.push(id),
                Err(fate) => {
                    self.table.resolve(id, fate);
                }
            }
        }
        for id in settled {
            self.table.confirm(id);
        }
    }

    /// A message came back: finds its own entry, whatever confirm it came with.
    fn send_back(&self, returned: &lapin::message::BasicReturnMessage) {
        let headers = Message::received(Vec::new(), &returned.properties).headers;
        let id = headers.get(PUBLISH_ID).and_then(Header::as_int);
        if let Some(id) = id.and_then(|id| u64::try_from(id).ok()) {
            let why = format!("{} {}", returned.reply_code, returned.reply_text);
            self.table.resolve(id, Fate::Returned(why));
        }
    }
}

async fn set_up(
    connection: &Connection,
    replies: bool,
) -> lapin::Result<(Channel, Option<lapin::Consumer>)> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let replies = if replies {
        Some(consume_replies(&channel).await?)
    } else {
        None
    };
    Ok((channel, replies))
}

async fn next_reply(
    replies: &mut Option<lapin::Consumer>,
) -> Option<lapin::Result<lapin::message::Delivery>> {
    match replies {
        Some(replies) => replies.next().await,
        None => std::future::pending().await,
    }
}

async fn fly(channel: Channel, outgoing: Outgoing) -> Landed {
    let options = BasicPublishOptions {
        mandatory: !outgoing.routing_key.as_str().starts_with(DIRECT_REPLY),
        ..BasicPublishOptions::default()
    };
    let written = channel
        .basic_publish(
            outgoing.exchange,
            outgoing.routing_key,
            options,
            &outgoing.body,
            outgoing.properties,
        )
        .await;
    let result = match written {
        // Written: whatever goes wrong from here on, the broker may have it.
        Ok(confirm) => confirm.await.map_err(|error| Fate::Lost(error.to_string())),
        Err(error) => Err(fate_of_write(&error)),
    };
    Landed {
        id: outgoing.id,
        result,
    }
}

/// What a failed write means: only a channel that was already unusable certainly sent nothing.
fn fate_of_write(error: &lapin::Error) -> Fate {
    match error.kind() {
        ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_) => Fate::NotSent(error.to_string()),
        _ => Fate::Lost(error.to_string()),
    }
}
