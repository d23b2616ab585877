//! Columns and tables come and go in the middle of the weeks, while callers read and write.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::campaigns::{insert, key, remove};
use crate::fixture::history::assert_holds;
use crate::fixture::load::Load;
use crate::fixture::{Signal, StorageKind, World, WorldOptions, eventually, kinds};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_and_go_under_traffic_in_dual_write_shadow_and_live() {
    let world = World::build(two_replicas()).await;
    world.advance_to("dual_write").await;
    let load = Load::start(&world, true).await;
    for stage in ["dual_write", "shadow", "live"] {
        world.advance_to(stage).await;
        let (price, cost) = (format!("price_{stage}"), format!("cost_{stage}"));
        comes(&world, &price).await;
        let gone = if stage == "live" {
            // There a new name is a new column; callers fill it, and the old one goes.
            comes(&world, &cost).await;
            goes(&world, &cost).await;
            price
        } else {
            is_renamed(&world, &price, &cost).await;
            cost
        };
        goes(&world, &gone).await;
    }
    let told = load.stop().await;
    assert!(told.writes() > 100, "{} writes", told.writes());
    assert!(told.failed_reads.is_empty(), "{:?}", told.failed_reads);
    assert!(
        told.failed_writes().is_empty(),
        "{:?}",
        told.failed_writes()
    );
    assert_eq!(told.stale_reads, [""; 0]);
    world.settles("campaigns", SOON).await;
    assert_holds(&world.legacy, &told.histories).await;
    nothing_diverged(&world).await;
    assert_eq!(world.proxies[1].status().await["stage"], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_storage_lacks_is_drift_blocks_the_advance_and_loses_nothing() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    let proxy = &world.proxies[0];
    world
        .legacy
        .execute("ALTER TABLE campaigns ADD COLUMN price integer")
        .await;
    is_written(&world, 0, "price").await;
    let (status, said) = proxy.operate(&["schema", "--diff"]).await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("storage lacks column price"), "{said}");
    proxy
        .shows(
            r#"cutover_schema_drift{kind="missing_column",table="campaigns"} 1"#,
            SOON,
        )
        .await;
    world.verified().await;
    let refused = proxy.stage("shadow", false).await;
    assert!(
        refused.body.to_string().contains("schema_drift"),
        "{}",
        refused.body
    );
    let quarantined = &proxy.status().await["journal"]["quarantined"];
    assert_eq!(quarantined, 0, "what storage has no place for waits");
    world
        .storage_database
        .execute("ALTER TABLE campaigns ADD COLUMN price integer")
        .await;
    agrees(&world, 0).await;
    world.settles("campaigns", SOON).await;
    let (status, said) = proxy.operate(&["schema", "--diff", "--json"]).await;
    assert_eq!(status.code(), Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_storage_is_stricter_in_blocks_an_advance_and_what_it_is_looser_in_is_told() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.verified().await;
    let proxy = &world.proxies[0];
    let strict = "ALTER TABLE campaigns ALTER name TYPE varchar(10), ALTER description SET NOT NULL, \
                  ADD CONSTRAINT names UNIQUE (name)";
    world.storage_database.execute(strict).await;
    for (kind, column) in [
        ("type", "name"),
        ("not_null", "description"),
        ("unique", "name"),
    ] {
        differs(&world, 0, kind, column).await;
        let shown = format!("cutover_schema_drift{{kind=\"{kind}\",table=\"campaigns\"}} 1");
        proxy.shows(&shown, SOON).await;
    }
    let (status, said) = proxy.operate(&["schema", "--diff"]).await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains(
            "character varying(10) of storage does not hold all that text of legacy does"
        ),
        "{said}"
    );
    let refused = proxy.stage("shadow", false).await.body.to_string();
    assert!(refused.contains("schema_drift"), "{refused}");

    let loose = "ALTER TABLE campaigns ALTER name TYPE text, ALTER description DROP NOT NULL, \
                 DROP CONSTRAINT names, ALTER name DROP NOT NULL";
    world.storage_database.execute(loose).await;
    differs(&world, 0, "looser", "name").await;
    eventually("only that", SOON, async || {
        let (status, said) = proxy.operate(&["schema", "--diff"]).await;
        status.success().then_some(()).ok_or(said)
    })
    .await;
    let answer = proxy.stage("shadow", false).await.body.to_string();
    assert!(!answer.contains("schema_drift"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_types_in_the_words_of_another_database_are_no_drift() {
    let world = World::build(WorldOptions {
        ddl: kinds::ddl(),
        tables: kinds::CONFIG.to_owned(),
        stored: StorageKind::Sqlite(kinds::ON_SQLITE),
        ..WorldOptions::default()
    })
    .await;
    agrees(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_describe_shows_tables_and_columns() {
    let world = World::build(WorldOptions {
        without: vec!["describe"],
        ..WorldOptions::default()
    })
    .await;
    let strict = "ALTER TABLE campaigns ALTER name TYPE varchar(10), ADD COLUMN price integer";
    world.storage_database.execute(strict).await;
    let insert = insert("one", "Spring");
    world.storage.query(&insert).await.ok();
    differs(&world, 0, "extra_column", "price").await;
    let found = world.proxies[0].admin().get("/admin/schema").await;
    let found = found.expect("the admin plane answers").ok();
    assert_eq!(found["drift"].as_array().map(Vec::len), Some(1), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_joins_is_pending_until_it_was_filled_and_verified() {
    let mut world = World::build(two_replicas()).await;
    world.advance_to("shadow").await;
    let notes = "CREATE TABLE notes (id integer PRIMARY KEY, text text)";
    world.storage_database.execute(notes).await;
    world.legacy.execute(notes).await;
    world
        .legacy
        .execute("INSERT INTO notes SELECT i, 'old' FROM generate_series(1, 50) i")
        .await;
    for number in 0..2 {
        joins(&mut world, number, "notes").await;
    }
    let all = json!({"type": "select", "table": "notes"});
    let write = json!({"type": "insert", "table": "notes", "data": {"id": 51, "text": "new"}});
    world.proxies[0].query(write).await.ok();
    let rows = world.proxies[1].query(all.clone()).await.ok();
    assert_eq!(rows.as_array().map(Vec::len), Some(51));
    let is_paid = "SELECT count(*) FROM notes WHERE id = 51";
    eventually("the write is paid", SOON, async || {
        let paid = world.storage_database.number(is_paid).await;
        (paid == 1).then_some(()).ok_or(paid)
    })
    .await;
    assert_eq!(
        world.proxies[0].status().await["pending_tables"],
        json!(["notes"])
    );
    world.verified().await;
    let refused = world.proxies[0].stage("live", true).await;
    assert!(
        refused.body.to_string().contains("pending"),
        "{}",
        refused.body
    );
    for command in ["backfill", "verify"] {
        let (status, said) = world.proxies[0]
            .operate(&[command, "--table", "notes", "--reason", "it joins"])
            .await;
        assert!(status.success(), "{said}");
    }
    assert_eq!(world.proxies[0].status().await["pending_tables"], json!([]));
    world.proxies[0].query(all).await.ok();
    world.proxies[0]
        .shows(
            r#"cutover_comparisons_total{op="select",result="match",table="notes"} 1"#,
            SOON,
        )
        .await;
    nothing_diverged(&world).await;
    world.advance_to("live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_live_a_table_joins_only_without_rows() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    for table in ["notes", "tags"] {
        let create = format!("CREATE TABLE {table} (id integer PRIMARY KEY, text text)");
        world.storage_database.execute(&create).await;
        world.legacy.execute(&create).await;
    }
    joins(&mut world, 0, "notes").await;
    let write = json!({"type": "insert", "table": "notes", "data": {"id": 1, "text": "new"}});
    world.proxies[0].query(write).await.ok();
    world.assert_same_rows("notes").await;

    world
        .legacy
        .execute("INSERT INTO tags VALUES (1, 'old')")
        .await;
    let proxy = &mut world.proxies[0];
    proxy.reload_with("[[tables]]\nname = \"tags\"\n");
    proxy.process.kill();
    proxy.process.restart();
    assert!(!proxy.process.exited(SOON).await.success());
    assert!(
        proxy.process.log().contains("Go back first"),
        "{}",
        proxy.process.log()
    );
    // Whoever writes it directly is left alone.
    world
        .legacy
        .execute("INSERT INTO tags VALUES (2, 'old')")
        .await;
}

fn two_replicas() -> WorldOptions {
    WorldOptions {
        replicas: 2,
        ..WorldOptions::default()
    }
}

/// Storage first, until every replica knows: so there is always a place for what legacy has.
async fn comes(world: &World, column: &str) {
    let add = format!("ALTER TABLE campaigns ADD COLUMN {column} integer");
    world.storage_database.execute(&add).await;
    for proxy in 0..2 {
        differs(world, proxy, "extra_column", column).await;
    }
    world.legacy.execute(&add).await;
    for proxy in 0..2 {
        is_written(world, proxy, column).await;
        agrees(world, proxy).await;
    }
}

/// Legacy first, until every replica knows.
async fn goes(world: &World, column: &str) {
    let drop = format!("ALTER TABLE campaigns DROP COLUMN {column}");
    world.legacy.execute(&drop).await;
    for proxy in 0..2 {
        differs(world, proxy, "extra_column", column).await;
    }
    world.storage_database.execute(&drop).await;
    for proxy in 0..2 {
        agrees(world, proxy).await;
    }
}

/// In place, legacy first: what is written meanwhile waits for storage.
async fn is_renamed(world: &World, from: &str, to: &str) {
    let rename = format!("ALTER TABLE campaigns RENAME COLUMN {from} TO {to}");
    world.legacy.execute(&rename).await;
    for proxy in 0..2 {
        is_written(world, proxy, to).await;
        differs(world, proxy, "missing_column", to).await;
    }
    world.storage_database.execute(&rename).await;
    for proxy in 0..2 {
        agrees(world, proxy).await;
    }
}

/// Waits until a replica writes the column, and takes the row away again.
async fn is_written(world: &World, proxy: usize, column: &str) {
    let id = format!("{column} by {proxy}");
    let row = json!({"id": key(&id), "name": id, column: 7});
    let write = json!({"type": "upsert", "table": "campaigns", "data": row});
    eventually(column, SOON, async || {
        let answer = world.proxies[proxy].query(write.clone()).await;
        let written = answer.status.is_success() && answer.body[column] == 7;
        written.then_some(()).ok_or(answer.body)
    })
    .await;
    world.proxies[proxy].query(remove(&id)).await.ok();
}

async fn agrees(world: &World, proxy: usize) {
    eventually("no drift", SOON, async || {
        let found = schema(world, proxy).await?;
        let agree = found["drift"] == json!([]) && found["unknown"] == json!([]);
        agree.then_some(()).ok_or(found.to_string())
    })
    .await;
}

async fn differs(world: &World, proxy: usize, kind: &str, column: &str) {
    eventually(kind, SOON, async || {
        let found = schema(world, proxy).await?;
        let drift = found["drift"].as_array().cloned().unwrap_or_default();
        let named = drift
            .iter()
            .any(|one| one["kind"] == kind && one["column"] == column);
        named.then_some(()).ok_or(found.to_string())
    })
    .await;
}

async fn schema(world: &World, proxy: usize) -> Result<Value, String> {
    let answer = world.proxies[proxy].admin().get("/admin/schema").await?;
    Ok(answer.ok())
}

async fn nothing_diverged(world: &World) {
    let diverged = "SELECT tbl || ' ' || kind || ' ' || fields FROM cutover.divergences";
    assert_eq!(world.legacy.texts(diverged).await, [""; 0]);
}

/// Starts a replica anew with one more table in its configuration.
async fn joins(world: &mut World, number: usize, table: &str) {
    let proxy = &mut world.proxies[number];
    proxy.reload_with(&format!("[[tables]]\nname = \"{table}\"\n"));
    proxy.process.signal(Signal::TERM);
    proxy.process.exited(SOON).await;
    proxy.restart().await;
}
