//! The hands on the flag, and the signals.

use std::time::Duration;

use serde_json::json;

use crate::fixture::campaigns::{insert, select};
use crate::fixture::{Signal, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn one_content_of_the_flag_file_is_applied_once_by_two_replicas_and_a_restart() {
    let mut world = World::build(two_replicas()).await;
    for proxy in &world.proxies {
        proxy.flag("dual_write", "from the file");
    }
    for proxy in &world.proxies {
        proxy.reaches("dual_write", SOON).await;
    }
    let by_file = "SELECT count(*) FROM cutover.transitions WHERE kind = 'flag_file'";
    assert_eq!(world.legacy.number(by_file).await, 1);
    world.proxies[0].stage("off", false).await.ok();
    world.proxies[1].restart().await;
    for proxy in &world.proxies {
        proxy.reaches("off", SOON).await;
        proxy.shows("cutover_flag_file_disagrees 1", SOON).await;
    }
    assert_eq!(world.legacy.number(by_file).await, 1);
    assert_eq!(world.proxies[1].status().await["stage"], "off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_about_an_epoch_that_has_passed_is_refused() {
    let world = World::build(WorldOptions::default()).await;
    let proxy = &world.proxies[0];
    let epoch = proxy.status().await["epoch"].as_i64().unwrap();
    let body = |epoch: i64| json!({"to": "dual_write", "reason": "test", "expected_epoch": epoch});
    let refused = proxy.admin().post("/admin/stage", &body(epoch + 1)).await;
    let refused = refused.unwrap();
    assert_eq!(refused.status.as_u16(), 412, "{}", refused.body);
    assert_eq!(refused.code(), "precondition_failed");
    assert_eq!(proxy.status().await["epoch"], epoch);
    let granted = proxy.admin().post("/admin/stage", &body(epoch)).await;
    granted.unwrap().ok();
    proxy.reaches("dual_write", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_in_the_database_needs_no_proxy_and_no_storage() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.proxies[0].process.kill();
    world.storage.process.kill();
    let url = world.legacy.url.clone();
    let args = ["rollback", "--reason", "test", "--database", &url];
    let (status, said) = world.proxies[0].command(&args).await;
    assert!(status.success(), "{said}");
    world.proxies[0].restart().await;
    let status = world.proxies[0].reaches("dual_write", SOON).await;
    assert_eq!(status["latched"], true, "{status}");
    let read = world.proxies[0].query(select("one")).await;
    assert_eq!(read.header("x-cutover-backend"), "legacy");
    assert_eq!(read.ok()[0]["name"], "Spring");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latch_holds_until_somebody_re_arms() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    proxy.rollback().await.ok();
    proxy.reaches("dual_write", SOON).await;
    let refused = proxy.stage("shadow", false).await;
    assert!(!refused.status.is_success(), "{}", refused.body);
    let body = json!({"reason": "looked into"});
    proxy
        .admin()
        .post("/admin/rearm", &body)
        .await
        .unwrap()
        .ok();
    world.advance_to("live").await;
    proxy.query(insert("one", "Spring")).await.ok();
    world.assert_same_rows("campaigns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_a_limit_and_a_bad_file_changes_nothing() {
    let world = World::build(WorldOptions::default()).await;
    let proxy = &world.proxies[0];
    let two =
        json!({"type": "insert", "table": "campaigns", "data": [{"name": "a"}, {"name": "b"}]});
    proxy.query(two.clone()).await.ok();
    proxy.reload_with("[limits]\nrows_write_max = 1\n");
    eventually("the limit holds", SOON, async || {
        let answer = proxy.query(two.clone()).await;
        match answer.status.is_success() {
            true => Err("two rows are still taken"),
            false => Ok(()),
        }
    })
    .await;
    proxy
        .shows("cutover_config_reload_failed_total 0", SOON)
        .await;
    proxy.reload_with("[nonsense]\n");
    proxy
        .shows("cutover_config_reload_failed_total 1", SOON)
        .await;
    assert!(!proxy.query(two).await.status.is_success());
    proxy.query(insert("one", "Spring")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_write_in_flight_finish() {
    let mut world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    world.storage.fault(&json!({"latency_ms": 700})).await;
    let door = world.proxies[0].door.clone();
    let body = json!({"db": "campaign_db", "query": insert("one", "Spring")});
    let write = tokio::spawn(async move { door.post("/v1/query", &body).await });
    let intent = "SELECT count(*) FROM cutover.journal WHERE kind = 'intent'";
    eventually("the write is on its way", SOON, async || {
        let open = world.legacy.number(intent).await;
        (open == 1).then_some(()).ok_or("no intent")
    })
    .await;
    world.proxies[0].process.signal(Signal::TERM);
    let answer = write.await.unwrap().expect("an answer");
    assert_eq!(answer.ok()["name"], "Spring");
    let status = world.proxies[0].process.exited(SOON).await;
    assert!(status.success(), "{status}");
    world.assert_same_rows("campaigns").await;
}

fn two_replicas() -> WorldOptions {
    WorldOptions {
        replicas: 2,
        ..WorldOptions::default()
    }
}
