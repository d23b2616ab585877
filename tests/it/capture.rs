//! What the capture triggers see: everything a statement does not show, and every type, arriving on the
//! other side as it is.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{World, WorldOptions};

const SOON: Duration = Duration::from_secs(20);

/// A schema that was not made for the proxy.
const DDL: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
CREATE DOMAIN percent AS numeric(5,2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE TABLE kinds (
  id uuid PRIMARY KEY, t text, v varchar(20), c char(6), b bool, i2 int2, i4 int4, i8 int8,
  n numeric, n40 numeric(40,10), f4 float4, f8 float8, j json, jb jsonb, tz timestamptz, ts timestamp,
  d date, tm time, iv interval, by bytea, m mood, p percent, ia int4[], ta text[], ip inet,
  doubled int4 GENERATED ALWAYS AS (i4 * 2) STORED
);
CREATE TABLE parents (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE children (
  id serial PRIMARY KEY,
  parent bigint REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE,
  note text NOT NULL DEFAULT 'none'
);
CREATE TABLE slots (place text PRIMARY KEY, holder int UNIQUE);
CREATE TABLE nodes (id int PRIMARY KEY, up int REFERENCES nodes, label text);
CREATE TABLE places (region text, id int, name text, PRIMARY KEY (region, id));
"#;

/// Only legacy has it: what it does must arrive as a row, not be done again.
const TRIGGER: &str = r#"
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.label := upper(NEW.label) || ' ' || clock_timestamp()::text; RETURN NEW; END $$;
CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION shout();
"#;

const TABLES: [&str; 6] = ["kinds", "parents", "children", "slots", "nodes", "places"];

async fn world() -> World {
    let tables = TABLES.map(|name| format!("[[tables]]\nname = \"{name}\"\n"));
    let world = World::build(WorldOptions {
        ddl: DDL.to_owned(),
        tables: tables.concat(),
        ..WorldOptions::default()
    })
    .await;
    world.legacy.execute(TRIGGER).await;
    world.advance_to("dual_write").await;
    world
}

async fn same_everywhere(world: &World) {
    for table in TABLES {
        world.settles(table, SOON).await;
        world.assert_same_rows(table).await;
    }
}

fn every_kind() -> Value {
    // Numbers that do not survive a float are given as text and parsed with every digit.
    let text = r#"{
      "id": "7d1f1a52-6b0f-4b0e-9a5e-0d4c2f1d9b11", "t": "naïve \"quoted\" \\ ☃", "v": "varying", "c": "pad",
      "b": true, "i2": -32768, "i4": 1073741823, "i8": 9223372036854775807,
      "n": 1234567890123456789012345678901234567890.5, "n40": 123456789012345678901234567890.0123456789,
      "f4": 0.1, "f8": 1e-300, "j": {"b": 1, "a": [1, 2.50]}, "jb": {"b": 1, "a": [true, null]},
      "tz": "2025-01-02T03:04:05.678901+02:00", "ts": "2025-01-02T03:04:05.678901", "d": "2025-01-02",
      "tm": "03:04:05.678901", "iv": "P1Y2M3DT4H5M6.789S", "by": "AAEC/w==", "m": "glad", "p": 99.99,
      "ia": [1, null, 3], "ta": ["a", "b,c", "d\"e"], "ip": "10.0.0.0/8"
    }"#;
    serde_json::from_str(text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_is() {
    let world = world().await;
    let proxy = &world.proxies[0];
    let row = every_kind();
    let stored = proxy
        .query(json!({"type": "insert", "table": "kinds", "data": row}))
        .await
        .ok();
    for (name, digits) in [
        ("n", "1234567890123456789012345678901234567890.5"),
        ("n40", "123456789012345678901234567890.0123456789"),
        ("i8", "9223372036854775807"),
    ] {
        assert_eq!(stored[name].to_string(), digits, "{name} keeps every digit");
    }
    assert_eq!(stored["tz"], "2025-01-02T01:04:05.678901Z");
    assert_eq!(stored["c"], "pad   ");
    assert_eq!(stored["doubled"], json!(2_147_483_646), "{stored}");
    same_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_does_not_show_arrives_too() {
    let world = world().await;
    let proxy = &world.proxies[0];
    let insert = |table: &str, data: Value| json!({"type": "insert", "table": table, "data": data});

    // Identity, serial, defaults; a BEFORE trigger; a self-reference.
    let parent = proxy
        .query(insert("parents", json!({"name": "p"})))
        .await
        .ok();
    let id = parent["id"].clone();
    for _ in 0..3 {
        proxy
            .query(insert("children", json!({"parent": id})))
            .await
            .ok();
    }
    let root = proxy
        .query(insert("nodes", json!({"id": 1, "label": "root"})))
        .await
        .ok();
    assert!(
        root["label"].as_str().unwrap().starts_with("ROOT "),
        "{root}"
    );
    proxy
        .query(insert(
            "nodes",
            json!([{"id": 3, "up": 1, "label": "x"}, {"id": 2, "up": 3, "label": "y"}]),
        ))
        .await
        .ok();
    same_everywhere(&world).await;

    // A cascade: the reply names one row, four are gone.
    let delete = json!({"type": "delete", "table": "parents", "where": {"id": id}});
    proxy.query(delete).await.ok();
    assert_eq!(
        world.legacy.number("SELECT count(*) FROM children").await,
        0
    );
    same_everywhere(&world).await;

    // A key change is a tombstone and a put.
    proxy
        .query(insert(
            "places",
            json!({"region": "eu", "id": 1, "name": "old"}),
        ))
        .await
        .ok();
    let moved = json!({"type": "update", "table": "places", "where": {"region": "eu", "id": 1}, "data": {"id": 2}});
    assert_eq!(proxy.query(moved).await.ok()["id"], 2);
    same_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_values_may_change_hands() {
    let world = world().await;
    let proxy = &world.proxies[0];
    let rows = json!([{"place": "a", "holder": 1}, {"place": "b", "holder": 2}, {"place": "c", "holder": 3}]);
    proxy
        .query(json!({"type": "insert", "table": "slots", "data": rows}))
        .await
        .ok();
    same_everywhere(&world).await;
    let set = |place: &str, holder: Value| json!({"type": "update", "table": "slots", "where": {"place": place}, "data": {"holder": holder}});
    let swap = json!({"type": "transaction", "queries": [set("a", Value::Null), set("b", json!(1)), set("a", json!(2))]});
    proxy.query(swap).await.ok();
    same_everywhere(&world).await;
    let rotate = json!({"type": "transaction", "queries": [
        set("a", Value::Null), set("b", Value::Null), set("c", json!(1)), set("a", json!(3)), set("b", json!(2)),
    ]});
    proxy.query(rotate).await.ok();
    same_everywhere(&world).await;
}
