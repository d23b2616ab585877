//! What moving old rows costs, measured side by side in one run.
//!
//! `cargo bench --bench moving -- 1000000`, with `CUTOVER_TEST_POSTGRES` and `CUTOVER_TEST_AMQP` as the integration
//! tests have them. The rows are spread over as many tables as there are rounds, and each round moves (or compares)
//! one table by the proxy and by a bare loop, the order swapped every round, so that other load on the machine meets
//! both alike. Only ratios mean something.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot measure fails by panicking"
)]

mod bare;
mod callers;
mod figures;

#[path = "../fixture/mod.rs"]
mod fixture;

use std::time::{Duration, Instant};

use fixture::{Proxy, World, WorldOptions};
use serde_json::{Value, json};

use bare::Bare;
use figures::{Figure, header};

/// Rows without an argument.
const ROWS: u64 = 1_000_000;
/// Rounds, and tables.
const ROUNDS: u64 = 10;
/// The least share of a bare loop's speed that is promised.
const SPEED_MIN: f64 = 0.7;
/// The most that the proxy's memory may grow, in MiB.
const GROWTH_MIB_MAX: f64 = 64.0;
/// How often a job is looked at.
const POLL: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() {
    // cargo passes arguments of its own.
    let rows = std::env::args().find_map(|argument| argument.parse().ok());
    let rows: u64 = rows.unwrap_or(ROWS).max(ROUNDS);
    for name in ["CUTOVER_TEST_POSTGRES", "CUTOVER_TEST_AMQP"] {
        if std::env::var_os(name).is_none() {
            eprintln!("{name} is not set: it is the URL of a server to measure on");
            std::process::exit(2);
        }
    }
    let world = World::build(options()).await;
    // Its storage service is the bare loop's.
    let beside = World::build(options()).await;
    println!("{rows} rows in {ROUNDS} tables");
    for table in 0..ROUNDS {
        world.legacy.execute(&fill(table, rows / ROUNDS)).await;
    }
    world.advance_to("dual_write").await;
    let bare = Bare::open(&world, &beside).await;
    let proxy = &world.proxies[0];
    let memory = resident_mib(proxy).await;

    let mut backfill = Figure::new("backfill: rows/s / bare loop", SPEED_MIN);
    for round in 0..ROUNDS {
        let table = name(round);
        let (ours, theirs);
        if round % 2 == 0 {
            ours = job(proxy, "backfill", &table).await;
            theirs = timed(bare.copy(&table)).await;
        } else {
            theirs = timed(bare.copy(&table)).await;
            ours = job(proxy, "backfill", &table).await;
        }
        backfill.add(rows / ROUNDS, ours, theirs);
    }
    let mut verify = Figure::new("verify: rows/s / bare loop", SPEED_MIN);
    for round in 0..ROUNDS {
        let table = name(round);
        let (ours, theirs);
        if round % 2 == 0 {
            ours = job(proxy, "verify", &table).await;
            theirs = timed(bare.read_both(&table)).await;
        } else {
            theirs = timed(bare.read_both(&table)).await;
            ours = job(proxy, "verify", &table).await;
        }
        verify.add(rows / ROUNDS, ours, theirs);
    }
    let grown = resident_mib(proxy).await - memory;
    println!("{}", header());
    println!("{}", backfill.line());
    println!("{}", verify.line());
    println!(
        "{}",
        figures::at_most("proxy's memory: growth in MiB", GROWTH_MIB_MAX, grown)
    );
    println!("{}", callers::during_a_backfill(proxy).await);
}

fn options() -> WorldOptions {
    let tables = (0..ROUNDS).map(|table| format!("[[tables]]\nname = \"{}\"\n", name(table)));
    WorldOptions {
        ddl: (0..ROUNDS).map(ddl).collect(),
        tables: tables.collect(),
        ..WorldOptions::default()
    }
}

fn name(table: u64) -> String {
    format!("campaigns_{table}")
}

fn ddl(table: u64) -> String {
    let name = name(table);
    format!(
        "CREATE TABLE {name} (id uuid PRIMARY KEY, name text NOT NULL, description text, theme_data jsonb, \
         created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());"
    )
}

fn fill(table: u64, rows: u64) -> String {
    let name = name(table);
    format!(
        "INSERT INTO {name} SELECT md5(i::text)::uuid, 'Campaign ' || i, \
         'A campaign as applications have them, with a line or two about it.', \
         '{{\"primary\": \"#336699\", \"accent\": \"#ffcc00\", \"fonts\": [\"Inter\", \"Lora\"]}}' \
         FROM generate_series(1, {rows}) i; ANALYZE {name};"
    )
}

/// How long a job takes for one table, from asking for it to its end.
async fn job(proxy: &Proxy, kind: &str, table: &str) -> Duration {
    let started = Instant::now();
    let path = begin(
        proxy,
        kind,
        &json!({"tables": [table], "reason": "measured"}),
    )
    .await;
    let ended = end_of(proxy, &path).await;
    assert_eq!(ended["state"], "done", "{ended:#}");
    if kind == "verify" {
        assert_eq!(ended["result"]["clean"], true, "{ended:#}");
    }
    started.elapsed()
}

/// Starts a job; where it is looked at.
async fn begin(proxy: &Proxy, kind: &str, body: &Value) -> String {
    let answer = proxy.admin().post(&format!("/admin/{kind}"), body).await;
    let answer = answer.expect("the proxy answers").ok();
    format!("/admin/jobs/{}", answer["id"].as_str().expect("an id"))
}

async fn end_of(proxy: &Proxy, path: &str) -> Value {
    let admin = proxy.admin();
    loop {
        let job = admin.get(path).await.expect("the proxy answers").ok();
        if job["state"] != "running" {
            return job;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn timed(work: impl Future<Output = ()>) -> Duration {
    let started = Instant::now();
    work.await;
    started.elapsed()
}

async fn resident_mib(proxy: &Proxy) -> f64 {
    let metrics = proxy.metrics().await;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    let bytes: f64 = line.expect("the metric").parse().expect("a number");
    bytes / f64::from(1 << 20)
}
