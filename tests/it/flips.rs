//! The authority moves while callers write: nothing that was acknowledged is lost, on either side.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::{Database, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_advance_and_a_rollback_under_writes_lose_nothing_over_amqp() {
    flips_lose_nothing("amqp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advance_and_a_rollback_under_writes_lose_nothing_over_http() {
    flips_lose_nothing("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_under_writes_with_a_storage_that_is_gone_loses_nothing() {
    let mut world = World::build(two_replicas("amqp")).await;
    world.advance_to("live").await;
    let writers = Writers::start(&world, 4);
    rows_come(&world).await;
    world.storage.process.kill();
    world.proxies[1].rollback().await.ok();
    for proxy in &world.proxies {
        proxy.reaches("dual_write", SOON).await;
    }
    rows_come(&world).await;
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    world.storage.restart().await;
    world.settles("campaigns", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_epoch_has_one_record_and_the_chain_is_intact() {
    let world = World::build(two_replicas("http")).await;
    world.advance_to("live").await;
    world.proxies[1].rollback().await.ok();
    world.proxies[0].reaches("dual_write", SOON).await;
    let gaps = "SELECT max(epoch) - count(*) FROM cutover.transitions";
    assert_eq!(world.legacy.number(gaps).await, 0);
    let unchained = "SELECT count(*) FROM cutover.transitions later JOIN cutover.transitions earlier \
                     ON earlier.epoch = later.epoch - 1 WHERE later.previous_hash <> earlier.hash";
    assert_eq!(world.legacy.number(unchained).await, 0);
    let last = "SELECT kind || ' ' || to_stage || ' ' || reason FROM cutover.transitions \
                ORDER BY epoch DESC LIMIT 1";
    assert_eq!(world.legacy.texts(last).await, ["rollback dual_write test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_past_the_proxy_that_never_pauses_does_not_keep_an_advance_from_draining() {
    let world = World::build(two_replicas("amqp")).await;
    world.advance_to("shadow").await;
    let stop = CancellationToken::new();
    let strangers: Vec<_> = (0..3)
        .map(|number| tokio::spawn(intrude(stop.clone(), world.legacy.clone(), number)))
        .collect();
    let written = "SELECT count(*) FROM campaigns";
    eventually("they write", SOON, async || {
        let written = world.legacy.number(written).await;
        (written >= 100).then_some(()).ok_or(written)
    })
    .await;
    world.verified().await;
    // The first try counts: held back, the strangers cannot defeat it.
    let advanced = world.proxies[0].stage("live", true).await;
    assert!(advanced.status.is_success(), "{}", advanced.body);
    let (mut written, mut refusals) = (0, Vec::new());
    for stranger in strangers {
        let told = stranger.await.expect("a stranger ends well");
        written += told.0;
        refusals.push(told.1);
    }
    stop.cancel();
    for refusal in &refusals {
        assert!(refusal.contains("must go through the proxy"), "{refusal}");
    }
    let rows = world.legacy.number("SELECT count(*) FROM campaigns").await;
    assert_eq!(rows, written, "what strangers were told, and what is there");
    world.assert_same_rows("campaigns").await;
}

/// Inserts past the proxy every 5 ms until it is refused; how many rows, and the refusal.
async fn intrude(stop: CancellationToken, legacy: Database, number: usize) -> (i64, String) {
    let mut written = 0;
    while !stop.is_cancelled() {
        // Two statements of one transaction, so that some are between the two when the drain begins.
        let insert = format!(
            "INSERT INTO campaigns (id, name) VALUES (gen_random_uuid(), 'stranger {number}')"
        );
        let sql = format!("{insert}; {insert}");
        match legacy.try_execute(&sql).await {
            Ok(()) => written += 2,
            Err(refusal) => return (written, refusal),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (written, String::new())
}

async fn flips_lose_nothing(transport: &'static str) {
    let world = World::build(two_replicas(transport)).await;
    world.advance_to("shadow").await;
    let mut writers = Writers::start(&world, 4);
    writers.start_bypass(&world.legacy);
    rows_come(&world).await;
    world.verified().await;
    world.advance_to("live").await;
    rows_come(&world).await;
    world.proxies[1].rollback().await.ok();
    for proxy in &world.proxies {
        proxy.reaches("dual_write", SOON).await;
    }
    rows_come(&world).await;
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    world.settles("campaigns", SOON).await;
    let bypass = histories.last().expect("the bypass is the last");
    assert!(bypass.acknowledged > 0, "{bypass:?}");
    assert!(!bypass.repeated.is_empty(), "live let the bypass through");
    for history in &histories[..4] {
        // Who is held beyond his deadline, on a machine that is busy, is told to repeat, and nothing worse.
        let codes: Vec<&String> = history.repeated.keys().collect();
        assert!(
            codes
                .iter()
                .all(|code| ["backend_unavailable", "outcome_unknown"].contains(&code.as_str())),
            "{history:?}"
        );
    }
    let mut bypassed = 0;
    for proxy in &world.proxies {
        let status = proxy.status().await;
        assert_eq!(status["comparisons"]["confirmed"], 0, "{status}");
        // Whoever pays a bypass counts it.
        bypassed += status["bypass_writes"].as_i64().expect("a count");
    }
    assert!(bypassed > 0);
}

/// Waits until callers have written some more.
async fn rows_come(world: &World) {
    let written = "SELECT count(*) FROM cutover.operations";
    let before = world.legacy.number(written).await;
    eventually("more writes", SOON, async || {
        let more = world.legacy.number(written).await - before;
        (more >= 60).then_some(()).ok_or(more)
    })
    .await;
}

fn two_replicas(transport: &'static str) -> WorldOptions {
    WorldOptions {
        replicas: 2,
        transport,
        ..WorldOptions::default()
    }
}
