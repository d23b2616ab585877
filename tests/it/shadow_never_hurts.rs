//! A dead, slow or lying storage changes no answer and adds no wait before `live` (I12), and what it lies
//! about is found (I10).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::campaigns::{insert, rename, select};
use crate::fixture::{Proxy, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
/// Generous, because the machine is shared; a wait for storage would be hundreds of times as long.
const SLOWER_AT_MOST: u32 = 10;
/// Below this, a median is noise of the machine.
const NOISE: Duration = Duration::from_millis(50);
const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_storage_adds_no_wait() {
    storage_never_hurts(json!({"latency_ms": 2000})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_refuses_everything_changes_nothing() {
    storage_never_hurts(json!({"refuse": true})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_storage_changes_no_answer() {
    storage_never_hurts(json!({"corrupt_rate": 1.0})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_gone_changes_nothing() {
    let mut world = World::build(WorldOptions::default()).await;
    let in_off = median(&world.proxies[0], "off").await;
    world.storage.process.kill();
    for stage in ["dual_write", "shadow"] {
        world.advance_to(stage).await;
        assert_no_wait(&world.proxies[0], stage, in_off).await;
    }
    world.storage.restart().await;
    owed_is_paid(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_in_shadow_is_a_confirmed_divergence() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("shadow").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;
    world.storage.fault(&json!({"corrupt_rate": 1.0})).await;
    proxy.query(select("one")).await.ok();
    confirmed(proxy).await;
    let listed = proxy.admin().get("/admin/divergences").await;
    let listed = listed.expect("the admin plane answers").ok().to_string();
    assert!(listed.contains("campaigns"), "{listed}");
    assert!(!listed.contains("Spring"), "a value is shown: {listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_changed_behind_storages_back_is_a_confirmed_divergence() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("shadow").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;
    let behind = "UPDATE campaigns SET name = 'Autumn'";
    world.storage_database.execute(behind).await;
    let row = proxy.query(select("one")).await.ok();
    assert_eq!(row[0]["name"], "Spring");
    confirmed(proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_under_shadow_are_no_divergence() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("shadow").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    // Two writers and two readers of the same row, and of the table.
    let write = async |writer: &str| {
        for turn in 0..60 {
            let name = format!("{writer} {turn}");
            proxy.query(rename("one", &name)).await.ok();
        }
    };
    let read = async |query: Value| {
        for _ in 0..60 {
            proxy.query(query.clone()).await.ok();
        }
    };
    let all = json!({"type": "select", "table": "campaigns"});
    tokio::join!(write("a"), write("b"), read(select("one")), read(all));
    eventually("every read is judged", SOON, async || {
        let status = proxy.status().await;
        let judged = status["comparisons"].as_object().expect("results");
        let judged: i64 = judged.values().filter_map(Value::as_i64).sum();
        (judged >= 120).then_some(()).ok_or(status)
    })
    .await;
    let status = proxy.status().await;
    assert_eq!(status["comparisons"]["confirmed"], 0, "{status}");
    assert!(
        status["comparisons"]["match"].as_i64() > Some(0),
        "{status}"
    );
}

async fn storage_never_hurts(fault: Value) {
    let world = World::build(WorldOptions::default()).await;
    let in_off = median(&world.proxies[0], "off").await;
    world.storage.fault(&fault).await;
    for stage in ["dual_write", "shadow"] {
        world.advance_to(stage).await;
        assert_no_wait(&world.proxies[0], stage, in_off).await;
    }
    world.storage.heal().await;
    owed_is_paid(&world).await;
}

async fn assert_no_wait(proxy: &Proxy, stage: &str, in_off: Duration) {
    let now = median(proxy, stage).await;
    let allowed = (in_off * SLOWER_AT_MOST).max(NOISE);
    assert!(now < allowed, "{stage}: {now:?}, in off {in_off:?}");
}

/// The median time of a write and a read together, each checked to be right.
async fn median(proxy: &Proxy, stage: &str) -> Duration {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let id = format!("{stage} {round}");
        let started = Instant::now();
        let written = proxy.query(insert(&id, &id)).await;
        let read = proxy.query(select(&id)).await;
        times.push(started.elapsed());
        assert_eq!(read.header("x-cutover-backend"), "legacy");
        assert_eq!(written.ok()["name"], id);
        assert_eq!(read.ok()[0]["name"], id);
    }
    times.sort();
    times[times.len() / 2]
}

/// What was written from dual_write on reaches storage once it is well again.
async fn owed_is_paid(world: &World) {
    let rows = "SELECT count(*) FROM campaigns WHERE name LIKE 'dual%' OR name LIKE 'shadow%'";
    let all = i64::try_from(2 * ROUNDS).expect("a small number");
    eventually("storage has what it is owed", SOON, async || {
        let rows = world.storage_database.number(rows).await;
        (rows == all).then_some(()).ok_or(rows)
    })
    .await;
}

async fn confirmed(proxy: &Proxy) {
    eventually("a confirmed divergence", SOON, async || {
        let status = proxy.status().await;
        let confirmed = status["comparisons"]["confirmed"].as_i64();
        (confirmed > Some(0)).then_some(()).ok_or(status)
    })
    .await;
}
