//! The AMQP door: requests from a queue, answers to `reply_to`.
//!
//! A request is acknowledged when the broker has confirmed its answer, so a proxy that dies in between leaves it to
//! be delivered again; the operation id (see `naming`) keeps the repeat from taking effect twice. Requests are
//! consumed over one connection and answered over another: a broker under memory pressure stops reading from
//! connections that publish, and acknowledgements must not be stuck behind answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::doorway::{Doorway, Incoming, Place};
use super::naming::{self, Naming};
use crate::config;
use crate::contract::{Code, Error};
use crate::hub::{
    ConsumeOptions, Consumer, Delivery, Header, Hub, HubError, Message, PublishError, Published,
    Publisher,
};
use crate::telemetry::{AmqpAnswer, Door, Op};
use crate::tls::Trust;

/// How long the broker may take to take and confirm an answer, a reconnect included.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an answer that cannot be sent yet is tried.
const READY_POLL: Duration = Duration::from_millis(10);
/// The header of an answer that holds the HTTP status it would have had.
const STATUS: &str = "x-cutover-status";

/// The AMQP door.
pub struct AmqpDoor {
    desk: Arc<Desk>,
    consumer: Consumer,
    /// Requests in work at a time, also across reconnects.
    in_work_max: usize,
    hubs: [Hub; 2],
}

/// What every request needs.
struct Desk {
    doorway: Doorway,
    publisher: Publisher,
    max_age: Duration,
}

impl AmqpDoor {
    /// Connects, and stays at it: a broker that is down is waited for by `run`.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn open(
        doorway: Doorway,
        config: &config::AmqpDoor,
        trust: &Arc<Trust>,
    ) -> Result<Self, HubError> {
        let consuming = Hub::connect(config.url.expose(), "cutover door requests", trust)?;
        let publishing = Hub::connect(config.url.expose(), "cutover door answers", trust)?;
        let in_work_max = usize::from(config.prefetch);
        let consumer = Consumer::new(
            &consuming,
            ConsumeOptions {
                queue: config.queue.clone(),
                declare: true,
                bindings: Vec::new(),
                prefetch: config.prefetch,
            },
        );
        let desk = Desk {
            doorway,
            publisher: Publisher::new(&publishing, in_work_max),
            max_age: config.max_age,
        };
        Ok(Self {
            desk: Arc::new(desk),
            consumer,
            in_work_max,
            hubs: [consuming, publishing],
        })
    }

    /// Answers requests until `shutdown`; then takes no more, finishes those in work within `grace`, and closes.
    /// What is not finished by then goes back to the queue.
    pub async fn run(mut self, shutdown: CancellationToken, grace: Duration) {
        let mut in_work = JoinSet::new();
        loop {
            while in_work.len() >= self.in_work_max {
                note(in_work.join_next().await);
            }
            tokio::select! {
                delivery = self.consumer.next() => match delivery {
                    Some(delivery) => {
                        let desk = Arc::clone(&self.desk);
                        in_work.spawn(async move { desk.handle(delivery).await });
                    }
                    None => break,
                },
                Some(ended) = in_work.join_next() => note(Some(ended)),
                () = shutdown.cancelled() => break,
            }
        }
        // The consumer stays until the last acknowledgement: its channel is the one that they travel on.
        let finish = async {
            while !in_work.is_empty() {
                note(in_work.join_next().await);
            }
        };
        if tokio::time::timeout(grace, finish).await.is_err() {
            tracing::warn!(
                requests = in_work.len(),
                ?grace,
                "given back after the grace"
            );
            in_work.shutdown().await;
        }
        self.consumer.stop();
        self.desk.publisher.close().await;
        for hub in &self.hubs {
            hub.close().await;
        }
    }
}

impl Desk {
    async fn handle(&self, delivery: Delivery) {
        let received = Instant::now();
        let reply_to = delivery.message.reply_to.as_deref().unwrap_or_default();
        if reply_to.is_empty() {
            tracing::warn!("a request without reply_to was dead-lettered");
            self.settled(AmqpAnswer::DeadLettered, delivery.reject(false).await);
            return;
        }
        let reply_to = reply_to.to_owned();
        let answer = self.answer(&delivery, &reply_to, received).await;
        match self.publish(&reply_to, answer).await {
            Ok(Published::Confirmed) => self.settled(AmqpAnswer::Answered, delivery.ack().await),
            // Nobody waits any more: sending it again would not find anybody either.
            Ok(Published::Returned(_)) => {
                self.settled(AmqpAnswer::Unroutable, delivery.ack().await);
            }
            Err(error) => {
                tracing::warn!(%error, "an answer could not be sent; its request goes back to the queue");
                self.settled(AmqpAnswer::Failed, delivery.reject(true).await);
            }
        }
    }

