//! The door's decisions, and the door over a real broker (its URL is in `CUTOVER_TEST_AMQP`).

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use serde_json::Value;
use std::sync::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::config::{Config, DEFAULT, Hot};
use crate::contract::{Epoch, OpId, Reply};
use crate::hub::{RpcClient, RpcError, RpcOptions};
use crate::repository::{Answer, Call, OpIdSource};
use crate::stage::{Backend, Stage};
use crate::telemetry::Metrics;
use crate::tls::issuer::public_trust;

const INSERT: &str =
    r#"{"db":"campaign_db","query":{"type":"insert","table":"campaigns","data":{"name":"a"}}}"#;
const MAX_AGE: Duration = Duration::from_secs(30);

fn sent_at(timestamp_s: u64, expiration_ms: Option<u64>) -> Message {
    Message {
        timestamp_s: Some(timestamp_s),
        expiration_ms,
        ..Message::json(INSERT)
    }
}

#[test]
fn a_request_is_late_only_when_it_certainly_is() {
    let at = |ms| Duration::from_millis(ms);
    let short = sent_at(100, Some(500));
    // Sent at 100.999 for all we know, so until 101.499 it may be in time.
    assert!(!is_late(&short, MAX_AGE, at(101_499)));
    assert!(is_late(&short, MAX_AGE, at(101_501)));
    assert!(!is_late(&sent_at(100, None), MAX_AGE, at(131_000)));
    assert!(is_late(&sent_at(100, None), MAX_AGE, at(131_001)));
    assert!(is_late(&sent_at(100, Some(60_000)), MAX_AGE, at(131_001)));
    assert!(!is_late(&Message::json(INSERT), MAX_AGE, at(u64::MAX)));
}

#[test]
fn a_deadline_header_counts_to_the_millisecond() {
    let message = Message::json(INSERT).with_header("deadline", Header::Int(5_000));
    assert!(!is_late(&message, MAX_AGE, Duration::from_millis(5_000)));
    assert!(is_late(&message, MAX_AGE, Duration::from_millis(5_001)));
}

#[test]
fn a_message_id_names_the_operation_and_a_delivery_does_otherwise() {
    let id = OpId::fresh();
    let mut message = Message::json(INSERT);
    message.message_id = Some(id.to_string());
    assert_eq!(name(&message, "q", true), Naming::Client(id));
    message.message_id = None;
    let first = name(&message, "q", false);
    assert!(matches!(
        first,
        Naming::Delivery {
            redelivered: false,
            ..
        }
    ));
    assert_ne!(first, name(&message, "other", false));
}

