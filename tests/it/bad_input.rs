//! What is wrong in a request is refused with its code, through both doors, and nothing is touched.

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::campaigns::{insert, key, select};
use crate::fixture::{StorageClient, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(20);

/// Bodies that are no request, and the code each is refused with.
fn bodies() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let query = |query: &str| format!("{{\"db\":\"campaign_db\",\"query\":{query}}}").into_bytes();
    let nested = |depth: usize| {
        let open = "{\"not\":".repeat(depth);
        let close = "}".repeat(depth);
        query(&format!(
            "{{\"type\":\"select\",\"table\":\"campaigns\",\"where\":{open}{{}}{close}}}"
        ))
    };
    let id = key("bad");
    vec![
        ("nothing", Vec::new(), "invalid_request"),
        ("malformed", b"{\"db\":".to_vec(), "invalid_request"),
        ("no object", b"[1,2]".to_vec(), "invalid_request"),
        ("invalid UTF-8", b"{\"db\":\"\xff\xfe\"}".to_vec(), "invalid_request"),
        ("an unknown member", query(r#"{"type":"select","table":"campaigns","wher":{}}"#), "invalid_request"),
        ("an unknown type", query(r#"{"type":"drop","table":"campaigns"}"#), "invalid_request"),
        ("an unknown table", query(r#"{"type":"select","table":"nobody"}"#), "unknown_table"),
        ("SQL in a table", query(r#"{"type":"select","table":"campaigns; DROP TABLE campaigns"}"#), "unknown_table"),
        ("an unknown column", query(r#"{"type":"select","table":"campaigns","where":{"nam":"x"}}"#), "unknown_column"),
        ("SQL in a column", query(r#"{"type":"select","table":"campaigns","where":{"name\" OR \"1\"=\"1":"x"}}"#), "unknown_column"),
        ("a wrong type", query(r#"{"type":"select","table":"campaigns","where":{"id":"no uuid"}}"#), "type_mismatch"),
        ("a number for text", query(r#"{"type":"insert","table":"campaigns","data":{"name":7}}"#), "type_mismatch"),
        ("an update of everything", query(r#"{"type":"update","table":"campaigns","where":{},"data":{"name":"x"}}"#), "unbounded_write"),
        ("a delete of everything", query(r#"{"type":"delete","table":"campaigns"}"#), "unbounded_write"),
        ("an empty or", query(r#"{"type":"delete","table":"campaigns","where":{"or":[]}}"#), "unbounded_write"),
        ("depth 40", nested(40), "invalid_request"),
        ("depth 100,000", nested(100_000), "invalid_request"),
        ("a duplicate key", query(r#"{"type":"select","table":"campaigns","table":"campaigns"}"#), "invalid_request"),
        ("a NUL", query(r#"{"type":"insert","table":"campaigns","data":{"name":"a\u0000b"}}"#), "invalid_request"),
        ("a lone surrogate", query(r#"{"type":"insert","table":"campaigns","data":{"name":"\ud800"}}"#), "invalid_request"),
        ("1e999", query(r#"{"type":"select","table":"campaigns","limit":1e999}"#), "invalid_request"),
        ("another database", br#"{"db":"other","query":{"type":"select","table":"campaigns"}}"#.to_vec(), "unknown_db"),
        ("a bad op_id", format!("{{\"db\":\"campaign_db\",\"op_id\":\"x\",\"query\":{{\"type\":\"delete\",\"table\":\"campaigns\",\"where\":{{\"id\":\"{id}\"}}}}}}").into_bytes(), "invalid_request"),
    ]
}

/// Sends bytes as they are and returns the status line and the body.
async fn raw(authority: &str, head: &str, body: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer and close before it has read it all.
    stream.write_all(body).await.ok();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(SOON, read).await.unwrap().ok();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.lines().next().unwrap_or_default().to_owned();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
    (status, body)
}

fn head(more: &str) -> String {
    format!(
        "POST /v1/query HTTP/1.1\r\nhost: proxy\r\ncontent-type: application/json\r\nconnection: close\r\n{more}\r\n\r\n"
    )
}

async fn nothing_was_touched(world: &World) {
    assert_eq!(
        world.legacy.number("SELECT count(*) FROM campaigns").await,
        1
    );
    let written = "SELECT count(*) FROM cutover.operations";
    assert_eq!(
        world.legacy.number(written).await,
        1,
        "one operation is on record"
    );
}

async fn world_with_one_row() -> World {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_refused_with_its_code_at_the_http_door() {
    let world = world_with_one_row().await;
    let authority = world.proxies[0].door.authority().to_owned();
    for (what, body, code) in bodies() {
        let length = format!("content-length: {}", body.len());
        let (status, answer) = raw(&authority, &head(&length), &body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        assert_eq!(answer["error"]["code"], code, "{what}: {status} {answer}");
        assert!(
            answer["error"]["message"].as_str().unwrap().len() > 10,
            "{what}"
        );
    }
    nothing_was_touched(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_refused_with_its_code_at_the_amqp_door() {
    let world = world_with_one_row().await;
    let client = world.client().await;
    for (what, body, code) in bodies() {
        let reply = client.send_raw(&body).await.expect(what);
        let answer: Value = serde_json::from_slice(&reply.data).unwrap_or_default();
        assert_eq!(answer["error"]["code"], code, "{what}: {answer}");
        assert!(
            StorageClient::header(&reply, "x-cutover-status").starts_with('4'),
            "{what}"
        );
    }
    nothing_was_touched(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_mebibytes_are_too_large_with_and_without_a_length() {
    let world = world_with_one_row().await;
    let authority = world.proxies[0].door.authority().to_owned();
    let body = vec![b' '; 10 << 20];
    let length = format!("content-length: {}", body.len());
    let (status, answer) = raw(&authority, &head(&length), &body).await;
    assert!(status.contains("413"), "{status}");
    assert!(answer.contains("too_large"), "{answer}");
    let mut chunks = Vec::new();
    for chunk in body.chunks(64 << 10) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let (status, _) = raw(&authority, &head("transfer-encoding: chunked"), &chunks).await;
    assert!(status.contains("413"), "{status}");
    nothing_was_touched(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_id_with_another_payload_is_a_conflict_through_either_door() {
    let world = world_with_one_row().await;
    let proxy = &world.proxies[0];
    let op_id = uuid::Uuid::new_v4().to_string();
    let first = proxy
        .try_query(insert("two", "Summer"), Some(&op_id))
        .await
        .unwrap()
        .ok();
    let again = proxy
        .try_query(insert("two", "Summer"), Some(&op_id))
        .await
        .unwrap()
        .ok();
    assert_eq!(first, again, "the first answer again");
    let other = proxy
        .try_query(insert("three", "Autumn"), Some(&op_id))
        .await
        .unwrap();
    assert_eq!((other.status.as_u16(), other.code()), (409, "conflict"));
    let client = world.client().await;
    let named = BasicProperties::default().with_message_id(op_id.as_str().into());
    let reply = client
        .request(&insert("four", "Winter"), named.clone())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&reply.data).unwrap();
    assert_eq!(answer["error"]["code"], "conflict", "{answer}");
    let reply = client
        .request(&insert("two", "Summer"), named)
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&reply.data).unwrap();
    assert_eq!(answer, first, "known at the other door as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_nobody_can_answer_or_that_are_late_are_not_executed() {
    let world = world_with_one_row().await;
    let client = world.client().await;
    // A deadline that has passed.
    let late = BasicProperties::default()
        .with_timestamp(1_000_000_000)
        .with_expiration("1000".into());
    let reply = client.request(&insert("late", "Late"), late).await.unwrap();
    let answer: Value = serde_json::from_slice(&reply.data).unwrap();
    assert_eq!(answer["error"]["code"], "deadline_exceeded", "{answer}");
    // No way to answer.
    let mute = json!({"db": "campaign_db", "query": insert("mute", "Mute")}).to_string();
    client.send_mute(mute.as_bytes()).await;
    eventually("the message was dead-lettered", SOON, async || {
        let metrics = world.proxies[0].metrics().await;
        let line = "cutover_amqp_answers_total{result=\"dead_lettered\"} 1";
        metrics.contains(line).then_some(()).ok_or(metrics)
    })
    .await;
    nothing_was_touched(&world).await;
    // The door goes on.
    assert_eq!(
        client.execute_query(select("one")).await[0]["name"],
        "Spring"
    );
}
