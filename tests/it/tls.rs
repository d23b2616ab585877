//! Everything over TLS, with private roots and certificates asked for on both sides.

use std::time::Duration;

use crate::fixture::campaigns::{insert, rename, select};
use crate::fixture::{HttpClient, Wiring, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn storage_and_broker_behind_mutual_tls_are_written_and_read_over_amqp() {
    every_stage_works("amqp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_behind_mutual_tls_is_written_and_read_over_http() {
    every_stage_works("http").await;
}

async fn every_stage_works(transport: &'static str) {
    let world = secured(transport).await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    let read = proxy.query(select("one")).await;
    assert_eq!(read.header("x-cutover-backend"), "storage");
    assert_eq!(read.ok()[0]["name"], "Spring");
    world.assert_same_rows("campaigns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_with_a_certificate_is_reached_by_commands_that_are_told_its_root() {
    let world = secured("http").await;
    let proxy = &world.proxies[0];
    let root = world.tls.as_ref().expect("certificates").root();
    let root = root.display().to_string();
    let (status, said) = proxy.operate(&["status", "--ca-file", &root]).await;
    assert!(status.success(), "{said}");
    let (status, said) = proxy.operate(&["status"]).await;
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("UnknownIssuer"), "{said}");
    // Who believes the public roots only does not ask the door anything.
    let stranger = HttpClient::new(proxy.door.base_url());
    assert!(stranger.get("/v1/openapi.json").await.is_err());
    proxy
        .door
        .get("/v1/openapi.json")
        .await
        .expect("an answer")
        .ok();
}

/// Certificates expire in the weeks of a migration, and the authority that signs them may be another one then.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_roots_are_replaced_while_it_runs() {
    for transport in ["amqp", "http"] {
        let mut world = secured(transport).await;
        world.advance_to("dual_write").await;
        world.proxies[0].query(insert("one", "Spring")).await.ok();
        owes(&world, 0).await;

        // The servers change first: they are not believed, nothing is sent, and nobody waits for them.
        world
            .tls
            .as_mut()
            .expect("certificates")
            .replace_authority();
        let proxy = &world.proxies[0];
        proxy.query(rename("one", "Summer")).await.ok();
        eventually("storage is down", SOON, async || {
            let storage = proxy.status().await["backends"]["storage"].clone();
            (storage["up"] == false).then_some(()).ok_or(storage)
        })
        .await;
        owes(&world, 1).await;

        // A file that cannot be read changes nothing, and is told.
        let tls = world.tls.as_ref().expect("certificates");
        let root = std::fs::read(tls.root()).expect("a root");
        std::fs::write(tls.root(), "no certificate").expect("a file");
        proxy.reload_with("");
        proxy
            .shows("cutover_config_reload_failed_total 1", SOON)
            .await;
        std::fs::write(tls.root(), root).expect("a file");

        tls.write_files();
        proxy.reload_with("");
        world.settles("campaigns", SOON).await;
        // The replica's own ports show what was signed anew.
        let door = HttpClient::trusting(proxy.door.base_url(), &tls.trust());
        door.get("/v1/openapi.json").await.expect("an answer").ok();
    }
}

async fn owes(world: &World, entries: u64) {
    eventually("what is owed", SOON, async || {
        let journal = world.proxies[0].status().await["journal"].clone();
        (journal["owed"] == entries).then_some(()).ok_or(journal)
    })
    .await;
}

async fn secured(transport: &'static str) -> World {
    World::build(WorldOptions {
        transport,
        wiring: Wiring::Tls,
        ..WorldOptions::default()
    })
    .await
}
