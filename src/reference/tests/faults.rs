//! Faults on demand.

use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, Headers, Under, code, insert};

#[tokio::test]
async fn a_lost_reply_was_executed() {
    let service = Fixture::new(Under::Sqlite).await;
    let id = Uuid::new_v4();
    let headers = Headers::default().attempt(Uuid::new_v4());
    let (status, _) = service.faults("PUT", json!({ "lost_reply_rate": 1 })).await;
    assert_eq!(status, 200);
    assert_eq!(
        service.try_query(insert(id, "a"), headers.clone()).await,
        None
    );
    assert_eq!(service.stored().await, 1);
    service.faults("DELETE", json!(null)).await;
    let (status, row) = service.query_with(insert(id, "a"), headers).await;
    assert_eq!((status, &row["name"]), (200, &json!("a")));
    service.remove().await;
}

#[tokio::test]
async fn refused_failing_and_read_only_requests_are_not_executed() {
    let service = Fixture::new(Under::Sqlite).await;
    service.faults("PUT", json!({ "refuse": true })).await;
    let refused = service.try_query(insert(Uuid::new_v4(), "a"), Headers::default());
    assert_eq!(refused.await, None);
    for (faults, status, expected) in [
        (json!({ "error_rate": 1.0 }), 500, "internal"),
        (json!({ "read_only": true }), 503, "backend_unavailable"),
    ] {
        service.faults("POST", faults).await;
        let answer = service.query(insert(Uuid::new_v4(), "a")).await;
        assert_eq!((answer.0, code(&answer.1)), (status, expected));
    }
    let count = json!({ "type": "count", "table": "campaigns" });
    assert_eq!(service.query(count).await, (200, json!({ "count": 0 })));
    service.remove().await;
}

#[tokio::test]
async fn a_corrupted_answer_hides_what_is_stored_right() {
    let service = Fixture::new(Under::Sqlite).await;
    let id = Uuid::new_v4();
    service.faults("PUT", json!({ "corrupt_rate": 1 })).await;
    let (_, spoilt) = service.query(insert(id, "a")).await;
    service.faults("DELETE", json!(null)).await;
    let select = json!({ "type": "select", "table": "campaigns", "where": { "id": id } });
    let (_, rows) = service.query(select).await;
    assert_eq!(rows[0]["name"], "a");
    assert_ne!(rows[0], spoilt);
    service.remove().await;
}

#[tokio::test]
async fn faults_are_shown_and_unknown_ones_refused() {
    let service = Fixture::new(Under::Sqlite).await;
    service.faults("PUT", json!({ "latency_ms": 5 })).await;
    let (_, shown) = service.faults("GET", json!(null)).await;
    assert_eq!(shown["latency_ms"], 5);
    assert_eq!(service.faults("PUT", json!({ "latency": 5 })).await.0, 400);
    assert_eq!(service.faults("GET", json!(null)).await.1, shown);
    service.remove().await;
}
