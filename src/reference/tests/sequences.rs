//! Ids that came with rows, and those that the service gives.

use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::{Fixture, Headers, Under, now_ms, under_both};

under_both![
    ids_that_came_with_rows_are_not_given_again,
    ids_that_were_loaded_past_the_service_are_not_given_after_its_next_start,
];

async fn ids_that_came_with_rows_are_not_given_again(under: Under) {
    let service = with_notes(under).await;
    let mut last = 0;
    for (write, id) in [
        (note("insert", json!({"id": 7, "text": "a"})), 7),
        (note("upsert", json!({"id": 3, "text": "b"})), 7),
        (
            note("insert", json!([{"id": 40, "text": "c"}, {"id": 5000}])),
            5000,
        ),
        (
            json!({"type": "update", "table": "notes", "where": {"id": 7}, "data": {"id": 6000}}),
            6000,
        ),
        (
            json!({"type": "transaction", "queries": [note("insert", json!({"id": 6100}))]}),
            6100,
        ),
        (batch(6200), 6200),
    ] {
        let (status, body) = service.query(write).await;
        assert_eq!(status, 200, "{body}");
        last = id.max(last) + 1;
        assert_eq!(given(&service).await, last, "{body}");
    }
    // Refused as a whole: nothing was given.
    let refused = json!({"type": "transaction", "queries": [
        note("insert", json!({"id": 9000})), note("insert", json!({"id": 40})),
    ]});
    assert_eq!(service.query(refused).await.0, 409);
    assert_eq!(given(&service).await, last + 1);
    service.remove().await;
}

async fn ids_that_were_loaded_past_the_service_are_not_given_after_its_next_start(under: Under) {
    let service = with_notes(under).await;
    let load = "INSERT INTO notes (id, text) VALUES (900, 'loaded')";
    service.db.batch(load).await.unwrap();
    let service = service.start_again().await;
    assert_eq!(given(&service).await, 901);
    service.remove().await;
}

async fn with_notes(under: Under) -> Fixture {
    let service = Fixture::new(under).await;
    let key = match under {
        Under::Sqlite => "INTEGER PRIMARY KEY",
        Under::Postgres => "bigserial PRIMARY KEY",
    };
    let create = format!("CREATE TABLE notes (id {key}, text text)");
    service.db.batch(&create).await.unwrap();
    service
}

fn note(write: &str, data: Value) -> Value {
    json!({ "type": write, "table": "notes", "data": data })
}

fn batch(id: i64) -> Value {
    let item = |id| {
        json!({
            "query": note("upsert", json!({"id": id, "text": "paid"})),
            "attempt_id": Uuid::new_v4(),
            "deadline": now_ms() + 60_000,
        })
    };
    json!({ "type": "batch", "items": [item(id), item(id - 10)] })
}

/// The id of a row that is inserted without one.
async fn given(service: &Fixture) -> i64 {
    let keyless = note("insert", json!({"text": "keyless"}));
    let (status, row) = service.query_with(keyless, Headers::default()).await;
    assert_eq!(status, 200, "{row}");
    row["id"].as_i64().unwrap()
}
