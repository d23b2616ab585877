//! A replica that is frozen across a flip, or cut off from the database: what it wakes with is worth nothing.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::fixture::campaigns::{insert, rename, select};
use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::{Signal, Wiring, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
const ENOUGH_WRITES: i64 = 40;
/// Longer than every lease, deadline and timeout of its sessions: what it held is gone when it wakes.
const ASLEEP: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_frozen_for_a_minute_across_a_rollback_commits_nothing_old_and_reads_nothing_old()
{
    let world = World::build(three_replicas("")).await;
    world.advance_to("live").await;
    world.proxies[1].query(insert("one", "Spring")).await.ok();
    let writers = Writers::start(&world, 6);
    writes_come(&world).await;

    // Its writers' requests are on the way when it freezes.
    world.proxies[0].process.signal(Signal::STOP);
    let frozen = Instant::now();
    rolls_back(&world).await;
    for proxy in &world.proxies[1..] {
        proxy.reaches("dual_write", SOON).await;
    }
    world.proxies[1].query(rename("one", "Summer")).await.ok();
    writes_come(&world).await;
    sleep(ASLEEP.saturating_sub(frozen.elapsed())).await;

    // Asked after the write was acknowledged, by a client that waits for the sleeper.
    let asleep = world.proxies[0].door.clone();
    let body = json!({"db": "campaign_db", "query": select("one")});
    let read = tokio::spawn(async move { asleep.post("/v1/query", &body).await });
    world.proxies[0].process.signal(Signal::CONT);
    let read = read.await.expect("no panic").expect("an answer").ok();
    assert_eq!(read[0]["name"], "Summer", "{read}");

    world.proxies[0].reaches("dual_write", SOON).await;
    writes_come(&world).await;
    assert_holds(&world.legacy, &told(writers, "Summer").await).await;
    world.settles("campaigns", SOON).await;
    no_divergence(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_cut_off_from_the_database_across_a_rollback_says_that_its_reads_may_be_old() {
    let world = World::build(three_replicas("")).await;
    world.advance_to("live").await;
    world.proxies[1].query(insert("one", "Spring")).await.ok();
    let writers = Writers::start(&world, 6);
    writes_come(&world).await;

    world.lines[0].legacy.cut();
    rolls_back(&world).await;
    for proxy in &world.proxies[1..] {
        proxy.reaches("dual_write", SOON).await;
    }
    eventually("its lease runs out, and it says so", SOON, async || {
        let read = world.proxies[0].query(select("one")).await;
        match read.header("x-cutover-lease") {
            "expired" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    writes_come(&world).await;

    world.lines[0].legacy.mend();
    world.proxies[0].reaches("dual_write", SOON).await;
    let read = world.proxies[0].query(select("one")).await;
    assert_eq!(read.header("x-cutover-lease"), "");
    assert_eq!(read.header("x-cutover-backend"), "legacy");
    assert_holds(&world.legacy, &told(writers, "Spring").await).await;
    world.settles("campaigns", SOON).await;
    no_divergence(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_cut_off_from_the_database_refuses_reads_where_it_is_told_to() {
    let world = World::build(three_replicas("[control]\nwithout_lease = \"refuse\"\n")).await;
    world.advance_to("live").await;
    world.proxies[1].query(insert("one", "Spring")).await.ok();
    world.lines[0].legacy.cut();
    rolls_back(&world).await;
    world.proxies[1].reaches("dual_write", SOON).await;
    world.proxies[1].query(rename("one", "Summer")).await.ok();
    let read = world.proxies[0].query(select("one")).await;
    assert_eq!(read.code(), "backend_unavailable", "{}", read.body);
    world.lines[0].legacy.mend();
    let read = eventually("it answers again", SOON, async || {
        let read = world.proxies[0].query(select("one")).await;
        match read.status.is_success() {
            true => Ok(read.body),
            false => Err(read.body),
        }
    })
    .await;
    assert_eq!(read[0]["name"], "Summer", "{read}");
}

/// Rolls back through the second replica. The first may hold the gate in the middle of a commit, until the
/// database ends its session.
async fn rolls_back(world: &World) {
    eventually("a rollback", SOON, async || {
        let answer = world.proxies[1].rollback().await;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(answer.body),
        }
    })
    .await;
}

/// What the writers were told, and the test itself of its one row.
async fn told(writers: Writers, name: &str) -> Vec<crate::fixture::history::History> {
    let mut histories = writers.stop().await;
    let key = crate::fixture::campaigns::key("one");
    histories[0].rows.insert(key, Some(name.to_owned()));
    histories
}

async fn no_divergence(world: &World) {
    let confirmed = "SELECT count(*) FROM cutover.divergences";
    assert_eq!(world.legacy.number(confirmed).await, 0);
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

fn three_replicas(config: &str) -> WorldOptions {
    WorldOptions {
        replicas: 3,
        config: config.to_owned(),
        wiring: Wiring::Lines,
        ..WorldOptions::default()
    }
}