/// A door on a queue of its own.
struct Running {
    hub: Hub,
    queue: String,
    calls: Arc<Mutex<Vec<Call>>>,
    metrics: Arc<Metrics>,
    /// One permit per call that may answer.
    gate: Arc<Semaphore>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn doorway(gate: Arc<Semaphore>, calls: Arc<Mutex<Vec<Call>>>, hot: Hot) -> Doorway {
    Doorway {
        execute: Arc::new(move |call: Call| {
            let gate = gate.clone();
            calls.lock().unwrap().push(call.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                Answer {
                    result: Ok(Reply::from_json("{\"name\":\"a\"}".to_owned())),
                    backend: Some(Backend::Legacy),
                    epoch: Epoch(1),
                    stage: Stage::Off,
                    op_id: call.request.op_id,
                    backend_time: None,
                    lease_expired: false,
                }
            }
            .boxed()
        }),
        metrics: Arc::new(Metrics::new(["campaigns".to_owned()]).unwrap()),
        hot: Arc::new(ArcSwap::from_pointee(hot)),
    }
}

impl Running {
    async fn start(queue: &str, permits: usize) -> Self {
        let url = std::env::var("CUTOVER_TEST_AMQP")
            .expect("set CUTOVER_TEST_AMQP to the URL of a RabbitMQ for tests");
        let variables = [
            ("CUTOVER_AMQP__ENABLED", "true"),
            ("CUTOVER_AMQP__URL", url.as_str()),
            ("CUTOVER_AMQP__QUEUE", queue),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::parse("test.toml", DEFAULT, &variables).unwrap();
        let (gate, calls) = (Arc::new(Semaphore::new(permits)), Arc::default());
        let mut hot = config.hot;
        hot.limits.body_bytes_max = 4096;
        let doorway = doorway(Arc::clone(&gate), Arc::clone(&calls), hot);
        let metrics = Arc::clone(&doorway.metrics);
        let door = AmqpDoor::open(doorway, &config.amqp.unwrap(), &public_trust()).unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(door.run(shutdown.clone(), Duration::from_secs(5)));
        let hub = Hub::connect(&url, "cutover door test", &public_trust()).unwrap();
        hub.wait_up(Duration::from_secs(5)).await.unwrap();
        Self {
            hub,
            queue: queue.to_owned(),
            calls,
            metrics,
            gate,
            shutdown,
            task,
        }
    }

    async fn call(&self, message: Message) -> (Option<u16>, Value) {
        let client = RpcClient::new(&self.hub, RpcOptions::default());
        let limit = Duration::from_secs(5);
        client.wait_ready(limit).await.unwrap();
        let until = Instant::now() + limit;
        let reply = loop {
            match client.call("", &self.queue, message.clone(), limit).await {
                // The door has not declared its queue yet.
                Err(RpcError::Returned(_)) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answered => break answered.unwrap(),
            }
        };
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    /// Puts a message on the door's queue.
    async fn put(&self, message: Message) {
        let publisher = Publisher::new(&self.hub, 8);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while !publisher.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        loop {
            let receipt = publisher.publish("", &self.queue, message.clone(), deadline);
            match receipt.unwrap().settled().await.unwrap() {
                Published::Confirmed => return,
                Published::Returned(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn shows(&self, series: &str) {
        let shown = async {
            while !self.metrics.render().unwrap().contains(series) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(5), shown).await;
        assert!(
            within.is_ok(),
            "no {series} in {}",
            self.metrics.render().unwrap()
        );
    }

    async fn calls_reach(&self, count: usize) {
        let reached = async {
            while self.calls.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reached)
            .await
            .unwrap();
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
        self.hub.close().await;
    }
}

fn own_queue() -> String {
    format!("front.test.{}", Uuid::new_v4())
}

#[tokio::test]
async fn an_answer_is_the_bare_reply_with_its_status() {
    let door = Running::start(&own_queue(), 10).await;
    let (status, body) = door.call(Message::json(INSERT)).await;
    assert_eq!(
        (status, body),
        (Some(200), serde_json::json!({"name": "a"}))
    );
    assert_eq!(
        door.calls.lock().unwrap()[0].op_id_source,
        OpIdSource::FirstDelivery
    );
    let (status, body) = door.call(Message::json("{")).await;
    assert_eq!(status, Some(400));
    assert_eq!(body["error"]["code"], "invalid_request");
    let (status, body) = door.call(Message::json(" ".repeat(5000))).await;
    assert_eq!(status, Some(413));
    assert_eq!(body["error"]["code"], "too_large");
    let late = Message::json(INSERT).with_header("deadline", Header::Int(1));
    let (status, body) = door.call(late).await;
    assert_eq!(status, Some(504));
    assert_eq!(body["error"]["code"], "deadline_exceeded");
    assert_eq!(door.calls.lock().unwrap().len(), 1);
    door.shows(r#"cutover_amqp_answers_total{result="answered"} 4"#)
        .await;
    door.stop().await;
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_dead_lettered_and_an_answer_without_a_way_is_counted() {
    let door = Running::start(&own_queue(), 10).await;
    door.put(Message::json(INSERT)).await;
    door.shows(r#"cutover_amqp_answers_total{result="dead_lettered"} 1"#)
        .await;
    assert!(door.calls.lock().unwrap().is_empty());
    let gone = Message {
        reply_to: Some("front.test.no-such-queue".to_owned()),
        ..Message::json(INSERT)
    };
    door.put(gone).await;
    door.shows(r#"cutover_amqp_answers_total{result="unroutable"} 1"#)
        .await;
    door.stop().await;
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_work_and_leaves_nothing_to_repeat() {
    let queue = own_queue();
    let door = Running::start(&queue, 0).await;
    let client = async {
        let answer = door.call(Message::json(INSERT)).await;
        assert_eq!(answer.0, Some(200));
    };
    let drain = async {
        door.calls_reach(1).await;
        door.shutdown.cancel();
        door.gate.add_permits(1);
    };
    tokio::join!(client, drain);
    door.task.await.unwrap();
    door.hub.close().await;

    let next = Running::start(&queue, 10).await;
    next.call(Message::json(INSERT)).await;
    assert_eq!(next.calls.lock().unwrap().len(), 1);
    next.stop().await;
}

#[tokio::test]
async fn a_request_that_died_with_its_proxy_keeps_its_operation_id_when_it_comes_again() {
    let queue = own_queue();
    let door = Running::start(&queue, 0).await;
    let waiting = Message {
        reply_to: Some("front.test.no-such-queue".to_owned()),
        correlation_id: Some("1".to_owned()),
        ..Message::json(INSERT)
    };
    door.put(waiting).await;
    door.calls_reach(1).await;
    let first = door.calls.lock().unwrap()[0].clone();
    door.task.abort();
    let next = Running::start(&queue, 10).await;
    next.calls_reach(1).await;
    let again = next.calls.lock().unwrap()[0].clone();
    assert_eq!(first.op_id_source, OpIdSource::FirstDelivery);
    assert_eq!(again.op_id_source, OpIdSource::Redelivery);
    assert!(first.request.op_id.is_some());
    assert_eq!(first.request.op_id, again.request.op_id);
    next.stop().await;
}
