//! The fixture's own tests: what the other tests stand on holds.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use serde_json::{Value, json};

use crate::fixture::{
    Database, Port, Servers, StorageClient, amqp, differences, eventually, unique_name,
};

#[tokio::test]
async fn a_database_is_made_for_a_test_and_gone_after_it() {
    let servers = Servers::from_env();
    let name = unique_name();
    let database = Database::create(&servers, &name).await;
    database
        .execute("CREATE TABLE t (b INT, a TEXT, v JSONB, PRIMARY KEY (a, b))")
        .await;
    database
        .execute(r#"INSERT INTO t VALUES (2, 'x', '{"k": 1.50}'), (10, 'x', NULL), (1, 'y', '[]')"#)
        .await;
    let rows = database.rows("t").await;
    let keys: Vec<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(keys, [r#"["x", 10]"#, r#"["x", 2]"#, r#"["y", 1]"#]);
    assert!(rows[r#"["x", 2]"#].contains("1.50"));
    database.close().await;
    Database::drop(&servers, &name).await;
    let postgres = Database::open(&servers.postgres_url).await;
    let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(postgres.number(&left).await, 0);
}

#[tokio::test]
async fn a_query_over_a_queue_gets_the_reply_that_is_its_own() {
    let servers = Servers::from_env();
    let queue = unique_name();
    let service = amqp::connect(&servers.amqp_url).await;
    let channel = service.create_channel().await.unwrap();
    channel
        .queue_declare(
            queue.as_str().into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let echo = tokio::spawn(echo_in_reverse_order(channel.clone(), queue.clone()));
    let client = StorageClient::connect(&servers.amqp_url, &queue, "campaign_db").await;
    let (first, second) = tokio::join!(
        client.execute_query(json!({"type": "select", "table": "first"})),
        client.execute_query(json!({"type": "select", "table": "second"})),
    );
    assert_eq!(first["db"], "campaign_db");
    assert_eq!(first["query"]["table"], "first");
    assert_eq!(second["query"]["table"], "second");
    echo.await.unwrap();
    channel
        .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_reserved_port_can_be_listened_on_again_and_again() {
    let port = Port::reserve();
    for _ in 0..3 {
        let listener = tokio::net::TcpListener::bind(port.address()).await.unwrap();
        let connected = tokio::net::TcpStream::connect(port.address()).await;
        assert!(connected.is_ok());
        drop(listener);
    }
    let refused = tokio::net::TcpStream::connect(port.address()).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn waiting_ends_when_the_condition_holds() {
    let mut tries = 0;
    let found = eventually("three tries", Duration::from_secs(5), async || {
        tries += 1;
        (tries == 3).then_some("there").ok_or("not yet")
    })
    .await;
    assert_eq!((found, tries), ("there", 3));
}

#[tokio::test]
#[should_panic(expected = "a miracle: still none")]
async fn waiting_in_vain_says_what_was_missing() {
    eventually("a miracle", Duration::from_millis(50), async || {
        Err::<(), _>("still none")
    })
    .await;
}

#[test]
fn differing_rows_are_told_by_key_and_side() {
    let rows = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    };
    let legacy = rows(&[("1", "a"), ("2", "b"), ("3", "c")]);
    let storage = rows(&[("1", "a"), ("2", "x"), ("4", "d")]);
    assert!(differences(&legacy, &legacy).is_empty());
    assert_eq!(
        differences(&legacy, &storage),
        [
            "2: legacy has b, storage has x",
            "3: only in legacy: c",
            "4: only in storage: d"
        ]
    );
}

/// Answers two requests with their own bodies, the later one first.
async fn echo_in_reverse_order(channel: Channel, queue: String) {
    let mut consumer = channel
        .basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mut requests = Vec::new();
    while requests.len() < 2 {
        requests.push(consumer.next().await.unwrap().unwrap());
    }
    for request in requests.into_iter().rev() {
        let body: Value = serde_json::from_slice(&request.data).unwrap();
        let id = request.properties.correlation_id().clone().unwrap();
        let reply_to = request.properties.reply_to().clone().unwrap();
        channel
            .basic_publish(
                "".into(),
                reply_to,
                BasicPublishOptions::default(),
                body.to_string().as_bytes(),
                BasicProperties::default().with_correlation_id(id),
            )
            .await
            .unwrap();
        request.ack(BasicAckOptions::default()).await.unwrap();
    }
}
