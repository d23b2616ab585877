//! The client against a small HTTP service that does what a test tells it, and against a queue.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::contract::{AttemptId, Code, Epoch, Key, Query, Row, Select};
use crate::hub::tests::{broker, queue, queue_name};
use crate::hub::{ConsumeOptions, Consumer, Header, Hub, Message, Publisher};
use crate::schema::Table;
use crate::schema::fixture::pairs_table;
use crate::tls::issuer::public_trust;

const LIMIT: Duration = Duration::from_secs(5);

/// What the service does with a request.
enum Act {
    Answer(u16, Value),
    Text(u16, &'static str),
    Close,
    Hang,
}

/// What it was asked: the headers, and the query.
type Asked = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

async fn service(act: impl Fn(&Value) -> Act + Send + Sync + 'static) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let act = Arc::new(act);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (act, log) = (Arc::clone(&act), Arc::clone(&log));
            let handle = service_fn(move |request: Request<Incoming>| {
                let (act, log) = (Arc::clone(&act), Arc::clone(&log));
                async move {
                    assert_eq!(request.uri().path(), "/base/query");
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let mut request: Value = serde_json::from_slice(&body).unwrap();
                    let query = request["query"].take();
                    let act = act(&query);
                    log.lock().unwrap().push((parts.headers, query));
                    let (status, text) = match act {
                        Act::Answer(status, value) => (status, value.to_string()),
                        Act::Text(status, text) => (status, text.to_owned()),
                        Act::Close => return Err(std::io::Error::other("told to close")),
                        Act::Hang => std::future::pending().await,
                    };
                    let response = Response::builder().status(status);
                    Ok(response.body(Full::new(Bytes::from(text))).unwrap())
                }
            });
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                // A connection that a test has closed ends with an error.
                drop(
                    connection
                        .serve_connection(TokioIo::new(stream), handle)
                        .await,
                );
            });
        }
    });
    (address, asked)
}

fn client(address: SocketAddr, capabilities: Capabilities) -> Storage {
    let http = HttpOptions {
        base_url: format!("http://{address}/base/"),
        pool: 4,
    };
    Storage::new(StorageOptions {
        db: "campaign_db".to_owned(),
        transport: Transport::Http(http),
        capabilities,
        rpc_deadline: Duration::from_millis(1500),
        inflight_max: 64,
        trust: crate::tls::issuer::public_trust(),
    })
    .unwrap()
}

fn select() -> Query {
    Query::Select(Select {
        table: "pairs".to_owned(),
        ..Select::default()
    })
}

async fn ask(address: SocketAddr, limit: Duration) -> Result<crate::contract::Reply, StorageError> {
    let call = Call::new(select(), UnixMs::after(limit), Epoch(7));
    client(address, Capabilities::all()).call(&call).await
}

fn key(a: i64, b: &str) -> Key {
    Key(json!([a, b]).to_string())
}

fn row(a: i64, b: &str) -> Row {
    let Value::Object(row) = json!({"a": a, "b": b}) else {
        panic!("not an object")
    };
    row
}

fn payment(key: Key, row: Option<Row>) -> Payment {
    Payment {
        table: Arc::new(pairs_table()),
        key,
        row,
        attempt: AttemptId::fresh(),
        deadline: UnixMs::after(LIMIT),
        epoch: Epoch(7),
        fence: Some(3),
    }
}

#[tokio::test]
async fn a_call_carries_its_members_as_headers() {
    let (address, asked) = service(|_| Act::Answer(200, json!([]))).await;
    let mut call = Call::new(select(), UnixMs::after(LIMIT), Epoch(7));
    call.traceparent = Some("00-ab-cd-01".to_owned());
    call.fences = vec![(key(1, "x"), 3)];
    let storage = client(address, Capabilities::all());
    assert_eq!(storage.call(&call).await.unwrap().as_json(), "[]");
    let asked = asked.lock().unwrap();
    let header = |name: &str| asked[0].0[name].to_str().unwrap().to_owned();
    assert_eq!(header("deadline"), call.deadline.0.to_string());
    assert_eq!(header("attempt_id"), call.attempt.to_string());
    assert_eq!(header("epoch"), "7");
    assert_eq!(header("traceparent"), "00-ab-cd-01");
    assert_eq!(header("fences"), r#"{"[1,\"x\"]":3}"#);
}

#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ask(address, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), "unavailable", "{error}");
}

#[tokio::test]
async fn a_connection_cut_after_the_request_is_in_doubt() {
    let (address, asked) = service(|_| Act::Close).await;
    let error = ask(address, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), "in_doubt", "{error}");
    assert_eq!(asked.lock().unwrap().len(), 1, "sent once");
}

#[tokio::test]
async fn a_slow_answer_is_in_doubt_when_the_deadline_comes() {
    let (address, _) = service(|_| Act::Hang).await;
    let error = ask(address, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.kind(), "in_doubt", "{error}");
}

