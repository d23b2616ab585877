//! What is written is read back, on real databases.

mod blueprint;
mod postgres;
mod sqlite;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Applied, Db, PoolOptions, TableSpec, introspect};
use crate::contract::{Operator, Reply, Row};
use crate::schema::{Change, Filter, Read, ReadKind, Schema, Sort, Table, Test};

/// A database on PostgreSQL, in a schema of its own that replaces one an earlier run left.
async fn postgres_schema(name: &str) -> Db {
    let url = std::env::var("CUTOVER_TEST_POSTGRES")
        .expect("set CUTOVER_TEST_POSTGRES to the URL of a PostgreSQL database for tests");
    let owner = Db::open(&url, &PoolOptions::default()).unwrap();
    owner
        .batch(&format!(
            "DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}"
        ))
        .await
        .unwrap();
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}options=-csearch_path%3D{name}");
    Db::open(&url, &PoolOptions::default()).unwrap()
}

fn sqlite_file(name: &str) -> Db {
    let path = std::env::temp_dir().join(format!("cutover-sql-{name}-{}.db", std::process::id()));
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", path.display());
        if std::path::Path::new(&file).exists() {
            std::fs::remove_file(file).unwrap();
        }
    }
    Db::open(
        &format!("sqlite://{}", path.display()),
        &PoolOptions::default(),
    )
    .unwrap()
}

async fn schema(db: &Db) -> Schema {
    introspect(db, &[]).await.unwrap()
}

async fn table(db: &Db, name: &str) -> Arc<Table> {
    let spec = TableSpec {
        name: name.to_owned(),
        ..TableSpec::default()
    };
    introspect(db, &[spec]).await.unwrap().tables[name].clone()
}

fn row(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        other => panic!("not a row: {other}"),
    }
}

fn insert(table: &Arc<Table>, rows: Vec<Value>, upsert: bool) -> Change {
    Change::Insert {
        table: table.clone(),
        rows: rows.into_iter().map(row).collect(),
        single: false,
        upsert,
    }
}

fn test(table: &Table, column: &str, operator: Operator, value: Value) -> Filter {
    Filter::Test(Test {
        column: table.column(column).unwrap(),
        operator,
        value,
    })
}

fn rows_where(table: &Arc<Table>, filter: Filter) -> Read {
    Read::whole_rows(table, filter, None)
}

async fn apply(db: &Db, change: &Change) -> Vec<Applied> {
    let mut tx = db.begin().await.unwrap();
    let applied = tx.apply(change).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

fn column_of(reply: &Reply, column: &str) -> Vec<Value> {
    let rows = reply.parse().unwrap();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[column].clone()).collect()
}

/// Writes a row, reads it, puts it into a second table of the same shape, and expects the same text.
async fn round_trip(db: &Db, source: &Arc<Table>, copy: &Arc<Table>, given: Value) -> String {
    let applied = apply(db, &insert(source, vec![given], false)).await;
    let [stored] = applied.as_slice() else {
        panic!("one row was inserted: {applied:?}")
    };
    let all = rows_where(source, Filter::All(Vec::new()));
    let reply = db.read(&all).await.unwrap();
    assert_eq!(reply.as_json(), format!("[{}]", stored.row));

    let by_key = db
        .rows_by_keys(source, std::slice::from_ref(&stored.key))
        .await
        .unwrap();
    let by_key: Vec<Applied> = by_key
        .into_iter()
        .map(|held| Applied {
            key: held.key,
            row: held.row,
        })
        .collect();
    assert_eq!(by_key, applied);

    // Twice: the second put updates.
    let image: Row = serde_json::from_str(&stored.row).unwrap();
    for _ in 0..2 {
        let mut tx = db.begin().await.unwrap();
        let put = tx
            .put_rows(copy, std::slice::from_ref(&image))
            .await
            .unwrap();
        assert_eq!(put, std::slice::from_ref(&stored.row));
        tx.commit().await.unwrap();
    }
    let copied = db
        .read(&rows_where(copy, Filter::All(Vec::new())))
        .await
        .unwrap();
    assert_eq!(copied, reply);

    let values: Vec<Value> = serde_json::from_str(&stored.key.0).unwrap();
    let canonical = db.canonical_keys(source, &[values]).await.unwrap();
    assert_eq!(canonical, std::slice::from_ref(&stored.key));
    let mut tx = db.begin().await.unwrap();
    let gone = tx.remove_keys(copy, &canonical).await.unwrap();
    assert_eq!(gone, canonical);
    tx.commit().await.unwrap();
    stored.row.clone()
}

