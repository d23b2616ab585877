//! Repeats, refusals, doubts, deadlines and fences (rules P6 and P7).

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, Headers, Under, code, insert, under_both};
use crate::sql::Dialect;

under_both![
    a_repeated_attempt_gets_its_first_answer,
    concurrent_sends_of_one_attempt_take_effect_once,
    a_refused_attempt_stays_refused,
    a_resolved_attempt_that_comes_late_is_refused,
    resolving_a_done_attempt_says_applied_and_shows_the_row,
    resolving_waits_for_the_write_in_flight,
    a_write_that_reaches_its_commit_late_is_refused,
    an_older_fence_is_refused,
    a_resolve_raises_the_fence,
    batch_items_stand_for_themselves,
];

fn resolve(id: Uuid, attempt: Uuid) -> serde_json::Value {
    json!({ "type": "resolve", "table": "campaigns", "keys": [[id]], "attempt_id": attempt })
}

async fn a_repeated_attempt_gets_its_first_answer(under: Under) {
    let service = Fixture::new(under).await;
    let id = Uuid::new_v4();
    let headers = Headers::default()
        .attempt(Uuid::new_v4())
        .deadline_in(5_000);
    let first = service.query_with(insert(id, "a"), headers.clone()).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(first.1["name"], "a");
    let update = json!({ "type": "update", "table": "campaigns", "where": { "id": id }, "data": { "name": "b" } });
    service.query(update).await;
    assert_eq!(service.query_with(insert(id, "a"), headers).await, first);
    assert_eq!(service.stored().await, 1);
    service.remove().await;
}

async fn concurrent_sends_of_one_attempt_take_effect_once(under: Under) {
    let service = Fixture::new(under).await;
    let headers = Headers::default().attempt(Uuid::new_v4());
    // Without a key each execution would make up a row of its own.
    let keyless = json!({ "type": "insert", "table": "campaigns", "data": { "name": "a" } });
    let send = || service.query_with(keyless.clone(), headers.clone());
    let (a, b, c) = tokio::join!(send(), send(), send());
    assert_eq!(a.0, 200, "{}", a.1);
    assert_eq!(a, b);
    assert_eq!(b, c);
    assert_eq!(service.stored().await, 1);
    service.remove().await;
}

async fn a_refused_attempt_stays_refused(under: Under) {
    let service = Fixture::new(under).await;
    let (campaign, tag) = (Uuid::new_v4(), Uuid::new_v4());
    let headers = Headers::default()
        .attempt(Uuid::new_v4())
        .deadline_in(5_000);
    let orphan = json!({ "type": "insert", "table": "tags",
        "data": { "id": tag, "label": "x", "campaign_id": campaign } });
    let refused = service.query_with(orphan.clone(), headers.clone()).await;
    assert_eq!((refused.0, code(&refused.1)), (422, "constraint"));
    service.query(insert(campaign, "now it is there")).await;
    assert_eq!(service.query_with(orphan.clone(), headers).await, refused);
    // Another attempt of the same write is another matter.
    let fresh = Headers::default().attempt(Uuid::new_v4());
    assert_eq!(service.query_with(orphan, fresh).await.0, 200);
    service.remove().await;
}

async fn a_resolved_attempt_that_comes_late_is_refused(under: Under) {
    let service = Fixture::new(under).await;
    let (id, attempt) = (Uuid::new_v4(), Uuid::new_v4());
    let resolved = service.query(resolve(id, attempt)).await;
    assert_eq!(resolved, (200, json!({ "applied": false, "rows": [] })));
    let headers = Headers::default().attempt(attempt).deadline_in(5_000);
    let late = service.query_with(insert(id, "late"), headers).await;
    assert_eq!((late.0, code(&late.1)), (409, "conflict"));
    assert_eq!(service.stored().await, 0);
    assert_eq!(service.query(resolve(id, attempt)).await, resolved);
    service.remove().await;
}

async fn resolving_a_done_attempt_says_applied_and_shows_the_row(under: Under) {
    let service = Fixture::new(under).await;
    let (id, attempt) = (Uuid::new_v4(), Uuid::new_v4());
    let headers = Headers::default().attempt(attempt);
    let (_, row) = service.query_with(insert(id, "a"), headers).await;
    let resolved = service.query(resolve(id, attempt)).await;
    assert_eq!(resolved, (200, json!({ "applied": true, "rows": [row] })));
    service.remove().await;
}

