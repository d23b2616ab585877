//! Storage fails in `live`, under load through both doors on three replicas: the authority is back at legacy
//! by itself, and nothing that was acknowledged is lost.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::fixture::history::assert_holds;
use crate::fixture::load::Load;
use crate::fixture::{Signal, Wiring, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(60);
/// The failure rate's windows are full of good answers before anything fails.
const GOOD_TIMES: Duration = Duration::from_secs(6);
const ENOUGH_WRITES: i64 = 100;
const WINDOWS: &str = r#"
[guard.failure_rate]
window = "5s"
min_samples = 50
[guard.latency_delta]
window = "5s"
min_samples = 50
"#;

/// Under load, one call in a hundred has failed long before storage counts as gone.
const DOWN: &[&str] = &["unavailable", "failure_rate"];

/// What goes wrong.
enum Fault {
    /// The reference service misbehaves as it is told.
    Told(Value),
    /// `kill -9`.
    Killed,
    /// It no longer runs, and nobody closed its connections.
    Frozen,
    /// Packets between every replica and the storage service are dropped.
    LineToStorageCut,
    /// Packets between every replica and RabbitMQ are dropped.
    LineToBrokerCut,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_refuses() {
    gives_the_authority_back("amqp", Fault::Told(json!({"refuse": true})), DOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_killed() {
    gives_the_authority_back("amqp", Fault::Killed, DOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_freezes() {
    gives_the_authority_back("amqp", Fault::Frozen, DOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_packets_to_storage() {
    gives_the_authority_back("http", Fault::LineToStorageCut, DOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_packets_to_the_broker() {
    gives_the_authority_back("amqp", Fault::LineToBrokerCut, DOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_errs() {
    gives_the_authority_back(
        "amqp",
        Fault::Told(json!({"error_rate": 0.1})),
        &["failure_rate"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_takes_no_writes() {
    let fault = Fault::Told(json!({"read_only": true}));
    gives_the_authority_back("http", fault, &["failure_rate"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_loses_replies() {
    let fault = Fault::Told(json!({"lost_reply_rate": 0.1}));
    gives_the_authority_back("amqp", fault, &["failure_rate"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_slow() {
    gives_the_authority_back(
        "amqp",
        Fault::Told(json!({"latency_ms": 400})),
        &["latency_delta"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_lies() {
    let fault = Fault::Told(json!({"corrupt_rate": 0.2}));
    gives_the_authority_back("http", fault, &["inconsistency"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicated_replies_are_no_reason_to_go_back() {
    let world = World::build(three_replicas("amqp")).await;
    world.advance_to("live").await;
    let load = Load::start(&world, true).await;
    world
        .storage
        .fault(&json!({"duplicate_reply_rate": 0.5}))
        .await;
    writes_come(&world).await;
    tokio::time::sleep(GOOD_TIMES).await;
    let told = load.stop().await;
    assert_eq!(world.proxies[0].status().await["stage"], "live");
    assert!(told.failed_reads.is_empty(), "{:?}", told.failed_reads);
    assert!(
        told.failed_writes().is_empty(),
        "{:?}",
        told.failed_writes()
    );
    assert_holds(&world.legacy, &told.histories).await;
    assert_holds(&world.storage_database, &told.histories).await;
}

async fn gives_the_authority_back(transport: &'static str, fault: Fault, triggers: &[&str]) {
    let mut world = World::build(three_replicas(transport)).await;
    world.advance_to("live").await;
    // Without the broker the AMQP door is closed, whatever the proxy does.
    let amqp = !matches!(fault, Fault::LineToBrokerCut);
    let load = Load::start(&world, amqp).await;
    writes_come(&world).await;
    tokio::time::sleep(GOOD_TIMES).await;
    assert_eq!(world.proxies[0].status().await["stage"], "live");

    let failed_us = unix_us();
    begin(&fault, &mut world).await;
    for proxy in &world.proxies {
        let status = proxy.reaches("dual_write", SOON).await;
        assert_eq!(status["latched"], true, "{status}");
    }
    // And callers go on.
    writes_come(&world).await;
    end(&fault, &mut world).await;
    let told = load.stop().await;

    let record = rollback_record(&world).await;
    let actor = record["actor"].as_str().expect("a trigger");
    assert!(triggers.contains(&actor), "{record}");
    for member in ["value", "threshold", "samples"] {
        assert!(record["evidence"][member].is_number(), "{record}");
    }
    let after = Duration::from_micros(
        u64::try_from(record["at_us"].as_i64().expect("a time") - failed_us).unwrap_or(0),
    );
    println!(
        "{actor}: back at legacy {after:?} after the fault; {} reads, failed {:?}; {} writes, repeated {:?}",
        told.reads,
        told.failed_reads,
        told.writes(),
        told.failed_writes()
    );
    assert!(told.failed_reads.is_empty(), "{:?}", told.failed_reads);
    assert!(told.stale_reads.is_empty(), "{:#?}", told.stale_reads);
    assert_holds(&world.legacy, &told.histories).await;
    world.settles("campaigns", SOON).await;
    nothing_is_owed(&world).await;
    let back = "SELECT count(*) FROM cutover.transitions WHERE kind = 'guard'";
    assert_eq!(
        world.legacy.number(back).await,
        1,
        "one rollback, and no more"
    );
}

async fn begin(fault: &Fault, world: &mut World) {
    match fault {
        Fault::Told(faults) => world.storage.fault(faults).await,
        Fault::Killed => world.storage.process.kill(),
        Fault::Frozen => world.storage.process.signal(Signal::STOP),
        Fault::LineToStorageCut => world.lines.iter().for_each(|lines| lines.storage.cut()),
        Fault::LineToBrokerCut => world.lines.iter().for_each(|lines| lines.broker.cut()),
    }
}

async fn end(fault: &Fault, world: &mut World) {
    match fault {
        Fault::Told(_) => world.storage.heal().await,
        Fault::Killed => world.storage.restart().await,
        Fault::Frozen => world.storage.process.signal(Signal::CONT),
        Fault::LineToStorageCut => world.lines.iter().for_each(|lines| lines.storage.mend()),
        Fault::LineToBrokerCut => world.lines.iter().for_each(|lines| lines.broker.mend()),
    }
}

/// The guard's record in the audit.
async fn rollback_record(world: &World) -> Value {
    let record = "SELECT json_build_object('actor', actor, 'at_us', at_us, 'evidence', evidence::json)::text \
                  FROM cutover.transitions WHERE kind = 'guard'";
    let records = world.legacy.texts(record).await;
    serde_json::from_str(&records[0]).expect("JSON")
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
    let owed = "SELECT count(*) FROM cutover.journal";
    eventually("nothing is owed", SOON, async || {
        let owed = world.legacy.number(owed).await;
        (owed == 0).then_some(()).ok_or(owed)
    })
    .await;
}

fn unix_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_micros()).expect("before 292,000 AD")
}

fn three_replicas(transport: &'static str) -> WorldOptions {
    WorldOptions {
        replicas: 3,
        transport,
        guard: WINDOWS.to_owned(),
        wiring: Wiring::Lines,
        ..WorldOptions::default()
    }
}
