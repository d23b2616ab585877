//! A walk through the stages with the real binary, each test one step of it: what a caller and an operator
//! would notice first if it broke.

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::fixture::campaigns::{insert, rename, select};
use crate::fixture::{Signal, World, WorldOptions};

const SOON: Duration = Duration::from_secs(20);
const SLOW: &str = "
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON campaigns FOR EACH ROW EXECUTE FUNCTION slow();
";

#[tokio::test(flavor = "multi_thread")]
async fn in_off_only_legacy_is_written() {
    let world = World::build(WorldOptions::default()).await;
    let answer = world.proxies[0].query(insert("one", "Spring")).await;
    assert_eq!(answer.header("x-cutover-backend"), "legacy");
    assert_eq!(answer.ok()["name"], "Spring");
    assert_eq!(
        world.legacy.number("SELECT count(*) FROM campaigns").await,
        1
    );
    let in_storage = "SELECT count(*) FROM campaigns";
    assert_eq!(world.storage_database.number(in_storage).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_dual_write_the_plans_client_writes_to_both() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    let client = world.client().await;
    let row = client.execute_query(insert("one", "Spring")).await;
    assert_eq!(row["name"], "Spring");
    let changed = client.execute_query(rename("one", "Summer")).await;
    assert_eq!(changed["name"], "Summer");
    let rows = client.execute_query(select("one")).await;
    assert_eq!(rows[0]["name"], "Summer");
    world.settles("campaigns", SOON).await;
    world.assert_same_rows("campaigns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_operation_sent_twice_takes_effect_once() {
    let world = World::build(WorldOptions::default()).await;
    let proxy = &world.proxies[0];
    let op_id = "0190b5a0-0000-7000-8000-000000000001";
    let query = json!({"type": "insert", "table": "campaigns", "data": {"name": "Once"}});
    let first = proxy.try_query(query.clone(), Some(op_id)).await.unwrap();
    let again = proxy.try_query(query, Some(op_id)).await.unwrap();
    assert_eq!(first.ok(), again.ok());
    let other = proxy.try_query(insert("one", "Other"), Some(op_id)).await;
    assert_eq!(other.unwrap().code(), "conflict");
    let client = world.client().await;
    let named = BasicProperties::default().with_message_id(op_id.into());
    let reply = client.request(&insert("one", "Other"), named).await;
    let reply: Value = serde_json::from_slice(&reply.unwrap().data).unwrap();
    assert_eq!(reply["error"]["code"], "conflict");
}

/// As when a replica wakes after a rollback, and its caller has asked again meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn two_requests_at_once_of_an_operation_that_may_run_anew_get_one_answer() {
    let world = World::build(WorldOptions::default()).await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    let op_id = "0190b5a0-0000-7000-8000-000000000002";
    let ask = || proxy.try_query(rename("one", "Summer"), Some(op_id));
    ask().await.unwrap().ok();
    let converted = "UPDATE cutover.operations SET state = 'converted', reply = NULL";
    world.legacy.execute(converted).await;

    // Each is past the record while the other one writes.
    world.legacy.execute(SLOW).await;
    let (one, other) = tokio::join!(ask(), ask());
    assert_eq!(one.unwrap().ok(), other.unwrap().ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_storage_costs_no_caller_anything_before_live() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("shadow").await;
    world.storage.process.kill();
    for name in ["one", "two", "three"] {
        world.proxies[0].query(insert(name, name)).await.ok();
    }
    let status = world.proxies[0].status().await;
    assert!(status["journal"]["owed"].as_i64().unwrap() >= 3, "{status}");
    world.storage.restart().await;
    world.settles("campaigns", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_loses_no_write_it_acknowledged() {
    let two = WorldOptions {
        replicas: 2,
        transport: "http",
        ..WorldOptions::default()
    };
    let mut world = World::build(two).await;
    world.advance_to("dual_write").await;
    world.proxies[1].reaches("dual_write", SOON).await;
    world.storage.fault(&json!({"refuse": true})).await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.proxies[0].process.kill();
    world.storage.heal().await;
    world.settles("campaigns", SOON).await;
    world.proxies[0].restart().await;
    world.proxies[0].reaches("dual_write", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_from_live_needs_nothing_of_storage() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    world.assert_same_rows("campaigns").await;
    world.storage.process.signal(Signal::STOP);
    proxy.rollback().await.ok();
    let status = proxy.reaches("dual_write", SOON).await;
    assert_eq!(status["latched"], true);
    let row = proxy.query(select("one")).await;
    assert_eq!(row.header("x-cutover-backend"), "legacy");
    assert_eq!(row.ok()[0]["name"], "Spring");
    proxy.shows("cutover_latched 1", SOON).await;
    world.storage.process.signal(Signal::CONT);
    world.settles("campaigns", SOON).await;
    let drained = world.proxies[0].process.terminate(SOON).await;
    assert!(drained.success(), "{}", world.proxies[0].process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_file_is_a_request_that_is_consumed_once() {
    let mut world = World::build(WorldOptions::default()).await;
    world.proxies[0].flag("dual_write", "from the file");
    let status = world.proxies[0].reaches("dual_write", SOON).await;
    assert_eq!(status["reason"], "from the file");
    world.proxies[0].stage("off", false).await.ok();
    world.proxies[0].restart().await;
    world.proxies[0].reaches("off", SOON).await;
    world.proxies[0]
        .shows("cutover_flag_file_disagrees 1", SOON)
        .await;
}
