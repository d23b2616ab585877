//! How long a flip holds writers up, measured on three replicas under 300 writes a second, or as many as asked
//! for.
//!
//! `tests/run --bench flips [-- RATE]`. Each turn advances to `live` and rolls back; the pauses that the proxy tells (and
//! counts in `cutover_flip_pause_seconds`) stand beside what the slowest writer met meanwhile. Then the same again while
//! somebody else holds, for a minute, the lock of a row that a writer waits for.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot measure fails by panicking"
)]

#[path = "../fixture/mod.rs"]
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
/// As many as fit into a minute: that long the lock of a row is held.
const TURNS: usize = 16;
/// Between two flips, so that each meets a service at work.
const BETWEEN: Duration = Duration::from_millis(700);
/// Requests that were under way at a rollback keep their deadlines, and their keys are paid only after those: until
/// then an advance would have to wait for them.
const AFTER_ROLLBACK: Duration = Duration::from_millis(2_000);
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
    let mut arguments = std::env::args().skip(1).filter_map(|one| one.parse().ok());
    let rate = arguments.next().unwrap_or(REQUESTS_PER_SECOND);
    println!("{REPLICAS} replicas, {rate} writes a second asked for, milliseconds");
    println!(
        "{:<34} {:>6} {:>7} {:>7} {:>7}",
        "pause", "flips", "p50", "p99", "most"
    );
    measure(&world, "rows are free", rate).await;

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
    measure(&world, "a row is locked", rate).await;
    stranger.release().await;
    waiting.await.expect("the writer that waited ends well");
}

async fn measure(world: &World, name: &str, rate: u32) {
    let (mut advances, mut rollbacks) = (Vec::new(), Vec::new());
    let writers = Writers::start(world, rate);
    for _ in 0..TURNS {
        tokio::time::sleep(BETWEEN).await;
        let to_live = json!({"to": "live", "reason": "bench", "force": true});
        advances.push(flip(world, "/admin/stage", &to_live).await);
        tokio::time::sleep(BETWEEN).await;
        let reason = json!({"reason": "bench"});
        rollbacks.push(flip(world, "/admin/rollback", &reason).await);
        let rearmed = world.proxies[0].admin().post("/admin/rearm", &reason).await;
        rearmed.expect("an answer").ok();
        world.proxies[0].stage("shadow", true).await.ok();
        tokio::time::sleep(AFTER_ROLLBACK).await;
    }
    let written = writers.stop().await;
    println!("{}", line(&format!("{name}: advance"), advances));
    println!("{}", line(&format!("{name}: rollback"), rollbacks));
    println!(
        "{name}: {:.0} writes a second, the slowest in {:.0} ms",
        written.per_second,
        written.slowest.as_secs_f64() * 1e3
    );
}

fn line(name: &str, mut pauses: Vec<Duration>) -> String {
    pauses.sort_unstable();
    let at = |share: f64| pauses[((pauses.len() - 1) as f64 * share).ceil() as usize];
    let ms = |share| at(share).as_secs_f64() * 1e3;
    let verdict = if at(0.99) <= PROMISED {
        "kept"
    } else {
        "MISSED"
    };
    format!(
        "{name:<34} {:>6} {:>7.0} {:>7.0} {:>7.0}  {verdict}",
        pauses.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0),
    )
}

/// Makes one move, and how long it held writers up (as `cutover_flip_pause_seconds` counts it).
async fn flip(world: &World, path: &str, body: &serde_json::Value) -> Duration {
    let answer = world.proxies[0].admin().post(path, body).await;
    let moved = answer.expect("the admin plane answers").ok();
    let pause_ms = moved["pause_ms"].as_f64().expect("a pause");
    Duration::from_secs_f64(pause_ms / 1e3)
}
