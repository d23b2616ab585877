//! `ramp_down`: storage answers alone, repeats are recognised, and legacy is waited for by nobody.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::campaigns::{insert, rename, select};
use crate::fixture::{Answer, Proxy, Wiring, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
const WRITES: i64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_live_that_is_repeated_in_ramp_down_gets_its_first_answer() {
    let world = World::build(two_replicas()).await;
    world.advance_to("live").await;
    let op_id = fresh_id();
    let first = ask(&world.proxies[0], insert("one", "Spring"), &op_id).await;
    let first = first.ok();
    world.proxies[0].query(rename("one", "Summer")).await.ok();
    world.advance_to("ramp_down").await;
    for proxy in &world.proxies {
        recognises(proxy, insert("one", "Spring"), &op_id, &first).await;
        let other = ask(proxy, insert("two", "Spring"), &op_id).await;
        assert_eq!(other.code(), "conflict", "{}", other.body);
    }
    let now = world.proxies[0].query(select("one")).await.ok();
    assert_eq!(now[0]["name"], "Summer", "nothing was written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_ramp_down_is_recognised_by_any_replica_and_after_the_way_back() {
    let world = World::build(two_replicas()).await;
    world.advance_to("ramp_down").await;
    let op_id = fresh_id();
    let first = ask(&world.proxies[0], insert("one", "Spring"), &op_id).await;
    let first = first.ok();
    let here = ask(&world.proxies[0], insert("one", "Spring"), &op_id).await;
    assert_eq!(here.ok(), first, "from memory");
    is_recorded(&world, &op_id).await;
    recognises(&world.proxies[1], insert("one", "Spring"), &op_id, &first).await;
    eventually("the way back is drained", SOON, async || {
        let back = world.proxies[0].rollback().await;
        match back.status.is_success() {
            true => Ok(()),
            false => Err(back.body),
        }
    })
    .await;
    world.proxies[1].reaches("dual_write", SOON).await;
    let back = ask(&world.proxies[1], insert("one", "Spring"), &op_id).await;
    assert_eq!(back.ok(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_repeats_at_one_replica_take_effect_once() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("complete").await;
    let proxy = &world.proxies[0];
    // So that all of them come while the first is under way.
    world.storage.fault(&json!({"latency_ms": 300})).await;
    let op_id = fresh_id();
    let repeats = (0..8).map(|_| ask(proxy, insert("one", "Spring"), &op_id));
    let answers = futures_util::future::join_all(repeats).await;
    let answers: Vec<Value> = answers.into_iter().map(Answer::ok).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let inserted = "SELECT count(*) FROM campaigns";
    assert_eq!(world.storage_database.number(inserted).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_is_frozen_is_waited_for_once_and_repeats_are_recognised_without_it() {
    let world = World::build(WorldOptions {
        wiring: Wiring::Lines,
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("ramp_down").await;
    let proxy = &world.proxies[0];
    // The epoch is confirmed with the first write, which needs legacy.
    proxy.query(insert("first", "Spring")).await.ok();
    world.lines[0].legacy.cut();
    for number in 0..WRITES {
        let (row, op_id) = (format!("row {number}"), fresh_id());
        let first = ask(proxy, insert(&row, "Spring"), &op_id).await.ok();
        let again = ask(proxy, insert(&row, "Spring"), &op_id).await.ok();
        assert_eq!(again, first);
    }
    let log = proxy.process.log();
    let missed = "legacy does not tell of operations in time";
    assert_eq!(log.matches(missed).count(), 1, "{missed}");
    let inserted = "SELECT count(*) FROM campaigns WHERE name = 'Spring'";
    let inserted = world.storage_database.number(inserted).await;
    assert_eq!(inserted, 1 + WRITES);
    world.lines[0].legacy.mend();
    // Each write lets the circuit probe, if it is time to.
    eventually("legacy is asked again", SOON, async || {
        proxy.query(rename("row 0", "Summer")).await.ok();
        ask(proxy, rename("row 0", "Autumn"), &fresh_id())
            .await
            .ok();
        let again = "legacy tells of operations in time again";
        let log = proxy.process.log();
        log.contains(again).then_some(()).ok_or("not yet")
    })
    .await;
}

/// A repeat gets the first answer from the record, at the latest once legacy answers in time: run again, the
/// insert would be a conflict, and change nothing.
async fn recognises(proxy: &Proxy, query: Value, op_id: &str, first: &Value) {
    eventually("a repeat is recognised", SOON, async || {
        let again = ask(proxy, query.clone(), op_id).await;
        match again.body == *first {
            true => Ok(()),
            false => Err(again.body),
        }
    })
    .await;
}

async fn is_recorded(world: &World, op_id: &str) {
    eventually("the operation is recorded", SOON, async || {
        let recorded = format!("SELECT count(*) FROM cutover.operations WHERE op_id = '{op_id}'");
        let recorded = world.legacy.number(&recorded).await;
        (recorded == 1).then_some(()).ok_or(recorded)
    })
    .await;
}

async fn ask(proxy: &Proxy, query: Value, op_id: &str) -> Answer {
    let answer = proxy.try_query(query, Some(op_id)).await;
    answer.expect("the proxy answers")
}

fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn two_replicas() -> WorldOptions {
    WorldOptions {
        replicas: 2,
        ..WorldOptions::default()
    }
}
