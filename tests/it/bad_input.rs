//! Requests that are wrong, through both doors: each is refused with its code and nothing is touched.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use lapin::BasicProperties;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::campaigns::{insert, key, select};
use crate::fixture::{StorageClient, World, WorldOptions};

const SOON: Duration = Duration::from_secs(20);
const TEN_MEBIBYTES: usize = 10 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_with_its_code_and_touches_nothing() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;
    let before = world.legacy.rows("campaigns").await;
    let client = world.client().await;
    for (body, code) in wrong() {
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let sent = Some(body.clone().into());
        let door = &world.proxies[0].door;
        let answer = door.send_bytes(Method::POST, "/v1/query", sent, &[]).await;
        let answer = answer.unwrap();
        assert_eq!(answer.code(), code, "{shown}: {}", answer.body);
        let reply = client.request_body(&body, BasicProperties::default()).await;
        let reply = reply.unwrap();
        assert_eq!(code_of(&reply.data), code, "{shown} over AMQP");
        let status = StorageClient::header(&reply, "x-cutover-status");
        assert_eq!(status, answer.status.as_str(), "{shown}");
    }
    assert_eq!(world.legacy.rows("campaigns").await, before);
    assert_eq!(world.storage_database.rows("campaigns").await, before);
    let owed = "SELECT count(*) FROM cutover.journal";
    assert_eq!(world.legacy.number(owed).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_in_a_value_is_a_value() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    let name = "'); DROP TABLE campaigns; -- $1 \" \\ %s {}";
    let row = world.proxies[0].query(insert("one", name)).await.ok();
    assert_eq!(row["name"], name);
    let by_name = json!({"type": "select", "table": "campaigns", "where": {"name": name}});
    let rows = world.proxies[0].query(by_name).await.ok();
    assert_eq!(rows[0]["id"], key("one").as_str());
    world.settles("campaigns", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_id_with_another_payload_is_a_conflict_at_both_doors() {
    let world = World::build(WorldOptions::default()).await;
    let client = world.client().await;
    let named = |body: &Value| {
        let door = &world.proxies[0].door;
        let body = body.clone();
        async move {
            let headers = [("idempotency-key", "order-7")];
            let body = json!({"db": "campaign_db", "query": body});
            let sent = door.send(Method::POST, "/v1/query", Some(&body), &headers);
            sent.await.unwrap()
        }
    };
    named(&insert("one", "Spring")).await.ok();
    let other = named(&insert("one", "Summer")).await;
    assert_eq!((other.status.as_u16(), other.code()), (409, "conflict"));
    let properties = BasicProperties::default().with_message_id("order-7".into());
    let reply = client.request(&insert("two", "Summer"), properties).await;
    assert_eq!(code_of(&reply.unwrap().data), "conflict");
    let rows = "SELECT count(*) FROM campaigns";
    assert_eq!(world.legacy.number(rows).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_mebibytes_without_a_length_are_too_large() {
    let world = World::build(WorldOptions::default()).await;
    let door = world.proxies[0].door.authority();
    let socket = tokio::net::TcpStream::connect(door).await.unwrap();
    let (mut reading, mut writing) = socket.into_split();
    let head = format!(
        "POST /v1/query HTTP/1.1\r\nhost: {door}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let sending = tokio::spawn(async move {
        writing.write_all(head.as_bytes()).await?;
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        for _ in 0..TEN_MEBIBYTES / 0x10000 {
            // The answer comes before the end, and then nobody reads on.
            writing.write_all(&chunk).await?;
        }
        writing.write_all(b"0\r\n\r\n").await
    });
    let mut line = [0; 12];
    let read = tokio::time::timeout(SOON, reading.read_exact(&mut line));
    read.await.expect("an answer in time").expect("an answer");
    assert_eq!(&line, b"HTTP/1.1 413");
    sending.abort();
    world.proxies[0].query(select("one")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_nobody_waits_for_are_counted_and_late_ones_not_executed() {
    let world = World::build(WorldOptions::default()).await;
    let client = world.client().await;
    let body = json!({"db": "campaign_db", "query": insert("one", "Spring")}).to_string();
    let alone = BasicProperties::default();
    client.publish(body.as_bytes(), alone).await.unwrap();
    let proxy = &world.proxies[0];
    let dead = r#"cutover_amqp_answers_total{result="dead_lettered"} 1"#;
    proxy.shows(dead, SOON).await;

    let body = json!({"db": "campaign_db", "query": select("one")}).to_string();
    let nowhere = BasicProperties::default().with_reply_to("a queue that is not".into());
    client.publish(body.as_bytes(), nowhere).await.unwrap();
    let unroutable = r#"cutover_amqp_answers_total{result="unroutable"} 1"#;
    proxy.shows(unroutable, SOON).await;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let late = BasicProperties::default()
        .with_timestamp(now.as_secs() - 20)
        .with_expiration("10000".into());
    let reply = client.request(&insert("one", "Spring"), late).await;
    assert_eq!(code_of(&reply.unwrap().data), "deadline_exceeded");
    let rows = "SELECT count(*) FROM campaigns";
    assert_eq!(world.legacy.number(rows).await, 0);
}

/// Bodies, and what each is refused as.
fn wrong() -> Vec<(Vec<u8>, &'static str)> {
    [wrong_requests(), wrong_updates(), wrong_json()].concat()
}

fn wrong_requests() -> Vec<(Vec<u8>, &'static str)> {
    let count = json!({"type": "count", "table": "campaigns"});
    let extra = json!({"db": "campaign_db", "query": count, "extra": 1}).to_string();
    let other_db = json!({"db": "other", "query": count}).to_string();
    let count_extra = json!({"type": "count", "table": "campaigns", "extra": 1});
    let update_all = json!({"type": "update", "table": "campaigns", "data": {"name": "x"}});
    let delete_where = json!({"type": "delete", "table": "campaigns", "where": {}});
    let delete_all = json!({"type": "delete", "table": "campaigns"});
    let merge = json!({"type": "merge", "table": "campaigns"});
    vec![
        (b"".to_vec(), "invalid_request"),
        (br#"{"db": "campaign_db", "#.to_vec(), "invalid_request"),
        (b"[1, 2]".to_vec(), "invalid_request"),
        (extra.into_bytes(), "invalid_request"),
        (other_db.into_bytes(), "unknown_db"),
        (body(&count_extra), "invalid_request"),
        (body(&merge), "invalid_request"),
        (body(&update_all), "unbounded_write"),
        (body(&delete_where), "unbounded_write"),
        (body(&delete_all), "unbounded_write"),
    ]
}

fn wrong_updates() -> Vec<(Vec<u8>, &'static str)> {
    let (one, name) = (json!({"id": key("one")}), json!({"name": "x"}));
    let injected = json!({"name\" = 'x' --": "red"});
    let cases = [
        ("nothing", &one, &name, "unknown_table"),
        (
            "campaigns; DROP TABLE campaigns",
            &one,
            &name,
            "unknown_table",
        ),
        ("cutover.state", &one, &name, "unknown_table"),
        (
            "campaigns",
            &one,
            &json!({"colour": "red"}),
            "unknown_column",
        ),
        ("campaigns", &one, &injected, "unknown_column"),
        (
            "campaigns",
            &json!({"1=1 OR name": "x"}),
            &name,
            "unknown_column",
        ),
        (
            "campaigns",
            &json!({"id": "no uuid"}),
            &name,
            "type_mismatch",
        ),
        (
            "campaigns",
            &one,
            &json!({"name": {"a": 1}}),
            "type_mismatch",
        ),
        (
            "campaigns",
            &one,
            &json!({"created_at": "yesterday"}),
            "type_mismatch",
        ),
        ("campaigns", &json!({}), &name, "unbounded_write"),
        ("campaigns", &json!({"or": [{}]}), &name, "unbounded_write"),
    ];
    let update = |(table, filter, data, code): (&str, &Value, &Value, &'static str)| {
        let query = json!({"type": "update", "table": table, "where": filter, "data": data});
        (body(&query), code)
    };
    cases.into_iter().map(update).collect()
}

/// Wrong before it is a request; each is put where a name belongs.
fn wrong_json() -> Vec<(Vec<u8>, &'static str)> {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("\"{}\"", "x".repeat(TEN_MEBIBYTES));
    let named = |name: &[u8]| {
        let before = br#"{"db": "campaign_db", "query": {"type": "insert", "table": "campaigns", "data": {"name": "#;
        [before, name, b"}}}"].concat()
    };
    vec![
        (named(deep.as_bytes()), "invalid_request"),
        (named(long.as_bytes()), "too_large"),
        (named(br#""x", "name": "y""#), "invalid_request"),
        (named(br#""\u0000""#), "invalid_request"),
        (named(br#""\ud800""#), "invalid_request"),
        (named(b"1e999"), "invalid_request"),
        (named(b"\"\xff\""), "invalid_request"),
    ]
}

fn body(query: &Value) -> Vec<u8> {
    json!({"db": "campaign_db", "query": query})
        .to_string()
        .into_bytes()
}

fn code_of(reply: &[u8]) -> String {
    let reply: Value = serde_json::from_slice(reply).unwrap();
    reply["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