    /// Publishes an answer once there is a connection to do it over: requests may come before, as they come over
    /// another.
    async fn publish(&self, reply_to: &str, answer: Message) -> Result<Published, PublishError> {
        let deadline = tokio::time::Instant::now() + CONFIRM_TIMEOUT;
        while !self.publisher.is_ready() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(READY_POLL).await;
        }
        let receipt = self.publisher.publish("", reply_to, answer, deadline)?;
        receipt.settled().await
    }

    async fn answer(&self, delivery: &Delivery, reply_to: &str, received: Instant) -> Message {
        let message = &delivery.message;
        let naming = name(message, reply_to, delivery.redelivered);
        let _place = Place::unbounded(&self.doorway.metrics, Door::Amqp);
        let (status, json) = if is_late(message, self.max_age, unix_now()) {
            let error = self.refuse_late(message, naming, delivery.redelivered);
            (error.code.http_status(), error.to_json())
        } else {
            let traceparent = match message.headers.get("traceparent") {
                Some(Header::Text(text)) => Some(text.as_str()),
                Some(Header::Int(_)) | None => None,
            };
            let outgoing = self.doorway.serve(Incoming {
                door: Door::Amqp,
                body: &message.body,
                naming,
                traceparent,
                token: None,
                request_id: message.correlation_id.as_deref().unwrap_or_default(),
                received,
            });
            match outgoing.await.and_then(|answer| answer.result) {
                Ok(reply) => (200, reply.into_json()),
                Err(error) => (error.code.http_status(), error.to_json()),
            }
        };
        Message {
            correlation_id: message.correlation_id.clone(),
            headers: BTreeMap::from([(STATUS.to_owned(), Header::Int(status.into()))]),
            ..Message::json(json)
        }
    }

    /// A late request is not executed. One that was delivered before may have been, by whoever got it first: for a
    /// write that is not known, and must not be called a failure.
    fn refuse_late(&self, message: &Message, naming: Naming, redelivered: bool) -> Error {
        let request = redelivered
            .then(|| self.doorway.read(&message.body))
            .transpose();
        let error = match request {
            Ok(Some(mut request)) if super::scope::writes(&request.query) => {
                match naming::settle(&mut request, naming) {
                    Ok(_) => Error {
                        op_id: request.op_id,
                        ..Error::new(
                            Code::OutcomeUnknown,
                            "the request was delivered before and is now too old; repeat it with this op_id to learn what became of it",
                        )
                    },
                    Err(error) => error,
                }
            }
            Ok(_) | Err(_) => Error::new(
                Code::DeadlineExceeded,
                "the request waited longer than its expiration, deadline or amqp.max_age; it was not executed",
            ),
        };
        self.doorway
            .metrics
            .request(Door::Amqp, Op::Invalid, None, Some(error.code));
        error
    }

    fn settled(&self, result: AmqpAnswer, told: Result<(), crate::hub::Lost>) {
        self.doorway.metrics.amqp_answered(result);
        if told.is_err() {
            tracing::info!("a settled request will be delivered again: its channel is gone");
        }
    }
}

fn name(message: &Message, reply_to: &str, redelivered: bool) -> Naming {
    match message.message_id.as_deref() {
        Some(id) if !id.is_empty() => Naming::Client(naming::from_client(id)),
        _ => Naming::Delivery {
            op_id: naming::from_delivery(
                reply_to,
                message.correlation_id.as_deref().unwrap_or_default(),
                &message.body,
            ),
            redelivered,
        },
    }
}

/// Whether a request is certainly older than it may be. AMQP's timestamp has whole seconds: the part that it leaves
/// out is taken to be the client's, or a short `expiration` would refuse requests that just came.
fn is_late(message: &Message, max_age: Duration, now: Duration) -> bool {
    if let Some(deadline_ms) = message.headers.get("deadline").and_then(Header::as_int)
        && u64::try_from(deadline_ms).is_ok_and(|ms| now > Duration::from_millis(ms))
    {
        return true;
    }
    let Some(timestamp_s) = message.timestamp_s else {
        return false;
    };
    let sent_at_latest = Duration::from_secs(timestamp_s.saturating_add(1));
    let allowed = match message.expiration_ms {
        Some(ms) => max_age.min(Duration::from_millis(ms)),
        None => max_age,
    };
    now.saturating_sub(sent_at_latest) > allowed
}

fn unix_now() -> Duration {
    // A clock before 1970 makes nothing late.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn note(ended: Option<Result<(), JoinError>>) {
    if let Some(Err(error)) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request's task died; the broker delivers the request again");
    }
}

#[cfg(test)]
mod tests;
