//! What a verify finds: planted differences of every kind, by their names, and nothing else.

use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::campaigns::{insert, key, rename, select};
use crate::fixture::{Proxy, Wiring, World, WorldOptions, eventually, kinds, shop};

const SOON: Duration = Duration::from_secs(60);

/// What is changed in storage, past the service, and what each is to be called: table, kind, fields, rows.
const PLANTED: [(&str, &str, &str, &str, i64); 9] = [
    (
        "DELETE FROM events WHERE id IN (5, 900)",
        "events",
        "missing",
        "",
        2,
    ),
    (
        "INSERT INTO coupons VALUES ('aa', 1)",
        "coupons",
        "extra",
        "",
        1,
    ),
    (
        "INSERT INTO events (id, kind) SELECT 1000000 + i, 'beyond' FROM generate_series(1, 1700) i",
        "events",
        "extra",
        "",
        1700,
    ),
    (
        "UPDATE payments SET invoice = 999999 WHERE invoice = 7",
        "payments",
        "orphan",
        "invoice",
        1,
    ),
    (
        "DELETE FROM order_lines WHERE for_order = 3",
        "order_lines",
        "missing",
        "",
        2,
    ),
    ("SELECT 1", "shipment_lines", "orphan", "for_order,line", 1),
    (
        "UPDATE customers SET deleted_at = NULL, feeling = 'sad' WHERE mail = 'c7@example.org'",
        "customers",
        "soft_delete",
        "",
        1,
    ),
    (
        "UPDATE customers SET version = 0, feeling = NULL WHERE mail IN ('c1@example.org', 'c2@example.org')",
        "customers",
        "version",
        "",
        2,
    ),
    (
        "UPDATE customers SET version = 2 WHERE mail = 'c3@example.org'",
        "customers",
        "version_ahead",
        "version",
        1,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn planted_differences_of_every_kind_and_type_are_found_named_and_repaired() {
    let world = World::build(WorldOptions {
        ddl: format!("{}\n{}\n{}", shop::DDL, shop::rows(120), kinds::ddl()),
        tables: format!("{}{}", shop::config(), kinds::CONFIG),
        config: "[compare]\nrecheck_delay = \"10ms\"\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    let proxy = &world.proxies[0];
    let (status, said) = proxy.operate(&["backfill", "--reason", "test"]).await;
    assert!(status.success(), "{said}");
    let figures = r#"cutover_backfill_rows{state="done",table="events"} 1200"#;
    proxy.shows(figures, SOON).await;

    // As a bug or a person would: no foreign key stops it.
    let mut sql = "SET session_replication_role = replica;".to_owned();
    sql += &PLANTED.map(|(sql, ..)| sql).join(";\n");
    sql += ";\n";
    sql += &kinds::change_each();
    sql += "SET session_replication_role = origin;";
    world.storage_database.execute(&sql).await;

    let (status, report) = verify(proxy, &["--json"]).await;
    assert_eq!(status.code(), Some(1), "{report:#}");
    for (_, table, kind, fields, rows) in PLANTED {
        let named = format!(
            "SELECT count(*) FROM cutover.divergences WHERE tbl = '{table}' AND kind = '{kind}' \
             AND (fields = '{fields}' OR '{fields}' = '')"
        );
        let all = PLANTED
            .iter()
            .filter(|(_, t, k, ..)| (*t, *k) == (table, kind));
        let all: i64 = all.map(|(.., rows)| rows).sum();
        assert_eq!(
            world.legacy.number(&named).await,
            all,
            "{rows} {kind} of {table}: {report:#}"
        );
        assert_eq!(of(&report, table)[kind], all, "{report:#}");
        let counted =
            format!("cutover_divergences_total{{kind=\"{kind}\",table=\"{table}\"}} {all}");
        proxy.shows(&counted, SOON).await;
    }
    let fields = "SELECT fields FROM cutover.divergences WHERE tbl = 'kinds' AND kind = 'field' ORDER BY key::jsonb";
    let changed = kinds::COLUMNS.map(|(name, ..)| name.to_owned());
    assert_eq!(world.legacy.texts(fields).await, changed);
    let planted: i64 = PLANTED.iter().map(|(.., rows)| rows).sum();
    let found = world
        .legacy
        .number("SELECT count(*) FROM cutover.divergences")
        .await;
    assert_eq!(found, planted + kinds::COLUMNS.len() as i64, "nothing else");

    let (status, report) = verify(proxy, &["--repair", "--json"]).await;
    assert_eq!(status.code(), Some(1), "{report:#}");
    for table in shop::TABLES.into_iter().chain(["kinds"]) {
        world.settles(table, SOON).await;
    }
    let (status, report) = verify(proxy, &["--json"]).await;
    assert!(status.success() && report["recorded"] == true, "{report:#}");
    let stale = "SELECT count(*) FROM cutover.state WHERE storage_stale";
    assert_eq!(world.legacy.number(stale).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_ranges_is_verified_as_far_as_it_can_be_and_never_vouched_for() {
    let world = World::build(WorldOptions {
        without: vec!["ranges"],
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    proxy.query(insert("two", "Summer")).await.ok();
    world.settles("campaigns", SOON).await;
    let unseen =
        "INSERT INTO campaigns (id, name) VALUES (gen_random_uuid(), 'nobody asks for it')";
    world.storage_database.execute(unseen).await;

    let (status, said) = proxy.operate(&["verify", "--reason", "test"]).await;
    assert_eq!(status.code(), Some(1), "{said}");
    for told in ["not checked: rows that only storage has", "not on record"] {
        assert!(said.contains(told), "{said}");
    }
    let changed = format!(
        "UPDATE campaigns SET name = 'x' WHERE id = '{}'",
        key("one")
    );
    world.storage_database.execute(&changed).await;
    let (_, report) = verify(proxy, &["--json"]).await;
    assert_eq!(
        (&report["clean"], &of(&report, "campaigns")["field"]),
        (&json!(false), &json!(1))
    );
    let stale = "SELECT count(*) FROM cutover.state WHERE storage_stale";
    assert_eq!(world.legacy.number(stale).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_time_without_legacy_in_ramp_down_a_repair_makes_a_rollback_possible_again() {
    let mut world = World::build(WorldOptions {
        wiring: Wiring::Lines,
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.advance_to("ramp_down").await;
    world.proxies[0].query(insert("two", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;
    world.lines[0].legacy.cut();
    for number in 0..20 {
        let missed = insert(&format!("missed {number}"), "Summer");
        world.proxies[0].query(missed).await.ok();
    }
    world.proxies[0].query(rename("one", "Autumn")).await.ok();
    // What it would still have told legacy dies with it.
    world.proxies[0].process.kill();
    world.lines[0].legacy.mend();
    world.proxies[0].restart().await;
    let proxy = &world.proxies[0];
    eventually("legacy is known to lack writes", SOON, async || {
        let status = proxy.status().await;
        (status["legacy_stale"] == true).then_some(()).ok_or(status)
    })
    .await;
    let refused = proxy.rollback().await;
    assert!(!refused.status.is_success(), "{}", refused.body);

    let (_, report) = verify(proxy, &["--repair", "--json"]).await;
    let campaigns = of(&report, "campaigns");
    let told = ["missing", "field", "repaired"].map(|name| campaigns[name].as_u64());
    assert_eq!(told, [Some(20), Some(1), Some(21)], "{report:#}");
    world.settles("campaigns", SOON).await;
    let (status, report) = verify(proxy, &["--json"]).await;
    assert!(status.success() && report["recorded"] == true, "{report:#}");
    eventually("a rollback is safe", SOON, async || {
        let status = proxy.status().await;
        (status["rollback"]["safe"] == true)
            .then_some(())
            .ok_or(status)
    })
    .await;
    proxy.rollback().await.ok();
    let read = proxy.query(select("one")).await;
    assert_eq!(read.header("x-cutover-backend"), "legacy");
    assert_eq!(read.ok()[0]["name"], "Autumn");
    let rows = proxy
        .query(json!({"type": "count", "table": "campaigns"}))
        .await;
    assert_eq!(rows.ok()["count"], 22);
}

/// `cutover verify`, with the report where it is asked for as JSON.
async fn verify(proxy: &Proxy, args: &[&str]) -> (ExitStatus, Value) {
    let (status, said) = proxy
        .operate(&[&["verify", "--reason", "test"], args].concat())
        .await;
    // The last one: the log has what was said before as well.
    let report = &said[said.rfind("\n{\n").unwrap_or(0)..];
    (
        status,
        serde_json::from_str(report).unwrap_or(Value::String(said)),
    )
}

/// A table's part of a report.
fn of<'a>(report: &'a Value, table: &str) -> &'a Value {
    let tables = report["tables"].as_array();
    let tables = tables.unwrap_or_else(|| panic!("no report: {report}"));
    tables
        .iter()
        .find(|one| one["table"] == table)
        .expect("its part")
}
