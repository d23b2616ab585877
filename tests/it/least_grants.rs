//! The proxy's role owns nothing: a DBA installs the control schema, and the proxy makes do with what it was granted.

use std::time::Duration;

use serde_json::json;

use crate::fixture::campaigns::{insert, rename, select};
use crate::fixture::{LegacyKind, World, WorldOptions};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_may_create_nothing_goes_live_and_back() {
    let mut world = World::build(WorldOptions {
        legacy: LegacyKind::LeastGrants,
        ..WorldOptions::default()
    })
    .await;
    let owned = "SELECT count(*) FROM pg_class WHERE relowner = 'cutover_proxy'::regrole";
    assert_eq!(world.legacy.number(owned).await, 0);

    world.advance_to("dual_write").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;
    world.advance_to("live").await;
    world.proxies[0].query(rename("one", "Summer")).await.ok();
    world.assert_same_rows("campaigns").await;
    world.proxies[0].rollback().await.ok();

    world.proxies[0].restart().await;
    let status = world.proxies[0].reaches("dual_write", SOON).await;
    assert_eq!(status["latched"], true);
    let rows = world.proxies[0].query(select("one")).await;
    assert_eq!(rows.ok()[0]["name"], "Summer");
    let past_the_proxy = "UPDATE campaigns SET name = 'Autumn'";
    world.legacy.execute(past_the_proxy).await;
    world.settles("campaigns", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_owns_no_sequence_moves_it_past_ids_that_come_with_rows() {
    let world = World::build(WorldOptions {
        legacy: LegacyKind::LeastGrants,
        ddl: "CREATE TABLE notes (id bigserial PRIMARY KEY, text text);".to_owned(),
        tables: "[[tables]]\nname = \"notes\"\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    // A small gap and one that is not walked through.
    for id in [7, 70_000] {
        let row = json!({"id": id, "text": "with its id"});
        let insert = json!({"type": "insert", "table": "notes", "data": row});
        proxy.query(insert).await.ok();
        let keyless = json!({"type": "insert", "table": "notes", "data": {"text": "without"}});
        assert_eq!(proxy.query(keyless).await.ok()["id"], id + 1);
    }
    world.assert_same_rows("notes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_install_what_is_missing_says_who_may_and_is_waited_for_by_nobody() {
    let mut world = World::build(WorldOptions {
        legacy: LegacyKind::LeastGrants,
        ..WorldOptions::default()
    })
    .await;
    world.proxies[0].process.terminate(SOON).await;
    let lost = "DROP FUNCTION cutover.\"capture_v1 campaigns\" CASCADE";
    world.legacy.execute(lost).await;
    let (status, said) = world.proxies[0]
        .command(&["serve", "--config", "cutover.toml"])
        .await;
    assert_eq!(status.code(), Some(1), "{said}");
    let what = "the capture of campaigns is to be installed by the owner of the tables";
    assert!(said.contains(what), "{said}");
    let waited_for = "SELECT count(*) FROM cutover.replicas";
    assert_eq!(world.legacy.number(waited_for).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_schema_may_be_installed_again_over_itself() {
    let world = World::build(WorldOptions {
        legacy: LegacyKind::LeastGrants,
        ..WorldOptions::default()
    })
    .await;
    let (_, control) = world.proxies[0]
        .command(&["schema", "--control", "--config", "cutover.toml"])
        .await;
    assert!(control.contains("cutover.schema_versions"), "{control}");
    let before = "SELECT max(at_us) FROM cutover.schema_versions";
    let installed = world.legacy.number(before).await;
    world.legacy.execute(&control).await;
    assert_eq!(world.legacy.number(before).await, installed);
}
