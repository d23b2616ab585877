//! What `blueprint` prints makes the same tables again.

use super::*;
use crate::sql::{Blueprint, blueprint};

/// The schema that the integration tests move.
const SHOP: &str = include_str!("../../../tests/it/fixture/shop.sql");

#[tokio::test]
async fn postgres_tables_are_made_again_in_another_database() {
    let (server, names) = databases(["bluefrom", "blueto"]).await;
    let [from, to] = names.each_ref().map(|(_, db)| db);
    from.batch(SHOP).await.unwrap();
    let wanted = schema(from).await;
    let made = blueprint(from, &wanted).await.unwrap();
    to.batch(&made.to_string()).await.unwrap();
    let found = schema(to).await;
    assert_eq!(wanted.tables.len(), 18);
    assert_eq!(found.tables.len(), 18);
    for (name, table) in &wanted.tables {
        let made = &found.tables[name];
        assert_eq!(shape(table), shape(made), "{name}");
        assert_eq!(table.key, made.key, "{name}");
        let sorted = |table: &Table| {
            let mut unique = table.unique.clone();
            unique.sort();
            unique
        };
        assert_eq!(sorted(table), sorted(made), "{name}");
    }
    circles_are_for_later(&made, &found);
    assert_eq!(made.left_out.len(), 1, "{made}");
    assert!(made.left_out[0].contains("is_code"), "{made}");
    for statement in &made.later {
        to.batch(statement).await.unwrap();
    }
    assert!(
        made.to_string().contains("START WITH 1000 INCREMENT BY 5"),
        "{made}"
    );
    for (name, db) in &names {
        db.close().await;
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        server.batch(&drop).await.unwrap();
    }
}

#[tokio::test]
async fn what_legacy_never_checked_is_left_out_and_types_come_with_all_they_are() {
    let (server, names) = databases(["oddfrom", "oddto"]).await;
    let [from, to] = names.each_ref().map(|(_, db)| db);
    from.batch(
        "CREATE TYPE span AS RANGE (SUBTYPE = float8); CREATE DOMAIN five AS int DEFAULT 5; \
         CREATE TABLE a (id int PRIMARY KEY, n five, s span_multirange); INSERT INTO a VALUES (1, -1); \
         CREATE TABLE b (id int PRIMARY KEY, a int); INSERT INTO b VALUES (1, 7); \
         ALTER TABLE a ADD CONSTRAINT positive CHECK (n > 0) NOT VALID; \
         ALTER TABLE b ADD CONSTRAINT to_a FOREIGN KEY (a) REFERENCES a NOT VALID",
    )
    .await
    .unwrap();
    let made = blueprint(from, &schema(from).await).await.unwrap();
    to.batch(&made.to_string()).await.unwrap();
    to.batch("INSERT INTO a (id) VALUES (1); INSERT INTO b VALUES (1, 7)")
        .await
        .unwrap();
    let filled = to.fetch("SELECT n::int8 FROM a", vec![]).await.unwrap();
    assert_eq!(filled[0].some_int(0).unwrap(), 5);
    assert_eq!(made.left_out.len(), 2, "{made}");
    for (name, db) in &names {
        db.close().await;
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        server.batch(&drop).await.unwrap();
    }
}

fn circles_are_for_later(made: &Blueprint, found: &Schema) {
    let mut later: Vec<&str> = made
        .later
        .iter()
        .filter_map(|statement| statement.split_whitespace().nth(5))
        .collect();
    later.sort_unstable();
    assert_eq!(later.len(), 3, "{later:?}");
    assert_eq!(
        [later[0], later[2]],
        ["categories_parent_fkey", "staff_chief_fkey"]
    );
    assert!(found.tables["categories"].references.is_empty());
    assert_eq!(found.tables["shipment_lines"].references.len(), 2);
}

/// What a column is, but for who gives its value: legacy's identities are by default in storage.
fn shape(table: &Table) -> Vec<(String, String, bool, bool)> {
    let of = |column: &crate::schema::Column| {
        (
            column.name.clone(),
            column.sql_type.clone(),
            column.nullable,
            column.has_default,
        )
    };
    table.columns.iter().map(of).collect()
}

async fn databases(names: [&str; 2]) -> (Db, [(String, Db); 2]) {
    let url = std::env::var("CUTOVER_TEST_POSTGRES").expect("set CUTOVER_TEST_POSTGRES");
    let server = Db::open(&url, &PoolOptions::default()).unwrap();
    let (base, _) = url.rsplit_once('/').unwrap();
    let mut made = Vec::new();
    for name in names {
        let name = format!("{name}_{}", uuid::Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name}");
        server.batch(&create).await.unwrap();
        let db = Db::open(&format!("{base}/{name}"), &PoolOptions::default()).unwrap();
        made.push((name, db));
    }
    (server, made.try_into().ok().unwrap())
}

#[tokio::test]
async fn sqlite_tables_are_made_again_parents_first() {
    let (from, to) = (sqlite_file("blue-from"), sqlite_file("blue-to"));
    from.batch(
        "CREATE TABLE a_child (id INTEGER PRIMARY KEY, parent TEXT REFERENCES b_parent); \
         CREATE TABLE b_parent (code TEXT PRIMARY KEY, me TEXT REFERENCES b_parent) WITHOUT ROWID; \
         CREATE UNIQUE INDEX one_each ON a_child (parent);",
    )
    .await
    .unwrap();
    let wanted = schema(&from).await;
    let made = blueprint(&from, &wanted).await.unwrap();
    to.batch(&made.to_string()).await.unwrap();
    let found = schema(&to).await;
    assert_eq!(wanted.tables["a_child"], found.tables["a_child"]);
    assert_eq!(wanted.tables["b_parent"], found.tables["b_parent"]);
    assert!(made.statements[0].starts_with("CREATE TABLE b_parent"));
    assert!(made.left_out[0].contains("closes a circle"), "{made}");
}