/// A lock held against the write makes it be in flight for as long as we like.
async fn resolving_waits_for_the_write_in_flight(under: Under) {
    let service = Fixture::new(under).await;
    let (id, attempt) = (Uuid::new_v4(), Uuid::new_v4());
    service.query(insert(id, "a")).await;
    let mut holder = service.db.begin().await.unwrap();
    let touch = format!("UPDATE campaigns SET budget = 1 WHERE id = '{id}'");
    holder.fetch(&touch, Vec::new()).await.unwrap();
    let update = json!({ "type": "update", "table": "campaigns", "where": { "id": id }, "data": { "name": "b" } });
    let write = service.query_with(update, Headers::default().attempt(attempt));
    let resolution = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        service.query(resolve(id, attempt)).await
    };
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        holder.commit().await.unwrap();
    };
    let (written, resolved, ()) = tokio::join!(write, resolution, release);
    // SQLite locks the database, so that the two come in any order; they agree all the same.
    let applied = resolved.1["applied"].as_bool().unwrap();
    assert_eq!(applied, written.0 == 200, "{} {}", written.1, resolved.1);
    if service.db.dialect() == Dialect::Postgres {
        assert!(applied);
    }
    let name = if applied { "b" } else { "a" };
    assert_eq!(resolved.1["rows"][0]["name"], name);
    service.remove().await;
}

async fn a_write_that_reaches_its_commit_late_is_refused(under: Under) {
    let service = Fixture::new(under).await;
    let id = Uuid::new_v4();
    service.query(insert(id, "a")).await;
    let mut holder = service.db.begin().await.unwrap();
    let touch = format!("UPDATE campaigns SET budget = 1 WHERE id = '{id}'");
    holder.fetch(&touch, Vec::new()).await.unwrap();
    let update = json!({ "type": "update", "table": "campaigns", "where": { "id": id }, "data": { "name": "late" } });
    let headers = Headers::default().attempt(Uuid::new_v4()).deadline_in(300);
    let write = service.query_with(update.clone(), headers.clone());
    let release = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        holder.commit().await.unwrap();
    };
    let (refused, ()) = tokio::join!(write, release);
    assert_eq!((refused.0, code(&refused.1)), (504, "deadline_exceeded"));
    assert_eq!(service.query_with(update, headers).await, refused);
    let select = json!({ "type": "select", "table": "campaigns", "where": { "id": id } });
    assert_eq!(service.query(select).await.1[0]["name"], "a");
    service.remove().await;
}

async fn an_older_fence_is_refused(under: Under) {
    let service = Fixture::new(under).await;
    let id = Uuid::new_v4();
    let key = json!([id]).to_string();
    let fenced = |token| {
        Headers::default()
            .attempt(Uuid::new_v4())
            .fence(&key, token)
    };
    assert_eq!(service.query_with(insert(id, "a"), fenced(5)).await.0, 200);
    let delete =
        json!({ "type": "delete", "table": "campaigns", "where": { "id": id }, "hard": true });
    let older = service.query_with(delete.clone(), fenced(4)).await;
    assert_eq!((older.0, code(&older.1)), (409, "conflict"));
    assert_eq!(older.1["error"]["details"]["reason"], "fenced");
    assert_eq!(service.query_with(delete, fenced(6)).await.0, 200);
    // The fence outlives the row.
    let older = service.query_with(insert(id, "again"), fenced(5)).await;
    assert_eq!(code(&older.1), "conflict");
    assert_eq!(service.stored().await, 0);
    service.remove().await;
}

async fn a_resolve_raises_the_fence(under: Under) {
    let service = Fixture::new(under).await;
    let id = Uuid::new_v4();
    let key = json!([id]).to_string();
    let raise = Headers::default().fence(&key, 9);
    let resolved = service.query_with(resolve(id, Uuid::new_v4()), raise).await;
    assert_eq!(resolved.0, 200, "{}", resolved.1);
    let older = Headers::default().attempt(Uuid::new_v4()).fence(&key, 8);
    let refused = service.query_with(insert(id, "a"), older).await;
    assert_eq!(code(&refused.1), "conflict");
    service.remove().await;
}

async fn batch_items_stand_for_themselves(under: Under) {
    let service = Fixture::new(under).await;
    let id = Uuid::new_v4();
    let item = |query: serde_json::Value, attempt: Uuid| json!({ "query": query, "attempt_id": attempt, "deadline": super::fixture::now_ms() + 5_000 });
    let first = Uuid::new_v4();
    let query = json!({ "type": "batch", "items": [
        item(insert(id, "a"), first),
        item(insert(id, "taken"), Uuid::new_v4()),
        item(insert(Uuid::new_v4(), "b"), Uuid::new_v4()),
        item(insert(id, "a"), first),
    ]});
    let (status, items) = service.query(query).await;
    assert_eq!(status, 200, "{items}");
    assert_eq!(items[0]["name"], "a");
    assert_eq!(code(&items[1]), "conflict");
    assert_eq!(items[2]["name"], "b");
    assert_eq!(items[3], items[0]);
    assert_eq!(service.stored().await, 2);
    service.remove().await;
}
