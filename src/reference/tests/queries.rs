//! The contract, as far as it is the service's own doing.

use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, Headers, Under, code, insert, under_both};
use crate::storage::Capability;

under_both![
    the_plans_own_client_is_served,
    a_transaction_is_all_or_nothing,
    a_range_walks_the_table_in_key_order,
    a_soft_deleted_row_is_kept_and_skipped,
    a_table_made_later_is_found,
    a_table_is_described_as_its_database_enforces_it,
    the_same_ddl_runs_once,
    what_is_switched_off_is_unsupported,
];

async fn the_plans_own_client_is_served(under: Under) {
    let service = Fixture::new(under).await;
    let keyless = json!({ "type": "insert", "table": "campaigns", "data": { "name": "a" } });
    let (status, row) = service.query(keyless).await;
    assert_eq!(status, 200, "{row}");
    let select = json!({ "type": "select", "table": "campaigns", "where": { "id": row["id"] } });
    assert_eq!(service.query(select).await, (200, json!([row])));
    let other = service
        .post(
            "/query",
            r#"{"db":"other","query":{"type":"count","table":"campaigns"}}"#.to_owned(),
        )
        .await;
    assert_eq!((other.0, code(&other.1)), (400, "unknown_db"));
    let nowhere = service.post("/nowhere", String::new()).await;
    assert_eq!((nowhere.0, code(&nowhere.1)), (404, "not_found"));
    service.remove().await;
}

async fn a_table_is_described_as_its_database_enforces_it(under: Under) {
    let service = Fixture::new(under).await;
    let describe = |table: &str| json!({ "type": "describe", "table": table });
    let (status, tags) = service.query(describe("tags")).await;
    assert_eq!(status, 200, "{tags}");
    assert_eq!(tags["primary_key"], json!(["id"]));
    assert_eq!(tags["unique"], json!([["label"]]));
    let refers = json!({
        "columns": ["campaign_id"], "table": "campaigns", "target": ["id"], "on_delete": "refuse",
    });
    assert_eq!(tags["foreign_keys"], json!([refers]));
    let label = &tags["columns"][1];
    assert_eq!(
        (&label["name"], &label["holds"], &label["nullable"]),
        (&json!("label"), &json!("text"), &json!(false))
    );
    let create = "CREATE TABLE later (id integer PRIMARY KEY, amount numeric(12,4))";
    service.db.batch(create).await.unwrap();
    let (_, later) = service.query(describe("later")).await;
    let amount = &later["columns"][1];
    match under {
        Under::Postgres => assert_eq!(
            (&amount["holds"], &amount["limits"]),
            (&json!("numeric"), &json!([12, 4]))
        ),
        Under::Sqlite => assert_eq!(amount["holds"], "float64", "it rounds"),
    }
    let (_, none) = service.query(describe("nothing")).await;
    assert_eq!(code(&none), "unknown_table");
    service.remove().await;
}

async fn a_transaction_is_all_or_nothing(under: Under) {
    let service = Fixture::new(under).await;
    let id = Uuid::new_v4();
    let twice = json!({ "type": "transaction", "queries": [insert(id, "a"), insert(id, "b")] });
    let refused = service
        .query_with(twice, Headers::default().attempt(Uuid::new_v4()))
        .await;
    assert_eq!((refused.0, code(&refused.1)), (409, "conflict"));
    assert_eq!(service.stored().await, 0);
    let both =
        json!({ "type": "transaction", "queries": [insert(id, "a"), insert(Uuid::new_v4(), "b")] });
    let (status, replies) = service.query(both).await;
    assert_eq!(status, 200, "{replies}");
    assert_eq!(replies[1]["name"], "b");
    assert_eq!(service.stored().await, 2);
    service.remove().await;
}

async fn a_range_walks_the_table_in_key_order(under: Under) {
    let service = Fixture::new(under).await;
    let mut ids: Vec<_> = (0..5).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        service.query(insert(*id, "a")).await;
    }
    ids.sort();
    let (mut walked, mut after) = (Vec::new(), json!(null));
    loop {
        let range = json!({ "type": "range", "table": "campaigns", "after": after, "limit": 2 });
        let (status, page) = service.query(range).await;
        assert_eq!(status, 200, "{page}");
        walked.extend(
            page["rows"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].clone()),
        );
        if page["next"].is_null() {
            break;
        }
        after = page["next"].clone();
    }
    assert_eq!(json!(walked), json!(ids));
    service.remove().await;
}

async fn a_soft_deleted_row_is_kept_and_skipped(under: Under) {
    let service = Fixture::new(under).await;
    let id = Uuid::new_v4();
    service.query(insert(id, "a")).await;
    let delete = json!({ "type": "delete", "table": "campaigns", "where": { "id": id } });
    let (_, row) = service.query(delete).await;
    assert!(row["deleted_at"].is_string(), "{row}");
    let count = json!({ "type": "count", "table": "campaigns" });
    assert_eq!(service.query(count).await.1, json!({ "count": 0 }));
    let again = service.query(insert(id, "again")).await;
    assert_eq!(code(&again.1), "conflict");
    assert_eq!(service.stored().await, 1);
    service.remove().await;
}

async fn a_table_made_later_is_found(under: Under) {
    let service = Fixture::new(under).await;
    let count = json!({ "type": "count", "table": "notes" });
    let made = "CREATE TABLE notes (id uuid PRIMARY KEY, note text)";
    service.db.batch(made).await.unwrap();
    assert_eq!(service.query(count).await, (200, json!({ "count": 0 })));
    service.remove().await;
}

async fn the_same_ddl_runs_once(under: Under) {
    let service = Fixture::new(under).await;
    service.query(insert(Uuid::new_v4(), "a")).await;
    let again = service.start_again().await;
    let count = json!({ "type": "count", "table": "campaigns" });
    assert_eq!(again.query(count).await.1, json!({ "count": 1 }));
    again.remove().await;
}

async fn what_is_switched_off_is_unsupported(under: Under) {
    let without = [Capability::Operators, Capability::AttemptId];
    let service = Fixture::without(under, &without).await;
    let select =
        json!({ "type": "select", "table": "campaigns", "where": { "name": { "ne": "a" } } });
    let refused = service.query(select).await;
    assert_eq!((refused.0, code(&refused.1)), (400, "unsupported"));
    // A service that does not know attempts takes every send for a new one.
    let keyless = json!({ "type": "insert", "table": "campaigns", "data": { "name": "a" } });
    let headers = Headers::default().attempt(Uuid::new_v4());
    service.query_with(keyless.clone(), headers.clone()).await;
    service.query_with(keyless, headers).await;
    assert_eq!(service.stored().await, 2);
    service.remove().await;
}
