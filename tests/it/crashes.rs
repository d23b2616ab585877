//! `kill -9`: what was acknowledged is there, and the other side catches up by itself.

use std::time::Duration;

use serde_json::json;

use crate::fixture::campaigns::{insert, rename};
use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::{World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
const ENOUGH_WRITES: i64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_were_owed_when_the_proxy_was_killed_are_paid_after_its_restart() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.storage.fault(&json!({"read_only": true})).await;
    for id in ["one", "two", "three"] {
        world.proxies[0].query(insert(id, "Spring")).await.ok();
        world.proxies[0].query(rename(id, "Summer")).await.ok();
    }
    world.proxies[0].process.kill();
    let rows = "SELECT count(*) FROM campaigns";
    assert_eq!(world.storage_database.number(rows).await, 0);
    world.storage.heal().await;
    world.proxies[0].restart().await;
    world.settles("campaigns", SOON).await;
    assert_eq!(world.storage_database.number(rows).await, 3);
    nothing_is_owed(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_on_the_way_when_the_proxy_was_killed_is_made_once() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.storage.fault(&json!({"latency_ms": 500})).await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    let claimed = "SELECT count(*) FROM cutover.journal WHERE token IS NOT NULL";
    eventually("a payment is on its way", SOON, async || {
        let claimed = world.legacy.number(claimed).await;
        (claimed == 1).then_some(()).ok_or("none is claimed")
    })
    .await;
    world.proxies[0].process.kill();
    world.proxies[0].restart().await;
    world.proxies[0].query(rename("one", "Summer")).await.ok();
    world.storage.heal().await;
    world.settles("campaigns", SOON).await;
    nothing_is_owed(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_killed_in_live_with_writes_in_flight_loses_none_over_amqp() {
    killed_in_live("amqp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_killed_in_live_with_writes_in_flight_loses_none_over_http() {
    killed_in_live("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_loses_replies_in_live_makes_no_write_count_twice_or_not_at_all() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    world
        .storage
        .fault(&json!({"lost_reply_rate": 0.1, "duplicate_reply_rate": 0.3}))
        .await;
    let writers = Writers::start(&world, 4);
    writes_come(&world).await;
    world.storage.heal().await;
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    assert_holds(&world.storage_database, &histories).await;
    nothing_is_owed(&world).await;
}

async fn killed_in_live(transport: &'static str) {
    let options = WorldOptions {
        replicas: 2,
        transport,
        ..WorldOptions::default()
    };
    let mut world = World::build(options).await;
    world.advance_to("live").await;
    let writers = Writers::start(&world, 6);
    writes_come(&world).await;
    // The other replica goes on, and has to wait for the keys of writes that nobody finishes any more.
    world.proxies[0].process.kill();
    writes_come(&world).await;
    world.proxies[0].restart().await;
    writes_come(&world).await;
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    world.settles("campaigns", SOON).await;
    nothing_is_owed(&world).await;
}

/// Waits until callers have written some more.
async fn writes_come(world: &World) {
    let written = "SELECT count(*) FROM cutover.operations WHERE state = 'done'";
    let before = world.legacy.number(written).await;
    eventually("more writes", SOON, async || {
        let more = world.legacy.number(written).await - before;
        (more >= ENOUGH_WRITES).then_some(()).ok_or(more)
    })
    .await;
}

async fn nothing_is_owed(world: &World) {
    eventually("nothing is owed", SOON, async || {
        let owed = world
            .legacy
            .number("SELECT count(*) FROM cutover.journal")
            .await;
        (owed == 0).then_some(()).ok_or(owed)
    })
    .await;
}