/// The changes of the contract, on a table `items (id, name not null, note, amount, deleted_at)`.
async fn changes_keep_the_contract(db: &Db, items: &Arc<Table>) {
    let rows = vec![
        json!({"id": 3, "name": "c", "note": "x", "amount": 1.5}),
        json!({"id": 1, "name": "B"}),
        json!({"id": 2, "name": "a", "note": null, "amount": "NaN"}),
    ];
    let applied = apply(db, &insert(items, rows, false)).await;
    let keys: Vec<_> = applied.iter().map(|row| row.key.0.as_str()).collect();
    assert_eq!(keys, ["[3]", "[1]", "[2]"], "in the order given");
    assert!(
        applied[1].row.contains("\"note\":\"none\""),
        "a default, not NULL"
    );
    assert!(applied[2].row.contains("\"note\":null"));

    // A partial upsert of a row that exists, of two column sets at once.
    let rows = r#"[{"id": 3, "note": "y"}, {"id": 4, "name": "d", "amount": 12345678901234567890.25},
        {"id": 1, "note": "z"}]"#;
    let rows: Vec<Value> = serde_json::from_str(rows).unwrap();
    let applied = apply(db, &insert(items, rows, true)).await;
    let keys: Vec<_> = applied.iter().map(|row| row.key.0.as_str()).collect();
    assert_eq!(keys, ["[3]", "[4]", "[1]"]);
    assert!(applied[0].row.contains("\"name\":\"c\",\"note\":\"y\""));
    assert!(applied[1].row.contains("12345678901234567890.25"));

    // Upper case sorts first by code point; NULLs last ascending and first descending.
    let mut by_name = rows_where(items, Filter::All(Vec::new()));
    let ReadKind::Rows { order, .. } = &mut by_name.kind else {
        panic!("rows")
    };
    order[0].column = items.column("name").unwrap();
    let reply = db.read(&by_name).await.unwrap();
    assert_eq!(column_of(&reply, "name"), ["B", "a", "c", "d"]);
    for (descending, ids) in [(false, [3, 4, 2, 1]), (true, [1, 2, 4, 3])] {
        let ReadKind::Rows { order, .. } = &mut by_name.kind else {
            panic!("rows")
        };
        order[0] = Sort {
            column: items.column("amount").unwrap(),
            descending,
        };
        let reply = db.read(&by_name).await.unwrap();
        assert_eq!(column_of(&reply, "id"), ids, "descending: {descending}");
    }

    filters_select(db, items).await;
    updates_and_deletes(db, items).await;
}

async fn updates_and_deletes(db: &Db, items: &Arc<Table>) {
    // An update answers in key order and can move a key.
    let update = Change::Update {
        table: items.clone(),
        filter: test(items, "id", Operator::In, json!([4, 2])),
        set: row(json!({"note": "u"})),
        single: false,
    };
    let applied = apply(db, &update).await;
    let keys: Vec<_> = applied.iter().map(|row| row.key.0.as_str()).collect();
    assert_eq!(keys, ["[2]", "[4]"]);
    let delete = Change::Delete {
        table: items.clone(),
        filter: Filter::Keys(vec![vec![json!(4)]]),
        single: true,
    };
    let applied = apply(db, &delete).await;
    assert!(applied[0].row.contains("\"note\":\"u\""), "as it was");
    assert_eq!(
        super::reply_of(&delete, apply(db, &delete).await).as_json(),
        "null"
    );
    let soft = Change::SoftDelete {
        table: items.clone(),
        filter: Filter::Keys(vec![vec![json!(1)], vec![json!(2)]]),
        single: false,
    };
    for stored in apply(db, &soft).await {
        let stored: Value = serde_json::from_str(&stored.row).unwrap();
        assert_eq!(stored["deleted_at"].as_str().unwrap().len(), 27);
    }
    let count = Read {
        table: items.clone(),
        kind: ReadKind::Count,
        filter: test(items, "deleted_at", Operator::IsNull, json!(false)),
    };
    assert_eq!(db.read(&count).await.unwrap().as_json(), r#"{"count":2}"#);
}

async fn filters_select(db: &Db, items: &Arc<Table>) {
    let amount = |operator, value| test(items, "amount", operator, value);
    let like = |pattern: &str| test(items, "name", Operator::Like, json!(pattern));
    let cases = [
        (Filter::Any(Vec::new()), vec![]),
        (Filter::After(vec![json!(2)]), vec![3, 4]),
        (
            Filter::Keys(vec![vec![json!(4)], vec![json!(1)], vec![json!(9)]]),
            vec![1, 4],
        ),
        (like("b"), vec![]),
        (like("B%"), vec![1]),
        (test(items, "note", Operator::IsNull, json!(true)), vec![2]),
        (test(items, "name", Operator::Lt, json!("a")), vec![1]),
        (amount(Operator::Eq, json!(1.50)), vec![3]),
        (amount(Operator::Gt, json!(10)), vec![2, 4]),
        (amount(Operator::In, json!(["NaN", 1.5])), vec![2, 3]),
        (Filter::Not(Box::new(like("%"))), vec![]),
    ];
    for (filter, ids) in cases {
        let keys = db.keys_matching(items, &filter, 10).await.unwrap();
        let wanted: Vec<_> = ids.iter().map(|id| format!("[{id}]")).collect();
        assert_eq!(
            keys.iter().map(|key| key.0.clone()).collect::<Vec<_>>(),
            wanted,
            "{filter:?}"
        );
        let reply = db.read(&rows_where(items, filter)).await.unwrap();
        assert_eq!(column_of(&reply, "id"), ids);
    }
}
