//! What moving old rows costs, measured side by side in one run.
//!
//! `cargo bench --bench moving -- 50000`, with `CUTOVER_TEST_POSTGRES` and `CUTOVER_TEST_AMQP` as the integration
//! tests have them. The rows are spread over as many tables as there are rounds. Each round moves one table, or compares
//! all of them, by the proxy and by a bare loop, the order swapped every round, so that other load on the machine meets
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
use figures::{Figure, Spread, at_most, header};

/// Rows without an argument.
const ROWS: u64 = 50_000;
/// Rounds, and tables.
const ROUNDS: u64 = 10;
/// The least share of a bare loop's speed that is promised.
const SPEED_MIN: f64 = 0.7;
/// The most that the proxy's memory may grow, in MiB.
const GROWTH_MIB_MAX: f64 = 64.0;
/// How often a job is looked at: seldom enough to cost it nothing, often enough to count for nothing in a round.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is measured against a bare loop.
#[derive(Clone, Copy)]
enum Work {
    Backfill,
    Verify,
}

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

    let backfill = measure(Work::Backfill, proxy, &bare, rows).await;
    let verify = measure(Work::Verify, proxy, &bare, rows).await;
    let grown = Spread::of(vec![resident_mib(proxy).await - memory]);
    println!("{}\n{}\n{}", header(), backfill.line(), verify.line());
    println!(
        "{}",
        at_most("proxy's memory: growth in MiB", GROWTH_MIB_MAX, &grown)
    );
    println!("{}", callers::during_a_backfill(proxy).await);
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Verify => "verify",
        }
    }

    /// The name of its figure.
    fn figure(self) -> &'static str {
        match self {
            Self::Backfill => "backfill: rows/s / bare loop",
            Self::Verify => "verify: rows/s / bare loop",
        }
    }

    /// The tables of a round: a table is filled once, and all can be read again and again.
    fn tables(self, round: u64) -> Vec<String> {
        match self {
            Self::Backfill => vec![name(round)],
            Self::Verify => (0..ROUNDS).map(name).collect(),
        }
    }

    /// By a bare loop.
    async fn by_hand(self, bare: &Bare, tables: &[String]) -> Duration {
        let started = Instant::now();
        for table in tables {
            match self {
                Self::Backfill => bare.copy(table).await,
                Self::Verify => bare.read_both(table).await,
            }
        }
        started.elapsed()
    }
}

/// Both sides in turns, the order swapped every round.
async fn measure(work: Work, proxy: &Proxy, bare: &Bare, rows: u64) -> Figure {
    let mut figure = Figure::new(work.figure(), SPEED_MIN);
    for round in 0..ROUNDS {
        let tables = work.tables(round);
        let (ours, theirs);
        if round % 2 == 0 {
            ours = job(proxy, work, &tables).await;
            theirs = work.by_hand(bare, &tables).await;
        } else {
            theirs = work.by_hand(bare, &tables).await;
            ours = job(proxy, work, &tables).await;
        }
        figure.add(rows / ROUNDS * tables.len() as u64, ours, theirs);
    }
    figure
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

/// How long a job takes, from asking for it to its end.
async fn job(proxy: &Proxy, work: Work, tables: &[String]) -> Duration {
    let started = Instant::now();
    let body = json!({"tables": tables, "reason": "measured"});
    let path = begin(proxy, work, &body).await;
    let ended = end_of(proxy, &path, LOOK_EVERY).await;
    let took = started.elapsed();
    assert_eq!(ended["state"], "done", "{ended:#}");
    match work {
        Work::Backfill => {}
        Work::Verify => assert_eq!(ended["result"]["clean"], true, "{ended:#}"),
    }
    took
}

/// Starts a job; where it is looked at.
async fn begin(proxy: &Proxy, work: Work, body: &Value) -> String {
    let path = format!("/admin/{}", work.as_str());
    let answer = proxy.admin().post(&path, body).await;
    let answer = answer.expect("the proxy answers").ok();
    format!("/admin/jobs/{}", answer["id"].as_str().expect("an id"))
}

/// Waits for a job's end.
async fn end_of(proxy: &Proxy, path: &str, look_every: Duration) -> Value {
    let admin = proxy.admin();
    loop {
        let job = admin.get(path).await.expect("the proxy answers").ok();
        if job["state"] != "running" {
            return job;
        }
        tokio::time::sleep(look_every).await;
    }
}

async fn resident_mib(proxy: &Proxy) -> f64 {
    let metrics = proxy.metrics().await;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    let bytes: f64 = line.expect("the metric").parse().expect("a number");
    bytes / f64::from(1 << 20)
}
