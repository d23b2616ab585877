//! Over a real broker, the one that `CUTOVER_TEST_AMQP` names.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::{Fixture, Under, code, insert};
use crate::hub::{
    Binding, ConsumeOptions, Consumer, Header, Hub, Message, RpcClient, RpcError, RpcOptions,
    RpcReply,
};
use crate::reference::Broker;
use crate::tls::issuer::public_trust;

const PATIENCE: Duration = Duration::from_secs(5);

struct OverAmqp {
    service: Fixture,
    broker: Broker,
    db: String,
    hub: Hub,
    client: RpcClient,
}

impl OverAmqp {
    async fn new() -> Self {
        let url = std::env::var("CUTOVER_TEST_AMQP").expect("CUTOVER_TEST_AMQP names a broker");
        let broker = Broker {
            queue: queue(&url, "requests").await,
            url,
            exchange: "message_hub".to_owned(),
            trust: public_trust(),
        };
        let db = format!("campaign_db_{}", Uuid::new_v4().simple());
        let service = Fixture::over_amqp(Under::Sqlite, &db, broker.clone()).await;
        let hub = Hub::connect(&broker.url, "reference test", &public_trust()).unwrap();
        let client = RpcClient::new(&hub, RpcOptions::default());
        client.wait_ready(PATIENCE).await.unwrap();
        Self {
            service,
            broker,
            db,
            hub,
            client,
        }
    }

    fn message(&self, query: &Value) -> Message {
        Message::json(json!({ "db": self.db, "query": query }).to_string())
    }

    async fn send(&self, message: Message, limit: Duration) -> Result<RpcReply, RpcError> {
        let queue = &self.broker.queue;
        self.client.call("", queue, message, limit).await
    }

    async fn ask(&self, message: Message) -> (u16, Value) {
        let reply = self.send(message, PATIENCE).await.unwrap();
        let body = serde_json::from_slice(&reply.body).unwrap();
        (reply.status.unwrap(), body)
    }

    async fn remove(self) {
        self.hub.close().await;
        self.service.remove().await;
    }
}

/// A queue that the broker deletes with its last consumer.
async fn queue(url: &str, what: &str) -> String {
    let name = format!("reference.test.{what}.{}", Uuid::new_v4().simple());
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions {
        auto_delete: true,
        ..Default::default()
    };
    let declared = channel.queue_declare(name.as_str().into(), options, Default::default());
    declared.await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    name
}

#[tokio::test]
async fn a_request_is_answered_with_its_status_and_a_repeat_alike() {
    let amqp = OverAmqp::new().await;
    let attempt = Uuid::new_v4().to_string();
    let keyless = json!({ "type": "insert", "table": "campaigns", "data": { "name": "a" } });
    let message = amqp
        .message(&keyless)
        .with_header("attempt_id", Header::Text(attempt));
    let first = amqp.ask(message.clone()).await;
    assert_eq!((first.0, &first.1["name"]), (200, &json!("a")));
    assert_eq!(amqp.ask(message).await, first);
    assert_eq!(amqp.service.stored().await, 1);
    let unknown = json!({ "type": "count", "table": "nowhere" });
    let refused = amqp.ask(amqp.message(&unknown)).await;
    assert_eq!((refused.0, code(&refused.1)), (400, "unknown_table"));
    amqp.remove().await;
}

#[tokio::test]
async fn a_message_past_its_deadline_is_refused() {
    let amqp = OverAmqp::new().await;
    let deadline = super::fixture::now_ms() - 1;
    for query in [
        insert(Uuid::new_v4(), "late"),
        json!({ "type": "count", "table": "campaigns" }),
    ] {
        let message = amqp
            .message(&query)
            .with_header("deadline", Header::Int(deadline));
        let refused = amqp.ask(message).await;
        assert_eq!((refused.0, code(&refused.1)), (504, "deadline_exceeded"));
    }
    assert_eq!(amqp.service.stored().await, 0);
    amqp.remove().await;
}

#[tokio::test]
async fn a_committed_write_is_told_to_the_hub() {
    let amqp = OverAmqp::new().await;
    let options = ConsumeOptions {
        queue: queue(&amqp.broker.url, "events").await,
        declare: false,
        bindings: vec![Binding {
            exchange: "message_hub".to_owned(),
            routing_key: format!("storage.{}.updated", amqp.db),
        }],
        prefetch: 10,
    };
    let hub = Hub::connect(&amqp.broker.url, "reference test events", &public_trust()).unwrap();
    let mut events = Consumer::new(&hub, options);
    let id = Uuid::new_v4();
    // Until the queue is bound nobody hears: write until somebody does.
    let event = loop {
        let upsert =
            json!({ "type": "upsert", "table": "campaigns", "data": { "id": id, "name": "a" } });
        amqp.ask(amqp.message(&upsert)).await;
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(300), events.next()).await {
            break event.unwrap();
        }
    };
    let body: Value = serde_json::from_slice(&event.message.body).unwrap();
    assert_eq!(
        body,
        json!({ "table": "campaigns", "op": "upsert", "key": { "id": id }, "campaign_id": id })
    );
    hub.close().await;
    amqp.remove().await;
}

#[tokio::test]
async fn a_lost_reply_was_executed_and_a_refused_request_was_not() {
    let amqp = OverAmqp::new().await;
    let faults = json!({ "lost_reply_rate": 1 });
    amqp.service.faults("PUT", faults).await;
    let message = amqp.message(&insert(Uuid::new_v4(), "a"));
    let lost = amqp.send(message, Duration::from_secs(1)).await;
    assert_eq!(lost, Err(RpcError::TimedOut));
    assert_eq!(amqp.service.stored().await, 1);
    amqp.service.faults("PUT", json!({ "refuse": true })).await;
    let refused = amqp.ask(amqp.message(&insert(Uuid::new_v4(), "b"))).await;
    assert_eq!((refused.0, code(&refused.1)), (503, "overloaded"));
    assert_eq!(amqp.service.stored().await, 1);
    amqp.remove().await;
}

#[tokio::test]
async fn an_attempt_that_is_delivered_again_is_answered_from_the_record_or_not_executed() {
    let amqp = OverAmqp::new().await;
    // Somebody else consumes too: of two requests each takes one, and the other one's comes back.
    let ask = async || {
        let message = amqp
            .message(&insert(Uuid::new_v4(), "a"))
            .with_header("attempt_id", Header::Text(Uuid::new_v4().to_string()));
        tokio::time::sleep(Duration::from_millis(300)).await;
        amqp.ask(message).await
    };
    let (one, other, taken) = tokio::join!(ask(), ask(), steal(&amqp.broker));
    assert!(taken);
    let (done, stolen) = if one.0 == 200 {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!(done.0, 200, "{}", done.1);
    assert_eq!((stolen.0, code(&stolen.1)), (503, "backend_unavailable"));
    assert_eq!(amqp.service.stored().await, 1);
    amqp.remove().await;
}

/// Takes one request from the service's queue and gives it back, if one comes soon.
async fn steal(broker: &Broker) -> bool {
    let hub = Hub::connect(&broker.url, "reference test thief", &public_trust()).unwrap();
    let options = ConsumeOptions {
        queue: broker.queue.clone(),
        declare: false,
        bindings: Vec::new(),
        prefetch: 1,
    };
    let mut thief = Consumer::new(&hub, options);
    let taken = tokio::time::timeout(Duration::from_secs(3), thief.next()).await;
    let taken = match taken {
        Ok(delivery) => delivery.unwrap().reject(true).await.is_ok(),
        Err(_) => false,
    };
    drop(thief);
    hub.close().await;
    taken
}