#[tokio::test]
async fn a_passed_deadline_sends_nothing() {
    let (address, asked) = service(|_| Act::Answer(200, json!([]))).await;
    let error = ask(address, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), "unavailable");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn error_bodies_are_told_apart() {
    for (status, text, kind) in [
        (
            409,
            r#"{"error":{"code":"conflict","message":"m"}}"#,
            "rejected",
        ),
        (
            503,
            r#"{"error":{"code":"overloaded","message":"m"}}"#,
            "unavailable",
        ),
        (503, "<html>", "in_doubt"),
        (
            504,
            r#"{"error":{"code":"outcome_unknown","message":"m"}}"#,
            "in_doubt",
        ),
        (200, "{\"rows\":", "in_doubt"),
    ] {
        let (address, _) = service(move |_| Act::Text(status, text)).await;
        let error = ask(address, LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {text}");
    }
}

#[tokio::test]
async fn rows_are_matched_to_their_keys_however_they_are_spelled() {
    let (address, asked) = service(|query| {
        let filter = &query["where"];
        match filter["a"].as_i64() {
            Some(1) => Act::Text(200, r#"[{"a":1.0,"b":"x","amount":"1"}]"#),
            _ => Act::Answer(200, json!([])),
        }
    })
    .await;
    let storage = client(address, Capabilities::default());
    let keys = [key(1, "x"), key(2, "y"), key(1, "x")];
    let table: Arc<Table> = Arc::new(pairs_table());
    let deadline = UnixMs::after(LIMIT);
    let rows = storage
        .rows_by_keys(&table, &keys, Epoch(1), deadline)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[&key(1, "x")]["b"], "x");
    assert_eq!(asked.lock().unwrap().len(), 2, "each key once");
}

#[tokio::test]
async fn a_row_that_was_not_asked_for_is_an_error_and_not_an_absent_row() {
    let (address, _) = service(|_| Act::Answer(200, json!([{"a": 9, "b": "z"}]))).await;
    let storage = client(address, Capabilities::all());
    let table: Arc<Table> = Arc::new(pairs_table());
    let keys = [key(1, "x")];
    let rows = storage.rows_by_keys(&table, &keys, Epoch(1), UnixMs::after(LIMIT));
    assert_eq!(rows.await.unwrap_err().kind(), "in_doubt");
}

#[tokio::test]
async fn a_batch_answers_item_by_item() {
    let (address, asked) = service(|_| {
        Act::Answer(
            200,
            json!([{"a": 1, "b": "x"}, {"error": {"code": "constraint", "message": "m"}}, null]),
        )
    })
    .await;
    let storage = client(address, Capabilities::all());
    let bad = payment(Key("[1]".to_owned()), None);
    let paid = storage
        .pay(vec![
            payment(key(1, "x"), Some(row(1, "x"))),
            bad,
            payment(key(2, "y"), Some(row(2, "y"))),
            payment(key(3, "z"), None),
        ])
        .await;
    assert_eq!(paid[0].as_ref().unwrap().stored, Some(row(1, "x")));
    assert_eq!(paid[1].as_ref().unwrap_err().kind(), "rejected");
    let refused = |error: &StorageError| matches!(error, StorageError::Rejected(error) if error.code == Code::Constraint);
    assert!(refused(paid[2].as_ref().unwrap_err()));
    assert_eq!(paid[3].as_ref().unwrap().stored, None);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "one call");
    let items = &asked[0].1["items"];
    assert_eq!(items[0]["query"]["type"], "upsert");
    assert_eq!(items[0]["fences"], json!({ key(1, "x").0: 3 }));
    assert_eq!(items[2]["query"]["type"], "delete");
    assert_eq!(items[2]["query"]["hard"], true);
}

#[tokio::test]
async fn a_batch_without_one_reply_per_item_is_in_doubt_for_every_item() {
    let (address, _) = service(|_| Act::Answer(200, json!([null]))).await;
    let storage = client(address, Capabilities::all());
    let payments = vec![payment(key(1, "x"), None), payment(key(2, "y"), None)];
    for paid in storage.pay(payments).await {
        assert_eq!(paid.unwrap_err().kind(), "in_doubt");
    }
}

