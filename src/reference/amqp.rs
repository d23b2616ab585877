//! The AMQP transport: requests from a queue, answers to wherever they are asked for.
//!
//! A request is acknowledged when its answer is with the broker, so a service that dies is asked again. A
//! request that comes again is not executed for the first time if it names an attempt (see
//! `Members::redelivered`): an answer "nothing was done" must stay true.

use std::time::Duration;

use axum::body::Bytes;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Broker;
use super::answer::Answer;
use super::faults::happens;
use super::members::Members;
use super::service::Service;
use crate::contract::{Code, Error};
use crate::hub::{
    ConsumeOptions, Consumer, Delivery, Header, Hub, HubError, Message, PublishError, Published,
    Publisher,
};

/// Requests executed at once; the broker keeps the rest.
const IN_FLIGHT_MAX: u16 = 64;
/// How long an answer is kept for a broker that does not take it; the asker is gone by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The service's end of the broker.
#[derive(Debug)]
pub(super) struct Amqp {
    consume: Hub,
    publish: Hub,
    queue: String,
    answers: Publisher,
}

impl Amqp {
    /// Starts to connect. Answers leave over a connection of their own.
    ///
    /// # Errors
    /// When the URL is not one.
    pub(super) fn connect(broker: &Broker) -> Result<Self, HubError> {
        let publish = Hub::connect(&broker.url, "cutover storage (answers)", &broker.trust)?;
        Ok(Self {
            consume: Hub::connect(&broker.url, "cutover storage (requests)", &broker.trust)?,
            queue: broker.queue.clone(),
            answers: Publisher::new(&publish, 4 * usize::from(IN_FLIGHT_MAX)),
            publish,
        })
    }

    /// The connection that publishes, for the events.
    pub(super) fn publishing(&self) -> Hub {
        self.publish.clone()
    }

    /// Takes requests until `shutdown`, then answers those it has.
    pub(super) async fn serve(self, service: Service, shutdown: CancellationToken) {
        let options = ConsumeOptions {
            queue: self.queue.clone(),
            declare: true,
            bindings: Vec::new(),
            prefetch: IN_FLIGHT_MAX,
        };
        let mut consumer = Consumer::new(&self.consume, options);
        let this = std::sync::Arc::new(self);
        let requests = TaskTracker::new();
        while let Some(Some(delivery)) = shutdown.run_until_cancelled(consumer.next()).await {
            let (this, service) = (this.clone(), service.clone());
            requests.spawn(async move { this.request(delivery, &service).await });
        }
        requests.close();
        requests.wait().await;
        this.answers.close().await;
        this.consume.close().await;
    }

    async fn request(&self, mut delivery: Delivery, service: &Service) {
        let Some(reply_to) = delivery.message.reply_to.take() else {
            tracing::warn!("a request without reply_to goes to the dead letters");
            settled(delivery.reject(false).await);
            return;
        };
        let faults = service.faults();
        let answer = if faults.refuse {
            Some(Error::new(Code::Overloaded, "refused, as asked; nothing was done").into())
        } else {
            let members = members(&delivery);
            let body = Bytes::from(std::mem::take(&mut delivery.message.body));
            service.answer(body, members, faults).await
        };
        if let Some(answer) = answer {
            let correlation_id = delivery.message.correlation_id.as_deref();
            let copies = 1 + u8::from(happens(faults.duplicate_reply_rate));
            for _ in 0..copies {
                self.answer(&reply_to, correlation_id, &answer).await;
            }
        }
        settled(delivery.ack().await);
    }

    /// Sends an answer, for as long as somebody may wait for it.
    async fn answer(&self, reply_to: &str, correlation_id: Option<&str>, answer: &Answer) {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut message = Message::json(answer.json.as_str())
            .with_header("x-cutover-status", Header::Int(i64::from(answer.status)));
        message.correlation_id = correlation_id.map(str::to_owned);
        let sent = async {
            loop {
                let receipt = self
                    .answers
                    .publish("", reply_to, message.clone(), deadline);
                let outcome = match receipt {
                    Ok(receipt) => receipt.settled().await,
                    Err(error) => Err(error),
                };
                match outcome {
                    Err(PublishError::NotSent(_)) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        match timeout_at(deadline, sent).await {
            Ok(Ok(Published::Confirmed)) => {}
            Ok(Ok(Published::Returned(why))) => {
                tracing::info!(why, "nobody waits for an answer any more");
            }
            Ok(Err(error)) => tracing::warn!(%error, "an answer may be lost"),
            Err(_) => tracing::warn!("an answer is lost: the broker does not take it"),
        }
    }
}

fn members(delivery: &Delivery) -> Result<Members, Error> {
    let mut members = Members::read(|name| {
        Some(match delivery.message.headers.get(name)? {
            Header::Int(value) => value.to_string(),
            Header::Text(text) => text.clone(),
        })
    })?;
    members.redelivered = delivery.redelivered;
    Ok(members)
}

fn settled(outcome: Result<(), crate::hub::Lost>) {
    if let Err(error) = outcome {
        tracing::info!(%error, "a request was not acknowledged");
    }
}
