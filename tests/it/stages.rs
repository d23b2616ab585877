//! DESIGN's table of the stages, row by row: who answers, and where a write is by the time its caller hears
//! of it, through both doors and over both transports to storage.

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::fixture::campaigns::{insert, key, rename, select};
use crate::fixture::{StorageClient, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(20);
const STAGES: [&str; 6] = [
    "off",
    "dual_write",
    "shadow",
    "live",
    "ramp_down",
    "complete",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_stage_answers_from_its_authority_with_storage_over_amqp() {
    every_stage_answers_from_its_authority("amqp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stage_answers_from_its_authority_with_storage_over_http() {
    every_stage_answers_from_its_authority("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_compared_in_shadow_and_live_only() {
    let world = World::build(WorldOptions::default()).await;
    let proxy = &world.proxies[0];
    proxy.query(insert("seen", "Spring")).await.ok();
    // Written again under dual_write, the row reaches storage; there is no backfill in this test.
    world.advance_to("dual_write").await;
    proxy.query(rename("seen", "Summer")).await.ok();
    world.settles("campaigns", SOON).await;
    for stage in STAGES.into_iter().skip(1) {
        world.advance_to(stage).await;
        let before = compared(&world).await;
        for _ in 0..5 {
            proxy.query(select("seen")).await.ok();
        }
        match stage {
            "shadow" | "live" => {
                eventually("five comparisons", SOON, async || {
                    let now = compared(&world).await - before;
                    (now >= 5).then_some(()).ok_or(now)
                })
                .await;
            }
            _ => assert_eq!(compared(&world).await, before, "{stage}"),
        }
    }
    let status = proxy.status().await;
    assert_eq!(status["comparisons"]["confirmed"], 0, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_live_legacy_answers_reads_that_storage_cannot_and_writes_are_refused_whole() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.storage.fault(&json!({"read_only": true})).await;
    let refused = world.proxies[0].query(rename("one", "Summer")).await;
    assert_eq!(refused.code(), "backend_unavailable", "{}", refused.body);
    assert!(!refused.header("retry-after").is_empty());
    world.assert_same_rows("campaigns").await;
    world.storage.process.kill();
    let read = world.proxies[0].query(select("one")).await;
    assert_eq!(read.header("x-cutover-backend"), "legacy");
    assert_eq!(read.ok()[0]["name"], "Spring");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_past_the_proxy_is_captured_until_shadow_and_refused_from_live_on() {
    let world = World::build(WorldOptions::default()).await;
    let past = |name: &str| {
        let id = key(name);
        format!("INSERT INTO campaigns (id, name) VALUES ('{id}', '{name}')")
    };
    for stage in ["dual_write", "shadow"] {
        world.advance_to(stage).await;
        world.legacy.execute(&past(stage)).await;
        world.settles("campaigns", SOON).await;
    }
    for stage in ["live", "ramp_down", "complete"] {
        world.advance_to(stage).await;
        let refused = world.legacy.try_execute(&past(stage)).await;
        assert!(refused.is_err(), "{stage} let a bypass through");
        let truncated = world.legacy.try_execute("TRUNCATE campaigns").await;
        assert!(truncated.is_err(), "{stage} let a TRUNCATE through");
    }
    world.assert_same_rows("campaigns").await;
    let rows = "SELECT count(*) FROM campaigns";
    assert_eq!(world.legacy.number(rows).await, 2);
}

async fn every_stage_answers_from_its_authority(transport: &'static str) {
    let options = WorldOptions {
        transport,
        ..WorldOptions::default()
    };
    let world = World::build(options).await;
    let client = world.client().await;
    for stage in STAGES {
        world.advance_to(stage).await;
        for door in ["http", "amqp"] {
            one_row_of_the_table(&world, &client, stage, door).await;
        }
        if stage == "off" {
            // Nothing was captured: what `off` wrote is taken along as a backfill would.
            world.advance_to("dual_write").await;
            world
                .legacy
                .execute("UPDATE campaigns SET name = name")
                .await;
        }
        if stage != "complete" {
            world.settles("campaigns", SOON).await;
        }
    }
}

/// Writes and reads through one door, and looks into both databases as soon as there is an answer.
async fn one_row_of_the_table(world: &World, client: &StorageClient, stage: &str, door: &str) {
    let id = format!("{stage} {door}");
    let authority = match stage {
        "off" | "dual_write" | "shadow" => "legacy",
        _ => "storage",
    };
    let row = ask(world, client, door, authority, insert(&id, "new")).await;
    assert_eq!(row["name"], "new", "{id}: {row}");
    let there = format!("SELECT count(*) FROM campaigns WHERE id = '{}'", key(&id));
    let owed = format!(
        "SELECT count(*) FROM cutover.journal WHERE key LIKE '%{}%'",
        key(&id)
    );
    let journaled = world.legacy.number(&owed).await == 1;
    let in_legacy = world.legacy.number(&there).await == 1;
    let in_storage = world.storage_database.number(&there).await == 1;
    match stage {
        "off" => assert!(in_legacy && !in_storage && !journaled, "{id}"),
        // The journal row is gone once it is paid, so it was there if storage has the row by now.
        "dual_write" | "shadow" => assert!(in_legacy && (journaled || in_storage), "{id}"),
        "live" => assert!(in_legacy && in_storage, "{id}"),
        "ramp_down" => assert!(in_storage, "{id}"),
        _ => assert!(in_storage && !in_legacy && !journaled, "{id}"),
    }
    let rows = ask(world, client, door, authority, select(&id)).await;
    assert_eq!(rows[0]["name"], "new", "{id}: {rows}");
}

/// A successful reply. The HTTP door also says who gave it.
async fn ask(
    world: &World,
    client: &StorageClient,
    door: &str,
    authority: &str,
    query: Value,
) -> Value {
    if door == "http" {
        let answer = world.proxies[0].query(query).await;
        assert_eq!(answer.header("x-cutover-backend"), authority);
        return answer.ok();
    }
    let reply = client.request(&query, BasicProperties::default()).await;
    let reply = reply.expect("a reply");
    assert_eq!(StorageClient::header(&reply, "x-cutover-status"), "200");
    serde_json::from_slice(&reply.data).expect("a reply is JSON")
}

async fn compared(world: &World) -> i64 {
    let status = world.proxies[0].status().await;
    let results = status["comparisons"].as_object().expect("results").clone();
    results.values().filter_map(Value::as_i64).sum()
}