#[tokio::test]
async fn the_least_service_is_paid_by_update_then_insert() {
    let (address, asked) = service(|query| match query["type"].as_str() {
        Some("update") => Act::Answer(200, Value::Null),
        _ => Act::Answer(200, json!({"a": 1, "b": "x"})),
    })
    .await;
    let storage = client(address, Capabilities::default());
    let put = payment(key(1, "x"), Some(row(1, "x")));
    let paid = storage
        .pay(vec![put.clone(), payment(key(2, "y"), None)])
        .await;
    assert_eq!(paid[0].as_ref().unwrap().stored, Some(row(1, "x")));
    let unsupported = |error: &StorageError| matches!(error, StorageError::Rejected(error) if error.code == Code::Unsupported);
    assert!(unsupported(paid[1].as_ref().unwrap_err()), "no delete");
    let asked = asked.lock().unwrap();
    let types: Vec<_> = asked
        .iter()
        .map(|(_, query)| query["type"].clone())
        .collect();
    assert_eq!(types, ["update", "insert"]);
    assert_eq!(asked[0].0["attempt_id"], put.attempt.to_string());
    assert_ne!(asked[1].0["attempt_id"], put.attempt.to_string());
    assert!(!asked[0].0.contains_key("fences"), "it does not fence");
}

#[tokio::test]
async fn pages_and_resolutions_are_read_or_unsupported() {
    let (address, _) = service(|query| match query["type"].as_str() {
        Some("range") => Act::Answer(200, json!({"rows": [{"a": 1, "b": "x"}], "next": [1, "x"]})),
        Some("resolve") => Act::Answer(200, json!({"applied": true, "rows": []})),
        _ => Act::Answer(200, json!([])),
    })
    .await;
    let table = pairs_table();
    let deadline = UnixMs::after(LIMIT);
    let full = client(address, Capabilities::all());
    let page = full
        .range(&table, None, 10, Epoch(1), deadline)
        .await
        .unwrap();
    assert_eq!(page.next, Some(vec![json!(1), json!("x")]));
    let keys = [key(1, "x")];
    let attempt = AttemptId::fresh();
    let resolved = full
        .resolve(&table, &keys, attempt, Epoch(1), deadline)
        .await
        .unwrap();
    assert!(resolved.applied);
    full.probe(&table, Epoch(1), deadline).await.unwrap();
    let least = client(address, Capabilities::default());
    assert!(
        least
            .range(&table, None, 10, Epoch(1), deadline)
            .await
            .is_err()
    );
    assert!(
        least
            .resolve(&table, &keys, attempt, Epoch(1), deadline)
            .await
            .is_err()
    );
}

async fn over_amqp(routing_key: &str) -> Storage {
    let amqp = AmqpOptions {
        url: broker(),
        exchange: String::new(),
        routing_key: routing_key.to_owned(),
    };
    let storage = Storage::new(StorageOptions {
        db: "campaign_db".to_owned(),
        transport: Transport::Amqp(amqp),
        capabilities: Capabilities::default(),
        rpc_deadline: Duration::from_millis(1500),
        inflight_max: 64,
        trust: crate::tls::issuer::public_trust(),
    })
    .unwrap();
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !storage.is_reachable() {
        assert!(tokio::time::Instant::now() < deadline, "no broker");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    storage
}

#[tokio::test]
async fn over_amqp_a_queue_that_is_not_there_is_unavailable() {
    let storage = over_amqp(&queue_name("nobody")).await;
    let call = Call::new(select(), UnixMs::after(LIMIT), Epoch(7));
    let error = storage.call(&call).await.unwrap_err();
    assert_eq!(error.kind(), "unavailable", "{error}");
    storage.close().await;
}

#[tokio::test]
async fn over_amqp_a_service_that_knows_no_status_is_understood() {
    let queue = queue("plain").await;
    let storage = over_amqp(&queue).await;
    let hub = Hub::connect(&broker(), "storage test", &public_trust()).unwrap();
    let publisher = Publisher::new(&hub, 10);
    let mut consumer = Consumer::new(
        &hub,
        ConsumeOptions {
            queue,
            declare: false,
            bindings: Vec::new(),
            prefetch: 1,
        },
    );
    let call = Call::new(select(), UnixMs::after(LIMIT), Epoch(7));
    let serve = async {
        let delivery = consumer.next().await.unwrap();
        let asked = &delivery.message;
        assert_eq!(asked.headers["deadline"], Header::Int(call.deadline.0));
        assert_eq!(asked.headers["epoch"], Header::Int(7));
        let attempt = Header::Text(call.attempt.to_string());
        assert_eq!(asked.headers["attempt_id"], attempt);
        assert!(asked.expiration_ms.unwrap() <= 5000);
        let reply = Message {
            correlation_id: asked.correlation_id.clone(),
            ..Message::json(r#"[{"a":1}]"#)
        };
        let to = asked.reply_to.clone().unwrap();
        let deadline = tokio::time::Instant::now() + LIMIT;
        publisher
            .publish("", &to, reply, deadline)
            .unwrap()
            .settled()
            .await
            .unwrap();
        delivery.ack().await.unwrap();
    };
    let (reply, ()) = tokio::join!(storage.call(&call), serve);
    assert_eq!(reply.unwrap().as_json(), r#"[{"a":1}]"#);
}
