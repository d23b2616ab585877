//! A backup of legacy is restored under a running proxy: it is noticed, nothing more is written, and an
//! operator leads out of it, whichever side is believed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::campaigns::{insert, rename, select};
use crate::fixture::{World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);

/// What a backup holds: the tables, and the control state beside them.
const SAVED: [&str; 6] = [
    "public.campaigns",
    "cutover.state",
    "cutover.transitions",
    "cutover.actions",
    "cutover.journal",
    "cutover.operations",
];

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_in_live_storage_is_believed_and_nothing_is_lost() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("before", "Spring")).await.ok();
    back_up(&world).await;
    // The backup is of an older epoch: the stage moved back and forth since.
    proxy.stage("shadow", false).await.ok();
    world.advance_to("live").await;
    proxy.query(insert("after", "Summer")).await.ok();
    proxy.query(rename("before", "Autumn")).await.ok();
    restore(&world).await;
    notices(&world).await;

    let recover = ["recover", "--after", "restore", "--authority"];
    let (status, said) = proxy
        .operate(&[&recover[..], &["legacy", "--dry-run"]].concat())
        .await;
    assert!(status.success() && said.contains("gives them up"), "{said}");
    assert_eq!(proxy.status().await["phase"], "recovering");
    let (status, said) = proxy.operate(&[&recover[..], &["storage"]].concat()).await;
    assert!(status.success(), "{said}");
    let status = proxy.reaches("ramp_down", SOON).await;
    assert_eq!(status["latched"], true, "{status}");
    assert_eq!(status["rollback"]["safe"], false, "{status}");
    let read = proxy.query(select("after")).await;
    assert_eq!(read.ok()[0]["name"], "Summer");
    proxy.query(insert("since", "Winter")).await.ok();
    let (_, said) = proxy
        .operate(&["verify", "--repair", "--reason", "test"])
        .await;
    assert!(said.contains("campaigns"), "{said}");
    world.settles("campaigns", SOON).await;
    is_verified(&world).await;
    let rows = "SELECT count(*) FROM campaigns";
    assert_eq!(world.legacy.number(rows).await, 3);
    // Legacy is whole: the way back is open again.
    eventually("back to legacy", SOON, async || {
        let answer = proxy.rollback().await;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(answer.body),
        }
    })
    .await;
    let read = proxy.query(select("before")).await;
    assert_eq!(read.header("x-cutover-backend"), "legacy");
    assert_eq!(read.ok()[0]["name"], "Autumn");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_in_shadow_legacy_is_believed_and_storage_is_filled_anew() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("before", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;
    back_up(&world).await;
    world.advance_to("shadow").await;
    proxy.query(insert("after", "Summer")).await.ok();
    world.settles("campaigns", SOON).await;
    restore(&world).await;
    notices(&world).await;

    let recover = ["recover", "--after", "restore", "--authority", "legacy"];
    let (status, said) = proxy.operate(&recover).await;
    assert!(status.success(), "{said}");
    proxy.reaches("dual_write", SOON).await;
    proxy.query(rename("before", "Autumn")).await.ok();
    // What only storage has is listed before anything takes it away.
    let (status, said) = proxy.operate(&["verify", "--reason", "test"]).await;
    assert_eq!(status.code(), Some(1), "{said}");
    let (status, said) = proxy.operate(&["backfill", "--reason", "test"]).await;
    assert!(status.success(), "{said}");
    world.settles("campaigns", SOON).await;
    is_verified(&world).await;
    let recorded =
        "SELECT count(*) FROM cutover.actions WHERE kind = 'recover' AND details LIKE '%may_lose%'";
    assert_eq!(world.legacy.number(recorded).await, 1);
    let (status, said) = proxy.operate(&["history", "--verify"]).await;
    assert!(status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_that_came_back_with_the_backup_does_not_overwrite_what_storage_has() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;
    is_verified(&world).await;
    world.storage.fault(&json!({"refuse": true})).await;
    world.proxies[0].query(rename("one", "Summer")).await.ok();
    back_up(&world).await;
    let owed = "SELECT count(*) FROM backup.cutover_journal";
    assert_eq!(world.legacy.number(owed).await, 1);
    world.storage.heal().await;
    world.settles("campaigns", SOON).await;
    world.advance_to("shadow").await;
    let proxy = &world.proxies[0];
    proxy.query(rename("one", "Autumn")).await.ok();
    world.settles("campaigns", SOON).await;
    restore(&world).await;
    notices(&world).await;
    let recover = ["recover", "--after", "restore", "--authority", "storage"];
    let (status, said) = proxy.operate(&recover).await;
    assert!(status.success(), "{said}");
    // The debt is a copy towards legacy now, and is paid with the row that storage has kept.
    world.settles("campaigns", SOON).await;
    let name = "SELECT name FROM campaigns";
    assert_eq!(world.legacy.texts(name).await, ["Autumn"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_under_the_same_address_is_noticed() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    let elsewhere = "UPDATE cutover.state SET lineage = '1/00000001'";
    world.legacy.execute(elsewhere).await;
    notices(&world).await;
    let recover = ["recover", "--after", "failover", "--authority", "storage"];
    let (status, said) = world.proxies[0].operate(&recover).await;
    // Storage was never filled.
    assert_eq!(status.code(), Some(1), "{said}");
    let legacy = [&recover[..4], &["legacy"]].concat();
    let (status, said) = world.proxies[0].operate(&legacy).await;
    assert!(status.success(), "{said}");
    world.proxies[0].query(insert("one", "Spring")).await.ok();
}

/// Writes are refused with a word on what to do, and the metric is there.
async fn notices(world: &World) {
    let proxy = &world.proxies[0];
    proxy.shows("cutover_recovering 1", SOON).await;
    let refused = proxy.query(insert("meanwhile", "Nobody")).await;
    assert_eq!(refused.code(), "backend_unavailable", "{}", refused.body);
    assert!(refused.body.to_string().contains("cutover recover"));
}

async fn is_verified(world: &World) {
    let proxy = &world.proxies[0];
    eventually("a clean verify", SOON, async || {
        let (status, said) = proxy.operate(&["verify", "--reason", "test"]).await;
        match status.success() {
            true => Ok(()),
            false => Err(said),
        }
    })
    .await;
    let status: Value = proxy.status().await;
    assert_eq!(status["legacy_stale"], false, "{status}");
    assert_eq!(status["storage_stale"], false, "{status}");
}

async fn back_up(world: &World) {
    world.legacy.execute("CREATE SCHEMA backup").await;
    for table in SAVED {
        let name = table.replace('.', "_");
        let copy = format!("CREATE TABLE backup.{name} AS TABLE {table}");
        world.legacy.execute(&copy).await;
    }
}

/// All at once, as a restored database would appear, and without the triggers, which a restore does not fire.
async fn restore(world: &World) {
    let mut sql = String::from("BEGIN; SET LOCAL session_replication_role = replica;");
    for table in SAVED {
        let name = table.replace('.', "_");
        sql.push_str(&format!(
            "DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE backup.{name};"
        ));
    }
    sql.push_str("COMMIT;");
    world.legacy.execute(&sql).await;
}
