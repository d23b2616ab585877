//! The guard: what storage does wrong, it undoes by itself, once, with its evidence, and loses nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fixture::campaigns::{insert, key, select};
use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::{Proxy, Servers, Wiring, World, WorldOptions, amqp, eventually};

const SOON: Duration = Duration::from_secs(40);
/// Windows of seconds, so that a test does not take minutes.
const SHORT: &str = "[guard.failure_rate]
window = \"5s\"
min_samples = 20
[guard.latency_delta]
window = \"2s\"
min_samples = 10
";

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_refuses_is_rolled_back_from_live() {
    rolled_back_from_live(json!({"refuse": true}), &["unavailable", "failure_rate"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_fails_now_and_then_is_rolled_back_from_live() {
    rolled_back_from_live(json!({"error_rate": 0.2}), &["failure_rate"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_storage_is_rolled_back_from_live() {
    rolled_back_from_live(json!({"latency_ms": 400}), &["latency_delta"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_storage_is_rolled_back_from_live() {
    rolled_back_from_live(json!({"corrupt_rate": 1.0}), &["inconsistency"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_dies_in_a_quiet_hour_is_noticed_by_probes() {
    let mut world = guarded(SHORT, 1).await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    eventually("a probe was answered", SOON, async || {
        let status = proxy.status().await;
        let samples = trigger(&status, "unavailable")["samples"].as_i64();
        (samples > Some(1)).then_some(()).ok_or(status)
    })
    .await;
    world.storage.process.kill();
    let proxy = &world.proxies[0];
    proxy.reaches("dual_write", SOON).await;
    let read = proxy.query(select("one")).await;
    assert_eq!(read.header("x-cutover-backend"), "legacy");
    assert_eq!(read.ok()[0]["name"], "Spring");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_whose_packets_vanish_is_noticed_by_what_never_comes_back() {
    let world = World::build(WorldOptions {
        transport: "http",
        wiring: Wiring::Lines,
        guard: SHORT.to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    let cut_at = Instant::now();
    world.lines[0].storage.cut();
    proxy.reaches("dual_write", SOON).await;
    println!("rolled back {:?} after the line was cut", cut_at.elapsed());
    let records = guard_records(proxy).await;
    assert_eq!(records[0]["evidence"]["trigger"], "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_dual_write_a_trigger_only_latches_until_it_is_rearmed() {
    let world = guarded(SHORT, 1).await;
    world.advance_to("dual_write").await;
    let proxy = &world.proxies[0];
    world.storage.fault(&json!({"refuse": true})).await;
    proxy.query(insert("one", "Spring")).await.ok();
    latched(proxy).await;
    let status = proxy.status().await;
    assert_eq!(status["stage"], "dual_write", "{status}");
    let records = guard_records(proxy).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["step"], "freeze");
    assert_eq!(proxy.query(select("one")).await.ok()[0]["name"], "Spring");
    world.storage.heal().await;
    world.settles("campaigns", SOON).await;
    let (admin, body) = (proxy.admin(), json!({"reason": "mended"}));
    let rearmed = admin.post("/admin/rearm", &body).await;
    rearmed.expect("the admin plane answers").ok();
    // What was measured before does not latch it again.
    eventually("the failures are forgotten", SOON, async || {
        let status = proxy.status().await;
        let rate = trigger(&status, "failure_rate");
        (rate["state"] == "ok").then_some(()).ok_or(status)
    })
    .await;
    assert_eq!(proxy.status().await["latched"], false);
    assert_eq!(guard_records(proxy).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_verify_confirms_freezes_in_shadow_and_rolls_back_from_live() {
    let world = guarded(SHORT, 1).await;
    world.advance_to("dual_write").await;
    let proxy = &world.proxies[0];
    for id in ["one", "two"] {
        proxy.query(insert(id, "Spring")).await.ok();
    }
    world.settles("campaigns", SOON).await;
    world.verified().await;
    for (stage, ends_in, id) in [("shadow", "shadow", "one"), ("live", "dual_write", "two")] {
        world.advance_to(stage).await;
        let id = key(id);
        let spoil = format!("UPDATE campaigns SET name = 'spoilt' WHERE id = '{id}'");
        world.storage_database.execute(&spoil).await;
        let (status, said) = proxy.operate(&["verify", "--reason", "test"]).await;
        assert_eq!(status.code(), Some(1), "{said}");
        latched(proxy).await;
        let status = proxy.reaches(ends_in, SOON).await;
        let record = &guard_records(proxy).await[0];
        assert_eq!(record["evidence"]["trigger"], "inconsistency", "{status}");
        assert_eq!(
            (&record["from"], &record["to"]),
            (&json!(stage), &json!(ends_in))
        );
        let mend = ["verify", "--repair", "--reason", "test"];
        let (status, said) = proxy.operate(&mend).await;
        assert_eq!(status.code(), Some(1), "{said}");
        world.settles("campaigns", SOON).await;
        let (status, said) = proxy.operate(&["verify", "--reason", "test"]).await;
        assert!(status.success(), "{said}");
        let body = json!({"reason": "mended"});
        let rearmed = proxy.admin().post("/admin/rearm", &body).await;
        rearmed.expect("the admin plane answers").ok();
    }
    let names = "SELECT count(*) FROM campaigns WHERE name = 'Spring'";
    assert_eq!(world.legacy.number(names).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_observes_fires_and_moves_nothing() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    world.storage.fault(&json!({"refuse": true})).await;
    eventually("the trigger fires", SOON, async || {
        let status = proxy.status().await;
        let fired = trigger(&status, "unavailable")["state"] == "fired";
        fired.then_some(()).ok_or(status)
    })
    .await;
    let status = proxy.status().await;
    assert_eq!(status["stage"], "live", "{status}");
    assert_eq!(status["latched"], false, "{status}");
    assert!(guard_records(proxy).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_make_one_transition_of_it() {
    let world = guarded(SHORT, 3).await;
    world.advance_to("live").await;
    world.storage.fault(&json!({"refuse": true})).await;
    for proxy in &world.proxies {
        proxy.reaches("dual_write", SOON).await;
    }
    let records = guard_records(&world.proxies[0]).await;
    assert_eq!(records.len(), 1, "{records:?}");
    let evidence = &records[0]["evidence"];
    assert_eq!(evidence["replicas"], 3, "{evidence}");
    assert!(evidence["votes"].as_i64() >= Some(2), "{evidence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_told_on_the_hub_and_by_webhook() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let hook = listener.local_addr().expect("an address");
    let guard = format!("[guard]\nwebhook = \"http://{hook}/told\"\n{SHORT}");
    let world = guarded(&guard, 1).await;
    let servers = Servers::from_env();
    let mut hub = amqp::bound(&servers.amqp_url, "message_hub", "cutover.rollback").await;
    world.advance_to("live").await;
    let replica = world.proxies[0].status().await["replicas"][0]["id"].clone();
    world.storage.fault(&json!({"refuse": true})).await;
    let posted = tokio::time::timeout(SOON, first_post(&listener)).await;
    let posted = posted.expect("the webhook is called");
    assert_eq!(posted["event"], "rollback", "{posted}");
    assert_eq!(posted["replica"], replica);
    let own = async {
        loop {
            let message = hub.next().await;
            if message["replica"] == replica {
                return message;
            }
        }
    };
    let published = tokio::time::timeout(SOON, own).await.expect("a message");
    assert_eq!(published, posted);
    for member in ["trigger", "value", "threshold", "samples", "window_seconds"] {
        assert!(!published[member].is_null(), "{member}: {published}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_weakens_the_guard_is_on_record() {
    let world = guarded("", 1).await;
    let proxy = &world.proxies[0];
    proxy.reload_with("[guard.failure_rate]\nthreshold = 0.5\naction = \"observe\"\n");
    let weakened = "SELECT details FROM cutover.actions WHERE kind = 'weaken_guard'";
    let details = eventually("an action", SOON, async || {
        let found = world.legacy.texts(weakened).await;
        found.into_iter().next().ok_or("no record")
    })
    .await;
    let details: Value = serde_json::from_str(&details).expect("JSON");
    let keys: Vec<&Value> = details["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| &change["key"])
        .collect();
    let expected = ["guard.failure_rate.threshold", "guard.failure_rate.action"];
    assert_eq!(keys, expected, "{details}");
    eventually("the trigger shows it", SOON, async || {
        let status = proxy.status().await;
        let rate = trigger(&status, "failure_rate");
        (rate["threshold"] == 0.5).then_some(()).ok_or(status)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_are_written_in_a_quiet_hour_and_compared_like_any_row() {
    let table = "CREATE TABLE canary (id TEXT PRIMARY KEY, at TIMESTAMPTZ NOT NULL);";
    let default = WorldOptions::default();
    let world = World::build(WorldOptions {
        ddl: format!("{}\n{table}", default.ddl),
        tables: format!("{}\n[[tables]]\nname = \"canary\"\n", default.tables),
        guard: "[guard.canary]\ntable = \"canary\"\nevery = \"200ms\"\n".to_owned(),
        ..default
    })
    .await;
    for stage in ["dual_write", "live"] {
        world.advance_to(stage).await;
        let later = "SELECT count(*) FROM canary WHERE at > now() - interval '1 second'";
        eventually("a canary in storage", SOON, async || {
            let rows = world.storage_database.number(later).await;
            (rows == 1).then_some(()).ok_or(rows)
        })
        .await;
        assert_eq!(world.legacy.number("SELECT count(*) FROM canary").await, 1);
    }
    let status = world.proxies[0].status().await;
    assert_eq!(status["stage"], "live", "{status}");
    assert_eq!(status["comparisons"]["confirmed"], 0, "{status}");
}

async fn guarded(guard: &str, replicas: usize) -> World {
    World::build(WorldOptions {
        replicas,
        guard: guard.to_owned(),
        ..WorldOptions::default()
    })
    .await
}

/// One rollback, by one of these triggers, with its evidence, latched; acknowledged writes are in legacy.
async fn rolled_back_from_live(fault: Value, triggers: &[&str]) {
    let world = guarded(SHORT, 1).await;
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    let writers = Writers::start(&world, 2);
    eventually("the triggers see", SOON, async || {
        let status = proxy.status().await;
        let all = status["guard"].as_array().expect("triggers");
        let blind = all.iter().any(|one| one["state"] == "blind");
        (!blind && all.len() == 4).then_some(()).ok_or(status)
    })
    .await;
    world.storage.fault(&fault).await;
    let status = proxy.reaches("dual_write", SOON).await;
    assert_eq!(status["latched"], true, "{status}");
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    let records = guard_records(proxy).await;
    assert_eq!(records.len(), 1, "{records:?}");
    let evidence = &records[0]["evidence"];
    let fired = evidence["trigger"].as_str().expect("a trigger");
    assert!(triggers.contains(&fired), "{evidence}");
    assert_eq!(records[0]["from"], "live");
    assert_eq!(records[0]["actor"], fired);
    assert!(evidence["value"].as_f64() >= evidence["threshold"].as_f64());
    for member in ["samples", "window_seconds", "replica"] {
        assert!(!evidence[member].is_null(), "{member}: {evidence}");
    }
    let counted = format!("cutover_rollbacks_total{{trigger=\"{fired}\"}} 1");
    proxy.shows(&counted, SOON).await;
    world.storage.heal().await;
    world.settles("campaigns", SOON).await;
}

async fn latched(proxy: &Proxy) {
    eventually("latched", SOON, async || {
        let status = proxy.status().await;
        (status["latched"] == true).then_some(()).ok_or(status)
    })
    .await;
}

/// One trigger of a status; null before the first evaluation.
fn trigger<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["guard"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter()
        .find(|one| one["trigger"] == name)
        .unwrap_or(&Value::Null)
}

/// What the guard did, the newest first.
async fn guard_records(proxy: &Proxy) -> Vec<Value> {
    let answer = proxy.admin().get("/admin/transitions").await;
    let history = answer.expect("the admin plane answers").ok();
    let records = history["transitions"].as_array().expect("records");
    let by_guard = records.iter().filter(|record| record["kind"] == "guard");
    by_guard.cloned().collect()
}

/// The body of the first POST that comes, answered with a success.
async fn first_post(listener: &TcpListener) -> Value {
    let (mut client, _) = listener.accept().await.expect("a client");
    let mut request = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = client.read(&mut part).await.expect("a request");
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        if let Some(Ok(body)) = body.map(|body| serde_json::from_str(&body)) {
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            client.write_all(answer).await.expect("an answer");
            assert!(text.starts_with("POST /told "), "{text}");
            return body;
        }
    }
}
