//! How long a flip holds writers up, measured on three replicas under 300 writes a second.
//!
//! `tests/run --bench flips`. Each turn advances to `live` and rolls back; the pauses that the proxy tells (and
//! counts in `cutover_flip_pause_seconds`) stand beside what the slowest writer met meanwhile. Then the same again while
//! somebody else holds the lock of a row that a writer waits for.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot measure fails by panicking"
)]

#[path = "../../tests/it/fixture/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the integration tests' fixture has more than is measured"
)]
mod fixture;
mod row_lock;
mod writers;

use std::time::Duration;

use fixture::campaigns::{insert, key};
use fixture::{World, WorldOptions};
use serde_json::json;

use row_lock::RowLock;
use writers::{REQUESTS_PER_SECOND, Writers};

const REPLICAS: usize = 3;
const TURNS: usize = 25;
/// Between two flips, so that each meets a service at work.
const BETWEEN: Duration = Duration::from_millis(700);
/// What is promised of the pause at the 99th percentile.
const PROMISED: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() {
    let world = World::build(WorldOptions {
        replicas: REPLICAS,
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("shadow").await;
    world.verified().await;
    println!("{REPLICAS} replicas, {REQUESTS_PER_SECOND} writes a second, milliseconds");
    println!(
        "{:<26} {:>6} {:>7} {:>7} {:>7} {:>14}",
        "", "flips", "p50", "p99", "most", "slowest write"
    );
    measure(&world, "advance and rollback").await;

    world.proxies[0]
        .query(insert("locked", "by a stranger"))
        .await
        .ok();
    let lock = format!(
        "SELECT 1 FROM campaigns WHERE id = '{}' FOR UPDATE",
        key("locked")
    );
    let stranger = RowLock::take(&world.legacy.url, &lock).await;
    let waiting = tokio::spawn(writers::insist(world.proxies[0].door.clone(), "locked"));
    measure(&world, "the same, a row locked").await;
    stranger.release().await;
    waiting.await.expect("the writer that waited ends well");
}

async fn measure(world: &World, name: &str) {
    let mut pauses = Vec::new();
    let writers = Writers::start(world);
    for _ in 0..TURNS {
        tokio::time::sleep(BETWEEN).await;
        pauses.push(
            flip(
                world,
                "/admin/stage",
                &json!({"to": "live", "reason": "bench", "force": true}),
            )
            .await,
        );
        tokio::time::sleep(BETWEEN).await;
        pauses.push(flip(world, "/admin/rollback", &json!({"reason": "bench"})).await);
        let rearm = json!({"reason": "bench"});
        world.proxies[0]
            .admin()
            .post("/admin/rearm", &rearm)
            .await
            .expect("an answer")
            .ok();
        world.proxies[0].stage("shadow", true).await.ok();
    }
    let slowest = writers.stop().await;
    pauses.sort_unstable();
    let at = |share: f64| pauses[((pauses.len() - 1) as f64 * share).ceil() as usize];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{name:<26} {:>6} {:>7.1} {:>7.1} {:>7.1} {:>14.1}  {}",
        pauses.len(),
        ms(at(0.5)),
        ms(at(0.99)),
        ms(at(1.0)),
        ms(slowest),
        if at(0.99) <= PROMISED {
            "kept"
        } else {
            "MISSED"
        },
    );
}

/// Makes one move, and how long it held writers up (as `cutover_flip_pause_seconds` counts it).
async fn flip(world: &World, path: &str, body: &serde_json::Value) -> Duration {
    let answer = world.proxies[0].admin().post(path, body).await;
    let moved = answer.expect("the admin plane answers").ok();
    let pause_ms = moved["pause_ms"].as_f64().expect("a pause");
    Duration::from_secs_f64(pause_ms / 1e3)
}
